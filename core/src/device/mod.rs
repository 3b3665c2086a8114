//! The device program's client: joins outbox, inbox, delivery and transport in one task.

mod life;
mod options;
mod read_ahead;
mod task;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use life::{Budget, Life, Phase};
pub use options::DeviceOptions;
use options::Plan;

use crate::{
    Accepted, Account, Counters, Error, ErrorKind, Inbox, Message, Receipt, ReceiptKey, Result, inbox,
    outbox::Outbox,
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
    options: DeviceOptions,
    connection: watch::Receiver<ConnectionState>,
    /// No new messages are taken, for good.
    closed: AtomicBool,
    life: Arc<Life>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.begin_to_close();
    }
}

impl DeviceClient {
    /// Opens the outbox and returns; connecting goes on in the background. Never waits for the network.
    ///
    /// Cancelling leaves nothing behind but, perhaps, an empty outbox on the disk.
    ///
    /// # Errors
    /// `InvalidArgument` naming the option; `InUse`, `JournalIo`, `JournalVersion`, `DiskFull` from the outbox;
    /// `Unsupported` for what this build leaves out. Storage that is not available yet (a phone before its first unlock)
    /// is `JournalIo`, and opening later works.
    pub async fn open(options: DeviceOptions) -> Result<Self> {
        let runtime = life::runtime("device.open")?;
        // Certificates and the outbox are read from the disk.
        let (plan, options) = blocking("device.open", move || Ok((options.prepare()?, options))).await?;
        let (state, connection) = watch::channel(ConnectionState::Disconnected { reason: None });
        let Plan { outbox, inbox, transport } = plan;
        let (closed, life) = (AtomicBool::new(false), Life::new(state));
        let shared = Arc::new(Shared { outbox, inbox, options, connection, closed, life });
        shared.start(transport, &runtime)?;
        Ok(Self(shared))
    }

    /// Gets ready for the system to stop the process at any time, as it does with a mobile app in the background: flushes
    /// for at most `budget`, says goodbye to the hub, and lets go of everything. When it returns, nothing of the client is
    /// at work, its files are closed, and another client may open the outbox. Returns how many messages are still queued.
    /// It takes no longer than the budget and the closing of the files; a tenth of the budget, at most 1 s, is for the
    /// goodbye.
    ///
    /// Until [`DeviceClient::resume`], calls that need the outbox fail with `Closed`; the figures stay as they are;
    /// [`Inbox::next`], [`Receipt::outcome`], a flush that was begun and the watch of the connection wait on. A command
    /// that was taken and not settled can be settled after resuming, as after a lost connection. An outbox in memory keeps
    /// its messages, as long as the process lives.
    ///
    /// A client that is resuming is suspended afterwards. Suspending twice is fine; when both wait, the shorter budget
    /// counts. Cancelling stops the waiting, not the suspending.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull` when not everything could be written; told once, and it is suspended all the same.
    /// `Closed`.
    pub async fn suspend(&self, budget: Duration) -> Result<u64> {
        self.check_open("device.suspend")?;
        self.0.suspend(Budget::starting_now(budget)).await
    }

    /// Opens the outbox again after [`DeviceClient::suspend`], as it is found on the disk, and connects, with the options
    /// the client was opened with, on the runtime that calls this. When it fails the client stays suspended: call again.
    /// Never makes a new outbox where the old one is missing.
    ///
    /// A client that is being suspended is resumed afterwards. Resuming twice is fine. Cancelling stops the waiting, not the
    /// resuming.
    ///
    /// # Errors
    /// `JournalIo` when the storage is not available, such as on a phone that is locked; `InUse` when somebody else has
    /// opened the outbox; `Conflict` when another outbox, or an older copy of this one, is in its place;
    /// `InvalidArgument` when a certificate cannot be read any more; `JournalVersion`, `DiskFull`, `Closed`.
    pub async fn resume(&self) -> Result<()> {
        self.check_open("device.resume")?;
        self.0.resume().await
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
        self.0.outbox.check_open("device.flush")?;
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
    /// the hub. A suspended client is closed at once.
    ///
    /// Cancelling stops the waiting, not the closing; call again to wait on. Closing twice is fine.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`; told once.
    pub async fn close(&self) -> Result<()> {
        self.0.closed.store(true, Ordering::Release);
        self.0.begin_to_close();
        let _ = self.0.life.phase.subscribe().wait_for(|phase| *phase == Phase::Closed).await;
        self.0.life.failure()
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, operation, life::CLOSED));
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
