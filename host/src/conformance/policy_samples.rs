//! The author's samples for a policy: requests, answers, and what should become of them, each in a file of JSON.
//!
//! ```json
//! {
//!   "request": {"messages": [{"role": "user", "content": "Mail ada@example.com"}]},
//!   "answer": ["I mailed ada@exam", "ple.com."],
//!   "expect": {"request": "Mail [EMAIL]", "answer": "I mailed [EMAIL].", "tags": {"redacted.email": "1"}}
//! }
//! ```
//!
//! `request` is the body of a request of the API `dialect`, without it OpenAI's chat completions. `answer` is the text of the
//! answer, as a whole or in pieces; it is watched if the policy wants to. `settings` are the sample's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use witgate_model::policy::Decision;
use witgate_model::watching::said;
use witgate_model::{BlockKind, Input, Part, Request};

use super::encoding::kind;
use super::policy::{PolicyRun, is_configuration};
use super::report::Area;
use super::requests;
use super::samples::{SampleError, files};
use super::watchers::{stopped, text};
use crate::components::NormaliserComponent;

/// A request, and what its answer says.
#[derive(Debug)]
pub(super) struct PolicySample {
    name: String,
    settings: Option<Arc<str>>,
    request: Arc<Request>,
    answer: Vec<String>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    dialect: Option<String>,
    #[serde(default)]
    settings: Option<serde_json::Value>,
    request: serde_json::Value,
    #[serde(default)]
    answer: Option<Pieces>,
    #[serde(default)]
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Pieces {
    Whole(String),
    Several(Vec<String>),
}

/// What should come of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expect {
    /// All text of the request that goes on, joined by line feeds.
    request: Option<String>,
    /// The kind of the refusal, as `content-filtered`.
    refused: Option<String>,
    /// The tags, all of them.
    tags: Option<BTreeMap<String, String>>,
    /// The model that serves instead.
    route: Option<String>,
    /// All text of the answer that goes on.
    answer: Option<String>,
    /// The kind of the failure that stops the answer.
    stopped: Option<String>,
}

/// All samples of a folder, by name.
pub(super) fn read(
    folder: &Path,
    normaliser: &NormaliserComponent,
    model: &str,
) -> Result<Vec<PolicySample>, SampleError> {
    let bad = |what: String| SampleError::new(folder, what);
    let mut samples = Vec::new();
    for (name, bytes) in files(folder, "json", "email.json")? {
        let mut written: Written = serde_json::from_slice(&bytes).map_err(|error| bad(format!("{name}: {error}")))?;
        if let Some(object) = written.request.as_object_mut() {
            object.entry("model").or_insert_with(|| model.into());
        }
        let dialect = written.dialect.as_deref().unwrap_or("openai-chat");
        let request = requests::request(normaliser, dialect, &written.request.to_string())
            .map_err(|why| bad(format!("{name}: request: {why}")))?;
        let answer = match written.answer {
            Some(Pieces::Whole(text)) => vec![text],
            Some(Pieces::Several(pieces)) => pieces,
            None => Vec::new(),
        };
        let settings = written.settings.map(|settings| settings.to_string().into());
        samples.push(PolicySample { name, settings, request: Arc::new(request), answer, expect: written.expect });
    }
    Ok(samples)
}

impl PolicyRun<'_> {
    /// What should become of each sample does.
    pub(super) fn samples(&mut self, samples: &[PolicySample]) {
        for sample in samples {
            self.sample(sample);
        }
        if samples.is_empty() {
            let what = "there are no samples, so what it is for was not checked";
            let right = "`--samples DIR` with requests, answers and what should become of them";
            self.report.note(Area::Samples, "samples", what, right);
            self.report.counts.entry(Area::Samples).or_default();
        }
    }

    fn sample(&mut self, sample: &PolicySample) {
        let PolicySample { name: case, expect, request, .. } = sample;
        let settings = sample.settings.clone().unwrap_or_else(|| Arc::clone(&self.settings));
        let Some(mut session) = self.session(Area::Samples, case) else { return };
        let Some(decided) = self.decide(Area::Samples, case, &mut session, &settings, request) else { return };
        self.decided(case, request, &decided);
        let decision = match decided {
            Ok(decision) => decision,
            Err(error) => {
                let what = format!("it is refused as `{}`: {}", kind(&error.kind), error.message);
                let held = expect.refused.as_deref() == Some(&kind(&error.kind));
                let right = match is_configuration(&error) {
                    true => "settings that the policy can work with",
                    false => RIGHT,
                };
                return self.report.check(Area::Samples, case, held, what, right);
            }
        };
        if let Some(wanted) = &expect.refused {
            return self.report.fail(Area::Samples, case, format!("it passes, and is not refused as {wanted}"), RIGHT);
        }
        let mut same = |what: &str, is: &str, wanted: &Option<String>| {
            if let Some(wanted) = wanted {
                let what = format!("its {what} is {is:?}, not {wanted:?}");
                self.report.check(Area::Samples, case, is == wanted, what, RIGHT);
            }
        };
        let Decision { request: changed, tags, route, watch } = decision;
        same("request", &texts(changed.as_ref().unwrap_or(request)), &expect.request);
        same("route", route.as_deref().unwrap_or_default(), &expect.route);
        if let Some(wanted) = &expect.tags {
            let is: BTreeMap<_, _> = tags.into_iter().map(|tag| (tag.name, tag.value)).collect();
            let what = format!("its tags are {is:?}, not {wanted:?}");
            self.report.check(Area::Samples, case, is == *wanted, what, RIGHT);
        }
        let pieces: Vec<&str> = sample.answer.iter().map(String::as_str).collect();
        let answer = said(BlockKind::Text, &pieces);
        let events = match watch {
            Some(note) => match self.answer(case, &settings, &note, &answer) {
                Some(events) => events,
                None => return,
            },
            None => answer,
        };
        match (stopped(&events), &expect.stopped) {
            (Some(error), wanted) => {
                let is = kind(&error.kind);
                let what = format!("its answer is stopped as `{is}`: {}", error.message);
                self.report.check(Area::Samples, case, wanted.as_ref() == Some(&is), what, RIGHT);
            }
            (None, Some(wanted)) => {
                self.report.fail(Area::Samples, case, format!("its answer is not stopped as {wanted}"), RIGHT);
            }
            (None, None) => {
                if let Some(wanted) = &expect.answer {
                    let is = text(&events);
                    let what = format!("its answer is {is:?}, not {wanted:?}");
                    self.report.check(Area::Samples, case, is == *wanted, what, RIGHT);
                }
            }
        }
    }
}

const RIGHT: &str = "what `expect` of the sample says, or another `expect`";

/// All text parts of a request, joined by line feeds.
fn texts(request: &Request) -> String {
    let texts: Vec<&str> = match &request.input {
        Input::Chat(messages) | Input::CountTokens(messages) => {
            fn of(part: &Part) -> Option<&str> {
                if let Part::Text(text) = part { Some(&text.text) } else { None }
            }
            messages.iter().flat_map(|message| &message.parts).filter_map(of).collect()
        }
        Input::Completion(prompt) => vec![&prompt.text],
        _ => Vec::new(),
    };
    texts.join("\n")
}
