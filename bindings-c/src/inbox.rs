//! Commands, as they come.

use std::ffi::c_void;

use whimbrel::Inbox;
use whimbrel_bindings_support::Bound;

use crate::{
    border::{self, boundary},
    call::{self, Patience},
    callback::{Callback, Context, whimbrel_command_fn, whimbrel_drop_fn},
    cancel::whimbrel_cancel_token,
    command::whimbrel_command,
    error::whimbrel_status,
    stream::Stream,
};

/// The commands for a device. Those who share one, and those made by several whimbrel_device_inbox(), get each command once among
/// them. Freeing it does not close the device.
pub struct whimbrel_inbox(pub(crate) Bound<Stream<Inbox>>);

/// Waits for the next command, in the order of their arrival. A command is locked for this device from its arrival on, which may be
/// before it is taken here. Giving up swallows nothing.
///
/// @param inbox The inbox.
/// @param timeout_ms How long to wait at most; 0 looks only at what is there, WHIMBREL_FOREVER waits for as long as it takes.
/// @param cancel Stops the waiting; may be NULL.
/// @param[out] out The command; free it with whimbrel_command_free(). NULL on failure.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_CLOSED once the device is closed; WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED;
///         WHIMBREL_STATUS_UNSUPPORTED for a module, which has no commands; what the hub said when it refused to send commands;
///         WHIMBREL_STATUS_JOURNAL_IO when the outbox failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_inbox_next(
    inbox: *const whimbrel_inbox,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
    out: *mut *mut whimbrel_command,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give(NEXT, out, || {
            let inbox = border::borrow(NEXT, "inbox", inbox)?.0.get()?;
            let patience = Patience::read(NEXT, timeout_ms, cancel)?;
            let command = call::join(NEXT, inbox.next(patience))?;
            Ok(whimbrel_command::new(command, inbox.engine.clone()))
        })
    }
}

/// Takes a command if there is one. Never waits.
///
/// @param inbox The inbox.
/// @param[out] out The command; free it with whimbrel_command_free(). NULL on failure.
/// @return As whimbrel_inbox_next(); WHIMBREL_STATUS_TIMEOUT when there is none now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_inbox_try_next(
    inbox: *const whimbrel_inbox,
    out: *mut *mut whimbrel_command,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give(NEXT, out, || {
            let inbox = border::borrow(NEXT, "inbox", inbox)?.0.get()?;
            Ok(whimbrel_command::new(inbox.try_next()?, inbox.engine.clone()))
        })
    }
}

/// As whimbrel_inbox_next(), with a callback.
///
/// @param inbox The inbox.
/// @param timeout_ms As there.
/// @param cancel As there.
/// @param callback Gets the command, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_inbox_next_async(
    inbox: *const whimbrel_inbox,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
    callback: whimbrel_command_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(NEXT, || {
        let callback = Callback::new(NEXT, callback, context)?;
        // SAFETY: promised by the program.
        let inbox = unsafe { border::borrow(NEXT, "inbox", inbox)?.0.get()? };
        // SAFETY: promised by the program.
        let patience = unsafe { Patience::read(NEXT, timeout_ms, cancel)? };
        let engine = inbox.engine.clone();
        let next = inbox.next(patience).map(move |command| whimbrel_command::new(command, engine));
        next.start(move |command| callback.handle(command));
        Ok(())
    })
}

/// A file descriptor that is readable while whimbrel_inbox_try_next() has something to give, the end included: for poll(), epoll
/// and the like. It belongs to the inbox: do not read, write or close it, and stop watching it before the inbox is freed.
///
/// @param inbox The inbox.
/// @param[out] out The file descriptor; the same one each time. -1 on failure.
/// @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT, WHIMBREL_STATUS_INTERNAL when the system has none left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_inbox_fd(inbox: *const whimbrel_inbox, out: *mut i32) -> whimbrel_status {
    const OPERATION: &str = "inbox.fd";
    // SAFETY: promised by the program.
    unsafe { border::tell(OPERATION, out, -1, || border::borrow(OPERATION, "inbox", inbox)?.0.get()?.fd()) }
}

/// Frees an inbox and sets the variable to NULL. Does no I/O.
///
/// @param inbox Address of the variable that holds it. NULL, or the address of a NULL, is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_inbox_free(inbox: *mut *mut whimbrel_inbox) {
    // SAFETY: promised by the program.
    unsafe { border::release(inbox) }
}

const NEXT: &str = "inbox.next";
