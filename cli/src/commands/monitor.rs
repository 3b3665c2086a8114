//! `whimbrel monitor`: events from `/v1/events`, across cut connections and restarts of the hub.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Stdout, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    failure::{Failure, Result},
    output,
    service::{Service, Target},
};

/// The hub sends something at least this often on a stream that is followed…
const HEARTBEAT: &str = "15s";
/// …so silence for this long means that the connection is gone.
const SILENCE: Duration = Duration::from_secs(45);
const SHORTEST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Checkpoints are stored this often, and at the end.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(after_help = "\
Examples:
  whimbrel monitor --follow                       events as they come
  whimbrel monitor --from ago:1h --device d1      what d1 sent in the last hour
  whimbrel monitor --json | jq .body              everything that is kept
  whimbrel monitor --follow --group billing       goes on where the last one of this group stopped")]
pub(crate) struct Arguments {
    /// Go on with new events instead of ending with the last one there is
    #[arg(long, short)]
    follow: bool,
    /// Where to start: beginning, end, checkpoint, sequence:N, offset:N, time:2026-01-31T12:00:00Z or ago:1h
    /// [default: checkpoint with --group, else end with --follow, else beginning]
    #[arg(long, value_name = "POSITION")]
    from: Option<String>,
    /// Read as this consumer group, and store how far it has got
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Only events of this device
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
    /// End after this many events
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    /// Events as lines of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let service = Service::find(&arguments.target)?;
    let mut monitor = Monitor::new(arguments, service);
    let ended = tokio::select! {
        ended = monitor.watch() => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    // Also after an error: what was shown was shown.
    let stored = monitor.store_checkpoints().await;
    ended?;
    stored?;
    Ok(ExitCode::SUCCESS)
}

/// Why a stream ended.
enum End {
    /// Everything that was asked for has come.
    Done,
    /// It was cut; it can go on from where it was.
    Cut(Failure),
}

struct Monitor {
    arguments: Arguments,
    service: Service,
    out: BufWriter<Stdout>,
    /// Next sequence number of each partition.
    positions: BTreeMap<u32, u64>,
    /// Last sequence number shown and not stored yet, of each partition.
    unstored: BTreeMap<u32, u64>,
    stored_at: Instant,
    shown: u64,
}

impl Monitor {
    fn new(arguments: Arguments, service: Service) -> Self {
        Self {
            arguments,
            service,
            out: BufWriter::new(io::stdout()),
            positions: BTreeMap::new(),
            unstored: BTreeMap::new(),
            stored_at: Instant::now(),
            shown: 0,
        }
    }

    /// Shows events until there are no more to come. The first connection has to succeed; later ones are tried again.
    async fn watch(&mut self) -> Result<()> {
        let mut stream = self.open().await?;
        let mut wait = SHORTEST_WAIT;
        loop {
            let shown = self.shown;
            let mut failure = match self.show(stream).await? {
                End::Done => return Ok(()),
                End::Cut(failure) if self.arguments.follow => failure,
                End::Cut(failure) => return Err(failure),
            };
            if self.shown > shown {
                wait = SHORTEST_WAIT;
            }
            stream = loop {
                eprintln!("{failure}; trying again");
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
                match self.open().await {
                    Ok(stream) => break stream,
                    Err(again) if again.is_unreachable() => failure = again,
                    Err(other) => return Err(other),
                }
            };
        }
    }

    fn from(&self) -> &str {
        match &self.arguments.from {
            Some(from) => from,
            None if self.arguments.group.is_some() => "checkpoint",
            None if self.arguments.follow => "end",
            None => "beginning",
        }
    }

    fn request(&self) -> RequestBuilder {
        let mut query = vec![("from", self.from().to_owned()), ("follow", self.arguments.follow.to_string())];
        if self.arguments.follow {
            query.push(("heartbeat", HEARTBEAT.to_owned()));
        }
        if let Some(group) = &self.arguments.group {
            query.push(("group", group.clone()));
        }
        if let Some(device) = &self.arguments.device {
            query.push(("device", device.clone()));
        }
        if let Some(partition) = self.arguments.partition {
            query.push(("partition", partition.to_string()));
        }
        if let Some(limit) = self.arguments.limit {
            query.push(("limit", (limit - self.shown.min(limit)).to_string()));
        }
        let positions: Vec<String> =
            self.positions.iter().map(|(partition, next)| format!("{partition}:{next}")).collect();
        if !positions.is_empty() {
            query.push(("positions", positions.join(",")));
        }
        self.service.request(Method::GET, &["events"]).query(&query)
    }

    async fn open(&mut self) -> Result<Response> {
        let response = self.service.answer(self.request()).await?;
        let starts = response.headers().get("whimbrel-positions").and_then(|starts| starts.to_str().ok());
        for pair in starts.unwrap_or_default().split(',') {
            if let Some((Ok(partition), Ok(next))) = pair.split_once(':').map(|(p, n)| (p.parse(), n.parse()))
            {
                self.positions.insert(partition, next);
            }
        }
        Ok(response)
    }

    /// Shows what comes on one stream.
    async fn show(&mut self, mut stream: Response) -> Result<End> {
        let mut pending = Vec::new();
        loop {
            let chunk = match tokio::time::timeout(SILENCE, stream.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) if self.arguments.follow && !self.is_complete() => {
                    return Ok(End::Cut(Failure::unreachable("the hub stopped")));
                }
                Ok(Ok(None)) => return Ok(End::Done),
                Ok(Err(error)) => {
                    return Ok(End::Cut(
                        Failure::unreachable("the connection to the hub was lost").caused_by(error),
                    ));
                }
                Err(_) => return Ok(End::Cut(Failure::unreachable("the hub has gone silent"))),
            };
            pending.extend_from_slice(&chunk);
            let end = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            let rest = pending.split_off(end);
            for line in pending.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                self.line(line)?;
            }
            pending = rest;
            self.out.flush()?;
            if self.stored_at.elapsed() >= CHECKPOINT_EVERY {
                self.store_checkpoints().await?;
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.arguments.limit.is_some_and(|limit| self.shown >= limit)
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        let event: Value = serde_json::from_slice(line)
            .map_err(|error| Failure::new("what the hub sent is not JSON").caused_by(error))?;
        if let Some(message) = event.pointer("/error/message").and_then(Value::as_str) {
            return Err(Failure::new(format!("the hub cannot go on: {message}")));
        }
        if self.arguments.json {
            self.out.write_all(line)?;
            self.out.write_all(b"\n")?;
        } else {
            writeln!(self.out, "{}", for_people(&event))?;
        }
        let number = |name| event.get(name).and_then(Value::as_u64);
        if let (Some(Ok(partition)), Some(sequence)) =
            (number("partition").map(u32::try_from), number("sequence"))
        {
            self.positions.insert(partition, sequence + 1);
            self.unstored.insert(partition, sequence);
        }
        self.shown += 1;
        Ok(())
    }

    /// Stores how far the group has got; only what was handed to the output counts.
    async fn store_checkpoints(&mut self) -> Result<()> {
        self.stored_at = Instant::now();
        self.out.flush()?;
        let unstored = std::mem::take(&mut self.unstored);
        let Some(group) = &self.arguments.group else { return Ok(()) };
        for (partition, sequence) in unstored {
            let path = ["groups", group, "checkpoints", &partition.to_string()];
            let request = self.service.request(Method::PUT, &path).json(&json!({ "sequence": sequence }));
            match self.service.json(request).await {
                Ok(_) => {}
                // Stored the next time; at worst some events are shown twice.
                Err(failure) if failure.is_unreachable() => {
                    self.unstored.entry(partition).or_insert(sequence);
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }
}

/// `12:34:56.789 thermostat-1 {"t":21.5}  room=attic`
fn for_people(event: &Value) -> String {
    let text = |name| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut line = text("enqueued_at").get(11..23).unwrap_or_default().to_owned();
    line.push(' ');
    line.push_str(text("device"));
    if text("lane") == "alert" {
        line.push_str(" ALERT");
    }
    let body = event.get("body");
    let part = |name| body.and_then(|body| body.get(name));
    match (part("text").and_then(Value::as_str), part("json"), part("base64").and_then(Value::as_str)) {
        (Some(text), _, _) => line.push_str(&format!(" {text}")),
        (_, Some(json), _) => line.push_str(&format!(" {json}")),
        (_, _, Some(bytes)) => line.push_str(&format!(" base64:{bytes}")),
        _ => {}
    }
    for (name, value) in event.get("properties").and_then(Value::as_object).into_iter().flatten() {
        line.push_str(&format!("  {name}={}", value.as_str().unwrap_or_default()));
    }
    output::harmless(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_for_people() {
        let event = json!({
            "enqueued_at": "2026-01-31T12:34:56.7890000Z", "device": "d1", "lane": "alert",
            "body": {"text": "hot\nhot"}, "properties": {"room": "attic"},
        });
        assert_eq!(for_people(&event), "12:34:56.789 d1 ALERT hot\u{fffd}hot  room=attic");
        let event =
            json!({ "enqueued_at": "", "device": "d", "lane": "telemetry", "body": {"json": {"t": 1}} });
        assert_eq!(for_people(&event), " d {\"t\":1}");
    }
}
