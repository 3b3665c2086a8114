//! One connection: the greeting, then the task of its socket.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context as Wake, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::{Buf, BytesMut};
use fe2o3_amqp_types::{
    definitions::{ConnectionError, Error},
    sasl::{SaslCode, SaslInit, SaslOutcome},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tokio_util::{io::poll_read_buf, sync::WaitForCancellationFutureOwned};

use super::{
    Front,
    attach::{self, Context},
    codec::{self, AMQP_HEADER, FrameType, SASL_HEADER},
    condition,
    engine::{Engine, LARGEST_FRAME, Settings},
    grants::Grants,
    link::{Attaching, Shared},
    metrics::{Closed, Refused},
    request::Replies,
    sasl::{self, Proof},
};
use crate::fronts::door::PeerInfo;

/// Longest silence the hub asks clients for; after twice as much it gives them up.
const IDLE: Duration = Duration::from_secs(240);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// With more than this taken from the socket and not by links, the hub reads no more.
const HELD_BYTES: usize = 1024 * 1024;
/// With more than this waiting to be sent, the hub reads no more from a client that does not read either.
const UNSENT_BYTES: usize = 1024 * 1024;

/// Serves a client until its connection ends.
pub(super) async fn serve<S>(front: Arc<Front>, mut stream: S, peer: PeerInfo, deadline: Instant)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let grants = Grants::new(front.access.clone(), peer.certificates.clone(), front.limits.token_grace);
    let mut received = BytesMut::new();
    let greeting = greet(&front, &mut stream, &mut received, &grants, &peer);
    let greeted = tokio::select! {
        biased;
        () = front.door.stopping().cancelled() => Err(Refused::Stopping),
        greeted = timeout_at(deadline, greeting) => greeted.unwrap_or(Err(Refused::Silent)),
    };
    if let Err(reason) = greeted {
        front.metrics.count_refused(reason);
        let _ = tokio::time::timeout(front.limits.closing, stream.shutdown()).await;
        return;
    }
    let settings = Settings { container: front.access.host_name().to_owned(), idle: IDLE };
    let shared = Shared::new(Engine::new(settings));
    let context = Context {
        front: Arc::clone(&front),
        shared,
        grants: Arc::new(grants),
        replies: Arc::new(Replies::default()),
    };
    let mut connection = Box::new(Connection::new(stream, context, deadline));
    let ended = connection.run(received).await;
    match (connection.opened, ended) {
        (true, reason) => front.metrics.count_closed(reason),
        (false, Closed::Stopped) => front.metrics.count_refused(Refused::Stopping),
        (false, Closed::Protocol) => front.metrics.count_refused(Refused::Malformed),
        (false, _) => front.metrics.count_refused(Refused::Silent),
    }
}

/// Headers and the security layer, up to and with the hub's AMQP header.
async fn greet<S>(
    front: &Front,
    stream: &mut S,
    received: &mut BytesMut,
    grants: &Grants,
    peer: &PeerInfo,
) -> Result<(), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut header = read_header(stream, received).await?;
    if header == SASL_HEADER {
        let outcome = sign_in(front, stream, received, grants, peer).await?;
        let mut out = BytesMut::new();
        let frame = SaslOutcome { code: outcome.clone(), additional_data: None };
        codec::write_frame(&mut out, FrameType::Sasl, 0, &frame, 2).map_err(|_| Refused::Malformed)?;
        write(stream, &out).await?;
        if outcome != SaslCode::Ok {
            return Err(Refused::Unauthorized);
        }
        header = read_header(stream, received).await?;
    }
    // What is spoken here, said also to those who began with something else.
    write(stream, &AMQP_HEADER).await?;
    if header == AMQP_HEADER { Ok(()) } else { Err(Refused::Malformed) }
}

async fn sign_in<S>(
    front: &Front,
    stream: &mut S,
    received: &mut BytesMut,
    grants: &Grants,
    peer: &PeerInfo,
) -> Result<SaslCode, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let has_certificate = !peer.certificates.is_empty();
    let mut out = BytesMut::from(&SASL_HEADER[..]);
    codec::write_frame(&mut out, FrameType::Sasl, 0, &sasl::mechanisms(has_certificate), 1)
        .map_err(|_| Refused::Malformed)?;
    write(stream, &out).await?;
    let init: SaslInit = loop {
        if let Some(frame) =
            codec::take_frame(received, FrameType::Sasl, LARGEST_FRAME).map_err(|_| Refused::Malformed)?
        {
            break codec::read_value(&frame.body).map_err(|_| Refused::Malformed)?;
        }
        read_more(stream, received).await?;
    };
    let host = front.access.host_name();
    Ok(match sasl::read(&init, host, has_certificate) {
        Ok(Proof::Later | Proof::Certificate) => SaslCode::Ok,
        Ok(Proof::Token { audience, policy, token }) => {
            match grants.sign_in(&audience, policy.as_deref(), &token, SystemTime::now()) {
                Ok(()) => SaslCode::Ok,
                Err(error) => {
                    tracing::info!(peer = %peer.address, %error, "refused");
                    SaslCode::Auth
                }
            }
        }
        Err(code) => code,
    })
}

async fn read_header<S: AsyncRead + Unpin>(
    stream: &mut S,
    received: &mut BytesMut,
) -> Result<[u8; 8], Refused> {
    loop {
        // A stranger that speaks something else is not waited for.
        if !received.iter().zip(b"AMQP").all(|(found, wanted)| found == wanted) {
            return Err(Refused::Malformed);
        }
        if let Some(header) = received.first_chunk().copied() {
            received.advance(8);
            return Ok(header);
        }
        read_more(stream, received).await?;
    }
}

async fn read_more<S: AsyncRead + Unpin>(stream: &mut S, received: &mut BytesMut) -> Result<(), Refused> {
    match stream.read_buf(received).await {
        Ok(1..) => Ok(()),
        _ => Err(Refused::Silent),
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), Refused> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    written.await.map_err(|_| Refused::Silent)
}

/// What can happen to a connection.
enum Event {
    Received,
    /// The stream is over, or everything was said.
    Ended,
    Stop,
    /// After a stop: no link is served any more.
    Finished,
    Due,
}

struct Connection<S> {
    stream: S,
    context: Context,
    links: JoinSet<()>,
    /// What was read and not handled.
    reading: BytesMut,
    writing: BytesMut,
    /// Whether the stream still has to pass on what was written.
    flushing: bool,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    opened: bool,
    /// Why it ends, once that is known.
    reason: Option<Closed>,
    timer: Pin<Box<Sleep>>,
    heard: Instant,
    sent: Instant,
    /// When a client that was granted nothing has to go.
    stranger: Instant,
    /// When a connection that ends is cut.
    cut: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    fn new(stream: S, context: Context, stranger: Instant) -> Self {
        let now = Instant::now();
        Self {
            stream,
            links: JoinSet::new(),
            reading: BytesMut::new(),
            writing: BytesMut::new(),
            flushing: false,
            stopping: Box::pin(context.front.door.stopping().clone().cancelled_owned()),
            opened: false,
            reason: None,
            timer: Box::pin(sleep_until(stranger)),
            heard: now,
            sent: now,
            stranger,
            cut: None,
            context,
        }
    }

    /// Serves the client until the connection ends. Cancelling drops it; what was staged is still stored.
    async fn run(&mut self, received: BytesMut) -> Closed {
        self.reading = received;
        self.handle();
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Event::Received => self.handle(),
                Event::Ended => break,
                Event::Stop => {
                    self.reason.get_or_insert(Closed::Stopped);
                    if !self.opened {
                        // Nobody there to say goodbye to.
                        break;
                    }
                    self.context.shared.with(Engine::stop);
                    self.cut = Some(Instant::now() + self.context.front.limits.closing);
                }
                Event::Finished => {
                    let text = "the hub stops".to_owned();
                    self.close(Closed::Stopped, Error::new(ConnectionError::ConnectionForced, text, None));
                }
                Event::Due => {
                    if !self.look_after() {
                        break;
                    }
                }
            }
        }
        self.context.shared.with(Engine::lost);
        let _ = tokio::time::timeout(self.context.front.limits.closing, self.stream.shutdown()).await;
        // They see that the link is over, and end by themselves.
        while self.links.join_next().await.is_some() {}
        self.reason.unwrap_or(Closed::Lost)
    }

    fn poll(&mut self, cx: &mut Wake<'_>) -> Poll<Event> {
        self.context.shared.register(cx);
        while let Poll::Ready(Some(_)) = self.links.poll_join_next(cx) {}
        let is_stopping = self.reason.is_some();
        if !is_stopping && self.stopping.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Stop);
        }
        if self.reason == Some(Closed::Stopped)
            && self.links.is_empty()
            && self.context.shared.lock().is_open()
        {
            return Poll::Ready(Event::Finished);
        }
        match self.poll_send(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Event::Ended),
            Poll::Ready(Ok(())) if self.context.shared.lock().is_closed() => {
                return Poll::Ready(Event::Ended);
            }
            _ => {}
        }
        if self.may_read() {
            self.reading.reserve(READ_BYTES);
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.reading) {
                Poll::Ready(Ok(1..)) => return Poll::Ready(Event::Received),
                Poll::Ready(_) => return Poll::Ready(Event::Ended),
                Poll::Pending if self.reading.is_empty() => self.reading = BytesMut::new(),
                Poll::Pending => {}
            }
        }
        let due = self.due();
        if due != self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Event::Due)
    }

    fn may_read(&self) -> bool {
        self.writing.len() < UNSENT_BYTES && self.context.shared.lock().held_bytes() < HELD_BYTES
    }

    /// Sends what waits. Ready when all of it is sent.
    fn poll_send(&mut self, cx: &mut Wake<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.writing.is_empty() {
                let mut engine = self.context.shared.lock();
                if !engine.has_outgoing() {
                    break;
                }
                self.writing = engine.take_outgoing();
                drop(engine);
                self.sent = Instant::now();
            }
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.writing))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.context.front.metrics.sent_bytes.add(sent as u64);
            self.flushing = true;
            if sent == self.writing.len() {
                self.writing = BytesMut::new();
            } else {
                self.writing.advance(sent);
            }
        }
        if self.flushing {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushing = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Handles every whole frame and keeps the rest.
    fn handle(&mut self) {
        self.heard = Instant::now();
        let arrived = self.reading.len();
        loop {
            let frame = match codec::take_frame(&mut self.reading, FrameType::Amqp, LARGEST_FRAME) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(malformed) => {
                    self.fault(&malformed.into());
                    break;
                }
            };
            let outcome = self.context.shared.lock().receive(frame);
            if let Err(fault) = outcome {
                self.fault(&fault);
                break;
            }
            self.attach();
        }
        let front = &self.context.front;
        front.metrics.received_bytes.add((arrived - self.reading.len()) as u64);
        let engine = self.context.shared.lock();
        if engine.is_open() && !self.opened {
            self.opened = true;
            front.metrics.connects.add(1);
        }
        if engine.is_closed() {
            self.reason.get_or_insert(Closed::Goodbye);
        }
    }

    /// Decides on the links that were attached.
    fn attach(&mut self) {
        loop {
            let Some((id, attach)) = self.context.shared.lock().next_pending() else { return };
            let attaching = Attaching::new(Arc::clone(&self.context.shared), id, attach);
            if self.reason.is_some() {
                attaching.refuse(condition::refusal(
                    whimbrel::wire::refusal::Refusal::SERVICE_UNAVAILABLE,
                    "the hub stops",
                ));
                continue;
            }
            match attach::decide(&self.context, attaching) {
                Some(service) => {
                    self.context.front.metrics.links.add(1);
                    self.links.spawn(service);
                }
                None => self.context.front.metrics.refused_links.add(1),
            }
        }
    }

    fn fault(&mut self, fault: &super::engine::Fault) {
        tracing::info!(reason = fault.text(), "a connection broke the protocol");
        self.reading = BytesMut::new();
        self.reason.get_or_insert(Closed::Protocol);
        self.context.shared.lock().fail(fault);
        self.cut = Some(Instant::now() + self.context.front.limits.closing);
    }

    fn close(&mut self, reason: Closed, error: Error) {
        self.reason.get_or_insert(reason);
        self.context.shared.lock().close(Some(error));
        self.cut.get_or_insert(Instant::now() + self.context.front.limits.closing);
    }

    /// When something is to be done next if nothing happens.
    fn due(&self) -> Instant {
        let mut due = self.heard + 2 * IDLE;
        if let Some(idle) = self.context.shared.lock().peer_idle() {
            due = due.min(self.sent + idle / 2);
        }
        if let Some(over) = self.context.grants.due() {
            due = due.min(over);
        }
        if let Some(cut) = self.cut {
            due = due.min(cut);
        }
        if self.stranger > Instant::now() { due.min(self.stranger) } else { due }
    }

    /// Does what is due. `false` when the connection has to be cut.
    fn look_after(&mut self) -> bool {
        let now = Instant::now();
        if self.cut.is_some_and(|cut| cut <= now) {
            return false;
        }
        if !self.may_read() {
            // The client may well have spoken; the hub did not listen.
            self.heard = now;
        }
        if self.heard + 2 * IDLE <= now {
            let text = "nothing was heard for too long".to_owned();
            self.close(Closed::Idle, Error::new(ConnectionError::ConnectionForced, text, None));
            return true;
        }
        let is_stranger = self.stranger <= now && (!self.opened || self.context.grants.is_stranger());
        if is_stranger || self.context.grants.is_signed_out(now) {
            self.close(Closed::Expired, condition::unauthorized("no token, or one that has ended"));
            return true;
        }
        for link in self.context.grants.overdue(now, SystemTime::now()) {
            self.context.shared.lock().detach(link, Some(condition::unauthorized("the token has ended")));
        }
        let mut engine = self.context.shared.lock();
        if engine.peer_idle().is_some_and(|idle| self.sent + idle / 2 <= now) {
            engine.heartbeat();
            self.sent = now;
        }
        true
    }
}
