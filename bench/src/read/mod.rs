//! Reading events over AMQP: receivers of the AMQP crate read what a hub has stored. Beside it, the same receivers fed
//! by the AMQP crate's own acceptor with one prepared message, which is as fast as those receivers get; and the same
//! events read in the hub's process.

mod bare;
mod client;

use std::{
    error::Error,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use fe2o3_amqp::sasl_profile::SaslProfile;
use serde_json::json;
use whimbrel::{Message, auth::SasToken};
use whimbrel_hub::{
    Hub,
    access::Admitted,
    events::{NewEvent, Position},
};

use client::Source;

/// Options of `read`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Events in each run.
    #[arg(long, default_value_t = 400_000)]
    events: usize,
    /// Bytes of an event's body.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Runs of each kind, taking turns; the medians are shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Events a receiver lets the hub send ahead of it.
    #[arg(long, default_value_t = 300)]
    credit: u32,
    /// Ask for events unsettled, and settle each.
    #[arg(long)]
    unsettled: bool,
    /// Folder on the disk to measure; what is made in it is removed again.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            events: 400_000,
            bytes: 256,
            rounds: 5,
            credit: 300,
            unsettled: false,
            dir: ".".into(),
            json: false,
        }
    }
}

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Partitions read, and connections they are spread over.
const SHAPES: [(u32, u32); 3] = [(1, 1), (4, 1), (4, 4)];

/// What was measured of one shape, events per second, one figure for each round.
#[derive(Default)]
struct Figures {
    hub: Vec<f64>,
    bare: Vec<f64>,
    in_process: Vec<f64>,
}

/// Runs the shapes and prints a table.
pub(crate) fn run(options: &Options, quick: bool) -> Result<(), Box<dyn Error>> {
    let mut options = options.clone();
    if quick {
        options.events /= 10;
        options.rounds = options.rounds.min(2);
    }
    let folder = tempfile::tempdir_in(&options.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures =
        runtime.block_on(measure(&options, folder.path().join("hub"))).map_err(|error| error.to_string())?;
    let rows = SHAPES.iter().zip(&figures).map(|((partitions, connections), figures)| {
        let name = format!("{partitions} partitions, {connections} connections");
        (name, median(&figures.hub), median(&figures.bare), median(&figures.in_process))
    });
    if options.json {
        let rows: Vec<_> = rows
            .map(|(name, hub, bare, in_process)| {
                json!({ "shape": name, "hub": hub, "bare": bare, "ratio": hub / bare, "in_process": in_process })
            })
            .collect();
        let report = json!({
            "bytes": options.bytes, "events": options.events, "credit": options.credit,
            "settled": !options.unsettled, "read": rows,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!(
        "events of {} B over AMQP on loopback, events/s, median of {} rounds of {} events",
        options.bytes, options.rounds, options.events
    );
    println!(
        "bare: the AMQP crate on both sides, one prepared message; in process: the same events, no network"
    );
    println!("{:<30}{:>12}{:>12}{:>8}{:>14}", "", "hub", "bare", "ratio", "in process");
    for (name, hub, bare, in_process) in rows {
        println!("{name:<30}{hub:>12.0}{bare:>12.0}{:>8.2}{in_process:>14.0}", hub / bare);
    }
    Ok(())
}

async fn measure(options: &Options, folder: PathBuf) -> Outcome<Vec<Figures>> {
    let hub = Hub::builder().data_dir(folder).set("partitions", "4")?.start().await?;
    let shapes = SHAPES.map(|(partitions, _)| partitions);
    for partition in 0..4 {
        // The first one holds all of a run, the others their part of it.
        let count = if partition == 0 { options.events } else { options.events / 4 };
        store(&hub, partition, count, options.bytes).await?;
    }
    let (bare, _serving) = bare::start(options.bytes).await?;
    let mut figures: Vec<Figures> = shapes.iter().map(|_| Figures::default()).collect();
    for _ in 0..options.rounds {
        for ((partitions, connections), figures) in SHAPES.into_iter().zip(&mut figures) {
            let each = options.events / partitions as usize;
            let from_hub = Source { address: address(&hub)?, profile: profile(&hub)?, each, options };
            figures.hub.push(client::read(&from_hub, partitions, connections).await?);
            let from_bare = Source { address: bare, profile: SaslProfile::Anonymous, each, options };
            figures.bare.push(client::read(&from_bare, partitions, connections).await?);
            figures.in_process.push(in_process(&hub, partitions, each).await?);
        }
    }
    hub.stop().await?;
    Ok(figures)
}

/// Stores events in a partition, as one of its devices would.
async fn store(hub: &Hub, partition: u32, count: usize, bytes: usize) -> Outcome {
    let events = hub.events();
    let device = (0..)
        .map(|number| format!("device-{number}"))
        .find(|device| events.partition_of(device) == partition)
        .ok_or("no device for the partition")?;
    let sender = Admitted {
        device: device.into(),
        module: None,
        generation: "638000000000000000".into(),
        auth_method: r#"{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#
            .into(),
        expires_at: None,
    };
    let message = Message::telemetry(vec![0x5a; bytes]);
    let mut left = count;
    while left > 0 {
        let batch: Vec<_> = (0..left.min(1_000))
            .map(|_| NewEvent { sender: &sender, message: &message, origin: None })
            .collect();
        left -= batch.len();
        let ticket = events.append(&batch, &mut Vec::new())?;
        events.durable(ticket).await?;
    }
    Ok(())
}

/// Events per second that are read without AMQP.
async fn in_process(hub: &Hub, partitions: u32, each: usize) -> Outcome<f64> {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..partitions {
        let mut reader = hub.events().reader(partition, Position::Beginning).await?;
        tasks.spawn(async move {
            let (mut read, mut batch) = (0, Vec::new());
            while read < each {
                batch.clear();
                reader.next(512, &mut batch).await?;
                for event in &batch {
                    std::hint::black_box(event.message()?);
                }
                read += batch.len();
            }
            Ok::<_, whimbrel::Error>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok((each * partitions as usize) as f64 / start.elapsed().as_secs_f64())
}

fn address(hub: &Hub) -> Outcome<SocketAddr> {
    Ok(hub.amqp_addr().ok_or("the hub does not listen for AMQP")?)
}

fn profile(hub: &Hub) -> Outcome<SaslProfile> {
    let access = hub.access();
    let policy = access.policies().get("service")?;
    let expires_at = SystemTime::now() + Duration::from_secs(3_600);
    let host = access.host_name();
    let name = host.split('.').next().unwrap_or(host);
    Ok(SaslProfile::Plain {
        username: format!("service@sas.root.{name}"),
        password: SasToken::issue(host, &policy.primary, Some("service"), expires_at),
    })
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
