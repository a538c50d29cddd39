//! A strict JSON reader over one body: typed where the dialects look, text where they do not.
//!
//! One pass, no tree, and nothing recursive that the input controls: unknown values are skipped with a stack on the heap.
//! Everywhere, in values that nobody looks into too, it refuses nesting over the limit, duplicate names, lone surrogates
//! and whatever else is not JSON. It works in time linear in the body (objects of more than [`FEW`] members are sorted
//! to find duplicates). A failure knows its position and its path; neither costs anything while all is well.

use std::borrow::Cow;

use witgate_model::Error;

use crate::scan;

/// Up to this many members of one object are compared with each other; more are sorted.
const FEW: usize = 16;

/// The longest name that a path in an error message shows, in characters.
const SHOWN_NAME: usize = 64;

/// A path in an error message is cut behind the step that passes this many bytes.
const SHOWN_PATH: usize = 256;

/// The longest piece of the body that an error message shows, in characters.
const SHOWN_VALUE: usize = 32;

/// A step of a JSON path.
#[derive(Debug)]
enum Step {
    Name(String),
    Index(usize),
}

/// What is wrong with a body, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Byte offset.
    position: usize,
    /// From the innermost step outwards.
    path: Vec<Step>,
    message: String,
    /// The text is not JSON, rather than JSON of the wrong form.
    pub(crate) syntax: bool,
    /// A bound of the gateway was met.
    pub(crate) limit: bool,
}

/// A result of reading.
pub(crate) type Read<T> = Result<T, Box<Fault>>;

impl Fault {
    fn new(position: usize, message: impl Into<String>) -> Box<Self> {
        Box::new(Fault { position, path: Vec::new(), message: message.into(), syntax: false, limit: false })
    }

    /// The same failure, one step further out.
    fn under_name(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.path.push(Step::Name(shown(name, SHOWN_NAME)));
        self
    }

    fn under_index(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.path.push(Step::Index(index));
        self
    }

    /// The JSON path, as `messages[2].content`; empty for the body itself. Cut where it is very long.
    pub(crate) fn path(&self) -> String {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            if path.len() > SHOWN_PATH {
                path.push('…');
                break;
            }
            match step {
                Step::Index(index) => {
                    path.push('[');
                    path.push_str(itoa::Buffer::new().format(*index));
                    path.push(']');
                }
                Step::Name(name) => {
                    let plain = !name.is_empty()
                        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
                    if plain {
                        if !path.is_empty() {
                            path.push('.');
                        }
                        path.push_str(name);
                    } else {
                        let mut quoted = Vec::new();
                        crate::write::string(&mut quoted, name);
                        path.push('[');
                        path.push_str(&String::from_utf8_lossy(&quoted));
                        path.push(']');
                    }
                }
            }
        }
        path
    }

    /// What was found and what would be right, without the place.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Byte offset in the body.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Line and column in `text`, both from 1; the column counts characters.
    pub(crate) fn place(&self, text: &str) -> (usize, usize) {
        let mut end = self.position.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.bytes().filter(|&byte| byte == b'\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The failure as the contract has it.
    pub(crate) fn into_error(self, text: &str) -> Error {
        let (line, column) = self.place(text);
        let path = self.path();
        let lead = match (self.syntax, path.is_empty()) {
            (true, true) => "invalid JSON: ".to_owned(),
            (true, false) => format!("invalid JSON at `{path}`: "),
            (false, true) => "the body ".to_owned(),
            (false, false) => format!("`{path}` "),
        };
        let message = format!("{lead}{} (line {line}, column {column})", self.message);
        let error = Error::new(witgate_model::ErrorKind::InvalidRequest, message).with_status(400);
        if path.is_empty() { error } else { error.with_param(path) }
    }
}

/// At most `most` characters of `text`, with `…` where something was cut.
fn shown(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
    /// No value begins here.
    Nothing,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Object => "an object",
            Kind::Array => "an array",
            Kind::String => "a string",
            Kind::Number => "a number",
            Kind::Bool => "a boolean",
            Kind::Null => "null",
            Kind::Nothing => "nothing",
        }
    }
}

/// A member's name.
#[derive(Clone, Debug)]
pub(crate) struct Name<'a> {
    /// As it means.
    pub(crate) text: Cow<'a, str>,
    /// As it was written, with its quotes.
    pub(crate) raw: &'a str,
    position: usize,
    /// Length and first bytes: names with different ones differ.
    sketch: u64,
}

impl<'a> Name<'a> {
    fn new(text: Cow<'a, str>, raw: &'a str, position: usize) -> Self {
        let bytes = text.as_bytes();
        let mut sketch = [0; 8];
        let first = bytes.len().min(6);
        sketch[..first].copy_from_slice(&bytes[..first]);
        sketch[6..].copy_from_slice(&(bytes.len().min(0xffff) as u16).to_le_bytes());
        Name { text, raw, position, sketch: u64::from_le_bytes(sketch) }
    }

    fn same(&self, other: &Name<'_>) -> bool {
        self.sketch == other.sketch && self.text == other.text
    }
}

/// An open array or object of a value that is skipped.
struct Open {
    object: bool,
    /// Where its names begin.
    names: usize,
    /// Number of the element at hand.
    index: usize,
}

/// Reads one JSON text.
pub(crate) struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    most: usize,
    /// Names of all open objects, those of the innermost last.
    names: Vec<Name<'a>>,
}

impl<'a> Reader<'a> {
    /// A reader that refuses nesting deeper than `depth`.
    pub(crate) fn new(text: &'a str, depth: usize) -> Self {
        Reader { text, bytes: text.as_bytes(), at: 0, depth: 0, most: depth, names: Vec::new() }
    }

    /// The body as text: an error names the first byte that is not UTF-8.
    pub(crate) fn text(body: &[u8]) -> Result<&str, Error> {
        let fail = |message: String| Error::new(witgate_model::ErrorKind::InvalidRequest, message).with_status(400);
        match std::str::from_utf8(body) {
            Ok(text) if text.starts_with('\u{feff}') => {
                Err(fail("invalid JSON: the body starts with a byte order mark; JSON is UTF-8 without one".to_owned()))
            }
            Ok(text) => Ok(text),
            Err(error) => Err(fail(format!(
                "invalid JSON: the body is not UTF-8, the byte at offset {} ({:#04x}) begins no character",
                error.valid_up_to(),
                body.get(error.valid_up_to()).copied().unwrap_or_default(),
            ))),
        }
    }

    /// Byte offset of the next value.
    pub(crate) fn position(&mut self) -> usize {
        self.space();
        self.at
    }

    /// What was read since `start`.
    pub(crate) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// A failure at `position`.
    pub(crate) fn fault<T>(&self, position: usize, message: impl Into<String>) -> Read<T> {
        Err(Fault::new(position, message))
    }

    /// A failure at the member `name` of the value at `position`.
    pub(crate) fn fault_in<T>(&self, position: usize, name: &str, message: impl Into<String>) -> Read<T> {
        Err(Fault::new(position, message).under_name(name))
    }

    #[cold]
    fn syntax<T>(&self, wanted: &str) -> Read<T> {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            None => "the body ends here".to_owned(),
            Some(first) if first.is_alphanumeric() || first == '-' || first == '+' => {
                let word: String = self.text[self.at..]
                    .chars()
                    .take(SHOWN_VALUE)
                    .take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '+' | '.' | '_'))
                    .collect();
                format!("found `{word}`")
            }
            Some(first @ ('"' | '\'')) => format!("found `{first}`"),
            Some(first) => format!("found `{}`", first.escape_debug()),
        };
        let mut fault = Fault::new(self.at, format!("expected {wanted}, {found}"));
        fault.syntax = true;
        Err(fault)
    }

    #[cold]
    fn syntax_at<T>(&self, position: usize, message: impl Into<String>) -> Read<T> {
        let mut fault = Fault::new(position, message);
        fault.syntax = true;
        Err(fault)
    }

    /// A failure: the value at hand is not `wanted` (as "a string").
    #[cold]
    pub(crate) fn wrong<T>(&mut self, wanted: &str) -> Read<T> {
        match self.kind() {
            Kind::Nothing => self.syntax(wanted),
            kind => self.fault(self.at, format!("must be {wanted}, found {}", kind.name())),
        }
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// What the next value is.
    pub(crate) fn kind(&mut self) -> Kind {
        self.space();
        match self.byte() {
            Some(b'"') => Kind::String,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            Some(b't') if self.bytes[self.at..].starts_with(b"true") => Kind::Bool,
            Some(b'f') if self.bytes[self.at..].starts_with(b"false") => Kind::Bool,
            Some(b'n') if self.bytes[self.at..].starts_with(b"null") => Kind::Null,
            _ => Kind::Nothing,
        }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Read<()> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { self.syntax("the end of the body behind the JSON value") }
    }

    /// One string, as it was written: with its quotes. The position is on the opening quote.
    fn raw_string(&mut self) -> Read<(&'a str, bool)> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += scan::special(&self.bytes[self.at..]);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((self.since(start), escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(control) => {
                    return self.syntax_at(
                        self.at,
                        format!("a string holds the control character U+{control:04X}; write it as \\u{control:04x}"),
                    );
                }
                None => return self.syntax_at(start, "a string that begins here is not closed"),
            }
        }
    }

    /// One escape: the position is on the backslash.
    fn escape(&mut self) -> Read<char> {
        let start = self.at;
        let simple = match self.bytes.get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.hex(start)?;
                self.at = start + 6;
                if let Some(character) = char::from_u32(first) {
                    return Ok(character);
                }
                let second = match (first, self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                    (0xd800..=0xdbff, Some(b'\\'), Some(b'u')) => self.hex(self.at)?,
                    _ => 0,
                };
                let pair = 0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
                return match (second, char::from_u32(pair)) {
                    (0xdc00..=0xdfff, Some(character)) => {
                        self.at += 6;
                        Ok(character)
                    }
                    _ => self.syntax_at(
                        start,
                        format!("\\u{first:04x} is half of a surrogate pair; both halves must stand together"),
                    ),
                };
            }
            _ => {
                return self.syntax_at(
                    start,
                    "a backslash is followed by none of `\"`, `\\`, `/`, `b`, `f`, `n`, `r`, `t`, `u`",
                );
            }
        };
        self.at = start + 2;
        Ok(simple)
    }

    /// The four hexadecimal digits of the `\u` escape at `start`.
    fn hex(&self, start: usize) -> Read<u32> {
        let mut value = 0;
        for offset in 2..6 {
            match self.bytes.get(start + offset).and_then(|&byte| (byte as char).to_digit(16)) {
                Some(digit) => value = value * 16 + digit,
                None => return self.syntax_at(start, "\\u is not followed by four hexadecimal digits"),
            }
        }
        Ok(value)
    }

    /// The meaning of a string that [`Reader::raw_string`] accepted.
    fn decode(raw: &'a str, escaped: bool) -> Cow<'a, str> {
        let inside = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
        if !escaped {
            return Cow::Borrowed(inside);
        }
        let mut text = String::with_capacity(inside.len());
        let mut reader = Reader::new(inside, 0);
        while reader.at < inside.len() {
            let start = reader.at;
            reader.at += scan::special(&inside.as_bytes()[start..]);
            text.push_str(reader.since(start));
            if reader.at < inside.len() {
                // Cannot fail: the same escape was accepted before.
                match reader.escape() {
                    Ok(character) => text.push(character),
                    Err(_) => break,
                }
            }
        }
        Cow::Owned(text)
    }

    /// A string.
    pub(crate) fn string(&mut self) -> Read<Cow<'a, str>> {
        if self.kind() != Kind::String {
            return self.wrong("a string");
        }
        let (raw, escaped) = self.raw_string()?;
        Ok(Self::decode(raw, escaped))
    }

    /// A string of its own.
    pub(crate) fn owned(&mut self) -> Read<String> {
        self.string().map(Cow::into_owned)
    }

    /// A boolean.
    pub(crate) fn bool(&mut self) -> Read<bool> {
        match self.kind() {
            Kind::Bool => {
                let value = self.byte() == Some(b't');
                self.literal()?;
                Ok(value)
            }
            _ => self.wrong("a boolean"),
        }
    }

    /// `true`, `false` or `null`.
    fn literal(&mut self) -> Read<()> {
        for word in ["true", "false", "null"] {
            if self.bytes[self.at..].starts_with(word.as_bytes()) {
                let end = self.at + word.len();
                if !self.bytes.get(end).is_some_and(u8::is_ascii_alphanumeric) {
                    self.at = end;
                    return Ok(());
                }
            }
        }
        self.syntax("a JSON value")
    }

    /// A number, as it was written.
    fn raw_number(&mut self) -> Read<&'a str> {
        let start = self.at;
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while matches!(reader.byte(), Some(b'0'..=b'9')) {
                reader.at += 1;
            }
            reader.at > from
        };
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let whole = self.at;
        let mut good = digits(self) && !(self.bytes[whole] == b'0' && self.at > whole + 1);
        if good && self.byte() == Some(b'.') {
            self.at += 1;
            good = digits(self);
        }
        if good && matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            good = digits(self);
        }
        if good && !self.byte().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'.') {
            return Ok(self.since(start));
        }
        self.at = start;
        self.syntax("a JSON number")
    }

    /// A finite number.
    pub(crate) fn f64(&mut self) -> Read<f64> {
        if self.kind() != Kind::Number {
            return self.wrong("a number");
        }
        let start = self.at;
        let raw = self.raw_number()?;
        match raw.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => self.fault(start, format!("must be a number of 64 bits, found {}", shown(raw, SHOWN_VALUE))),
        }
    }

    /// A whole number of the type `T`, whose range is `range` (as "0 to 4294967295").
    fn whole<T: std::str::FromStr>(&mut self, range: &str) -> Read<T> {
        if self.kind() != Kind::Number {
            return self.wrong(&format!("a whole number from {range}"));
        }
        let start = self.at;
        let raw = self.raw_number()?;
        match raw.parse::<T>() {
            Ok(value) => Ok(value),
            Err(_) => {
                self.fault(start, format!("must be a whole number from {range}, found {}", shown(raw, SHOWN_VALUE)))
            }
        }
    }

    /// A whole number of 32 bits without a sign.
    pub(crate) fn u32(&mut self) -> Read<u32> {
        self.whole("0 to 4294967295")
    }

    /// How many of something, at least one.
    pub(crate) fn count(&mut self) -> Read<u32> {
        self.whole::<std::num::NonZeroU32>("1 to 4294967295").map(std::num::NonZeroU32::get)
    }

    /// A whole number of 64 bits without a sign.
    pub(crate) fn u64(&mut self) -> Read<u64> {
        self.whole("0 to 18446744073709551615")
    }

    /// A whole number of 64 bits.
    pub(crate) fn i64(&mut self) -> Read<i64> {
        self.whole("-9223372036854775808 to 9223372036854775807")
    }

    /// `None` where the value is `null`, else what `read` makes of it.
    pub(crate) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.kind() == Kind::Null {
            self.literal()?;
            return Ok(None);
        }
        read(self).map(Some)
    }

    fn descend(&mut self, wanted: &str, kind: Kind) -> Read<()> {
        if self.kind() != kind {
            return self.wrong(wanted);
        }
        if self.depth >= self.most {
            return self.too_deep();
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        Ok(())
    }

    #[cold]
    fn too_deep<T>(&self) -> Read<T> {
        let mut fault = Fault::new(self.at, format!("is nested deeper than the {} levels allowed", self.most));
        fault.limit = true;
        Err(fault)
    }

    /// The next member's name and its colon, in an object whose names begin at `base`.
    fn name(&mut self, base: usize) -> Read<Name<'a>> {
        if self.byte() != Some(b'"') {
            return self.syntax("a member's name in double quotes");
        }
        let start = self.at;
        let (raw, escaped) = self.raw_string()?;
        let name = Name::new(Self::decode(raw, escaped), raw, start);
        let earlier = self.names.get(base..).unwrap_or_default();
        if earlier.len() < FEW && earlier.iter().any(|earlier| earlier.same(&name)) {
            return Self::duplicate(&name);
        }
        self.space();
        if self.byte() != Some(b':') {
            let lead = format!("a colon behind the name \"{}\"", shown(&name.text, SHOWN_NAME));
            return self.syntax(&lead);
        }
        self.at += 1;
        Ok(name)
    }

    #[cold]
    fn duplicate<T>(name: &Name<'_>) -> Read<T> {
        Err(Fault::new(name.position, "is given twice in the same object").under_name(&name.text))
    }

    /// The object whose names begin at `base` is complete: finds duplicates among many names.
    fn close(&mut self, base: usize) -> Read<()> {
        let result = self.unique(base);
        self.names.truncate(base);
        result
    }

    fn unique(&mut self, base: usize) -> Read<()> {
        if self.names.len() - base > FEW {
            let names = &mut self.names[base..];
            names.sort_unstable_by(|a, b| {
                a.sketch.cmp(&b.sketch).then_with(|| a.text.cmp(&b.text)).then(a.position.cmp(&b.position))
            });
            // The second of the earliest pair, so that the message does not depend on the order of the names.
            let again = names.windows(2).filter(|pair| pair[0].same(&pair[1])).map(|pair| &pair[1]);
            if let Some(again) = again.min_by_key(|name| name.position) {
                return Self::duplicate(again);
            }
        }
        Ok(())
    }

    /// An object: `member` reads each member's value. A failure inside gets the member's name on its path.
    pub(crate) fn object(&mut self, mut member: impl FnMut(&mut Self, &Name<'a>) -> Read<()>) -> Read<()> {
        self.descend("an object", Kind::Object)?;
        let base = self.names.len();
        if self.byte() == Some(b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            let name = self.name(base)?;
            self.names.push(name.clone());
            member(self, &name).map_err(|fault| fault.under_name(&name.text))?;
            self.space();
            match self.byte() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b'}') => {
                    self.at += 1;
                    self.depth -= 1;
                    return self.close(base);
                }
                _ => return self.syntax("a comma or a closing brace"),
            }
        }
    }

    /// The elements of an array, each as `element` reads it.
    pub(crate) fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut all = Vec::new();
        self.array(|reader, _| {
            all.push(element(reader)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// An array: `element` reads each element. A failure inside gets the element's number on its path.
    pub(crate) fn array(&mut self, mut element: impl FnMut(&mut Self, usize) -> Read<()>) -> Read<()> {
        self.descend("an array", Kind::Array)?;
        if self.byte() == Some(b']') {
            self.at += 1;
            self.depth -= 1;
            return Ok(());
        }
        for index in 0.. {
            element(self, index).map_err(|fault| fault.under_index(index))?;
            self.space();
            match self.byte() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b']') => {
                    self.at += 1;
                    self.depth -= 1;
                    break;
                }
                _ => return self.syntax("a comma or a closing bracket"),
            }
        }
        Ok(())
    }

    /// Any value, as it was written, checked in full.
    pub(crate) fn raw(&mut self) -> Read<&'a str> {
        match self.kind() {
            Kind::String => self.raw_string().map(|(raw, _)| raw),
            Kind::Number => self.raw_number(),
            Kind::Bool | Kind::Null => {
                let start = self.at;
                self.literal()?;
                Ok(self.since(start))
            }
            Kind::Object | Kind::Array => self.raw_tree(),
            Kind::Nothing => self.syntax("a JSON value"),
        }
    }

    /// An object, as it was written.
    pub(crate) fn raw_object(&mut self) -> Read<&'a str> {
        match self.kind() {
            Kind::Object => self.raw_tree(),
            _ => self.wrong("an object"),
        }
    }

    fn raw_tree(&mut self) -> Read<&'a str> {
        let start = self.at;
        let base = self.names.len();
        let mut open: Vec<Open> = Vec::new();
        match self.skip_tree(&mut open) {
            Ok(()) => Ok(self.since(start)),
            Err(mut fault) => {
                for (level, inner) in open.iter().enumerate().rev() {
                    if !inner.object {
                        fault.path.push(Step::Index(inner.index));
                        continue;
                    }
                    let end = open.get(level + 1).map_or(self.names.len(), |next| next.names);
                    if let Some(name) = self.names[inner.names..end].last() {
                        fault = fault.under_name(&name.text);
                    }
                }
                self.names.truncate(base);
                Err(fault)
            }
        }
    }

    /// Skips an array or object without recursion. On failure `open` says where it was.
    fn skip_tree(&mut self, open: &mut Vec<Open>) -> Read<()> {
        loop {
            // A value begins here.
            let opened = match self.kind() {
                Kind::String => {
                    self.raw_string()?;
                    false
                }
                Kind::Number => {
                    self.raw_number()?;
                    false
                }
                Kind::Bool | Kind::Null => {
                    self.literal()?;
                    false
                }
                Kind::Nothing => return self.syntax("a JSON value"),
                kind => {
                    if self.depth + open.len() >= self.most {
                        return self.too_deep();
                    }
                    self.at += 1;
                    self.space();
                    open.push(Open { object: kind == Kind::Object, names: self.names.len(), index: 0 });
                    true
                }
            };
            // Behind a value, or behind an opening bracket.
            let mut first = opened;
            loop {
                let Some(inner) = open.last_mut() else { return Ok(()) };
                self.space();
                let (object, names) = (inner.object, inner.names);
                match self.bytes.get(self.at) {
                    Some(b'}') if object => {
                        self.at += 1;
                        if let Err(fault) = self.close(names) {
                            // The fault names the member itself.
                            open.pop();
                            return Err(fault);
                        }
                        open.pop();
                        first = false;
                        continue;
                    }
                    Some(b']') if !object => {
                        self.at += 1;
                        open.pop();
                        first = false;
                        continue;
                    }
                    Some(b',') if !first => {
                        self.at += 1;
                        inner.index += 1;
                        self.space();
                    }
                    _ if first => {}
                    _ if object => return self.syntax("a comma or a closing brace"),
                    _ => return self.syntax("a comma or a closing bracket"),
                }
                if object {
                    match self.name(names) {
                        Ok(name) => self.names.push(name),
                        Err(fault) => {
                            self.names.truncate(names);
                            return Err(fault);
                        }
                    }
                }
                break;
            }
        }
    }

    /// Looks ahead: the string member `name` of the object at hand, which is not consumed. `None` where there is none.
    pub(crate) fn tag(&mut self, name: &str) -> Read<Option<Cow<'a, str>>> {
        if self.kind() != Kind::Object {
            return self.wrong("an object");
        }
        let start = self.at;
        let (depth, base) = (self.depth, self.names.len());
        let result = self.find_tag(name);
        self.at = start;
        self.depth = depth;
        self.names.truncate(base);
        result
    }

    fn find_tag(&mut self, wanted: &str) -> Read<Option<Cow<'a, str>>> {
        self.descend("an object", Kind::Object)?;
        if self.byte() == Some(b'}') {
            return Ok(None);
        }
        let base = self.names.len();
        loop {
            let name = self.name(base)?;
            if name.text == wanted {
                return match self.kind() {
                    Kind::Null => Ok(None),
                    _ => self.string().map(Some).map_err(|fault| fault.under_name(wanted)),
                };
            }
            self.raw().map_err(|fault| fault.under_name(&name.text))?;
            self.space();
            match self.byte() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b'}') => return Ok(None),
                _ => return self.syntax("a comma or a closing brace"),
            }
        }
    }
}

/// True where `text` is one JSON object within `depth`; an error only for nesting beyond it.
pub(crate) fn is_object(text: &str, depth: usize) -> Read<bool> {
    let mut reader = Reader::new(text, depth);
    match reader.raw_object().and_then(|_| reader.end()) {
        Ok(()) => Ok(true),
        Err(fault) if fault.limit => Err(Fault {
            position: 0,
            path: Vec::new(),
            message: format!("holds JSON that {}", fault.message),
            syntax: false,
            limit: true,
        }
        .into()),
        Err(_) => Ok(false),
    }
}
