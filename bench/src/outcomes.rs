//! Commands through everything: service client, AMQP, hub on a disk, MQTT, device, and back; how long until the service hears.

use std::{
    collections::HashMap,
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use whimbrel::{
    DeviceClient, DeviceOptions, Message,
    service::{FeedbackReader, FeedbackWanted, SendOptions, ServiceClient, ServiceOptions},
};
use whimbrel_hub::Hub;

/// Options of `outcomes`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Folder on the disk to measure; what is made in it is removed again.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Commands a second.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Devices they are for, connected by MQTT.
    #[arg(long, default_value_t = 50)]
    devices: usize,
    /// Seconds of sending.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { dir: ".".into(), rate: 1_000, devices: 50, seconds: 10, json: false }
    }
}

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// When things happened to one command.
struct Journey {
    id: String,
    sent_at: Instant,
    stored: Duration,
    ended: Duration,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, quick: bool) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seconds = if quick { 2 } else { options.seconds };
    let commands = seconds * options.rate;
    let figures =
        runtime.block_on(measure(options, commands)).map_err(|error| -> Box<dyn Error> { error })?;
    if options.json {
        println!("{}", json!({ "benchmark": "outcomes", "rate": options.rate, "figures": figures }));
        return Ok(());
    }
    println!("{} commands/s to {} devices, microseconds since `send`", options.rate, options.devices);
    for (name, figure) in &figures {
        println!("  {name:10} {figure}");
    }
    Ok(())
}

async fn measure(options: &Options, commands: u32) -> Outcome<Map<String, Value>> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    let hub = Hub::builder().data_dir(folder.path()).start().await?;
    for number in 0..options.devices {
        receive(&hub, &format!("d{number}")).await?;
    }
    let service = ServiceClient::connect(
        ServiceOptions::from_connection_string(hub.service_connection_string())?
            .server(format!("amqp://{}", hub.amqp_addr().ok_or("no AMQP listener")?))
            .http_server(format!("http://{}", hub.http_addr().ok_or("no HTTP listener")?)),
    )
    .await?;
    let heard = tokio::spawn(hear(service.feedback()?, commands as usize));

    let (told, mut journeys) = mpsc::unbounded_channel();
    let begun = Instant::now();
    for number in 0..commands {
        tokio::time::sleep_until((begun + Duration::from_secs(1) * number / options.rate).into()).await;
        let device = format!("d{}", number as usize % options.devices);
        let (service, told) = (service.clone(), told.clone());
        tokio::spawn(async move {
            // Whoever waits learns of it by the missing journey.
            let _ = told.send(journey(&service, &device).await);
        });
    }
    drop(told);
    let (mut stored, mut ended, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(journey) = journeys.recv().await {
        let journey = journey?;
        stored.push(journey.stored);
        ended.push(journey.ended);
        starts.push((journey.id, journey.sent_at));
    }
    let rate = f64::from(commands) / begun.elapsed().as_secs_f64();
    let heard = heard.await??;
    let feedback: Vec<Duration> =
        starts.iter().filter_map(|(id, sent_at)| Some(*heard.get(id)? - *sent_at)).collect();
    service.close().await;
    let mut figures = Map::new();
    figures.insert("reached".into(), json!(rate.round()));
    for (name, times) in [("stored", stored), ("outcome", ended), ("feedback", feedback)] {
        figures.insert(name.into(), spread(times));
    }
    Ok(figures)
}

async fn journey(service: &ServiceClient, device: &str) -> Outcome<Journey> {
    let sent_at = Instant::now();
    let options = SendOptions::default().feedback(FeedbackWanted::Full);
    let tracked = service.send(device, Message::command(vec![0; 256]), options).await?;
    let stored = sent_at.elapsed();
    tracked.outcome().await?;
    Ok(Journey { id: tracked.message_id().to_owned(), sent_at, stored, ended: sent_at.elapsed() })
}

/// A device that completes whatever comes.
async fn receive(hub: &Hub, id: &str) -> Outcome {
    let registered = hub.registry().create(id).await?;
    let options = DeviceOptions::from_connection_string(&registered.connection_string())?
        .server(format!("mqtt://{}", hub.mqtt_addr().ok_or("no MQTT listener")?))
        .outbox_in_memory();
    let device = DeviceClient::open(options).await?;
    tokio::spawn(async move {
        while let Ok(Some(command)) = device.inbox().next().await {
            // One that was too late comes again.
            let _ = command.complete().await;
        }
    });
    Ok(())
}

/// When feedback about each command came.
async fn hear(mut reader: FeedbackReader, commands: usize) -> Outcome<HashMap<String, Instant>> {
    let mut heard = HashMap::new();
    while heard.len() < commands
        && let Some(batch) = reader.next().await?
    {
        let now = Instant::now();
        heard.extend(batch.records().iter().map(|record| (record.original_message_id.clone(), now)));
        batch.complete().await?;
    }
    Ok(heard)
}

/// Median, 99th percentile and longest, in microseconds.
fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let micros = |index: usize| times.get(index).map(Duration::as_micros);
    let last = times.len().saturating_sub(1);
    json!({ "p50": micros(last / 2), "p99": micros(last * 99 / 100), "longest": micros(last) })
}
