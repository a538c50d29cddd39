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
/// How much of what is before a place decides what may begin there, in bytes: `_`, and an escape as `\u12ab` before it.
pub(crate) const BEFORE: usize = 7;

/// The next match in `text` from `from` on: where it begins and ends, and what it is. A JSON Web Token is looked at for
/// `longest` bytes.
pub(crate) fn next(text: &str, from: usize, kinds: Kinds, longest: usize) -> Option<(usize, usize, Kind)> {
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
            match jwt(rest, longest) {
                Ok(length) => return Some((at, at + length, Kind::Secret)),
                Err(length) => no_jwt = at + length,
            }
        }
        if kinds.has(Kind::Email) && at >= no_email && byte.is_ascii_alphanumeric() {
            let run = rest.iter().take_while(|b| is_local(**b)).count();
            looked_at(run);
            no_email = at + run;
            if rest.get(run) == Some(&b'@')
                && let Some(length) = domain(rest.get(run + 1..).unwrap_or_default())
                && !is_repository(rest, run, length)
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
        let back = |by: usize| at.checked_sub(by).and_then(|at| bytes.get(at));
        let inside = matches!(back(1), Some(b'.' | b'-')) && back(2).is_some_and(u8::is_ascii_digit);
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
    let blank = |b: &u8| b.is_ascii_whitespace();
    // Nothing that is found has other characters than those of ASCII.
    let of_token = |b: &u8| b.is_ascii() && !blank(b);
    let back = |mut at: usize, over: &dyn Fn(&u8) -> bool| {
        while at > 0 && bytes.get(at - 1).is_some_and(over) {
            at -= 1;
        }
        at
    };
    // The last token, whatever it is.
    let mut hold = back(bytes.len(), &of_token);
    // Groups of digits before it, and the groups of letters that an IBAN may have.
    loop {
        let end = back(hold, &blank);
        let start = back(end, &of_token);
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

fn is_start(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'(' | b'-')
}

/// Whether something may begin at a place: not within a word, nor with the letter of an escape such as `\n`, whatever this is
/// the text of; behind the escape it may. A `_` is a part of a word where a letter or a digit is on its other side.
fn may_begin(bytes: &[u8], at: usize) -> bool {
    match at.checked_sub(1).and_then(|before| Some((before, bytes.get(before)?))) {
        None => true,
        Some((_, b'\\')) => !bytes.get(at).is_some_and(|b| is_escape(b) || (*b == b'u' && hex(bytes, at + 1))),
        Some((before, b'_')) => !behind_word(bytes, before),
        Some(_) => !behind_word(bytes, at),
    }
}

/// Whether a letter or a digit is before a place that is not an escape's.
fn behind_word(bytes: &[u8], at: usize) -> bool {
    let back = |by: usize| at.checked_sub(by).and_then(|at| bytes.get(at));
    back(1).is_some_and(|b| {
        let escape = (back(2) == Some(&b'\\') && is_escape(b))
            || (back(6) == Some(&b'\\') && back(5) == Some(&b'u') && hex(bytes, at - 4));
        b.is_ascii_alphanumeric() && !escape
    })
}

/// Whether this is the letter of an escape such as `\n`.
fn is_escape(byte: &u8) -> bool {
    matches!(byte, b'b' | b'f' | b'n' | b'r' | b't')
}

fn hex(bytes: &[u8], from: usize) -> bool {
    let digits = bytes.get(from..).and_then(|rest| rest.get(..4));
    digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-')
}

/// The length of the domain that `rest` begins with: labels of letters, digits and hyphens, at least two, the last one of
/// letters, or `xn--…`. What is behind such a one, as `-style`, is none of it.
fn domain(rest: &[u8]) -> Option<usize> {
    let run = rest.iter().take(254).take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')).count();
    let run = rest.get(..run)?;
    let is_last = |label: &[u8]| {
        let encoded = label.len() > 4 && label.starts_with(b"xn--") && !label.ends_with(b"-");
        (2..=63).contains(&label.len()) && (encoded || label.iter().all(u8::is_ascii_alphabetic))
    };
    let (mut length, mut begin) = (None, 0);
    for end in 0..=run.len() {
        let byte = run.get(end);
        if byte.is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        let label = run.get(begin..end)?;
        if begin > 0 && is_last(label) {
            length = Some(end);
        }
        if byte == Some(&b'.') {
            if label.is_empty() || label.len() > 63 {
                break;
            }
            begin = end + 1;
        }
    }
    length
}

/// Whether what looks like an address is a repository's, as in `git@example.com:ada/engine.git`.
fn is_repository(rest: &[u8], local: usize, domain: usize) -> bool {
    rest.get(..local) == Some(b"git") && matches!(rest.get(local + 1 + domain), Some(b':' | b'/'))
}

/// Most digits that are read of one number.
const MOST_DIGITS: usize = 20;

/// Digits with at most one separator between two of them, or two of which one is a bracket.
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
    let bracket = |at: usize| matches!(rest.get(at), Some(b'(' | b')'));
    while let Some(byte) = rest.get(at) {
        if byte.is_ascii_digit()
            && let (Some(digit), Some(ends_at)) = (digits.get_mut(count), ends_at.get_mut(count))
        {
            end = at + 1;
            (*digit, *ends_at) = (byte - b'0', end);
            count += 1;
        } else if !(at > 0
            && separators.contains(byte)
            && (at == end || at == end + 1 && (bracket(at) || bracket(end))))
        {
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

/// Whether no word goes on at this place.
fn ends(rest: &[u8], end: usize) -> bool {
    let word = |at: usize| rest.get(at).is_some_and(u8::is_ascii_alphanumeric);
    !word(if rest.get(end) == Some(&b'_') { end + 1 } else { end })
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
    let (address, end) = quad(rest)?;
    (!address.is_unspecified() && !address.is_loopback()).then_some(end)
}

/// The four numbers of an IPv4 address that `rest` begins with, and their length. Behind them a sentence may end.
fn quad(rest: &[u8]) -> Option<(std::net::Ipv4Addr, usize)> {
    let run = rest.iter().take(17).take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    let end = rest.get(..run)?.iter().rposition(u8::is_ascii_digit)? + 1;
    let text = std::str::from_utf8(rest.get(..end)?).ok()?;
    let address = text.parse().ok()?;
    ends(rest, run).then_some((address, end))
}

/// Whether `rest` begins with a date, as `2026-12-31`.
fn is_date(rest: &[u8]) -> bool {
    let part = |from: usize| Some((rest.get(from)? & 15) * 10 + (rest.get(from + 1)? & 15));
    shape(rest, "dddd-dd-dd").is_some()
        && part(5).is_some_and(|month| (1..=12).contains(&month))
        && part(8).is_some_and(|day| (1..=31).contains(&day))
        && !rest.get(10).is_some_and(u8::is_ascii_digit)
}

/// The length of `pattern`, where `rest` begins with it: `d` is a digit, `N` one from 2 on, all else itself.
fn shape(rest: &[u8], pattern: &str) -> Option<usize> {
    let is = |want: u8, b: &u8| match want {
        b'd' => b.is_ascii_digit(),
        b'N' => matches!(b, b'2'..=b'9'),
        want => want == *b,
    };
    let good = rest.len() >= pattern.len() && pattern.bytes().zip(rest).all(|(want, b)| is(want, b));
    good.then_some(pattern.len())
}

/// International numbers, and North American ones in their usual groups.
fn phone(rest: &[u8]) -> Option<usize> {
    if rest.first() == Some(&b'+') {
        let rest = rest.get(1..)?;
        // An added line that begins with a date or an address.
        if is_date(rest) || quad(rest).is_some() {
            return None;
        }
        let bounds = |end: &usize| with_brackets(rest, *end);
        let good =
            |number: &Digits| (8..=15).contains(&number.digits.len()) && number.ends.last().and_then(bounds).is_some();
        let end = number(rest, b" -.()", good)?;
        return Some(bounds(&end)? + 1);
    }
    let area = |rest: &[u8]| {
        let shapes = ["Ndd-ddd-dddd", "Ndd.ddd.dddd", "(Ndd) ddd-dddd", "(Ndd)ddd-dddd"];
        shapes.iter().find_map(|pattern| shape(rest, pattern))
    };
    // With blanks only it may be a list of numbers, too.
    let blanks = |rest: &[u8]| {
        let length = shape(rest, "Ndd Ndd dddd")?;
        shape(rest.get(length..)?, " d").is_none().then_some(length)
    };
    let length = match rest {
        [b'1', b'-' | b'.' | b' ', behind @ ..] => area(behind).or_else(|| blanks(behind)).map(|length| length + 2),
        _ => area(rest),
    };
    length.filter(|length| ends(rest, *length))
}

/// Where a number ends whose last digit ends at `end`: behind its last bracket. `None` where what is in brackets is not all
/// of it, nor behind the country's code.
fn with_brackets(rest: &[u8], end: usize) -> Option<usize> {
    let (mut open, mut digits) = (0_usize, 0);
    for byte in rest.get(..end)? {
        match byte {
            b'(' => open += 1,
            b')' if open > 0 => open -= 1,
            b')' if digits > 3 => return None,
            b')' => {}
            byte => digits += u32::from(byte.is_ascii_digit()),
        }
    }
    match (open, rest.get(end)) {
        (0, _) => Some(end),
        (1, Some(b')')) => Some(end + 1),
        _ => None,
    }
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
const BEGIN: &str = "-----BEGIN";
/// Where such a key ends.
const END: &[u8] = b"-----END";
/// The most bytes of its end: `-----END`, what ends, and five hyphens.
const LONGEST_END: usize = 64;
/// The most bytes between two of its lines.
const LONGEST_GAP: usize = 96;
/// So many bytes of base64 are a line of a key wherever they stand, and at the beginning of a line fewer. Words are shorter.
const LINE: usize = 48;
const BEGUN_LINE: usize = 20;
/// Lines before its base64, and the most bytes of one.
const HEADERS: [&[u8]; 6] = [b"Proc-Type:", b"DEK-Info:", b"Version:", b"Comment:", b"Charset:", b"MessageID:"];
const LONGEST_HEADER: usize = 128;

/// Whether `rest` begins with the head of a private key: the head's length.
pub(crate) fn key_head(rest: &[u8]) -> Option<usize> {
    let label = rest.strip_prefix(BEGIN.as_bytes())?;
    let length = label.iter().take(48).take_while(|b| b.is_ascii_uppercase() || **b == b' ').count();
    let (label, rest) = label.split_at_checked(length)?;
    let private = label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK");
    (private && rest.starts_with(b"-----")).then_some(BEGIN.len() + length + 5)
}

/// How far a private key goes in `rest`, which is what is behind its head, or behind what this has given of it before; and
/// whether it ends there. Else more text decides; with `ended` there is none.
///
/// A key without its end goes as far as there can be lines of base64. Between them there may be what code and letters
/// have there, as escapes, quotes, `+` and `>`.
pub(crate) fn key_body(rest: &[u8], ended: bool) -> (usize, bool) {
    let mut at = 0;
    loop {
        at += base64(rest, at, usize::MAX);
        match key_line(rest, at, ended) {
            Some(Line::At(next)) => at = next,
            Some(Line::End(end)) => return (end, true),
            Some(Line::None) => return (at, true),
            None => return (at, ended),
        }
    }
}

/// What is behind a line of a key.
enum Line {
    /// The next line, or what is behind one that is a header.
    At(usize),
    /// The key's end, which goes to here.
    End(usize),
    /// Something else.
    None,
}

/// The length of the base64 at a place, as far as it is looked at.
fn base64(rest: &[u8], at: usize, most: usize) -> usize {
    let rest = rest.get(at..).unwrap_or_default().iter().take(most);
    rest.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=')).count()
}

/// What is behind the line of a key that ends `at` this place; `None` where more text decides.
fn key_line(rest: &[u8], at: usize, ended: bool) -> Option<Line> {
    let (next, begun) = match key_gap(rest, at, ended)? {
        Gap::Text { at, begins_line } => (at, begins_line),
        Gap::End(end) => return Some(Line::End(end)),
        Gap::None => return Some(Line::None),
    };
    let line = rest.get(next..)?;
    for name in HEADERS.iter().filter(|_| begun) {
        if !ended && name.starts_with(line) {
            return None;
        }
        if line.starts_with(name) {
            let length = line.iter().take(LONGEST_HEADER).position(|b| matches!(b, b'\n' | b'\r' | b'\\'));
            match length {
                Some(length) => return Some(Line::At(next + length)),
                None if line.len() < LONGEST_HEADER && ended => return Some(Line::At(rest.len())),
                None if line.len() < LONGEST_HEADER => return None,
                None => {}
            }
        }
    }
    let length = base64(line, 0, LINE);
    if length == LINE || (begun && length >= BEGUN_LINE) {
        return Some(Line::At(next));
    }
    // A short one may be a word. It is the key's last line where the end is behind it, or where it is all of its line.
    match line.get(length) {
        None if !ended => None,
        None | Some(b'\n' | b'\r' | b'\\' | b'"' | b'\'' | b'`') if begun => Some(Line::At(next)),
        _ => match key_gap(rest, next + length, ended)? {
            Gap::End(_) => Some(Line::At(next)),
            Gap::Text { .. } | Gap::None => Some(Line::None),
        },
    }
}

/// What is between two lines of a key, and what is behind that.
enum Gap {
    /// Text. `begins_line`: between there are but line breaks, at least one, and blanks.
    Text { at: usize, begins_line: bool },
    /// The key's end, which goes to here.
    End(usize),
    /// No gap of a key.
    None,
}

/// The gap at a place; `None` where more text decides.
fn key_gap(rest: &[u8], from: usize, ended: bool) -> Option<Gap> {
    let (mut at, mut breaks, mut blank) = (from, false, true);
    while at - from <= LONGEST_GAP {
        let here = rest.get(at..)?;
        match here.first()? {
            b'\n' | b'\r' => breaks = true,
            b if b.is_ascii_whitespace() => {}
            b'\\' => {
                at += here.iter().take(LONGEST_GAP).take_while(|b| **b == b'\\').count();
                match rest.get(at)? {
                    b'n' | b'r' => breaks = true,
                    b't' => {}
                    _ => {
                        blank = false;
                        continue;
                    }
                }
            }
            b'-' if END.starts_with(here) => return None,
            b'-' if here.starts_with(END) => {
                let tail = here.get(END.len()..LONGEST_END.min(here.len())).unwrap_or_default();
                if let Some(close) = tail.windows(5).position(|five| five == b"-----") {
                    return Some(Gap::End(at + END.len() + close + 5));
                }
                if here.len() < LONGEST_END && !ended {
                    return None;
                }
                blank = false;
            }
            b if b.is_ascii_alphanumeric() || (blank && matches!(b, b'+' | b'/' | b'=')) => {
                return Some(Gap::Text { at, begins_line: breaks && blank });
            }
            b if b.is_ascii() => blank = false,
            _ => return Some(Gap::None),
        }
        at += 1;
    }
    Some(Gap::None)
}

/// What is behind the beginning of a token.
#[derive(Clone, Copy)]
enum Body {
    /// Letters, digits, `-` and `_`.
    Any,
    /// The same, with a digit or a capital letter among them: else it may be words, as in `sk-folding-cube`.
    Mixed,
    /// Letters and digits.
    Plain,
}

/// Tokens that say what they are by their beginnings, and the least bytes behind those.
const TOKENS: [(&[u8], Body, usize); 19] = [
    (b"sk-", Body::Mixed, 20),
    (b"sk_live_", Body::Any, 16),
    (b"sk_test_", Body::Plain, 16),
    (b"rk_live_", Body::Any, 16),
    (b"AKIA", Body::Any, 16),
    (b"ASIA", Body::Any, 16),
    (b"ghp_", Body::Any, 20),
    (b"gho_", Body::Any, 20),
    (b"ghs_", Body::Any, 20),
    (b"ghu_", Body::Any, 20),
    (b"ghr_", Body::Any, 20),
    (b"github_pat_", Body::Any, 20),
    (b"glpat-", Body::Any, 20),
    (b"hf_", Body::Plain, 30),
    (b"npm_", Body::Plain, 30),
    (b"xoxb-", Body::Any, 10),
    (b"xoxp-", Body::Any, 10),
    (b"xapp-", Body::Mixed, 10),
    (b"AIza", Body::Any, 35),
];

/// Where no digit is among so many bytes of a token, they are words.
const WORDS: usize = 64;

impl Body {
    /// The length of the body that `rest` begins with.
    fn of(self, rest: &[u8], least: usize) -> Option<usize> {
        let dashes = !matches!(self, Body::Plain);
        let body = || rest.iter().take_while(|b| b.is_ascii_alphanumeric() || (dashes && matches!(b, b'_' | b'-')));
        let mixed = |b: &u8| b.is_ascii_digit() || b.is_ascii_uppercase();
        if matches!(self, Body::Mixed) && !body().take(WORDS).any(mixed) {
            looked_at(WORDS);
            return None;
        }
        let length = body().count();
        looked_at(length);
        (length >= least).then_some(length)
    }
}

/// A JSON Web Token: three parts in base64url, looked at for `longest` bytes. Without one, how far no other one begins
/// either.
fn jwt(rest: &[u8], longest: usize) -> Result<usize, usize> {
    let mut dots = 0_u32;
    let end = rest.iter().take(longest).take_while(|b| {
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
            let (length, _) = key_body(rest.get(head..)?, true);
            looked_at(length);
            Some(head + length)
        }
        _ => TOKENS.iter().find_map(|(prefix, body, least)| {
            let length = body.of(rest.strip_prefix(*prefix)?, *least)?;
            Some(prefix.len() + length)
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
        while let Some((start, end, kind)) = next(text, from, Kinds::of(&Kind::ALL), usize::MAX) {
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
            ("call +49 (0)30 901820.", "+49 (0)30 901820", Kind::Phone),
            ("call +44 (0)20 7946 0958 now", "+44 (0)20 7946 0958", Kind::Phone),
            ("call +49 (30) 901820", "+49 (30) 901820", Kind::Phone),
            ("call +1 (212)-555-0187", "+1 (212)-555-0187", Kind::Phone),
            ("(+49) 30 901820", "+49) 30 901820", Kind::Phone),
            ("call +49 30 (901820).", "+49 30 (901820)", Kind::Phone),
            ("(call +49 30 901820) 12 times", "+49 30 901820", Kind::Phone),
            ("call +49 30 901820 (2 of us)", "+49 30 901820", Kind::Phone),
            ("call 1-212-555-0187", "1-212-555-0187", Kind::Phone),
            ("call 1 212 555 0187.", "1 212 555 0187", Kind::Phone),
            ("call 1 (212) 555-0187", "1 (212) 555-0187", Kind::Phone),
            ("Tel.212-555-0187", "212-555-0187", Kind::Phone),
            ("Visa-4111-1111-1111-1111", "4111-1111-1111-1111", Kind::CreditCard),
            ("SSN-123-45-6789", "123-45-6789", Kind::UsSsn),
            ("_ada@example.com_", "ada@example.com", Kind::Email),
            ("__ada.lovelace@example.com__", "ada.lovelace@example.com", Kind::Email),
            ("is\\n_ada@example.com_", "ada@example.com", Kind::Email),
            ("_+49 30 901820_", "+49 30 901820", Kind::Phone),
            ("_4111 1111 1111 1111_", "4111 1111 1111 1111", Kind::CreditCard),
            ("_203.0.113.9_", "203.0.113.9", Kind::IpAddress),
            ("My server is 203.0.113.9.", "203.0.113.9", Kind::IpAddress),
            ("It was 255.255.255.255...", "255.255.255.255", Kind::IpAddress),
            ("+192.168.100.200 db", "192.168.100.200", Kind::IpAddress),
            ("an ada@example.com-style address", "ada@example.com", Kind::Email),
            ("ada@example.com.1", "ada@example.com", Kind::Email),
            ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example", Kind::Email),
            ("ada@example.xn--p1ai.", "ada@example.xn--p1ai", Kind::Email),
            ("ada@my-host.example.com", "ada@my-host.example.com", Kind::Email),
            ("hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", Kind::Secret),
            ("npm_0123456789abcdefghij0123456789abcdef", "npm_0123456789abcdefghij0123456789abcdef", Kind::Secret),
            ("ghu_0123456789abcdefghij", "ghu_0123456789abcdefghij", Kind::Secret),
            ("ghr_0123456789abcdefghij", "ghr_0123456789abcdefghij", Kind::Secret),
            ("sk_test_0123456789abcdef", "sk_test_0123456789abcdef", Kind::Secret),
            ("xapp-1-A0123456789-0123", "xapp-1-A0123456789-0123", Kind::Secret),
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
            "+2024-10-11 12:13",
            "+127.100.100.100",
            "1 212 555 0187 33",
            "1 212 055 0187",
            "git@github.com:acme/x.git",
            "ssh://git@github.com/acme/x.git",
            "class=\"sk-folding-cube-container\"",
            "xapp-frame-configuration",
            "npm_package_dependencies_react_dom_18",
            "hf_model_loader_with_20_retries_or_more",
            "card_4111111111111111",
            "4111111111111111_a",
            "0.4111111111111111",
            "203.0.113.9.example",
        ] {
            assert_eq!(all(text), [], "{text}");
        }
    }

    #[test]
    fn a_private_key_is_a_secret_to_its_end_or_as_far_as_it_can_be_one() {
        let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
        let pgp = format!(
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2 (GNU/Linux)\n\n{line}\n=aB3/\n-----END PGP PRIVATE KEY BLOCK-----"
        );
        let code = format!(
            "-----BEGIN PRIVATE KEY-----\\n\" +\n    \"{line}\\n\" +\n    \"Pz4=\\n\" +\n    \"-----END PRIVATE KEY-----"
        );
        for key in [
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE...\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAtest...Pz4=\n-----END RSA PRIVATE KEY-----",
            &format!("-----BEGIN PRIVATE KEY----- {line} Pz4= -----END PRIVATE KEY-----"),
            &format!("-----BEGIN PRIVATE KEY-----\r\n> {line}\r\n> Pz4=\r\n> -----END PRIVATE KEY-----"),
            "-----BEGIN RSA PRIVATE KEY-----\\nProc-Type: 4,ENCRYPTED\\nDEK-Info: AES-128-CBC,00\\n\\nMII=\\n-----END RSA PRIVATE KEY-----",
            &pgp,
            &code,
        ] {
            for behind in [" b", "`, so", "é"] {
                assert_eq!(all(&format!("a {key}{behind}")), [(key, Kind::Secret)]);
            }
        }
        let cut = format!("-----BEGIN PRIVATE KEY-----\n{line}\nMIIE");
        for behind in ["", "\"", "`, so"] {
            assert_eq!(all(&format!("{cut}{behind}")), [(cut.as_str(), Kind::Secret)]);
        }
        for behind in
            ["`, PKCS#1 with", " and more", " begins it.", "\n\nThen convert it.", "\n```\nThen", "\né", "\n-----EN"]
        {
            let head = "-----BEGIN PRIVATE KEY-----";
            assert_eq!(all(&format!("`{head}{behind}")), [(head, Kind::Secret)], "{behind}");
        }
    }

    #[test]
    fn a_private_key_goes_as_far_wherever_it_is_cut() {
        let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
        for key in [
            format!(
                "\nVersion: 1 (é)\nComment: x\n\n{line}{line}\n=aB3/\n-----END PGP PRIVATE KEY BLOCK----- and more"
            ),
            format!("\\n\" +\n \"{line}\\n\" + \"Pz4=\\n\" + \"-----END PRIVATE KEY-----\""),
            format!("\n{line}\nand so on"),
            format!("\n{line}\nMIIE"),
            "`, and that is all".to_owned(),
            format!("\n-----END{}-----\nMI", "x".repeat(60)),
        ] {
            let (whole, _) = key_body(key.as_bytes(), true);
            for first in 0..key.len() {
                let (mut at, mut has_ended) = (0, false);
                for to in [first, key.len()] {
                    assert!(!has_ended || at == whole, "{key} {first}");
                    if !has_ended {
                        let (length, end) = key_body(key.as_bytes()[at..to].as_ref(), to == key.len());
                        (at, has_ended) = (at + length, end);
                    }
                }
                assert_eq!(at, whole, "{key} {first}");
            }
        }
    }

    #[test]
    fn a_web_token_is_found_as_far_as_it_is_looked_at() {
        let token = format!("eyJhbGciOi.{}.SflKxwRJSMeK", "x".repeat(2 * LONGEST));
        assert_eq!(all(&format!("a {token} b")), [(token.as_str(), Kind::Secret)]);
        assert_eq!(next(&token, 0, Kinds::of(&Kind::ALL), LONGEST), None);
    }

    #[test]
    fn what_is_settled_ends_with_a_character_that_nothing_found_has() {
        for (text, held) in
            [("猎鹰计划", ""), ("猎鹰ada@ex", "ada@ex"), ("号码4111 1111 ", "4111 1111 "), ("ok 计划 +49 3", "+49 3")]
        {
            assert_eq!(&text[settled(text)..], held, "{text}");
        }
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
        for pattern in [
            "a.",
            "1 ",
            "+",
            "a@",
            "a@b-",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----\n> ",
            keys,
            "eyJ.",
            "eyJ-",
            "eyJabcde.eyJ-",
            "DE89 ",
            "4111 ",
            "\\n",
            "sk-",
            "xapp-",
            "hf_",
            "_",
            "+1(",
        ] {
            for end in ["", "@", "@example.com", "@example", ".aa.", ".aaaaaaaa."] {
                let text = pattern.repeat((1 << 14) / pattern.len()) + end;
                LOOKED_AT.set(0);
                let (mut from, kinds) = (0, Kinds::of(&Kind::ALL));
                while let Some((_, end, _)) = next(&text, from, kinds, usize::MAX) {
                    from = end;
                }
                let looked_at = LOOKED_AT.get();
                assert!(looked_at <= 128 * text.len(), "{pattern:?} {end:?}: {looked_at} of {}", text.len());
            }
        }
    }
}
