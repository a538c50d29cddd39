//! What plug-ins cost on this machine: `cargo run --release -p witgate-host --example plugins [-- --write]`.
//!
//! The same small adapter in three languages, and the policies that come with witgate, each loaded from its file as a
//! configuration's own components are: untrusted. `--write` puts the tables into `docs/plugin-costs.md`, with machine and
//! date. Components that are not built are left out, and named.
#![allow(clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../../crates/adapters/examples/native/cost.rs"]
mod cost;

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cost::{Failure, median};
use witgate_adapters::LlamaCpp;
use witgate_gateway::{Adapter as _, Policy as _};
use witgate_host::conformance::{Options, Plugin};
use witgate_host::{AdapterComponent, PolicyComponent};
use witgate_model::policy::Context;
use witgate_model::{
    Adapter, BlockKind, Decoder, Error, Event, Frame, Framing, Message, Policy, Request, ResponseHead, Role, SseEvent,
    Watcher, watching,
};
use witgate_policies::{Guard, Redactor};

/// How many instances are held at once to see what one takes.
const HELD: usize = 16;
const DOC: &str = "docs/plugin-costs.md";
const BEGIN: &str = "<!-- written by host/examples/plugins.rs -->\n";
const END: &str = "<!-- end -->";

fn refused(error: Error) -> Failure {
    error.message.into()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A component, loaded: cold, then from the cache.
fn load(file: &Path) -> Result<(Plugin, f64, f64), Failure> {
    let mut options = Options::default();
    options.cache_dir = None;
    let timed = |options: &Options| -> Result<(Plugin, f64), Failure> {
        let begun = Instant::now();
        let plugin = Plugin::load(file, options)?;
        Ok((plugin, begun.elapsed().as_secs_f64() * 1e3))
    };
    let (_, cold) = timed(&options)?;
    let cache = tempfile::tempdir()?;
    options.cache_dir = Some(cache.path().to_owned());
    drop(timed(&options)?);
    let (plugin, warm) = timed(&options)?;
    Ok((plugin, cold, warm))
}

/// Bytes of memory that are this process's alone: pages that only show the components' code are shared.
fn own_memory() -> f64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    text.lines().filter(|line| line.starts_with("Private_")).filter_map(kib).sum::<f64>() * 1024.0
}

/// KiB that each of some instances takes that are held at once.
fn held<T>(mut hold: impl FnMut() -> Result<T, Failure>) -> Result<f64, Failure> {
    let before = own_memory();
    let all = (0..HELD).map(|_| hold()).collect::<Result<Vec<_>, _>>()?;
    let after = own_memory();
    drop(all);
    Ok((after - before) / 1024.0 / HELD as f64)
}

/// Microseconds, with as many digits as mean something.
fn us(time: f64) -> String {
    match time {
        t if t < 10.0 => format!("{t:.2}"),
        t if t < 100.0 => format!("{t:.1}"),
        t => format!("{t:.0}"),
    }
}

/// A table's column.
struct Column(String, Vec<(&'static str, String)>);

/// A table with these columns; what a column lacks is –.
fn table(out: &mut String, columns: &[Column]) -> Result<(), Failure> {
    let mut rows: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flat_map(|column| &column.1) {
        if !rows.contains(name) {
            rows.push(name);
        }
    }
    let heads: Vec<&str> = columns.iter().map(|column| column.0.as_str()).collect();
    writeln!(out, "| | {} |\n|---|{}", heads.join(" | "), "--:|".repeat(heads.len()))?;
    for row in rows {
        let cell = |column: &Column| {
            column.1.iter().find(|(name, _)| *name == row).map_or_else(|| "–".to_owned(), |(_, value)| value.clone())
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        writeln!(out, "| {row} | {} |", cells.join(" | "))?;
    }
    out.push('\n');
    Ok(())
}

/// A chat of about so many bytes.
fn chat(bytes: usize, also: &str) -> Arc<Request> {
    let text = "All happy families are alike. ".repeat(bytes / 30 + 1);
    Arc::new(Request::chat("openai-chat", "tiny", vec![Message::text(Role::User, text + also)]))
}

fn head() -> ResponseHead {
    let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    ResponseHead { status: 200, headers, framing: Framing::Sse, stream: true }
}

fn frame(content: &str) -> Frame {
    let data = format!(
        "{{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\",\"choices\":[{{\"index\":0,\"delta\":\
         {{\"content\":\"{content}\"}},\"finish_reason\":null}}]}}"
    );
    Frame::Sse(SseEvent { event: None, data, id: None })
}

const DESCRIBE: &str = "`describe`, µs";
const ENCODE: [(&str, usize); 2] = [("`encode` of 1 KB, µs", 1_000), ("`encode` of 100 KB, µs", 100_000)];
const FEED: &str = "`feed` of one event, µs";

fn adapter(component: &AdapterComponent) -> Result<Vec<(&'static str, String)>, Failure> {
    let small = chat(1_000, "");
    let first = || {
        let mut session = component.session()?;
        session.encode("{}", &small)?.map_err(refused)?;
        Ok(session)
    };
    let mut rows = vec![
        ("an instance, µs", us(median(|| Ok(component.session()?))?)),
        ("an instance with its first `encode`, µs", us(median(first)?)),
        ("an instance that has encoded: linear memory, KiB", format!("{:.0}", first()?.memory() as f64 / 1024.0)),
        ("and what it takes of the machine's, KiB", format!("{:.0}", held(first)?)),
    ];
    let mut session = first()?;
    rows.push((DESCRIBE, us(median(|| Ok(session.describe()?))?)));
    for (name, bytes) in ENCODE {
        let request = chat(bytes, "");
        rows.push((name, us(median(|| session.encode("{}", &request)?.map_err(refused))?)));
    }
    session.start("{}", None, head())?;
    session.feed(vec![frame("once")])?;
    let one = frame(" upon");
    rows.push((FEED, us(median(|| Ok(session.feed(vec![one.clone()])?))?)));
    Ok(rows)
}

fn native_adapter<A: Adapter>() -> Result<Vec<(&'static str, String)>, Failure> {
    let mut rows = vec![(DESCRIBE, us(median(|| Ok(A::describe()))?))];
    for (name, bytes) in ENCODE {
        let request = chat(bytes, "");
        rows.push((name, us(median(|| A::encode("{}", Request::clone(&request)).map_err(refused))?)));
    }
    let mut decoder = A::decoder("{}", None, head());
    decoder.feed(vec![frame("once")]);
    let one = frame(" upon");
    rows.push((FEED, us(median(|| Ok(decoder.feed(vec![one.clone()])))?)));
    Ok(rows)
}

/// What both policies find.
const HIT: &str = " Write to ada@example.com of project falcon. ";
const REQUESTS: [(&str, usize, &str); 4] = [
    ("`on-request`, 1 KB, nothing found, µs", 1_000, ""),
    ("the same, something found, µs", 1_000, HIT),
    ("`on-request`, 100 KB, nothing found, µs", 100_000, ""),
    ("the same with something found, µs", 100_000, HIT),
];
const WATCH: [(&str, &str); 2] = [
    ("a watcher and a text, nothing found, µs", " once upon a time "),
    ("a watcher and a text, something found, µs", HIT),
];
const EVENT: &str = "`feed` of one event, nothing found, µs";

/// The beginning of an answer that says this.
fn beginning(text: &str) -> Vec<Event> {
    let mut events = watching::said(BlockKind::Text, &[text]);
    events.truncate(3);
    events
}

fn policy(component: &PolicyComponent, settings: &Settings) -> Result<Vec<(&'static str, String)>, Failure> {
    let context = Context { dialect: "openai-chat".to_owned(), model: "tiny".to_owned(), ..Context::default() };
    let tag: Arc<str> = settings.tag.into();
    let stop: Arc<str> = settings.stop.into();
    let small = chat(1_000, "");
    let first = || {
        let mut session = component.session()?;
        session.on_request(&tag, &context, &small)?.map_err(refused)?;
        Ok(session)
    };
    let mut rows = vec![
        ("an instance, µs", us(median(|| Ok(component.session()?))?)),
        ("an instance with its first `on-request`, µs", us(median(first)?)),
        ("an instance that has decided: linear memory, KiB", format!("{:.0}", first()?.memory() as f64 / 1024.0)),
        ("and what it takes of the machine's, KiB", format!("{:.0}", held(first)?)),
    ];
    let mut session = first()?;
    rows.push((DESCRIBE, us(median(|| Ok(session.describe()?))?)));
    for (name, bytes, also) in REQUESTS {
        let request = chat(bytes, also);
        let decide = || session.on_request(&tag, &context, &request)?.map_err(refused);
        rows.push((name, us(median(decide)?)));
    }
    for (name, text) in WATCH {
        let events = beginning(text);
        let watch = || {
            session.start(&stop, settings.note.to_owned())?;
            Ok(session.feed(events.clone())?)
        };
        rows.push((name, us(median(watch)?)));
    }
    session.start(&stop, settings.note.to_owned())?;
    session.feed(beginning("Well "))?;
    let event = vec![Event::text(0, " word")];
    rows.push((EVENT, us(median(|| Ok(session.feed(event.clone())?))?)));
    Ok(rows)
}

fn native_policy<P: Policy>(settings: &Settings) -> Result<Vec<(&'static str, String)>, Failure> {
    let context = Context { dialect: "openai-chat".to_owned(), model: "tiny".to_owned(), ..Context::default() };
    let mut rows = vec![(DESCRIBE, us(median(|| Ok(P::describe()))?))];
    for (name, bytes, also) in REQUESTS {
        let request = chat(bytes, also);
        rows.push((name, us(median(|| P::on_request(settings.tag, &context, &request).map_err(refused))?)));
    }
    for (name, text) in WATCH {
        let events = beginning(text);
        let watch = || {
            let mut watcher = P::watcher(settings.stop, settings.note.to_owned());
            Ok(black_box(watcher.feed(events.clone())))
        };
        rows.push((name, us(median(watch)?)));
    }
    let mut watcher = P::watcher(settings.stop, settings.note.to_owned());
    watcher.feed(beginning("Well "));
    let event = vec![Event::text(0, " word")];
    rows.push((EVENT, us(median(|| Ok(watcher.feed(event.clone())))?)));
    Ok(rows)
}

/// A policy's settings: with which requests pass, and with which answers are stopped or changed; and its note.
struct Settings {
    tag: &'static str,
    stop: &'static str,
    note: &'static str,
}

/// The columns of a component's file, before what its calls cost.
fn file_rows(file: &Path, cold: f64, warm: f64) -> Result<Vec<(&'static str, String)>, Failure> {
    Ok(vec![
        ("the file, KiB", format!("{:.0}", std::fs::metadata(file)?.len() as f64 / 1024.0)),
        ("to load, compiling it, ms", format!("{cold:.0}")),
        ("to load what is compiled already, ms", format!("{warm:.1}")),
    ])
}

/// The machine and the day.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let debug = if cfg!(debug_assertions) { ", a debug build: the figures mean nothing" } else { "" };
    let cpu = if cpu.is_empty() { std::env::consts::ARCH } else { cpu };
    format!("{date}, {cpu}, {cores} cores, load {load} when it began, one thread{debug}.\n\n")
}

fn main() -> Result<(), Failure> {
    let mut out = machine();
    let components = root().join("target/components");
    let missing = |file: &Path| println!("{} is not there, and left out: `cargo xtask test` builds it", file.display());
    let mut adapters = Vec::new();
    for (language, name) in
        [("Rust", "adapter-shout"), ("JavaScript", "adapter-shout-js"), ("Python", "adapter-shout-py")]
    {
        let file = components.join(format!("{name}.wasm"));
        if !file.is_file() {
            missing(&file);
            continue;
        }
        let (plugin, cold, warm) = load(&file)?;
        let Plugin::Adapter(component) = plugin else { return Err(format!("{} is no adapter", file.display()).into()) };
        let mut rows = file_rows(&file, cold, warm)?;
        rows.extend(adapter(&component)?);
        adapters.push(Column(language.to_owned(), rows));
    }
    adapters.push(Column("its base, native".to_owned(), native_adapter::<LlamaCpp>()?));
    out.push_str("### The same small adapter\n\n");
    table(&mut out, &adapters)?;

    let guard = Settings {
        tag: r#"{"blocked_terms": ["project falcon", "blue book", "zebra crossing"], "terms": "tag"}"#,
        stop: r#"{"blocked_terms": ["project falcon", "blue book", "zebra crossing"]}"#,
        note: "",
    };
    let redactor = Settings { tag: "{}", stop: "{}", note: "{}" };
    let mut policies = Vec::new();
    for (name, settings) in [("guard", &guard), ("redactor", &redactor)] {
        let file = components.join(format!("policy-{name}.wasm"));
        if file.is_file() {
            let (plugin, cold, warm) = load(&file)?;
            let Plugin::Policy(component) = plugin else {
                return Err(format!("{} is no policy", file.display()).into());
            };
            let mut rows = file_rows(&file, cold, warm)?;
            rows.extend(policy(&component, settings)?);
            policies.push(Column(name.to_owned(), rows));
        } else {
            missing(&file);
        }
        let native =
            if name == "guard" { native_policy::<Guard>(settings)? } else { native_policy::<Redactor>(settings)? };
        policies.push(Column(format!("{name}, native"), native));
    }
    out.push_str("### Policies\n\n");
    table(&mut out, &policies)?;
    print!("{out}");
    if std::env::args().any(|argument| argument == "--write") {
        let doc = root().join(DOC);
        let text = std::fs::read_to_string(&doc)?;
        let lacks = || format!("{DOC} lacks {} or {END}", BEGIN.trim());
        let (before, rest) = text.split_once(BEGIN).ok_or_else(lacks)?;
        let (_, after) = rest.split_once(END).ok_or_else(lacks)?;
        std::fs::write(&doc, format!("{before}{BEGIN}\n{out}{END}{after}"))?;
        println!("wrote {DOC}");
    }
    Ok(())
}
