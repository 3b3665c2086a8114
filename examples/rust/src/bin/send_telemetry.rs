//! A device sends a measurement, and a back end reads it.

use std::time::Duration;

use whimbrel::{DeviceClient, DeviceOptions, Message, Outcome};
use whimbrel_hub::{Hub, events::Position};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A hub in this process. In earnest it is `whimbrel hub`, or Azure IoT Hub.
    let hub = Hub::builder().in_memory().start().await?;
    let registered = hub.registry().create("thermostat-1").await?;

    // Opening does not wait for the network. The outbox is a folder that survives this process.
    let folder = tempfile::tempdir()?;
    let device = DeviceClient::open(
        DeviceOptions::from_connection_string(&registered.connection_string())?
            .server(format!("mqtt://{}", hub.mqtt_addr().ok_or("no MQTT listener")?))
            .outbox_dir(folder.path()),
    )
    .await?;

    // When this returns, the message is on the disk: it is Whimbrel's job now.
    let reading = Message::telemetry(r#"{"t":21.5}"#)
        .content_type("application/json")
        .content_encoding("utf-8")
        .property("room", "attic")
        .expires_in(Duration::from_secs(3600));
    let receipt = device.send(reading).await?;

    // Nobody has to wait for the outcome; it can also be asked for later, by receipt.message_id().
    match receipt.outcome().await? {
        Outcome::Delivered { partition: Some(partition), sequence: Some(sequence) } => {
            println!("stored in partition {partition} as number {sequence}");
        }
        other => return Err(format!("ended as {other:?}").into()),
    }

    let partition = hub.events().partition_of("thermostat-1");
    let mut reader = hub.events().reader(partition, Position::Beginning).await?;
    let mut events = Vec::new();
    reader.next(10, &mut events).await?;
    for event in &events {
        let message = event.message()?;
        let room = message.properties().get("room").unwrap_or("unknown");
        println!("{} in the {room}: {}", event.device, String::from_utf8_lossy(message.body()));
    }

    device.close().await?;
    hub.stop().await?;
    Ok(())
}
