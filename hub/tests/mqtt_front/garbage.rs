//! Streams that were valid once, by the thousand: nothing panics, nothing is kept, others are served. (Packets by the
//! hundred thousand go through the front's session without sockets, in its own tests.)

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use rmqtt_codec::{types::QoS, v3, v5};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::client::{Client, Device, Ground, PATIENCE, publication, with_properties};

/// xorshift: the same streams in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }
}

/// What a client says after CONNECT, packet by packet.
fn talk(client: &mut Client, device: &Device) -> Vec<BytesMut> {
    let mut packets = Vec::new();
    let filter = format!("devices/{}/messages/devicebound/#", device.id());
    let id = std::num::NonZeroU16::new(9).unwrap();
    let mut push = |packet: crate::client::Sent| {
        let mut bytes = BytesMut::new();
        client.encode(packet, &mut bytes);
        packets.push(bytes);
    };
    let topic = format!("{}%24.mid=m&a=b", device.events_topic());
    push(v3_or_v5(v3::Packet::Publish(Box::new(publication(&topic, 1, "body")))));
    push(v3_or_v5(v3::Packet::Subscribe {
        packet_id: id,
        topic_filters: vec![(filter.as_str().into(), QoS::AtLeastOnce)],
    }));
    push(v3_or_v5(v3::Packet::PingRequest));
    push(v3_or_v5(v3::Packet::PublishAck { packet_id: id }));
    push(v3_or_v5(v3::Packet::Unsubscribe { packet_id: id, topic_filters: vec![filter.as_str().into()] }));
    packets
}

fn v3_or_v5(packet: v3::Packet) -> crate::client::Sent {
    packet.into()
}

fn talk_v5(client: &mut Client) -> Vec<BytesMut> {
    let mut packets = Vec::new();
    let id = std::num::NonZeroU16::new(9).unwrap();
    let mut push = |packet: v5::Packet| {
        let mut bytes = BytesMut::new();
        client.encode(packet, &mut bytes);
        packets.push(bytes);
    };
    let mut publish = with_properties(
        publication("$iothub/telemetry", 1, "body"),
        &[("@room", "attic"), ("message-id", "m"), ("whimbrel-n", "t1")],
    );
    publish.properties.as_mut().unwrap().topic_alias = std::num::NonZeroU16::new(3);
    push(v5::Packet::Publish(Box::new(publish)));
    push(v5::Packet::Subscribe(v5::Subscribe {
        packet_id: id,
        id: None,
        user_properties: Vec::new(),
        topic_filters: vec![("$iothub/commands".into(), v5::SubscriptionOptions::default())],
    }));
    push(v5::Packet::PingRequest);
    push(v5::Packet::PublishAck(v5::PublishAck::default()));
    push(v5::Packet::Auth(v5::Auth::default()));
    push(v5::Packet::Disconnect(v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnection)));
    packets
}

/// Changes a stream in one to four places: flips, overwrites, removes, repeats, cuts.
fn mutate(stream: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        if stream.is_empty() {
            return;
        }
        let at = dice.below(stream.len());
        match dice.below(6) {
            0 => stream[at] ^= 1 << dice.below(8),
            1 => stream[at] = dice.roll() as u8,
            2 => drop(stream.remove(at)),
            3 => stream.insert(at, dice.roll() as u8),
            4 => {
                let end = (at + dice.below(40)).min(stream.len());
                let again = stream[at..end].to_vec();
                stream.splice(at..at, again);
            }
            _ => stream.truncate(at),
        }
    }
}

/// Sends `bytes`, reads what comes, and hangs up.
async fn say(address: std::net::SocketAddr, bytes: Vec<u8>, seen: Arc<AtomicU64>) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the hub neither answers nor hangs up");
    seen.fetch_add(answer.len() as u64, Ordering::Relaxed);
}

/// Bytes of memory this process holds.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_with_errors_by_the_thousand() {
    const CONNECTIONS: usize = 5_000;
    const PACKETS: usize = 10;
    let ground = Ground::start().await;
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let device = ground.device("garbage").await;
    let mut v3_client = ground.dial(4).await;
    let mut v5_client = ground.dial(5).await;
    let (mut v3_hello, mut v5_hello) = (BytesMut::new(), BytesMut::new());
    v3_client.encode(v3::Packet::Connect(Box::new(device.hello_v3())), &mut v3_hello);
    v5_client.encode(v5::Packet::Connect(Box::new(device.hello_v5())), &mut v5_hello);
    let talks = [(v3_hello, talk(&mut v3_client, &device)), (v5_hello, talk_v5(&mut v5_client))];
    drop((v3_client, v5_client));

    let seen = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    let mut after_warm_up = 0;
    for index in 0..CONNECTIONS {
        let (hello, packets) = &talks[index % 2];
        let mut stream = hello.to_vec();
        if index % 8 == 0 {
            mutate(&mut stream, &mut dice);
        }
        for _ in 0..PACKETS {
            let mut packet = packets[dice.below(packets.len())].to_vec();
            mutate(&mut packet, &mut dice);
            stream.extend(packet);
        }
        running.spawn(say(ground.address(), stream, Arc::clone(&seen)));
        if running.len() >= 32 {
            running.join_next().await.unwrap().unwrap();
        }
        if index == CONNECTIONS / 4 {
            after_warm_up = resident();
        }
    }
    while let Some(finished) = running.join_next().await {
        finished.unwrap();
    }
    assert!(seen.load(Ordering::Relaxed) > 0, "not one stream got an answer: they are all too wrong");
    let grown = resident().saturating_sub(after_warm_up);
    assert!(grown < 64 * 1024 * 1024, "memory grew by {grown} bytes");

    let honest = ground.device("honest").await;
    for version in [4, 5] {
        let mut client = ground.connect(&honest, version).await;
        client.publish(publication(&honest.events_topic(), 1, "still here")).await;
        assert_eq!(client.acknowledged().await.id, 1);
    }
    assert_eq!(ground.stored("honest").await.len(), 2);
    // Stopping waits for connections that were forgotten, and there are none.
    timeout(Duration::from_secs(20), ground.hub.stop()).await.expect("connections were left behind").unwrap();
}
