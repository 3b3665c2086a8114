//! The log of the core, for the function a program set last.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
};

use napi::bindgen_prelude::Utf16String;
use napi_derive::napi;
use serde_json::json;
use tracing::Level;
use whimbrel::{Error, ErrorKind};
use whimbrel_bindings_support::{LogRecord, logs, set_log_level};

use crate::{
    convert::{boundary, invalid, text},
    environment::{Completion, Environment, Home},
};

/// Who gets the log. An environment that has ended gets nothing.
static READER: Mutex<Weak<Home>> = Mutex::new(Weak::new());

#[napi]
impl Environment {
    /// Sends the lines of the log here from now on, down to `level`; to nobody without one.
    #[napi(catch_unwind)]
    pub fn set_log(&self, level: Option<Utf16String>) -> napi::Result<()> {
        const SET: &str = "setLog";
        boundary(SET, || {
            let level = match level {
                None => None,
                Some(word) => Some(match text(SET, "level", &word)?.as_str() {
                    "error" => Level::ERROR,
                    "warn" => Level::WARN,
                    "info" => Level::INFO,
                    "debug" => Level::DEBUG,
                    "trace" => Level::TRACE,
                    _ => return Err(invalid(SET, "a level is error, warn, info, debug or trace")),
                }),
            };
            *READER.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(self.home());
            if level.is_some()
                && let Some(records) = logs()
            {
                let forward = move || records.into_iter().for_each(forward);
                thread::Builder::new().name("whimbrel-log".into()).spawn(forward).map_err(|error| {
                    Error::new(ErrorKind::Internal, SET, "the system gives no threads").caused_by(error)
                })?;
            }
            set_log_level(level);
            Ok(())
        })
    }
}

fn forward(record: LogRecord) {
    let reader = READER.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
    if let Some(home) = reader {
        home.push([Completion::Log(record)]);
    }
}

/// A line as the shell takes it.
pub(crate) fn line(record: &LogRecord) -> String {
    let LogRecord { level, target, message, lost } = record;
    let level = level.as_str().to_ascii_lowercase();
    json!({"level": level, "target": target.replace("::", "."), "message": message, "lost": lost}).to_string()
}
