//! A full disk: `send` says so, the process lives, and it works again when space returns. Nothing accepted is lost.
//!
//! Needs a small file system of its own. The test mounts one when it may (as root, or in a namespace that `cargo xtask
//! test` makes), or takes the folder in `WHIMBREL_SMALL_DISK`, which has to be empty and at most 64 MiB large.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use whimbrel::{DeviceClient, DeviceOptions, ErrorKind, Message};
use whimbrel_hub::{Hub, events::Position};

/// Size of the small disk: room for the segments of an outbox or an event log, and for little more.
const SIZE: &str = "48m";

/// A mounted tmpfs; unmounted when dropped.
struct SmallDisk(PathBuf, bool);

impl SmallDisk {
    fn mount(folder: &Path) -> Self {
        if let Some(given) = std::env::var_os("WHIMBREL_SMALL_DISK") {
            return Self(given.into(), false);
        }
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "tmpfs"])
            .arg(folder)
            .status()
            .expect("`mount` is there");
        assert!(
            status.success(),
            "mounting a small tmpfs takes root: run as root, or set WHIMBREL_SMALL_DISK to a folder on a small disk"
        );
        Self(folder.to_owned(), true)
    }

    /// Takes all space that is left.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        let chunk = vec![1_u8; 4096];
        loop {
            match std::io::Write::write_all(&mut file, &chunk) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return ballast,
                Err(error) => panic!("filling the disk: {error}"),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.1 {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
}

fn body(index: usize) -> Vec<u8> {
    let mut body = format!("{index:08}").into_bytes();
    body.resize(16 * 1024, b'.');
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_on_a_full_disk_says_so_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path());
    let hub = Hub::builder().in_memory().start().await.unwrap();
    let registered = hub.registry().create("cramped").await.unwrap();
    let options = || {
        DeviceOptions::from_connection_string(&registered.connection_string())
            .unwrap()
            .outbox_dir(disk.0.join("outbox"))
    };
    // A server that is not there: everything stays in the outbox, as on a device that is offline.
    let device = DeviceClient::open(options().server("mqtt://127.0.0.1:1")).await.unwrap();
    let mut accepted = 0;
    for _ in 0..8 {
        device.send(Message::telemetry(body(accepted))).await.unwrap();
        accepted += 1;
    }
    let ballast = disk.fill();
    let error = loop {
        match device.send(Message::telemetry(body(accepted))).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 10_000, "the disk never filled up");
    };
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    let refused_again = device.send(Message::telemetry(body(accepted))).await.unwrap_err();
    assert_eq!(refused_again.kind(), ErrorKind::DiskFull, "{refused_again}");
    assert_eq!(device.account().queued, accepted as u64, "what was refused is not in the account");

    fs::remove_file(ballast).unwrap();
    for _ in 0..64 {
        device.send(Message::telemetry(body(accepted))).await.expect("space has returned");
        accepted += 1;
    }
    device.close().await.unwrap();

    let server = format!("mqtt://{}", hub.mqtt_addr().unwrap());
    let device = DeviceClient::open(options().server(&server)).await.unwrap();
    while device.flush(Duration::from_secs(1)).await.unwrap() > 0 {}
    assert_eq!(device.account().delivered, accepted as u64);
    device.close().await.unwrap();
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_on_a_full_disk_acknowledges_nothing_it_cannot_keep_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path());
    let hub = Hub::builder().data_dir(disk.0.join("hub")).start().await.unwrap();
    let registered = hub.registry().create("sender").await.unwrap();
    let server = format!("mqtt://{}", hub.mqtt_addr().unwrap());
    let options = DeviceOptions::from_connection_string(&registered.connection_string())
        .unwrap()
        .server(&server)
        .outbox_in_memory();
    let device = DeviceClient::open(options).await.unwrap();
    let first = device.send(Message::telemetry(body(0))).await.unwrap();
    first.outcome().await.unwrap();

    let ballast = disk.fill();
    let total = 4_000;
    for index in 1..total {
        device.send(Message::telemetry(body(index))).await.unwrap();
    }
    let mut before = device.account().delivered;
    loop {
        device.flush(Duration::from_millis(500)).await.unwrap();
        let now = device.account().delivered;
        if now == before {
            break;
        }
        before = now;
    }
    let stuck = device.account();
    assert!(stuck.queued > 0, "64 MB cannot fit on {SIZE}: {stuck:?}");
    assert_eq!(stuck.rejected, 0, "a full disk passes: nothing is refused for good: {stuck:?}");
    hub.registry().get("sender").await.expect("the hub still answers");

    // Space comes back for what is small enough; the rest has to go through retention or a larger disk.
    fs::remove_file(ballast).unwrap();
    let room = Duration::from_secs(60);
    let deadline = tokio::time::Instant::now() + room;
    while device.account().delivered == stuck.delivered {
        assert!(tokio::time::Instant::now() < deadline, "no delivery within {room:?} after space returned");
        device.flush(Duration::from_millis(200)).await.unwrap();
    }
    device.close().await.unwrap();

    let partition = hub.events().partition_of("sender");
    let mut reader = hub.events().reader(partition, Position::Beginning).await.unwrap();
    let (mut stored, mut batch) = (0_usize, Vec::new());
    loop {
        reader.ready(100, &mut batch).await.unwrap();
        if batch.is_empty() {
            break;
        }
        for event in batch.drain(..) {
            assert_eq!(event.message().unwrap().body().as_ref(), body(stored), "order, and nothing missing");
            stored += 1;
        }
    }
    assert!(stored as u64 >= device.account().delivered, "everything acknowledged is there");
    hub.stop().await.unwrap();
}
