//! The device program's client: joins outbox, inbox, delivery and transport in one task.

mod options;
mod read_ahead;
mod task;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

pub use options::DeviceOptions;
use options::Way;
use task::Task;

use crate::{
    Accepted, Account, Counters, Error, ErrorKind, Inbox, Message, Receipt, ReceiptKey, Result, inbox,
    outbox::Outbox,
    transport::{Transport, mqtt::MqttTransport},
};
pub use crate::{delivery::ConnectionState, transport::Protocol};

/// A device's connection to its hub, with a durable outbox. Cheap to clone; safe to share between tasks and threads.
///
/// Opening needs no network, and neither does sending: a message is safe when [`DeviceClient::send`] returns, and
/// delivery goes on in one background task, on the runtime that opened the client. When the last clone is dropped, that
/// task closes the client as [`DeviceClient::close`] does, for as long as the runtime lives; only `close` itself waits
/// for it and tells of errors.
#[derive(Clone)]
pub struct DeviceClient(Arc<Shared>);

struct Shared {
    outbox: Outbox,
    inbox: Arc<inbox::Shared>,
    connection: watch::Receiver<ConnectionState>,
    /// No new messages are taken.
    closed: AtomicBool,
    /// Tells the task to close; so does dropping it.
    close: watch::Sender<bool>,
    /// Changes, or is dropped by the task, when everything is over.
    ended: watch::Receiver<bool>,
    /// Why closing failed, for the first who asks.
    failure: Arc<Mutex<Option<Error>>>,
}

impl DeviceClient {
    /// Opens the outbox and returns; connecting goes on in the background. Never waits for the network.
    ///
    /// Cancelling leaves nothing behind but, perhaps, an empty outbox on the disk.
    ///
    /// # Errors
    /// `InvalidArgument` naming the option; `InUse`, `JournalIo`, `JournalVersion`, `DiskFull` from the outbox;
    /// `Unsupported` for what this build leaves out.
    pub async fn open(options: DeviceOptions) -> Result<Self> {
        // Certificates and the outbox are read from the disk.
        let plan = blocking("device.open", move || options.prepare()).await?;
        match plan.transport {
            Way::Mqtt(options) => {
                Self::start(plan.outbox, plan.inbox, MqttTransport::new(options)?, plan.habits)
            }
            #[cfg(feature = "amqp")]
            Way::Amqp(options) => {
                let transport = crate::transport::amqp::AmqpTransport::new(options)?;
                Self::start(plan.outbox, plan.inbox, transport, plan.habits)
            }
            #[cfg(feature = "http")]
            Way::Http(options) => {
                let transport = crate::transport::http::HttpTransport::new(options)?;
                Self::start(plan.outbox, plan.inbox, transport, plan.habits)
            }
        }
    }

    /// Starts the task on the current runtime.
    fn start<T: Transport>(
        outbox: Outbox,
        inbox: Arc<inbox::Shared>,
        transport: T,
        habits: task::Habits,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, "device.open", "there is no tokio runtime here")
                .caused_by(error)
        })?;
        let (state, connection) = watch::channel(ConnectionState::Disconnected { reason: None });
        let (close, closing) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let failure = Arc::new(Mutex::new(None));
        let task = Task::new(outbox.clone(), inbox.clone(), transport, habits, state, closing)?;
        runtime.spawn({
            let failure = failure.clone();
            async move {
                if let Err(error) = task.run().await {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
                end.send_replace(true);
            }
        });
        let closed = AtomicBool::new(false);
        Ok(Self(Arc::new(Shared { outbox, inbox, connection, closed, close, ended, failure })))
    }

    /// Takes a message in; returns when it is on disk (or as safe as was chosen).
    ///
    /// Cancelling leaves the message either wholly in or wholly out; [`DeviceClient::account`] tells.
    ///
    /// # Errors
    /// As [`crate::outbox::Outbox::send`].
    pub async fn send(&self, message: Message) -> Result<Receipt> {
        self.check_open("device.send")?;
        self.0.outbox.send(message).await
    }

    /// Takes a message in without waiting for the disk: the first half of [`DeviceClient::send`], for programs that cannot
    /// await at every call. It is safe once [`Accepted::stored`] says so.
    ///
    /// # Errors
    /// As [`crate::outbox::Outbox::accept`].
    pub fn accept(&self, message: Message) -> Result<Accepted> {
        self.check_open("device.send")?;
        self.0.outbox.accept(message)
    }

    /// Takes many in, in order, with one commit. All or none, also when cancelled.
    ///
    /// # Errors
    /// As [`crate::outbox::Outbox::send_all`].
    pub async fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> Result<Vec<Receipt>> {
        self.check_open("device.send_all")?;
        self.0.outbox.send_all(messages.into_iter().collect()).await
    }

    /// The receipt of a message by its id, also after a restart; `None` when it is not known (any more). Cancelling
    /// changes nothing.
    ///
    /// # Errors
    /// `JournalIo`, `Closed`.
    pub async fn receipt(&self, message_id: &str) -> Result<Option<Receipt>> {
        self.check_open("device.receipt")?;
        let (outbox, message_id) = (self.0.outbox.clone(), message_id.to_owned());
        blocking("device.receipt", move || outbox.receipt(&message_id)).await
    }

    /// The receipt that `key` is the key of; see [`crate::outbox::Outbox::receipt_at`].
    pub fn receipt_at(&self, key: ReceiptKey) -> Receipt {
        self.0.outbox.receipt_at(key)
    }

    /// Waits until everything is settled or `deadline` passes; returns how many messages are still queued. Never fails
    /// for a slow network. Cancelling changes nothing.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn flush(&self, deadline: Duration) -> Result<u64> {
        self.check_open("device.flush")?;
        let _ = tokio::time::timeout(deadline, self.0.outbox.empty()).await;
        Ok(self.0.outbox.account().queued)
    }

    /// The commands for this device. The first call has the hub send them, on this connection and each later one.
    ///
    /// A hub that keeps the device's session, as it was asked to, sends what is queued as soon as the device connects
    /// again. That is kept, unsettled, until it is taken here, so a command is not lost when this is called late.
    ///
    /// ```no_run
    /// # async fn run(device: whimbrel::DeviceClient) -> whimbrel::Result<()> {
    /// let inbox = device.inbox();
    /// while let Some(command) = inbox.next().await? {
    ///     match command.body().as_ref() {
    ///         b"reboot" => command.complete().await?, // the hub removes it
    ///         b"update" => command.abandon().await?,  // not now: it comes again
    ///         _ => command.reject().await?,           // never: it becomes a dead letter
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn inbox(&self) -> Inbox {
        Inbox::new(self.0.inbox.clone())
    }

    /// What the link is doing, now and whenever it changes.
    pub fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.0.connection.clone()
    }

    /// The account of the outbox.
    pub fn account(&self) -> Account {
        self.0.outbox.account()
    }

    /// Figures.
    pub fn counters(&self) -> Counters {
        self.0.outbox.counters()
    }

    /// Takes no more messages and hands out no more commands, flushes for as long as the options say (default 5 s),
    /// disconnects, closes the outbox. What is left stays there for the next time; commands that are not settled stay with
    /// the hub.
    ///
    /// Cancelling stops the waiting, not the closing; call again to wait on. Closing twice is fine.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`; told once.
    pub async fn close(&self) -> Result<()> {
        self.0.closed.store(true, Ordering::Release);
        self.0.close.send_replace(true);
        self.0.inbox.close_intake();
        // An error means that the task is gone, with its runtime perhaps: that is closed, too.
        let _ = self.0.ended.clone().wait_for(|ended| *ended).await;
        match self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, operation, "the client was closed"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for DeviceClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceClient")
            .field("connection", &*self.0.connection.borrow())
            .finish_non_exhaustive()
    }
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<R: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, operation, "the work did not end").caused_by(error))
    })
}
