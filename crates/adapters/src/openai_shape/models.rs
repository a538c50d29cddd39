//! The list of a backend's models: OpenAI's `data`, llama.cpp's `models` beside it, or a bare list.

use serde_json::value::RawValue;
use witgate_model::{DialectJson, Error, Event, HttpRequest, ModelEntry, Started};

use super::chunk::List;
use super::encode::get;
use super::json::{Members, complaint, count_of, text_of};
use super::{Flavour, MODELS, Settings, error};

/// Most models of one answer: each becomes an event, and one answer has at most 4,096.
const MOST: usize = 4000;

/// Most bytes of what is told of one model.
const RAW: usize = 16 * 1024;

/// The HTTP request that asks for the models.
pub(super) fn encode(flavour: Flavour, settings: &Settings) -> HttpRequest {
    let path: Vec<&str> = flavour.root().iter().copied().chain(["models"]).collect();
    HttpRequest { context: Some("models".into()), ..get(settings, &path, &[]) }
}

/// The events of the whole answer.
pub(super) fn whole(text: &str, out: &mut Vec<Event>) -> Result<(), Error> {
    let malformed = |error: serde_json::Error| {
        Error::malformed(format!("the backend's answer is not a list of models: {}", complaint(&error)))
    };
    let list = if text.trim_start().starts_with('[') {
        text
    } else {
        let members = Members::parse(Some(text)).map_err(malformed)?;
        // Some servers fail with the status of a success.
        if let Some((_, error)) = members.0.iter().find(|(name, value)| name == "error" && error::is_error(value)) {
            return Err(error::of_object(None, error.get()));
        }
        let list = members.get("data").filter(|list| *list != "null").or_else(|| members.get("models"));
        list.ok_or_else(|| Error::malformed("the backend's answer has neither `data` nor `models`"))?
    };
    let models: List<&RawValue, MOST> = serde_json::from_str(list).map_err(malformed)?;
    out.push(Event::Started(Started::default()));
    for (at, raw) in models.0.into_iter().enumerate() {
        let members = Members::parse(Some(raw.get())).map_err(malformed)?;
        let value = |name: &str| members.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        let filled = |name: &str| Some(text_of(value(name)?)?.into_owned()).filter(|text| !text.is_empty());
        let Some(id) = ["id", "model", "name"].into_iter().find_map(filled) else {
            return Err(Error::malformed(format!("model {at} of the backend's list has no `id`")));
        };
        out.push(Event::Model(ModelEntry {
            id,
            created: value("created").and_then(count_of).filter(|created| *created > 0),
            owned_by: filled("owned_by"),
            raw: (raw.get().len() <= RAW).then(|| DialectJson::new(MODELS, raw.get())),
        }));
    }
    out.push(Event::Done);
    Ok(())
}
