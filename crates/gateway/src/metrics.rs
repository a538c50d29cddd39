//! Metrics, in Prometheus' text format at `/metrics`: counters and histograms that requests add to as they end, gauges
//! that are read when somebody asks.
//!
//! Names and labels are OpenTelemetry's for generative AI where it has them. A client chooses the model's name in its
//! request, so names are counted: beyond [`MAX_NAMES`] they are told as `other`.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use witgate_config::{Alarm, Config};

use crate::alarms::Watched;
use crate::operate::Operated;
use crate::record::{Outcome, Record};

/// Most names of models, each.
pub const MAX_NAMES: usize = 512;

/// Upper bounds of the durations' buckets, in seconds: those that OpenTelemetry advises.
const SECONDS: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    dialect: Arc<str>,
    gen_ai_request_model: Arc<str>,
    gen_ai_provider_name: Arc<str>,
    http_response_status_code: u16,
    outcome: Arc<str>,
    error_type: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Served {
    gen_ai_request_model: Arc<str>,
    gen_ai_provider_name: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Tokens {
    gen_ai_request_model: Arc<str>,
    gen_ai_provider_name: Arc<str>,
    gen_ai_token_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Backend {
    gen_ai_provider_name: String,
    /// Its number among the provider's, from zero; as `eu-west-1/0` in a region.
    endpoint: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pooled {
    gen_ai_provider_name: String,
    region: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Named {
    alarm: String,
}

/// Jobs that are counted together.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobsThat {
    /// `queued`: wait or run, in whichever process; `running`: run in this one.
    state: &'static str,
}

/// A part of a budget that has been reached.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Threshold {
    /// `key` or `tenant`.
    pub scope: &'static str,
    pub percent: u64,
}

/// How often budgets have reached parts of their limits.
pub(crate) type Thresholds = Family<Threshold, Counter>;

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// What one pool says of itself when the metrics are read.
pub(crate) struct PoolReport {
    pub provider: String,
    /// Empty for the provider's own endpoints.
    pub region: String,
    pub waiting: usize,
    /// Requests at each endpoint, and whether it is well.
    pub endpoints: Vec<(u32, bool)>,
}

/// What is served when the metrics are read.
pub(crate) struct ServedNow {
    pub in_flight: usize,
    pub pools: Vec<PoolReport>,
    pub jobs_running: usize,
    /// None where nobody can tell.
    pub jobs_queued: Option<usize>,
}

/// The metrics of one gateway.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Ended, Counter>,
    retries: Counter,
    tokens: Family<Tokens, Counter>,
    cost: Family<Served, Counter<f64, AtomicU64>>,
    pub thresholds: Thresholds,
    duration: Family<Served, Histogram, fn() -> Histogram>,
    first_token: Family<Served, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    waiting: Family<Pooled, Gauge>,
    at_endpoint: Family<Backend, Gauge>,
    endpoint_up: Family<Backend, Gauge>,
    alarm: Family<Named, Gauge>,
    jobs: Family<JobsThat, Gauge>,
    names: Mutex<BTreeSet<Arc<str>>>,
    /// Gauges are set for one reader at a time.
    reading: Mutex<()>,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics {
            requests: Family::default(),
            retries: Counter::default(),
            tokens: Family::default(),
            cost: Family::default(),
            thresholds: Family::default(),
            duration: Family::new_with_constructor(seconds),
            first_token: Family::new_with_constructor(seconds),
            in_flight: Gauge::default(),
            waiting: Family::default(),
            at_endpoint: Family::default(),
            endpoint_up: Family::default(),
            alarm: Family::default(),
            jobs: Family::default(),
            names: Mutex::default(),
            reading: Mutex::default(),
            registry: Registry::default(),
        };
        let m = &metrics;
        registry.register("witgate_requests", "Requests that have ended", m.requests.clone());
        registry.register("witgate_retries", "Further tries after a failed one", m.retries.clone());
        registry.register("witgate_tokens", "Tokens that backends counted", m.tokens.clone());
        let help = "Budgets that have reached a part of their limit";
        registry.register("witgate_budget_thresholds", help, m.thresholds.clone());
        registry.register("witgate_cost_dollars", "What answers cost by the price table", m.cost.clone());
        let help = "From a request's arrival to its end, of complete answers";
        registry.register_with_unit("gen_ai_server_request_duration", help, Unit::Seconds, m.duration.clone());
        let help = "From a request's arrival to its first content";
        registry.register_with_unit("gen_ai_server_time_to_first_token", help, Unit::Seconds, m.first_token.clone());
        registry.register("witgate_requests_in_flight", "Requests that are being served", m.in_flight.clone());
        registry.register("witgate_queue_length", "Requests that wait for an endpoint", m.waiting.clone());
        registry.register("witgate_endpoint_in_flight", "Requests at an endpoint", m.at_endpoint.clone());
        registry.register("witgate_endpoint_up", "1: gets requests; 0: rests", m.endpoint_up.clone());
        registry.register("witgate_alarm", "1: above its threshold", m.alarm.clone());
        let help = "Asynchronous jobs: queued (all that wait or run), running (in this process)";
        registry.register("witgate_jobs", help, m.jobs.clone());
        Metrics { registry, ..metrics }
    }

    /// The name, where there are not too many yet.
    fn name(&self, name: &str) -> Arc<str> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Arc::clone(known);
        }
        let name = if names.len() < MAX_NAMES { name } else { "other" };
        let name: Arc<str> = Arc::from(name);
        names.insert(Arc::clone(&name));
        name
    }

    /// Adds a request that has ended.
    pub fn add(&self, record: &Record) {
        let Some(dialect) = &record.dialect else { return };
        // A name that nobody serves is the client's own invention.
        let served = record.provider.is_some();
        let model = self.name(record.request_model.as_deref().filter(|_| served).unwrap_or(""));
        let provider = self.name(record.provider.as_deref().unwrap_or(""));
        let ended = Ended {
            dialect: self.name(dialect),
            gen_ai_request_model: Arc::clone(&model),
            gen_ai_provider_name: Arc::clone(&provider),
            http_response_status_code: record.status,
            outcome: self.name(record.outcome.as_str()),
            error_type: self.name(record.error_type.as_deref().unwrap_or("")),
        };
        self.requests.get_or_create(&ended).inc();
        self.retries.inc_by(u64::from(record.attempts.saturating_sub(1)));
        let served = Served { gen_ai_request_model: model, gen_ai_provider_name: provider };
        if record.outcome == Outcome::Complete {
            self.duration.get_or_create(&served).observe(record.latency.as_secs_f64());
        }
        if let Some(first) = record.first_token {
            self.first_token.get_or_create(&served).observe(first.as_secs_f64());
        }
        if let Some(cost) = record.cost.filter(|cost| *cost > 0) {
            self.cost.get_or_create(&served).inc_by(cost as f64 / 1e9);
        }
        let Some(usage) = record.used() else { return };
        for (gen_ai_token_type, count) in [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write", usage.cache_write_tokens),
            ("reasoning", usage.reasoning_tokens),
        ] {
            if let Some(count) = count.filter(|count| *count > 0) {
                let Served { gen_ai_request_model, gen_ai_provider_name } = served.clone();
                let labels = Tokens { gen_ai_request_model, gen_ai_provider_name, gen_ai_token_type };
                self.tokens.get_or_create(&labels).inc_by(count);
            }
        }
    }

    /// All metrics as text.
    pub fn text(&self, now: &ServedNow, alarms: &[Arc<Watched>], operated: Operated) -> String {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // Of what was configured before and is no more nothing is told.
        self.waiting.clear();
        self.at_endpoint.clear();
        self.endpoint_up.clear();
        self.alarm.clear();
        self.jobs.clear();
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.in_flight.set(gauge(now.in_flight));
        for (state, count) in [("running", Some(now.jobs_running)), ("queued", now.jobs_queued)] {
            if let Some(count) = count {
                self.jobs.get_or_create(&JobsThat { state }).set(gauge(count));
            }
        }
        for pool in &now.pools {
            let labels = Pooled { gen_ai_provider_name: pool.provider.clone(), region: pool.region.clone() };
            self.waiting.get_or_create(&labels).set(gauge(pool.waiting));
            for (number, (in_flight, up)) in pool.endpoints.iter().enumerate() {
                let endpoint = match pool.region.as_str() {
                    "" => number.to_string(),
                    region => format!("{region}/{number}"),
                };
                let labels = Backend { gen_ai_provider_name: pool.provider.clone(), endpoint };
                self.at_endpoint.get_or_create(&labels).set(i64::from(*in_flight));
                self.endpoint_up.get_or_create(&labels).set(i64::from(*up));
            }
        }
        for alarm in alarms {
            let labels = Named { alarm: alarm.rule.name.clone() };
            self.alarm.get_or_create(&labels).set(i64::from(alarm.is_on()));
        }
        let mut out = String::new();
        let mut more = Registry::default();
        more.register_collector(Box::new(operated));
        // It fails where the text cannot be written, and memory always can.
        let _ = text::encode_registry(&mut out, &self.registry)
            .and_then(|()| text::encode_registry(&mut out, &more))
            .and_then(|()| text::encode_eof(&mut out));
        out
    }
}

/// Metrics and alarms: what watches the requests as they end.
pub(crate) struct Watch {
    pub metrics: Option<Arc<Metrics>>,
    pub alarms: Vec<Arc<Watched>>,
}

impl Watch {
    /// What a configuration wants watched. What was watched `before`, and still is, goes on counting where it is.
    pub fn new(config: &Config, before: Option<&Watch>) -> Self {
        let metrics = || before.and_then(|before| before.metrics.clone()).unwrap_or_else(|| Arc::new(Metrics::new()));
        let known = |rule: &Alarm| before?.alarms.iter().find(|known| known.rule == *rule).cloned();
        let alarm = |rule: &Alarm| known(rule).unwrap_or_else(|| Arc::new(Watched::new(rule.clone())));
        Watch { metrics: config.metrics.enabled.then(metrics), alarms: config.alarms.iter().map(alarm).collect() }
    }

    /// Whether there is nothing to watch.
    pub fn is_idle(&self) -> bool {
        self.metrics.is_none() && self.alarms.is_empty()
    }

    /// Takes a request that has ended; tells of each alarm that has begun or ended.
    pub fn ended(
        &self,
        now: Duration,
        record: Option<&Record>,
        waiting: impl Fn() -> u64,
        mut tell: impl FnMut(crate::Warning<'_>),
    ) {
        if let (Some(metrics), Some(record)) = (&self.metrics, record) {
            metrics.add(record);
        }
        for alarm in &self.alarms {
            if let Some(change) = alarm.look(now, record, &waiting) {
                let (name, metric) = (alarm.rule.name.as_str(), alarm.rule.metric.as_str());
                let above = alarm.rule.above;
                tell(crate::Warning::Alarm { name, metric, on: change.on, value: change.value, above });
            }
        }
    }
}
