//! The log of the core, for the sink a program set last.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::runtime::{Handle, Id};
use tracing::Level;
use whimbrel_bindings_support::{self as support, LogRecords, logs, running_runtime, set_log_level};

/// How serious a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "everybody knows them")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct LogRecord {
    /// How serious.
    pub level: LogLevel,
    /// Where in the code: `whimbrel.device`, and so on.
    pub target: String,
    /// What happened, with its fields.
    pub message: String,
    /// How many records were lost before this one, because nobody took them.
    pub lost: u64,
}

/// Takes lines of the log, one after the other, on a thread of the runtime. What it throws is forgotten.
#[uniffi::export(foreign)]
pub trait LogSink: Send + Sync {
    /// Takes a line.
    fn log(&self, record: LogRecord) -> Result<(), LogFailure>;
}

/// What a sink threw.
#[derive(Clone, Debug, uniffi::Error)]
pub enum LogFailure {
    /// Anything.
    Unexpected {
        /// Its text.
        reason: String,
    },
}

impl std::fmt::Display for LogFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Unexpected { reason } = self;
        f.write_str(reason)
    }
}

impl std::error::Error for LogFailure {}

impl From<uniffi::UnexpectedUniFFICallbackError> for LogFailure {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Unexpected { reason: error.reason }
    }
}

/// Sends the lines of the log to `sink` from now on, down to `level`; to nobody without one. Lines come while a client is open
/// and not suspended; those of other times wait, at most 1,024 of them.
#[uniffi::export]
pub fn set_log(level: Option<LogLevel>, sink: Option<Arc<dyn LogSink>>) {
    let level = level.filter(|_| sink.is_some());
    *SINK.lock().unwrap_or_else(PoisonError::into_inner) = sink;
    if level.is_some()
        && let Some(records) = logs()
    {
        // Given once in a process, so nobody was faster.
        let _ = RECORDS.set(tokio::sync::Mutex::new(records));
        if let Some(runtime) = running_runtime() {
            attend(&runtime);
        }
    }
    set_log_level(level.map(|level| match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    }));
}

/// Has the records told for as long as this runtime lasts. To be called for each that is started; twice is fine.
pub(crate) fn attend(runtime: &Handle) {
    let mut attended = ATTENDED.lock().unwrap_or_else(PoisonError::into_inner);
    if RECORDS.get().is_some() && attended.replace(runtime.id()) != Some(runtime.id()) {
        runtime.spawn(tell());
    }
}

/// One at a time: that of the next runtime waits until the one before has ended.
async fn tell() {
    let Some(records) = RECORDS.get() else { return };
    let mut records: tokio::sync::MutexGuard<'_, LogRecords> = records.lock().await;
    while let Some(record) = records.next().await {
        let sink = SINK.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sink) = sink {
            // A sink may take its time, and the runtime's threads have others to serve.
            let _ = tokio::task::spawn_blocking(move || sink.log(line(record))).await;
        }
    }
}

fn line(record: support::LogRecord) -> LogRecord {
    let support::LogRecord { level, target, message, lost } = record;
    let level = match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    };
    LogRecord { level, target: target.replace("::", "."), message, lost }
}

static SINK: Mutex<Option<Arc<dyn LogSink>>> = Mutex::new(None);
static RECORDS: OnceLock<tokio::sync::Mutex<LogRecords>> = OnceLock::new();
static ATTENDED: Mutex<Option<Id>> = Mutex::new(None);
