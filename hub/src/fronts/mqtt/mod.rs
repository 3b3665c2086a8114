//! MQTT 3.1.1 and 5 on one port: what devices speak. Contract `mqtt.md`.
//!
//! An event is acknowledged when it is durable and not before, in the order of the publications. Reading goes on while
//! commits are under way, up to the bounds in [`Limits`]; then TCP makes the client wait.
//!
//! Where the contract leaves a choice:
//!
//! - When the hub cannot store (disk full, journal failed) the connection ends, on MQTT 5 with DISCONNECT 131 and
//!   status `0603` (busy) or `0601` (error), both of which may be repeated. Nothing is ever refused in PUBACK for a
//!   passing reason: later messages of the lane are already on their way, and storing one of them would make the
//!   hub's high-water mark pass the refused one.
//! - PUBACK refuses for good: status `0100` for a message that is not as specified or too large, `0504` for another
//!   topic.
//! - On MQTT 5 the events topic of 3.1.1 is accepted beside `$iothub/telemetry`, with the same user properties.
//! - Clients that offer de-duplication are told a larger Receive Maximum, and a Maximum Packet Size that a message of
//!   the full size fits into.
//! - A client that sends more than Receive Maximum is held back, not cut off: widely used ones do not know it.
//! - Server Keep Alive is what the client asked for, and 1,140 s when it asked for none or more.
//! - Commands go to clients that subscribed to them: on 3.1.1 to the topic below `devicebound`, on MQTT 5 to
//!   `$iothub/commands` or, for clients that know only that, to the topic of 3.1.1. Who subscribed both ways gets each
//!   once. At most 16 are unacknowledged (and no more than the client's Receive Maximum); one that is not acknowledged
//!   keeps its place even when its lock has run out and it was sent again under another packet id, as MQTT has it.
//! - Acknowledgements are taken in any order; late, repeated and invented ones do nothing. What PUBACK of MQTT 5 means
//!   where the contract does not say stands at `settlement` in `packet`.
//! - A subscription of quality of service 0 completes a command when its bytes were handed to the network.
//! - A clean session gets all that is in the queue when it subscribes. After UNSUBSCRIBE, and while a subscription of
//!   another version of MQTT is all there is, commands wait in the queue; those already sent may still be acknowledged.
//! - A command that fits into no packet the client accepts is rejected, and logged: it could never be delivered, and would
//!   hold its place in the queue until it expires.
//! - A subscription of a session that is kept is on stable storage before SUBACK.
//! - A will is published when the connection ends in any way but DISCONNECT, takeover included, at once (its delay is
//!   not kept) and not when the hub stops.

mod command;
mod connect;
mod connection;
mod metrics;
mod packet;
mod pipeline;
mod publish;
mod push;
mod session;

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use self::{
    connect::Refusal,
    connection::{Connection, Start},
    metrics::Refused,
    session::Session,
};
use super::door::{self, Behind, Door, KeptOut, PeerInfo};
use crate::{
    access::Access,
    commands::Commands,
    events::Events,
    limits::{Counted, Limits, Staging},
    sessions::{Identity, Sessions},
};

pub(crate) use self::metrics::{Counter, Metrics, reasons};

/// The MQTT front: everything its connections share.
pub(crate) struct Front {
    access: Access,
    events: Events,
    commands: Commands,
    sessions: Arc<Sessions>,
    limits: Limits,
    metrics: Metrics,
    staging: Arc<Staging>,
    door: Door,
}

impl Front {
    pub(crate) fn new(
        access: Access,
        events: Events,
        commands: Commands,
        sessions: Arc<Sessions>,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            access,
            events,
            commands,
            sessions,
            metrics: Metrics::default(),
            staging: Arc::new(Staging::new(limits.staged_bytes)),
            door: Door::new(&limits),
            limits,
        })
    }

    /// What was counted since the start.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Connections open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.door.open_connections()
    }

    /// Bytes of events that wait for the disk now.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.staging.staged()
    }

    /// Accepts connections until the front stops.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        door::listen(self, listener, tls).await;
    }

    /// Serves a client that connected in another way, such as over WebSocket, until its connection ends.
    pub(crate) async fn serve_connection<S>(self: Arc<Self>, stream: S, peer: PeerInfo)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        door::serve_connection(self, stream, peer).await;
    }

    /// Accepts nothing more, lets every connection finish its commits, acknowledge them and say goodbye, and waits
    /// until all have ended. Cancelling leaves them ending.
    pub(crate) async fn stop(&self) {
        self.door.shut();
        self.sessions.stop();
        self.door.emptied().await;
    }

    async fn open<S>(
        self: Arc<Self>,
        mut stream: S,
        peer: Box<PeerInfo>,
        deadline: Instant,
    ) -> Option<Box<Connection<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut received = BytesMut::new();
        let first = tokio::select! {
            biased;
            () = self.door.stopping().cancelled() => Err(Refused::Stopping),
            first = timeout_at(deadline, self.read_first_packet(&mut stream, &mut received)) => {
                first.unwrap_or(Err(Refused::Silent))
            }
        };
        let hello = first.and_then(|()| packet::read_hello(&mut received).map_err(|_| Refused::Malformed));
        let (hello, mut codec) = match hello {
            Ok(hello) => hello,
            Err(reason) => {
                self.metrics.count_refused(reason);
                return None;
            }
        };
        let now = SystemTime::now();
        let mut outgoing = BytesMut::new();
        let admission = match connect::admit(hello, &peer, &self.access, &self.limits, now) {
            Ok(admission) => admission,
            Err(refusal) => {
                self.turn_away(stream, &refusal, codec).await;
                return None;
            }
        };
        let sender = &admission.sender;
        let identity = Identity { device: Arc::clone(&sender.device), module: sender.module.clone() };
        let Some((seat, kept)) = self.sessions.enter(identity, &sender.generation, admission.terms).await
        else {
            self.turn_away(stream, &Refusal::stopping(), codec).await;
            return None;
        };
        self.metrics.connects.add(1);
        admission.write_welcome(kept.is_some(), &mut codec, &mut outgoing);
        let silence = admission.silence(&self.limits);
        let expires = admission.sender.expires_at.map(|at| self.ends(at));
        let session =
            Session::new(codec.version(), admission, kept.unwrap_or_default(), self.limits.message_bytes);
        let start = Start { codec, session, seat, outgoing, received, silence, expires };
        Some(Box::new(Connection::new(stream, self, start)))
    }

    async fn read_first_packet<S>(&self, stream: &mut S, received: &mut BytesMut) -> Result<(), Refused>
    where
        S: AsyncRead + Unpin,
    {
        loop {
            if received.first().is_some_and(|first| *first != packet::CONNECT) {
                return Err(Refused::Malformed);
            }
            match packet::packet_bytes(received).map_err(|_| Refused::Malformed)? {
                Some(bytes) if bytes > self.limits.connect_bytes => return Err(Refused::Malformed),
                Some(bytes) if bytes <= received.len() => return Ok(()),
                _ => {}
            }
            if stream.read_buf(received).await.unwrap_or(0) == 0 {
                return Err(Refused::Silent);
            }
        }
    }

    /// Sends CONNACK with the reason and closes.
    async fn turn_away<S>(&self, mut stream: S, refusal: &Refusal, mut codec: packet::Codec)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.metrics.count_refused(refusal.reason);
        let mut answer = BytesMut::new();
        refusal.write(&mut codec, &mut answer);
        let said = async {
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        };
        // In vain when the other side is gone: it was to go anyway.
        let _: Result<io::Result<u64>, _> = timeout(self.limits.closing, said).await;
    }

    /// When a connection whose credentials end at `at` has to end.
    fn ends(&self, at: SystemTime) -> Instant {
        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
        let now = Instant::now();
        now.checked_add(left.saturating_add(self.limits.token_grace))
            .unwrap_or(now + Duration::from_secs(1 << 32))
    }
}

impl Behind for Front {
    fn door(&self) -> &Door {
        &self.door
    }

    fn count_kept_out(&self, why: KeptOut) {
        self.metrics.count_refused(match why {
            KeptOut::TooMany => Refused::TooMany,
            KeptOut::Silent => Refused::Silent,
            KeptOut::Malformed => Refused::Malformed,
            KeptOut::Stopping => Refused::Stopping,
        });
    }

    async fn serve<S>(self: Arc<Self>, stream: S, peer: Box<PeerInfo>, deadline: Instant, counted: Counted)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        // Opening happens once; only the connection itself is held while it idles.
        if let Some(mut connection) = Box::pin(Arc::clone(&self).open(stream, peer, deadline)).await {
            connection.run().await;
        }
        drop(counted);
    }
}

#[cfg(test)]
mod tests;
