//! Which targets a request goes to, one after another, until one has answered.
//!
//! The targets of an alias are a group, in the order that its strategy gives, those that are not well last. One that
//! fails before any content is followed by the next: first other endpoints of its provider, then the group's other
//! targets, without a wait. When all have failed, those whose failure may pass are tried again after a wait, within the
//! total timeout and the budget. Then comes the alias's `fallback`, a group too. A prompt that does not fit, or a filter
//! that refuses, ends the group and leads to the list for that case, where there is one; any other mistake of the
//! request's own ends it all. The client is told of the failure that explains most.

use std::sync::Arc;

use witgate_config::{Provider, Route, Target};
use witgate_model::ErrorKind;
use witgate_model::normaliser::Attempt as Try;

use crate::failure::Failed;
use crate::gateway::{Gateway, MOST_TARGETS};
use crate::health::Verdict;
use crate::path::{Attempt, Ended, Flight, Run};
use crate::pool::{NoPlace, Pool, Tried, Want};
use crate::ports::{Normaliser, Ports};
use crate::record::Warning;
use crate::retry;
use crate::stream::Writer;

/// The most tries that are told of.
const MOST_TRIES: usize = 64;

/// The order in which a group's targets are tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    at: [u8; MOST_TARGETS],
    len: usize,
}

impl Sequence {
    pub fn new() -> Self {
        Sequence { at: [0; MOST_TARGETS], len: 0 }
    }

    pub fn push(&mut self, at: usize) {
        if let (Some(slot), Ok(at)) = (self.at.get_mut(self.len), u8::try_from(at)) {
            *slot = at;
            self.len += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.at.iter().take(self.len).map(|at| usize::from(*at))
    }
}

/// The failure that is told.
#[derive(Default)]
struct Told(Option<Failed>);

impl Told {
    /// The first of those that explain most.
    fn hear(&mut self, failed: &Failed) {
        if self.0.as_ref().is_none_or(|known| failed.explains() > known.explains()) {
            self.0 = Some(failed.clone());
        }
    }
}

/// Why a group has no answer.
enum Over {
    /// All targets have failed.
    Failed,
    /// The prompt does not fit.
    ContextLength,
    /// A filter refused.
    ContentPolicy,
    /// The request is at fault; nobody else will take it.
    Request,
    /// Content has gone to the client.
    After(Failed),
}

impl<N: Normaliser> Run<N> {
    /// Asks one target after another until one has answered.
    pub(crate) async fn targets<P: Ports>(
        &mut self,
        flight: &mut Flight<P>,
        route: &Route<'_>,
        client_model: &str,
        writer: &Writer,
    ) -> Result<Ended, Failed> {
        let gateway = Arc::clone(&self.gateway);
        let fallback = route.model.map(|model| &model.fallback);
        let mut any = fallback.map(|lists| lists.any.as_slice());
        let mut context_length = fallback.map(|lists| lists.context_length.as_slice());
        let mut content_policy = fallback.map(|lists| lists.content_policy.as_slice());
        let mut told = Told::default();
        let mut group = route.targets.as_ref();
        let mut sequence = gateway.sequence(flight.ports.as_ref(), group, route.model, &self.headers, &self.request);
        loop {
            let over = match self.group(flight, &mut told, (group, &sequence), client_model, writer).await {
                Ok(ended) => return Ok(ended),
                Err(over) => over,
            };
            let next = match over {
                Over::Failed => any.take(),
                Over::ContextLength => context_length.take(),
                Over::ContentPolicy => content_policy.take(),
                Over::Request => None,
                Over::After(failed) => return Err(failed),
            };
            let Some(next) = next.filter(|next| !next.is_empty()) else { break };
            group = next;
            sequence = gateway.sequence(flight.ports.as_ref(), group, None, &self.headers, &self.request);
        }
        let none = || Failed::ours(500, "api_error", "no_target", format!("model \"{client_model}\" has no target"));
        Err(told.0.unwrap_or_else(none))
    }

    /// Asks the targets of one group, some of them again.
    async fn group<P: Ports>(
        &mut self,
        flight: &mut Flight<P>,
        told: &mut Told,
        (group, sequence): (&[Target], &Sequence),
        client_model: &str,
        writer: &Writer,
    ) -> Result<Ended, Over> {
        let gateway = Arc::clone(&self.gateway);
        let ports = Arc::clone(&flight.ports);
        // Those to be asked in this round: a bit for each.
        let mut asked = u64::MAX;
        let mut round = 1;
        loop {
            let (mut again, mut pause) = (0_u64, None);
            for at in sequence.iter().filter(|at| asked & 1 << at != 0) {
                let Some((target, (provider, pool))) = group.get(at).and_then(|t| Some((t, gateway.place(t)?))) else {
                    continue;
                };
                let deadline = flight.start + provider.timeouts.total;
                if ports.now() >= deadline && flight.record.attempts > 0 {
                    continue;
                }
                // Alone here: nothing is copied.
                Arc::make_mut(&mut self.request).model =
                    target.model.clone().unwrap_or_else(|| client_model.to_owned());
                let failed = match self.target(flight, told, (provider, pool, target), round, writer).await {
                    Ok(ended) => return Ok(ended),
                    Err(Attempt::After(failed)) => return Err(Over::After(failed)),
                    Err(Attempt::Before(failed)) => failed,
                };
                let now = ports.now();
                let wait = (round < pool.retry.attempts)
                    .then(|| retry::wait(&pool.retry, &failed, round + 1, ports.random() as u64))
                    .flatten()
                    .filter(|wait| now + *wait < deadline && pool.further_try(now));
                if let Some(wait) = wait {
                    again |= 1 << at;
                    pause = Some(pause.map_or(now + wait, |until| (now + wait).min(until)));
                }
                match failed.error.kind {
                    ErrorKind::ContextLength => return Err(Over::ContextLength),
                    ErrorKind::ContentFiltered => return Err(Over::ContentPolicy),
                    _ if failed.may_fall_back() => {}
                    _ if wait.is_some() => break,
                    _ => return Err(Over::Request),
                }
            }
            let Some(until) = pause else { return Err(Over::Failed) };
            ports.sleep_until(until).await;
            asked = again;
            round += 1;
        }
    }

    /// Asks one target, at one endpoint after another.
    async fn target<P: Ports>(
        &mut self,
        flight: &mut Flight<P>,
        told: &mut Told,
        (provider, pool, target): (&Provider, &Arc<Pool>, &Target),
        round: u32,
        writer: &Writer,
    ) -> Result<Ended, Attempt> {
        let gateway = Arc::clone(&self.gateway);
        let ports = Arc::clone(&flight.ports);
        let settings = gateway.settings(provider, target);
        let mut want = Want {
            tried: Tried::default(),
            sticky: gateway.key(pool.choice(), &self.headers, &self.request),
            deadline: flight.start + provider.timeouts.total,
        };
        let mut last: Option<Failed> = None;
        let mut hops = 0;
        loop {
            let mut lease = match (pool.acquire(ports.as_ref(), want).await, last.take()) {
                (Ok(_), Some(failed)) if !pool.further_try(ports.now()) => return Err(Attempt::Before(failed)),
                (Ok(lease), _) => lease,
                (Err(_), Some(failed)) => return Err(Attempt::Before(failed)),
                (Err(none), None) => {
                    let failed = no_place(none, provider);
                    flight.failed(&failed, provider, &self.request.model);
                    told.hear(&failed);
                    return Err(Attempt::Before(failed));
                }
            };
            if round == 1 && hops == 0 {
                pool.first_try();
            }
            if let Some(before) = flight.tried.last() {
                ports.warn(&Warning::Fallback {
                    request_id: &flight.record.request_id,
                    from: &before.provider,
                    to: &provider.name,
                    reason: &before.reason,
                    attempt: flight.record.attempts,
                });
            }
            flight.bill.price(gateway.config.access.price(&provider.name, &self.request.model));
            flight.record.attempts += 1;
            flight.record.provider = Some(provider.name.clone());
            match self.attempt(flight, provider, settings, &mut lease, writer).await {
                Ok(ended) => {
                    lease.served(ports.now());
                    return Ok(ended);
                }
                Err(attempt) => {
                    let (Attempt::Before(failed) | Attempt::After(failed)) = &attempt;
                    // Earlier tries have used up the time: no fault of this endpoint's.
                    let late = failed.is_total_timeout() && flight.record.attempts > 1;
                    let verdict = if late { Verdict::Unknown } else { Verdict::of(failed, lease.answered) };
                    lease.tell(ports.now(), verdict);
                    let Attempt::Before(failed) = attempt else { return Err(attempt) };
                    flight.failed(&failed, provider, &self.request.model);
                    told.hear(&failed);
                    want.tried.add(lease.at());
                    if hops >= pool.retry.failover || !failed.may_pass_elsewhere() || ports.now() >= want.deadline {
                        return Err(Attempt::Before(failed));
                    }
                    hops += 1;
                    last = Some(failed);
                }
            }
        }
    }
}

impl<P: Ports> Flight<P> {
    /// Notes a try that failed before any content.
    fn failed(&mut self, failed: &Failed, provider: &Provider, model: &str) {
        self.discard(false);
        if self.tried.len() < MOST_TRIES {
            self.tried.push(Try {
                provider: provider.name.clone(),
                model: model.to_owned(),
                status: failed.error.status,
                reason: failed.reason().to_owned(),
            });
        }
    }
}

/// The failure of a request that got no place.
fn no_place(none: NoPlace, provider: &Provider) -> Failed {
    let name = &provider.name;
    let (code, message) = match none {
        NoPlace::QueueFull(most) => {
            ("queue_full", format!("provider \"{name}\" is busy, and {most} requests wait already; try again shortly"))
        }
        NoPlace::Waited(wait) => {
            let wait = wait.as_millis();
            ("queue_timeout", format!("provider \"{name}\" was busy for {wait} ms; try again shortly"))
        }
        NoPlace::Exhausted => ("no_endpoint", format!("provider \"{name}\" has no endpoint")),
    };
    let error = witgate_model::Error::new(ErrorKind::Overloaded, message)
        .with_code(code)
        .with_retry(witgate_model::Retry::OtherTarget);
    Failed { provider: Some(name.clone()), ..Failed::request(error) }
}

impl Gateway {
    /// A target's provider and its endpoints.
    fn place(&self, target: &Target) -> Option<(&Provider, &Arc<Pool>)> {
        let provider = self.config.providers.get(&target.provider)?;
        Some((provider, self.pool(provider, self.settings(provider, target).0)?))
    }
}
