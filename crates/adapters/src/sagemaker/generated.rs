//! `generated_text`, whole or token by token, to events.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use witgate_model::{DialectJson, Error, Event, Finish, FinishReason, Scope, Started, Usage};

use super::error::of_piece;
use super::{TGI, Words};
use crate::openai_shape::json::{Loose, Members, complaint, count_of, object_of, text_of};

/// What `details` tells.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Details<'a> {
    #[serde(borrow)]
    finish_reason: Loose<'a>,
    #[serde(borrow)]
    generated_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    input_length: Option<&'a RawValue>,
    /// The tokens of the prompt, where they were asked for.
    prefill: Vec<IgnoredAny>,
}

/// One token of a stream.
#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    text: Loose<'a>,
    #[serde(default)]
    special: bool,
}

/// An answer, or the next piece of one.
pub(super) enum Piece<'a> {
    /// Of this module's shape.
    Generated(Members<'a>),
    /// Of OpenAI's shape.
    Open,
}

/// Reads an answer, or one event of a stream.
pub(super) fn piece(json: &str) -> Result<Piece<'_>, Error> {
    let broken = |error: serde_json::Error| {
        Error::malformed(format!("the container's answer is not the JSON that was expected: {}", complaint(&error)))
    };
    let json = json.trim();
    let json = if json.starts_with('[') {
        let [one] = serde_json::from_str::<[&RawValue; 1]>(json).map_err(|error| {
            let message = "the container's answer is not a list of one object with `generated_text`";
            Error::malformed(format!("{message}: {}", complaint(&error)))
        })?;
        one.get()
    } else {
        json
    };
    let members = Members::parse(Some(json)).map_err(broken)?;
    if members.get("choices").is_some() {
        return Ok(Piece::Open);
    }
    if members.get("error").is_some_and(|error| error != "null") {
        return Err(of_piece(json));
    }
    Ok(Piece::Generated(members))
}

/// The state of one answer.
#[derive(Debug, Default)]
pub(super) struct Generated {
    /// The bound on the answer's length.
    most: Option<u64>,
    stop: Vec<String>,
    started: bool,
    open: bool,
    /// Tokens that have come.
    tokens: u64,
    words: Words,
    /// Text that may be the begin of a stop sequence.
    held: String,
    /// The stop sequence that was met: what follows it is no part of the answer.
    met: Option<String>,
}

impl Generated {
    pub(super) fn new(most: Option<u64>, stop: Vec<String>) -> Self {
        Generated { most, stop, ..Generated::default() }
    }

    /// A whole answer.
    pub(super) fn whole(&mut self, members: &Members<'_>, out: &mut Vec<Event>) -> Result<(), Error> {
        if members.get("generated_text").is_none() {
            return Err(Error::malformed("the container's answer has neither `generated_text` nor `choices`"));
        }
        self.event(members, out).map(drop)
    }

    /// One event of a stream. True where it was the last one.
    pub(super) fn event(&mut self, members: &Members<'_>, out: &mut Vec<Event>) -> Result<bool, Error> {
        if !self.started {
            self.started = true;
            // No id and no time: the gateway makes both.
            out.push(Event::Started(Started::default()));
        }
        let (mut text, mut details, mut last) = (None, None, false);
        let mut others = Vec::new();
        for (name, value) in &members.0 {
            match &**name {
                "token" if value.get() != "null" => {
                    let token: Token<'_> = serde_json::from_str(value.get()).map_err(|error| {
                        let what = complaint(&error);
                        Error::malformed(format!("a token of the container's answer is not what TGI promises: {what}"))
                    })?;
                    self.tokens += 1;
                    if let Some(text) = token.text.filled().filter(|_| !token.special) {
                        self.text(&text, out);
                    }
                }
                "generated_text" if value.get() != "null" => {
                    last = true;
                    text = Some(text_of(value).ok_or_else(|| {
                        Error::malformed("`generated_text` of the container's answer is not a string")
                    })?);
                }
                "details" if value.get() != "null" => details = Some(*value),
                // Its number says nothing, and other tokens were not asked for.
                "index" | "top_tokens" => {}
                _ if value.get() == "null" => {}
                _ => others.push((Cow::Borrowed(&**name), *value)),
            }
        }
        if !others.is_empty() {
            out.push(Event::other(TGI, Scope::Envelope, object_of(&others)));
        }
        if last {
            if let Some(text) = text.filter(|_| self.tokens == 0) {
                self.text(&text, out);
            }
            self.end(details, out);
        }
        Ok(last)
    }

    /// True where the answer has begun.
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// More text. What may be a stop sequence is held back.
    fn text(&mut self, text: &str, out: &mut Vec<Event>) {
        if self.met.is_some() {
            return;
        }
        if self.stop.is_empty() {
            return self.emit(text, out);
        }
        self.held.push_str(text);
        let found = self.stop.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        // Of two at one place, the longer.
        let found = found.min_by_key(|(at, stop)| (*at, std::cmp::Reverse(stop.len())));
        let keep = match found {
            Some((at, stop)) => {
                self.met = Some(stop.clone());
                at
            }
            None => {
                let held = self.held.as_bytes();
                let begun = |stop: &String| {
                    let most = stop.len().saturating_sub(1).min(held.len());
                    (1..=most)
                        .rev()
                        .find(|length| stop.as_bytes().get(..*length).is_some_and(|begin| held.ends_with(begin)))
                };
                held.len() - self.stop.iter().filter_map(begun).max().unwrap_or(0)
            }
        };
        let held = std::mem::take(&mut self.held);
        let (now, later) = held.split_at_checked(keep).unwrap_or((&held, ""));
        self.emit(now, out);
        if self.met.is_none() {
            later.clone_into(&mut self.held);
        }
    }

    fn emit(&mut self, text: &str, out: &mut Vec<Event>) {
        self.open(out);
        if !text.is_empty() {
            self.words.add(text);
            out.push(Event::text(0, text));
        }
    }

    fn open(&mut self, out: &mut Vec<Event>) {
        if !self.open {
            self.open = true;
            out.push(Event::text_start(0, 0));
        }
    }

    /// The end of the answer.
    fn end(&mut self, details: Option<&RawValue>, out: &mut Vec<Event>) {
        let held = std::mem::take(&mut self.held);
        self.emit(&held, out);
        out.push(Event::BlockStop(0));
        let said: Details<'_> =
            details.and_then(|details| serde_json::from_str(details.get()).ok()).unwrap_or_default();
        let prefill = (!said.prefill.is_empty()).then_some(said.prefill.len() as u64);
        let output = said.generated_tokens.and_then(count_of);
        let input = prefill.or_else(|| count_of(said.input_length?));
        if input.is_some() || output.is_some() {
            // Tokens and prompts that `details` may hold are no counts.
            let counts = [("generated_tokens", output), ("input_length", input)];
            let counts = counts.iter().filter_map(|(name, count)| Some(format!("\"{name}\":{}", (*count)?)));
            let raw = format!("{{{}}}", counts.collect::<Vec<_>>().join(","));
            out.push(Event::Usage(Usage {
                input_tokens: input,
                output_tokens: output,
                raw: Some(DialectJson::new(TGI, raw)),
                ..Usage::default()
            }));
        }
        let generated = output.unwrap_or_else(|| self.tokens.max(self.words.count));
        let raw = said.finish_reason.filled().map(Cow::into_owned);
        let reason = match raw.as_deref() {
            _ if self.met.is_some() => FinishReason::Stop,
            Some("length") => FinishReason::Length,
            Some("eos_token" | "stop_sequence" | "stop") => FinishReason::Stop,
            Some(other) => FinishReason::Other(other.to_owned()),
            None if self.most.is_some_and(|most| generated >= most) => FinishReason::Length,
            None => FinishReason::Stop,
        };
        out.push(Event::Finish(Finish { choice: 0, reason, raw, stop_sequence: self.met.take() }));
        out.push(Event::Done);
    }
}
