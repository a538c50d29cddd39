//! Members of a backend's answer that the contract does not name, on their way to the client.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::read::{Kind, Reader};
use crate::write;

/// Nesting allowed in what a backend sent.
pub(crate) const DEPTH: usize = 128;

/// Names in an object of log probabilities; OpenAI's two shapes have 2 and 4.
const MOST_NAMES: usize = 32;

/// JSON that an adapter gave, fit for one line: `None` where it is not one JSON object.
pub(crate) fn one_line_object(json: &str) -> Option<Cow<'_, str>> {
    let mut reader = Reader::new(json, DEPTH);
    let object = reader.raw_object().ok()?;
    reader.end().ok()?;
    Some(one_line(object))
}

/// Valid JSON without line ends: outside strings they are blanks, and inside strings they cannot be.
fn one_line(json: &str) -> Cow<'_, str> {
    if json.bytes().any(|byte| byte == b'\n' || byte == b'\r') {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

/// As [`one_line`], for a string of one's own.
pub(crate) fn one_line_owned(json: String) -> String {
    match one_line(&json) {
        Cow::Borrowed(_) => json,
        Cow::Owned(line) => line,
    }
}

/// The elements of a JSON array that is known to be one, without its brackets.
pub(crate) fn elements(array: &str) -> &str {
    array.get(1..array.len().saturating_sub(1)).unwrap_or_default().trim()
}

/// Members that wait for the object that they will be written into.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    members: Vec<(String, String)>,
}

impl Waiting {
    /// Adds the members of `object`, except those that are `ours`. A later member replaces an earlier one of its name.
    /// What is not a JSON object is left out.
    pub(crate) fn add(&mut self, object: &str, ours: &[&str]) {
        let mut reader = Reader::new(object, DEPTH);
        let before = self.members.len();
        let result = reader.object(|reader, name| {
            let value = reader.raw()?;
            if !ours.contains(&&*name.text) {
                self.members.push((name.text.clone().into_owned(), one_line(value).into_owned()));
            }
            Ok(())
        });
        if result.and_then(|()| reader.end()).is_err() {
            self.members.truncate(before);
            return;
        }
        // Names within one object are unique; only the earlier ones can be replaced.
        if before > 0 {
            let members = self.members.split_off(before);
            self.extend(Waiting { members });
        }
    }

    /// Adds the members of `later`, which replace those of their names.
    pub(crate) fn extend(&mut self, later: Waiting) {
        let names: BTreeSet<&str> = later.members.iter().map(|(name, _)| name.as_str()).collect();
        self.members.retain(|(name, _)| !names.contains(name.as_str()));
        self.members.extend(later.members);
    }

    /// Adds one member.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        self.members.push((name.to_owned(), one_line(value).into_owned()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes the member of that name out.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.members.iter().position(|(own, _)| own == name)?;
        Some(self.members.remove(at).1)
    }

    /// Forgets the members of those names.
    pub(crate) fn remove(&mut self, names: &[&str]) {
        self.members.retain(|(own, _)| !names.contains(&own.as_str()));
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(own, _)| own == name)
    }

    /// Writes all of them, each behind a comma (the first one too, unless `first`), and forgets them.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, first: bool) {
        self.show(out, first);
        self.members.clear();
    }

    /// As [`Waiting::write`], but keeps them.
    pub(crate) fn show(&self, out: &mut Vec<u8>, mut first: bool) {
        for (name, value) in &self.members {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            write::string(out, name);
            out.push(b':');
            out.extend_from_slice(value.as_bytes());
        }
    }
}

/// Objects of arrays that come in pieces: arrays of the same name are joined, other values replaced.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    members: Vec<(String, Value)>,
}

#[derive(Debug)]
enum Value {
    /// The elements, without the brackets.
    Array(String),
    Other(String),
}

impl Joined {
    /// Adds a piece. What is not a JSON object is left out.
    pub(crate) fn add(&mut self, object: &str) {
        let mut reader = Reader::new(object, DEPTH);
        // A piece that turns out to be broken adds what stood before the break.
        let _ = reader.object(|reader, name| {
            let array = reader.kind() == Kind::Array;
            let raw = reader.raw()?;
            if self.members.len() > MOST_NAMES {
                return Ok(());
            }
            let member = self.members.iter_mut().find(|(own, _)| *own == name.text).map(|(_, value)| value);
            if array {
                let elements = elements(raw);
                match member {
                    Some(Value::Array(all)) => {
                        if !all.is_empty() && !elements.is_empty() {
                            all.push(',');
                        }
                        all.push_str(elements);
                    }
                    Some(value) => *value = Value::Array(elements.to_owned()),
                    None => self.members.push((name.text.clone().into_owned(), Value::Array(elements.to_owned()))),
                }
            } else {
                match member {
                    // `null` in one piece does not undo what another one brought.
                    Some(Value::Array(_)) => {}
                    Some(value) => *value = Value::Other(raw.to_owned()),
                    None => self.members.push((name.text.clone().into_owned(), Value::Other(raw.to_owned()))),
                }
            }
            Ok(())
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The object as text, on one line; `null` where no piece came.
    pub(crate) fn to_text(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        one_line_owned(String::from_utf8(out).unwrap_or_else(|_| "null".to_owned()))
    }

    /// Writes the object, or `null` where no piece came.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if self.members.is_empty() {
            out.extend_from_slice(b"null");
            return;
        }
        for (number, (name, value)) in self.members.iter().enumerate() {
            out.push(if number == 0 { b'{' } else { b',' });
            write::string(out, name);
            out.push(b':');
            match value {
                Value::Array(elements) => {
                    out.push(b'[');
                    out.extend_from_slice(elements.as_bytes());
                    out.push(b']');
                }
                Value::Other(raw) => out.extend_from_slice(raw.as_bytes()),
            }
        }
        out.push(b'}');
    }
}
