//! A session: windows, delivery numbers, and which link has which handle.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use fe2o3_amqp_types::performatives::{Begin, Flow};

use super::LinkId;

/// Frames a peer may send before it hears from the hub. Large: what bounds the memory are credits and bytes.
pub(super) const INCOMING_WINDOW: u32 = 5_000;
/// Deliveries of a session that the peer has not settled, at most; then nothing more is sent on it.
pub(super) const UNSETTLED: usize = 100_000;

/// The rest of a delivery that waits until the peer can take more frames.
#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) link: LinkId,
    pub(super) handle: u32,
    pub(super) settled: bool,
    pub(super) rest: Bytes,
}

#[derive(Debug)]
pub(super) struct Session {
    /// Number of the next frame that arrives.
    next_incoming: u32,
    /// Frames since the peer was told the window.
    unreported: u32,
    pub(super) next_outgoing: u32,
    /// Frames the peer can take.
    pub(super) room: u32,
    next_delivery: u32,
    /// Deliveries the peer has not settled, by number.
    pub(super) unsettled: BTreeMap<u32, LinkId>,
    pub(super) blocked: VecDeque<Blocked>,
    pub(super) handles: HashMap<u32, LinkId>,
}

impl Session {
    pub(super) fn new(begin: &Begin) -> Self {
        Self {
            next_incoming: begin.next_outgoing_id,
            unreported: 0,
            next_outgoing: 0,
            room: begin.incoming_window,
            next_delivery: 0,
            unsettled: BTreeMap::new(),
            blocked: VecDeque::new(),
            handles: HashMap::new(),
        }
    }

    /// Counts a frame that arrived. Whether the peer should be told the window again.
    pub(super) fn frame_arrived(&mut self) -> bool {
        self.next_incoming = self.next_incoming.wrapping_add(1);
        self.unreported += 1;
        self.unreported >= INCOMING_WINDOW / 2
    }

    /// Counts a frame that is sent.
    pub(super) fn frame_sent(&mut self) {
        self.next_outgoing = self.next_outgoing.wrapping_add(1);
        self.room = self.room.saturating_sub(1);
    }

    /// Takes over the window the peer told.
    pub(super) fn window_told(&mut self, flow: &Flow) {
        let end = flow.next_incoming_id.unwrap_or(0).wrapping_add(flow.incoming_window);
        self.room = until(self.next_outgoing, end);
    }

    /// How many deliveries may be begun now, for the session's part.
    pub(super) fn usable(&self) -> u32 {
        if !self.blocked.is_empty() {
            return 0;
        }
        let unsettled = UNSETTLED.saturating_sub(self.unsettled.len());
        self.room.min(u32::try_from(unsettled).unwrap_or(u32::MAX))
    }

    pub(super) fn begin_delivery(&mut self, link: LinkId, settled: bool) -> u32 {
        let id = self.next_delivery;
        self.next_delivery = id.wrapping_add(1);
        if !settled {
            self.unsettled.insert(id, link);
        }
        id
    }

    /// The unsettled deliveries from `first` to `last`. However wide a range a peer names, only what there is is looked
    /// at.
    pub(super) fn unsettled_in(&self, first: u32, last: u32) -> Vec<(u32, LinkId)> {
        let pairs = |(id, link): (&u32, &LinkId)| (*id, *link);
        if first <= last {
            return self.unsettled.range(first..=last).map(pairs).collect();
        }
        if last.wrapping_sub(first) > u32::MAX / 2 {
            return Vec::new();
        }
        let (before, after) = (self.unsettled.range(first..), self.unsettled.range(..=last));
        before.chain(after).map(pairs).collect()
    }

    /// A flow frame with the session's part filled in.
    pub(super) fn flow(&mut self) -> Flow {
        self.unreported = 0;
        Flow {
            next_incoming_id: Some(self.next_incoming),
            incoming_window: INCOMING_WINDOW,
            next_outgoing_id: self.next_outgoing,
            outgoing_window: INCOMING_WINDOW,
            handle: None,
            delivery_count: None,
            link_credit: None,
            available: None,
            drain: false,
            echo: false,
            properties: None,
        }
    }
}

/// How far it is from `start` to `end` in serial numbers; 0 when `end` lies before it.
pub(super) fn until(start: u32, end: u32) -> u32 {
    match end.wrapping_sub(start) {
        distance @ 0..=0x7fff_ffff => distance,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::definitions::Handle;

    use super::*;

    fn session(next_outgoing: u32) -> Session {
        let begin = Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: 10,
            outgoing_window: 10,
            handle_max: Handle(7),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        Session { next_outgoing, ..Session::new(&begin) }
    }

    #[test]
    fn windows_are_serial_numbers() {
        let mut session = session(u32::MAX);
        let flow = Flow { next_incoming_id: Some(u32::MAX), incoming_window: 5, ..session.flow() };
        session.window_told(&flow);
        assert_eq!(session.room, 5);
        session.frame_sent();
        session.frame_sent();
        assert_eq!((session.next_outgoing, session.room), (1, 3));
        // A window that was told before the two frames arrived.
        session.window_told(&flow);
        assert_eq!(session.room, 3);
        session.window_told(&Flow { next_incoming_id: Some(u32::MAX), incoming_window: 1, ..flow });
        assert_eq!(session.room, 0);
    }

    #[test]
    fn ranges_cost_only_what_is_unsettled() {
        let mut session = session(0);
        session.next_delivery = u32::MAX - 1;
        let link = LinkId(1);
        for settled in [false, true, false, false] {
            session.begin_delivery(link, settled);
        }
        let ids =
            |first, last| session.unsettled_in(first, last).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(u32::MAX - 1, 1), [u32::MAX - 1, 0, 1]);
        assert_eq!(ids(0, u32::MAX), [0, 1, u32::MAX - 1]);
        assert_eq!(ids(5, 4), [0_u32; 0]);
    }
}
