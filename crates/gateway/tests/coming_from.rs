//! The examples of `docs/coming-from.md` are true.

use crate::world;

use bytes::Bytes;
use serde_json::Value;
use witgate_config::Config;
use witgate_gateway::{Credentials, event};
use world::{Act, Client, Script, World};

/// One step of an example.
#[derive(Debug)]
enum Step<'d> {
    Env(&'d str),
    Request(&'d str, &'d str),
    Upstream(&'d str),
    Answer(u16, &'d str),
    Sent(&'d str, &'d str),
}

/// The steps, in their order: fenced blocks by what stands behind the fence, and comments.
fn steps(document: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = document;
    while let Some(at) = [rest.find("\n```"), rest.find("\n<!-- upstream ")].into_iter().flatten().min() {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("<!-- upstream ") {
            let (json, after) = comment.split_once(" -->").expect("a comment ends");
            steps.push(Step::Upstream(json));
            rest = after;
            continue;
        }
        let (fence, inside) = rest[3..].split_once('\n').expect("a block has lines");
        let (body, after) = inside.split_once("\n```").expect("a block ends");
        rest = after;
        steps.push(match fence.split(' ').collect::<Vec<_>>().as_slice() {
            ["env"] => Step::Env(body),
            ["json", "request", path] => Step::Request(path, body),
            ["json", "event"] => Step::Request("event", body),
            ["json", "answer", status] => Step::Answer(status.parse().unwrap(), body),
            ["json", "sent", url] => Step::Sent(url, body),
            other => panic!("no kind of block: {other:?}"),
        });
    }
    steps
}

/// Whether the two are the same, where `…` is anything.
fn same(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(any), _) if any == "…" => true,
        (Value::Object(expected), Value::Object(found)) => {
            let member = |(name, value): (&String, &Value)| found.get(name).is_some_and(|other| same(value, other));
            expected.len() == found.len() && expected.iter().all(member)
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len() && expected.iter().zip(found).all(|(one, other)| same(one, other))
        }
        (Value::Number(expected), Value::Number(found)) => expected.as_f64() == found.as_f64(),
        _ => expected == found,
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A gateway in the environment of these lines.
fn world(lines: &str) -> World {
    let variables: Vec<(&str, &str)> = lines.lines().map(|line| line.split_once('=').unwrap()).collect();
    let env = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
    let world = World::new(1, Config::from_env(&env).unwrap_or_else(|problems| panic!("{problems}")));
    world.credentials(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"));
    world
}

#[test]
fn every_example_of_coming_from_an_older_service_is_true() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/coming-from.md");
    let document = std::fs::read_to_string(path).unwrap();
    let mut at: Option<World> = None;
    let mut asked: Option<(&str, &str)> = None;
    let (mut requests, mut answers) = (0, 0);
    for step in steps(&document) {
        let world = at.as_ref();
        match step {
            Step::Env(lines) => at = Some(self::world(lines)),
            Step::Request(path, body) => {
                requests += 1;
                asked = Some((path, body));
            }
            Step::Upstream(body) => {
                let body = Act::Bytes(Bytes::copy_from_slice(body.as_bytes()));
                let acts = vec![(1, Act::Head(200, "application/json")), (1, body), (1, Act::End)];
                world.unwrap().upstream(vec![Script::new(acts)]);
            }
            Step::Answer(status, expected) => {
                answers += 1;
                let (path, body) = asked.take().expect("a request stands in front of its answer");
                let ask = |path: &str, body: Bytes| -> Client { world.unwrap().request_with_key(None, path, body) };
                let (answer, found) = match path {
                    "event" => {
                        let request = event::read(body.as_bytes()).unwrap().expect("the event of an HTTP request");
                        let answer = ask(&request.path, request.body);
                        let found = json(&event::answer(answer.status, &answer.headers, &answer.body));
                        (answer, found)
                    }
                    path => {
                        let answer = ask(path, Bytes::copy_from_slice(body.as_bytes()));
                        let found = json(&String::from_utf8_lossy(&answer.body));
                        (answer, found)
                    }
                };
                assert_eq!(answer.status, status, "{body}: {found}");
                assert!(same(&json(expected), &found), "{body}\nis answered by\n{found}\nnot by\n{expected}");
            }
            Step::Sent(url, expected) => {
                let sent = world.unwrap().requests_sent().pop().expect("something was sent");
                let found = json(&String::from_utf8_lossy(&sent.body));
                assert_eq!(sent.url, url);
                assert!(same(&json(expected), &found), "{url} got\n{found}\nnot\n{expected}");
            }
        }
    }
    assert!(requests == answers && requests >= 15, "{requests} requests, {answers} answers");
}
