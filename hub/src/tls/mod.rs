//! TLS of every listener: which certificate the hub shows, and how client certificates come in.
//!
//! rustls with the ring provider, TLS 1.2 and later. A client certificate is asked for and never required; whether a
//! chain means anything is decided by [`Access`](crate::access::Access), with the device in hand.

mod authority;
mod clients;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use whimbrel::{Error, ErrorKind, Result};

use crate::config::Config;
use authority::Authority;
use clients::AnyClient;

/// Where the certificate comes from, and the configuration of the listeners that show it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    origin: Arc<Origin>,
    shown: Arc<Shown>,
}

/// Where certificate and key come from.
enum Origin {
    /// Files the operator looks after.
    Files { certificate: PathBuf, key: PathBuf },
    /// Our own authority, in this folder or in memory, for these names.
    Own { authority: Box<Authority>, names: Vec<String> },
}

impl Tls {
    /// Loads what the settings name, or makes (and keeps below `folder`, when there is one) an authority and a
    /// certificate of its own. Blocking.
    ///
    /// # Errors
    /// `InvalidArgument` when given files cannot be used; `JournalIo` when our own cannot be written.
    pub(crate) fn open(config: &Config, folder: Option<&Path>, now: SystemTime) -> Result<Self> {
        let origin = match (&config.tls_certificate, &config.tls_key) {
            (Some(certificate), Some(key)) => {
                Origin::Files { certificate: certificate.clone(), key: key.clone() }
            }
            _ => Origin::Own { authority: Box::new(Authority::open(folder, now)?), names: names(config) },
        };
        let first = origin.load(now)?;
        Ok(Self { origin: Arc::new(origin), shown: Arc::new(Shown(RwLock::new(first))) })
    }

    /// Looks again: renews our own certificate when its end is near, and takes over files that were replaced.
    /// Connections that are open keep what they have. Blocking.
    ///
    /// # Errors
    /// As [`Tls::open`]; the certificate shown so far stays in use.
    pub(crate) fn refresh(&self, now: SystemTime) -> Result<()> {
        let fresh = self.origin.load(now)?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// The certificate of our own authority that clients have to trust, as PEM, and where it is kept. `None` when the
    /// operator brought a certificate.
    pub(crate) fn authority(&self) -> Option<(&str, Option<PathBuf>)> {
        match &*self.origin {
            Origin::Own { authority, .. } => Some((authority.pem(), authority.path())),
            Origin::Files { .. } => None,
        }
    }

    /// The configuration of a listener that speaks `protocols` (ALPN; none: whatever the client says).
    ///
    /// # Errors
    /// `Internal` when ring lacks what TLS needs.
    pub(crate) fn server(&self, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "hub.tls", "TLS is not available").caused_by(error)
            })?
            .with_client_cert_verifier(Arc::new(AnyClient::new(provider())))
            .with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // A fleet that comes back resumes with a ticket: no signature, and nothing kept here per device.
        if let Ok(ticketer) = rustls::crypto::ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Origin {
    fn load(&self, now: SystemTime) -> Result<Arc<CertifiedKey>> {
        match self {
            Self::Files { certificate, key } => {
                let text = |path: &Path| {
                    std::fs::read(path).map_err(|error| unusable("cannot be read", path).caused_by(error))
                };
                certified(&text(certificate)?, &text(key)?)
                    .map_err(|problem| unusable("cannot be used", certificate).caused_by(problem))
            }
            Self::Own { authority, names } => {
                let (certificate, key) = authority.server_certificate(names, now)?;
                certified(certificate.as_bytes(), key.as_bytes()).map_err(|problem| {
                    Error::new(ErrorKind::Internal, "hub.tls", "our own certificate cannot be used")
                        .caused_by(problem)
                })
            }
        }
    }
}

/// The certificate shown in handshakes from now on.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The certificates of a PEM text.
///
/// # Errors
/// `InvalidArgument` when it holds none.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(path).map_err(|error| unusable("cannot be read", path).caused_by(error))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable("is not PEM", path).caused_by(error))?;
    if chain.is_empty() { Err(unusable("holds no certificate", path)) } else { Ok(chain) }
}

fn certified(
    certificate: &[u8],
    key: &[u8],
) -> Result<Arc<CertifiedKey>, Box<dyn std::error::Error + Send + Sync>> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
}

/// Names our own certificate is good for.
fn names(config: &Config) -> Vec<String> {
    let mut names =
        vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), config.host_name.clone()];
    names.extend(gethostname::gethostname().into_string());
    let listeners = [config.mqtts, config.https];
    let addresses =
        listeners.iter().filter_map(|listen| listen.address()).map(|address: SocketAddr| address.ip());
    names.extend(addresses.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
    names.iter_mut().for_each(|name| name.make_ascii_lowercase());
    names.retain(|name| rustls_pki_types::ServerName::try_from(name.as_str()).is_ok());
    names.sort_unstable();
    names.dedup();
    names
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(what: &str, path: &Path) -> Error {
    Error::new(ErrorKind::InvalidArgument, "hub.tls", format!("{} {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
    use rustls_pki_types::ServerName;

    use super::*;

    type ClientCertificate = Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>;

    /// Shakes hands in memory; returns what the server learned of the client.
    fn handshake(
        server: Arc<ServerConfig>,
        roots: &[CertificateDer<'static>],
        name: &str,
        client_certificate: ClientCertificate,
    ) -> Result<Option<Vec<CertificateDer<'static>>>, rustls::Error> {
        handshake_in(rustls::DEFAULT_VERSIONS, server, roots, name, client_certificate)
    }

    fn handshake_in(
        versions: &[&'static rustls::SupportedProtocolVersion],
        server: Arc<ServerConfig>,
        roots: &[CertificateDer<'static>],
        name: &str,
        client_certificate: ClientCertificate,
    ) -> Result<Option<Vec<CertificateDer<'static>>>, rustls::Error> {
        let mut store = RootCertStore::empty();
        roots.iter().for_each(|root| store.add(root.clone()).unwrap());
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(store);
        let config = match client_certificate {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let mut client =
            ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(server.peer_certificates().map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect()))
    }

    fn root(tls: &Tls) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(tls.authority().unwrap().0.as_bytes()).unwrap()
    }

    #[test]
    fn our_own_certificate_is_trusted_under_every_name_of_this_machine() {
        let mut config = Config::default();
        config.set("host-name", "Hub.Example").unwrap();
        config.set("mqtts", "127.0.0.9:8883").unwrap();
        let tls = Tls::open(&config, None, SystemTime::now()).unwrap();
        for name in ["localhost", "127.0.0.1", "::1", "hub.example", "127.0.0.9"] {
            handshake(tls.server(&[]).unwrap(), &[root(&tls)], name, None).unwrap();
        }
        handshake(tls.server(&[]).unwrap(), &[root(&tls)], "other.example", None).unwrap_err();
        let other = Tls::open(&config, None, SystemTime::now()).unwrap();
        handshake(tls.server(&[]).unwrap(), &[root(&other)], "localhost", None).unwrap_err();
    }

    #[test]
    fn any_client_certificate_comes_in_and_none_is_fine_too() {
        let tls = Tls::open(&Config::default(), None, SystemTime::now()).unwrap();
        let server = tls.server(&[]).unwrap();
        assert_eq!(handshake(Arc::clone(&server), &[root(&tls)], "localhost", None).unwrap(), None);

        let signed = rcgen::generate_simple_self_signed(["d1".to_owned()]).unwrap();
        let key = || PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let chain = vec![signed.cert.der().clone()];
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let shown = Some((chain.clone(), key()));
            let seen =
                handshake_in(&[version], Arc::clone(&server), &[root(&tls)], "localhost", shown).unwrap();
            assert_eq!(seen.as_ref(), Some(&chain), "{version:?}");
        }
    }

    #[test]
    fn files_are_kept_private_and_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let first = Tls::open(&Config::default(), Some(folder.path()), now).unwrap();
        let again = Tls::open(&Config::default(), Some(folder.path()), now).unwrap();
        assert_eq!(first.authority().unwrap(), again.authority().unwrap());
        assert_eq!(*first.shown.0.read().unwrap().cert, *again.shown.0.read().unwrap().cert);
        assert!(first.authority().unwrap().1.unwrap().exists());
        #[cfg(unix)]
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            use std::os::unix::fs::PermissionsExt;
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let mode = path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(text.contains("PRIVATE"), mode == 0o600, "{} {mode:o}", path.display());
        }
    }

    #[test]
    fn the_certificate_is_renewed_before_its_end_and_when_names_change() {
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let day = Duration::from_secs(86_400);
        let shown = |tls: &Tls| tls.shown.0.read().unwrap().cert.clone();
        let tls = Tls::open(&Config::default(), Some(folder.path()), start).unwrap();
        let first = shown(&tls);
        tls.refresh(start + 300 * day).unwrap();
        assert_eq!(shown(&tls), first);
        tls.refresh(start + 340 * day).unwrap();
        assert_ne!(shown(&tls), first);

        let named = shown(&tls);
        let mut config = Config::default();
        config.set("host-name", "new.example").unwrap();
        let renamed = Tls::open(&config, Some(folder.path()), start + 340 * day).unwrap();
        assert_ne!(shown(&renamed), named);
        assert_eq!(
            renamed.authority().unwrap().0,
            tls.authority().unwrap().0,
            "clients trust this one already"
        );
    }

    #[test]
    fn an_authority_near_its_end_or_damaged_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let pem = |tls: &Tls| tls.authority().unwrap().0.to_owned();
        let first = pem(&Tls::open(&Config::default(), Some(folder.path()), start).unwrap());
        std::fs::write(folder.path().join("ca-key.pem"), "garbage").unwrap();
        let second = Tls::open(&Config::default(), Some(folder.path()), start).unwrap();
        assert_ne!(pem(&second), first);
        handshake(second.server(&[]).unwrap(), &[root(&second)], "localhost", None).unwrap();
        let later = start + Duration::from_secs(10 * 365 * 86_400);
        let third = Tls::open(&Config::default(), Some(folder.path()), later).unwrap();
        assert_ne!(pem(&third), pem(&second));
    }

    #[test]
    fn files_of_the_operator_are_used_and_taken_over_when_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let write = || {
            let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(&certificate, signed.cert.pem()).unwrap();
            std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
            signed.cert.der().clone()
        };
        let mut config = Config::default();
        config.set("tls-certificate", certificate.to_str().unwrap()).unwrap();
        config.set("tls-key", key.to_str().unwrap()).unwrap();
        assert!(Tls::open(&config, None, SystemTime::now()).unwrap_err().message().contains("c.pem"));

        let first = write();
        let tls = Tls::open(&config, None, SystemTime::now()).unwrap();
        assert!(tls.authority().is_none());
        handshake(tls.server(&[]).unwrap(), &[first], "localhost", None).unwrap();
        let second = write();
        tls.refresh(SystemTime::now()).unwrap();
        handshake(tls.server(&[]).unwrap(), std::slice::from_ref(&second), "localhost", None).unwrap();
        std::fs::write(&key, "garbage").unwrap();
        tls.refresh(SystemTime::now()).unwrap_err();
        handshake(tls.server(&[]).unwrap(), &[second], "localhost", None).unwrap();
    }
}
