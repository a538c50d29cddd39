//! What operators are told of the traffic: metrics and alarms, as the file has them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Model;
use crate::file::check_header_text;
use crate::names::{did_you_mean, quote};
use crate::policy::{Alarm, AlarmMetric, Metrics};
use crate::read::{At, Count, Entry, Flag, Hidden, Named, Reader, Text, Time, Word, join, table};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// Most alarms.
const MAX_ALARMS: usize = 64;

table! {
    /// Metrics for Prometheus, at /metrics.
    pub(crate) struct MetricsTable {
        /// Whether they are served. Default false.
        enabled: Flag;
        /// What a scraper must bring as "Authorization: Bearer …"; without it anybody may read them.
        key: Hidden;
    }
}

table! {
    /// When you are told of the traffic.
    pub(crate) struct AlarmTable {
        /// What is watched: "error-rate" and "throttle-rate" in percent, "latency-p95" in milliseconds, "requests",
        /// "tokens", "cost" in US cents, or "queue", the requests that wait now.
        metric: Word<AlarmMetric> [required];
        /// The alarm is on while the figure is greater.
        above: Count [required];
        /// The time over which the figure is taken.
        over: Time = Duration::from_secs(300), 12 * SECOND..=DAY;
        /// Fewest requests for which a rate or a latency counts.
        at_least: Count = 20, 1..=1_000_000;
        /// Only requests for this model, an alias of [models].
        model: Text;
    }
}

impl Named for AlarmMetric {
    const WHAT: &'static str = "figure that can be watched";
    const NAMES: &'static [(&'static str, Self)] = &AlarmMetric::NAMES;
}

pub(crate) fn metrics(table: MetricsTable, reader: &mut Reader<'_>) -> Metrics {
    if let Some(key) = &table.key {
        check_header_text(key, "metrics.key", "a key", reader);
    }
    let key = table.key.map(|at| at.value).filter(|key| !key.expose().is_empty());
    Metrics { enabled: table.enabled.is_some_and(|at| at.value), key }
}

pub(crate) fn alarms(
    entries: Vec<Entry<AlarmTable>>,
    models: &BTreeMap<String, Model>,
    reader: &mut Reader<'_>,
) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    for (number, entry) in entries.into_iter().enumerate() {
        let path = join("alarms", &entry.key.name);
        if number == MAX_ALARMS {
            let help = format!("keep at most {MAX_ALARMS}");
            reader.problem(&entry.key.span, &path, "one alarm too many", Some(help));
        }
        let Some(At { value, .. }) = entry.at else { continue };
        let (Some(metric), Some(above)) = (value.metric, value.above) else { continue };
        if let Some(model) = value.model.as_ref().filter(|model| !models.contains_key(&model.value)) {
            let help = did_you_mean(&model.value, models.keys().map(String::as_str));
            let help = help.or_else(|| Some("write an alias of [models]".to_owned()));
            reader.problem(&model.span, &join(&path, "model"), format!("no model {}", quote(&model.value, 64)), help);
        }
        alarms.push(Alarm {
            name: entry.key.name,
            metric: metric.value,
            above: u64::from(above.value),
            over: value.over.map_or(Duration::from_secs(300), |at| at.value),
            at_least: value.at_least.map_or(20, |at| at.value),
            model: value.model.map(|at| at.value),
        });
    }
    alarms
}
