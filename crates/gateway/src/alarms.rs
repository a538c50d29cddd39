//! Alarms: an event when a figure of the traffic goes above a threshold, and one when it is back.
//!
//! Each alarm looks at the last `over` of time, in twelfths that are forgotten one by one, so that its memory does not
//! grow with the traffic. It is looked at when a request ends, and when the metrics are read: a figure can only rise by a
//! request, and a gateway without any has nobody to alarm about.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use witgate_config::{Alarm, AlarmMetric};

use crate::record::{Outcome, Record};

/// The parts of a window.
const PARTS: u64 = 12;
/// Steps of the latencies' histogram: eight to each doubling, from a millisecond to some hours.
const STEPS: usize = 8 * 24;

/// What an alarm has seen in one part of its window.
#[derive(Clone, Debug)]
struct Part {
    number: u64,
    requests: u64,
    failed: u64,
    throttled: u64,
    tokens: u64,
    nano_usd: u64,
    latencies: Vec<u32>,
}

impl Part {
    fn new(number: u64) -> Self {
        Part { number, requests: 0, failed: 0, throttled: 0, tokens: 0, nano_usd: 0, latencies: Vec::new() }
    }
}

#[derive(Debug)]
struct State {
    parts: Vec<Part>,
    firing: bool,
}

/// One alarm.
#[derive(Debug)]
pub(crate) struct Watched {
    pub rule: Alarm,
    state: Mutex<State>,
}

/// An alarm that has begun, or ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub on: bool,
    /// The figure, in the unit of its threshold.
    pub value: u64,
}

impl Watched {
    pub fn new(rule: Alarm) -> Self {
        Watched { rule, state: Mutex::new(State { parts: Vec::new(), firing: false }) }
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).firing
    }

    /// Takes a request that has ended; without one it only looks at the time. `waiting` is how many wait in all queues.
    pub fn look(&self, now: Duration, record: Option<&Record>, waiting: impl FnOnce() -> u64) -> Option<Change> {
        let rule = &self.rule;
        let about = |record: &&Record| match &rule.model {
            Some(model) => record.request_model.as_ref() == Some(model),
            None => record.dialect.is_some(),
        };
        let record = record.filter(about);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let length = u64::try_from(rule.over.as_millis()).unwrap_or(u64::MAX).max(PARTS) / PARTS;
        let number = u64::try_from(now.as_millis()).unwrap_or(u64::MAX) / length;
        state.parts.retain(|part| part.number + PARTS > number);
        if let Some(record) = record {
            if state.parts.last().is_none_or(|part| part.number != number) {
                state.parts.push(Part::new(number));
            }
            if let Some(part) = state.parts.last_mut() {
                part.add(record, rule.metric == AlarmMetric::LatencyP95);
            }
        }
        let value = match rule.metric {
            AlarmMetric::Queue => Some(waiting()),
            metric => state.figure(metric, rule.at_least),
        };
        // Too few requests to tell: nothing new.
        let value = value?;
        let on = value > rule.above;
        (on != state.firing).then(|| {
            state.firing = on;
            Change { on, value }
        })
    }
}

impl Part {
    fn add(&mut self, record: &Record, latency: bool) {
        self.requests += 1;
        self.throttled += u64::from(matches!(record.status, 402 | 429 | 503));
        self.failed += u64::from(record.outcome == Outcome::Failed && (record.status >= 500 || record.status < 400));
        if let Some(usage) = &record.usage {
            self.tokens += usage.input_tokens.unwrap_or(0) + usage.output_tokens.unwrap_or(0);
        }
        self.nano_usd = self.nano_usd.saturating_add(record.cost.unwrap_or(0));
        if latency && record.outcome == Outcome::Complete {
            if self.latencies.is_empty() {
                self.latencies = vec![0; STEPS];
            }
            let ms = record.latency.as_secs_f64() * 1e3;
            let step = if ms <= 1.0 { 0 } else { ((ms.log2() * 8.0).ceil() as usize).min(STEPS - 1) };
            if let Some(count) = self.latencies.get_mut(step) {
                *count = count.saturating_add(1);
            }
        }
    }
}

impl State {
    /// The figure over the window; `None` where fewer than `at_least` requests tell of it.
    fn figure(&self, metric: AlarmMetric, at_least: u32) -> Option<u64> {
        let sum = |of: fn(&Part) -> u64| self.parts.iter().map(of).sum::<u64>();
        let requests = sum(|part| part.requests);
        let enough = requests >= u64::from(at_least);
        let percent = |of: u64| enough.then(|| of * 100 / requests.max(1));
        match metric {
            AlarmMetric::Requests => Some(requests),
            AlarmMetric::Tokens => Some(sum(|part| part.tokens)),
            AlarmMetric::Cost => Some(sum(|part| part.nano_usd) / 10_000_000),
            AlarmMetric::ErrorRate => percent(sum(|part| part.failed)),
            AlarmMetric::ThrottleRate => percent(sum(|part| part.throttled)),
            AlarmMetric::LatencyP95 => self.p95(at_least),
            AlarmMetric::Queue => None,
        }
    }

    /// The latency, in milliseconds, that 95 % of the complete answers stayed under, up to a twelfth too high.
    fn p95(&self, at_least: u32) -> Option<u64> {
        let at =
            |step: usize| self.parts.iter().filter_map(|part| part.latencies.get(step)).map(|n| u64::from(*n)).sum();
        let counts: Vec<u64> = (0..STEPS).map(at).collect();
        let all: u64 = counts.iter().sum();
        if all == 0 || all < u64::from(at_least) {
            return None;
        }
        let rank = (all * 95).div_ceil(100);
        let mut seen = 0;
        let step = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some((step as f64 / 8.0).exp2() as u64)
    }
}
