//! Quotas: the program on a real Redis refuses what is above them, and nothing else.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test
#![allow(clippy::disallowed_methods)] // threads are clients

mod common;

use std::time::{Duration, Instant};

use common::quotas::{header, refusals, File, BODY};
use common::{run, until, Redis, Reflex};
use serde_json::json;

#[test]
fn what_is_above_the_burst_gets_429_that_says_when_to_come_back() {
    let redis = Redis::start();
    let file = File::new("default: {requests: {per_s: 0.5, burst: 3}}");
    let reflex = file.start(&redis);
    let first = reflex.post(BODY, "");
    assert_eq!(first.status, 202);
    assert_eq!(header(&first, "ratelimit-policy"), "\"requests\";q=3;w=6");
    assert_eq!(header(&first, "ratelimit"), "\"requests\";r=2;t=2");
    assert!(refusals(&reflex, 2).is_empty());
    let quota = reflex.get("/v1/quota").json();
    let limits = json!([
        {"limit": "requests", "owner": "tenant", "per_s": 0.5, "burst": 3, "remaining": 0}
    ]);
    assert_eq!(
        (&quota["tenant"], &quota["limits"]),
        (&json!("default"), &limits)
    );
    let begun = Instant::now();
    let refused = reflex.post(BODY, "");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.problem(), ("quota_exceeded".into(), String::new()));
    assert_eq!(refused.json()["violated-policies"][0], "requests");
    assert_eq!(header(&refused, "retry-after"), "2");
    assert_eq!(header(&refused, "ratelimit"), "\"requests\";r=0;t=2");
    assert_eq!(header(&refused, "ratelimit-policy"), "\"requests\";q=3;w=6");
    until("the quota refills", || {
        refusals(&reflex, 1).is_empty().then_some(())
    });
    assert!(
        begun.elapsed() > Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(redis.length("{l0}:tasks:normal"), 4);
    let outcome = "octollm_admission_total{source=\"http\",outcome=\"quota_exceeded\"}";
    assert!(reflex.metric(outcome) >= 1);
    let refused = "octollm_quota_refusals_total{limit=\"requests\",source=\"http\"}";
    assert_eq!(reflex.metric(refused), reflex.metric(outcome));
    assert_eq!(
        reflex.metric("octollm_quota_tokens_total{limit=\"requests\"}"),
        4
    );
}

#[test]
fn without_a_file_there_are_no_limits() {
    let redis = Redis::start();
    let reflex = Reflex::ready(&redis, &[]);
    assert_eq!(reflex.get("/v1/quota").json()["limits"], json!([]));
    assert_eq!(header(&reflex.post(BODY, ""), "ratelimit-policy"), "");
}

#[test]
fn reads_have_a_bucket_of_their_own() {
    let redis = Redis::start();
    let file = File::new("default: {requests: {per_s: 1000}, reads: {per_s: 0.01, burst: 2}}");
    let reflex = file.start(&redis);
    let task = reflex.post(BODY, "").json()["task"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/tasks/{task}");
    let read = reflex.get(&path);
    assert_eq!(
        (read.status, header(&read, "ratelimit")),
        (200, "\"reads\";r=1;t=100")
    );
    assert_eq!(reflex.request("DELETE", &path, "", b"").status, 202);
    let refused = reflex.get(&path);
    assert_eq!(
        (refused.status, header(&refused, "retry-after")),
        (429, "100")
    );
    assert_eq!(reflex.request("DELETE", &path, "", b"").status, 429);
    assert!(refusals(&reflex, 20).is_empty());
    assert_eq!(reflex.get("/readyz").status, 200);
}

#[test]
fn bytes_are_counted_as_they_were_received() {
    let redis = Redis::start();
    let file = File::new("default: {bytes: {per_s: 1000, burst: 1048576}}");
    let reflex = file.start(&redis);
    let body = |bytes: usize| {
        let goal = format!(
            "{{\"goal\": \"x\", \"input\": {{\"t\": \"{}\"}}}}",
            "y".repeat(bytes)
        );
        goal.into_bytes()
    };
    assert_eq!(reflex.post(&body(900_000), "").status, 202);
    let refused = reflex.post(&body(500_000), "");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["violated-policies"][0], "bytes");
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((340..=352).contains(&wait), "{wait}");
    assert!(header(&refused, "ratelimit-policy").contains("qu=\"content-bytes\""));
    // The rest is not lost to the one that was too large.
    assert_eq!(reflex.post(&body(100_000), "").status, 202);
}

#[test]
fn a_changed_file_takes_effect_and_a_broken_one_does_not() {
    let redis = Redis::start();
    let file = File::new("default: {requests: {per_s: 0.01, burst: 5}}");
    let reflex = file.start(&redis);
    assert_eq!(refusals(&reflex, 6), [429]);
    file.write("default: {requests: {per_s: 100}}");
    until("it is raised", || {
        refusals(&reflex, 1).is_empty().then_some(())
    });
    file.write("default: {requests: {per_s: 0}}");
    until("the broken file is noticed", || {
        (reflex.metric("octollm_quotas_file_valid") == 0).then_some(())
    });
    let answer = reflex.post(BODY, "");
    assert_eq!(
        header(&answer, "ratelimit-policy"),
        "\"requests\";q=100;w=1"
    );
    file.write("tenants: {default: {requests: {per_s: 0.01, burst: 1}}}");
    until("it is lowered", || {
        (reflex.post(BODY, "").status == 429).then_some(())
    });
    assert_eq!(reflex.metric("octollm_quotas_file_valid"), 1);
    file.write("tenants: {other: {requests: {per_s: 0.01}}}");
    until("there is no quota any longer", || {
        (header(&reflex.post(BODY, ""), "ratelimit-policy").is_empty()).then_some(())
    });
    assert!(refusals(&reflex, 20).is_empty());
}

#[test]
fn a_wrong_file_is_refused_at_the_start() {
    let file = File::new("default: {bytes: {per_s: 1, burst: 5}}");
    let path = file.path.to_str().unwrap();
    let output = run(&[], &[("OCTOLLM_QUOTAS_FILE", path)]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("default.bytes.burst: must be at least 1048576"),
        "{error}"
    );
    std::fs::remove_file(&file.path).unwrap();
    let error = run(&[], &[("OCTOLLM_QUOTAS_FILE", path)]).stderr;
    assert!(String::from_utf8(error)
        .unwrap()
        .contains("set OCTOLLM_QUOTAS_FILE"));
}

#[test]
fn entries_of_an_ingest_stream_wait_for_the_quota() {
    let redis = Redis::start();
    let file = File::new("default: {requests: {per_s: 50, burst: 10}}");
    let reflex = file.start(&redis);
    let begun = Instant::now();
    for _ in 0..100 {
        redis.submit(&[("body", "{\"goal\": \"x\"}")]);
    }
    until("all are stored", || {
        (redis.length("ingest:default") == 0).then_some(())
    });
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1600), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(redis.length("{l0}:tasks:normal"), 100);
    assert_eq!(redis.length("{l0}:dead"), 0);
    assert!(reflex.metric("octollm_ingest_waits_total{cause=\"quota_exceeded\"}") > 0);
    assert_eq!(
        reflex.metric("octollm_admission_total{source=\"ingest\",outcome=\"accepted\"}"),
        100
    );
}

#[test]
fn several_processes_exceed_a_quota_by_no_more_than_five_percent() {
    const RATE: usize = 150;
    let redis = Redis::start();
    let file = File::new("default: {requests: {per_s: 150, burst: 150}}");
    let reflexes: Vec<_> = (0..3).map(|_| file.start(&redis)).collect();
    let begun = Instant::now();
    let client = |reflex: &Reflex| {
        let mut accepted = Vec::new();
        while begun.elapsed() < Duration::from_secs(12) {
            let answer = reflex.post(BODY, "");
            match answer.status {
                202 => accepted.push(begun.elapsed()),
                429 => std::thread::sleep(Duration::from_millis(2)),
                _ => panic!("{answer:?}"),
            }
        }
        accepted
    };
    let mut accepted: Vec<_> = std::thread::scope(|scope| {
        let two_of_each = reflexes.iter().chain(&reflexes);
        let clients: Vec<_> = two_of_each.map(|one| scope.spawn(|| client(one))).collect();
        clients
            .into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect()
    });
    accepted.sort();
    let allowed = RATE * 11; // a burst, and ten seconds
    for (first, from) in accepted.iter().enumerate() {
        let end = *from + Duration::from_secs(10);
        let within = accepted[first..].partition_point(|at| *at < end);
        assert!(within * 100 <= allowed * 105, "{within} of {allowed}");
    }
    // The quota is used up: 13 s' worth, the burst included.
    assert!(accepted.len() * 100 >= RATE * 13 * 90, "{}", accepted.len());
}

#[test]
fn without_redis_submissions_get_503_and_reads_are_let_through() {
    let redis = Redis::start();
    let file = File::new("default: {requests: {per_s: 1, burst: 2}, reads: {per_s: 1, burst: 2}}");
    let reflex = file.start(&redis);
    let port = redis.port;
    drop(redis);
    for _ in 0..6 {
        let answer = reflex.post(BODY, "");
        assert_eq!(
            (answer.status, answer.problem().0),
            (503, "store_unavailable".into())
        );
        let capacity = "\"capacity\";r=0;t=1";
        assert_eq!(header(&answer, "ratelimit"), capacity);
        // Not 429: nobody says that the quota is used up.
        let read = reflex.get("/v1/tasks/l0-01jd9k3v5e8xq2w4r6t8y0m2n4");
        assert_eq!(read.status, 503);
    }
    let redis = Redis::start_on(port, &[]);
    until("Redis is back", || {
        (reflex.post(BODY, "").status == 202).then_some(())
    });
    // It has lost how much was spent, which refuses nobody.
    assert!(refusals(&reflex, 1).is_empty());
    drop(redis);
}

#[test]
fn a_bucket_that_a_wrong_clock_has_left_is_used_again_soon() {
    let redis = Redis::start();
    let key = "{l0}:quota:tenant:default:requests";
    // Redis' clock was an hour ahead when it was written.
    let (now, _): (u64, u64) = redis.ask("TIME");
    let _: () = redis.ask(&format!("SET|{key}|{}", (now + 3600) * 1_000_000));
    let file = File::new("default: {requests: {per_s: 10, burst: 5}}");
    let reflex = file.start(&redis);
    until("it refills", || {
        refusals(&reflex, 1).is_empty().then_some(())
    });
    assert!(redis.ask::<u64>(&format!("PTTL|{key}")) <= 500);
}

/// The script alone: whatever is asked and given back, no more is granted than the rate allows by Redis' clock.
#[test]
fn the_script_grants_what_the_rate_allows() {
    use bus::Script;
    let redis = Redis::start();
    let mut connection = redis::Client::open(redis.url())
        .unwrap()
        .get_connection()
        .unwrap();
    let mut ask = |key: &str, rate: f64, numbers: [u64; 4]| -> (u64, u64, u64) {
        let mut call = redis::cmd("EVAL");
        call.arg(Script::GrantQuota.source())
            .arg(1)
            .arg(key)
            .arg(rate)
            .arg(&numbers[..]);
        call.query::<Vec<(u64, u64, u64)>>(&mut connection).unwrap()[0]
    };
    assert_eq!(ask("a", 0.001, [10, 0, 0, 0]), (0, 10, 0));
    assert_eq!(ask("a", 0.001, [10, 0, 1, 8]), (8, 2, 0));
    let (granted, left, wait) = ask("a", 0.001, [10, 0, 5, 8]);
    assert_eq!((granted, left), (0, 2));
    assert!((2_900_000_000..=3_000_000_000).contains(&wait), "{wait}");
    assert_eq!(ask("a", 0.001, [10, 3, 5, 8]).0, 5, "three were given back");
    assert_eq!(
        ask("a", 0.001, [10, 99, 0, 0]).1,
        10,
        "never more than the burst"
    );
    assert_eq!(redis.ask::<u64>("EXISTS|a"), 0, "a full bucket has no key");
    for broken in ["SET|broken|nan", "SET|broken|x", "HSET|broken|a|b"] {
        let _: () = redis.ask("DEL|broken");
        let _: redis::Value = redis.ask(broken);
        assert_eq!(ask("broken", 0.001, [10, 0, 1, 8]), (8, 2, 0), "{broken}");
    }
    let (mut granted, mut number, begun) = (0, 1_u64, Instant::now());
    while begun.elapsed() < Duration::from_secs(2) {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let most = (number >> 33) % 40;
        granted += ask("b", 1000.0, [50, 0, 1, most]).0;
    }
    let allowed = u64::try_from(begun.elapsed().as_millis()).unwrap() + 50;
    assert!(
        granted <= allowed && granted + 50 > allowed * 95 / 100,
        "{granted} of {allowed}"
    );
}
