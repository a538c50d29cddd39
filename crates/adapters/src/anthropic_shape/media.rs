//! Pictures and documents.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use witgate_model::{CacheMark, Error, MediaKind, MediaPart, MediaSource};

use super::Flavour;
use super::encode::{At, Encoder};
use super::write::{Object, separate};
use crate::{image, scan};

/// What is written as the member `source`.
enum Source<'a> {
    /// Bytes in base64, of this type.
    Base64 {
        mime: Option<&'a str>,
        data: &'a str,
    },
    Text {
        mime: Option<&'a str>,
        data: std::borrow::Cow<'a, str>,
    },
    Url(&'a str),
    File(&'a str),
    Raw(&'a str),
}

impl Encoder<'_> {
    /// A picture or a document as an element of the list of blocks that began at `start`.
    pub(super) fn media(
        &mut self,
        media: &MediaPart,
        at: At,
        start: usize,
        cache: Option<&CacheMark>,
    ) -> Result<(), Error> {
        let extra = self.extra(media.extra.as_deref(), &at)?;
        let source = if self.native {
            let mime = media.mime.as_deref();
            match &media.source {
                MediaSource::Base64(data) => Source::Base64 { mime, data },
                MediaSource::Text(data) => Source::Text { mime, data: data.into() },
                MediaSource::Url(url) => Source::Url(url),
                MediaSource::FileId(id) => Source::File(id),
                MediaSource::Other(json) => {
                    self.passes(json, &at)?;
                    Source::Raw(json)
                }
            }
        } else {
            match self.foreign_source(media, at)? {
                Some(source) => source,
                None => return Ok(()),
            }
        };
        separate(&mut self.out, start);
        let kind = match &media.kind {
            MediaKind::Image => "image",
            MediaKind::Document => "document",
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
            MediaKind::Other(kind) => kind,
        };
        let mut object = Object::of_type(&mut self.out, kind);
        object.name(&mut self.out, "source");
        if let Source::Raw(json) = source {
            self.out.extend_from_slice(json.as_bytes());
        } else {
            let (kind, mime, name, text) = match &source {
                Source::Base64 { mime, data } => ("base64", *mime, "data", *data),
                Source::Text { mime, data } => ("text", *mime, "data", &**data),
                Source::Url(url) => ("url", None, "url", *url),
                Source::File(id) => ("file", None, "file_id", *id),
                Source::Raw(json) => ("", None, "", *json),
            };
            let mut inner = Object::of_type(&mut self.out, kind);
            if let Some(mime) = mime {
                inner.string(&mut self.out, "media_type", mime);
            }
            inner.string(&mut self.out, name, text);
            inner.splice(&mut self.out, &extra.nested("source"));
            inner.close(&mut self.out);
        }
        if let Some(title) = media.name.as_deref().filter(|_| media.kind == MediaKind::Document) {
            object.string(&mut self.out, "title", title);
        }
        self.finish(object, &extra, cache, at)
    }

    /// The source of another dialect's part; `None` where it is left out.
    fn foreign_source<'m>(&mut self, media: &'m MediaPart, at: At) -> Result<Option<Source<'m>>, Error> {
        let backend = self.flavour.backend();
        if !matches!(media.kind, MediaKind::Image | MediaKind::Document) {
            let what = match &media.kind {
                MediaKind::Audio => "sound",
                MediaKind::Video => "video",
                MediaKind::Other(kind) => kind,
                MediaKind::Image | MediaKind::Document => "this",
            };
            self.refuse(at.to_string(), format!("{backend} takes images and documents, not {what}"))?;
            return Ok(None);
        }
        if media.detail.as_deref().is_some_and(|detail| detail != "auto") {
            self.refuse(format!("{at}.detail"), format!("{backend} can't be told how closely to look"))?;
        }
        let is_image = media.kind == MediaKind::Image;
        // `text/plain; charset=utf-8` is `text/plain`.
        let mime = media.mime.as_deref().map(|mime| mime.split(';').next().unwrap_or_default().trim());
        let mime = mime.map(str::to_ascii_lowercase);
        Ok(match &media.source {
            MediaSource::Base64(data) if is_image => {
                let known = match mime.as_deref() {
                    None | Some("" | "application/octet-stream") => image::sniffed(data),
                    Some("image/jpeg" | "image/jpg") => Some("image/jpeg"),
                    Some(mime) => image::known(mime),
                };
                let Some(known) = known else {
                    let what = mime.as_deref().unwrap_or("an image that names no media type");
                    let message = format!("{backend} can't take {what}: it takes image/png, jpeg, gif and webp");
                    return self.refuse(at.to_string(), message).map(|()| None);
                };
                check_base64(data, at)?;
                Some(Source::Base64 { mime: Some(known), data })
            }
            MediaSource::Base64(data) => {
                let extension = media.name.as_deref().and_then(|name| name.rsplit_once('.')).map(|(_, end)| end);
                let extension = extension.map(str::to_ascii_lowercase);
                let (pdf, text) = match (mime.as_deref(), extension.as_deref()) {
                    (Some("application/pdf"), _) => (true, false),
                    (Some("application/json" | "application/xml" | "application/yaml"), _) => (false, true),
                    (None | Some("" | "application/octet-stream"), extension) => (
                        data.starts_with("JVBERi") || extension == Some("pdf"),
                        matches!(extension, Some("txt" | "md" | "csv" | "html" | "json" | "xml" | "yaml")),
                    ),
                    (Some(mime), _) => (false, mime.starts_with("text/")),
                };
                if pdf {
                    check_base64(data, at)?;
                    Some(Source::Base64 { mime: Some("application/pdf"), data })
                } else if text {
                    let bytes = STANDARD.decode(data).map_err(|_| not_base64(at))?;
                    let text = String::from_utf8(bytes).map_err(|_| {
                        let message = format!("a document of text must be UTF-8: {backend} takes no other");
                        Error::invalid(at.to_string(), message)
                    })?;
                    Some(Source::Text { mime: Some("text/plain"), data: text.into() })
                } else {
                    let what = mime.as_deref().unwrap_or("a document that names no media type");
                    let message = format!("{backend} can't take {what}: its documents are application/pdf and text");
                    return self.refuse(at.to_string(), message).map(|()| None);
                }
            }
            MediaSource::Text(data) if !is_image => Some(Source::Text { mime: Some("text/plain"), data: data.into() }),
            MediaSource::Url(_) | MediaSource::FileId(_) if self.flavour == Flavour::Bedrock => {
                let message = "Bedrock fetches nothing and keeps no files: send the data itself in base64";
                return self.refuse(at.to_string(), message).map(|()| None);
            }
            MediaSource::Url(url) => Some(Source::Url(url)),
            MediaSource::FileId(id) => Some(Source::File(id)),
            MediaSource::Text(_) => {
                return self.refuse(at.to_string(), "an image is no text").map(|()| None);
            }
            MediaSource::Other(json) => {
                self.passes(json, &at)?;
                None
            }
        })
    }
}

/// Refuses base64 that is none, and nothing at all.
fn check_base64(data: &str, at: At) -> Result<(), Error> {
    if scan::base64_len(data).is_some_and(|bytes| bytes > 0) { Ok(()) } else { Err(not_base64(at)) }
}

fn not_base64(at: At) -> Error {
    Error::invalid(at.to_string(), "the data must be base64 with padding (RFC 4648 section 4), and not empty")
}
