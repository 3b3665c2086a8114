//! Following a message to its end.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr,
    sync::{Arc, OnceLock},
};

use whimbrel::{Outcome, Receipt, ReceiptState};
use whimbrel_bindings_support::{Bound, Call};

use crate::{
    border::{self, boundary},
    call::{self, Patience},
    callback::{Callback, Context, whimbrel_drop_fn, whimbrel_outcome_fn},
    cancel::whimbrel_cancel_token,
    engine::Engine,
    error::{self, whimbrel_status},
};

/// What sending gives: the way to follow a message. Freeing it changes nothing about the message.
pub struct whimbrel_receipt(Bound<Inner>);

struct Inner {
    receipt: Receipt,
    message_id: OnceLock<CString>,
    engine: Arc<Engine>,
}

impl whimbrel_receipt {
    pub(crate) fn new(receipt: Receipt, engine: Arc<Engine>) -> Self {
        Self(Bound::new(Inner { receipt, message_id: OnceLock::new(), engine }))
    }
}

/// Where a message is.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_receipt_state {
    /// It ended so long ago that its outcome is no longer kept, or the outbox is gone.
    WHIMBREL_RECEIPT_UNKNOWN = 0,
    /// In the outbox.
    WHIMBREL_RECEIPT_QUEUED = 1,
    /// On its way, not acknowledged.
    WHIMBREL_RECEIPT_SENT = 2,
    /// Ended: whimbrel_receipt_outcome() says how, without waiting.
    WHIMBREL_RECEIPT_SETTLED = 3,
}

/// How a message ended.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum whimbrel_outcome_kind {
    /// An outcome that this version does not know; its reason names it.
    WHIMBREL_OUTCOME_UNKNOWN = 0,
    /// Durable at the hub.
    WHIMBREL_OUTCOME_DELIVERED = 1,
    /// Its time to live ended first.
    WHIMBREL_OUTCOME_EXPIRED = 2,
    /// Given up by this side; the reason is "made-room", "no-room" or "damaged".
    WHIMBREL_OUTCOME_DROPPED = 3,
    /// Refused by the hub for good; the reason is what it said.
    WHIMBREL_OUTCOME_REJECTED = 4,
}

/// How a message ended.
pub struct whimbrel_outcome {
    kind: whimbrel_outcome_kind,
    partition: i64,
    sequence: i64,
    reason: Option<CString>,
}

impl whimbrel_outcome {
    fn new(outcome: &Outcome) -> Self {
        use whimbrel_outcome_kind as to;
        let plain = |kind, reason: Option<&str>| Self {
            kind,
            partition: -1,
            sequence: -1,
            reason: reason.map(error::text),
        };
        match outcome {
            Outcome::Delivered { partition, sequence } => Self {
                partition: partition.map_or(-1, i64::from),
                sequence: sequence.and_then(|sequence| i64::try_from(sequence).ok()).unwrap_or(-1),
                ..plain(to::WHIMBREL_OUTCOME_DELIVERED, None)
            },
            Outcome::Expired => plain(to::WHIMBREL_OUTCOME_EXPIRED, None),
            Outcome::Dropped { reason } => plain(to::WHIMBREL_OUTCOME_DROPPED, Some(reason.name())),
            Outcome::Rejected { reason } => plain(to::WHIMBREL_OUTCOME_REJECTED, Some(reason)),
            other => plain(to::WHIMBREL_OUTCOME_UNKNOWN, Some(&format!("{other:?}"))),
        }
    }
}

/// The id to find the receipt again with, also after a restart: lent, and valid as long as the receipt. NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_receipt_message_id(receipt: *const whimbrel_receipt) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe {
        border::get(receipt, ptr::null(), |receipt| {
            let inner = receipt.0.get().ok()?;
            Some(CStr::as_ptr(inner.message_id.get_or_init(|| error::text(inner.receipt.message_id()))))
        })
    }
}

/// Where the message is now. WHIMBREL_RECEIPT_UNKNOWN for NULL. Never waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_receipt_get_state(
    receipt: *const whimbrel_receipt,
) -> whimbrel_receipt_state {
    use whimbrel_receipt_state as to;
    // SAFETY: promised by the program.
    unsafe {
        border::get(receipt, to::WHIMBREL_RECEIPT_UNKNOWN, |receipt| {
            Some(match receipt.0.get().ok()?.receipt.state() {
                ReceiptState::Queued => to::WHIMBREL_RECEIPT_QUEUED,
                ReceiptState::Sent => to::WHIMBREL_RECEIPT_SENT,
                ReceiptState::Settled(_) => to::WHIMBREL_RECEIPT_SETTLED,
                ReceiptState::Unknown => to::WHIMBREL_RECEIPT_UNKNOWN,
            })
        })
    }
}

/// Waits for the end of the message. Giving up changes nothing; call again.
///
/// @param receipt The receipt.
/// @param timeout_ms How long to wait at most; 0 looks only at what is known, WHIMBREL_FOREVER waits for as long as it takes.
/// @param cancel Stops the waiting; may be NULL.
/// @param[out] out The outcome; free it with whimbrel_outcome_free(). NULL on failure.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_TIMEOUT; WHIMBREL_STATUS_CANCELLED; WHIMBREL_STATUS_CLOSED when the device is closed
///         first; WHIMBREL_STATUS_NOT_FOUND when the outcome is no longer kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_receipt_outcome(
    receipt: *const whimbrel_receipt,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
    out: *mut *mut whimbrel_outcome,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::give(OUTCOME, out, || {
            let inner = border::borrow(OUTCOME, "receipt", receipt)?.0.get()?;
            let patience = Patience::read(OUTCOME, timeout_ms, cancel)?;
            call::join(OUTCOME, inner.outcome(patience))
        })
    }
}

/// As whimbrel_receipt_outcome(), with a callback. The receipt may be freed as soon as this has returned.
///
/// @param receipt The receipt.
/// @param timeout_ms As there.
/// @param cancel As there.
/// @param callback Gets the outcome, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_receipt_outcome_async(
    receipt: *const whimbrel_receipt,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
    callback: whimbrel_outcome_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(OUTCOME, || {
        let callback = Callback::new(OUTCOME, callback, context)?;
        // SAFETY: promised by the program.
        let inner = unsafe { border::borrow(OUTCOME, "receipt", receipt)?.0.get()? };
        // SAFETY: promised by the program.
        let patience = unsafe { Patience::read(OUTCOME, timeout_ms, cancel)? };
        inner.outcome(patience).start(move |outcome| callback.handle(outcome));
        Ok(())
    })
}

/// Frees a receipt and sets the variable to NULL.
///
/// @param receipt Address of the variable that holds it. NULL, or the address of a NULL, is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_receipt_free(receipt: *mut *mut whimbrel_receipt) {
    // SAFETY: promised by the program.
    unsafe { border::release(receipt) }
}

/// How the message ended. WHIMBREL_OUTCOME_UNKNOWN for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_outcome_get_kind(
    outcome: *const whimbrel_outcome,
) -> whimbrel_outcome_kind {
    // SAFETY: promised by the program.
    unsafe {
        border::get(outcome, whimbrel_outcome_kind::WHIMBREL_OUTCOME_UNKNOWN, |outcome| Some(outcome.kind))
    }
}

/// The partition of the event log that holds the message. -1 where the hub did not tell.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_outcome_partition(outcome: *const whimbrel_outcome) -> i64 {
    // SAFETY: promised by the program.
    unsafe { border::get(outcome, -1, |outcome| Some(outcome.partition)) }
}

/// The number of the message in its partition. -1 where the hub did not tell.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_outcome_sequence(outcome: *const whimbrel_outcome) -> i64 {
    // SAFETY: promised by the program.
    unsafe { border::get(outcome, -1, |outcome| Some(outcome.sequence)) }
}

/// Why it was dropped or rejected: lent, and valid as long as the outcome. NULL where there is no reason.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_outcome_reason(outcome: *const whimbrel_outcome) -> *const c_char {
    // SAFETY: promised by the program.
    unsafe {
        border::get(outcome, ptr::null(), |outcome| outcome.reason.as_ref().map(|reason| reason.as_ptr()))
    }
}

/// Frees an outcome and sets the variable to NULL.
///
/// @param outcome Address of the variable that holds it. NULL, or the address of a NULL, is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_outcome_free(outcome: *mut *mut whimbrel_outcome) {
    // SAFETY: promised by the program.
    unsafe { border::release(outcome) }
}

impl Inner {
    fn outcome(&self, patience: Patience) -> Call<whimbrel_outcome> {
        let receipt = self.receipt.clone();
        let call = patience.call(OUTCOME, &self.engine, async move { receipt.outcome().await });
        call.map(|outcome| whimbrel_outcome::new(&outcome))
    }
}

const OUTCOME: &str = "receipt.outcome";
