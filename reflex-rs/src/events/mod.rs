//! What happens to a task, as a client sees it: `history` (what happened) and `watch` (what happens now) become one ordered
//! `feed` per client.

mod event_id;
mod feed;
mod history;
mod watch;

pub use event_id::EventId;
pub use feed::{Feed, Frame, WaitingNotice};
pub use history::{page, Page};
pub use watch::{Item, Watch, Watchers};
