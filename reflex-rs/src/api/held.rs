//! An answer of the API while it is passed on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

/// Longest pause within an answer.
const PAUSE: Duration = Duration::from_secs(10);

/// The body, its slot until the end, and its patience.
pub struct Held {
    body: Incoming,
    patience: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl Held {
    pub(super) fn new(body: Incoming, slot: OwnedSemaphorePermit) -> Self {
        Self {
            body,
            patience: Box::pin(tokio::time::sleep(PAUSE)),
            _slot: slot,
        }
    }
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    #[error("the API broke off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the API paused for too long")]
    Slow,
}

impl Body for Held {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.patience.as_mut().reset(Instant::now() + PAUSE);
            return Poll::Ready(frame.map(|frame| frame.map_err(Cut::from)));
        }
        self.patience
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(Cut::Slow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
