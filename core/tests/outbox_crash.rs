//! Power cuts at any moment: whatever of the unsynced writes survives, every message that was accepted is there or has
//! ended, in order, and the account balances.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod outbox_support;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use outbox_support::{account, bodies, read_all};
use whimbrel::{
    DropReason, Durability, Lane, Message, Outcome, ReceiptState,
    journal::Disk,
    outbox::{Clock, ManualClock, Outbox, OutboxOptions, Sequence},
    testing::{CrashDisk, Dice, Survivors},
};

/// What the program knows of a message.
#[derive(Clone, Debug)]
struct Known {
    body: String,
    id: String,
    /// `send` said that it is on disk.
    promised: bool,
    outcome: Option<Outcome>,
}

/// What the program knows of both lanes, by lane and sequence.
type World = BTreeMap<(Lane, Sequence), Known>;

/// A moment in a history.
#[derive(Clone)]
struct Moment {
    world: World,
    alert: usize,
    telemetry: usize,
    /// Highest number that was handed out in each lane.
    numbers: BTreeMap<Lane, u64>,
    time: SystemTime,
}

struct History {
    alert: CrashDisk,
    telemetry: CrashDisk,
    clock: Arc<ManualClock>,
    options: OutboxOptions,
    dice: Dice,
    world: World,
    moments: Vec<Moment>,
    numbers: BTreeMap<Lane, u64>,
    sent: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let options = OutboxOptions {
            max_bytes: 8 << 20,
            kept_outcomes: dice.below(40) as usize,
            sync_interval: Duration::from_millis(1 + dice.below(20)),
            ..OutboxOptions::default()
        };
        Self {
            alert: CrashDisk::new(),
            telemetry: CrashDisk::new(),
            clock: Arc::new(ManualClock::new()),
            options,
            dice,
            world: World::new(),
            moments: Vec::new(),
            numbers: BTreeMap::new(),
            sent: 0,
        }
    }

    fn open(&self) -> Outbox {
        let disks = (Arc::new(self.alert.clone()), Arc::new(self.telemetry.clone()));
        Outbox::open_on(disks.0, disks.1, self.options.clone(), self.clock.clone()).unwrap()
    }

    fn note_moment(&mut self) {
        let (alert, telemetry) = (self.alert.position(), self.telemetry.position());
        let (world, numbers) = (self.world.clone(), self.numbers.clone());
        self.moments.push(Moment { world, alert, telemetry, numbers, time: self.clock.now().wall });
    }

    /// Lives for `steps` steps; notes the moments between them.
    async fn live(&mut self, steps: usize) {
        let mut outbox = self.open();
        for _ in 0..steps {
            self.note_moment();
            match self.dice.below(20) {
                0..=7 => self.send(&outbox).await,
                8..=10 => self.send_many(&outbox).await,
                11..=17 => self.settle(&outbox),
                18 => {
                    self.clock.advance(Duration::from_secs(10));
                    outbox.expire().unwrap();
                    self.learn_of_ends(&outbox);
                }
                _ => {
                    outbox.close().unwrap();
                    outbox = self.open();
                }
            }
            let balance = account(&outbox);
            assert_eq!(balance.accepted, self.world.len() as u64);
        }
        self.note_moment();
    }

    fn message(&mut self) -> (Message, Durability) {
        let lane = if self.dice.chance(25) { Lane::Alert } else { Lane::Telemetry };
        self.sent += 1;
        // Large enough to fill segments, with a body that tells itself apart.
        let padding = self.dice.below(60_000) as usize;
        let mut message = Message::in_lane(lane, format!("{}:{}", self.sent, "x".repeat(padding)));
        if self.dice.chance(50) {
            message = message.message_id(format!("id-{}", self.sent));
        }
        if self.dice.chance(20) {
            message = message.expires_in(Duration::from_secs(15));
        }
        let durability = match self.dice.below(10) {
            0 => Durability::Memory,
            1 => Durability::Interval,
            _ => Durability::OnDisk,
        };
        (message.durability(durability), durability)
    }

    async fn send(&mut self, outbox: &Outbox) {
        let (message, durability) = self.message();
        let (lane, body) = (message.lane(), body_of(&message));
        let receipt = outbox.send(message).await.unwrap();
        self.came_in(lane, body, receipt.message_id(), durability == Durability::OnDisk);
    }

    async fn send_many(&mut self, outbox: &Outbox) {
        let count = 1 + self.dice.below(8);
        let messages: Vec<_> = (0..count).map(|_| self.message()).collect();
        let known: Vec<_> = messages
            .iter()
            .map(|(message, durability)| (message.lane(), body_of(message), *durability))
            .collect();
        let receipts =
            outbox.send_all(messages.into_iter().map(|(message, _)| message).collect()).await.unwrap();
        for (receipt, (lane, body, durability)) in receipts.iter().zip(known) {
            self.came_in(lane, body, receipt.message_id(), durability == Durability::OnDisk);
        }
    }

    fn came_in(&mut self, lane: Lane, body: String, id: &str, promised: bool) {
        let sequence = self.world.keys().filter(|(of, _)| *of == lane).count() as Sequence + 1;
        if promised {
            // What is in front of it in the journal is on the disk with it.
            let before = self.world.range_mut((lane, 0)..(lane, sequence));
            before.for_each(|(_, known)| known.promised = true);
        }
        let known = Known { body, id: id.to_owned(), promised, outcome: None };
        self.world.insert((lane, sequence), known);
    }

    fn settle(&mut self, outbox: &Outbox) {
        let mut settled = Vec::new();
        for lane in Lane::ALL {
            let mut out = Vec::new();
            outbox.read(lane, 0, 12, &mut out).unwrap();
            for queued in out {
                let highest = self.numbers.entry(lane).or_default();
                *highest = queued.number.max(*highest);
                if self.dice.chance(70) {
                    let outcome = match self.dice.below(8) {
                        0 => Outcome::Rejected { reason: "no".into() },
                        _ => Outcome::Delivered { partition: Some(1), sequence: Some(queued.number) },
                    };
                    settled.push((lane, queued.sequence, outcome));
                }
            }
        }
        for (lane, sequence, outcome) in &settled {
            self.world.get_mut(&(*lane, *sequence)).unwrap().outcome = Some(outcome.clone());
        }
        outbox.settle(settled).unwrap();
        self.learn_of_ends(outbox);
    }

    /// Notes which messages expired.
    fn learn_of_ends(&mut self, outbox: &Outbox) {
        for lane in Lane::ALL {
            let waiting: Vec<_> = read_all(outbox, lane).iter().map(|queued| queued.sequence).collect();
            for ((_, sequence), known) in self.world.range_mut((lane, 0)..=(lane, Sequence::MAX)) {
                if known.outcome.is_none() && !waiting.contains(sequence) {
                    known.outcome = Some(Outcome::Expired);
                }
            }
        }
    }

    /// Cuts the power somewhere between two moments, opens what is left, and looks.
    async fn cut(&mut self, at: usize, survivors: [Survivors; 2]) {
        let (before, after) = (self.moments[at].clone(), self.moments[at + 1].clone());
        let between =
            |dice: &mut Dice, from: usize, to: usize| from + dice.below((to - from) as u64 + 1) as usize;
        let alert = self.alert.cut(between(&mut self.dice, before.alert, after.alert), survivors[0]);
        let telemetry =
            self.telemetry.cut(between(&mut self.dice, before.telemetry, after.telemetry), survivors[1]);
        let clock = ManualClock::new();
        clock.set_wall(before.time);
        let outbox =
            Outbox::open_on(Arc::new(alert), Arc::new(telemetry), self.options.clone(), Arc::new(clock))
                .unwrap();
        let balance = account(&outbox);
        // What was not promised may leave holes; what was promised never counts as damaged.
        let mut may_be_lost = 0;
        for lane in Lane::ALL {
            let waiting = read_all(&outbox, lane);
            may_be_lost += after
                .world
                .range((lane, 0)..=(lane, Sequence::MAX))
                .filter(|(place, _)| {
                    let promised = before.world.get(place).is_some_and(|known| known.promised);
                    !promised && waiting.iter().all(|queued| queued.sequence != place.1)
                })
                .count();
            assert!(waiting.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
            assert!(waiting.windows(2).all(|pair| pair[0].number < pair[1].number));
            for queued in &waiting {
                let known = &after.world[&(lane, queued.sequence)];
                assert_eq!(body_of(&queued.message), known.body, "{lane:?} {}", queued.sequence);
                assert_eq!(queued.message.system().message_id.as_deref(), Some(&*known.id));
            }
            for ((_, sequence), known) in before.world.range((lane, 0)..=(lane, Sequence::MAX)) {
                let is_waiting = waiting.iter().any(|queued| queued.sequence == *sequence);
                let later = &after.world[&(lane, *sequence)].outcome;
                if known.promised {
                    assert!(is_waiting || later.is_some(), "{lane:?} {sequence} is lost: {}", known.id);
                }
                // When the note of an end is lost the message waits again, and may have had its time.
                if let Some(receipt) = outbox.receipt(&known.id).unwrap()
                    && let ReceiptState::Settled(outcome) = receipt.state()
                    && outcome != Outcome::Expired
                    && known.promised
                {
                    assert_eq!(Some(&outcome), later.as_ref(), "{lane:?} {sequence}");
                }
            }
        }
        assert!(balance.accepted <= after.world.len() as u64);
        let damaged =
            outbox.counters().dropped.iter().find(|(reason, _)| *reason == DropReason::Damaged).copied();
        let damaged = damaged.map_or(0, |(_, count)| count as usize);
        assert!(damaged <= may_be_lost, "{damaged} damaged, of what was not promised {may_be_lost}");

        // Life goes on, with numbers that were never used.
        for lane in Lane::ALL {
            outbox.send(Message::in_lane(lane, "after")).await.unwrap();
            let waiting = read_all(&outbox, lane);
            let newest = waiting.last().unwrap();
            assert_eq!(bodies(std::slice::from_ref(newest)), ["after"]);
            assert!(newest.number > after.numbers.get(&lane).copied().unwrap_or(0));
            outbox_support::deliver(&outbox, lane, waiting.iter().map(|queued| queued.sequence));
        }
        assert_eq!(account(&outbox).queued, 0);
        assert_eq!(account(&outbox).accepted, balance.accepted + 2);
        outbox.close().unwrap();
    }
}

fn body_of(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

#[tokio::test]
async fn a_power_cut_at_any_moment_loses_nothing_that_was_promised() {
    for seed in 0..16 {
        let mut history = History::new(seed);
        history.live(60).await;
        for cut in 0..30 {
            let at = history.dice.below(history.moments.len() as u64 - 1) as usize;
            let survivors = match cut % 4 {
                0 => [Survivors::None; 2],
                1 => [Survivors::All; 2],
                _ => [Survivors::Some(seed * 1_000 + cut), Survivors::Some(seed * 1_000 + cut + 500)],
            };
            // Shown when the cut fails: the threads below have a timing of their own, so a seed alone may not lead there again.
            println!(
                "seed {seed}, cut {cut}, behind moment {at} of {}, {survivors:?}",
                history.moments.len()
            );
            history.cut(at, survivors).await;
        }
    }
}

#[tokio::test]
async fn when_the_outbox_runs_empty_that_reaches_the_disk_without_waiting_for_the_interval() {
    let mut history = History::new(1);
    history.options.sync_interval = Duration::from_secs(86_400);
    let outbox = history.open();
    outbox.send_all(vec![Message::alert("1"), Message::telemetry("2")]).await.unwrap();
    for lane in Lane::ALL {
        read_all(&outbox, lane);
        outbox_support::deliver(&outbox, lane, [1]);
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let left = [&history.alert, &history.telemetry]
            .map(|disk| Arc::new(disk.cut(disk.position(), Survivors::None)) as Arc<dyn Disk>);
        let [alert, telemetry] = left;
        let found =
            Outbox::open_on(alert, telemetry, history.options.clone(), history.clock.clone()).unwrap();
        if account(&found).delivered == 2 {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "nobody commits: {:?}", account(&found));
        tokio::task::yield_now().await;
    }
}
