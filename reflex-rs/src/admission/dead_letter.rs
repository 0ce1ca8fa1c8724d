//! Builds the dead letter of an ingest entry that never became a task. It must not hold raw personal data.

use contracts::events::{
    write, Count, DeadLetter, DeadReason, Int, Sha256, Stage, Tenant, Text, Timestamp,
};
use contracts::{ids, ContractError};

use super::escapes::redact_decoded;
use super::rules::{Redactions, Rules};

/// Characters dropped before a cut. A rule does not recognise personal data that the cut splits, and no match is longer.
const MAX_MATCH_CHARS: usize = 700;

/// Which entry becomes a dead letter, and which consumer gave it up.
pub struct DeadLetterContext<'a> {
    pub tenant: &'a Tenant,
    pub stream: &'a str,
    pub group: &'a str,
    pub entry: &'a str,
    pub consumer: &'a str,
    pub delivery: u64,
    /// The entry's field `type`, unchanged.
    pub message_type: &'a [u8],
    /// The entry's field `body`, unchanged. Length and digest always describe all of it.
    pub body: &'a [u8],
    /// What is kept as text: the body, or, if the entry's fields are wrong, all of them as JSON.
    pub original: &'a [u8],
    /// How many bytes of `original` are kept.
    pub max_original_bytes: usize,
    pub now_ms: u64,
}

/// A dead letter that is ready to be published.
#[derive(Debug, Clone)]
pub struct DeadLetterMessage {
    pub lane: String,
    pub tenant: Tenant,
    pub traceparent: String,
    pub reason: DeadReason,
    /// A `dead.letter.v1` as JSON text.
    pub body: Vec<u8>,
    /// `DeadLetterContext::original` as redacted text.
    pub original: String,
}

impl DeadLetterMessage {
    /// Builds the dead letter. `message` says why; it may quote the producer's text, so it is redacted as well.
    pub fn new(
        context: &DeadLetterContext<'_>,
        reason: DeadReason,
        message: &str,
        rules: &Rules,
        lane: &str,
        traceparent: String,
    ) -> Result<Self, ContractError> {
        let redacted = |text: &str| rules.redact(text, &mut Redactions::default());
        let dead_letter = DeadLetter {
            reason,
            message: Text::cut(&redacted(message))?,
            stage: Stage::BeforeAdmission,
            stream: Text::cut(context.stream)?,
            group: Text::cut(context.group)?,
            entry: Text::cut(context.entry)?,
            consumer: Text::cut(context.consumer)?,
            delivery: Count::nearest(context.delivery),
            message_type: Text::cut(&redacted(&printable(context.message_type)))?,
            id: Text::cut("")?,
            tenant: Text::cut(context.tenant.as_str())?,
            bytes: Int::nearest(context.body.len() as u64),
            sha256: Some(Sha256::try_from(ids::sha256_hex(context.body))?),
            at: Timestamp::try_from(ids::timestamp(context.now_ms))?,
        };
        let kept = &context.original[..context.original.len().min(context.max_original_bytes)];
        let mut original = redact_decoded(&String::from_utf8_lossy(kept), rules);
        if kept.len() < context.original.len() {
            let cut = original.char_indices().rev().nth(MAX_MATCH_CHARS - 1);
            original.truncate(cut.map_or(0, |(at, _)| at));
        }
        Ok(Self {
            lane: lane.to_owned(),
            tenant: context.tenant.clone(),
            traceparent,
            reason,
            body: write(&dead_letter)?,
            original,
        })
    }
}

fn printable(raw: &[u8]) -> String {
    raw.iter()
        .take(300)
        .map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{DeadLetterContext, DeadLetterMessage, Rules};
    use contracts::events::{read, DeadLetter, DeadReason};
    use contracts::ids;

    #[test]
    fn a_dead_letter_keeps_length_and_digest_of_the_whole_but_only_redacted_text() {
        let rules = Rules::built_in().unwrap();
        let original =
            br#"{"goal": "mail ada\u0040example.org", "tel":"\t+49 30 1234567" and more"#;
        let context = DeadLetterContext {
            tenant: &"acme".parse().unwrap(),
            stream: "ingest:acme",
            group: "reflex",
            entry: "1-1",
            consumer: "me",
            delivery: 2,
            message_type: b"from ada@example.org\xff",
            body: original,
            original,
            max_original_bytes: 1000,
            now_ms: 0,
        };
        let message = DeadLetterMessage::new(
            &context,
            DeadReason::Schema,
            "unknown field `ada@example.org`",
            &rules,
            "l0",
            String::new(),
        )
        .unwrap();
        let body: DeadLetter = read(&message.body).unwrap();
        assert_eq!(body.bytes.get(), i64::try_from(original.len()).unwrap());
        assert_eq!(body.sha256.unwrap().as_str(), ids::sha256_hex(original));
        assert_eq!(body.message.as_str(), "unknown field `[email]`");
        assert_eq!(body.message_type.as_str(), "from [email]?");
        assert_eq!(
            message.original,
            "{\"goal\": \"mail [email]\", \"tel\":\" [phone]\" and more"
        );
        let long = [b"x ".repeat(500), b"ada@example.org".to_vec()].concat();
        let short = DeadLetterMessage::new(
            &DeadLetterContext {
                max_original_bytes: 1010,
                original: &long,
                ..context
            },
            DeadReason::Schema,
            "x",
            &rules,
            "l0",
            String::new(),
        )
        .unwrap();
        assert_eq!(short.original, "x ".repeat(155));
    }
}
