//! A back end sends commands to a device, which deals with one and rejects another; the back end sees how they ended.

use std::time::Duration;

use whimbrel::{DeviceClient, DeviceOptions, Message};
use whimbrel_hub::{
    Hub,
    commands::{CommandOutcome, CommandState},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = Hub::builder().in_memory().start().await?;
    let registered = hub.registry().create("valve-2").await?;

    // The device is away. Its commands wait at the hub.
    for (id, text) in [("c-1", "open"), ("c-2", "sing")] {
        hub.commands().send("valve-2", Message::telemetry(text).message_id(id)).await?;
        println!("sent {id}: {text}");
    }

    let folder = tempfile::tempdir()?;
    let device = DeviceClient::open(
        DeviceOptions::from_connection_string(&registered.connection_string())?
            .server(format!("mqtt://{}", hub.mqtt_addr().ok_or("no MQTT listener")?))
            .outbox_dir(folder.path()),
    )
    .await?;

    let inbox = device.inbox();
    for _ in 0..2 {
        let command = inbox.next().await?.ok_or("the inbox was closed")?;
        // Nothing is acknowledged before the program says so, and what is completed never comes again.
        match command.body().as_ref() {
            b"open" => command.complete().await?,
            _ => command.reject().await?,
        }
    }

    for (id, expected) in [("c-1", CommandOutcome::Completed), ("c-2", CommandOutcome::Rejected)] {
        let outcome = loop {
            match hub.commands().status("valve-2", id).await?.ok_or("the hub does not know it")?.state {
                CommandState::Ended { outcome, .. } => break outcome,
                CommandState::Enqueued | CommandState::Locked => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        println!("{id} ended as {outcome:?}");
        if outcome != expected {
            return Err(format!("{id} ended as {outcome:?} and not as {expected:?}").into());
        }
    }

    device.close().await?;
    hub.stop().await?;
    Ok(())
}
