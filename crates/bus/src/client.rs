//! The connection to Redis: kept up in the background, so that a caller never waits for a server that is unavailable.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::settings;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Value};
use tokio::sync::{watch, Notify};

use crate::backoff::Backoff;
use crate::call::ScriptCall;
use crate::clock::RedisClock;
use crate::connector::Connector;
use crate::error::{Refusal, StoreError};
use crate::script::Script;
use crate::server_info::{is_replica, unless_refused, ServerInfo};

/// How long an answer may take, beyond the time that the command itself waits in Redis.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the shared connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a check may take. A server that hangs is unavailable, although its connections stay open.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a caller that waits for something else has the connection checked.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// The shortest time between two checks of the connection, however many callers ask for one.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone)]
enum State {
    Connected(MultiplexedConnection, ServerInfo),
    Disconnected(StoreError),
}

/// A handle to the shared connection. Cheap to clone.
#[derive(Clone)]
pub struct RedisClient {
    connector: Connector,
    /// How long an answer may take on the shared connection.
    response_timeout: Duration,
    state: watch::Receiver<State>,
    /// Asks the background task to look at the connection at once.
    check_now: Arc<Notify>,
    /// Set with every check of the connection.
    clock: RedisClock,
    address: Arc<str>,
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RedisClient")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl RedisClient {
    /// Create a client and the task that keeps it connected for as long as the process runs; the caller spawns the task.
    /// The task ends only if Redis refuses this program.
    ///
    /// Fails only on a URL that cannot be used.
    pub fn open(
        settings: &settings::Redis,
    ) -> Result<
        (
            Self,
            impl Future<Output = Result<(), Refusal>> + Send + 'static,
        ),
        RedisError,
    > {
        Self::open_with(settings, RESPONSE_TIMEOUT)
    }

    /// Like `open`, with a time limit of its own for each answer on the shared connection.
    ///
    /// A server that hangs is noticed within a second and twice this time.
    pub fn open_with(
        settings: &settings::Redis,
        response_timeout: Duration,
    ) -> Result<
        (
            Self,
            impl Future<Output = Result<(), Refusal>> + Send + 'static,
        ),
        RedisError,
    > {
        let (sender, state) = watch::channel(State::Disconnected(StoreError::unavailable(
            "not connected yet",
        )));
        let client = Self {
            connector: Connector::new(settings)?,
            response_timeout,
            state,
            check_now: Arc::default(),
            clock: RedisClock::default(),
            address: settings::without_credentials(&settings.url).into(),
        };
        let keep_connected = keep_connected(client.clone(), sender);
        Ok((client, keep_connected))
    }

    /// The server's address without credentials, for people.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The shared connection. Never send blocking commands over it.
    pub fn connection(&self) -> Result<MultiplexedConnection, StoreError> {
        match &*self.state.borrow() {
            State::Connected(connection, _) => Ok(connection.clone()),
            State::Disconnected(error) => Err(error.clone()),
        }
    }

    /// What is known about the server.
    pub fn server_info(&self) -> Result<ServerInfo, StoreError> {
        match &*self.state.borrow() {
            State::Connected(_, info) => Ok(*info),
            State::Disconnected(error) => Err(error.clone()),
        }
    }

    /// Redis' time in ms since 1970; known from the first connection on. Does not wait.
    pub fn now_ms(&self) -> Result<u64, StoreError> {
        let now = self.clock.now_ms();
        now.ok_or_else(|| {
            StoreError::unavailable("Redis was never reached, so its time is unknown")
        })
    }

    /// Run one command on the shared connection.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let answer = command.query_async(&mut self.connection()?).await;
        answer.map_err(|error| self.classify(error))
    }

    /// Run a script on the shared connection; load it where the server does not know it.
    pub async fn call<T: FromRedisValue>(&self, call: &ScriptCall) -> Result<T, StoreError> {
        let answer = call.run(&mut self.connection()?).await;
        answer.map_err(|error| self.classify(error))
    }

    /// Run a command that calls `script` on the shared connection; load it where the server does not know it.
    ///
    /// An error within the answer is left there: only that part has failed.
    pub async fn call_command(&self, script: Script, command: &Cmd) -> Result<Value, StoreError> {
        let mut connection = self.connection()?;
        let mut answer = answer_of(&mut connection, command).await;
        if answer
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::NoScriptError)
        {
            answer = match script.load(&mut connection).await {
                Ok(()) => answer_of(&mut connection, command).await,
                Err(error) => Err(error),
            };
        }
        answer.map_err(|error| self.classify(error))
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.query(&redis::cmd("PING")).await
    }

    /// Wait until the server is known to be unavailable; it is checked while this waits.
    ///
    /// For callers that wait for something other than an answer on the shared connection.
    pub async fn until_unavailable(&self) -> StoreError {
        let mut state = self.state.clone();
        loop {
            let lost = state.wait_for(|state| matches!(state, State::Disconnected(_)));
            match tokio::time::timeout(WATCH_INTERVAL, lost).await {
                Ok(Ok(state)) => {
                    if let State::Disconnected(error) = &*state {
                        return error.clone();
                    }
                }
                Ok(Err(_)) => return StoreError::unavailable("this process is stopping"),
                Err(_) => self.check_now.notify_one(),
            }
        }
    }

    /// A new connection for commands that block up to `longest`.
    pub async fn dedicated(&self, longest: Duration) -> Result<MultiplexedConnection, StoreError> {
        // While the shared connection is down, only its task tries to connect and reports.
        self.connection()?;
        self.connector
            .connect(longest + RESPONSE_TIMEOUT)
            .await
            .map_err(StoreError::not_sent)
    }

    /// A new connection for subscriptions.
    pub async fn pubsub(&self) -> Result<PubSub, StoreError> {
        self.connection()?;
        tokio::time::timeout(RESPONSE_TIMEOUT, self.connector.pubsub())
            .await
            .map_err(|_| StoreError::unavailable("connecting took too long"))?
            // A login that is refused ends the task of the shared connection, which knows the reason.
            .map_err(|error| StoreError::unavailable(error.to_string()))
    }

    /// Sort an error. One that casts doubt on the shared connection has it checked at once.
    fn classify(&self, error: RedisError) -> StoreError {
        let error = StoreError::from(error);
        if matches!(error, StoreError::Unknown(_)) || error.is_read_only() {
            self.check_now.notify_one();
        }
        error
    }
}

/// The answer to a command, which may hold errors; fails if it is one as a whole.
async fn answer_of(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<Value, RedisError> {
    let answer = connection.req_packed_command(command).await?;
    match answer {
        Value::ServerError(_) => answer.extract_error(),
        answer => Ok(answer),
    }
}

async fn keep_connected(client: RedisClient, sender: watch::Sender<State>) -> Result<(), Refusal> {
    let mut backoff = Backoff::default();
    let address = &client.address;
    loop {
        let error = match connect_and_ask(&client).await {
            Ok((connection, info)) => {
                tracing::info!(
                    synced = info.synced,
                    replicas = info.replicas,
                    "connected to Redis at {address}"
                );
                let connected = Instant::now();
                sender.send_replace(State::Connected(connection.clone(), info));
                let error = until_lost(connection, info, &client, &sender).await;
                if connected.elapsed() >= CHECK_INTERVAL {
                    backoff.reset();
                }
                error
            }
            Err(error) => {
                let reason = error.to_string();
                let error = StoreError::not_sent(error);
                let refused = error.check_transient(format!("accept a connection to {address}"));
                if refused.is_err() {
                    sender.send_replace(State::Disconnected(error));
                    return refused;
                }
                reason
            }
        };
        let delay = backoff.next_delay();
        tracing::warn!(
            "Redis at {address} is unavailable ({error}); start it or set OCTOLLM_REDIS_URL; trying again in {} ms",
            delay.as_millis()
        );
        let reason = format!("no connection to {address}: {error}");
        sender.send_replace(State::Disconnected(StoreError::unavailable(reason)));
        tokio::time::sleep(delay).await;
    }
}

async fn connect_and_ask(
    client: &RedisClient,
) -> Result<(MultiplexedConnection, ServerInfo), RedisError> {
    let mut connection = client.connector.connect(client.response_timeout).await?;
    ask_time(&mut connection, &client.clock).await?;
    load_scripts(&mut connection).await?;
    let info = ServerInfo::ask(&mut connection).await?;
    Ok((connection, info))
}

/// Set the clock. Every server that executes the scripts answers this, so it also shows whether the server answers.
async fn ask_time(
    connection: &mut MultiplexedConnection,
    clock: &RedisClock,
) -> Result<(), RedisError> {
    clock.sync(redis::cmd("TIME").query_async(connection).await?);
    Ok(())
}

/// Make the scripts known to the server, so that the first call of each is executed even if its answer comes too late.
async fn load_scripts(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    for script in Script::ALL {
        // The caller of a script loads it where this was refused.
        unless_refused(script.load(connection).await)?;
    }
    Ok(())
}

/// Return the reason once the connection is of no more use; until then keep the server's facts up to date.
async fn until_lost(
    mut connection: MultiplexedConnection,
    mut known: ServerInfo,
    client: &RedisClient,
    sender: &watch::Sender<State>,
) -> String {
    let mut asked = Instant::now();
    loop {
        let doubted = tokio::time::timeout(CHECK_INTERVAL, client.check_now.notified())
            .await
            .is_ok();
        let refresh = asked.elapsed() >= CHECK_INTERVAL;
        let checked = check(&mut connection, &client.clock, known, doubted, refresh);
        let info = match tokio::time::timeout(CHECK_TIMEOUT, checked).await {
            Ok(Ok(info)) => info,
            Ok(Err(reason)) => return reason,
            Err(_) => return "the server does not answer".to_owned(),
        };
        if info != known {
            tracing::info!(
                synced = info.synced,
                replicas = info.replicas,
                "Redis has changed"
            );
            sender.send_replace(State::Connected(connection.clone(), info));
            known = info;
        }
        if refresh {
            asked = Instant::now();
        } else {
            tokio::time::sleep(MIN_CHECK_INTERVAL).await;
        }
    }
}

/// Look at the server once; answer what is known about it, or why the connection is of no more use.
///
/// `refresh`: whether what is known is asked for again.
async fn check(
    connection: &mut MultiplexedConnection,
    clock: &RedisClock,
    known: ServerInfo,
    doubted: bool,
    refresh: bool,
) -> Result<ServerInfo, String> {
    let text = |error: RedisError| error.to_string();
    ask_time(connection, clock).await.map_err(text)?;
    if doubted && is_replica(connection).await {
        // After a failover the address may already lead to the new primary.
        return Err("the server has become a replica".to_owned());
    }
    if refresh {
        return known.ask_again(connection).await.map_err(text);
    }
    Ok(known)
}
