//! The queue against a model that knows no indexes and no shortcuts: a list of commands, looked through each time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use tokio::time::Instant;
use whimbrel::outbox::Now;

use super::{Change, Held, Owner, Queue, Rules, Step};
use crate::commands::{CommandOutcome, LockToken, Settlement};

const LOCK: u64 = 60;

#[derive(Clone, Debug)]
enum Act {
    Send {
        seconds: u64,
        readable: bool,
    },
    Deliver(Option<Owner>),
    /// Settles the delivery with this number, modulo how many there were: old ones too.
    Settle(usize, Settlement),
    Pass(u64),
    Purge,
    Gone(Owner),
    /// The disk does, or refuses, the step that waits longest.
    Disk(bool),
    /// So many of the waiting steps had reached the disk.
    Restart(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let owner = prop_oneof![Just(None), (1_u64..4).prop_map(Some)];
    let settlement =
        prop_oneof![Just(Settlement::Complete), Just(Settlement::Abandon), Just(Settlement::Reject)];
    prop_oneof![
        8 => (0_u64..300, prop::bool::weighted(0.95)).prop_map(|(seconds, readable)| Act::Send { seconds, readable }),
        10 => owner.prop_map(Act::Deliver),
        10 => (any::<prop::sample::Index>(), settlement).prop_map(|(index, how)| Act::Settle(index.index(64), how)),
        5 => prop_oneof![Just(0_u64), 1_u64..30, Just(LOCK), 60_u64..200].prop_map(Act::Pass),
        1 => Just(Act::Purge),
        2 => (1_u64..4).prop_map(Act::Gone),
        12 => prop::bool::weighted(0.8).prop_map(Act::Disk),
        1 => (0_usize..4).prop_map(Act::Restart),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Waiting,
    Locked {
        token: LockToken,
        until: u64,
        owner: Option<Owner>,
    },
    /// Its step waits for the disk; the lock that was settled with it.
    Moving {
        what: What,
        settled: Option<(LockToken, u64, Option<Owner>)>,
    },
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Count(u32),
    End(CommandOutcome),
}

#[derive(Debug)]
struct Known {
    sequence: u64,
    expires: u64,
    readable: bool,
    count: u32,
    place: Place,
}

/// The model, with the second it is.
struct Model {
    rules: Rules,
    now: u64,
    /// No trying again before.
    patience: u64,
    commands: Vec<Known>,
}

impl Model {
    fn tick(&mut self, steps: &mut Vec<(u64, What)>) {
        let (now, rules) = (self.now, self.rules);
        for command in &mut self.commands {
            if let Place::Locked { until, .. } = command.place
                && until <= now
            {
                let counted = rules.count_lock_expiry;
                Self::back(command, now, rules, counted, None, steps);
            }
        }
        if self.patience > now {
            return;
        }
        for command in &mut self.commands {
            if command.place == Place::Waiting && command.expires <= now {
                Self::moving(command, What::End(CommandOutcome::Expired), None, steps);
            }
        }
    }

    fn back(
        command: &mut Known,
        now: u64,
        rules: Rules,
        counted: bool,
        settled: Option<(LockToken, u64, Option<Owner>)>,
        steps: &mut Vec<(u64, What)>,
    ) {
        let what = if counted && command.count + 1 >= rules.max_delivery_count {
            What::End(CommandOutcome::DeliveryCountExceeded)
        } else if command.expires <= now {
            What::End(CommandOutcome::Expired)
        } else if counted {
            What::Count(command.count + 1)
        } else {
            command.place = Place::Waiting;
            return;
        };
        Self::moving(command, what, settled, steps);
    }

    fn moving(
        command: &mut Known,
        what: What,
        settled: Option<(LockToken, u64, Option<Owner>)>,
        steps: &mut Vec<(u64, What)>,
    ) {
        command.place = Place::Moving { what, settled };
        steps.push((command.sequence, what));
    }

    /// Who is next, and how often it was delivered.
    fn deliver(&mut self, token: LockToken, owner: Option<Owner>) -> Option<(u64, u32)> {
        let now = self.now;
        let first = self
            .commands
            .iter_mut()
            .find(|known| known.place == Place::Waiting && known.readable && known.expires > now)?;
        first.place = Place::Locked { token, until: now + LOCK, owner };
        Some((first.sequence, first.count))
    }

    fn settle(&mut self, token: LockToken, how: Settlement, steps: &mut Vec<(u64, What)>) -> bool {
        let (now, rules) = (self.now, self.rules);
        for command in &mut self.commands {
            if let Place::Locked { token: held, until, owner } = command.place
                && held == token
            {
                let settled = Some((token, until, owner));
                match how {
                    Settlement::Complete => {
                        Self::moving(command, What::End(CommandOutcome::Completed), settled, steps);
                    }
                    Settlement::Reject => {
                        Self::moving(command, What::End(CommandOutcome::Rejected), settled, steps);
                    }
                    Settlement::Abandon => Self::back(command, now, rules, true, settled, steps),
                }
                return true;
            }
        }
        false
    }

    fn purge(&mut self, steps: &mut Vec<(u64, What)>) {
        for command in &mut self.commands {
            let ends = matches!(command.place, Place::Ended | Place::Moving { what: What::End(_), .. });
            if !ends {
                Self::moving(command, What::End(CommandOutcome::Purged), None, steps);
            }
        }
    }

    fn gone(&mut self, gone: Owner) {
        for command in &mut self.commands {
            match &mut command.place {
                Place::Locked { owner, .. } if *owner == Some(gone) => command.place = Place::Waiting,
                Place::Moving { settled, .. } if settled.is_some_and(|(.., owner)| owner == Some(gone)) => {
                    *settled = None;
                }
                _ => {}
            }
        }
    }

    fn disk(&mut self, sequence: u64, what: What, done: bool) {
        let now = self.now;
        let Some(command) = self.commands.iter_mut().find(|known| known.sequence == sequence) else { return };
        if let (true, What::Count(count)) = (done, what) {
            command.count = count;
        }
        let Place::Moving { what: current, settled } = command.place else { return };
        if current != what {
            return;
        }
        command.place = match (done, what) {
            (true, What::End(_)) => Place::Ended,
            (true, What::Count(_)) => Place::Waiting,
            (false, _) => {
                self.patience = now + 1;
                match settled {
                    Some((token, until, owner)) if until > now => Place::Locked { token, until, owner },
                    _ => Place::Waiting,
                }
            }
        };
    }
}

/// Queue and model side by side, and the disk between them.
struct Pair {
    rules: Rules,
    start: (Instant, SystemTime),
    queue: Queue<u64>,
    model: Model,
    disk: VecDeque<Step>,
    /// What is durable: count, expiry, whether it can be read.
    stored: BTreeMap<u64, (u32, u64, bool)>,
    outcomes: BTreeMap<u64, CommandOutcome>,
    tokens: Vec<LockToken>,
    sent: u64,
}

impl Pair {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            start: (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            queue: Queue::new(rules),
            model: Model { rules, now: 0, patience: 0, commands: Vec::new() },
            disk: VecDeque::new(),
            stored: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            tokens: Vec::new(),
            sent: 0,
        }
    }

    fn now(&self) -> Now {
        let passed = Duration::from_secs(self.model.now);
        Now { monotonic: self.start.0 + passed, wall: self.start.1 + passed }
    }

    fn held(&self, sequence: u64, count: u32, expires: u64, readable: bool) -> Held<u64> {
        Held {
            enqueued_at: self.start.1,
            expires_at: self.start.1 + Duration::from_secs(expires),
            delivery_count: count,
            message: readable.then_some(sequence),
        }
    }

    /// The model has to want the same steps, in any order.
    fn took(&mut self, steps: Vec<Step>, mut wanted: Vec<(u64, What)>) {
        let mut got: Vec<(u64, What)> = steps
            .iter()
            .map(|step| {
                let what = match step.change {
                    Change::Count(count) => What::Count(count),
                    Change::End(outcome, at) => {
                        assert_eq!(at, self.now().wall);
                        What::End(outcome)
                    }
                };
                (step.sequence, what)
            })
            .collect();
        got.sort_by_key(|(sequence, _)| *sequence);
        wanted.sort_by_key(|(sequence, _)| *sequence);
        assert_eq!(got, wanted);
        self.disk.extend(steps);
    }

    fn tick(&mut self) {
        let (mut steps, mut wanted) = (Vec::new(), Vec::new());
        let next = self.queue.next_tick(self.now());
        self.queue.tick(self.now(), &mut steps);
        self.model.tick(&mut wanted);
        if !steps.is_empty() {
            assert!(next.is_some_and(|at| at <= self.now().monotonic), "nobody would have looked");
        }
        self.took(steps, wanted);
    }

    fn run(&mut self, act: Act) {
        self.tick();
        let now = self.now();
        match act {
            Act::Send { seconds, readable } => {
                self.sent += 1;
                let expires = self.model.now + seconds;
                self.stored.insert(self.sent, (0, expires, readable));
                self.queue.insert(self.sent, self.held(self.sent, 0, expires, readable));
                self.model.commands.push(Known {
                    sequence: self.sent,
                    expires,
                    readable,
                    count: 0,
                    place: Place::Waiting,
                });
            }
            Act::Deliver(owner) => {
                let token = LockToken::generate().unwrap();
                let got = self.queue.deliver(now, owner, token);
                assert_eq!(
                    got.map(|(sequence, held)| (sequence, held.delivery_count)),
                    self.model.deliver(token, owner)
                );
                self.tokens.push(token);
            }
            Act::Settle(which, how) => {
                let Some(token) = self.tokens.get(which % self.tokens.len().max(1)).copied() else { return };
                let mut wanted = Vec::new();
                let step = self.queue.settle(now, token, how);
                assert_eq!(step.is_some(), self.model.settle(token, how, &mut wanted));
                self.took(step.into_iter().collect(), wanted);
            }
            Act::Pass(seconds) => self.model.now += seconds,
            Act::Purge => {
                let (mut steps, mut wanted) = (Vec::new(), Vec::new());
                self.queue.purge(now, &mut steps);
                self.model.purge(&mut wanted);
                self.took(steps, wanted);
            }
            Act::Gone(owner) => {
                self.queue.receiver_gone(owner);
                self.model.gone(owner);
            }
            Act::Disk(done) => self.disk(done),
            Act::Restart(done) => {
                for _ in 0..done.min(self.disk.len()) {
                    self.disk(true);
                }
                self.restart();
            }
        }
        self.tick();
        self.agree();
    }

    fn disk(&mut self, done: bool) {
        let Some(step) = self.disk.pop_front() else { return };
        let what = match step.change {
            Change::Count(count) => What::Count(count),
            Change::End(outcome, _) => What::End(outcome),
        };
        if done {
            match step.change {
                Change::Count(count) => {
                    self.stored.get_mut(&step.sequence).expect("it has not ended").0 = count
                }
                Change::End(outcome, _) => {
                    self.stored.remove(&step.sequence).expect("it has not ended");
                    assert_eq!(self.outcomes.insert(step.sequence, outcome), None, "two outcomes");
                }
            }
            self.queue.confirmed(step);
        } else {
            let now = self.now();
            self.queue.undone(step, now, now.monotonic + Duration::from_secs(1));
        }
        self.model.disk(step.sequence, what, done);
    }

    /// Only what is durable is left, and nothing is locked.
    fn restart(&mut self) {
        self.disk.clear();
        self.queue = Queue::new(self.rules);
        self.model.patience = 0;
        self.model.commands.retain(|known| self.stored.contains_key(&known.sequence));
        for known in &mut self.model.commands {
            let (count, ..) = self.stored[&known.sequence];
            known.count = count;
            known.place = Place::Waiting;
        }
        for (sequence, (count, expires, readable)) in self.stored.clone() {
            let held = self.held(sequence, count, expires, readable);
            self.queue.insert(sequence, held);
        }
    }

    fn agree(&self) {
        let moving = self.model.commands.iter().filter(|known| matches!(known.place, Place::Moving { .. }));
        assert_eq!(self.queue.is_settled(), moving.count() == 0);
        for known in &self.model.commands {
            let locked = match known.place {
                Place::Waiting => Some(false),
                Place::Locked { .. } | Place::Moving { .. } => Some(true),
                Place::Ended => None,
            };
            assert_eq!(self.queue.is_locked(known.sequence), locked, "{known:?}");
        }
        let locked = self.model.commands.iter().any(|known| matches!(known.place, Place::Locked { .. }));
        assert_eq!(self.queue.is_idle(), self.queue.is_settled() && !locked);
    }

    /// Time passes until everything is over.
    fn finish(&mut self) {
        for _ in 0..4 {
            self.model.now += 1_000;
            self.tick();
            while !self.disk.is_empty() {
                self.disk(true);
            }
        }
        assert_eq!(self.stored.len(), 0, "something never ends: {:?}", self.model.commands);
        assert_eq!(self.outcomes.len() as u64, self.sent);
        assert_eq!(self.queue.commands.len(), 0);
        assert!(self.queue.locks.is_empty() && self.queue.ready.is_empty());
        assert!(self.queue.expiries.is_empty() && self.queue.deadlines.is_empty());
        assert_eq!(self.queue.next_tick(self.now()), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order: the queue does what the model does, and every command ends exactly once.
    #[test]
    fn does_what_the_model_does(
        acts in prop::collection::vec(act(), 0..150),
        count_lock_expiry: bool,
        max_delivery_count in 1_u32..4,
    ) {
        let lock = Duration::from_secs(LOCK);
        let mut pair = Pair::new(Rules { lock, max_delivery_count, count_lock_expiry });
        for act in acts {
            pair.run(act);
        }
        pair.finish();
    }
}

fn rules() -> Rules {
    Rules { lock: Duration::from_secs(LOCK), max_delivery_count: 10, count_lock_expiry: false }
}

/// Setting the time of day moves expiry, never a lock.
#[test]
fn locks_do_not_follow_the_time_of_day() {
    let mut pair = Pair::new(rules());
    pair.run(Act::Send { seconds: 10_000, readable: true });
    pair.run(Act::Deliver(None));
    let later = Now { wall: pair.now().wall + Duration::from_secs(5_000), ..pair.now() };
    let mut steps = Vec::new();
    pair.queue.tick(later, &mut steps);
    assert_eq!((steps.len(), pair.queue.is_locked(1)), (0, Some(true)));
    let earlier = Now {
        wall: later.wall - Duration::from_secs(9_000),
        monotonic: later.monotonic + Duration::from_secs(LOCK),
    };
    pair.queue.tick(earlier, &mut steps);
    assert_eq!((steps.len(), pair.queue.is_locked(1)), (0, Some(false)));
}

/// A command that expired while it was locked is completed as long as the lock lasts.
#[test]
fn a_lock_outlives_the_time_to_live() {
    let mut pair = Pair::new(rules());
    for _ in 0..2 {
        pair.run(Act::Send { seconds: 10, readable: true });
        pair.run(Act::Deliver(None));
    }
    pair.run(Act::Pass(LOCK - 1));
    pair.run(Act::Settle(0, Settlement::Complete));
    pair.run(Act::Disk(true));
    assert_eq!(pair.outcomes.get(&1), Some(&CommandOutcome::Completed));
    pair.run(Act::Pass(1));
    pair.run(Act::Settle(1, Settlement::Complete));
    pair.run(Act::Disk(true));
    assert_eq!(pair.outcomes.get(&2), Some(&CommandOutcome::Expired));
}
