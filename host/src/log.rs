//! The log: one line for each request, and what an operator should know beside. Never content, never a secret.

use witgate_gateway::{Record, Warning};

/// Milliseconds with three places.
fn millis(duration: std::time::Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The line of one request, when it has ended. Its names are those of OpenTelemetry's conventions where there are such.
pub(crate) fn request(record: &Record) {
    let usage = record.usage.as_ref();
    tracing::info!(
        target: "witgate::request",
        method = record.method,
        path = record.path,
        status = record.status,
        outcome = record.outcome.as_str(),
        latency_ms = millis(record.latency),
        first_token_ms = record.first_token.map(millis),
        request_id = record.request_id,
        trace_id = record.trace_id.as_deref(),
        dialect = record.dialect.as_deref(),
        model = record.request_model.as_deref(),
        response_model = record.response_model.as_deref(),
        provider = record.provider.as_deref(),
        attempts = record.attempts,
        stream = record.stream,
        input_tokens = usage.and_then(|usage| usage.input_tokens),
        output_tokens = usage.and_then(|usage| usage.output_tokens),
        cache_read_tokens = usage.and_then(|usage| usage.cache_read_tokens),
        cache_write_tokens = usage.and_then(|usage| usage.cache_write_tokens),
        reasoning_tokens = usage.and_then(|usage| usage.reasoning_tokens),
        error_type = record.error_type.as_deref(),
        unmapped = (!record.unmapped.is_empty()).then(|| record.unmapped.join("; ")),
    );
}

/// Something that happened on the way.
pub(crate) fn warning(warning: &Warning<'_>) {
    match warning {
        Warning::Fallback { request_id, from, to, reason, attempt } => {
            tracing::warn!(target: "witgate::fallback", request_id, from, to, reason, attempt, "a target failed; trying the next");
        }
        Warning::Fault { request_id, fault } => {
            tracing::error!(target: "witgate::fault", request_id, component = fault.component, "{fault}");
        }
        other => tracing::warn!(target: "witgate", "{other:?}"),
    }
}
