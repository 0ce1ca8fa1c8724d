//! What a step's message leads to: reads it strictly, and turns what happened into the operations of its ending.

use contracts::events::fields::{Attempt, Bytes, Count};
use contracts::events::step::{Dead, Failed, InlineOutput, Retrying, Succeeded};
use contracts::events::{
    self, DeadLetter, DeadReason, Event, Name, Object, Priority, Stage, StepDone, StepError,
    StepOutput, StepRequested, Tenant, Text, Timestamp,
};
use contracts::ids::{message_id, parse_message_id, sha256_hex, utc_now, StepIdent};
use contracts::keys::LaneKeys;
use contracts::topology::Topic;
use contracts::{ContractError, Reason};

use super::retry::{decide, Decision};
use crate::sink::operations::{Ending, Fields, Operation, Outcome};
use crate::source::Entry;

/// A message that is no step for this arm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub reason: DeadReason,
    pub message: String,
}

/// Who reports about which entry.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub entry: &'a Entry,
    pub topic: &'a Topic,
    pub keys: &'a LaneKeys,
    pub worker: &'a str,
    pub duration_ms: u64,
}

/// Why a step did not give an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: &'static str,
    pub message: String,
}

impl Fault {
    fn error(&self) -> Result<StepError, ContractError> {
        Ok(StepError {
            code: self.code.parse()?,
            message: sentence(&self.message)?,
        })
    }
}

fn sentence(text: &str) -> Result<Text<1, 2000>, ContractError> {
    Text::cut(if text.is_empty() { "no message" } else { text })
}

/// The step that an entry asks for.
pub fn read(entry: &Entry, topic: &Topic) -> Result<StepRequested, Refused> {
    let misrouted = |message: String| Refused {
        reason: DeadReason::Misrouted,
        message,
    };
    if entry.field("type") != StepRequested::TYPE.as_bytes() {
        let message = format!(
            "field type must be {} on {}",
            StepRequested::TYPE,
            entry.stream
        );
        return Err(misrouted(message));
    }
    let step: StepRequested = events::read(entry.field("body")).map_err(|error| Refused {
        reason: match error.reason {
            Reason::Unreadable => DeadReason::Unreadable,
            Reason::Schema => DeadReason::Schema,
        },
        message: error.to_string(),
    })?;
    if step.arm.as_str() != topic.group {
        return Err(misrouted(format!(
            "the step is for arm {}, not for {}",
            step.arm, topic.group
        )));
    }
    let id = ident(&step);
    if entry.field("id") != id.as_bytes() {
        return Err(misrouted(format!("field id is not the body's {id}")));
    }
    Ok(step)
}

fn ident(step: &StepRequested) -> String {
    message_id(
        &step.task,
        step.run.get(),
        &step.step,
        step.round.get(),
        step.attempt.get(),
    )
}

fn live(step: &StepRequested) -> String {
    contracts::ids::live_field(&step.task, step.run.get(), &step.step, step.round.get())
}

macro_rules! done {
    ($kind:ident, $about:expr, $step:expr, { $($field:ident: $value:expr),* $(,)? }) => {
        StepDone::$kind($kind {
            task: $step.task.clone(),
            run: $step.run,
            step: $step.step.clone(),
            round: $step.round,
            attempt: $step.attempt,
            tenant: $step.tenant.clone(),
            arm: $step.arm.clone(),
            worker: Text::cut($about.worker)?,
            delivery: Attempt::nearest($about.entry.delivery),
            finished_at: Timestamp::try_from(utc_now())?,
            duration_ms: Bytes::nearest($about.duration_ms),
            $($field: $value,)*
        })
    };
}

impl About<'_> {
    pub fn succeeded(&self, step: &StepRequested, output: Object) -> Result<Ending, ContractError> {
        let output = StepOutput::Inline(InlineOutput { value: output });
        // A sandbox hands nothing on: whatever rest its step carries is the orchestrator's to send.
        let done = done!(Succeeded, self, step, {
            output: output,
            builds_on: step.builds_on.clone(),
            chained: None,
        });
        self.told(step, &done, Outcome::Done)
    }

    /// Trying again would change nothing.
    pub fn failed(&self, step: &StepRequested, fault: &Fault) -> Result<Ending, ContractError> {
        let done = done!(Failed, self, step, {
            error: fault.error()?,
            builds_on: step.builds_on.clone(),
        });
        self.told(step, &done, Outcome::Failed)
    }

    /// It may go better another time: by the topic's policy tried again, or given up on.
    pub fn passing(
        &self,
        step: &StepRequested,
        fault: &Fault,
        chance: u32,
    ) -> Result<Ending, ContractError> {
        let failures = step.failures.get().unsigned_abs() + 1;
        let decision = self
            .topic
            .retry
            .map_or(Decision::GiveUp, |policy| decide(policy, failures, chance));
        let Decision::Again { delay_ms } = decision else {
            let message = format!("failed {failures} times, last: {}", fault.message);
            return self.dead(DeadReason::FailuresExhausted, &message);
        };
        let again = StepRequested {
            attempt: Attempt::nearest(step.attempt.get().unsigned_abs() + 1),
            failures: Count::nearest(failures),
            ..step.clone()
        };
        let done = done!(Retrying, self, step, {
            error: fault.error()?,
            next_attempt: again.attempt,
            failures: again.failures,
            delay_ms: Bytes::nearest(delay_ms),
            builds_on: step.builds_on.clone(),
        });
        let id = ident(&again);
        let fields = self.message(
            StepRequested::TYPE,
            &id,
            step.tenant.as_str(),
            events::write(&again)?,
        );
        Ok(Ending {
            outcome: Outcome::Retrying,
            operations: vec![
                // The schedule comes last: the live field names the message that carries the step on.
                self.tell(step, &done, String::new())?,
                Operation::Delay {
                    stream: self
                        .keys
                        .stream(self.topic, Some(Priority::as_str(step.priority))),
                    delay_ms,
                    live: live(step),
                    id,
                    fields,
                },
            ],
            live: live(step),
        })
    }

    /// Gives up on the entry. The orchestrator is told in the same breath where at least its id can be read.
    pub fn dead(&self, reason: DeadReason, why: &str) -> Result<Ending, ContractError> {
        let body = self.entry.field("body");
        let (id, tenant) = (
            clean(self.entry.field("id")),
            clean(self.entry.field("tenant")),
        );
        let message = sentence(why)?;
        let letter = DeadLetter {
            reason,
            message: message.clone(),
            stage: Stage::AfterAdmission,
            stream: Text::cut(&self.entry.stream)?,
            group: Text::cut(&self.topic.group)?,
            entry: Text::cut(&self.entry.id)?,
            consumer: Text::cut(self.worker)?,
            delivery: Count::nearest(self.entry.delivery),
            message_type: Text::cut(&clean(self.entry.field("type")))?,
            id: Text::cut(&id)?,
            tenant: Text::cut(&tenant)?,
            bytes: Bytes::nearest(body.len() as u64),
            sha256: Some(sha256_hex(body).parse()?),
            at: Timestamp::try_from(utc_now())?,
        };
        let mut fields = self.message(DeadLetter::TYPE, &id, &tenant, events::write(&letter)?);
        fields.push(("original", body.to_vec()));
        let mut ending = Ending {
            outcome: Outcome::Dead,
            operations: vec![Operation::Add {
                stream: self.keys.dead(),
                live: String::new(),
                fields,
            }],
            live: String::new(),
        };
        if let (Ok(step), Ok(tenant)) = (parse_message_id(&id), tenant.parse::<Tenant>()) {
            ending.live = step.live_field();
            ending
                .operations
                .push(self.told_dead(&step, &tenant, reason, message)?);
        }
        Ok(ending)
    }

    fn told_dead(
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
        let body = events::write(&done)?;
        Ok(Operation::Add {
            stream: self.keys.done(),
            live: step.live_field(),
            fields: self.message(StepDone::TYPE, &step.message_id(), tenant.as_str(), body),
        })
    }

    fn told(
        &self,
        step: &StepRequested,
        done: &StepDone,
        outcome: Outcome,
    ) -> Result<Ending, ContractError> {
        Ok(Ending {
            outcome,
            operations: vec![self.tell(step, done, live(step))?],
            live: live(step),
        })
    }

    fn tell(
        &self,
        step: &StepRequested,
        done: &StepDone,
        live: String,
    ) -> Result<Operation, ContractError> {
        Ok(Operation::Add {
            stream: self.keys.done(),
            live,
            fields: self.message(
                StepDone::TYPE,
                &ident(step),
                step.tenant.as_str(),
                events::write(done)?,
            ),
        })
    }

    fn message(&self, kind: &str, id: &str, tenant: &str, body: Vec<u8>) -> Fields {
        vec![
            ("type", kind.into()),
            ("id", id.into()),
            ("tenant", tenant.into()),
            (
                "traceparent",
                clean(self.entry.field("traceparent")).into_bytes(),
            ),
            ("body", body),
        ]
    }
}

/// A field that anyone may have written, fit for JSON and a terminal.
#[must_use]
pub fn clean(raw: &[u8]) -> String {
    let printable = |byte: &u8| {
        if (0x20..0x7f).contains(byte) {
            char::from(*byte)
        } else {
            '?'
        }
    };
    raw.iter().take(300).map(printable).collect()
}
