//! Pictures, documents, sounds and films: formats, sizes, sources.

use witgate_model::{Error, ErrorKind, MediaKind, MediaPart, MediaSource, Retry};

use crate::image;
use crate::scan::base64_len;

/// Largest image, in bytes behind the base64 (3.75 MiB, which is 5 MiB of base64).
pub(super) const LARGEST_IMAGE: usize = 3_932_160;

/// Largest document, in bytes behind the base64 (4.5 MiB).
pub(super) const LARGEST_DOCUMENT: usize = 4_718_592;

/// Longest S3 address, in bytes.
const LONGEST_URI: usize = 1024;

/// Media types and file extensions to the API's names of formats.
type Formats = &'static [(&'static str, &'static str)];

const IMAGES: Formats = &[
    ("image/png", "png"),
    ("image/jpeg", "jpeg"),
    ("image/jpg", "jpeg"),
    ("image/gif", "gif"),
    ("image/webp", "webp"),
    (".png", "png"),
    (".jpeg", "jpeg"),
    (".jpg", "jpeg"),
    (".gif", "gif"),
    (".webp", "webp"),
];

const DOCUMENTS: Formats = &[
    ("application/pdf", "pdf"),
    ("text/csv", "csv"),
    ("application/msword", "doc"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ("text/html", "html"),
    ("text/plain", "txt"),
    ("text/markdown", "md"),
    (".pdf", "pdf"),
    (".csv", "csv"),
    (".doc", "doc"),
    (".docx", "docx"),
    (".xls", "xls"),
    (".xlsx", "xlsx"),
    (".html", "html"),
    (".txt", "txt"),
    (".md", "md"),
];

const VIDEOS: Formats = &[
    ("video/mp4", "mp4"),
    ("video/quicktime", "mov"),
    ("video/x-matroska", "mkv"),
    ("video/webm", "webm"),
    ("video/x-flv", "flv"),
    ("video/mpeg", "mpeg"),
    ("video/x-ms-wmv", "wmv"),
    ("video/3gpp", "three_gp"),
    (".mp4", "mp4"),
    (".mov", "mov"),
    (".mkv", "mkv"),
    (".webm", "webm"),
    (".flv", "flv"),
    (".mpeg", "mpeg"),
    (".mpg", "mpg"),
    (".wmv", "wmv"),
    (".3gp", "three_gp"),
];

const SOUNDS: Formats = &[
    ("audio/mpeg", "mp3"),
    ("audio/mp3", "mp3"),
    ("audio/wav", "wav"),
    ("audio/x-wav", "wav"),
    ("audio/wave", "wav"),
    ("audio/flac", "flac"),
    ("audio/ogg", "ogg"),
    ("audio/opus", "opus"),
    ("audio/aac", "aac"),
    ("audio/mp4", "mp4"),
    ("audio/webm", "webm"),
    (".mp3", "mp3"),
    (".wav", "wav"),
    (".flac", "flac"),
    (".ogg", "ogg"),
    (".opus", "opus"),
    (".aac", "aac"),
    (".m4a", "m4a"),
];

/// The API's name of the part's format.
pub(super) fn format(part: &MediaPart, at: &str) -> Result<&'static str, Error> {
    let formats = match part.kind {
        MediaKind::Image => IMAGES,
        MediaKind::Document => DOCUMENTS,
        MediaKind::Video => VIDEOS,
        MediaKind::Audio => SOUNDS,
        MediaKind::Other(_) => &[],
    };
    let find = |key: &str| formats.iter().find(|(name, _)| *name == key).map(|(_, format)| *format);
    // `text/plain; charset=utf-8` is `text/plain`.
    let mime = part.mime.as_deref().map(|mime| mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let file = match &part.source {
        MediaSource::Url(url) => Some(url.as_str()),
        _ => part.name.as_deref(),
    };
    let extension = || Some(format!(".{}", file?.rsplit_once('.')?.1.to_ascii_lowercase()));
    let magic = || match (&part.kind, &part.source) {
        (MediaKind::Image, MediaSource::Base64(data)) => image::sniffed(data).and_then(find),
        _ => None,
    };
    let found = match &mime {
        Some(mime) => find(mime),
        None => extension().and_then(|extension| find(&extension)).or_else(magic),
    };
    found.ok_or_else(|| {
        let mut known: Vec<_> = formats.iter().map(|(_, format)| *format).collect();
        known.sort_unstable();
        known.dedup();
        let what = mime.as_deref().unwrap_or("a part that names no media type");
        Error::unsupported(at, format!("Bedrock can't take {what} here: it takes {}", known.join(", ")))
    })
}

/// Refuses base64 that is none, nothing at all, and what is too large.
pub(super) fn check_bytes(kind: &MediaKind, data: &str, at: &str) -> Result<(), Error> {
    let bytes = base64_len(data).filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::invalid(at, "the data must be base64 with padding (RFC 4648 section 4), and not empty")
    })?;
    let (what, most, words) = match kind {
        MediaKind::Image => ("an image", LARGEST_IMAGE, "3.75 MB"),
        MediaKind::Document => ("a document", LARGEST_DOCUMENT, "4.5 MB"),
        _ => return Ok(()),
    };
    if bytes > most {
        let message = format!("{what} may have at most {words} ({most} bytes) on Bedrock, this one has {bytes} bytes");
        return Err(Error::new(ErrorKind::TooLarge, message).with_param(at).with_retry(Retry::OtherTarget));
    }
    Ok(())
}

/// Refuses a document of plain text that is empty or too large.
pub(super) fn check_text(text: &str, at: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::invalid(at, "the document is empty"));
    }
    if text.len() > LARGEST_DOCUMENT {
        let bytes = text.len();
        let message = format!(
            "a document may have at most 4.5 MB ({LARGEST_DOCUMENT} bytes) on Bedrock, this one has {bytes} bytes"
        );
        return Err(Error::new(ErrorKind::TooLarge, message).with_param(at).with_retry(Retry::OtherTarget));
    }
    Ok(())
}

/// An address in S3, which is the only kind of address that Converse takes.
pub(super) fn s3<'a>(url: &'a str, at: &str) -> Result<&'a str, Error> {
    match url.strip_prefix("s3://") {
        Some(rest) if !rest.is_empty() && url.len() <= LONGEST_URI => Ok(url),
        Some(_) => Err(Error::invalid(at, "an S3 address is `s3://bucket/key` and has at most 1024 characters")),
        None => Err(Error::unsupported(
            at,
            "Bedrock fetches no URLs: send the data itself in base64, or an `s3://` address that it may read",
        )),
    }
}

/// A document's name in the alphabet that Bedrock takes: letters, digits, single blanks, hyphens, brackets.
pub(super) fn document_name(name: Option<&str>, number: usize) -> String {
    let stem = name.map(|name| name.rsplit_once('.').map_or(name, |(stem, _)| stem)).unwrap_or_default();
    let mut clean = String::new();
    for c in stem.chars().take(150) {
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '(' | ')' | '[' | ']') => clean.push(c),
            _ if clean.ends_with(' ') || clean.is_empty() => {}
            _ => clean.push(' '),
        }
    }
    match clean.trim_end() {
        "" => format!("document {number}"),
        clean => clean.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_names_keep_to_the_alphabet_of_bedrock() {
        assert_eq!(document_name(Some("Q3/report_final  (2).pdf"), 1), "Q3 report final (2)");
        assert_eq!(document_name(Some("…"), 2), "document 2");
        assert_eq!(document_name(None, 3), "document 3");
    }
}
