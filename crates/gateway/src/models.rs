//! What models there are, in the shapes in which clients ask: OpenAI's, Anthropic's, Ollama's.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use witgate_config::Provider;
use witgate_model::{ErrorKind, Event, Input};

use crate::gateway::Gateway;
use crate::path::{self, Call, Flight, Reply};
use crate::ports::{Adapter, Ports};

/// How long the backends' lists of models count.
const LISTED_FOR: Duration = Duration::from_secs(60);
/// How long a backend may take to list its models.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The most models of one backend that are listed.
const MOST_MODELS: usize = 2_000;
/// The release of Ollama whose API `/api/…` has: clients ask before they use what came later.
const OLLAMA_VERSION: &str = "0.12.6";

/// A model that clients may ask for.
#[derive(Clone)]
pub(crate) struct ModelEntry {
    pub id: String,
    pub provider: String,
    /// Seconds since 1970-01-01 UTC; 0 where nobody says.
    pub created: u64,
    pub owned_by: String,
}

/// The backends' own models, and when they were last asked.
pub(crate) type Listed = Option<(Duration, Arc<Vec<ModelEntry>>)>;

/// In whose shape a list of models is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    OpenAi,
    Anthropic,
    Ollama,
}

impl ModelEntry {
    /// RFC 3339.
    fn created(&self) -> String {
        let at = i64::try_from(self.created).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
    }

    /// With its provider beside what the shape has.
    pub fn json(&self, shape: Shape) -> Value {
        match shape {
            Shape::OpenAi => json!({
                "id": self.id, "object": "model", "created": self.created, "owned_by": self.owned_by,
                "provider": self.provider,
            }),
            Shape::Anthropic => json!({
                "type": "model", "id": self.id, "display_name": self.id, "created_at": self.created(),
                "provider": self.provider,
            }),
            Shape::Ollama => json!({
                "name": self.id, "model": self.id, "modified_at": self.created(), "size": 0, "digest": "",
                "details": details(), "provider": self.provider,
            }),
        }
    }

    /// Ollama's answer to `/api/show`: what a client may count on. What only a model's file tells is empty.
    pub fn shown(&self) -> Value {
        json!({
            "modelfile": "", "parameters": "", "template": "", "details": details(), "model_info": {},
            "capabilities": ["completion"], "modified_at": self.created(), "provider": self.provider,
        })
    }
}

fn details() -> Value {
    json!({
        "parent_model": "", "format": "", "family": "", "families": [], "parameter_size": "",
        "quantization_level": "",
    })
}

/// A list of models.
pub(crate) fn list(models: &[ModelEntry], shape: Shape) -> Value {
    let entries: Vec<_> = models.iter().map(|model| model.json(shape)).collect();
    let id = |model: Option<&ModelEntry>| model.map(|model| model.id.clone());
    match shape {
        Shape::OpenAi => json!({"object": "list", "data": entries}),
        Shape::Anthropic => json!({
            "data": entries, "has_more": false, "first_id": id(models.first()), "last_id": id(models.last()),
        }),
        Shape::Ollama => json!({"models": entries}),
    }
}

/// Ollama's answer to `/api/version`.
pub(crate) fn version() -> Value {
    json!({"version": OLLAMA_VERSION, "witgate": env!("CARGO_PKG_VERSION")})
}

impl Gateway {
    /// What `/v1/models` lists: the aliases, each with the provider of its first target; then, as `provider/model`, what
    /// each backend says that it has.
    pub(crate) async fn models<P: Ports>(&self, flight: &Flight<P>) -> Arc<Vec<ModelEntry>> {
        let known = self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, models)) = known
            && flight.ports.now().saturating_sub(at) < LISTED_FOR
        {
            return models;
        }
        let named = self.config.models.iter().filter(|(alias, _)| *alias != "*");
        let mut models: Vec<_> = named
            .filter_map(|(alias, model)| {
                let provider = model.targets.first()?.provider.clone();
                Some(ModelEntry { id: alias.clone(), owned_by: provider.clone(), provider, created: 0 })
            })
            .collect();
        let lists =
            join_all(self.config.providers.values().map(|provider| self.backend_models(flight, provider))).await;
        let complete = lists.iter().all(Option::is_some);
        for model in lists.into_iter().flatten().flatten() {
            if models.iter().all(|known| known.id != model.id) {
                models.push(model);
            }
        }
        if models.is_empty()
            && let Some(all) = self.config.models.get("*")
        {
            // Any name does; one that says who answers is as good as another.
            models.extend(all.targets.iter().map(|target| ModelEntry {
                id: target.model.clone().unwrap_or_else(|| target.provider.clone()),
                provider: target.provider.clone(),
                created: 0,
                owned_by: target.provider.clone(),
            }));
        }
        let models = Arc::new(models);
        // One that did not answer is asked again next time.
        if complete {
            *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some((flight.ports.now(), models.clone()));
        }
        models
    }

    /// The models that a backend lists: none where it cannot, or where its adapter or itself says that it lists none;
    /// `None` where it did not answer, which is no error to a
    /// client, since other backends did.
    async fn backend_models<P: Ports>(&self, flight: &Flight<P>, provider: &Provider) -> Option<Vec<ModelEntry>> {
        let ports = flight.ports.as_ref();
        let lists =
            |adapter: P::Adapter| adapter.description().operations.iter().any(|operation| operation == "models");
        if !ports.adapter(&provider.name).is_ok_and(lists) {
            return Some(Vec::new());
        }
        let request = witgate_model::Request::new("", "", Input::Models);
        let settings = self.own_settings(provider);
        let endpoint = self.pool(provider, settings.0).map_or(0, |pool| pool.peek(ports.now()));
        let key = self.provider_keys(provider).map_or(0, |keys| keys.peek(ports.now()));
        let request_id = &flight.record.request_id;
        let call = Call { gateway: self, ports, provider, settings, endpoint, key, request_id };
        let ask = async {
            let mut dropped = Vec::new();
            let reply = Reply::open(call, (&Arc::new(request), None, ports.now()), &mut dropped).await?;
            reply.all(&Input::Models).await
        };
        let events = match path::before(ports, ports.now() + LIST_TIMEOUT, ask).await? {
            Ok(events) => events,
            Err(failed) if matches!(failed.error.kind, ErrorKind::Unsupported | ErrorKind::NotFound) => Vec::new(),
            Err(_) => return None,
        };
        let models = events.into_iter().filter_map(|event| match event {
            Event::Model(model) => Some(ModelEntry {
                id: format!("{}/{}", provider.name, model.id),
                created: model.created.unwrap_or(0),
                owned_by: model.owned_by.unwrap_or_else(|| provider.name.clone()),
                provider: provider.name.clone(),
            }),
            _ => None,
        });
        Some(models.take(MOST_MODELS).collect())
    }
}
