//! Content encodings of request bodies: `gzip` and `deflate`, once, and never more output than a plain body may have.

use std::io::{ErrorKind, Read};

use axum::body::Bytes;
use axum::http::{header, HeaderMap};
use contracts::ContractError;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};

use crate::blocking::run_sized;
use crate::http::Problem;

/// Gzip members in one body. Each costs time of its own, however short it is.
const MAX_MEMBERS: usize = 64;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

/// Returns the encoding that the headers name. Fails if it is unknown, or if there are several.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let mut found = Encoding::Identity;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let names = value.to_str().map_err(|_| Problem::UnsupportedEncoding)?;
        for name in names.split(',').map(str::trim) {
            let next = match name.to_ascii_lowercase().as_str() {
                "identity" | "" => continue,
                "gzip" | "x-gzip" => Encoding::Gzip,
                "deflate" => Encoding::Deflate,
                _ => return Err(Problem::UnsupportedEncoding),
            };
            if found != Encoding::Identity {
                return Err(Problem::UnsupportedEncoding);
            }
            found = next;
        }
    }
    Ok(found)
}

/// Fails if the body is encoded: the signature of a webhook is over the bytes before or after, and no provider says which.
pub(in crate::http) fn require_identity(headers: &HeaderMap) -> Result<(), Problem> {
    match encoding(headers) {
        Ok(Encoding::Identity) => Ok(()),
        _ => Err(Problem::EncodedWebhook),
    }
}

/// Decodes a body of at most `limit` bytes to at most `limit` bytes.
pub(super) async fn decode(
    encoding: Encoding,
    body: Bytes,
    limit: usize,
) -> Result<Bytes, Problem> {
    if encoding == Encoding::Identity {
        return Ok(body);
    }
    // The time grows with what comes out, which nobody knows before.
    run_sized(limit, || inflate(encoding, &body, limit)).await
}

fn inflate(encoding: Encoding, body: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let mut decoded = Vec::with_capacity(body.len().saturating_mul(4).min(limit + 1));
    let (complete, name) = match encoding {
        Encoding::Gzip => (gzip(body, limit, &mut decoded), "gzip"),
        Encoding::Deflate if has_zlib_header(body) => {
            let complete = read(&mut ZlibDecoder::new(body), limit, &mut decoded);
            (complete, "deflate")
        }
        // Some senders leave out the zlib header.
        Encoding::Deflate => {
            let complete = read(&mut DeflateDecoder::new(body), limit, &mut decoded);
            (complete, "deflate")
        }
        Encoding::Identity => return Ok(Bytes::copy_from_slice(body)),
    };
    match complete {
        Ok(()) if decoded.len() > limit => Err(Problem::TooLarge(limit)),
        Ok(()) => Ok(decoded.into()),
        Err(error) => {
            let what = if error.kind() == ErrorKind::UnexpectedEof {
                "ends before its last block"
            } else {
                "is not valid"
            };
            let rule = format!("the body {what} as {name}, which its Content-Encoding names");
            Err(ContractError::malformed(rule).into())
        }
    }
}

/// Reads one member after the other. Stops with one byte more than `limit`.
fn gzip(mut body: &[u8], limit: usize, decoded: &mut Vec<u8>) -> std::io::Result<()> {
    for _ in 0..MAX_MEMBERS {
        read(&mut GzDecoder::new(&mut body), limit, decoded)?;
        if body.is_empty() || decoded.len() > limit {
            return Ok(());
        }
    }
    Err(ErrorKind::InvalidData.into())
}

fn read(decoder: &mut impl Read, limit: usize, output: &mut Vec<u8>) -> std::io::Result<()> {
    let left = limit + 1 - output.len();
    decoder.take(left as u64).read_to_end(output).map(drop)
}

/// Whether the data begins with a header of zlib (RFC 1950, section 2.2).
fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [first, second, ..]
        if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::http::HeaderMap;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use flate2::Compression;

    use super::{encoding, inflate, Encoding, MAX_MEMBERS};
    use crate::http::Problem;
    use crate::outcome::Outcome;

    const LIMIT: usize = 1000;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn outcome(encoding: Encoding, body: &[u8]) -> Result<usize, Outcome> {
        inflate(encoding, body, LIMIT)
            .map(|body| body.len())
            .map_err(|problem| problem.outcome())
    }

    #[test]
    fn one_encoding_may_be_named() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("content-encoding", value.parse().unwrap());
            }
            encoding(&headers)
        };
        for (values, expected) in [
            (&[][..], Encoding::Identity),
            (&["identity"], Encoding::Identity),
            (&["GZip"], Encoding::Gzip),
            (&["x-gzip"], Encoding::Gzip),
            (&["identity, deflate"], Encoding::Deflate),
        ] {
            assert_eq!(of(values).unwrap(), expected, "{values:?}");
        }
        for values in [
            &["br"][..],
            &["gzip, gzip"],
            &["gzip", "deflate"],
            &["gzip;q=1"],
            &["gz\u{fc}p"],
        ] {
            let refused = of(values);
            assert!(
                matches!(refused, Err(Problem::UnsupportedEncoding)),
                "{values:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn each_encoding_is_decoded_up_to_the_limit() {
        let fits = vec![b'x'; LIMIT];
        let long = vec![b'x'; LIMIT + 1];
        for (encoding, encode) in [
            (Encoding::Gzip, gzip as fn(&[u8]) -> Vec<u8>),
            (Encoding::Deflate, zlib),
            (Encoding::Deflate, deflate),
        ] {
            assert_eq!(outcome(encoding, &encode(b"")), Ok(0));
            assert_eq!(outcome(encoding, &encode(&fits)), Ok(LIMIT));
            assert_eq!(
                outcome(encoding, &encode(&long)),
                Err(Outcome::TooLarge),
                "{encoding:?}"
            );
        }
        let parts = [gzip(b"{\"goal\": "), gzip(b"\"x\"}")].concat();
        let whole = inflate(Encoding::Gzip, &parts, LIMIT).unwrap();
        assert_eq!(whole, &b"{\"goal\": \"x\"}"[..]);
    }

    #[test]
    fn what_is_broken_is_malformed() {
        let body = gzip(b"{\"goal\": \"x\"}");
        for broken in [
            &body[..body.len() - 1],
            &body[..5],
            b"",
            b"{\"goal\": \"x\"}",
            &[&body[..], b"x"].concat(),
            &gzip(b"").repeat(MAX_MEMBERS + 1),
        ] {
            assert_eq!(outcome(Encoding::Gzip, broken), Err(Outcome::Malformed));
        }
        for broken in [&b"\x78\x9c"[..], b"", b"\xff\xff\xff"] {
            assert_eq!(outcome(Encoding::Deflate, broken), Err(Outcome::Malformed));
        }
    }
}
