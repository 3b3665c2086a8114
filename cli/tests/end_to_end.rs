//! The command as a user runs it: real processes, real sockets, real files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

fn whimbrel(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    // The variables of whoever runs the tests are not part of them.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WHIMBREL_")) {
        command.env_remove(name);
    }
    command.env("WHIMBREL_DATA", data);
    command
}

/// Runs to the end; `input` is its standard input.
fn run(data: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = whimbrel(data);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs to a good end; gives the standard output.
fn good(data: &Path, arguments: &[&str]) -> String {
    let output = run(data, arguments, "");
    assert!(output.status.success(), "{arguments:?}: {}", err(&output));
    out(&output)
}

/// Runs to the given exit code; gives the standard error.
fn bad(data: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(data, arguments, "");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {} {}", out(&output), err(&output));
    err(&output)
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A hub in a process of its own; killed when dropped.
struct Hub {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Hub {
    fn start(data: &Path, more: &[&str]) -> Self {
        Self::start_with(data, more, Stdio::inherit())
    }

    fn start_with(data: &Path, more: &[&str], input: Stdio) -> Self {
        let free = ["--mqtt", "--mqtts", "--amqp", "--amqps", "--https"].map(|name| [name, "127.0.0.1:0"]);
        let free = free.as_flattened();
        let http = if more.contains(&"--http") { &[][..] } else { &["--http", "127.0.0.1:0"] };
        let mut command = whimbrel(data);
        command.arg("hub").args(free).args(http).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.stdin(input).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        if !first.starts_with("The hub is up") {
            let output = child.wait_with_output().unwrap();
            panic!("{first} {}", err(&output));
        }
        Self { child, out }
    }

    /// What it printed after the first line, once it has ended by SIGTERM.
    fn terminate(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.out, &mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn http_address(data: &Path) -> String {
    let file: Value = serde_json::from_slice(&std::fs::read(data.join("service.json")).unwrap()).unwrap();
    file["http"].as_str().unwrap().trim_start_matches("http://").to_owned()
}

fn bodies(data: &Path, more: &[&str]) -> Vec<String> {
    let arguments = [&["monitor", "--json"], more].concat();
    json_lines(&good(data, &arguments))
        .iter()
        .map(|event| event["body"]["text"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn from_an_empty_folder_to_events_on_the_screen() {
    let folder = TempDir::new().unwrap();
    let data = &folder.path().join("data");
    let hub = Hub::start(data, &[]);

    let secret = good(data, &["device", "add", "thermostat-1"]);
    assert!(secret.starts_with("HostName=localhost;DeviceId=thermostat-1;SharedAccessKey="), "{secret}");
    assert_eq!(secret.lines().count(), 1, "scripts take the whole output");

    good(data, &["send", "thermostat-1", "21.5", "21.6", "-p", "room=attic", "--content-type", "text/plain"]);
    good(data, &["send", "thermostat-1", "hot", "--alert", "--ttl", "1h", "--memory"]);
    let lines = run(data, &["send", "thermostat-1"], "one\ntwo\r\n\nlast");
    assert!(lines.status.success(), "{}", err(&lines));
    let file = folder.path().join("body");
    std::fs::write(&file, b"\xff\x00").unwrap();
    let sent = good(data, &["send", "thermostat-1", "--file", file.to_str().unwrap(), "--json"]);
    let sent = json_lines(&sent);
    assert_eq!(sent[0]["outcome"], "delivered");
    assert_eq!(sent[1]["summary"]["delivered"], 1);

    let events = json_lines(&good(data, &["monitor", "--json"]));
    let body = |index: usize| events[index]["body"].clone();
    assert_eq!(events.len(), 8);
    assert_eq!(
        (body(0), body(1)),
        (serde_json::json!({"text": "21.5"}), serde_json::json!({"text": "21.6"}))
    );
    assert_eq!(events[0]["device"], "thermostat-1");
    assert_eq!(events[0]["properties"], serde_json::json!({"room": "attic"}));
    assert_eq!(events[0]["system"]["content_type"], "text/plain");
    assert_eq!(body(7), serde_json::json!({"base64": "/wA="}));
    assert_eq!(sent[0]["sequence"], events[7]["sequence"]);
    let texts: Vec<_> = (3..7).map(|index| events[index]["body"]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["one", "two", "", "last"]);
    let shown = good(data, &["monitor", "--limit", "1"]);
    assert!(shown.trim_end().ends_with("thermostat-1 21.5  room=attic"), "{shown}");

    let (code, next) = hub.terminate();
    assert_eq!(code, Some(0));
    for line in ["whimbrel device add", "whimbrel send", "whimbrel monitor"] {
        assert!(next.contains(line), "{next}");
    }
}

#[test]
fn a_hub_ends_with_the_program_that_started_it_where_that_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let data = &folder.path().join("data");
    let mut hub = Hub::start_with(data, &["--while-stdin"], Stdio::piped());
    let mut input = hub.child.stdin.take().unwrap();
    input.write_all(b"what is written means nothing\n").unwrap();
    good(data, &["device", "add", "d"]);
    assert_eq!(hub.child.try_wait().unwrap(), None);
    drop(input);
    assert!(hub.child.wait().unwrap().success());

    let _hub = Hub::start_with(data, &[], Stdio::null());
    good(data, &["device", "show", "d"]);
}

#[test]
fn devices_are_managed() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let _hub = Hub::start(data, &[]);
    let first = good(data, &["device", "add", "d1"]);
    good(data, &["device", "add", "d2", "--thumbprint", &"ab".repeat(20)]);
    let exists = bad(data, &["device", "add", "d1"], 1);
    assert!(exists.contains("error: "), "{exists}");
    let table = good(data, &["device", "list"]);
    assert!(table.lines().next().unwrap().starts_with("DEVICE"), "{table}");
    assert_eq!(table.lines().count(), 3);
    let ids = json_lines(&good(data, &["device", "list", "--json"]));
    assert_eq!(ids.iter().map(|device| &device["id"]).collect::<Vec<_>>(), ["d1", "d2"]);

    assert!(!good(data, &["device", "show", "d1"]).contains("SharedAccessKey"));
    assert!(good(data, &["device", "show", "d1", "--secret"]).contains(first.trim()));
    let rotated = good(data, &["device", "rotate", "d1"]);
    assert_ne!(rotated, first);
    let old = bad(data, &["send", "d1", "x", "--memory", "--connection-string", first.trim()], 5);
    assert!(old.contains("refused"), "{old}");
    good(data, &["send", "d1", "x", "--memory", "--connection-string", rotated.trim()]);

    good(data, &["device", "disable", "d1"]);
    bad(data, &["send", "d1", "x", "--memory"], 5);
    good(data, &["device", "enable", "d1"]);
    good(data, &["send", "d1", "x", "--memory"]);
    good(data, &["device", "delete", "d1"]);
    bad(data, &["device", "show", "d1"], 1);
    assert_eq!(bodies(data, &["--device", "d1"]), ["x", "x"], "its events stay");
}

#[test]
fn what_could_not_be_delivered_stays_and_goes_with_the_next() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let hub = Hub::start(data, &[]);
    let secret = good(data, &["device", "add", "d"]);
    let send = |text, timeout| {
        run(data, &["send", "d", text, "--timeout", timeout, "--connection-string", secret.trim()], "")
    };
    hub.terminate();
    let output = send("while away", "1s");
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert!(err(&output).contains("1 stay in the outbox"), "{}", err(&output));
    let _hub = Hub::start(data, &[]);
    let output = send("back again", "30s");
    assert!(output.status.success(), "{}", err(&output));
    assert!(err(&output).contains("2 delivered"), "{}", err(&output));
    assert_eq!(bodies(data, &[]), ["while away", "back again"]);
}

#[test]
fn following_goes_on_across_a_restart_of_the_hub() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let hub = Hub::start(data, &[]);
    let http = http_address(data);
    good(data, &["device", "add", "d"]);
    good(data, &["send", "d", "0", "1"]);
    let mut command = whimbrel(data);
    command
        .args(["monitor", "--follow", "--json", "--from", "beginning", "--limit", "4"])
        .stdout(Stdio::piped());
    let mut monitor = command.stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    let mut next = || {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        event["body"]["text"].as_str().unwrap().to_owned()
    };
    assert_eq!([next(), next()], ["0", "1"]);
    hub.terminate();
    let _hub = Hub::start(data, &["--http", &http]);
    good(data, &["send", "d", "2", "3"]);
    assert_eq!([next(), next()], ["2", "3"]);
    assert!(monitor.wait().unwrap().success());
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let _hub = Hub::start(data, &[]);
    good(data, &["device", "add", "d"]);
    good(data, &["send", "d", "0", "1", "2"]);
    assert_eq!(bodies(data, &["--group", "$Default", "--limit", "2"]), ["0", "1"]);
    assert_eq!(bodies(data, &["--group", "$Default"]), ["2"]);
    assert_eq!(bodies(data, &["--group", "$Default"]), Vec::<String>::new());
    assert_eq!(bodies(data, &[]), ["0", "1", "2"], "without the group nothing changes");
    bad(data, &["monitor", "--group", "nobody"], 1);
}

#[test]
fn what_is_wrong_is_said_in_a_line_with_a_way_out() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    for arguments in [&["device", "list"][..], &["monitor"], &["send", "d", "x"]] {
        let text = bad(data, arguments, 4);
        assert!(text.starts_with("error: ") && text.contains("whimbrel hub"), "{text}");
    }
    let config = data.join("hub.toml");
    std::fs::write(&config, "\nretension = \"1d\"\n").unwrap();
    let text = bad(data, &["hub", "--config", config.to_str().unwrap()], 2);
    assert!(text.contains("line 2") && text.contains("\"retention\""), "{text}");
    let text = bad(data, &["hub", "--mqtt", "0.0.0.0:1883"], 2);
    assert!(text.contains("allow-plain"), "{text}");
    bad(data, &["hub", "--no-such-flag"], 2);
    bad(
        data,
        &[
            "monitor",
            "--server",
            "http://hub.example:8080",
            "--connection-string",
            "HostName=h;SharedAccessKeyName=p;SharedAccessKey=cA==",
        ],
        2,
    );

    let hub = Hub::start(data, &[]);
    let off = ["--mqtt", "--mqtts", "--amqp", "--amqps", "--http", "--https"].map(|name| [name, "off"]);
    let text = bad(data, &[&["hub"], off.as_flattened()].concat(), 1);
    assert!(text.contains(&hub.child.id().to_string()), "{text}");
    let text = bad(data, &["send", "nobody", "x"], 1);
    assert!(text.starts_with("error: "), "{text}");
    drop(hub);
    let text = bad(data, &["device", "list"], 4);
    assert!(text.contains("is it running?"), "{text}");
}

#[test]
fn a_hub_elsewhere_is_reached_over_tls_with_what_its_owner_hands_out() {
    let folder = TempDir::new().unwrap();
    let (there, here) = (folder.path().join("there"), folder.path().join("here"));
    let _hub = Hub::start(&there, &[]);
    let file: Value = serde_json::from_slice(&std::fs::read(there.join("service.json")).unwrap()).unwrap();
    let text = |name: &str| file[name].as_str().unwrap();
    let server = text("https").replace("127.0.0.1", "localhost");
    let remote = ["--server", &server, "--connection-string", text("connection_string"), "--ca", text("ca")];
    let run = |arguments: &[&str]| good(&here, &[arguments, &remote].concat());
    run(&["device", "add", "d"]);
    run(&["send", "d", "from afar"]);
    assert!(run(&["monitor"]).trim_end().ends_with("d from afar"));
    // Without the authority, or with another key, there is no way in.
    bad(&here, &[&["device", "list"], &remote[..4]].concat(), 4);
    let other = "HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0";
    bad(&here, &["device", "list", "--server", &server, "--connection-string", other, "--ca", text("ca")], 5);
}

#[test]
fn variables_and_files_set_what_flags_set() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let config = data.join("settings.toml");
    let free = "mqtt = \"off\"\nmqtts = \"off\"\nhttp = \"127.0.0.1:0\"\nhttps = \"off\"\n";
    std::fs::write(&config, format!("{free}partitions = 2\nhost-name = \"from.file\"\n")).unwrap();
    let mut command = whimbrel(data);
    command.args(["hub", "--host-name", "from.flag"]).env("WHIMBREL_HUB_CONFIG", &config);
    command.env("WHIMBREL_HUB_PARTITIONS", "3").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    let hub = Hub { child, out };
    assert!(!first.contains("MQTT"), "{first}");
    assert!(good(data, &["device", "add", "d"]).starts_with("HostName=from.flag;"));
    let partitions = bodies(data, &["--partition", "2"]);
    assert!(partitions.is_empty());
    bad(data, &["monitor", "--partition", "3"], 1);
    hub.terminate();

    let output = whimbrel(data).arg("hub").env("WHIMBREL_HUB_PARTITION", "3").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("WHIMBREL_HUB_PARTITION: ") && err(&output).contains("\"partitions\""));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let _hub = Hub::start(data, &[]);
    good(data, &["device", "add", "d"]);
    let many = "x".repeat(1_000) + "\n";
    assert!(run(data, &["send", "d"], &many.repeat(500)).status.success());
    let mut command = whimbrel(data);
    let mut monitor = command.arg("monitor").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(monitor.stdout.take());
    let output = monitor.wait_with_output().unwrap();
    assert_eq!(err(&output), "");
}

#[test]
fn a_command_waits_for_its_device_and_its_end_is_told() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let _hub = Hub::start(data, &[]);
    good(data, &["device", "add", "d"]);
    let id = good(
        data,
        &["command", "send", "d", "reboot", "-p", "when=now", "--id", "c-1", "--feedback", "full"],
    );
    assert_eq!(id, "c-1\n", "scripts take the whole output");
    assert_eq!(good(data, &["command", "outcome", "d", "c-1"]), "in the queue\n");

    let receive =
        |settle| good(data, &["device", "receive", "d", "--settle", settle, "--limit", "1", "--json"]);
    let received = json_lines(&receive("complete"));
    assert_eq!(received[0]["body"], serde_json::json!({"text": "reboot"}));
    assert_eq!(received[0]["properties"]["when"], "now");
    assert_eq!((&received[0]["message_id"], &received[0]["settled"]), (&"c-1".into(), &"completed".into()));
    assert_eq!(good(data, &["command", "outcome", "d", "c-1", "--wait"]), "Completed\n");
    let feedback = good(data, &["feedback"]);
    assert!(feedback.trim_end().ends_with("d c-1 Completed"), "{feedback}");
    assert_eq!(good(data, &["feedback"]), "", "what was shown is taken");

    good(data, &["command", "send", "d", "open the window", "--id", "c-2"]);
    assert_eq!(json_lines(&receive("abandon"))[0]["delivery_count"], 0);
    assert_eq!(json_lines(&receive("reject"))[0]["delivery_count"], 1);
    let rejected = run(data, &["command", "outcome", "d", "c-2", "--wait"], "");
    assert_eq!((out(&rejected).as_str(), rejected.status.code()), ("Rejected\n", Some(3)));
    let letters = json_lines(&good(data, &["command", "dead-letters", "--json"]));
    assert_eq!((&letters[0]["outcome"], &letters[0]["device"]), (&"Rejected".into(), &"d".into()));
    let number = letters[0]["id"].to_string();
    assert!(good(data, &["command", "dead-letters"]).contains("open the window"));
    assert!(good(data, &["command", "dead-letters", &number]).contains("open the window"));
    assert_eq!(good(data, &["command", "resend", &number]), "c-2\n");
    assert_eq!(good(data, &["command", "purge", "d"]), "1 commands of d are purged\n");
    let purged = run(data, &["command", "outcome", "d", "c-2", "--json"], "");
    assert_eq!(json_lines(&out(&purged))[0]["outcome"], "Purged");

    let expired = run(data, &["command", "send", "d", "quick", "--ttl", "200ms", "--wait"], "");
    assert!(out(&expired).trim_end().ends_with(" Expired") && expired.status.code() == Some(3));
    assert_eq!(good(data, &["device", "receive", "d", "--settle", "complete", "--timeout", "300ms"]), "");
}

#[test]
fn commands_that_cannot_be_are_refused_in_a_line() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let _hub = Hub::start(data, &[]);
    good(data, &["device", "add", "d"]);
    for (arguments, code) in [
        (&["command", "send", "nobody", "x"][..], 1),
        (&["command", "send", "d"], 2),
        (&["command", "send", "d", "a", "b", "--id", "one"], 2),
        (&["command", "send", "d", "x", "--ttl", "49h"], 2),
        (&["command", "send", "d", "x", "-p", "größe=1"], 2),
        (&["command", "outcome", "d", "never-sent"], 1),
        (&["command", "dead-letters", "17"], 1),
        (&["command", "resend", "17"], 1),
        (&["command", "purge", "nobody"], 1),
        (&["device", "receive", "d"], 2),
        (&["device", "receive", "nobody", "--settle", "complete"], 1),
    ] {
        let text = bad(data, arguments, code);
        assert!(text.starts_with("error: "), "{arguments:?}: {text}");
    }
    for _ in 0..50 {
        good(data, &["command", "send", "d", "x"]);
    }
    let full = bad(data, &["command", "send", "d", "x"], 1);
    assert!(full.contains("queue"), "{full}");
}

#[test]
fn help_and_references_print() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    for arguments in [
        &["--help"][..],
        &["hub", "--help"],
        &["send", "--help"],
        &["monitor", "--help"],
        &["device", "add", "--help"],
        &["device", "receive", "--help"],
        &["command", "send", "--help"],
        &["command", "dead-letters", "--help"],
        &["feedback", "--help"],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["reference", "errors"],
    ] {
        assert!(good(data, arguments).contains("whimbrel") || arguments[0] == "reference", "{arguments:?}");
    }
    let settings = good(data, &["hub", "--print-config"]);
    assert_eq!(settings, good(data, &["reference", "hub-settings"]));
    assert_eq!(settings, include_str!("../../docs/hub.toml"));
}
