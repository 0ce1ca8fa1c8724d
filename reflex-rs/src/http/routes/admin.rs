//! `/healthz`, `/readyz` and `/metrics`, for operators and orchestration.

use std::fmt;
use std::sync::Arc;

use service::admin::Probe;

use super::super::App;

/// What the admin endpoints show of the reflex: it is ready while its store answers, its
/// ingest streams can be read, and it knows the API keys.
pub(in crate::http) struct ReflexProbe(pub Arc<App>);

impl Probe for ReflexProbe {
    async fn unready_reasons(&self) -> Vec<String> {
        let ping = self.0.service.lookup.store.ping().await;
        let mut reasons: Vec<String> = ping.err().iter().map(ToString::to_string).collect();
        reasons.extend(self.0.ingest.reasons());
        if !self.0.authenticator.keys.were_read() {
            reasons.push("the API keys were not read from Redis yet".to_owned());
        }
        reasons
    }

    fn encode_metrics(&self) -> Result<String, fmt::Error> {
        self.0.metrics.text()
    }
}
