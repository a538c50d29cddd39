//! The messages of a payload, and for Llama the text that they become.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use witgate_model::{Error, Message, Part, Role, ToolResult};
use witgate_prompt::{Speaker, Template, Turn};

use super::template::Templates;
use super::{INVALID_FORMAT, INVALID_MESSAGE, invalid};

/// How a conversation becomes the text that amazon:meta continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) enum Format {
    /// Llama 3's template.
    #[default]
    Llama3,
    /// `System: …`, `User: …`, `Assistant: …`, joined by line feeds, `Assistant:` at the end.
    PlainDialogue,
    /// Not at all: the backend gets the messages.
    Chat,
}

/// The roles that a message may have.
const ROLES: [(&str, Role); 5] = [
    ("system", Role::System),
    ("user", Role::User),
    ("assistant", Role::Assistant),
    ("tool", Role::Tool),
    ("developer", Role::Developer),
];

/// Checks that `message` has one of the three forms.
pub(super) fn check(message: Option<Value>) -> Result<Value, Error> {
    let Some(message) = message.filter(|message| message.as_str() != Some("")) else {
        let what = "`message` is to be a string, an array of strings, or an array of {role, content}";
        return Err(invalid(INVALID_MESSAGE, "message", what));
    };
    let fail = |param: &str, what: &str| Err(invalid(INVALID_FORMAT, param, what));
    let list = match &message {
        Value::String(_) => return Ok(message),
        Value::Array(list) => list,
        _ => return fail("message", "`message` is neither a string nor an array"),
    };
    if list.iter().all(Value::is_string) {
        return match list.iter().any(|text| text.as_str() != Some("")) {
            true => Ok(message),
            false => fail("message", "`message` has no text"),
        };
    }
    for (number, entry) in list.iter().enumerate() {
        let at = format!("message[{number}]");
        let Value::Object(members) = entry else {
            let what =
                format!("`{at}` is not an object {{role, content}} as others are: all are strings, or all objects");
            return fail(&at, &what);
        };
        if members.get("content").and_then(Value::as_str).is_none_or(str::is_empty) {
            return fail(&format!("{at}.content"), &format!("`{at}.content` is to be text"));
        }
        if role(members).is_none() {
            let what = format!("`{at}.role` is to be system, user, assistant, tool or developer");
            return fail(&format!("{at}.role"), &what);
        }
    }
    Ok(message)
}

fn role(members: &Map<String, Value>) -> Option<Role> {
    let name = members.get("role")?.as_str()?;
    ROLES.iter().find(|(known, _)| *known == name).map(|(_, role)| role.clone())
}

/// The conversation that a checked `message` means. `family`: the provider is of Anthropic's family.
pub(super) fn messages(message: Value, templates: &mut Templates, family: bool) -> Result<Vec<Message>, Error> {
    let mut render = |text: &str, param: String| {
        templates
            .render(text)
            .map_err(|broken| super::payload::plain(&param, format!("`{param}` {}", broken.message())))
    };
    let mut messages = Vec::new();
    match message {
        Value::String(text) => messages.push(Message::text(Role::System, render(&text, "message".to_owned())?)),
        Value::Array(list) => {
            for (number, entry) in list.into_iter().enumerate() {
                match entry {
                    Value::String(text) if text.is_empty() => {}
                    Value::String(text) => {
                        let role = match number {
                            0 => Role::System,
                            number if number % 2 == 1 => Role::User,
                            _ => Role::Assistant,
                        };
                        messages.push(Message::text(role, render(&text, format!("message[{number}]"))?));
                    }
                    Value::Object(members) => messages.push(object(members, number, &mut render)?),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    // Anthropic's models have no conversation without a user.
    if family
        && messages.iter().all(|message| matches!(message.role, Role::System | Role::Developer))
        && let Some(last) = messages.last_mut()
    {
        last.role = Role::User;
    }
    Ok(messages)
}

fn object(
    mut members: Map<String, Value>,
    number: usize,
    render: &mut impl FnMut(&str, String) -> Result<String, Error>,
) -> Result<Message, Error> {
    let role = role(&members).unwrap_or(Role::User);
    members.remove("role");
    let content = match members.remove("content") {
        Some(Value::String(content)) => content,
        _ => String::new(),
    };
    let content = match role {
        Role::System | Role::User | Role::Assistant => render(&content, format!("message[{number}].content"))?,
        _ => content,
    };
    let mut text = |name: &str| match members.get(name) {
        Some(Value::String(_)) => match members.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        },
        _ => None,
    };
    let name = text("name");
    let part = if role == Role::Tool {
        let call_id = text("tool_call_id").unwrap_or_default();
        let piece = witgate_model::TextPart { text: content, ..Default::default() };
        let content = vec![witgate_model::ResultContent::Text(piece)];
        Part::ToolResult(ToolResult { call_id, content, ..ToolResult::default() })
    } else {
        Part::text(content)
    };
    let extra = (!members.is_empty()).then(|| Value::Object(members).to_string());
    Ok(Message { role, name, parts: vec![part], extra })
}

/// Appends text to the first message.
pub(super) fn append(messages: &mut [Message], text: &str) {
    let Some(first) = messages.first_mut() else { return };
    match first.parts.first_mut() {
        Some(Part::Text(part)) => {
            part.text.push_str("\n\n");
            part.text.push_str(text);
        }
        _ => first.parts.push(Part::text(text)),
    }
}

impl Format {
    /// The template; `None` where nothing is written.
    fn template(self) -> Option<Template> {
        match self {
            Format::Llama3 => Some(Template::Llama3),
            Format::PlainDialogue => Some(Template::PlainDialogue),
            Format::Chat => None,
        }
    }
}

/// The conversation as one text for a Llama to continue; `None` for [`Format::Chat`].
pub(super) fn continued(format: Format, messages: &[Message]) -> Result<Option<String>, Error> {
    let Some(template) = format.template() else { return Ok(None) };
    let mut turns = Vec::with_capacity(messages.len());
    for (number, message) in messages.iter().enumerate() {
        let speaker = match message.role {
            Role::System | Role::Developer => Speaker::System,
            Role::User => Speaker::User,
            Role::Assistant => Speaker::Assistant,
            _ => {
                let at = format!("message[{number}].role");
                return Err(Error::unsupported(&at, format!("`{at}`: amazon:meta's prompt has no messages of tools")));
            }
        };
        if message.name.is_some() || message.extra.is_some() {
            let at = format!("message[{number}]");
            let what =
                format!("`{at}` has members that amazon:meta's prompt has no place for, beside role and content");
            return Err(Error::unsupported(&at, what));
        }
        let texts = message.parts.iter().filter_map(|part| match part {
            Part::Text(part) => Some(part.text.as_str()),
            _ => None,
        });
        turns.push(Turn { speaker, texts: texts.collect() });
    }
    Ok(Some(template.write(&turns)))
}

/// Continues a text that ends where the assistant is to speak: what it said, and what the user says to it.
pub(super) fn again(prompt: &mut String, format: Format, said: &str, user: &str) {
    format.template().unwrap_or(Template::PlainDialogue).go_on(prompt, said, user);
}
