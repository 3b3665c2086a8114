//! The log of the core, for the logging of another language.

use std::{
    fmt::Write,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};
use tracing::{Event, Level, Metadata, Subscriber, field, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

use crate::runtime::generation;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// How serious.
    pub level: Level,
    /// Where in the code: `whimbrel::device`, and so on.
    pub target: String,
    /// What happened, with its fields: `the hub sends no commands (error: …)`.
    pub message: String,
    /// How many records were lost before this one, because nobody took them.
    pub lost: u64,
}

/// The records of this process; see [`logs`]. A thread of its own iterates over them, a task awaits [`LogRecords::next`].
#[derive(Debug)]
pub struct LogRecords(Receiver<LogRecord>);

impl LogRecords {
    /// The next record. Dropping the future loses none.
    pub async fn next(&mut self) -> Option<LogRecord> {
        self.0.recv().await
    }
}

impl Iterator for LogRecords {
    type Item = LogRecord;

    /// Waits for the next record, on a thread outside a runtime.
    fn next(&mut self) -> Option<LogRecord> {
        self.0.blocking_recv()
    }
}

/// The records from now on, at most `INFO` until [`set_log_level`] says otherwise. Given once in a process, and once more
/// behind a fork, where whoever took them is gone; `None` otherwise, and when the program has a subscriber for `tracing` of
/// its own.
pub fn logs() -> Option<LogRecords> {
    let (sender, records) = mpsc::channel(WAITING);
    let sink = Sink { generation: generation(), sender, lost: AtomicU64::new(0), next: OnceLock::new() };
    let Some(first) = FIRST.get() else {
        FIRST.set(sink).ok()?;
        tracing_subscriber::registry().with(Forward).try_init().ok()?;
        return Some(LogRecords(records));
    };
    let last = first.last();
    if last.generation == sink.generation {
        return None;
    }
    last.next.set(Box::new(sink)).ok()?;
    Some(LogRecords(records))
}

/// What is recorded from now on; `None` for nothing.
pub fn set_log_level(level: Option<Level>) {
    LEVEL.store(rank(level), Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

struct Forward;

/// Where the records of one process go. A list that only grows, without a lock that a fork might find taken.
struct Sink {
    generation: u64,
    sender: Sender<LogRecord>,
    lost: AtomicU64,
    next: OnceLock<Box<Sink>>,
}

impl Sink {
    fn last(&self) -> &Self {
        let mut last = self;
        while let Some(next) = last.next.get() {
            last = next;
        }
        last
    }
}

impl<S: Subscriber> Layer<S> for Forward {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level().map_or(LevelFilter::OFF, LevelFilter::from_level))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Behind a fork nobody takes them until they are given again.
        let Some(sink) = FIRST.get().map(Sink::last).filter(|sink| sink.generation == generation()) else {
            return;
        };
        let mut text = Text::default();
        event.record(&mut text);
        let record = LogRecord {
            level: *event.metadata().level(),
            target: event.metadata().target().to_owned(),
            message: text.finish(),
            lost: sink.lost.swap(0, Ordering::Relaxed),
        };
        // Never waits: whoever logs may hold a lock, or be the one who should take records.
        if let Err(TrySendError::Full(record)) = sink.sender.try_send(record) {
            sink.lost.fetch_add(record.lost + 1, Ordering::Relaxed);
        }
    }
}

/// Only what is ours: the libraries below say too much.
fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().starts_with("whimbrel");
    ours && metadata.is_event() && level().is_some_and(|level| *metadata.level() <= level)
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        match self.fields.is_empty() {
            true => self.message,
            false => format!("{} ({})", self.message, self.fields),
        }
    }
}

impl field::Visit for Text {
    fn record_debug(&mut self, field: &field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            let lead = if self.fields.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(self.fields, "{lead}{}: {value:?}", field.name());
        }
    }
}

const fn rank(level: Option<Level>) -> u8 {
    match level {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}

fn level() -> Option<Level> {
    match LEVEL.load(Ordering::Relaxed) {
        0 => None,
        1 => Some(Level::ERROR),
        2 => Some(Level::WARN),
        3 => Some(Level::INFO),
        4 => Some(Level::DEBUG),
        _ => Some(Level::TRACE),
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(rank(Some(Level::INFO)));
static FIRST: OnceLock<Sink> = OnceLock::new();
/// Records that wait to be taken, at most.
const WAITING: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_with_their_fields_at_the_level_asked_for() {
        let _alone = crate::runtime::FORKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut records = logs().unwrap();
        assert!(logs().is_none(), "they are given once");
        tracing::info!(target: "whimbrel::a", count = 2, name = "x", "something happened");
        tracing::debug!(target: "whimbrel::a", "too fine");
        tracing::info!(target: "other", "not ours");
        set_log_level(Some(Level::DEBUG));
        tracing::debug!(target: "whimbrel::b", "fine");
        set_log_level(None);
        tracing::error!(target: "whimbrel::b", "nothing is wanted");
        set_log_level(Some(Level::ERROR));
        for _ in 0..WAITING + 10 {
            tracing::error!(target: "whimbrel::b", "many");
        }
        let first = Iterator::next(&mut records).unwrap();
        assert_eq!((first.level, first.target.as_str()), (Level::INFO, "whimbrel::a"));
        assert_eq!(first.message, "something happened (count: 2, name: \"x\")");
        assert_eq!(Iterator::next(&mut records).unwrap().message, "fine");
        while records.0.try_recv().is_ok() {}
        tracing::error!(target: "whimbrel::b", "one more");
        assert_eq!(Iterator::next(&mut records).unwrap().lost, 12);
        crate::after_fork();
        tracing::error!(target: "whimbrel::b", "for nobody");
        let mut behind = logs().unwrap();
        assert!(logs().is_none(), "once in each process");
        tracing::error!(target: "whimbrel::b", "in the child");
        assert_eq!(Iterator::next(&mut behind).unwrap().message, "in the child");
        assert!(records.0.try_recv().is_err());
    }
}
