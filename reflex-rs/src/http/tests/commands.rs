//! Reads of a task and commands about it.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;

use super::{status, Api};

const UNKNOWN: &str = "l0-01h00000000000000000000000";

#[tokio::test]
async fn another_tenants_task_does_not_exist() {
    let api = Api::new();
    api.store.set_status(status(UNKNOWN, "other", "failed", 1));
    let url = format!("/v1/tasks/{UNKNOWN}");
    let redrive = Request::post(format!("{url}/runs"))
        .body(Body::empty())
        .unwrap();
    for reply in [
        api.get(&url).await,
        api.delete(&url).await,
        api.send(redrive).await,
        api.get(&format!("{url}/events")).await,
        api.get("/v1/tasks/invalid").await,
    ] {
        assert_eq!(reply.problem(), (404, "not_found".into()));
    }
    api.store.set_status(status(UNKNOWN, "acme", "failed", 1));
    assert_eq!(api.get(&url).await.json()["state"], "failed");
}

#[tokio::test]
async fn a_task_can_be_cancelled_until_it_has_ended() {
    let api = Api::new();
    let task = api.task().await;
    let url = format!("/v1/tasks/{task}");
    let accepted = api.delete(&url).await;
    assert_eq!(
        (accepted.status, accepted.json()),
        (
            StatusCode::ACCEPTED,
            json!({"task": task, "state": "accepted"})
        )
    );
    api.store.set_status(status(&task, "acme", "succeeded", 1));
    let ended = api.delete(&url).await;
    assert_eq!(
        (ended.status, ended.json()["state"].as_str()),
        (StatusCode::OK, Some("succeeded"))
    );
    let twice = api
        .delete(&format!("{url}?detail=a&detail=b"))
        .await
        .problem();
    assert_eq!(twice, (422, "schema".into()));
    for outcome in ["accepted", "ended", "schema"] {
        let name = format!("octollm_requests_total{{route=\"cancel\",outcome=\"{outcome}\"}}");
        assert_eq!(api.metric(&name), 1, "{outcome}");
    }
}

#[tokio::test]
async fn only_a_failed_run_can_be_followed_by_another() {
    let api = Api::new();
    let task = api.task().await;
    let redrive = |body: &'static str| {
        let request = Request::post(format!("/v1/tasks/{task}/runs"))
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        api.send(request)
    };
    let unchanged = redrive("").await;
    assert_eq!(unchanged.status, StatusCode::OK);
    assert_eq!(unchanged.json()["accepted"], false);
    assert_eq!(unchanged.json()["detail"], "run 1 has not ended");
    api.store.set_status(status(&task, "acme", "failed", 2));
    let accepted = redrive(r#"{"run": 2}"#).await;
    assert_eq!(
        (accepted.status, accepted.json()),
        (
            StatusCode::ACCEPTED,
            json!({"task": task, "state": "failed", "run": 2, "accepted": true})
        )
    );
    assert_eq!(redrive(r#"{"run": 1}"#).await.json()["accepted"], false);
    assert_eq!(
        redrive(r#"{"run": 3}"#).await.problem(),
        (422, "schema".into())
    );
}

#[tokio::test]
async fn what_only_the_api_knows_is_named_as_such() {
    let api = Api::new();
    for reply in [
        api.get("/v1/tasks").await,
        api.get("/v1/costs").await,
        api.delete("/v1/dead-letters/7").await,
    ] {
        assert_eq!(reply.problem(), (404, "api_not_configured".into()));
    }
    assert_eq!(
        api.get("/elsewhere").await.problem(),
        (404, "not_found".into())
    );
    let put = Request::put("/v1/tasks").body(Body::empty()).unwrap();
    assert_eq!(
        api.send(put).await.problem(),
        (405, "method_not_allowed".into())
    );
    assert_eq!(api.get("/healthz").await.json(), json!({"status": "ok"}));
}
