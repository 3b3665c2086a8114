//! Device identities: keys, status, generations. Contract `http.md`, "Identity registry".

mod cache;

use std::{future::Future, sync::Arc, time::SystemTime};

use tokio::sync::broadcast;
use whimbrel::{Error, ErrorKind, Result, auth::Key};

use crate::store::Store;
use cache::Cache;

pub use crate::store::{
    Authentication, Changed, Device, DeviceChange, DeviceCounts, DeviceUpdate, KeySlot, Module, ModuleUpdate,
    NewAuthentication, NewDevice,
};

/// Devices kept in memory for authentication.
const CACHED_DEVICES: usize = 32_768;
/// Changes a slow receiver may be behind before it is told that it missed some.
const CHANGES: usize = 1_024;
/// Longest device id, in characters.
const ID_LIMIT: usize = 128;
/// Longest reason of a status, in characters.
const REASON_LIMIT: usize = 128;

/// What happened to a device that sessions have to react to.
#[derive(Clone, Debug)]
pub enum Change {
    /// It may no longer be connected with what it connected with: disabled, deleted or credentials changed.
    Revoked(Arc<str>),
    /// The same for one module of a device.
    ModuleRevoked {
        /// Device id.
        device: Arc<str>,
        /// Module id.
        module: Arc<str>,
    },
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
        self.add(NewDevice { id: id.to_owned(), authentication, enabled: true, status_reason: None }).await
    }

    /// Creates a device with all that can be said of it.
    ///
    /// # Errors
    /// As [`Registry::create_with`]; `InvalidArgument` also for a reason of over 128 characters.
    pub async fn add(&self, device: NewDevice) -> Result<Registered> {
        const OPERATION: &str = "registry.create";
        check_id(OPERATION, "device", &device.id)?;
        check_reason(OPERATION, device.status_reason.as_deref())?;
        let device = NewDevice { authentication: checked(device.authentication)?, ..device };
        self.finish(async move |inner| {
            let device = inner.store.add_device(device, SystemTime::now()).await?;
            inner.cache.forget(&device.id);
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

    /// Changes several things of a device at once; it is dropped when it may no longer be connected with what it
    /// connected with.
    ///
    /// # Errors
    /// As [`Registry::set_authentication`] and [`Registry::add`].
    pub async fn update(&self, id: &str, update: DeviceUpdate, etag: Option<&str>) -> Result<Registered> {
        check_reason("registry.change", update.status_reason.as_ref().and_then(|reason| reason.as_deref()))?;
        let authentication = update.authentication.map(checked_new).transpose()?;
        self.change(id, DeviceChange::Update(DeviceUpdate { authentication, ..update }), etag).await
    }

    /// Removes a device, and its modules.
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

    /// Creates a module of a device.
    ///
    /// # Errors
    /// `NotFound` for an unknown device; `Conflict` when the module exists; `InvalidArgument` as for
    /// [`Registry::create_with`], and with the detail `limit` when the device has
    /// [`MAX_MODULES`](crate::store::MAX_MODULES).
    pub async fn create_module(
        &self,
        device: &str,
        id: &str,
        authentication: Authentication,
        managed_by: Option<&str>,
    ) -> Result<Module> {
        check_id("registry.create_module", "module", id)?;
        let authentication = checked(authentication)?;
        let (device, id, managed_by) = (device.to_owned(), id.to_owned(), managed_by.map(str::to_owned));
        self.finish(async move |inner| {
            let now = SystemTime::now();
            inner.store.add_module(&device, &id, authentication, managed_by.as_deref(), now).await
        })
        .await
    }

    /// One module.
    ///
    /// # Errors
    /// `NotFound`, with the detail `module` when it is the module that is unknown and not the device.
    pub async fn module(&self, device: &str, id: &str) -> Result<Module> {
        const OPERATION: &str = "registry.module";
        if let Some(module) = self.inner.store.module(device, id)? {
            return Ok(module);
        }
        self.get(device).await?;
        Err(Error::new(ErrorKind::NotFound, OPERATION, "there is no such module")
            .with("device", device)
            .with("module", id))
    }

    /// The modules of a device, in order of id.
    ///
    /// # Errors
    /// `NotFound` for an unknown device.
    pub async fn modules(&self, device: &str) -> Result<Vec<Module>> {
        self.inner.store.modules(device).await
    }

    /// Changes a module; it is dropped when it may no longer be connected with what it connected with.
    ///
    /// # Errors
    /// `NotFound` as for [`Registry::module`]; `Conflict` and `InvalidArgument` as for a device.
    pub async fn update_module(
        &self,
        device: &str,
        id: &str,
        update: ModuleUpdate,
        etag: Option<&str>,
    ) -> Result<Module> {
        let authentication = update.authentication.map(checked_new).transpose()?;
        let update = ModuleUpdate { authentication, ..update };
        let (device, id, etag) = (device.to_owned(), id.to_owned(), wanted(etag));
        self.finish(async move |inner| {
            let changed = inner.store.change_module(&device, &id, update, etag.as_deref()).await?;
            if changed.revoked {
                inner.revoke_module(&device, &id);
            }
            Ok(changed.now)
        })
        .await
    }

    /// Removes a module.
    ///
    /// # Errors
    /// As [`Registry::update_module`].
    pub async fn delete_module(&self, device: &str, id: &str, etag: Option<&str>) -> Result<()> {
        let (device, id, etag) = (device.to_owned(), id.to_owned(), wanted(etag));
        self.finish(async move |inner| {
            inner.store.remove_module(&device, &id, etag.as_deref()).await?;
            inner.revoke_module(&device, &id);
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

    /// The module, for a connection that wants in. Blocks for a moment: modules are few, and not kept in memory.
    pub(crate) fn known_module(&self, device: &str, id: &str) -> Result<Option<Module>> {
        self.inner.store.module(device, id)
    }

    async fn change(&self, id: &str, change: DeviceChange, etag: Option<&str>) -> Result<Registered> {
        let (id, etag) = (id.to_owned(), wanted(etag));
        self.finish(async move |inner| {
            let changed = inner.store.change_device(&id, change, etag.as_deref(), SystemTime::now()).await?;
            if changed.revoked {
                inner.revoke(&id);
            } else {
                inner.cache.forget(&id);
            }
            Ok(inner.registered(changed.now))
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

    fn revoke_module(&self, device: &str, id: &str) {
        let _ = self.changes.send(Change::ModuleRevoked { device: device.into(), module: id.into() });
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
    /// certificate; without a proof for a device that has none.
    pub fn connection_string(&self) -> String {
        let (host, id) = (&self.host_name, &self.device.id);
        match &self.device.authentication {
            Authentication::Sas { primary, .. } => {
                format!("HostName={host};DeviceId={id};SharedAccessKey={}", primary.to_base64())
            }
            Authentication::SelfSigned { .. } | Authentication::CertificateAuthority => {
                format!("HostName={host};DeviceId={id};x509=true")
            }
            Authentication::None => format!("HostName={host};DeviceId={id}"),
        }
    }
}

/// ASCII letters, digits and some signs. `;` is left out: no connection string could carry it.
fn check_id(operation: &'static str, what: &'static str, id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+%_#*?!(),=@$':".contains(&byte);
    if !id.is_empty() && id.len() <= ID_LIMIT && id.bytes().all(allowed) {
        return Ok(());
    }
    let text =
        format!("a {what} id is 1 to 128 of ASCII letters, digits and - . + % _ # * ? ! ( ) , = @ $ ' :");
    Err(Error::new(ErrorKind::InvalidArgument, operation, text).with(what, id.escape_debug()))
}

fn check_reason(operation: &'static str, reason: Option<&str>) -> Result<()> {
    match reason {
        Some(reason) if reason.chars().count() > REASON_LIMIT => {
            let text = "the reason of a status is at most 128 characters long";
            Err(Error::new(ErrorKind::InvalidArgument, operation, text))
        }
        _ => Ok(()),
    }
}

fn checked_new(new: NewAuthentication) -> Result<NewAuthentication> {
    Ok(match new {
        NewAuthentication::Exactly(exactly) => NewAuthentication::Exactly(checked(exactly)?),
        NewAuthentication::KeysOr(keys) => NewAuthentication::KeysOr(checked(keys)?),
    })
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
        Authentication::CertificateAuthority | Authentication::None => Ok(authentication),
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
