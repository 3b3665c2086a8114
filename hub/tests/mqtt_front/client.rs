//! A hub to test, and a client that does what it is told, right or wrong.

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use rmqtt_codec::{
    MqttCodec, MqttPacket,
    types::{Publish, QoS},
    v3, v5,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::codec::{Decoder, Encoder};
use whimbrel::auth::{ConnectionString, Credential, SasToken};
use whimbrel_hub::{
    Hub, HubBuilder,
    events::{Event, Position},
};

/// A test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running hub.
pub(crate) struct Ground {
    pub(crate) hub: Hub,
}

impl Ground {
    /// A hub in memory.
    pub(crate) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(HubBuilder) -> HubBuilder) -> Self {
        Self { hub: change(Hub::builder().in_memory()).start().await.unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.hub.mqtt_addr().unwrap()
    }

    /// A new device.
    pub(crate) async fn device(&self, id: &str) -> Device {
        Device::new(&self.hub.registry().create(id).await.unwrap().connection_string())
    }

    /// Connects to the MQTT port.
    pub(crate) async fn dial(&self, version: u8) -> Client {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client::new(stream, version)
    }

    /// A client of `device` that is let in.
    pub(crate) async fn connect(&self, device: &Device, version: u8) -> Client {
        let mut client = self.dial(version).await;
        client.enter(device).await;
        client
    }

    /// At least `count` events of a device, in order; waits until there are so many.
    pub(crate) async fn events(&self, device: &str, count: usize) -> Vec<Event> {
        let events = self.hub.events();
        let partition = events.partition_of(device);
        let mut reader = events.reader(partition, Position::Beginning).await.unwrap();
        let mut found = Vec::new();
        while found.len() < count {
            let mut batch = Vec::new();
            timeout(PATIENCE, reader.next(1000, &mut batch))
                .await
                .expect("fewer events than expected")
                .unwrap();
            found.extend(batch.into_iter().filter(|event| &*event.device == device));
        }
        found
    }

    /// What is stored of a device now, without waiting.
    pub(crate) async fn stored(&self, device: &str) -> Vec<Event> {
        let events = self.hub.events();
        let mut reader = events.reader(events.partition_of(device), Position::Beginning).await.unwrap();
        let mut found = Vec::new();
        loop {
            let mut batch = Vec::new();
            reader.ready(1000, &mut batch).await.unwrap();
            if batch.is_empty() {
                return found;
            }
            found.extend(batch.into_iter().filter(|event| &*event.device == device));
        }
    }
}

/// Bodies of events as text.
pub(crate) fn bodies(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8_lossy(event.message().unwrap().body()).into_owned()).collect()
}

/// A device and its key.
pub(crate) struct Device {
    connection: ConnectionString,
}

impl Device {
    pub(crate) fn new(connection_string: &str) -> Self {
        Self { connection: connection_string.parse().unwrap() }
    }

    pub(crate) fn id(&self) -> &str {
        self.connection.device_id.as_deref().unwrap()
    }

    pub(crate) fn host(&self) -> &str {
        &self.connection.host_name
    }

    pub(crate) fn user_name(&self) -> String {
        format!("{}/{}/?api-version=2021-04-12", self.host(), self.id())
    }

    /// A token that ends after `lifetime`.
    pub(crate) fn token(&self, lifetime: Duration) -> String {
        let resource = format!("{}/devices/{}", self.host(), self.id());
        SasToken::issue(&resource, self.key(), None, SystemTime::now() + lifetime)
    }

    pub(crate) fn key(&self) -> &whimbrel::auth::Key {
        match &self.connection.credential {
            Credential::Key { key, .. } => key,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn events_topic(&self) -> String {
        format!("devices/{}/messages/events/", self.id())
    }

    /// CONNECT of MQTT 3.1.1.
    pub(crate) fn hello_v3(&self) -> v3::Connect {
        v3::Connect {
            clean_session: true,
            keep_alive: 60,
            client_id: self.id().into(),
            username: Some(self.user_name().into()),
            password: Some(self.token(Duration::from_secs(3600)).into()),
            ..v3::Connect::default()
        }
    }

    /// CONNECT of MQTT 5.
    pub(crate) fn hello_v5(&self) -> v5::Connect {
        v5::Connect {
            clean_start: true,
            keep_alive: 60,
            client_id: self.id().into(),
            username: Some(self.user_name().into()),
            password: Some(self.token(Duration::from_secs(3600)).into()),
            ..v5::Connect::default()
        }
    }
}

/// A client.
pub(crate) struct Client {
    stream: TcpStream,
    codec: MqttCodec,
    received: BytesMut,
}

impl Client {
    fn new(stream: TcpStream, version: u8) -> Self {
        let codec = match version {
            4 => MqttCodec::V3(v3::Codec::new(0)),
            _ => MqttCodec::V5(v5::Codec::new(0, 0)),
        };
        Self { stream, codec, received: BytesMut::new() }
    }

    pub(crate) fn is_v5(&self) -> bool {
        matches!(self.codec, MqttCodec::V5(_))
    }

    /// Connects as `device` and asserts that it is let in.
    pub(crate) async fn enter(&mut self, device: &Device) {
        if self.is_v5() {
            assert_eq!(self.enter_v5(device.hello_v5()).await.reason_code, v5::ConnectAckReason::Success);
        } else {
            let welcome = self.enter_v3(device.hello_v3()).await;
            assert_eq!(welcome.return_code, v3::ConnectAckReason::ConnectionAccepted);
        }
    }

    pub(crate) async fn enter_v3(&mut self, hello: v3::Connect) -> v3::ConnectAck {
        self.send(v3::Packet::Connect(Box::new(hello))).await;
        match self.receive().await {
            Some(MqttPacket::V3(v3::Packet::ConnectAck(welcome))) => welcome,
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    pub(crate) async fn enter_v5(&mut self, hello: v5::Connect) -> v5::ConnectAck {
        self.send(v5::Packet::Connect(Box::new(hello))).await;
        match self.receive().await {
            Some(MqttPacket::V5(v5::Packet::ConnectAck(welcome))) => *welcome,
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    pub(crate) fn encode(&mut self, packet: impl Into<Sent>, out: &mut BytesMut) {
        self.codec.encode(packet.into().0, out).unwrap();
    }

    pub(crate) async fn send(&mut self, packet: impl Into<Sent>) {
        let mut bytes = BytesMut::new();
        self.encode(packet, &mut bytes);
        self.send_bytes(&bytes).await;
    }

    /// Sends bytes; that the hub hung up meanwhile is not our business here.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the hub reads no more");
    }

    pub(crate) async fn publish(&mut self, publish: Publish) {
        if self.is_v5() {
            self.send(v5::Packet::Publish(Box::new(publish))).await;
        } else {
            self.send(v3::Packet::Publish(Box::new(publish))).await;
        }
    }

    /// The next packet; `None` when the hub has closed.
    pub(crate) async fn receive(&mut self) -> Option<MqttPacket> {
        loop {
            if let Some((packet, _)) = self.codec.decode(&mut self.received).unwrap() {
                return Some(packet);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.expect("silence");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next acknowledgement.
    pub(crate) async fn acknowledged(&mut self) -> Acknowledged {
        match self.receive().await {
            Some(MqttPacket::V3(v3::Packet::PublishAck { packet_id })) => {
                Acknowledged { id: packet_id.get(), reason: 0, properties: Vec::new() }
            }
            Some(MqttPacket::V5(v5::Packet::PublishAck(acknowledgement))) => Acknowledged {
                id: acknowledgement.packet_id.get(),
                reason: acknowledgement.reason_code.into(),
                properties: acknowledgement
                    .properties
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect(),
            },
            other => panic!("no PUBACK: {other:?}"),
        }
    }

    /// Asserts that the hub closes, on MQTT 5 with this reason.
    pub(crate) async fn closed_with(&mut self, reason: v5::DisconnectReasonCode) -> Vec<(String, String)> {
        match self.receive().await {
            None if !self.is_v5() => Vec::new(),
            Some(MqttPacket::V5(v5::Packet::Disconnect(disconnect))) => {
                assert_eq!(disconnect.reason_code, reason);
                assert!(self.receive().await.is_none(), "the hub goes on after DISCONNECT");
                let texts = disconnect.user_properties.iter();
                texts.map(|(name, value)| (name.to_string(), value.to_string())).collect()
            }
            other => panic!("not closed with {reason:?}: {other:?}"),
        }
    }

    /// Asserts that the hub closes without a word.
    pub(crate) async fn closed(&mut self) {
        let packet = self.receive().await;
        assert!(packet.is_none(), "not closed: {packet:?}");
    }
}

/// An acknowledgement of either version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) id: u16,
    pub(crate) reason: u8,
    pub(crate) properties: Vec<(String, String)>,
}

impl Acknowledged {
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A packet of either version.
pub(crate) struct Sent(MqttPacket);

impl From<v3::Packet> for Sent {
    fn from(packet: v3::Packet) -> Self {
        Self(MqttPacket::V3(packet))
    }
}

impl From<v5::Packet> for Sent {
    fn from(packet: v5::Packet) -> Self {
        Self(MqttPacket::V5(packet))
    }
}

/// A QoS 1 publication.
pub(crate) fn publication(topic: &str, id: u16, body: impl Into<Bytes>) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos: QoS::AtLeastOnce,
        topic: topic.into(),
        packet_id: NonZeroU16::new(id),
        properties: None,
        payload: body.into(),
    }
}

/// The same with user properties, for MQTT 5.
pub(crate) fn with_properties(mut publish: Publish, properties: &[(&str, &str)]) -> Publish {
    publish.properties = Some(v5::PublishProperties {
        user_properties: properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..v5::PublishProperties::default()
    });
    publish
}
