//! The log: one line for each request, and what an operator should know beside. Never content, never a secret.

use std::io::Write;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use witgate_gateway::{Record, Warning};

/// Milliseconds with three places.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

fn dollars(nano: u64) -> f64 {
    nano as f64 / 1e9
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
        job = record.job.as_deref(),
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
        key = record.key.as_deref(),
        tenant = record.tenant.as_deref(),
        cost_usd = record.cost.map(dollars),
        cached = record.cached.then_some(true),
        hedged = record.hedged,
        error_type = record.error_type.as_deref(),
        cause = record.cause.as_deref(),
        unmapped = (!record.unmapped.is_empty()).then(|| record.unmapped.join("; ")),
        tags = tags(record),
    );
}

/// The same line as [`request`] makes of it under `tracing_subscriber`'s JSON format, in a tenth of the time.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: &'a str,
    level: &'static str,
    method: &'a str,
    path: &'a str,
    status: u16,
    outcome: &'static str,
    latency_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token_ms: Option<f64>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialect: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    attempts: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_read_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_write_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_tokens: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hedged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unmapped: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<String>,
    target: &'static str,
}

/// The tags of policies as one text.
fn tags(record: &Record) -> Option<String> {
    let tags = record.tags.iter().map(|(name, value)| format!("{name}={value}"));
    (!record.tags.is_empty()).then(|| tags.collect::<Vec<_>>().join("; "))
}

/// Writes the line of one request to stderr as JSON, past `tracing`: of the processor time of a small request,
/// `tracing_subscriber` would take a tenth.
pub fn write_json(record: &Record) {
    let mut line = Vec::with_capacity(512);
    if json(record, SystemTime::now(), &mut line).is_ok() {
        line.push(b'\n');
        // A log that cannot be written is no reason to fail.
        let _ = std::io::stderr().write_all(&line);
    }
}

fn json(record: &Record, at: SystemTime, line: &mut Vec<u8>) -> serde_json::Result<()> {
    let usage = record.usage.as_ref();
    let timestamp = timestamp(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    serde_json::to_writer(
        line,
        &Line {
            timestamp: &timestamp,
            level: "INFO",
            method: &record.method,
            path: &record.path,
            status: record.status,
            outcome: record.outcome.as_str(),
            latency_ms: millis(record.latency),
            first_token_ms: record.first_token.map(millis),
            request_id: &record.request_id,
            job: record.job.as_deref(),
            trace_id: record.trace_id.as_deref(),
            dialect: record.dialect.as_deref(),
            model: record.request_model.as_deref(),
            response_model: record.response_model.as_deref(),
            provider: record.provider.as_deref(),
            attempts: record.attempts,
            stream: record.stream,
            input_tokens: usage.and_then(|usage| usage.input_tokens),
            output_tokens: usage.and_then(|usage| usage.output_tokens),
            cache_read_tokens: usage.and_then(|usage| usage.cache_read_tokens),
            cache_write_tokens: usage.and_then(|usage| usage.cache_write_tokens),
            reasoning_tokens: usage.and_then(|usage| usage.reasoning_tokens),
            key: record.key.as_deref(),
            tenant: record.tenant.as_deref(),
            cost_usd: record.cost.map(dollars),
            cached: record.cached,
            hedged: record.hedged,
            error_type: record.error_type.as_deref(),
            cause: record.cause.as_deref(),
            unmapped: (!record.unmapped.is_empty()).then(|| record.unmapped.join("; ")),
            tags: tags(record),
            target: "witgate::request",
        },
    )
}

/// RFC 3339 in UTC, with microseconds.
fn timestamp(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that a leap day is the last of its year; eras of 400 years repeat.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since_1970.subsec_micros())
}

/// Something that happened on the way.
pub(crate) fn warning(warning: &Warning<'_>) {
    match warning {
        Warning::Fallback { request_id, from, to, reason, attempt } => {
            tracing::warn!(target: "witgate::fallback", request_id, from, to, reason, attempt, "a target failed; trying the next");
        }
        Warning::Alarm { name, metric, on, value, above } => {
            let message = if *on { "alarm" } else { "alarm over" };
            tracing::warn!(target: "witgate::alarm", alarm = name, metric, value, above, "{message}");
        }
        Warning::Fault { request_id, fault } => {
            tracing::error!(target: "witgate::fault", request_id, component = fault.component, "{fault}");
        }
        Warning::State { why } => tracing::error!(target: "witgate::state", "{why}"),
        Warning::Budget { request_id, scope, owner, period, percent, used, limit } => {
            let (used_usd, limit_usd) = (dollars(*used), dollars(*limit));
            tracing::warn!(
                target: "witgate::budget", request_id, scope, owner, period, percent, used_usd, limit_usd,
                "a budget has reached {percent} % of its limit"
            );
        }
        Warning::Queue { queue, why } => tracing::warn!(target: "witgate::queue", queue, "{why}"),
        other => tracing::warn!(target: "witgate", "{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_right_around_leap_days_and_ends_of_years() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_735_689_600, "2025-01-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(timestamp(Duration::new(seconds, 12_345_678)), format!("{text}.012345Z"));
        }
    }
}
