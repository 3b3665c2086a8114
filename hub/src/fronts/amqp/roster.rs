//! Which devices have links, on which connections: to detach them when a device is changed, and to let only one link
//! receive the commands of a device.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use fe2o3_amqp_types::definitions::Error;

use super::{engine::LinkId, link::Shared};

/// What a device does on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Events,
    /// One at a time.
    Commands,
}

/// All devices with links.
#[derive(Debug, Default)]
pub(super) struct Roster {
    devices: Mutex<HashMap<Arc<str>, Vec<Member>>>,
}

#[derive(Debug)]
struct Member {
    module: Option<Box<str>>,
    connection: Weak<Shared>,
    link: LinkId,
    purpose: Purpose,
}

impl Roster {
    /// Enters a link; dropping the seat takes it out.
    pub(super) fn enter(
        self: &Arc<Self>,
        device: &str,
        module: Option<&str>,
        purpose: Purpose,
        connection: &Arc<Shared>,
        link: LinkId,
    ) -> Seat {
        let device: Arc<str> = device.into();
        let connection = Arc::downgrade(connection);
        let module = module.map(Into::into);
        let member = Member { module, connection: Weak::clone(&connection), link, purpose };
        self.lock().entry(Arc::clone(&device)).or_default().push(member);
        Seat { roster: Arc::clone(self), device, connection, link }
    }

    /// Detaches all links of a device.
    pub(super) fn detach(&self, device: &str, error: &Error) {
        self.detach_where(Some(device), error, |_| true);
    }

    /// Detaches all links of a module.
    pub(super) fn detach_module(&self, device: &str, module: &str, error: &Error) {
        self.detach_where(Some(device), error, |member| member.module.as_deref() == Some(module));
    }

    /// Detaches the links of all devices.
    pub(super) fn detach_all(&self, error: &Error) {
        self.detach_where(None, error, |_| true);
    }

    /// Devices with at least one link now.
    pub(super) fn devices(&self) -> usize {
        self.lock().len()
    }

    fn detach_where(&self, device: Option<&str>, error: &Error, which: impl Fn(&Member) -> bool) {
        let found: Vec<_> = {
            let devices = self.lock();
            let of_device = device.and_then(|device| devices.get(device));
            let all = devices.values().filter(|_| device.is_none());
            let members = of_device.into_iter().chain(all).flatten().filter(|member| which(member));
            members.map(|member| (Weak::clone(&member.connection), member.link)).collect()
        };
        // A connection's lock is never taken under the roster's.
        for (connection, link) in found {
            if let Some(connection) = connection.upgrade() {
                connection.detach(link, error.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Member>>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of one link.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Arc<Roster>,
    device: Arc<str>,
    connection: Weak<Shared>,
    link: LinkId,
}

impl Seat {
    /// Detaches the other links that receive the device's commands.
    pub(super) fn take_over(&self, error: &Error) {
        self.roster.detach_where(Some(&self.device), error, |member| {
            member.purpose == Purpose::Commands && !self.is(member)
        });
    }

    fn is(&self, member: &Member) -> bool {
        member.link == self.link && Weak::ptr_eq(&member.connection, &self.connection)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut devices = self.roster.lock();
        if let Some(members) = devices.get_mut(&self.device) {
            members.retain(|member| !self.is(member));
            if members.is_empty() {
                devices.remove(&self.device);
            }
        }
    }
}
