//! Queues from which requests come: a task for each, beside the server.
//!
//! What a queue is, `witgate_gateway` (Amazon SQS) and `witgate_stores` (streams of Redis) say; what becomes of a message, the
//! gateway does ([`Gateway::consume`]). Here they begin and end with the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use witgate_config::{Problem, QueueKind};
use witgate_gateway::{Broker, Gateway, Ports, Sqs};

use crate::ports::HostPorts;

/// How long giving back what is in hand may take.
const RELEASE: Duration = Duration::from_secs(2);

/// Where a process stands with its queues.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Phase {
    Running,
    /// Nothing more is received.
    Finishing,
    /// What is in hand is given back.
    Releasing,
}

/// The queues that this process receives from.
pub(crate) struct Queues {
    tasks: JoinSet<()>,
    phase: watch::Sender<Phase>,
}

/// What of the configured queues cannot be.
pub(crate) fn check(gateway: &Gateway, config: &witgate_config::Config) -> Vec<Problem> {
    let problems = gateway.check_queues().into_iter().map(|(key, message)| config.problem(&key, message, None));
    let streams = config.queues.iter().filter_map(|queue| match &queue.kind {
        QueueKind::Redis(stream) => crate::state::stream(config, queue, stream, String::new()).err(),
        QueueKind::Sqs(_) => None,
    });
    problems.chain(streams).collect()
}

impl Queues {
    /// Begins to receive.
    pub fn start(gateway: &Arc<Gateway>, ports: &Arc<HostPorts>, config: &Arc<witgate_config::Config>) -> Self {
        let (phase, _) = watch::channel(Phase::Running);
        let mut tasks = JoinSet::new();
        for (at, queue) in config.queues.iter().enumerate() {
            let needs = (Arc::clone(gateway), Arc::clone(ports), Arc::clone(config), phase.subscribe());
            match &queue.kind {
                QueueKind::Sqs(sqs) => {
                    tasks.spawn(run(needs, at, Sqs::new(Arc::clone(ports), queue, sqs)));
                }
                QueueKind::Redis(stream) => {
                    let consumer = format!("witgate-{:032x}", ports.random());
                    match crate::state::stream(config, queue, stream, consumer) {
                        Ok(streams) => drop(tasks.spawn(run(needs, at, streams))),
                        Err(problem) => tracing::error!(target: "witgate::queue", queue = queue.name, "{problem}"),
                    }
                }
            }
        }
        Queues { tasks, phase }
    }

    /// From now on nothing more is received.
    pub fn finish(&self) {
        self.phase.send_replace(Phase::Finishing);
    }

    /// Completes when nothing is in hand any more. After [`Queues::finish`].
    pub async fn finished(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Completes when nothing is in hand any more; what then still is when `end` is near is given back.
    pub async fn end(mut self, end: Instant) {
        let near = end.checked_sub(RELEASE).unwrap_or(end);
        let tasks = &mut self.tasks;
        let all = async |tasks: &mut JoinSet<()>| while tasks.join_next().await.is_some() {};
        if timeout_at(near, all(tasks)).await.is_err() {
            self.phase.send_replace(Phase::Releasing);
            let _ = timeout_at(end.max(Instant::now() + RELEASE), all(tasks)).await;
        }
    }
}

/// What a consumer needs.
type Needs = (Arc<Gateway>, Arc<HostPorts>, Arc<witgate_config::Config>, watch::Receiver<Phase>);

/// Answers the messages of the configuration's queue at this place.
async fn run<B: Broker>((gateway, ports, config, phase): Needs, at: usize, broker: B) {
    let Some(queue) = config.queues.get(at) else { return };
    let until = |wanted: Phase| {
        let mut phase = phase.clone();
        async move {
            // Without a sender the process ends.
            let _ = phase.wait_for(|phase| *phase >= wanted).await;
        }
    };
    gateway.consume(&ports, queue, &broker, until(Phase::Finishing), until(Phase::Releasing)).await;
}
