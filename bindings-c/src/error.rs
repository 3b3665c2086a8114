//! Status codes, and what more there is to an error.

use std::{cell::RefCell, ffi::CString, ffi::c_char, ptr};

use whimbrel::{Error, ErrorKind, Retry};

use crate::border;

/// What a call gives: WHIMBREL_STATUS_OK, or the number of what went wrong. The numbers are the same in every language, are never
/// used for anything else, and are explained in docs/errors.md. New ones may come with a new version: treat one that you do not
/// know by its whimbrel_error_retry().
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_status {
    /// It went well.
    WHIMBREL_STATUS_OK = 0,
    /// An option or argument cannot be used; the text says which and why.
    WHIMBREL_STATUS_INVALID_ARGUMENT = 101,
    /// The message is over the size limit of its direction.
    WHIMBREL_STATUS_PAYLOAD_TOO_LARGE = 102,
    /// The protocol or build in use cannot do this.
    WHIMBREL_STATUS_UNSUPPORTED = 103,
    /// The client was closed before the call.
    WHIMBREL_STATUS_CLOSED = 201,
    /// Another process, or another client of this one, has this directory open.
    WHIMBREL_STATUS_IN_USE = 202,
    /// The caller stopped waiting.
    WHIMBREL_STATUS_CANCELLED = 203,
    /// The outbox is at its bound and its overflow policy is to refuse.
    WHIMBREL_STATUS_OUTBOX_FULL = 301,
    /// The time to live ended first.
    WHIMBREL_STATUS_EXPIRED = 302,
    /// The other side refused this for good.
    WHIMBREL_STATUS_REJECTED = 303,
    /// It exists already, was settled already, or changed meanwhile.
    WHIMBREL_STATUS_CONFLICT = 304,
    /// The deadline passed; the message is still kept and delivery goes on.
    WHIMBREL_STATUS_TIMEOUT = 305,
    /// There is no such device, message or partition.
    WHIMBREL_STATUS_NOT_FOUND = 306,
    /// The device's queue of commands is at its bound; wait until some are settled, or purge it.
    WHIMBREL_STATUS_QUEUE_FULL = 307,
    /// The lock on the command has ended; the hub delivers it again, or has ended it.
    WHIMBREL_STATUS_LOCK_LOST = 308,
    /// The credentials are wrong, expired, or do not allow this.
    WHIMBREL_STATUS_UNAUTHORIZED = 401,
    /// The other side could not be reached, or the connection was lost.
    WHIMBREL_STATUS_UNREACHABLE = 402,
    /// The other side broke the protocol; the text names the rule.
    WHIMBREL_STATUS_PROTOCOL = 403,
    /// The other side asked to slow down.
    WHIMBREL_STATUS_THROTTLED = 404,
    /// The disk refused a write or a sync; nothing more is accepted until the journal is opened again.
    WHIMBREL_STATUS_JOURNAL_IO = 501,
    /// The journal cannot be read at all; single damaged records never cause this.
    WHIMBREL_STATUS_JOURNAL_CORRUPT = 502,
    /// The journal was written by a newer version.
    WHIMBREL_STATUS_JOURNAL_VERSION = 503,
    /// There is no space left on the disk; nothing was stored, and it works again when space returns.
    WHIMBREL_STATUS_DISK_FULL = 504,
    /// A defect in Whimbrel; please report it with the text.
    WHIMBREL_STATUS_INTERNAL = 901,
}

/// Whether repeating the same call can help.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_retry {
    /// The same call fails again.
    WHIMBREL_RETRY_NEVER = 0,
    /// The same call may succeed later.
    WHIMBREL_RETRY_LATER = 1,
    /// Wait again: the operation itself is still going on.
    WHIMBREL_RETRY_WAIT_AGAIN = 2,
    /// After closing and opening the device again.
    WHIMBREL_RETRY_AFTER_REOPEN = 3,
    /// The caller decided to stop; the caller decides whether to start again.
    WHIMBREL_RETRY_CALLERS_CHOICE = 4,
}

/// What went wrong. Never made or freed by a program: whimbrel_last_error() and callbacks lend it.
pub struct whimbrel_error {
    status: whimbrel_status,
    retry: whimbrel_retry,
    retry_after_ms: i64,
    kind: CString,
    message: CString,
    operation: CString,
    details: Vec<(CString, CString)>,
}

impl whimbrel_error {
    pub(crate) fn new(error: &Error) -> Self {
        let status = whimbrel_status::of(error.kind());
        let wait = error.wait_hint().map(|wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        Self {
            status,
            retry: whimbrel_retry::of(error.kind().retry()),
            retry_after_ms: wait.unwrap_or(-1),
            kind: text(error.kind().name()),
            message: text(&error.to_string()),
            operation: text(error.operation()),
            details: error.details().iter().map(|(name, value)| (text(name), text(value))).collect(),
        }
    }
}

impl whimbrel_status {
    pub(crate) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument => Self::WHIMBREL_STATUS_INVALID_ARGUMENT,
            ErrorKind::PayloadTooLarge => Self::WHIMBREL_STATUS_PAYLOAD_TOO_LARGE,
            ErrorKind::Unsupported => Self::WHIMBREL_STATUS_UNSUPPORTED,
            ErrorKind::Closed => Self::WHIMBREL_STATUS_CLOSED,
            ErrorKind::InUse => Self::WHIMBREL_STATUS_IN_USE,
            ErrorKind::Cancelled => Self::WHIMBREL_STATUS_CANCELLED,
            ErrorKind::OutboxFull => Self::WHIMBREL_STATUS_OUTBOX_FULL,
            ErrorKind::Expired => Self::WHIMBREL_STATUS_EXPIRED,
            ErrorKind::Rejected => Self::WHIMBREL_STATUS_REJECTED,
            ErrorKind::Conflict => Self::WHIMBREL_STATUS_CONFLICT,
            ErrorKind::Timeout => Self::WHIMBREL_STATUS_TIMEOUT,
            ErrorKind::NotFound => Self::WHIMBREL_STATUS_NOT_FOUND,
            ErrorKind::QueueFull => Self::WHIMBREL_STATUS_QUEUE_FULL,
            ErrorKind::LockLost => Self::WHIMBREL_STATUS_LOCK_LOST,
            ErrorKind::Unauthorized => Self::WHIMBREL_STATUS_UNAUTHORIZED,
            ErrorKind::Unreachable => Self::WHIMBREL_STATUS_UNREACHABLE,
            ErrorKind::Protocol => Self::WHIMBREL_STATUS_PROTOCOL,
            ErrorKind::Throttled => Self::WHIMBREL_STATUS_THROTTLED,
            ErrorKind::JournalIo => Self::WHIMBREL_STATUS_JOURNAL_IO,
            ErrorKind::JournalCorrupt => Self::WHIMBREL_STATUS_JOURNAL_CORRUPT,
            ErrorKind::JournalVersion => Self::WHIMBREL_STATUS_JOURNAL_VERSION,
            ErrorKind::DiskFull => Self::WHIMBREL_STATUS_DISK_FULL,
            // `Internal`, and a kind that the test of the table finds to be missing here.
            _ => Self::WHIMBREL_STATUS_INTERNAL,
        }
    }
}

impl whimbrel_retry {
    fn of(retry: Retry) -> Self {
        match retry {
            Retry::Never => Self::WHIMBREL_RETRY_NEVER,
            Retry::Later => Self::WHIMBREL_RETRY_LATER,
            Retry::WaitAgain => Self::WHIMBREL_RETRY_WAIT_AGAIN,
            Retry::AfterReopen => Self::WHIMBREL_RETRY_AFTER_REOPEN,
            Retry::CallersChoice => Self::WHIMBREL_RETRY_CALLERS_CHOICE,
        }
    }
}

/// What went wrong in the last call of this thread; NULL when it succeeded, or there was none. Functions that return no status
/// (those that get or free something) are not calls in this sense.
///
/// @return Lent, and valid until the next call of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn whimbrel_last_error() -> *const whimbrel_error {
    let last = LAST.try_with(|last| last.borrow().as_deref().map_or(ptr::null(), ptr::from_ref));
    last.unwrap_or(ptr::null())
}

/// The status code. WHIMBREL_STATUS_OK for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_error_status(error: *const whimbrel_error) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe { border::get(error, whimbrel_status::WHIMBREL_STATUS_OK, |error| Some(error.status)) }
}

/// The stable name of the status, such as "OUTBOX_FULL". NULL for NULL.
///
/// @return Lent, and valid as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_error_kind(error: *const whimbrel_error) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe { border::get(error, ptr::null(), |error| Some(error.kind.as_ptr())) }
}

/// What was wrong and, where there is one, what to do: one line for people, complete with details and causes. Never holds a
/// payload, a key or a token. NULL for NULL.
///
/// @return Lent, and valid as long as the error. UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_error_message(error: *const whimbrel_error) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe { border::get(error, ptr::null(), |error| Some(error.message.as_ptr())) }
}

/// The call that failed, by its name in all languages, such as "device.send". NULL for NULL.
///
/// @return Lent, and valid as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_error_operation(error: *const whimbrel_error) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe { border::get(error, ptr::null(), |error| Some(error.operation.as_ptr())) }
}

/// Whether repeating the same call can help. WHIMBREL_RETRY_NEVER for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_error_retry(error: *const whimbrel_error) -> whimbrel_retry {
    // SAFETY: promised by the program.
    unsafe { border::get(error, whimbrel_retry::WHIMBREL_RETRY_NEVER, |error| Some(error.retry)) }
}

/// How long the other side asked to wait, in milliseconds; -1 when it did not, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_error_retry_after_ms(error: *const whimbrel_error) -> i64 {
    // SAFETY: promised by the program.
    unsafe { border::get(error, -1, |error| Some(error.retry_after_ms)) }
}

/// How many named details there are. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_error_detail_count(error: *const whimbrel_error) -> usize {
    // SAFETY: promised by the program.
    unsafe { border::get(error, 0, |error| Some(error.details.len())) }
}

/// The name of a detail, such as "limit". NULL when there are not so many, and for NULL.
///
/// @param error The error.
/// @param index Which, from 0 on.
/// @return Lent, and valid as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_error_detail_name(
    error: *const whimbrel_error,
    index: usize,
) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe {
        border::get(error, ptr::null(), |error| error.details.get(index).map(|(name, _)| name.as_ptr()))
    }
}

/// The value of a detail, as text. NULL when there are not so many, and for NULL.
///
/// @param error The error.
/// @param index Which, from 0 on.
/// @return Lent, and valid as long as the error. UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_error_detail_value(
    error: *const whimbrel_error,
    index: usize,
) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe {
        border::get(error, ptr::null(), |error| error.details.get(index).map(|(_, value)| value.as_ptr()))
    }
}

/// Keeps what this thread's last call failed with.
pub(crate) fn keep(error: Error) -> whimbrel_status {
    let error = Box::new(whimbrel_error::new(&error));
    let status = error.status;
    // At the very end of a thread there is no place for it any more.
    let _ = LAST.try_with(|last| last.replace(Some(error)));
    status
}

/// A call begins: the last one's error is over.
pub(crate) fn forget() {
    let _ = LAST.try_with(|last| {
        let mut last = last.borrow_mut();
        if last.is_some() {
            *last = None;
        }
    });
}

/// A text for C. What follows a NUL is left out: C would not see it either.
pub(crate) fn text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(text.get(..end).unwrap_or_default()).unwrap_or_default()
}

thread_local! {
    static LAST: RefCell<Option<Box<whimbrel_error>>> = const { RefCell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_row_of_the_table_has_its_number() {
        for kind in ErrorKind::ALL {
            assert_eq!(whimbrel_status::of(*kind) as i32, i32::from(kind.code()), "{}", kind.name());
            let header = include_str!("../include/whimbrel.h");
            let row = format!("WHIMBREL_STATUS_{} = {},", kind.name(), kind.code());
            assert!(header.contains(&row), "the header has no {row}");
        }
    }

    #[test]
    fn an_error_tells_all_it_has() {
        let error = Error::new(ErrorKind::Throttled, "device.send", "slow\0down")
            .with("limit", 3)
            .retry_after(Duration::from_secs(2));
        let seen = whimbrel_error::new(&error);
        assert_eq!(seen.message.to_str().unwrap(), "device.send: slow", "C ends at a NUL");
        assert_eq!((seen.retry, seen.retry_after_ms), (whimbrel_retry::WHIMBREL_RETRY_LATER, 2_000));
        assert_eq!(seen.details, [(text("limit"), text("3"))]);
    }
}
