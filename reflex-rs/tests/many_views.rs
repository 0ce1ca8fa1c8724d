//! As many event streams as the settings allow, all at once: each gets its events.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test
#![allow(clippy::disallowed_methods)] // threads of a test

mod common;

use common::api::Api;
use common::events::Events;
use common::history::{accepted, event};
use common::{until, Redis, Reflex};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use serde_json::json;

const VIEWS: usize = 1000;
const THREADS: usize = 20;

/// Opens views from several threads at once.
fn open(reflex: &Reflex, task: &str) -> Vec<Events> {
    let path = format!("/v1/tasks/{task}/events");
    let some = || -> Vec<Events> {
        (0..VIEWS / THREADS)
            .map(|_| Events::open(reflex, &path, "accept: text/event-stream\r\n"))
            .collect()
    };
    std::thread::scope(|scope| {
        let opening: Vec<_> = (0..THREADS).map(|_| scope.spawn(some)).collect();
        opening
            .into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect()
    })
}

#[test]
fn a_thousand_views_are_open_at_once_and_each_gets_its_events() {
    let redis = Redis::start();
    let api = Api::start();
    // It raises its own limit of open files, which it gets from this process.
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(256),
        ..limit
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let reflex = Reflex::ready(&redis, &[("OCTOLLM_API_URL", &api.url)]);
    assert!(octollm_reflex::open_files::raise_limit().is_none_or(|limit| limit > 2000));
    let task = accepted(&reflex);
    let page = json!({"items": [event(&task, 1, 1, "accepted")], "next": null});
    api.answer(&format!("/v1/tasks/{task}/events"), 200, &page);
    let mut views = open(&reflex, &task);
    assert!(views.iter().all(|view| view.status == 200));
    until("all are open", || {
        (reflex.metric("octollm_event_streams") == VIEWS as u64).then_some(())
    });
    let one_more = reflex.get(&format!("/v1/tasks/{task}/events"));
    assert_eq!(
        (one_more.status, one_more.problem().0),
        (503, "overloaded".into())
    );
    // Everything else is served meanwhile.
    assert_eq!(reflex.post(br#"{"goal": "y"}"#, "").status, 202);
    redis.publish(&event(&task, 1, 2, "planned"));
    redis.publish(&event(&task, 1, 3, "finished"));
    for view in &mut views {
        assert_eq!(view.ids(), ["1-1", "1-2", "1-3"]);
    }
}
