//! The part of `MessagePack` that a queued message needs: lists and texts, as Redis' `cmsgpack` packs them.

use std::io::{self, Write};

/// Begins a list of up to 15 values.
pub(super) fn write_list(out: &mut impl Write, length: u8) -> io::Result<()> {
    out.write_all(&[0x90 | (length & 0x0f)])
}

/// Writes a text, which may hold any bytes.
pub(super) fn write_text(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    let length = u32::try_from(text.len())
        .map_err(io::Error::other)?
        .to_be_bytes();
    match length {
        [0, 0, 0, short @ 0..32] => out.write_all(&[0xa0 | short])?,
        [0, 0, 0, short] => out.write_all(&[0xd9, short])?,
        [0, 0, high, low] => out.write_all(&[0xda, high, low])?,
        long => {
            out.write_all(&[0xdb])?;
            out.write_all(&long)?;
        }
    }
    out.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::{write_list, write_text};

    fn packed(length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write_text(&mut out, &vec![b'x'; length]).unwrap();
        out.truncate(out.len() - length);
        out
    }

    #[test]
    fn a_text_has_the_shortest_header_for_its_length() {
        assert_eq!(packed(0), [0xa0]);
        assert_eq!(packed(31), [0xbf]);
        assert_eq!(packed(32), [0xd9, 32]);
        assert_eq!(packed(255), [0xd9, 255]);
        assert_eq!(packed(256), [0xda, 1, 0]);
        assert_eq!(packed(65_535), [0xda, 255, 255]);
        assert_eq!(packed(65_536), [0xdb, 0, 1, 0, 0]);
        let mut list = Vec::new();
        write_list(&mut list, 10).unwrap();
        assert_eq!(list, [0x9a]);
    }
}
