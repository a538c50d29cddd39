//! Bytes to frames: cuts an upstream answer as its [`Framing`] says, however the network cut it before.
//!
//! A [`Framer`] takes the bytes of one answer as they come and hands out [`Frame`]s as soon as they are complete. The
//! same bytes give the same frames and the same error, wherever they were cut (for `raw`, whose frames are the
//! network's own pieces, the bytes in a row are the same). Everything that is buffered has a bound ([`Limits`]).
//!
//! | framing | one frame is | at the end of the body |
//! |---|---|---|
//! | `whole` | the whole body, even an empty one | the body is handed out |
//! | `sse` | one event that has data; comments are dropped | an event that is not yet closed by a blank line is handed out |
//! | `ndjson` | one line that is not blank | a last line without a line feed is handed out |
//! | `aws-eventstream` | one message whose checksums hold | left-over bytes are an error |
//! | `raw` | one piece as the network delivered it | nothing |
//!
//! This crate does no IO, reads no clock and no environment.
//!
//! ```
//! use witgate_framing::{Framer, Limits};
//! use witgate_model::{Frame, Framing, SseEvent};
//!
//! let mut framer = Framer::new(&Framing::Sse, Limits::default())?;
//! let mut frames = Vec::new();
//! framer.push(b"data: {\"text\":", &mut frames)?;
//! framer.push(b"\"Hi\"}\r", &mut frames)?;
//! framer.push(b"\n\r\ndata: [DONE]", &mut frames)?;
//! framer.finish(&mut frames)?;
//! let event = |data: &str| Frame::Sse(SseEvent { event: None, data: data.to_owned(), id: None });
//! assert_eq!(frames, [event("{\"text\":\"Hi\"}"), event("[DONE]")]);
//! # Ok::<(), witgate_framing::FramingError>(())
//! ```

mod aws;
mod content;
mod lines;
mod sse;

use witgate_model::{Frame, Framing};

pub use content::effective;

/// The most that one answer may make us hold. All bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of one frame, for `sse` (each line, comments too, and the data of one event with the line feeds
    /// that join it), `ndjson` (one line without its line feed) and `aws-eventstream` (one message from its length to
    /// its last checksum). Default: 16 MiB.
    pub max_frame_bytes: usize,
    /// The most bytes of a body that is cut `whole`. Default: 32 MiB.
    pub max_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_frame_bytes: 16 << 20, max_body_bytes: 32 << 20 }
    }
}

/// Why bytes could not be cut into frames. Offsets count the bytes of the body, from 0, up to where the frame at fault
/// begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A frame is larger than its bound. At most the bound and one network read were held for it.
    #[error("{what} that begins at byte {offset} of the answer is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What is too large, with its article, as `the line`.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// The bound, in bytes.
        limit: usize,
    },
    /// A checksum of an AWS event stream does not hold.
    #[error(
        "the {part} checksum of the event-stream message at byte {offset} of the answer is {found:#010x}, but its bytes \
         give {computed:#010x}: the answer was damaged, or is no application/vnd.amazon.eventstream"
    )]
    Checksum {
        /// `prelude` (the first 8 bytes of a message) or `message` (all of it).
        part: &'static str,
        /// Where the message begins.
        offset: u64,
        /// The checksum that the message carries.
        found: u32,
        /// The checksum of the bytes that came.
        computed: u32,
    },
    /// The body ended inside a frame.
    #[error(
        "the answer ended inside the event-stream message that begins at byte {offset}: {have} bytes of it came, {}",
        Wanted(*.want)
    )]
    Truncated {
        /// Where the message begins.
        offset: u64,
        /// How many of its bytes came.
        have: usize,
        /// How many it has; `None` where not even the length came whole.
        want: Option<usize>,
    },
    /// The bytes break the rules of the framing.
    #[error("the event-stream message at byte {offset} of the answer is malformed: {reason}")]
    Malformed {
        /// Where the message begins.
        offset: u64,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A framing that this crate does not know.
    #[error("unknown framing {0:?}: known are whole, sse, ndjson, aws-eventstream and raw")]
    Unknown(String),
    /// [`Framer::push`] or [`Framer::finish`] was called after [`Framer::finish`].
    #[error("the framer was used again after the end of its answer: make one framer for each answer")]
    Finished,
}

/// The part of the message on a truncated answer that says what would be right.
struct Wanted(Option<usize>);

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(want) => write!(f, "its length says {want}"),
            None => write!(f, "12 are needed to know its length"),
        }
    }
}

/// Cuts the body of one answer into frames.
#[derive(Debug)]
pub struct Framer {
    state: State,
    limits: Limits,
    /// Set by the first error, and at the end: what every further call returns.
    ended: Option<FramingError>,
}

#[derive(Debug)]
enum State {
    Whole(Vec<u8>),
    Sse(sse::Events),
    Ndjson(lines::Lines<false>),
    AwsEventstream(aws::Messages),
    Raw,
}

impl Framer {
    /// A framer for one answer that is cut as `framing` says.
    ///
    /// # Errors
    ///
    /// [`FramingError::Unknown`] for [`Framing::Other`].
    pub fn new(framing: &Framing, limits: Limits) -> Result<Framer, FramingError> {
        let max = limits.max_frame_bytes;
        let state = match framing {
            Framing::Whole => State::Whole(Vec::new()),
            Framing::Sse => State::Sse(sse::Events::new(max)),
            Framing::Ndjson => State::Ndjson(lines::Lines::new(max)),
            Framing::AwsEventstream => State::AwsEventstream(aws::Messages::new(max)),
            Framing::Raw => State::Raw,
            Framing::Other(name) => return Err(FramingError::Unknown(name.clone())),
        };
        Ok(Framer { state, limits, ended: None })
    }

    /// Takes the bytes of one network read, and appends the frames that they complete to `out`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the answer. The frames in front of the fault are in `out` nevertheless. Every further
    /// call returns the same error.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Frame>) -> Result<(), FramingError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let result = match &mut self.state {
            State::Whole(body) => {
                let limit = self.limits.max_body_bytes;
                if bytes.len() > limit.saturating_sub(body.len()) {
                    *body = Vec::new();
                    Err(FramingError::TooLarge { what: "the body", offset: 0, limit })
                } else {
                    body.extend_from_slice(bytes);
                    Ok(())
                }
            }
            State::Sse(events) => events.push(bytes, out),
            State::Ndjson(lines) => lines.push(bytes, |line, _| {
                line_frame(line, out);
                Ok(())
            }),
            State::AwsEventstream(messages) => messages.push(bytes, out),
            State::Raw => {
                if !bytes.is_empty() {
                    out.push(Frame::Bytes(bytes.to_vec()));
                }
                Ok(())
            }
        };
        if let Err(error) = &result {
            self.end(error.clone());
        }
        result
    }

    /// The body has ended: appends what is still to be handed out to `out`.
    ///
    /// `whole` gives its one frame here. `ndjson` gives a last line that has no line feed. `sse` gives the event that
    /// the end of the body closed: the standard drops it, but backends of language models do end an answer without
    /// its last blank line, or even its last line end. `aws-eventstream` gives nothing, and wants nothing left over.
    ///
    /// # Errors
    ///
    /// As [`Framer::push`], and [`FramingError::Truncated`] for an AWS event stream that ended inside a message.
    pub fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), FramingError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let result = match &mut self.state {
            State::Whole(body) => {
                out.push(Frame::Bytes(std::mem::take(body)));
                Ok(())
            }
            State::Sse(events) => events.finish(out),
            State::Ndjson(lines) => lines.finish(|line, _| {
                line_frame(line, out);
                Ok(())
            }),
            State::AwsEventstream(messages) => messages.finish(),
            State::Raw => Ok(()),
        };
        self.end(result.clone().err().unwrap_or(FramingError::Finished));
        result
    }

    /// Lets go of what is held: nothing more comes of it.
    fn end(&mut self, error: FramingError) {
        self.state = State::Raw;
        self.ended = Some(error);
    }
}

/// An NDJSON line, unless it is blank. `line` still has the CR of a CRLF.
fn line_frame(line: &[u8], out: &mut Vec<Frame>) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !line.trim_ascii().is_empty() {
        out.push(Frame::Line(lines::text(line)));
    }
}
