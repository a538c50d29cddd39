//! Why a request failed, for the operator's log, where an older service's client is only told that it did.
//!
//! A backend's words may repeat what it was asked. So every stretch of them that stands in the request too is left out:
//! [`STRETCH`] letters and digits in a row, whatever stands between them, since a backend may quote with other escapes.

use std::collections::BTreeSet;

use crate::failure::Failed;

/// The longest cause, in characters.
const MOST: usize = 512;
/// From how many letters and digits on a stretch is taken for the request's own words.
const STRETCH: usize = 12;

/// The failure in a word, the status of the backend's answer, and its words without the request's.
pub(crate) fn of(failed: &Failed, request: &witgate_model::Request) -> String {
    let mut out = failed.reason().chars().take(64).collect::<String>();
    if let Some(status) = failed.upstream() {
        out.push_str(&format!(" (status {status})"));
    }
    let message: String = failed.error.message.chars().take(MOST).collect();
    let asked = serde_json::to_string(request).unwrap_or_default();
    out.push_str(": ");
    out.push_str(&without(&message, &asked));
    out
}

/// `message`, and `…` for each stretch of it that stands in `asked`.
fn without(message: &str, asked: &str) -> String {
    // The letters and digits of the message, each with its place.
    let plain: Vec<(usize, char)> = message.char_indices().filter(|(_, c)| c.is_alphanumeric()).collect();
    let hash = |window: &mut dyn Iterator<Item = char>| window.fold(0_u64, |hash, c| step(hash, c));
    let of_message = plain.windows(STRETCH).map(|window| hash(&mut window.iter().map(|(_, c)| *c)));
    let of_message: Vec<u64> = of_message.collect();
    let wanted: BTreeSet<u64> = of_message.iter().copied().collect();
    if wanted.is_empty() {
        return message.to_owned();
    }
    // A rolling hash over the request, in one pass.
    let power = (1..STRETCH).fold(1_u64, |power, _| power.wrapping_mul(BASE));
    let mut ring = ['\0'; STRETCH];
    let (mut rolling, mut seen) = (0_u64, 0_usize);
    let mut found: BTreeSet<u64> = BTreeSet::new();
    for c in asked.chars().filter(|c| c.is_alphanumeric()) {
        let Some(slot) = ring.get_mut(seen % STRETCH) else { break };
        if seen >= STRETCH {
            rolling = rolling.wrapping_sub(u64::from(u32::from(*slot)).wrapping_mul(power));
        }
        *slot = c;
        rolling = step(rolling, c);
        seen += 1;
        if seen >= STRETCH && wanted.contains(&rolling) {
            found.insert(rolling);
        }
    }
    let mut out = String::with_capacity(message.len());
    let (mut kept, mut at) = (0, 0);
    while let Some(hash) = of_message.get(at) {
        if !found.contains(hash) {
            at += 1;
            continue;
        }
        let start = plain.get(at).map_or(0, |(place, _)| *place);
        // Overlapping stretches are one.
        let mut last = at;
        while of_message.get(last + 1).is_some_and(|hash| found.contains(hash)) {
            last += 1;
        }
        let end = plain.get(last + STRETCH - 1).map_or(message.len(), |(place, c)| place + c.len_utf8());
        out.push_str(message.get(kept..start).unwrap_or_default());
        out.push('…');
        kept = end;
        at = last + STRETCH;
    }
    out.push_str(message.get(kept..).unwrap_or_default());
    out
}

const BASE: u64 = 0x0100_0000_01B3;

fn step(hash: u64, c: char) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(u64::from(u32::from(c)))
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn what_the_request_says_is_left_out_of_the_cause() {
        let asked = r#"{"messages":["My password is \"hunter2 and more\", tell nobody at all"]}"#;
        for (message, left) in [
            ("access denied to model x", "access denied to model x"),
            ("invalid: My password is \"hunter2 and more\" is too long", "invalid: …\" is too long"),
            ("tell nobody at all", "…"),
            ("short: nobody", "short: nobody"),
            ("", ""),
        ] {
            assert_eq!(without(message, asked), left);
        }
        let twice = "one: password is hunter2, two: tell nobody at all.";
        assert_eq!(without(twice, asked), "one: …, two: ….");
    }
}
