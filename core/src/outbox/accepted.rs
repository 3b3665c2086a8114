//! A message that was taken in and is on its way to the disk.

use std::fmt;

use super::{Receipt, Tell, accept::Commit};
use crate::Result;

/// A message that the outbox has taken in; see [`Outbox::accept`](super::Outbox::accept). Dropping it changes nothing: the
/// message stays in.
#[must_use = "the message is safe only once it is stored"]
pub struct Accepted {
    receipt: Receipt,
    commit: Commit,
    _told: Tell,
}

impl Accepted {
    pub(super) fn new(receipt: Receipt, commit: Commit, told: Tell) -> Self {
        Self { receipt, commit, _told: told }
    }

    /// The receipt, for those who do not wait here: it follows the message, and does not say that it is stored.
    pub fn into_receipt(self) -> Receipt {
        self.receipt
    }

    /// Waits until the message is as safe as was asked for. Those of one lane are safe in the order in which they were
    /// taken in, so whoever waits for one after the other waits once for each commit.
    ///
    /// # Errors
    /// `DiskFull`, `JournalIo`; see [`Outbox::send`](super::Outbox::send).
    pub async fn stored(self) -> Result<Receipt> {
        if let Some((journal, ticket)) = &self.commit {
            journal.durable(*ticket).await?;
        }
        Ok(self.receipt)
    }

    /// [`Accepted::stored`] for threads outside a runtime.
    ///
    /// # Errors
    /// As there.
    pub fn wait_stored(self) -> Result<Receipt> {
        if let Some((journal, ticket)) = &self.commit {
            journal.wait_durable(*ticket)?;
        }
        Ok(self.receipt)
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("receipt", &self.receipt).finish_non_exhaustive()
    }
}
