//! A server that does what a test says, and nothing by itself.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::v5::{ConnAck, ConnAckProperties, ConnectReturnCode, Packet},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use whimbrel::{
    Lane, Message,
    outbox::Queued,
    transport::{
        endpoint::Endpoint,
        mqtt::{MqttOptions, Protocol},
    },
    wire::{topic, v5},
};

/// Base64 of `secretsecretsecretsecret`.
pub const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";

pub fn connection_string() -> String {
    format!("HostName=h.example;DeviceId=d1;SharedAccessKey={KEY}")
}

/// Options for a server on this machine, with plain TCP.
pub fn options(address: SocketAddr, protocol: Protocol) -> MqttOptions {
    MqttOptions {
        connection_string: connection_string().parse().unwrap(),
        endpoint: format!("mqtt://{address}").parse::<Endpoint>().unwrap(),
        proxy: None,
        tls: None,
        protocol,
        keep_alive: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(20),
        token_lifetime: Duration::from_secs(3600),
    }
}

pub fn queued(lane: Lane, sequence: u64, message: Message) -> Queued {
    Queued { lane, sequence, number: (1 << 40) | sequence, message }
}

pub struct Server(TcpListener);

impl Server {
    pub async fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self(listener), address)
    }

    pub async fn accept_raw(&self) -> TcpStream {
        self.0.accept().await.unwrap().0
    }

    pub async fn accept(&self) -> Peer<TcpStream> {
        Peer::new(self.accept_raw().await)
    }
}

/// What CONNECT said, in either version.
#[derive(Debug)]
pub struct Hello {
    pub level: u8,
    pub client_id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub user_name: String,
    pub password: String,
    pub method: Option<String>,
    pub data: Option<Bytes>,
    pub receive_maximum: Option<u16>,
    pub session_expiry: Option<u32>,
    pub user: HashMap<String, String>,
}

/// A PUBLISH, in either version.
#[derive(Debug, Clone)]
pub struct Published {
    pub packet_id: u16,
    pub topic: String,
    pub body: Bytes,
    pub content_type: Option<String>,
    pub user: HashMap<String, String>,
}

/// What a client says about commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AboutCommands {
    Subscribe { packet_id: u16, filter: String, qos: u8 },
    Ack { packet_id: u16, code: u8, status: Option<String> },
}

/// A command as a hub has it.
#[derive(Debug, Clone)]
pub struct Sent {
    pub sequence: u64,
    pub delivery_count: u32,
    pub message: Message,
}

impl Sent {
    /// Command number `sequence`, with an id and an expiry time, as hubs send them.
    pub fn new(sequence: u64, body: &str) -> Self {
        let mut message = Message::telemetry(body.to_owned()).message_id(format!("m-{sequence}"));
        message.system_mut().expiry_time = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        Self { sequence, delivery_count: 0, message }
    }
}

/// The other end of a connection.
pub struct Peer<S> {
    stream: S,
    input: BytesMut,
    level: u8,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), level: 0 }
    }

    /// First byte and whole bytes of the next packet; none when the client has hung up.
    async fn frame(&mut self) -> Option<BytesMut> {
        loop {
            if let Some(length) = whole(&self.input) {
                return Some(self.input.split_to(length));
            }
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    pub async fn hello(&mut self) -> Hello {
        let mut frame = self.frame().await.expect("CONNECT");
        assert_eq!(frame[0], 0x10, "CONNECT comes first");
        // Fixed header, then the protocol name, then the level.
        let header = frame.iter().skip(1).position(|byte| byte & 0x80 == 0).unwrap() + 2;
        self.level = frame[header + 6];
        if self.level == 4 {
            let v4::Packet::Connect(connect) = v4::Packet::read(&mut frame, usize::MAX).unwrap() else {
                unreachable!()
            };
            let login = connect.login.unwrap();
            return Hello {
                level: 4,
                client_id: connect.client_id,
                clean: connect.clean_session,
                keep_alive: connect.keep_alive,
                user_name: login.username,
                password: login.password,
                method: None,
                data: None,
                receive_maximum: None,
                session_expiry: None,
                user: HashMap::new(),
            };
        }
        let Packet::Connect(connect, _, login) = Packet::read(&mut frame, None).unwrap() else {
            unreachable!()
        };
        let properties = connect.properties.unwrap();
        Hello {
            level: 5,
            client_id: connect.client_id,
            clean: connect.clean_start,
            keep_alive: connect.keep_alive,
            user_name: login.as_ref().map(|login| login.username.clone()).unwrap_or_default(),
            password: login.map(|login| login.password).unwrap_or_default(),
            method: properties.authentication_method,
            data: properties.authentication_data,
            receive_maximum: properties.receive_maximum,
            session_expiry: properties.session_expiry_interval,
            user: properties.user_properties.into_iter().collect(),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Lets the client in, as our hub does on MQTT 5.
    pub async fn welcome(&mut self) {
        self.welcome_with(1_000).await;
    }

    pub async fn welcome_with(&mut self, receive_maximum: u16) {
        if self.level == 4 {
            return self.send(&[0x20, 2, 0, 0]).await;
        }
        let mut properties = no_properties();
        properties.receive_max = Some(receive_maximum);
        properties.user_properties = vec![("whimbrel-version".into(), "1".into())];
        self.welcome_saying(properties).await;
    }

    pub async fn welcome_saying(&mut self, properties: ConnAckProperties) {
        let mut out = BytesMut::new();
        let connack = ConnAck {
            session_present: false,
            code: ConnectReturnCode::Success,
            properties: Some(properties),
        };
        Packet::ConnAck(connack).write(&mut out, None).unwrap();
        self.send(&out).await;
    }

    /// The next PUBLISH, past pings; none when the client has hung up or said goodbye.
    pub async fn published(&mut self) -> Option<Published> {
        loop {
            let mut frame = self.frame().await?;
            match frame[0] {
                0xc0 => self.send(&[0xd0, 0]).await,
                0xe0 => return None,
                0x32 if self.level == 4 => {
                    let v4::Packet::Publish(publish) = v4::Packet::read(&mut frame, usize::MAX).unwrap()
                    else {
                        unreachable!()
                    };
                    return Some(Published {
                        packet_id: publish.pkid,
                        topic: publish.topic,
                        body: publish.payload,
                        content_type: None,
                        user: HashMap::new(),
                    });
                }
                0x32 => {
                    let Packet::Publish(publish) = Packet::read(&mut frame, None).unwrap() else {
                        unreachable!()
                    };
                    let properties = publish.properties.unwrap_or_default();
                    return Some(Published {
                        packet_id: publish.pkid,
                        topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                        body: publish.payload,
                        content_type: properties.content_type,
                        user: properties.user_properties.into_iter().collect(),
                    });
                }
                first => panic!("a client that only publishes sent {first:#04x}"),
            }
        }
    }

    /// The next packet that is about commands, past pings; what the client publishes is acknowledged.
    pub async fn about_commands(&mut self) -> AboutCommands {
        loop {
            let frame = self.frame().await.expect("the client is there");
            let header = frame.iter().skip(1).position(|byte| byte & 0x80 == 0).unwrap() + 2;
            let body = &frame[header..];
            let packet_id = || u16::from_be_bytes([body[0], body[1]]);
            match frame[0] {
                0xc0 => self.send(&[0xd0, 0]).await,
                0x82 => {
                    let at = if self.level == 4 { 2 } else { 3 };
                    let length = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
                    let filter = String::from_utf8(body[at + 2..at + 2 + length].to_vec()).unwrap();
                    return AboutCommands::Subscribe {
                        packet_id: packet_id(),
                        filter,
                        qos: body[at + 2 + length],
                    };
                }
                0x40 => {
                    let mut packet = BytesMut::from(&frame[..]);
                    let status = (self.level == 5).then(|| Packet::read(&mut packet, None).unwrap());
                    let status = status.and_then(|packet| match packet {
                        Packet::PubAck(ack) => ack.properties,
                        other => panic!("{other:?}"),
                    });
                    let status = status.and_then(|properties| properties.user_properties.into_iter().next());
                    return AboutCommands::Ack {
                        packet_id: packet_id(),
                        code: body.get(2).copied().unwrap_or(0),
                        status: status.map(|(name, value)| format!("{name}={value}")),
                    };
                }
                0x32 => {
                    let topic = usize::from(packet_id());
                    let id = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
                    self.ack(id).await;
                }
                0xe0 => panic!("the client says goodbye"),
                first => panic!("{first:#04x}"),
            }
        }
    }

    /// The next packet is SUBSCRIBE; grants it.
    pub async fn granted(&mut self) -> String {
        let AboutCommands::Subscribe { packet_id, filter, qos } = self.about_commands().await else {
            panic!("not SUBSCRIBE")
        };
        assert_eq!(qos, 1);
        self.suback(packet_id, 1).await;
        filter
    }

    pub async fn suback(&mut self, packet_id: u16, code: u8) {
        let [high, low] = packet_id.to_be_bytes();
        if self.level == 4 {
            self.send(&[0x90, 3, high, low, code]).await;
        } else {
            self.send(&[0x90, 4, high, low, 0, code]).await;
        }
    }

    /// The next packet about commands is PUBACK; its identifier, reason code and status.
    pub async fn settled(&mut self) -> (u16, u8, Option<String>) {
        match self.about_commands().await {
            AboutCommands::Ack { packet_id, code, status } => (packet_id, code, status),
            other => panic!("{other:?}"),
        }
    }

    /// PUBLISH of a command. `first` is its first byte: 0x32 for QoS 1, 0x3a for a repetition of it, 0x30 for QoS 0.
    pub async fn command_as(&mut self, first: u8, packet_id: u16, command: &Sent) {
        let Sent { sequence, delivery_count, message } = command;
        let mut body = BytesMut::new();
        let put = |body: &mut BytesMut, text: &str| {
            body.put_u16(text.len() as u16);
            body.put_slice(text.as_bytes());
        };
        if self.level == 4 {
            put(&mut body, &topic::c2d("d1", message));
        } else {
            put(&mut body, v5::COMMANDS);
        }
        if first & 6 != 0 {
            body.put_u16(packet_id);
        }
        if self.level == 5 {
            let mut properties = BytesMut::new();
            let at =
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800) + Duration::from_secs(*sequence);
            for (name, value) in v5::command_properties(*sequence, at, *delivery_count, message) {
                properties.put_u8(0x26);
                put(&mut properties, &name.concat());
                put(&mut properties, &value);
            }
            put_length(&mut body, properties.len());
            body.put_slice(&properties);
        }
        body.put_slice(message.body());
        let mut packet = BytesMut::from(&[first][..]);
        put_length(&mut packet, body.len());
        packet.put_slice(&body);
        self.send(&packet).await;
    }

    pub async fn command(&mut self, packet_id: u16, command: &Sent) {
        self.command_as(0x32, packet_id, command).await;
    }

    /// Waits until the client has hung up or said goodbye, past everything else.
    pub async fn gone(mut self) {
        while let Some(frame) = self.frame().await {
            if frame[0] == 0xe0 {
                return;
            }
        }
    }

    /// `count` of them.
    pub async fn published_many(&mut self, count: usize) -> Vec<Published> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(self.published().await.expect("the client goes on publishing"));
        }
        all
    }

    /// The next packet is a ping.
    pub async fn pinged(&mut self) {
        assert_eq!(self.frame().await.unwrap()[..], [0xc0, 0]);
    }

    pub async fn ack(&mut self, packet_id: u16) {
        let [high, low] = packet_id.to_be_bytes();
        self.send(&[0x40, 2, high, low]).await;
    }

    /// MQTT 5: an answer with a reason code and user properties.
    pub async fn answer(&mut self, packet_id: u16, code: u8, user: &[(&str, &str)]) {
        let mut properties = Vec::new();
        for (name, value) in user {
            properties.put_u8(0x26);
            for text in [name, value] {
                properties.put_u16(text.len() as u16);
                properties.put_slice(text.as_bytes());
            }
        }
        let mut out = vec![0x40, (4 + properties.len()) as u8];
        assert!(out[1] < 0x80);
        out.put_u16(packet_id);
        out.put_u8(code);
        out.put_u8(properties.len() as u8);
        out.extend(properties);
        self.send(&out).await;
    }

    /// Acknowledges everything until the client goes; what it got, in order.
    pub async fn acknowledge_all(mut self) -> Vec<Published> {
        let mut all = Vec::new();
        while let Some(published) = self.published().await {
            self.ack(published.packet_id).await;
            all.push(published);
        }
        all
    }
}

pub fn no_properties() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.put_u8(if length == 0 { byte } else { byte | 0x80 });
        if length == 0 {
            return;
        }
    }
}

/// Length of the first packet in `input`, when it is all there.
fn whole(input: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (index, byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let whole = index + 2 + length;
            return (input.len() >= whole).then_some(whole);
        }
    }
    None
}
