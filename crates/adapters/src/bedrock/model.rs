//! What a model's id tells: its region, its family, the id that its inference profile is made of.

use witgate_model::Error;

use super::settings::{Api, Settings, Vendor};

/// In front of the ids of inference profiles.
const PROFILES: [&str; 8] = ["us", "eu", "apac", "global", "us-gov", "jp", "au", "ca"];

/// Whose models these are, as far as the APIs differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Claude,
    /// Llama 3, which has a prompt template that is known here.
    Llama3,
    /// Llama of other generations.
    Llama,
    GptOss,
    /// OpenAI's models whose weights are not open.
    Gpt,
    Grok,
    /// Titan Text Embeddings, which knows no dimensions.
    TitanEmbed1,
    TitanEmbed2,
    /// Cohere Embed 3, which knows no dimensions.
    CohereEmbed3,
    CohereEmbed4,
    Other,
}

/// The model that a request goes to.
#[derive(Debug)]
pub(super) struct Target {
    /// The id or ARN, with the inference profile that the settings ask for.
    pub id: String,
    /// The region that an ARN names.
    pub region: Option<String>,
    pub family: Family,
}

impl Target {
    /// The target for the model that the client's request names.
    pub fn new(settings: &Settings, model: &str) -> Result<Self, Error> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
        if model.is_empty() || model.len() > 2048 || !model.chars().all(known) || model.chars().all(|c| c == '.') {
            return Err(Error::invalid(
                "model",
                "a model of Bedrock is a model id, an inference profile's id or an ARN: 1 to 2048 letters, digits and \
                 `-_.:/`",
            ));
        }
        let region = region(settings, model)?;
        let id = match (&settings.inference_profile, model.split_once('.')) {
            (Some(profile), Some((first, _)))
                if !model.starts_with("arn:") && first != profile && !PROFILES.contains(&first) =>
            {
                format!("{profile}.{model}")
            }
            _ => model.to_owned(),
        };
        Ok(Target { region, family: family(settings.model_vendor, model), id })
    }

    /// The id of the foundation model, which counting tokens wants: it knows no inference profiles.
    pub fn foundation(&self) -> &str {
        match self.id.rsplit_once("inference-profile/") {
            // An application's own profile has an id that says nothing.
            Some((_, id)) if id.contains('.') => bare(id),
            Some(_) => &self.id,
            None => bare(&self.id),
        }
    }

    /// The API that the settings ask for, or that serves the family best.
    pub fn api(&self, settings: &Settings) -> Api {
        settings.api.unwrap_or(match self.family {
            Family::GptOss => Api::Openai,
            _ => Api::Converse,
        })
    }
}

/// The id without its inference profile.
fn bare(id: &str) -> &str {
    match id.split_once('.') {
        Some((first, rest)) if PROFILES.contains(&first) => rest,
        _ => id,
    }
}

/// The region of an ARN: `arn:partition:service:region:account:resource`.
fn region(settings: &Settings, model: &str) -> Result<Option<String>, Error> {
    let Some(arn) = model.strip_prefix("arn:") else { return Ok(None) };
    let Some(region) = arn.split(':').nth(2).filter(|region| !region.is_empty()) else { return Ok(None) };
    // It becomes a part of a host name.
    if region.len() > 32 || !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(Error::invalid("model", format!("the ARN names `{region}`, which is not a region of AWS")));
    }
    if let Some(ours) = settings.region.as_deref()
        && ours != region
        && settings.is_bearer()
    {
        return Err(Error::invalid(
            "model",
            format!(
                "the ARN is of region `{region}`, but this provider is configured for `{ours}`, and a request with an \
                 API key is not signed for a region: configure a provider for `{region}`"
            ),
        ));
    }
    Ok(Some(region.to_owned()))
}

fn family(vendor: Option<Vendor>, model: &str) -> Family {
    if let Some(vendor) = vendor {
        return match vendor {
            Vendor::Anthropic => Family::Claude,
            Vendor::Meta => Family::Llama3,
            Vendor::Openai => Family::GptOss,
            Vendor::Amazon => Family::TitanEmbed2,
            Vendor::Cohere => Family::CohereEmbed4,
            Vendor::Other => Family::Other,
        };
    }
    let families = [
        ("anthropic.", Family::Claude),
        ("meta.llama3", Family::Llama3),
        ("meta.llama", Family::Llama),
        ("openai.gpt-oss", Family::GptOss),
        ("openai.", Family::Gpt),
        ("xai.", Family::Grok),
        ("amazon.titan-embed-text-v2", Family::TitanEmbed2),
        ("amazon.titan-embed-text-v1", Family::TitanEmbed1),
        ("amazon.titan-embed-g1-text", Family::TitanEmbed1),
        ("cohere.embed-v4", Family::CohereEmbed4),
        ("cohere.embed-", Family::CohereEmbed3),
    ];
    let known = |id: &str| families.iter().find(|(start, _)| bare(id).starts_with(start)).map(|(_, family)| *family);
    // Behind an ARN's `foundation-model/`, or in front of a custom model's own id.
    model.split('/').find_map(known).unwrap_or(Family::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(settings: &str, model: &str) -> Target {
        Target::new(&Settings::parse(settings).unwrap(), model).unwrap()
    }

    #[test]
    fn the_family_is_told_by_the_id_behind_profiles_and_arns() {
        let families = [
            ("anthropic.claude-3-haiku-20240307-v1:0", Family::Claude),
            ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Family::Claude),
            ("arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-3-haiku-20240307-v1:0", Family::Claude),
            ("arn:aws:bedrock:us-east-1:1:custom-model/anthropic.claude-3-haiku-20240307-v1:0:200k/a1", Family::Claude),
            ("us.meta.llama3-1-70b-instruct-v1:0", Family::Llama3),
            ("meta.llama4-scout-17b-instruct-v1:0", Family::Llama),
            ("openai.gpt-oss-120b-1:0", Family::GptOss),
            ("us-gov.openai.gpt-oss-20b-1:0", Family::GptOss),
            ("global.openai.gpt-5.6-sol", Family::Gpt),
            ("us.xai.grok-4.6", Family::Grok),
            ("amazon.titan-embed-text-v1", Family::TitanEmbed1),
            ("amazon.titan-embed-text-v2:0", Family::TitanEmbed2),
            ("cohere.embed-multilingual-v3", Family::CohereEmbed3),
            ("global.cohere.embed-v4:0", Family::CohereEmbed4),
            ("amazon.nova-lite-v1:0", Family::Other),
            ("arn:aws:bedrock:us-east-1:1:application-inference-profile/a1b2", Family::Other),
        ];
        for (model, family) in families {
            assert_eq!(target("{}", model).family, family, "{model}");
        }
        assert_eq!(target(r#"{"model_vendor":"meta"}"#, "arn:aws:bedrock:us-east-1:1:x/a1").family, Family::Llama3);
    }

    #[test]
    fn tokens_are_counted_by_the_foundation_model() {
        for (model, foundation) in [
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0"),
            ("anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0"),
            ("arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
            (
                "arn:aws:bedrock:us-east-1:1:application-inference-profile/a1",
                "arn:aws:bedrock:us-east-1:1:application-inference-profile/a1",
            ),
            (
                "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
                "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
            ),
        ] {
            assert_eq!(target(r#"{"inference_profile":"us"}"#, model).foundation(), foundation);
        }
    }
}
