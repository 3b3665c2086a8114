//! A command that was sent, to be followed to its end.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Inner,
    outcomes::{End, Followed},
};
use crate::{
    Error, ErrorKind, Result,
    wire::feedback::{CommandOutcome, FeedbackWanted},
};

/// How to send a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    expires_in: Option<Duration>,
    feedback: FeedbackWanted,
}

impl SendOptions {
    /// Time to live in the device's queue, counted from `send`. Default: the message's own, else the hub's, 1 h on a hub
    /// with default settings. Hubs refuse more than 48 h.
    #[must_use]
    pub fn expires_in(mut self, time_to_live: Duration) -> Self {
        self.expires_in = Some(time_to_live);
        self
    }

    /// Which feedback the hub is to keep for readers of [`ServiceClient::feedback`](super::ServiceClient::feedback).
    /// [`Tracked`] needs none. Default none; against Azure IoT Hub it is always full.
    #[must_use]
    pub fn feedback(mut self, wanted: FeedbackWanted) -> Self {
        self.feedback = wanted;
        self
    }

    pub(super) fn time_to_live(&self) -> Option<Duration> {
        self.expires_in
    }

    pub(super) fn wanted(&self) -> FeedbackWanted {
        self.feedback
    }
}

/// A command the hub has taken in. Dropping it changes nothing for the command.
#[derive(Clone)]
pub struct Tracked {
    followed: Arc<Followed>,
    /// Somebody who waits keeps the client's connection.
    client: Arc<Inner>,
}

impl Tracked {
    pub(super) fn new(followed: Arc<Followed>, client: Arc<Inner>) -> Self {
        Self { followed, client }
    }

    /// The device it is for.
    pub fn device(&self) -> &str {
        &self.followed.key.device
    }

    /// Its message id. With it [`ServiceClient::tracked`](super::ServiceClient::tracked) follows it again after a restart.
    pub fn message_id(&self) -> &str {
        &self.followed.key.message_id
    }

    /// Waits until the command has ended. Any number may wait, any number of times, over lost connections; cancelling
    /// changes nothing.
    ///
    /// # Errors
    /// `NotFound` when the hub knows of no such command, or not any more: it was deleted with its device, or it ended
    /// longer ago than the hub keeps outcomes. `Closed` when the client is closed.
    pub async fn outcome(&self) -> Result<CommandOutcome> {
        tokio::select! {
            biased;
            end = self.followed.end() => match end {
                End::Outcome(outcome) => Ok(outcome),
                End::Unknown => Err(Error::new(
                    ErrorKind::NotFound,
                    OPERATION,
                    "the hub knows of no command with this message id in the queue of this device",
                )
                .with("device", self.device())
                .with("message id", self.message_id())),
            },
            () = self.client.closed() => Err(Error::new(ErrorKind::Closed, OPERATION, "the client was closed")),
        }
    }
}

impl fmt::Debug for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("device", &self.device())
            .field("message_id", &self.message_id())
            .finish()
    }
}

const OPERATION: &str = "tracked.outcome";
