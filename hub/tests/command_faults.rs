//! A service, a hub, a bad network and a device that receives commands: whatever happens, the program gets and completes
//! every command exactly once, and the hub agrees.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::sync::watch;
use whimbrel::{
    Command, DeviceClient, DeviceOptions, ErrorKind, Message,
    device::Protocol,
    testing::{Fault, Link},
};
use whimbrel_hub::{
    Hub,
    commands::{CommandOutcome, CommandState},
};

/// Long enough that only a hang reaches it.
const LONG: Duration = Duration::from_secs(120);
/// So many completed are a connection in full swing.
const SWING: usize = 40;

struct World {
    hub: Hub,
    link: Link,
    options: DeviceOptions,
    _folder: tempfile::TempDir,
}

/// What the program did: how often each command was taken, and completed.
#[derive(Clone, Debug, Default)]
struct Done {
    taken: HashMap<String, u32>,
    completed: HashMap<String, u32>,
}

impl World {
    async fn new(protocol: Protocol, encrypted: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::builder().data_dir(folder.path().join("hub")).start().await.unwrap();
        let target = if encrypted { hub.mqtts_addr() } else { hub.mqtt_addr() };
        let link = Link::to(target.unwrap()).await.unwrap();
        let registered = hub.registry().create("d1").await.unwrap();
        let options = DeviceOptions::from_connection_string(&registered.connection_string())
            .unwrap()
            .server(format!("{}://{}", if encrypted { "mqtts" } else { "mqtt" }, link.address()))
            .ca_pem(hub.ca_certificate().unwrap().pem)
            .protocol(protocol)
            .keep_alive(Duration::from_millis(600))
            .connect_timeout(Duration::from_secs(2))
            .backoff(Duration::from_millis(1), Duration::from_millis(50))
            .close_deadline(Duration::ZERO)
            .outbox_dir(folder.path().join("outbox"));
        Self { hub, link, options, _folder: folder }
    }

    /// Sends commands, some events beside them, and has a program complete them while `faults` are at work; then lets
    /// everything come to its end and looks.
    async fn survives(self, restarts: bool, faults: impl AsyncFnOnce(&Link, &watch::Receiver<Done>)) {
        let (done, watched) = watch::channel(Done::default());
        let (stop, stopping) = watch::channel(false);
        let program = tokio::spawn(program(self.options.clone(), restarts, done, stopping));
        let over = AtomicBool::new(false);
        let sending = async {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                sent += 1;
                let message = Message::telemetry(format!("command {sent}")).message_id(sent.to_string());
                while let Err(error) = self.hub.commands().send("d1", message.clone()).await {
                    assert_eq!(error.kind(), ErrorKind::QueueFull, "{error}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            sent
        };
        let failing = async {
            let result = tokio::time::timeout(LONG, faults(&self.link, &watched)).await;
            result.expect("the faults have their effect");
            self.link.set(Fault::None);
            over.store(true, Ordering::Relaxed);
        };
        let (sent, ()) = tokio::join!(sending, failing);
        let all_ended = async {
            while self.hub.commands().pending("d1").await.unwrap() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, all_ended).await.expect("every command comes to its end");
        stop.send(true).unwrap();
        program.await.unwrap();
        let done = watched.borrow().clone();
        for number in 1..=sent {
            let id = number.to_string();
            assert_eq!(done.completed.get(&id), Some(&1), "{id} was taken {:?} times", done.taken.get(&id));
            // A program that ends with a command in hand gets it again.
            assert!(restarts || done.taken[&id] == 1, "{id} was taken {} times", done.taken[&id]);
            let state = self.hub.commands().status("d1", &id).await.unwrap().unwrap().state;
            assert!(
                matches!(state, CommandState::Ended { outcome: CommandOutcome::Completed, .. }),
                "{id}: {state:?}"
            );
        }
        assert_eq!(done.completed.len(), sent);
        assert!(sent > 3 * SWING, "too little happened: {sent}");
        self.hub.stop().await.unwrap();
    }
}

/// Takes commands, and completes them some at a time, the last first. With `restarts` it ends now and then, with some in
/// hand, and begins anew on the same folder.
async fn program(
    options: DeviceOptions,
    restarts: bool,
    done: watch::Sender<Done>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut device = DeviceClient::open(options.clone()).await.unwrap();
    let mut in_hand: Vec<Command> = Vec::new();
    let mut rounds = 0;
    while !*stopping.borrow_and_update() {
        let inbox = device.inbox();
        let command = tokio::time::timeout(Duration::from_millis(20), inbox.next()).await;
        if let Ok(command) = command {
            let command = command.unwrap().unwrap();
            done.send_modify(|done| *done.taken.entry(id(&command)).or_default() += 1);
            in_hand.push(command);
            if in_hand.len() < 5 {
                continue;
            }
        }
        device.send(Message::telemetry("working")).await.unwrap();
        rounds += 1;
        if restarts && rounds % 17 == 0 {
            device.close().await.unwrap();
            in_hand.clear();
            device = DeviceClient::open(options.clone()).await.unwrap();
            continue;
        }
        while let Some(command) = in_hand.pop() {
            command.complete().await.unwrap();
            done.send_modify(|done| *done.completed.entry(id(&command)).or_default() += 1);
        }
    }
    device.close().await.unwrap();
}

fn id(command: &Command) -> String {
    command.message_id().unwrap().to_owned()
}

/// Waits until some more were completed.
async fn in_full_swing(done: &watch::Receiver<Done>) {
    let mut done = done.clone();
    let goal = done.borrow().completed.len() + SWING;
    done.wait_for(|done| done.completed.len() >= goal).await.unwrap();
}

/// Waits for a connection that was not there.
async fn reconnected(link: &Link, before: u64) {
    while link.counts().connections <= before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn cuts(link: &Link, done: &watch::Receiver<Done>) {
    for _ in 0..10 {
        in_full_swing(done).await;
        let before = link.counts().connections;
        link.cut();
        reconnected(link, before).await;
    }
    in_full_swing(done).await;
}

async fn flurries(link: &Link, done: &watch::Receiver<Done>) {
    // Cuts that do not wait for anything: in the middle of handshakes, subscriptions, redeliveries.
    for round in 0..60u64 {
        tokio::time::sleep(Duration::from_millis(round % 13)).await;
        link.cut();
    }
    for _ in 0..3 {
        in_full_swing(done).await;
    }
}

async fn refusals(link: &Link, done: &watch::Receiver<Done>) {
    for _ in 0..3 {
        in_full_swing(done).await;
        let before = link.counts().connections;
        link.set(Fault::Refuse);
        reconnected(link, before + 3).await;
        link.set(Fault::None);
    }
    in_full_swing(done).await;
}

async fn dead_air(link: &Link, done: &watch::Receiver<Done>) {
    for _ in 0..3 {
        in_full_swing(done).await;
        let before = link.counts();
        link.set(Fault::Swallow);
        while link.counts().lost == before.lost {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        link.set(Fault::None);
        reconnected(link, before.connections).await;
    }
    in_full_swing(done).await;
}

async fn crumbs(link: &Link, done: &watch::Receiver<Done>) {
    link.set(Fault::Split);
    for _ in 0..3 {
        in_full_swing(done).await;
        link.cut();
    }
    in_full_swing(done).await;
}

async fn garbage(link: &Link, done: &watch::Receiver<Done>) {
    for _ in 0..5 {
        in_full_swing(done).await;
        let before = link.counts().connections;
        link.set(Fault::Garbage);
        reconnected(link, before).await;
        link.set(Fault::None);
    }
    in_full_swing(done).await;
}

macro_rules! fault_tests {
    ($($name:ident $fault:ident encrypted: $encrypted:literal, restarts: $restarts:literal;)*) => {
        mod mqtt_5 {
            use super::*;
            $(#[tokio::test] async fn $name() {
                World::new(Protocol::Mqtt5, $encrypted).await.survives($restarts, super::$fault).await;
            })*
        }
        mod mqtt_3 {
            use super::*;
            $(#[tokio::test] async fn $name() {
                World::new(Protocol::Mqtt3, $encrypted).await.survives($restarts, super::$fault).await;
            })*
        }
    };
}

fault_tests! {
    cuts cuts encrypted: false, restarts: false;
    flurries flurries encrypted: false, restarts: false;
    refusals refusals encrypted: false, restarts: false;
    dead_air dead_air encrypted: false, restarts: false;
    crumbs crumbs encrypted: true, restarts: false;
    garbage garbage encrypted: true, restarts: false;
    cuts_and_restarts cuts encrypted: false, restarts: true;
    flurries_and_restarts flurries encrypted: false, restarts: true;
}
