//! The fingerprint of a submission: it tells a repeat from another task under the same idempotency key.
//!
//! It does not depend on how the JSON text is written: spaces, escapes, the order of keys and the spelling of numbers make no
//! difference. Numbers are compared by their value, so `1`, `1.0` and `1e0` are the same.

use std::ops::Range;

use contracts::{ids, strict_json};

/// Returns the fingerprint of a text that `strict_json::canonicalize` wrote: SHA-256 in lower-case hexadecimal of the value
/// with sorted keys and one spelling for each number.
pub(super) fn of_canonical(text: &[u8]) -> String {
    let mut writer = Writer {
        text,
        at: 0,
        sorted: Vec::with_capacity(text.len()),
        members: Vec::new(),
        unsorted: Vec::new(),
    };
    writer.value();
    ids::sha256_hex(&writer.sorted)
}

/// Returns the fingerprint of what a sender wrote: the same as `of_canonical` if it is JSON, else the SHA-256 of the bytes.
pub(super) fn of_received(received: &[u8]) -> String {
    strict_json::canonicalize(received, strict_json::MAX_DEPTH, |_| {})
        .map_or_else(|_| ids::sha256_hex(received), |text| of_canonical(&text))
}

/// A member of an object: where its key and the whole of it are in `sorted`.
#[derive(Clone)]
struct Member {
    key: Range<usize>,
    whole: Range<usize>,
}

/// Copies a canonical text and sorts the members of each object by their keys.
struct Writer<'a> {
    text: &'a [u8],
    at: usize,
    sorted: Vec<u8>,
    /// The members of all objects that are open.
    members: Vec<Member>,
    /// The object that is being sorted, as it was.
    unsorted: Vec<u8>,
}

impl Writer<'_> {
    /// The depth of a canonical text is bounded, so recursion is safe.
    fn value(&mut self) {
        match self.text.get(self.at) {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string(),
            Some(_) => self.scalar(),
            None => {}
        }
    }

    fn array(&mut self) {
        self.copy_byte();
        while self.at < self.text.len() && !self.ends_with(b']') {
            self.value();
        }
    }

    fn object(&mut self) {
        self.copy_byte();
        let (start, first) = (self.sorted.len(), self.members.len());
        while self.text.get(self.at) == Some(&b'"') {
            let begin = self.sorted.len();
            self.string();
            let key = begin..self.sorted.len();
            self.copy_byte();
            self.value();
            let whole = begin..self.sorted.len();
            self.members.push(Member { key, whole });
            if self.text.get(self.at) == Some(&b',') {
                self.at += 1;
            }
        }
        self.sort(start, first);
        self.members.truncate(first);
        self.copy_byte();
    }

    /// Sorts the members from `first` on, whose text begins at `start` and has no commas yet, and adds the commas.
    fn sort(&mut self, start: usize, first: usize) {
        let Self {
            sorted,
            members,
            unsorted,
            ..
        } = self;
        let members = &mut members[first..];
        if members.len() < 2 {
            return;
        }
        members
            .sort_unstable_by(|one, other| sorted[one.key.clone()].cmp(&sorted[other.key.clone()]));
        unsorted.clear();
        unsorted.extend_from_slice(&sorted[start..]);
        sorted.truncate(start);
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                sorted.push(b',');
            }
            sorted
                .extend_from_slice(&unsorted[member.whole.start - start..member.whole.end - start]);
        }
    }

    /// Whether a container ends here or goes on after a comma; copies what it finds.
    fn ends_with(&mut self, end: u8) -> bool {
        match self.text.get(self.at) {
            Some(byte) if *byte == end => {
                self.copy_byte();
                true
            }
            Some(b',') => {
                self.copy_byte();
                false
            }
            _ => false,
        }
    }

    fn copy_byte(&mut self) {
        self.sorted.extend(self.text.get(self.at));
        self.at += 1;
    }

    fn string(&mut self) {
        let rest = &self.text[self.at..];
        let mut length = 1;
        while let Some(byte) = rest.get(length) {
            length += match byte {
                b'"' => break,
                b'\\' => 2,
                _ => 1,
            };
        }
        let length = (length + 1).min(rest.len());
        self.sorted.extend_from_slice(&rest[..length]);
        self.at += length;
    }

    /// A number or a word.
    fn scalar(&mut self) {
        let rest = &self.text[self.at..];
        let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}');
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        let scalar = &rest[..length];
        self.at += length;
        match whole_number(scalar) {
            Some(digits) => self.sorted.extend_from_slice(digits.as_bytes()),
            None => self.sorted.extend_from_slice(scalar),
        }
    }
}

/// Spells a float as an integer if one of 64 bits has its value.
fn whole_number(scalar: &[u8]) -> Option<String> {
    const BOUND: f64 = 18_446_744_073_709_551_616.0;
    let first = scalar.first()?;
    if !(first.is_ascii_digit() || *first == b'-')
        || scalar.iter().all(|byte| !b".eE".contains(byte))
    {
        return None;
    }
    let number: f64 = std::str::from_utf8(scalar).ok()?.parse().ok()?;
    if number.fract() != 0.0 || number.abs() >= BOUND {
        return None;
    }
    // Without the sign of -0.0.
    Some(format!("{}", if number == 0.0 { 0.0 } else { number }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{of_canonical, of_received};

    fn of(text: &str) -> String {
        of_received(text.as_bytes())
    }

    #[test]
    fn the_way_in_which_a_value_is_written_makes_no_difference() {
        let same = [
            (r#"{"a":1,"b":2}"#, " {\"b\" : 2,\n\"a\":1 }"),
            (
                r#"{"x":{"b":[{"d":1,"c":{}}],"a":[]},"w":null}"#,
                r#"{"w":null,"x":{"a":[],"b":[{"c":{},"d":1}]}}"#,
            ),
            (r#"{"\u0061":"\u00e9\/"}"#, r#"{"a":"é/"}"#),
            (
                r"[1.0,-0.0,1e2,1E16,10.50]",
                r"[1,0,100,10000000000000000,1.05e1]",
            ),
            (r"[-3.0,1e300,5e-324]", r"[-3,1.0E+300,5.0e-324]"),
            (r#"{"a":1,"aa":2,"a\"":3}"#, r#"{"a\"":3,"aa":2,"a":1}"#),
        ];
        for (one, other) in same {
            assert_eq!(of(one), of(other), "{one} {other}");
        }
    }

    #[test]
    fn another_value_has_another_fingerprint() {
        let texts = [
            "{}",
            "[]",
            "[{}]",
            "[[]]",
            "[1,2]",
            "[2,1]",
            "[12]",
            "[[1],2]",
            "[1,[2]]",
            r#"["1"]"#,
            "[1]",
            "[1.5]",
            "[-1]",
            "[true]",
            "[false]",
            "[null]",
            "[1e300]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"b":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":{},"b":1}"#,
            r#"{"a":{"b":1},"c":2}"#,
            r#"{"a":{"b":1,"c":2}}"#,
            r#"{"a":"b\",\"c"}"#,
            r#"{"a":"b","c":""}"#,
            r#"["a,b"]"#,
            r#"["a","b"]"#,
            "not json",
            "not  json",
            "",
        ];
        let mut seen: Vec<String> = texts.iter().map(|text| of(text)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), texts.len());
    }

    #[test]
    fn every_order_of_keys_is_the_same() {
        let keys = ["z", "a", "m", "é", "a b", "\u{10000}", "\u{ffff}"];
        let text = |order: &[&str]| {
            let object: serde_json::Map<String, Value> = order
                .iter()
                .map(|key| ((*key).to_owned(), Value::from(*key)))
                .collect();
            Value::Object(object).to_string()
        };
        let mut order = keys;
        let first = of_canonical(text(&order).as_bytes());
        for _ in 0..keys.len() {
            order.rotate_left(1);
            assert_eq!(of_canonical(text(&order).as_bytes()), first);
            order.swap(0, 3);
            assert_eq!(of_canonical(text(&order).as_bytes()), first);
        }
    }
}
