//! MQTT 3.1.1 and 5.
//!
//! rumqttc's codec writes and reads the packets of the handshake; the connection itself is ours (why:
//! `docs/adr/0007-own-mqtt-connection.md`): packet identifiers map exactly to messages, everything that is ready goes
//! out in one write, and driving it can be cancelled at any point.

mod commands;
mod connection;
mod frame;
mod proof;
mod slots;
mod v3;
mod v5;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

pub use connection::MqttConnection;

pub use super::Protocol;

use super::{
    Greeting, Offer, Transport,
    endpoint::{Endpoint, Proxy},
    identity::{self, Identity},
    socket::{Route, Upgrade, unreachable},
};
use crate::{Error, ErrorKind, Result, auth::ConnectionString};

/// What an [`MqttTransport`] needs to know.
#[derive(Clone, Debug)]
pub struct MqttOptions {
    /// Who we are, to which hub.
    pub connection_string: ConnectionString,
    /// Where to connect.
    pub endpoint: Endpoint,
    /// Through which proxy.
    pub proxy: Option<Proxy>,
    /// Whom to trust; needed where the endpoint is encrypted.
    #[cfg(feature = "tls")]
    pub tls: Option<super::tls::TlsConfig>,
    /// Which MQTT to speak: one of the versions, or [`Protocol::Auto`].
    pub protocol: Protocol,
    /// Longest silence; half of it without a word from the server, and it is asked.
    pub keep_alive: Duration,
    /// Longest wait for a connection, from the first packet to the hub's CONNACK.
    pub connect_timeout: Duration,
    /// How long a token is valid that is made from a key.
    pub token_lifetime: Duration,
}

/// Connects to a hub by MQTT.
#[derive(Debug)]
pub struct MqttTransport {
    identity: Identity,
    route: Route,
    keep_alive: Duration,
    connect_timeout: Duration,
    version: Mutex<VersionChoice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V3,
    V5,
}

impl MqttTransport {
    /// A transport; nothing is opened yet.
    ///
    /// # Errors
    /// `InvalidArgument` when the connection string names no device, or the protocol is not MQTT.
    pub fn new(options: MqttOptions) -> Result<Self> {
        let version = match options.protocol {
            Protocol::Auto if is_azure(&options.connection_string.host_name) => Some(Version::V3),
            Protocol::Auto => None,
            Protocol::Mqtt3 => Some(Version::V3),
            Protocol::Mqtt5 => Some(Version::V5),
            Protocol::Amqp | Protocol::Http => {
                let message = "this transport speaks MQTT only";
                return Err(Error::new(ErrorKind::InvalidArgument, "device.options", message));
            }
        };
        Ok(Self {
            identity: Identity::new(options.connection_string, options.token_lifetime)?,
            route: Route {
                endpoint: options.endpoint,
                proxy: options.proxy,
                #[cfg(feature = "tls")]
                tls: options.tls,
                upgrade: Upgrade::MQTT,
            },
            keep_alive: options.keep_alive,
            connect_timeout: options.connect_timeout,
            version: Mutex::new(VersionChoice::new(version)),
        })
    }

    async fn attempt(&self, version: Version, offer: &Offer) -> Result<(MqttConnection, Greeting)> {
        let stream = self.route.open().await?;
        let now = SystemTime::now();
        let hello = match version {
            Version::V3 => v3::connect(&self.identity, offer, self.keep_alive, now)?,
            Version::V5 => v5::connect(&self.identity, offer, self.keep_alive, now)?,
        };
        MqttConnection::open(stream, hello, offer.window, self.keep_alive).await
    }
}

impl Transport for MqttTransport {
    type Connection = MqttConnection;

    async fn connect(&self, offer: Offer) -> Result<(MqttConnection, Greeting)> {
        let version = self.version.lock().unwrap_or_else(PoisonError::into_inner).next();
        let result = tokio::time::timeout(self.connect_timeout, self.attempt(version, &offer))
            .await
            .unwrap_or_else(|_| Err(unreachable("the server did not let us in in time")));
        let mut choice = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        choice.learn(version, result.as_ref().err());
        result
    }
}

/// Hosts of Azure IoT Hub, in every one of its clouds.
fn is_azure(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    ["azure-devices.net", "azure-devices.cn", "azure-devices.us", "azure-devices.de"]
        .iter()
        .any(|suffix| host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')))
}

/// What a connection attempt says when the server hung up instead of answering CONNECT.
const HUNG_UP: &str = "the server closed the connection instead of answering CONNECT";

/// Finds out what the server speaks. A clear answer is remembered; silence is not, because a cut looks the same, and
/// 3.1.1 would cost the de-duplication that only 5 has.
#[derive(Debug)]
struct VersionChoice {
    fixed: Option<Version>,
    hang_ups: u32,
}

impl VersionChoice {
    /// Hang-ups in answer to an MQTT 5 CONNECT before one 3.1.1 is tried.
    const PATIENCE: u32 = 3;

    fn new(fixed: Option<Version>) -> Self {
        Self { fixed, hang_ups: 0 }
    }

    fn next(&self) -> Version {
        match self.fixed {
            Some(version) => version,
            None if self.hang_ups >= Self::PATIENCE => Version::V3,
            None => Version::V5,
        }
    }

    fn learn(&mut self, version: Version, error: Option<&Error>) {
        if self.fixed.is_some() {
            return;
        }
        match (version, error) {
            (Version::V5, None) => self.fixed = Some(Version::V5),
            (Version::V5, Some(error)) if error.kind() == ErrorKind::Unsupported => {
                self.fixed = Some(Version::V3)
            }
            (Version::V5, Some(error)) if error.message() == HUNG_UP => self.hang_ups += 1,
            (Version::V5, Some(_)) => {}
            // Whether it worked or not, the next connection asks for 5 again.
            (Version::V3, _) => self.hang_ups = Self::PATIENCE - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azure_is_known_by_its_name() {
        for (host, azure) in [
            ("hub.azure-devices.net", true),
            ("HUB.Azure-Devices.CN", true),
            ("azure-devices.net", false),
            ("notazure-devices.net", false),
            ("hub.azure-devices.net.example", false),
        ] {
            assert_eq!(is_azure(host), azure, "{host}");
        }
    }

    #[test]
    fn a_clear_refusal_of_5_is_remembered() {
        let mut choice = VersionChoice::new(None);
        assert_eq!(choice.next(), Version::V5);
        choice.learn(Version::V5, Some(&Error::new(ErrorKind::Unsupported, "device.connect", "no")));
        assert_eq!(choice.next(), Version::V3);
        choice.learn(Version::V3, Some(&unreachable(HUNG_UP)));
        assert_eq!(choice.next(), Version::V3);
    }

    #[test]
    fn a_server_that_hangs_up_on_5_gets_3_in_the_end_but_5_again_after_it() {
        let mut choice = VersionChoice::new(None);
        for _ in 0..VersionChoice::PATIENCE {
            assert_eq!(choice.next(), Version::V5);
            choice.learn(Version::V5, Some(&unreachable(HUNG_UP)));
        }
        assert_eq!(choice.next(), Version::V3);
        choice.learn(Version::V3, None);
        assert_eq!(choice.next(), Version::V5);
        choice.learn(Version::V5, Some(&unreachable(HUNG_UP)));
        assert_eq!(choice.next(), Version::V3);
    }

    #[test]
    fn once_5_worked_nothing_leads_back_to_3() {
        let mut choice = VersionChoice::new(None);
        choice.learn(Version::V5, None);
        for _ in 0..10 {
            choice.learn(Version::V5, Some(&unreachable(HUNG_UP)));
        }
        assert_eq!(choice.next(), Version::V5);
    }
}
