//! How a device is opened.

use std::{ffi::c_char, path::PathBuf};

use whimbrel::{DeviceOptions, Result};
use whimbrel_bindings_support::DeviceSettings;

use crate::{
    border::{self, invalid},
    message::number,
    words::{DURABILITIES, OVERFLOWS, PROTOCOLS, word},
};

/// How to open a device. Begin with WHIMBREL_DEVICE_OPTIONS_INIT, which leaves everything at its default, and set connection_string
/// and either outbox_dir or outbox_in_memory. Everything is copied by whimbrel_device_open(). Texts are UTF-8, end with a NUL, and
/// are NULL for "not given"; numbers are WHIMBREL_NOT_GIVEN for it; times are in milliseconds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct whimbrel_device_options {
    /// Set by WHIMBREL_DEVICE_OPTIONS_INIT.
    pub size: usize,
    /// Hub, device and credential: "HostName=...;DeviceId=...;SharedAccessKey=...", with SharedAccessSignature=... for a token, or
    /// with x509=true for a client certificate.
    pub connection_string: *const c_char,
    /// The folder that keeps the outbox. One open device owns it. Made where it is missing.
    pub outbox_dir: *const c_char,
    /// Not 0: the outbox is kept in memory only, and a restart loses what was not delivered.
    pub outbox_in_memory: i32,
    /// A whimbrel_overflow: what happens at the bounds.
    pub overflow: i32,
    /// A whimbrel_durability: what sending waits for.
    pub durability: i32,
    /// Most bytes waiting in the outbox. Default 256 MiB.
    pub outbox_max_bytes: i64,
    /// Most messages waiting in the outbox. Default 1,000,000.
    pub outbox_max_messages: i64,
    /// Time to live of messages that bring none. Default: they never expire.
    pub outbox_max_age_ms: i64,
    /// How often WHIMBREL_DURABILITY_INTERVAL writes. Default 1,000.
    pub sync_interval_ms: i64,
    /// Outcomes of past messages that are kept for each lane. Default 1,024.
    pub kept_outcomes: i64,
    /// Connects to this address instead of the host in the connection string: "mqtts://host[:port]", "amqps://...", "https://..."
    /// or "wss://...". Without the s they are not encrypted, and go to this machine only unless allow_unencrypted is set.
    pub server: *const c_char,
    /// Not 0: speaks MQTT or AMQP in a WebSocket at port 443.
    pub websocket: i32,
    /// Goes through an HTTP proxy: "http://[user:password@]host[:port]".
    pub proxy: *const c_char,
    /// Trusts the certificates in this PEM file instead of the system's roots.
    pub ca_file: *const c_char,
    /// As ca_file, with the PEM text itself.
    pub ca_pem: *const c_char,
    /// PEM file of the client's certificate chain; with client_key.
    pub client_certificate: *const c_char,
    /// PEM file of the client's private key.
    pub client_key: *const c_char,
    /// As client_certificate, with the PEM text itself; with client_key_pem.
    pub client_certificate_pem: *const c_char,
    /// As client_key, with the PEM text itself.
    pub client_key_pem: *const c_char,
    /// Not 0: allows an unencrypted connection to another machine. Everybody on the way can read and change what is sent.
    pub allow_unencrypted: i32,
    /// A whimbrel_protocol.
    pub protocol: i32,
    /// Longest silence on the connection before it counts as lost. Default 60,000, at least 100.
    pub keep_alive_ms: i64,
    /// Longest wait for a connection, name resolution and handshakes included. Default 30,000.
    pub connect_timeout_ms: i64,
    /// How often commands are asked for over HTTP. Default 1,500,000 (25 minutes), at least 1,000.
    pub poll_interval_ms: i64,
    /// Most messages sent and not acknowledged, 1 to 65,535. Default 1,000.
    pub window: i32,
    /// Most commands delivered and not settled, 1 to 1,000. Default 16.
    pub inbox_window: i32,
    /// Longest wait after the first failed attempt to connect; doubled with each further one. With backoff_max_ms. Default 100.
    pub backoff_min_ms: i64,
    /// Bound of that wait. Default 60,000.
    pub backoff_max_ms: i64,
    /// How long closing may flush. Default 5,000.
    pub close_deadline_ms: i64,
    /// How long a token is valid that is made from a key. Default 3,600,000 (1 hour), at least 1,000.
    pub token_lifetime_ms: i64,
}

/// The options a program hands over.
///
/// # Safety
/// `options` is NULL or points to some whose pointers are valid.
pub(crate) unsafe fn read(
    operation: &'static str,
    options: *const whimbrel_device_options,
) -> Result<DeviceOptions> {
    // SAFETY: promised by the caller; it is repr(C), begins with its size, and consists of numbers and raw pointers.
    let given = unsafe { border::sized(operation, "options", options)? };
    // SAFETY: promised by the caller, for this and each of the following texts.
    let text = |name, text| unsafe { border::optional_text(operation, name, text) };
    let path = |name, path| text(name, path).map(|path| path.map(PathBuf::from));
    let number = |name, given| number(operation, name, given);
    let small = |name: &'static str, given: i32| {
        let given = number(name, i64::from(given))?;
        let small = given.map(|given| {
            u16::try_from(given).map_err(|_| invalid(operation, name, "is over 65,535").with("given", given))
        });
        small.transpose()
    };
    // SAFETY: promised by the caller.
    let connection_string = unsafe { border::text(operation, "connection_string", given.connection_string)? };
    let settings = DeviceSettings {
        outbox: path("outbox_dir", given.outbox_dir)?,
        outbox_in_memory: given.outbox_in_memory != 0,
        overflow: word(given.overflow, OVERFLOWS),
        durability: word(given.durability, DURABILITIES),
        outbox_max_bytes: number("outbox_max_bytes", given.outbox_max_bytes)?,
        outbox_max_messages: number("outbox_max_messages", given.outbox_max_messages)?,
        outbox_max_age_ms: number("outbox_max_age_ms", given.outbox_max_age_ms)?,
        sync_interval_ms: number("sync_interval_ms", given.sync_interval_ms)?,
        kept_outcomes: number("kept_outcomes", given.kept_outcomes)?,
        server: text("server", given.server)?,
        websocket: given.websocket != 0,
        proxy: text("proxy", given.proxy)?,
        ca_file: path("ca_file", given.ca_file)?,
        ca_pem: text("ca_pem", given.ca_pem)?,
        client_certificate: path("client_certificate", given.client_certificate)?,
        client_key: path("client_key", given.client_key)?,
        client_certificate_pem: text("client_certificate_pem", given.client_certificate_pem)?,
        client_key_pem: text("client_key_pem", given.client_key_pem)?,
        allow_unencrypted: given.allow_unencrypted != 0,
        protocol: word(given.protocol, PROTOCOLS),
        keep_alive_ms: number("keep_alive_ms", given.keep_alive_ms)?,
        connect_timeout_ms: number("connect_timeout_ms", given.connect_timeout_ms)?,
        poll_interval_ms: number("poll_interval_ms", given.poll_interval_ms)?,
        window: small("window", given.window)?,
        inbox_window: small("inbox_window", given.inbox_window)?,
        backoff_min_ms: number("backoff_min_ms", given.backoff_min_ms)?,
        backoff_max_ms: number("backoff_max_ms", given.backoff_max_ms)?,
        close_deadline_ms: number("close_deadline_ms", given.close_deadline_ms)?,
        token_lifetime_ms: number("token_lifetime_ms", given.token_lifetime_ms)?,
    };
    settings.options(connection_string)
}
