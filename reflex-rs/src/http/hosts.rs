//! Which hosts a request may name while the reflex listens on a loopback address. Pure.
//!
//! A web page can make a browser send requests to a loopback address under a name of its own (DNS rebinding). Such a request
//! names a foreign host in `Host` or `Origin`.

use axum::http::uri::Authority;
use axum::http::{header, HeaderMap, HeaderValue, Uri};
use std::net::{IpAddr, SocketAddr};

/// The hosts that a request may name; `Any` where the network is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHosts {
    Any,
    /// Loopback names and addresses, and the host of `reflex.url`, if that is another.
    Loopback(Option<String>),
}

impl AllowedHosts {
    /// `listen`: where the reflex listens; `url`: the setting `reflex.url`.
    #[must_use]
    pub fn new(listen: SocketAddr, url: &str) -> Self {
        if !listen.ip().is_loopback() {
            return Self::Any;
        }
        let url: Option<Uri> = url.parse().ok();
        Self::Loopback(url.as_ref().and_then(Uri::host).map(str::to_lowercase))
    }

    /// Whether every host that the request names is allowed. One that names none, as HTTP/1.0 permits, is no browser's.
    #[must_use]
    pub fn allow(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let Self::Loopback(own) = self else {
            return true;
        };
        let own = own.as_deref();
        uri.host().is_none_or(|host| is_local(host, own))
            && headers
                .get_all(header::HOST)
                .iter()
                .all(|value| host_of(value).is_some_and(|host| is_local(&host, own)))
            && headers
                .get_all(header::ORIGIN)
                .iter()
                .all(|value| origin_of(value).is_some_and(|host| is_local(&host, own)))
    }
}

fn host_of(value: &HeaderValue) -> Option<String> {
    let authority: Authority = value.to_str().ok()?.parse().ok()?;
    Some(authority.host().to_owned())
}

fn origin_of(value: &HeaderValue) -> Option<String> {
    let origin: Uri = value.to_str().ok()?.parse().ok()?;
    origin.scheme()?;
    origin.host().map(str::to_owned)
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
        allowed.allow(&Uri::from_static("/v1/tasks"), &map)
    }

    #[test]
    fn only_local_hosts_are_allowed_on_a_loopback_address() {
        let own = AllowedHosts::new(
            "127.0.0.1:8080".parse().unwrap(),
            "https://octollm.example.org/",
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
            &HeaderMap::new()
        ));
    }

    #[test]
    fn a_foreign_origin_is_refused_also_under_a_local_host() {
        let own = AllowedHosts::new("[::1]:8080".parse().unwrap(), "http://127.0.0.1:8080");
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
    fn a_trusted_network_may_use_any_name() {
        let any = AllowedHosts::new("0.0.0.0:8080".parse().unwrap(), "http://127.0.0.1:8080");
        assert_eq!(any, AllowedHosts::Any);
        assert!(allows(
            &any,
            &[("host", "octollm"), ("origin", "http://evil.test")]
        ));
    }
}
