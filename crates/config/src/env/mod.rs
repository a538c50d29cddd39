//! The environment variables of the services that witgate replaces, as one configuration.

mod awa;
mod invocation;
mod sagemaker;

use std::time::Duration;

use serde_json::{Number, Value as Json};

use crate::config::{AdapterRef, Config, Model, Origin, Provider, Target, Timeouts};
use crate::endpoint::{self, Flaw};
use crate::facades;
use crate::names::quote;
use crate::problem::{Problem, Problems};
use crate::secret::Secret;

/// Reads the environment.
pub(crate) fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    let mut variables = Variables { env, problems: Vec::new() };
    let mut config = Config::builtin();
    config.providers.clear();
    config.models.clear();
    config.origin = Origin::Environment;
    let mut found = awa::add(&mut variables, &mut config);
    found |= sagemaker::add(&mut variables, &mut config);
    found |= keys(&mut variables, &mut config);
    let backends = invocation::add(&mut variables, &mut config);
    found |= backends.is_some();
    if !found {
        found = sagemaker::add_unset(&variables, &mut config);
    }
    if !variables.problems.is_empty() {
        return Err(Problems(variables.problems));
    }
    if !found {
        return Ok(Config::builtin());
    }
    if config.providers.is_empty() {
        config.providers.insert("stub".into(), Provider::stub());
    }
    facades::complete(&mut config, backends.unwrap_or_default());
    Ok(config)
}

/// The keys of llm-exe. `OPENAI_API_KEY` alone changes nothing: it is often there for other programs.
fn keys(variables: &mut Variables<'_>, config: &mut Config) -> bool {
    if !variables.any(&["OPEN_AI_API_KEY", "ANTHROPIC_API_KEY"]) {
        return false;
    }
    let openai = variables.openai_key();
    let anthropic = variables.secret("ANTHROPIC_API_KEY");
    for (name, key) in [("openai", openai), ("anthropic", anthropic)] {
        let Some(key) = key else { continue };
        if !config.providers.contains_key(name) {
            let mut provider = Provider {
                name: name.into(),
                adapter: AdapterRef::Builtin(name.into()),
                endpoints: Vec::new(),
                ..Provider::stub()
            };
            provider.secrets.insert("api_key".into(), key);
            config.providers.insert(name.into(), provider);
        }
        otherwise(config, name);
    }
    true
}

/// Models that nothing else is said of are the provider's, by the name that the client writes, unless another one was first.
fn otherwise(config: &mut Config, provider: &str) {
    if !config.models.contains_key("*") {
        model(config, "*", vec![Target::new(provider, None)]);
    }
}

/// Names who answers for a model.
fn model(config: &mut Config, alias: &str, targets: Vec<Target>) {
    config.models.insert(alias.into(), Model::new(alias, targets));
}

/// Time limits where one is known: that of the whole answer.
fn within(limit: Duration) -> Timeouts {
    Timeouts { connect: Timeouts::DEFAULT.connect.min(limit), first_token: limit, idle: limit, total: limit }
}

/// The variables, and what is wrong with them.
struct Variables<'e> {
    env: &'e dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

impl Variables<'_> {
    /// An empty variable counts as unset.
    fn get(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some())
    }

    fn problem(&mut self, key: &str, message: String, help: Option<String>) {
        self.problems.push(Problem { file: "environment".into(), line: 0, column: 0, key: key.into(), message, help });
    }

    /// A list with commas; empty entries are none.
    fn list(&self, name: &str) -> Vec<String> {
        let text = self.get(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }

    fn url(&mut self, name: &str, text: &str) -> Option<String> {
        match endpoint::check(text) {
            Ok(url) => Some(url),
            Err(Flaw(message, help)) => {
                self.problem(name, format!("the URL {message}"), Some(help.into()));
                None
            }
        }
    }

    fn secret(&mut self, name: &str) -> Option<Secret> {
        let text = self.get(name)?;
        if text.bytes().any(|b| b.is_ascii_control() || !b.is_ascii()) {
            let message = "a key must not hold line ends or characters beyond ASCII".to_owned();
            self.problem(name, message, None);
        }
        Some(Secret::new(text))
    }

    fn openai_key(&mut self) -> Option<Secret> {
        self.secret("OPEN_AI_API_KEY").or_else(|| self.secret("OPENAI_API_KEY"))
    }

    /// A finite number from `least` on.
    fn number(&mut self, name: &str, least: f64) -> Option<Json> {
        let text = self.get(name)?;
        let number = text.parse::<f64>().ok().filter(|number| *number >= least).and_then(Number::from_f64);
        if number.is_none() {
            let help = format!("write a number from {least} on, as 0.5");
            self.problem(name, format!("{} is not such a number", quote(&text, 60)), Some(help));
        }
        number.map(Json::Number)
    }

    /// A whole number from `least` on.
    fn whole(&mut self, name: &str, least: i64) -> Option<Json> {
        let text = self.get(name)?;
        let number = text.parse::<i64>().ok().filter(|number| *number >= least);
        if number.is_none() {
            let help = format!("write a whole number from {least} on");
            self.problem(name, format!("{} is not such a number", quote(&text, 60)), Some(help));
        }
        number.map(Json::from)
    }

    /// A switch, off where the variable is unset.
    fn switch(&mut self, name: &str) -> bool {
        match self.get(name).map(|text| text.to_ascii_lowercase()).as_deref() {
            None | Some("false" | "0" | "no" | "off") => false,
            Some("true" | "1" | "yes" | "on") => true,
            Some(text) => {
                let message = format!("{} is neither on nor off", quote(text, 60));
                self.problem(name, message, Some("write \"true\" or \"false\"".into()));
                false
            }
        }
    }
}
