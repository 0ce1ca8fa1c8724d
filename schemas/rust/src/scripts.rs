//! The hand-off scripts, the very files that Python runs, put together for `SCRIPT LOAD`.
//!
//! A script's header in `workers/octollm/bus/lua` documents its KEYS and ARGV.

/// What is put where a script says `--@include`.
const INCLUDED: [(&str, &str); 2] = [
    (
        "--@include ownership.lua\n",
        include_str!("../../../workers/octollm/bus/lua/ownership.lua"),
    ),
    (
        "--@include fairness.lua\n",
        include_str!("../../../workers/octollm/bus/lua/fairness.lua"),
    ),
];

/// One of the scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    Admit,
    Cancel,
    Claim,
    Complete,
    Forget,
    Leave,
    Promote,
    Redrive,
    Release,
    Renew,
    Resend,
}

impl Script {
    pub const ALL: [Self; 11] = [
        Self::Admit,
        Self::Cancel,
        Self::Claim,
        Self::Complete,
        Self::Forget,
        Self::Leave,
        Self::Promote,
        Self::Redrive,
        Self::Release,
        Self::Renew,
        Self::Resend,
    ];

    /// The text to load; the `#!lua` line stays first, as Redis demands.
    #[must_use]
    pub fn source(self) -> String {
        let text = match self {
            Self::Admit => include_str!("../../../workers/octollm/bus/lua/admit.lua"),
            Self::Cancel => include_str!("../../../workers/octollm/bus/lua/cancel.lua"),
            Self::Claim => include_str!("../../../workers/octollm/bus/lua/claim.lua"),
            Self::Complete => include_str!("../../../workers/octollm/bus/lua/complete.lua"),
            Self::Forget => include_str!("../../../workers/octollm/bus/lua/forget.lua"),
            Self::Leave => include_str!("../../../workers/octollm/bus/lua/leave.lua"),
            Self::Promote => include_str!("../../../workers/octollm/bus/lua/promote.lua"),
            Self::Redrive => include_str!("../../../workers/octollm/bus/lua/redrive.lua"),
            Self::Release => include_str!("../../../workers/octollm/bus/lua/release.lua"),
            Self::Renew => include_str!("../../../workers/octollm/bus/lua/renew.lua"),
            Self::Resend => include_str!("../../../workers/octollm/bus/lua/resend.lua"),
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
        assert!(Script::Renew.source().contains("local function standing("));
        assert!(Script::Admit.source().contains("local function push("));
    }
}
