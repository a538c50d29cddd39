//! Finds the bytes of a JSON string that need attention, eight bytes at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of every byte of `word` that is zero. Bits above the lowest one set may be wrong; the lowest is not.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

/// The index of the first `"`, `\` or control character (below U+0020) in `bytes`, or their length.
pub(crate) fn special(bytes: &[u8]) -> usize {
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (number, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let quote = zeros(word ^ (ONES * 0x22));
        let backslash = zeros(word ^ (ONES * 0x5c));
        let found = control | quote | backslash;
        if found != 0 {
            return number * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let start = bytes.len() - rest.len();
    start + rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\').unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::special;

    #[test]
    fn every_byte_value_at_every_offset_is_judged_as_a_plain_loop_does() {
        for byte in 0..=255u8 {
            for offset in 0..20 {
                for fill in [b'a', 0x7f, 0x80, 0xff, 0x21, 0x23, 0x5b, 0x5d] {
                    let mut bytes = [fill; 20];
                    bytes[offset] = byte;
                    let plain = bytes.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').unwrap_or(20);
                    assert_eq!(special(&bytes), plain, "byte {byte} at {offset} in {fill}");
                }
            }
        }
    }
}
