//! What a model's text is taken for: a list, or a JSON value.

use serde_json::Value;

use super::schema;
use super::validate::Validator;

/// Deepest nesting of an answer's JSON.
const MOST_DEPTH: usize = 100;

/// The items of a text.
///
/// Where a line has a marker (`-`, `*`, `+`, `•`, `1.`, `1)`), items begin at those lines: unmarked ones before the first
/// are an introduction, later ones continue their item. Else each line is an item.
pub(super) fn list(text: &str) -> Vec<String> {
    let lines = || text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    if !lines().any(|line| unmarked(line).is_some()) {
        return lines().map(str::to_owned).collect();
    }
    let mut items: Vec<String> = Vec::new();
    for line in lines() {
        match (unmarked(line), items.last_mut()) {
            (Some(item), _) => items.push(item.to_owned()),
            (None, Some(item)) => {
                if !item.is_empty() {
                    item.push('\n');
                }
                item.push_str(line);
            }
            (None, None) => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

/// A line behind its marker; `None` where it has none.
fn unmarked(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(['-', '*', '+', '•']).or_else(|| {
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let rest = line.get(digits..).filter(|_| (1..=9).contains(&digits))?;
        rest.strip_prefix(['.', ')'])
    })?;
    // `-5 degrees`, `*bold*` and `1.5 litres` are no items.
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim_start())
}

/// The JSON value in a text: all of it, or what stands in one fence, or the one object or list inside of prose.
pub(super) fn json(text: &str) -> Result<Value, String> {
    let text = text.trim().trim_start_matches('\u{feff}');
    if text.is_empty() {
        return Err("the answer is empty".to_owned());
    }
    let whole = match parse(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let fenced = fences(text);
    let mut values = fenced.iter().filter_map(|inner| parse(inner).ok());
    if let Some(value) = values.next() {
        return match values.next() {
            None => Ok(value),
            Some(_) => Err("the answer has more than one fenced JSON value".to_owned()),
        };
    }
    let mut found = embedded(text);
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(format!("the answer is not JSON: {whole}")),
        _ => Err("the answer has more than one JSON value in its text".to_owned()),
    }
}

fn parse(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if depth(&value) > MOST_DEPTH { Err(format!("it is nested deeper than {MOST_DEPTH}")) } else { Ok(value) }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// What stands between fences of backticks.
fn fences(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once("```") {
        // Behind the fence a tag may stand, up to the line's end or to the first character that cannot be one.
        let tag = behind.find(|c: char| !c.is_ascii_alphanumeric() && !"-_+.".contains(c)).unwrap_or(behind.len());
        // A bare value on the fence's own line is no tag.
        let inner = behind.get(tag..).filter(|inner| inner.starts_with(char::is_whitespace)).unwrap_or(behind);
        let Some((inner, behind)) = inner.split_once("```") else { break };
        all.push(inner.trim());
        rest = behind;
    }
    all
}

/// The objects and lists inside of a text, up to two, in time linear in the text: what has been taken as part of one
/// failed attempt is tried again at most a bounded number of times.
fn embedded(text: &str) -> Vec<Value> {
    const MOST_TRIES: usize = 64;
    let mut found = Vec::new();
    let mut at = 0;
    for _ in 0..MOST_TRIES {
        let Some(next) = text.get(at..).and_then(|rest| rest.find(['{', '['])) else { break };
        at += next;
        let rest = text.get(at..).unwrap_or_default();
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        match stream.next() {
            Some(Ok(value)) if depth(&value) <= MOST_DEPTH => {
                found.push(value);
                at += stream.byte_offset().max(1);
                if found.len() == 2 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// The value that `text` holds, with the schema's defaults, if it matches the schema.
pub(super) fn structured(schema: &Value, text: &str) -> Result<Value, String> {
    let mut value = json(text)?;
    schema::fill(schema, &mut value);
    let errors = Validator::new(schema)?.errors(&value);
    if errors.is_empty() {
        Ok(value)
    } else {
        Err(format!("the answer does not match the schema: {}", errors.join("; ")))
    }
}
