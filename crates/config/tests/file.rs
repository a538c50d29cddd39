//! The file: what it means, and every rule with its message.

use std::time::Duration;

use witgate_config::{
    AdapterRef, Cache, CacheWhen, ComponentSource, Config, Health, Hedge, HedgeAfter, Limits, OnFailure, Origin,
    PolicySource, QueueKind, Retry, Secret, Source, Sticky, Store, Strategy, Target, Timeouts, Unpriced,
};

fn env(name: &str) -> Option<String> {
    match name {
        "KEY" => Some("sk-very-secret".into()),
        "EMPTY" => Some(String::new()),
        "THREADS" => Some("3".into()),
        "TRUSTED" => Some("true".into()),
        "URL" => Some("http://10.0.0.1:8000/".into()),
        "BAD" => Some("hunter2 hunter2".into()),
        _ => None,
    }
}

const STUB: &str = "[providers.stub]\nadapter = \"stub\"\n";

fn good(text: &str) -> Config {
    Config::from_toml(text, "witgate.toml", &env).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The problems of the text behind a good provider, on lines from 3 on.
fn after_stub(text: &str) -> String {
    problems(&format!("{STUB}{text}"))
}

fn problems(text: &str) -> String {
    match Config::from_toml(text, "witgate.toml", &env) {
        Ok(config) => panic!("no problem found: {config:?}"),
        Err(problems) => problems.to_string(),
    }
}

/// Each text gives exactly these lines, the file's name left out.
#[track_caller]
fn gives(text: &str, expected: &[&str]) {
    let found = after_stub(text);
    let found: Vec<&str> = found.lines().map(|line| line.strip_prefix("witgate.toml:").unwrap_or(line)).collect();
    assert_eq!(found, expected, "for {text}");
}

fn target(provider: &str, model: Option<&str>) -> Target {
    Target::new(provider, model.map(str::to_owned))
}

#[test]
fn a_file_with_one_provider_has_every_default() {
    let config = good(STUB);
    assert_eq!(config.server.listen, "127.0.0.1:8080");
    assert!(config.server.api_keys.is_empty());
    assert_eq!(config.server.threads, 0);
    assert_eq!(config.server.keep_alive, Duration::from_secs(15));
    assert_eq!(config.server.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(config.timeouts, Timeouts::DEFAULT);
    assert_eq!(config.limits, Limits::DEFAULT);
    assert_eq!(config.limits.max_body_bytes, 10_485_760);
    assert_eq!(config.origin, Origin::File("witgate.toml".into()));
    let stub = &config.providers["stub"];
    assert_eq!(stub.adapter, AdapterRef::Builtin("stub".into()));
    assert!(stub.endpoints.is_empty() && stub.secrets.is_empty() && stub.headers.is_empty());
    assert_eq!(stub.settings, serde_json::json!({}));
    assert_eq!(stub.timeouts, Timeouts::DEFAULT);
    assert!(config.models.is_empty());
}

#[test]
fn every_key_is_read() {
    let config = good(
        r#"
        [server]
        listen = "[::1]:0"
        api_keys = ["one", "${KEY}"]
        threads = "${THREADS}"
        keep_alive = "1.5s"
        shutdown_timeout = 2
        [timeouts]
        connect = "250ms"
        idle = "2m"
        [limits]
        max_body_bytes = "1MB"
        max_header_bytes = 8192
        max_concurrent_requests = 0x10
        max_json_depth = 32
        max_messages = 1_000
        max_frame_bytes = "1 MiB"
        max_response_bytes = "1.5KiB"
        max_events_per_frame = 10
        max_instance_memory_bytes = "128mib"
        adapter_call_timeout = 0.25
        [providers.a]
        adapter = "mine"
        endpoint = "${URL}"
        api_key = "${KEY}"
        secrets = { other = "x", none = "${EMPTY}" }
        headers = { X-Tenant = "t" }
        timeouts.total = "1h"
        [providers.a.settings]
        text = "a"
        list = [1, 2.5, true, 1979-05-27]
        table.inner = "$$${KEY}"
        [providers."b.c"]
        adapter = "./b.wasm"
        endpoints = ["https://EXAMPLE.org/v1/", "http://[::1]:8080", "stub:"]
        [models.fast]
        targets = ["a/org/tiny", "b.c", { provider = "a", model = "x" }, { provider = "a" }]
        [models."*"]
        target = "a"
        [adapters.mine]
        path = "adapters/mine.wasm"
        trusted = "${TRUSTED}"
        [adapters.stub]
        path = "adapters/stub.wasm"
        max_memory_bytes = "16MiB"
        max_table_elements = 30000
        call_timeout = "5s"
        "#,
    );
    assert_eq!(config.server.listen, "[::1]:0");
    let clients = ["one", "sk-very-secret", "One", ""].map(|key| config.server.client(Some(key)));
    assert_eq!((clients, config.server.client(None)), ([Some(0), Some(1), None, None], None));
    assert_eq!((config.server.threads, config.server.keep_alive), (3, Duration::from_millis(1_500)));
    assert_eq!(config.server.shutdown_timeout, Duration::from_secs(2));
    let limits = Limits {
        max_body_bytes: 1_000_000,
        max_header_bytes: 8_192,
        max_concurrent_requests: 16,
        max_json_depth: 32,
        max_messages: 1_000,
        max_frame_bytes: 1_048_576,
        max_response_bytes: 1_536,
        max_events_per_frame: 10,
        max_instance_memory_bytes: 134_217_728,
        adapter_call_timeout: Duration::from_millis(250),
    };
    assert_eq!(config.limits, limits);
    let timeouts =
        Timeouts { connect: Duration::from_millis(250), idle: Duration::from_secs(120), ..Timeouts::DEFAULT };
    assert_eq!(config.timeouts, timeouts);
    let a = &config.providers["a"];
    assert_eq!(a.name, "a");
    assert_eq!(a.adapter, AdapterRef::Configured("mine".into()));
    assert_eq!(a.endpoints, ["http://10.0.0.1:8000"]);
    assert_eq!(a.secrets.keys().collect::<Vec<_>>(), ["api_key", "other"], "an empty secret is absent");
    assert_eq!(a.secrets["api_key"].expose(), "sk-very-secret");
    assert_eq!(a.headers["x-tenant"].expose(), "t");
    assert_eq!(a.timeouts, Timeouts { total: Duration::from_secs(3_600), ..timeouts });
    let settings = serde_json::json!({
        "text": "a", "list": [1, 2.5, true, "1979-05-27"], "table": {"inner": "$sk-very-secret"},
    });
    assert_eq!(a.settings, settings);
    let b = &config.providers["b.c"];
    assert_eq!(b.adapter, AdapterRef::Path("./b.wasm".into()));
    assert_eq!(b.endpoints, ["https://example.org/v1", "http://[::1]:8080", "stub:"]);
    assert_eq!(b.timeouts, timeouts);
    assert_eq!(
        config.models["fast"].targets,
        [target("a", Some("org/tiny")), target("b.c", None), target("a", Some("x")), target("a", None)]
    );
    let mine = &config.adapters["mine"];
    assert_eq!((mine.component.source.to_string().as_str(), mine.trusted), ("adapters/mine.wasm", true));
    assert_eq!((mine.max_memory_bytes, mine.call_timeout), (134_217_728, Duration::from_millis(250)));
    let stub = &config.adapters["stub"];
    assert_eq!((stub.trusted, stub.max_memory_bytes, stub.call_timeout), (false, 16 << 20, Duration::from_secs(5)));
    assert_eq!((mine.max_table_elements, stub.max_table_elements), (20_000, 30_000));
}

#[test]
fn an_own_adapter_may_replace_a_built_in_one() {
    let config = good("[providers.a]\nadapter = \"stub\"\n[adapters.stub]\npath = \"s.wasm\"");
    assert_eq!(config.providers["a"].adapter, AdapterRef::Configured("stub".into()));
}

#[test]
fn variables_are_filled_in_and_two_dollars_are_one() {
    let config = good(
        "[providers.p]\nadapter = \"stub\"\n[providers.p.settings]\na = \"$$HOME $x $\"\nb = \"${NONE:-d:-e}\"\nc = \
         \"${EMPTY:-x}\"\nd = \"<${EMPTY}>\"\ne = \"$${KEY}\"\nf = \"${NONE:-}\"\ng = '${THREADS}${THREADS}'",
    );
    let settings = serde_json::json!({
        "a": "$HOME $x $", "b": "d:-e", "c": "x", "d": "<>", "e": "${KEY}", "f": "", "g": "33",
    });
    assert_eq!(config.providers["p"].settings, settings);
}

#[test]
fn a_missing_variable_names_itself_its_line_and_its_key() {
    gives(
        "api_key = \"Bearer ${NONE}\"",
        &["3:11: providers.stub.api_key: the environment variable NONE is not set; \
           set it, or give a default: ${NONE:-…}"],
    );
}

#[test]
fn a_variable_that_is_none_is_reported_without_its_text() {
    gives(
        "api_key = \"${sk-123}\"\nendpoint = \"${open\"\nsettings.a = \"${A:-${B}}\"",
        &[
            "3:11: providers.stub.api_key: a \"${…}\" that is no variable; write ${NAME} or ${NAME:-default}; \
             a name is letters, digits and \"_\", and a default is plain text",
            "4:12: providers.stub.endpoint: a \"${\" without its \"}\"; write ${NAME}, or $${ for the characters \
             themselves",
            "5:14: providers.stub.settings.a: a \"${…}\" that is no variable; write ${NAME} or ${NAME:-default}; \
             a name is letters, digits and \"_\", and a default is plain text",
        ],
    );
}

#[test]
fn an_unknown_key_is_reported_with_the_nearest_right_one() {
    gives(
        "endpiont = \"x\"\nurl = 1\nAPI-KEY = 1\nzzz = 1\n[providers.stub.timeouts]\nconect = 1\n[sever]\n[models]\n\
         x = { tagret = \"stub\" }",
        &[
            "3:1: providers.stub: unknown key \"endpiont\"; did you mean \"endpoint\"?",
            "4:1: providers.stub: unknown key \"url\"; did you mean \"endpoint\"?",
            "5:1: providers.stub: unknown key \"API-KEY\"; did you mean \"api_key\"?",
            "6:1: providers.stub: unknown key \"zzz\"; the keys here are \"adapter\", \"endpoint\", \"endpoints\", \
             \"strategy\", \"sticky\", \"concurrency\", \"retry\", \"health\", \"hedge\", \"api_key\", \"api_keys\", \
             \"secrets\", \"settings\", \"headers\", \"timeouts\"",
            "8:1: providers.stub.timeouts: unknown key \"conect\"; did you mean \"connect\"?",
            "9:2: unknown key \"sever\"; did you mean \"server\"?",
            "11:7: models.x: unknown key \"tagret\"; did you mean \"target\"?",
        ],
    );
}

#[test]
fn syntax_errors_are_all_reported_and_hide_what_they_may_have_swallowed() {
    gives(
        "api_key = \n[limits]\nmax_messages = 0\n[server]\nlisten = \"127.0.0.1:80\nthreads = true\n[server]\n",
        &[
            "3:11: string values must be quoted, expected literal string",
            "5:16: limits.max_messages: 0 is out of range; write one from 1 to 1000000",
            "7:23: invalid basic string, expected `\"`",
            "8:11: server.threads: expected a whole number, found a boolean",
            "9:2: duplicate key; write each key and each table once",
        ],
    );
}

#[test]
fn a_name_that_is_there_twice_is_reported() {
    gives(
        "[models.a]\ntarget = \"stub\"\n[models.a]\ntarget = \"stub\"\ntarget = \"stub\"",
        &[
            "5:9: duplicate key; write each key and each table once",
            "6:1: duplicate key; write each key and each table once",
            "7:1: duplicate key; write each key and each table once",
        ],
    );
}

#[test]
fn wrong_types_say_what_was_expected() {
    gives(
        "endpoint = 1\nendpoints = \"x\"\nsecrets = \"sk-1\"\nsettings = []\nheaders = 1\ntimeouts = \"5s\"\napi_key = \
         true\n[server]\nlisten = 80\napi_keys = [1]\nthreads = \"2\"\nkeep_alive = true\n[limits]\nmax_body_bytes = \
         1.5\nmax_messages = -1\n[models]\na = \"stub\"\n[models.b]\ntarget = 1\n[adapters.x]\npath = \"x.wasm\"\n\
         trusted = \"yes\"",
        &[
            "3:12: providers.stub.endpoint: expected a string, found an integer",
            "4:13: providers.stub.endpoints: expected an array, found a string",
            "5:11: providers.stub.secrets: expected a table, found a string",
            "6:12: providers.stub.settings: expected a table, found an array",
            "7:11: providers.stub.headers: expected a table, found an integer",
            "8:12: providers.stub.timeouts: expected a table, found a string",
            "9:11: providers.stub.api_key: expected a string, found a boolean",
            "11:10: server.listen: expected a string, found an integer",
            "12:13: server.api_keys[0]: expected a string, found an integer",
            "13:11: server.threads: expected a whole number, found a string",
            "14:14: server.keep_alive: expected a duration, found a boolean; \
             write \"15s\", \"500ms\", \"2m\", \"1h\" or a number of seconds",
            "16:18: limits.max_body_bytes: expected a size, found a float; \
             write \"10MiB\", \"64KiB\", \"2GB\" or a number of bytes",
            "17:16: limits.max_messages: -1 is out of range; write a number from 0 to 4294967295",
            "19:5: models.a: expected a table, found a string",
            "21:10: models.b.target: not a target; write \"provider/model\" or { provider = \"…\", model = \"…\" }",
            "24:11: adapters.x.trusted: expected true or false, found a string",
        ],
    );
    assert_eq!(
        problems("providers = 1"),
        "witgate.toml:1:13: providers: expected a table, found an integer",
        "and not that there is none as well"
    );
}

#[test]
fn durations_and_sizes_say_what_would_be_right() {
    const TIME: &str = "write \"15s\", \"500ms\", \"2m\", \"1h\" or a number of seconds";
    const SIZE: &str = "write \"10MiB\", \"64KiB\", \"2GB\" or a number of bytes";
    for bad in ["15 sek", "", "s", "-1s", "1e3", ".5s", "5.s", "1s 2s", "١s", "99999999999999999999999999s", "1.2.3s"]
    {
        gives(
            &format!("timeouts.idle = \"{bad}\""),
            &[&format!("3:17: providers.stub.timeouts.idle: {bad:?} is not a duration; {TIME}")],
        );
    }
    gives("timeouts.idle = -1", &[&format!("3:17: providers.stub.timeouts.idle: -1 is not a duration; {TIME}")]);
    for bad in ["10 Mib/s", "", "ten", "-1KiB", "0.5B", "9999999GiB", "1TiB"] {
        gives(
            &format!("[limits]\nmax_body_bytes = \"{bad}\""),
            &[&format!("4:18: limits.max_body_bytes: {bad:?} is not a size; {SIZE}")],
        );
    }
    gives("[limits]\nmax_body_bytes = -1", &[&format!("4:18: limits.max_body_bytes: -1 is not a size; {SIZE}")]);
    gives(
        "timeouts.idle = \"${BAD}\"",
        &[&format!("3:17: providers.stub.timeouts.idle: the value of ${{BAD}} is not a duration; {TIME}")],
    );
}

#[test]
fn nothing_and_absurd_amounts_are_refused() {
    gives(
        "[timeouts]\nconnect = 0\nfirst_token = \"25h\"\nidle = \"0s\"\ntotal = 86401\n[server]\nthreads = 1025\n\
         keep_alive = \"1ms\"\nshutdown_timeout = \"2h\"\n[limits]\nmax_body_bytes = 0\nmax_header_bytes = \"2MiB\"\n\
         max_concurrent_requests = 0\nmax_json_depth = 3\nmax_messages = 1000001\nmax_frame_bytes = 1023\n\
         max_response_bytes = \"1.5GiB\"\nmax_events_per_frame = 65537\nmax_instance_memory_bytes = \"64KiB\"\n\
         adapter_call_timeout = \"61s\"\n[adapters.x]\npath = \"x.wasm\"\nmax_memory_bytes = \"4GiB\"\ncall_timeout = 0",
        &[
            "4:11: timeouts.connect: 0s is out of range; write one from 1ms to 600s",
            "5:15: timeouts.first_token: 25h is out of range; write one from 1ms to 24h",
            "6:8: timeouts.idle: 0s is out of range; write one from 1ms to 24h",
            "7:9: timeouts.total: 86401s is out of range; write one from 1ms to 24h",
            "9:11: server.threads: 1025 is out of range; write one from 0 to 1024",
            "10:14: server.keep_alive: 1ms is out of range; write one from 10ms to 1h",
            "11:20: server.shutdown_timeout: 2h is out of range; write one from 1ms to 1h",
            "13:18: limits.max_body_bytes: 0B is out of range; write one from 1KiB to 1GiB",
            "14:20: limits.max_header_bytes: 2MiB is out of range; write one from 1KiB to 1MiB",
            "15:27: limits.max_concurrent_requests: 0 is out of range; write one from 1 to 1000000",
            "16:18: limits.max_json_depth: 3 is out of range; write one from 4 to 512",
            "17:16: limits.max_messages: 1000001 is out of range; write one from 1 to 1000000",
            "18:19: limits.max_frame_bytes: 1023B is out of range; write one from 1KiB to 1GiB",
            "19:22: limits.max_response_bytes: 1536MiB is out of range; write one from 1KiB to 1GiB",
            "20:24: limits.max_events_per_frame: 65537 is out of range; write one from 1 to 65536",
            "21:29: limits.max_instance_memory_bytes: 64KiB is out of range; write one from 1MiB to 2GiB",
            "22:24: limits.adapter_call_timeout: 61s is out of range; write one from 1ms to 60s",
            "25:20: adapters.x.max_memory_bytes: 4GiB is out of range; write one from 1MiB to 2GiB",
            "26:16: adapters.x.call_timeout: 0s is out of range; write one from 1ms to 60s",
        ],
    );
    gives(
        "settings = { a = 99999999999999999999, b = inf }",
        &[
            "3:18: providers.stub.settings.a: a number that does not fit into 64 bits",
            "3:44: providers.stub.settings.b: a number that is not finite",
        ],
    );
}

#[test]
fn a_place_to_listen_has_a_host_and_a_port() {
    for bad in ["8080", "localhost", "localhost:", ":80", "localhost:65536", "[::1]", "::1:80", "a b:80", "http://a:80"]
    {
        gives(
            &format!("[server]\nlisten = \"{bad}\""),
            &[&format!(
                "4:10: server.listen: {bad:?} is no place to listen; write \"host:port\", as \"127.0.0.1:8080\", \
                 \"0.0.0.0:80\" or \"[::]:8080\""
            )],
        );
    }
    for fine in ["localhost:0", "0.0.0.0:80", "[::]:8080", "my-host.example:65535"] {
        assert_eq!(good(&format!("{STUB}[server]\nlisten = \"{fine}\"")).server.listen, fine);
    }
}

#[test]
fn an_empty_key_does_not_open_the_server() {
    gives(
        "[server]\napi_keys = [\"${EMPTY}\", \"a\\n\", \"ü\", \" a\"]",
        &[
            "4:13: server.api_keys[0]: an empty key; write a key, or remove the empty one; without any key the server \
             is open to all",
            "4:25: server.api_keys[1]: a key must not hold line ends, blanks at its ends, or characters beyond ASCII",
            "4:32: server.api_keys[2]: a key must not hold line ends, blanks at its ends, or characters beyond ASCII",
            "4:37: server.api_keys[3]: a key must not hold line ends, blanks at its ends, or characters beyond ASCII",
        ],
    );
}

#[test]
fn bad_urls_are_reported_each_with_its_reason() {
    const EXAMPLE: &str = "write \"http://host:port\" or \"https://host/path\"";
    for (url, what, help) in [
        ("", "the URL is empty", EXAMPLE),
        ("localhost:8000", "\"localhost:8000\" has no scheme", EXAMPLE),
        ("ftp://a", "\"ftp://a\" has a scheme that is neither http nor https", EXAMPLE),
        ("http://", "\"http://\" has no host", EXAMPLE),
        ("http://:80", "\"http://:80\" has no host", EXAMPLE),
        ("http://a..b", "\"http://a..b\" has a host that is neither a name nor an address", EXAMPLE),
        ("http://a:0", "\"http://a:0\" has a port that is not a number from 1 to 65535", EXAMPLE),
        ("http://a:65536", "\"http://a:65536\" has a port that is not a number from 1 to 65535", EXAMPLE),
        ("http://a:+1", "\"http://a:+1\" has a port that is not a number from 1 to 65535", EXAMPLE),
        ("http://a:b:c", "\"http://a:b:c\" has a port that is not a number from 1 to 65535", EXAMPLE),
        ("http://[::1", "\"http://[::1\" has a \"[\" without its \"]\"", "write \"http://[::1]:8080\""),
        ("http://[::x]", "\"http://[::x]\" has no IPv6 address between its brackets", "write \"http://[::1]:8080\""),
        ("http://[::1]a", "\"http://[::1]a\" has something behind its \"]\" that is no port", EXAMPLE),
        ("http://a/?b=c", "\"http://a/?b=c\" has a query (\"?\")", "an endpoint ends with its path"),
        ("http://a#b", "\"http://a#b\" has a fragment (\"#\")", "an endpoint ends with its path"),
        ("http://a/b/../c", "\"http://a/b/../c\" has an empty segment, a \".\" or a \"..\" in its path", EXAMPLE),
        ("http://a//b", "\"http://a//b\" has an empty segment, a \".\" or a \"..\" in its path", EXAMPLE),
        ("http://a/%4", "\"http://a/%4\" has a character in its path that must be percent-encoded", EXAMPLE),
        ("http://a/b c", "\"http://a/b c\" holds a blank, a control character or one beyond ASCII", EXAMPLE),
        (
            "http://me:pass@a",
            "the URL holds a user or a password",
            "put it under `secrets`, as in `api_key = \"${NAME}\"`",
        ),
        ("${BAD}", "the value of ${BAD} holds a blank, a control character or one beyond ASCII", EXAMPLE),
    ] {
        gives(&format!("endpoint = \"{url}\""), &[&format!("3:12: providers.stub.endpoint: {what}; {help}")]);
    }
    gives(
        "endpoints = [\"http://a\", \"b\"]",
        &[&format!("3:26: providers.stub.endpoints[1]: \"b\" has no scheme; {EXAMPLE}")],
    );
}

#[test]
fn one_thing_written_in_two_ways_is_refused() {
    gives(
        "endpoint = \"http://a\"\nendpoints = [\"http://b\"]\napi_key = \"a\"\nsecrets.api_key = \"b\"\n\
         headers = { A = \"1\", a = \"2\" }\n[models.m]\ntarget = \"stub\"\ntargets = [\"stub\"]",
        &[
            "4:13: providers.stub: both \"endpoint\" and \"endpoints\"; put all of them in \"endpoints\"",
            "5:11: providers.stub: both \"api_key\" and \"secrets.api_key\"; they are the same: keep one",
            "7:22: providers.stub.headers.a: this header is there twice; header names in capital and in small letters \
             are the same",
            "10:11: models.m: both \"target\" and \"targets\"; put all of them in \"targets\"",
        ],
    );
}

#[test]
fn headers_that_are_the_gateways_are_refused() {
    gives(
        "[providers.stub.headers]\nAuthorization = \"Bearer x\"\nhost = \"a\"\n\"a b\" = \"c\"\nx = \"${BAD}\\n\"",
        &[
            "4:1: providers.stub.headers.Authorization: the gateway writes this header itself; put the key in \
             \"api_key\" or under \"secrets\", and the adapter names it",
            "5:1: providers.stub.headers.host: the gateway writes this header itself; remove it",
            "6:1: providers.stub.headers.\"a b\": not a name for a header; write letters, digits and \"-\"",
            "7:5: providers.stub.headers.x: a header must not hold line ends, blanks at its ends, or characters beyond \
             ASCII; check the value of ${BAD}",
        ],
    );
}

#[test]
fn a_provider_needs_an_adapter_that_there_is() {
    gives(
        "[providers.a]\n[providers.b]\nadapter = \"lama-cpp\"\n[providers.c]\nadapter = \"gemini\"\n[providers.d]\n\
         adapter = \"min\"\n[providers.e]\nadapter = \".wasm\"\n[providers.f]\nadapter = \"${KEY}\"\n[adapters.mine]\n\
         path = \"mine.wasm\"",
        &[
            "3:12: providers.a: the key \"adapter\" is missing",
            "5:11: providers.b.adapter: no adapter \"lama-cpp\"; did you mean \"llama-cpp\"?",
            "7:11: providers.c.adapter: no adapter \"gemini\"; write \"anthropic\", \"bedrock\", \"llama-cpp\", \"ollama\", \"openai\", \"sagemaker\", \"stub\" \
             and \"mine\", or a path that ends in \".wasm\"",
            "9:11: providers.d.adapter: no adapter \"min\"; did you mean \"mine\"?",
            "11:11: providers.e.adapter: no adapter \".wasm\"; write \"anthropic\", \"bedrock\", \"llama-cpp\", \"ollama\", \"openai\", \"sagemaker\", \"stub\" \
             and \"mine\", or a path that ends in \".wasm\"",
            "13:11: providers.f.adapter: there is no adapter of the name in ${KEY}; write \"anthropic\", \"bedrock\", \"llama-cpp\", \"ollama\", \
             \"openai\", \"sagemaker\", \"stub\" and \"mine\", or a path that ends in \".wasm\"",
        ],
    );
}

#[test]
fn a_component_has_one_source_and_a_url_a_digest() {
    let digest = format!("sha256:{}", "0aF9".repeat(16));
    let config = good(&format!(
        "[providers.a]\nadapter = \"stub\"\n[adapters]\nfile = {{ path = \"a.wasm\", digest = \"{digest}\" }}\n\
         url = {{ url = \"https://host/a.wasm?token=t\", digest = \"{digest}\" }}\n\
         here = {{ url = \"http://[::1]:80/a.wasm\", digest = \"{digest}\" }}\n\
         plain = {{ url = \"http://host/a.wasm\", digest = \"{digest}\", insecure = true }}\n\
         oci = {{ oci = \"Ghcr.io/acme/some__shout-er:1.0_b\" }}\npinned = {{ oci = \"localhost/a@{digest}\" }}\n\
         [policies]\nmine = {{ oci = \"host:5000/a/b/c:1@{digest}\" }}"
    ));
    let shown = |name: &str| config.adapters[name].component.source.to_string();
    assert_eq!(config.adapters["file"].component.digest.as_ref().unwrap().as_str(), digest.to_lowercase());
    assert_eq!(
        (shown("url").as_str(), shown("oci").as_str()),
        ("https://host/a.wasm", "oci:ghcr.io/acme/some__shout-er:1.0_b")
    );
    assert_eq!(shown("pinned"), format!("oci:localhost/a@{}", digest.to_lowercase()));
    let PolicySource::Component(mine) = &config.policies["mine"].source else { panic!("built in") };
    let ComponentSource::Oci(reference) = &mine.source else { panic!("{:?}", mine.source) };
    assert_eq!((reference.registry.as_str(), reference.repository.as_str()), ("host:5000", "a/b/c"));
    assert!(reference.tag.as_deref() == Some("1") && reference.digest.is_some());

    gives(
        "[adapters]\na = { path = \"a.wasm\", url = \"https://h/a\" }\nb = { url = \"https://h/a\" }\n\
         c = { url = \"http://h/a?token=t\", digest = \"sha256:12\" }\nd = { oci = \"shout:1\" }\n\
         e = { oci = \"ghcr.io/Acme/shout:1\" }\nf = { oci = \"ghcr.io/acme/shout\" }\n\
         g = { url = \"https://me:secret@h/a\" }\nh = { path = \"a.wasm\", insecure = true }\n\
         i = { oci = \"ghcr.io/acme/shout:1@sha256:0\" }\n[policies]\nguard = { digest = \"sha256:0\" }\n\
         own = { component = \"a.wasm\", oci = \"h:1/a:1\" }\n[providers.x]\nadapter = \"stub\"",
        &[
            "4:30: adapters.a: both \"path\" and \"url\"; keep one: a component has one source",
            "5:13: adapters.b: a URL without a digest; write digest = \"sha256:…\", the SHA-256 of the file: \"witgate \
             adapters add b URL\" does",
            "6:13: adapters.c.url: the URL is not encrypted; write https, or insecure = true where the way there is \
             trusted",
            "6:44: adapters.c.digest: not a digest; write \"sha256:\" and 64 hexadecimal digits",
            "7:13: adapters.d.oci: \"shout:1\" names no registry; write registry/repository:tag, as \
             ghcr.io/acme/shout:1.0",
            "8:13: adapters.e.oci: \"ghcr.io/Acme/shout:1\" names a repository that is none; a repository is small \
             letters and digits, parted by \".\", \"_\", \"-\" and \"/\"",
            "9:13: adapters.f.oci: \"ghcr.io/acme/shout\" has neither a tag nor a digest; write \
             registry/repository:tag, as ghcr.io/acme/shout:1.0",
            "10:13: adapters.g.url: the URL holds a user or a password; fetch the file yourself and write path = \
             \"….wasm\"",
            "11:35: adapters.h.insecure: only with \"url\" or \"oci\"; leave it out: a file is not fetched",
            "12:13: adapters.i.oci: \"ghcr.io/acme/shout:1@sha256:0\" has no digest behind its \"@\"; write \"sha256:\" \
             and 64 hexadecimal digits behind \"@\"",
            "14:20: policies.guard.digest: only with a component of your own; leave it out: this policy comes with \
             witgate",
            "15:37: policies.own: both \"component\" and \"oci\"; keep one: a component has one source",
        ],
    );
    // What is only being developed needs no digest.
    good("[plugins]\ndevelopment = true\n[adapters.a]\nurl = \"https://h/a\"\n[providers.x]\nadapter = \"a\"");
}

#[test]
fn an_adapter_entry_needs_a_name_and_a_component() {
    gives(
        "[adapters.Mine]\npath = \"mine.wasm\"\n[adapters.a]\n[adapters.b]\npath = \"b.so\"\n\
         [providers.x]\nadapter = \"b\"",
        &[
            "3:11: adapters.Mine: not a name for an adapter; write small letters, digits and \"-\", a letter first, at \
             most 64",
            "5:11: adapters.a: it is not said where the component is; write path = \"….wasm\", url = \"https://…\" with a \
             digest, or oci = \"…\"",
            "7:8: adapters.b.path: not the path of a component; write the path of a component file that ends in \
             \".wasm\"",
        ],
    );
}

#[test]
fn a_target_needs_a_provider_that_there_is() {
    gives(
        "[models.a]\ntarget = \"stb/x\"\n[models.b]\ntargets = [\"stub\", { provider = \"openai\" }]\n[models.c]\n\
         targets = []\n[models.d]\n[models.e]\ntarget = \"stub/\"\n[models.f]\ntarget = { model = \"x\" }\n[models.g]\n\
         target = \"${KEY}\"",
        &[
            "4:10: models.a.target: no provider \"stb\"; did you mean \"stub\"?",
            "6:20: models.b.targets[1]: no provider \"openai\"; the providers are \"stub\"",
            "8:11: models.c.targets: no target; write \"provider/model\"",
            "9:9: models.d: the key \"target\" or \"targets\" is missing; write target = \"provider/model\"",
            "11:10: models.e.target: the model's name is empty; write \"provider/model\", or \"provider\" for the name \
             as the client wrote it",
            "13:10: models.f.target: the key \"provider\" is missing",
            "15:10: models.g.target: there is no provider of the name in ${KEY}; the providers are \"stub\"",
        ],
    );
}

#[test]
fn a_target_may_name_a_provider_with_a_problem_of_its_own() {
    gives(
        "[providers.a]\nadapter = \"x\"\n[models.m]\ntarget = \"a/b\"",
        &[
            "4:11: providers.a.adapter: no adapter \"x\"; write \"anthropic\", \"bedrock\", \"llama-cpp\", \"ollama\", \"openai\", \"sagemaker\" and \"stub\", or a \
           path that ends in \".wasm\"",
        ],
    );
}

#[test]
fn names_that_could_not_be_asked_for_are_refused() {
    gives(
        "[providers.\"a/b\"]\nadapter = \"stub\"\n[providers.\"\"]\nadapter = \"stub\"\n[models.\"\"]\ntarget = \
         \"stub\"\n[models.\" x\"]\ntarget = \"stub\"\n[models.\"stub/x\"]\ntarget = \"stub\"\n[models.\"org/x\"]\n\
         target = \"stub\"",
        &[
            "3:12: providers.\"a/b\": not a name for a provider; write letters, digits, \".\", \"_\" and \"-\", a \
             letter or digit first, at most 64",
            "5:12: providers.\"\": not a name for a provider; write letters, digits, \".\", \"_\" and \"-\", a letter \
             or digit first, at most 64",
            "7:9: models.\"\": not a name for a model; write 1 to 256 characters, without blanks at the ends and \
             without control characters",
            "9:9: models.\" x\": not a name for a model; write 1 to 256 characters, without blanks at the ends and \
             without control characters",
            "11:9: models.\"stub/x\": this name hides the model \"x\" of the provider \"stub\"; take a name that does \
             not start with \"stub/\"",
        ],
    );
}

#[test]
fn a_file_without_a_provider_is_refused() {
    let expected = "witgate.toml:1:1: providers: there is no provider; add one, for example [providers.stub] with \
                    adapter = \"stub\"";
    assert_eq!(problems(""), expected);
    assert_eq!(problems("[providers]"), expected);
    assert_eq!(problems("[server]\nthreads = 1"), expected);
}

#[test]
fn lists_and_files_have_bounds() {
    let targets = vec!["\"stub\""; 65].join(",");
    gives(
        &format!("[models.m]\ntargets = [{targets}]"),
        &["4:11: models.m.targets: too many targets; write at most 64"],
    );
    let endpoints = vec!["\"http://a\""; 257].join(",\n");
    gives(
        &format!("endpoints = [\n{endpoints}]"),
        &["260:1: providers.stub.endpoints: too many endpoints; write at most 256"],
    );
    let long = format!("{STUB}# {}", "x".repeat(1 << 20));
    assert_eq!(problems(&long), "witgate.toml:1:1: the file is larger than 1MiB");
    let many: String = (0..2_000).map(|i| format!("x{i} = 1\n")).collect();
    let found = after_stub(&many);
    assert_eq!(found.lines().count(), 101);
    assert!(found.ends_with("\nwitgate.toml: 900 more problems are not listed"), "{found}");
}

#[test]
fn columns_count_characters() {
    gives(
        "settings = { \"äöü\" = \"${NONE:-ß}\", b = \"${NONE}\" }",
        &[
            "3:40: providers.stub.settings.b: the environment variable NONE is not set; set it, or give a default: ${NONE:-…}",
        ],
    );
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let deep = format!("settings = {{ a = {}{} }}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(after_stub(&deep).contains("witgate.toml:3:"), "{}", after_stub(&deep));
    let dotted = format!("settings.{} = 1", vec!["a"; 100_000].join("."));
    let _ = Config::from_toml(&format!("{STUB}{dotted}"), "witgate.toml", &env);
}

#[test]
fn an_alias_comes_before_a_provider_and_any_name_last() {
    let text = format!(
        "{STUB}[providers.a]\nadapter = \"stub\"\n[models.a]\ntarget = \"stub/x\"\n[models.fast]\ntarget = \"a/y\"\n"
    );
    let config = good(&text);
    assert_eq!(config.resolve("a").unwrap(), [target("stub", Some("x"))]);
    assert_eq!(config.resolve("fast").unwrap(), [target("a", Some("y"))]);
    assert_eq!(config.resolve("a/org/z").unwrap(), [target("a", Some("org/z"))]);
    let unknown = config.resolve("other").unwrap_err();
    assert_eq!(unknown.known, ["a", "fast", "a/…", "stub/…"]);
    assert_eq!(unknown.to_string(), "no model \"other\"; known are \"a\", \"fast\", \"a/…\" and \"stub/…\"");
    assert_eq!(config.resolve("Fast").unwrap_err().nearest.as_deref(), Some("fast"));
    assert_eq!(config.resolve("stab/m").unwrap_err().to_string(), "no model \"stab/m\"; did you mean \"stub/m\"?");
    assert!(config.resolve("a/").is_err());
    assert_eq!(
        config.resolve("").unwrap_err().to_string(),
        "the request names no model, and none is the default; known are \"a\", \"fast\", \"a/…\" and \"stub/…\""
    );
    let long = "x".repeat(1 << 20);
    assert!(config.resolve(&long).unwrap_err().to_string().len() < 500);

    let config = good(&format!("{text}[models.\"*\"]\ntargets = [\"a\", \"stub/s\"]"));
    assert_eq!(config.resolve("other").unwrap(), [target("a", None), target("stub", Some("s"))]);
    assert_eq!(config.resolve("").unwrap(), [target("a", None), target("stub", Some("s"))]);
    assert_eq!(config.resolve("none/z").unwrap(), [target("a", None), target("stub", Some("s"))]);
    assert_eq!(config.resolve("a/z").unwrap(), [target("a", Some("z"))]);
}

#[test]
fn a_request_without_a_model_gets_the_default_or_the_only_one() {
    let one = format!("{STUB}[models.x]\ntarget = \"stub/x\"\n");
    assert_eq!(good(&one).resolve("").unwrap(), [target("stub", Some("x"))]);
    let any = format!("{one}[models.\"*\"]\ntarget = \"stub\"\n");
    assert_eq!(good(&any).resolve("").unwrap(), [target("stub", Some("x"))]);
    let default = format!("{any}[models.default]\ntarget = \"stub/d\"\n");
    assert_eq!(good(&default).resolve("").unwrap(), [target("stub", Some("d"))]);
}

#[test]
fn a_secret_is_never_printed() {
    let config = good(
        "[server]\napi_keys = [\"server-secret\"]\n[providers.p]\nadapter = \"stub\"\napi_key = \"${KEY}\"\n\
         headers = { x-tenant = \"header-secret\" }",
    );
    let shown = format!("{config:?} {config:#?} {}", config.providers["p"].secrets["api_key"]);
    assert!(!shown.contains("secret\"") && !shown.contains("very-secret") && shown.contains("[redacted]"), "{shown}");
    let secret = Secret::new("abc");
    assert!(secret.matches("abc") && !secret.matches("abd") && !secret.matches("ab") && !secret.matches(""));
}

#[test]
fn problems_of_others_find_their_place_in_the_file() {
    let config = good("[providers.\"b.c\"]\nadapter = \"x.wasm\"\nsecrets = { token = \"a\" }");
    let problem = config.problem("providers.\"b.c\".adapter", "no such file", None);
    assert_eq!(problem.to_string(), "witgate.toml:2:11: providers.\"b.c\".adapter: no such file");
    let problem = config.problem("providers.\"b.c\".endpoint[3].x", "missing", Some("add it".into()));
    assert_eq!(problem.to_string(), "witgate.toml:1:12: providers.\"b.c\".endpoint[3].x: missing; add it");
    assert_eq!(config.problem("server", "x", None).to_string(), "witgate.toml: server: x");
    let found: Vec<String> =
        config.check_secrets("b.c", &[("api_key", true), ("tokens", false)]).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "witgate.toml:1:12: providers.\"b.c\": the secret \"api_key\" is missing; write api_key = \"${NAME}\"",
            "witgate.toml:3:13: providers.\"b.c\".secrets.token: the adapter \"x.wasm\" takes no secret \"token\"; \
             did you mean \"tokens\"?",
        ]
    );
    assert!(config.check_secrets("b.c", &[("token", true), ("more", false)]).is_empty());
    assert!(config.check_secrets("none", &[("token", true)]).is_empty());
}

#[test]
fn what_an_older_service_needs_is_chosen_for_its_api_alone() {
    let text = r#"
[providers.rt]
adapter = "bedrock"
settings = { api = "invoke", region = "us-east-1" }
[providers.local]
adapter = "llama-cpp"
[models.local]
target = "local/tiny"
[dialects.bedrock-chat]
model = "rt/us.meta.llama3-1-8b-instruct-v1:0"
provider = "rt"
mock = false
legacy_status = true
[dialects.openai-chat]
model = "${ENDPOINT:-}"
facade = "sagemaker-proxy"
[dialects.openai-completions]
model = "local"
facade = "sagemaker-proxy"
[dialects.llm-exe]
escape = "html"
retries = 1
[dialects.llm-invocation]
legacy_status = true
backends.local = { model = "small", defaults = { temperature = 0.5 } }
"#;
    let config = Config::from_toml(text, "witgate.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    let seen =
        |dialect: &str| -> serde_json::Value { serde_json::from_str(&config.dialects[dialect].settings).unwrap() };
    let bedrock = serde_json::json!({"legacy_status": true, "mock": false, "provider": "rt"});
    assert_eq!(seen("bedrock-chat"), bedrock);
    assert_eq!(seen("openai-chat"), serde_json::json!({"facade": "sagemaker-proxy", "model": ""}));
    assert_eq!(seen("llm-exe"), serde_json::json!({"escape": "html", "retries": 1}));
    assert_eq!(config.dialects["openai-chat"].model, None);
    assert_eq!(seen("openai-completions"), serde_json::json!({"facade": "sagemaker-proxy", "model": "local"}));
    let backends = serde_json::json!({
        "local": {"shape": "openai", "model": "small", "defaults": {"temperature": 0.5}},
        "rt": {"shape": "invoke-model", "no_model": "name a model"},
    });
    assert_eq!(seen("llm-invocation"), serde_json::json!({"legacy_status": true, "backends": backends}));

    let text = r#"
[providers.local]
adapter = "llama-cpp"
[dialects.awa-llm]
mock = true
provider = "local"
[dialects.openai-chat]
facade = "sagemaker"
[dialects.bedrock-chat]
provider = "locl"
[dialects.llm-invocation.backends.loca]
model = "m"
[dialects.openai-embeddings]
facade = "sagemaker-proxy"
retries = 1
[dialects.llm-exe]
escape = "xml"
"#;
    let problems = Config::from_toml(text, "witgate.toml", &|_| None).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "witgate.toml:5:8: dialects.awa-llm.mock: this API has nothing of the kind; it is a key of \"bedrock-chat\"\n\
         witgate.toml:6:12: dialects.awa-llm.provider: this API has nothing of the kind; it is a key of \
         \"bedrock-chat\"\n\
         witgate.toml:8:10: dialects.openai-chat.facade: no facade \"sagemaker\"; write \"sagemaker-proxy\"\n\
         witgate.toml:10:12: dialects.bedrock-chat.provider: no provider \"locl\"; did you mean \"local\"?\n\
         witgate.toml:11:35: dialects.llm-invocation.backends.loca: no provider \"loca\"; did you mean \"local\"?\n\
         witgate.toml:14:10: dialects.openai-embeddings.facade: this API has nothing of the kind; it is a key of \
         \"openai-chat\" and \"openai-completions\"\n\
         witgate.toml:15:11: dialects.openai-embeddings.retries: this API has nothing of the kind; it is a key of \
         \"llm-exe\"\n\
         witgate.toml:17:10: dialects.llm-exe.escape: \"xml\" is no way to escape; write \"none\" or \"html\""
    );
}

#[test]
fn aws_credentials_are_two_secrets_or_three_and_never_one() {
    let problems = |secrets: &str| -> Vec<String> {
        let text = format!("[providers.b]\nadapter = \"bedrock\"\n[providers.b.secrets]\n{secrets}");
        let config = Config::from_toml(&text, "w.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        let slots = [("api_key", false), ("aws", false)];
        config.check_secrets("b", &slots).iter().map(ToString::to_string).collect()
    };
    let both = "aws_access_key_id = \"AKIDEXAMPLE\"\naws_secret_access_key = \"secret\"\n";
    assert_eq!(problems(both), [""; 0]);
    assert_eq!(problems(&format!("{both}aws_session_token = \"token\"")), [""; 0]);
    let half = problems("aws_access_key_id = \"AKIDEXAMPLE\"");
    assert!(half[0].contains("\"aws_secret_access_key\" is missing") && half[0].contains("${NAME}"), "{half:?}");
    let wrong = problems("aws_acess_key_id = \"AKIDEXAMPLE\"");
    assert!(wrong[0].contains("did you mean \"aws_access_key_id\"?"), "{wrong:?}");
    assert!(problems("aws = \"AKIDEXAMPLE\"")[0].contains("takes no secret \"aws\""));
}

#[test]
fn endpoints_have_weights_and_limits_of_their_own_before_those_of_all() {
    let config = good(
        "[providers.p]\nadapter = \"stub\"\nendpoints = [\"http://a\", { url = \"http://b/\", weight = 3, max_concurrent \
         = 7 }, { url = \"http://c\", max_concurrent = 0 }]\nstrategy = \"least-in-flight\"\nsticky = \
         \"header:X-Session\"\nconcurrency = { max = 4, queue = 9, wait = \"1s\" }\nretry.attempts = 3\n[retry]\nbudget = \
         50\n[health]\nrest = \"60s\"",
    );
    let p = &config.providers["p"];
    assert_eq!(p.endpoints, ["http://a", "http://b", "http://c"]);
    let options: Vec<_> = p.endpoint_options.iter().map(|options| (options.weight, options.max_concurrent)).collect();
    assert_eq!(options, [(1, Some(4)), (3, Some(7)), (1, None)]);
    assert_eq!(p.choice.strategy, Strategy::LeastInFlight);
    assert_eq!(p.choice.sticky, Some(Sticky::Header("x-session".into())));
    assert_eq!((p.concurrency.queue, p.concurrency.wait), (9, Duration::from_secs(1)));
    assert_eq!(p.retry, Retry { attempts: 3, budget: 50, ..Retry::DEFAULT });
    assert_eq!(p.health, Health { rest: Duration::from_secs(60), ..Health::DEFAULT });
}

#[test]
fn regions_are_short_for_a_target_in_each() {
    let config = good(
        "[providers.aws]\nadapter = \"bedrock\"\nsettings = { region = \"eu-west-3\", x = 1 }\n[models.m]\ntargets = [{ \
         provider = \"aws\", model = \"us.m\", weight = 2, settings = { y = 2 }, regions = [\"us-east-1\", { region = \
         \"eu-west-1\", model = \"eu.m\" }] }, \"aws/m\"]",
    );
    let targets = &config.models["m"].targets;
    let told: Vec<_> = targets
        .iter()
        .map(|t| (t.model.as_deref(), t.weight, t.settings.as_ref().map(|settings| settings.text.as_str())))
        .collect();
    assert_eq!(
        told,
        [
            (Some("us.m"), 2, Some(r#"{"region":"us-east-1","x":1,"y":2}"#)),
            (Some("eu.m"), 2, Some(r#"{"region":"eu-west-1","x":1,"y":2}"#)),
            (Some("m"), 1, None),
        ]
    );
}

#[test]
fn a_fallback_is_an_alias_or_a_model_of_a_provider() {
    let config = good(&format!(
        "{STUB}[models.large]\ntargets = [\"stub/a\", \"stub/b\"]\n[models.m]\ntarget = \"stub/x\"\nfallback = [\"large\", \
         \"stub/c\"]\nfallback_on_context_length = [\"large\"]\nfallback_on_content_policy = [\"stub/d\"]"
    ));
    let names = |targets: &[Target]| targets.iter().filter_map(|target| target.model.clone()).collect::<Vec<_>>();
    let fallback = &config.models["m"].fallback;
    assert_eq!(names(&fallback.any), ["a", "b", "c"]);
    assert_eq!(names(&fallback.context_length), ["a", "b"]);
    assert_eq!(names(&fallback.content_policy), ["d"]);
    gives(
        "[models.large]\ntarget = \"stub/a\"\n[models.m]\ntarget = \"stub\"\nfallback = [\"lrge\", \"no/x\"]",
        &[
            "7:13: models.m.fallback[0]: no model \"lrge\"; did you mean \"large\"?",
            "7:21: models.m.fallback[1]: no model \"no/x\"; write a name of [models], or \"provider/model\"",
        ],
    );
}

#[test]
fn mistakes_in_routing_say_what_would_be_right() {
    gives(
        "strategy = \"round_robin\"\nsticky = \"session\"\nconcurrency.max = 9999999",
        &[
            "3:12: providers.stub.strategy: \"round_robin\" is no strategy; did you mean \"round-robin\"?",
            "4:10: providers.stub.sticky: \"session\" is nothing that requests have in common; write \"prompt\" or \
             \"header:NAME\"",
            "5:19: providers.stub.concurrency.max: 9999999 is out of range; write one from 0 to 1000000",
        ],
    );
    gives(
        "[models.m]\ntargets = [{ provider = \"stub\", regions = [] }, { provider = \"stub\", regions = [\"a\"], settings = \
         { region = \"b\" } }]",
        &[
            "4:43: models.m.targets[0].regions: no region; write [\"us-east-1\"]",
            "4:80: models.m.targets[1]: both \"regions\" and \"settings.region\"; they say the same: keep \"regions\"",
        ],
    );
}

#[test]
fn keys_tenants_prices_and_accounting_are_read() {
    let text = r#"
        [providers.p]
        adapter = "stub"
        [models.fast]
        target = "p"
        quota = { requests_per_minute = 600 }
        [admin]
        key = "${ADMIN}"
        [keys.alice]
        secret = "${ALICE}"
        tenant = "research"
        metadata = { owner = "alice" }
        expires = 2030-01-01T00:00:00Z
        models = ["fast", "p/*"]
        routes = ["openai-*"]
        quota = { requests_per_minute = 60, tokens_per_minute = 0, concurrent_requests = 2 }
        budget = { day = 0.5, total = 20 }
        [tenants.research]
        quota.tokens_per_minute = 1000
        budget.month = "${DOLLARS}"
        [prices."p/*"]
        input = 1.5
        output = 6
        cache_read = 0.15
        [accounting]
        unpriced = "refuse"
        output_tokens = 256
        key_ttl = "1s"
        [state]
        on_failure = "closed"
    "#;
    let env = |name: &str| match name {
        "DOLLARS" => Some("12.5".to_owned()),
        _ => Some(format!("secret-{name}")),
    };
    let config = Config::from_toml(text, "f", &env).unwrap_or_else(|problems| panic!("{problems}"));
    let access = &config.access;
    let alice = &access.keys["alice"];
    assert_eq!((alice.secret.expose(), alice.tenant.as_deref()), ("secret-ALICE", Some("research")));
    assert_eq!(alice.expires, Some(Duration::from_secs(1_893_456_000)));
    assert_eq!(alice.terms.quota.requests_per_minute, Some(60));
    assert_eq!((alice.terms.quota.tokens_per_minute, alice.terms.quota.concurrent_requests), (None, Some(2)));
    let budget = &alice.terms.budget;
    assert_eq!((budget.day, budget.month, budget.total), (Some(500_000_000), None, Some(20_000_000_000)));
    assert_eq!(access.tenants["research"].budget.month, Some(12_500_000_000));
    assert_eq!(access.models["fast"].requests_per_minute, Some(600));
    let price = access.price("p", "anything").unwrap();
    assert_eq!(
        (price.input, price.cache_read, price.cache_write, price.reasoning),
        (1_500_000, 150_000, 1_500_000, 6_000_000)
    );
    assert_eq!((access.unpriced, access.on_failure), (Unpriced::Refuse, OnFailure::Closed));
    assert_eq!((access.output_tokens, access.key_ttl), (256, Duration::from_secs(1)));
    assert!(!format!("{config:?}").contains("secret-"));
}

#[test]
fn what_is_wrong_with_keys_and_prices_is_told() {
    let text = r#"
[providers.p]
adapter = "stub"
[keys."al ice"]
secret = ""
models = []
routes = ["openai-chatt"]
expires = 2030-01-01
budget.day = -1
[keys.bob]
[prices.m]
input = "free"
output = 1
[accounting]
unpriced = "maybe"
[state]
on_failure = "opne"
"#;
    let problems = Config::from_toml(text, "f", &|_| None).unwrap_err();
    let found: Vec<_> = problems.iter().map(|problem| problem.to_string()).collect();
    assert_eq!(
        found,
        [
            "f:4:7: keys.\"al ice\": not a name for a key; write letters, digits, \"_\" and \"-\", at most 64",
            "f:5:10: keys.\"al ice\".secret: an empty key; write the text that the client brings",
            "f:6:10: keys.\"al ice\".models: an empty list would allow nothing; leave the key out where all are allowed",
            "f:7:11: keys.\"al ice\".routes[0]: no dialect \"openai-chatt\"; did you mean \"openai-chat\"?",
            "f:8:11: keys.\"al ice\".expires: not a moment; write a date and a time with their offset from UTC, as \
             2027-01-31T00:00:00Z",
            "f:9:14: keys.\"al ice\".budget.day: the amount is out of range; write one from 0 to 1000000000",
            "f:10:7: keys.bob: the key \"secret\" is missing",
            "f:12:9: prices.m.input: expected an amount; write a number of US dollars, as 2.50",
            "f:15:12: accounting.unpriced: \"maybe\" is no choice here; write \"free\" and \"refuse\"",
            "f:17:14: state.on_failure: \"opne\" is no choice here; did you mean \"open\"?",
        ]
    );
}

#[test]
fn a_model_takes_of_the_cache_s_settings_what_it_does_not_choose() {
    let config = good(
        "[providers.p]\nadapter = \"stub\"\n[cache]\nttl = \"5m\"\nmax_bytes = \"1MiB\"\n[models.m]\ntarget = \
         \"p\"\ncache = { enabled = true, when = \"all\" }\n[models.n]\ntarget = \"p\"",
    );
    let five = Duration::from_secs(300);
    assert_eq!(config.cache, Cache { ttl: five, ..Cache::DEFAULT });
    assert_eq!(config.cache_max_bytes, 1 << 20);
    let m = Cache { enabled: true, when: CacheWhen::All, ttl: five, ..Cache::DEFAULT };
    assert_eq!((config.models["m"].cache, config.models["n"].cache), (Some(m), None));
    gives(
        "[cache]\nwhen = \"always\"",
        &["4:8: cache.when: \"always\" is no kind of request; write \"deterministic\", \"all\" and \"asked\""],
    );
}

#[test]
fn a_hedge_waits_for_a_time_or_a_percentile() {
    let config = good(
        "[providers.p]\nadapter = \"stub\"\nhedge = { after = \"p95\" }\n[models.m]\ntarget = \"p\"\nhedge = { after = \
         \"800ms\", max_percent = 50 }",
    );
    assert_eq!(config.providers["p"].hedge, Some(Hedge { after: HedgeAfter::Percentile(95), max_percent: 5 }));
    let after = HedgeAfter::Time(Duration::from_millis(800));
    assert_eq!(config.models["m"].hedge, Some(Hedge { after, max_percent: 50 }));
    gives(
        "hedge = { after = \"p20\" }",
        &["3:19: providers.stub.hedge.after: \"p20\" is no percentile; write \"p50\" to \"p99\", or a duration"],
    );
}

#[test]
fn several_keys_take_turns_and_are_never_shown() {
    let text =
        "[providers.p]\nadapter = \"openai\"\napi_keys = [\"sk-one\", \"\", \"sk-two\"]\n[models.m]\ntarget = \"p/m\"";
    let config = good(text);
    let p = &config.providers["p"];
    assert_eq!(p.api_keys.iter().map(|key| key.expose()).collect::<Vec<_>>(), ["sk-one", "sk-two"]);
    assert!(p.secrets["api_key"].matches("sk-one") && config.check_secrets("p", &[("api_key", true)]).is_empty());
    assert!(!format!("{p:?}").contains("sk-"));
    let one = good(&text.replace("\"sk-two\"", "\"\""));
    assert!(one.providers["p"].api_keys.is_empty() && one.providers["p"].secrets["api_key"].matches("sk-one"));
    gives(
        "api_key = \"a\"\napi_keys = [\"b\"]",
        &["4:12: providers.stub: both one key and \"api_keys\"; put all of them in \"api_keys\""],
    );
}

#[test]
fn a_webhook_for_budgets_wants_an_address_and_a_secret() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let table =
        |url: &str, more: &str| format!("[providers.p]\nadapter = \"stub\"\n[accounting]\nwebhook = \"{url}\"\n{more}");
    let config = good(&table("https://h/x", &format!("webhook_secret = \"{SECRET}\"\nwebhook_attempts = 3")));
    let webhook = config.access.webhook.expect("a webhook");
    assert_eq!((webhook.url.as_str(), webhook.attempts, webhook.allow_private), ("https://h/x", 3, false));
    assert!(webhook.secret.matches(SECRET) && !format!("{webhook:?}").contains("MfKQ"));
    let wrong = |text: &str| Config::from_toml(text, "t.toml", &|_| None).expect_err("a problem").to_string();
    let lacks = wrong(&table("https://h/x", ""));
    assert!(lacks.contains("t.toml:4:11: accounting.webhook: a webhook without a secret"), "{lacks}");
    let ftp = wrong(&table("ftp://h/x", &format!("webhook_secret = \"{SECRET}\"")));
    assert!(ftp.contains("t.toml:4:11: accounting.webhook: not an address"), "{ftp}");
    let short = wrong(&table("https://h/x", "webhook_secret = \"whsec_short\""));
    assert!(
        short.contains("t.toml:5:18: accounting.webhook_secret: is not a secret") && !short.contains("short\""),
        "{short}"
    );
}

#[test]
fn where_state_lies_is_told_with_its_place_where_it_is_wrong() {
    let read = |text: &str| {
        let env = |name: &str| (name == "URL").then(|| "redis://:pw@h".into());
        Config::from_toml(&format!("{text}\n{STUB}"), "t.toml", &env)
    };
    let state = |text: &str| read(text).unwrap_or_else(|problems| panic!("{problems}")).state;
    assert!(matches!(state("").store, Store::Memory));
    assert!(matches!(state("[state]\nstore = \"key-value\"").store, Store::KeyValue));
    let file = state("[state]\nstore = \"file\"\npath = \"a/b.redb\"\nflush = 0\nmax_bytes = \"2GiB\"");
    assert!(matches!(&file.store, Store::File(path) if path == "a/b.redb"));
    assert_eq!((file.flush, file.max_bytes), (Duration::ZERO, 2 << 30));
    let redis = state("[state]\nstore = \"redis\"\nurl = \"${URL}\"\nprefix = \"team:a\"\ntimeout = \"200ms\"");
    assert!(matches!(&redis.store, Store::Redis(url) if url.expose() == "redis://:pw@h"));
    assert!(!format!("{redis:?}").contains("pw"));
    for (text, place, what) in [
        ("[state]\nstore = \"redi\"", "t.toml:2:9: state.store", "did you mean \"redis\""),
        ("[state]\nstore = \"redis\"", "t.toml:1:2: state", "\"url\" is missing"),
        ("[state]\nstore = \"file\"", "t.toml:1:2: state", "\"path\" is missing"),
        ("[state]\nstore = \"redis\"\nurl = \"http://:pw@h\"", "t.toml:3:7: state.url", "redis://host:6379/0"),
        ("[state]\nprefix = \"{a}\"", "t.toml:2:10: state.prefix", "letters, digits"),
        ("[state]\ntimeout = \"2h\"", "t.toml:2:11: state.timeout", "out of range"),
        ("[documents]\nfrom = \"s3\"", "t.toml:2:8: documents.from", "s3 = {"),
        ("[documents]\ns3 = { bucket = \"abc\" }", "t.toml:2:6: documents.s3", "\"region\" is missing"),
        ("[documents]\ns3 = { bucket = \"A/b\", region = \"r\" }", "t.toml:2:17: documents.s3.bucket", "lower-case"),
        ("[documents]\ns3 = { bucket = \"abc\", region = \"r\", access_key_id = \"a\" }", "documents.s3", "one half"),
        (
            "[documents]\ns3 = { bucket = \"abc\", region = \"r\", endpoint = \"h\" }",
            "documents.s3.endpoint",
            "no scheme",
        ),
    ] {
        let problems = read(text).expect_err(text).to_string();
        assert!(problems.contains(place) && problems.contains(what) && !problems.contains("pw"), "{text}: {problems}");
    }
    let s3 = read("[documents]\ns3 = { bucket = \"abc\", prefix = \"/team/x/\", region = \"cn-north-1\" }").unwrap();
    let Source::S3(s3) = s3.documents.from else { panic!("{:?}", s3.documents) };
    assert_eq!((&*s3.prefix, &*s3.endpoint), ("team/x/", "https://s3.cn-north-1.amazonaws.com.cn"));
}

#[test]
fn files_are_kept_as_long_as_a_batch_may_take() {
    gives(
        "[jobs]\nfiles_kept_for = \"23h\"",
        &[
            "4:18: jobs.files_kept_for: 23h is shorter than a batch may take; write at least jobs.run_within, which is 24h",
        ],
    );
    good(&format!("{STUB}[jobs]\nrun_within = \"1h\"\nfiles_kept_for = \"1h\""));
}

#[test]
fn a_queue_says_what_it_is_where_and_in_whose_stead() {
    let config = good(&format!(
        "{STUB}[state]\nstore = \"redis\"\nurl = \"redis://:pw@h\"\n[queues.a]\nkind = \"sqs\"\nurl = \
         \"https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q\"\n[queues.b]\nkind = \"redis\"\nstream = \"s\"\n"
    ));
    let [a, b] = &config.queues[..] else { panic!("{:?}", config.queues) };
    let QueueKind::Sqs(sqs) = &a.kind else { panic!("{a:?}") };
    assert_eq!((sqs.region.as_str(), a.path.as_str(), a.concurrency), ("cn-north-1", "/v1/chat/completions", 10));
    assert_eq!((a.visibility, a.wait, a.receives), (Duration::from_secs(60), Duration::from_secs(20), 5));
    let QueueKind::Redis(stream) = &b.kind else { panic!("{b:?}") };
    assert_eq!((stream.url.expose(), stream.group.as_str()), ("redis://:pw@h", "witgate"), "that of the state store");
    assert!(!format!("{config:?}").contains("pw@"));
    let sqs = "[queues.q]\nkind = \"sqs\"\nurl = \"https://sqs.us-east-1.amazonaws.com/1/q\"\n";
    for (text, expected) in [
        ("[queues.q]\nkind = \"sqs\"\n".to_owned(), "the queue's URL is missing"),
        ("[queues.q]\nkind = \"sqs\"\nurl = \"https://elasticmq:9324/1/q\"\n".to_owned(), "the URL names no region"),
        ("[queues.q]\nkind = \"sqs\"\nurl = \"https://sqs.us-east-1.amazonaws.com\"\n".to_owned(), "none of a queue"),
        ("[queues.q]\nkind = \"redis\"\nurl = \"redis://h\"\n".to_owned(), "the stream's key is missing"),
        ("[queues.q]\nkind = \"redis\"\nstream = \"s\"\n".to_owned(), "the server is missing"),
        ("[queues.q]\nkind = \"redis\"\nstream = \"s\"\nurl = \"http://:pw@h\"\n".to_owned(), "none of a Redis server"),
        ("[queues.q]\nkind = \"nats\"\n".to_owned(), "no kind of queue"),
        (format!("{sqs}stream = \"s\"\n"), "it is a key of kind = \"redis\""),
        (format!("{sqs}access_key_id = \"id\"\n"), "one half of the credentials is missing"),
        (format!("{sqs}path = \"v1\"\n"), "is no path"),
        (format!("{sqs}callback = \"https://example.com\"\n"), "set jobs.callback_secret"),
        (format!("{sqs}key = \"alice\"\n"), "this server has no keys"),
        (format!("{sqs}answers = \"answers\"\n"), "has no scheme"),
        (format!("[keys.alice]\nsecret = \"a-long-enough-key-of-alice\"\n{sqs}"), "write key = \"alice\""),
        (format!("[keys.alice]\nsecret = \"a-long-enough-key-of-alice\"\n{sqs}key = \"bob\"\n"), "no key \"bob\""),
    ] {
        let found = after_stub(&text);
        assert!(found.contains(expected) && !found.contains("pw@"), "{text}: {found}");
    }
}
