//! Requests to Ollama's JSON.

use std::collections::BTreeMap;

use witgate_model::{
    Auth, CompletionPrompt, EmbeddingInput, EmbeddingText, Error, Field, Framing, FunctionTool, HeaderAuth,
    HttpRequest, Input, MediaKind, MediaPart, MediaSource, Message, Part, Reasoning, ReasoningPart, Request,
    ResponseFormat, ResultContent, Role, TextPart, Tool, ToolCall, ToolChoice, ToolResult,
};

use super::object::Object;
use super::settings::{PathKind, Settings};
use super::{Context, Operation, TEXTS, UNNAMED};
use crate::openai_shape::json::{self, Members, complaint, utf8};
use crate::openai_shape::size_hint;

/// Most entries of `http-request.dropped`.
const DROPPED: usize = 64;

/// The HTTP request for `request`.
pub(super) fn encode(settings: &str, request: &Request) -> Result<HttpRequest, Error> {
    let settings = Settings::parse(settings)?;
    let turn = match &request.input {
        Input::Chat(messages) if request.dialect == super::GENERATE => one_turn(messages),
        _ => None,
    };
    let operation = match &request.input {
        Input::Chat(_) if turn.is_some() => Operation::Generate,
        Input::Chat(_) => Operation::Chat,
        Input::Completion(_) => Operation::Generate,
        Input::Embedding(_) if request.dialect == super::EMBEDDINGS => Operation::Embeddings,
        Input::Embedding(_) => Operation::Embed,
        Input::Models => Operation::Tags,
        other @ (Input::CountTokens(_) | Input::Other(_)) => return Err(Error::no_operation("Ollama", other)),
    };
    if settings.path == PathKind::Exact && operation != Operation::Chat {
        return Err(Error::no_operation("this endpoint, which is one URL for conversations,", &request.input));
    }
    let mut encoder = Encoder {
        out: Vec::with_capacity(size_hint(request)),
        native: request.dialect == operation.dialect(),
        settings: &settings,
        dropped: Vec::new(),
        calls: Calls::default(),
    };
    let mut context = Context { operation, count: 0, native: false };
    match (&request.input, turn) {
        (Input::Chat(_), Some(turn)) => encoder.turn(request, &turn)?,
        (Input::Chat(messages), None) => encoder.chat(request, messages)?,
        (Input::Completion(prompt), _) => encoder.completion(request, prompt)?,
        (Input::Embedding(input), _) => {
            context.count = input.texts.len() as u64;
            encoder.embedding(request, input, operation)?;
        }
        _ => drop(encoder.extra(request.extra.as_deref(), &String::new)?),
    }
    if matches!(operation, Operation::Chat | Operation::Generate) {
        context.count = encoder.calls.next();
    }
    context.native = encoder.native;
    let Encoder { out: body, dropped, .. } = encoder;
    let stream = request.stream && matches!(operation, Operation::Chat | Operation::Generate);
    let asked = operation != Operation::Tags;
    Ok(HttpRequest {
        method: if asked { "POST" } else { "GET" }.to_owned(),
        framing: if stream { Framing::Ndjson } else { Framing::Whole },
        context: context.to_text(),
        dropped,
        ..request_to(operation.name(), &settings, body, stream)
    })
}

/// The request that shows whether the server runs; none where only conversations can be asked for.
pub(super) fn probe(settings: &str) -> Result<Option<HttpRequest>, Error> {
    let settings = Settings::parse(settings)?;
    Ok((settings.path == PathKind::Api).then(|| request_to("version", &settings, Vec::new(), false)))
}

fn request_to(name: &str, settings: &Settings<'_>, body: Vec<u8>, stream: bool) -> HttpRequest {
    let header = |name: &str, value: &str| -> Field { (name.to_owned(), value.to_owned()) };
    let mut headers = Vec::with_capacity(2 + settings.headers.len());
    if !body.is_empty() {
        headers.push(header("content-type", "application/json"));
    }
    headers.push(header("accept", if stream { "application/x-ndjson" } else { "application/json" }));
    headers.extend(settings.headers.iter().map(|(name, value)| header(name, value)));
    HttpRequest {
        method: "GET".to_owned(),
        path: match settings.path {
            PathKind::Api => vec!["api".to_owned(), name.to_owned()],
            PathKind::Exact => Vec::new(),
        },
        query: Vec::new(),
        headers,
        body,
        auth: Auth::Header(HeaderAuth {
            name: "authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
            slot: "api_key".to_owned(),
        }),
        framing: Framing::Whole,
        context: None,
        dropped: Vec::new(),
    }
}

/// A conversation that `/api/generate` can hold: at most a system text, then a text with images.
struct Turn<'a> {
    system: Option<&'a str>,
    prompt: &'a str,
    images: &'a [Part],
}

fn one_turn(messages: &[Message]) -> Option<Turn<'_>> {
    let plain = |message: &Message| message.name.is_none() && message.extra.is_none();
    let (system, user) = match messages {
        [user] => (None, user),
        [system, user] if system.role == Role::System && plain(system) => match system.parts.as_slice() {
            [Part::Text(text)] => (Some(text.text.as_str()), user),
            _ => return None,
        },
        _ => return None,
    };
    let (Part::Text(prompt), images) = user.parts.split_first()? else { return None };
    let fits = user.role == Role::User && plain(user) && images.iter().all(|part| matches!(part, Part::Media(_)));
    fits.then_some(Turn { system, prompt: &prompt.text, images })
}

/// The tool calls of the conversation so far.
#[derive(Default)]
struct Calls<'a> {
    count: u64,
    /// Above the number of every id that was made.
    above: u64,
    /// Ids to names of tools.
    names: BTreeMap<&'a str, &'a str>,
}

impl<'a> Calls<'a> {
    fn add(&mut self, call: &'a ToolCall) {
        self.count += 1;
        self.seen(&call.id);
        self.names.insert(&call.id, &call.name);
    }

    fn seen(&mut self, id: &str) {
        let number = id.strip_prefix(UNNAMED).and_then(|number| number.parse::<u64>().ok());
        self.above = self.above.max(number.map_or(0, |number| number.saturating_add(1)));
    }

    /// The number for the next call.
    fn next(&self) -> u64 {
        self.count.max(self.above)
    }
}

/// Where a part stands, in the client's terms.
#[derive(Clone, Copy)]
struct At {
    message: usize,
    part: usize,
}

impl At {
    fn path(self) -> String {
        format!("messages[{}].content[{}]", self.message, self.part)
    }
}

/// What a message says, in the places that this API has for it.
#[derive(Default)]
struct Said<'a> {
    texts: Vec<&'a str>,
    thoughts: Vec<&'a str>,
    images: Vec<&'a str>,
}

struct Encoder<'a> {
    out: Vec<u8>,
    /// The request came in the endpoint's own dialect: unknown members pass.
    native: bool,
    settings: &'a Settings<'a>,
    dropped: Vec<String>,
    calls: Calls<'a>,
}

impl<'a> Encoder<'a> {
    /// Refuses `param`, unless the settings say to leave such things out: then it is listed.
    fn refuse(&mut self, param: impl Into<String>, message: impl Into<String>) -> Result<(), Error> {
        if !self.settings.drop_unsupported {
            return Err(Error::unsupported(param, message));
        }
        if self.dropped.len() < DROPPED {
            self.dropped.push(param.into());
        }
        Ok(())
    }

    /// The unknown members of the object at `path`: all of them in the own dialect; of another they are refused.
    fn extra<'j>(&mut self, json: Option<&'j str>, path: &dyn Fn() -> String) -> Result<Members<'j>, Error> {
        let members = self.members(json, path)?;
        if self.native {
            return Ok(members);
        }
        self.refuse_members(&members, path)?;
        Ok(Members::default())
    }

    /// Refuses the unknown members of an object that this API has no object for.
    fn no_extra(&mut self, json: Option<&str>, path: &dyn Fn() -> String) -> Result<(), Error> {
        let members = self.members(json, path)?;
        self.refuse_members(&members, path)
    }

    fn members<'j>(&self, json: Option<&'j str>, path: &dyn Fn() -> String) -> Result<Members<'j>, Error> {
        Members::parse(json).map_err(|error| {
            let message = format!("the unknown members here are not a JSON object: {}", complaint(&error));
            Error::invalid(path(), message)
        })
    }

    fn refuse_members(&mut self, members: &Members<'_>, path: &dyn Fn() -> String) -> Result<(), Error> {
        for (name, _) in &members.0 {
            let path = path();
            if path.is_empty() && name == "stream_options" {
                // Usage always comes; the client's dialect sees to the rest.
                continue;
            }
            let param = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            self.refuse(param, format!("Ollama's API has no counterpart of `{name}` as the client's API means it"))?;
        }
        Ok(())
    }

    /// A comma between the elements of the list that began at `start`.
    fn separate(&mut self, start: usize) {
        if self.out.len() > start {
            self.out.push(b',');
        }
    }

    /// A list of strings.
    fn strings<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) {
        self.out.push(b'[');
        let start = self.out.len();
        for text in texts {
            self.separate(start);
            json::string(&mut self.out, text);
        }
        self.out.push(b']');
    }

    /// Texts as one string.
    fn joined(&mut self, texts: &[&str]) {
        self.out.push(b'"');
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                self.out.extend_from_slice(b"\\n");
            }
            json::escape(&mut self.out, text);
        }
        self.out.push(b'"');
    }

    fn chat(&mut self, request: &'a Request, messages: &'a [Message]) -> Result<(), Error> {
        if messages.is_empty() && !self.native {
            return Err(Error::invalid("messages", "must have at least one message"));
        }
        let mut top = Object::open(&mut self.out);
        top.string(&mut self.out, "model", &request.model);
        top.name(&mut self.out, "messages");
        self.out.push(b'[');
        let start = self.out.len();
        for (at, message) in messages.iter().enumerate() {
            self.message(at, message, start)?;
        }
        self.out.push(b']');
        self.tools(&mut top, request)?;
        self.generation(top, request, true)
    }

    /// A conversation of the dialect `ollama-generate`.
    fn turn(&mut self, request: &Request, turn: &Turn<'a>) -> Result<(), Error> {
        let mut top = Object::open(&mut self.out);
        top.string(&mut self.out, "model", &request.model);
        top.string(&mut self.out, "prompt", turn.prompt);
        if let Some(system) = turn.system {
            top.string(&mut self.out, "system", system);
        }
        let mut images = Vec::new();
        for (at, part) in turn.images.iter().enumerate() {
            if let Part::Media(media) = part {
                images.extend(self.image(media, &|| format!("images[{at}]"))?);
            }
        }
        if !images.is_empty() {
            top.name(&mut self.out, "images");
            self.strings(images);
        }
        self.no_tools(request)?;
        self.generation(top, request, true)
    }

    fn completion(&mut self, request: &Request, prompt: &CompletionPrompt) -> Result<(), Error> {
        let mut top = Object::open(&mut self.out);
        top.string(&mut self.out, "model", &request.model);
        top.string(&mut self.out, "prompt", &prompt.text);
        match &prompt.suffix {
            Some(suffix) => top.string(&mut self.out, "suffix", suffix),
            None => top.bool(&mut self.out, "raw", true),
        }
        if prompt.echo == Some(true) {
            self.refuse("echo", "Ollama cannot repeat the prompt in front of the answer")?;
        }
        if prompt.best_of.is_some_and(|count| count > 1) {
            self.refuse("best_of", "Ollama makes one answer for each request: there is no best of several")?;
        }
        self.no_tools(request)?;
        self.generation(top, request, false)
    }

    /// Refuses tools where the endpoint has none.
    fn no_tools(&mut self, request: &Request) -> Result<(), Error> {
        let forced = !matches!(request.tool_choice, None | Some(ToolChoice::Auto | ToolChoice::None));
        let present = [
            (!request.tools.is_empty(), "tools"),
            (forced, "tool_choice"),
            (request.parallel_tool_calls == Some(false), "parallel_tool_calls"),
        ];
        for (_, param) in present.into_iter().filter(|(present, _)| *present) {
            self.refuse(param, "Ollama's text completion has no tools: send a chat request")?;
        }
        Ok(())
    }

    /// What `/api/chat` and `/api/generate` have in common.
    fn generation(&mut self, mut top: Object, request: &Request, templated: bool) -> Result<(), Error> {
        let extra = self.extra(request.extra.as_deref(), &String::new)?;
        top.bool(&mut self.out, "stream", request.stream);
        self.response_format(&mut top, request.response_format.as_ref())?;
        if let Some(reasoning) = &request.reasoning {
            self.think(&mut top, reasoning)?;
        }
        if let Some(logprobs) = request.sampling.logprobs {
            top.bool(&mut self.out, "logprobs", logprobs);
        }
        if let Some(count) = request.sampling.top_logprobs {
            top.integer(&mut self.out, "top_logprobs", count);
        }
        self.options(&mut top, Some(request), &extra)?;
        top.splice(&mut self.out, &extra, &["options"]);
        if templated {
            self.defaults(&mut top, &["think"]);
        }
        self.defaults(&mut top, &["keep_alive", "truncate", "shift"]);
        self.end_user(request)?;
        top.close(&mut self.out);
        Ok(())
    }

    /// Those of `names` that the settings fill.
    fn defaults(&mut self, top: &mut Object, names: &[&'static str]) {
        let bool = |value: Option<bool>| value.map(|value| if value { "true" } else { "false" });
        let settings = self.settings;
        for name in names {
            let value = match *name {
                "think" => settings.think.map(|think| think.get()),
                "keep_alive" => settings.keep_alive.map(|time| time.get()),
                "truncate" => bool(settings.truncate),
                _ => bool(settings.shift),
            };
            if let Some(value) = value.filter(|_| !top.has(name)) {
                top.raw(&mut self.out, name, value);
            }
        }
    }

    fn end_user(&mut self, request: &Request) -> Result<(), Error> {
        if request.end_user.is_some() {
            self.refuse("user", "Ollama has no place for the end user's name")?;
        }
        Ok(())
    }

    fn embedding(&mut self, request: &Request, input: &EmbeddingInput, operation: Operation) -> Result<(), Error> {
        if input.texts.is_empty() {
            return Err(Error::invalid("input", "must have at least one text"));
        }
        if input.texts.len() > TEXTS {
            return Err(Error::invalid("input", format!("has more than {TEXTS} texts: send them in several requests")));
        }
        let mut texts = Vec::with_capacity(input.texts.len());
        for (at, text) in input.texts.iter().enumerate() {
            match text {
                EmbeddingText::Text(text) => texts.push(text.as_str()),
                EmbeddingText::Tokens(_) => {
                    let param = if input.single { "input".to_owned() } else { format!("input[{at}]") };
                    // Left out, it would move the places of the others.
                    return Err(Error::unsupported(param, "Ollama embeds texts, not tokens: send the text"));
                }
            }
        }
        let mut top = Object::open(&mut self.out);
        top.string(&mut self.out, "model", &request.model);
        match (operation, texts.as_slice()) {
            (Operation::Embeddings, [text]) => top.string(&mut self.out, "prompt", text),
            (Operation::Embeddings, _) => return Err(Error::invalid("input", "must be one text for this endpoint")),
            (_, [text]) if input.single => top.string(&mut self.out, "input", text),
            _ => {
                top.name(&mut self.out, "input");
                self.strings(texts);
            }
        }
        if let Some(dimensions) = input.dimensions {
            top.integer(&mut self.out, "dimensions", dimensions);
        }
        let extra = self.extra(request.extra.as_deref(), &String::new)?;
        self.options(&mut top, None, &extra)?;
        top.splice(&mut self.out, &extra, &["options"]);
        let filled: &[&str] = if operation == Operation::Embed { &["keep_alive", "truncate"] } else { &["keep_alive"] };
        self.defaults(&mut top, filled);
        self.end_user(request)?;
        top.close(&mut self.out);
        Ok(())
    }

    /// The member `options`: the request's sampling, the client's own options, then the settings'.
    fn options(&mut self, top: &mut Object, request: Option<&Request>, extra: &Members<'_>) -> Result<(), Error> {
        let mut out = Vec::new();
        let mut options = Object::open(&mut out);
        if let Some(request) = request {
            self.sampling(&mut out, &mut options, request)?;
        }
        options.splice(&mut out, &extra.nested("options"), &[]);
        if let Some(defaults) = &self.settings.options {
            options.splice(&mut out, defaults, &[]);
        }
        let empty = options.is_empty();
        options.close(&mut out);
        // An empty object that the client wrote stands as it was written.
        if !empty || extra.get("options").is_some() {
            top.raw(&mut self.out, "options", &utf8(out));
        }
        Ok(())
    }

    fn sampling(&mut self, out: &mut Vec<u8>, options: &mut Object, request: &Request) -> Result<(), Error> {
        let sampling = &request.sampling;
        for (name, param, value) in [
            ("temperature", "temperature", sampling.temperature),
            ("top_p", "top_p", sampling.top_p),
            ("min_p", "min_p", sampling.min_p),
            ("frequency_penalty", "frequency_penalty", sampling.frequency_penalty),
            ("presence_penalty", "presence_penalty", sampling.presence_penalty),
            ("repeat_penalty", "repetition_penalty", sampling.repetition_penalty),
        ] {
            let Some(value) = value else { continue };
            if !value.is_finite() {
                return Err(Error::invalid(param, "must be a finite number"));
            }
            options.name(out, name);
            json::float(out, value);
        }
        let tokens = sampling.max_completion_tokens.or(sampling.max_tokens);
        for (name, value) in [
            ("top_k", sampling.top_k.map(i128::from)),
            ("seed", sampling.seed.map(i128::from)),
            ("num_predict", tokens.map(i128::from)),
        ] {
            if let Some(value) = value {
                options.integer(out, name, value);
            }
        }
        if !sampling.stop.is_empty() {
            options.name(out, "stop");
            std::mem::swap(out, &mut self.out);
            self.strings(sampling.stop.iter().map(String::as_str));
            std::mem::swap(out, &mut self.out);
        }
        if sampling.n.is_some_and(|count| count > 1) {
            self.refuse("n", "Ollama makes one answer for each request: send several requests")?;
        }
        if sampling.logit_bias.as_deref().is_some_and(|bias| bias.trim() != "{}") {
            self.refuse("logit_bias", "Ollama cannot bias single tokens")?;
        }
        Ok(())
    }

    fn response_format(&mut self, top: &mut Object, format: Option<&ResponseFormat>) -> Result<(), Error> {
        match format {
            None | Some(ResponseFormat::Text) => {}
            Some(ResponseFormat::JsonObject) => top.raw(&mut self.out, "format", "\"json\""),
            Some(ResponseFormat::JsonSchema(schema)) => {
                if schema.description.is_some() {
                    let message = "Ollama takes a schema without a description: write it into the schema";
                    self.refuse("response_format.json_schema.description", message)?;
                }
                top.raw(&mut self.out, "format", &schema.schema);
            }
            Some(ResponseFormat::Other(json)) if self.native => top.raw(&mut self.out, "format", json),
            Some(ResponseFormat::Other(_)) => {
                self.refuse("response_format", "Ollama knows the formats text, JSON and a JSON Schema")?;
            }
        }
        Ok(())
    }

    /// The member `think`.
    fn think(&mut self, top: &mut Object, reasoning: &Reasoning) -> Result<(), Error> {
        self.no_extra(reasoning.extra.as_deref(), &|| "reasoning".to_owned())?;
        let value = match (reasoning.enabled, reasoning.effort.as_deref()) {
            (Some(false), _) => Some("false"),
            (_, Some(effort)) if self.native => {
                top.string(&mut self.out, "think", effort);
                None
            }
            (_, Some("none")) => Some("false"),
            (_, Some("minimal" | "low")) => Some("\"low\""),
            (_, Some("medium")) => Some("\"medium\""),
            (_, Some("high")) => Some("\"high\""),
            (_, Some("xhigh" | "max")) => Some("\"max\""),
            (enabled, Some(effort)) => {
                let message = format!("Ollama has no effort `{effort}`: it knows none, low, medium, high and max");
                self.refuse("reasoning.effort", message)?;
                enabled.map(|_| "true")
            }
            (Some(true), None) => Some("true"),
            (None, None) => None,
        };
        if let Some(value) = value {
            top.raw(&mut self.out, "think", value);
        }
        if reasoning.budget_tokens.is_some() {
            let message = "Ollama bounds reasoning by an effort (low, medium, high, max), not by a number of tokens";
            self.refuse("reasoning.budget_tokens", message)?;
        }
        if reasoning.summary.is_some() {
            self.refuse("reasoning.summary", "Ollama returns the reasoning itself, and no summary of it")?;
        }
        Ok(())
    }

    fn tools(&mut self, top: &mut Object, request: &Request) -> Result<(), Error> {
        match &request.tool_choice {
            None | Some(ToolChoice::Auto) => {}
            // Ollama calls what tools there are: none may be there.
            Some(ToolChoice::None) => return Ok(()),
            Some(ToolChoice::Required | ToolChoice::Tool(_) | ToolChoice::Other(_)) => {
                let message = "Ollama cannot be made to call a tool: `auto` and `none` are possible";
                self.refuse("tool_choice", message)?;
            }
        }
        if request.parallel_tool_calls == Some(false) {
            self.refuse("parallel_tool_calls", "Ollama cannot be kept from calling several tools at once")?;
        }
        if request.tools.is_empty() {
            return Ok(());
        }
        top.name(&mut self.out, "tools");
        self.out.push(b'[');
        let start = self.out.len();
        for (at, tool) in request.tools.iter().enumerate() {
            match tool {
                Tool::Function(function) => {
                    self.separate(start);
                    self.tool(at, function)?;
                }
                Tool::Other(json) if self.native => {
                    self.separate(start);
                    self.out.extend_from_slice(json.as_bytes());
                }
                Tool::Other(_) => {
                    self.refuse(format!("tools[{at}]"), "Ollama knows only functions, which the client runs")?;
                }
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn tool(&mut self, at: usize, tool: &FunctionTool) -> Result<(), Error> {
        let extra = self.extra(tool.extra.as_deref(), &|| format!("tools[{at}]"))?;
        let mut object = Object::open(&mut self.out);
        object.raw(&mut self.out, "type", "\"function\"");
        object.name(&mut self.out, "function");
        let mut function = Object::open(&mut self.out);
        function.string(&mut self.out, "name", &tool.name);
        if let Some(description) = &tool.description {
            function.string(&mut self.out, "description", description);
        }
        match &tool.parameters {
            Some(parameters) => function.raw(&mut self.out, "parameters", parameters),
            None if self.native => {}
            None => function.raw(&mut self.out, "parameters", r#"{"type":"object","properties":{}}"#),
        }
        match tool.strict {
            Some(strict) if self.native => function.bool(&mut self.out, "strict", strict),
            Some(true) => {
                let message = "Ollama cannot hold the model to the schema of a tool";
                self.refuse(format!("tools[{at}].function.strict"), message)?;
            }
            _ => {}
        }
        function.splice(&mut self.out, &extra.nested("function"), &[]);
        function.close(&mut self.out);
        object.splice(&mut self.out, &extra, &["function"]);
        object.close(&mut self.out);
        Ok(())
    }

    /// One message of the contract: one of this API for each tool's result, and one for everything else.
    fn message(&mut self, at: usize, message: &'a Message, start: usize) -> Result<(), Error> {
        let mut extra = self.extra(message.extra.as_deref(), &|| format!("messages[{at}]"))?;
        let mut said = Said::default();
        let (mut results, mut calls) = (0_usize, 0_usize);
        for (part, content) in message.parts.iter().enumerate() {
            let at = At { message: at, part };
            match content {
                Part::Text(text) | Part::Refusal(text) => said.texts.push(self.text(text, at)?),
                Part::Media(media) => said.images.extend(self.image(media, &|| at.path())?),
                Part::Reasoning(reasoning) => self.thought(&mut said, &message.role, reasoning, at)?,
                Part::ToolCall(_) => calls += 1,
                Part::ToolResult(_) => results += 1,
                Part::Other(_) => {
                    self.refuse(at.path(), "Ollama's API has no counterpart of this part of the client's API")?;
                }
            }
        }
        if results > 0 {
            let mut thoughts = if self.native { std::mem::take(&mut said.thoughts) } else { Vec::new() };
            for (part, content) in message.parts.iter().enumerate() {
                if let Part::ToolResult(result) = content {
                    self.separate(start);
                    let own = (std::mem::take(&mut thoughts), std::mem::take(&mut extra));
                    self.tool_result(At { message: at, part }, message, result, own)?;
                }
            }
            let rest = [&said.texts, &said.thoughts, &said.images];
            if calls == 0 && rest.iter().all(|rest| rest.is_empty()) {
                return Ok(());
            }
        }
        self.separate(start);
        let mut object = Object::open(&mut self.out);
        let role = match &message.role {
            Role::System => "system",
            Role::Developer if self.native => "developer",
            Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            // What stands beside results is the user's.
            Role::Tool if results > 0 => "user",
            Role::Tool => "tool",
            Role::Other(role) => {
                if !self.native {
                    let message = format!("Ollama has no role `{role}`: it knows system, user, assistant and tool");
                    return Err(Error::unsupported(format!("messages[{at}].role"), message));
                }
                role
            }
        };
        object.string(&mut self.out, "role", role);
        self.said(&mut object, &said, !self.native);
        if calls > 0 {
            self.tool_calls(&mut object, at, message)?;
        }
        if let Some(name) = message.name.as_deref().filter(|_| results == 0) {
            if message.role == Role::Tool {
                object.string(&mut self.out, "tool_name", name);
            } else {
                self.refuse(format!("messages[{at}].name"), "Ollama has no names of speakers")?;
            }
        }
        object.splice(&mut self.out, &extra, &[]);
        object.close(&mut self.out);
        Ok(())
    }

    fn text(&mut self, part: &'a TextPart, at: At) -> Result<&'a str, Error> {
        self.no_extra(part.extra.as_deref(), &|| at.path())?;
        Ok(&part.text)
    }

    fn thought(&mut self, said: &mut Said<'a>, role: &Role, part: &'a ReasoningPart, at: At) -> Result<(), Error> {
        if part.redacted.is_some() {
            self.refuse(at.path(), "encrypted reasoning can only go back to the backend that made it")?;
        }
        if *role != Role::Assistant && !self.native {
            return self.refuse(at.path(), "only a message of the assistant can hold reasoning");
        }
        self.no_extra(part.extra.as_deref(), &|| at.path())?;
        if !part.text.is_empty() {
            said.thoughts.push(&part.text);
        }
        Ok(())
    }

    /// The data of an image; nothing where it cannot be sent.
    fn image(&mut self, media: &'a MediaPart, path: &dyn Fn() -> String) -> Result<Option<&'a str>, Error> {
        self.no_extra(media.extra.as_deref(), path)?;
        if media.kind != MediaKind::Image {
            self.refuse(path(), "Ollama takes texts and images, and no other media")?;
            return Ok(None);
        }
        let MediaSource::Base64(data) = &media.source else {
            self.refuse(path(), "Ollama takes images only as their data in base64, and fetches no URLs or files")?;
            return Ok(None);
        };
        if let Some(detail) = media.detail.as_deref().filter(|detail| *detail != "auto") {
            let message = format!("Ollama cannot be told how closely to look (`{detail}`)");
            self.refuse(format!("{}.image_url.detail", path()), message)?;
        }
        Ok(Some(data))
    }

    /// Content, reasoning and images. `always` writes content that is not there as an empty text.
    fn said(&mut self, object: &mut Object, said: &Said<'_>, always: bool) {
        if always || !said.texts.is_empty() {
            object.name(&mut self.out, "content");
            self.joined(&said.texts);
        }
        if !said.thoughts.is_empty() {
            object.name(&mut self.out, "thinking");
            self.joined(&said.thoughts);
        }
        if !said.images.is_empty() {
            object.name(&mut self.out, "images");
            self.strings(said.images.iter().copied());
        }
    }

    fn tool_calls(&mut self, object: &mut Object, at: usize, message: &'a Message) -> Result<(), Error> {
        let mut place = 0_u32;
        let mut start = 0;
        for (part, content) in message.parts.iter().enumerate() {
            let Part::ToolCall(call) = content else { continue };
            let at = At { message: at, part };
            if message.role != Role::Assistant && !self.native {
                self.refuse(at.path(), "only a message of the assistant can call a tool")?;
                continue;
            }
            if place == 0 {
                object.name(&mut self.out, "tool_calls");
                self.out.push(b'[');
                start = self.out.len();
            }
            self.separate(start);
            self.tool_call(at, call, place)?;
            place += 1;
        }
        if place > 0 {
            self.out.push(b']');
        }
        Ok(())
    }

    fn tool_call(&mut self, at: At, call: &'a ToolCall, place: u32) -> Result<(), Error> {
        let extra = self.extra(call.extra.as_deref(), &|| at.path())?;
        let arguments = match call.arguments.trim() {
            "" => "{}",
            arguments => arguments,
        };
        if !arguments.starts_with('{') || serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_err() {
            let message = format!("the arguments of the call `{}` must be a JSON object", call.name);
            return Err(Error::invalid(format!("{}.arguments", at.path()), message));
        }
        let mut object = Object::open(&mut self.out);
        if !call.id.starts_with(UNNAMED) {
            object.string(&mut self.out, "id", &call.id);
        }
        self.calls.add(call);
        object.name(&mut self.out, "function");
        let mut function = Object::open(&mut self.out);
        let members = extra.nested("function");
        if self.native && call.extra.is_some() && extra.0.is_empty() {
            function.integer(&mut self.out, "index", place);
        }
        function.string(&mut self.out, "name", &call.name);
        function.raw(&mut self.out, "arguments", arguments);
        function.splice(&mut self.out, &members, &[]);
        function.close(&mut self.out);
        object.splice(&mut self.out, &extra, &["function"]);
        object.close(&mut self.out);
        Ok(())
    }

    /// A message of the role `tool`, with the members that only the first of its message has.
    fn tool_result(
        &mut self,
        at: At,
        message: &'a Message,
        result: &'a ToolResult,
        (thoughts, message_extra): (Vec<&'a str>, Members<'_>),
    ) -> Result<(), Error> {
        let extra = self.extra(result.extra.as_deref(), &|| at.path())?;
        let mut said = Said { thoughts, ..Said::default() };
        for piece in &result.content {
            match piece {
                ResultContent::Text(text) => said.texts.push(self.text(text, at)?),
                ResultContent::Media(media) => said.images.extend(self.image(media, &|| at.path())?),
                ResultContent::Other(_) => {
                    self.refuse(at.path(), "Ollama's API has no counterpart of this piece of a tool's result")?;
                }
            }
        }
        let mut object = Object::open(&mut self.out);
        object.raw(&mut self.out, "role", "\"tool\"");
        if result.is_error == Some(true) {
            object.name(&mut self.out, "content");
            let says_so = said.texts.first().and_then(|text| text.get(..5));
            self.out.push(b'"');
            if !says_so.is_some_and(|start| start.eq_ignore_ascii_case("error")) {
                self.out.extend_from_slice(b"Error: ");
            }
            let texts = std::mem::take(&mut said.texts);
            for (at, text) in texts.iter().enumerate() {
                self.out.extend_from_slice(if at > 0 { b"\\n" } else { b"" });
                json::escape(&mut self.out, text);
            }
            if texts.is_empty() {
                self.out.extend_from_slice(b"the tool failed");
            }
            self.out.push(b'"');
            self.said(&mut object, &said, false);
        } else {
            self.said(&mut object, &said, !self.native);
        }
        let known = self.calls.names.get(result.call_id.as_str()).copied();
        let name = if self.native { message.name.as_deref() } else { known.or(message.name.as_deref()) };
        if let Some(name) = name {
            object.string(&mut self.out, "tool_name", name);
        }
        if !result.call_id.starts_with(UNNAMED) && (!self.native || result.extra.is_some()) {
            object.string(&mut self.out, "tool_call_id", &result.call_id);
        }
        self.calls.seen(&result.call_id);
        object.splice(&mut self.out, &extra, &[]);
        object.splice(&mut self.out, &message_extra, &[]);
        object.close(&mut self.out);
        Ok(())
    }
}
