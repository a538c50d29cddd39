//! Active probes over the simulated world.

use crate::world;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use witgate_config::Config;
use world::{Act, Client, Script, World, chat_body, whole_answer};

/// Two endpoints; one that fails once rests.
fn config(more: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\"]\n[providers.p]\nadapter = \"openai\"\napi_key = \"sk-one\"\nendpoints = \
         [\"http://a/v1\", \"http://b/v1\"]\nretry = {{ attempts = 1 }}\n[health]\nfailures = 1\nrest = \"20s\"\n{more}"
    );
    Config::from_toml(&text, "probes.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn reply(status: u16, body: Bytes) -> Script {
    Script::new(vec![(1, Act::Head(status, "application/json")), (0, Act::Bytes(body)), (0, Act::End)])
}

fn ask(world: &World) -> Client {
    world.request("/v1/chat/completions", chat_body("p/m", false), None)
}

/// A world in which `a` answers requests and probes with what `a` says, and all that `a` was asked: whether it was a probe,
/// and when.
type Asked = Rc<RefCell<Vec<(bool, Duration)>>>;

fn world(more: &str, a: Rc<Cell<u16>>) -> (World, Asked) {
    let world = World::new(7, config(more));
    let asked = Asked::default();
    let shared = Rc::clone(&asked);
    world.serve_timed(move |request, now| {
        let probe = request.method == "GET";
        if !request.url.contains("//a/") {
            return reply(200, whole_answer());
        }
        shared.borrow_mut().push((probe, now));
        if probe {
            assert!(
                request.headers.iter().any(|(_, value)| value == "Bearer sk-one"),
                "a probe is signed like a request"
            );
        }
        match a.get() {
            0 => Script::new(vec![(1, Act::Refuse)]),
            1 => Script::new(vec![(1, Act::Stall)]),
            status => reply(status, if status == 200 { whole_answer() } else { Bytes::from_static(b"{}") }),
        }
    });
    (world, asked)
}

const EVERY_3_S: &str = "probe_interval = \"3s\"";

#[test]
fn an_endpoint_that_rests_is_brought_back_without_a_request_at_risk() {
    let a = Rc::new(Cell::new(0));
    let (world, asked) = world(EVERY_3_S, Rc::clone(&a));
    assert_eq!(ask(&world).status, 200, "b answers");
    world.watch(Duration::from_secs(2));
    a.set(200);
    world.watch(Duration::from_secs(4));
    let probes = asked.borrow().iter().filter(|(probe, _)| *probe).count();
    assert!((1..=2).contains(&probes), "{asked:?}");
    assert_eq!(ask(&world).status, 200);
    assert_eq!(
        asked.borrow().last().map(|(probe, _)| *probe),
        Some(false),
        "long before its rest would be over: a serves"
    );
    // Nobody rests: nobody is asked.
    let before = asked.borrow().len();
    world.watch(Duration::from_secs(60));
    assert_eq!(asked.borrow().len(), before);
}

#[test]
fn while_probes_fail_no_request_finds_out() {
    for bad in [0, 429, 500, 503] {
        let a = Rc::new(Cell::new(bad));
        let (world, asked) = world(EVERY_3_S, a);
        for _ in 0..20 {
            assert_eq!(ask(&world).status, 200, "{bad}");
            world.watch(Duration::from_secs(9));
        }
        let requests = asked.borrow().iter().filter(|(probe, _)| !*probe).count();
        assert!(requests <= 2, "{bad}: {requests}");
        let probes: Vec<_> = asked.borrow().iter().filter(|(probe, _)| *probe).map(|(_, at)| *at).collect();
        assert!(probes.len() > 30, "{bad}: {}", probes.len());
        let gaps: Vec<_> = probes.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect();
        assert!(gaps.iter().any(|gap| *gap != gaps[0]), "with chance in it: {gaps:?}");
    }
}

#[test]
fn an_answer_that_says_nothing_of_health_leaves_it_to_the_next_request() {
    let a = Rc::new(Cell::new(500));
    let (world, asked) = world(EVERY_3_S, Rc::clone(&a));
    ask(&world);
    a.set(404);
    world.watch(Duration::from_secs(21));
    a.set(200);
    assert_eq!(ask(&world).status, 200);
    assert_eq!(asked.borrow().last().map(|(probe, _)| *probe), Some(false), "its rest is over, so that a finds out");
}

#[test]
fn without_an_interval_there_is_nothing_to_watch() {
    let (world, asked) = world("", Rc::new(Cell::new(0)));
    ask(&world);
    assert!(world.watch(Duration::from_secs(60)));
    assert_eq!(asked.borrow().len(), 1);
}
