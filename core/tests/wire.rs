//! Everything our writers write our readers read, and no reader panics, whatever it is given.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, test_runner::FileFailurePersistence};
use whimbrel::{
    Lane, Message, Properties, SystemProperties,
    auth::{ConnectionString, Credential, EventHub, Key, SasToken},
    wire::{
        percent, record, time, topic,
        user_name::{self, UserName},
        v5,
    },
};

/// Texts of all kinds, often with what the encodings treat specially.
fn text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "%",
        "&",
        "=",
        "+",
        "/",
        "?",
        "$.",
        "%24.",
        "#",
        ";",
        "@",
        " ",
        "%2",
        "ü",
        "\u{1F4A7}",
    ]);
    let piece = prop_oneof![special.prop_map(str::to_owned), "[a-zA-Z0-9._~-]{1,6}", any::<String>()];
    vec(piece, 0..5).prop_map(|pieces| pieces.concat().replace('\0', ""))
}

fn id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9:.+%_#*?!(),=@$'-]{1,24}"
}

/// Within the years that can be written, in steps of `step` nanoseconds.
fn moment(step: i64) -> impl Strategy<Value = SystemTime> {
    (-62_135_596_800_i64..253_402_300_800, 0..1_000_000_000 / step).prop_map(move |(seconds, steps)| {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let second =
            if seconds < 0 { SystemTime::UNIX_EPOCH - whole } else { SystemTime::UNIX_EPOCH + whole };
        second + Duration::from_nanos((steps * step) as u64)
    })
}

fn system(step: i64) -> impl Strategy<Value = SystemProperties> {
    let texts = vec(option::weighted(0.3, text()), 11);
    let times = (option::of(moment(step)), option::of(moment(step)));
    (option::of(id()), texts, times).prop_map(|(message_id, texts, (creation_time, expiry_time))| {
        let mut texts = texts.into_iter();
        let mut next = || texts.next().flatten();
        SystemProperties {
            message_id,
            correlation_id: next(),
            user_id: next(),
            content_type: next(),
            content_encoding: next(),
            creation_time,
            expiry_time,
            to: next(),
            message_schema: next(),
            output_name: next(),
            interface_id: next(),
            component: next(),
            diagnostic_id: next(),
            diagnostic_context: next(),
        }
    })
}

/// Messages that pass `validate`, with times in steps of `step` nanoseconds.
fn message(step: i64) -> impl Strategy<Value = Message> {
    let lane = prop_oneof![Just(Lane::Telemetry), Just(Lane::Alert)];
    let properties = vec((text(), text()), 0..24);
    (lane, vec(any::<u8>(), 0..64), properties, system(step))
        .prop_map(|(lane, body, properties, system)| {
            let properties: Properties = properties.into_iter().collect();
            Message::in_lane(lane, body).with_properties(properties).with_system(system)
        })
        .prop_filter("valid", |message| message.validate().is_ok())
}

/// As `message`, in the lane of a message that came without a number.
fn plain(step: i64) -> impl Strategy<Value = Message> {
    message(step).prop_map(|message| {
        Message::telemetry(message.body().clone())
            .with_properties(message.properties().clone())
            .with_system(message.system().clone())
    })
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    record::encode(message, &mut bytes);
    bytes.split_off(6)
}

fn key() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 8..48).prop_map(|bytes| Key::from_bytes(&bytes))
}

fn connection_string() -> impl Strategy<Value = ConnectionString> {
    let host = || "[a-z][a-z0-9.-]{0,20}";
    // `;` separates parts, so an id that has one cannot be written.
    let identity = (id(), option::of(id()), option::of(host()));
    let named = (host(), option::of(any::<u16>()), key(), "[a-zA-Z0-9_@.-]{1,12}");
    (named, identity, any::<bool>(), 0..5).prop_map(
        |((host_name, port, key, policy), (device, module_id, gateway_host_name), emulator, kind)| {
            let device_side = kind < 3;
            let credential = match kind {
                0 => Credential::X509,
                1 => {
                    let token = SasToken::issue(&host_name, &key, None, SystemTime::UNIX_EPOCH);
                    Credential::Token(token)
                }
                2 => Credential::Key { policy: emulator.then_some(policy), key },
                _ => Credential::Key { policy: Some(policy), key },
            };
            ConnectionString {
                event_hub: (kind == 4)
                    .then_some(EventHub { entity_path: module_id.clone(), development_emulator: emulator }),
                host_name,
                gateway_host_name,
                port,
                device_id: device_side.then_some(device),
                module_id: module_id.filter(|_| device_side),
                credential,
            }
        },
    )
}

fn secret_of(connection_string: &ConnectionString) -> Option<String> {
    match &connection_string.credential {
        Credential::Key { key, .. } => Some(key.to_base64()),
        Credential::Token(token) => Some(token.clone()),
        Credential::X509 => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn records_come_back(message in message(1)) {
        let bytes = encoded(&message);
        let read = record::decode(bytes.clone().into()).unwrap();
        prop_assert_eq!(read.size(), message.size());
        prop_assert_eq!(read, message);
    }

    #[test]
    fn broken_records_never_panic(message in message(1), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>()) {
        let mut bytes = encoded(&message);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(read) = record::decode(bytes.into()) {
            prop_assert_eq!(&record::decode(encoded(&read).into()).unwrap(), &read);
        }
    }

    #[test]
    fn any_bytes_as_a_record(bytes in vec(any::<u8>(), 0..256)) {
        let mut bytes = bytes;
        let _ = record::decode(Bytes::copy_from_slice(&bytes));
        // Past the version and the lane, where most of the reading is.
        bytes.splice(0..0, [1, 0]);
        let _ = record::decode(bytes.into());
    }

    #[test]
    fn events_come_back_from_their_topic(message in plain(100), device in id(), module in option::of(id())) {
        let topic = topic::d2c(&device, module.as_deref(), &message);
        let bag = topic::parse_d2c(&topic, &device, module.as_deref()).unwrap();
        prop_assert_eq!(bag.into_message(Lane::Telemetry, message.body().clone()), message);
    }

    #[test]
    fn a_bag_may_be_written_in_other_ways(message in plain(100)) {
        let topic = topic::d2c("d", None, &message);
        let bag = topic.strip_prefix("devices/d/messages/events/").unwrap();
        let lower = bag.split('%').enumerate().map(|(index, part)| match part.split_at_checked(2) {
            Some((hex, rest)) if index > 0 => format!("{}{rest}", hex.to_lowercase()),
            _ => part.to_owned(),
        });
        let lower = lower.collect::<Vec<_>>().join("%");
        for bag in [bag.replace("%24.", "$."), lower, format!("?{bag}"), format!("{bag}/"), format!("&{bag}&")] {
            let topic = format!("devices/d/messages/events/{bag}");
            let read = topic::parse_d2c(&topic, "d", None).unwrap().into_message(Lane::Telemetry, message.body().clone());
            prop_assert_eq!(&read, &message, "{}", bag);
        }
    }

    #[test]
    fn commands_come_back_from_their_topic(message in plain(100), device in id()) {
        let topic = topic::c2d(&device, &message);
        let bag = topic::parse_c2d(&topic, &device).unwrap();
        prop_assert!(!bag.is_empty());
        let mut expected = message.clone();
        expected.system_mut().to = Some(format!("/devices/{device}/messages/deviceBound"));
        prop_assert_eq!(bag.into_message(Lane::Telemetry, message.body().clone()), expected);
    }

    #[test]
    fn any_text_as_a_topic(rest in text(), device in id(), separator in "[/?&=]{0,3}") {
        for topic in [
            rest.clone(),
            format!("devices/{device}{rest}"),
            format!("devices/{device}/messages/events{separator}{rest}"),
            format!("devices/{device}/messages/devicebound{separator}{rest}"),
        ] {
            for bag in [topic::parse_d2c(&topic, &device, None), topic::parse_c2d(&topic, &device)].into_iter().flatten() {
                let message = bag.into_message(Lane::Telemetry, "");
                prop_assert!(message.properties().iter().all(|(name, _)| !name.is_empty()));
            }
        }
    }

    #[test]
    fn user_properties_come_back(message in plain(1_000_000)) {
        let properties: Vec<_> = v5::user_properties(&message).map(|(name, value)| (name.concat(), value)).collect();
        let read = v5::message(
            message.system().content_type.as_deref(),
            properties.iter().map(|(name, value)| (name.as_str(), value.as_ref())),
            message.body().clone(),
        ).unwrap();
        prop_assert_eq!(read.number, None);
        prop_assert_eq!(read.message, message);
    }

    #[test]
    fn commands_come_back(message in plain(1_000_000), sequence in any::<u64>(), count in any::<u32>()) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(sequence >> 20);
        let properties: Vec<_> = v5::command_properties(sequence, at, count, &message)
            .map(|(name, value)| (name.concat(), value))
            .collect();
        let read = v5::command(
            message.system().content_type.as_deref(),
            properties.iter().map(|(name, value)| (name.as_str(), value.as_ref())),
            message.body().clone(),
        ).unwrap();
        prop_assert_eq!((read.sequence, read.enqueued_at, read.delivery_count), (Some(sequence), Some(at), Some(count)));
        prop_assert_eq!(read.message.properties(), message.properties());
        prop_assert_eq!(read.message.system(), message.system());
        prop_assert_eq!(read.message.body(), message.body());
    }

    #[test]
    fn any_user_properties(pairs in vec((text(), text()), 0..6), at in any::<bool>()) {
        let names: Vec<String> = pairs.iter().map(|(name, _)| if at { format!("@{name}") } else { name.clone() }).collect();
        let read = v5::message(None, names.iter().map(String::as_str).zip(pairs.iter().map(|(_, value)| value.as_str())), "");
        prop_assert!(!at || read.is_ok());
        let _ = v5::command(None, names.iter().map(String::as_str).zip(pairs.iter().map(|(_, value)| value.as_str())), "");
    }

    #[test]
    fn marks_come_back(number in any::<u64>(), alert in any::<bool>(), partition in any::<u32>(), sequence in option::of(any::<u64>()), any in text()) {
        let mark = v5::Number { lane: if alert { Lane::Alert } else { Lane::Telemetry }, number };
        prop_assert_eq!(v5::Number::parse(&mark.to_string()), Some(mark));
        let place = v5::Place { partition, sequence };
        prop_assert_eq!(v5::Place::parse(&place.to_string()), Some(place));
        let _ = (v5::Number::parse(&any), v5::Place::parse(&any), v5::Status::parse(&any));
    }

    #[test]
    fn user_names_come_back(host in "[a-z.]{1,12}", device in id(), module in option::of(id()), key in "[a-z-]{1,8}", value in text()) {
        let written = user_name::user_name(&host, &device, module.as_deref(), &[(&key, &value)]);
        let client_id = user_name::client_id(&device, module.as_deref());
        let read = UserName::parse(&written, &client_id).unwrap();
        prop_assert_eq!((read.host, read.device, read.module), (host.as_str(), device.as_str(), module.as_deref()));
        prop_assert_eq!(read.query(&key).unwrap(), value);
    }

    #[test]
    fn any_text_as_a_user_name(text in text(), client_id in text()) {
        for text in [text.clone(), format!("h/{client_id}{text}")] {
            if let Ok(read) = UserName::parse(&text, &client_id) {
                let _ = read.query("api-version");
            }
        }
    }

    #[test]
    fn percent_encoding_comes_back(text in any::<String>()) {
        let written = percent::encoded(&text);
        prop_assert!(written.is_ascii());
        prop_assert_eq!(percent::decode(&written), text.as_str());
        let _ = percent::decode(&text);
    }

    #[test]
    fn times_come_back(moment in moment(100), any in "[0-9TZ:.+ -]{0,40}", more in any::<String>()) {
        prop_assert_eq!(time::parse(&time::format(moment)), Some(moment));
        let _ = (time::parse(&any), time::parse(&more));
    }

    #[test]
    fn tokens_come_back(key in key(), other in key(), host in "[a-z.]{1,12}", device in id(), policy in option::of("[a-zA-Z0-9_@.-]{1,12}"), expiry in any::<u32>()) {
        let resource = format!("{host}/devices/{device}");
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(expiry));
        let token = SasToken::parse(&SasToken::issue(&resource, &key, policy.as_deref(), expires_at)).unwrap();
        prop_assert!(token.is_signed_by(&key) && token.covers(&resource) && !token.covers(&host));
        prop_assert!(key == other || !token.is_signed_by(&other));
        let longer = format!("{}x", resource);
        prop_assert!(!token.covers(&longer));
        prop_assert_eq!(token.expires_at(), expires_at);
        prop_assert_eq!(token.policy, policy);
        let mut forged = SasToken::parse(&SasToken::issue(&resource, &key, None, expires_at)).unwrap();
        forged.expiry += 1;
        prop_assert!(!forged.is_signed_by(&key));
    }

    #[test]
    fn any_text_as_a_token(text in text(), fields in "(&?(sr|sig|se|skn)=[a-zA-Z0-9%/+=]{0,12}){0,6}") {
        for text in [text, format!("SharedAccessSignature {fields}")] {
            if let Ok(token) = SasToken::parse(&text) {
                let _ = (token.covers("h/devices/d"), token.expires_at());
                prop_assert!(!token.is_signed_by(&Key::from_bytes(b"not this key")));
            }
        }
    }

    #[test]
    fn connection_strings_come_back_and_keep_their_secret(written in connection_string()) {
        let read: ConnectionString = written.reveal().parse().unwrap();
        prop_assert_eq!(&read, &written);
        if let Some(secret) = secret_of(&read) {
            for shown in [read.to_string(), format!("{read:?}")] {
                prop_assert!(!shown.contains(&secret), "{}", shown);
            }
        }
    }

    #[test]
    fn broken_connection_strings_keep_their_secret(written in connection_string(), place in any::<prop::sample::Index>(), what in "[;= a-zA-Z]{0,2}") {
        let mut text = written.reveal();
        let place = place.index(text.len());
        text.replace_range(place..place + 1, &what);
        if let (Err(error), Some(secret)) = (text.parse::<ConnectionString>(), secret_of(&written)) {
            prop_assert!(!format!("{error} {error:?}").contains(&secret), "{}", error);
        }
    }

    #[test]
    fn what_is_valid_fits_into_a_topic(name in text(), length in 50_000_usize..66_000, wide in any::<bool>(), system in system(100)) {
        let value = if wide { "ü".repeat(length / 6) } else { "x".repeat(length) };
        let message = Message::telemetry("").with_system(system).property(name, value);
        let longest = "d".repeat(128);
        let topic = topic::d2c(&longest, Some(&longest), &message);
        if message.validate().is_ok() {
            prop_assert!(topic.len() <= 65_535, "{}", topic.len());
        } else {
            // Nothing is refused that would fit with room to spare.
            let invalid_name = message.properties().iter().any(|(name, _)| name.is_empty() || name.starts_with("$."));
            prop_assert!(invalid_name || topic.len() > 65_535 - 200, "{}", topic.len());
        }
    }
}
