//! What is reported about a step: turns what happened into the operations that finish its entry. Pure but for the clock.

use bus::completion::Fields;
use bus::{Completion, Entry, Operation};
use contracts::events::fields::{Attempt, Bytes, Count};
use contracts::events::step::{Dead, Failed, InlineOutput, Retrying, Succeeded};
use contracts::events::{
    self, DeadLetter, DeadReason, Event, Name, Object, Priority, Stage, StepDone, StepError,
    StepOutput, StepRequested, Tenant, Text, Timestamp,
};
use contracts::ids::{in_flight_field, parse_message_id, sha256_hex, utc_now, StepIdent};
use contracts::keys::LaneKeys;
use contracts::topology::Topic;
use contracts::ContractError;

use super::outcome::Outcome;
use super::request::{id_of, printable};
use super::retry::{decide, Decision};

/// Why a step has no output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: &'static str,
    pub message: String,
}

impl Fault {
    fn error(&self) -> Result<StepError, ContractError> {
        Ok(StepError {
            code: self.code.parse()?,
            message: non_empty(&self.message)?,
        })
    }
}

fn non_empty(text: &str) -> Result<Text<1, 2000>, ContractError> {
    Text::cut(if text.is_empty() { "no message" } else { text })
}

/// How a delivery ends, and what is written when its entry is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    pub completion: Completion,
}

impl Report {
    /// Of a step that was stopped because its run has ended.
    #[must_use]
    pub fn run_ended(in_flight: String) -> Self {
        Self {
            outcome: Outcome::RunEnded,
            completion: Completion::run_ended(in_flight),
        }
    }

    /// Of a step whose task's deadline has passed: removes the entry and publishes nothing, whether or not the
    /// orchestrator has ended the run already.
    #[must_use]
    pub fn past_deadline(in_flight: String) -> Self {
        Self::new(Outcome::RunEnded, in_flight, Vec::new())
    }

    fn new(outcome: Outcome, in_flight: String, operations: Vec<Operation>) -> Self {
        Self {
            outcome,
            completion: Completion {
                in_flight,
                operations,
                only_if_ended: false,
            },
        }
    }
}

/// Writes the reports about one delivery.
#[derive(Debug, Clone, Copy)]
pub struct Reporter<'a> {
    pub entry: &'a Entry,
    pub topic: &'a Topic,
    pub keys: &'a LaneKeys,
    pub worker: &'a str,
    pub duration_ms: u64,
}

macro_rules! step_done {
    ($kind:ident, $reporter:expr, $step:expr, { $($field:ident: $value:expr),* $(,)? }) => {
        StepDone::$kind($kind {
            task: $step.task.clone(),
            run: $step.run,
            step: $step.step.clone(),
            round: $step.round,
            attempt: $step.attempt,
            tenant: $step.tenant.clone(),
            arm: $step.arm.clone(),
            worker: Text::cut($reporter.worker)?,
            delivery: Attempt::nearest($reporter.entry.delivery),
            finished_at: Timestamp::try_from(utc_now())?,
            duration_ms: Bytes::nearest($reporter.duration_ms),
            $($field: $value,)*
        })
    };
}

impl Reporter<'_> {
    /// The step gave an output.
    pub fn succeeded(&self, step: &StepRequested, output: Object) -> Result<Report, ContractError> {
        let output = StepOutput::Inline(InlineOutput { value: output });
        // A sandbox never hands off directly: any continuation of its step is the orchestrator's to publish.
        let done = step_done!(Succeeded, self, step, {
            output: output,
            builds_on: step.builds_on.clone(),
            chained: None,
        });
        self.finished(step, &done, Outcome::Done)
    }

    /// The step failed, and another attempt would change nothing.
    pub fn failed(&self, step: &StepRequested, fault: &Fault) -> Result<Report, ContractError> {
        let done = step_done!(Failed, self, step, {
            error: fault.error()?,
            builds_on: step.builds_on.clone(),
        });
        self.finished(step, &done, Outcome::Failed)
    }

    /// The step could not be run this time: by the topic's policy it is tried again or given up on.
    ///
    /// `chance`: any number, decides the length of the delay.
    pub fn retry(
        &self,
        step: &StepRequested,
        fault: &Fault,
        chance: u32,
    ) -> Result<Report, ContractError> {
        let failures = step.failures.get().unsigned_abs() + 1;
        let decision = self
            .topic
            .retry
            .map_or(Decision::GiveUp, |policy| decide(policy, failures, chance));
        let Decision::Retry { delay_ms } = decision else {
            let message = format!("failed {failures} times, last: {}", fault.message);
            return self.dead(DeadReason::FailuresExhausted, &message);
        };
        let next = StepRequested {
            attempt: Attempt::nearest(step.attempt.get().unsigned_abs() + 1),
            failures: Count::nearest(failures),
            ..step.clone()
        };
        let done = step_done!(Retrying, self, step, {
            error: fault.error()?,
            next_attempt: next.attempt,
            failures: next.failures,
            delay_ms: Bytes::nearest(delay_ms),
            builds_on: step.builds_on.clone(),
        });
        let id = id_of(&next);
        let tenant = step.tenant.as_str();
        let fields = self.message(StepRequested::TYPE, &id, tenant, events::write(&next)?);
        let priority = Some(Priority::as_str(step.priority));
        let operations = vec![
            // The schedule comes last: the in-flight index names the message that carries the step on.
            self.publish_done(step, &done, String::new())?,
            Operation::Schedule {
                stream: self.keys.stream(self.topic, priority),
                delay_ms,
                in_flight: in_flight(step),
                id,
                fields,
            },
        ];
        Ok(Report::new(Outcome::Retrying, in_flight(step), operations))
    }

    /// Give up on the entry. Where at least its id can be read, the orchestrator learns of it in the same script call.
    pub fn dead(&self, reason: DeadReason, why: &str) -> Result<Report, ContractError> {
        let body = self.entry.field("body");
        let id = printable(self.entry.field("id"));
        let tenant = printable(self.entry.field("tenant"));
        let message = non_empty(why)?;
        let dead_letter = DeadLetter {
            reason,
            message: message.clone(),
            stage: Stage::AfterAdmission,
            stream: Text::cut(&self.entry.stream)?,
            group: Text::cut(&self.topic.group)?,
            entry: Text::cut(&self.entry.id)?,
            consumer: Text::cut(self.worker)?,
            delivery: Count::nearest(self.entry.delivery),
            message_type: Text::cut(&printable(self.entry.field("type")))?,
            id: Text::cut(&id)?,
            tenant: Text::cut(&tenant)?,
            bytes: Bytes::nearest(body.len() as u64),
            sha256: Some(sha256_hex(body).parse()?),
            at: Timestamp::try_from(utc_now())?,
        };
        let mut fields = self.message(DeadLetter::TYPE, &id, &tenant, events::write(&dead_letter)?);
        fields.push(("original", body.to_vec()));
        let mut operations = vec![Operation::Publish {
            stream: self.keys.dead(),
            in_flight: String::new(),
            fields,
        }];
        let mut in_flight = String::new();
        if let (Ok(step), Ok(tenant)) = (parse_message_id(&id), tenant.parse::<Tenant>()) {
            in_flight = step.in_flight_field();
            operations.push(self.publish_dead(&step, &tenant, reason, message)?);
        }
        Ok(Report::new(Outcome::Dead, in_flight, operations))
    }

    fn publish_dead(
        &self,
        step: &StepIdent,
        tenant: &Tenant,
        reason: DeadReason,
        message: Text<1, 2000>,
    ) -> Result<Operation, ContractError> {
        let done = StepDone::Dead(Dead {
            task: step.task.clone(),
            run: step.run.try_into()?,
            step: step.step.clone(),
            round: step.round.try_into()?,
            attempt: step.attempt.try_into()?,
            tenant: tenant.clone(),
            arm: self.topic.group.parse::<Name>()?,
            worker: Text::cut(self.worker)?,
            delivery: Attempt::nearest(self.entry.delivery),
            finished_at: Timestamp::try_from(utc_now())?,
            duration_ms: Bytes::nearest(self.duration_ms),
            reason,
            error: StepError {
                code: reason.as_str().parse()?,
                message,
            },
        });
        let (id, body) = (step.message_id(), events::write(&done)?);
        Ok(Operation::Publish {
            stream: self.keys.done(),
            in_flight: step.in_flight_field(),
            fields: self.message(StepDone::TYPE, &id, tenant.as_str(), body),
        })
    }

    fn finished(
        &self,
        step: &StepRequested,
        done: &StepDone,
        outcome: Outcome,
    ) -> Result<Report, ContractError> {
        let publish = self.publish_done(step, done, in_flight(step))?;
        Ok(Report::new(outcome, in_flight(step), vec![publish]))
    }

    fn publish_done(
        &self,
        step: &StepRequested,
        done: &StepDone,
        in_flight: String,
    ) -> Result<Operation, ContractError> {
        let (tenant, body) = (step.tenant.as_str(), events::write(done)?);
        Ok(Operation::Publish {
            stream: self.keys.done(),
            in_flight,
            fields: self.message(StepDone::TYPE, &id_of(step), tenant, body),
        })
    }

    fn message(&self, kind: &str, id: &str, tenant: &str, body: Vec<u8>) -> Fields {
        let traceparent = printable(self.entry.field("traceparent"));
        vec![
            ("type", kind.into()),
            ("id", id.into()),
            ("tenant", tenant.into()),
            ("traceparent", traceparent.into_bytes()),
            ("body", body),
        ]
    }
}

/// The step's field in the in-flight index.
fn in_flight(step: &StepRequested) -> String {
    in_flight_field(&step.task, step.run.get(), &step.step, step.round.get())
}
