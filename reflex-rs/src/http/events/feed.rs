//! One live view from its beginning to its end: history, then what comes, each event once and in order.

use std::time::Duration;

use axum::body::Bytes;
use contracts::events::{EventName, List, TaskEvent, TaskId};
use contracts::ids;
use service::Stop;
use tokio::sync::mpsc;
use tokio::time::{interval, interval_at, Instant, MissedTickBehavior};

use super::super::lookup::{is_terminal, look_up};
use super::super::{App, Problem};
use super::frame;
use super::history::{self, Page};
use crate::reads::{self, Item, Place, Watch};
use bus::Backoff;
use bus::StoreError;

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often it is looked whether the task waits for a worker, or has ended without a word.
const LOOK: Duration = Duration::from_secs(3);
/// Longest a client may take no frame; it comes back where it was.
const SLOWEST: Duration = Duration::from_secs(30);

/// Longest a view waits for a history that cannot be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a view ends.
enum End {
    /// The task's run has finished and all of it was shown.
    Finished,
    /// The client is gone or takes nothing.
    Client,
    /// This process ends.
    Stop,
    /// What comes next cannot be read now.
    Trouble(Problem),
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        Self::Trouble(problem)
    }
}

pub(super) struct Feed {
    app: App,
    task: TaskId,
    watch: Watch,
    out: mpsc::Sender<Bytes>,
    stop: Stop,
    /// The last event that was shown.
    last: Option<Place>,
    /// The run whose end is the end.
    run: i64,
}

impl Feed {
    pub fn new(
        app: App,
        task: TaskId,
        watch: Watch,
        out: mpsc::Sender<Bytes>,
        after: Option<Place>,
        run: i64,
    ) -> Self {
        Self {
            stop: app.stop.clone(),
            app,
            task,
            watch,
            out,
            last: after,
            run,
        }
    }

    pub async fn run(mut self, first: Page) {
        let Err(end) = self.show_all(first).await;
        let task = self.task.as_str();
        match end {
            End::Trouble(problem) => {
                let cause = problem.cause();
                tracing::warn!(
                    task,
                    cause,
                    "a live view ends early; its client comes back for the rest"
                );
            }
            End::Finished | End::Client | End::Stop => tracing::debug!(task, "a live view ended"),
        }
    }

    async fn show_all(&mut self, first: Page) -> Result<std::convert::Infallible, End> {
        self.send(Bytes::from_static(frame::RETRY.as_bytes()))
            .await?;
        self.show_pages(first).await?;
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                item = self.watch.next() => match item {
                    Item::Event(event) => self.offer(&event).await?,
                    Item::Gap => self.catch_up().await?,
                },
                _ = look.tick() => self.look().await?,
                _ = keep_alive.tick() => self.send(Bytes::from_static(frame::KEEP_ALIVE.as_bytes())).await?,
                () = self.out.closed() => return Err(End::Client),
                () = stop.requested() => return Err(End::Stop),
            }
        }
    }

    /// Shows a live event; where others must lie before it, those first.
    async fn offer(&mut self, event: &TaskEvent) -> Result<(), End> {
        let place = Place::of(event);
        let new = self.last.is_none_or(|last| place > last);
        if new && !place.is_next_after(self.last) {
            self.catch_up().await?;
        }
        self.show(event).await
    }

    /// Reads the history from where the view stands.
    async fn catch_up(&mut self) -> Result<(), End> {
        let page = self.page().await?;
        self.show_pages(page).await
    }

    /// What comes after the last event shown; waits a while where the store is away.
    async fn page(&self) -> Result<Page, Problem> {
        let (mut backoff, deadline) = (Backoff::default(), Instant::now() + PATIENCE);
        loop {
            match history::page(&self.app, &self.task, self.last).await {
                Err(
                    Problem::Store(StoreError::Unavailable { .. } | StoreError::Unknown(_))
                    | Problem::Api(_),
                ) if Instant::now() < deadline && !self.stop.is_requested() => {
                    backoff.wait().await;
                }
                page => return page,
            }
        }
    }

    async fn show_pages(&mut self, mut page: Page) -> Result<(), End> {
        loop {
            let before = self.last;
            for event in &page.events {
                self.show(event).await?;
            }
            // A page that brings nothing new would be the last one for ever.
            if !page.more || self.last == before {
                return Ok(());
            }
            page = self.page().await?;
        }
    }

    /// Sends an event unless it was sent, is older than what was, or is not this caller's.
    async fn show(&mut self, event: &TaskEvent) -> Result<(), End> {
        let place = Place::of(event);
        let theirs = event.task == self.task && event.tenant == self.app.tenant;
        if !theirs || self.last.is_some_and(|last| place <= last) {
            return Ok(());
        }
        let frame = frame::event(event).map_err(|error| Problem::Internal(error.to_string()))?;
        self.send(frame).await?;
        self.last = Some(place);
        self.run = self.run.max(place.run);
        if event.event == EventName::Finished && place.run == self.run {
            return Err(End::Finished);
        }
        Ok(())
    }

    /// Says which steps wait for a worker. Ends a view whose last event never came: the stream is capped.
    async fn look(&mut self) -> Result<(), End> {
        let link = self.app.sink.link();
        // Where Redis is away, the tail notices, and tells a gap once it is back.
        let Ok(status) = reads::status(link, &self.task).await else {
            return Ok(());
        };
        let state = match &status {
            Some(status) => Some(status.state),
            None if self.app.api.is_some() => Some(look_up(&self.app, &self.task).await?.state),
            None => None,
        };
        if state.is_some_and(is_terminal) {
            self.catch_up().await?;
            return Err(End::Finished);
        }
        let Some(status) = status else {
            return Ok(());
        };
        let waiting = reads::waiting(link, &self.app.topology, &status, ids::now_ms()).await;
        for step in waiting.ok().flatten().iter().flat_map(List::as_slice) {
            self.send(frame::waiting(step)).await?;
        }
        Ok(())
    }

    async fn send(&mut self, frame: Bytes) -> Result<(), End> {
        let stop = self.stop.clone();
        tokio::select! {
            sent = self.out.send_timeout(frame, SLOWEST) => sent.map_err(|_| End::Client),
            () = stop.requested() => Err(End::Stop),
        }
    }
}
