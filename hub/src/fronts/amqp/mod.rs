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

use std::sync::Arc;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use self::{metrics::Refused, roster::Roster};
use super::door::{self, Behind, Door, KeptOut, PeerInfo};
use crate::{
    access::Access,
    commands::Commands,
    events::Events,
    limits::{Counted, Limits, Staging},
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
    door: Door,
    roster: Arc<Roster>,
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
            door: Door::new(&limits),
            roster: Arc::default(),
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
        door::listen(self, listener, tls).await;
    }

    /// Serves a client that connected in another way, such as over WebSocket, until its connection ends.
    pub(crate) async fn serve_connection<S>(self: Arc<Self>, stream: S, peer: PeerInfo)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        door::serve_connection(self, stream, peer).await;
    }

    /// Accepts nothing more, lets every link answer what it has taken, says goodbye, and waits until all connections have
    /// ended. Cancelling leaves them ending.
    pub(crate) async fn stop(&self) {
        self.door.shut();
        self.door.emptied().await;
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
        connection::serve(self, stream, *peer, deadline).await;
        drop(counted);
    }
}

fn revoked() -> fe2o3_amqp_types::definitions::Error {
    condition::unauthorized("the device was disabled, deleted, or its credentials changed")
}
