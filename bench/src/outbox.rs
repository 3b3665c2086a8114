//! Durable appends through the outbox beside the bare journal, and reading with settling, on the same disk, taking turns.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use clap::Args;
use whimbrel::{
    Lane, Message, Outcome,
    journal::{Journal, JournalOptions, Kind, RealDisk, Record, Urgency},
    outbox::{Outbox, OutboxOptions, Storage},
};

/// Options of `outbox`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Bytes of a message's body.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Runs of each subject, taking turns; the best one counts, as other load on the machine only slows down.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder on the disk to measure; what is made in it is removed again.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { bytes: 256, rounds: 5, dir: ".".into() }
    }
}

/// A way of appending: messages per commit, callers at a time, and messages in all.
struct Shape {
    name: &'static str,
    batch: usize,
    callers: usize,
    messages: usize,
}

const SHAPES: [Shape; 4] = [
    Shape { name: "1 per commit", batch: 1, callers: 1, messages: 4_000 },
    Shape { name: "64 per commit", batch: 64, callers: 1, messages: 100_000 },
    Shape { name: "512 per commit", batch: 512, callers: 1, messages: 400_000 },
    Shape { name: "64 callers of one", batch: 1, callers: 64, messages: 100_000 },
];

/// Measures and prints a table.
pub(crate) fn run(options: &Options, quick: bool) -> Result<(), Box<dyn Error>> {
    let (rounds, share) = if quick { (1, 10) } else { (options.rounds.max(1), 1) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("Durable appends of {} bytes, messages a second, best of {rounds}", options.bytes);
    println!(
        "{:<20} {:>12} {:>12} {:>7} {:>14} {:>14}",
        "", "journal", "outbox", "ratio", "read + settle", "bytes/byte"
    );
    for shape in SHAPES {
        let messages = shape.messages / share;
        let (mut journal, mut outbox, mut settled, mut written) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0);
        for _ in 0..rounds {
            let folder = tempfile::tempdir_in(&options.dir)?;
            journal = journal.max(runtime.block_on(append_to_journal(
                folder.path(),
                &shape,
                messages,
                options.bytes,
            ))?);
            let folder = tempfile::tempdir_in(&options.dir)?;
            let run = runtime.block_on(send_to_outbox(folder.path(), &shape, messages, options.bytes))?;
            (outbox, settled, written) = (outbox.max(run.sent), settled.max(run.settled), run.written);
        }
        let ratio = outbox / journal;
        println!(
            "{:<20} {journal:>12.0} {outbox:>12.0} {ratio:>7.2} {settled:>14.0} {written:>14.2}",
            shape.name
        );
    }
    Ok(())
}

async fn append_to_journal(
    folder: &Path,
    shape: &Shape,
    messages: usize,
    bytes: usize,
) -> Result<f64, Box<dyn Error>> {
    let (journal, _) = Journal::open(
        Arc::new(RealDisk::create(folder)?),
        JournalOptions { segment_bytes: 8 << 20, spare_segments: 1, sync_interval: None },
    )?;
    // As long as the record of such a message.
    let payload = vec![7_u8; bytes + 20];
    let each = messages / shape.callers / shape.batch;
    let (batch, start) = (shape.batch, Instant::now());
    let callers = (0..shape.callers).map(|_| {
        let (journal, payload) = (journal.clone(), payload.clone());
        async move {
            let parts = [payload.as_slice()];
            let records = vec![Record { kind: Kind::Data, parts: &parts }; batch];
            for _ in 0..each {
                let appended = journal.append(&records, Urgency::Now, &mut |_| ())?;
                journal.durable(appended.ticket).await?;
            }
            whimbrel::Result::Ok(())
        }
    });
    together(callers).await?;
    let rate = (each * shape.callers * batch) as f64 / start.elapsed().as_secs_f64();
    journal.close()?;
    Ok(rate)
}

struct Run {
    /// Messages sent a second.
    sent: f64,
    /// Messages read and settled a second.
    settled: f64,
    /// Bytes to the disk for each byte of the bodies, while sending.
    written: f64,
}

async fn send_to_outbox(
    folder: &Path,
    shape: &Shape,
    messages: usize,
    bytes: usize,
) -> Result<Run, Box<dyn Error>> {
    let outbox = Outbox::open(&Storage::Directory(folder.into()), OutboxOptions::default())?;
    let each = messages / shape.callers / shape.batch;
    let body = bytes::Bytes::from(vec![7_u8; bytes]);
    let (batch, start) = (shape.batch, Instant::now());
    let callers = (0..shape.callers).map(|_| {
        let (outbox, body) = (outbox.clone(), body.clone());
        async move {
            for _ in 0..each {
                if batch == 1 {
                    outbox.send(Message::telemetry(body.clone())).await?;
                } else {
                    let messages = (0..batch).map(|_| Message::telemetry(body.clone()));
                    outbox.send_all(messages.collect()).await?;
                }
            }
            whimbrel::Result::Ok(())
        }
    });
    together(callers).await?;
    let count = each * shape.callers * batch;
    let sent = count as f64 / start.elapsed().as_secs_f64();
    let written = outbox.counters().written_bytes as f64 / (count * bytes) as f64;

    let (start, mut at, mut out) = (Instant::now(), 0, Vec::new());
    while outbox.account().queued > 0 {
        at = outbox.read(Lane::Telemetry, at, 512, &mut out)?;
        let delivered = |sequence| Outcome::Delivered { partition: Some(1), sequence: Some(sequence) };
        let ends = out.drain(..).map(|queued| (queued.lane, queued.sequence, delivered(queued.sequence)));
        outbox.settle(ends.collect())?;
    }
    let settled = count as f64 / start.elapsed().as_secs_f64();
    outbox.close()?;
    Ok(Run { sent, settled, written })
}

/// Runs all of them in one task, as a device program would.
async fn together(
    callers: impl Iterator<Item = impl Future<Output = whimbrel::Result<()>> + Send + 'static>,
) -> Result<(), Box<dyn Error>> {
    let mut tasks = tokio::task::JoinSet::new();
    callers.for_each(|caller| drop(tasks.spawn(caller)));
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
