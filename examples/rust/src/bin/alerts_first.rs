//! An alert overtakes all the telemetry that waits.

use std::time::Duration;

use whimbrel::{DeviceClient, DeviceOptions, Lane, Message};
use whimbrel_hub::{Hub, Listen, events::Position};

const READINGS: usize = 1_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let hub = Hub::builder().data_dir(folder.path().join("hub")).start().await?;
    let connection_string = hub.registry().create("boiler-7").await?.connection_string();
    let address = hub.mqtt_addr().ok_or("no MQTT listener")?;
    hub.stop().await?;

    let device = DeviceClient::open(
        DeviceOptions::from_connection_string(&connection_string)?
            .server(format!("mqtt://{address}"))
            .outbox_dir(folder.path().join("outbox"))
            .backoff(Duration::from_millis(10), Duration::from_millis(100)),
    )
    .await?;

    // While the hub is away, readings pile up. Then something happens.
    device.send_all((0..READINGS).map(|number| Message::telemetry(number.to_string()))).await?;
    let alert = device.send(Message::alert("overheat").property("limit", "95")).await?;
    println!("{READINGS} readings wait, and behind them an alert");

    let hub = Hub::builder().data_dir(folder.path().join("hub")).mqtt(Listen::on(address)).start().await?;
    println!("the alert ended as {:?}", alert.outcome().await?);
    device.flush(Duration::from_secs(30)).await?;

    let partition = hub.events().partition_of("boiler-7");
    let mut reader = hub.events().reader(partition, Position::Beginning).await?;
    let mut events = Vec::new();
    while events.len() <= READINGS {
        reader.next(READINGS, &mut events).await?;
    }
    let first = events.first().ok_or("nothing was stored")?.message()?;
    println!("the first of {} events: {}", events.len(), String::from_utf8_lossy(first.body()));
    if first.lane() != Lane::Alert {
        return Err("the alert was not first".into());
    }

    device.close().await?;
    hub.stop().await?;
    Ok(())
}
