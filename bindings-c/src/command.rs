//! A command: what is in it, and how it is settled.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use whimbrel::{Command, Result};
use whimbrel_bindings_support::{Bound, Call};

use crate::{
    border::{self, boundary},
    call::{self, Patience},
    callback::{Callback, Context, whimbrel_done_fn, whimbrel_drop_fn},
    cancel::whimbrel_cancel_token,
    engine::Engine,
    error::{self, whimbrel_status},
    message::WHIMBREL_NO_TIME,
};

/// A command, locked for this device until it is settled; by any thread, in any order. Freed unsettled it stays locked until the hub
/// takes the lock back, and is delivered again then.
pub struct whimbrel_command(Bound<Inner>);

struct Inner {
    command: Arc<Command>,
    engine: Arc<Engine>,
    texts: Texts,
}

/// What C can read only with a NUL behind it.
struct Texts {
    message_id: Option<CString>,
    correlation_id: Option<CString>,
    user_id: Option<CString>,
    content_type: Option<CString>,
    content_encoding: Option<CString>,
    properties: Vec<(CString, CString)>,
}

impl whimbrel_command {
    pub(crate) fn new(command: Command, engine: Arc<Engine>) -> Self {
        let system = command.message().system();
        let text = |text: &Option<String>| text.as_deref().map(error::text);
        let texts = Texts {
            message_id: text(&system.message_id),
            correlation_id: text(&system.correlation_id),
            user_id: text(&system.user_id),
            content_type: text(&system.content_type),
            content_encoding: text(&system.content_encoding),
            properties: command
                .properties()
                .iter()
                .map(|(name, value)| (error::text(name), error::text(value)))
                .collect(),
        };
        Self(Bound::new(Inner { command: Arc::new(command), engine, texts }))
    }

    fn inner(&self) -> Option<&Inner> {
        self.0.get().ok()
    }

    fn text(&self, of: impl FnOnce(&Texts) -> &Option<CString>) -> Option<*const c_char> {
        of(&self.inner()?.texts).as_deref().map(CStr::as_ptr)
    }
}

/// The body of a command: lent, and valid as long as the command. Not NULL, even where it is empty; NULL for NULL.
///
/// @param command The command.
/// @param[out] out_length Its length in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_body(
    command: *const whimbrel_command,
    out_length: *mut usize,
) -> *const u8 {
    // SAFETY: promised by the program.
    unsafe {
        let body =
            border::get(command, None, |command| Some(command.inner().map(|inner| inner.command.body())));
        if let Ok(length) = border::place("command.body", "out_length", out_length) {
            *length = body.map_or(0, |body| body.len());
        }
        body.map_or(ptr::null(), |body| body.as_ptr())
    }
}

/// The id that the service finds the outcome by: lent, and valid as long as the command. NULL where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_message_id(command: *const whimbrel_command) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe { border::get(command, ptr::null(), |command| command.text(|texts| &texts.message_id)) }
}

/// The correlation id: lent, and valid as long as the command. NULL where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_correlation_id(command: *const whimbrel_command) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe { border::get(command, ptr::null(), |command| command.text(|texts| &texts.correlation_id)) }
}

/// The user id: lent, and valid as long as the command. NULL where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_user_id(command: *const whimbrel_command) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe { border::get(command, ptr::null(), |command| command.text(|texts| &texts.user_id)) }
}

/// The content type: lent, and valid as long as the command. NULL where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_content_type(command: *const whimbrel_command) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe { border::get(command, ptr::null(), |command| command.text(|texts| &texts.content_type)) }
}

/// The content encoding: lent, and valid as long as the command. NULL where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_content_encoding(
    command: *const whimbrel_command,
) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe { border::get(command, ptr::null(), |command| command.text(|texts| &texts.content_encoding)) }
}

/// When the content was made, in milliseconds since 1970-01-01 UTC. WHIMBREL_NO_TIME where that is not told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_creation_time_ms(command: *const whimbrel_command) -> i64 {
    // SAFETY: promised by the program.
    unsafe {
        border::get(command, WHIMBREL_NO_TIME, |command| {
            command.inner()?.command.message().system().creation_time.map(unix_ms)
        })
    }
}

/// When the hub took the command in, in milliseconds since 1970-01-01 UTC. WHIMBREL_NO_TIME where that is not told (MQTT 3.1.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_enqueued_at_ms(command: *const whimbrel_command) -> i64 {
    // SAFETY: promised by the program.
    unsafe {
        border::get(command, WHIMBREL_NO_TIME, |command| command.inner()?.command.enqueued_at().map(unix_ms))
    }
}

/// The number of the command in the device's queue. -1 where that is not told (MQTT 3.1.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_sequence(command: *const whimbrel_command) -> i64 {
    // SAFETY: promised by the program.
    unsafe {
        border::get(command, -1, |command| {
            command.inner()?.command.sequence().and_then(|sequence| i64::try_from(sequence).ok())
        })
    }
}

/// How many deliveries counted before this one. -1 where that is not told (MQTT 3.1.1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_delivery_count(command: *const whimbrel_command) -> i64 {
    // SAFETY: promised by the program.
    unsafe { border::get(command, -1, |command| command.inner()?.command.delivery_count().map(i64::from)) }
}

/// How many application properties there are. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_property_count(command: *const whimbrel_command) -> usize {
    // SAFETY: promised by the program.
    unsafe { border::get(command, 0, |command| Some(command.inner()?.texts.properties.len())) }
}

/// The name of an application property: lent, and valid as long as the command. NULL when there are not so many.
///
/// @param command The command.
/// @param index Which, from 0 on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_property_name(
    command: *const whimbrel_command,
    index: usize,
) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe {
        border::get(command, ptr::null(), |command| {
            command.inner()?.texts.properties.get(index).map(|(name, _)| name.as_ptr())
        })
    }
}

/// The value of an application property: lent, and valid as long as the command. NULL when there are not so many.
///
/// @param command The command.
/// @param index Which, from 0 on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_property_value(
    command: *const whimbrel_command,
    index: usize,
) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe {
        border::get(command, ptr::null(), |command| {
            command.inner()?.texts.properties.get(index).map(|(_, value)| value.as_ptr())
        })
    }
}

/// The value of an application property by its name: lent, and valid as long as the command. NULL when there is none of this name.
///
/// @param command The command.
/// @param name The name; case-sensitive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_property(
    command: *const whimbrel_command,
    name: *const c_char,
) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe {
        let Ok(name) = border::text("command.property", "name", name) else { return ptr::null() };
        border::get(command, ptr::null(), |command| {
            let mut properties = command.inner()?.texts.properties.iter();
            properties.find(|(known, _)| known.to_bytes() == name.as_bytes()).map(|(_, value)| value.as_ptr())
        })
    }
}

/// It was dealt with: the hub removes it, and it is never handed out again.
///
/// Returns when that is recorded on this device, and handed to the connection or answered by the hub, whichever the protocol has.
/// Without a connection it returns when it is recorded. Giving up stops the waiting, not the settling.
///
/// @param command The command. It stays to be freed.
/// @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
/// @param cancel Stops the waiting; may be NULL.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_CONFLICT when it was settled before; WHIMBREL_STATUS_LOCK_LOST when the hub did not hold
///         it any more; WHIMBREL_STATUS_DISK_FULL, WHIMBREL_STATUS_JOURNAL_IO when it could not be recorded; WHIMBREL_STATUS_CLOSED;
///         WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_complete(
    command: *const whimbrel_command,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe { wait(COMPLETE, command, timeout_ms, cancel) }
}

/// Not now: the hub delivers it again, a limited number of times. Otherwise as whimbrel_command_complete().
///
/// @param command The command. It stays to be freed.
/// @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
/// @param cancel Stops the waiting; may be NULL.
/// @return As there; WHIMBREL_STATUS_UNSUPPORTED on MQTT 3.1.1: it stays locked, and can still be completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_abandon(
    command: *const whimbrel_command,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe { wait(ABANDON, command, timeout_ms, cancel) }
}

/// Never: the hub makes it a dead letter, and it is never handed out again. Otherwise as whimbrel_command_complete().
///
/// @param command The command. It stays to be freed.
/// @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
/// @param cancel Stops the waiting; may be NULL.
/// @return As there; WHIMBREL_STATUS_UNSUPPORTED on MQTT 3.1.1: it stays locked, and can still be completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_reject(
    command: *const whimbrel_command,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe { wait(REJECT, command, timeout_ms, cancel) }
}

/// As whimbrel_command_complete(), with a callback. The command may be freed as soon as this has returned.
///
/// @param command The command.
/// @param callback Is told the end, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_complete_async(
    command: *const whimbrel_command,
    callback: whimbrel_done_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe { start(COMPLETE, command, callback, Context::new(context, drop)) }
}

/// As whimbrel_command_abandon(), with a callback. The command may be freed as soon as this has returned.
///
/// @param command The command.
/// @param callback Is told the end, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_abandon_async(
    command: *const whimbrel_command,
    callback: whimbrel_done_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe { start(ABANDON, command, callback, Context::new(context, drop)) }
}

/// As whimbrel_command_reject(), with a callback. The command may be freed as soon as this has returned.
///
/// @param command The command.
/// @param callback Is told the end, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_reject_async(
    command: *const whimbrel_command,
    callback: whimbrel_done_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe { start(REJECT, command, callback, Context::new(context, drop)) }
}

/// Frees a command and sets the variable to NULL. Does no I/O and settles nothing.
///
/// @param command Address of the variable that holds it. NULL, or the address of a NULL, is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_command_free(command: *mut *mut whimbrel_command) {
    // SAFETY: promised by the program.
    unsafe { border::release(command) }
}

/// How to settle.
#[derive(Clone, Copy)]
enum How {
    Complete,
    Abandon,
    Reject,
}

type Settle = (&'static str, How);

const COMPLETE: Settle = ("command.complete", How::Complete);
const ABANDON: Settle = ("command.abandon", How::Abandon);
const REJECT: Settle = ("command.reject", How::Reject);

fn settle((operation, how): Settle, inner: &Inner, patience: Patience) -> Call<()> {
    let command = inner.command.clone();
    patience.call(operation, &inner.engine, async move {
        match how {
            How::Complete => command.complete().await,
            How::Abandon => command.abandon().await,
            How::Reject => command.reject().await,
        }
    })
}

/// # Safety
/// As [`border::borrow`].
unsafe fn wait(
    how: Settle,
    command: *const whimbrel_command,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
) -> whimbrel_status {
    boundary(how.0, || {
        // SAFETY: promised by the caller.
        let inner = unsafe { border::borrow(how.0, "command", command)?.0.get()? };
        // SAFETY: promised by the caller.
        let patience = unsafe { Patience::read(how.0, timeout_ms, cancel)? };
        call::join(how.0, settle(how, inner, patience))
    })
}

/// # Safety
/// As [`border::borrow`].
unsafe fn start(
    how: Settle,
    command: *const whimbrel_command,
    callback: whimbrel_done_fn,
    context: Context,
) -> whimbrel_status {
    boundary(how.0, || {
        let callback = Callback::new(how.0, callback, context)?;
        // SAFETY: promised by the caller.
        let inner = unsafe { border::borrow(how.0, "command", command)?.0.get()? };
        settle(how, inner, Patience::endless()).start(move |done: Result<()>| callback.done(done));
        Ok(())
    })
}

/// Milliseconds since 1970, negative before.
fn unix_ms(time: SystemTime) -> i64 {
    let ms = |since: std::time::Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => ms(since),
        Err(before) => -ms(before.duration()),
    }
}
