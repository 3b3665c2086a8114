//! The devices: one thread, all connections, frames encoded beforehand, as many in one write as there is room for.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::Protocol;

/// One device.
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) device: String,
    pub(super) user_name: String,
    pub(super) token: String,
    pub(super) protocol: Protocol,
}

/// What the devices do.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Bytes of a body.
    pub(super) bytes: usize,
    /// Unacknowledged messages of each device.
    pub(super) window: usize,
    /// Not counted.
    pub(super) warm_up: Duration,
    /// Counted.
    pub(super) measured: Duration,
}

/// What was measured.
pub(super) struct Figures {
    /// Acknowledged messages per second.
    pub(super) per_second: f64,
    /// From the write of a message to its acknowledgement.
    pub(super) p50: Duration,
    /// The same.
    pub(super) p99: Duration,
}

/// Runs the load on a thread of its own.
pub(super) fn run(clients: Vec<Client>, load: &Load) -> Result<Figures, Box<dyn std::error::Error>> {
    let load = *load;
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(drive(clients, load))
    });
    Ok(thread.join().map_err(|_| "the load failed")??)
}

async fn drive(clients: Vec<Client>, load: Load) -> io::Result<Figures> {
    let mut streams = Vec::with_capacity(clients.len());
    for client in &clients {
        streams.push(client.connect().await?);
    }
    let start = Instant::now() + load.warm_up;
    let end = start + load.measured;
    let mut tasks = JoinSet::new();
    for (client, stream) in clients.into_iter().zip(streams) {
        let frames = Frames::new(&client, &load);
        tasks.spawn(client.publish(stream, frames, load.window, start, end));
    }
    let mut latencies = Vec::new();
    while let Some(finished) = tasks.join_next().await {
        latencies.append(&mut finished.map_err(io::Error::other)??);
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    Ok(Figures {
        per_second: latencies.len() as f64 / load.measured.as_secs_f64(),
        p50: Duration::from_nanos(at(0.5).into()),
        p99: Duration::from_nanos(at(0.99).into()),
    })
}

impl Client {
    async fn connect(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut body = BytesMut::new();
        put_text(&mut body, "MQTT");
        body.put_u8(if self.protocol == Protocol::V5 { 5 } else { 4 });
        body.put_slice(&[0b1100_0010, 0, 60]);
        if self.protocol == Protocol::V5 {
            let mut properties = BytesMut::new();
            put_property(&mut properties, "whimbrel-outbox", "bench");
            put_length(&mut body, properties.len());
            body.put_slice(&properties);
        }
        for text in [&self.device, &self.user_name, &self.token] {
            put_text(&mut body, text);
        }
        stream.write_all(&packet(0x10, &body)).await?;
        let mut answer = BytesMut::new();
        while answer.len() < 2 || answer.len() < 2 + usize::from(answer[1]) {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::other("the hub closed the connection"));
            }
        }
        if answer.get(3) != Some(&0) {
            return Err(io::Error::other(format!("refused: {:?}", answer.get(3))));
        }
        Ok(stream)
    }

    /// Keeps `window` messages unacknowledged until `end`; gives the latencies of what was acknowledged after `start`,
    /// in nanoseconds.
    async fn publish(
        self,
        mut stream: TcpStream,
        mut frames: Frames,
        window: usize,
        start: Instant,
        end: Instant,
    ) -> io::Result<Vec<u32>> {
        let mut latencies = Vec::with_capacity(1 << 20);
        let mut sent: VecDeque<(Instant, usize)> = VecDeque::with_capacity(window);
        let mut received = BytesMut::with_capacity(64 * 1024);
        let mut expected = 1_u16;
        stream.write_all(frames.next(window)).await?;
        sent.push_back((Instant::now(), window));
        loop {
            if stream.read_buf(&mut received).await? == 0 {
                return Err(io::Error::other("the hub closed the connection"));
            }
            let now = Instant::now();
            let mut acknowledged = 0;
            while let [0x40, length, high, low, ..] = received[..] {
                let bytes = usize::from(length) + 2;
                if received.len() < bytes {
                    break;
                }
                if u16::from_be_bytes([high, low]) != expected {
                    return Err(io::Error::other("an acknowledgement came out of order"));
                }
                expected = if usize::from(expected) == window { 1 } else { expected + 1 };
                received.advance(bytes);
                acknowledged += 1;
            }
            let mut left = acknowledged;
            while left > 0 {
                let Some((at, count)) = sent.front_mut() else {
                    return Err(io::Error::other("acknowledged and never sent"));
                };
                let taken = left.min(*count);
                if now >= start {
                    let latency = u32::try_from((now - *at).as_nanos()).unwrap_or(u32::MAX);
                    latencies.extend(std::iter::repeat_n(latency, taken));
                }
                *count -= taken;
                left -= taken;
                if *count == 0 {
                    sent.pop_front();
                }
            }
            if now >= end {
                return Ok(latencies);
            }
            if acknowledged > 0 {
                // What the messages wait for in our own queue does not count.
                sent.push_back((Instant::now(), acknowledged));
                stream.write_all(frames.next(acknowledged)).await?;
            }
        }
    }
}

/// PUBLISH packets with the packet ids from 1 to the window, one behind the other, twice: any run of them is one slice.
struct Frames {
    bytes: BytesMut,
    /// Bytes of one packet.
    frame: usize,
    window: usize,
    /// Where in a packet the number stands, on MQTT 5.
    number_at: Option<usize>,
    next_number: u64,
    position: usize,
}

/// First number of a message: all that follow have as many digits.
const FIRST_NUMBER: u64 = 1_000_000_000_000;

impl Frames {
    fn new(client: &Client, load: &Load) -> Self {
        let mut bytes = BytesMut::new();
        for id in (1..=load.window).chain(1..=load.window) {
            bytes.put_slice(&publish(client, id as u16, load.bytes));
        }
        let number = FIRST_NUMBER.to_string();
        Self {
            frame: bytes.len() / (2 * load.window),
            window: load.window,
            number_at: bytes.windows(number.len()).position(|text| text == number.as_bytes()),
            next_number: FIRST_NUMBER,
            position: 0,
            bytes,
        }
    }

    /// The next `count` packets, which are not more than the window.
    fn next(&mut self, count: usize) -> &[u8] {
        let start = self.position * self.frame;
        let run = &mut self.bytes[start..start + count * self.frame];
        self.position = (self.position + count) % self.window;
        if let Some(at) = self.number_at {
            for packet in run.chunks_exact_mut(self.frame) {
                let mut number = self.next_number;
                for digit in packet[at..at + FIRST_NUMBER.ilog10() as usize + 1].iter_mut().rev() {
                    *digit = b'0' + (number % 10) as u8;
                    number /= 10;
                }
                self.next_number += 1;
            }
        }
        run
    }
}

fn publish(client: &Client, id: u16, body_bytes: usize) -> BytesMut {
    let mut content = BytesMut::new();
    match client.protocol {
        Protocol::V3 => {
            put_text(&mut content, &format!("devices/{}/messages/events/", client.device));
            content.put_u16(id);
        }
        Protocol::V5 => {
            put_text(&mut content, "$iothub/telemetry");
            content.put_u16(id);
            let mut properties = BytesMut::new();
            put_property(&mut properties, "whimbrel-n", &format!("t{FIRST_NUMBER}"));
            put_length(&mut content, properties.len());
            content.put_slice(&properties);
        }
    }
    content.put_bytes(0x5A, body_bytes);
    packet(0x32, &content)
}

fn packet(first: u8, content: &[u8]) -> BytesMut {
    let mut packet = BytesMut::with_capacity(content.len() + 5);
    packet.put_u8(first);
    put_length(&mut packet, content.len());
    packet.put_slice(content);
    packet
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8((length % 0x80) as u8 | 0x80);
        length /= 0x80;
    }
    out.put_u8(length as u8);
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn put_property(out: &mut BytesMut, name: &str, value: &str) {
    out.put_u8(0x26);
    put_text(out, name);
    put_text(out, value);
}
