//! The rules of `streams.yaml` that its form does not say: names, schemas, groups, and numbers that fit each other.

use std::collections::HashSet;
use std::path::Path;

use super::{Topic, Topology};
use crate::events::fields::{is_lane, MAX_I32};
use crate::yaml::ensure;

pub(super) const ONE_GROUP: &str = "not one group name; a work stream has exactly one group";

/// Largest number the file may hold, the same in every language.
const MAX_COUNT: u64 = MAX_I32.unsigned_abs();

/// Longest a handler may run: a day, as `timeout_s` of a step.
const LONGEST_S: u64 = 86_400;

/// The first thing in it that cannot work, by its place, with what to change.
pub(super) fn check(topology: &Topology, schemas: &Path) -> Result<(), String> {
    distinct("lanes", &topology.lanes)?;
    for lane in &topology.lanes {
        ensure(is_lane(lane.as_bytes()), || {
            format!("lanes: {lane} is no lane name; write l0 to l9999")
        })?;
    }
    if topology.priorities != ["high", "normal", "low"] {
        return Err(
            "priorities: must be [high, normal, low]; messages carry exactly these".to_owned(),
        );
    }
    let ingest = &topology.ingest;
    distinct("ingest.tenants", &ingest.tenants)?;
    for tenant in &ingest.tenants {
        let valid = tenant.parse::<crate::events::Tenant>().is_ok();
        ensure(valid, || {
            format!("ingest.tenants: {tenant} is no tenant name; use lower-case letters, digits, _ and -")
        })?;
    }
    ensure(ingest.accepts == ["task.submission.v1"], || {
        "ingest.accepts: must be [task.submission.v1]".to_owned()
    })?;
    accepts("ingest", &ingest.accepts, schemas)?;
    work(
        "ingest",
        &ingest.group,
        &ingest.handler,
        [
            u64::from(ingest.concurrency),
            ingest.lease_s,
            ingest.heartbeat_s,
            ingest.max_deliveries,
        ],
    )?;
    for name in ["tasks", "steps.done", "dead"] {
        ensure(topology.topics.contains_key(name), || {
            format!("topics: {name} is missing; add it")
        })?;
    }
    for topic in topology.topics.values() {
        check_topic(topic, schemas, topology.lanes.len() as u64)?;
    }
    ensure(topology.live.contains_key("events"), || {
        "live: events is missing; add it".to_owned()
    })?;
    for (name, live) in &topology.live {
        let at = format!("live.{name}");
        ensure(!topology.topics.contains_key(name), || {
            format!("{at}: is also a topic; rename one of them")
        })?;
        within(&format!("{at}.max_length"), live.max_length, 1, MAX_COUNT)?;
        accepts(&at, &live.accepts, schemas)?;
    }
    Ok(())
}

fn check_topic(topic: &Topic, schemas: &Path, lanes: u64) -> Result<(), String> {
    let at = format!("topics.{}", topic.name);
    let arm = topic.name.strip_prefix("arm.");
    let plain = arm.map_or_else(
        || {
            matches!(
                topic.name.as_str(),
                "tasks" | "steps.done" | "results" | "dead"
            )
        },
        |arm| arm.parse::<crate::events::Name>().is_ok(),
    );
    ensure(plain, || {
        format!("{at}: unknown topic; known are tasks, steps.done, results, dead and arm.<name>")
    })?;
    accepts(&at, &topic.accepts, schemas)?;
    work(
        &at,
        &topic.group,
        &topic.handler,
        [
            u64::from(topic.concurrency),
            topic.lease_s,
            topic.heartbeat_s,
            topic.max_deliveries,
        ],
    )?;
    let prioritised = topic.name == "tasks" || arm.is_some();
    ensure(topic.priorities == prioritised, || {
        format!("{at}.priorities: must be {prioritised}; tasks and arms have priorities, others have none")
    })?;
    within(&format!("{at}.high_water"), topic.high_water, 0, MAX_COUNT)?;
    limits(topic, &at, lanes)?;
    if let Some(arm) = arm {
        ensure(topic.accepts == ["step.requested.v1"], || {
            format!("{at}.accepts: an arm takes [step.requested.v1]")
        })?;
        ensure(topic.group == arm, || {
            format!(
                "{at}.group: is {}, must be the arm's name {arm}",
                topic.group
            )
        })?;
        let Some(timeout) = topic.timeout_s else {
            return Err(format!("{at}.timeout_s: an arm needs one, at least 1"));
        };
        within(&format!("{at}.timeout_s"), timeout, 1, LONGEST_S)?;
        let Some(retry) = topic.retry else {
            return Err(format!("{at}.retry: an arm needs one"));
        };
        for (name, value) in [
            ("max_failures", retry.max_failures),
            ("base_ms", retry.base_ms),
            ("cap_ms", retry.cap_ms),
        ] {
            within(&format!("{at}.retry.{name}"), value, 1, MAX_COUNT)?;
        }
        ensure(retry.cap_ms >= retry.base_ms, || {
            format!("{at}.retry: cap_ms must be at least base_ms")
        })?;
    } else {
        ensure(topic.timeout_s.is_none() && topic.retry.is_none(), || {
            format!("{at}: timeout_s and retry belong to arms only; remove them")
        })?;
    }
    Ok(())
}

/// Window and cap.
fn limits(topic: &Topic, at: &str, lanes: u64) -> Result<(), String> {
    if let Some(window) = topic.window {
        within(&format!("{at}.window"), window, 1, MAX_COUNT)?;
        ensure(topic.priorities, || {
            format!("{at}.window: belongs to tasks and arms only; remove it")
        })?;
    }
    if let Some(cap) = topic.max_running_per_tenant {
        within(&format!("{at}.max_running_per_tenant"), cap, 1, MAX_COUNT)?;
        ensure(topic.name.starts_with("arm."), || {
            format!("{at}.max_running_per_tenant: belongs to arms only; remove it")
        })?;
        ensure(cap >= lanes, || {
            format!("{at}.max_running_per_tenant: is {cap}, must be at least {lanes}; each lane gets its share")
        })?;
    }
    Ok(())
}

/// What every work queue must have.
fn work(at: &str, group: &str, handler: &str, numbers: [u64; 4]) -> Result<(), String> {
    let [concurrency, lease, heartbeat, deliveries] = numbers;
    ensure(group.parse::<crate::events::Name>().is_ok(), || {
        format!("{at}.group: {ONE_GROUP}")
    })?;
    ensure(is_handler(handler), || {
        format!(
            "{at}.handler: {handler:?} is no handler; write package.module:Class or program:<name>"
        )
    })?;
    for (name, value) in [
        ("concurrency", concurrency),
        ("lease_s", lease),
        ("heartbeat_s", heartbeat),
        ("max_deliveries", deliveries),
    ] {
        within(&format!("{at}.{name}"), value, 1, MAX_COUNT)?;
    }
    ensure(lease >= heartbeat * 3, || {
        format!(
            "{at}.lease_s: is {lease}, must be at least three heartbeats ({})",
            heartbeat * 3
        )
    })
}

fn within(at: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    ensure((least..=most).contains(&value), || {
        format!("{at}: is {value}, must be from {least} to {most}")
    })
}

/// `program:<name>` or `package.module:Class`.
fn is_handler(handler: &str) -> bool {
    let name = |text: &str, dashes: bool| {
        !text.is_empty()
            && text.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || byte == b'_' || (dashes && byte == b'-')
            })
    };
    handler
        .split_once(':')
        .is_some_and(|(left, right)| match left {
            "program" => name(right, true),
            module => module.split('.').all(|part| name(part, false)) && name(right, false),
        })
}

fn accepts(at: &str, events: &[String], schemas: &Path) -> Result<(), String> {
    distinct(&format!("{at}.accepts"), events)?;
    for event in events {
        let file = format!("{event}.schema.json");
        let plain = event
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
        ensure(plain && schemas.join(&file).is_file(), || {
            format!("{at}.accepts: no schema for {event}; add schemas/events/{file} or correct the name")
        })?;
    }
    Ok(())
}

fn distinct(at: &str, names: &[String]) -> Result<(), String> {
    ensure(!names.is_empty(), || {
        format!("{at}: must name at least one")
    })?;
    let mut seen = HashSet::new();
    for name in names {
        ensure(seen.insert(name), || {
            format!("{at}: {name} stands twice; remove one")
        })?;
    }
    Ok(())
}
