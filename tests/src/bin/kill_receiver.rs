//! A device that receives commands and is made to be killed at any moment: `kill-receiver CONNECTION_STRING SERVER OUTBOX`.
//! Prints `took ID` when the program has a command, and `done ID` when completing it has returned.

use std::time::Duration;

use whimbrel::{DeviceClient, DeviceOptions, ErrorKind};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &str| arguments.next().ok_or_else(|| format!("{name} is missing"));
    let options = DeviceOptions::from_connection_string(&argument("CONNECTION_STRING")?)?
        .server(argument("SERVER")?)
        .outbox_dir(argument("OUTBOX")?)
        .backoff(Duration::from_millis(5), Duration::from_millis(20));
    let device = DeviceClient::open(options).await?;
    let inbox = device.inbox();
    while let Some(command) = inbox.next().await? {
        let id = command.message_id().unwrap_or_default();
        println!("took {id}");
        match command.complete().await {
            Ok(()) => println!("done {id}"),
            Err(error) if error.kind() == ErrorKind::LockLost => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
