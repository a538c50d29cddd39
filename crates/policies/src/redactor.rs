//! Keeps personal data and secrets from backends.
//!
//! What is found (see `find.rs`, and the operator's own patterns) is replaced by a placeholder:
//!
//! - mode `mask`: `[EMAIL]`, in requests, and in answers where `answers` says so.
//! - mode `restore`: `[EMAIL_1]`, the same for the same text; the answer gets the text back where the model repeats the
//!   placeholder, in prose and in tool calls' arguments.
//! - mode `block`: the request is refused, and the error names the kinds.
//!
//! A model's reasoning is left as it is in both directions: backends sign it, and take it back only unchanged.
//!
//! In JSON (tool calls' arguments) each string is a text of its own, and is looked at as what it says, without escapes. A
//! number that is replaced becomes a string. For patterns it is a text of its own, too.
//!
//! A name (of the end user, a speaker, a file) gets a placeholder without brackets, `EMAIL`, for backends restrict what a
//! name is made of; it is not put back.
//!
//! In a stream the end of the text is held back while it could be the beginning of something: the last word, and groups of
//! digits before it.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use witgate_model::policy::{Context, Decision, Description, Tag};
use witgate_model::{BlockKind, Error, ErrorKind, Policy, Request};

use crate::filter::{TextFilter, TextWatcher, without_logprobs};
use crate::find::{self, Kind, Kinds};
use crate::json::{self, Said};
use crate::texts::{Place, rewrite};

/// Most patterns of the operator's own.
const MAX_PATTERNS: usize = 64;
/// How much of a stream is held back for them, in bytes: a match that is longer may be missed where it is cut.
const PATTERN_WINDOW: usize = 128;
/// Most different texts that are restored in one request.
const MAX_RESTORED: usize = 1_000;
/// Longest placeholder, in bytes.
const MAX_PLACEHOLDER: usize = 80;

#[derive(Clone, Copy, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Mask,
    Restore,
    Block,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    mode: Mode,
    kinds: Vec<Kind>,
    patterns: BTreeMap<String, String>,
    answers: bool,
    instructions: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::IpAddress).collect();
        Settings { mode: Mode::Mask, kinds, patterns: BTreeMap::new(), answers: true, instructions: true }
    }
}

/// What is looked for.
struct Finder {
    kinds: Kinds,
    patterns: Vec<Pattern>,
    /// How far a JSON Web Token is looked at, in bytes.
    longest: usize,
}

/// A pattern of the operator's own.
struct Pattern {
    /// As in placeholders.
    name: String,
    regex: Regex,
}

impl Pattern {
    /// The next match from `from` on that is not empty.
    fn next(&self, text: &str, mut from: usize) -> Option<(usize, usize)> {
        loop {
            let found = self.regex.find_at(text, from)?;
            if !found.is_empty() {
                return Some((found.start(), found.end()));
            }
            from = found.end() + text.get(found.end()..)?.chars().next()?.len_utf8();
        }
    }

    /// The same outside of JSON's strings, where each value is a text of its own. `known`: where the value ends that was
    /// looked at last.
    fn next_value(&self, text: &str, mut from: usize, known: &mut usize) -> Option<(usize, usize)> {
        loop {
            let rest = text.get(from..)?;
            let value = rest.trim_start_matches(between);
            if value.is_empty() {
                return None;
            }
            let skipped = rest.get(..rest.len() - value.len())?;
            let begin = from + skipped.len();
            if *known <= begin {
                let value = value.get(..value.find(is_structure).unwrap_or(value.len()))?;
                *known = begin + value.trim_end_matches(between).len();
            }
            // With the character before it where it is not at its beginning.
            let begins = begin == 0 || skipped.contains(is_structure);
            let before = text.get(..begin)?.chars().next_back().filter(|_| !begins).map_or(0, char::len_utf8);
            let start = begin - before;
            if let Some((first, end)) = self.next(text.get(start..*known)?, before) {
                return Some((start + first, start + end));
            }
            from = *known;
        }
    }
}

/// Something found: its bounds, and what it is called.
type Found<'a> = (usize, usize, &'a str);

impl Finder {
    fn new(settings: &Settings) -> Result<Self, Error> {
        let bad = |name: &str, why: String| {
            Error::new(ErrorKind::Other("configuration".into()), format!("redactor: patterns.{name}: {why}"))
        };
        if settings.patterns.len() > MAX_PATTERNS {
            return Err(bad("*", format!("at most {MAX_PATTERNS} patterns")));
        }
        let mut patterns = Vec::new();
        for (name, pattern) in &settings.patterns {
            let regex = Regex::new(pattern).map_err(|error| bad(name, error.to_string()))?;
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
            if name.is_empty() || name.len() > 48 || !name.bytes().all(good) {
                return Err(bad(name, "write letters, digits, \"_\" and \"-\", at most 48".into()));
            }
            patterns.push(Pattern { name: name.to_ascii_uppercase().replace('-', "_"), regex });
        }
        Ok(Finder { kinds: Kinds::of(&settings.kinds), patterns, longest: usize::MAX })
    }

    /// The text with everything found replaced by what `place` makes of it; `None` where nothing was.
    fn replace(&self, text: &str, json: bool, mut place: impl FnMut(&str, &str) -> String) -> Option<String> {
        let mut out = String::new();
        // How much of `text` is in `out`, and where a part of it begins.
        let (mut copied, mut begin) = (0, 0);
        let mut inside = false;
        loop {
            let rest = text.get(begin..)?;
            let quote = if json { json::quote(rest, inside) } else { None };
            let part = rest.get(..quote.unwrap_or(rest.len()))?;
            let said = Said::new(part, inside, "", true);
            let bare = json && !inside;
            let mut search = Search::new(self, &said.text, 0, bare);
            let (mut at, mut from) = (said.begin(), 0);
            while let Some((start, end, name)) = search.next(from) {
                let (start, end) = if bare { scalar(&said.text, start, end) } else { (start, end) };
                at = said.to(at, start);
                out.push_str(text.get(copied..begin + at.written)?);
                out.push_str(&quoted(place(name, said.text.get(start..end)?), bare));
                at = said.to(at, end);
                (copied, from) = (begin + at.written, end);
            }
            let Some(quote) = quote else { break };
            begin += quote + 1;
            inside = !inside;
        }
        (copied > 0).then(|| {
            out.push_str(text.get(copied..).unwrap_or_default());
            out
        })
    }
}

/// What is found in one text, in its order. Each pattern's next match is kept until it is passed: one that never matches
/// goes over the text once.
struct Search<'a> {
    finder: &'a Finder,
    text: &'a str,
    /// It is outside of JSON's strings.
    bare: bool,
    built_in: Option<(usize, usize, Kind)>,
    own: Vec<Own>,
}

/// What one pattern finds in it.
#[derive(Default)]
struct Own {
    /// The next match.
    next: Option<(usize, usize)>,
    /// Of a bare text: where the value ends that was looked at last.
    value: usize,
}

impl Own {
    fn search(&mut self, pattern: &Pattern, text: &str, from: usize, bare: bool) {
        #[cfg(test)]
        tests::SEARCHES.set(tests::SEARCHES.get() + 1);
        self.next = if bare { pattern.next_value(text, from, &mut self.value) } else { pattern.next(text, from) };
    }
}

impl<'a> Search<'a> {
    fn new(finder: &'a Finder, text: &'a str, from: usize, bare: bool) -> Self {
        let built_in = find::next(text, from, finder.kinds, finder.longest);
        let own = finder.patterns.iter().map(|pattern| {
            let mut own = Own::default();
            own.search(pattern, text, from, bare);
            own
        });
        let own = own.collect();
        Search { finder, text, bare, built_in, own }
    }

    /// The first match from `from` on, which is not before that of the last call; of several the longest.
    fn next(&mut self, from: usize) -> Option<Found<'a>> {
        if self.built_in.is_some_and(|(start, ..)| start < from) {
            self.built_in = find::next(self.text, from, self.finder.kinds, self.finder.longest);
        }
        for (own, pattern) in self.own.iter_mut().zip(&self.finder.patterns) {
            if own.next.is_some_and(|(start, _)| start < from) {
                own.search(pattern, self.text, from, self.bare);
            }
        }
        let own = self.own.iter().zip(&self.finder.patterns);
        let own = own.filter_map(|(own, pattern)| own.next.map(|(start, end)| (start, end, pattern.name.as_str())));
        let built_in = self.built_in.map(|(start, end, kind)| (start, end, kind.name()));
        own.chain(built_in).min_by_key(|(start, end, _)| (*start, std::cmp::Reverse(*end)))
    }
}

/// A placeholder in JSON: with quotes where it stands for something that has none.
fn quoted(placeholder: String, bare: bool) -> String {
    if bare { format!("\"{placeholder}\"") } else { placeholder }
}

/// Whether this, outside of JSON's strings, stands between two values.
fn is_structure(c: char) -> bool {
    matches!(c, ',' | ':' | '[' | ']' | '{' | '}')
}

/// The same, and white space.
fn between(c: char) -> bool {
    c.is_ascii_whitespace() || is_structure(c)
}

/// The bounds of the number, or whatever it is, of which something was found outside of JSON's strings.
fn scalar(text: &str, start: usize, end: usize) -> (usize, usize) {
    let (before, behind) = (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default());
    (before.trim_end_matches(|c| !between(c)).len(), end + behind.find(between).unwrap_or(behind.len()))
}

/// What the watcher needs to know.
#[derive(Deserialize, Serialize)]
struct Note {
    /// What each placeholder stands for; empty in mode `mask`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    restore: BTreeMap<String, String>,
}

/// The redactor.
pub struct Redactor;

impl Policy for Redactor {
    type Watcher = TextWatcher<Redaction>;

    fn describe() -> Description {
        Description {
            id: "redactor".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Keeps personal data and secrets from backends".into(),
            settings_schema: include_str!("redactor.schema.json").into(),
        }
    }

    fn on_request(settings: &str, _: &Context, request: &Request) -> Result<Decision, Error> {
        let settings = read(settings)?;
        let finder = Finder::new(&settings)?;
        // By name: how many; and in mode `restore`, each text's placeholder.
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let mut too_many = false;
        let changed = rewrite(request, |place, text| {
            if place == Place::Instructions && !settings.instructions {
                return None;
            }
            finder.replace(text, place == Place::Json, |name, found| {
                let count = counts.entry(name.to_owned()).or_default();
                if place == Place::Name {
                    *count += 1;
                    return name.to_owned();
                }
                if settings.mode != Mode::Restore {
                    *count += 1;
                    return format!("[{name}]");
                }
                if let Some(placeholder) = known.get(found) {
                    return placeholder.clone();
                }
                *count += 1;
                let placeholder = format!("[{name}_{count}]");
                too_many |= known.len() >= MAX_RESTORED;
                if !too_many {
                    known.insert(found.to_owned(), placeholder.clone());
                }
                placeholder
            })
        });
        if too_many {
            let message = format!("the request holds more than {MAX_RESTORED} different texts that would be redacted");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        if settings.mode == Mode::Block && changed.is_some() {
            let names: Vec<_> = counts.into_keys().map(|name| name.to_ascii_lowercase().replace('_', " ")).collect();
            let message =
                format!("the request holds what must not be sent to a model: {}; remove it", names.join(", "));
            return Err(Error::new(ErrorKind::ContentFiltered, message).with_code("redactor"));
        }
        let tag = |(name, count): (String, usize)| Tag {
            name: format!("redacted.{}", name.to_ascii_lowercase()),
            value: count.to_string(),
        };
        let restore: BTreeMap<_, _> = known.into_iter().map(|(found, placeholder)| (placeholder, found)).collect();
        let watched = match settings.mode {
            Mode::Mask => settings.answers,
            Mode::Restore => !restore.is_empty(),
            Mode::Block => false,
        };
        if watched {
            without_logprobs(
                request,
                "log probabilities would give away what is redacted in the answer; leave them out",
            )?;
        }
        Ok(Decision {
            request: changed,
            tags: counts.into_iter().take(16).map(tag).collect(),
            route: None,
            watch: watched.then(|| serde_json::to_string(&Note { restore }).unwrap_or_default()),
        })
    }

    fn watcher(settings: &str, note: String) -> TextWatcher<Redaction> {
        let finder = read(settings).and_then(|settings| Finder::new(&settings));
        // A note that is not ours: the answer is stopped rather than let through unseen.
        let note = serde_json::from_str::<Note>(&note)
            .map_err(|_| Error::new(ErrorKind::Other("configuration".into()), "redactor: the note is not its own"));
        // No more of an answer is held back.
        let finder = finder.map(|finder| Finder { longest: find::LONGEST, ..finder });
        finder.and_then(|finder| Ok(Redaction { finder, restore: note?.restore })).into()
    }
}

fn read(settings: &str) -> Result<Settings, Error> {
    serde_json::from_str(settings)
        .map_err(|error| Error::new(ErrorKind::Other("configuration".into()), format!("redactor: settings: {error}")))
}

/// Looks at one answer.
pub struct Redaction {
    finder: Finder,
    restore: BTreeMap<String, String>,
}

/// An open block that is looked at.
#[derive(Default)]
pub struct Block {
    json: bool,
    /// In JSON: inside of a string.
    inside: bool,
    /// In JSON: what has gone on breaks off behind a backslash.
    escaped: bool,
    /// The end of what has gone on of this text, where what follows depends on it.
    before: String,
    /// Inside of a private key: nothing of it goes out.
    swallowing: bool,
}

impl TextFilter for Redaction {
    type Block = Block;
    /// More than what is held back in any mode.
    const WINDOW: usize = 2 * find::LONGEST;

    fn block(&mut self, kind: &BlockKind) -> Option<Block> {
        let json = match kind {
            BlockKind::Text | BlockKind::Refusal => false,
            BlockKind::ToolCall(_) => true,
            BlockKind::Reasoning | BlockKind::Other(_) => return None,
        };
        Some(Block { json, ..Block::default() })
    }

    fn pass(&mut self, block: &mut Block, held: &mut String, last: bool) -> Result<String, Error> {
        Ok(match self.restore.is_empty() {
            true => block.release(&self.finder, held, last),
            false => block.restored(&self.restore, held, last),
        })
    }
}

impl Block {
    /// What can go out of the text held back; at the end, all of it.
    fn release(&mut self, finder: &Finder, held: &mut String, last: bool) -> String {
        let mut out = String::new();
        let mut gone = 0;
        if self.escaped
            && let Some(c) = held.chars().next()
        {
            out.push(c);
            gone = c.len_utf8();
            self.escaped = false;
        }
        loop {
            let rest = held.get(gone..).unwrap_or_default();
            let quote = if self.json { json::quote(rest, self.inside) } else { None };
            let part = rest.get(..quote.unwrap_or(rest.len())).unwrap_or_default();
            gone += self.part(finder, part, last || quote.is_some(), &mut out);
            if quote.is_none() {
                self.escaped = last && self.inside && json::breaks_off(part);
                break;
            }
            out.push('"');
            gone += 1;
            (self.inside, self.swallowing) = (!self.inside, false);
            self.before.clear();
        }
        held.drain(..gone);
        out
    }

    /// Gives to `out` what can go out of `written`, which is one text; if it has `ended`, all of it. How much that was.
    fn part(&mut self, finder: &Finder, written: &str, ended: bool, out: &mut String) -> usize {
        let said = Said::new(written, self.inside, &self.before, ended);
        let text = &*said.text;
        let bare = self.json && !self.inside;
        let mut at = said.begin();
        let mut from = said.before;
        if self.swallowing {
            from = self.swallow(text, from, ended);
            at = said.to(at, from);
        }
        let safe = if ended { text.len() } else { safe(finder, &said, bare) };
        if safe > from && !self.swallowing {
            let mut search = Search::new(finder, text, from, bare);
            while let Some((begin, end, name)) = search.next(from).filter(|(begin, ..)| *begin < safe) {
                let (start, end) = if bare { scalar(text, begin, end) } else { (begin, end) };
                let next = said.to(at, start.max(from));
                out.push_str(written.get(at.written..next.written).unwrap_or_default());
                out.push_str(&quoted(format!("[{name}]"), bare));
                from = end;
                // A key that goes to the end of the text may go on behind it.
                let key = text.get(begin..).unwrap_or_default();
                if finder.kinds.has(Kind::Secret)
                    && let Some(head) = find::key_head(key.as_bytes())
                {
                    let key = self.swallow(text, begin + head, ended);
                    from = if self.swallowing { key } else { end.max(key) };
                }
                at = said.to(next, from);
                if self.swallowing {
                    break;
                }
            }
        }
        if !self.swallowing {
            let next = said.to(at, safe.max(from));
            out.push_str(written.get(at.written..next.written).unwrap_or_default());
            (at, from) = (next, safe.max(from));
        }
        let gone = text.get(..from).unwrap_or_default();
        let mut begin = gone.len().saturating_sub(find::BEFORE);
        while !gone.is_char_boundary(begin) {
            begin += 1;
        }
        // Nothing that is built in looks behind a blank, or behind what is not ASCII.
        let looks = !finder.patterns.is_empty() || gone.as_bytes().last().is_some_and(u8::is_ascii_graphic);
        self.before = gone.get(begin..).filter(|_| looks).unwrap_or_default().to_owned();
        at.written
    }

    /// From where on the text goes on that is inside of a private key from `from` on: as far as this is known to go.
    fn swallow(&mut self, text: &str, from: usize, ended: bool) -> usize {
        let (length, has_ended) = find::key_body(text.as_bytes().get(from..).unwrap_or_default(), ended);
        self.swallowing = !has_ended;
        from + length
    }

    /// The same with placeholders turned back into what they stand for.
    fn restored(&self, restore: &BTreeMap<String, String>, held: &mut String, last: bool) -> String {
        let mut out = String::new();
        let mut from = 0;
        while let Some(start) = held.get(from..).and_then(|rest| rest.find('[')).map(|at| from + at) {
            let rest = held.get(start..).unwrap_or_default();
            out.push_str(held.get(from..start).unwrap_or_default());
            let end = rest.bytes().take(MAX_PLACEHOLDER).position(|b| b == b']');
            match end.and_then(|end| Some((end + 1, restore.get(rest.get(..=end)?)?))) {
                Some((length, text)) if self.json => {
                    let quoted = serde_json::Value::from(text.as_str()).to_string();
                    out.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
                    from = start + length;
                }
                Some((length, text)) => {
                    out.push_str(text);
                    from = start + length;
                }
                None if end.is_none() && rest.len() < MAX_PLACEHOLDER && !last => {
                    held.drain(..start);
                    return out;
                }
                None => {
                    out.push('[');
                    from = start + 1;
                }
            }
        }
        out.push_str(held.get(from..).unwrap_or_default());
        held.clear();
        out
    }
}

/// Up to where nothing can begin that more text would complete.
fn safe(finder: &Finder, said: &Said, bare: bool) -> usize {
    let text = &*said.text;
    let mut safe = find::settled(text);
    if !finder.patterns.is_empty() {
        safe = safe.min(text.len().saturating_sub(PATTERN_WINDOW));
        while !text.is_char_boundary(safe) {
            safe -= 1;
        }
    }
    // What is held back is bounded as it is written, too.
    safe = said.bounded(safe, find::LONGEST);
    // A number is replaced as a whole, so it is not cut; nor from what is before it, which says that it begins there.
    let gone = text.get(..safe).unwrap_or_default();
    let whole = gone.trim_end_matches(|c| !between(c)).trim_end_matches(between).len();
    if bare && safe - whole <= PATTERN_WINDOW { whole } else { safe }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static SEARCHES: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn a_pattern_that_never_matches_goes_over_the_text_once() {
        let patterns = [("never", "no such thing"), ("all", "a{3}")];
        let patterns = patterns.map(|(name, pattern)| (name.to_owned(), pattern.to_owned())).into();
        let finder = Finder::new(&Settings { patterns, ..Settings::default() }).unwrap();
        SEARCHES.set(0);
        let masked = finder.replace(&"ada@example.com,aaa\n".repeat(100), false, |name, _| format!("[{name}]"));
        assert_eq!(masked.unwrap(), "[EMAIL],[ALL]\n".repeat(100));
        assert_eq!(SEARCHES.get(), 1 + 101);
    }
}
