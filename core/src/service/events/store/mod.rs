//! Where readers keep how far they got, and which of them reads which partition.

mod file;
mod hub;
mod memory;
mod table;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

pub use file::FileCheckpoints;
pub use hub::HubCheckpoints;
pub use memory::MemoryCheckpoints;

use crate::Result;

/// Keeps checkpoints and ownerships of consumer groups. Names of groups are compared without case.
///
/// Ownership is a lease: it ends by itself unless it is renewed, and changes hands only by compare-and-swap on the etag,
/// so that of several readers that want a partition one gets it. Times to live are counted by the store's clock, so
/// readers on machines whose clocks differ agree. A dropped future may leave its change done or not done, never half
/// done.
pub trait CheckpointStore: Send + Sync + 'static {
    /// How far the group has got, by partition; without the partitions it has no checkpoint for.
    ///
    /// # Errors
    /// The store's own, such as `Unreachable` or `JournalIo`.
    fn checkpoints<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<BTreeMap<u32, Checkpoint>>>;

    /// Stores how far the group has got in one partition; durable when it returns.
    ///
    /// # Errors
    /// As there.
    fn set_checkpoint<'a>(
        &'a self,
        group: &'a str,
        partition: u32,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'a, Result<()>>;

    /// Who owns what in the group, past owners included.
    ///
    /// # Errors
    /// As there.
    fn ownerships<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Vec<Ownership>>>;

    /// Takes, renews or gives up a partition. `None` when the etag is no longer the current one: somebody was faster.
    ///
    /// # Errors
    /// As there.
    fn claim<'a>(&'a self, group: &'a str, claim: Claim) -> BoxFuture<'a, Result<Option<Ownership>>>;
}

impl<S: CheckpointStore + ?Sized> CheckpointStore for Arc<S> {
    fn checkpoints<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<BTreeMap<u32, Checkpoint>>> {
        (**self).checkpoints(group)
    }

    fn set_checkpoint<'a>(
        &'a self,
        group: &'a str,
        partition: u32,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'a, Result<()>> {
        (**self).set_checkpoint(group, partition, checkpoint)
    }

    fn ownerships<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Vec<Ownership>>> {
        (**self).ownerships(group)
    }

    fn claim<'a>(&'a self, group: &'a str, claim: Claim) -> BoxFuture<'a, Result<Option<Ownership>>> {
        (**self).claim(group, claim)
    }
}

/// The last event of a partition that was dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its sequence number.
    pub sequence: u64,
    /// Its offset, where the store keeps it.
    pub offset: Option<String>,
}

/// Who reads a partition for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Which partition.
    pub partition: u32,
    /// Id of the reader.
    pub owner: String,
    /// Rises each time the partition changes hands; the hub detaches the reader with the lower one.
    pub epoch: u64,
    /// Changes with every claim.
    pub etag: String,
    /// Time left until it ends; zero when it has ended or was given up.
    pub expires_in: Duration,
}

/// A change of an [`Ownership`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which partition.
    pub partition: u32,
    /// Id of the reader.
    pub owner: String,
    /// See [`Ownership::epoch`].
    pub epoch: u64,
    /// How long it is to last; zero gives the partition up.
    pub lasts: Duration,
    /// The etag it has to have now; `None` when there has to be no row yet.
    pub etag: Option<String>,
}
