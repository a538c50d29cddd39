//! What an answer cost, in OpenAI's shape.

use witgate_model::Usage;

use crate::members::{DEPTH, Waiting};
use crate::read::{Kind, Reader};
use crate::write;

/// Takes over the fields that `later` has.
pub(crate) fn merge(usage: &mut Usage, later: Usage) {
    usage.input_tokens = later.input_tokens.or(usage.input_tokens);
    usage.output_tokens = later.output_tokens.or(usage.output_tokens);
    usage.cache_read_tokens = later.cache_read_tokens.or(usage.cache_read_tokens);
    usage.cache_write_tokens = later.cache_write_tokens.or(usage.cache_write_tokens);
    usage.reasoning_tokens = later.reasoning_tokens.or(usage.reasoning_tokens);
    usage.estimated = later.estimated;
    usage.raw = later.raw.or_else(|| usage.raw.take());
}

/// Members of the backend's own usage object that ours does not have. Only OpenAI's own is looked at: in others the
/// names would mean something else.
#[derive(Default)]
struct Unknown {
    top: Waiting,
    prompt: Waiting,
    completion: Waiting,
}

fn unknown(usage: &Usage) -> Unknown {
    let mut unknown = Unknown::default();
    let mut openai = false;
    let Some(raw) = usage.raw.as_ref().filter(|raw| raw.dialect.starts_with("openai-")) else { return unknown };
    let mut reader = Reader::new(&raw.value, DEPTH);
    let result = reader.object(|reader, name| {
        let kind = reader.kind();
        let value = reader.raw()?;
        match &*name.text {
            "prompt_tokens" => openai = true,
            "completion_tokens" | "total_tokens" => {}
            "prompt_tokens_details" if kind == Kind::Object => {
                let mut ours = Vec::new();
                ours.extend(usage.cache_read_tokens.map(|_| "cached_tokens"));
                ours.extend(usage.cache_write_tokens.map(|_| "cache_write_tokens"));
                unknown.prompt.add(value, &ours);
            }
            "completion_tokens_details" if kind == Kind::Object => {
                let ours = usage.reasoning_tokens.map(|_| "reasoning_tokens");
                unknown.completion.add(value, ours.as_slice());
            }
            "prompt_tokens_details" | "completion_tokens_details" => {}
            "estimated" if usage.estimated => {}
            text => unknown.top.push(text, value),
        }
        Ok(())
    });
    if result.is_ok() && openai { unknown } else { Unknown::default() }
}

/// Writes the usage object of an answer without generated tokens.
pub(crate) fn write_input(out: &mut Vec<u8>, usage: &Usage) {
    let Unknown { mut top, prompt, .. } = unknown(usage);
    let input = usage.input_tokens.unwrap_or_default();
    out.extend_from_slice(b"{\"prompt_tokens\":");
    write::number(out, input);
    out.extend_from_slice(b",\"total_tokens\":");
    write::number(out, input.saturating_add(usage.output_tokens.unwrap_or_default()));
    details(out, "prompt_tokens_details", &[("cached_tokens", usage.cache_read_tokens)], prompt);
    if usage.estimated {
        out.extend_from_slice(b",\"estimated\":true");
    }
    top.write(out, false);
    out.push(b'}');
}

/// Writes the usage object.
pub(crate) fn write(out: &mut Vec<u8>, usage: &Usage) {
    let Unknown { mut top, prompt, completion } = unknown(usage);
    let (input, output) = (usage.input_tokens.unwrap_or_default(), usage.output_tokens.unwrap_or_default());
    out.extend_from_slice(b"{\"prompt_tokens\":");
    write::number(out, input);
    out.extend_from_slice(b",\"completion_tokens\":");
    write::number(out, output);
    out.extend_from_slice(b",\"total_tokens\":");
    write::number(out, input.saturating_add(output));
    let cached = [("cached_tokens", usage.cache_read_tokens), ("cache_write_tokens", usage.cache_write_tokens)];
    details(out, "prompt_tokens_details", &cached, prompt);
    details(out, "completion_tokens_details", &[("reasoning_tokens", usage.reasoning_tokens)], completion);
    if usage.estimated {
        out.extend_from_slice(b",\"estimated\":true");
    }
    top.write(out, false);
    out.push(b'}');
}

/// One object of details, if there are any.
fn details(out: &mut Vec<u8>, name: &str, known: &[(&str, Option<u64>)], mut unknown: Waiting) {
    if unknown.is_empty() && known.iter().all(|(_, count)| count.is_none()) {
        return;
    }
    out.push(b',');
    write::string(out, name);
    out.extend_from_slice(b":{");
    let mut first = true;
    for (name, count) in known {
        if let Some(count) = count {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            write::string(out, name);
            out.push(b':');
            write::number(out, *count);
        }
    }
    unknown.write(out, first);
    out.push(b'}');
}
