//! System properties as keys of the MQTT 3.1.1 property bag, without the leading `$.`.

use super::time;
use crate::{
    SystemProperties,
    message::{SystemName, SystemSlot, SystemValue},
};

/// What all keys of system properties start with.
pub(super) const PREFIX: &str = "$.";

pub(super) const fn key(name: SystemName) -> &'static str {
    match name {
        SystemName::MessageId => "mid",
        SystemName::CorrelationId => "cid",
        SystemName::UserId => "uid",
        SystemName::ContentType => "ct",
        SystemName::ContentEncoding => "ce",
        SystemName::CreationTime => "ctime",
        SystemName::ExpiryTime => "exp",
        SystemName::To => "to",
        SystemName::MessageSchema => "schema",
        SystemName::OutputName => "on",
        SystemName::InterfaceId => "ifid",
        SystemName::Component => "sub",
        SystemName::DiagnosticId => "diagid",
        SystemName::DiagnosticContext => "diagctx",
    }
}

/// Sets the system property called `name` (with its `$.`). Gives `false`, and changes nothing, when there is none of that
/// name or its value cannot be read: then it is passed on as an application property, so that nothing is lost.
pub(super) fn set(system: &mut SystemProperties, name: &str, value: &str) -> bool {
    let Some(key) = name.strip_prefix(PREFIX) else { return false };
    let Some(name) = SystemName::ALL.into_iter().find(|name| self::key(*name) == key) else { return false };
    match system.slot(name) {
        SystemSlot::Text(text) => *text = Some(value.to_owned()),
        SystemSlot::Time(slot) => match time::parse(value) {
            Some(time) => *slot = Some(time),
            None => return false,
        },
    }
    true
}

/// The value as text; a time goes through `buffer`.
pub(super) fn text<'a>(value: SystemValue<'a>, buffer: &'a mut String) -> &'a str {
    match value {
        SystemValue::Text(text) => text,
        SystemValue::Time(at) => {
            buffer.clear();
            time::write(at, buffer);
            buffer
        }
    }
}
