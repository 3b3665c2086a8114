//! How to open a [`DeviceClient`](super::DeviceClient).

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use zeroize::Zeroizing;

use super::task::Habits;
use crate::{
    Durability, Error, ErrorKind, Overflow, Result,
    auth::{ConnectionString, Credential, DEFAULT_TOKEN_LIFETIME},
    delivery::{Backoff, DeliveryOptions},
    inbox,
    outbox::{Outbox, OutboxOptions, Storage},
    transport::{
        Protocol,
        endpoint::{Endpoint, Scheme},
        mqtt::MqttOptions,
    },
};

/// How to open a [`DeviceClient`](super::DeviceClient). What is not given has its default in the core, in one place.
///
/// Options are checked when the client is opened. `Debug` shows no secrets.
#[derive(Clone)]
pub struct DeviceOptions {
    connection_string: ConnectionString,
    storage: Option<Storage>,
    outbox: OutboxOptions,
    server: Option<String>,
    websocket: bool,
    proxy: Option<Zeroizing<String>>,
    ca: Option<Pem>,
    client_certificate: Option<(Pem, Pem)>,
    unencrypted: bool,
    protocol: Protocol,
    keep_alive: Duration,
    connect_timeout: Duration,
    delivery: DeliveryOptions,
    inbox_window: u16,
    close_deadline: Duration,
    token_lifetime: Duration,
    poll_interval: Duration,
}

/// A PEM text, or where it is.
#[derive(Clone)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "nobody reads certificates without TLS"))]
enum Pem {
    File(PathBuf),
    Text(Zeroizing<Vec<u8>>),
}

/// What opening needs, checked and read.
pub(super) struct Plan {
    pub(super) outbox: Outbox,
    pub(super) inbox: Arc<inbox::Shared>,
    pub(super) transport: Way,
}

/// What to speak with the hub, and how.
pub(super) enum Way {
    Mqtt(MqttOptions),
    #[cfg(feature = "amqp")]
    Amqp(crate::transport::amqp::AmqpOptions),
    #[cfg(feature = "http")]
    Http(crate::transport::http::HttpOptions),
}

impl DeviceOptions {
    /// Options for the hub and device named in `connection_string`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the wrong part.
    pub fn from_connection_string(connection_string: &str) -> Result<Self> {
        Ok(Self {
            connection_string: connection_string.parse()?,
            storage: None,
            outbox: OutboxOptions::default(),
            server: None,
            websocket: false,
            proxy: None,
            ca: None,
            client_certificate: None,
            unencrypted: false,
            protocol: Protocol::default(),
            keep_alive: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(30),
            delivery: DeliveryOptions::default(),
            inbox_window: 16,
            close_deadline: Duration::from_secs(5),
            token_lifetime: DEFAULT_TOKEN_LIFETIME,
            poll_interval: Duration::from_secs(25 * 60),
        })
    }

    /// Keeps the outbox in this folder. Either this or [`DeviceOptions::outbox_in_memory`] has to be called.
    #[must_use]
    pub fn outbox_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.storage = Some(Storage::Directory(folder.into()));
        self
    }

    /// Keeps the outbox in memory only: a restart loses what was not delivered.
    #[must_use]
    pub fn outbox_in_memory(mut self) -> Self {
        self.storage = Some(Storage::Memory);
        self
    }

    /// What happens when the outbox is at its bounds. Default [`Overflow::Reject`].
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.outbox.overflow = overflow;
        self
    }

    /// What `send` waits for. Default [`Durability::OnDisk`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.outbox.durability = durability;
        self
    }

    /// Most bytes waiting in the outbox. Default 256 MiB.
    #[must_use]
    pub fn outbox_max_bytes(mut self, bytes: u64) -> Self {
        self.outbox.max_bytes = bytes;
        self
    }

    /// Most messages waiting in the outbox. Default 1,000,000.
    #[must_use]
    pub fn outbox_max_messages(mut self, messages: u64) -> Self {
        self.outbox.max_messages = messages;
        self
    }

    /// Time to live of messages that bring none. Default: they never expire.
    #[must_use]
    pub fn outbox_max_age(mut self, age: Duration) -> Self {
        self.outbox.max_age = Some(age);
        self
    }

    /// How often [`Durability::Interval`] commits. Default 1 s.
    #[must_use]
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.outbox.sync_interval = interval;
        self
    }

    /// Outcomes of past messages kept per lane, to be found by message id. Default 1,024.
    #[must_use]
    pub fn kept_outcomes(mut self, outcomes: usize) -> Self {
        self.outbox.kept_outcomes = outcomes;
        self
    }

    /// Connects to this address instead of the host in the connection string, which stays the hub's name in tokens:
    /// `mqtts://host[:port]`, `amqps://…`, `https://…` or `wss://…`. Without the `s` they are not encrypted and go to this
    /// machine only, unless [`DeviceOptions::allow_unencrypted`] is called.
    #[must_use]
    pub fn server(mut self, address: impl Into<String>) -> Self {
        self.server = Some(address.into());
        self
    }

    /// Speaks MQTT or AMQP in a WebSocket at port 443, for networks that let nothing else through.
    #[must_use]
    pub fn websocket(mut self) -> Self {
        self.websocket = true;
        self
    }

    /// Goes through an HTTP proxy: `http://[user:password@]host[:port]`, the port being 8080 unless given.
    #[must_use]
    pub fn proxy(mut self, proxy: impl Into<String>) -> Self {
        self.proxy = Some(Zeroizing::new(proxy.into()));
        self
    }

    /// Trusts the certificates in this PEM file instead of the system's roots.
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(file.into()));
        self
    }

    /// Trusts the certificates in this PEM text instead of the system's roots.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(Pem::text(pem));
        self
    }

    /// Proves who we are with this certificate chain and private key, both PEM files; for connection strings with
    /// `x509=true`.
    #[must_use]
    pub fn client_certificate(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client_certificate = Some((Pem::File(chain.into()), Pem::File(key.into())));
        self
    }

    /// As [`DeviceOptions::client_certificate`], with the PEM texts themselves.
    #[must_use]
    pub fn client_certificate_pem(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.client_certificate = Some((Pem::text(chain), Pem::text(key)));
        self
    }

    /// Allows an unencrypted connection to another machine. Everybody on the way can read and change what is sent.
    #[must_use]
    pub fn allow_unencrypted(mut self) -> Self {
        self.unencrypted = true;
        self
    }

    /// What to speak with the hub. Default [`Protocol::Auto`].
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Longest silence on the connection before it counts as lost; on MQTT's wire in whole seconds. Over HTTP the longest
    /// wait for an answer. Default 60 s, at least 100 ms.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Longest wait for a connection, name resolution and handshakes included. Default 30 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often commands are asked for over HTTP, which brings none by itself. Default 25 minutes, as Azure IoT Hub
    /// advises; at least 1 s. They are also asked for when the inbox is opened and when a connection is made.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Most messages sent and not acknowledged, 1 to 65,535; the hub may bound it further. Default 1,000. What is lost
    /// with a connection, and stored twice by hubs without de-duplication, is at most this much.
    #[must_use]
    pub fn window(mut self, messages: u16) -> Self {
        self.delivery.window = usize::from(messages);
        self
    }

    /// Most commands the hub may have delivered and not seen settled, 1 to 1,000, where the protocol can say it (on MQTT
    /// 3.1.1 the hub has its own bound). Default 16. A program that settles late wants more.
    #[must_use]
    pub fn inbox_window(mut self, commands: u16) -> Self {
        self.inbox_window = commands;
        self
    }

    /// Waits between connection attempts: anything up to `min` after the first failure, doubled with each further one,
    /// at most `max`. Default 100 ms and 60 s.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.delivery.backoff = Backoff { min, max };
        self
    }

    /// How long closing may flush. Default 5 s.
    #[must_use]
    pub fn close_deadline(mut self, deadline: Duration) -> Self {
        self.close_deadline = deadline;
        self
    }

    /// How long a token is valid that is made from a key; it is renewed at 80 to 85 % of that. Default 1 h, at least 1 s.
    #[must_use]
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token_lifetime = lifetime;
        self
    }

    /// Checks the options, reads the files, opens outbox and inbox. Blocking.
    pub(super) fn prepare(&self) -> Result<Plan> {
        let storage = self.storage.as_ref().ok_or_else(|| {
            invalid("no place for the outbox: give a folder, or choose memory aloud (a restart loses what is in it)")
        })?;
        let transport = self.transport()?;
        let outbox = Outbox::open(storage, self.outbox.clone())?;
        let inbox = match inbox::Shared::open(storage) {
            Ok(inbox) => inbox,
            Err(error) => {
                // The folder is free again when this returns.
                let _ = outbox.close();
                return Err(error);
            }
        };
        if self.connection_string.module_id.is_some() {
            let message = "modules have no commands; the hub sends them to devices";
            inbox.refuse_for_good(&Error::new(ErrorKind::Unsupported, "inbox.next", message));
        }
        Ok(Plan { outbox, inbox, transport })
    }

    pub(super) fn habits(&self) -> Habits {
        Habits {
            delivery: DeliveryOptions { keep_alive: self.keep_alive, ..self.delivery },
            inbox_window: self.inbox_window,
            close_deadline: self.close_deadline,
        }
    }

    /// Checks the options and reads the files. Blocking.
    pub(super) fn transport(&self) -> Result<Way> {
        check(self.delivery.window >= 1, "the window is 0")?;
        check((1..=1_000).contains(&self.inbox_window), "the inbox window is not 1 to 1,000")?;
        check(self.keep_alive >= Duration::from_millis(100), "the keep-alive time is under 100 ms")?;
        check(!self.connect_timeout.is_zero(), "the connect timeout is 0")?;
        check(self.poll_interval >= Duration::from_secs(1), "the poll interval is under 1 s")?;
        check(self.token_lifetime >= Duration::from_secs(1), "the token lifetime is under 1 s")?;
        check(!self.delivery.backoff.min.is_zero(), "the shortest backoff is 0")?;
        check(
            self.delivery.backoff.min <= self.delivery.backoff.max,
            "the shortest backoff is over the longest",
        )?;
        let x509 = self.connection_string.credential == Credential::X509;
        check(
            !x509 || self.client_certificate.is_some(),
            "the connection string says x509=true, but no client certificate is given",
        )?;
        let (endpoint, protocol) = self.endpoint()?;
        check(
            endpoint.scheme.is_encrypted() || endpoint.is_loopback() || self.unencrypted,
            "an unencrypted connection to another machine has to be allowed aloud",
        )?;
        check(endpoint.scheme.is_encrypted() || !x509, "a client certificate needs an encrypted connection")?;
        #[cfg(feature = "tls")]
        let tls = self.tls(&endpoint)?;
        let proxy = self.proxy.as_ref().map(|proxy| proxy.parse()).transpose()?;
        let connection_string = self.connection_string.clone();
        let (keep_alive, connect_timeout) = (self.keep_alive, self.connect_timeout);
        let token_lifetime = self.token_lifetime;
        Ok(match protocol {
            Protocol::Auto | Protocol::Mqtt3 | Protocol::Mqtt5 => Way::Mqtt(MqttOptions {
                connection_string,
                endpoint,
                proxy,
                #[cfg(feature = "tls")]
                tls,
                protocol,
                keep_alive,
                connect_timeout,
                token_lifetime,
            }),
            #[cfg(feature = "amqp")]
            Protocol::Amqp => Way::Amqp(crate::transport::amqp::AmqpOptions {
                connection_string,
                endpoint,
                proxy,
                tls,
                keep_alive,
                connect_timeout,
                token_lifetime,
            }),
            #[cfg(feature = "http")]
            Protocol::Http => Way::Http(crate::transport::http::HttpOptions {
                connection_string,
                endpoint,
                proxy,
                tls,
                keep_alive,
                connect_timeout,
                token_lifetime,
                poll_interval: self.poll_interval,
            }),
            #[cfg(not(all(feature = "amqp", feature = "http")))]
            _ => return Err(left_out(&endpoint)),
        })
    }

    /// Where to connect, and what to speak there; never `Auto` but for MQTT of whichever version.
    fn endpoint(&self) -> Result<(Endpoint, Protocol)> {
        let mut endpoint = match &self.server {
            Some(server) => server.parse()?,
            None => {
                let (host, port) = self.connection_string.address();
                let scheme = match self.protocol {
                    Protocol::Http => Scheme::Https,
                    _ if self.websocket => Scheme::Wss,
                    Protocol::Amqp => Scheme::Amqps,
                    Protocol::Auto | Protocol::Mqtt3 | Protocol::Mqtt5 => Scheme::Tls,
                };
                let usual = Endpoint::new(scheme, host);
                Endpoint { port: port.unwrap_or(usual.port), ..usual }
            }
        };
        let protocol = match (endpoint.scheme, self.protocol) {
            (Scheme::Amqp | Scheme::Amqps, Protocol::Auto | Protocol::Amqp) => Protocol::Amqp,
            (Scheme::Http | Scheme::Https, Protocol::Auto | Protocol::Http) => Protocol::Http,
            (Scheme::Tcp | Scheme::Tls, mqtt @ (Protocol::Auto | Protocol::Mqtt3 | Protocol::Mqtt5)) => mqtt,
            (Scheme::Ws | Scheme::Wss, any) if any != Protocol::Http => any,
            _ => {
                return Err(
                    invalid("the protocol is not that of the server's scheme").with("server", &endpoint)
                );
            }
        };
        if self.websocket {
            endpoint.scheme = match endpoint.scheme {
                Scheme::Tcp | Scheme::Amqp => Scheme::Ws,
                Scheme::Tls | Scheme::Amqps => Scheme::Wss,
                scheme @ (Scheme::Ws | Scheme::Wss) => scheme,
                Scheme::Http | Scheme::Https => {
                    return Err(invalid("there is no WebSocket for a device that speaks HTTP"));
                }
            };
        }
        let built_in = match endpoint.scheme {
            Scheme::Tcp => true,
            Scheme::Tls => cfg!(feature = "tls"),
            Scheme::Ws | Scheme::Wss => cfg!(feature = "websocket"),
            Scheme::Amqp | Scheme::Amqps => cfg!(feature = "amqp"),
            Scheme::Http | Scheme::Https => cfg!(feature = "http"),
        };
        if !built_in || (protocol == Protocol::Amqp && !cfg!(feature = "amqp")) {
            return Err(left_out(&endpoint));
        }
        Ok((endpoint, protocol))
    }

    #[cfg(feature = "tls")]
    fn tls(&self, endpoint: &Endpoint) -> Result<Option<crate::transport::tls::TlsConfig>> {
        use crate::transport::tls::{ClientCertificate, TlsConfig};
        if !endpoint.scheme.is_encrypted() {
            return Ok(None);
        }
        let ca = self.ca.as_ref().map(|pem| pem.read("the CA file cannot be read")).transpose()?;
        let client = match &self.client_certificate {
            None => None,
            Some((chain, key)) => Some(ClientCertificate {
                chain: chain.read("the client certificate file cannot be read")?.to_vec(),
                key: key.read("the key file cannot be read")?,
            }),
        };
        TlsConfig::new(ca.as_ref().map(|pem| pem.as_slice()), client.as_ref()).map(Some)
    }
}

impl Pem {
    fn text(pem: impl Into<Vec<u8>>) -> Self {
        Self::Text(Zeroizing::new(pem.into()))
    }

    #[cfg(feature = "tls")]
    fn read(&self, failure: &'static str) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(file) => std::fs::read(file)
                .map(Zeroizing::new)
                .map_err(|error| invalid(failure).with("file", file.display()).caused_by(error)),
        }
    }
}

fn check(holds: bool, otherwise: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(invalid(otherwise)) }
}

fn left_out(endpoint: &Endpoint) -> Error {
    let message = "this build leaves out what the server needs: see the cargo features of whimbrel";
    Error::new(ErrorKind::Unsupported, "device.open", message).with("server", endpoint)
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "device.open", message)
}

impl fmt::Debug for DeviceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceOptions")
            .field("host", &self.connection_string.host_name)
            .field("device", &self.connection_string.device_id)
            .field("storage", &self.storage)
            .field("server", &self.server)
            .field("protocol", &self.protocol)
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(hosts: &str) -> DeviceOptions {
        let text = format!("{hosts};DeviceId=d;SharedAccessKey=c2VjcmV0");
        DeviceOptions::from_connection_string(&text).unwrap()
    }

    #[test]
    fn the_connection_string_says_where_to_connect_unless_a_server_does() {
        let usual = options("HostName=hub");
        for (options, expected) in [
            (usual.clone(), "mqtts://hub:8883"),
            (usual.clone().websocket(), "wss://hub:443"),
            (options("HostName=hub:18883"), "mqtts://hub:18883"),
            (options("HostName=hub;GatewayHostName=edge"), "mqtts://edge:8883"),
            (options("HostName=hub;GatewayHostName=edge:18443").websocket(), "wss://edge:18443"),
            (options("HostName=hub:1").server("mqtt://[::1]:1883"), "mqtt://[::1]:1883"),
        ] {
            assert_eq!(options.endpoint().unwrap().0.to_string(), expected);
        }
    }

    #[cfg(all(feature = "amqp", feature = "http"))]
    #[test]
    fn the_protocol_and_the_server_go_together() {
        use Protocol::{Amqp, Auto, Http, Mqtt5};
        let usual = options("HostName=hub");
        let at = |server: &str| usual.clone().server(server);
        for (options, expected, protocol) in [
            (usual.clone().protocol(Amqp), "amqps://hub:5671", Amqp),
            (usual.clone().protocol(Http), "https://hub:443", Http),
            (usual.clone().protocol(Amqp).websocket(), "wss://hub:443", Amqp),
            (options("HostName=hub:9").protocol(Http), "https://hub:9", Http),
            (at("amqp://127.0.0.1"), "amqp://127.0.0.1:5672", Amqp),
            (at("https://edge"), "https://edge:443", Http),
            (at("http://127.0.0.1:80").protocol(Http), "http://127.0.0.1:80", Http),
            (at("ws://127.0.0.1:1").protocol(Amqp), "ws://127.0.0.1:1", Amqp),
            (at("amqp://127.0.0.1:1").websocket(), "ws://127.0.0.1:1", Amqp),
            (at("mqtt://127.0.0.1:1"), "mqtt://127.0.0.1:1", Auto),
            (at("wss://edge").protocol(Mqtt5), "wss://edge:443", Mqtt5),
        ] {
            let (endpoint, spoken) = options.endpoint().unwrap();
            assert_eq!((endpoint.to_string().as_str(), spoken), (expected, protocol));
        }
        for options in [
            at("mqtts://hub").protocol(Amqp),
            at("amqps://hub").protocol(Http),
            at("https://hub").protocol(Mqtt5),
            at("wss://hub").protocol(Http),
            at("https://hub").websocket(),
            usual.clone().protocol(Http).websocket(),
        ] {
            assert_eq!(options.endpoint().unwrap_err().kind(), ErrorKind::InvalidArgument, "{options:?}");
        }
        for server in ["amqp://hub.example", "http://hub.example", "ws://hub.example"] {
            let refused = at(server).transport().map(drop).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{server} is not encrypted");
            assert!(at(server).allow_unencrypted().transport().is_ok(), "{server}");
        }
    }

    #[test]
    fn what_the_build_leaves_out_is_named_so() {
        let usual = options("HostName=hub");
        for (options, built_in) in [
            (usual.clone().protocol(Protocol::Amqp), cfg!(feature = "amqp")),
            (usual.clone().server("amqp://127.0.0.1"), cfg!(feature = "amqp")),
            (
                usual.clone().server("ws://127.0.0.1").protocol(Protocol::Amqp),
                cfg!(all(feature = "amqp", feature = "websocket")),
            ),
            (usual.clone().protocol(Protocol::Http), cfg!(feature = "http")),
            (usual.clone().server("http://127.0.0.1"), cfg!(feature = "http")),
        ] {
            match options.endpoint() {
                Ok(_) => assert!(built_in, "{options:?}"),
                Err(error) => assert!(!built_in && error.kind() == ErrorKind::Unsupported, "{error}"),
            }
        }
    }
}
