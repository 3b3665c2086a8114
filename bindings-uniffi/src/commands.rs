//! Commands on the device.

use std::sync::Arc;

use whimbrel_bindings_support::{Pull, guard};

use crate::{
    Failure, Received,
    call::{Cancel, wait},
};

/// The commands of a device, taken by pull: what crosses on its own is the news that there is something, never a command, so
/// one cannot be lost with a wait that is given up at that moment. Who wants one asks `take`; when there is nothing, he waits
/// for `ready` and asks again; when he stops waiting, he calls `pass_on`.
#[derive(Debug, uniffi::Object)]
pub struct Inbox(Pull<whimbrel::Inbox>);

impl Inbox {
    pub(crate) fn new(inbox: whimbrel::Inbox) -> Arc<Self> {
        Arc::new(Self(Pull::new(inbox)))
    }
}

/// What `Inbox::take` gives.
#[derive(Debug, uniffi::Enum)]
pub enum TakenCommand {
    /// There is none yet.
    Nothing,
    /// There will be none any more: the client is closed.
    End,
    /// A command.
    Command {
        /// To settle it.
        command: Arc<Command>,
        /// What the service sent.
        message: Received,
    },
}

#[uniffi::export]
impl Inbox {
    /// The next command, if there is one; does not wait.
    pub fn take(&self) -> Result<TakenCommand, Failure> {
        Ok(guard("inbox.next", || {
            Ok(match self.0.take().transpose()? {
                None => TakenCommand::Nothing,
                Some(None) => TakenCommand::End,
                Some(Some(command)) => {
                    let message = Received::of(&command);
                    TakenCommand::Command { command: Arc::new(Command(command)), message }
                }
            })
        })?)
    }

    /// Resolves when there was something to take; another taker may have been faster.
    pub async fn ready(&self, cancel: Cancel) -> Result<(), Failure> {
        wait("inbox.next", cancel, self.0.ready()).await
    }

    /// To be called by who stops waiting, for the news may have been for him.
    pub fn pass_on(&self) {
        self.0.pass_on();
    }
}

/// A command that was taken. Freed unsettled it stays locked until the hub takes the lock back, and is delivered again then.
#[derive(Debug, uniffi::Object)]
pub struct Command(whimbrel::Command);

/// Who stops waiting stops the waiting, not the settling.
#[uniffi::export]
impl Command {
    /// It was dealt with.
    pub async fn complete(&self, cancel: Cancel) -> Result<(), Failure> {
        wait("command.complete", cancel, self.0.complete()).await
    }

    /// Not now.
    pub async fn abandon(&self, cancel: Cancel) -> Result<(), Failure> {
        wait("command.abandon", cancel, self.0.abandon()).await
    }

    /// Never.
    pub async fn reject(&self, cancel: Cancel) -> Result<(), Failure> {
        wait("command.reject", cancel, self.0.reject()).await
    }
}
