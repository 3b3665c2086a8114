//! MQTT 3.1.1 as Azure documents it: contract `mqtt.md`, part 1.

use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use rumqttc::mqttbytes::v4::{Connect, Login, Packet};

use super::{
    Version,
    commands::Commands,
    connection::Hello,
    frame::{Reader, kind, length_of_length, put_length, put_string},
    identity::{AGENT, Identity},
};
use crate::{
    Error, ErrorKind, Result,
    delivery::Verdict,
    outbox::Queued,
    transport::Offer,
    wire::{topic, user_name},
};

/// Writes messages.
pub(super) struct Codec {
    device_id: String,
    module_id: Option<String>,
}

/// The CONNECT packet of a connection made `now`.
pub(super) fn connect(
    identity: &Identity,
    offer: &Offer,
    keep_alive: Duration,
    now: SystemTime,
) -> Result<Hello> {
    let client_id = identity.client_id();
    let query = [("api-version", user_name::API_VERSION), ("DeviceClientType", AGENT)];
    let username =
        user_name::user_name(identity.host_name(), &identity.device_id, identity.module_id(), &query);
    let (password, renew_in) = identity.password(now)?;
    let mut connect = Connect::new(client_id);
    // The hub is to keep the subscription to commands, so that it delivers them without waiting to be asked. Of messages
    // to the hub neither side keeps anything: identifiers begin anew with each connection, what was not acknowledged is
    // sent again from the outbox, and the hub, which receives with QoS 1, has no state to compare it with. Modules
    // have no commands.
    connect.clean_session = identity.module_id().is_some();
    connect.keep_alive = whole_seconds(keep_alive);
    connect.login = Some(Login { username, password });
    let mut packet = BytesMut::new();
    Packet::Connect(connect).write(&mut packet, usize::MAX).map_err(|error| {
        Error::new(ErrorKind::Internal, "device.connect", "CONNECT cannot be written").caused_by(error)
    })?;
    let codec =
        Codec { device_id: identity.device_id.clone(), module_id: identity.module_id().map(str::to_owned) };
    let commands = Commands::new(Version::V3, identity, offer);
    Ok(Hello { packet, renew_in, v3: Some(codec), commands })
}

/// Keep-alive as it travels; never 0, which would switch it off.
pub(super) fn whole_seconds(keep_alive: Duration) -> u16 {
    u16::try_from(keep_alive.as_millis().div_ceil(1000)).unwrap_or(u16::MAX).max(1)
}

/// Reads CONNACK.
pub(super) fn welcome(body: &[u8]) -> Result<()> {
    let &[_, code] = body else {
        return Err(super::frame::violation("the server sent a malformed CONNACK (section 3.2)"));
    };
    match code {
        0 => Ok(()),
        1 => Err(refusal(ErrorKind::Unsupported, "the server does not speak MQTT 3.1.1")),
        2 => Err(refusal(ErrorKind::Unauthorized, "the hub does not accept the device id")),
        3 => Err(refusal(ErrorKind::Throttled, "the hub is not available or asks to slow down")),
        4 | 5 => Err(refusal(
            ErrorKind::Unauthorized,
            "the hub refused the credentials: check the key, the clock, and that the device exists and is enabled",
        )),
        _ => Err(refusal(ErrorKind::Protocol, "the server refused with an unknown code").with("code", code)),
    }
}

fn refusal(kind: ErrorKind, message: &'static str) -> Error {
    Error::new(kind, "device.connect", message)
}

/// Reads PUBACK.
pub(super) fn answer(body: &[u8]) -> Option<(u16, Verdict)> {
    Some((Reader(body).u16()?, Verdict::Stored { partition: None, sequence: None }))
}

impl Codec {
    /// Appends PUBLISH; on `Err` nothing, and the message can never be sent.
    pub(super) fn publish(
        &self,
        queued: &Queued,
        packet_id: u16,
        out: &mut BytesMut,
    ) -> std::result::Result<(), String> {
        let topic = topic::d2c(&self.device_id, self.module_id.as_deref(), &queued.message);
        if topic.len() > usize::from(u16::MAX) {
            return Err(format!("its topic of {} bytes is over MQTT's limit of 65,535", topic.len()));
        }
        let body = queued.message.body();
        let length = 2 + topic.len() + 2 + body.len();
        out.reserve(1 + length_of_length(length) + length);
        out.put_u8(kind::PUBLISH_QOS1);
        put_length(out, length);
        put_string(out, &topic);
        out.put_u16(packet_id);
        out.put_slice(body);
        Ok(())
    }
}
