//! Checkpoints that end with the process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{Checkpoint, CheckpointStore, Claim, Ownership, table::Table};
use crate::Result;

/// Keeps checkpoints in memory: for tests, and for readers that start over with the process. Clones share.
#[derive(Clone, Debug)]
pub struct MemoryCheckpoints(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    groups: Mutex<HashMap<String, Table>>,
}

impl MemoryCheckpoints {
    /// An empty store.
    #[expect(clippy::new_without_default, reason = "an empty store is chosen, not fallen into")]
    pub fn new() -> Self {
        Self(Arc::new(Inner { start: Instant::now(), groups: Mutex::default() }))
    }

    fn with<T>(&self, group: &str, change: impl FnOnce(&mut Table, u64) -> T) -> T {
        let now_ms = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut groups = self.0.groups.lock().unwrap_or_else(PoisonError::into_inner);
        change(groups.entry(group.to_ascii_lowercase()).or_default(), now_ms)
    }
}

impl CheckpointStore for MemoryCheckpoints {
    fn checkpoints<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<BTreeMap<u32, Checkpoint>>> {
        Box::pin(async move { Ok(self.with(group, |table, _| table.checkpoints())) })
    }

    fn set_checkpoint<'a>(
        &'a self,
        group: &'a str,
        partition: u32,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.with(group, |table, _| table.set_checkpoint(partition, checkpoint));
            Ok(())
        })
    }

    fn ownerships<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Vec<Ownership>>> {
        Box::pin(async move { Ok(self.with(group, |table, now_ms| table.ownerships(now_ms))) })
    }

    fn claim<'a>(&'a self, group: &'a str, claim: Claim) -> BoxFuture<'a, Result<Option<Ownership>>> {
        Box::pin(async move { Ok(self.with(group, |table, now_ms| table.claim(claim, now_ms))) })
    }
}
