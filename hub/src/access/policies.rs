//! Policies of the hub: rights that go with a pair of keys.

use std::{fmt, sync::Arc};

use whimbrel::{Error, ErrorKind, Result, auth::Key};

use super::Right;
use crate::store::{PolicyRow, Store};

/// Some of the four rights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rights(u32);

impl Rights {
    /// All of them.
    pub const ALL: Self = Self(0b1111);

    /// These rights.
    pub const fn of(rights: &[Right]) -> Self {
        let mut bits = 0;
        let mut rest = rights;
        while let [first, others @ ..] = rest {
            bits |= first.bit();
            rest = others;
        }
        Self(bits)
    }

    /// Whether `right` is among them.
    pub const fn contain(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Right::ALL.iter().filter(|right| self.contain(**right))).finish()
    }
}

/// A policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name, such as `iothubowner`.
    pub name: Arc<str>,
    /// What it allows.
    pub rights: Rights,
    /// First key.
    pub primary: Key,
    /// Second key.
    pub secondary: Key,
}

impl Policy {
    /// What a service program needs: `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`.
    pub fn connection_string(&self, host_name: &str) -> String {
        let (name, key) = (&self.name, self.primary.to_base64());
        format!("HostName={host_name};SharedAccessKeyName={name};SharedAccessKey={key}")
    }
}

/// All policies of a hub.
#[derive(Clone, Debug)]
pub struct Policies(Arc<[Policy]>);

impl Policies {
    /// The policies in `store`; the built-in ones are made with random keys when they are missing.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`; `Internal` when the system has no randomness to give.
    pub async fn load(store: &dyn Store) -> Result<Self> {
        use Right::{DeviceConnect, RegistryRead, RegistryWrite, ServiceConnect};
        let built_in = [
            ("iothubowner", Rights::ALL),
            ("service", Rights::of(&[ServiceConnect])),
            ("device", Rights::of(&[DeviceConnect])),
            ("registryRead", Rights::of(&[RegistryRead])),
            ("registryReadWrite", Rights::of(&[RegistryRead, RegistryWrite])),
        ];
        let wanted = built_in.into_iter().map(|(name, rights)| {
            Ok(PolicyRow {
                name: name.to_owned(),
                rights: rights.0,
                primary: Key::generate()?,
                secondary: Key::generate()?,
            })
        });
        let rows = store.policies(wanted.collect::<Result<_>>()?).await?;
        let policy = |row: PolicyRow| Policy {
            name: row.name.into(),
            rights: Rights(row.rights),
            primary: row.primary,
            secondary: row.secondary,
        };
        Ok(Self(rows.into_iter().map(policy).collect()))
    }

    /// The policy of this name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, name: &str) -> Result<&Policy> {
        self.0.iter().find(|policy| &*policy.name == name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "access.policy", "there is no such policy").with("policy", name)
        })
    }

    /// All of them, in order of name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.0.iter()
    }
}
