//! Shared access signatures.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, Result, wire::percent};

/// A symmetric key, decoded. Wiped from memory when dropped; `Debug` shows nothing of it. Keys are compared in
/// constant time.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let differences = self.0.iter().zip(other.0.iter()).fold(0, |sum, (one, two)| sum | (one ^ two));
        self.0.len() == other.0.len() && std::hint::black_box(differences) == 0
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// From the base64 text in a connection string, with or without its padding.
    ///
    /// # Errors
    /// `InvalidArgument` when the text is not base64 or empty.
    pub fn from_base64(text: &str) -> Result<Self> {
        // The cause is left out on purpose: it would quote a character of the key.
        let refuse = |message| Error::new(ErrorKind::InvalidArgument, "key.parse", message);
        let bytes = BASE64.decode(text.trim()).map_err(|_| refuse("the key is not base64"))?;
        if bytes.is_empty() {
            return Err(refuse("the key is empty"));
        }
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// From raw bytes (the UTF-8 text of the key, for the Event Hubs form).
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// A new random key of 32 bytes.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness to give.
    pub fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; 32]);
        getrandom::fill(&mut bytes).map_err(|error| {
            Error::new(ErrorKind::Internal, "key.generate", "the system has no random numbers to give")
                .caused_by(error)
        })?;
        Ok(Self(bytes))
    }

    /// The base64 text, for a connection string.
    pub fn to_base64(&self) -> String {
        BASE64.encode(self.0.as_slice())
    }

    /// HMAC-SHA256 over `data`.
    pub fn sign(&self, data: &[u8]) -> [u8; 32] {
        self.mac(&[data]).map_or([0; 32], |mac| mac.finalize().into_bytes().into())
    }

    /// Whether `signature` is the HMAC-SHA256 over `parts` one after the other, in constant time.
    pub fn verifies(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.mac(parts).is_some_and(|mac| mac.verify_slice(signature).is_ok())
    }

    /// Never `None`: HMAC takes keys of any length.
    fn mac(&self, parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        parts.iter().for_each(|part| mac.update(part));
        Some(mac)
    }
}

/// A token as it travels: `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`. `Debug` shows no signature.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use whimbrel::auth::{Key, SasToken};
///
/// let key = Key::generate()?;
/// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
/// let text = SasToken::issue("hub.example/devices/d1", &key, None, in_an_hour);
///
/// let token = SasToken::parse(&text)?;
/// assert!(token.is_signed_by(&key));
/// assert!(token.covers("hub.example/devices/d1/messages/events"));
/// assert!(!token.covers("hub.example/devices/d11"));
/// # Ok::<(), whimbrel::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SasToken {
    /// The resource as it stands encoded in the token; the signature is over these bytes.
    pub resource: String,
    /// Decoded signature.
    pub signature: Vec<u8>,
    /// Seconds since 1970-01-01Z.
    pub expiry: u64,
    /// The policy; an empty one counts as absent.
    pub policy: Option<String>,
}

impl SasToken {
    /// Makes the text of a token for `resource` (not encoded, such as `hub/devices/d1`). Parts of a second of
    /// `expires_at` are dropped.
    pub fn issue(resource: &str, key: &Key, policy: Option<&str>, expires_at: SystemTime) -> String {
        let expiry = expires_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let resource = percent::encoded(resource);
        let signature = BASE64.encode(key.sign(format!("{resource}\n{expiry}").as_bytes()));
        let mut token = format!("{SCHEME} sr={resource}&sig=");
        percent::encode(&signature, &mut token);
        token.push_str("&se=");
        token.push_str(&expiry.to_string());
        if let Some(policy) = policy {
            token.push_str("&skn=");
            percent::encode(policy, &mut token);
        }
        token
    }

    /// Reads a token: fields in any order, names in any case, escapes in any case. Unknown fields are passed over.
    ///
    /// # Errors
    /// `Unauthorized` naming the part that is missing, doubled or malformed; never prints the signature.
    pub fn parse(text: &str) -> Result<Self> {
        let fields = text
            .trim()
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
            .map(|(_, fields)| fields)
            .ok_or_else(|| refuse("the token does not start with \"SharedAccessSignature \""))?;
        let (mut sr, mut sig, mut se, mut skn) = (None, None, None, None);
        for field in fields.split('&') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let (slot, name) = match name {
                name if name.eq_ignore_ascii_case("sr") => (&mut sr, "sr"),
                name if name.eq_ignore_ascii_case("sig") => (&mut sig, "sig"),
                name if name.eq_ignore_ascii_case("se") => (&mut se, "se"),
                name if name.eq_ignore_ascii_case("skn") => (&mut skn, "skn"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(refuse("the token has a part twice").with("part", name));
            }
        }
        let missing = |name| refuse("the token lacks a part").with("part", name);
        let malformed = |name| refuse("the token has a malformed part").with("part", name);
        let resource = sr.filter(|sr| !sr.is_empty()).ok_or_else(|| missing("sr"))?.to_owned();
        let signature = percent::decode(sig.filter(|sig| !sig.is_empty()).ok_or_else(|| missing("sig"))?);
        let signature = BASE64.decode(signature.as_bytes()).map_err(|_| malformed("sig"))?;
        let expiry = se.ok_or_else(|| missing("se"))?;
        let expiry = Some(expiry)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| malformed("se"))?;
        // One client encodes the policy twice; a policy's name holds no `%`.
        let policy =
            skn.filter(|skn| !skn.is_empty()).map(|skn| percent::decode(&percent::decode(skn)).into_owned());
        Ok(Self { resource, signature, expiry, policy })
    }

    /// Whether `key` made the signature, in constant time.
    pub fn is_signed_by(&self, key: &Key) -> bool {
        key.verifies(&[self.resource.as_bytes(), b"\n", self.expiry.to_string().as_bytes()], &self.signature)
    }

    /// Whether the scope covers `resource` (not encoded) by whole path segments: what stands below `devices` compared with
    /// case, everything else without, the token's resource decoded once or twice.
    pub fn covers(&self, resource: &str) -> bool {
        let once = percent::decode(&self.resource);
        covers(&once, resource) || covers(&percent::decode(&once), resource)
    }

    /// When the token ends. A hub allows [`CLOCK_SKEW`] on top.
    pub fn expires_at(&self) -> SystemTime {
        let since = Duration::from_secs(self.expiry);
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH + FAR)
    }
}

impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("resource", &self.resource)
            .field("expiry", &self.expiry)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// How far the clocks of a client and a hub may differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

fn covers(scope: &str, resource: &str) -> bool {
    // Ids of devices have case; host, and everything that only services have, has none.
    let of_devices = segments(resource).nth(1).is_some_and(|first| first.eq_ignore_ascii_case("devices"));
    let mut resource = segments(resource);
    segments(scope).enumerate().all(|(place, wanted)| {
        resource.next().is_some_and(|found| match place {
            0 | 1 => wanted.eq_ignore_ascii_case(found),
            _ if of_devices => wanted == found,
            _ => wanted.eq_ignore_ascii_case(found),
        })
    })
}

/// Host and path, without the scheme and a slash at the end.
fn segments(resource: &str) -> impl Iterator<Item = &str> {
    let path = resource.split_once("://").map_or(resource, |(_, path)| path);
    path.strip_suffix('/').unwrap_or(path).split('/')
}

fn refuse(message: &'static str) -> Error {
    Error::new(ErrorKind::Unauthorized, "token.parse", message)
}

const SCHEME: &str = "SharedAccessSignature";
/// Later than any token that is meant to end; 9999-12-31 about.
const FAR: Duration = Duration::from_secs(253_402_300_799);
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
    const HUB_SIG: &str = "q0mcGYQLZt36apVSmWwDUUUsC+OkopHq9XfkkSJGe6Y=";
    const EVENT_HUBS_SIG: &str = "NBxw+xe6ebUW4fDxBn1vpqiGCqu7iwYxrBytn+rBmPw=";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn scope(resource: &str) -> SasToken {
        SasToken { resource: resource.into(), signature: Vec::new(), expiry: 0, policy: None }
    }

    #[test]
    fn the_vectors_of_the_contract() {
        let decoded = Key::from_base64(KEY).unwrap();
        assert_eq!(decoded, Key::from_bytes(b"secretsecretsecretsecret"));
        let raw = Key::from_bytes(KEY.as_bytes());
        for (key, signature) in [(&decoded, HUB_SIG), (&raw, EVENT_HUBS_SIG)] {
            let token = SasToken::issue("h.example/devices/d1", key, None, at(1_700_000_000));
            let encoded = percent::encoded(signature);
            assert_eq!(
                token,
                format!("SharedAccessSignature sr=h.example%2Fdevices%2Fd1&sig={encoded}&se=1700000000")
            );
            let token = SasToken::parse(&token).unwrap();
            assert_eq!(BASE64.encode(&token.signature), signature);
            assert!(token.is_signed_by(key));
        }
        let token = SasToken::parse(&SasToken::issue("h", &decoded, None, at(1))).unwrap();
        assert!(!token.is_signed_by(&raw));
    }

    #[test]
    fn what_clients_send() {
        let key = Key::from_base64(KEY).unwrap();
        let sig = percent::encoded(HUB_SIG);
        let raw_sig = HUB_SIG;
        for text in [
            format!("SharedAccessSignature sig={sig}&se=1700000000&skn=&sr=h.example%2Fdevices%2Fd1"),
            format!("SharedAccessSignature SR=h.example%2Fdevices%2Fd1&SIG={sig}&SE=1700000000"),
            format!("SharedAccessSignature sr=h.example%2Fdevices%2Fd1&sig={raw_sig}&se=1700000000"),
            format!(
                "sharedaccesssignature sr=h.example%2Fdevices%2Fd1&sig={}&se=1700000000",
                sig.to_lowercase_hex()
            ),
            format!("SharedAccessSignature sr=h.example%2Fdevices%2Fd1&sig={sig}&se=1700000000&x=y\n"),
        ] {
            let token = SasToken::parse(&text).unwrap();
            assert!(token.is_signed_by(&key), "{text}");
            assert_eq!(token.policy, None);
            assert_eq!(token.expires_at(), at(1_700_000_000));
        }
        // Signed over what was received: lower-case escapes stay as they are.
        let sr = "h.example%2fdevices%2fd1";
        let sig = percent::encoded(&BASE64.encode(key.sign(format!("{sr}\n17").as_bytes())));
        let token =
            SasToken::parse(&format!("SharedAccessSignature sr={sr}&sig={sig}&se=17&skn=a%2540b")).unwrap();
        assert!(token.is_signed_by(&key) && token.covers("h.example/devices/d1"));
        assert_eq!(token.policy.as_deref(), Some("a@b"));
    }

    trait LowercaseHex {
        fn to_lowercase_hex(&self) -> String;
    }

    impl LowercaseHex for String {
        fn to_lowercase_hex(&self) -> String {
            self.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d")
        }
    }

    #[test]
    fn errors_name_the_part_and_hide_the_signature() {
        for (text, expected) in [
            ("", "does not start"),
            ("Bearer sr=h&sig=c2VjcmV0&se=1", "does not start"),
            ("SharedAccessSignature sig=c2VjcmV0&se=1", "part: sr"),
            ("SharedAccessSignature sr=h&sig=&se=1", "part: sig"),
            ("SharedAccessSignature sr=h&sig=c2VjcmV0", "part: se"),
            ("SharedAccessSignature sr=h&sig=c2VjcmV0!&se=1", "part: sig"),
            ("SharedAccessSignature sr=h&sig=c2VjcmV0&se=+1", "part: se"),
            ("SharedAccessSignature sr=h&sig=c2VjcmV0&se=99999999999999999999", "part: se"),
            ("SharedAccessSignature sr=h&sr=i&sig=c2VjcmV0&se=1", "twice (part: sr)"),
        ] {
            let error = SasToken::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthorized);
            let text = format!("{error} {error:?}");
            assert!(text.contains(expected) && !text.contains("c2VjcmV0"), "{text}");
        }
        let token =
            SasToken::parse("SharedAccessSignature sr=h&sig=c2VjcmV0&se=18446744073709551615").unwrap();
        assert!(token.expires_at() > at(1 << 32));
        assert!(!format!("{token:?}").contains("115, 101"), "{token:?}");
    }

    #[test]
    fn scopes_cover_whole_segments() {
        let rows = [
            ("h.example%2Fdevices%2Fd1", "h.example/devices/d1", true),
            ("H.Example%2FDevices%2Fd1", "h.example/devices/d1", true),
            ("h.example%2Fdevices%2Fd1", "h.example/devices/D1", false),
            ("h.example%2Fdevices%2Fd1", "h.example/devices/d1/modules/m", true),
            ("h.example%2Fdevices%2Fd1", "h.example/devices/d11", false),
            ("h.example%2Fdevices%2Fd1%2Fmodules%2Fm", "h.example/devices/d1", false),
            ("h.example%2Fdevices", "h.example/devices/d1", true),
            ("h.example", "h.example/devices/d1", true),
            ("h.example%2F", "h.example/devices/d1", true),
            ("h.example", "h.example.org/devices/d1", false),
            ("h.example%2Fmessages%2Fevents", "h.example/messages/events", true),
            // Event Hubs clients write the same address in several ways.
            ("h.example%2FMessages%2Fevents", "h.example/messages/events", true),
            (
                "sb://h.example/hub/consumergroups/$default",
                "h.example/Hub/ConsumerGroups/$Default/Partitions/0",
                true,
            ),
            ("sb://h.example/hub/consumergroups/a", "h.example/hub/ConsumerGroups/ab/Partitions/0", false),
            ("sb%3A%2F%2Fh.example%2Fhub", "h.example/hub", true),
            ("h.example/devices/d1", "h.example/devices/d1", true),
            // A client that encodes the id, then everything again.
            ("h.example%2Fdevices%2Fd%2523%2524", "h.example/devices/d#$", true),
            ("h.example%2Fdevices%2Fd%2523%2524", "h.example/devices/d%23%24", true),
            ("", "h.example/devices/d1", false),
            ("%2Fdevices", "h.example/devices/d1", false),
        ];
        for (sr, resource, covered) in rows {
            assert_eq!(scope(sr).covers(resource), covered, "{sr} and {resource}");
        }
    }

    #[test]
    fn keys_are_read_and_hidden() {
        assert_eq!(Key::from_base64("YQ").unwrap(), Key::from_base64(" YQ== ").unwrap());
        assert_ne!(Key::from_bytes(b"a"), Key::from_bytes(b"ab"));
        for text in ["", "a b", "====", "%%%"] {
            let error = Key::from_base64(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        let key = Key::generate().unwrap();
        assert_ne!(key, Key::generate().unwrap());
        assert_eq!(Key::from_base64(&key.to_base64()).unwrap(), key);
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}
