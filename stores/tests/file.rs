//! The store in a file does what every store does, and is there again whatever ended its process.
#![allow(clippy::print_stdout, reason = "a child tells its parent")]

mod conformance;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use conformance::{charge, conforms, is_bounded, runtime, s, used};
use witgate_gateway::state::{Expect, Once, Rule, State, Taken};
use witgate_stores::{File, FileOptions};

const DAY: Rule = Rule::Period(s(0), s(86_400));

fn options(folder: &Path, flush: Duration) -> FileOptions {
    FileOptions { path: folder.join("state.redb"), max_bytes: 64 << 20, timeout: s(20), flush }
}

#[test]
fn a_file_conforms() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    conforms(&runtime, &File::open(&options(folder.path(), s(1))).unwrap(), true);
}

#[test]
fn a_file_is_bounded() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let options = FileOptions { max_bytes: 100_000, ..options(folder.path(), s(1)) };
    is_bounded(&runtime, &File::open(&options).unwrap(), 100_000);
}

#[test]
fn what_was_written_is_there_when_the_file_is_opened_again() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let open = || File::open(&options(folder.path(), s(3_600))).unwrap();
    let held = Rule::Held;
    let charges = [charge("day", DAY, 100, 30), charge("place", held, 2, 1)];
    let store = open();
    runtime.block_on(async {
        assert_eq!(store.set(s(1), "k", Some(Bytes::from("v")), Some(s(50)), Expect::Absent).await, Ok(true));
        assert_eq!(store.take(s(1), "a", s(1_000), &charges).await, Ok(Taken::All(vec![30, 1])));
        assert_eq!(store.take(s(1), "b", s(1_000), &charges).await, Ok(Taken::All(vec![60, 2])));
        store.settle(s(2), "b", s(1), &[used("day", DAY, 20)], Once::Until(s(500))).await.unwrap();
    });
    drop(store);
    let store = open();
    runtime.block_on(async {
        assert_eq!(store.get(s(2), "k").await, Ok(Some(Bytes::from("v"))));
        assert_eq!(store.get(s(50), "k").await, Ok(None));
        let meters = [("day".into(), DAY), ("place".into(), held)];
        assert_eq!(store.used(s(2), &meters).await, Ok(vec![50, 1]));
        // What was settled stays so, and who was not there to settle has nothing any more when its lease is over.
        store.settle(s(2), "b", s(1), &[used("day", DAY, 20)], Once::Until(s(500))).await.unwrap();
        assert_eq!(store.used(s(2), &meters).await, Ok(vec![50, 1]));
        assert_eq!(store.take(s(2), "a", s(1_000), &charges).await, Ok(Taken::All(vec![50, 1])));
        assert_eq!(store.take(s(1_000), "c", s(2_000), &charges).await, Ok(Taken::All(vec![50, 1])));
        // The bound counts what was there before.
        let large = Some(Bytes::from(vec![0; 64 << 20]));
        assert!(store.set(s(2), "large", large, None, Expect::Absent).await.is_err());
    });
}

#[test]
fn what_cannot_be_opened_says_so_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let missing = FileOptions { path: folder.path().join("none/state.redb"), ..options(folder.path(), s(1)) };
    let error = File::open(&missing).expect_err("there is no folder").to_string();
    assert!(error.contains("none/state.redb") && error.contains("No such file"), "{error}");
    assert!(File::check(&missing).is_err_and(|error| error.to_string().contains("folder")));
    let other = folder.path().join("other");
    std::fs::write(&other, "what somebody else wrote, long enough to be looked at".repeat(1_000)).unwrap();
    let error = File::open(&FileOptions { path: other.clone(), ..options(folder.path(), s(1)) });
    let error = error.expect_err("it is no state").to_string();
    assert!(error.contains(&*other.to_string_lossy()), "{error}");
    assert!(File::check(&FileOptions { path: other, ..options(folder.path(), s(1)) }).is_err());
    assert_eq!(File::check(&options(folder.path(), s(1))), Ok(()));
    assert!(!folder.path().join("state.redb").exists());
    let held = File::open(&options(folder.path(), s(1))).unwrap();
    let error = File::open(&options(folder.path(), s(1))).expect_err("it is in use").to_string();
    assert!(error.contains("another process has it"), "{error}");
    assert_eq!(File::check(&options(folder.path(), s(1))), Ok(()));
    drop(held);
    assert_eq!(File::check(&options(folder.path(), s(1))), Ok(()));
}

#[test]
fn a_call_takes_no_longer_than_its_limit() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let store = File::open(&FileOptions { timeout: Duration::ZERO, ..options(folder.path(), s(1)) }).unwrap();
    // One that is done before anybody looks has taken no time.
    let late = (0..1_000).any(|at| {
        let set = runtime.block_on(store.set(s(1), &format!("k{at}"), Some(Bytes::from("v")), None, Expect::Absent));
        set.is_err_and(|error| error.to_string().contains("longer than 0 ms"))
    });
    assert!(late);
}

/// The process whose files may not be larger than a few megabytes: the disk that it has is full some time.
#[test]
#[ignore = "the next test runs it, in a process of its own"]
fn filler() {
    let folder = std::env::var("WITGATE_TEST_FOLDER").expect("the next test sets it");
    let store = File::open(&options(Path::new(&folder), Duration::from_millis(20))).unwrap();
    runtime().block_on(async {
        let charges = [charge("day", DAY, 100, 1)];
        let uses = [used("day", DAY, 1)];
        assert_eq!(store.take(s(1), "a", s(1_000), &charges).await, Ok(Taken::All(vec![1])));
        let value = Bytes::from(vec![7; 256 << 10]);
        let mut error = None;
        for at in 0..200 {
            error = store.set(s(1), &format!("k{at}"), Some(value.clone()), None, Expect::Absent).await.err();
            if error.is_some() {
                break;
            }
        }
        let error = error.expect("the file has a largest size").to_string();
        assert!(error.contains("state.redb") && !error.contains("it may hold"), "{error}");
        // What only counts in memory says so too, now and later.
        for _ in 0..3 {
            assert!(store.take(s(2), "b", s(1_000), &charges).await.is_err());
            assert!(store.settle(s(1), "a", s(1), &uses, Once::First).await.is_err());
            assert!(store.used(s(2), &[("day".into(), DAY)]).await.is_err());
            assert!(store.set(s(2), "k", None, None, Expect::Anything).await.is_err());
        }
    });
}

#[test]
#[cfg(unix)]
fn when_the_disk_has_failed_so_does_every_call_that_only_counts_until_the_process_is_started_anew() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    // Without the trap a file that would become too large ends the process.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ && ulimit -f 16384 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "filler", "--ignored", "--nocapture", "--test-threads=1"])
        .env("WITGATE_TEST_FOLDER", folder.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let store = File::open(&options(folder.path(), s(1))).unwrap();
    runtime.block_on(async {
        assert!(store.get(s(2), "k0").await.unwrap().is_some());
        assert!(store.take(s(2), "b", s(1_000), &[charge("day", DAY, 100, 1)]).await.is_ok());
    });
}

/// A generator of numbers that look random: the same ones for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// The process that is killed: three tasks write and count, and say what was acknowledged.
#[test]
#[ignore = "the next test runs it, in a process of its own"]
fn writer() {
    let folder = std::env::var("WITGATE_TEST_FOLDER").expect("the next test sets it");
    let round: u64 = std::env::var("WITGATE_TEST_ROUND").expect("the next test sets it").parse().unwrap();
    let store = File::open(&options(Path::new(&folder), Duration::ZERO)).unwrap();
    let (store, runtime) = (&store, runtime());
    std::thread::scope(|scope| {
        for task in 0..3 {
            let handle = runtime.handle().clone();
            scope.spawn(move || {
                let mut numbers = Numbers(round * 100 + task);
                for n in 0.. {
                    let key = format!("{task}/{}", numbers.next(20));
                    let value = format!("{round}.{n}.{}", "x".repeat(numbers.next(3_000) as usize));
                    let told = format!("{round}.{n}.{}", value.len());
                    handle.block_on(async {
                        let set = store.set(s(1), &key, Some(Bytes::from(value)), None, Expect::Anything).await;
                        assert_eq!(set, Ok(true));
                        println!("\nset {key} {told}");
                        let id = format!("{task}.{round}.{n}");
                        let charges = [charge(&format!("m/{task}"), DAY, u64::MAX, 1)];
                        let taken = store.take(s(1), &id, s(1_000), &charges).await;
                        let Ok(Taken::All(used)) = taken else { panic!("{taken:?}") };
                        println!("\ntook {task} {}", used[0]);
                    });
                }
            });
        }
    });
}

#[test]
fn every_acknowledged_write_survives_a_kill() {
    const ROUNDS: u64 = 50;
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let mut values = std::collections::BTreeMap::<String, String>::new();
    let mut counts = [0_u64; 3];
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture", "--test-threads=1"])
            .env("WITGATE_TEST_FOLDER", folder.path())
            .env("WITGATE_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // From here on some number of acknowledgements, and then no mercy.
        let mut left = 1 + Numbers(round).next(60);
        let mut killed = false;
        while let Some(Ok(line)) = lines.next() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["set", key, value] => drop(values.insert(key.to_owned(), value.to_owned())),
                ["took", task, count] => counts[task.parse::<usize>().unwrap()] = count.parse().unwrap(),
                _ => continue,
            }
            acknowledged += 1;
            left = left.saturating_sub(1);
            if left == 0 && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed && child.wait().unwrap().code().is_none(), "round {round}: it ended by itself");
        let store = File::open(&options(folder.path(), s(1))).unwrap();
        runtime.block_on(async {
            for (key, told) in &mut values {
                let found = store.get(s(1), key).await.unwrap().unwrap_or_default();
                let found = String::from_utf8(found.to_vec()).unwrap();
                let parts: Vec<_> = found.split('.').collect();
                let [of, n, _] = parts[..] else { panic!("round {round}: {key} is {found:?}, not {told}") };
                let found = format!("{of}.{n}.{}", found.len());
                // What was written but not acknowledged may be there too, or not.
                let number = |text: &str| text.split('.').map(|part| part.parse::<u64>().unwrap()).collect::<Vec<_>>();
                assert!(number(&found) >= number(told), "round {round}: {key} is {found}, not {told}");
                *told = found;
            }
            for (task, count) in counts.iter_mut().enumerate() {
                let used = store.used(s(1), &[(format!("m/{task}").into(), DAY)]).await.unwrap()[0];
                assert!((*count..*count + 2).contains(&used), "round {round}: {used} of {count}");
                *count = used;
            }
        });
    }
    assert!(acknowledged > ROUNDS * 10, "{acknowledged}");
}
