//! `key=value` pairs joined by `;`.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    str::FromStr,
};

use super::{Key, SasToken};
use crate::{Error, ErrorKind, Result, message::is_id_character};

/// A parsed connection string of a device, a module, a service or an Event Hubs reader.
///
/// `Display` writes it back with the secret blotted out; [`ConnectionString::reveal`] with it.
///
/// ```
/// use whimbrel::auth::ConnectionString;
///
/// let device: ConnectionString = "HostName=hub.example;DeviceId=d1;SharedAccessKey=c2VjcmV0".parse()?;
/// assert_eq!(device.device_id.as_deref(), Some("d1"));
/// assert_eq!(device.to_string(), "HostName=hub.example;DeviceId=d1;SharedAccessKey=***");
/// # Ok::<(), whimbrel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionString {
    /// `HostName`: the hub's name in tokens and user names. In the Event Hubs form, the host of `Endpoint`.
    pub host_name: String,
    /// `GatewayHostName`: connect there instead, keep `host_name` everywhere else.
    pub gateway_host_name: Option<String>,
    /// A port written behind the host to connect to (`HostName=localhost:18883`); the protocol's own when not given.
    pub port: Option<u16>,
    /// `DeviceId`.
    pub device_id: Option<String>,
    /// `ModuleId`.
    pub module_id: Option<String>,
    /// How to prove who we are.
    pub credential: Credential,
    /// What only the Event Hubs form has.
    pub event_hub: Option<EventHub>,
}

/// The Event Hubs form: `Endpoint=sb://host/;…;EntityPath=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHub {
    /// `EntityPath`: the name of the event hub.
    pub entity_path: Option<String>,
    /// `UseDevelopmentEmulator=true`: connect without TLS.
    pub development_emulator: bool,
}

/// How to prove who we are. `Debug` shows no secrets.
#[derive(Clone, PartialEq)]
pub enum Credential {
    /// `SharedAccessKey`, with `SharedAccessKeyName` when it is a policy's.
    Key {
        /// The policy; none for a device's own key.
        policy: Option<String>,
        /// The key; never printed.
        key: Key,
    },
    /// `SharedAccessSignature`: a token made elsewhere, used as it is.
    Token(String),
    /// `x509=true`: a client certificate given with the options.
    X509,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { policy, key } => {
                f.debug_struct("Key").field("policy", policy).field("key", key).finish()
            }
            Self::Token(_) => f.write_str("Token(..)"),
            Self::X509 => f.write_str("X509"),
        }
    }
}

impl ConnectionString {
    /// Host and port to connect to: the gateway's if there is one.
    pub fn address(&self) -> (&str, Option<u16>) {
        (self.gateway_host_name.as_ref().unwrap_or(&self.host_name), self.port)
    }

    /// The whole text, with its secret, as [`FromStr`] reads it.
    pub fn reveal(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text, true);
        text
    }

    fn write(&self, out: &mut impl Write, reveal: bool) -> fmt::Result {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let (hub_port, gateway_port) =
            if self.gateway_host_name.is_some() { ("", port.as_str()) } else { (port.as_str(), "") };
        let host = bracketed(&self.host_name);
        match &self.event_hub {
            None => write!(out, "HostName={host}{hub_port}")?,
            Some(_) => write!(out, "Endpoint=sb://{host}{hub_port}/")?,
        }
        if let Some(gateway) = &self.gateway_host_name {
            write!(out, ";GatewayHostName={}{gateway_port}", bracketed(gateway))?;
        }
        if let Some(device) = &self.device_id {
            write!(out, ";DeviceId={device}")?;
        }
        if let Some(module) = &self.module_id {
            write!(out, ";ModuleId={module}")?;
        }
        match &self.credential {
            Credential::X509 => out.write_str(";x509=true")?,
            Credential::Token(token) => {
                write!(out, ";SharedAccessSignature={}", if reveal { token } else { "***" })?;
            }
            Credential::Key { policy, key } => {
                if let Some(policy) = policy {
                    write!(out, ";SharedAccessKeyName={policy}")?;
                }
                let key = if reveal { key.to_base64() } else { "***".into() };
                write!(out, ";SharedAccessKey={key}")?;
            }
        }
        if let Some(event_hub) = &self.event_hub {
            if let Some(entity) = &event_hub.entity_path {
                write!(out, ";EntityPath={entity}")?;
            }
            if event_hub.development_emulator {
                out.write_str(";UseDevelopmentEmulator=true")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl FromStr for ConnectionString {
    type Err = Error;

    /// Names of parts in any case; a value goes on to the next `;`, whatever `=` it holds.
    ///
    /// # Errors
    /// `InvalidArgument` naming the part that is missing, unknown, doubled or malformed. Never prints a key.
    fn from_str(text: &str) -> Result<Self> {
        let parts = Parts::split(text)?;
        let (host_name, hub_port) = match (parts.get(Part::HostName), parts.get(Part::Endpoint)) {
            (Some(host), None) => host_and_port(Part::HostName, host)?,
            (None, Some(endpoint)) => host_and_port(Part::Endpoint, endpoint_host(endpoint))?,
            (Some(_), Some(_)) => return Err(refuse("HostName and Endpoint exclude each other")),
            (None, None) => return Err(missing("HostName")),
        };
        let gateway = parts
            .get(Part::GatewayHostName)
            .map(|host| host_and_port(Part::GatewayHostName, host))
            .transpose()?;
        let device_id = parts.id(Part::DeviceId)?;
        let module_id = parts.id(Part::ModuleId)?;
        if module_id.is_some() && device_id.is_none() {
            return Err(missing("DeviceId").with("needed by", "ModuleId"));
        }
        let event_hub = EventHub {
            entity_path: parts.get(Part::EntityPath).map(str::to_owned),
            development_emulator: parts.is_true(Part::UseDevelopmentEmulator)?,
        };
        let is_event_hub = parts.get(Part::Endpoint).is_some();
        if is_event_hub && device_id.is_some() {
            return Err(refuse("DeviceId belongs to HostName, not to Endpoint"));
        }
        if !is_event_hub && (event_hub.entity_path.is_some() || event_hub.development_emulator) {
            return Err(missing("Endpoint").with("needed by", "EntityPath and UseDevelopmentEmulator"));
        }
        let credential = parts.credential(device_id.is_some())?;
        let (gateway_host_name, port) = match gateway {
            Some((host, port)) => (Some(host), port),
            None => (None, hub_port),
        };
        Ok(Self {
            host_name,
            gateway_host_name,
            port,
            device_id,
            module_id,
            credential,
            event_hub: is_event_hub.then_some(event_hub),
        })
    }
}

/// The values that were given.
struct Parts<'a>(Vec<(Part, &'a str)>);

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self> {
        let mut parts = Vec::new();
        for (place, pair) in text.split(';').map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty()) {
            // What stands before a `=` is a name; a pair without one may be half a secret and is not printed.
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                refuse("a part of the connection string has no \"=\"")
                    .with("part", format_args!("number {}", place + 1))
            })?;
            let (name, value) = (name.trim(), value.trim());
            let part = Part::find(name)?;
            if value.is_empty() {
                return Err(refuse("a part of the connection string is empty").with("part", part.name()));
            }
            if parts.iter().any(|(known, _)| *known == part) {
                return Err(refuse("a part of the connection string stands twice").with("part", part.name()));
            }
            parts.push((part, value));
        }
        Ok(Self(parts))
    }

    fn get(&self, part: Part) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == part).map(|(_, value)| *value)
    }

    fn id(&self, part: Part) -> Result<Option<String>> {
        let Some(id) = self.get(part) else { return Ok(None) };
        if id.len() > 128 || !id.chars().all(is_id_character) {
            let message = "an id may have up to 128 ASCII letters, digits and -:.+%_#*?!(),=@$'";
            return Err(refuse(message).with("part", part.name()));
        }
        Ok(Some(id.to_owned()))
    }

    fn is_true(&self, part: Part) -> Result<bool> {
        match self.get(part) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(refuse("the value is neither true nor false").with("part", part.name())),
        }
    }

    fn credential(&self, of_device: bool) -> Result<Credential> {
        let policy = self.get(Part::SharedAccessKeyName);
        let x509 = self.is_true(Part::X509)? || self.is_true(Part::X509Cert)?;
        match (self.get(Part::SharedAccessKey), self.get(Part::SharedAccessSignature), x509) {
            (Some(key), None, false) => {
                if policy.is_none() && !of_device {
                    return Err(refuse("DeviceId is missing, or for a service SharedAccessKeyName"));
                }
                let key = Key::from_base64(key)
                    .map_err(|error| refuse(error.message().to_owned()).with("part", "SharedAccessKey"))?;
                Ok(Credential::Key { policy: policy.map(str::to_owned), key })
            }
            (None, Some(token), false) => {
                SasToken::parse(token).map_err(|error| {
                    refuse("the token is malformed").with("part", "SharedAccessSignature").caused_by(error)
                })?;
                Ok(Credential::Token(token.to_owned()))
            }
            (None, None, true) if of_device => Ok(Credential::X509),
            (None, None, true) => Err(missing("DeviceId").with("needed by", "x509")),
            (None, None, false) => Err(missing("SharedAccessKey (or SharedAccessSignature, or x509=true)")),
            _ => Err(refuse("SharedAccessKey, SharedAccessSignature and x509 exclude each other")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    HostName,
    GatewayHostName,
    DeviceId,
    ModuleId,
    SharedAccessKeyName,
    SharedAccessKey,
    SharedAccessSignature,
    X509,
    X509Cert,
    Endpoint,
    EntityPath,
    UseDevelopmentEmulator,
}

impl Part {
    const ALL: [Self; 12] = [
        Self::HostName,
        Self::GatewayHostName,
        Self::DeviceId,
        Self::ModuleId,
        Self::SharedAccessKeyName,
        Self::SharedAccessKey,
        Self::SharedAccessSignature,
        Self::X509,
        Self::X509Cert,
        Self::Endpoint,
        Self::EntityPath,
        Self::UseDevelopmentEmulator,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::HostName => "HostName",
            Self::GatewayHostName => "GatewayHostName",
            Self::DeviceId => "DeviceId",
            Self::ModuleId => "ModuleId",
            Self::SharedAccessKeyName => "SharedAccessKeyName",
            Self::SharedAccessKey => "SharedAccessKey",
            Self::SharedAccessSignature => "SharedAccessSignature",
            Self::X509 => "x509",
            Self::X509Cert => "X509Cert",
            Self::Endpoint => "Endpoint",
            Self::EntityPath => "EntityPath",
            Self::UseDevelopmentEmulator => "UseDevelopmentEmulator",
        }
    }

    fn find(name: &str) -> Result<Self> {
        if let Some(part) = Self::ALL.into_iter().find(|part| part.name().eq_ignore_ascii_case(name)) {
            return Ok(part);
        }
        let error = refuse("a part of the connection string is unknown");
        // A long "name" is something else that has a `=`; it could be a piece of a secret.
        if name.len() > 32 {
            return Err(error);
        }
        let nearest = Self::ALL.into_iter().min_by_key(|part| distance(part.name(), name));
        let nearest = nearest.filter(|part| distance(part.name(), name) <= 1 + part.name().len() / 4);
        let error = error.with("part", name);
        Err(match nearest {
            Some(part) => error.with("did you mean", part.name()),
            None => error,
        })
    }
}

/// How many letters have to be put in, taken out or changed, without regard to case.
fn distance(one: &str, two: &str) -> usize {
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (above, from) in one.bytes().enumerate() {
        let mut next = vec![above + 1];
        for ((to, corner), up) in two.bytes().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or(0);
            let change = usize::from(!from.eq_ignore_ascii_case(&to));
            next.push((corner + change).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// `localhost`, `localhost:1883`, `[::1]:1883`.
fn host_and_port(part: Part, text: &str) -> Result<(String, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    if !valid {
        return Err(refuse("the host is neither a name nor an address").with("part", part.name()));
    }
    let port = port.map(|port| {
        port.parse().map_err(|_| refuse("the port is not a number up to 65535").with("part", part.name()))
    });
    Ok((inner.unwrap_or(host).to_owned(), port.transpose()?))
}

/// The host as it is written where a port may follow.
fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') { format!("[{host}]").into() } else { host.into() }
}

fn endpoint_host(endpoint: &str) -> &str {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    host.strip_suffix('/').unwrap_or(host)
}

fn missing(part: &'static str) -> Error {
    refuse(format!("{part} is missing"))
}

fn refuse(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, "connection_string.parse", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0";

    fn parse(text: &str) -> ConnectionString {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_form_is_read() {
        let device = parse("HostName=h.example;DeviceId=d=1;SharedAccessKey=c2VjcmV0cw==");
        assert_eq!(device.device_id.as_deref(), Some("d=1"));
        assert_eq!(device.credential, Credential::Key { policy: None, key: Key::from_bytes(b"secrets") });
        assert_eq!(device.address(), ("h.example", None));

        let module = parse(
            " hostname = h.example ; DEVICEID=d1;moduleid=m1;GatewayHostName=edge:8884;\nSharedAccessKey=c2VjcmV0;",
        );
        assert_eq!(module.module_id.as_deref(), Some("m1"));
        assert_eq!((module.host_name.as_str(), module.address()), ("h.example", ("edge", Some(8884))));

        let by_policy = parse("HostName=h;DeviceId=d;SharedAccessKeyName=device;SharedAccessKey=c2VjcmV0");
        assert!(
            matches!(by_policy.credential, Credential::Key { policy: Some(policy), .. } if policy == "device")
        );

        for x509 in ["x509=true", "X509Cert=True"] {
            assert_eq!(parse(&format!("HostName=h;DeviceId=d;{x509}")).credential, Credential::X509);
        }

        let token = "SharedAccessSignature sr=h%2Fdevices%2Fd&sig=c2VjcmV0&se=1";
        let with_token = parse(&format!("HostName=h;DeviceId=d;SharedAccessSignature={token}"));
        assert_eq!(with_token.credential, Credential::Token(token.into()));

        let service = parse("HostName=[::1]:9000;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0");
        assert_eq!((service.address(), &service.device_id), (("::1", Some(9000)), &None));

        let reader = parse(
            "Endpoint=sb://ns.example/;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0;EntityPath=hub;UseDevelopmentEmulator=true",
        );
        assert_eq!(reader.host_name, "ns.example");
        assert_eq!(
            reader.event_hub,
            Some(EventHub { entity_path: Some("hub".into()), development_emulator: true })
        );
    }

    #[test]
    fn it_is_written_back_with_or_without_its_secret() {
        let token = "SharedAccessSignature sr=h&sig=c2VjcmV0&se=1";
        for text in [
            "HostName=h.example:1883;DeviceId=d;ModuleId=m;SharedAccessKey=c2VjcmV0".to_owned(),
            "HostName=h;GatewayHostName=edge:8884;DeviceId=d;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0"
                .into(),
            "HostName=[::1]:9000;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0".into(),
            "HostName=::1;DeviceId=d;x509=true".replace("::1", "[::1]"),
            format!("HostName=h;DeviceId=d;SharedAccessSignature={token}"),
            "Endpoint=sb://h/;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0;EntityPath=e".into(),
        ] {
            let parsed = parse(&text);
            assert_eq!(parsed.reveal(), text);
            for shown in [parsed.to_string(), format!("{parsed:?}")] {
                assert!(!shown.contains(KEY), "{shown}");
            }
        }
    }

    #[test]
    fn errors_name_the_part_and_never_a_key() {
        for (text, expected) in [
            ("", "HostName is missing"),
            ("DeviceId=d;SharedAccessKey=c2VjcmV0", "HostName is missing"),
            ("HostName=h;SharedAccessKey=c2VjcmV0", "DeviceId is missing"),
            ("HostName=h;DeviceId=d", "SharedAccessKey (or"),
            ("HostName=h;x509=true", "DeviceId is missing"),
            ("HostName=h;ModuleId=m;SharedAccessKey=c2VjcmV0", "DeviceId is missing (needed by: ModuleId)"),
            ("HostNam=h;DeviceId=d", "unknown (part: HostNam, did you mean: HostName)"),
            ("HostName=h;Device_Id=d", "did you mean: DeviceId"),
            ("HostName=h;DeviceId=d;SharedAccessKeys=c2VjcmV0", "did you mean: SharedAccessKey)"),
            ("HostName=h;Colour=c2VjcmV0", "unknown (part: Colour)"),
            ("HostName=h;c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0=", "unknown"),
            ("HostName=h;c2VjcmV0", "no \"=\" (part: number 2)"),
            ("HostName=h;hostname=i", "twice (part: HostName)"),
            ("HostName=;DeviceId=d", "empty (part: HostName)"),
            ("HostName=h h;DeviceId=d;x509=true", "part: HostName"),
            ("HostName=h:99999;DeviceId=d;x509=true", "the port"),
            ("HostName=[h];DeviceId=d;x509=true", "part: HostName"),
            ("HostName=h;DeviceId=a/b;x509=true", "part: DeviceId"),
            ("HostName=h;DeviceId=d;x509=yes", "part: x509"),
            ("HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0!", "not base64 (part: SharedAccessKey)"),
            ("HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0;x509=true", "exclude each other"),
            ("HostName=h;DeviceId=d;SharedAccessSignature=c2VjcmV0", "part: SharedAccessSignature"),
            ("HostName=h;Endpoint=sb://h/;SharedAccessKey=c2VjcmV0", "exclude each other"),
            ("HostName=h;DeviceId=d;EntityPath=e;x509=true", "Endpoint is missing"),
        ] {
            let error = text.parse::<ConnectionString>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let shown = error.to_string();
            assert!(shown.contains(expected), "{shown:?} does not say {expected:?}");
            assert!(!format!("{shown} {error:?}").contains(KEY), "{shown}");
        }
    }
}
