//! Requests that come from queues, over the simulated world: a queue of SQS that keeps its own rules (visibility, receipts,
//! deduplication), processes that die at any operation, backends that fail. From seeds, as `jobs.rs`.

use crate::world;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, join, select};
use serde_json::{Value, json};
use witgate_config::Config;
use witgate_gateway::{Credentials, UpstreamRequest};
use world::{Act, Script, StoreIs, World, chat_body};

use crate::jobs::{error, good};

const QUEUE: &str = "https://sqs.us-east-1.amazonaws.com/1/requests";
const ANSWERS: &str = "https://sqs.us-east-1.amazonaws.com/1/answers.fifo";
const DEAD: &str = "https://sqs.us-east-1.amazonaws.com/1/dead";

fn config(queue: &str) -> Config {
    config_with("", queue)
}

fn config_with(jobs: &str, queue: &str) -> Config {
    let text = format!(
        "[server]\napi_keys = [\"test-key\"]\n[timeouts]\nfirst_token = \"120s\"\nidle = \"60s\"\ntotal = \"200s\"\n[retry]\n\
         attempts = 1\n[health]\nrest = \"0s\"\n[providers.p]\nadapter = \"openai\"\nendpoint = \"http://p/v1\"\n[jobs]\nlease = \
         \"9s\"\n{jobs}\n[queues.q]\nkind = \"sqs\"\nurl = \"{QUEUE}\"\nkey = \"server.0\"\nvisibility = \"30s\"\nwait = \
         \"20s\"\n{queue}"
    );
    Config::from_toml(&text, "queues.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn world(seed: u64, queue: &str) -> World {
    let world = World::new(seed, config(queue));
    world.credentials(Credentials::new("AKID", "secret", None, None, "test"));
    world
}

/// A message in the queue.
#[derive(Clone)]
struct Entry {
    id: String,
    body: String,
    /// When it can be received.
    visible: Duration,
    receives: u32,
    receipt: String,
}

/// What SQS holds and has seen.
#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    /// What was sent: where to, and the request.
    sent: Vec<(String, Value)>,
    once: BTreeSet<String>,
    deleted: Vec<String>,
    /// How often each action was asked for.
    calls: BTreeMap<String, usize>,
    /// The next question is refused with this name.
    refuse: Option<(u16, &'static str)>,
    /// The longest and the shortest time that a message was hidden for.
    hidden: Vec<u64>,
}

#[derive(Clone, Default)]
struct Sqs(Rc<RefCell<State>>);

fn json_script(ms: u64, status: u16, body: &Value) -> Script {
    let body = Act::Bytes(Bytes::from(body.to_string()));
    Script::new(vec![(ms, Act::Head(status, "application/x-amz-json-1.0")), (0, body), (0, Act::End)])
}

impl Sqs {
    fn put(&self, id: &str, body: impl Into<String>) {
        let (id, body) = (id.to_owned(), body.into());
        let entry = Entry { id, body, visible: Duration::ZERO, receives: 0, receipt: String::new() };
        self.0.borrow_mut().entries.push(entry);
    }

    fn left(&self) -> usize {
        self.0.borrow().entries.len()
    }

    /// Answers sent: by message, status and body.
    fn answers(&self, to: &str) -> Vec<(String, String, String)> {
        let text = |body: &Value, name: &str| {
            body["MessageAttributes"][name]["StringValue"].as_str().unwrap_or_default().to_owned()
        };
        let state = self.0.borrow();
        let of = state.sent.iter().filter(|(queue, _)| queue == to).map(|(_, body)| {
            (text(body, "message_id"), text(body, "status"), body["MessageBody"].as_str().unwrap().to_owned())
        });
        of.collect()
    }

    fn calls(&self, action: &str) -> usize {
        self.0.borrow().calls.get(action).copied().unwrap_or(0)
    }

    /// What SQS says to a request.
    fn script(&self, request: &UpstreamRequest, now: Duration) -> Script {
        let header = |name: &str| {
            request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        assert_eq!(request.url, "https://sqs.us-east-1.amazonaws.com/");
        assert!(header("authorization").contains("/us-east-1/sqs/aws4_request"), "{}", header("authorization"));
        assert_eq!(header("content-type"), "application/x-amz-json-1.0");
        let action = header("x-amz-target").strip_prefix("AmazonSQS.").unwrap().to_owned();
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let mut state = self.0.borrow_mut();
        *state.calls.entry(action.clone()).or_default() += 1;
        if let Some((status, name)) = state.refuse.take() {
            return json_script(1, status, &json!({"__type": format!("com.amazonaws.sqs#{name}"), "message": "no"}));
        }
        let seconds = |name: &str| Duration::from_secs(body[name].as_u64().unwrap());
        match action.as_str() {
            "ReceiveMessage" => {
                assert_eq!(body["QueueUrl"], QUEUE);
                let most = body["MaxNumberOfMessages"].as_u64().unwrap() as usize;
                assert!((1..=10).contains(&most));
                let hidden = now + seconds("VisibilityTimeout");
                let mut messages = Vec::new();
                for entry in state.entries.iter_mut().filter(|entry| entry.visible <= now).take(most) {
                    entry.visible = hidden;
                    entry.receives += 1;
                    entry.receipt = format!("{}#{}", entry.id, entry.receives);
                    messages.push(json!({"MessageId": entry.id, "ReceiptHandle": entry.receipt, "Body": entry.body,
                        "MD5OfBody": "", "Attributes": {"ApproximateReceiveCount": entry.receives.to_string()}}));
                }
                let soon = if messages.is_empty() { 1_000 } else { 5 };
                json_script(soon, 200, &if messages.is_empty() { json!({}) } else { json!({"Messages": messages}) })
            }
            "ChangeMessageVisibility" => {
                let receipt = body["ReceiptHandle"].as_str().unwrap().to_owned();
                state.hidden.push(body["VisibilityTimeout"].as_u64().unwrap());
                let known = state.entries.iter_mut().find(|entry| entry.receipt == receipt && entry.visible > now);
                match known {
                    Some(entry) => {
                        entry.visible = now + seconds("VisibilityTimeout");
                        json_script(5, 200, &json!({}))
                    }
                    None => json_script(5, 400, &json!({"__type": "com.amazonaws.sqs#MessageNotInflight"})),
                }
            }
            "DeleteMessage" => {
                let receipt = body["ReceiptHandle"].as_str().unwrap().to_owned();
                if let Some(at) = state.entries.iter().position(|entry| entry.receipt == receipt) {
                    let entry = state.entries.remove(at);
                    state.deleted.push(entry.id);
                }
                json_script(5, 200, &json!({}))
            }
            "SendMessage" => {
                let to = body["QueueUrl"].as_str().unwrap().to_owned();
                // Of a FIFO queue: what has been sent is not sent again.
                let new = match body["MessageDeduplicationId"].as_str() {
                    Some(once) => state.once.insert(once.to_owned()),
                    None => true,
                };
                if new {
                    state.sent.push((to, body));
                }
                json_script(5, 200, &json!({"MessageId": "sent", "MD5OfMessageBody": ""}))
            }
            other => panic!("{other}"),
        }
    }

    /// From now on this and `backend` answer.
    fn serve(&self, world: &World, mut backend: impl FnMut(&UpstreamRequest) -> Script + 'static) {
        let sqs = self.clone();
        world.serve_timed(move |request, now| match request.url.starts_with("https://sqs.") {
            true => sqs.script(request, now),
            false => backend(request),
        });
    }
}

/// One process: it consumes, and runs jobs; beside it `script`.
async fn process<T>(world: &World, script: impl Future<Output = T>) -> T {
    let sqs = world.sqs(0);
    let consumer = pin!(world.consume(0, &sqs, pending(), pending()));
    let both = pin!(join(consumer, world.work()));
    match select(pin!(script), both).await {
        Either::Left((out, _)) => out,
        Either::Right(_) => unreachable!("a consumer has no end"),
    }
}

/// Completes when the queue is empty.
async fn emptied(world: &World, sqs: &Sqs) {
    while sqs.left() > 0 {
        world.sleep(Duration::from_millis(100)).await;
    }
}

fn chat(model: &str) -> String {
    String::from_utf8(chat_body(model, false).to_vec()).unwrap()
}

fn answered() -> String {
    format!("answers = \"{ANSWERS}\"")
}

#[test]
fn inv_18_a_message_is_a_request_its_answer_is_sent_and_then_it_leaves_its_queue() {
    let (world, sqs) = (world(1, &answered()), Sqs::default());
    sqs.serve(&world, |_| good(2_000));
    (0..25).for_each(|n| sqs.put(&format!("m{n}"), chat("p/m")));
    world.drive(process(&world, emptied(&world, &sqs)));
    let answers = sqs.answers(ANSWERS);
    let ids: BTreeSet<_> = answers.iter().map(|(id, ..)| id.clone()).collect();
    assert_eq!((answers.len(), ids.len()), (25, 25));
    for (_, status, body) in answers {
        assert_eq!(status, "200");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["choices"][0]["message"]["content"], world::answer_text());
    }
    assert_eq!(world.sent_to("p"), 25);
    assert!(world.most_at("p") <= 10, "no more at once than queues.q.concurrency");
    assert_eq!(world.records().iter().filter(|record| record.job.is_some()).count(), 25);
}

#[test]
fn inv_19_only_what_may_pass_comes_back_and_at_last_it_is_a_dead_letter() {
    let (world, sqs) = (world(2, &format!("{}\ndead_letters = \"{DEAD}\"\nreceives = 3", answered())), Sqs::default());
    sqs.serve(&world, |request| match std::str::from_utf8(&request.body).unwrap().contains("\"poison\"") {
        true => error(500),
        false => good(10),
    });
    (0..8).for_each(|n| sqs.put(&format!("good{n}"), chat("p/m")));
    sqs.put("poison", chat("p/poison"));
    sqs.put("broken", "{");
    sqs.put("unknown", chat("nobody"));
    sqs.put("stream", String::from_utf8(chat_body("p/m", true).to_vec()).unwrap());
    world.drive(process(&world, emptied(&world, &sqs)));
    let statuses: BTreeMap<_, _> = sqs.answers(ANSWERS).into_iter().map(|(id, status, _)| (id, status)).collect();
    assert_eq!(statuses.len(), 11);
    assert_eq!((statuses["broken"].as_str(), statuses["unknown"].as_str()), ("400", "404"));
    assert_eq!(statuses["stream"], "400", "an answer that is sent is whole");
    assert!((0..8).all(|n| statuses[&format!("good{n}")] == "200"));
    let dead = sqs.answers(DEAD);
    assert_eq!(dead, [("poison".to_owned(), "502".to_owned(), chat("p/poison"))]);
    assert_eq!(world.sent_to("p"), 8 + 3, "what failed was asked once for each receive, the others once");
}

#[test]
fn without_dead_letters_what_fails_goes_back_to_the_queue_s_own_policy() {
    let (world, sqs) = (world(3, &answered()), Sqs::default());
    let asked = Rc::new(Cell::new(0));
    let count = Rc::clone(&asked);
    sqs.serve(&world, move |_| {
        count.set(count.get() + 1);
        if count.get() < 8 { error(503) } else { good(1) }
    });
    sqs.put("m", chat("p/m"));
    world.drive(process(&world, emptied(&world, &sqs)));
    assert_eq!(asked.get(), 8);
    assert_eq!(sqs.answers(ANSWERS).len(), 1);
    let hidden = sqs.0.borrow().hidden.clone();
    assert!(hidden.len() == 7 && hidden.windows(2).all(|two| two[0] <= two[1]), "waits that grow: {hidden:?}");
}

#[test]
fn a_message_is_held_while_its_answer_takes_longer_than_its_visibility() {
    let (world, sqs) = (world(4, &answered()), Sqs::default());
    sqs.serve(&world, |_| good(100_000));
    sqs.put("m", chat("p/m"));
    world.drive(process(&world, emptied(&world, &sqs)));
    assert_eq!(sqs.calls("ChangeMessageVisibility"), 9, "after each third of 30 s");
    assert_eq!((world.sent_to("p"), sqs.answers(ANSWERS).len()), (1, 1));
}

#[test]
fn a_message_that_the_queue_brings_twice_is_one_job_and_one_answer() {
    let (world, sqs) = (world(5, &format!("answers = \"{DEAD}\"")), Sqs::default());
    sqs.serve(&world, |_| good(3_000));
    // Both at once, and once more when it has been answered.
    sqs.put("m", chat("p/m"));
    sqs.put("m", chat("p/m"));
    world.drive(process(&world, async {
        emptied(&world, &sqs).await;
        sqs.put("m", chat("p/m"));
        emptied(&world, &sqs).await;
    }));
    assert_eq!((world.sent_to("p"), sqs.answers(DEAD).len()), (1, 1));
}

#[test]
fn a_message_has_its_answer_whatever_a_later_receive_would_say_of_it() {
    // Its model comes, or goes, while it waits.
    let late = format!("{}\n[models.late]\ntargets = [\"p/m\"]", answered());
    for (before, after) in [(answered(), late.clone()), (late, answered())] {
        let world = World::new(5, config_with("concurrency = 0", &before));
        world.credentials(Credentials::new("AKID", "secret", None, None, "test"));
        let sqs = Sqs::default();
        sqs.serve(&world, |_| good(10));
        sqs.put("m", chat("late"));
        world.drive(process(&world, world.sleep(Duration::from_secs(5))));
        let world = world.reloaded(config_with("", &after));
        world.drive(process(&world, async {
            select(pin!(emptied(&world, &sqs)), pin!(world.sleep(Duration::from_secs(120)))).await;
        }));
        let answers: Vec<_> = sqs.answers(ANSWERS).into_iter().map(|(id, status, _)| (id, status)).collect();
        assert_eq!(answers, [("m".to_owned(), "404".to_owned())]);
        assert_eq!(sqs.left(), 0);
    }
}

#[test]
fn the_gateway_s_own_troubles_are_no_failures_of_a_message() {
    let (world, sqs) = (world(6, &format!("{}\ndead_letters = \"{DEAD}\"\nreceives = 1", answered())), Sqs::default());
    sqs.serve(&world, |_| good(10));
    sqs.put("m", chat("p/m"));
    world.store_is(StoreIs::Failing);
    world.drive(process(&world, async {
        world.sleep(Duration::from_secs(300)).await;
        assert_eq!((sqs.left(), world.sent_to("p")), (1, 0));
        world.store_is(StoreIs::Well);
        emptied(&world, &sqs).await;
    }));
    let statuses: Vec<_> = sqs.answers(ANSWERS).into_iter().map(|(_, status, _)| status).collect();
    assert_eq!(statuses, ["200"]);
    assert_eq!((sqs.answers(DEAD).len(), sqs.0.borrow().deleted.len()), (0, 1));
    assert!(world.warnings().iter().any(|warning| warning.contains("queue: \"q\"")));
}

#[test]
fn a_queue_that_fails_is_asked_again_after_waits_that_grow() {
    let (world, sqs) = (world(7, ""), Sqs::default());
    let (up, calls) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let (is_up, count, own) = (Rc::clone(&up), Rc::clone(&calls), sqs.clone());
    world.serve_timed(move |request, now| {
        if !request.url.starts_with("https://sqs.") {
            return good(1);
        }
        count.set(count.get() + 1);
        if is_up.get() { own.script(request, now) } else { Script::new(vec![(1, Act::Refuse)]) }
    });
    sqs.put("m", chat("p/m"));
    world.drive(process(&world, async {
        world.sleep(Duration::from_secs(300)).await;
        assert!((10..20).contains(&calls.get()), "{}", calls.get());
        up.set(true);
        emptied(&world, &sqs).await;
    }));
    assert_eq!(world.sent_to("p"), 1, "without `answers` it is in the job's record alone");
}

#[test]
fn a_clock_that_is_off_is_set_by_what_the_service_says() {
    let (world, sqs) = (world(8, ""), Sqs::default());
    let (refused, own) = (Rc::new(Cell::new(0)), sqs.clone());
    let count = Rc::clone(&refused);
    world.serve_timed(move |request, now| {
        if !request.url.starts_with("https://sqs.") {
            return good(1);
        }
        // The world's clock says 2023-11-14T22:13:20Z at its beginning.
        let date = request.headers.iter().find(|(name, _)| name == "x-amz-date").unwrap().1.clone();
        if date.starts_with("20231114T22") {
            count.set(count.get() + 1);
            let head = Act::HeadWith(403, vec![("date", "Wed, 15 Nov 2023 00:13:20 GMT".to_owned())]);
            let body = Bytes::from_static(br#"{"__type":"com.amazon.coral.service#InvalidSignatureException"}"#);
            return Script::new(vec![(1, head), (0, Act::Bytes(body)), (0, Act::End)]);
        }
        own.script(request, now)
    });
    sqs.put("m", chat("p/m"));
    world.drive(process(&world, emptied(&world, &sqs)));
    assert_eq!(refused.get(), 1);
}

#[test]
fn a_process_that_ends_finishes_what_runs_and_gives_back_the_rest() {
    let (world, sqs) = (world(9, &answered()), Sqs::default());
    sqs.serve(&world, |_| good(8_000));
    (0..30).for_each(|n| sqs.put(&format!("m{n}"), chat("p/m")));
    let broker = world.sqs(0);
    let ended = world.drive(async {
        let finish = async {
            world.sleep(Duration::from_secs(4)).await;
            world.drain();
        };
        let consumer = world.consume(0, &broker, finish, pending());
        match select(pin!(consumer), pin!(world.work())).await {
            Either::Left(_) => world.elapsed(),
            Either::Right(_) => unreachable!(),
        }
    });
    assert!(ended < Duration::from_secs(10), "when the answers are there: {ended:?}");
    assert_eq!((sqs.answers(ANSWERS).len(), sqs.left()), (10, 20));
    let received = sqs.0.borrow().entries.iter().filter(|entry| entry.receives > 0).count();
    assert_eq!(received, 0, "nothing was received that was not finished");
}

#[test]
fn a_process_whose_time_is_over_gives_back_what_is_in_hand() {
    let (world, sqs) = (world(10, &answered()), Sqs::default());
    sqs.serve(&world, |_| good(60_000));
    (0..5).for_each(|n| sqs.put(&format!("m{n}"), chat("p/m")));
    let broker = world.sqs(0);
    world.drive(async {
        let finish = async {
            world.sleep(Duration::from_secs(4)).await;
            world.drain();
        };
        let consumer = world.consume(0, &broker, finish, world.sleep(Duration::from_secs(7)));
        assert!(matches!(select(pin!(consumer), pin!(world.work())).await, Either::Left(_)));
    });
    assert!(world.elapsed() < Duration::from_secs(8));
    let now = world.elapsed();
    assert!(
        sqs.0.borrow().entries.iter().all(|entry| entry.receives == 1 && entry.visible <= now),
        "for others at once"
    );
    // Another process finds the jobs of the messages, and their answers: nothing is asked twice that the first one ended.
    let other = world.another();
    world.drive(process(&other, emptied(&world, &sqs)));
    assert_eq!(sqs.answers(ANSWERS).len(), 5);
}

#[test]
fn none_is_lost_and_none_answered_twice_whenever_a_process_dies() {
    for seed in 0..100 {
        let mut world = world(seed, &answered());
        let sqs = Sqs::default();
        let failing = Rc::new(Cell::new(seed % 3));
        let left = Rc::clone(&failing);
        sqs.serve(&world, move |_| match left.get() {
            0 => good(700),
            _ => {
                left.set(left.get() - 1);
                error(500)
            }
        });
        let count = 6;
        (0..count).for_each(|n| sqs.put(&format!("m{n}"), chat("p/m")));
        // It dies up to four times, at any operation on the state, which may be done or not.
        for _ in 0..1 + seed % 4 {
            let (more, done) = (world.below(90), world.chance(50));
            world.kept().kill_after(more, done);
            let ended = world.drive(async {
                let process = process(&world, emptied(&world, &sqs));
                matches!(select(pin!(process), pin!(world.kept().died())).await, Either::Left(_))
            });
            world.restart();
            if ended {
                break;
            }
        }
        world.drive(process(&world, emptied(&world, &sqs)));
        let answers = sqs.answers(ANSWERS);
        let ids: BTreeSet<_> = answers.iter().map(|(id, ..)| id.clone()).collect();
        assert_eq!((answers.len(), ids.len()), (count, count), "seed {seed}: {answers:?}");
        assert!(answers.iter().all(|(_, status, _)| status == "200"), "seed {seed}");
        // None is charged twice: a job is told of once.
        let told: Vec<_> =
            world.records().into_iter().filter(|record| record.status == 200).filter_map(|r| r.job).collect();
        let jobs: BTreeSet<_> = told.iter().cloned().collect();
        assert_eq!(told.len(), jobs.len(), "seed {seed}");
        assert!(jobs.len() <= count, "seed {seed}");
    }
}
