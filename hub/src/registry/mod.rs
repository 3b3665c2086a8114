//! Device identities: keys, status, generations. Contract `http.md`, "Identity registry".

mod cache;

use std::{future::Future, sync::Arc, time::SystemTime};

use tokio::sync::broadcast;
use whimbrel::{Error, ErrorKind, Result, auth::Key};

use crate::store::Store;
use cache::Cache;

pub use crate::store::{Authentication, Device, DeviceChange, DeviceCounts, KeySlot};

/// Devices kept in memory for authentication.
const CACHED_DEVICES: usize = 32_768;
/// Changes a slow receiver may be behind before it is told that it missed some.
const CHANGES: usize = 1_024;
/// Longest device id, in characters.
const ID_LIMIT: usize = 128;

/// What happened to a device that sessions have to react to.
#[derive(Clone, Debug)]
pub enum Change {
    /// It may no longer be connected with what it connected with: disabled, deleted or credentials changed.
    Revoked(Arc<str>),
}

/// All device identities. Cheap to clone. Changes go on when their futures are dropped.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    host_name: Arc<str>,
    cache: Cache,
    changes: broadcast::Sender<Change>,
}

impl Registry {
    /// The identities in `store`; `host_name` is the name that devices use for the hub.
    pub fn new(store: Arc<dyn Store>, host_name: impl Into<Arc<str>>) -> Self {
        let inner = Inner {
            store,
            host_name: host_name.into(),
            cache: Cache::new(CACHED_DEVICES),
            changes: broadcast::Sender::new(CHANGES),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Creates a device with new keys.
    ///
    /// # Errors
    /// `Conflict` when it exists; `InvalidArgument` for a bad id.
    pub async fn create(&self, id: &str) -> Result<Registered> {
        let authentication = Authentication::Sas { primary: Key::generate()?, secondary: Key::generate()? };
        self.create_with(id, authentication).await
    }

    /// Creates a device that proves itself in the given way.
    ///
    /// # Errors
    /// As [`Registry::create`]; `InvalidArgument` also for keys that are not 16 to 64 bytes long and for thumbprints
    /// that are not 40 or 64 hexadecimal digits.
    pub async fn create_with(&self, id: &str, authentication: Authentication) -> Result<Registered> {
        check_id(id)?;
        let authentication = checked(authentication)?;
        let id = id.to_owned();
        self.finish(async move |inner| {
            let device = inner.store.add_device(&id, authentication, SystemTime::now()).await?;
            inner.cache.forget(&id);
            Ok(inner.registered(device))
        })
        .await
    }

    /// One device.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, id: &str) -> Result<Registered> {
        let device = self.inner.store.device(id)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "registry.get", "there is no such device").with("device", id)
        })?;
        Ok(self.inner.registered(device))
    }

    /// Up to `limit` devices with ids after `after`, in order of id.
    ///
    /// # Errors
    /// `JournalIo` when the database cannot be read.
    pub async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Registered>> {
        let devices = self.inner.store.devices(after, limit).await?;
        Ok(devices.into_iter().map(|device| self.inner.registered(device)).collect())
    }

    /// How many devices there are.
    ///
    /// # Errors
    /// As [`Registry::list`].
    pub async fn counts(&self) -> Result<DeviceCounts> {
        self.inner.store.device_counts().await
    }

    /// Lets a device connect, or not; connected ones are dropped.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when `etag` is given (with or without quotes; `*` stands for any) and no longer current.
    pub async fn set_enabled(&self, id: &str, enabled: bool, etag: Option<&str>) -> Result<Registered> {
        self.change(id, DeviceChange::Enabled(enabled), etag).await
    }

    /// Replaces one key by a new one; the device is dropped when it is connected.
    ///
    /// # Errors
    /// As [`Registry::set_enabled`]; `InvalidArgument` when the device has no keys.
    pub async fn rotate_key(&self, id: &str, slot: KeySlot, etag: Option<&str>) -> Result<Registered> {
        self.change(id, DeviceChange::Key(slot, Key::generate()?), etag).await
    }

    /// Replaces the way the device proves itself; it is dropped when it is connected.
    ///
    /// # Errors
    /// As [`Registry::set_enabled`]; `InvalidArgument` as for [`Registry::create_with`].
    pub async fn set_authentication(
        &self,
        id: &str,
        authentication: Authentication,
        etag: Option<&str>,
    ) -> Result<Registered> {
        self.change(id, DeviceChange::Authentication(checked(authentication)?), etag).await
    }

    /// Removes a device.
    ///
    /// # Errors
    /// As [`Registry::set_enabled`].
    pub async fn delete(&self, id: &str, etag: Option<&str>) -> Result<()> {
        let (id, etag) = (id.to_owned(), wanted(etag));
        self.finish(async move |inner| {
            inner.store.remove_device(&id, etag.as_deref()).await?;
            inner.revoke(&id);
            Ok(())
        })
        .await
    }

    /// Changes that sessions have to react to.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    /// The device, for a connection that wants in. Blocks for a moment when it did not connect lately.
    pub(crate) fn known(&self, id: &str) -> Result<Option<Arc<Device>>> {
        self.inner.cache.get_or_load(id, || self.inner.store.device(id))
    }

    async fn change(&self, id: &str, change: DeviceChange, etag: Option<&str>) -> Result<Registered> {
        let (id, etag) = (id.to_owned(), wanted(etag));
        self.finish(async move |inner| {
            let revokes = !matches!(change, DeviceChange::Enabled(true));
            let device = inner.store.change_device(&id, change, etag.as_deref()).await?;
            if revokes {
                inner.revoke(&id);
            } else {
                inner.cache.forget(&id);
            }
            Ok(inner.registered(device))
        })
        .await
    }

    /// Runs to its end whatever the caller does: a stored change that nobody heard of would keep a revoked device
    /// connected.
    async fn finish<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        tokio::spawn(work(Arc::clone(&self.inner))).await.map_err(|error| {
            Error::new(ErrorKind::Internal, "registry.change", "the change did not finish").caused_by(error)
        })?
    }
}

impl Inner {
    fn registered(&self, device: Device) -> Registered {
        Registered { device, host_name: Arc::clone(&self.host_name) }
    }

    fn revoke(&self, id: &str) {
        self.cache.forget(id);
        // Fails when nobody listens.
        let _ = self.changes.send(Change::Revoked(id.into()));
    }
}

/// A device, and how to connect as it.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The identity.
    pub device: Device,
    pub(crate) host_name: Arc<str>,
}

impl Registered {
    /// What the device program needs: `HostName=…;DeviceId=…;SharedAccessKey=…`, or `…;x509=true` for a device with a
    /// certificate.
    pub fn connection_string(&self) -> String {
        let (host, id) = (&self.host_name, &self.device.id);
        match &self.device.authentication {
            Authentication::Sas { primary, .. } => {
                format!("HostName={host};DeviceId={id};SharedAccessKey={}", primary.to_base64())
            }
            Authentication::SelfSigned { .. } | Authentication::CertificateAuthority => {
                format!("HostName={host};DeviceId={id};x509=true")
            }
        }
    }
}

/// ASCII letters, digits and some signs. `;` is left out: no connection string could carry it.
fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+%_#*?!(),=@$':".contains(&byte);
    if !id.is_empty() && id.len() <= ID_LIMIT && id.bytes().all(allowed) {
        return Ok(());
    }
    let text = "a device id is 1 to 128 of ASCII letters, digits and - . + % _ # * ? ! ( ) , = @ $ ' :";
    Err(Error::new(ErrorKind::InvalidArgument, "registry.create", text).with("device", id.escape_debug()))
}

/// Credentials in the form they are stored in.
fn checked(authentication: Authentication) -> Result<Authentication> {
    match authentication {
        Authentication::Sas { primary, secondary } => {
            // In base64, 16 bytes are 24 characters and 64 are 88.
            if [&primary, &secondary].iter().all(|key| (24..=88).contains(&key.to_base64().len())) {
                return Ok(Authentication::Sas { primary, secondary });
            }
            Err(Error::new(
                ErrorKind::InvalidArgument,
                "registry.create",
                "a device key is 16 to 64 bytes long",
            ))
        }
        Authentication::SelfSigned { primary, secondary } => Ok(Authentication::SelfSigned {
            primary: thumbprint(&primary)?,
            secondary: secondary.as_deref().map(thumbprint).transpose()?,
        }),
        Authentication::CertificateAuthority => Ok(authentication),
    }
}

/// Upper case, without the colons and spaces that tools print.
fn thumbprint(text: &str) -> Result<String> {
    let digits: String =
        text.chars().filter(|c| *c != ':' && *c != ' ').map(|c| c.to_ascii_uppercase()).collect();
    if matches!(digits.len(), 40 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    let text = "a thumbprint is 40 (SHA-1) or 64 (SHA-256) hexadecimal digits";
    Err(Error::new(ErrorKind::InvalidArgument, "registry.create", text))
}

/// The ETag a caller insists on: quotes do not count, `*` stands for any.
fn wanted(etag: Option<&str>) -> Option<String> {
    let etag = etag?.trim().trim_start_matches("W/").trim_matches('"');
    (etag != "*").then(|| etag.to_owned())
}
