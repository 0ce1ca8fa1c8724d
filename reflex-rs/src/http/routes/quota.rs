//! `GET /v1/quota`: the caller's limits and what is left of them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde_json::{json, Value};

use super::record;
use crate::caller::Caller;
use crate::http::extract::{Authorized, Read};
use crate::http::{App, Problem};
use crate::metrics::Route;
use crate::outcome::Outcome;
use crate::quotas::LimitReport;

/// Answers with a list that is empty if the caller has no quota.
pub(in crate::http) async fn show(
    State(app): State<Arc<App>>,
    Authorized { caller, .. }: Authorized<Read>,
) -> Result<Response, Problem> {
    let request = report(&app, &caller);
    record(&app, Route::Quota, &caller, request).await
}

async fn report(app: &App, caller: &Caller) -> Result<(Outcome, Response), Problem> {
    let limits = app.service.quotas.report(caller).await?;
    let limits: Vec<_> = limits.iter().map(entry).collect();
    let body = json!({ "tenant": caller.tenant.as_str(), "limits": limits });
    Ok((Outcome::Served, Json(body).into_response()))
}

fn entry(report: &LimitReport) -> Value {
    let (limit, owner) = (report.limit.as_str(), report.owner.as_str());
    match report.per_s {
        Some(per_s) => json!({
            "limit": limit, "owner": owner, "per_s": per_s, "burst": report.most, "remaining": report.remaining,
        }),
        None => json!({
            "limit": limit, "owner": owner, "most": report.most, "remaining": report.remaining,
        }),
    }
}
