//! `/llm` of the AWA LLM microservice: one prompt in, one completion out. Errors have the shapes of FastAPI and pydantic,
//! in which the service was written.
//!
//! The defaults of this API (256 tokens, temperature 0.7) are filled in here, because they are the client's dialect's own.

use witgate_model::normaliser::{AnswerStart, Failure, Limits, Parsed, Rendered};
use witgate_model::{Error, ErrorKind, Event, Message, Request, Role};

use crate::openai::json_answer;
use crate::read::{Fault, Kind, Read, Reader};
use crate::text::FirstText;
use crate::write::{self, Members};
use crate::{Dialect, Render};

const NAME: &str = "awa-llm";

/// The most bytes of a backend's error text that a client sees.
const SNIPPET: usize = 2048;

/// The dialect `awa-llm`.
pub(crate) struct AwaLlm;

impl Dialect for AwaLlm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [(&'static str, &'static str)] {
        &[("POST", "/llm")]
    }

    fn parse(&self, _: &str, limits: &Limits, body: &[u8]) -> Result<Parsed, Error> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(unprocessable(vec![Problem::new(&[], "missing", "Field required")]));
        }
        let text = Reader::text(body)
            .map_err(|error| unprocessable(vec![Problem::new(&[Step::Number(0)], "json_invalid", &error.message)]))?;
        let mut reader = Reader::new(text, limits.depth as usize);
        let result = request(&mut reader).and_then(|answer| reader.end().map(|()| answer));
        match result {
            Ok(Ok(request)) => Ok(Parsed { request, render: String::new() }),
            Ok(Err(problems)) => Err(unprocessable(problems)),
            Err(fault) => Err(unprocessable(vec![broken(&fault, text)])),
        }
    }

    fn render_error(&self, failure: &Failure) -> Rendered {
        json_answer(status(failure), error_body(failure))
    }

    fn renderer(&self, _: AnswerStart) -> Box<dyn Render> {
        Box::new(Completion::default())
    }
}

/// A step of a pydantic location.
enum Step<'a> {
    Name(&'a str),
    Number(usize),
}

/// One entry of FastAPI's `detail`.
struct Problem {
    /// The member at fault, where there is one.
    param: Option<String>,
    message: String,
    kind: &'static str,
    /// The location, as JSON.
    location: Vec<u8>,
}

impl Problem {
    /// `location` is what follows `body`.
    fn new(location: &[Step<'_>], kind: &'static str, message: &str) -> Self {
        let mut json = b"[\"body\"".to_vec();
        for step in location {
            json.push(b',');
            match step {
                Step::Name(name) => write::string(&mut json, name),
                Step::Number(number) => write::number(&mut json, *number as u64),
            }
        }
        json.push(b']');
        let param = match location {
            [Step::Name(name), ..] => Some((*name).to_owned()),
            _ => None,
        };
        Problem { param, message: message.to_owned(), kind, location: json }
    }

    fn field(name: &str, kind: &'static str, message: &str) -> Self {
        Self::new(&[Step::Name(name)], kind, message)
    }
}

/// What is wrong with JSON itself: FastAPI gives the offset where a member's name would stand.
fn broken(fault: &Fault, text: &str) -> Problem {
    let (line, column) = fault.place(text);
    let path = fault.path();
    let at = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
    let message = format!("JSON decode error: {at}{} (line {line}, column {column})", fault.message());
    Problem::new(&[Step::Number(fault.position())], "json_invalid", &message)
}

/// The 422 that lists `problems`. Its list travels in `raw`.
fn unprocessable(problems: Vec<Problem>) -> Error {
    let mut detail = Vec::new();
    for (number, problem) in problems.iter().enumerate() {
        detail.push(if number == 0 { b'[' } else { b',' });
        detail.extend_from_slice(b"{\"loc\":");
        detail.extend_from_slice(&problem.location);
        detail.extend_from_slice(b",\"msg\":");
        write::string(&mut detail, &problem.message);
        detail.extend_from_slice(b",\"type\":");
        write::string(&mut detail, problem.kind);
        detail.push(b'}');
    }
    detail.push(b']');
    let first = problems.first();
    let lead = first.and_then(|problem| problem.param.as_deref()).unwrap_or("body");
    let message = first.map(|problem| format!("`{lead}`: {}", problem.message)).unwrap_or_default();
    let mut error = Error::new(ErrorKind::InvalidRequest, message).with_status(422);
    error.param = first.and_then(|problem| problem.param.clone());
    error.code = first.map(|problem| problem.kind.to_owned());
    error.raw = String::from_utf8(detail).ok();
    error
}

/// The request, or all that is wrong with its members.
fn request(reader: &mut Reader<'_>) -> Read<Result<Request, Vec<Problem>>> {
    if reader.kind() != Kind::Object {
        reader.raw()?;
        let message = "Input should be a valid dictionary or object to extract fields from";
        return Ok(Err(vec![Problem::new(&[], "model_attributes_type", message)]));
    }
    let mut problems = Vec::new();
    let mut prompt = None;
    let mut model = String::new();
    let mut max_tokens = 256;
    let mut temperature = 0.7;
    let mut extra = Members::default();
    reader.object(|reader, name| {
        let result = match &*name.text {
            "prompt" => string(reader, "prompt")?.map(|text| prompt = Some(text)),
            "model" if reader.kind() == Kind::Null => {
                reader.raw()?;
                Ok(())
            }
            "model" => string(reader, "model")?.map(|text| model = text),
            "max_tokens" => whole(reader, "max_tokens")?.map(|number| max_tokens = number),
            "temperature" => number(reader, "temperature")?.map(|number| temperature = number),
            _ => {
                extra.push_raw(name.raw, reader.raw()?);
                Ok(())
            }
        };
        if let Err(problem) = result {
            // A prompt of the wrong type is not missing too.
            if name.text == "prompt" {
                prompt = Some(String::new());
            }
            problems.push(problem);
        }
        Ok(())
    })?;
    let Some(prompt) = prompt else {
        problems.insert(0, Problem::field("prompt", "missing", "Field required"));
        return Ok(Err(problems));
    };
    if !problems.is_empty() {
        return Ok(Err(problems));
    }
    let mut request = Request::chat(NAME, model, vec![Message::text(Role::User, prompt)]);
    request.sampling.max_tokens = Some(max_tokens);
    request.sampling.temperature = Some(temperature);
    request.extra = extra.finish();
    Ok(Ok(request))
}

fn string(reader: &mut Reader<'_>, name: &str) -> Read<Result<String, Problem>> {
    if reader.kind() == Kind::String {
        return reader.owned().map(Ok);
    }
    reader.raw()?;
    Ok(Err(Problem::field(name, "string_type", "Input should be a valid string")))
}

/// A whole number from 0; as in pydantic, one in a string and one written as `5.0` count.
fn whole(reader: &mut Reader<'_>, name: &str) -> Read<Result<u64, Problem>> {
    let problem = |kind, message| Ok(Err(Problem::field(name, kind, message)));
    let negative = "Input should be greater than or equal to 0";
    match reader.kind() {
        Kind::String => {
            let text = reader.string()?;
            match text.trim().parse::<i128>() {
                Ok(number) if number < 0 => problem("greater_than_equal", negative),
                Ok(number) if u64::try_from(number).is_ok() => Ok(Ok(number as u64)),
                _ => problem("int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
            }
        }
        Kind::Number => {
            let raw = reader.raw()?;
            if let Ok(number) = raw.parse::<u64>() {
                return Ok(Ok(number));
            }
            match raw.parse::<f64>() {
                Ok(number) if number < 0.0 && number.fract() == 0.0 => problem("greater_than_equal", negative),
                // Up to 2^53 a float holds whole numbers exactly.
                Ok(number) if number.fract() == 0.0 && number <= 9_007_199_254_740_992.0 => Ok(Ok(number as u64)),
                Ok(number) if number.fract() == 0.0 || !number.is_finite() => {
                    problem("int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size")
                }
                _ => problem("int_from_float", "Input should be a valid integer, got a number with a fractional part"),
            }
        }
        _ => {
            reader.raw()?;
            problem("int_type", "Input should be a valid integer")
        }
    }
}

/// A finite number; as in pydantic, one in a string counts.
fn number(reader: &mut Reader<'_>, name: &str) -> Read<Result<f64, Problem>> {
    let problem = |kind, message| Ok(Err(Problem::field(name, kind, message)));
    let kind = reader.kind();
    let parsed = match kind {
        Kind::String => reader.string()?.trim().parse::<f64>(),
        Kind::Number => reader.raw()?.parse::<f64>(),
        _ => {
            reader.raw()?;
            return problem("float_type", "Input should be a valid number");
        }
    };
    match parsed {
        Ok(number) if number.is_finite() => Ok(Ok(number)),
        Ok(_) => problem("finite_number", "Input should be a finite number"),
        Err(_) => problem("float_parsing", "Input should be a valid number, unable to parse string as a number"),
    }
}

/// A provider's failure is 500, as the service's document says; what the gateway itself refuses keeps its status.
fn status(failure: &Failure) -> u16 {
    let error = &failure.error;
    let ours = failure.provider.is_none();
    match error.kind {
        ErrorKind::InvalidRequest if is_parse(failure) => 422,
        ErrorKind::Unsupported => crate::status(error),
        ErrorKind::Timeout | ErrorKind::UpstreamFailure | ErrorKind::MalformedResponse => 500,
        _ if ours => crate::status(error),
        _ => 500,
    }
}

/// Whether this dialect's own parser refused the request. What the gateway refuses (a key, a route) has a code.
fn is_parse(failure: &Failure) -> bool {
    let error = &failure.error;
    let listed = error.raw.as_deref().is_some_and(|raw| raw.starts_with('['));
    failure.provider.is_none() && error.kind == ErrorKind::InvalidRequest && (listed || error.code.is_none())
}

fn error_body(failure: &Failure) -> Vec<u8> {
    let error = &failure.error;
    let mut out = b"{\"detail\":".to_vec();
    let ours = is_parse(failure);
    match error.raw.as_deref().filter(|raw| ours && raw.starts_with('[')) {
        Some(list) => out.extend_from_slice(list.as_bytes()),
        None if ours => {
            out.extend_from_slice(b"[{\"loc\":[\"body\"");
            if let Some(param) = &error.param {
                out.push(b',');
                write::string(&mut out, param);
            }
            out.extend_from_slice(b"],\"msg\":");
            write::string(&mut out, &error.message);
            out.extend_from_slice(b",\"type\":\"value_error\"}]");
        }
        None => write::string(&mut out, &snippet(&error.message)),
    }
    out.push(b'}');
    out
}

/// At most [`SNIPPET`] bytes of `text`, cut between characters, with a mark where something was cut.
fn snippet(text: &str) -> String {
    if text.len() <= SNIPPET {
        return text.to_owned();
    }
    let mut end = SNIPPET;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} [truncated]", &text[..end])
}

/// The renderer: all text of the first choice, at the end.
#[derive(Default)]
struct Completion {
    said: FirstText,
    ended: bool,
}

impl Render for Completion {
    fn head(&self) -> Rendered {
        json_answer(200, Vec::new())
    }

    fn feed(&mut self, events: Vec<Event>) -> Vec<u8> {
        let mut out = Vec::new();
        for event in events {
            if self.ended {
                break;
            }
            self.said.take(&event);
            if event == Event::Done {
                self.ended = true;
                out.extend_from_slice(b"{\"completion\":");
                write::string(&mut out, self.said.text.trim());
                out.push(b'}');
            }
        }
        out
    }

    fn fail(&mut self, failure: &Failure) -> Vec<u8> {
        if std::mem::replace(&mut self.ended, true) { Vec::new() } else { error_body(failure) }
    }

    fn keep_alive(&self) -> Vec<u8> {
        Vec::new()
    }
}
