//! `?wait=30s` on a read of a task: the answer comes as soon as the task ends, or after the wait.

use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use contracts::events::{EventName, TaskId};
use contracts::ContractError;

use crate::auth::authorize;
use crate::caller::{Caller, Scope};
use crate::http::{App, Problem};
use crate::store::{is_terminal, Item};

/// Shorter than the time after which common proxies give up a request.
const MAX_WAIT_S: u64 = 55;

/// Splits the wait from the query. Returns it and the rest, which is what the API may be asked.
pub(super) fn split(uri: &Uri) -> Result<(Option<Duration>, Uri), Problem> {
    let query = uri.query().unwrap_or("");
    let (waits, others): (Vec<_>, Vec<_>) =
        form_urlencoded::parse(query.as_bytes()).partition(|(name, _)| name == "wait");
    let wait = match waits.as_slice() {
        [] => return Ok((None, uri.clone())),
        [(_, text)] => parse(text),
        _ => None,
    };
    let Some(wait) = wait else {
        let rule = format!("must be seconds from 0s to {MAX_WAIT_S}s, once, like wait=30s");
        return Err(ContractError::schema("wait", rule).into());
    };
    let mut path = uri.path().to_owned();
    if !others.is_empty() {
        path.push('?');
        path.push_str(
            &form_urlencoded::Serializer::new(String::new())
                .extend_pairs(others)
                .finish(),
        );
    }
    let rest = path
        .parse()
        .map_err(|_| Problem::Internal(format!("{path} is no path")))?;
    Ok((Some(wait), rest))
}

fn parse(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s').unwrap_or(text);
    let digits = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: u64 = seconds.parse().ok().filter(|_| digits)?;
    (seconds <= MAX_WAIT_S).then(|| Duration::from_secs(seconds))
}

/// Returns once the task's newest run has ended, after `wait`, or when the reflex stops. Fails if the credential in `headers`
/// has lost its validity meanwhile.
pub(super) async fn until_ended(
    app: &App,
    (caller, headers): (&Caller, &HeaderMap),
    task: &TaskId,
    wait: Duration,
) -> Result<(), Problem> {
    let _slot = app
        .event_slots
        .try_acquire()
        .map_err(|_| Problem::TooManyEventStreams)?;
    let stop = app.supervisor.stop();
    tokio::select! {
        ended = ended(app, caller, task) => ended?,
        () = tokio::time::sleep(wait) => {}
        () = stop.requested() => {}
    }
    let caller = app.authenticator.authenticate(headers).await;
    caller
        .and_then(|caller| authorize(&caller, Scope::Read))
        .map_err(Problem::Credential)
}

async fn ended(app: &App, caller: &Caller, task: &TaskId) -> Result<(), Problem> {
    let lookup = &app.service.lookup;
    // Nothing is subscribed to for a task that the caller does not have, or that has ended.
    if is_terminal(lookup.summary(caller, task).await?.state) {
        return Ok(());
    }
    let mut watch = lookup.store.watch(task).await?;
    loop {
        // The end may have come before the subscription, or within a gap.
        if is_terminal(lookup.summary(caller, task).await?.state) {
            return Ok(());
        }
        loop {
            match watch.next().await {
                Item::Event(event) if event.event == EventName::Finished => return Ok(()),
                Item::Event(_) => {}
                Item::Gap => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::split;
    use crate::outcome::Outcome;

    #[test]
    fn the_wait_is_split_from_the_query() {
        for (uri, wait, rest) in [
            ("/v1/tasks/x", None, "/v1/tasks/x"),
            ("/v1/tasks/x?a=%20b", None, "/v1/tasks/x?a=%20b"),
            ("/v1/tasks/x?wait=30s", Some(30), "/v1/tasks/x"),
            ("/v1/tasks/x?wait=0", Some(0), "/v1/tasks/x"),
            ("/v1/tasks/x?a=b&wait=55", Some(55), "/v1/tasks/x?a=b"),
        ] {
            let split = split(&uri.parse().unwrap()).unwrap();
            assert_eq!(
                split,
                (wait.map(Duration::from_secs), rest.parse().unwrap())
            );
        }
        for query in [
            "wait=",
            "wait=56s",
            "wait=+1",
            "wait=1m",
            "wait=s",
            "wait=-1",
            "wait=1&wait=2",
            "wait=1.5s",
        ] {
            let refused = split(&format!("/v1/tasks/x?{query}").parse().unwrap());
            let outcome = refused.map_err(|problem| problem.outcome());
            assert_eq!(outcome.unwrap_err(), Outcome::Schema, "{query}");
        }
    }
}
