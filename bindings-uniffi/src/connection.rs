//! What the link is doing.

use std::sync::Arc;

use whimbrel_bindings_support::{ConnectionStates, Pull, guard};

use crate::{
    ConnectionState, Failure,
    call::{Cancel, wait},
};

/// The changes of a device's connection, taken by pull as the commands of an `Inbox`. The present state comes first; states
/// that pass quickly may be left out.
#[derive(Debug, uniffi::Object)]
pub struct ConnectionChanges(Pull<ConnectionStates>);

impl ConnectionChanges {
    pub(crate) fn new(states: ConnectionStates) -> Arc<Self> {
        Arc::new(Self(Pull::new(states)))
    }
}

/// What `ConnectionChanges::take` gives.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum TakenState {
    /// There is none yet.
    Nothing,
    /// There will be none any more.
    End,
    /// A state.
    State {
        /// It.
        state: ConnectionState,
    },
}

#[uniffi::export]
impl ConnectionChanges {
    /// The next state, if there is one; does not wait.
    pub fn take(&self) -> Result<TakenState, Failure> {
        Ok(guard("device.connection", || {
            Ok(match self.0.take().transpose()? {
                None => TakenState::Nothing,
                Some(None) => TakenState::End,
                Some(Some(state)) => TakenState::State { state: ConnectionState::of(&state)? },
            })
        })?)
    }

    /// Resolves when there was something to take.
    pub async fn ready(&self, cancel: Cancel) -> Result<(), Failure> {
        wait("device.connection", cancel, self.0.ready()).await
    }

    /// To be called by who stops waiting.
    pub fn pass_on(&self) {
        self.0.pass_on();
    }
}
