//! What an answer cost, summed.

use witgate_model::Usage;

/// Both together.
pub(crate) fn add(one: Option<Usage>, other: Option<Usage>) -> Option<Usage> {
    let (one, other) = match (one, other) {
        (Some(one), Some(other)) => (one, other),
        (one, other) => return one.or(other),
    };
    let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    };
    Some(Usage {
        input_tokens: sum(one.input_tokens, other.input_tokens),
        output_tokens: sum(one.output_tokens, other.output_tokens),
        cache_read_tokens: sum(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens: sum(one.cache_write_tokens, other.cache_write_tokens),
        reasoning_tokens: sum(one.reasoning_tokens, other.reasoning_tokens),
        estimated: one.estimated || other.estimated,
        raw: None,
    })
}

/// Later counts replace earlier ones, field by field.
pub(crate) fn merge(old: &mut Option<Usage>, new: &Usage) {
    let old = old.get_or_insert_with(Usage::default);
    old.input_tokens = new.input_tokens.or(old.input_tokens);
    old.output_tokens = new.output_tokens.or(old.output_tokens);
    old.cache_read_tokens = new.cache_read_tokens.or(old.cache_read_tokens);
    old.cache_write_tokens = new.cache_write_tokens.or(old.cache_write_tokens);
    old.reasoning_tokens = new.reasoning_tokens.or(old.reasoning_tokens);
    old.estimated = new.estimated;
}
