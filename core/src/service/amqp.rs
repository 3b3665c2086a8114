//! One AMQP connection to a hub, or to its event log: opened when it is needed, with a token that is kept valid. Contract
//! `amqp.md`, `d2c.md`.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use fe2o3_amqp::{
    Receiver, Sender,
    connection::ConnectionHandle,
    link::receiver::CreditMode,
    session::{Session, SessionHandle},
};
use fe2o3_amqp_types::{
    messaging::{AmqpValue, ApplicationProperties, Body, MessageId, Outcome, Properties, Source, Target},
    primitives::{OrderedMap, SimpleValue, Value},
};
use tokio::{sync::Mutex, task::JoinHandle};

use super::random_id;
use crate::{
    Error, ErrorKind, Result,
    auth::TokenSource,
    transport::{
        Route,
        amqp::{Cbs, Door, Fault, Sasl, told},
    },
    wire::amqp::AmqpMessage,
};

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) route: Route,
    /// The name the other side goes by, whatever address leads to it.
    pub(super) host: String,
    pub(super) login: Login,
    /// For a connection, from the first packet to the answer to the token.
    pub(super) timeout: Duration,
}

impl Peer {
    /// A token that is good now, for requests that carry one.
    pub(super) fn token(&self) -> Option<String> {
        match &self.login {
            Login::Token { tokens, .. } => Some(tokens.token(SystemTime::now(), 0.0).text),
            Login::Plain { .. } => None,
        }
    }
}

/// How to prove who we are.
#[derive(Clone)]
pub(super) enum Login {
    /// A token put to `$cbs`, renewed on the same connection.
    Token { audience: String, tokens: TokenSource },
    /// A token as the password of SASL PLAIN; it ends with the connection.
    Plain { user: String, tokens: TokenSource },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { audience, .. } => f.debug_struct("Token").field("audience", audience).finish(),
            Self::Plain { user, .. } => f.debug_struct("Plain").field("user", user).finish(),
        }
    }
}

/// A connection that is made when somebody needs it and made again when it was lost. One at a time.
pub(super) struct Conduit {
    peer: Peer,
    live: Mutex<Option<Live>>,
}

/// A connection that was opened. Dropping it closes it.
struct Live {
    connection: ConnectionHandle<()>,
    upkeep: JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

impl Conduit {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, live: Mutex::new(None) }
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// A new session, on a new connection when there is none. Dropping the session ends it.
    pub(super) async fn session(&self) -> Result<SessionHandle<()>> {
        let mut live = self.live.lock().await;
        let open = async {
            if live.as_ref().is_none_or(|live| live.connection.is_closed()) {
                // The old one is let go first: hubs count connections.
                *live = None;
                *live = Some(open(&self.peer).await?);
            }
            let Some(Live { connection, .. }) = live.as_mut() else {
                return Err(Error::new(
                    ErrorKind::Internal,
                    CONNECT,
                    "the connection went away while it was opened",
                ));
            };
            Session::builder()
                .incoming_window(WINDOW)
                .outgoing_window(WINDOW)
                .begin(connection)
                .await
                .map_err(|error| error.explained(CONNECT, "the hub opened no session"))
        };
        let begun = match tokio::time::timeout(self.peer.timeout, open).await {
            Ok(begun) => begun,
            Err(_) => Err(unreachable("the hub did not let us in in time")),
        };
        if begun.is_err() {
            *live = None;
        }
        begun
    }

    /// Closes the connection, if there is one; does not wait for the other side for long.
    pub(super) async fn close(&self) {
        if let Some(mut live) = self.live.lock().await.take() {
            live.upkeep.abort();
            let _ = tokio::time::timeout(GOODBYE, live.connection.close()).await;
        }
    }
}

async fn open(peer: &Peer) -> Result<Live> {
    let door = Door {
        route: peer.route.clone(),
        host_name: peer.host.clone(),
        sasl: Sasl::Anonymous,
        keep_alive: KEEP_ALIVE,
    };
    let id = format!("whimbrel-{}", random_id(CONNECT)?);
    let here = |error: Error| error.in_operation(CONNECT);
    match &peer.login {
        Login::Plain { user, tokens } => {
            let password = tokens.token(SystemTime::now(), 0.0).text;
            let connection = door.open_plain(&id, user, &password).await.map_err(here)?;
            Ok(Live { connection, upkeep: tokio::spawn(std::future::ready(())) })
        }
        Login::Token { audience, tokens } => {
            let mut connection = door.open(&id).await.map_err(here)?;
            let mut cbs = Cbs::attach(&mut connection).await.map_err(here)?;
            let renewal = cbs.prove(audience, tokens).await.map_err(here)?;
            let proving = cbs.keep_proving(audience.clone(), tokens.clone(), renewal);
            let upkeep = tokio::spawn(async move {
                // When the token ends the hub ends the connection, and the next one brings a new token.
                let error = proving.await;
                tracing::info!(%error, "tokens are not renewed on this connection any more");
            });
            Ok(Live { connection, upkeep })
        }
    }
}

/// A pair of links to a node that answers requests.
pub(super) async fn request_links(
    session: &mut SessionHandle<()>,
    node: &str,
    reply_to: &str,
) -> Result<(Sender, Receiver)> {
    let name = random_id(CONNECT)?;
    let sender = Sender::builder()
        .name(format!("{name}-ask"))
        .source(Source::builder().address(reply_to).build())
        .target(Target::builder().address(node).build())
        .attach(session)
        .await
        .map_err(|error| error.explained(CONNECT, LOST))?;
    let receiver = Receiver::builder()
        .name(format!("{name}-answer"))
        .source(Source::builder().address(node).build())
        .target(Target::builder().address(reply_to).build())
        .credit_mode(CreditMode::Auto(8))
        .attach(session)
        .await
        .map_err(|error| error.explained(CONNECT, LOST))?;
    Ok((sender, receiver))
}

/// A request to a node such as `$cbs` or `$management`.
pub(super) struct Request<'a> {
    pub(super) id: &'a str,
    pub(super) to: &'a str,
    pub(super) reply_to: &'a str,
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) body: Value,
}

/// What the node said.
pub(super) struct Answer {
    pub(super) status: i64,
    pub(super) description: String,
    pub(super) body: Body<Value>,
}

/// Sends a request and waits for its answer; answers to earlier ones that nobody waits for any more are passed over.
pub(super) async fn ask(
    sender: &mut Sender,
    receiver: &mut Receiver,
    request: Request<'_>,
) -> Result<Answer> {
    let fields: OrderedMap<String, SimpleValue> = request
        .fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), SimpleValue::String(value)))
        .collect();
    let message = AmqpMessage {
        header: None,
        delivery_annotations: None,
        message_annotations: None,
        properties: Some(Properties {
            message_id: Some(MessageId::String(request.id.to_owned())),
            to: Some(request.to.to_owned()),
            reply_to: Some(request.reply_to.to_owned()),
            ..Properties::default()
        }),
        application_properties: Some(ApplicationProperties(fields)),
        body: Body::Value(AmqpValue(request.body)),
        footer: None,
    };
    let sent = sender.send(message).await.map_err(|error| error.explained(CONNECT, LOST))?;
    if let Outcome::Rejected(rejected) = sent {
        const DOING: &str = "the hub rejected a request";
        return Err(match rejected.error {
            Some(said) => told(CONNECT, DOING, &said),
            None => Error::new(ErrorKind::Rejected, CONNECT, DOING),
        });
    }
    loop {
        let delivery =
            receiver.recv::<Body<Value>>().await.map_err(|error| error.explained(CONNECT, LOST))?;
        receiver.accept(&delivery).await.map_err(|error| error.explained(CONNECT, LOST))?;
        let message = delivery.into_message();
        let about = message.properties.and_then(|properties| properties.correlation_id);
        if about.is_some_and(|id| id != MessageId::String(request.id.to_owned())) {
            continue;
        }
        let fields = message.application_properties.map(|properties| properties.0).unwrap_or_default();
        let field = |names: [&str; 2]| names.iter().find_map(|name| fields.get(*name));
        let status = match field(["status-code", "statusCode"]) {
            Some(SimpleValue::Int(status)) => i64::from(*status),
            Some(SimpleValue::Long(status)) => *status,
            Some(SimpleValue::Uint(status)) => i64::from(*status),
            _ => return Err(Error::new(ErrorKind::Protocol, CONNECT, "an answer has no status code")),
        };
        let description = match field(["status-description", "statusDescription"]) {
            Some(SimpleValue::String(text)) => text.clone(),
            _ => String::new(),
        };
        return Ok(Answer { status, description, body: message.body });
    }
}

fn unreachable(message: &'static str) -> Error {
    Error::new(ErrorKind::Unreachable, CONNECT, message)
}

pub(super) const CONNECT: &str = "service.connect";
const LOST: &str = "the hub does not answer requests";
/// Transfers a session takes in before it says so again.
const WINDOW: u32 = 4_096;
/// A connection that brings nothing for so long is lost.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const GOODBYE: Duration = Duration::from_secs(2);
