//! Which targets a request goes to, one after another, until one has answered.
//!
//! The targets of an alias are a group, in the order that its strategy gives, those that are not well last. One that
//! fails before any content is followed by the next: first other endpoints of its provider, then the group's other
//! targets, without a wait. When all have failed, those whose failure may pass are tried again, each after a wait of its
//! own, within the total timeout and the budget. Then comes the alias's `fallback`, a group too. A prompt that does not
//! fit, or a filter that refuses, ends the group and leads to the list for that case, where there is one; any other
//! mistake of the request's own ends it all. The client is told of the failure that explains most.

use std::sync::Arc;
use std::time::Duration;

use witgate_config::{Model, Provider, Route, Target};
use witgate_model::ErrorKind;
use witgate_model::normaliser::Attempt as Try;

use crate::failure::Failed;
use crate::gateway::{Gateway, MOST_TARGETS};
use crate::health::Verdict;
use crate::hedge::Hedger;
use crate::path::{Attempt, Ended, Flight, Run};
use crate::pool::{NoPlace, Pool, Tried, Want};
use crate::ports::{Normaliser, Ports};
use crate::provider_keys;
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

    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.at.iter().take(self.len).map(|at| usize::from(*at))
    }
}

/// A target, and what else its model has.
pub(crate) struct Around<'a> {
    pub gateway: &'a Gateway,
    pub group: &'a [Target],
    pub sequence: &'a Sequence,
    pub target: &'a Target,
    pub provider: &'a Provider,
    pub model: Option<&'a Model>,
    pub client_model: &'a str,
}

/// What has failed so far.
#[derive(Default)]
pub(crate) struct Told {
    /// The failure that is told.
    failed: Option<Failed>,
    /// The pools that may be down.
    down: Vec<Arc<Pool>>,
}

impl Told {
    /// The first of those that explain most.
    pub fn hear(&mut self, failed: &Failed) {
        if self.failed.as_ref().is_none_or(|known| failed.explains() > known.explains()) {
            self.failed = Some(failed.clone());
        }
    }

    /// A try at this pool has failed.
    fn at(&mut self, pool: &Arc<Pool>, failed: &Failed) {
        if failed.is_of_provider() && !self.has_failed_at(pool) {
            self.down.push(Arc::clone(pool));
        }
    }

    fn has_failed_at(&self, pool: &Arc<Pool>) -> bool {
        self.down.iter().any(|down| Arc::ptr_eq(down, pool))
    }
}

/// A target that is asked again.
struct Again {
    at: usize,
    /// Which of its tries that is, from 1.
    round: u32,
    due: Duration,
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
            let over = match self.group(flight, &mut told, (group, &sequence, route.model), client_model, writer).await
            {
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
        Err(told.failed.unwrap_or_else(none))
    }

    /// Asks the targets of one group, some of them again.
    async fn group<P: Ports>(
        &mut self,
        flight: &mut Flight<P>,
        told: &mut Told,
        (group, sequence, model): (&[Target], &Sequence, Option<&Model>),
        client_model: &str,
        writer: &Writer,
    ) -> Result<Ended, Over> {
        let gateway = Arc::clone(&self.gateway);
        let ports = Arc::clone(&flight.ports);
        // Those to be asked again, each at its own time, and those of them whose time has come. First all are asked.
        let (mut again, mut due) = (Vec::new(), Vec::<Again>::new());
        let mut is_first = true;
        loop {
            for at in sequence.iter() {
                let round = match due.iter().position(|again| again.at == at) {
                    Some(place) => due.swap_remove(place).round,
                    None if is_first => 1,
                    None => continue,
                };
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
                let around = Around { gateway: &gateway, group, sequence, target, provider, model, client_model };
                let failed = match self.target(flight, told, (&around, pool), round, writer).await {
                    Ok(Some(ended)) => return Ok(ended),
                    Ok(None) => continue,
                    Err(Attempt::After(failed)) => return Err(Over::After(failed)),
                    Err(Attempt::Before(failed)) => failed,
                };
                let now = ports.now();
                let wait = (round < pool.retry.attempts)
                    .then(|| retry::wait(&pool.retry, &failed, round + 1, ports.random() as u64))
                    .flatten()
                    .filter(|wait| now + *wait < deadline && pool.has_further_try(now));
                again.extend(wait.map(|wait| Again { at, round: round + 1, due: now + wait }));
                match failed.error.kind {
                    ErrorKind::ContextLength => return Err(Over::ContextLength),
                    ErrorKind::ContentFiltered => return Err(Over::ContentPolicy),
                    _ if failed.may_fall_back() => {}
                    _ if wait.is_some() => {
                        // Those whose time has come too keep their turn.
                        again.append(&mut due);
                        break;
                    }
                    _ => return Err(Over::Request),
                }
            }
            let Some(next) = again.iter().map(|again| again.due).min() else { return Err(Over::Failed) };
            ports.sleep_until(next).await;
            let now = ports.now();
            (due, again) = again.into_iter().partition(|again| again.due <= now);
            is_first = false;
        }
    }

    /// Asks one target, at one endpoint after another. None where that would be a further try, and the budget has none.
    async fn target<P: Ports>(
        &mut self,
        flight: &mut Flight<P>,
        told: &mut Told,
        (around, pool): (&Around<'_>, &Arc<Pool>),
        round: u32,
        writer: &Writer,
    ) -> Result<Option<Ended>, Attempt> {
        let (gateway, provider) = (around.gateway, around.provider);
        let ports = Arc::clone(&flight.ports);
        let settings = gateway.settings(provider, around.target);
        let hedger = gateway.hedger(around.model, provider).filter(|_| !self.request.stream);
        let mut keys_tried = Tried::default();
        let keys = gateway.provider_keys(provider);
        let mut key = keys.and_then(|keys| keys.next(ports.now(), &keys_tried)).unwrap_or(0);
        let mut want = Want {
            tried: Tried::default(),
            sticky: gateway.key(pool.choice(), &self.headers, &self.request),
            deadline: flight.start + provider.timeouts.total,
        };
        let mut last: Option<Failed> = None;
        let mut hops = 0;
        // Another model of a provider that is down is one more try at it.
        let is_further = round > 1 || told.has_failed_at(pool);
        loop {
            let mut lease = match (pool.acquire(ports.as_ref(), want).await, last.take()) {
                (Ok(_), Some(failed)) if !pool.further_try(ports.now()) => return Err(Attempt::Before(failed)),
                (Ok(_), None) if is_further && !pool.further_try(ports.now()) => return Ok(None),
                (Ok(lease), _) => lease,
                (Err(_), Some(failed)) => return Err(Attempt::Before(failed)),
                (Err(none), None) => {
                    let failed = no_place(none, provider);
                    flight.failed(&failed, provider, &self.request.model);
                    told.hear(&failed);
                    return Err(Attempt::Before(failed));
                }
            };
            if !is_further && hops == 0 {
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
            let attempt = loop {
                flight.record.attempts += 1;
                flight.record.provider = Some(provider.name.clone());
                let attempt = match hedger {
                    Some(hedger) => {
                        Box::pin(self.hedged(
                            (flight, told),
                            hedger,
                            (provider, settings, key),
                            (pool, &mut lease),
                            around,
                        ))
                        .await
                    }
                    None => self.attempt(flight, provider, settings, (&mut lease, key), writer).await,
                };
                let Err(Attempt::Before(failed)) = &attempt else { break attempt };
                // What is wrong with one key is not with another one: that is tried at once.
                if !gateway.tell_key(ports.as_ref(), provider, key, failed, &flight.record.request_id) {
                    break attempt;
                }
                keys_tried.add(key);
                match keys.and_then(|keys| keys.next(ports.now(), &keys_tried)) {
                    Some(next) if ports.now() < want.deadline => key = next,
                    _ => break attempt,
                }
                flight.failed(failed, provider, &self.request.model);
                told.hear(failed);
                lease.answered = false;
            };
            match attempt {
                Ok(ended) => {
                    if !lease.is_over() {
                        lease.served(ports.now());
                    }
                    // Where the second of two has answered, this key has not.
                    if let Some(keys) = keys.filter(|_| flight.record.hedged != Some(true)) {
                        keys.served(key);
                    }
                    return Ok(Some(ended));
                }
                Err(attempt) => {
                    let (Attempt::Before(failed) | Attempt::After(failed)) = &attempt;
                    // Earlier tries have used up the time: no fault of this endpoint's.
                    let late = failed.is_total_timeout() && flight.record.attempts > 1;
                    let verdict = if late { Verdict::Unknown } else { verdict(provider, failed, lease.answered) };
                    lease.tell(ports.now(), verdict);
                    let Attempt::Before(failed) = attempt else { return Err(attempt) };
                    flight.failed(&failed, provider, &self.request.model);
                    told.hear(&failed);
                    told.at(pool, &failed);
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
    pub(crate) fn failed(&mut self, failed: &Failed, provider: &Provider, model: &str) {
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

/// What a failure tells of the endpoint: nothing where it is the key's.
pub(crate) fn verdict(provider: &Provider, failed: &Failed, answered: bool) -> Verdict {
    match provider_keys::is_of_key(provider, failed) {
        true => Verdict::Unknown,
        false => Verdict::of(failed, answered),
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
    pub(crate) fn place(&self, target: &Target) -> Option<(&Provider, &Arc<Pool>)> {
        let provider = self.config.providers.get(&target.provider)?;
        Some((provider, self.pool(provider, self.settings(provider, target).0)?))
    }

    /// When a second backend is asked for requests of this model at this provider.
    fn hedger(&self, model: Option<&Model>, provider: &Provider) -> Option<&Hedger> {
        let of_model = model.and_then(|model| self.hedgers.models.get(&model.alias));
        of_model.or_else(|| self.hedgers.providers.get(&provider.name)).map(Arc::as_ref)
    }

    /// Tells a key of a failure. True where it is the key's.
    pub(crate) fn tell_key<P: Ports>(
        &self,
        ports: &P,
        provider: &Provider,
        key: usize,
        failed: &Failed,
        request_id: &str,
    ) -> bool {
        let keys = self.provider_keys(provider).filter(|_| provider_keys::is_of_key(provider, failed));
        let Some(rest) = keys.and_then(|keys| keys.tell(key, ports.now(), failed)) else { return false };
        let (provider, reason) = (provider.name.as_str(), failed.reason());
        ports.warn(&Warning::Key { request_id, provider, key: key + 1, reason, rest });
        true
    }
}
