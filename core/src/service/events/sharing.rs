//! The readers of the partitions of one [`EventReader`](super::EventReader): all of them, or its share.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    Handed, Store,
    balance::{self, Seen},
    partition::{Alive, Item, Reading, Stolen},
    position::{Position, Start},
    source::Log,
    store::{Checkpoint, CheckpointStore, Claim, Ownership},
};
use crate::{
    Error, Result,
    delivery::{Backoff, Jitter},
    service::{retry::Retries, stop::Stopped},
};

/// What reading takes.
pub(super) struct Crew {
    pub(super) log: Arc<Log>,
    pub(super) group: Arc<str>,
    /// Of this reader among the owners.
    pub(super) name: Arc<str>,
    /// The partitions, and where to begin where there is no checkpoint.
    pub(super) from: BTreeMap<u32, Position>,
    pub(super) store: Store,
    pub(super) prefetch: u32,
    pub(super) renew: Duration,
    pub(super) lasts: Duration,
    pub(super) backoff: Backoff,
    pub(super) out: mpsc::Sender<Item>,
}

/// A partition this reader has.
struct Owned {
    ownership: Ownership,
    handed: Arc<Handed>,
    reading: AbortHandle,
}

/// The partitions this reader has, and the tasks that read them. Dropping it ends them.
#[derive(Default)]
struct Hold {
    owned: BTreeMap<u32, Owned>,
    readings: JoinSet<(u32, u64, std::result::Result<(), Stolen>)>,
}

impl Crew {
    /// Reads all partitions until nobody listens.
    pub(super) async fn read_all(self, stopped: Stopped) {
        let read = async {
            let mut retries = Retries::new(self.backoff);
            let checkpoints = loop {
                let Some(store) = &self.store.0 else { break BTreeMap::new() };
                match store.checkpoints(&self.group).await {
                    Ok(checkpoints) => break checkpoints,
                    Err(error) => {
                        let wait = retries.after(&error);
                        if !self.tell(error).await {
                            return;
                        }
                        tokio::time::sleep(wait).await;
                    }
                }
            };
            let mut readings = JoinSet::new();
            for partition in self.from.keys() {
                let (reading, start, _) = self.reading(*partition, None, checkpoints.get(partition));
                let out = self.out.clone();
                readings.spawn(reading.run(start, out));
            }
            while readings.join_next().await.is_some() {}
        };
        tokio::select! {
            () = stopped.wait() => {}
            () = self.out.closed() => {}
            () = read => {}
        }
        self.log.conduit.close().await;
    }

    /// Reads this reader's share of the partitions until nobody listens; gives them up then.
    pub(super) async fn share(self, stopped: Stopped) {
        let Some(store) = self.store.0.clone() else { return };
        let mut hold = Hold::default();
        let mut jitter = Jitter::new(getrandom::u64().unwrap_or(7));
        // Shorter while partitions move, so that readers that come and go are dealt with in seconds.
        let soon = self.renew / 10;
        loop {
            // Not to be cancelled: what it just took would not be given up.
            let settled = match self.round(&*store, &mut hold, &mut jitter, &stopped).await {
                Ok(settled) => settled,
                Err(error) => {
                    tracing::warn!(%error, "the checkpoint store cannot be used for now");
                    if Retries::is_worth_telling(&error) {
                        // A program that is behind is not waited for: what it has would run out.
                        let _ = self.out.try_send(Item::Failed(error));
                    }
                    false
                }
            };
            let nap = if settled { self.renew } else { soon };
            let mut wake = Instant::now() + nap.mul_f64(0.9) + jitter.below(nap.mul_f64(0.2));
            loop {
                tokio::select! {
                    () = stopped.wait() => break,
                    () = self.out.closed() => break,
                    () = tokio::time::sleep_until(wake) => break,
                    Some(ended) = hold.readings.join_next(), if !hold.readings.is_empty() => {
                        // One that was aborted is gone from the hold already.
                        if let Ok((partition, epoch, Err(Stolen))) = ended {
                            hold.lose_stolen(partition, epoch);
                            wake = wake.min(Instant::now() + soon);
                        }
                    }
                }
            }
            if self.is_leaving(&stopped) {
                break;
            }
        }
        let owned = std::mem::take(&mut hold.owned);
        for (partition, Owned { ownership, handed, reading }) in owned {
            handed.alive.end();
            reading.abort();
            let claim = self.claim(partition, ownership.epoch, Some(ownership.etag), Duration::ZERO);
            if let Err(error) = store.claim(&self.group, claim).await {
                tracing::info!(%error, partition, "a partition was not given up; others take it when its time is over");
            }
        }
        self.log.conduit.close().await;
    }

    /// Renews what it has, lets go of what others took, takes what it should have. Whether nothing moved.
    async fn round(
        &self,
        store: &dyn CheckpointStore,
        hold: &mut Hold,
        jitter: &mut Jitter,
        stopped: &Stopped,
    ) -> Result<bool> {
        let rows: BTreeMap<u32, Ownership> =
            store.ownerships(&self.group).await?.into_iter().map(|row| (row.partition, row)).collect();
        let mut settled = true;
        let mine: Vec<(u32, u64, String)> = hold
            .owned
            .iter()
            .map(|(partition, owned)| (*partition, owned.ownership.epoch, owned.ownership.etag.clone()))
            .collect();
        for (partition, epoch, etag) in mine {
            let claim = self.claim(partition, epoch, Some(etag), self.lasts);
            match (store.claim(&self.group, claim).await?, hold.owned.get_mut(&partition)) {
                (Some(renewed), Some(owned)) => owned.ownership = renewed,
                _ => {
                    hold.lose(partition);
                    settled = false;
                }
            }
        }
        let seen: Vec<Seen<'_>> = self
            .from
            .keys()
            .map(|partition| {
                let other = rows
                    .get(partition)
                    .filter(|row| !row.expires_in.is_zero() && *row.owner != *self.name)
                    .map(|row| row.owner.as_str());
                let owner = if hold.owned.contains_key(partition) { Some(&*self.name) } else { other };
                Seen { partition: *partition, owner }
            })
            .collect();
        let moves = balance::moves(&self.name, &seen, jitter);
        settled &= moves.is_empty();
        for partition in moves.free.into_iter().chain(moves.steal) {
            if self.is_leaving(stopped) {
                break;
            }
            let row = rows.get(&partition);
            // Above the one before, so that the hub detaches whoever still reads.
            let epoch = row.map_or(1, |row| row.epoch + 1);
            let claim = self.claim(partition, epoch, row.map(|row| row.etag.clone()), self.lasts);
            let Some(ownership) = store.claim(&self.group, claim).await? else { continue };
            tracing::debug!(partition, epoch, reader = %self.name, "took a partition");
            // Only now: the owner before may have written one until it lost the partition.
            let checkpoints = store.checkpoints(&self.group).await?;
            let (reading, start, handed) = self.reading(partition, Some(epoch), checkpoints.get(&partition));
            let out = self.out.clone();
            let reading =
                hold.readings.spawn(async move { (partition, epoch, reading.run(start, out).await) });
            hold.owned.insert(partition, Owned { ownership, handed, reading });
        }
        Ok(settled)
    }

    /// Whether nobody listens any more.
    fn is_leaving(&self, stopped: &Stopped) -> bool {
        stopped.is_stopped() || self.out.is_closed()
    }

    fn claim(&self, partition: u32, epoch: u64, etag: Option<String>, lasts: Duration) -> Claim {
        Claim { partition, owner: self.name.to_string(), epoch, lasts, etag }
    }

    fn reading(
        &self,
        partition: u32,
        epoch: Option<u64>,
        checkpoint: Option<&Checkpoint>,
    ) -> (Reading, Start, Arc<Handed>) {
        let start = match checkpoint {
            Some(checkpoint) => Start::After(checkpoint.sequence),
            None => Start::At(self.from.get(&partition).cloned().unwrap_or_default()),
        };
        let handed =
            Arc::new(Handed { store: self.store.clone(), group: self.group.clone(), alive: Alive::new() });
        let reading = Reading {
            log: self.log.clone(),
            group: self.group.clone(),
            reader: self.name.clone(),
            partition,
            epoch,
            prefetch: self.prefetch,
            backoff: self.backoff,
            handed: handed.clone(),
        };
        (reading, start, handed)
    }

    /// Whether anybody heard it.
    async fn tell(&self, error: Error) -> bool {
        self.out.send(Item::Failed(error)).await.is_ok()
    }
}

impl Hold {
    /// Somebody else has the partition, or nobody: what was read of it is not handed out any more.
    fn lose(&mut self, partition: u32) {
        if let Some(Owned { handed, reading, .. }) = self.owned.remove(&partition) {
            tracing::debug!(partition, "lost a partition");
            handed.alive.end();
            reading.abort();
        }
    }

    fn lose_stolen(&mut self, partition: u32, epoch: u64) {
        if self.owned.get(&partition).is_some_and(|owned| owned.ownership.epoch == epoch) {
            self.lose(partition);
        }
    }
}
