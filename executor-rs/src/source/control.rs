//! The control channel: what every worker must know at once. A message that gets lost costs time, never correctness.

use std::time::Duration;

use contracts::events::TaskId;
use futures_util::StreamExt;
use redis::aio::PubSub;
use redis::RedisResult;

use super::link::Link;

/// After how long without a message the connection is tried.
const QUIET: Duration = Duration::from_secs(30);

/// A subscription to some channels.
pub struct Control {
    channel: PubSub,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    pub async fn subscribe(link: &Link, channels: &[String]) -> RedisResult<Self> {
        let mut channel = link.pubsub().await?;
        channel.subscribe(channels).await?;
        Ok(Self { channel })
    }

    /// The channel and the task of the next order to cancel. Words this version does not know are a newer one's.
    pub async fn cancelled(&mut self) -> RedisResult<(String, String)> {
        loop {
            let next = {
                let mut messages = self.channel.on_message();
                tokio::time::timeout(QUIET, messages.next()).await
            };
            match next {
                Ok(Some(message)) => {
                    if let Some(task) = task(message.get_payload_bytes()) {
                        return Ok((message.get_channel_name().to_owned(), task));
                    }
                }
                Ok(None) => return Err(broken("the server closed the connection")),
                Err(_) => {
                    let pong = tokio::time::timeout(QUIET, self.channel.ping::<redis::Value>());
                    pong.await
                        .map_err(|_| broken("the server does not answer"))??;
                }
            }
        }
    }
}

fn broken(why: &'static str) -> redis::RedisError {
    std::io::Error::new(std::io::ErrorKind::BrokenPipe, why).into()
}

fn task(payload: &[u8]) -> Option<String> {
    let task = std::str::from_utf8(payload).ok()?.strip_prefix("cancel ")?;
    task.parse::<TaskId>().ok().map(|_| task.to_owned())
}

#[cfg(test)]
mod tests {
    use super::task;

    #[test]
    fn only_an_order_to_cancel_a_task_is_one() {
        let id = "l0-01j00000000000000000000000";
        assert_eq!(task(format!("cancel {id}").as_bytes()).as_deref(), Some(id));
        for other in [
            "",
            "cancel ",
            "cancel x",
            "drain",
            &format!("Cancel {id}"),
            &format!("cancel {id} "),
        ] {
            assert_eq!(task(other.as_bytes()), None, "{other}");
        }
        assert_eq!(task(b"cancel \xff"), None);
    }
}
