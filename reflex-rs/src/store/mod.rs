//! The way to Redis: one shared connection that is kept up in the background, so that nobody waits for a missing Redis.

mod trouble;

pub use trouble::{is_group_missing, Trouble};

use std::time::Duration;

use contracts::settings;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::sync::watch;

use crate::pauses::Pauses;

/// Longest a command may take. Scripts take well below a millisecond.
const RESPONSE: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(1);

/// What a 202 promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In Redis's memory and, as Redis is configured, in its file soon.
    Redis,
    /// On disk before the answer.
    Fsync,
}

impl Durability {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Fsync => "fsync",
        }
    }
}

#[derive(Clone)]
enum State {
    Up(MultiplexedConnection, Durability),
    /// Why not.
    Down(String),
}

/// Hands out the shared connection. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    client: Client,
    connect_timeout: Duration,
    state: watch::Receiver<State>,
}

impl Link {
    /// Starts to connect in the background; fails only on a URL that cannot be used.
    pub fn open(redis: &settings::Redis) -> Result<Self, RedisError> {
        let client = Client::open(redis.url.as_str())?;
        let (sender, state) = watch::channel(State::Down("not connected yet".into()));
        let link = Self {
            client,
            connect_timeout: Duration::from_secs_f64(redis.connect_timeout_s),
            state,
        };
        tokio::spawn(keep_up(
            link.clone(),
            sender,
            settings::without_credentials(&redis.url),
        ));
        Ok(link)
    }

    /// The shared connection, never for blocking commands; at once `Away` while there is none.
    pub fn connection(&self) -> Result<MultiplexedConnection, Trouble> {
        match &*self.state.borrow() {
            State::Up(connection, _) => Ok(connection.clone()),
            State::Down(why) => Err(Trouble::Away(why.clone())),
        }
    }

    /// What a 202 promises on the present connection.
    #[must_use]
    pub fn durability(&self) -> Durability {
        match &*self.state.borrow() {
            State::Up(_, durability) => *durability,
            State::Down(_) => Durability::Redis,
        }
    }

    /// Asks Redis whether it is there.
    pub async fn ping(&self) -> Result<(), Trouble> {
        Ok(redis::cmd("PING")
            .query_async(&mut self.connection()?)
            .await?)
    }

    /// A connection of one's own for commands that block up to `longest`.
    pub async fn dedicated(&self, longest: Duration) -> Result<MultiplexedConnection, Trouble> {
        // While the shared one is down, it alone tries and reports; everybody else waits for it.
        self.connection()?;
        Ok(self.connect(longest + RESPONSE).await?)
    }

    async fn connect(&self, response: Duration) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(self.connect_timeout)
            .set_response_timeout(response);
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}

/// Runs as long as the process. `shown` is the address without credentials.
async fn keep_up(link: Link, sender: watch::Sender<State>, shown: String) {
    let mut pauses = Pauses::default();
    loop {
        let why = match meet(&link).await {
            Ok((connection, durability)) => {
                tracing::info!(
                    durability = durability.as_str(),
                    "connected to Redis at {shown}"
                );
                pauses.over();
                sender.send_replace(State::Up(connection.clone(), durability));
                until_lost(connection).await
            }
            Err(error) => error,
        };
        let wait = pauses.take();
        tracing::warn!(
            "no usable Redis at {shown} ({why}); start it there or set OCTOLLM_REDIS_URL; trying again in {} ms",
            wait.as_millis()
        );
        sender.send_replace(State::Down(format!("no usable Redis at {shown}: {why}")));
        tokio::time::sleep(wait).await;
    }
}

async fn meet(link: &Link) -> Result<(MultiplexedConnection, Durability), RedisError> {
    let mut connection = link.connect(RESPONSE).await?;
    redis::cmd("PING")
        .query_async::<()>(&mut connection)
        .await?;
    let always = setting(&mut connection, "appendonly").await.as_deref() == Some("yes")
        && setting(&mut connection, "appendfsync").await.as_deref() == Some("always");
    let durability = if always {
        Durability::Fsync
    } else {
        Durability::Redis
    };
    Ok((connection, durability))
}

/// A setting of the server; none where it is refused, as hosted servers do.
async fn setting(connection: &mut MultiplexedConnection, name: &str) -> Option<String> {
    let (_, value): (String, String) = redis::cmd("CONFIG")
        .arg("GET")
        .arg(name)
        .query_async(connection)
        .await
        .ok()?;
    Some(value)
}

/// Comes back with the reason once the connection no longer answers.
async fn until_lost(mut connection: MultiplexedConnection) -> RedisError {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if let Err(error) = redis::cmd("PING").query_async::<()>(&mut connection).await {
            return error;
        }
    }
}
