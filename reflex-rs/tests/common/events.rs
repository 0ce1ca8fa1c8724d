//! Reads server-sent events from a socket, and serves an axum app on one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use axum::Router;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

use super::Reflex;

/// One event. Keep-alives and the retry line are skipped.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: String,
    pub name: String,
    pub data: Value,
}

/// An open event stream.
pub struct Events {
    pub status: u16,
    pub head: String,
    reader: BufReader<TcpStream>,
    text: String,
}

impl Events {
    /// `headers` are whole lines.
    pub fn open(reflex: &Reflex, path: &str, headers: &str) -> Self {
        let mut stream = reflex.connect();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head: head.to_lowercase(),
            reader,
            text: String::new(),
        }
    }

    /// The next event; none at the stream's end.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let event = parse(frame);
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            let more = self.chunk()?;
            self.text.push_str(&more);
        }
    }

    /// The next event that is not a notice.
    pub fn next_with_id(&mut self) -> Option<Event> {
        loop {
            let event = self.next()?;
            if !event.id.is_empty() {
                return Some(event);
            }
        }
    }

    /// The ids of all events until the end.
    pub fn ids(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next_with_id())
            .map(|event| event.id)
            .collect()
    }

    fn chunk(&mut self) -> Option<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let size =
            usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
        let mut data = vec![0; size + 2];
        self.reader.read_exact(&mut data).unwrap();
        data.truncate(size);
        (size > 0).then(|| String::from_utf8(data).unwrap())
    }
}

fn parse(frame: &str) -> Option<Event> {
    let field = |name: &str| {
        let found = frame.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or("").to_owned()
    };
    let data = field("data: ");
    (!data.is_empty()).then(|| Event {
        id: field("id: "),
        name: field("event: "),
        data: serde_json::from_str(&data).unwrap(),
    })
}

/// Serves until the runtime ends.
pub async fn serve(listener: tokio::net::TcpListener, app: Router) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
