//! The durability that a 202 promises, as answers, headers and settings write it. Pure.

use std::fmt;

use contracts::settings;

/// How many replicas a request may require.
const MAX_REPLICAS: usize = 16;

/// How durable a submission is, or has to be before it is answered, beyond being in Redis' memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durability {
    /// Redis has synced it to its disk.
    pub synced: bool,
    /// How many replicas of Redis have it in memory.
    pub replicas: usize,
    /// Postgres has it, so Redis may lose everything.
    pub stored: bool,
}

impl Durability {
    /// Requires nothing beyond what Redis is configured for.
    pub const NONE: Self = Self {
        synced: false,
        replicas: 0,
        stored: false,
    };

    /// Returns what the deployment requires of every submission.
    #[must_use]
    pub fn required_by(settings: &settings::Reflex) -> Self {
        let mut needed = Self::default();
        match settings.durability {
            settings::Durability::Auto => {}
            settings::Durability::Fsync => needed.synced = true,
            settings::Durability::Replicated => needed.replicas = settings.durability_replicas,
            settings::Durability::Stored => needed.stored = true,
        }
        needed
    }

    /// Parses one or more modes joined by `+`, as `Display` writes them. `replicated` alone means `replicated(replicas)`.
    #[must_use]
    pub fn parse(text: &str, replicas: usize) -> Option<Self> {
        text.split('+').try_fold(Self::default(), |known, word| {
            let mut mode = Self::default();
            match word {
                "redis" => {}
                "fsync" => mode.synced = true,
                "stored" => mode.stored = true,
                "replicated" => mode.replicas = replicas,
                _ => mode.replicas = count(word)?,
            }
            Some(known.and(mode))
        })
    }

    /// Combines two requirements: the result is never weaker than either.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            synced: self.synced || other.synced,
            replicas: self.replicas.max(other.replicas),
            stored: self.stored || other.stored,
        }
    }
}

/// The number in `replicated(n)`.
fn count(word: &str) -> Option<usize> {
    let number = word.strip_prefix("replicated(")?.strip_suffix(')')?;
    let canonical = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    let count = number.parse().ok().filter(|_| canonical)?;
    (1..=MAX_REPLICAS).contains(&count).then_some(count)
}

impl fmt::Display for Durability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stored, self.synced, self.replicas) {
            // What Redis does in addition makes no difference.
            (true, _, _) => out.write_str("stored"),
            (false, false, 0) => out.write_str("redis"),
            (false, true, 0) => out.write_str("fsync"),
            (false, false, replicas) => write!(out, "replicated({replicas})"),
            (false, true, replicas) => write!(out, "fsync+replicated({replicas})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Durability;

    fn parse(text: &str) -> Option<Durability> {
        Durability::parse(text, 2)
    }

    #[test]
    fn what_is_formatted_can_be_parsed() {
        for text in [
            "redis",
            "fsync",
            "replicated(1)",
            "replicated(16)",
            "fsync+replicated(3)",
            "stored",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("replicated").unwrap().replicas, 2);
        assert_eq!(
            parse("replicated(3)+fsync").unwrap().to_string(),
            "fsync+replicated(3)"
        );
        assert_eq!(parse("fsync+stored").unwrap().to_string(), "stored");
    }

    #[test]
    fn an_invalid_mode_is_refused() {
        for text in [
            "",
            "Stored",
            "auto",
            " stored",
            "stored+",
            "+",
            "fsync,stored",
            "replicated(0)",
            "replicated(01)",
            "replicated(17)",
            "replicated(+1)",
            "replicated(1",
            "replicated()",
            "replicated(99999999999999999999)",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_combination_is_never_weaker_than_one_of_them() {
        let both = |one: &str, other: &str| parse(one).unwrap().and(parse(other).unwrap());
        assert_eq!(both("replicated(1)", "replicated(3)").replicas, 3);
        assert_eq!(
            both("fsync", "replicated(1)").to_string(),
            "fsync+replicated(1)"
        );
        assert_eq!(both("stored", "redis").to_string(), "stored");
        assert_eq!(both("redis", "redis"), Durability::default());
    }
}
