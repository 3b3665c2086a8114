//! CONNECT: who is it, may it, and on which terms. Also re-authentication on MQTT 5.

use std::{
    num::NonZeroU16,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::{
    types::QoS,
    v3,
    v5::{self, UserProperties},
};
use whimbrel::{
    Message,
    wire::{user_name::UserName, v5 as names},
};

use super::{
    metrics::Refused,
    packet::{Codec, Hello, Version},
    publish::{self, Fault},
};
use crate::{
    access::{Access, Admitted},
    events::OUTBOX_LIMIT,
    fronts::door::PeerInfo,
    limits::Limits,
    sessions::Terms,
};

/// A client that may come in.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Who it is.
    pub(crate) sender: Admitted,
    /// What it does to be let in again, on MQTT 5.
    pub(crate) method: Option<Box<Method>>,
    /// How it wants its session.
    pub(crate) terms: Terms,
    /// Its outbox, when it offers de-duplication.
    pub(crate) outbox: Option<Box<str>>,
    /// Whether acknowledgements may tell places.
    pub(crate) tells_places: bool,
    /// Keep-alive in seconds that both sides hold to; 0 for none.
    pub(crate) keep_alive: u16,
    /// To be published when the connection breaks.
    pub(crate) will: Option<Box<Message>>,
    /// Publications it may have unacknowledged.
    pub(crate) receive_maximum: u16,
    /// Largest packet it may send.
    pub(crate) packet_bytes: usize,
    /// Largest packet it accepts.
    pub(crate) accepts: Option<u32>,
    /// Commands it may have unacknowledged.
    pub(crate) command_window: u16,
}

/// The enhanced authentication of MQTT 5 that a session was opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    name: ByteString,
    policy: Option<ByteString>,
    client_id: ByteString,
    host: Box<str>,
}

/// Why a client may not come in.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// For the metrics.
    pub(crate) reason: Refused,
    v3: v3::ConnectAckReason,
    v5: v5::ConnectAckReason,
}

impl Refusal {
    fn new(reason: Refused, v3: v3::ConnectAckReason, v5: v5::ConnectAckReason) -> Self {
        Self { reason, v3, v5 }
    }

    fn unauthorized() -> Self {
        Self::new(
            Refused::Unauthorized,
            v3::ConnectAckReason::NotAuthorized,
            v5::ConnectAckReason::NotAuthorized,
        )
    }

    fn client_id() -> Self {
        Self::new(
            Refused::ClientId,
            v3::ConnectAckReason::IdentifierRejected,
            v5::ConnectAckReason::ClientIdentifierNotValid,
        )
    }

    fn method() -> Self {
        Self { v5: v5::ConnectAckReason::BadAuthenticationMethod, ..Self::unauthorized() }
    }

    fn will(v5: v5::ConnectAckReason) -> Self {
        Self::new(Refused::Will, v3::ConnectAckReason::NotAuthorized, v5)
    }

    /// The hub stops; another attempt may reach another one.
    pub(crate) fn stopping() -> Self {
        Self::new(
            Refused::Stopping,
            v3::ConnectAckReason::ServiceUnavailable,
            v5::ConnectAckReason::ServerUnavailable,
        )
    }

    /// Writes CONNACK.
    pub(crate) fn write(&self, codec: &mut Codec, out: &mut BytesMut) {
        match codec.version() {
            Version::V3 => Codec::write_welcome_v3(self.v3, false, out),
            Version::V5 => codec
                .write_welcome_v5(v5::ConnectAck { reason_code: self.v5, ..v5::ConnectAck::default() }, out),
        }
    }
}

/// Decides on a CONNECT.
pub(crate) fn admit(
    hello: Hello,
    peer: &PeerInfo,
    access: &Access,
    limits: &Limits,
    now: SystemTime,
) -> Result<Admission, Refusal> {
    match hello {
        Hello::OtherVersion => Err(Refusal::new(
            Refused::Version,
            v3::ConnectAckReason::UnacceptableProtocolVersion,
            v5::ConnectAckReason::UnsupportedProtocolVersion,
        )),
        Hello::NoClientId => Err(Refusal::client_id()),
        Hello::V3(connect) => admit_v3(*connect, peer, access, limits, now),
        Hello::V5(connect) => admit_v5(*connect, peer, access, limits, now),
    }
}

fn admit_v3(
    connect: v3::Connect,
    peer: &PeerInfo,
    access: &Access,
    limits: &Limits,
    now: SystemTime,
) -> Result<Admission, Refusal> {
    ids(&connect.client_id)?;
    let user_name = connect.username.as_deref();
    let sender = by_user_name(&connect.client_id, user_name, connect.password.as_deref(), peer, access, now)?;
    let will = match connect.last_will {
        None => None,
        Some(will) => Some(
            publish::read_will(&sender, limits.message_bytes, &will.topic, None, will.message)
                .map_err(|_| Refusal::will(v5::ConnectAckReason::TopicNameInvalid))?,
        ),
    };
    Ok(Admission {
        sender,
        method: None,
        terms: Terms { fresh: connect.clean_session, keep: !connect.clean_session },
        outbox: None,
        tells_places: false,
        keep_alive: connect.keep_alive,
        will: will.map(Box::new),
        receive_maximum: u16::MAX,
        packet_bytes: limits.message_bytes.saturating_add(TOPIC_BYTES),
        accepts: None,
        command_window: limits.command_window,
    })
}

/// What a topic may add to the largest message.
const TOPIC_BYTES: usize = 65_536;
/// Acknowledgements with a place need less than this.
const PLACE_BYTES: u32 = 128;
/// Keep-alive the hub asks for at most, on MQTT 5.
const SERVER_KEEP_ALIVE: u16 = 1140;
/// Topic aliases a client may use, on MQTT 5.
pub(crate) const TOPIC_ALIASES: u16 = 10;
/// A session that is kept on MQTT 5 is kept for good.
const FOR_GOOD: u32 = u32::MAX;

fn admit_v5(
    connect: v5::Connect,
    peer: &PeerInfo,
    access: &Access,
    limits: &Limits,
    now: SystemTime,
) -> Result<Admission, Refusal> {
    let (device, module) = ids(&connect.client_id)?;
    let (sender, method) = match &connect.auth_method {
        None => {
            let user_name = connect.username.as_deref();
            let password = connect.password.as_deref();
            (by_user_name(&connect.client_id, user_name, password, peer, access, now)?, None)
        }
        Some(name) => {
            let properties = &connect.user_properties;
            let host = property(properties, names::HOST).map(|host| &**host).or(peer.host.as_deref());
            let host = host.filter(|host| host.eq_ignore_ascii_case(access.host_name()));
            let method = Box::new(Method {
                name: name.clone(),
                policy: property(properties, names::SAS_POLICY).cloned(),
                client_id: connect.client_id.clone(),
                host: host.ok_or_else(Refusal::unauthorized)?.into(),
            });
            let sender = match &**name {
                names::METHOD_SAS => {
                    by_signature(device, module, &method, properties, connect.auth_data.as_ref(), access, now)
                }
                names::METHOD_X509 => access.device_by_certificate(device, module, &peer.certificates, now),
                _ => return Err(Refusal::method()),
            };
            (sender.map_err(|error| refused(&error, peer))?, Some(method))
        }
    };
    let will = match connect.last_will {
        None => None,
        Some(will) if will.retain => return Err(Refusal::will(v5::ConnectAckReason::RetainNotSupported)),
        Some(will) if will.qos == QoS::ExactlyOnce => {
            return Err(Refusal::will(v5::ConnectAckReason::QosNotSupported));
        }
        Some(will) => {
            let properties = v5::PublishProperties {
                content_type: will.content_type,
                user_properties: will.user_properties,
                ..v5::PublishProperties::default()
            };
            let will = publish::read_will(
                &sender,
                limits.message_bytes,
                &will.topic,
                Some(&properties),
                will.message,
            );
            Some(will.map_err(|fault| {
                Refusal::will(match fault {
                    Fault::Topic => v5::ConnectAckReason::TopicNameInvalid,
                    Fault::TooLarge => v5::ConnectAckReason::PacketTooLarge,
                    Fault::Property(_) => v5::ConnectAckReason::ImplementationSpecificError,
                })
            })?)
        }
    };
    let outbox = property(&connect.user_properties, names::OUTBOX)
        .filter(|outbox| !outbox.is_empty() && outbox.len() <= OUTBOX_LIMIT);
    let accepts = connect.max_packet_size.map(u32::from);
    Ok(Admission {
        sender,
        method,
        terms: Terms { fresh: connect.clean_start, keep: connect.session_expiry_interval_secs > 0 },
        tells_places: outbox.is_some()
            && connect.request_problem_info
            && accepts.is_none_or(|bytes| bytes >= PLACE_BYTES),
        keep_alive: match connect.keep_alive {
            0 => SERVER_KEEP_ALIVE,
            asked => asked.min(SERVER_KEEP_ALIVE),
        },
        will: will.map(Box::new),
        receive_maximum: match outbox {
            Some(_) => limits.receive_maximum_outbox,
            None => limits.receive_maximum,
        },
        packet_bytes: match outbox {
            // Our own clients may send messages of the full size.
            Some(_) => limits.message_bytes.saturating_add(TOPIC_BYTES),
            None => limits.message_bytes,
        },
        outbox: outbox.map(|outbox| (**outbox).into()),
        accepts,
        command_window: connect
            .receive_max
            .map_or(limits.command_window, |receive_max| limits.command_window.min(receive_max.get())),
    })
}

/// Device and module of a client id.
fn ids(client_id: &str) -> Result<(&str, Option<&str>), Refusal> {
    /// Longest id of a device or module.
    const ID_CHARACTERS: usize = 128;
    let is_id = |id: &str| {
        (1..=ID_CHARACTERS).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@;$'".contains(&byte))
    };
    let (device, module) = match client_id.split_once('/') {
        Some((device, module)) => (device, Some(module)),
        None => (client_id, None),
    };
    if is_id(device) && module.is_none_or(is_id) { Ok((device, module)) } else { Err(Refusal::client_id()) }
}

/// By user name and a token as password, or, without a password, the certificate of the connection.
fn by_user_name(
    client_id: &str,
    user_name: Option<&str>,
    password: Option<&[u8]>,
    peer: &PeerInfo,
    access: &Access,
    now: SystemTime,
) -> Result<Admitted, Refusal> {
    let user =
        UserName::parse(user_name.unwrap_or_default(), client_id).map_err(|error| refused(&error, peer))?;
    if !user.host.eq_ignore_ascii_case(access.host_name()) {
        tracing::info!(
            peer = %peer.address,
            host = user.host,
            expected = access.host_name(),
            "refused: the user name begins with another host name"
        );
        return Err(Refusal::unauthorized());
    }
    match password {
        None | Some([]) => access.device_by_certificate(user.device, user.module, &peer.certificates, now),
        Some(token) => {
            let token = std::str::from_utf8(token).map_err(|_| Refusal::unauthorized())?;
            access.device_by_token(user.device, user.module, token, now)
        }
    }
    .map_err(|error| refused(&error, peer))
}

/// By a signature over what the client says of itself.
fn by_signature(
    device: &str,
    module: Option<&str>,
    method: &Method,
    properties: &UserProperties,
    signature: Option<&Bytes>,
    access: &Access,
    now: SystemTime,
) -> whimbrel::Result<Admitted> {
    let text = |name| property(properties, name).map(|value| &**value);
    let policy = method.policy.as_deref().filter(|policy| !policy.is_empty());
    let expiry = text(names::SAS_EXPIRY).unwrap_or_default();
    let signed = names::string_to_sign(&method.host, &method.client_id, policy, text(names::SAS_AT), expiry);
    // A time that cannot be read lies in the past.
    let expires_at = expiry
        .parse()
        .ok()
        .and_then(|milliseconds| UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)))
        .unwrap_or(UNIX_EPOCH);
    let signature = signature.map_or(&[][..], |signature| signature);
    access.device_by_signature(device, module, policy, signed.as_bytes(), signature, expires_at, now)
}

/// Lets a client in once more, by the method and policy of the first time, and tells when its credentials end now.
/// `None` when it may not stay.
pub(crate) fn readmit(
    method: &Method,
    auth: &v5::Auth,
    sender: &Admitted,
    access: &Access,
    now: SystemTime,
) -> Option<Option<SystemTime>> {
    let same = auth.reason_code == v5::AuthReasonCode::ReAuth
        && auth.auth_method.as_ref() == Some(&method.name)
        && property(&auth.user_properties, names::SAS_POLICY) == method.policy.as_ref();
    if !same {
        return None;
    }
    if &*method.name != names::METHOD_SAS {
        // The certificate is that of the connection, and the registry would have told if it counted no more.
        return Some(sender.expires_at);
    }
    let (device, module) = ids(&method.client_id).ok()?;
    let signature = auth.auth_data.as_ref();
    let admitted =
        by_signature(device, module, method, &auth.user_properties, signature, access, now).ok()?;
    (admitted.generation == sender.generation).then_some(admitted.expires_at)
}

impl Method {
    /// Name of the method.
    pub(crate) fn name(&self) -> ByteString {
        self.name.clone()
    }
}

fn property<'p>(properties: &'p UserProperties, name: &str) -> Option<&'p ByteString> {
    properties.iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
}

fn refused(error: &whimbrel::Error, peer: &PeerInfo) -> Refusal {
    tracing::info!(peer = %peer.address, %error, "refused");
    Refusal::unauthorized()
}

impl Admission {
    /// Longest silence before the hub gives the connection up.
    pub(crate) fn silence(&self, limits: &Limits) -> Duration {
        match self.keep_alive {
            0 => limits.silence,
            seconds => Duration::from_secs(u64::from(seconds)).mul_f32(1.5).min(limits.silence),
        }
    }

    /// Writes CONNACK.
    pub(crate) fn write_welcome(&self, session_present: bool, codec: &mut Codec, out: &mut BytesMut) {
        if codec.version() == Version::V3 {
            Codec::write_welcome_v3(v3::ConnectAckReason::ConnectionAccepted, session_present, out);
            return;
        }
        if let Some(bytes) = self.accepts {
            codec.accept_up_to(bytes);
        }
        let mut user_properties = UserProperties::new();
        if self.outbox.is_some() {
            user_properties.push((names::ANNOUNCE.into(), "1".into()));
        }
        let welcome = v5::ConnectAck {
            session_present,
            session_expiry_interval_secs: self.terms.keep.then_some(FOR_GOOD),
            receive_max: NonZeroU16::new(self.receive_maximum).unwrap_or(NonZeroU16::MIN),
            max_qos: QoS::AtLeastOnce,
            max_packet_size: u32::try_from(self.packet_bytes).ok(),
            topic_alias_max: TOPIC_ALIASES,
            retain_available: false,
            subscription_identifiers_available: false,
            shared_subscription_available: false,
            server_keepalive_sec: Some(self.keep_alive),
            auth_method: self.method.as_ref().map(|method| method.name()),
            user_properties,
            ..v5::ConnectAck::default()
        };
        codec.write_welcome_v5(welcome, out);
    }
}

#[cfg(test)]
impl Admission {
    /// Device `d` (or its module), let in by a token.
    pub(crate) fn sample(module: Option<&str>, outbox: Option<&str>) -> Self {
        Self {
            sender: Admitted {
                device: "d".into(),
                module: module.map(Into::into),
                generation: "1".into(),
                auth_method: "{}".into(),
                expires_at: None,
            },
            method: None,
            terms: Terms { fresh: false, keep: true },
            outbox: outbox.map(Into::into),
            tells_places: outbox.is_some(),
            keep_alive: 60,
            will: None,
            receive_maximum: 3,
            packet_bytes: 1000,
            accepts: None,
            command_window: 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_device_ids() {
        let long = "x".repeat(129);
        for (client_id, expected) in [
            ("d", Some(("d", None))),
            ("d/m", Some(("d", Some("m")))),
            ("a-Z:.+%_#*?!(),=@;$'9", Some(("a-Z:.+%_#*?!(),=@;$'9", None))),
            ("", None),
            ("/", None),
            ("d/", None),
            ("/m", None),
            ("d/m/x", None),
            ("d d", None),
            ("ü", None),
            (&long, None),
        ] {
            assert_eq!(ids(client_id).ok(), expected, "{client_id}");
        }
    }

    #[test]
    fn silence_is_one_and_a_half_keep_alives_within_bounds() {
        let limits = Limits::default();
        for (keep_alive, seconds) in [(0, 1767), (60, 90), (1177, 1765), (1178, 1767), (u16::MAX, 1767)] {
            let admission = Admission { keep_alive, ..Admission::sample(None, None) };
            assert_eq!(admission.silence(&limits).as_secs(), seconds, "{keep_alive}");
        }
    }

    #[test]
    fn the_welcome_of_5_says_what_the_contract_says() {
        let text = |outbox| {
            let admission =
                Admission { receive_maximum: 16, packet_bytes: 262_144, ..Admission::sample(None, outbox) };
            let mut codec = Codec::V5(v5::Codec::new(0, 0));
            let mut out = BytesMut::new();
            admission.write_welcome(true, &mut codec, &mut out);
            let Codec::V5(mut codec) = codec else { unreachable!() };
            let packet = tokio_util::codec::Decoder::decode(&mut codec, &mut out).unwrap().unwrap().0;
            let v5::Packet::ConnectAck(welcome) = packet else { panic!("{packet:?}") };
            *welcome
        };
        let expected = v5::ConnectAck {
            session_present: true,
            reason_code: v5::ConnectAckReason::Success,
            session_expiry_interval_secs: Some(u32::MAX),
            receive_max: NonZeroU16::new(16).unwrap(),
            max_qos: QoS::AtLeastOnce,
            max_packet_size: Some(262_144),
            topic_alias_max: 10,
            retain_available: false,
            subscription_identifiers_available: false,
            shared_subscription_available: false,
            server_keepalive_sec: Some(60),
            ..v5::ConnectAck::default()
        };
        assert_eq!(text(None), expected);
        let announced = vec![(ByteString::from("whimbrel-version"), ByteString::from("1"))];
        assert_eq!(text(Some("o")), v5::ConnectAck { user_properties: announced, ..expected });
    }
}
