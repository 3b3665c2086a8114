//! The journal beside bare synced writes of the same payload to a prepared file, round by round in turn.

use std::{
    error::Error,
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use whimbrel::journal::{Journal, JournalOptions, Kind, Read, RealDisk, Record, Urgency};

/// What to measure.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Where the files go: the disk that is measured. Default: the folder for temporary files.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Bytes of a record.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Rounds, of which the medians are shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Records waiting when a journal is opened.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { folder: None, bytes: 256, rounds: 5, backlog: 1_000_000, json: false }
    }
}

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Records of one commit, or callers that wait each for its own record.
#[derive(Clone, Copy)]
enum Shape {
    Commit(usize),
    Callers(usize),
}

impl Shape {
    fn name(self) -> String {
        match self {
            Self::Commit(records) => format!("{records} per commit"),
            Self::Callers(callers) => format!("{callers} callers"),
        }
    }

    /// Records that a bare loop writes at once.
    fn group(self) -> usize {
        match self {
            Self::Commit(count) | Self::Callers(count) => count,
        }
    }
}

pub(crate) fn run(options: &Options, quick: bool) -> Outcome {
    let folder = match &options.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let time = Duration::from_millis(if quick { 50 } else { 400 });
    let shapes = [Shape::Commit(1), Shape::Commit(64), Shape::Commit(512), Shape::Callers(64)];
    let mut figures: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); shapes.len()];
    for round in 0..options.rounds {
        for (shape, (ours, bare)) in shapes.iter().zip(&mut figures) {
            let path = folder.path().join(format!("journal-{round}-{}", shape.name()));
            ours.push(match *shape {
                Shape::Commit(records) => commits(&path, options.bytes, records, time)?,
                Shape::Callers(callers) => waiting(&path, options.bytes, callers, time)?,
            });
            std::fs::remove_dir_all(path)?;
            bare.push(bare_writes(folder.path(), options.bytes, shape.group(), time)?);
        }
    }
    let backlog = if quick { options.backlog / 20 } else { options.backlog };
    let opening = opening(&folder.path().join("backlog"), options.bytes, backlog)?;
    let rows: Vec<_> = shapes
        .iter()
        .zip(&figures)
        .map(|(shape, (ours, bare))| (shape.name(), median(ours), median(bare)))
        .collect();
    if options.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, ours, bare)| json!({ "shape": name, "journal": ours, "bare": bare, "ratio": ours / bare }))
            .collect();
        let (first, walk) = opening;
        let report = json!({
            "bytes": options.bytes, "append": rows,
            "opening": { "backlog": backlog, "first_record_ms": first, "walk_ms": walk },
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("durable append, {} B records, records/s, median of {} rounds", options.bytes, options.rounds);
    println!("bare: the payload alone, one write and one fdatasync for each group, on a file made of zeros");
    println!("{:<16}{:>14}{:>14}{:>8}", "", "journal", "bare", "ratio");
    for (name, ours, bare) in rows {
        println!("{name:<16}{ours:>14.0}{bare:>14.0}{:>8.2}", ours / bare);
    }
    let (first, walk) = opening;
    println!("opening with {backlog} records waiting: {first:.1} ms to the first, {walk:.0} ms to read all");
    Ok(())
}

/// Commits of `records` records, one after the other, from one thread.
fn commits(path: &Path, bytes: usize, records: usize, time: Duration) -> Outcome<f64> {
    let (journal, _) = Journal::open(Arc::new(RealDisk::create(path)?), JournalOptions::default())?;
    let payload = vec![0x5a; bytes];
    let parts = [payload.as_slice()];
    let batch = vec![Record { kind: Kind::Data, parts: &parts }; records];
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < time {
        let appended = journal.append(&batch, Urgency::Lazy, &mut |_| {})?;
        journal.wait_durable(appended.ticket)?;
        done += records;
    }
    let rate = done as f64 / start.elapsed().as_secs_f64();
    journal.close()?;
    Ok(rate)
}

/// Tasks of which each waits for its one record before it appends the next.
fn waiting(path: &Path, bytes: usize, callers: usize, time: Duration) -> Outcome<f64> {
    let (journal, _) = Journal::open(Arc::new(RealDisk::create(path)?), JournalOptions::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let start = Instant::now();
    let done = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..callers {
            let journal = journal.clone();
            tasks.spawn(async move {
                let payload = vec![0x5a; bytes];
                let mut done = 0;
                while start.elapsed() < time {
                    let appended = {
                        let record = Record { kind: Kind::Data, parts: &[&payload] };
                        journal.append(&[record], Urgency::Now, &mut |_| {})?
                    };
                    journal.durable(appended.ticket).await?;
                    done += 1;
                }
                Ok::<u64, whimbrel::Error>(done)
            });
        }
        let mut done = 0;
        while let Some(task) = tasks.join_next().await {
            done += task??;
        }
        Ok::<u64, Box<dyn Error>>(done)
    })?;
    let rate = done as f64 / start.elapsed().as_secs_f64();
    journal.close()?;
    Ok(rate)
}

/// The limit: payload without framing, no checksums, a file that is there already.
pub(crate) fn bare_writes(folder: &Path, bytes: usize, group: usize, time: Duration) -> Outcome<f64> {
    const FILE: u64 = 64 * 1024 * 1024;
    let path = folder.join("bare");
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
    let zeros = vec![0; 1024 * 1024];
    for offset in (0..FILE).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    let data = vec![0x5a; bytes * group];
    let start = Instant::now();
    let (mut offset, mut done) = (0, 0);
    while start.elapsed() < time {
        if offset + data.len() as u64 > FILE {
            offset = 0;
        }
        file.write_all_at(&data, offset)?;
        file.sync_data()?;
        offset += data.len() as u64;
        done += group;
    }
    let rate = done as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Milliseconds until the first record, and until all were read and checked, of a journal with a backlog. The system
/// still has the files in memory.
fn opening(path: &Path, bytes: usize, backlog: u64) -> Outcome<(f64, f64)> {
    let disk = Arc::new(RealDisk::create(path)?);
    let (journal, _) = Journal::open(disk.clone(), JournalOptions::default())?;
    let payload = vec![0x5a; bytes];
    for number in 1..=backlog {
        let record = Record { kind: Kind::Data, parts: &[&payload] };
        let appended = journal.append(&[record], Urgency::Lazy, &mut |_| {})?;
        if number % 512 == 0 {
            journal.wait_durable(appended.ticket)?;
        }
    }
    journal.close()?;
    drop(journal);
    let start = Instant::now();
    let (journal, _) = Journal::open(disk, JournalOptions::default())?;
    let mut reader = journal.reader(1);
    let mut read = u64::from(matches!(reader.next()?, Some(Read::Record(1, _))));
    let first = start.elapsed();
    let start = Instant::now();
    while let Some(Read::Record(..)) = reader.next()? {
        read += 1;
    }
    let walk = start.elapsed();
    if read != backlog {
        return Err(format!("{read} records of {backlog} were read back").into());
    }
    Ok((first.as_secs_f64() * 1e3, walk.as_secs_f64() * 1e3))
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
