//! Tool names and tool-use ids in the alphabets that Converse accepts.

use std::collections::{BTreeMap, BTreeSet};

/// Longest name and longest id that the API takes.
const LONGEST: usize = 64;

/// Maps what the API would refuse to something that it takes, and leaves alone what it takes.
///
/// The mapping depends on the text alone (as long as no two texts meet in one name), so a tool keeps its mapped name
/// from request to request, and prompts stay cacheable.
pub(crate) struct Names {
    allowed: fn(char) -> bool,
    forward: BTreeMap<String, String>,
    taken: BTreeSet<String>,
}

impl Names {
    /// `[a-zA-Z0-9_-]{1,64}`, for names of tools.
    pub fn tools() -> Self {
        Self::new(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    }

    /// `[a-zA-Z0-9_.:-]{1,64}`, for ids of tool calls.
    pub fn ids() -> Self {
        Self::new(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'))
    }

    fn new(allowed: fn(char) -> bool) -> Self {
        Self { allowed, forward: BTreeMap::new(), taken: BTreeSet::new() }
    }

    fn fits(&self, text: &str) -> bool {
        (1..=LONGEST).contains(&text.len()) && text.chars().all(self.allowed)
    }

    /// Reserves a name that fits, so that no mapped one becomes equal to it. All names come here before the first
    /// [`Names::map`].
    pub fn reserve(&mut self, text: &str) {
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
        &self.forward[text]
    }

    fn invent(&self, text: &str) -> String {
        let head: String = text.chars().map(|c| if (self.allowed)(c) { c } else { '_' }).take(LONGEST - 17).collect();
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
    pub fn back(&self) -> BTreeMap<&str, &str> {
        self.forward.iter().map(|(own, mapped)| (mapped.as_str(), own.as_str())).collect()
    }
}

/// FNV-1a, 64 bits: short names without a dependency. Two texts of one hash are kept apart by the caller.
fn fnv1a(text: &str) -> u64 {
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
}
