//! The JSON Schema of the file, and the example that shows every key.

use std::collections::BTreeSet;

use serde_json::Value;
use witgate_config::{AdapterRef, Config, Limits, Server, Timeouts};

fn repository(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn example() -> String {
    std::fs::read_to_string(repository("witgate.toml")).unwrap()
}

/// The example with every setting switched on that is switched off in it.
fn example_in_full() -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    example().lines().map(on).collect()
}

fn env(name: &str) -> Option<String> {
    match name {
        "WITGATE_API_KEY" | "WITGATE_METRICS_KEY" | "OPENAI_API_KEY" => Some("key".to_owned()),
        "WITGATE_CALLBACK_SECRET" => Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
        _ => None,
    }
}

/// The paths of all keys in a schema; the user's own names are `*`.
fn schema_paths(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        schema_paths(inner, &path, out);
        out.insert(path);
    }
    let inner = [&schema["additionalProperties"], &schema["items"]];
    for inner in inner.into_iter().filter(|inner| inner.is_object()) {
        schema_paths(inner, &format!("{path}.*"), out);
    }
    for inner in schema["anyOf"].as_array().into_iter().flatten() {
        schema_paths(inner, path, out);
    }
}

/// Whether the table has a value at the path.
fn has(value: &toml::Value, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    match value {
        toml::Value::Table(table) if *first == "*" => table.values().any(|inner| has(inner, rest)),
        toml::Value::Table(table) => table.get(*first).is_some_and(|inner| has(inner, rest)),
        toml::Value::Array(items) if *first == "*" => items.iter().any(|inner| has(inner, rest)),
        _ => false,
    }
}

#[test]
fn the_schema_in_the_repository_is_up_to_date() {
    let path = repository("docs/witgate.schema.json");
    let now = Config::json_schema();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&sorted(now.clone())).unwrap())).unwrap();
    }
    let stored: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_default()).unwrap_or_default();
    assert!(stored == now, "docs/witgate.schema.json is out of date; run UPDATE=1 cargo test -p witgate-config");
}

/// The same with the members of every object in their names' order, whatever order this build keeps them in.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: std::collections::BTreeMap<_, _> = members.into_iter().collect();
            Value::Object(members.into_iter().map(|(name, value)| (name, sorted(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

#[test]
fn every_key_of_the_schema_has_a_description() {
    fn check(schema: &Value, path: &str) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let text = inner["description"].as_str().unwrap_or_default();
            assert!(text.len() > 10 && text.ends_with('.'), "{path}.{name}: {text:?}");
            check(inner, &format!("{path}.{name}"));
            check(&inner["additionalProperties"], &format!("{path}.{name}.*"));
        }
    }
    check(&Config::json_schema(), "");
}

#[test]
fn every_key_of_the_schema_is_in_the_example() {
    let mut paths = BTreeSet::new();
    schema_paths(&Config::json_schema(), "", &mut paths);
    assert!(paths.len() > 40 && paths.contains(".models.*.targets.*.provider"), "{paths:?}");
    let full: toml::Value = toml::from_str(&example_in_full()).unwrap();
    for path in paths {
        let keys: Vec<&str> = path.split('.').skip(1).collect();
        // `target` takes what `targets` takes: the example shows a table in one of them.
        let shown_elsewhere = path.starts_with(".models.*.target.");
        assert!(shown_elsewhere || has(&full, &keys), "witgate.toml does not show {path}");
    }
}

#[test]
fn the_example_serves_the_stub_with_every_default() {
    let config = Config::from_toml(&example(), "witgate.toml", &|_| None).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["stub"]);
    assert_eq!(config.providers["stub"].adapter, AdapterRef::Builtin("stub".into()));
    assert_eq!(config.resolve("anything").unwrap()[0].provider, "stub");
    assert_eq!(config.resolve("").unwrap()[0].provider, "stub");
    assert_eq!(config.server.listen, Server::default().listen);
    assert!(config.adapters.is_empty() && config.server.api_keys.is_empty());
}

#[test]
fn what_the_example_has_switched_off_is_valid_and_shows_the_defaults() {
    let config = Config::from_toml(&example_in_full(), "witgate.toml", &env).unwrap_or_else(|p| panic!("{p}"));
    let server = Server::default();
    assert_eq!(config.server.listen, server.listen);
    assert_eq!(
        (config.server.threads, config.server.keep_alive, config.server.shutdown_timeout),
        (server.threads, server.keep_alive, server.shutdown_timeout)
    );
    assert_eq!(config.timeouts, Timeouts::DEFAULT);
    assert_eq!(config.limits, Limits::DEFAULT);
    assert_eq!(config.providers["local"].timeouts, Timeouts::DEFAULT);
    assert_eq!(config.providers["local"].adapter, AdapterRef::Builtin("llama-cpp".into()));
    assert!(config.providers["local"].secrets.is_empty());
    assert_eq!(config.providers["openai"].secrets["api_key"].expose(), "key");
    let mine = &config.adapters["mine"];
    assert_eq!(
        (mine.trusted, mine.max_memory_bytes, mine.call_timeout),
        (false, config.limits.max_instance_memory_bytes, config.limits.adapter_call_timeout)
    );
    assert_eq!(config.resolve("fast").unwrap().len(), 2);
}

#[cfg(feature = "schema")]
mod validated {
    use super::*;

    fn as_json(toml: &str) -> Value {
        serde_json::to_value(toml::from_str::<toml::Value>(toml).unwrap()).unwrap()
    }

    #[test]
    fn the_schema_takes_the_example_and_refuses_what_the_reader_refuses() {
        let schema = Config::json_schema();
        jsonschema::meta::validate(&schema).unwrap();
        let validator = jsonschema::options().build(&schema).unwrap();
        for text in [example(), example_in_full()] {
            let value = as_json(&text);
            let errors: Vec<String> =
                validator.iter_errors(&value).map(|e| format!("{e} {}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
        for bad in [
            "",
            "[providers.a]",
            "[providers.a]\nadapter = 1",
            "[providers.a]\nadapter = \"stub\"\nendpiont = \"\"",
            "[providers.a]\nadapter = \"stub\"\nendpoint = \"a\"\nendpoints = []",
            "[providers.a]\nadapter = \"stub\"\n[models.m]",
            "[providers.a]\nadapter = \"stub\"\n[models.m]\ntargets = []",
            "[providers.a]\nadapter = \"stub\"\n[models.m]\ntarget = 1",
            "[providers.a]\nadapter = \"stub\"\n[adapters.m]\npath = \"x\"",
            "[providers.a]\nadapter = \"stub\"\n[limits]\nmax_body_bytes = \"10 Mo\"",
            "[providers.a]\nadapter = \"stub\"\n[timeouts]\nidle = \"5 sek\"",
            "[providers.a]\nadapter = \"stub\"\n[server]\nthreads = \"many\"",
        ] {
            assert!(!validator.is_valid(&as_json(bad)), "the schema takes {bad:?}");
            assert!(Config::from_toml(bad, "f", &|_| None).is_err(), "the reader takes {bad:?}");
        }
    }
}
