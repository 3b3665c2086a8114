//! Tokens on an open connection: the node `$cbs`. Contract `amqp.md`, "CBS".

use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use fe2o3_amqp::{Receiver, Sender, Session, connection::ConnectionHandle, session::SessionHandle};
use fe2o3_amqp_types::{
    messaging::{ApplicationProperties, Body, Message, MessageId, Properties},
    primitives::{OrderedMap, SimpleValue, Value},
};

use super::{
    fault::{Fault, shortened},
    frame,
};
use crate::{
    Error, ErrorKind, Result,
    auth::{Renewal, TokenSource},
    transport::identity::chance,
    wire::amqp::{self, AmqpMessage},
};

/// Longest wait for the answer to a token.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The clock may be set while we wait for a renewal: it is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(120);

/// Puts a token for `audience`; `id` comes back in the answer.
pub(crate) fn put_token(id: &str, audience: &str, token: &str) -> AmqpMessage {
    let mut application = OrderedMap::new();
    for (name, value) in [("operation", "put-token"), ("type", amqp::SAS_TOKEN), ("name", audience)] {
        application.insert(name.to_owned(), SimpleValue::String(value.to_owned()));
    }
    let properties = Properties {
        message_id: Some(MessageId::String(id.to_owned())),
        to: Some(amqp::CBS.to_owned()),
        reply_to: Some(amqp::CBS.to_owned()),
        ..Properties::default()
    };
    AmqpMessage {
        header: None,
        delivery_annotations: None,
        message_annotations: None,
        properties: Some(properties),
        application_properties: Some(ApplicationProperties(application)),
        body: Body::Value(fe2o3_amqp_types::messaging::AmqpValue(Value::String(token.to_owned()))),
        footer: None,
    }
}

/// [`put_token`] as it travels.
pub(super) fn put_token_into(id: &str, audience: &str, token: &str, out: &mut BytesMut) {
    let message = put_token(id, audience, token);
    if let Some(properties) = &message.properties {
        frame::append(out, properties);
    }
    if let Some(application) = &message.application_properties {
        frame::append(out, application);
    }
    if let Body::Value(value) = &message.body {
        frame::append(out, value);
    }
}

/// Reads an answer: `None` when it answers something else than `id`.
///
/// # Errors
/// `Unauthorized` for a token that was not accepted, `Throttled`, or `Unreachable` when the hub could not check it.
pub(crate) fn answer<B>(id: &str, answer: &Message<B>) -> Option<Result<()>> {
    let correlation = answer.properties.as_ref().and_then(|properties| properties.correlation_id.as_ref());
    if !matches!(correlation, Some(MessageId::String(known)) if known == id) {
        return None;
    }
    let application = answer.application_properties.as_ref().map(|properties| &properties.0);
    let property = |name: &str| application.and_then(|properties| properties.get(name));
    let status = match property("status-code") {
        Some(SimpleValue::Int(code)) => i64::from(*code),
        Some(SimpleValue::Uint(code)) => i64::from(*code),
        Some(SimpleValue::Long(code)) => *code,
        Some(SimpleValue::Ulong(code)) => i64::try_from(*code).unwrap_or(i64::MAX),
        Some(SimpleValue::Short(code)) => i64::from(*code),
        Some(SimpleValue::Ushort(code)) => i64::from(*code),
        _ => 0,
    };
    let (kind, message) = match status {
        200..=299 => return Some(Ok(())),
        429 => (ErrorKind::Throttled, "the hub asks to slow down"),
        400..=499 => (
            ErrorKind::Unauthorized,
            "the hub refused the credentials: check the key, the clock, and that the device exists and is enabled",
        ),
        500..=599 => (ErrorKind::Unreachable, "the hub could not check the token"),
        _ => (ErrorKind::Protocol, "the answer to a token holds no status"),
    };
    let error = Error::new(kind, "device.connect", message).with("status", status);
    Some(Err(match property("status-description") {
        Some(SimpleValue::String(text)) => error.with("said", shortened(text)),
        _ => error,
    }))
}

/// How long until a token has to be looked at again.
pub(crate) fn look_again(renewal: Renewal, now: SystemTime) -> Duration {
    renewal.wait(now).min(LOOK_AGAIN)
}

/// The links to `$cbs` on a connection of the AMQP crate. Dropping it ends them, and no token is renewed any more.
#[derive(Debug)]
pub(crate) struct Cbs {
    sender: Sender,
    receiver: Receiver,
    /// Lives as long as its links.
    _session: SessionHandle<()>,
    next_id: u64,
}

impl Cbs {
    /// Attaches both links, on a session of their own.
    pub(crate) async fn attach(connection: &mut ConnectionHandle<()>) -> Result<Self> {
        const DOING: &str = "the hub opened no links for tokens";
        let mut session =
            Session::begin(connection).await.map_err(|error| error.explained("connect", DOING))?;
        let sender = Sender::attach(&mut session, "cbs-sender", amqp::CBS)
            .await
            .map_err(|error| error.explained("connect", DOING))?;
        let receiver = Receiver::attach(&mut session, "cbs-receiver", amqp::CBS)
            .await
            .map_err(|error| error.explained("connect", DOING))?;
        Ok(Self { sender, receiver, _session: session, next_id: 0 })
    }

    /// Puts a token and waits for the answer, at most 30 s. Not to be cancelled: the answer would be taken for that to
    /// the next one.
    ///
    /// # Errors
    /// As [`answer`], and whatever ended the connection.
    pub(crate) async fn put(&mut self, audience: &str, token: &str) -> Result<()> {
        let silent =
            |_| Error::new(ErrorKind::Unreachable, "connect", "the hub did not answer a token in time");
        tokio::time::timeout(ANSWER_LIMIT, self.exchange(audience, token)).await.map_err(silent)?
    }

    async fn exchange(&mut self, audience: &str, token: &str) -> Result<()> {
        const DOING: &str = "the connection was lost while a token was put";
        let id = format!("token-{}", self.next_id);
        self.next_id += 1;
        self.sender
            .send_batchable(put_token(&id, audience, token))
            .await
            .map_err(|error| error.explained("connect", DOING))?;
        loop {
            let delivery = self
                .receiver
                .recv::<Body<Value>>()
                .await
                .map_err(|error| error.explained("connect", DOING))?;
            self.receiver.accept(&delivery).await.map_err(|error| error.explained("connect", DOING))?;
            if let Some(result) = answer(&id, delivery.message()) {
                return result;
            }
        }
    }

    /// Puts a token from `source` now, and says when the next one is due, if there can be one.
    pub(crate) async fn prove(&mut self, audience: &str, source: &TokenSource) -> Result<Option<Renewal>> {
        let token = source.token(SystemTime::now(), chance()?);
        self.put(audience, &token.text).await?;
        Ok(token.renewal)
    }

    /// Renews the token whenever it is due, for as long as the connection lives; returns why that ended. Never
    /// returns for a token that cannot be renewed.
    pub(crate) async fn keep_proving(
        mut self,
        audience: String,
        source: TokenSource,
        mut renewal: Option<Renewal>,
    ) -> Error {
        loop {
            let Some(due) = renewal else { return std::future::pending().await };
            let now = SystemTime::now();
            if !due.is_due(now) {
                tokio::time::sleep(look_again(due, now)).await;
                continue;
            }
            match self.prove(&audience, &source).await {
                Ok(next) => renewal = next,
                Err(error) => return error,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::primitives::Uuid;

    use super::*;

    fn reply(id: MessageId, status: SimpleValue) -> AmqpMessage {
        let mut message = put_token("x", "a", "t");
        let mut application = OrderedMap::new();
        application.insert("status-code".to_owned(), status);
        application.insert("status-description".to_owned(), SimpleValue::String("because".into()));
        message.application_properties = Some(ApplicationProperties(application));
        message.properties = Some(Properties { correlation_id: Some(id), ..Properties::default() });
        message
    }

    #[test]
    fn an_answer_is_told_from_others_and_read() {
        let ours = || MessageId::String("token-1".into());
        let said = |status| answer("token-1", &reply(ours(), status)).unwrap().map_err(|error| error.kind());
        assert_eq!(said(SimpleValue::Int(200)), Ok(()));
        assert_eq!(said(SimpleValue::Uint(202)), Ok(()));
        assert_eq!(said(SimpleValue::Int(401)), Err(ErrorKind::Unauthorized));
        assert_eq!(said(SimpleValue::Int(404)), Err(ErrorKind::Unauthorized));
        assert_eq!(said(SimpleValue::Int(429)), Err(ErrorKind::Throttled));
        assert_eq!(said(SimpleValue::Int(500)), Err(ErrorKind::Unreachable));
        assert_eq!(said(SimpleValue::String("200".into())), Err(ErrorKind::Protocol));
        for other in [MessageId::String("token-2".into()), MessageId::Uuid(Uuid::from([0; 16]))] {
            assert!(answer("token-1", &reply(other, SimpleValue::Int(200))).is_none());
        }
    }
}
