//! Commands in this process: sending durably, delivering and completing, and both at once.

use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;
use whimbrel::{ErrorKind, Message};
use whimbrel_hub::{
    access::Admitted,
    commands::{CommandOptions, Commands, Patience, Settlement},
    registry::Registry,
    store::{Embedded, Store, StoreOptions},
};

use crate::append::bare_writes;

/// Options of `commands`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Folder on the disk to measure; what is made in it is removed again.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Bytes of a command's body.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Callers of which each waits for its one command.
    #[arg(long, default_value_t = 50)]
    senders: usize,
    /// Devices the commands are for.
    #[arg(long, default_value_t = 1_000)]
    devices: usize,
    /// Seconds of sending.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { dir: ".".into(), bytes: 256, senders: 50, devices: 1_000, seconds: 5, json: false }
    }
}

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What is measured, per second.
struct Figures {
    /// Sends that were acknowledged, to devices that are away.
    sent: f64,
    /// Deliveries that were completed durably, of what had been sent.
    completed: f64,
    /// Commands from sending to the feedback about them, at the depth hubs have by default.
    journeys: f64,
    /// Payload of as many bytes in groups of as many, written and synced and nothing else.
    bare: f64,
}

/// Measures and prints.
pub(crate) fn run(options: &Options, quick: bool) -> Result<(), Box<dyn Error>> {
    let time = Duration::from_secs(if quick { 1 } else { options.seconds });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (sent, completed) =
        runtime.block_on(away(options, time)).map_err(|error| -> Box<dyn Error> { error })?;
    let journeys = runtime.block_on(present(options, time)).map_err(|error| -> Box<dyn Error> { error })?;
    let folder = tempfile::tempdir_in(&options.dir)?;
    let bare = bare_writes(folder.path(), options.bytes, options.senders, time.min(Duration::from_secs(2)))?;
    let figures = Figures { sent, completed, journeys, bare };
    let Options { bytes, senders, devices, .. } = options;
    if options.json {
        let report = json!({
            "bytes": bytes, "senders": senders, "devices": devices,
            "sent": figures.sent, "completed": figures.completed, "journeys": figures.journeys, "bare": figures.bare,
        });
        println!("{report}");
        return Ok(());
    }
    println!("Commands of {bytes} bytes, {senders} senders, {devices} devices, a second");
    println!("{:<44} {:>10.0}", "sent durably, devices away", figures.sent);
    println!("{:<44} {:>10.0}", "delivered and completed durably", figures.completed);
    println!("{:<44} {:>10.0}", "sent, completed and told of by feedback", figures.journeys);
    println!("{:<44} {:>10.0}", "bare: payload written and synced in groups", figures.bare);
    Ok(())
}

/// A hub without fronts.
struct Ground {
    store: Arc<Embedded>,
    commands: Commands,
    devices: Vec<Admitted>,
    _folder: tempfile::TempDir,
}

impl Ground {
    async fn start(options: &Options, depth: usize) -> Outcome<Self> {
        let folder = tempfile::tempdir_in(&options.dir)?;
        let place = StoreOptions { folder: Some(folder.path().to_owned()), ..StoreOptions::default() };
        let store = Embedded::open(&place)?;
        let registry = Registry::new(Arc::<Embedded>::clone(&store), "bench");
        let mut creating = JoinSet::new();
        for index in 0..options.devices {
            let registry = registry.clone();
            creating.spawn(async move { registry.create(&format!("device-{index}")).await });
        }
        let mut devices = Vec::new();
        while let Some(created) = creating.join_next().await {
            let device = created??.device;
            devices.push(Admitted {
                device: device.id,
                module: None,
                generation: device.generation,
                auth_method: "{}".into(),
                expires_at: None,
            });
        }
        let options = CommandOptions { depth, ..CommandOptions::default() };
        let commands = Commands::start(Arc::<Embedded>::clone(&store), registry, options);
        Ok(Self { store, commands, devices, _folder: folder })
    }

    /// Sends for `time` from all senders, with `ack` for feedback; how many were accepted.
    async fn send(&self, options: &Options, time: Duration, ack: &'static str) -> Outcome<u64> {
        let end = Instant::now() + time;
        let mut senders = JoinSet::new();
        for sender in 0..options.senders {
            let commands = self.commands.clone();
            let own: Vec<_> = self.devices.iter().skip(sender).step_by(options.senders).cloned().collect();
            // More senders than devices: they share.
            let own = if own.is_empty() { self.devices.clone() } else { own };
            let body = bytes::Bytes::from(vec![0x5a; options.bytes]);
            senders.spawn(async move {
                let mut sent = 0_u64;
                for device in own.iter().cycle() {
                    if Instant::now() >= end {
                        break;
                    }
                    let message = Message::telemetry(body.clone())
                        .message_id(format!("{sender}-{sent}"))
                        .property("iothub-ack", ack);
                    match commands.send(&device.device, message).await {
                        Ok(_) => sent += 1,
                        Err(error) if error.kind() == ErrorKind::QueueFull => {
                            tokio::task::yield_now().await;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(sent)
            });
        }
        let mut sent = 0;
        while let Some(sender) = senders.join_next().await {
            sent += sender??;
        }
        Ok(sent)
    }

    /// Completes everything every device gets, until told to stop.
    fn complete(&self) -> JoinSet<whimbrel::Result<()>> {
        let mut receivers = JoinSet::new();
        for device in &self.devices {
            let mut receiver = self.commands.receiver(device);
            receivers.spawn(async move {
                let mut got = Vec::new();
                loop {
                    receiver.next(16, &mut got).await?;
                    let settling: Vec<_> = got
                        .drain(..)
                        .map(|delivery| receiver.settle(delivery.lock, Settlement::Complete))
                        .collect();
                    for settled in settling {
                        settled.await?;
                    }
                }
            });
        }
        receivers
    }

    async fn stop(self) -> Outcome {
        self.commands.close().await;
        self.store.close().await?;
        Ok(())
    }
}

/// Sends to devices that are away; then they come and complete what there is.
async fn away(options: &Options, time: Duration) -> Outcome<(f64, f64)> {
    let ground = Ground::start(options, 10_000).await?;
    let start = Instant::now();
    let sent = ground.send(options, time, "none").await?;
    let sending = sent as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut outcomes = ground.commands.outcomes();
    let mut receivers = ground.complete();
    let (mut ended, mut heard) = (0, Vec::new());
    while ended < sent {
        // Who is too slow for all outcomes counts those it missed.
        match outcomes.next(1_024, &mut heard).await {
            Ok(()) => ended += heard.drain(..).count() as u64,
            Err(error) if error.kind() == ErrorKind::Conflict => {
                ended +=
                    error.details().iter().find_map(|(_, missed)| missed.parse::<u64>().ok()).unwrap_or(0);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let completing = sent as f64 / start.elapsed().as_secs_f64();
    receivers.shutdown().await;
    ground.stop().await?;
    Ok((sending, completing))
}

/// Devices are there, and the service reads feedback about every command.
async fn present(options: &Options, time: Duration) -> Outcome<f64> {
    let ground = Ground::start(options, CommandOptions::default().depth).await?;
    let mut receivers = ground.complete();
    let mut reader = ground.commands.feedback(Patience::None);
    let (told, mut total) = tokio::sync::watch::channel(0_u64);
    let reading = tokio::spawn(async move {
        loop {
            let batch = reader.next().await?;
            told.send_modify(|total| *total += batch.records.len() as u64);
            reader.settle(batch.lock, Settlement::Complete).await?;
        }
        #[allow(unreachable_code, reason = "says what the task ends with")]
        Ok::<(), whimbrel::Error>(())
    });
    let start = Instant::now();
    let sent = ground.send(options, time, "full").await?;
    total.wait_for(|total| *total >= sent).await?;
    let rate = sent as f64 / start.elapsed().as_secs_f64();
    receivers.shutdown().await;
    reading.abort();
    ground.stop().await?;
    Ok(rate)
}
