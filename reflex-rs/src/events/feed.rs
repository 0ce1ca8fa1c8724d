//! One client's event stream from its beginning to its end: the history, then new events, each once and in order.

use std::convert::Infallible;
use std::time::Duration;

use contracts::events::{EventName, List, TaskEvent, TaskId, WaitingStep};
use service::Stop;
use tokio::sync::mpsc;
use tokio::time::{interval, Instant, MissedTickBehavior};

use super::{history, Page};
use crate::caller::Caller;
use crate::lookup::{Lookup, LookupError};
use crate::store::{is_terminal, EventId, Item, StoreError, Watch};
use bus::Backoff;

/// How often the status is checked for steps that wait for a worker, and for an end without an event.
const STATUS_INTERVAL: Duration = Duration::from_secs(3);
/// How long a client may take no frame. It reconnects and continues where it was.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a feed waits for a history that cannot be read.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(10);

/// One thing that the client sees.
#[derive(Debug)]
pub enum Frame {
    Event(Box<TaskEvent>),
    Waiting(WaitingNotice),
}

/// A step that no worker can take now.
#[derive(Debug, serde::Serialize)]
pub struct WaitingNotice {
    step: String,
    arm: String,
    /// How long the step has waited, in seconds.
    for_s: i64,
}

impl From<&WaitingStep> for WaitingNotice {
    fn from(step: &WaitingStep) -> Self {
        Self {
            step: step.step.as_str().to_owned(),
            arm: step.arm.as_str().to_owned(),
            for_s: step.for_s.get(),
        }
    }
}

/// Why a feed ends.
enum End {
    /// The run has finished and all its events were sent.
    Finished,
    /// The client has disconnected or takes no frames.
    ClientGone,
    /// This process is stopping.
    Stopping,
    /// The next events cannot be read.
    Failed(LookupError),
}

impl<E: Into<LookupError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Sends one task's events to one client.
pub struct Feed {
    pub lookup: Lookup,
    pub caller: Caller,
    pub task: TaskId,
    pub watch: Watch,
    pub out: mpsc::Sender<Frame>,
    pub stop: Stop,
    /// The last event that was sent.
    pub last: Option<EventId>,
    /// The run whose end ends the feed.
    pub run: i64,
}

impl Feed {
    /// Sends `first`, then all that follows, until the run finishes, the client leaves or the process stops.
    pub async fn run(mut self, first: Page) {
        let Err(end) = self.send_all(first).await;
        let task = self.task.as_str();
        match end {
            End::Failed(error) => {
                tracing::warn!(task, %error, "ended an event stream early; its client reconnects");
            }
            End::Finished | End::ClientGone | End::Stopping => {
                tracing::debug!(task, "ended an event stream");
            }
        }
    }

    async fn send_all(&mut self, first: Page) -> Result<Infallible, End> {
        self.send_pages(first).await?;
        let mut status = interval(STATUS_INTERVAL);
        status.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                item = self.watch.next() => match item {
                    Item::Event(event) => self.send_new(&event).await?,
                    Item::Gap => self.catch_up().await?,
                },
                _ = status.tick() => self.check_status().await?,
                () = self.out.closed() => return Err(End::ClientGone),
                () = stop.requested() => return Err(End::Stopping),
            }
        }
    }

    /// Sends a new event, after any that must come before it.
    async fn send_new(&mut self, event: &TaskEvent) -> Result<(), End> {
        let id = EventId::of(event);
        let is_new = self.last.is_none_or(|last| id > last);
        if is_new && !id.follows(self.last) {
            self.catch_up().await?;
        }
        self.send_event(event).await
    }

    /// Sends the history after the last event sent.
    async fn catch_up(&mut self) -> Result<(), End> {
        let page = self.next_page().await?;
        self.send_pages(page).await
    }

    /// Reads the history after the last event sent; waits a while if the store or the API is unavailable.
    async fn next_page(&self) -> Result<Page, LookupError> {
        let (mut backoff, deadline) = (Backoff::default(), Instant::now() + HISTORY_TIMEOUT);
        loop {
            match history::page(&self.lookup, &self.caller, &self.task, self.last).await {
                Err(
                    LookupError::Store(StoreError::Unavailable { .. } | StoreError::Unknown(_))
                    | LookupError::Api(_),
                ) if Instant::now() < deadline && !self.stop.is_requested() => {
                    backoff.wait().await;
                }
                page => return page,
            }
        }
    }

    async fn send_pages(&mut self, mut page: Page) -> Result<(), End> {
        loop {
            let before = self.last;
            for event in &page.events {
                self.send_event(event).await?;
            }
            // A page without new events would be read again for ever.
            if !page.more || self.last == before {
                return Ok(());
            }
            page = self.next_page().await?;
        }
    }

    /// Sends an event unless it was sent before, is older than the last one, or is not the caller's.
    async fn send_event(&mut self, event: &TaskEvent) -> Result<(), End> {
        let id = EventId::of(event);
        let own = event.task == self.task && self.caller.owns(&event.tenant);
        if !own || self.last.is_some_and(|last| id <= last) {
            return Ok(());
        }
        self.send(Frame::Event(Box::new(event.clone()))).await?;
        self.last = Some(id);
        self.run = self.run.max(id.run);
        if event.event == EventName::Finished && id.run == self.run {
            return Err(End::Finished);
        }
        Ok(())
    }

    /// Reports steps that wait for a worker. Ends a feed whose last event is missing, because the event stream is capped.
    async fn check_status(&mut self) -> Result<(), End> {
        let store = &self.lookup.store;
        // During an outage the subscription reports a gap later, so nothing is lost by skipping this check.
        let Ok(status) = store.status(&self.task).await else {
            return Ok(());
        };
        let state = match &status {
            Some(status) => Some(status.state),
            None if self.lookup.api.is_some() => {
                match self.lookup.summary(&self.caller, &self.task).await {
                    Ok(known) => Some(known.state),
                    Err(error @ (LookupError::NotFound | LookupError::Status(_))) => {
                        return Err(error.into())
                    }
                    // The API is busy or unavailable; the next check asks again.
                    Err(LookupError::Store(_) | LookupError::Api(_)) => None,
                }
            }
            None => None,
        };
        if state.is_some_and(is_terminal) {
            self.catch_up().await?;
            return Err(End::Finished);
        }
        let Some(status) = status else {
            return Ok(());
        };
        let waiting = store.waiting_steps(&status).await;
        for step in waiting.ok().flatten().iter().flat_map(List::as_slice) {
            self.send(Frame::Waiting(step.into())).await?;
        }
        Ok(())
    }

    async fn send(&mut self, frame: Frame) -> Result<(), End> {
        let stop = self.stop.clone();
        tokio::select! {
            sent = self.out.send_timeout(frame, SEND_TIMEOUT) => sent.map_err(|_| End::ClientGone),
            () = stop.requested() => Err(End::Stopping),
        }
    }
}
