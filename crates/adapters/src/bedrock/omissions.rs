//! What a request asks for and the backend cannot do.

use witgate_model::Error;

/// Most paths that the contract takes.
const MOST_PATHS: usize = 64;

/// Refuses what the backend cannot do, or where the settings say so, leaves it out and lists it.
#[derive(Debug)]
pub(super) struct Omissions {
    allowed: bool,
    paths: Vec<String>,
}

impl Omissions {
    pub fn new(allowed: bool) -> Self {
        Omissions { allowed, paths: Vec::new() }
    }

    /// Refuses `param`; where it returns, the caller leaves it out.
    pub fn refuse(&mut self, param: impl Into<String>, message: impl Into<String>) -> Result<(), Error> {
        let param = param.into();
        if !self.allowed {
            return Err(Error::unsupported(param, message));
        }
        self.note(param);
        Ok(())
    }

    /// Lists what was left out.
    pub fn note(&mut self, path: String) {
        if self.paths.len() < MOST_PATHS && !self.paths.contains(&path) {
            self.paths.push(path);
        }
    }

    /// The list for code that keeps its own; `None` where nothing may be left out.
    pub fn list(&mut self) -> Option<&mut Vec<String>> {
        self.allowed.then_some(&mut self.paths)
    }

    /// `http-request.dropped`.
    pub fn into_paths(self) -> Vec<String> {
        self.paths
    }
}
