//! A hub that speaks AMQP and does what a test says, and nothing by itself but to take tokens.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use fe2o3_amqp::{
    Receiver, Sender,
    acceptor::{
        ConnectionAcceptor, LinkAcceptor, LinkEndpoint, ListenerConnectionHandle, ListenerSessionHandle,
        SaslAnonymousMechanism, SessionAcceptor,
    },
};
use fe2o3_amqp_types::{
    definitions::{self, AmqpError, Fields, LinkError},
    messaging::{
        AmqpValue, ApplicationProperties, Body, MessageAnnotations, MessageId, Properties, Source, Target,
        annotations::Annotations,
    },
    performatives::Attach,
    primitives::{Array, OrderedMap, SimpleValue, Symbol, Value},
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use whimbrel::{
    Message,
    service::{CommandOutcome, Feedback, ServiceClient, ServiceOptions},
    wire::amqp::{self, AmqpMessage, annotation},
};

/// Base64 of `secretsecretsecretsecret`.
pub const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";

/// Long enough that only a test that hangs gets there.
pub const SOON: Duration = Duration::from_secs(20);

/// A scripted hub.
pub struct Server {
    pub address: SocketAddr,
    links: mpsc::UnboundedReceiver<Link>,
    rules: Arc<Mutex<Rules>>,
    _tasks: JoinSet<()>,
}

/// What the hub does by itself.
#[derive(Default)]
pub struct Rules {
    /// Addresses it refuses: in the proper way, or by letting in and closing.
    pub refused: HashSet<String>,
    /// Status of the answer to a token.
    pub token_status: i32,
    /// Tokens that were put, by connection.
    pub tokens: Vec<(usize, String)>,
    /// Partitions of the event log, with the number of the last event.
    pub partitions: Vec<(u32, Option<u64>)>,
    /// To cut the connections that are open.
    connections: Vec<AbortHandle>,
}

/// A link the client attached, which the hub has accepted.
pub struct Link {
    pub address: String,
    pub connection: usize,
    pub attach: Attach,
    pub end: End,
}

/// The hub's end of a link.
pub enum End {
    /// The client sends.
    Receiver(Receiver),
    /// The client receives.
    Sender(Sender),
}

impl Link {
    pub fn receiver(self) -> Receiver {
        match self.end {
            End::Receiver(receiver) => receiver,
            End::Sender(_) => panic!("{} is a link the client receives on", self.address),
        }
    }

    pub fn sender(self) -> Sender {
        match self.end {
            End::Sender(sender) => sender,
            End::Receiver(_) => panic!("{} is a link the client sends on", self.address),
        }
    }

    /// The condition in the filter.
    pub fn selector(&self) -> String {
        let source = self.attach.source.as_deref().unwrap();
        let filter = source.filter.as_ref().unwrap();
        match filter.values().next().unwrap() {
            Value::Described(described) => amqp::text(&described.value).unwrap().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    pub fn epoch(&self) -> Option<i64> {
        match self.attach.properties.as_ref()?.get(&Symbol::from("com.microsoft:epoch"))? {
            Value::Long(epoch) => Some(*epoch),
            other => panic!("{other:?}"),
        }
    }
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rules = Arc::new(Mutex::new(Rules { token_status: 200, ..Rules::default() }));
        let (sender, links) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let shared = rules.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (tcp, _) = listener.accept().await.unwrap();
                let acceptor = ConnectionAcceptor::builder()
                    .container_id("scripted")
                    .sasl_acceptor(SaslAnonymousMechanism {})
                    .build();
                let (rules, links) = (shared.clone(), sender.clone());
                let handle = connections.spawn(async move {
                    if let Ok(connection) = acceptor.accept(tcp).await {
                        serve(connection, number, rules, links).await;
                    }
                });
                shared.lock().unwrap().connections.push(handle);
            }
        });
        Self { address, links, rules, _tasks: tasks }
    }

    pub fn rules(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().unwrap()
    }

    /// The next link to a node that is not `$cbs`.
    pub async fn link(&mut self) -> Link {
        tokio::time::timeout(SOON, self.links.recv()).await.expect("the client attaches a link").unwrap()
    }

    /// The next link, which is to this address.
    pub async fn link_to(&mut self, address: &str) -> Link {
        let link = self.link().await;
        assert_eq!(link.address, address);
        link
    }

    /// The links a client attaches to send commands, of a hub that tells outcomes.
    pub async fn desk(&mut self) -> (Sender, Receiver) {
        let outcomes = self.link_to(amqp::OUTCOMES).await.sender();
        (outcomes, self.link_to(amqp::COMMANDS).await.receiver())
    }

    /// Cuts every connection, as a broken network would.
    pub fn cut(&self) {
        for connection in self.rules().connections.drain(..) {
            connection.abort();
        }
    }

    pub fn options(&self) -> ServiceOptions {
        let connection_string =
            format!("HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey={KEY}");
        let events = format!(
            "Endpoint=sb://127.0.0.1:{}/;SharedAccessKeyName=service;SharedAccessKey={KEY};EntityPath=log;\
             UseDevelopmentEmulator=true",
            self.address.port()
        );
        ServiceOptions::from_connection_string(&connection_string)
            .unwrap()
            .server(format!("amqp://{}", self.address))
            .http_server("http://127.0.0.1:9")
            .events_connection_string(events)
            .backoff(Duration::from_millis(1), Duration::from_millis(50))
    }

    pub async fn client(&self) -> ServiceClient {
        ServiceClient::connect(self.options()).await.unwrap()
    }
}

async fn serve(
    mut connection: ListenerConnectionHandle,
    number: usize,
    rules: Arc<Mutex<Rules>>,
    links: mpsc::UnboundedSender<Link>,
) {
    let acceptor = SessionAcceptor::new();
    let mut sessions = JoinSet::new();
    while let Ok(session) = acceptor.accept(&mut connection).await {
        sessions.spawn(serve_session(session, number, rules.clone(), links.clone()));
    }
}

async fn serve_session(
    mut session: ListenerSessionHandle,
    connection: usize,
    rules: Arc<Mutex<Rules>>,
    links: mpsc::UnboundedSender<Link>,
) {
    // Links to nodes that answer: requests come on one, answers go out on the other.
    let mut asked: HashMap<String, Receiver> = HashMap::new();
    let mut answering = JoinSet::new();
    while let Some(attach) = session.next_incoming_attach().await {
        let address = address(&attach);
        let copy = attach.clone();
        let acceptor = LinkAcceptor::builder().verify_incoming_source(false).build();
        let Ok(endpoint) = acceptor.accept_incoming_attach(attach, &mut session).await else { return };
        let refused = rules.lock().unwrap().refused.contains(&address);
        if refused {
            let error = definitions::Error::new(AmqpError::NotFound, Some("no such address".into()), None);
            match endpoint {
                LinkEndpoint::Sender(link) => drop(link.close_with_error(error).await),
                LinkEndpoint::Receiver(link) => drop(link.close_with_error(error).await),
            }
            continue;
        }
        match (endpoint, address.as_str()) {
            (LinkEndpoint::Receiver(link), amqp::CBS | amqp::MANAGEMENT) => {
                asked.insert(address, link);
            }
            (LinkEndpoint::Sender(link), amqp::CBS | amqp::MANAGEMENT) => {
                let requests = asked.remove(&address).expect("the client asks first");
                answering.spawn(answer(address, connection, requests, link, rules.clone()));
            }
            (LinkEndpoint::Receiver(link), _) => {
                drop(links.send(Link { address, connection, attach: copy, end: End::Receiver(link) }));
            }
            (LinkEndpoint::Sender(link), _) => {
                drop(links.send(Link { address, connection, attach: copy, end: End::Sender(link) }));
            }
        }
    }
}

fn address(attach: &Attach) -> String {
    let of_source = |source: &Source| source.address.clone();
    let target = attach.target.as_deref().and_then(|target| match target {
        fe2o3_amqp_types::messaging::TargetArchetype::Target(target) => Target::address(target),
        #[allow(unreachable_patterns, reason = "there may be transactions")]
        _ => None,
    });
    match attach.role {
        definitions::Role::Sender => target.unwrap_or_default(),
        definitions::Role::Receiver => attach.source.as_deref().and_then(of_source).unwrap_or_default(),
    }
}

/// What a target says, as the trait the sources have.
trait Address {
    fn address(&self) -> Option<String>;
}

impl Address for Target {
    fn address(&self) -> Option<String> {
        self.address.clone()
    }
}

async fn answer(
    node: String,
    connection: usize,
    mut requests: Receiver,
    mut answers: Sender,
    rules: Arc<Mutex<Rules>>,
) {
    while let Ok(delivery) = requests.recv::<Body<Value>>().await {
        requests.accept(&delivery).await.unwrap();
        let request = delivery.into_message();
        let id = request.properties.as_ref().and_then(|properties| properties.message_id.clone());
        let fields = request.application_properties.map(|fields| fields.0).unwrap_or_default();
        let field = |name: &str| match fields.get(name) {
            Some(SimpleValue::String(text)) => text.clone(),
            _ => String::new(),
        };
        let (status, body) = if node == amqp::CBS {
            let Body::Value(AmqpValue(Value::String(token))) = request.body else { panic!("no token") };
            let mut rules = rules.lock().unwrap();
            rules.tokens.push((connection, token));
            (rules.token_status, Value::Null)
        } else {
            (200, describe(&field("type"), &field("partition"), &rules.lock().unwrap().partitions))
        };
        answers.send_batchable(reply(id, status, body)).await.unwrap();
    }
}

fn describe(kind: &str, partition: &str, partitions: &[(u32, Option<u64>)]) -> Value {
    let mut map = OrderedMap::new();
    let mut put = |name: &str, value: Value| drop(map.insert(Value::from(name.to_owned()), value));
    if kind == "com.microsoft:eventhub" {
        let ids = partitions.iter().map(|(id, _)| Value::from(id.to_string())).collect();
        put("partition_count", Value::Int(partitions.len() as i32));
        put("partition_ids", Value::Array(Array(ids)));
    } else {
        let (_, last) = partitions.iter().find(|(id, _)| id.to_string() == partition).unwrap();
        put("partition", Value::from(partition.to_owned()));
        put("last_enqueued_sequence_number", Value::Long(last.map_or(-1, |last| last as i64)));
    }
    Value::Map(map)
}

fn reply(id: Option<MessageId>, status: i32, body: Value) -> AmqpMessage {
    let mut fields = OrderedMap::new();
    fields.insert("status-code".to_owned(), SimpleValue::Int(status));
    fields.insert("status-description".to_owned(), SimpleValue::String("said so".into()));
    AmqpMessage {
        header: None,
        delivery_annotations: None,
        message_annotations: None,
        properties: Some(Properties { correlation_id: id, ..Properties::default() }),
        application_properties: Some(ApplicationProperties(fields)),
        body: Body::Value(AmqpValue(body)),
        footer: None,
    }
}

/// Receives a command and says nothing; its id, and the delivery to answer by.
pub async fn command(receiver: &mut Receiver) -> (String, fe2o3_amqp::Delivery<Body<Value>>) {
    let delivery = tokio::time::timeout(SOON, receiver.recv::<Body<Value>>())
        .await
        .expect("the client sends a command")
        .unwrap();
    let id = match &delivery.message().properties.as_ref().unwrap().message_id {
        Some(MessageId::String(id)) => id.clone(),
        other => panic!("{other:?}"),
    };
    (id, delivery)
}

/// An application property of a message.
pub fn property(message: &fe2o3_amqp::Delivery<Body<Value>>, name: &str) -> Option<String> {
    match message.message().application_properties.as_ref()?.0.get(name)? {
        SimpleValue::String(text) => Some(text.clone()),
        other => panic!("{other:?}"),
    }
}

/// A message of feedback records, as hubs send it.
pub fn feedback(records: &[(&str, &str, CommandOutcome)]) -> AmqpMessage {
    let records: Vec<Feedback> = records
        .iter()
        .map(|(device, id, outcome)| {
            Feedback::new(*id, std::time::SystemTime::UNIX_EPOCH, *outcome, *device, "g")
        })
        .collect();
    amqp::encode(&Message::telemetry(serde_json::to_vec(&records).unwrap()))
}

/// An event of a partition, as hubs send it.
pub fn event(sequence: u64, body: &str) -> AmqpMessage {
    let mut message = amqp::encode(&Message::telemetry(body.to_owned()));
    let mut annotations = Annotations::new();
    amqp::annotate(&mut annotations, annotation::SEQUENCE, Value::Long(sequence as i64));
    amqp::annotate(&mut annotations, annotation::OFFSET, Value::from((sequence * 100).to_string()));
    amqp::annotate(&mut annotations, annotation::DEVICE, Value::from("d1".to_owned()));
    message.message_annotations = Some(MessageAnnotations(annotations));
    message
}

/// What a hub says to a reader whose partition another one took.
pub fn stolen() -> definitions::Error {
    definitions::Error::new(LinkError::Stolen, Some("a higher epoch".into()), None::<Fields>)
}
