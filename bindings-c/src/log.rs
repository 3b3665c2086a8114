//! What the library has to say while it works.

use std::{
    ffi::{CString, c_char, c_void},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use tracing::Level;
use whimbrel::{Error, ErrorKind, Result};
use whimbrel_bindings_support::{LogRecord, logs, set_log_level};

use crate::{
    border::{boundary, invalid},
    callback::{Context, whimbrel_drop_fn},
    error::{self, whimbrel_status},
};

/// How much is told. Each level includes those before it.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_log_level {
    /// Nothing.
    WHIMBREL_LOG_OFF = 0,
    /// What went wrong.
    WHIMBREL_LOG_ERROR = 1,
    /// What may go wrong.
    WHIMBREL_LOG_WARN = 2,
    /// What happens seldom, such as connections.
    WHIMBREL_LOG_INFO = 3,
    /// What happens often.
    WHIMBREL_LOG_DEBUG = 4,
    /// What happens with each message.
    WHIMBREL_LOG_TRACE = 5,
}

/// One line of the log; lent to the callback.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct whimbrel_log_record {
    /// A whimbrel_log_level.
    pub level: i32,
    /// Where in the code, such as "whimbrel::device". UTF-8.
    pub target: *const c_char,
    /// What happened. Never holds a payload, a key or a token. UTF-8.
    pub message: *const c_char,
    /// How many lines were lost before this one, because the callback was too slow.
    pub lost: u64,
}

/// Is told a line of the log, on a thread that does nothing else. It may wait, and may call this library, but for
/// whimbrel_log_set().
///
/// context: as it was given. record: the line, lent until this returns. New members may come at its end.
pub type whimbrel_log_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, record: *const whimbrel_log_record)>;

/// Has what the library has to say told to a callback. This is the one thing that is the same for all devices of the process; without
/// it nothing is told. Given again, the new callback takes the place of the old one, which is not called any more when this
/// returns.
///
/// @param level A whimbrel_log_level: what is told. Lines of finer levels may be left out of the library (see its feature quiet).
/// @param callback Is told each line. NULL for WHIMBREL_LOG_OFF.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case: when the callback is replaced, or at once when this fails.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_INVALID_ARGUMENT; WHIMBREL_STATUS_UNSUPPORTED inside the callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_log_set(
    level: i32,
    callback: whimbrel_log_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(SET, || {
        let level = level_of(level)?;
        let sink = match (level, callback) {
            (None, _) => None,
            (Some(_), Some(call)) => Some(Sink { call, context }),
            (Some(_), None) => return Err(invalid(SET, "callback", "is NULL; WHIMBREL_LOG_OFF needs none")),
        };
        set(level, sink)
    })
}

struct Sink {
    call: unsafe extern "C" fn(*mut c_void, *const whimbrel_log_record),
    context: Context,
}

/// Who is told. Held while he is, so that he is not called any more once another one is set.
static LOG: Mutex<Option<Sink>> = Mutex::new(None);

const SET: &str = "log.set";

fn set(level: Option<Level>, sink: Option<Sink>) -> Result<()> {
    // Whoever holds the lock below while it calls back must not come here and wait for himself.
    if IS_TELLING.get() {
        return Err(Error::new(ErrorKind::Unsupported, SET, "the callback of the log may not set the log"));
    }
    let before = {
        let mut log = log();
        // Given once in each process.
        if sink.is_some()
            && let Some(records) = logs()
        {
            let started = thread::Builder::new().name("whimbrel-log".into()).spawn(move || {
                IS_TELLING.set(true);
                records.for_each(|record| tell(&record));
            });
            let failed = |error: std::io::Error| {
                Error::new(ErrorKind::Internal, SET, "the system gives no thread").caused_by(error)
            };
            started.map_err(failed)?;
        }
        set_log_level(level);
        std::mem::replace(&mut *log, sink)
    };
    drop(before);
    Ok(())
}

fn tell(record: &LogRecord) {
    let (target, message): (CString, CString) = (error::text(&record.target), error::text(&record.message));
    let told = whimbrel_log_record {
        level: rank(record.level),
        target: target.as_ptr(),
        message: message.as_ptr(),
        lost: record.lost,
    };
    if let Some(Sink { call, context }) = &*log() {
        // SAFETY: a function of the program, with what it was promised.
        unsafe { call(context.pointer(), &raw const told) }
    }
}

fn log() -> MutexGuard<'static, Option<Sink>> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn level_of(level: i32) -> Result<Option<Level>> {
    let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    if level == 0 {
        return Ok(None);
    }
    let known = usize::try_from(level).ok().and_then(|level| levels.get(level.checked_sub(1)?)).copied();
    known.map(Some).ok_or_else(|| invalid(SET, "level", "is no whimbrel_log_level").with("given", level))
}

fn rank(level: Level) -> i32 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

thread_local! {
    static IS_TELLING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}
