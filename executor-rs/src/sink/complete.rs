//! Finishes an entry, through whatever trouble Redis is in: tries again until there is an answer.
//!
//! Trying on is always safe: the script writes only while this consumer holds the entry at this delivery.

use bus::Script;

use super::operations::{Call, Ending, Outcome};
use crate::source::link::is_passing;
use crate::source::pause::Pause;
use crate::source::{standings, Entry, Marker, Source, Standing};

/// Answers how the entry ended in truth.
pub async fn complete(
    source: &Source,
    entry: &Entry,
    marker: Option<&Marker>,
    ending: &Ending,
) -> Outcome {
    let (group, consumer) = (&source.topic.group, &source.consumer);
    let mut call = Call::complete(&source.keys, group, consumer, entry, marker, ending);
    if let Some(topic) = &source.limited {
        call.describe(topic);
    }
    let mut pause = Pause::default();
    loop {
        match source
            .calls
            .script(Script::Complete, &call.keys, &call.args)
            .await
        {
            Ok(answer) => {
                return match standings(&answer).first() {
                    Some(Standing::Done) => ending.outcome,
                    Some(other) => Outcome::of(*other),
                    None => Outcome::Abandoned,
                }
            }
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "a finished step waits for Redis; trying again");
                pause.wait().await;
            }
            Err(error) => {
                tracing::error!(%error, entry = %entry.id, "Redis refuses a completion; its entry stays pending");
                return Outcome::Abandoned;
            }
        }
    }
}
