//! Loads everything that a person has to correct when it is wrong, and says what that is.

use std::net::SocketAddr;
use std::path::Path;

use contracts::settings::{self, Settings};
use contracts::topology::{self, Topology};
use indexmap::IndexMap;

use crate::auth::Tokens;
use crate::http::Certificate;
use crate::quotas::QuotasFile;
use crate::webhooks::{self, Secrets, Source};

/// One fault, as a sentence for a person.
pub type Fault = Box<dyn std::error::Error>;

/// Everything that a person has to correct when it is wrong.
pub struct Prepared {
    pub settings: Settings,
    pub topology: Topology,
    pub sources: IndexMap<String, Source>,
    pub quotas: contracts::quotas::Quotas,
    pub tokens: Option<Tokens>,
    pub address: SocketAddr,
    /// Of the reflex's own port, if it speaks TLS.
    pub certificate: Option<Certificate>,
}

/// Loads all of it. Fails with the first fault of each part, so that one look shows what to correct.
pub fn prepare() -> Result<Prepared, Vec<Fault>> {
    // They say where everything else is.
    let settings = settings::load().map_err(|error| vec![error.into()])?;
    let mut faults = Vec::new();
    let topology = keep(&mut faults, load_topology(&settings));
    let sources = keep(&mut faults, load_sources(&settings));
    let quotas = keep(&mut faults, load_quotas(&settings));
    let address = keep(&mut faults, listen_address(&settings.reflex));
    let certificate = keep(&mut faults, load_certificate(&settings.reflex));
    let tokens = keep(&mut faults, load_tokens(&settings.reflex));
    keep(&mut faults, check_redis(&settings.redis));
    match (topology, sources, quotas, tokens, address, certificate) {
        (
            Some(topology),
            Some(sources),
            Some(quotas),
            Some(tokens),
            Some(address),
            Some(certificate),
        ) if faults.is_empty() => Ok(Prepared {
            settings,
            topology,
            sources,
            quotas,
            tokens,
            address,
            certificate,
        }),
        _ => Err(faults),
    }
}

fn keep<T>(faults: &mut Vec<Fault>, result: Result<T, Fault>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn load_topology(settings: &Settings) -> Result<Topology, Fault> {
    let schemas = settings.share_dir()?.join("schemas/events");
    Ok(topology::load(&settings.topology_path()?, &schemas)?)
}

fn load_sources(settings: &Settings) -> Result<IndexMap<String, Source>, Fault> {
    let sources = contracts::webhooks::load(&settings.webhooks_path()?)?;
    Ok(webhooks::prepare(sources, |name| std::env::var(name).ok())?)
}

fn load_quotas(settings: &Settings) -> Result<contracts::quotas::Quotas, Fault> {
    let QuotasFile { path, body_limit } = quotas_file(settings);
    match path {
        Some(path) => Ok(contracts::quotas::load(&path, body_limit)?),
        None => Ok(contracts::quotas::Quotas::default()),
    }
}

fn load_certificate(reflex: &settings::Reflex) -> Result<Option<Certificate>, Fault> {
    let (certificate, key) = (&reflex.tls_certificate_file, &reflex.tls_key_file);
    Ok(Certificate::load(certificate, key)?)
}

fn check_redis(redis: &settings::Redis) -> Result<(), Fault> {
    redis::Client::open(redis.url.as_str())
        .map(drop)
        .map_err(|_| "setting redis.url is refused: must be like redis://127.0.0.1:6379/0".into())
}

fn load_tokens(reflex: &settings::Reflex) -> Result<Option<Tokens>, Fault> {
    let file = &reflex.credentials_file;
    if file.is_empty() {
        return Ok(None);
    }
    let issuers = contracts::credentials::load(Path::new(file))?;
    Ok(Some(Tokens::new(issuers)?))
}

pub fn listen_address(reflex: &settings::Reflex) -> Result<SocketAddr, Fault> {
    let listen = reflex.listen.replace("localhost:", "127.0.0.1:");
    listen.parse().map_err(|_| {
        "setting reflex.listen is refused: must be an IP address and a port, like 127.0.0.1:8080"
            .into()
    })
}

/// Returns where the quotas are.
#[must_use]
pub fn quotas_file(settings: &Settings) -> QuotasFile {
    QuotasFile {
        path: settings.quotas_path(),
        body_limit: settings.reflex.body_limit_bytes,
    }
}

/// The sources without a secret, each with where one is expected.
pub fn disabled(sources: &IndexMap<String, Source>) -> impl Iterator<Item = (&str, &str)> {
    sources
        .iter()
        .filter_map(|(name, source)| match &source.secrets {
            Secrets::NotConfigured(expected) => Some((name.as_str(), expected.as_str())),
            Secrets::Keys(_) => None,
        })
}
