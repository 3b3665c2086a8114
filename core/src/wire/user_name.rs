//! MQTT 3.1.1: what a device says in the user name of CONNECT. Contract `mqtt.md`, "CONNECT".

use std::borrow::Cow;

use super::percent;
use crate::{Error, ErrorKind, Result};

/// The user name of CONNECT, taken apart. Borrows from it and from the client id.
///
/// Host and ids are not percent-encoded and may hold `?`, `%` and `&`; only with the client id is it clear where they end.
///
/// ```
/// use whimbrel::wire::user_name::UserName;
///
/// let name = UserName::parse("hub.example/d1/?api-version=2021-04-12&model-id=dtmi%3Aa%3B1", "d1")?;
/// assert_eq!((name.host, name.device), ("hub.example", "d1"));
/// assert_eq!(name.query("model-id").as_deref(), Some("dtmi:a;1"));
/// # Ok::<(), whimbrel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserName<'a> {
    /// Name of the hub, to be compared without case.
    pub host: &'a str,
    /// Device id.
    pub device: &'a str,
    /// Module id.
    pub module: Option<&'a str>,
    query: &'a str,
}

impl<'a> UserName<'a> {
    /// Reads `{host}/{device}[/{module}]` and after it nothing, `/`, `?{query}` or `/?{query}`.
    ///
    /// # Errors
    /// `Protocol` when there is no host or no client id; `Unauthorized` when it names another device or module than the
    /// client id does.
    pub fn parse(user_name: &'a str, client_id: &'a str) -> Result<Self> {
        let refuse = |kind, message| Error::new(kind, "user_name.parse", message);
        let (host, rest) = user_name
            .split_once('/')
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| refuse(ErrorKind::Protocol, "the user name is not {host}/{device}/?{query}"))?;
        let (device, module) = match client_id.split_once('/') {
            Some((device, module)) => (device, Some(module)),
            None => (client_id, None),
        };
        if device.is_empty() || module.is_some_and(|module| module.is_empty() || module.contains('/')) {
            return Err(refuse(ErrorKind::Protocol, "the client id is not {device} or {device}/{module}"));
        }
        let query = rest.strip_prefix(client_id).and_then(|rest| {
            let rest = rest.strip_prefix('/').unwrap_or(rest);
            match rest.strip_prefix('?') {
                Some(query) => Some(query),
                // Old clients leave out the question mark.
                None if rest.is_empty() || rest.starts_with("api-version=") => Some(rest),
                None => None,
            }
        });
        let query = query.ok_or_else(|| {
            let message = "the user name names another device or module than the client id";
            refuse(ErrorKind::Unauthorized, message)
        })?;
        Ok(Self { host, device, module, query })
    }

    /// The decoded value of a key of the query, such as `api-version`, `DeviceClientType`, `model-id` or `auth-chain`.
    pub fn query(&self, key: &str) -> Option<Cow<'a, str>> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| percent::decode(name) == key)
            .map(|(_, value)| percent::decode(value))
    }
}

/// The user name a device, or a module of it, connects with. `query` follows in the order given, encoded.
pub fn user_name(host: &str, device: &str, module: Option<&str>, query: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(192);
    out.extend([host, "/", device]);
    out.extend(module.iter().flat_map(|module| ["/", module]));
    out.push('/');
    for (index, (key, value)) in query.iter().enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        percent::encode(key, &mut out);
        out.push('=');
        percent::encode(value, &mut out);
    }
    out
}

/// The client id a device, or a module of it, connects with.
pub fn client_id<'a>(device: &'a str, module: Option<&str>) -> Cow<'a, str> {
    match module {
        Some(module) => Cow::Owned(format!("{device}/{module}")),
        None => Cow::Borrowed(device),
    }
}

/// The version of the contract we speak as a client of MQTT 3.1.1.
pub const API_VERSION: &str = "2021-04-12";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_was_seen() {
        for (text, client, module, version) in [
            ("h.example/d1", "d1", None, None),
            ("h.example/d1/", "d1", None, None),
            ("h.example/d1?api-version=2018-06-30", "d1", None, Some("2018-06-30")),
            ("h.example/d1/?api-version=2021-04-12", "d1", None, Some("2021-04-12")),
            ("h.example/d1/api-version=2016-11-14", "d1", None, Some("2016-11-14")),
            ("h.example/d1/?api-version=1&DeviceClientType=a%2Fb%20c", "d1", None, Some("1")),
            ("h.example/d1/m1/?api-version=1", "d1/m1", Some("m1"), Some("1")),
            ("h.example/d1/m1", "d1/m1", Some("m1"), None),
        ] {
            let parsed = UserName::parse(text, client).unwrap();
            assert_eq!((parsed.host, parsed.device, parsed.module), ("h.example", "d1", module), "{text}");
            assert_eq!(parsed.query("api-version").as_deref(), version, "{text}");
        }
        let text =
            "h/d/?api-version=1&DeviceClientType=py%2F2%20(x)&model-id=dtmi%3Aa%3Bb%3B1&auth-chain=e%3Bd";
        let parsed = UserName::parse(text, "d").unwrap();
        assert_eq!(parsed.query("DeviceClientType").unwrap(), "py/2 (x)");
        assert_eq!(parsed.query("model-id").unwrap(), "dtmi:a;b;1");
        assert_eq!(parsed.query("auth-chain").unwrap(), "e;d");
        assert_eq!(parsed.query("absent"), None);
    }

    #[test]
    fn odd_ids_need_the_client_id() {
        let device = "d?x=1&y%20#+$";
        let text = user_name("h", device, Some("m?"), &[("api-version", "1"), ("model-id", "a b&c")]);
        assert_eq!(text, "h/d?x=1&y%20#+$/m?/?api-version=1&model-id=a%20b%26c");
        let client = client_id(device, Some("m?"));
        let parsed = UserName::parse(&text, &client).unwrap();
        assert_eq!((parsed.device, parsed.module), (device, Some("m?")));
        assert_eq!(parsed.query("model-id").unwrap(), "a b&c");
    }

    #[test]
    fn what_is_refused() {
        for (text, client, kind) in [
            ("", "d1", ErrorKind::Protocol),
            ("h.example", "d1", ErrorKind::Protocol),
            ("/d1", "d1", ErrorKind::Protocol),
            ("h/d1", "", ErrorKind::Protocol),
            ("h/d1/", "d1/", ErrorKind::Protocol),
            ("h/d1/m/x", "d1/m/x", ErrorKind::Protocol),
            ("h/d2", "d1", ErrorKind::Unauthorized),
            ("h/d11", "d1", ErrorKind::Unauthorized),
            ("h/D1/?api-version=1", "d1", ErrorKind::Unauthorized),
            ("h/d1/m1/?api-version=1", "d1", ErrorKind::Unauthorized),
            ("h/d1/?api-version=1", "d1/m1", ErrorKind::Unauthorized),
        ] {
            assert_eq!(UserName::parse(text, client).unwrap_err().kind(), kind, "{text} {client}");
        }
    }
}
