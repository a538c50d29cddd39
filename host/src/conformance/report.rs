//! What a run has found.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use witgate_model::Description;

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
    /// Requests.
    Encode,
    /// What was asked for and is not sent.
    Silence,
    /// Equal results for equal requests.
    Purity,
    /// The author's samples.
    Answers,
    /// Samples, cut anywhere.
    Splits,
    /// Samples that end early.
    CutOff,
    /// Error answers.
    Errors,
    /// What is no answer.
    Garbage,
    /// Large requests and answers.
    Limits,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Area::Component => "component",
            Area::Settings => "settings",
            Area::Describe => "describe",
            Area::Probe => "probe",
            Area::Encode => "encode",
            Area::Silence => "silence",
            Area::Purity => "purity",
            Area::Answers => "answers",
            Area::Splits => "splits",
            Area::CutOff => "cut-off",
            Area::Errors => "errors",
            Area::Garbage => "garbage",
            Area::Limits => "limits",
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

/// The most findings that are kept of one area; all are counted.
const FINDINGS: usize = 40;

/// The most that are shown of one area.
const SHOWN: usize = 10;

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
    /// What it says that it is, if it could be asked.
    pub adapter: Option<Description>,
    /// Per area, how many checks held.
    pub counts: BTreeMap<Area, Count>,
    /// What failed: of each area the first 40.
    pub failures: Vec<Finding>,
    /// What does not break the contract and is worth a look.
    pub notes: Vec<Finding>,
    /// The most linear memory that an instance had, in bytes.
    pub memory_bytes: usize,
    /// The call that took longest, and how long.
    pub slowest: Option<(String, Duration)>,
    /// The median time that it takes to make an instance.
    pub instance: Option<Duration>,
    /// The median time of a small `encode`, in an instance that has made one.
    pub encode: Option<Duration>,
}

impl Report {
    pub(super) fn new(file: &Path, wasm: &[u8]) -> Self {
        Report {
            file: file.display().to_string(),
            digest: crate::cache::digest(wasm),
            size: wasm.len(),
            adapter: None,
            counts: BTreeMap::new(),
            failures: Vec::new(),
            notes: Vec::new(),
            memory_bytes: 0,
            slowest: None,
            instance: None,
            encode: None,
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
        if self.notes.len() < FINDINGS {
            self.notes.push(finding(area, case, what.into(), right));
        }
    }

    pub(super) fn slowest(&mut self, case: &str, time: Duration) {
        if self.slowest.as_ref().is_none_or(|(_, slowest)| *slowest < time) {
            self.slowest = Some((case.to_owned(), time));
        }
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
            "areas": self.counts.iter().map(|(area, count)| (area.to_string(), count)).collect::<BTreeMap<_, _>>(),
            "failures": self.failures, "notes": self.notes,
            "memory_bytes": self.memory_bytes,
            "slowest_call": self.slowest.as_ref().map(|(case, time)| serde_json::json!({"case": case, "ms": millis(*time)})),
            "instance_ms": self.instance.map(millis), "encode_ms": self.encode.map(millis),
        })
    }
}

/// Control characters would write over the terminal that shows them.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

fn finding(area: Area, case: &str, what: String, right: &str) -> Finding {
    Finding { area, case: plain(case), what: plain(&what), right: right.to_owned() }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.adapter {
            Some(is) => writeln!(f, "{} {}: {}", plain(&is.id), plain(&is.version), plain(&is.summary))?,
            None => writeln!(f, "no adapter")?,
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
        if self.adapter.is_some() {
            write!(f, "\nmemory at most {:.1} MiB", self.memory_bytes as f64 / f64::from(1 << 20))?;
            if let Some(instance) = self.instance {
                write!(f, ", an instance {:.3} ms", instance.as_secs_f64() * 1e3)?;
            }
            if let Some(encode) = self.encode {
                write!(f, ", a small encode {:.3} ms", encode.as_secs_f64() * 1e3)?;
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
