//! Who may do what: every credential of the contract's `security.md` against every endpoint, and against connecting by
//! MQTT.
//!
//! Each endpoint belongs to a class, each credential names the classes it opens; all others are refused. The requests are
//! made so that being allowed changes nothing, and each says how it is then answered.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{Method, StatusCode};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use whimbrel::auth::{Key, SasToken};
use whimbrel_hub::registry::Authentication;

use crate::{
    http_support::{Fixture, key_of, number, soon},
    modules::connect,
};

/// What a request is about, and which right it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Acting as the device `d`.
    Device,
    /// Acting as the module `m` of `d`.
    Module,
    /// Reading identities: all, `d` alone, figures.
    ReadAll,
    ReadOne,
    ReadFigures,
    /// Changing identities: any, `d` alone.
    WriteAny,
    WriteOne,
    /// Services: the hub itself, events, commands of `d`, feedback, dead letters.
    Hub,
    Events,
    Commands,
    Feedback,
    DeadLetters,
    /// Anybody.
    Open,
}

use Class::*;

/// Method, pattern of the path, the path itself, class, how it is answered to who may.
const ENDPOINTS: &[(&str, &str, &str, Class, u16)] = &[
    // The contract's.
    ("POST", "/devices/{id}/messages/events", "/devices/d/messages/events", Device, 204),
    ("GET", "/devices/{id}/messages/devicebound", "/devices/d/messages/devicebound", Device, 204),
    ("DELETE", "/devices/{id}/messages/devicebound/{lock}", "/devices/d/messages/devicebound/x", Device, 412),
    (
        "DELETE",
        "/devices/{id}/messages/devicebound/{lock}",
        "/devices/d/messages/devicebound/x?reject",
        Device,
        412,
    ),
    (
        "POST",
        "/devices/{id}/messages/devicebound/{lock}/abandon",
        "/devices/d/messages/devicebound/x/abandon",
        Device,
        412,
    ),
    (
        "POST",
        "/devices/{id}/modules/{module}/messages/events",
        "/devices/d/modules/m/messages/events",
        Module,
        204,
    ),
    ("GET", "/messages/serviceBound/feedback", "/messages/serviceBound/feedback", Feedback, 204),
    ("DELETE", "/messages/serviceBound/feedback/{lock}", "/messages/serviceBound/feedback/x", Feedback, 412),
    (
        "POST",
        "/messages/serviceBound/feedback/{lock}/abandon",
        "/messages/serviceBound/feedback/x/abandon",
        Feedback,
        412,
    ),
    ("DELETE", "/devices/{id}/commands", "/devices/d/commands", Commands, 200),
    ("GET", "/statistics/service", "/statistics/service", ReadFigures, 200),
    ("GET", "/statistics/devices", "/statistics/devices", ReadFigures, 200),
    ("GET", "/devices", "/devices", ReadAll, 200),
    ("POST", "/devices", "/devices", WriteAny, 400),
    ("POST", "/devices/query", "/devices/query", ReadAll, 400),
    ("GET", "/devices/{id}", "/devices/d", ReadOne, 200),
    ("PUT", "/devices/{id}", "/devices/d", WriteOne, 412),
    ("DELETE", "/devices/{id}", "/devices/d", WriteOne, 412),
    ("GET", "/devices/{id}/modules", "/devices/d/modules", ReadOne, 200),
    ("GET", "/devices/{id}/modules/{module}", "/devices/d/modules/m", ReadOne, 200),
    ("PUT", "/devices/{id}/modules/{module}", "/devices/d/modules/m", WriteOne, 412),
    ("DELETE", "/devices/{id}/modules/{module}", "/devices/d/modules/m", WriteOne, 412),
    // Our own.
    ("GET", "/v1/hub", "/v1/hub", Hub, 200),
    ("GET", "/v1/devices", "/v1/devices", ReadAll, 200),
    ("GET", "/v1/devices/{id}", "/v1/devices/d", ReadOne, 200),
    ("PUT", "/v1/devices/{id}", "/v1/devices/d", WriteOne, 409),
    ("PATCH", "/v1/devices/{id}", "/v1/devices/d", WriteOne, 400),
    ("DELETE", "/v1/devices/{id}", "/v1/devices/d", WriteOne, 412),
    ("GET", "/v1/devices/{id}/connection-string", "/v1/devices/d/connection-string", WriteOne, 200),
    ("POST", "/v1/devices/{id}/keys/{slot}/rotate", "/v1/devices/d/keys/primary/rotate", WriteOne, 412),
    ("POST", "/v1/devices/{id}/commands", "/v1/devices/d/commands?ack=maybe", Commands, 400),
    ("DELETE", "/v1/devices/{id}/commands", "/v1/devices/d/commands", Commands, 200),
    ("GET", "/v1/devices/{id}/commands/{message_id}", "/v1/devices/d/commands/x?wait=1s", Commands, 404),
    ("GET", "/v1/dead-letters", "/v1/dead-letters", DeadLetters, 200),
    ("GET", "/v1/dead-letters", "/v1/dead-letters?device=d", Commands, 200),
    ("GET", "/v1/dead-letters/{id}", "/v1/dead-letters/1", DeadLetters, 404),
    ("POST", "/v1/dead-letters/{id}/resend", "/v1/dead-letters/1/resend", DeadLetters, 404),
    ("GET", "/v1/feedback", "/v1/feedback", Feedback, 204),
    ("DELETE", "/v1/feedback/{lock}", "/v1/feedback/x", Feedback, 412),
    ("POST", "/v1/feedback/{lock}/abandon", "/v1/feedback/x/abandon", Feedback, 412),
    ("GET", "/v1/events", "/v1/events?limit=0", Events, 200),
    ("GET", "/v1/partitions", "/v1/partitions", Events, 200),
    ("GET", "/v1/groups", "/v1/groups", Events, 200),
    ("PUT", "/v1/groups/{group}", "/v1/groups/$Default", Events, 400),
    ("GET", "/v1/groups/{group}/checkpoints", "/v1/groups/$Default/checkpoints", Events, 200),
    ("PUT", "/v1/groups/{group}/checkpoints/{partition}", "/v1/groups/$Default/checkpoints/0", Events, 400),
    ("GET", "/v1/groups/{group}/ownerships", "/v1/groups/$Default/ownerships", Events, 200),
    ("PUT", "/v1/groups/{group}/ownerships/{partition}", "/v1/groups/$Default/ownerships/0", Events, 400),
    ("GET", "/metrics", "/metrics", Hub, 200),
    ("GET", "/v1/health", "/v1/health", Open, 200),
    ("GET", "/v1/health/live", "/v1/health/live", Open, 200),
    ("GET", "/v1/health/ready", "/v1/health/ready", Open, 200),
    ("GET", "/v1/openapi.json", "/v1/openapi.json", Open, 200),
    // Who is at the other end is asked later, in the protocol that is spoken inside.
    ("GET", "/$iothub/websocket", "/$iothub/websocket", Open, 400),
    ("GET", "/$servicebus/websocket", "/$servicebus/websocket", Open, 400),
];

/// A credential, and the classes it opens beside `Open`.
struct Credential {
    name: &'static str,
    authorization: Option<String>,
    opens: &'static [Class],
    /// What there is to say when it is refused.
    shows: Shows,
}

/// What a credential shows of its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// The key of a policy, for the whole hub: only the right can be missing.
    Policy,
    /// The key of a policy, for a part: the right or the resource can be missing.
    PolicyForAPart,
    /// Nothing that services are known by.
    Nothing,
}

async fn credentials(hub: &Fixture) -> Vec<Credential> {
    let policy = |name: &str| hub.hub.access().policies().get(name).unwrap().primary.clone();
    let registry = hub.hub.registry();
    let device = key_of(&registry.get("d").await.unwrap().device.authentication);
    let other = key_of(&registry.get("other").await.unwrap().device.authentication);
    let module = key_of(&registry.module("d", "m").await.unwrap().authentication);
    let stranger = Key::generate().unwrap();
    let past = SystemTime::now() - Duration::from_secs(600);
    let token = |resource: &str, key: &Key, policy: Option<&str>, until| {
        Some(SasToken::issue(resource, key, policy, until))
    };
    let of_policy = |name: &'static str, resource: &str| token(resource, &policy(name), Some(name), soon());
    let mut rows = Vec::new();
    let mut row = |name, authorization, shows, opens| {
        rows.push(Credential { name, authorization, opens, shows });
    };
    const SERVICES: &[Class] =
        &[ReadAll, ReadOne, ReadFigures, WriteAny, WriteOne, Hub, Events, Commands, Feedback, DeadLetters];
    const ALL: &[Class] = &[
        Device,
        Module,
        ReadAll,
        ReadOne,
        ReadFigures,
        WriteAny,
        WriteOne,
        Hub,
        Events,
        Commands,
        Feedback,
        DeadLetters,
    ];
    // Policies for the whole hub.
    row("iothubowner", of_policy("iothubowner", "localhost"), Shows::Policy, ALL);
    row(
        "service",
        of_policy("service", "localhost"),
        Shows::Policy,
        &[Hub, Events, Commands, Feedback, DeadLetters],
    );
    row("device", of_policy("device", "localhost"), Shows::Policy, &[Device, Module]);
    row(
        "registryRead",
        of_policy("registryRead", "localhost"),
        Shows::Policy,
        &[ReadAll, ReadOne, ReadFigures],
    );
    row(
        "registryReadWrite",
        of_policy("registryReadWrite", "localhost"),
        Shows::Policy,
        &[ReadAll, ReadOne, ReadFigures, WriteAny, WriteOne],
    );
    // Policies for a part of it.
    row(
        "iothubowner for devices",
        of_policy("iothubowner", "localhost/devices"),
        Shows::PolicyForAPart,
        &[Device, Module, ReadAll, ReadOne, WriteAny, WriteOne, Commands],
    );
    row(
        "iothubowner for d",
        of_policy("iothubowner", "localhost/devices/d"),
        Shows::PolicyForAPart,
        &[Device, Module, ReadOne, WriteOne, Commands],
    );
    row(
        "iothubowner for another device",
        of_policy("iothubowner", "localhost/devices/other"),
        Shows::PolicyForAPart,
        &[],
    );
    row(
        "service for events",
        of_policy("service", "localhost/messages/events"),
        Shows::PolicyForAPart,
        &[Events],
    );
    row(
        "service for feedback",
        of_policy("service", "localhost/messages/serviceBound/feedback"),
        Shows::PolicyForAPart,
        &[Feedback],
    );
    row(
        "service for messages",
        of_policy("service", "localhost/messages"),
        Shows::PolicyForAPart,
        &[Events, Feedback, DeadLetters],
    );
    row(
        "registryRead for d",
        of_policy("registryRead", "localhost/devices/d"),
        Shows::PolicyForAPart,
        &[ReadOne],
    );
    row("device for d", of_policy("device", "localhost/devices/d"), Shows::PolicyForAPart, &[Device, Module]);
    row(
        "device for the module",
        of_policy("device", "localhost/devices/d/modules/m"),
        Shows::PolicyForAPart,
        &[Module],
    );
    row(
        "device for another device",
        of_policy("device", "localhost/devices/other"),
        Shows::PolicyForAPart,
        &[],
    );
    // Keys of devices and modules.
    row("device key", token("localhost/devices/d", &device, None, soon()), Shows::Nothing, &[Device]);
    row("device key for more", token("localhost/devices", &device, None, soon()), Shows::Nothing, &[]);
    row("device key for the hub", token("localhost", &device, None, soon()), Shows::Nothing, &[]);
    row(
        "device key for the module",
        token("localhost/devices/d/modules/m", &device, None, soon()),
        Shows::Nothing,
        &[],
    );
    row("key of another device", token("localhost/devices/other", &other, None, soon()), Shows::Nothing, &[]);
    row(
        "key of another device for d",
        token("localhost/devices/d", &other, None, soon()),
        Shows::Nothing,
        &[],
    );
    row(
        "module key",
        token("localhost/devices/d/modules/m", &module, None, soon()),
        Shows::Nothing,
        &[Module],
    );
    row(
        "module key for its device",
        token("localhost/devices/d", &module, None, soon()),
        Shows::Nothing,
        &[],
    );
    row(
        "device key as a policy",
        token("localhost", &device, Some("iothubowner"), soon()),
        Shows::Nothing,
        &[],
    );
    // What is wrong in itself.
    let owner = policy("iothubowner");
    row("iothubowner, expired", token("localhost", &owner, Some("iothubowner"), past), Shows::Nothing, &[]);
    row("device key, expired", token("localhost/devices/d", &device, None, past), Shows::Nothing, &[]);
    row(
        "iothubowner of another hub",
        token("elsewhere", &owner, Some("iothubowner"), soon()),
        Shows::Nothing,
        &[],
    );
    row(
        "device key of another hub",
        token("elsewhere/devices/d", &device, None, soon()),
        Shows::Nothing,
        &[],
    );
    row("a made-up key", token("localhost", &stranger, Some("iothubowner"), soon()), Shows::Nothing, &[]);
    row("a made-up policy", token("localhost", &owner, Some("nobody"), soon()), Shows::Nothing, &[]);
    row("no policy", token("localhost", &owner, None, soon()), Shows::Nothing, &[]);
    row("no token", Some("SharedAccessSignature".into()), Shows::Nothing, &[]);
    row("another scheme", Some("Basic YTpi".into()), Shows::Nothing, &[]);
    row("nothing", None, Shows::Nothing, &[]);
    // Our own form: the key itself.
    row(
        "bearer iothubowner",
        Some(format!("Bearer iothubowner:{}", owner.to_base64())),
        Shows::Policy,
        SERVICES,
    );
    row(
        "bearer, a made-up key",
        Some(format!("Bearer iothubowner:{}", stranger.to_base64())),
        Shows::Nothing,
        &[],
    );
    rows
}

async fn ground() -> Fixture {
    let hub = Fixture::in_memory().await;
    for id in ["d", "other"] {
        hub.hub.registry().create(id).await.unwrap();
    }
    let keys = Authentication::Sas { primary: Key::generate().unwrap(), secondary: Key::generate().unwrap() };
    hub.hub.registry().create_module("d", "m", keys, None).await.unwrap();
    hub
}

#[tokio::test]
async fn every_credential_against_every_endpoint() {
    let hub = ground().await;
    let (mut allowed, mut refused) = (0, 0);
    for credential in credentials(&hub).await {
        for (method, _, path, class, status) in ENDPOINTS {
            // A condition that never holds, and a body that changes nothing.
            let mut request =
                hub.bare(method.parse::<Method>().unwrap(), path).header("if-match", "\"stale\"");
            if *method != "GET" {
                request = request.body("{}");
            }
            if let Some(text) = &credential.authorization {
                request = request.header("authorization", text);
            }
            let answer = request.send().await.unwrap();
            let what = format!("{} against {method} {path}", credential.name);
            assert_eq!(answer.headers()["x-ms-request-id"].len(), 36, "{what}");
            if *class == Open || credential.opens.contains(class) {
                assert_eq!(answer.status().as_u16(), *status, "{what} is allowed");
                allowed += 1;
                continue;
            }
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{what} is refused");
            assert!(answer.headers().contains_key("www-authenticate"), "{what}");
            refused += 1;
            if !path.starts_with("/v1") && *path != "/metrics" {
                let acts = matches!(class, Device | Module);
                let number = number(answer).await;
                match credential.shows {
                    Shows::Policy if !acts => assert_eq!(number, 401_002, "{what}"),
                    Shows::PolicyForAPart if !acts => assert!(matches!(number, 401_002 | 401_003), "{what}"),
                    _ => assert_eq!(number, 401_003, "{what}"),
                }
            }
        }
    }
    assert!(allowed > 300 && refused > 1_000, "{allowed} allowed, {refused} refused");
}

#[tokio::test]
async fn every_credential_against_connecting_by_mqtt() {
    let hub = ground().await;
    for credential in credentials(&hub).await {
        let password = credential.authorization.as_deref().unwrap_or_default();
        for (client_id, user_name, class) in
            [("d", "localhost/d/?api-version=1", Device), ("d/m", "localhost/d/m/?api-version=1", Module)]
        {
            let (_, code) = connect(&hub, client_id, user_name, password).await;
            let expected = if credential.opens.contains(&class) { 0 } else { 5 };
            assert_eq!(code, expected, "{} as {client_id}", credential.name);
        }
    }
}

#[tokio::test]
async fn every_pair_stays_as_it_is_for_a_disabled_device() {
    let hub = ground().await;
    hub.hub.registry().set_enabled("d", false, None).await.unwrap();
    for credential in credentials(&hub).await {
        for (method, _, path, class, _) in ENDPOINTS.iter().filter(|row| matches!(row.3, Device | Module)) {
            let request = hub.bare(method.parse::<Method>().unwrap(), path).body("{}");
            let request = match &credential.authorization {
                Some(text) => request.header("authorization", text),
                None => request,
            };
            let answer = request.send().await.unwrap();
            assert_eq!(number(answer).await, 401_003, "{} {method} {path} {class:?}", credential.name);
        }
    }
}

#[tokio::test]
async fn a_certificate_opens_its_own_device_and_nothing_else() {
    let hub = ground().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    let print = ring::digest::digest(&ring::digest::SHA256, certificate.der());
    let primary: String = print.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = Authentication::SelfSigned { primary, secondary: None };
    hub.hub.registry().create_with("x", signed.clone()).await.unwrap();
    hub.hub.registry().create_module("x", "m", signed, None).await.unwrap();

    let mut roots = rustls::RootCertStore::empty();
    let ca = hub.hub.ca_certificate().unwrap().pem;
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap();
    let base = format!("https://localhost:{}", hub.hub.https_addr().unwrap().port());
    for (method, path, expected) in [
        (Method::POST, "/devices/x/messages/events", 204),
        (Method::GET, "/devices/x/messages/devicebound", 204),
        (Method::POST, "/devices/x/modules/m/messages/events", 204),
        (Method::POST, "/devices/d/messages/events", 401),
        (Method::GET, "/devices/other/messages/devicebound", 401),
        (Method::GET, "/devices/x", 401),
        (Method::GET, "/v1/devices", 401),
        (Method::DELETE, "/devices/x/commands", 401),
    ] {
        let answer = client.request(method.clone(), format!("{base}{path}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{method} {path}");
    }
    let plain = hub.bare(Method::POST, "/devices/x/messages/events").send().await.unwrap();
    assert_eq!(number(plain).await, 401_003, "without TLS there is no certificate");
}

/// The patterns of our own routes, for the document.
pub(crate) fn own_routes() -> BTreeSet<(String, String)> {
    ENDPOINTS
        .iter()
        .filter(|(_, pattern, ..)| *pattern != "/v1/openapi.json")
        .filter_map(|(method, pattern, ..)| {
            Some((method.to_lowercase(), pattern.strip_prefix("/v1")?.to_owned()))
        })
        .collect()
}
