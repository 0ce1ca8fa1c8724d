//! Decides by the bytes of a text which patterns can match it, so that most texts are not scanned by every pattern.

use std::collections::BTreeSet;

use regex_syntax::hir::{Class, Hir, HirKind};

/// Patterns, and classes of bytes, that one filter distinguishes.
pub(super) const MAX: usize = 64;
/// Of a pattern's classes only the smallest are kept: they exclude most texts.
const MAX_CLASSES: usize = 4;

/// Bytes of which every match has at least one.
type ByteClass = BTreeSet<u8>;

/// What every match of a pattern has.
#[derive(Debug, Default)]
struct Required {
    min_length: usize,
    /// One bit for each class of which a match has a byte.
    classes: u64,
}

/// The patterns that can match a text; those that are left out cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidates(u64);

impl Candidates {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, pattern: usize) -> bool {
        self.0 & (1 << pattern) != 0
    }
}

/// The filter for a list of patterns.
#[derive(Debug)]
pub(super) struct Prefilter {
    /// For each byte, the classes that contain it.
    classes_of: [u64; 256],
    patterns: Vec<Required>,
}

impl Prefilter {
    /// Analyses patterns in the syntax of the regex crate; those after the first 64 are never candidates.
    pub fn new<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Box<regex_syntax::Error>> {
        let mut known: Vec<ByteClass> = Vec::new();
        let mut filter = Self {
            classes_of: [0; 256],
            patterns: Vec::new(),
        };
        for pattern in patterns.into_iter().take(MAX) {
            let hir = regex_syntax::parse(pattern).map_err(Box::new)?;
            let mut required = Required {
                min_length: hir.properties().minimum_len().unwrap_or(0),
                classes: 0,
            };
            let mut classes: Vec<ByteClass> = classes(&hir).into_iter().collect();
            classes.sort_by_key(ByteClass::len);
            for class in classes.into_iter().take(MAX_CLASSES) {
                let position = known.iter().position(|one| *one == class);
                let index = position.unwrap_or_else(|| {
                    known.push(class);
                    known.len() - 1
                });
                // Without a bit of its own, a class excludes nothing.
                if index < MAX {
                    required.classes |= 1 << index;
                }
            }
            filter.patterns.push(required);
        }
        for (index, class) in known.iter().take(MAX).enumerate() {
            for byte in class {
                filter.classes_of[usize::from(*byte)] |= 1 << index;
            }
        }
        Ok(filter)
    }

    pub fn candidates(&self, text: &str) -> Candidates {
        let seen = text
            .bytes()
            .fold(0, |seen, byte| seen | self.classes_of[usize::from(byte)]);
        let possible = |one: &Required| one.classes & !seen == 0 && one.min_length <= text.len();
        let all = self.patterns.iter().enumerate();
        Candidates(all.fold(0, |bits, (index, one)| {
            bits | (u64::from(possible(one)) << index)
        }))
    }
}

/// Classes of bytes such that every match has a byte of each.
fn classes(hir: &Hir) -> BTreeSet<ByteClass> {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.iter().map(|byte| [*byte].into()).collect(),
        HirKind::Class(class) => [bytes_of(class)].into(),
        HirKind::Repetition(repetition) if repetition.min > 0 => classes(&repetition.sub),
        HirKind::Capture(capture) => classes(&capture.sub),
        HirKind::Concat(parts) => parts.iter().flat_map(classes).collect(),
        HirKind::Alternation(branches) => {
            // A match is one of the branches, so it has a byte of the union of one class of each.
            let smallest = |branch| classes(branch).into_iter().min_by_key(ByteClass::len);
            let all: Option<Vec<ByteClass>> = branches.iter().map(smallest).collect();
            all.map(|each| each.into_iter().flatten().collect())
                .into_iter()
                .collect()
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => BTreeSet::new(),
    }
}

fn bytes_of(class: &Class) -> ByteClass {
    match class {
        Class::Bytes(class) => {
            let ranges = class.ranges().iter();
            ranges.flat_map(|one| one.start()..=one.end()).collect()
        }
        Class::Unicode(class) => {
            let ranges = class.ranges().iter();
            ranges
                .flat_map(|one| match (u8::try_from(one.start()), one.end()) {
                    (Ok(start @ ..=0x7f), end @ '\0'..='\x7f') => start..=end as u8,
                    // The encoding of any other character begins with one of these bytes.
                    (Ok(start @ ..=0x7f), _) => start..=0xff,
                    _ => 0x80..=0xff,
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Prefilter;

    fn can_match(pattern: &str, text: &str) -> bool {
        let filter = Prefilter::new([pattern]).unwrap();
        filter.candidates(text).contains(0)
    }

    #[test]
    fn a_text_without_what_a_match_needs_is_no_candidate() {
        for (pattern, without) in [
            ("[a-z]+@[a-z]+", "nobody at example"),
            ("[0-9]{3}-[0-9]{2}", "123456"),
            ("[0-9]{3}-[0-9]{2}", "1-2"),
            ("(?:cat|dog) [0-9]", "the end"),
            ("(?i)ab", "xb"),
            ("a(?:b|c)?d", "abc"),
            ("(x+|y)z", "xy"),
        ] {
            assert!(!can_match(pattern, without), "{pattern} {without}");
        }
    }

    #[test]
    fn every_text_that_matches_is_a_candidate() {
        for (pattern, text) in [
            ("[a-z]+@[a-z]+", "a@b"),
            ("[0-9]{3}-[0-9]{2}", "call 123-45 now"),
            ("(?:cat|dog) [0-9]", "dog 7"),
            ("(?i)k", "\u{212a}"),
            ("(?i)s\u{e4}", "\u{17f}\u{c4}"),
            ("[^a]", "\u{1f600}"),
            ("a?", ""),
            ("(?:a|)b*", "z"),
            (r"\bx|^$", ""),
            (r"(?-u:\w)", "a"),
        ] {
            assert!(
                regex::Regex::new(pattern).unwrap().is_match(text),
                "{pattern}"
            );
            assert!(can_match(pattern, text), "{pattern} {text}");
        }
    }
}
