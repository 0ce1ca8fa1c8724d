//! Redacts texts of any form, in which escapes can hide personal data from the rules. The results are for people to read, not
//! for parsers.

use percent_encoding::percent_decode_str;

use super::rules::{Redactions, Rules};

/// Resolves the escapes of JSON, and redacts the text. If the encoding of forms and URLs hides more personal data, it is
/// resolved as well.
pub(super) fn redact_decoded(text: &str, rules: &Rules) -> String {
    let mut redacted = rules.redact(&unescape(text), &mut Redactions::default());
    for decode in [percent_decoded, without_plus] {
        // Without a place to decode there is nothing new to find.
        let Some(decoded) = decode(&redacted) else {
            continue;
        };
        let mut found = Redactions::default();
        let again = rules.redact(&decoded, &mut found);
        if !found.is_empty() {
            redacted = again;
        }
    }
    redacted
}

fn percent_decoded(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8_lossy();
    // Postgres stores no NUL.
    (decoded != text).then(|| decoded.replace('\0', "\u{fffd}"))
}

/// Forms write a space as `+`.
fn without_plus(text: &str) -> Option<String> {
    text.contains('+').then(|| text.replace('+', " "))
}

/// Resolves JSON's escapes as far as possible, also in text that is not JSON. An escape, as in `ada\u0040example.org` or
/// `\n+49...`, would hide personal data from the rules. The result is for people to read, not for parsers.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(character) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        let code = rest
            .get(1..5)
            .filter(|digits| {
                character == 'u' && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if let Some(code) = code {
            // Half of a surrogate pair is not a character; no rule looks for the characters that pairs stand for.
            out.push(
                char::from_u32(code)
                    .filter(|character| *character != '\0')
                    .unwrap_or('\u{fffd}'),
            );
            rest = &rest[5..];
            continue;
        }
        out.push(match character {
            'n' | 'r' => '\n',
            't' | 'b' | 'f' => ' ',
            other => other,
        });
        rest = &rest[character.len_utf8()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::{redact_decoded, unescape, Rules};

    #[test]
    fn escapes_of_json_are_resolved() {
        assert_eq!(
            unescape(r"a\u0040b\n+49 \ud83d \u00 \"),
            "a@b\n+49 \u{fffd} u00 \\"
        );
    }

    #[test]
    fn neither_escapes_nor_the_encoding_of_forms_hide_personal_data() {
        let rules = Rules::built_in().unwrap();
        for (text, redacted) in [
            (
                "goal=x&mail=ada%40example.org&card=4111+1111+1111+1111",
                "goal=x&mail=[email]&card=[card]",
            ),
            (
                "see https://x.test/?u=ada%40example.org",
                "see https://x.test/?u=[email]",
            ),
            (
                "call +49 30 1234567, mail ada%40example.org",
                "call [phone], mail [email]",
            ),
            (r"ada\u0040example.org", "[email]"),
            (
                "nothing+here%20to find: 100%",
                "nothing+here%20to find: 100%",
            ),
            ("%00ada%40example.org", "\u{fffd}[email]"),
        ] {
            assert_eq!(redact_decoded(text, &rules), redacted);
        }
    }
}
