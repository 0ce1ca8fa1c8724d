//! The body of an API response while it is proxied to a client.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

/// How long a body may send nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The body with its idle timeout. It occupies its slot until its end.
pub struct ProxiedBody {
    body: Incoming,
    idle: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl ProxiedBody {
    pub(super) fn new(body: Incoming, slot: OwnedSemaphorePermit) -> Self {
        Self {
            body,
            idle: Box::pin(tokio::time::sleep(IDLE_TIMEOUT)),
            _slot: slot,
        }
    }
}

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the API's response broke off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the API sent nothing for {} s", IDLE_TIMEOUT.as_secs())]
    Idle,
}

impl Body for ProxiedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        self.idle
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(BodyError::Idle)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
