//! AWS event stream: `application/vnd.amazon.eventstream`.
//!
//! A message is a prelude (total length, length of the headers, CRC-32 of these 8 bytes; 4 bytes each, big-endian),
//! headers, payload, and the CRC-32 of all before it. The prelude is verified, and its lengths are held against their
//! bounds, as soon as its 12 bytes are there: before anything is buffered for the rest.

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use witgate_model::{EventMessage, Field, Frame};

use crate::FramingError;

const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;
/// AWS's own bound on the headers of one message. Headers can be as short as two bytes and cost a hundred once parsed.
const MAX_HEADERS: usize = 128 << 10;
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
}

impl Messages {
    /// Messages of at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Messages { partial: Vec::new(), length: None, offset: 0, max }
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
            out.push(Frame::Message(self.parse(&self.partial)?));
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
            out.push(Frame::Message(self.parse(message)?));
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
        let computed = crc32(&message[..8]);
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

    /// One message, which has the length that its prelude says.
    fn parse(&self, bytes: &[u8]) -> Result<EventMessage, FramingError> {
        let message = match read_message_from(bytes) {
            Ok(message) => message,
            // A damaged header fails before the checksum is looked at; the damage is what to report.
            Err(error) => {
                let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
                let (found, computed) = (number(checksum, 0), crc32(content));
                return Err(if found == computed {
                    self.malformed(error.to_string())
                } else {
                    FramingError::Checksum { part: "message", offset: self.offset, found, computed }
                });
            }
        };
        let mut headers: Vec<Field> = Vec::with_capacity(message.headers().len());
        for header in message.headers() {
            headers.push((header.name().as_str().to_owned(), self.value(header.value())?));
        }
        Ok(EventMessage { headers, payload: message.payload().to_vec() })
    }

    /// A header's value as text.
    fn value(&self, value: &HeaderValue) -> Result<String, FramingError> {
        Ok(match value {
            HeaderValue::Bool(value) => value.to_string(),
            HeaderValue::Byte(value) => value.to_string(),
            HeaderValue::Int16(value) => value.to_string(),
            HeaderValue::Int32(value) => value.to_string(),
            HeaderValue::Int64(value) => value.to_string(),
            HeaderValue::ByteArray(value) => STANDARD.encode(value),
            HeaderValue::String(value) => value.as_str().to_owned(),
            HeaderValue::Timestamp(value) => {
                (i128::from(value.secs()) * 1000 + i128::from(value.subsec_nanos() / 1_000_000)).to_string()
            }
            HeaderValue::Uuid(value) => {
                let hex = format!("{value:032x}");
                [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
            }
            _ => return Err(self.malformed("a header has a value of a type that is not known here".to_owned())),
        })
    }

    fn malformed(&self, reason: String) -> FramingError {
        FramingError::Malformed { offset: self.offset, reason }
    }
}

/// The big-endian number in the four bytes from `at` on; the callers have seen that they are there.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// CRC-32 as in Ethernet and gzip: for preludes, and to name the fault of a message. Good messages are verified by
/// `read_message_from`.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, &byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_checksum_is_the_one_of_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
