//! Whether, and when, something is tried again: waits, what the backend says of them, and the budget.

use std::time::{Duration, SystemTime};

use witgate_config::Retry as Rules;
use witgate_model::{Error, Field, Retry};

use crate::failure::Failed;
use crate::http;

/// The longest wait that is understood.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What an error answer's headers say of another try.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Hint {
    after: Option<Duration>,
    again: Option<bool>,
}

impl Hint {
    /// `retry-after-ms`, `retry-after` in seconds or as a date, and `x-should-retry`. `now` is the time since 1970.
    pub fn of(headers: &[Field], now: Duration) -> Self {
        let seconds = |text: &str, unit: f64| {
            let time = Duration::try_from_secs_f64(text.trim().parse::<f64>().ok()? * unit).ok()?;
            (time <= LONGEST).then_some(time)
        };
        let after = http::header(headers, "retry-after-ms").and_then(|text| seconds(text, 0.001)).or_else(|| {
            let text = http::header(headers, "retry-after")?;
            seconds(text, 1.0).or_else(|| {
                let date = httpdate::parse_http_date(text.trim()).ok()?;
                let wait = date.duration_since(SystemTime::UNIX_EPOCH).ok()?.saturating_sub(now);
                (wait <= LONGEST).then_some(wait)
            })
        });
        let again = match http::header(headers, "x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        Hint { after, again }
    }

    /// Puts it into the failure that came with those headers.
    pub fn apply(self, error: &mut Error) {
        let after = self.after.and_then(|wait| u64::try_from(wait.as_millis()).ok());
        error.retry = match (self.again, error.retry.clone()) {
            (Some(false), Retry::SameTarget(_)) => Retry::OtherTarget,
            (Some(true), Retry::SameTarget(known)) => Retry::SameTarget(after.or(known)),
            (Some(true), _) => Retry::SameTarget(after),
            (None, Retry::SameTarget(known)) => Retry::SameTarget(after.or(known)),
            (_, retry) => retry,
        };
    }
}

/// How long to wait before try number `attempt` (from 2), where the failure may pass and the wait is short enough. Half of
/// it is chance, so that not all come back at once; what the backend says is a least.
pub(crate) fn wait(rules: &Rules, failed: &Failed, attempt: u32, random: u64) -> Option<Duration> {
    let Retry::SameTarget(after) = failed.error.retry else { return None };
    let doubled = rules.backoff.saturating_mul(1 << attempt.saturating_sub(2).min(16)).min(rules.max_backoff);
    let half = doubled / 2;
    let some = half.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64);
    let after = after.map(Duration::from_millis);
    if after.is_some_and(|after| after > rules.max_backoff) {
        return None;
    }
    Some(after.unwrap_or(half) + some)
}

/// How many further tries there may be: so many percent of the requests, and some in each minute.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Hundredths of a try that are left.
    left: u64,
    /// When it was last looked at.
    at: Duration,
}

/// The most tries that are saved up.
const MOST: u64 = 100;

impl Budget {
    pub fn new(rules: &Rules) -> Self {
        Budget { left: u64::from(rules.reserve) * 100, at: Duration::ZERO }
    }

    /// A request's first try.
    pub fn first(&mut self, rules: &Rules) {
        let most = MOST.max(u64::from(rules.reserve)) * 100;
        self.left = self.left.saturating_add(u64::from(rules.budget)).min(most.max(self.left));
    }

    /// Whether there was a further try left when it was last looked at.
    pub fn has(&self) -> bool {
        self.left >= 100
    }

    /// Takes a further try; false where none is left.
    pub fn take(&mut self, rules: &Rules, now: Duration) -> bool {
        let enough = self.has_now(rules, now);
        if enough {
            self.left -= 100;
        }
        enough
    }

    /// Whether there is a further try left.
    pub fn has_now(&mut self, rules: &Rules, now: Duration) -> bool {
        let reserve = u64::from(rules.reserve) * 100;
        let gone = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX);
        let more = (u128::from(gone) * u128::from(reserve) / 60_000).min(u128::from(reserve)) as u64;
        if more > 0 {
            self.at = now;
            self.left = self.left.max((self.left + more).min(reserve));
        }
        self.has()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_model::ErrorKind;

    const RULES: Rules = Rules::DEFAULT;

    fn failed(retry: Retry) -> Failed {
        let error = Error::new(ErrorKind::Overloaded, "x").with_retry(retry);
        Failed { provider: Some("p".into()), ..Failed::request(error) }
    }

    fn hint(headers: &[(&str, &str)]) -> Hint {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        // Sun, 09 Sep 2001 01:46:40 GMT.
        Hint::of(&headers, Duration::from_secs(1_000_000_000))
    }

    #[test]
    fn milliseconds_go_before_seconds_and_a_date_is_a_span_from_now() {
        let after = |headers: &[(&str, &str)]| hint(headers).after;
        assert_eq!(after(&[("retry-after-ms", "1500"), ("retry-after", "2")]), Some(Duration::from_millis(1_500)));
        assert_eq!(after(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
        assert_eq!(after(&[("retry-after", "Sun, 09 Sep 2001 01:46:47 GMT")]), Some(Duration::from_secs(7)));
        assert_eq!(after(&[("retry-after", "Sun, 09 Sep 2001 01:00:00 GMT")]), Some(Duration::ZERO), "it has passed");
        for nonsense in ["", "-1", "NaN", "soon", "1e30", "999999999", "Sun, 09 Sep 2031 01:00:00 GMT"] {
            assert_eq!(after(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn the_backend_says_whether_to_try_again() {
        let told = |headers: &[(&str, &str)], retry| {
            let mut failed = failed(retry);
            hint(headers).apply(&mut failed.error);
            failed.error.retry
        };
        let (yes, no) = (("x-should-retry", "true"), ("x-should-retry", "false"));
        assert_eq!(told(&[no], Retry::SameTarget(Some(1))), Retry::OtherTarget);
        assert_eq!(told(&[yes], Retry::Never), Retry::SameTarget(None));
        assert_eq!(told(&[yes, ("retry-after", "2")], Retry::OtherTarget), Retry::SameTarget(Some(2_000)));
        assert_eq!(told(&[("retry-after", "2")], Retry::SameTarget(None)), Retry::SameTarget(Some(2_000)));
        assert_eq!(told(&[("retry-after", "2")], Retry::OtherTarget), Retry::OtherTarget);
    }

    #[test]
    fn waits_double_have_chance_in_them_and_a_bound() {
        let again = failed(Retry::SameTarget(None));
        for (attempt, least, most) in
            [(2, 125, 250), (3, 250, 500), (4, 500, 1_000), (9, 2_500, 5_000), (99, 2_500, 5_000)]
        {
            for random in [0, u64::MAX / 3, u64::MAX] {
                let wait = wait(&RULES, &again, attempt, random).unwrap();
                let range = Duration::from_millis(least)..=Duration::from_millis(most);
                assert!(range.contains(&wait), "{attempt}: {wait:?}");
            }
        }
        assert_eq!(wait(&RULES, &failed(Retry::SameTarget(Some(3_000))), 2, 0), Some(Duration::from_secs(3)));
        assert_eq!(wait(&RULES, &failed(Retry::SameTarget(Some(5_001))), 2, 0), None, "longer than max_backoff");
        assert_eq!(wait(&RULES, &failed(Retry::OtherTarget), 2, 0), None);
    }

    #[test]
    fn the_budget_is_a_fifth_of_the_requests_and_a_few_in_each_minute() {
        let mut budget = Budget::new(&RULES);
        let taken = |budget: &mut Budget, now| (0..1_000).filter(|_| budget.take(&RULES, now)).count();
        let now = Duration::from_secs(1);
        assert_eq!(taken(&mut budget, now), 10);
        (0..100).for_each(|_| budget.first(&RULES));
        assert_eq!(taken(&mut budget, now), 20);
        assert_eq!(taken(&mut budget, now + Duration::from_secs(30)), 5);
        assert_eq!(taken(&mut budget, now + Duration::from_secs(3_600)), 10);
        let none = Rules { budget: 0, reserve: 0, ..RULES };
        let mut budget = Budget::new(&none);
        budget.first(&none);
        assert!(!budget.take(&none, now));
    }
}
