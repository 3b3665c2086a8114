//! A device, a hub, and a bad network between them: whatever happens, the account balances and every lane is stored
//! whole and in order, on MQTT 5 without duplicates.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::time::Duration;

use whimbrel::{
    Account, DeviceClient, DeviceOptions, Lane, Message,
    device::Protocol,
    testing::{Fault, Link},
};
use whimbrel_hub::{Hub, store::Position};

/// Long enough that only a hang reaches it.
const LONG: Duration = Duration::from_secs(120);
/// Enough bytes that a connection is in full swing.
const SWING: u64 = 20_000;

struct World {
    hub: Hub,
    link: Link,
    device: DeviceClient,
    _folder: tempfile::TempDir,
}

impl World {
    /// With TLS where bytes get damaged: without it nobody would notice what is damaged inside of a message.
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
            .outbox_dir(folder.path().join("outbox"));
        let device = DeviceClient::open(options).await.unwrap();
        Self { hub, link, device, _folder: folder }
    }

    /// Sends in both lanes while `faults` are at work, then lets everything arrive and looks at what did.
    async fn survives(self, protocol: Protocol, faults: impl AsyncFnOnce(&Link)) {
        let sending = async {
            let mut sent = [0u64; 2];
            loop {
                let batch: Vec<_> = (0..20)
                    .map(|index| {
                        let lane = usize::from(index % 5 != 0);
                        sent[lane] += 1;
                        let number = sent[lane];
                        let lane = Lane::ALL[lane];
                        let body = format!("{number} {:0>200}", "");
                        Message::in_lane(lane, body).property("lane", lane.name())
                    })
                    .collect();
                self.device.send_all(batch).await.unwrap();
                // No faster than it can arrive, so that the end comes soon after the last fault.
                while self.device.account().queued > 2_000 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        tokio::select! {
            () = sending => unreachable!(),
            result = tokio::time::timeout(LONG, faults(&self.link)) => result.expect("the faults have their effect"),
        }
        self.link.set(Fault::None);
        assert_eq!(self.device.flush(LONG).await.unwrap(), 0, "{:?}", self.link.counts());
        let sent = self.device.account().accepted;
        self.device.close().await.unwrap();
        assert_eq!(self.device.account(), Account { accepted: sent, delivered: sent, ..Account::default() });

        let stored = self.stored().await;
        let mut total = 0;
        for lane in Lane::ALL {
            let mut numbers: Vec<u64> =
                stored.iter().filter(|(of, _)| *of == lane).map(|(_, number)| *number).collect();
            if protocol == Protocol::Mqtt3 {
                // At least once: what comes again is older than what came already.
                let mut newest = 0;
                numbers.retain(|number| {
                    *number > newest && {
                        newest = *number;
                        true
                    }
                });
            }
            assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{lane:?}: {numbers:?}");
            total += numbers.len() as u64;
        }
        assert_eq!(total, sent);
        self.hub.stop().await.unwrap();
    }

    /// Everything the hub has, with lane and number.
    async fn stored(&self) -> Vec<(Lane, u64)> {
        let mut stored = Vec::new();
        for state in self.hub.events().partitions() {
            let mut reader = self.hub.events().reader(state.partition, Position::Beginning).await.unwrap();
            let mut events = Vec::new();
            while (events.len() as u64) < state.next {
                reader.next(1_000, &mut events).await.unwrap();
            }
            for event in events {
                let message = event.message().unwrap();
                let text = std::str::from_utf8(message.body()).unwrap();
                let number = text.split(' ').next().unwrap().parse().unwrap();
                let lane = message.properties().get("lane").unwrap();
                let lane = Lane::ALL.into_iter().find(|known| known.name() == lane).unwrap();
                stored.push((lane, number));
            }
        }
        stored
    }
}

/// Waits for something that the link can tell.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the connections there are now carry traffic both ways.
async fn in_full_swing(link: &Link) {
    let before = link.counts();
    until(|| {
        let now = link.counts();
        now.up > before.up + SWING && now.down > before.down + 100
    })
    .await;
}

/// Waits for a connection that was not there.
async fn reconnected(link: &Link, before: u64) {
    until(|| link.counts().connections > before).await;
}

async fn under(protocol: Protocol, encrypted: bool, faults: impl AsyncFnOnce(&Link)) {
    World::new(protocol, encrypted).await.survives(protocol, faults).await;
}

async fn cuts(link: &Link) {
    for _ in 0..10 {
        in_full_swing(link).await;
        let before = link.counts().connections;
        link.cut();
        reconnected(link, before).await;
    }
}

async fn refusals(link: &Link) {
    for _ in 0..3 {
        in_full_swing(link).await;
        let before = link.counts().connections;
        link.set(Fault::Refuse);
        reconnected(link, before + 3).await;
        link.set(Fault::None);
    }
    in_full_swing(link).await;
}

async fn dead_air(link: &Link) {
    for _ in 0..3 {
        in_full_swing(link).await;
        let before = link.counts();
        link.set(Fault::Swallow);
        until(|| link.counts().lost > before.lost).await;
        link.set(Fault::None);
        reconnected(link, before.connections).await;
    }
    in_full_swing(link).await;
}

async fn trickle(link: &Link) {
    in_full_swing(link).await;
    link.set(Fault::Slow { bytes: 700, interval: Duration::from_millis(2) });
    in_full_swing(link).await;
    link.cut();
    in_full_swing(link).await;
}

async fn crumbs(link: &Link) {
    in_full_swing(link).await;
    link.set(Fault::Split);
    for _ in 0..3 {
        in_full_swing(link).await;
        link.cut();
    }
    in_full_swing(link).await;
}

async fn garbage(link: &Link) {
    for _ in 0..5 {
        in_full_swing(link).await;
        let before = link.counts().connections;
        link.set(Fault::Garbage);
        reconnected(link, before).await;
        link.set(Fault::None);
    }
    in_full_swing(link).await;
}

macro_rules! link_tests {
    ($($fault:ident $encrypted:literal;)*) => {
        mod mqtt_5 {
            use super::*;
            $(#[tokio::test] async fn $fault() { under(Protocol::Mqtt5, $encrypted, super::$fault).await; })*
        }
        mod mqtt_3 {
            use super::*;
            $(#[tokio::test] async fn $fault() { under(Protocol::Mqtt3, $encrypted, super::$fault).await; })*
        }
    };
}

link_tests! {
    cuts false;
    refusals false;
    dead_air false;
    trickle false;
    crumbs true;
    garbage true;
}
