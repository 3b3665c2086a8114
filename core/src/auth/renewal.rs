//! Tokens for now, and when the next one is due. Pure: the caller brings the clock and the chance.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::{CLOCK_SKEW, ConnectionString, Credential, Key, SasToken};
use crate::Result;

/// Makes the tokens of one connection: of a key, as many as are needed; or the one that was given.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use whimbrel::auth::{ConnectionString, DEFAULT_TOKEN_LIFETIME};
///
/// let device: ConnectionString = "HostName=hub.example;DeviceId=d1;SharedAccessKey=c2VjcmV0".parse()?;
/// let source = device.token_source(DEFAULT_TOKEN_LIFETIME).expect("a key, no certificate");
/// let now = SystemTime::now();
/// let token = source.token(now, 0.0);
/// assert!(token.text.starts_with("SharedAccessSignature sr=hub.example%2Fdevices%2Fd1&sig="));
/// let renewal = token.renewal.expect("a key makes the next one");
/// assert!(!renewal.is_due(now) && renewal.is_due(now + Duration::from_secs(49 * 60)));
/// # Ok::<(), whimbrel::Error>(())
/// ```
#[derive(Clone)]
pub struct TokenSource {
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    Key { resource: String, key: Key, policy: Option<String>, lifetime: Duration },
    Fixed { text: String, expires_at: SystemTime },
}

/// A token, ready to be sent. `Debug` does not show it.
#[derive(Clone, PartialEq)]
pub struct Token {
    /// The text, for a password or an `Authorization` header.
    pub text: String,
    /// When it ends.
    pub expires_at: SystemTime,
    /// When to ask for the next one; none when there is only this one.
    pub renewal: Option<Renewal>,
}

/// When a token has to be replaced: at 80 to 85 % of its life, so that a fleet that started together does not renew
/// together. A clock that turns out to have been wrong when the token was made asks for a new one at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    made_at: SystemTime,
    due_at: SystemTime,
}

/// How long a token lives that is made from a key.
pub const DEFAULT_TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

impl TokenSource {
    /// Makes tokens for `resource` (not encoded, such as `hub/devices/d1`) that live for `lifetime`.
    pub fn from_key(
        resource: impl Into<String>,
        key: Key,
        policy: Option<String>,
        lifetime: Duration,
    ) -> Self {
        Self { origin: Origin::Key { resource: resource.into(), key, policy, lifetime } }
    }

    /// Uses the one token that was made elsewhere, until the hub refuses it.
    ///
    /// # Errors
    /// As [`SasToken::parse`].
    pub fn fixed(token: impl Into<String>) -> Result<Self> {
        let text = token.into();
        let expires_at = SasToken::parse(&text)?.expires_at();
        Ok(Self { origin: Origin::Fixed { text, expires_at } })
    }

    /// A token for a connection made at `now`. `chance`, from 0 to 1, spreads renewals.
    ///
    /// A given token is returned also when it looks expired: the hub's clock decides, not ours.
    pub fn token(&self, now: SystemTime, chance: f64) -> Token {
        match &self.origin {
            Origin::Fixed { text, expires_at } => {
                Token { text: text.clone(), expires_at: *expires_at, renewal: None }
            }
            Origin::Key { resource, key, policy, lifetime } => {
                let expires_at = now.checked_add(*lifetime).unwrap_or(now);
                Token {
                    text: SasToken::issue(resource, key, policy.as_deref(), expires_at),
                    expires_at,
                    renewal: Some(Renewal::new(now, *lifetime, chance)),
                }
            }
        }
    }
}

impl ConnectionString {
    /// What makes the tokens this connection string stands for: of a device or module for all that is its own, of a
    /// service for the whole hub, of an Event Hubs reader for its event hub. None with a certificate.
    pub fn token_source(&self, lifetime: Duration) -> Option<TokenSource> {
        match &self.credential {
            Credential::X509 => None,
            Credential::Token(text) => TokenSource::fixed(text.as_str()).ok(),
            Credential::Key { policy, key } => {
                let mut resource = self.host_name.clone();
                let mut key = key.clone();
                if let Some(event_hub) = &self.event_hub {
                    resource.insert_str(0, "sb://");
                    resource.extend(event_hub.entity_path.iter().flat_map(|entity| ["/", entity]));
                    // Event Hubs signs with the text of the key.
                    key = Key::from_bytes(key.to_base64().as_bytes());
                }
                resource.extend(self.device_id.iter().flat_map(|device| ["/devices/", device]));
                resource.extend(self.module_id.iter().flat_map(|module| ["/modules/", module]));
                Some(TokenSource::from_key(resource, key, policy.clone(), lifetime))
            }
        }
    }
}

impl Renewal {
    /// For a token made at `made_at` that lives for `lifetime`; `chance`, from 0 to 1, picks the place between 80 and
    /// 85 %.
    pub fn new(made_at: SystemTime, lifetime: Duration, chance: f64) -> Self {
        let chance = if chance.is_finite() { chance.clamp(0.0, 1.0) } else { 0.0 };
        let after = lifetime.mul_f64(0.80 + 0.05 * chance);
        Self { made_at, due_at: made_at.checked_add(after).unwrap_or(made_at) }
    }

    /// How long to wait from `now` on; zero when it is due. Ask again after a wait of a few minutes: a clock that is
    /// set meanwhile changes the answer.
    pub fn wait(&self, now: SystemTime) -> Duration {
        // Before the token was made: the clock was ahead then, so the token lives longer than it was meant to and the
        // hub may not believe it.
        let set_back = self.made_at.duration_since(now).is_ok_and(|behind| behind > CLOCK_SKEW);
        if set_back { Duration::ZERO } else { self.due_at.duration_since(now).unwrap_or(Duration::ZERO) }
    }

    /// Whether the next token is due.
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.wait(now).is_zero()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_at", &self.expires_at)
            .field("renewal", &self.renewal)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.origin {
            Origin::Key { .. } => "TokenSource::from_key(..)",
            Origin::Fixed { .. } => "TokenSource::fixed(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = DEFAULT_TOKEN_LIFETIME;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn resource_of(connection_string: &str) -> SasToken {
        let source = connection_string.parse::<ConnectionString>().unwrap().token_source(HOUR).unwrap();
        SasToken::parse(&source.token(at(1_000), 0.0).text).unwrap()
    }

    #[test]
    fn tokens_are_for_what_the_connection_string_names() {
        for (text, resource) in [
            ("HostName=h.example;DeviceId=d#1;SharedAccessKey=c2VjcmV0", "h.example%2Fdevices%2Fd%231"),
            ("HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=c2VjcmV0", "h%2Fdevices%2Fd%2Fmodules%2Fm"),
            ("HostName=h:1883;GatewayHostName=g;DeviceId=d;SharedAccessKey=c2VjcmV0", "h%2Fdevices%2Fd"),
            ("HostName=h;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0", "h"),
            (
                "Endpoint=sb://h/;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0;EntityPath=e",
                "sb%3A%2F%2Fh%2Fe",
            ),
        ] {
            let token = resource_of(text);
            assert_eq!(token.resource, resource);
            assert_eq!(token.expiry, 1_000 + 3_600);
            let event_hubs = text.starts_with("Endpoint");
            let key = if event_hubs { Key::from_bytes(b"c2VjcmV0") } else { Key::from_bytes(b"secret") };
            assert!(token.is_signed_by(&key), "{text}");
            assert_eq!(token.policy.is_some(), text.contains("KeyName"));
        }
        let x509: ConnectionString = "HostName=h;DeviceId=d;x509=true".parse().unwrap();
        assert!(x509.token_source(HOUR).is_none());
    }

    #[test]
    fn a_given_token_is_never_renewed() {
        let text = "SharedAccessSignature sr=h&sig=c2VjcmV0&se=50";
        let token = TokenSource::fixed(text).unwrap().token(at(1_000), 0.5);
        assert_eq!((token.text.as_str(), token.expires_at, token.renewal), (text, at(50), None));
        assert!(!format!("{token:?}").contains("c2VjcmV0"));
        assert!(TokenSource::fixed("nonsense").is_err());
    }

    #[test]
    fn renewal_falls_between_80_and_85_percent() {
        let made = at(10_000);
        for (chance, due) in [(0.0, 2_880), (1.0, 3_060), (0.5, 2_970), (7.0, 3_060), (f64::NAN, 2_880)] {
            let renewal = Renewal::new(made, HOUR, chance);
            let rounded = renewal.wait(made) + Duration::from_millis(1);
            assert_eq!(rounded.as_secs(), due, "chance {chance}");
            assert!(!renewal.is_due(made + Duration::from_secs(due - 1)));
            assert!(renewal.is_due(made + Duration::from_secs(due + 1)));
        }
    }

    #[test]
    fn a_clock_that_was_set_asks_for_a_new_token() {
        let renewal = Renewal::new(at(1_000_000), HOUR, 0.0);
        assert!(!renewal.is_due(at(1_000_000 - 300)), "within the skew a hub allows");
        assert!(renewal.is_due(at(1_000_000 - 301)), "it was ahead");
        assert!(renewal.is_due(at(2_000_000)), "it was behind");
    }
}
