//! How messages end: by the answer of the hub, or by their time.

use tokio::time::Instant;

use super::{
    Outcome, Sequence,
    ledger::Settlement,
    open::{Shared, State},
    per_lane::PerLane,
    read::Looked,
};
use crate::{Lane, Result, journal::Urgency};

/// Messages looked at, from the first on, in one go.
const SWEEP: usize = 1_024;

impl Shared {
    pub(super) fn settle(&self, settled: Vec<(Lane, Sequence, Outcome)>) -> Result<()> {
        let mut state = self.open_state("outbox.settle")?;
        let mut lanes: PerLane<Vec<Settlement>> = PerLane::default();
        for (lane, sequence, outcome) in settled {
            let queue = state.lanes.get(lane);
            if queue.ledger.is_queued(sequence) {
                let settlement = Settlement::of(sequence, queue.known(sequence), outcome);
                lanes.get_mut(lane).push(settlement);
            }
        }
        let mut written = Ok(());
        for lane in Lane::ALL {
            let settlements = std::mem::take(lanes.get_mut(lane));
            written = written.and(state.lanes.get_mut(lane).settle(settlements, Urgency::Lazy));
        }
        if state.queued() == 0 {
            for queue in state.lanes.iter_mut() {
                written = written.and(queue.commit_soon());
            }
        }
        drop(state);
        self.ended.notify_waiters();
        written
    }

    pub(super) fn mark_sent(&self, sent: &[(Lane, Sequence)]) {
        let mut state = self.state();
        state.sent += sent.len() as u64;
        for (lane, sequence) in sent {
            let queue = state.lanes.get_mut(*lane);
            queue.sent_to = queue.sent_to.max(*sequence);
        }
    }

    pub(super) fn mark_unsent(&self) {
        for queue in self.state().lanes.iter_mut() {
            queue.sent_to = 0;
            queue.deadlines.bring_back();
        }
    }

    pub(super) fn expire(&self) -> Result<Option<Instant>> {
        let mut state = self.open_state("outbox.expire")?;
        let alert = self.expire_lane(&mut state, Lane::Alert)?;
        let telemetry = self.expire_lane(&mut state, Lane::Telemetry)?;
        let next = alert.into_iter().chain(telemetry).min();
        Ok(next.and_then(|run_ms| self.clock.instant(run_ms)))
    }

    /// Ends the messages of one lane whose time is known to have come, and says when to come again, on the run clock.
    pub(super) fn expire_lane(&self, state: &mut State, lane: Lane) -> Result<Option<u64>> {
        let now = self.clock.moment();
        let queue = state.lanes.get_mut(lane);
        let head = queue.ledger.head;
        let mut over = Vec::new();
        while let Some(due) = queue.deadlines.take_due(now.run_ms) {
            if due.sequence <= queue.sent_to {
                queue.deadlines.set_aside(due);
            } else if queue.ledger.is_queued(due.sequence) && queue.may_end_early(due.sequence) {
                over.push(Settlement::of(due.sequence, Some(due.handed), Outcome::Expired));
            }
        }
        let mut ended = !over.is_empty();
        queue.settle(over, Urgency::Lazy)?;

        // Messages are read for this only while the link is down: with the link up they are read soon enough.
        let offline = queue.sent_to < head;
        let mut next = queue.deadlines.next();
        let mut over = Vec::new();
        let mut at = queue.first_unsent();
        while at < queue.ledger.next {
            if over.len() == SWEEP {
                next = Some(now.run_ms);
                break;
            }
            let looked = match queue.known(at) {
                None if offline => self.look(queue, at)?,
                known => known.map_or(Looked::Absent, Looked::Known),
            };
            let settlement = match looked {
                Looked::Damaged(first, last) => Settlement::damaged(first, last),
                Looked::Absent => break,
                Looked::Known(handed) => match handed.stamp.deadline(queue.identity.epoch, now) {
                    Some(deadline) if deadline <= now.run_ms => {
                        Settlement::of(at, Some(handed), Outcome::Expired)
                    }
                    deadline => {
                        next = next.into_iter().chain(deadline).min();
                        break;
                    }
                },
            };
            at = queue.ledger.first_queued(settlement.last + 1);
            over.push(settlement);
        }
        ended |= !over.is_empty();
        queue.settle(over, Urgency::Lazy)?;
        if ended {
            self.ended.notify_waiters();
        }
        Ok(next)
    }
}
