//! Checks a provider's settings by its adapter's own schema.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value as Json;

use crate::config::Config;
use crate::names::{did_you_mean, list, nearest, quote};
use crate::problem::Problem;
use crate::read::join;

/// Longest schema, in bytes.
const MAX_SCHEMA: usize = 1 << 20;
const MAX_PROBLEMS: usize = 100;
const MAX_DEFINITIONS: usize = 1_000;
const MAX_EXPANDED: usize = 10_000;

impl Config {
    /// Checks the settings of a provider by a JSON Schema (2020-12), its adapter's `settings-schema`. A provider that
    /// there is not has no problems. Values are not shown. A schema that cannot be used is itself a problem: its
    /// references must have the form `#/$defs/name` and must not lead back to themselves.
    pub fn check_settings(&self, provider: &str, schema: &str) -> Vec<Problem> {
        let Some(config) = self.providers.get(provider) else { return Vec::new() };
        let table = join("providers", provider);
        let own = (join(&table, "settings"), &config.settings);
        let of_targets = self.models.iter().flat_map(|(alias, model)| {
            let path = join("models", alias);
            let several = self.places.contains_key(&join(&path, "targets"));
            model.targets.iter().filter_map(move |target| {
                let settings = target.settings.as_ref().filter(|_| target.provider == provider)?;
                let at = settings.at;
                let key = if several { format!("{}[{at}]", join(&path, "targets")) } else { join(&path, "target") };
                Some((join(&key, "settings"), &settings.json))
            })
        });
        let who = format!("adapter {}", quote(config.adapter.as_str(), 100));
        self.check_by_schema((&join(&table, "adapter"), &who), schema, own, of_targets)
    }

    /// Checks the settings of a policy by its `settings-schema`, as [`Config::check_settings`] does for a provider.
    pub fn check_policy_settings(&self, policy: &str, schema: &str) -> Vec<Problem> {
        let Some(config) = self.policies.get(policy) else { return Vec::new() };
        let table = join("policies", policy);
        let who = format!("policy {}", quote(policy, 100));
        let own = (join(&table, "settings"), &config.settings);
        self.check_by_schema((&table, &who), schema, own, std::iter::empty())
    }

    /// Checks settings by the schema of the component at a key.
    fn check_by_schema<'a>(
        &self,
        (component, who): (&str, &str),
        schema: &str,
        own: (String, &'a Json),
        others: impl Iterator<Item = (String, &'a Json)>,
    ) -> Vec<Problem> {
        let unusable = |why: String| {
            let message = format!("the settings schema of the {who} cannot be used: {why}");
            vec![self.problem(component, message, None)]
        };
        if schema.trim().is_empty() {
            return Vec::new();
        }
        if schema.len() > MAX_SCHEMA {
            return unusable("it is larger than 1MiB".into());
        }
        let schema: Json = match serde_json::from_str(schema) {
            Ok(schema) => schema,
            Err(error) => return unusable(error.to_string()),
        };
        if let Some(why) = refers_beyond(&schema) {
            return unusable(why);
        }
        let options = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .with_pattern_options(jsonschema::PatternOptions::regex());
        let validator = match options.build(&schema) {
            Ok(validator) => validator,
            Err(error) => return unusable(quote(&error.to_string(), 300)),
        };
        let mut problems = Vec::new();
        // What is wrong with the provider's own settings is told once.
        let mut errors: Vec<_> = validator.iter_errors(own.1).take(MAX_PROBLEMS).map(|e| (own.clone(), e)).collect();
        let told: Vec<_> = errors.iter().map(|(_, error)| error.to_string()).collect();
        for of in others {
            let new = validator.iter_errors(of.1).filter(|error| !told.contains(&error.to_string()));
            errors.extend(new.take(MAX_PROBLEMS).map(|error| (of.clone(), error)));
        }
        for ((settings, instance), error) in errors {
            let key = key(&settings, instance, error.instance_path().as_str());
            let names = || {
                let parent = error.schema_path().as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
                let properties = schema.pointer(parent).and_then(|schema| schema.get("properties"));
                let names = properties.and_then(Json::as_object).into_iter().flat_map(|names| names.keys());
                names.map(String::as_str).collect::<BTreeSet<_>>()
            };
            match error.kind() {
                ValidationErrorKind::AdditionalProperties { unexpected }
                | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                    for name in unexpected {
                        let help = did_you_mean(name, names())
                            .or_else(|| (!names().is_empty()).then(|| format!("the keys here are {}", list(names()))));
                        let place = self.key_problem(&join(&key, name), String::new(), None);
                        let message = format!("unknown key {}", quote(name, 64));
                        problems.push(Problem { key: key.clone(), message, help, ..place });
                    }
                }
                ValidationErrorKind::Required { property } => {
                    let name = property.as_str().unwrap_or_default();
                    problems.push(self.problem(&key, format!("the key {} is missing", quote(name, 64)), None));
                }
                ValidationErrorKind::Type { kind } => {
                    let expected = match kind {
                        TypeKind::Single(kind) => kind.to_string(),
                        TypeKind::Multiple(kinds) => {
                            kinds.iter().map(|kind| kind.to_string()).collect::<Vec<_>>().join(" or ")
                        }
                    };
                    let found = match error.instance().as_ref() {
                        Json::Null => "nothing",
                        Json::Bool(_) => "boolean",
                        Json::Number(number) if number.is_f64() => "number",
                        Json::Number(_) => "integer",
                        Json::String(_) => "string",
                        Json::Array(_) => "array",
                        Json::Object(_) => "object",
                    };
                    problems.push(self.problem(&key, format!("expected {expected}, found {found}"), None));
                }
                ValidationErrorKind::Enum { options } => {
                    let options: Vec<&str> =
                        options.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
                    let help = match error.instance().as_str().and_then(|text| nearest(text, options.iter().copied())) {
                        Some(near) => Some(format!("did you mean {}?", quote(near, 64))),
                        None => {
                            (!options.is_empty()).then(|| format!("write one of {}", list(options.iter().copied())))
                        }
                    };
                    problems.push(self.problem(&key, "not one of the values that the adapter takes", help));
                }
                _ => problems.push(self.problem(&key, error.masked_with("the value").to_string(), None)),
            }
        }
        problems.truncate(MAX_PROBLEMS);
        problems.sort();
        problems
    }
}

/// A JSON pointer into the settings, as a key path.
fn key(settings: &str, value: &Json, pointer: &str) -> String {
    let mut path = settings.to_owned();
    let mut at = Some(value);
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        match at {
            Some(Json::Array(items)) => {
                path.push_str(&format!("[{segment}]"));
                at = segment.parse::<usize>().ok().and_then(|i| items.get(i));
            }
            _ => {
                path = join(&path, &segment);
                at = at.and_then(|value| value.get(&segment));
            }
        }
    }
    path
}

/// Why the schema's references cannot be followed: one that leads out of the document, or back to itself, or so many
/// that following them takes for ever.
fn refers_beyond(schema: &Json) -> Option<String> {
    let mut definitions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // (where it stands: the definition, or "" for the schema itself; the value). serde_json bounds the depth to 128.
    let mut open: Vec<(String, &Json)> = vec![(String::new(), schema)];
    while let Some((within, value)) = open.pop() {
        match value {
            Json::Object(members) => {
                for (name, member) in members {
                    match (name.as_str(), member) {
                        ("$dynamicRef" | "$recursiveRef" | "$dynamicAnchor" | "$anchor" | "$id", Json::String(_)) => {
                            return Some(format!("it uses {name}"));
                        }
                        ("$ref", Json::String(target)) => match target.strip_prefix("#/$defs/") {
                            Some(name) if !name.contains(['/', '~', '%']) => {
                                definitions.entry(within.clone()).or_default().push(name.to_owned());
                            }
                            _ => return Some("a $ref in it does not have the form \"#/$defs/name\"".into()),
                        },
                        ("$defs", Json::Object(inner)) if within.is_empty() => {
                            open.extend(inner.iter().map(|(name, value)| (name.clone(), value)));
                        }
                        _ => open.push((within.clone(), member)),
                    }
                }
            }
            Json::Array(items) => open.extend(items.iter().map(|item| (within.clone(), item))),
            _ => {}
        }
    }
    if definitions.len() > MAX_DEFINITIONS {
        return Some(format!("more than {MAX_DEFINITIONS} of its definitions hold a $ref"));
    }
    // How many schemas each definition stands for, from those that refer to none upwards.
    let mut weights: BTreeMap<&str, usize> = BTreeMap::new();
    while weights.len() < definitions.len() {
        let before = weights.len();
        for (name, targets) in
            definitions.iter().filter(|(name, _)| !weights.contains_key(name.as_str())).collect::<Vec<_>>()
        {
            let weight = targets.iter().try_fold(1_usize, |sum, target| {
                let weight = match weights.get(target.as_str()) {
                    Some(weight) => *weight,
                    None if definitions.contains_key(target) => return None,
                    None => 1,
                };
                Some(sum.saturating_add(weight))
            });
            if let Some(weight) = weight {
                weights.insert(name, weight);
            }
        }
        if weights.len() == before {
            return Some("a $ref in it leads back to itself".into());
        }
    }
    (weights.get("").is_some_and(|weight| *weight > MAX_EXPANDED))
        .then(|| format!("with every $ref written out it holds more than {MAX_EXPANDED} schemas"))
}
