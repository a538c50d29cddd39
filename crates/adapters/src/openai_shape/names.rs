//! The names and ids that OpenAI takes, and how the decoder is told of those that were mapped.

use std::collections::BTreeMap;

use witgate_model::{Error, ErrorKind, Event, Message, Request};

use crate::names::{Mapping, Names};

/// Longest id of a call in Chat Completions, in characters.
pub(super) const CHAT_ID: usize = 40;

/// Longest id of a call in Responses, in characters.
pub(super) const RESPONSES_ID: usize = 64;

/// Largest `context` that the contract allows, in bytes.
const LARGEST_CONTEXT: usize = 64 * 1024;

/// The mapping for one request: OpenAI's where `bounded`, else none.
pub(super) fn mapping(bounded: bool, longest_id: usize, request: &Request, messages: &[Message]) -> Mapping {
    match bounded {
        true => Mapping::new(Names::tools(), Names::ids_of(longest_id), request, messages),
        false => Mapping::none(),
    }
}

/// The context with the names that were mapped behind it, as JSON; `bare` is what it says where there was none.
pub(super) fn with_names(context: Option<String>, bare: &str, mapping: &Mapping) -> Result<Option<String>, Error> {
    let back = mapping.tools.back();
    if back.is_empty() {
        return Ok(context);
    }
    let names = serde_json::to_string(&back).map_err(|error| {
        Error::new(ErrorKind::Other("internal".to_owned()), format!("the context could not be written: {error}"))
    })?;
    let text = format!("{} {names}", context.as_deref().unwrap_or(bare));
    if text.len() > LARGEST_CONTEXT {
        let message = "too many tools with names that OpenAI refuses: use 1 to 64 letters, digits, `_` and `-`";
        return Err(Error::invalid("tools", message));
    }
    Ok(Some(text))
}

/// The words of a context, and the names that were mapped: what the backend got to the client's own.
pub(super) fn parse(context: &str) -> (&str, BTreeMap<String, String>) {
    let (words, names) = context.split_at(context.find('{').unwrap_or(context.len()));
    (words, serde_json::from_str(names).unwrap_or_default())
}

/// Tells the client's own names of tools.
pub(super) fn restore(names: &BTreeMap<String, String>, events: &mut [Event]) {
    if names.is_empty() {
        return;
    }
    for event in events {
        if let Event::BlockStart(start) = event
            && let witgate_model::BlockKind::ToolCall(call) = &mut start.kind
            && let Some(own) = names.get(&call.name)
        {
            call.name.clone_from(own);
        }
    }
}
