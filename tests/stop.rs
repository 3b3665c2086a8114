//! SIGSTOP for longer than the keep-alive time, while the hub runs on: a client that goes on does not take a connection for
//! good that may have ended long ago.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use whimbrel_hub::{Hub, config::Listen, events::Position};

/// Long enough that only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(2);

struct Device {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Device {
    /// Everything said up to a line that `is_it`, that line included.
    fn until(&self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let line =
                self.lines.recv_timeout(LONG).unwrap_or_else(|_| panic!("nothing more after {said:?}"));
            said.push(line);
            if said.last().is_some_and(|line| is_it(line)) {
                return said;
            }
        }
    }

    fn send(&mut self, body: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{body}").unwrap();
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is tested: the first thing a client says of its connection after it stood still is that it gave it up, for that
/// reason and not for something that happened to be noticed. It is `Connected` again only after the hub has let it in
/// anew, and everything is delivered once.
#[test]
fn a_client_that_was_stopped_says_so_before_anything_else_and_connects_anew() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (hub, connection_string) = runtime.block_on(async {
        let hub = Hub::builder()
            .data_dir(folder.path().join("hub"))
            .set("mqtt", "127.0.0.1:0")
            .unwrap()
            .http(Listen::OFF)
            .mqtts(Listen::OFF)
            .https(Listen::OFF)
            .amqp(Listen::OFF)
            .amqps(Listen::OFF)
            .start()
            .await
            .unwrap();
        let registered = hub.registry().create("sleeper").await.unwrap();
        (hub, registered.connection_string())
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_stop-device"))
        .args([&connection_string, &format!("mqtt://{}", hub.mqtt_addr().unwrap())])
        .arg(folder.path().join("outbox"))
        .arg(KEEP_ALIVE.as_millis().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (said, lines) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || output.lines().map_while(Result::ok).all(|line| said.send(line).is_ok()));
    let mut device = Device { child, lines };
    device.until(|line| line == "state connected");
    device.send("0");
    device.until(|line| line == "delivered");

    for round in 1..=2 {
        device.signal("STOP");
        // Taken in when it goes on.
        device.send(&round.to_string());
        // Not a wait for a state: this much time has to pass, on the clock of the machine.
        thread::sleep(KEEP_ALIVE * 2);
        device.signal("CONT");
        let said = device.until(|line| line.starts_with("state "));
        let first = said.last().unwrap();
        // The watch keeps the last state only: the tries may have begun by the time somebody looks.
        let gave_up = first.starts_with("state disconnected") && first.contains("stood still");
        assert!(gave_up || first == "state Connecting", "{said:?}");
        let mut rest = device.until(|line| line == "state connected");
        while ![&said, &rest].into_iter().flatten().any(|line| line == "delivered") {
            rest.extend(device.until(|line| line == "delivered"));
        }
    }
    drop(device.child.stdin.take());
    assert!(device.child.wait().unwrap().success());
    let bodies = runtime.block_on(async {
        let partition = hub.events().partition_of("sleeper");
        let mut reader = hub.events().reader(partition, Position::Beginning).await.unwrap();
        let mut batch = Vec::new();
        reader.ready(100, &mut batch).await.unwrap();
        let text = |event: &whimbrel_hub::events::Event| event.message().unwrap().body().to_vec();
        let bodies: Vec<_> = batch.iter().map(text).collect();
        drop(reader);
        hub.stop().await.unwrap();
        bodies
    });
    assert_eq!(bodies, [b"0", b"1", b"2"]);
}
