//! Addresses: where to connect, and through which proxy.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::{Error, ErrorKind, Result};

/// What is spoken, and what the byte stream runs over. What a WebSocket carries, MQTT or AMQP, it does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `mqtt://`: MQTT over plain TCP.
    Tcp,
    /// `mqtts://`: MQTT over TLS.
    Tls,
    /// `ws://`: WebSocket over plain TCP.
    Ws,
    /// `wss://`: WebSocket over TLS.
    Wss,
    /// `amqp://`: AMQP over plain TCP.
    Amqp,
    /// `amqps://`: AMQP over TLS.
    Amqps,
    /// `http://`: HTTP over plain TCP.
    Http,
    /// `https://`: HTTP over TLS.
    Https,
}

impl Scheme {
    const ALL: [Self; 8] =
        [Self::Tcp, Self::Tls, Self::Ws, Self::Wss, Self::Amqp, Self::Amqps, Self::Http, Self::Https];

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt",
            Self::Tls => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Amqp => "amqp",
            Self::Amqps => "amqps",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Tcp => 1883,
            Self::Tls => 8883,
            Self::Ws | Self::Http => 80,
            Self::Wss | Self::Https => 443,
            Self::Amqp => 5672,
            Self::Amqps => 5671,
        }
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Wss | Self::Amqps | Self::Https)
    }

    /// Whether it is a WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// Where to connect: `scheme://host[:port]`, with the scheme `mqtt`, `mqtts`, `amqp`, `amqps`, `ws`, `wss`, `http` or
/// `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What is spoken, over what.
    pub scheme: Scheme,
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// `scheme` at `host`, at the usual port.
    pub fn new(scheme: Scheme, host: impl Into<String>) -> Self {
        Self { scheme, host: host.into(), port: scheme.default_port() }
    }

    /// Whether the host is this machine by its name or address, so that nothing leaves it.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// `host:port`, with brackets where an IPv6 address needs them.
    pub(crate) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument` saying which part is wrong.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |message: &'static str| {
            Error::new(ErrorKind::InvalidArgument, "device.options", message).with("server", text)
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid("the server needs a scheme, such as mqtts://hub.example:8883"))?;
        let scheme = Scheme::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(scheme))
            .ok_or_else(|| {
                invalid("the scheme of the server is none of mqtt, mqtts, amqp, amqps, ws, wss, http, https")
            })?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split_port(rest)
            .ok_or_else(|| invalid("the server is not host or host:port; the path is always the same"))?;
        Ok(Self { scheme, host: host.to_owned(), port: port.unwrap_or(scheme.default_port()) })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.authority())
    }
}

/// An HTTP proxy that is asked to `CONNECT`: `http://[user:password@]host[:port]`. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `user:password`, as it goes into the `Proxy-Authorization` header before base64.
    pub(crate) login: Option<String>,
}

impl FromStr for Proxy {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument` saying which part is wrong; never prints the password.
    fn from_str(text: &str) -> Result<Self> {
        let invalid =
            |message: &'static str| Error::new(ErrorKind::InvalidArgument, "device.options", message);
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| invalid("the proxy is not of the form http://[user:password@]host[:port]"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, authority) = match rest.rsplit_once('@') {
            Some((login, authority)) => {
                let decoded = percent_encoding::percent_decode_str(login)
                    .decode_utf8()
                    .map_err(|_| invalid("user and password of the proxy are not UTF-8"))?;
                (Some(decoded.into_owned()), authority)
            }
            None => (None, rest),
        };
        let (host, port) = split_port(authority)
            .ok_or_else(|| invalid("the proxy is not of the form http://[user:password@]host[:port]"))?;
        Ok(Self { host: host.to_owned(), port: port.unwrap_or(8080), login })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", authority(&self.host, self.port))
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; nothing else.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':')?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let strange = |c: char| c.is_whitespace() || c.is_control() || "/?#@[]".contains(c);
    if host.is_empty() || host.contains(strange) {
        return None;
    }
    match port {
        Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port != 0)?))),
        None => Some((host, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_with_their_usual_ports() {
        for (text, written, loopback) in [
            ("mqtt://127.0.0.1", "mqtt://127.0.0.1:1883", true),
            ("mqtts://Hub.Example", "mqtts://Hub.Example:8883", false),
            ("ws://localhost:9001/", "ws://localhost:9001", true),
            ("WSS://[::1]", "wss://[::1]:443", true),
            ("mqtts://[fe80::1]:1", "mqtts://[fe80::1]:1", false),
            ("amqp://localhost", "amqp://localhost:5672", true),
            ("amqps://hub.example", "amqps://hub.example:5671", false),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080", true),
            ("https://hub.example", "https://hub.example:443", false),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), written);
            assert_eq!(endpoint.is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            "hub",
            "hub:1",
            "ftp://hub",
            "https://hub/v1",
            "mqtt://",
            "mqtt://:1",
            "mqtt://a:0",
            "mqtt://a:x",
            "mqtt://a/b",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[x]:1",
            "mqtt://a b",
            "mqtt://u@h",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn a_proxy_keeps_its_password_to_itself() {
        let proxy: Proxy = "http://me:s%40cret@proxy.example:3128".parse().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.login.as_deref(), Some("me:s@cret"));
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.example:3128)");
        assert_eq!("http://p".parse::<Proxy>().unwrap().port, 8080);
        let error = "https://me:secret@p".parse::<Proxy>().unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }
}
