//! Who is connected, since when, and who showed signs of life: what the registry tells of a device's connection.
//!
//! Known as long as the hub runs; after a restart every device has yet to be heard of.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::Identity;

/// What is known of the connection of a device or module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Whether it has a connection (of MQTT or AMQP; HTTP has none).
    pub(crate) connected: bool,
    /// When that last changed; none since the hub started.
    pub(crate) changed_at: Option<SystemTime>,
    /// When it last connected, disconnected or made a request over HTTP.
    pub(crate) active_at: Option<SystemTime>,
}

#[derive(Debug, Default)]
struct Record {
    connections: usize,
    changed_at: Option<SystemTime>,
    active_at: Option<SystemTime>,
}

#[derive(Debug, Default)]
struct Table {
    /// One for each identity that was heard of, so no more than the registry has.
    records: BTreeMap<Identity, Record>,
    /// Devices, modules aside, with a connection.
    devices: usize,
}

/// Who is connected.
#[derive(Default)]
pub(crate) struct Presences {
    table: Mutex<Table>,
}

impl Presences {
    /// Counts a connection in. Dropping the result counts it out. An identity is connected while it has at least one.
    pub(crate) fn enter(self: &Arc<Self>, identity: &Identity) -> Present {
        self.count(identity, true);
        Present { presences: Arc::clone(self), identity: identity.clone() }
    }

    /// Notes a sign of life.
    pub(crate) fn active(&self, identity: Identity, now: SystemTime) {
        self.lock().records.entry(identity).or_default().active_at = Some(now);
    }

    /// What is known of an identity.
    pub(crate) fn of(&self, identity: &Identity) -> Presence {
        self.lock().records.get(identity).map_or_else(Presence::default, |record| Presence {
            connected: record.connections > 0,
            changed_at: record.changed_at,
            active_at: record.active_at.max(record.changed_at),
        })
    }

    /// Devices, modules aside, that are connected.
    pub(crate) fn devices(&self) -> usize {
        self.lock().devices
    }

    /// Forgets a device and its modules, those aside that are still connected: it was deleted.
    pub(crate) fn forget(&self, device: &Arc<str>) {
        let mut table = self.lock();
        let first = Identity { device: Arc::clone(device), module: None };
        let own: Vec<Identity> = table
            .records
            .range(first..)
            .take_while(|(identity, _)| identity.device == *device)
            .map(|(identity, _)| identity.clone())
            .collect();
        for identity in own {
            if table.records.get(&identity).is_some_and(|record| record.connections == 0) {
                table.records.remove(&identity);
            }
        }
    }

    fn count(&self, identity: &Identity, enters: bool) {
        let mut table = self.lock();
        let record = table.records.entry(identity.clone()).or_default();
        let before = record.connections;
        record.connections = if enters { before + 1 } else { before.saturating_sub(1) };
        let (was, is) = (before > 0, record.connections > 0);
        if was != is {
            record.changed_at = Some(SystemTime::now());
            match (identity.module.is_none(), is) {
                (true, true) => table.devices += 1,
                (true, false) => table.devices = table.devices.saturating_sub(1),
                (false, _) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Presences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presences").field("devices", &self.devices()).finish_non_exhaustive()
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct Present {
    presences: Arc<Presences>,
    identity: Identity,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.presences.count(&self.identity, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(device: &str, module: Option<&str>) -> Identity {
        Identity { device: device.into(), module: module.map(Arc::from) }
    }

    #[test]
    fn connected_is_who_has_at_least_one_connection() {
        let presences = Arc::new(Presences::default());
        let own = identity("d", None);
        assert_eq!(presences.of(&own), Presence::default());
        let first = presences.enter(&own);
        let since = presences.of(&own).changed_at;
        assert!(since.is_some());
        let second = presences.enter(&own);
        let module = presences.enter(&identity("d", Some("m")));
        assert_eq!(presences.devices(), 1);
        drop(first);
        assert_eq!(presences.of(&own), Presence { connected: true, changed_at: since, active_at: since });
        drop(second);
        assert!(!presences.of(&own).connected);
        assert_eq!(presences.devices(), 0);
        assert!(presences.of(&identity("d", Some("m"))).connected);

        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        presences.active(own.clone(), later);
        assert_eq!(presences.of(&own).active_at, Some(later));
        presences.forget(&"d".into());
        assert_eq!(presences.of(&own), Presence::default());
        assert!(presences.of(&identity("d", Some("m"))).connected, "its connection has not ended yet");
        drop(module);
    }
}
