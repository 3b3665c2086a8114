//! What the program's handles and the client's task share: the state machine, the journal, and who waits for what.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Notify, oneshot};

use super::{
    Command,
    machine::{Effect, Id, Machine},
    store::Store,
};
use crate::{
    Error, ErrorKind, Result,
    journal::{Journal, Ticket},
    outbox::{Storage, check_there},
    transport::{Arrived, CommandSupport, Handle, Settled, Settlement},
};

pub(crate) struct Shared {
    state: Mutex<State>,
    /// There is a command to take, or a reason not to wait for one.
    news: Notify,
    /// There is something for the task to do.
    work: Notify,
}

struct State {
    machine: Machine,
    store: Store,
    /// Somebody asked for commands.
    wanted: bool,
    /// The connection that is up was told so.
    subscribed: bool,
    up: bool,
    /// Notes on their way to the disk, in order.
    noting: VecDeque<(Ticket, Id)>,
    /// Why a note did not get there.
    broken: Option<Error>,
    /// Who waits for the end of a settlement.
    asking: HashMap<Id, oneshot::Sender<Result<()>>>,
    /// For the connection that is up.
    outbound: Vec<(Handle, Settlement)>,
    /// Why there are no commands.
    refusal: Option<(ErrorKind, String)>,
    /// The refusal is about who we are, not about a connection.
    never: bool,
    /// The program has closed the client, or its task has ended.
    closed: bool,
    /// The folder is free until the client resumes.
    suspended: bool,
    /// Why nothing can be settled any more.
    ended: Option<(ErrorKind, String)>,
}

impl Shared {
    /// Opens or creates the inbox beside an outbox. Blocking.
    ///
    /// # Errors
    /// `InUse`, `JournalVersion`, `JournalIo`, `DiskFull`.
    pub(crate) fn open(storage: &Storage) -> Result<Arc<Self>> {
        let (store, books) = Store::open(storage, wall())?;
        Ok(Self::new(store, Machine::new(books)))
    }

    /// [`Shared::open`] on a disk of the caller's.
    #[cfg(all(test, feature = "testing"))]
    pub(super) fn open_on(disk: Arc<dyn crate::journal::Disk>) -> Result<Arc<Self>> {
        let (store, books) = Store::open_on(disk, false, wall())?;
        Ok(Self::new(store, Machine::new(books)))
    }

    fn new(store: Store, machine: Machine) -> Arc<Self> {
        let state = State {
            machine,
            store,
            wanted: false,
            subscribed: false,
            up: false,
            noting: VecDeque::new(),
            broken: None,
            asking: HashMap::new(),
            outbound: Vec::new(),
            refusal: None,
            never: false,
            closed: false,
            suspended: false,
            ended: None,
        };
        Arc::new(Self { state: Mutex::new(state), news: Notify::new(), work: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This client never gets commands.
    pub(crate) fn refuse_for_good(&self, error: &Error) {
        let mut state = self.state();
        state.never = true;
        state.refusal = Some((error.kind(), error.message().to_owned()));
    }

    /// The program wants commands.
    pub(crate) fn want(&self) {
        let mut state = self.state();
        state.wanted = !state.never;
        drop(state);
        self.work.notify_one();
    }

    pub(super) async fn next(self: &Arc<Self>) -> Result<Option<Command>> {
        loop {
            let news = self.news.notified();
            {
                let mut state = self.state();
                if let Some((id, arrived)) = state.machine.take() {
                    if state.machine.has_waiting() {
                        self.news.notify_one();
                    }
                    return Ok(Some(Command::new(self.clone(), id, arrived)));
                }
                if let Some((kind, reason)) = &state.refusal {
                    return Err(Error::new(*kind, "inbox.next", reason.clone()));
                }
                if state.closed {
                    return Ok(None);
                }
            }
            news.await;
        }
    }

    /// Begins to settle a command. What it gives resolves when that is done; dropping it stops nothing.
    pub(super) fn settle(&self, id: Id, settlement: Settlement) -> Result<oneshot::Receiver<Result<()>>> {
        let mut state = self.state();
        if state.suspended {
            return Err(Error::new(ErrorKind::Closed, SETTLE, SUSPENDED));
        }
        if let Some((kind, reason)) = &state.ended {
            return Err(Error::new(*kind, SETTLE, reason.clone()));
        }
        let mut effects = Vec::new();
        state.machine.settle(id, settlement, &mut effects)?;
        let (answer, answered) = oneshot::channel();
        state.asking.insert(id, answer);
        self.carry_out(&mut state, effects);
        Ok(answered)
    }

    pub(super) fn dropped(&self, id: Id) {
        self.state().machine.dropped(id);
    }

    /// A connection is up.
    pub(crate) fn connected(&self, now: Instant, support: CommandSupport) {
        let mut state = self.state();
        state.up = true;
        state.subscribed = false;
        if !state.never {
            state.refusal = None;
        }
        state.machine.connected(now, support);
    }

    /// The connection is gone.
    pub(crate) fn lost(&self) {
        let mut state = self.state();
        state.up = false;
        state.outbound.clear();
        self.feed(&mut state, |machine, effects| machine.lost(effects));
    }

    /// Commands arrived.
    pub(crate) fn arrived(&self, now: Instant, commands: &mut Vec<Arrived>) {
        let mut state = self.state();
        for arrived in commands.drain(..) {
            self.feed(&mut state, |machine, effects| machine.arrived(now, arrived, effects));
        }
    }

    /// The connection says what became of settlements.
    pub(crate) fn settled(&self, now: Instant, settled: &mut Vec<Settled>) {
        let mut state = self.state();
        for settled in settled.drain(..) {
            self.feed(&mut state, |machine, effects| machine.settled(now, settled, effects));
        }
    }

    /// The hub sends no commands on this connection.
    pub(crate) fn refused(&self, error: &Error) {
        tracing::warn!(%error, "the hub sends no commands");
        self.state().refusal = Some((error.kind(), error.to_string()));
        self.news.notify_waiters();
    }

    /// Resolves when [`Shared::take_work`] has something to give. One waiter. Cancelling changes nothing.
    pub(crate) async fn work(&self) {
        loop {
            let work = self.work.notified();
            let pending = {
                let state = self.state();
                if state.has_work() {
                    return;
                }
                state.noting.front().map(|(ticket, _)| (state.store.journal.clone(), *ticket))
            };
            tokio::select! {
                () = work => {}
                result = durable(pending) => {
                    if let Err(error) = result {
                        self.state().broken = Some(error);
                        return;
                    }
                }
            }
        }
    }

    /// What the connection is to be told: whether to have commands sent from now on, and settlements. Answers those who
    /// wait for nothing more.
    pub(crate) fn take_work(&self, settlements: &mut Vec<(Handle, Settlement)>) -> bool {
        let mut state = self.state();
        self.finish_notes(&mut state);
        settlements.append(&mut state.outbound);
        let subscribe = state.wants_subscription();
        state.subscribed |= subscribe;
        subscribe
    }

    /// Hands out no more commands.
    pub(crate) fn close_intake(&self) {
        let mut state = self.state();
        state.closed = true;
        state.machine.close();
        drop(state);
        self.news.notify_waiters();
        self.work.notify_one();
    }

    /// Whether settlements are under way.
    pub(crate) fn is_settling(&self) -> bool {
        self.state().machine.is_settling()
    }

    /// Commits everything and gives the folder free; what is being settled is recorded or fails. Blocking.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`.
    pub(crate) fn close(&self) -> Result<()> {
        let journal = {
            let mut state = self.state();
            state.closed = true;
            state.machine.close();
            state.store.journal.clone()
        };
        let closed = journal.close();
        let mut state = self.state();
        self.let_go(&mut state, &closed);
        state.suspended = false;
        state.end(ErrorKind::Closed, CLOSED.to_owned());
        drop(state);
        self.news.notify_waiters();
        closed
    }

    /// Commits everything and gives the folder free until [`Shared::resume`]; what is being settled is recorded or fails.
    /// Commands that nobody has taken are let go of: the hub delivers them again. Who waits for one waits on. Blocking.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`. It is suspended all the same.
    pub(crate) fn suspend(&self) -> Result<()> {
        let journal = {
            let mut state = self.state();
            state.suspended = true;
            state.store.journal.clone()
        };
        let closed = journal.close();
        let mut state = self.state();
        self.let_go(&mut state, &closed);
        closed
    }

    /// Opens the inbox again, as it is found on the disk. Nothing has changed when it fails. Blocking.
    ///
    /// # Errors
    /// As [`Shared::open`].
    pub(crate) fn resume(&self) -> Result<()> {
        let (disk, volatile) = self.state().store.place();
        check_there(&*disk)?;
        let (store, books) = Store::open_on(disk, volatile, wall())?;
        let mut state = self.state();
        state.store = store;
        state.machine.resume(books);
        state.broken = None;
        state.ended = None;
        if !state.never {
            state.refusal = None;
        }
        state.closed = false;
        state.suspended = false;
        Ok(())
    }

    /// The connection is gone and the journal closed.
    fn let_go(&self, state: &mut State, closed: &Result<()>) {
        state.up = false;
        self.feed(state, |machine, effects| machine.lost(effects));
        if let Err(error) = closed {
            state.broken.get_or_insert_with(|| Error::new(error.kind(), SETTLE, error.to_string()));
        }
        self.finish_notes(state);
        state.outbound.clear();
    }

    /// Nothing is delivered and nothing settled any more, because of `error`.
    pub(crate) fn fail(&self, error: &Error) {
        let mut state = self.state();
        state.refusal = Some((error.kind(), error.to_string()));
        state.end(error.kind(), error.to_string());
        drop(state);
        self.news.notify_waiters();
    }

    /// The task is gone, with its runtime perhaps.
    pub(crate) fn abandoned(&self) {
        let mut state = self.state();
        if state.suspended {
            return;
        }
        state.end(ErrorKind::Closed, CLOSED.to_owned());
        drop(state);
        self.news.notify_waiters();
    }

    /// Takes the notes that reached the disk, or failed to.
    fn finish_notes(&self, state: &mut State) {
        while let Some((ticket, id)) = state.noting.front().copied() {
            if state.store.journal.is_durable(ticket) {
                state.noting.pop_front();
                self.feed(state, |machine, effects| machine.durable(id, effects));
            } else if let Some(error) = &state.broken {
                let error = not_recorded(error);
                state.noting.pop_front();
                self.feed(state, |machine, effects| machine.failed(id, error, effects));
            } else {
                return;
            }
        }
    }

    fn feed(&self, state: &mut State, input: impl FnOnce(&mut Machine, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        input(&mut state.machine, &mut effects);
        self.carry_out(state, effects);
    }

    fn carry_out(&self, state: &mut State, mut effects: Vec<Effect>) {
        while !effects.is_empty() {
            // Carrying one out may lead to more.
            for effect in std::mem::take(&mut effects) {
                self.carry_out_one(state, effect, &mut effects);
            }
        }
    }

    fn carry_out_one(&self, state: &mut State, effect: Effect, more: &mut Vec<Effect>) {
        let State { machine, store, noting, asking, outbound, .. } = state;
        match effect {
            Effect::HandOut => self.news.notify_one(),
            Effect::Settle(handle, settlement) => {
                outbound.push((handle, settlement));
                self.work.notify_one();
            }
            Effect::Note { id, key, settlement } => {
                let at = wall();
                match store.settled(&machine.books, key, settlement, at) {
                    Ok(ticket) => {
                        machine.noted(id, at);
                        if store.volatile {
                            machine.durable(id, more);
                        } else {
                            noting.push_back((ticket, id));
                            self.work.notify_one();
                        }
                    }
                    Err(error) => machine.failed(id, not_recorded(&error), more),
                }
            }
            Effect::Forget(key) => store.forgotten(&machine.books, key),
            Effect::Answer(id, result) => {
                if let Some(asking) = asking.remove(&id) {
                    let _ = asking.send(result); // nobody has to wait
                }
            }
        }
    }
}

impl State {
    fn has_work(&self) -> bool {
        let noted = self
            .noting
            .front()
            .is_some_and(|(ticket, _)| self.broken.is_some() || self.store.journal.is_durable(*ticket));
        noted || !self.outbound.is_empty() || self.wants_subscription()
    }

    fn wants_subscription(&self) -> bool {
        self.wanted && self.up && !self.subscribed && !self.closed
    }

    fn end(&mut self, kind: ErrorKind, reason: String) {
        self.closed = true;
        self.machine.close();
        for (_, asking) in self.asking.drain() {
            let _ = asking.send(Err(Error::new(kind, SETTLE, reason.clone())));
        }
        self.ended.get_or_insert((kind, reason));
    }
}

/// Waits for a commit; for ever when there is none to wait for.
async fn durable(commit: Option<(Journal, Ticket)>) -> Result<()> {
    match commit {
        Some((journal, ticket)) => journal.durable(ticket).await,
        None => std::future::pending().await,
    }
}

fn not_recorded(error: &Error) -> Error {
    let message =
        "the settlement could not be recorded, and the hub was not told; the command is still unsettled";
    Error::new(error.kind(), SETTLE, message).caused_by(error.to_string())
}

/// Seconds since 1970, by the device's clock.
fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const SETTLE: &str = "command.settle";
const SUSPENDED: &str = "the client is suspended; call resume first: the command can be settled then";
const CLOSED: &str = "the client was closed; the hub delivers the command again";
