//! AMQP 1.0.
//!
//! The types are those of the AMQP crate; a device's connection is ours, for the same reasons as on MQTT
//! (`docs/adr/0007-own-mqtt-connection.md`): outcomes map exactly to messages, everything that is ready goes out in one
//! write, and driving it can be cancelled at any point. The crate's own connection says nothing about the answer to a
//! settlement, so that a lost lock could not be told.
#![cfg_attr(
    not(feature = "service"),
    allow(dead_code, unused_imports, reason = "some of it is for the service client")
)]

mod cbs;
mod connection;
mod door;
mod fault;
mod frame;
mod session;

use std::time::Duration;

pub(crate) use cbs::Cbs;
pub use connection::AmqpConnection;
use connection::Tokens;
pub(crate) use door::{Door, Sasl};
pub(crate) use fault::{Fault, condition, told};
use session::Terms;

use super::{
    CommandSupport, Greeting, Offer, Transport,
    endpoint::{Endpoint, Proxy},
    identity::Identity,
    socket::{Route, Upgrade, unreachable},
};
use crate::{Result, auth::ConnectionString, wire::percent};

/// What an [`AmqpTransport`] needs to know.
#[derive(Clone, Debug)]
pub struct AmqpOptions {
    /// Who we are, to which hub.
    pub connection_string: ConnectionString,
    /// Where to connect.
    pub endpoint: Endpoint,
    /// Through which proxy.
    pub proxy: Option<Proxy>,
    /// Whom to trust; needed where the endpoint is encrypted.
    pub tls: Option<super::tls::TlsConfig>,
    /// Longest silence; the server is told to say something twice in that time.
    pub keep_alive: Duration,
    /// Longest wait for a connection, from the first packet until messages can be sent.
    pub connect_timeout: Duration,
    /// How long a token is valid that is made from a key.
    pub token_lifetime: Duration,
}

/// Connects to a hub by AMQP. With a key or token: SASL ANONYMOUS, then the token put to `$cbs` and renewed on the open
/// connection. With a client certificate: SASL EXTERNAL.
#[derive(Debug)]
pub struct AmqpTransport {
    identity: Identity,
    door: Door,
    connect_timeout: Duration,
}

impl AmqpTransport {
    /// A transport; nothing is opened yet.
    ///
    /// # Errors
    /// `InvalidArgument` when the connection string names no device.
    pub fn new(options: AmqpOptions) -> Result<Self> {
        let identity = Identity::new(options.connection_string, options.token_lifetime)?;
        let by_token = identity.token_source().is_some();
        let route = Route {
            endpoint: options.endpoint,
            proxy: options.proxy,
            tls: options.tls,
            upgrade: Upgrade::AMQP,
        };
        let door = Door {
            route,
            host_name: identity.host_name().to_owned(),
            sasl: if by_token { Sasl::Anonymous } else { Sasl::External },
            keep_alive: options.keep_alive,
        };
        Ok(Self { identity, door, connect_timeout: options.connect_timeout })
    }

    async fn attempt(&self) -> Result<AmqpConnection> {
        let stream = self.door.stream().await?;
        let source = self.identity.token_source();
        let half = self.door.keep_alive / 2;
        let terms = Terms {
            container_id: self.identity.client_id(),
            host_name: self.identity.host_name().to_owned(),
            device_id: self.identity.device_id.clone(),
            module_id: self.identity.module_id().map(str::to_owned),
            idle_time_out: u32::try_from(half.as_millis()).unwrap_or(u32::MAX),
            by_token: source.is_some(),
        };
        let tokens = source.map(|source| Tokens::new(source, self.audience()));
        AmqpConnection::open(stream, terms, tokens, self.door.keep_alive).await
    }

    /// What tokens are put for: `{hub}/devices/{id}`, ids percent-encoded.
    fn audience(&self) -> String {
        let device = percent::encoded(&self.identity.device_id);
        let mut audience = format!("{}/devices/{device}", self.identity.host_name());
        if let Some(module) = self.identity.module_id() {
            audience.push_str("/modules/");
            percent::encode(module, &mut audience);
        }
        audience
    }
}

impl Transport for AmqpTransport {
    type Connection = AmqpConnection;

    async fn connect(&self, _: Offer) -> Result<(AmqpConnection, Greeting)> {
        let connection = tokio::time::timeout(self.connect_timeout, self.attempt())
            .await
            .unwrap_or_else(|_| Err(unreachable("the server did not let us in in time")))?;
        // How many messages the hub takes is said by its link credit, which the connection keeps to by itself; and tokens
        // are renewed on the connection, so that it never has to be made anew for that.
        let commands = CommandSupport { abandon_and_reject: true, answers: true };
        Ok((connection, Greeting { receive_maximum: u16::MAX, renew_in: None, commands }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_for_the_device_with_its_id_encoded() {
        for (text, audience) in [
            ("HostName=h.example;DeviceId=d#1;SharedAccessKey=c2VjcmV0", "h.example/devices/d%231"),
            ("HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=c2VjcmV0", "h/devices/d/modules/m"),
        ] {
            let options = AmqpOptions {
                connection_string: text.parse().unwrap(),
                endpoint: "amqp://127.0.0.1".parse().unwrap(),
                proxy: None,
                tls: None,
                keep_alive: Duration::from_secs(60),
                connect_timeout: Duration::from_secs(20),
                token_lifetime: Duration::from_secs(3600),
            };
            let transport = AmqpTransport::new(options).unwrap();
            assert_eq!(transport.audience(), audience);
            assert_eq!(transport.door.sasl, Sasl::Anonymous);
        }
    }
}
