//! Texts for a terminal: those of strangers, and the words of a command that is printed to be run. The library and the
//! program have this module each for itself, so that it is no part of what others may use.

use std::borrow::Cow;

/// A stranger's text without what would write over the terminal that shows it: control characters, and those that turn the
/// direction of the text around them.
pub(crate) fn plain(text: &str) -> String {
    let acts = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if acts(c) { ' ' } else { c }).collect()
}

/// A word of a command as a POSIX shell reads it: as it is, or in quotes where the shell would read something else.
pub(crate) fn word(text: &str) -> Cow<'_, str> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(&b);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_neither_writes_over_the_terminal_nor_turns_its_direction() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{9b}d"), "a [2Jb c d");
        assert_eq!(plain("\u{202e}txt\u{202a}\u{2066}a\u{2069}"), " txt  a ");
        assert_eq!(plain("héllo, שלום – \u{2029}\u{2065}"), "héllo, שלום – \u{2029}\u{2065}");
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_something_else() {
        for good in ["composed/witgate.wasm", "registry:5000/a/b:1@sha256:0f", "--x=1,2"] {
            assert_eq!(word(good), good);
        }
        for (text, quoted) in [
            ("", "''"),
            ("my folder/a.wasm", "'my folder/a.wasm'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("~a", "'~a'"),
            ("a;b&c", "'a;b&c'"),
            ("é", "'é'"),
        ] {
            assert_eq!(word(text), quoted);
        }
    }
}
