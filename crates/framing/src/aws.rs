//! AWS event stream: `application/vnd.amazon.eventstream`.
//!
//! A message is a prelude (total length, length of the headers, CRC-32 of these 8 bytes; 4 bytes each, big-endian),
//! headers, payload, and the CRC-32 of all before it. The prelude is verified, and its lengths are held against their
//! bounds, as soon as its 12 bytes are there: before anything is buffered for the rest.
//!
//! A header is its name (a byte of length, then UTF-8), a byte of type, and a value of that type; AWS's own crate reads
//! them through a tree of shared buffers, which cost more than all else here, so they are read where they lie, and those
//! of a message that has the same as the one before are copied. The tests hold what comes out against that crate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use witgate_model::{EventMessage, Field, Frame};

use crate::FramingError;

const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;
/// AWS's own bound on the headers of one message. Headers can be as short as two bytes and cost a hundred once parsed.
const MAX_HEADERS: usize = 128 << 10;
/// Most bytes of headers that are remembered for the next message.
const REMEMBERED: usize = 1 << 10;
/// What the buffer may keep of its room for the next message.
const KEPT_CAPACITY: usize = 32 << 10;

/// Cuts bytes into messages.
#[derive(Debug)]
pub(crate) struct Messages {
    /// The begin of a message that the network cut; empty as long as the network cuts between messages.
    partial: Vec<u8>,
    /// The total length of the message in `partial`, once it is known and found right.
    length: Option<usize>,
    /// Where the current message begins.
    offset: u64,
    max: usize,
    /// The headers of the last message, as they came and as they are handed out: mostly, the next has the same.
    last: (Vec<u8>, Vec<Field>),
}

impl Messages {
    /// Messages of at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Messages { partial: Vec::new(), length: None, offset: 0, max, last: Default::default() }
    }

    /// Appends the messages that `bytes` complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Frame>) -> Result<(), FramingError> {
        // First what the network cut before: its prelude, then the rest of it.
        while !self.partial.is_empty() {
            let want = self.length.unwrap_or(PRELUDE);
            let (head, rest) = bytes.split_at(bytes.len().min(want.saturating_sub(self.partial.len())));
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() < want {
                return Ok(());
            }
            if self.length.is_none() {
                self.length = Some(self.length_of(&self.partial)?);
                continue;
            }
            out.push(Frame::Message(parse(&self.partial, self.offset, &mut self.last)?));
            self.offset += want as u64;
            self.length = None;
            self.partial.clear();
            self.partial.shrink_to(KEPT_CAPACITY);
        }
        // Then whole messages, from where they lie.
        while bytes.len() >= PRELUDE {
            let length = self.length_of(bytes)?;
            let Some((message, rest)) = bytes.split_at_checked(length) else {
                self.length = Some(length);
                break;
            };
            out.push(Frame::Message(parse(message, self.offset, &mut self.last)?));
            self.offset += length as u64;
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// The bytes have ended: there must be nothing left.
    pub(crate) fn finish(&self) -> Result<(), FramingError> {
        match self.partial.len() {
            0 => Ok(()),
            have => Err(FramingError::Truncated { offset: self.offset, have, want: self.length }),
        }
    }

    /// The total length of the message that begins with these 12 bytes or more.
    fn length_of(&self, message: &[u8]) -> Result<usize, FramingError> {
        let (total, headers, found) = (number(message, 0), number(message, 4), number(message, 8));
        let computed = crc32fast::hash(message.get(..8).unwrap_or_default());
        if found != computed {
            return Err(FramingError::Checksum { part: "prelude", offset: self.offset, found, computed });
        }
        let (total, headers) = (total as usize, headers as usize);
        if total > self.max {
            let (offset, limit) = (self.offset, self.max);
            return Err(FramingError::TooLarge { what: "the event-stream message", offset, limit });
        }
        if headers > MAX_HEADERS {
            return Err(self.malformed(format!("its headers have {headers} bytes, at most {MAX_HEADERS} are allowed")));
        }
        if total < headers + PRELUDE + CHECKSUM {
            return Err(self.malformed(format!(
                "its length says {total} bytes, at least {} are needed with its {headers} bytes of headers",
                headers + PRELUDE + CHECKSUM
            )));
        }
        Ok(total)
    }

    fn malformed(&self, reason: String) -> FramingError {
        FramingError::Malformed { offset: self.offset, reason }
    }
}

/// One message, which has the length that its prelude says; `last` are the headers of the one before.
fn parse(bytes: &[u8], offset: u64, last: &mut (Vec<u8>, Vec<Field>)) -> Result<EventMessage, FramingError> {
    let (content, checksum) = bytes.split_at(bytes.len().saturating_sub(CHECKSUM));
    let (found, computed) = (number(checksum, 0), crc32fast::hash(content));
    if found != computed {
        return Err(FramingError::Checksum { part: "message", offset, found, computed });
    }
    let content = content.get(PRELUDE..).unwrap_or_default();
    let Some((all, payload)) = content.split_at_checked(number(bytes, 4) as usize) else {
        return Err(FramingError::Malformed { offset, reason: "its headers are longer than it is".to_owned() });
    };
    let headers = if !all.is_empty() && *all == *last.0 {
        last.1.clone()
    } else {
        let (mut rest, mut headers) = (all, Vec::new());
        while !rest.is_empty() {
            headers.push(header(&mut rest).map_err(|reason| FramingError::Malformed { offset, reason })?);
        }
        if all.len() <= REMEMBERED {
            *last = (all.to_vec(), headers.clone());
        }
        headers
    };
    Ok(EventMessage { headers, payload: payload.to_vec() })
}

/// Takes one header, its value as text. The error says what is wrong with it.
fn header(rest: &mut &[u8]) -> Result<Field, String> {
    let length = array::<1>(rest)?[0];
    let name = text(take(rest, length.into())?, "name")?;
    let value = match array::<1>(rest)?[0] {
        0 => "true".to_owned(),
        1 => "false".to_owned(),
        2 => i8::from_be_bytes(array(rest)?).to_string(),
        3 => i16::from_be_bytes(array(rest)?).to_string(),
        4 => i32::from_be_bytes(array(rest)?).to_string(),
        // A timestamp, of type 8, counts milliseconds.
        5 | 8 => i64::from_be_bytes(array(rest)?).to_string(),
        6 => {
            let length = u16::from_be_bytes(array(rest)?);
            STANDARD.encode(take(rest, length.into())?)
        }
        7 => {
            let length = u16::from_be_bytes(array(rest)?);
            text(take(rest, length.into())?, "value")?
        }
        9 => {
            let hex = format!("{:032x}", u128::from_be_bytes(array(rest)?));
            [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
        }
        unknown => return Err(format!("its header `{name}` has a value of type {unknown}: types are 0 to 9")),
    };
    Ok((name, value))
}

/// Takes so many bytes.
fn take<'b>(rest: &mut &'b [u8], length: usize) -> Result<&'b [u8], String> {
    let (taken, after) = rest.split_at_checked(length).ok_or_else(|| {
        let have = rest.len();
        format!("a header has {length} more bytes, where only {have} are left of all headers")
    })?;
    *rest = after;
    Ok(taken)
}

/// Takes a number's bytes.
fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let taken = take(rest, N)?;
    taken.try_into().map_err(|_| "a header was cut".to_owned())
}

/// Text of a header.
fn text(bytes: &[u8], what: &str) -> Result<String, String> {
    str::from_utf8(bytes).map(str::to_owned).map_err(|error| format!("a header's {what} is not UTF-8: {error}"))
}

/// The big-endian number in the four bytes from `at` on; the callers have seen that they are there.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}
