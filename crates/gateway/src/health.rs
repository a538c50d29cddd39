//! Whether an endpoint is well: a state machine with time as data.
//!
//! It rests after so many failures one after another, or after too many in a window. When the rest is over one request
//! finds out whether it serves again (half-open); success makes it well, failure lets it rest again. A backend that says
//! how long it wants no requests rests for so long, whatever else it did. Who asks decides what to do where all rest.

use std::time::Duration;

use witgate_config::Health as Rules;
use witgate_model::{ErrorKind, Retry};

use crate::failure::Failed;

/// The longest rest that a backend may ask for.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// What one request tells of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It serves.
    Served,
    /// It does not.
    Failed,
    /// It wants no requests for so long.
    Limited(Duration),
    /// It was given up, since another one that was asked later has answered: as good as a failure, or one that never
    /// answers would be asked again and again.
    Slow,
    /// Nothing.
    Unknown,
}

impl Verdict {
    /// What a failure tells. `answered`: it stood in an answer of the endpoint. Where the request itself was at fault, the
    /// endpoint has done its work.
    pub fn of(failed: &Failed, answered: bool) -> Self {
        let code = failed.error.code.as_deref();
        if failed.provider.is_none() || matches!(code, Some("component_fault" | "aws_credentials")) {
            return Verdict::Unknown;
        }
        match (&failed.error.kind, &failed.error.retry) {
            (
                ErrorKind::InvalidRequest
                | ErrorKind::NotFound
                | ErrorKind::TooLarge
                | ErrorKind::ContextLength
                | ErrorKind::ContentFiltered
                | ErrorKind::Unsupported,
                _,
            ) => {
                if answered {
                    Verdict::Served
                } else {
                    Verdict::Unknown
                }
            }
            (ErrorKind::RateLimited | ErrorKind::Overloaded, Retry::SameTarget(Some(wait))) => {
                Verdict::Limited(Duration::from_millis(*wait))
            }
            _ => Verdict::Failed,
        }
    }
}

/// How one endpoint fares.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Failures since the last success.
    failures: u32,
    /// It rests until then, and longer, until one request has been served.
    resting: Option<Duration>,
    /// It wants no requests until then.
    limited: Duration,
    /// One request is finding out.
    probing: bool,
    /// Requests and failures: of the window before, and of this one.
    counts: [(u32, u32); 2],
    /// When this window began.
    since: Duration,
}

impl Health {
    /// Whether it may get a request like any other.
    pub fn is_fit(&self, now: Duration) -> bool {
        now >= self.limited && self.resting.is_none_or(|until| now >= until && !self.probing)
    }

    /// From when on it may, as far as is known.
    pub fn rested_at(&self) -> Duration {
        self.limited.max(self.resting.unwrap_or_default())
    }

    /// Whether it rests, or its next request finds out.
    pub fn is_resting(&self) -> bool {
        self.resting.is_some()
    }

    /// It gets a request. True where that is the one that finds out.
    pub fn take(&mut self, now: Duration) -> bool {
        let probe = self.resting.is_some_and(|until| now >= until) && !self.probing;
        self.probing |= probe;
        probe
    }

    /// The one that finds out has ended.
    pub fn probed(&mut self) {
        self.probing = false;
    }

    /// What a request told.
    pub fn tell(&mut self, rules: &Rules, now: Duration, verdict: Verdict) {
        if rules.rest.is_zero() {
            return;
        }
        match verdict {
            Verdict::Unknown => {}
            Verdict::Limited(wait) => self.limited = self.limited.max(now + wait.min(LONGEST)),
            Verdict::Served => {
                self.count(rules, now, 0);
                self.failures = 0;
                self.resting = None;
            }
            Verdict::Failed | Verdict::Slow => {
                self.failures = self.failures.saturating_add(1);
                let (all, failed) = self.count(rules, now, 1);
                let in_a_row = rules.failures > 0 && self.failures >= rules.failures;
                let rate = rules.failure_rate > 0
                    && all >= rules.min_requests
                    && u64::from(failed) * 100 >= u64::from(all) * u64::from(rules.failure_rate);
                if in_a_row || rate || self.resting.is_some() {
                    self.resting = Some(now + rules.rest);
                    self.counts = Default::default();
                }
            }
        }
    }

    /// Counts one request. Requests and failures of the last two windows.
    fn count(&mut self, rules: &Rules, now: Duration, failed: u32) -> (u32, u32) {
        let age = now.saturating_sub(self.since);
        if age >= rules.window {
            let before = if age < rules.window * 2 { self.counts[1] } else { (0, 0) };
            self.counts = [before, (0, 0)];
            self.since = now;
        }
        let this = &mut self.counts[1];
        *this = (this.0.saturating_add(1), this.1.saturating_add(failed));
        let [before, this] = self.counts;
        (before.0.saturating_add(this.0), before.1.saturating_add(this.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failures: 3, min_requests: 10, ..Rules::DEFAULT };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_make_it_rest_and_a_success_between_them_does_not() {
        let mut health = Health::default();
        for verdict in [Verdict::Failed, Verdict::Failed, Verdict::Served, Verdict::Failed, Verdict::Failed] {
            health.tell(&RULES, s(1), verdict);
            assert!(health.is_fit(s(1)));
        }
        health.tell(&RULES, s(1), Verdict::Failed);
        assert!(!health.is_fit(s(1)) && !health.is_fit(s(10)) && health.is_fit(s(11)));
    }

    #[test]
    fn after_its_rest_one_request_finds_out() {
        let mut health = Health::default();
        (0..3).for_each(|_| health.tell(&RULES, s(0), Verdict::Failed));
        assert!(health.take(s(10)), "the one that finds out");
        assert!(!health.is_fit(s(10)) && !health.take(s(10)), "there is only one");
        health.probed();
        health.tell(&RULES, s(11), Verdict::Failed);
        assert!(!health.is_fit(s(20)), "one failure is enough now");
        assert!(health.take(s(21)));
        health.probed();
        assert!(health.is_fit(s(21)), "abandoned: another one may");
        assert!(health.take(s(21)));
        health.probed();
        health.tell(&RULES, s(22), Verdict::Served);
        assert!(health.is_fit(s(22)) && !health.take(s(22)));
    }

    #[test]
    fn too_many_failures_in_the_window_make_it_rest_and_old_ones_do_not_count() {
        let (mut health, mut later) = (Health::default(), Health::default());
        for i in 0..9 {
            let verdict = if i % 2 == 0 { Verdict::Failed } else { Verdict::Served };
            health.tell(&RULES, s(1), verdict);
            later.tell(&RULES, s(1), verdict);
        }
        assert!(health.is_fit(s(1)));
        health.tell(&RULES, s(1), Verdict::Failed);
        assert!(!health.is_fit(s(1)), "6 of 10");
        later.tell(&RULES, s(62), Verdict::Failed);
        assert!(later.is_fit(s(62)), "1 of 1");
    }

    #[test]
    fn a_backend_that_says_how_long_rests_so_long_and_at_most_ten_minutes() {
        let mut health = Health::default();
        health.tell(&RULES, s(0), Verdict::Limited(s(7)));
        health.tell(&RULES, s(0), Verdict::Served);
        assert!(!health.is_fit(s(6)) && health.is_fit(s(7)));
        health.tell(&RULES, s(0), Verdict::Limited(s(86_400)));
        assert!(!health.is_fit(s(599)) && health.is_fit(s(600)));
    }

    #[test]
    fn a_rest_of_zero_switches_it_off() {
        let rules = Rules { rest: Duration::ZERO, ..RULES };
        let mut health = Health::default();
        (0..100).for_each(|_| health.tell(&rules, s(0), Verdict::Failed));
        health.tell(&rules, s(0), Verdict::Limited(s(9)));
        assert!(health.is_fit(s(0)));
    }
}
