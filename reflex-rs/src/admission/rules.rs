//! The compiled rules of `schemas/rules`. The Python guardian reads the same files.

use std::collections::BTreeMap;

use contracts::events::Count;
use regex::{Regex, RegexSet};
use serde::Deserialize;

use super::prefilter::{self, Prefilter};

const PII: &str = include_str!("../../../schemas/rules/pii.json");
const INJECTION: &str = include_str!("../../../schemas/rules/injection.json");

#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("a rule file is invalid: {0}")]
    File(#[from] serde_json::Error),
    #[error("a rule's pattern does not compile: {0}")]
    Pattern(#[from] regex::Error),
    #[error("a rule's pattern cannot be analysed: {0}")]
    Syntax(#[from] Box<regex_syntax::Error>),
    #[error("a rule file has more than {} rules", prefilter::MAX)]
    TooMany,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Check {
    None,
    Luhn,
    Iban,
    Ssn,
    Phone,
    Ipv4,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<T> {
    #[serde(rename = "version")]
    _version: u32,
    rules: Vec<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PiiRule {
    #[serde(rename = "type")]
    kind: String,
    pattern: String,
    check: Check,
    replacement: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InjectionRule {
    name: String,
    pattern: String,
}

/// How many pieces of personal data were replaced, by type.
#[derive(Debug, Default)]
pub struct Redactions(BTreeMap<String, u64>);

impl Redactions {
    fn add(&mut self, kind: &str) {
        *self.0.entry(kind.to_owned()).or_default() += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The counts by type, as events carry them.
    #[must_use]
    pub fn counts(self) -> BTreeMap<String, Count> {
        self.0
            .into_iter()
            .map(|(kind, count)| (kind, Count::nearest(count)))
            .collect()
    }
}

/// All rules, compiled.
pub struct Rules {
    pii: Vec<(PiiRule, Regex)>,
    pii_filter: Prefilter,
    /// The names of the injection rules, in the order of the patterns of `injection`.
    injection_names: Vec<String>,
    injection: RegexSet,
    injection_filter: Prefilter,
}

impl Rules {
    /// Compiles the rules that are built into this program.
    pub fn built_in() -> Result<Self, RulesError> {
        let pii: File<PiiRule> = serde_json::from_str(PII)?;
        let injection: File<InjectionRule> = serde_json::from_str(INJECTION)?;
        if pii.rules.len().max(injection.rules.len()) > prefilter::MAX {
            return Err(RulesError::TooMany);
        }
        let patterns = || injection.rules.iter().map(|rule| rule.pattern.as_str());
        Ok(Self {
            pii_filter: Prefilter::new(pii.rules.iter().map(|rule| rule.pattern.as_str()))?,
            injection: RegexSet::new(patterns())?,
            injection_filter: Prefilter::new(patterns())?,
            injection_names: injection.rules.into_iter().map(|rule| rule.name).collect(),
            pii: pii
                .rules
                .into_iter()
                .map(|rule| Regex::new(&rule.pattern).map(|regex| (rule, regex)))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Returns the name of the first injection rule that matches the text.
    #[must_use]
    pub fn injection(&self, text: &str) -> Option<&str> {
        if self.injection_filter.candidates(text).is_empty() || !self.injection.is_match(text) {
            return None;
        }
        let first = self.injection.matches(text).iter().next()?;
        self.injection_names.get(first).map(String::as_str)
    }

    /// Returns the text with personal data replaced, rule by rule, and adds what was replaced to `counts`.
    #[must_use]
    pub fn redact(&self, text: &str, counts: &mut Redactions) -> String {
        self.redacted(text, counts)
            .unwrap_or_else(|| text.to_owned())
    }

    /// Like `redact`; `None` if there is nothing to replace.
    pub fn redacted(&self, text: &str, counts: &mut Redactions) -> Option<String> {
        let mut clean: Option<String> = None;
        let mut candidates = self.pii_filter.candidates(text);
        for (index, (rule, regex)) in self.pii.iter().enumerate() {
            if !candidates.contains(index) {
                continue;
            }
            let current = clean.as_deref().unwrap_or(text);
            if let Some(replaced) = replace(current, rule, regex, counts) {
                // What was replaced can make another pattern match.
                candidates = self.pii_filter.candidates(&replaced);
                clean = Some(replaced);
            }
        }
        clean
    }

    /// Whether no rule of any kind has anything to do with the text.
    #[must_use]
    pub fn is_clean(&self, text: &str) -> bool {
        self.injection(text).is_none() && self.redacted(text, &mut Redactions::default()).is_none()
    }
}

fn replace(text: &str, rule: &PiiRule, regex: &Regex, counts: &mut Redactions) -> Option<String> {
    let mut out = String::new();
    let mut copied = 0;
    for found in regex.find_iter(text) {
        if !is_whole_word(text, found.start(), found.end()) || !passes(rule.check, found.as_str()) {
            continue;
        }
        out.push_str(&text[copied..found.start()]);
        out.push_str(&rule.replacement);
        copied = found.end();
        counts.add(&rule.kind);
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// Whether a match is a whole word: not part of a longer name or number, nor of a decimal.
fn is_whole_word(text: &str, start: usize, end: usize) -> bool {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut before = text[..start].chars().rev();
    let mut after = text[end..].chars();
    match before.next() {
        Some(character) if is_word(character) => return false,
        Some('.')
            if before
                .next()
                .is_some_and(|character| character.is_ascii_digit()) =>
        {
            return false
        }
        _ => {}
    }
    match after.next() {
        Some(character) if is_word(character) => false,
        Some('.') => !after
            .next()
            .is_some_and(|character| character.is_ascii_digit()),
        _ => true,
    }
}

fn passes(check: Check, text: &str) -> bool {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|character| character.to_digit(10))
        .collect();
    match check {
        Check::None => true,
        Check::Luhn => luhn(&digits),
        Check::Iban => iban(text),
        Check::Ssn => ssn(text),
        Check::Phone => (8..=15).contains(&digits.len()),
        Check::Ipv4 => text.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => *digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    digits.iter().any(|digit| *digit != 0) && sum % 10 == 0
}

fn iban(text: &str) -> bool {
    let compact: Vec<char> = text.chars().filter(|character| *character != ' ').collect();
    if !(15..=34).contains(&compact.len()) {
        return false;
    }
    let rotated = compact[4..].iter().chain(&compact[..4]);
    let remainder = rotated.fold(0, |remainder, character| {
        let value = character.to_digit(36).unwrap_or(0);
        (remainder * if value > 9 { 100 } else { 10 } + value) % 97
    });
    remainder == 1
}

fn ssn(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [area, group, serial] = parts[..] else {
        return false;
    };
    area != "000" && area != "666" && !area.starts_with('9') && group != "00" && serial != "0000"
}

#[cfg(test)]
mod tests {
    use super::{Redactions, Rules};
    use std::collections::BTreeMap;

    const CASES: &str = include_str!("../../../schemas/rules/cases.json");

    #[test]
    fn the_shared_cases_give_the_expected_results() {
        let rules = Rules::built_in().unwrap();
        let cases: serde_json::Value = serde_json::from_str(CASES).unwrap();
        for case in cases["pii"].as_array().unwrap() {
            let mut counts = Redactions::default();
            assert_eq!(
                rules.redact(case["text"].as_str().unwrap(), &mut counts),
                case["redacted"].as_str().unwrap()
            );
            let counts: BTreeMap<String, i64> = counts
                .counts()
                .into_iter()
                .map(|(k, v)| (k, v.get()))
                .collect();
            assert_eq!(
                serde_json::to_value(counts).unwrap(),
                case["counts"],
                "{case}"
            );
        }
        for case in cases["injection"].as_array().unwrap() {
            assert_eq!(
                rules.injection(case["text"].as_str().unwrap()),
                case["rule"].as_str(),
                "{case}"
            );
        }
    }
}
