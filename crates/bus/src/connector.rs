//! Opens connections to the server of the setting `redis.url`, and logs in.

use std::time::Duration;

use contracts::settings;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, RedisConnectionInfo, RedisError,
};

/// Opens connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    /// Logs in by itself, for subscriptions.
    client: Client,
    /// Does not log in. The client library hides why a login failed, and only the server's own words say whether a later
    /// one can succeed.
    anonymous: Client,
    login: RedisConnectionInfo,
    connect_timeout: Duration,
}

impl Connector {
    /// Fails only on a URL that cannot be used.
    pub(crate) fn new(settings: &settings::Redis) -> Result<Self, RedisError> {
        let mut target = settings.url.as_str().into_connection_info()?;
        let client = Client::open(target.clone())?;
        let login = std::mem::take(&mut target.redis);
        Ok(Self {
            client,
            anonymous: Client::open(target)?,
            login,
            connect_timeout: Duration::from_secs_f64(settings.connect_timeout_s),
        })
    }

    /// Open a connection whose answers may take up to `response_timeout`.
    pub(crate) async fn connect(
        &self,
        response_timeout: Duration,
    ) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(self.connect_timeout)
            .set_response_timeout(response_timeout);
        let opened = self
            .anonymous
            .get_multiplexed_async_connection_with_config(&config);
        let mut connection = opened.await?;
        if let Some(command) = auth(&self.login) {
            command.exec_async(&mut connection).await?;
        }
        if self.login.db != 0 {
            let select = redis::cmd("SELECT").arg(self.login.db).to_owned();
            select.exec_async(&mut connection).await?;
        }
        Ok(connection)
    }

    /// Open a connection for subscriptions.
    pub(crate) async fn pubsub(&self) -> Result<PubSub, RedisError> {
        self.client.get_async_pubsub().await
    }
}

fn auth(login: &RedisConnectionInfo) -> Option<Cmd> {
    let password = login.password.as_ref()?;
    let mut command = redis::cmd("AUTH");
    if let Some(username) = &login.username {
        command.arg(username);
    }
    command.arg(password);
    Some(command)
}
