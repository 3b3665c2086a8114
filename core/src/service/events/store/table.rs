//! The rows of one consumer group, as they are kept in memory and in a file. Pure: the caller brings the clock.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Checkpoint, Claim, Ownership};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    /// Of the form, for readers of later versions.
    version: u32,
    partitions: BTreeMap<u32, Row>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ownership: Option<Owner>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    id: String,
    epoch: u64,
    etag: u64,
    /// Milliseconds, by the clock of whoever keeps the table.
    claimed_ms: u64,
    expires_ms: u64,
}

/// The form that is written.
const VERSION: u32 = 1;

impl Default for Table {
    fn default() -> Self {
        Self { version: VERSION, partitions: BTreeMap::new() }
    }
}

impl Table {
    pub(super) fn is_known(&self) -> bool {
        self.version == VERSION
    }

    pub(super) fn checkpoints(&self) -> BTreeMap<u32, Checkpoint> {
        let known = self.partitions.iter().filter_map(|(partition, row)| {
            let Position { sequence, offset } = row.checkpoint.clone()?;
            Some((*partition, Checkpoint { sequence, offset }))
        });
        known.collect()
    }

    pub(super) fn set_checkpoint(&mut self, partition: u32, checkpoint: Checkpoint) {
        let Checkpoint { sequence, offset } = checkpoint;
        self.partitions.entry(partition).or_default().checkpoint = Some(Position { sequence, offset });
    }

    pub(super) fn ownerships(&self, now_ms: u64) -> Vec<Ownership> {
        let known = self.partitions.iter();
        known.filter_map(|(partition, row)| Some(row.ownership.as_ref()?.view(*partition, now_ms))).collect()
    }

    pub(super) fn claim(&mut self, claim: Claim, now_ms: u64) -> Option<Ownership> {
        let row = self.partitions.entry(claim.partition).or_default();
        let current = row.ownership.as_ref().map(|owner| owner.etag);
        if current.map(|etag| etag.to_string()) != claim.etag {
            return None;
        }
        let lasts = u64::try_from(claim.lasts.as_millis()).unwrap_or(u64::MAX);
        let owner = row.ownership.insert(Owner {
            id: claim.owner,
            epoch: claim.epoch,
            etag: current.unwrap_or(0) + 1,
            claimed_ms: now_ms,
            expires_ms: now_ms.saturating_add(lasts),
        });
        Some(owner.view(claim.partition, now_ms))
    }
}

impl Owner {
    fn view(&self, partition: u32, now_ms: u64) -> Ownership {
        // A clock that was set back must not keep a partition locked for longer than it was claimed for.
        let expires_ms = self.expires_ms.min(now_ms.saturating_add(self.expires_ms - self.claimed_ms));
        Ownership {
            partition,
            owner: self.id.clone(),
            epoch: self.epoch,
            etag: self.etag.to_string(),
            expires_in: Duration::from_millis(expires_ms.saturating_sub(now_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(owner: &str, etag: Option<&str>, lasts: u64) -> Claim {
        Claim {
            partition: 3,
            owner: owner.into(),
            epoch: 1,
            lasts: Duration::from_millis(lasts),
            etag: etag.map(str::to_owned),
        }
    }

    #[test]
    fn only_the_current_etag_changes_a_row() {
        let mut table = Table::default();
        assert_eq!(table.claim(claim("a", Some("1"), 10), 0), None, "there is no row yet");
        let first = table.claim(claim("a", None, 10), 0).unwrap();
        assert_eq!(table.claim(claim("b", None, 10), 0), None);
        let second = table.claim(claim("a", Some(&first.etag), 10), 5).unwrap();
        assert_ne!(first.etag, second.etag);
        assert_eq!(table.claim(claim("b", Some(&first.etag), 10), 5), None);
        assert_eq!(
            table.ownerships(14),
            [Ownership { expires_in: Duration::from_millis(1), ..second.clone() }]
        );
        assert!(table.ownerships(15)[0].expires_in.is_zero());
        let given_up = table.claim(claim("a", Some(&second.etag), 0), 6).unwrap();
        assert!(given_up.expires_in.is_zero());
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nothing_for_long() {
        let mut table = Table::default();
        table.claim(claim("a", None, 10), 1_000_000).unwrap();
        assert_eq!(table.ownerships(500)[0].expires_in, Duration::from_millis(10));
    }

    #[test]
    fn rows_of_a_partition_do_not_disturb_one_another() {
        let mut table = Table::default();
        let checkpoint = Checkpoint { sequence: 7, offset: Some("70".into()) };
        table.set_checkpoint(3, checkpoint.clone());
        table.claim(claim("a", None, 10), 0).unwrap();
        let read: Table = serde_json::from_slice(&serde_json::to_vec(&table).unwrap()).unwrap();
        assert_eq!(read, table);
        assert_eq!(read.checkpoints(), BTreeMap::from([(3, checkpoint)]));
        assert_eq!(read.ownerships(0).len(), 1);
    }
}
