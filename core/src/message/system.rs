//! System properties.

use std::time::SystemTime;

/// The fixed set of properties the hub knows. Names on each protocol: contract `messages.md`.
///
/// Times are kept to 100 ns on the wire (MQTT 5: to the millisecond).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemProperties {
    /// Finds the outcome of this message; at most [`MESSAGE_ID_LIMIT`](super::MESSAGE_ID_LIMIT) characters.
    pub message_id: Option<String>,
    /// Joins this message to another one.
    pub correlation_id: Option<String>,
    /// Who caused the message.
    pub user_id: Option<String>,
    /// Content type of the body.
    pub content_type: Option<String>,
    /// Character set of the body.
    pub content_encoding: Option<String>,
    /// When the content was made, by the sender's clock.
    pub creation_time: Option<SystemTime>,
    /// When the message ends to be of use.
    pub expiry_time: Option<SystemTime>,
    /// Destination, as some senders set it.
    pub to: Option<String>,
    /// Schema of the content.
    pub message_schema: Option<String>,
    /// Output of a module.
    pub output_name: Option<String>,
    /// Interface id of a security message.
    pub interface_id: Option<String>,
    /// Component the message belongs to.
    pub component: Option<String>,
    /// Trace id.
    pub diagnostic_id: Option<String>,
    /// Trace context.
    pub diagnostic_context: Option<String>,
}

impl SystemProperties {
    /// The value under `name`, if it is set.
    pub(crate) fn value(&self, name: SystemName) -> Option<SystemValue<'_>> {
        let text = match name {
            SystemName::MessageId => &self.message_id,
            SystemName::CorrelationId => &self.correlation_id,
            SystemName::UserId => &self.user_id,
            SystemName::ContentType => &self.content_type,
            SystemName::ContentEncoding => &self.content_encoding,
            SystemName::CreationTime => return self.creation_time.map(SystemValue::Time),
            SystemName::ExpiryTime => return self.expiry_time.map(SystemValue::Time),
            SystemName::To => &self.to,
            SystemName::MessageSchema => &self.message_schema,
            SystemName::OutputName => &self.output_name,
            SystemName::InterfaceId => &self.interface_id,
            SystemName::Component => &self.component,
            SystemName::DiagnosticId => &self.diagnostic_id,
            SystemName::DiagnosticContext => &self.diagnostic_context,
        };
        text.as_deref().map(SystemValue::Text)
    }

    /// The place of the value under `name`, to fill.
    pub(crate) fn slot(&mut self, name: SystemName) -> SystemSlot<'_> {
        SystemSlot::Text(match name {
            SystemName::MessageId => &mut self.message_id,
            SystemName::CorrelationId => &mut self.correlation_id,
            SystemName::UserId => &mut self.user_id,
            SystemName::ContentType => &mut self.content_type,
            SystemName::ContentEncoding => &mut self.content_encoding,
            SystemName::CreationTime => return SystemSlot::Time(&mut self.creation_time),
            SystemName::ExpiryTime => return SystemSlot::Time(&mut self.expiry_time),
            SystemName::To => &mut self.to,
            SystemName::MessageSchema => &mut self.message_schema,
            SystemName::OutputName => &mut self.output_name,
            SystemName::InterfaceId => &mut self.interface_id,
            SystemName::Component => &mut self.component,
            SystemName::DiagnosticId => &mut self.diagnostic_id,
            SystemName::DiagnosticContext => &mut self.diagnostic_context,
        })
    }

    /// What is set, in the order of [`SystemName::ALL`].
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SystemName, SystemValue<'_>)> {
        SystemName::ALL.into_iter().filter_map(|name| self.value(name).map(|value| (name, value)))
    }
}

/// Names one of the [`SystemProperties`]. The order is part of the record format: new ones go last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SystemName {
    MessageId,
    CorrelationId,
    UserId,
    ContentType,
    ContentEncoding,
    CreationTime,
    ExpiryTime,
    To,
    MessageSchema,
    OutputName,
    InterfaceId,
    Component,
    DiagnosticId,
    DiagnosticContext,
}

impl SystemName {
    pub(crate) const ALL: [Self; 14] = [
        Self::MessageId,
        Self::CorrelationId,
        Self::UserId,
        Self::ContentType,
        Self::ContentEncoding,
        Self::CreationTime,
        Self::ExpiryTime,
        Self::To,
        Self::MessageSchema,
        Self::OutputName,
        Self::InterfaceId,
        Self::Component,
        Self::DiagnosticId,
        Self::DiagnosticContext,
    ];

    /// What people call it, in errors.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MessageId => "message id",
            Self::CorrelationId => "correlation id",
            Self::UserId => "user id",
            Self::ContentType => "content type",
            Self::ContentEncoding => "content encoding",
            Self::CreationTime => "creation time",
            Self::ExpiryTime => "expiry time",
            Self::To => "to",
            Self::MessageSchema => "message schema",
            Self::OutputName => "output name",
            Self::InterfaceId => "interface id",
            Self::Component => "component",
            Self::DiagnosticId => "diagnostic id",
            Self::DiagnosticContext => "diagnostic context",
        }
    }
}

/// The value of a system property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SystemValue<'a> {
    Text(&'a str),
    Time(SystemTime),
}

/// Where the value of a system property goes.
#[derive(Debug)]
pub(crate) enum SystemSlot<'a> {
    Text(&'a mut Option<String>),
    Time(&'a mut Option<SystemTime>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_slot_of_its_own() {
        for (index, name) in SystemName::ALL.into_iter().enumerate() {
            assert_eq!(name as usize, index, "the order is part of the record format");
            let mut system = SystemProperties::default();
            match system.slot(name) {
                SystemSlot::Text(text) => *text = Some("value".into()),
                SystemSlot::Time(time) => *time = Some(SystemTime::UNIX_EPOCH),
            }
            let set: Vec<SystemName> = system.iter().map(|(name, _)| name).collect();
            assert_eq!(set, [name]);
        }
    }
}
