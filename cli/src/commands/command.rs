//! `whimbrel command …`: the back end's side of commands.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use whimbrel::message::C2D_LIMIT;

use crate::{
    failure::{Failure, Result, UNDELIVERED},
    output,
    service::{Service, Target},
};

/// The hub is asked again after so long; it answers as soon as the command has ended.
const ASK_AGAIN: Duration = Duration::from_secs(20);
/// Pause before a hub that is away is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Content type of a command in one JSON document.
const ENVELOPE: &str = "application/vnd.whimbrel.command+json";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Send a command to a device, which need not be connected
    Send(Send),
    /// Show how a command ended, or where it is
    Outcome(Outcome),
    /// Empty the queue of a device
    Purge(Purge),
    /// List commands that were rejected, expired or abandoned too often
    DeadLetters(DeadLetters),
    /// Send a dead-lettered command again
    Resend(Resend),
}

#[derive(Args)]
#[command(after_help = "\
Each BODY and each file is one command. It is safe in the device's queue when this prints its id.

Examples:
  whimbrel command send thermostat-1 reboot --wait
  whimbrel command send thermostat-1 '{\"target\":21}' --content-type application/json --ttl 10m
  id=\"$(whimbrel command send thermostat-1 reboot)\"; whimbrel command outcome thermostat-1 \"$id\" --wait")]
pub(crate) struct Send {
    /// Id of the device
    device: String,
    /// Bodies
    #[arg(required_unless_present = "file")]
    body: Vec<String>,
    /// Send the content of a file
    #[arg(long, value_name = "PATH", conflicts_with = "body")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    labels: super::Labels,
    /// Message id to find the outcome by, for one command; made when it is left out
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Joins the command to another message
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Which feedback the back end gets
    #[arg(long, value_enum, default_value = "none")]
    feedback: Feedback,
    /// Dead-letter it when it was not completed in this time, such as 10m [default: the hub's, 1h]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
    /// A line of JSON for each command
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
struct Waiting {
    /// Wait until it has ended, and show how; the exit code is 3 when it was not completed
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = super::duration)]
    timeout: Option<Duration>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Feedback {
    /// None
    None,
    /// When it is completed
    Positive,
    /// When it ends in another way
    Negative,
    /// However it ends
    Full,
}

#[derive(Args)]
pub(crate) struct Outcome {
    /// Id of the device
    device: String,
    /// Message id of the command
    id: String,
    #[command(flatten)]
    waiting: Waiting,
    /// JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct Purge {
    /// Id of the device
    device: String,
    /// JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct DeadLetters {
    /// Show this one, whole
    id: Option<u64>,
    /// Only those of this device
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    device: Option<String>,
    /// Lines of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(crate) struct Resend {
    /// Number of the dead letter
    id: u64,
    /// JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Send(send) => send.run().await,
        Command::Outcome(outcome) => outcome.run().await,
        Command::Purge(purge) => {
            let service = Service::find(&purge.target)?;
            let request = service.request(Method::DELETE, &["devices", &purge.device, "commands"]);
            let purged = service.json(request).await?;
            show(purge.json, &purged, || {
                let count = purged.get("purged").and_then(Value::as_u64).unwrap_or_default();
                format!("{count} commands of {} are purged", purge.device)
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::DeadLetters(letters) => letters.run().await,
        Command::Resend(resend) => {
            let service = Service::find(&resend.target)?;
            let path = ["dead-letters", &resend.id.to_string(), "resend"];
            let sent = service.json(service.request(Method::POST, &path)).await?;
            show(resend.json, &sent, || text(&sent, "message_id"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Send {
    async fn run(self) -> Result<ExitCode> {
        if self.id.is_some() && self.body.len() + self.file.len() > 1 {
            return Err(Failure::usage("--id is for one command"));
        }
        let service = Service::find(&self.target)?;
        let mut good = true;
        for body in &self.body {
            good &= self.send(&service, body.clone().into_bytes()).await?;
        }
        for path in &self.file {
            good &= self.send(&service, super::read_file(path, C2D_LIMIT)?).await?;
        }
        Ok(code(good))
    }

    /// Sends one; whether it was completed, where that is waited for.
    async fn send(&self, service: &Service, body: Vec<u8>) -> Result<bool> {
        let request = self.request(service, body);
        let sent = service.json(request).await?;
        let id = text(&sent, "message_id");
        if !self.waiting.wait {
            show(self.json, &sent, || id.clone())?;
            return Ok(true);
        }
        let status = self.waiting.follow(service, &self.device, &id).await?;
        show(self.json, &status, || format!("{id} {}", state(&status)))?;
        Ok(is_completed(&status))
    }

    fn request(&self, service: &Service, body: Vec<u8>) -> RequestBuilder {
        let request = service.request(Method::POST, &["devices", &self.device, "commands"]);
        let feedback = match self.feedback {
            Feedback::None => "none",
            Feedback::Positive => "positive",
            Feedback::Negative => "negative",
            Feedback::Full => "full",
        };
        let properties: serde_json::Map<String, Value> =
            self.labels.property.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let mut envelope = json!({
            "ack": feedback,
            "properties": properties,
            "body": match String::from_utf8(body) {
                Ok(text) => json!({ "text": text }),
                Err(error) => json!({ "base64": BASE64_STANDARD.encode(error.as_bytes()) }),
            },
        });
        for (name, value) in [
            ("message_id", &self.id),
            ("correlation_id", &self.correlation_id),
            ("content_type", &self.labels.content_type),
            ("content_encoding", &self.labels.content_encoding),
            ("ttl", &self.ttl),
        ] {
            if let (Some(value), Some(envelope)) = (value, envelope.as_object_mut()) {
                envelope.insert(name.to_owned(), value.clone().into());
            }
        }
        request.header(reqwest::header::CONTENT_TYPE, ENVELOPE).body(envelope.to_string())
    }
}

impl Outcome {
    async fn run(self) -> Result<ExitCode> {
        let service = Service::find(&self.target)?;
        let status = self.waiting.follow(&service, &self.device, &self.id).await?;
        show(self.json, &status, || state(&status))?;
        Ok(code(!self.waiting.wait || is_completed(&status)))
    }
}

impl Waiting {
    /// What is known of a command; when waiting was asked for, once it has ended or the time is over. A hub that goes away
    /// meanwhile is waited for.
    async fn follow(&self, service: &Service, device: &str, id: &str) -> Result<Value> {
        let end = self.timeout.map(|timeout| Instant::now() + timeout);
        let bar = ProgressBar::new_spinner();
        if !self.wait || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_message(format!("waiting for {device}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        let mut known: Option<Value> = None;
        loop {
            let left = end.map_or(ASK_AGAIN, |end| end.saturating_duration_since(Instant::now()));
            let mut request = service.request(Method::GET, &["devices", device, "commands", id]);
            if self.wait {
                let wait = left.min(ASK_AGAIN).as_secs().max(1);
                request = request.query(&[("wait", format!("{wait}s"))]);
            }
            match service.json(request).await {
                Ok(status) if !self.wait || status.get("state") == Some(&json!("ended")) => {
                    bar.finish_and_clear();
                    return Ok(status);
                }
                Ok(status) => {
                    bar.set_message(format!("waiting for {device}: {}", state(&status)));
                    known = Some(status);
                }
                // It was there before: the hub is away for a moment.
                Err(failure) if failure.is_unreachable() && known.is_some() => sleep(PAUSE).await,
                Err(failure) => return Err(failure),
            }
            if end.is_some_and(|end| end <= Instant::now())
                && let Some(status) = known
            {
                bar.finish_and_clear();
                return Ok(status);
            }
        }
    }
}

impl DeadLetters {
    async fn run(self) -> Result<ExitCode> {
        let service = Service::find(&self.target)?;
        if let Some(id) = self.id {
            let letter =
                service.json(service.request(Method::GET, &["dead-letters", &id.to_string()])).await?;
            show(true, &letter, String::new)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut after: Option<u64> = None;
        let mut rows = Vec::new();
        loop {
            let mut request = service.request(Method::GET, &["dead-letters"]).query(&[("limit", "1000")]);
            if let Some(device) = &self.device {
                request = request.query(&[("device", device)]);
            }
            if let Some(after) = after {
                request = request.query(&[("after", after)]);
            }
            let page = service.json(request).await?;
            for letter in page.get("dead_letters").and_then(Value::as_array).into_iter().flatten() {
                if self.json {
                    output::json(letter)?;
                } else {
                    rows.push(row(letter));
                }
            }
            after = page.get("next").and_then(Value::as_u64);
            if after.is_none() {
                break;
            }
        }
        if !self.json {
            output::table(["NUMBER", "DEVICE", "OUTCOME", "ENDED", "MESSAGE ID", "BODY"], &rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(letter: &Value) -> [String; 6] {
    let body = letter.get("body");
    let part = |name: &str| body.and_then(|body| body.get(name));
    let body = match (part("text").and_then(Value::as_str), part("json"), part("base64")) {
        (Some(text), _, _) => text.to_owned(),
        (_, Some(json), _) => json.to_string(),
        (_, _, Some(_)) => "(bytes)".to_owned(),
        _ => String::new(),
    };
    let id = letter.pointer("/system/message_id").and_then(Value::as_str).unwrap_or_default();
    [
        letter.get("id").and_then(Value::as_u64).unwrap_or_default().to_string(),
        output::harmless(&text(letter, "device")),
        text(letter, "outcome"),
        // To the second.
        text(letter, "ended_at").get(..19).unwrap_or_default().replace('T', " "),
        output::harmless(id),
        output::harmless(&body.chars().take(60).collect::<String>()),
    ]
}

/// The state in a word: the outcome once it has ended. What the contract calls Success is Completed here.
fn state(status: &Value) -> String {
    match (text(status, "state").as_str(), text(status, "outcome").as_str()) {
        ("ended", "Success") => "Completed".to_owned(),
        ("ended", outcome) => outcome.to_owned(),
        ("locked", _) => "delivered, not settled yet".to_owned(),
        _ => "in the queue".to_owned(),
    }
}

fn is_completed(status: &Value) -> bool {
    status.get("outcome") == Some(&json!("Success"))
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::from(UNDELIVERED) }
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn show(json: bool, value: &Value, for_people: impl FnOnce() -> String) -> Result<()> {
    if json {
        output::json(value)?;
    } else {
        output::line(&for_people())?;
    }
    Ok(())
}
