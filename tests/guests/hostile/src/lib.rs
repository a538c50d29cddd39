//! An adapter that misbehaves. What it does wrong is chosen by its settings, `{"do": "…"}`; without them it behaves: it
//! sends an empty object and answers `hello`.

wit_bindgen::generate!({ path: "../../../wit/adapter", world: "adapter" });

use std::cell::{Cell, RefCell};

use exports::witgate::adapter::chat::{Guest, GuestDecoder};
use witgate::adapter::types::*;

struct Hostile;

export!(Hostile);

thread_local! {
    /// How often this instance has encoded: only an instance that is used twice gets to two.
    static ENCODED: Cell<u32> = const { Cell::new(0) };
}

/// What the settings ask for.
fn what(settings: &str) -> &str {
    let Some((_, rest)) = settings.split_once("\"do\"") else { return "" };
    rest.split('"').nth(1).unwrap_or("")
}

/// Never returns, and cannot be optimised away.
fn spin() -> ! {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

/// Takes all memory that it can get.
fn grow() -> ! {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1; 1 << 20]));
    }
}

/// Calls itself until the stack ends.
fn recurse(n: u64) -> u64 {
    let local = std::hint::black_box([n; 64]);
    recurse(n + 1) + local[(n % 64) as usize]
}

/// A text that is none.
fn malformed() -> String {
    // SAFETY: it is not; what reads it must not trust us.
    unsafe { String::from_utf8_unchecked(vec![b'a', 0xff, 0xc0, b'b']) }
}

/// Many texts that are all the same bytes: small in the guest, large where each is copied.
fn aliased() -> Vec<String> {
    let text = "x".repeat(1 << 14).leak();
    let (at, length) = (text.as_mut_ptr(), text.len());
    // SAFETY: it is not, since each of them owns these bytes; what reads them must not trust us.
    (0..100_000).map(|_| unsafe { String::from_raw_parts(at, length, length) }).collect()
}

fn misbehave(what: &str) {
    match what {
        "trap" => std::process::abort(),
        "panic" => panic!("on purpose"),
        "loop" => spin(),
        "grow" => grow(),
        "recurse" => {
            std::hint::black_box(recurse(0));
        }
        _ => {}
    }
}

impl Guest for Hostile {
    type Decoder = Decoder;

    fn describe() -> Description {
        Description {
            id: "hostile".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Misbehaves as its settings say".into(),
            operations: vec!["chat".into()],
            capabilities: vec![],
            dialects: vec![],
            secrets: vec![],
            settings_schema: r#"{"type": "object"}"#.into(),
            // Another host once it has seen a request.
            default_endpoint: Some(match ENCODED.get() {
                0 => "http://127.0.0.1:{port}".into(),
                _ => "http://127.0.0.1:{other}".into(),
            }),
        }
    }

    fn probe(settings: Json) -> Result<Option<HttpRequest>, Error> {
        if let Some(what) = what(&settings).strip_prefix("probe-") {
            misbehave(what);
        }
        Ok(None)
    }

    fn encode(settings: Json, _request: Request) -> Result<HttpRequest, Error> {
        let what = what(&settings);
        misbehave(what);
        let count = ENCODED.get() + 1;
        ENCODED.set(count);
        let mut http = HttpRequest {
            method: "POST".into(),
            path: vec!["v1".into(), "answer".into()],
            query: vec![],
            headers: vec![("content-type".into(), "application/json".into()), ("x-encoded".into(), count.to_string())],
            body: b"{}".to_vec(),
            auth: Auth::None,
            framing: Framing::Whole,
            context: None,
            dropped: vec![],
        };
        match what {
            "bad-path" => http.path.push("..".into()),
            "bad-header" => http.headers.push(("x-evil".into(), "a\r\nhost: elsewhere".into())),
            "bad-method" => http.method = "GET / HTTP/1.1\r\n".into(),
            "bad-auth" => http.headers.push(("authorization".into(), "Bearer stolen".into())),
            "bad-framing" => http.framing = Framing::Other("morse".into()),
            // Copies of a text: each is small.
            "many" => http.path = vec!["x".repeat(1 << 14); 2000],
            "aliased" => http.path = aliased(),
            "large" => http.body = vec![b' '; 40 << 20],
            "gib" => http.body = vec![b' '; 1 << 30],
            // Each slot of a secret that there might be; its own provider has none of them.
            "other-auth" => {
                http.auth =
                    Auth::Header(HeaderAuth { slot: "api_key".into(), name: "x-stolen".into(), prefix: "".into() })
            }
            "other-aws" => {
                http.auth = Auth::AwsSigv4(AwsSigv4Auth {
                    slot: "aws".into(),
                    service: "bedrock".into(),
                    region: Some("us-east-1".into()),
                })
            }
            "slash" => http.path = vec!["..%2f..".into(), "a/../../b".into(), "?q#f".into()],
            "bad-name" => http.headers.push(("x-evil\r\nhost".into(), "a".into())),
            "bad-utf8" => http.path.push(malformed()),
            "host" => http.headers.push(("host".into(), "elsewhere".into())),
            _ => {}
        }
        Ok(http)
    }
}

/// One answer.
struct Decoder {
    what: RefCell<String>,
}

fn started() -> Event {
    Event::Started(Started { id: None, model: None, created: None })
}

fn text(index: u32, text: &str) -> Event {
    Event::Text(BlockDelta { index, text: text.into(), logprobs: None })
}

fn block(index: u32) -> Event {
    Event::BlockStart(BlockStart { index, choice: 0, kind: BlockKind::Text })
}

fn finish() -> Event {
    Event::Finish(Finish { choice: 0, reason: FinishReason::Stop, raw: None, stop_sequence: None })
}

impl GuestDecoder for Decoder {
    fn new(settings: Json, _context: Option<String>, _head: ResponseHead) -> Self {
        let what = what(&settings);
        if let Some(what) = what.strip_prefix("start-") {
            misbehave(what);
        }
        Decoder { what: RefCell::new(what.into()) }
    }

    fn feed(&self, _frames: Vec<Frame>) -> Vec<Event> {
        let what = self.what.borrow();
        if let Some(what) = what.strip_prefix("feed-") {
            misbehave(what);
        }
        match what.as_str() {
            // An answer that `finish` has to end.
            what if what.starts_with("finish-") => vec![started(), block(0), text(0, "hello")],
            "text-utf8" => vec![started(), block(0), text(0, &malformed())],
            "no-start" => vec![text(0, "hello")],
            "no-block" => vec![started(), text(7, "hello")],
            "early-done" => vec![started(), block(0), Event::Done],
            "after-done" => {
                vec![started(), block(0), text(0, "hello"), Event::BlockStop(0), finish(), Event::Done, started()]
            }
            "flood" => vec![
                Event::Usage(Usage {
                    input_tokens: None,
                    output_tokens: None,
                    cache_read_tokens: None,
                    cache_write_tokens: None,
                    reasoning_tokens: None,
                    estimated: false,
                    raw: None,
                });
                10_000
            ],
            "blocks" => [started()].into_iter().chain((0..4000).map(|_| block(0))).collect(),
            _ => vec![started(), block(0), text(0, "hello"), Event::BlockStop(0), finish(), Event::Done],
        }
    }

    fn finish(&self) -> Vec<Event> {
        let what = self.what.borrow();
        if let Some(what) = what.strip_prefix("finish-") {
            misbehave(what);
        }
        vec![]
    }
}
