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

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::{DeviceOptions, Failure};

    fn accept(device: u64, token: u64, body: &[u8], draft: &[u8]) -> i32 {
        // SAFETY: the device is none, or one that the test keeps; the slices are whole.
        unsafe {
            let (body_length, draft_length) = (body.len() as u64, draft.len() as u64);
            whimbrel_uniffi_accept(device, token, body.as_ptr(), body_length, draft.as_ptr(), draft_length)
        }
    }

    #[test]
    fn wrong_calls_are_refused_and_say_why() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let options = DeviceOptions {
            outbox_in_memory: true,
            server: Some("mqtt://127.0.0.1:9".into()),
            ..DeviceOptions::default()
        };
        let open = Device::open("HostName=hub;DeviceId=d;SharedAccessKey=c2VjcmV0".into(), options, None);
        let device = runtime.block_on(open).unwrap();
        assert_eq!(accept(0, 1, b"x", b""), REFUSED, "there is no such device");
        assert_eq!(accept(device.address(), 2, b"x", &[0xff; 3]), REFUSED, "that is no draft");
        assert!(matches!(device.refusal(2), Some(Failure::Internal { .. })));
        assert!(device.refusal(2).is_none(), "told once");
        assert_eq!(accept(device.address(), 3, &vec![0; 300_000], b""), REFUSED);
        assert!(matches!(device.refusal(3), Some(Failure::PayloadTooLarge { .. })));
        assert_eq!(accept(device.address(), 4, b"x", b""), TAKEN_IN);
        // SAFETY: the device is kept, and null stands for nothing.
        let empty = unsafe { whimbrel_uniffi_accept(device.address(), 5, ptr::null(), 0, ptr::null(), 0) };
        assert_eq!(empty, TAKEN_IN);
        assert_eq!(device.account().unwrap().queued, 2);
    }
}
