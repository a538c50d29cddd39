//! Constructors that keep the code which builds these types short.

use crate::types::{
    Auth, BlockDelta, BlockKind, BlockStart, CompletionPrompt, DialectJson, Error, ErrorKind, Event, Finish,
    FinishReason, Framing, HeaderAuth, HttpRequest, Input, Message, OtherEvent, Part, Request, Retry, Role, Sampling,
    Scope, TextPart,
};

impl Part {
    /// A text part without an object around it.
    pub fn text(text: impl Into<String>) -> Self {
        Part::Text(TextPart { text: text.into(), ..TextPart::default() })
    }
}

impl Message {
    /// A message of one text part.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Message { role, name: None, parts: vec![Part::text(text)], extra: None }
    }
}

impl Request {
    /// A chat request with nothing set but the conversation.
    pub fn chat(dialect: impl Into<String>, model: impl Into<String>, messages: Vec<Message>) -> Self {
        Request::new(dialect, model, Input::Chat(messages))
    }

    /// A completion request with nothing set but the text.
    pub fn completion(dialect: impl Into<String>, model: impl Into<String>, text: impl Into<String>) -> Self {
        let prompt = CompletionPrompt { text: text.into(), ..CompletionPrompt::default() };
        Request::new(dialect, model, Input::Completion(prompt))
    }

    /// A request with nothing set but its input.
    pub fn new(dialect: impl Into<String>, model: impl Into<String>, input: Input) -> Self {
        Request {
            model: model.into(),
            dialect: dialect.into(),
            input,
            tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            response_format: None,
            sampling: Sampling::default(),
            reasoning: None,
            stream: false,
            end_user: None,
            extra: None,
        }
    }
}

impl Input {
    /// The operation, as in `description.operations`.
    pub fn operation(&self) -> &str {
        match self {
            Input::Chat(_) => "chat",
            Input::Completion(_) => "completion",
            Input::Embedding(_) => "embedding",
            Input::CountTokens(_) => "count-tokens",
            Input::Models => "models",
            Input::Other(other) => &other.dialect,
        }
    }

    /// The answer is said in choices with blocks, and ends with a finish.
    pub fn is_generation(&self) -> bool {
        matches!(self, Input::Chat(_) | Input::Completion(_) | Input::Other(_))
    }
}

impl DialectJson {
    /// `value` as `dialect` means it.
    pub fn new(dialect: impl Into<String>, value: impl Into<String>) -> Self {
        DialectJson { dialect: dialect.into(), value: value.into() }
    }
}

impl Auth {
    /// `authorization: Bearer` and the secret of this slot.
    pub fn bearer(slot: impl Into<String>) -> Self {
        Auth::Header(HeaderAuth { name: "authorization".into(), prefix: "Bearer ".into(), slot: slot.into() })
    }
}

impl HttpRequest {
    /// A request without a body, header or secret, whose answer is one value.
    pub fn get(path: &[&str]) -> Self {
        HttpRequest {
            method: "GET".into(),
            path: path.iter().map(|segment| (*segment).to_owned()).collect(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            auth: Auth::None,
            framing: Framing::Whole,
            context: None,
            dropped: Vec::new(),
        }
    }

    /// A request with a JSON body, whose answer is one value.
    pub fn post_json(path: &[&str], body: impl Into<Vec<u8>>) -> Self {
        HttpRequest {
            method: "POST".into(),
            headers: vec![("content-type".into(), "application/json".into())],
            body: body.into(),
            ..HttpRequest::get(path)
        }
    }

    /// Sets how the gateway authenticates it.
    #[must_use]
    pub fn with_auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Sets how the answer is cut.
    #[must_use]
    pub fn with_framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }
}

impl Error {
    /// A failure that is not worth another try.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), code: None, param: None, status: None, retry: Retry::Never, raw: None }
    }

    /// The request is wrong at `param`.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidRequest, message).with_param(param)
    }

    /// The backend cannot do what `param` asks for.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Unsupported, message).with_param(param)
    }

    /// `backend` does nothing of the kind that `input` asks for.
    pub fn no_operation(backend: &str, input: &Input) -> Self {
        let param = match input {
            Input::Chat(_) | Input::CountTokens(_) => "messages",
            Input::Completion(_) => "prompt",
            Input::Embedding(_) => "input",
            Input::Models | Input::Other(_) => "model",
        };
        let operation = input.operation();
        Error::unsupported(param, format!("{backend} has no operation `{operation}`"))
            .with_code("unsupported_operation")
    }

    /// The backend's answer is not what its API promises; another target may do better.
    pub fn malformed(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::MalformedResponse, message).with_retry(Retry::OtherTarget)
    }

    /// Names the field at fault.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Sets the backend's code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Sets the HTTP status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Sets the advice about trying again.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }
}

impl Event {
    /// A text block begins.
    pub fn text_start(index: u32, choice: u32) -> Self {
        Event::BlockStart(BlockStart { index, choice, kind: BlockKind::Text })
    }

    /// More text of block `index`.
    pub fn text(index: u32, text: impl Into<String>) -> Self {
        Event::Text(BlockDelta { index, text: text.into(), logprobs: None })
    }

    /// A choice has ended.
    pub fn finish(choice: u32, reason: FinishReason, raw: Option<String>) -> Self {
        Event::Finish(Finish { choice, reason, raw, stop_sequence: None })
    }

    /// Members that the contract does not name.
    pub fn other(dialect: impl Into<String>, scope: Scope, members: impl Into<String>) -> Self {
        Event::Other(OtherEvent { dialect: dialect.into(), scope, members: members.into() })
    }

    /// True for an event that a client sees as part of the answer: after it there is no retry and no fallback.
    pub fn is_content(&self) -> bool {
        matches!(
            self,
            Event::BlockStart(BlockStart { kind: BlockKind::ToolCall(_) | BlockKind::Other(_), .. })
                | Event::Text(_)
                | Event::Reasoning(_)
                | Event::Signature(_)
                | Event::Redacted(_)
                | Event::Arguments(_)
                | Event::Finish(_)
                | Event::Embedding(_)
                | Event::Model(_)
        )
    }

    /// True for `Done` and `Failed`.
    pub fn is_last(&self) -> bool {
        matches!(self, Event::Done | Event::Failed(_))
    }
}
