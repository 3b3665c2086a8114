//! SIGKILL, hundreds of times: nothing accepted is lost, order is kept within each lane, nothing is stored twice.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use whimbrel_hub::{Hub, events::Position};
use whimbrel_tests::{Mark, Verdict};

/// Kills of the device, and of the hub, in one test run.
const CYCLES: u32 = 120;

/// A device process; what it said it had accepted is read by a thread, so that it never blocks on its output.
struct Device {
    child: Child,
    accepted: JoinHandle<Vec<Mark>>,
}

impl Device {
    fn start(connection_string: &str, server: &str, outbox: &Path, life: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kill-device"))
            .args([connection_string, server])
            .arg(outbox)
            .arg(life)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let accepted = thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            // The last line may have been cut by the kill: only whole lines count.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().filter(|line| *line != "drained").map(|line| line.parse().unwrap()).collect()
        });
        Self { child, accepted }
    }

    fn kill(mut self) -> Vec<Mark> {
        assert!(self.child.try_wait().unwrap().is_none(), "the device ended by itself: see its error above");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.accepted.join().unwrap()
    }

    fn finish(mut self) -> Vec<Mark> {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the draining device failed: {status}");
        self.accepted.join().unwrap()
    }
}

struct HubProcess(Child);

impl HubProcess {
    fn start(data: &Path, address: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kill-hub"))
            .arg(data)
            .arg(address)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "the hub did not start: see its error above");
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A small generator, so that a run can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Everything the hub in `data` holds of `device`, in the order of its partition.
async fn stored(data: &Path, device: &str) -> Vec<Mark> {
    let hub = Hub::builder().data_dir(data).start().await.unwrap();
    let partition = hub.events().partition_of(device);
    let mut reader = hub.events().reader(partition, Position::Beginning).await.unwrap();
    let (mut marks, mut batch) = (Vec::new(), Vec::new());
    loop {
        reader.ready(1_000, &mut batch).await.unwrap();
        if batch.is_empty() {
            break;
        }
        marks.extend(batch.drain(..).map(|event| Mark::of(&event.message().unwrap()).unwrap()));
    }
    drop(reader);
    hub.stop().await.unwrap();
    marks
}

/// Runs `CYCLES` cycles; `kills` says what dies in a cycle: (device, hub).
fn ordeal(seed: u64, kills: impl Fn(u32, &mut Dice) -> (bool, bool)) {
    let folder = tempfile::tempdir().unwrap();
    let (data, outbox) = (folder.path().join("hub"), folder.path().join("outbox"));
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let server = format!("mqtt://{address}");
    let connection_string = runtime().block_on(async {
        let hub = Hub::builder().data_dir(&data).start().await.unwrap();
        let registered = hub.registry().create("victim").await.unwrap();
        hub.stop().await.unwrap();
        registered.connection_string()
    });

    let mut dice = Dice(seed);
    let mut hub = HubProcess::start(&data, &address);
    let mut accepted = Vec::new();
    let mut life = 1;
    let mut device = Device::start(&connection_string, &server, &outbox, "1");
    for cycle in 0..CYCLES {
        thread::sleep(Duration::from_millis(30 + dice.roll(90)));
        let (kill_device, kill_hub) = kills(cycle, &mut dice);
        if kill_hub {
            hub.kill();
            hub = HubProcess::start(&data, &address);
        }
        if kill_device {
            accepted.extend(device.kill());
            life += 1;
            device = Device::start(&connection_string, &server, &outbox, &life.to_string());
        }
    }
    accepted.extend(device.kill());
    accepted.extend(Device::start(&connection_string, &server, &outbox, "drain").finish());
    hub.kill();

    let stored = runtime().block_on(stored(&data, "victim"));
    let verdict = Verdict::judge(&accepted, &stored);
    println!("seed {seed}: {life} lives, {} accepted, {} stored", accepted.len(), verdict.stored);
    assert!(accepted.len() > CYCLES as usize, "the ordeal was none: only {} accepted", accepted.len());
    assert!(
        verdict.is_clean(),
        "lost {}, doubled {}, out of order {}; first of each: {:?} {:?} {:?}",
        verdict.lost.len(),
        verdict.duplicates.len(),
        verdict.out_of_order.len(),
        verdict.lost.first(),
        verdict.duplicates.first(),
        verdict.out_of_order.first(),
    );
}

#[test]
fn a_killed_device_loses_nothing() {
    ordeal(0x5eed_0001, |_, _| (true, false));
}

#[test]
fn a_killed_hub_loses_nothing() {
    ordeal(0x5eed_0002, |_, _| (false, true));
}

#[test]
fn device_and_hub_killed_in_turn_lose_nothing() {
    ordeal(0x5eed_0003, |_, dice| {
        let roll = dice.roll(3);
        (roll != 0, roll != 1)
    });
}

#[test]
fn a_second_process_on_one_outbox_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let device = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kill-device"));
        // Nobody listens there: the outbox is all that matters.
        command.args(["HostName=hub.invalid;DeviceId=d;SharedAccessKey=c2VjcmV0", "mqtt://127.0.0.1:1"]);
        command.arg(folder.path()).arg("1");
        command
    };
    let mut first = device().stdout(Stdio::piped()).spawn().unwrap();
    let mut accepted = String::new();
    BufReader::new(first.stdout.as_mut().unwrap()).read_line(&mut accepted).unwrap();
    let second = device().output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!second.status.success(), "two processes had one outbox");
    assert!(told.contains(&first.id().to_string()), "the first is process {}: {told}", first.id());
}
