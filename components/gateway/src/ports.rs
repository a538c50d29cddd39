//! The gateway's ports, over WASI 0.3.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use serde_json::json;
use wit_bindgen::spawn_local;
use witgate_gateway::{
    Document, DocumentRef, Fault, Ports, Record, TransportError, UpstreamRequest, UpstreamResponse, Warning, Work,
};

use crate::Shared;
use crate::bindings::wasi::clocks::system_clock;
use crate::bindings::wasi::random::random;
use crate::client::{self, Body};
use crate::components::{Dialects, Held};
use crate::policies;
use crate::store::Store;
use crate::timer::{self, Timer};

/// The ports of one request.
pub struct Wasi {
    shared: Rc<Shared>,
    timer: Timer,
}

impl Wasi {
    /// Ports for one request.
    pub fn new(shared: Rc<Shared>) -> Self {
        Wasi { shared, timer: Timer::default() }
    }

    /// The request's timer.
    pub fn timer(&self) -> Timer {
        self.timer.clone()
    }
}

impl Ports for Wasi {
    type Normaliser = Dialects;
    type Adapter = Held;
    type Policy = policies::Held;
    type Body = Body;
    type State = Store;

    fn normaliser(&self) -> Result<Dialects, Fault> {
        Ok(Dialects::default())
    }

    fn adapter(&self, provider: &str) -> Result<Held, Fault> {
        let name = self.shared.config.providers.get(provider).map_or(provider, |provider| provider.adapter.as_str());
        self.shared.slots.adapter(name).ok_or_else(|| Fault {
            component: format!("adapter \"{name}\""),
            what: "is in no slot of the gateway".to_owned(),
        })
    }

    fn policy(&self, name: &str) -> Result<policies::Held, Fault> {
        let slot = self.shared.config.policies.get(name).and_then(|policy| self.shared.policies.of(policy));
        slot.map(policies::Held::new).ok_or_else(|| Fault {
            component: format!("policy \"{name}\""),
            what: "is in no slot of the gateway".to_owned(),
        })
    }

    async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse<Body>, TransportError> {
        client::send(request).await
    }

    /// The runtime's variables, as AWS names them: there is no profile, and no metadata service, at the edge.
    async fn credentials(&self, _: &str) -> Result<Credentials, String> {
        let missing = |name: &str| format!("the variable {name} is not set");
        let get = |name| crate::config::variable(name).ok_or_else(|| missing(name));
        let token = crate::config::variable("AWS_SESSION_TOKEN");
        Ok(Credentials::new(get("AWS_ACCESS_KEY_ID")?, get("AWS_SECRET_ACCESS_KEY")?, token, None, "variables"))
    }

    /// Stored configurations are files that the runtime mounts under `/configurations`.
    async fn document(&self, at: &DocumentRef) -> Result<Option<String>, String> {
        let inside =
            std::path::Path::new(&at.key).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if at.kind != "configuration" || !inside {
            return Ok(None);
        }
        match std::fs::read_to_string(format!("/configurations/{}", at.key)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn keep(&self, _: Document) -> Result<(), String> {
        Err("this runtime keeps answers only where [state] says store = \"key-value\"".to_owned())
    }

    fn state(&self) -> &Store {
        &self.shared.state
    }

    fn now(&self) -> Duration {
        timer::now()
    }

    fn unix_time(&self) -> Duration {
        let now = system_clock::now();
        Duration::new(u64::try_from(now.seconds).unwrap_or(0), now.nanoseconds)
    }

    async fn sleep_until(&self, deadline: Duration) {
        self.timer.sleep_until(deadline).await;
    }

    fn random(&self) -> u128 {
        u128::from(random::get_random_u64()) << 64 | u128::from(random::get_random_u64())
    }

    fn secret(&self) -> Result<[u8; 32], String> {
        random::get_random_bytes(32).try_into().map_err(|_| "the runtime gives too few bytes".to_owned())
    }

    fn after(self: &Arc<Self>, work: Work) {
        let ports = Arc::clone(self);
        spawn_local(async move { work.run(ports.as_ref()).await });
    }

    fn record(&self, record: &Record) {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
        let usage = record.usage.as_ref();
        log(json!({
            "event": "request",
            "method": record.method,
            "path": record.path,
            "status": record.status,
            "outcome": record.outcome.as_str(),
            "latency_ms": milliseconds(record.latency),
            "first_token_ms": record.first_token.map(milliseconds),
            "request_id": record.request_id,
            "job": record.job,
            "trace_id": record.trace_id,
            "dialect": record.dialect,
            "model": record.request_model,
            "response_model": record.response_model,
            "provider": record.provider,
            "attempts": record.attempts,
            "stream": record.stream,
            "input_tokens": usage.and_then(|usage| usage.input_tokens),
            "output_tokens": usage.and_then(|usage| usage.output_tokens),
            "key": record.key,
            "tenant": record.tenant,
            "cost_usd": record.cost.map(|nano| nano as f64 / 1e9),
            "error_type": record.error_type,
            "cause": record.cause,
            "unmapped": record.unmapped,
            "tags": record.tags.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        }));
    }

    fn warn(&self, warning: &Warning<'_>) {
        match warning {
            Warning::Fallback { request_id, from, to, reason, attempt } => log(json!({
                "event": "fallback", "request_id": request_id, "from": from, "to": to, "reason": reason,
                "attempt": attempt,
            })),
            Warning::Fault { request_id, fault } => log(json!({
                "event": "fault", "request_id": request_id, "component": fault.component, "what": fault.what,
            })),
            Warning::Alarm { name, metric, on, value, above } => log(json!({
                "event": if *on { "alarm" } else { "alarm_over" }, "alarm": name, "metric": metric, "value": value,
                "above": above,
            })),
            Warning::State { why } => log(json!({ "event": "state", "what": why.to_string() })),
            Warning::Budget { request_id, scope, owner, period, percent, used, limit } => log(json!({
                "event": "budget", "request_id": request_id, "scope": scope, "owner": owner, "period": period,
                "percent": percent, "used_usd": *used as f64 / 1e9, "limit_usd": *limit as f64 / 1e9,
            })),
            other => log(json!({ "event": "warning", "what": format!("{other:?}") })),
        }
    }
}

/// One line of the log: JSON on standard error, which runtimes collect. Members without a value are left out.
pub fn log(mut line: serde_json::Value) {
    if let Some(members) = line.as_object_mut() {
        members.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|array| !array.is_empty()));
        let now = system_clock::now();
        members.insert("unix_time".to_owned(), json!(now.seconds as f64 + f64::from(now.nanoseconds) / 1e9));
    }
    // One call with the whole line, so that lines of several requests do not mix; a log that cannot be written must not
    // end a request.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
}
