//! Client certificates: thumbprints, and chains to a CA the hub was given. The TLS handshake has proven before that the
//! client holds the private key of the first certificate.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use whimbrel::{Error, ErrorKind, Result};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::refused;

/// The CAs that may sign for devices.
pub(super) struct Authorities(Vec<TrustAnchor<'static>>);

impl Authorities {
    /// From CA certificates.
    ///
    /// # Errors
    /// `InvalidArgument` when one cannot be read.
    pub(super) fn new(certificates: &[CertificateDer<'_>]) -> Result<Self> {
        let anchor = |certificate| {
            webpki::anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned()).map_err(|error| {
                let text = "a certificate of the CAs for devices cannot be read";
                Error::new(ErrorKind::InvalidArgument, "access.authorities", text).caused_by(error)
            })
        };
        Ok(Self(certificates.iter().map(anchor).collect::<Result<_>>()?))
    }

    /// Checks that the chain leads from its first certificate to a CA, and that nothing in it is out of its time.
    pub(super) fn check(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<()> {
        let (leaf, others) = split(chain)?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let leaf = EndEntityCert::try_from(leaf).map_err(unreadable)?;
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.0,
            others,
            UnixTime::since_unix_epoch(since),
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map(drop)
        .map_err(|error| {
            refused("the certificate does not lead to a CA that this hub was given").caused_by(error)
        })
    }
}

/// Checks that the first certificate has one of the thumbprints (upper-case hexadecimal digits), and its time.
pub(super) fn check_thumbprint(chain: &[CertificateDer<'_>], wanted: &[&str], now: SystemTime) -> Result<()> {
    let (leaf, _) = split(chain)?;
    let hash = |algorithm| hexadecimal(algorithm, leaf);
    let matches = |wanted: &&str| match wanted.len() {
        40 => hash(&SHA1_FOR_LEGACY_USE_ONLY) == **wanted,
        64 => hash(&SHA256) == **wanted,
        _ => false,
    };
    if !wanted.iter().any(matches) {
        return Err(
            refused("the certificate has neither of the device's thumbprints").with("sha256", hash(&SHA256))
        );
    }
    let leaf = parse(leaf)?;
    let validity = leaf.validity();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(since).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
        return Err(refused("the certificate is not valid at this time"));
    }
    Ok(())
}

/// The common name of the first certificate.
pub(super) fn common_name(chain: &[CertificateDer<'_>]) -> Result<String> {
    let (leaf, _) = split(chain)?;
    let leaf = parse(leaf)?;
    let name = leaf.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.map(str::to_owned).ok_or_else(|| refused("the certificate has no common name"))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    X509Certificate::from_der(certificate).map(|(_, certificate)| certificate).map_err(unreadable)
}

fn split<'a, 'c>(
    chain: &'a [CertificateDer<'c>],
) -> Result<(&'a CertificateDer<'c>, &'a [CertificateDer<'c>])> {
    chain.split_first().ok_or_else(|| refused("no certificate was presented"))
}

fn unreadable(error: impl std::error::Error) -> Error {
    refused("the certificate cannot be read").caused_by(error.to_string())
}

fn hexadecimal(algorithm: &'static Algorithm, data: &[u8]) -> String {
    let mut text = String::new();
    for byte in digest(algorithm, data).as_ref() {
        let _ = write!(text, "{byte:02X}");
    }
    text
}
