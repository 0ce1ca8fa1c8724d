//! Handles one ingest entry: stores what was decided, and only then removes the entry. While the store is unavailable or full,
//! the entry stays on its stream and is tried again. If the store refuses it, its lease ends and it is delivered again.

use std::sync::Arc;

use contracts::events::{Source, TaskId};
use contracts::ContractError;

use super::decision::{self, EntryContext, Failure};
use super::remover::Remover;
use super::Common;
use crate::admission::Submission;
use crate::blocking::run_sized;
use crate::caller::Caller;
use crate::outcome::Outcome;
use crate::submit::{
    Accepted, Context, Durability, FinalOutcome, Record, Refusals, Requirements, SubmitError,
};
use crate::trace;
use bus::{random_part, Backoff, ConsumerGroup, Entry, StoreError};

/// An ingest stream promises what Redis is configured for, and it cannot answer a refusal.
const REQUIREMENTS: Requirements = Requirements {
    durability: Durability::NONE,
    refusals: Refusals::Store,
};

/// Why an entry cannot be handled by this process. It stays pending, and another process claims it.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandlerError {
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error("the dead letter breaks its contract: {0}")]
    Contract(#[from] ContractError),
    #[error("the entry cannot be submitted: {0}")]
    Submit(SubmitError),
}

/// Handles the entries of one tenant's ingest stream.
pub(super) struct EntryHandler {
    pub common: Arc<Common>,
    pub caller: Caller,
    pub group: ConsumerGroup,
    pub remover: Remover,
}

impl EntryHandler {
    /// Handles one entry to its end.
    pub async fn handle(&self, entry: &Entry) -> Result<(), HandlerError> {
        let traceparent = traceparent(entry)?;
        let now_ms = self.common.service.lookup.store.now_ms();
        let now_ms = now_ms.map_err(|error| HandlerError::Submit(error.into()))?;
        let record = Record::new(
            Arc::clone(&self.common.metrics),
            Context {
                source: Source::Stream,
                caller: self.caller.clone(),
                traceparent: traceparent.clone(),
                webhook: None,
                entry: Some((entry.id.clone(), entry.delivery)),
            },
        );
        let context = EntryContext {
            rules: &self.common.service.rules,
            topology: &self.common.service.topology,
            caller: &self.caller,
            stream: &entry.stream,
            consumer: &self.group.consumer,
            body_limit: self.common.body_limit,
            now_ms,
            traceparent: &traceparent,
        };
        let mut wait = StoreWait::new(self, entry);
        let result = self.finish(entry, &context, &mut wait).await;
        match &result {
            Ok((outcome, task)) => record.finish(&FinalOutcome {
                outcome: *outcome,
                task: task.as_ref(),
                cause: None,
            }),
            Err(error) => record.finish(&FinalOutcome {
                cause: Some(error.to_string()),
                ..Outcome::Internal.into()
            }),
        }
        result.map(|_| ())
    }

    /// Stores a task or a dead letter, then removes the entry.
    async fn finish(
        &self,
        entry: &Entry,
        context: &EntryContext<'_>,
        wait: &mut StoreWait<'_>,
    ) -> Result<(Outcome, Option<TaskId>), HandlerError> {
        let read = || decision::submission(entry, context);
        let result = match run_sized(size_of(entry), read).await {
            Ok(submission) => self.submit(&submission, wait).await?,
            Err(failure) => Err(failure),
        };
        let end = match result {
            Ok(accepted) => (accepted.outcome(), Some(accepted.task)),
            Err(failure) => {
                let build = || decision::dead_letter(entry, context, &failure);
                let message = run_sized(size_of(entry), build).await?;
                let store = &self.common.service.lookup.store;
                while let Err(error) = store.publish_dead_letter(&message).await {
                    wait.pause(error.into()).await?;
                }
                (failure.outcome, None)
            }
        };
        while let Err(error) = self.remover.remove(&entry.id).await {
            wait.pause(error.into()).await?;
        }
        Ok(end)
    }

    /// Submits, and waits while the store cannot take the task. `Ok(Err)` is a failure for good.
    async fn submit(
        &self,
        submission: &Submission,
        wait: &mut StoreWait<'_>,
    ) -> Result<Result<Accepted, Failure>, HandlerError> {
        let service = &self.common.service;
        let prepared = loop {
            match service
                .prepare(&self.caller, submission, REQUIREMENTS)
                .await
            {
                Ok(prepared) => break prepared,
                Err(error @ (SubmitError::Quota(_) | SubmitError::Store(_))) => {
                    wait.pause(error).await?;
                }
                Err(error) => return permanent(error).map(Err),
            }
        };
        loop {
            match service.store(&prepared).await {
                Ok(accepted) => return Ok(Ok(accepted)),
                Err(
                    error @ (SubmitError::Overloaded
                    | SubmitError::Quota(_)
                    | SubmitError::Store(_)
                    | SubmitError::Unconfirmed { .. }),
                ) => wait.pause(error).await?,
                Err(error) => return permanent(error).map(Err),
            }
        }
    }
}

fn permanent(error: SubmitError) -> Result<Failure, HandlerError> {
    Failure::permanent(&error).ok_or(HandlerError::Submit(error))
}

/// Bytes of all fields.
fn size_of(entry: &Entry) -> usize {
    let fields = entry.fields.iter();
    fields.map(|(name, value)| name.len() + value.len()).sum()
}

fn traceparent(entry: &Entry) -> Result<String, getrandom::Error> {
    let given = entry.fields.iter().find(|(name, _)| name == b"traceparent");
    let given = given.and_then(|(_, value)| std::str::from_utf8(value).ok());
    trace::accept_or_generate(given)
}

/// How one entry waits for the store, or until its tenant's quota allows it.
struct StoreWait<'a> {
    handler: &'a EntryHandler,
    entry: &'a Entry,
    backoff: Backoff,
}

impl<'a> StoreWait<'a> {
    fn new(handler: &'a EntryHandler, entry: &'a Entry) -> Self {
        Self {
            handler,
            entry,
            backoff: Backoff::default(),
        }
    }

    /// Counts and logs the error, then waits. Fails if Redis refuses what was asked: that does not pass, and an entry that
    /// waited for it would keep its slot for ever.
    async fn pause(&mut self, error: SubmitError) -> Result<(), HandlerError> {
        self.handler.common.metrics.ingest_waited(error.outcome());
        if let SubmitError::Store(StoreError::Refused(_)) = error {
            return Err(HandlerError::Submit(error));
        }
        let tenant = self.handler.caller.tenant.as_str();
        let entry = self.entry.id.as_str();
        // The store's client reports an outage once.
        tracing::debug!(tenant, entry, %error, "an ingest entry waits for the store");
        match error {
            // With a random part, so that not all entries come back at the same moment.
            SubmitError::Quota(exceeded) => {
                let wait = exceeded.retry_after;
                tokio::time::sleep(wait + random_part(wait)).await;
            }
            _ => self.backoff.wait().await,
        }
        Ok(())
    }
}
