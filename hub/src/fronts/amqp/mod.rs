//! AMQP 1.0: what devices, services and readers of events speak. Contract `amqp.md`.
//!
//! A connection has one task for its socket and one for each link. [`attach::decide`] says who serves a link; the modules
//! named after what they serve are those.
//!
//! Where the contract leaves a choice:
//!
//! - Links whose token ended stay for the setting `token-grace`, and are then detached with `amqp:unauthorized-access`; so
//!   is a connection that signed in with a token as password, which cannot be renewed.
//! - A connection that was granted nothing within the time for a first packet is closed.
//! - EXTERNAL is offered only to a client that showed a certificate.
//! - A change of a device (disabled, deleted, other credentials) detaches its links on all connections.

mod address;
mod attach;
mod cbs;
mod codec;
mod condition;
mod connection;
mod device_commands;
mod device_events;
mod engine;
mod events;
mod feedback;
mod grants;
mod link;
mod metrics;
mod request;
mod roster;
mod sasl;
mod service_commands;

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::{metrics::Refused, roster::Roster};
use super::mqtt::PeerInfo;
use crate::{
    access::Access,
    commands::Commands,
    events::Events,
    limits::{Census, Counted, Limits, Staging},
    sessions::Presences,
};

pub(crate) use self::metrics::Metrics;

/// The AMQP front: everything its connections share.
pub(crate) struct Front {
    access: Access,
    events: Events,
    reading: Arc<events::Reading>,
    commands: Commands,
    presences: Arc<Presences>,
    limits: Limits,
    metrics: Metrics,
    staging: Arc<Staging>,
    census: Arc<Census>,
    roster: Arc<Roster>,
    stopping: CancellationToken,
}

impl Front {
    /// `port` is where clients that look for the event log find it.
    pub(crate) fn new(
        access: Access,
        events: Events,
        commands: Commands,
        presences: Arc<Presences>,
        limits: Limits,
        port: u16,
    ) -> Arc<Self> {
        let reading = events::Reading::new(access.clone(), events.clone(), port);
        Arc::new(Self {
            reading: Arc::new(reading),
            access,
            events,
            commands,
            presences,
            metrics: Metrics::default(),
            staging: Arc::new(Staging::new(limits.staged_bytes)),
            census: Arc::default(),
            roster: Arc::default(),
            stopping: CancellationToken::new(),
            limits,
        })
    }

    /// What was counted since the start.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Connections open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.census.open()
    }

    /// Devices that have a link now.
    pub(crate) fn connected_devices(&self) -> usize {
        self.roster.devices()
    }

    /// Bytes of events that wait for the disk now.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.staging.staged()
    }

    /// Detaches the links of a device that was disabled, deleted, or given other credentials; those it still may have it
    /// attaches again.
    pub(crate) fn revoke(&self, device: &str) {
        self.roster.detach(device, &revoked());
    }

    /// [`Front::revoke`] for a module alone.
    pub(crate) fn revoke_module(&self, device: &str, module: &str) {
        self.roster.detach_module(device, module, &revoked());
    }

    /// [`Front::revoke`] for every device.
    pub(crate) fn revoke_all(&self) {
        self.roster.detach_all(&revoked());
    }

    /// Accepts connections until the front stops.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, as a rule: others have to end first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(counted) = self.count_in() else { continue };
            // What is ready is written at once; delaying it gains nothing.
            let _ = stream.set_nodelay(true);
            let front = Arc::clone(&self);
            let deadline = Instant::now() + self.limits.first_packet;
            match tls.clone() {
                None => {
                    let peer = PeerInfo { address, certificates: Vec::new(), host: None };
                    tokio::spawn(front.serve(stream, peer, deadline, counted));
                }
                Some(tls) => {
                    tokio::spawn(async move {
                        if let Some((stream, peer)) =
                            Box::pin(front.secure(stream, tls, address, deadline)).await
                        {
                            front.serve(stream, peer, deadline, counted).await;
                        }
                    });
                }
            }
        }
    }

    /// Serves a client that connected in another way, such as over WebSocket, until its connection ends.
    pub(crate) async fn serve_connection<S>(self: Arc<Self>, stream: S, peer: PeerInfo)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Some(counted) = self.count_in() else { return };
        let deadline = Instant::now() + self.limits.first_packet;
        self.serve(stream, peer, deadline, counted).await;
    }

    /// Accepts nothing more, lets every link answer what it has taken, says goodbye, and waits until all connections have
    /// ended. Cancelling leaves them ending.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.census.emptied().await;
    }

    fn count_in(&self) -> Option<Counted> {
        let counted = self.census.enter(self.limits.connections);
        if counted.is_none() {
            self.metrics.count_refused(Refused::TooMany);
        }
        counted
    }

    async fn secure(
        &self,
        stream: TcpStream,
        tls: TlsAcceptor,
        address: std::net::SocketAddr,
        deadline: Instant,
    ) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, PeerInfo)> {
        let handshake = tokio::select! {
            biased;
            () = self.stopping.cancelled() => {
                self.metrics.count_refused(Refused::Stopping);
                return None;
            }
            handshake = timeout_at(deadline, tls.accept(stream)) => handshake,
        };
        match handshake {
            Ok(Ok(stream)) => {
                let connection = stream.get_ref().1;
                let certificates = connection.peer_certificates().unwrap_or_default().to_vec();
                let host = connection.server_name().map(str::to_owned);
                Some((stream, PeerInfo { address, certificates, host }))
            }
            Ok(Err(error)) => {
                tracing::info!(peer = %address, %error, "refused: the TLS handshake failed");
                self.metrics.count_refused(Refused::Malformed);
                None
            }
            Err(_) => {
                self.metrics.count_refused(Refused::Silent);
                None
            }
        }
    }

    async fn serve<S>(self: Arc<Self>, stream: S, peer: PeerInfo, deadline: Instant, counted: Counted)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        connection::serve(self, stream, peer, deadline).await;
        drop(counted);
    }
}

fn revoked() -> fe2o3_amqp_types::definitions::Error {
    condition::unauthorized("the device was disabled, deleted, or its credentials changed")
}
