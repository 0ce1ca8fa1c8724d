//! The byte order mark that some senders put before JSON, and texts in another encoding than UTF-8.

use contracts::ContractError;

/// Returns the body without the byte order mark of UTF-8, which a reader of JSON may ignore (RFC 8259, section 8.1).
///
/// Fails with an error that names the encoding if the body is UTF-16 or UTF-32.
pub fn without_mark(body: &[u8]) -> Result<&[u8], ContractError> {
    match body {
        [0xef, 0xbb, 0xbf, rest @ ..] => Ok(rest),
        // A mark, or the first character of a JSON text between zeros.
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [b'{' | b'[', 0, ..] => {
            let rule = "the body is UTF-16 or UTF-32; send UTF-8";
            Err(ContractError::malformed(rule))
        }
        _ => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use super::without_mark;

    #[test]
    fn the_mark_of_utf_8_is_ignored_once() {
        for (body, text) in [
            (&b"\xef\xbb\xbf{}"[..], &b"{}"[..]),
            (b"\xef\xbb\xbf", b""),
            (b"\xef\xbb\xbf\xef\xbb\xbf{}", b"\xef\xbb\xbf{}"),
            (b"\xef\xbb", b"\xef\xbb"),
            (b"{}", b"{}"),
            (b"", b""),
        ] {
            assert_eq!(without_mark(body).unwrap(), text);
        }
    }

    #[test]
    fn another_encoding_is_named() {
        for body in [
            &b"\xff\xfe{\0}\0"[..],
            b"\xfe\xff\0{\0}",
            b"{\0}\0",
            b"\0{\0}",
            b"\xff\xfe\0\0{\0\0\0",
            b"\0\0\xfe\xff\0\0\0{",
            b"[\0\0\0]\0\0\0",
        ] {
            let error = without_mark(body).unwrap_err();
            assert!(error.message.contains("UTF-16"), "{error}");
        }
    }
}
