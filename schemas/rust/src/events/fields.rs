//! The building blocks of the events: text, numbers, names and words that can only hold what their schema allows.
//!
//! Each one checks itself when it is made, so a value that exists is valid. Lengths count Unicode code points.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::reading::from_object;
use crate::error::ContractError;

/// Any JSON object.
pub type Object = serde_json::Map<String, Value>;

/// Any JSON object, checked and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnyObject;

impl<'de> Deserialize<'de> for AnyObject {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = AnyObject;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<AnyObject, A::Error> {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(AnyObject)
            }
        }

        from.deserialize_map(Entries)
    }
}

/// Text of `MIN` to `MAX` code points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text<const MIN: usize, const MAX: usize>(String);

impl<const MIN: usize, const MAX: usize> Text<MIN, MAX> {
    /// Makes a text, cut to the longest length allowed. Still fails when it is too short.
    pub fn cut(text: &str) -> Result<Self, ContractError> {
        text.chars().take(MAX).collect::<String>().try_into()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<String> for Text<MIN, MAX> {
    type Error = ContractError;

    fn try_from(text: String) -> Result<Self, ContractError> {
        // Bytes are an upper bound of code points, so most texts need no counting.
        let length = if text.len() <= MAX && text.len() / 4 >= MIN {
            MIN
        } else {
            text.chars().count()
        };
        if (MIN..=MAX).contains(&length) {
            Ok(Self(text))
        } else {
            Err(ContractError::schema(
                "",
                format!("must have {MIN} to {MAX} characters"),
            ))
        }
    }
}

impl<const MIN: usize, const MAX: usize> From<Text<MIN, MAX>> for String {
    fn from(text: Text<MIN, MAX>) -> Self {
        text.0
    }
}

/// A sentence of at most 4,000 characters.
pub type Detail = Text<0, 4000>;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Int<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Int<MIN, MAX> {
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// The nearest number within the range.
    #[must_use]
    pub fn nearest(value: u64) -> Self {
        Self(i64::try_from(value).unwrap_or(MAX).clamp(MIN, MAX))
    }
}

impl<const MIN: i64, const MAX: i64> TryFrom<i64> for Int<MIN, MAX> {
    type Error = ContractError;

    fn try_from(value: i64) -> Result<Self, ContractError> {
        if (MIN..=MAX).contains(&value) {
            Ok(Self(value))
        } else {
            Err(ContractError::schema(
                "",
                format!("must be from {MIN} to {MAX}"),
            ))
        }
    }
}

impl<const MIN: i64, const MAX: i64> From<Int<MIN, MAX>> for i64 {
    fn from(value: Int<MIN, MAX>) -> Self {
        value.0
    }
}

/// Largest whole number that every JSON reader keeps exactly.
pub const MAX_SAFE: i64 = 9_007_199_254_740_991;
pub const MAX_I32: i64 = 2_147_483_647;
pub type Run = Int<1, MAX_I32>;
pub type Round = Int<0, 1000>;
pub type Attempt = Int<1, MAX_I32>;
pub type Count = Int<0, MAX_I32>;
pub type Bytes = Int<0, MAX_SAFE>;

macro_rules! pattern {
    ($(#[$doc:meta])* $name:ident, $fits:expr, $must:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = ContractError;

            fn try_from(text: String) -> Result<Self, ContractError> {
                let fits: fn(&[u8]) -> bool = $fits;
                if fits(text.as_bytes()) { Ok(Self(text)) } else { Err(ContractError::schema("", $must)) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = ContractError;

            fn from_str(text: &str) -> Result<Self, ContractError> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

/// One byte that `first` allows, then up to 62 that `rest` allows.
fn word(text: &[u8], first: fn(u8) -> bool, rest: fn(u8) -> bool) -> bool {
    (1..=63).contains(&text.len()) && first(text[0]) && text[1..].iter().all(|byte| rest(*byte))
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase()
}

fn alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_task(text: &[u8]) -> bool {
    let Some(dash) = text.iter().position(|byte| *byte == b'-') else {
        return false;
    };
    let (lane, ulid) = (&text[..dash], &text[dash + 1..]);
    is_lane(lane)
        && ulid.len() == 26
        && ulid
            .iter()
            .all(|byte| alnum(*byte) && !b"ilou".contains(byte))
}

/// `l` and one to four digits.
#[must_use]
pub fn is_lane(lane: &[u8]) -> bool {
    (2..=5).contains(&lane.len()) && lane[0] == b'l' && lane[1..].iter().all(u8::is_ascii_digit)
}

/// `http://` or `https://`, a host with an optional port, and optionally a path or query. Without user and fragment, and with
/// no byte that two readers of URLs could take for something else.
fn is_callback_url(text: &[u8]) -> bool {
    let Some(rest) = (text.strip_prefix(b"https://")).or_else(|| text.strip_prefix(b"http://"))
    else {
        return false;
    };
    let in_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:[]-".contains(byte);
    let in_target = |byte: &u8| in_host(byte) || b"~/?@!$&()*+,;=%".contains(byte);
    let end = (rest.iter().position(|byte| b"/?".contains(byte))).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    (1..=260).contains(&host.len())
        && host.iter().all(in_host)
        && target.len() <= 1701
        && target.iter().all(in_target)
}

fn is_timestamp(text: &[u8]) -> bool {
    let shape = b"0000-00-00T00:00:00.000Z";
    text.len() == shape.len()
        && text.iter().zip(shape).all(|(byte, want)| {
            if *want == b'0' {
                byte.is_ascii_digit()
            } else {
                byte == want
            }
        })
}

pattern!(
    /// Task id: its lane, a dash, a lower-case ULID.
    TaskId, is_task, "must be a task id: the lane, a dash, a lower-case ULID"
);
pattern!(
    /// Name of a step or of an arm.
    Name,
    |text| word(text, lower, |byte| alnum(byte) || b"_-".contains(&byte)),
    "must be a lower-case name: a letter, then at most 62 letters, digits, _ or -"
);
pattern!(
    /// Whose task it is.
    Tenant,
    |text| word(text, alnum, |byte| alnum(byte) || b"_-".contains(&byte)),
    "must be a tenant: a lower-case letter or digit, then at most 62 letters, digits, _ or -"
);
pattern!(
    /// Task kind; matches a recipe.
    Kind,
    |text| word(text, lower, |byte| alnum(byte) || b"_.-".contains(&byte)),
    "must be a kind: a lower-case letter, then at most 62 letters, digits, _, . or -"
);
pattern!(
    /// Stable name of an error, for programs.
    Code,
    |text| word(text, lower, |byte| alnum(byte) || byte == b'_'),
    "must be an error code: a lower-case letter, then at most 62 letters, digits or _"
);
pattern!(
    /// SHA-256 as lower-case hexadecimal.
    Sha256,
    |text| text.len() == 64 && text.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)),
    "must be a SHA-256 in lower-case hexadecimal"
);
pattern!(
    /// Where a callback is sent.
    CallbackUrl,
    is_callback_url,
    "must be a URL like https://example.com/path, without user, fragment or blanks, and of at most 1,700 characters after the host"
);
pattern!(
    /// UTC, RFC 3339 with exactly milliseconds and `Z`.
    Timestamp, is_timestamp, "must be a UTC time like 2026-01-31T12:00:00.000Z"
);

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($word:ident = $wire:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum $name { $($word),* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$word),*];

            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$word => $wire),* }
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::error::ContractError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                match text.as_str() {
                    $($wire => Ok(Self::$word),)*
                    _ => Err($crate::error::ContractError::schema("", concat!("must be one of:", $(" ", $wire),*))),
                }
            }
        }

        impl From<$name> for &'static str {
            fn from(word: $name) -> Self {
                word.as_str()
            }
        }
    };
}
pub(crate) use words;

words!(
    /// Which of a topic's streams a message travels on.
    Priority { High = "high", Normal = "normal", Low = "low" }
);

/// At most 32 entries; the value type has its own rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, V>", into = "BTreeMap<String, V>")]
#[serde(bound(
    serialize = "V: Serialize + Clone",
    deserialize = "V: Deserialize<'de>"
))]
pub struct DigestMap<V: Clone>(BTreeMap<String, V>);

impl<V: Clone> DigestMap<V> {
    pub fn iter(&self) -> impl Iterator<Item = (&String, &V)> {
        self.0.iter()
    }
}

impl<V: Clone> TryFrom<BTreeMap<String, V>> for DigestMap<V> {
    type Error = ContractError;

    fn try_from(map: BTreeMap<String, V>) -> Result<Self, ContractError> {
        if map.len() > 32 {
            return Err(ContractError::schema("", "must have at most 32 entries"));
        }
        Ok(Self(map))
    }
}

impl<V: Clone> From<DigestMap<V>> for BTreeMap<String, V> {
    fn from(map: DigestMap<V>) -> Self {
        map.0
    }
}

/// At most `MAX` objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Object>")]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: DeserializeOwned"))]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// The first `MAX` of these.
    #[must_use]
    pub fn cut(mut items: Vec<T>) -> Self {
        items.truncate(MAX);
        Self(items)
    }

    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<T: DeserializeOwned, const MAX: usize> TryFrom<Vec<Object>> for List<T, MAX> {
    type Error = ContractError;

    fn try_from(items: Vec<Object>) -> Result<Self, ContractError> {
        if items.len() > MAX {
            return Err(ContractError::schema(
                "",
                format!("must have at most {MAX} items"),
            ));
        }
        items
            .into_iter()
            .map(from_object)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}
