//! What a run has found.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use witgate_config::Problem;
use witgate_gateway::Fault;
use witgate_model::{Description, policy};

/// Which part of the contract a check is of. See [the table](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Area {
    /// What it is made of.
    Component,
    /// The settings' schema.
    Settings,
    /// What it says that it is.
    Describe,
    /// The readiness probe.
    Probe,
    /// Requests, as a policy decides on them.
    Requests,
    /// Requests.
    Encode,
    /// What was asked for and is not sent.
    Silence,
    /// Equal results for equal requests.
    Purity,
    /// The author's samples.
    Answers,
    /// The order of an answer's events, as a policy lets them go on.
    Order,
    /// What a policy holds back of an answer.
    Held,
    /// An answer's end, as a policy lets it go on.
    End,
    /// Answers, cut anywhere.
    Splits,
    /// Samples that end early.
    CutOff,
    /// Error answers.
    Errors,
    /// What is no answer.
    Garbage,
    /// Large requests and answers.
    Limits,
    /// A policy's samples.
    Samples,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Area::Component => "component",
            Area::Settings => "settings",
            Area::Describe => "describe",
            Area::Probe => "probe",
            Area::Requests => "requests",
            Area::Encode => "encode",
            Area::Silence => "silence",
            Area::Purity => "purity",
            Area::Answers => "answers",
            Area::Order => "order",
            Area::Held => "held",
            Area::End => "end",
            Area::Splits => "splits",
            Area::CutOff => "cut-off",
            Area::Errors => "errors",
            Area::Garbage => "garbage",
            Area::Limits => "limits",
            Area::Samples => "samples",
        })
    }
}

/// Something that fails, or that is worth a look.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Of which part of the contract.
    pub area: Area,
    /// With which request or answer.
    pub case: String,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub right: String,
}

/// How often an area's checks held.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// Checks that held.
    pub passed: usize,
    /// Checks that did not.
    pub failed: usize,
}

/// The most findings, and the most notes, that are kept of one area; all findings are counted.
const FINDINGS: usize = 40;

/// The most that are shown of one area.
const SHOWN: usize = 10;

/// An instance whose memory is known.
pub(super) trait Memory {
    /// Bytes of linear memory.
    fn memory(&self) -> usize;
}

impl Memory for crate::AdapterSession {
    fn memory(&self) -> usize {
        crate::AdapterSession::memory(self)
    }
}

impl Memory for crate::PolicySession {
    fn memory(&self) -> usize {
        crate::PolicySession::memory(self)
    }
}

/// What a run has found. Its `Display` is the report for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The component's file.
    pub file: String,
    /// Its SHA-256, in hexadecimal.
    pub digest: String,
    /// Its size, in bytes.
    pub size: usize,
    /// What an adapter says that it is, if it could be asked.
    pub adapter: Option<Description>,
    /// What a policy says that it is, if it could be asked.
    pub policy: Option<policy::Description>,
    /// Per area, how many checks held.
    pub counts: BTreeMap<Area, Count>,
    /// What failed: of each area the first 40.
    pub failures: Vec<Finding>,
    /// What does not break the contract and is worth a look: of each area the first 40.
    pub notes: Vec<Finding>,
    /// The most linear memory that an instance had, in bytes.
    pub memory_bytes: usize,
    /// The call that took longest, and how long.
    pub slowest: Option<(String, Duration)>,
    /// The median time that it takes to make an instance.
    pub instance: Option<Duration>,
    /// The median time of a small `encode`, or of a policy's `on-request`, in an instance that has made one.
    pub call: Option<Duration>,
}

impl Report {
    pub(super) fn new(file: &Path, wasm: &[u8]) -> Self {
        Report {
            file: file.display().to_string(),
            digest: crate::cache::digest(wasm),
            size: wasm.len(),
            adapter: None,
            policy: None,
            counts: BTreeMap::new(),
            failures: Vec::new(),
            notes: Vec::new(),
            memory_bytes: 0,
            slowest: None,
            instance: None,
            call: None,
        }
    }

    /// Every check held.
    pub fn is_conformant(&self) -> bool {
        self.counts.values().all(|count| count.failed == 0)
    }

    pub(super) fn pass(&mut self, area: Area) {
        self.counts.entry(area).or_default().passed += 1;
    }

    pub(super) fn fail(&mut self, area: Area, case: &str, what: impl Into<String>, right: &str) {
        let count = self.counts.entry(area).or_default();
        count.failed += 1;
        if count.failed <= FINDINGS {
            self.failures.push(finding(area, case, what.into(), right));
        }
    }

    pub(super) fn check(&mut self, area: Area, case: &str, held: bool, what: impl Into<String>, right: &str) {
        if held { self.pass(area) } else { self.fail(area, case, what, right) }
    }

    pub(super) fn note(&mut self, area: Area, case: &str, what: impl Into<String>, right: &str) {
        if self.notes.iter().filter(|note| note.area == area).count() < FINDINGS {
            self.notes.push(finding(area, case, what.into(), right));
        }
    }

    /// The result of a call; a fault is a failure of the component.
    pub(super) fn held<T>(&mut self, area: Area, case: &str, result: Result<T, Fault>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(fault) => {
                let right = "a result for every input: an error where there is nothing better, and neither a trap nor a \
                             panic nor an exception";
                self.fail(area, case, format!("it {}", fault.what), right);
                None
            }
        }
    }

    /// Makes a call, and notes how long it took and what memory the instance has then.
    pub(super) fn call<S: Memory, T>(
        &mut self,
        area: Area,
        case: &str,
        session: &mut S,
        call: impl FnOnce(&mut S) -> Result<T, Fault>,
    ) -> Option<T> {
        let begun = Instant::now();
        let result = call(session);
        self.called(area, case, session, begun.elapsed(), result)
    }

    /// What a call gave that took so long.
    pub(super) fn called<S: Memory, T>(
        &mut self,
        area: Area,
        case: &str,
        session: &S,
        took: Duration,
        result: Result<T, Fault>,
    ) -> Option<T> {
        self.slowest(case, took);
        self.memory_bytes = self.memory_bytes.max(session.memory());
        self.held(area, case, result)
    }

    /// What is wrong with the run's settings, or with the schema that they are checked by, which stands at a key. True
    /// where nothing is.
    pub(super) fn settings(&mut self, problems: &[Problem], (table, schema): (&str, &str)) -> bool {
        for problem in problems {
            let right = if problem.key == schema {
                "a settings-schema that is a JSON Schema (2020-12) of an object".to_owned()
            } else {
                let help = problem.help.as_deref().unwrap_or("settings as the component's schema has them");
                format!("{help}; `--settings '{{…}}'` gives them to this run")
            };
            let key = problem.key.strip_prefix(table).unwrap_or(&problem.key).trim_start_matches('.');
            self.fail(Area::Settings, key, problem.message.clone(), &right);
        }
        if problems.is_empty() {
            self.pass(Area::Settings);
        }
        problems.is_empty()
    }

    /// What a component says that it is.
    pub(super) fn identity(&mut self, version: &str, summary: &str) {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let core = version.split(['-', '+']).next().unwrap_or_default();
        if core.split('.').count() != 3 || !core.split('.').all(number) {
            let what = format!("the version is {version:?}");
            self.fail(Area::Describe, "version", what, "a semantic version, as 1.0.0");
        }
        if summary.trim().is_empty() {
            self.fail(Area::Describe, "summary", "the summary is empty", "one sentence for people");
        }
    }

    pub(super) fn slowest(&mut self, case: &str, time: Duration) {
        if self.slowest.as_ref().is_none_or(|(_, slowest)| *slowest < time) {
            self.slowest = Some((case.to_owned(), time));
        }
    }

    /// Which component it is: its name, its version, what it does.
    fn about(&self) -> Option<(&str, &str, &str)> {
        let adapter = self.adapter.as_ref().map(|is| (is.id.as_str(), is.version.as_str(), is.summary.as_str()));
        let policy = || self.policy.as_ref().map(|is| (is.id.as_str(), is.version.as_str(), is.summary.as_str()));
        adapter.or_else(policy)
    }

    /// The report as JSON.
    pub fn json(&self) -> serde_json::Value {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        serde_json::json!({
            "conformant": self.is_conformant(),
            "file": self.file, "sha256": self.digest, "size_bytes": self.size,
            "adapter": self.adapter.as_ref().map(|is| serde_json::json!({
                "id": is.id, "version": is.version, "summary": is.summary, "operations": is.operations,
            })),
            "policy": self.policy.as_ref().map(|is| serde_json::json!({
                "id": is.id, "version": is.version, "summary": is.summary,
            })),
            "areas": self.counts.iter().map(|(area, count)| (area.to_string(), count)).collect::<BTreeMap<_, _>>(),
            "failures": self.failures, "notes": self.notes,
            "memory_bytes": self.memory_bytes,
            "slowest_call": self.slowest.as_ref().map(|(case, time)| serde_json::json!({"case": case, "ms": millis(*time)})),
            "instance_ms": self.instance.map(millis), "call_ms": self.call.map(millis),
        })
    }
}

/// A stranger's text as it is shown, not all of a long one.
fn plain(text: &str) -> String {
    crate::shown::plain(&text.chars().take(500).collect::<String>())
}

fn finding(area: Area, case: &str, what: String, right: &str) -> Finding {
    Finding { area, case: plain(case), what: plain(&what), right: plain(right) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.about() {
            Some((id, version, summary)) => writeln!(f, "{} {}: {}", plain(id), plain(version), plain(summary))?,
            None => writeln!(f, "no adapter, and no policy")?,
        }
        let digest: String = self.digest.chars().take(12).collect();
        writeln!(f, "{} ({} KiB, sha256 {digest}…)\n", self.file, self.size.div_ceil(1024))?;
        for (area, count) in &self.counts {
            let verdict = if count.failed == 0 { "ok  " } else { "FAIL" };
            write!(f, "{verdict}  {area:<10} {:>5} checks", count.passed + count.failed)?;
            if count.failed > 0 {
                write!(f, ", {} failed", count.failed)?;
            }
            f.write_char('\n')?;
            let list = |f: &mut fmt::Formatter<'_>, all: &[Finding], sign: &str| {
                all.iter().filter(|finding| finding.area == *area).take(SHOWN).try_for_each(|finding| {
                    writeln!(f, "      {sign} {}: {}", finding.case, finding.what)?;
                    writeln!(f, "        right: {}", finding.right)
                })
            };
            list(f, &self.failures, "-")?;
            if count.failed > SHOWN {
                writeln!(f, "      … and {} more (--json lists {FINDINGS})", count.failed - SHOWN)?;
            }
            list(f, &self.notes, "note:")?;
        }
        if self.about().is_some() {
            write!(f, "\nmemory at most {:.1} MiB", self.memory_bytes as f64 / f64::from(1 << 20))?;
            if let Some(instance) = self.instance {
                write!(f, ", an instance {:.3} ms", instance.as_secs_f64() * 1e3)?;
            }
            if let Some(call) = self.call {
                let name = if self.policy.is_some() { "on-request" } else { "encode" };
                write!(f, ", a small {name} {:.3} ms", call.as_secs_f64() * 1e3)?;
            }
            if let Some((case, time)) = &self.slowest {
                write!(f, ", the slowest call {:.1} ms ({case})", time.as_secs_f64() * 1e3)?;
            }
            f.write_char('\n')?;
        }
        let (passed, failed) =
            self.counts.values().fold((0, 0), |(passed, failed), c| (passed + c.passed, failed + c.failed));
        if failed == 0 {
            writeln!(f, "conformant: {passed} checks held")
        } else {
            writeln!(f, "NOT conformant: {failed} of {} checks failed", passed + failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_component_says_acts_on_no_terminal() {
        let mut report = Report::new(Path::new("adapter.wasm"), b"");
        report.fail(Area::Settings, "a\u{1b}b", "c\u{202e}d", "e\u{2067}f");
        let told = report.to_string();
        assert!(told.contains("- a b: c d\n        right: e f\n"), "{told}");
    }

    #[test]
    fn many_notes_of_one_area_leave_room_for_anothers() {
        let mut report = Report::new(Path::new("policy.wasm"), b"");
        for number in 0..2 * FINDINGS {
            report.note(Area::Requests, &number.to_string(), "it copies the request", "nothing");
        }
        report.note(Area::Order, "answers", "it watched no answer", "settings");
        assert_eq!(report.notes.len(), FINDINGS + 1);
        report.counts.entry(Area::Order).or_default();
        assert!(report.to_string().contains("note: answers: it watched no answer"), "{report}");
    }
}
