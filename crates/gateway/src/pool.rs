//! The endpoints of a provider as all requests of the process share them: who is well, who is busy, who waits.
//!
//! [`Pool::acquire`] gives a [`Lease`], one place at one endpoint; dropping it gives the place back and wakes who waits. A
//! resting endpoint gets no request while another one is well, not even where that is full; where all rest, they are asked
//! as if all were well.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use witgate_config::{Choice, EndpointOptions, Health as HealthRules, Provider, Retry as RetryRules};

use crate::health::{Health, Verdict};
use crate::path::before;
use crate::ports::Ports;
use crate::queue::Queue;
use crate::retry::Budget;
use crate::route::{self, Load};

/// Endpoints that a request has been at: a set of numbers below 256.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tried([u64; 4]);

impl Tried {
    pub fn add(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_none_or(|word| word & 1 << (at % 64) != 0)
    }

    pub fn is_empty(&self) -> bool {
        *self == Tried::default()
    }
}

/// The endpoints of a provider, or of one of its regions.
#[derive(Debug)]
pub(crate) struct Pool {
    choice: Choice,
    pub retry: RetryRules,
    health: HealthRules,
    /// Most that wait, and how long.
    queue: (usize, Duration),
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    endpoints: Vec<Endpoint>,
    cursor: usize,
    queue: Queue,
    budget: Budget,
}

#[derive(Debug)]
struct Endpoint {
    options: EndpointOptions,
    in_flight: u32,
    /// How long it takes to begin an answer, in microseconds, as a moving mean; 0 is not known.
    latency: u64,
    /// When that was last seen.
    seen: Duration,
    health: Health,
}

/// After this time without an answer half of a latency is forgotten, so that one that was slow gets another chance.
const HALF_LIFE: Duration = Duration::from_secs(10);

impl Endpoint {
    fn load(&self, now: Duration) -> Load {
        Load { weight: self.options.weight, in_flight: self.in_flight, latency: self.latency(now) }
    }

    fn latency(&self, now: Duration) -> u64 {
        let lives = now.saturating_sub(self.seen).as_secs() / HALF_LIFE.as_secs();
        (self.latency >> lives.min(40)).max(self.latency.min(1))
    }

    fn is_full(&self) -> bool {
        self.options.max_concurrent.is_some_and(|max| self.in_flight >= max)
    }
}

/// What there is for a request.
enum Place {
    /// A place at this endpoint; whether the request finds out if it serves again.
    At(usize, bool),
    /// None yet.
    Full,
    /// Nothing that it has not tried and that is well.
    Exhausted,
}

/// Why a request gets no place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NoPlace {
    /// It has tried all that are well.
    Exhausted,
    /// So many wait already.
    QueueFull(usize),
    /// It has waited so long.
    Waited(Duration),
}

/// How an acquired place is looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Want {
    /// Where the request has been.
    pub tried: Tried,
    /// What keeps it with others.
    pub sticky: Option<u64>,
    /// When it must have ended.
    pub deadline: Duration,
}

impl State {
    fn place(&mut self, choice: &Choice, want: &Want, now: Duration, random: impl FnOnce() -> u64) -> Place {
        let State { endpoints, cursor, .. } = self;
        let well = |at: usize| endpoints.get(at).filter(|endpoint| !want.tried.has(at) && endpoint.health.is_fit(now));
        let count = endpoints.len();
        let some_well = (0..count).any(|at| well(at).is_some());
        if !some_well && !want.tried.is_empty() {
            return Place::Exhausted;
        }
        let load = |at: usize| {
            let endpoint = if some_well { well(at) } else { endpoints.get(at) }?;
            (!endpoint.is_full()).then(|| endpoint.load(now))
        };
        let chosen = if count == 1 {
            load(0).map(|_| 0)
        } else {
            route::choose(choice.strategy, want.sticky, cursor, count, load, random)
        };
        match chosen.and_then(|at| Some((at, endpoints.get_mut(at)?))) {
            None => Place::Full,
            Some((at, endpoint)) => {
                endpoint.in_flight += 1;
                Place::At(at, endpoint.health.take(now))
            }
        }
    }
}

impl Pool {
    /// The endpoints of `provider`; one, where the configuration names none.
    pub fn new(provider: &Provider) -> Self {
        let mut options = provider.endpoint_options.clone();
        options.resize(
            provider.endpoints.len().max(1),
            EndpointOptions { max_concurrent: provider.concurrency.max, ..EndpointOptions::default() },
        );
        let endpoint =
            |options| Endpoint { options, in_flight: 0, latency: 0, seen: Duration::ZERO, health: Health::default() };
        Pool {
            choice: provider.choice.clone(),
            retry: provider.retry,
            health: provider.health,
            queue: (provider.concurrency.queue as usize, provider.concurrency.wait),
            state: Mutex::new(State {
                endpoints: options.into_iter().map(endpoint).collect(),
                cursor: 0,
                queue: Queue::default(),
                budget: Budget::new(&provider.retry),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps requests together here.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// A place at an endpoint, as soon as there is one.
    pub async fn acquire<P: Ports>(self: &Arc<Self>, ports: &P, want: Want) -> Result<Lease, NoPlace> {
        let now = ports.now();
        {
            let mut state = self.state();
            let place = match state.queue.len() {
                0 => state.place(&self.choice, &want, now, || ports.random() as u64),
                _ => Place::Full,
            };
            match place {
                Place::At(at, probe) => return Ok(self.lease(at, probe, now)),
                Place::Exhausted => return Err(NoPlace::Exhausted),
                Place::Full if state.queue.len() >= self.queue.0 => return Err(NoPlace::QueueFull(self.queue.0)),
                Place::Full => {}
            }
        }
        let deadline = (now + self.queue.1).min(want.deadline);
        match before(ports, deadline, Waiting { pool: self, ports, want, ticket: None }).await {
            Some(result) => result,
            None => Err(NoPlace::Waited(deadline.saturating_sub(now))),
        }
    }

    fn lease(self: &Arc<Self>, at: usize, probe: bool, since: Duration) -> Lease {
        Lease { pool: Arc::clone(self), at, probe, since, served: false, answered: false }
    }

    /// One that is well, for a question beside the requests.
    pub fn peek(&self, now: Duration) -> usize {
        let state = self.state();
        state.endpoints.iter().position(|endpoint| endpoint.health.is_fit(now)).unwrap_or(0)
    }

    /// All endpoints as one: whether some is well, and their load.
    pub fn load(&self, now: Duration) -> (bool, Load) {
        let state = self.state();
        let fit = |endpoint: &&Endpoint| endpoint.health.is_fit(now);
        let in_flight = state.endpoints.iter().map(|endpoint| endpoint.in_flight).sum();
        let known = || state.endpoints.iter().filter(fit).filter(|endpoint| endpoint.latency > 0);
        let count = known().count() as u64;
        let latency = known().map(|endpoint| endpoint.latency(now)).sum::<u64>().checked_div(count).unwrap_or(0);
        (state.endpoints.iter().any(|endpoint| fit(&endpoint)), Load { weight: 1, in_flight, latency })
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.state().queue.len()
    }

    /// How many requests each endpoint has, and whether it is well.
    pub fn endpoints(&self, now: Duration) -> Vec<(u32, bool)> {
        let state = self.state();
        state.endpoints.iter().map(|endpoint| (endpoint.in_flight, endpoint.health.is_fit(now))).collect()
    }

    /// How each endpoint fares: whether it is well, its running requests, and how long it takes to begin an answer.
    pub fn report(&self, now: Duration) -> Vec<(bool, u32, Duration)> {
        let state = self.state();
        let one = |endpoint: &Endpoint| {
            (endpoint.health.is_fit(now), endpoint.in_flight, Duration::from_micros(endpoint.latency(now)))
        };
        state.endpoints.iter().map(one).collect()
    }

    /// A request's first try here.
    pub fn first_try(&self) {
        self.state().budget.first(&self.retry);
    }

    /// Whether the budget has a further try.
    pub fn further_try(&self, now: Duration) -> bool {
        self.state().budget.take(&self.retry, now)
    }
}

/// Waits for its turn and a place.
struct Waiting<'p, P: Ports> {
    pool: &'p Arc<Pool>,
    ports: &'p P,
    want: Want,
    ticket: Option<u64>,
}

impl<P: Ports> Future for Waiting<'_, P> {
    type Output = Result<Lease, NoPlace>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let now = this.ports.now();
        let mut state = this.pool.state();
        let ticket = *this.ticket.get_or_insert_with(|| state.queue.join(cx.waker().clone()));
        let place = if state.queue.is_first(ticket) {
            state.place(&this.pool.choice, &this.want, now, || this.ports.random() as u64)
        } else {
            Place::Full
        };
        let result = match place {
            Place::Full => {
                state.queue.wait(ticket, cx.waker());
                return Poll::Pending;
            }
            Place::Exhausted => Err(NoPlace::Exhausted),
            Place::At(at, probe) => Ok((at, probe)),
        };
        state.queue.leave(ticket);
        this.ticket = None;
        // There may be a place for the next one too.
        let next = state.queue.first();
        drop(state);
        if let Some(next) = next {
            next.wake();
        }
        Poll::Ready(result.map(|(at, probe)| this.pool.lease(at, probe, now)))
    }
}

impl<P: Ports> Drop for Waiting<'_, P> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let next = {
                let mut state = self.pool.state();
                state.queue.leave(ticket);
                state.queue.first()
            };
            if let Some(next) = next {
                next.wake();
            }
        }
    }
}

/// One place at one endpoint; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    at: usize,
    /// This request finds out whether the endpoint serves again.
    probe: bool,
    since: Duration,
    served: bool,
    /// The endpoint has begun to answer.
    pub answered: bool,
}

impl Lease {
    /// Which endpoint.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The answer has begun, or is complete.
    pub fn served(&mut self, now: Duration) {
        if self.served {
            return;
        }
        self.served = true;
        let took = u64::try_from(now.saturating_sub(self.since).as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 40);
        self.endpoint(|endpoint, _| {
            endpoint.latency = match endpoint.latency {
                0 => took,
                _ => (endpoint.latency(now) * 7 + took) / 8,
            };
            endpoint.seen = now;
        });
        self.tell(now, Verdict::Served);
    }

    /// What the request tells of the endpoint.
    pub fn tell(&mut self, now: Duration, verdict: Verdict) {
        let probe = std::mem::take(&mut self.probe);
        self.endpoint(|endpoint, rules| {
            if probe {
                endpoint.health.probed();
            }
            endpoint.health.tell(rules, now, verdict);
        });
    }

    fn endpoint(&self, change: impl FnOnce(&mut Endpoint, &HealthRules)) {
        if let Some(endpoint) = self.pool.state().endpoints.get_mut(self.at) {
            change(endpoint, &self.pool.health);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let next = {
            let mut state = self.pool.state();
            if let Some(endpoint) = state.endpoints.get_mut(self.at) {
                endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
                if self.probe {
                    endpoint.health.probed();
                }
            }
            state.queue.first()
        };
        if let Some(next) = next {
            next.wake();
        }
    }
}
