//! A process that stores events is killed again and again. What it acknowledged is there, in its place, once.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod log_support;

use std::{
    collections::{BTreeMap, HashMap},
    env,
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use log_support::{Log, all, sender, text, texts};
use whimbrel::{Lane, Message};
use whimbrel_hub::{
    events::{NewEvent, Origin, Position, Retention},
    store::StoreOptions,
};

const FOLDER: &str = "WHIMBREL_TEST_FOLDER";
const STARTS: &str = "WHIMBREL_TEST_STARTS";
/// How often to kill; a few times unless told otherwise.
const KILLS: &str = "WHIMBREL_TEST_KILLS";
const DEVICES: usize = 6;
const BATCH: u64 = 7;

fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 256 << 10, tail_bytes: 64 << 10, ..StoreOptions::default() }
}

/// Place and number of an acknowledged event.
type Acknowledged = HashMap<(u32, u64), (usize, u64)>;

/// The test starts itself again as the process to be killed, told apart by [`FOLDER`].
#[test]
fn nothing_acknowledged_is_lost_or_stored_twice() {
    if let (Ok(folder), Ok(starts)) = (env::var(FOLDER), env::var(STARTS)) {
        return store_until_killed(Path::new(&folder), &starts);
    }
    let kills: u64 = env::var(KILLS).ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    // Where each device goes on: behind the last number it has an acknowledgement for.
    let mut starts = [0; DEVICES];
    for kill in 0..kills {
        // At once, soon, and in the middle of the traffic.
        let patience = [0, 1, 20, 150, 400][(kill % 5) as usize];
        for line in run_and_kill(folder.path(), &starts, patience) {
            let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
            let [device, number, partition, sequence] = numbers[..] else { panic!("{line}") };
            let device = device as usize;
            starts[device] = starts[device].max(number + 1);
            // A resend does not learn its place; it was acknowledged all the same.
            if sequence != u64::MAX {
                let before = acknowledged.insert((partition as u32, sequence), (device, number));
                assert_eq!(before, None, "a place was given twice");
            }
        }
        check(folder.path(), &acknowledged, &starts);
    }
    assert!(starts.iter().sum::<u64>() > kills * 10, "there was traffic: {starts:?}");
}

/// Lets a child work until it acknowledged `patience` events, and kills it; returns its acknowledgements.
fn run_and_kill(folder: &Path, starts: &[u64; DEVICES], patience: usize) -> Vec<String> {
    let starts: Vec<String> = starts.iter().map(u64::to_string).collect();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "nothing_acknowledged_is_lost_or_stored_twice", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(STARTS, starts.join(" "))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut lines, mut line, mut killed) = (Vec::new(), String::new(), false);
    loop {
        if lines.len() >= patience && !killed {
            child.kill().unwrap();
            killed = true;
        }
        line.clear();
        if out.read_line(&mut line).unwrap() == 0 {
            break;
        }
        // The last line may be cut.
        if let Some(line) = line.strip_prefix("ack ").and_then(|line| line.strip_suffix('\n')) {
            lines.push(line.to_owned());
        }
    }
    assert!(killed, "the child ended by itself: {:?}", child.wait());
    child.wait().unwrap();
    lines
}

fn check(folder: &Path, acknowledged: &Acknowledged, starts: &[u64; DEVICES]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let log = Log::open_in(folder, options());
        let mut missing = acknowledged.clone();
        let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for state in log.partitions() {
            let events = all(&log, state.partition, Position::Beginning).await;
            let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
            assert_eq!(sequences, (0..state.next).collect::<Vec<_>>());
            for (event, text) in std::iter::zip(&events, texts(&events)) {
                let number: u64 = text.split(' ').next().unwrap().parse().unwrap();
                numbers.entry(event.device.to_string()).or_default().push(number);
                if let Some((device, wanted)) = missing.remove(&(event.partition, event.sequence)) {
                    assert_eq!((format!("d{device}"), wanted), (event.device.to_string(), number));
                }
            }
        }
        assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
        for (device, numbers) in numbers {
            let stored = numbers.len() as u64;
            assert_eq!(numbers, (0..stored).collect::<Vec<_>>(), "{device}: in order, each once");
            let start = starts[device[1..].parse::<usize>().unwrap()];
            assert!(stored >= start, "{device}: {start} acknowledged, {stored} stored");
        }
        log.close().await.unwrap();
    });
}

fn store_until_killed(folder: &Path, starts: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let log = Arc::new(Log::open_in(folder, options()));
        for (device, start) in starts.split(' ').enumerate() {
            let log = Arc::clone(&log);
            tokio::spawn(send(log, device, start.parse().unwrap()));
        }
        // The index is saved all the time, by a clock that runs fast.
        let keep = Retention { bytes: u64::MAX, time: Duration::MAX };
        let mut now = SystemTime::now();
        loop {
            now += Duration::from_secs(31);
            log.store.maintain(keep, now).await.unwrap();
        }
    });
}

/// A device: batches from the first number without acknowledgement, and each batch is sent twice.
async fn send(log: Arc<Log>, device: usize, start: u64) {
    let sender = sender(&format!("d{device}"));
    let filler = "x".repeat(200);
    for number in (start..).step_by(BATCH as usize) {
        let numbers: Vec<u64> = (number..number + BATCH).collect();
        let messages: Vec<Message> =
            numbers.iter().map(|number| text(&format!("{number} {filler}"))).collect();
        let batch: Vec<NewEvent<'_>> = std::iter::zip(&numbers, &messages)
            .map(|(number, message)| {
                let origin = Some(Origin { outbox: "box", lane: Lane::Telemetry, number: *number });
                NewEvent { sender: &sender, message, origin }
            })
            .collect();
        let mut places = Vec::new();
        log.append(&batch, &mut places).unwrap();
        let ticket = log.append(&batch, &mut Vec::new()).unwrap();
        log.durable(ticket).await.unwrap();
        let mut lines = String::new();
        for (number, place) in std::iter::zip(&numbers, &places) {
            let sequence = place.sequence.unwrap_or(u64::MAX);
            writeln!(lines, "ack {device} {number} {} {sequence}", place.partition).unwrap();
        }
        let mut out = std::io::stdout().lock();
        out.write_all(lines.as_bytes()).and_then(|()| out.flush()).unwrap();
    }
}
