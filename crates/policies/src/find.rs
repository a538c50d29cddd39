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
/// Longest part of an address before its `@`.
const LONGEST_LOCAL: usize = 64;

/// The next match in `text` from `from` on: where it begins and ends, and what it is.
pub(crate) fn next(text: &str, from: usize, kinds: Kinds) -> Option<(usize, usize, Kind)> {
    let bytes = text.as_bytes();
    let mut at = from;
    // Up to here no address can begin: its run of characters has no `@` behind it.
    let mut no_email = from;
    // Up to here no JSON Web Token can begin: too few dots are ahead.
    let mut no_jwt = from;
    while let Some(&byte) = bytes.get(at) {
        if !is_start(byte) || !may_begin(bytes, at) {
            at += 1;
            continue;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        if kinds.has(Kind::Secret)
            && let Some(length) = secret(text, at)
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
            looked_at(run);
            no_email = at + run;
            if rest.get(run) == Some(&b'@')
                && let Some(length) = domain(rest.get(run + 1..).unwrap_or_default())
            {
                if run <= LONGEST_LOCAL {
                    return Some((at, at + run + 1 + length, Kind::Email));
                }
                // Its end may be one.
                no_email -= LONGEST_LOCAL;
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
    // Groups of digits before it, and the groups of letters that an IBAN may have.
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
        let grouped = token.iter().any(|b| b.is_ascii_digit() || matches!(b, b'+' | b'('))
            || (token.len() == 4 && token.iter().all(u8::is_ascii_uppercase));
        if !grouped {
            break;
        }
        // What is longer may still end with a first group.
        hold = hold.min(start.max(bytes.len().saturating_sub(GROUPED)));
        if hold > start {
            break;
        }
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

/// This place, or that of an escape before it which decides what begins behind it: of what is before the place only one
/// character will be known.
pub(crate) fn before_escape(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(at.saturating_sub(6)..at).unwrap_or_default();
    match before.iter().rposition(|b| *b == b'\\') {
        Some(escape) if !before.last().is_some_and(u8::is_ascii_whitespace) => at - before.len() + escape,
        _ => at,
    }
}

fn is_start(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'(' | b'-')
}

/// Whether something may begin at a place: not within a word, nor with the letter of an escape such as `\n`, whatever this is
/// the text of; behind the escape it may.
fn may_begin(bytes: &[u8], at: usize) -> bool {
    let back = |by: usize| at.checked_sub(by).and_then(|at| bytes.get(at)).copied();
    let letter = |b: Option<u8>| matches!(b, Some(b'b' | b'f' | b'n' | b'r' | b't'));
    let hex = |from: usize| {
        let digits = bytes.get(from..).and_then(|rest| rest.get(..4));
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    match back(1) {
        None => true,
        Some(b'\\') => !(letter(bytes.get(at).copied()) || bytes.get(at) == Some(&b'u') && hex(at + 1)),
        Some(b) if is_word(b) => {
            (back(2) == Some(b'\\') && letter(Some(b)))
                || (back(6) == Some(b'\\') && back(5) == Some(b'u') && hex(at - 4))
        }
        Some(_) => true,
    }
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
    let labels = || rest.get(..end).unwrap_or_default().split(|b| *b == b'.');
    let last = labels().next_back()?;
    let good = labels().nth(1).is_some()
        && labels().all(|label| !label.is_empty() && label.len() <= 63)
        && last.len() >= 2
        && last.iter().all(u8::is_ascii_alphabetic);
    good.then_some(end)
}

/// Most digits that are read of one number.
const MOST_DIGITS: usize = 20;

/// Digits with at most one separator between two of them.
struct Digits<'a> {
    digits: &'a [u8],
    /// Where each of them ends.
    ends: &'a [usize],
    /// No further digits are behind them.
    all: bool,
}

impl Digits<'_> {
    /// Whether a separator is before the digit of this number, and before no other.
    fn separated(&self, before: impl Fn(usize) -> bool) -> bool {
        let mut pairs = self.ends.iter().zip(self.ends.iter().skip(1)).enumerate();
        pairs.all(|(number, (end, next))| (end + 1 < *next) == before(number + 1))
    }
}

/// The length of the longest number that `rest` begins with and that is `good`. What is behind a separator may be another
/// number, so it is looked at without it too.
fn number(rest: &[u8], separators: &[u8], good: impl Fn(&Digits) -> bool) -> Option<usize> {
    let mut digits = [0; MOST_DIGITS];
    let mut ends_at = [0; MOST_DIGITS];
    let (mut count, mut at, mut end) = (0, 0, 0);
    while let Some(byte) = rest.get(at) {
        if byte.is_ascii_digit()
            && let (Some(digit), Some(ends_at)) = (digits.get_mut(count), ends_at.get_mut(count))
        {
            end = at + 1;
            (*digit, *ends_at) = (byte - b'0', end);
            count += 1;
        } else if !(separators.contains(byte) && at == end && at > 0) {
            break;
        }
        at += 1;
    }
    (1..=count).rev().find_map(|first| {
        let end = *ends_at.get(first - 1)?;
        let all = first == count && !rest.get(end + 1).is_some_and(u8::is_ascii_digit);
        let digits = Digits { digits: digits.get(..first)?, ends: ends_at.get(..first)?, all };
        (ends(rest, end) && good(&digits)).then_some(end)
    })
}

fn ends(rest: &[u8], end: usize) -> bool {
    rest.get(end).is_none_or(|b| !is_word(*b))
}

fn credit_card(rest: &[u8]) -> Option<usize> {
    let luhn = |digits: &[u8]| {
        let doubled = digits.iter().rev().enumerate().map(|(number, digit)| match number % 2 {
            0 => u32::from(*digit),
            _ => u32::from(digit * 2 / 10 + digit * 2 % 10),
        });
        doubled.sum::<u32>() % 10 == 0
    };
    let known = |digits: &[u8]| match (digits, digits.len()) {
        ([3, ..], length) => (14..=16).contains(&length),
        ([4, ..], length) => matches!(length, 13 | 16 | 19),
        // And no list of years.
        ([2, 2..=7, ..] | [5, ..], length) => length == 16,
        ([6, ..], length) => (16..=19).contains(&length),
        _ => false,
    };
    number(rest, b" -", |number| {
        // In front of other numbers it is written as on the card: else many a list of numbers would hold one.
        let written = || {
            number.separated(|_| false)
                || number.separated(|digit| digit % 4 == 0)
                || number.separated(|digit| digit == 4 || digit == 10)
        };
        known(number.digits) && luhn(number.digits) && (number.all || written())
    })
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
        let end = number(rest.get(1..)?, b" -.()", |number| (8..=15).contains(&number.digits.len()))?;
        return Some(end + 1);
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
    let mut code = [0; 34];
    let mut count = 0;
    let (mut at, mut end) = (0, 0);
    while let Some(byte) = rest.get(at) {
        if (byte.is_ascii_uppercase() || byte.is_ascii_digit())
            && let Some(next) = code.get_mut(count)
        {
            *next = *byte;
            count += 1;
            end = at + 1;
        } else if !(*byte == b' ' && at == end && count % 4 == 0) {
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
    while count >= 15 {
        if ends(rest, end) && good(code.get(..count)?) {
            return Some(end);
        }
        count -= if count % 4 == 0 { 4 } else { count % 4 };
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

/// The most bytes of a private key's end: `-----END`, what ends, and five hyphens.
const LONGEST_END: usize = 64;

/// The length of a private key's end, and of what is before it.
pub(crate) fn key_end(rest: &str) -> Option<usize> {
    rest.match_indices(END).find_map(|(at, _)| {
        let tail = rest.as_bytes().get(at + END.len()..)?;
        let tail = tail.get(..LONGEST_END - END.len()).unwrap_or(tail);
        let close = tail.windows(5).position(|five| five == b"-----")?;
        Some(at + END.len() + close + 5)
    })
}

/// Where in a private key that has not ended its end may begin.
pub(crate) fn key_tail(rest: &str) -> usize {
    let begun = rest.rfind("-----").filter(|at| rest.len() - at < LONGEST_END);
    begun.unwrap_or_else(|| rest.trim_end_matches('-').len())
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
    let mut dots = 0_u32;
    let end = rest.iter().take(LONGEST).take_while(|b| {
        dots += u32::from(**b == b'.');
        dots < 3 && (b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    });
    let end = end.count();
    looked_at(end);
    let run = rest.get(..end).unwrap_or_default();
    match run.split(|b| *b == b'.').filter(|part| part.len() >= 8).count() {
        3 => Ok(end),
        _ if dots < 2 => Err(end),
        // What begins in the same part has the same parts behind it.
        _ => Err(run.iter().position(|b| *b == b'.').unwrap_or(end)),
    }
}

/// Counts, in tests, the bytes that are looked at further than one by one.
fn looked_at(_bytes: usize) {
    #[cfg(test)]
    tests::LOOKED_AT.with(|all| all.set(all.get() + _bytes));
}

/// The length of the secret that begins at a place of `text`.
fn secret(text: &str, at: usize) -> Option<usize> {
    let rest = text.as_bytes().get(at..)?;
    match rest.first()? {
        b'-' => {
            let head = key_head(rest)?;
            let key = text.get(at + head..)?;
            // A key without its end is a secret up to where the text ends.
            let end = key_end(key).unwrap_or(key.len());
            looked_at(end);
            Some(head + end)
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
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }

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
            ("card 4111 1111 1111 1111 12/26", "4111 1111 1111 1111", Kind::CreditCard),
            ("card 4111-1111-1111-1111 123", "4111-1111-1111-1111", Kind::CreditCard),
            ("card 4111111111111111 123", "4111111111111111", Kind::CreditCard),
            ("card 3782 822463 10005 1234", "3782 822463 10005", Kind::CreditCard),
            ("4111 1111 1111 1111 20261231", "4111 1111 1111 1111", Kind::CreditCard),
            ("call +49 30 901820 3rd floor", "+49 30 901820", Kind::Phone),
            ("call +49 30 90182012 2031-12-31", "+49 30 90182012", Kind::Phone),
            ("a\\nada@example.com\\nb", "ada@example.com", Kind::Email),
            ("\\tAKIAIOSFODNN7EXAMPLE\\n", "AKIAIOSFODNN7EXAMPLE", Kind::Secret),
            ("is\\n4111 1111 1111 1111\\r", "4111 1111 1111 1111", Kind::CreditCard),
            ("is\\u00a0+49 30 901820", "+49 30 901820", Kind::Phone),
            ("\\u003cada@example.com\\u003e", "ada@example.com", Kind::Email),
            ("HOME\\user@example.com", "user@example.com", Kind::Email),
            ("\\n-----BEGIN PRIVATE KEY-----\\nMI", "-----BEGIN PRIVATE KEY-----\\nMI", Kind::Secret),
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
            // Luhn's sum of the first four would be right.
            "2010 2011 2012 2021 2022 2023",
            "42 22 22 22 22 22 22 20 30 31 32",
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
    fn a_keys_end_that_is_none_ends_it_not() {
        let far = "x".repeat(LONGEST_END);
        let key = format!("-----BEGIN PRIVATE KEY-----\n-----END{far}-----\n-----END PRIVATE KEY-----");
        assert_eq!(all(&format!("{key} b")), [(key.as_str(), Kind::Secret)]);
    }

    #[test]
    fn a_long_run_of_text_takes_linear_time() {
        let keys = "-----BEGIN PRIVATE KEY-----\nMI\n-----END PRIVATE KEY-----\n";
        for pattern in
            ["a.", "1 ", "+", "a@", "-----BEGIN ", keys, "eyJ.", "eyJ-", "eyJabcde.eyJ-", "DE89 ", "4111 ", "\\n"]
        {
            for end in ["", "@", "@example.com", "@example", ".aa.", ".aaaaaaaa."] {
                let text = pattern.repeat((1 << 14) / pattern.len()) + end;
                LOOKED_AT.set(0);
                let (mut from, kinds) = (0, Kinds::of(&Kind::ALL));
                while let Some((_, end, _)) = next(&text, from, kinds) {
                    from = end;
                }
                let looked_at = LOOKED_AT.get();
                assert!(looked_at <= 128 * text.len(), "{pattern:?} {end:?}: {looked_at} of {}", text.len());
            }
        }
    }
}
