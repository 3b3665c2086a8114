//! Which device is connected where, takeover, and what a session keeps while its device is away.
//!
//! A connection that was let in takes the [`Seat`] of its identity. Whoever sat there before is told to leave, and the
//! newcomer waits until it has stopped reading: events of one device are never stored out of order because two of its
//! connections overlap.
//!
//! Sessions that have subscribed to something are kept in the store and found there again after a restart, one by one as
//! their devices come back. One that has not has nothing to keep: it is known only as long as the hub runs.

mod presence;

use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{future::BoxFuture, task::AtomicWaker};
use tokio::sync::oneshot;
use whimbrel::Result;

use crate::store::{SessionRow, Store};

pub(crate) use presence::{Presence, Presences, Present};

/// Who may sit: one seat for each device and each module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    /// Device id.
    pub(crate) device: Arc<str>,
    /// Module id.
    pub(crate) module: Option<Arc<str>>,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// The same identity connected again.
    TakenOver = 1,
    /// The device was disabled, deleted, or its credentials changed.
    Revoked = 2,
    /// The hub stops.
    Stop = 3,
}

impl Order {
    fn from_code(code: u8) -> Option<Self> {
        [Self::TakenOver, Self::Revoked, Self::Stop].into_iter().find(|order| *order as u8 == code)
    }
}

/// How sure a subscriber wants to be; the surer, the larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assurance {
    /// May be lost.
    AtMostOnce,
    /// Repeated until acknowledged.
    AtLeastOnce,
}

/// What a device asked to receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscriptions {
    /// Commands, on the topic of MQTT 5.
    pub(crate) commands: Option<Assurance>,
    /// Commands, on topics below `devicebound`.
    pub(crate) devicebound: Option<Assurance>,
    /// Inputs of a module.
    pub(crate) inputs: Option<Assurance>,
}

impl Subscriptions {
    /// As they are stored: two bits for each. The order is part of the format: new ones go last.
    fn to_bits(self) -> u32 {
        let all = [self.commands, self.devicebound, self.inputs];
        all.into_iter().rev().fold(0, |bits, subscription| {
            bits << 2
                | match subscription {
                    None => 0,
                    Some(Assurance::AtMostOnce) => 1,
                    Some(Assurance::AtLeastOnce) => 2,
                }
        })
    }

    fn from_bits(bits: u32) -> Self {
        let at = |place: u32| match bits >> (2 * place) & 0b11 {
            1 => Some(Assurance::AtMostOnce),
            2 => Some(Assurance::AtLeastOnce),
            _ => None,
        };
        Self { commands: at(0), devicebound: at(1), inputs: at(2) }
    }
}

/// How a connection wants its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Forget what was kept before.
    pub(crate) fresh: bool,
    /// Keep the session when the connection ends.
    pub(crate) keep: bool,
}

/// What a session keeps while its device is away.
#[derive(Clone, Debug)]
struct Kept {
    generation: Arc<str>,
    subscriptions: Subscriptions,
}

impl Kept {
    /// What the store keeps of it.
    fn row(&self) -> Option<SessionRow> {
        (self.subscriptions != Subscriptions::default()).then(|| SessionRow {
            generation: Arc::clone(&self.generation),
            subscriptions: self.subscriptions.to_bits(),
        })
    }
}

#[derive(Debug, Default)]
struct Entry {
    sitting: Option<Arc<Chair>>,
    /// As the store has it, or is about to have it; `None` when only the store knows.
    kept: Option<Kept>,
}

/// What a connection and the table share.
#[derive(Debug, Default)]
struct Chair {
    order: AtomicU8,
    waker: AtomicWaker,
    successor: Mutex<Option<oneshot::Sender<()>>>,
}

impl Chair {
    /// The first order counts.
    fn order(&self, order: Order) {
        if self.order.compare_exchange(0, order as u8, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.waker.wake();
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<Identity, Entry>,
    connected: usize,
    stopping: bool,
}

/// All sessions of this hub.
pub(crate) struct Sessions {
    store: Arc<dyn Store>,
    table: Mutex<Table>,
    presences: Arc<Presences>,
}

impl Sessions {
    /// Sessions that are kept in `store`.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, table: Mutex::default(), presences: Arc::default() }
    }

    /// Takes the seat of `identity`: tells whoever sits there to leave and waits until it has. Also tells whether a
    /// session was kept, and what it had subscribed to. `None` when the hub stops. A session that ends by this has ended
    /// for good when it returns.
    ///
    /// Should the store fail, what it keeps of the session is taken for lost: a client that is told so subscribes again,
    /// and to keep it out would help it less.
    ///
    /// Cancelling gives the seat back.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        identity: Identity,
        generation: &Arc<str>,
        terms: Terms,
    ) -> Option<(Seat, Option<Subscriptions>)> {
        let (seat, gone) = self.sit(identity)?;
        if let Some(gone) = gone {
            // The sender is dropped with the old seat; nothing is ever sent.
            let _ = gone.await;
        }
        let found = seat.resume(generation, terms).await;
        Some((seat, found))
    }

    fn sit(self: &Arc<Self>, identity: Identity) -> Option<(Seat, Option<oneshot::Receiver<()>>)> {
        let mut table = self.lock();
        if table.stopping {
            return None;
        }
        table.connected += 1;
        let entry = table.entries.entry(identity.clone()).or_default();
        let chair = Arc::new(Chair::default());
        let gone = entry.sitting.replace(Arc::clone(&chair)).map(|old| {
            let (gone, watch) = oneshot::channel();
            *old.successor.lock().unwrap_or_else(PoisonError::into_inner) = Some(gone);
            old.order(Order::TakenOver);
            watch
        });
        drop(table);
        let present = self.presences.enter(&identity);
        Some((Seat { sessions: Arc::clone(self), identity, chair, _present: present }, gone))
    }

    /// Tells the connections of a device and of its modules to leave.
    pub(crate) fn revoke(&self, device: &Arc<str>) {
        for (_, entry) in of_device(&mut self.lock().entries, device) {
            if let Some(chair) = &entry.sitting {
                chair.order(Order::Revoked);
            }
        }
    }

    /// Tells the connection of one module to leave.
    pub(crate) fn revoke_module(&self, device: &Arc<str>, module: &Arc<str>) {
        let identity = Identity { device: Arc::clone(device), module: Some(Arc::clone(module)) };
        if let Some(chair) = self.lock().entries.get(&identity).and_then(|entry| entry.sitting.as_ref()) {
            chair.order(Order::Revoked);
        }
    }

    /// Tells every connection to leave as [`Sessions::revoke`] does; new ones may come in.
    pub(crate) fn revoke_all(&self) {
        for chair in self.lock().entries.values().filter_map(|entry| entry.sitting.as_ref()) {
            chair.order(Order::Revoked);
        }
    }

    /// Forgets what the sessions of a device and of its modules kept: the device was deleted, and with it what the store
    /// had of them.
    pub(crate) fn forget(&self, device: &Arc<str>) {
        self.presences.forget(device);
        let mut table = self.lock();
        let mut empty = Vec::new();
        for (identity, entry) in of_device(&mut table.entries, device) {
            entry.kept = None;
            if entry.sitting.is_none() {
                empty.push(identity.clone());
            }
        }
        for identity in empty {
            table.entries.remove(&identity);
        }
    }

    /// Tells every connection to leave and lets no new one in.
    pub(crate) fn stop(&self) {
        let mut table = self.lock();
        table.stopping = true;
        for entry in table.entries.values() {
            if let Some(chair) = &entry.sitting {
                chair.order(Order::Stop);
            }
        }
    }

    /// Who is connected: by a seat, or in another way that is counted there.
    pub(crate) fn presences(&self) -> &Arc<Presences> {
        &self.presences
    }

    /// Connections that hold a seat, or wait for one.
    pub(crate) fn connected(&self) -> usize {
        self.lock().connected
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("connected", &self.connected()).finish_non_exhaustive()
    }
}

/// The entries of a device: its own, which sorts first, and those of its modules.
fn of_device<'a>(
    entries: &'a mut BTreeMap<Identity, Entry>,
    device: &Arc<str>,
) -> impl Iterator<Item = (&'a Identity, &'a mut Entry)> {
    let first = Identity { device: Arc::clone(device), module: None };
    let device = Arc::clone(device);
    entries.range_mut(first..).take_while(move |(identity, _)| identity.device == device)
}

/// The right of one connection to act for its identity. Dropping it lets a successor in.
pub(crate) struct Seat {
    sessions: Arc<Sessions>,
    identity: Identity,
    chair: Arc<Chair>,
    _present: Present,
}

impl Seat {
    /// Resolves when the connection has to end. Wakes the task that polled last.
    pub(crate) fn poll_order(&self, cx: &mut Context<'_>) -> Poll<Order> {
        self.chair.waker.register(cx.waker());
        match Order::from_code(self.chair.order.load(Ordering::Acquire)) {
            Some(order) => Poll::Ready(order),
            None => Poll::Pending,
        }
    }

    /// Goes on with the session that was kept, or begins a new one. Whoever sat here before has left.
    async fn resume(&self, generation: &Arc<str>, terms: Terms) -> Option<Subscriptions> {
        let known = self.with_kept(|kept| kept.clone()).flatten();
        let kept = match known {
            Some(kept) => Some(kept),
            None => self.stored().await,
        };
        let usable = |kept: &&Kept| !terms.fresh && kept.generation == *generation;
        let found = kept.as_ref().filter(usable).map(|kept| kept.subscriptions);
        let ends = kept.is_some_and(|kept| kept.row().is_some()) && (found.is_none() || !terms.keep);
        let ended = self.with_kept(|kept| {
            *kept = terms.keep.then(|| Kept {
                generation: Arc::clone(generation),
                subscriptions: found.unwrap_or_default(),
            });
            ends.then(|| self.store(None))
        });
        if let Some(Some(ended)) = ended
            && let Err(error) = ended.await
        {
            tracing::warn!(device = %self.identity.device, %error, "a session that ended may come back");
        }
        found
    }

    /// What only the store knows.
    async fn stored(&self) -> Option<Kept> {
        let Identity { device, module } = &self.identity;
        let row = self.sessions.store.session(device, module.as_deref()).await.unwrap_or_else(|error| {
            tracing::warn!(%device, %error, "a kept session is lost");
            None
        })?;
        let subscriptions = Subscriptions::from_bits(row.subscriptions);
        Some(Kept { generation: row.generation, subscriptions })
    }

    /// Keeps new subscriptions, when the session is one that is kept; `None` when there is nothing to be stored. They
    /// survive a restart when the future resolves; dropping it does not stop that.
    pub(crate) fn subscribed(&self, subscriptions: Subscriptions) -> Option<BoxFuture<'static, Result<()>>> {
        self.with_kept(|kept| {
            let kept = kept.as_mut().filter(|kept| kept.subscriptions != subscriptions)?;
            kept.subscriptions = subscriptions;
            Some(self.store(kept.row()))
        })
        .flatten()
    }

    /// Gives up keeping the session.
    pub(crate) fn do_not_keep(&self) {
        self.with_kept(|kept| {
            if kept.take().is_some_and(|kept| kept.row().is_some()) {
                // It is handed in, and nobody waits for it: the client has said goodbye.
                drop(self.store(None));
            }
        });
    }

    fn store(&self, row: Option<SessionRow>) -> BoxFuture<'static, Result<()>> {
        let Identity { device, module } = &self.identity;
        self.sessions.store.keep_session(device, module.as_deref(), row)
    }

    /// What is handed to the store in `change` gets there in the order of the changes. A successor that waits has not
    /// looked yet.
    fn with_kept<T>(&self, change: impl FnOnce(&mut Option<Kept>) -> T) -> Option<T> {
        self.sessions.lock().entries.get_mut(&self.identity).map(|entry| change(&mut entry.kept))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        table.connected -= 1;
        if let btree_map::Entry::Occupied(mut found) = table.entries.entry(self.identity.clone()) {
            let entry = found.get_mut();
            if entry.sitting.as_ref().is_some_and(|sitting| Arc::ptr_eq(sitting, &self.chair)) {
                entry.sitting = None;
                if entry.kept.is_none() {
                    found.remove();
                }
            }
        }
        drop(table);
        self.chair.successor.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;

    use super::*;
    use crate::store::{Authentication, Embedded, NewDevice, StoreOptions};

    const KEPT: Terms = Terms { fresh: false, keep: true };
    const CLEAN: Terms = Terms { fresh: true, keep: false };

    fn identity(device: &str, module: Option<&str>) -> Identity {
        Identity { device: device.into(), module: module.map(Arc::from) }
    }

    fn generation() -> Arc<str> {
        "g1".into()
    }

    fn sessions() -> Arc<Sessions> {
        Arc::new(Sessions::new(Embedded::open(&StoreOptions::default()).unwrap()))
    }

    async fn order(seat: &Seat) -> Order {
        poll_fn(|cx| seat.poll_order(cx)).await
    }

    #[tokio::test]
    async fn a_newcomer_waits_until_the_old_connection_has_left() {
        let sessions = sessions();
        let generation = generation();
        let (old, _) = sessions.enter(identity("d", None), &generation, CLEAN).await.unwrap();
        let newcomer = sessions.enter(identity("d", None), &generation, CLEAN);
        tokio::pin!(newcomer);
        assert!(newcomer.as_mut().now_or_never().is_none());
        assert_eq!(order(&old).await, Order::TakenOver);
        drop(old);
        assert!(newcomer.as_mut().now_or_never().is_some());
        assert_eq!(sessions.connected(), 0, "the second seat was dropped with the result");
    }

    #[tokio::test]
    async fn three_in_a_row_enter_in_order() {
        let sessions = sessions();
        let generation = generation();
        let (first, _) = sessions.enter(identity("d", None), &generation, CLEAN).await.unwrap();
        let second = sessions.enter(identity("d", None), &generation, CLEAN);
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        let third = sessions.enter(identity("d", None), &generation, CLEAN);
        tokio::pin!(third);
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        let (second, _) = second.await.unwrap();
        assert!(third.as_mut().now_or_never().is_none(), "the second has not left yet");
        assert_eq!(order(&second).await, Order::TakenOver);
        drop(second);
        let (third, _) = third.await.unwrap();
        assert_eq!(sessions.connected(), 1);
        drop(third);
        assert!(sessions.lock().entries.is_empty());
    }

    #[tokio::test]
    async fn subscriptions_survive_only_where_asked_and_for_the_same_generation() {
        let sessions = sessions();
        let wanted = Subscriptions { devicebound: Some(Assurance::AtLeastOnce), ..Subscriptions::default() };
        let enter = |terms, generation: &'static str| {
            let sessions = Arc::clone(&sessions);
            async move {
                let generation = Arc::from(generation);
                sessions.enter(identity("d", None), &generation, terms).await.unwrap()
            }
        };
        let (seat, found) = enter(KEPT, "g1").await;
        assert_eq!(found, None);
        let _ = seat.subscribed(wanted);
        drop(seat);
        let (seat, found) = enter(KEPT, "g1").await;
        assert_eq!(found, Some(wanted));
        drop(seat);
        let (seat, found) = enter(KEPT, "g2").await;
        assert_eq!(found, None, "the device was deleted and created again");
        let _ = seat.subscribed(wanted);
        drop(seat);
        let (seat, found) = enter(CLEAN, "g2").await;
        assert_eq!(found, None);
        let _ = seat.subscribed(wanted);
        drop(seat);
        let (seat, found) = enter(KEPT, "g2").await;
        assert_eq!(found, None, "a clean session keeps nothing");
        seat.do_not_keep();
        drop(seat);
        assert!(sessions.lock().entries.is_empty());
    }

    #[tokio::test]
    async fn revoking_reaches_the_device_and_its_modules_and_no_other() {
        let sessions = sessions();
        let generation = generation();
        let mut seats = Vec::new();
        for (device, module) in [("a", None), ("b", None), ("b", Some("m")), ("bb", None)] {
            seats.push(sessions.enter(identity(device, module), &generation, KEPT).await.unwrap().0);
        }
        sessions.revoke(&"b".into());
        let mut ordered = Vec::new();
        for seat in &seats {
            ordered.push(poll_fn(|cx| seat.poll_order(cx)).now_or_never().is_some());
        }
        assert_eq!(ordered, [false, true, true, false]);
        drop(seats);
        sessions.forget(&"b".into());
        assert_eq!(sessions.lock().entries.len(), 2, "a and bb keep their sessions");
    }

    #[tokio::test]
    async fn stopping_tells_everyone_and_lets_no_one_in() {
        let sessions = sessions();
        let (seat, _) = sessions.enter(identity("d", None), &generation(), KEPT).await.unwrap();
        sessions.stop();
        assert_eq!(order(&seat).await, Order::Stop);
        assert!(sessions.enter(identity("e", None), &generation(), KEPT).await.is_none());
    }

    #[test]
    fn subscriptions_come_back_from_their_bits() {
        let each = [None, Some(Assurance::AtMostOnce), Some(Assurance::AtLeastOnce)];
        for commands in each {
            for devicebound in each {
                for inputs in each {
                    let all = Subscriptions { commands, devicebound, inputs };
                    assert_eq!(Subscriptions::from_bits(all.to_bits()), all);
                }
            }
        }
        let one = Subscriptions { devicebound: Some(Assurance::AtLeastOnce), ..Subscriptions::default() };
        assert_eq!(one.to_bits(), 0b10_00, "stored by hubs before this one");
    }

    /// A store with one device, `d`, and its generation.
    async fn store() -> (Arc<dyn Store>, Arc<str>) {
        let store = Embedded::open(&StoreOptions::default()).unwrap();
        let device = NewDevice {
            id: "d".to_owned(),
            authentication: Authentication::CertificateAuthority,
            enabled: true,
            status_reason: None,
        };
        let device = store.add_device(device, std::time::SystemTime::now()).await.unwrap();
        (store, device.generation)
    }

    #[tokio::test]
    async fn subscriptions_survive_a_restart_until_their_session_ends() {
        let (store, generation) = store().await;
        let wanted = Subscriptions { commands: Some(Assurance::AtMostOnce), ..Subscriptions::default() };
        // New sessions over the same store each time: what a restart is to them.
        let enter = async |terms| {
            let sessions = Arc::new(Sessions::new(Arc::clone(&store)));
            sessions.enter(identity("d", None), &generation, terms).await.unwrap()
        };
        let ending = Terms { fresh: false, keep: false };
        for (how, terms) in [("clean session", CLEAN), ("kept no longer", ending)] {
            let (seat, found) = enter(KEPT).await;
            assert_eq!(found, None);
            seat.subscribed(wanted).expect("there is something to store").await.unwrap();
            assert!(seat.subscribed(wanted).is_none(), "nothing new");
            assert_eq!(enter(KEPT).await.1, Some(wanted));
            assert_eq!(enter(KEPT).await.1, Some(wanted), "still there");
            assert_eq!(enter(terms).await.1, (!terms.fresh).then_some(wanted), "{how}");
            assert_eq!(enter(KEPT).await.1, None, "{how}");
        }
        let (seat, _) = enter(KEPT).await;
        drop(seat.subscribed(wanted));
        seat.do_not_keep();
        assert_eq!(enter(KEPT).await.1, None, "given up");
        let (seat, _) = enter(KEPT).await;
        drop(seat.subscribed(wanted));
        drop(seat.subscribed(Subscriptions::default()));
        assert_eq!(enter(KEPT).await.1, None, "nothing is left of it");
        let (seat, _) = enter(KEPT).await;
        drop(seat.subscribed(wanted));
        store.remove_device("d", None).await.unwrap();
        assert_eq!(enter(KEPT).await.1, None, "its device is gone");
    }

    #[tokio::test]
    async fn what_is_subscribed_until_the_takeover_belongs_to_the_session() {
        let (store, generation) = store().await;
        let sessions = Arc::new(Sessions::new(store));
        let wanted = Subscriptions { inputs: Some(Assurance::AtLeastOnce), ..Subscriptions::default() };
        let (old, _) = sessions.enter(identity("d", None), &generation, KEPT).await.unwrap();
        let newcomer = sessions.enter(identity("d", None), &generation, KEPT);
        tokio::pin!(newcomer);
        assert!(newcomer.as_mut().now_or_never().is_none());
        drop(old.subscribed(wanted));
        drop(old);
        assert_eq!(newcomer.await.unwrap().1, Some(wanted));
    }
}
