//! The device client.

use std::{
    ffi::{c_char, c_void},
    ptr,
    sync::Arc,
    time::Duration,
};

use whimbrel::{DeviceClient, Error, ErrorKind, Receipt, Result};
use whimbrel_bindings_support::{Bound, Call, ConnectionStates, Sends, guarded};

use crate::{
    border::{self, boundary, hand_over, invalid},
    call::{self, Patience, may_wait},
    callback::{
        Callback, Context, whimbrel_count_fn, whimbrel_done_fn, whimbrel_drop_fn, whimbrel_receipt_fn,
        whimbrel_receipts_fn,
    },
    cancel::whimbrel_cancel_token,
    connection::{whimbrel_connection, whimbrel_connection_changes},
    engine::Engine,
    error::{whimbrel_error, whimbrel_status},
    figures::{whimbrel_account, whimbrel_counters},
    inbox::whimbrel_inbox,
    message::{self, whimbrel_message},
    options::{self, whimbrel_device_options},
    receipt::whimbrel_receipt,
    stream::Stream,
};

/// A device's connection to its hub, with a durable outbox. Any thread may use it, also several at once.
///
/// Each open device has one thread of its own, "whimbrel", which ends when the device and everything made from it is freed; its outbox
/// has a few more for the disk. They cost nothing while nothing happens.
pub struct whimbrel_device(pub(crate) Bound<Device>);

pub(crate) struct Device {
    pub(crate) client: DeviceClient,
    pub(crate) engine: Arc<Engine>,
    sends: Sends<Token>,
}

/// Who is told that a message is stored, and what has to live until then.
type Token = (Arc<Engine>, Callback<ReceiptCall>);
type ReceiptCall = unsafe extern "C" fn(*mut c_void, *const whimbrel_error, *mut whimbrel_receipt);

impl whimbrel_device {
    #[cfg(feature = "test-hooks")]
    pub(crate) fn engine(&self) -> Result<&Arc<Engine>> {
        self.0.get().map(|device| &device.engine)
    }
}

/// Opens a device and returns; connecting goes on in the background. Reads and writes the disk, and never waits for the network.
///
/// @param options How; begin with WHIMBREL_DEVICE_OPTIONS_INIT.
/// @param[out] out The device; close it with whimbrel_device_close(), then free it with whimbrel_device_free(). NULL on failure.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_INVALID_ARGUMENT naming the option; WHIMBREL_STATUS_IN_USE; WHIMBREL_STATUS_JOURNAL_IO;
///         WHIMBREL_STATUS_JOURNAL_CORRUPT; WHIMBREL_STATUS_JOURNAL_VERSION; WHIMBREL_STATUS_DISK_FULL; WHIMBREL_STATUS_UNSUPPORTED for
///         what this build leaves out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_open(
    options: *const whimbrel_device_options,
    out: *mut *mut whimbrel_device,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give(OPEN, out, || {
            let options = options::read(OPEN, options)?;
            may_wait(OPEN)?;
            let engine = Engine::start(OPEN)?;
            let client =
                call::join(OPEN, Patience::endless().call(OPEN, &engine, DeviceClient::open(options)))?;
            let sends = Sends::new(client.clone(), engine.handle(), tell);
            Ok(whimbrel_device(Bound::new(Device { client, engine, sends })))
        })
    }
}

/// Takes a message in, and returns when it is on the disk (or as safe as was chosen): from then on delivering it is not the program's
/// concern. Never waits for the network. Giving up leaves the message wholly in or wholly out; whimbrel_device_account() tells.
///
/// @param device The device.
/// @param message The message; begin with WHIMBREL_MESSAGE_INIT.
/// @param timeout_ms How long to wait for the disk at most, or WHIMBREL_FOREVER.
/// @param cancel Stops the waiting; may be NULL.
/// @param[out] out The receipt; free it with whimbrel_receipt_free(). NULL on failure. The parameter may be NULL.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_INVALID_ARGUMENT and WHIMBREL_STATUS_PAYLOAD_TOO_LARGE for a message that could never be
///         delivered; WHIMBREL_STATUS_OUTBOX_FULL; WHIMBREL_STATUS_DISK_FULL; WHIMBREL_STATUS_JOURNAL_IO; WHIMBREL_STATUS_CLOSED;
///         WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_send(
    device: *const whimbrel_device,
    message: *const whimbrel_message,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
    out: *mut *mut whimbrel_receipt,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give_if_wanted(SEND, out, |wanted| {
            let device = border::borrow(SEND, "device", device)?.0.get()?;
            let patience = Patience::read(SEND, timeout_ms, cancel)?;
            let message = message::read(SEND, message)?;
            may_wait(SEND)?;
            let accepted = device.client.accept(message)?;
            let receipt = if patience.is_endless() {
                // Nobody has to be asked whether to go on: this thread waits for the disk itself.
                accepted.wait_stored()?
            } else {
                call::join(SEND, patience.call(SEND, &device.engine, accepted.stored()))?
            };
            Ok(wanted.then(|| device.receipt(receipt)))
        })
    }
}

/// Takes a message in without waiting for the disk: for loops that must never wait. It is as safe as the outbox makes it soon after:
/// with WHIMBREL_DURABILITY_ON_DISK a few milliseconds, with WHIMBREL_DURABILITY_INTERVAL one sync interval. Who has to know when, uses
/// whimbrel_device_send_async(). It does wait when 16 MiB are on their way to a disk that does not keep up.
///
/// @param device The device.
/// @param message The message; begin with WHIMBREL_MESSAGE_INIT.
/// @param[out] out The receipt; free it with whimbrel_receipt_free(). NULL on failure. The parameter may be NULL.
/// @return As whimbrel_device_send().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_accept(
    device: *const whimbrel_device,
    message: *const whimbrel_message,
    out: *mut *mut whimbrel_receipt,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give_if_wanted(SEND, out, |wanted| {
            let device = border::borrow(SEND, "device", device)?.0.get()?;
            let accepted = device.client.accept(message::read(SEND, message)?)?;
            Ok(wanted.then(|| device.receipt(accepted.into_receipt())))
        })
    }
}

/// Takes a message in as whimbrel_device_accept(), and tells when it is on the disk (or as safe as was chosen). Of messages of one lane
/// the callbacks come in the order of the calls.
///
/// @param device The device.
/// @param message The message; begin with WHIMBREL_MESSAGE_INIT.
/// @param callback Gets the receipt, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return As whimbrel_device_send(). WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_send_async(
    device: *const whimbrel_device,
    message: *const whimbrel_message,
    callback: whimbrel_receipt_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(SEND, || {
        let callback = Callback::new(SEND, callback, context)?;
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(SEND, "device", device)?.0.get()? };
        // SAFETY: promised by the program.
        let message = unsafe { message::read(SEND, message)? };
        device.sends.send((device.engine.clone(), callback), message)
    })
}

/// Takes many messages in, in order, with one commit: all or none, also when the waiting is given up.
///
/// @param device The device.
/// @param messages The messages; begin each with WHIMBREL_MESSAGE_INIT.
/// @param count How many.
/// @param timeout_ms How long to wait for the disk at most, or WHIMBREL_FOREVER.
/// @param cancel Stops the waiting; may be NULL.
/// @param[out] out_receipts Array of count receipts, in the order of the messages; free each with whimbrel_receipt_free(). All are NULL on
///        failure. May be NULL.
/// @return As whimbrel_device_send(); the detail "index" says which message was refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_send_many(
    device: *const whimbrel_device,
    messages: *const whimbrel_message,
    count: usize,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
    out_receipts: *mut *mut whimbrel_receipt,
) -> whimbrel_status {
    boundary(SEND_MANY, || {
        let mut places: &mut [*mut whimbrel_receipt] = &mut [];
        if !out_receipts.is_null() {
            // SAFETY: promised by the program.
            places = unsafe { border::places(SEND_MANY, "out_receipts", out_receipts, count)? };
            places.fill(ptr::null_mut());
        }
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(SEND_MANY, "device", device)?.0.get()? };
        // SAFETY: promised by the program.
        let patience = unsafe { Patience::read(SEND_MANY, timeout_ms, cancel)? };
        // SAFETY: promised by the program.
        let messages = unsafe { message::read_many(SEND_MANY, messages, count)? };
        let receipts = call::join(SEND_MANY, device.send_many(messages, patience))?;
        for (place, receipt) in places.iter_mut().zip(receipts) {
            *place = hand_over(device.receipt(receipt));
        }
        Ok(())
    })
}

/// As whimbrel_device_send_many(), with a callback.
///
/// @param device The device.
/// @param messages The messages; begin each with WHIMBREL_MESSAGE_INIT.
/// @param count How many.
/// @param callback Gets the receipts, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_send_many_async(
    device: *const whimbrel_device,
    messages: *const whimbrel_message,
    count: usize,
    callback: whimbrel_receipts_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(SEND_MANY, || {
        let callback = Callback::new(SEND_MANY, callback, context)?;
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(SEND_MANY, "device", device)?.0.get()? };
        // SAFETY: promised by the program.
        let messages = unsafe { message::read_many(SEND_MANY, messages, count)? };
        let engine = device.engine.clone();
        let call = device.send_many(messages, Patience::endless()).map(move |receipts| {
            let receipt = |receipt| whimbrel_receipt::new(receipt, engine.clone());
            receipts.into_iter().map(receipt).collect::<Vec<_>>()
        });
        call.start(move |receipts| callback.handles(receipts));
        Ok(())
    })
}

/// The receipt of a message by its id, also after a restart. May read the disk.
///
/// @param device The device.
/// @param message_id The id: chosen by the program, or told by whimbrel_receipt_message_id().
/// @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
/// @param cancel Stops the waiting; may be NULL.
/// @param[out] out The receipt; free it with whimbrel_receipt_free(). NULL on failure.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_NOT_FOUND when the message is not known (any more); WHIMBREL_STATUS_JOURNAL_IO;
///         WHIMBREL_STATUS_CLOSED; WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_receipt(
    device: *const whimbrel_device,
    message_id: *const c_char,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
    out: *mut *mut whimbrel_receipt,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give(RECEIPT, out, || {
            let device = border::borrow(RECEIPT, "device", device)?.0.get()?;
            let patience = Patience::read(RECEIPT, timeout_ms, cancel)?;
            let message_id = border::text(RECEIPT, "message_id", message_id)?.to_owned();
            call::join(RECEIPT, device.find(message_id, patience))
        })
    }
}

/// As whimbrel_device_receipt(), with a callback.
///
/// @param device The device.
/// @param message_id The id.
/// @param callback Gets the receipt, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_receipt_async(
    device: *const whimbrel_device,
    message_id: *const c_char,
    callback: whimbrel_receipt_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(RECEIPT, || {
        let callback = Callback::new(RECEIPT, callback, context)?;
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(RECEIPT, "device", device)?.0.get()? };
        // SAFETY: promised by the program.
        let message_id = unsafe { border::text(RECEIPT, "message_id", message_id)?.to_owned() };
        device.find(message_id, Patience::endless()).start(move |receipt| callback.handle(receipt));
        Ok(())
    })
}

/// The commands for this device. The first call has the hub send them, on this connection and each later one; until then they stay
/// with the hub, or unsettled in this library.
///
/// @param device The device.
/// @param[out] out The inbox; free it with whimbrel_inbox_free(). NULL on failure.
/// @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_inbox(
    device: *const whimbrel_device,
    out: *mut *mut whimbrel_inbox,
) -> whimbrel_status {
    const OPERATION: &str = "device.inbox";
    // SAFETY: promised by the program.
    unsafe {
        border::give(OPERATION, out, || {
            let device = border::borrow(OPERATION, "device", device)?.0.get()?;
            let stream = Stream::new("inbox.next", device.engine.clone(), device.client.inbox());
            Ok(whimbrel_inbox(Bound::new(stream)))
        })
    }
}

/// What the link to the hub is doing now. Never waits.
///
/// @param device The device.
/// @param[out] out The state; free it with whimbrel_connection_free(). NULL on failure.
/// @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_connection(
    device: *const whimbrel_device,
    out: *mut *mut whimbrel_connection,
) -> whimbrel_status {
    const OPERATION: &str = "device.connection";
    // SAFETY: promised by the program.
    unsafe {
        border::give(OPERATION, out, || {
            let device = border::borrow(OPERATION, "device", device)?.0.get()?;
            Ok(whimbrel_connection::new(&device.client.connection().borrow()))
        })
    }
}

/// The changes of the link, the present state first.
///
/// @param device The device.
/// @param[out] out The changes; free them with whimbrel_connection_changes_free(). NULL on failure.
/// @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_connection_changes(
    device: *const whimbrel_device,
    out: *mut *mut whimbrel_connection_changes,
) -> whimbrel_status {
    const OPERATION: &str = "device.connection_changes";
    // SAFETY: promised by the program.
    unsafe {
        border::give(OPERATION, out, || {
            let device = border::borrow(OPERATION, "device", device)?.0.get()?;
            let states = ConnectionStates::new(device.client.connection());
            Ok(whimbrel_connection_changes(Bound::new(Stream::new(OPERATION, device.engine.clone(), states))))
        })
    }
}

/// The account of the outbox. Never waits; also after closing.
///
/// @param device The device.
/// @param[out] out The account; zeros on failure.
/// @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_account(
    device: *const whimbrel_device,
    out: *mut whimbrel_account,
) -> whimbrel_status {
    const OPERATION: &str = "device.account";
    // SAFETY: promised by the program.
    unsafe {
        border::tell(OPERATION, out, whimbrel_account::default(), || {
            Ok(border::borrow(OPERATION, "device", device)?.0.get()?.client.account().into())
        })
    }
}

/// Figures of the outbox. May read the disk, for the age of the oldest message.
///
/// @param device The device.
/// @param[in,out] out The figures; begin with WHIMBREL_COUNTERS_INIT. Unchanged on failure.
/// @return WHIMBREL_STATUS_OK, WHIMBREL_STATUS_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_counters(
    device: *const whimbrel_device,
    out: *mut whimbrel_counters,
) -> whimbrel_status {
    const OPERATION: &str = "device.counters";
    boundary(OPERATION, || {
        // SAFETY: promised by the program; it is repr(C), begins with its size, and consists of numbers.
        let out = unsafe { border::sized_place(OPERATION, "out", out)? };
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(OPERATION, "device", device)?.0.get()? };
        *out = (&device.client.counters()).into();
        Ok(())
    })
}

/// Waits until everything is settled or the time is over. Never fails for a slow network.
///
/// @param device The device.
/// @param deadline_ms How long to wait at most; 0 only counts.
/// @param cancel Stops the waiting; may be NULL.
/// @param[out] out_left How many messages are still queued; 0 on failure.
/// @return WHIMBREL_STATUS_OK, also when messages are left; WHIMBREL_STATUS_INVALID_ARGUMENT for a negative deadline;
///         WHIMBREL_STATUS_CLOSED; WHIMBREL_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_flush(
    device: *const whimbrel_device,
    deadline_ms: i64,
    cancel: *const whimbrel_cancel_token,
    out_left: *mut u64,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::tell(FLUSH, out_left, 0, || {
            let device = border::borrow(FLUSH, "device", device)?.0.get()?;
            let patience = Patience::read(FLUSH, call::WHIMBREL_FOREVER, cancel)?;
            call::join(FLUSH, device.flush(time(FLUSH, "deadline_ms", deadline_ms)?, patience))
        })
    }
}

/// As whimbrel_device_flush(), with a callback.
///
/// @param device The device.
/// @param deadline_ms As there.
/// @param cancel As there.
/// @param callback Is told how many messages are left, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_flush_async(
    device: *const whimbrel_device,
    deadline_ms: i64,
    cancel: *const whimbrel_cancel_token,
    callback: whimbrel_count_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(FLUSH, || {
        let callback = Callback::new(FLUSH, callback, context)?;
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(FLUSH, "device", device)?.0.get()? };
        // SAFETY: promised by the program.
        let patience = unsafe { Patience::read(FLUSH, call::WHIMBREL_FOREVER, cancel)? };
        let flush = device.flush(time(FLUSH, "deadline_ms", deadline_ms)?, patience);
        flush.start(move |left| callback.count(left));
        Ok(())
    })
}

/// Takes no more messages and hands out no more commands, flushes for as long as the options say, disconnects, closes the outbox. What
/// is left stays there for the next time. Closing twice is fine. Giving up stops the waiting, not the closing; call again to wait on.
///
/// @param device The device. It stays to be freed.
/// @param timeout_ms How long to wait at most, or WHIMBREL_FOREVER.
/// @param cancel Stops the waiting; may be NULL.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_JOURNAL_IO, WHIMBREL_STATUS_DISK_FULL, told once; WHIMBREL_STATUS_TIMEOUT;
///         WHIMBREL_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_close(
    device: *const whimbrel_device,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
) -> whimbrel_status {
    boundary(CLOSE, || {
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(CLOSE, "device", device)?.0.get()? };
        // SAFETY: promised by the program.
        let patience = unsafe { Patience::read(CLOSE, timeout_ms, cancel)? };
        call::join(CLOSE, device.close(patience))
    })
}

/// As whimbrel_device_close(), with a callback.
///
/// @param device The device. It may be freed as soon as this has returned.
/// @param callback Is told the end, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_close_async(
    device: *const whimbrel_device,
    callback: whimbrel_done_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(CLOSE, || {
        let callback = Callback::new(CLOSE, callback, context)?;
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(CLOSE, "device", device)?.0.get()? };
        device.close(Patience::endless()).start(move |done| callback.done(done));
        Ok(())
    })
}

/// Frees a device and sets the variable to NULL. Returns at once. One that was not closed is closed in the background, as far as the
/// process lives; errors of that are in the log only.
///
/// @param device Address of the variable that holds it. NULL, or the address of a NULL, is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_free(device: *mut *mut whimbrel_device) {
    // SAFETY: promised by the program.
    unsafe { border::release(device) }
}

impl Device {
    fn receipt(&self, receipt: Receipt) -> whimbrel_receipt {
        whimbrel_receipt::new(receipt, self.engine.clone())
    }

    fn send_many(&self, messages: Vec<whimbrel::Message>, patience: Patience) -> Call<Vec<Receipt>> {
        let client = self.client.clone();
        patience.call(SEND_MANY, &self.engine, async move { client.send_all(messages).await })
    }

    fn find(&self, message_id: String, patience: Patience) -> Call<whimbrel_receipt> {
        let (client, engine) = (self.client.clone(), self.engine.clone());
        patience.call(RECEIPT, &self.engine, async move {
            let found = client.receipt(&message_id).await?;
            let receipt = found.ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    RECEIPT,
                    "there is no message of this id, or it ended long ago",
                )
            })?;
            Ok(whimbrel_receipt::new(receipt, engine))
        })
    }

    fn flush(&self, deadline: Duration, patience: Patience) -> Call<u64> {
        let client = self.client.clone();
        patience.call(FLUSH, &self.engine, async move { client.flush(deadline).await })
    }

    fn close(&self, patience: Patience) -> Call<()> {
        let client = self.client.clone();
        patience.call(CLOSE, &self.engine, async move { client.close().await })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let (client, engine) = (self.client.clone(), self.engine.clone());
        self.engine.handle().spawn(async move {
            if let Err(error) = guarded(CLOSE, client.close()).await {
                tracing::error!(%error, "a device was freed before it was closed, and closing it failed");
            }
            drop(engine);
        });
    }
}

/// Tells the program of messages that are stored.
fn tell(batch: Vec<(Token, Result<Receipt>)>) {
    for ((engine, callback), stored) in batch {
        callback.handle(stored.map(|receipt| whimbrel_receipt::new(receipt, engine)));
    }
}

/// A time that is not negative.
pub(crate) fn time(operation: &'static str, name: &'static str, time_ms: i64) -> Result<Duration> {
    let given = u64::try_from(time_ms).map(Duration::from_millis);
    given.map_err(|_| invalid(operation, name, "is negative").with("given", time_ms))
}

const OPEN: &str = "device.open";
const SEND: &str = "device.send";
const SEND_MANY: &str = "device.send_all";
const RECEIPT: &str = "device.receipt";
const FLUSH: &str = "device.flush";
const CLOSE: &str = "device.close";
