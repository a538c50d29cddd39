//! Keeps personal data and secrets from backends.
//!
//! What is found (see `find.rs`, and the operator's own patterns) is replaced by a placeholder:
//!
//! - mode `mask`: `[EMAIL]`, in requests, and in answers where `answers` says so.
//! - mode `restore`: `[EMAIL_1]`, the same for the same text; the answer gets the text back where the model repeats the
//!   placeholder, in prose and in tool calls' arguments.
//! - mode `block`: the request is refused, and the error names the kinds.
//!
//! A model's reasoning is left as it is in both directions: backends sign it, and take it back only unchanged. In JSON (tool
//! calls' arguments) a number that is replaced becomes a string.
//!
//! In a stream the end of the text is held back while it could be the beginning of something: the last word, and groups of
//! digits before it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use witgate_model::policy::{Context, Decision, Description, Tag};
use witgate_model::{BlockKind, Error, ErrorKind, Policy, Request};

use crate::filter::{TextFilter, TextWatcher, without_logprobs};
use crate::find::{self, Kind, Kinds};
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
    patterns: Vec<(String, Regex)>,
}

/// Something found: its bounds, and what it is called.
type Found<'a> = (usize, usize, Cow<'a, str>);

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
            patterns.push((name.to_ascii_uppercase().replace('-', "_"), regex));
        }
        Ok(Finder { kinds: Kinds::of(&settings.kinds), patterns })
    }

    fn next<'a>(&'a self, text: &str, from: usize) -> Option<Found<'a>> {
        let built_in = find::next(text, from, self.kinds).map(|(start, end, kind)| (start, end, kind.name().into()));
        let own = self.patterns.iter().filter_map(|(name, regex)| {
            let found = regex.find_at(text, from).filter(|found| !found.is_empty())?;
            Some((found.start(), found.end(), Cow::Borrowed(name.as_str())))
        });
        own.chain(built_in).min_by_key(|(start, end, _)| (*start, std::cmp::Reverse(*end)))
    }

    /// The text with everything found replaced by what `place` makes of it; `None` where nothing was.
    fn replace(&self, text: &str, json: bool, mut place: impl FnMut(&str, &str) -> String) -> Option<String> {
        let mut out = String::new();
        let mut from = 0;
        let mut quotes = Quotes::default();
        while let Some((start, end, name)) = self.next(text, from) {
            let (before, found) = (text.get(from..start)?, text.get(start..end)?);
            out.push_str(before);
            quotes.pass(before);
            let placeholder = place(&name, found);
            if json && !quotes.inside {
                out.push_str(&format!("\"{placeholder}\""))
            } else {
                out.push_str(&placeholder)
            }
            from = end;
        }
        (from > 0).then(|| {
            out.push_str(text.get(from..).unwrap_or_default());
            out
        })
    }
}

/// Whether a place in JSON text is inside a string.
#[derive(Clone, Copy, Default)]
struct Quotes {
    inside: bool,
    escaped: bool,
}

impl Quotes {
    fn pass(&mut self, text: &str) {
        for byte in text.bytes() {
            match (self.inside, self.escaped, byte) {
                (true, true, _) => self.escaped = false,
                (true, false, b'\\') => self.escaped = true,
                (inside, _, b'"') => self.inside = !inside,
                _ => {}
            }
        }
    }
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
pub struct Block {
    json: bool,
    quotes: Quotes,
    /// Inside of a private key: up to its end nothing goes out.
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
        Some(Block { json, quotes: Quotes::default(), swallowing: false })
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
        if self.swallowing {
            match find::key_end(held) {
                Some(end) => {
                    held.drain(..end);
                    self.swallowing = false;
                }
                None => {
                    // Only what may be the beginning of its end is kept.
                    let keep = held.rfind("-----").filter(|at| held.len() - at < 64);
                    let keep = keep.unwrap_or_else(|| held.trim_end_matches('-').len());
                    held.drain(..keep);
                    return out;
                }
            }
        }
        let mut safe = if last { held.len() } else { find::settled(held) };
        if !last && !finder.patterns.is_empty() {
            safe = safe.min(held.len().saturating_sub(PATTERN_WINDOW));
            while !held.is_char_boundary(safe) {
                safe -= 1;
            }
        }
        let mut from = 0;
        while let Some((start, end, name)) = finder.next(held, from).filter(|(start, ..)| *start < safe) {
            let open = find::key_head(held.as_bytes().get(start..).unwrap_or_default()).is_some()
                && find::key_end(held.get(start..).unwrap_or_default()).is_none();
            let before = held.get(from..start).unwrap_or_default();
            self.quotes.pass(before);
            out.push_str(before);
            let placeholder = format!("[{name}]");
            let bare = self.json && !self.quotes.inside;
            out.push_str(&if bare { format!("\"{placeholder}\"") } else { placeholder });
            from = end;
            if open {
                self.swallowing = !last;
                from = held.len();
                break;
            }
        }
        let safe = safe.max(from);
        let rest = held.get(from..safe).unwrap_or_default();
        self.quotes.pass(rest);
        out.push_str(rest);
        held.drain(..safe);
        out
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
