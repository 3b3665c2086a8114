//! MQTT 5 user properties: whatever is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel::wire::v5;

fuzz_target!(|input: (Option<&str>, Vec<(&str, &str)>)| {
    let (content_type, properties) = input;
    for (_, value) in &properties {
        let _ = (v5::Number::parse(value), v5::Place::parse(value), v5::Status::parse(value));
    }
    if let Ok(received) = v5::command(content_type, properties.iter().copied(), "body") {
        let (sequence, count) = (received.sequence.unwrap_or(0), received.delivery_count.unwrap_or(0));
        let at = received.enqueued_at.unwrap_or(std::time::SystemTime::UNIX_EPOCH);
        let message = received.message;
        let written: Vec<_> = v5::command_properties(sequence, at, count, &message)
            .map(|(name, value)| (name.concat(), value))
            .collect();
        let pairs = written.iter().map(|(name, value)| (name.as_str(), value.as_ref()));
        let again =
            v5::command(message.system().content_type.as_deref(), pairs, "body").expect("our own properties");
        assert_eq!((again.sequence, again.delivery_count), (Some(sequence), Some(count)));
        assert_eq!(again.message.system().message_id, message.system().message_id);
    }
    if let Ok(received) = v5::message(content_type, properties, "body") {
        let message = received.message;
        let written: Vec<_> =
            v5::user_properties(&message).map(|(name, value)| (name.concat(), value)).collect();
        let pairs = written.iter().map(|(name, value)| (name.as_str(), value.as_ref()));
        let again =
            v5::message(message.system().content_type.as_deref(), pairs, "body").expect("our own properties");
        assert_eq!(again.message.properties(), message.properties());
        assert_eq!(again.message.system().message_id, message.system().message_id);
    }
});
