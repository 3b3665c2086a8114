//! Commands on a connection: the subscription, what arrived, what was settled.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Version,
    frame::{Frame, Reader, kind, put_length, put_string, violation},
    proof::Proof,
    slots, v5,
};
use crate::{
    Error, ErrorKind, Lane, Result,
    transport::{Arrived, CommandSupport, Handle, Incoming, Offer, Settled, Settlement, identity::Identity},
    wire::{
        topic,
        v5::{self as wire, ReceivedCommand, Status},
    },
};

/// What a connection knows of commands. Takes no memory to speak of while there are none.
#[derive(Debug)]
pub(super) struct Commands {
    version: Version,
    /// Whose commands they are; none for a module, which has none.
    device_id: Option<String>,
    /// Most that the server may send before some are settled.
    window: usize,
    /// Delivered with QoS 1 and not settled, by packet identifier.
    unsettled: HashMap<u16, Handle>,
    /// Deliveries so far.
    deliveries: u64,
    /// SUBSCRIBE was sent and not answered.
    subscribing: bool,
    pub(super) proof: Proof,
    /// Known without the server's help.
    settled: Vec<Settled>,
    refused: Option<Error>,
}

impl Commands {
    pub(super) fn new(version: Version, identity: &Identity, offer: &Offer) -> Self {
        Self {
            version,
            device_id: identity.module_id().is_none().then(|| identity.device_id.clone()),
            window: match version {
                // The server has a bound of its own; beyond this one it is not in its right mind.
                Version::V3 => WINDOW_V3,
                Version::V5 => usize::from(offer.inbox_window.max(1)),
            },
            unsettled: HashMap::new(),
            deliveries: 0,
            subscribing: false,
            proof: Proof::default(),
            settled: Vec::new(),
            refused: None,
        }
    }

    pub(super) fn support(&self) -> CommandSupport {
        CommandSupport { abandon_and_reject: self.version == Version::V5, answers: false }
    }

    /// Hands out what was found out on this side.
    pub(super) fn tell(&mut self, incoming: &mut Incoming) {
        incoming.settled.append(&mut self.settled);
        if let Some(error) = self.refused.take() {
            incoming.refused = Some(error);
        }
    }

    /// Appends SUBSCRIBE.
    pub(super) fn subscribe(&mut self, out: &mut BytesMut) {
        let Some(device_id) = &self.device_id else {
            self.refused = Some(refusal(ErrorKind::Unsupported, "modules have no commands"));
            return;
        };
        let filter = match self.version {
            Version::V3 => topic::c2d_filter(device_id),
            Version::V5 => wire::COMMANDS.to_owned(),
        };
        let no_properties: &[u8] = match self.version {
            Version::V3 => &[],
            Version::V5 => &[0],
        };
        out.put_u8(kind::SUBSCRIBE);
        put_length(out, 2 + no_properties.len() + 2 + filter.len() + 1);
        out.put_u16(SUBSCRIBE_ID);
        out.put_slice(no_properties);
        put_string(out, &filter);
        out.put_u8(1); // with QoS 1
        self.subscribing = true;
    }

    /// Takes SUBACK.
    pub(super) fn subscribed(&mut self, body: &[u8], incoming: &mut Incoming) -> Result<()> {
        let mut reader = Reader(body);
        let malformed = || violation("the server sent a malformed SUBACK (section 3.9)");
        let packet_id = reader.u16().ok_or_else(malformed)?;
        if packet_id != SUBSCRIBE_ID || !std::mem::take(&mut self.subscribing) {
            return Err(violation("the server answered a SUBSCRIBE that was not sent [MQTT-3.8.4-2]"));
        }
        if self.version == Version::V5 {
            let length = reader.length().ok_or_else(malformed)?;
            reader.bytes(length).ok_or_else(malformed)?;
        }
        let code = reader.u8().ok_or_else(malformed)?;
        if code >= 0x80 {
            let (kind, message) = match code {
                0x87 => (ErrorKind::Unauthorized, "the hub does not allow this device to receive commands"),
                0x97 => (ErrorKind::Throttled, "the hub takes no more subscriptions now"),
                0x8f | 0xa2 => (ErrorKind::Unsupported, "the hub has no commands"),
                _ => (ErrorKind::Rejected, "the hub refused to send commands"),
            };
            incoming.refused = Some(refusal(kind, message).with("reason code", code));
        }
        Ok(())
    }

    /// Takes PUBLISH. What cannot be a command of this device, such as what an earlier program with this identity has
    /// subscribed to, is passed over.
    pub(super) fn arrived(
        &mut self,
        frame: Frame<'_>,
        out: &mut BytesMut,
        incoming: &mut Incoming,
    ) -> Result<()> {
        let again = frame.first & 0x08 != 0;
        let with_id = match (frame.first >> 1) & 3 {
            0 => false,
            1 => true,
            _ => return Err(violation("the server sent a QoS above the one asked for [MQTT-3.8.4-6]")),
        };
        let malformed = || violation("the server sent a malformed PUBLISH (section 3.3)");
        let mut reader = Reader(frame.body);
        let topic = reader.string().ok_or_else(malformed)?;
        let packet_id = if with_id { reader.u16().ok_or_else(malformed)? } else { NO_ID };
        if with_id && packet_id == NO_ID {
            return Err(violation("the server sent the packet identifier 0 [MQTT-2.3.1-1]"));
        }
        let carried = match self.version {
            Version::V3 => v5::Carried::default(),
            Version::V5 => v5::Carried::read(&mut reader).ok_or_else(malformed)?,
        };
        let body = Bytes::copy_from_slice(reader.0);
        let received = match (self.version, &self.device_id) {
            (_, None) => None,
            (Version::V3, Some(device_id)) => topic::parse_c2d(topic, device_id).ok().map(|bag| {
                let message = bag.into_message(Lane::Telemetry, body);
                Ok(ReceivedCommand { sequence: None, enqueued_at: None, delivery_count: None, message })
            }),
            (Version::V5, Some(_)) => {
                (topic == wire::COMMANDS).then(|| wire::command(carried.content_type, carried.user, body))
            }
        };
        match received {
            Some(Ok(command)) => self.take(packet_id, again, command, incoming),
            Some(Err(error)) => {
                // It would be as unreadable the next time. The service hears that it was rejected.
                tracing::warn!(%error, "a command that cannot be read is rejected");
                if with_id {
                    v5::put_refusal(out, packet_id, Status::REJECT);
                }
                Ok(())
            }
            None => {
                tracing::debug!("the server sent something that is no command of this device");
                if with_id && self.version == Version::V5 {
                    out.put_slice(&[kind::PUBACK, 3]);
                    out.put_u16(packet_id);
                    out.put_u8(TOPIC_NAME_INVALID);
                }
                Ok(())
            }
        }
    }

    fn take(
        &mut self,
        packet_id: u16,
        again: bool,
        command: ReceivedCommand,
        incoming: &mut Incoming,
    ) -> Result<()> {
        let known = self.unsettled.get(&packet_id).copied();
        let handle = match known {
            // The identifier is still in use, so this is what it stood for before.
            Some(handle) if again => handle,
            _ => {
                self.deliveries += 1;
                (self.deliveries << 16) | Handle::from(packet_id)
            }
        };
        if packet_id != NO_ID {
            if known.is_none() && self.unsettled.len() >= self.window {
                return Err(violation(match self.version {
                    Version::V3 => "the server goes on sending commands while none is settled",
                    Version::V5 => "the server sent more than our Receive Maximum [MQTT-3.3.4-9]",
                })
                .with("unsettled", self.unsettled.len()));
            }
            self.unsettled.insert(packet_id, handle);
        }
        let ReceivedCommand { sequence, enqueued_at, delivery_count, message } = command;
        incoming.commands.push(Arrived { handle, sequence, enqueued_at, delivery_count, message });
        Ok(())
    }

    /// Appends PUBACK.
    pub(super) fn settle(&mut self, handle: Handle, settlement: Settlement, out: &mut BytesMut) {
        let packet_id = (handle & 0xffff) as u16;
        let done = |result| Settled { handle, result };
        if packet_id == NO_ID {
            // The server forgot it when it sent it.
            self.settled.push(done(Ok(())));
            return;
        }
        if self.unsettled.get(&packet_id) != Some(&handle) {
            let message = "the server has used the packet identifier for another delivery";
            let error = Error::new(ErrorKind::LockLost, "device.settle", message);
            self.settled.push(done(Err(error)));
            return;
        }
        match (self.version, settlement) {
            (_, Settlement::Complete) => {
                out.put_slice(&[kind::PUBACK, 2]);
                out.put_u16(packet_id);
            }
            (Version::V5, Settlement::Abandon) => v5::put_refusal(out, packet_id, Status::ABANDON),
            (Version::V5, Settlement::Reject) => v5::put_refusal(out, packet_id, Status::REJECT),
            (Version::V3, Settlement::Abandon | Settlement::Reject) => {
                let message = "MQTT 3.1.1 can only complete a command";
                let error = Error::new(ErrorKind::Unsupported, "device.settle", message);
                self.settled.push(done(Err(error)));
                return;
            }
        }
        self.unsettled.remove(&packet_id);
        self.proof.settled(handle);
        if self.proof.is_urgent() {
            out.put_slice(&super::frame::PINGREQ);
            self.proof.pinged();
        }
    }
}

fn refusal(kind: ErrorKind, message: &'static str) -> Error {
    Error::new(kind, "device.subscribe", message)
}

/// The identifier of SUBSCRIBE, which no message has.
const SUBSCRIBE_ID: u16 = slots::LAST + 1;
/// Stands for no identifier: a delivery with QoS 0.
const NO_ID: u16 = 0;
const WINDOW_V3: usize = 1_000;
const TOPIC_NAME_INVALID: u8 = 0x90;
