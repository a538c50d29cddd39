//! The gateway's own check of what an adapter encodes, for whoever checks adapters.

use witgate_config::{AdapterRef, Provider};
use witgate_model::HttpRequest;

use crate::ports::Fault;
use crate::sign;

/// Checks a request as the path does before it signs it: method, path segments, headers, authentication, bounds.
///
/// # Errors
/// What a client would be told with a 502.
pub fn check_request(adapter: &str, request: HttpRequest) -> Result<(), Fault> {
    let provider = Provider::new("conformance", AdapterRef::Path(adapter.to_owned()));
    sign::prepare(&provider, "http://backend.invalid", Some("us-east-1"), request, None).map(drop)
}
