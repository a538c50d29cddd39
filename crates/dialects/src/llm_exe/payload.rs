//! A payload, checked: who is asked, what for, and what the answer is to be.

use serde_json::{Map, Value};
use witgate_model::normaliser::{Document, DocumentRef};
use witgate_model::{Error, ErrorKind, FunctionTool, Tool, ToolChoice};

use super::prompt::Format;
use super::template::Escape;
use super::validate::Validator;
use super::{INVALID_EVENT, INVALID_MODEL, INVALID_OUTPUT, INVALID_PROVIDER, NO_SCHEMA, front_matter, invalid};
use crate::settings;
use crate::write::Members;

/// The longest key of a stored configuration.
const MOST_KEY: usize = 384;

/// What the answer is to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// The text as it is.
    Text,
    /// A list of texts.
    List,
    /// JSON that matches this schema.
    Json(Value),
}

/// A checked payload.
pub(super) struct Payload {
    /// The provider, as the client names it.
    pub(super) provider: String,
    /// The provider's name for the model.
    pub(super) model: String,
    pub(super) message: Value,
    pub(super) output: Output,
    pub(super) data: Map<String, Value>,
    pub(super) escape: Escape,
    pub(super) format: Format,
    /// How often the model is shown what is wrong with its answer.
    pub(super) retries: u32,
    /// There is a list of functions, perhaps an empty one.
    pub(super) has_functions: bool,
    pub(super) functions: Vec<Tool>,
    pub(super) choice: Option<ToolChoice>,
    /// Members that this API does not have.
    pub(super) extra: Option<String>,
}

/// Where the configuration is that a payload names: as JSON, and as markdown; none where it names none.
pub(super) fn stored(payload: &Map<String, Value>) -> Result<Option<[DocumentRef; 2]>, Error> {
    let Some(key) = payload.get("key").filter(|key| !key.is_null()) else { return Ok(None) };
    let Some(key) = key.as_str() else { return Err(invalid(INVALID_EVENT, "key", "`key` is not a string")) };
    let version = match payload.get("version") {
        None | Some(Value::Null) => "latest".to_owned(),
        Some(Value::String(version)) => version.clone(),
        Some(Value::Number(version)) => version.to_string(),
        Some(_) => return Err(invalid(INVALID_EVENT, "version", "`version` is neither a string nor a number")),
    };
    for (name, text, apart) in [("key", key, "/"), ("version", version.as_str(), "")] {
        let segments = || text.split(['/', '\\']);
        let wrong = text.is_empty()
            || text.len() > MOST_KEY
            || text.contains("..")
            || text.contains('\\')
            || text.chars().any(char::is_control)
            || segments().any(str::is_empty)
            || (apart.is_empty() && text.contains('/'));
        if wrong {
            let what = format!(
                "`{name}` is no name of a stored configuration: it may have neither `..`, `\\`, control characters nor \
                 empty parts, at most {MOST_KEY} bytes"
            );
            return Err(invalid(INVALID_EVENT, name, what));
        }
    }
    let at = |end| DocumentRef { kind: "configuration".to_owned(), key: format!("{key}.{version}.{end}") };
    Ok(Some([at("json"), at("md")]))
}

/// The payload that a stored configuration makes of the one that names it: of that, only `data` counts.
pub(super) fn load(
    mut payload: Map<String, Value>,
    at: &[DocumentRef; 2],
    documents: &[Document],
    depth: u32,
) -> Result<Map<String, Value>, Error> {
    let found = at.iter().find_map(|at| {
        let document = documents.iter().find(|document| document.at == *at)?;
        Some((at, document.content.as_deref()?))
    });
    let Some((at, text)) = found else {
        let [json, _] = at;
        let name = json.key.strip_suffix(".json").unwrap_or(&json.key);
        let what = format!("there is no stored configuration \"{name}\" (neither {name}.json nor {name}.md)");
        return Err(Error::new(ErrorKind::NotFound, what).with_param("key").with_status(404));
    };
    let wrong = |what: String| {
        let what = format!("the stored configuration \"{}\" cannot be used: {what}", at.key);
        Error::new(ErrorKind::InvalidRequest, what).with_param("key").with_status(400)
    };
    let mut stored = if at.key.ends_with(".md") {
        front_matter::configuration(text).map_err(wrong)?
    } else {
        match super::parse(text.as_bytes(), depth).map_err(|error| wrong(error.message))? {
            Value::Object(stored) => stored,
            _ => return Err(wrong("it is not a JSON object".to_owned())),
        }
    };
    if stored.contains_key("key") {
        return Err(wrong("it names another one with `key`".to_owned()));
    }
    let mut data = object(stored.remove("data"), "data").map_err(|error| wrong(error.message))?;
    data.extend(object(payload.remove("data"), "data")?);
    stored.insert("data".to_owned(), Value::Object(data));
    Ok(stored)
}

fn object(value: Option<Value>, name: &str) -> Result<Map<String, Value>, Error> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(members)) => Ok(members),
        Some(_) => Err(plain(name, format!("`{name}` is not an object"))),
    }
}

/// A failure that the original has no words for.
pub(super) fn plain(param: &str, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidRequest, what).with_param(param).with_status(400)
}

fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

impl Payload {
    /// Checks a payload, in the order of the original. `settings` are the operator's: what counts where it says nothing.
    pub(super) fn new(mut members: Map<String, Value>, settings: &str) -> Result<Self, Error> {
        let mut take = |name: &str| members.remove(name).filter(|value| !value.is_null());
        let message = super::prompt::check(take("message"))?;
        let Some(model) = text(take("model")) else {
            return Err(invalid(INVALID_MODEL, "model", "`model` is to be the provider's name for the model"));
        };
        let provider = match (take("providor"), take("provider")) {
            (Some(one), Some(other)) if one != other => {
                let what = "`providor` and `provider` differ; one of them is enough";
                return Err(invalid(INVALID_PROVIDER, "providor", what));
            }
            (one, other) => text(one.or(other)),
        };
        let Some(provider) = provider.filter(|name| !name.contains('/')) else {
            let what = "`provider` is to be openai, anthropic, amazon:anthropic, amazon:meta, or the name of a \
                        configured provider";
            return Err(invalid(INVALID_PROVIDER, "provider", what));
        };
        let schema = take("schema");
        let output = match take("output") {
            None => Output::Text,
            Some(Value::String(output)) => match (output.as_str(), schema) {
                ("string", _) => Output::Text,
                ("list", _) => Output::List,
                ("json", Some(schema)) => {
                    if let Err(what) = Validator::new(&schema) {
                        return Err(plain("schema", format!("`schema` cannot be used: {what}")));
                    }
                    Output::Json(schema)
                }
                ("json", None) => {
                    return Err(invalid(NO_SCHEMA, "schema", "`schema` is to be a JSON Schema of the answer"));
                }
                _ => return Err(invalid(INVALID_OUTPUT, "output", "`output` is to be string, list or json")),
            },
            Some(_) => return Err(invalid(INVALID_OUTPUT, "output", "`output` is to be string, list or json")),
        };
        let data = object(take("data"), "data")?;
        let default = settings::text(settings, "escape").map(Value::from);
        let escape = match take("escape").or(default).as_ref().map(Value::as_str) {
            None | Some(Some("none")) => Escape::None,
            Some(Some("html")) => Escape::Html,
            Some(_) => return Err(plain("escape", "`escape` is to be none or html")),
        };
        let format = match take("prompt_format").as_ref().map(Value::as_str) {
            None => Format::default(),
            Some(_) if provider != super::META => {
                return Err(plain(
                    "prompt_format",
                    "`prompt_format` is for amazon:meta; others have a chat of their own",
                ));
            }
            Some(Some("llama3")) => Format::Llama3,
            Some(Some("plain-dialogue")) => Format::PlainDialogue,
            Some(Some("chat")) => Format::Chat,
            Some(_) => return Err(plain("prompt_format", "`prompt_format` is to be llama3, plain-dialogue or chat")),
        };
        let retries = match take("retries").map(|retries| retries.as_u64()) {
            None => u32::from(settings::raw(settings, "retries") == Some("1")),
            Some(Some(retries @ 0..=1)) => retries as u32,
            Some(_) => return Err(plain("retries", "`retries` is to be 0 or 1")),
        };
        if take("stream").is_some_and(|stream| stream != Value::Bool(false)) {
            return Err(plain("stream", "this API does not stream: leave `stream` out, or ask /v1/chat/completions"));
        }
        let functions = take("functions");
        let choice = take("functionCall");
        let has_functions = functions.is_some();
        let functions = read_functions(functions)?;
        let choice = read_choice(choice, &functions)?;
        if has_functions && output != Output::Text {
            let what = "with `functions` the answer is a list of texts and calls: leave `output` out";
            return Err(invalid(INVALID_OUTPUT, "output", what));
        }
        let mut extra = Members::default();
        for (name, value) in &members {
            extra.push_raw(&Value::from(name.as_str()).to_string(), &value.to_string());
        }
        let extra = extra.finish();
        let output_kind = output;
        Ok(Payload {
            provider,
            model,
            message,
            output: output_kind,
            data,
            escape,
            format,
            retries,
            has_functions,
            functions,
            choice,
            extra,
        })
    }
}

/// `[{name, description, parameters}]`.
fn read_functions(functions: Option<Value>) -> Result<Vec<Tool>, Error> {
    let Some(functions) = functions else { return Ok(Vec::new()) };
    let Value::Array(functions) = functions else { return Err(plain("functions", "`functions` is not a list")) };
    let mut tools = Vec::with_capacity(functions.len());
    for (number, function) in functions.into_iter().enumerate() {
        let at = format!("functions[{number}]");
        let Value::Object(mut members) = function else {
            return Err(plain(&at, format!("`{at}` is not an object {{name, description, parameters}}")));
        };
        let mut take = |name: &str| members.remove(name).filter(|value| !value.is_null());
        let Some(name) = text(take("name")) else {
            return Err(plain(&at, format!("`{at}.name` is to be the function's name")));
        };
        let description = match take("description") {
            None => None,
            Some(Value::String(description)) => Some(description),
            Some(_) => return Err(plain(&at, format!("`{at}.description` is not a string"))),
        };
        let parameters = match take("parameters") {
            None => None,
            Some(schema @ Value::Object(_)) => Some(schema.to_string()),
            Some(_) => return Err(plain(&at, format!("`{at}.parameters` is not a JSON Schema"))),
        };
        let strict = match take("strict") {
            None => None,
            Some(Value::Bool(strict)) => Some(strict),
            Some(_) => return Err(plain(&at, format!("`{at}.strict` is not a boolean"))),
        };
        let extra = (!members.is_empty()).then(|| Value::Object(members).to_string());
        tools.push(Tool::Function(FunctionTool { name, description, parameters, strict, cache: None, extra }));
    }
    Ok(tools)
}

/// `auto`, `none`, `any`, or `{name}`.
fn read_choice(choice: Option<Value>, functions: &[Tool]) -> Result<Option<ToolChoice>, Error> {
    let Some(choice) = choice else { return Ok(None) };
    if functions.is_empty() {
        // Nothing to choose from: that is what these two say anyway.
        return match choice.as_str() {
            Some("auto" | "none") => Ok(None),
            _ => Err(plain("functionCall", "`functionCall` asks for a function, and `functions` has none")),
        };
    }
    let name = match &choice {
        Value::String(choice) => match choice.as_str() {
            "auto" => return Ok(Some(ToolChoice::Auto)),
            "none" => return Ok(Some(ToolChoice::None)),
            "any" => return Ok(Some(ToolChoice::Required)),
            _ => None,
        },
        Value::Object(members) if members.len() == 1 => members.get("name").and_then(Value::as_str),
        _ => None,
    };
    let known = |name: &&str| functions.iter().any(|tool| matches!(tool, Tool::Function(tool) if tool.name == *name));
    match name.filter(known) {
        Some(name) => Ok(Some(ToolChoice::Tool(name.to_owned()))),
        None => Err(plain(
            "functionCall",
            "`functionCall` is to be auto, none, any, or {\"name\": …} with the name of one of `functions`",
        )),
    }
}
