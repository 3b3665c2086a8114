//! Several partitions read as one stream: what is there comes in the order the hub took it in.

use futures_util::future::select_all;
use whimbrel::Result;

use crate::events::{Event, EventReader};

/// Events read ahead from each partition.
const READ_AHEAD: usize = 128;

/// One partition of a feed.
pub(super) struct Source {
    reader: EventReader,
    /// Sequence number to stop before; none to go on for ever.
    until: Option<u64>,
    /// Read ahead, the next one last.
    ahead: Vec<Event>,
    /// There was nothing when it was last read.
    dry: bool,
    ended: bool,
}

impl Source {
    /// A partition read by `reader`, up to but without `until`.
    pub(super) fn new(reader: EventReader, until: Option<u64>) -> Self {
        Self { reader, until, ahead: Vec::new(), dry: false, ended: false }
    }

    async fn fill(&mut self) -> Result<()> {
        if !self.ahead.is_empty() || self.ended {
            return Ok(());
        }
        self.reader.ready(READ_AHEAD, &mut self.ahead).await?;
        if let Some(until) = self.until {
            self.ahead.retain(|event| event.sequence < until);
            self.ended = self.ahead.is_empty();
        }
        self.dry = self.ahead.is_empty();
        self.ahead.reverse();
        Ok(())
    }

    async fn wait(&mut self) -> Result<()> {
        self.reader.next(READ_AHEAD, &mut self.ahead).await?;
        self.dry = false;
        self.ahead.reverse();
        Ok(())
    }
}

/// Partitions merged.
pub(super) struct Feed {
    sources: Vec<Source>,
}

impl Feed {
    pub(super) fn new(sources: Vec<Source>) -> Self {
        Self { sources }
    }

    /// The next event there is, without waiting: of those at hand, the one the hub took in first. Events that come
    /// meanwhile to a partition that had none may stand behind some later ones of others.
    ///
    /// # Errors
    /// As [`EventReader::ready`].
    pub(super) async fn ready(&mut self) -> Result<Option<Event>> {
        // Those that had nothing are looked at again when another one has to be read anyway, not for each event.
        if self.sources.iter().all(|source| source.ahead.is_empty())
            || self.sources.iter().any(|source| source.ahead.is_empty() && !source.dry)
        {
            for source in &mut self.sources {
                source.fill().await?;
            }
        }
        let offset = |source: &&mut Source| source.ahead.last().map_or(u64::MAX, |event| event.offset);
        Ok(self.sources.iter_mut().min_by_key(offset).and_then(|source| source.ahead.pop()))
    }

    /// Waits until [`Feed::ready`] has something; only after it had nothing. Cancelling loses nothing.
    ///
    /// # Errors
    /// As [`EventReader::next`].
    pub(super) async fn wait(&mut self) -> Result<()> {
        let waiting = self.sources.iter_mut().map(|source| Box::pin(source.wait()));
        select_all(waiting).await.0
    }
}
