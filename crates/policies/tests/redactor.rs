//! The redactor: requests, answers whole and in any pieces.

use proptest::prelude::*;
use serde_json::{Value, json};
use witgate_model::policy::{Context, Decision};
use witgate_model::{
    BlockDelta, BlockKind, BlockStart, Error, Event, FinishReason, Input, Message, Part, Policy, Request, Role,
    Started, ToolCall, ToolCallStart, Watcher,
};
use witgate_policies::Redactor;

fn ask(texts: &[&str]) -> Request {
    let messages = texts.iter().map(|text| Message::text(Role::User, *text)).collect();
    Request::chat("openai-chat", "m", messages)
}

fn decide(settings: Value, request: &Request) -> Result<Decision, Error> {
    let schema: Value = serde_json::from_str(&Redactor::describe().settings_schema).unwrap();
    assert!(jsonschema::is_valid(&schema, &settings), "{settings}");
    Redactor::on_request(&settings.to_string(), &Context::default(), request)
}

fn texts(request: &Request) -> Vec<String> {
    let Input::Chat(messages) = &request.input else { panic!() };
    let parts = messages.iter().flat_map(|message| &message.parts);
    parts
        .map(|part| match part {
            Part::Text(text) => text.text.clone(),
            Part::ToolCall(call) => call.arguments.clone(),
            _ => "?".into(),
        })
        .collect()
}

/// An answer with one block, its text cut into these pieces.
fn answer(kind: BlockKind, pieces: &[&str]) -> Vec<Event> {
    let delta = |text: &&str| {
        let delta = BlockDelta { index: 0, text: (*text).to_owned(), logprobs: None };
        if matches!(kind, BlockKind::ToolCall(_)) { Event::Arguments(delta) } else { Event::Text(delta) }
    };
    let mut events = vec![
        Event::Started(Started { id: None, model: None, created: None }),
        Event::BlockStart(BlockStart { index: 0, choice: 0, kind: kind.clone() }),
    ];
    events.extend(pieces.iter().filter(|piece| !piece.is_empty()).map(delta));
    events.extend([Event::BlockStop(0), Event::finish(0, FinishReason::Stop, None), Event::Done]);
    events
}

fn watched(settings: &Value, note: &str, events: Vec<Event>) -> (String, Vec<u32>) {
    let mut watcher = Redactor::watcher(&settings.to_string(), note.to_owned());
    let (mut text, mut held) = (String::new(), Vec::new());
    for event in events {
        let filtered = watcher.feed(vec![event]);
        held.push(filtered.held);
        for event in filtered.events {
            match event {
                Event::Text(delta) | Event::Arguments(delta) => text.push_str(&delta.text),
                Event::Failed(error) => panic!("{error:?}"),
                _ => {}
            }
        }
    }
    (text, held)
}

/// These arguments of a tool call, as they go on in a request.
fn arguments(settings: Value, arguments: &str) -> String {
    let mut request = ask(&[]);
    let Input::Chat(messages) = &mut request.input else { panic!() };
    let call = ToolCall { id: "1".into(), name: "send".into(), arguments: arguments.into(), cache: None, extra: None };
    messages.push(Message { parts: vec![Part::ToolCall(call)], ..Message::text(Role::Assistant, "") });
    decide(settings, &request).unwrap().request.map_or(arguments.to_owned(), |request| texts(&request).remove(0))
}

fn tool_call() -> BlockKind {
    BlockKind::ToolCall(ToolCallStart { id: "1".into(), name: "send".into() })
}

/// An answer in pieces of at most so many characters, as it goes on, and the most that was held back of it.
fn streamed(settings: &Value, kind: BlockKind, text: &str, most: usize) -> (String, u32) {
    let chars: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = chars.chunks(most).map(String::from_iter).collect();
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let (text, held) = watched(settings, "{}", answer(kind, &pieces));
    (text, held.into_iter().max().unwrap())
}

/// JSON text with each character of its strings that is not plain ASCII, or with all, written as `\u12ab`.
fn escaped(value: &Value, all: bool) -> String {
    let one = |c: char| {
        let mut units = [0; 2];
        c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>()
    };
    let string = |text: &str| {
        let plain = serde_json::to_string(text).unwrap();
        match all {
            true => format!("\"{}\"", text.chars().map(one).collect::<String>()),
            false => plain.chars().map(|c| if c.is_ascii() { c.to_string() } else { one(c) }).collect(),
        }
    };
    match value {
        Value::String(text) => string(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(|item| escaped(item, all)).collect::<Vec<_>>().join(","))
        }
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{}: {}", string(name), escaped(value, all)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

const SAID: &str =
    "Mail ada@example.com or bob@example.org, card 4111 1111 1111 1111, key sk-abcdefghijklmnopqrstuvwx0. Done";
const MASKED: &str = "Mail [EMAIL] or [EMAIL], card [CREDIT_CARD], key [SECRET]. Done";

#[test]
fn a_request_without_anything_to_hide_goes_on_as_it_is() {
    let decision = decide(json!({"answers": false}), &ask(&["What is 2 + 2?", "Order 1234 5678"])).unwrap();
    assert_eq!(decision, Decision::default());
}

#[test]
fn what_is_found_is_masked_counted_and_never_told() {
    let decision = decide(json!({}), &ask(&[SAID])).unwrap();
    assert_eq!(texts(decision.request.as_ref().unwrap()), [MASKED]);
    let tags: Vec<_> = decision.tags.iter().map(|tag| format!("{}={}", tag.name, tag.value)).collect();
    assert_eq!(tags, ["redacted.credit_card=1", "redacted.email=2", "redacted.secret=1"]);
    assert!(!format!("{:?}", (&decision.tags, &decision.watch)).contains("ada"));
}

#[test]
fn kinds_patterns_and_instructions_are_the_operators_choice() {
    let mut request = ask(&["ada@example.com of EMP-004711"]);
    let Input::Chat(messages) = &mut request.input else { panic!() };
    messages.insert(0, Message::text(Role::System, "Answer as bob@example.org"));
    let settings = json!({"kinds": [], "patterns": {"employee": "EMP-[0-9]{6}"}, "instructions": false});
    let decision = decide(settings, &request).unwrap();
    assert_eq!(texts(&decision.request.unwrap()), ["Answer as bob@example.org", "ada@example.com of [EMPLOYEE]"]);
    let decision = decide(json!({"kinds": ["email"]}), &request).unwrap();
    assert_eq!(texts(&decision.request.unwrap()), ["Answer as [EMAIL]", "[EMAIL] of EMP-004711"]);
}

#[test]
fn a_pattern_that_is_none_is_the_operators_error() {
    let settings = json!({"patterns": {"bad": "("}}).to_string();
    let error = Redactor::on_request(&settings, &Context::default(), &ask(&["x"])).unwrap_err();
    assert!(error.message.contains("patterns.bad"), "{}", error.message);
}

#[test]
fn a_block_names_the_kinds_and_not_the_content() {
    let error = decide(json!({"mode": "block"}), &ask(&[SAID])).unwrap_err();
    assert!(
        error.message.contains("credit card, email, secret") && !error.message.contains("ada"),
        "{}",
        error.message
    );
    assert_eq!(decide(json!({"mode": "block"}), &ask(&["hello"])).unwrap(), Decision::default());
}

#[test]
fn arguments_stay_json() {
    let key = r"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----";
    for (said, masked) in [
        (
            r#"{"to":"ada@example.com","card":4111111111111111,"n":7}"#,
            r#"{"to":"[EMAIL]","card":"[CREDIT_CARD]","n":7}"#,
        ),
        (r#"{"n": [4111111111111111.5, -7]}"#, r#"{"n": ["[CREDIT_CARD]", -7]}"#),
        (r#"{"body":"Contacts:\nada@example.com"}"#, r#"{"body":"Contacts:\n[EMAIL]"}"#),
        (r#"{"a":"\tAKIAIOSFODNN7EXAMPLE\n"}"#, r#"{"a":"\t[SECRET]\n"}"#),
        (r#"{"a":"\n4111 1111\u00201111 1111\\"}"#, r#"{"a":"\n[CREDIT_CARD]\\"}"#),
        (r#"{"a":"\u000a+49 30 901820"}"#, r#"{"a":"\u000a[PHONE]"}"#),
        (r#"{"a":"ada\u0040example.com \"x\""}"#, r#"{"a":"[EMAIL] \"x\""}"#),
        (r#"{"a":"\n-----BEGIN PRIVATE KEY-----\nMIIE","b":"c"}"#, r#"{"a":"\n[SECRET]","b":"c"}"#),
        (&format!(r#"{{"a":"key:\n{key}\nb"}}"#), r#"{"a":"key:\n[SECRET]\nb"}"#),
        // JSON in JSON.
        (r#"{"a":"{\"b\":\"c\\nada@example.com\"}"}"#, r#"{"a":"{\"b\":\"c\\n[EMAIL]\"}"}"#),
    ] {
        assert_eq!(arguments(json!({}), said), masked);
        serde_json::from_str::<Value>(masked).unwrap();
        for most in [1, 2, 5, 1000] {
            assert_eq!(streamed(&json!({}), tool_call(), said, most).0, masked, "{most}");
        }
    }
}

#[test]
fn an_escape_in_prose_is_no_part_of_what_is_found() {
    let said = r#"{"t":"Contacts:\nada@example.com\nAKIAIOSFODNN7EXAMPLE\t+49 30 901820"}"#;
    let masked = r#"{"t":"Contacts:\n[EMAIL]\n[SECRET]\t[PHONE]"}"#;
    assert_eq!(texts(&decide(json!({}), &ask(&[said])).unwrap().request.unwrap()), [masked]);
    assert_eq!(streamed(&json!({}), BlockKind::Text, said, 3).0, masked);
}

#[test]
fn what_is_found_in_json_is_put_back_as_it_was() {
    let settings = json!({"mode": "restore", "patterns": {"name": "«[^»]+»"}});
    let said = r#"{"a":"«Ada \"the\\Countess\"\n» wrote"}"#;
    let mut request = ask(&["«Ada \"the\\Countess\"\n»"]);
    let Input::Chat(messages) = &mut request.input else { panic!() };
    let call = ToolCall { id: "1".into(), name: "send".into(), arguments: said.into(), cache: None, extra: None };
    messages.push(Message { parts: vec![Part::ToolCall(call)], ..Message::text(Role::Assistant, "") });
    let decision = decide(settings.clone(), &request).unwrap();
    assert_eq!(texts(&decision.request.unwrap()), ["[NAME_1]", r#"{"a":"[NAME_1] wrote"}"#], "the same in both");
    let (text, _) = watched(&settings, &decision.watch.unwrap(), answer(tool_call(), &[r#"{"a":"[NAME_1] wrote"}"#]));
    assert_eq!(text, said);
}

#[test]
fn a_pattern_sees_what_is_before_a_cut() {
    for (pattern, said, masked) in [
        (r"\b[0-9]{6}\b", "ID 990000123456 and 123456", "ID 990000123456 and [OWN]"),
        ("^ID", "ID of an ID", "[OWN] of an ID"),
        ("(?m)^- ", "- a\n- b - c", "[OWN]a\n[OWN]b - c"),
        ("[0-9]*", "a1b22", "a[OWN]b[OWN]"),
    ] {
        let settings = json!({"kinds": [], "patterns": {"own": pattern}});
        let (before, behind) =
            (format!("{said}, {}", "so on, ".repeat(60)), format!("{masked}, {}", "so on, ".repeat(60)));
        assert_eq!(texts(&decide(settings.clone(), &ask(&[&before])).unwrap().request.unwrap()), [behind.as_str()]);
        for most in [1, 7, 1000] {
            let (text, held) = streamed(&settings, BlockKind::Text, &before, most);
            assert_eq!(text, behind, "{pattern} {most}");
            assert!(held <= 134 || most > 7, "{held}");
        }
    }
}

#[test]
fn an_iban_in_groups_of_letters_is_held_back() {
    for (iban, rest) in [
        ("NL91 ABNA 0417 1643 00", " is mine"),
        ("GB82 WEST 1234 5698 7654 32", ". Pay"),
        ("MT84 MALT 0110 0001 2345 MTLC AST0 01S", ", OK"),
    ] {
        let said = format!("Pay {iban}{rest}");
        for cut in 0..said.len() {
            let (text, _) = watched(&json!({}), "{}", answer(BlockKind::Text, &[&said[..cut], &said[cut..]]));
            assert_eq!(text, format!("Pay [IBAN]{rest}"), "{cut}");
        }
        assert_eq!(streamed(&json!({}), BlockKind::Text, &said, 1).0, format!("Pay [IBAN]{rest}"));
    }
    let (text, held) = streamed(&json!({}), BlockKind::Text, &"AAAA ".repeat(100), 1);
    assert_eq!((text, held), ("AAAA ".repeat(100), 48));
}

#[test]
fn a_group_that_is_glued_to_a_long_word_is_held_back() {
    let said = format!("see https://example.net/{}?card=4111 1111 1111 1111 ok", "x".repeat(90));
    let masked = format!("see https://example.net/{}?card=[CREDIT_CARD] ok", "x".repeat(90));
    for most in [1, 3, 1000] {
        assert_eq!(streamed(&json!({}), BlockKind::Text, &said, most).0, masked);
    }
}

#[test]
fn a_private_key_ends_wherever_its_end_is_cut() {
    let key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----";
    for behind in ["\nDone.".to_owned(), format!(" and {}", "more ".repeat(40))] {
        let (said, masked) = (format!("a {key}{behind}"), format!("a [SECRET]{behind}"));
        for cut in 0..said.len() {
            let (text, held) = watched(&json!({}), "{}", answer(BlockKind::Text, &[&said[..cut], &said[cut..]]));
            assert_eq!(text, masked, "{cut}");
            assert!(held.iter().all(|held| *held <= 64), "{held:?}");
        }
    }
    let (text, _) = watched(&json!({}), "{}", answer(BlockKind::Text, &[&key[..33], " never ends -----EN"]));
    assert_eq!(text, "[SECRET]\n never ends -----EN");
}

#[test]
fn a_private_keys_head_in_prose_takes_nothing_else_with_it() {
    let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
    let key =
        format!("-----BEGIN EC PRIVATE KEY-----\\n\" + \"{line}\\n\" + \"Pz4=\\n\" + \"-----END EC PRIVATE KEY-----");
    let said = format!(
        "PKCS#8 begins with `-----BEGIN PRIVATE KEY-----`, PKCS#1 with `-----BEGIN RSA PRIVATE KEY-----`. Convert it, \
         or write \"{key}\\n\"; a PGP one is\n-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\n{line}\n{line}\nPz4=\n=aB3/\n\
         -----END PGP PRIVATE KEY BLOCK-----\nand so on."
    );
    let masked = "PKCS#8 begins with `[SECRET]`, PKCS#1 with `[SECRET]`. Convert it, or write \"[SECRET]\\n\"; a PGP one is\n\
                  [SECRET]\nand so on.";
    assert_eq!(texts(&decide(json!({}), &ask(&[&said])).unwrap().request.unwrap()), [masked]);
    for most in [1, 2, 7, 50, 1000] {
        let (text, held) = streamed(&json!({}), BlockKind::Text, &said, most);
        assert_eq!(text, masked, "{most}");
        assert!(held <= 256 || most > 50, "{held}");
    }
}

#[test]
fn text_without_blanks_is_not_held_back() {
    let said = "项目的内容，请告诉我。".repeat(50);
    assert_eq!(streamed(&json!({}), BlockKind::Text, &said, 3), (said.clone(), 0));
    let masked = format!("{said}[EMAIL]{said}");
    assert_eq!(streamed(&json!({}), BlockKind::Text, &format!("{said}ada@example.com{said}"), 1), (masked, 15));
}

#[test]
fn what_is_before_a_cut_in_a_long_word_is_known_behind_it() {
    for (said, masked) in [
        ("/7-212-555-0187/", "/7-212-555-0187/"),
        ("/a_4111111111111111/", "/a_4111111111111111/"),
        ("\\u00e9_ada@example.com/", "\\u00e9_[EMAIL]/"),
        ("\\nada@example.com/", "\\n[EMAIL]/"),
    ] {
        // More of one word than is held back.
        let word = |said: &str| format!("{}{said}{}", "x".repeat(100), "/".repeat(4200));
        for gone in 100..100 + said.len() {
            let said = word(said);
            let (first, second) = said.split_at(gone + 4096);
            let (text, held) = watched(&json!({}), "{}", answer(BlockKind::Text, &[first, second]));
            assert_eq!(text, word(masked), "{gone}");
            assert!(held[2] > 4000, "{held:?}");
        }
    }
}

#[test]
fn a_pattern_that_matches_over_punctuation_leaves_json() {
    let numbers = (0..60).map(|n| if n % 7 == 0 { "4111111111111111".into() } else { format!("70000000000{n:05}") });
    let numbers = format!("[{}]", numbers.collect::<Vec<_>>().join(","));
    let card = numbers.replace("4111111111111111", "\"[CREDIT_CARD]\"");
    for (pattern, said, masked) in [
        (":[0-9]+", r#"{"a":1,"b":[2]}"#, r#"{"a":1,"b":[2]}"#),
        ("[^0-9]*[0-9]+[^0-9]*", r#"{"a": 1, "b": [2, 3]}"#, r#"{"a": "[OWN]", "b": ["[OWN]", "[OWN]"]}"#),
        ("^[23]$", r#"{"a":23,"b":[2,3 ]}"#, r#"{"a":23,"b":["[OWN]","[OWN]" ]}"#),
        ("[0-9],", &numbers, &card),
        ("no such thing", &numbers, &card),
    ] {
        let settings = json!({"patterns": {"own": pattern}});
        assert_eq!(arguments(settings.clone(), said), masked, "{pattern}");
        serde_json::from_str::<Value>(masked).unwrap();
        for most in [1, 5, 1000] {
            assert_eq!(streamed(&settings, tool_call(), said, most).0, masked, "{pattern} {most}");
        }
    }
    assert_eq!(streamed(&json!({}), tool_call(), &numbers, 1).0, card);
}

#[test]
fn names_of_users_speakers_and_files_are_masked_by_what_a_name_may_be() {
    let mut request = ask(&["Hello"]);
    request.end_user = Some("ada@example.com".into());
    let Input::Chat(messages) = &mut request.input else { panic!() };
    messages[0].name = Some("bob@example.org".into());
    messages.push(Message { name: Some("4111111111111111".into()), ..Message::text(Role::Tool, "a tool's name") });
    for mode in ["mask", "restore"] {
        let decision = decide(json!({"mode": mode}), &request).unwrap();
        let changed = decision.request.unwrap();
        assert_eq!(changed.end_user.as_deref(), Some("EMAIL"));
        let Input::Chat(messages) = &changed.input else { panic!() };
        let names: Vec<_> = messages.iter().map(|message| message.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["EMAIL", "4111111111111111"]);
        assert_eq!(decision.watch.is_some(), mode == "mask", "there is nothing to put back");
    }
}

#[test]
fn what_was_replaced_is_put_back_into_prose_and_arguments() {
    let settings = json!({"mode": "restore"});
    let decision =
        decide(settings.clone(), &ask(&["ada@example.com and bob@example.org and ada@example.com", "\"x\"@y"]))
            .unwrap();
    assert_eq!(texts(decision.request.as_ref().unwrap())[0], "[EMAIL_1] and [EMAIL_2] and [EMAIL_1]");
    let note = decision.watch.unwrap();
    let (text, _) = watched(
        &settings,
        &note,
        answer(BlockKind::Text, &["To [EMA", "IL_2], cc [EMAIL_1] [EMAIL_9] [x", "] [", "end"]),
    );
    assert_eq!(text, "To bob@example.org, cc ada@example.com [EMAIL_9] [x] [end");
    let (text, _) = watched(&settings, &note, answer(tool_call(), &["{\"to\":[\"[EMAIL_1", "]\"]}"]));
    assert_eq!(text, r#"{"to":["ada@example.com"]}"#);
}

#[test]
fn a_private_key_that_an_answer_dictates_does_not_get_out() {
    let key = "Here: -----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ\n-----END PRIVATE KEY----- and more";
    let pieces: Vec<String> =
        key.as_bytes().chunks(5).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect();
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let (text, held) = watched(&json!({}), "{}", answer(BlockKind::Text, &pieces));
    assert_eq!(text, "Here: [SECRET] and more");
    assert!(held.iter().all(|held| *held <= 128), "{held:?}");
}

#[test]
fn an_answer_that_breaks_off_gives_what_was_held_back_before_its_failure() {
    let mut events = answer(BlockKind::Text, &["Mail ada@exam"]);
    events.truncate(3);
    events.push(Event::Failed(Error::malformed("cut")));
    let mut watcher = Redactor::watcher("{}", "{}".into());
    let out: Vec<Event> = events.into_iter().flat_map(|event| watcher.feed(vec![event]).events).collect();
    assert_eq!(out[out.len() - 2..], [Event::text(0, "ada@exam"), Event::Failed(Error::malformed("cut"))]);
}

#[test]
fn plain_words_are_held_back_for_one_word_only() {
    let (text, held) =
        watched(&json!({}), "{}", answer(BlockKind::Text, &["Hello ", "wor", "ld, this ", "is ", "text"]));
    assert_eq!(text, "Hello world, this is text");
    assert_eq!(held.into_iter().max(), Some(4));
}

#[test]
fn log_probabilities_are_refused_where_the_answer_is_redacted() {
    let mut request = ask(&["hello"]);
    request.sampling.logprobs = Some(true);
    assert!(decide(json!({}), &request).is_err_and(|error| error.param.as_deref() == Some("logprobs")));
    assert!(decide(json!({"answers": false}), &request).is_ok());
}

/// Texts of what is found, what is not, and what is between.
fn texts_of_all_kinds() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "ada@example.com",
        "4111 1111 1111 1111",
        "4111111111111111",
        "GB82 WEST 1234 5698 7654 32",
        "+49 30 901820",
        "AKIAIOSFODNN7EXAMPLE",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
        "\nVersion: 1",
        "+44 (0)20 7946 0958",
        "203.0.113.9.",
        "`",
        "_",
        "-",
        "(",
        "990000123456",
        "123456",
        "ID",
        "MI",
        " ",
        " ",
        "\n",
        "\"",
        "\\",
        "\\n",
        ",",
        "[",
        "é",
        "猎",
        "\u{1F30D}",
        "x",
    ]);
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

/// `text` cut at these places, as far as it has them.
fn cut<'a>(text: &'a str, cuts: &[usize]) -> Vec<&'a str> {
    let mut cuts: Vec<usize> = cuts.iter().copied().filter(|at| text.is_char_boundary(*at)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect()
}

fn some_patterns() -> Value {
    json!({"ticket": r"\b[0-9]{6}\b", "first": "^ID", "marked": "x+[0-9]", "listed": "[,:] ?9+"})
}

proptest! {
    #[test]
    fn any_text_is_redacted_the_same_however_it_is_cut(
        text in texts_of_all_kinds(),
        patterns: bool,
        cuts in prop::collection::vec(0..200_usize, 0..12),
    ) {
        let settings = if patterns { json!({"patterns": some_patterns()}) } else { json!({}) };
        let whole = decide(settings.clone(), &ask(&[&text])).unwrap().request;
        let whole = whole.map_or(text.clone(), |request| texts(&request).remove(0));
        prop_assert_eq!(&watched(&settings, "{}", answer(BlockKind::Text, &cut(&text, &cuts))).0, &whole);
        prop_assert_eq!(streamed(&settings, BlockKind::Text, &text, 1).0, whole);
    }

    #[test]
    fn any_arguments_stay_json_and_the_same_however_they_are_cut(
        said in prop::collection::vec(texts_of_all_kinds(), 1..4),
        card: bool,
        patterns: bool,
        written in 0..4,
        cuts in prop::collection::vec(0..400_usize, 0..12),
    ) {
        let value = json!({"a": said, "n": if card { json!(4111111111111111_u64) } else { json!([-1.5, 990000123456_u64, 123456]) }, "b": {"c": said[0]}});
        let json = match written {
            0 => value.to_string(),
            1 => serde_json::to_string_pretty(&value).unwrap(),
            written => escaped(&value, written == 2),
        };
        let settings = if patterns { json!({"patterns": some_patterns()}) } else { json!({}) };
        let whole = arguments(settings.clone(), &json);
        let masked: Value = serde_json::from_str(&whole).unwrap();
        // Each string becomes what it would become in prose.
        for (said, masked) in said.iter().zip(masked["a"].as_array().unwrap()) {
            let plain = decide(settings.clone(), &ask(&[said])).unwrap().request;
            prop_assert_eq!(masked.as_str().unwrap(), plain.map_or(said.clone(), |request| texts(&request).remove(0)));
        }
        prop_assert_eq!(&watched(&settings, "{}", answer(tool_call(), &cut(&json, &cuts))).0, &whole);
        prop_assert_eq!(streamed(&settings, tool_call(), &json, 1).0, whole);
    }

    #[test]
    fn however_an_answer_is_cut_it_is_redacted_the_same(cuts in prop::collection::vec(0..SAID.len(), 0..12)) {
        let mut cuts = cuts;
        cuts.extend([0, SAID.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|cut| &SAID[cut[0]..cut[1]]).collect();
        let (text, held) = watched(&json!({}), "{}", answer(BlockKind::Text, &pieces));
        prop_assert_eq!(text, MASKED);
        prop_assert_eq!(held.last(), Some(&0));
    }

    #[test]
    fn no_text_makes_it_panic_or_lose_what_is_not_personal(text in "[ -~é日]{0,80}", cut in 0_usize..80) {
        let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let whole = decide(json!({}), &ask(&[&text])).unwrap().request.map_or(text.clone(), |r| texts(&r).remove(0));
        let (streamed, _) = watched(&json!({}), "{}", answer(BlockKind::Text, &[&text[..cut], &text[cut..]]));
        prop_assert_eq!(streamed, whole);
    }
}
