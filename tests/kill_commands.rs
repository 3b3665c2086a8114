//! SIGKILL while commands are enqueued, delivered and settled: none that was accepted is lost, and none comes again after its
//! completion was acknowledged.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use whimbrel::auth::{ConnectionString, Credential, SasToken};
use whimbrel_hub::Hub;

/// Kills in one test run.
const CYCLES: u32 = 60;
/// Everything that is left is dealt with in this time, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
const DEVICE: &str = "victim";

/// A hub that is killed and started again, always at the same addresses.
struct Ground {
    folder: TempDir,
    mqtt: String,
    http: String,
    device: String,
    service: String,
    hub: Option<Child>,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (device, service) = runtime().block_on(async {
            let hub = Hub::builder().data_dir(folder.path().join("hub")).start().await.unwrap();
            let registered = hub.registry().create(DEVICE).await.unwrap();
            let service = hub.service_connection_string().to_owned();
            hub.stop().await.unwrap();
            (registered.connection_string(), service)
        });
        let mut ground = Self { folder, mqtt: free(), http: free(), device, service, hub: None };
        ground.start();
        ground
    }

    fn start(&mut self) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kill-hub"))
            .arg(self.folder.path().join("hub"))
            .args([&self.mqtt, &self.http])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "the hub did not start: see its error above");
        self.hub = Some(child);
    }

    fn kill(&mut self) {
        let mut hub = self.hub.take().unwrap();
        hub.kill().unwrap();
        hub.wait().unwrap();
    }

    fn outbox(&self) -> PathBuf {
        self.folder.path().join("outbox")
    }

    fn api(&self) -> Api {
        let token = |text: &str, resource: &str| {
            let parsed: ConnectionString = text.parse().unwrap();
            let Credential::Key { policy, key } = &parsed.credential else { panic!("no key") };
            let until = SystemTime::now() + Duration::from_secs(3600);
            SasToken::issue(&format!("{}{resource}", parsed.host_name), key, policy.as_deref(), until)
        };
        Api {
            http: client(),
            base: format!("http://{}", self.http),
            device: token(&self.device, "/devices/victim"),
            service: token(&self.service, ""),
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(hub) = &mut self.hub {
            let _ = hub.kill();
            let _ = hub.wait();
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Speaks HTTP without TLS; reqwest wants to know about TLS all the same.
fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

/// What a service and a device ask of the hub. `None` when the hub did not answer.
#[derive(Clone)]
struct Api {
    http: reqwest::Client,
    base: String,
    device: String,
    service: String,
}

impl Api {
    async fn send(&self, id: &str) -> Option<StatusCode> {
        let url = format!("{}/v1/devices/{DEVICE}/commands?message_id={id}", self.base);
        let request = self.http.post(url).header("authorization", &self.service).body(id.to_owned());
        Some(request.send().await.ok()?.status())
    }

    async fn outcome(&self, id: &str) -> Value {
        let url = format!("{}/v1/devices/{DEVICE}/commands/{id}", self.base);
        let answer = self.http.get(url).header("authorization", &self.service).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["outcome"].clone()
    }

    /// The id and the lock of the next command; an empty id when there is none.
    async fn receive(&self) -> Option<(String, String)> {
        let url = format!("{}/devices/{DEVICE}/messages/devicebound", self.base);
        let answer = self.http.get(url).header("authorization", &self.device).send().await.ok()?;
        match answer.status() {
            StatusCode::NO_CONTENT => Some(Default::default()),
            StatusCode::OK => {
                let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
                Some((header("iothub-messageid"), header("etag").trim_matches('"').to_owned()))
            }
            // On its way out.
            _ => None,
        }
    }

    async fn complete(&self, lock: &str) -> Option<StatusCode> {
        let url = format!("{}/devices/{DEVICE}/messages/devicebound/{lock}", self.base);
        Some(self.http.delete(url).header("authorization", &self.device).send().await.ok()?.status())
    }
}

/// Sends until told to stop; the ids of what was accepted.
async fn send(api: Api, stop: Arc<AtomicBool>, next: Arc<AtomicU64>) -> BTreeSet<String> {
    let mut accepted = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let id = format!("c-{}", next.fetch_add(1, Ordering::Relaxed));
        match api.send(&id).await {
            Some(StatusCode::CREATED) => drop(accepted.insert(id)),
            // The queue is full, or the hub is away. Whether it has this one we do not know: the next has another id.
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    accepted
}

/// Receives and completes until there is nothing left after `stop`; what was delivered, and what came again after its completion
/// had been acknowledged.
async fn receive(
    api: Api,
    stop: Arc<AtomicBool>,
    completed: Arc<Mutex<BTreeSet<String>>>,
) -> (BTreeSet<String>, Vec<String>) {
    let (mut delivered, mut again) = (BTreeSet::new(), Vec::new());
    loop {
        let before = completed.lock().unwrap().clone();
        match api.receive().await {
            Some((id, _)) if id.is_empty() => {
                if stop.load(Ordering::Relaxed) {
                    return (delivered, again);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Some((id, lock)) => {
                if before.contains(&id) {
                    again.push(id.clone());
                }
                if api.complete(&lock).await == Some(StatusCode::NO_CONTENT) {
                    completed.lock().unwrap().insert(id.clone());
                }
                delivered.insert(id);
            }
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

#[test]
fn a_killed_hub_loses_no_command_and_repeats_none_that_was_completed() {
    let mut ground = Ground::new();
    let runtime = runtime();
    let (stop_sending, stop_receiving) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (next, completed) = (Arc::new(AtomicU64::new(0)), Arc::default());
    let senders: Vec<_> = (0..3)
        .map(|_| runtime.spawn(send(ground.api(), Arc::clone(&stop_sending), Arc::clone(&next))))
        .collect();
    let receivers: Vec<_> = (0..2)
        .map(|_| {
            let completed = Arc::clone(&completed);
            runtime.spawn(receive(ground.api(), Arc::clone(&stop_receiving), completed))
        })
        .collect();
    for cycle in 0..CYCLES {
        thread::sleep(Duration::from_millis(40 + u64::from(cycle * 37 % 80)));
        ground.kill();
        ground.start();
    }
    stop_sending.store(true, Ordering::Relaxed);
    let mut accepted = BTreeSet::new();
    for sender in senders {
        accepted.extend(runtime.block_on(sender).unwrap());
    }
    stop_receiving.store(true, Ordering::Relaxed);
    let (mut delivered, mut again) = (BTreeSet::new(), Vec::new());
    for receiver in receivers {
        let (some, repeated) = runtime.block_on(receiver).unwrap();
        delivered.extend(some);
        again.extend(repeated);
    }

    println!("{} accepted, {} delivered in {CYCLES} lives of the hub", accepted.len(), delivered.len());
    assert!(accepted.len() > CYCLES as usize, "the ordeal was none: only {} accepted", accepted.len());
    let lost: Vec<_> = accepted.difference(&delivered).collect();
    assert!(
        lost.is_empty(),
        "{} commands were accepted and never delivered, first {:?}",
        lost.len(),
        lost[0]
    );
    assert!(
        again.is_empty(),
        "{} came again after their completion was acknowledged: {again:?}",
        again.len()
    );
    let api = ground.api();
    for id in completed.lock().unwrap().iter() {
        assert_eq!(runtime.block_on(api.outcome(id)), "Success", "{id}");
    }
}

/// A device process; each line it prints is kept.
struct Device {
    child: Child,
    said: thread::JoinHandle<Vec<(String, String)>>,
}

impl Device {
    fn start(ground: &Ground, outbox: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kill-receiver"))
            .arg(&ground.device)
            .arg(format!("mqtt://{}", ground.mqtt))
            .arg(outbox)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let said = thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            // The last line may have been cut by the kill: only whole lines count.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let words = whole.lines().filter_map(|line| line.split_once(' '));
            words.map(|(word, id)| (word.to_owned(), id.to_owned())).collect()
        });
        Self { child, said }
    }

    /// What it had said when it died.
    fn kill(mut self) -> Vec<(String, String)> {
        assert!(self.child.try_wait().unwrap().is_none(), "the device ended by itself: see its error above");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said.join().unwrap()
    }
}

#[test]
fn a_killed_device_gets_no_command_again_that_it_had_completed() {
    let mut ground = Ground::new();
    let outbox = ground.outbox();
    let runtime = runtime();
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sender = runtime.spawn(send(ground.api(), Arc::clone(&stop), next));
    let mut said = Vec::new();
    let mut device = Device::start(&ground, &outbox);
    for cycle in 0..CYCLES {
        thread::sleep(Duration::from_millis(60 + u64::from(cycle * 37 % 80)));
        if cycle % 3 == 2 {
            ground.kill();
            ground.start();
        } else {
            said.extend(device.kill());
            device = Device::start(&ground, &outbox);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let accepted = runtime.block_on(sender).unwrap();
    let (api, end) = (ground.api(), Instant::now() + PATIENCE);
    for id in &accepted {
        while runtime.block_on(api.outcome(id)) != "Success" {
            assert!(Instant::now() < end, "{id} was accepted and not completed");
            thread::sleep(Duration::from_millis(20));
        }
    }
    said.extend(device.kill());

    let (mut done, mut again) = (BTreeSet::new(), Vec::new());
    for (word, id) in &said {
        match word.as_str() {
            "took" if done.contains(id) => again.push(id),
            "done" => drop(done.insert(id)),
            _ => {}
        }
    }
    println!("{} accepted, {} completed and told of, {CYCLES} kills", accepted.len(), done.len());
    assert!(done.len() > CYCLES as usize / 2, "the ordeal was none: only {} completed", done.len());
    assert!(
        again.is_empty(),
        "{} were handed out again after completing had returned: {again:?}",
        again.len()
    );
}
