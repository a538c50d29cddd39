//! JSON objects whose members keep their order and their text.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::openai_shape::json;
use crate::scan;

/// A string that stays borrowed where it holds no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of one JSON object, in order, each value as the text that was written.
#[derive(Clone, Debug, Default)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Members<'a> {
    /// Reads an object from text.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Reads an object from bytes.
    pub fn parse_bytes(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Reads an object from a value; `None` where the value is something else.
    pub fn of(value: &'a RawValue) -> Option<Self> {
        Self::parse(value.get()).ok()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// The value of the first member of this name.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| value.as_ref())
    }

    /// The member as an object.
    pub fn object(&self, name: &str) -> Option<Members<'_>> {
        Members::of(self.get(name)?)
    }

    /// The member as a string.
    pub fn string(&self, name: &str) -> Option<Cow<'_, str>> {
        string(self.get(name)?)
    }

    /// The member as a whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Adds the member, or replaces the value that it has.
    pub fn set(&mut self, name: Cow<'a, str>, value: Cow<'a, RawValue>) {
        match self.0.iter_mut().find(|(member, _)| *member == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Adds or replaces the members of `other`.
    pub fn merge(&mut self, other: Members<'a>) {
        let names: HashSet<&str> = other.names().collect();
        self.0.retain(|(name, _)| !names.contains(name.as_ref()));
        drop(names);
        self.0.extend(other.0);
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(member, _)| member != name);
    }

    /// Takes the member out.
    pub fn take(&mut self, name: &str) -> Option<Cow<'a, RawValue>> {
        let at = self.0.iter().position(|(member, _)| member == name)?;
        Some(self.0.remove(at).1)
    }

    /// Leaves out the members of these names and those whose value is null.
    pub fn without(&self, names: &[&str]) -> Members<'_> {
        let keep = self.0.iter().filter(|(name, value)| !names.contains(&name.as_ref()) && value.get() != "null");
        Members(keep.map(|(name, value)| (Cow::Borrowed(name.as_ref()), Cow::Borrowed(value.as_ref()))).collect())
    }

    /// The object as text.
    pub fn to_text(&self) -> String {
        // Strings, and values that were parsed before: serialising them cannot fail.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.push((name, Cow::Borrowed(value)));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The value as a string; `None` where it is something else.
pub(super) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text>(value.get()).ok().map(|Text(text)| text)
}

/// A value of ours as JSON text.
pub(super) fn raw(value: &(impl Serialize + ?Sized)) -> Result<Cow<'static, RawValue>, serde_json::Error> {
    serde_json::value::to_raw_value(value).map(Cow::Owned)
}

/// Shortest text that is worth a copy of its own, in bytes.
const LONG: usize = 1024;

/// Serialises a string. A long one is escaped eight bytes at a time and handed on as it is, where the serialiser would look
/// at each byte.
pub(super) fn long<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if text.len() < LONG {
        return serializer.serialize_str(text);
    }
    let quoted = if scan::plain(text.as_bytes()) == text.len() {
        ["\"", text, "\""].concat()
    } else {
        let mut out = Vec::with_capacity(text.len() + text.len() / 16);
        json::string(&mut out, text);
        json::utf8(out)
    };
    RawValue::from_string(quoted).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// `{"name": value}` as text.
pub(super) fn wrap(name: &str, value: &(impl Serialize + ?Sized)) -> String {
    struct One<'a, T: ?Sized>(&'a str, &'a T);
    impl<T: Serialize + ?Sized> Serialize for One<'_, T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map([(self.0, self.1)])
        }
    }
    serde_json::to_string(&One(name, value)).unwrap_or_else(|_| "{}".to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_string_is_written_alike_whether_it_is_short_or_long() {
        #[derive(serde::Serialize)]
        struct One<'a>(#[serde(serialize_with = "super::long")] &'a str);
        for text in ["", "plain", "grüße 🦙", "\"quoted\"\n\\ \u{1}\u{1f}\u{7f}\u{2028}"] {
            for times in [1, 2, 1000] {
                let text = text.repeat(times);
                assert_eq!(serde_json::to_string(&One(&text)).unwrap(), serde_json::to_string(&text).unwrap());
            }
        }
    }
}
