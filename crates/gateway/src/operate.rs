//! What operators see of a runtime: the configuration that it serves, and what its components do.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use serde_json::{Value, json};

/// The configuration that a runtime serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigurationState {
    /// Where it is from, for people: a file's name.
    pub source: String,
    /// SHA-256 of its text, in hexadecimal; none where it is no text.
    pub digest: Option<String>,
    /// Since when it is served, since 1970-01-01 UTC.
    pub since: Duration,
    /// How often it was read anew and taken over.
    pub reloads: u64,
    /// How often it was read anew and refused.
    pub refusals: u64,
    /// The last refusal that nothing was taken over after.
    pub refused: Option<Refusal>,
}

/// A configuration that was refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// When, since 1970-01-01 UTC.
    pub at: Duration,
    /// What is wrong with it, each for people. No secret is in here.
    pub problems: Vec<String>,
}

/// What became of reading the configuration anew.
#[derive(Clone, Debug, PartialEq)]
pub enum Reload {
    /// The runtime has no way to do that.
    Unsupported,
    /// It is the same as before, with the same components.
    Unchanged,
    /// It is served now.
    Done,
    /// It has these problems; the one before is served on.
    Refused(Vec<String>),
}

impl ConfigurationState {
    pub(crate) fn json(&self) -> Value {
        json!({
            "source": self.source, "digest": self.digest, "since": self.since.as_secs(), "reloads": self.reloads,
            "refusals": self.refusals,
            "refused": self.refused.as_ref().map(|refusal| json!({
                "at": refusal.at.as_secs(), "problems": refusal.problems,
            })),
        })
    }
}

/// What a component has done since the runtime began to count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ComponentState {
    /// `adapter`, `policy` or `normaliser`.
    pub kind: String,
    /// As the configuration names it.
    pub name: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// Its calls, by what was called.
    pub calls: Vec<CallState>,
    /// Calls that failed, by what the component did: `trap`, `time`, `memory`, `output`, `start`.
    pub failures: Vec<(&'static str, u64)>,
    /// Requests that it refused, as the contract allows.
    pub refusals: u64,
    /// Instances that were made.
    pub instances: u64,
    /// The most linear memory that one instance has had, in bytes.
    pub memory_peak: u64,
    /// The most that one may have, in bytes.
    pub memory_limit: u64,
    /// The most elements that one of its tables may have.
    pub table_limit: u64,
    /// The longest that one call may take.
    pub call_time: Duration,
}

/// The calls of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallState {
    /// `encode` and `feed` of adapters, `on-request` and `feed` of policies, `parse` and `feed` of the normaliser.
    pub call: &'static str,
    /// How long they took together.
    pub total: Duration,
    /// How many took at most so long, and longer than the one before; those that are empty may be left out.
    pub buckets: Vec<(Duration, u64)>,
}

impl CallState {
    /// How many calls there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// What so many of a hundred calls took at most; none without calls.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let mut left = (u128::from(self.count()) * u128::from(percent)).div_ceil(100);
        if left == 0 {
            return None;
        }
        self.buckets.iter().find_map(|(most, count)| {
            left = left.saturating_sub(u128::from(*count));
            (left == 0).then_some(*most)
        })
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

impl ComponentState {
    pub(crate) fn json(&self) -> Value {
        let calls: serde_json::Map<_, _> = self
            .calls
            .iter()
            .map(|calls| {
                let buckets: Vec<_> = calls.buckets.iter().map(|(most, count)| json!([micros(*most), count])).collect();
                let json = json!({
                    "count": calls.count(), "total_us": micros(calls.total),
                    "p50_us": calls.percentile(50).map(micros), "p99_us": calls.percentile(99).map(micros),
                    "buckets_us": buckets,
                });
                (calls.call.to_owned(), json)
            })
            .collect();
        let failures: BTreeMap<_, _> = self.failures.iter().copied().collect();
        json!({
            "kind": self.kind, "name": self.name, "sha256": self.digest, "calls": calls, "failures": failures,
            "refusals": self.refusals, "instances": self.instances,
            "memory": {"peak_bytes": self.memory_peak, "limit_bytes": self.memory_limit},
            "tables": {"limit_elements": self.table_limit},
            "call_limit_ms": self.call_time.as_secs_f64() * 1e3,
        })
    }
}

/// Upper bounds of the buckets that metrics have, in seconds.
const SECONDS: [f64; 14] = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, f64::INFINITY];

/// Components and the configuration, as metrics.
#[derive(Debug)]
pub(crate) struct Operated {
    pub components: Vec<ComponentState>,
    pub configuration: Option<ConfigurationState>,
}

impl Operated {
    fn components(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if self.components.is_empty() {
            return Ok(());
        }
        let help = "How long calls into components took";
        let name = "witgate_component_call_duration";
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (of, calls) in self.components.iter().flat_map(|of| of.calls.iter().map(move |calls| (of, calls))) {
            let labels = [("component", of.name.as_str()), ("kind", of.kind.as_str()), ("call", calls.call)];
            let mut buckets = SECONDS.map(|most| (most, 0_u64));
            for (most, count) in &calls.buckets {
                let most = most.as_secs_f64();
                if let Some((_, sum)) = buckets.iter_mut().find(|(bound, _)| most <= *bound) {
                    *sum += count;
                }
            }
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(calls.total.as_secs_f64(), calls.count(), &buckets, None)?;
        }
        /// By the kind of failure, where it has kinds.
        type Values = fn(&ComponentState) -> Vec<(&'static str, u64)>;
        let counters: [(&str, &str, Values); 3] = [
            ("witgate_component_failures", "Calls into components that failed", |of| of.failures.clone()),
            ("witgate_component_refusals", "Requests that components refused", |of| vec![("", of.refusals)]),
            ("witgate_component_instances", "Instances of components that were made", |of| vec![("", of.instances)]),
        ];
        for (name, help, values) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for of in &self.components {
                for (failure, value) in values(of) {
                    let mut labels = vec![("component", of.name.as_str()), ("kind", of.kind.as_str())];
                    labels.extend(Some(("failure", failure)).filter(|(_, failure)| !failure.is_empty()));
                    let mut metric = family.encode_family(&labels)?;
                    metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                }
            }
        }
        let help = "The most linear memory that an instance of a component has had";
        let name = "witgate_component_memory_peak";
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        for of in &self.components {
            let labels = [("component", of.name.as_str()), ("kind", of.kind.as_str())];
            gauge(family.encode_family(&labels)?, of.memory_peak)?;
        }
        Ok(())
    }

    fn configuration(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(state) = &self.configuration else { return Ok(()) };
        let help = "1: the configuration that was last read is served; 0: it was refused";
        let up = encoder.encode_descriptor("witgate_configuration_up_to_date", help, None, MetricType::Gauge)?;
        gauge(up, u64::from(state.refused.is_none()))?;
        for (name, help, value) in [
            ("witgate_configuration_reloads", "Configurations that were taken over", state.reloads),
            ("witgate_configuration_refusals", "Configurations that were refused", state.refusals),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }
}

fn gauge(mut metric: MetricEncoder<'_>, value: u64) -> Result<(), std::fmt::Error> {
    metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

impl Collector for Operated {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.components(&mut encoder)?;
        self.configuration(&mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_buckets() {
        let us = Duration::from_micros;
        let calls = CallState { call: "feed", total: us(500), buckets: vec![(us(1), 50), (us(2), 49), (us(400), 1)] };
        assert_eq!(calls.count(), 100);
        assert_eq!(calls.percentile(50), Some(us(1)));
        assert_eq!(calls.percentile(99), Some(us(2)));
        assert_eq!(calls.percentile(100), Some(us(400)));
        assert_eq!(CallState::default().percentile(50), None);
    }
}
