//! Letting go of everything for a while.

use std::{ffi::c_void, time::Duration};

use whimbrel_bindings_support::Call;

use crate::{
    border::{self, boundary},
    call::{self, Patience},
    callback::{Callback, Context, whimbrel_count_fn, whimbrel_done_fn, whimbrel_drop_fn},
    cancel::whimbrel_cancel_token,
    device::{Device, time, whimbrel_device},
    error::whimbrel_status,
};

/// Gets ready for a time without power or network, such as deep sleep: flushes for at most a budget, says goodbye to the hub, and lets go
/// of link, files and lock. Only the device's own thread stays, asleep. It takes no longer than the budget and the closing of the files.
///
/// Until whimbrel_device_resume(), calls that need the outbox fail with WHIMBREL_STATUS_CLOSED; the figures stay as they are; waiting for
/// commands, outcomes and changes of the connection goes on. A command that was taken and not settled can be settled after resuming.
/// Suspending twice is fine. Giving up stops the waiting, not the suspending.
///
/// @param device The device.
/// @param budget_ms How long to flush at most.
/// @param cancel Stops the waiting; may be NULL.
/// @param[out] out_left How many messages are still queued; 0 on failure.
/// @return WHIMBREL_STATUS_OK, also when messages are left; WHIMBREL_STATUS_INVALID_ARGUMENT for a negative budget;
///         WHIMBREL_STATUS_JOURNAL_IO, WHIMBREL_STATUS_DISK_FULL when not everything could be written: told once, and the device is
///         suspended all the same; WHIMBREL_STATUS_CLOSED; WHIMBREL_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_suspend(
    device: *const whimbrel_device,
    budget_ms: i64,
    cancel: *const whimbrel_cancel_token,
    out_left: *mut u64,
) -> whimbrel_status {
    // SAFETY: promised by the program.
    unsafe {
        border::tell(SUSPEND, out_left, 0, || {
            let device = border::borrow(SUSPEND, "device", device)?.0.get()?;
            let patience = Patience::read(SUSPEND, call::WHIMBREL_FOREVER, cancel)?;
            call::join(SUSPEND, device.suspend(time(SUSPEND, "budget_ms", budget_ms)?, patience))
        })
    }
}

/// As whimbrel_device_suspend(), with a callback.
///
/// @param device The device.
/// @param budget_ms As there.
/// @param callback Is told how many messages are left, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_suspend_async(
    device: *const whimbrel_device,
    budget_ms: i64,
    callback: whimbrel_count_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(SUSPEND, || {
        let callback = Callback::new(SUSPEND, callback, context)?;
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(SUSPEND, "device", device)?.0.get()? };
        let suspend = device.suspend(time(SUSPEND, "budget_ms", budget_ms)?, Patience::endless());
        suspend.start(move |left| callback.count(left));
        Ok(())
    })
}

/// Opens the outbox again after whimbrel_device_suspend(), as it is found on the disk, and connects in the background, with the options the
/// device was opened with. When it fails the device stays suspended: call again. Resuming twice is fine. Giving up stops the waiting,
/// not the resuming.
///
/// @param device The device.
/// @param timeout_ms How long to wait for the disk at most, or WHIMBREL_FOREVER.
/// @param cancel Stops the waiting; may be NULL.
/// @return WHIMBREL_STATUS_OK; WHIMBREL_STATUS_JOURNAL_IO when the storage is not available; WHIMBREL_STATUS_IN_USE when somebody else has
///         opened the outbox; WHIMBREL_STATUS_CONFLICT when another outbox is in its place; WHIMBREL_STATUS_INVALID_ARGUMENT when a
///         certificate cannot be read any more; WHIMBREL_STATUS_DISK_FULL; WHIMBREL_STATUS_CLOSED; WHIMBREL_STATUS_TIMEOUT;
///         WHIMBREL_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_resume(
    device: *const whimbrel_device,
    timeout_ms: i64,
    cancel: *const whimbrel_cancel_token,
) -> whimbrel_status {
    boundary(RESUME, || {
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(RESUME, "device", device)?.0.get()? };
        // SAFETY: promised by the program.
        let patience = unsafe { Patience::read(RESUME, timeout_ms, cancel)? };
        call::join(RESUME, device.resume(patience))
    })
}

/// As whimbrel_device_resume(), with a callback.
///
/// @param device The device.
/// @param callback Is told the end, on the device's thread. It must not wait.
/// @param context What it is given.
/// @param drop Frees the context; may be NULL. Called in any case.
/// @return WHIMBREL_STATUS_OK: the callback is called, once. Otherwise it is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_device_resume_async(
    device: *const whimbrel_device,
    callback: whimbrel_done_fn,
    context: *mut c_void,
    drop: whimbrel_drop_fn,
) -> whimbrel_status {
    let context = Context::new(context, drop);
    boundary(RESUME, || {
        let callback = Callback::new(RESUME, callback, context)?;
        // SAFETY: promised by the program.
        let device = unsafe { border::borrow(RESUME, "device", device)?.0.get()? };
        device.resume(Patience::endless()).start(move |done| callback.done(done));
        Ok(())
    })
}

impl Device {
    fn suspend(&self, budget: Duration, patience: Patience) -> Call<u64> {
        let client = self.client.clone();
        patience.call(SUSPEND, &self.engine, async move { client.suspend(budget).await })
    }

    fn resume(&self, patience: Patience) -> Call<()> {
        let client = self.client.clone();
        patience.call(RESUME, &self.engine, async move { client.resume().await })
    }
}

const SUSPEND: &str = "device.suspend";
const RESUME: &str = "device.resume";
