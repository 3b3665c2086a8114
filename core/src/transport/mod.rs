//! Carries messages to a hub and acknowledgements back. No persistence, no policy: when to connect, what to send and
//! what a failure means for the messages is decided in [`crate::delivery`].

pub mod endpoint;
pub mod mqtt;
mod socket;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "websocket")]
mod websocket;

use std::{future::Future, time::Duration};

use crate::{
    Lane, Result,
    delivery::Verdict,
    outbox::{Queued, Sequence},
};

/// A way to reach the hub. It knows the address and the credentials, and makes one connection at a time.
pub trait Transport: Send + Sync + 'static {
    /// What it makes.
    type Connection: Connection;

    /// Connects, with fresh credentials. Cancelling closes whatever was opened.
    ///
    /// # Errors
    /// `Unauthorized`, `Throttled` (perhaps with a wait), `Unreachable`, `Protocol`, `Unsupported`.
    fn connect(&self, offer: Offer) -> impl Future<Output = Result<(Self::Connection, Greeting)>> + Send;
}

/// What the client brings into a new connection.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The outbox's id: with lane and number it names a message for ever.
    pub outbox_id: String,
    /// Most messages the client has in flight.
    pub window: usize,
}

/// What the hub said when it let us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Most unacknowledged messages it takes.
    pub receive_maximum: u16,
    /// How long until the credentials of this connection have to be renewed, where they can be.
    pub renew_in: Option<Duration>,
}

/// One connection. Batches go in and come out; nothing is boxed or spawned per message.
pub trait Connection: Send {
    /// Takes messages to be published, in order. Never waits; the bytes move in [`Connection::drive`]. No more than the
    /// offered window, or the hub's Receive Maximum, may be unanswered.
    fn publish(&mut self, messages: &[Queued]);

    /// Whether it makes sense to publish now; `false` while a good deal waits to be written.
    fn has_room(&self) -> bool;

    /// Moves bytes both ways until there are answers (appended to `answers`) or room. Cancelling loses nothing: call
    /// again.
    ///
    /// # Errors
    /// Why the connection ended, after every answer that had arrived was handed out.
    fn drive(&mut self, answers: &mut Vec<Answer>) -> impl Future<Output = Result<()>> + Send;

    /// Says goodbye and closes; gives up after a short while.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// The hub's answer to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The lane of the message.
    pub lane: Lane,
    /// Its number in the lane.
    pub sequence: Sequence,
    /// What the hub said.
    pub verdict: Verdict,
}
