//! What is told about a request: never its content, never a secret.

use std::time::Duration;

use witgate_model::Usage;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The whole answer was given.
    Complete,
    /// An error was given, before or inside the answer.
    Failed,
    /// The client left before the end.
    ClientGone,
}

impl Outcome {
    /// For logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Complete => "complete",
            Outcome::Failed => "failed",
            Outcome::ClientGone => "client_gone",
        }
    }
}

/// One request, when it has ended: the log line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// `POST`.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// The HTTP status that the client saw (200 for a stream that failed later).
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// From the request's arrival to its end.
    pub latency: Duration,
    /// From the request's arrival to the first content.
    pub first_token: Option<Duration>,
    /// The request's id.
    pub request_id: String,
    /// The asynchronous job that was submitted, or run.
    pub job: Option<String>,
    /// The trace id of the client's `traceparent`.
    pub trace_id: Option<String>,
    /// The client's dialect.
    pub dialect: Option<String>,
    /// The model that the client asked for.
    pub request_model: Option<String>,
    /// The model that answered.
    pub response_model: Option<String>,
    /// The provider that answered, or failed last.
    pub provider: Option<String>,
    /// How many targets were tried.
    pub attempts: u32,
    /// A second backend was asked too, since the first one was slow: whether it was the second one that answered.
    pub hedged: Option<bool>,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// What it cost, as far as known.
    pub usage: Option<Usage>,
    /// The id of the client's key; none where the server is open, or the key was refused.
    pub key: Option<String>,
    /// Whose key it is.
    pub tenant: Option<String>,
    /// What it cost in nano-dollars, tries that the client did not see included; none where no target has a price.
    pub cost: Option<u64>,
    /// The answer came from the cache: what `usage` says was not used again.
    pub cached: bool,
    /// `error.type` of a failure.
    pub error_type: Option<String>,
    /// Why a backend failed this request, or the gateway did: also where its client is only told that something did. The
    /// failure in a word, the status of the backend's answer and its words; what the request says too is left out.
    pub cause: Option<String>,
    /// Members of the backend's answer that the client's dialect could not carry: names only.
    pub unmapped: Vec<String>,
    /// Fields of the client's request that the backend cannot do and that were left out, because the provider's setting
    /// `drop_unsupported` says so: JSON paths.
    pub dropped: Vec<String>,
    /// What policies tagged the request with: names and values, never content.
    pub tags: Vec<(String, String)>,
}

impl Record {
    /// What backends used for it: nothing where the answer came from the cache.
    pub fn used(&self) -> Option<&Usage> {
        self.usage.as_ref().filter(|_| !self.cached)
    }
}

/// Something for the operator's log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Warning<'a> {
    /// A target failed and the next one is tried.
    Fallback {
        /// The request's id.
        request_id: &'a str,
        /// The provider that failed.
        from: &'a str,
        /// The next provider.
        to: &'a str,
        /// Why.
        reason: &'a str,
        /// How many targets have been tried.
        attempt: u32,
    },
    /// A component broke its contract.
    Fault {
        /// The request's id.
        request_id: &'a str,
        /// What it did.
        fault: &'a crate::Fault,
    },
    /// The state store could not be asked.
    State {
        /// Why, for people.
        why: &'a crate::state::StateError,
    },
    /// A budget has reached a part of its limit: told once for each part and period.
    Budget {
        /// The request with which it did.
        request_id: &'a str,
        /// `key` or `tenant`.
        scope: &'a str,
        /// The id of the key, or the tenant's name.
        owner: &'a str,
        /// `day`, `month` or `total`.
        period: &'a str,
        /// 50, 80 or 100.
        percent: u64,
        /// What is used, in nano-dollars, running requests included.
        used: u64,
        /// Of how much.
        limit: u64,
    },
    /// A provider's key is refused, or throttled.
    Key {
        /// The request's id.
        request_id: &'a str,
        /// The provider.
        provider: &'a str,
        /// Which of its keys, from 1.
        key: usize,
        /// Why.
        reason: &'a str,
        /// How long it rests.
        rest: Duration,
    },
    /// A document could not be kept.
    Store {
        /// The request's id.
        request_id: &'a str,
        /// Why, for people.
        why: &'a str,
    },
    /// A queue from which requests come fails, or one of its messages does.
    Queue {
        /// The queue's name in the configuration.
        queue: &'a str,
        /// Why, for people.
        why: &'a str,
    },
    /// A figure of the traffic went above its threshold, or is back.
    Alarm {
        /// The alarm's name in the configuration.
        name: &'a str,
        /// What is watched, as the configuration calls it.
        metric: &'a str,
        /// Whether it began (or ended).
        on: bool,
        /// The figure, in the unit of its threshold.
        value: u64,
        /// The threshold.
        above: u64,
    },
}
