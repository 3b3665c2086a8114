//! A hub to test, and a client that does what it is told, right or wrong.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use fe2o3_amqp::{
    Connection, Receiver, Sender, Session, connection::ConnectionHandle, link::delivery::Sendable,
    sasl_profile::SaslProfile, session::SessionHandle,
};
use fe2o3_amqp_types::{
    definitions::{Error as AmqpError, ErrorCondition},
    messaging::{
        AmqpValue, ApplicationProperties, Body, Message as Sections, MessageId, Outcome, Properties,
    },
    primitives::{OrderedMap, SimpleValue, Value},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use whimbrel::{
    Message,
    auth::{ConnectionString, Credential, Key, SasToken},
    wire::amqp,
};
use whimbrel_hub::{
    Hub, HubBuilder,
    events::{Event, Position},
};

/// A test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running hub.
pub(crate) struct Ground {
    pub(crate) hub: Hub,
}

impl Ground {
    /// A hub in memory.
    pub(crate) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(HubBuilder) -> HubBuilder) -> Self {
        Self { hub: change(Hub::builder().in_memory()).start().await.unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.hub.amqp_addr().unwrap()
    }

    /// A new device; its key.
    pub(crate) async fn device(&self, id: &str) -> Key {
        key_of(&self.hub.registry().create(id).await.unwrap().connection_string())
    }

    pub(crate) async fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A connection that has proved nothing.
    pub(crate) async fn stranger(&self) -> Client {
        Client::open(self.dial().await, SaslProfile::Anonymous).await.unwrap()
    }

    /// A connection of a device by a token on `$cbs`.
    pub(crate) async fn device_client(&self, id: &str, key: &Key) -> Client {
        let mut client = self.stranger().await;
        let audience = format!("localhost/devices/{id}");
        let token = SasToken::issue(&audience, key, None, in_an_hour());
        assert_eq!(client.put_token(&audience, &token).await.0, 200);
        client
    }

    /// A connection of the policy that may do everything.
    pub(crate) async fn owner_client(&self) -> Client {
        self.policy_client("iothubowner").await
    }

    pub(crate) async fn policy_client(&self, policy: &str) -> Client {
        let mut client = self.stranger().await;
        let token = self.policy_token(policy, "localhost", in_an_hour());
        assert_eq!(client.put_token("localhost", &token).await.0, 200);
        client
    }

    pub(crate) fn policy_token(&self, policy: &str, resource: &str, expires_at: SystemTime) -> String {
        let key = &self.hub.access().policies().get(policy).unwrap().primary;
        SasToken::issue(resource, key, Some(policy), expires_at)
    }

    /// At least `count` events of a device, in order; waits until there are so many.
    pub(crate) async fn events(&self, device: &str, count: usize) -> Vec<Event> {
        let events = self.hub.events();
        let mut reader = events.reader(events.partition_of(device), Position::Beginning).await.unwrap();
        let mut found = Vec::new();
        while found.len() < count {
            let mut batch = Vec::new();
            timeout(PATIENCE, reader.next(1000, &mut batch))
                .await
                .expect("fewer events than expected")
                .unwrap();
            found.extend(batch.into_iter().filter(|event| &*event.device == device));
        }
        found
    }
}

/// A connection with one session.
pub(crate) struct Client {
    pub(crate) connection: ConnectionHandle<()>,
    pub(crate) session: SessionHandle<()>,
    cbs: Option<(Sender, Receiver)>,
    links: u32,
}

impl Client {
    pub(crate) async fn open<S>(
        stream: S,
        profile: SaslProfile,
    ) -> Result<Self, fe2o3_amqp::connection::OpenError>
    where
        S: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
    {
        let builder = Connection::builder().container_id("test").hostname("localhost").sasl_profile(profile);
        Self::begin(builder.open_with_stream(stream).await?).await
    }

    /// Without the security layer.
    pub(crate) async fn open_bare<S>(stream: S) -> Result<Self, fe2o3_amqp::connection::OpenError>
    where
        S: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
    {
        let builder = Connection::builder().container_id("test").hostname("localhost");
        Self::begin(builder.open_with_stream(stream).await?).await
    }

    async fn begin(mut connection: ConnectionHandle<()>) -> Result<Self, fe2o3_amqp::connection::OpenError> {
        let session = Session::begin(&mut connection).await.unwrap();
        Ok(Self { connection, session, cbs: None, links: 0 })
    }

    fn name(&mut self, what: &str) -> String {
        self.links += 1;
        format!("{what}-{}", self.links)
    }

    /// `put-token`; status code and description.
    pub(crate) async fn put_token(&mut self, audience: &str, token: &str) -> (i32, String) {
        self.request_token(audience, "servicebus.windows.net:sastoken", token, MessageId::Ulong(7)).await
    }

    pub(crate) async fn request_token(
        &mut self,
        audience: &str,
        kind: &str,
        token: &str,
        id: MessageId,
    ) -> (i32, String) {
        if self.cbs.is_none() {
            let sender = Sender::attach(&mut self.session, "cbs-requests", "$cbs").await.unwrap();
            let receiver = Receiver::attach(&mut self.session, "cbs-answers", "$cbs").await.unwrap();
            self.cbs = Some((sender, receiver));
        }
        let (sender, receiver) = self.cbs.as_mut().unwrap();
        let mut properties = OrderedMap::new();
        for (name, value) in [("operation", "put-token"), ("type", kind), ("name", audience)] {
            properties.insert(name.to_owned(), SimpleValue::String(value.to_owned()));
        }
        let request = Sections::builder()
            .properties(Properties {
                message_id: Some(id.clone()),
                reply_to: Some("cbs".to_owned()),
                ..Properties::default()
            })
            .application_properties(ApplicationProperties(properties))
            .body(AmqpValue(Value::String(token.to_owned())))
            .build();
        assert!(matches!(sender.send(request).await.unwrap(), Outcome::Accepted(_)));
        let answer = timeout(PATIENCE, receiver.recv::<Body<Value>>()).await.unwrap().unwrap();
        receiver.accept(&answer).await.unwrap();
        assert_eq!(answer.message().properties.as_ref().unwrap().correlation_id, Some(id));
        let properties = answer.message().application_properties.as_ref().unwrap();
        let SimpleValue::Int(status) = properties.0.get("status-code").unwrap().clone() else {
            panic!("{properties:?}")
        };
        let SimpleValue::String(description) = properties.0.get("status-description").unwrap() else {
            panic!("{properties:?}")
        };
        (status, description.clone())
    }

    /// A link to send on, if the hub leaves it attached.
    pub(crate) async fn sender(&mut self, address: &str) -> Result<Sender, AmqpError> {
        let name = self.name("sender");
        let sender = Sender::attach(&mut self.session, name, address).await.unwrap();
        settled_in(sender, Sender::on_detach).await
    }

    /// A link to receive on; what it is refused for comes when it receives.
    pub(crate) async fn receiver(&mut self, address: &str) -> Receiver {
        let name = self.name("receiver");
        Receiver::attach(&mut self.session, name, address).await.unwrap()
    }
}

/// A refused link is attached and detached right behind.
async fn settled_in(
    mut link: Sender,
    detached: impl AsyncFnOnce(&mut Sender) -> fe2o3_amqp::link::DetachError,
) -> Result<Sender, AmqpError> {
    match timeout(Duration::from_millis(100), detached(&mut link)).await {
        Err(_) => Ok(link),
        Ok(fe2o3_amqp::link::DetachError::RemoteClosedWithError(error)) => Err(error),
        Ok(other) => panic!("{other:?}"),
    }
}

pub(crate) fn sendable(message: &Message) -> Sendable<Body<Value>> {
    Sendable { message: amqp::encode(message), message_format: 0, settled: None }
}

pub(crate) fn key_of(connection_string: &str) -> Key {
    let parsed: ConnectionString = connection_string.parse().unwrap();
    match parsed.credential {
        Credential::Key { key, .. } => key,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn in_an_hour() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

pub(crate) fn long_ago() -> SystemTime {
    SystemTime::now() - Duration::from_secs(3600)
}

/// The condition of an error as text.
pub(crate) fn condition(error: &AmqpError) -> String {
    match &error.condition {
        ErrorCondition::Custom(symbol) => symbol.to_string(),
        ErrorCondition::AmqpError(known) => fe2o3_amqp_types::primitives::Symbol::from(known).to_string(),
        ErrorCondition::ConnectionError(known) => {
            fe2o3_amqp_types::primitives::Symbol::from(known).to_string()
        }
        ErrorCondition::SessionError(known) => fe2o3_amqp_types::primitives::Symbol::from(known).to_string(),
        ErrorCondition::LinkError(known) => fe2o3_amqp_types::primitives::Symbol::from(known).to_string(),
    }
}

/// The condition an outcome was rejected with.
pub(crate) fn rejected(outcome: Outcome) -> String {
    match outcome {
        Outcome::Rejected(rejected) => condition(&rejected.error.unwrap()),
        other => panic!("{other:?}"),
    }
}
