//! `GET /v1/tasks/{id}/events`.

use axum::body::Body;
use axum::http::{header, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::{event, status, Api, Reply};

/// The ids in a stream's text, in order.
fn ids(reply: &Reply) -> Vec<&str> {
    let lines = reply.body.lines();
    lines.filter_map(|line| line.strip_prefix("id: ")).collect()
}

#[tokio::test]
async fn a_stream_has_the_history_and_then_new_events_until_the_run_finishes() {
    let api = Api::new();
    let task = api.task().await;
    api.store.publish(event(&task, 1, "accepted"));
    let url = format!("/v1/tasks/{task}/events");
    let request = Request::get(&url).body(Body::empty()).unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    // Another stream has no slot.
    assert_eq!(api.get(&url).await.problem(), (503, "overloaded".into()));
    api.store.publish(event(&task, 2, "planned"));
    api.store.publish(event(&task, 2, "planned"));
    api.store.publish(event(&task, 3, "finished"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let reply = Reply {
        status: StatusCode::OK,
        headers: header::HeaderMap::new(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let retry = reply
        .body
        .strip_prefix("retry: ")
        .and_then(|rest| rest.split('\n').next());
    let retry: u64 = retry.unwrap().parse().unwrap();
    assert!((1000..=3000).contains(&retry), "{reply:?}");
    assert_eq!(ids(&reply), ["1-1", "1-2", "1-3"]);
}

#[tokio::test]
async fn a_client_continues_after_the_last_event_that_it_has() {
    let api = Api::new();
    let task = api.task().await;
    for (seq, name) in [(1, "accepted"), (2, "planned"), (3, "finished")] {
        api.store.publish(event(&task, seq, name));
    }
    api.store.set_status(status(&task, "acme", "succeeded", 1));
    let url = format!("/v1/tasks/{task}/events");
    let rest = api.get(&format!("{url}?after=1-1")).await;
    assert_eq!(ids(&rest), ["1-2", "1-3"]);
    let request = Request::get(format!("{url}?after=1-1")).header("last-event-id", "1-2");
    let rest = api.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(ids(&rest), ["1-3"]);
    let nothing = api.get(&format!("{url}?after=1-3")).await;
    assert_eq!(nothing.status, StatusCode::NO_CONTENT);
    let invalid = api.get(&format!("{url}?after=1")).await;
    assert_eq!(invalid.problem(), (400, "invalid_last_event_id".into()));
}
