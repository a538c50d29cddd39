//! Finds personal data and secrets in text, in one pass and without backtracking.
//!
//! What can be checked is checked, so that an order number is no credit card: Luhn's sum of a card, the remainder of an
//! IBAN, the ranges of a social security number.

use serde::Deserialize;

/// What may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Email,
    Phone,
    CreditCard,
    Iban,
    UsSsn,
    IpAddress,
    Secret,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::Email, Kind::Phone, Kind::CreditCard, Kind::Iban, Kind::UsSsn, Kind::IpAddress, Kind::Secret];

    /// As in placeholders.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Email => "EMAIL",
            Kind::Phone => "PHONE",
            Kind::CreditCard => "CREDIT_CARD",
            Kind::Iban => "IBAN",
            Kind::UsSsn => "US_SSN",
            Kind::IpAddress => "IP_ADDRESS",
            Kind::Secret => "SECRET",
        }
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub fn of(kinds: &[Kind]) -> Self {
        Kinds(kinds.iter().fold(0, |all, kind| all | kind.bit()))
    }

    pub fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }
}

/// Longest token that is held back for what may follow it, in bytes: a JSON Web Token of some size.
pub(crate) const LONGEST: usize = 4096;
/// Longest of those that have blanks inside: an IBAN in groups of four.
const GROUPED: usize = 48;

/// The next match in `text` from `from` on: where it begins and ends, and what it is.
pub(crate) fn next(text: &str, from: usize, kinds: Kinds) -> Option<(usize, usize, Kind)> {
    let bytes = text.as_bytes();
    let mut at = from;
    // Up to here no address can begin: its run of characters has no `@` behind it.
    let mut no_email = from;
    // Up to here no JSON Web Token can begin: too few dots are ahead.
    let mut no_jwt = from;
    while let Some(&byte) = bytes.get(at) {
        if !is_start(byte) || (at > 0 && bytes.get(at - 1).is_some_and(|b| is_word(*b))) {
            at += 1;
            continue;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        if kinds.has(Kind::Secret)
            && let Some(length) = secret(rest)
        {
            return Some((at, at + length, Kind::Secret));
        }
        if kinds.has(Kind::Secret) && at >= no_jwt && byte == b'e' && rest.starts_with(b"eyJ") {
            match jwt(rest) {
                Ok(length) => return Some((at, at + length, Kind::Secret)),
                Err(length) => no_jwt = at + length,
            }
        }
        if kinds.has(Kind::Email) && at >= no_email && is_word(byte) {
            let run = rest.iter().take_while(|b| is_local(**b)).count();
            match (rest.get(run), domain(rest.get(run + 1..).unwrap_or_default())) {
                (Some(b'@'), Some(length)) if run <= 64 => return Some((at, at + run + 1 + length, Kind::Email)),
                (Some(b'@'), _) => {}
                _ => no_email = at + run,
            }
        }
        if kinds.has(Kind::Iban)
            && byte.is_ascii_uppercase()
            && let Some(length) = iban(rest)
        {
            return Some((at, at + length, Kind::Iban));
        }
        // Not in the middle of a longer number, or of a version.
        let inside = at > 0 && bytes.get(at - 1).is_some_and(|b| matches!(b, b'.' | b'-'));
        if (byte.is_ascii_digit() && !inside) || matches!(byte, b'+' | b'(') {
            let found = [
                (Kind::CreditCard, credit_card as fn(&[u8]) -> Option<usize>),
                (Kind::UsSsn, us_ssn),
                (Kind::IpAddress, ip_address),
                (Kind::Phone, phone),
            ];
            for (kind, find) in found {
                if kinds.has(kind)
                    && let Some(length) = find(rest)
                {
                    return Some((at, at + length, kind));
                }
            }
        }
        at += 1;
    }
    None
}

/// The longest beginning of `text` in which nothing can begin that more text would complete.
pub(crate) fn settled(text: &str) -> usize {
    let bytes = text.as_bytes();
    let blank = |b: u8| b.is_ascii_whitespace();
    let mut hold = bytes.len();
    // The last token, whatever it is.
    while hold > 0 && bytes.get(hold - 1).is_some_and(|b| !blank(*b)) {
        hold -= 1;
    }
    // Groups of digits before it.
    loop {
        let mut start = hold;
        while start > 0 && bytes.get(start - 1).is_some_and(|b| blank(*b)) {
            start -= 1;
        }
        let end = start;
        while start > 0 && bytes.get(start - 1).is_some_and(|b| !blank(*b)) {
            start -= 1;
        }
        let token = bytes.get(start..end).unwrap_or_default();
        let grouped = !token.is_empty() && token.iter().any(|b| b.is_ascii_digit() || matches!(b, b'+' | b'('));
        if !grouped || bytes.len() - start > GROUPED {
            break;
        }
        hold = start;
    }
    // The head of a key: it has blanks inside.
    if let Some(begin) = text.rfind(BEGIN).filter(|begin| bytes.len() - begin < 64) {
        let open = text.get(begin + BEGIN.len()..).is_some_and(|rest| !rest.contains("-----"));
        hold = if open { hold.min(begin) } else { hold };
    }
    let mut hold = hold.max(bytes.len().saturating_sub(LONGEST));
    while !text.is_char_boundary(hold) {
        hold += 1;
    }
    hold
}

fn is_start(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'(' | b'-')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-')
}

/// The length of the domain that `rest` begins with: labels of letters, digits and hyphens, at least two, the last one of
/// letters.
fn domain(rest: &[u8]) -> Option<usize> {
    let run = rest.iter().take(254).take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')).count();
    let mut end = run;
    while end > 0 && rest.get(end - 1).is_some_and(|b| matches!(b, b'.' | b'-')) {
        end -= 1;
    }
    let labels: Vec<&[u8]> = rest.get(..end)?.split(|b| *b == b'.').collect();
    let last = labels.last()?;
    let good = labels.len() >= 2
        && labels.iter().all(|label| !label.is_empty() && label.len() <= 63)
        && last.len() >= 2
        && last.iter().all(u8::is_ascii_alphabetic);
    good.then_some(end)
}

/// Digits with at most one separator between two of them: the digits, and the length of it all.
fn digits(rest: &[u8], separators: &[u8], most: usize) -> (Vec<u8>, usize) {
    let mut found = Vec::new();
    let (mut at, mut end) = (0, 0);
    while let Some(byte) = rest.get(at) {
        if byte.is_ascii_digit() && found.len() < most {
            found.push(byte - b'0');
            end = at + 1;
        } else if !(separators.contains(byte) && at == end && at > 0) {
            break;
        }
        at += 1;
    }
    (found, end)
}

fn ends(rest: &[u8], end: usize) -> bool {
    rest.get(end).is_none_or(|b| !is_word(*b))
}

fn credit_card(rest: &[u8]) -> Option<usize> {
    let (digits, end) = digits(rest, b" -", 20);
    let luhn = |digits: &[u8]| {
        let doubled = digits.iter().rev().enumerate().map(|(number, digit)| match number % 2 {
            0 => u32::from(*digit),
            _ => u32::from(digit * 2 / 10 + digit * 2 % 10),
        });
        doubled.sum::<u32>() % 10 == 0
    };
    let known = match (digits.first()?, digits.len()) {
        (3, length) => (14..=16).contains(&length),
        (4, length) => matches!(length, 13 | 16 | 19),
        (2 | 5, length) => length == 16,
        (6, length) => (16..=19).contains(&length),
        _ => false,
    };
    (known && ends(rest, end) && luhn(&digits)).then_some(end)
}

fn us_ssn(rest: &[u8]) -> Option<usize> {
    let text = rest.get(..11)?;
    let shape = text.iter().enumerate().all(|(at, b)| if at == 3 || at == 6 { *b == b'-' } else { b.is_ascii_digit() });
    let number =
        |range: std::ops::Range<usize>| text.get(range).map(|d| d.iter().fold(0, |n, b| n * 10 + u32::from(b & 15)));
    let (area, group, serial) = (number(0..3)?, number(4..6)?, number(7..11)?);
    (shape && area != 0 && area != 666 && area < 900 && group != 0 && serial != 0 && ends(rest, 11)).then_some(11)
}

fn ip_address(rest: &[u8]) -> Option<usize> {
    let end = rest.iter().take(16).take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    let text = std::str::from_utf8(rest.get(..end)?).ok()?;
    let address: std::net::Ipv4Addr = text.parse().ok()?;
    (!address.is_unspecified() && !address.is_loopback() && ends(rest, end)).then_some(end)
}

/// International numbers, and North American ones in their usual groups.
fn phone(rest: &[u8]) -> Option<usize> {
    if rest.first() == Some(&b'+') {
        let (digits, end) = digits(rest.get(1..)?, b" -.()", 16);
        return ((8..=15).contains(&digits.len()) && ends(rest, end + 1)).then_some(end + 1);
    }
    let (open, body) = match rest.first() {
        Some(b'(') => (true, rest.get(1..)?),
        _ => (false, rest),
    };
    let shape = |pattern: &str| {
        let good = body.len() >= pattern.len()
            && pattern.bytes().zip(body).all(|(want, b)| if want == b'd' { b.is_ascii_digit() } else { want == *b });
        (good && matches!(body.first(), Some(b'2'..=b'9'))).then_some(pattern.len())
    };
    let length = match open {
        true => shape("ddd) ddd-dddd").or_else(|| shape("ddd)ddd-dddd")).map(|length| length + 1),
        false => shape("ddd-ddd-dddd").or_else(|| shape("ddd.ddd.dddd")),
    };
    length.filter(|length| ends(rest, *length))
}

fn iban(rest: &[u8]) -> Option<usize> {
    let head = rest.get(..4)?;
    if !(head.iter().take(2).all(u8::is_ascii_uppercase) && head.iter().skip(2).all(u8::is_ascii_digit)) {
        return None;
    }
    let mut code = Vec::with_capacity(34);
    let (mut at, mut end) = (0, 0);
    while let Some(byte) = rest.get(at) {
        if (byte.is_ascii_uppercase() || byte.is_ascii_digit()) && code.len() < 34 {
            code.push(*byte);
            end = at + 1;
        } else if !(*byte == b' ' && at == end && code.len() % 4 == 0) {
            break;
        }
        at += 1;
    }
    let good = |code: &[u8]| {
        let (head, body) = (code.get(..4).unwrap_or_default(), code.get(4..).unwrap_or_default());
        let value = |b: &u8| if b.is_ascii_digit() { u32::from(b - b'0') } else { u32::from(b - b'A') + 10 };
        let rest = body.iter().chain(head).map(value);
        rest.fold(0, |rest, value| (rest * if value > 9 { 100 } else { 10 } + value) % 97) == 1
    };
    // A word in capitals behind it may have been read along.
    while code.len() >= 15 {
        if ends(rest, end) && good(&code) {
            return Some(end);
        }
        let group = if code.len() % 4 == 0 { 4 } else { code.len() % 4 };
        code.truncate(code.len() - group);
        end = rest.get(..end)?.iter().rposition(|b| *b == b' ')?;
    }
    None
}

/// The head of a private key in PEM.
pub(crate) const BEGIN: &str = "-----BEGIN";
/// Where such a key ends.
pub(crate) const END: &str = "-----END";

/// Whether `rest` begins with the head of a private key: the head's length.
pub(crate) fn key_head(rest: &[u8]) -> Option<usize> {
    let label = rest.strip_prefix(BEGIN.as_bytes())?;
    let length = label.iter().take(48).take_while(|b| b.is_ascii_uppercase() || **b == b' ').count();
    let (label, rest) = label.split_at_checked(length)?;
    (label.ends_with(b"PRIVATE KEY") && rest.starts_with(b"-----")).then_some(BEGIN.len() + length + 5)
}

/// The length of a private key's end, and of what is before it.
pub(crate) fn key_end(rest: &str) -> Option<usize> {
    let end = rest.find(END)? + END.len();
    let tail = rest.get(end..)?;
    Some(end + tail.find("-----")? + 5)
}

/// Tokens that say what they are by their beginnings.
const TOKENS: [(&[u8], usize); 13] = [
    (b"sk-", 20),
    (b"sk_live_", 16),
    (b"rk_live_", 16),
    (b"AKIA", 16),
    (b"ASIA", 16),
    (b"ghp_", 20),
    (b"gho_", 20),
    (b"ghs_", 20),
    (b"github_pat_", 20),
    (b"glpat-", 20),
    (b"xoxb-", 10),
    (b"xoxp-", 10),
    (b"AIza", 35),
];

/// A JSON Web Token: three parts in base64url. Without one, how far no other one begins either.
fn jwt(rest: &[u8]) -> Result<usize, usize> {
    let mut dots = 0;
    let end = rest.iter().take(LONGEST).take_while(|b| {
        dots += u32::from(**b == b'.');
        dots < 3 && (b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    });
    let end = end.count();
    let run = rest.get(..end).unwrap_or_default();
    match run.split(|b| *b == b'.').filter(|part| part.len() >= 8).count() {
        3 => Ok(end),
        _ if dots < 2 => Err(end),
        _ => Err(0),
    }
}

fn secret(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'-' => {
            let head = key_head(rest)?;
            let text = String::from_utf8_lossy(rest.get(head..)?);
            // A key without its end is a secret up to where the text ends.
            Some(key_end(&text).map_or(rest.len(), |end| head + end).min(rest.len()))
        }
        _ => TOKENS.iter().find_map(|(prefix, least)| {
            let body = rest.strip_prefix(*prefix)?;
            let length = body.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')).count();
            (length >= *least).then_some(prefix.len() + length)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(&str, Kind)> {
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some((start, end, kind)) = next(text, from, Kinds::of(&Kind::ALL)) {
            assert!(end > start && end <= text.len(), "{text:?} {start} {end}");
            found.push((&text[start..end], kind));
            from = end;
        }
        found
    }

    #[test]
    fn what_is_personal_is_found_with_its_bounds() {
        let cases: &[(&str, &str, Kind)] = &[
            ("write to ada.l+x@mail.example.co.uk, please", "ada.l+x@mail.example.co.uk", Kind::Email),
            ("(ada@example.com)", "ada@example.com", Kind::Email),
            ("ends with ada@example.com.", "ada@example.com", Kind::Email),
            ("card 4111 1111 1111 1111 exp", "4111 1111 1111 1111", Kind::CreditCard),
            ("5500-0055-5555-5559", "5500-0055-5555-5559", Kind::CreditCard),
            ("378282246310005", "378282246310005", Kind::CreditCard),
            ("IBAN DE89 3704 0044 0532 0130 00 OK", "DE89 3704 0044 0532 0130 00", Kind::Iban),
            ("GB82WEST12345698765432.", "GB82WEST12345698765432", Kind::Iban),
            ("ssn 123-45-6789", "123-45-6789", Kind::UsSsn),
            ("from 203.0.113.9:80", "203.0.113.9", Kind::IpAddress),
            ("call +49 30 901820 now", "+49 30 901820", Kind::Phone),
            ("call (212) 555-0187", "(212) 555-0187", Kind::Phone),
            ("key AKIAIOSFODNN7EXAMPLE!", "AKIAIOSFODNN7EXAMPLE", Kind::Secret),
            ("token=ghp_0123456789abcdefghij0123", "ghp_0123456789abcdefghij0123", Kind::Secret),
            ("eyJhbGciOi.eyJzdWIiOiIx.SflKxwRJSMeK x", "eyJhbGciOi.eyJzdWIiOiIx.SflKxwRJSMeK", Kind::Secret),
        ];
        for (text, found, kind) in cases {
            assert_eq!(all(text), [(*found, *kind)], "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_left_alone() {
        for text in [
            "order 4111 1111 1111 1112",
            "version 1.2.3.4.5",
            "127.0.0.1",
            "@handle and a@b",
            "user@localhost",
            "DE89 3704 0044 0532 0130 01",
            "666-12-3456",
            "2024-10-11 12:13:14",
            "sk-short",
            "x4111111111111111",
            "-----BEGIN CERTIFICATE-----",
            "10 20 30 40 50",
        ] {
            assert_eq!(all(text), [], "{text}");
        }
    }

    #[test]
    fn a_private_key_is_a_secret_to_its_end_or_to_the_texts() {
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----";
        assert_eq!(all(&format!("a {key} b")), [(key, Kind::Secret)]);
        let cut = "-----BEGIN PRIVATE KEY-----\nMIIE";
        assert_eq!(all(cut), [(cut, Kind::Secret)]);
    }

    #[test]
    fn a_long_run_of_text_takes_linear_time() {
        for pattern in ["a.", "1 ", "+", "a@", "-----BEGIN ", "eyJ.", "DE89 "] {
            let text = pattern.repeat(1 << 17);
            let _ = next(&text, 0, Kinds::of(&Kind::ALL));
        }
    }
}
