//! What happens at the bounds.

use super::{
    DropReason, Outcome, Overflow, Sequence,
    ledger::Settlement,
    open::{Shared, State},
    per_lane::PerLane,
    read::Looked,
};
use crate::{Error, ErrorKind, Lane, Result, journal::Urgency};

/// The last part of the bounds, one in so many, is kept for alerts.
const ALERTS_SHARE: u64 = 16;

/// Messages and the bytes they take on disk.
#[derive(Clone, Copy, Default)]
struct Need {
    messages: u64,
    bytes: u64,
}

impl Need {
    fn of(sizes: &[u64]) -> Self {
        Self { messages: sizes.len() as u64, bytes: sizes.iter().sum() }
    }

    fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn fits(self, bound: Self) -> bool {
        self.messages <= bound.messages && self.bytes <= bound.bytes
    }
}

impl Shared {
    /// Decides over new messages, of which `sizes` tells the bytes on disk: how many of each lane, counted from the
    /// first, come in. Room is made where the policy says so; the others are to be turned away.
    ///
    /// # Errors
    /// `OutboxFull`; `JournalIo` when room could not be made.
    pub(super) fn admit(&self, state: &mut State, sizes: PerLane<&[u64]>) -> Result<PerLane<usize>> {
        let all = PerLane { alert: sizes.alert.len(), telemetry: sizes.telemetry.len() };
        let need = Need::of(sizes.alert).plus(Need::of(sizes.telemetry));
        let bound = self.bound(if sizes.telemetry.is_empty() { Lane::Alert } else { Lane::Telemetry });
        if used(state).plus(need).fits(bound) {
            return Ok(all);
        }
        for lane in Lane::ALL {
            state.lanes.get_mut(lane).recount();
            self.expire_lane(state, lane)?;
        }
        if used(state).plus(need).fits(bound) {
            return Ok(all);
        }
        match self.options.overflow {
            Overflow::Reject => {
                state.refused += need.messages;
                Err(self
                    .full(state, "the outbox is full; wait for delivery, or choose another overflow policy"))
            }
            Overflow::DropNewest => {
                let mut taken = used(state);
                let mut admit = |lane: Lane| {
                    let fitting = sizes.get(lane).iter().take_while(|&&bytes| {
                        let with = taken.plus(Need { messages: 1, bytes });
                        let fits = with.fits(self.bound(lane));
                        if fits {
                            taken = with;
                        }
                        fits
                    });
                    fitting.count()
                };
                Ok(PerLane { alert: admit(Lane::Alert), telemetry: admit(Lane::Telemetry) })
            }
            Overflow::DropOldest if !need.fits(bound) => {
                state.refused += need.messages;
                Err(self.full(state, "what is to be sent is larger than the bounds of the outbox"))
            }
            Overflow::DropOldest => {
                let alerts = Need::of(sizes.alert);
                let fits = |state: &mut State, lane, need| self.make_room(state, lane, need);
                let alert = if fits(state, Lane::Alert, alerts)? { all.alert } else { 0 };
                let telemetry = if fits(state, Lane::Telemetry, need)? { all.telemetry } else { 0 };
                Ok(PerLane { alert, telemetry })
            }
        }
    }

    /// Drops the oldest messages until `need` fits; says whether it does. Alerts are dropped for alerts only.
    fn make_room(&self, state: &mut State, lane: Lane, need: Need) -> Result<bool> {
        for victims in [Lane::Telemetry, lane] {
            let missing = |used: Need| Need {
                messages: used.plus(need).messages.saturating_sub(self.options.max_messages),
                bytes: used.plus(need).bytes.saturating_sub(self.options.max_bytes),
            };
            let missing = missing(used(state));
            if missing.messages == 0 && missing.bytes == 0 {
                return Ok(true);
            }
            self.drop_oldest(state, victims, missing)?;
        }
        Ok(used(state).plus(need).fits(self.bound(lane)))
    }

    fn drop_oldest(&self, state: &mut State, lane: Lane, missing: Need) -> Result<()> {
        let mut dropped = Vec::new();
        let mut freed = Need::default();
        let mut at: Sequence = 0;
        loop {
            let queue = state.lanes.get_mut(lane);
            at = queue.ledger.first_queued(at);
            if missing.fits(freed) || at == queue.ledger.next {
                break;
            }
            let looked = self.look(queue, at)?;
            let settlement = match looked {
                Looked::Damaged(first, last) => Settlement::damaged(first, last),
                Looked::Known(_) | Looked::Absent => {
                    let outcome = Outcome::Dropped { reason: DropReason::MadeRoom };
                    Settlement::of(at, looked.known(), outcome)
                }
            };
            freed = freed.plus(Need { messages: settlement.last - at + 1, bytes: settlement.bytes });
            at = settlement.last + 1;
            dropped.push(settlement);
        }
        let ended = !dropped.is_empty();
        state.lanes.get_mut(lane).settle(dropped, Urgency::Lazy)?;
        state.lanes.get_mut(lane).recount();
        if ended {
            self.ended.notify_waiters();
        }
        Ok(())
    }

    /// What may wait after a message of `lane` came in.
    fn bound(&self, lane: Lane) -> Need {
        let share = match (self.options.overflow, lane) {
            (Overflow::DropOldest, _) | (_, Lane::Alert) => |bound: u64| bound,
            (_, Lane::Telemetry) => |bound: u64| bound - bound / ALERTS_SHARE,
        };
        Need { messages: share(self.options.max_messages), bytes: share(self.options.max_bytes) }
    }

    fn full(&self, state: &State, text: &'static str) -> Error {
        let used = used(state);
        Error::new(ErrorKind::OutboxFull, "outbox.send", text)
            .with("messages", used.messages)
            .with("max_messages", self.options.max_messages)
            .with("bytes", used.bytes)
            .with("max_bytes", self.options.max_bytes)
    }
}

fn used(state: &State) -> Need {
    Need { messages: state.queued(), bytes: state.bytes() }
}
