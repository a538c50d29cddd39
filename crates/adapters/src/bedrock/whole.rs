//! Answers that come in one JSON object and are no conversation: vectors, counts.

use witgate_model::{Error, Event, Frame, ResponseHead};

use super::Codec;
use super::answer::Head;
use super::invoke::{Counts, count, embed};
use super::json::Members;

/// Decodes one such answer.
#[derive(Debug)]
pub(super) struct Decoder {
    codec: Codec,
    head: Head,
    counts: Counts,
    body: Vec<u8>,
    ended: bool,
}

impl Decoder {
    pub fn new(codec: Codec, head: &ResponseHead) -> Self {
        Decoder { codec, counts: Counts::new(head), head: Head::new(head), body: Vec::new(), ended: false }
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Error> {
        match frame {
            Frame::Bytes(bytes) => self.head.collect(&mut self.body, bytes),
            _ => Err(self.head.malformed("it came in frames, not as one JSON object")),
        }
    }

    fn answer(&self) -> Result<Vec<Event>, Error> {
        let answer = Members::parse_bytes(&self.body).ok().filter(|_| self.head.is_answer());
        let events = answer.and_then(|answer| match self.codec {
            Codec::Titan => embed::titan(&answer, self.counts),
            Codec::Cohere => embed::cohere(&answer, self.counts),
            _ => count::decode(&answer),
        });
        events.ok_or_else(|| self.head.error_body(&self.body))
    }
}

impl witgate_model::Decoder for Decoder {
    fn feed(&mut self, frames: Vec<Frame>) -> Vec<Event> {
        for frame in frames {
            if self.ended {
                break;
            }
            if let Err(error) = self.frame(frame) {
                self.ended = true;
                return vec![Event::Failed(error)];
            }
        }
        Vec::new()
    }

    fn finish(&mut self) -> Vec<Event> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        self.answer().unwrap_or_else(|error| vec![Event::Failed(error)])
    }
}
