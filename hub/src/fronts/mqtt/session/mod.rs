//! What a client may do after it was let in: packets in, publications and effects out. No sockets, no clock, no store.

mod window;

pub(crate) use window::Window;

use std::{num::NonZeroU16, time::SystemTime};

use bytestring::ByteString;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{self, DisconnectReasonCode as Code},
};
use whimbrel::{
    Lane, Message,
    transport::Settlement,
    wire::{
        topic,
        v5::{COMMANDS, Status},
    },
};

use super::{
    command::{Form, Shape},
    connect::{self, Admission, Method, TOPIC_ALIASES},
    metrics::Closed,
    packet::{Granted, Packet, Reply, Version},
    publish::{self, Fault},
};
use crate::{
    access::{Access, Admitted},
    events::{NewEvent, Origin},
    sessions::{Assurance, Order, Subscriptions},
};

/// What one read brought.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Publications in the order they came, refused ones in their places.
    pub(crate) publications: Vec<Publication>,
    /// What else is to be done, in order.
    pub(crate) effects: Vec<Effect>,
}

/// One PUBLISH.
#[derive(Debug)]
pub(crate) struct Publication {
    /// To be acknowledged by.
    pub(crate) id: Option<NonZeroU16>,
    /// Bytes of its packet.
    pub(crate) bytes: usize,
    /// What becomes of it.
    pub(crate) fate: Fate,
}

/// What becomes of a publication.
#[derive(Debug)]
// Nearly all are stored: a box for each would cost more than the few refused ones waste.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Fate {
    /// It is an event; with lane and number from clients that offered de-duplication.
    Store(Message, Option<(Lane, u64)>),
    /// It is refused for good.
    Refuse(Status, &'static str),
}

/// What is to be done besides storing.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Say this.
    Reply(Reply),
    /// The subscriptions may have changed: say this once they are kept.
    Subscribed(Reply),
    /// A command was acknowledged.
    Acknowledged(NonZeroU16, Settlement),
    /// The session is not kept after all.
    Forget,
    /// Check the credentials again.
    Reauthenticate(Box<v5::Auth>),
}

/// How and why a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Close {
    /// For the metrics.
    pub(crate) reason: Closed,
    /// What an MQTT 5 client is told.
    pub(crate) disconnect: Option<(Code, Option<Status>, &'static str)>,
    /// Whether the will goes out.
    pub(crate) publishes_will: bool,
}

impl Close {
    fn telling(reason: Closed, code: Code, status: Option<Status>, text: &'static str) -> Self {
        Self { reason, disconnect: Some((code, status, text)), publishes_will: true }
    }

    /// The other side is gone.
    pub(crate) fn silent(reason: Closed) -> Self {
        Self { reason, disconnect: None, publishes_will: true }
    }

    fn goodbye(with_will: bool) -> Self {
        Self { reason: Closed::Goodbye, disconnect: None, publishes_will: with_will }
    }

    pub(crate) fn keep_alive() -> Self {
        Self::telling(Closed::KeepAlive, Code::KeepAliveTimeout, None, "")
    }

    pub(crate) fn expired() -> Self {
        Self::telling(Closed::Expired, Code::NotAuthorized, None, "the credentials have ended")
    }

    pub(crate) fn malformed() -> Self {
        Self::telling(Closed::Protocol, Code::MalformedPacket, None, "")
    }

    pub(crate) fn too_large() -> Self {
        Self::telling(Closed::TooLarge, Code::PacketTooLarge, None, "")
    }

    pub(crate) fn storage(status: Status, text: &'static str) -> Self {
        Self::telling(Closed::Storage, Code::ImplementationSpecificError, Some(status), text)
    }

    /// Somebody else decided. A hub that stops publishes no wills: it is not the device that went away.
    pub(crate) fn ordered(order: Order) -> Self {
        match order {
            Order::TakenOver => Self::telling(Closed::TakenOver, Code::SessionTakenOver, None, ""),
            Order::Revoked => Self::telling(
                Closed::Revoked,
                Code::NotAuthorized,
                None,
                "disabled, deleted or credentials changed",
            ),
            Order::Stop => Self {
                publishes_will: false,
                ..Self::telling(Closed::Stopped, Code::ServerShuttingDown, None, "")
            },
        }
    }

    fn protocol(code: Code, text: &'static str) -> Self {
        Self::telling(Closed::Protocol, code, None, text)
    }
}

/// One client's session while it is connected.
#[derive(Debug)]
pub(crate) struct Session {
    version: Version,
    sender: Admitted,
    method: Option<Box<Method>>,
    outbox: Option<Box<str>>,
    tells_places: bool,
    subscriptions: Subscriptions,
    /// Topics by alias from 1, on MQTT 5.
    aliases: Vec<Option<ByteString>>,
    will: Option<Box<Message>>,
    receive_maximum: u16,
    command_window: u16,
    /// Largest packet the client accepts.
    accepts: u32,
    packet_bytes: usize,
    message_bytes: usize,
}

/// Topics an MQTT 3.1.1 client may subscribe to.
const SUBSCRIPTIONS_V3: usize = 5;
/// Topics an MQTT 5 client may subscribe to.
const SUBSCRIPTIONS_V5: usize = 50;

impl Session {
    /// The session of a client that was let in, with the subscriptions that were kept for it.
    pub(crate) fn new(
        version: Version,
        admission: Admission,
        subscriptions: Subscriptions,
        message_bytes: usize,
    ) -> Self {
        Self {
            version,
            sender: admission.sender,
            method: admission.method,
            outbox: admission.outbox,
            tells_places: admission.tells_places,
            subscriptions,
            aliases: Vec::new(),
            will: admission.will,
            receive_maximum: admission.receive_maximum,
            command_window: admission.command_window,
            accepts: admission.accepts.unwrap_or(u32::MAX),
            packet_bytes: admission.packet_bytes,
            message_bytes,
        }
    }

    /// Who it is.
    pub(crate) fn sender(&self) -> &Admitted {
        &self.sender
    }

    /// Whether acknowledgements carry places.
    pub(crate) fn tells_places(&self) -> bool {
        self.tells_places
    }

    /// Publications the client may have unacknowledged.
    pub(crate) fn receive_maximum(&self) -> u32 {
        self.receive_maximum.into()
    }

    /// Largest packet the client may send.
    pub(crate) fn largest_packet(&self) -> usize {
        self.packet_bytes
    }

    /// Largest packet the client accepts.
    pub(crate) fn accepts(&self) -> usize {
        usize::try_from(self.accepts).unwrap_or(usize::MAX)
    }

    /// Commands the client may have unacknowledged.
    pub(crate) fn command_window(&self) -> u16 {
        self.command_window
    }

    /// What the client has subscribed to.
    pub(crate) fn subscriptions(&self) -> Subscriptions {
        self.subscriptions
    }

    /// How this client wants its commands; `None` when it has not subscribed to them.
    ///
    /// One that subscribed in both ways gets each command once, in the way of MQTT 5, with the better of the two
    /// qualities of service. Kept by a client of MQTT 5, `$iothub/commands` means nothing on 3.1.1: there its properties
    /// cannot be said.
    pub(crate) fn commands(&self) -> Option<Form> {
        let Subscriptions { commands, devicebound, .. } = self.subscriptions;
        let (shape, assurance) = match self.version {
            Version::V3 => (Shape::Topic(Version::V3), devicebound?),
            Version::V5 if commands.is_some() => (Shape::Properties, commands.max(devicebound)?),
            Version::V5 => (Shape::Topic(Version::V5), devicebound?),
        };
        Some(Form { shape, assurance })
    }

    /// The will, to be published now.
    pub(crate) fn take_will(&mut self) -> Option<Box<Message>> {
        self.will.take()
    }

    /// A message of this client as an event.
    pub(crate) fn event<'a>(&'a self, message: &'a Message, number: Option<(Lane, u64)>) -> NewEvent<'a> {
        let origin = self.outbox.as_deref().zip(number);
        let origin = origin.map(|(outbox, (lane, number))| Origin { outbox, lane, number });
        NewEvent { sender: &self.sender, message, origin }
    }

    /// Handles a packet of `bytes` bytes.
    ///
    /// # Errors
    /// The connection ends. What is in `batch` counts all the same.
    pub(crate) fn handle(&mut self, packet: Packet, bytes: usize, batch: &mut Batch) -> Result<(), Close> {
        match packet {
            Packet::Publish(publish) => {
                let publication = self.publish(*publish, bytes)?;
                batch.publications.push(publication);
            }
            Packet::Subscribe { id, filters, identified } => {
                self.subscribe(id, &filters, identified, batch)?
            }
            Packet::Unsubscribe { id, filters } => self.unsubscribe(id, &filters, batch),
            Packet::Ping => batch.effects.push(Effect::Reply(Reply::Pong)),
            Packet::Disconnect { with_will, session_expiry } => {
                if session_expiry == Some(0) {
                    batch.effects.push(Effect::Forget);
                }
                return Err(Close::goodbye(with_will));
            }
            Packet::Auth(auth) => match self.method {
                Some(_) => batch.effects.push(Effect::Reauthenticate(auth)),
                None => {
                    return Err(Close::protocol(
                        Code::ProtocolError,
                        "AUTH without an authentication method",
                    ));
                }
            },
            Packet::Acknowledge { id, settlement } => {
                batch.effects.push(Effect::Acknowledged(id, settlement));
            }
            Packet::Forbidden => return Err(Close::protocol(Code::ProtocolError, "")),
        }
        Ok(())
    }

    fn publish(&mut self, mut publish: Publish, bytes: usize) -> Result<Publication, Close> {
        if publish.qos == QoS::ExactlyOnce {
            return Err(Close::protocol(Code::QosNotSupported, "quality of service 2"));
        }
        if self.version == Version::V5 {
            if publish.retain {
                return Err(Close::protocol(Code::RetainNotSupported, ""));
            }
            self.resolve_alias(&mut publish)?;
        }
        let id = publish.packet_id;
        let fate = match publish::read(&self.sender, self.outbox.is_some(), self.message_bytes, publish) {
            Ok((message, number)) => Fate::Store(message, number),
            Err(Fault::TooLarge) => match (self.version, id) {
                (Version::V5, Some(_)) => Fate::Refuse(Status::BAD_REQUEST, "the message is too large"),
                _ => return Err(Close::too_large()),
            },
            Err(Fault::Topic) => match (self.version, id) {
                (Version::V5, Some(_)) => Fate::Refuse(Status::NOT_FOUND, "no such topic"),
                _ => {
                    return Err(Close::telling(Closed::Topic, Code::TopicNameInvalid, None, "no such topic"));
                }
            },
            Err(Fault::Property(reason)) => match id {
                Some(_) => Fate::Refuse(Status::BAD_REQUEST, reason),
                None => {
                    let status = Some(Status::BAD_REQUEST);
                    return Err(Close::telling(
                        Closed::Protocol,
                        Code::ImplementationSpecificError,
                        status,
                        reason,
                    ));
                }
            },
        };
        Ok(Publication { id, bytes, fate })
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Close> {
        let invalid = || Close::protocol(Code::TopicAliasInvalid, "");
        let Some(properties) = &publish.properties else { return Ok(()) };
        if !properties.subscription_ids.is_empty() {
            return Err(Close::protocol(
                Code::ProtocolError,
                "a client publishes without subscription identifiers",
            ));
        }
        let Some(alias) = properties.topic_alias else {
            return match publish.topic.is_empty() {
                true => Err(Close::protocol(Code::ProtocolError, "neither topic nor alias")),
                false => Ok(()),
            };
        };
        if self.aliases.is_empty() {
            self.aliases.resize(usize::from(TOPIC_ALIASES), None);
        }
        let slot = self.aliases.get_mut(usize::from(alias.get()) - 1).ok_or_else(invalid)?;
        if publish.topic.is_empty() {
            publish.topic = slot.clone().ok_or_else(invalid)?;
        } else {
            // A copy: the packet's own text keeps a whole read buffer alive.
            *slot = Some(ByteString::from(publish.topic.to_string()));
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        id: NonZeroU16,
        filters: &[(ByteString, QoS)],
        identified: bool,
        batch: &mut Batch,
    ) -> Result<(), Close> {
        let v5 = self.version == Version::V5;
        let limit = if v5 { SUBSCRIPTIONS_V5 } else { SUBSCRIPTIONS_V3 };
        let mut granted = Vec::with_capacity(filters.len());
        for (index, (filter, qos)) in filters.iter().enumerate() {
            let assurance = match qos {
                QoS::AtMostOnce => Assurance::AtMostOnce,
                _ => Assurance::AtLeastOnce,
            };
            let answer = match self.subscription(filter) {
                _ if identified => Granted::No(v5::SubscribeAckReason::SubscriptionIdentifiersNotSupported),
                _ if index >= limit => Granted::No(v5::SubscribeAckReason::QuotaExceeded),
                Ok(subscription) => {
                    *subscription = Some(assurance);
                    Granted::Yes(qos.less_value(QoS::AtLeastOnce))
                }
                Err(reason) => Granted::No(reason),
            };
            if !v5 && matches!(answer, Granted::No(_)) {
                return Err(Close::silent(Closed::Topic));
            }
            granted.push(answer);
        }
        batch.effects.push(Effect::Subscribed(Reply::Subscribed(id, granted)));
        Ok(())
    }

    fn unsubscribe(&mut self, id: NonZeroU16, filters: &[ByteString], batch: &mut Batch) {
        let found = filters
            .iter()
            .map(|filter| self.subscription(filter).is_ok_and(|subscription| subscription.take().is_some()))
            .collect();
        batch.effects.push(Effect::Subscribed(Reply::Unsubscribed(id, found)));
    }

    /// The subscription a filter stands for.
    fn subscription(&mut self, filter: &str) -> Result<&mut Option<Assurance>, v5::SubscribeAckReason> {
        let (device, module) = (&*self.sender.device, self.sender.module.as_deref());
        match module {
            None if topic::is_c2d_filter(filter, device) => Ok(&mut self.subscriptions.devicebound),
            None if self.version == Version::V5 && filter == COMMANDS => Ok(&mut self.subscriptions.commands),
            Some(module) if is_inputs_filter(filter, device, module) => Ok(&mut self.subscriptions.inputs),
            _ if filter.starts_with("$share/") => Err(v5::SubscribeAckReason::SharedSubscriptionNotSupported),
            _ if filter.contains(['#', '+']) => {
                Err(v5::SubscribeAckReason::WildcardSubscriptionsNotSupported)
            }
            _ => Err(v5::SubscribeAckReason::TopicFilterInvalid),
        }
    }

    /// Checks the credentials of a re-authentication. Gives the method, to be echoed, and when they end.
    ///
    /// # Errors
    /// The connection ends: other method, other policy, or not let in.
    pub(crate) fn reauthenticate(
        &self,
        access: &Access,
        auth: &v5::Auth,
    ) -> Result<(ByteString, Option<SystemTime>), Close> {
        let now = SystemTime::now();
        let expires_at = self.method.as_ref().and_then(|method| {
            let expires_at = connect::readmit(method, auth, &self.sender, access, now)?;
            Some((method.name(), expires_at))
        });
        expires_at.ok_or_else(|| {
            Close::telling(Closed::Expired, Code::NotAuthorized, None, "re-authentication failed")
        })
    }
}

/// Whether a filter selects the inputs of this module; the forms of the SDKs.
fn is_inputs_filter(filter: &str, device: &str, module: &str) -> bool {
    let own = || {
        let rest = filter.strip_prefix("devices/")?.strip_prefix(device)?;
        rest.strip_prefix("/modules/")?.strip_prefix(module)
    };
    matches!(own(), Some("/inputs/#" | "/#"))
}

#[cfg(test)]
mod tests;
