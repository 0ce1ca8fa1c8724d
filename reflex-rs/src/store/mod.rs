//! The way to Redis: one shared connection that is kept up in the background, so that nobody waits for a missing Redis.

mod trouble;

pub use trouble::{is_group_missing, Trouble};

use std::time::Duration;

use contracts::settings;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Role};
use tokio::sync::watch;

use crate::pauses::Pauses;

/// Longest a command may take. Scripts take well below a millisecond.
const RESPONSE: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(1);

/// What the server says about itself; none where it refuses to, as hosted servers do. As of the last second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether it syncs its file before it answers.
    pub synced: Option<bool>,
    /// How many replicas follow it.
    pub replicas: Option<usize>,
}

#[derive(Clone)]
enum State {
    Up(MultiplexedConnection, Facts),
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

    /// What is known of the server on the present connection.
    pub fn facts(&self) -> Result<Facts, Trouble> {
        match &*self.state.borrow() {
            State::Up(_, facts) => Ok(*facts),
            State::Down(why) => Err(Trouble::Away(why.clone())),
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
            Ok((connection, facts)) => {
                tracing::info!(
                    synced = facts.synced,
                    replicas = facts.replicas,
                    "connected to Redis at {shown}"
                );
                pauses.over();
                sender.send_replace(State::Up(connection.clone(), facts));
                until_lost(connection, facts, &sender).await
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

async fn meet(link: &Link) -> Result<(MultiplexedConnection, Facts), RedisError> {
    let mut connection = link.connect(RESPONSE).await?;
    redis::cmd("PING")
        .query_async::<()>(&mut connection)
        .await?;
    let facts = Facts {
        synced: syncs(&mut connection).await,
        replicas: followers(&mut connection).await,
    };
    Ok((connection, facts))
}

async fn syncs(connection: &mut MultiplexedConnection) -> Option<bool> {
    let always = setting(connection, "appendonly").await? == "yes"
        && setting(connection, "appendfsync").await? == "always";
    Some(always)
}

/// Replicas that are online; a server that is one itself has none that count.
async fn followers(connection: &mut MultiplexedConnection) -> Option<usize> {
    let role: Role = redis::cmd("ROLE").query_async(connection).await.ok()?;
    match role {
        Role::Primary { replicas, .. } => Some(replicas.len()),
        Role::Replica { .. } => Some(0),
        Role::Sentinel { .. } => None,
    }
}

/// A setting of the server; none where it is refused.
async fn setting(connection: &mut MultiplexedConnection, name: &str) -> Option<String> {
    let (_, value): (String, String) = redis::cmd("CONFIG")
        .arg("GET")
        .arg(name)
        .query_async(connection)
        .await
        .ok()?;
    Some(value)
}

/// Comes back with the reason once the connection no longer answers; until then keeps the facts fresh.
async fn until_lost(
    mut connection: MultiplexedConnection,
    mut known: Facts,
    sender: &watch::Sender<State>,
) -> RedisError {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if let Err(error) = redis::cmd("PING").query_async::<()>(&mut connection).await {
            return error;
        }
        let mut facts = known;
        // What was refused once is not asked for again: some servers write each refusal down.
        if known.synced.is_some() {
            facts.synced = syncs(&mut connection).await;
        }
        if known.replicas.is_some() {
            facts.replicas = followers(&mut connection).await;
        }
        if facts != known {
            tracing::info!(
                synced = facts.synced,
                replicas = facts.replicas,
                "Redis has changed"
            );
            sender.send_replace(State::Up(connection.clone(), facts));
            known = facts;
        }
    }
}
