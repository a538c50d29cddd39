//! What becomes of requests that a policy looks at.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use witgate_config::{ComponentConfig, ComponentSource, Config, OnFailure, PolicyConfig, PolicySource};
use witgate_gateway::{Policy as _, check_decision};
use witgate_model::policy::{Context, Decision};
use witgate_model::{Error, ErrorKind, Input, Message, Request, Role};

use super::policy_samples::PolicySample;
use super::report::{Area, Report};
use super::requests::Canonical;
use super::{Options, encoding, median};
use crate::components::PolicyComponent;
use crate::instances::PolicySession;

/// A text of its own, which is found again where it must not be.
const CANARY: &str = "canary-4f1b";

/// One run over a policy.
pub(super) struct PolicyRun<'a> {
    pub component: PolicyComponent,
    pub options: &'a Options,
    pub settings: Arc<str>,
    pub report: Report,
}

/// What a policy made of a request: a decision, or a refusal.
pub(super) type Decided = Result<Decision, Error>;

/// An answer that a policy wants to watch: what it is an answer to, and the note.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Watched {
    pub note: String,
    /// The answer is said, not vectors or models.
    pub generation: bool,
}

fn context(request: &Request) -> Context {
    Context { dialect: request.dialect.clone(), model: request.model.clone(), tenant: None, tags: Vec::new() }
}

impl PolicyRun<'_> {
    pub(super) fn all(&mut self, settings: Value, canonical: &[Canonical], samples: &[PolicySample]) {
        if !self.checked_settings(settings) {
            return;
        }
        self.describe();
        let watched = self.requests(canonical);
        self.answers(&watched);
        self.samples(samples);
        self.large();
        self.measure(canonical);
    }

    /// A fresh instance.
    pub(super) fn session(&mut self, area: Area, case: &str) -> Option<PolicySession> {
        let session = self.component.session();
        self.report.held(area, case, session)
    }

    /// What the policy makes of a request.
    pub(super) fn decide(
        &mut self,
        area: Area,
        case: &str,
        session: &mut PolicySession,
        settings: &Arc<str>,
        request: &Arc<Request>,
    ) -> Option<Decided> {
        let context = context(request);
        self.report.call(area, case, session, |session| session.on_request(settings, &context, request))
    }

    fn checked_settings(&mut self, settings: Value) -> bool {
        let mut config = Config::builtin();
        let policy = PolicyConfig {
            source: PolicySource::Component(ComponentConfig::new(ComponentSource::Path(self.report.file.clone()))),
            settings,
            settings_text: Arc::clone(&self.settings),
            on_failure: OnFailure::Closed,
            trusted: false,
            max_memory_bytes: self.options.bounds.memory_bytes,
            max_table_elements: self.options.bounds.table_elements,
            call_timeout: self.options.bounds.call_time,
        };
        config.policies.insert("conformance".to_owned(), policy);
        let problems = config.check_policy_settings("conformance", &self.component.description().settings_schema);
        self.report.settings(&problems, ("policies.conformance", "policies.conformance"))
    }

    fn describe(&mut self) {
        let known = self.component.description().clone();
        if let Some(mut session) = self.session(Area::Describe, "again") {
            for case in ["in another instance", "twice in one instance"] {
                let Some(again) = self.report.call(Area::Describe, case, &mut session, |s| s.describe()) else {
                    return;
                };
                let right = "the same description whenever it is asked";
                self.report.check(Area::Describe, case, again == known, "the description differs", right);
            }
        }
        self.report.identity(&known.version, &known.summary);
    }

    /// Has the policy look at all canonical requests. Gives the answers that it wants to watch.
    fn requests(&mut self, canonical: &[Canonical]) -> Vec<Watched> {
        let mut watched = Vec::new();
        let mut refused: Option<(usize, Error)> = None;
        let settings = Arc::clone(&self.settings);
        let Some(mut used) = self.session(Area::Requests, "a first instance") else { return watched };
        for canonical in canonical {
            let case = canonical.name.as_str();
            let request = &canonical.request;
            let Some(first) = self.decide(Area::Requests, case, &mut used, &settings, request) else {
                // The instance is spoilt: go on with another one.
                match self.session(Area::Requests, case) {
                    Some(session) => used = session,
                    None => return watched,
                }
                continue;
            };
            if let Some(again) = self.decide(Area::Purity, case, &mut used, &settings, request) {
                let what = "asked twice, it decides otherwise";
                let right =
                    "the same decision for the same request: nothing may be kept, and no order of a map may show";
                self.report.check(Area::Purity, case, again == first, what, right);
            }
            if let Some(mut fresh) = self.session(Area::Purity, case)
                && let Some(again) = self.decide(Area::Purity, case, &mut fresh, &settings, request)
            {
                let what = "an instance that has served others decides otherwise than a fresh one";
                let right = "nothing kept between requests";
                self.report.check(Area::Purity, case, again == first, what, right);
            }
            self.decided(case, request, &first);
            match first {
                Ok(Decision { watch: Some(note), .. }) => {
                    let wants = Watched { note, generation: request.input.is_generation() };
                    if !watched.contains(&wants) {
                        watched.push(wants);
                    }
                }
                Ok(_) => {}
                Err(error) => refused = Some((refused.map_or(1, |(count, _)| count + 1), error)),
            }
        }
        if let Some((count, error)) = refused
            && count == canonical.len()
        {
            let what = format!("it refuses every request with these settings: {}", error.message);
            let right = "`--settings` with which something passes, else its watcher is not checked";
            self.report.note(Area::Requests, "all of them", what, right);
        }
        self.secrecy();
        watched
    }

    /// A decision, or a refusal, as such.
    pub(super) fn decided(&mut self, case: &str, request: &Request, decided: &Decided) {
        let decision = match decided {
            Ok(decision) => decision,
            Err(error) => {
                let right = "a message for the client: what is wrong, where, and what would be right";
                let told = !error.message.trim().is_empty();
                return self.report.check(Area::Requests, case, told, "it refuses without a message", right);
            }
        };
        let legal = check_decision("conformance", decision);
        let what = legal.as_ref().err().map_or_else(String::new, |fault| format!("it {}", fault.what));
        let right = "a decision that keeps the rules of `decision` and `tag` in docs/policy-contract.md";
        self.report.check(Area::Requests, case, legal.is_ok(), what, right);
        let Some(changed) = &decision.request else { return };
        let problems = request_problems(request, changed);
        for (what, right) in &problems {
            self.report.fail(Area::Requests, case, what.clone(), right);
        }
        if problems.is_empty() {
            self.report.pass(Area::Requests);
        }
        if changed == request {
            let what = "it returns the request as it got it, which copies it twice";
            self.report.note(Area::Requests, case, what, "`none` where nothing is changed: it costs nothing");
        }
        if changed.stream != request.stream || changed.dialect != request.dialect {
            let what = "it changes `stream` or `dialect`, which the gateway puts back";
            self.report.note(Area::Requests, case, what, "leave them as they are");
        }
    }

    /// What a request says stands in no tag.
    fn secrecy(&mut self) {
        let case = "a text that is found again";
        let text = format!("Remember {CANARY} for me.");
        let messages = vec![Message::text(Role::User, text)];
        let request = Arc::new(Request::chat("openai-chat", self.options.model.as_str(), messages));
        let settings = Arc::clone(&self.settings);
        let Some(mut session) = self.session(Area::Requests, case) else { return };
        if let Some(Ok(decision)) = self.decide(Area::Requests, case, &mut session, &settings, &request) {
            let told = decision.tags.iter().find(|tag| tag.name.contains(CANARY) || tag.value.contains(CANARY));
            let name = told.map(|tag| tag.name.as_str()).unwrap_or_default();
            let what = format!("the tag {name:?} holds what the request says");
            let right = "names and counts: tags stand in logs and in a header of the answer";
            self.report.check(Area::Requests, case, told.is_none(), what, right);
        }
    }

    /// Large requests, within the limits.
    fn large(&mut self) {
        let settings = Arc::clone(&self.settings);
        for (case, request) in encoding::large_requests(&self.options.model) {
            let Some(mut session) = self.session(Area::Limits, case) else { return };
            if self.decide(Area::Limits, case, &mut session, &settings, &Arc::new(request)).is_some() {
                self.report.pass(Area::Limits);
            }
        }
    }

    /// What an instance and a call cost.
    fn measure(&mut self, canonical: &[Canonical]) {
        let (mut instances, mut calls): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
        let Some(text) = canonical.iter().find(|request| request.name == "text") else { return };
        let context = context(&text.request);
        for _ in 0..9 {
            let begun = Instant::now();
            let Ok(mut session) = self.component.session() else { return };
            instances.push(begun.elapsed());
            if session.on_request(&self.settings, &context, &text.request).is_ok() {
                // The first call of an instance is another thing: it touches its memory.
                let begun = Instant::now();
                if session.on_request(&self.settings, &context, &text.request).is_ok() {
                    calls.push(begun.elapsed());
                }
            }
        }
        self.report.instance = median(&mut instances);
        self.report.call = median(&mut calls);
    }
}

/// What is wrong with the request that a policy made of another one, and what would be right.
fn request_problems(was: &Request, is: &Request) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let (before, after) = (was.input.operation(), is.input.operation());
    if std::mem::discriminant(&was.input) != std::mem::discriminant(&is.input) || before != after {
        let right = "the same operation: the client's API decides what it answers";
        found.push((format!("it makes the operation `{after}` of `{before}`"), right));
    }
    if is.model.is_empty() && !was.model.is_empty() {
        found.push(("it takes the model's name out".to_owned(), "the same model; another one is named by `route`"));
    } else if is.model != was.model {
        let right = "`route` with that name: the request is routed by it, not by `request.model`";
        found.push((format!("it changes the model to {:?}", is.model), right));
    }
    if matches!(&is.input, Input::Embedding(input) if input.texts.is_empty()) {
        found.push(("it leaves no text to embed".to_owned(), "at least one text, or an error"));
    }
    let numbers = &is.sampling;
    let numbers = [
        numbers.temperature,
        numbers.top_p,
        numbers.min_p,
        numbers.frequency_penalty,
        numbers.presence_penalty,
        numbers.repetition_penalty,
    ];
    if numbers.into_iter().flatten().any(|number| !number.is_finite()) {
        found.push(("a number of `sampling` is none".to_owned(), "a finite number, or `none`"));
    }
    let of = |request: &Request| {
        let mut bad = BTreeSet::new();
        match serde_json::to_value(request) {
            Ok(value) => bad_json(&value, "", "request", &mut bad),
            Err(error) => drop(bad.insert(error.to_string())),
        }
        bad
    };
    // What the client wrote wrongly is not the policy's doing.
    found.extend(
        of(is).difference(&of(was)).map(|what| {
            (what.clone(), "JSON, as the contract's type `json` says; in `extra` and in arguments an object")
        }),
    );
    found
}

/// Finds texts that are to be JSON and are none. `name`: the member that `value` is.
fn bad_json(value: &Value, name: &str, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let json = match name {
                "extra" | "arguments" | "logit_bias" => {
                    serde_json::from_str::<serde_json::Map<String, Value>>(text).is_ok()
                }
                "parameters" | "schema" | "json" => serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(),
                _ => true,
            };
            if !json {
                found.insert(format!("`{path}` is to be JSON, and is none"));
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                bad_json(item, "", &format!("{path}[{at}]"), found);
            }
        }
        Value::Object(members) => {
            for (member, value) in members {
                // Roles and kinds of media are names.
                let meant = match (name, member.as_str()) {
                    ("role" | "kind", "other") => "",
                    (_, "other") => "json",
                    ("json", "value") => "json",
                    (_, member) => member,
                };
                bad_json(value, meant, &format!("{path}.{member}"), found);
            }
        }
        _ => {}
    }
}

/// Whether a refusal is the settings' fault.
pub(super) fn is_configuration(error: &Error) -> bool {
    matches!(&error.kind, ErrorKind::Other(kind) if kind == "configuration")
}
