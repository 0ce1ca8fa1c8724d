//! The bodies of a request and of its response, as the connection follows them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use service::Supervisor;

use super::activity::Activity;

/// How much of a body is read after an early answer. A client that sends everything before it reads would otherwise see a
/// broken connection instead of the answer.
const DRAIN_BYTES: usize = 64 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that sends nothing for so long has seen the answer.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request's body. What its handler leaves unread is read to its end in the background.
pub(super) struct RequestBody {
    body: Option<Incoming>,
    supervisor: Supervisor,
    /// Whether the client sends the body only when it is asked for, and was not asked yet.
    unasked: bool,
}

impl RequestBody {
    /// `expects`: whether the request has the header `Expect`.
    pub fn new(body: Incoming, expects: bool, supervisor: Supervisor) -> Self {
        let body = Some(body).filter(|body| !body.is_end_stream());
        Self {
            body,
            supervisor,
            unasked: expects,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.unasked = false;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map(Body::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), false) = (unread, self.unasked) {
            self.supervisor.spawn_task("rest of a request", async move {
                // Either is a reason to close the connection.
                let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain(body)).await;
            });
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = DRAIN_BYTES;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(DRAIN_IDLE_TIMEOUT, body.frame()).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Counts a request as running until it is dropped.
pub(super) struct Running(Arc<Activity>);

impl Running {
    pub fn start(activity: Arc<Activity>, multiplexed: bool) -> Self {
        activity.request_started(multiplexed);
        Self(activity)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.request_ended(Instant::now());
    }
}

/// Counts a response of HTTP/2 as begun until it is dropped.
struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.response_ended(Instant::now());
    }
}

/// A response's body. Its request is running until the whole body has been handed over to the connection.
pub(super) struct ResponseBody {
    body: axum::body::Body,
    /// Over HTTP/1.1 the socket shows whether the client takes it.
    answering: Option<Answering>,
    _running: Running,
}

impl ResponseBody {
    pub fn new(body: axum::body::Body, running: Running, multiplexed: bool) -> Self {
        let answering = multiplexed.then(|| {
            running.0.response_started(Instant::now());
            Answering(Arc::clone(&running.0))
        });
        Self {
            body,
            answering,
            _running: running,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(answering) = &self.answering {
            answering.0.response_progressed(Instant::now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
