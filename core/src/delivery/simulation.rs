//! The machine against a hub that stores, refuses and loses by chance: whatever happens, each lane arrives whole, in
//! order, and once.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Program(Lane),
    Send,
    Hub,
    HubRefusesForNow,
    Answer,
    /// The connection breaks after the hub has taken this many more messages.
    Cut(usize),
    Connect(u16),
    Time,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lane = prop_oneof![Just(Lane::Alert), Just(Lane::Telemetry)];
    let step = prop_oneof![
        4 => lane.prop_map(Step::Program),
        4 => Just(Step::Send),
        6 => Just(Step::Hub),
        1 => Just(Step::HubRefusesForNow),
        6 => Just(Step::Answer),
        1 => (0usize..4).prop_map(Step::Cut),
        3 => (1u16..6).prop_map(Step::Connect),
        2 => Just(Step::Time),
    ];
    proptest::collection::vec(step, 0..400)
}

/// Messages the hub refuses for good, always.
fn is_bad(sequence: Sequence) -> bool {
    sequence.is_multiple_of(7)
}

fn index(lane: Lane) -> usize {
    usize::from(lane == Lane::Telemetry)
}

struct World {
    delivery: Delivery,
    now: Instant,
    /// Accepted messages of each lane, and those of them that have not ended.
    accepted: [Sequence; 2],
    unsettled: [BTreeSet<Sequence>; 2],
    connecting: bool,
    connected: bool,
    window: usize,
    /// On the way to the hub, and back.
    wire: VecDeque<(Lane, Sequence)>,
    answers: VecDeque<(Lane, Sequence, Verdict)>,
    /// Highest number the hub has stored of each lane, all it has stored, and what it refuses on this connection.
    mark: [Sequence; 2],
    stored: Vec<(Lane, Sequence)>,
    refusing: [bool; 2],
}

impl World {
    fn new() -> Self {
        let options = DeliveryOptions { window: 5, ..DeliveryOptions::default() };
        let mut world = Self {
            delivery: Delivery::new(options, 7),
            now: Instant::now(),
            accepted: [0; 2],
            unsettled: Default::default(),
            connecting: false,
            connected: false,
            window: 0,
            wire: VecDeque::new(),
            answers: VecDeque::new(),
            mark: [0; 2],
            stored: Vec::new(),
            refusing: [false; 2],
        };
        world.feed(Input::Open);
        world
    }

    fn feed(&mut self, input: Input<'_>) {
        let mut effects = Vec::new();
        self.delivery.on(self.now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Connect => self.connecting = true,
                Effect::Disconnect => self.hang_up(usize::MAX),
                Effect::Settle { lane, sequence, outcome } => {
                    assert!(self.unsettled[index(lane)].remove(&sequence), "{lane:?} {sequence} ended twice");
                    let bad = matches!(outcome, Outcome::Rejected { .. });
                    assert_eq!(bad, is_bad(sequence), "{lane:?} {sequence}: {outcome:?}");
                }
                Effect::Unsend | Effect::State(_) => {}
            }
        }
    }

    /// The hub still takes what it has got, up to a point.
    fn hang_up(&mut self, more: usize) {
        for _ in 0..more.min(self.wire.len()) {
            self.hub();
        }
        self.wire.clear();
        self.answers.clear();
        self.connected = false;
    }

    fn hub(&mut self) {
        let Some((lane, sequence)) = self.wire.pop_front() else { return };
        let at = index(lane);
        let refused = |retryable| Verdict::Refused { retryable, reason: String::new() };
        let verdict = if self.refusing[at] {
            refused(true)
        } else if is_bad(sequence) {
            refused(false)
        } else {
            if sequence > self.mark[at] {
                self.mark[at] = sequence;
                self.stored.push((lane, sequence));
            }
            Verdict::Stored { partition: None, sequence: None }
        };
        self.answers.push_back((lane, sequence, verdict));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Program(lane) => {
                let at = index(lane);
                self.accepted[at] += 1;
                self.unsettled[at].insert(self.accepted[at]);
                self.feed(Input::Readable);
            }
            Step::Send => {
                let Some(NextSend { lane, from, limit }) = self.delivery.next_send() else { return };
                assert!(self.connected);
                let unsettled = &self.unsettled[index(lane)];
                let from = from.unwrap_or_else(|| unsettled.first().copied().unwrap_or(1));
                let sequences: Vec<_> = unsettled.range(from..).take(limit).copied().collect();
                let next = sequences.last().map_or(from, |last| last + 1);
                self.wire.extend(sequences.iter().map(|sequence| (lane, *sequence)));
                self.feed(Input::Sent { lane, sequences: &sequences, next });
                assert!(self.delivery.in_flight() <= self.window);
            }
            Step::Hub => self.hub(),
            Step::HubRefusesForNow => {
                if let Some((lane, _)) = self.wire.front() {
                    self.refusing[index(*lane)] = true;
                    self.hub();
                }
            }
            Step::Answer => {
                if let Some((lane, sequence, verdict)) = self.answers.pop_front() {
                    self.feed(Input::Answered { lane, sequence, verdict });
                }
            }
            Step::Cut(more) => {
                if self.connected || self.connecting {
                    self.hang_up(more);
                    self.connecting = false;
                    let kind = ErrorKind::Unreachable;
                    self.feed(Input::Lost { kind, retry_after: None, reason: String::new() });
                }
            }
            Step::Connect(receive_maximum) => {
                if std::mem::take(&mut self.connecting) {
                    self.connected = true;
                    self.refusing = [false; 2];
                    self.window = usize::from(receive_maximum).min(5);
                    let renew_at = Some(self.now + Duration::from_secs(1));
                    self.feed(Input::Connected { receive_maximum, renew_at });
                }
            }
            Step::Time => {
                if let Some(at) = self.delivery.wake_at() {
                    self.now = self.now.max(at);
                    self.feed(Input::Tick);
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.unsettled.iter().all(BTreeSet::is_empty)
    }
}

proptest! {
    #[test]
    fn each_lane_arrives_whole_in_order_and_once(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        // From here on the world is kind, and everything has to come to its end.
        for round in 0.. {
            if world.is_done() {
                break;
            }
            prop_assert!(round < 1_000, "stuck");
            for step in [Step::Connect(5), Step::Send, Step::Send, Step::Hub, Step::Answer] {
                world.step(step);
            }
            if !world.connected && !world.connecting || world.delivery.next_send().is_none() && world.wire.is_empty() {
                world.step(Step::Time);
            }
        }
        for lane in Lane::ALL {
            let stored = world.stored.iter().filter(|(of, _)| *of == lane).map(|(_, sequence)| *sequence);
            let good = (1..=world.accepted[index(lane)]).filter(|sequence| !is_bad(*sequence));
            prop_assert!(stored.eq(good), "{lane:?}: {:?}", world.stored);
        }
    }
}
