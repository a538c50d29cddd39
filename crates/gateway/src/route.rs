//! Which of several gets a request: pure, chance and time as data.

use std::hash::{DefaultHasher, Hash, Hasher};

use witgate_config::{Sticky, Strategy};
use witgate_model::{EmbeddingText, Field, Input, Message, Part, Request, Role};

use crate::http;

/// How much of a prompt's head tells it from others, in bytes.
const HEAD: usize = 4 * 1024;

/// What is known of one that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub weight: u32,
    /// Requests that it serves now.
    pub in_flight: u32,
    /// How long it takes to begin its answer, in microseconds; 0 is not known.
    pub latency: u64,
}

impl Load {
    /// What one more request would wait. One that is not known gets a first request at once, and the next when that has
    /// told.
    fn cost(&self) -> u128 {
        let latency = match (self.latency, self.in_flight) {
            (0, 0) => 0,
            (0, _) => u64::MAX,
            (known, _) => known,
        };
        u128::from(latency) * u128::from(self.in_flight + 1) / u128::from(self.weight.max(1))
    }
}

/// Chooses one of `count`; `load` is none for one that may not be chosen. `cursor` is where the turn is.
pub(crate) fn choose(
    strategy: Strategy,
    sticky: Option<u64>,
    cursor: &mut usize,
    count: usize,
    load: impl Fn(usize) -> Option<Load>,
    random: impl FnOnce() -> u64,
) -> Option<usize> {
    let candidates = || (0..count).filter_map(|at| Some((at, load(at)?)));
    if let Some(key) = sticky {
        // Rendezvous hashing: where one goes or comes, only its own requests move.
        return candidates()
            .map(|(at, load)| (at, share(key, at, load.weight)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(at, _)| at);
    }
    match strategy {
        Strategy::Ordered => candidates().next().map(|(at, _)| at),
        Strategy::Weighted => {
            let all: u64 = candidates().map(|(_, load)| u64::from(load.weight)).sum();
            let mut left = random().checked_rem(all)?;
            candidates().find_map(|(at, load)| {
                let weight = u64::from(load.weight);
                if left < weight {
                    return Some(at);
                }
                left -= weight;
                None
            })
        }
        Strategy::RoundRobin => {
            let at = (0..count).map(|step| (*cursor + step) % count).find(|at| load(*at).is_some())?;
            *cursor = at + 1;
            Some(at)
        }
        Strategy::LeastInFlight => {
            // Those that have as few take turns.
            let first = *cursor;
            let turn = |at: usize| (at + count - first % count.max(1)) % count.max(1);
            let at = candidates()
                .min_by(|(a, one), (b, other)| {
                    let one_share = u64::from(one.in_flight) * u64::from(other.weight);
                    one_share.cmp(&(u64::from(other.in_flight) * u64::from(one.weight))).then(turn(*a).cmp(&turn(*b)))
                })
                .map(|(at, _)| at)?;
            *cursor = at + 1;
            Some(at)
        }
        Strategy::Latency => {
            let many = candidates().count();
            if many < 2 {
                return candidates().next().map(|(at, _)| at);
            }
            let random = random();
            let one = (random as u32) as usize % many;
            let other = (one + 1 + (random >> 32) as usize % (many - 1)) % many;
            let (one, other) = (candidates().nth(one)?, candidates().nth(other)?);
            Some(if other.1.cost() < one.1.cost() { other.0 } else { one.0 })
        }
    }
}

/// The weight of one for a key, by weighted rendezvous hashing.
fn share(key: u64, at: usize, weight: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (key, at).hash(&mut hasher);
    // In (0, 1).
    let uniform = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / uniform.ln()
}

/// What a request has in common with those that belong to it; none where it lacks that.
pub(crate) fn key(sticky: &Sticky, headers: &[Field], request: &Request) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    match sticky {
        Sticky::Header(name) => http::header(headers, name)?.hash(&mut hasher),
        Sticky::Prompt => head(&request.input, &mut hasher)?,
    }
    Some(hasher.finish())
}

/// The head of a prompt: what stands before the first answer, so that it stays the same while a conversation grows.
fn head(input: &Input, hasher: &mut DefaultHasher) -> Option<()> {
    let mut left = HEAD;
    let mut text = |text: &str| {
        let bytes = text.as_bytes();
        let taken = bytes.get(..left).unwrap_or(bytes);
        left -= taken.len();
        taken.hash(hasher);
    };
    match input {
        Input::Chat(messages) | Input::CountTokens(messages) => {
            let before = |message: &&Message| message.role != Role::Assistant;
            for part in messages.iter().take_while(before).flat_map(|message| &message.parts) {
                if let Part::Text(part) = part {
                    text(&part.text);
                }
            }
        }
        Input::Completion(prompt) => text(&prompt.text),
        Input::Embedding(embedding) => match embedding.texts.first() {
            Some(EmbeddingText::Text(first)) => text(first),
            _ => return None,
        },
        _ => return None,
    }
    (left < HEAD).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVEN: Load = Load { weight: 1, in_flight: 0, latency: 0 };

    fn counts(strategy: Strategy, loads: &[Option<Load>]) -> Vec<u32> {
        let mut cursor = 0;
        let mut counts = vec![0; loads.len()];
        for i in 0..1_000_u64 {
            let random = || i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let at = choose(strategy, None, &mut cursor, loads.len(), |at| loads[at], random).unwrap();
            counts[at] += 1;
        }
        counts
    }

    #[test]
    fn ordered_is_the_first_that_may_be_chosen() {
        assert_eq!(counts(Strategy::Ordered, &[None, Some(EVEN), Some(EVEN)]), [0, 1_000, 0]);
    }

    #[test]
    fn round_robin_is_even_and_leaves_out_who_may_not_be_chosen() {
        assert_eq!(counts(Strategy::RoundRobin, &[Some(EVEN), None, Some(EVEN)]), [500, 0, 500]);
    }

    #[test]
    fn weighted_is_in_proportion() {
        let heavy = Load { weight: 3, ..EVEN };
        let found = counts(Strategy::Weighted, &[Some(EVEN), Some(heavy), None]);
        assert!((200..300).contains(&found[0]) && found[0] + found[1] == 1_000, "{found:?}");
    }

    #[test]
    fn least_in_flight_counts_the_weight_and_takes_turns_where_it_is_even() {
        let busy = Load { in_flight: 5, ..EVEN };
        let strong = Load { in_flight: 8, weight: 2, ..EVEN };
        assert_eq!(counts(Strategy::LeastInFlight, &[Some(busy), Some(strong)]), [0, 1_000]);
        assert_eq!(counts(Strategy::LeastInFlight, &[Some(EVEN), Some(EVEN), Some(busy)]), [500, 500, 0]);
    }

    #[test]
    fn latency_never_takes_the_worst_of_all_and_tries_who_is_not_known() {
        let of = |latency| Some(Load { latency, ..EVEN });
        let found = counts(Strategy::Latency, &[of(900), of(100), of(300), None]);
        assert!(found[0] == 0 && found[1] > found[2] && found[2] > 100, "{found:?}");
        assert!(counts(Strategy::Latency, &[of(900), of(0)])[1] == 1_000);
    }

    #[test]
    fn a_key_keeps_its_place_and_moves_only_when_that_is_gone() {
        let place = |key: u64, gone: Option<usize>| {
            choose(Strategy::Ordered, Some(key), &mut 0, 4, |at| (Some(at) != gone).then_some(EVEN), || 0).unwrap()
        };
        let mut counts = [0; 4];
        for key in 0..1_000 {
            let at = place(key, None);
            counts[at] += 1;
            for gone in 0..4 {
                assert!(gone == at || place(key, Some(gone)) == at);
            }
        }
        assert!(counts.iter().all(|count| (180..330).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_head_of_a_conversation_stays_while_it_grows() {
        let mut messages = vec![Message::text(Role::System, "s"), Message::text(Role::User, "u")];
        let of = |messages: &[Message]| key(&Sticky::Prompt, &[], &Request::chat("d", "m", messages.to_vec()));
        let one = of(&messages);
        messages.extend([Message::text(Role::Assistant, "a"), Message::text(Role::User, "v")]);
        assert_eq!(of(&messages), one);
        messages[1] = Message::text(Role::User, "other");
        assert!(one.is_some() && of(&messages) != one);
        assert_eq!(of(&[]), None);
        let header = Sticky::Header("x-session".into());
        let headers = [("x-session".to_owned(), "1".to_owned())];
        let request = Request::chat("d", "m", messages);
        assert!(key(&header, &headers, &request).is_some() && key(&header, &[], &request).is_none());
    }
}
