//! Tests of an adapter without a component: answers framed and decoded as the gateway does it.
//!
//! These functions panic where the contract is broken, as assertions do: they are for tests. `witgate conformance` checks
//! the same of the component, and more.
//!
//! ```
//! use witgate_sdk::testing::{Answer, every_cut, text};
//! use witgate_sdk::{ErrorKind, Event, OpenAi};
//!
//! let stream = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n\
//!               data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
//!               data: [DONE]\n\n";
//! assert_eq!(text(&every_cut::<OpenAi>(&Answer::sse(stream))), "Hi");
//!
//! let refused = Answer::new(429, "application/json", r#"{"error":{"message":"slow down"}}"#).header("retry-after", "2");
//! let events = every_cut::<OpenAi>(&refused);
//! assert!(matches!(&events[..], [Event::Failed(error)] if error.kind == ErrorKind::RateLimited));
//! ```

use witgate_framing::{Framer, Limits, effective};
use witgate_model::{Adapter, Decoder, Event, Framing, Order, ResponseHead};

/// An answer of a backend.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The provider's settings: `{}`.
    pub settings: String,
    /// What `encode` handed to the decoder: none.
    pub context: Option<String>,
    /// What `encode` asked for: how the body is to be cut.
    pub framing: Framing,
    /// The HTTP status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer that is not streamed.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Answer {
            settings: "{}".into(),
            context: None,
            framing: Framing::Whole,
            status,
            headers: vec![("content-type".into(), content_type.into())],
            body: body.into(),
        }
    }

    /// A JSON value, with status 200.
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Answer::new(200, "application/json", body)
    }

    /// A stream of server-sent events.
    pub fn sse(body: impl Into<Vec<u8>>) -> Self {
        Answer { framing: Framing::Sse, ..Answer::new(200, "text/event-stream", body) }
    }

    /// A stream of lines.
    pub fn ndjson(body: impl Into<Vec<u8>>) -> Self {
        Answer { framing: Framing::Ndjson, ..Answer::new(200, "application/x-ndjson", body) }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// With the provider's settings.
    #[must_use]
    pub fn settings(mut self, settings: &str) -> Self {
        self.settings = settings.into();
        self
    }

    /// The head as the gateway gives it to the decoder.
    fn head(&self) -> ResponseHead {
        let content_type =
            self.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
        ResponseHead {
            status: self.status,
            headers: self.headers.clone(),
            framing: effective(&self.framing, self.status, content_type),
            stream: self.framing != Framing::Whole,
        }
    }
}

/// The events of an answer whose body the network cuts at these offsets.
///
/// # Panics
/// Where the body cannot be cut into frames, or an offset is not in it.
pub fn events<A: Adapter>(answer: &Answer, cuts: &[usize]) -> Vec<Event> {
    let head = answer.head();
    let mut framer = Framer::new(&head.framing, Limits::default()).expect("a framing that the gateway knows");
    let mut decoder = A::decoder(&answer.settings, answer.context.clone(), head);
    let (mut events, mut frames) = (Vec::new(), Vec::new());
    let ended = |events: &[Event]| events.last().is_some_and(Event::is_last);
    let mut start = 0;
    for end in cuts.iter().copied().chain([answer.body.len()]) {
        framer.push(&answer.body[start..end], &mut frames).expect("a body in its framing");
        if !frames.is_empty() && !ended(&events) {
            events.append(&mut decoder.feed(std::mem::take(&mut frames)));
        }
        start = end;
    }
    framer.finish(&mut frames).expect("a body that ends with its last frame");
    if !frames.is_empty() && !ended(&events) {
        events.append(&mut decoder.feed(frames));
    }
    if !ended(&events) {
        events.append(&mut decoder.finish());
    }
    events
}

/// The events of an answer, which are the same wherever the network cuts it, and in the contract's order.
///
/// # Panics
/// Where they are not.
pub fn every_cut<A: Adapter>(answer: &Answer) -> Vec<Event> {
    let whole = events::<A>(answer, &[]);
    if let Err((number, what)) = Order::check(&whole) {
        panic!("event {number}, {:?}: the adapter {what}", whole.get(number));
    }
    for cut in 1..answer.body.len() {
        assert_eq!(events::<A>(answer, &[cut]), whole, "cut at byte {cut}, the answer has other events");
    }
    let everywhere: Vec<usize> = (1..answer.body.len()).collect();
    assert_eq!(events::<A>(answer, &everywhere), whole, "cut at every byte, the answer has other events");
    whole
}

/// All text of the answer.
pub fn text(events: &[Event]) -> String {
    let of = |event: &Event| if let Event::Text(delta) = event { Some(delta.text.clone()) } else { None };
    events.iter().filter_map(of).collect()
}
