//! The hand-off scripts, the same files that Python runs, put together for `SCRIPT LOAD`.
//!
//! The header of each script in `lua/` documents its KEYS and ARGV.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::RedisError;

/// What is put where a script says `--@include`.
/// In this order: `fairness.lua` includes the next two.
const INCLUDED: [(&str, &str); 6] = [
    (
        "--@include status.lua\n",
        include_str!("../../../lua/status.lua"),
    ),
    (
        "--@include lease.lua\n",
        include_str!("../../../lua/lease.lua"),
    ),
    (
        "--@include fairness.lua\n",
        include_str!("../../../lua/fairness.lua"),
    ),
    (
        "--@include ended_runs.lua\n",
        include_str!("../../../lua/ended_runs.lua"),
    ),
    (
        "--@include dead_letters.lua\n",
        include_str!("../../../lua/dead_letters.lua"),
    ),
    (
        "--@include open_tasks.lua\n",
        include_str!("../../../lua/open_tasks.lua"),
    ),
];

/// One of the scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    Admit,
    Cancel,
    Claim,
    CloseTasks,
    Complete,
    GrantQuota,
    Prune,
    PruneOpenTasks,
    LeaveGroup,
    OpenTask,
    Promote,
    Redrive,
    Release,
    Renew,
    Republish,
}

impl Script {
    pub const ALL: [Self; 15] = [
        Self::Admit,
        Self::Cancel,
        Self::Claim,
        Self::CloseTasks,
        Self::Complete,
        Self::GrantQuota,
        Self::Prune,
        Self::PruneOpenTasks,
        Self::LeaveGroup,
        Self::OpenTask,
        Self::Promote,
        Self::Redrive,
        Self::Release,
        Self::Renew,
        Self::Republish,
    ];

    /// The text to load; the `#!lua` line stays first, as Redis demands.
    #[must_use]
    pub fn source(self) -> &'static str {
        &PREPARED[self as usize].source
    }

    /// The SHA-1 of the source, by which EVALSHA names the script.
    #[must_use]
    pub fn hash(self) -> &'static str {
        &PREPARED[self as usize].hash
    }

    /// Make the script known to the connection's server.
    pub async fn load(self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(self.source())
            .query_async(connection)
            .await
    }

    fn assemble(self) -> String {
        let text = match self {
            Self::Admit => include_str!("../../../lua/admit.lua"),
            Self::Cancel => include_str!("../../../lua/cancel.lua"),
            Self::Claim => include_str!("../../../lua/claim.lua"),
            Self::CloseTasks => include_str!("../../../lua/close_tasks.lua"),
            Self::Complete => include_str!("../../../lua/complete.lua"),
            Self::GrantQuota => include_str!("../../../lua/grant_quota.lua"),
            Self::Prune => include_str!("../../../lua/prune.lua"),
            Self::PruneOpenTasks => include_str!("../../../lua/prune_open_tasks.lua"),
            Self::LeaveGroup => include_str!("../../../lua/leave_group.lua"),
            Self::OpenTask => include_str!("../../../lua/open_task.lua"),
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

/// A script's text and hash, made once.
struct Prepared {
    source: String,
    hash: String,
}

/// In the order of `Script::ALL`, which is the order of the variants.
static PREPARED: LazyLock<[Prepared; Script::ALL.len()]> = LazyLock::new(|| {
    Script::ALL.map(|script| {
        let source = script.assemble();
        let hash = redis::Script::new(&source).get_hash().to_owned();
        Prepared { source, hash }
    })
});

#[cfg(test)]
mod tests {
    use super::Script;

    #[test]
    fn each_script_has_its_own_source_and_hash() {
        for (index, script) in Script::ALL.into_iter().enumerate() {
            assert_eq!(script as usize, index);
            assert_eq!(script.source(), script.assemble());
            assert_eq!(script.hash().len(), 40);
        }
        assert_ne!(Script::Claim.hash(), Script::Renew.hash());
    }

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
        assert!(Script::Renew
            .source()
            .contains("local function lease_status("));
        assert!(Script::Admit.source().contains("local function push("));
    }
}
