//! Who reads a partition for a consumer group: one reader alone, or a few that share it.
//!
//! A reader that gives an epoch wants to be alone. Rules, per consumer group and partition:
//!
//! | comes | while there is | what happens |
//! | --- | --- | --- |
//! | with an epoch | nobody, or readers without one | it gets the partition, the others lose it |
//! | with an epoch | a reader with a lower or the same one | it gets the partition, the other loses it |
//! | with an epoch | a reader with a higher one | it is refused |
//! | without | a reader with an epoch | it is refused |
//! | without | five without | it is refused |

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Readers without an epoch that a consumer group may have on a partition.
pub(super) const SHARED: usize = 5;

/// All readers of a hub.
#[derive(Default)]
pub(super) struct Seats {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: HashMap<Place, Vec<Taken>>,
    last: u64,
}

/// A group, its name in small letters, and a partition.
type Place = (String, u32);

struct Taken {
    number: u64,
    epoch: Option<i64>,
    lost: CancellationToken,
}

/// Why a reader gets no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// A reader has a higher epoch, this one.
    Higher(i64),
    /// There are as many without an epoch as there may be.
    Full,
}

/// A place to read from, until it is dropped or [lost](Seat::lost).
pub(super) struct Seat {
    seats: Arc<Seats>,
    place: Place,
    number: u64,
    lost: CancellationToken,
}

impl Seat {
    /// Cancelled when another reader took the partition.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.seats.state();
        if let Some(taken) = state.taken.get_mut(&self.place) {
            taken.retain(|one| one.number != self.number);
            if taken.is_empty() {
                state.taken.remove(&self.place);
            }
        }
    }
}

impl Seats {
    /// Takes a seat by the rules above.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn take(
        self: &Arc<Self>,
        group: &str,
        partition: u32,
        epoch: Option<i64>,
    ) -> Result<Seat, NoSeat> {
        let mut state = self.state();
        let number = state.last + 1;
        let place = (group.to_ascii_lowercase(), partition);
        let taken = state.taken.entry(place.clone()).or_default();
        let highest = taken.iter().filter_map(|one| one.epoch).max();
        match (epoch, highest) {
            (Some(epoch), Some(highest)) if epoch < highest => return Err(NoSeat::Higher(highest)),
            (None, Some(highest)) => return Err(NoSeat::Higher(highest)),
            (None, None) if taken.len() >= SHARED => return Err(NoSeat::Full),
            (None, None) => {}
            (Some(_), _) => taken.drain(..).for_each(|one| one.lost.cancel()),
        }
        let lost = CancellationToken::new();
        taken.push(Taken { number, epoch, lost: lost.clone() });
        state.last = number;
        Ok(Seat { seats: Arc::clone(self), place, number, lost })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(seats: &Arc<Seats>, epoch: impl Into<Option<i64>>) -> Result<Seat, NoSeat> {
        seats.take("$Default", 0, epoch.into())
    }

    #[test]
    fn a_higher_or_equal_epoch_takes_over_and_a_lower_one_is_refused() {
        let seats = Arc::default();
        let first = take(&seats, 3).unwrap();
        assert_eq!(take(&seats, 2).err(), Some(NoSeat::Higher(3)));
        assert!(!first.lost().is_cancelled());
        let same = take(&seats, 3).unwrap();
        assert!(first.lost().is_cancelled());
        let higher = take(&seats, 4).unwrap();
        assert!(same.lost().is_cancelled() && !higher.lost().is_cancelled());
        // The end of those that lost it changes nothing.
        drop((first, same));
        assert_eq!(take(&seats, 3).err(), Some(NoSeat::Higher(4)));
        drop(higher);
        take(&seats, 0).unwrap();
    }

    #[test]
    fn readers_without_an_epoch_share_and_make_way() {
        let seats = Arc::default();
        let mut shared: Vec<_> = (0..SHARED).map(|_| take(&seats, None).unwrap()).collect();
        assert_eq!(take(&seats, None).err(), Some(NoSeat::Full));
        shared.pop();
        shared.push(take(&seats, None).unwrap());
        let alone = take(&seats, 0).unwrap();
        assert!(shared.iter().all(|seat| seat.lost().is_cancelled()));
        assert_eq!(take(&seats, None).err(), Some(NoSeat::Higher(0)));
        drop(alone);
        take(&seats, None).unwrap();
    }

    #[test]
    fn groups_and_partitions_are_apart_and_case_does_not_matter() {
        let seats: Arc<Seats> = Arc::default();
        let one = seats.take("$Default", 0, Some(1)).unwrap();
        let _other_partition = seats.take("$Default", 1, None).unwrap();
        let _other_group = seats.take("audit", 0, None).unwrap();
        assert!(!one.lost().is_cancelled());
        assert_eq!(seats.take("$default", 0, None).err(), Some(NoSeat::Higher(1)));
    }

    #[test]
    fn nothing_is_left_when_all_have_gone() {
        let seats: Arc<Seats> = Arc::default();
        drop((take(&seats, None).unwrap(), take(&seats, 1).unwrap(), take(&seats, 2).unwrap()));
        let _ = take(&seats, None).unwrap();
        assert!(seats.state().taken.is_empty());
    }

    proptest! {
        /// Whatever comes and goes: at most one reader with an epoch and then nobody else, the highest seen of those
        /// still there; and never more than there may be.
        #[test]
        fn nobody_shares_with_an_epoch(steps in proptest::collection::vec((any::<Option<u8>>(), any::<bool>()), 1..60)) {
            let seats = Arc::default();
            let mut held: Vec<(Option<i64>, Seat)> = Vec::new();
            for (epoch, leave) in steps {
                if leave && !held.is_empty() {
                    held.remove(0);
                }
                let epoch = epoch.map(|epoch| i64::from(epoch % 4));
                if let Ok(seat) = take(&seats, epoch) {
                    held.push((epoch, seat));
                }
                let alive: Vec<_> =
                    held.iter().filter(|(_, seat)| !seat.lost().is_cancelled()).map(|(epoch, _)| *epoch).collect();
                prop_assert!(alive.len() <= SHARED);
                prop_assert!(alive.len() <= 1 || alive.iter().all(Option::is_none), "{:?}", alive);
            }
        }
    }
}
