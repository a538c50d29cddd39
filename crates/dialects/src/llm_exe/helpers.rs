//! The helpers of templates. They do what those of the original do, but for its mistakes: `eq` and `neq` compare numbers
//! too, `substring` cuts at both ends whatever the length, `cut` takes its text as it is rather than as a pattern, and
//! null counts as missing. Where one takes a condition it is a block, and in parentheses a value.

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError, RenderErrorReason,
    Renderable, ScopedJson,
};
use serde_json::Value;

use super::schema;
use super::template::Budget;

/// Writes a value; put in front of every expression.
pub(super) const TEXT: &str = "__text";

/// Pays for one pass over the inside of a block.
const TICK: &str = "__tick";

/// What the crate brings, and is wanted.
const KEPT: [&str; 3] = ["each", "with", "raw"];

/// What the crate brings beside.
const UNWANTED: [&str; 10] = ["log", "ne", "gt", "gte", "lt", "lte", "and", "or", "not", "len"];

/// Computes a value.
type Compute = fn(&Arguments<'_>) -> Result<Value, RenderError>;

/// Decides a condition.
type Decide = fn(&Arguments<'_>) -> Result<bool, RenderError>;

const VALUES: [(&str, Compute); 11] = [
    (TEXT, |a| a.text(0).map(Value::String)),
    ("lookup", lookup),
    ("pluralize", pluralize),
    ("join", join),
    ("substring", substring),
    ("cut", cut),
    ("getOr", |a| a.copy(usize::from(is_nothing(a.at(0))))),
    ("getKeyOr", get_key_or),
    ("objectToList", object_to_list),
    ("indentJson", indent_json),
    ("jsonSchemaExample", json_schema_example),
];

/// Those of [`VALUES`] that look into `this`.
const LOOKS: [&str; 2] = ["getKeyOr", "jsonSchemaExample"];

const CONDITIONS: [(&str, Decide); 5] = [
    ("if", |a| Ok(a.given("if", 1)? && is_true(a))),
    ("unless", |a| Ok(a.given("unless", 1)? && !is_true(a))),
    ("eq", is_one_of),
    ("neq", |a| is_one_of(a).map(|is| !is)),
    ("ifCond", if_cond),
];

/// Whether there is a helper of this name.
pub(super) fn is_known(name: &str) -> bool {
    name == TICK
        || KEPT.contains(&name)
        || VALUES.iter().any(|(known, _)| *known == name)
        || CONDITIONS.iter().any(|(known, _)| *known == name)
}

/// Registers all helpers, and takes away those that are not wanted.
pub(super) fn register(registry: &mut Handlebars<'static>, budget: &Budget) {
    for name in UNWANTED {
        registry.unregister_helper(name);
    }
    registry.register_helper(TICK, Box::new(Tick(budget.clone())));
    for (name, compute) in VALUES {
        registry.register_helper(
            name,
            Box::new(Computed { compute, looks: LOOKS.contains(&name), budget: budget.clone() }),
        );
    }
    for (name, decide) in CONDITIONS {
        registry.register_helper(name, Box::new(Condition { decide, budget: budget.clone() }));
    }
}

/// What a helper was given.
struct Arguments<'a> {
    values: Vec<&'a Value>,
    /// The hash argument `includeZero`.
    include_zero: bool,
    /// What `this` is.
    this: &'a Value,
    budget: &'a Budget,
}

static NULL: Value = Value::Null;

impl<'a> Arguments<'a> {
    fn new(helper: &'a Helper<'_>, this: &'a Value, budget: &'a Budget) -> Self {
        let include_zero = helper.hash_get("includeZero").is_some_and(|value| value.value().as_bool() == Some(true));
        let values = helper.params().iter().map(|value| value.value()).collect();
        Arguments { values, include_zero, this, budget }
    }

    /// The argument of this number; null where there is none.
    fn at(&self, number: usize) -> &'a Value {
        self.values.get(number).copied().unwrap_or(&NULL)
    }

    /// True, or an error where fewer than `least` arguments were given.
    fn given(&self, name: &str, least: usize) -> Result<bool, RenderError> {
        if self.values.len() >= least {
            return Ok(true);
        }
        let what = format!("{name:?} wants {least} arguments, got {}", self.values.len());
        Err(RenderErrorReason::Other(what).into())
    }

    /// The argument as text, paid for.
    fn text(&self, number: usize) -> Result<String, RenderError> {
        let text = text(self.at(number));
        self.budget.spend_bytes(text.len())?;
        Ok(text)
    }

    /// A copy of the argument, paid for.
    fn copy(&self, number: usize) -> Result<Value, RenderError> {
        self.copy_of(self.at(number))
    }

    fn copy_of(&self, value: &Value) -> Result<Value, RenderError> {
        self.budget.spend(weight(value))?;
        Ok(value.clone())
    }
}

/// Pays for one pass over the inside of a block.
struct Tick(Budget);

impl HelperDef for Tick {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        self.0.spend(helper.param(0).and_then(|steps| steps.value().as_u64()).unwrap_or(1))?;
        Ok(ScopedJson::Missing)
    }
}

/// A helper that computes a value.
struct Computed {
    compute: Compute,
    /// It looks into `this`.
    looks: bool,
    budget: Budget,
}

impl HelperDef for Computed {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let this = if self.looks { render.evaluate(context, "this")? } else { ScopedJson::Missing };
        if let ScopedJson::Derived(copy) = &this {
            self.budget.spend(weight(copy))?;
        }
        let value = (self.compute)(&Arguments::new(helper, this.as_json(), &self.budget))?;
        Ok(ScopedJson::Derived(value))
    }
}

/// A helper that decides a condition.
struct Condition {
    decide: Decide,
    budget: Budget,
}

impl HelperDef for Condition {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let is = (self.decide)(&Arguments::new(helper, &NULL, &self.budget))?;
        Ok(ScopedJson::Derived(Value::Bool(is)))
    }

    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let is = (self.decide)(&Arguments::new(helper, &NULL, &self.budget))?;
        match if is { helper.template() } else { helper.inverse() } {
            Some(template) => template.render(registry, context, render, out),
            None => Ok(()),
        }
    }
}

/// A value as JavaScript makes text of it, nothing for null.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => match number.as_f64() {
            // `1.0` is `1` there.
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Object(_) => "[object Object]".to_owned(),
    }
}

/// How many steps a copy of a value costs.
fn weight(value: &Value) -> u64 {
    1 + match value {
        Value::String(text) => text.len() as u64 / 64,
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(members) => members.values().map(weight).sum(),
        _ => 0,
    }
}

fn is_nothing(value: &Value) -> bool {
    matches!(value, Value::Null) || value.as_str() == Some("")
}

/// What JavaScript takes for true.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// What `if` takes for true: an empty list is not, and 0 is with `includeZero`.
fn is_true(arguments: &Arguments<'_>) -> bool {
    match arguments.at(0) {
        Value::Array(list) => !list.is_empty(),
        Value::Number(_) if arguments.include_zero => true,
        other => truthy(other),
    }
}

/// The first is one of those in the second, which is a list, or a text with commas.
fn is_one_of(arguments: &Arguments<'_>) -> Result<bool, RenderError> {
    arguments.given("eq", 2)?;
    let (one, list) = (arguments.text(0)?, arguments.text(1)?);
    Ok(list.split(',').any(|other| other.trim() == one))
}

/// A value as a number, as JavaScript makes one of it.
fn number(value: &Value) -> f64 {
    match value {
        Value::Null => 0.0,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::String(text) if text.trim().is_empty() => 0.0,
        Value::String(text) => text.trim().parse().unwrap_or(f64::NAN),
        Value::Array(_) | Value::Object(_) => f64::NAN,
    }
}

/// JavaScript's `==`; lists and objects are compared as text.
fn loosely_equal(left: &Value, right: &Value) -> bool {
    use Value::{Array, Bool, Null, Number, Object, String};
    match (left, right) {
        (Null, Null) => true,
        (Null, _) | (_, Null) => false,
        (String(left), String(right)) => left == right,
        (Array(_) | Object(_), _) | (_, Array(_) | Object(_)) => text(left) == text(right),
        (Bool(_) | Number(_) | String(_), Bool(_) | Number(_) | String(_)) => number(left) == number(right),
    }
}

fn strictly_equal(left: &Value, right: &Value) -> bool {
    std::mem::discriminant(left) == std::mem::discriminant(right) && loosely_equal(left, right)
}

fn if_cond(arguments: &Arguments<'_>) -> Result<bool, RenderError> {
    arguments.given("ifCond", 3)?;
    let (left, operator, right) = (arguments.at(0), arguments.at(1), arguments.at(2));
    arguments.budget.spend(weight(left) + weight(right))?;
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => number(left).partial_cmp(&number(right)),
    };
    Ok(match operator.as_str().unwrap_or_default() {
        "==" => loosely_equal(left, right),
        "===" => strictly_equal(left, right),
        "!=" => !loosely_equal(left, right),
        "!==" => !strictly_equal(left, right),
        "<" => order.is_some_and(|order| order.is_lt()),
        "<=" => order.is_some_and(|order| order.is_le()),
        ">" => order.is_some_and(|order| order.is_gt()),
        ">=" => order.is_some_and(|order| order.is_ge()),
        "&&" => truthy(left) && truthy(right),
        "||" => truthy(left) || truthy(right),
        other => {
            let other: String = other.chars().take(16).collect();
            let what =
                format!("\"ifCond\" knows no operator {other:?}; there are ==, ===, !=, !==, <, <=, >, >=, && and ||");
            return Err(RenderErrorReason::Other(what).into());
        }
    })
}

fn lookup(arguments: &Arguments<'_>) -> Result<Value, RenderError> {
    let found = match (arguments.at(0), arguments.at(1)) {
        (Value::Array(list), index) => text(index).parse::<usize>().ok().and_then(|index| list.get(index)),
        (Value::Object(members), name) => members.get(&text(name)),
        _ => None,
    };
    arguments.copy_of(found.unwrap_or(&NULL))
}

/// `one|many` and a number.
fn pluralize(arguments: &Arguments<'_>) -> Result<Value, RenderError> {
    let forms = arguments.text(0)?;
    let mut forms = forms.split('|');
    let (one, many) = (forms.next().unwrap_or_default(), forms.next().unwrap_or_default());
    Ok(if number(arguments.at(1)) > 1.0 { many } else { one }.into())
}

/// A list as text, between its elements `, ` or the second argument.
fn join(arguments: &Arguments<'_>) -> Result<Value, RenderError> {
    let Value::Array(list) = arguments.at(0) else {
        return Ok(match arguments.at(0) {
            Value::String(_) => Value::String(arguments.text(0)?),
            _ => Value::String(String::new()),
        });
    };
    let between = if arguments.values.len() > 1 { arguments.text(1)? } else { ", ".to_owned() };
    arguments.budget.spend_bytes(between.len().saturating_mul(list.len()))?;
    arguments.budget.spend(list.iter().map(weight).sum())?;
    Ok(list.iter().map(text).collect::<Vec<_>>().join(&between).into())
}

/// The characters from the second argument up to the third.
fn substring(arguments: &Arguments<'_>) -> Result<Value, RenderError> {
    let whole = arguments.text(0)?;
    let place = |at: usize, otherwise: usize| match number(arguments.at(at)) {
        _ if matches!(arguments.at(at), Value::Null) => otherwise,
        // A float to an integer saturates, and NaN is 0.
        place => place as usize,
    };
    let (start, end) = (place(1, 0), place(2, usize::MAX));
    Ok(whole.chars().skip(start).take(end.saturating_sub(start)).collect::<String>().into())
}

/// The first argument without the second wherever it stands.
fn cut(arguments: &Arguments<'_>) -> Result<Value, RenderError> {
    let (whole, part) = (arguments.text(0)?, arguments.text(1)?);
    Ok(if part.is_empty() { whole } else { whole.replace(&part, "") }.into())
}

/// The value at a dotted path from `this`.
fn get<'a>(this: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '[', ']']).filter(|step| !step.is_empty()).try_fold(this, |value, step| match value {
        Value::Array(list) => step.parse::<usize>().ok().and_then(|index| list.get(index)),
        Value::Object(members) => members.get(step),
        _ => None,
    })
}

fn get_key_or(arguments: &Arguments<'_>) -> Result<Value, RenderError> {
    match get(arguments.this, &arguments.text(0)?) {
        Some(value) if !is_nothing(value) => arguments.copy_of(value),
        _ => arguments.copy(1),
    }
}

fn object_to_list(arguments: &Arguments<'_>) -> Result<Value, RenderError> {
    let Value::Object(members) = arguments.at(0) else { return Ok(Value::String(String::new())) };
    arguments.budget.spend(weight(arguments.at(0)))?;
    let lines: Vec<_> = members.iter().map(|(name, value)| format!("- {name}: {}", text(value))).collect();
    Ok(lines.join("\n").into())
}

/// A value as JSON, on one line where the argument `collapse` is true.
fn json(arguments: &Arguments<'_>, value: &Value, collapse: &Value) -> Result<Value, RenderError> {
    arguments.budget.spend(weight(value).saturating_mul(2))?;
    let written = if text(collapse) == "true" { Ok(value.to_string()) } else { serde_json::to_string_pretty(value) };
    written.map(Value::String).map_err(|error| RenderErrorReason::SerdeError(error).into())
}

fn indent_json(arguments: &Arguments<'_>) -> Result<Value, RenderError> {
    match arguments.at(0) {
        value @ (Value::Object(_) | Value::Array(_)) => json(arguments, value, arguments.at(1)),
        _ => arguments.text(0).map(Value::String),
    }
}

/// An example of what the schema at a path describes, made of the values of one keyword, as `default`.
fn json_schema_example(arguments: &Arguments<'_>) -> Result<Value, RenderError> {
    let (path, keyword) = (arguments.text(0)?, arguments.text(1)?);
    let found = get(arguments.this, &path).filter(|schema| schema.get("type").is_some());
    let Some(found) = found else { return Ok(Value::String(String::new())) };
    arguments.budget.spend(weight(found))?;
    match schema::example(found, &keyword) {
        example @ (Value::Object(_) | Value::Array(_)) => json(arguments, &example, arguments.at(2)),
        _ => Ok(Value::String(String::new())),
    }
}
