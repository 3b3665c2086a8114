//! A device that is made to be stopped and to go on: `stop-device CONNECTION_STRING SERVER OUTBOX KEEP_ALIVE_MS`.
//!
//! Says each state of its connection on standard output, as a line `state …`, with the reason behind it where there is
//! one. Sends a message for each line it reads, says `sent`, and says `delivered` when it is; when its input ends it
//! closes.

use std::{io::BufRead as _, time::Duration};

use tokio::sync::mpsc;
use whimbrel::{ConnectionState, DeviceClient, DeviceOptions, Message};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &str| arguments.next().ok_or_else(|| format!("{name} is missing"));
    let options = DeviceOptions::from_connection_string(&argument("CONNECTION_STRING")?)?
        .server(argument("SERVER")?)
        .outbox_dir(argument("OUTBOX")?)
        .keep_alive(Duration::from_millis(argument("KEEP_ALIVE_MS")?.parse()?));
    let device = DeviceClient::open(options).await?;
    let mut states = device.connection();
    let telling = tokio::spawn(async move {
        loop {
            match &*states.borrow_and_update() {
                ConnectionState::Connected => println!("state connected"),
                ConnectionState::Disconnected { reason } => {
                    println!("state disconnected {}", reason.as_deref().unwrap_or_default());
                }
                other => println!("state {other:?}"),
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    });
    let (lines, mut wishes) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = wishes.recv().await {
        let receipt = device.send(Message::telemetry(line)).await?;
        println!("sent");
        tokio::spawn(async move {
            if receipt.outcome().await.is_ok() {
                println!("delivered");
            }
        });
    }
    device.close().await?;
    telling.await?;
    Ok(())
}
