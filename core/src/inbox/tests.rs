//! The state machine: step by step, and in any order against a hub that delivers at least once.

use std::{
    collections::HashMap,
    time::{Duration, Instant, UNIX_EPOCH},
};

use proptest::prelude::*;

use super::{
    books::Books,
    machine::{Effect, Id, Machine},
};
use crate::{
    Error, ErrorKind, Message,
    transport::{Arrived, CommandSupport, Handle, Settled, Settlement},
};

const MQTT_3: CommandSupport = CommandSupport { abandon_and_reject: false, answers: false };
const MQTT_5: CommandSupport = CommandSupport { abandon_and_reject: true, answers: false };
const AMQP: CommandSupport = CommandSupport { abandon_and_reject: true, answers: true };

fn command(handle: Handle, number: u64) -> Arrived {
    Arrived {
        handle,
        sequence: Some(number),
        enqueued_at: Some(UNIX_EPOCH + Duration::from_secs(number)),
        delivery_count: Some(0),
        message: Message::telemetry(number.to_string()),
    }
}

/// As MQTT 3.1.1 brings it, without an expiry time.
fn unsure(handle: Handle, id: &str) -> Arrived {
    let message = Message::telemetry("reboot").message_id(id);
    Arrived { handle, sequence: None, enqueued_at: None, delivery_count: None, message }
}

/// A machine with its effects written down in short.
struct Bench {
    machine: Machine,
    now: Instant,
    effects: Vec<Effect>,
}

impl Bench {
    fn new(support: CommandSupport) -> Self {
        let (mut machine, now) = (Machine::new(Books::default()), Instant::now());
        machine.connected(now, support);
        Self { machine, now, effects: Vec::new() }
    }

    fn arrived(&mut self, arrived: Arrived) -> String {
        self.machine.arrived(self.now, arrived, &mut self.effects);
        self.told()
    }

    fn take(&mut self) -> Id {
        self.machine.take().expect("something to take").0
    }

    fn settle(&mut self, id: Id, settlement: Settlement) -> Result<String, ErrorKind> {
        self.machine.settle(id, settlement, &mut self.effects).map_err(|error| error.kind())?;
        Ok(self.told())
    }

    fn noted(&mut self, id: Id) -> String {
        self.machine.noted(id, 0);
        self.machine.durable(id, &mut self.effects);
        self.told()
    }

    fn settled(&mut self, handle: Handle, error: Option<ErrorKind>) -> String {
        let result = error.map_or(Ok(()), |kind| Err(Error::new(kind, "test", "said the hub")));
        self.machine.settled(self.now, Settled { handle, result }, &mut self.effects);
        self.told()
    }

    fn lost(&mut self) -> String {
        self.machine.lost(&mut self.effects);
        self.told()
    }

    fn told(&mut self) -> String {
        let told: Vec<String> = self
            .effects
            .drain(..)
            .map(|effect| match effect {
                Effect::HandOut => "hand out".into(),
                Effect::Settle(handle, settlement) => format!("{settlement:?} {handle}"),
                Effect::Note { id, settlement, .. } => format!("note {settlement:?} {id}"),
                Effect::Forget(_) => "forget".into(),
                Effect::Answer(id, Ok(())) => format!("ok {id}"),
                Effect::Answer(id, Err(error)) => format!("{:?} {id}", error.kind()),
            })
            .collect();
        told.join(", ")
    }
}

#[test]
fn the_hub_is_told_after_the_disk_and_the_record_goes_when_the_hub_has_it() {
    let mut bench = Bench::new(MQTT_5);
    assert_eq!(bench.arrived(command(10, 1)), "hand out");
    let id = bench.take();
    assert_eq!(bench.settle(id, Settlement::Complete).unwrap(), "note Complete 0");
    assert_eq!(bench.settle(id, Settlement::Complete), Err(ErrorKind::Conflict));
    assert_eq!(bench.noted(id), "Complete 10, ok 0");
    // Until that is proved a redelivery is settled by itself, on this connection as well as later ones.
    assert_eq!(bench.arrived(command(11, 1)), "Complete 11");
    assert_eq!(bench.settled(10, None), "forget");
    assert_eq!(bench.settled(11, None), "");
    assert_eq!(bench.arrived(command(12, 1)), "hand out");
}

#[test]
fn a_settlement_that_may_have_come_too_late_is_remembered() {
    let mut bench = Bench::new(MQTT_5);
    bench.arrived(command(1, 1));
    let id = bench.take();
    bench.now += Duration::from_secs(59);
    bench.settle(id, Settlement::Complete).unwrap();
    bench.noted(id);
    assert_eq!(bench.settled(1, None), "");
    assert_eq!(bench.arrived(command(2, 1)), "Complete 2");
    assert_eq!(bench.settled(2, None), "forget");
}

#[test]
fn an_answer_is_waited_for_where_there_is_one() {
    let mut bench = Bench::new(AMQP);
    for (handle, number) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)] {
        bench.arrived(command(handle, number));
    }
    let ids: Vec<Id> = (0..5).map(|_| bench.take()).collect();
    bench.settle(ids[0], Settlement::Complete).unwrap();
    assert_eq!(bench.noted(ids[0]), "Complete 1");
    assert_eq!(bench.settled(1, None), "forget, ok 0");

    // Too late, but recorded: the redelivery is settled.
    bench.settle(ids[1], Settlement::Reject).unwrap();
    bench.noted(ids[1]);
    assert_eq!(bench.settled(2, Some(ErrorKind::LockLost)), "LockLost 1");
    assert_eq!(bench.settle(ids[1], Settlement::Complete), Err(ErrorKind::Conflict));
    assert_eq!(bench.arrived(command(12, 2)), "Reject 12");
    assert_eq!(bench.settled(12, Some(ErrorKind::LockLost)), "", "still not");
    assert_eq!(bench.arrived(command(22, 2)), "Reject 22");
    assert_eq!(bench.settled(22, None), "forget");

    // An abandoned command is not recorded.
    assert_eq!(bench.settle(ids[2], Settlement::Abandon).unwrap(), "Abandon 3");
    assert_eq!(bench.settled(3, Some(ErrorKind::LockLost)), "LockLost 2");
    assert_eq!(bench.settle(ids[2], Settlement::Complete), Err(ErrorKind::LockLost));

    // The hub is busy: an abandoned command is as before, a completed one is done.
    bench.settle(ids[3], Settlement::Abandon).unwrap();
    assert_eq!(bench.settled(4, Some(ErrorKind::Throttled)), "Throttled 3");
    bench.settle(ids[3], Settlement::Complete).unwrap();
    bench.noted(ids[3]);
    assert_eq!(bench.settled(4, Some(ErrorKind::Throttled)), "ok 3");

    // The connection goes before the answer comes.
    bench.settle(ids[4], Settlement::Complete).unwrap();
    bench.noted(ids[4]);
    assert_eq!(bench.lost(), "ok 4");
    bench.machine.connected(bench.now, AMQP);
    assert_eq!(bench.arrived(command(1, 5)), "Complete 1");
}

#[test]
fn what_could_not_be_recorded_is_unsettled_and_the_hub_is_not_told() {
    let mut bench = Bench::new(MQTT_5);
    bench.arrived(command(1, 1));
    let id = bench.take();
    bench.settle(id, Settlement::Complete).unwrap();
    let full = || Error::new(ErrorKind::DiskFull, "test", "full");
    bench.machine.failed(id, full(), &mut bench.effects);
    assert_eq!(bench.told(), "DiskFull 0");
    // Staged, and then lost: as well.
    bench.settle(id, Settlement::Complete).unwrap();
    bench.machine.noted(id, 0);
    bench.machine.failed(id, full(), &mut bench.effects);
    assert_eq!(bench.told(), "DiskFull 0");
    bench.lost();
    bench.machine.connected(bench.now, MQTT_5);
    assert_eq!(bench.arrived(command(7, 1)), "", "in hand");
    bench.settle(id, Settlement::Reject).unwrap();
    assert_eq!(bench.noted(id), "Reject 7, ok 0");
}

#[test]
fn a_redelivery_that_comes_while_the_disk_works_is_settled_in_its_place() {
    let mut bench = Bench::new(MQTT_5);
    bench.arrived(command(1, 1));
    let id = bench.take();
    bench.settle(id, Settlement::Complete).unwrap();
    bench.machine.noted(id, 0);
    bench.machine.dropped(id);
    bench.lost();
    bench.machine.connected(bench.now, MQTT_5);
    assert_eq!(bench.arrived(command(9, 1)), "");
    bench.machine.durable(id, &mut bench.effects);
    assert_eq!(bench.told(), "Complete 9, ok 0");
}

#[test]
fn names_that_are_not_sure_never_cost_a_command() {
    let mut bench = Bench::new(MQTT_3);
    // Two that look alike on one connection are two.
    assert_eq!(bench.arrived(unsure(1, "m")), "hand out");
    assert_eq!(bench.arrived(unsure(2, "m")), "hand out");
    let (first, second) = (bench.take(), bench.take());
    bench.settle(first, Settlement::Complete).unwrap();
    assert_eq!(bench.noted(first), "Complete 1, ok 0");
    bench.lost();
    bench.machine.connected(bench.now, MQTT_3);
    // One comes again for the one in hand, one was completed, and what else looks like it is new.
    assert_eq!(bench.arrived(unsure(5, "m")), "", "in hand");
    assert_eq!(bench.arrived(unsure(6, "m")), "Complete 6");
    assert_eq!(bench.arrived(unsure(7, "m")), "hand out");
    bench.settle(second, Settlement::Complete).unwrap();
    assert_eq!(bench.noted(second), "Complete 5, ok 1");
    bench.lost();
    // A good while after connecting it is no redelivery.
    bench.machine.connected(bench.now, MQTT_3);
    bench.now += Duration::from_secs(301);
    assert_eq!(bench.arrived(unsure(8, "m")), "hand out");
}

#[test]
fn without_a_name_there_is_nothing_to_record() {
    let mut bench = Bench::new(MQTT_3);
    let nameless = |handle| Arrived { message: Message::telemetry("x"), ..unsure(handle, "") };
    bench.arrived(nameless(1));
    bench.arrived(nameless(2));
    let (first, second) = (bench.take(), bench.take());
    assert_eq!(bench.settle(first, Settlement::Reject), Err(ErrorKind::Unsupported));
    assert_eq!(bench.settle(first, Settlement::Complete).unwrap(), "Complete 1, ok 0");
    bench.lost();
    assert_eq!(bench.settle(second, Settlement::Complete), Err(ErrorKind::LockLost));
}

#[test]
fn a_program_that_takes_nothing_does_not_fill_the_memory() {
    let mut bench = Bench::new(MQTT_5);
    for number in 1..=1_000 {
        assert_eq!(bench.arrived(command(number, number)), "hand out");
    }
    assert_eq!(bench.arrived(command(1_001, 1_001)), "");
    bench.take();
    assert_eq!(bench.arrived(command(1_002, 1_002)), "hand out");
    bench.machine.close();
    assert!(bench.machine.take().is_none());
}

/// A command as the hub sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum AtHub {
    Waiting,
    Locked(Handle),
    Over(Settlement),
}

#[derive(Clone, Debug)]
enum Step {
    Send,
    Deliver(usize),
    Unlock(usize),
    Take,
    Settle(usize, Settlement),
    /// The disk gets one further, or the whole journal breaks.
    Disk,
    DiskFails,
    /// The hub reads one of our settlements.
    Read,
    /// The hub's answer or proof comes.
    Answer,
    Drop(usize),
    Cut,
    Connect(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let settlement = prop::sample::select(&[
        Settlement::Complete,
        Settlement::Complete,
        Settlement::Abandon,
        Settlement::Reject,
    ]);
    prop_oneof![
        3 => Just(Step::Send),
        6 => (0..8usize).prop_map(Step::Deliver),
        1 => (0..8usize).prop_map(Step::Unlock),
        6 => Just(Step::Take),
        6 => (0..8usize, settlement).prop_map(|(at, settlement)| Step::Settle(at, settlement)),
        5 => Just(Step::Disk),
        1 => Just(Step::DiskFails),
        5 => Just(Step::Read),
        5 => Just(Step::Answer),
        1 => (0..8usize).prop_map(Step::Drop),
        1 => Just(Step::Cut),
        2 => any::<bool>().prop_map(Step::Connect),
    ]
}

/// A hub, a network, a disk and a program around the machine.
struct World {
    bench: Bench,
    up: bool,
    support: CommandSupport,
    handles: Handle,
    hub: Vec<AtHub>,
    /// Deliveries of the present connection: which command.
    deliveries: HashMap<Handle, usize>,
    /// On their way to the hub.
    sent: Vec<(Handle, Settlement)>,
    /// On their way back.
    answers: Vec<(Handle, Option<ErrorKind>)>,
    /// Notes on their way to the disk.
    disk: Vec<Id>,
    /// What the program has: the machine's name and the command.
    in_hand: Vec<(Id, usize)>,
    of: HashMap<Id, usize>,
    /// What the program was told is completed or rejected, and how.
    promised: HashMap<usize, Settlement>,
    asked: HashMap<Id, Settlement>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            bench: Bench::new(MQTT_5),
            up: true,
            support: MQTT_5,
            handles: 0,
            hub: Vec::new(),
            deliveries: HashMap::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            disk: Vec::new(),
            in_hand: Vec::new(),
            of: HashMap::new(),
            promised: HashMap::new(),
            asked: HashMap::new(),
        };
        world.cut();
        world
    }

    fn cut(&mut self) {
        self.bench.machine.lost(&mut self.bench.effects);
        self.up = false;
        self.deliveries.clear();
        self.sent.clear();
        self.answers.clear();
        for command in &mut self.hub {
            if matches!(command, AtHub::Locked(_)) {
                *command = AtHub::Waiting;
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send => self.hub.push(AtHub::Waiting),
            Step::Deliver(at) if self.up => {
                let waiting: Vec<usize> =
                    (0..self.hub.len()).filter(|at| self.hub[*at] == AtHub::Waiting).collect();
                let Some(&number) = waiting.get(at % waiting.len().max(1)) else { return };
                self.handles += 1;
                self.hub[number] = AtHub::Locked(self.handles);
                self.deliveries.insert(self.handles, number);
                let (now, arrived) = (self.bench.now, command(self.handles, number as u64));
                self.bench.machine.arrived(now, arrived, &mut self.bench.effects);
            }
            Step::Unlock(at) if !self.hub.is_empty() => {
                // The time for it passes for all the others, too.
                self.bench.now += Duration::from_secs(60);
                let at = at % self.hub.len();
                if matches!(self.hub[at], AtHub::Locked(_)) {
                    self.hub[at] = AtHub::Waiting;
                }
            }
            Step::Take => {
                if let Some((id, arrived)) = self.bench.machine.take() {
                    let number = arrived.sequence.unwrap() as usize;
                    assert!(
                        !self.promised.contains_key(&number),
                        "{number} was completed and is handed out again"
                    );
                    assert!(
                        !self.in_hand.iter().any(|(other, held)| *held == number && !self.over(*other)),
                        "{number} is in hand already"
                    );
                    self.of.insert(id, number);
                    self.in_hand.push((id, number));
                }
            }
            Step::Settle(at, settlement) if !self.in_hand.is_empty() => {
                let (id, _) = self.in_hand[at % self.in_hand.len()];
                if self.bench.machine.settle(id, settlement, &mut self.bench.effects).is_ok() {
                    assert!(self.asked.insert(id, settlement).is_none(), "settled twice");
                } else if settlement == Settlement::Abandon {
                    // The program knows that it has lost the lock, or that it settled it.
                    self.given_up(id);
                }
            }
            Step::Disk if !self.disk.is_empty() => {
                let id = self.disk.remove(0);
                self.bench.machine.durable(id, &mut self.bench.effects);
            }
            Step::DiskFails => {
                for id in std::mem::take(&mut self.disk) {
                    let error = Error::new(ErrorKind::JournalIo, "test", "broken");
                    self.bench.machine.failed(id, error, &mut self.bench.effects);
                }
            }
            Step::Read if !self.sent.is_empty() => {
                let (handle, settlement) = self.sent.remove(0);
                let number = self.deliveries[&handle];
                let locked = self.hub[number] == AtHub::Locked(handle);
                if locked {
                    self.hub[number] = match settlement {
                        Settlement::Abandon => AtHub::Waiting,
                        settlement => AtHub::Over(settlement),
                    };
                }
                // MQTT proves that it was read, not that it did any good.
                let lost = self.support.answers && !locked;
                self.answers.push((handle, lost.then_some(ErrorKind::LockLost)));
            }
            Step::Answer if !self.answers.is_empty() => {
                let (handle, error) = self.answers.remove(0);
                let result = error.map_or(Ok(()), |kind| Err(Error::new(kind, "test", "said the hub")));
                self.bench.machine.settled(
                    self.bench.now,
                    Settled { handle, result },
                    &mut self.bench.effects,
                );
            }
            Step::Drop(at) if !self.in_hand.is_empty() => {
                let (id, _) = self.in_hand.remove(at % self.in_hand.len());
                self.bench.machine.dropped(id);
            }
            Step::Cut => self.cut(),
            Step::Connect(answers) if !self.up => {
                self.up = true;
                self.support = if answers { AMQP } else { MQTT_5 };
                self.bench.machine.connected(self.bench.now, self.support);
            }
            _ => {}
        }
        self.carry_out();
    }

    /// Whether the program has no more to do with what it has in hand under this name.
    fn over(&self, id: Id) -> bool {
        self.asked.contains_key(&id)
    }

    fn given_up(&mut self, id: Id) {
        self.asked.entry(id).or_insert(Settlement::Abandon);
    }

    fn carry_out(&mut self) {
        while !self.bench.effects.is_empty() {
            for effect in std::mem::take(&mut self.bench.effects) {
                match effect {
                    Effect::HandOut | Effect::Forget(_) => {}
                    Effect::Settle(handle, settlement) => {
                        assert!(
                            self.up && self.deliveries.contains_key(&handle),
                            "a handle of another connection"
                        );
                        self.sent.push((handle, settlement));
                    }
                    Effect::Note { id, .. } => {
                        self.bench.machine.noted(id, 0);
                        self.disk.push(id);
                    }
                    Effect::Answer(id, result) => {
                        let settlement = self.asked[&id];
                        match result {
                            Ok(()) if settlement != Settlement::Abandon => {
                                self.promised.insert(self.of[&id], settlement);
                            }
                            Err(error) if error.kind() == ErrorKind::JournalIo => {
                                self.asked.remove(&id);
                            }
                            Ok(()) | Err(_) => {}
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_a_completed_command_is_not_handed_out_again_and_all_end(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new();
        for step in steps.into_iter() {
            world.step(step);
        }
        // The program settles what it has, and everything gets through.
        for _ in 0..40 {
            world.step(Step::Connect(true));
            for _ in 0..10 {
                for step in [Step::Deliver(0), Step::Take, Step::Disk, Step::Read, Step::Answer] {
                    world.step(step);
                }
            }
            for at in 0..world.in_hand.len() {
                world.step(Step::Settle(at, Settlement::Complete));
            }
            if world.hub.iter().all(|command| matches!(command, AtHub::Over(_))) {
                break;
            }
            // What the program dropped unsettled is locked until then.
            world.step(Step::Cut);
        }
        for (number, at_hub) in world.hub.iter().enumerate() {
            let AtHub::Over(settlement) = at_hub else { return Err(TestCaseError::fail(format!("{number}: {at_hub:?}"))) };
            if let Some(promised) = world.promised.get(&number) {
                prop_assert_eq!(promised, settlement);
            }
        }
    }
}
