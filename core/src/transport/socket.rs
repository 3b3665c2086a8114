//! The byte stream to the hub: TCP, through a proxy, under TLS, in a WebSocket, as asked for.

use std::{io, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    task::JoinSet,
};

use super::endpoint::{Endpoint, Proxy};
use crate::{Error, ErrorKind, Result};

/// A byte stream, whatever it runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Longest answer of a proxy to `CONNECT` that is read.
const PROXY_ANSWER_LIMIT: usize = 8 * 1024;

/// How long one address of a host is tried before the next one is, too.
const HEAD_START: Duration = Duration::from_millis(250);

/// How to reach the hub.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) endpoint: Endpoint,
    pub(crate) proxy: Option<Proxy>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<super::tls::TlsConfig>,
    /// What a WebSocket is asked for.
    #[cfg_attr(not(feature = "websocket"), expect(dead_code, reason = "no WebSocket asks for it"))]
    pub(crate) upgrade: Upgrade,
}

/// What a WebSocket carries, by its registered name, and where the server has it. Contract `mqtt.md`, `amqp.md`,
/// "Transport".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "websocket"), allow(dead_code, reason = "no WebSocket asks for it"))]
pub(crate) struct Upgrade {
    pub(crate) path: &'static str,
    pub(crate) subprotocol: &'static str,
}

impl Upgrade {
    /// HTTP needs none.
    #[cfg(feature = "http")]
    pub(crate) const NONE: Self = Self { path: "", subprotocol: "" };
    /// MQTT with a hub.
    pub(crate) const MQTT: Self = Self { path: HUB, subprotocol: "mqtt" };
    /// AMQP with a hub.
    #[cfg(feature = "amqp")]
    pub(crate) const AMQP: Self = Self { path: HUB, subprotocol: crate::wire::amqp::SUBPROTOCOL };
    /// AMQP with the host of an event log that is not the hub.
    #[cfg(feature = "service")]
    pub(crate) const EVENTS: Self = Self { path: "/$servicebus/websocket", ..Self::AMQP };
}

const HUB: &str = "/$iothub/websocket";

impl Route {
    /// Opens the stream. The caller bounds the time.
    pub(crate) async fn open(&self) -> Result<Box<dyn Stream>> {
        let mut tcp = match &self.proxy {
            None => tcp(&self.endpoint.host, self.endpoint.port).await?,
            Some(proxy) => tcp(&proxy.host, proxy.port).await?,
        };
        if let Some(proxy) = &self.proxy {
            ask_proxy(&mut tcp, proxy, &self.endpoint).await?;
        }
        let stream: Box<dyn Stream> =
            if self.endpoint.scheme.is_encrypted() { self.encrypt(tcp).await? } else { Box::new(tcp) };
        if self.endpoint.scheme.is_websocket() { self.upgrade(stream).await } else { Ok(stream) }
    }

    #[cfg(feature = "tls")]
    async fn encrypt(&self, tcp: TcpStream) -> Result<Box<dyn Stream>> {
        match &self.tls {
            Some(tls) => Ok(Box::new(tls.handshake(&self.endpoint.host, tcp).await?)),
            None => {
                Err(Error::new(ErrorKind::Internal, "device.connect", "the TLS configuration is missing"))
            }
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn encrypt(&self, _: TcpStream) -> Result<Box<dyn Stream>> {
        Err(Error::new(ErrorKind::Unsupported, "device.connect", "this build has no TLS"))
    }

    #[cfg(feature = "websocket")]
    async fn upgrade(&self, stream: Box<dyn Stream>) -> Result<Box<dyn Stream>> {
        Ok(Box::new(super::websocket::WebSocket::open(&self.endpoint, self.upgrade, stream).await?))
    }

    #[cfg(not(feature = "websocket"))]
    async fn upgrade(&self, _: Box<dyn Stream>) -> Result<Box<dyn Stream>> {
        Err(Error::new(ErrorKind::Unsupported, "device.connect", "this build has no WebSocket"))
    }
}

/// An error about reaching the hub.
pub(crate) fn unreachable(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Unreachable, "device.connect", message)
}

/// Connects to whichever address of the host answers first, giving each a head start over the next: one that leads
/// nowhere, as IPv6 does in many a network, must not hold up the others.
async fn tcp(host: &str, port: u16) -> Result<TcpStream> {
    let failed = |error| unreachable(format!("cannot connect to {host}:{port}")).caused_by(error);
    let mut addresses = lookup_host((host, port)).await.map_err(failed)?.peekable();
    let mut attempts = JoinSet::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match addresses.next() {
            Some(address) => drop(attempts.spawn(TcpStream::connect(address))),
            None if attempts.is_empty() => return Err(failed(error)),
            None => {}
        }
        tokio::select! {
            Some(attempt) = attempts.join_next() => match attempt.map_err(io::Error::other).flatten() {
                Ok(tcp) => {
                    // Frames are put together before they are written; waiting for more would only delay them.
                    tcp.set_nodelay(true).map_err(failed)?;
                    return Ok(tcp);
                }
                Err(refused) => error = refused,
            },
            () = tokio::time::sleep(HEAD_START), if addresses.peek().is_some() => {}
        }
    }
}

/// Asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6).
async fn ask_proxy(tcp: &mut TcpStream, proxy: &Proxy, endpoint: &Endpoint) -> Result<()> {
    let failed = |error: io::Error| unreachable(format!("the proxy {proxy:?} failed")).caused_by(error);
    let authority = endpoint.authority();
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(login) = &proxy.login {
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&BASE64_STANDARD.encode(login));
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    tcp.write_all(request.as_bytes()).await.map_err(failed)?;

    // Byte by byte: what follows the header belongs to the tunnel.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_ANSWER_LIMIT {
            return Err(unreachable(format!("the proxy {proxy:?} sent an endless header")));
        }
        answer.push(tcp.read_u8().await.map_err(failed)?);
    }
    let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    match status {
        [b'2', _, _] => Ok(()),
        b"407" => Err(Error::new(
            ErrorKind::Unauthorized,
            "device.connect",
            "the proxy wants another user name and password",
        )),
        _ => Err(unreachable(format!("the proxy {proxy:?} opened no tunnel"))
            .with("status", String::from_utf8_lossy(status))),
    }
}
