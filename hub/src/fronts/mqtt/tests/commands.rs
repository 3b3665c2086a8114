//! Commands to clients that do not read, or do so slowly.

use whimbrel::{Message, wire::feedback::CommandOutcome};

use super::*;
use crate::{commands::CommandState, sessions::Assurance};

/// Larger than the pipe to the client, and so large that two of them fill what may wait to be sent.
const BODY: usize = 60_000;

impl Connected {
    async fn subscribe(&mut self, assurance: Assurance) {
        let qos = match assurance {
            Assurance::AtMostOnce => QoS::AtMostOnce,
            Assurance::AtLeastOnce => QoS::AtLeastOnce,
        };
        let filter = format!("devices/{}/messages/devicebound/#", self.device);
        let (packet_id, mut bytes) = (NonZeroU16::MIN, BytesMut::new());
        match self.version {
            Version::V3 => {
                let packet = v3::Packet::Subscribe { packet_id, topic_filters: vec![(filter.into(), qos)] };
                v3::Codec::new(0).encode(packet, &mut bytes).unwrap();
            }
            Version::V5 => {
                let options = v5::SubscriptionOptions { qos, ..Default::default() };
                let packet = v5::Packet::Subscribe(v5::Subscribe {
                    packet_id,
                    id: None,
                    user_properties: Vec::new(),
                    topic_filters: vec![(filter.into(), options)],
                });
                v5::Codec::new(0, 0).encode(packet, &mut bytes).unwrap();
            }
        }
        self.write.write_all(&bytes).await.unwrap();
        assert_eq!(self.packet().await.unwrap()[0], 0x90, "no SUBACK");
    }

    /// Reads a command and gives its packet id, or 0.
    async fn command(&mut self) -> u16 {
        let packet = self.packet().await.expect("the hub has closed");
        match self.version {
            Version::V3 => match v3::Codec::new(0).decode(&mut packet.clone()).unwrap().unwrap().0 {
                v3::Packet::Publish(publish) => publish.packet_id.map_or(0, NonZeroU16::get),
                other => panic!("{other:?}"),
            },
            Version::V5 => match v5::Codec::new(0, 0).decode(&mut packet.clone()).unwrap().unwrap().0 {
                v5::Packet::Publish(publish) => publish.packet_id.map_or(0, NonZeroU16::get),
                other => panic!("{other:?}"),
            },
        }
    }
}

impl Ground {
    async fn send(&self, device: &str, id: &str) {
        let message = Message::telemetry(vec![b'x'; BODY]).message_id(id);
        self.commands.send(device, message).await.unwrap();
    }

    async fn is_completed(&self, device: &str, id: &str) -> bool {
        let status = self.commands.status(device, id).await.unwrap().unwrap();
        matches!(status.state, CommandState::Ended { outcome: CommandOutcome::Completed, .. })
    }
}

#[tokio::test]
async fn no_more_commands_are_taken_than_may_wait_to_be_sent() {
    let ground = Ground::start(Limits::default()).await;
    for (device, version) in [("d4", Version::V3), ("d5", Version::V5)] {
        let mut client = ground.client(device, version).await.connect().await;
        client.subscribe(Assurance::AtLeastOnce).await;
        let before = ground.front.metrics.commands_sent.get();
        for number in 0..10 {
            ground.send(device, &number.to_string()).await;
        }
        let taken = || ground.front.metrics.commands_sent.get() - before;
        eventually("the first ones are written", || taken() >= 2).await;
        // The others are not locked: somebody else could have them, and the hub needs no memory for them.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(taken(), 2);
        for _ in 0..10 {
            let id = client.command().await;
            client.write.write_all(&[0x40, 2, 0, id as u8]).await.unwrap();
        }
        for number in 0..10 {
            while !ground.is_completed(device, &number.to_string()).await {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn quality_of_service_0_completes_when_the_bytes_have_left_and_not_before() {
    let ground = Ground::start(Limits::default()).await;
    let mut client = ground.client("d", Version::V3).await.connect().await;
    client.subscribe(Assurance::AtMostOnce).await;
    ground.send("d", "1").await;
    eventually("it is written", || ground.front.metrics.commands_sent.get() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!ground.is_completed("d", "1").await, "most of it is still here");
    assert_eq!(client.command().await, 0);
    while !ground.is_completed("d", "1").await {
        tokio::task::yield_now().await;
    }
    assert_eq!(ground.front.metrics.commands_completed.get(), 1);
}

#[tokio::test]
async fn events_are_taken_from_a_client_whose_commands_wait_for_acknowledgements() {
    let ground = Ground::start(Limits { command_window: 1, ..Limits::default() }).await;
    let mut client = ground.client("d", Version::V3).await.connect().await;
    client.subscribe(Assurance::AtLeastOnce).await;
    ground.send("d", "1").await;
    ground.send("d", "2").await;
    let first = client.command().await;
    for id in 1..=100 {
        client.publish(id, 100).await;
        assert_eq!(client.acknowledged().await, id);
    }
    assert_eq!(ground.front.metrics.commands_sent.get(), 1, "the window is a setting");
    client.write.write_all(&[0x40, 2, 0, first as u8]).await.unwrap();
    assert_ne!(client.command().await, first);
}
