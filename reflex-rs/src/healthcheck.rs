//! `--healthcheck`: asks the reflex that runs beside it, in the same container, whether it is ready.
//!
//! Images for production carry neither curl nor a shell worth having, so the program asks itself.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// For connecting, and again for each part of the answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than any answer of `/readyz`.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// The text of a ready answer; else a sentence that says why it is none.
pub fn ask(listen: SocketAddr) -> Result<String, String> {
    let address = reachable(listen);
    if address.port() == 0 {
        return Err(
            "reflex.listen has port 0, so nobody can know where it listens; set OCTOLLM_REFLEX_LISTEN to a port"
                .to_owned(),
        );
    }
    let answer = fetch(address)
        .map_err(|error| format!("no answer from http://{address}/readyz ({error})"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let body = body.trim().to_owned();
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body),
        Some(status) => Err(format!("http://{address}/readyz answers {status}: {body}")),
        None => Err(format!("http://{address}/readyz does not speak HTTP")),
    }
}

/// Who listens everywhere is asked on the loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn fetch(address: SocketAddr) -> Result<String, Error> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    match stream.take(LONGEST_ANSWER).read_to_string(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(
            Error::new(ErrorKind::TimedOut, format!("silent for {PATIENCE:?}")),
        ),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a broken assumption ends the test

    use super::{reachable, SocketAddr};

    #[test]
    fn who_listens_everywhere_is_asked_on_the_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            let listen: SocketAddr = listen.parse().unwrap();
            assert_eq!(reachable(listen).to_string(), asked);
        }
    }
}
