//! The service client against a real hub.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod commands;
mod events;
mod registry;

use std::{sync::atomic::AtomicU64, sync::atomic::Ordering, time::Duration};

use whimbrel::{
    DeviceClient, DeviceOptions, Message,
    service::{ServiceClient, ServiceOptions},
    testing::Link,
};
use whimbrel_hub::{
    Hub,
    access::Admitted,
    events::{NewEvent, Place},
};

/// Long enough that only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);

/// A hub with a folder, behind networks that can be cut and led elsewhere.
struct World {
    hub: Option<Hub>,
    folder: tempfile::TempDir,
    amqp: Link,
    http: Link,
    mqtt: Link,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hub = Self::start(&folder).await;
        let amqp = Link::to(hub.amqp_addr().unwrap()).await.unwrap();
        let http = Link::to(hub.http_addr().unwrap()).await.unwrap();
        let mqtt = Link::to(hub.mqtt_addr().unwrap()).await.unwrap();
        Self { hub: Some(hub), folder, amqp, http, mqtt }
    }

    async fn start(folder: &tempfile::TempDir) -> Hub {
        Hub::builder().data_dir(folder.path().join("hub")).start().await.unwrap()
    }

    fn hub(&self) -> &Hub {
        self.hub.as_ref().unwrap()
    }

    /// Stops the hub and starts it again on the same folder.
    async fn restart(&mut self) {
        self.hub.take().unwrap().stop().await.unwrap();
        let hub = Self::start(&self.folder).await;
        self.amqp.set_target(hub.amqp_addr().unwrap());
        self.http.set_target(hub.http_addr().unwrap());
        self.mqtt.set_target(hub.mqtt_addr().unwrap());
        self.hub = Some(hub);
    }

    fn options(&self) -> ServiceOptions {
        ServiceOptions::from_connection_string(self.hub().service_connection_string())
            .unwrap()
            .server(format!("amqp://{}", self.amqp.address()))
            .http_server(format!("http://{}", self.http.address()))
            .ca_pem(self.hub().ca_certificate().unwrap().pem)
            .backoff(Duration::from_millis(5), Duration::from_millis(200))
    }

    async fn service(&self) -> ServiceClient {
        ServiceClient::connect(self.options()).await.unwrap()
    }

    /// A device of this name, made when it is not there, that receives commands by MQTT.
    async fn device(&self, id: &str) -> DeviceClient {
        let registered = match self.hub().registry().create(id).await {
            Ok(registered) => registered,
            Err(_) => self.hub().registry().get(id).await.unwrap(),
        };
        let options = DeviceOptions::from_connection_string(&registered.connection_string())
            .unwrap()
            .server(format!("mqtt://{}", self.mqtt.address()))
            .backoff(Duration::from_millis(5), Duration::from_millis(200))
            .outbox_in_memory();
        DeviceClient::open(options).await.unwrap()
    }

    /// Stores an event of `device` as if it had sent it.
    async fn store(&self, device: &str, body: &str) -> Place {
        let sender = Admitted {
            device: device.into(),
            module: None,
            generation: "1".into(),
            auth_method: r#"{"scope":"device","type":"sas","issuer":"iothub"}"#.into(),
            expires_at: None,
        };
        let message = Message::telemetry(body.to_owned()).property("room", "attic");
        let mut places = Vec::new();
        let event = NewEvent { sender: &sender, message: &message, origin: None };
        let ticket = self.hub().events().append(&[event], &mut places).unwrap();
        self.hub().events().durable(ticket).await.unwrap();
        places[0]
    }
}

/// Another number each time.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("{what} never came"))
}
