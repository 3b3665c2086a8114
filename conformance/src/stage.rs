//! What a scenario is played on: a hub in this process, on a folder of its own, behind a link for each protocol.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::AbortHandle,
};
use whimbrel::{
    Message, Result,
    testing::{Fault, Link, LinkCounts},
};
use whimbrel_bindings_support::document;
use whimbrel_hub::{
    Hub,
    access::Admitted,
    commands::CommandState,
    events::{NewEvent, Position},
};

use crate::scenario::{
    HubPlan, Scenario,
    step::{FaultName, HubChange, LinkName},
};

/// See the module.
pub struct Stage {
    folder: tempfile::TempDir,
    hub: Option<Hub>,
    plan: HubPlan,
    links: [Place; 3],
    /// Connection strings of the devices.
    devices: HashMap<String, String>,
    service: String,
}

/// A link, and what went through it before its last change.
struct Place {
    link: Link,
    before: LinkCounts,
    impostor: Option<AbortHandle>,
}

impl Stage {
    /// Sets the stage for a scenario.
    ///
    /// # Errors
    /// What the hub or the system says.
    pub async fn set(scenario: &Scenario) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("whimbrel-conformance-").tempdir().map_err(text)?;
        let hub = start(&folder, &scenario.hub).await?;
        let mut devices = HashMap::new();
        for id in &scenario.devices {
            let registered = hub.registry().create(id).await.map_err(text)?;
            devices.insert(id.clone(), registered.connection_string());
        }
        let mut links = Vec::new();
        for address in addresses(&hub) {
            let link = Link::to(address).await.map_err(text)?;
            links.push(Place { link, before: LinkCounts::default(), impostor: None });
        }
        let links: [Place; 3] = links.try_into().map_err(|_| "three links".to_owned())?;
        let service = hub.service_connection_string().to_owned();
        let plan = scenario.hub.clone();
        let mut stage = Self { folder, hub: Some(hub), plan, links, devices, service };
        if scenario.hub.absent {
            stage.change(HubChange::Stop).await?;
        }
        Ok(stage)
    }

    /// The folder of the scenario.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of an outbox.
    pub fn outbox(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The connection string of a device.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn device(&self, id: &str) -> Result<&str, String> {
        let found = self.devices.get(id).map(String::as_str);
        found.ok_or_else(|| format!("the scenario registers no device {id}"))
    }

    /// The connection string of the policy that may do everything.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Where clients connect.
    pub fn address(&self, link: LinkName) -> SocketAddr {
        self.place(link).link.address()
    }

    /// Starts or stops the hub.
    ///
    /// # Errors
    /// What it says.
    pub async fn change(&mut self, change: HubChange) -> Result<(), String> {
        if change != HubChange::Start {
            self.hub.take().ok_or("the hub is not there")?.stop().await.map_err(text)?;
            // Nobody listens there any more, and nobody else is to be found at its old ports.
            self.links.iter().for_each(|place| place.link.set(Fault::Refuse));
        }
        if change != HubChange::Stop {
            if self.hub.is_some() {
                return Err("the hub is there already".to_owned());
            }
            let hub = start(&self.folder, &self.plan).await?;
            for (place, address) in self.links.iter().zip(addresses(&hub)) {
                place.link.set_target(address);
                place.link.set(Fault::None);
            }
            self.hub = Some(hub);
        }
        Ok(())
    }

    /// Changes how the network behaves.
    pub fn fault(&mut self, link: LinkName, fault: FaultName) {
        let target = self.hub.as_ref().map(addresses).and_then(|all| all.get(link as usize).copied());
        let place = self.place_mut(link);
        place.before = place.link.counts();
        if let Some(impostor) = place.impostor.take() {
            impostor.abort();
            target.into_iter().for_each(|target| place.link.set_target(target));
        }
        let fault = match fault {
            FaultName::Cut => return place.link.cut(),
            FaultName::None => Fault::None,
            FaultName::Refuse => Fault::Refuse,
            FaultName::Swallow => Fault::Swallow,
            FaultName::Slow => Fault::Slow { bytes: 200, interval: Duration::from_millis(2) },
            FaultName::Split => Fault::Split,
            FaultName::Garbage => Fault::Garbage,
        };
        place.link.set(fault);
    }

    /// Whether so much has happened on a link since its last change.
    pub fn has_seen(&self, link: LinkName, connections: u64, lost: u64) -> bool {
        let place = self.place(link);
        let now = place.link.counts();
        now.connections >= place.before.connections + connections && now.lost >= place.before.lost + lost
    }

    /// Leads a link to a server that answers each request, up to its empty line, with `answer`.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn impostor(&mut self, link: LinkName, answer: String) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(text)?;
        let address = listener.local_addr().map_err(text)?;
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let (mut seen, mut buffer) = (Vec::<u8>::new(), [0; 1_024]);
                    while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                        match stream.read(&mut buffer).await {
                            Ok(count @ 1..) => seen.extend(buffer.iter().take(count)),
                            _ => return,
                        }
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        let place = self.place_mut(link);
        place.impostor = Some(serving.abort_handle());
        place.link.set_target(address);
        place.link.cut();
        Ok(())
    }

    /// The hub takes in a command.
    ///
    /// # Errors
    /// The hub's, by the name of its kind.
    pub async fn command(&self, device: &str, message: Message) -> Result<(), String> {
        self.hub()?
            .commands()
            .send(device, message)
            .await
            .map(drop)
            .map_err(|error| error.kind().name().to_owned())
    }

    /// `enqueued`, `locked`, the outcome of a command, or `unknown`.
    ///
    /// # Errors
    /// What the hub says.
    pub async fn command_state(&self, device: &str, id: &str) -> Result<String, String> {
        let status = self.hub()?.commands().status(device, id).await.map_err(text)?;
        Ok(match status.map(|status| status.state) {
            None => "unknown",
            Some(CommandState::Enqueued) => "enqueued",
            Some(CommandState::Locked) => "locked",
            Some(CommandState::Ended { outcome, .. }) => document::command_outcome(outcome),
        }
        .to_owned())
    }

    /// What the hub has of a device, in order, as documents; with `once`, without what came again.
    ///
    /// # Errors
    /// What the hub says.
    pub async fn stored(&self, device: &str, prefix: &str, once: bool) -> Result<Vec<Value>, String> {
        let events = self.hub()?.events();
        let mut reader =
            events.reader(events.partition_of(device), Position::Beginning).await.map_err(text)?;
        let (mut stored, mut known, mut batch) = (Vec::new(), HashSet::new(), Vec::new());
        loop {
            reader.ready(1_000, &mut batch).await.map_err(text)?;
            if batch.is_empty() {
                return Ok(stored);
            }
            for event in batch.drain(..).filter(|event| event.device.as_ref() == device) {
                let message = event.message().map_err(text)?;
                let system = message.system();
                let id = system.message_id.clone().unwrap_or_default();
                if !id.starts_with(prefix) || !known.insert(id) && once {
                    continue;
                }
                stored.push(json!({
                    "body": STANDARD.encode(message.body()),
                    "properties": message.properties().iter().collect::<BTreeMap<_, _>>(),
                    "message_id": system.message_id, "correlation_id": system.correlation_id, "user_id": system.user_id,
                    "content_type": system.content_type, "content_encoding": system.content_encoding,
                    "creation_time_ms": system.creation_time.map(document::unix_ms),
                    "message_schema": system.message_schema, "output_name": system.output_name,
                    "interface_id": system.interface_id, "component": system.component,
                    "sequence": event.sequence, "partition": event.partition,
                }));
            }
        }
    }

    /// The hub takes in events as if a device had sent them.
    ///
    /// # Errors
    /// What the hub says.
    pub async fn store(&self, device: &str, bodies: &[String]) -> Result<(), String> {
        let sender = Admitted {
            device: device.into(),
            module: None,
            generation: "1".into(),
            auth_method: r#"{"scope":"device","type":"sas","issuer":"iothub"}"#.into(),
            expires_at: None,
        };
        let messages: Vec<_> = bodies.iter().map(|body| Message::telemetry(body.clone())).collect();
        let new: Vec<_> =
            messages.iter().map(|message| NewEvent { sender: &sender, message, origin: None }).collect();
        let events = self.hub()?.events();
        let ticket = events.append(&new, &mut Vec::new()).map_err(text)?;
        events.durable(ticket).await.map_err(text)
    }

    /// Enables, disables or deletes a device.
    ///
    /// # Errors
    /// What the hub says.
    pub async fn change_device(&self, id: &str, enabled: Option<bool>, deleted: bool) -> Result<(), String> {
        let registry = self.hub()?.registry();
        if let Some(enabled) = enabled {
            registry.set_enabled(id, enabled, None).await.map_err(text)?;
        }
        match deleted {
            true => registry.delete(id, None).await.map_err(text),
            false => Ok(()),
        }
    }

    /// Makes a consumer group.
    ///
    /// # Errors
    /// What the hub says.
    pub async fn group(&self, name: &str) -> Result<(), String> {
        self.hub()?.events().add_group(name).await.map_err(text)
    }

    /// Takes the stage down.
    ///
    /// # Errors
    /// What the hub says at its end.
    pub async fn clear(mut self) -> Result<(), String> {
        match self.hub.take() {
            Some(hub) => hub.stop().await.map_err(text),
            None => Ok(()),
        }
    }

    fn hub(&self) -> Result<&Hub, String> {
        self.hub.as_ref().ok_or_else(|| "the hub is not there".to_owned())
    }

    fn place(&self, link: LinkName) -> &Place {
        let [mqtt, amqp, http] = &self.links;
        match link {
            LinkName::Mqtt => mqtt,
            LinkName::Amqp => amqp,
            LinkName::Http => http,
        }
    }

    fn place_mut(&mut self, link: LinkName) -> &mut Place {
        let [mqtt, amqp, http] = &mut self.links;
        match link {
            LinkName::Mqtt => mqtt,
            LinkName::Amqp => amqp,
            LinkName::Http => http,
        }
    }
}

async fn start(folder: &tempfile::TempDir, plan: &HubPlan) -> Result<Hub, String> {
    let mut builder = Hub::builder().data_dir(folder.path().join("hub"));
    for (name, value) in &plan.set {
        builder = builder.set(name, value).map_err(text)?;
    }
    builder.start().await.map_err(text)
}

/// In the order of [`LinkName`].
fn addresses(hub: &Hub) -> Vec<SocketAddr> {
    [hub.mqtt_addr(), hub.amqp_addr(), hub.http_addr()].into_iter().flatten().collect()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
