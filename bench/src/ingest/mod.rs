//! Durable ingest: devices publish QoS 1 with pre-encoded frames, the hub acknowledges what is on disk.

mod limit;
mod load;

use std::{error::Error, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use whimbrel::auth::{ConnectionString, Credential, SasToken};
use whimbrel_hub::Hub;

use load::{Client, Figures, Load};

/// Options of `ingest`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Folder on the disk to measure; what is made in it is removed again.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Bytes of a message's body.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Only this case: connections x unacknowledged messages of each, such as 50x20.
    #[arg(long)]
    case: Option<String>,
    /// What the devices speak; 5 with de-duplication and places, as our own client does.
    #[arg(long, value_enum, default_value_t = Protocol::V3)]
    protocol: Protocol,
    /// Keep the hub's events in memory: what the rest of the hub could do on an endlessly fast disk.
    #[arg(long)]
    memory: bool,
    /// Seconds for each case.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// A protocol of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// MQTT 3.1.1.
    #[value(name = "3")]
    V3,
    /// MQTT 5 with `whimbrel-outbox`.
    #[value(name = "5")]
    V5,
}

impl Default for Options {
    fn default() -> Self {
        Self { dir: ".".into(), bytes: 256, case: None, protocol: Protocol::V3, memory: false, seconds: 5 }
    }
}

/// Connections, and unacknowledged messages of each.
const CASES: [(usize, usize); 4] = [(1, 1), (1, 1000), (50, 1), (50, 20)];

/// Runs the cases and prints a table.
pub(crate) fn run(options: &Options, quick: bool) -> Result<(), Box<dyn Error>> {
    let seconds = Duration::from_secs(if quick { 1 } else { options.seconds });
    let folder = tempfile::tempdir_in(&options.dir)?;
    println!("durable ingest, {} B bodies, QoS 1, loopback, {:?}", options.bytes, options.protocol);
    println!("limit: the same bytes in groups of all unacknowledged messages, one fdatasync each");
    println!(
        "{:>8} {:>12} {:>10} {:>10} {:>12} {:>6}",
        "case", "messages/s", "p50 µs", "p99 µs", "limit/s", "ratio"
    );
    for (index, (connections, window)) in CASES.into_iter().enumerate() {
        let name = format!("{connections}x{window}");
        if options.case.as_ref().is_some_and(|case| *case != name) {
            continue;
        }
        let hub = folder.path().join(format!("hub-{index}"));
        let figures = measure(options, hub, connections, window, seconds)?;
        let limit =
            limit::messages_per_second(folder.path(), options.bytes, connections * window, seconds / 2)?;
        println!(
            "{name:>8} {:>12.0} {:>10.0} {:>10.0} {limit:>12.0} {:>6.2}",
            figures.per_second,
            figures.p50.as_secs_f64() * 1e6,
            figures.p99.as_secs_f64() * 1e6,
            figures.per_second / limit
        );
    }
    Ok(())
}

fn measure(
    options: &Options,
    folder: PathBuf,
    connections: usize,
    window: usize,
    seconds: Duration,
) -> Result<Figures, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let hub = runtime.block_on(async {
        let builder = Hub::builder();
        let builder = if options.memory { builder.in_memory() } else { builder.data_dir(folder) };
        builder.start().await
    })?;
    let address = hub.mqtt_addr().ok_or("the hub does not listen")?;
    let clients = runtime.block_on(clients(&hub, address, connections, options.protocol))?;
    let load = Load { bytes: options.bytes, window, warm_up: seconds / 5, measured: seconds };
    let figures = load::run(clients, &load)?;
    runtime.block_on(hub.stop())?;
    Ok(figures)
}

async fn clients(
    hub: &Hub,
    address: SocketAddr,
    connections: usize,
    protocol: Protocol,
) -> Result<Vec<Client>, Box<dyn Error>> {
    let mut clients = Vec::with_capacity(connections);
    for index in 0..connections {
        let device = format!("bench-{index}");
        let connection: ConnectionString =
            hub.registry().create(&device).await?.connection_string().parse()?;
        let Credential::Key { key, .. } = &connection.credential else { return Err("no key".into()) };
        let resource = format!("{}/devices/{device}", connection.host_name);
        let expires_at = std::time::SystemTime::now() + Duration::from_secs(3600);
        clients.push(Client {
            address,
            user_name: format!("{}/{device}/?api-version=2021-04-12", connection.host_name),
            token: SasToken::issue(&resource, key, None, expires_at),
            device,
            protocol,
        });
    }
    Ok(clients)
}
