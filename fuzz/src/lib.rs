//! What the fuzz targets share: cutting inputs into pieces, and making event-stream messages that a decoder reads.

pub mod order;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use witgate_framing::{Framer, FramingError, Limits};
use witgate_model::{Frame, Framing};

/// One answer as it came off the network: what each read completed, and how it ended.
pub struct Cut {
    /// For each read, and last for the end of the body, the frames that it completed.
    pub batches: Vec<Vec<Frame>>,
    /// Why the answer could not be cut any further.
    pub error: Option<FramingError>,
}

impl Cut {
    /// All frames; what `raw` handed on piece by piece is joined.
    pub fn frames(self, framing: &Framing) -> Vec<Frame> {
        let frames = self.batches.into_iter().flatten();
        if *framing != Framing::Raw {
            return frames.collect();
        }
        let bytes = frames.flat_map(|frame| match frame {
            Frame::Bytes(bytes) => bytes,
            other => panic!("raw gave {other:?}"),
        });
        vec![Frame::Bytes(bytes.collect())]
    }
}

/// Cuts an answer that comes in these pieces. After an error a framer must stay where it is.
pub fn cut<'a>(framing: &Framing, limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Cut {
    let mut framer = Framer::new(framing, limits).expect("a known framing");
    let mut batches = Vec::new();
    for piece in pieces {
        let mut frames = Vec::new();
        let result = framer.push(piece, &mut frames);
        batches.push(frames);
        if let Err(error) = result {
            let mut none = Vec::new();
            assert_eq!(framer.push(b"data: x\n\n", &mut none), Err(error.clone()));
            assert_eq!(framer.finish(&mut none), Err(error.clone()));
            assert!(none.is_empty(), "frames after an error");
            return Cut { batches, error: Some(error) };
        }
    }
    let mut frames = Vec::new();
    let error = framer.finish(&mut frames).err();
    batches.push(frames);
    Cut { batches, error }
}

/// The bytes in pieces whose lengths follow from the bytes themselves: mostly short, some long, some empty.
pub fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    // FNV-1a, then a linear congruential generator.
    let mut state = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 33) as usize;
        let longest = [3, 3, 20, 300][random % 4];
        let (piece, rest) = bytes.split_at(bytes.len().min(random / 4 % longest));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Puts right checksums into bytes that are laid out as messages of an event stream: no fuzzer guesses them.
pub fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while bytes.len() - at >= 12 {
        let sum = crc32(&bytes[at..at + 8]);
        bytes[at + 8..at + 12].copy_from_slice(&sum.to_be_bytes());
        let total = bytes[at..at + 4].iter().fold(0, |number, &byte| number << 8 | usize::from(byte));
        if total < 16 || total > bytes.len() - at {
            break;
        }
        let end = at + total;
        let sum = crc32(&bytes[at..end - 4]);
        bytes[end - 4..end].copy_from_slice(&sum.to_be_bytes());
        at = end;
    }
    bytes
}

/// An event stream out of text: each line `e NAME PAYLOAD` is an event, `x NAME PAYLOAD` an exception, `r CODE TEXT` an
/// error, `b NAME TEXT` an event that carries the text in base64, as InvokeModel's do, `l NAME TEXT` one that carries lines,
/// as SageMaker's do, with byte 1 in place of their ends; any other line is a message without headers.
pub fn written(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        let (kind, name, rest) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
        let header = |name: &'static str, value: &str| Header::new(name, HeaderValue::String(value.to_owned().into()));
        let message = match kind {
            Some(kind @ (b"e" | b"b" | b"l")) => {
                let payload = match kind {
                    b"b" => format!("{{\"bytes\":\"{}\"}}", aws_smithy_types::base64::encode(rest)).into_bytes(),
                    b"l" => rest.iter().map(|&byte| if byte == 1 { b'\n' } else { byte }).collect(),
                    _ => rest.to_vec(),
                };
                Message::new(payload)
                    .add_header(header(":event-type", &name))
                    .add_header(header(":content-type", "application/json"))
                    .add_header(header(":message-type", "event"))
            }
            Some(b"x") => Message::new(rest.to_vec())
                .add_header(header(":exception-type", &name))
                .add_header(header(":content-type", "application/json"))
                .add_header(header(":message-type", "exception")),
            Some(b"r") => Message::new(Vec::new())
                .add_header(header(":error-code", &name))
                .add_header(header(":error-message", &String::from_utf8_lossy(rest)))
                .add_header(header(":message-type", "error")),
            _ => Message::new(line.to_vec()),
        };
        // A header's value of more than 65,535 bytes cannot be written: then there is no such message.
        let before = bytes.len();
        if write_message_to(&message, &mut bytes).is_err() {
            bytes.truncate(before);
        }
    }
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}
