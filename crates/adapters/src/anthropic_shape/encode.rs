//! Normalised request to the body of the Messages API. The rules are in the module's page.

use std::collections::BTreeSet;

use serde::de::IgnoredAny;
use witgate_model::{
    CacheMark, Error, Field, FunctionTool, Input, Message, Part, Reasoning, ReasoningPart, Request, ResponseFormat,
    ResultContent, Role, TextPart, Tool, ToolCall, ToolChoice, ToolResult,
};

use super::format::{AnswerTool, answer_tool};
use super::settings::{Settings, is_token};
use super::thinking::{self, SMALLEST_BUDGET};
use super::write::{Object, separate};
use super::{Context, Flavour, MESSAGES, Operation};
use crate::names::{Mapping, Names};
use crate::openai_shape::json::{self, Members, complaint};
use crate::openai_shape::size_hint;

/// Most prompt-cache marks in one request.
const MOST_MARKS: usize = 4;

/// Most paths in `http-request.dropped`.
const MOST_DROPPED: usize = 64;

/// Largest `context` that the contract allows, in bytes.
const LARGEST_CONTEXT: usize = 64 * 1024;

/// A request as the Messages API takes it.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The JSON body.
    pub(crate) body: Vec<u8>,
    /// What belongs into the headers, beside the content's type: the API's version and beta features. Empty for Bedrock.
    pub(crate) headers: Vec<Field>,
    /// For the decoder.
    pub(crate) context: Option<String>,
    /// What was left out.
    pub(crate) dropped: Vec<String>,
}

/// The body that asks for `request`, which is a conversation: to be answered, or to be counted.
pub(crate) fn body(flavour: Flavour, settings: &Settings, request: &Request) -> Result<Encoded, Error> {
    let (Input::Chat(messages) | Input::CountTokens(messages)) = &request.input else {
        return Err(Error::no_operation(flavour.backend(), &request.input));
    };
    let mut encoder = Encoder::new(flavour, settings, request, messages);
    let betas = encoder.request(request, messages)?;
    let context = encoder.context(&request.input)?;
    let headers = match flavour {
        Flavour::Anthropic => headers(settings, &betas),
        Flavour::Bedrock => Vec::new(),
    };
    Ok(Encoded { body: encoder.out, headers, context, dropped: encoder.dropped })
}

/// The headers of the API's version and beta features, and those of the settings.
pub(crate) fn headers(settings: &Settings, betas: &[String]) -> Vec<Field> {
    let mut headers = vec![("anthropic-version".to_owned(), settings.version.clone())];
    if !betas.is_empty() {
        headers.push(("anthropic-beta".to_owned(), betas.join(",")));
    }
    headers.extend(settings.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    headers
}

/// Where in the client's request something stands.
#[derive(Clone, Copy)]
pub(super) struct At {
    message: usize,
    part: Option<usize>,
    piece: Option<usize>,
    /// In this API's own dialect the first message is its member `system`.
    system_first: bool,
}

impl At {
    fn part(self, part: usize) -> Self {
        At { part: Some(part), ..self }
    }

    fn piece(self, piece: usize) -> Self {
        At { piece: Some(piece), ..self }
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.system_first, self.message.checked_sub(1)) {
            (true, None) => {
                f.write_str("system")?;
                return self.part.map_or(Ok(()), |part| write!(f, "[{part}]"));
            }
            (true, Some(message)) => write!(f, "messages[{message}]")?,
            (false, _) => write!(f, "messages[{}]", self.message)?,
        }
        if let Some(part) = self.part {
            write!(f, ".content[{part}]")?;
        }
        self.piece.map_or(Ok(()), |piece| write!(f, ".content[{piece}]"))
    }
}

/// What is to be said of thinking, and of the bound on the answer.
#[derive(Default)]
struct Plan<'a> {
    thinking: Option<Thought>,
    effort: Option<&'a str>,
    /// The answer's bound where the client gave none: room for the thinking comes on top.
    room: u64,
    /// The tool that carries the answer.
    answer: Option<AnswerTool<'a>>,
}

/// The member `thinking`, for clients of other dialects.
enum Thought {
    Disabled,
    Adaptive { display: Option<&'static str> },
    Budget(u64),
}

pub(super) struct Encoder<'a> {
    pub(super) out: Vec<u8>,
    pub(super) flavour: Flavour,
    settings: &'a Settings,
    /// The client speaks this API: what it sent arrives as it was sent, and the backend judges it.
    pub(super) native: bool,
    system_first: bool,
    names: Mapping,
    marks: usize,
    dropped: Vec<String>,
    answer: Option<String>,
}

impl<'a> Encoder<'a> {
    /// Knows every tool name and id of the request before the first is mapped.
    fn new(flavour: Flavour, settings: &'a Settings, request: &Request, messages: &[Message]) -> Self {
        let native = request.dialect == MESSAGES;
        // Ids of calls have the alphabet of names here.
        let names = match native {
            true => Mapping::none(),
            false => Mapping::new(Names::tools(), Names::tools(), request, messages),
        };
        Encoder {
            out: Vec::with_capacity(size_hint(request)),
            flavour,
            settings,
            native,
            system_first: native && messages.first().is_some_and(|message| message.role == Role::System),
            names,
            marks: 0,
            dropped: Vec::new(),
            answer: None,
        }
    }

    fn at(&self, message: usize) -> At {
        At { message, part: None, piece: None, system_first: self.system_first }
    }

    /// Refuses, unless the settings say to leave such things out.
    pub(super) fn refuse(&mut self, param: impl Into<String>, message: impl Into<String>) -> Result<(), Error> {
        if !self.settings.drop_unsupported {
            return Err(Error::unsupported(param, message));
        }
        let param = param.into();
        if self.dropped.len() < MOST_DROPPED && !self.dropped.contains(&param) {
            self.dropped.push(param);
        }
        Ok(())
    }

    /// The unnamed members of the record at `at`: all of them in this API's dialect, none of another's.
    pub(super) fn extra<'e>(
        &mut self,
        extra: Option<&'e str>,
        at: &dyn std::fmt::Display,
    ) -> Result<Members<'e>, Error> {
        let Some(extra) = extra.filter(|extra| *extra != "{}") else { return Ok(Members::default()) };
        let members = Members::parse(Some(extra)).map_err(|error| {
            let message = format!("the unknown members here are not a JSON object: {}", complaint(&error));
            Error::invalid(at.to_string(), message)
        })?;
        if self.native {
            return Ok(members);
        }
        let at = at.to_string();
        let backend = self.flavour.backend();
        for (name, _) in &members.0 {
            // Usage always comes.
            if at.is_empty() && name == "stream_options" {
                continue;
            }
            let param = if at.is_empty() { name.to_string() } else { format!("{at}.{name}") };
            self.refuse(param, format!("{backend} has nothing like `{name}` as the client's API means it"))?;
        }
        Ok(Members::default())
    }

    /// True where JSON that only the client's dialect understands can be passed on.
    pub(super) fn passes(&mut self, json: &str, at: &dyn std::fmt::Display) -> Result<bool, Error> {
        if !self.native {
            let message = format!("{} has nothing like this", self.flavour.backend());
            self.refuse(at.to_string(), message)?;
            return Ok(false);
        }
        check_json(json, at)?;
        Ok(true)
    }

    /// The whole body. Gives the beta features that are asked for.
    fn request(&mut self, request: &'a Request, messages: &'a [Message]) -> Result<Vec<String>, Error> {
        let count = matches!(request.input, Input::CountTokens(_)) && self.flavour == Flavour::Anthropic;
        let mut extra = self.extra(request.extra.as_deref(), &"")?;
        let betas = self.betas(&mut extra)?;
        let mut plan = self.plan(request)?;
        if !self.native {
            let thinks = matches!(plan.thinking, Some(Thought::Adaptive { .. } | Thought::Budget(_)));
            plan.answer = answer_tool(self.flavour, self.settings, request, thinks)?;
            if thinks && plan.answer.is_some() {
                let message = format!(
                    "`{}` can't think where an answer in JSON is wanted, which is had by a tool that it must call",
                    request.model
                );
                let effort = request.reasoning.as_ref().is_some_and(|reasoning| reasoning.effort.is_some());
                self.refuse(if effort { "reasoning_effort" } else { "reasoning" }, message)?;
                plan = Plan { answer: plan.answer, ..Plan::default() };
            }
        }

        let mut top = Object::open(&mut self.out);
        match self.flavour {
            Flavour::Anthropic => top.string(&mut self.out, "model", &request.model),
            Flavour::Bedrock => {
                top.raw(&mut self.out, "anthropic_version", "\"bedrock-2023-05-31\"");
                if !betas.is_empty() {
                    top.strings(&mut self.out, "anthropic_beta", betas.iter().map(String::as_str));
                }
                extra.0.retain(|(name, _)| !matches!(&**name, "model" | "stream"));
            }
        }
        if !count {
            let sampling = &request.sampling;
            let bound = sampling.max_completion_tokens.or(sampling.max_tokens);
            let default = || self.settings.default_max_tokens.saturating_add(plan.room);
            top.integer(&mut self.out, "max_tokens", bound.unwrap_or_else(default));
        }
        if self.native {
            self.native_messages(&mut top, messages)?;
        } else {
            self.system(&mut top, messages)?;
            self.turns(&mut top, messages)?;
        }
        self.offer(&mut top, request, messages, &plan, &extra)?;
        self.thought(&mut top, request, &plan, &extra)?;
        self.output_config(&mut top, request, &plan, &extra)?;
        if !count {
            if let Some(user) = &request.end_user {
                top.name(&mut self.out, "metadata");
                let mut metadata = Object::open(&mut self.out);
                metadata.string(&mut self.out, "user_id", user);
                metadata.splice(&mut self.out, &extra.nested("metadata"));
                metadata.close(&mut self.out);
            }
            self.sampling(&mut top, request)?;
            if request.stream && self.flavour == Flavour::Anthropic {
                top.bool(&mut self.out, "stream", true);
            }
        }
        top.splice(&mut self.out, &extra);
        top.close(&mut self.out);
        Ok(betas)
    }

    /// The beta features of the settings, and those of the client: `anthropic_beta`, which is Bedrock's member of the
    /// body, stands for the header `anthropic-beta` as well.
    fn betas(&self, extra: &mut Members<'_>) -> Result<Vec<String>, Error> {
        let mut betas = self.settings.betas.clone();
        if let Some(asked) = extra.get("anthropic_beta") {
            let message =
                "anthropic_beta is a list of at most 64 names of beta features: letters, digits, `-`, `_`, `.`";
            let asked: Vec<String> = serde_json::from_str::<Option<Vec<String>>>(asked)
                .ok()
                .map(Option::unwrap_or_default)
                .filter(|asked| asked.len() <= 64 && asked.iter().all(|beta| is_token(beta)))
                .ok_or_else(|| Error::invalid("anthropic_beta", message))?;
            for beta in asked {
                if !betas.contains(&beta) {
                    betas.push(beta);
                }
            }
            extra.0.retain(|(name, _)| name != "anthropic_beta");
        }
        Ok(betas)
    }

    /// The conversation as this API's own client sent it.
    fn native_messages(&mut self, top: &mut Object, messages: &[Message]) -> Result<(), Error> {
        let mut rest = messages;
        if let (true, Some((system, others))) = (self.system_first, messages.split_first()) {
            let at = self.at(0);
            if !self.extra(system.extra.as_deref(), &at)?.0.is_empty() {
                return Err(Error::invalid(at.to_string(), "the system prompt has nothing but blocks"));
            }
            top.name(&mut self.out, "system");
            self.native_content(system, at)?;
            rest = others;
        }
        let skipped = messages.len() - rest.len();
        top.name(&mut self.out, "messages");
        self.out.push(b'[');
        let start = self.out.len();
        for (number, message) in rest.iter().enumerate() {
            let at = self.at(number + skipped);
            let extra = self.extra(message.extra.as_deref(), &at)?;
            separate(&mut self.out, start);
            let mut object = Object::open(&mut self.out);
            let role = match &message.role {
                Role::System | Role::Developer => "system",
                Role::User | Role::Tool => "user",
                Role::Assistant => "assistant",
                Role::Other(role) => role,
            };
            object.string(&mut self.out, "role", role);
            if let Some(name) = &message.name {
                object.string(&mut self.out, "name", name);
            }
            if !(message.parts.is_empty() && extra.get("content").is_some()) {
                object.name(&mut self.out, "content");
                self.native_content(message, at)?;
            }
            object.splice(&mut self.out, &extra);
            object.close(&mut self.out);
        }
        self.out.push(b']');
        Ok(())
    }

    /// A string where the client wrote one, else a list of blocks.
    fn native_content(&mut self, message: &Message, at: At) -> Result<(), Error> {
        if let [Part::Text(TextPart { text, cache: None, extra: None })] = message.parts.as_slice() {
            json::string(&mut self.out, text);
            return Ok(());
        }
        self.out.push(b'[');
        let start = self.out.len();
        for (number, part) in message.parts.iter().enumerate() {
            self.block(part, at.part(number), start, part_cache(part))?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// Instructions of all roles that give some, from wherever they stand.
    fn system(&mut self, top: &mut Object, messages: &'a [Message]) -> Result<(), Error> {
        let mut texts: Vec<(At, &TextPart, Option<&CacheMark>)> = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            if !matches!(message.role, Role::System | Role::Developer) {
                continue;
            }
            let at = self.at(number);
            self.beside_content(message, at)?;
            for (number, part) in message.parts.iter().enumerate() {
                let at = at.part(number);
                match part {
                    Part::Text(text) if !text.text.is_empty() => texts.push((at, text, text.cache.as_ref())),
                    Part::Text(text) => {
                        self.extra(text.extra.as_deref(), &at)?;
                        // A mark behind nothing stands behind what comes before it.
                        if let Some((_, _, cache)) = texts.last_mut() {
                            *cache = cache.or(text.cache.as_ref());
                        }
                    }
                    Part::Other(json) => drop(self.passes(json, &at)?),
                    _ => {
                        let message = format!("{}'s system prompt is text alone", self.flavour.backend());
                        self.refuse(at.to_string(), message)?;
                    }
                }
            }
        }
        match texts.as_slice() {
            [] => {}
            [(at, text, None)] => {
                self.extra(text.extra.as_deref(), at)?;
                top.string(&mut self.out, "system", &text.text);
            }
            texts => {
                top.name(&mut self.out, "system");
                self.out.push(b'[');
                let start = self.out.len();
                for (at, text, cache) in texts {
                    self.text(text, *at, start, *cache)?;
                }
                self.out.push(b']');
            }
        }
        Ok(())
    }

    /// What stands beside a message's content has no place here; the name of a tool's message is redundant.
    fn beside_content(&mut self, message: &Message, at: At) -> Result<(), Error> {
        if message.name.is_some() && message.role != Role::Tool {
            let text = format!("{} has no names of speakers", self.flavour.backend());
            self.refuse(format!("{at}.name"), text)?;
        }
        self.extra(message.extra.as_deref(), &at).map(drop)
    }

    /// The turns of another dialect's conversation: the user's first, one for each run of messages of one side.
    fn turns(&mut self, top: &mut Object, messages: &'a [Message]) -> Result<(), Error> {
        let backend = self.flavour.backend();
        let mut turns: Vec<(bool, Vec<(At, &'a Message)>)> = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            let at = self.at(number);
            let user = match &message.role {
                Role::System | Role::Developer => continue,
                Role::User | Role::Tool => true,
                Role::Assistant => false,
                Role::Other(role) => {
                    let text = format!("{backend} knows the roles system, user and assistant, not `{role}`");
                    return Err(Error::unsupported(format!("{at}.role"), text));
                }
            };
            self.beside_content(message, at)?;
            if message.parts.iter().all(is_empty_text) {
                if user {
                    let text = format!("the message is empty, and {backend} refuses empty text");
                    return Err(Error::invalid(format!("{at}.content"), text));
                }
                continue;
            }
            match turns.last_mut() {
                Some((side, turn)) if *side == user => turn.push((at, message)),
                _ => turns.push((user, vec![(at, message)])),
            }
        }
        if let Some((false, turn)) = turns.first()
            && let Some((at, _)) = turn.first()
        {
            let (param, text) =
                (format!("{at}.role"), format!("{backend} wants the user's turn in front of the assistant's"));
            if turn.iter().any(|(_, message)| message.parts.iter().any(|part| matches!(part, Part::ToolCall(_)))) {
                return Err(Error::unsupported(param, text));
            }
            self.refuse(param, text)?;
            turns.remove(0);
        }
        if turns.is_empty() {
            return Err(Error::invalid("messages", format!("{backend} wants at least one message of the user")));
        }
        top.name(&mut self.out, "messages");
        self.out.push(b'[');
        let start = self.out.len();
        for (user, turn) in &turns {
            self.turn(*user, turn, start)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// One turn as an element of the list that began at `start`; results of tools come first.
    fn turn(&mut self, user: bool, turn: &[(At, &Message)], start: usize) -> Result<(), Error> {
        let before = self.out.len();
        separate(&mut self.out, start);
        let mut object = Object::open(&mut self.out);
        object.raw(&mut self.out, "role", if user { "\"user\"" } else { "\"assistant\"" });
        object.name(&mut self.out, "content");
        if let [(at, message)] = turn
            && let [Part::Text(text)] = message.parts.as_slice()
            && text.cache.is_none()
        {
            self.extra(text.extra.as_deref(), &at.part(0))?;
            json::string(&mut self.out, &text.text);
            object.close(&mut self.out);
            return Ok(());
        }
        self.out.push(b'[');
        let blocks = self.out.len();
        for results in [true, false] {
            for (at, message) in turn {
                for (number, part) in message.parts.iter().enumerate() {
                    if matches!(part, Part::ToolResult(_)) == results && !is_empty_text(part) {
                        let at = at.part(number);
                        if self.belongs(user, part, at)? {
                            // A mark behind empty text stands behind what comes before it.
                            let behind = message.parts.iter().skip(number + 1).take_while(|part| is_empty_text(part));
                            let cache = part_cache(part).or_else(|| behind.filter_map(part_cache).next());
                            self.block(part, at, blocks, cache)?;
                        }
                    }
                }
            }
        }
        if self.out.len() == blocks {
            // All of it was left out.
            if user && let Some((at, _)) = turn.first() {
                let message = "nothing is left of the message after what the backend cannot do was left out";
                return Err(Error::invalid(format!("{at}.content"), message));
            }
            self.out.truncate(before);
            return Ok(());
        }
        self.out.push(b']');
        object.close(&mut self.out);
        Ok(())
    }

    /// True where a part may stand in a turn of this side.
    fn belongs(&mut self, user: bool, part: &Part, at: At) -> Result<bool, Error> {
        let wrong = match (user, part) {
            (true, Part::Reasoning(_)) => "reasoning belongs to turns of the assistant",
            (true, Part::ToolCall(_)) => "tool calls belong to turns of the assistant",
            (false, Part::ToolResult(_)) => "results of tools belong to turns of the user",
            (false, Part::Media(_)) => {
                let message = format!("{} takes media in the user's turns only", self.flavour.backend());
                return self.refuse(at.to_string(), message).map(|()| false);
            }
            _ => return Ok(true),
        };
        Err(Error::invalid(at.to_string(), wrong))
    }

    /// One part as an element of the list of blocks that began at `start`.
    fn block(&mut self, part: &Part, at: At, start: usize, cache: Option<&CacheMark>) -> Result<(), Error> {
        match part {
            // The API has no refusals: what the assistant said when it declined is what it said.
            Part::Text(text) | Part::Refusal(text) => self.text(text, at, start, cache),
            Part::Media(media) => self.media(media, at, start, cache),
            Part::Reasoning(reasoning) => self.reasoning(reasoning, at, start),
            Part::ToolCall(call) => self.tool_call(call, at, start, cache),
            Part::ToolResult(result) => self.tool_result(result, at, start, cache),
            Part::Other(json) => self.other(json, at, start),
        }
    }

    /// An object that only this API's dialect knows.
    fn other(&mut self, json: &str, at: At, start: usize) -> Result<(), Error> {
        if self.passes(json, &at)? {
            separate(&mut self.out, start);
            self.out.extend_from_slice(json.as_bytes());
        }
        Ok(())
    }

    fn text(&mut self, text: &TextPart, at: At, start: usize, cache: Option<&CacheMark>) -> Result<(), Error> {
        let extra = self.extra(text.extra.as_deref(), &at)?;
        separate(&mut self.out, start);
        let mut object = Object::of_type(&mut self.out, "text");
        object.string(&mut self.out, "text", &text.text);
        self.finish(object, &extra, cache, at)
    }

    /// Writes what every block may end with: the prompt-cache mark, unknown members.
    pub(super) fn finish(
        &mut self,
        mut object: Object,
        extra: &Members<'_>,
        cache: Option<&CacheMark>,
        at: impl std::fmt::Display,
    ) -> Result<(), Error> {
        if let Some(cache) = cache {
            self.cache(&mut object, cache, &at)?;
        }
        object.splice(&mut self.out, extra);
        object.close(&mut self.out);
        Ok(())
    }

    fn cache(&mut self, object: &mut Object, cache: &CacheMark, at: &dyn std::fmt::Display) -> Result<(), Error> {
        self.marks += 1;
        if self.marks > MOST_MARKS && !self.native {
            let message = format!("{} takes at most {MOST_MARKS} prompt-cache marks", self.flavour.backend());
            return self.refuse(format!("{at}.cache_control"), message);
        }
        if let Some(ttl) = &cache.ttl
            && !self.native
            && !matches!(ttl.as_str(), "5m" | "1h")
        {
            let message = format!("{} caches prompts for `5m` or `1h`, not for `{ttl}`", self.flavour.backend());
            return Err(Error::invalid(format!("{at}.cache_control.ttl"), message));
        }
        object.name(&mut self.out, "cache_control");
        let mut mark = Object::of_type(&mut self.out, "ephemeral");
        if let Some(ttl) = &cache.ttl {
            mark.string(&mut self.out, "ttl", ttl);
        }
        mark.close(&mut self.out);
        Ok(())
    }

    fn reasoning(&mut self, part: &ReasoningPart, at: At, start: usize) -> Result<(), Error> {
        let extra = self.extra(part.extra.as_deref(), &at)?;
        if part.redacted.is_none() || part.signature.is_some() || !part.text.is_empty() {
            if part.signature.is_none() && !self.native {
                let message = format!(
                    "{} takes its own reasoning back only: this has no signature that proves it",
                    self.flavour.backend()
                );
                self.refuse(at.to_string(), message)?;
            } else {
                separate(&mut self.out, start);
                let mut object = Object::of_type(&mut self.out, "thinking");
                object.string(&mut self.out, "thinking", &part.text);
                if let Some(signature) = &part.signature {
                    object.string(&mut self.out, "signature", signature);
                }
                object.splice(&mut self.out, &extra);
                object.close(&mut self.out);
            }
        }
        if let Some(redacted) = &part.redacted {
            separate(&mut self.out, start);
            let mut object = Object::of_type(&mut self.out, "redacted_thinking");
            object.string(&mut self.out, "data", redacted);
            object.splice(&mut self.out, &extra);
            object.close(&mut self.out);
        }
        Ok(())
    }

    fn tool_call(&mut self, call: &ToolCall, at: At, start: usize, cache: Option<&CacheMark>) -> Result<(), Error> {
        let input = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
        let is_object = self.native || input.trim_start().starts_with('{');
        if !is_object || serde_json::from_str::<IgnoredAny>(input).is_err() {
            let message = format!("the arguments of the call to `{}` must be a JSON object", call.name);
            return Err(Error::invalid(at.to_string(), message));
        }
        let extra = self.extra(call.extra.as_deref(), &at)?;
        separate(&mut self.out, start);
        let mut object = Object::of_type(&mut self.out, "tool_use");
        object.string(&mut self.out, "id", self.names.ids.map(&call.id));
        object.string(&mut self.out, "name", self.names.tools.map(&call.name));
        object.raw(&mut self.out, "input", input);
        self.finish(object, &extra, cache, at)
    }

    fn tool_result(
        &mut self,
        result: &ToolResult,
        at: At,
        start: usize,
        cache: Option<&CacheMark>,
    ) -> Result<(), Error> {
        let extra = self.extra(result.extra.as_deref(), &at)?;
        separate(&mut self.out, start);
        let mut object = Object::of_type(&mut self.out, "tool_result");
        object.string(&mut self.out, "tool_use_id", self.names.ids.map(&result.call_id));
        match result.content.as_slice() {
            // Where nothing was said, there is no content.
            pieces
                if pieces
                    .iter()
                    .all(|piece| matches!(piece, ResultContent::Text(text) if is_blank(self.native, text))) => {}
            [ResultContent::Text(text)] if text.cache.is_none() && (text.extra.is_none() || !self.native) => {
                self.extra(text.extra.as_deref(), &at.piece(0))?;
                object.string(&mut self.out, "content", &text.text);
            }
            pieces => {
                object.name(&mut self.out, "content");
                self.out.push(b'[');
                let start = self.out.len();
                for (number, piece) in pieces.iter().enumerate() {
                    let at = at.piece(number);
                    match piece {
                        ResultContent::Text(text) if is_blank(self.native, text) => {}
                        ResultContent::Text(text) => self.text(text, at, start, text.cache.as_ref())?,
                        ResultContent::Media(media) => self.media(media, at, start, media.cache.as_ref())?,
                        ResultContent::Other(json) => self.other(json, at, start)?,
                    }
                }
                self.out.push(b']');
            }
        }
        if let Some(is_error) = result.is_error {
            object.bool(&mut self.out, "is_error", is_error);
        }
        self.finish(object, &extra, cache, at)
    }

    /// Tools, and the choice among them.
    fn offer(
        &mut self,
        top: &mut Object,
        request: &Request,
        messages: &[Message],
        plan: &Plan<'_>,
        extra: &Members<'_>,
    ) -> Result<(), Error> {
        let mut tools = Vec::with_capacity(request.tools.len());
        for (number, tool) in request.tools.iter().enumerate() {
            let at = format!("tools[{number}]");
            match tool {
                Tool::Other(json) if !self.passes(json, &at)? => {}
                tool => tools.push((at, tool)),
            }
        }
        // A conversation with calls needs the tools that it names, though none may be called.
        let mut named: BTreeSet<&str> = BTreeSet::new();
        if tools.is_empty() && !self.native {
            let parts = messages.iter().flat_map(|message| &message.parts);
            named.extend(
                parts.filter_map(|part| if let Part::ToolCall(call) = part { Some(&*call.name) } else { None }),
            );
        }
        if !tools.is_empty() || !named.is_empty() || plan.answer.is_some() {
            top.name(&mut self.out, "tools");
            self.out.push(b'[');
            let start = self.out.len();
            for (at, tool) in &tools {
                match tool {
                    Tool::Function(function) => self.tool(function, at, start)?,
                    Tool::Other(json) => {
                        separate(&mut self.out, start);
                        self.out.extend_from_slice(json.as_bytes());
                    }
                }
            }
            for name in &named {
                separate(&mut self.out, start);
                let mut object = Object::open(&mut self.out);
                object.string(&mut self.out, "name", self.names.tools.map(name));
                object.raw(&mut self.out, "input_schema", ANY_OBJECT);
                object.close(&mut self.out);
            }
            if let Some(answer) = &plan.answer {
                separate(&mut self.out, start);
                let mut object = Object::open(&mut self.out);
                object.string(&mut self.out, "name", &answer.name);
                object.string(&mut self.out, "description", answer.description);
                match answer.schema {
                    Some(schema) => self.object_schema(&mut object, schema, ANSWER_SCHEMA)?,
                    None => {
                        object.raw(&mut self.out, "input_schema", r#"{"type":"object","additionalProperties":true}"#)
                    }
                }
                object.close(&mut self.out);
            }
            self.out.push(b']');
        }

        // What the API is told of several calls stands inside of the choice.
        let single = request.parallel_tool_calls.map(|parallel| !parallel);
        if let Some(answer) = &plan.answer {
            top.name(&mut self.out, "tool_choice");
            let free = !tools.is_empty() && request.tool_choice != Some(ToolChoice::None);
            let mut choice = Object::of_type(&mut self.out, if free { "any" } else { "tool" });
            if !free {
                choice.string(&mut self.out, "name", &answer.name);
            }
            if !free || single == Some(true) {
                choice.bool(&mut self.out, "disable_parallel_tool_use", true);
            }
            choice.close(&mut self.out);
            self.answer = Some(answer.name.clone());
            return Ok(());
        }
        let kind = match &request.tool_choice {
            _ if !named.is_empty() => "none",
            None | Some(ToolChoice::Auto) if tools.is_empty() && !self.native => return Ok(()),
            Some(ToolChoice::None) if tools.is_empty() && !self.native => return Ok(()),
            None if single == Some(true) => "auto",
            None => return Ok(()),
            Some(ToolChoice::Auto) => "auto",
            Some(ToolChoice::None) => "none",
            Some(ToolChoice::Required) => "any",
            Some(ToolChoice::Tool(_)) => "tool",
            Some(ToolChoice::Other(json)) => {
                if self.passes(json, &"tool_choice")? {
                    top.raw(&mut self.out, "tool_choice", json);
                }
                return Ok(());
            }
        };
        if !self.native
            && tools.is_empty()
            && matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_)))
        {
            return Err(Error::invalid("tool_choice", "tool_choice asks for a tool, but no tools are given"));
        }
        top.name(&mut self.out, "tool_choice");
        let mut choice = Object::of_type(&mut self.out, kind);
        if let Some(ToolChoice::Tool(name)) = request.tool_choice.as_ref().filter(|_| kind == "tool") {
            let given = |(_, tool): &(String, &Tool)| matches!(tool, Tool::Function(tool) if tool.name == *name);
            if !self.native && !tools.iter().any(given) {
                let message = format!("tool_choice names the tool `{name}`, which is not among the tools");
                return Err(Error::invalid("tool_choice", message));
            }
            choice.string(&mut self.out, "name", self.names.tools.map(name));
        }
        if let Some(single) = single.filter(|single| self.native || *single && kind != "none") {
            choice.bool(&mut self.out, "disable_parallel_tool_use", single);
        }
        choice.splice(&mut self.out, &extra.nested("tool_choice"));
        choice.close(&mut self.out);
        Ok(())
    }

    fn tool(&mut self, tool: &FunctionTool, at: &str, start: usize) -> Result<(), Error> {
        let extra = self.extra(tool.extra.as_deref(), &at)?;
        separate(&mut self.out, start);
        let mut object = Object::open(&mut self.out);
        object.string(&mut self.out, "name", self.names.tools.map(&tool.name));
        if let Some(description) = tool.description.as_deref().filter(|text| self.native || !text.is_empty()) {
            object.string(&mut self.out, "description", description);
        }
        match tool.parameters.as_deref() {
            None if extra.get("input_schema").is_some() => {}
            None => object.raw(&mut self.out, "input_schema", ANY_OBJECT),
            Some(schema) => {
                let param = || format!("{at}.parameters");
                if self.native {
                    object.name(&mut self.out, "input_schema");
                    check_json(schema, &param())?;
                    self.out.extend_from_slice(schema.as_bytes());
                } else {
                    self.object_schema(&mut object, schema, &param())?;
                }
            }
        }
        if let Some(strict) = tool.strict.filter(|strict| *strict || self.native) {
            object.bool(&mut self.out, "strict", strict);
        }
        self.finish(object, &extra, tool.cache.as_ref(), at)
    }

    /// The member `input_schema` from another dialect's schema, which may leave out the type that the API wants.
    fn object_schema(&mut self, object: &mut Object, schema: &str, param: &str) -> Result<(), Error> {
        let members = Members::parse(Some(schema)).map_err(|error| {
            let message = format!("the JSON Schema is not a JSON object: {}", complaint(&error));
            Error::invalid(param, message)
        })?;
        object.name(&mut self.out, "input_schema");
        let mut inner = Object::open(&mut self.out);
        if members.get("type").is_none() {
            inner.raw(&mut self.out, "type", "\"object\"");
        }
        inner.splice(&mut self.out, &members);
        inner.close(&mut self.out);
        Ok(())
    }

    /// How thinking is asked for.
    fn plan(&mut self, request: &'a Request) -> Result<Plan<'a>, Error> {
        let Some(reasoning) = &request.reasoning else { return Ok(Plan::default()) };
        if self.native {
            return Ok(Plan { effort: reasoning.effort.as_deref(), ..Plan::default() });
        }
        self.extra(reasoning.extra.as_deref(), &"reasoning")?;
        let backend = self.flavour.backend();
        let display = match reasoning.summary.as_deref() {
            None => None,
            Some("auto") => Some("summarized"),
            Some("none") => Some("omitted"),
            Some(_) => {
                let message = format!("{backend} returns the summary that it makes, or none: ask for `auto` or `none`");
                self.refuse("reasoning.summary", message)?;
                Some("summarized")
            }
        };
        let effort = reasoning.effort.as_deref();
        let adaptive = thinking::is_adaptive(self.settings.thinking, &request.model);
        if reasoning.enabled == Some(false) || effort == Some("none") {
            // Models that know budgets do not think unless they are told to.
            return Ok(Plan { thinking: adaptive.then_some(Thought::Disabled), ..Plan::default() });
        }
        if effort.is_none() && reasoning.budget_tokens.is_none() && reasoning.enabled != Some(true) {
            return Ok(Plan::default());
        }
        let param =
            if reasoning.budget_tokens.is_none() && effort.is_some() { "reasoning_effort" } else { "reasoning" };
        let table = thinking::budget(effort.unwrap_or("medium")).ok_or_else(|| {
            let word = effort.unwrap_or_default();
            Error::invalid(param, format!("`{word}` is not one of none, minimal, low, medium, high and xhigh"))
        })?;
        let sampling = &request.sampling;
        let bound = sampling.max_completion_tokens.or(sampling.max_tokens);
        if adaptive {
            if reasoning.budget_tokens.is_some() {
                let message = format!(
                    "`{}` decides by itself how much it thinks: give an effort, or set `thinking = \"budget\"` if it takes one",
                    request.model
                );
                self.refuse("reasoning.budget_tokens", message)?;
            }
            let effort = effort.map(|effort| if effort == "minimal" { "low" } else { effort });
            return Ok(Plan { thinking: Some(Thought::Adaptive { display }), effort, room: table, answer: None });
        }
        // The budget is part of max_tokens: what our table says must leave room for the answer.
        let fits = || bound.map_or(table, |most| table.min(most / 2).max(SMALLEST_BUDGET));
        let budget = reasoning.budget_tokens.unwrap_or_else(fits);
        if !thinking::fits(budget, bound) {
            self.refuse(param, thinking::complaint(backend, budget, bound))?;
            return Ok(Plan::default());
        }
        Ok(Plan { thinking: Some(Thought::Budget(budget)), room: budget, ..Plan::default() })
    }

    /// The member `thinking`.
    fn thought(
        &mut self,
        top: &mut Object,
        request: &Request,
        plan: &Plan<'_>,
        extra: &Members<'_>,
    ) -> Result<(), Error> {
        if !self.native {
            let (kind, budget, display) = match plan.thinking {
                None => return Ok(()),
                Some(Thought::Disabled) => ("disabled", None, None),
                Some(Thought::Adaptive { display }) => ("adaptive", None, display),
                Some(Thought::Budget(budget)) => ("enabled", Some(budget), None),
            };
            top.name(&mut self.out, "thinking");
            let mut object = Object::of_type(&mut self.out, kind);
            if let Some(budget) = budget {
                object.integer(&mut self.out, "budget_tokens", budget);
            }
            if let Some(display) = display {
                object.string(&mut self.out, "display", display);
            }
            object.close(&mut self.out);
            return Ok(());
        }
        let Some(reasoning) = &request.reasoning else { return Ok(()) };
        let Reasoning { budget_tokens, enabled, .. } = reasoning;
        let own = self.extra(reasoning.extra.as_deref(), &"thinking")?;
        if enabled.is_none() && budget_tokens.is_none() && own.0.is_empty() {
            return Ok(());
        }
        top.name(&mut self.out, "thinking");
        let mut object = Object::open(&mut self.out);
        // A type that is neither of the two that the contract can say is among the unknown members.
        if own.get("type").is_none() {
            object.string(&mut self.out, "type", if *enabled == Some(false) { "disabled" } else { "enabled" });
        }
        if let Some(budget) = budget_tokens {
            object.integer(&mut self.out, "budget_tokens", *budget);
        }
        object.splice(&mut self.out, &own);
        object.splice(&mut self.out, &extra.nested("thinking"));
        object.close(&mut self.out);
        Ok(())
    }

    /// The effort and the form of the answer.
    fn output_config(
        &mut self,
        top: &mut Object,
        request: &Request,
        plan: &Plan<'_>,
        extra: &Members<'_>,
    ) -> Result<(), Error> {
        let format = match &request.response_format {
            _ if plan.answer.is_some() => None,
            None | Some(ResponseFormat::Text | ResponseFormat::JsonObject) => None,
            Some(ResponseFormat::Other(json)) if !self.passes(json, &"response_format")? => None,
            Some(format) => Some(format),
        };
        if format.is_none() && plan.effort.is_none() {
            return Ok(());
        }
        let given = extra.nested("output_config");
        top.name(&mut self.out, "output_config");
        let mut config = Object::open(&mut self.out);
        if let Some(effort) = plan.effort {
            config.string(&mut self.out, "effort", effort);
        }
        match format {
            Some(ResponseFormat::JsonSchema(schema)) => {
                config.name(&mut self.out, "format");
                let mut object = Object::of_type(&mut self.out, "json_schema");
                object.name(&mut self.out, "schema");
                let members = Members::parse(Some(&schema.schema)).map_err(|error| {
                    let message = format!("the JSON Schema is not a JSON object: {}", complaint(&error));
                    Error::invalid(ANSWER_SCHEMA, message)
                })?;
                let mut inner = Object::open(&mut self.out);
                // The API has one place for words about the answer: the schema's own.
                if let Some(description) =
                    schema.description.as_deref().filter(|_| members.get("description").is_none())
                {
                    inner.string(&mut self.out, "description", description);
                }
                inner.splice(&mut self.out, &members);
                inner.close(&mut self.out);
                object.splice(&mut self.out, &given.nested("format"));
                object.close(&mut self.out);
            }
            Some(ResponseFormat::Other(json)) => config.raw(&mut self.out, "format", json),
            _ => {}
        }
        config.splice(&mut self.out, &given);
        config.close(&mut self.out);
        Ok(())
    }

    fn sampling(&mut self, top: &mut Object, request: &Request) -> Result<(), Error> {
        let backend = self.flavour.backend();
        let sampling = &request.sampling;
        // Values that ask for nothing special are no harm.
        let unsupported = [
            ("n", sampling.n.is_some_and(|n| n != 1)),
            ("logprobs", sampling.logprobs == Some(true)),
            ("top_logprobs", sampling.top_logprobs.is_some_and(|most| most > 0)),
            ("seed", sampling.seed.is_some()),
            ("logit_bias", sampling.logit_bias.as_deref().is_some_and(|bias| bias.trim() != "{}")),
            ("frequency_penalty", sampling.frequency_penalty.is_some_and(|penalty| penalty != 0.0)),
            ("presence_penalty", sampling.presence_penalty.is_some_and(|penalty| penalty != 0.0)),
            ("repetition_penalty", sampling.repetition_penalty.is_some_and(|penalty| penalty != 1.0)),
            ("min_p", sampling.min_p.is_some_and(|p| p != 0.0)),
        ];
        for (name, asked) in unsupported {
            if asked {
                self.refuse(name, format!("{backend} has no `{name}`: leave it out"))?;
            }
        }
        for (name, value) in [("temperature", sampling.temperature), ("top_p", sampling.top_p)] {
            let Some(value) = value else { continue };
            if !value.is_finite() {
                return Err(Error::invalid(name, "must be a finite number"));
            }
            if !self.native && !(0.0..=1.0).contains(&value) {
                self.refuse(name, format!("{backend} takes a {name} from 0 to 1, not {value}"))?;
                continue;
            }
            top.name(&mut self.out, name);
            json::float(&mut self.out, value);
        }
        if let Some(top_k) = sampling.top_k {
            top.integer(&mut self.out, "top_k", top_k);
        }
        if sampling.stop.is_empty() {
            return Ok(());
        }
        let mut stops = Vec::with_capacity(sampling.stop.len());
        for (number, stop) in sampling.stop.iter().enumerate() {
            if !self.native && stop.is_empty() {
                return Err(Error::invalid(format!("stop[{number}]"), "a stop sequence must not be empty"));
            }
            if !self.native && stop.trim().is_empty() {
                let message = format!("{backend} takes no stop sequence of nothing but white space");
                self.refuse(format!("stop[{number}]"), message)?;
                continue;
            }
            stops.push(stop.as_str());
        }
        if !stops.is_empty() {
            top.strings(&mut self.out, "stop_sequences", stops);
        }
        Ok(())
    }

    /// What the decoder needs: the operation, and the client's names of the tools that were mapped.
    fn context(&self, input: &Input) -> Result<Option<String>, Error> {
        let context = Context {
            operation: match input {
                Input::CountTokens(_) => Operation::CountTokens,
                _ => Operation::Chat,
            },
            tools: self.names.tools.back(),
            answer: self.answer.clone(),
        };
        let Some(text) = context.to_text()? else { return Ok(None) };
        if text.len() > LARGEST_CONTEXT {
            let backend = self.flavour.backend();
            let message =
                format!("too many tools with names that {backend} refuses: use 1 to 64 letters, digits, `_` and `-`");
            return Err(Error::invalid("tools", message));
        }
        Ok(Some(text))
    }
}

/// Where other dialects keep the schema of an answer.
const ANSWER_SCHEMA: &str = "response_format.json_schema.schema";

/// The schema of a tool that takes no arguments, or whose arguments nobody told.
const ANY_OBJECT: &str = r#"{"type":"object","properties":{}}"#;

/// Refuses text that is not JSON.
fn check_json(json: &str, at: &dyn std::fmt::Display) -> Result<(), Error> {
    match serde_json::from_str::<IgnoredAny>(json) {
        Ok(IgnoredAny) => Ok(()),
        Err(error) => Err(Error::invalid(at.to_string(), format!("this is not JSON: {}", complaint(&error)))),
    }
}

/// Text of no characters, which the API refuses.
fn is_empty_text(part: &Part) -> bool {
    matches!(part, Part::Text(text) | Part::Refusal(text) if text.text.is_empty())
}

/// The same of a piece of a tool's result; this API's own client knows what it sends.
fn is_blank(native: bool, text: &TextPart) -> bool {
    !native && text.text.is_empty()
}

/// The prompt-cache mark behind a part.
fn part_cache(part: &Part) -> Option<&CacheMark> {
    match part {
        Part::Text(text) | Part::Refusal(text) => text.cache.as_ref(),
        Part::Media(media) => media.cache.as_ref(),
        Part::ToolCall(call) => call.cache.as_ref(),
        Part::ToolResult(result) => result.cache.as_ref(),
        Part::Reasoning(_) | Part::Other(_) => None,
    }
}
