//! Policies: components that look at a request before it is routed, and at the events of its answer before they are
//! rendered.
//!
//! They come in the operator's order, each with what the one before made of the request or of the events. A policy that
//! fails its contract fails the request, or with `on_failure = "open"` is left out: of the request, or of what is left of
//! the answer, in which case what it held back is given from the gateway's own copy, as it came from the backend.
//!
//! Where one of them chooses another model, those of that model that have not looked at the request yet do so too, behind
//! the others: what a model's operator wants looked at is looked at, however a request got there.

use std::sync::Arc;

use witgate_config::OnFailure;
use witgate_model::policy::{Context, Decision, Filtered, Tag};
use witgate_model::{Event, Input, Order, Request};

use crate::failure::Failed;
use crate::gateway::Gateway;
use crate::path::{Flight, Run};
use crate::ports::{Fault, Policy, Ports};
use crate::record::Warning;

/// Most bytes of an answer that one policy holds back.
const MAX_HELD: u32 = 65_536;
/// Most tags of one request.
const MAX_TAGS: usize = 64;

/// A policy that watches the answers of a request.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    name: String,
    note: String,
}

/// What policies make of a request.
pub(crate) struct Passed {
    /// Those that watch its answers.
    pub watches: Vec<Watch>,
    /// The model that serves instead.
    pub route: Option<String>,
}

fn is_tag(tag: &Tag) -> bool {
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let value = |b: u8| (b' '..=b'~').contains(&b) && !matches!(b, b',' | b';');
    (1..=64).contains(&tag.name.len())
        && tag.name.bytes().all(name)
        && tag.value.len() <= 128
        && tag.value.bytes().all(value)
}

/// Breaks of the contract that types do not show.
pub(crate) fn check(name: &str, decision: &Decision) -> Result<(), Fault> {
    let fault = |what: &str| Fault { component: format!("policy \"{name}\""), what: what.to_owned() };
    if decision.tags.len() > 16 || !decision.tags.iter().all(is_tag) {
        return Err(fault("returned tags that break the rules: at most 16, short and of plain characters"));
    }
    if decision.route.as_ref().is_some_and(|route| route.is_empty() || route.len() > 256) {
        return Err(fault("returned a model's name that is empty or longer than 256 bytes"));
    }
    if decision.watch.as_ref().is_some_and(|note| note.len() > 1 << 20) {
        return Err(fault("returned a note of more than 1 MiB"));
    }
    Ok(())
}

impl Gateway {
    /// The policies of requests for a model.
    fn chain(&self, model: &str) -> &[String] {
        let own = self.config.route(model).ok().and_then(|route| route.model?.policies.as_deref());
        own.unwrap_or(&self.config.policy_chain)
    }

    /// Has the policies look at a request. `served` is the model that serves it, where that is settled already.
    pub(crate) fn apply_policies<P: Ports>(
        &self,
        flight: &mut Flight<P>,
        dialect: &str,
        request: &mut Arc<Request>,
        served: Option<&str>,
    ) -> Result<Passed, Failed> {
        if self.config.policies.is_empty() {
            return Ok(Passed { watches: Vec::new(), route: None });
        }
        let (model, tenant) = (request.model.clone(), flight.record.tenant.clone());
        let mut context = Context { dialect: dialect.to_owned(), model, tenant, tags: Vec::new() };
        let passed = self.decide(flight, &mut context, request, served);
        // Of a request that is refused too.
        flight.record.tags = context.tags.into_iter().map(|tag| (tag.name, tag.value)).collect();
        passed
    }

    /// One policy after another; what they tag the request with is added to the context.
    fn decide<P: Ports>(
        &self,
        flight: &Flight<P>,
        context: &mut Context,
        request: &mut Arc<Request>,
        served: Option<&str>,
    ) -> Result<Passed, Failed> {
        let mut passed = Passed { watches: Vec::new(), route: None };
        let mut model = context.model.clone();
        let mut asked: Vec<&str> = Vec::new();
        // Ends: where nobody new was asked, nobody has chosen another model.
        loop {
            for name in self.chain(&model) {
                let Some(config) = self.config.policies.get(name) else { continue };
                if asked.contains(&name.as_str()) {
                    continue;
                }
                asked.push(name);
                let decided = flight
                    .ports
                    .policy(name)
                    .and_then(|mut policy| policy.on_request(&config.settings_text, context, request))
                    .and_then(|decided| match decided {
                        Ok(decision) => check(name, &decision).map(|()| Ok(decision)),
                        Err(error) => Ok(Err(error)),
                    });
                let decision = match decided {
                    Ok(Ok(decision)) => decision,
                    Ok(Err(error)) => return Err(Failed::request(error)),
                    Err(fault) => {
                        flight.ports.warn(&Warning::Fault { request_id: &flight.record.request_id, fault: &fault });
                        match config.on_failure {
                            OnFailure::Closed => return Err(Failed::fault(&fault, None)),
                            OnFailure::Open => continue,
                        }
                    }
                };
                if let Some(changed) = decision.request {
                    // What it may not change: for which model, how the answer is given, and in whose terms.
                    let Request { model, dialect, stream, .. } = request.as_ref();
                    let (model, dialect, stream) = (model.clone(), dialect.clone(), *stream);
                    *request = Arc::new(Request { model, dialect, stream, ..changed });
                }
                passed.route = decision.route.or(passed.route);
                if let Some(note) = decision.watch {
                    passed.watches.push(Watch { name: name.clone(), note });
                }
                context.tags.extend(decision.tags);
                context.tags.truncate(MAX_TAGS);
            }
            match served.or(passed.route.as_deref()) {
                Some(next) if next != model => next.clone_into(&mut model),
                _ => return Ok(passed),
            }
        }
    }

    /// The watchers of one answer.
    pub(crate) fn watchers<P: Ports>(
        &self,
        ports: &P,
        id: &str,
        watches: &[Watch],
        input: &Input,
    ) -> Result<Watchers<P>, Fault> {
        let mut all = Vec::with_capacity(watches.len());
        for Watch { name, note } in watches {
            let Some(config) = self.config.policies.get(name) else { continue };
            let started = ports.policy(name).and_then(|mut policy| {
                policy.start(&config.settings_text, note.clone())?;
                Ok(policy)
            });
            match started {
                Ok(policy) => {
                    all.push(Watcher {
                        name: name.clone(),
                        open: config.on_failure == OnFailure::Open,
                        policy: Some(policy),
                        order: Order::new(input),
                        blocks: Vec::new(),
                        held: Vec::new(),
                        mixed: false,
                    });
                }
                Err(fault) if config.on_failure == OnFailure::Closed => return Err(fault),
                Err(fault) => ports.warn(&Warning::Fault { request_id: id, fault: &fault }),
            }
        }
        Ok(Watchers(all))
    }
}

impl<N> Run<N> {
    /// What the policies let pass of an answer that is there as a whole, in its pieces.
    pub(crate) fn watched_whole<P: Ports>(
        &self,
        flight: &Flight<P>,
        reads: Vec<Vec<Event>>,
    ) -> Result<Vec<Vec<Event>>, Failed> {
        if self.watches.is_empty() {
            return Ok(reads);
        }
        let (ports, id) = (flight.ports.as_ref(), &flight.record.request_id);
        let fault = |fault: Fault| {
            ports.warn(&Warning::Fault { request_id: id, fault: &fault });
            Failed::fault(&fault, None)
        };
        let mut watchers: Watchers<P> =
            self.gateway.watchers(ports, id, &self.watches, &self.request.input).map_err(fault)?;
        let mut order = Order::new(&self.request.input);
        let mut passed = Vec::with_capacity(reads.len());
        for read in reads {
            let events = watchers.feed(ports, id, read).map_err(fault)?;
            for event in &events {
                order.next(event).map_err(|what| fault(Fault { component: "a policy".to_owned(), what }))?;
                if let Event::Failed(error) = event {
                    return Err(Failed::request(error.clone()));
                }
            }
            passed.push(events);
        }
        match order.ended() {
            true => Ok(passed),
            false => Err(fault(Fault {
                component: "a policy".to_owned(),
                what: "kept the end of an answer back".to_owned(),
            })),
        }
    }
}

/// A policy that watches one answer.
struct Watcher<P: Ports> {
    name: String,
    /// Where it fails, what is left passes without it.
    open: bool,
    /// None when it has failed and the rest passes without it.
    policy: Option<P::Policy>,
    /// The order of what it lets pass.
    order: Order,
    /// The blocks that are open in what it is fed. This and what follows only where it is left out when it fails.
    blocks: Vec<u32>,
    /// The last events fed, as far as they may still be held back.
    held: Vec<Event>,
    /// It holds back of several blocks, or of none that is open: nobody can tell how much of each.
    mixed: bool,
}

impl<P: Ports> Watcher<P> {
    fn fault(&self, what: String) -> Fault {
        Fault { component: format!("policy \"{}\"", self.name), what }
    }

    /// What it makes of the next events, checked.
    fn pass(&mut self, policy: &mut P::Policy, events: Vec<Event>) -> Result<Filtered, Fault> {
        let last = events.last().is_some_and(Event::is_last);
        let filtered = policy.feed(events)?;
        if filtered.held > MAX_HELD {
            let what = format!("holds back {} bytes of an answer; at most {MAX_HELD} are allowed", filtered.held);
            return Err(self.fault(what));
        }
        for event in &filtered.events {
            self.order.next(event).map_err(|what| self.fault(what))?;
        }
        match last && !self.order.ended() {
            true => Err(self.fault("kept the end of an answer back".to_owned())),
            false => Ok(filtered),
        }
    }

    /// Copies what it is about to be fed.
    fn copy(&mut self, events: &[Event]) {
        self.held.extend(events.iter().cloned());
        for event in events {
            match event {
                Event::BlockStart(start) => self.blocks.push(start.index),
                Event::BlockStop(index) => self.blocks.retain(|open| open != index),
                _ => {}
            }
        }
    }

    /// Leaves of the copy what it holds back.
    fn trim(&mut self, bytes: usize) {
        trim(&mut self.held, &self.blocks, bytes);
        self.mixed = bytes > 0 && self.blocks.len() != 1;
    }
}

/// The policies that watch one answer, in their order.
pub(crate) struct Watchers<P: Ports>(Vec<Watcher<P>>);

impl<P: Ports> Watchers<P> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they make of the next events.
    pub fn feed(&mut self, ports: &P, id: &str, mut events: Vec<Event>) -> Result<Vec<Event>, Fault> {
        for watcher in &mut self.0 {
            if events.is_empty() {
                break;
            }
            let Some(mut policy) = watcher.policy.take() else { continue };
            if watcher.open {
                watcher.copy(&events);
            }
            events = match watcher.pass(&mut policy, events) {
                Ok(Filtered { events, held }) => {
                    watcher.policy = Some(policy);
                    if watcher.open {
                        watcher.trim(held as usize);
                    }
                    events
                }
                Err(fault) if watcher.open && !watcher.mixed => {
                    ports.warn(&Warning::Fault { request_id: id, fault: &fault });
                    std::mem::take(&mut watcher.held)
                }
                Err(fault) => return Err(fault),
            };
        }
        Ok(events)
    }
}

/// Leaves of each open block the last events that hold `bytes` of text, the first of them cut where that is in its midst.
/// What is no text has gone on already.
fn trim(events: &mut Vec<Event>, open: &[u32], bytes: usize) {
    if bytes == 0 {
        return events.clear();
    }
    let mut left: Vec<(u32, usize)> = open.iter().map(|block| (*block, bytes)).collect();
    let mut kept = Vec::new();
    for mut event in events.drain(..).rev() {
        let (Event::Text(delta) | Event::Reasoning(delta) | Event::Arguments(delta)) = &mut event else { continue };
        let Some((_, left)) = left.iter_mut().find(|(block, left)| *block == delta.index && *left > 0) else {
            continue;
        };
        let mut cut = delta.text.len().saturating_sub(*left);
        *left = left.saturating_sub(delta.text.len());
        while !delta.text.is_char_boundary(cut) {
            cut += 1;
        }
        delta.text.drain(..cut);
        kept.push(event);
    }
    kept.reverse();
    *events = kept;
}
