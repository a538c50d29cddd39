//! The AWS credentials that the host itself has: AWS's standard chain (environment, profile, SSO token cache, web
//! identity, the metadata of ECS and EC2), asked once for all requests and again before what it gave expires.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_http_client::tls;
use tokio::sync::OnceCell;

/// Credentials that live for less are asked for anew; until then the old ones serve.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// Credentials that live for less are not used any more: a request takes some time to arrive.
const LATE: Duration = Duration::from_secs(10);
/// How long the chain may take. Each of its members has limits of its own.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a failure counts, so that not each request asks a metadata service that is not there.
const FAILED_FOR: Duration = Duration::from_secs(5);

/// The chain and what it last gave.
#[derive(Default)]
pub(crate) struct AwsCredentials {
    chain: OnceCell<DefaultCredentialsChain>,
    last: Mutex<Option<Last>>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
enum Last {
    Given(Credentials),
    Failed(Instant, String),
}

impl AwsCredentials {
    /// Credentials that are valid now. The error says for people why there are none.
    pub async fn get(&self) -> Result<Credentials, String> {
        let usable = match self.known(EARLY) {
            Known::Good(credentials) => return Ok(credentials),
            Known::Failed(why) => return Err(why),
            Known::Nothing => None,
            Known::Old(credentials) => Some(credentials),
        };
        let _asking = match (self.asking.try_lock(), usable) {
            (Ok(asking), _) => asking,
            // Somebody asks already, and what we have is still good.
            (Err(_), Some(credentials)) => return Ok(credentials),
            (Err(_), None) => {
                let asking = self.asking.lock().await;
                match self.known(EARLY) {
                    Known::Good(credentials) | Known::Old(credentials) => return Ok(credentials),
                    Known::Failed(why) => return Err(why),
                    Known::Nothing => asking,
                }
            }
        };
        let given = match tokio::time::timeout(PATIENCE, self.ask()).await {
            Ok(given) => given,
            Err(_) => Err(format!("AWS's credential chain took longer than {} s", PATIENCE.as_secs())),
        };
        match (given, self.known(LATE)) {
            (Ok(credentials), _) => {
                self.keep(Last::Given(credentials.clone()));
                Ok(credentials)
            }
            (Err(why), Known::Good(credentials)) => {
                tracing::warn!(target: "witgate", "AWS credentials cannot be refreshed, the old ones serve: {why}");
                Ok(credentials)
            }
            (Err(why), _) => {
                self.keep(Last::Failed(Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    fn keep(&self, last: Last) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    /// What was last given, judged by how long it is to live at least.
    fn known(&self, least: Duration) -> Known {
        match &*self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Known::Nothing,
            Some(Last::Failed(at, why)) if at.elapsed() < FAILED_FOR => Known::Failed(why.clone()),
            Some(Last::Failed(..)) => Known::Nothing,
            Some(Last::Given(credentials)) => {
                let left = credentials
                    .expiry()
                    .map_or(Duration::MAX, |end| end.duration_since(SystemTime::now()).unwrap_or_default());
                if left >= least {
                    Known::Good(credentials.clone())
                } else if left >= LATE {
                    Known::Old(credentials.clone())
                } else {
                    Known::Nothing
                }
            }
        }
    }

    async fn ask(&self) -> Result<Credentials, String> {
        let chain = self
            .chain
            .get_or_init(|| async {
                let http = aws_smithy_http_client::Builder::new()
                    .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
                    .build_https();
                let config = ProviderConfig::default().with_http_client(http);
                DefaultCredentialsChain::builder().configure(config).build().await
            })
            .await;
        chain.provide_credentials().await.map_err(|error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(source) = cause {
                text.push_str(": ");
                text.push_str(&source.to_string());
                cause = source.source();
            }
            text
        })
    }
}

enum Known {
    /// Lives long enough.
    Good(Credentials),
    /// Lives, but not long.
    Old(Credentials),
    /// The chain failed just now.
    Failed(String),
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(lives: Duration) -> AwsCredentials {
        let credentials = Credentials::new("AKID", "secret", None, Some(SystemTime::now() + lives), "test");
        let all = AwsCredentials::default();
        all.keep(Last::Given(credentials));
        all
    }

    #[test]
    fn credentials_are_asked_for_anew_before_they_expire_and_never_used_when_they_are_about_to() {
        assert!(matches!(given(Duration::from_secs(3600)).known(EARLY), Known::Good(_)));
        assert!(matches!(given(Duration::from_secs(60)).known(EARLY), Known::Old(_)));
        assert!(matches!(given(Duration::from_secs(60)).known(LATE), Known::Good(_)));
        assert!(matches!(given(Duration::from_secs(3)).known(EARLY), Known::Nothing));
        assert!(matches!(given(Duration::ZERO).known(LATE), Known::Nothing));
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_a_refresh_while_the_old_credentials_live() {
        let all = given(Duration::from_secs(60));
        let _asking = all.asking.lock().await;
        assert_eq!(all.get().await.map(|credentials| credentials.access_key_id().to_owned()), Ok("AKID".to_owned()));
    }

    #[tokio::test]
    async fn a_failure_counts_for_a_while() {
        let all = AwsCredentials::default();
        all.keep(Last::Failed(Instant::now(), "no chain".to_owned()));
        assert_eq!(all.get().await.map(drop), Err("no chain".to_owned()));
    }
}
