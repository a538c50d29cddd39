//! From TOML text to typed tables, with the place of every value, collecting everything that is wrong.
//!
//! The tables of the file are written once, with the macro `table!` (see `file.rs`): it makes the struct, its reader,
//! the check for unknown keys, and the JSON Schema.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use serde_json::{Value as Json, json};
use toml::de::{DeTable, DeValue};

use crate::names::{did_you_mean, list, quote};
use crate::problem::{Problem, Problems};
use crate::secret::Secret;
use crate::units;

/// Longest file, and longest text that a value may have after its variables are filled in.
const MAX_TEXT: usize = 1 << 20;
/// More problems than this are not listed.
const MAX_PROBLEMS: usize = 100;

/// A value with its place.
pub(crate) struct Node {
    pub(crate) span: Range<usize>,
    /// The environment variable that the text came from, where one did.
    pub(crate) variable: Option<String>,
    pub(crate) value: Value,
}

pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Vec<(Key, Node)>),
    /// Already reported.
    Broken,
}

/// Line and column, from 1, of an entry's key and of its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) key: (u32, u32),
    pub(crate) value: (u32, u32),
}

/// A key with its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) span: Range<usize>,
}

impl Node {
    /// The value in a message: never what came from the environment.
    pub(crate) fn show(&self, text: &str) -> String {
        match &self.variable {
            Some(name) => format!("the value of ${{{name}}}"),
            None => quote(text, 60),
        }
    }

    fn kind(&self) -> &'static str {
        match &self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
            Value::Broken => "nothing",
        }
    }
}

/// A read value with its place.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
    pub(crate) variable: Option<String>,
}

/// A reference to a variable.
pub(crate) struct Use {
    /// The variable.
    pub(crate) name: String,
    /// Whether the reference has a default.
    pub(crate) default: bool,
    /// Where it stands.
    pub(crate) key: String,
}

/// Reads one file.
pub(crate) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    /// Where lines start, and whether they are ASCII throughout (then columns are counted without looking).
    lines: Vec<(usize, bool)>,
    env: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) places: BTreeMap<String, Place>,
    /// The variables that texts refer to.
    pub(crate) uses: Vec<Use>,
    /// The keys of values that are never shown.
    pub(crate) hidden: BTreeSet<String>,
    /// The text has syntax errors: what is missing may have been lost with them, so it is not reported.
    pub(crate) partial: bool,
}

impl<'a> Reader<'a> {
    /// Parses the text. Syntax errors are collected, and what could be read in spite of them is returned.
    pub(crate) fn parse(text: &'a str, file: &'a str, env: &'a dyn Fn(&str) -> Option<String>) -> (Self, Option<Node>) {
        let mut starts = vec![0];
        starts.extend(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1));
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let ascii: Vec<bool> =
            starts.iter().zip(ends).map(|(start, end)| text.get(*start..end).is_some_and(str::is_ascii)).collect();
        let lines = starts.into_iter().zip(ascii).collect();
        let mut reader = Self {
            file,
            text,
            lines,
            env,
            problems: Vec::new(),
            places: BTreeMap::new(),
            uses: Vec::new(),
            hidden: BTreeSet::new(),
            partial: false,
        };
        if text.len() > MAX_TEXT {
            reader.problem(&(0..0), "", "the file is larger than 1MiB", None);
            return (reader, None);
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut lines = Vec::new();
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let (line, _) = reader.position(span.start);
            if lines.contains(&line) {
                continue; // what follows a syntax error on its line is seldom an error of its own
            }
            if lines.len() < MAX_PROBLEMS {
                lines.push(line);
            }
            let help = (error.message() == "duplicate key").then(|| "write each key and each table once".to_owned());
            reader.problem(&span, "", error.message(), help);
        }
        reader.partial = !errors.is_empty();
        let root = reader.table_node(0..0, table.get_ref(), "");
        (reader, Some(root))
    }

    /// All problems, in order; those that follow from a syntax error on the same line are left out.
    pub(crate) fn finish(mut self) -> (Problems, BTreeMap<String, Place>) {
        let broken: Vec<u32> = self.problems.iter().filter(|p| p.key.is_empty()).map(|p| p.line).collect();
        if self.partial {
            self.problems.retain(|p| p.key.is_empty() || !broken.contains(&p.line));
        }
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems.dedup();
        if self.problems.len() > MAX_PROBLEMS {
            let more = self.problems.len() - MAX_PROBLEMS;
            self.problems.truncate(MAX_PROBLEMS);
            self.problems.push(Problem {
                file: self.file.to_owned(),
                line: 0,
                column: 0,
                key: String::new(),
                message: format!("{more} more problems are not listed"),
                help: None,
            });
        }
        (Problems(self.problems), self.places)
    }

    pub(crate) fn problem(&mut self, span: &Range<usize>, key: &str, message: impl Into<String>, help: Option<String>) {
        // Ten times as many are kept while reading, so that the first ones in the file's order are among them.
        if self.problems.len() >= 10 * MAX_PROBLEMS {
            return;
        }
        let (line, column) = self.position(span.start);
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            column,
            key: key.to_owned(),
            message: message.into(),
            help,
        });
    }

    /// Line and column, from 1.
    fn position(&self, offset: usize) -> (u32, u32) {
        let line = self.lines.partition_point(|(start, _)| *start <= offset).saturating_sub(1);
        let (start, ascii) = self.lines.get(line).copied().unwrap_or((0, true));
        let bytes = offset.saturating_sub(start);
        let column = if ascii || bytes > 4_096 {
            bytes
        } else {
            self.text.get(start..offset).map_or(bytes, |before| before.chars().count())
        };
        (u32::try_from(line + 1).unwrap_or(u32::MAX), u32::try_from(column + 1).unwrap_or(u32::MAX))
    }

    fn table_node(&mut self, span: Range<usize>, table: &DeTable<'_>, path: &str) -> Node {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let path = join(path, &name);
            let node = self.node(value.span(), key.span(), value.get_ref(), &path);
            entries.push((Key { name, span: key.span() }, node));
        }
        Node { span, variable: None, value: Value::Table(entries) }
    }

    /// The parser bounds how deep values nest (80), and so this recursion.
    fn node(&mut self, span: Range<usize>, key: Range<usize>, value: &DeValue<'_>, path: &str) -> Node {
        let key_place = self.position(key.start);
        let span = match value {
            DeValue::Table(_) if span.is_empty() || self.text.as_bytes().get(span.start) == Some(&b'[') => key,
            _ => span,
        };
        let place = Place { key: key_place, value: self.position(span.start) };
        self.places.insert(path.to_owned(), place);
        let mut variable = None;
        let value = match value {
            DeValue::Table(table) => return self.table_node(span, table, path),
            DeValue::Array(array) => Value::Array(
                array
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.node(item.span(), item.span(), item.get_ref(), &format!("{path}[{i}]")))
                    .collect(),
            ),
            DeValue::String(text) => match self.fill(text, path) {
                Ok((text, from)) => {
                    variable = from;
                    Value::String(text)
                }
                Err((message, help)) => {
                    self.problem(&span, path, message, Some(help));
                    Value::Broken
                }
            },
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    self.problem(&span, path, "a number that does not fit into 64 bits", None);
                    Value::Broken
                }
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Float(number),
                _ => {
                    self.problem(&span, path, "a number that is not finite", None);
                    Value::Broken
                }
            },
            DeValue::Boolean(flag) => Value::Boolean(*flag),
            DeValue::Datetime(date) => Value::Datetime(date.to_string()),
        };
        Node { span, variable, value }
    }

    /// Fills in `${NAME}` and `${NAME:-default}`; `$$` is a dollar sign. Says which variable the text came from. The
    /// error is a message and what would be right.
    fn fill(&mut self, text: &str, path: &str) -> Result<(String, Option<String>), (String, String)> {
        let mut out = String::with_capacity(text.len());
        let mut from = None;
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, behind) = rest.split_at(at);
            out.push_str(before);
            if let Some(behind) = behind.strip_prefix("$$") {
                out.push('$');
                rest = behind;
            } else if let Some(inside) = behind.strip_prefix("${") {
                let Some((reference, behind)) = inside.split_once('}') else {
                    return Err((
                        "a \"${\" without its \"}\"".into(),
                        "write ${NAME}, or $${ for the characters themselves".into(),
                    ));
                };
                let (name, default) =
                    reference.split_once(":-").map_or((reference, None), |(name, default)| (name, Some(default)));
                if !variable_name(name) || default.is_some_and(|default| default.contains("${")) {
                    return Err((
                        "a \"${…}\" that is no variable".into(),
                        "write ${NAME} or ${NAME:-default}; a name is letters, digits and \"_\", and a default is \
                         plain text"
                            .into(),
                    ));
                }
                self.uses.push(Use { name: name.to_owned(), default: default.is_some(), key: path.to_owned() });
                match ((self.env)(name), default) {
                    (Some(value), None) => out.push_str(&value),
                    (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
                    (_, Some(default)) => out.push_str(default),
                    (None, None) => {
                        return Err((
                            format!("the environment variable {name} is not set"),
                            format!("set it, or give a default: ${{{name}:-…}}"),
                        ));
                    }
                }
                from.get_or_insert_with(|| name.to_owned());
                rest = behind;
            } else {
                out.push('$');
                rest = behind.strip_prefix('$').unwrap_or_default();
            }
            if out.len() > MAX_TEXT {
                return Err(("longer than 1MiB with its variables".into(), "set a shorter value".into()));
            }
        }
        out.push_str(rest);
        Ok((out, from))
    }

    /// The environment.
    pub(crate) fn env(&self) -> &'a dyn Fn(&str) -> Option<String> {
        self.env
    }

    fn expected(&mut self, node: &Node, path: &str, what: &str, help: Option<&str>) {
        if !matches!(node.value, Value::Broken) {
            let message = match (&node.value, &node.variable) {
                (Value::String(_), Some(name)) => format!("expected {what}, found the value of ${{{name}}}"),
                _ => format!("expected {what}, found {}", node.kind()),
            };
            self.problem(&node.span, path, message, help.map(str::to_owned));
        }
    }

    pub(crate) fn unknown_key(&mut self, table: &str, key: &Key, known: &[&str]) {
        let help = did_you_mean(&key.name, known.iter().copied())
            .unwrap_or_else(|| format!("the keys here are {}", list_all(known)));
        self.problem(&key.span, table, format!("unknown key {}", quote(&key.name, 64)), Some(help));
    }

    pub(crate) fn missing_key(&mut self, table: &Node, path: &str, key: &str) {
        if !self.partial {
            self.problem(&table.span, path, format!("the key \"{key}\" is missing"), None);
        }
    }
}

/// Key names are ours, and few: none is cut.
fn list_all(known: &[&str]) -> String {
    if known.len() <= 10 {
        return list(known.iter().copied());
    }
    known.iter().map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", ")
}

fn variable_name(name: &str) -> bool {
    name.len() <= 256
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The path of `key` in the table at `path`, as TOML writes it.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (path.is_empty(), bare) {
        (true, true) => key.to_owned(),
        (true, false) => quote(key, 64),
        (false, true) => format!("{path}.{key}"),
        (false, false) => format!("{path}.{}", quote(key, 64)),
    }
}

/// A kind of value: how it is read, and its schema.
pub(crate) trait Kind {
    /// What it is read to.
    type Value;

    /// Reads the value, or reports why it cannot be.
    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self::Value>;

    /// JSON Schema.
    fn schema() -> Json;
}

/// A kind whose values have an order and a text.
pub(crate) trait Ranged: Kind<Value: PartialOrd> {
    fn show(value: &Self::Value) -> String;

    /// Reports a value that is out of range.
    fn in_range(
        value: Self::Value,
        range: &std::ops::RangeInclusive<Self::Value>,
        node: &Node,
        path: &str,
        reader: &mut Reader<'_>,
    ) -> Option<Self::Value> {
        if range.contains(&value) {
            return Some(value);
        }
        let what = match &node.variable {
            Some(name) => format!("the value of ${{{name}}}"),
            None => Self::show(&value),
        };
        let help = format!("write one from {} to {}", Self::show(range.start()), Self::show(range.end()));
        reader.problem(&node.span, path, format!("{what} is out of range"), Some(help));
        None
    }
}

/// A string.
pub(crate) struct Text;

impl Kind for Text {
    type Value = String;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<String> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            _ => {
                reader.expected(node, path, "a string", None);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"type": "string"})
    }
}

/// A string that is never shown.
pub(crate) struct Hidden;

impl Kind for Hidden {
    type Value = Secret;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Secret> {
        reader.hidden.insert(path.to_owned());
        Text::read(node, path, reader).map(Secret::new)
    }

    fn schema() -> Json {
        json!({"type": "string"})
    }
}

/// `true` or `false`; as text where it comes from the environment.
pub(crate) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<bool> {
        match (&node.value, &node.variable) {
            (Value::Boolean(flag), _) => return Some(*flag),
            (Value::String(text), Some(_)) if text == "true" => return Some(true),
            (Value::String(text), Some(_)) if text == "false" => return Some(false),
            _ => reader.expected(node, path, "true or false", None),
        }
        None
    }

    fn schema() -> Json {
        json!({"type": ["boolean", "string"], "pattern": "\\$\\{"})
    }
}

/// A count; as text where it comes from the environment.
pub(crate) struct Count;

impl Kind for Count {
    type Value = u32;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<u32> {
        let count = match (&node.value, &node.variable) {
            (Value::Integer(number), _) => u32::try_from(*number).ok(),
            (Value::String(text), Some(_)) => text.trim().parse().ok(),
            _ => None,
        };
        if count.is_none() {
            match (&node.value, &node.variable) {
                (Value::Integer(number), _) => reader.problem(
                    &node.span,
                    path,
                    format!("{number} is out of range"),
                    Some("write a number from 0 to 4294967295".into()),
                ),
                _ => reader.expected(node, path, "a whole number", None),
            }
        }
        count
    }

    fn schema() -> Json {
        json!({"type": ["integer", "string"], "minimum": 0, "pattern": "\\$\\{"})
    }
}

impl Ranged for Count {
    fn show(value: &u32) -> String {
        value.to_string()
    }
}

/// `"10MiB"`, or a number of bytes.
pub(crate) struct Size;

impl Kind for Size {
    type Value = u64;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<u64> {
        match &node.value {
            Value::Integer(number) => {
                let size = u64::try_from(*number).ok();
                if size.is_none() {
                    reader.problem(&node.span, path, format!("{number} is not a size"), Some(units::SIZE_HELP.into()));
                }
                size
            }
            Value::String(text) => {
                let size = units::size(text);
                if size.is_none() {
                    let message = format!("{} is not a size", node.show(text));
                    reader.problem(&node.span, path, message, Some(units::SIZE_HELP.into()));
                }
                size
            }
            _ => {
                reader.expected(node, path, "a size", Some(units::SIZE_HELP));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({
            "type": ["string", "integer"],
            "pattern": "^ *[0-9]+(\\.[0-9]+)? *([kKmMgG]?[iI]?[bB])? *$|\\$\\{",
            "minimum": 0,
        })
    }
}

impl Ranged for Size {
    fn show(value: &u64) -> String {
        units::show_size(*value)
    }
}

/// `"15s"`, or a number of seconds.
pub(crate) struct Time;

impl Kind for Time {
    type Value = Duration;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Duration> {
        let (time, text) = match &node.value {
            Value::Integer(number) => (units::seconds(*number as f64), number.to_string()),
            Value::Float(number) => (units::seconds(*number), number.to_string()),
            Value::String(text) => (units::duration(text), node.show(text)),
            _ => {
                reader.expected(node, path, "a duration", Some(units::DURATION_HELP));
                return None;
            }
        };
        if time.is_none() {
            let message = format!("{text} is not a duration");
            reader.problem(&node.span, path, message, Some(units::DURATION_HELP.into()));
        }
        time
    }

    fn schema() -> Json {
        json!({
            "type": ["string", "number"],
            "pattern": "^ *[0-9]+(\\.[0-9]+)? *(ms|s|m|min|h)? *$|\\$\\{",
            "minimum": 0,
        })
    }
}

impl Ranged for Time {
    fn show(value: &Duration) -> String {
        units::show_duration(*value)
    }
}

/// An array.
pub(crate) struct ListOf<K>(std::marker::PhantomData<K>);

impl<K: Kind> Kind for ListOf<K> {
    type Value = Vec<At<K::Value>>;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self::Value> {
        let Value::Array(items) = &node.value else {
            reader.expected(node, path, "an array", None);
            return None;
        };
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            if let Some(value) = K::read(item, &format!("{path}[{i}]"), reader) {
                out.push(At { value, span: item.span.clone(), variable: item.variable.clone() });
            }
        }
        Some(out)
    }

    fn schema() -> Json {
        json!({"type": "array", "items": K::schema()})
    }
}

/// A table whose keys are the user's own names.
pub(crate) struct MapOf<K>(std::marker::PhantomData<K>);

/// One entry of a [`MapOf`]; the value is absent where it could not be read.
pub(crate) struct Entry<T> {
    pub(crate) key: Key,
    pub(crate) at: Option<At<T>>,
}

impl<K: Kind> Kind for MapOf<K> {
    type Value = Vec<Entry<K::Value>>;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self::Value> {
        let Value::Table(entries) = &node.value else {
            reader.expected(node, path, "a table", None);
            return None;
        };
        let mut out = Vec::with_capacity(entries.len());
        for (key, item) in entries {
            let at = K::read(item, &join(path, &key.name), reader).map(|value| At {
                value,
                span: item.span.clone(),
                variable: item.variable.clone(),
            });
            out.push(Entry { key: key.clone(), at });
        }
        Some(out)
    }

    fn schema() -> Json {
        json!({"type": "object", "additionalProperties": K::schema()})
    }
}

/// One of a few words.
pub(crate) struct Word<T>(std::marker::PhantomData<T>);

/// What a [`Word`] stands for.
pub(crate) trait Named: Copy + 'static {
    /// As in messages.
    const WHAT: &'static str;
    /// All of them.
    const NAMES: &'static [(&'static str, Self)];
}

impl<T: Named> Kind for Word<T> {
    type Value = T;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<T> {
        let text = Text::read(node, path, reader)?;
        let found = T::NAMES.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names = || T::NAMES.iter().map(|(name, _)| *name);
            let help = did_you_mean(&text, names()).unwrap_or_else(|| format!("write {}", list(names())));
            reader.problem(&node.span, path, format!("{} is no {}", node.show(&text), T::WHAT), Some(help));
        }
        found.map(|(_, value)| *value)
    }

    fn schema() -> Json {
        let names: Vec<_> = T::NAMES.iter().map(|(name, _)| *name).collect();
        json!({"type": "string", "pattern": format!("^({})$|\\$\\{{", names.join("|"))})
    }
}

/// A table of which the adapter knows the keys.
pub(crate) struct Anything;

impl Kind for Anything {
    type Value = Json;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Json> {
        if !matches!(node.value, Value::Table(_)) {
            reader.expected(node, path, "a table", None);
            return None;
        }
        Some(to_json(node))
    }

    fn schema() -> Json {
        json!({"type": "object"})
    }
}

fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::String(text) | Value::Datetime(text) => json!(text),
        Value::Integer(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Boolean(flag) => json!(flag),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Table(entries) => {
            Json::Object(entries.iter().map(|(key, item)| (key.name.clone(), to_json(item))).collect())
        }
        Value::Broken => Json::Null,
    }
}

/// Writes a table of the file once: its struct, its reader, its schema.
///
/// A field is `name: Kind;`, with ` = default, range` for kinds that are [`Ranged`], or with `[required]`. Its comment
/// becomes the schema's description.
macro_rules! table {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])*
                $field:ident: $kind:ty $([$required:ident])? $(= $default:expr, $range:expr)?;
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Default)]
        $vis struct $name {
            $(
                $(#[doc = $field_doc])*
                pub(crate) $field: Option<$crate::read::At<<$kind as $crate::read::Kind>::Value>>,
            )*
        }

        impl $crate::read::Kind for $name {
            type Value = Self;

            fn read(node: &$crate::read::Node, path: &str, reader: &mut $crate::read::Reader<'_>) -> Option<Self> {
                let $crate::read::Value::Table(entries) = &node.value else {
                    reader.expected_table(node, path);
                    return None;
                };
                let mut out = Self::default();
                for (key, item) in entries {
                    match key.name.as_str() {
                        $(
                            stringify!($field) => {
                                let path = $crate::read::join(path, stringify!($field));
                                let value = <$kind as $crate::read::Kind>::read(item, &path, reader);
                                $(
                                    let value = value.and_then(|value| {
                                        <$kind as $crate::read::Ranged>::in_range(value, &$range, item, &path, reader)
                                    });
                                )?
                                out.$field = value.map(|value| $crate::read::At {
                                    value,
                                    span: item.span.clone(),
                                    variable: item.variable.clone(),
                                });
                            }
                        )*
                        _ => reader.unknown_key(path, key, &[$(stringify!($field)),*]),
                    }
                }
                $($(
                    let _ = stringify!($required);
                    if !entries.iter().any(|(key, _)| key.name == stringify!($field)) {
                        reader.missing_key(node, path, stringify!($field));
                    }
                )?)*
                Some(out)
            }

            fn schema() -> serde_json::Value {
                #[allow(unused_mut)]
                let mut required: Vec<&str> = Vec::new();
                let mut properties = serde_json::Map::new();
                $(
                    #[allow(unused_mut)]
                    let mut text = concat!($($field_doc, "\n"),*).to_owned();
                    #[allow(unused_mut)]
                    let mut schema = <$kind as $crate::read::Kind>::schema();
                    $(
                        let range = $range;
                        text.push_str(&format!(
                            " From {} to {}.",
                            <$kind as $crate::read::Ranged>::show(range.start()),
                            <$kind as $crate::read::Ranged>::show(range.end()),
                        ));
                        schema["default"] = $crate::read::default_text(
                            &schema, <$kind as $crate::read::Ranged>::show(&$default),
                        );
                    )?
                    $(
                        let _ = stringify!($required);
                        required.push(stringify!($field));
                    )?
                    schema["description"] = $crate::read::prose(&text).into();
                    properties.insert(stringify!($field).to_owned(), schema);
                )*
                let mut schema = serde_json::json!({
                    "type": "object",
                    "properties": properties,
                    "additionalProperties": false,
                });
                if !required.is_empty() {
                    schema["required"] = required.into();
                }
                schema
            }
        }
    };
}

pub(crate) use table;

impl Reader<'_> {
    pub(crate) fn expected_table(&mut self, node: &Node, path: &str) {
        self.expected(node, path, "a table", None);
    }
}

/// A comment's lines as one paragraph, without the marks that only rustdoc reads.
pub(crate) fn prose(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "")
}

/// The default of a schema: a number where the value is one.
pub(crate) fn default_text(schema: &Json, text: String) -> Json {
    match text.parse::<u64>() {
        Ok(number) if schema["type"][0] == "integer" => number.into(),
        _ => text.into(),
    }
}
