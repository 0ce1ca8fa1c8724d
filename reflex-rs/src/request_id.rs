//! The id of an HTTP request, `X-Request-Id`: the client's own if it is usable, else a new one.
//!
//! It is in the response, in the log lines about the request and in problem documents. While a request is handled, it belongs
//! to the running task, so that nobody has to pass it on.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_LENGTH: usize = 128;

tokio::task_local! {
    static CURRENT: HeaderValue;
}

/// Distinguishes the ids of this process from those of others.
static PROCESS: LazyLock<u32> = LazyLock::new(|| {
    // Without random numbers nothing can be submitted either, so a common prefix does no harm.
    getrandom::u32().unwrap_or_default()
});
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Returns the client's id, or a new one if it has none that is safe to log: 1 to 128 letters, digits and `.`, `_`, `-`.
#[must_use]
pub fn of(headers: &HeaderMap) -> HeaderValue {
    match headers.get(REQUEST_ID) {
        Some(id) if is_usable(id.as_bytes()) => id.clone(),
        _ => generate(),
    }
}

fn is_usable(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

fn generate() -> HeaderValue {
    let (process, number) = (*PROCESS, COUNTER.fetch_add(1, Ordering::Relaxed));
    // Hexadecimal digits are always a valid value.
    HeaderValue::try_from(format!("{process:08x}-{number:x}"))
        .unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Runs `request` as the request with this id.
pub async fn scope<F: Future>(id: HeaderValue, request: F) -> F::Output {
    CURRENT.scope(id, request).await
}

/// Runs `part` as a part of the request that runs now, for parts that get a task of their own.
pub fn continued<F: Future>(part: F) -> impl Future<Output = F::Output> {
    let id = current();
    async move {
        match id {
            Some(id) => scope(id, part).await,
            None => part.await,
        }
    }
}

/// The id of the request that runs now; `None` outside of one.
#[must_use]
pub fn current() -> Option<HeaderValue> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The id as text, for logs and documents.
#[must_use]
pub fn text(id: &HeaderValue) -> Option<&str> {
    id.to_str().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{continued, current, of, scope, REQUEST_ID};

    fn id_of(given: &[u8]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        of(&headers)
    }

    #[test]
    fn only_an_id_that_is_safe_to_log_is_taken_from_the_client() {
        let longest = "x".repeat(128);
        for usable in ["a", "2026-11-29.req_7", longest.as_str()] {
            assert_eq!(id_of(usable.as_bytes()), usable);
        }
        let long = "x".repeat(129);
        for unusable in ["", "a b", "a\"b", "\u{fc}", "a/b", "a,b", long.as_str()] {
            let id = id_of(unusable.as_bytes());
            assert_ne!(id, unusable);
            assert!(super::is_usable(id.as_bytes()), "{id:?}");
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn the_id_belongs_to_the_request_and_to_its_parts() {
        assert_eq!(current(), None);
        let id = HeaderValue::from_static("r-1");
        let (inside, in_a_task) = scope(id.clone(), async {
            let part = tokio::spawn(continued(async { current() }));
            (current(), part.await.unwrap())
        })
        .await;
        assert_eq!((inside, in_a_task), (Some(id.clone()), Some(id)));
        assert_eq!(continued(async { current() }).await, None);
    }
}
