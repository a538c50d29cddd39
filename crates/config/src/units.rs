//! Durations and sizes, as people write them.

use std::time::Duration;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

pub(crate) const DURATION_HELP: &str = "write \"15s\", \"500ms\", \"2m\", \"1h\" or a number of seconds";
pub(crate) const SIZE_HELP: &str = "write \"10MiB\", \"64KiB\", \"2GB\" or a number of bytes";

/// Milliseconds are the finest step.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1.0,
        "" | "s" => 1_000.0,
        "m" | "min" => 60_000.0,
        "h" => 3_600_000.0,
        _ => return None,
    };
    seconds(number * milliseconds / 1_000.0)
}

/// A number of seconds, rounded to milliseconds; none where it is negative, not finite, or more than a century.
pub(crate) fn seconds(number: f64) -> Option<Duration> {
    let milliseconds = (number * 1_000.0).round();
    (0.0..=4e12).contains(&milliseconds).then(|| Duration::from_millis(milliseconds as u64))
}

/// Bytes. `KiB` counts by 1,024 and `KB` by 1,000.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "kib" => KIB as f64,
        "mib" => MIB as f64,
        "gib" => GIB as f64,
        _ => return None,
    };
    let total = number * bytes;
    (total.fract() == 0.0 && (0.0..=1e15).contains(&total)).then_some(total as u64)
}

/// `1.5 GiB` in its number and its unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let plain = number.starts_with(|c: char| c.is_ascii_digit()) && number.ends_with(|c: char| c.is_ascii_digit());
    if !plain || number.len() > 24 {
        return None;
    }
    Some((number.parse().ok()?, unit.trim_start()))
}

/// The shortest exact text.
pub(crate) fn show_duration(value: Duration) -> String {
    let milliseconds = value.as_millis();
    if milliseconds == 0 {
        "0s".into()
    } else if !milliseconds.is_multiple_of(1_000) {
        format!("{milliseconds}ms")
    } else if milliseconds.is_multiple_of(3_600_000) {
        format!("{}h", milliseconds / 3_600_000)
    } else {
        format!("{}s", milliseconds / 1_000)
    }
}

/// The shortest exact text.
pub(crate) fn show_size(value: u64) -> String {
    for (unit, name) in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        if value > 0 && value.is_multiple_of(unit) {
            return format!("{}{name}", value / unit);
        }
    }
    format!("{value}B")
}
