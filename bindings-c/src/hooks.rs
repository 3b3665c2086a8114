//! What only tests need; not in the header, and not in what is handed out.

use whimbrel::Result;

use crate::{border::boundary, call::Patience, device::whimbrel_device, error::whimbrel_status};

/// Panics: on this thread, or with a device on its thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn whimbrel_test_panic(device: *const whimbrel_device) -> whimbrel_status {
    const OPERATION: &str = "test.panic";
    boundary(OPERATION, || {
        if device.is_null() {
            panic!("asked for");
        }
        // SAFETY: promised by the test.
        let engine = unsafe { crate::border::borrow(OPERATION, "device", device)? }.engine()?;
        let panics = async { panic!("asked for, on the device's thread") };
        let result: Result<()> =
            crate::call::join(OPERATION, Patience::endless().call(OPERATION, engine, panics));
        result
    })
}
