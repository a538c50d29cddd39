//! The form of the answer: natively, or by a tool that the model must call.

use serde_json::Value;
use witgate_model::{Error, JsonSchema, Request, ResponseFormat, Tool, ToolChoice};

use super::Flavour;
use super::settings::{Settings, StructuredOutput};
use super::thinking::version;

/// What the tool that carries the answer is called, unless the client has a tool of that name.
const NAME: &str = "json_answer";

/// What it says of itself where the client's schema says nothing.
pub(super) const DESCRIPTION: &str = "Gives the answer to the user. Call it once: its arguments are the answer.";

/// Deepest schema that is looked into.
const DEPTH: usize = 64;

/// A tool whose arguments are the answer.
pub(super) struct AnswerTool<'a> {
    pub(super) name: String,
    pub(super) description: &'a str,
    /// None for any object.
    pub(super) schema: Option<&'a str>,
}

/// True where the model itself keeps to a schema: Claude 4.5 and later.
fn is_native(model: &str) -> bool {
    version(model).is_some_and(|version| version >= (4, 5))
}

/// The tool that carries the answer, where one is needed. `thinks`: the model was told to think, which the API does not
/// let it do where a tool is forced.
pub(super) fn answer_tool<'a>(
    flavour: Flavour,
    settings: &Settings,
    request: &'a Request,
    thinks: bool,
) -> Result<Option<AnswerTool<'a>>, Error> {
    let schema = match &request.response_format {
        Some(ResponseFormat::JsonObject) => None,
        Some(ResponseFormat::JsonSchema(schema)) => Some(schema),
        None | Some(ResponseFormat::Text | ResponseFormat::Other(_)) => return Ok(None),
    };
    // The answer is the call that the client demands.
    if matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_))) {
        return Ok(None);
    }
    let backend = flavour.backend();
    if settings.structured_output == StructuredOutput::Native {
        return match schema {
            Some(_) => Ok(None),
            None => {
                let message = format!(
                    "{backend} has no JSON without a schema of its own: ask for `json_schema`, or leave the setting \
                     `structured_output` at `auto`"
                );
                Err(Error::unsupported("response_format", message))
            }
        };
    }
    let auto = settings.structured_output == StructuredOutput::Auto;
    let parsed = schema.map(|schema| serde_json::from_str::<Value>(&schema.schema).unwrap_or_default());
    if let (true, true, Some(schema), Some(parsed)) = (auto, is_native(&request.model), schema, &parsed)
        && (thinks || schema.strict == Some(true) || is_kept(parsed, DEPTH))
    {
        return Ok(None);
    }
    if let Some(parsed) = &parsed
        && parsed.get("type").is_some_and(|kind| kind != "object")
    {
        let message =
            format!("`{}` makes JSON objects only, as arguments of a tool: the schema must be of one", request.model);
        return Err(Error::unsupported("response_format.json_schema.schema", message));
    }
    let mut name = NAME.to_owned();
    while request.tools.iter().any(|tool| matches!(tool, Tool::Function(tool) if tool.name == name)) {
        name.push('_');
    }
    let description = schema.and_then(|schema: &JsonSchema| schema.description.as_deref());
    Ok(Some(AnswerTool {
        name,
        description: description.filter(|text| !text.is_empty()).unwrap_or(DESCRIPTION),
        schema: schema.map(|schema| schema.schema.as_str()),
    }))
}

/// Keywords that the API's own structured output refuses.
const REFUSED: &[&str] = &[
    "contains",
    "dependentSchemas",
    "else",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "if",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "patternProperties",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedProperties",
    "uniqueItems",
];

/// True where the API's own structured output takes the schema: objects are closed, numbers, texts and lists are not
/// bounded, references stay inside.
fn is_kept(schema: &Value, depth: usize) -> bool {
    let Some(members) = schema.as_object() else { return schema.as_bool() != Some(true) };
    if depth == 0 || REFUSED.iter().any(|name| members.contains_key(*name)) {
        return false;
    }
    let is_object = members.contains_key("properties") || schema.get("type").is_some_and(|kind| kind == "object");
    if is_object && schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        return false;
    }
    members.iter().all(|(name, value)| match name.as_str() {
        "properties" | "$defs" | "definitions" => {
            value.as_object().is_some_and(|named| named.values().all(|schema| is_kept(schema, depth - 1)))
        }
        "anyOf" | "allOf" => value.as_array().is_some_and(|list| list.iter().all(|schema| is_kept(schema, depth - 1))),
        "items" => is_kept(value, depth - 1),
        "enum" => value.as_array().is_some_and(|list| !list.iter().any(|value| value.is_object() || value.is_array())),
        "minItems" => matches!(value.as_u64(), Some(0 | 1)),
        "$ref" => value.as_str().is_some_and(|target| target.starts_with("#/")),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_schemas_without_bounds_are_kept_by_the_api_itself() {
        for (schema, kept) in [
            (r#"{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false}"#, true),
            (r#"{"type":"object","properties":{"a":{"type":"string"}}}"#, false),
            (
                r#"{"type":"object","additionalProperties":false,"properties":{"a":{"type":"integer","minimum":1}}}"#,
                false,
            ),
            // A property may bear the name of a keyword.
            (r#"{"type":"object","additionalProperties":false,"properties":{"minimum":{"type":"integer"}}}"#, true),
            (r#"{"type":"array","items":{"type":"object"}}"#, false),
            (r#"{"type":"array","minItems":2,"items":{"type":"string"}}"#, false),
            (r##"{"$ref":"#/$defs/a","$defs":{"a":{"enum":["x","y"]}}}"##, true),
            (r#"{"$ref":"https://example.com/schema"}"#, false),
            (r#"{"anyOf":[{"type":"string"},{"oneOf":[]}]}"#, false),
        ] {
            assert_eq!(is_kept(&serde_json::from_str(schema).unwrap(), DEPTH), kept, "{schema}");
        }
        let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(100), "}".repeat(100));
        assert!(!is_kept(&serde_json::from_str(&deep).unwrap(), DEPTH));
    }
}
