//! Hearing of outcomes as they happen.

use std::fmt;

use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};
use tokio_util::sync::CancellationToken;
use whimbrel::{Error, ErrorKind, Result};

use super::{CommandStatus, receiver::closed};

const OPERATION: &str = "commands.outcomes";

/// Hears of outcomes; see [`Commands::outcomes`](super::Commands::outcomes).
pub struct OutcomeReader {
    outcomes: broadcast::Receiver<CommandStatus>,
    stop: CancellationToken,
    /// To be told first.
    missed: Option<u64>,
}

impl OutcomeReader {
    pub(super) fn new(outcomes: broadcast::Receiver<CommandStatus>, stop: CancellationToken) -> Self {
        Self { outcomes, stop, missed: None }
    }

    /// The next outcomes, at least one; waits for it. Cancelling loses nothing.
    ///
    /// # Errors
    /// `Conflict` when it was too slow and missed some; it goes on with the newer ones. `Closed` when the hub stops.
    pub async fn next(&mut self, limit: usize, out: &mut Vec<CommandStatus>) -> Result<()> {
        if limit == 0 {
            return Ok(());
        }
        if let Some(missed) = self.missed.take() {
            return Err(slow(missed));
        }
        let first = tokio::select! {
            biased;
            first = self.outcomes.recv() => first,
            () = self.stop.cancelled() => return Err(closed(OPERATION)),
        };
        match first {
            Ok(first) => out.push(first),
            Err(RecvError::Lagged(missed)) => return Err(slow(missed)),
            Err(RecvError::Closed) => return Err(closed(OPERATION)),
        }
        for _ in 1..limit {
            match self.outcomes.try_recv() {
                Ok(next) => out.push(next),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                Err(TryRecvError::Lagged(missed)) => {
                    self.missed = Some(missed);
                    break;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for OutcomeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutcomeReader").finish_non_exhaustive()
    }
}

fn slow(missed: u64) -> Error {
    let text = "the reader was too slow and missed outcomes: ask for the status of what it waits for";
    Error::new(ErrorKind::Conflict, OPERATION, text).with("missed", missed)
}
