//! A validator of JSON Schema, as drafts 7 and 2020-12 have it, for answers.
//!
//! What it does not know is refused when the schema is read, never ignored: references out of the schema, to anchors and
//! dynamic ones, `unevaluated…`, a `$id` inside of the schema, a `$schema` that is no draft of JSON Schema. `format`, `content…`, `default` and what no draft names
//! are annotations. Nothing beside a `$ref` counts where the schema names a draft up to 7. Patterns are matched in linear time: look-around and back-references are refused.
//!
//! Validation takes a bounded number of steps, however a schema refers to itself.

use std::cell::Cell;
use std::collections::BTreeMap;

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// The deepest nesting of a schema, and the longest chain of its references on the way into a value.
const MOST_DEPTH: usize = 128;

/// The most steps of one validation.
const MOST_STEPS: u32 = 2_000_000;

/// The most errors that are told of one value.
const MOST_ERRORS: usize = 5;

/// The most that a compiled pattern may take.
const PATTERN_BYTES: usize = 256 * 1024;

/// Keywords whose value is a schema.
pub(super) const SCHEMA: [&str; 9] =
    ["items", "additionalItems", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else"];

/// Keywords whose value is a list of schemas; `items` may be one in draft 7.
pub(super) const SCHEMAS: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];

/// Keywords whose value names schemas.
pub(super) const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Keywords whose value is a whole number from 0.
const COUNTS: [&str; 8] =
    ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"];

/// Keywords whose value is a number.
const NUMBERS: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];

/// Keywords that change what matches, and are not known here.
const REFUSED: [&str; 5] =
    ["$dynamicRef", "$recursiveRef", "unevaluatedProperties", "unevaluatedItems", "$recursiveAnchor"];

const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "integer", "string"];

/// A schema that has been read.
#[derive(Debug)]
pub(super) struct Validator<'s> {
    root: &'s Value,
    patterns: BTreeMap<&'s str, Regex>,
    /// The schema names a draft up to 7, in which nothing beside a `$ref` counts.
    lone_references: bool,
}

/// One place in a schema or a value.
struct Place<'p> {
    outer: Option<&'p Place<'p>>,
    step: Step<'p>,
}

enum Step<'p> {
    Root,
    Name(&'p str),
    Index(usize),
}

impl Place<'_> {
    const ROOT: Place<'static> = Place { outer: None, step: Step::Root };

    /// As a JSON pointer.
    fn pointer(&self) -> String {
        let mut text = self.outer.map(Place::pointer).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Name(name) => {
                text.push('/');
                let name: String = name.chars().take(64).collect();
                text.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
            Step::Index(index) => text.push_str(&format!("/{index}")),
        }
        text
    }
}

impl<'s> Validator<'s> {
    /// Reads a schema; the error says what is wrong with it, and where.
    pub(super) fn new(root: &'s Value) -> Result<Self, String> {
        let draft = root.get("$schema").and_then(Value::as_str).unwrap_or_default();
        let lone_references = ["/draft-04/", "/draft-06/", "/draft-07/"].iter().any(|old| draft.contains(old));
        let mut validator = Validator { root, patterns: BTreeMap::new(), lone_references };
        validator.read(root, &Place::ROOT, 0).map_err(
            |(at, what)| {
                if at.is_empty() { what } else { format!("at {at}: {what}") }
            },
        )?;
        Ok(validator)
    }

    fn read(&mut self, schema: &'s Value, at: &Place<'_>, depth: usize) -> Result<(), (String, String)> {
        let members = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(members) => members,
            _ => return Err((at.pointer(), "a schema is an object or a boolean".to_owned())),
        };
        if depth > MOST_DEPTH {
            return Err((at.pointer(), format!("nested deeper than {MOST_DEPTH}")));
        }
        for (name, value) in members {
            let at = Place { outer: Some(at), step: Step::Name(name) };
            let fail = |what: &str| Err((at.pointer(), what.to_owned()));
            match (name.as_str(), value) {
                (name, _) if REFUSED.contains(&name) => return fail("this keyword is not known here"),
                ("$schema", Value::String(language)) if is_a_draft(language) => {}
                ("$schema", _) => {
                    return fail("a draft of JSON Schema is expected; other languages are not known here");
                }
                ("$id", Value::String(_)) if depth == 0 => {}
                ("$id", _) => return fail("a `$id` inside of a schema is not known here"),
                ("$ref", value) => match value.as_str().and_then(|to| self.target(to)) {
                    Some(_) => {}
                    None => {
                        return fail(
                            "only references into this schema, as \"#/$defs/name\", are followed; nothing is fetched",
                        );
                    }
                },
                ("type", value) => {
                    let known = |value: &Value| value.as_str().is_some_and(|kind| TYPES.contains(&kind));
                    if !known(value) && !value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(known)) {
                        return fail("not a type; there are null, boolean, object, array, number, integer and string");
                    }
                }
                ("enum", value) if !value.is_array() => return fail("expected a list"),
                ("required", value) if !is_names(value) => return fail("expected a list of names"),
                ("dependentRequired", value) if !value.as_object().is_some_and(|all| all.values().all(is_names)) => {
                    return fail("expected lists of names");
                }
                ("uniqueItems", value) if !value.is_boolean() => return fail("expected a boolean"),
                (name, value) if COUNTS.contains(&name) && count(value).is_none() => {
                    return fail("expected a whole number from 0");
                }
                (name, value) if NUMBERS.contains(&name) => match value.as_f64() {
                    Some(number) if name != "multipleOf" || number > 0.0 => {}
                    _ => return fail("expected a number, for `multipleOf` one above 0"),
                },
                ("pattern", value) => match value {
                    Value::String(pattern) => self.pattern(pattern, &at)?,
                    _ => return fail("expected a pattern"),
                },
                (name, Value::Array(all)) if SCHEMAS.contains(&name) => {
                    if all.is_empty() && name != "items" {
                        return fail("the list has to have at least one schema");
                    }
                    for (index, schema) in all.iter().enumerate() {
                        self.read(schema, &Place { outer: Some(&at), step: Step::Index(index) }, depth + 1)?;
                    }
                }
                ("dependencies", Value::Object(all)) => {
                    for (inner, dependency) in all.iter().filter(|(_, dependency)| !is_names(dependency)) {
                        self.read(dependency, &Place { outer: Some(&at), step: Step::Name(inner) }, depth + 1)?;
                    }
                }
                ("dependencies", _) => return fail("expected an object of schemas and lists of names"),
                (name, Value::Object(all)) if NAMED.contains(&name) => {
                    for (inner, schema) in all {
                        let at = Place { outer: Some(&at), step: Step::Name(inner) };
                        if name == "patternProperties" {
                            self.pattern(inner, &at)?;
                        }
                        self.read(schema, &at, depth + 1)?;
                    }
                }
                (name, schema) if SCHEMA.contains(&name) => self.read(schema, &at, depth + 1)?,
                (name, _) if SCHEMAS.contains(&name) => return fail("expected a list of schemas"),
                (name, _) if NAMED.contains(&name) => return fail("expected an object of schemas"),
                _ => {}
            }
        }
        Ok(())
    }

    fn pattern(&mut self, pattern: &'s str, at: &Place<'_>) -> Result<(), (String, String)> {
        if !self.patterns.contains_key(pattern) {
            let regex = RegexBuilder::new(pattern)
                .size_limit(PATTERN_BYTES)
                .build()
                .map_err(|error| (at.pointer(), format!("a pattern that is not known here: {error}")))?;
            self.patterns.insert(pattern, regex);
        }
        Ok(())
    }

    /// What a reference means.
    fn target(&self, reference: &str) -> Option<&'s Value> {
        let pointer = reference.strip_prefix('#')?;
        let decoded = percent(pointer)?;
        self.root.pointer(&decoded).filter(|schema| schema.is_object() || schema.is_boolean())
    }

    /// What of `value` does not match; empty where all does.
    pub(super) fn errors(&self, value: &Value) -> Vec<String> {
        let mut run = Run { validator: self, left: Cell::new(MOST_STEPS), errors: Vec::new() };
        run.schema(self.root, value, &Place::ROOT, 0);
        if run.left.get() == 0 {
            run.errors = vec!["the schema takes too many steps to check".to_owned()];
        }
        run.errors
    }
}

/// Whether that is the name of JSON Schema itself, in one of its drafts.
fn is_a_draft(language: &str) -> bool {
    let name = language.strip_prefix("https://").or_else(|| language.strip_prefix("http://"));
    name.is_some_and(|name| name.starts_with("json-schema.org/"))
}

fn is_names(value: &Value) -> bool {
    value.as_array().is_some_and(|all| all.iter().all(Value::is_string))
}

/// A whole number from 0, also one written as `2.0`.
fn count(value: &Value) -> Option<u64> {
    let whole = || value.as_f64().filter(|number| *number >= 0.0 && number.fract() == 0.0).map(|number| number as u64);
    value.as_u64().or_else(whole)
}

/// Percent escapes of a reference resolved.
fn percent(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Equal as JSON Schema means it: numbers by their value.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| equal(left, right)))
        }
        _ => left == right,
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "string" => value.is_string(),
        _ => false,
    }
}

fn is_multiple(value: &Value, of: &Value) -> bool {
    if let (Some(value), Some(of)) = (value.as_i64(), of.as_i64()) {
        return of != 0 && value % of == 0;
    }
    let (Some(value), Some(of)) = (value.as_f64(), of.as_f64()) else { return true };
    let times = value / of;
    (times - times.round()).abs() <= 1e-9 * times.abs().max(1.0)
}

/// A value as an error shows it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// One validation.
struct Run<'v, 's> {
    validator: &'v Validator<'s>,
    left: Cell<u32>,
    errors: Vec<String>,
}

impl<'s> Run<'_, 's> {
    /// Whether `value` matches, without telling why not.
    fn matches(&self, schema: &'s Value, value: &Value, depth: usize) -> bool {
        let mut run = Run { validator: self.validator, left: Cell::new(self.left.get()), errors: Vec::new() };
        run.schema(schema, value, &Place::ROOT, depth);
        self.left.set(run.left.get());
        run.errors.is_empty()
    }

    fn fail(&mut self, at: &Place<'_>, what: impl Into<String>) {
        if self.errors.len() < MOST_ERRORS {
            let place = at.pointer();
            let place = if place.is_empty() { "the value" } else { &place };
            self.errors.push(format!("{place}: {}", what.into()));
        }
    }

    fn schema(&mut self, schema: &'s Value, value: &Value, at: &Place<'_>, depth: usize) {
        let Some(left) = self.left.get().checked_sub(1).filter(|_| depth <= 2 * MOST_DEPTH) else {
            self.left.set(0);
            return self.fail(at, "the schema refers to itself without end");
        };
        self.left.set(left);
        let members = match schema {
            Value::Object(members) => members,
            Value::Bool(true) => return,
            _ => return self.fail(at, "nothing is allowed here"),
        };
        if self.validator.lone_references
            && let Some(meant) = members.get("$ref").and_then(Value::as_str).and_then(|to| self.validator.target(to))
        {
            return self.schema(meant, value, at, depth + 1);
        }
        if let Some(kinds) = members.get("type") {
            let named = |kind: &Value| kind.as_str().is_some_and(|kind| is_of(value, kind));
            if !named(kinds) && !kinds.as_array().is_some_and(|kinds| kinds.iter().any(named)) {
                self.fail(at, format!("{} is not of type {}", shown(value), shown(kinds)));
            }
        }
        if let Some(Value::Array(allowed)) = members.get("enum")
            && !allowed.iter().any(|allowed| equal(allowed, value))
        {
            self.fail(at, format!("{} is none of {}", shown(value), shown(&Value::Array(allowed.clone()))));
        }
        if let Some(only) = members.get("const").filter(|only| !equal(only, value)) {
            self.fail(at, format!("{} is not {}", shown(value), shown(only)));
        }
        if let Some(meant) = members.get("$ref").and_then(Value::as_str).and_then(|to| self.validator.target(to)) {
            self.schema(meant, value, at, depth + 1);
        }
        self.combined(members, value, at, depth);
        match value {
            Value::Number(_) => self.number(members, value, at),
            Value::String(text) => self.string(members, text, at),
            Value::Array(list) => self.array(members, list, at, depth),
            Value::Object(object) => self.object(members, object, at, depth),
            _ => {}
        }
    }

    fn combined(&mut self, members: &'s Map<String, Value>, value: &Value, at: &Place<'_>, depth: usize) {
        let list = |name: &str| members.get(name).and_then(Value::as_array);
        for schema in list("allOf").into_iter().flatten() {
            self.schema(schema, value, at, depth + 1);
        }
        if let Some(any) = list("anyOf")
            && !any.iter().any(|schema| self.matches(schema, value, depth + 1))
        {
            self.fail(at, format!("{} matches no schema of `anyOf`", shown(value)));
        }
        if let Some(one) = list("oneOf") {
            let found = one.iter().filter(|schema| self.matches(schema, value, depth + 1)).count();
            if found != 1 {
                self.fail(at, format!("{} matches {found} schemas of `oneOf`, not one", shown(value)));
            }
        }
        if members.get("not").is_some_and(|not| self.matches(not, value, depth + 1)) {
            self.fail(at, format!("{} matches what `not` excludes", shown(value)));
        }
        if let Some(condition) = members.get("if") {
            let branch = if self.matches(condition, value, depth + 1) { "then" } else { "else" };
            if let Some(schema) = members.get(branch) {
                self.schema(schema, value, at, depth + 1);
            }
        }
    }

    fn number(&mut self, members: &'s Map<String, Value>, value: &Value, at: &Place<'_>) {
        let Some(number) = value.as_f64() else { return };
        type Holds = fn(f64, f64) -> bool;
        let compared: [(&str, Holds); 4] = [
            ("minimum", |number, bound| number >= bound),
            ("maximum", |number, bound| number <= bound),
            ("exclusiveMinimum", |number, bound| number > bound),
            ("exclusiveMaximum", |number, bound| number < bound),
        ];
        for (name, holds) in compared {
            if let Some(bound) = members.get(name).and_then(Value::as_f64).filter(|bound| !holds(number, *bound)) {
                self.fail(at, format!("{value} is beyond the `{name}` of {bound}"));
            }
        }
        if let Some(of) = members.get("multipleOf").filter(|of| !is_multiple(value, of)) {
            self.fail(at, format!("{value} is no multiple of {of}"));
        }
    }

    /// Checks a size against `min…` and `max…`.
    fn size(&mut self, members: &'s Map<String, Value>, names: [&str; 2], size: usize, what: &str, at: &Place<'_>) {
        let [least, most] = names.map(|name| members.get(name).and_then(count));
        if least.is_some_and(|least| (size as u64) < least) || most.is_some_and(|most| size as u64 > most) {
            let bounds = match (least, most) {
                (Some(least), Some(most)) => format!("{least} to {most}"),
                (Some(least), None) => format!("at least {least}"),
                (_, most) => format!("at most {}", most.unwrap_or_default()),
            };
            self.fail(at, format!("it has {size} {what}, not {bounds}"));
        }
    }

    fn string(&mut self, members: &'s Map<String, Value>, text: &str, at: &Place<'_>) {
        if members.contains_key("minLength") || members.contains_key("maxLength") {
            self.size(members, ["minLength", "maxLength"], text.chars().count(), "characters", at);
        }
        if let Some(pattern) = members.get("pattern").and_then(Value::as_str)
            && !self.validator.patterns.get(pattern).is_some_and(|regex| regex.is_match(text))
        {
            self.fail(at, format!("{} does not match the pattern {pattern:?}", shown(&Value::from(text))));
        }
    }

    fn array(&mut self, members: &'s Map<String, Value>, list: &[Value], at: &Place<'_>, depth: usize) {
        self.size(members, ["minItems", "maxItems"], list.len(), "items", at);
        // Draft 7 has the first items in a list under `items`, and the others under `additionalItems`.
        let (first, others) = match members.get("items") {
            Some(Value::Array(first)) => (Some(first), members.get("additionalItems")),
            items => (members.get("prefixItems").and_then(Value::as_array), items),
        };
        for (index, item) in list.iter().enumerate() {
            let at = Place { outer: Some(at), step: Step::Index(index) };
            if let Some(schema) = first.and_then(|first| first.get(index)).or(others) {
                self.schema(schema, item, &at, depth + 1);
            }
        }
        if let Some(schema) = members.get("contains") {
            let found = list.iter().filter(|item| self.matches(schema, item, depth + 1)).count() as u64;
            let least = members.get("minContains").and_then(count).unwrap_or(1);
            let most = members.get("maxContains").and_then(count);
            if found < least || most.is_some_and(|most| found > most) {
                self.fail(at, format!("{found} items match `contains`"));
            }
        }
        if members.get("uniqueItems") == Some(&Value::Bool(true)) && self.has_twins(list) {
            self.fail(at, "two items are equal");
        }
    }

    /// Whether two items are equal; each comparison is a step.
    fn has_twins(&self, list: &[Value]) -> bool {
        list.iter().enumerate().any(|(number, one)| {
            list.iter().take(number).any(|other| {
                self.left.set(self.left.get().saturating_sub(1));
                self.left.get() == 0 || equal(one, other)
            })
        })
    }

    fn object(&mut self, members: &'s Map<String, Value>, object: &Map<String, Value>, at: &Place<'_>, depth: usize) {
        self.size(members, ["minProperties", "maxProperties"], object.len(), "members", at);
        let missing = |names: &'s Value| {
            let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
            names.filter(|name| !object.contains_key(*name)).collect::<Vec<_>>()
        };
        for name in members.get("required").map(missing).unwrap_or_default() {
            self.fail(at, format!("{name:?} is missing"));
        }
        for (given, names) in members.get("dependentRequired").and_then(Value::as_object).into_iter().flatten() {
            if object.contains_key(given) {
                for name in missing(names) {
                    self.fail(at, format!("{name:?} is missing, beside {given:?}"));
                }
            }
        }
        let map = |name: &str| members.get(name).and_then(Value::as_object);
        // Draft 7 has both under one name.
        for (given, names) in map("dependencies").into_iter().flatten().filter(|(_, names)| is_names(names)) {
            if object.contains_key(given) {
                for name in missing(names) {
                    self.fail(at, format!("{name:?} is missing, beside {given:?}"));
                }
            }
        }
        let schemas = map("dependencies").into_iter().flatten().filter(|(_, schema)| !is_names(schema));
        for (given, schema) in map("dependentSchemas").into_iter().flatten().chain(schemas) {
            if object.contains_key(given) {
                self.schema(schema, &Value::Object(object.clone()), at, depth + 1);
            }
        }
        for (name, value) in object {
            let at = Place { outer: Some(at), step: Step::Name(name) };
            if let Some(schema) = members.get("propertyNames") {
                self.schema(schema, &Value::from(name.as_str()), &at, depth + 1);
            }
            let mut known = false;
            if let Some(schema) = map("properties").and_then(|properties| properties.get(name)) {
                known = true;
                self.schema(schema, value, &at, depth + 1);
            }
            for (pattern, schema) in map("patternProperties").into_iter().flatten() {
                if self.validator.patterns.get(pattern.as_str()).is_some_and(|regex| regex.is_match(name)) {
                    known = true;
                    self.schema(schema, value, &at, depth + 1);
                }
            }
            if let Some(schema) = members.get("additionalProperties").filter(|_| !known) {
                match schema {
                    Value::Bool(false) => self.fail(&at, "no such member is allowed"),
                    schema => self.schema(schema, value, &at, depth + 1),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::Validator;

    /// The verdict of another implementation.
    fn other(schema: &Value, value: &Value) -> Option<bool> {
        jsonschema::draft202012::options().build(schema).ok().map(|validator| validator.is_valid(value))
    }

    #[test]
    fn every_keyword_judges_as_another_implementation_does() {
        let schemas = [
            json!(true),
            json!(false),
            json!({"type": "integer"}),
            json!({"type": ["string", "null"]}),
            json!({"enum": [1, "a", [1], {"a": 1.0}]}),
            json!({"const": {"a": [1]}}),
            json!({"minimum": 1, "maximum": 2}),
            json!({"exclusiveMinimum": 1, "exclusiveMaximum": 3}),
            json!({"multipleOf": 0.1}),
            json!({"multipleOf": 2}),
            json!({"minLength": 2, "maxLength": 3}),
            json!({"pattern": "^a+$"}),
            json!({"minItems": 1, "maxItems": 2}),
            json!({"uniqueItems": true}),
            json!({"items": {"type": "integer"}}),
            json!({"prefixItems": [{"type": "integer"}], "items": false}),
            json!({"contains": {"const": 1}}),
            json!({"contains": {"type": "integer"}, "minContains": 2, "maxContains": 2}),
            json!({"contains": true, "minContains": 0}),
            json!({"minProperties": 1, "maxProperties": 1}),
            json!({"required": ["a"]}),
            json!({"properties": {"a": {"type": "integer"}}, "additionalProperties": false}),
            json!({"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}),
            json!({"propertyNames": {"maxLength": 1}}),
            json!({"dependentRequired": {"a": ["b"]}}),
            json!({"dependentSchemas": {"a": {"required": ["b"]}}}),
            json!({"allOf": [{"type": "object"}, {"required": ["b"]}]}),
            json!({"anyOf": [{"type": "string"}, {"minimum": 2}]}),
            json!({"oneOf": [{"type": "integer"}, {"minimum": 2}]}),
            json!({"not": {"type": ["object", "array"]}}),
            json!({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "array"}}),
            json!({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "object"}}}),
            json!({"$defs": {"list": {"properties": {"a": {"$ref": "#/$defs/list"}}, "required": ["a"]}}, "$ref": "#/$defs/list"}),
            json!({"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "integer"}}}),
        ];
        let values = [
            json!(null),
            json!(true),
            json!(0),
            json!(1),
            json!(1.0),
            json!(2),
            json!(2.5),
            json!(0.3),
            json!(-1),
            json!(3),
            json!(""),
            json!("a"),
            json!("aa"),
            json!("ab"),
            json!("\u{1F600}\u{1F600}"),
            json!("aaaa"),
            json!([]),
            json!([1]),
            json!([1, 1.0]),
            json!([1, 2]),
            json!(["a", 1]),
            json!([1, "a", 2]),
            json!([[1], [1]]),
            json!({}),
            json!({"a": 1}),
            json!({"a": 1.0}),
            json!({"b": 1}),
            json!({"a": 1, "b": 2}),
            json!({"a": "x"}),
            json!({"ab": 1, "c": "x"}),
            json!({"c": 1}),
            json!({"a": [1]}),
            json!({"a": {"a": {}}}),
            json!({"a": null}),
        ];
        for schema in &schemas {
            let validator = Validator::new(schema).unwrap();
            for value in &values {
                let errors = validator.errors(value);
                assert_eq!(Some(errors.is_empty()), other(schema, value), "{schema} {value}: {errors:?}");
            }
        }
    }

    #[test]
    fn a_schema_that_is_none_or_not_known_is_refused_with_its_place() {
        for (schema, place) in [
            (json!(5), "an object or a boolean"),
            (json!({"type": "text"}), "at /type"),
            (json!({"type": []}), "at /type"),
            (json!({"properties": {"a/b": {"required": "x"}}}), "at /properties/a~1b/required"),
            (json!({"items": 5}), "at /items"),
            (json!({"properties": []}), "at /properties"),
            (json!({"anyOf": []}), "at /anyOf"),
            (json!({"anyOf": {}}), "at /anyOf"),
            (json!({"allOf": [true, {"minLength": -1}]}), "at /allOf/1/minLength"),
            (json!({"minimum": "1"}), "at /minimum"),
            (json!({"multipleOf": 0}), "at /multipleOf"),
            (json!({"pattern": "("}), "at /pattern"),
            (json!({"pattern": "(a)\\1"}), "at /pattern"),
            (json!({"patternProperties": {"(": true}}), "at /patternProperties/("),
            (json!({"$ref": "#/$defs/none"}), "at /$ref"),
            (json!({"$ref": "#anchor"}), "at /$ref"),
            (json!({"$ref": "https://example.com/schema"}), "at /$ref"),
            (json!({"$dynamicRef": "#a"}), "at /$dynamicRef"),
            (json!({"unevaluatedProperties": false}), "at /unevaluatedProperties"),
            (json!({"items": {"$id": "x"}}), "at /items/$id"),
            (json!({"$schema": "https://example.com/mine"}), "at /$schema"),
            (json!({"dependencies": {"a": 1}}), "at /dependencies/a"),
            (json!({"enum": 1}), "at /enum"),
            (json!({"dependentRequired": {"a": 1}}), "at /dependentRequired"),
        ] {
            let error = Validator::new(&schema).unwrap_err();
            assert!(error.contains(place), "{schema}: {error}");
        }
    }

    /// The official suite's required cases. A schema of which it uses what is not known here is refused, with its place;
    /// nothing is judged otherwise.
    #[test]
    fn the_official_suite_is_judged_right_or_refused() {
        for (suite, draft7, judged, refused) in [
            (include_str!("../../tests/json-schema-test-suite/draft7.json"), true, 854, 59),
            (include_str!("../../tests/json-schema-test-suite/draft2020-12.json"), false, 944, 313),
        ] {
            let suite: Value = serde_json::from_str(suite).unwrap();
            let mut counts = (0, 0);
            let mut wrong = Vec::new();
            for (file, groups) in suite.as_object().unwrap() {
                for group in groups.as_array().unwrap() {
                    let cases = group["tests"].as_array().unwrap();
                    let at = format!("{file}: {}", group["description"]);
                    let mut schema = group["schema"].clone();
                    if let Some(members) = schema.as_object_mut().filter(|_| draft7) {
                        members.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
                    }
                    match Validator::new(&schema) {
                        Err(why) => {
                            counts.1 += cases.len();
                            let known =
                                ["only references into", "not known here"].iter().any(|what| why.contains(what));
                            assert!(known, "{at}: {why}");
                        }
                        Ok(validator) => {
                            counts.0 += cases.len();
                            for case in cases {
                                let errors = validator.errors(&case["data"]);
                                if errors.is_empty() != case["valid"].as_bool().unwrap() {
                                    wrong.push(format!("{at}, {}: {errors:?}", case["description"]));
                                }
                            }
                        }
                    }
                }
            }
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
            assert_eq!(counts, (judged, refused), "judged and refused");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            (-3..4_i64).prop_map(Value::from),
            (-3..4_i32).prop_map(|half| json!(f64::from(half) / 2.0)),
            "[ab]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map("[abc]", inner, 0..3)
                    .prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        })
    }

    fn schema() -> impl Strategy<Value = Value> {
        let kind = prop::sample::select(&super::TYPES[..]);
        let leaf = prop_oneof![
            Just(json!(true)),
            Just(json!(false)),
            kind.prop_map(|kind| json!({"type": kind})),
            value().prop_map(|value| json!({"const": value})),
            (0..3_u8, 0..4_u8)
                .prop_map(|(least, most)| json!({"minLength": least, "maxItems": most, "minProperties": least})),
            (-2..3_i8).prop_map(|bound| json!({"minimum": bound, "exclusiveMaximum": 2})),
        ];
        leaf.prop_recursive(3, 24, 3, |inner| {
            let two = (inner.clone(), inner.clone());
            prop_oneof![
                two.clone().prop_map(|(a, b)| json!({"allOf": [a], "not": b})),
                two.clone().prop_map(|(a, b)| json!({"anyOf": [a, b]})),
                two.clone().prop_map(|(a, b)| json!({"oneOf": [a, b]})),
                two.clone().prop_map(|(a, b)| json!({"if": a, "then": b, "else": {"type": "object"}})),
                two.clone().prop_map(|(a, b)| json!({"prefixItems": [a], "items": b, "uniqueItems": true})),
                two.clone()
                    .prop_map(|(a, b)| json!({"properties": {"a": a}, "additionalProperties": b, "required": ["b"]})),
                two.prop_map(|(a, b)| json!({"patternProperties": {"[ab]": a}, "contains": b})),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_schema_judges_as_another_implementation_does(schema in schema(), value in value()) {
            let errors = Validator::new(&schema).unwrap().errors(&value);
            prop_assert_eq!(Some(errors.is_empty()), other(&schema, &value), "{}: {:?}", schema, errors);
        }
    }
}
