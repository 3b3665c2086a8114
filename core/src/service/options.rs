//! How to make a [`ServiceClient`](super::ServiceClient).

use std::{fmt, path::PathBuf, time::Duration};

use zeroize::Zeroizing;

use super::{
    amqp::{Login, Peer},
    web::Web,
};
use crate::{
    Error, ErrorKind, Result,
    auth::{ConnectionString, Credential, DEFAULT_TOKEN_LIFETIME, Key, TokenSource},
    delivery::Backoff,
    transport::{
        Route, Upgrade,
        endpoint::{Endpoint, Proxy, Scheme},
        tls::TlsConfig,
    },
};

/// How to make a [`ServiceClient`](super::ServiceClient). What is not given has its default in the core, in one place.
///
/// Options are checked by [`ServiceClient::connect`](super::ServiceClient::connect). `Debug` shows no secrets.
#[derive(Clone)]
pub struct ServiceOptions {
    connection_string: ConnectionString,
    events: Option<String>,
    server: Option<String>,
    http_server: Option<String>,
    websocket: bool,
    proxy: Option<Zeroizing<String>>,
    ca: Option<Pem>,
    unencrypted: bool,
    connect_timeout: Duration,
    send_timeout: Duration,
    backoff: Backoff,
    token_lifetime: Duration,
    recent_outcomes: usize,
}

/// A PEM text, or where it is.
#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Text(Vec<u8>),
}

/// What the client works with, checked and read.
pub(super) struct Plan {
    pub(super) hub: Peer,
    pub(super) events: EventsPlan,
    pub(super) web: Web,
    pub(super) send_timeout: Duration,
    pub(super) backoff: Backoff,
    pub(super) recent_outcomes: usize,
}

/// How to get to the event log.
pub(super) struct EventsPlan {
    /// The hub itself, to be asked where its event log is.
    pub(super) hub: Peer,
    /// Known without asking.
    pub(super) known: Option<(Peer, String)>,
    credential: Credential,
    tls: TlsConfig,
    proxy: Option<Proxy>,
    websocket: bool,
    unencrypted: bool,
    token_lifetime: Duration,
}

impl ServiceOptions {
    /// Options for the hub and policy in `connection_string`:
    /// `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the wrong part.
    pub fn from_connection_string(connection_string: &str) -> Result<Self> {
        let connection_string: ConnectionString = connection_string.parse()?;
        let fault = if connection_string.device_id.is_some() {
            Some("this is the connection string of a device; a service needs the one of a policy")
        } else if connection_string.event_hub.is_some() {
            Some("this is the connection string of an event hub; give it as events_connection_string")
        } else {
            None
        };
        match fault {
            Some(fault) => Err(invalid(fault)),
            None => Ok(Self {
                connection_string,
                events: None,
                server: None,
                http_server: None,
                websocket: false,
                proxy: None,
                ca: None,
                unencrypted: false,
                connect_timeout: Duration::from_secs(30),
                send_timeout: Duration::from_secs(60),
                backoff: Backoff { max: Duration::from_secs(30), ..Backoff::default() },
                token_lifetime: DEFAULT_TOKEN_LIFETIME,
                recent_outcomes: 16_384,
            }),
        }
    }

    /// Reads events by this Event Hubs connection string
    /// (`Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…`) instead of asking the hub where they are.
    #[must_use]
    pub fn events_connection_string(mut self, connection_string: impl Into<String>) -> Self {
        self.events = Some(connection_string.into());
        self
    }

    /// Speaks AMQP with this address instead of the host in the connection string, which stays the hub's name in tokens:
    /// `amqps://host[:port]`, `wss://…`, `amqp://…` or `ws://…`. The last two are not encrypted and go to this machine
    /// only, unless [`ServiceOptions::allow_unencrypted`] is called.
    #[must_use]
    pub fn server(mut self, address: impl Into<String>) -> Self {
        self.server = Some(address.into());
        self
    }

    /// Speaks HTTP with this address instead of the host in the connection string: `https://host[:port]`, or `http://…`
    /// as [`ServiceOptions::server`] has it.
    #[must_use]
    pub fn http_server(mut self, address: impl Into<String>) -> Self {
        self.http_server = Some(address.into());
        self
    }

    /// Speaks AMQP in a WebSocket at port 443, for networks that let nothing else through.
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
        self.ca = Some(Pem::Text(pem.into()));
        self
    }

    /// Allows unencrypted connections to another machine. Everybody on the way can read and change what is sent, and
    /// use the tokens.
    #[must_use]
    pub fn allow_unencrypted(mut self) -> Self {
        self.unencrypted = true;
        self
    }

    /// Longest wait for a connection, name resolution and handshakes included. Default 30 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long `send` tries, over lost connections, until the hub has the command. Default 60 s.
    #[must_use]
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.send_timeout = timeout;
        self
    }

    /// Waits between connection attempts: anything up to `min` after the first failure, doubled with each further one,
    /// at most `max`. Default 100 ms and 30 s.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Backoff { min, max };
        self
    }

    /// How long a token is valid that is made from a key; it is renewed at 80 to 85 % of that, on the same connection.
    /// Default 1 h, at least 1 s.
    #[must_use]
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token_lifetime = lifetime;
        self
    }

    /// Outcomes of commands that are kept in memory although nobody has asked for them yet. Default 16,384.
    #[must_use]
    pub fn recent_outcomes(mut self, outcomes: usize) -> Self {
        self.recent_outcomes = outcomes;
        self
    }

    /// Checks the options and reads the files. Blocking.
    pub(super) fn prepare(self) -> Result<Plan> {
        check(!self.connect_timeout.is_zero(), "the connect timeout is 0")?;
        check(!self.send_timeout.is_zero(), "the send timeout is 0")?;
        check(self.token_lifetime >= Duration::from_secs(1), "the token lifetime is under 1 s")?;
        check(!self.backoff.min.is_zero(), "the shortest backoff is 0")?;
        check(self.backoff.min <= self.backoff.max, "the shortest backoff is over the longest")?;
        let ca = match &self.ca {
            None => None,
            Some(Pem::Text(text)) => Some(text.clone()),
            Some(Pem::File(file)) => Some(std::fs::read(file).map_err(|error| {
                invalid("the CA file cannot be read").with("file", file.display()).caused_by(error)
            })?),
        };
        let tls = TlsConfig::new(ca.as_deref(), None)?;
        let proxy: Option<Proxy> = self.proxy.as_ref().map(|proxy| proxy.parse()).transpose()?;
        let host = self.connection_string.host_name.clone();
        let source = |resource: &ConnectionString| {
            resource
                .token_source(self.token_lifetime)
                .ok_or_else(|| invalid("the connection string holds neither a key nor a token"))
        };
        let tokens = source(&self.connection_string)?;
        let peer = |endpoint, host: &str, login| Peer {
            route: Route { endpoint, proxy: proxy.clone(), tls: Some(tls.clone()), upgrade: Upgrade::AMQP },
            host: host.to_owned(),
            login,
            timeout: self.connect_timeout,
        };
        let endpoint = self.amqp_endpoint()?;
        let hub =
            peer(endpoint.clone(), &host, Login::Token { audience: host.clone(), tokens: tokens.clone() });
        let known = match &self.events {
            None => None,
            Some(text) => {
                let parsed: ConnectionString = text.parse()?;
                let event_hub = parsed.event_hub.as_ref().ok_or_else(|| {
                    invalid("the events connection string has no Endpoint; it is not one of an event hub")
                })?;
                let entity = event_hub.entity_path.clone().ok_or_else(|| {
                    invalid("the events connection string has no EntityPath, which names the event hub")
                })?;
                let scheme = match (event_hub.development_emulator, self.websocket) {
                    (true, _) => Scheme::Amqp,
                    (false, true) => Scheme::Wss,
                    (false, false) => Scheme::Amqps,
                };
                let usual = Endpoint::new(scheme, parsed.host_name.clone());
                let endpoint = Endpoint { port: parsed.port.unwrap_or(usual.port), ..usual };
                self.check_encrypted(&endpoint)?;
                let audience = format!("sb://{}/{entity}", parsed.host_name);
                let login = Login::Token { audience, tokens: source(&parsed)? };
                let mut known = peer(endpoint, &parsed.host_name, login);
                known.route.upgrade = Upgrade::EVENTS;
                Some((known, entity))
            }
        };
        let policy = match &self.connection_string.credential {
            Credential::Key { policy: Some(policy), .. } => Some(policy.clone()),
            _ => None,
        };
        // The event log is asked for with SASL PLAIN, as the contract has it; without a policy's name that cannot be said.
        let asks = match policy {
            None => hub.clone(),
            Some(policy) => {
                let name = host.split('.').next().unwrap_or(&host);
                let user = format!("{policy}@sas.root.{name}");
                peer(endpoint, &host, Login::Plain { user, tokens: tokens.clone() })
            }
        };
        let http = self.http_endpoint()?;
        Ok(Plan {
            web: Web::new(
                &http,
                &tls,
                self.proxy.as_ref().map(|proxy| proxy.as_str()),
                tokens,
                self.connect_timeout,
            )?,
            events: EventsPlan {
                hub: asks,
                known,
                credential: self.connection_string.credential.clone(),
                tls,
                proxy,
                websocket: self.websocket,
                unencrypted: self.unencrypted,
                token_lifetime: self.token_lifetime,
            },
            hub,
            send_timeout: self.send_timeout,
            backoff: self.backoff,
            recent_outcomes: self.recent_outcomes,
        })
    }

    fn amqp_endpoint(&self) -> Result<Endpoint> {
        let mut endpoint: Endpoint = match &self.server {
            Some(server) => server.parse()?,
            None => {
                let (host, port) = self.connection_string.address();
                let usual = Endpoint::new(if self.websocket { Scheme::Wss } else { Scheme::Amqps }, host);
                Endpoint { port: port.unwrap_or(usual.port), ..usual }
            }
        };
        if self.websocket {
            endpoint.scheme = match endpoint.scheme {
                Scheme::Amqp => Scheme::Ws,
                Scheme::Amqps => Scheme::Wss,
                scheme => scheme,
            };
        }
        if !matches!(endpoint.scheme, Scheme::Amqp | Scheme::Amqps | Scheme::Ws | Scheme::Wss) {
            return Err(
                invalid("the scheme of the server is none of amqp, amqps, ws, wss").with("server", &endpoint)
            );
        }
        self.check_encrypted(&endpoint)?;
        Ok(endpoint)
    }

    fn http_endpoint(&self) -> Result<Endpoint> {
        let endpoint: Endpoint = match &self.http_server {
            Some(server) => server.parse()?,
            None => Endpoint::new(Scheme::Https, self.connection_string.address().0),
        };
        if !matches!(endpoint.scheme, Scheme::Http | Scheme::Https) {
            return Err(
                invalid("the scheme of the HTTP server is none of http, https").with("server", &endpoint)
            );
        }
        self.check_encrypted(&endpoint)?;
        Ok(endpoint)
    }

    fn check_encrypted(&self, endpoint: &Endpoint) -> Result<()> {
        check(
            endpoint.scheme.is_encrypted() || endpoint.is_loopback() || self.unencrypted,
            "an unencrypted connection to another machine has to be allowed aloud",
        )
    }
}

impl EventsPlan {
    /// The event log the hub redirected to: at the hub itself, by whatever address leads to it, or at another host.
    pub(super) fn redirected(&self, host: &str, port: Option<u16>, entity: &str) -> Result<Peer> {
        let (endpoint, upgrade) = if host.eq_ignore_ascii_case(&self.hub.host) {
            (self.hub.route.endpoint.clone(), self.hub.route.upgrade)
        } else {
            let scheme = if self.websocket { Scheme::Wss } else { Scheme::Amqps };
            let usual = Endpoint::new(scheme, host);
            let endpoint = match port {
                // The port that was named is AMQP's own.
                Some(port) if scheme == Scheme::Amqps => Endpoint { port, ..usual },
                _ => usual,
            };
            (endpoint, Upgrade::EVENTS)
        };
        check(
            endpoint.scheme.is_encrypted() || endpoint.is_loopback() || self.unencrypted,
            "an unencrypted connection to another machine has to be allowed aloud",
        )?;
        let audience = format!("sb://{host}/{entity}");
        let tokens = match &self.credential {
            // Event Hubs signs with the text of the key.
            Credential::Key { policy, key } => TokenSource::from_key(
                audience.clone(),
                Key::from_bytes(key.to_base64().as_bytes()),
                policy.clone(),
                self.token_lifetime,
            ),
            Credential::Token(token) => TokenSource::fixed(token.as_str())?,
            Credential::X509 => return Err(invalid("a service cannot use a certificate")),
        };
        Ok(Peer {
            route: Route { endpoint, proxy: self.proxy.clone(), tls: Some(self.tls.clone()), upgrade },
            host: host.to_owned(),
            login: Login::Token { audience, tokens },
            timeout: self.hub.timeout,
        })
    }
}

fn check(holds: bool, otherwise: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(invalid(otherwise)) }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "service.connect", message)
}

impl fmt::Debug for ServiceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceOptions")
            .field("host", &self.connection_string.host_name)
            .field("server", &self.server)
            .field("http_server", &self.http_server)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CS: &str = "HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0";
    const EVENTS: &str =
        "Endpoint=sb://ns.example/;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0;EntityPath=events";

    fn options() -> ServiceOptions {
        // Reading the system's roots is slow and tests nothing here.
        let ca = rcgen::generate_simple_self_signed(["hub.example".to_owned()]).unwrap().cert.pem();
        ServiceOptions::from_connection_string(CS).unwrap().ca_pem(ca)
    }

    #[test]
    fn addresses_follow_the_connection_string_unless_they_are_given() {
        for (options, amqp, http) in [
            (options(), "amqps://hub.example:5671", "https://hub.example:443"),
            (options().websocket(), "wss://hub.example:443", "https://hub.example:443"),
            (options().server("amqp://127.0.0.1:5"), "amqp://127.0.0.1:5", "https://hub.example:443"),
            (options().server("amqp://[::1]").websocket(), "ws://[::1]:5672", "https://hub.example:443"),
            (options().http_server("http://localhost:8"), "amqps://hub.example:5671", "http://localhost:8"),
        ] {
            assert_eq!(options.amqp_endpoint().unwrap().to_string(), amqp);
            assert_eq!(options.http_endpoint().unwrap().to_string(), http);
        }
    }

    #[test]
    fn an_event_log_that_is_not_the_hub_has_its_own_place_for_websockets() {
        let plan = options().websocket().prepare().unwrap();
        assert_eq!(plan.hub.route.upgrade, Upgrade::AMQP);
        let elsewhere = plan.events.redirected("ns.example", Some(5671), "events").unwrap();
        assert_eq!(elsewhere.route.upgrade, Upgrade::EVENTS);
        assert_eq!(elsewhere.route.endpoint.to_string(), "wss://ns.example:443");
        assert_eq!(plan.events.redirected("HUB.example", None, "e").unwrap().route.upgrade, Upgrade::AMQP);
        let known = options().websocket().events_connection_string(EVENTS).prepare().unwrap();
        assert_eq!(known.events.known.unwrap().0.route.upgrade, Upgrade::EVENTS);
    }

    #[test]
    fn what_cannot_work_is_refused_when_connecting() {
        for (options, text) in [
            (options().server("amqp://hub.example"), "allowed aloud"),
            (options().http_server("http://hub.example"), "allowed aloud"),
            (options().server("mqtts://hub.example"), "none of amqp"),
            (options().http_server("wss://hub.example"), "none of http"),
            (options().events_connection_string(CS), "no Endpoint"),
            (options().events_connection_string(EVENTS.replace(";EntityPath=events", "")), "no EntityPath"),
            (options().send_timeout(Duration::ZERO), "send timeout"),
            (options().ca_pem("x"), "no certificate"),
        ] {
            let error = options.prepare().err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(options().server("amqp://hub.example").allow_unencrypted().prepare().is_ok());
        for text in ["HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0", EVENTS] {
            assert!(ServiceOptions::from_connection_string(text).is_err());
        }
    }

    #[test]
    fn a_redirect_to_the_hub_itself_goes_where_the_hub_is_reached() {
        let plan = options().server("amqp://127.0.0.1:5").prepare().unwrap();
        let peer = plan.events.redirected("HUB.example", Some(5671), "hub").unwrap();
        assert_eq!(peer.route.endpoint.to_string(), "amqp://127.0.0.1:5");
        let peer = plan.events.redirected("ns.example", Some(5671), "e").unwrap();
        assert_eq!(peer.route.endpoint.to_string(), "amqps://ns.example:5671");
        assert_eq!(format!("{:?}", peer.login), r#"Token { audience: "sb://ns.example/e" }"#);
        let plan = options().events_connection_string(EVENTS).prepare().unwrap();
        let (peer, entity) = plan.events.known.unwrap();
        assert_eq!((peer.host.as_str(), entity.as_str()), ("ns.example", "events"));
    }
}
