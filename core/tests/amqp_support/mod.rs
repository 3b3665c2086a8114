//! An AMQP server that does what a test says, and nothing by itself.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut, BytesMut};
use fe2o3_amqp_types::{
    definitions::{self, ErrorCondition, ReceiverSettleMode, Role, SenderSettleMode},
    messaging::{
        Accepted, AmqpValue, ApplicationProperties, Body, DeliveryState, MessageId, Properties, Rejected,
        Target, TargetArchetype, message::DecodeIntoMessage,
    },
    performatives::{Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Transfer},
    primitives::{Array, OrderedMap, SimpleValue, Symbol, Value},
    sasl::{SaslCode, SaslInit, SaslMechanisms, SaslOutcome},
};
use serde::Serialize;
use serde_amqp::{from_slice, read::SliceReader, ser::Serializer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use whimbrel::{
    Lane, Message,
    transport::{
        Answer, Connection, Incoming,
        amqp::{AmqpConnection, AmqpOptions},
    },
    wire::amqp::{self, AmqpMessage},
};

/// Base64 of `secretsecretsecretsecret`.
pub const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
/// The channel the server answers on; ours is 0.
const CHANNEL: u16 = 5;

pub fn options(address: SocketAddr) -> AmqpOptions {
    AmqpOptions {
        connection_string: format!("HostName=h.example;DeviceId=d#1;SharedAccessKey={KEY}").parse().unwrap(),
        endpoint: format!("amqp://{address}").parse().unwrap(),
        proxy: None,
        tls: None,
        keep_alive: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(20),
        token_lifetime: Duration::from_secs(3600),
    }
}

pub async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What a client said.
#[derive(Debug)]
pub enum Said {
    Open(Open),
    Begin(Begin),
    Attach(Box<Attach>),
    Flow(Flow),
    Transfer(Transfer, Vec<u8>),
    Disposition(Disposition),
    Detach(Detach),
    End(End),
    Close(Close),
    Nothing,
}

/// What the server offers.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    pub max_frame: u32,
    /// Credit for events.
    pub credit: u32,
    /// Transfers the session takes.
    pub window: u32,
    pub max_message: Option<u64>,
    pub idle: Option<u32>,
}

impl Default for Manners {
    fn default() -> Self {
        Self { max_frame: 65_536, credit: 1_000, window: 5_000, max_message: None, idle: None }
    }
}

/// The other end of a connection.
pub struct Peer {
    pub stream: TcpStream,
    input: BytesMut,
    /// Puts a message as the session counts them.
    next_outgoing: u32,
    next_delivery: u32,
    /// Transfers seen.
    seen: u32,
    pub manners: Manners,
    pub open: Option<Open>,
    pub token: Option<Token>,
    pub events: Option<Attach>,
}

/// What was put to `$cbs`.
#[derive(Debug)]
pub struct Token {
    pub id: String,
    pub operation: String,
    pub kind: String,
    pub audience: String,
    pub text: String,
}

/// An event as it arrived: its delivery-id, and the message.
#[derive(Debug)]
pub struct Event {
    pub id: u32,
    pub message: Message,
    pub frames: usize,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            next_outgoing: 100,
            next_delivery: 0,
            seen: 0,
            manners: Manners::default(),
            open: None,
            token: None,
            events: None,
        }
    }

    async fn frame(&mut self) -> Option<(u8, BytesMut)> {
        loop {
            if let Some(size) = self.input.first_chunk::<4>() {
                let length = u32::from_be_bytes(*size) as usize;
                assert!(length <= self.manners.max_frame as usize, "a frame over the limit: {length}");
                if self.input.len() >= length {
                    let mut whole = self.input.split_to(length);
                    let kind = whole[5];
                    return Some((kind, whole.split_off(8)));
                }
            }
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn header(&mut self) -> [u8; 8] {
        while self.input.len() < 8 {
            assert!(self.stream.read_buf(&mut self.input).await.unwrap() > 0, "the client hung up");
        }
        self.input.split_to(8)[..].try_into().unwrap()
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub fn framed(kind: u8, channel: u16, performative: &impl Serialize, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(&[0, 0, 0, 0, 2, kind][..]);
        out.put_u16(channel);
        performative.serialize(&mut Serializer::from((&mut out).writer())).unwrap();
        out.put_slice(payload);
        let length = (out.len() as u32).to_be_bytes();
        out[..4].copy_from_slice(&length);
        out
    }

    pub async fn send(&mut self, performative: &impl Serialize) {
        let bytes = Self::framed(0, CHANNEL, performative, &[]);
        self.write(&bytes).await;
    }

    /// What the client says next; none when it has hung up.
    pub async fn said(&mut self) -> Option<Said> {
        let (kind, body) = self.frame().await?;
        assert_eq!(kind, 0);
        let Some(code) = body.get(2) else { return Some(Said::Nothing) };
        Some(match code {
            0x10 => Said::Open(from_slice(&body).unwrap()),
            0x11 => Said::Begin(from_slice(&body).unwrap()),
            0x12 => Said::Attach(from_slice(&body).unwrap()),
            0x13 => Said::Flow(from_slice(&body).unwrap()),
            0x14 => {
                let length = match body[3] {
                    0xc0 => 5 + usize::from(body[4]),
                    0xd0 => 8 + u32::from_be_bytes(body[4..8].try_into().unwrap()) as usize,
                    other => panic!("no list: {other:#x}"),
                };
                self.seen += 1;
                Said::Transfer(from_slice(&body[..length]).unwrap(), body[length..].to_vec())
            }
            0x15 => Said::Disposition(from_slice(&body).unwrap()),
            0x16 => Said::Detach(from_slice(&body).unwrap()),
            0x17 => Said::End(from_slice(&body).unwrap()),
            0x18 => Said::Close(from_slice(&body).unwrap()),
            other => panic!("a client said {other:#x}"),
        })
    }

    /// As [`Peer::said`], past frames that only show that the client is there.
    pub async fn word(&mut self) -> Said {
        loop {
            match self.said().await.expect("the client goes on") {
                Said::Nothing => {}
                said => return said,
            }
        }
    }

    /// SASL with `offered`; what the client chose. Ends with `code`.
    pub async fn sasl(&mut self, offered: &[&str], code: SaslCode) -> SaslInit {
        self.offer(offered).await;
        let (kind, body) = self.frame().await.expect("sasl-init");
        assert_eq!(kind, 1);
        let outcome = SaslOutcome { code, additional_data: None };
        self.write(&Self::framed(1, 0, &outcome, &[])).await;
        from_slice(&body).unwrap()
    }

    /// The beginning of SASL.
    pub async fn offer(&mut self, offered: &[&str]) {
        assert_eq!(&self.header().await, b"AMQP\x03\x01\x00\x00");
        self.write(b"AMQP\x03\x01\x00\x00").await;
        let mechanisms = SaslMechanisms {
            sasl_server_mechanisms: Array(offered.iter().map(|name| Symbol::from(*name)).collect()),
        };
        self.write(&Self::framed(1, 0, &mechanisms, &[])).await;
    }

    /// OPEN and BEGIN.
    pub async fn begin(&mut self) {
        assert_eq!(&self.header().await, b"AMQP\x00\x01\x00\x00");
        self.write(b"AMQP\x00\x01\x00\x00").await;
        let Said::Open(open) = self.word().await else { panic!("OPEN comes first") };
        self.open = Some(open);
        let answer = Open {
            container_id: "hub".into(),
            hostname: None,
            max_frame_size: self.manners.max_frame.into(),
            channel_max: 10.into(),
            idle_time_out: self.manners.idle,
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        self.write(&Self::framed(0, 0, &answer, &[])).await;
        let Said::Begin(_) = self.word().await else { panic!("BEGIN comes second") };
        let begin = Begin {
            remote_channel: Some(0),
            next_outgoing_id: self.next_outgoing,
            incoming_window: self.manners.window,
            outgoing_window: 5_000,
            handle_max: 100.into(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        self.send(&begin).await;
    }

    /// Answers an attach; handles are the client's plus ten.
    pub async fn attach(&mut self, attach: &Attach, refuse: bool) {
        let sends = attach.role == Role::Receiver;
        let answer = Attach {
            handle: (attach.handle.0 + 10).into(),
            role: if sends { Role::Sender } else { Role::Receiver },
            source: (!refuse || !sends).then(|| attach.source.clone()).flatten(),
            target: (!refuse || sends).then(|| attach.target.clone()).flatten(),
            initial_delivery_count: sends.then_some(0),
            max_message_size: self.manners.max_message,
            properties: None,
            ..attach.clone()
        };
        self.send(&answer).await;
    }

    /// Credit for a link the client sends on.
    pub async fn credit(&mut self, client_handle: u32, delivery_count: u32, credit: u32) {
        let flow = self.flow(Some(client_handle), Some((delivery_count, credit)));
        self.send(&flow).await;
    }

    pub fn flow(&self, client_handle: Option<u32>, credit: Option<(u32, u32)>) -> Flow {
        Flow {
            next_incoming_id: Some(self.seen),
            incoming_window: self.manners.window,
            next_outgoing_id: self.next_outgoing,
            outgoing_window: 5_000,
            handle: client_handle.map(|handle| (handle + 10).into()),
            delivery_count: credit.map(|(count, _)| count),
            link_credit: credit.map(|(_, credit)| credit),
            available: None,
            drain: false,
            echo: false,
            properties: None,
        }
    }

    /// The links to `$cbs`; reads the first token and answers it.
    pub async fn tokens(&mut self, status: i32) {
        for _ in 0..2 {
            let Said::Attach(attach) = self.word().await else { panic!("links to $cbs come first") };
            self.attach(&attach, false).await;
            if attach.role == Role::Sender {
                self.credit(attach.handle.0, 0, 100).await;
            }
        }
        self.token(status).await;
    }

    /// Reads the next token and answers it.
    pub async fn token(&mut self, status: i32) {
        let (transfer, payload) = loop {
            match self.word().await {
                Said::Flow(_) | Said::Disposition(_) => {}
                Said::Transfer(transfer, payload) => break (transfer, payload),
                said => panic!("a token was to come, not {said:?}"),
            }
        };
        assert!(transfer.handle.0 == 0 && !transfer.more);
        let message = decoded(&payload);
        let application = message.application_properties.unwrap().0;
        let text = |name: &str| match application.get(name) {
            Some(SimpleValue::String(text)) => text.clone(),
            other => panic!("{name} is {other:?}"),
        };
        let Some(MessageId::String(id)) = message.properties.unwrap().message_id else { panic!("no id") };
        let Body::Value(AmqpValue(Value::String(token))) = message.body else { panic!("no token") };
        self.dispose(transfer.delivery_id.unwrap(), None, Some(DeliveryState::Accepted(Accepted {}))).await;
        self.token_answer(&id, status).await;
        self.token = Some(Token {
            id,
            operation: text("operation"),
            kind: text("type"),
            audience: text("name"),
            text: token,
        });
    }

    pub async fn token_answer(&mut self, id: &str, status: i32) {
        let mut application = OrderedMap::new();
        application.insert("status-code".to_owned(), SimpleValue::Int(status));
        application.insert("status-description".to_owned(), SimpleValue::String("as you say".into()));
        let properties =
            Properties { correlation_id: Some(MessageId::String(id.to_owned())), ..Properties::default() };
        let mut payload = BytesMut::new();
        for_each(&mut payload, &properties);
        for_each(&mut payload, &ApplicationProperties(application));
        for_each(&mut payload, &AmqpValue(Value::Null));
        self.message(1, &payload, true, 1).await;
    }

    /// The link for events, with its credit.
    pub async fn events(&mut self) {
        let attach = loop {
            match self.word().await {
                Said::Attach(attach) => break attach,
                Said::Flow(_) | Said::Disposition(_) => {}
                said => panic!("the link for events was to come, not {said:?}"),
            }
        };
        self.attach(&attach, false).await;
        let credit = self.manners.credit;
        self.credit(attach.handle.0, 0, credit).await;
        self.events = Some(*attach);
    }

    /// Everything until events can come.
    pub async fn let_in(&mut self) {
        self.sasl(&["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"], SaslCode::Ok).await;
        self.begin().await;
        self.tokens(200).await;
        self.events().await;
    }

    /// The next event, put together; none when the client has gone or said goodbye.
    pub async fn event(&mut self) -> Option<Event> {
        let mut whole = Vec::new();
        let (mut id, mut frames) = (None, 0);
        loop {
            match self.said().await? {
                Said::Transfer(transfer, payload) => {
                    assert_eq!(transfer.handle.0, 2, "events have one link");
                    assert_eq!(transfer.delivery_id.is_some(), id.is_none());
                    id = id.or(transfer.delivery_id);
                    frames += 1;
                    whole.extend(payload);
                    if !transfer.more {
                        let message = amqp::decode(decoded(&whole), Lane::Telemetry).unwrap().message;
                        return Some(Event { id: id.unwrap(), message, frames });
                    }
                }
                Said::Close(_) => return None,
                Said::Flow(_) | Said::Nothing | Said::Disposition(_) => {}
                said => panic!("an event was to come, not {said:?}"),
            }
        }
    }

    pub async fn events_many(&mut self, count: usize) -> Vec<Event> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(self.event().await.expect("the client goes on"));
        }
        all
    }

    /// Settles what the client sent.
    pub async fn dispose(&mut self, first: u32, last: Option<u32>, state: Option<DeliveryState>) {
        let disposition =
            Disposition { role: Role::Receiver, first, last, settled: true, state, batchable: false };
        self.send(&disposition).await;
    }

    pub async fn accept(&mut self, first: u32, last: Option<u32>) {
        self.dispose(first, last, Some(DeliveryState::Accepted(Accepted {}))).await;
    }

    pub async fn reject(&mut self, id: u32, condition: &str) {
        self.dispose(id, None, Some(rejected(condition))).await;
    }

    /// Accepts everything until the client goes; the bodies in order.
    pub async fn accept_all(&mut self) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(event) = self.event().await {
            bodies.push(String::from_utf8(event.message.body().to_vec()).unwrap());
            self.accept(event.id, None).await;
            let credit = self.manners.credit;
            self.credit(2, bodies.len() as u32, credit).await;
        }
        bodies
    }

    /// Waits for the link for commands; answers it with `mode`. The credit the client gives.
    pub async fn commands(&mut self, mode: ReceiverSettleMode) -> u32 {
        let attach = loop {
            match self.word().await {
                Said::Attach(attach) => break attach,
                Said::Flow(_) | Said::Disposition(_) => {}
                said => panic!("the link for commands was to come, not {said:?}"),
            }
        };
        assert_eq!(attach.rcv_settle_mode, ReceiverSettleMode::Second);
        assert_eq!(attach.snd_settle_mode, SenderSettleMode::Unsettled);
        let source = attach.source.as_ref().unwrap().address.clone();
        assert_eq!(source.as_deref(), Some("/devices/d%231/messages/devicebound"));
        self.attach(&Attach { rcv_settle_mode: mode, ..*attach }, false).await;
        self.granted().await
    }

    /// The credit in the next flow of the link for commands.
    pub async fn granted(&mut self) -> u32 {
        loop {
            match self.word().await {
                Said::Flow(flow) if flow.handle.as_ref().is_some_and(|handle| handle.0 == 3) => {
                    return flow.link_credit.unwrap();
                }
                Said::Flow(_) => {}
                said => panic!("credit was to come, not {said:?}"),
            }
        }
    }

    /// Sends a message on a link the client receives on, in so many pieces; its delivery-id.
    pub async fn message(&mut self, client_handle: u32, payload: &[u8], settled: bool, pieces: usize) -> u32 {
        let id = self.next_delivery;
        self.next_delivery += 1;
        let size = payload.len().div_ceil(pieces);
        let mut chunks = payload.chunks(size.max(1)).peekable();
        let mut first = true;
        while let Some(chunk) = chunks.next() {
            let transfer = Transfer {
                handle: (client_handle + 10).into(),
                delivery_id: first.then_some(id),
                delivery_tag: first.then(|| id.to_be_bytes().to_vec().into()),
                message_format: first.then_some(0),
                settled: Some(settled),
                more: chunks.peek().is_some(),
                rcv_settle_mode: None,
                state: None,
                resume: false,
                aborted: false,
                batchable: false,
            };
            self.next_outgoing += 1;
            let bytes = Self::framed(0, CHANNEL, &transfer, chunk);
            self.write(&bytes).await;
            first = false;
        }
        id
    }

    /// Sends a command, with the stamps a hub gives it.
    pub async fn command(&mut self, body: &str, sequence: u64, pieces: usize) -> u32 {
        let mut message =
            amqp::encode(&Message::telemetry(body.to_owned()).message_id(format!("id-{sequence}")));
        let mut annotations = fe2o3_amqp_types::messaging::annotations::Annotations::new();
        amqp::annotate(&mut annotations, amqp::annotation::SEQUENCE, Value::Ulong(sequence));
        amqp::annotate(&mut annotations, amqp::annotation::DELIVERY_COUNT, Value::Ubyte(2));
        let at = std::time::UNIX_EPOCH + Duration::from_millis(1_769_860_800_123);
        amqp::annotate(
            &mut annotations,
            amqp::annotation::ENQUEUED_AT,
            Value::Timestamp(amqp::timestamp(at)),
        );
        message.message_annotations = Some(fe2o3_amqp_types::messaging::MessageAnnotations(annotations));
        let mut payload = BytesMut::new();
        for_each(&mut payload, message.message_annotations.as_ref().unwrap());
        for_each(&mut payload, message.properties.as_ref().unwrap());
        let Body::Data(data) = &message.body else { unreachable!() };
        for section in data {
            for_each(&mut payload, section);
        }
        self.message(3, &payload, false, pieces).await
    }

    /// What the client says about a command: its delivery-id, whether it has forgotten it, and the state.
    pub async fn settled(&mut self) -> (u32, bool, DeliveryState) {
        loop {
            match self.word().await {
                Said::Disposition(said) => {
                    assert_eq!((said.role, said.last), (Role::Receiver, None));
                    return (said.first, said.settled, said.state.unwrap());
                }
                Said::Flow(_) => {}
                said => panic!("a settlement was to come, not {said:?}"),
            }
        }
    }

    /// Answers a settlement.
    pub async fn settle(&mut self, id: u32, state: Option<DeliveryState>) {
        let disposition =
            Disposition { role: Role::Sender, first: id, last: None, settled: true, state, batchable: false };
        self.send(&disposition).await;
    }

    pub async fn detach(&mut self, client_handle: u32, condition: Option<&str>) {
        let error = condition.map(error);
        self.send(&Detach { handle: (client_handle + 10).into(), closed: true, error }).await;
    }
}

pub fn error(condition: &str) -> definitions::Error {
    let condition: ErrorCondition =
        from_slice(&serde_amqp::to_vec(&Symbol::from(condition)).unwrap()).unwrap();
    definitions::Error::new(condition, Some("because".into()), None)
}

pub fn rejected(condition: &str) -> DeliveryState {
    DeliveryState::Rejected(Rejected { error: Some(error(condition)) })
}

pub fn decoded(payload: &[u8]) -> AmqpMessage {
    Body::<Value>::decode_message_from_reader(SliceReader::new(payload)).unwrap()
}

fn for_each(out: &mut BytesMut, section: &impl Serialize) {
    section.serialize(&mut Serializer::from(out.writer())).unwrap();
}

pub fn target(attach: &Attach) -> Option<String> {
    match attach.target.as_deref() {
        Some(TargetArchetype::Target(Target { address, .. })) => address.clone(),
        None => None,
    }
}

pub fn source(attach: &Attach) -> Option<String> {
    attach.source.as_ref().and_then(|source| source.address.clone())
}

/// Drives until `count` things are there.
pub async fn brought(connection: &mut AmqpConnection, count: usize) -> Incoming {
    let mut incoming = Incoming::default();
    while incoming.answers.len() + incoming.commands.len() + incoming.settled.len() < count {
        connection.drive(&mut incoming).await.unwrap();
    }
    incoming
}

pub async fn answers(connection: &mut AmqpConnection, count: usize) -> Vec<Answer> {
    brought(connection, count).await.answers
}

/// Drives until the connection ends.
pub async fn end(connection: &mut AmqpConnection) -> whimbrel::Error {
    let mut incoming = Incoming::default();
    loop {
        if let Err(error) = connection.drive(&mut incoming).await {
            return error;
        }
    }
}
