//! A JSON object that is being written straight into a request's body.

use std::collections::BTreeSet;

use crate::openai_shape::json::{self, Members};

/// Most names of our own in one object.
const NAMES: usize = 16;

/// Knows which names stand in the object, so that an unknown member never appears beside a known one of its name.
pub(super) struct Object {
    names: [&'static str; NAMES],
    count: usize,
    /// Names that were spliced in.
    spliced: BTreeSet<String>,
}

impl Object {
    /// Opens an object.
    pub fn open(out: &mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { names: [""; NAMES], count: 0, spliced: BTreeSet::new() }
    }

    /// True where nothing stands in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.spliced.is_empty()
    }

    /// True where a member of this name stands in it.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().take(self.count).any(|known| *known == name) || self.spliced.contains(name)
    }

    /// Writes a name; the value must follow.
    pub fn name(&mut self, out: &mut Vec<u8>, name: &'static str) {
        if !self.is_empty() {
            out.push(b',');
        }
        match self.names.get_mut(self.count) {
            Some(place) => {
                *place = name;
                self.count += 1;
            }
            None => {
                self.spliced.insert(name.to_owned());
            }
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    }

    /// A member whose value is a string.
    pub fn string(&mut self, out: &mut Vec<u8>, name: &'static str, value: &str) {
        self.name(out, name);
        json::string(out, value);
    }

    /// A member whose value is JSON text already.
    pub fn raw(&mut self, out: &mut Vec<u8>, name: &'static str, value: &str) {
        self.name(out, name);
        out.extend_from_slice(value.as_bytes());
    }

    /// A member whose value is `true` or `false`.
    pub fn bool(&mut self, out: &mut Vec<u8>, name: &'static str, value: bool) {
        self.raw(out, name, if value { "true" } else { "false" });
    }

    /// A member whose value is an integer.
    pub fn integer(&mut self, out: &mut Vec<u8>, name: &'static str, value: impl Into<i128>) {
        self.name(out, name);
        json::integer(out, value.into());
    }

    /// Adds the members that do not stand in it yet, except those of these names.
    pub fn splice(&mut self, out: &mut Vec<u8>, members: &Members<'_>, except: &[&str]) {
        for (name, value) in &members.0 {
            if self.has(name) || except.contains(&&**name) {
                continue;
            }
            if !self.is_empty() {
                out.push(b',');
            }
            self.spliced.insert(name.to_string());
            json::member(out, name, value);
        }
    }

    /// Closes the object.
    pub fn close(self, out: &mut Vec<u8>) {
        out.push(b'}');
    }
}
