//! The position of an event in its task's history.

use contracts::events::fields::{Attempt, Run};
use contracts::events::TaskEvent;

/// The run and the event's number within it. Written `<run>-<seq>`, it is the id of a server-sent event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    pub run: i64,
    pub seq: i64,
}

impl EventId {
    #[must_use]
    pub fn of(event: &TaskEvent) -> Self {
        Self {
            run: event.run.get(),
            seq: event.seq.get(),
        }
    }

    /// Whether no event can come between `before` and this one.
    #[must_use]
    pub fn follows(self, before: Option<Self>) -> bool {
        match before {
            Some(before) if before.run == self.run => self.seq == before.seq + 1,
            _ => self.seq == 1,
        }
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{}", self.run, self.seq)
    }
}

impl std::str::FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| -> Result<i64, ()> {
            let canonical =
                text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
            if canonical {
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
    use super::EventId;

    #[test]
    fn it_parses_what_it_formats_and_nothing_else() {
        let id: EventId = "2-13".parse().unwrap();
        assert_eq!((id.run, id.seq, id.to_string().as_str()), (2, 13, "2-13"));
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
            assert!(wrong.parse::<EventId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_are_ordered_by_run_first() {
        let id = |text: &str| text.parse::<EventId>().unwrap();
        assert!(id("2-1") > id("1-9") && id("1-10") > id("1-9"));
        assert!(id("1-1").follows(None) && id("1-3").follows(Some(id("1-2"))));
        assert!(id("2-1").follows(Some(id("1-7"))));
        assert!(!id("1-2").follows(None) && !id("1-4").follows(Some(id("1-2"))));
    }
}
