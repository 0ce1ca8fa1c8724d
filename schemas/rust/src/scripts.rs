//! The hand-off scripts, the very files that Python runs, put together for `SCRIPT LOAD`.
//!
//! A script's header in `lua` documents its KEYS and ARGV.

/// What is put where a script says `--@include`.
const INCLUDED: [(&str, &str); 2] = [
    (
        "--@include lease.lua\n",
        include_str!("../../../lua/lease.lua"),
    ),
    (
        "--@include fairness.lua\n",
        include_str!("../../../lua/fairness.lua"),
    ),
];

/// One of the scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    Admit,
    Cancel,
    Claim,
    Complete,
    Prune,
    LeaveGroup,
    Promote,
    Redrive,
    Release,
    Renew,
    Republish,
}

impl Script {
    pub const ALL: [Self; 11] = [
        Self::Admit,
        Self::Cancel,
        Self::Claim,
        Self::Complete,
        Self::Prune,
        Self::LeaveGroup,
        Self::Promote,
        Self::Redrive,
        Self::Release,
        Self::Renew,
        Self::Republish,
    ];

    /// The text to load; the `#!lua` line stays first, as Redis demands.
    #[must_use]
    pub fn source(self) -> String {
        let text = match self {
            Self::Admit => include_str!("../../../lua/admit.lua"),
            Self::Cancel => include_str!("../../../lua/cancel.lua"),
            Self::Claim => include_str!("../../../lua/claim.lua"),
            Self::Complete => include_str!("../../../lua/complete.lua"),
            Self::Prune => include_str!("../../../lua/prune.lua"),
            Self::LeaveGroup => include_str!("../../../lua/leave_group.lua"),
            Self::Promote => include_str!("../../../lua/promote.lua"),
            Self::Redrive => include_str!("../../../lua/redrive.lua"),
            Self::Release => include_str!("../../../lua/release.lua"),
            Self::Renew => include_str!("../../../lua/renew.lua"),
            Self::Republish => include_str!("../../../lua/republish.lua"),
        };
        INCLUDED
            .iter()
            .fold(text.to_owned(), |text, (line, included)| {
                text.replace(line, included)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::Script;

    #[test]
    fn every_script_starts_with_its_shebang_and_includes_nothing_unexpanded() {
        for script in Script::ALL {
            let source = script.source();
            assert!(source.starts_with("#!lua"), "{script:?}");
            assert!(
                !source.lines().any(|line| line.starts_with("--@include")),
                "{script:?}"
            );
        }
        assert!(Script::Renew.source().contains("local function lease_status("));
        assert!(Script::Admit.source().contains("local function push("));
    }
}
