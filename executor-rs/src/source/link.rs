//! One connection to Redis that comes back: commands and the shared scripts, with errors sorted for those who wait.

use std::time::Duration;

use bus::Script;
use contracts::settings::{self, without_credentials};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisError, RedisResult, Value};
use tokio::sync::Mutex;

/// Longest that an answer may take, beyond what the command itself waits in Redis.
const ANSWER: Duration = Duration::from_secs(5);

/// Connects when first used and again after it broke.
pub struct Link {
    client: redis::Client,
    config: AsyncConnectionConfig,
    connected: Mutex<Option<MultiplexedConnection>>,
    /// The address for people, without credentials.
    pub shown: String,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Link")
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub fn new(settings: &settings::Redis) -> RedisResult<Self> {
        Ok(Self {
            client: redis::Client::open(settings.url.as_str())?,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Duration::from_secs_f64(settings.connect_timeout_s))
                .set_response_timeout(ANSWER),
            connected: Mutex::new(None),
            shown: without_credentials(&settings.url),
        })
    }

    pub async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let mut connection = self.connection().await?;
        let answer = connection
            .send_packed_command(command)
            .await
            .and_then(Value::extract_error);
        if let Err(error) = &answer {
            if broke(error) {
                *self.connected.lock().await = None;
            }
        }
        answer
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let mut connected = self.connected.lock().await;
        if let Some(connection) = &*connected {
            return Ok(connection.clone());
        }
        let fresh = self
            .client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await?;
        Ok(connected.insert(fresh).clone())
    }

    /// Runs a script; loads it where Redis does not know it (any more).
    pub async fn script(
        &self,
        script: Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> RedisResult<Value> {
        let source = script.source();
        let mut call = redis::cmd("EVALSHA");
        call.arg(script.hash()).arg(keys.len()).arg(keys).arg(args);
        match self.command(&call).await {
            Err(error) if error.kind() == ErrorKind::NoScriptError => {
                self.command(redis::cmd("SCRIPT").arg("LOAD").arg(source))
                    .await?;
                self.command(&call).await
            }
            answer => answer,
        }
    }

    /// A connection of its own that only listens.
    pub async fn pubsub(&self) -> RedisResult<redis::aio::PubSub> {
        tokio::time::timeout(ANSWER, self.client.get_async_pubsub())
            .await
            .map_err(|_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))?
    }

    pub async fn ping(&self) -> RedisResult<()> {
        self.command(&redis::cmd("PING")).await.map(|_| ())
    }
}

/// Whether the connection is of no more use: broken, or to a server that has become a replica.
fn broke(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::ReadOnly
}

/// Whether the trouble is about the server's state or the way to it, not about what was sent.
#[must_use]
pub fn is_passing(error: &RedisError) -> bool {
    const WORDS: [&str; 10] = [
        "LOADING",
        "READONLY",
        "OOM",
        "MISCONF",
        "NOREPLICAS",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "BUSY",
        "MASTERDOWN",
        "NOAUTH",
    ];
    // A script's own error carries the server's word inside its text.
    let text = error.to_string();
    broke(error)
        || matches!(
            error.kind(),
            ErrorKind::BusyLoadingError
                | ErrorKind::TryAgain
                | ErrorKind::ClusterDown
                | ErrorKind::MasterDown
                | ErrorKind::AuthenticationFailed
                | ErrorKind::NoScriptError
                | ErrorKind::ReadOnly
        )
        || error.code().is_some_and(|code| WORDS.contains(&code))
        || WORDS.iter().any(|word| text.contains(&format!("{word} ")))
}

/// Whether a stream's group is missing.
#[must_use]
pub fn is_no_group(error: &RedisError) -> bool {
    error.code() == Some("NOGROUP") || error.to_string().contains("NOGROUP")
}
