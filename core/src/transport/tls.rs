//! TLS by rustls with the ring provider, never with the process's default one.

use std::sync::Arc;

use rustls::{ClientConfig, ConfigBuilder, RootCertStore, client::WantsClientCert, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::socket::unreachable;
use crate::{Error, ErrorKind, Result};

/// Whom to trust and, with X.509, who we are. Cheap to clone.
#[derive(Clone)]
pub struct TlsConfig(Arc<ClientConfig>);

/// A device's certificate chain and its private key, both PEM. `Debug` shows nothing of them.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The device's own certificate first, then its issuers.
    pub chain: Vec<u8>,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: zeroize::Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConfig(..)")
    }
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCertificate(..)")
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "device.options", message)
}

impl TlsConfig {
    /// Trusts the certificates in `ca` (PEM) and no other, or the system's roots when there is none. Reading the
    /// system's roots is blocking.
    ///
    /// # Errors
    /// `InvalidArgument` when a PEM text holds nothing usable, or the key does not fit the certificate.
    pub fn new(ca: Option<&[u8]>, client: Option<&ClientCertificate>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate =
                        certificate.map_err(|error| invalid("the CA file is not PEM").caused_by(error))?;
                    roots.add(certificate).map_err(|error| {
                        invalid("a certificate in the CA file cannot be used").caused_by(error)
                    })?;
                }
                if roots.is_empty() {
                    return Err(invalid("there is no certificate in the CA file"));
                }
            }
            None => {
                // A broken root among the system's is the system's matter; having none shows at the first handshake.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let builder = trusting(roots)?;
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = CertificateDer::pem_slice_iter(&client.chain)
                    .collect::<std::result::Result<Vec<_>, _>>()
                    .map_err(|error| invalid("the client certificate is not PEM").caused_by(error))?;
                if chain.is_empty() {
                    return Err(invalid("there is no certificate in the client certificate file"));
                }
                let key = PrivateKeyDer::from_pem_slice(&client.key)
                    .map_err(|error| invalid("there is no private key in the key file").caused_by(error))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| invalid("the client certificate cannot be used").caused_by(error))?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// Trusts nobody: for an HTTP library that wants to be set up although nothing is encrypted.
    #[cfg(feature = "http")]
    pub(crate) fn trusting_nobody() -> Result<Self> {
        Ok(Self(Arc::new(trusting(RootCertStore::empty())?.with_no_client_auth())))
    }

    /// What another TLS client, such as an HTTP library, is set up with.
    #[cfg(feature = "http")]
    pub(crate) fn client_config(&self) -> ClientConfig {
        ClientConfig::clone(&self.0)
    }

    pub(super) async fn handshake(&self, host: &str, tcp: TcpStream) -> Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| invalid("the server's name cannot be in a certificate").caused_by(error))?;
        TlsConnector::from(self.0.clone())
            .connect(name, tcp)
            .await
            .map_err(|error| unreachable(format!("the TLS handshake with {host} failed")).caused_by(error))
    }
}

fn trusting(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            Error::new(ErrorKind::Internal, "device.options", "the TLS provider lacks a protocol version")
                .caused_by(error)
        })?;
    Ok(versions.with_root_certificates(roots))
}
