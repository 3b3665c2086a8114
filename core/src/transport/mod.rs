//! Carries messages to a hub and acknowledgements back. No persistence, no policy: when to connect, what to send and
//! what a failure means for the messages is decided in [`crate::delivery`].

#[cfg(feature = "amqp")]
pub mod amqp;
pub mod endpoint;
#[cfg(feature = "http")]
pub mod http;
mod identity;
pub mod mqtt;
mod socket;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "websocket")]
mod websocket;

#[cfg(feature = "service")]
pub(crate) use socket::{Route, Upgrade};

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use crate::{
    Error, Lane, Message, Result,
    delivery::Verdict,
    outbox::{Queued, Sequence},
};

/// What a device speaks with its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Protocol {
    /// What the scheme of the server says, and MQTT where it says nothing: 3.1.1 with hosts below `azure-devices.`,
    /// where MQTT 5 never left preview; elsewhere 5, and 3.1.1 when the server does not speak 5.
    #[default]
    Auto,
    /// MQTT 3.1.1.
    Mqtt3,
    /// MQTT 5.
    Mqtt5,
    /// AMQP 1.0 (cargo feature `amqp`).
    Amqp,
    /// HTTP (cargo feature `http`): a request for each message or batch, and commands fetched at long intervals.
    Http,
}

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
    /// Most commands it takes unsettled, where the protocol can say it.
    pub inbox_window: u16,
}

/// What the hub said when it let us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Most unacknowledged messages it takes.
    pub receive_maximum: u16,
    /// How long until the credentials of this connection have to be renewed, where they can be.
    pub renew_in: Option<Duration>,
    /// What this protocol can do with commands.
    pub commands: CommandSupport,
}

/// What a protocol can do with commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandSupport {
    /// Whether a command can be abandoned and rejected, and not only completed. Not on MQTT 3.1.1.
    pub abandon_and_reject: bool,
    /// Whether the hub answers each settlement. Where it does not (MQTT), [`Settled`] comes when something else that
    /// it said shows that it has the settlement.
    pub answers: bool,
}

/// One connection. Batches go in and come out; nothing is boxed or spawned per message.
pub trait Connection: Send {
    /// Takes messages to be published, in order. Never waits; the bytes move in [`Connection::drive`]. No more than the
    /// offered window, or the hub's Receive Maximum, may be unanswered.
    fn publish(&mut self, messages: &[Queued]);

    /// Whether it makes sense to publish now; `false` while a good deal waits to be written.
    fn has_room(&self) -> bool;

    /// Has the hub send commands from now on, at most `window` unsettled at once. Called once, at any time. A hub that
    /// keeps the device's subscription may send some before it is called: they are handed out like any other. When the
    /// hub refuses, [`Incoming::refused`] says why and the connection goes on.
    fn receive_commands(&mut self, window: u16);

    /// Takes settlements of commands that arrived on this connection. Never waits; each comes back as a [`Settled`]. The
    /// lock of a handle may be over: that is for the hub to say.
    fn settle(&mut self, settlements: &[(Handle, Settlement)]);

    /// Moves bytes both ways until something came in (appended to `incoming`) or there is room. Cancelling loses
    /// nothing: call again.
    ///
    /// # Errors
    /// Why the connection ended, after everything that had arrived was handed out.
    fn drive(&mut self, incoming: &mut Incoming) -> impl Future<Output = Result<()>> + Send;

    /// Says goodbye and closes; gives up after a short while.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// What a connection brought.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Answers to messages.
    pub answers: Vec<Answer>,
    /// Commands, in the order of their arrival.
    pub commands: Vec<Arrived>,
    /// What became of settlements.
    pub settled: Vec<Settled>,
    /// Why the hub sends no commands on this connection, when it refused to.
    pub refused: Option<Error>,
}

impl Incoming {
    /// Whether it brought nothing.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many things it brought.
    pub fn count(&self) -> usize {
        let refused = usize::from(self.refused.is_some());
        self.answers.len() + self.commands.len() + self.settled.len() + refused
    }

    /// Moves everything over, behind what is here.
    #[cfg(any(feature = "amqp", feature = "http"))]
    fn append(&mut self, other: &mut Self) {
        self.answers.append(&mut other.answers);
        self.commands.append(&mut other.commands);
        self.settled.append(&mut other.settled);
        self.refused = other.refused.take().or(self.refused.take());
    }
}

/// Names a delivery of a command on the connection it arrived on, and on no other.
pub type Handle = u64;

/// A command that arrived, locked for this device until it is settled, the lock runs out or the connection ends.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// To settle it by. The same one again is the same delivery once more.
    pub handle: Handle,
    /// Its number in the device's queue, where the protocol tells it (not on MQTT 3.1.1).
    pub sequence: Option<u64>,
    /// When the hub took it in, where the protocol tells it (not on MQTT 3.1.1).
    pub enqueued_at: Option<SystemTime>,
    /// How often it was abandoned before, where the protocol tells it (not on MQTT 3.1.1).
    pub delivery_count: Option<u32>,
    /// The command.
    pub message: Message,
}

/// What is to become of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// It was dealt with: the hub removes it.
    Complete,
    /// Not now: the hub delivers it again, a limited number of times.
    Abandon,
    /// Never: the hub dead-letters it.
    Reject,
}

/// What became of a settlement.
#[derive(Debug)]
pub struct Settled {
    /// Of which command.
    pub handle: Handle,
    /// `LockLost` when the hub did not hold it for us any more; `Unsupported` where the protocol cannot say it.
    pub result: Result<()>,
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
