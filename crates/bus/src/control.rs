//! The control channel: what every worker should know at once. A message that gets lost costs time, never correctness.

use std::time::Duration;

use contracts::events::TaskId;
use futures_util::StreamExt;
use redis::aio::PubSub;

use crate::client::RedisClient;
use crate::error::StoreError;

/// After how long without a message the connection is checked.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A subscription to some control channels.
pub struct Control {
    channel: PubSub,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    pub async fn subscribe(client: &RedisClient, channels: &[String]) -> Result<Self, StoreError> {
        let mut channel = client.pubsub().await?;
        channel.subscribe(channels).await?;
        Ok(Self { channel })
    }

    /// The channel and the task of the next order to cancel. Orders that this version does not know are skipped.
    pub async fn next_cancelled(&mut self) -> Result<(String, String), StoreError> {
        loop {
            let next = {
                let mut messages = self.channel.on_message();
                tokio::time::timeout(IDLE_TIMEOUT, messages.next()).await
            };
            match next {
                Ok(Some(message)) => {
                    if let Some(task) = cancelled_task(message.get_payload_bytes()) {
                        return Ok((message.get_channel_name().to_owned(), task));
                    }
                }
                Ok(None) => {
                    return Err(StoreError::unavailable("the server closed the connection"))
                }
                Err(_) => {
                    let pong = self.channel.ping::<redis::Value>();
                    tokio::time::timeout(IDLE_TIMEOUT, pong)
                        .await
                        .map_err(|_| StoreError::unavailable("the server does not answer"))??;
                }
            }
        }
    }
}

fn cancelled_task(payload: &[u8]) -> Option<String> {
    let task = std::str::from_utf8(payload).ok()?.strip_prefix("cancel ")?;
    task.parse::<TaskId>().ok().map(|_| task.to_owned())
}

#[cfg(test)]
mod tests {
    use super::cancelled_task;

    #[test]
    fn only_an_order_to_cancel_a_task_is_one() {
        let id = "l0-01j00000000000000000000000";
        let order = format!("cancel {id}");
        assert_eq!(cancelled_task(order.as_bytes()).as_deref(), Some(id));
        for other in [
            "",
            "cancel ",
            "cancel x",
            "drain",
            &format!("Cancel {id}"),
            &format!("cancel {id} "),
        ] {
            assert_eq!(cancelled_task(other.as_bytes()), None, "{other}");
        }
        assert_eq!(cancelled_task(b"cancel \xff"), None);
    }
}
