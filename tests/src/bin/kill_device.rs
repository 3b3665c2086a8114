//! A device that sends as fast as its outbox takes messages, and says on standard output which were accepted. It is
//! made to be killed at any moment.
//!
//! `kill-device CONNECTION_STRING SERVER OUTBOX LIFE` sends until it is killed. LIFE `drain` sends nothing, waits until
//! the outbox is empty, prints `drained` and ends.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use whimbrel::{DeviceClient, DeviceOptions, Lane};
use whimbrel_tests::Mark;

/// Messages that may wait before this program stops adding to them.
const BACKLOG: u64 = 20_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &str| arguments.next().ok_or_else(|| format!("{name} is missing"));
    let options = DeviceOptions::from_connection_string(&argument("CONNECTION_STRING")?)?
        .server(argument("SERVER")?)
        .outbox_dir(argument("OUTBOX")?);
    let life = argument("LIFE")?;
    let device = DeviceClient::open(options).await?;
    if life == "drain" {
        while device.flush(Duration::from_secs(1)).await? > 0 {}
        println!("drained");
        device.close().await?;
        return Ok(());
    }
    send_until_killed(&device, life.parse()?).await
}

async fn send_until_killed(device: &DeviceClient, life: u32) -> Result<(), Box<dyn std::error::Error>> {
    let mut next = [1_u64; 2];
    for round in 0_u64.. {
        // Single messages and batches, mostly telemetry, so that both lanes and both calls die in every state.
        let count = if round % 3 == 0 { 1 } else { round % 40 + 2 };
        let marks: Vec<Mark> = (0..count)
            .map(|turn| {
                let lane = if (round + turn) % 7 == 0 { Lane::Alert } else { Lane::Telemetry };
                let [alerts, telemetry] = &mut next;
                let counter = if lane == Lane::Alert { alerts } else { telemetry };
                let mark = Mark { life, lane, index: *counter };
                *counter += 1;
                mark
            })
            .collect();
        match marks.as_slice() {
            [mark] => drop(device.send(mark.message()).await?),
            _ => drop(device.send_all(marks.iter().map(|mark| mark.message())).await?),
        }
        // One write for a batch: a kill between two lines of it would only make the test weaker, not wrong.
        let lines: String = marks.iter().map(|mark| format!("{mark}\n")).collect();
        io::stdout().write_all(lines.as_bytes())?;
        // A backlog is wanted; one that takes the hub minutes to take in is not.
        while device.account().queued > BACKLOG {
            device.flush(Duration::from_millis(5)).await?;
        }
    }
    Ok(())
}
