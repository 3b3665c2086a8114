//! Client publish, QoS 1, until every PUBACK: our client with its outbox on disk and in memory, and rumqttc, which keeps
//! memory only, taking turns against a server that acknowledges at once.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use whimbrel::{DeviceClient, DeviceOptions, Message, device::Protocol};

use crate::null_server::{self, NullServer};

/// Options of `publish`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Messages in each run.
    #[arg(long, default_value_t = 400_000)]
    messages: usize,
    /// Bytes of a message's body.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Messages in each call of `send_all`.
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Most unacknowledged messages.
    #[arg(long, default_value_t = 1_000)]
    window: u16,
    /// Runs of each client, taking turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder on the disk to measure; what is made in it is removed again.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { messages: 400_000, bytes: 256, batch: 512, window: 1_000, rounds: 5, dir: ".".into() }
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    OnDisk(Protocol),
    InMemory(Protocol),
    Rumqttc,
}

impl Subject {
    const ALL: [Self; 5] = [
        Self::Rumqttc,
        Self::InMemory(Protocol::Mqtt3),
        Self::InMemory(Protocol::Mqtt5),
        Self::OnDisk(Protocol::Mqtt3),
        Self::OnDisk(Protocol::Mqtt5),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::OnDisk(Protocol::Mqtt3) => "whimbrel, outbox on disk, MQTT 3.1.1",
            Self::OnDisk(_) => "whimbrel, outbox on disk, MQTT 5",
            Self::InMemory(Protocol::Mqtt3) => "whimbrel, outbox in memory, MQTT 3.1.1",
            Self::InMemory(_) => "whimbrel, outbox in memory, MQTT 5",
            Self::Rumqttc => "rumqttc 0.25 (memory only), MQTT 3.1.1",
        }
    }
}

/// Measures everybody, taking turns, and prints a table.
pub(crate) fn run(options: &Options, quick: bool) -> Result<(), Box<dyn Error>> {
    let mut options = options.clone();
    if quick {
        options.messages /= 10;
        options.rounds = 1;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rates = Subject::ALL.map(|_| Vec::new());
    let mut costs = Subject::ALL.map(|_| Vec::new());
    for _ in 0..options.rounds {
        for (subject, (rates, costs)) in Subject::ALL.into_iter().zip(rates.iter_mut().zip(&mut costs)) {
            let server = NullServer::start(([127, 0, 0, 1], 0).into(), None)?;
            let before = null_server::process_cpu();
            let elapsed = runtime.block_on(measure(subject, server.address, &options))?;
            let cpu = null_server::process_cpu().saturating_sub(before).saturating_sub(server.cpu());
            rates.push(options.messages as f64 / elapsed.as_secs_f64());
            costs.push(cpu.as_secs_f64() * 1e6 / options.messages as f64);
        }
    }
    println!(
        "publish, {} B bodies, QoS 1, {} at a time, window {}, to a server that acknowledges at once",
        options.bytes, options.batch, options.window
    );
    println!("{:42} {:>12} {:>12} {:>8}", "client", "messages/s", "CPU µs/msg", "ratio");
    let peer = median(&rates[0]);
    for (subject, (rates, costs)) in Subject::ALL.into_iter().zip(rates.iter().zip(&costs)) {
        let rate = median(rates);
        println!("{:42} {rate:>12.0} {:>12.2} {:>8.2}", subject.name(), median(costs), rate / peer);
    }
    Ok(())
}

async fn measure(subject: Subject, address: SocketAddr, args: &Options) -> Result<Duration, Box<dyn Error>> {
    match subject {
        Subject::Rumqttc => rumqttc(address, args).await,
        Subject::InMemory(protocol) => {
            whimbrel(options(address, protocol, args)?.outbox_in_memory(), args).await
        }
        Subject::OnDisk(protocol) => {
            let folder = tempfile::tempdir_in(&args.dir)?;
            whimbrel(options(address, protocol, args)?.outbox_dir(folder.path()), args).await
        }
    }
}

fn options(address: SocketAddr, protocol: Protocol, args: &Options) -> whimbrel::Result<DeviceOptions> {
    let text = "HostName=bench.example;DeviceId=bench;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
    Ok(DeviceOptions::from_connection_string(text)?
        .server(format!("mqtt://{address}"))
        .protocol(protocol)
        .window(args.window))
}

async fn whimbrel(device: DeviceOptions, args: &Options) -> Result<Duration, Box<dyn Error>> {
    let body = bytes::Bytes::from(vec![b'x'; args.bytes]);
    let device = DeviceClient::open(device).await?;
    let mut connection = device.connection();
    connection.wait_for(|state| *state == whimbrel::ConnectionState::Connected).await?;
    let sender = device.clone();
    let (messages, batch) = (args.messages, args.batch.max(1));
    let start = Instant::now();
    tokio::spawn(async move {
        let mut sent = 0;
        while sent < messages {
            let count = batch.min(messages - sent);
            sender.send_all((0..count).map(|_| Message::telemetry(body.clone()))).await?;
            sent += count;
        }
        Ok::<_, whimbrel::Error>(())
    })
    .await??;
    let left = device.flush(Duration::from_secs(60)).await?;
    let elapsed = start.elapsed();
    device.close().await?;
    if left > 0 {
        return Err(io::Error::other(format!("{left} messages were not acknowledged")).into());
    }
    Ok(elapsed)
}

async fn rumqttc(address: SocketAddr, args: &Options) -> Result<Duration, Box<dyn Error>> {
    let mut options = MqttOptions::new("bench", address.ip().to_string(), address.port());
    options.set_inflight(args.window).set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut event_loop) = AsyncClient::new(options, args.window.into());
    let body = vec![b'x'; args.bytes];
    event_loop.poll().await?;
    let messages = args.messages;
    let start = Instant::now();
    let publisher = tokio::spawn(async move {
        for _ in 0..messages {
            client.publish("devices/bench/messages/events/", QoS::AtLeastOnce, false, body.clone()).await?;
        }
        Ok::<_, rumqttc::ClientError>(client)
    });
    let mut acknowledged = 0;
    while acknowledged < messages {
        if let Event::Incoming(Packet::PubAck(_)) = event_loop.poll().await? {
            acknowledged += 1;
        }
    }
    let elapsed = start.elapsed();
    drop(publisher.await??);
    Ok(elapsed)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
