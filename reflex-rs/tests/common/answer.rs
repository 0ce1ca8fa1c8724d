//! The answer to an HTTP request, as it came over the wire.

use std::io::Read;
use std::net::TcpStream;

use serde_json::Value;

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn read(stream: &mut TcpStream) -> Self {
        let mut raw = Vec::new();
        // A reset after the answer does not change it.
        let _ = stream.read_to_end(&mut raw);
        let text = String::from_utf8(raw).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Self {
            status: status.unwrap_or(0),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The JSON of an answer with any transfer encoding.
    pub fn json_of_chunks(&self) -> Value {
        if !self.head.contains("transfer-encoding: chunked") {
            return self.json();
        }
        let (mut text, mut rest) = (String::new(), self.body.as_str());
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            text.push_str(&after[..size]);
            rest = after[size..].trim_start_matches("\r\n");
        }
        serde_json::from_str(&text).unwrap()
    }

    /// The problem without what tells one request from another.
    pub fn without_id(&self) -> Value {
        let mut problem = self.json();
        assert!(problem["request_id"].take().is_string(), "{self:?}");
        problem
    }

    /// The problem's code and field. Panics if this is not a problem document.
    pub fn problem(&self) -> (String, String) {
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["status"], self.status, "{self:?}");
        assert!(!body["detail"].as_str().unwrap().is_empty());
        let code = body["type"].as_str().unwrap().rsplit(':').next().unwrap();
        let field = body["field"].as_str().unwrap_or("");
        (code.to_owned(), field.to_owned())
    }
}
