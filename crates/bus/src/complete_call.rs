//! Writes a completion as the arguments of `lua/complete.lua`.

use contracts::keys::LaneKeys;

use crate::call::ScriptCall;
use crate::completion::{Completion, Fields, Operation};
use crate::entry::{Entry, StepRun};
use crate::script::Script;

/// The call of `complete` for one entry. `run`: of a step, which is not completed if its run has ended.
pub(crate) fn complete_call(
    lane: &LaneKeys,
    group: &str,
    consumer: &str,
    entry: &Entry,
    run: Option<&StepRun>,
    completion: &Completion,
) -> ScriptCall {
    let mut call = ScriptCall::new(Script::Complete);
    call.key(lane.in_flight())
        .arg(consumer)
        .arg(1)
        .key_index(&entry.stream)
        .arg(group)
        .arg(&entry.id)
        .arg(entry.delivery)
        .arg(&completion.in_flight)
        .arg(completion.operations.len() + usize::from(run.is_some()));
    if let Some(run) = run {
        let condition = if completion.only_if_ended {
            "only_if_ended"
        } else {
            "unless_ended"
        };
        call.arg(condition)
            .key_index(&run.ended_runs)
            .arg(&run.run)
            .arg(&run.tenant);
    }
    for operation in &completion.operations {
        add_operation(&mut call, lane, operation);
    }
    call
}

fn add_operation(call: &mut ScriptCall, lane: &LaneKeys, operation: &Operation) {
    match operation {
        Operation::Publish {
            stream,
            in_flight,
            fields,
        } => {
            call.arg("publish").key_index(stream).arg(in_flight);
            add_fields(call, fields);
        }
        Operation::Schedule {
            stream,
            delay_ms,
            in_flight,
            id,
            fields,
        } => {
            call.arg("schedule")
                .key_index(&lane.schedule())
                .key_index(&lane.messages())
                .key_index(stream)
                .arg(*delay_ms)
                .arg(in_flight)
                .arg(id);
            add_fields(call, fields);
        }
    }
}

fn add_fields(call: &mut ScriptCall, fields: &Fields) {
    call.arg(fields.len());
    for (name, value) in fields {
        call.arg(*name).arg(value.as_slice());
    }
}

#[cfg(test)]
mod tests {
    use super::{complete_call, Completion, Entry, LaneKeys, Operation, StepRun};

    #[test]
    fn complete_is_spelled_as_its_script_reads_it() {
        let entry = Entry::new("{l0}:arm.executor:low", "5-0".to_owned(), 2, Vec::new());
        let publish = Operation::Publish {
            stream: "{l0}:steps.done".to_owned(),
            in_flight: "t.1.s.0".to_owned(),
            fields: vec![("type", b"x".to_vec())],
        };
        let schedule = Operation::Schedule {
            stream: entry.stream.clone(),
            delay_ms: 7,
            in_flight: String::new(),
            id: "m".to_owned(),
            fields: vec![],
        };
        let completion = Completion {
            in_flight: "t.1.s.0".to_owned(),
            operations: vec![publish, schedule],
            only_if_ended: false,
        };
        let run = StepRun {
            ended_runs: "{l0}:ended-runs".to_owned(),
            run: "t.1".to_owned(),
            tenant: "default".to_owned(),
            in_flight: "t.1.s.0".to_owned(),
        };
        let lane = LaneKeys::new("l0");
        let written = |run: Option<&StepRun>, completion: &Completion| {
            let call = complete_call(&lane, "executor", "me", &entry, run, completion);
            let (keys, args) = call.text();
            (keys.to_vec(), args)
        };
        let (keys, args) = written(Some(&run), &completion);
        assert_eq!(
            keys,
            [
                "{l0}:in-flight",
                "{l0}:arm.executor:low",
                "{l0}:ended-runs",
                "{l0}:steps.done",
                "{l0}:schedule",
                "{l0}:schedule:messages"
            ]
        );
        let expected = "me 1 2 executor 5-0 2 t.1.s.0 3 unless_ended 3 t.1 default publish 4 t.1.s.0 1 type x \
                        schedule 5 6 2 7  m 0";
        assert_eq!(args, expected);
        let ended = Completion::run_ended("t.1.s.0".to_owned());
        let (_, args) = written(Some(&run), &ended);
        let expected = "me 1 2 executor 5-0 2 t.1.s.0 1 only_if_ended 3 t.1 default";
        assert_eq!(args, expected);
        let (_, args) = written(None, &completion);
        let expected = "me 1 2 executor 5-0 2 t.1.s.0 2 publish 3 ";
        assert!(args.starts_with(expected), "{args}");
    }
}
