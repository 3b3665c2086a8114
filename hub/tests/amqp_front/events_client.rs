//! A hub with events in it, and a client that reads them over AMQP as those of Event Hubs do.

use std::time::{Duration, SystemTime};

use fe2o3_amqp::{
    Connection, Receiver, Sender, Session,
    connection::ConnectionHandle,
    link::{LinkStateError, RecvError, receiver::CreditMode},
    sasl_profile::SaslProfile,
    session::SessionHandle,
};
use fe2o3_amqp_types::{
    definitions::{self, ErrorCondition, Fields, SenderSettleMode},
    messaging::{AmqpValue, ApplicationProperties, Body, FilterSet, Message, MessageId, Properties, Source},
    primitives::{OrderedMap, SimpleValue, Symbol, Value},
};
use serde_amqp::{described::Described, descriptor::Descriptor};
use tokio::{net::TcpStream, time::timeout};
use whimbrel::{
    auth::{ConnectionString, Credential, Key, SasToken},
    wire::amqp::{self, AmqpMessage, annotation},
};
use whimbrel_hub::{
    Hub,
    access::{Admitted, Policy},
    events::{NewEvent, Place},
};

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A hub in memory, with as many partitions.
pub(crate) async fn hub(partitions: u32) -> Hub {
    let builder = Hub::builder().in_memory().set("host-name", "plant7.example").unwrap();
    builder.set("partitions", &partitions.to_string()).unwrap().start().await.unwrap()
}

/// A device whose events go into this partition.
pub(crate) fn device_of(hub: &Hub, partition: u32) -> String {
    (0..)
        .map(|number| format!("device-{number}"))
        .find(|id| hub.events().partition_of(id) == partition)
        .unwrap()
}

pub(crate) fn sender(device: &str) -> Admitted {
    Admitted {
        device: device.into(),
        module: None,
        generation: "17".into(),
        auth_method: r#"{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#
            .into(),
        expires_at: None,
    }
}

/// Stores events of a device, durably.
pub(crate) async fn store(hub: &Hub, device: &str, messages: &[whimbrel::Message]) -> Vec<Place> {
    let sender = sender(device);
    let batch: Vec<_> =
        messages.iter().map(|message| NewEvent { sender: &sender, message, origin: None }).collect();
    let mut places = Vec::new();
    let ticket = hub.events().append(&batch, &mut places).unwrap();
    hub.events().durable(ticket).await.unwrap();
    places
}

/// Stores events whose bodies are these numbers.
pub(crate) async fn store_numbers(hub: &Hub, device: &str, numbers: std::ops::Range<u64>) {
    let messages: Vec<_> = numbers.map(|number| whimbrel::Message::telemetry(number.to_string())).collect();
    store(hub, device, &messages).await;
}

pub(crate) fn policy<'a>(hub: &'a Hub, name: &str) -> &'a Policy {
    hub.access().policies().get(name).unwrap()
}

/// A token of a policy, signed as clients of Event Hubs do: with the text of the key.
pub(crate) fn event_hubs_token(hub: &Hub, policy_name: &str, resource: &str) -> String {
    let policy = policy(hub, policy_name);
    let key = Key::from_bytes(policy.primary.to_base64().as_bytes());
    SasToken::issue(resource, &key, Some(policy_name), SystemTime::now() + Duration::from_secs(600))
}

/// A token of a policy, signed as programs of the IoT hub do.
pub(crate) fn hub_token(hub: &Hub, policy_name: &str, resource: &str) -> String {
    let key = &policy(hub, policy_name).primary;
    SasToken::issue(resource, key, Some(policy_name), SystemTime::now() + Duration::from_secs(600))
}

/// A token of the policy `service`, signed with a key of another one.
pub(crate) fn forged_token(hub: &Hub, resource: &str) -> String {
    let key = Key::from_bytes(policy(hub, "device").primary.to_base64().as_bytes());
    SasToken::issue(resource, &key, Some("service"), SystemTime::now() + Duration::from_secs(600))
}

/// A device's own token.
pub(crate) fn device_token(connection_string: &str) -> String {
    let parsed: ConnectionString = connection_string.parse().unwrap();
    let Credential::Key { key, .. } = &parsed.credential else { panic!("no key") };
    let resource = format!("{}/devices/{}", parsed.host_name, parsed.device_id.unwrap());
    SasToken::issue(&resource, key, None, SystemTime::now() + Duration::from_secs(600))
}

/// A connection with a session.
pub(crate) struct Client {
    pub(crate) connection: ConnectionHandle<()>,
    pub(crate) session: SessionHandle<()>,
    links: u32,
}

impl Client {
    /// Connects without saying who it is.
    pub(crate) async fn stranger(hub: &Hub) -> Self {
        Self::open(hub, SaslProfile::Anonymous).await
    }

    /// Connects and brings a token of the policy `service` for the event log.
    pub(crate) async fn reader(hub: &Hub) -> Self {
        let mut client = Self::stranger(hub).await;
        let token = event_hubs_token(hub, "service", "sb://plant7.example/plant7");
        assert_eq!(client.put_token("sb://plant7.example/plant7", &token).await, 200);
        client
    }

    /// Connects with a token as password, as programs of the IoT hub do.
    pub(crate) async fn signed_in(hub: &Hub, policy: &str) -> Self {
        let password = hub_token(hub, policy, "plant7.example/messages/events");
        let username = format!("{policy}@sas.root.plant7");
        Self::open(hub, SaslProfile::Plain { username, password }).await
    }

    pub(crate) async fn open(hub: &Hub, profile: SaslProfile) -> Self {
        let stream = TcpStream::connect(hub.amqp_addr().unwrap()).await.unwrap();
        let mut connection = Connection::builder()
            .container_id("reader")
            .hostname("plant7.example")
            .max_frame_size(65_536)
            .sasl_profile(profile)
            .open_with_stream(stream)
            .await
            .unwrap();
        let session = Session::builder().incoming_window(65_536).begin(&mut connection).await.unwrap();
        Self { connection, session, links: 0 }
    }

    /// Status of the answer.
    pub(crate) async fn put_token(&mut self, audience: &str, token: &str) -> i32 {
        let properties =
            [("operation", "put-token"), ("type", "servicebus.windows.net:sastoken"), ("name", audience)];
        self.ask("$cbs", &properties, Value::String(token.to_owned())).await.0
    }

    /// Status, description and body of the answer of `$management`.
    pub(crate) async fn manage(&mut self, properties: &[(&str, &str)]) -> (i32, String, Value) {
        self.ask("$management", properties, Value::Null).await
    }

    async fn ask(&mut self, node: &str, properties: &[(&str, &str)], body: Value) -> (i32, String, Value) {
        let (asking, answers) = (self.link_name(), self.link_name());
        let mut sender = Sender::attach(&mut self.session, asking, node).await.unwrap();
        let mut receiver = Receiver::builder()
            .name(answers.clone())
            .source(node)
            .target(answers.as_str())
            .attach(&mut self.session)
            .await
            .unwrap();
        let mut application = OrderedMap::new();
        for (name, value) in properties {
            application.insert((*name).to_owned(), SimpleValue::String((*value).to_owned()));
        }
        let id = MessageId::Ulong(u64::from(self.links));
        let request = Message {
            header: None,
            delivery_annotations: None,
            message_annotations: None,
            properties: Some(Properties {
                message_id: Some(id.clone()),
                reply_to: Some(answers),
                ..Properties::default()
            }),
            application_properties: Some(ApplicationProperties(application)),
            body: AmqpValue(body),
            footer: None,
        };
        sender.send(request).await.unwrap();
        let answer = timeout(PATIENCE, receiver.recv::<Body<Value>>()).await.unwrap().unwrap();
        receiver.accept(&answer).await.unwrap();
        let answer = answer.into_message();
        assert_eq!(answer.properties.unwrap().correlation_id, Some(id), "the id comes back with its type");
        let properties = answer.application_properties.unwrap().0;
        let Some(SimpleValue::Int(status)) = properties.get("status-code") else { panic!("{properties:?}") };
        let Some(SimpleValue::String(text)) = properties.get("status-description") else {
            panic!("{properties:?}")
        };
        let Body::Value(AmqpValue(body)) = answer.body else { panic!("{:?}", answer.body) };
        sender.close().await.unwrap();
        receiver.close().await.unwrap();
        (*status, text.clone(), body)
    }

    fn link_name(&mut self) -> String {
        self.links += 1;
        format!("link-{}", self.links)
    }

    /// Reads a partition for the default group.
    pub(crate) async fn read(&mut self, partition: u32, filter: Option<&str>) -> Reading {
        let address = format!("plant7/ConsumerGroups/$Default/Partitions/{partition}");
        self.attach(&address, &Wish { filter, ..Wish::default() }).await
    }

    pub(crate) async fn attach(&mut self, address: &str, wish: &Wish<'_>) -> Reading {
        let mut source = Source::builder().address(address).build();
        source.filter = wish.filter.map(filter);
        let mut properties = Fields::new();
        properties.insert(Symbol::from("com.microsoft:receiver-name"), Value::String("test".to_owned()));
        if let Some(epoch) = wish.epoch {
            properties.insert(Symbol::from("com.microsoft:epoch"), Value::Long(epoch));
        }
        let mut builder = Receiver::builder()
            .name(self.link_name())
            .source(source)
            .sender_settle_mode(wish.settle.clone())
            .credit_mode(CreditMode::Manual)
            .properties(properties)
            .verify_incoming_source(false);
        if wish.metric {
            builder = builder.add_desired_capabilities("com.microsoft:enable-receiver-runtime-metric");
        }
        let mut receiver = builder.attach(&mut self.session).await.unwrap();
        if wish.credit > 0 {
            // A link that was refused has no use for it.
            let _ = receiver.set_credit(wish.credit).await;
        }
        Reading { receiver, credit: wish.credit, left: wish.credit }
    }

    pub(crate) async fn close(mut self) {
        self.session.end().await.unwrap();
        self.connection.close().await.unwrap();
    }
}

/// How to read.
#[derive(Clone)]
pub(crate) struct Wish<'a> {
    pub(crate) filter: Option<&'a str>,
    pub(crate) epoch: Option<i64>,
    pub(crate) metric: bool,
    pub(crate) settle: SenderSettleMode,
    pub(crate) credit: u32,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self { filter: None, epoch: None, metric: false, settle: SenderSettleMode::Mixed, credit: 300 }
    }
}

/// A link that reads a partition.
pub(crate) struct Reading {
    pub(crate) receiver: Receiver,
    credit: u32,
    left: u32,
}

impl Reading {
    /// The next event; the error when the link was detached instead.
    pub(crate) async fn next(&mut self) -> Result<Read, definitions::Error> {
        let delivery =
            match timeout(PATIENCE, self.receiver.recv::<Body<Value>>()).await.expect("an event in time") {
                Ok(delivery) => delivery,
                Err(RecvError::LinkStateError(
                    LinkStateError::RemoteClosedWithError(error)
                    | LinkStateError::RemoteDetachedWithError(error),
                )) => return Err(error),
                Err(error) => panic!("{error:?}"),
            };
        self.receiver.accept(&delivery).await.unwrap();
        self.left -= 1;
        if self.left < self.credit / 2 {
            self.receiver.set_credit(self.credit).await.unwrap();
            self.left = self.credit;
        }
        Ok(Read(delivery.into_message()))
    }

    pub(crate) async fn event(&mut self) -> Read {
        self.next().await.unwrap()
    }

    /// Bodies of the next events, as numbers.
    pub(crate) async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            numbers.push(self.event().await.number());
        }
        numbers
    }

    /// What the link is detached with, whatever comes before.
    pub(crate) async fn ended(mut self) -> definitions::Error {
        loop {
            if let Err(error) = self.next().await {
                return error;
            }
        }
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_millis(200), self.receiver.recv::<Body<Value>>()).await.is_err()
    }
}

/// An event as it was read.
#[derive(Debug)]
pub(crate) struct Read(pub(crate) AmqpMessage);

impl Read {
    pub(crate) fn annotation(&self, name: &str) -> Option<&Value> {
        amqp::annotation(&self.0.message_annotations.as_ref().unwrap().0, name)
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.annotation(annotation::SEQUENCE).and_then(amqp::number).unwrap()
    }

    pub(crate) fn offset(&self) -> String {
        self.annotation(annotation::OFFSET).and_then(amqp::text).unwrap().to_owned()
    }

    pub(crate) fn logged_at(&self) -> i64 {
        let Some(Value::Timestamp(at)) = self.annotation(annotation::LOGGED_AT) else { panic!("no time") };
        at.milliseconds()
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let Body::Data(data) = &self.0.body else { panic!("{:?}", self.0.body) };
        data.iter().flat_map(|section| section.0.to_vec()).collect()
    }

    pub(crate) fn number(&self) -> u64 {
        String::from_utf8(self.body()).unwrap().parse().unwrap()
    }
}

pub(crate) fn condition(error: &definitions::Error) -> String {
    match &error.condition {
        ErrorCondition::Custom(Symbol(name)) => name.clone(),
        known => match serde_amqp::to_value(known).unwrap() {
            Value::Symbol(Symbol(name)) => name,
            other => panic!("{other:?}"),
        },
    }
}

fn filter(text: &str) -> FilterSet {
    const NAME: &str = "apache.org:selector-filter:string";
    let value =
        Described { descriptor: Descriptor::Name(Symbol::from(NAME)), value: Value::String(text.to_owned()) };
    let mut filters = FilterSet::new();
    filters.insert(Symbol::from(NAME), Value::Described(Box::new(value)));
    filters
}
