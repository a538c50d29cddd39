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

const SAID: &str =
    "Mail ada@example.com or bob@example.org, card 4111 1111 1111 1111, key sk-abcdefghijklmnopqrstuvwx. Done";
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
    let mut request = ask(&[]);
    let Input::Chat(messages) = &mut request.input else { panic!() };
    let arguments = r#"{"to":"ada@example.com","card":4111111111111111,"n":7}"#;
    let call = ToolCall { id: "1".into(), name: "send".into(), arguments: arguments.into(), cache: None, extra: None };
    messages.push(Message { parts: vec![Part::ToolCall(call)], ..Message::text(Role::Assistant, "") });
    let decision = decide(json!({}), &request).unwrap();
    let text = texts(&decision.request.unwrap()).remove(0);
    assert_eq!(text, r#"{"to":"[EMAIL]","card":"[CREDIT_CARD]","n":7}"#);
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
    let kind = BlockKind::ToolCall(ToolCallStart { id: "1".into(), name: "send".into() });
    let (text, _) = watched(&settings, &note, answer(kind, &["{\"to\":[\"[EMAIL_1", "]\"]}"]));
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

proptest! {
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
