//! The store in a Redis server does what every store does, over several processes, and never waits for one that is down.
//!
//! The tests start `redis-server` themselves, each its own on a free port, with no file behind it.
#![allow(clippy::print_stdout, reason = "a child tells its parent")]

mod conformance;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conformance::{charge, conforms, runtime, s};
use witgate_gateway::state::{Expect, Rule, State, Taken};
use witgate_gateway::{Broker, Message, Parcel};
use witgate_stores::{Redis, RedisOptions, StreamOptions, Streams};

const DAY: Rule = Rule::Period(s(0), s(86_400));

struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        Server::on(0, &[])
    }

    /// Port 0 is any free one.
    fn on(port: u16, more: &[&str]) -> Self {
        for _ in 0..20 {
            let port = match port {
                0 => TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
                port => port,
            };
            let number = port.to_string();
            let mut process = Command::new("redis-server")
                .args(["--port", &number, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(more)
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server, of Debian's package of that name");
            let until = Instant::now() + s(30);
            while Instant::now() < until && process.try_wait().unwrap().is_none() {
                if answers(port) {
                    return Server { process, port };
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("redis-server does not start");
    }

    fn options(&self) -> RedisOptions {
        RedisOptions { url: format!("redis://127.0.0.1:{}", self.port), prefix: "test".into(), timeout: s(10) }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap().success());
    }
}

/// Whether a server answers there. That somebody takes connections is not enough: for a moment it may be a copy of the socket
/// that found the port, in a process which another test has just begun.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))) else { return false };
    let mut first = [0];
    let asked = stream.set_read_timeout(Some(s(1))).and_then(|()| stream.write_all(b"PING\r\n"));
    // `+PONG`, or `-NOAUTH`.
    asked.and_then(|()| stream.read_exact(&mut first)).is_ok() && matches!(first[0], b'+' | b'-')
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn redis_conforms() {
    let (runtime, server) = (runtime(), Server::start());
    let _inside = runtime.enter();
    let store = Redis::new(&server.options()).unwrap();
    conforms(&runtime, &store, true);
    // Nothing of it stays for ever but what has no end, nothing is outside the prefix, and scripts come back when they are
    // lost.
    runtime.block_on(async {
        let client = redis::Client::open(server.options().url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        assert!(keys.len() > 20 && keys.iter().all(|key| key.starts_with("{test}")), "{keys:?}");
        for key in keys.iter().filter(|key| {
            key.starts_with("{test}c:")
                || key.starts_with("{test}p:")
                || !key.starts_with("{test}v:") && !key.contains("index") && !key.contains("ends")
        }) {
            let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
            assert!(left > 0, "{key}: {left}");
        }
        let _: String = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
        let taken = store.take(s(1), "after", s(60), &[charge("after", DAY, 5, 5)]).await;
        assert_eq!(taken, Ok(Taken::All(vec![5])));
        // Counters that are lost begin anew; what is in the index and gone is in no list.
        let _: u64 = redis::cmd("DEL").arg("{test}v:j/a").query_async(&mut connection).await.unwrap();
        let found = store.list(s(1), "j/a", None, 10).await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
    });
}

#[test]
fn two_prefixes_share_nothing() {
    let (runtime, server) = (runtime(), Server::start());
    let _inside = runtime.enter();
    let other = RedisOptions { prefix: "other".into(), ..server.options() };
    let (a, b) = (Redis::new(&server.options()).unwrap(), Redis::new(&other).unwrap());
    runtime.block_on(async {
        assert_eq!(a.set(s(1), "k", Some(Bytes::from("v")), None, Expect::Absent).await, Ok(true));
        assert_eq!(b.get(s(1), "k").await, Ok(None));
        assert_eq!(b.list(s(1), "", None, 10).await, Ok(vec![]));
    });
}

/// The process of which there are four: takes until it is refused, and says how often it could.
#[test]
#[ignore = "the next test runs it, in processes of their own"]
fn taker() {
    let url = std::env::var("WITGATE_TEST_REDIS").expect("the next test sets it");
    let runtime = runtime();
    let taken = runtime.block_on(async {
        let options = RedisOptions { url, prefix: "test".into(), timeout: s(20) };
        let store = std::sync::Arc::new(Redis::new(&options).unwrap());
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let store = std::sync::Arc::clone(&store);
                tokio::spawn(async move {
                    let mut taken = 0;
                    for n in 0..1_000 {
                        let token = format!("{}.{task}.{n}", std::process::id());
                        let charges =
                            [charge("requests", Rule::Sliding(s(60)), 20_000, 1), charge("tokens", DAY, 10_000 * 7, 7)];
                        match store.take(s(30), &token, s(90), &charges).await.unwrap() {
                            Taken::All(_) => taken += 1,
                            Taken::Refused { charge, .. } => assert_eq!(charge, 1),
                        }
                    }
                    taken
                })
            })
            .collect();
        let mut all = 0;
        for task in tasks {
            all += task.await.unwrap();
        }
        all
    });
    println!("\ntaken {taken}");
}

#[test]
fn four_processes_take_exactly_the_limit_under_load() {
    let (runtime, server) = (runtime(), Server::start());
    let _inside = runtime.enter();
    let children: Vec<_> = (0..4)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "taker", "--ignored", "--nocapture"])
                .env("WITGATE_TEST_REDIS", server.options().url)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut taken = Vec::new();
    for mut child in children {
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Some(number) = line.unwrap().strip_prefix("taken ") {
                taken.push(number.parse::<u64>().unwrap());
            }
        }
        assert!(child.wait().unwrap().success());
    }
    assert_eq!((taken.len(), taken.iter().sum::<u64>()), (4, 10_000), "{taken:?}");
    let store = Redis::new(&server.options()).unwrap();
    let meters = [("requests".into(), Rule::Sliding(s(60))), ("tokens".into(), DAY)];
    assert_eq!(runtime.block_on(store.used(s(30), &meters)), Ok(vec![10_000, 70_000]));
}

#[test]
fn a_server_that_hangs_or_is_gone_holds_nobody_up_and_is_found_again() {
    let (runtime, mut server) = (runtime(), Server::start());
    let _inside = runtime.enter();
    let options = RedisOptions { timeout: Duration::from_millis(300), ..server.options() };
    let store = Redis::new(&options).unwrap();
    let calls = AtomicUsize::new(0);
    let ask = || {
        let start = Instant::now();
        let id = calls.fetch_add(1, Ordering::Relaxed).to_string();
        (runtime.block_on(store.take(s(1), &id, s(60), &[charge("k", DAY, 1_000, 1)])), start.elapsed())
    };
    let again = |what: &str| {
        let until = Instant::now() + s(60);
        while ask().0.is_err() {
            assert!(Instant::now() < until, "{what}: not found again");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    assert_eq!(runtime.block_on(Redis::new(&server.options()).unwrap().check()), Ok(()));
    // On a busy machine the first calls may be late.
    again("at first");

    server.signal("-STOP");
    let (mut quick, start) = (0, Instant::now());
    for _ in 0..20 {
        let (taken, took) = ask();
        let error = taken.expect_err("it hangs").to_string();
        assert!(error.contains(&format!("127.0.0.1:{}", server.port)), "{error}");
        // Its own limit, and what a machine under load adds.
        assert!(took < Duration::from_millis(300) + s(10), "{took:?}");
        quick += u32::from(error.contains("asked again in a moment"));
    }
    assert!(quick >= 10, "{quick} of 20 in {:?}", start.elapsed());
    server.signal("-CONT");
    again("after it hung");

    let port = server.port;
    drop(server);
    for _ in 0..10 {
        assert!(ask().0.is_err());
    }
    server = Server::on(port, &[]);
    again("after it was gone");
    drop(server);
}

#[test]
fn what_a_server_refuses_is_told_without_the_password() {
    let (runtime, server) = (runtime(), Server::on(0, &["--requirepass", "open-sesame"]));
    let _inside = runtime.enter();
    let url = |user: &str| format!("redis://{user}127.0.0.1:{}", server.port);
    let check = |user: &str| {
        let store = Redis::new(&RedisOptions { url: url(user), ..server.options() }).unwrap();
        runtime.block_on(store.check()).map_err(|error| error.to_string())
    };
    assert_eq!(check(":open-sesame@"), Ok(()));
    for user in ["", ":wrong-word@"] {
        let error = check(user).unwrap_err();
        assert!(error.contains(&server.port.to_string()) && !error.contains("wrong-word"), "{error}");
        assert!(error.contains("NOAUTH") || error.contains("password"), "{error}");
    }
}

/// How long an entry is its consumer's: longer than any test takes, so that none ends unless a test says so.
const VISIBILITY: Duration = s(600);

fn consumer(server: &Server, consumer: &str) -> Streams {
    let options = StreamOptions {
        url: server.options().url,
        stream: "requests".into(),
        group: "g".into(),
        consumer: consumer.into(),
        visibility: VISIBILITY,
        wait: Duration::from_millis(50),
        timeout: s(10),
        keep: false,
    };
    Streams::new(options).unwrap()
}

async fn command<T: redis::FromRedisValue>(server: &Server, words: &[&str]) -> T {
    let client = redis::Client::open(server.options().url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command.query_async(&mut connection).await.unwrap()
}

async fn add(server: &Server, body: &str) -> String {
    command(server, &["XADD", "requests", "*", "body", body]).await
}

/// Lets an entry be as if its consumer had said nothing for as long as it is its own.
async fn age(server: &Server, consumer: &str, id: &str) {
    let idle = VISIBILITY.as_millis().to_string();
    let words = ["XCLAIM", "requests", "g", consumer, "0", id, "IDLE", &idle, "JUSTID"];
    assert_eq!(command::<Vec<String>>(server, &words).await, [id]);
}

/// What comes, if it comes soon.
async fn receive(streams: &Streams, most: usize) -> Vec<Message> {
    let until = Instant::now() + s(20);
    loop {
        let received = streams.receive(most).await.unwrap();
        if !received.is_empty() || Instant::now() > until {
            return received;
        }
    }
}

#[test]
fn an_entry_of_a_stream_is_one_consumer_s_until_it_was_left_and_then_the_next_one_s() {
    let (runtime, server) = (runtime(), Server::start());
    runtime.block_on(async {
        let (a, b) = (consumer(&server, "a"), consumer(&server, "b"));
        // What was there before the group is received too.
        let id = add(&server, "one").await;
        let first = receive(&a, 10).await;
        assert_eq!((first.len(), &first[0].id, first[0].receives), (1, &id, 1));
        assert_eq!(first[0].body.as_deref(), Ok(&b"one"[..]));
        // While its consumer says so, it is its own.
        for _ in 0..4 {
            age(&server, "a", &id).await;
            assert_eq!(a.extend(&first[0]).await, Ok(true));
            assert_eq!(b.receive(10).await.unwrap(), []);
        }
        age(&server, "a", &id).await;
        let second = receive(&b, 10).await;
        assert_eq!((second.len(), &second[0].id, second[0].receives), (1, &id, 2));
        // Who was stalled takes nothing away from the one that came after.
        assert_eq!(a.extend(&first[0]).await, Ok(false));
        a.give_back(&first[0], Duration::ZERO).await.unwrap();
        assert_eq!(a.receive(10).await.unwrap(), []);
        assert_eq!(b.extend(&second[0]).await, Ok(true));
        // Whoever is first has answered it.
        let parcel = |who: &str| Parcel {
            to: "answers".into(),
            body: Bytes::from(vec![0, 255]),
            attributes: vec![("who", who.into())],
            once: "job".into(),
        };
        a.send(&first[0], &parcel("a")).await.unwrap();
        b.send(&second[0], &parcel("b")).await.unwrap();
        type Entry = (String, Vec<(String, Vec<u8>)>);
        let answers: Vec<Entry> = command(&server, &["XRANGE", "answers", "-", "+"]).await;
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].1, [("who".into(), b"a".to_vec()), ("body".into(), vec![0, 255])]);
        assert_eq!(command::<u64>(&server, &["XLEN", "requests"]).await, 0);
    });
}

#[test]
fn what_is_given_back_comes_after_its_pause_and_what_a_consumer_leaves_at_once() {
    let (runtime, server) = (runtime(), Server::start());
    runtime.block_on(async {
        let (a, b) = (consumer(&server, "a"), consumer(&server, "b"));
        add(&server, "one").await;
        let of_a = receive(&a, 10).await;
        let begun = Instant::now();
        a.give_back(&of_a[0], Duration::from_millis(300)).await.unwrap();
        let again = receive(&b, 10).await;
        assert_eq!((again.len(), again[0].receives), (1, 2));
        assert!(begun.elapsed() >= Duration::from_millis(280), "{:?}", begun.elapsed());
        b.close().await.unwrap();
        assert_eq!(a.receive(10).await.unwrap().len(), 1, "at once");
        let consumers: Vec<redis::Value> = command(&server, &["XINFO", "CONSUMERS", "requests", "g"]).await;
        assert!(
            !format!("{consumers:?}").contains("\"b\"") && !format!("{consumers:?}").contains("[98]"),
            "{consumers:?}"
        );
    });
}

#[test]
fn a_message_stays_in_its_queue_until_its_answer_could_be_sent() {
    let (runtime, server) = (runtime(), Server::start());
    runtime.block_on(async {
        let a = consumer(&server, "a");
        add(&server, "one").await;
        let received = receive(&a, 10).await;
        let _: String = command(&server, &["SET", "answers", "no stream"]).await;
        let (to, body) = ("answers".into(), Bytes::from_static(b"x"));
        let parcel = Parcel { to, body, attributes: Vec::new(), once: "job".into() };
        let error = a.send(&received[0], &parcel).await.unwrap_err().to_string();
        assert!(error.contains("WRONGTYPE"), "{error}");
        assert_eq!(a.extend(&received[0]).await, Ok(true), "it is still to be answered");
        let _: u64 = command(&server, &["DEL", "answers"]).await;
        a.send(&received[0], &parcel).await.unwrap();
        a.send(&received[0], &parcel).await.unwrap();
        assert_eq!(command::<u64>(&server, &["XLEN", "answers"]).await, 1);
        assert_eq!(command::<u64>(&server, &["XLEN", "requests"]).await, 0);
        // Nobody is to do anything about a message of a queue that was removed.
        add(&server, "two").await;
        let received = receive(&a, 10).await;
        let _: String = command(&server, &["FLUSHALL"]).await;
        a.send(&received[0], &parcel).await.unwrap();
        assert_eq!(command::<u64>(&server, &["XLEN", "answers"]).await, 0);
    });
}

#[test]
fn a_stream_that_was_removed_and_an_entry_without_a_body_are_no_end() {
    let (runtime, server) = (runtime(), Server::start());
    runtime.block_on(async {
        let a = consumer(&server, "a");
        assert_eq!(a.receive(10).await.unwrap(), []);
        let _: String = command(&server, &["FLUSHALL"]).await;
        assert!(a.receive(10).await.unwrap_err().to_string().contains("NOGROUP"));
        let _: String = command(&server, &["XADD", "requests", "*", "other", "x"]).await;
        let received = receive(&a, 10).await;
        assert!(received[0].body.as_ref().is_err_and(|why| why.contains("`body`")));
        a.done(&received[0]).await.unwrap();
        assert_eq!(command::<u64>(&server, &["XLEN", "requests"]).await, 0);
        drop(server);
        let error = a.receive(10).await.unwrap_err().to_string();
        assert!(error.contains("127.0.0.1"), "{error}");
    });
}
