//! What becomes of what the backend cannot do: refused by name, or left out and told.

use witgate_model::{Error, Request, Tool};

use super::json::{self, Members};

/// Most paths of what was left out, the contract's own bound.
const DROPPED: usize = 64;

/// How one request is treated.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Who refuses, in messages: the subject of a sentence.
    pub(crate) backend: &'static str,
    /// The request came in the backend's own dialect: unknown members pass.
    pub(crate) native: bool,
    /// Leave out instead of refusing.
    drop: bool,
    /// What was left out, in the client's terms.
    pub(crate) dropped: Vec<String>,
}

impl Policy {
    pub(crate) fn new(backend: &'static str, native: bool, drop: bool) -> Self {
        Policy { backend, native, drop, dropped: Vec::new() }
    }

    /// Refuses `param`, unless the settings allow it to be left out.
    pub(crate) fn refuse(&mut self, param: impl Into<String>, message: impl Into<String>) -> Result<(), Error> {
        if !self.drop {
            return Err(Error::unsupported(param, message));
        }
        let param = param.into();
        if self.dropped.len() < DROPPED && !self.dropped.contains(&param) {
            self.dropped.push(param);
        }
        Ok(())
    }

    /// The unknown members of the record at `path`: all of them from the same dialect; from another those of `shared`,
    /// which mean the same there, and an error for any other that asks for something: null and `[]` do not.
    pub(crate) fn extra<'a>(
        &mut self,
        json: Option<&'a str>,
        path: &dyn Fn() -> String,
        shared: &[&str],
    ) -> Result<Members<'a>, Error> {
        let Some(json) = json else { return Ok(Members::default()) };
        let mut members = Members::parse(Some(json)).map_err(|error| {
            let message = format!("the unknown members here are not a JSON object: {}", json::complaint(&error));
            Error::invalid(path(), message)
        })?;
        if self.native || members.0.is_empty() {
            return Ok(members);
        }
        members.0.retain(|(_, value)| !matches!(value.get(), "null" | "[]"));
        let path = path();
        for (name, _) in members.0.iter().filter(|(name, _)| !shared.contains(&&**name)) {
            let param = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            let backend = self.backend;
            self.refuse(param, format!("{backend} has no counterpart of `{name}` as the client's API means it"))?;
        }
        members.0.retain(|(name, _)| shared.contains(&&**name));
        Ok(members)
    }

    /// True where JSON that only the client's dialect understands can be passed on.
    pub(crate) fn passes(&mut self, param: &dyn Fn() -> String) -> Result<bool, Error> {
        if !self.native {
            self.refuse(param(), format!("{} has no counterpart of this value of the client's API", self.backend))?;
        }
        Ok(self.native)
    }

    /// True where the request has tools, but none that the backend knows: then nothing can be said of their use either.
    pub(crate) fn takes_no_tool(&mut self, request: &Request) -> Result<bool, Error> {
        let foreign = request.tools.iter().all(|tool| matches!(tool, Tool::Other(_)));
        if self.native || request.tools.is_empty() || !foreign {
            return Ok(false);
        }
        for at in 0..request.tools.len() {
            self.passes(&|| format!("tools[{at}]"))?;
        }
        for (param, present) in [
            ("tool_choice", request.tool_choice.is_some()),
            ("parallel_tool_calls", request.parallel_tool_calls.is_some()),
        ] {
            if present {
                self.refuse(param, format!("{} knows none of the tools", self.backend))?;
            }
        }
        Ok(true)
    }
}
