//! The file: its tables, and how they become a [`Config`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::access::{self, AccountingTable, AdminTable, KeyTable, PriceTable, QuotaTable, Tables, TenantTable};
use crate::component::{Given, Plugins, PluginsTable};
use crate::config::{
    AdapterConfig, AdapterRef, BUILTIN_ADAPTERS, Config, Cors, Dialect, Digests, Documents, Limits, Model, Native,
    Origin, Provider, Server, Settings, Target, Timeouts,
};
use crate::endpoint::{self, Flaw};
use crate::facades::{self, Backend};
use crate::hooks;
use crate::jobs::Jobs;
use crate::names::{did_you_mean, list, quote};
use crate::policy::{
    Cache, CacheWhen, Choice, Concurrency, EndpointOptions, Fallback, Health, Hedge, HedgeAfter, Retry, Sticky,
    Strategy,
};
use crate::problem::Problems;
use crate::queues::{self, QueueTable};
use crate::read::{
    Anything, At, Count, Flag, Hidden, Kind, ListOf, MapOf, Named, Node, Ranged, Reader, Size, Text, Time, Use, Value,
    Word, join, table,
};
use crate::secret::Secret;
use crate::state::{S3Kind, SourceName, StateKind, source};
use crate::units::{GIB, KIB, MIB, show_duration};
use crate::watch;

/// The dialects that have something to choose.
const DIALECTS: [&str; 11] = [
    "anthropic-messages",
    "awa-llm",
    "bedrock-chat",
    "llm-exe",
    "llm-invocation",
    "ollama-chat",
    "ollama-generate",
    "openai-chat",
    "openai-completions",
    "openai-embeddings",
    "openai-responses",
];

/// All dialects: what a key's routes may name.
const ROUTES: [&str; 13] = [
    "anthropic-messages",
    "awa-llm",
    "bedrock-chat",
    "llm-exe",
    "llm-invocation",
    "ollama-chat",
    "ollama-embed",
    "ollama-embeddings",
    "ollama-generate",
    "openai-chat",
    "openai-completions",
    "openai-embeddings",
    "openai-responses",
];

/// The facades of OpenAI's two completion APIs.
const FACADES: [&str; 1] = ["sagemaker-proxy"];

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const MAX_TARGETS: usize = 64;
const MAX_ENDPOINTS: usize = 256;
const MAX_REGIONS: usize = 16;
const MAX_KEYS: usize = 64;

table! {
    /// The file.
    struct FileTable {
        /// The HTTP server.
        server: ServerTable;
        /// Time limits of one attempt at a backend, where the provider sets none of its own.
        timeouts: TimeoutsTable;
        /// What is tried again after a failure, where the provider chooses nothing else.
        retry: RetryTable;
        /// When an endpoint that fails rests, where the provider chooses nothing else.
        health: HealthTable;
        /// Answers that are kept for requests that come again. Default: none are.
        cache: CacheTable;
        /// Bounds on what clients, backends and adapters may do.
        limits: LimitsTable;
        /// The backends, by name: letters, digits, ".", "_" and "-".
        providers: MapOf<ProviderTable>;
        /// What clients may ask for, by the name that they use; "*" stands for any other name. Besides, clients may
        /// always ask for "provider/model".
        models: MapOf<ModelTable>;
        /// Adapters of your own, by name; one that has the name of a built-in adapter replaces it.
        adapters: MapOf<AdapterTable>;
        /// What all adapters and policies of your own have in common.
        plugins: PluginsTable;
        /// What you choose for an API that clients speak, by its name, as "awa-llm".
        dialects: MapOf<DialectTable>;
        /// Documents that are kept, or that you stored.
        documents: DocumentsTable;
        /// Policies, by name: they look at requests and answers, where server.policies or a model's say so.
        policies: MapOf<hooks::PolicyTable>;
        /// Asynchronous jobs, files and batches.
        jobs: JobsTable;
        /// Queues from which requests come, by names of your own.
        queues: MapOf<QueueTable>;
        /// Metrics for Prometheus, at /metrics.
        metrics: watch::MetricsTable;
        /// When you are told of the traffic, by names of your own.
        alarms: MapOf<watch::AlarmTable>;
        /// The admin API, under /admin/: keys, spend, health.
        admin: AdminTable;
        /// Keys for clients, by name: letters, digits, "_" and "-".
        keys: MapOf<KeyTable>;
        /// What all keys of a tenant together may use, by its name.
        tenants: MapOf<TenantTable>;
        /// What models cost where it differs from the table that comes with witgate: by "provider/model", "provider/*" or
        /// the backend's name for a model.
        prices: MapOf<PriceTable>;
        /// How requests are counted.
        accounting: AccountingTable;
        /// Where state lies: what is kept of answers, counted against limits, and known of keys and jobs.
        state: StateKind;
    }
}

table! {
    /// Asynchronous jobs, files and batches.
    struct JobsTable {
        /// Jobs that one process runs at once; 0 is none: then another process has to.
        concurrency: Count = Jobs::default().concurrency as u32, 0..=10_000;
        /// Most jobs that wait, or run; one more is refused with 503 and Retry-After.
        max_queued: Count = Jobs::default().max_queued as u32, 1..=1_000_000;
        /// Most times that a job is begun, before it counts as failed.
        attempts: Count = Jobs::default().attempts, 1..=100;
        /// How long a job belongs to the process that runs it, unless that process says again that it does.
        lease: Time = Jobs::default().lease, 3 * SECOND..=HOUR;
        /// How long after its submission a job may still be begun.
        run_within: Time = Jobs::default().run_within, SECOND..=30 * DAY;
        /// How long a job and its answer are kept when it has ended.
        kept_for: Time = Jobs::default().kept_for, SECOND..=365 * DAY;
        /// Largest answer that is kept.
        max_answer_bytes: Size = Jobs::default().max_answer_bytes as u64, KIB..=GIB;
        /// Longest time that a client may wait for a job in one request.
        max_wait: Time = Jobs::default().max_wait, Duration::ZERO..=HOUR;
        /// What callbacks are signed with as Standard Webhooks: "whsec_" and 24 to 64 bytes in base64; without it there
        /// are none.
        callback_secret: Hidden;
        /// Most times that a callback is sent until it is accepted.
        callback_attempts: Count = Jobs::default().callback_attempts, 1..=32;
        /// Callbacks may go to addresses of private networks and of this machine. Default false.
        allow_private_callbacks: Flag;
        /// Largest file of /v1/files.
        max_file_bytes: Size = Jobs::default().max_file_bytes as u64, KIB..=GIB;
        /// How long a file is kept, not shorter than run_within.
        files_kept_for: Time = Jobs::default().files_kept_for, MINUTE..=365 * DAY;
        /// Most requests of one batch.
        max_batch_requests: Count = Jobs::default().max_batch_requests as u32, 1..=1_000_000;
        /// Requests of one batch that run at once.
        batch_concurrency: Count = Jobs::default().batch_concurrency as u32, 1..=1_000;
    }
}

table! {
    /// Documents that are kept, or that you stored.
    struct DocumentsTable {
        /// The folder of stored configurations, relative to this file.
        configurations: Text;
        /// Where stored configurations come from: "folder", "s3", or "state", the state store's values configuration/KEY.
        /// Default "s3" where that is set, else "folder".
        from: Word<SourceName>;
        /// The bucket of stored configurations.
        s3: S3Kind;
        /// How long a stored configuration counts as read.
        cache_ttl: Time = Documents::default().cache_ttl, Duration::ZERO..=DAY;
        /// Largest stored configuration.
        max_bytes: Size = Documents::default().max_bytes, KIB..=GIB;
        /// How long answers are kept that clients may ask for again.
        keep_for: Time = Documents::default().keep_for, MS..=365 * DAY;
        /// The memory that such answers may take.
        memory_bytes: Size = Documents::default().memory_bytes, KIB..=64 * GIB;
    }
}

table! {
    /// What you choose for an API that clients speak.
    struct DialectTable {
        /// The model of requests that name none: what a client would write.
        model: Text;
        /// Errors have the status that the older service gave them, where this API is one of an older service. Default false.
        legacy_status: Flag;
        /// bedrock-chat only: answers by itself, without any backend. Default false.
        mock: Flag;
        /// bedrock-chat only: models that clients name are this provider's.
        provider: Text;
        /// openai-chat and openai-completions only: "sagemaker-proxy" gives them the defaults and the errors of that
        /// older service.
        facade: Text;
        /// llm-exe only: whether templates escape their values where a payload does not say: "none" (the default) or "html".
        escape: Text;
        /// llm-exe only: how often a model is shown what is wrong with its JSON where a payload does not say. Default 0.
        retries: Count = 0, 0..=1;
        /// llm-invocation only: from how many words of a prompt on /invoke/llm/enqueue asks "bedrock" where a payload names no
        /// backend; below it asks "ollama".
        prompt_complexity_threshold: Count = 20, 1..=1_000_000;
        /// llm-invocation only: what its backends are asked where a request does not say, by the provider's name.
        backends: MapOf<BackendTable>;
    }
}

table! {
    /// A backend of llm-invocation.
    struct BackendTable {
        /// The model of requests that name none; without it the one that [models] calls like the backend.
        model: Text;
        /// Parameters where a request says nothing of them, as the backend calls them.
        defaults: Anything;
    }
}

table! {
    /// The HTTP server.
    struct ServerTable {
        /// Where to listen, "host:port", an IPv6 host in brackets; port 0 takes any free one. Default 127.0.0.1:8080.
        listen: Text;
        /// The keys that clients must bring as "Authorization: Bearer …"; without any the server is open.
        api_keys: ListOf<Hidden>;
        /// Threads that serve requests; 0 is one for each core.
        threads: Count = 0, 0..=1_024;
        /// How often a waiting streaming client is sent a comment, so that no load balancer cuts it off.
        keep_alive: Time = Server::default().keep_alive, 10 * MS..=HOUR;
        /// How long a shutdown waits for running requests.
        shutdown_timeout: Time = Server::default().shutdown_timeout, MS..=HOUR;
        /// How often the configuration's file and those of its components are looked at for changes, which are then
        /// taken over while requests run; "0s" is never.
        reload_interval: Time = Server::default().reload_interval, Duration::ZERO..=HOUR;
        /// Whether browsers get a page at "/", with the providers' state and a form to try a model. Default true.
        page: Flag;
        /// Pages of which other origins may ask (CORS). Default: none.
        cors: CorsTable;
        /// The policies that look at requests and answers, in their order: names of [policies].
        policies: ListOf<Text>;
    }
}

table! {
    /// What browsers are told of other origins.
    struct CorsTable {
        /// The origins whose pages may ask, as "https://example.com"; "*" is every one.
        origins: ListOf<Text>;
        /// How long a browser may keep what it was told.
        max_age: Time = Cors::default().max_age, Duration::ZERO..=DAY;
    }
}

table! {
    /// Time limits of one attempt at a backend.
    struct TimeoutsTable {
        /// Until the connection stands, TLS included.
        connect: Time = Timeouts::DEFAULT.connect, MS..=10 * MINUTE;
        /// Until the first content has come. Of an answer that is not streamed nothing comes before all of it is made: it has
        /// `total` for that.
        first_token: Time = Timeouts::DEFAULT.first_token, MS..=DAY;
        /// Between two pieces of content; comments that only keep the connection open do not count. Of an answer that is not
        /// streamed, between two pieces of its body.
        idle: Time = Timeouts::DEFAULT.idle, MS..=DAY;
        /// For the whole answer.
        total: Time = Timeouts::DEFAULT.total, MS..=DAY;
    }
}

table! {
    /// What is tried again after a failure; only before the first content has gone to the client.
    struct RetryTable {
        /// Most tries of one target for one request; there is a wait before each but the first.
        attempts: Count = Retry::DEFAULT.attempts, 1..=10;
        /// Most other endpoints of the provider that are tried at once when one has failed.
        failover: Count = Retry::DEFAULT.failover, 0..=16;
        /// The wait before the second try, give or take; it doubles with each further one.
        backoff: Time = Retry::DEFAULT.backoff, MS..=MINUTE;
        /// Longest wait. A backend that asks for a longer one (retry-after) is not tried again for this request.
        max_backoff: Time = Retry::DEFAULT.max_backoff, MS..=10 * MINUTE;
        /// Most further tries at one provider, in percent of its requests, so that no outage is made worse.
        budget: Count = Retry::DEFAULT.budget, 0..=1_000;
        /// Further tries in each minute that the budget does not count.
        reserve: Count = Retry::DEFAULT.reserve, 0..=1_000_000;
    }
}

table! {
    /// When an endpoint that fails rests. Where all of them rest, they are asked all the same.
    struct HealthTable {
        /// Failures one after another that make it rest; 0 is never.
        failures: Count = Health::DEFAULT.failures, 0..=1_000;
        /// Failures in percent of its requests that make it rest; 0 is never.
        failure_rate: Count = Health::DEFAULT.failure_rate, 0..=100;
        /// Fewest requests in the window for which failure_rate counts.
        min_requests: Count = Health::DEFAULT.min_requests, 1..=1_000_000;
        /// The time over which failure_rate is taken.
        window: Time = Health::DEFAULT.window, MS..=HOUR;
        /// How long it rests, before one request finds out whether it serves again; "0s" switches health off.
        rest: Time = Health::DEFAULT.rest, Duration::ZERO..=HOUR;
        /// How often an endpoint that rests is probed, so that no request has to find out; "0s" is never.
        probe_interval: Time = Health::DEFAULT.probe_interval, Duration::ZERO..=HOUR;
    }
}

table! {
    /// How many requests an endpoint gets at once, and how many wait.
    struct ConcurrencyTable {
        /// Most requests at once at one endpoint; 0 is no limit.
        max: Count = 0, 0..=1_000_000;
        /// Most requests that wait for a place at any endpoint; one more is refused with 503 and Retry-After.
        queue: Count = Concurrency::DEFAULT.queue, 0..=1_000_000;
        /// How long a request waits, before it is refused with 503 and Retry-After.
        wait: Time = Concurrency::DEFAULT.wait, Duration::ZERO..=HOUR;
        /// Where a request would have to wait, the model's next target that has a place is asked first. Default false.
        spill: Flag;
    }
}

table! {
    /// Answers that are kept for requests that come again.
    struct CacheTable {
        /// Whether answers are kept. Default false.
        enabled: Flag;
        /// For which requests: deterministic (the default: temperature 0 or a seed, vectors, counts), all, or asked (only
        /// for those that bring the header x-witgate-cache: on, which always counts).
        when: Word<CacheWhen>;
        /// How long an answer is good for.
        ttl: Time = Cache::DEFAULT.ttl, MS..=30 * DAY;
        /// Largest answer that is kept.
        max_entry_bytes: Size = Cache::DEFAULT.max_entry_bytes as u64, KIB..=64 * MIB;
        /// What all answers together may take, of those that one process keeps; the oldest that nobody asks for go first.
        max_bytes: Size = Cache::DEFAULT_MAX_BYTES as u64, KIB..=64 * GIB;
    }
}

table! {
    /// Answers of one model that are kept, where it differs from [cache].
    struct ModelCacheTable {
        /// Whether answers are kept.
        enabled: Flag;
        /// For which requests: deterministic, all, or asked.
        when: Word<CacheWhen>;
        /// How long an answer is good for.
        ttl: Time = Cache::DEFAULT.ttl, MS..=30 * DAY;
        /// Largest answer that is kept.
        max_entry_bytes: Size = Cache::DEFAULT.max_entry_bytes as u64, KIB..=64 * MIB;
    }
}

table! {
    /// When a second backend is asked beside the first; only for requests whose answer is not streamed.
    struct HedgeTable {
        /// How long the first one is waited for alone: a duration, or as long as most answers took lately, "p50" to "p99".
        after: AfterKind [required];
        /// For how many of a hundred requests, at most.
        max_percent: Count = 5, 1..=100;
    }
}

table! {
    /// One of several endpoints.
    struct EndpointTable {
        /// Base URL, http or https.
        url: Text [required];
        /// Its share beside the others.
        weight: Count = 1, 1..=1_000;
        /// Most requests at once, where it differs from concurrency.max; 0 is no limit.
        max_concurrent: Count;
    }
}

table! {
    /// Bounds on what clients, backends and adapters may do.
    struct LimitsTable {
        /// Largest body of a request; a larger one is refused with 413.
        max_body_bytes: Size = Limits::DEFAULT.max_body_bytes as u64, KIB..=GIB;
        /// Largest head of a request: its first line and its headers.
        max_header_bytes: Size = Limits::DEFAULT.max_header_bytes as u64, KIB..=MIB;
        /// Most requests that are served at once; one more is refused with 503 and Retry-After.
        max_concurrent_requests: Count = Limits::DEFAULT.max_concurrent_requests as u32, 1..=1_000_000;
        /// Deepest nesting of arrays and objects in a request.
        max_json_depth: Count = Limits::DEFAULT.max_json_depth, 4..=512;
        /// Most messages in a request.
        max_messages: Count = Limits::DEFAULT.max_messages, 1..=1_000_000;
        /// Largest frame of a backend's answer: an event, a line, a message.
        max_frame_bytes: Size = Limits::DEFAULT.max_frame_bytes as u64, KIB..=GIB;
        /// Largest answer of a backend that is read whole.
        max_response_bytes: Size = Limits::DEFAULT.max_response_bytes as u64, KIB..=GIB;
        /// Most events that an adapter may make of one frame.
        max_events_per_frame: Count = Limits::DEFAULT.max_events_per_frame as u32, 1..=65_536;
        /// Most memory of one component instance.
        max_instance_memory_bytes: Size = Limits::DEFAULT.max_instance_memory_bytes as u64, MIB..=Limits::MOST_MEMORY_BYTES;
        /// Longest time of one call into an adapter; of its second half, what the processor works for it counts.
        adapter_call_timeout: Time = Limits::DEFAULT.adapter_call_timeout, MS..=MINUTE;
    }
}

table! {
    /// A backend.
    struct ProviderTable {
        /// What speaks its language: one of anthropic, bedrock, llama-cpp, ollama, openai, sagemaker and stub, a name of [adapters], or a path that ends in
        /// .wasm.
        adapter: Text [required];
        /// Base URL, http or https. Without one the adapter's own default is used, where it has one.
        endpoint: Text;
        /// Several base URLs, of which the strategy chooses: "http://…", or a table with url and weight.
        endpoints: ListOf<EndpointKind>;
        /// Which endpoint gets a request: ordered (the default: the first that is well), weighted, round-robin,
        /// least-in-flight, or latency (of two taken by chance the one that answers sooner).
        strategy: Word<Strategy>;
        /// What keeps requests at the same endpoint, for its prompt cache: "prompt" (its head), or "header:NAME".
        sticky: StickyKind;
        /// How many requests an endpoint gets at once.
        concurrency: ConcurrencyTable;
        /// What is tried again, where it differs from [retry].
        retry: RetryTable;
        /// When an endpoint rests, where it differs from [health].
        health: HealthTable;
        /// When a second endpoint is asked beside the first. Default: never.
        hedge: HedgeTable;
        /// The same as secrets.api_key.
        api_key: Hidden;
        /// Several keys, which take turns; one that is refused or throttled rests. An empty one counts as absent.
        api_keys: ListOf<Hidden>;
        /// What signs requests, by the name that the adapter gives to it. Never shown to the adapter. An empty one
        /// counts as absent.
        secrets: MapOf<Hidden>;
        /// What the adapter is told; "witgate adapters" lists the keys that it knows.
        settings: Anything;
        /// Headers that every request to the backend carries.
        headers: MapOf<Hidden>;
        /// Time limits where they differ from [timeouts].
        timeouts: TimeoutsTable;
    }
}

table! {
    /// What a name of a model stands for: "target" or "targets".
    struct ModelTable {
        /// Who answers: "provider/model", or "provider" for the model's name as the client wrote it.
        target: TargetKind;
        /// Who answers: one that the strategy chooses, and when that fails the others.
        targets: ListOf<TargetKind>;
        /// Which target is tried first: ordered (the default: as they are written), weighted, round-robin,
        /// least-in-flight, or latency.
        strategy: Word<Strategy>;
        /// What keeps requests at the same target, for its prompt cache: "prompt" (its head), or "header:NAME".
        sticky: StickyKind;
        /// Who is asked when all targets have failed: names of [models] or "provider/model".
        fallback: ListOf<Text>;
        /// Who is asked when the prompt does not fit the model's context.
        fallback_on_context_length: ListOf<Text>;
        /// Who is asked when a backend's filter has refused.
        fallback_on_content_policy: ListOf<Text>;
        /// The policies of its requests, in the place of server.policies; none: [].
        policies: ListOf<Text>;
        /// How often all clients together may ask for it.
        quota: QuotaTable;
        /// Which answers are kept, where it differs from [cache].
        cache: ModelCacheTable;
        /// When a second endpoint or target is asked beside the first, where the provider does not say so.
        hedge: HedgeTable;
    }
}

table! {
    /// A model of a provider.
    struct TargetTable {
        /// A name of [providers].
        provider: Text [required];
        /// The backend's name for the model; absent, the name as the client wrote it.
        model: Text;
        /// What the adapter is told where it differs from the provider's settings.
        settings: Anything;
        /// The regions of AWS that are asked one after another: short for as many targets, each with settings.region.
        regions: ListOf<RegionKind>;
        /// Its share beside the other targets.
        weight: Count = 1, 1..=1_000;
    }
}

table! {
    /// A region of a target.
    struct RegionTable {
        /// As "us-east-1".
        region: Text [required];
        /// The model's name there; absent, that of the target.
        model: Text;
    }
}

table! {
    /// An adapter of your own.
    struct AdapterTable {
        /// The component file, relative to this file. Of path, url and oci there must be one.
        path: Text;
        /// The URL of the component: https, or http on this machine.
        url: Text;
        /// The component as an artifact of an OCI registry, as wkg and Spin push it: "registry/repository:tag", with
        /// "@sha256:…" of its manifest or without.
        oci: Text;
        /// "sha256:…", the SHA-256 of the component: other bytes are refused. A URL must have one; what has none is
        /// pinned by witgate.lock, which "witgate adapters add" writes.
        digest: Text;
        /// Whether it may be fetched from another machine without TLS. Default false.
        insecure: Flag;
        /// Whether an instance may serve one request after another; else each request gets a fresh one. Default false.
        trusted: Flag;
        /// Most memory of one instance. Default: limits.max_instance_memory_bytes.
        max_memory_bytes: Size = Limits::DEFAULT.max_instance_memory_bytes as u64, MIB..=Limits::MOST_MEMORY_BYTES;
        /// Most elements of one table of an instance: the functions that it calls by number.
        max_table_elements: Count = Limits::TABLE_ELEMENTS, 100..=Limits::MOST_TABLE_ELEMENTS;
        /// Longest time of one call. Default: limits.adapter_call_timeout.
        call_timeout: Time = Limits::DEFAULT.adapter_call_timeout, MS..=MINUTE;
    }
}

/// `"provider/model"`, or a table.
struct TargetKind;

/// A target, and the regions that it stands for, with the model's name in each.
struct Targeted {
    target: Target,
    regions: Vec<(String, Option<String>)>,
}

impl Kind for TargetKind {
    type Value = Targeted;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Targeted> {
        let mut regions = Vec::new();
        let target = match &node.value {
            Value::String(text) => match text.split_once('/') {
                None => Target::new(text.as_str(), None),
                Some((provider, model)) => Target::new(provider, Some(model.into())),
            },
            Value::Table(_) => {
                let table = TargetTable::read(node, path, reader)?;
                let own = table.settings.map(|at| at.value).filter(|own| own != &json!({}));
                if let Some(at) = table.regions {
                    let key = join(path, "regions");
                    if at.value.is_empty() && !reader.problems.iter().any(|p| p.key.starts_with(&key)) {
                        reader.problem(&at.span, &key, "no region", Some("write [\"us-east-1\"]".into()));
                    }
                    if at.value.len() > MAX_REGIONS {
                        let help = format!("write at most {MAX_REGIONS}");
                        reader.problem(&at.span, &key, "too many regions", Some(help));
                    }
                    if own.as_ref().is_some_and(|own| own.get("region").is_some()) {
                        let help = "they say the same: keep \"regions\"";
                        reader.problem(&at.span, path, "both \"regions\" and \"settings.region\"", Some(help.into()));
                    }
                    regions = at.value.into_iter().map(|at| at.value).collect();
                }
                // The provider's own are laid under them when all providers are known.
                let settings = own.map(|json| Arc::new(Settings { json, text: String::new(), at: 0 }));
                Target {
                    provider: table.provider?.value,
                    model: table.model.map(|model| model.value),
                    settings,
                    weight: table.weight.map_or(1, |at| at.value),
                }
            }
            _ => {
                reader.expected_target(node, path);
                return None;
            }
        };
        if target.model.as_deref() == Some("") || regions.iter().any(|(_, model)| model.as_deref() == Some("")) {
            let help = "write \"provider/model\", or \"provider\" for the name as the client wrote it";
            reader.problem(&node.span, path, "the model's name is empty", Some(help.into()));
            return None;
        }
        Some(Targeted { target, regions })
    }

    fn schema() -> Json {
        json!({"anyOf": [{"type": "string"}, TargetTable::schema()]})
    }
}

impl Targeted {
    /// The targets that the one at `at` in the file stands for.
    fn each(self, at: usize) -> Vec<Target> {
        let Targeted { target, regions } = self;
        let own = target.settings.as_ref().map(|settings| &settings.json);
        let with = |json: Json| Some(Arc::new(Settings { json, text: String::new(), at }));
        if regions.is_empty() {
            return vec![Target { settings: own.cloned().and_then(with), ..target.clone() }];
        }
        let of_region = |(region, model): (String, Option<String>)| {
            let mut json = own.cloned().unwrap_or_else(|| json!({}));
            json["region"] = region.into();
            Target { settings: with(json), model: model.or_else(|| target.model.clone()), ..target.clone() }
        };
        regions.into_iter().map(of_region).collect()
    }
}

/// `"us-east-1"`, or a table.
struct RegionKind;

impl Kind for RegionKind {
    type Value = (String, Option<String>);

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Self::Value> {
        if !matches!(node.value, Value::Table(_)) {
            return Some((Text::read(node, path, reader)?, None));
        }
        let table = RegionTable::read(node, path, reader)?;
        Some((table.region?.value, table.model.map(|model| model.value)))
    }

    fn schema() -> Json {
        json!({"anyOf": [{"type": "string"}, RegionTable::schema()]})
    }
}

/// `"http://…"`, or a table.
struct EndpointKind;

impl Kind for EndpointKind {
    type Value = EndpointTable;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<EndpointTable> {
        if matches!(node.value, Value::Table(_)) {
            return EndpointTable::read(node, path, reader);
        }
        let value = Text::read(node, path, reader)?;
        let url = Some(At { value, span: node.span.clone(), variable: node.variable.clone() });
        Some(EndpointTable { url, ..EndpointTable::default() })
    }

    fn schema() -> Json {
        json!({"anyOf": [{"type": "string"}, EndpointTable::schema()]})
    }
}

impl Named for Strategy {
    const WHAT: &'static str = "strategy";
    const NAMES: &'static [(&'static str, Self)] = &Strategy::NAMES;
}

impl Named for CacheWhen {
    const WHAT: &'static str = "kind of request";
    const NAMES: &'static [(&'static str, Self)] = &CacheWhen::NAMES;
}

/// `"p95"`, or a duration.
struct AfterKind;

impl Kind for AfterKind {
    type Value = HedgeAfter;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<HedgeAfter> {
        if let Value::String(text) = &node.value
            && let Some(percent) = text.strip_prefix('p')
        {
            let percent = percent.parse().ok().filter(|percent| (50..=99).contains(percent));
            if percent.is_none() {
                let message = format!("{} is no percentile", node.show(text));
                reader.problem(&node.span, path, message, Some("write \"p50\" to \"p99\", or a duration".into()));
            }
            return percent.map(HedgeAfter::Percentile);
        }
        let time = Time::read(node, path, reader)?;
        <Time as Ranged>::in_range(time, &(MS..=HOUR), node, path, reader).map(HedgeAfter::Time)
    }

    fn schema() -> Json {
        json!({"type": ["string", "number"], "pattern": "^p[5-9][0-9]$|^ *[0-9]+(\\.[0-9]+)? *(ms|s|m|min|h)? *$|\\$\\{"})
    }
}

/// `"prompt"`, or `"header:NAME"`.
struct StickyKind;

impl Kind for StickyKind {
    type Value = Sticky;

    fn read(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Sticky> {
        let text = Text::read(node, path, reader)?;
        if text == "prompt" {
            return Some(Sticky::Prompt);
        }
        if let Some(name) = text.strip_prefix("header:").map(|name| name.trim().to_ascii_lowercase())
            && is_header_token(&name)
        {
            return Some(Sticky::Header(name));
        }
        let message = format!("{} is nothing that requests have in common", node.show(&text));
        reader.problem(&node.span, path, message, Some("write \"prompt\" or \"header:NAME\"".into()));
        None
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^prompt$|^header:.+$|\\$\\{"})
    }
}

/// The schema of the file.
pub(crate) fn schema() -> Json {
    let mut schema = FileTable::schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "witgate.toml".into();
    schema["description"] = "Configuration of witgate. Any text may hold ${NAME} or ${NAME:-default}, which the \
                             environment fills in; $$ is a dollar sign."
        .into();
    schema["properties"]["server"]["properties"]["listen"]["default"] = Server::default().listen.into();
    let provider = &mut schema["properties"]["providers"]["additionalProperties"];
    provider["not"] = json!({"anyOf": [{"required": ["endpoint", "endpoints"]}]});
    let model = &mut schema["properties"]["models"]["additionalProperties"];
    model["oneOf"] = json!([{"required": ["target"]}, {"required": ["targets"]}]);
    model["properties"]["targets"]["minItems"] = 1.into();
    let adapter = &mut schema["properties"]["adapters"]["additionalProperties"];
    adapter["properties"]["path"]["pattern"] = "\\.wasm$|\\$\\{".into();
    adapter["properties"]["trusted"]["default"] = false.into();
    adapter["oneOf"] = json!([{"required": ["path"]}, {"required": ["url"]}, {"required": ["oci"]}]);
    schema["required"] = json!(["providers"]);
    schema
}

/// Reads a file.
pub(crate) fn read(
    text: &str,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
    native: &Native,
) -> Result<Config, Problems> {
    let asked = RefCell::new(Sha256::new_with_prefix(text));
    let told = |name: &str| {
        let value = env(name);
        let mut asked = asked.borrow_mut();
        for part in [Some(name), value.as_deref()].into_iter().flatten() {
            asked.update((part.len() as u64).to_le_bytes());
            asked.update(part);
        }
        value
    };
    let (mut reader, root) = Reader::parse(text, file, &told);
    let table = root.and_then(|root| FileTable::read(&root, "", &mut reader));
    // What a syntax error has swallowed is not missing.
    let config = table.filter(|_| !reader.partial).map(|table| resolve(table, file, native, &mut reader));
    let (problems, places) = reader.finish();
    let all = asked.borrow().clone().finalize().into();
    let digests = Some(Digests { text: Sha256::digest(text).into(), all });
    match config {
        Some(config) if problems.0.is_empty() => Ok(Config { places, digests, ..config }),
        _ => Err(problems),
    }
}

/// The references to variables in a file's text, and the keys of what is never shown.
pub(crate) fn references(text: &str, env: &dyn Fn(&str) -> Option<String>) -> (Vec<Use>, BTreeSet<String>) {
    let (mut reader, root) = Reader::parse(text, "", env);
    let _ = root.and_then(|root| FileTable::read(&root, "", &mut reader));
    (reader.uses, reader.hidden)
}

fn resolve(table: FileTable, file: &str, native: &Native, reader: &mut Reader<'_>) -> Config {
    let timeouts = timeouts(table.timeouts.map(|at| at.value), Timeouts::DEFAULT);
    let retry = retry(table.retry.map(|at| at.value), Retry::DEFAULT);
    let health = health(table.health.map(|at| at.value), Health::DEFAULT);
    let (cache, cache_max_bytes) = cache(table.cache.map(|at| at.value).unwrap_or_default());
    let limits = limits(table.limits.map(|at| at.value).unwrap_or_default());
    let plugins = Plugins { development: table.plugins.and_then(|at| at.value.development).is_some_and(|at| at.value) };
    let (policies, policy_names) = hooks::policies(
        table.policies.map(|at| at.value).unwrap_or_default(),
        &limits,
        plugins,
        &native.policies,
        reader,
    );
    let mut server_table = table.server.map(|at| at.value).unwrap_or_default();
    let chain = server_table.policies.take().map(|at| at.value).unwrap_or_default();
    let policy_chain = hooks::chain("server.policies", chain, &policy_names, reader);
    let server = server(server_table, reader);

    let mut adapters = BTreeMap::new();
    // Also those that could not be read: a reference to one is no second mistake.
    let mut adapter_names: Vec<String> = Vec::new();
    for entry in table.adapters.map(|at| at.value).unwrap_or_default() {
        let name = entry.key.name.clone();
        let path = join("adapters", &name);
        adapter_names.push(name.clone());
        let good = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !good {
            let help = "write small letters, digits and \"-\", a letter first, at most 64";
            reader.problem(&entry.key.span, &path, "not a name for an adapter", Some(help.into()));
        }
        if native.adapters.contains(&name) {
            let help = "choose another name: the program itself brings an adapter of this one";
            reader.problem(&entry.key.span, &path, "this adapter is there twice", Some(help.into()));
        }
        let Some(At { value, .. }) = entry.at else { continue };
        let given = Given {
            path: ("path", value.path),
            url: value.url,
            oci: value.oci,
            digest: value.digest,
            insecure: value.insecure,
        };
        let Some(component) = given.resolve(&path, &entry.key, plugins, reader) else { continue };
        let config = AdapterConfig {
            component,
            trusted: value.trusted.is_some_and(|at| at.value),
            max_memory_bytes: value.max_memory_bytes.map_or(limits.max_instance_memory_bytes, |at| at.value as usize),
            max_table_elements: value.max_table_elements.map_or(Limits::TABLE_ELEMENTS, |at| at.value) as usize,
            call_timeout: value.call_timeout.map_or(limits.adapter_call_timeout, |at| at.value),
        };
        adapters.insert(name, config);
    }

    let mut providers = BTreeMap::new();
    let mut provider_names: Vec<String> = Vec::new();
    let providers_given = table.providers.is_some();
    for entry in table.providers.map(|at| at.value).unwrap_or_default() {
        let name = entry.key.name;
        provider_names.push(name.clone());
        check_provider_name(&name, &entry.key.span, reader);
        if let Some(At { value, .. }) = entry.at
            && let Some(provider) = provider(&name, value, (&adapter_names, native), (timeouts, retry, health), reader)
        {
            providers.insert(name, provider);
        }
    }
    // A `providers` that is no table is its own problem.
    if provider_names.is_empty() && (providers_given || reader.problems.iter().all(|p| p.key != "providers")) {
        let help = "add one, for example [providers.stub] with adapter = \"stub\"";
        reader.problem(&(0..0), "providers", "there is no provider", Some(help.into()));
    }

    let mut models = BTreeMap::new();
    let mut fallbacks = Vec::new();
    let mut quotas = Vec::new();
    for entry in table.models.map(|at| at.value).unwrap_or_default() {
        let alias = entry.key.name;
        let path = join("models", &alias);
        check_alias(&alias, &path, &entry.key.span, &provider_names, reader);
        let Some(At { mut value, .. }) = entry.at else { continue };
        let lists = [
            ("fallback", value.fallback.take()),
            ("fallback_on_context_length", value.fallback_on_context_length.take()),
            ("fallback_on_content_policy", value.fallback_on_content_policy.take()),
        ];
        let lists = lists.map(|(key, at)| (join(&path, key), at.map(|at| at.value).unwrap_or_default()));
        let choice = choice(value.strategy.take(), value.sticky.take());
        let chain = value.policies.take().map(|at| at.value);
        let policies = chain.map(|chain| hooks::chain(&join(&path, "policies"), chain, &policy_names, reader));
        quotas.extend(value.quota.take().map(|at| (alias.clone(), at)));
        let cache = value.cache.take().map(|at| model_cache(at.value, cache));
        let hedge = hedge(value.hedge.take());
        if let Some(targets) = targets(value, &path, &entry.key.span, &provider_names, reader) {
            let model = Model { choice, policies, cache, hedge, ..Model::new(alias.as_str(), targets) };
            models.insert(alias.clone(), model);
        }
        fallbacks.push((alias, lists));
    }

    let documents = table.documents.map(|at| at.value).unwrap_or_default();
    let default = Documents::default();
    let documents = Documents {
        configurations: documents.configurations.map(|at| at.value),
        from: source(documents.from, documents.s3, reader),
        cache_ttl: documents.cache_ttl.map_or(default.cache_ttl, |at| at.value),
        max_bytes: documents.max_bytes.map_or(default.max_bytes, |at| at.value),
        keep_for: documents.keep_for.map_or(default.keep_for, |at| at.value),
        memory_bytes: documents.memory_bytes.map_or(default.memory_bytes, |at| at.value),
    };

    let jobs = jobs(table.jobs.map(|at| at.value).unwrap_or_default(), reader);
    let metrics = watch::metrics(table.metrics.map(|at| at.value).unwrap_or_default(), reader);
    let alarms = watch::alarms(table.alarms.map(|at| at.value).unwrap_or_default(), &models, reader);

    let mut dialects = BTreeMap::new();
    let mut backends = BTreeMap::new();
    for entry in table.dialects.map(|at| at.value).unwrap_or_default() {
        let name = entry.key.name;
        let path = join("dialects", &name);
        if !DIALECTS.contains(&name.as_str()) {
            let help = did_you_mean(&name, DIALECTS).unwrap_or_else(|| format!("write {}", list(DIALECTS)));
            let message = format!("no dialect {}", quote(&name, 64));
            reader.problem(&entry.key.span, &path, message, Some(help));
        }
        let Some(At { value, .. }) = entry.at else { continue };
        dialects.insert(name.clone(), dialect(&name, &path, &value, &provider_names, reader));
        for entry in value.backends.map(|at| at.value).unwrap_or_default() {
            let path = join(&join(&path, "backends"), &entry.key.name);
            check_provider(&entry.key.name, &path, &entry.key.span, &provider_names, reader);
            let Some(At { value, .. }) = entry.at else { continue };
            let (model, defaults) = (value.model.map(|at| at.value), value.defaults.map(|at| at.value));
            backends.insert(entry.key.name, Backend { model, defaults, ..Backend::default() });
        }
    }

    for target in models.values_mut().flat_map(|model: &mut Model| &mut model.targets) {
        if let (Some(own), Some(provider)) = (&target.settings, providers.get(&target.provider)) {
            let mut json = provider.settings.clone();
            if let (Some(all), Some(own)) = (json.as_object_mut(), own.json.as_object()) {
                all.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            let text = json.to_string();
            target.settings = Some(Arc::new(Settings { json, text, at: own.at }));
        }
    }
    // The targets of an alias are taken over as they are by now.
    let fallbacks: Vec<_> = fallbacks
        .into_iter()
        .map(|(alias, lists)| (alias, lists.map(|list| fallback(list, &models, &provider_names, reader))))
        .collect();
    for (alias, [any, context_length, content_policy]) in fallbacks {
        if let Some(model) = models.get_mut(&alias) {
            model.fallback = Fallback { any, context_length, content_policy };
        }
    }

    let state = table.state.map(|at| at.value).unwrap_or_default();
    let tables = Tables {
        admin: table.admin,
        keys: table.keys,
        tenants: table.tenants,
        prices: table.prices,
        accounting: table.accounting,
        on_failure: state.on_failure,
        models: quotas,
    };
    let access = access::access(tables, &ROUTES, reader);
    let queues = table.queues.map(|at| at.value).unwrap_or_default();
    let queues = queues::queues(queues, (&server, &access, &jobs, &state), reader);

    let origin = Origin::File(file.into());
    let mut config = Config {
        server,
        timeouts,
        retry,
        health,
        cache,
        cache_max_bytes,
        limits,
        providers,
        models,
        adapters,
        plugins,
        documents,
        jobs,
        queues,
        state,
        dialects,
        policies,
        policy_chain,
        metrics,
        alarms,
        access,
        origin,
        places: BTreeMap::new(),
        digests: None,
    };
    facades::complete(&mut config, backends);
    config
}

/// What the operator chose for a dialect, but for the backends of llm-invocation.
fn dialect(name: &str, path: &str, table: &DialectTable, providers: &[String], reader: &mut Reader<'_>) -> Dialect {
    let openai = ["openai-chat", "openai-completions"];
    type Span<'a> = Option<&'a Range<usize>>;
    let threshold = &table.prompt_complexity_threshold;
    let keys: [(&str, Span<'_>, &[&str]); 7] = [
        ("mock", table.mock.as_ref().map(|at| &at.span), &["bedrock-chat"]),
        ("provider", table.provider.as_ref().map(|at| &at.span), &["bedrock-chat"]),
        ("facade", table.facade.as_ref().map(|at| &at.span), &openai),
        ("escape", table.escape.as_ref().map(|at| &at.span), &["llm-exe"]),
        ("retries", table.retries.as_ref().map(|at| &at.span), &["llm-exe"]),
        ("prompt_complexity_threshold", threshold.as_ref().map(|at| &at.span), &[facades::DIALECT]),
        ("backends", table.backends.as_ref().map(|at| &at.span), &[facades::DIALECT]),
    ];
    for (key, span, of) in keys {
        if let Some(span) = span.filter(|_| !of.contains(&name)) {
            let help = format!("it is a key of {}", list(of.iter().copied()));
            reader.problem(span, &join(path, key), "this API has nothing of the kind", Some(help));
        }
    }
    let mut settings = serde_json::Map::new();
    let mut set = |key: &str, value: Json| settings.insert(key.into(), value);
    if let Some(legacy) = &table.legacy_status {
        set("legacy_status", legacy.value.into());
    }
    if let Some(mock) = &table.mock {
        set("mock", mock.value.into());
    }
    if let Some(provider) = &table.provider {
        check_provider(&provider.value, &join(path, "provider"), &provider.span, providers, reader);
        set("provider", provider.value.as_str().into());
    }
    if let Some(escape) = &table.escape {
        if !["none", "html"].contains(&escape.value.as_str()) {
            let message = format!("{} is no way to escape", quote(&escape.value, 64));
            let help = "write \"none\" or \"html\"".to_owned();
            reader.problem(&escape.span, &join(path, "escape"), message, Some(help));
        }
        set("escape", escape.value.as_str().into());
    }
    if let Some(threshold) = threshold {
        set("prompt_complexity_threshold", threshold.value.into());
    }
    if let Some(retries) = &table.retries {
        set("retries", retries.value.into());
    }
    // The empty text is as good as no model: a variable may be unset.
    let model = table.model.as_ref().map(|at| at.value.clone()).filter(|model| !model.is_empty());
    if let Some(facade) = &table.facade {
        if !FACADES.contains(&facade.value.as_str()) {
            let help = format!("write {}", list(FACADES));
            let message = format!("no facade {}", quote(&facade.value, 64));
            reader.problem(&facade.span, &join(path, "facade"), message, Some(help));
        }
        set("facade", facade.value.as_str().into());
        // The proxy is not set up where its endpoint's name is written and empty.
        if let Some(model) = &table.model {
            set("model", model.value.as_str().into());
        }
    }
    let settings = if settings.is_empty() { String::new() } else { Json::Object(settings).to_string() };
    Dialect { model, settings }
}

/// Whether there is a provider of this name.
fn check_provider(name: &str, path: &str, span: &Range<usize>, providers: &[String], reader: &mut Reader<'_>) {
    if !providers.iter().any(|known| known == name) {
        let known = || providers.iter().map(String::as_str);
        let help = did_you_mean(name, known())
            .or_else(|| (!providers.is_empty()).then(|| format!("the providers are {}", list(known()))));
        reader.problem(span, path, format!("no provider {}", quote(name, 64)), help);
    }
}

fn server(table: ServerTable, reader: &mut Reader<'_>) -> Server {
    let default = Server::default();
    if let Some(listen) = &table.listen
        && !is_listen(&listen.value)
    {
        let shown = match &listen.variable {
            Some(name) => format!("the value of ${{{name}}}"),
            None => quote(&listen.value, 60),
        };
        let help = "write \"host:port\", as \"127.0.0.1:8080\", \"0.0.0.0:80\" or \"[::]:8080\"";
        reader.problem(&listen.span, "server.listen", format!("{shown} is no place to listen"), Some(help.into()));
    }
    let mut api_keys: Vec<Secret> = Vec::new();
    for (i, key) in table.api_keys.map(|at| at.value).unwrap_or_default().into_iter().enumerate() {
        let path = format!("server.api_keys[{i}]");
        if key.value.expose().is_empty() {
            let help = "write a key, or remove the empty one; without any key the server is open to all";
            reader.problem(&key.span, &path, "an empty key", Some(help.into()));
        } else {
            check_header_text(&key, &path, "a key", reader);
        }
        api_keys.push(key.value);
    }
    let cors = table.cors.map(|at| at.value).unwrap_or_default();
    let mut origins = Vec::new();
    for (i, origin) in cors.origins.map(|at| at.value).unwrap_or_default().into_iter().enumerate() {
        if !is_origin(&origin.value) {
            let shown = match &origin.variable {
                Some(name) => format!("the value of ${{{name}}}"),
                None => quote(&origin.value, 60),
            };
            let help = "write scheme and host, as \"https://example.com\", or \"*\"";
            let path = format!("server.cors.origins[{i}]");
            reader.problem(&origin.span, &path, format!("{shown} is no origin"), Some(help.into()));
        }
        origins.push(origin.value);
    }
    Server {
        cors: Cors { origins, max_age: cors.max_age.map_or(Cors::default().max_age, |at| at.value) },
        listen: table.listen.map_or(default.listen, |at| at.value),
        api_keys,
        threads: table.threads.map_or(default.threads, |at| at.value as usize),
        keep_alive: table.keep_alive.map_or(default.keep_alive, |at| at.value),
        shutdown_timeout: table.shutdown_timeout.map_or(default.shutdown_timeout, |at| at.value),
        reload_interval: table.reload_interval.map_or(default.reload_interval, |at| at.value),
        page: table.page.map_or(default.page, |at| at.value),
    }
}

fn timeouts(table: Option<TimeoutsTable>, default: Timeouts) -> Timeouts {
    let table = table.unwrap_or_default();
    Timeouts {
        connect: table.connect.map_or(default.connect, |at| at.value),
        first_token: table.first_token.map_or(default.first_token, |at| at.value),
        idle: table.idle.map_or(default.idle, |at| at.value),
        total: table.total.map_or(default.total, |at| at.value),
    }
}

fn retry(table: Option<RetryTable>, default: Retry) -> Retry {
    let table = table.unwrap_or_default();
    Retry {
        attempts: table.attempts.map_or(default.attempts, |at| at.value),
        failover: table.failover.map_or(default.failover, |at| at.value),
        backoff: table.backoff.map_or(default.backoff, |at| at.value),
        max_backoff: table.max_backoff.map_or(default.max_backoff, |at| at.value),
        budget: table.budget.map_or(default.budget, |at| at.value),
        reserve: table.reserve.map_or(default.reserve, |at| at.value),
    }
}

fn health(table: Option<HealthTable>, default: Health) -> Health {
    let table = table.unwrap_or_default();
    Health {
        failures: table.failures.map_or(default.failures, |at| at.value),
        failure_rate: table.failure_rate.map_or(default.failure_rate, |at| at.value),
        min_requests: table.min_requests.map_or(default.min_requests, |at| at.value),
        window: table.window.map_or(default.window, |at| at.value),
        rest: table.rest.map_or(default.rest, |at| at.value),
        probe_interval: table.probe_interval.map_or(default.probe_interval, |at| at.value),
    }
}

/// What is kept, and how many bytes all of it may take.
fn cache(table: CacheTable) -> (Cache, usize) {
    let CacheTable { enabled, when, ttl, max_entry_bytes, max_bytes } = table;
    let own = ModelCacheTable { enabled, when, ttl, max_entry_bytes };
    (model_cache(own, Cache::DEFAULT), max_bytes.map_or(Cache::DEFAULT_MAX_BYTES, |at| at.value as usize))
}

fn model_cache(table: ModelCacheTable, default: Cache) -> Cache {
    Cache {
        enabled: table.enabled.map_or(default.enabled, |at| at.value),
        when: table.when.map_or(default.when, |at| at.value),
        ttl: table.ttl.map_or(default.ttl, |at| at.value),
        max_entry_bytes: table.max_entry_bytes.map_or(default.max_entry_bytes, |at| at.value as usize),
    }
}

fn hedge(table: Option<At<HedgeTable>>) -> Option<Hedge> {
    let table = table?.value;
    Some(Hedge { after: table.after?.value, max_percent: table.max_percent.map_or(5, |at| at.value) })
}

fn concurrency(table: Option<ConcurrencyTable>) -> Concurrency {
    let (table, default) = (table.unwrap_or_default(), Concurrency::DEFAULT);
    Concurrency {
        max: table.max.map(|at| at.value).filter(|max| *max > 0),
        queue: table.queue.map_or(default.queue, |at| at.value),
        wait: table.wait.map_or(default.wait, |at| at.value),
        spill: table.spill.map_or(default.spill, |at| at.value),
    }
}

fn choice(strategy: Option<At<Strategy>>, sticky: Option<At<Sticky>>) -> Choice {
    Choice { strategy: strategy.map(|at| at.value).unwrap_or_default(), sticky: sticky.map(|at| at.value) }
}

/// The targets that a list of names stands for: those of an alias, or `provider/model`.
fn fallback(
    (key, names): (String, Vec<At<String>>),
    models: &BTreeMap<String, Model>,
    providers: &[String],
    reader: &mut Reader<'_>,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let parts = name.value.split_once('/').filter(|(_, model)| !model.is_empty());
        match (models.get(&name.value), parts) {
            (Some(model), _) => targets.extend(model.targets.iter().cloned()),
            (None, Some((provider, model))) if providers.iter().any(|name| name == provider) => {
                targets.push(Target::new(provider, Some(model.into())));
            }
            _ => {
                let message = match &name.variable {
                    Some(variable) => format!("there is no model of the name in ${{{variable}}}"),
                    None => format!("no model {}", quote(&name.value, 64)),
                };
                let help = did_you_mean(&name.value, models.keys().map(String::as_str))
                    .unwrap_or_else(|| "write a name of [models], or \"provider/model\"".into());
                reader.problem(&name.span, &format!("{key}[{at}]"), message, Some(help));
            }
        }
    }
    if targets.len() > MAX_TARGETS
        && let Some(first) = names.first()
    {
        reader.problem(&first.span, &key, "too many targets", Some(format!("write at most {MAX_TARGETS}")));
    }
    targets
}

fn jobs(table: JobsTable, reader: &mut Reader<'_>) -> Jobs {
    let default = Jobs::default();
    let size = |at: Option<At<u64>>, default: usize| at.map_or(default, |at| at.value as usize);
    let count = |at: Option<At<u32>>, default: usize| at.map_or(default, |at| at.value as usize);
    let time = |at: Option<At<Duration>>, default: Duration| at.map_or(default, |at| at.value);
    if let Some(secret) = &table.callback_secret {
        access::webhook_secret(secret, "jobs.callback_secret", reader);
    }
    let run_within = time(table.run_within, default.run_within);
    if let Some(kept) = table.files_kept_for.as_ref().filter(|kept| kept.value < run_within) {
        // The answers to a batch's first lines have to be there when its last ones have theirs.
        let message = format!("{} is shorter than a batch may take", show_duration(kept.value));
        let help = format!("write at least jobs.run_within, which is {}", show_duration(run_within));
        reader.problem(&kept.span, "jobs.files_kept_for", message, Some(help));
    }
    Jobs {
        concurrency: count(table.concurrency, default.concurrency),
        max_queued: count(table.max_queued, default.max_queued),
        attempts: table.attempts.map_or(default.attempts, |at| at.value),
        lease: time(table.lease, default.lease),
        run_within,
        kept_for: time(table.kept_for, default.kept_for),
        max_answer_bytes: size(table.max_answer_bytes, default.max_answer_bytes),
        max_wait: time(table.max_wait, default.max_wait),
        callback_secret: table.callback_secret.map(|at| at.value),
        callback_attempts: table.callback_attempts.map_or(default.callback_attempts, |at| at.value),
        allow_private_callbacks: table.allow_private_callbacks.is_some_and(|at| at.value),
        max_file_bytes: size(table.max_file_bytes, default.max_file_bytes),
        files_kept_for: time(table.files_kept_for, default.files_kept_for),
        max_batch_requests: count(table.max_batch_requests, default.max_batch_requests),
        batch_concurrency: count(table.batch_concurrency, default.batch_concurrency),
    }
}

fn limits(table: LimitsTable) -> Limits {
    let default = Limits::DEFAULT;
    let size = |at: Option<At<u64>>, default: usize| at.map_or(default, |at| at.value as usize);
    let count = |at: Option<At<u32>>, default: usize| at.map_or(default, |at| at.value as usize);
    Limits {
        max_body_bytes: size(table.max_body_bytes, default.max_body_bytes),
        max_header_bytes: size(table.max_header_bytes, default.max_header_bytes),
        max_concurrent_requests: count(table.max_concurrent_requests, default.max_concurrent_requests),
        max_json_depth: table.max_json_depth.map_or(default.max_json_depth, |at| at.value),
        max_messages: table.max_messages.map_or(default.max_messages, |at| at.value),
        max_frame_bytes: size(table.max_frame_bytes, default.max_frame_bytes),
        max_response_bytes: size(table.max_response_bytes, default.max_response_bytes),
        max_events_per_frame: count(table.max_events_per_frame, default.max_events_per_frame),
        max_instance_memory_bytes: size(table.max_instance_memory_bytes, default.max_instance_memory_bytes),
        adapter_call_timeout: table.adapter_call_timeout.map_or(default.adapter_call_timeout, |at| at.value),
    }
}

fn provider(
    name: &str,
    table: ProviderTable,
    (adapters, native): (&[String], &Native),
    (default_timeouts, default_retry, default_health): (Timeouts, Retry, Health),
    reader: &mut Reader<'_>,
) -> Option<Provider> {
    let path = join("providers", name);
    let mut endpoints = Vec::new();
    if let (Some(_), Some(both)) = (&table.endpoint, &table.endpoints) {
        let help = "put all of them in \"endpoints\"";
        reader.problem(&both.span, &path, "both \"endpoint\" and \"endpoints\"", Some(help.into()));
    }
    let concurrency = concurrency(table.concurrency.map(|at| at.value));
    let one = table.endpoint.map(|at| (join(&path, "endpoint"), at, EndpointOptions::default()));
    let several = table.endpoints.map(|at| at.value).unwrap_or_default();
    if let Some(over) = several.get(MAX_ENDPOINTS) {
        let help = format!("write at most {MAX_ENDPOINTS}");
        reader.problem(&over.span, &join(&path, "endpoints"), "too many endpoints", Some(help));
    }
    let several = several.into_iter().enumerate().filter_map(|(i, At { value: table, .. })| {
        let options = EndpointOptions {
            weight: table.weight.map_or(1, |at| at.value),
            max_concurrent: table.max_concurrent.map(|at| at.value),
        };
        Some((format!("{}[{i}]", join(&path, "endpoints")), table.url?, options))
    });
    let mut endpoint_options = Vec::new();
    for (key, at, options) in one.into_iter().chain(several) {
        match endpoint::check(&at.value) {
            Ok(url) => {
                endpoints.push(url);
                // What is written for one endpoint goes before what is written for all; 0 is no limit in both.
                let max_concurrent = options.max_concurrent.or(concurrency.max).filter(|max| *max > 0);
                endpoint_options.push(EndpointOptions { max_concurrent, ..options });
            }
            Err(Flaw(message, help)) => {
                let shown = match &at.variable {
                    Some(name) => format!("the value of ${{{name}}} "),
                    None if at.value.is_empty() || at.value.contains('@') => "the URL ".into(),
                    None => format!("{} ", quote(&at.value, 60)),
                };
                reader.problem(&at.span, &key, format!("{shown}{message}"), Some(help.into()));
            }
        }
    }

    let mut secrets = BTreeMap::new();
    let listed = table.secrets.map(|at| at.value).unwrap_or_default();
    if let Some(key) = &table.api_key
        && listed.iter().any(|entry| entry.key.name == "api_key")
    {
        let help = "they are the same: keep one";
        reader.problem(&key.span, &path, "both \"api_key\" and \"secrets.api_key\"", Some(help.into()));
    }
    if let Some(key) = table.api_key {
        check_header_text(&key, &join(&path, "api_key"), "a key", reader);
        secrets.insert("api_key".to_owned(), key.value);
    }
    for entry in listed {
        if let Some(at) = entry.at {
            if entry.key.name == "api_key" {
                check_header_text(&at, &join(&join(&path, "secrets"), "api_key"), "a key", reader);
            }
            secrets.insert(entry.key.name, at.value);
        }
    }
    let mut api_keys = Vec::new();
    if let Some(keys) = table.api_keys {
        if secrets.contains_key("api_key") {
            let help = "put all of them in \"api_keys\"";
            reader.problem(&keys.span, &path, "both one key and \"api_keys\"", Some(help.into()));
        }
        if keys.value.len() > MAX_KEYS {
            let help = format!("write at most {MAX_KEYS}");
            reader.problem(&keys.span, &join(&path, "api_keys"), "too many keys", Some(help));
        }
        for (i, key) in keys.value.into_iter().enumerate() {
            check_header_text(&key, &format!("{}[{i}]", join(&path, "api_keys")), "a key", reader);
            api_keys.push(key.value);
        }
        api_keys.retain(|key| !key.expose().is_empty());
        secrets.extend(api_keys.first().map(|first| ("api_key".to_owned(), first.clone())));
        if api_keys.len() < 2 {
            api_keys.clear();
        }
    }
    secrets.retain(|_, secret| !secret.expose().is_empty());

    let mut headers = BTreeMap::new();
    for entry in table.headers.map(|at| at.value).unwrap_or_default() {
        let key = join(&join(&path, "headers"), &entry.key.name);
        let lower = entry.key.name.to_ascii_lowercase();
        if let Some((message, help)) = header_flaw(&lower) {
            reader.problem(&entry.key.span, &key, message, Some(help.into()));
        }
        let Some(at) = entry.at else { continue };
        check_header_text(&at, &key, "a header", reader);
        if headers.insert(lower, at.value).is_some() {
            let help = "header names in capital and in small letters are the same";
            reader.problem(&entry.key.span, &key, "this header is there twice", Some(help.into()));
        }
    }

    let adapter = table.adapter?;
    let id = &adapter.value;
    let adapter = if is_component(id) {
        AdapterRef::Path(adapter.value)
    } else if native.adapters.contains(id) {
        AdapterRef::Native(adapter.value)
    } else if adapters.contains(id) {
        AdapterRef::Configured(adapter.value)
    } else if BUILTIN_ADAPTERS.contains(&id.as_str()) {
        AdapterRef::Builtin(adapter.value)
    } else {
        let own = || adapters.iter().chain(&native.adapters).map(String::as_str);
        let known = || BUILTIN_ADAPTERS.into_iter().chain(own());
        let help = did_you_mean(id, known())
            .unwrap_or_else(|| format!("write {}, or a path that ends in \".wasm\"", list(known())));
        let message = match &adapter.variable {
            Some(name) => format!("there is no adapter of the name in ${{{name}}}"),
            None => format!("no adapter {}", quote(id, 64)),
        };
        reader.problem(&adapter.span, &join(&path, "adapter"), message, Some(help));
        return None;
    };
    let mut provider = Provider {
        name: name.into(),
        adapter,
        endpoints,
        settings: table.settings.map_or_else(|| json!({}), |at| at.value),
        secrets,
        api_keys,
        headers,
        timeouts: timeouts(table.timeouts.map(|at| at.value), default_timeouts),
        endpoint_options,
        choice: choice(table.strategy, table.sticky),
        concurrency,
        retry: retry(table.retry.map(|at| at.value), default_retry),
        health: health(table.health.map(|at| at.value), default_health),
        hedge: hedge(table.hedge),
    };
    crate::aws::complete(&mut provider, reader.env());
    Some(provider)
}

fn targets(
    table: ModelTable,
    path: &str,
    span: &Range<usize>,
    providers: &[String],
    reader: &mut Reader<'_>,
) -> Option<Vec<Target>> {
    let found = match (table.target, table.targets) {
        (Some(_), Some(both)) => {
            let help = "put all of them in \"targets\"";
            reader.problem(&both.span, path, "both \"target\" and \"targets\"", Some(help.into()));
            return None;
        }
        (Some(one), None) => vec![(join(path, "target"), one)],
        (None, Some(At { value, span, .. })) => {
            let key = join(path, "targets");
            let broken = reader.problems.iter().any(|p| p.key.starts_with(&key));
            if value.is_empty() && !broken {
                let help = "write \"provider/model\"";
                reader.problem(&span, &key, "no target", Some(help.into()));
            }
            if value.len() > MAX_TARGETS {
                reader.problem(&span, &key, "too many targets", Some(format!("write at most {MAX_TARGETS}")));
            }
            value.into_iter().enumerate().map(|(i, at)| (format!("{key}[{i}]"), at)).collect()
        }
        (None, None) => {
            let inner = join(path, "target");
            if !reader.problems.iter().any(|p| p.key == path || p.key.starts_with(&inner)) {
                let help = "write target = \"provider/model\"";
                reader.problem(span, path, "the key \"target\" or \"targets\" is missing", Some(help.into()));
            }
            return None;
        }
    };
    for (key, target) in &found {
        let name = &target.value.target.provider;
        if !providers.contains(name) {
            let known = || providers.iter().map(String::as_str);
            let help = did_you_mean(name, known())
                .or_else(|| (!providers.is_empty()).then(|| format!("the providers are {}", list(known()))));
            let message = match &target.variable {
                Some(variable) => format!("there is no provider of the name in ${{{variable}}}"),
                None => format!("no provider {}", quote(name, 64)),
            };
            reader.problem(&target.span, key, message, help);
        }
    }
    let targets: Vec<Target> = found.into_iter().enumerate().flat_map(|(i, (_, at))| at.value.each(i)).collect();
    if targets.len() > MAX_TARGETS && reader.problems.is_empty() {
        let help = format!("write at most {MAX_TARGETS}, each region counted");
        reader.problem(span, path, "too many targets", Some(help));
    }
    Some(targets)
}

fn check_provider_name(name: &str, span: &Range<usize>, reader: &mut Reader<'_>) {
    let good = (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !good {
        let help = "write letters, digits, \".\", \"_\" and \"-\", a letter or digit first, at most 64";
        reader.problem(span, &join("providers", name), "not a name for a provider", Some(help.into()));
    }
}

fn check_alias(alias: &str, path: &str, span: &Range<usize>, providers: &[String], reader: &mut Reader<'_>) {
    if alias.is_empty() || alias.len() > 256 || alias.chars().any(char::is_control) || alias.trim() != alias {
        let help = "write 1 to 256 characters, without blanks at the ends and without control characters";
        reader.problem(span, path, "not a name for a model", Some(help.into()));
    }
    if let Some((provider, model)) = alias.split_once('/')
        && providers.iter().any(|name| name == provider)
    {
        let message = format!("this name hides the model {} of the provider {}", quote(model, 64), quote(provider, 64));
        let help = format!("take a name that does not start with \"{provider}/\"");
        reader.problem(span, path, message, Some(help));
    }
}

pub(crate) fn check_header_text(secret: &At<Secret>, path: &str, what: &str, reader: &mut Reader<'_>) {
    let text = secret.value.expose();
    if text.bytes().any(|b| b.is_ascii_control() || !b.is_ascii()) || text.trim() != text {
        let message = format!("{what} must not hold line ends, blanks at its ends, or characters beyond ASCII");
        let help = secret.variable.as_ref().map(|name| format!("check the value of ${{{name}}}"));
        reader.problem(&secret.span, path, message, help);
    }
}

/// Whether a text may be the name of a header.
fn is_header_token(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=256).contains(&name.len()) && name.bytes().all(token)
}

/// What is wrong with a header's name, in small letters.
fn header_flaw(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "authorization" | "proxy-authorization" | "x-api-key" => Some((
            "the gateway writes this header itself",
            "put the key in \"api_key\" or under \"secrets\", and the adapter names it",
        )),
        "host" | "content-length" | "connection" | "transfer-encoding" | "te" | "trailer" | "upgrade"
        | "keep-alive" | "proxy-connection" | "content-type" | "accept" | "accept-encoding" => {
            Some(("the gateway writes this header itself", "remove it"))
        }
        _ if !is_header_token(name) => Some(("not a name for a header", "write letters, digits and \"-\"")),
        _ => None,
    }
}

/// `*`, or scheme, host and perhaps port, as browsers write them.
fn is_origin(text: &str) -> bool {
    let host = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@*".contains(&b));
    text == "*" || text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && host(rest))
}

pub(crate) fn is_component(path: &str) -> bool {
    path.len() > ".wasm".len() && path.ends_with(".wasm") && !path.contains('\0')
}

/// `host:port`, the host a name, an IPv4 address, or an IPv6 address in brackets.
fn is_listen(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => endpoint::host_name(host),
    };
    port && host
}

impl Reader<'_> {
    fn expected_target(&mut self, node: &Node, path: &str) {
        if !matches!(node.value, Value::Broken) {
            let help = "write \"provider/model\" or { provider = \"…\", model = \"…\" }";
            self.problem(&node.span, path, "not a target", Some(help.into()));
        }
    }
}
