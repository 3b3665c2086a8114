//! A hub that is made to be killed at any moment: `kill-hub DATA MQTT_ADDRESS [HTTP_ADDRESS]`. Prints `ready` when it
//! listens.

use whimbrel_hub::{Hub, config::Listen};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &str| arguments.next().ok_or_else(|| format!("{name} is missing"));
    let hub = Hub::builder()
        .data_dir(argument("DATA")?)
        .set("mqtt", &argument("MQTT_ADDRESS")?)?
        .set("http", &argument("HTTP_ADDRESS").unwrap_or("off".into()))?
        .mqtts(Listen::OFF)
        .https(Listen::OFF)
        .amqp(Listen::OFF)
        .amqps(Listen::OFF)
        .start()
        .await?;
    println!("ready");
    tokio::signal::ctrl_c().await?;
    hub.stop().await?;
    Ok(())
}
