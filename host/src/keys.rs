//! `witgate keys`: the keys of a running gateway, by its admin API.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use witgate_config::{AdapterRef, Config, Provider, Secret};
use witgate_gateway::{UpstreamBody, UpstreamRequest};

use crate::upstream::Upstream;

/// How long the gateway may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the connection may take to stand.
const CONNECT: Duration = Duration::from_secs(5);
/// The largest answer.
const MOST_BYTES: usize = 16 << 20;
/// The keys of one question.
const PAGE: usize = 1_000;
/// What the connections are kept under.
const GATEWAY: &str = "gateway";

/// Which gateway, and what is done.
#[derive(Args)]
pub struct Keys {
    /// Where the gateway listens.
    #[arg(long, env = "WITGATE_URL", default_value = "http://127.0.0.1:8080", global = true)]
    url: String,
    /// What is done.
    #[command(subcommand)]
    command: Command,
}

/// What is done.
#[derive(Subcommand)]
enum Command {
    /// Makes a key. Its secret is in the answer, and nowhere else.
    Create(Box<Create>),
    /// Lists all keys, one on a line; those of the configuration too.
    List {
        /// As JSON, with everything that is known of them.
        #[arg(long)]
        json: bool,
    },
    /// Gives a key a new secret.
    Rotate {
        /// The key's id.
        id: String,
        /// For how long the old secret stays valid, in seconds.
        #[arg(long, default_value_t = 3_600)]
        grace_seconds: u64,
    },
    /// Ends a key at once, for good.
    Revoke {
        /// The key's id.
        id: String,
    },
}

/// What a new key may do.
#[derive(Args)]
struct Create {
    /// What it is called.
    name: String,
    /// Whose it is.
    #[arg(long)]
    tenant: Option<String>,
    /// A model that it may ask for, as clients write it; "*" stands for any text. Default: all.
    #[arg(long = "model", value_name = "PATTERN")]
    models: Vec<String>,
    /// An API that it may speak, as "openai-*". Default: all.
    #[arg(long = "route", value_name = "PATTERN")]
    routes: Vec<String>,
    /// A text for you, as "owner=alice".
    #[arg(long, value_name = "NAME=TEXT", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// When it ends, in seconds since 1970-01-01 UTC.
    #[arg(long, value_name = "SECONDS")]
    expires: Option<u64>,
    /// Most requests in a minute.
    #[arg(long, value_name = "COUNT")]
    requests_per_minute: Option<u32>,
    /// Most tokens in a minute.
    #[arg(long, value_name = "COUNT")]
    tokens_per_minute: Option<u32>,
    /// Most requests at once.
    #[arg(long, value_name = "COUNT")]
    concurrent_requests: Option<u32>,
    /// Most that it may spend in a day.
    #[arg(long, value_name = "DOLLARS")]
    budget_day: Option<f64>,
    /// Most that it may spend in a month.
    #[arg(long, value_name = "DOLLARS")]
    budget_month: Option<f64>,
    /// Most that it may ever spend.
    #[arg(long, value_name = "DOLLARS")]
    budget_total: Option<f64>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=TEXT")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Create {
    fn json(self) -> Value {
        let metadata: BTreeMap<String, String> = self.metadata.into_iter().collect();
        json!({
            "name": self.name, "tenant": self.tenant, "metadata": metadata, "expires": self.expires,
            "models": self.models, "routes": self.routes,
            "quota": {
                "requests_per_minute": self.requests_per_minute, "tokens_per_minute": self.tokens_per_minute,
                "concurrent_requests": self.concurrent_requests,
            },
            "budget": {"day": self.budget_day, "month": self.budget_month, "total": self.budget_total},
        })
    }
}

impl Keys {
    /// Does it; what is to be printed, with its line end.
    ///
    /// # Errors
    /// Where the gateway cannot be reached, or refuses: for people.
    pub async fn run(self, admin_key: &Secret) -> Result<String, String> {
        let api = Api::new(&self.url, admin_key);
        let pretty = |json: &Value| {
            serde_json::to_string_pretty(json).map(|text| text + "\n").map_err(|error| error.to_string())
        };
        match self.command {
            Command::Create(create) => pretty(&api.call("POST", "keys", Some(create.json())).await?),
            Command::Rotate { id, grace_seconds } => {
                let body = json!({ "grace_seconds": grace_seconds });
                pretty(&api.call("POST", &format!("keys/{}/rotate", segment(&id)?), Some(body)).await?)
            }
            Command::Revoke { id } => pretty(&api.call("DELETE", &format!("keys/{}", segment(&id)?), None).await?),
            Command::List { json } => {
                let keys = api.list().await?;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                if json { pretty(&Value::Array(keys)) } else { Ok(keys.iter().map(|key| line(key, now)).collect()) }
            }
        }
    }
}

/// An id as a part of a path.
fn segment(id: &str) -> Result<&str, String> {
    if witgate_config::is_name(id) { Ok(id) } else { Err("an id is letters, digits, \"_\" and \"-\"".to_owned()) }
}

/// One key in the list: its id, its tenant, whether it is valid, its name. `now` is in seconds since 1970.
fn line(key: &Value, now: u64) -> String {
    let text = |name: &str| key[name].as_str().unwrap_or("-");
    let state = match (key["revoked"].is_u64(), key["source"].as_str()) {
        (true, _) => "revoked",
        _ if key["expires"].as_u64().is_some_and(|expires| expires <= now) => "expired",
        (false, Some("configuration")) => "configured",
        _ => "valid",
    };
    format!("{}\t{}\t{state}\t{}\n", text("id"), text("tenant"), text("name"))
}

/// The admin API of a gateway.
pub(crate) struct Api<'k> {
    url: String,
    key: &'k Secret,
    upstream: Upstream,
}

impl<'k> Api<'k> {
    pub(crate) fn new(url: &str, key: &'k Secret) -> Self {
        let mut config = Config::builtin();
        config.providers.insert(GATEWAY.to_owned(), Provider::new(GATEWAY, AdapterRef::Builtin("stub".to_owned())));
        Api { url: url.trim_end_matches('/').to_owned(), key, upstream: Upstream::new(&config, None) }
    }

    /// All keys, page by page.
    async fn list(&self) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        let mut path = format!("keys?limit={PAGE}");
        loop {
            let mut page = self.call("GET", &path, None).await?;
            let more = page["has_more"] == true;
            if let Value::Array(keys) = page["data"].take() {
                all.extend(keys);
            }
            let last = all.last().and_then(|key: &Value| key["id"].as_str()).map(str::to_owned);
            match last {
                Some(last) if more => path = format!("keys?limit={PAGE}&after={}", segment(&last)?),
                _ => return Ok(all),
            }
        }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, String> {
        let request = UpstreamRequest {
            provider: GATEWAY.to_owned(),
            method: method.to_owned(),
            url: format!("{}/admin/{path}", self.url),
            headers: vec![
                ("authorization".to_owned(), format!("Bearer {}", self.key.expose())),
                ("content-type".to_owned(), "application/json".to_owned()),
            ],
            body: body.map(|body| Bytes::from(body.to_string())).unwrap_or_default(),
            connect_timeout: CONNECT,
            public_only: false,
        };
        let asked = async {
            let answer = self.upstream.send(request).await.map_err(|error| error.to_string())?;
            let (status, mut body, mut all) = (answer.status, answer.body, Vec::new());
            while let Some(chunk) = body.chunk().await {
                all.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
                if all.len() > MOST_BYTES {
                    return Err(format!("the answer is larger than {MOST_BYTES} bytes"));
                }
            }
            Ok((status, all))
        };
        let late = || Err(format!("no answer within {} s", TIMEOUT.as_secs()));
        let (status, bytes) = tokio::time::timeout(TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| late())
            .map_err(|error: String| format!("the gateway at {}: {error}", self.url))?;
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::Object(Map::new()));
        match status {
            200..300 => Ok(json),
            404 if json["error"]["code"] == "route_not_found" => {
                Err(format!("the gateway at {} has no admin API: set [admin] key in its configuration", self.url))
            }
            _ => Err(json["error"]["message"].as_str().map_or_else(
                || format!("the gateway at {} answers {status}", self.url),
                |message| format!("{message} ({status})"),
            )),
        }
    }
}
