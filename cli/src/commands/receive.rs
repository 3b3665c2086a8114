//! `whimbrel device receive`: a device program that takes commands in.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines, Stdin},
    time::timeout,
};
use whimbrel::{Command, ConnectionState, DeviceClient, ErrorKind, Inbox, wire::time};

use crate::{
    as_device::{self, Place},
    failure::{Failure, Result},
    output,
    service::Target,
};

#[derive(Args)]
#[command(after_help = "\
Without --settle it shows each command and asks what to do with it. A command that is not settled comes again.

Examples:
  whimbrel device receive thermostat-1
  whimbrel device receive thermostat-1 --settle complete --limit 1
  whimbrel device receive thermostat-1 --settle complete --json | while read -r command; do …; done")]
pub(crate) struct Arguments {
    /// Id of the device to receive as
    device: String,
    /// What to do with every command, instead of asking
    #[arg(long, value_enum)]
    settle: Option<Settle>,
    /// End after this many commands
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    /// End when no command has come for so long, such as 5s; without it, only Ctrl-C ends it
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    place: Place,
    /// A line of JSON for each command
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, ValueEnum)]
enum Settle {
    /// It was dealt with
    Complete,
    /// Not now: it comes again
    Abandon,
    /// Never: it is dead-lettered
    Reject,
    /// Leave it locked: it comes again when the lock has run out
    Nothing,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    if arguments.settle.is_none() && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("say what to do with each command")
            .advice("give --settle complete, abandon, reject or nothing; in a terminal it asks"));
    }
    let options = as_device::options(&arguments.device, &arguments.target).await?;
    let options = match arguments.place.folder(&arguments.device, &arguments.target) {
        Some(folder) => options.outbox_dir(folder),
        None => options.outbox_in_memory(),
    };
    let client = DeviceClient::open(options).await?;
    let received = tokio::select! {
        received = receive(&client, &arguments) => received,
        refused = refused(&client) => Err(refused),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    let closed = client.close().await;
    received?;
    closed?;
    Ok(ExitCode::SUCCESS)
}

async fn receive(client: &DeviceClient, arguments: &Arguments) -> Result<()> {
    let inbox = client.inbox();
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let mut received = 0;
    while arguments.limit.is_none_or(|limit| received < limit) {
        let Some(command) = next(&inbox, arguments.timeout).await? else { return Ok(()) };
        received += 1;
        if !arguments.json {
            output::line(&for_people(&command))?;
        }
        let settle = match arguments.settle {
            Some(settle) => settle,
            None => match ask(&mut input).await? {
                Some(settle) => settle,
                None => return Ok(()),
            },
        };
        let settled = match settle {
            Settle::Complete => command.complete().await,
            Settle::Abandon => command.abandon().await,
            Settle::Reject => command.reject().await,
            Settle::Nothing => Ok(()),
        };
        // One that was too late comes again; the others are not its fault.
        let failure = settled.err();
        if let Some(error) = &failure
            && error.kind() != ErrorKind::LockLost
        {
            return Err(Failure::new("the command could not be settled").caused_by(error));
        }
        if arguments.json {
            output::json(&for_programs(&command, settle, failure.as_ref()))?;
        } else if let Some(error) = failure {
            eprintln!("  {error}");
        }
    }
    Ok(())
}

/// The next command; `None` when none came in time.
async fn next(inbox: &Inbox, patience: Option<Duration>) -> Result<Option<Command>> {
    match patience {
        None => Ok(inbox.next().await?),
        Some(patience) => timeout(patience, inbox.next()).await.unwrap_or(Ok(None)).map_err(Failure::from),
    }
}

/// Resolves when the hub does not let the device in.
async fn refused(client: &DeviceClient) -> Failure {
    let mut connection = client.connection();
    let refused = connection.wait_for(|state| matches!(state, ConnectionState::Unauthorized { .. }));
    let reason = match refused.await.as_deref() {
        Ok(ConnectionState::Unauthorized { reason }) => reason.clone(),
        // The client is closed; whoever closed it knows why.
        _ => std::future::pending().await,
    };
    Failure::refused(format!("the hub refused the device: {reason}"))
        .advice("is it enabled, and its key current? see: whimbrel device show")
}

/// What the person at the terminal wants; `None` at the end of the input.
async fn ask(input: &mut Lines<BufReader<Stdin>>) -> Result<Option<Settle>> {
    loop {
        eprint!("  complete, abandon, reject, or nothing? [C/a/r/n] ");
        std::io::stderr().flush()?;
        let line = input.next_line().await;
        let line = line.map_err(|error| Failure::new("the input cannot be read").caused_by(error))?;
        let Some(line) = line else { return Ok(None) };
        match line.trim().to_ascii_lowercase().as_str() {
            "" | "c" | "complete" => return Ok(Some(Settle::Complete)),
            "a" | "abandon" => return Ok(Some(Settle::Abandon)),
            "r" | "reject" => return Ok(Some(Settle::Reject)),
            "n" | "nothing" => return Ok(Some(Settle::Nothing)),
            _ => {}
        }
    }
}

/// `12:34:56.789 m-1 reboot  when=now  (delivery 2)`
fn for_people(command: &Command) -> String {
    let mut line = String::new();
    if let Some(at) = command.enqueued_at() {
        line.push_str(time::format(at).get(11..23).unwrap_or_default());
        line.push(' ');
    }
    if let Some(id) = command.message_id() {
        line.push_str(id);
        line.push(' ');
    }
    match std::str::from_utf8(command.body()) {
        Ok(text) => line.push_str(text),
        Err(_) => line.push_str(&format!("base64:{}", BASE64_STANDARD.encode(command.body()))),
    }
    for (name, value) in command.properties().iter() {
        line.push_str(&format!("  {name}={value}"));
    }
    if let Some(count @ 1..) = command.delivery_count() {
        line.push_str(&format!("  (delivery {})", count + 1));
    }
    output::harmless(&line)
}

fn for_programs(command: &Command, settle: Settle, failure: Option<&whimbrel::Error>) -> Value {
    let properties: Map<String, Value> =
        command.properties().iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let body = match std::str::from_utf8(command.body()) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "base64": BASE64_STANDARD.encode(command.body()) }),
    };
    json!({
        "message_id": command.message_id(),
        "sequence": command.sequence(),
        "enqueued_at": command.enqueued_at().map(time::format),
        "delivery_count": command.delivery_count(),
        "properties": properties,
        "content_type": command.message().system().content_type,
        "correlation_id": command.message().system().correlation_id,
        "body": body,
        "settled": match (settle, failure) {
            (_, Some(_)) => "lock lost",
            (Settle::Complete, _) => "completed",
            (Settle::Abandon, _) => "abandoned",
            (Settle::Reject, _) => "rejected",
            (Settle::Nothing, _) => "not settled",
        },
    })
}
