//! Which hosts a request without a credential may name. Pure.
//!
//! A web page can make a browser send requests to a loopback address under a name of its own (DNS rebinding). Such a request
//! names a foreign host in `Host` or `Origin`. To any other address it can send them under that address's own name; such a
//! request names the page's host in `Origin`.

use axum::http::uri::Authority;
use axum::http::{header, HeaderMap, HeaderValue, Uri};
use std::net::{IpAddr, SocketAddr};

/// The hosts that a request without a credential may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHosts {
    /// Any: such a request is refused later.
    Any,
    /// Any `Host`, but an `Origin` only of the same host, or of the host of `reflex.url`.
    SameOrigin(Option<String>),
    /// Loopback names and addresses, and the host of `reflex.url`.
    Loopback(Option<String>),
}

impl AllowedHosts {
    /// `listen`: where the reflex listens; `url`: the setting `reflex.url`; `anonymous`: whether requests need no credential.
    #[must_use]
    pub fn new(listen: SocketAddr, url: &str, anonymous: bool) -> Self {
        let url: Option<Uri> = url.parse().ok();
        let own = url.as_ref().and_then(Uri::host).map(str::to_lowercase);
        if listen.ip().is_loopback() {
            Self::Loopback(own)
        } else if anonymous {
            Self::SameOrigin(own)
        } else {
            Self::Any
        }
    }

    /// Whether every host that the request names is allowed; in `Origin`, `origins` are as well. A request that names none, as
    /// HTTP/1.0 permits, is no browser's.
    #[must_use]
    pub fn allow(&self, uri: &Uri, headers: &HeaderMap, origins: &[HeaderValue]) -> bool {
        let mut others = headers
            .get_all(header::ORIGIN)
            .iter()
            .filter(|origin| !origins.contains(origin));
        match self {
            Self::Any => true,
            Self::SameOrigin(own) => is_same_origin(uri, headers, others, own.as_deref()),
            Self::Loopback(own) => {
                let own = own.as_deref();
                names_only_local(uri, headers, own)
                    && others.all(|value| {
                        origin_of(value).is_some_and(|origin| is_local(&origin.0, own))
                    })
            }
        }
    }
}

fn names_only_local(uri: &Uri, headers: &HeaderMap, own: Option<&str>) -> bool {
    uri.host().is_none_or(|host| is_local(host, own))
        && headers
            .get_all(header::HOST)
            .iter()
            .all(|value| host_of(value).is_some_and(|host| is_local(host.host(), own)))
}

/// Whether a request that names an origin names the same host and port there, or the host of `reflex.url`.
fn is_same_origin<'a>(
    uri: &Uri,
    headers: &HeaderMap,
    mut origins: impl Iterator<Item = &'a HeaderValue>,
    own: Option<&str>,
) -> bool {
    let target = uri
        .authority()
        .cloned()
        .or_else(|| headers.get(header::HOST).and_then(host_of));
    origins.all(|value| {
        let Some((host, port)) = origin_of(value) else {
            return false;
        };
        let default_port = if value.as_bytes().starts_with(b"https:") {
            443
        } else {
            80
        };
        let same = target.as_ref().is_some_and(|target| {
            target.host().eq_ignore_ascii_case(&host)
                && target.port_u16().unwrap_or(default_port) == port.unwrap_or(default_port)
        });
        same || own == Some(host.to_lowercase().as_str())
    })
}

fn host_of(value: &HeaderValue) -> Option<Authority> {
    value.to_str().ok()?.parse().ok()
}

/// Host and port of an origin.
fn origin_of(value: &HeaderValue) -> Option<(String, Option<u16>)> {
    let origin: Uri = value.to_str().ok()?.parse().ok()?;
    origin.scheme()?;
    Some((origin.host()?.to_owned(), origin.port_u16()))
}

/// Whether it is a name without a dot, such as `localhost` or a container's. Nobody can register one, so no page can have it.
fn is_single_label(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn is_local(host: &str, own: Option<&str>) -> bool {
    let host = host.to_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.strip_suffix('.').unwrap_or(&host);
    own == Some(host.as_str())
        || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        || is_single_label(name)
        || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::{AllowedHosts, HeaderMap, Uri};

    fn allows(allowed: &AllowedHosts, headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        allowed.allow(&Uri::from_static("/v1/tasks"), &map, &[])
    }

    #[test]
    fn only_local_hosts_are_allowed_on_a_loopback_address() {
        let own = AllowedHosts::new(
            "127.0.0.1:8080".parse().unwrap(),
            "https://octollm.example.org/",
            false,
        );
        for host in [
            "127.0.0.1:8080",
            "127.1.2.3",
            "localhost:1",
            "LocalHost",
            "octollm-reflex:8080",
            "localhost.",
            "app.localhost:8080",
            "[::1]:8080",
            "octollm.example.org",
            "OctoLLM.example.org:443",
        ] {
            assert!(allows(&own, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.test",
            "evil.test:8080",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "10.0.0.1:8080",
            "[::2]:8080",
            "user@127.0.0.1@evil.test",
            "",
        ] {
            assert!(!allows(&own, &[("host", host)]), "{host}");
        }
        assert!(!allows(
            &own,
            &[("host", "localhost"), ("host", "evil.test")]
        ));
        assert!(!own.allow(
            &Uri::from_static("http://evil.test/v1/tasks"),
            &HeaderMap::new(),
            &[]
        ));
    }

    #[test]
    fn a_foreign_origin_is_refused_also_under_a_local_host() {
        let own = AllowedHosts::new("[::1]:8080".parse().unwrap(), "http://127.0.0.1:8080", true);
        let from = |origin| allows(&own, &[("host", "localhost"), ("origin", origin)]);
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[::1]:9",
        ] {
            assert!(from(origin), "{origin}");
        }
        for origin in ["null", "http://evil.test:8080", "evil.test", "file://", ""] {
            assert!(!from(origin), "{origin}");
        }
        assert!(allows(&own, &[]));
    }

    #[test]
    fn beyond_loopback_an_anonymous_request_must_come_from_the_same_origin() {
        let any = "0.0.0.0:8080".parse().unwrap();
        let open = AllowedHosts::new(any, "https://octollm.example.org", true);
        let from = |host, origin| allows(&open, &[("host", host), ("origin", origin)]);
        for (host, origin) in [
            ("octollm:8080", "http://octollm:8080"),
            ("OctoLLM:80", "http://octollm"),
            ("10.0.0.1", "https://10.0.0.1:443"),
            ("[fd00::1]:8080", "http://[fd00::1]:8080"),
            ("inner:8080", "https://octollm.example.org"),
        ] {
            assert!(from(host, origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("octollm:8080", "http://evil.test:8080"),
            ("octollm:8080", "http://octollm:3000"),
            ("octollm", "http://octollm:443"),
            ("octollm:8080", "null"),
            ("octollm:8080", ""),
        ] {
            assert!(!from(host, origin), "{host} {origin}");
        }
        assert!(allows(&open, &[("host", "octollm")]), "no browser's");
        assert!(!allows(&open, &[("origin", "http://octollm")]));
        let closed = AllowedHosts::new(any, "http://127.0.0.1:8080", false);
        assert_eq!(closed, AllowedHosts::Any);
        assert!(allows(
            &closed,
            &[("host", "octollm"), ("origin", "http://evil.test")]
        ));
    }
}
