//! A back end reads events with checkpoints, and sends a command and follows it to its end.

use std::time::Duration;

use whimbrel::{
    DeviceClient, DeviceOptions, Message,
    service::{CommandOutcome, FileCheckpoints, SendOptions, ServiceClient, ServiceOptions},
};
use whimbrel_hub::Hub;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A hub in this process. In earnest it is `whimbrel hub`, or Azure IoT Hub.
    let hub = Hub::builder().in_memory().start().await?;
    let registered = hub.registry().create("thermostat-1").await?;
    let device = DeviceClient::open(
        DeviceOptions::from_connection_string(&registered.connection_string())?
            .server(format!("mqtt://{}", hub.mqtt_addr().ok_or("no MQTT listener")?))
            .outbox_in_memory(),
    )
    .await?;
    device.send(Message::telemetry(r#"{"t":31.5}"#).content_type("application/json")).await?;

    // The back end: the connection string of a policy, and for this hub the addresses it listens on.
    let service = ServiceClient::connect(
        ServiceOptions::from_connection_string(hub.service_connection_string())?
            .server(format!("amqp://{}", hub.amqp_addr().ok_or("no AMQP listener")?))
            .http_server(format!("http://{}", hub.http_addr().ok_or("no HTTP listener")?)),
    )
    .await?;

    // Several programs that open the same folder share the partitions. After a restart this goes on behind the
    // checkpoints.
    let folder = tempfile::tempdir()?;
    let mut events = service.events().checkpoints(FileCheckpoints::open(folder.path())?).open().await?;
    let event = events.next().await?.ok_or("the client was closed")?;
    let body = String::from_utf8_lossy(event.message().body());
    println!(
        "{} says {body}, number {} of partition {}",
        event.device_id(),
        event.sequence(),
        event.partition()
    );
    event.checkpoint().await?;

    // When this returns, the hub has stored the command for the device, be it connected or not.
    let options = SendOptions::default().expires_in(Duration::from_secs(600));
    let tracked = service.send("thermostat-1", Message::command("cool down"), options).await?;
    println!("command {} is on its way", tracked.message_id());

    // On the device: taken when the program is ready, completed when it was done.
    let command = device.inbox().next().await?.ok_or("the device was closed")?;
    println!("the device does: {}", String::from_utf8_lossy(command.body()));
    command.complete().await?;

    // After a restart, the message id alone leads back to it.
    let again = service.tracked("thermostat-1", tracked.message_id())?;
    assert_eq!(again.outcome().await?, CommandOutcome::Completed);
    println!("it was completed");

    events.close().await;
    service.close().await;
    device.close().await?;
    hub.stop().await?;
    Ok(())
}
