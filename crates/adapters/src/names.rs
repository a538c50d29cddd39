//! Names of tools and ids of tool calls in the alphabets and lengths that backends accept.
//!
//! A name that a backend would refuse becomes `text_hash`, and what was mapped travels in `http-request.context`, so that
//! the decoder can tell the client its own name. Ids need no way back: no answer names an old call.

use std::collections::{BTreeMap, BTreeSet};

use witgate_model::{Message, Part, Request, Tool};

/// Characters of a hash, and the one in front of it.
const HASH: usize = 17;

/// Maps what the API would refuse to something that it takes, and leaves alone what it takes.
///
/// The mapping depends on the text alone (as long as no two texts meet in one name), so a tool keeps its mapped name
/// from request to request, and prompts stay cacheable.
pub(crate) struct Names {
    allowed: fn(char) -> bool,
    /// Longest text that the API takes, in characters; `None` where it takes every text.
    longest: Option<usize>,
    forward: BTreeMap<String, String>,
    taken: BTreeSet<String>,
}

impl Names {
    /// `[a-zA-Z0-9_-]{1,64}`, for names of tools.
    pub fn tools() -> Self {
        Self::new(is_of_a_name, Some(64))
    }

    /// `[a-zA-Z0-9_.:-]{1,64}`, for ids of tool calls on Bedrock.
    pub fn ids() -> Self {
        Self::new(|c| is_of_a_name(c) || matches!(c, '.' | ':'), Some(64))
    }

    /// Printable ASCII of at most this many characters, for ids of tool calls.
    pub fn ids_of(longest: usize) -> Self {
        Self::new(|c| c.is_ascii_graphic(), Some(longest))
    }

    /// Everything stays as it is.
    pub fn any() -> Self {
        Self::new(|_| true, None)
    }

    fn new(allowed: fn(char) -> bool, longest: Option<usize>) -> Self {
        Self { allowed, longest, forward: BTreeMap::new(), taken: BTreeSet::new() }
    }

    fn fits(&self, text: &str) -> bool {
        self.longest.is_none_or(|longest| (1..=longest).contains(&text.len()) && text.chars().all(self.allowed))
    }

    /// Reserves a name that fits, so that no mapped one becomes equal to it. All names come here before the first
    /// [`Names::map`].
    fn reserve(&mut self, text: &str) {
        if self.fits(text) && !self.taken.contains(text) {
            self.taken.insert(text.to_owned());
        }
    }

    /// What the API gets for this text.
    pub fn map<'s>(&'s mut self, text: &'s str) -> &'s str {
        if self.fits(text) {
            return text;
        }
        if !self.forward.contains_key(text) {
            let mapped = self.invent(text);
            self.taken.insert(mapped.clone());
            self.forward.insert(text.to_owned(), mapped);
        }
        self.forward.get(text).map_or(text, String::as_str)
    }

    fn invent(&self, text: &str) -> String {
        let room = self.longest.unwrap_or_default().saturating_sub(HASH);
        let head: String = text.chars().map(|c| if (self.allowed)(c) { c } else { '_' }).take(room).collect();
        let mut hash = fnv1a(text);
        loop {
            let name = format!("{head}_{hash:016x}");
            if !self.taken.contains(&name) {
                return name;
            }
            hash = fnv1a(&format!("{hash:x}{text}"));
        }
    }

    /// Mapped name to the client's own, of those that were mapped.
    pub fn back(&self) -> BTreeMap<String, String> {
        self.forward.iter().map(|(own, mapped)| (mapped.clone(), own.clone())).collect()
    }
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// The names of tools and the ids of calls of one request.
pub(crate) struct Mapping {
    /// Names of tools.
    pub tools: Names,
    /// Ids of calls.
    pub ids: Names,
}

impl Mapping {
    /// Everything stays as it is.
    pub fn none() -> Self {
        Mapping { tools: Names::any(), ids: Names::any() }
    }

    /// Knows every name and id of the request before the first is mapped. Where all of them fit, there is nothing to know.
    pub fn new(mut tools: Names, mut ids: Names, request: &Request, messages: &[Message]) -> Self {
        let parts = || messages.iter().flat_map(|message| &message.parts);
        let names = || {
            let given = request.tools.iter().filter_map(|tool| match tool {
                Tool::Function(tool) => Some(tool.name.as_str()),
                Tool::Other(_) => None,
            });
            given.chain(parts().filter_map(|part| match part {
                Part::ToolCall(call) => Some(call.name.as_str()),
                _ => None,
            }))
        };
        let calls = || {
            parts().filter_map(|part| match part {
                Part::ToolCall(call) => Some(call.id.as_str()),
                Part::ToolResult(result) => Some(result.call_id.as_str()),
                _ => None,
            })
        };
        if !names().all(|name| tools.fits(name)) {
            names().for_each(|name| tools.reserve(name));
        }
        if !calls().all(|id| ids.fits(id)) {
            calls().for_each(|id| ids.reserve(id));
        }
        Mapping { tools, ids }
    }
}

/// FNV-1a, 64 bits: short names without a dependency. Two texts of one hash are kept apart by the caller.
pub(crate) fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_is_mapped_once() {
        let mut names = Names::tools();
        assert_eq!(names.map("get_weather-2").to_owned(), "get_weather-2");
        let dotted = names.map("fs.read").to_owned();
        assert!(dotted.starts_with("fs_read_") && dotted.len() <= 64);
        assert_eq!(names.map("fs.read"), dotted);
        let long = names.map(&"x".repeat(200)).to_owned();
        assert_eq!(long.len(), 64);
        assert_ne!(names.map(&"x".repeat(201)), long);
        assert!(names.fits(&names.forward[&"x".repeat(201)]));
        let empty = names.map("").to_owned();
        assert!(names.fits(&empty));
        assert_eq!(names.back()[dotted.as_str()], "fs.read");
    }

    #[test]
    fn a_mapped_name_never_meets_a_name_of_the_client() {
        let mut names = Names::tools();
        let first = names.map("fs.read").to_owned();
        let mut names = Names::tools();
        names.reserve(&first);
        assert_ne!(names.map("fs.read"), first);
    }

    #[test]
    fn ids_may_hold_dots_and_colons() {
        let mut ids = Names::ids();
        assert_eq!(ids.map("call.1:a").to_owned(), "call.1:a");
        assert_ne!(ids.map("call/1"), "call/1");
    }

    #[test]
    fn ids_of_a_length_keep_to_it_and_a_backend_without_bounds_gets_what_the_client_wrote() {
        let mut ids = Names::ids_of(40);
        assert_eq!(ids.map("functions.f:0/1").to_owned(), "functions.f:0/1");
        assert_eq!(ids.map(&"i".repeat(41)).len(), 40);
        assert_ne!(ids.map("call 1"), "call 1");
        assert_eq!(Names::any().map("").to_owned(), "");
        assert_eq!(Names::any().map(&"ü ".repeat(99)).to_owned(), "ü ".repeat(99));
    }
}
