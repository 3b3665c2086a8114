//! Commands: pushed to who subscribed, settled by PUBACK, given back when they are not.

use std::{
    collections::BTreeSet,
    num::{NonZeroU16, NonZeroU32},
    time::{Duration, SystemTime},
};

use rmqtt_codec::{
    MqttPacket,
    types::{Publish, QoS},
    v3,
    v5::{self, DisconnectReasonCode as Code},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use whimbrel::{
    Lane, Message,
    transport::Settlement,
    wire::{
        feedback::CommandOutcome,
        topic,
        v5::{self as names, ReceivedCommand},
    },
};
use whimbrel_hub::commands::CommandState;

use crate::client::{Client, Device, Ground, PATIENCE, publication};

/// A way to receive commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.
    V5,
    /// MQTT 5, on the topic of 3.1.1.
    Topic5,
}

const WAYS: [Way; 3] = [Way::V3, Way::V5, Way::Topic5];

impl Way {
    fn version(self) -> u8 {
        if self == Self::V3 { 4 } else { 5 }
    }

    fn filter(self, device: &Device) -> String {
        match self {
            Self::V3 | Self::Topic5 => format!("devices/{}/messages/devicebound/#", device.id()),
            Self::V5 => "$iothub/commands".to_owned(),
        }
    }
}

/// A hub with short locks.
async fn impatient() -> Ground {
    Ground::start_with(|builder| builder.set("command-lock", "1s").unwrap()).await
}

/// Something that has to be shown not to happen has not happened after this.
const A_WHILE: Duration = Duration::from_millis(150);

impl Ground {
    /// A client that has subscribed to commands.
    async fn receiver(&self, device: &Device, way: Way) -> Client {
        let mut client = self.connect(device, way.version()).await;
        client.subscribe(&[&way.filter(device)], QoS::AtLeastOnce).await;
        client
    }

    /// Sends a command with its body as message id; gives its number.
    async fn command(&self, device: &Device, body: &str) -> u64 {
        let message = Message::telemetry(body.to_owned()).message_id(body);
        self.hub.commands().send(device.id(), message).await.unwrap().sequence
    }

    /// What became of a command; `None` while it is not over.
    async fn outcome(&self, device: &Device, id: &str) -> Option<CommandOutcome> {
        match self.hub.commands().status(device.id(), id).await.unwrap().expect("an unknown command").state {
            CommandState::Ended { outcome, .. } => Some(outcome),
            CommandState::Enqueued | CommandState::Locked => None,
        }
    }

    /// Waits for the end of a command.
    async fn ends(&self, device: &Device, id: &str) -> CommandOutcome {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(outcome) = self.outcome(device, id).await {
                return outcome;
            }
            assert!(Instant::now() < end, "{id} does not end");
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn pending(&self, device: &Device) -> u64 {
        self.hub.commands().pending(device.id()).await.unwrap()
    }
}

/// A command as it arrived.
#[derive(Debug)]
struct Got {
    packet: Publish,
    is_v5: bool,
}

impl Got {
    fn id(&self) -> u16 {
        self.packet.packet_id.expect("no packet id").get()
    }

    fn body(&self) -> &str {
        std::str::from_utf8(&self.packet.payload).unwrap()
    }

    /// What the properties of MQTT 5 say.
    fn command(&self) -> ReceivedCommand {
        let properties = self.packet.properties.as_ref().unwrap();
        let user = properties.user_properties.iter().map(|(name, value)| (&**name, &**value));
        names::command(properties.content_type.as_deref(), user, self.packet.payload.clone()).unwrap()
    }

    /// How many deliveries counted; `None` where it is not told.
    fn deliveries(&self) -> Option<u32> {
        let told = self.is_v5.then(|| self.command()).and_then(|command| command.delivery_count);
        assert!(told.is_some() || &*self.packet.topic != names::COMMANDS);
        told
    }
}

impl Client {
    async fn subscribe(&mut self, filters: &[&str], qos: QoS) {
        let packet_id = NonZeroU16::MAX;
        if self.is_v5() {
            let options = v5::SubscriptionOptions { qos, ..Default::default() };
            let topic_filters = filters.iter().map(|filter| ((*filter).into(), options)).collect();
            let subscribe = v5::Subscribe { packet_id, id: None, user_properties: Vec::new(), topic_filters };
            self.send(v5::Packet::Subscribe(subscribe)).await;
        } else {
            let topic_filters = filters.iter().map(|filter| ((*filter).into(), qos)).collect();
            self.send(v3::Packet::Subscribe { packet_id, topic_filters }).await;
        }
        match self.receive().await {
            Some(MqttPacket::V3(v3::Packet::SubscribeAck { status, .. })) => {
                assert!(status.iter().all(|status| *status == v3::SubscribeReturnCode::Success(qos)));
            }
            Some(MqttPacket::V5(v5::Packet::SubscribeAck(answer))) => {
                let granted = match qos {
                    QoS::AtMostOnce => v5::SubscribeAckReason::GrantedQos0,
                    _ => v5::SubscribeAckReason::GrantedQos1,
                };
                assert!(answer.status.iter().all(|status| *status == granted), "{answer:?}");
            }
            other => panic!("no SUBACK: {other:?}"),
        }
    }

    async fn unsubscribe(&mut self, filter: &str) {
        let packet_id = NonZeroU16::MAX;
        let topic_filters = vec![filter.into()];
        if self.is_v5() {
            let packet = v5::Unsubscribe { packet_id, user_properties: Vec::new(), topic_filters };
            self.send(v5::Packet::Unsubscribe(packet)).await;
        } else {
            self.send(v3::Packet::Unsubscribe { packet_id, topic_filters }).await;
        }
        match self.receive().await {
            Some(MqttPacket::V3(v3::Packet::UnsubscribeAck { .. })) => {}
            Some(MqttPacket::V5(v5::Packet::UnsubscribeAck(answer))) => {
                assert_eq!(answer.status, [v5::UnsubscribeAckReason::Success]);
            }
            other => panic!("no UNSUBACK: {other:?}"),
        }
    }

    /// The next command.
    async fn command(&mut self) -> Got {
        let is_v5 = self.is_v5();
        let packet = match self.receive().await {
            Some(MqttPacket::V3(v3::Packet::Publish(packet))) => *packet,
            Some(MqttPacket::V5(v5::Packet::Publish(packet))) => *packet,
            other => panic!("no command: {other:?}"),
        };
        assert!(!packet.retain && !packet.dup);
        Got { packet, is_v5 }
    }

    /// Completes what came under `id`.
    async fn complete(&mut self, id: u16) {
        let packet_id = NonZeroU16::new(id).unwrap();
        if self.is_v5() {
            self.answer(id, v5::PublishAckReason::Success, None).await;
        } else {
            self.send(v3::Packet::PublishAck { packet_id }).await;
        }
    }

    /// Answers with a reason and a status, on MQTT 5.
    async fn answer(&mut self, id: u16, reason_code: v5::PublishAckReason, status: Option<&str>) {
        let properties = status.map(|status| ("status".into(), status.to_owned().into()));
        self.send(v5::Packet::PublishAck(v5::PublishAck {
            packet_id: NonZeroU16::new(id).unwrap(),
            reason_code,
            properties: properties.into_iter().collect(),
            reason_string: None,
        }))
        .await;
    }

    async fn settle(&mut self, id: u16, settlement: Settlement) {
        let reason = v5::PublishAckReason::ImplementationSpecificError;
        match settlement {
            Settlement::Complete => self.complete(id).await,
            Settlement::Abandon => self.answer(id, reason, Some("0603")).await,
            Settlement::Reject => self.answer(id, reason, Some("0100")).await,
        }
    }

    /// Asserts that the connection is there and no command comes.
    async fn gets_nothing(&mut self) {
        sleep(A_WHILE).await;
        if self.is_v5() {
            self.send(v5::Packet::PingRequest).await;
        } else {
            self.send(v3::Packet::PingRequest).await;
        }
        let packet = self.receive().await;
        assert!(
            matches!(
                packet,
                Some(MqttPacket::V3(v3::Packet::PingResponse) | MqttPacket::V5(v5::Packet::PingResponse))
            ),
            "not nothing: {packet:?}"
        );
    }
}

#[tokio::test]
async fn what_a_device_of_3_1_1_reads() {
    let ground = Ground::start().await;
    let device = ground.device("d#1").await;
    let mut client = ground.receiver(&device, Way::V3).await;
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    let expires = expires.min(SystemTime::now() + Duration::from_secs(60));
    let mut message = Message::telemetry("reboot")
        .message_id("m-1")
        .correlation_id("c/1")
        .content_type("application/json")
        .content_encoding("utf-8")
        .property("IoTHub-Ack", "Full")
        .property("p", "a|b");
    message.system_mut().user_id = Some("u 1".into());
    message.system_mut().expiry_time = Some(expires);
    message.system_mut().to = Some("/devices/other/messages/devicebound".into());
    ground.hub.commands().send("d#1", message).await.unwrap();
    let got = client.command().await;
    assert_eq!(got.packet.qos, QoS::AtLeastOnce);
    assert_eq!((got.id(), got.body()), (1, "reboot"));
    let bag = got.packet.topic.strip_prefix("devices/d#1/messages/devicebound/").expect("another topic");
    let pairs: BTreeSet<&str> = bag.split('&').collect();
    // Expiry is kept to the millisecond at least; its form is tested where it is written.
    let expiry = pairs.iter().find(|pair| pair.starts_with("%24.exp=")).expect("no expiry time");
    assert!(
        expiry.len() == "%24.exp=2026-01-31T12%3A00%3A00.0000000Z".len() && expiry.ends_with('Z'),
        "{expiry}"
    );
    let expected = [
        "%24.mid=m-1",
        "%24.cid=c%2F1",
        "%24.uid=u%201",
        "%24.ct=application%2Fjson",
        "%24.ce=utf-8",
        expiry,
        "%24.to=%2Fdevices%2Fd%231%2Fmessages%2FdeviceBound",
        "iothub-ack=full",
        "p=a%7Cb",
    ];
    assert_eq!(pairs, BTreeSet::from(expected));

    // A bag there always is: some clients fail without.
    let message = Message::telemetry("");
    ground.hub.commands().send("d#1", message).await.unwrap();
    let topic = client.command().await.packet.topic;
    assert!(topic.contains("%24.to=%2Fdevices%2Fd%231%2Fmessages%2FdeviceBound"), "{topic}");
}

#[tokio::test]
async fn what_a_device_of_5_reads() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let mut client = ground.receiver(&device, Way::V5).await;
    let created = SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_860_800_123);
    let mut message = Message::telemetry("reboot")
        .message_id("m-1")
        .correlation_id("c")
        .content_type("application/json")
        .content_encoding("utf-8")
        .creation_time(created)
        .property("IoTHub-Ack", "Full")
        .property("p", "v");
    message.system_mut().user_id = Some("u".into());
    let before = SystemTime::now() - Duration::from_millis(1);
    let sequence = ground.hub.commands().send("d", message).await.unwrap().sequence;
    let got = client.command().await;
    assert_eq!((&*got.packet.topic, got.packet.qos, got.id()), ("$iothub/commands", QoS::AtLeastOnce, 1));
    let properties = got.packet.properties.as_ref().unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!((properties.topic_alias, properties.message_expiry_interval), (None, None));
    let value = |wanted: &str| {
        let found = properties.user_properties.iter().find(|(name, _)| &**name == wanted);
        found.map(|(_, value)| value.to_string())
    };
    let expected = [
        ("sequence-no", sequence.to_string()),
        ("delivery-count", "0".to_owned()),
        ("creation-time", "1769860800123".to_owned()),
        ("message-id", "m-1".to_owned()),
        ("user-id", "u".to_owned()),
        ("correlation-id", "c".to_owned()),
        ("content-encoding", "utf-8".to_owned()),
        ("@iothub-ack", "full".to_owned()),
        ("@p", "v".to_owned()),
    ];
    for (name, text) in expected {
        assert_eq!(value(name), Some(text), "{name}");
    }
    let enqueued = got.command().enqueued_at.unwrap();
    assert!(enqueued >= before && enqueued <= SystemTime::now(), "milliseconds since 1970");
}

#[tokio::test]
async fn a_command_is_completed_by_its_acknowledgement() {
    let ground = Ground::start().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        ground.command(&device, "c").await;
        let got = client.command().await;
        assert_eq!(ground.outcome(&device, "c").await, None, "delivered is not completed");
        assert_eq!(ground.pending(&device).await, 1);
        client.complete(got.id()).await;
        assert_eq!(ground.ends(&device, "c").await, CommandOutcome::Completed);
        assert_eq!(ground.pending(&device).await, 0);
        client.gets_nothing().await;
    }
}

#[tokio::test]
async fn a_command_of_5_is_abandoned_and_comes_again_until_it_was_too_often() {
    let ground = Ground::start_with(|builder| builder.set("command-max-delivery-count", "3").unwrap()).await;
    for way in [Way::V5, Way::Topic5] {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        ground.command(&device, "c").await;
        let mut last = 0;
        for count in 0..3 {
            let got = client.command().await;
            assert!(got.id() != last && got.deliveries().is_none_or(|told| told == count), "{got:?}");
            last = got.id();
            client.settle(last, Settlement::Abandon).await;
        }
        assert_eq!(ground.ends(&device, "c").await, CommandOutcome::DeliveryCountExceeded);
        client.gets_nothing().await;
    }
}

#[tokio::test]
async fn a_command_of_5_is_rejected_or_abandoned_by_what_the_status_says() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let mut client = ground.receiver(&device, Way::V5).await;
    let reason = v5::PublishAckReason::ImplementationSpecificError;
    for (id, status) in [("r1", Some("0100")), ("r2", Some("0104")), ("r3", None), ("r4", Some("nonsense"))] {
        ground.command(&device, id).await;
        let got = client.command().await;
        client.answer(got.id(), reason, status).await;
        assert_eq!(ground.ends(&device, id).await, CommandOutcome::Rejected, "{status:?}");
    }
    let letters = ground.hub.commands().dead_letters(Some("d"), None, 10).await.unwrap();
    assert_eq!(letters.len(), 4, "rejected commands can be looked at");
    for (id, reason, status) in [
        ("a1", reason, Some("0603")),
        ("a2", reason, Some("0501")),
        ("a3", v5::PublishAckReason::QuotaExceeded, None),
    ] {
        ground.command(&device, id).await;
        let got = client.command().await;
        client.answer(got.id(), reason, status).await;
        let again = client.command().await;
        assert_eq!((again.body(), again.deliveries()), (id, Some(1)), "{status:?}");
        client.complete(again.id()).await;
        assert_eq!(ground.ends(&device, id).await, CommandOutcome::Completed);
    }
}

#[tokio::test]
async fn a_lock_that_runs_out_has_the_command_sent_again_and_its_acknowledgement_is_late() {
    let ground = impatient().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        let start = Instant::now();
        ground.command(&device, "c").await;
        let first = client.command().await;
        let second = client.command().await;
        assert!(start.elapsed() >= Duration::from_millis(990), "{:?}", start.elapsed());
        assert_eq!((second.body(), second.deliveries().unwrap_or(0)), ("c", 0), "it does not count");
        assert_ne!(first.id(), second.id());
        client.complete(first.id()).await;
        client.gets_nothing().await;
        assert_eq!(ground.outcome(&device, "c").await, None, "the lock of the first delivery is over");
        client.complete(second.id()).await;
        assert_eq!(ground.ends(&device, "c").await, CommandOutcome::Completed);
        // Once more each, and one that was never given out: nothing to be seen.
        for id in [first.id(), second.id(), 4_711] {
            client.complete(id).await;
        }
        client.gets_nothing().await;
    }
}

#[tokio::test]
async fn locks_that_run_out_count_where_the_setting_says_so() {
    let ground = Ground::start_with(|builder| {
        let builder = builder.set("command-lock", "1s").unwrap();
        let builder = builder.set("command-count-lock-expiry", "true").unwrap();
        builder.set("command-max-delivery-count", "2").unwrap()
    })
    .await;
    for way in [Way::V3, Way::V5] {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        ground.command(&device, "c").await;
        for count in 0..2 {
            let got = client.command().await;
            assert!(got.deliveries().is_none_or(|told| told == count));
        }
        assert_eq!(ground.ends(&device, "c").await, CommandOutcome::DeliveryCountExceeded);
    }
}

#[tokio::test]
async fn an_expired_command_is_not_delivered_and_one_that_is_locked_may_still_be_completed() {
    let ground = Ground::start().await;
    let send = async |device: &Device, id: &str, lives: Duration| {
        let mut message = Message::telemetry(id.to_owned()).message_id(id);
        message.system_mut().expiry_time = Some(SystemTime::now() + lives);
        ground.hub.commands().send(device.id(), message).await.unwrap();
    };
    for way in [Way::V3, Way::V5] {
        let device = ground.device(&format!("{way:?}")).await;
        send(&device, "gone", Duration::ZERO).await;
        assert_eq!(ground.ends(&device, "gone").await, CommandOutcome::Expired);
        let mut client = ground.receiver(&device, way).await;
        send(&device, "in-time", Duration::from_millis(300)).await;
        let got = client.command().await;
        assert_eq!(got.body(), "in-time");
        sleep(Duration::from_millis(400)).await;
        client.complete(got.id()).await;
        assert_eq!(ground.ends(&device, "in-time").await, CommandOutcome::Completed);
        client.gets_nothing().await;
    }
}

#[tokio::test]
async fn a_command_whose_time_ends_under_its_lock_expires_with_the_lock() {
    let ground = impatient().await;
    for way in [Way::V3, Way::V5] {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        let mut message = Message::telemetry("c").message_id("c");
        message.system_mut().expiry_time = Some(SystemTime::now() + Duration::from_millis(300));
        ground.hub.commands().send(device.id(), message).await.unwrap();
        let got = client.command().await;
        assert_eq!(ground.ends(&device, "c").await, CommandOutcome::Expired);
        client.complete(got.id()).await;
        client.gets_nothing().await;
        assert_eq!(ground.outcome(&device, "c").await, Some(CommandOutcome::Expired), "once and for all");
    }
}

#[tokio::test]
async fn a_purge_takes_locked_commands_too() {
    let ground = Ground::start().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        ground.command(&device, "a").await;
        let got = client.command().await;
        client.unsubscribe(&way.filter(&device)).await;
        ground.command(&device, "b").await;
        assert_eq!(ground.hub.commands().purge(device.id()).await.unwrap(), 2);
        client.complete(got.id()).await;
        client.subscribe(&[&way.filter(&device)], QoS::AtLeastOnce).await;
        client.gets_nothing().await;
        for id in ["a", "b"] {
            assert_eq!(ground.outcome(&device, id).await, Some(CommandOutcome::Purged));
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_gives_its_commands_back_at_once() {
    let ground = Ground::start().await;
    for way in WAYS {
        for how in ["takeover", "loss", "goodbye"] {
            let device = ground.device(&format!("{way:?}-{how}")).await;
            let mut old = ground.receiver(&device, way).await;
            let ids = ["1", "2", "3"];
            for id in ids {
                ground.command(&device, id).await;
            }
            for id in ids {
                let got = old.command().await;
                assert_eq!(got.body(), id);
                if id == "2" {
                    old.complete(got.id()).await;
                    assert_eq!(ground.ends(&device, id).await, CommandOutcome::Completed);
                }
            }
            match how {
                "takeover" => {}
                "loss" => drop(old),
                _ if way == Way::V3 => old.send(v3::Packet::Disconnect).await,
                _ => old.send(v5::Packet::Disconnect(v5::Disconnect::new(Code::NormalDisconnection))).await,
            }
            // Locks last a minute, which the test does not.
            let mut new = ground.receiver(&device, way).await;
            for id in ["1", "3"] {
                let got = timeout(Duration::from_secs(10), new.command()).await.expect("not given back");
                assert_eq!((got.body(), got.deliveries().unwrap_or(0)), (id, 0), "{how}");
                new.complete(got.id()).await;
                assert_eq!(ground.ends(&device, id).await, CommandOutcome::Completed);
            }
            new.gets_nothing().await;
        }
    }
}

#[tokio::test]
async fn a_deleted_device_is_dropped_and_its_commands_are_gone() {
    let ground = Ground::start().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        ground.command(&device, "c").await;
        client.command().await;
        ground.hub.registry().delete(device.id(), None).await.unwrap();
        client.closed_with(Code::NotAuthorized).await;
        let again = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&again, way).await;
        client.gets_nothing().await;
    }
}

#[tokio::test]
async fn the_whole_queue_comes_in_order_when_a_clean_session_subscribes() {
    let ground = Ground::start().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        for number in 0..40 {
            ground.command(&device, &number.to_string()).await;
        }
        let mut client = ground.connect(&device, way.version()).await;
        client.gets_nothing().await;
        client.subscribe(&[&way.filter(&device)], QoS::AtLeastOnce).await;
        for number in 0..40 {
            let got = client.command().await;
            assert_eq!(got.body(), number.to_string());
            client.complete(got.id()).await;
        }
        client.gets_nothing().await;
        assert_eq!(ground.pending(&device).await, 0);
    }
}

#[tokio::test]
async fn sixteen_are_unacknowledged_and_no_more_and_are_acknowledged_in_any_order() {
    let ground = Ground::start().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        for number in 0..40 {
            ground.command(&device, &number.to_string()).await;
        }
        let mut client = ground.receiver(&device, way).await;
        let mut waiting = Vec::new();
        for number in 0..16 {
            let got = client.command().await;
            assert_eq!(got.body(), number.to_string());
            waiting.push(got.id());
        }
        client.gets_nothing().await;
        for number in 16..40 {
            // The newest, the oldest, one in between, and so on.
            let place = [waiting.len() - 1, 0, waiting.len() / 2][number % 3];
            client.complete(waiting.remove(place)).await;
            let got = client.command().await;
            assert_eq!(got.body(), number.to_string());
            assert!(!waiting.contains(&got.id()), "an id that is still taken");
            waiting.push(got.id());
        }
        for id in waiting {
            client.complete(id).await;
        }
        for number in 0..40 {
            assert_eq!(ground.ends(&device, &number.to_string()).await, CommandOutcome::Completed);
        }
    }
}

#[tokio::test]
async fn a_delivery_whose_lock_is_over_keeps_its_place_until_it_is_acknowledged() {
    let ground = impatient().await;
    let device = ground.device("d").await;
    let mut client = ground.dial(5).await;
    let hello = v5::Connect { receive_max: NonZeroU16::new(2), ..device.hello_v5() };
    client.enter_v5(hello).await;
    client.subscribe(&["$iothub/commands"], QoS::AtLeastOnce).await;
    ground.command(&device, "c").await;
    let first = client.command().await;
    let second = client.command().await;
    sleep(Duration::from_millis(1_200)).await;
    // Both locks are over, and both places taken: the client has said that it takes no third.
    client.gets_nothing().await;
    client.complete(first.id()).await;
    let third = client.command().await;
    assert!(third.id() != first.id() && third.id() != second.id());
    client.complete(third.id()).await;
    assert_eq!(ground.ends(&device, "c").await, CommandOutcome::Completed);
}

#[tokio::test]
async fn quality_of_service_0_completes_by_sending() {
    let ground = Ground::start().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        for number in 0..30 {
            ground.command(&device, &number.to_string()).await;
        }
        let mut client = ground.connect(&device, way.version()).await;
        client.subscribe(&[&way.filter(&device)], QoS::AtMostOnce).await;
        for number in 0..30 {
            let got = client.command().await;
            assert_eq!((got.packet.qos, got.packet.packet_id), (QoS::AtMostOnce, None));
            assert_eq!(got.body(), number.to_string());
        }
        for number in 0..30 {
            assert_eq!(ground.ends(&device, &number.to_string()).await, CommandOutcome::Completed);
        }
        client.gets_nothing().await;
    }
}

#[tokio::test]
async fn quality_of_service_2_is_granted_as_1() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let mut client = ground.connect(&device, 4).await;
    let topic_filters = vec![(Way::V3.filter(&device).into(), QoS::ExactlyOnce)];
    client.send(v3::Packet::Subscribe { packet_id: NonZeroU16::MIN, topic_filters }).await;
    match client.receive().await {
        Some(MqttPacket::V3(v3::Packet::SubscribeAck { status, .. })) => {
            assert_eq!(status, [v3::SubscribeReturnCode::Success(QoS::AtLeastOnce)]);
        }
        other => panic!("{other:?}"),
    }
    ground.command(&device, "c").await;
    assert_eq!(client.command().await.packet.qos, QoS::AtLeastOnce);
}

#[tokio::test]
async fn the_receive_maximum_of_the_client_counts() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    for number in 0..5 {
        ground.command(&device, &number.to_string()).await;
    }
    let mut client = ground.dial(5).await;
    client.enter_v5(v5::Connect { receive_max: NonZeroU16::new(1), ..device.hello_v5() }).await;
    client.subscribe(&["$iothub/commands"], QoS::AtLeastOnce).await;
    for number in 0..5 {
        let got = client.command().await;
        assert_eq!(got.body(), number.to_string());
        client.gets_nothing().await;
        client.complete(got.id()).await;
    }
}

#[tokio::test]
async fn a_command_that_fits_into_no_packet_of_the_client_is_rejected_and_the_next_one_comes() {
    let ground = Ground::start().await;
    for (way, qos) in [(Way::V5, QoS::AtLeastOnce), (Way::Topic5, QoS::AtMostOnce)] {
        let device = ground.device(&format!("{way:?}")).await;
        let large = Message::telemetry(vec![b'x'; 1_000]).message_id("large");
        ground.hub.commands().send(device.id(), large).await.unwrap();
        ground.command(&device, "small").await;
        let mut client = ground.dial(5).await;
        client.enter_v5(v5::Connect { max_packet_size: NonZeroU32::new(1_000), ..device.hello_v5() }).await;
        client.subscribe(&[&way.filter(&device)], qos).await;
        assert_eq!(client.command().await.body(), "small");
        assert_eq!(ground.ends(&device, "large").await, CommandOutcome::Rejected);
        let letters = ground.hub.commands().dead_letters(Some(device.id()), None, 10).await.unwrap();
        assert_eq!(letters.len(), 1, "it can be looked at");
    }
}

#[tokio::test]
async fn the_largest_command_comes_through() {
    let ground = Ground::start().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        for number in 0..20_u8 {
            // The expiry time that the hub sets counts too.
            let message = Message::telemetry(vec![number; 65_000]);
            ground.hub.commands().send(device.id(), message).await.unwrap();
        }
        for number in 0..20_u8 {
            let got = client.command().await;
            assert!(
                got.packet.payload.len() == 65_000 && got.packet.payload.iter().all(|byte| *byte == number)
            );
            client.complete(got.id()).await;
        }
    }
}

#[tokio::test]
async fn who_subscribes_both_ways_gets_each_command_once() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let both = [Way::Topic5.filter(&device), Way::V5.filter(&device)];
    let mut client = ground.connect(&device, 5).await;
    client.subscribe(&[&both[0], &both[1]], QoS::AtLeastOnce).await;
    ground.command(&device, "a").await;
    let got = client.command().await;
    assert_eq!(&*got.packet.topic, "$iothub/commands");
    client.gets_nothing().await;
    client.complete(got.id()).await;
    // One of them is enough, and the other one is left when it goes.
    client.unsubscribe("$iothub/commands").await;
    ground.command(&device, "b").await;
    let got = client.command().await;
    assert_eq!((got.packet.topic.starts_with("devices/d/messages/devicebound/"), got.body()), (true, "b"));
    client.complete(got.id()).await;
    client.unsubscribe(&both[0]).await;
    ground.command(&device, "c").await;
    client.gets_nothing().await;
    assert_eq!(ground.outcome(&device, "c").await, None);
}

#[tokio::test]
async fn unsubscribing_stops_the_push_and_leaves_what_was_sent_to_be_acknowledged() {
    let ground = Ground::start().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        ground.command(&device, "a").await;
        let sent = client.command().await;
        client.unsubscribe(&way.filter(&device)).await;
        ground.command(&device, "b").await;
        client.gets_nothing().await;
        client.complete(sent.id()).await;
        assert_eq!(ground.ends(&device, "a").await, CommandOutcome::Completed);
        client.subscribe(&[&way.filter(&device)], QoS::AtLeastOnce).await;
        let got = client.command().await;
        assert_eq!(got.body(), "b");
        client.complete(got.id()).await;
        assert_eq!(ground.ends(&device, "b").await, CommandOutcome::Completed);
    }
}

#[tokio::test]
async fn events_and_commands_have_packet_ids_of_their_own() {
    let ground = Ground::start().await;
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        ground.command(&device, "c").await;
        let got = client.command().await;
        assert_eq!(got.id(), 1);
        // An event under the same id, acknowledged while the command waits.
        client.publish(publication(&device.events_topic(), 1, "e")).await;
        assert_eq!(client.acknowledged().await.id, 1);
        assert_eq!(ground.outcome(&device, "c").await, None);
        client.complete(1).await;
        assert_eq!(ground.ends(&device, "c").await, CommandOutcome::Completed);
    }
}

#[tokio::test]
async fn what_a_service_writes_into_a_command_stays_what_it_is() {
    let ground = Ground::start().await;
    let hostile = "/devices/x/messages/devicebound/#?&=%24.to=+%00ü\u{202e}\"\n@$.mid";
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        let mut client = ground.receiver(&device, way).await;
        let mut message = Message::telemetry("c")
            .message_id("m;$.to=x%26")
            .correlation_id(hostile)
            .content_type(hostile)
            .content_encoding(hostile)
            .property("%24.to", "&=%26".replace(['&', '='], "*"))
            .property("$iothub", "#+%")
            .property("sequence-no", "99")
            .property("*", "");
        message.system_mut().user_id = Some(hostile.into());
        message.system_mut().message_schema = Some(hostile.into());
        message.system_mut().to = Some(hostile.into());
        ground.hub.commands().send(device.id(), message.clone()).await.unwrap();
        let got = client.command().await;
        let received = if way == Way::V5 {
            let command = got.command();
            assert_ne!(command.sequence, Some(99));
            command.message
        } else {
            let bag = topic::parse_c2d(&got.packet.topic, device.id()).unwrap();
            bag.into_message(Lane::Telemetry, got.packet.payload.clone())
        };
        assert_eq!(received.properties(), message.properties(), "{way:?}");
        let system = received.system();
        let own = format!("/devices/{}/messages/deviceBound", device.id());
        assert!(system.to.as_ref().is_some_and(|to| to.eq_ignore_ascii_case(&own)), "{:?}", system.to);
        message.system_mut().to.clone_from(&system.to);
        message.system_mut().expiry_time = system.expiry_time;
        assert_eq!(system, message.system(), "{way:?}");
    }
}

/// Connects without a clean session; tells whether there was one.
async fn resume(ground: &Ground, device: &Device, version: u8) -> (Client, bool) {
    let mut client = ground.dial(version).await;
    let present = if version == 4 {
        client.enter_v3(v3::Connect { clean_session: false, ..device.hello_v3() }).await.session_present
    } else {
        let hello =
            v5::Connect { clean_start: false, session_expiry_interval_secs: 3_600, ..device.hello_v5() };
        client.enter_v5(hello).await.session_present
    };
    (client, present)
}

#[tokio::test]
async fn a_kept_subscription_delivers_right_after_connack_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Ground::start_with(|builder| builder.data_dir(folder.path()));
    let ground = start().await;
    let mut devices = Vec::new();
    for way in WAYS {
        let device = ground.device(&format!("{way:?}")).await;
        let (mut client, present) = resume(&ground, &device, way.version()).await;
        assert!(!present);
        client.subscribe(&[&way.filter(&device)], QoS::AtLeastOnce).await;
        drop(client);
        ground.command(&device, "while-away").await;
        let (mut client, present) = resume(&ground, &device, way.version()).await;
        assert!(present);
        let got = client.command().await;
        assert_eq!(got.body(), "while-away");
        client.complete(got.id()).await;
        assert_eq!(ground.ends(&device, "while-away").await, CommandOutcome::Completed);
        ground.command(&device, "over-the-restart").await;
        // Delivered and not acknowledged: the restart gives it back.
        assert_eq!(client.command().await.body(), "over-the-restart");
        devices.push((way, device));
    }
    ground.hub.stop().await.unwrap();

    let ground = start().await;
    for (way, device) in &devices {
        let (mut client, present) = resume(&ground, device, way.version()).await;
        assert!(present, "{way:?}");
        let got = client.command().await;
        assert_eq!((got.body(), got.deliveries().unwrap_or(0)), ("over-the-restart", 0), "{way:?}");
        assert_eq!(got.packet.qos, QoS::AtLeastOnce);
        client.complete(got.id()).await;
        assert_eq!(ground.ends(device, "over-the-restart").await, CommandOutcome::Completed);
        client.unsubscribe(&way.filter(device)).await;
        ground.command(device, "unsubscribed").await;
    }
    ground.hub.stop().await.unwrap();

    let ground = start().await;
    for (way, device) in &devices {
        let (mut client, _) = resume(&ground, device, way.version()).await;
        client.gets_nothing().await;
        client.subscribe(&[&way.filter(device)], QoS::AtLeastOnce).await;
        assert_eq!(client.command().await.body(), "unsubscribed", "{way:?}");
    }
}

#[tokio::test]
async fn a_session_that_ended_stays_ended_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Ground::start_with(|builder| builder.data_dir(folder.path()));
    let ground = start().await;
    let mut devices = Vec::new();
    for (name, version) in [("clean", 4), ("clean", 5), ("expiry", 5), ("goodbye", 5), ("deleted", 4)] {
        let way = if version == 4 { Way::V3 } else { Way::V5 };
        let device = ground.device(&format!("{name}-{version}")).await;
        let (mut client, _) = resume(&ground, &device, version).await;
        client.subscribe(&[&way.filter(&device)], QoS::AtLeastOnce).await;
        let mut device = device;
        match name {
            "clean" => drop(ground.connect(&device, version).await),
            "expiry" => {
                let mut next = ground.dial(5).await;
                let hello = v5::Connect { clean_start: false, ..device.hello_v5() };
                assert!(next.enter_v5(hello).await.session_present, "it is still there, for the last time");
            }
            "goodbye" => {
                let mut goodbye = v5::Disconnect::new(Code::NormalDisconnection);
                goodbye.session_expiry_interval_secs = Some(0);
                client.send(v5::Packet::Disconnect(goodbye)).await;
                client.closed().await;
            }
            _ => {
                ground.hub.registry().delete(device.id(), None).await.unwrap();
                device = ground.device(&format!("{name}-{version}")).await;
            }
        }
        devices.push((version, device));
    }
    ground.hub.stop().await.unwrap();
    let ground = start().await;
    for (version, device) in &devices {
        ground.command(device, "c").await;
        let (mut client, present) = resume(&ground, device, *version).await;
        assert!(!present, "{}", device.id());
        client.gets_nothing().await;
    }
}

#[tokio::test]
async fn a_kept_subscription_of_5_means_nothing_on_3_1_1_and_is_there_when_5_comes_back() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let (mut client, _) = resume(&ground, &device, 5).await;
    client.subscribe(&["$iothub/commands"], QoS::AtLeastOnce).await;
    ground.command(&device, "c").await;
    client.command().await;
    let (mut client, present) = resume(&ground, &device, 4).await;
    assert!(present, "one session for both");
    client.gets_nothing().await;
    let (mut client, _) = resume(&ground, &device, 5).await;
    assert_eq!(client.command().await.body(), "c");
}

#[tokio::test]
async fn what_happens_to_commands_is_counted() {
    let ground = Ground::start_with(|builder| builder.set("open-metrics", "true").unwrap()).await;
    let device = ground.device("d").await;
    let mut client = ground.receiver(&device, Way::V5).await;
    for (id, settlement) in
        [("a", Settlement::Complete), ("b", Settlement::Reject), ("c", Settlement::Abandon)]
    {
        ground.command(&device, id).await;
        let got = client.command().await;
        client.settle(got.id(), settlement).await;
    }
    let again = client.command().await;
    client.complete(again.id()).await;
    // Late ones count for nothing.
    client.complete(again.id()).await;
    ground.ends(&device, "c").await;
    client.gets_nothing().await;
    let mut http = TcpStream::connect(ground.hub.http_addr().unwrap()).await.unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    http.read_to_string(&mut page).await.unwrap();
    for line in [
        "mqtt_commands_sent_total 4",
        "mqtt_commands_completed_total 2",
        "mqtt_commands_abandoned_total 1",
        "mqtt_commands_rejected_total 1",
    ] {
        assert!(page.lines().any(|found| found.ends_with(line)), "no {line:?} in {page}");
    }
}
