//! MQTT 3.1.1 topics: whatever is read and valid can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel::{
    Lane,
    wire::{time, topic},
};

fuzz_target!(|text: &str| {
    let _ = (time::parse(text), topic::parse_d2c(text, "d", Some("m")));
    for bag in [topic::parse_d2c(text, "d", None), topic::parse_c2d(text, "d")].into_iter().flatten() {
        let message = bag.into_message(Lane::Telemetry, "body");
        // What only looks like a system property passes through, but nobody may send it.
        if message.validate().is_ok() {
            let written = topic::d2c("d", None, &message);
            let bag = topic::parse_d2c(&written, "d", None).expect("our own topic");
            let times = [message.system().creation_time, message.system().expiry_time];
            let again = bag.into_message(Lane::Telemetry, "body");
            // A topic holds steps of 100 ns.
            if times.into_iter().flatten().all(|at| time::parse(&time::format(at)) == Some(at)) {
                assert_eq!(again, message);
            }
        }
    }
});
