//! Stored configurations in markdown: YAML between `---` lines, then the messages.
//!
//! Of YAML that is all that JSON can say: mappings, lists, and scalars by the core schema of YAML 1.2. Anchors, aliases
//! and tags of one's own are refused: a few lines of them can mean gigabytes.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value, json};

/// The deepest nesting.
const MOST_DEPTH: usize = 32;

/// A configuration, as one in JSON would say it.
pub(super) fn configuration(text: &str) -> Result<Map<String, Value>, String> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let (front, body) = split(&text)?;
    let mut members = match yaml(front)? {
        Value::Object(members) => members,
        Value::Null => Map::new(),
        _ => return Err("the front matter is no mapping of names to values".to_owned()),
    };
    if members.contains_key("message") {
        return Err("the front matter has a `message`; the text below it is the message".to_owned());
    }
    let message = match dialogue(body) {
        messages if messages.is_empty() => Value::String(body.trim().to_owned()),
        messages => Value::Array(messages),
    };
    members.insert("message".to_owned(), message);
    Ok(members)
}

/// What stands between the first two `---` lines, and what below.
fn split(text: &str) -> Result<(&str, &str), String> {
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| line.trim_end() == "---") else { return Ok(("", text)) };
    let mut at = first.len();
    for line in lines {
        if matches!(line.trim_end(), "---" | "...") {
            let body = text.get(at + line.len()..).unwrap_or_default();
            return Ok((text.get(first.len()..at).unwrap_or_default(), body));
        }
        at += line.len();
    }
    Err("the front matter has no end: a line `---` is missing".to_owned())
}

/// The messages of a text in which lines begin with `System:`, `User:` or `Assistant:`; none where no line does.
fn dialogue(text: &str) -> Vec<Value> {
    let start = text.find("<!-- prompt start -->").map_or(0, |at| at + "<!-- prompt start -->".len());
    let text = text.get(start..).unwrap_or_default();
    let text = text.split("<!-- prompt end -->").next().unwrap_or_default();
    let mut turns: Vec<(&str, String)> = Vec::new();
    for line in text.lines() {
        match (speaker(line), turns.last_mut()) {
            (Some((role, rest)), _) => turns.push((role, rest.trim().to_owned())),
            (None, Some((_, content))) => {
                content.push('\n');
                content.push_str(line);
            }
            (None, None) => {}
        }
    }
    let said = turns.iter().map(|(role, content)| (role, content.trim())).filter(|(_, content)| !content.is_empty());
    said.map(|(role, content)| json!({"role": role, "content": content})).collect()
}

/// Whose turn a line begins, and what follows.
fn speaker(line: &str) -> Option<(&'static str, &str)> {
    let (word, rest) = line.split_once(':')?;
    let role = ["system", "user", "assistant"].into_iter().find(|role| role.eq_ignore_ascii_case(word.trim_start()))?;
    Some((role, rest))
}

/// A list or mapping that is open.
enum Open {
    List(Vec<Value>),
    /// With the name whose value comes next.
    Mapping(Map<String, Value>, Option<String>),
}

/// The value of one YAML document.
fn yaml(text: &str) -> Result<Value, String> {
    let mut stack: Vec<Open> = Vec::new();
    let mut whole = None;
    for event in Parser::new_from_str(text) {
        // The front matter begins on the file's second line.
        let (event, span) = event.map_err(|error| format!("line {}: {}", error.marker().line() + 1, error.info()))?;
        let line = span.start.line() + 1;
        let value = match event {
            Event::Alias(_) => return Err(format!("line {line}: aliases are not read here")),
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return Err(format!("line {line}: anchors are not read here"));
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return Err(format!("line {line}: tags are not read here"));
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if stack.len() >= MOST_DEPTH {
                    return Err(format!("line {line}: nested deeper than {MOST_DEPTH}"));
                }
                stack.push(match event {
                    Event::SequenceStart(..) => Open::List(Vec::new()),
                    _ => Open::Mapping(Map::new(), None),
                });
                continue;
            }
            Event::Scalar(text, style, ..) => match (stack.last_mut(), style) {
                // A name is text, whatever it looks like.
                (Some(Open::Mapping(members, name @ None)), _) => {
                    if members.contains_key(text.as_ref()) {
                        return Err(format!("line {line}: `{text}` stands there twice"));
                    }
                    *name = Some(text.into_owned());
                    continue;
                }
                (_, ScalarStyle::Plain) => plain(&text),
                _ => Value::String(text.into_owned()),
            },
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Mapping(members, _)) => Value::Object(members),
                None => continue,
            },
            _ => continue,
        };
        match stack.last_mut() {
            None if whole.is_some() => return Err(format!("line {line}: there is more than one document")),
            None => whole = Some(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Mapping(members, name)) => match name.take() {
                Some(name) => drop(members.insert(name, value)),
                None => return Err(format!("line {line}: a name has to be text")),
            },
        }
    }
    Ok(whole.unwrap_or_default())
}

/// A plain scalar by the core schema.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.contains(|c: char| c.is_ascii_digit()) {
        return Value::String(text.to_owned());
    }
    let radix = |prefix, radix| digits.strip_prefix(prefix).and_then(|rest| u64::from_str_radix(rest, radix).ok());
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)).filter(|_| digits == text) {
        return Value::from(number);
    }
    let number = text.parse::<i64>().ok().map(Number::from);
    let number = number.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64));
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}
