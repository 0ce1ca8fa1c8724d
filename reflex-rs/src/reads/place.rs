//! Where in a task's history an event stands.

use contracts::events::fields::{Attempt, Run};
use contracts::events::TaskEvent;

/// Run and number within it; written `<run>-<seq>`, which is the id of a live event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub run: i64,
    pub seq: i64,
}

impl Place {
    #[must_use]
    pub fn of(event: &TaskEvent) -> Self {
        Self {
            run: event.run.get(),
            seq: event.seq.get(),
        }
    }

    /// Whether nothing can lie between the two.
    #[must_use]
    pub fn is_next_after(self, before: Option<Self>) -> bool {
        match before {
            Some(before) if before.run == self.run => self.seq == before.seq + 1,
            _ => self.seq == 1,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{}", self.run, self.seq)
    }
}

impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| -> Result<i64, ()> {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
            if plain {
                text.parse().map_err(|_| ())
            } else {
                Err(())
            }
        };
        let (run, seq) = text.split_once('-').ok_or(())?;
        let (run, seq) = (number(run)?, number(seq)?);
        Run::try_from(run).map_err(|_| ())?;
        Attempt::try_from(seq).map_err(|_| ())?;
        Ok(Self { run, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn it_reads_what_it_writes_and_nothing_else() {
        let place: Place = "2-13".parse().unwrap();
        assert_eq!(
            (place.run, place.seq, place.to_string().as_str()),
            (2, 13, "2-13")
        );
        for wrong in [
            "",
            "1",
            "1-",
            "-1",
            "0-1",
            "1-0",
            "01-1",
            "1-+1",
            "1-1-1",
            " 1-1",
            "1-2147483648",
            "a-b",
        ] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn order_is_by_run_first() {
        let place = |text: &str| text.parse::<Place>().unwrap();
        assert!(place("2-1") > place("1-9") && place("1-10") > place("1-9"));
        assert!(place("1-1").is_next_after(None) && place("1-3").is_next_after(Some(place("1-2"))));
        assert!(place("2-1").is_next_after(Some(place("1-7"))));
        assert!(
            !place("1-2").is_next_after(None) && !place("1-4").is_next_after(Some(place("1-2")))
        );
    }
}
