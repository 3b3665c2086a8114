//! The limit: a server made of the AMQP crate alone, which sends one prepared message for ever.

use std::net::SocketAddr;

use fe2o3_amqp::{
    Sendable,
    acceptor::{ConnectionAcceptor, LinkAcceptor, LinkEndpoint, SaslAnonymousMechanism, SessionAcceptor},
};
use fe2o3_amqp_types::{
    messaging::{Body, MessageAnnotations, annotations::Annotations},
    primitives::Value,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use whimbrel::{Message, wire::amqp};

use super::Outcome;

/// Ends the server when it is dropped.
pub(super) struct Serving(AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the server, whose message has a body of `bytes` bytes and as many annotations as an event of a hub.
pub(super) async fn start(bytes: usize) -> Outcome<(SocketAddr, Serving)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, bytes));
        }
    });
    Ok((address, Serving(task.abort_handle())))
}

async fn serve(stream: TcpStream, bytes: usize) -> Outcome {
    stream.set_nodelay(true)?;
    let acceptor = ConnectionAcceptor::builder()
        .container_id("bare")
        .max_frame_size(65_536_u32)
        .sasl_acceptor(SaslAnonymousMechanism {})
        .build();
    let mut connection = acceptor.accept(stream).await?;
    let mut session = SessionAcceptor::default().accept(&mut connection).await?;
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            link = accept(&mut session) => match link {
                Ok(LinkEndpoint::Sender(mut sender)) => {
                    let prepared = prepared(bytes);
                    links.spawn(async move { while sender.send_batchable_ref(&prepared).await.is_ok() {} });
                }
                Ok(LinkEndpoint::Receiver(_)) => {}
                Err(_) => return Ok(()),
            },
            Some(_) = links.join_next() => {}
        }
    }
}

async fn accept(
    session: &mut fe2o3_amqp::acceptor::ListenerSessionHandle,
) -> Result<LinkEndpoint, fe2o3_amqp::acceptor::error::AcceptorAttachError> {
    LinkAcceptor::new().accept(session).await
}

fn prepared(bytes: usize) -> Sendable<Body<Value>> {
    let mut message = amqp::encode(&Message::telemetry(vec![0x5a; bytes]));
    let mut annotations = Annotations::new();
    let text = |text: &str| Value::String(text.to_owned());
    for (name, value) in [
        (amqp::annotation::SEQUENCE, Value::Long(1_000_000)),
        (amqp::annotation::OFFSET, text("1000000")),
        (amqp::annotation::LOGGED_AT, Value::Timestamp(1_769_860_800_123_i64.into())),
        (amqp::annotation::ENQUEUED_AT, Value::Timestamp(1_769_860_800_123_i64.into())),
        (amqp::annotation::DEVICE, text("device-0")),
        (amqp::annotation::GENERATION, text("638000000000000000")),
        (
            amqp::annotation::AUTH_METHOD,
            text(r#"{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#),
        ),
        (amqp::annotation::SOURCE, text("Telemetry")),
    ] {
        amqp::annotate(&mut annotations, name, value);
    }
    message.message_annotations = Some(MessageAnnotations(annotations));
    Sendable::builder().message(message).build()
}
