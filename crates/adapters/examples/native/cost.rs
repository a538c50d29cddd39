//! What is measured of each adapter, and how: requests, streams, and the floor under them. Shared by `native` and by the
//! host's `adapters`, which measures the same as components.

use std::hint::black_box;
use std::time::{Duration, Instant};

use witgate_framing::{Framer, Limits};
use witgate_model::{
    Adapter, BlockDelta, Decoder, Event, EventMessage, Frame, Framing, Input, MediaKind, MediaPart, MediaSource,
    Message, Part, Request, ResponseHead, Role, SseEvent,
};

pub type Failure = Box<dyn std::error::Error>;

/// The allocator of the installed program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many chunks a stream has: a pass must be shorter than what the scheduler gives a process at once.
const CHUNKS: usize = 500;

/// How many bytes come with one network read.
const READ: usize = 16 * 1024;

/// The text of each chunk.
const WORD: &str = " word";

/// The median, in microseconds, of what `f` takes.
pub fn median<T>(mut f: impl FnMut() -> Result<T, Failure>) -> Result<f64, Failure> {
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) || times.len() < 9 {
        let start = Instant::now();
        drop(black_box(f()?));
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

/// The requests of the table of encodes.
pub fn requests() -> [(&'static str, Request); 4] {
    [("1 KB", chat(1_000)), ("10 KB", chat(10_000)), ("100 KB", chat(100_000)), ("image", image())]
}

fn chat(bytes: usize) -> Request {
    let text = "All happy families are alike. ".repeat(bytes.div_ceil(30) / 4 + 1);
    let messages = (0..4).map(|_| Message::text(Role::User, &text)).collect();
    let mut request = Request::chat("openai-chat", "tiny", messages);
    request.sampling.max_tokens = Some(100);
    request
}

fn image() -> Request {
    let mut request = chat(100);
    let part = MediaPart {
        kind: MediaKind::Image,
        mime: Some("image/png".to_owned()),
        source: MediaSource::Base64("iVBORw0KGgoA".repeat(1_000_000 / 12)),
        name: None,
        detail: None,
        cache: None,
        extra: None,
    };
    if let Input::Chat(messages) = &mut request.input
        && let Some(message) = messages.first_mut()
    {
        message.parts.push(Part::Media(part));
    }
    request
}

/// What it costs to encode a request natively, without the copy of it that each call consumes.
pub fn encoded<A: Adapter>(settings: &str, request: &Request) -> Result<f64, Failure> {
    let encode = median(|| A::encode(settings, request.clone()).map_err(|error| error.message.into()))?;
    let copy = median(|| Ok(request.clone()))?;
    Ok((encode - copy).max(0.0))
}

/// A stream of [`CHUNKS`] chunks of text, without its end.
pub struct Stream {
    pub head: ResponseHead,
    pub body: Vec<u8>,
    /// Bytes of what comes before the first chunk of text.
    start: usize,
    /// Bytes of one chunk.
    pub chunk: usize,
    /// Of a chunk in AWS's framing: its type, and where its payload begins.
    kind: &'static str,
    payload: usize,
    /// Where the text lies in what a chunk's frame holds.
    text: usize,
}

/// One message of an AWS event stream.
fn message(kind: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")] {
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = 16 + headers.len() + payload.len();
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&(total as u32).to_be_bytes());
    out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload.as_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

/// The stream of this adapter. `alike`: its chunks differ in nothing but their texts, paddings and times, as those of
/// backends do; else each is written a little otherwise than the one before, so that each has to be parsed.
pub fn stream(adapter: &str, alike: bool) -> Stream {
    let openai = r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}"#;
    let anthropic = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word"}}"#;
    let ollama = r#"{"model":"m","created_at":"2026-11-21T00:00:00.000000Z","message":{"role":"assistant","content":" word"},"done":false}"#;
    let aws = (Framing::AwsEventstream, "application/vnd.amazon.eventstream");
    let sse = (Framing::Sse, "text/event-stream");
    let ((framing, content_type), start, json, kind) = match adapter {
        "bedrock" => (
            aws,
            message("messageStart", r#"{"role":"assistant"}"#),
            r#"{"contentBlockIndex":0,"delta":{"text":" word"},"p":"abcdefgh"}"#,
            "contentBlockDelta",
        ),
        "sagemaker" => (aws, Vec::new(), openai, "PayloadPart"),
        "anthropic" => (
            sse,
            b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n".to_vec(),
            anthropic,
            "content_block_delta",
        ),
        "ollama" => ((Framing::Ndjson, "application/x-ndjson"), Vec::new(), ollama, ""),
        _ => (sse, Vec::new(), openai, ""),
    };
    let framed = |json: &str| match adapter {
        "bedrock" => message(kind, json),
        "sagemaker" => message(kind, &format!("data: {json}\n\n")),
        "anthropic" => format!("event: {kind}\ndata: {json}\n\n").into_bytes(),
        "ollama" => format!("{json}\n").into_bytes(),
        _ => format!("data: {json}\n\n").into_bytes(),
    };
    let mut body = start.clone();
    for number in 0..CHUNKS {
        // Ollama stamps each line with its time: no two are the same.
        let json = json.replace(".000000Z", &format!(".{number:06}Z"));
        body.extend(framed(&match (alike, number % 2) {
            (true, _) => json,
            (false, 0) => json.replacen('{', "{ ", 1),
            (false, _) => json.replacen(',', ", ", 1),
        }));
    }
    let chunk = &body[start.len()..start.len() + (body.len() - start.len()) / CHUNKS];
    let find = |what: &str| chunk.windows(what.len()).position(|window| window == what.as_bytes()).unwrap_or(0);
    let payload = match adapter {
        "bedrock" => find("{"),
        "sagemaker" => find("data: "),
        _ => 0,
    };
    let text = find(WORD) - payload - if framing == Framing::Sse { find("data: ") + 6 } else { 0 };
    let (start, chunk) = (start.len(), chunk.len());
    let headers = vec![("content-type".into(), content_type.into())];
    let head = ResponseHead { status: 200, headers, framing, stream: true };
    Stream { head, body, start, chunk, kind, payload, text }
}

impl Stream {
    /// Of the whole stream, for each MB.
    fn per_megabyte(&self, microseconds: f64) -> f64 {
        microseconds / (self.body.len() as f64 / 1e6)
    }

    /// Copies the bytes once: microseconds for each MB.
    pub fn copied(&self) -> Result<f64, Failure> {
        Ok(self.per_megabyte(median(|| Ok(black_box(self.body.as_slice()).to_vec()))?))
    }

    /// What the contract has anybody do who hands on these chunks: for each network read a list of frames, each of which
    /// holds its bytes as strings of its own, and a list of events, each of which holds its text. Line ends are searched
    /// by `memchr`, and strings are UTF-8; nothing else is looked at.
    pub fn floor(&self) -> Result<f64, Failure> {
        let time = median(|| {
            let mut partial = Vec::new();
            for mut read in self.body[self.start..].chunks(READ) {
                let mut frames = Vec::new();
                // What the network cut is held until the rest of it comes.
                if !partial.is_empty() {
                    let (end, rest) = read.split_at(read.len().min(self.chunk - partial.len()));
                    partial.extend_from_slice(end);
                    self.frames(&partial, &mut frames);
                    read = rest;
                }
                let (whole, cut) = read.split_at(read.len() / self.chunk * self.chunk);
                self.frames(whole, &mut frames);
                partial.clear();
                partial.extend_from_slice(cut);
                drop(black_box(self.events(black_box(frames))));
            }
            Ok(())
        })?;
        Ok(self.per_megabyte(time))
    }

    /// The frames of these chunks.
    fn frames(&self, mut rest: &[u8], frames: &mut Vec<Frame>) {
        let owned = |bytes: &[u8]| str::from_utf8(bytes).unwrap_or_default().to_owned();
        if self.head.framing == Framing::AwsEventstream {
            while let Some((message, after)) = rest.split_at_checked(self.chunk) {
                let headers =
                    [(":event-type", self.kind), (":content-type", "application/json"), (":message-type", "event")];
                frames.push(Frame::Message(EventMessage {
                    headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                    payload: message[self.payload..message.len() - 4].to_vec(),
                }));
                rest = after;
            }
            return;
        }
        let mut event = None;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            match line.split_at_checked(6) {
                _ if self.head.framing == Framing::Ndjson => frames.push(Frame::Line(owned(line))),
                Some((b"data: ", data)) => {
                    frames.push(Frame::Sse(SseEvent { event: event.take(), data: owned(data), id: None }));
                }
                Some((b"event:", name)) => event = Some(owned(name)),
                _ => {}
            }
        }
    }

    /// An event for each frame, with its text.
    fn events(&self, frames: Vec<Frame>) -> Vec<Event> {
        let mut events = Vec::with_capacity(frames.len());
        for frame in frames {
            let content = match &frame {
                Frame::Sse(event) => event.data.as_bytes(),
                Frame::Line(line) => line.as_bytes(),
                Frame::Message(message) => &message.payload,
                Frame::Bytes(bytes) => bytes,
            };
            let text = content.get(self.text..self.text + WORD.len()).unwrap_or_default();
            let text = str::from_utf8(text).unwrap_or_default().to_owned();
            events.push(Event::Text(BlockDelta { index: 0, text, logprobs: None }));
        }
        events
    }

    /// Cuts the stream into frames: microseconds for each MB.
    pub fn framed(&self) -> Result<f64, Failure> {
        let time = median(|| self.each(|_| Ok(())))?;
        Ok(self.per_megabyte(time))
    }

    /// Cuts the stream into frames and decodes them natively: microseconds for each MB.
    pub fn decoded<A: Adapter>(&self, settings: &str) -> Result<f64, Failure> {
        self.fed(|| {
            let mut decoder = A::decoder(settings, None, self.head.clone());
            Ok(move |frames| {
                drop(black_box(decoder.feed(frames)));
                Ok(())
            })
        })
    }

    /// Cuts the stream into frames and gives them to what `decoder` makes: microseconds for each MB.
    pub fn fed<F: FnMut(Vec<Frame>) -> Result<(), Failure>>(
        &self,
        mut decoder: impl FnMut() -> Result<F, Failure>,
    ) -> Result<f64, Failure> {
        Ok(self.per_megabyte(median(|| self.each(decoder()?))?))
    }

    /// Gives the frames of each read to `feed`.
    pub fn each(&self, mut feed: impl FnMut(Vec<Frame>) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut framer = Framer::new(&self.head.framing, Limits::default())?;
        for piece in self.body.chunks(READ) {
            let mut frames = Vec::new();
            framer.push(piece, &mut frames)?;
            feed(frames)?;
        }
        Ok(())
    }

    /// Holds that decoding gives what the stream says: what is fast and wrong would be no measurement.
    pub fn check<A: Adapter>(&self, settings: &str) -> Result<(), Failure> {
        let mut decoder = A::decoder(settings, None, self.head.clone());
        let mut text = String::new();
        self.each(|frames| {
            for event in decoder.feed(frames) {
                if let Event::Text(delta) = event {
                    text.push_str(&delta.text);
                }
            }
            Ok(())
        })?;
        if text == WORD.repeat(CHUNKS) { Ok(()) } else { Err("the stream was decoded to another text".into()) }
    }
}
