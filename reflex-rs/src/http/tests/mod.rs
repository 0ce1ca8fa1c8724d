//! The HTTP API on the in-memory store: no server, no socket.

mod clocks;
mod commands;
mod events;
mod kinds;
mod submissions;
mod webhooks;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{header, HeaderMap, Request, StatusCode};
use axum::Router;
use contracts::events::{TaskEvent, TaskStatus};
use contracts::topology::{self, Topology};
use http_body_util::BodyExt;
use indexmap::IndexMap;
use serde_json::{json, Value};
use service::Supervisor;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::{router, AllowedHosts, App, Limits};
use crate::admission::Rules;
use crate::auth::{Authenticator, Keys};
use crate::caller::Caller;
use crate::kinds::Kinds;
use crate::lookup::Lookup;
use crate::metrics::Metrics;
use crate::quotas::Quotas;
use crate::store::MemoryStore;
use crate::submit::{Durability, Service, ServiceConfig};
use crate::webhooks::Source;

/// The HTTP API with its store.
struct Api {
    router: Router,
    store: Arc<MemoryStore>,
    kinds: Arc<Kinds>,
    metrics: Arc<Metrics>,
}

/// A whole response.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The status and the code of a problem.
    fn problem(&self) -> (u16, String) {
        let problem = self.json();
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let code = problem["type"]
            .as_str()
            .and_then(|text| text.strip_prefix("urn:octollm:problem:"));
        (self.status.as_u16(), code.unwrap().to_owned())
    }
}

fn topology() -> Topology {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    topology::load(&root.join("streams.yaml"), &root.join("schemas/events")).unwrap()
}

impl Api {
    fn new() -> Self {
        Self::with(topology())
    }

    fn with(topology: Topology) -> Self {
        Self::with_sources(topology, IndexMap::new())
    }

    fn with_sources(topology: Topology, sources: IndexMap<String, Source>) -> Self {
        let topology = Arc::new(topology);
        let store = Arc::new(MemoryStore::new(Arc::clone(&topology)));
        let metrics = Arc::new(Metrics::default());
        let supervisor = Supervisor::default();
        let kinds = Arc::new(Kinds::default());
        let service = Service {
            lookup: Lookup {
                store: Arc::clone(&store) as _,
                api: None,
            },
            rules: Arc::new(Rules::built_in().unwrap()),
            kinds: Arc::clone(&kinds),
            topology,
            quotas: Arc::new(Quotas::none(Arc::clone(&metrics))),
            config: ServiceConfig {
                durability: Durability::NONE,
                replicas: 1,
                durability_wait: Duration::from_secs(60),
            },
            supervisor: supervisor.clone(),
            running: TaskTracker::new(),
        };
        let keys = Keys::default();
        keys.set(Some(Arc::default()));
        let authenticator = Authenticator {
            keys: Arc::new(keys),
            tokens: None,
            anonymous: Some(Caller::new("acme".parse().unwrap())),
            clock: Arc::new(|| Some(contracts::ids::now_ms())),
        };
        let app = App {
            service: Arc::new(service),
            metrics: Arc::clone(&metrics),
            ingest: Arc::default(),
            sources,
            authenticator: Arc::new(authenticator),
            submission_slots: Semaphore::new(10),
            event_slots: Arc::new(Semaphore::new(1)),
            supervisor,
            limits: Limits {
                body_bytes: 1000,
                body_timeout: Duration::from_secs(60),
            },
            hosts: AllowedHosts::Loopback(None),
            cors_origins: Vec::new(),
        };
        Self {
            router: router(Arc::new(app)),
            store,
            kinds,
            metrics,
        }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.send(Request::delete(path).body(Body::empty()).unwrap())
            .await
    }

    async fn submit(&self, body: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(submission(body.to_owned(), headers)).await
    }

    /// Submits a task; returns its id.
    async fn task(&self) -> String {
        let reply = self.submit(r#"{"goal": "x"}"#, &[]).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
        reply.json()["task"].as_str().unwrap().to_owned()
    }

    /// The value of a counter; 0 if it was never counted.
    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.text().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    fn submissions(&self, outcome: &str) -> u64 {
        self.metric(&format!(
            "octollm_admission_total{{source=\"http\",outcome=\"{outcome}\"}}"
        ))
    }
}

fn submission(body: impl Into<Body>, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post("/v1/tasks").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

fn status(task: &str, tenant: &str, state: &str, run: u32) -> TaskStatus {
    serde_json::from_value(json!({
        "task": task, "tenant": tenant, "state": state, "run": run, "version": 1, "stored": true,
        "created_at": "2026-01-31T12:00:00.000Z",
    }))
    .unwrap()
}

fn event(task: &str, seq: u32, name: &str) -> TaskEvent {
    let mut event = json!({
        "task": task, "run": 1, "seq": seq, "tenant": "acme", "at": "2026-01-31T12:00:00.000Z", "event": name,
    });
    if name == "finished" {
        event["state"] = "succeeded".into();
    }
    serde_json::from_value(event).unwrap()
}
