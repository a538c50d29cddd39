//! How much a model is to think, in the words of other dialects.

use super::settings::Thinking;

/// Smallest thinking budget that the API takes.
pub(crate) const SMALLEST_BUDGET: u64 = 1024;

/// The thinking budget, in tokens, that an effort stands for.
pub(crate) fn budget(effort: &str) -> Option<u64> {
    Some(match effort {
        "minimal" => SMALLEST_BUDGET,
        "low" => 2048,
        "medium" => 8192,
        "high" => 16_384,
        "xhigh" => 32_768,
        _ => return None,
    })
}

/// True for a budget that the API takes beside this `max_tokens`, of which it is a part.
pub(crate) fn fits(budget: u64, max_tokens: Option<u64>) -> bool {
    budget >= SMALLEST_BUDGET && max_tokens.is_none_or(|most| budget < most)
}

/// What is wrong with a budget that does not fit.
pub(crate) fn complaint(backend: &str, budget: u64, max_tokens: Option<u64>) -> String {
    let most = max_tokens.map_or("max_tokens".to_owned(), |most| format!("max_tokens ({most})"));
    format!(
        "{backend} takes a thinking budget of at least {SMALLEST_BUDGET} tokens and fewer than {most}, not {budget}: \
         raise max_tokens, or ask for no reasoning"
    )
}

/// True where the model decides by itself how much it thinks, and is told an effort.
///
/// The models that know budgets only are a closed set: everything up to Claude 4.5. Names that are not Claude's (profiles,
/// other servers) are told a budget, which is the older way.
pub(crate) fn is_adaptive(setting: Thinking, model: &str) -> bool {
    match setting {
        Thinking::Adaptive => return true,
        Thinking::Budget => return false,
        Thinking::Auto => {}
    }
    version(model).is_some_and(|version| version >= (4, 6))
}

/// The version that a Claude model's name tells; the latest where it tells none. `None` for other names.
pub(super) fn version(model: &str) -> Option<(u8, u8)> {
    let (_, name) = model.split_once("claude")?;
    if name.contains("instant") {
        return Some((1, 0));
    }
    // `-3-7-sonnet-20250219`, `-opus-4-1-20250805`, `-sonnet-4-20250514-v1:0`: a date is no version.
    // Bedrock's own version comes behind: `-v1:0`.
    let name = match name.rsplit_once("-v") {
        Some((name, rest)) if !name.is_empty() && rest.starts_with(|c: char| c.is_ascii_digit()) => name,
        _ => name,
    };
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let number = |word: &str| if word.len() <= 2 { word.parse::<u8>().ok() } else { None };
    let Some(major) = words.find_map(number) else { return Some((u8::MAX, 0)) };
    Some((major, words.next().and_then(number).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_up_to_claude_4_5_know_budgets_and_later_ones_an_effort() {
        for model in [
            "claude-2.1",
            "claude-instant-1.2",
            "claude-3-haiku-20240307",
            "claude-3-7-sonnet-latest",
            "claude-opus-4-20250514",
            "claude-opus-4-0",
            "claude-opus-4-1-20250805",
            "claude-sonnet-4-5",
            "claude-haiku-4-5-20251001",
            "us.anthropic.claude-sonnet-4-20250514-v1:0",
            "anthropic.claude-3-5-sonnet-20241022-v2:0",
            "anthropic.claude-v2:1",
            "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc123",
            "llama-3",
        ] {
            assert!(!is_adaptive(Thinking::Auto, model), "{model}");
            assert!(is_adaptive(Thinking::Adaptive, model), "{model}");
        }
        for model in [
            "claude-opus-4-6",
            "claude-sonnet-4-6",
            "claude-opus-4-7-20260401",
            "claude-opus-5",
            "claude-haiku-5-5",
            "claude-fable-5-2",
            "claude-mythos-preview",
            "eu.anthropic.claude-opus-4-6-v1",
            "anthropic.claude-mythos-preview-v1:0",
        ] {
            assert!(is_adaptive(Thinking::Auto, model), "{model}");
            assert!(!is_adaptive(Thinking::Budget, model), "{model}");
        }
    }
}
