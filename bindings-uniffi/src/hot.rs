//! The one call that is made for every message, for languages in which the generator's own calls cost more than the message.
//! What crosses is numbers and the caller's arrays, which are read before this returns.

use std::slice;

use uniffi::Lift;
use whimbrel::{Error, ErrorKind};
use whimbrel_bindings_support::guard;

use crate::{Device, Draft, UniFfiTag};

/// [`Device::accept`], without a way to say why it failed: 0 when the message was taken in, another number when it was not. Then
/// [`Device::refusal`] says why.
///
/// `draft` is a `Draft` as the generated code writes it, or null for none.
///
/// # Safety
/// `device` is what [`Device::address`] gave, of an object that lives until this returns. `body` and `draft` point to as many
/// bytes as are told, which nobody writes to meanwhile; either may be null where it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_uniffi_accept(
    device: u64,
    token: u64,
    body: *const u8,
    body_length: u64,
    draft: *const u8,
    draft_length: u64,
) -> i32 {
    // SAFETY: it is the address of an object that lives, as the caller promises.
    let device = unsafe { (device as *const Device).as_ref() };
    // SAFETY: the caller promises so many bytes.
    let (body, draft) = unsafe { (bytes(body, body_length), bytes(draft, draft_length)) };
    let Some(device) = device else { return REFUSED };
    let accepted = guard("device.send", || {
        let draft = match draft {
            [] => None,
            mut written => Some(<Draft as Lift<UniFfiTag>>::try_read(&mut written).map_err(|error| {
                Error::new(
                    ErrorKind::Internal,
                    "device.send",
                    format!("what is said about the message is unreadable: {error}"),
                )
            })?),
        };
        device.take_in(token, body.to_vec(), draft)
    });
    match accepted {
        Ok(()) => TAKEN_IN,
        Err(error) => {
            device.refuse(token, error.into());
            REFUSED
        }
    }
}

/// # Safety
/// `start` is null, or points to so many bytes that nobody writes to for as long as the result is used.
unsafe fn bytes<'a>(start: *const u8, length: u64) -> &'a [u8] {
    match usize::try_from(length) {
        // SAFETY: as promised.
        Ok(length @ 1..) if !start.is_null() => unsafe { slice::from_raw_parts(start, length) },
        _ => &[],
    }
}

const TAKEN_IN: i32 = 0;
const REFUSED: i32 = 1;
