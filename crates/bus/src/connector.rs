//! Opens connections to the server of the setting `redis.url`, with or without TLS, and logs in.

use std::path::Path;
use std::time::Duration;

use contracts::settings;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, TlsCertificates,
};

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

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
    /// Fails only on a URL or a file of certificates that cannot be used.
    pub(crate) fn new(settings: &settings::Redis) -> Result<Self, RedisError> {
        let mut target = settings.url.as_str().into_connection_info()?;
        let open = opener(&target.addr, &settings.ca_file)?;
        let client = open(target.clone())?;
        let login = std::mem::take(&mut target.redis);
        Ok(Self {
            client,
            anonymous: open(target)?,
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

type Open = Box<dyn Fn(ConnectionInfo) -> Result<Client, RedisError>>;

/// What makes a client for this address. `ca_file`: certificates (PEM) that sign the server's; empty: the system's.
fn opener(address: &ConnectionAddr, ca_file: &str) -> Result<Open, RedisError> {
    if !matches!(address, ConnectionAddr::TcpTls { .. }) {
        return Ok(Box::new(Client::open::<ConnectionInfo>));
    }
    // Fails only where another client of this process has done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root_cert = if ca_file.is_empty() {
        None
    } else {
        Some(read_certificates(Path::new(ca_file))?)
    };
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert,
    };
    Ok(Box::new(move |target| {
        Client::build_with_tls(target, certificates.clone())
    }))
}

fn read_certificates(file: &Path) -> Result<Vec<u8>, RedisError> {
    let unusable = |why: String| {
        let detail = format!("{} {why}", file.display());
        RedisError::from((
            ErrorKind::InvalidClientConfig,
            "redis.ca_file cannot be used",
            detail,
        ))
    };
    let pem = std::fs::read(file).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    // The client library takes a file without certificates for one that trusts nobody.
    if pem.windows(BEGIN.len()).any(|part| part == BEGIN) {
        return Ok(pem);
    }
    Err(unusable("holds no certificate in PEM".to_owned()))
}
