//! A stand-in for the Python API on a real socket: gives the answers that a test sets, and records the requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

type Answers = HashMap<String, (u16, String, Duration)>;

#[derive(Clone, Default)]
struct Shared {
    answers: Arc<Mutex<Answers>>,
    requests: Arc<Mutex<Vec<Received>>>,
}

/// One request as it was received.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: String,
    pub path: String,
    /// Every value of the header that names the caller.
    pub callers: Vec<String>,
    /// The tenants in these.
    pub tenants: Vec<String>,
    pub headers: Vec<String>,
}

pub struct Api {
    pub url: String,
    shared: Shared,
    _runtime: tokio::runtime::Runtime,
}

impl Api {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = Shared::default();
        let app = axum::Router::new()
            .fallback(answer)
            .with_state(shared.clone());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            super::events::serve(listener, app).await;
        });
        Self {
            url,
            shared,
            _runtime: runtime,
        }
    }

    /// Sets the answer for a path, with its query or without. Every other path is answered with 404.
    pub fn answer(&self, path: &str, status: u16, body: &Value) {
        self.answer_late(path, status, body, Duration::ZERO);
    }

    /// Like `answer`, after a delay.
    pub fn answer_late(&self, path: &str, status: u16, body: &Value, delay: Duration) {
        let answer = (status, body.to_string(), delay);
        let mut answers = self.shared.answers.lock().unwrap();
        answers.insert(path.to_owned(), answer);
    }

    pub fn requests(&self) -> Vec<Received> {
        self.shared.requests.lock().unwrap().clone()
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().to_string();
    let headers = request.headers();
    let callers = headers.get_all("octollm-caller").iter();
    let callers: Vec<String> = callers
        .map(|value| value.to_str().unwrap().to_owned())
        .collect();
    let tenants = callers.iter().filter_map(|caller| {
        let field = caller.split(';').nth(2)?;
        field.strip_prefix("tenant=").map(str::to_owned)
    });
    let received = Received {
        method: request.method().to_string(),
        path: path.clone(),
        tenants: tenants.collect(),
        callers: callers.clone(),
        headers: headers.keys().map(ToString::to_string).collect(),
    };
    shared.requests.lock().unwrap().push(received);
    let found = {
        let answers = shared.answers.lock().unwrap();
        let known = answers
            .get(&path)
            .or_else(|| answers.get(request.uri().path()));
        known.cloned()
    };
    let Some((status, body, delay)) = found else {
        return (StatusCode::NOT_FOUND, "{}").into_response();
    };
    tokio::time::sleep(delay).await;
    let kind = [
        (header::CONTENT_TYPE.as_str(), "application/json"),
        ("x-inner", "secret"),
    ];
    (StatusCode::from_u16(status).unwrap(), kind, body).into_response()
}
