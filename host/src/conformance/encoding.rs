//! What becomes of requests.

use std::sync::Arc;
use std::time::Instant;

use witgate_gateway::{Adapter as _, check_request};
use witgate_model::{
    Auth, DialectJson, Error, ErrorKind, Framing, FunctionTool, HttpRequest, Input, JsonSchema, MediaKind, MediaPart,
    MediaSource, Message, Part, Request, ResponseFormat, ResultContent, Role, TextPart, Tool, ToolCall, ToolResult,
};

use super::requests::Canonical;
use super::{OPERATIONS, Run};
use crate::conformance::report::Area;

/// What a request that is sent says of its answer.
#[derive(Clone, Debug)]
pub(super) struct Basic {
    pub stream: bool,
    pub framing: Framing,
    pub context: Option<String>,
}

/// The dialects of conversations whose unknown members can be told from a request that names one.
const CHAT_DIALECTS: [&str; 3] = ["openai-chat", "anthropic-messages", "ollama-chat"];

type Encoded = Result<HttpRequest, Error>;

impl Run<'_> {
    /// Encodes all there is. Gives what the plainest requests say of their answers.
    pub(super) fn encoding(&mut self, canonical: &[Canonical]) -> Vec<Basic> {
        let Some(mut used) = self.session(Area::Encode, "a first instance") else { return Vec::new() };
        let settings = self.options.settings.clone();
        let mut basics = Vec::new();
        for canonical in canonical {
            for stream in [false, true] {
                let generates = canonical.request.input.is_generation();
                if stream && !generates {
                    continue;
                }
                let request = Arc::new(Request { stream, ..Request::clone(&canonical.request) });
                let case = if stream { format!("{}, streamed", canonical.name) } else { canonical.name.clone() };
                let ask = |s: &mut crate::AdapterSession| s.encode(&settings, &request);
                let Some(first) = self.call(Area::Encode, &case, &mut used, ask) else {
                    // The instance is spoilt: go on with another one.
                    match self.session(Area::Encode, &case) {
                        Some(session) => used = session,
                        None => return basics,
                    }
                    continue;
                };
                let right = "the same result for the same request: nothing may be kept, and no order of a map may show";
                if let Some(again) = self.call(Area::Purity, &case, &mut used, ask) {
                    let what = "asked twice, it gives two different results";
                    self.report.check(Area::Purity, &case, again == first, what, right);
                }
                if let Some(mut fresh) = self.session(Area::Purity, &case)
                    && let Some(again) = self.call(Area::Purity, &case, &mut fresh, ask)
                {
                    let what = "an instance that has served others gives another result than a fresh one";
                    self.report.check(Area::Purity, &case, again == first, what, right);
                }
                if let Ok(http) = &first
                    && (canonical.name == "text"
                        || basics.is_empty()
                        || basics.iter().all(|b: &Basic| b.stream != stream))
                {
                    let basic = Basic { stream, framing: http.framing.clone(), context: http.context.clone() };
                    if canonical.name == "text" { basics.insert(0, basic) } else { basics.push(basic) }
                }
                self.result(&case, &request, first);
            }
        }
        self.operations(canonical);
        self.silence();
        self.large();
        basics
    }

    /// An encoded request, or a refusal, as such.
    fn result(&mut self, case: &str, request: &Request, encoded: Encoded) {
        match encoded {
            Ok(http) => {
                let operation = request.input.operation();
                let listed = self.lists(operation);
                let what = format!("it takes the operation `{operation}`, which its description does not list");
                let right = "refuse it (`unsupported`), or list it in `operations`";
                self.report.check(Area::Encode, case, listed, what, right);
                self.http(Area::Encode, case, http, true);
            }
            Err(error) => self.refusal(case, &error),
        }
    }

    fn lists(&self, operation: &str) -> bool {
        self.component.description().operations.iter().any(|known| known == operation)
    }

    fn refusal(&mut self, case: &str, error: &Error) {
        let expected = [ErrorKind::Unsupported, ErrorKind::InvalidRequest, ErrorKind::TooLarge];
        let what = format!("it refuses a request with the kind `{}`: {}", kind(&error.kind), error.message);
        let right = "`unsupported` for what the backend cannot do, `invalid-request` for what is wrong";
        self.report.check(Area::Encode, case, expected.contains(&error.kind), what, right);
        let right = "a message for people: what, where, and what would be right";
        let told = !error.message.trim().is_empty();
        self.report.check(Area::Encode, case, told, "it refuses without a message", right);
        if error.kind == ErrorKind::Unsupported {
            let what = format!("it refuses without `param`: {}", error.message);
            let right = "`param` with the field in the client's terms, as tools or messages[0].content[1]";
            self.report.check(Area::Encode, case, error.param.is_some(), what, right);
        }
    }

    /// A request that would be sent. `drops`: it may tell what was left out.
    pub(super) fn http(&mut self, area: Area, case: &str, http: HttpRequest, drops: bool) {
        let description = Arc::new(self.component.description().clone());
        if let Auth::Header(auth) = &http.auth {
            let own = description.secrets.iter().any(|slot| slot.name == auth.slot);
            let what = format!("it names the secret slot {:?}, which is not its own", auth.slot);
            self.report.check(area, case, own, what, "a slot of `description.secrets`");
        }
        if let Auth::AwsSigv4(auth) = &http.auth {
            let own = description.secrets.iter().any(|slot| slot.name.starts_with(&format!("{}_", auth.slot)));
            let what = format!("it names the AWS slot {:?}, for which its description has no secret", auth.slot);
            let right = "a slot whose `…_access_key_id` and `…_secret_access_key` stand in `description.secrets`";
            self.report.check(area, case, own, what, right);
        }
        if let Framing::Other(name) = &http.framing {
            let right = "whole, sse, ndjson, aws-eventstream or raw";
            self.report.fail(area, case, format!("it asks for the framing {name:?}, which this gateway lacks"), right);
        }
        let json = http.headers.iter().any(|(name, value)| name == "content-type" && value.contains("json"));
        if json && !http.body.is_empty() {
            let valid = serde_json::from_slice::<serde::de::IgnoredAny>(&http.body);
            let what = format!(
                "the body is called JSON and is none: {}",
                valid.as_ref().err().map_or("".into(), ToString::to_string)
            );
            self.report.check(area, case, valid.is_ok(), what, "JSON, each text in it escaped");
        }
        let may_drop = drops && self.options.settings.contains("drop_unsupported");
        if !http.dropped.is_empty() && !may_drop {
            let what = format!("it leaves {} out", http.dropped.join(", "));
            self.report.fail(area, case, what, "refuse it: only the setting `drop_unsupported` allows to leave it out");
        }
        let right = "a request that keeps the rules of `http-request` in docs/adapter-contract.md";
        match check_request(&description.id, http) {
            Ok(()) => self.report.pass(area),
            Err(fault) => self.report.fail(area, case, format!("it {}", fault.what), right),
        }
    }

    /// What is listed is taken, in its plainest form; what is not is refused.
    fn operations(&mut self, canonical: &[Canonical]) {
        let named = |name: &str| canonical.iter().find(|c| c.name == name).map(|c| Arc::clone(&c.request));
        let models = Arc::new(Request::new("openai-models", "", Input::Models));
        let plain = [
            ("chat", named("text")),
            ("completion", named("openai-completions/prompt")),
            ("embedding", named("openai-embeddings/text")),
            ("count-tokens", named("anthropic-messages/count-tokens")),
            ("models", Some(models)),
        ];
        let settings = self.options.settings.clone();
        for (operation, request) in plain {
            let Some(request) = request else { continue };
            let case = format!("the plainest `{operation}`");
            let Some(mut session) = self.session(Area::Encode, &case) else { return };
            let ask = |s: &mut crate::AdapterSession| s.encode(&settings, &request);
            let Some(encoded) = self.call(Area::Encode, &case, &mut session, ask) else { continue };
            if self.lists(operation)
                && let Err(error) = &encoded
            {
                let what = format!("it lists `{operation}` and refuses the plainest one: {}", error.message);
                let right = "take it, or leave the operation out of `operations`";
                self.report.fail(Area::Encode, &case, what, right);
            }
            self.result(&case, &request, encoded);
        }
        let foreign = Input::Other(DialectJson::new("conformance-test", "{}"));
        let request = Arc::new(Request::new("conformance-test", "m", foreign));
        let case = "an operation of a dialect that nobody speaks";
        let Some(mut session) = self.session(Area::Encode, case) else { return };
        let ask = |s: &mut crate::AdapterSession| s.encode(&settings, &request);
        if let Some(encoded) = self.call(Area::Encode, case, &mut session, ask) {
            let refused = matches!(&encoded, Err(error) if error.kind == ErrorKind::Unsupported);
            let right = format!("refuse it as `unsupported`: known are {}", OPERATIONS.join(", "));
            self.report.check(Area::Encode, case, refused, "it is not refused", &right);
        }
    }

    /// Nothing is left out without a word.
    fn silence(&mut self) {
        if !self.lists("chat") {
            return;
        }
        let Some(mut session) = self.session(Area::Silence, "a first instance") else { return };
        let settings = self.options.settings.clone();
        let dialects = self.component.description().dialects.clone();
        for canary in canaries(&self.options.model) {
            let request = Arc::new(canary.request);
            let ask = |s: &mut crate::AdapterSession| s.encode(&settings, &request);
            let Some(encoded) = self.call(Area::Silence, canary.what, &mut session, ask) else {
                match self.session(Area::Silence, canary.what) {
                    Some(fresh) => session = fresh,
                    None => return,
                }
                continue;
            };
            match encoded {
                Ok(http) if !http.dropped.is_empty() => self.report.pass(Area::Silence),
                Ok(http) => {
                    let what = "taken, and not in the request to the backend";
                    let right = format!("send it, or refuse it: `unsupported` with the param {}", canary.param);
                    self.report.check(Area::Silence, canary.what, holds(&http, canary.sign), what, &right);
                }
                Err(error) if canary.must => {
                    let what = format!("refused: {}", error.message);
                    self.report.fail(Area::Silence, canary.what, what, "take it: every chat has it");
                }
                Err(_) => self.report.pass(Area::Silence),
            }
        }
        // Members that the contract does not name.
        let mut request = plain(&self.options.model);
        request.dialect = "conformance-test".to_owned();
        request.extra = Some(r#"{"canary_member": 1}"#.to_owned());
        let foreign = Arc::new(request.clone());
        let case = "an unknown member of a dialect that it does not speak";
        let ask = |s: &mut crate::AdapterSession| s.encode(&settings, &foreign);
        if let Some(encoded) = self.call(Area::Silence, case, &mut session, ask) {
            let fine = match &encoded {
                Ok(http) => !http.dropped.is_empty(),
                Err(error) => error.kind == ErrorKind::Unsupported,
            };
            let right = "refuse it: `unsupported`, with the member as param";
            self.report.check(Area::Silence, case, fine, "it is not refused", right);
        }
        let Some(dialect) = CHAT_DIALECTS.iter().find(|known| dialects.iter().any(|dialect| dialect == *known)) else {
            return;
        };
        request.dialect = (*dialect).to_owned();
        let own = Arc::new(request);
        let case = format!("an unknown member of {dialect}, which its description lists");
        let ask = |s: &mut crate::AdapterSession| s.encode(&settings, &own);
        if let Some(encoded) = self.call(Area::Silence, &case, &mut session, ask) {
            let passed = encoded.as_ref().is_ok_and(|http| holds(http, "canary_member"));
            let right = "pass it on unchanged, or leave the dialect out of `dialects`";
            self.report.check(Area::Silence, &case, passed, "it is not passed on", right);
        }
    }

    /// Large requests, within the limits.
    fn large(&mut self) {
        let settings = self.options.settings.clone();
        for (case, request) in large_requests(&self.options.model) {
            let request = Arc::new(request);
            for last in [false, false, true] {
                let Some(mut session) = self.session(Area::Limits, case) else { return };
                let begun = Instant::now();
                let result = session.encode(&settings, &request);
                let took = begun.elapsed();
                if result.is_err() && took >= self.options.bounds.call_time && !last {
                    // A machine that is busy takes time that is not the adapter's.
                    continue;
                }
                if self.report.called(Area::Limits, case, &session, took, result).is_some() {
                    self.report.pass(Area::Limits);
                }
                break;
            }
        }
    }
}

/// Large requests, by name.
pub(super) fn large_requests(model: &str) -> [(&'static str, Request); 3] {
    let text = |role: Role, text: String| Message::text(role, text);
    let mut image = plain(model);
    if let Input::Chat(messages) = &mut image.input
        && let Some(message) = messages.last_mut()
    {
        message.parts.push(picture("iVBORw0KGgoA".repeat(4_000_000 / 12)));
    }
    let long = vec![text(Role::User, "All happy families are alike. ".repeat(33_334))];
    let turn = |n: usize| text(if n.is_multiple_of(2) { Role::User } else { Role::Assistant }, format!("Turn {n}."));
    let many = (0..5_001).map(turn).collect();
    [
        ("a text of 1 MB", Request::chat("openai-chat", model, long)),
        ("5,001 messages", Request::chat("openai-chat", model, many)),
        ("a picture of 4 MB in base64", image),
    ]
}

/// The kind of an error, as the contract writes it.
pub(super) fn kind(kind: &ErrorKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "other".to_owned(),
    }
}

/// Whether a request says this anywhere.
fn holds(http: &HttpRequest, sign: &str) -> bool {
    let sign = sign.as_bytes();
    let fields = http.headers.iter().chain(&http.query).flat_map(|(name, value)| [name, value]);
    memchr::memmem::find(&http.body, sign).is_some()
        || http.path.iter().chain(fields).any(|text| memchr::memmem::find(text.as_bytes(), sign).is_some())
}

/// A request that asks for one thing, which can be found in what is sent.
struct Canary {
    what: &'static str,
    /// The field, in the client's terms.
    param: &'static str,
    sign: &'static str,
    /// It may not be refused.
    must: bool,
    request: Request,
}

fn plain(model: &str) -> Request {
    Request::chat("openai-chat", model, vec![Message::text(Role::User, "canary-user-text")])
}

fn picture(base64: String) -> Part {
    Part::Media(MediaPart {
        kind: MediaKind::Image,
        mime: Some("image/png".to_owned()),
        source: MediaSource::Base64(base64),
        name: None,
        detail: None,
        cache: None,
        extra: None,
    })
}

fn canaries(model: &str) -> Vec<Canary> {
    let mut all = Vec::new();
    let mut add = |what, param, sign, must, change: &dyn Fn(&mut Request)| {
        let mut request = plain(model);
        change(&mut request);
        all.push(Canary { what, param, sign, must, request });
    };
    let push = |request: &mut Request, message: Message| {
        if let Input::Chat(messages) = &mut request.input {
            messages.push(message);
        }
    };
    let tool = || {
        Tool::Function(FunctionTool {
            name: "canary_tool".to_owned(),
            description: Some("canary-description".to_owned()),
            parameters: Some(r#"{"type":"object","properties":{"canary_argument":{"type":"string"}}}"#.to_owned()),
            strict: None,
            cache: None,
            extra: None,
        })
    };
    add("the user's text", "messages", "canary-user-text", true, &|_| {});
    add("the operator's instructions", "messages[0]", "canary-system-text", false, &|request| {
        if let Input::Chat(messages) = &mut request.input {
            messages.insert(0, Message::text(Role::System, "canary-system-text"));
        }
    });
    add("an earlier turn of the assistant", "messages[1]", "canary-earlier-turn", false, &|request| {
        push(request, Message::text(Role::Assistant, "canary-earlier-turn"));
        push(request, Message::text(Role::User, "And?"));
    });
    add("a picture", "messages[0].content[1]", "Y2FuYXJ5LXBpY3R1cmUh", false, &|request| {
        if let Input::Chat(messages) = &mut request.input
            && let Some(message) = messages.last_mut()
        {
            message.parts.push(picture("Y2FuYXJ5LXBpY3R1cmUh".to_owned()));
        }
    });
    for (what, sign) in [
        ("a tool", "canary_tool"),
        ("a tool's description", "canary-description"),
        ("a tool's parameters", "canary_argument"),
    ] {
        add(what, "tools", sign, false, &|request| request.tools = vec![tool()]);
    }
    let history = |request: &mut Request| {
        request.tools = vec![tool()];
        let call = ToolCall {
            id: "call_1".to_owned(),
            name: "canary_tool".to_owned(),
            arguments: r#"{"canary_argument":"canary-value"}"#.to_owned(),
            cache: None,
            extra: None,
        };
        let parts = vec![Part::ToolCall(call)];
        push(request, Message { role: Role::Assistant, name: None, parts, extra: None });
        let content = TextPart { text: "canary-result".to_owned(), cache: None, extra: None };
        let result = ToolResult {
            call_id: "call_1".to_owned(),
            content: vec![ResultContent::Text(content)],
            is_error: None,
            cache: None,
            extra: None,
        };
        let parts = vec![Part::ToolResult(result)];
        push(request, Message { role: Role::Tool, name: None, parts, extra: None });
    };
    add("the arguments of a tool call", "messages[1].tool_calls[0]", "canary-value", false, &history);
    add("the result of a tool", "messages[2]", "canary-result", false, &history);
    add("a schema for the answer", "response_format", "canary_property", false, &|request| {
        request.response_format = Some(ResponseFormat::JsonSchema(JsonSchema {
            name: Some("answer".to_owned()),
            description: None,
            schema: r#"{"type":"object","properties":{"canary_property":{"type":"string"}},"required":["canary_property"],"additionalProperties":false}"#.to_owned(),
            strict: None,
        }));
    });
    add("stop sequences", "stop", "canary-stop", false, &|r| r.sampling.stop = vec!["canary-stop".to_owned()]);
    add("temperature", "temperature", "0.4321", false, &|r| r.sampling.temperature = Some(0.4321));
    add("top_p", "top_p", "0.8765", false, &|r| r.sampling.top_p = Some(0.8765));
    add("seed", "seed", "987654", false, &|r| r.sampling.seed = Some(987_654));
    add("a bound on the answer's tokens", "max_tokens", "4321", false, &|r| r.sampling.max_tokens = Some(4321));
    add("frequency_penalty", "frequency_penalty", "0.3579", false, &|r| r.sampling.frequency_penalty = Some(0.3579));
    add("top_k", "top_k", "37", false, &|r| r.sampling.top_k = Some(37));
    add("several answers", "n", "3", false, &|r| r.sampling.n = Some(3));
    all
}
