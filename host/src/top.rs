//! `witgate adapters top`: what the components of a running gateway do, by its admin API.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use witgate_config::Secret;

use crate::keys::Api;

/// Which gateway, and how it is shown.
#[derive(Args)]
pub struct Top {
    /// Where the gateway listens.
    #[arg(long, env = "WITGATE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Shows it again and again, each time with what has come since: the percentiles are those of that time.
    #[arg(long, short)]
    watch: bool,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    interval: u64,
    /// As JSON, with everything that is known; once.
    #[arg(long, conflicts_with = "watch")]
    json: bool,
}

/// Clears a terminal, and begins at its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

const COLUMNS: [&str; 13] = [
    "KIND",
    "NAME",
    "CALLS",
    "/S",
    "P50",
    "P99",
    "EVENTS P50",
    "EVENTS P99",
    "TRAPS",
    "FAILED",
    "REFUSED",
    "INSTANCES",
    "MEMORY",
];

impl Top {
    /// Does it, and writes to `out`. With `--watch` it ends only where the gateway cannot be asked, or `out` is closed.
    ///
    /// # Errors
    /// Where the gateway cannot be reached, or refuses: for people.
    pub async fn run(self, admin_key: &Secret, out: &mut impl Write) -> Result<(), String> {
        let api = Api::new(&self.url, admin_key);
        let interval = Duration::from_secs(self.interval);
        let mut before: Option<Value> = None;
        loop {
            let json = api.call("GET", "adapters", None).await?;
            let text = if self.json {
                serde_json::to_string_pretty(&json["data"]).map_err(|error| error.to_string())? + "\n"
            } else {
                let table = table(&json, before.as_ref(), interval);
                if self.watch { format!("{CLEAR}{table}") } else { table }
            };
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())?;
            if !self.watch {
                return Ok(());
            }
            before = Some(json);
            tokio::time::sleep(interval).await;
        }
    }
}

fn list(json: &Value) -> &[Value] {
    json["data"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The components with the busiest first; beside what was told `before`, what has come since.
fn table(json: &Value, before: Option<&Value>, interval: Duration) -> String {
    let mut rows: Vec<(f64, [String; COLUMNS.len()])> =
        list(json).iter().map(|component| row(component, before, interval)).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let rows: Vec<_> =
        std::iter::once(COLUMNS.map(str::to_owned)).chain(rows.into_iter().map(|(_, row)| row)).collect();
    let mut widths = [0; COLUMNS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (at, (width, cell)) in widths.iter().zip(row).enumerate() {
            // Names to the left, numbers to the right.
            line.push_str(&if at < 2 { format!("{cell:width$}  ") } else { format!("{cell:>width$}  ") });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(component: &Value, before: Option<&Value>, interval: Duration) -> (f64, [String; COLUMNS.len()]) {
    let text = |name: &str| component[name].as_str().unwrap_or("-").to_owned();
    let same = |known: &&Value| known["kind"] == component["kind"] && known["name"] == component["name"];
    let known = before.and_then(|before| list(before).iter().find(same));
    let (mut first, mut feed) = (Vec::new(), Vec::new());
    let (mut all, mut new) = (0, 0);
    for (call, calls) in component["calls"].as_object().into_iter().flatten() {
        let now = buckets(calls);
        let since = match known {
            Some(known) => since(&now, &buckets(&known["calls"][call])),
            None => now.clone(),
        };
        all += count(&now);
        new += count(&since);
        *(if call == "feed" { &mut feed } else { &mut first }) = since;
    }
    let rate = new as f64 / interval.as_secs_f64();
    let failures = || component["failures"].as_object().into_iter().flatten();
    let traps = component["failures"]["trap"].as_u64().unwrap_or(0);
    // Those of another kind.
    let failed: u64 = failures().filter(|(kind, _)| *kind != "trap").filter_map(|(_, n)| n.as_u64()).sum();
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let memory = &component["memory"];
    let mib = |bytes: &Value| bytes.as_u64().unwrap_or(0) as f64 / f64::from(1 << 20);
    let cells = [
        text("kind"),
        text("name"),
        all.to_string(),
        known.map_or_else(|| "-".to_owned(), |_| format!("{rate:.1}")),
        time(percentile(&first, 50)),
        time(percentile(&first, 99)),
        time(percentile(&feed, 50)),
        time(percentile(&feed, 99)),
        traps.to_string(),
        failed.to_string(),
        number(&component["refusals"]),
        number(&component["instances"]),
        format!("{:.1}/{:.0} MiB", mib(&memory["peak_bytes"]), mib(&memory["limit_bytes"])),
    ];
    let busy = if known.is_some() { rate } else { all as f64 };
    (busy, cells)
}

/// Calls, by how long they took at most, in microseconds.
type Buckets = Vec<(f64, u64)>;

fn buckets(calls: &Value) -> Buckets {
    let all = calls["buckets_us"].as_array().into_iter().flatten();
    all.filter_map(|bucket| Some((bucket[0].as_f64()?, bucket[1].as_u64()?))).collect()
}

/// What has come since. Where there is less than before, the gateway has begun anew: then all of it.
fn since(now: &Buckets, before: &Buckets) -> Buckets {
    if count(now) < count(before) {
        return now.clone();
    }
    let known = |most: f64| before.iter().find(|(known, _)| *known == most).map_or(0, |(_, count)| *count);
    now.iter().map(|(most, count)| (*most, count.saturating_sub(known(*most)))).collect()
}

fn count(buckets: &Buckets) -> u64 {
    buckets.iter().map(|(_, count)| count).sum()
}

fn percentile(buckets: &Buckets, percent: u64) -> Option<f64> {
    let mut left = (u128::from(count(buckets)) * u128::from(percent)).div_ceil(100);
    if left == 0 {
        return None;
    }
    buckets.iter().find_map(|(most, count)| {
        left = left.saturating_sub(u128::from(*count));
        (left == 0).then_some(*most)
    })
}

fn time(micros: Option<f64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(micros) if micros < 1e3 => format!("{micros:.0} µs"),
        Some(micros) if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        Some(micros) => format!("{:.1} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(name: &str, encode: &Value, feed: &Value) -> Value {
        json!({
            "kind": "adapter", "name": name, "failures": {"trap": 1, "time": 2}, "refusals": 3, "instances": 4,
            "calls": {"encode": {"buckets_us": encode}, "feed": {"buckets_us": feed}},
            "memory": {"peak_bytes": 3 << 20, "limit_bytes": 64 << 20},
        })
    }

    #[test]
    fn the_table_has_the_busiest_first_and_tells_what_came_since() {
        let before = json!({"data": [told("calm", &json!([[20.0, 5]]), &json!([[7.0, 100]]))]});
        let now = json!({"data": [
            told("calm", &json!([[20.0, 5], [900.0, 1]]), &json!([[7.0, 101]])),
            told("busy", &json!([[20.0, 50]]), &json!([[7.0, 1000], [5000.0, 50]])),
        ]});
        let text = table(&now, Some(&before), Duration::from_secs(2));
        let lines: Vec<_> = text.lines().collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(lines[0].starts_with("KIND"), "{text}");
        assert_eq!(words(lines[1])[..4], ["adapter", "busy", "1100", "-"], "{text}");
        let calm = words(lines[2]);
        assert_eq!(calm[..4], ["adapter", "calm", "107", "1.0"], "{text}");
        assert_eq!(calm[4..6], ["900", "µs"], "what came before does not count: {text}");
        assert!(lines[2].ends_with("3.0/64 MiB"), "{text}");
        // Traps, other failures, refusals, instances.
        assert_eq!(calm[calm.len() - 6..][..4], ["1", "2", "3", "4"], "{text}");
        let all = table(&now, None, Duration::from_secs(2));
        let busy = words(all.lines().nth(1).unwrap_or_default());
        assert_eq!(busy[..4], ["adapter", "busy", "1100", "-"], "{all}");
        assert!(all.contains("5.0 ms"), "{all}");
    }

    #[test]
    fn a_gateway_that_has_begun_anew_is_told_whole() {
        assert_eq!(since(&vec![(1.0, 2)], &vec![(1.0, 5)]), vec![(1.0, 2)]);
        assert_eq!(percentile(&Vec::new(), 50), None);
    }
}
