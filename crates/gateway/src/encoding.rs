//! Request bodies that a client compressed: read out, and bounded by what comes out, not by what came in.

use std::io::Read;

use bytes::Bytes;

use crate::failure::Failed;

/// What a request's `content-encoding` may name, for `accept-encoding`.
pub(crate) const ENCODINGS: &str = "gzip, deflate, br, zstd";

/// The most encodings that lie over each other.
const MOST: usize = 2;

/// The body without its `content-encoding`; at most `limit` bytes.
pub(crate) fn decode(encoding: Option<&str>, body: Bytes, limit: usize) -> Result<Bytes, Failed> {
    let Some(encoding) = encoding else { return Ok(body) };
    let layers: Vec<_> = encoding.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    let unknown = || {
        let named: String = encoding.chars().filter(|c| !c.is_control()).take(64).collect();
        let message = format!("the content-encoding \"{named}\" is not taken; use {ENCODINGS}");
        Failed::ours(415, "invalid_request_error", "content_encoding", message)
    };
    if layers.len() > MOST {
        return Err(unknown());
    }
    let mut body = body;
    for name in layers.iter().rev() {
        let encoded: &[u8] = &body;
        let decoded = match name.as_str() {
            "" | "identity" => continue,
            "gzip" | "x-gzip" => bounded(flate2::bufread::MultiGzDecoder::new(encoded), limit),
            "deflate" => bounded(flate2::bufread::ZlibDecoder::new(encoded), limit),
            "br" => bounded(brotli_decompressor::Decompressor::new(encoded, 8 * 1024), limit),
            "zstd" => match ruzstd::decoding::StreamingDecoder::new(encoded) {
                Ok(decoder) => bounded(decoder, limit),
                Err(_) => Err(Flaw::Broken),
            },
            _ => return Err(unknown()),
        };
        body = match decoded {
            Ok(decoded) => Bytes::from(decoded),
            Err(Flaw::Broken) => {
                let message = format!("the body is not valid {name}, which its content-encoding says it is");
                return Err(Failed::ours(400, "invalid_request_error", "content_encoding", message));
            }
            Err(Flaw::TooLarge) => return Err(too_large(limit)),
        };
    }
    Ok(body)
}

/// A body over `limits.max_body_bytes`.
pub(crate) fn too_large(limit: usize) -> Failed {
    let message = format!("the body is larger than {limit} bytes (limits.max_body_bytes)");
    Failed::ours(413, "invalid_request_error", "body_too_large", message)
}

enum Flaw {
    Broken,
    TooLarge,
}

fn bounded(decoder: impl Read, limit: usize) -> Result<Vec<u8>, Flaw> {
    let mut decoded = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut decoded).map_err(|_| Flaw::Broken)?;
    if decoded.len() > limit { Err(Flaw::TooLarge) } else { Ok(decoded) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap().into()
    }

    /// `{"prompt":"hello hello hello"}`, as the reference tools of brotli and zstd write it.
    const TEXT: &[u8] = br#"{"prompt":"hello hello hello"}"#;
    const BROTLI: &[u8] = &[
        0x1b, 0x1d, 0x00, 0xf8, 0xc5, 0x6d, 0x6c, 0xdd, 0xf0, 0xcc, 0xde, 0x0f, 0x1a, 0x86, 0x11, 0xbd, 0xa8, 0x24,
        0x41, 0x2a, 0x0e, 0xf8, 0x43, 0x8f, 0xaa, 0x17, 0x8e, 0x0c, 0x52, 0x06, 0x0f,
    ];
    const ZSTD: &[u8] = &[
        0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x1e, 0xcd, 0x00, 0x00, 0x98, 0x7b, 0x22, 0x70, 0x72, 0x6f, 0x6d, 0x70, 0x74,
        0x22, 0x3a, 0x22, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x20, 0x22, 0x7d, 0x01, 0x00, 0x63, 0x94, 0x25,
    ];

    #[test]
    fn a_body_is_read_in_each_encoding_and_in_two_over_each_other() {
        let zlib = {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(TEXT).unwrap();
            Bytes::from(encoder.finish().unwrap())
        };
        for (encoding, body) in [
            (None, Bytes::from_static(TEXT)),
            (Some("identity"), Bytes::from_static(TEXT)),
            (Some("gzip"), gzip(TEXT)),
            (Some("X-GZip"), gzip(TEXT)),
            (Some("deflate"), zlib),
            (Some("br"), Bytes::from_static(BROTLI)),
            (Some("zstd"), Bytes::from_static(ZSTD)),
            (Some("br, gzip"), gzip(BROTLI)),
        ] {
            assert_eq!(decode(encoding, body, 2 * TEXT.len()).ok().as_deref(), Some(TEXT), "{encoding:?}");
        }
    }

    #[test]
    fn what_comes_out_is_bounded_however_small_what_came_in() {
        let bomb = gzip(&vec![b' '; 10 << 20]);
        assert!(bomb.len() < 64 << 10);
        assert_eq!(decode(Some("gzip"), bomb, 1 << 20).map_err(|failed| failed.status), Err(413));
    }

    #[test]
    fn a_broken_body_and_an_unknown_encoding_are_told() {
        let half = gzip(TEXT).slice(..20);
        assert_eq!(decode(Some("gzip"), half, 1 << 20).map_err(|failed| failed.status), Err(400));
        for encoding in ["br", "zstd", "deflate"] {
            let body = Bytes::from_static(b"{\"prompt\":\"plain\"}");
            assert_eq!(decode(Some(encoding), body, 1 << 20).map_err(|failed| failed.status), Err(400), "{encoding}");
        }
        for encoding in ["compress", "gzip, gzip, gzip"] {
            let failed = decode(Some(encoding), gzip(TEXT), 1 << 20).err().unwrap();
            assert_eq!(failed.status, 415);
            assert!(failed.error.message.ends_with("use gzip, deflate, br, zstd"), "{}", failed.error.message);
        }
    }
}
