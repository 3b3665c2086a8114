//! One device's connection after its CONNECT was accepted: reads, stages, acknowledges, until something ends it.
//!
//! The loop waits for whatever comes next and holds nothing meanwhile: bytes are read into a buffer shared by all
//! connections of the thread, every packet in it is handled at once, and all events of it are staged as one batch.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::futures::OwnedNotified,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_util::io::poll_read_buf;
use whimbrel::{
    ErrorKind,
    journal::Ticket,
    wire::v5::{Place, Status},
};

use super::{
    Front,
    metrics::Closed,
    packet::{self, Answer, Codec, Malformed, Reply},
    pipeline::Pipeline,
    push::Push,
    session::{Batch, Close, Effect, Fate, Session},
};
use crate::sessions::{Order, Seat};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// An unfinished packet up to this size is copied in front of the next read; a longer one is read into its own buffer.
const COPIED_BYTES: usize = 4 * 1024;
/// With more than this waiting to be sent, the hub reads no more from a client that does not read either, and sends it
/// no more commands.
pub(crate) const UNSENT_BYTES: usize = 64 * 1024;

thread_local! {
    /// Buffer of the connections of this thread, one at a time.
    static SHARED: RefCell<Option<BytesMut>> = const { RefCell::new(None) };
}

type Commit = Pin<Box<dyn Future<Output = whimbrel::Result<()>> + Send>>;

/// Bytes that arrived, behind an unfinished packet.
struct Received {
    buffer: BytesMut,
    /// Whether the buffer is the thread's.
    shared: bool,
}

/// What can happen to a connection.
enum Event {
    Received(Received),
    Ended,
    Ordered(Order),
    CommitFailed(whimbrel::Error),
    StoringFailed(whimbrel::Error),
    CommandsFailed(whimbrel::Error),
    Silent,
    Expired,
}

/// Answers to SUBSCRIBE and UNSUBSCRIBE that wait until the subscriptions are kept.
#[derive(Default)]
struct Storing {
    answers: BytesMut,
    commit: Option<Commit>,
}

/// One connection.
pub(crate) struct Connection<S> {
    stream: S,
    front: Arc<Front>,
    codec: Codec,
    session: Session,
    seat: Option<Seat>,
    /// Beginning of a packet whose rest has not come yet.
    unfinished: BytesMut,
    outgoing: BytesMut,
    /// Whether the stream still has to pass on what was written.
    flushing: bool,
    pipeline: Pipeline<Ticket>,
    commit: Option<Commit>,
    storing: Option<Box<Storing>>,
    /// Only for those who subscribed to commands.
    push: Option<Box<Push>>,
    room: Option<Pin<Box<OwnedNotified>>>,
    timer: Pin<Box<Sleep>>,
    heard: Instant,
    silence: Duration,
    expires: Option<Instant>,
}

/// What a connection starts with.
pub(crate) struct Start {
    pub(crate) codec: Codec,
    pub(crate) session: Session,
    pub(crate) seat: Seat,
    /// CONNACK, to be sent.
    pub(crate) outgoing: BytesMut,
    /// What the client sent behind its CONNECT.
    pub(crate) received: BytesMut,
    /// Longest silence.
    pub(crate) silence: Duration,
    /// When the credentials end, grace included.
    pub(crate) expires: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S, front: Arc<Front>, start: Start) -> Self {
        let heard = Instant::now();
        let due = heard + start.silence;
        let push =
            start.session.commands().map(|form| Box::new(Push::new(&front.commands, &start.session, form)));
        Self {
            stream,
            codec: start.codec,
            session: start.session,
            seat: Some(start.seat),
            unfinished: start.received,
            outgoing: start.outgoing,
            flushing: false,
            pipeline: Pipeline::new(Arc::clone(&front.staging)),
            commit: None,
            storing: None,
            push,
            room: None,
            timer: Box::pin(sleep_until(start.expires.map_or(due, |expires| expires.min(due)))),
            heard,
            silence: start.silence,
            expires: start.expires,
            front,
        }
    }

    /// Serves the client until the connection ends. Cancelling drops the connection; what was staged is still stored.
    pub(crate) async fn run(&mut self) {
        let first = Received { buffer: std::mem::take(&mut self.unfinished), shared: false };
        let mut handled = self.receive(first);
        let close = loop {
            if let Err(close) = handled {
                break close;
            }
            match poll_fn(|cx| self.poll_event(cx)).await {
                Event::Received(received) => handled = self.receive(received),
                Event::Ended => break Close::silent(Closed::Lost),
                Event::Ordered(order) => break Close::ordered(order),
                Event::CommitFailed(error) => {
                    break self.storage_failed("events could not be stored", &error);
                }
                Event::StoringFailed(error) => {
                    break self.storage_failed("subscriptions could not be kept", &error);
                }
                Event::CommandsFailed(error) => {
                    break self.storage_failed("commands could not be read", &error);
                }
                Event::Silent => break Close::keep_alive(),
                Event::Expired => break Close::expired(),
            }
        };
        // The rest happens once for each connection, and must not make the idle ones larger.
        Box::pin(self.close(close)).await;
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(seat) = &self.seat
            && let Poll::Ready(order) = seat.poll_order(cx)
        {
            return Poll::Ready(Event::Ordered(order));
        }
        if let Poll::Ready(Err(error)) = self.poll_commits(cx) {
            return Poll::Ready(Event::CommitFailed(error));
        }
        if let Poll::Ready(Err(error)) = self.poll_storing(cx) {
            return Poll::Ready(Event::StoringFailed(error));
        }
        if let Poll::Ready(event) = self.poll_outgoing(cx) {
            return Poll::Ready(event);
        }
        if self.poll_may_read(cx).is_ready() {
            match self.poll_read(cx) {
                Poll::Ready(Ok(Some(received))) => return Poll::Ready(Event::Received(received)),
                Poll::Ready(_) => return Poll::Ready(Event::Ended),
                Poll::Pending => {}
            }
        }
        self.poll_timer(cx)
    }

    /// Lets go of every acknowledgement whose event is durable. Pending while more wait, or none does.
    fn poll_commits(&mut self, cx: &mut Context<'_>) -> Poll<whimbrel::Result<()>> {
        let mut acknowledged = 0;
        while let Some(ticket) = self.pipeline.head() {
            let commit = self.commit.get_or_insert_with(|| {
                let events = self.front.events.clone();
                Box::pin(async move { events.durable(ticket).await })
            });
            let Poll::Ready(outcome) = commit.as_mut().poll(cx) else { break };
            self.commit = None;
            if outcome.is_err() {
                self.pipeline.abandon();
                return Poll::Ready(outcome);
            }
            acknowledged += self.pipeline.release(&mut self.outgoing);
        }
        if acknowledged > 0 {
            self.front.metrics.acknowledgements.add(u64::from(acknowledged));
        }
        Poll::Pending
    }

    /// Lets go of the answers whose subscriptions are kept. Pending while they wait, or there are none.
    fn poll_storing(&mut self, cx: &mut Context<'_>) -> Poll<whimbrel::Result<()>> {
        if let Some(storing) = &mut self.storing
            && let Some(commit) = &mut storing.commit
        {
            ready!(commit.as_mut().poll(cx))?;
            self.subscribed();
        }
        Poll::Pending
    }

    /// Sends what waits, and commands as long as there is room for them. Ready when the connection has to end.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let full = match &mut self.push {
                None => false,
                Some(push) => match push.poll(cx, &mut self.outgoing, &self.front.metrics) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Event::CommandsFailed(error)),
                    Poll::Ready(Ok(())) => true,
                    Poll::Pending => false,
                },
            };
            if ready!(self.poll_send(cx)).is_err() {
                return Poll::Ready(Event::Ended);
            }
            if let Some(push) = &mut self.push
                && !push.sent(&self.front.metrics)
            {
                self.push = None;
            }
            if !full {
                return Poll::Pending;
            }
        }
    }

    /// Sends what waits. Ready when all of it is sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.front.metrics.sent_bytes.add(sent as u64);
            self.flushing = true;
            if sent == self.outgoing.len() {
                self.outgoing = BytesMut::new();
            } else {
                self.outgoing.advance(sent);
            }
        }
        if self.flushing {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushing = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready while the connection may take more: the client reads what it is sent, and not too much waits for the disk.
    fn poll_may_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.outgoing.len() >= UNSENT_BYTES || self.is_full() || self.storing.is_some() {
            return Poll::Pending;
        }
        while !self.front.staging.has_room() {
            if !self.pipeline.is_empty() {
                // Its own commit wakes it.
                return Poll::Pending;
            }
            let room = self.room.get_or_insert_with(|| Box::pin(self.front.staging.room()));
            // Looking again after asking to be woken closes the gap between the two.
            let woken = room.as_mut().poll(cx).is_ready();
            if !woken && !self.front.staging.has_room() {
                return Poll::Pending;
            }
            self.room = None;
        }
        Poll::Ready(())
    }

    /// Reads behind the unfinished packet: into the thread's buffer, or into the packet's own when it is long. `None`
    /// at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Received>>> {
        let shared = self.unfinished.len() <= COPIED_BYTES;
        let mut buffer = if shared { borrow(&self.unfinished) } else { std::mem::take(&mut self.unfinished) };
        // A buffer of its own grows with what really arrived, not with what was announced.
        buffer.reserve(if shared { READ_BYTES } else { buffer.len().min(READ_BYTES) });
        let read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut buffer);
        if let Poll::Ready(Ok(1..)) = read {
            self.unfinished = BytesMut::new();
            return Poll::Ready(Ok(Some(Received { buffer, shared })));
        }
        if shared {
            give_back(buffer);
        } else {
            self.unfinished = buffer;
        }
        read.map_ok(|_| None)
    }

    /// Ready when the client was silent for too long or its credentials have ended.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.expires.is_some_and(|expires| expires <= now) {
                return Poll::Ready(Event::Expired);
            }
            if self.waits_for_disk() {
                // The client may well have spoken; the hub did not listen.
                self.heard = now;
            }
            let due = self.heard + self.silence;
            if due <= now {
                return Poll::Ready(Event::Silent);
            }
            self.timer.as_mut().reset(self.expires.map_or(due, |expires| expires.min(due)));
        }
    }

    /// Whether this connection has as much under way as it may. Some clients know nothing of Receive Maximum; they are
    /// held back like those of 3.1.1, and not cut off.
    fn is_full(&self) -> bool {
        self.pipeline.staged() >= self.front.limits.connection_staged_bytes
            || self.pipeline.unacknowledged() >= self.session.receive_maximum()
    }

    fn waits_for_disk(&self) -> bool {
        self.room.is_some()
            || self.storing.is_some()
            || self.is_full()
            || (!self.pipeline.is_empty() && !self.front.staging.has_room())
    }

    /// Handles every whole packet and keeps the rest. Events before an error are staged all the same.
    fn receive(&mut self, received: Received) -> Result<(), Close> {
        let Received { mut buffer, shared } = received;
        if buffer.is_empty() {
            return Ok(());
        }
        self.heard = Instant::now();
        let arrived = buffer.len();
        let mut batch = Batch::default();
        let handled = self.handle_packets(&mut buffer, &mut batch);
        let consumed = arrived - buffer.len();
        self.front.metrics.received_bytes.add(consumed as u64);
        self.store_subscriptions();
        self.stage(&batch)?;
        drop(batch);
        if !shared && consumed == 0 {
            self.unfinished = buffer;
            return handled;
        }
        if !buffer.is_empty() {
            self.unfinished = BytesMut::from(&buffer[..]);
        }
        if shared {
            give_back(buffer);
        }
        handled
    }

    fn handle_packets(&mut self, buffer: &mut BytesMut, batch: &mut Batch) -> Result<(), Close> {
        while let Some(bytes) = packet::packet_bytes(buffer).map_err(|Malformed| Close::malformed())? {
            if bytes > self.session.largest_packet() {
                return Err(Close::too_large());
            }
            if bytes > buffer.len() {
                break;
            }
            let packet = self.codec.read(buffer).map_err(|Malformed| Close::malformed())?;
            let handled = self.session.handle(packet, bytes, batch);
            // Also of the last packet: a goodbye may say what becomes of the session.
            for effect in batch.effects.drain(..) {
                self.apply(effect)?;
            }
            handled?;
        }
        Ok(())
    }

    fn apply(&mut self, effect: Effect) -> Result<(), Close> {
        match effect {
            Effect::Reply(reply) => self.codec.write(reply, &mut self.outgoing),
            Effect::Subscribed(answer) => {
                let storing = self.storing.get_or_insert_default();
                self.codec.write(answer, &mut storing.answers);
            }
            Effect::Acknowledged(id, settlement) => {
                if let Some(push) = &mut self.push
                    && !push.acknowledged(id, settlement, &self.front.metrics)
                {
                    self.push = None;
                }
            }
            Effect::Forget => {
                if let Some(seat) = &self.seat {
                    seat.do_not_keep();
                }
            }
            Effect::Reauthenticate(auth) => {
                let (method, expires_at) = self.session.reauthenticate(&self.front.access, &auth)?;
                self.expires = expires_at.map(|at| self.front.ends(at));
                if let Some(expires) = self.expires {
                    self.timer.as_mut().reset(expires.min(self.heard + self.silence));
                }
                self.codec.write(Reply::Reauthenticated(method), &mut self.outgoing);
            }
        }
        Ok(())
    }

    /// Has the subscriptions kept that one read brought, all at once, where the session is one that is kept.
    fn store_subscriptions(&mut self) {
        let Some(storing) = &mut self.storing else { return };
        if self.session.commands().is_none()
            && let Some(push) = &mut self.push
            && !push.change(None)
        {
            self.push = None;
        }
        storing.commit = self.seat.as_ref().and_then(|seat| seat.subscribed(self.session.subscriptions()));
        if storing.commit.is_none() {
            self.subscribed();
        }
    }

    /// The subscriptions are as they should be: says so, and has commands sent from now on if they are among them.
    fn subscribed(&mut self) {
        if let Some(storing) = self.storing.take() {
            self.outgoing.extend_from_slice(&storing.answers);
        }
        match (self.session.commands(), &mut self.push) {
            (Some(form), Some(push)) => _ = push.change(Some(form)),
            (Some(form), None) => {
                self.push = Some(Box::new(Push::new(&self.front.commands, &self.session, form)));
            }
            (None, _) => {}
        }
    }

    /// Stages the events of a batch, all or none, and holds their acknowledgements until they are durable.
    fn stage(&mut self, batch: &Batch) -> Result<(), Close> {
        if batch.publications.is_empty() {
            return Ok(());
        }
        let mut staged = 0;
        let mut events = Vec::with_capacity(batch.publications.len());
        for publication in &batch.publications {
            if let Fate::Store(message, number) = &publication.fate {
                staged += publication.bytes;
                events.push(self.session.event(message, *number));
            }
        }
        let mut places = Vec::with_capacity(events.len());
        let ticket = match events.is_empty() {
            true => None,
            false => match self.front.events.append(&events, &mut places) {
                Ok(ticket) => Some(ticket),
                Err(error) => return Err(self.storage_failed("events could not be stored", &error)),
            },
        };
        let metrics = &self.front.metrics;
        metrics.publishes.add(batch.publications.len() as u64);
        metrics.rejected.add((batch.publications.len() - events.len()) as u64);
        let tells_places = self.session.tells_places();
        let mut places = places.into_iter();
        let answers = batch.publications.iter().filter_map(|publication| {
            let answer = match publication.fate {
                Fate::Store(..) => Answer::Stored(places.next().filter(|_| tells_places).map(place)),
                Fate::Refuse(status, reason) => Answer::Refused(status, reason),
            };
            publication.id.map(|id| (id, answer))
        });
        self.pipeline.push(ticket, staged, answers, &mut self.outgoing);
        Ok(())
    }

    /// The hub cannot store now. Nothing of the batch is acknowledged and the connection ends, on both versions: the
    /// client comes back after its back-off and starts with the first message that was not acknowledged, so that no
    /// later message of a lane is ever stored before an earlier one. A refusal in PUBACK could not promise that.
    fn storage_failed(&self, what: &'static str, error: &whimbrel::Error) -> Close {
        match error.kind() {
            ErrorKind::Closed => return Close::ordered(Order::Stop),
            // The registry is about to say so as well.
            ErrorKind::NotFound => return Close::ordered(Order::Revoked),
            _ => tracing::warn!(device = %self.session.sender().device, %error, "{what}"),
        }
        match error.kind() {
            ErrorKind::DiskFull => Close::storage(Status::SERVER_BUSY, "the hub has no space left"),
            _ => Close::storage(Status::SERVER_ERROR, "the hub's storage failed"),
        }
    }

    /// Ends the connection in order: the will, the seat, the last acknowledgements, the goodbye.
    async fn close(&mut self, close: Close) {
        self.front.metrics.count_closed(close.reason);
        tracing::debug!(device = %self.session.sender().device, reason = close.reason.name(), "connection closes");
        if close.publishes_will
            && let Some(will) = self.session.take_will()
            && let Err(error) = self.front.events.append(&[self.session.event(&will, None)], &mut Vec::new())
        {
            tracing::warn!(device = %self.session.sender().device, %error, "the will could not be stored");
        }
        // From here on nothing is read: a successor may start, and finds what was not acknowledged in the queue.
        self.push = None;
        self.seat = None;
        let limit = self.front.limits.closing;
        // In vain when the other side is gone or too slow: it was closing anyway.
        let _ = timeout(limit, self.say_goodbye(close)).await;
    }

    async fn say_goodbye(&mut self, close: Close) -> io::Result<()> {
        poll_fn(|cx| {
            // Should a commit fail, nothing is left to wait for.
            let _ = self.poll_commits(cx);
            ready!(self.poll_send(cx))?;
            if self.pipeline.is_empty() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
        })
        .await?;
        if let Some((code, status, reason)) = close.disconnect {
            self.codec.write(Reply::Disconnect(code, status, reason), &mut self.outgoing);
            poll_fn(|cx| self.poll_send(cx)).await?;
        }
        self.stream.shutdown().await?;
        // Closing with unread bytes would reset the connection and take the last acknowledgements with it.
        tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await?;
        Ok(())
    }
}

fn place(stored: crate::events::Place) -> Place {
    Place { partition: stored.partition, sequence: stored.sequence }
}

/// The thread's buffer, filled with `beginning`. A second borrower, which there is none of, would get a new one.
fn borrow(beginning: &[u8]) -> BytesMut {
    let mut buffer = SHARED.take().unwrap_or_default();
    buffer.clear();
    buffer.reserve(READ_BYTES + COPIED_BYTES);
    buffer.extend_from_slice(beginning);
    buffer
}

fn give_back(buffer: BytesMut) {
    SHARED.set(Some(buffer));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_subscribe_pays_two_pointers_for_those_who_did() {
        // Kept while nothing happens, a hundred thousand times over; beside it the task, the timer and the socket.
        let connection = size_of::<Connection<tokio::net::TcpStream>>();
        assert!(connection <= 600, "{connection} bytes");
        assert_eq!(size_of::<Option<Box<Push>>>(), size_of::<usize>());
    }
}
