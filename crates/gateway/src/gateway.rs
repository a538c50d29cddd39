//! What stands in front of the path: routes, keys, admission, the gateway's own endpoints.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::{Either, join_all};
use witgate_config::{Choice, Config, Hedge, Model, Provider, Sticky, Strategy, Target};
use witgate_model::Field;
use witgate_model::normaliser::{Client, Document, Parsed, Route};

use crate::aws::Clocks;
use crate::bill::Ledger;
use crate::cache::Cache;
use crate::chain::Sequence;
use crate::cors;
use crate::documents;
use crate::encoding;
use crate::failure::Failed;
use crate::health::Verdict;
use crate::hedge::Hedger;
use crate::http::{self, Body, BodyError, Request, RequestBody, Response, Whole};
use crate::jobs::{self, Behalf, Jobs};
use crate::keys::Keys;
use crate::metrics::{PoolReport, ServedNow, Watch};
use crate::models::{self, Listed, ModelEntry, Shape};
use crate::operate::Operated;
use crate::page;
use crate::path::{self, Asked, Flight};
use crate::pool::Pool;
use crate::ports::{Adapter, Ports, UpstreamBody};
use crate::provider_keys::Keys as ProviderKeys;
use crate::query;
use crate::record::{Outcome, Record, Warning};
use crate::route::{self, Load};
use crate::routes::{self, Endpoint, Missing};
use crate::stream::{Answer, First, Writer};

/// How long the answer of a readiness probe counts, so that a load balancer's questions are not passed on one by one.
const READY_FOR: Duration = Duration::from_secs(1);
/// How long a backend may take to answer a readiness probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Dialects whose services have always answered to pages of every origin.
const OPEN: [&str; 1] = ["bedrock-chat"];

/// Dialects whose services answer 403 to a wrong key; others 401. To one without a key all answer 401.
const WRONG_KEY_FORBIDDEN: [&str; 1] = ["bedrock-chat"];

/// The most targets of one group.
pub(crate) const MOST_TARGETS: usize = 64;

/// The endpoints of a provider.
pub(crate) struct Pools {
    pub own: Arc<Pool>,
    /// Where the configuration names no endpoint: those of the regions that targets name.
    pub regions: Vec<(String, Arc<Pool>)>,
}

/// Where hedged requests are configured, when a second backend is asked.
pub(crate) struct Hedgers {
    pub models: BTreeMap<String, Arc<Hedger>>,
    pub providers: BTreeMap<String, Arc<Hedger>>,
}

impl Hedgers {
    /// Those of a configuration; what is known `before` of how long answers take stays known.
    fn new(config: &Config, before: Option<&Hedgers>) -> Self {
        let hedger = |known: Option<&Arc<Hedger>>, rules: Hedge| match known.filter(|known| known.has_rules(&rules)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(Hedger::new(rules)),
        };
        let of_model = |name: &String| before.and_then(|before| before.models.get(name));
        let of_provider = |name: &String| before.and_then(|before| before.providers.get(name));
        let models =
            config.models.iter().filter_map(|(name, m)| Some((name.clone(), hedger(of_model(name), m.hedge?))));
        let providers = config.providers.iter();
        let providers = providers.filter_map(|(name, p)| Some((name.clone(), hedger(of_provider(name), p.hedge?))));
        Hedgers { models: models.collect(), providers: providers.collect() }
    }
}

/// A provider, and whether it serves; if not, why.
type State = (String, Result<(), String>);

/// The gateway: shared by all requests of one process.
pub struct Gateway {
    pub(crate) config: Arc<Config>,
    pub(crate) routes: Vec<Route>,
    /// Who may ask.
    pub(crate) keys: Keys,
    /// What is taken of limits and budgets.
    pub(crate) ledger: Ledger,
    /// Each provider's settings as JSON text.
    settings: BTreeMap<String, Arc<str>>,
    /// Each provider's endpoints.
    pub(crate) pools: BTreeMap<String, Pools>,
    /// Each provider's keys.
    provider_keys: BTreeMap<String, ProviderKeys>,
    pub(crate) hedgers: Hedgers,
    /// Where the turn is among the targets of each alias that has several.
    turns: BTreeMap<String, Mutex<usize>>,
    pub(crate) cache: Cache,
    /// The headers by which requests are kept together.
    pub(crate) sticky: Vec<String>,
    in_flight: Arc<AtomicUsize>,
    draining: Arc<AtomicBool>,
    /// A successor serves in its place.
    retired: AtomicBool,
    /// The asynchronous jobs that this process knows of.
    pub(crate) jobs: Arc<Jobs>,
    /// The clocks of those whose signatures have a time.
    pub(crate) clocks: Arc<Clocks>,
    /// Configurations that were read of late.
    pub(crate) read: documents::Read,
    /// The backends' own models, and when they were last asked.
    pub(crate) listed: Mutex<Listed>,
    watch: Option<Arc<Watch>>,
    /// When the backends were last asked, and what they said.
    ready: Mutex<Option<(Duration, Vec<State>)>>,
}

/// One place among the concurrent requests; given back when dropped.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gateway {
    /// A gateway for a configuration that has been checked. `routes` are the normaliser's.
    pub fn new(config: Arc<Config>, routes: Vec<Route>) -> Self {
        Self::with(config, routes, None)
    }

    /// The gateway that takes this one's place when the configuration is read anew, with ports over the same state store
    /// and the same clock. Both may serve at the same time: the requests that run here end here. What is counted goes on
    /// where it is: requests in flight, jobs, metrics, alarms, what was taken of limits and budgets; what is known stays
    /// known where it is still true: how endpoints and the providers' keys fare, by URL and by secret, which answers are
    /// kept, who waits for them. What is known of documents and of the backends' models is asked for anew.
    ///
    /// When the successor serves, [`Gateway::retire`] is to be called here.
    pub fn successor(&self, config: Arc<Config>, routes: Vec<Route>) -> Self {
        Self::with(config, routes, Some(self))
    }

    fn with(config: Arc<Config>, routes: Vec<Route>, before: Option<&Gateway>) -> Self {
        let json = |provider: &Provider| Arc::from(provider.settings.to_string());
        let settings = config.providers.iter().map(|(name, provider)| (name.clone(), json(provider))).collect();
        let models = config.models.values();
        let targets = || {
            config.models.values().flat_map(|Model { targets, fallback, .. }| {
                [targets, &fallback.any, &fallback.context_length, &fallback.content_policy].into_iter().flatten()
            })
        };
        let pools = config.providers.values().map(|provider| {
            let known = before.and_then(|before| before.pools.get(&provider.name));
            let pool = |known: Option<&Arc<Pool>>| match known {
                Some(known) => Arc::new(known.successor(provider)),
                None => Arc::new(Pool::new(provider)),
            };
            let mut pools = Pools { own: pool(known.map(|known| &known.own)), regions: Vec::new() };
            for target in targets().filter(|target| provider.endpoints.is_empty() && target.provider == provider.name) {
                let region = target.settings.as_ref().and_then(|settings| region_of(&settings.json));
                if let Some(region) = region.filter(|region| pools.regions.iter().all(|(known, _)| known != region)) {
                    let known = known.and_then(|known| known.regions.iter().find(|(name, _)| name == region));
                    pools.regions.push((region.to_owned(), pool(known.map(|(_, pool)| pool))));
                }
            }
            (provider.name.clone(), pools)
        });
        let pools = pools.collect();
        let turns = models.clone().filter(|model| model.targets.len() > 1);
        let turns = turns.map(|model| (model.alias.clone(), Mutex::default())).collect();
        let choices = models.map(|model| &model.choice).chain(config.providers.values().map(|p| &p.choice));
        let sticky = choices.filter_map(|choice| match &choice.sticky {
            Some(Sticky::Header(name)) => Some(name.clone()),
            _ => None,
        });
        let sticky = sticky.collect();
        let watch = Watch::new(&config, before.and_then(|before| before.watch.as_deref()));
        let watch = (!watch.is_idle()).then(|| Arc::new(watch));
        let metrics = watch.as_ref().and_then(|watch| watch.metrics.as_ref());
        let thresholds = metrics.map(|metrics| metrics.thresholds.clone()).unwrap_or_default();
        let provider_keys = config.providers.values().map(|provider| {
            let keys = match before.and_then(|before| before.provider_keys.get(&provider.name)) {
                Some(known) => known.successor(provider),
                None => ProviderKeys::new(provider),
            };
            (provider.name.clone(), keys)
        });
        Gateway {
            jobs: before.map(|before| Arc::clone(&before.jobs)).unwrap_or_default(),
            keys: before.map_or_else(|| Keys::new(&config), |before| before.keys.successor(&config)),
            ledger: match before {
                Some(before) => before.ledger.successor(&config, thresholds),
                None => Ledger::new(&config, thresholds),
            },
            watch,
            provider_keys: provider_keys.collect(),
            hedgers: Hedgers::new(&config, before.map(|before| &before.hedgers)),
            cache: before.map_or_else(|| Cache::new(&config), |before| before.cache.successor(&config)),
            config,
            routes,
            pools,
            turns,
            sticky,
            settings,
            in_flight: before.map(|before| Arc::clone(&before.in_flight)).unwrap_or_default(),
            draining: before.map(|before| Arc::clone(&before.draining)).unwrap_or_default(),
            retired: AtomicBool::new(false),
            clocks: before.map(|before| Arc::clone(&before.clocks)).unwrap_or_default(),
            read: documents::Read::default(),
            listed: Mutex::new(None),
            ready: Mutex::new(None),
        }
    }

    /// The settings that count for a target, also as text.
    pub(crate) fn settings<'a>(
        &'a self,
        provider: &'a Provider,
        target: &'a Target,
    ) -> (&'a serde_json::Value, &'a str) {
        match &target.settings {
            Some(settings) => (&settings.json, &settings.text),
            None => self.own_settings(provider),
        }
    }

    /// A provider's settings, also as text.
    pub(crate) fn own_settings<'a>(&'a self, provider: &'a Provider) -> (&'a serde_json::Value, &'a str) {
        (&provider.settings, self.settings.get(&provider.name).map_or("{}", |text| text))
    }

    /// The endpoints for a question with these settings.
    pub(crate) fn pool(&self, provider: &Provider, settings: &serde_json::Value) -> Option<&Arc<Pool>> {
        let pools = self.pools.get(&provider.name)?;
        let of_region = match pools.regions.is_empty() {
            true => None,
            false => region_of(settings).and_then(|region| pools.regions.iter().find(|(known, _)| known == region)),
        };
        Some(of_region.map_or(&pools.own, |(_, pool)| pool))
    }

    /// A provider's keys.
    pub(crate) fn provider_keys(&self, provider: &Provider) -> Option<&ProviderKeys> {
        self.provider_keys.get(&provider.name)
    }

    /// What keeps a request with others.
    pub(crate) fn key(&self, choice: &Choice, headers: &[Field], request: &witgate_model::Request) -> Option<u64> {
        route::key(choice.sticky.as_ref()?, headers, request)
    }

    /// The order in which targets are tried: the one that the strategy chooses, then the others; behind those with a place
    /// those that spill and have none, and last those that are not well.
    pub(crate) fn sequence<P: Ports>(
        &self,
        ports: &P,
        targets: &[Target],
        model: Option<&Model>,
        headers: &[Field],
        request: &witgate_model::Request,
    ) -> Sequence {
        let mut sequence = Sequence::new();
        let count = targets.len().min(MOST_TARGETS);
        if count < 2 {
            (0..count).for_each(|at| sequence.push(at));
            return sequence;
        }
        let now = ports.now();
        let mut loads = [None; MOST_TARGETS];
        let mut spills = [false; MOST_TARGETS];
        for ((slot, spills), target) in loads.iter_mut().zip(&mut spills).zip(targets) {
            let provider = self.config.providers.get(&target.provider);
            *slot = provider.and_then(|provider| {
                let pool = self.pool(provider, self.settings(provider, target).0)?;
                let (well, load) = pool.load(now);
                *spills = provider.concurrency.spill && pool.is_busy(now);
                let well = well && self.provider_keys(provider).is_none_or(|keys| keys.is_fit(now));
                Some((well, Load { weight: target.weight, ..load }))
            });
        }
        let load = |at: usize| loads.get(at).copied().flatten();
        let some_well = (0..count).any(|at| load(at).is_some_and(|(well, _)| well));
        let candidate = |at: usize| load(at).filter(|(well, _)| *well || !some_well).map(|(_, load)| load);
        let plain = Choice::default();
        let choice = model.map_or(&plain, |model| &model.choice);
        let sticky = self.key(choice, headers, request);
        let turn = model.and_then(|model| self.turns.get(&model.alias));
        let mut turn = turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        let cursor = turn.as_deref_mut();
        let first = route::choose(choice.strategy, sticky, cursor.unwrap_or(&mut 0), count, candidate, || {
            ports.random() as u64
        });
        drop(turn);
        let first = first.unwrap_or(0);
        // After the one whose turn it is comes the one behind it.
        let from = if choice.strategy == Strategy::RoundRobin { first } else { 0 };
        let all = || [first].into_iter().chain((0..count).map(|step| (from + step) % count).filter(|at| *at != first));
        let rank = |at: usize| match candidate(at) {
            Some(_) => u8::from(spills.get(at).is_some_and(|spills| *spills)),
            None => 2,
        };
        (0..=2).for_each(|of| all().filter(|at| rank(*at) == of).for_each(|at| sequence.push(at)));
        sequence
    }

    /// From now on `/ready` answers 503, so that load balancers look elsewhere. Requests are served as before.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A successor serves. The worker of this one ([`Gateway::work`]) begins no further job, and ends when those that run
    /// have ended.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.jobs.wake();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Requests for models that are being served now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Serves one request. Dropping the future, or the stream in its answer, cancels the backend's request.
    pub async fn handle<P: Ports, B: RequestBody>(
        self: &Arc<Self>,
        ports: &Arc<P>,
        request: Request<B>,
    ) -> Response<impl Stream<Item = Bytes> + use<P, B>> {
        let cors = cors::headers(&self.config.server.cors, self.is_open(&request.path), &request);
        let mut response = match self.of_queue(&request) {
            None => self.answer(ports, request, None).await.map(Either::Left),
            Some(dialect) => self.serve_records(ports, &dialect, request).await.map(Either::Right),
        };
        response.headers.extend(cors);
        response
    }

    /// As [`Gateway::handle`]; `behalf` is the job whose request it is.
    pub(crate) async fn answer<P: Ports, B: RequestBody>(
        self: &Arc<Self>,
        ports: &Arc<P>,
        request: Request<B>,
        behalf: Option<Behalf>,
    ) -> Response<impl Stream<Item = Bytes> + use<P, B>> {
        let mut flight = Flight::new(Arc::clone(ports), &request);
        if let Some(behalf) = behalf {
            flight.stand_in(behalf);
        }
        flight.gateway = self.watch.is_some().then(|| Arc::clone(self));
        if self.config.access.admin_key.is_some() && request.path.starts_with("/admin/") {
            return self.admin(flight, request).await.response();
        }
        let head_only = request.method == "HEAD";
        let mut response = match self.route(&mut flight, &request).await {
            Ok(Routed::Own(status, json)) => {
                let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
                flight.end(status, if status < 400 { Outcome::Complete } else { Outcome::Failed });
                flight.respond(status, headers, Bytes::from(json)).response()
            }
            Ok(Routed::Text(headers, text)) => {
                flight.end(200, Outcome::Complete);
                flight.respond(200, headers, Bytes::from(text)).response()
            }
            Ok(Routed::Show) => self.show(flight, request).await.response(),
            Ok(Routed::Jobs) => {
                let Request { method, path, query, headers, body } = request;
                match routes::find(&self.routes, &method, &path) {
                    Ok(Endpoint::Jobs(question)) => self.ask_jobs(flight, question, &query, &headers).await,
                    Ok(Endpoint::Files(question)) => self.ask_files(flight, question, (&headers, &query, body)).await,
                    Ok(Endpoint::Batches(question)) => {
                        self.ask_batches(flight, question, (&headers, &query, body)).await
                    }
                    _ => unreachable!("it was routed there"),
                }
                .response()
            }
            Ok(Routed::Dialect(dialect)) if jobs::wanted(&flight, &request) => {
                flight.record.dialect = Some(dialect.clone());
                self.submit(flight, &dialect, request).await.response()
            }
            Ok(Routed::Dialect(dialect)) => {
                flight.record.dialect = Some(dialect.clone());
                match self.admit() {
                    Ok(place) => return self.serve(flight, dialect, request, place).await,
                    Err(failed) => flight.refuse(self, &dialect, failed).response(),
                }
            }
            Err((failed, more)) => {
                let dialect = self.dialect_of(&request.path);
                let mut response = flight.refuse(self, &dialect, failed).response();
                response.headers.extend(more);
                response
            }
        };
        if head_only {
            response.body = Body::Whole(Bytes::new());
        }
        response
    }

    /// The dialect in whose shape an error is told: that of the path, whatever the method; OpenAI's elsewhere.
    fn dialect_of(&self, path: &str) -> String {
        match routes::find(&self.routes, "POST", path) {
            Ok(Endpoint::Dialect(dialect)) => dialect.to_owned(),
            _ if path.starts_with("/api/") => "ollama-chat".to_owned(),
            _ => "openai-chat".to_owned(),
        }
    }

    async fn route<P: Ports, B>(
        &self,
        flight: &mut Flight<P>,
        request: &Request<B>,
    ) -> Result<Routed, (Failed, Option<Field>)> {
        let endpoint = match routes::find(&self.routes, &request.method, &request.path) {
            Ok(endpoint) => endpoint,
            Err(Missing::Path(nearest)) => {
                let path: String = request.path.chars().take(128).collect();
                let mut message = format!("no route {} {path}", request.method);
                if let Some(nearest) = nearest {
                    message.push_str(&format!("; did you mean {nearest}?"));
                }
                return Err((Failed::ours(404, "not_found_error", "route_not_found", message), None));
            }
            Err(Missing::Method(allow)) if request.method == "OPTIONS" => {
                return Ok(Routed::Text(cors::preflight(&self.config.server.cors, &allow, request), String::new()));
            }
            Err(Missing::Method(allow)) => {
                let message = format!("{} is not served at {}; use {allow}", request.method, request.path);
                let failed = Failed::ours(405, "invalid_request_error", "method_not_allowed", message);
                return Err((failed, Some(("allow".to_owned(), allow))));
            }
        };
        match endpoint {
            Endpoint::Health => return Ok(Routed::Own(200, r#"{"status":"ok"}"#.to_owned())),
            Endpoint::Ready => {
                let (ready, json) = self.ready(&flight.ports).await;
                return Ok(Routed::Own(if ready { 200 } else { 503 }, json));
            }
            Endpoint::Metrics => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8".to_owned();
                let text = self.metrics(&flight.ports, request).await.map_err(|failed| (failed, None))?;
                return Ok(Routed::Text(vec![("content-type".to_owned(), kind)], text));
            }
            Endpoint::Root => {
                let (headers, text) = page::root(self.config.server.page, request.header("accept"));
                return Ok(Routed::Text(headers, text));
            }
            _ => {}
        }
        let dialect = match endpoint {
            Endpoint::Dialect(dialect) => Some(dialect),
            _ => None,
        };
        if flight.told.is_none() {
            self.authenticate(flight, request, dialect).await.map_err(|failed| (failed, None))?;
        } else if let Some(client) = &flight.client {
            // In a client's stead: who it is, is known; what it may do has to be looked at all the same.
            client.check(dialect).map_err(|failed| (failed, None))?;
        }
        // Anthropic's SDKs ask at the same path.
        let shape = if request.header("anthropic-version").is_some() { Shape::Anthropic } else { Shape::OpenAi };
        Ok(match endpoint {
            Endpoint::Dialect(dialect) => Routed::Dialect(dialect.to_owned()),
            Endpoint::Show => Routed::Show,
            Endpoint::Jobs(_) | Endpoint::Files(_) | Endpoint::Batches(_) => Routed::Jobs,
            // Which models a backend holds in memory nobody says; Ollama with none in it says the same.
            Endpoint::Running => Routed::Own(200, models::list(&[], Shape::Ollama).to_string()),
            Endpoint::Version => Routed::Own(200, models::version().to_string()),
            Endpoint::Tags => Routed::Own(200, models::list(&self.allowed(flight).await, Shape::Ollama).to_string()),
            Endpoint::Model(name) => Routed::Own(200, self.model(flight, name).await?.json(shape).to_string()),
            _ => Routed::Own(200, models::list(&self.allowed(flight).await, shape).to_string()),
        })
    }

    /// The metrics, for who may read them.
    async fn metrics<P: Ports, B>(&self, ports: &Arc<P>, request: &Request<B>) -> Result<String, Failed> {
        let Some((watch, metrics)) = self.watch.as_ref().and_then(|watch| Some((watch, watch.metrics.as_ref()?)))
        else {
            let message = "metrics are not enabled; set metrics.enabled = true in the configuration";
            return Err(Failed::ours(404, "not_found_error", "metrics_disabled", message));
        };
        if let Some(key) = &self.config.metrics.key
            && !http::bearer(&request.headers).is_some_and(|given| key.matches(given))
        {
            let message = "the metrics have a key of their own (metrics.key); send it as `authorization: Bearer KEY`";
            return Err(Failed::ours(401, "authentication_error", "invalid_api_key", message));
        }
        let now = ports.now();
        self.watched(ports.as_ref(), None);
        let mut pools = Vec::new();
        for (provider, known) in &self.pools {
            let own = known.regions.is_empty().then_some((String::new(), &known.own));
            let regions = known.regions.iter().map(|(region, pool)| (region.clone(), pool));
            pools.extend(own.into_iter().chain(regions).map(|(region, pool)| PoolReport {
                provider: provider.clone(),
                region,
                waiting: pool.waiting(),
                endpoints: pool.endpoints(now),
            }));
        }
        let (jobs_running, jobs_queued) = self.jobs.count(ports.as_ref(), self.config.jobs.max_queued).await;
        let served = ServedNow { in_flight: self.in_flight(), pools, jobs_running, jobs_queued };
        let operated = Operated { components: ports.components(), configuration: ports.configuration() };
        Ok(metrics.text(&served, &watch.alarms, operated))
    }

    /// Counts a request that has ended, and tells of alarms.
    pub(crate) fn watched<P: Ports>(&self, ports: &P, record: Option<&Record>) {
        let Some(watch) = &self.watch else { return };
        let pools = || {
            self.pools
                .values()
                .flat_map(|pools| std::iter::once(&pools.own).chain(pools.regions.iter().map(|(_, pool)| pool)))
        };
        let waiting = || pools().map(|pool| pool.waiting() as u64).sum();
        watch.ended(ports.now(), record, waiting, |warning| ports.warn(&warning));
    }

    /// The models that the client may ask for.
    async fn allowed<P: Ports>(&self, flight: &Flight<P>) -> Arc<Vec<ModelEntry>> {
        let models = self.models(flight).await;
        match &flight.client {
            Some(client) if client.is_restricted() => {
                Arc::new(models.iter().filter(|model| client.may_ask(&model.id)).cloned().collect())
            }
            _ => models,
        }
    }

    /// The model of this name.
    async fn model<P: Ports>(&self, flight: &Flight<P>, name: &str) -> Result<ModelEntry, (Failed, Option<Field>)> {
        let models = self.allowed(flight).await;
        models.iter().find(|model| model.id == name).cloned().ok_or_else(|| (self.unknown_model(name), None))
    }

    /// Ollama's description of a model.
    async fn show<P: Ports, B: RequestBody>(&self, mut flight: Flight<P>, request: Request<B>) -> Whole {
        #[derive(serde::Deserialize)]
        struct Asked {
            #[serde(alias = "name")]
            model: String,
        }
        let dialect = self.dialect_of("/api/chat");
        let shown = async {
            let body = self.body(request.body, &request.headers).await?;
            let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
                let message = format!("the body is not {{\"model\": NAME}}: {error}");
                Failed::ours(400, "invalid_request_error", "invalid_json", message)
            })?;
            // Ollama's clients write the tag that is meant where there is none.
            let name = asked.model.strip_suffix(":latest").unwrap_or(&asked.model);
            self.model(&flight, name).await.map_err(|(failed, _)| failed)
        };
        match shown.await {
            Ok(model) => {
                flight.end(200, Outcome::Complete);
                let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
                flight.respond(200, headers, Bytes::from(model.shown().to_string()))
            }
            Err(failed) => flight.refuse(self, &dialect, failed),
        }
    }

    /// Whether every origin may ask at this path, whatever the configuration says of origins.
    fn is_open(&self, path: &str) -> bool {
        // Asked for every request: few paths are worth a whole look-up.
        let mut open = self.routes.iter().filter(|route| OPEN.contains(&route.dialect.as_str()));
        open.any(|route| routes::fits(&route.path, path))
            && matches!(routes::find(&self.routes, "POST", path), Ok(Endpoint::Dialect(dialect)) if OPEN.contains(&dialect))
    }

    /// A request's body, without its encoding, bounded.
    pub(crate) async fn body<B: RequestBody>(&self, body: B, headers: &[Field]) -> Result<Bytes, Failed> {
        let limit = self.config.limits.max_body_bytes;
        match body.read(limit).await {
            Ok(body) => encoding::decode(http::header(headers, "content-encoding"), body, limit),
            Err(BodyError::TooLarge) => Err(encoding::too_large(limit)),
            Err(error) => Err(Failed::ours(408, "invalid_request_error", "body_incomplete", error.to_string())),
        }
    }

    /// Finds out who asks, and whether they may speak this dialect.
    pub(crate) async fn authenticate<P: Ports, B>(
        &self,
        flight: &mut Flight<P>,
        request: &Request<B>,
        dialect: Option<&str>,
    ) -> Result<(), Failed> {
        let given = http::bearer(&request.headers)
            .or_else(|| request.header("x-api-key"))
            .or_else(|| request.header("api-key"));
        let wrong = if dialect.is_some_and(|dialect| WRONG_KEY_FORBIDDEN.contains(&dialect)) { 403 } else { 401 };
        let client = self.keys.find(&self.config, flight.ports.as_ref(), given, wrong).await?;
        flight.record.key = client.has_key.then(|| client.id.clone());
        flight.record.tenant.clone_from(&client.tenant);
        let client = flight.client.insert(client);
        client.check(dialect)
    }

    /// Takes a place among the concurrent requests.
    pub(crate) fn admit(&self) -> Result<Place, Failed> {
        let place = Place(Arc::clone(&self.in_flight));
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < self.config.limits.max_concurrent_requests {
            return Ok(place);
        }
        let message = format!(
            "the gateway already serves {} requests, its limit (limits.max_concurrent_requests); try again shortly",
            self.config.limits.max_concurrent_requests
        );
        Err(Failed::ours(503, "overloaded_error", "too_many_requests", message))
    }

    pub(crate) fn unknown_model(&self, name: &str) -> Failed {
        let name: String = name.chars().take(128).collect();
        let mut message = format!("no model \"{name}\"");
        match self.config.resolve(&name) {
            Err(unknown) => {
                if let Some(nearest) = &unknown.nearest {
                    message.push_str(&format!("; did you mean \"{nearest}\"?"));
                }
                let mut known: Vec<_> = unknown.known.iter().take(20).map(|name| format!("\"{name}\"")).collect();
                if unknown.known.len() > known.len() {
                    known.push("…".to_owned());
                }
                message.push_str(&format!(" (configured: {})", known.join(", ")));
            }
            Ok(_) => message.push_str(" is listed; requests for it are served"),
        }
        let mut failed = Failed::ours(404, "not_found_error", "model_not_found", message);
        failed.error.param = Some("model".to_owned());
        failed
    }

    /// Whether some backend serves, and what each one says.
    async fn ready<P: Ports>(&self, ports: &Arc<P>) -> (bool, String) {
        let draining = self.draining.load(Ordering::Relaxed);
        let known = self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let states = match known {
            Some((at, states)) if ports.now().saturating_sub(at) < READY_FOR => states,
            _ => {
                let providers = self.config.providers.values();
                let states = join_all(
                    providers
                        .map(|provider| async { (provider.name.clone(), self.probe(ports.as_ref(), provider).await) }),
                )
                .await;
                *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some((ports.now(), states.clone()));
                states
            }
        };
        let ready = !draining && states.iter().any(|(_, state)| state.is_ok());
        let providers: serde_json::Map<_, _> = states
            .into_iter()
            .map(|(name, state)| (name, state.map_or_else(|error| error, |()| "ready".to_owned()).into()))
            .collect();
        let status = match (ready, draining) {
            (true, _) => "ready",
            (false, true) => "draining",
            (false, false) => "unavailable",
        };
        (ready, serde_json::json!({"status": status, "providers": providers}).to_string())
    }

    /// Asks one backend whether it serves. The error is for people and names no address.
    async fn probe<P: Ports>(&self, ports: &P, provider: &Provider) -> Result<(), String> {
        let mut adapter = ports.adapter(&provider.name).map_err(|fault| fault.to_string())?;
        let (settings, text) = self.own_settings(provider);
        let request = match adapter.probe(text).map_err(|fault| fault.to_string())? {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.message),
        };
        let mut last = Err("has no endpoint".to_owned());
        let region = path::region(&request.auth, settings);
        let endpoints = path::endpoints(provider, settings, region, &adapter);
        for endpoint in endpoints.iter() {
            last =
                self.probe_endpoint(ports, provider, (endpoint, region), request.clone()).await.map_err(|(why, _)| why);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Asks one endpoint whether it serves. The error is for people and names no address; beside it what that tells of the
    /// endpoint.
    pub(crate) async fn probe_endpoint<P: Ports>(
        &self,
        ports: &P,
        provider: &Provider,
        (endpoint, region): (&str, Option<&str>),
        request: witgate_model::HttpRequest,
    ) -> Result<(), (String, Verdict)> {
        let unknown = |why: String| (why, Verdict::Unknown);
        let key = self.provider_keys(provider).map_or(0, |keys| keys.peek(ports.now()));
        let prepared = crate::sign::prepare(provider, endpoint, (region, key), request, None);
        let prepared = prepared.map_err(|fault| unknown(fault.to_string()))?;
        let now = self.clocks.time(&provider.name, ports.unix_time());
        let request = prepared.signed(ports, provider, now).await.map_err(|failed| unknown(failed.error.message))?;
        let deadline = ports.now() + PROBE_TIMEOUT;
        match path::before(ports, deadline, ports.send(request)).await {
            None => Err((format!("did not answer within {} s", PROBE_TIMEOUT.as_secs()), Verdict::Failed)),
            Some(Err(_)) => Err(("cannot be reached".to_owned(), Verdict::Failed)),
            Some(Ok(mut answer)) if (200..300).contains(&answer.status) => {
                // Read what there is, so that the connection can be used again.
                let _ = path::before(ports, deadline, answer.body.chunk()).await;
                Ok(())
            }
            Some(Ok(answer)) => {
                // One that does not know the question may serve all the same.
                let verdict = match answer.status {
                    429 | 500.. => Verdict::Failed,
                    _ => Verdict::Unknown,
                };
                Err((format!("answers {}", answer.status), verdict))
            }
        }
    }

    /// Gives the answer that the dialect itself has.
    pub(crate) async fn reply<P: Ports>(
        &self,
        mut flight: Flight<P>,
        reply: witgate_model::normaliser::Reply,
    ) -> Whole {
        for at in reply.forget {
            let forgotten = match self.forget_later(&flight, &at).await {
                Some(forgotten) => forgotten,
                None => {
                    let document = Document { at: flight.own(at), content: None };
                    documents::keep(self, flight.ports.as_ref(), document).await
                }
            };
            if let Err(why) = forgotten {
                let warning = Warning::Store { request_id: &flight.record.request_id, why: &why };
                flight.ports.warn(&warning);
            }
        }
        let rendered = reply.rendered;
        flight.end(rendered.status, if rendered.status < 400 { Outcome::Complete } else { Outcome::Failed });
        flight.respond(rendered.status, rendered.headers, Bytes::from(rendered.body))
    }

    /// The operator's settings of a dialect, as JSON text; empty for none.
    pub(crate) fn dialect_settings(&self, dialect: &str) -> &str {
        self.config.dialects.get(dialect).map_or("", |dialect| &dialect.settings)
    }

    /// Runs the path for a request whose dialect is known.
    async fn serve<P: Ports, B: RequestBody>(
        self: &Arc<Self>,
        mut flight: Flight<P>,
        dialect: String,
        request: Request<B>,
        place: Place,
    ) -> Response<impl Stream<Item = Bytes> + use<P, B>> {
        flight.place = Some(place);
        let Request { method, path, query, body, mut headers } = request;
        let query = match query::parameters(&query) {
            Ok(query) => query,
            Err(failed) => return flight.refuse(self, &dialect, failed).response(),
        };
        let body = match self.body(body, &headers).await {
            Ok(body) => body,
            Err(failed) => return flight.refuse(self, &dialect, failed).response(),
        };
        let client = Client {
            method,
            path,
            query,
            headers: path::own_headers(&headers),
            settings: self.dialect_settings(&dialect).to_owned(),
            documents: Vec::new(),
        };
        let (parsed, normaliser, follow) = match path::parse(self, &mut flight, &dialect, client, &body).await {
            Ok(Asked::Backend(parsed, normaliser, follow)) => (parsed, normaliser, follow),
            Ok(asked) => {
                let path = flight.record.path.clone();
                let asked = match asked {
                    Asked::Later(later) => self.take_later(&mut flight, &dialect, later, (headers, body)).await,
                    asked => Ok((asked, path)),
                };
                return match asked {
                    Ok((Asked::Answer(reply), _)) => self.reply(flight, reply).await.response(),
                    Ok((Asked::Tail(mut tail), path)) => {
                        let head = std::mem::take(&mut tail.head);
                        let headers = flight.headers(head.headers);
                        let (ports, writer) = (Arc::clone(&flight.ports), Writer::default());
                        let follow = Arc::clone(self).follow(flight, dialect, (tail, path), writer.clone());
                        let keep_alive = (self.config.server.keep_alive, Bytes::from_static(jobs::later::KEEP_ALIVE));
                        let answer = Answer::new(ports, Either::Right(follow), writer, keep_alive);
                        Response { status: head.status, headers, body: Body::Stream(answer.into_stream()) }
                    }
                    Ok(_) => flight.refuse(self, &dialect, jobs::later::strange()).response(),
                    Err(failed) => flight.refuse(self, &dialect, failed).response(),
                };
            }
            Err(failed) => return flight.refuse(self, &dialect, failed).response(),
        };
        let body_bytes = body.len();
        drop(body);
        let traceparent = http::header(&headers, "traceparent").and_then(http::traceparent);
        let traceparent = traceparent.map(|(trace, sampled)| format!("00-{trace}-{:016x}-{sampled}", flight.span_id()));
        let Parsed { mut request, render } = parsed;
        if request.model.is_empty()
            && let Some(model) = self.config.dialects.get(&dialect).and_then(|dialect| dialect.model.as_ref())
        {
            request.model.clone_from(model);
        }
        if let Err(failed) = self.allow(&flight, &request.model) {
            return flight.refuse(self, &dialect, failed).response();
        }
        let gateway = Arc::clone(self);
        let wish = match self.cache.wish(&headers, flight.client.as_deref()) {
            Ok(wish) => wish,
            Err(failed) => return flight.refuse(self, &dialect, failed).response(),
        };
        headers.retain(|(name, _)| self.sticky.contains(name));
        let mut run = path::Run {
            gateway,
            normaliser,
            dialect,
            render,
            request: Arc::new(request),
            headers,
            traceparent,
            follow,
            watches: Vec::new(),
            wish,
            recorder: None,
            keep: Vec::new(),
        };
        let writer = Writer::default();
        if let Err(failed) = run.enter(&mut flight) {
            return run.fail(flight, failed, &writer).await.whole().response();
        }
        if let Err(failed) = self.take(&mut flight, &run.request, body_bytes).await {
            return flight.refuse(self, &run.dialect, failed).response();
        }
        if !run.request.stream {
            return run.run(flight, &writer).await.whole().response();
        }
        // What the client sees where the head has to go out before a backend has answered.
        let (early, comment) = match run.early(&flight) {
            Ok(early) => early,
            Err(fault) => return flight.refuse(self, &run.dialect, Failed::fault(&fault, None)).response(),
        };
        let ports = Arc::clone(&flight.ports);
        // Nobody waits at the other end of a job: what its answer begins with tells whether it has failed.
        let comment = if flight.told.is_some() { Bytes::new() } else { comment };
        let running = {
            let writer = writer.clone();
            async move { run.run(flight, &writer).await }
        };
        let mut answer = Answer::new(ports, Either::Left(running), writer, (self.config.server.keep_alive, comment));
        match answer.first(|| early).await {
            First::End(ended) => ended.whole().response(),
            First::Head(status, headers) => Response { status, headers, body: Body::Stream(answer.into_stream()) },
        }
    }
}

/// The region that settings name.
fn region_of(settings: &serde_json::Value) -> Option<&str> {
    settings.get("region")?.as_str()
}

/// Where a request went.
enum Routed {
    /// Answered by the gateway itself.
    Own(u16, String),
    /// Text with its headers.
    Text(Vec<Field>, String),
    /// A model is to be described; its name is in the body.
    Show,
    /// A question about asynchronous jobs.
    Jobs,
    /// For the path.
    Dialect(String),
}
