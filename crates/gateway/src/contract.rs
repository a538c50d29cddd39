//! The gateway's own checks of what adapters encode and policies decide, for whoever checks such components.

use witgate_config::{AdapterRef, Provider};
use witgate_model::HttpRequest;
use witgate_model::policy::Decision;

use crate::ports::Fault;
use crate::{policies, sign};

/// Checks a request as the path does before it signs it: method, path segments, headers, authentication, bounds.
///
/// # Errors
/// What a client would be told with a 502.
pub fn check_request(adapter: &str, request: HttpRequest) -> Result<(), Fault> {
    let provider = Provider::new("conformance", AdapterRef::Path(adapter.to_owned()));
    sign::prepare(&provider, "http://backend.invalid", (Some("us-east-1"), 0), request, None).map(drop)
}

/// Checks a decision as the path does: tags, route, note.
///
/// # Errors
/// What the operator would be told.
pub fn check_decision(policy: &str, decision: &Decision) -> Result<(), Fault> {
    policies::check(policy, decision)
}
