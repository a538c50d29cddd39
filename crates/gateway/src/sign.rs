//! Encode's result to the request that is sent: the URL joined, the contract checked, the secret put in.
//!
//! This is the only module that resolves a secret.

use std::borrow::Cow;

use aws_credential_types::Credentials;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use witgate_config::{AdapterRef, Provider, S3, Secret};
use witgate_model::{Auth, HttpRequest};

use crate::aws::{self, Scope};
use crate::failure::Failed;
use crate::path::component;
use crate::ports::{Fault, Ports, UpstreamRequest};

/// All but the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The signature of a callback, as Standard Webhooks has it: `v1,` and HMAC-SHA256 over id, time and body. `None` where
/// the secret is none of that standard's.
pub(crate) fn webhook(secret: &Secret, id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
    use base64::Engine;
    use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
    use hmac::{Hmac, KeyInit, Mac};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let key = LENIENT.decode(secret.expose().strip_prefix("whsec_")?).ok()?;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).ok()?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// Headers that are the gateway's own: those by which HTTP is framed, and those that hold secrets.
const OURS: [&str; 13] = [
    "host",
    "content-length",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "proxy-connection",
    AUTH[0],
    AUTH[1],
    AUTH[2],
    AUTH[3],
];

/// Those of them in which an adapter may have a secret put.
const AUTH: [&str; 4] = ["authorization", "proxy-authorization", "x-api-key", "api-key"];

/// The most that an adapter may hand to its own decoder, in bytes.
const MAX_CONTEXT: usize = 64 * 1024;

/// The most headers of one request.
const MAX_HEADERS: usize = 64;

/// The most fields that an adapter may say it dropped.
const MAX_DROPPED: usize = 64;

/// A request that only lacks a signature, if it needs one.
#[derive(Debug)]
pub(crate) struct Prepared {
    request: UpstreamRequest,
    aws: Option<Aws>,
}

/// A signature to make.
#[derive(Debug)]
struct Aws {
    scope: Scope,
    /// The provider's own; none where the runtime's are to be used.
    credentials: Option<Credentials>,
}

impl Prepared {
    /// Whether each sending needs a signature of its own.
    pub fn is_signed(&self) -> bool {
        self.aws.is_some()
    }

    /// The request to send, signed at `now`, time since 1970.
    pub async fn signed<P: Ports>(
        &self,
        ports: &P,
        provider: &Provider,
        now: std::time::Duration,
    ) -> Result<UpstreamRequest, Failed> {
        let mut request = self.request.clone();
        if let Some(aws) = &self.aws {
            let credentials = match &aws.credentials {
                Some(credentials) => Cow::Borrowed(credentials),
                // An adapter of anybody's would have its own endpoint shown what they sign, a session token too.
                None if !matches!(provider.adapter, AdapterRef::Builtin(_)) => {
                    let why = "the runtime's own are for adapters that come with witgate; write \
                               secrets.aws_access_key_id and secrets.aws_secret_access_key";
                    return Err(Failed::no_credentials(provider, why));
                }
                None => Cow::Owned(
                    ports.credentials(&provider.name).await.map_err(|why| Failed::no_credentials(provider, &why))?,
                ),
            };
            aws::sign(&mut request, &aws.scope, &credentials, now)
                .map_err(|why| Failed::no_credentials(provider, &format!("cannot sign: {why}")))?;
        }
        Ok(request)
    }

    /// The request, where it needs no signature.
    pub fn unsigned(self) -> UpstreamRequest {
        self.request
    }
}

/// Checks what the adapter made, joins it to `endpoint` and puts in the secret that it names. `region` is the one to sign
/// for, where it asks for a signature; `key` says which of several keys is used.
pub(crate) fn prepare(
    provider: &Provider,
    endpoint: &str,
    (region, key): (Option<&str>, usize),
    request: HttpRequest,
    traceparent: Option<String>,
) -> Result<Prepared, Fault> {
    let broke = |what: String| Fault { component: component(provider), what };
    if request.dropped.len() > MAX_DROPPED {
        return Err(broke(format!("dropped over {MAX_DROPPED} fields")));
    }
    if !matches!(request.method.as_str(), "GET" | "POST" | "PUT" | "DELETE" | "PATCH") {
        return Err(broke(format!("asked for the HTTP method {:?}", clip(&request.method))));
    }
    if request.context.as_ref().is_some_and(|context| context.len() > MAX_CONTEXT) {
        return Err(broke(format!("returned a context of over {MAX_CONTEXT} bytes")));
    }
    if request.headers.len() > MAX_HEADERS {
        return Err(broke(format!("returned over {MAX_HEADERS} headers")));
    }
    let mut headers = request.headers;
    for (name, value) in &headers {
        if !is_header_name(name) {
            return Err(broke(format!("returned the header name {:?}", clip(name))));
        }
        if OURS.contains(&name.as_str()) {
            return Err(broke(format!("returned the header {name}, which is the gateway's")));
        }
        if !is_header_value(value) {
            return Err(broke(format!("returned a value of header {name} that HTTP does not allow")));
        }
    }
    let mut url = String::with_capacity(endpoint.len() + 64);
    url.push_str(endpoint.trim_end_matches('/'));
    for segment in &request.path {
        if segment.is_empty() || segment == "." || segment == ".." {
            return Err(broke(format!("returned the path segment {segment:?}, which leaves its endpoint")));
        }
        url.push('/');
        url.extend(utf8_percent_encode(segment, SEGMENT));
    }
    for (at, (name, value)) in request.query.iter().enumerate() {
        url.push(if at == 0 { '?' } else { '&' });
        url.extend(utf8_percent_encode(name, SEGMENT));
        url.push('=');
        url.extend(utf8_percent_encode(value, SEGMENT));
    }
    let mut aws = None;
    match &request.auth {
        Auth::None => {}
        Auth::Header(header) => {
            if !is_header_name(&header.name) || !is_header_value(&header.prefix) {
                return Err(broke(format!("asked for the authentication header {:?}", clip(&header.name))));
            }
            let name = header.name.as_str();
            if OURS.contains(&name) && !AUTH.contains(&name) {
                return Err(broke(format!("asked for a secret in the header {name}, which is the gateway's")));
            }
            let one = provider.api_keys.get(key).filter(|_| header.slot == "api_key");
            if let Some(secret) = one.or_else(|| provider.secrets.get(&header.slot)) {
                headers.push((header.name.clone(), format!("{}{}", header.prefix, secret.expose())));
            }
        }
        Auth::AwsSigv4(auth) => {
            let name = |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
            let Some(region) = region.filter(|region| aws::is_region(region) && name(&auth.service)) else {
                return Err(broke("asked for an AWS signature without a valid service or region".into()));
            };
            let scope = Scope { service: auth.service.clone(), region: region.to_owned() };
            aws = Some(Aws { scope, credentials: own_credentials(provider, &auth.slot) });
        }
        Auth::Other(name) => {
            return Err(broke(format!("asked for the authentication {:?}, which is unknown", clip(name))));
        }
    }
    // The operator's own headers win over the adapter's.
    for (name, value) in &provider.headers {
        headers.retain(|(other, _)| other != name);
        headers.push((name.clone(), value.expose().to_owned()));
    }
    if let Some(traceparent) = traceparent {
        headers.push(("traceparent".to_owned(), traceparent));
    }
    let request = UpstreamRequest {
        provider: provider.name.clone(),
        method: request.method,
        url,
        headers,
        body: Bytes::from(request.body),
        connect_timeout: provider.timeouts.connect,
        public_only: false,
    };
    Ok(Prepared { request, aws })
}

/// The request for an object of a bucket, signed. Buckets stand in the path, which every service of this protocol takes.
pub(crate) async fn stored<P: Ports>(
    ports: &P,
    s3: &S3,
    key: &str,
    connect_timeout: std::time::Duration,
) -> Result<UpstreamRequest, String> {
    let mut url = format!("{}/{}", s3.endpoint, s3.bucket);
    for segment in s3.prefix.split('/').filter(|part| !part.is_empty()).chain(key.split('/')) {
        url.push('/');
        url.extend(utf8_percent_encode(segment, SEGMENT));
    }
    let mut request = UpstreamRequest {
        public_only: false,
        provider: crate::documents::BUCKET.to_owned(),
        method: "GET".to_owned(),
        url,
        headers: Vec::new(),
        body: Bytes::new(),
        connect_timeout,
    };
    let credentials = credentials(ports, &s3.credentials, crate::documents::BUCKET).await;
    let credentials = credentials.map_err(|why| format!("no credentials for the bucket: {why}"))?;
    let scope = Scope { service: "s3".to_owned(), region: s3.region.clone() };
    aws::sign(&mut request, &scope, &credentials, ports.unix_time()).map_err(|why| format!("cannot sign: {why}"))?;
    Ok(request)
}

/// Access key id, secret access key and, of temporary ones, the session token.
type Configured = Option<(Secret, Secret, Option<Secret>)>;

/// The configured AWS credentials, else those that the runtime has for what `name` says.
async fn credentials<P: Ports>(ports: &P, configured: &Configured, name: &str) -> Result<Credentials, String> {
    match configured {
        Some((id, secret, token)) => {
            let token = token.as_ref().map(|token| token.expose().to_owned());
            Ok(Credentials::new(id.expose(), secret.expose(), token, None, "witgate"))
        }
        None => ports.credentials(name).await,
    }
}

/// Signs a request to SQS at `now`, time since 1970. `name` is whose it is, for the runtime's own credentials.
pub(crate) async fn sqs<P: Ports>(
    ports: &P,
    sqs: &witgate_config::Sqs,
    name: &str,
    request: &mut UpstreamRequest,
    now: std::time::Duration,
) -> Result<(), String> {
    let credentials = credentials(ports, &sqs.credentials, name).await;
    let credentials = credentials.map_err(|why| format!("no credentials: {why}"))?;
    let scope = Scope { service: "sqs".to_owned(), region: sqs.region.clone() };
    aws::sign(request, &scope, &credentials, now).map_err(|why| format!("cannot sign: {why}"))
}

/// The AWS credentials among a provider's own secrets.
fn own_credentials(provider: &Provider, slot: &str) -> Option<Credentials> {
    let secret = |part: &str| provider.secrets.get(&format!("{slot}_{part}")).map(Secret::expose);
    let token = secret("session_token").map(str::to_owned);
    Some(Credentials::new(secret("access_key_id")?, secret("secret_access_key")?, token, None, "witgate"))
}

/// Takes a provider's secrets out of a failure: some backends repeat the key that they refuse.
pub(crate) fn redact(provider: &Provider, error: &mut witgate_model::Error) {
    let secrets = provider.secrets.values().chain(&provider.api_keys).chain(provider.headers.values());
    let secrets = secrets.map(Secret::expose);
    // A shorter one would rather be a part of a word.
    for secret in secrets.filter(|secret| secret.len() >= 6) {
        let texts = [Some(&mut error.message), error.code.as_mut(), error.param.as_mut(), error.raw.as_mut()];
        for text in texts.into_iter().flatten() {
            if text.contains(secret) {
                *text = text.replace(secret, "[redacted]");
            }
        }
    }
}

/// A name for a message, not longer than a line.
fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

/// A token in lower case (RFC 9110 section 5.6.2).
fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Visible characters, blanks and tabs: neither a line end nor a NUL.
fn is_header_value(value: &str) -> bool {
    value.len() <= 8 * 1024 && value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b) || b >= 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use witgate_model::{Framing, HeaderAuth};

    fn provider() -> Provider {
        let text = "[providers.p]\nadapter = \"openai\"\nendpoint = \"http://h/base/\"\napi_key = \"sk-secret\"\n\
                    [models.m]\ntarget = \"p/x\"\n";
        let config = witgate_config::Config::from_toml(text, "t.toml", &|_| None).unwrap();
        config.providers["p"].clone()
    }

    fn sign(p: &Provider, endpoint: &str, r: HttpRequest, trace: Option<String>) -> Result<UpstreamRequest, Fault> {
        prepare(p, endpoint, (None, 0), r, trace).map(Prepared::unsigned)
    }

    fn request(path: &[&str]) -> HttpRequest {
        HttpRequest {
            method: "POST".into(),
            path: path.iter().map(|segment| (*segment).into()).collect(),
            query: vec![],
            headers: vec![],
            body: vec![],
            auth: Auth::None,
            framing: Framing::Whole,
            context: None,
            dropped: Vec::new(),
        }
    }

    #[test]
    fn a_model_id_stays_inside_its_path_segment() {
        let made = request(&["model", "a/../b?c#d%2F:e", "converse"]);
        assert_eq!(
            sign(&provider(), "http://h/base/", made, None).unwrap().url,
            "http://h/base/model/a%2F..%2Fb%3Fc%23d%252F%3Ae/converse"
        );
    }

    #[test]
    fn a_path_that_leaves_its_endpoint_is_a_fault() {
        for segment in ["", ".", ".."] {
            let fault = sign(&provider(), "http://h", request(&["v1", segment]), None).unwrap_err();
            assert!(fault.to_string().starts_with("adapter \"openai\" returned the path segment"), "{fault}");
        }
    }

    #[test]
    fn a_header_that_smuggles_a_line_is_a_fault() {
        for (name, value) in [("x-a", "b\r\nx-c: d"), ("x-a\r\n", "b"), ("authorization", "Bearer x"), ("host", "evil")]
        {
            let mut request = request(&["v1"]);
            request.headers.push((name.into(), value.into()));
            assert!(sign(&provider(), "http://h", request, None).is_err(), "{name}: {value:?}");
        }
    }

    #[test]
    fn invariant_3_a_secret_is_resolved_only_in_sign() {
        let mut request = request(&["v1"]);
        let auth = HeaderAuth { name: "authorization".into(), prefix: "Bearer ".into(), slot: "api_key".into() };
        request.auth = Auth::Header(auth);
        let signed = sign(&provider(), "http://h", request.clone(), None).unwrap();
        assert_eq!(signed.headers, [("authorization".to_owned(), "Bearer sk-secret".to_owned())]);
        // What is printed of a request, a provider or a configuration never shows it.
        assert!(!format!("{signed:?}").contains("sk-secret"));
        assert!(!format!("{:?}", provider()).contains("sk-secret"));
        // A slot that is not the provider's own resolves to nothing.
        let Auth::Header(auth) = &mut request.auth else { unreachable!() };
        auth.slot = "other".into();
        assert!(sign(&provider(), "http://h", request, None).unwrap().headers.is_empty());
    }

    #[test]
    fn a_secret_is_put_in_no_header_by_which_http_is_framed() {
        let with = |name: &str| {
            let mut request = request(&["v1"]);
            let auth = HeaderAuth { name: name.into(), prefix: String::new(), slot: "api_key".into() };
            request.auth = Auth::Header(auth);
            sign(&provider(), "http://h", request, None)
        };
        for name in OURS.into_iter().filter(|name| !AUTH.contains(name)) {
            let fault = with(name).unwrap_err().to_string();
            assert!(
                fault.ends_with(&format!("asked for a secret in the header {name}, which is the gateway's")),
                "{fault}"
            );
        }
        for name in AUTH.into_iter().chain(["x-acme-key"]) {
            assert_eq!(with(name).unwrap().headers, [(name.to_owned(), "sk-secret".to_owned())]);
        }
    }

    #[test]
    fn invariant_3_a_key_that_a_backend_repeats_is_taken_out_of_the_error() {
        let mut error =
            witgate_model::Error::invalid("p", "Incorrect API key provided: sk-secret.").with_code("sk-secret");
        error.raw = Some(r#"{"message":"sk-secret"}"#.into());
        redact(&provider(), &mut error);
        assert_eq!(error.message, "Incorrect API key provided: [redacted].");
        assert!(!format!("{error:?}").contains("sk-secret"));
    }

    #[test]
    fn the_one_place_that_exposes_a_secret_is_this_module() {
        let (mut files, mut open) =
            (Vec::new(), vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))]);
        while let Some(folder) = open.pop() {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let (folders, found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
            open.extend(folders);
            files.extend(found);
        }
        let exposing: Vec<_> = files
            .iter()
            .filter(|path| std::fs::read_to_string(path).unwrap().contains(".expose()"))
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(exposing, ["sign.rs"]);
    }
}
