//! The device client.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use whimbrel::{DeviceClient, Error, ErrorKind, Result};
use whimbrel_bindings_support::{ConnectionStates, DeviceSettings, Lease, Storing, guard};

use crate::{
    Account, ConnectionChanges, ConnectionState, Counters, DeviceOptions, Draft, Failure, Inbox, Outcome,
    Outgoing, Receipt, ReceiptState, Stored,
    call::{Cancel, block, run, run_through, run_while_it_lasts, wait},
    log,
};

/// An open client of a device.
///
/// Freeing it closes nothing: a client that was not shut down goes on delivering until the process ends, and says so in the
/// log once.
#[derive(Debug, uniffi::Object)]
pub struct Device {
    client: DeviceClient,
    storing: Storing<Token>,
    running: Arc<Running>,
    told_to_end: AtomicBool,
    /// Failures that wait to be asked for.
    refusals: Mutex<HashMap<u64, Failure>>,
}

/// Who waits for a message, and the id the program chose for it.
type Token = (u64, Option<String>);

#[uniffi::export]
impl Device {
    /// Opens a client. Never waits for the network. Who stops waiting leaves nothing behind but, perhaps, an empty outbox: what
    /// was opened for nobody is closed again.
    #[uniffi::constructor]
    pub async fn open(
        connection_string: String,
        options: DeviceOptions,
        cancel: Cancel,
    ) -> Result<Arc<Self>, Failure> {
        let options = guard(OPEN, || DeviceSettings::from(options).options(&connection_string))?;
        let open = async move {
            let lease = Lease::take()?;
            log::attend(lease.handle());
            let client = DeviceClient::open(options).await?;
            Ok((client, lease))
        };
        let unwanted = |(client, lease): (DeviceClient, Lease)| async move {
            if let Err(error) = client.close().await {
                tracing::warn!(%error, "a client that nobody waited for did not close well");
            }
            drop(lease);
        };
        let (client, lease) = run_through(OPEN, cancel, open, unwanted).await?;
        Ok(Arc::new(Self {
            storing: Storing::new(client.clone()),
            client,
            running: Arc::new(Running::new(lease)),
            told_to_end: AtomicBool::new(false),
            refusals: Mutex::default(),
        }))
    }

    /// Takes a message in; resolves when it is on disk, or as safe as was chosen. Who stops waiting takes nothing back.
    pub async fn send(
        &self,
        body: Vec<u8>,
        draft: Option<Draft>,
        cancel: Cancel,
    ) -> Result<Receipt, Failure> {
        let draft = draft.unwrap_or_default();
        let chosen = draft.message_id.clone();
        let accepted = guard(SEND, || self.client.accept(draft.message(SEND, body)?))?;
        wait(SEND, cancel, async { Receipt::of(&accepted.stored().await?, chosen) }).await
    }

    /// The first half of `send`, for languages in which a future for each message costs more than the message: takes it in and
    /// returns. What became of it comes under `token`, through `stored_ready` and `take_stored`; those of a lane in order.
    pub fn accept(&self, token: u64, body: Vec<u8>, draft: Option<Draft>) -> Result<(), Failure> {
        Ok(guard(SEND, || self.take_in(token, body, draft))?)
    }

    /// Why `whimbrel_uniffi_accept` did not take the message of this token in; told once.
    pub fn refusal(&self, token: u64) -> Option<Failure> {
        self.refusals().remove(&token)
    }

    /// Where this object is, for `whimbrel_uniffi_accept`. It is there for as long as somebody keeps it.
    pub fn address(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }

    /// Resolves when `take_stored` has something. One at a time may wait. Who stops waiting loses nothing.
    pub async fn stored_ready(&self, cancel: Cancel) -> Result<(), Failure> {
        wait(SEND, cancel, async {
            self.storing.ready().await;
            Ok(())
        })
        .await
    }

    /// What became of messages that were accepted, since it was asked last.
    pub fn take_stored(&self) -> Vec<Stored> {
        let told = |((token, chosen), stored): (Token, Result<whimbrel::Receipt>)| {
            let receipt = stored.and_then(|receipt| Receipt::of(&receipt, chosen));
            match receipt {
                Ok(receipt) => Stored::Safe { token, receipt },
                Err(error) => Stored::Failed { token, failure: error.into() },
            }
        };
        self.storing.take().into_iter().map(told).collect()
    }

    /// Takes many in, in order, with one commit: all or none. `details` of a failure have `index`, where one of them is to
    /// blame.
    pub async fn send_many(&self, messages: Vec<Outgoing>, cancel: Cancel) -> Result<Vec<Receipt>, Failure> {
        const SEND_ALL: &str = "device.send_all";
        let mut chosen = Vec::with_capacity(messages.len());
        let messages = guard(SEND_ALL, || {
            let message = |(index, Outgoing { body, draft }): (usize, Outgoing)| {
                let draft = draft.unwrap_or_default();
                chosen.push(draft.message_id.clone());
                draft.message(SEND_ALL, body).map_err(|error| error.with("index", index))
            };
            messages.into_iter().enumerate().map(message).collect::<Result<Vec<_>>>()
        })?;
        let client = self.client.clone();
        run(SEND_ALL, cancel, async move {
            let receipts = client.send_all(messages).await?;
            receipts.iter().zip(chosen).map(|(receipt, chosen)| Receipt::of(receipt, chosen)).collect()
        })
        .await
    }

    /// The receipt of a message by its id, also after a restart; nothing when it is not known (any more).
    pub async fn receipt(&self, message_id: String, cancel: Cancel) -> Result<Option<Receipt>, Failure> {
        let client = self.client.clone();
        run("device.receipt", cancel, async move {
            let receipt = client.receipt(&message_id).await?;
            receipt.map(|receipt| Receipt::of(&receipt, Some(message_id))).transpose()
        })
        .await
    }

    /// The message id that was made for the message of this receipt.
    pub fn message_id(&self, place: u64, sequence: u64) -> String {
        self.receipt_at(place, sequence).message_id().to_owned()
    }

    /// Where the message of this receipt is.
    pub fn state(&self, place: u64, sequence: u64) -> Result<ReceiptState, Failure> {
        Ok(guard("receipt.state", || ReceiptState::of(&self.receipt_at(place, sequence).state()))?)
    }

    /// Waits for the end of the message of this receipt.
    pub async fn outcome(&self, place: u64, sequence: u64, cancel: Cancel) -> Result<Outcome, Failure> {
        const OUTCOME: &str = "receipt.outcome";
        let receipt = self.receipt_at(place, sequence);
        wait(OUTCOME, cancel, async { Outcome::of(OUTCOME, &receipt.outcome().await?) }).await
    }

    /// The commands for this device. The first call has the hub send them, on this connection and each later one.
    pub fn inbox(&self) -> Arc<Inbox> {
        Inbox::new(self.client.inbox())
    }

    /// What the link is doing.
    pub fn connection(&self) -> Result<ConnectionState, Failure> {
        Ok(guard("device.connection", || ConnectionState::of(&self.client.connection().borrow()))?)
    }

    /// What the link is doing, now and whenever it changes.
    pub fn connection_changes(&self) -> Arc<ConnectionChanges> {
        ConnectionChanges::new(ConnectionStates::new(self.client.connection()))
    }

    /// The account of the outbox.
    pub fn account(&self) -> Result<Account, Failure> {
        Ok(guard("device.account", || Ok(self.client.account().into()))?)
    }

    /// Figures. They may need a look at the disk, so they come later.
    pub async fn counters(&self, cancel: Cancel) -> Result<Counters, Failure> {
        const COUNTERS: &str = "device.counters";
        let client = self.client.clone();
        run(COUNTERS, cancel, async move {
            let counters =
                tokio::task::spawn_blocking(move || guard(COUNTERS, || Ok(client.counters().into())));
            counters.await.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Internal, COUNTERS, "the work did not end").caused_by(error))
            })
        })
        .await
    }

    /// Waits until everything is settled or the time is over; how many messages are still queued. Never fails for a slow
    /// network.
    pub async fn flush(&self, deadline_ms: u64, cancel: Cancel) -> Result<u64, Failure> {
        const FLUSH: &str = "device.flush";
        let (begin, deadline) = (Instant::now(), Duration::from_millis(deadline_ms));
        let flush = async {
            loop {
                let client = self.client.clone();
                let left = deadline.saturating_sub(begin.elapsed());
                // It has the clock of the runtime, but does not keep that from ending: a flush that was begun waits on while the
                // client is suspended.
                if let Some(flushed) =
                    run_while_it_lasts(FLUSH, async move { client.flush(left).await }).await?
                {
                    return flushed;
                }
                let mut states = self.client.connection();
                // An error means that the client is gone, of which the next flush tells.
                let _ = states.wait_for(|state| *state != whimbrel::device::ConnectionState::Suspended).await;
            }
        };
        wait(FLUSH, cancel, flush).await
    }

    /// Flushes for at most `budget_ms`, then lets go of everything: link, threads, files, lock. How many messages are still
    /// queued. Until `resume`, calls that need the outbox fail with `Closed`; receipts, commands and states that are waited for
    /// are waited for on. Who stops waiting stops the waiting, not the suspending.
    pub async fn suspend(&self, budget_ms: u64, cancel: Cancel) -> Result<u64, Failure> {
        let (client, running) = (self.client.clone(), self.running.clone());
        let budget = Duration::from_millis(budget_ms);
        let suspend = async move {
            let _turn = running.turn.lock().await;
            let left = client.suspend(budget).await?;
            running.give_back();
            Ok(left)
        };
        run_through("device.suspend", cancel, suspend, |_| std::future::ready(())).await
    }

    /// Opens the outbox again and connects. When it fails, because the storage is not available perhaps, the client stays
    /// suspended; call again. Who stops waiting stops the waiting, not the resuming.
    pub async fn resume(&self, cancel: Cancel) -> Result<(), Failure> {
        let (client, running) = (self.client.clone(), self.running.clone());
        let resume = async move {
            let _turn = running.turn.lock().await;
            let lease = Lease::take()?;
            log::attend(lease.handle());
            client.resume().await?;
            running.keep(lease);
            Ok(())
        };
        run_through("device.resume", cancel, resume, std::future::ready).await
    }

    /// Takes no more messages and hands out no more commands, flushes for as long as the options say, disconnects, closes the
    /// outbox. Who stops waiting stops the waiting, not the closing. Twice is fine.
    pub async fn shutdown(&self, cancel: Cancel) -> Result<(), Failure> {
        run_through(CLOSE, cancel, self.closing(), std::future::ready).await
    }

    /// `shutdown` for a thread that cannot await; it waits.
    pub fn shutdown_blocking(&self) -> Result<(), Failure> {
        block(CLOSE, self.closing())
    }
}

impl Device {
    pub(crate) fn take_in(&self, token: u64, body: Vec<u8>, draft: Option<Draft>) -> Result<()> {
        let draft = draft.unwrap_or_default();
        let token = (token, draft.message_id.clone());
        self.storing.send(token, draft.message(SEND, body)?)
    }

    pub(crate) fn refuse(&self, token: u64, why: Failure) {
        self.refusals().insert(token, why);
    }

    fn refusals(&self) -> MutexGuard<'_, HashMap<u64, Failure>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receipt_at(&self, place: u64, sequence: u64) -> whimbrel::Receipt {
        self.client.receipt_at(whimbrel::ReceiptKey::from_parts([place, sequence]))
    }

    fn closing(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.told_to_end.store(true, Ordering::Release);
        let (client, running) = (self.client.clone(), self.running.clone());
        async move {
            let closed = client.close().await;
            running.end();
            closed
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let lease = self.running.place().lease.take();
        if self.told_to_end.load(Ordering::Acquire) || lease.is_none() {
            return;
        }
        // Garbage collection frees memory and nothing else: what waits in the outbox is still delivered.
        tracing::warn!("a client was never shut down; it stays open until the process ends");
        mem::forget((lease, self.client.clone()));
    }
}

/// What keeps the runtime for a client that is open and not suspended.
#[derive(Debug)]
struct Running {
    /// Held by who suspends or resumes: one after the other.
    turn: tokio::sync::Mutex<()>,
    place: Mutex<Place>,
}

#[derive(Debug)]
struct Place {
    lease: Option<Lease>,
    ended: bool,
}

impl Running {
    fn new(lease: Lease) -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            place: Mutex::new(Place { lease: Some(lease), ended: false }),
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, lease: Lease) {
        let mut place = self.place();
        let before = if place.ended { Some(lease) } else { place.lease.replace(lease) };
        drop(place);
        drop(before);
    }

    fn give_back(&self) {
        let lease = self.place().lease.take();
        drop(lease);
    }

    fn end(&self) {
        self.place().ended = true;
        self.give_back();
    }
}

const OPEN: &str = "device.open";
const SEND: &str = "device.send";
const CLOSE: &str = "device.close";
