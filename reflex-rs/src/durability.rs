//! What a 202 promises, in the words of answers, headers and settings. Pure.

use std::fmt;

use contracts::settings;

/// Replicas that anybody may ask for.
const MOST_REPLICAS: usize = 16;

/// What holds of a submission beyond lying in Redis' memory, or has to hold before it is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durability {
    /// Redis has synced it to its disk.
    pub synced: bool,
    /// So many replicas of Redis have it in memory.
    pub replicas: usize,
    /// Postgres has it, so that Redis may lose everything.
    pub stored: bool,
}

impl Durability {
    /// What the deployment needs.
    #[must_use]
    pub fn of(settings: &settings::Reflex) -> Self {
        let mut needed = Self::default();
        match settings.durability {
            settings::Durability::Auto => {}
            settings::Durability::Fsync => needed.synced = true,
            settings::Durability::Replicated => needed.replicas = settings.durability_replicas,
            settings::Durability::Stored => needed.stored = true,
        }
        needed
    }

    /// Reads one or more modes with `+` between them, as `Display` writes them; `replicated` alone is `replicated(replicas)`.
    #[must_use]
    pub fn parse(text: &str, replicas: usize) -> Option<Self> {
        text.split('+').try_fold(Self::default(), |known, word| {
            let mut asked = Self::default();
            match word {
                "redis" => {}
                "fsync" => asked.synced = true,
                "stored" => asked.stored = true,
                "replicated" => asked.replicas = replicas,
                _ => asked.replicas = count(word)?,
            }
            Some(known.and(asked))
        })
    }

    /// Both at once: never less than either.
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
    let plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    let count = number.parse().ok().filter(|_| plain)?;
    (1..=MOST_REPLICAS).contains(&count).then_some(count)
}

impl fmt::Display for Durability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stored, self.synced, self.replicas) {
            // Whatever Redis does with it besides adds nothing.
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
    fn what_is_written_can_be_read() {
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
    fn what_is_no_mode_is_refused() {
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
    fn two_together_are_never_less_than_one() {
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
