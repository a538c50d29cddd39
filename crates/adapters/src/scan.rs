//! Looks at text eight bytes at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// How many words are looked at before what was found is asked for.
const WORDS: usize = 4;

/// Sets the high bit of the first byte that must be escaped, if there is one: of a control character, a quotation mark
/// or a backslash. Borrows can set wrong bits, but only above a right one.
fn to_escape(word: u64) -> u64 {
    let equal = |byte: u8| {
        let difference = word ^ (ONES * u64::from(byte));
        difference.wrapping_sub(ONES) & !difference
    };
    ((word.wrapping_sub(ONES * 0x20) & !word) | equal(b'"') | equal(b'\\')) & HIGHS
}

/// How many bytes are in front of the first one that stands in no JSON string as it is.
pub(crate) fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    // The first word is looked at alone: most texts are short.
    if bytes.first_chunk::<8>().is_some_and(|word| to_escape(u64::from_le_bytes(*word)) == 0) {
        let (blocks, _) = bytes.as_chunks::<{ 8 * WORDS }>();
        let clean = |block: &&[u8; 8 * WORDS]| {
            let (words, _) = block.as_chunks::<8>();
            words.iter().fold(0, |found, word| found | to_escape(u64::from_le_bytes(*word))) == 0
        };
        at = blocks.iter().take_while(clean).count() * 8 * WORDS;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        let found = to_escape(u64::from_le_bytes(*word));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let last = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'));
    at + last.unwrap_or(rest.len())
}

/// Sets the high bit of each byte from `first` to `last`. Each sum stays inside of its byte, since none is above 0x7f.
fn between(ascii: u64, first: u8, last: u8) -> u64 {
    (ascii + ONES * u64::from(0x80 - first)) & !(ascii + ONES * u64::from(0x7f - last)) & HIGHS
}

/// Sets the high bit of each byte that is no digit of base64.
fn no_digit(word: u64) -> u64 {
    let low = word & !HIGHS;
    // The bit 0x20 makes capitals small, and nothing else a letter. `/` stands in front of `0`.
    let digit = between(low | (ONES * 0x20), b'a', b'z') | between(low, b'/', b'9') | between(low, b'+', b'+');
    (word | !digit) & HIGHS
}

/// How many bytes padded base64 (RFC 4648, section 4) stands for; `None` where the text is none.
pub(crate) fn base64_len(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let (words, rest) = digits.as_bytes().as_chunks::<8>();
    let wrong = words.iter().fold(0, |wrong, word| wrong | no_digit(u64::from_le_bytes(*word)));
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    (wrong == 0 && rest.iter().all(digit)).then(|| text.len() / 4 * 3 - padding)
}

/// How many words begin in a text, and whether it ends inside of one. `inside`: it begins inside of one.
pub(crate) fn words(text: &str, mut inside: bool) -> (u64, bool) {
    let mut count = 0;
    let (blocks, rest) = if text.is_ascii() { text.as_bytes().as_chunks::<8>() } else { (&[][..], text.as_bytes()) };
    for block in blocks {
        let word = u64::from_le_bytes(*block);
        let blank = between(word, b'\t', b'\r') | between(word, b' ', b' ');
        let before = blank << 8 | if inside { 0 } else { 0x80 };
        count += u64::from((!blank & before).count_ones());
        inside = blank >> 63 == 0;
    }
    let rest = text.get(text.len() - rest.len()..).unwrap_or_default();
    for character in rest.chars() {
        let more = !character.is_whitespace();
        count += u64::from(more && !inside);
        inside = more;
    }
    (count, inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_is_judged_as_a_plain_loop_does() {
        for byte in 0..=255_u8 {
            for place in 0..80 {
                for fill in [b'a', 0x7f, 0x80, 0xff, 0x21, 0x23, 0x5b, 0x5d] {
                    let mut bytes = [fill; 80];
                    bytes[place] = byte;
                    let expected = bytes.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').unwrap_or(80);
                    assert_eq!(plain(&bytes), expected, "byte {byte} at {place} in {fill}");
                    assert_eq!(plain(&bytes[..place]), place.min(expected), "{fill}");
                }
            }
        }
    }

    #[test]
    fn every_character_at_every_place_is_judged_as_the_alphabet_of_base64_says() {
        for character in (0..=0x2ff_u32).filter_map(char::from_u32) {
            for place in 0..24 {
                let rest = 24 - character.len_utf8();
                let front = place.min(rest);
                let text = format!("{}{character}{}", "A".repeat(front), "A".repeat(rest - front));
                let digit = character.is_ascii_alphanumeric() || matches!(character, '+' | '/');
                let expected = match character {
                    '=' if place == 23 => Some(17),
                    _ => digit.then_some(18),
                };
                assert_eq!(base64_len(&text), expected, "{character:?} at {place}");
            }
        }
    }

    #[test]
    fn the_size_behind_base64_is_told_without_decoding() {
        for (text, bytes) in [("", 0), ("QQ==", 1), ("QUI=", 2), ("QUJD", 3)] {
            assert_eq!(base64_len(text), Some(bytes), "{text:?}");
        }
        for wrong in ["QQ", "QQ=", "Q===", "====", "QU-_", "QUJD\n", "Q=Q="] {
            assert_eq!(base64_len(wrong), None, "{wrong:?}");
        }
    }
}
