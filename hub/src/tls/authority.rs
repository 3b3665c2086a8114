//! The hub's own certificate authority, for development and for closed networks: clients trust its one certificate.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use whimbrel::{Error, ErrorKind, Result};
use x509_parser::{
    extensions::GeneralName,
    pem::Pem,
    prelude::{ASN1Time, X509Certificate},
};

use crate::files;

const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
const SERVER_LIFE: Duration = DAY.saturating_mul(365);
/// A certificate this near to its end is replaced.
const RENEW_BEFORE: Duration = DAY.saturating_mul(30);
/// Certificates begin this long ago, for clients whose clock is slow.
const BACKDATED: Duration = DAY;

/// Signs server certificates.
pub(super) struct Authority {
    folder: Option<PathBuf>,
    certificate: String,
    key: KeyPair,
}

impl Authority {
    /// The authority kept in `folder`, or a new one when there is none, it cannot be read, or its end is near. Without
    /// a folder: a new one that lives in memory.
    ///
    /// # Errors
    /// `JournalIo` when it cannot be written.
    pub(super) fn open(folder: Option<&Path>, now: SystemTime) -> Result<Self> {
        if let Some(kept) = folder.and_then(|folder| Self::read(folder, now)) {
            return Ok(kept);
        }
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(defect)?;
        // A name of its own keeps authorities of several hubs apart in a trust store.
        let tag: String =
            key.public_key_raw().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("Whimbrel development CA {tag}"));
        period(&mut params, now, AUTHORITY_LIFE);
        let certificate = params.self_signed(&key).map_err(defect)?.pem();
        if let Some(folder) = folder {
            files::create_folder(folder)?;
            files::write_private(&folder.join("ca-key.pem"), key.serialize_pem().as_bytes())?;
            files::write_public(&folder.join("ca.pem"), certificate.as_bytes())?;
        }
        Ok(Self { folder: folder.map(Path::to_path_buf), certificate, key })
    }

    /// Certificate, as PEM.
    pub(super) fn pem(&self) -> &str {
        &self.certificate
    }

    /// Where the certificate is kept.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.folder.as_deref().map(|folder| folder.join("ca.pem"))
    }

    /// A certificate for `names` (sorted) and its key, as PEM: the one kept, or a new one when the names differ, its
    /// end is near, or another authority signed it.
    ///
    /// # Errors
    /// `JournalIo` when it cannot be written.
    pub(super) fn server_certificate(&self, names: &[String], now: SystemTime) -> Result<(String, String)> {
        if let Some(kept) = self.folder.as_deref().and_then(|folder| self.read_server(folder, names, now)) {
            return Ok(kept);
        }
        let mut params = CertificateParams::new(names.to_vec()).map_err(defect)?;
        params.distinguished_name.push(DnType::CommonName, "Whimbrel hub");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        period(&mut params, now, SERVER_LIFE);
        let key = KeyPair::generate().map_err(defect)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, &self.key).map_err(defect)?;
        let certificate = params.signed_by(&key, &issuer).map_err(defect)?.pem();
        let key = key.serialize_pem();
        if let Some(folder) = &self.folder {
            files::write_private(&folder.join("server-key.pem"), key.as_bytes())?;
            files::write_public(&folder.join("server.pem"), certificate.as_bytes())?;
        }
        Ok((certificate, key))
    }

    fn read(folder: &Path, now: SystemTime) -> Option<Self> {
        let certificate = std::fs::read_to_string(folder.join("ca.pem")).ok()?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(folder.join("ca-key.pem")).ok()?).ok()?;
        let fine = inspect(&certificate, |ca| {
            lasts(ca, now) && ca.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
        });
        fine.then(|| Self { folder: Some(folder.to_path_buf()), certificate, key })
    }

    fn read_server(&self, folder: &Path, names: &[String], now: SystemTime) -> Option<(String, String)> {
        let certificate = std::fs::read_to_string(folder.join("server.pem")).ok()?;
        let text = std::fs::read_to_string(folder.join("server-key.pem")).ok()?;
        let key = KeyPair::from_pem(&text).ok()?;
        let fine = inspect(&self.certificate, |ca| {
            inspect(&certificate, |server| {
                lasts(server, now)
                    && server.verify_signature(Some(ca.public_key())).is_ok()
                    && server.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
                    && names_of(server) == names
            })
        });
        fine.then_some((certificate, text))
    }
}

/// Whether the first certificate of a PEM text is as `check` wants it.
fn inspect(pem: &str, check: impl FnOnce(&X509Certificate<'_>) -> bool) -> bool {
    let Some(Ok(pem)) = Pem::iter_from_buffer(pem.as_bytes()).next() else { return false };
    pem.parse_x509().is_ok_and(|certificate| check(&certificate))
}

/// Whether a certificate has begun and is good for a while.
fn lasts(certificate: &X509Certificate<'_>, now: SystemTime) -> bool {
    let at = |time: SystemTime| {
        let seconds =
            time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok());
        seconds.and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
    };
    [now, now + RENEW_BEFORE]
        .into_iter()
        .all(|time| at(time).is_some_and(|t| certificate.validity().is_valid_at(t)))
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let mut names: Vec<String> = extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            },
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names
}

fn period(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + life).into();
}

fn defect(error: rcgen::Error) -> Error {
    Error::new(ErrorKind::Internal, "hub.tls", "a certificate could not be made").caused_by(error)
}
