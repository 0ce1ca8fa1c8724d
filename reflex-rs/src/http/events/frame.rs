//! Server-sent events as text, and the body that carries them.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use contracts::events::{write, TaskEvent, WaitingStep};
use contracts::ContractError;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use crate::reads::Place;

/// Frames that wait for a slow client before its feed waits too.
const WAITING: usize = 32;

/// The first line: how long a client waits before it comes back, in milliseconds.
pub(super) const RETRY: &str = "retry: 1000\n\n";
pub(super) const KEEP_ALIVE: &str = ": keep-alive\n\n";

/// One event with its id.
pub(super) fn event(event: &TaskEvent) -> Result<Bytes, ContractError> {
    let data = write(event)?;
    // serde writes no line breaks, so one data line holds it.
    let head = format!(
        "id: {}\nevent: {}\ndata: ",
        Place::of(event),
        event.event.as_str()
    );
    Ok([head.as_bytes(), &data, b"\n\n"].concat().into())
}

/// A notice without id: coming back does not depend on it.
pub(super) fn waiting(step: &WaitingStep) -> Bytes {
    let data = serde_json::json!({
        "step": step.step.as_str(),
        "arm": step.arm.as_str(),
        "for_s": step.for_s,
    });
    format!("event: waiting\ndata: {data}\n\n").into()
}

/// The body of a live view; ends with its feed.
pub(super) struct Frames(mpsc::Receiver<Bytes>);

impl Frames {
    pub fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, frames) = mpsc::channel(WAITING);
        (sender, Self(frames))
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
