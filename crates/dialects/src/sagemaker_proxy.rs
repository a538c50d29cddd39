//! The SageMaker proxy, as a facade of OpenAI's two completion APIs: the setting `facade = "sagemaker-proxy"` of the dialects
//! `openai-chat` and `openai-completions` chooses it, and so does an environment with `SAGEMAKER_ENDPOINT_NAME`.
//!
//! - What the proxy always sent stands where the client says nothing: 100 tokens, temperature 0.7.
//! - A request that names no model, where the configuration names none either, is a failure of the set-up, not of the
//!   client: 500. So is any request where the endpoint's name is set and empty.
//! - Errors are `{"error":{"message","type"}}`: `invalid_request_error` for what is wrong with the request, `model_error`
//!   and 502 for a failure of the model, else `server_error`, with the native status or, with the setting
//!   `legacy_status`, with 500.

use witgate_model::normaliser::{Failure, Parsed, Rendered};
use witgate_model::{Error, ErrorKind};

use crate::openai::json_answer;
use crate::{settings, write};

/// The code of what SageMaker calls a failure of the model.
const MODEL_ERROR: &str = "ModelError";

/// Whether the settings choose this facade.
pub(crate) fn is_chosen(settings: &str) -> bool {
    settings::text(settings, "facade").as_deref() == Some("sagemaker-proxy")
}

/// Fills in what the proxy always sent.
pub(crate) fn complete(settings: &str, mut parsed: Parsed) -> Result<Parsed, Error> {
    let endpoint = settings::text(settings, "model");
    if endpoint.as_deref() == Some("") || (endpoint.is_none() && parsed.request.model.is_empty()) {
        let kind = ErrorKind::Other("configuration".to_owned());
        return Err(Error::new(kind, "SAGEMAKER_ENDPOINT_NAME not configured").with_status(500));
    }
    let sampling = &mut parsed.request.sampling;
    if sampling.max_completion_tokens.is_none() {
        sampling.max_tokens.get_or_insert(100);
    }
    sampling.temperature.get_or_insert(0.7);
    Ok(parsed)
}

/// An answer that failed before it began.
pub(crate) fn refuse(settings: &str, failure: &Failure) -> Rendered {
    let error = &failure.error;
    let native = crate::status(error);
    let legacy = settings::flag(settings, "legacy_status");
    let (status, message, kind) = if error.code.as_deref() == Some(MODEL_ERROR) {
        (502, format!("Model error: {}", error.message), "model_error")
    } else if matches!(&error.kind, ErrorKind::Other(kind) if kind == "configuration") && failure.provider.is_none() {
        (500, error.message.clone(), "server_error")
    } else if native < 500 && (failure.provider.is_none() || !legacy) {
        let kind = if native == 400 { "invalid_request_error" } else { &failure.error_type };
        let message = match error.message.strip_prefix("invalid JSON") {
            Some(rest) => format!("Invalid JSON{rest}"),
            None => error.message.clone(),
        };
        (native, message, kind)
    } else {
        (if legacy { 500 } else { native }, format!("Internal error: {}", error.message), "server_error")
    };
    let mut out = b"{\"error\":{\"message\":".to_vec();
    write::string(&mut out, &message);
    out.extend_from_slice(b",\"type\":");
    write::string(&mut out, kind);
    out.extend_from_slice(b"}}");
    json_answer(status, out)
}
