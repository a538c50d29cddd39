//! JSON objects whose members are changed without looking into the rest.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use witgate_model::Error;

/// A JSON object. Members keep their order and, to the byte, their values: numbers are not rounded, nested objects not
/// rewritten. Of members that have one name, the last one counts.
///
/// ```
/// use witgate_sdk::JsonObject;
///
/// let mut body = br#"{"model": "m", "seed": 12345678901234567890, "top_p": 1.0}"#.to_vec();
/// JsonObject::edit(&mut body, |body| {
///     body.rename("seed", "random_seed");
///     body.remove("top_p");
///     body.set("mode", "fast")
/// })?;
/// assert_eq!(body, br#"{"model":"m","random_seed":12345678901234567890,"mode":"fast"}"#);
/// # Ok::<(), witgate_sdk::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct JsonObject(Vec<(String, Box<RawValue>)>);

impl JsonObject {
    /// Reads an object.
    ///
    /// # Errors
    /// `malformed-response`, with what is wrong and where, when it is none.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json).map_err(|error| Error::malformed(format!("this is no JSON object: {error}")))
    }

    /// Changes the object that `json` is. An empty text, as of a request without a body, is left alone.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and what `change` returns.
    pub fn edit(json: &mut Vec<u8>, change: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if json.is_empty() {
            return Ok(());
        }
        let mut object = JsonObject::parse(json)?;
        change(&mut object)?;
        *json = object.to_bytes();
        Ok(())
    }

    /// The JSON of a member.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// Sets a member, in its place if it is there, else as the last.
    ///
    /// # Errors
    /// `invalid-request` where `value` has no JSON: a map whose keys are no texts.
    pub fn set(&mut self, name: &str, value: impl Serialize) -> Result<(), Error> {
        let value = serde_json::value::to_raw_value(&value).map_err(|error| Error::invalid(name, error.to_string()))?;
        self.put(name.to_owned(), value);
        Ok(())
    }

    /// Takes a member out. True where it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(known, _)| known != name);
        self.0.len() < before
    }

    /// Gives a member another name, and takes out what had that name before. Nothing happens where there is none.
    pub fn rename(&mut self, from: &str, to: &str) {
        if from != to && self.get(from).is_some() {
            self.remove(to);
            for (name, _) in self.0.iter_mut().filter(|(name, _)| name == from) {
                to.clone_into(name);
            }
        }
    }

    /// The names of the members, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The object's JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // It holds texts and JSON, neither of which can fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn put(&mut self, name: String, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Serialize for JsonObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The most members of one object, so that looking for each name stays cheap.
const MEMBERS: usize = 1024;

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = JsonObject;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonObject, A::Error> {
                let mut object = JsonObject::default();
                while let Some((name, value)) = map.next_entry()? {
                    if object.0.len() == MEMBERS {
                        return Err(serde::de::Error::custom(format_args!("it has over {MEMBERS} members")));
                    }
                    object.put(name, value);
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_comes_twice_has_its_last_value_in_its_first_place() {
        let object = JsonObject::parse(br#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(object.to_bytes(), br#"{"a":3,"b":2}"#);
    }

    #[test]
    fn renaming_takes_the_place_of_what_had_the_name() {
        let mut object = JsonObject::parse(br#"{"a":1,"b":2}"#).unwrap();
        object.rename("a", "b");
        object.rename("c", "d");
        assert_eq!(object.to_bytes(), br#"{"b":1}"#);
    }

    #[test]
    fn what_is_no_object_is_refused_and_left_as_it_was() {
        let mut body = b"[1]".to_vec();
        let error = JsonObject::edit(&mut body, |_| Ok(())).unwrap_err();
        assert!(error.message.contains("a JSON object"), "{}", error.message);
        assert_eq!(body, b"[1]");
        let many = format!("{{{}}}", (0..=MEMBERS).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(","));
        assert!(JsonObject::parse(many.as_bytes()).unwrap_err().message.contains("over 1024"));
    }
}
