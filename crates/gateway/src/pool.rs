//! The endpoints of a provider as all requests of the process share them: who is well, who is busy, who waits.
//!
//! [`Pool::acquire`] gives a [`Lease`], one place at one endpoint; dropping it gives the place back and wakes who waits. A
//! resting endpoint gets no request while another one is well, not even where that is full; where all rest, they are asked
//! as if all were well.
//!
//! When the configuration is read anew, the pool's successor shares what is known of the endpoints that both have, by their
//! URL: how they fare, and how many requests they have, those that still run on the old pool included. Who waits, waits
//! where it asked.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
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

    pub fn has(&self, at: usize) -> bool {
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
    /// Where each endpoint is in the state, and its options.
    endpoints: Vec<(usize, EndpointOptions)>,
    /// Which of the queues is its own.
    id: u64,
    state: Arc<Mutex<State>>,
}

/// What a pool shares with its successors.
#[derive(Debug)]
struct State {
    endpoints: Vec<Endpoint>,
    cursor: usize,
    /// Who waits at each pool.
    queues: BTreeMap<u64, Queue>,
    pools: u64,
    budget: Budget,
}

#[derive(Debug)]
struct Endpoint {
    /// Its URL.
    name: String,
    /// How many pools have it. Without one its place is free for another.
    pools: u32,
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
    fn load(&self, options: &EndpointOptions, now: Duration) -> Load {
        Load { weight: options.weight, in_flight: self.in_flight, latency: self.latency(now) }
    }

    fn latency(&self, now: Duration) -> u64 {
        let lives = now.saturating_sub(self.seen).as_secs() / HALF_LIFE.as_secs();
        (self.latency >> lives.min(40)).max(self.latency.min(1))
    }

    fn is_full(&self, options: &EndpointOptions) -> bool {
        options.max_concurrent.is_some_and(|max| self.in_flight >= max)
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
    fn new(provider: &Provider) -> Self {
        State {
            endpoints: Vec::new(),
            cursor: 0,
            queues: BTreeMap::new(),
            pools: 0,
            budget: Budget::new(&provider.retry),
        }
    }

    fn waiting(&self, pool: u64) -> usize {
        self.queues.get(&pool).map_or(0, Queue::len)
    }

    /// Whom to wake when there is a place: in each queue the one whose turn it is.
    fn first(&self) -> Vec<Waker> {
        self.queues.values().filter_map(Queue::first).collect()
    }
}

impl Pool {
    /// The endpoints of `provider`; one, where the configuration names none.
    pub fn new(provider: &Provider) -> Self {
        Self::over(provider, Arc::new(Mutex::new(State::new(provider))))
    }

    /// The pool that takes this one's place when `provider` is configured anew.
    pub fn successor(&self, provider: &Provider) -> Self {
        Self::over(provider, Arc::clone(&self.state))
    }

    fn over(provider: &Provider, state: Arc<Mutex<State>>) -> Self {
        let mut options = provider.endpoint_options.clone();
        options.resize(
            provider.endpoints.len().max(1),
            EndpointOptions { max_concurrent: provider.concurrency.max, ..EndpointOptions::default() },
        );
        let mut names = provider.endpoints.clone();
        names.resize(options.len(), format!("the default of {}", provider.adapter.as_str()));
        let mut all = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut known, mut free) = (BTreeMap::<String, Vec<usize>>::new(), Vec::new());
        for (at, endpoint) in all.endpoints.iter().enumerate().rev() {
            match endpoint.pools {
                0 => free.push(at),
                _ => known.entry(endpoint.name.clone()).or_default().push(at),
            }
        }
        let mut endpoints = Vec::with_capacity(options.len());
        for (name, options) in names.into_iter().zip(options) {
            if let Some(at) = known.get_mut(&name).and_then(Vec::pop) {
                endpoints.push((at, options));
                continue;
            }
            let endpoint =
                Endpoint { name, pools: 0, in_flight: 0, latency: 0, seen: Duration::ZERO, health: Health::default() };
            let at = free.pop().unwrap_or(all.endpoints.len());
            match all.endpoints.get_mut(at) {
                Some(place) => *place = endpoint,
                None => all.endpoints.push(endpoint),
            }
            endpoints.push((at, options));
        }
        for (at, _) in &endpoints {
            if let Some(endpoint) = all.endpoints.get_mut(*at) {
                endpoint.pools += 1;
            }
        }
        let id = all.pools;
        all.pools += 1;
        all.queues.insert(id, Queue::default());
        drop(all);
        Pool {
            choice: provider.choice.clone(),
            retry: provider.retry,
            health: provider.health,
            queue: (provider.concurrency.queue as usize, provider.concurrency.wait),
            endpoints,
            id,
            state,
        }
    }

    /// Looks for a place.
    fn place(&self, state: &mut State, want: &Want, now: Duration, random: impl FnOnce() -> u64) -> Place {
        let State { endpoints, cursor, .. } = state;
        let known = |at: usize| {
            let (place, options) = self.endpoints.get(at)?;
            Some((endpoints.get(*place)?, options))
        };
        let well = |at: usize| known(at).filter(|(endpoint, _)| !want.tried.has(at) && endpoint.health.is_fit(now));
        let count = self.endpoints.len();
        let some_well = (0..count).any(|at| well(at).is_some());
        if !some_well && !want.tried.is_empty() {
            return Place::Exhausted;
        }
        let load = |at: usize| {
            let (endpoint, options) = if some_well { well(at) } else { known(at) }?;
            (!endpoint.is_full(options)).then(|| endpoint.load(options, now))
        };
        let chosen = if count == 1 {
            load(0).map(|_| 0)
        } else {
            route::choose(self.choice.strategy, want.sticky, cursor, count, load, random)
        };
        match chosen.and_then(|at| Some((at, endpoints.get_mut(self.endpoints.get(at)?.0)?))) {
            None => Place::Full,
            Some((at, endpoint)) => {
                endpoint.in_flight += 1;
                Place::At(at, endpoint.health.take(now))
            }
        }
    }

    /// Its endpoints, in the order of the configuration.
    fn all<'s>(&'s self, state: &'s State) -> impl Iterator<Item = (&'s Endpoint, &'s EndpointOptions)> {
        self.endpoints.iter().filter_map(|(at, options)| Some((state.endpoints.get(*at)?, options)))
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
            let waiting = state.waiting(self.id);
            let place = match waiting {
                0 => self.place(&mut state, &want, now, || ports.random() as u64),
                _ => Place::Full,
            };
            match place {
                Place::At(at, probe) => return Ok(self.lease(at, probe, now)),
                Place::Exhausted => return Err(NoPlace::Exhausted),
                Place::Full if waiting >= self.queue.0 => return Err(NoPlace::QueueFull(self.queue.0)),
                Place::Full => {}
            }
        }
        let deadline = (now + self.queue.1).min(want.deadline);
        let mut waiting = Waiting { pool: self, ports, want, ticket: None, until: deadline };
        loop {
            let until = waiting.until;
            match before(ports, until, &mut waiting).await {
                Some(Waited::Over(result)) => return result,
                Some(Waited::Sooner) => {}
                // An endpoint has rested.
                None if until < deadline => waiting.until = deadline,
                None => return Err(NoPlace::Waited(deadline.saturating_sub(now))),
            }
        }
    }

    /// A place at an endpoint that is well, where there is one now and nobody waits.
    pub fn acquire_now<P: Ports>(self: &Arc<Self>, ports: &P, want: Want) -> Option<Lease> {
        let now = ports.now();
        let mut state = self.state();
        if state.waiting(self.id) > 0 {
            return None;
        }
        match self.place(&mut state, &want, now, || ports.random() as u64) {
            Place::At(at, probe) => {
                drop(state);
                Some(self.lease(at, probe, now))
            }
            Place::Full | Place::Exhausted => None,
        }
    }

    /// Whether a request would have to wait.
    pub fn is_busy(&self, now: Duration) -> bool {
        let state = self.state();
        let mut fit = self.all(&state).filter(|(endpoint, _)| endpoint.health.is_fit(now));
        state.waiting(self.id) > 0 || fit.all(|(endpoint, options)| endpoint.is_full(options))
    }

    /// The endpoints that rest.
    pub fn resting(&self) -> Vec<usize> {
        let state = self.state();
        let all = self.all(&state).enumerate();
        all.filter(|(_, (endpoint, _))| endpoint.health.is_resting()).map(|(at, _)| at).collect()
    }

    /// What a probe told of an endpoint.
    pub fn probed(&self, at: usize, now: Duration, verdict: Verdict) {
        self.endpoint(at, |endpoint, rules| endpoint.health.tell(rules, now, verdict));
    }

    fn endpoint(&self, at: usize, change: impl FnOnce(&mut Endpoint, &HealthRules)) {
        let Some((place, _)) = self.endpoints.get(at) else { return };
        let next = {
            let mut state = self.state();
            if let Some(endpoint) = state.endpoints.get_mut(*place) {
                change(endpoint, &self.health);
            }
            state.first()
        };
        // It may be well now.
        next.into_iter().for_each(Waker::wake);
    }

    /// When the next of its endpoints has rested that the request has not been at.
    fn rested(&self, state: &State, want: &Want, now: Duration) -> Option<Duration> {
        let all = self.all(state).enumerate().filter(|(at, _)| !want.tried.has(*at));
        all.map(|(_, (endpoint, _))| endpoint.health.rested_at()).filter(|at| *at > now).min()
    }

    fn lease(self: &Arc<Self>, at: usize, probe: bool, since: Duration) -> Lease {
        Lease { pool: Arc::clone(self), at, probe, since, served: false, answered: false }
    }

    /// One that is well, for a question beside the requests.
    pub fn peek(&self, now: Duration) -> usize {
        self.all(&self.state()).position(|(endpoint, _)| endpoint.health.is_fit(now)).unwrap_or(0)
    }

    /// All endpoints as one: whether some is well, and their load.
    pub fn load(&self, now: Duration) -> (bool, Load) {
        let state = self.state();
        let all = || self.all(&state).map(|(endpoint, _)| endpoint);
        let fit = |endpoint: &&Endpoint| endpoint.health.is_fit(now);
        let in_flight = all().map(|endpoint| endpoint.in_flight).sum();
        let known = || all().filter(fit).filter(|endpoint| endpoint.latency > 0);
        let count = known().count() as u64;
        let latency = known().map(|endpoint| endpoint.latency(now)).sum::<u64>().checked_div(count).unwrap_or(0);
        let some_well = all().any(|endpoint| fit(&endpoint));
        (some_well, Load { weight: 1, in_flight, latency })
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.state().waiting(self.id)
    }

    /// How many requests each endpoint has, and whether it is well.
    pub fn endpoints(&self, now: Duration) -> Vec<(u32, bool)> {
        let state = self.state();
        self.all(&state).map(|(endpoint, _)| (endpoint.in_flight, endpoint.health.is_fit(now))).collect()
    }

    /// How each endpoint fares: whether it is well, its running requests, and how long it takes to begin an answer.
    pub fn report(&self, now: Duration) -> Vec<(bool, u32, Duration)> {
        let state = self.state();
        let one = |endpoint: &Endpoint| {
            (endpoint.health.is_fit(now), endpoint.in_flight, Duration::from_micros(endpoint.latency(now)))
        };
        self.all(&state).map(|(endpoint, _)| one(endpoint)).collect()
    }

    /// A request's first try here.
    pub fn first_try(&self) {
        self.state().budget.first(&self.retry);
    }

    /// Whether the budget has a further try for later.
    pub fn has_further_try(&self, now: Duration) -> bool {
        self.state().budget.has_now(&self.retry, now)
    }

    /// Takes a further try of the budget, where it has one.
    pub fn further_try(&self, now: Duration) -> bool {
        self.state().budget.take(&self.retry, now)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.queues.remove(&self.id);
        for (at, _) in &self.endpoints {
            if let Some(endpoint) = state.endpoints.get_mut(*at) {
                endpoint.pools = endpoint.pools.saturating_sub(1);
            }
        }
    }
}

/// Waits for its turn and a place.
struct Waiting<'p, P: Ports> {
    pool: &'p Arc<Pool>,
    ports: &'p P,
    want: Want,
    ticket: Option<u64>,
    /// When it is polled at the latest.
    until: Duration,
}

/// How waiting went.
enum Waited {
    Over(Result<Lease, NoPlace>),
    /// It goes on, but is to be polled sooner than was known.
    Sooner,
}

impl<P: Ports> Future for Waiting<'_, P> {
    type Output = Waited;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Waited> {
        let this = &mut *self;
        let now = this.ports.now();
        let pool = this.pool;
        let mut state = pool.state();
        let queue = state.queues.entry(pool.id).or_default();
        let ticket = *this.ticket.get_or_insert_with(|| queue.join(cx.waker().clone()));
        let is_first = queue.is_first(ticket);
        let place = match is_first {
            true => pool.place(&mut state, &this.want, now, || this.ports.random() as u64),
            false => Place::Full,
        };
        // Nobody wakes it when an endpoint has rested.
        let rested = is_first.then(|| pool.rested(&state, &this.want, now)).flatten();
        let queue = state.queues.entry(pool.id).or_default();
        let result = match place {
            Place::Full => {
                queue.wait(ticket, cx.waker());
                return match rested.filter(|rested| *rested < this.until) {
                    Some(rested) => {
                        this.until = rested;
                        Poll::Ready(Waited::Sooner)
                    }
                    None => Poll::Pending,
                };
            }
            Place::Exhausted => Err(NoPlace::Exhausted),
            Place::At(at, probe) => Ok((at, probe)),
        };
        queue.leave(ticket);
        this.ticket = None;
        // There may be a place for the next one too.
        let next = queue.first();
        drop(state);
        if let Some(next) = next {
            next.wake();
        }
        Poll::Ready(Waited::Over(result.map(|(at, probe)| pool.lease(at, probe, now))))
    }
}

impl<P: Ports> Drop for Waiting<'_, P> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let next = {
                let mut state = self.pool.state();
                let queue = state.queues.entry(self.pool.id).or_default();
                queue.leave(ticket);
                queue.first()
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
        self.took(now);
        self.tell(now, Verdict::Served);
    }

    /// The request has ended here, without an answer to it.
    pub fn over(&mut self, now: Duration, verdict: Verdict) {
        self.served = true;
        if verdict == Verdict::Slow {
            self.took(now);
        }
        self.tell(now, verdict);
    }

    /// Whether what the request tells of the endpoint has been told.
    pub fn is_over(&self) -> bool {
        self.served
    }

    /// It took so long, at least.
    fn took(&self, now: Duration) {
        let took = u64::try_from(now.saturating_sub(self.since).as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 40);
        self.endpoint(|endpoint, _| {
            endpoint.latency = match endpoint.latency {
                0 => took,
                _ => (endpoint.latency(now) * 7 + took) / 8,
            };
            endpoint.seen = now;
        });
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
        self.pool.endpoint(self.at, change);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let next = {
            let mut state = self.pool.state();
            let place = self.pool.endpoints.get(self.at).map(|(at, _)| *at);
            if let Some(endpoint) = place.and_then(|at| state.endpoints.get_mut(at)) {
                endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
                if self.probe {
                    endpoint.health.probed();
                }
            }
            state.first()
        };
        next.into_iter().for_each(Waker::wake);
    }
}
