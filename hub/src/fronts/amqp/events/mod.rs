//! Reading the event log as clients of Event Hubs do. Contract `d2c.md`, "Reading over AMQP".
//!
//! Where the contract leaves a choice:
//!
//! - The event log (`EntityPath`) is called like the first label of the hub's name, `events` where that is an address;
//!   `messages/events` is the same. Names are compared without case, groups too.
//! - A link to `messages/events/$management` is redirected, whoever asks: only programs that know the IoT hub alone, and
//!   look for the event log, ask for it. `$management` alone or below the log's name, and partitions below any of its
//!   names, are served on the spot.
//! - An epoch that is lower than that of the reader there is, and a reader without one while there is one with, are
//!   refused with `amqp:link:stolen`; clients know that the partition is somebody else's. An equal epoch takes over. A
//!   sixth reader without an epoch is refused with `amqp:resource-limit-exceeded`.
//! - A filter that is not understood is refused with `com.microsoft:argument-error`; filters of other kinds are left out
//!   of the answer, by which the protocol says that they do not count.
//! - Events are sent settled unless the reader asks for unsettled ones. What it does about those changes nothing.
//! - A position before the oldest event, or after the newest, is no error.

mod address;
mod encode;
mod link;
mod management;
mod seats;
mod selector;

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fe2o3_amqp_types::{
    definitions::{AmqpError, Error, ErrorCondition, LinkError, Role},
    performatives::Attach,
    primitives::{OrderedMap, Symbol, Value},
};
use whimbrel::{
    ErrorKind,
    wire::{amqp, refusal::Refusal},
};

use self::{
    address::Names,
    link::EventLink,
    seats::{NoSeat, Seat, Seats},
};
use super::{
    attach::{Context, Permit},
    condition,
    engine::Terms,
    link::Attaching,
    request::{self, Node},
};
use crate::{
    access::{Access, Right},
    events::{EventReader, Events},
};

/// Serves a link that reads a partition for a consumer group. `hub` is what stands before them in the address.
pub(super) async fn read(
    context: Context,
    mut attaching: Attaching,
    hub: String,
    group: String,
    partition: String,
) {
    let reading = &context.front.reading;
    let below = format!("ConsumerGroups/{group}/Partitions/{partition}");
    let permit = match reading.allow(&context, &attaching, &below) {
        Ok(permit) => permit,
        Err(error) => return attaching.refuse(error),
    };
    match reading.open(&mut attaching, &hub, &group, &partition).await {
        Ok(Opened { terms, reader, seat, watched }) => {
            let link = attaching.accept_outgoing(&terms);
            EventLink::new(link, reader, seat, watched).run().await;
        }
        Err(error) => attaching.refuse(error),
    }
    drop(permit);
}

/// Serves a link of the management node, for requests or for answers. `before` is what stands before it in the address.
pub(super) async fn management(context: Context, attaching: Attaching, before: Vec<String>) {
    let reading = Arc::clone(&context.front.reading);
    let hub = before.join("/");
    let permit = match reading.allow(&context, &attaching, amqp::MANAGEMENT) {
        Ok(permit) => permit,
        Err(error) => return attaching.refuse(error),
    };
    if address::is_hub_side(&hub) {
        return redirect(attaching, reading.redirection()).await;
    }
    if !hub.is_empty() && !reading.names.is_entity(&hub) {
        return attaching.refuse(condition::refusal(Refusal::ADDRESS_NOT_FOUND, NO_EVENT_HUB));
    }
    match attaching.attach().role {
        Role::Sender => {
            let link = attaching.accept_incoming(&request::terms());
            request::serve(Node::Management, link, context.replies, async |asked| {
                management::answer(&reading, &asked, SystemTime::now())
            })
            .await;
        }
        Role::Receiver => context.replies.serve(Node::Management, attaching).await,
    }
    drop(permit);
}

/// Sends a client away, a moment after its link was attached: widely used programs begin to listen for the detach only
/// then, and would miss one that comes along with the attach.
async fn redirect(attaching: Attaching, redirection: Error) {
    if attaching.attach().role == Role::Sender {
        return attaching.refuse(redirection);
    }
    let link = attaching.accept_outgoing(&request::terms());
    // Ready only when the link is over before.
    let _ = tokio::time::timeout(REDIRECT_AFTER, poll_fn(|cx| link.poll_disposition(cx))).await;
    link.detach(redirection);
}

/// The event log as this front offers it.
pub(super) struct Reading {
    access: Access,
    events: Events,
    names: Names,
    seats: Arc<Seats>,
    created_at: SystemTime,
    /// Port that clients are sent to when they look for the event log.
    port: u16,
}

impl Reading {
    /// `port` is where this hub listens for AMQP over TLS.
    pub(super) fn new(access: Access, events: Events, port: u16) -> Self {
        let names = Names::of(access.host_name());
        let created_at = events.created_at();
        Self { access, events, names, seats: Arc::default(), created_at, port }
    }

    /// Whether a token allows to read what stands below the event log.
    fn allows(&self, token: &str, below: &str, now: SystemTime) -> bool {
        let by = |resource: &String| self.access.service(token, Right::ServiceConnect, resource, now).is_ok();
        self.resources(below).iter().any(by)
    }

    /// What stands below the event log, under both of its names: a token has to cover one of them. [`Access::service`]
    /// takes them.
    fn resources(&self, below: &str) -> [String; 2] {
        [format!("messages/events/{below}"), format!("{}/{below}", self.names.entity())]
    }

    /// Lets a link be used to read what stands below the event log.
    fn allow(&self, context: &Context, attaching: &Attaching, below: &str) -> Result<Permit, Error> {
        let [first, second] = self.resources(below);
        context.allow_service_by_any(attaching, Right::ServiceConnect, &[&first, &second])
    }

    /// Where the management node is for a program that knows the IoT hub alone.
    fn redirection(&self) -> Error {
        let (host, entity) = (self.names.host(), self.names.entity());
        let mut info = OrderedMap::new();
        let mut put = |name: &str, value: Value| info.insert(Symbol::from(name), value);
        put("hostname", Value::String(host.to_owned()));
        put("network-host", Value::String(host.to_owned()));
        put("port", Value::Uint(self.port.into()));
        put("address", Value::String(format!("amqps://{host}:{}/{entity}/{}", self.port, amqp::MANAGEMENT)));
        let text = "the event log is described at another address";
        Error::new(LinkError::Redirect, text.to_owned(), info)
    }

    /// Everything a link needs, its seat included.
    async fn open(
        &self,
        attaching: &mut Attaching,
        hub: &str,
        group: &str,
        partition: &str,
    ) -> Result<Opened, Error> {
        if !self.names.is_entity(hub) {
            return Err(condition::refusal(Refusal::ADDRESS_NOT_FOUND, NO_EVENT_HUB));
        }
        let number = address::partition(partition).unwrap_or(u32::MAX);
        match self.events.checkpoint(group, number).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = format!("{} (consumer group {group}, partition {partition})", error.message());
                return Err(Error::new(AmqpError::NotFound, text, None));
            }
            Err(error) => return Err(condition::of(&error)),
        }
        let position = match &mut attaching.attach_mut().source {
            Some(source) => selector::position(source).map_err(|malformed| {
                Error::new(custom("com.microsoft:argument-error"), malformed.to_string(), None)
            })?,
            None => {
                return Err(Error::new(AmqpError::InvalidField, "the link has no source".to_owned(), None));
            }
        };
        let attach = attaching.attach();
        let watches = desires(attach, RUNTIME_METRIC);
        let epoch = epoch(attach);
        // Before the seat: at the end means from now on.
        let reader = self.events.reader(number, position).await.map_err(|error| condition::of(&error))?;
        let seat = self.seats.take(group, number, epoch).map_err(|why| match why {
            NoSeat::Higher(highest) => {
                let text = match epoch {
                    Some(epoch) => format!("a reader with epoch {highest} is there; {epoch} is lower"),
                    None => format!("a reader with epoch {highest} is there, and shares with nobody"),
                };
                Error::new(LinkError::Stolen, text, None)
            }
            NoSeat::Full => {
                let text = format!("a consumer group has at most {} readers of a partition", seats::SHARED);
                Error::new(AmqpError::ResourceLimitExceeded, text, None)
            }
        })?;
        let capabilities = if watches { vec![Symbol::from(RUNTIME_METRIC)] } else { Vec::new() };
        let terms = Terms { largest: 0, credit: 0, capabilities };
        let watched = watches.then(|| (self.events.clone(), number));
        Ok(Opened { terms, reader, seat, watched })
    }
}

struct Opened {
    terms: Terms,
    reader: EventReader,
    seat: Seat,
    /// The log and the partition, where the peer wants to know how far it is.
    watched: Option<(Events, u32)>,
}

/// The epoch a reader gives: a whole number of any type.
fn epoch(attach: &Attach) -> Option<i64> {
    match attach.properties.as_ref()?.get(&Symbol::from(EPOCH))? {
        Value::Byte(number) => Some((*number).into()),
        Value::Short(number) => Some((*number).into()),
        Value::Int(number) => Some((*number).into()),
        Value::Long(number) => Some(*number),
        other => amqp::number(other).and_then(|number| number.try_into().ok()),
    }
}

fn desires(attach: &Attach, capability: &str) -> bool {
    attach.desired_capabilities.iter().flat_map(|wanted| wanted.iter()).any(|Symbol(name)| name == capability)
}

fn custom(condition: &str) -> ErrorCondition {
    ErrorCondition::Custom(Symbol::from(condition))
}

/// How long a link stays that is redirected.
const REDIRECT_AFTER: Duration = Duration::from_millis(100);
const NO_EVENT_HUB: &str = "there is no event hub of this name";
/// Link property with the epoch of a reader.
const EPOCH: &str = "com.microsoft:epoch";
/// Capability: tell beside each event how far the partition is.
const RUNTIME_METRIC: &str = "com.microsoft:enable-receiver-runtime-metric";
