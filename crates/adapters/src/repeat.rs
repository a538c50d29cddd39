//! Chunks that are as the one before, but for their text.
//!
//! While a model writes, a backend sends the same JSON again and again: only the text differs, and sometimes a padding or a
//! time that says nothing here. So a decoder reads such a chunk once by its general path and notes ([`Repeat::note`])
//! where in it the text stood, and what came of it. A chunk that has the same bytes around a text of its own
//! ([`Repeat::next`]) gives the same event with that text, and need not be parsed.
//!
//! This is right where three things hold, and who notes a chunk has seen to them:
//!
//! - The chunk gave exactly one event, and reading it once more would leave the decoder as it is. Every chunk that is read
//!   by the general path makes what was noted before forgotten ([`Repeat::forget`]), so that nothing can have come
//!   between.
//! - The event's text is that of one JSON string, and nothing but the event depends on that string, as long as it is not
//!   empty.
//! - On the padding nothing depends at all.
//!
//! What is compared is bytes, so a chunk whose members come in another order, or with other blanks, is not taken for the
//! same: it goes the general path, and is noted in its turn. Only blanks around the last brace are free, since
//! Anthropic pads with them. The tests of each decoder hold this path against the general one.

use std::ops::Range;

use witgate_model::{BlockDelta, Event};

use crate::openai_shape::json::Text;
use crate::scan;

/// Longest chunk that is noted, in bytes.
const LONGEST: usize = 4096;

/// Largest chunk whose memory becomes that of its text, in bytes. Of a larger one the text is copied out.
const KEPT: usize = 1024;

/// After so many chunks that were not as the one before, only one of so many is noted.
const UNLIKE: u32 = 8;

/// A chunk without its text.
#[derive(Debug, Default)]
pub(crate) struct Repeat {
    /// What stands in front of, between and behind the holes, in a row, but for the last brace.
    around: String,
    /// Where in `around` the holes are: that of the text, and that of the padding where there is one.
    holes: Vec<usize>,
    /// Which of the holes is the text's.
    text: usize,
    /// What the text is of; `None` where nothing is noted.
    kind: Option<(Kind, u32)>,
    /// How many chunks were noted, or could have been, since the last one that was alike.
    unlike: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Reasoning,
    Arguments,
}

impl Repeat {
    /// Notes that the object `json` gave just these events, where that is one event of nothing but text. `text` is the
    /// inside of the JSON string that held the text, `padding` that of another string, both as they stand in `json`.
    pub fn note(&mut self, json: &str, text: &str, padding: Option<&str>, events: &[Event]) {
        self.kind = None;
        self.unlike = self.unlike.wrapping_add(1);
        if self.unlike > UNLIKE && !self.unlike.is_multiple_of(UNLIKE) {
            return;
        }
        let (kind, delta) = match events {
            [Event::Text(delta)] => (Kind::Text, delta),
            [Event::Reasoning(delta)] => (Kind::Reasoning, delta),
            [Event::Arguments(delta)] => (Kind::Arguments, delta),
            _ => return,
        };
        if delta.logprobs.is_none() && !text.is_empty() && self.cut(json, text, padding, &delta.text).is_some() {
            self.kind = Some((kind, delta.index));
        }
    }

    /// Notes where the holes are, where `text` says what was `told`.
    fn cut(&mut self, json: &str, text: &str, padding: Option<&str>, told: &str) -> Option<()> {
        if json.len() > LONGEST {
            return None;
        }
        let text = place(json, text)?;
        if json.get(text.clone())? != told {
            let quoted = json.get(text.start.checked_sub(1)?..=text.end)?;
            serde_json::from_str::<Text<'_>>(quoted).ok().filter(|text| text.0 == told)?;
        }
        let padding = match padding {
            Some(padding) => Some(place(json, padding)?),
            None => None,
        };
        let end = trim(json).strip_suffix('}').map(trim)?.len();
        self.text = usize::from(padding.as_ref().is_some_and(|padding| padding.start < text.start));
        let mut holes = [Some(text), padding];
        holes.sort_unstable_by_key(|hole| hole.as_ref().map(|hole| hole.start));
        self.around.clear();
        self.holes.clear();
        let mut from = 0;
        for hole in holes.into_iter().flatten() {
            self.around.push_str(json.get(from..hole.start)?);
            self.holes.push(self.around.len());
            from = hole.end;
        }
        self.around.push_str(json.get(from..end)?);
        Some(())
    }

    /// Nothing is noted.
    pub fn forget(&mut self) {
        self.kind = None;
    }

    /// The event of a chunk that is as the one that was noted; else the chunk.
    pub fn next(&mut self, json: String) -> Result<Event, String> {
        let Some((kind, index)) = self.kind else { return Err(json) };
        let Some((text, escaped)) = self.find(&json) else { return Err(json) };
        let text = if escaped {
            let quoted = json.get(text.start.saturating_sub(1)..=text.end).unwrap_or_default();
            match serde_json::from_str::<Text<'_>>(quoted) {
                Ok(text) => text.0.into_owned(),
                Err(_) => return Err(json),
            }
        } else if json.len() > KEPT {
            json.get(text).unwrap_or_default().to_owned()
        } else {
            let mut json = json;
            json.truncate(text.end);
            json.drain(..text.start);
            json
        };
        self.unlike = 0;
        let delta = BlockDelta { index, text, logprobs: None };
        Ok(match kind {
            Kind::Text => Event::Text(delta),
            Kind::Reasoning => Event::Reasoning(delta),
            Kind::Arguments => Event::Arguments(delta),
        })
    }

    /// Where the text is, and whether there are escapes in it; `None` where it is empty, or the chunk is another.
    fn find(&self, json: &str) -> Option<(Range<usize>, bool)> {
        let (json, around) = (json.as_bytes(), self.around.as_bytes());
        let (mut at, mut from, mut text) = (0, 0, None);
        for (number, hole) in self.holes.iter().enumerate() {
            let literal = around.get(from..*hole)?;
            let rest = strip(json.get(at..)?, literal)?;
            at += literal.len();
            let (length, escaped) = string(rest)?;
            if number == self.text {
                text = Some((at..at + length, escaped));
            } else if escaped {
                // Whether these escapes are JSON, the general path has to say.
                return None;
            }
            at += length;
            from = *hole;
        }
        let end = strip(json.get(at..)?, around.get(from..)?)?;
        let ends = end == b"}" || blanks(end).strip_prefix(b"}").is_some_and(|end| blanks(end).is_empty());
        text.filter(|(text, _)| ends && !text.is_empty())
    }
}

/// The inside of a JSON string as it was written; `None` for any other value.
pub(crate) fn inside(value: &serde_json::value::RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

/// Where in `json` this piece of it stands, which is the inside of a string.
fn place(json: &str, piece: &str) -> Option<Range<usize>> {
    let start = piece.as_ptr().addr().checked_sub(json.as_ptr().addr())?;
    let range = start..start.checked_add(piece.len())?;
    let quoted = json.get(start.checked_sub(1)?..=range.end)?;
    (quoted.strip_prefix('"')?.strip_suffix('"')? == piece).then_some(range)
}

/// Text without the blanks of JSON at its end.
fn trim(json: &str) -> &str {
    json.trim_end_matches([' ', '\n', '\r', '\t'])
}

/// Bytes without the blanks of JSON at their begin.
fn blanks(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t'));
    bytes.get(end.unwrap_or(bytes.len())..).unwrap_or_default()
}

/// What stands behind `start`. Eight bytes at a time: a component has no other fast way to compare.
fn strip<'b>(bytes: &'b [u8], start: &[u8]) -> Option<&'b [u8]> {
    let (head, rest) = bytes.split_at_checked(start.len())?;
    let ((ours, end), (theirs, their_end)) = (head.as_chunks::<8>(), start.as_chunks::<8>());
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let difference = ours.iter().zip(theirs).fold(0, |found, (one, other)| found | (word(one) ^ word(other)));
    (difference == 0 && end == their_end).then_some(rest)
}

/// How many bytes the string has whose inside begins here, and whether there are escapes in it.
fn string(bytes: &[u8]) -> Option<(usize, bool)> {
    let (mut at, mut escaped) = (0, false);
    loop {
        at += scan::plain(bytes.get(at..)?);
        match bytes.get(at)? {
            b'"' => return Some((at, escaped)),
            b'\\' => {
                escaped = true;
                at += 2;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes a chunk, of which these pieces are text and padding.
    fn noted(json: &str, text: &str, padding: Option<&str>) -> Repeat {
        let place = |piece: &str| json.find(piece).map(|at| &json[at..at + piece.len()]).unwrap();
        let mut repeat = Repeat::default();
        repeat.note(json, place(text), padding.map(place), &[Event::text(3, text)]);
        repeat
    }

    fn next(repeat: &mut Repeat, json: &str) -> Option<Event> {
        let result = repeat.next(json.to_owned());
        if let Err(given_back) = &result {
            assert_eq!(given_back, json);
        }
        result.ok()
    }

    #[test]
    fn a_chunk_that_differs_only_in_its_text_is_read_by_it() {
        let mut repeat = noted(r#"{"index":0,"text":"word"}"#, "word", None);
        for (text, said) in [
            ("word", "word"),
            ("a", "a"),
            ("grüße 🦙", "grüße 🦙"),
            (r"\n\u00e9\\", "\n\u{e9}\\"),
            (
                "a text that is much longer than any word of the other",
                "a text that is much longer than any word of the other",
            ),
        ] {
            let json = format!(r#"{{"index":0,"text":"{text}"}}"#);
            assert_eq!(next(&mut repeat, &json), Some(Event::text(3, said)), "{json}");
        }
    }

    #[test]
    fn padding_may_be_any_plain_text_on_either_side_and_the_last_brace_may_stand_apart() {
        for shape in [r#"{"p":"PAD","text":"TEXT"}"#, r#"{"text":"TEXT","a":[1],"p":"PAD"}"#] {
            let mut repeat = noted(shape, "TEXT", Some("PAD"));
            for (padding, spaces) in [("", ""), ("abcdefghijkl", ""), ("é", " "), ("x", "     \n")] {
                let json = shape.replace("PAD", padding).replace("TEXT", "b");
                let json = format!("{}{spaces}}}{spaces}", json.strip_suffix('}').unwrap());
                assert_eq!(next(&mut repeat, &json), Some(Event::text(3, "b")), "{json}");
            }
            assert_eq!(next(&mut repeat, &shape.replace("PAD", r"\n")), None);
        }
    }

    #[test]
    fn any_other_chunk_is_given_back() {
        let mut repeat = noted(r#"{"index":0,"text":"word","more":null}"#, "word", None);
        for json in [
            "",
            "{",
            r#"{"index":0,"text":"#,
            r#"{"index":0,"text":"word"#,
            r#"{"index":0,"text":"word\"#,
            r#"{"index":0,"text":"","more":null}"#,
            r#"{"index":1,"text":"word","more":null}"#,
            r#"{"index":0,"text":"word","more":1234}"#,
            r#"{"index":0,"text":"word","more":null"#,
            r#"{"index":0,"text":"word","more":null},"#,
            r#"{"index":0,"text":"word","more":null}}"#,
            r#"{"index":0,"text":"wo"rd","more":null}"#,
            r#"{"index":0,"text":"wo\xrd","more":null}"#,
            r#"{"index":0,"text":"\ud800","more":null}"#,
            "{\"index\":0,\"text\":\"wo\trd\",\"more\":null}",
        ] {
            assert_eq!(next(&mut repeat, json), None, "{json}");
        }
    }

    #[test]
    fn nothing_is_noted_of_a_chunk_that_gave_more_than_a_text_or_is_too_long() {
        let json = r#"{"text":"word"}"#;
        let text = &json[9..13];
        let log = Event::Text(BlockDelta { index: 0, text: "word".into(), logprobs: Some("{}".into()) });
        for events in [
            vec![],
            vec![Event::Done],
            vec![Event::text(0, "")],
            vec![log],
            vec![Event::text_start(0, 0), Event::text(0, "word")],
        ] {
            let mut repeat = noted(json, "word", None);
            repeat.note(json, text, None, &events);
            assert_eq!(next(&mut repeat, json), None, "{events:?}");
        }
        let mut repeat = noted(json, "word", None);
        repeat.note(json, "word", None, &[Event::text(0, "word")]);
        assert_eq!(next(&mut repeat, json), None, "a text from elsewhere");
        let long = format!(r#"{{"pad":"{}","text":"word"}}"#, "x".repeat(LONGEST));
        assert_eq!(next(&mut noted(&long, "word", None), &long), None);
        let mut repeat = noted(json, "word", None);
        repeat.forget();
        assert_eq!(next(&mut repeat, json), None);
    }

    #[test]
    fn a_small_text_does_not_hold_the_memory_of_a_large_chunk() {
        let json = format!(r#"{{"pad":"{}","text":"word"}}"#, "x".repeat(KEPT));
        let Some(Event::Text(delta)) = next(&mut noted(&json, "word", None), &json) else { panic!("not known") };
        assert!(delta.text.capacity() < KEPT, "{}", delta.text.capacity());
    }

    #[test]
    fn where_chunks_are_never_alike_few_are_noted_and_the_first_that_are_alike_are_found() {
        let json = r#"{"text":"word"}"#;
        let mut repeat = Repeat::default();
        let note = |repeat: &mut Repeat| {
            repeat.forget();
            repeat.note(json, &json[9..13], None, &[Event::text(3, "word")]);
            repeat.kind.is_some()
        };
        let noted: Vec<bool> = (0..3 * UNLIKE).map(|_| note(&mut repeat)).collect();
        assert_eq!(noted.iter().filter(|noted| **noted).count() as u32, UNLIKE + 2);
        assert!(noted.ends_with(&[true]));
        assert!(next(&mut repeat, json).is_some());
        assert!(note(&mut repeat));
    }
}
