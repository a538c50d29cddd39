//! Asking a second backend beside a first one that is slow.
//!
//! Only for answers that are not streamed: nothing of them has gone to the client, so that the first good one counts and
//! the other is given up. The second is another endpoint of the provider that is well and has a place, else another target
//! of the model. There is a second one for at most so many of a hundred requests, and it counts as a further try in the
//! retry budget of the provider that it goes to: a hedge never makes an overload worse.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use witgate_config::{Hedge as Rules, HedgeAfter, Provider, Retry};
use witgate_model::{Event, Order, Usage};

use crate::chain::{Around, Told, verdict};
use crate::check::merge;
use crate::failure::Failed;
use crate::health::Verdict;
use crate::path::{Attempt, Call, Ended, Flight, Reply, Run, before, component};
use crate::pool::{Lease, Pool, Tried, Want};
use crate::ports::{Fault, Normaliser, Ports};
use crate::retry::Budget;

/// When a second backend is asked, as all requests share it.
#[derive(Debug)]
pub(crate) struct Hedger {
    rules: Rules,
    /// What the budget of hedges is.
    budget: Retry,
    state: Mutex<(Sketch, Budget)>,
}

/// A second one is looked for no more often than this.
const LEAST_WAIT: Duration = Duration::from_millis(250);

/// Fewest answers of which a percentile says something.
const FEWEST: u32 = 20;

impl Hedger {
    pub fn new(rules: Rules) -> Self {
        let budget = Retry { budget: rules.max_percent, reserve: 0, ..Retry::DEFAULT };
        Hedger { rules, budget, state: Mutex::new((Sketch::default(), Budget::new(&budget))) }
    }

    /// Whether it is as these rules want it.
    pub fn has_rules(&self, rules: &Rules) -> bool {
        self.rules == *rules
    }

    fn state(&self) -> MutexGuard<'_, (Sketch, Budget)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins. How long its first backend is waited for alone.
    fn first(&self) -> Option<Duration> {
        let mut state = self.state();
        state.1.first(&self.budget);
        match self.rules.after {
            HedgeAfter::Time(time) => Some(time),
            HedgeAfter::Percentile(percent) => state.0.percentile(percent),
        }
    }

    /// Whether one more hedge is within the bound.
    fn has(&self) -> bool {
        self.state().1.has()
    }

    /// The same, and it is counted.
    fn may(&self, now: Duration) -> bool {
        self.state().1.take(&self.budget, now)
    }

    /// An answer took so long.
    fn seen(&self, took: Duration) {
        self.state().0.add(took);
    }
}

/// How long answers took lately, to an eighth: counts in buckets that grow with the time, halved every so often.
#[derive(Debug)]
struct Sketch {
    counts: [u32; BUCKETS],
    all: u32,
}

const BUCKETS: usize = 8 * 40;
/// From so many answers on, half of the past is forgotten.
const HALVED_AT: u32 = 2_000;

impl Default for Sketch {
    fn default() -> Self {
        Sketch { counts: [0; BUCKETS], all: 0 }
    }
}

impl Sketch {
    fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(8);
        // The place of the first bit, and the three bits behind it.
        let octave = 63 - micros.leading_zeros();
        let bucket = (octave as usize - 3) * 8 + ((micros >> (octave - 3)) & 7) as usize;
        if let Some(count) = self.counts.get_mut(bucket.min(BUCKETS - 1)) {
            *count += 1;
            self.all += 1;
        }
        if self.all >= HALVED_AT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.all = self.counts.iter().sum();
        }
    }

    /// What so many of a hundred answers took at most.
    fn percentile(&self, percent: u32) -> Option<Duration> {
        if self.all < FEWEST {
            return None;
        }
        let mut left = (u64::from(self.all) * u64::from(percent)).div_ceil(100);
        let bucket = self.counts.iter().position(|count| {
            left = left.saturating_sub(u64::from(*count));
            left == 0
        })?;
        Some(Duration::from_micros((9 + bucket as u64 % 8) << (bucket / 8)))
    }
}

/// One whole answer.
#[derive(Default)]
struct Gathered {
    /// Its events, in the pieces in which they came.
    reads: Vec<Vec<Event>>,
    dropped: Vec<String>,
    usage: Option<Usage>,
    /// The endpoint has begun to answer.
    answered: bool,
}

/// Asks, and reads the whole answer.
async fn gather<P: Ports>(
    call: Call<'_, P>,
    asked: (&Arc<witgate_model::Request>, Option<String>, Duration),
    into: &mut Gathered,
) -> Result<(), Failed> {
    let mut order = Order::new(&asked.0.input);
    let mut reply = Reply::open(call, asked, &mut into.dropped).await?;
    into.answered = true;
    while !order.ended() {
        let mut events = reply.events(false).await?;
        for event in &events {
            order.next(event).map_err(|what| call.fault(&Fault { component: component(call.provider), what }))?;
            if let Event::Usage(usage) = event {
                merge(&mut into.usage, usage);
            }
        }
        if let Some(Event::Failed(_)) = events.last()
            && let Some(Event::Failed(error)) = events.pop()
        {
            return Err(Failed::provider(error, call.provider));
        }
        into.reads.push(events);
    }
    Ok(())
}

/// One backend that is asked.
pub(crate) struct Leg<'a> {
    pub provider: &'a Provider,
    pub settings: (&'a serde_json::Value, &'a str),
    pub lease: Lease,
    pub key: usize,
    /// As the backend is asked for it.
    pub model: String,
}

/// Where second requests have been.
struct Been {
    /// Of the first one's provider.
    endpoints: Tried,
    /// Of the group.
    targets: Tried,
    any: bool,
}

/// Who has answered, if anybody.
#[allow(clippy::large_enum_variant, reason = "made once for a request, and taken apart at once")]
enum End<'a> {
    First(Result<(), Failed>),
    /// The second one; the first has failed so, or is still at it.
    Second(Leg<'a>, Gathered, Option<Failed>),
}

impl<N: Normaliser> Run<N> {
    /// Asks the backend of `lease`, and another one too where that is slow. The lease is told how it fared; where it
    /// failed and there is no answer, that is left to the caller.
    pub(crate) async fn hedged<P: Ports>(
        &mut self,
        (flight, told): (&mut Flight<P>, &mut Told),
        hedger: &Hedger,
        (provider, settings, key): (&Provider, (&serde_json::Value, &str), usize),
        (pool, lease): (&Arc<Pool>, &mut Lease),
        around: &Around<'_>,
    ) -> Result<Ended, Attempt> {
        let (gateway, ports) = (Arc::clone(&self.gateway), Arc::clone(&flight.ports));
        let ports = ports.as_ref();
        let request_id = flight.record.request_id.clone();
        let begun = ports.now();
        let call = |provider, settings, endpoint, key| Call {
            gateway: &gateway,
            ports,
            provider,
            settings,
            endpoint,
            key,
            request_id: &request_id,
        };
        let request = Arc::clone(&self.request);
        let mut one = Gathered::default();
        let asked = (&request, self.traceparent.clone(), flight.start);
        let alone = hedger.first();
        let mut first = Box::pin(gather(call(provider, settings, lease.at(), key), asked, &mut one));
        let mut been = Been { endpoints: Tried::default(), targets: Tried::default(), any: false };
        been.endpoints.add(lease.at());
        let mut wait = alone;
        let end = loop {
            let Some(alone) = wait else { break End::First(first.as_mut().await) };
            if let Some(result) = before(ports, ports.now() + alone, &mut first).await {
                break End::First(result);
            }
            // Where nobody can be asked now, somebody may be later.
            wait = Some(alone.max(LEAST_WAIT));
            let Some((leg, request)) = self.second(flight, hedger, (pool, &mut been), around) else { continue };
            flight.record.attempts += 1;
            flight.record.hedged = Some(false);
            let mut two = Gathered::default();
            let asked = (&request, self.traceparent.clone(), flight.start);
            let called = call(leg.provider, leg.settings, leg.lease.at(), leg.key);
            let mut second = Box::pin(gather(called, asked, &mut two));
            let (of_first, of_second) = match select(&mut first, &mut second).await {
                Either::Left((Ok(()), _)) => break End::First(Ok(())),
                Either::Left((Err(why), _)) => (Some(why), second.as_mut().await),
                Either::Right((result, _)) => (None, result),
            };
            drop(second);
            let Err(why) = of_second else { break End::Second(leg, two, of_first) };
            let mut leg = leg;
            gateway.tell_key(ports, leg.provider, leg.key, &why, &request_id);
            leg.lease.tell(ports.now(), verdict(leg.provider, &why, two.answered));
            flight.record.usage = two.usage;
            flight.bill.price(gateway.config.access.price(&leg.provider.name, &leg.model));
            flight.failed(&why, leg.provider, &request.model);
            // The first one, which goes on, or the next second one has its own.
            flight.bill.price(gateway.config.access.price(&provider.name, &self.request.model));
            told.hear(&why);
            if let Some(why) = of_first {
                break End::First(Err(why));
            }
            wait = Some(Duration::ZERO);
        };
        drop(first);
        let now = ports.now();
        lease.answered |= one.answered;
        let gathered = match end {
            End::First(Err(why)) => {
                flight.record.usage = one.usage;
                return Err(Attempt::Before(why));
            }
            End::First(Ok(())) => one,
            End::Second(mut leg, two, of_first) => {
                match of_first {
                    Some(why) => {
                        gateway.tell_key(ports, provider, key, &why, &request_id);
                        lease.over(now, verdict(provider, &why, lease.answered));
                        flight.record.usage = one.usage;
                        flight.failed(&why, provider, &request.model);
                        told.hear(&why);
                    }
                    None => lease.over(now, Verdict::Slow),
                }
                leg.lease.served(now);
                if let Some(keys) = gateway.provider_keys(leg.provider) {
                    keys.served(leg.key);
                }
                flight.record.hedged = Some(true);
                flight.record.provider = Some(leg.provider.name.clone());
                flight.bill.price(gateway.config.access.price(&leg.provider.name, &leg.model));
                two
            }
        };
        hedger.seen(now.saturating_sub(begun));
        let told = self.told_whole(flight, gathered).await;
        told.map_err(|failed| match failed {
            Ok(fault) => Attempt::Before(call(provider, settings, 0, key).fault(&fault)),
            Err(failed) => Attempt::Before(failed),
        })
    }

    /// A place for the second one, within all bounds, and the request as it is asked there.
    fn second<'a, P: Ports>(
        &self,
        flight: &Flight<P>,
        hedger: &Hedger,
        (pool, been): (&Arc<Pool>, &mut Been),
        around: &Around<'a>,
    ) -> Option<(Leg<'a>, Arc<witgate_model::Request>)> {
        let gateway = around.gateway;
        let (ports, now) = (flight.ports.as_ref(), flight.ports.now());
        // One in the place of another that has failed is no further hedge.
        let another = been.any;
        if !another && !hedger.has() {
            return None;
        }
        let key = |provider| gateway.provider_keys(provider).map_or(0, |keys| keys.peek(now));
        let want = Want { tried: been.endpoints, sticky: None, deadline: now };
        let (leg, request) = match pool.acquire_now(ports, want).filter(|_| pool.further_try(now)) {
            Some(lease) => {
                been.endpoints.add(lease.at());
                let (provider, settings) = (around.provider, gateway.settings(around.provider, around.target));
                let model = self.request.model.clone();
                (Leg { provider, settings, lease, key: key(provider), model }, Arc::clone(&self.request))
            }
            None => around.sequence.iter().find_map(|at| {
                let target = around.group.get(at).filter(|other| !std::ptr::eq(*other, around.target))?;
                let (provider, pool) = gateway.place(target)?;
                let well = pool.load(now).0 && gateway.provider_keys(provider).is_none_or(|keys| keys.is_fit(now));
                if !well || been.targets.has(at) {
                    return None;
                }
                let lease = pool.acquire_now(ports, Want { deadline: now, ..Want::default() })?;
                if !pool.further_try(now) {
                    return None;
                }
                been.targets.add(at);
                let mut request = witgate_model::Request::clone(&self.request);
                request.model = target.model.clone().unwrap_or_else(|| around.client_model.to_owned());
                let settings = gateway.settings(provider, target);
                let model = request.model.clone();
                Some((Leg { provider, settings, lease, key: key(provider), model }, Arc::new(request)))
            })?,
        };
        been.any = another || hedger.may(now);
        been.any.then_some((leg, request))
    }

    /// Renders a whole answer.
    async fn told_whole<P: Ports>(
        &mut self,
        flight: &mut Flight<P>,
        gathered: Gathered,
    ) -> Result<Ended, Result<Fault, Failed>> {
        flight.record.dropped = gathered.dropped;
        flight.record.first_token.get_or_insert(flight.ports.now().saturating_sub(flight.start));
        if let Some((recorder, _)) = &mut self.recorder {
            recorder.restart();
            gathered.reads.iter().for_each(|read| recorder.take(read));
        }
        // What the backend has counted costs, whatever the policies let pass of it.
        for read in &gathered.reads {
            flight.bill.see(read);
            read.iter().for_each(|event| flight.note(&self.dialect, &self.request.dialect, event));
        }
        let reads = self.watched_whole(flight, gathered.reads).map_err(Err)?;
        let events: Vec<Event> = reads.into_iter().flatten().collect();
        let body = Bytes::from(self.normaliser.feed(events).map_err(Ok)?);
        self.ended(flight, Some(body)).map_err(Ok)
    }
}
