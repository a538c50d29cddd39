//! Responses that are given later: what the gateway knows of one, as a response.
//!
//! Until there is an answer the response is its request's members, with the status. An answer that is whole is the response;
//! of one that was made as events the last event has it. A failure of the request is a response that has failed.

use std::borrow::Cow;

use witgate_model::normaliser::{AnswerStart, Document, Rendered, Reply, Step, Tail};
use witgate_model::{Error, ErrorKind};

use super::answer::Answer;
use super::stored::Kept;
use super::{LATER, at, parse, replay};
use crate::openai;
use crate::read::{Kind, Read, Reader};

/// Nesting allowed in what the gateway writes.
const DEPTH: usize = 256;

/// What the gateway knows of an answer that is given later.
#[derive(Debug, Default)]
struct Later {
    status: String,
    created: u64,
    model: String,
    render: String,
    /// The answer's status and bytes.
    answer: Option<(u16, String)>,
}

impl Later {
    fn read(document: &str) -> Result<Self, Error> {
        let mut later = Later::default();
        let (mut http, mut answer) = (None, None);
        let mut reader = Reader::new(document, DEPTH);
        let result = reader.object(|reader, name| {
            match &*name.text {
                "status" => later.status = reader.owned()?,
                "created" => later.created = reader.u64()?,
                "model" => later.model = reader.owned()?,
                "render" => later.render = reader.owned()?,
                "http" => http = u16::try_from(reader.u64()?).ok(),
                "answer" => answer = Some(reader.owned()?),
                _ => drop(reader.raw()?),
            }
            Ok(())
        });
        if result.and_then(|()| reader.end()).is_err() || later.status.is_empty() {
            return Err(strange());
        }
        later.answer = http.zip(answer);
        Ok(later)
    }

    fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "queued" | "running")
    }

    /// The events of the answer, where it was made as such.
    fn events(&self) -> Option<&str> {
        let (_, answer) = self.answer.as_ref()?;
        answer.starts_with("event: ").then_some(answer)
    }

    /// The response as it is now, and the items in front of it.
    fn kept(&self, key: &str) -> Result<String, Error> {
        let start = AnswerStart {
            render: self.render.clone(),
            id: key.to_owned(),
            created: self.created,
            model: self.model.clone(),
        };
        let mut shell = Answer::new(start);
        let input = shell.input().ok_or_else(strange)?;
        let made = |status: &str, failure: Option<(&str, &str)>| {
            let mut out = Vec::new();
            shell.response(&mut out, status, failure);
            String::from_utf8(out).unwrap_or_default()
        };
        let response = match (self.status.as_str(), &self.answer) {
            ("queued", _) => made("queued", None),
            ("running", _) => made("in_progress", None),
            ("cancelled", _) => made("cancelled", None),
            (_, Some((http, answer))) if *http >= 400 => {
                let (code, message) = failure(*http, answer);
                made("failed", Some((&code, &message)))
            }
            (_, Some((_, answer))) if !answer.starts_with("event: ") => answer.clone(),
            _ => match self.events().and_then(last_response) {
                Some(response) => response.to_owned(),
                None => made("failed", Some(("server_error", "the answer ended before it was complete"))),
            },
        };
        Ok(Kept::write(&response, &input))
    }
}

fn strange() -> Error {
    let message = "an answer that is given later is not what this gateway writes";
    Error::new(ErrorKind::Other("internal".to_owned()), message).with_status(500)
}

/// The document of an answer that is given later as that of a kept response; others as they are.
pub(super) fn as_kept(document: &Document) -> Result<Document, Error> {
    if !matches!(document.at.kind.as_str(), "later" | "cancelled") {
        return Ok(document.clone());
    }
    let key = &document.at.key;
    let content = document.content.as_deref().map(|content| Later::read(content)?.kept(key)).transpose()?;
    let at = witgate_model::normaliser::DocumentRef { kind: super::KIND.to_owned(), key: format!("resp_{LATER}{key}") };
    Ok(Document { at, content })
}

/// A response that is given later, as a stream: its events as they come, or all of them, those up to the number `after` left
/// out. `kept` is what [`as_kept`] made of its document.
pub(super) fn stream(document: &str, key: &str, kept: &Kept<'_>, after: Option<u64>) -> Result<Step, Error> {
    let later = Later::read(document)?;
    let head = openai::stream_answer();
    if !later.has_ended() {
        if !parse::Render::from_text(&later.render).stream {
            let message = "must be false: a response that is not complete can only be streamed where it was created \
                           with `stream` set to true";
            return Err(Error::invalid("stream", message).with_status(400));
        }
        let skip = after.map_or(0, |after| after.saturating_add(1));
        return Ok(Step::Tail(Tail { at: at(format!("resp_{LATER}{key}")), skip, head }));
    }
    let body = match later.events() {
        Some(events) => rest(events, after).into_owned().into_bytes(),
        None => replay::stream(kept, after),
    };
    Ok(Step::Answer(Reply { rendered: Rendered { body, ..head }, forget: Vec::new() }))
}

/// The events behind the number `after`; the last one in any case.
fn rest(events: &str, after: Option<u64>) -> Cow<'_, str> {
    let Some(after) = after else { return Cow::Borrowed(events) };
    let skip = usize::try_from(after).unwrap_or(usize::MAX).saturating_add(1);
    match events.match_indices("\n\n").nth(skip - 1) {
        Some((end, _)) if end + 2 < events.len() => Cow::Borrowed(events.get(end + 2..).unwrap_or_default()),
        _ => Cow::Borrowed(last(events)),
    }
}

/// The last event.
fn last(events: &str) -> &str {
    let body = events.strip_suffix("\n\n").unwrap_or(events);
    let start = body.rfind("\n\n").map_or(0, |end| end + 2);
    events.get(start..).unwrap_or_default()
}

/// The response of the last event, which has it where the answer was complete or failed.
fn last_response(events: &str) -> Option<&str> {
    let (_, data) = last(events).split_once("\ndata: ")?;
    let mut response = None;
    let mut ended = false;
    let read = Reader::new(data.trim_end(), DEPTH).object(|reader, name| {
        match &*name.text {
            "type" => {
                ended = matches!(&*reader.string()?, "response.completed" | "response.incomplete" | "response.failed");
            }
            "response" => response = Some(reader.raw_object()?),
            _ => drop(reader.raw()?),
        }
        Ok(())
    });
    response.filter(|_| read.is_ok() && ended)
}

/// The code and the message of a failure in this dialect's shape.
fn failure(http: u16, body: &str) -> (String, String) {
    let (mut code, mut message) = (None, None);
    // What cannot be read tells nothing more.
    let _: Read<()> = Reader::new(body, DEPTH).object(|reader, name| {
        if name.text != "error" || reader.kind() != Kind::Object {
            return reader.raw().map(drop);
        }
        reader.object(|reader, name| {
            match &*name.text {
                "code" if reader.kind() == Kind::String => code = Some(reader.owned()?),
                "message" if reader.kind() == Kind::String => message = Some(reader.owned()?),
                _ => drop(reader.raw()?),
            }
            Ok(())
        })
    });
    let code = match http {
        429 => "rate_limit_exceeded".to_owned(),
        _ => code.unwrap_or_else(|| "server_error".to_owned()),
    };
    (code, message.unwrap_or_else(|| format!("the request failed with the status {http}")))
}

/// Refuses to cancel what is not given later.
pub(super) fn not_in_background() -> Error {
    let message = "Cannot cancel a synchronous response: only those created with `background` set to true can be \
                   cancelled.";
    Error::invalid("id", message).with_status(400)
}
