//! The dead letter of an ingest entry that never became a task. Nothing in it may be raw personal data.

use contracts::events::{
    write, Count, DeadLetter, DeadReason, Int, Sha256, Stage, Tenant, Text, Timestamp,
};
use contracts::{ids, ContractError};

use super::redact::Redactions;
use super::rules::Rules;

/// Characters dropped before a cut: personal data cut in two is not recognised, and none is longer.
const HALF_SEEN: usize = 700;

/// Where and by whom an entry was given up on.
pub struct Grave<'a> {
    pub tenant: &'a Tenant,
    pub stream: &'a str,
    pub group: &'a str,
    pub entry: &'a str,
    pub consumer: &'a str,
    pub delivery: u64,
    /// The entry's field `type`, as it came.
    pub message_type: &'a [u8],
    /// The entry's field `body`, as it came.
    pub original: &'a [u8],
    /// Longest text that is kept; the length and the digest are always those of the whole.
    pub keep: usize,
    pub now_ms: u64,
}

/// A letter ready to be sent.
#[derive(Debug, Clone)]
pub struct Letter {
    pub lane: String,
    pub tenant: Tenant,
    pub traceparent: String,
    pub reason: DeadReason,
    pub body: Vec<u8>,
    pub original: String,
}

impl Letter {
    /// Writes the letter; `message` may quote a producer's words, so it is redacted as well.
    pub fn new(
        grave: &Grave<'_>,
        reason: DeadReason,
        message: &str,
        rules: &Rules,
        lane: &str,
        traceparent: String,
    ) -> Result<Self, ContractError> {
        let redacted = |text: &str| rules.redact(text, &mut Redactions::default());
        let letter = DeadLetter {
            reason,
            message: Text::cut(&redacted(message))?,
            stage: Stage::BeforeAdmission,
            stream: Text::cut(grave.stream)?,
            group: Text::cut(grave.group)?,
            entry: Text::cut(grave.entry)?,
            consumer: Text::cut(grave.consumer)?,
            delivery: Count::nearest(grave.delivery),
            message_type: Text::cut(&redacted(&printable(grave.message_type)))?,
            id: Text::cut("")?,
            tenant: Text::cut(grave.tenant.as_str())?,
            bytes: Int::nearest(grave.original.len() as u64),
            sha256: Some(Sha256::try_from(ids::sha256_hex(grave.original))?),
            at: Timestamp::try_from(ids::timestamp(grave.now_ms))?,
        };
        let kept = &grave.original[..grave.original.len().min(grave.keep)];
        let mut original = redacted(&plain(&String::from_utf8_lossy(kept)));
        if kept.len() < grave.original.len() {
            let cut = original.char_indices().rev().nth(HALF_SEEN - 1);
            original.truncate(cut.map_or(0, |(at, _)| at));
        }
        Ok(Self {
            lane: lane.to_owned(),
            tenant: grave.tenant.clone(),
            traceparent,
            reason,
            body: write(&letter)?,
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

/// The text with JSON's escapes resolved as far as they can be, also where it is no JSON: behind an escape, as in
/// `ada\u0040example.org` or `\n+49...`, no rule would see personal data. It is for people to read, not for parsers.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(letter) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        let code = rest
            .get(1..5)
            .filter(|digits| letter == 'u' && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if let Some(code) = code {
            // Halves of a surrogate pair are no letters of their own; no rule looks for what they stand for.
            out.push(
                char::from_u32(code)
                    .filter(|letter| *letter != '\0')
                    .unwrap_or('\u{fffd}'),
            );
            rest = &rest[5..];
            continue;
        }
        out.push(match letter {
            'n' | 'r' => '\n',
            't' | 'b' | 'f' => ' ',
            other => other,
        });
        rest = &rest[letter.len_utf8()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::{plain, Grave, Letter, Rules};
    use contracts::events::{read, DeadLetter, DeadReason};
    use contracts::ids;

    #[test]
    fn escapes_do_not_hide_personal_data() {
        assert_eq!(
            plain(r"a\u0040b\n+49 \ud83d \u00 \"),
            "a@b\n+49 \u{fffd} u00 \\"
        );
    }

    #[test]
    fn a_letter_keeps_length_and_digest_of_the_whole_but_only_redacted_text() {
        let rules = Rules::built_in().unwrap();
        let original =
            br#"{"goal": "mail ada\u0040example.org", "tel":"\t+49 30 1234567" and more"#;
        let grave = Grave {
            tenant: &"acme".parse().unwrap(),
            stream: "ingest:acme",
            group: "reflex",
            entry: "1-1",
            consumer: "me",
            delivery: 2,
            message_type: b"from ada@example.org\xff",
            original,
            keep: 1000,
            now_ms: 0,
        };
        let letter = Letter::new(
            &grave,
            DeadReason::Schema,
            "unknown field `ada@example.org`",
            &rules,
            "l0",
            String::new(),
        )
        .unwrap();
        let body: DeadLetter = read(&letter.body).unwrap();
        assert_eq!(body.bytes.get(), i64::try_from(original.len()).unwrap());
        assert_eq!(body.sha256.unwrap().as_str(), ids::sha256_hex(original));
        assert_eq!(body.message.as_str(), "unknown field `[email]`");
        assert_eq!(body.message_type.as_str(), "from [email]?");
        assert_eq!(
            letter.original,
            "{\"goal\": \"mail [email]\", \"tel\":\" [phone]\" and more"
        );
        let long = [b"x ".repeat(500), b"ada@example.org".to_vec()].concat();
        let short = Letter::new(
            &Grave {
                keep: 1010,
                original: &long,
                ..grave
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
