//! Who is let in with what: credentials against actions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use whimbrel::{
    ErrorKind, Result,
    auth::{Key, SasToken},
};
use whimbrel_hub::{
    access::{Access, Admitted, Policies, Right},
    registry::{Authentication, KeySlot, Registry},
    store::{Embedded, Store, StoreOptions},
};

const HOST: &str = "hub.example";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

/// All tests are at this time.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

struct Door {
    access: Access,
    registry: Registry,
    _store: Arc<dyn Store>,
}

async fn door(authorities: &[CertificateDer<'_>]) -> Door {
    let store: Arc<dyn Store> = Embedded::open(&StoreOptions::default()).unwrap();
    let registry = Registry::new(Arc::clone(&store), HOST);
    let policies = Policies::load(&*store).await.unwrap();
    let access = Access::new(registry.clone(), policies, authorities, HOST).unwrap();
    Door { access, registry, _store: store }
}

impl Door {
    /// Creates a device and gives its keys.
    async fn device(&self, id: &str) -> (Key, Key) {
        match self.registry.create(id).await.unwrap().device.authentication {
            Authentication::Sas { primary, secondary } => (primary, secondary),
            other => panic!("{other:?}"),
        }
    }

    fn policy_key(&self, name: &str) -> Key {
        self.access.policies().get(name).unwrap().primary.clone()
    }

    fn by_token(&self, device: &str, token: &str) -> Result<Admitted> {
        self.access.device_by_token(device, None, token, now())
    }

    fn by_chain(&self, device: &str, chain: &[CertificateDer<'_>]) -> Result<Admitted> {
        self.access.device_by_certificate(device, None, chain, now())
    }
}

fn token(resource: &str, key: &Key, policy: Option<&str>) -> String {
    SasToken::issue(resource, key, policy, now() + DAY)
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(outcome: Result<T>, because: &str) {
    let error = outcome.expect_err("was let in");
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.to_string().contains(because), "{error}");
}

#[tokio::test]
async fn a_device_gets_in_with_either_key_and_with_nothing_else() {
    let door = door(&[]).await;
    let (primary, secondary) = door.device("d1").await;
    let (others, _) = door.device("d2").await;
    let own = "hub.example/devices/d1";

    for key in [&primary, &secondary] {
        let admitted = door.by_token("d1", &token(own, key, None)).unwrap();
        assert_eq!(&*admitted.device, "d1");
        assert_eq!(admitted.expires_at, Some(now() + DAY));
        assert!(admitted.auth_method.contains(r#""scope":"device","type":"sas""#));
        let registered = door.registry.get("d1").await.unwrap();
        assert_eq!(admitted.generation, registered.device.generation);
    }
    let wrong_key = "another key";
    assert_refused(door.by_token("d1", &token(own, &others, None)), wrong_key);
    let as_text = Key::from_bytes(primary.to_base64().as_bytes());
    assert_refused(door.by_token("d1", &token(own, &as_text, None)), wrong_key);
    assert_refused(door.by_token("d1", &token(own, &Key::generate().unwrap(), None)), wrong_key);

    let tampered = token(own, &primary, None).replace("se=18000", "se=19000");
    assert_refused(door.by_token("d1", &tampered), wrong_key);
    assert_refused(door.by_token("d1", "not a token"), "SharedAccessSignature");
    assert_refused(door.by_token("d1", ""), "SharedAccessSignature");
}

#[tokio::test]
async fn a_token_opens_the_resource_it_was_made_for() {
    let door = door(&[]).await;
    let (key, _) = door.device("d1").await;
    door.device("d10").await;
    door.device("D1").await;

    for good in ["hub.example/devices/d1", "HUB.Example/devices/d1", "hub.example/Devices/d1"] {
        door.by_token("d1", &token(good, &key, None)).unwrap();
    }
    for other in [
        "hub.example/devices/d2",
        "hub.example/devices/d",
        "other.example/devices/d1",
        "hub.example/devices/D1",
    ] {
        assert_refused(door.by_token("d1", &token(other, &key, None)), "another device or hub");
    }
    for wide in ["hub.example", "hub.example/devices"] {
        assert_refused(door.by_token("d1", &token(wide, &key, None)), "more than that device");
    }
    assert_refused(door.by_token("d10", &token("hub.example/devices/d1", &key, None)), "another device");
    assert_refused(door.by_token("D1", &token("hub.example/devices/d1", &key, None)), "another device");
}

#[tokio::test]
async fn tokens_end_five_minutes_after_their_time() {
    let door = door(&[]).await;
    let (key, _) = door.device("d1").await;
    let ends = |at| SasToken::issue("hub.example/devices/d1", &key, None, at);
    let second = Duration::from_secs(1);

    door.by_token("d1", &ends(now() - 5 * MINUTE + second)).unwrap();
    assert_refused(door.by_token("d1", &ends(now() - 5 * MINUTE)), "expired");
    assert_refused(door.by_token("d1", &ends(UNIX_EPOCH)), "expired");

    let service = |at| {
        let token = SasToken::issue(HOST, &door.policy_key("service"), Some("service"), at);
        door.access.service(&token, Right::ServiceConnect, "messages/events", now())
    };
    service(now() - 5 * MINUTE + second).unwrap();
    assert_refused(service(now() - 5 * MINUTE), "expired");
}

#[tokio::test]
async fn disabled_unknown_and_deleted_devices_stay_out() {
    let door = door(&[]).await;
    let (key, _) = door.device("d1").await;
    let own = token("hub.example/devices/d1", &key, None);
    door.by_token("d1", &own).unwrap();

    door.registry.set_enabled("d1", false, None).await.unwrap();
    assert_refused(door.by_token("d1", &own), "disabled");
    door.registry.set_enabled("d1", true, None).await.unwrap();
    door.by_token("d1", &own).unwrap();

    door.registry.delete("d1", None).await.unwrap();
    assert_refused(door.by_token("d1", &own), "no such device");
    door.device("d1").await;
    assert_refused(door.by_token("d1", &own), "another key");
    assert_refused(door.access.device_by_token("d1", Some("m"), &own, now()), "no such module");
}

#[tokio::test]
async fn a_rotated_key_stops_working_and_the_other_goes_on() {
    let door = door(&[]).await;
    let (primary, secondary) = door.device("d1").await;
    let resource = "hub.example/devices/d1";
    door.by_token("d1", &token(resource, &primary, None)).unwrap();

    door.registry.rotate_key("d1", KeySlot::Primary, None).await.unwrap();
    assert_refused(door.by_token("d1", &token(resource, &primary, None)), "another key");
    door.by_token("d1", &token(resource, &secondary, None)).unwrap();

    let now_has = door.registry.rotate_key("d1", KeySlot::Secondary, None).await.unwrap();
    assert_refused(door.by_token("d1", &token(resource, &secondary, None)), "another key");
    let Authentication::Sas { primary, .. } = now_has.device.authentication else { panic!() };
    door.by_token("d1", &token(resource, &primary, None)).unwrap();
}

/// Every built-in policy against everything there is to do in this hub.
#[tokio::test]
async fn policies_allow_what_they_say() {
    let door = door(&[]).await;
    door.device("d1").await;
    let actions = [
        ("read identities", Right::RegistryRead, "devices"),
        ("change identities", Right::RegistryWrite, "devices/d1"),
        ("read events", Right::ServiceConnect, "messages/events"),
    ];
    // Policy; which of the actions; whether it may act as a device.
    let matrix = [
        ("iothubowner", [true, true, true], true),
        ("service", [false, false, true], false),
        ("device", [false, false, false], true),
        ("registryRead", [true, false, false], false),
        ("registryReadWrite", [true, true, false], false),
    ];
    assert_eq!(door.access.policies().iter().len(), matrix.len());
    for (name, allowed, as_device) in matrix {
        let policy = door.access.policies().get(name).unwrap();
        assert_ne!(policy.primary, policy.secondary);
        for key in [&policy.primary, &policy.secondary] {
            let by_text = Key::from_bytes(key.to_base64().as_bytes());
            let credentials = [
                token(HOST, key, Some(name)),
                token("sb://hub.example", &by_text, Some(name)),
                format!("{name}:{}", key.to_base64()),
                format!("Bearer {name}:{}", key.to_base64()),
                format!("bearer {}", token(HOST, key, Some(name))),
            ];
            for credential in &credentials {
                for ((action, right, resource), allowed) in actions.iter().zip(allowed) {
                    let outcome = door.access.service(credential, *right, resource, now());
                    match outcome {
                        Ok(found) => assert!(allowed && &*found == name, "{name} may {action}"),
                        Err(error) => {
                            assert!(!allowed, "{name} may not {action}: {error}");
                            assert_eq!(error.kind(), ErrorKind::Unauthorized);
                            assert!(error.to_string().contains("does not allow"), "{error}");
                        }
                    }
                }
            }
            for resource in [HOST, "hub.example/devices", "hub.example/devices/d1"] {
                let outcome = door.by_token("d1", &token(resource, key, Some(name)));
                assert_eq!(outcome.is_ok(), as_device, "{name} as a device: {outcome:?}");
                if let Ok(admitted) = outcome {
                    assert!(admitted.auth_method.contains(r#""scope":"hub","type":"sas""#));
                }
            }
        }
    }
}

#[tokio::test]
async fn service_credentials_that_are_wrong() {
    let door = door(&[]).await;
    let (device, _) = door.device("d1").await;
    let (owner, other) = (door.policy_key("iothubowner"), door.policy_key("service"));
    let read =
        |credential: &str| door.access.service(credential, Right::ServiceConnect, "messages/events", now());

    read(&token("hub.example/messages", &owner, Some("iothubowner"))).unwrap();
    read(&token("hub.example/messages/events", &owner, Some("iothubowner"))).unwrap();
    for narrower in ["hub.example/messages/event", "hub.example/devices", "elsewhere.example"] {
        assert_refused(read(&token(narrower, &owner, Some("iothubowner"))), "another resource");
    }
    assert_refused(read(&token(HOST, &other, Some("iothubowner"))), "another key");
    assert_refused(read(&token(HOST, &owner, Some("nobody"))), "no such policy");
    assert_refused(read(&token(HOST, &owner, None)), "names no policy");
    assert_refused(read(&token(HOST, &owner, Some(""))), "names no policy");
    assert_refused(read(&token("hub.example/devices/d1", &device, None)), "names no policy");
    for text in ["", "Bearer", "Bearer ", "iothubowner", "Basic abc"] {
        assert_refused(read(text), "neither");
    }
    assert_refused(read("iothubowner:"), "base64");
    assert_refused(read("iothubowner:not base64!"), "base64");
    assert_refused(read(&format!("iothubowner:{}", other.to_base64())), "another key");
    assert_refused(read(&format!("nobody:{}", owner.to_base64())), "no such policy");
}

/// Nothing that is written for the log gives a secret away.
#[tokio::test]
async fn refusals_do_not_show_keys() {
    let door = door(&[]).await;
    let (key, _) = door.device("d1").await;
    let stranger = Key::generate().unwrap();
    let bearer = format!("service:{}", stranger.to_base64());
    let wrong = token("hub.example/devices/d1", &stranger, None);
    let signature = wrong.split("sig=").nth(1).unwrap().split('&').next().unwrap();
    let errors = [
        door.by_token("d1", &wrong).unwrap_err(),
        door.by_token("d1", &token("x", &key, None)).unwrap_err(),
        door.access.service(&bearer, Right::ServiceConnect, "messages/events", now()).unwrap_err(),
        door.access.service(&wrong, Right::ServiceConnect, "messages/events", now()).unwrap_err(),
    ];
    for error in errors {
        let shown = format!("{error} {error:?}");
        for secret in [stranger.to_base64(), key.to_base64(), signature.to_owned()] {
            assert!(!shown.contains(&secret), "{shown}");
        }
    }
    assert!(!format!("{:?}", door.access.policies()).contains(&door.policy_key("service").to_base64()));
}

#[tokio::test]
async fn mqtt5_signatures() {
    let door = door(&[]).await;
    let (primary, secondary) = door.device("d1").await;
    let ends = now() + DAY;
    let signed = b"hub.example\nd1\n\n\n1800086400000\n";
    let by = |policy: Option<&str>, signature: &[u8], ends: SystemTime| {
        door.access.device_by_signature("d1", None, policy, signed, signature, ends, now())
    };
    for key in [&primary, &secondary] {
        let admitted = by(None, &key.sign(signed), ends).unwrap();
        assert_eq!(admitted.expires_at, Some(ends));
    }
    for name in ["device", "iothubowner"] {
        by(Some(name), &door.policy_key(name).sign(signed), ends).unwrap();
    }
    by(Some(""), &primary.sign(signed), ends).unwrap();
    assert_refused(by(Some("service"), &door.policy_key("service").sign(signed), ends), "does not allow");
    assert_refused(by(Some("device"), &primary.sign(signed), ends), "another key");
    assert_refused(by(None, &door.policy_key("device").sign(signed), ends), "another key");
    assert_refused(by(None, &primary.sign(b"hub.example\nd2\n\n\n1800086400000\n"), ends), "another key");
    assert_refused(by(None, &[], ends), "another key");
    assert_refused(by(None, &primary.sign(signed)[..31], ends), "another key");
    assert_refused(by(None, &primary.sign(signed), now() - DAY), "expired");
    door.registry.set_enabled("d1", false, None).await.unwrap();
    assert_refused(by(None, &primary.sign(signed), ends), "disabled");
}

struct Ca {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for `name`, valid from a day before to `days` after [`now`].
fn params(name: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap();
    let end = if days < 0 { now() - DAY * days.unsigned_abs() as u32 } else { now() + DAY * days as u32 };
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since(now() - 30 * DAY);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since(end);
    params
}

fn ca(name: &str, signed_by: Option<&Ca>) -> Ca {
    let mut params = params(name, 100);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let certificate = match signed_by {
        Some(ca) => params.signed_by(&key, &ca.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Ca { certificate, issuer: Issuer::new(params, key) }
}

fn leaf(name: &str, days: i64, ca: Option<&Ca>) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let params = params(name, days);
    let certificate = match ca {
        Some(ca) => params.signed_by(&key, &ca.issuer),
        None => params.self_signed(&key),
    };
    certificate.unwrap().der().clone()
}

fn thumbprint(certificate: &[u8], algorithm: &'static ring::digest::Algorithm) -> String {
    let digest = ring::digest::digest(algorithm, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn self_signed_certificates_by_thumbprint() {
    let door = door(&[]).await;
    let (first, second, third) = (leaf("any", 10, None), leaf("any", 10, None), leaf("any", 10, None));
    let sha256 = thumbprint(&first, &ring::digest::SHA256);
    let sha1 = thumbprint(&second, &ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    let authentication = Authentication::SelfSigned { primary: sha256, secondary: Some(sha1) };
    let registered = door.registry.create_with("d1", authentication).await.unwrap();
    assert_eq!(registered.connection_string(), "HostName=hub.example;DeviceId=d1;x509=true");

    for chain in [[first.clone()], [second]] {
        let admitted = door.by_chain("d1", &chain).unwrap();
        assert_eq!(admitted.expires_at, None);
        assert!(admitted.auth_method.contains(r#""type":"x509""#));
    }
    assert_refused(door.by_chain("d1", std::slice::from_ref(&third)), "thumbprints");
    // Only the first certificate counts: it alone was proven.
    assert_refused(door.by_chain("d1", &[third, first.clone()]), "thumbprints");
    assert_refused(door.by_chain("d1", &[]), "no certificate");
    assert_refused(door.by_chain("d2", std::slice::from_ref(&first)), "no such device");
    door.registry.set_enabled("d1", false, None).await.unwrap();
    assert_refused(door.by_chain("d1", &[first]), "disabled");
}

#[tokio::test]
async fn expired_certificates_stay_out_whatever_their_thumbprint() {
    let door = door(&[]).await;
    let old = leaf("any", -1, None);
    let primary = thumbprint(&old, &ring::digest::SHA256);
    let authentication = Authentication::SelfSigned { primary, secondary: None };
    door.registry.create_with("d1", authentication).await.unwrap();
    assert_refused(door.by_chain("d1", &[old]), "not valid at this time");
}

#[tokio::test]
async fn certificates_of_a_ca() {
    let root = ca("root", None);
    let below = ca("below", Some(&root));
    let stranger = ca("root", None);
    let door = door(&[root.certificate.der().clone()]).await;
    door.registry.create_with("d1", Authentication::CertificateAuthority).await.unwrap();

    door.by_chain("d1", &[leaf("d1", 10, Some(&root))]).unwrap();
    let between = below.certificate.der().clone();
    door.by_chain("d1", &[leaf("d1", 10, Some(&below)), between.clone()]).unwrap();
    let with_root = [leaf("d1", 10, Some(&below)), between, root.certificate.der().clone()];
    door.by_chain("d1", &with_root).unwrap();

    let no_way = "does not lead to a CA";
    assert_refused(door.by_chain("d1", &[leaf("d1", 10, Some(&below))]), no_way);
    assert_refused(door.by_chain("d1", &[leaf("d1", 10, Some(&stranger))]), no_way);
    assert_refused(door.by_chain("d1", &[leaf("d1", 10, None)]), no_way);
    assert_refused(door.by_chain("d1", &[leaf("d1", -1, Some(&root))]), no_way);
    assert_refused(door.by_chain("d1", &[CertificateDer::from(vec![1, 2, 3])]), "cannot be read");
    assert_refused(door.by_chain("d1", &[]), "no certificate");
    for other in ["d2", "D1", "d1 "] {
        assert_refused(door.by_chain("d1", &[leaf(other, 10, Some(&root))]), "common name");
    }
    // A leaf that is no CA signs for nobody.
    let key = KeyPair::generate().unwrap();
    let no_ca = params("d9", 10);
    let no_ca_certificate = no_ca.signed_by(&key, &root.issuer).unwrap();
    let forged = Ca { certificate: no_ca_certificate.clone(), issuer: Issuer::new(no_ca, key) };
    let chain = [leaf("d1", 10, Some(&forged)), no_ca_certificate.der().clone()];
    assert_refused(door.by_chain("d1", &chain), no_way);
}

#[tokio::test]
async fn a_module_gets_in_by_what_is_its_own() {
    let root = ca("root", None);
    let door = door(&[root.certificate.der().clone()]).await;
    let (device_key, _) = door.device("d1").await;
    door.device("d2").await;
    let keys =
        || Authentication::Sas { primary: Key::generate().unwrap(), secondary: Key::generate().unwrap() };
    let created = door.registry.create_module("d1", "m", keys(), None).await.unwrap();
    door.registry.create_module("d1", "n", keys(), None).await.unwrap();
    let Authentication::Sas { primary: key, .. } = &created.authentication else { panic!() };
    let as_module = |device: &str, module: &str, token: &str| {
        door.access.device_by_token(device, Some(module), token, now())
    };
    let own = "hub.example/devices/d1/modules/m";

    let admitted = as_module("d1", "m", &token(own, key, None)).unwrap();
    assert_eq!((&*admitted.device, admitted.module.as_deref()), ("d1", Some("m")));
    assert_eq!(admitted.generation, created.generation);
    assert!(admitted.auth_method.contains(r#""scope":"module","type":"sas""#));
    let policy = token("hub.example/devices/d1", &door.policy_key("device"), Some("device"));
    assert_eq!(as_module("d1", "m", &policy).unwrap().module.as_deref(), Some("m"));

    assert_refused(as_module("d1", "n", &token(own, key, None)), "another device");
    assert_refused(
        as_module("d1", "n", &token("hub.example/devices/d1/modules/n", key, None)),
        "another key",
    );
    assert_refused(
        as_module("d1", "o", &token("hub.example/devices/d1/modules/o", key, None)),
        "no such module",
    );
    assert_refused(
        as_module("d2", "m", &token("hub.example/devices/d2/modules/m", key, None)),
        "no such module",
    );
    assert_refused(as_module("d1", "m", &token(own, &device_key, None)), "another key");
    for wide in ["hub.example", "hub.example/devices/d1", "hub.example/devices/d1/modules"] {
        assert_refused(as_module("d1", "m", &token(wide, key, None)), "more than that device");
    }
    assert_refused(door.by_token("d1", &token(own, key, None)), "another device");
    assert_refused(door.by_token("d1", &token("hub.example/devices/d1", key, None)), "another key");

    let by_chain = |module: &str, name: &str| {
        let chain = [leaf(name, 10, Some(&root))];
        door.access.device_by_certificate("d1", Some(module), &chain, now())
    };
    let with_certificate = Authentication::CertificateAuthority;
    door.registry.create_module("d1", "signed", with_certificate, None).await.unwrap();
    let admitted = by_chain("signed", "d1/signed").unwrap();
    assert!(admitted.auth_method.contains(r#""scope":"module","type":"x509""#));
    for other in ["d1", "signed", "d1/signed/x", "d2/signed", "d1/m"] {
        assert_refused(by_chain("signed", other), "common name");
    }
    door.registry.create_module("d1", "locked", Authentication::None, None).await.unwrap();
    let locked = token("hub.example/devices/d1/modules/locked", key, None);
    assert_refused(as_module("d1", "locked", &locked), "no way");
    assert_refused(by_chain("locked", "d1/locked"), "no way");

    door.registry.set_enabled("d1", false, None).await.unwrap();
    assert_refused(as_module("d1", "m", &token(own, key, None)), "disabled");
}

#[tokio::test]
async fn one_way_in_does_not_open_another() {
    let root = ca("root", None);
    let door = door(&[root.certificate.der().clone()]).await;
    door.device("keys").await;
    door.registry.create_with("signed", Authentication::CertificateAuthority).await.unwrap();
    let certificate = leaf("keys", 10, Some(&root));
    assert_refused(door.by_chain("keys", &[certificate]), "by a key");
    let made_up = token("hub.example/devices/signed", &Key::generate().unwrap(), None);
    assert_refused(door.by_token("signed", &made_up), "by a certificate");
    // A policy that may act as any device may act as this one, too.
    let by_policy = token("hub.example/devices/signed", &door.policy_key("device"), Some("device"));
    door.by_token("signed", &by_policy).unwrap();
}

#[tokio::test]
async fn policies_stay_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { folder: Some(folder.path().to_owned()), ..StoreOptions::default() };
    let mut keys = Vec::new();
    for _ in 0..2 {
        let store = Embedded::open(&options).unwrap();
        let policies = Policies::load(&*store).await.unwrap();
        keys.push(policies.get("iothubowner").unwrap().primary.clone());
        assert_eq!(policies.get("nobody").unwrap_err().kind(), ErrorKind::NotFound);
        store.close().await.unwrap();
    }
    assert_eq!(keys[0], keys[1]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.path().join("hub.sqlite")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
