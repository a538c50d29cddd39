//! Settings by an adapter's own schema.
#![cfg(feature = "schema")]

use witgate_config::Config;

const SCHEMA: &str = r##"{
    "type": "object",
    "properties": {
        "drop_unsupported": {"type": "boolean"},
        "api_version": {"enum": ["v1", "v2beta"]},
        "context": {"type": "integer", "minimum": 1},
        "region": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
        "model/map": {"type": "object", "additionalProperties": {"$ref": "#/$defs/entry"}},
        "list": {"type": "array", "items": {"type": ["string", "null"]}}
    },
    "required": ["context"],
    "additionalProperties": false,
    "$defs": {"entry": {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": false}}
}"##;

fn check(settings: &str, schema: &str) -> Vec<String> {
    let env = |name: &str| (name == "KEY").then(|| "sk-very-secret".to_owned());
    let text = format!("[providers.p]\nadapter = \"stub\"\n[providers.p.settings]\n{settings}");
    let config = Config::from_toml(&text, "witgate.toml", &env).unwrap_or_else(|p| panic!("{p}"));
    config.check_settings("p", schema).iter().map(ToString::to_string).collect()
}

#[test]
fn settings_that_match_have_no_problem() {
    let settings = "context = 5\napi_version = \"v1\"\n\"model/map\".a.name = \"b\"\nlist = [\"x\"]";
    assert_eq!(check(settings, SCHEMA), [""; 0]);
    assert_eq!(check("anything = 1", ""), [""; 0]);
    assert_eq!(check("anything = 1", "true"), [""; 0]);
    assert!(Config::builtin().check_settings("none", "{").is_empty());
}

#[test]
fn each_mistake_has_its_line_its_key_and_what_would_be_right() {
    let found = check(
        "drop_unsuported = true\nzzz = 1\ndrop_unsupported = \"yes\"\napi_version = \"v2bata\"\ncontext = 0\n\
         region = \"${KEY}\"\nlist = [\"a\", 1]\n[providers.p.settings.\"model/map\".\"a.b\"]\nnam = \"x\"",
        SCHEMA,
    );
    assert_eq!(
        found,
        [
            "witgate.toml:4:1: providers.p.settings: unknown key \"drop_unsuported\"; did you mean \"drop_unsupported\"?",
            "witgate.toml:5:1: providers.p.settings: unknown key \"zzz\"; the keys here are \"api_version\", \
             \"context\", \"drop_unsupported\", \"list\", \"model/map\" and \"region\"",
            "witgate.toml:6:20: providers.p.settings.drop_unsupported: expected boolean, found string",
            "witgate.toml:7:15: providers.p.settings.api_version: not one of the values that the adapter takes; \
             did you mean \"v2beta\"?",
            "witgate.toml:8:11: providers.p.settings.context: the value is less than the minimum of 1",
            "witgate.toml:9:10: providers.p.settings.region: the value does not match \"^[a-z]+$\"",
            "witgate.toml:9:10: providers.p.settings.region: the value is longer than 5 characters",
            "witgate.toml:10:14: providers.p.settings.list[1]: expected null or string, found integer",
            "witgate.toml:12:1: providers.p.settings.\"model/map\".\"a.b\": unknown key \"nam\"; did you mean \"name\"?",
        ]
    );
    assert_eq!(
        check("api_version = \"newest\"", SCHEMA),
        [
            "witgate.toml:3:14: providers.p.settings: the key \"context\" is missing",
            "witgate.toml:4:15: providers.p.settings.api_version: not one of the values that the adapter takes; \
             write one of \"v1\" and \"v2beta\"",
        ]
    );
}

#[test]
fn a_schema_that_cannot_be_used_is_a_problem_and_no_hang() {
    let many: Vec<String> = (0..40)
        .map(|i| format!(r##""d{i}": {{"allOf": [{{"$ref": "#/$defs/d{0}"}}, {{"$ref": "#/$defs/d{0}"}}]}}"##, i + 1))
        .collect();
    let many = format!(r##"{{"$ref": "#/$defs/d0", "$defs": {{{}, "d40": {{}}}}}}"##, many.join(","));
    let deep = "[".repeat(100_000);
    for (schema, why) in [
        ("{", "EOF while parsing an object at line 1 column 1"),
        (deep.as_str(), "recursion limit exceeded at line 1 column 128"),
        (r##"{"$ref": "#"}"##, "a $ref in it does not have the form \"#/$defs/name\""),
        (r#"{"$ref": "http://localhost/x"}"#, "a $ref in it does not have the form \"#/$defs/name\""),
        (
            r##"{"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}"##,
            "a $ref in it leads back to itself",
        ),
        (r##"{"$dynamicRef": "#x"}"##, "it uses $dynamicRef"),
        (many.as_str(), "with every $ref written out it holds more than 10000 schemas"),
    ] {
        let expected = format!(
            "witgate.toml:2:11: providers.p.adapter: the settings schema of the adapter \"stub\" cannot be used: {why}"
        );
        assert_eq!(check("", schema), [expected]);
    }
    for schema in [r#"{"type": 1}"#, r#"{"pattern": "("}"#, r##"{"$ref": "#/$defs/none"}"##] {
        let found = check("", schema);
        assert!(found.len() == 1 && found[0].contains("cannot be used: "), "{found:?}");
    }
    let long = format!("{{\"title\": \"{}\"}}", "x".repeat(1 << 20));
    assert!(check("", &long)[0].ends_with("it is larger than 1MiB"));
}
