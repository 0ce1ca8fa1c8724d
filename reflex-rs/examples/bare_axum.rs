//! What `make bench-reflex` compares the reflex with: one axum route that reads the body and answers 202. Does nothing else.
//!
//! The only argument is the address to listen on.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{json, Value};

async fn accept(body: Bytes) -> (StatusCode, Json<Value>) {
    (StatusCode::ACCEPTED, Json(json!({"bytes": body.len()})))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, Router::new().route("/v1/tasks", post(accept))).await
}
