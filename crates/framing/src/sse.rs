//! Server-sent events: WHATWG HTML, section 9.2.6, "Interpreting an event stream".
//!
//! Where this departs from the standard's browser: an event that the end of the body closes is handed out (see
//! `Framer::finish`), and an event's `id` is the one of its own lines, not the last one seen. `retry` has no use here.

use witgate_model::{Frame, SseEvent};

use crate::FramingError;
use crate::lines::{Lines, text};

/// Cuts bytes into events.
#[derive(Debug)]
pub(crate) struct Events {
    lines: Lines<true>,
    event: Pending,
}

impl Events {
    /// Events whose lines, and whose data, are at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Events { lines: Lines::new(max), event: Pending { max, ..Pending::default() } }
    }

    /// Appends the events that `bytes` complete.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<Frame>) -> Result<(), FramingError> {
        let event = &mut self.event;
        self.lines.push(bytes, |line, offset| event.line(line, offset, out))
    }

    /// Appends the event that the end of the body closes.
    pub(crate) fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), FramingError> {
        let event = &mut self.event;
        self.lines.finish(|line, offset| event.line(line, offset, out))?;
        event.dispatch(out);
        Ok(())
    }
}

/// The event whose lines are coming.
#[derive(Debug, Default)]
struct Pending {
    event: Option<String>,
    /// `None` until the first `data` line: an event without one is not handed out.
    data: Option<String>,
    id: Option<String>,
    /// Bytes of `data` as they came.
    size: usize,
    /// Where the first `data` line begins.
    offset: u64,
    max: usize,
}

impl Pending {
    fn line(&mut self, line: &[u8], offset: u64, out: &mut Vec<Frame>) -> Result<(), FramingError> {
        // In order of frequency.
        if let Some(value) = line.strip_prefix(b"data:") {
            return self.data(strip_blank(value), offset);
        }
        if line.is_empty() {
            self.dispatch(out);
            return Ok(());
        }
        let (name, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], strip_blank(&line[colon + 1..])),
            None => (line, &line[line.len()..]),
        };
        match name {
            b"data" => return self.data(value, offset),
            // An empty type is the default type, as if there were none.
            b"event" => self.event = (!value.is_empty()).then(|| text(value)),
            b"id" if !value.contains(&0) => self.id = Some(text(value)),
            // A comment (its name is empty), `retry`, or a field that nobody knows.
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, value: &[u8], offset: u64) -> Result<(), FramingError> {
        match &mut self.data {
            None => {
                self.offset = offset;
                self.size = value.len();
                self.data = Some(text(value));
            }
            Some(data) => {
                self.size = self.size.saturating_add(1).saturating_add(value.len());
                if self.size > self.max {
                    let (offset, limit) = (self.offset, self.max);
                    return Err(FramingError::TooLarge { what: "the data of the event", offset, limit });
                }
                data.push('\n');
                match str::from_utf8(value) {
                    Ok(value) => data.push_str(value),
                    Err(_) => data.push_str(&String::from_utf8_lossy(value)),
                }
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, out: &mut Vec<Frame>) {
        let (event, id) = (self.event.take(), self.id.take());
        if let Some(data) = self.data.take() {
            out.push(Frame::Sse(SseEvent { event, data, id }));
        }
    }
}

/// A value without the one blank that may stand behind the colon.
fn strip_blank(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}
