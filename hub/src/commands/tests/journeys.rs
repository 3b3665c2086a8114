//! Random lives of many commands over a real store: every command ends in exactly one outcome, and feedback is exactly
//! what was asked for.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use whimbrel::ErrorKind;

use super::{Ground, command, ready};
use crate::{
    access::Admitted,
    commands::{
        CommandOptions, CommandOutcome, CommandState, Delivery, FeedbackWanted, Patience, Receiver,
        Settlement,
    },
};

const DEVICES: [&str; 3] = ["a", "b", "c"];
const DEPTH: usize = 6;

#[derive(Clone, Debug)]
enum Act {
    Send {
        device: usize,
        wanted: FeedbackWanted,
        seconds: u64,
    },
    Receive {
        device: usize,
        limit: usize,
    },
    /// Without a receiver.
    Take {
        device: usize,
    },
    Settle {
        which: usize,
        how: Settlement,
    },
    /// The receiver of a device goes.
    Leave {
        device: usize,
    },
    Pass {
        seconds: u64,
    },
    Purge {
        device: usize,
    },
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let device = || 0..DEVICES.len();
    let how = prop_oneof![
        3 => Just(Settlement::Complete),
        2 => Just(Settlement::Abandon),
        1 => Just(Settlement::Reject),
    ];
    let wanted = prop_oneof![
        Just(FeedbackWanted::None),
        Just(FeedbackWanted::Positive),
        Just(FeedbackWanted::Negative),
        Just(FeedbackWanted::Full),
    ];
    prop_oneof![
        10 => (device(), wanted, 0_u64..400)
            .prop_map(|(device, wanted, seconds)| Act::Send { device, wanted, seconds }),
        6 => (device(), 1_usize..4).prop_map(|(device, limit)| Act::Receive { device, limit }),
        3 => device().prop_map(|device| Act::Take { device }),
        10 => (0_usize..64, how).prop_map(|(which, how)| Act::Settle { which, how }),
        2 => device().prop_map(|device| Act::Leave { device }),
        3 => (1_u64..100).prop_map(|seconds| Act::Pass { seconds }),
        1 => device().prop_map(|device| Act::Purge { device }),
        1 => Just(Act::Restart),
    ]
}

struct Sent {
    device: usize,
    sequence: u64,
    wanted: FeedbackWanted,
    /// What it has to have been, where the test knows.
    outcome: Option<CommandOutcome>,
}

struct Journey {
    ground: Ground,
    devices: Vec<Admitted>,
    receivers: Vec<Option<Receiver>>,
    sent: BTreeMap<String, Sent>,
    held: Vec<(usize, Delivery)>,
}

impl Journey {
    async fn start(on_disk: bool) -> Self {
        let options = CommandOptions {
            depth: DEPTH,
            max_delivery_count: 3,
            feedback_time_to_live: Duration::from_secs(48 * 3600),
            ..CommandOptions::default()
        };
        let folder = on_disk.then(|| tempfile::tempdir().unwrap());
        let ground = Ground::start(folder, options);
        let mut devices = Vec::new();
        for id in DEVICES {
            devices.push(ground.device(id).await);
        }
        Self {
            ground,
            devices,
            receivers: DEVICES.map(|_| None).into(),
            sent: BTreeMap::new(),
            held: Vec::new(),
        }
    }

    async fn run(&mut self, act: Act) {
        match act {
            Act::Send { device, wanted, seconds } => {
                let id = format!("m{}", self.sent.len());
                let message = command(&id)
                    .property("iothub-ack", wanted.word())
                    .expires_in(Duration::from_secs(seconds + 1));
                let pending = self.ground.commands.pending(DEVICES[device]).await.unwrap();
                match self.ground.commands.send(DEVICES[device], message).await {
                    Ok(sent) => {
                        assert!(pending < DEPTH as u64);
                        let sent = Sent { device, sequence: sent.sequence, wanted, outcome: None };
                        self.sent.insert(id, sent);
                    }
                    Err(error) => {
                        assert_eq!((error.kind(), pending), (ErrorKind::QueueFull, DEPTH as u64));
                    }
                }
            }
            Act::Receive { device, limit } => {
                let commands = &self.ground.commands;
                let receiver =
                    self.receivers[device].get_or_insert_with(|| commands.receiver(&self.devices[device]));
                let got = ready(receiver, limit).await;
                assert!(got.len() <= limit);
                assert!(got.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "out of order");
                self.got(device, got);
            }
            Act::Take { device } => {
                let taken = self.ground.commands.take(&self.devices[device]).await.unwrap();
                self.got(device, taken.into_iter().collect());
            }
            Act::Settle { which, how } => self.settle(which, how).await,
            Act::Leave { device } => {
                self.receivers[device] = None;
                self.ground.settled().await;
            }
            Act::Pass { seconds } => self.ground.advance(Duration::from_secs(seconds)).await,
            Act::Purge { device } => {
                let pending = self.ground.commands.pending(DEVICES[device]).await.unwrap();
                assert_eq!(self.ground.commands.purge(DEVICES[device]).await.unwrap(), pending);
                assert_eq!(self.ground.commands.pending(DEVICES[device]).await.unwrap(), 0);
            }
            Act::Restart => self.restart().await,
        }
    }

    /// What was settled is never handed out again.
    fn got(&mut self, device: usize, got: Vec<Delivery>) {
        for delivery in got {
            let sent = &self.sent[delivery.message.system().message_id.as_deref().unwrap()];
            assert_eq!((sent.device, sent.sequence), (device, delivery.sequence));
            assert_eq!(sent.outcome, None, "handed out after its end");
            assert!(delivery.message.system().expiry_time.unwrap() > self.ground.now());
            self.held.push((device, delivery));
        }
    }

    async fn settle(&mut self, which: usize, how: Settlement) {
        if self.held.is_empty() {
            return;
        }
        let (device, delivery) = self.held[which % self.held.len()].clone();
        let settled = match &mut self.receivers[device] {
            Some(receiver) if which.is_multiple_of(2) => receiver.settle(delivery.lock, how).await,
            _ => self.ground.commands.settle(&self.devices[device], delivery.lock, how).await,
        };
        let id = delivery.message.system().message_id.clone().unwrap();
        match (settled, how) {
            (Ok(()), Settlement::Complete) => self.ended(&id, CommandOutcome::Completed),
            (Ok(()), Settlement::Reject) => self.ended(&id, CommandOutcome::Rejected),
            (Ok(()), Settlement::Abandon) => {}
            (Err(error), _) => assert_eq!(error.kind(), ErrorKind::LockLost),
        }
    }

    fn ended(&mut self, id: &str, outcome: CommandOutcome) {
        let known = &mut self.sent.get_mut(id).unwrap().outcome;
        assert_eq!(known.replace(outcome), None, "settled twice");
    }

    async fn restart(&mut self) {
        if self.ground.folder.is_none() {
            return;
        }
        for receiver in &mut self.receivers {
            *receiver = None;
        }
        let ground = std::mem::replace(&mut self.ground, Ground::in_memory());
        self.ground = ground.restart().await;
    }

    async fn finish(mut self) {
        for receiver in &mut self.receivers {
            *receiver = None;
        }
        self.ground.advance(Duration::from_secs(1_000)).await;
        let mut wanted = BTreeMap::new();
        for (id, sent) in &self.sent {
            let status = self
                .ground
                .commands
                .status(DEVICES[sent.device], id)
                .await
                .unwrap()
                .expect("it has an outcome");
            let CommandState::Ended { outcome, .. } = status.state else { panic!("{id} never ended") };
            assert_eq!(sent.outcome.unwrap_or(outcome), outcome, "{id}");
            if sent.wanted.includes(outcome) {
                wanted.insert(id.clone(), outcome);
            }
        }
        let mut told = BTreeMap::new();
        while let Some(batch) = self.ground.commands.inner.take_feedback(Patience::None, None).await.unwrap()
        {
            for record in &batch.records {
                let outcome = record.outcome().unwrap();
                assert_eq!(told.insert(record.original_message_id.clone(), outcome), None, "told twice");
            }
            self.ground.commands.settle_feedback(batch.lock, Settlement::Complete).await.unwrap();
        }
        assert_eq!(told, wanted);
        assert_eq!(self.ground.in_use(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_ends_once_and_feedback_is_what_was_asked(
        acts in prop::collection::vec(act(), 1..70),
        on_disk: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut journey = Journey::start(on_disk).await;
            for act in acts {
                journey.run(act).await;
            }
            journey.finish().await;
        });
    }
}
