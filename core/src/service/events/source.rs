//! Finding the event log of a hub, and what it says about itself. Contract `d2c.md`, "Two ways in", "`$management`".

use std::time::Duration;

use fe2o3_amqp::{Receiver, link::receiver::CreditMode};
use fe2o3_amqp_types::{
    definitions,
    messaging::{Body, Source},
    primitives::{Symbol, Value},
};

use super::OPEN;
use crate::{
    Error, ErrorKind, Result,
    service::{
        amqp::{Answer, Conduit, Request, ask, request_links},
        options::EventsPlan,
        random_id,
    },
    transport::amqp::Fault,
    wire::amqp::{EVENTS, MANAGEMENT, number, text},
};

/// Where events are read.
pub(super) struct Log {
    pub(super) conduit: Conduit,
    /// The event hub's name there.
    pub(super) entity: String,
}

impl Log {
    /// Asks the hub, unless it is known.
    pub(super) async fn find(plan: &EventsPlan) -> Result<Self> {
        let (peer, entity) = match &plan.known {
            Some((peer, entity)) => (peer.clone(), entity.clone()),
            None => {
                let asked = Conduit::new(plan.hub.clone());
                let found = tokio::time::timeout(plan.hub.timeout, redirect(&asked)).await;
                asked.close().await;
                let Redirect { host, port, entity } = found.unwrap_or_else(|_| Err(late()))?;
                (plan.redirected(&host, port, &entity)?, entity)
            }
        };
        Ok(Self { conduit: Conduit::new(peer), entity })
    }

    /// The partitions there are.
    pub(super) async fn partitions(&self) -> Result<Vec<u32>> {
        let body = self.ask(&[("type", "com.microsoft:eventhub")]).await?;
        let strange = || protocol("the description of the event hub has no list of partitions");
        let ids = field(&body, "partition_ids").ok_or_else(strange)?;
        let ids: Vec<&Value> = match ids {
            Value::Array(ids) => ids.0.iter().collect(),
            Value::List(ids) => ids.iter().collect(),
            _ => return Err(strange()),
        };
        ids.into_iter().map(|id| text(id).and_then(|id| id.parse().ok()).ok_or_else(strange)).collect()
    }

    /// The number of the last event of a partition; none when it never had one.
    pub(super) async fn last(&self, partition: u32) -> Result<Option<u64>> {
        let id = partition.to_string();
        let body = self.ask(&[("type", "com.microsoft:partition"), ("partition", &id)]).await?;
        let last = field(&body, "last_enqueued_sequence_number");
        match last {
            Some(Value::Long(below)) if *below < 0 => Ok(None),
            Some(last) => Ok(Some(number(last).ok_or_else(|| {
                protocol("the description of a partition has no number of its last event")
            })?)),
            None => Err(protocol("the description of a partition has no number of its last event")),
        }
    }

    async fn ask(&self, fields: &[(&'static str, &str)]) -> Result<Vec<(Value, Value)>> {
        let ask = async {
            let mut session = self.conduit.session().await?;
            let reply_to = random_id(OPEN)?;
            let (mut sender, mut receiver) = request_links(&mut session, MANAGEMENT, &reply_to).await?;
            let mut all = vec![("operation", "READ".to_owned()), ("name", self.entity.clone())];
            all.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
            if let Some(token) = self.conduit.peer().token() {
                all.push(("security_token", token));
            }
            let request =
                Request { id: "1", to: MANAGEMENT, reply_to: &reply_to, fields: all, body: Value::Null };
            ask(&mut sender, &mut receiver, request).await
        };
        let answer = tokio::time::timeout(self.conduit.peer().timeout, ask).await;
        let Answer { status, description, body } = answer.unwrap_or_else(|_| Err(late()))?;
        let kind = match status {
            ..=399 => None,
            401 | 403 => Some(ErrorKind::Unauthorized),
            404 => Some(ErrorKind::NotFound),
            500.. => Some(ErrorKind::Unreachable),
            _ => Some(ErrorKind::InvalidArgument),
        };
        if let Some(kind) = kind {
            let error = Error::new(kind, OPEN, "the hub does not describe its event log");
            return Err(error.with("status", status).with("description", description));
        }
        match body {
            Body::Value(value) => match value.0 {
                Value::Map(map) => Ok(map.into_iter().collect()),
                _ => Err(protocol("the description of the event log is not a map")),
            },
            _ => Err(protocol("the description of the event log is not a map")),
        }
    }
}

fn field<'a>(body: &'a [(Value, Value)], name: &str) -> Option<&'a Value> {
    body.iter().find(|(key, _)| text(key) == Some(name)).map(|(_, value)| value)
}

/// Where a hub says its event log is.
#[derive(Debug, PartialEq, Eq)]
struct Redirect {
    host: String,
    port: Option<u16>,
    entity: String,
}

/// Attaches where a hub redirects, and reads where to.
async fn redirect(hub: &Conduit) -> Result<Redirect> {
    let mut session = hub.session().await?;
    let attached = Receiver::builder()
        .name(format!("whimbrel-events-{}", random_id(OPEN)?))
        .source(Source::builder().address(format!("{EVENTS}/{MANAGEMENT}")).build())
        .credit_mode(CreditMode::Manual)
        .attach(&mut session)
        .await;
    const DOING: &str = "the hub does not say where its event log is [amqp:link:redirect]";
    let (said, error) = match attached {
        Err(error) => (error.said().cloned(), error.explained(OPEN, DOING)),
        // Let in first, and closed at once.
        Ok(mut receiver) => {
            match tokio::time::timeout(REDIRECT_WITHIN, receiver.recv::<Body<Value>>()).await {
                Ok(Err(error)) => (error.said().cloned(), error.explained(OPEN, DOING)),
                Ok(Ok(_)) | Err(_) => return Err(protocol(DOING)),
            }
        }
    };
    match said {
        Some(said) if is_redirect(&said) => read_redirect(&said),
        _ => Err(error),
    }
}

fn is_redirect(error: &definitions::Error) -> bool {
    matches!(error.condition, definitions::ErrorCondition::LinkError(definitions::LinkError::Redirect))
}

/// `hostname`, and `address` = `amqps://{host}:5671/{entity}/$management`.
fn read_redirect(error: &definitions::Error) -> Result<Redirect> {
    let info = |name: &str| error.info.as_ref().and_then(|info| text(info.get(&Symbol::from(name))?));
    let read = || {
        let address = info("address")?;
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let (authority, path) = rest.split_once('/')?;
        let entity = path.split('/').next().filter(|entity| !entity.is_empty())?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (authority, None),
        };
        let host = info("hostname").filter(|host| !host.is_empty()).unwrap_or(host);
        Some(Redirect { host: host.to_owned(), port, entity: entity.to_owned() })
    };
    read().ok_or_else(|| protocol("the hub's redirect has no address [amqp:link:redirect]"))
}

fn protocol(message: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, OPEN, message)
}

fn late() -> Error {
    Error::new(ErrorKind::Unreachable, OPEN, "the hub did not answer in time")
}

/// A redirect comes with the answer to the attach, or right behind it.
const REDIRECT_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::definitions::{Fields, LinkError};

    use super::*;

    fn redirect(fields: &[(&str, &str)]) -> definitions::Error {
        let info: Fields = fields
            .iter()
            .map(|(name, value)| (Symbol::from(*name), Value::from((*value).to_owned())))
            .collect();
        definitions::Error::new(LinkError::Redirect, None, info)
    }

    #[test]
    fn the_entity_comes_out_of_the_address() {
        let error = redirect(&[
            ("hostname", "ns.servicebus.windows.net"),
            ("address", "amqps://ns.servicebus.windows.net:5671/iothub-ehub-h-1/$management"),
        ]);
        assert!(is_redirect(&error));
        let expected = Redirect {
            host: "ns.servicebus.windows.net".into(),
            port: Some(5671),
            entity: "iothub-ehub-h-1".into(),
        };
        assert_eq!(read_redirect(&error).unwrap(), expected);
        let read = read_redirect(&redirect(&[("address", "amqps://h/e/$management")])).unwrap();
        assert_eq!(read, Redirect { host: "h".into(), port: None, entity: "e".into() });
        for fields in [&[("hostname", "h")][..], &[("address", "amqps://h:x/e")], &[("address", "h")]] {
            assert_eq!(read_redirect(&redirect(fields)).unwrap_err().kind(), ErrorKind::Protocol);
        }
    }
}
