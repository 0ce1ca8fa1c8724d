//! `--healthcheck`: checks whether the reflex that runs in the same container is ready.
//!
//! Production images contain neither curl nor a shell, so the program is its own HTTP client.

mod tls;

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// For the connection, and again for each part of the response.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Larger than any response of `/readyz`.
const MAX_RESPONSE_BYTES: u64 = 64 * 1024;

/// Sends GET `/readyz` to the reflex at `listen`, over TLS if it has a file with a certificate. Returns the body if it is ready, else the reason why it is not.
pub fn check(listen: SocketAddr, certificate: &str) -> Result<String, String> {
    let address = reachable(listen);
    if address.port() == 0 {
        return Err(
            "reflex.listen has port 0, so the port is not known; set OCTOLLM_REFLEX_LISTEN to a port"
                .to_owned(),
        );
    }
    let scheme = if certificate.is_empty() {
        "http"
    } else {
        "https"
    };
    let url = format!("{scheme}://{address}/readyz");
    let answer =
        fetch(address, certificate).map_err(|error| format!("no answer from {url} ({error})"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let body = body.trim().to_owned();
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body),
        Some(status) => Err(format!("{url} answers {status}: {body}")),
        None => Err(format!("{url} does not speak HTTP")),
    }
}

/// Replaces the address of all interfaces by the loopback address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn fetch(address: SocketAddr, certificate: &str) -> Result<String, Error> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    if certificate.is_empty() {
        request(stream, address)
    } else {
        request(tls::connect(stream, Path::new(certificate))?, address)
    }
}

fn request(mut stream: impl Read + Write, address: SocketAddr) -> Result<String, Error> {
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    match stream.take(MAX_RESPONSE_BYTES).read_to_string(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(
            Error::new(ErrorKind::TimedOut, format!("silent for {TIMEOUT:?}")),
        ),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a broken assumption ends the test

    use super::{reachable, SocketAddr};

    #[test]
    fn all_interfaces_are_checked_on_the_loopback() {
        for (listen, checked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            let listen: SocketAddr = listen.parse().unwrap();
            assert_eq!(reachable(listen).to_string(), checked);
        }
    }
}
