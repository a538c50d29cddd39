//! The backends of the matrix: each adapter, and each API that it speaks.

use witgate_adapters::bedrock::Bedrock;
use witgate_adapters::sagemaker::SageMaker;
use witgate_adapters::{Anthropic, LlamaCpp, Ollama, OpenAi, Stub};
use witgate_model::{Adapter, Decoder, Description, Error, HttpRequest, Request, ResponseHead};

/// An adapter's functions.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// What it is.
    pub describe: fn() -> Description,
    /// What it sends.
    pub encode: fn(&str, Request) -> Result<HttpRequest, Error>,
    /// What reads its answers.
    pub decoder: fn(&str, Option<String>, ResponseHead) -> Box<dyn Decoder>,
}

impl Api {
    const fn of<A: Adapter<Decoder: 'static>>() -> Self {
        Api {
            describe: A::describe,
            encode: A::encode,
            decoder: |settings, context, head| Box::new(A::decoder(settings, context, head)),
        }
    }
}

/// One column of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    /// The adapter, and which of its APIs.
    pub name: &'static str,
    /// The adapter's functions.
    pub api: Api,
    /// The provider's settings: members of a JSON object.
    pub settings: &'static str,
    /// The model that stands for those that are reached so.
    pub model: &'static str,
    /// Takes part in embeddings only.
    pub embeds_only: bool,
}

impl Backend {
    const fn new(name: &'static str, api: Api, settings: &'static str, model: &'static str) -> Self {
        Backend { name, api, settings, model, embeds_only: false }
    }

    const fn embedder(name: &'static str, api: Api, model: &'static str) -> Self {
        Backend { name, api, settings: "", model, embeds_only: true }
    }

    /// The settings as JSON; with `drop_unsupported` or without.
    pub fn settings(&self, drop: bool) -> String {
        let more = if drop { r#""drop_unsupported":true"# } else { "" };
        let comma = if drop && !self.settings.is_empty() { "," } else { "" };
        format!("{{{}{comma}{more}}}", self.settings)
    }

    /// What is sent for `request`.
    ///
    /// # Errors
    /// The refusal.
    pub fn encode(&self, request: &Request, drop: bool) -> Result<HttpRequest, Error> {
        let mut request = request.clone();
        if request.input != witgate_model::Input::Models {
            request.model = self.model.to_owned();
        }
        (self.api.encode)(&self.settings(drop), request)
    }
}

const BEDROCK: Api = Api::of::<Bedrock>();
const SAGEMAKER: Api = Api::of::<SageMaker>();

/// All columns.
pub const BACKENDS: &[Backend] = &[
    Backend::new("openai chat", Api::of::<OpenAi>(), "", "gpt-4o-mini"),
    Backend::new("openai responses", Api::of::<OpenAi>(), r#""api":"responses""#, "gpt-5-mini"),
    Backend::new("anthropic", Api::of::<Anthropic>(), "", "claude-sonnet-4-5"),
    Backend::new("bedrock converse, Claude", BEDROCK, "", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    Backend::new("bedrock converse, Nova", BEDROCK, "", "us.amazon.nova-lite-v1:0"),
    Backend::new(
        "bedrock invoke, Claude",
        BEDROCK,
        r#""api":"invoke""#,
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    Backend::new("bedrock invoke, Llama", BEDROCK, r#""api":"invoke""#, "us.meta.llama3-3-70b-instruct-v1:0"),
    Backend::new("bedrock openai", BEDROCK, r#""api":"openai""#, "openai.gpt-oss-120b-1:0"),
    Backend::embedder("bedrock Titan", BEDROCK, "amazon.titan-embed-text-v2:0"),
    Backend::embedder("bedrock Cohere", BEDROCK, "cohere.embed-v4:0"),
    Backend::new("sagemaker vllm", SAGEMAKER, "", "my-endpoint"),
    Backend::new("sagemaker tgi", SAGEMAKER, r#""codec":"tgi","prompt_format":"llama3""#, "my-endpoint"),
    Backend::new("sagemaker base", SAGEMAKER, r#""codec":"base","prompt_format":"plain-dialogue""#, "my-endpoint"),
    Backend::new("ollama", Api::of::<Ollama>(), "", "llama3.2"),
    Backend::new("llama-cpp", Api::of::<LlamaCpp>(), "", "tiny"),
    Backend::new("stub", Api::of::<Stub>(), "", "stub"),
];

/// The functions of the adapter of that id.
pub fn api(id: &str) -> Api {
    let of = |backend: &&Backend| (backend.api.describe)().id == id;
    BACKENDS.iter().find(of).unwrap_or_else(|| panic!("there is no adapter {id}")).api
}
