//! What is wrong with a configuration: where, what, and what would be right.

use std::fmt;

/// One thing that is wrong. Never holds the value of a secret, nor of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file as it was named, or `environment`.
    pub file: String,
    /// From 1; 0 where the problem has no place in a file.
    pub line: u32,
    /// From 1, in characters; 0 where the problem has no place in a file.
    pub column: u32,
    /// What is at fault, as `providers.local.timeouts.connect` or `LLM_TIMEOUT_SECS`; for an unknown or missing key
    /// the table, for a syntax error empty.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right: the nearest right name, the values allowed, what to write.
    pub help: Option<String>,
}

/// As compilers write it: `witgate.toml:12:1: providers.local: unknown key "endpiont"; did you mean "endpoint"?`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration, in the order of the file. Prints one problem on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Problems {
    /// The problems, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
