//! The hub is away and the device program is restarted; nothing is lost, nothing comes twice, the order is kept.

use std::time::Duration;

use whimbrel::{DeviceClient, DeviceOptions, Message};
use whimbrel_hub::{Hub, Listen, events::Position};

const MESSAGES: usize = 500;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let hub = Hub::builder().data_dir(folder.path().join("hub")).start().await?;
    let connection_string = hub.registry().create("pump-3").await?.connection_string();
    let address = hub.mqtt_addr().ok_or("no MQTT listener")?;
    hub.stop().await?;
    println!("the hub is away");

    let options = DeviceOptions::from_connection_string(&connection_string)?
        .server(format!("mqtt://{address}"))
        .outbox_dir(folder.path().join("outbox"))
        .backoff(Duration::from_millis(10), Duration::from_millis(100))
        .close_deadline(Duration::ZERO);

    // Two lives of the device program: each sends its half and ends, with no hub in sight.
    for half in [0..MESSAGES / 2, MESSAGES / 2..MESSAGES] {
        let device = DeviceClient::open(options.clone()).await?;
        device.send_all(half.map(|number| Message::telemetry(number.to_string()))).await?;
        println!("the device has {} messages in its outbox and is restarted", device.account().queued);
        device.close().await?;
    }

    let hub = Hub::builder().data_dir(folder.path().join("hub")).mqtt(Listen::on(address)).start().await?;
    println!("the hub is back");
    let device = DeviceClient::open(options).await?;
    let left = device.flush(Duration::from_secs(30)).await?;
    let account = device.account();
    println!("accepted {} = delivered {} + queued {left}", account.accepted, account.delivered);

    let partition = hub.events().partition_of("pump-3");
    let mut reader = hub.events().reader(partition, Position::Beginning).await?;
    let mut events = Vec::new();
    while events.len() < MESSAGES {
        reader.next(MESSAGES, &mut events).await?;
    }
    for (number, event) in events.iter().enumerate() {
        let message = event.message()?;
        if message.body() != number.to_string().as_bytes() {
            return Err(format!("event {number} is not message {number}").into());
        }
    }
    if events.len() != MESSAGES || left != 0 {
        return Err(format!("{} events read, {left} messages left", events.len()).into());
    }
    println!("read {MESSAGES} events, each once, in order");

    device.close().await?;
    hub.stop().await?;
    Ok(())
}
