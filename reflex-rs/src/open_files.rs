//! The limit of open files: each connection is one, and many systems begin with a limit of 1024.

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// Raises this process's limit to the most that the system allows it. Returns the limit; `None`: unlimited.
#[must_use]
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}
