//! The processes of the demo and the network between them.

use std::{io, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};
use whimbrel::{
    auth::{ConnectionString, Credential},
    testing::Link,
};
use whimbrel_hub::ServiceFile;

use super::{
    device::{CONNECTION_STRING, END},
    protocol::Said,
};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

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
    service: ServiceFile,
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
    pub(super) async fn build(names: &[String], client: &reqwest::Client, news: mpsc::Sender<News>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("whimbrel-demo-").tempdir()?;
        let data = folder.path().join("hub");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let hub = start_hub(&data, any, any).await?;
        let service = ServiceFile::read(&data)?;
        let mqtts = service.mqtts.ok_or("the hub does not listen for MQTT over TLS")?;
        let url = service.http.clone().ok_or("the hub does not listen for HTTP")?;
        let http = url.trim_start_matches("http://").parse()?;
        let link = Link::start(mqtts).await?;
        let mut stage =
            Self { devices: Vec::new(), hub: Some(hub), link, mqtts, http, service, news, folder };
        for name in names {
            let request = client.put(format!("{url}/v1/devices/{name}")).bearer_auth(stage.bearer()?);
            let made: Made = request.send().await?.error_for_status()?.json().await?;
            let device = Device { name: name.clone(), connection_string: made.connection_string, life: 0, process: None };
            stage.devices.push(device);
        }
        Ok(stage)
    }

    /// Where the back end reads.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// What lets the back end in.
    pub(super) fn bearer(&self) -> Result<String> {
        let owner: ConnectionString = self.service.connection_string.parse()?;
        match owner.credential {
            Credential::Key { policy: Some(policy), key } => Ok(format!("{policy}:{}", key.to_base64())),
            _ => Err("the service file has no key of a policy".into()),
        }
    }

    pub(super) fn cut_network(&self) {
        self.link.cut();
    }

    pub(super) fn restore_network(&self) {
        self.link.restore();
    }

    /// Starts a device process on its outbox; which life of it this is.
    pub(super) fn start_device(&mut self, index: usize) -> Result<u32> {
        let device = self.devices.get_mut(index).ok_or("there is no such device")?;
        device.life += 1;
        let life = device.life;
        let mut child = own_program("demo-device")?
            .arg("--server")
            .arg(format!("mqtts://localhost:{}", self.link.address().port()))
            .arg("--ca")
            .arg(self.service.ca.as_deref().ok_or("the hub has no certificate of its own")?)
            .arg("--outbox")
            .arg(self.folder.path().join(&device.name))
            .args(["--life", &life.to_string()])
            .env(CONNECTION_STRING, &device.connection_string)
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a device process has no pipes".into());
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
    pub(super) async fn kill_device(&mut self, index: usize) -> io::Result<()> {
        match self.devices.get_mut(index).and_then(|device| device.process.take()) {
            Some((mut child, _)) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Asks every device to deliver what it has and to close.
    pub(super) async fn end_devices(&mut self) {
        for (_, stdin) in self.devices.iter_mut().filter_map(|device| device.process.as_mut()) {
            // One that is gone will be missed in the account.
            let _ = stdin.write_all(format!("{END}\n").as_bytes()).await;
        }
    }

    /// SIGKILL.
    pub(super) async fn kill_hub(&mut self) -> io::Result<()> {
        match self.hub.take() {
            Some(mut hub) => hub.kill().await,
            None => Ok(()),
        }
    }

    /// Starts the hub again, at the same place.
    pub(super) async fn start_hub(&mut self) -> Result<()> {
        self.hub = Some(start_hub(&self.folder.path().join("hub"), self.mqtts, self.http).await?);
        Ok(())
    }
}

#[derive(Deserialize)]
struct Made {
    connection_string: String,
}

async fn start_hub(data: &PathBuf, mqtts: SocketAddr, http: SocketAddr) -> Result<Child> {
    let mut hub = own_program("demo-hub")?;
    hub.arg("--data").arg(data).args(["--mqtts", &mqtts.to_string(), "--http", &http.to_string()]);
    let mut hub = hub.spawn()?;
    let mut lines = BufReader::new(hub.stdout.take().ok_or("the hub process has no output")?).lines();
    match tokio::time::timeout(START, lines.next_line()).await?? {
        Some(_) => Ok(hub),
        None => Err("the hub did not start; what it said is above".into()),
    }
}

/// This program, with another subcommand; it dies with us.
fn own_program(subcommand: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(subcommand).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}
