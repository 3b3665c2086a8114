//! `whimbrel demo`: the main job, on this machine, with real processes, real TLS and a real disk, and everything going
//! wrong that can.

mod commands;
pub(crate) mod device;
pub(crate) mod hub;
mod ledger;
mod measure;
mod picture;
mod protocol;
mod reader;
mod screen;
mod script;
mod stage;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use whimbrel::testing::Fault;

use commands::{Commands, Ended};
use ledger::Ledger;
use picture::{Picture, Process};
use protocol::Said;
use reader::Found;
use screen::Screen;
use script::Act;
use stage::{News, Stage};

use crate::{
    failure::{Failure, Result},
    output,
};

/// Longest wait for what is still on its way at the end.
const DRAIN: Duration = Duration::from_secs(45);
/// A network that shows who goes first.
const THIN: Fault = Fault::Slow { bytes: 3_000, interval: Duration::from_millis(100) };
/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(crate) struct Options {
    /// How long devices send.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// How many device processes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=32))]
    devices: u64,
    /// Prints the account as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the demo, and fails when the account does not balance.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    eprintln!("Starting a hub and {} devices, each a process of its own, on this machine …", options.devices);
    let names: Vec<String> = (1..=options.devices).map(|number| format!("sensor-{number}")).collect();
    let mut demo = Demo::open(names, Duration::from_secs(options.seconds)).await?;
    let played = tokio::select! {
        played = demo.play() => played,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("stopped before the end: there is no account")),
    };
    let report = demo.ledger.report(demo.commands.report());
    demo.screen.close();
    demo.stage.close().await;
    played?;
    if options.json {
        output::json(&json!(report))?;
    } else {
        output::line(screen::account(&report).trim_end())?;
    }
    Ok(if report.balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Demo {
    length: Duration,
    stage: Stage,
    ledger: Ledger,
    picture: Picture,
    screen: Screen,
    news: mpsc::Receiver<News>,
    found: mpsc::Receiver<Found>,
    commands: Commands,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
}

impl Demo {
    async fn open(names: Vec<String>, length: Duration) -> Result<Self> {
        let (told, news) = mpsc::channel(256);
        let (find, found) = mpsc::channel(1024);
        let stage = Stage::build(&names, told).await?;
        tokio::spawn(reader::follow(stage.service().clone(), find));
        let mut demo = Self {
            length,
            stage,
            ledger: Ledger::new(names.iter().cloned()),
            screen: Screen::open(names.len()),
            picture: Picture::new(length, names.iter().cloned()),
            news,
            found,
            commands: Commands::default(),
            ended: mpsc::channel(16),
        };
        for device in 0..names.len() {
            demo.start_device(device)?;
        }
        Ok(demo)
    }

    async fn play(&mut self) -> Result<()> {
        self.now("devices measure this machine and send; alerts go first");
        let started = Instant::now();
        for (at, act) in script::acts(self.length, self.picture.rows.len()) {
            self.watch_until(started, started + at, |_| false).await;
            self.perform(act).await?;
        }
        self.watch_until(started, started + self.length, |_| false).await;

        self.now("the back end hears how its commands ended");
        self.watch_until(started, Instant::now() + DRAIN, |demo| demo.commands.complete()).await;
        self.now("the end: devices deliver what is left and close their outboxes");
        self.stage.end_devices().await;
        let patience = Instant::now() + DRAIN;
        let over = |demo: &Self| demo.picture.rows.iter().all(|row| row.process != Process::Running);
        self.watch_until(started, patience, over).await;
        self.now("the back end reads what is left");
        self.watch_until(started, patience, |demo| demo.ledger.complete()).await;
        // What is there twice would come right behind.
        self.watch_until(started, Instant::now() + FRAME * 2, |_| false).await;
        Ok(())
    }

    async fn perform(&mut self, act: Act) -> Result<()> {
        match act {
            Act::CutNetwork => {
                self.stage.set_network(Fault::Refuse);
                self.ledger.network_cut();
                self.picture.network = "CUT";
                self.now("the network is cut: devices go on measuring, outboxes fill on disk");
            }
            Act::SendCommands => {
                let device = self.name(0);
                let moment = self.length.mul_f64(script::MOMENT);
                self.commands.send(self.stage.service(), &device, moment, &self.ended.0).await?;
                self.now(format!(
                    "the back end sends commands to {device}, which is cut off: the hub keeps them"
                ));
            }
            Act::ThinNetwork => {
                self.ledger.network_restored(Instant::now());
                self.stage.set_network(THIN);
                self.picture.network = "thin";
                self.now("the network is back, but thin (30 KB/s each): alerts overtake the measurements that wait");
            }
            Act::FullNetwork => {
                self.stage.set_network(Fault::None);
                self.picture.network = "up";
                self.now("the network is as it was");
            }
            Act::KillDevice(index) => {
                self.stage.kill_device(index).await?;
                self.row(index, |row| row.process = Process::Killed);
                self.now(format!("SIGKILL to the process of {}", self.name(index)));
            }
            Act::StartDevice(index) => {
                self.start_device(index)?;
                self.now(format!("{} starts again and goes on with what its outbox holds", self.name(index)));
            }
            Act::KillHub => {
                self.stage.kill_hub().await?;
                self.picture.hub_up = false;
                self.now(
                    "SIGKILL to the hub: what it acknowledged is on its disk, the rest is in the outboxes",
                );
            }
            Act::StartHub => {
                self.stage.start_hub().await?;
                self.picture.hub_up = true;
                self.now(
                    "the hub is back: devices resend what was not acknowledged, and it stores nothing twice",
                );
            }
        }
        Ok(())
    }

    fn start_device(&mut self, index: usize) -> Result<()> {
        let life = self.stage.start_device(index)?;
        self.row(index, |row| (row.process, row.life, row.standing.sent) = (Process::Running, life, 0));
        Ok(())
    }

    /// Takes in what the devices and the reader say, and shows it, until `end` or until there is enough.
    async fn watch_until(&mut self, started: Instant, end: Instant, enough: impl Fn(&Self) -> bool) {
        let mut frames = tokio::time::interval(FRAME);
        while !enough(self) {
            tokio::select! {
                Some(news) = self.news.recv() => self.hear(news),
                Some(found) = self.found.recv() => {
                    self.ledger.found(&found.device, found.id, Instant::now());
                }
                Some(ended) = self.ended.1.recv() => self.commands.ended(ended, Instant::now()),
                _ = frames.tick() => self.show(started),
                () = tokio::time::sleep_until(end.into()) => return,
            }
        }
    }

    fn hear(&mut self, News { device, life, said }: News) {
        match said {
            Some(Said::Accepted(ids)) => self.ledger.confirmed(device, &ids),
            Some(Said::Standing(standing)) => self.row(device, |row| {
                if row.life == life {
                    row.standing = standing;
                }
            }),
            Some(Said::Ended(standing)) => {
                self.ledger.closed(device, standing.clone());
                self.row(device, |row| (row.process, row.standing) = (Process::Ended, standing));
            }
            None => self.row(device, |row| {
                if row.life == life && row.process == Process::Running {
                    row.process = Process::Killed;
                }
            }),
        }
    }

    fn show(&mut self, started: Instant) {
        for (index, row) in self.picture.rows.iter_mut().enumerate() {
            (row.read, row.read_alerts) = self.ledger.read(index);
        }
        self.picture.commands = self.commands.headline();
        self.picture.tick(started.elapsed());
        self.screen.show(&self.picture);
    }

    fn now(&mut self, what: impl Into<String>) {
        self.picture.now = what.into();
        self.screen.show(&self.picture);
    }

    fn row(&mut self, index: usize, change: impl FnOnce(&mut picture::Row)) {
        if let Some(row) = self.picture.rows.get_mut(index) {
            change(row);
        }
    }

    fn name(&self, index: usize) -> String {
        self.picture.rows.get(index).map_or_else(String::new, |row| row.device.clone())
    }
}
