//! Text inside of JSON strings: what it says, and how it is written.

use std::borrow::Cow;

/// How far it is to the quote that ends what `text` begins with: the inside of a string, or what is between two of them.
pub(crate) fn quote(text: &str, inside: bool) -> Option<usize> {
    if !inside {
        return text.find('"');
    }
    let mut escaped = false;
    text.bytes().position(|byte| {
        let quote = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        quote
    })
}

/// Whether `text`, the inside of a string, breaks off behind the backslash of an escape.
pub(crate) fn breaks_off(text: &str) -> bool {
    text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The first character of the inside of a string, and the length that it is written in. `None`: what is there of its escape
/// may go on. An escape that is none, or, with `ended`, is cut off, is the backslash itself.
fn first(text: &str, ended: bool) -> Option<(char, usize)> {
    let plain = text.chars().next()?;
    if plain != '\\' {
        return Some((plain, plain.len_utf8()));
    }
    let cut = || ended.then_some(('\\', 1));
    let Some(letter) = text.as_bytes().get(1) else { return cut() };
    let simple = match letter {
        b'"' | b'\\' | b'/' => char::from(*letter),
        b'b' => '\u{8}',
        b'f' => '\u{C}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            return match unit(text) {
                Ok(high @ 0xD800..0xDC00) => {
                    let rest = text.get(6..).unwrap_or_default();
                    match unit(rest) {
                        Ok(low @ 0xDC00..0xE000) => Some((pair(high, low), 12)),
                        Err(true) if !ended => None,
                        _ => Some((char::REPLACEMENT_CHARACTER, 6)),
                    }
                }
                Ok(code) => Some((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 6)),
                Err(true) => cut(),
                Err(false) => Some(('\\', 1)),
            };
        }
        _ => return Some(('\\', 1)),
    };
    Some((simple, 2))
}

/// The character that a high surrogate and a low one stand for.
pub(crate) fn pair(high: u32, low: u32) -> char {
    let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The number that `text` begins with as `\u12AB`; else whether more text could make it one.
pub(crate) fn unit(text: &str) -> Result<u32, bool> {
    let digits = match text.as_bytes() {
        [] | [b'\\'] => return Err(true),
        [b'\\', b'u', digits @ ..] => digits,
        _ => return Err(false),
    };
    let digits = digits.get(..4).unwrap_or(digits);
    let code = digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?));
    match code {
        Some(code) if digits.len() == 4 => Ok(code),
        code => Err(code.is_some()),
    }
}

/// A text with the end of what is before it, which has gone on already, as far as it can be read.
pub(crate) struct Said<'a> {
    written: &'a str,
    /// It is written with escapes.
    escapes: bool,
    ended: bool,
    /// The length of what is before it.
    pub before: usize,
    /// What it says, behind what is before it.
    pub text: Cow<'a, str>,
}

/// A place in a text: in what it says, and in how that is written.
#[derive(Clone, Copy)]
pub(crate) struct At {
    said: usize,
    pub written: usize,
}

impl<'a> Said<'a> {
    /// `json`: `written` is the inside of a JSON string. `ended`: nothing comes behind it.
    pub fn new(written: &'a str, json: bool, before: &str, ended: bool) -> Self {
        let escapes = json && written.contains('\\');
        let mut said = Said { written, escapes, ended, before: 0, text: Cow::Borrowed(written) };
        if before.is_empty() && !escapes {
            return said;
        }
        let mut text = String::with_capacity(before.len() + written.len());
        text.push_str(before);
        said.before = text.len();
        let mut rest = written;
        // In pieces, each up to the next escape.
        while escapes && let Some(escape) = rest.find('\\') {
            let (plain, escaped) = rest.split_at(escape);
            text.push_str(plain);
            rest = escaped;
            let Some((c, length)) = first(rest, ended) else {
                rest = "";
                break;
            };
            text.push(c);
            rest = rest.get(length..).unwrap_or_default();
        }
        text.push_str(rest);
        said.text = Cow::Owned(text);
        said
    }

    /// Where the text begins.
    pub fn begin(&self) -> At {
        At { said: self.before, written: 0 }
    }

    /// From a place on to another one in what is said, which is not before it.
    pub fn to(&self, at: At, said: usize) -> At {
        match self.escapes {
            true => self.until(at, |at| at.said >= said),
            false => At { said, written: said.saturating_sub(self.before) },
        }
    }

    /// This place in what is said, or a later one behind which no more than `most` bytes are written.
    pub fn bounded(&self, said: usize, most: usize) -> usize {
        match self.written.len().checked_sub(most) {
            Some(first) if self.escapes => self.until(self.begin(), |at| at.said >= said && at.written >= first).said,
            _ => said,
        }
    }

    fn until(&self, mut at: At, there: impl Fn(At) -> bool) -> At {
        while !there(at) {
            let rest = self.written.get(at.written..).unwrap_or_default();
            let Some((c, length)) = first(rest, self.ended) else { break };
            at = At { said: at.said + c.len_utf8(), written: at.written + length };
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_string_says_is_what_a_parser_reads() {
        for text in ["", "plain", "a\nb\t\"q\" \\ / é 日 \u{1F30D}\u{8}\u{C}\r", "\u{7f}\u{1}"] {
            let ascii = |c: char| {
                let mut units = [0; 2];
                let escaped = c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}"));
                escaped.collect::<String>()
            };
            for written in
                [serde_json::to_string(text).unwrap(), format!("\"{}\"", text.chars().map(ascii).collect::<String>())]
            {
                let inside = &written[1..written.len() - 1];
                assert_eq!(quote(&written[1..], true), Some(inside.len()));
                let said = Said::new(inside, true, "", true);
                assert_eq!(said.text, text, "{written}");
                let mut at = said.begin();
                for (begin, c) in text.char_indices() {
                    at = said.to(at, begin + c.len_utf8());
                    let so_far = format!("\"{}\"", &inside[..at.written]);
                    assert_eq!(serde_json::from_str::<String>(&so_far).unwrap(), text[..begin + c.len_utf8()]);
                }
                // What is cut says a beginning of it, and never something else.
                for cut in (0..inside.len()).filter(|cut| inside.is_char_boundary(*cut)) {
                    let said = Said::new(&inside[..cut], true, "", false);
                    assert!(text.starts_with(&*said.text), "{written} {cut}");
                }
            }
        }
    }

    #[test]
    fn an_escape_that_is_none_is_a_backslash() {
        for (written, text) in [("\\x", "\\x"), ("\\u12", "\\u12"), ("a\\", "a\\"), ("\\ud83dx", "\u{FFFD}x")] {
            assert_eq!(Said::new(written, true, "b", true).text, format!("b{text}"), "{written}");
        }
    }
}
