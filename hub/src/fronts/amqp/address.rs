//! Addresses of nodes: what a link wants, from the texts that clients use for it.

use whimbrel::wire::percent;

/// What a link is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `$cbs`: tokens.
    Cbs,
    /// `/devices/{id}[/modules/{id}]/messages/events`: events of a device, or input of a module.
    DeviceEvents(Ids),
    /// `/devices/{id}/messages/devicebound`: commands of a device.
    DeviceCommands(Ids),
    /// Anything else below `/devices/{id}`: twin, methods.
    DeviceOther,
    /// `/messages/devicebound`: commands are sent here.
    Commands,
    /// `/messages/serviceBound/feedback`.
    Feedback,
    /// `/messages/whimbrel/outcomes`, ours.
    Outcomes,
    /// `/messages/serviceBound/filenotifications`, or `fileuploadnotifications`.
    FileNotifications,
    /// `$management`, alone or below an event hub's name or `messages/events`. Holds what stands before it.
    Management(Vec<String>),
    /// Reading events: `{event hub}/ConsumerGroups/{group}/Partitions/{partition}`, or the same below `messages/events`.
    Events {
        /// The event hub's name; `messages/events` in its other form.
        hub: String,
        group: String,
        partition: String,
    },
    Unknown,
}

/// Ids in an address. They may stand there as they are or percent-encoded, and `%41` may be either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    device: String,
    module: Option<String>,
}

impl Ids {
    /// Device and module, decoded; and as they stand, where that makes a difference.
    pub(super) fn readings(&self) -> impl Iterator<Item = (String, Option<String>)> + '_ {
        let decoded = (
            percent::decode(&self.device).into_owned(),
            self.module.as_deref().map(|module| percent::decode(module).into_owned()),
        );
        let raw = (self.device.clone(), self.module.clone());
        let differs = decoded != raw;
        std::iter::once(decoded).chain(differs.then_some(raw))
    }
}

impl Address {
    /// Reads an address: a path, or a URI whose scheme and host do not count. Words are compared without case, ids and
    /// names stay as they are.
    pub(super) fn parse(text: &str) -> Self {
        let path = match text.split_once("://") {
            Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
            None => text,
        };
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let is = |part: &str, word: &str| part.eq_ignore_ascii_case(word);
        match *parts.as_slice() {
            [node] if is(node, "$cbs") => Self::Cbs,
            [devices, device, messages, end] if is(devices, "devices") && is(messages, "messages") => {
                let ids = Ids { device: device.to_owned(), module: None };
                match end {
                    end if is(end, "events") => Self::DeviceEvents(ids),
                    end if is(end, "devicebound") => Self::DeviceCommands(ids),
                    _ => Self::Unknown,
                }
            }
            [devices, device, modules, module, messages, end]
                if is(devices, "devices") && is(modules, "modules") && is(messages, "messages") =>
            {
                let ids = Ids { device: device.to_owned(), module: Some(module.to_owned()) };
                match end {
                    end if is(end, "events") => Self::DeviceEvents(ids),
                    end if is(end, "devicebound") => Self::DeviceCommands(ids),
                    _ => Self::Unknown,
                }
            }
            [devices, _, ..] if is(devices, "devices") => Self::DeviceOther,
            [messages, end] if is(messages, "messages") && is(end, "devicebound") => Self::Commands,
            [messages, ours, end]
                if is(messages, "messages") && is(ours, "whimbrel") && is(end, "outcomes") =>
            {
                Self::Outcomes
            }
            [messages, bound, end] if is(messages, "messages") && is(bound, "servicebound") => match end {
                end if is(end, "feedback") => Self::Feedback,
                end if is(end, "filenotifications") || is(end, "fileuploadnotifications") => {
                    Self::FileNotifications
                }
                _ => Self::Unknown,
            },
            [ref before @ .., node] if is(node, "$management") => {
                Self::Management(before.iter().map(|part| (*part).to_owned()).collect())
            }
            [ref hub @ .., groups, group, partitions, partition]
                if is(groups, "ConsumerGroups") && is(partitions, "Partitions") && !hub.is_empty() =>
            {
                Self::Events {
                    hub: hub.join("/"),
                    group: percent::decode(group).into_owned(),
                    partition: partition.to_owned(),
                }
            }
            _ => Self::Unknown,
        }
    }
}

/// The device in `to` of a command: `/devices/{id}/messages/devicebound`, the id percent-encoded.
pub(super) fn command_target(to: &str) -> Option<String> {
    match Address::parse(to) {
        Address::DeviceCommands(Ids { device, module: None }) => Some(percent::decode(&device).into_owned()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;

    fn ids(device: &str, module: Option<&str>) -> Ids {
        Ids { device: device.into(), module: module.map(Into::into) }
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        let events = |hub: &str, group: &str, partition: &str| Address::Events {
            hub: hub.into(),
            group: group.into(),
            partition: partition.into(),
        };
        for (text, expected) in [
            ("$cbs", Address::Cbs),
            ("/devices/Dev-1/messages/events", Address::DeviceEvents(ids("Dev-1", None))),
            ("amqps://hub.example/devices/d/messages/Events", Address::DeviceEvents(ids("d", None))),
            ("amqps://hub.example:5671/DEVICES/d/Messages/events/", Address::DeviceEvents(ids("d", None))),
            ("/devices/d/modules/m/messages/events", Address::DeviceEvents(ids("d", Some("m")))),
            ("/devices/a%20b/messages/deviceBound", Address::DeviceCommands(ids("a%20b", None))),
            ("/devices/d/twin", Address::DeviceOther),
            ("/devices/d/methods/deviceBound", Address::DeviceOther),
            ("/messages/deviceBound", Address::Commands),
            ("/messages/serviceBound/feedback", Address::Feedback),
            ("messages/servicebound/FileUploadNotifications", Address::FileNotifications),
            ("/messages/serviceBound/filenotifications", Address::FileNotifications),
            ("/messages/whimbrel/outcomes", Address::Outcomes),
            ("$management", Address::Management(vec![])),
            (
                "amqps://h:5671/messages/events/$management",
                Address::Management(vec!["messages".into(), "events".into()]),
            ),
            ("hub/ConsumerGroups/$Default/Partitions/0", events("hub", "$Default", "0")),
            ("sb://h/hub/consumergroups/a%20b/partitions/31", events("hub", "a b", "31")),
            ("/messages/events/ConsumerGroups/g/Partitions/1", events("messages/events", "g", "1")),
            ("", Address::Unknown),
            ("/", Address::Unknown),
            ("amqps://hub.example", Address::Unknown),
            ("/devices", Address::Unknown),
            ("/devices/d/messages/other", Address::Unknown),
            ("/messages", Address::Unknown),
            ("ConsumerGroups/g/Partitions/0", Address::Unknown),
        ] {
            assert_eq!(Address::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn ids_have_two_readings_only_where_they_differ() {
        let read = |text| ids(text, None).readings().map(|(device, _)| device).collect::<Vec<_>>();
        assert_eq!(read("plain"), ["plain"]);
        assert_eq!(read("100%25"), ["100%", "100%25"]);
        assert_eq!(read("100%"), ["100%"]);
    }

    #[test]
    fn commands_name_their_device() {
        assert_eq!(command_target("/devices/a%2Fb/messages/devicebound").as_deref(), Some("a/b"));
        for none in ["", "/messages/devicebound", "/devices/d", "/devices/d/modules/m/messages/devicebound"] {
            assert_eq!(command_target(none), None, "{none}");
        }
    }
}
