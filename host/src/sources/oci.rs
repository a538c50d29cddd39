//! Components in OCI registries, as wkg and Spin push them: an image manifest whose configuration is of the type
//! `application/vnd.wasm.config.v0+json`, and whose one layer is the component.
//!
//! Three documents are read: the manifest, the token that the registry asks for where it does, and the layer. Other
//! clients were weighed: `wasm-pkg-client` brings aws-lc and 221 crates; `oci-wasm` and the `oci-client` beneath it bring
//! reqwest and some twenty crates beside it, read manifests and tokens without a bound, and follow a redirect, or a token
//! service, out of TLS. What is taken of others are the formats that have traps: `http-auth` reads challenges,
//! `docker_credential` docker's configuration.

use std::time::Duration;

use base64::Engine as _;
use http::header::WWW_AUTHENTICATE;
use serde::Deserialize;
use url::Url;
use witgate_config::{Digest, Reference, Secret, is_loopback};

use super::MAX_COMPONENT;
use super::fetch::{Answer, Fetcher};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
/// Largest manifest, as registries bound it too, in bytes.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Largest answer of a token service, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;
/// What docker's credential helpers say of a registry for which they have nothing.
const NONE: &str = "credentials not found";
/// The longest time that docker's credential helper may take.
const HELPER: Duration = Duration::from_secs(30);

/// What a manifest says of its component.
pub(crate) struct Layer {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// There in an index of several.
    #[serde(default)]
    manifests: Vec<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    size: u64,
}

/// The component that a manifest names. The error ends a sentence about the artifact.
pub(crate) fn layer(manifest: &[u8]) -> Result<Layer, String> {
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| format!("has a manifest that is none: {error}"))?;
    if !manifest.manifests.is_empty() {
        return Err("is an index of several artifacts; name one of them by its digest".to_owned());
    }
    if manifest.config.media_type != CONFIG {
        let is: String = manifest.config.media_type.chars().take(100).collect();
        return Err(format!(
            "is no WebAssembly component: its configuration is {is:?}, not {CONFIG}; push it with wkg"
        ));
    }
    let [layer] = manifest.layers.as_slice() else {
        return Err(format!("has {} layers; a component is one", manifest.layers.len()));
    };
    if layer.media_type != LAYER {
        let is: String = layer.media_type.chars().take(100).collect();
        return Err(format!("has a layer of the type {is:?}, not {LAYER}"));
    }
    if layer.size > MAX_COMPONENT {
        return Err(format!("has {} bytes; at most {MAX_COMPONENT} are allowed", layer.size));
    }
    let digest = layer.digest.parse().map_err(|_| "names its layer by no SHA-256".to_owned())?;
    Ok(Layer { digest, size: layer.size })
}

/// A registry, asked for one repository.
pub(crate) struct Registry<'a> {
    fetcher: &'a Fetcher,
    reference: &'a Reference,
    base: String,
    authorization: Option<Secret>,
}

impl<'a> Registry<'a> {
    /// This machine's registries are asked without TLS, as docker does, and others where they are `insecure`.
    pub fn new(fetcher: &'a Fetcher, reference: &'a Reference, insecure: bool) -> Self {
        let host = match reference.registry.as_str() {
            // The one registry that is not where it is said to be.
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let scheme = if insecure || is_loopback(host) { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}", reference.repository);
        Registry { fetcher, reference, base, authorization: None }
    }

    /// The manifest, and its digest: of the reference's digest where it has one, else of its tag.
    pub async fn manifest(&mut self) -> Result<(Digest, Vec<u8>), String> {
        let Reference { tag, digest, .. } = self.reference;
        let name = digest.as_ref().map(Digest::as_str).or(tag.as_deref()).unwrap_or_default();
        let bytes = self.get(&format!("{}/manifests/{name}", self.base), Some(MANIFEST), MAX_MANIFEST).await?;
        let is = Digest::of(&bytes);
        match digest {
            Some(wanted) if *wanted != is => Err(format!("the registry's manifest has the digest {is}, not {wanted}")),
            _ => Ok((is, bytes)),
        }
    }

    /// The component.
    pub async fn blob(&mut self, layer: &Layer) -> Result<Vec<u8>, String> {
        let bytes = self.get(&format!("{}/blobs/{}", self.base, layer.digest), None, layer.size).await?;
        let is = Digest::of(&bytes);
        if is != layer.digest {
            return Err(format!("the registry's layer has the digest {is}, not {}", layer.digest));
        }
        Ok(bytes)
    }

    async fn get(&mut self, url: &str, accept: Option<&str>, limit: u64) -> Result<Vec<u8>, String> {
        let mut answer = self.fetcher.get(url, accept, self.authorization.as_ref(), limit).await?;
        if answer.status == 401 && self.authorization.is_none() {
            self.authorization = Some(self.authorize(&answer).await?);
            answer = self.fetcher.get(url, accept, self.authorization.as_ref(), limit).await?;
        }
        match answer.status {
            200 => Ok(answer.body),
            401 | 403 => Err(format!(
                "the registry does not let us read it ({}); log in with `docker login {}`{}",
                answer.status,
                self.reference.registry,
                reason(&answer)
            )),
            404 => Err(format!("the registry has no such artifact{}", reason(&answer))),
            status => Err(format!("the registry answers with {status}{}", reason(&answer))),
        }
    }

    /// What the registry asks for.
    async fn authorize(&self, answer: &Answer) -> Result<Secret, String> {
        let credentials = self.credentials().await?;
        let challenges = answer.headers.get_all(WWW_AUTHENTICATE);
        for challenge in challenges.iter().filter_map(|value| value.to_str().ok()) {
            let Ok(challenges) = http_auth::parse_challenges(challenge) else { continue };
            for challenge in challenges {
                let parameter = |wanted: &str| {
                    let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    return credentials.ok_or_else(|| self.no_credentials());
                }
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let realm = parameter("realm").ok_or("the registry names no token service")?;
                    return self.token(&realm, parameter("service"), credentials.as_ref()).await;
                }
            }
        }
        Err("the registry asks for a kind of authentication that is not known".to_owned())
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        credentials: Option<&Secret>,
    ) -> Result<Secret, String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut url = Url::parse(realm).map_err(|error| format!("the registry's token service is no URL: {error}"))?;
        // Whoever asked over TLS does not send a password without.
        if self.base.starts_with("https:") && url.scheme() != "https" {
            return Err("the registry's token service is not encrypted".to_owned());
        }
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let scope = format!("repository:{}:pull", self.reference.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        let answer = self.fetcher.get(url.as_str(), None, credentials, MAX_TOKEN).await?;
        match answer.status {
            200 => {}
            401 | 403 if credentials.is_none() => return Err(self.no_credentials()),
            status => return Err(format!("the registry's token service answers with {status}")),
        }
        let token: Token = serde_json::from_slice(&answer.body)
            .map_err(|_| "the registry's token service answers with no token".to_owned())?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or("the registry's token service answers with no token")?;
        Ok(Secret::new(format!("Bearer {token}")))
    }

    fn no_credentials(&self) -> String {
        let registry = &self.reference.registry;
        format!("the registry wants credentials, and docker's configuration has none; `docker login {registry}` once")
    }

    /// The user's, of `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, or of the helper named there, as a whole
    /// `Authorization`.
    async fn credentials(&self) -> Result<Option<Secret>, String> {
        use docker_credential::{CredentialRetrievalError as No, DockerCredential};
        let server = match self.reference.registry.as_str() {
            "docker.io" => "https://index.docker.io/v1/".to_owned(),
            registry => registry.to_owned(),
        };
        let asked = tokio::task::spawn_blocking(move || docker_credential::get_credential(&server));
        let found = match tokio::time::timeout(HELPER, asked).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => return Err("docker's credentials cannot be read: their configuration is broken".to_owned()),
            Err(_) => return Err(format!("docker's credential helper took longer than {} s", HELPER.as_secs())),
        };
        match found {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                Ok(Some(Secret::new(format!("Basic {both}"))))
            }
            Ok(DockerCredential::IdentityToken(_)) => {
                Err("docker's credentials are an identity token, which witgate cannot use; log in with a password or \
                     an access token"
                    .to_owned())
            }
            Err(No::ConfigNotFound | No::ConfigReadError | No::NoCredentialConfigured) => Ok(None),
            // It ends as one that failed, and says that it has none: what is public is read without.
            Err(No::HelperFailure { stdout, stderr, .. })
                if [&stdout, &stderr].iter().any(|said| said.contains(NONE)) =>
            {
                Ok(None)
            }
            // Whatever a helper wrote may hold the secret.
            Err(No::HelperFailure { helper, .. }) => Err(format!("docker's credential helper {helper} failed")),
            Err(No::HelperCommunicationError | No::MalformedHelperResponse) => {
                Err("docker's credential helper cannot be run, or answers what it should not".to_owned())
            }
            Err(No::CredentialDecodingError | No::CredentialMismatchError) => {
                Err("docker's configuration has credentials that cannot be read".to_owned())
            }
        }
    }
}

/// What the registry says, where it says something.
fn reason(answer: &Answer) -> String {
    let said = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
    let message = said.as_ref().and_then(|said| said.pointer("/errors/0/message")?.as_str());
    message.map_or_else(String::new, |text| {
        format!(": {}", text.chars().filter(|c| !c.is_control()).take(200).collect::<String>())
    })
}
