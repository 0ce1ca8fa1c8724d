//! Which credential the headers of a request contain.

use axum::http::{header, HeaderMap, HeaderName};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What a request presents.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    Nothing,
    /// The token of `Authorization: Bearer`.
    Bearer(&'a str),
    /// The value of `X-Api-Key`.
    ApiKey(&'a str),
    /// More than one credential, another scheme, or not a text.
    Malformed,
}

/// Whether the request has a header for credentials, valid or not.
#[must_use]
pub fn is_presented(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key(API_KEY)
}

/// Finds the credential. It may stand in one header only, so that no proxy and no reflex can disagree about which one counts.
pub(super) fn find(headers: &HeaderMap) -> Presented<'_> {
    let mut bearer = headers.get_all(header::AUTHORIZATION).iter();
    let mut keys = headers.get_all(API_KEY).iter();
    let values = (bearer.next(), bearer.next(), keys.next(), keys.next());
    let found = match values {
        (None, _, None, _) => return Presented::Nothing,
        (Some(value), None, None, _) => {
            let token = value.to_str().ok().and_then(bearer_token);
            token.map(Presented::Bearer)
        }
        (None, _, Some(value), None) => value.to_str().ok().map(Presented::ApiKey),
        _ => None,
    };
    found.unwrap_or(Presented::Malformed)
}

fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::{find, is_presented, HeaderMap, Presented};

    #[test]
    fn a_credential_stands_in_exactly_one_header() {
        let cases: [(&[(&str, &str)], Presented); 12] = [
            (&[], Presented::Nothing),
            (&[("authorization", "Bearer x")], Presented::Bearer("x")),
            (&[("authorization", "bearer  x ")], Presented::Bearer("x")),
            (&[("authorization", "Bearer ")], Presented::Bearer("")),
            (&[("x-api-key", "x")], Presented::ApiKey("x")),
            (&[("authorization", "Bearer")], Presented::Malformed),
            (&[("authorization", "Basic eDp5")], Presented::Malformed),
            (&[("authorization", "")], Presented::Malformed),
            (&[("x-api-key", "é")], Presented::Malformed),
            (
                &[("x-api-key", "x"), ("x-api-key", "x")],
                Presented::Malformed,
            ),
            (
                &[("authorization", "Bearer x"), ("authorization", "Bearer x")],
                Presented::Malformed,
            ),
            (
                &[("authorization", "Bearer x"), ("x-api-key", "x")],
                Presented::Malformed,
            ),
        ];
        for (headers, expected) in cases {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let name: axum::http::HeaderName = name.parse().unwrap();
                map.append(name, value.parse().unwrap());
            }
            assert_eq!(find(&map), expected, "{headers:?}");
            assert_eq!(is_presented(&map), expected != Presented::Nothing);
        }
    }
}
