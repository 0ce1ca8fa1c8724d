//! Stores what was judged and only then removes the entry. While Redis is away or full the entry stays and is tried again.

use std::sync::Arc;
use std::time::Instant;

use contracts::events::Tenant;
use contracts::{ids, ContractError};

use super::judge::{conflict, judge, Circumstances, Ending, Verdict};
use super::Common;
use crate::metrics::{Door as DoorName, Outcome};
use crate::sink::{bury, Stored};
use crate::trace;
use bus::StoreError;
use bus::{Backoff, ConsumerGroup, Entry};

/// Why an entry cannot be worked on here; it stays pending and others take it over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unworkable {
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error("our own writing breaks its contract: {0}")]
    Contract(#[from] ContractError),
}

/// One tenant's way in.
pub(super) struct Door {
    pub common: Arc<Common>,
    pub tenant: Tenant,
    pub group: ConsumerGroup,
}

impl Door {
    /// Works on one entry to its end.
    pub async fn handle(&self, entry: &Entry) -> Result<(), Unworkable> {
        let started = Instant::now();
        let given = entry.fields.iter().find(|(name, _)| name == b"traceparent");
        let given = given.and_then(|(_, value)| std::str::from_utf8(value).ok());
        let traceparent = trace::accept(given)?;
        let about = Circumstances {
            rules: &self.common.rules,
            topology: &self.common.topology,
            tenant: &self.tenant,
            stream: &entry.stream,
            consumer: &self.group.consumer,
            body_limit: self.common.body_limit,
            now_ms: ids::now_ms(),
            random: ids::random()?,
            traceparent: &traceparent,
        };
        let mut verdict = judge(entry, &about)?;
        let mut patience = Patience::default();
        let (task, outcome) = loop {
            match self.store(&verdict).await {
                Ok(Kept::As(task, outcome)) => break (task, outcome),
                Ok(Kept::KeyTaken) => verdict = conflict(entry, &about)?,
                Ok(Kept::NotYet) => {
                    self.pause(&mut patience, entry, Outcome::Busy, "too many tasks wait")
                        .await;
                }
                Err(trouble) => self.pause_for(&mut patience, entry, &trouble).await,
            }
        };
        while let Err(trouble) = self.group.remove(entry).await {
            self.pause_for(&mut patience, entry, &trouble).await;
        }
        self.common
            .metrics
            .ended(DoorName::Ingest, outcome, started.elapsed());
        tracing::info!(
            task,
            tenant = self.tenant.as_str(),
            trace = trace::id(&traceparent),
            entry = entry.id,
            delivery = entry.delivery,
            outcome = outcome.as_str(),
            "worked on an ingest entry"
        );
        Ok(())
    }

    async fn store(&self, verdict: &Verdict) -> Result<Kept, StoreError> {
        let sink = &self.common.sink;
        match verdict {
            Verdict::Letter(letter, ending) => {
                bury(sink.link(), letter).await?;
                Ok(Kept::As(String::new(), outcome(*ending)))
            }
            Verdict::Task(admitted) => {
                Ok(match sink.admit(&self.common.topology, admitted).await? {
                    Stored::Accepted(task) if admitted.refusal.is_some() => {
                        Kept::As(task, Outcome::Injection)
                    }
                    Stored::Accepted(task) => Kept::As(task, Outcome::Accepted),
                    Stored::Duplicate(task) => Kept::As(task, Outcome::Duplicate),
                    Stored::Conflict(_) => Kept::KeyTaken,
                    Stored::Busy => Kept::NotYet,
                })
            }
        }
    }

    async fn pause_for(&self, patience: &mut Patience, entry: &Entry, trouble: &StoreError) {
        let cause = match trouble {
            StoreError::Unavailable { .. } | StoreError::Unknown(_) => Outcome::Redis,
            StoreError::OutOfMemory(_) => Outcome::Full,
            StoreError::Refused(_) => Outcome::Internal,
        };
        self.pause(patience, entry, cause, &trouble.to_string())
            .await;
    }

    async fn pause(&self, patience: &mut Patience, entry: &Entry, cause: Outcome, why: &str) {
        self.common.metrics.waited(cause);
        let (tenant, entry) = (self.tenant.as_str(), entry.id.as_str());
        // An outage is reported by `store`; what a person has to mend is said here, once per entry.
        if cause == Outcome::Internal && !patience.told {
            patience.told = true;
            tracing::error!(tenant, entry, "cannot store an ingest entry: {why}");
        } else {
            tracing::debug!(tenant, entry, "an ingest entry waits: {why}");
        }
        patience.backoff.wait().await;
    }
}

/// How one entry waits.
#[derive(Default)]
struct Patience {
    backoff: Backoff,
    told: bool,
}

/// What storing came to.
enum Kept {
    As(String, Outcome),
    /// The idempotency key belongs to another body.
    KeyTaken,
    NotYet,
}

fn outcome(ending: Ending) -> Outcome {
    match ending {
        Ending::Unreadable => Outcome::Unreadable,
        Ending::Schema => Outcome::Schema,
        Ending::TooLarge => Outcome::TooLarge,
        Ending::Conflict => Outcome::Conflict,
        Ending::DeliveriesExhausted => Outcome::DeliveriesExhausted,
    }
}
