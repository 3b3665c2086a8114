//! The front on a disk that stalls, fills up or breaks.

mod commands;
mod faulty_disk;

use std::num::NonZeroU16;

use bytes::BytesMut;
use rmqtt_codec::{types::QoS, v3, v5};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    task::JoinHandle,
};
use tokio_util::codec::{Decoder, Encoder};
use whimbrel::auth::{ConnectionString, Credential, SasToken};

use self::faulty_disk::{Faults, FaultyDisk};
use super::{packet::Version, *};
use crate::{
    access::Policies,
    commands::CommandOptions,
    events::{EventOptions, Position},
    registry::Registry,
    store::{Embedded, Store, StoreOptions},
};

const PATIENCE: Duration = Duration::from_secs(30);
const HOST: &str = "hub.test";

/// A front, and the disk its events go to.
struct Ground {
    front: Arc<Front>,
    events: Events,
    commands: Commands,
    registry: Registry,
    faults: Arc<Faults>,
}

impl Ground {
    async fn start(limits: Limits) -> Self {
        let disk = FaultyDisk::default();
        let faults = disk.faults();
        let options = StoreOptions { segment_bytes: 256 * 1024, ..StoreOptions::default() };
        let store: Arc<dyn Store> = Embedded::open_on(Arc::new(disk), &options).unwrap();
        let registry = Registry::new(Arc::clone(&store), HOST);
        let policies = Policies::load(&*store).await.unwrap();
        let access = Access::new(registry.clone(), policies, &[], HOST).unwrap();
        let events = Events::start(Arc::clone(&store), EventOptions::default());
        let commands = Commands::start(Arc::clone(&store), registry.clone(), CommandOptions::default());
        let sessions = Arc::new(Sessions::new(store));
        let front = Front::new(access, events.clone(), commands.clone(), sessions, limits);
        Self { front, events, commands, registry, faults }
    }

    /// A client of a new device, let in.
    async fn client(&self, device: &str, version: Version) -> Client {
        let registered = self.registry.create(device).await.unwrap();
        let connection: ConnectionString = registered.connection_string().parse().unwrap();
        let Credential::Key { key, .. } = &connection.credential else { panic!("no key") };
        let resource = format!("{HOST}/devices/{device}");
        let token = SasToken::issue(&resource, key, None, SystemTime::now() + Duration::from_secs(3600));
        Client { front: Arc::clone(&self.front), device: device.to_owned(), version, token }
    }

    async fn stored(&self, device: &str) -> usize {
        let partition = self.events.partition_of(device);
        let mut reader = self.events.reader(partition, Position::Beginning).await.unwrap();
        let mut count = 0;
        loop {
            let mut batch = Vec::new();
            reader.ready(1000, &mut batch).await.unwrap();
            if batch.is_empty() {
                return count;
            }
            count += batch.iter().filter(|event| &*event.device == device).count();
        }
    }
}

struct Client {
    front: Arc<Front>,
    device: String,
    version: Version,
    token: String,
}

impl Client {
    /// Connects, and asserts that it is let in.
    async fn connect(&self) -> Connected {
        let (near, far) = duplex(16 * 1024);
        let peer = PeerInfo { address: ([127, 0, 0, 1], 1).into(), certificates: Vec::new(), host: None };
        tokio::spawn(Arc::clone(&self.front).serve_connection(far, peer));
        let (read, write) = split(near);
        let mut connected = Connected {
            device: self.device.clone(),
            version: self.version,
            read,
            write,
            received: BytesMut::new(),
        };
        let user_name = format!("{HOST}/{}", self.device);
        let mut hello = BytesMut::new();
        match self.version {
            Version::V3 => {
                let connect = v3::Connect {
                    clean_session: true,
                    client_id: self.device.as_str().into(),
                    username: Some(user_name.into()),
                    password: Some(self.token.clone().into()),
                    ..v3::Connect::default()
                };
                v3::Codec::new(0).encode(v3::Packet::Connect(Box::new(connect)), &mut hello).unwrap();
            }
            Version::V5 => {
                let connect = v5::Connect {
                    clean_start: true,
                    client_id: self.device.as_str().into(),
                    username: Some(user_name.into()),
                    password: Some(self.token.clone().into()),
                    ..v5::Connect::default()
                };
                v5::Codec::new(0, 0).encode(v5::Packet::Connect(Box::new(connect)), &mut hello).unwrap();
            }
        }
        connected.write.write_all(&hello).await.unwrap();
        let welcome = connected.packet().await.unwrap();
        assert_eq!((welcome[0], welcome[3]), (0x20, 0), "not let in: {welcome:?}");
        connected
    }
}

struct Connected {
    device: String,
    version: Version,
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
    received: BytesMut,
}

impl Connected {
    fn publication(&self, id: u16, body: usize) -> BytesMut {
        let publish = rmqtt_codec::types::Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: format!("devices/{}/messages/events/", self.device).into(),
            packet_id: NonZeroU16::new(id),
            properties: None,
            payload: vec![0x5A; body].into(),
        };
        let mut bytes = BytesMut::new();
        match self.version {
            Version::V3 => {
                v3::Codec::new(0).encode(v3::Packet::Publish(Box::new(publish)), &mut bytes).unwrap()
            }
            Version::V5 => {
                v5::Codec::new(0, 0).encode(v5::Packet::Publish(Box::new(publish)), &mut bytes).unwrap();
            }
        }
        bytes
    }

    async fn publish(&mut self, id: u16, body: usize) {
        let publication = self.publication(id, body);
        // That the hub hung up meanwhile shows when its answer is read.
        let _ = timeout(PATIENCE, self.write.write_all(&publication)).await.expect("the hub reads no more");
    }

    /// The next packet as bytes; `None` when the hub has closed.
    async fn packet(&mut self) -> Option<BytesMut> {
        loop {
            if let Ok(Some(bytes)) = packet::packet_bytes(&self.received)
                && bytes <= self.received.len()
            {
                return Some(self.received.split_to(bytes));
            }
            let read = timeout(PATIENCE, self.read.read_buf(&mut self.received)).await.expect("silence");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The packet id of the next packet, which is an acknowledgement.
    async fn acknowledged(&mut self) -> u16 {
        let packet = self.packet().await.expect("the hub has closed");
        assert_eq!(packet[0], 0x40, "no PUBACK: {packet:?}");
        u16::from_be_bytes([packet[2], packet[3]])
    }

    /// Asserts that the hub closes without acknowledging anything; on MQTT 5 with this status.
    async fn closed_with(&mut self, status: &str) {
        if self.version == Version::V5 {
            let mut packet = self.packet().await.expect("closed without DISCONNECT");
            let (packet, _) = v5::Codec::new(0, 0).decode(&mut packet).unwrap().unwrap();
            let v5::Packet::Disconnect(disconnect) = packet else { panic!("no DISCONNECT: {packet:?}") };
            assert_eq!(disconnect.reason_code, v5::DisconnectReasonCode::ImplementationSpecificError);
            let told = disconnect.user_properties.iter().find(|(name, _)| &**name == "status");
            assert_eq!(told.map(|(_, value)| &**value), Some(status));
        }
        let packet = self.packet().await;
        assert!(packet.is_none(), "not closed: {packet:?}");
    }

    /// Publishes `count` messages from a task of its own, as fast as the hub takes them. Resolves to the reader.
    fn flood(mut self, count: u16, body: usize) -> (JoinHandle<()>, Reader) {
        let frames: Vec<BytesMut> = (1..=count).map(|id| self.publication(id, body)).collect();
        let (read, received) = (self.read, self.received);
        let writing = tokio::spawn(async move {
            for frame in frames {
                self.write.write_all(&frame).await.unwrap();
            }
            // Held open: the connection is to end by itself.
            std::future::pending::<()>().await;
        });
        (writing, Reader { read, received })
    }
}

/// The reading half of a client that floods.
struct Reader {
    read: ReadHalf<DuplexStream>,
    received: BytesMut,
}

impl Reader {
    async fn acknowledged(&mut self) -> u16 {
        while self.received.len() < 4 {
            let read = timeout(PATIENCE, self.read.read_buf(&mut self.received)).await.expect("silence");
            assert_ne!(read.unwrap(), 0, "the hub has closed");
        }
        let packet = self.received.split_to(4);
        assert_eq!(packet[..2], [0x40, 2], "no PUBACK: {packet:?}");
        u16::from_be_bytes([packet[2], packet[3]])
    }
}

/// Waits for something other tasks bring about.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_acknowledgements_slow_and_holds_clients_back() {
    const CLIENTS: usize = 8;
    const MESSAGES: u16 = 400;
    const BODY: usize = 1000;
    // What a client may have in the pipe between us; one read takes no more.
    const PIPE: usize = 16 * 1024;
    let limits = Limits { connection_staged_bytes: 20_000, staged_bytes: 100_000, ..Limits::default() };
    let bound = limits.staged_bytes + CLIENTS * PIPE;
    let ground = Ground::start(limits).await;
    let mut clients = Vec::new();
    for index in 0..CLIENTS {
        let version = if index % 2 == 0 { Version::V3 } else { Version::V5 };
        clients.push(ground.client(&format!("d{index}"), version).await.connect().await);
    }
    ground.faults.stall();
    let mut flooding: Vec<_> = clients.into_iter().map(|client| client.flood(MESSAGES, BODY)).collect();
    eventually("the clients fill what they may", || ground.front.staged_bytes() >= 100_000).await;
    // As much again as a stalled disk can do: nothing more is taken, and nothing is acknowledged.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let staged = ground.front.staged_bytes();
    assert!(staged <= bound, "{staged} bytes are staged, more than {bound}");
    assert_eq!(ground.front.metrics().acknowledgements.get(), 0);

    ground.faults.resume();
    for (writing, reader) in &mut flooding {
        for id in 1..=MESSAGES {
            assert_eq!(reader.acknowledged().await, id);
        }
        writing.abort();
    }
    assert_eq!(ground.front.staged_bytes(), 0);
    assert_eq!(ground.stored("d0").await, usize::from(MESSAGES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_held_back_is_not_silent() {
    let silence = Duration::from_millis(100);
    let limits = Limits { connection_staged_bytes: 5_000, silence, ..Limits::default() };
    let ground = Ground::start(limits).await;
    let client = ground.client("d", Version::V3).await.connect().await;
    ground.faults.stall();
    let (writing, mut reader) = client.flood(100, 1000);
    eventually("the client fills what it may", || ground.front.staged_bytes() >= 5_000).await;
    tokio::time::sleep(silence * 5).await;
    ground.faults.resume();
    for id in 1..=100 {
        assert_eq!(reader.acknowledged().await, id);
    }
    writing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_no_acknowledgements_is_given_up() {
    let silence = Duration::from_millis(300);
    let ground = Ground::start(Limits { silence, closing: silence, ..Limits::default() }).await;
    let client = ground.client("d", Version::V3).await.connect().await;
    // Pings are answered: with nobody reading, the answers stand in line, and the hub stops to listen.
    let Connected { read, mut write, .. } = client;
    let writing = tokio::spawn(async move {
        let pings = [0xC0, 0].repeat(10_000);
        while write.write_all(&pings).await.is_ok() {}
    });
    eventually("the connection ends", || ground.front.open_connections() == 0).await;
    writing.await.unwrap();
    drop(read);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_connection_without_an_acknowledgement_and_works_again_later() {
    for version in [Version::V3, Version::V5] {
        let ground = Ground::start(Limits::default()).await;
        let idle = ground.client("idle", version).await;
        let mut idle = idle.connect().await;
        let client = ground.client("d", version).await;
        let mut connected = client.connect().await;
        ground.faults.fill();
        let mut acknowledged = 0;
        // What was prepared ahead still takes some.
        loop {
            connected.publish(acknowledged + 1, 10_000).await;
            match connected.packet().await {
                Some(packet) if packet[0] == 0x40 => acknowledged += 1,
                Some(packet) => {
                    connected.received = [&packet[..], &connected.received].concat()[..].into();
                    connected.closed_with("0603").await;
                    break;
                }
                None => {
                    assert_eq!(version, Version::V3, "5 is told why");
                    break;
                }
            }
            assert!(acknowledged < 1000, "the disk does not fill");
        }
        assert_eq!(ground.stored("d").await, usize::from(acknowledged));
        ground.faults.empty();
        let mut connected = client.connect().await;
        connected.publish(1, 10_000).await;
        assert_eq!(connected.acknowledged().await, 1);
        idle.publish(7, 10).await;
        assert_eq!(idle.acknowledged().await, 7, "who asked nothing of the disk was not bothered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_acknowledges_nothing() {
    for version in [Version::V3, Version::V5] {
        let ground = Ground::start(Limits::default()).await;
        let client = ground.client("d", version).await;
        let mut connected = client.connect().await;
        connected.publish(1, 100).await;
        assert_eq!(connected.acknowledged().await, 1);
        ground.faults.break_syncs();
        connected.publish(2, 100).await;
        connected.closed_with("0601").await;
        // The log is closed for good; devices may connect, and hear it again.
        let mut connected = client.connect().await;
        connected.publish(3, 100).await;
        connected.closed_with("0601").await;
        assert_eq!(ground.front.staged_bytes(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_waits_for_the_disk_and_acknowledges_what_it_took() {
    let ground = Ground::start(Limits::default()).await;
    let mut client = ground.client("d", Version::V5).await.connect().await;
    ground.faults.stall();
    client.publish(1, 100).await;
    eventually("it is staged", || ground.front.staged_bytes() > 0).await;
    let stopping = tokio::spawn({
        let front = Arc::clone(&ground.front);
        async move { front.stop().await }
    });
    eventually("the connection leaves its seat", || ground.front.sessions.connected() == 0).await;
    ground.faults.resume();
    assert_eq!(client.acknowledged().await, 1);
    let goodbye = client.packet().await.unwrap();
    assert_eq!((goodbye[0], goodbye[2]), (0xE0, 139), "server shutting down");
    assert!(client.packet().await.is_none());
    drop(client);
    timeout(PATIENCE, stopping).await.expect("the front does not stop").unwrap();
}
