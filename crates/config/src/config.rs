//! The resolved configuration: every default filled in, every reference checked.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::component::{ComponentConfig, Digest, Plugins};
use crate::hooks::PolicyConfig;
use crate::jobs::Jobs;
use crate::names::{nearest, quote};
use crate::policy::{Alarm, Cache, Choice, Concurrency, EndpointOptions, Fallback, Health, Hedge, Metrics, Retry};
use crate::problem::{Problem, Problems};
use crate::queues::Queue;
use crate::read::Place;
use crate::secret::Secret;
use crate::state::{Source, State, Store};
use crate::units::{GIB, KIB, MIB};

/// The adapters that come with witgate, by the names that configurations use.
pub const BUILTIN_ADAPTERS: [&str; 7] = ["anthropic", "bedrock", "llama-cpp", "ollama", "openai", "sagemaker", "stub"];

/// A complete, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The HTTP server.
    pub server: Server,
    /// Time limits of providers that set none of their own.
    pub timeouts: Timeouts,
    /// What is tried again, at providers that choose nothing else.
    pub retry: Retry,
    /// When an endpoint rests, of providers that choose nothing else.
    pub health: Health,
    /// Which requests are answered from the cache, of models that choose nothing else.
    pub cache: Cache,
    /// The bytes that the answers in the cache may take, of those that one process keeps.
    pub cache_max_bytes: usize,
    /// Bounds on what clients, backends and adapters may do.
    pub limits: Limits,
    /// The backends, by name. At least one.
    pub providers: BTreeMap<String, Provider>,
    /// What clients may ask for, by the name that they use. `*` stands for any other name.
    pub models: BTreeMap<String, Model>,
    /// Adapters of the user's own, by name; one that has the name of a built-in adapter replaces it.
    pub adapters: BTreeMap<String, AdapterConfig>,
    /// What all adapters and policies of the user's own have in common.
    pub plugins: Plugins,
    /// Documents that are kept, or that the operator stored.
    pub documents: Documents,
    /// Asynchronous jobs, files and batches.
    pub jobs: Jobs,
    /// Queues from which requests come.
    pub queues: Vec<Queue>,
    /// Where state lies.
    pub state: State,
    /// What the operator chose for a dialect, by its name.
    pub dialects: BTreeMap<String, Dialect>,
    /// Policies, by name.
    pub policies: BTreeMap<String, PolicyConfig>,
    /// The policies of requests for models that choose none themselves, in their order.
    pub policy_chain: Vec<String>,
    /// Metrics for Prometheus.
    pub metrics: Metrics,
    /// When operators are told of the traffic.
    pub alarms: Vec<Alarm>,
    /// Who may ask for what, and what it may cost.
    pub access: Access,
    /// Where this came from.
    pub origin: Origin,
    /// Line and column of every value in the file.
    pub(crate) places: BTreeMap<String, Place>,
    /// Of what it was read from; none where that is no text.
    pub(crate) digests: Option<Digests>,
}

/// By which two readings of a configuration are compared: SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    /// Of the text.
    pub text: [u8; 32],
    /// Of the text and the environment variables that it names.
    pub all: [u8; 32],
}

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, by the name that it was read under.
    File(String),
    /// The environment variables of the services that witgate replaces.
    Environment,
    /// Nothing was configured: the built-in stub alone.
    Builtin,
}

/// The HTTP server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where to listen: `host:port`, an IPv6 host in brackets; port 0 takes any free one.
    pub listen: String,
    /// The keys that clients must bring as `Authorization: Bearer …`; with none the server is open.
    pub api_keys: Vec<Secret>,
    /// Threads that serve requests; 0 is one for each core.
    pub threads: usize,
    /// How often a waiting streaming client is sent a comment, so that no load balancer cuts it off.
    pub keep_alive: Duration,
    /// How long a shutdown waits for running requests.
    pub shutdown_timeout: Duration,
    /// How often the configuration's file and those of its components are looked at for changes; zero is never.
    pub reload_interval: Duration,
    /// Whether browsers get a page at `/`.
    pub page: bool,
    /// Pages of which other origins may ask.
    pub cors: Cors,
}

/// What browsers are told of other origins (CORS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// The origins whose pages may ask, as `https://example.com`; `*` is every one. Without any, none may.
    pub origins: Vec<String>,
    /// How long a browser may keep what it was told.
    pub max_age: Duration,
}

impl Default for Cors {
    fn default() -> Self {
        Cors { origins: Vec::new(), max_age: Duration::from_secs(600) }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            api_keys: Vec::new(),
            threads: 0,
            keep_alive: Duration::from_secs(15),
            shutdown_timeout: Duration::from_secs(30),
            reload_interval: Duration::from_secs(1),
            page: true,
            cors: Cors::default(),
        }
    }
}

impl Server {
    /// The number of the client with this key among [`Server::api_keys`], where the server admits it; `None` is a client
    /// without a key, and 0 every client of an open server. Takes the same time for every wrong key of a length.
    pub fn client(&self, key: Option<&str>) -> Option<usize> {
        if self.api_keys.is_empty() {
            return Some(0);
        }
        let key = key?;
        let all = self.api_keys.iter().enumerate();
        all.fold(None, |found, (number, own)| if own.matches(key) { found.or(Some(number)) } else { found })
    }
}

/// Time limits of one attempt at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// Until the first content of a stream has come.
    pub first_token: Duration,
    /// Between two pieces of content; of an answer that is not streamed, between two pieces of its body.
    pub idle: Duration,
    /// For the whole answer.
    pub total: Duration,
}

impl Timeouts {
    /// The values where nothing is configured: 5 s, 60 s, 60 s, 600 s.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(5),
        first_token: Duration::from_secs(60),
        idle: Duration::from_secs(60),
        total: Duration::from_secs(600),
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Bounds on what clients, backends and adapters may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Largest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// Most requests that are served at once.
    pub max_concurrent_requests: usize,
    /// Deepest nesting of arrays and objects in a request.
    pub max_json_depth: u32,
    /// Most messages in a request.
    pub max_messages: u32,
    /// Largest frame of a backend's answer (an event, a line, a message), in bytes.
    pub max_frame_bytes: usize,
    /// Largest answer of a backend that is read whole, in bytes.
    pub max_response_bytes: usize,
    /// Most events that an adapter may make of one frame.
    pub max_events_per_frame: usize,
    /// Most memory of one component instance, in bytes.
    pub max_instance_memory_bytes: usize,
    /// Longest time of one call into an adapter.
    pub adapter_call_timeout: Duration,
}

impl Limits {
    /// The most elements of a table of a component, where it has no limit of its own.
    pub const TABLE_ELEMENTS: u32 = 20_000;

    /// The most elements of a table that a component may be allowed.
    pub const MOST_TABLE_ELEMENTS: u32 = 1_000_000;

    /// The most memory that an instance of a component may be allowed, in bytes.
    pub const MOST_MEMORY_BYTES: u64 = 2 * GIB;

    /// The values where nothing is configured.
    pub const DEFAULT: Self = Self {
        max_body_bytes: 10 * MIB as usize,
        max_header_bytes: 64 * KIB as usize,
        max_concurrent_requests: 1_024,
        max_json_depth: 64,
        max_messages: 10_000,
        max_frame_bytes: 16 * MIB as usize,
        max_response_bytes: 32 * MIB as usize,
        max_events_per_frame: 4_096,
        max_instance_memory_bytes: 64 * MIB as usize,
        adapter_call_timeout: Duration::from_secs(1),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name: the key in `[providers.<name>]`.
    pub name: String,
    /// What speaks its language.
    pub adapter: AdapterRef,
    /// Base URLs, without a slash at their end; empty where the adapter's own default is to be used. The URL `stub:`
    /// is answered by the gateway itself.
    pub endpoints: Vec<String>,
    /// What the adapter gets to see: a JSON object that matches its settings schema.
    pub settings: serde_json::Value,
    /// What the adapter does not get to see, by the name of the slot. None is empty.
    pub secrets: BTreeMap<String, Secret>,
    /// The keys that take turns as the secret `api_key`, the one among `secrets` first; none where there is at most one.
    pub api_keys: Vec<Secret>,
    /// Headers that every request to it carries, names in lower case.
    pub headers: BTreeMap<String, Secret>,
    /// Time limits, the defaults filled in.
    pub timeouts: Timeouts,
    /// What belongs to each of `endpoints`, in their order.
    pub endpoint_options: Vec<EndpointOptions>,
    /// How one of the endpoints is chosen.
    pub choice: Choice,
    /// How many requests it gets at once.
    pub concurrency: Concurrency,
    /// What is tried again.
    pub retry: Retry,
    /// When an endpoint rests.
    pub health: Health,
    /// When a second endpoint is asked beside the first.
    pub hedge: Option<Hedge>,
}

/// Which adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterRef {
    /// One that comes with witgate, of [`BUILTIN_ADAPTERS`].
    Builtin(String),
    /// One of [`Config::adapters`].
    Configured(String),
    /// A component file, relative to the configuration file.
    Path(String),
    /// One of the program's own, by its name among [`Native::adapters`].
    Native(String),
}

/// What a program that embeds the gateway brings itself, and a file may name without saying where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Native {
    /// Names of adapters. They come before those that come with witgate.
    pub adapters: BTreeSet<String>,
    /// Names of policies. They come before those that come with witgate.
    pub policies: BTreeSet<String>,
}

impl AdapterRef {
    /// The name, or the path.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Builtin(name) | Self::Configured(name) | Self::Path(name) | Self::Native(name) => name,
        }
    }
}

/// What a name of a model stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name that clients use.
    pub alias: String,
    /// Who may answer. At least one.
    pub targets: Vec<Target>,
    /// In which order they are tried.
    pub choice: Choice,
    /// Who is asked after them.
    pub fallback: Fallback,
    /// The policies of its requests, in their order, in the place of [`Config::policy_chain`].
    pub policies: Option<Vec<String>>,
    /// Which requests are answered from the cache, where it is not [`Config::cache`] that says so.
    pub cache: Option<Cache>,
    /// When a second target is asked beside the first, where it is not the provider that says so.
    pub hedge: Option<Hedge>,
}

impl Model {
    /// A model whose targets are tried in their order.
    pub fn new(alias: impl Into<String>, targets: Vec<Target>) -> Self {
        Model {
            alias: alias.into(),
            targets,
            choice: Choice::default(),
            fallback: Fallback::default(),
            policies: None,
            cache: None,
            hedge: None,
        }
    }
}

/// Where the requests for one name go.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// Who may answer. At least one.
    pub targets: Cow<'a, [Target]>,
    /// What is configured under the name; none where it is `provider/model`.
    pub model: Option<&'a Model>,
}

/// A model of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The provider's name.
    pub provider: String,
    /// The backend's name for the model; `None` is the name as the client wrote it.
    pub model: Option<String>,
    /// The provider's settings with the target's own over them; `None` where it has no own ones.
    pub settings: Option<Arc<Settings>>,
    /// Its share beside the other targets.
    pub weight: u32,
}

impl Target {
    /// A target without settings of its own.
    pub fn new(provider: impl Into<String>, model: Option<String>) -> Self {
        Target { provider: provider.into(), model, settings: None, weight: 1 }
    }
}

/// What an adapter gets to see, where a target has settings of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A JSON object that matches the adapter's settings schema.
    pub json: serde_json::Value,
    /// The same as text.
    pub text: String,
    /// Which of the targets in the file has them, from 0.
    pub(crate) at: usize,
}

/// Documents that are kept, or that the operator stored.
#[derive(Clone, Debug)]
pub struct Documents {
    /// The folder of stored configurations, relative to the configuration file.
    pub configurations: Option<String>,
    /// Where stored configurations come from.
    pub from: Source,
    /// How long a stored configuration counts as read.
    pub cache_ttl: Duration,
    /// Largest stored configuration, in bytes.
    pub max_bytes: u64,
    /// How long answers are kept that clients may ask for again.
    pub keep_for: Duration,
    /// The memory that such answers may take, in bytes.
    pub memory_bytes: u64,
}

impl Default for Documents {
    fn default() -> Self {
        Documents {
            configurations: None,
            from: Source::Folder,
            cache_ttl: Duration::from_secs(60),
            max_bytes: MIB,
            keep_for: Duration::from_secs(24 * 3600),
            memory_bytes: 64 * MIB,
        }
    }
}

/// What the operator chose for an API that clients speak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// The model of requests that name none, as a client would name it.
    pub model: Option<String>,
    /// What the dialect gets to see: a JSON object as text; empty for none.
    pub settings: String,
}

/// An adapter of the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterConfig {
    /// Where the component comes from.
    pub component: ComponentConfig,
    /// Its instances may serve one request after another. An adapter that is not trusted gets a fresh instance for
    /// each.
    pub trusted: bool,
    /// Most memory of one instance, in bytes.
    pub max_memory_bytes: usize,
    /// Most elements of one table of an instance.
    pub max_table_elements: usize,
    /// Longest time of one call.
    pub call_timeout: Duration,
}

/// Nothing is configured under the name that a client asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct UnknownModel {
    /// The name, as the client wrote it.
    pub model: String,
    /// The name that was probably meant.
    pub nearest: Option<String>,
    /// What there is: aliases, and `provider/…` for each provider.
    pub known: Vec<String>,
}

impl UnknownModel {
    fn message(&self) -> String {
        let what = if self.model.is_empty() {
            "the request names no model, and none is the default".to_owned()
        } else {
            format!("no model {}", quote(&self.model, 100))
        };
        match &self.nearest {
            Some(near) => format!("{what}; did you mean {}?", quote(near, 100)),
            None => format!("{what}; known are {}", crate::names::list(self.known.iter().map(String::as_str))),
        }
    }
}

impl Config {
    /// Reads a configuration file. `file` is its name in problems; `env` gives the environment variables that the text
    /// refers to. Returns everything that is wrong, not only the first.
    pub fn from_toml(text: &str, file: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        crate::file::read(text, file, env, &Native::default())
    }

    /// The same as [`Config::from_toml`] for a program that brings adapters and policies of its own.
    pub fn from_toml_with(
        text: &str,
        file: &str,
        env: &dyn Fn(&str) -> Option<String>,
        native: &Native,
    ) -> Result<Self, Problems> {
        crate::file::read(text, file, env, native)
    }

    /// SHA-256 of the text that it was read from, in hexadecimal; none where it is from the environment, or built in.
    pub fn digest(&self) -> Option<String> {
        Some(Digest::of_sum(self.digests?.text).hex().to_owned())
    }

    /// Whether it was read from the same text, with the same values of the environment variables that the text names. Of two
    /// without a text, from the environment or made by a program, that cannot be said: they are not. What was changed after
    /// the reading is not looked at.
    pub fn is_same(&self, other: &Config) -> bool {
        self.digests.zip(other.digests).is_some_and(|(own, other)| own.all == other.all)
    }

    /// Reads the environment variables of the services that witgate replaces. Several groups may be set at once; each adds
    /// its providers. An empty variable counts as unset; lists are parted by commas.
    ///
    /// - The AWA LLM service: `LLM_PROVIDER` (`lan`, `openai`, `local`, `stub`), `LLM_PROVIDER_FALLBACK` (a list),
    ///   `LLM_BASE_URL`, `LLM_URL`, `LLM_API_KEY`, `LLM_TIMEOUT_SECS`, `OPENAI_MODEL` and `OPENAI_API_KEY`.
    /// - The LLM invocation service: `BEDROCK_OPENAI_ENDPOINTS` and `OLLAMA_ENDPOINTS` (lists, or in the singular),
    ///   `BEDROCK_API_KEY`, `OLLAMA_DEFAULT_MODEL`, the parameters `BEDROCK_…` and `OLLAMA_…`, and, where Bedrock has no
    ///   endpoints, `STRONG_MODEL_ID` or `WEAK_MODEL_ID` for InvokeModel; `PROMPT_COMPLEXITY_THRESHOLD` for its queue. `BEDROCK_OPENAI_PASSTHROUGH=true` sends
    ///   the endpoints those parameters too that OpenAI does not have.
    /// - The serverless Bedrock endpoint: `BEDROCK_MODEL_ID`, and `BEDROCK_MOCK=true`, which answers without Bedrock.
    /// - The SageMaker proxy: `SAGEMAKER_ENDPOINT_NAME` and `AWS_REGION`.
    /// - llm-exe: `OPEN_AI_API_KEY` (or `OPENAI_API_KEY`) and `ANTHROPIC_API_KEY`.
    ///
    /// A model that no group knows is asked of the first of these that is there: AWA's chain, SageMaker's endpoint,
    /// OpenAI, Anthropic, Bedrock, Ollama. Where nothing of all this is set, the result is [`Config::builtin`]; the
    /// `OPENAI_…` variables alone, which are often there for other programs, change nothing.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        crate::env::read(env)
    }

    /// The built-in stub alone, which answers to every model.
    pub fn builtin() -> Self {
        let mut config = Self {
            server: Server::default(),
            timeouts: Timeouts::DEFAULT,
            retry: Retry::DEFAULT,
            health: Health::DEFAULT,
            cache: Cache::DEFAULT,
            cache_max_bytes: Cache::DEFAULT_MAX_BYTES,
            limits: Limits::DEFAULT,
            providers: BTreeMap::new(),
            models: BTreeMap::new(),
            adapters: BTreeMap::new(),
            plugins: Plugins::default(),
            documents: Documents::default(),
            jobs: Jobs::default(),
            queues: Vec::new(),
            state: State::default(),
            dialects: BTreeMap::new(),
            policies: BTreeMap::new(),
            policy_chain: Vec::new(),
            metrics: Metrics::default(),
            alarms: Vec::new(),
            access: Access::default(),
            origin: Origin::Builtin,
            places: BTreeMap::new(),
            digests: None,
        };
        config.providers.insert("stub".into(), Provider::stub());
        config.models.insert("*".into(), Model::new("*", vec![Target::new("stub", None)]));
        crate::facades::complete(&mut config, BTreeMap::new());
        config
    }

    /// Who answers for the name of a model: an alias; else `provider/model`, parted at the first slash; else the alias
    /// `*`. An empty name is the alias `default`, else the only alias there is, else the alias `*`.
    pub fn resolve(&self, model: &str) -> Result<Vec<Target>, UnknownModel> {
        self.route(model).map(|route| route.targets.into_owned())
    }

    /// The same with what is chosen for the name, and nothing copied.
    pub fn route<'a>(&'a self, model: &str) -> Result<Route<'a>, UnknownModel> {
        let of = |model: &'a Model| Route { targets: Cow::Borrowed(&model.targets), model: Some(model) };
        let any = self.models.get("*");
        let alias = if model.is_empty() {
            let mut named = self.models.values().filter(|model| model.alias != "*");
            match (self.models.get("default"), named.next(), named.next()) {
                (Some(default), ..) => Some(default),
                (None, Some(only), None) => Some(only),
                _ => any,
            }
        } else {
            self.models.get(model)
        };
        if let Some(alias) = alias {
            return Ok(of(alias));
        }
        if let Some((provider, name)) = model.split_once('/')
            && !name.is_empty()
            && self.providers.contains_key(provider)
        {
            let target = Target::new(provider, Some(name.into()));
            return Ok(Route { targets: Cow::Owned(vec![target]), model: None });
        }
        if let Some(any) = any {
            return Ok(of(any));
        }
        let near = nearest(model, self.models.keys().map(String::as_str)).map(str::to_owned).or_else(|| {
            let (provider, name) = model.split_once('/')?;
            let near = nearest(provider, self.providers.keys().map(String::as_str))?;
            (!name.is_empty()).then(|| format!("{near}/{name}"))
        });
        let mut known: Vec<String> = self.models.keys().cloned().collect();
        known.extend(self.providers.keys().map(|name| format!("{name}/…")));
        Err(UnknownModel { model: model.into(), nearest: near, known })
    }

    /// A JSON Schema (2020-12) of the configuration file, for editors.
    pub fn json_schema() -> serde_json::Value {
        crate::file::schema()
    }

    /// A problem with the value at `key` (as `providers.local.endpoint`), with its place in the file, or that of the
    /// nearest table around it. For whoever knows more than this crate: whether a file exists, what an adapter needs.
    pub fn problem(&self, key: &str, message: impl Into<String>, help: Option<String>) -> Problem {
        let mut outer = key;
        let (line, column) = loop {
            if let Some(place) = self.places.get(outer) {
                break place.value;
            }
            match outer.rfind(['.', '[']).and_then(|at| outer.get(..at)) {
                Some(shorter) => outer = shorter,
                None => break (0, 0),
            }
        };
        let file = match &self.origin {
            Origin::File(name) => name.clone(),
            Origin::Environment => "environment".into(),
            Origin::Builtin => "built-in configuration".into(),
        };
        Problem { file, line, column, key: key.into(), message: message.into(), help }
    }

    /// A problem with the key at `key`.
    pub(crate) fn key_problem(&self, key: &str, message: impl Into<String>, help: Option<String>) -> Problem {
        let problem = self.problem(key, message, help);
        match self.places.get(key) {
            Some(Place { key: (line, column), .. }) => Problem { line: *line, column: *column, ..problem },
            None => problem,
        }
    }

    /// What of it the gateway cannot have as a component, which has neither files nor sockets of its own.
    pub fn check_component(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.queues.is_empty() {
            let help = "remove them, or run the gateway as a program".to_owned();
            problems.push(self.problem("queues", "a component receives from no queue", Some(help)));
        }
        if let Store::File(_) | Store::Redis(_) | Store::Native = self.state.store {
            let help = "write \"key-value\", or \"memory\"".to_owned();
            problems.push(self.problem("state.store", "a component has neither files nor sockets", Some(help)));
        }
        problems
    }

    /// Compares a provider's secrets with those that its adapter names: (slot, whether it is required).
    pub fn check_secrets(&self, provider: &str, slots: &[(&str, bool)]) -> Vec<Problem> {
        let Some(config) = self.providers.get(provider) else { return Vec::new() };
        let path = crate::read::join("providers", provider);
        let mut problems = Vec::new();
        for (slot, required) in slots {
            if *required && !config.secrets.contains_key(*slot) {
                let help = match (*slot, &self.origin) {
                    ("api_key", Origin::Environment) if provider == "openai" => "set OPENAI_API_KEY".to_owned(),
                    ("api_key", Origin::Environment) if provider == "anthropic" => "set ANTHROPIC_API_KEY".to_owned(),
                    ("api_key", Origin::Environment) => "set LLM_API_KEY".to_owned(),
                    ("api_key", _) => "write api_key = \"${NAME}\"".to_owned(),
                    (slot, _) => format!("write secrets.{slot} = \"${{NAME}}\""),
                };
                problems.push(self.problem(&path, format!("the secret \"{slot}\" is missing"), Some(help)));
            }
        }
        // A slot of AWS credentials holds several secrets: `<slot>_access_key_id` and so on.
        let taken: Vec<String> = slots
            .iter()
            .flat_map(|(slot, _)| match *slot {
                "aws" => crate::aws::PARTS.iter().map(|part| format!("{slot}_{part}")).collect(),
                slot => vec![slot.to_owned()],
            })
            .collect();
        let parts: Vec<_> = crate::aws::PARTS[..2].iter().map(|part| format!("aws_{part}")).collect();
        if let [Some(one), None] | [None, Some(one)] = [0, 1].map(|n| config.secrets.get_key_value(&parts[n])) {
            let other = parts.iter().find(|part| *part != one.0).map_or("", String::as_str);
            let help = format!("write secrets.{other} = \"${{NAME}}\" too, or neither: then AWS's own chain is asked");
            problems.push(self.problem(&path, format!("the secret \"{other}\" is missing"), Some(help)));
        }
        for name in config.secrets.keys().filter(|name| !taken.contains(name)) {
            let names = || taken.iter().map(String::as_str);
            let help = crate::names::did_you_mean(name, names()).or_else(|| {
                Some(if taken.is_empty() {
                    "it takes none".to_owned()
                } else {
                    format!("it takes {}", crate::names::list(names()))
                })
            });
            let inner = crate::read::join(&crate::read::join(&path, "secrets"), name);
            let key = match self.places.contains_key(&inner) {
                true => inner,
                false => crate::read::join(&path, name),
            };
            let message =
                format!("the adapter {} takes no secret {}", quote(config.adapter.as_str(), 64), quote(name, 64));
            problems.push(self.key_problem(&key, message, help));
        }
        problems
    }
}

impl Provider {
    /// A provider of which nothing is configured but its name and its adapter.
    pub fn new(name: impl Into<String>, adapter: AdapterRef) -> Self {
        Self {
            name: name.into(),
            adapter,
            endpoints: Vec::new(),
            settings: serde_json::json!({}),
            secrets: BTreeMap::new(),
            api_keys: Vec::new(),
            headers: BTreeMap::new(),
            timeouts: Timeouts::DEFAULT,
            endpoint_options: Vec::new(),
            choice: Choice::default(),
            concurrency: Concurrency::DEFAULT,
            retry: Retry::DEFAULT,
            health: Health::DEFAULT,
            hedge: None,
        }
    }

    pub(crate) fn stub() -> Self {
        Self { endpoints: vec!["stub:".into()], ..Self::new("stub", AdapterRef::Builtin("stub".into())) }
    }
}
