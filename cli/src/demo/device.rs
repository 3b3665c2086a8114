//! A device of the demo: a process of its own that measures this machine and is killed on the way.

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use whimbrel::{ConnectionState, DeviceClient, DeviceOptions, ErrorKind, Inbox, Lane, Message};

use super::{
    commands,
    measure::{Measurement, Meter},
    protocol::{Id, Said, Standing},
};
use crate::failure::{Failure, Result};

/// The variable with the connection string: other users of the machine can read arguments.
pub(super) const CONNECTION_STRING: &str = "WHIMBREL_DEMO_DEVICE";
/// What the parent writes to end a device in good order. The end of the input alone means that the parent is gone.
pub(super) const END: &str = "end";

/// Time between two readings of all measurements.
const PERIOD: Duration = Duration::from_millis(100);
/// Longest wait for the hub at the end.
const FLUSH: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    server: String,
    #[arg(long)]
    ca: Option<PathBuf>,
    #[arg(long)]
    outbox: PathBuf,
    #[arg(long)]
    life: u32,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let connection_string = std::env::var(CONNECTION_STRING);
    let connection_string =
        connection_string.map_err(|error| Failure::usage(CONNECTION_STRING).caused_by(error))?;
    let mut device = DeviceOptions::from_connection_string(&connection_string)?
        .server(options.server)
        .outbox_dir(options.outbox)
        // A demo of seconds cannot wait for a minute; a fleet should.
        .backoff(Duration::from_millis(50), Duration::from_millis(250));
    if let Some(ca) = options.ca {
        device = device.ca_file(ca);
    }
    let device = DeviceClient::open(device).await?;
    let commands = tokio::spawn(obey(device.inbox()));
    let mut parent = parent();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut meter = Meter::new();
    let mut ids = Ids { life: options.life, next: [1, 1] };
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                say(&Said::Standing(standing(&device)))?;
                let (ids, messages) = messages(&mut meter, &mut ids);
                device.send_all(messages).await?;
                say(&Said::Accepted(ids))?;
            }
            line = parent.recv() => match line.as_deref() {
                Some(END) => break,
                Some(_) => {}
                None => return Ok(ExitCode::FAILURE),
            },
        }
    }
    device.flush(FLUSH).await?;
    device.close().await?;
    commands.await.map_err(|error| Failure::new("the commands stopped").caused_by(error))??;
    say(&Said::Ended(standing(&device)))?;
    Ok(ExitCode::SUCCESS)
}

/// Does what it is told where it knows how, and rejects the rest, until the client is closed.
async fn obey(inbox: Inbox) -> Result<()> {
    while let Some(command) = inbox.next().await? {
        let settled = match &command.body()[..] {
            known if known == commands::KNOWN.as_bytes() => command.complete().await,
            _ => command.reject().await,
        };
        // Too late: it comes again.
        if let Err(error) = settled
            && error.kind() != ErrorKind::LockLost
        {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Numbers for messages.
struct Ids {
    life: u32,
    next: [u64; 2],
}

impl Ids {
    fn next(&mut self, lane: Lane) -> Id {
        let [telemetry, alerts] = &mut self.next;
        let next = if lane == Lane::Alert { alerts } else { telemetry };
        let id = Id { lane, life: self.life, number: *next };
        *next += 1;
        id
    }
}

fn messages(meter: &mut Meter, ids: &mut Ids) -> (Vec<Id>, Vec<Message>) {
    let (measurements, alerts) = meter.read();
    let measurements = measurements.iter().map(|measurement| (Lane::Telemetry, measurement));
    let alerts = alerts.iter().map(|alert| (Lane::Alert, alert));
    let messages = measurements.chain(alerts).map(|(lane, measurement)| {
        let id = ids.next(lane);
        (id, message(id, measurement))
    });
    messages.unzip()
}

fn message(id: Id, measurement: &Measurement) -> Message {
    Message::in_lane(id.lane, json!(measurement).to_string())
        .message_id(id.to_string())
        .content_type("application/json")
        .content_encoding("utf-8")
        .property("measure", &measurement.measure)
}

fn standing(device: &DeviceClient) -> Standing {
    let link = match &*device.connection().borrow() {
        ConnectionState::Connected => "connected",
        ConnectionState::Connecting => "connecting",
        ConnectionState::Unauthorized { .. } => "refused",
        ConnectionState::Suspended => "suspended",
        ConnectionState::Closed => "closed",
        _ => "offline",
    };
    Standing::new(link.to_owned(), &device.counters())
}

/// Says it in one write, so that a kill leaves a whole line or a torn last one.
fn say(said: &Said) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// The lines the parent writes, until its end of the pipe is gone.
fn parent() -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel(1);
    // A thread, because a read of standard input cannot be called off when the program wants to end.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receive
}
