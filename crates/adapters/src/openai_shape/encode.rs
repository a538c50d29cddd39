//! A normalised request to the JSON of the OpenAI shape.

use serde::Deserialize;
use witgate_model::{
    Auth, CacheMark, CompletionPrompt, Error, Field, Framing, FunctionTool, HeaderAuth, HttpRequest, Input, MediaKind,
    MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart, Request, ResponseFormat, ResultContent, Role,
    TextPart, Tool, ToolCall, ToolChoice, ToolResult,
};

use super::json::{self, Members, Name, Object, Text};
use super::policy::Policy;
use super::settings::{Api, KeyHeader, MaxTokensField, PathKind};
use super::{CHAT, COMPLETIONS, Flavour, RESPONSES, Settings, embeddings, llm, models, names, responses};
use crate::image;
use crate::names::Mapping;

/// The HTTP request for `request`.
pub(crate) fn encode(flavour: Flavour, settings: &str, request: &Request) -> Result<HttpRequest, Error> {
    let settings = Settings::parse(settings)?;
    if settings.api == Api::Llm && flavour == Flavour::LlamaCpp {
        return llm::encode(&settings, request);
    }
    if settings.is_one_url() && !matches!(request.input, Input::Chat(_)) {
        return Err(Error::no_operation("this endpoint, which is one URL for conversations,", &request.input));
    }
    let dialect = match &request.input {
        Input::Chat(_) if settings.api == Api::Responses && flavour == Flavour::OpenAi => {
            return responses::encode(&settings, request);
        }
        Input::Chat(_) => CHAT,
        Input::Completion(_) => COMPLETIONS,
        Input::Embedding(input) => return embeddings::encode(flavour, &settings, request, input),
        Input::Models => return Ok(models::encode(flavour, &settings)),
        other => return Err(Error::no_operation(flavour.backend(), other)),
    };
    let native = request.dialect == dialect;
    let policy = Policy::new(flavour.backend(), native, settings.drop_unsupported);
    let bounded = flavour.is_bounded() && (!native || settings.strict);
    let messages = if let Input::Chat(messages) = &request.input { messages.as_slice() } else { &[] };
    let names = names::mapping(bounded, names::CHAT_ID, request, messages);
    let out = Vec::with_capacity(size_hint(request));
    let mut encoder = Encoder { out, policy, flavour, settings: &settings, bounded, names };
    encoder.request(request)?;
    let Encoder { out, policy, names, .. } = encoder;
    let path: &[&str] =
        if matches!(request.input, Input::Chat(_)) { &["chat", "completions"] } else { &["completions"] };
    Ok(HttpRequest {
        context: names::with_names(context(request), "chat 1", &names)?,
        dropped: policy.dropped,
        ..post(flavour, &settings, path, request.stream, out)
    })
}

/// A request with a JSON body to the path behind the API's root.
pub(super) fn post(flavour: Flavour, settings: &Settings, path: &[&str], stream: bool, body: Vec<u8>) -> HttpRequest {
    let accept = if stream { "text/event-stream" } else { "application/json" };
    let mut headers = vec![header("content-type", "application/json"), header("accept", accept)];
    settings_headers(settings, &mut headers);
    HttpRequest {
        method: "POST".into(),
        path: match settings.path {
            PathKind::Api => flavour.root().iter().chain(path).map(|segment| (*segment).to_owned()).collect(),
            PathKind::Exact => Vec::new(),
        },
        query: query(settings),
        headers,
        body,
        auth: auth(settings),
        framing: if stream { Framing::Sse } else { Framing::Whole },
        context: None,
        dropped: Vec::new(),
    }
}

/// A request without a body.
pub(crate) fn get(settings: &Settings, path: &[&str], query: &[(&str, &str)]) -> HttpRequest {
    let mut headers = vec![header("accept", "application/json")];
    settings_headers(settings, &mut headers);
    let mut fields = self::query(settings);
    fields.extend(query.iter().map(|(name, value)| header(name, value)));
    HttpRequest {
        method: "GET".into(),
        path: path.iter().map(|segment| (*segment).to_owned()).collect(),
        query: fields,
        headers,
        body: Vec::new(),
        auth: auth(settings),
        framing: Framing::Whole,
        context: None,
        dropped: Vec::new(),
    }
}

/// What the decoder needs to know: the operation and how many choices were asked for; `None` for one of a chat.
pub(crate) fn context(request: &Request) -> Option<String> {
    let operation = request.input.operation();
    let n = request.sampling.n.unwrap_or(1);
    (operation != "chat" || n > 1).then(|| format!("{operation} {n}"))
}

fn header(name: &str, value: &str) -> Field {
    (name.into(), value.into())
}

fn settings_headers(settings: &Settings, headers: &mut Vec<Field>) {
    for (name, value) in [("openai-organization", &settings.organization), ("openai-project", &settings.project)] {
        if let Some(value) = value.as_deref().filter(|_| !settings.headers.contains_key(name)) {
            headers.push(header(name, value));
        }
    }
    headers.extend(settings.headers.iter().map(|(name, value)| header(name, value)));
}

fn query(settings: &Settings) -> Vec<Field> {
    settings.query.iter().map(|(name, value)| header(name, value)).collect()
}

fn auth(settings: &Settings) -> Auth {
    let (name, prefix) = match settings.key_header {
        KeyHeader::Authorization => ("authorization", "Bearer "),
        KeyHeader::ApiKey => ("api-key", ""),
    };
    Auth::Header(HeaderAuth { name: name.into(), prefix: prefix.into(), slot: "api_key".into() })
}

/// About how many bytes the body will have: only long texts count.
pub(crate) fn size_hint(request: &Request) -> usize {
    let media = |media: &MediaPart| match &media.source {
        MediaSource::Base64(text)
        | MediaSource::Text(text)
        | MediaSource::Url(text)
        | MediaSource::FileId(text)
        | MediaSource::Other(text) => text.len(),
    };
    let text = |text: &str| text.len() + text.len() / 16;
    let part = |part: &Part| match part {
        Part::Text(part) | Part::Refusal(part) => text(&part.text),
        Part::Media(part) => media(part),
        Part::Reasoning(part) => text(&part.text),
        Part::ToolCall(call) => text(&call.arguments) + 64,
        Part::ToolResult(result) => {
            let pieces = result.content.iter().map(|piece| match piece {
                ResultContent::Text(part) => text(&part.text),
                ResultContent::Media(part) => media(part),
                ResultContent::Other(json) => json.len(),
            });
            pieces.sum()
        }
        Part::Other(json) => json.len(),
    };
    let input: usize = match &request.input {
        Input::Chat(messages) | Input::CountTokens(messages) => {
            messages.iter().map(|message| 64 + message.parts.iter().map(|p| 48 + part(p)).sum::<usize>()).sum()
        }
        Input::Completion(prompt) => text(&prompt.text) + prompt.suffix.as_deref().map_or(0, text),
        _ => 0,
    };
    let tools = request.tools.iter().map(|tool| match tool {
        Tool::Function(function) => {
            128 + function.parameters.as_ref().map_or(0, String::len)
                + function.description.as_ref().map_or(0, String::len)
        }
        Tool::Other(json) => json.len(),
    });
    512 + input + tools.sum::<usize>() + request.extra.as_ref().map_or(0, String::len)
}

/// Top-level members that mean the same in Chat Completions and in Responses.
pub(super) const SHARED: [&str; 5] =
    ["metadata", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"];

/// The member of an unknown object that makes it a tool call.
#[derive(Deserialize)]
struct Identified<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

/// True for the object of a tool call, which stands under `tool_calls`: in a message of the assistant, one with an `id`.
fn is_tool_call(role: &Role, json: &str) -> bool {
    *role == Role::Assistant && serde_json::from_str::<Identified<'_>>(json).is_ok_and(|object| object.id.is_some())
}

/// True for OpenAI's o1, o3, o4 and gpt-5, with or without a vendor in front: they refuse `max_tokens`.
pub(super) fn is_reasoning_model(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    ["o1", "o3", "o4", "gpt-5"].iter().any(|prefix| name.starts_with(prefix))
}

/// OpenAI's word for the format of a sound. In the same dialect the media type was made of it.
fn audio_format(mime: &str, native: bool) -> &str {
    if native {
        return mime.strip_prefix("audio/").unwrap_or(mime);
    }
    match mime.split(';').next().unwrap_or(mime).trim() {
        "audio/mpeg" | "audio/mp3" => "mp3",
        "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => "wav",
        other => other.strip_prefix("audio/").unwrap_or(other),
    }
}

/// Where a part stands, in the client's terms.
#[derive(Clone, Copy)]
struct Path {
    message: usize,
    part: usize,
}

impl Path {
    fn text(self) -> String {
        format!("messages[{}].content[{}]", self.message, self.part)
    }
}

/// The signatures of all reasoning, and what of it is encrypted, as the client's dialect writes them: where a further piece
/// begins in the text of all stands in front of its signature, and behind what is encrypted where more follows.
fn proofs(parts: &[Part]) -> (Option<String>, Option<String>) {
    let (mut signatures, mut encrypted) = (None::<String>, None::<String>);
    let (mut length, mut signed, mut place) = (0, false, None);
    for part in parts {
        let Part::Reasoning(ReasoningPart { text, signature, redacted, .. }) = part else { continue };
        if let Some(redacted) = redacted {
            match &mut encrypted {
                None => encrypted = Some(redacted.clone()),
                Some(told) => {
                    told.extend(place.map(|place| format!(" {place}")));
                    told.push(' ');
                    told.push_str(redacted);
                }
            }
            place = Some(length);
            if text.is_empty() && signature.is_none() {
                continue;
            }
        }
        if let (Some(told), Some(place)) = (&mut encrypted, place.take()) {
            told.push_str(&format!(" {place}"));
        }
        let signature = signature.as_deref();
        signed |= signature.is_some();
        match &mut signatures {
            None => signatures = Some(signature.unwrap_or_default().to_owned()),
            Some(told) => told.push_str(&format!(" {length} {}", signature.unwrap_or_default())),
        }
        length += text.len();
    }
    (signatures.filter(|_| signed), encrypted)
}

/// A picture, a sound or a document of a tool's result that goes in a message of the user.
struct Aside<'m> {
    /// Of the result.
    path: Path,
    call: &'m str,
    media: &'m MediaPart,
}

struct Encoder<'s> {
    out: Vec<u8>,
    policy: Policy,
    flavour: Flavour,
    settings: &'s Settings,
    /// The backend has OpenAI's rules, and nobody but us to keep them.
    bounded: bool,
    names: Mapping,
}

impl Encoder<'_> {
    /// Refuses `param`, unless the settings allow it to be left out.
    fn refuse(&mut self, param: impl Into<String>, message: impl Into<String>) -> Result<(), Error> {
        self.policy.refuse(param, message)
    }

    /// The unknown members of the record at `path`.
    fn extra<'a>(&mut self, json: Option<&'a str>, path: &dyn Fn() -> String) -> Result<Members<'a>, Error> {
        self.policy.extra(json, path, &[])
    }

    /// True where JSON that only the client's dialect understands can be passed on.
    fn passes(&mut self, param: &dyn Fn() -> String) -> Result<bool, Error> {
        self.policy.passes(param)
    }

    /// True where the server takes no more than OpenAI's own API has.
    fn is_strict(&self) -> bool {
        self.settings.strict && self.flavour == Flavour::OpenAi
    }

    /// A comma between the elements of the list that began at `start`.
    fn separate(&mut self, start: usize) {
        if self.out.len() > start {
            self.out.push(b',');
        }
    }

    fn request(&mut self, request: &Request) -> Result<(), Error> {
        let shared: &[&str] = if request.dialect == RESPONSES { &SHARED } else { &[] };
        let extra = self.policy.extra(request.extra.as_deref(), &String::new, shared)?;
        let mut top = Object::open(&mut self.out);
        // None is named where the endpoint has but one.
        if !request.model.is_empty() {
            top.string(&mut self.out, Name::Model, &request.model);
        }
        match &request.input {
            Input::Chat(messages) => {
                top.name(&mut self.out, Name::Messages);
                self.messages(messages)?;
                self.tools(&mut top, request)?;
                if let Some(format) = &request.response_format {
                    self.response_format(&mut top, format)?;
                }
                if let Some(logprobs) = request.sampling.logprobs {
                    top.bool(&mut self.out, Name::Logprobs, logprobs);
                }
                if let Some(count) = request.sampling.top_logprobs {
                    top.integer(&mut self.out, Name::TopLogprobs, count);
                }
                if let Some(reasoning) = &request.reasoning {
                    self.reasoning(&mut top, reasoning, &extra)?;
                }
            }
            Input::Completion(prompt) => {
                top.string(&mut self.out, Name::Prompt, &prompt.text);
                self.completion(&mut top, request, prompt)?;
            }
            _ => {}
        }
        self.sampling(&mut top, request)?;
        if let Some(user) = &request.end_user {
            top.string(&mut self.out, Name::User, user);
        }
        if request.stream {
            top.bool(&mut self.out, Name::Stream, true);
            if self.settings.stream_usage {
                top.name(&mut self.out, Name::StreamOptions);
                let mut options = Object::open(&mut self.out);
                options.bool(&mut self.out, Name::IncludeUsage, true);
                options.splice(&mut self.out, &extra.nested("stream_options"));
                options.close(&mut self.out);
            }
        }
        top.splice(&mut self.out, &extra);
        top.close(&mut self.out);
        Ok(())
    }

    fn completion(&mut self, top: &mut Object, request: &Request, prompt: &CompletionPrompt) -> Result<(), Error> {
        let llama = self.flavour == Flavour::LlamaCpp;
        if let Some(suffix) = &prompt.suffix {
            if llama {
                self.refuse("suffix", "llama.cpp's text completion has no `suffix`")?;
            } else {
                top.string(&mut self.out, Name::Suffix, suffix);
            }
        }
        if let Some(echo) = prompt.echo {
            if llama && echo {
                self.refuse("echo", "llama.cpp cannot repeat the prompt in front of the answer")?;
            } else {
                top.bool(&mut self.out, Name::Echo, echo);
            }
        }
        if let Some(best_of) = prompt.best_of {
            if llama {
                self.refuse("best_of", "llama.cpp's text completion has no `best_of`")?;
            } else {
                top.integer(&mut self.out, Name::BestOf, best_of);
            }
        }
        if request.sampling.logprobs == Some(true) {
            top.integer(&mut self.out, Name::Logprobs, request.sampling.top_logprobs.unwrap_or(0));
        }
        for (present, param) in [
            (!request.tools.is_empty(), "tools"),
            (request.tool_choice.is_some(), "tool_choice"),
            (request.parallel_tool_calls.is_some(), "parallel_tool_calls"),
            (request.response_format.is_some(), "response_format"),
            (request.reasoning.is_some(), "reasoning"),
        ] {
            if present {
                let backend = self.policy.backend;
                self.refuse(param, format!("{backend} has no such parameter in text completion: send a chat request"))?;
            }
        }
        Ok(())
    }

    fn messages(&mut self, messages: &[Message]) -> Result<(), Error> {
        self.out.push(b'[');
        let start = self.out.len();
        let mut aside = Vec::new();
        for (at, message) in messages.iter().enumerate() {
            if !message.parts.iter().any(|part| matches!(part, Part::ToolResult(_))) {
                self.set_aside(start, &mut aside)?;
            }
            self.message(at, message, start, &mut aside)?;
        }
        self.set_aside(start, &mut aside)?;
        self.out.push(b']');
        Ok(())
    }

    /// The media of tool results, where the messages of tools cannot hold them: a message of the user behind all results,
    /// since nothing may stand between a call and its result.
    fn set_aside(&mut self, start: usize, aside: &mut Vec<Aside<'_>>) -> Result<(), Error> {
        let mut last = None;
        for Aside { path, call, media } in std::mem::take(aside) {
            let inner = match last {
                Some((_, inner)) => inner,
                None => {
                    self.separate(start);
                    self.out.extend_from_slice(b"{\"role\":\"user\",\"content\":[");
                    self.out.len()
                }
            };
            if last.is_none_or(|(known, _)| known != call) {
                self.separate(inner);
                let mut object = Object::open(&mut self.out);
                object.raw(&mut self.out, Name::Type, "\"text\"");
                object.name(&mut self.out, Name::Text);
                let id = self.names.ids.map(call).to_owned();
                self.joined(&["The result of the tool call ", &id, " has this content:"]);
                object.close(&mut self.out);
            }
            self.media(path, inner, media)?;
            last = Some((call, inner));
        }
        if last.is_some() {
            self.out.extend_from_slice(b"]}");
        }
        Ok(())
    }

    /// One message of the contract: one of this API for each tool result, and one for everything else.
    fn message<'m>(
        &mut self,
        at: usize,
        message: &'m Message,
        start: usize,
        aside: &mut Vec<Aside<'m>>,
    ) -> Result<(), Error> {
        let mut extra = self.extra(message.extra.as_deref(), &|| format!("messages[{at}]"))?;
        let mut results = 0_usize;
        for (part, result) in message.parts.iter().enumerate() {
            if let Part::ToolResult(result) = result {
                self.separate(start);
                // The message's own members go with the first of the messages that it becomes.
                let path = Path { message: at, part };
                let before = aside.len();
                if self.bounded {
                    aside.extend(result.content.iter().filter_map(|piece| match piece {
                        ResultContent::Media(media) => Some(Aside { path, call: &result.call_id, media }),
                        _ => None,
                    }));
                }
                let set_aside = aside.len() > before;
                self.tool_result((path, set_aside), message, result, &std::mem::take(&mut extra))?;
                results += 1;
            }
        }
        if results > 0 && results == message.parts.len() {
            return Ok(());
        }
        self.set_aside(start, aside)?;
        self.separate(start);
        let mut object = Object::open(&mut self.out);
        let role = match &message.role {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
            Role::Other(role) => role,
        };
        object.string(&mut self.out, Name::Role, role);
        if let Some(name) = &message.name {
            object.string(&mut self.out, Name::Called, name);
        }
        self.content(&mut object, at, message, &extra)?;
        self.beside_content(&mut object, at, message)?;
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    /// True for a part that stands in the message's content, rather than beside it.
    fn is_content(&self, role: &Role, part: &Part) -> bool {
        match part {
            Part::Text(_) => true,
            Part::Media(_) => !self.is_misplaced(role, part),
            Part::Refusal(text) => self.policy.native && text.extra.is_some(),
            Part::Other(json) => !is_tool_call(role, json),
            Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => false,
        }
    }

    /// True for a picture, a sound or a document in a message that may hold text alone.
    fn is_misplaced(&self, role: &Role, part: &Part) -> bool {
        self.bounded && *role != Role::User && matches!(part, Part::Media(_))
    }

    /// The text of a part that a plain string can hold.
    fn plain<'t>(&mut self, path: Path, part: &'t TextPart) -> Result<Option<&'t str>, Error> {
        if self.policy.native {
            return Ok((part.extra.is_none() && part.cache.is_none()).then_some(part.text.as_str()));
        }
        self.extra(part.extra.as_deref(), &|| path.text())?;
        Ok(Some(&part.text))
    }

    /// The member `content`.
    fn content(&mut self, object: &mut Object, at: usize, message: &Message, extra: &Members<'_>) -> Result<(), Error> {
        for (part, content) in message.parts.iter().enumerate() {
            if self.is_misplaced(&message.role, content) {
                let text = format!("{} takes media in messages of the user only", self.policy.backend);
                self.refuse(Path { message: at, part }.text(), text)?;
            }
        }
        let mut parts = message.parts.iter().enumerate().filter(|(_, part)| self.is_content(&message.role, part));
        let (first, more) = (parts.next(), parts.next().is_some());
        let Some((part, first)) = first else {
            if extra.get("content").is_some() {
                return Ok(());
            }
            let empty = match (&message.role, self.policy.native, message.parts.is_empty()) {
                (Role::Assistant, true, _) | (Role::Assistant, false, false) => "null",
                (_, true, true) => "[]",
                _ => "\"\"",
            };
            object.raw(&mut self.out, Name::Content, empty);
            return Ok(());
        };
        if let (Part::Text(text), false) = (first, more)
            && let Some(text) = self.plain(Path { message: at, part }, text)?
        {
            object.string(&mut self.out, Name::Content, text);
            return Ok(());
        }
        object.name(&mut self.out, Name::Content);
        self.out.push(b'[');
        let start = self.out.len();
        for (part, content) in message.parts.iter().enumerate() {
            let path = Path { message: at, part };
            match content {
                Part::Text(text) => self.text(path, start, text, false)?,
                Part::Refusal(text) if self.is_content(&message.role, content) => self.text(path, start, text, true)?,
                Part::Media(media) if self.is_content(&message.role, content) => self.media(path, start, media)?,
                Part::Other(json) if self.is_content(&message.role, content) => self.other(path, start, json)?,
                Part::Media(_) | Part::Other(_) | Part::Refusal(_) => {}
                Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => {}
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// What stands beside the content: reasoning, a refusal, tool calls.
    fn beside_content(&mut self, object: &mut Object, at: usize, message: &Message) -> Result<(), Error> {
        if message.parts.iter().all(|part| matches!(part, Part::Text(_) | Part::Media(_))) {
            return Ok(());
        }
        let refusals = message.parts.iter().filter_map(|part| match part {
            Part::Refusal(text) if !self.is_content(&message.role, part) => Some(text.text.as_str()),
            _ => None,
        });
        let refusals: Vec<&str> = refusals.collect();
        if !refusals.is_empty() {
            object.name(&mut self.out, Name::Refusal);
            self.joined(&refusals);
        }
        if message.role != Role::Assistant {
            for (part, content) in message.parts.iter().enumerate() {
                if matches!(content, Part::Reasoning(_) | Part::ToolCall(_)) {
                    let param = Path { message: at, part }.text();
                    let backend = self.policy.backend;
                    self.refuse(param, format!("{backend} takes reasoning and tool calls of the assistant only"))?;
                }
            }
            return Ok(());
        }
        let mut thoughts = Vec::new();
        for (part, content) in message.parts.iter().enumerate() {
            if let Part::Reasoning(reasoning) = content {
                let path = Path { message: at, part };
                if self.is_strict() {
                    self.refuse(path.text(), "OpenAI's chat API takes no reasoning back: its Responses API does")?;
                    continue;
                }
                if reasoning.redacted.is_some() && !self.policy.native {
                    let backend = self.policy.backend;
                    self.refuse(path.text(), format!("{backend} cannot read what another backend has encrypted"))?;
                }
                if (reasoning.redacted.is_none() && reasoning.signature.is_none()) || !reasoning.text.is_empty() {
                    thoughts.push(reasoning.text.as_str());
                }
                let extra = self.extra(reasoning.extra.as_deref(), &|| path.text())?;
                object.splice(&mut self.out, &extra);
            }
        }
        if !thoughts.is_empty() {
            object.name(&mut self.out, Name::ReasoningContent);
            self.joined(&thoughts);
        }
        if self.policy.native && !self.is_strict() {
            let (signature, encrypted) = proofs(&message.parts);
            for (name, proof) in [(Name::ReasoningSignature, signature), (Name::ReasoningEncrypted, encrypted)] {
                if let Some(proof) = proof {
                    object.string(&mut self.out, name, &proof);
                }
            }
        }
        let mut start = None;
        for (part, content) in message.parts.iter().enumerate() {
            let path = Path { message: at, part };
            match content {
                Part::ToolCall(_) => {}
                Part::Other(json) if is_tool_call(&message.role, json) && self.passes(&|| path.text())? => {}
                _ => continue,
            }
            match start {
                Some(start) => self.separate(start),
                None => {
                    object.name(&mut self.out, Name::ToolCalls);
                    self.out.push(b'[');
                    start = Some(self.out.len());
                }
            }
            match content {
                Part::ToolCall(call) => self.tool_call(path, call)?,
                Part::Other(json) => self.out.extend_from_slice(json.as_bytes()),
                _ => {}
            }
        }
        if start.is_some() {
            self.out.push(b']');
        }
        Ok(())
    }

    /// Several texts as one string.
    fn joined(&mut self, texts: &[&str]) {
        self.out.push(b'"');
        for text in texts {
            json::escape(&mut self.out, text);
        }
        self.out.push(b'"');
    }

    fn tool_call(&mut self, path: Path, call: &ToolCall) -> Result<(), Error> {
        let extra = self.extra(call.extra.as_deref(), &|| path.text())?;
        let mut object = Object::open(&mut self.out);
        object.string(&mut self.out, Name::Id, self.names.ids.map(&call.id));
        object.raw(&mut self.out, Name::Type, "\"function\"");
        object.name(&mut self.out, Name::Function);
        let mut function = Object::open(&mut self.out);
        function.string(&mut self.out, Name::Called, self.names.tools.map(&call.name));
        function.string(&mut self.out, Name::Arguments, &call.arguments);
        function.splice(&mut self.out, &extra.nested("function"));
        function.close(&mut self.out);
        self.cache(&mut object, call.cache.as_ref());
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    /// A message of the role `tool`.
    fn tool_result(
        &mut self,
        (path, set_aside): (Path, bool),
        message: &Message,
        result: &ToolResult,
        message_extra: &Members<'_>,
    ) -> Result<(), Error> {
        let extra = self.extra(result.extra.as_deref(), &|| path.text())?;
        let mut object = Object::open(&mut self.out);
        object.raw(&mut self.out, Name::Role, "\"tool\"");
        object.string(&mut self.out, Name::ToolCallId, self.names.ids.map(&result.call_id));
        if let Some(name) = &message.name {
            object.string(&mut self.out, Name::Called, self.names.tools.map(name));
        }
        let failed = result.is_error == Some(true);
        let mut pieces = Vec::with_capacity(result.content.len());
        for piece in &result.content {
            if !(set_aside && matches!(piece, ResultContent::Media(_))) {
                pieces.push(piece);
            }
        }
        let text = match pieces.as_slice() {
            [] if set_aside => Some("its content is in the next message of the user"),
            [] if failed => Some("the tool failed"),
            [] => Some(""),
            [ResultContent::Text(text)] => self.plain(path, text)?,
            _ => None,
        };
        object.name(&mut self.out, Name::Content);
        if let Some(text) = text {
            let says_so = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("error"));
            self.joined(&[if failed && !says_so { "Error: " } else { "" }, text]);
        } else {
            self.out.push(b'[');
            let start = self.out.len();
            if failed {
                self.out.extend_from_slice(b"{\"type\":\"text\",\"text\":\"Error:\"}");
            }
            for piece in pieces {
                match piece {
                    ResultContent::Text(text) => self.text(path, start, text, false)?,
                    ResultContent::Media(media) => self.media(path, start, media)?,
                    ResultContent::Other(json) => self.other(path, start, json)?,
                }
            }
            self.out.push(b']');
        }
        self.cache(&mut object, result.cache.as_ref());
        object.splice(&mut self.out, &extra);
        object.splice(&mut self.out, message_extra);
        object.close(&mut self.out);
        Ok(())
    }

    /// A text (or a refusal) as an element of a content list.
    fn text(&mut self, path: Path, start: usize, part: &TextPart, refusal: bool) -> Result<(), Error> {
        let extra = self.extra(part.extra.as_deref(), &|| path.text())?;
        self.separate(start);
        let mut object = Object::open(&mut self.out);
        let (kind, name) = if refusal { ("\"refusal\"", Name::Refusal) } else { ("\"text\"", Name::Text) };
        object.raw(&mut self.out, Name::Type, kind);
        object.string(&mut self.out, name, &part.text);
        self.cache(&mut object, part.cache.as_ref());
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    /// A part that only the client's dialect knows, as an element of a content list.
    fn other(&mut self, path: Path, start: usize, json: &str) -> Result<(), Error> {
        if self.passes(&|| path.text())? {
            self.separate(start);
            self.out.extend_from_slice(json.as_bytes());
        }
        Ok(())
    }

    /// A prompt-cache mark, where it came in this dialect.
    fn cache(&mut self, object: &mut Object, mark: Option<&CacheMark>) {
        let Some(mark) = mark.filter(|_| self.policy.native) else { return };
        object.name(&mut self.out, Name::CacheControl);
        let mut inner = Object::open(&mut self.out);
        inner.raw(&mut self.out, Name::Type, "\"ephemeral\"");
        if let Some(ttl) = &mark.ttl {
            inner.string(&mut self.out, Name::Ttl, ttl);
        }
        inner.close(&mut self.out);
    }

    /// A picture, a sound, a document, as an element of a content list.
    fn media(&mut self, path: Path, start: usize, media: &MediaPart) -> Result<(), Error> {
        let extra = self.extra(media.extra.as_deref(), &|| path.text())?;
        if self.flavour == Flavour::LlamaCpp && media.kind == MediaKind::Document {
            return self.refuse(path.text(), "llama.cpp takes no documents: send their text");
        }
        if self.is_strict() && media.kind == MediaKind::Video {
            return self.refuse(path.text(), "OpenAI's chat API takes no video: send pictures of it");
        }
        let (kind, name) = match &media.kind {
            MediaKind::Image => ("image_url", Name::ImageUrl),
            MediaKind::Audio => ("input_audio", Name::InputAudio),
            MediaKind::Video => ("video_url", Name::VideoUrl),
            MediaKind::Document => ("file", Name::File),
            MediaKind::Other(kind) => {
                return self.refuse(path.text(), format!("{} has no part of the kind `{kind}`", self.policy.backend));
            }
        };
        if let MediaSource::Other(_) = media.source
            && !self.passes(&|| path.text())?
        {
            return Ok(());
        }
        let possible = match (&media.kind, &media.source) {
            (_, MediaSource::Other(_)) | (MediaKind::Image | MediaKind::Video, MediaSource::Url(_)) => true,
            (MediaKind::Document, MediaSource::FileId(_)) => true,
            // `file_data` that is neither base64 nor a data URL: what the client meant by it, the backend may know.
            (MediaKind::Document, MediaSource::Url(_)) => self.policy.native,
            (_, MediaSource::Base64(_)) => true,
            _ => false,
        };
        if !possible {
            let how = match &media.kind {
                MediaKind::Audio => "its bytes in base64",
                MediaKind::Document => "its bytes in base64, or the id of an uploaded file",
                _ => "its bytes in base64, or a URL",
            };
            return self.refuse(path.text(), format!("{} takes this kind of part only as {how}", self.policy.backend));
        }
        let mime = match (&media.mime, &media.source, &media.kind) {
            (Some(mime), ..) => mime.as_str(),
            (None, MediaSource::Base64(data), MediaKind::Image) => image::sniffed(data).unwrap_or_default(),
            _ => "",
        };
        if mime.is_empty() && matches!(media.source, MediaSource::Base64(_)) && media.kind != MediaKind::Document {
            return Err(Error::invalid(path.text(), "the bytes need a media type, as `image/png` or `audio/wav`"));
        }
        self.separate(start);
        let mut object = Object::open(&mut self.out);
        object.string(&mut self.out, Name::Type, kind);
        object.name(&mut self.out, name);
        if let MediaSource::Other(json) = &media.source {
            self.out.extend_from_slice(json.as_bytes());
        } else {
            let mut inner = Object::open(&mut self.out);
            match (&media.kind, &media.source) {
                (MediaKind::Audio, MediaSource::Base64(data)) => {
                    inner.string(&mut self.out, Name::Data, data);
                    inner.string(&mut self.out, Name::Format, audio_format(mime, self.policy.native));
                }
                (MediaKind::Document, source) => {
                    if let Some(name) = &media.name {
                        inner.string(&mut self.out, Name::Filename, name);
                    }
                    match source {
                        MediaSource::FileId(id) => inner.string(&mut self.out, Name::FileId, id),
                        MediaSource::Base64(data) if mime.is_empty() => {
                            inner.string(&mut self.out, Name::FileData, data)
                        }
                        MediaSource::Base64(data) => {
                            inner.name(&mut self.out, Name::FileData);
                            self.data_url(mime, data);
                        }
                        MediaSource::Url(url) => inner.string(&mut self.out, Name::FileData, url),
                        MediaSource::Text(_) | MediaSource::Other(_) => {}
                    }
                }
                (_, MediaSource::Base64(data)) => {
                    inner.name(&mut self.out, Name::Url);
                    self.data_url(mime, data);
                }
                (_, MediaSource::Url(url)) => inner.string(&mut self.out, Name::Url, url),
                (_, MediaSource::Text(_) | MediaSource::FileId(_) | MediaSource::Other(_)) => {}
            }
            if let Some(detail) = media.detail.as_ref().filter(|_| media.kind == MediaKind::Image) {
                inner.string(&mut self.out, Name::Detail, detail);
            }
            inner.splice(&mut self.out, &extra.nested(kind));
            inner.close(&mut self.out);
        }
        self.cache(&mut object, media.cache.as_ref());
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    /// A `data:` URL as a string.
    fn data_url(&mut self, mime: &str, base64: &str) {
        self.out.reserve(base64.len() + mime.len() + 16);
        self.joined(&["data:", mime, ";base64,", base64]);
    }

    fn tools(&mut self, top: &mut Object, request: &Request) -> Result<(), Error> {
        if self.policy.takes_no_tool(request)? {
            return Ok(());
        }
        if !request.tools.is_empty() {
            top.name(&mut self.out, Name::Tools);
            self.out.push(b'[');
            let start = self.out.len();
            for (at, tool) in request.tools.iter().enumerate() {
                match tool {
                    Tool::Function(function) => {
                        self.separate(start);
                        self.tool(at, function)?;
                    }
                    Tool::Other(json) => {
                        if self.passes(&|| format!("tools[{at}]"))? {
                            self.separate(start);
                            self.out.extend_from_slice(json.as_bytes());
                        }
                    }
                }
            }
            self.out.push(b']');
        }
        match &request.tool_choice {
            None => {}
            Some(ToolChoice::Auto) => top.raw(&mut self.out, Name::ToolChoice, "\"auto\""),
            Some(ToolChoice::None) => top.raw(&mut self.out, Name::ToolChoice, "\"none\""),
            Some(ToolChoice::Required) => top.raw(&mut self.out, Name::ToolChoice, "\"required\""),
            Some(ToolChoice::Tool(name)) => {
                top.name(&mut self.out, Name::ToolChoice);
                self.out.extend_from_slice(b"{\"type\":\"function\",\"function\":{\"name\":");
                json::string(&mut self.out, self.names.tools.map(name));
                self.out.extend_from_slice(b"}}");
            }
            Some(ToolChoice::Other(json)) if self.passes(&|| "tool_choice".into())? => {
                top.raw(&mut self.out, Name::ToolChoice, json);
            }
            Some(ToolChoice::Other(_)) => {}
        }
        if let Some(parallel) = request.parallel_tool_calls {
            top.bool(&mut self.out, Name::Parallel, parallel);
        }
        Ok(())
    }

    fn tool(&mut self, at: usize, tool: &FunctionTool) -> Result<(), Error> {
        let extra = self.extra(tool.extra.as_deref(), &|| format!("tools[{at}]"))?;
        let mut object = Object::open(&mut self.out);
        object.raw(&mut self.out, Name::Type, "\"function\"");
        object.name(&mut self.out, Name::Function);
        let mut function = Object::open(&mut self.out);
        function.string(&mut self.out, Name::Called, self.names.tools.map(&tool.name));
        if let Some(description) = &tool.description {
            function.string(&mut self.out, Name::Description, description);
        }
        if let Some(parameters) = &tool.parameters {
            function.raw(&mut self.out, Name::Parameters, parameters);
        }
        if let Some(strict) = tool.strict {
            function.bool(&mut self.out, Name::Strict, strict);
        }
        function.splice(&mut self.out, &extra.nested("function"));
        function.close(&mut self.out);
        self.cache(&mut object, tool.cache.as_ref());
        object.splice(&mut self.out, &extra);
        object.close(&mut self.out);
        Ok(())
    }

    fn response_format(&mut self, top: &mut Object, format: &ResponseFormat) -> Result<(), Error> {
        match format {
            ResponseFormat::Text => top.raw(&mut self.out, Name::ResponseFormat, r#"{"type":"text"}"#),
            ResponseFormat::JsonObject => top.raw(&mut self.out, Name::ResponseFormat, r#"{"type":"json_object"}"#),
            ResponseFormat::JsonSchema(schema) => {
                top.name(&mut self.out, Name::ResponseFormat);
                self.out.extend_from_slice(b"{\"type\":\"json_schema\",\"json_schema\":");
                let mut object = Object::open(&mut self.out);
                match &schema.name {
                    Some(name) => object.string(&mut self.out, Name::Called, name),
                    // OpenAI wants a name where other dialects have none.
                    None if !self.policy.native => object.raw(&mut self.out, Name::Called, "\"output\""),
                    None => {}
                }
                if let Some(description) = &schema.description {
                    object.string(&mut self.out, Name::Description, description);
                }
                object.raw(&mut self.out, Name::Schema, &schema.schema);
                if let Some(strict) = schema.strict {
                    object.bool(&mut self.out, Name::Strict, strict);
                }
                object.close(&mut self.out);
                self.out.push(b'}');
            }
            ResponseFormat::Other(json) => {
                if self.passes(&|| "response_format".into())? {
                    top.raw(&mut self.out, Name::ResponseFormat, json);
                }
            }
        }
        Ok(())
    }

    /// Reasoning options: `reasoning_effort` where nothing else was given, an object `reasoning` where the client wrote
    /// one (its unknown members are there, if only `{}`), llama.cpp's own members for what only it can.
    fn reasoning(&mut self, top: &mut Object, reasoning: &Reasoning, all: &Members<'_>) -> Result<(), Error> {
        let extra = self.extra(reasoning.extra.as_deref(), &|| "reasoning".into())?;
        let llama = self.flavour == Flavour::LlamaCpp;
        if self.policy.native && reasoning.extra.is_some() && !llama {
            top.name(&mut self.out, Name::Reasoning);
            let mut object = Object::open(&mut self.out);
            if let Some(effort) = &reasoning.effort {
                object.string(&mut self.out, Name::Effort, effort);
            }
            if let Some(tokens) = reasoning.budget_tokens {
                object.integer(&mut self.out, Name::MaxTokens, tokens);
            }
            if let Some(enabled) = reasoning.enabled {
                object.bool(&mut self.out, Name::Enabled, enabled);
            }
            if let Some(summary) = &reasoning.summary {
                object.string(&mut self.out, Name::Summary, summary);
            }
            object.splice(&mut self.out, &extra);
            object.close(&mut self.out);
            return Ok(());
        }
        for (name, _) in &extra.0 {
            let message = format!("{} has no such reasoning option", self.policy.backend);
            self.refuse(format!("reasoning.{name}"), message)?;
        }
        match (&reasoning.effort, reasoning.enabled) {
            (Some(effort), _) => top.string(&mut self.out, Name::ReasoningEffort, effort),
            (None, Some(false)) if !llama => top.raw(&mut self.out, Name::ReasoningEffort, "\"none\""),
            _ => {}
        }
        if let Some(tokens) = reasoning.budget_tokens {
            if llama {
                top.integer(&mut self.out, Name::ThinkingBudget, tokens);
            } else {
                let backend = self.policy.backend;
                let message = format!("{backend} bounds reasoning by `reasoning_effort`, not by a number of tokens");
                self.refuse("reasoning.budget_tokens", message)?;
            }
        }
        if let Some(enabled) = reasoning.enabled.filter(|_| llama) {
            top.name(&mut self.out, Name::Kwargs);
            let mut kwargs = Object::open(&mut self.out);
            kwargs.bool(&mut self.out, Name::EnableThinking, enabled);
            kwargs.splice(&mut self.out, &all.nested("chat_template_kwargs"));
            kwargs.close(&mut self.out);
        }
        if reasoning.summary.is_some() {
            let message = format!("{} returns no summary of its reasoning in chat", self.policy.backend);
            self.refuse("reasoning.summary", message)?;
        }
        Ok(())
    }

    fn sampling(&mut self, top: &mut Object, request: &Request) -> Result<(), Error> {
        let sampling = &request.sampling;
        let repetition = if self.flavour == Flavour::LlamaCpp { Name::RepeatPenalty } else { Name::RepetitionPenalty };
        for (name, param, value) in [
            (Name::Temperature, "temperature", sampling.temperature),
            (Name::TopP, "top_p", sampling.top_p),
            (Name::MinP, "min_p", sampling.min_p),
            (Name::FrequencyPenalty, "frequency_penalty", sampling.frequency_penalty),
            (Name::PresencePenalty, "presence_penalty", sampling.presence_penalty),
            (repetition, "repetition_penalty", sampling.repetition_penalty),
        ] {
            let Some(value) = value else { continue };
            if !value.is_finite() {
                return Err(Error::invalid(param, "must be a finite number"));
            }
            if self.is_strict() && matches!(name, Name::MinP | Name::RepetitionPenalty) {
                self.refuse(param, format!("OpenAI's API has no `{param}`"))?;
                continue;
            }
            top.name(&mut self.out, name);
            json::float(&mut self.out, value);
        }
        if let Some(top_k) = sampling.top_k {
            if self.is_strict() {
                self.refuse("top_k", "OpenAI's API has no `top_k`: use `top_p`")?;
            } else {
                top.integer(&mut self.out, Name::TopK, top_k);
            }
        }
        if let Some(seed) = sampling.seed {
            top.integer(&mut self.out, Name::Seed, seed);
        }
        if !sampling.stop.is_empty() {
            top.name(&mut self.out, Name::Stop);
            self.out.push(b'[');
            let start = self.out.len();
            for stop in &sampling.stop {
                self.separate(start);
                json::string(&mut self.out, stop);
            }
            self.out.push(b']');
        }
        if let Some(n) = sampling.n {
            top.integer(&mut self.out, Name::N, n);
        }
        if let Some(bias) = &sampling.logit_bias {
            top.raw(&mut self.out, Name::LogitBias, bias);
        }
        let (visible, all) = (sampling.max_tokens, sampling.max_completion_tokens);
        let chat = matches!(request.input, Input::Chat(_));
        let (visible, all) = match self.settings.max_tokens_field {
            MaxTokensField::MaxTokens => (all.or(visible), None),
            MaxTokensField::MaxCompletionTokens => (None, all.or(visible)),
            MaxTokensField::Auto if chat && self.flavour != Flavour::LlamaCpp && is_reasoning_model(&request.model) => {
                (None, all.or(visible))
            }
            MaxTokensField::Auto => (visible, all),
        };
        if let Some(tokens) = visible {
            top.integer(&mut self.out, Name::MaxTokens, tokens);
        }
        if let Some(tokens) = all {
            top.integer(&mut self.out, Name::MaxCompletionTokens, tokens);
        }
        Ok(())
    }
}
