//! A valid file, damaged at random: never a panic, never a secret in a problem.

use proptest::prelude::*;
use witgate_config::Config;

const FILE: &str = r#"
[server]
listen = "127.0.0.1:8080"
api_keys = ["zq-literal-server", "${KEY}"]
keep_alive = "15s"
[limits]
max_body_bytes = "10MiB"
max_messages = 10_000
[timeouts]
connect = 0.5
[providers.local]
adapter = "llama-cpp"
endpoint = "${URL}"
api_key = "zq-literal-key"
secrets = { token = "zq-literal-token", other = "${KEY}" }
headers = { x-tenant = "zq-literal-header" }
settings = { a = [1, 2.5, "ä"], b.c = 1979-05-27T07:32:00Z }
timeouts.total = "1h"
[providers."b.c"]
adapter = "mine"
endpoints = ["https://example.org/v1", "http://[::1]:8080"]
api_key = """${KEY}"""
[models.fast]
targets = ["local/tiny", { provider = "b.c", model = "x" }]
[models."*"]
target = "local"
[adapters.mine]
path = "adapters/mine.wasm"
trusted = true
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "KEY" => Some("zq-from-environment".into()),
        "URL" => Some("http://zq-endpoint:80".into()),
        _ => None,
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(prop::sample::Index, String),
    Delete(prop::sample::Index, usize),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let piece = prop_oneof![
        "[\\[\\]{}=.,#\"'$\\\\\n a-z0-9-]{1,4}",
        "\\PC{1,3}",
        Just("\u{0}".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("${".to_owned()),
        Just("[[".to_owned()),
        Just("\r".to_owned()),
        Just("99999999999999999999".to_owned()),
    ];
    prop_oneof![
        (any::<prop::sample::Index>(), piece).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<prop::sample::Index>(), 1..30_usize).prop_map(|(at, n)| Edit::Delete(at, n)),
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..40_usize)
            .prop_map(|(from, to, n)| Edit::Copy(from, to, n)),
    ]
}

fn apply(text: &mut Vec<char>, edit: &Edit) {
    match edit {
        Edit::Insert(at, piece) => {
            let at = at.index(text.len() + 1);
            text.splice(at..at, piece.chars());
        }
        Edit::Delete(at, n) => {
            let at = at.index(text.len() + 1);
            let end = (at + n).min(text.len());
            text.drain(at..end);
        }
        Edit::Copy(from, to, n) => {
            let from = from.index(text.len() + 1);
            let piece: Vec<char> = text[from..(from + n).min(text.len())].to_vec();
            let to = to.index(text.len() + 1);
            text.splice(to..to, piece);
        }
    }
}

/// What holds for every text.
fn check(text: &str) -> Result<(), TestCaseError> {
    match Config::from_toml(text, "witgate.toml", &env) {
        Ok(config) => {
            prop_assert!(!config.providers.is_empty());
            for model in config.models.values() {
                prop_assert!(!model.targets.is_empty());
                prop_assert!(model.targets.iter().all(|target| config.providers.contains_key(&target.provider)));
            }
        }
        Err(problems) => {
            prop_assert!(!problems.0.is_empty());
            let lines = text.lines().count() as u32 + 1;
            for problem in &problems {
                prop_assert!(problem.line <= lines, "{problem}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_file_is_valid_before_it_is_edited() {
    Config::from_toml(FILE, "witgate.toml", &env).unwrap_or_else(|problems| panic!("{problems}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn many_edits_never_panic(edits in prop::collection::vec(edit(), 1..8)) {
        let mut text: Vec<char> = FILE.chars().collect();
        for edit in &edits {
            apply(&mut text, edit);
        }
        check(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn what_a_slip_does_to_a_file_never_shows_a_secret(
        at in any::<prop::sample::Index>(), deleted in 0..4_usize, inserted in "[\\[\\]{}=.,#\"'$\\\\\n a-z-]{0,2}",
    ) {
        let mut text: Vec<char> = FILE.chars().collect();
        let at = at.index(text.len());
        let end = (at + deleted).min(text.len());
        text.splice(at..end, inserted.chars());
        let text: String = text.into_iter().collect();
        check(&text)?;
        let shown = format!("{:?}", Config::from_toml(&text, "witgate.toml", &env));
        prop_assert!(!shown.contains("zq-from-environment"), "{shown}");
        prop_assert!(!shown.contains("zq-literal"), "{shown}");
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        check(&text)?;
    }
}
