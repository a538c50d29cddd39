//! What OpenAI's dialects share: members of the request that mean the same in several, and the shape of errors.

use std::borrow::Cow;

use witgate_model::normaliser::{Failure, Parsed, Rendered};
use witgate_model::{Error, ErrorKind, Input, Request, Sampling, ToolChoice};

use crate::read::{Kind, Name, Read, Reader};
use crate::write::{self, Members};

/// The choice among tools. In Chat Completions a named function stands in an object of its own (`nested`), in Responses
/// beside the type. A choice with anything else in it is `other`, whole.
pub(crate) fn tool_choice(reader: &mut Reader<'_>, nested: bool) -> Read<ToolChoice> {
    const NO_NAME: &str = "is missing: the function that must be called";
    let start = reader.position();
    match reader.kind() {
        Kind::String => {
            let word = reader.string()?;
            return Ok(match &*word {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::None,
                "required" => ToolChoice::Required,
                _ => ToolChoice::Other(reader.since(start).to_owned()),
            });
        }
        Kind::Object => {}
        _ => return reader.wrong("\"auto\", \"none\", \"required\" or an object that names a tool"),
    }
    match reader.tag("type")?.as_deref() {
        Some("function") => {}
        Some(_) => return Ok(ToolChoice::Other(reader.raw_object()?.to_owned())),
        None => return reader.fault_in(start, "type", "is missing: a tool choice needs one, as \"function\""),
    }
    let mut named = None;
    let mut foreign = false;
    reader.object(|reader, name| {
        match &*name.text {
            "type" => drop(reader.raw()?),
            "name" if !nested => named = Some(reader.owned()?),
            "function" if nested => {
                let start = reader.position();
                let mut inner = None;
                reader.object(|reader, name| {
                    match &*name.text {
                        "name" => inner = Some(reader.owned()?),
                        _ => {
                            foreign = true;
                            reader.raw()?;
                        }
                    }
                    Ok(())
                })?;
                if inner.is_none() {
                    return reader.fault_in(start, "name", NO_NAME);
                }
                named = inner;
            }
            _ => {
                foreign = true;
                reader.raw()?;
            }
        }
        Ok(())
    })?;
    match named {
        Some(_) if foreign => Ok(ToolChoice::Other(reader.since(start).to_owned())),
        Some(name) => Ok(ToolChoice::Tool(name)),
        None if nested => reader.fault_in(start, "function", "is missing: an object with the function's `name`"),
        None => reader.fault_in(start, "name", NO_NAME),
    }
}

/// Request members that both completion APIs have.
#[derive(Default)]
pub(crate) struct Common {
    pub(crate) model: String,
    pub(crate) sampling: Sampling,
    pub(crate) stream: bool,
    include_usage: bool,
    end_user: Option<String>,
    pub(crate) extra: Members,
}

impl Common {
    /// Reads the value of the member `name`: one that both dialects have, or one that neither knows.
    pub(crate) fn member<'a>(&mut self, reader: &mut Reader<'a>, name: &Name<'a>) -> Read<()> {
        let sampling = &mut self.sampling;
        match &*name.text {
            "model" => self.model = reader.optional(Reader::owned)?.unwrap_or_default(),
            "stream" => self.stream = reader.optional(Reader::bool)?.unwrap_or_default(),
            "stream_options" => {
                let include_usage = &mut self.include_usage;
                let mut rest = Members::default();
                reader.optional(|reader| {
                    reader.object(|reader, name| {
                        match &*name.text {
                            "include_usage" => {
                                *include_usage = reader.optional(Reader::bool)?.unwrap_or_default();
                            }
                            _ => rest.push_raw(name.raw, reader.raw()?),
                        }
                        Ok(())
                    })
                })?;
                self.extra.push_members("stream_options", rest);
            }
            "user" => self.end_user = reader.optional(Reader::owned)?,
            "temperature" => sampling.temperature = reader.optional(Reader::f64)?,
            "top_p" => sampling.top_p = reader.optional(Reader::f64)?,
            "top_k" => sampling.top_k = reader.optional(Reader::i64)?,
            "min_p" => sampling.min_p = reader.optional(Reader::f64)?,
            "frequency_penalty" => sampling.frequency_penalty = reader.optional(Reader::f64)?,
            "presence_penalty" => sampling.presence_penalty = reader.optional(Reader::f64)?,
            "repetition_penalty" => sampling.repetition_penalty = reader.optional(Reader::f64)?,
            "seed" => sampling.seed = reader.optional(Reader::i64)?,
            "n" => sampling.n = reader.optional(Reader::count)?,
            "max_tokens" => sampling.max_tokens = reader.optional(Reader::u64)?,
            "logit_bias" => sampling.logit_bias = reader.optional(Reader::raw_object)?.map(str::to_owned),
            "stop" => sampling.stop = reader.optional(stop)?.unwrap_or_default(),
            _ => self.extra.push_raw(name.raw, reader.raw()?),
        }
        Ok(())
    }

    /// The request around `input`, and what the renderer must know.
    pub(crate) fn finish(self, dialect: &str, input: Input) -> Parsed {
        let render = Flags { stream: self.stream, include_usage: self.include_usage }.to_text();
        let mut request = Request::new(dialect, self.model, input);
        request.sampling = self.sampling;
        request.stream = self.stream;
        request.end_user = self.end_user;
        request.extra = self.extra.finish();
        Parsed { request, render }
    }
}

/// `stop`: one string, or an array of them.
pub(crate) fn stop(reader: &mut Reader<'_>) -> Read<Vec<String>> {
    match reader.kind() {
        Kind::String => Ok(vec![reader.owned()?]),
        Kind::Array => reader.list(Reader::owned),
        _ => reader.wrong("a string or an array of strings"),
    }
}

/// What a renderer must know of the request: the opaque `render` of the parsed request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Flags {
    /// Server-sent events are wanted.
    pub(crate) stream: bool,
    /// A last chunk with the usage is wanted.
    pub(crate) include_usage: bool,
}

impl Flags {
    pub(crate) fn to_text(self) -> String {
        match (self.stream, self.include_usage) {
            (true, true) => "stream,usage".to_owned(),
            (true, false) => "stream".to_owned(),
            (false, _) => String::new(),
        }
    }

    /// Reads what [`Flags::to_text`] wrote.
    pub(crate) fn from_text(text: &str) -> Self {
        let has = |word| text.split(',').any(|part| part == word);
        Flags { stream: has("stream"), include_usage: has("usage") }
    }
}

/// Runs `read` over a whole body, and makes an error of what is wrong with it.
pub(crate) fn read_body<'a, T>(
    body: &'a [u8],
    depth: u32,
    read: impl FnOnce(&mut Reader<'a>) -> Read<T>,
) -> Result<T, Error> {
    if body.iter().all(u8::is_ascii_whitespace) {
        let error = Error::new(ErrorKind::InvalidRequest, "the body is empty: expected a JSON object");
        return Err(error.with_status(400));
    }
    let text = Reader::text(body)?;
    let mut reader = Reader::new(text, depth as usize);
    let result = read(&mut reader).and_then(|value| reader.end().map(|()| value));
    result.map_err(|fault| fault.into_error(text))
}

/// The body of an error: what OpenAI's clients parse, with the provider, the request's id and the tries beside it.
pub(crate) fn error_body(failure: &Failure) -> Vec<u8> {
    let error = &failure.error;
    let mut out = Vec::with_capacity(256 + error.message.len());
    out.extend_from_slice(b"{\"error\":{\"message\":");
    write::string(&mut out, &error.message);
    out.extend_from_slice(b",\"type\":");
    write::string(&mut out, &failure.error_type);
    out.extend_from_slice(b",\"code\":");
    write::string_or_null(&mut out, error.code.as_deref());
    out.extend_from_slice(b",\"param\":");
    write::string_or_null(&mut out, error.param.as_deref());
    out.extend_from_slice(b",\"provider\":");
    write::string_or_null(&mut out, failure.provider.as_deref());
    out.extend_from_slice(b",\"request_id\":");
    write::string(&mut out, &failure.request_id);
    for (at, attempt) in failure.attempts.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b",\"attempts\":[{\"provider\":" } else { b",{\"provider\":" });
        write::string(&mut out, &attempt.provider);
        out.extend_from_slice(b",\"model\":");
        write::string(&mut out, &attempt.model);
        if let Some(status) = attempt.status {
            out.extend_from_slice(b",\"status\":");
            out.extend_from_slice(status.to_string().as_bytes());
        }
        out.extend_from_slice(b",\"code\":");
        write::string(&mut out, &attempt.reason);
        out.push(b'}');
    }
    if !failure.attempts.is_empty() {
        out.push(b']');
    }
    out.extend_from_slice(b"}}");
    out
}

/// An answer that failed before it began.
pub(crate) fn render_error(failure: &Failure) -> Rendered {
    json_answer(crate::status(&failure.error), error_body(failure))
}

/// A JSON answer; one that is 401 says how to authenticate.
pub(crate) fn json_answer(status: u16, body: Vec<u8>) -> Rendered {
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    if status == 401 {
        headers.push(("www-authenticate".to_owned(), "Bearer".to_owned()));
    }
    Rendered { status, headers, body }
}

/// Status and headers of an answer in server-sent events.
pub(crate) fn stream_answer() -> Rendered {
    let headers = [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")];
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Rendered { status: 200, headers, body: Vec::new() }
}

/// Takes the model from `/openai/deployments/{model}` in front of `operation`, where the body names none.
pub(crate) fn model_of_path(request: &mut Request, path: &str, operation: &str) -> Result<(), Error> {
    if !request.model.is_empty() {
        return Ok(());
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let model = path.strip_prefix("/openai/deployments/").and_then(|rest| rest.strip_suffix(operation));
    let Some(model) = model.filter(|model| !model.contains('/')) else { return Ok(()) };
    match decode_segment(model) {
        Some(model) => {
            request.model = model.into_owned();
            Ok(())
        }
        None => {
            let message = format!("the model in the path is not percent-encoded UTF-8: {model}");
            Err(Error::invalid("model", message).with_status(400))
        }
    }
}

/// A path segment with its percent escapes resolved; `None` where they are broken.
fn decode_segment(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let high = tail.first().and_then(|&byte| (byte as char).to_digit(16))?;
        let low = tail.get(1).and_then(|&byte| (byte as char).to_digit(16))?;
        bytes.push((high * 16 + low) as u8);
        rest = tail.get(2..)?;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}
