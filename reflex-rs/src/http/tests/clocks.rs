//! Times that decide something come from the store: this machine's clock may be wrong by any amount.

use axum::body::Body;
use axum::http::Request;
use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use contracts::ids;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::{topology, Api};
use crate::webhooks;

/// An hour and several days, in both directions.
const AHEAD_MS: [i64; 4] = [3_600_000, -3_600_000, 400_000_000, -400_000_000];
const DAY_MS: i64 = 86_400_000;
/// Far longer than a request takes, and far shorter than the clocks differ.
const SLACK_MS: u64 = 60_000;

const KEY: &[u8] = b"a key of at least 24 bytes";
const SOURCE: &str = "
version: 1
sources:
  acme:
    description: x
    scheme: standard
    tenant: acme
    secrets: [env:ACME_SECRET]
    events:
      invoice.paid: {kind: note, goal: note it, input: {text: /text}}
";

/// The store's time, `ms` later.
fn store_ms(ahead_ms: i64, ms: i64) -> u64 {
    ids::now_ms().saturating_add_signed(ahead_ms + ms)
}

#[tokio::test]
async fn a_task_is_received_at_the_stores_time() {
    for ahead_ms in AHEAD_MS {
        let api = Api::new();
        api.store.set_clock_ahead(ahead_ms);
        let task = api.task().await;
        let stored = &api.store.tasks()[0];
        let body: Value = serde_json::from_slice(&stored.body).unwrap();
        let status = api.get(&format!("/v1/tasks/{task}")).await.json();
        for time in [&body["received_at"], &status["created_at"]] {
            let received_ms = ids::timestamp_ms(time.as_str().unwrap()).unwrap();
            let difference = received_ms.abs_diff(store_ms(ahead_ms, 0));
            assert!(difference < SLACK_MS, "{time} with {ahead_ms} ms");
        }
    }
}

#[tokio::test]
async fn how_far_ahead_a_task_may_start_is_counted_from_the_stores_time() {
    for ahead_ms in AHEAD_MS {
        let api = Api::new();
        api.store.set_clock_ahead(ahead_ms);
        for (days_ms, status) in [
            (30 * DAY_MS - 60_000, 202),
            (30 * DAY_MS + 60_000, 422),
            (0, 202),
        ] {
            let not_before = ids::timestamp(store_ms(ahead_ms, days_ms));
            let body = format!(r#"{{"goal": "x", "not_before": "{not_before}"}}"#);
            let reply = api.submit(&body, &[]).await;
            assert_eq!(reply.status, status, "{not_before} with {ahead_ms} ms");
        }
    }
}

#[tokio::test]
async fn how_old_a_delivery_may_be_is_counted_from_the_stores_time() {
    for ahead_ms in AHEAD_MS {
        let sources = contracts::webhooks::parse(SOURCE).unwrap();
        let secret = format!("whsec_{}", BASE64.encode(KEY));
        let sources = webhooks::prepare(sources, |_| Some(secret.clone())).unwrap();
        let api = Api::with_sources(topology(), sources);
        api.store.set_clock_ahead(ahead_ms);
        for (signed_ms, status) in [
            (store_ms(ahead_ms, -200_000), 202),
            (store_ms(ahead_ms, -400_000), 401),
            (store_ms(ahead_ms, 400_000), 401),
            (ids::now_ms(), 401),
        ] {
            let (signed_s, body) = (
                (signed_ms / 1000).to_string(),
                r#"{"type": "invoice.paid", "text": "x"}"#,
            );
            let id = format!("m{signed_s}");
            let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
            mac.update(format!("{id}.{signed_s}.{body}").as_bytes());
            let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
            let request = Request::post("/v1/webhooks/acme")
                .header("content-type", "application/json")
                .header("webhook-id", id)
                .header("webhook-timestamp", signed_s)
                .header("webhook-signature", signature);
            let reply = api.send(request.body(Body::from(body)).unwrap()).await;
            assert_eq!(reply.status, status, "{reply:?} with {ahead_ms} ms");
        }
    }
}
