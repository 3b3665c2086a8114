//! Stored bytes: whatever is read can be written and read again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use whimbrel::wire::record;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = record::decode(Bytes::copy_from_slice(bytes)) {
        let mut written = Vec::new();
        record::encode(&message, &mut written);
        assert_eq!(record::decode(written.into()).expect("our own record"), message);
    }
});
