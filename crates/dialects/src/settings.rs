//! The operator's settings of a dialect: one JSON object, which the configuration has written.

use crate::read::{Kind, Reader};

/// Deepest nesting of settings.
const DEPTH: usize = 64;

/// The value of the member `name`, as it was written; none where it is missing or null.
pub(crate) fn raw<'a>(settings: &'a str, name: &str) -> Option<&'a str> {
    let mut found = None;
    let mut reader = Reader::new(settings, DEPTH);
    // What is no object has no members.
    let _ = reader.object(|reader, member| {
        let null = reader.kind() == Kind::Null;
        let value = reader.raw()?;
        if member.text == name && !null {
            found = Some(value);
        }
        Ok(())
    });
    found
}

/// Whether the member `name` is `true`.
pub(crate) fn flag(settings: &str, name: &str) -> bool {
    raw(settings, name) == Some("true")
}

/// The member `name`, where it is a string.
pub(crate) fn text(settings: &str, name: &str) -> Option<String> {
    Reader::new(raw(settings, name)?, DEPTH).owned().ok()
}

/// The names and values of the members, as they were written.
pub(crate) fn members(settings: &str) -> Vec<(String, &str)> {
    let mut all = Vec::new();
    let mut reader = Reader::new(settings, DEPTH);
    let _ = reader.object(|reader, member| {
        all.push((member.text.clone().into_owned(), reader.raw()?));
        Ok(())
    });
    all
}

#[cfg(test)]
mod tests {
    use super::{flag, members, raw, text};

    #[test]
    fn members_are_found_by_name_and_what_is_no_object_has_none() {
        let settings = r#"{"a":true,"b":"x\ny","c":null,"d":{"e":[1, 2]}}"#;
        assert!(flag(settings, "a") && !flag(settings, "b") && !flag(settings, "z"));
        assert_eq!((text(settings, "b").as_deref(), text(settings, "a")), (Some("x\ny"), None));
        assert_eq!((raw(settings, "c"), raw(settings, "d")), (None, Some(r#"{"e":[1, 2]}"#)));
        assert_eq!(members(raw(settings, "d").unwrap()), [("e".to_owned(), "[1, 2]")]);
        for nothing in ["", "[]", "{", "{\"a\":true"] {
            assert!(members("").is_empty() && text(nothing, "b").is_none(), "{nothing}");
        }
    }
}
