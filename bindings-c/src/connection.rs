//! What the link to the hub is doing.

use std::{ffi::CString, ffi::c_char, ptr};

use whimbrel::ConnectionState;
use whimbrel_bindings_support::{Bound, ConnectionStates};

use crate::{
    border,
    call::{self, Patience},
    cancel::whimbrel_cancel_token,
    error::{self, whimbrel_status},
    stream::Stream,
};

/// What the link to the hub is doing.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_connection_state {
    /// A state that this version does not know.
    WHIMBREL_CONNECTION_UNKNOWN = 0,
    /// Not connected; the next try is scheduled.
    WHIMBREL_CONNECTION_DISCONNECTED = 1,
    /// Trying.
    WHIMBREL_CONNECTION_CONNECTING = 2,
    /// Connected.
    WHIMBREL_CONNECTION_CONNECTED = 3,
    /// The hub refused the credentials; tries go on slowly.
    WHIMBREL_CONNECTION_UNAUTHORIZED = 4,
    /// Closed by the program.
    WHIMBREL_CONNECTION_CLOSED = 5,
    /// Suspended by the program.
    WHIMBREL_CONNECTION_SUSPENDED = 6,
}

/// A state of the link, and why; as it was when it was asked for.
pub struct whimbrel_connection {
    state: whimbrel_connection_state,
    reason: Option<CString>,
}

/// The changes of the link, the present state first. Each holder sees all that are there when it asks; what came and went between is
/// left out.
pub struct whimbrel_connection_changes(pub(crate) Bound<Stream<ConnectionStates>>);

impl whimbrel_connection {
    pub(crate) fn new(state: &ConnectionState) -> Self {
        use whimbrel_connection_state as to;
        let (state, reason) = match state {
            ConnectionState::Disconnected { reason } => {
                (to::WHIMBREL_CONNECTION_DISCONNECTED, reason.as_deref())
            }
            ConnectionState::Connecting => (to::WHIMBREL_CONNECTION_CONNECTING, None),
            ConnectionState::Connected => (to::WHIMBREL_CONNECTION_CONNECTED, None),
            ConnectionState::Unauthorized { reason } => {
                (to::WHIMBREL_CONNECTION_UNAUTHORIZED, Some(reason.as_str()))
            }
            ConnectionState::Suspended => (to::WHIMBREL_CONNECTION_SUSPENDED, None),
            ConnectionState::Closed => (to::WHIMBREL_CONNECTION_CLOSED, None),
            _ => (to::WHIMBREL_CONNECTION_UNKNOWN, None),
        };
        Self { state, reason: reason.map(error::text) }
    }
}

/// The state. WHIMBREL_CONNECTION_UNKNOWN for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_connection_get_state(
    connection: *const whimbrel_connection,
) -> whimbrel_connection_state {
    // SAFETY: promised by the program.
    unsafe {
        border::get(connection, whimbrel_connection_state::WHIMBREL_CONNECTION_UNKNOWN, |connection| {
            Some(connection.state)
        })
    }
}

/// Why, for people: lent, and valid as long as the object. NULL where there is nothing to say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_connection_reason(connection: *const whimbrel_connection) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe {
        border::get(connection, ptr::null(), |connection| {
            connection.reason.as_ref().map(|reason| reason.as_ptr())
        })
    }
}

/// Frees it and sets the variable to NULL.
///
/// @param connection Address of the variable that holds it. NULL, or the address of a NULL, is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_connection_free(connection: *mut *mut whimbrel_connection) {
    // SAFETY: promised by the program.
    unsafe { border::release(connection) }
}

/// Waits for the next change; the first one is the present state.
///
/// @param changes The changes.
/// @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
/// @param cancel Stops the waiting; may be NULL.
/// @param[out] out The state; free it with whimbrel_connection_free(). NULL on failure.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_CLOSED at the end; WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_connection_changes_next(
    changes: *const whimbrel_connection_changes,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
    out: *mut *mut whimbrel_connection,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give(OPERATION, out, || {
            let changes = border::borrow(OPERATION, "changes", changes)?.0.get()?;
            let patience = Patience::read(OPERATION, timeout_ms, cancel)?;
            Ok(whimbrel_connection::new(&call::join(OPERATION, changes.next(patience))?))
        })
    }
}

/// Takes a change if there is one. Never waits.
///
/// @param changes The changes.
/// @param[out] out The state; free it with whimbrel_connection_free(). NULL on failure.
/// @return As whimbrel_connection_changes_next(); WHIMBREL_STATUS_TIMEOUT when there is none now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_connection_changes_try_next(
    changes: *const whimbrel_connection_changes,
    out: *mut *mut whimbrel_connection,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give(OPERATION, out, || {
            let changes = border::borrow(OPERATION, "changes", changes)?.0.get()?;
            Ok(whimbrel_connection::new(&changes.try_next()?))
        })
    }
}

/// A file descriptor that is readable while whimbrel_connection_changes_try_next() has something to give. As whimbrel_inbox_fd().
///
/// @param changes The changes.
/// @param[out] out The file descriptor; the same one each time. -1 on failure.
/// @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT, WHIMBREL_STATUS_INTERNAL when the system has none left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_connection_changes_fd(
    changes: *const whimbrel_connection_changes,
    out: *mut i32,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::tell(OPERATION, out, -1, || border::borrow(OPERATION, "changes", changes)?.0.get()?.fd())
    }
}

/// Frees it and sets the variable to NULL.
///
/// @param changes Address of the variable that holds it. NULL, or the address of a NULL, is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_connection_changes_free(changes: *mut *mut whimbrel_connection_changes) {
    // SAFETY: promised by the program.
    unsafe { border::release(changes) }
}

const OPERATION: &str = "device.connection_changes";
