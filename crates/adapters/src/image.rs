//! The pictures that backends take, known by their first bytes where the client did not say what they are.

/// Media types of pictures, and how each begins in base64.
const KNOWN: [(&str, &str); 4] =
    [("iVBORw0KGgo", "image/png"), ("/9j/", "image/jpeg"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp")];

/// The media type that the start of a picture's base64 tells.
pub(crate) fn sniffed(base64: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(start, _)| base64.starts_with(start)).map(|(_, mime)| *mime)
}

/// The media type of that name, where it is one of the known.
pub(crate) fn known(mime: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(_, known)| *known == mime).map(|(_, known)| *known)
}
