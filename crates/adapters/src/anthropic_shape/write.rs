//! Writing JSON objects straight into the body's bytes.

use std::collections::BTreeSet;

use crate::openai_shape::json::{self, Members};

/// Most names that one object remembers: no object that is written here has more.
const NAMES: usize = 20;

/// An object that is being written. It knows which names it has, so that an unknown member of the client's never stands
/// beside a known one of the same name.
pub(super) struct Object {
    written: [&'static str; NAMES],
    count: usize,
    /// Names that were spliced in.
    spliced: BTreeSet<String>,
}

impl Object {
    /// Opens an object.
    pub(super) fn open(out: &mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { written: [""; NAMES], count: 0, spliced: BTreeSet::new() }
    }

    /// Opens an object with the member `type`.
    pub(super) fn of_type(out: &mut Vec<u8>, kind: &str) -> Self {
        let mut object = Object::open(out);
        object.string(out, "type", kind);
        object
    }

    /// Writes a name, which needs no escapes; the value must follow.
    pub(super) fn name(&mut self, out: &mut Vec<u8>, name: &'static str) {
        if self.count > 0 {
            out.push(b',');
        }
        if let Some(slot) = self.written.get_mut(self.count) {
            *slot = name;
        }
        self.count += 1;
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    }

    /// A member whose value is a string.
    pub(super) fn string(&mut self, out: &mut Vec<u8>, name: &'static str, value: &str) {
        self.name(out, name);
        json::string(out, value);
    }

    /// A member whose value is JSON text already.
    pub(super) fn raw(&mut self, out: &mut Vec<u8>, name: &'static str, json: &str) {
        self.name(out, name);
        out.extend_from_slice(json.as_bytes());
    }

    /// A member whose value is `true` or `false`.
    pub(super) fn bool(&mut self, out: &mut Vec<u8>, name: &'static str, value: bool) {
        self.raw(out, name, if value { "true" } else { "false" });
    }

    /// A member whose value is an integer.
    pub(super) fn integer(&mut self, out: &mut Vec<u8>, name: &'static str, value: impl Into<i128>) {
        self.name(out, name);
        json::integer(out, value.into());
    }

    /// A member whose value is a list of strings.
    pub(super) fn strings<'t>(
        &mut self,
        out: &mut Vec<u8>,
        name: &'static str,
        texts: impl IntoIterator<Item = &'t str>,
    ) {
        self.name(out, name);
        out.push(b'[');
        let start = out.len();
        for text in texts {
            separate(out, start);
            json::string(out, text);
        }
        out.push(b']');
    }

    /// Adds the members whose names have not been written.
    pub(super) fn splice(&mut self, out: &mut Vec<u8>, members: &Members<'_>) {
        for (name, value) in &members.0 {
            if self.written.iter().any(|known| !known.is_empty() && known == name)
                || !self.spliced.insert(name.to_string())
            {
                continue;
            }
            if self.count > 0 {
                out.push(b',');
            }
            self.count += 1;
            json::member(out, name, value);
        }
    }

    /// Closes the object.
    pub(super) fn close(self, out: &mut Vec<u8>) {
        out.push(b'}');
    }
}

/// A comma between the elements of the list that began at `start`.
pub(super) fn separate(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.push(b',');
    }
}
