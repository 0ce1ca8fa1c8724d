//! What happens to a task, as a client sees it: `history` (what happened before) and a subscription (what happens now)
//! become one ordered `feed` per client.

mod feed;
mod history;

pub use feed::{Feed, Frame, WaitingNotice};
pub use history::{page, Page};
