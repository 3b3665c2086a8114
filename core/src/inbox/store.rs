//! The journal of the inbox: notes of settlements, and snapshots of the books.

use std::sync::Arc;

use tracing::{info, warn};

use super::{
    books::{self, Books},
    key::Key,
};
use crate::{
    Result,
    journal::{Disk, Journal, JournalOptions, Kind, MemoryDisk, Record, Ticket, Urgency},
    outbox::{Storage, real_disk},
    transport::Settlement,
};

/// Name of the folder, beside the lanes of the outbox.
const FOLDER: &str = "inbox";
/// Bytes of a segment: some times the largest snapshot.
const SEGMENT_BYTES: u64 = 1 << 20;

pub(super) struct Store {
    pub(super) journal: Journal,
    /// Nothing survives a restart: nobody waits for the disk.
    pub(super) volatile: bool,
    disk: Arc<dyn Disk>,
    scratch: Vec<u8>,
}

impl Store {
    pub(super) fn open(storage: &Storage, now: u64) -> Result<(Self, Books)> {
        match storage {
            Storage::Directory(folder) => Self::open_on(real_disk(&folder.join(FOLDER))?, false, now),
            Storage::Memory => Self::open_on(Arc::new(MemoryDisk::default()), true, now),
        }
    }

    /// The books as of `now`, in seconds since 1970.
    pub(super) fn open_on(disk: Arc<dyn Disk>, volatile: bool, now: u64) -> Result<(Self, Books)> {
        let options = JournalOptions { segment_bytes: SEGMENT_BYTES, spare_segments: 0, sync_interval: None };
        let (journal, found) = Journal::open(disk.clone(), options)?;
        let notes = found.notes.iter().map(|note| note.as_ref());
        let books = Books::restore(found.snapshot.as_deref(), notes, now)?;
        if found.torn_bytes > 0 {
            info!(bytes = found.torn_bytes, "an unfinished write was cut off the inbox");
        }
        for damage in &found.damaged {
            warn!(segment = damage.segment, offset = damage.offset, "damage in the inbox was set aside");
        }
        Ok((Self { journal, volatile, disk, scratch: Vec::new() }, books))
    }

    /// Where it is, to open it there again.
    pub(super) fn place(&self) -> (Arc<dyn Disk>, bool) {
        (self.disk.clone(), self.volatile)
    }

    /// Writes that a command was settled.
    pub(super) fn settled(
        &mut self,
        books: &Books,
        key: Key,
        settlement: Settlement,
        at: u64,
    ) -> Result<Ticket> {
        self.scratch.clear();
        books::write_settled(key, settlement, at, &mut self.scratch);
        self.append(books, Urgency::Now)
    }

    /// Writes, some time, that the hub knows of a settlement.
    pub(super) fn forgotten(&mut self, books: &Books, key: Key) {
        self.scratch.clear();
        books::write_forgotten(key, &mut self.scratch);
        if let Err(error) = self.append(books, Urgency::Lazy) {
            // After a restart it is remembered once more, and nothing else.
            tracing::debug!(%error, "a note of the inbox was not written");
        }
    }

    fn append(&self, books: &Books, urgency: Urgency) -> Result<Ticket> {
        let note = Record { kind: Kind::Note, parts: &[&self.scratch] };
        Ok(self.journal.append(&[note], urgency, &mut |out| books.write_state(out))?.ticket)
    }
}
