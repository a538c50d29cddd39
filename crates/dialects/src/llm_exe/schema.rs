//! What schemas are used for beside validation: defaults, and examples.

use serde_json::{Map, Value};

use super::validate::{NAMED, SCHEMA, SCHEMAS};

/// The deepest that defaults are applied, and examples made.
const MOST_DEPTH: usize = 64;

/// Puts in what `value` lacks and `schema` has a default for.
pub(super) fn fill(schema: &Value, value: &mut Value) {
    fill_in(schema, schema, value, 0);
}

fn fill_in(root: &Value, schema: &Value, value: &mut Value, depth: usize) {
    if depth > MOST_DEPTH {
        return;
    }
    if let Some(meant) = schema.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#')) {
        // A JSON pointer; anchors are left to the validator.
        if let Some(meant) = root.pointer(meant) {
            fill_in(root, meant, value, depth + 1);
        }
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        fill_in(root, part, value, depth + 1);
    }
    match value {
        Value::Object(members) => {
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if let Some(member) = members.get_mut(name) {
                    fill_in(root, property, member, depth + 1);
                } else if let Some(default) = property.get("default") {
                    members.insert(name.clone(), default.clone());
                }
            }
        }
        Value::Array(list) => {
            if let Some(items @ Value::Object(_)) = schema.get("items") {
                for item in list {
                    fill_in(root, items, item, depth + 1);
                }
            }
        }
        _ => {}
    }
}

/// An object or a list of the shape that `schema` describes, in which each value is what its schema has under `keyword`,
/// an empty text where it has nothing. Null for schemas of anything else.
pub(super) fn example(schema: &Value, keyword: &str) -> Value {
    example_of(schema, keyword, 0).unwrap_or_default()
}

fn example_of(schema: &Value, keyword: &str, depth: usize) -> Option<Value> {
    if depth > MOST_DEPTH {
        return None;
    }
    match kind(schema) {
        Some("object") => {
            let mut members = Map::new();
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let own = property.get(keyword).cloned();
                let value = own.or_else(|| example_of(property, keyword, depth + 1));
                members.insert(name.clone(), value.unwrap_or_else(|| Value::String(String::new())));
            }
            Some(Value::Object(members))
        }
        Some("array") => {
            let item = schema
                .get("items")
                .and_then(|items| items.get(keyword).cloned().or_else(|| example_of(items, keyword, depth + 1)));
            Some(Value::Array(item.into_iter().collect()))
        }
        _ => None,
    }
}

/// The first type that is not `null`.
fn kind(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(kind) => Some(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        _ => None,
    }
}

/// The schema without the keyword `default`; members of that name that are no keywords stay.
pub(super) fn without_defaults(schema: &Value) -> Value {
    let Value::Object(members) = schema else { return schema.clone() };
    let mut kept = Map::new();
    for (name, value) in members {
        let value = match (name.as_str(), value) {
            ("default", _) => continue,
            (name, Value::Object(schemas)) if NAMED.contains(&name) => {
                Value::Object(schemas.iter().map(|(name, schema)| (name.clone(), without_defaults(schema))).collect())
            }
            (name, Value::Array(schemas)) if SCHEMAS.contains(&name) => {
                Value::Array(schemas.iter().map(without_defaults).collect())
            }
            (name, schema) if SCHEMA.contains(&name) => without_defaults(schema),
            (_, value) => value.clone(),
        };
        kept.insert(name.clone(), value);
    }
    Value::Object(kept)
}
