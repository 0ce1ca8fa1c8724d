//! `POST /v1/webhooks/{source}`.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use hmac::{Hmac, Mac};
use serde_json::{json, Value};
use sha2::Sha256;

use super::{topology, Api, Reply};
use crate::kinds::Table;
use crate::webhooks;

const SECRET: &str = "It is a good secret";

/// The shipped source `github`, with its secret if there is one.
fn api(secret: Option<&str>) -> Api {
    let sources = include_str!("../../../../webhooks.yaml");
    let sources = contracts::webhooks::parse(sources).unwrap();
    let sources = webhooks::prepare(sources, |_| secret.map(str::to_owned)).unwrap();
    Api::with_sources(topology(), sources)
}

async fn deliver(api: &Api, source: &str, body: &Value, secret: &str) -> Reply {
    let body = body.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let request = Request::post(format!("/v1/webhooks/{source}"))
        .header("content-type", "application/json")
        .header("x-github-event", "issues")
        .header("x-github-delivery", "d-1")
        .header("x-hub-signature-256", format!("sha256={signature}"));
    api.send(request.body(Body::from(body)).unwrap()).await
}

fn issue(action: &str) -> Value {
    json!({
        "action": action,
        "issue": {"number": 7, "title": "t", "body": "b", "user": {"login": "ada"}, "html_url": "u"},
        "repository": {"full_name": "a/b"},
    })
}

#[tokio::test]
async fn a_verified_delivery_becomes_one_task_of_its_sources_tenant() {
    let api = api(Some(SECRET));
    let first = deliver(&api, "github", &issue("opened"), SECRET).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    let again = deliver(&api, "github", &issue("opened"), SECRET).await;
    assert_eq!(again.json()["duplicate"], true);
    let tasks = api.store.tasks();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].tenant.as_str(), "default");
    assert_eq!(tasks[0].kind.as_deref(), Some("github.issues"));
}

#[tokio::test]
async fn any_other_delivery_stores_nothing() {
    let api = api(Some(SECRET));
    let wrong = deliver(&api, "github", &issue("opened"), "another secret").await;
    assert_eq!(wrong.problem(), (401, "invalid_signature".into()));
    let unknown = deliver(&api, "elsewhere", &issue("opened"), SECRET).await;
    assert_eq!(unknown.problem(), (404, "unknown_source".into()));
    let ignored = deliver(&api, "github", &issue("closed"), SECRET).await;
    assert_eq!(ignored.status, StatusCode::OK);
    let missing = deliver(&api, "github", &json!({"action": "opened"}), SECRET).await;
    assert_eq!(missing.problem(), (422, "schema".into()));
    assert!(api.store.tasks().is_empty());
    for outcome in ["invalid_signature", "unknown_source", "ignored", "schema"] {
        let name = format!("octollm_admission_total{{source=\"webhook\",outcome=\"{outcome}\"}}");
        assert_eq!(api.metric(&name), 1, "{outcome}");
    }
}

#[tokio::test]
async fn a_source_without_a_secret_accepts_nothing() {
    let api = api(None);
    let reply = deliver(&api, "github", &issue("opened"), SECRET).await;
    assert_eq!(reply.problem(), (503, "source_not_configured".into()));
}

#[tokio::test]
async fn a_delivery_that_no_recipe_can_plan_leaves_a_rejected_task() {
    let api = api(Some(SECRET));
    let schema = json!({"properties": {"number": {"type": "string"}}}).to_string();
    for (kind, outcome) in [("note", "unknown_kind"), ("github.issues", "invalid_input")] {
        let schemas = HashMap::from([(kind.to_owned(), schema.clone())]);
        api.kinds.replace(Some(Table::compile(schemas).unwrap()));
        let reply = deliver(&api, "github", &issue("opened"), SECRET).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
        assert_eq!(reply.json()["state"], "rejected");
        let name = format!("octollm_admission_total{{source=\"webhook\",outcome=\"{outcome}\"}}");
        assert_eq!(api.metric(&name), u64::from(kind == "note"), "{outcome}");
    }
    let tasks = api.store.tasks();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].message_type, "task.rejected.v1");
    // The key is still free once there is a recipe.
    api.kinds.replace(None);
    let repaired = deliver(&api, "github", &issue("opened"), SECRET).await;
    assert_eq!(repaired.json()["duplicate"], false);
}
