//! The back end's client: commands and their outcomes, feedback, events, registry. Cargo feature `service`.
//!
//! It speaks AMQP and HTTP as Azure IoT Hub does, so it works with that too; what our hub does beyond it, such as telling
//! outcomes at once and on query, is used where it is there.
//!
//! ```no_run
//! use std::time::Duration;
//! use whimbrel::{Message, service::{CommandOutcome, FileCheckpoints, SendOptions, ServiceClient, ServiceOptions}};
//!
//! # async fn example() -> whimbrel::Result<()> {
//! let options = ServiceOptions::from_connection_string(
//!     "HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0",
//! )?;
//! let service = ServiceClient::connect(options).await?;
//!
//! let options = SendOptions::default().expires_in(Duration::from_secs(600));
//! let tracked = service.send("thermostat-1", Message::command("reboot"), options).await?;
//! // The hub has it now. After a restart: service.tracked("thermostat-1", &message_id)
//! println!("{} is on its way", tracked.message_id());
//! assert_eq!(tracked.outcome().await?, CommandOutcome::Completed);
//!
//! let mut events = service.events().checkpoints(FileCheckpoints::open("./checkpoints")?).open().await?;
//! while let Some(event) = events.next().await? {
//!     println!("{}: {:?}", event.device_id(), event.message().body());
//!     event.checkpoint().await?;
//! }
//! # Ok(())
//! # }
//! ```

mod amqp;
mod commands;
mod events;
mod feedback;
mod options;
mod outcomes;
mod registry;
mod retry;
mod stop;
mod tracked;
mod web;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use amqp::Conduit;
use commands::{Desk, Order, SEND};
use options::{EventsPlan, Plan};
use outcomes::{Key, Outcomes};
use stop::Stop;
use web::Web;

pub use events::{
    Checkpoint, CheckpointStore, Claim, Event, EventReader, EventsBuilder, FileCheckpoints, HubCheckpoints,
    MemoryCheckpoints, Ownership, Position,
};
pub use feedback::{FeedbackBatch, FeedbackReader};
pub use options::ServiceOptions;
pub use registry::{Authentication, DeviceIdentity, DeviceStatus, ModuleIdentity, Page, Registry};
pub use tracked::{SendOptions, Tracked};

pub use crate::wire::feedback::{CommandOutcome, Feedback, FeedbackWanted};
use crate::{
    Error, ErrorKind, Message, Result, delivery::Backoff, message::is_id_character, wire::amqp as wire,
};

/// A back end's connection to its hub. Cheap to clone; safe to share between tasks and threads.
///
/// It connects when something needs a connection, and again when one is lost. One long-lived connection carries commands,
/// outcomes and feedback, another one the events of each reader.
#[derive(Clone)]
pub struct ServiceClient(Arc<Inner>);

pub(crate) struct Inner {
    hub: Arc<Conduit>,
    web: Arc<Web>,
    events: EventsPlan,
    outcomes: Outcomes,
    backoff: Backoff,
    send_timeout: std::time::Duration,
    /// To the task that sends commands, once there is one.
    desk: Mutex<Option<mpsc::Sender<Order>>>,
    /// How many readers of feedback there are.
    readers: watch::Sender<usize>,
    stop: Stop,
}

impl ServiceClient {
    /// Checks the options and reads the files they name. Connecting happens when it is needed.
    ///
    /// # Errors
    /// `InvalidArgument` naming the option.
    pub async fn connect(options: ServiceOptions) -> Result<Self> {
        let plan = tokio::task::spawn_blocking(move || options.prepare()).await.map_err(|stopped| {
            Error::new(ErrorKind::Closed, "service.connect", "the runtime stopped").caused_by(stopped)
        })?;
        let Plan { hub, events, web, send_timeout, backoff, recent_outcomes } = plan?;
        Ok(Self(Arc::new(Inner {
            hub: Arc::new(Conduit::new(hub)),
            web: Arc::new(web),
            events,
            outcomes: Outcomes::new(recent_outcomes),
            backoff,
            send_timeout,
            desk: Mutex::default(),
            readers: watch::Sender::new(0),
            stop: Stop::new(),
        })))
    }

    /// Sends a command to a device; returns when the hub has stored it in the device's queue. Any number may be sent at the
    /// same time: they share one link and do not wait for each other.
    ///
    /// A message without an id gets a random one. When the connection is lost before the hub's answer, the command is sent
    /// again with the same id, so the hub may get it twice: at least once. Cancelling before it was sent leaves nothing
    /// behind; afterwards the hub may have it.
    ///
    /// Against Azure IoT Hub, which tells outcomes by feedback only, full feedback is asked for, and the client reads the
    /// hub's feedback queue while somebody follows a command. The queue is one for the hub: what another process
    /// takes from it, or this one took before it was restarted, is not heard here.
    ///
    /// # Errors
    /// `InvalidArgument`, `PayloadTooLarge`: see [`Message::validate_command`]. `NotFound`: no such device, or it is
    /// disabled. `QueueFull`, `Throttled`: later. `Unauthorized`. `Timeout`: the hub has not answered within
    /// [`ServiceOptions::send_timeout`]; it may have the command. `Closed`.
    pub async fn send(&self, device: &str, message: Message, options: SendOptions) -> Result<Tracked> {
        check_device(device)?;
        let message = complete(device, message, options)?;
        message.validate_command().map_err(|error| error.in_operation(SEND))?;
        let message_id = message.system().message_id.as_deref().unwrap_or_default().into();
        let key = Key { device: device.into(), message_id };
        let followed = self.0.outcomes.follow(key.clone());
        let (answer, answered) = oneshot::channel();
        let order = Order { key, message, feedback: options.wanted(), answer };
        let desk = self.0.desk()?;
        let send = async {
            desk.send(order).await.map_err(|_| commands::closed())?;
            answered.await.unwrap_or_else(|_| Err(commands::closed()))
        };
        match tokio::time::timeout(self.0.send_timeout, send).await {
            Ok(sent) => sent.map(|()| Tracked::new(followed, self.0.clone())),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                SEND,
                "the hub has not answered in time; it may have the command",
            )
            .with("message id", &*followed.key.message_id)),
        }
    }

    /// Follows a command that was sent before, also by another process, by its message id.
    ///
    /// Our hub is asked how it ended. Azure IoT Hub cannot be asked: there only feedback that this client reads from now
    /// on, or has read lately, tells it.
    ///
    /// # Errors
    /// `InvalidArgument` for a device id that cannot be one; `Closed`.
    pub fn tracked(&self, device: &str, message_id: &str) -> Result<Tracked> {
        check_device(device)?;
        // Starts the task that listens.
        self.0.desk()?;
        let key = Key { device: device.into(), message_id: message_id.into() };
        Ok(Tracked::new(self.0.outcomes.resume(key, Instant::now()), self.0.clone()))
    }

    /// Reads the feedback the hub keeps for commands that asked for it.
    ///
    /// Against Azure IoT Hub, whose feedback is also how [`Tracked`] learns outcomes, an open reader is what does the
    /// reading: outcomes come as fast as batches are taken from it.
    ///
    /// # Errors
    /// `Closed`.
    pub fn feedback(&self) -> Result<FeedbackReader> {
        self.0.check_open()?;
        let Inner { hub, outcomes, backoff, readers, stop, .. } = &*self.0;
        Ok(FeedbackReader::start(hub.clone(), outcomes.clone(), *backoff, readers, stop))
    }

    /// Reads events; see [`EventsBuilder`].
    pub fn events(&self) -> EventsBuilder {
        EventsBuilder::new(self.0.clone())
    }

    /// Creates, changes and deletes device and module identities.
    pub fn registry(&self) -> Registry {
        Registry::new(self.0.web.clone(), self.0.hub.peer().host.as_str().into())
    }

    /// Closes the client, for every clone of it: what waits ends with `Closed`, readers give up their partitions and end,
    /// connections are closed.
    pub async fn close(&self) {
        self.0.stop.stop().await;
        self.0.hub.close().await;
    }
}

impl Inner {
    fn check_open(&self) -> Result<()> {
        if self.stop.is_stopped() { Err(commands::closed()) } else { Ok(()) }
    }

    async fn closed(&self) {
        self.stop.stopped().wait().await;
    }

    /// The way to the task that sends commands, which is started when there is none.
    fn desk(&self) -> Result<mpsc::Sender<Order>> {
        self.check_open()?;
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = desk.as_ref().filter(|desk| !desk.is_closed()) {
            return Ok(desk.clone());
        }
        let (sender, queue) = mpsc::channel(QUEUE);
        let work = Desk {
            conduit: self.hub.clone(),
            web: self.web.clone(),
            outcomes: self.outcomes.clone(),
            backoff: self.backoff,
            readers: self.readers.subscribe(),
        };
        // It ends with the last sender, which is here.
        self.stop.spawn(|stopped| work.run(queue, stopped)).detach();
        Ok(desk.insert(sender).clone())
    }
}

impl fmt::Debug for ServiceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClient").field("host", &self.0.hub.peer().host).finish_non_exhaustive()
    }
}

fn check_device(device: &str) -> Result<()> {
    let valid = !device.is_empty() && device.len() <= 128 && device.chars().all(is_id_character);
    match valid {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::InvalidArgument,
            SEND,
            "a device id is 1 to 128 ASCII letters, digits and -:.+%_#*?!(),=@;$'",
        )),
    }
}

/// The message with what sending adds: an id, the address, the expiry time.
fn complete(device: &str, mut message: Message, options: SendOptions) -> Result<Message> {
    let time_to_live = options.time_to_live().or(message.time_to_live());
    if time_to_live.is_some_and(|time_to_live| time_to_live.is_zero()) {
        return Err(Error::new(ErrorKind::InvalidArgument, SEND, "the time to live is zero"));
    }
    let system = message.system_mut();
    if system.message_id.is_none() {
        system.message_id = Some(random_id(SEND)?);
    }
    system.to = Some(wire::device_commands(device));
    if let Some(time_to_live) = time_to_live {
        let at = SystemTime::now().checked_add(time_to_live);
        system.expiry_time =
            Some(at.ok_or_else(|| {
                Error::new(ErrorKind::InvalidArgument, SEND, "the time to live is too long")
            })?);
    }
    Ok(message)
}

/// 128 random bits as 32 hexadecimal digits.
fn random_id(operation: &'static str) -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(ErrorKind::Internal, operation, "the system has no random numbers to give")
            .caused_by(error)
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Commands that wait for the task, at most.
const QUEUE: usize = 1_024;
