use witgate_sdk::testing::{Answer, every_cut, text};
use witgate_sdk::{Adapter, ErrorKind, Event, Message, Request, Role, Tool};

use super::*;

const STREAM: &str = "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"héllo, \"}}]}\n\n\
                      data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"world\"}}]}\n\n\
                      data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
                      data: [DONE]\n\n";

fn request() -> Request {
    Request::chat("openai-chat", "m", vec![Message::text(Role::User, "Hello")])
}

#[test]
fn an_answer_is_shouted_wherever_the_network_cuts_it() {
    assert_eq!(text(&every_cut::<Varied<Shout>>(&Answer::sse(STREAM))), "HÉLLO, WORLD");
    let whole = r#"{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}"#;
    assert_eq!(text(&every_cut::<Varied<Shout>>(&Answer::json(whole))), "HELLO");
}

#[test]
fn the_suffix_ends_the_answer() {
    let answer = Answer::sse(STREAM).settings(r#"{"suffix": " hey!"}"#);
    assert_eq!(text(&every_cut::<Varied<Shout>>(&answer)), "HÉLLO, WORLD HEY!");
}

#[test]
fn an_answer_that_ends_early_fails() {
    let cut = Answer::sse(&STREAM[..STREAM.len() / 2]);
    let events = every_cut::<Varied<Shout>>(&cut);
    assert!(matches!(events.last(), Some(Event::Failed(error)) if error.kind == ErrorKind::MalformedResponse));
}

#[test]
fn tools_are_refused_by_name() {
    let mut with_tools = request();
    with_tools.tools = vec![Tool::Other("{}".into())];
    assert_eq!(Varied::<Shout>::encode("{}", with_tools).unwrap_err().param.as_deref(), Some("tools"));
    assert_eq!(Varied::<Shout>::encode("{}", request()).unwrap().path, ["v1", "chat", "completions"]);
}
