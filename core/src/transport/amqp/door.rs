//! Opens what AMQP runs over: the byte stream, SASL, and for those who use the AMQP crate's own connection that, too.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use fe2o3_amqp::{Connection, connection::ConnectionHandle};
use fe2o3_amqp_types::{
    primitives::{Binary, Symbol},
    sasl::{SaslCode, SaslInit, SaslMechanisms, SaslOutcome},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    fault::Fault,
    frame::{self, MAX_FRAME, code, kind},
};
use crate::{
    Error, ErrorKind, Result,
    transport::socket::{Route, Stream, unreachable},
};

/// How to open AMQP connections to one hub.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) route: Route,
    /// The hub's name, as it goes into OPEN.
    pub(crate) host_name: String,
    pub(crate) sasl: Sasl,
    /// Longest silence before the connection counts as lost.
    pub(crate) keep_alive: Duration,
}

/// How to pass SASL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sasl {
    /// Nothing is granted until a token was put.
    Anonymous,
    /// By the client certificate of the TLS connection.
    External,
}

impl Sasl {
    fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "ANONYMOUS",
            Self::External => "EXTERNAL",
        }
    }
}

/// Header of SASL and of AMQP itself: AMQP 1.0, section 2.2.
const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";
pub(super) const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";

impl Door {
    /// The byte stream, past SASL; what comes next on it is AMQP's own header. The caller bounds the time.
    pub(crate) async fn stream(&self) -> Result<Box<dyn Stream>> {
        let mut stream = self.route.open().await?;
        pass_sasl(&mut stream, self.sasl.name(), None, &self.host_name).await?;
        Ok(stream)
    }

    /// A connection of the AMQP crate. It counts as lost, also while it is stuck in writing, when nothing came in for
    /// the keep-alive time. The caller bounds the time.
    pub(crate) async fn open(&self, container: &str) -> Result<ConnectionHandle<()>> {
        self.connect(self.stream().await?, container).await
    }

    /// As [`Door::open`], with a user name and a password, whatever [`Door::sasl`] says (RFC 4616).
    #[cfg(feature = "service")]
    pub(crate) async fn open_plain(
        &self,
        container: &str,
        user: &str,
        password: &str,
    ) -> Result<ConnectionHandle<()>> {
        let mut stream = self.route.open().await?;
        let response = zeroize::Zeroizing::new(format!("\0{user}\0{password}").into_bytes());
        pass_sasl(&mut stream, "PLAIN", Some(&response), &self.host_name).await?;
        self.connect(stream, container).await
    }

    async fn connect(&self, stream: Box<dyn Stream>, container: &str) -> Result<ConnectionHandle<()>> {
        let stream = Watched::new(stream, self.keep_alive);
        let idle = u32::try_from(self.keep_alive.as_millis()).unwrap_or(u32::MAX);
        Connection::builder()
            .container_id(container)
            .hostname(self.host_name.as_str())
            .max_frame_size(MAX_FRAME as u32)
            .idle_time_out(idle)
            .open_with_stream(stream)
            .await
            .map_err(|error| error.explained("connect", "the server did not open the AMQP connection"))
    }
}

/// Negotiates SASL; reads not a byte more than belongs to it.
async fn pass_sasl(
    stream: &mut Box<dyn Stream>,
    mechanism: &'static str,
    response: Option<&[u8]>,
    host_name: &str,
) -> Result<()> {
    let lost = |error: io::Error| unreachable("the connection broke during SASL").caused_by(error);
    stream.write_all(&SASL_HEADER).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.map_err(lost)?;
    if header != SASL_HEADER {
        let message = "the server does not speak AMQP 1.0 with SASL (section 5.3)";
        return Err(Error::new(ErrorKind::Unsupported, "device.connect", message));
    }
    let mut input = Vec::new();
    let (descriptor, mechanisms) = read_sasl(stream, &mut input).await?;
    if descriptor != code::SASL_MECHANISMS {
        return Err(frame::violation("the server did not offer SASL mechanisms (section 5.3.2)"));
    }
    let offered: SaslMechanisms = frame::read(mechanisms)?;
    if !offered.sasl_server_mechanisms.iter().any(|Symbol(name)| name == mechanism) {
        let message = "the server does not offer the SASL mechanism we need";
        return Err(
            Error::new(ErrorKind::Unsupported, "device.connect", message).with("mechanism", mechanism)
        );
    }
    let init = SaslInit {
        mechanism: Symbol::from(mechanism),
        initial_response: response.map(|bytes| Binary::from(bytes.to_vec())),
        hostname: Some(host_name.to_owned()),
    };
    let mut out = BytesMut::new();
    frame::put_frame(&mut out, kind::SASL, 0, &init, &[]);
    stream.write_all(&out).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let (descriptor, outcome) = read_sasl(stream, &mut input).await?;
    if descriptor != code::SASL_OUTCOME {
        return Err(frame::violation("the server asked for more than the SASL mechanism has to say"));
    }
    match frame::read::<SaslOutcome>(outcome)?.code {
        SaslCode::Ok => Ok(()),
        SaslCode::SysTemp => Err(unreachable("the server is not ready to check who we are")),
        code => Err(Error::new(ErrorKind::Unauthorized, "device.connect", "the hub refused SASL")
            .with("outcome", format_args!("{code:?}"))),
    }
}

/// One SASL frame: descriptor and performative.
async fn read_sasl<'a>(stream: &mut Box<dyn Stream>, input: &'a mut Vec<u8>) -> Result<(u64, &'a [u8])> {
    let lost = |error: io::Error| unreachable("the connection broke during SASL").caused_by(error);
    input.resize(frame::HEADER, 0);
    stream.read_exact(input).await.map_err(lost)?;
    let length = match input.first_chunk::<4>() {
        Some(size) => u32::from_be_bytes(*size) as usize,
        None => 0,
    };
    // What a frame may not be is said by `first`.
    input.resize(length.clamp(frame::HEADER, MAX_FRAME), 0);
    let rest = input.get_mut(frame::HEADER..).unwrap_or_default();
    stream.read_exact(rest).await.map_err(lost)?;
    let whole: &'a [u8] = input;
    match frame::first(whole)? {
        Some(frame) if frame.kind == kind::SASL => {
            let (code, performative, _) = frame.performative()?;
            Ok((code, performative))
        }
        _ => Err(frame::violation("the server sent something else than a SASL frame (section 5.3.1)")),
    }
}

/// A stream that fails when nothing came in for a while, whether one reads from it or is stuck in writing.
struct Watched {
    stream: Box<dyn Stream>,
    patience: Duration,
    silence: Pin<Box<Sleep>>,
}

impl Watched {
    fn new(stream: Box<dyn Stream>, patience: Duration) -> Self {
        Self { stream, patience, silence: Box::pin(tokio::time::sleep(patience)) }
    }

    fn or_silent<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match self.silence.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the server has fallen silent")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, out);
        if result.is_pending() {
            return self.or_silent(cx);
        }
        let deadline = Instant::now() + self.patience;
        self.silence.as_mut().reset(deadline);
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if result.is_pending() { self.or_silent(cx) } else { result }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        if result.is_pending() { self.or_silent(cx) } else { result }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        if result.is_pending() { self.or_silent(cx) } else { result }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}
