//! The certificate of the reflex's own port: loaded at the start, and again when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::ServerConfig;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// A certificate or key that cannot be used. The message names the setting, never the content.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("setting reflex.{setting} is refused: {path} cannot be read ({source})")]
    Unreadable {
        setting: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("setting reflex.{setting} is refused: {path} has no {expected} in PEM")]
    NotPem {
        setting: &'static str,
        path: PathBuf,
        expected: &'static str,
    },
    #[error(
        "the settings reflex.tls_certificate_file and reflex.tls_key_file are refused: {0}; name a \
         certificate, followed by those that sign it, and its own private key"
    )]
    Unusable(rustls::Error),
    #[error(
        "reflex.tls_certificate_file and reflex.tls_key_file belong together: set both, or none"
    )]
    OneOfTwo,
}

/// The content of both files.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate that new connections get.
pub struct Certificate {
    /// The file of the certificate and those that sign it.
    chain: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Certificate {
    /// Loads the files that the settings name; `None` if they name none.
    pub fn load(certificate: &str, key: &str) -> Result<Option<Self>, CertificateError> {
        if certificate.is_empty() && key.is_empty() {
            return Ok(None);
        }
        if certificate.is_empty() || key.is_empty() {
            return Err(CertificateError::OneOfTwo);
        }
        let (chain, key) = (PathBuf::from(certificate), PathBuf::from(key));
        let config = config(&read(&chain, &key)?, &chain, &key)?;
        Ok(Some(Self {
            chain,
            key,
            current: RwLock::new(Arc::new(config)),
        }))
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads the files again whenever they change. Files that cannot be used are reported once, and the last certificate stays.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut seen = None;
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let (chain, key) = (self.chain.clone(), self.key.clone());
            let read = tokio::task::spawn_blocking(move || read(&chain, &key)).await;
            let Ok(Ok(files)) = read else {
                // They are being replaced, or gone: the next look shows it.
                continue;
            };
            if seen.as_ref() == Some(&files) {
                continue;
            }
            let is_first = seen.is_none();
            match config(&files, &self.chain, &self.key) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) =
                        Arc::new(config);
                    if !is_first {
                        tracing::info!("loaded the certificate again");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the new certificate cannot be used; the last one stays");
                }
            }
            seen = Some(files);
        }
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Files, CertificateError> {
    let read = |setting, path: &Path| {
        std::fs::read(path).map_err(|source| CertificateError::Unreadable {
            setting,
            path: path.to_owned(),
            source,
        })
    };
    Ok(Files {
        certificate: read("tls_certificate_file", certificate)?,
        key: read("tls_key_file", key)?,
    })
}

fn config(files: &Files, certificate: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    let not_pem = |setting, path: &Path, expected| CertificateError::NotPem {
        setting,
        path: path.to_owned(),
        expected,
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&files.certificate).collect();
    let chain = chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| not_pem("tls_certificate_file", certificate, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|_| not_pem("tls_key_file", key, "private key"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(CertificateError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
