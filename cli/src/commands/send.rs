//! `whimbrel send`: a device program as small as can be.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep},
};
use whimbrel::{
    Account, ConnectionState, DeviceClient, ErrorKind, Message, Outcome, Receipt, message::D2C_LIMIT,
};

use crate::{
    as_device::{self, Place},
    failure::{Failure, Result, UNDELIVERED},
    output,
    service::Target,
};

/// Lines taken in with one commit.
const BATCH: usize = 256;
/// Receipts that wait for their outcome before input is read on (with --json).
const RECEIPTS: usize = 10_000;
/// How often a full outbox is tried again, and the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

#[derive(Args)]
#[command(after_help = "\
Each BODY, each line of the input and each file is one event. A message is safe when it is in the outbox; what cannot be
delivered now is delivered by the next send with the same outbox.

Examples:
  whimbrel send thermostat-1 '{\"t\":21.5}' --content-type application/json --property room=attic
  vmstat 1 | whimbrel send server-7
  whimbrel send camera-2 --file frame.jpg --ttl 1h
  whimbrel send d1 hello --connection-string 'HostName=hub.azure-devices.net;DeviceId=d1;SharedAccessKey=…'")]
pub(crate) struct Arguments {
    /// Id of the device to send as
    device: String,
    /// Bodies; without any, and without --file, lines of the standard input
    body: Vec<String>,
    /// Send the content of a file
    #[arg(long, value_name = "PATH", conflicts_with = "body")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    labels: super::Labels,
    /// Send as alerts, which overtake waiting telemetry
    #[arg(long)]
    alert: bool,
    /// Give up what is not delivered in this time, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    place: Place,
    /// How long to wait for delivery after the last message was taken in
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::duration)]
    timeout: Duration,
    /// A line of JSON for each message, and one for the sum
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let place = arguments.place.folder(&arguments.device, &arguments.target);
    let options = as_device::options(&arguments.device, &arguments.target).await?;
    let options = match &place {
        Some(folder) => options.outbox_dir(folder),
        None => options.outbox_in_memory(),
    };
    let client = DeviceClient::open(options.close_deadline(Duration::ZERO)).await?;
    let before = client.account();
    let mut sender = Sender::new(&client, &arguments, before);
    let sent = sender.send_all(&arguments).await;
    let waited = match &sent {
        Ok(()) => sender.wait(arguments.timeout).await,
        Err(_) => Ok(()),
    };
    let after = client.account();
    client.close().await?;
    sender.finish().await?;
    sent?;
    waited?;
    conclude(&arguments, place, &since(before, after))
}

/// Sends, and shows how far it has got.
struct Sender<'a> {
    client: &'a DeviceClient,
    bar: ProgressBar,
    drawing: JoinHandle<()>,
    receipts: Option<(mpsc::Sender<Receipt>, JoinHandle<std::io::Result<()>>)>,
    patience: Duration,
}

impl<'a> Sender<'a> {
    fn new(client: &'a DeviceClient, arguments: &Arguments, before: Account) -> Self {
        let seen = std::io::stderr().is_terminal() && !arguments.json;
        let target = if seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let known = arguments.body.len() + arguments.file.len();
        let (bar, form) = match u64::try_from(known) {
            Ok(known) if known > 0 => {
                let form = "{bar:40} {pos}/{len} delivered {msg}";
                (ProgressBar::with_draw_target(Some(known + before.queued), target), form)
            }
            _ => (ProgressBar::with_draw_target(None, target), "{spinner} {pos} delivered {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        let drawing = tokio::spawn(draw(client.clone(), bar.clone(), before));
        let receipts = arguments.json.then(|| {
            let (receipts, following) = mpsc::channel(RECEIPTS);
            (receipts, tokio::spawn(follow(following)))
        });
        Self { client, bar, drawing, receipts, patience: arguments.timeout }
    }

    async fn send_all(&mut self, arguments: &Arguments) -> Result<()> {
        if !arguments.file.is_empty() {
            for path in &arguments.file {
                let body = super::read_file(path, D2C_LIMIT)?;
                self.send(vec![message(arguments, body)]).await?;
            }
        } else if arguments.body.is_empty() {
            self.send_lines(arguments).await?;
        } else {
            for bodies in arguments.body.chunks(BATCH) {
                self.send(bodies.iter().map(|body| message(arguments, body.clone().into_bytes())).collect())
                    .await?;
            }
        }
        Ok(())
    }

    async fn send_lines(&mut self, arguments: &Arguments) -> Result<()> {
        if std::io::stdin().is_terminal() {
            eprintln!("each line is an event; end with Ctrl-D");
        }
        let mut input = BufReader::with_capacity(64 * 1024, tokio::io::stdin());
        loop {
            let mut batch = Vec::new();
            while let Some(line) = read_line(&mut input).await? {
                batch.push(message(arguments, line));
                // What has arrived goes into one commit; never wait for more.
                if batch.len() == BATCH || !input.buffer().contains(&b'\n') {
                    break;
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.send(batch).await?;
        }
    }

    /// Takes a batch in; a full outbox is waited for.
    async fn send(&mut self, batch: Vec<Message>) -> Result<()> {
        let mut since_progress = Instant::now();
        let mut queued = self.client.account().queued;
        let taken = loop {
            match self.client.send_all(batch.iter().cloned()).await {
                Err(error) if error.kind() == ErrorKind::OutboxFull => {
                    self.refused()?;
                    let now = self.client.account().queued;
                    if now < queued {
                        since_progress = Instant::now();
                    }
                    queued = now;
                    if since_progress.elapsed() > self.patience {
                        return Err(Failure::undelivered(
                            "the outbox is full and nothing is being delivered",
                        )
                        .advice("what was taken in so far stays there; the rest of the input was not read"));
                    }
                    sleep(TICK).await;
                }
                taken => break taken?,
            }
        };
        if let Some((receipts, _)) = &self.receipts {
            for receipt in taken {
                if receipts.send(receipt).await.is_err() {
                    return Err(Failure::new("the output cannot be written"));
                }
            }
        }
        Ok(())
    }

    /// Waits until everything is settled, for at most `patience`. Credentials that are refused end it at once.
    async fn wait(&self, patience: Duration) -> Result<()> {
        let mut connection = self.client.connection();
        let refused = connection.wait_for(|state| matches!(state, ConnectionState::Unauthorized { .. }));
        tokio::select! {
            left = self.client.flush(patience) => left.map(|_| ()).map_err(Failure::from),
            Ok(_) = refused => self.refused(),
        }
    }

    fn refused(&self) -> Result<()> {
        match &*self.client.connection().borrow() {
            ConnectionState::Unauthorized { reason } => {
                Err(Failure::refused(format!("the hub refused the device: {reason}"))
                    .advice("is it enabled, and its key current? see: whimbrel device show"))
            }
            _ => Ok(()),
        }
    }

    /// Ends the bar, and prints what is left to print.
    async fn finish(self) -> Result<()> {
        self.drawing.abort();
        self.bar.finish_and_clear();
        if let Some((receipts, following)) = self.receipts {
            drop(receipts);
            following.await.map_err(|error| Failure::new("the output stopped").caused_by(error))??;
        }
        Ok(())
    }
}

async fn draw(client: DeviceClient, bar: ProgressBar, before: Account) {
    loop {
        let now = since(before, client.account());
        bar.set_position(now.delivered + now.expired + now.dropped + now.rejected);
        bar.set_message(match &*client.connection().borrow() {
            ConnectionState::Connected => format!("({} waiting)", now.queued),
            ConnectionState::Disconnected { reason: Some(reason) } => {
                format!("({} waiting; {reason})", now.queued)
            }
            _ => format!("({} waiting; not connected)", now.queued),
        });
        bar.tick();
        sleep(TICK).await;
    }
}

/// Prints how messages end, in the order they were sent.
async fn follow(mut receipts: mpsc::Receiver<Receipt>) -> std::io::Result<()> {
    while let Some(receipt) = receipts.recv().await {
        let mut line = match receipt.outcome().await {
            Ok(Outcome::Delivered { partition, sequence }) => {
                json!({ "outcome": "delivered", "partition": partition, "sequence": sequence })
            }
            Ok(Outcome::Expired) => json!({ "outcome": "expired" }),
            Ok(Outcome::Dropped { reason }) => {
                json!({ "outcome": "dropped", "reason": format!("{reason:?}") })
            }
            Ok(Outcome::Rejected { reason }) => json!({ "outcome": "rejected", "reason": reason }),
            Ok(_) | Err(_) => json!({ "outcome": null }),
        };
        if let Some(line) = line.as_object_mut() {
            line.insert("message_id".to_owned(), receipt.message_id().into());
        }
        output::json(&line)?;
    }
    Ok(())
}

/// What happened between two looks at the account.
fn since(before: Account, after: Account) -> Account {
    Account {
        accepted: after.accepted - before.accepted,
        delivered: after.delivered - before.delivered,
        expired: after.expired - before.expired,
        dropped: after.dropped - before.dropped,
        rejected: after.rejected - before.rejected,
        queued: after.queued,
    }
}

fn conclude(arguments: &Arguments, place: Option<PathBuf>, account: &Account) -> Result<ExitCode> {
    let Account { accepted, delivered, expired, dropped, rejected, queued } = *account;
    if arguments.json {
        output::json(&json!({ "summary": {
            "accepted": accepted, "delivered": delivered, "expired": expired,
            "dropped": dropped, "rejected": rejected, "queued": queued,
        }}))?;
    } else {
        let parts =
            [(delivered, "delivered"), (expired, "expired"), (dropped, "dropped"), (rejected, "rejected")];
        let parts = parts.iter().filter(|(count, name)| *count > 0 || *name == "delivered");
        let text: Vec<String> = parts.map(|(count, name)| format!("{count} {name}")).collect();
        eprintln!("{}", text.join(", "));
    }
    if queued + expired + dropped + rejected == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    if queued > 0 {
        match place {
            Some(folder) => eprintln!(
                "{queued} stay in the outbox {}; the next send as this device takes them along",
                folder.display()
            ),
            None => eprintln!("{queued} were not delivered and are lost with the memory they were in"),
        }
    }
    Ok(ExitCode::from(UNDELIVERED))
}

fn message(arguments: &Arguments, body: Vec<u8>) -> Message {
    let mut message = if arguments.alert { Message::alert(body) } else { Message::telemetry(body) };
    for (name, value) in &arguments.labels.property {
        message = message.property(name, value);
    }
    if let Some(content_type) = &arguments.labels.content_type {
        message = message.content_type(content_type);
    }
    if let Some(content_encoding) = &arguments.labels.content_encoding {
        message = message.content_encoding(content_encoding);
    }
    match arguments.ttl {
        Some(ttl) => message.expires_in(ttl),
        None => message,
    }
}

/// The next line without its end; `None` at the end of the input. Longer ones than a message may be are refused.
async fn read_line(input: &mut BufReader<tokio::io::Stdin>) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = input.take(D2C_LIMIT as u64 + 2).read_until(b'\n', &mut line).await;
    if read.map_err(|error| Failure::new("the input cannot be read").caused_by(error))? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    if line.len() > D2C_LIMIT {
        return Err(Failure::usage(format!(
            "a line of the input is longer than a message may be ({D2C_LIMIT} bytes)"
        )));
    }
    Ok(Some(line))
}
