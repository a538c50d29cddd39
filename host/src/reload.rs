//! What serves, and how it is replaced while requests run.
//!
//! A configuration that is read anew is checked and its components are compiled beside what runs. Only what is right in
//! all its parts takes the place of what serves; from then on each request begins on the new one, and those that run end
//! on the old one, which is dropped with the last of them. What is wrong is refused, and nothing has changed.
//!
//! It is read anew when its file changes, or one of its components' ([`witgate_config::Server::reload_interval`]), and
//! when somebody asks for it ([`crate::Host::reload`]).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use witgate_config::{Config, Origin, Problem, Problems, Store};
use witgate_gateway::{ConfigurationState, Refusal, Reload};

use crate::host::{BuildError, Serving, Setup};
use crate::queues::Queues;

/// How often a host that is not to look for changes looks whether it is to.
const ASLEEP: Duration = Duration::from_secs(1);
/// The most problems of a refused configuration that are kept, and their longest text in bytes.
const MOST_PROBLEMS: usize = 100;
const LONGEST_PROBLEM: usize = 2_000;

/// Where the ports find the host that they belong to.
pub(crate) type Home = Arc<OnceLock<Weak<Shared>>>;

/// What became of a configuration that was read anew and is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It is served from the next request on.
    Changed,
    /// It is the one that is served, with the same components: nothing was done.
    Unchanged,
}

/// Why a configuration that was read anew is not served. The one before is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong, each for people. No secret is in here.
    pub problems: Vec<String>,
}

/// One problem on a line.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for Refused {}

impl From<BuildError> for Refused {
    fn from(error: BuildError) -> Self {
        let mut problems: Vec<_> = match error {
            BuildError::Config(problems) => problems.iter().take(MOST_PROBLEMS).map(Problem::to_string).collect(),
            other => vec![other.to_string()],
        };
        for problem in &mut problems {
            problem.truncate(problem.floor_char_boundary(LONGEST_PROBLEM));
        }
        Refused { problems }
    }
}

/// A host, as all that serve it share it.
pub(crate) struct Shared {
    pub setup: Setup,
    current: ArcSwap<Serving>,
    /// How often what serves has been replaced.
    swaps: watch::Sender<u64>,
    /// One at a time.
    reloading: Mutex<()>,
    told: Mutex<Told>,
    receiving: Mutex<Receiving>,
}

/// The queues that are received from.
#[derive(Default)]
struct Receiving {
    queues: Option<Queues>,
    /// The end of the process has begun.
    stopped: bool,
}

/// What is told of the configuration, and where it is looked for.
struct Told {
    state: ConfigurationState,
    /// The files of the configuration that was last read, as they were then.
    files: Stamps,
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Shared {
    pub fn new(setup: Setup, serving: Serving) -> Arc<Self> {
        let config = &serving.config;
        let source = match &config.origin {
            Origin::File(name) => name.clone(),
            Origin::Environment => "environment".to_owned(),
            Origin::Builtin => "built-in configuration".to_owned(),
        };
        let state = ConfigurationState { source, digest: config.digest(), since: unix_time(), ..Default::default() };
        let told = Told { state, files: stamps(setup.files(config), &Stamps::new()) };
        let shared = Arc::new(Shared {
            setup,
            current: ArcSwap::from_pointee(serving),
            swaps: watch::Sender::new(0),
            reloading: Mutex::default(),
            told: Mutex::new(told),
            receiving: Mutex::default(),
        });
        // Set once: the setup is this host's own.
        let _ = shared.setup.home.set(Arc::downgrade(&shared));
        shared
    }

    /// What serves now. To be asked once for each request.
    pub fn serving(&self) -> Arc<Serving> {
        self.current.load_full()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told of the configuration that serves.
    pub fn configuration(&self) -> ConfigurationState {
        self.told().state.clone()
    }

    /// Reads the configuration anew and serves it, if nothing is wrong with it.
    pub async fn reload(self: &Arc<Self>) -> Result<Reloaded, Refused> {
        let shared = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || shared.reload_now()).await;
        done.unwrap_or_else(|_| Err(Refused { problems: vec!["reading the configuration failed".to_owned()] }))
    }

    /// As [`Shared::reload`], on a thread that may wait: compiling takes seconds.
    fn reload_now(&self) -> Result<Reloaded, Refused> {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.try_reload();
        let mut told = self.told();
        match &result {
            Ok(Reloaded::Changed) => {
                let digest = self.serving().config.digest();
                told.state.reloads += 1;
                (told.state.digest, told.state.since, told.state.refused) = (digest, unix_time(), None);
                let digest = told.state.digest.as_deref();
                tracing::info!(target: "witgate::reload", digest, "the configuration was read anew and is served");
            }
            Ok(Reloaded::Unchanged) => {
                // Whatever was wrong before has been undone.
                told.state.refused = None;
                tracing::info!(target: "witgate::reload", "the configuration was read anew and is the same");
            }
            Err(refused) => {
                told.state.refusals += 1;
                told.state.refused = Some(Refusal { at: unix_time(), problems: refused.problems.clone() });
                for problem in &refused.problems {
                    tracing::error!(target: "witgate::reload", problem, "the configuration is refused");
                }
            }
        }
        result
    }

    fn try_reload(&self) -> Result<Reloaded, Refused> {
        let before = self.serving();
        // As they are before they are read: what changes later is seen.
        let known = stamps(self.told().files.keys().cloned(), &Stamps::new());
        self.told().files.clone_from(&known);
        let config = self.setup.read()?;
        self.told().files = stamps(self.setup.files(&config), &known);
        let fixed = fixed(&before.config, &config);
        if !fixed.is_empty() {
            return Err(BuildError::Config(Problems(fixed)).into());
        }
        let Some(next) = self.setup.serving(config, Some(&before))? else { return Ok(Reloaded::Unchanged) };
        let before = self.current.swap(Arc::new(next));
        before.retire(&self.serving());
        self.swaps.send_modify(|swaps| *swaps += 1);
        Ok(Reloaded::Changed)
    }

    /// What is done beside requests: endpoints that rest are probed, jobs are run, queues are received from, changes of the
    /// configuration are taken over. Never completes; what runs ends when it is dropped.
    pub async fn background(self: Arc<Self>) {
        let mut swaps = self.swaps.subscribe();
        // Workers of gateways that have been replaced end by themselves, with their last job, and their queues with the last
        // message in hand.
        let mut workers = JoinSet::new();
        let mut looking = JoinSet::new();
        looking.spawn(Arc::clone(&self).look());
        loop {
            swaps.mark_unchanged();
            let serving = self.serving();
            let (gateway, ports) = (Arc::clone(&serving.gateway), Arc::clone(&serving.ports));
            workers.spawn(async move { gateway.work(&ports).await });
            if let Some(before) = self.receive(&serving) {
                workers.spawn(before.finished());
            }
            let mut probes = JoinSet::new();
            let (gateway, ports) = (Arc::clone(&serving.gateway), Arc::clone(&serving.ports));
            probes.spawn(async move { gateway.watch(&ports).await });
            drop(serving);
            loop {
                tokio::select! {
                    _ = swaps.changed() => break,
                    Some(_) = workers.join_next() => {}
                }
            }
        }
    }

    fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives from the queues of what serves, and no longer from those of what served before, which are the answer.
    fn receive(&self, serving: &Serving) -> Option<Queues> {
        let mut receiving = self.receiving();
        let before = receiving.queues.take();
        if let Some(before) = &before {
            before.finish();
        }
        if !receiving.stopped {
            receiving.queues = Some(Queues::start(&serving.gateway, &serving.ports, &serving.config));
        }
        before
    }

    /// From now on nothing more is received from queues. What is in hand is answered by those that are returned.
    pub fn stop_queues(&self) -> Option<Queues> {
        let mut receiving = self.receiving();
        receiving.stopped = true;
        let queues = receiving.queues.take()?;
        queues.finish();
        Some(queues)
    }

    /// Looks for changes of the files, and takes them over when they have come to rest.
    async fn look(self: Arc<Self>) {
        loop {
            let interval = self.serving().config.server.reload_interval;
            if interval.is_zero() {
                tokio::time::sleep(ASLEEP).await;
                continue;
            }
            tokio::time::sleep(interval).await;
            let Some(mut now) = self.changed().await else { continue };
            loop {
                tokio::time::sleep(interval).await;
                match self.changed().await {
                    // Somebody else has had it read, or it is as it was.
                    None => break,
                    Some(again) if again == now => {
                        // What is wrong is told there.
                        let _ = self.reload().await;
                        break;
                    }
                    // Whoever writes has not written all.
                    Some(again) => now = again,
                }
            }
        }
    }

    /// The files as they are, where that is not as they were read.
    async fn changed(self: &Arc<Self>) -> Option<Stamps> {
        let shared = Arc::clone(self);
        let look = move || {
            let known = shared.told().files.clone();
            let now = stamps(known.keys().cloned(), &Stamps::new());
            (now != known).then_some(now)
        };
        tokio::task::spawn_blocking(look).await.ok().flatten()
    }
}

/// By what a change of a file is seen: its length, the time of its last change, its place on the disk.
type Stamp = Option<(u64, Option<SystemTime>, u64)>;

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    #[cfg(unix)]
    let place = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let place = 0;
    Some((metadata.len(), metadata.modified().ok(), place))
}

type Stamps = BTreeMap<PathBuf, Stamp>;

/// The stamps of files, where they are not `known`.
fn stamps(files: impl IntoIterator<Item = PathBuf>, known: &Stamps) -> Stamps {
    let one = |file: PathBuf| {
        let stamp = known.get(&file).copied().unwrap_or_else(|| stamp(&file));
        (file, stamp)
    };
    files.into_iter().map(one).collect()
}

/// What cannot change while the gateway runs.
fn fixed(before: &Config, next: &Config) -> Vec<Problem> {
    let (old, new) = (&before.state, &next.state);
    let same_store = match (&old.store, &new.store) {
        (Store::Memory, Store::Memory) | (Store::KeyValue, Store::KeyValue) | (Store::Native, Store::Native) => true,
        (Store::File(old), Store::File(new)) => old == new,
        (Store::Redis(old), Store::Redis(new)) => old.digest() == new.digest(),
        _ => false,
    };
    let same_state = (old.timeout, old.flush, old.max_bytes, &old.prefix)
        == (new.timeout, new.flush, new.max_bytes, &new.prefix)
        && same_store;
    let kept = |config: &Config| (config.documents.memory_bytes, config.documents.keep_for);
    let all = [
        ("server.listen", before.server.listen == next.server.listen),
        ("server.threads", before.server.threads == next.server.threads),
        ("state", same_state),
        ("documents", kept(before) == kept(next)),
    ];
    let what = |key: &str| match key {
        "documents" => "memory_bytes and keep_for cannot change while the gateway runs",
        "state" => "the state store cannot change while the gateway runs",
        _ => "this cannot change while the gateway runs",
    };
    let help = || Some("restart the gateway, or write what was there".to_owned());
    let changed = all.into_iter().filter(|(_, same)| !same);
    changed.map(|(key, _)| next.problem(key, what(key), help())).collect()
}

/// For the admin API.
pub(crate) fn told(result: Result<Reloaded, Refused>) -> Reload {
    match result {
        Ok(Reloaded::Changed) => Reload::Done,
        Ok(Reloaded::Unchanged) => Reload::Unchanged,
        Err(refused) => Reload::Refused(refused.problems),
    }
}
