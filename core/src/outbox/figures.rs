//! What an outbox tells of itself.

use std::time::Duration;

use super::{
    Account, Counters, DropReason,
    open::{Phase, Shared},
    queue::Queue,
};

impl Shared {
    pub(super) fn account(&self) -> Account {
        let state = self.state();
        state.lanes.alert.ledger.account() + state.lanes.telemetry.ledger.account()
    }

    pub(super) fn counters(&self) -> Counters {
        let mut state = self.state();
        let open = state.phase == Phase::Open;
        let now = self.clock.moment();
        let mut figures = Counters {
            queued_alerts: state.lanes.alert.ledger.queued(),
            queued_bytes: state.bytes(),
            sent: state.sent,
            refused: state.refused,
            written_bytes: state.written + state.written_since_opening(),
            ..Counters::default()
        };
        for queue in state.lanes.iter_mut() {
            figures.account = figures.account + queue.ledger.account();
            // The age is left out when the oldest message cannot be read: a figure is no reason to fail.
            let head = queue.ledger.head;
            let look = |queue: &mut Queue| self.look(queue, head).ok().and_then(|looked| looked.known());
            if queue.ledger.queued() > 0
                && let Some(handed) = if open { look(queue) } else { queue.known(head) }
            {
                let age = Duration::from_millis(handed.stamp.age_ms(queue.identity.epoch, now));
                figures.oldest_age = figures.oldest_age.max(Some(age));
            }
        }
        for reason in DropReason::ALL {
            let count = state.lanes.iter().map(|queue| queue.ledger.counts.dropped(reason)).sum();
            if count > 0 {
                figures.dropped.push((reason, count));
            }
        }
        figures
    }

    pub(super) async fn empty(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // From here on no end is missed.
            ended.as_mut().enable();
            {
                let state = self.state();
                if state.phase == Phase::Closed || state.queued() == 0 {
                    return;
                }
            }
            ended.await;
        }
    }
}
