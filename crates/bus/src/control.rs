//! The control channel: what every worker should know at once. A message that gets lost costs time, never correctness.

use std::time::Duration;

use contracts::events::TaskId;
use futures_util::StreamExt;
use redis::aio::PubSub;

use crate::client::RedisClient;
use crate::error::StoreError;

const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// Subscribe to channels. Fails if Redis refuses one of them.
    pub async fn subscribe(client: &RedisClient, channels: &[String]) -> Result<Self, StoreError> {
        // The client library takes a refused subscription for a successful one, so a connection for commands asks first.
        let mut probe = client.dedicated(SUBSCRIBE_TIMEOUT).await?;
        let probed: Result<redis::Value, _> = redis::cmd("SUBSCRIBE")
            .arg(channels)
            .query_async(&mut probe)
            .await;
        probed?;
        let mut channel = client.pubsub().await?;
        tokio::time::timeout(SUBSCRIBE_TIMEOUT, channel.subscribe(channels))
            .await
            .map_err(|_| StoreError::unavailable("subscribing took too long"))??;
        Ok(Self { channel })
    }

    /// The channel and the run (`<task>.<run>`) of the next message that a run has ended. Messages that this version does not
    /// know are skipped.
    pub async fn next_ended_run(&mut self) -> Result<(String, String), StoreError> {
        loop {
            let next = {
                let mut messages = self.channel.on_message();
                tokio::time::timeout(IDLE_TIMEOUT, messages.next()).await
            };
            match next {
                Ok(Some(message)) => {
                    if let Some(run) = ended_run(message.get_payload_bytes()) {
                        return Ok((message.get_channel_name().to_owned(), run));
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

fn ended_run(payload: &[u8]) -> Option<String> {
    let run = std::str::from_utf8(payload).ok()?.strip_prefix("ended ")?;
    let (task, number) = run.split_once('.')?;
    task.parse::<TaskId>().ok()?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| run.to_owned())
}

#[cfg(test)]
mod tests {
    use super::ended_run;

    #[test]
    fn only_a_message_that_a_run_has_ended_is_one() {
        let run = "l0-01j00000000000000000000000.2";
        let message = format!("ended {run}");
        assert_eq!(ended_run(message.as_bytes()).as_deref(), Some(run));
        for other in [
            "",
            "ended ",
            "ended x",
            "ended x.1",
            "drain",
            "ended l0-01j00000000000000000000000",
            "ended l0-01j00000000000000000000000.",
            &format!("Ended {run}"),
            &format!("ended {run} "),
        ] {
            assert_eq!(ended_run(other.as_bytes()), None, "{other}");
        }
        assert_eq!(ended_run(b"ended \xff"), None);
    }
}
