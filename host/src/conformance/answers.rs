//! What becomes of answers.

use serde::Serialize;
use witgate_framing::{Framer, effective};
use witgate_gateway::{Adapter as _, Fault};
use witgate_model::{BlockKind, ErrorKind, Event, EventMessage, Frame, Framing, Order, ResponseHead, Retry, SseEvent};

use super::Run;
use super::encoding::{Basic, kind};
use super::report::Area;
use super::samples::{Expect, Sample};
use crate::instances::AdapterSession;

/// The most places at which one sample is cut; of more, every so-manieth.
const CUTS: usize = 256;

/// An answer, ready to be decoded.
struct Answer {
    settings: String,
    context: Option<String>,
    head: ResponseHead,
}

/// Decodes an answer that comes in these reads, as the gateway drives a decoder.
fn decode(session: &mut AdapterSession, answer: &Answer, reads: &[&[Frame]]) -> Result<Vec<Event>, Fault> {
    session.start(&answer.settings, answer.context.clone(), answer.head.clone())?;
    let mut events: Vec<Event> = Vec::new();
    let ended = |events: &[Event]| events.last().is_some_and(Event::is_last);
    for read in reads.iter().filter(|read| !read.is_empty()) {
        if !ended(&events) {
            events.append(&mut session.feed(read.to_vec())?);
        }
    }
    if !ended(&events) {
        events.append(&mut session.finish()?);
    }
    Ok(events)
}

/// The frames of a body: those that are complete before it ends, and those that its end completes.
fn frames(framing: &Framing, body: &[u8]) -> Result<(Vec<Frame>, Vec<Frame>), String> {
    let mut framer = Framer::new(framing, witgate_framing::Limits::default()).map_err(|error| error.to_string())?;
    let (mut before, mut last) = (Vec::new(), Vec::new());
    if *framing == Framing::Raw {
        // One frame is one read: cut into pieces here, so that there is something to cut.
        for piece in body.chunks(body.len().div_ceil(CUTS).max(1)) {
            framer.push(piece, &mut before).map_err(|error| error.to_string())?;
        }
    } else {
        framer.push(body, &mut before).map_err(|error| error.to_string())?;
    }
    framer.finish(&mut last).map_err(|error| error.to_string())?;
    Ok((before, last))
}

/// At most `most` of the numbers from `from` up to `to`, evenly.
pub(super) fn spread(from: usize, to: usize, most: usize) -> impl Iterator<Item = usize> {
    (from..to).step_by(to.saturating_sub(from).div_ceil(most).max(1))
}

/// The case's own name, as the contract writes it: `stop`, `tool-calls`.
fn name<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "other".to_owned(),
    }
}

/// An event, short enough for a line.
pub(super) fn short(event: Option<&Event>) -> String {
    let text = event.map_or_else(|| "nothing".to_owned(), |event| format!("{event:?}"));
    if text.chars().count() > 160 { text.chars().take(160).chain("…".chars()).collect() } else { text }
}

/// Where two answers differ.
pub(super) fn difference(whole: &[Event], other: &[Event]) -> String {
    let at = whole.iter().zip(other).position(|(a, b)| a != b).unwrap_or(whole.len().min(other.len()));
    format!("event {at} is {}; uncut it is {}", short(other.get(at)), short(whole.get(at)))
}

fn failure(events: &[Event]) -> Option<&witgate_model::Error> {
    match events.last() {
        Some(Event::Failed(error)) => Some(error),
        _ => None,
    }
}

impl Run<'_> {
    /// Decodes all there is.
    pub(super) fn answers(&mut self, basics: &[Basic], samples: &[Sample]) {
        let basic = |stream: bool| basics.iter().find(|basic| basic.stream == stream).or(basics.first());
        for sample in samples {
            let basic = basic(sample.stream);
            let wanted = basic.map_or(Framing::Whole, |basic| basic.framing.clone());
            let content_type = sample.headers.iter().find(|(name, _)| name == "content-type").map(|(_, v)| v.as_str());
            let head = ResponseHead {
                status: sample.status,
                headers: sample.headers.clone(),
                framing: effective(&wanted, sample.status, content_type),
                stream: sample.stream,
            };
            let settings = sample.settings.clone().unwrap_or_else(|| self.options.settings.clone());
            let context = sample.context.clone().or_else(|| basic.and_then(|basic| basic.context.clone()));
            self.sample(sample, &Answer { settings, context, head });
        }
        if samples.is_empty() {
            let what = "there are no samples, so what a good answer becomes was not checked";
            let right = "`--samples DIR` with answers of the backend: chat.sse, chat.json, busy.429.json";
            self.report.note(Area::Answers, "samples", what, right);
            self.report.counts.entry(Area::Answers).or_default();
        }
        for stream in [false, true] {
            let Some(basic) = basic(stream) else { continue };
            self.errors(basic);
            self.garbage(basic);
        }
    }

    /// Decodes; a fault is reported, and the instance replaced.
    fn decoded(
        &mut self,
        area: Area,
        case: &str,
        session: &mut AdapterSession,
        answer: &Answer,
        reads: &[&[Frame]],
    ) -> Option<Vec<Event>> {
        let events = self.call(area, case, session, |session| decode(session, answer, reads));
        if events.is_none()
            && let Some(fresh) = self.session(area, case)
        {
            *session = fresh;
        }
        events
    }

    fn sample(&mut self, sample: &Sample, answer: &Answer) {
        let case = sample.name.as_str();
        let (before, last) = match frames(&answer.head.framing, &sample.body) {
            Ok(frames) => frames,
            Err(error) => {
                let what = format!("its body is not of the framing `{}`: {error}", name(&answer.head.framing));
                let right = "a sample as the backend sends it, and in `encode` the framing that it has";
                return self.report.fail(Area::Answers, case, what, right);
            }
        };
        let Some(mut session) = self.session(Area::Answers, case) else { return };
        let Some(whole) = self.decoded(Area::Answers, case, &mut session, answer, &[&before, &last]) else { return };
        self.order(Area::Answers, case, &whole);
        self.expected(case, &sample.expect, &whole);

        let right = "events that depend on the frames alone: keep what is not yet whole for the next `feed`";
        let all: Vec<Frame> = before.iter().chain(&last).cloned().collect();
        let mut reads: Vec<(String, Vec<&[Frame]>)> =
            vec![("frame by frame".to_owned(), all.chunks(1).collect()), ("all at once".to_owned(), vec![&all])];
        for at in spread(1, before.len(), CUTS) {
            let (first, second) = before.split_at(at);
            reads.push((format!("cut behind frame {at}"), vec![first, second, &last]));
        }
        for (how, reads) in reads {
            let Some(events) = self.decoded(Area::Splits, case, &mut session, answer, &reads) else { continue };
            let what = format!("{how}, it has other events: {}", difference(&whole, &events));
            self.report.check(Area::Splits, case, events == whole, what, right);
        }
        if let Some(mut fresh) = self.session(Area::Purity, case)
            && let Some(events) = self.decoded(Area::Purity, case, &mut fresh, answer, &[&before, &last])
        {
            let what = format!("a fresh instance gives other events: {}", difference(&whole, &events));
            let right = "nothing kept outside the decoder";
            self.report.check(Area::Purity, case, events == whole, what, right);
        }
        self.cut_off(sample, answer, &whole, &mut session);
    }

    /// The events keep the contract's order.
    fn order(&mut self, area: Area, case: &str, events: &[Event]) {
        match Order::check(events) {
            Ok(()) => self.report.pass(area),
            Err((at, what)) => {
                let what = format!("at event {at}, {}, it {what}", short(events.get(at)));
                let right =
                    "`started`, blocks, `usage` and `other`, a `finish` for each choice, and last `done` or `failed`";
                self.report.fail(area, case, what, right);
            }
        }
    }

    /// What the sample says should come of it.
    fn expected(&mut self, case: &str, expect: &Expect, events: &[Event]) {
        let right = "what `expect` of meta.json says, or another `expect`";
        if let Some(wanted) = &expect.error {
            let kind = failure(events).map_or_else(|| "no failure".to_owned(), |error| kind(&error.kind));
            let what = format!("it becomes {kind}, not {wanted}");
            self.report.check(Area::Answers, case, kind == *wanted, what, right);
        } else if expect.text.is_some() || expect.finish.is_some() || expect.tools.is_some() {
            let told = failure(events).map_or("", |error| error.message.as_str());
            self.report.check(Area::Answers, case, failure(events).is_none(), format!("it fails: {told}"), right);
        }
        if let Some(wanted) = &expect.text {
            let texts = events
                .iter()
                .filter_map(|event| if let Event::Text(delta) = event { Some(&*delta.text) } else { None });
            let text: String = texts.collect();
            self.report.check(
                Area::Answers,
                case,
                text == *wanted,
                format!("its text is {text:?}, not {wanted:?}"),
                right,
            );
        }
        if let Some(wanted) = &expect.finish {
            let finish = events
                .iter()
                .find_map(|event| if let Event::Finish(finish) = event { Some(name(&finish.reason)) } else { None });
            let finish = finish.unwrap_or_else(|| "no finish".to_owned());
            self.report.check(
                Area::Answers,
                case,
                finish == *wanted,
                format!("it ends with {finish}, not {wanted}"),
                right,
            );
        }
        if let Some(wanted) = &expect.tools {
            let mut tools = Vec::new();
            for event in events {
                if let Event::BlockStart(start) = event
                    && let BlockKind::ToolCall(call) = &start.kind
                {
                    tools.push(call.name.clone());
                }
            }
            self.report.check(
                Area::Answers,
                case,
                tools == *wanted,
                format!("it calls {tools:?}, not {wanted:?}"),
                right,
            );
        }
    }

    /// An answer whose end is missing is no success.
    fn cut_off(&mut self, sample: &Sample, answer: &Answer, whole: &[Event], session: &mut AdapterSession) {
        if failure(whole).is_some() || sample.body.is_empty() {
            return;
        }
        let json = serde_json::from_slice::<serde::de::IgnoredAny>(&sample.body).is_ok();
        for length in spread(0, sample.body.len(), 64) {
            let Some(body) = sample.body.get(..length) else { return };
            // What cannot be framed is the gateway's to refuse.
            let Ok((before, last)) = frames(&answer.head.framing, body) else { continue };
            let case = format!("{}, its first {length} bytes", sample.name);
            let Some(events) = self.decoded(Area::CutOff, &case, session, answer, &[&before, &last]) else { continue };
            self.order(Area::CutOff, &case, &events);
            // A value without the blanks behind it is still whole.
            let half = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err();
            if answer.head.framing == Framing::Whole && half && (json || length == 0) {
                let what = "half an answer is taken for a whole one";
                let right = "`failed` with `malformed-response`";
                self.report.check(Area::CutOff, &case, failure(&events).is_some(), what, right);
            }
            if let Some(error) = failure(&events) {
                let what = format!("an answer that ends early fails as `{}`", kind(&error.kind));
                let right = "`malformed-response`: another target may do better";
                self.report.check(Area::CutOff, &case, error.kind == ErrorKind::MalformedResponse, what, right);
            }
        }
    }

    /// Error answers become the kinds on which the gateway acts.
    fn errors(&mut self, basic: &Basic) {
        use ErrorKind::*;
        let json = r#"{"error": {"message": "canary-message", "type": "error", "code": null}}"#;
        let html = "<html><head><title>Error</title></head><body><h1>Error</h1></body></html>";
        let statuses: [(u16, &[ErrorKind]); 12] = [
            (400, &[InvalidRequest]),
            (401, &[Unauthenticated]),
            (403, &[Forbidden, Unauthenticated]),
            (404, &[NotFound]),
            (413, &[TooLarge, ContextLength, InvalidRequest]),
            (422, &[InvalidRequest, Unsupported]),
            (429, &[RateLimited, QuotaExhausted, Overloaded]),
            (500, &[UpstreamFailure]),
            (502, &[UpstreamFailure, Overloaded]),
            (503, &[Overloaded, UpstreamFailure]),
            (504, &[Timeout, UpstreamFailure, Overloaded]),
            (529, &[Overloaded, UpstreamFailure]),
        ];
        let Some(mut session) = self.session(Area::Errors, "a first instance") else { return };
        for (status, expected) in statuses {
            for (what, content_type, body) in
                [("JSON", "application/json", json), ("HTML", "text/html", html), ("nothing", "text/plain", "")]
            {
                let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
                if status == 429 {
                    headers.push(("retry-after".to_owned(), "7".to_owned()));
                }
                let streamed = if basic.stream { ", a stream was asked for" } else { "" };
                let case = format!("status {status} with {what}{streamed}");
                let head = ResponseHead { status, headers, framing: Framing::Whole, stream: basic.stream };
                let (settings, context) = (self.options.settings.clone(), basic.context.clone());
                let answer = Answer { settings, context, head };
                let body = [Frame::Bytes(body.as_bytes().to_vec())];
                let Some(events) = self.decoded(Area::Errors, &case, &mut session, &answer, &[&body]) else { continue };
                let [Event::Failed(error)] = events.as_slice() else {
                    let told = format!("it becomes {} events, the last one {}", events.len(), short(events.last()));
                    self.report.fail(Area::Errors, &case, told, "`failed` alone: a status that is no 2xx is no answer");
                    continue;
                };
                let names: Vec<_> = expected.iter().map(|kind| format!("`{}`", super::encoding::kind(kind))).collect();
                let told = format!("its kind is `{}`", kind(&error.kind));
                self.report.check(Area::Errors, &case, expected.contains(&error.kind), told, &names.join(" or "));
                let right = "a message: the backend's own words where it gives some, else at least the status";
                let said = !error.message.trim().is_empty();
                self.report.check(Area::Errors, &case, said, "its message is empty", right);
                if what == "JSON" && !error.message.contains("canary-message") {
                    let told = "the backend's words (`error.message`) are not in the message";
                    self.report.note(Area::Errors, &case, told, "quote them, if the backend writes its errors so");
                }
                self.retry(&case, status, &error.retry);
            }
        }
        let case = "status 400 with the code context_length_exceeded";
        let body = r#"{"error": {"message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}"#;
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let head = ResponseHead { status: 400, headers, framing: Framing::Whole, stream: basic.stream };
        let answer = Answer { settings: self.options.settings.clone(), context: basic.context.clone(), head };
        let body = [Frame::Bytes(body.as_bytes().to_vec())];
        if let Some(events) = self.decoded(Area::Errors, case, &mut session, &answer, &[&body]) {
            match failure(&events) {
                Some(error) if error.kind == ErrorKind::ContextLength => self.report.pass(Area::Errors),
                Some(error) if !basic.stream => {
                    let what = format!("a prompt that does not fit is told as `{}`", kind(&error.kind));
                    let right = "`context-length`, by the backend's own code or words: a larger model is then asked";
                    self.report.note(Area::Errors, case, what, right);
                }
                _ => {}
            }
        }
    }

    /// The advice about trying again fits the status.
    fn retry(&mut self, case: &str, status: u16, retry: &Retry) {
        let (fits, right) = match (status, retry) {
            (400 | 401 | 403 | 404 | 413 | 422, retry) => {
                (!matches!(retry, Retry::SameTarget(_)), "`never` or `other-target`: it would fail again")
            }
            (429, Retry::SameTarget(wait)) => (
                matches!(wait, None | Some(7000)),
                "a wait of 7000 ms, as `retry-after: 7` says, or none: the gateway sees it too",
            ),
            (_, retry) => (*retry != Retry::Never, "`same-target` or `other-target`: it is not the request's fault"),
        };
        self.report.check(Area::Errors, case, fits, format!("its advice about trying again is {retry:?}"), right);
    }

    /// What is no answer fails, in order, and without a trap.
    fn garbage(&mut self, basic: &Basic) {
        let deep = "[".repeat(20_000);
        let objects = r#"{"a":"#.repeat(10_000);
        let large = "x".repeat(1 << 20);
        let quoted = format!("{{\"text\": \"{large}\"}}");
        let bodies: [(&str, &[u8]); 22] = [
            ("nothing", b""),
            ("a blank", b" "),
            ("an empty object", b"{}"),
            ("an empty list", b"[]"),
            ("null", b"null"),
            ("a number", b"-1e999"),
            ("a text", b"\"text\""),
            ("no JSON", b"Service temporarily unavailable"),
            ("half an object", b"{\"id\": \"c"),
            ("bytes that are no UTF-8", b"\xff\xfe{\"\xc3\x28\"}"),
            ("NULs", b"\0\0\0\0"),
            ("HTML", b"<html><body>Hello</body></html>"),
            ("[DONE]", b"[DONE]"),
            ("lists 20,000 deep", deep.as_bytes()),
            ("objects 10,000 deep", objects.as_bytes()),
            ("a text of 1 MiB", quoted.as_bytes()),
            ("1 MiB that is no JSON", large.as_bytes()),
            (
                "members of other types",
                br#"{"id":1,"model":[],"choices":1,"message":2,"content":3,"usage":[],"error":false,"done":"x"}"#,
            ),
            (
                "lists of other types",
                br#"{"choices":[1,null,"x"],"content":[1,null],"output":[[]],"data":[0],"models":[1]}"#,
            ),
            (
                "choices of other types",
                br#"{"choices":[{"index":-1,"delta":[],"message":7,"text":{},"finish_reason":[]}]}"#,
            ),
            ("counts that are none", br#"{"usage":{"prompt_tokens":-1,"completion_tokens":1e400,"total_tokens":"x"}}"#),
            (
                "an index far out",
                br#"{"choices":[{"index":4294967295,"delta":{"content":"x"},"message":{"content":"x"}}]}"#,
            ),
        ];
        let content_type = match &basic.framing {
            Framing::Sse => "text/event-stream",
            Framing::Ndjson => "application/x-ndjson",
            Framing::AwsEventstream => "application/vnd.amazon.eventstream",
            _ => "application/json",
        };
        let head = ResponseHead {
            status: 200,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            framing: basic.framing.clone(),
            stream: basic.stream,
        };
        let answer = Answer { settings: self.options.settings.clone(), context: basic.context.clone(), head };
        let Some(mut session) = self.session(Area::Garbage, "a first instance") else { return };
        let frame = |body: &[u8]| {
            let text = || String::from_utf8_lossy(body).into_owned();
            match &basic.framing {
                Framing::Sse => Frame::Sse(SseEvent { event: None, data: text(), id: None }),
                Framing::Ndjson => Frame::Line(text()),
                Framing::AwsEventstream => {
                    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
                    let headers = vec![header(":message-type", "event"), header(":event-type", "chunk")];
                    Frame::Message(EventMessage { headers, payload: body.to_vec() })
                }
                _ => Frame::Bytes(body.to_vec()),
            }
        };
        for (what, body) in bodies {
            let area = if body.len() >= 1 << 20 { Area::Limits } else { Area::Garbage };
            let case = format!("{what}, {}", if basic.stream { "in a stream" } else { "as the whole answer" });
            let frames = [frame(body)];
            // A stream without a byte has no frame.
            let reads: &[&[Frame]] = if basic.framing != Framing::Whole && body.is_empty() { &[] } else { &[&frames] };
            let Some(events) = self.decoded(area, &case, &mut session, &answer, reads) else { continue };
            self.order(area, &case, &events);
            if body.is_empty() {
                let empty = failure(&events).is_some_and(|error| error.kind == ErrorKind::MalformedResponse);
                let told = format!("an empty answer ends with {}", short(events.last()));
                self.report.check(area, &case, empty, told, "`failed` with `malformed-response`");
            } else if failure(&events).is_none() {
                let told = "it is taken for an answer";
                self.report.note(area, &case, told, "`failed` with `malformed-response`, unless any text is an answer");
            }
        }
        if basic.framing != Framing::Whole {
            let case = "2,000 pieces in one read";
            let many: Vec<Frame> = (0..2_000).map(|_| frame(b"{}")).collect();
            if let Some(events) = self.decoded(Area::Limits, case, &mut session, &answer, &[&many]) {
                self.order(Area::Limits, case, &events);
            }
        }
    }
}
