//! AWS: regions, signatures of Version 4, and clocks that differ.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign as sigv4,
};
use aws_sigv4::sign::v4;
use witgate_model::Field;

use crate::http;
use crate::ports::UpstreamRequest;

/// How far AWS lets a client's clock be off.
const TOLERANCE: Duration = Duration::from_secs(4 * 60);

/// What a request is signed for.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The signing name, as `bedrock`.
    pub service: String,
    /// As `us-east-1`.
    pub region: String,
}

/// Whether a text may be a region. It becomes a part of a host's name.
pub(crate) fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The domain of a region's services.
pub(crate) fn dns_suffix(region: &str) -> &'static str {
    const PARTITIONS: [(&str, &str); 6] = [
        ("cn-", "amazonaws.com.cn"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("eusc-", "amazonaws.eu"),
    ];
    PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("amazonaws.com", |(_, suffix)| suffix)
}

/// S3 wants the body's hash in a header, and the path as it is: it is not encoded twice, and `a//b` is not `a/b`.
fn settings(service: &str) -> SigningSettings {
    let mut settings = SigningSettings::default();
    if service == "s3" {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    settings
}

/// Signs the final bytes at `now`, time since 1970. Only `host`, `content-type` and `x-amz-*` are signed: what stands
/// between us and AWS may add or change others.
pub(crate) fn sign(
    request: &mut UpstreamRequest,
    scope: &Scope,
    credentials: &Credentials,
    now: Duration,
) -> Result<(), String> {
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&scope.region)
        .name(&scope.service)
        .time(SystemTime::UNIX_EPOCH + now)
        .settings(settings(&scope.service))
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let signed = |name: &str| name == "content-type" || name.starts_with("x-amz-");
    let headers = request.headers.iter().filter(|(name, _)| signed(name));
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
    let body = SignableBody::Bytes(&request.body);
    let signable = SignableRequest::new(&request.method, request.url.as_str(), headers, body);
    let (instructions, _) = signable
        .and_then(|signable| sigv4(signable, &params))
        .map_err(|error| std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))?
        .into_parts();
    let (headers, _) = instructions.into_parts();
    request.headers.extend(headers.iter().map(|header| (header.name().to_owned(), header.value().to_owned())));
    Ok(())
}

/// How far each provider's clock is ahead of ours, as its answers told.
#[derive(Default)]
pub(crate) struct Clocks(Mutex<BTreeMap<String, i64>>);

impl Clocks {
    /// The time to sign with for `provider`, where ours is `now`.
    pub fn time(&self, provider: &str, now: Duration) -> Duration {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).get(provider) {
            Some(ahead) if *ahead < 0 => now.saturating_sub(Duration::from_secs(ahead.unsigned_abs())),
            Some(ahead) => now + Duration::from_secs(ahead.unsigned_abs()),
            None => now,
        }
    }

    /// Looks at an answer to a request that was signed at `signed`. True where it refuses the signature's time and its
    /// `Date` says another: the next signature will have that.
    pub fn learn(&self, provider: &str, status: u16, headers: &[Field], signed: Duration, now: Duration) -> bool {
        if !matches!(status, 400 | 401 | 403) {
            return false;
        }
        let kind = http::header(headers, "x-amzn-errortype").unwrap_or_default();
        let kind = kind.split([':', '#']).next().unwrap_or_default();
        let of_time = matches!(kind, "RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture");
        let of_signature = matches!(kind, "InvalidSignatureException" | "SignatureDoesNotMatch" | "AuthFailure");
        if !(of_time || of_signature) {
            return false;
        }
        let date = http::header(headers, "date").and_then(|date| httpdate::parse_http_date(date).ok());
        let Some(theirs) = date.and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok()) else { return false };
        if theirs.abs_diff(signed) < TOLERANCE {
            return false;
        }
        let ahead = theirs.as_secs() as i64 - now.as_secs() as i64;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(provider.to_owned(), ahead);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_of_each_partition_has_its_domain() {
        for (region, suffix) in [
            ("us-east-1", "amazonaws.com"),
            ("us-gov-west-1", "amazonaws.com"),
            ("cn-north-1", "amazonaws.com.cn"),
            ("us-iso-east-1", "c2s.ic.gov"),
            ("us-isob-east-1", "sc2s.sgov.gov"),
            ("eusc-de-east-1", "amazonaws.eu"),
        ] {
            assert!(is_region(region));
            assert_eq!(dns_suffix(region), suffix, "{region}");
        }
        for bad in ["", "us-east-1.evil", "us_east", "-a", "us-east-1/", "US-EAST-1", &"a".repeat(33)] {
            assert!(!is_region(bad), "{bad}");
        }
    }

    #[test]
    fn a_clock_is_corrected_only_by_a_refused_signature_with_another_date() {
        let clocks = Clocks::default();
        let now = Duration::from_secs(1_000_000_000);
        // Sun, 09 Sep 2001 01:46:40 GMT is that time.
        let header = |kind: &str, date: &str| {
            vec![("x-amzn-errortype".to_owned(), kind.to_owned()), ("date".to_owned(), date.to_owned())]
        };
        let late = "Sun, 09 Sep 2001 01:56:40 GMT";
        for (status, headers) in [
            (200, header("InvalidSignatureException", late)),
            (403, header("AccessDeniedException", late)),
            (403, header("InvalidSignatureException", "Sun, 09 Sep 2001 01:47:40 GMT")),
            (403, header("InvalidSignatureException", "yesterday")),
        ] {
            assert!(!clocks.learn("p", status, &headers, now, now));
        }
        assert_eq!(clocks.time("p", now), now);
        assert!(clocks.learn("p", 403, &header("InvalidSignatureException:http://x", late), now, now));
        assert_eq!(clocks.time("p", now), now + Duration::from_secs(600));
        assert_eq!(clocks.time("q", now), now);
        // A clock that runs ahead of theirs is set back.
        assert!(clocks.learn("p", 403, &header("RequestExpired", "Sun, 09 Sep 2001 01:36:40 GMT"), now, now));
        assert_eq!(clocks.time("p", now), now - Duration::from_secs(600));
    }
}
