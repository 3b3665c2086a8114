//! The security layer before AMQP: which mechanisms, and who it is.

use fe2o3_amqp_types::{
    primitives::{Array, Symbol},
    sasl::{SaslCode, SaslInit, SaslMechanisms},
};

/// What the client proved, or will prove later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing yet: tokens follow on `$cbs`.
    Later,
    /// Its certificate.
    Certificate,
    /// A token in place of a password, and for what it is to be taken.
    Token { audience: String, policy: Option<String>, token: String },
}

/// The mechanisms the hub offers. EXTERNAL only to those who showed a certificate: many clients take the strongest that
/// is offered, whether they have one or not.
pub(super) fn mechanisms(has_certificate: bool) -> SaslMechanisms {
    let names = ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"];
    let offered = names.iter().take(if has_certificate { 4 } else { 3 });
    SaslMechanisms {
        sasl_server_mechanisms: Array::from(offered.map(|name| Symbol::from(*name)).collect::<Vec<_>>()),
    }
}

/// Reads what the client answered. `host` is the hub's name.
///
/// # Errors
/// The outcome to send: the mechanism is unknown, or the user name is none of the contract's.
pub(super) fn read(init: &SaslInit, host: &str, has_certificate: bool) -> Result<Proof, SaslCode> {
    match init.mechanism.as_str() {
        "ANONYMOUS" | "MSSBCBS" => Ok(Proof::Later),
        "EXTERNAL" if has_certificate => Ok(Proof::Certificate),
        "PLAIN" => {
            let response = init.initial_response.as_ref().map_or(&[][..], |response| response);
            plain(response, host).ok_or(SaslCode::Auth)
        }
        _ => Err(SaslCode::Auth),
    }
}

/// `{policy}@sas.root.{name}` or `{deviceId}@sas.{name}`, and a token. `{name}` is the first label of the host name, or
/// all of it.
fn plain(response: &[u8], host: &str) -> Option<Proof> {
    let mut parts = response.split(|byte| *byte == 0).skip(1);
    let user = std::str::from_utf8(parts.next()?).ok()?;
    let token = std::str::from_utf8(parts.next()?).ok()?.to_owned();
    let (who, realm) = user.rsplit_once('@')?;
    let rest = realm.get(..4).filter(|sas| sas.eq_ignore_ascii_case("sas.")).and(realm.get(4..))?;
    let is_hub = |name: &str| {
        let label = host.split('.').next().unwrap_or(host);
        name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(label)
    };
    // A hub named "root" cannot be told from the form of policies by a device; the longer form is looked at first.
    match rest.get(..5).filter(|root| root.eq_ignore_ascii_case("root.")).and(rest.get(5..)) {
        Some(name) if is_hub(name) => {
            // For what its own scope says.
            Some(Proof::Token { audience: String::new(), policy: Some(who.to_owned()), token })
        }
        _ if is_hub(rest) => {
            Some(Proof::Token { audience: format!("{host}/devices/{who}"), policy: None, token })
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;

    fn init(mechanism: &str, response: &[u8]) -> SaslInit {
        SaslInit {
            mechanism: Symbol::from(mechanism),
            initial_response: Some(response.to_vec().into()),
            hostname: None,
        }
    }

    #[test]
    fn user_names_of_the_contract_and_no_others() {
        let read = |user: &str| {
            read(&init("PLAIN", format!("\0{user}\0token").as_bytes()), "hub.example.org", false)
        };
        let policy = |name: &str| {
            Ok(Proof::Token { audience: String::new(), policy: Some(name.into()), token: "token".into() })
        };
        let device = |id: &str| {
            let audience = format!("hub.example.org/devices/{id}");
            Ok(Proof::Token { audience, policy: None, token: "token".into() })
        };
        assert_eq!(read("iothubowner@sas.root.hub"), policy("iothubowner"));
        assert_eq!(read("service@SAS.Root.hub.example.org"), policy("service"));
        assert_eq!(read("d1@sas.hub"), device("d1"));
        assert_eq!(read("a@b@sas.HUB.example.org"), device("a@b"));
        for other in
            ["d1", "d1@hub", "d1@sas.other", "d1@sas.root.other", "@", "d1@sas.", "d1@sas.hub.example"]
        {
            assert_eq!(read(other), Err(SaslCode::Auth), "{other}");
        }
        for broken in [&b""[..], b"\0", b"no zero", b"\0\xff@sas.hub\0t", b"\0d@sas.hub"] {
            assert!(super::read(&init("PLAIN", broken), "hub", false).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn external_needs_a_certificate() {
        assert_eq!(read(&init("EXTERNAL", b""), "hub", true), Ok(Proof::Certificate));
        assert_eq!(read(&init("EXTERNAL", b""), "hub", false), Err(SaslCode::Auth));
        assert_eq!(read(&init("MSSBCBS", b""), "hub", false), Ok(Proof::Later));
        assert_eq!(read(&init("SCRAM-SHA-256", b""), "hub", false), Err(SaslCode::Auth));
        assert_eq!(mechanisms(false).sasl_server_mechanisms.0.len(), 3);
        assert_eq!(mechanisms(true).sasl_server_mechanisms.0.len(), 4);
    }
}
