//! What is chosen of routing and resilience, every default filled in.

use std::time::Duration;

use crate::config::Target;
use crate::secret::Secret;

/// In which order several targets of a model, or several endpoints of a provider, are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// As they are written: the first one that is well.
    #[default]
    Ordered,
    /// By chance, in proportion to their weights.
    Weighted,
    /// In turn.
    RoundRobin,
    /// The one with the fewest requests for its weight.
    LeastInFlight,
    /// Of two taken by chance, the one that answers sooner under its load.
    Latency,
}

impl Strategy {
    /// The names that the file uses.
    pub const NAMES: [(&'static str, Strategy); 5] = [
        ("ordered", Strategy::Ordered),
        ("weighted", Strategy::Weighted),
        ("round-robin", Strategy::RoundRobin),
        ("least-in-flight", Strategy::LeastInFlight),
        ("latency", Strategy::Latency),
    ];
}

/// What keeps requests together, so that they find the same prompt cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// The head of the prompt.
    Prompt,
    /// A header of the client's, its name in lower case.
    Header(String),
}

/// How one of several is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The order.
    pub strategy: Strategy,
    /// What goes before the strategy while the one that it points to is well.
    pub sticky: Option<Sticky>,
}

/// What belongs to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Its share beside the others.
    pub weight: u32,
    /// Most requests at once; none where there is no limit.
    pub max_concurrent: Option<u32>,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        EndpointOptions { weight: 1, max_concurrent: None }
    }
}

/// What is tried again after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Most tries of one target for one request, with a wait before each but the first.
    pub attempts: u32,
    /// Most other endpoints of the provider that are tried at once, without a wait.
    pub failover: u32,
    /// The wait before the second try; it doubles with each further one.
    pub backoff: Duration,
    /// Longest wait. A backend that asks for a longer one is not tried again.
    pub max_backoff: Duration,
    /// Most further tries, in percent of the requests.
    pub budget: u32,
    /// Further tries in each minute that the budget does not count.
    pub reserve: u32,
}

impl Retry {
    /// The values where nothing is configured.
    pub const DEFAULT: Self = Self {
        attempts: 2,
        failover: 2,
        backoff: Duration::from_millis(250),
        max_backoff: Duration::from_secs(5),
        budget: 20,
        reserve: 10,
    };
}

/// When an endpoint rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Failures one after another that make it rest; 0 is never.
    pub failures: u32,
    /// Failures in percent of its requests that make it rest; 0 is never.
    pub failure_rate: u32,
    /// Fewest requests in the window for which the rate counts.
    pub min_requests: u32,
    /// The time over which the rate is taken.
    pub window: Duration,
    /// How long it rests, before one request finds out whether it serves again; zero switches all of this off.
    pub rest: Duration,
}

impl Health {
    /// The values where nothing is configured.
    pub const DEFAULT: Self = Self {
        failures: 3,
        failure_rate: 50,
        min_requests: 20,
        window: Duration::from_secs(30),
        rest: Duration::from_secs(10),
    };
}

/// How many requests an endpoint gets at once, and how many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Most requests at once at one endpoint; none where there is no limit.
    pub max: Option<u32>,
    /// Most requests that wait for a place, over all endpoints.
    pub queue: u32,
    /// How long one waits.
    pub wait: Duration,
}

impl Concurrency {
    /// The values where nothing is configured.
    pub const DEFAULT: Self = Self { max: None, queue: 1_000, wait: Duration::from_secs(10) };
}

/// Who is asked when the targets of a model could not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallback {
    /// After failures.
    pub any: Vec<Target>,
    /// Where the prompt does not fit.
    pub context_length: Vec<Target>,
    /// Where a backend's filter refused.
    pub content_policy: Vec<Target>,
}

/// Metrics for Prometheus.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Whether `/metrics` is served.
    pub enabled: bool,
    /// What a scraper must bring as `Authorization: Bearer …`; without it anybody may read them.
    pub key: Option<Secret>,
}

/// A figure of the traffic that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmMetric {
    /// Requests that failed, in percent: those of clients' own making left out.
    ErrorRate,
    /// Requests that were refused because of a limit (402, 429, 503), in percent.
    ThrottleRate,
    /// The latency that 95 % of the complete answers stay under, in milliseconds.
    LatencyP95,
    /// Requests.
    Requests,
    /// Input and output tokens.
    Tokens,
    /// What was spent, in US cents.
    Cost,
    /// Requests that wait for an endpoint now.
    Queue,
}

impl AlarmMetric {
    /// The names that the file uses.
    pub const NAMES: [(&'static str, AlarmMetric); 7] = [
        ("error-rate", AlarmMetric::ErrorRate),
        ("throttle-rate", AlarmMetric::ThrottleRate),
        ("latency-p95", AlarmMetric::LatencyP95),
        ("requests", AlarmMetric::Requests),
        ("tokens", AlarmMetric::Tokens),
        ("cost", AlarmMetric::Cost),
        ("queue", AlarmMetric::Queue),
    ];

    /// The name that the file uses.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }
}

/// When operators are told of the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Its name.
    pub name: String,
    /// What is watched.
    pub metric: AlarmMetric,
    /// It is on while the figure is greater.
    pub above: u64,
    /// The time over which the figure is taken.
    pub over: Duration,
    /// Fewest requests for which a rate or a latency counts.
    pub at_least: u32,
    /// Only requests for this model, as clients name it.
    pub model: Option<String>,
}
