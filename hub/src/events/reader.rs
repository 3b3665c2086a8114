//! Reading a partition forward.

use whimbrel::Result;

use super::{Event, ReadLimit};
use crate::store::LogReader;

/// Reads a partition forward.
pub struct EventReader {
    log: Box<dyn LogReader>,
}

impl EventReader {
    pub(super) fn new(log: Box<dyn LogReader>) -> Self {
        Self { log }
    }

    /// Up to `limit` events that are durable, in order; waits when there are none yet. Cancelling loses nothing. Events
    /// that retention removed meanwhile are skipped.
    ///
    /// # Errors
    /// `JournalIo`; `Closed` when the hub stops.
    pub async fn next(&mut self, limit: usize, out: &mut Vec<Event>) -> Result<()> {
        self.next_within(ReadLimit::events(limit), out).await
    }

    /// As [`EventReader::next`], with a limit in bytes beside the one in events.
    ///
    /// # Errors
    /// As there.
    pub async fn next_within(&mut self, limit: ReadLimit, out: &mut Vec<Event>) -> Result<()> {
        let known = out.len();
        loop {
            self.log.ready(limit, out).await?;
            if out.len() > known || limit.events == 0 || limit.bytes == 0 {
                return Ok(());
            }
            self.log.wait().await?;
        }
    }

    /// As [`EventReader::next`], without waiting for new ones.
    ///
    /// # Errors
    /// As there.
    pub async fn ready(&mut self, limit: usize, out: &mut Vec<Event>) -> Result<()> {
        self.log.ready(ReadLimit::events(limit), out).await
    }
}
