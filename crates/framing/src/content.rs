//! Which framing an answer has.

use witgate_model::Framing;

/// The framing that applies to an answer of this `status` and `content_type` (the header's value, with its
/// parameters), where the adapter asked for `wanted`.
///
/// An answer that is no 2xx is cut `whole`: backends send errors as one document. A success is cut as wanted where its
/// content type agrees, and `whole` where it denies: then the decoder sees the document that came instead. A content
/// type that is missing or empty agrees; `raw` and a framing of another name agree with any.
///
/// | wanted | agrees with |
/// |---|---|
/// | `sse` | `text/event-stream` |
/// | `ndjson` | `application/` and `x-ndjson`, `ndjson`, `jsonl`, `x-jsonl`, `jsonlines`, `x-jsonlines`, `stream+json`, `x-json-stream` or `json`; `text/plain`; `text/x-ndjson` |
/// | `aws-eventstream` | `application/vnd.amazon.eventstream` |
pub fn effective(wanted: &Framing, status: u16, content_type: Option<&str>) -> Framing {
    if !(200..300).contains(&status) {
        return Framing::Whole;
    }
    let media_type = content_type.unwrap_or("").split(';').next().unwrap_or("").trim();
    let is_one_of = |known: &[&str]| known.iter().any(|known| media_type.eq_ignore_ascii_case(known));
    let agrees = media_type.is_empty()
        || match wanted {
            Framing::Sse => is_one_of(&["text/event-stream"]),
            Framing::Ndjson => is_one_of(&[
                "application/x-ndjson",
                "application/ndjson",
                "application/jsonl",
                "application/x-jsonl",
                "application/jsonlines",
                "application/x-jsonlines",
                "application/stream+json",
                "application/x-json-stream",
                "application/json",
                "text/plain",
                "text/x-ndjson",
            ]),
            Framing::AwsEventstream => is_one_of(&["application/vnd.amazon.eventstream"]),
            Framing::Whole | Framing::Raw | Framing::Other(_) => true,
        };
    if agrees { wanted.clone() } else { Framing::Whole }
}

#[cfg(test)]
mod tests {
    use super::effective;
    use witgate_model::Framing;

    #[test]
    fn a_success_of_the_wanted_content_type_is_cut_as_wanted() {
        for (wanted, content_type) in [
            (Framing::Sse, "text/event-stream"),
            (Framing::Sse, "Text/Event-Stream; charset=utf-8"),
            (Framing::Sse, " text/event-stream ;charset=utf-8"),
            (Framing::AwsEventstream, "application/vnd.amazon.eventstream"),
            (Framing::Ndjson, "application/x-ndjson"),
            (Framing::Ndjson, "application/jsonl"),
            (Framing::Ndjson, "application/json; charset=utf-8"),
            (Framing::Ndjson, "text/plain"),
            (Framing::Raw, "image/png"),
            (Framing::Whole, "text/event-stream"),
            (Framing::Other("cbor".to_owned()), "application/cbor"),
        ] {
            assert_eq!(effective(&wanted, 200, Some(content_type)), wanted, "{content_type}");
            assert_eq!(effective(&wanted, 299, Some(content_type)), wanted, "{content_type}");
        }
    }

    #[test]
    fn a_success_of_a_content_type_that_denies_the_framing_is_cut_whole() {
        for (wanted, content_type) in [
            (Framing::Sse, "application/json"),
            (Framing::Sse, "text/plain"),
            (Framing::Sse, "text/event-stream-not"),
            (Framing::AwsEventstream, "application/json"),
            (Framing::AwsEventstream, "text/event-stream"),
            (Framing::Ndjson, "text/html"),
            (Framing::Ndjson, "text/event-stream"),
        ] {
            assert_eq!(effective(&wanted, 200, Some(content_type)), Framing::Whole, "{content_type}");
        }
    }

    #[test]
    fn a_missing_content_type_agrees() {
        for wanted in [Framing::Sse, Framing::Ndjson, Framing::AwsEventstream, Framing::Raw, Framing::Whole] {
            for content_type in [None, Some(""), Some(" "), Some(";charset=utf-8")] {
                assert_eq!(effective(&wanted, 200, content_type), wanted);
            }
        }
    }

    #[test]
    fn an_error_is_cut_whole() {
        for wanted in [Framing::Sse, Framing::Ndjson, Framing::AwsEventstream, Framing::Raw, Framing::Whole] {
            for status in [101, 199, 300, 304, 400, 429, 500, 599] {
                for content_type in [None, Some("text/event-stream"), Some("application/x-ndjson")] {
                    assert_eq!(effective(&wanted, status, content_type), Framing::Whole);
                }
            }
        }
    }
}
