//! Bytes to lines.

use crate::FramingError;

/// What a line buffer may keep of its room for the next line.
const KEPT_CAPACITY: usize = 32 << 10;

/// Cuts bytes into lines: at LF, and with `CR` also at a lone CR and at CRLF. A byte order mark in front of the first
/// line is dropped.
#[derive(Debug)]
pub(crate) struct Lines<const CR: bool> {
    /// The begin of a line that the network cut; empty as long as the network cuts between lines.
    partial: Vec<u8>,
    /// Where the current line begins.
    offset: u64,
    /// No line has ended yet.
    first: bool,
    /// The last line ended with CR: a LF right behind belongs to it.
    after_cr: bool,
    max: usize,
}

impl<const CR: bool> Lines<CR> {
    /// Lines of at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Lines { partial: Vec::new(), offset: 0, first: true, after_cr: false, max }
    }

    /// Calls `each` with every line that `bytes` complete, without its line end, and with its offset.
    pub(crate) fn push<F>(&mut self, mut bytes: &[u8], mut each: F) -> Result<(), FramingError>
    where
        F: FnMut(&[u8], u64) -> Result<(), FramingError>,
    {
        while let Some(&next) = bytes.first() {
            if CR && self.after_cr {
                self.after_cr = false;
                if next == b'\n' {
                    self.offset += 1;
                    bytes = &bytes[1..];
                    continue;
                }
            }
            // Blank lines are every second one: they are not worth a search.
            let end = if next == b'\n' || (CR && next == b'\r') {
                Some(0)
            } else if CR {
                memchr::memchr2(b'\n', b'\r', bytes)
            } else {
                memchr::memchr(b'\n', bytes)
            };
            let content = &bytes[..end.unwrap_or(bytes.len())];
            if content.len() > self.max.saturating_sub(self.partial.len()) {
                return Err(FramingError::TooLarge { what: "the line", offset: self.offset, limit: self.max });
            }
            let Some(end) = end else {
                self.partial.extend_from_slice(content);
                return Ok(());
            };
            self.after_cr = CR && bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let offset = self.offset;
            self.offset += (self.partial.len() + content.len() + 1) as u64;
            if self.partial.is_empty() {
                each(strip_mark(&mut self.first, content), offset)?;
            } else {
                self.partial.extend_from_slice(content);
                each(strip_mark(&mut self.first, &self.partial), offset)?;
                self.partial.clear();
                self.partial.shrink_to(KEPT_CAPACITY);
            }
        }
        Ok(())
    }

    /// The bytes have ended: calls `each` with the last line, if it had no line end.
    pub(crate) fn finish<F>(&mut self, mut each: F) -> Result<(), FramingError>
    where
        F: FnMut(&[u8], u64) -> Result<(), FramingError>,
    {
        let partial = std::mem::take(&mut self.partial);
        if partial.is_empty() { Ok(()) } else { each(strip_mark(&mut self.first, &partial), self.offset) }
    }
}

/// The first line without its byte order mark; every other line as it is.
fn strip_mark<'a>(first: &mut bool, line: &'a [u8]) -> &'a [u8] {
    if std::mem::take(first) { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line }
}

/// Text of bytes; what is not UTF-8 becomes U+FFFD. A line end is never part of a character, so a text that is decoded
/// line by line is the text that was decoded as a whole.
pub(crate) fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}
