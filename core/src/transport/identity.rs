//! Who we are, and the proof of it for one connection. The same for every protocol.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(any(feature = "amqp", feature = "http"))]
use crate::auth::TokenSource;
use crate::{
    Error, ErrorKind, Result,
    auth::{ConnectionString, Renewal},
    wire::user_name,
};

/// What the hub's operator sees of us.
pub(super) const AGENT: &str = concat!("whimbrel/", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
pub(super) struct Identity {
    pub(super) connection_string: ConnectionString,
    pub(super) device_id: String,
    pub(super) token_lifetime: Duration,
}

impl Identity {
    pub(super) fn new(connection_string: ConnectionString, token_lifetime: Duration) -> Result<Self> {
        let device_id = connection_string.device_id.clone().ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "device.options", "the connection string has no DeviceId")
        })?;
        Ok(Self { connection_string, device_id, token_lifetime })
    }

    pub(super) fn host_name(&self) -> &str {
        &self.connection_string.host_name
    }

    pub(super) fn module_id(&self) -> Option<&str> {
        self.connection_string.module_id.as_deref()
    }

    /// `device` or `device/module`.
    pub(super) fn client_id(&self) -> String {
        user_name::client_id(&self.device_id, self.module_id()).into_owned()
    }

    /// What makes our tokens; none with a certificate.
    #[cfg(any(feature = "amqp", feature = "http"))]
    pub(super) fn token_source(&self) -> Option<TokenSource> {
        self.connection_string.token_source(self.token_lifetime)
    }

    /// The password of a connection made `now`, and how long until it has to be renewed, where it can be; empty with a
    /// certificate.
    pub(super) fn password(&self, now: SystemTime) -> Result<(String, Option<Duration>)> {
        let Some(source) = self.connection_string.token_source(self.token_lifetime) else {
            return Ok((String::new(), None));
        };
        let token = source.token(now, chance()?);
        Ok((token.text, token.renewal.map(|renewal| renewal.wait(now))))
    }

    /// How long until what was signed `now` has to be renewed.
    pub(super) fn renew_in(&self, now: SystemTime) -> Result<Duration> {
        Ok(Renewal::new(now, self.token_lifetime, chance()?).wait(now))
    }
}

/// Anything from 0 to 1.
pub(crate) fn chance() -> Result<f64> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(ErrorKind::Internal, "device.connect", "the system has no randomness to give")
            .caused_by(error)
    })?;
    Ok(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

/// Milliseconds since 1970-01-01Z.
pub(super) fn unix_millis(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}
