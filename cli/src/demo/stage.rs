//! The processes of the demo and the network between them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};
use whimbrel::testing::{Fault, Link};
use whimbrel_hub::ServiceFile;

use super::{
    device::{CONNECTION_STRING, END},
    protocol::Said,
};
use crate::{
    failure::{Failure, Result},
    service::{Service, Target},
};

/// Longest wait for the hub to listen.
const START: Duration = Duration::from_secs(30);

/// Something a device process said, or that it is gone.
#[derive(Debug)]
pub(super) struct News {
    pub(super) device: usize,
    pub(super) life: u32,
    /// `None`: its output has ended.
    pub(super) said: Option<Said>,
}

/// Everything that can be started, cut and killed.
pub(super) struct Stage {
    // Before the folder, so that nobody writes into it when it goes.
    devices: Vec<Device>,
    hub: Option<Child>,
    link: Link,
    mqtts: SocketAddr,
    http: SocketAddr,
    service: Service,
    ca: Option<PathBuf>,
    news: mpsc::Sender<News>,
    folder: TempDir,
}

struct Device {
    name: String,
    connection_string: String,
    life: u32,
    process: Option<(Child, ChildStdin)>,
}

impl Stage {
    /// Starts the hub, makes the devices known to it, and puts the network in between. No device runs yet.
    pub(super) async fn build(names: &[String], news: mpsc::Sender<News>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("whimbrel-demo-").tempdir();
        let folder =
            folder.map_err(|error| Failure::new("there is no room for the demo").caused_by(error))?;
        let data = folder.path().join("hub");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let hub = start_hub(&data, any, any).await?;
        let file = ServiceFile::read(&data)?;
        let http = file.http.as_deref().and_then(|url| url.strip_prefix("http://")?.parse().ok());
        let (Some(mqtts), Some(http)) = (file.mqtts, http) else {
            return Err(Failure::new("the hub does not listen as it was told"));
        };
        let service = Service::find(&Target { data, server: None, connection_string: None, ca: None })?;
        let link = Link::to(mqtts)
            .await
            .map_err(|error| Failure::new("no port for the network").caused_by(error))?;
        let mut devices = Vec::new();
        for name in names {
            let made = service.json(service.request(Method::PUT, &["devices", name])).await?;
            let connection_string = made.get("connection_string").and_then(Value::as_str);
            let connection_string =
                connection_string.ok_or_else(|| Failure::new("the hub made a device without a key"))?;
            devices.push(Device {
                name: name.clone(),
                connection_string: connection_string.to_owned(),
                life: 0,
                process: None,
            });
        }
        Ok(Self { devices, hub: Some(hub), link, mqtts, http, service, ca: file.ca, news, folder })
    }

    /// The way of the back end to the hub.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// How the network behaves from now on.
    pub(super) fn set_network(&self, fault: Fault) {
        self.link.set(fault);
    }

    /// Starts a device process on its outbox; which life of it this is.
    pub(super) fn start_device(&mut self, index: usize) -> Result<u32> {
        let device = self.devices.get_mut(index).ok_or_else(|| Failure::new("there is no such device"))?;
        device.life += 1;
        let life = device.life;
        let mut command = own_program("demo-device")?;
        command
            .args(["--server", &format!("mqtts://localhost:{}", self.link.address().port())])
            .args(["--life", &life.to_string()])
            .arg("--outbox")
            .arg(self.folder.path().join(&device.name))
            .env(CONNECTION_STRING, &device.connection_string);
        if let Some(ca) = &self.ca {
            command.arg("--ca").arg(ca);
        }
        let mut child = start(&mut command)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("a device process has no pipes"));
        };
        device.process = Some((child, stdin));
        let news = self.news.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            loop {
                let said = match lines.next_line().await {
                    // The last line of a killed process may be torn: then it said nothing.
                    Ok(Some(line)) => match serde_json::from_str(&line) {
                        Ok(said) => Some(said),
                        Err(_) => continue,
                    },
                    _ => None,
                };
                let ended = said.is_none();
                if news.send(News { device: index, life, said }).await.is_err() || ended {
                    return;
                }
            }
        });
        Ok(life)
    }

    /// SIGKILL.
    pub(super) async fn kill_device(&mut self, index: usize) -> Result<()> {
        let process = self.devices.get_mut(index).and_then(|device| device.process.take());
        kill(process.map(|(child, _)| child)).await
    }

    /// Asks every device to deliver what it has and to close.
    pub(super) async fn end_devices(&mut self) {
        for (_, stdin) in self.devices.iter_mut().filter_map(|device| device.process.as_mut()) {
            // One that is gone will be missed in the account.
            let _ = stdin.write_all(format!("{END}\n").as_bytes()).await;
        }
    }

    /// SIGKILL.
    pub(super) async fn kill_hub(&mut self) -> Result<()> {
        kill(self.hub.take()).await
    }

    /// Starts the hub again, at the same place.
    pub(super) async fn start_hub(&mut self) -> Result<()> {
        self.hub = Some(start_hub(&self.folder.path().join("hub"), self.mqtts, self.http).await?);
        Ok(())
    }

    /// Ends every process that is left, so that the folder can go.
    pub(super) async fn close(mut self) {
        let devices = self.devices.drain(..).filter_map(|device| device.process).map(|(child, _)| child);
        for child in devices.chain(self.hub.take()) {
            // One that has ended by itself is as good as killed.
            let _ = kill(Some(child)).await;
        }
    }
}

async fn start_hub(data: &Path, mqtts: SocketAddr, http: SocketAddr) -> Result<Child> {
    let mut command = own_program("demo-hub")?;
    command.arg("--data").arg(data).args(["--mqtts", &mqtts.to_string(), "--http", &http.to_string()]);
    let mut hub = start(&mut command)?;
    let stdout = hub.stdout.take().ok_or_else(|| Failure::new("the hub process has no output"))?;
    match tokio::time::timeout(START, BufReader::new(stdout).lines().next_line()).await {
        Ok(Ok(Some(_))) => Ok(hub),
        _ => Err(Failure::new("the hub of the demo did not start")),
    }
}

/// This program, with another subcommand; it dies with us.
fn own_program(subcommand: &str) -> Result<Command> {
    let program = std::env::current_exe();
    let program =
        program.map_err(|error| Failure::new("this program does not find itself").caused_by(error))?;
    let mut command = Command::new(program);
    command.arg(subcommand).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

fn start(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|error| Failure::new("a process of the demo cannot be started").caused_by(error))
}

async fn kill(process: Option<Child>) -> Result<()> {
    let Some(mut process) = process else { return Ok(()) };
    process
        .kill()
        .await
        .map_err(|error| Failure::new("a process of the demo cannot be killed").caused_by(error))
}
