//! A client frame by frame, for what libraries do not show or do not do.

use bytes::{Buf, BytesMut};
use fe2o3_amqp_types::{
    definitions::{Handle, ReceiverSettleMode, Role, SenderSettleMode},
    messaging::{DeliveryState, Source, Target},
    performatives::{Attach, Begin, Close, Disposition, Flow, Open, Performative, Transfer},
    primitives::{Binary, Symbol},
    sasl::{SaslCode, SaslInit, SaslOutcome},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::client::{Ground, PATIENCE};

pub(crate) struct Raw {
    stream: TcpStream,
    received: BytesMut,
}

impl Raw {
    /// Signed in as a device or policy by PLAIN, opened, with a session on channel 0.
    pub(crate) async fn open(ground: &Ground, user: &str, token: &str) -> Self {
        let mut raw = Self { stream: ground.dial().await, received: BytesMut::new() };
        raw.write(b"AMQP\x03\x01\x00\x00").await;
        assert_eq!(raw.read(8).await, b"AMQP\x03\x01\x00\x00");
        raw.frame().await;
        let response = Binary::from(format!("\0{user}\0{token}").into_bytes());
        let init =
            SaslInit { mechanism: Symbol::from("PLAIN"), initial_response: Some(response), hostname: None };
        raw.send(1, &serde_amqp::to_vec(&init).unwrap()).await;
        let outcome: SaslOutcome = serde_amqp::from_slice(&raw.frame().await).unwrap();
        assert_eq!(outcome.code, SaslCode::Ok);
        raw.write(b"AMQP\x00\x01\x00\x00").await;
        assert_eq!(raw.read(8).await, b"AMQP\x00\x01\x00\x00");
        raw.say(Performative::Open(Open {
            container_id: "raw".into(),
            hostname: None,
            max_frame_size: 65_536.into(),
            channel_max: 10.into(),
            idle_time_out: None,
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        }))
        .await;
        raw.say(Performative::Begin(Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: 1_000,
            outgoing_window: 1_000,
            handle_max: Handle(10),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        }))
        .await;
        raw.hear().await;
        raw.hear().await;
        raw
    }

    pub(crate) async fn receive_from(&mut self, address: &str, mode: ReceiverSettleMode, credit: u32) {
        let source = Source { address: Some(address.into()), ..Source::default() };
        let Performative::Attach(mut attach) = link(0, Role::Receiver, source, Target::default()) else {
            unreachable!()
        };
        attach.rcv_settle_mode = mode;
        self.say(Performative::Attach(attach)).await;
        assert!(matches!(self.hear().await, Performative::Attach(_)));
        self.credit(0, credit, false).await;
    }

    pub(crate) async fn credit(&mut self, delivery_count: u32, credit: u32, drain: bool) {
        self.say(flow(0, delivery_count, credit, drain)).await;
    }

    pub(crate) async fn dispose(&mut self, number: u32, settled: bool, state: DeliveryState) {
        self.say(Performative::Disposition(Disposition {
            role: Role::Receiver,
            first: number,
            last: None,
            settled,
            state: Some(state),
            batchable: false,
        }))
        .await;
    }

    pub(crate) async fn transfer(&mut self) -> Transfer {
        match self.hear().await {
            Performative::Transfer(transfer) => transfer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn disposition(&mut self) -> Disposition {
        match self.hear().await {
            Performative::Disposition(disposition) => disposition,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn close(mut self) {
        self.say(Performative::Close(Close { error: None })).await;
        while !matches!(self.hear().await, Performative::Close(_)) {}
    }

    pub(crate) async fn say(&mut self, performative: Performative) {
        self.send(0, &serde_amqp::to_vec(&performative).unwrap()).await;
    }

    /// The next performative; what follows it is left out.
    pub(crate) async fn hear(&mut self) -> Performative {
        let body = self.frame().await;
        serde_amqp::from_reader(&body[..]).unwrap()
    }

    /// A link for requests to a node, one for its answers, and a request, all in one packet.
    pub(crate) async fn ask_at_once(&mut self, node: &str, request: &[u8]) {
        let address = || Some(node.to_owned());
        let target = Target { address: address(), ..Target::default() };
        let source = Source { address: address(), ..Source::default() };
        let transfer = Performative::Transfer(Transfer {
            handle: Handle(0),
            delivery_id: Some(0),
            delivery_tag: Some(Binary::from(vec![0])),
            message_format: Some(0),
            settled: Some(true),
            more: false,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        });
        let parts = [
            (link(0, Role::Sender, Source::default(), target), &[][..]),
            (link(1, Role::Receiver, source, Target::default()), &[]),
            (flow(1, 0, 10, false), &[]),
            (transfer, request),
        ];
        let body = |(performative, rest): &(Performative, &[u8])| {
            framed(0, &[&serde_amqp::to_vec(performative).unwrap(), *rest].concat())
        };
        self.write(&parts.iter().map(body).collect::<Vec<_>>().concat()).await;
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        self.write(&framed(kind, body)).await;
    }

    async fn frame(&mut self) -> Vec<u8> {
        loop {
            let size = u32::from_be_bytes(self.read(4).await.try_into().unwrap());
            let body = self.read(size as usize - 4).await[4..].to_vec();
            if !body.is_empty() {
                return body;
            }
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn read(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            let read =
                timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.expect("silence").unwrap();
            assert!(read > 0, "the hub has closed");
        }
        let bytes = self.received[..count].to_vec();
        self.received.advance(count);
        bytes
    }
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32 + 8).to_be_bytes().to_vec();
    frame.extend([2, kind, 0, 0]);
    frame.extend(body);
    frame
}

fn link(handle: u32, role: Role, source: Source, target: Target) -> Performative {
    let initial_delivery_count = (role == Role::Sender).then_some(0);
    Performative::Attach(Attach {
        name: format!("raw-{handle}"),
        handle: Handle(handle),
        role,
        snd_settle_mode: SenderSettleMode::Unsettled,
        rcv_settle_mode: ReceiverSettleMode::First,
        source: Some(Box::new(source)),
        target: Some(Box::new(target.into())),
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count,
        max_message_size: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    })
}

fn flow(handle: u32, delivery_count: u32, credit: u32, drain: bool) -> Performative {
    Performative::Flow(Flow {
        next_incoming_id: Some(0),
        incoming_window: 1_000,
        next_outgoing_id: 0,
        outgoing_window: 1_000,
        handle: Some(Handle(handle)),
        delivery_count: Some(delivery_count),
        link_credit: Some(credit),
        available: None,
        drain,
        echo: false,
        properties: None,
    })
}
