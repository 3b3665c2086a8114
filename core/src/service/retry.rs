//! How long to wait before the next attempt.

use std::time::Duration;

use crate::{
    Error, ErrorKind, Retry,
    delivery::{Backoff, Jitter},
};

/// Failures in a row, and what follows from them.
pub(super) struct Retries {
    backoff: Backoff,
    failures: u32,
    jitter: Jitter,
}

impl Retries {
    pub(super) fn new(backoff: Backoff) -> Self {
        // Without randomness the waits are the same each time, which only matters to a fleet.
        Self { backoff, failures: 0, jitter: Jitter::new(getrandom::u64().unwrap_or(7)) }
    }

    /// It works again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after `error`.
    pub(super) fn after(&mut self, error: &Error) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        match error.kind() {
            ErrorKind::Throttled => self.backoff.throttled(failures, error.wait_hint(), &mut self.jitter),
            _ if Self::passes(error) => self.backoff.after(failures, &mut self.jitter),
            _ => self.backoff.slow(&mut self.jitter),
        }
    }

    /// Whether it may pass by itself.
    pub(super) fn passes(error: &Error) -> bool {
        matches!(error.kind().retry(), Retry::Later | Retry::WaitAgain)
    }

    /// Whether the program should hear of it, because waiting alone is not going to help.
    pub(super) fn is_worth_telling(error: &Error) -> bool {
        !Self::passes(error)
    }
}
