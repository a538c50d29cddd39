use witgate_sdk::policy::watched;
use witgate_sdk::{Input, Message, Part, Role};

use super::*;

const SETTINGS: &str = r#"{"words": {"falcon": "the project"}}"#;

fn decide(text: &str) -> Decision {
    let request = Request::chat("openai-chat", "m", vec![Message::text(Role::User, text)]);
    Words::on_request(SETTINGS, &Context::default(), &request).unwrap()
}

#[test]
fn a_request_without_the_words_goes_on_as_it_is() {
    let decision = decide("falcons and Falcon");
    assert_eq!((decision.request, decision.tags.len()), (None, 0));
}

#[test]
fn words_are_replaced_and_counted() {
    let decision = decide("falcon, falcon!");
    let Some(Input::Chat(messages)) = decision.request.map(|request| request.input) else { panic!() };
    assert_eq!(messages[0].parts, [Part::text("the project, the project!")]);
    assert_eq!(decision.tags[0].value, "2");
}

#[test]
fn answers_say_the_same_wherever_the_backend_cuts_them() {
    let said = watched::<Words>(SETTINGS, &decide("Hello"), &["A fal", "con flies, fal", "cons too"]).unwrap();
    assert_eq!(said, "A the project flies, falcons too");
}

#[test]
fn settings_that_cannot_be_read_stop_the_answer() {
    let error = watched::<Words>("{}", &decide("Hello"), &["A falcon"]).unwrap_err();
    assert!(error.message.contains("words"), "{}", error.message);
}
