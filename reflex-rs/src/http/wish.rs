//! The body of a request that wants something of a task: a small closed object, or none.

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use contracts::events::{from_object, Object};
use contracts::{strict_json, ContractError};
use serde::de::DeserializeOwned;

use super::{taking, App, Problem};

/// Reads it strictly; none where the request has no body.
pub(super) async fn read<T: DeserializeOwned>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Option<T>, Problem> {
    if body.is_end_stream() {
        return Ok(None);
    }
    let body = taking::read_body(app, headers, body).await?;
    strict_json::check(&body).map_err(Problem::Contract)?;
    let object: Object = serde_json::from_slice(&body)
        .map_err(|_| Problem::Contract(ContractError::schema("", "must be an object")))?;
    from_object(object).map(Some).map_err(Problem::Contract)
}
