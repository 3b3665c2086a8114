//! Starting a hub and stopping it.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use tokio::{
    net::TcpListener,
    sync::broadcast::{self, error::RecvError},
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use whimbrel::{Error, ErrorKind, Result};

use crate::{
    access::{Access, Policies},
    commands::{CommandOptions, Commands},
    config::{Config, Listen},
    events::{EventOptions, Events},
    files,
    fronts::{amqp, http, mqtt},
    limits::{Limits, Staging},
    registry::{Change, Registry},
    service_file::ServiceFile,
    sessions::Sessions,
    store::{Embedded, Retention, Store, StoreOptions},
    tls::{self, Tls},
};

/// Name of the policy whose key goes into the service file.
const OWNER: &str = "iothubowner";
/// Where clients look for AMQP over TLS when nobody tells them.
const DEFAULT_AMQPS_PORT: u16 = 5671;
/// How often certificates are looked at again.
const TLS_REFRESH: Duration = Duration::from_secs(3600);

/// How to start a [`Hub`]. Unless told otherwise every listener takes a free port of the loopback interface.
#[derive(Clone, Debug)]
#[must_use = "a hub runs only after start()"]
pub struct HubBuilder {
    config: Config,
    /// Whether a folder or memory was chosen: there is no default.
    placed: bool,
}

impl HubBuilder {
    pub(crate) fn new() -> Self {
        Self { config: Config::ephemeral(), placed: false }
    }

    /// Keeps everything below this folder, which is made when it is missing. One hub owns it at a time.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config.data = folder.into();
        self.config.memory = false;
        self.placed = true;
        self
    }

    /// Keeps everything in memory: stopping the hub loses it.
    pub fn in_memory(mut self) -> Self {
        self.config.memory = true;
        self.placed = true;
        self
    }

    /// Takes all settings from `config`, the place to keep things and the listeners included.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self.placed = true;
        self
    }

    /// Sets one setting by its name in the configuration file, such as `"partitions"`.
    ///
    /// # Errors
    /// As [`Config::set`].
    pub fn set(mut self, name: &str, value: &str) -> Result<Self> {
        self.config.set(name, value)?;
        Ok(self)
    }

    /// Where to listen for MQTT without TLS.
    pub fn mqtt(mut self, listen: Listen) -> Self {
        self.config.mqtt = listen;
        self
    }

    /// Where to listen for MQTT over TLS.
    pub fn mqtts(mut self, listen: Listen) -> Self {
        self.config.mqtts = listen;
        self
    }

    /// Where to listen for AMQP without TLS.
    pub fn amqp(mut self, listen: Listen) -> Self {
        self.config.amqp = listen;
        self
    }

    /// Where to listen for AMQP over TLS.
    pub fn amqps(mut self, listen: Listen) -> Self {
        self.config.amqps = listen;
        self
    }

    /// Where to listen for HTTP without TLS.
    pub fn http(mut self, listen: Listen) -> Self {
        self.config.http = listen;
        self
    }

    /// Where to listen for HTTPS.
    pub fn https(mut self, listen: Listen) -> Self {
        self.config.https = listen;
        self
    }

    /// Starts the hub: when this returns, it accepts connections on every listener.
    ///
    /// Must be called inside a tokio runtime; the hub's tasks run there.
    ///
    /// # Errors
    /// `InvalidArgument` when the settings are not safe or make no sense, or neither folder nor memory was chosen;
    /// `InUse` when another hub has the folder (naming its process) or another program has a port (naming the setting);
    /// `JournalIo`, `JournalVersion`, `DiskFull` when the folder cannot be used.
    pub async fn start(self) -> Result<Hub> {
        if !self.placed {
            let text = "say where to keep things: data_dir(folder), or in_memory() for tests";
            return Err(Error::new(ErrorKind::InvalidArgument, "hub.start", text));
        }
        self.config.validate()?;
        let config = self.config;
        let folder = (!config.memory).then(|| config.data.clone());

        let store = spawn_blocking({
            let (config, folder) = (config.clone(), folder.clone());
            move || open_store(&config, folder)
        });
        let store: Arc<dyn Store> = store.await.map_err(panicked)??;
        match assemble(&config, folder.as_deref(), Arc::clone(&store)).await {
            Ok(hub) => Ok(hub),
            Err(error) => {
                // Gives the folder free, so that the next try finds it so.
                let _ = store.close().await;
                Err(error)
            }
        }
    }
}

fn open_store(config: &Config, folder: Option<PathBuf>) -> Result<Arc<Embedded>> {
    if let Some(folder) = &folder {
        files::create_folder(folder)?;
    }
    Embedded::open(&StoreOptions { folder, partitions: config.partitions, ..StoreOptions::default() })
}

async fn assemble(config: &Config, folder: Option<&Path>, store: Arc<dyn Store>) -> Result<Hub> {
    let (tls, authorities) = spawn_blocking({
        let (config, folder) = (config.clone(), folder.map(|folder| folder.join("tls")));
        move || {
            let authorities = config.device_ca.as_deref().map(tls::read_certificates).transpose()?;
            Ok::<_, Error>((
                Tls::open(&config, folder.as_deref(), SystemTime::now())?,
                authorities.unwrap_or_default(),
            ))
        }
    })
    .await
    .map_err(panicked)??;

    let mqtt = bind("mqtt", config.mqtt).await?;
    let mqtts = bind("mqtts", config.mqtts).await?;
    let amqp = bind("amqp", config.amqp).await?;
    let amqps = bind("amqps", config.amqps).await?;
    let http = bind("http", config.http).await?;
    let https = bind("https", config.https).await?;

    let host_name: Arc<str> = config.host_name.as_str().into();
    let registry = Registry::new(Arc::clone(&store), Arc::clone(&host_name));
    let policies = Policies::load(&*store).await?;
    let access = Access::new(registry.clone(), policies, &authorities, Arc::clone(&host_name))?;
    let retention = Retention { time: config.retention, bytes: config.retention_bytes.0 };
    let events = Events::start(Arc::clone(&store), EventOptions { retention });
    let commands = Commands::start(Arc::clone(&store), registry.clone(), command_options(config));

    let addresses = http::Listeners {
        mqtt: address(mqtt.as_ref()),
        mqtts: address(mqtts.as_ref()),
        amqp: address(amqp.as_ref()),
        amqps: address(amqps.as_ref()),
        http: address(http.as_ref()),
        https: address(https.as_ref()),
    };
    let stop = Stop::default();
    let tasks = TaskTracker::new();
    let sessions = Arc::new(Sessions::new(Arc::clone(&store)));
    let presences = Arc::clone(sessions.presences());
    let changes = registry.changes();
    let events_port = addresses.amqps.map_or(DEFAULT_AMQPS_PORT, |address| address.port());
    let amqp_front = amqp::Front::new(
        access.clone(),
        events.clone(),
        commands.clone(),
        Arc::clone(sessions.presences()),
        limits(config),
        events_port,
    );
    tasks.spawn(drop_revoked(
        registry.clone(),
        changes,
        Arc::clone(&sessions),
        Arc::clone(&amqp_front),
        stop.asked.clone(),
    ));
    let front = mqtt::Front::new(access.clone(), events.clone(), commands.clone(), sessions, limits(config));
    if let Some(listener) = mqtt {
        tasks.spawn(Arc::clone(&front).listen(listener, None));
    }
    if let Some(listener) = mqtts {
        let acceptor = TlsAcceptor::from(tls.server(&[])?);
        tasks.spawn(Arc::clone(&front).listen(listener, Some(acceptor)));
    }
    if let Some(listener) = amqp {
        tasks.spawn(Arc::clone(&amqp_front).listen(listener, None));
    }
    if let Some(listener) = amqps {
        let acceptor = TlsAcceptor::from(tls.server(&[])?);
        tasks.spawn(Arc::clone(&amqp_front).listen(listener, Some(acceptor)));
    }
    let router = http::router(http::Hub {
        access: access.clone(),
        registry: registry.clone(),
        events: events.clone(),
        commands: commands.clone(),
        waiting: http::Waiting::start(&commands),
        presences,
        throttles: Arc::new(http::Throttles::new(config.http_rate_device, config.http_rate_policy)),
        staging: Arc::new(Staging::new(limits(config).staged_bytes)),
        message_bytes: limits(config).message_bytes,
        mqtt: Arc::clone(&front),
        amqp: Arc::clone(&amqp_front),
        about: Arc::new(http::About {
            version: env!("CARGO_PKG_VERSION"),
            host_name: config.host_name.clone(),
            partitions: events.partitions().len(),
            listeners: addresses,
        }),
        open_metrics: config.open_metrics,
        stop: stop.asked.clone(),
        metrics: http::Requests::default(),
    });
    if let Some(listener) = http {
        tasks.spawn(http::serve(listener, None, router.clone(), stop.clone(), tasks.clone()));
    }
    if let Some(listener) = https {
        let config = tls.server(&[b"http/1.1"])?;
        tasks.spawn(http::serve(listener, Some(config), router, stop.clone(), tasks.clone()));
    }
    tasks.spawn(keep_certificate_fresh(tls.clone(), stop.asked.clone()));

    let hub = Hub {
        addresses,
        service: access.policies().get(OWNER)?.connection_string(&host_name),
        registry,
        access,
        events,
        commands,
        mqtt: front,
        amqp: amqp_front,
        tls,
        stop,
        stop_timeout: config.stop_timeout,
        tasks,
    };
    if let Some(folder) = folder {
        hub.service_file().write(folder)?;
    }
    Ok(hub)
}

/// A running hub. Dropping it stops it without waiting; [`Hub::stop`] does it properly.
pub struct Hub {
    registry: Registry,
    access: Access,
    events: Events,
    commands: Commands,
    mqtt: Arc<mqtt::Front>,
    amqp: Arc<amqp::Front>,
    addresses: http::Listeners,
    tls: Tls,
    service: String,
    stop: Stop,
    stop_timeout: Duration,
    tasks: TaskTracker,
}

impl Hub {
    /// Starts with every listener on a free port of the loopback interface; say where to keep things.
    pub fn builder() -> HubBuilder {
        HubBuilder::new()
    }

    /// The device identities.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Who may do what.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The event log.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The queues of commands.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Where it listens for MQTT without TLS; `None` when that is off.
    pub fn mqtt_addr(&self) -> Option<SocketAddr> {
        self.addresses.mqtt
    }

    /// Where it listens for MQTT over TLS.
    pub fn mqtts_addr(&self) -> Option<SocketAddr> {
        self.addresses.mqtts
    }

    /// Where it listens for AMQP without TLS.
    pub fn amqp_addr(&self) -> Option<SocketAddr> {
        self.addresses.amqp
    }

    /// Where it listens for AMQP over TLS.
    pub fn amqps_addr(&self) -> Option<SocketAddr> {
        self.addresses.amqps
    }

    /// Where it listens for HTTP without TLS.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.addresses.http
    }

    /// Where it listens for HTTPS.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.addresses.https
    }

    /// The certificate that clients have to trust, when the hub made its own.
    pub fn ca_certificate(&self) -> Option<CaCertificate> {
        self.tls.authority().map(|(pem, path)| CaCertificate { pem: pem.to_owned(), path })
    }

    /// Connection string of the policy that may do everything. A secret.
    pub fn service_connection_string(&self) -> &str {
        &self.service
    }

    /// Stops: accepts no more connections, lets those that are open finish what they began (at most as long as the
    /// setting `stop-timeout` says), and closes the store. Every event that was acknowledged is stored, and none is
    /// acknowledged that is not. Dropping the future hurries the end but does not call it off.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull` when the last events could not be made durable; none of them was acknowledged.
    pub async fn stop(self) -> Result<()> {
        self.stop.asked.cancel();
        self.tasks.close();
        let finished = async { tokio::join!(self.mqtt.stop(), self.amqp.stop(), self.tasks.wait()) };
        if timeout(self.stop_timeout, finished).await.is_err() {
            warn!("connections did not finish in time and are cut");
            self.stop.overdue.cancel();
            self.tasks.wait().await;
        }
        self.commands.close().await;
        self.events.close().await?;
        info!("the hub has stopped");
        Ok(())
    }

    fn service_file(&self) -> ServiceFile {
        ServiceFile {
            connection_string: self.service.clone(),
            http: self.addresses.http.map(|address| format!("http://{}", reachable(address))),
            https: self.addresses.https.map(|address| format!("https://{}", reachable(address))),
            mqtt: self.addresses.mqtt.map(reachable),
            mqtts: self.addresses.mqtts.map(reachable),
            amqp: self.addresses.amqp.map(reachable),
            amqps: self.addresses.amqps.map(reachable),
            ca: self.tls.authority().and_then(|(_, path)| path).map(absolute),
            pid: std::process::id(),
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.asked.cancel();
        self.stop.overdue.cancel();
        // Its first step tells the listeners and connections; they end by themselves.
        let _ = self.mqtt.stop().now_or_never();
        let _ = self.amqp.stop().now_or_never();
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// The certificate of a hub's own authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    /// As text.
    pub pem: String,
    /// Where it is kept; `None` for a hub in memory.
    pub path: Option<PathBuf>,
}

/// The two steps of stopping.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// Finish what you began, begin nothing new.
    pub(crate) asked: CancellationToken,
    /// Drop everything.
    pub(crate) overdue: CancellationToken,
}

async fn bind(name: &str, listen: Listen) -> Result<Option<TcpListener>> {
    let Some(address) = listen.address() else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).map_err(|error| {
        let variable = format!("{}{}", Config::VARIABLE_PREFIX, name.to_uppercase());
        let choose =
            format!("choose another address with --{name}, {variable} or {name} = \"…\", or \"off\"");
        let (kind, what) = match error.kind() {
            io::ErrorKind::AddrInUse => (ErrorKind::InUse, "another program listens there"),
            io::ErrorKind::PermissionDenied => {
                (ErrorKind::InvalidArgument, "the system does not allow this port")
            }
            _ => (ErrorKind::InvalidArgument, "this machine cannot listen there"),
        };
        Error::new(kind, "hub.start", format!("{name} = {address}: {what}; {choose}")).caused_by(error)
    })
}

fn address(listener: Option<&TcpListener>) -> Option<SocketAddr> {
    listener.and_then(|listener| listener.local_addr().ok())
}

/// Where a program on this machine reaches a listener: one on all addresses is also on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections: config.connections.try_into().unwrap_or(usize::MAX),
        message_bytes: config.max_message.0.try_into().unwrap_or(usize::MAX),
        receive_maximum: config.receive_maximum,
        receive_maximum_outbox: config.receive_maximum_outbox,
        token_grace: config.token_grace,
        ..Limits::default()
    }
}

fn command_options(config: &Config) -> CommandOptions {
    CommandOptions {
        depth: config.command_depth.try_into().unwrap_or(usize::MAX),
        lock: config.command_lock,
        time_to_live: config.command_time_to_live,
        longest_time_to_live: config.command_longest_time_to_live,
        max_delivery_count: config.command_max_delivery_count,
        count_lock_expiry: config.command_count_lock_expiry,
        dead_letter_retention: config.dead_letter_retention,
        outcome_retention: config.outcome_retention,
        feedback_batch: config.feedback_batch.try_into().unwrap_or(usize::MAX),
        feedback_linger: config.feedback_linger,
        feedback_lock: config.feedback_lock,
        feedback_time_to_live: config.feedback_time_to_live,
        feedback_max_delivery_count: config.feedback_max_delivery_count,
    }
}

/// Ends the connections of devices that may no longer be connected.
async fn drop_revoked(
    registry: Registry,
    mut changes: broadcast::Receiver<Change>,
    sessions: Arc<Sessions>,
    amqp: Arc<amqp::Front>,
    stop: CancellationToken,
) {
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        match change {
            Ok(Change::Revoked(device)) => {
                sessions.revoke(&device);
                amqp.revoke(&device);
                if registry.get(&device).await.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                    sessions.forget(&device);
                }
            }
            Ok(Change::ModuleRevoked { device, module }) => {
                sessions.revoke_module(&device, &module);
                amqp.revoke_module(&device, &module);
            }
            // Whom we missed we do not know: all come back, and are looked at anew.
            Err(RecvError::Lagged(_)) => {
                sessions.revoke_all();
                amqp.revoke_all();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn keep_certificate_fresh(tls: Tls, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TLS_REFRESH) => {}
        }
        let refreshing = tls.clone();
        let refreshed = spawn_blocking(move || refreshing.refresh(SystemTime::now())).await;
        if let Ok(Err(error)) = refreshed {
            warn!(%error, "the certificate cannot be loaded again; the one in use stays");
        }
    }
}

fn panicked(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "hub.start", "a starting part failed").caused_by(error)
}
