//! `/v1/devices`, and who may use it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod http_support;

use http_support::{Fixture, parts, refusal, token};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use whimbrel::auth::{ConnectionString, SasToken};

#[tokio::test]
async fn a_device_is_created_shown_changed_and_deleted() {
    let hub = Fixture::in_memory().await;
    let created = hub.request(Method::PUT, "/v1/devices/d1").send().await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED);
    let etag = created.headers()["etag"].to_str().unwrap().to_owned();
    let created: Value = created.json().await.unwrap();
    assert_eq!(created["id"], "d1");
    assert_eq!(created["enabled"], true);
    assert_eq!(created["authentication"], json!({"type": "sas"}));
    let secret = created["connection_string"].as_str().unwrap();
    let parsed: ConnectionString = secret.parse().unwrap();
    assert_eq!((parsed.host_name.as_str(), parsed.device_id.as_deref()), ("localhost", Some("d1")));

    let again = hub.request(Method::PUT, "/v1/devices/d1").send().await.unwrap();
    assert_eq!(refusal(again).await, (StatusCode::CONFLICT, "CONFLICT".to_owned(), 304));

    let shown = hub.get("/v1/devices/d1").await;
    assert_eq!(shown.get("connection_string"), None, "a secret is shown only where it was asked for");
    assert_eq!(hub.get("/v1/devices/d1/connection-string").await["connection_string"], secret);

    let disable = || hub.request(Method::PATCH, "/v1/devices/d1").json(&json!({"enabled": false}));
    let changed = disable().header("if-match", &etag).send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(changed.headers()["etag"].to_str().unwrap(), etag);
    assert_eq!(changed.json::<Value>().await.unwrap()["enabled"], false);
    let stale = disable().header("if-match", &etag).send().await.unwrap();
    assert_eq!(refusal(stale).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(disable().header("if-match", "*").send().await.unwrap().status(), StatusCode::OK);

    let deleted = hub.request(Method::DELETE, "/v1/devices/d1").send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    for (method, path) in [
        (Method::GET, "/v1/devices/d1"),
        (Method::GET, "/v1/devices/d1/connection-string"),
        (Method::DELETE, "/v1/devices/d1"),
        (Method::POST, "/v1/devices/d1/keys/primary/rotate"),
    ] {
        let answer = hub.request(method, path).send().await.unwrap();
        assert_eq!(refusal(answer).await, (StatusCode::NOT_FOUND, "NOT_FOUND".to_owned(), 306), "{path}");
    }
}

#[tokio::test]
async fn ids_with_odd_characters_travel_escaped() {
    let hub = Fixture::in_memory().await;
    for (id, path) in
        [("a#b?c", "/v1/devices/a%23b%3Fc"), ("100%", "/v1/devices/100%25"), ("x:y.z", "/v1/devices/x:y.z")]
    {
        assert_eq!(
            hub.request(Method::PUT, path).send().await.unwrap().status(),
            StatusCode::CREATED,
            "{id}"
        );
        assert_eq!(hub.get(path).await["id"], id);
    }
    let answer = hub.request(Method::PUT, "/v1/devices/a%20b").send().await.unwrap();
    assert_eq!(refusal(answer).await.0, StatusCode::BAD_REQUEST, "a space is not allowed in an id");
}

#[tokio::test]
async fn rotating_changes_one_key_alone() {
    let hub = Fixture::in_memory().await;
    hub.request(Method::PUT, "/v1/devices/d").send().await.unwrap();
    let secret = || async { hub.get("/v1/devices/d/connection-string").await["connection_string"].clone() };
    let before = secret().await;
    let rotate = |slot| hub.request(Method::POST, &format!("/v1/devices/d/keys/{slot}/rotate"));
    assert_eq!(rotate("secondary").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(secret().await, before, "the connection string holds the primary key");
    let rotated: Value = rotate("primary").send().await.unwrap().json().await.unwrap();
    assert_ne!(rotated["connection_string"], before);
    assert_eq!(rotated["connection_string"], secret().await);
    assert_eq!(refusal(rotate("tertiary").send().await.unwrap()).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn certificates_instead_of_keys() {
    let hub = Fixture::in_memory().await;
    let thumbprint = "0123456789abcdef0123456789abcdef01234567";
    let body = json!({"authentication": {"type": "selfSigned", "primary_thumbprint": thumbprint}});
    let created = hub.request(Method::PUT, "/v1/devices/x").json(&body).send().await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED);
    let shown = hub.get("/v1/devices/x").await;
    assert_eq!(shown["authentication"]["type"], "selfSigned");
    assert!(shown["authentication"]["primary_thumbprint"].as_str().unwrap().eq_ignore_ascii_case(thumbprint));
    let rotate = hub.request(Method::POST, "/v1/devices/x/keys/primary/rotate").send().await.unwrap();
    assert_eq!(refusal(rotate).await.0, StatusCode::BAD_REQUEST);
    let body = json!({"authentication": {"type": "certificateAuthority"}});
    let created = hub.request(Method::PUT, "/v1/devices/y").json(&body).send().await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn lists_come_in_pages_in_order_of_id() {
    let hub = Fixture::in_memory().await;
    for id in ["c", "a", "e", "b", "d"] {
        hub.hub.registry().create(id).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut path = "/v1/devices?limit=2".to_owned();
    loop {
        let page = hub.get(&path).await;
        let ids = page["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["id"].as_str().unwrap().to_owned());
        seen.push(ids.collect::<Vec<_>>());
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/devices?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
    for query in ["limit=0", "limit=1001", "limit=x", "size=3"] {
        let answer = hub.request(Method::GET, &format!("/v1/devices?{query}")).send().await.unwrap();
        assert_eq!(refusal(answer).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn every_route_refuses_strangers_and_policies_without_the_right() {
    let hub = Fixture::in_memory().await;
    hub.hub.registry().create("d").await.unwrap();
    let device_secret = hub.hub.registry().get("d").await.unwrap().connection_string();
    let device: ConnectionString = device_secret.parse().unwrap();
    let whimbrel::auth::Credential::Key { key: device_key, .. } = device.credential else { panic!() };
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    let policy = |name| hub.hub.access().policies().get(name).unwrap().connection_string("localhost");
    let (_, _, owner_key) = parts(hub.hub.service_connection_string());

    let routes = [
        (Method::GET, "/v1/hub", "service"),
        (Method::GET, "/v1/devices", "registryRead"),
        (Method::GET, "/v1/devices/d", "registryRead"),
        (Method::PUT, "/v1/devices/new", "registryReadWrite"),
        (Method::PATCH, "/v1/devices/d", "registryReadWrite"),
        (Method::GET, "/v1/devices/d/connection-string", "registryReadWrite"),
        (Method::POST, "/v1/devices/d/keys/primary/rotate", "registryReadWrite"),
        (Method::GET, "/v1/events", "service"),
        (Method::GET, "/v1/partitions", "service"),
        (Method::GET, "/v1/groups", "service"),
        (Method::PUT, "/v1/groups/g", "service"),
        (Method::GET, "/v1/groups/$Default/checkpoints", "service"),
        (Method::PUT, "/v1/groups/$Default/checkpoints/0", "service"),
        (Method::GET, "/metrics", "service"),
        (Method::DELETE, "/v1/devices/d", "registryReadWrite"),
    ];
    for (method, path, able) in routes {
        let ask = |authorization: Option<String>| {
            let request = hub.bare(method.clone(), path).json(&json!({"enabled": true}));
            match authorization {
                Some(text) => request.header("authorization", text).send(),
                None => request.send(),
            }
        };
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let other = whimbrel::auth::Key::generate().unwrap();
        for (what, authorization) in [
            ("nothing", None),
            ("no token", Some("Basic YTpi".to_owned())),
            ("garbage", Some("SharedAccessSignature sr=localhost".to_owned())),
            ("another key", Some(SasToken::issue("localhost", &other, Some("iothubowner"), later))),
            ("another hub", Some(SasToken::issue("elsewhere", &owner_key, Some("iothubowner"), later))),
            ("expired", Some(SasToken::issue("localhost", &owner_key, Some("iothubowner"), past))),
            ("unknown policy", Some(SasToken::issue("localhost", &owner_key, Some("nobody"), later))),
            ("a device's token", Some(SasToken::issue("localhost/devices/d", &device_key, None, later))),
            ("another bearer key", Some(format!("Bearer iothubowner:{}", other.to_base64()))),
            ("a policy without the right", Some(token(&policy("device")))),
        ] {
            let answer = ask(authorization).await.unwrap();
            assert!(answer.headers().contains_key("www-authenticate"), "{method} {path} with {what}");
            let refused = refusal(answer).await;
            assert_eq!(
                refused,
                (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".to_owned(), 401),
                "{method} {path} with {what}"
            );
        }
        let status = ask(Some(token(&policy(able)))).await.unwrap().status();
        assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {path} with {able}");
    }
    let bearer = format!("Bearer iothubowner:{}", owner_key.to_base64());
    let answer = hub.bare(Method::GET, "/v1/devices").header("authorization", bearer).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_is_not_there_or_malformed_is_answered_in_json() {
    let hub = Fixture::in_memory().await;
    hub.hub.registry().create("d").await.unwrap();
    let answer = |method, path, body: &'static str| hub.request(method, path).body(body).send();
    let status = |response| async { refusal(response).await.0 };
    let nowhere = answer(Method::GET, "/v1/nowhere", "").await.unwrap();
    assert_eq!(status(nowhere).await, StatusCode::NOT_FOUND);
    let method = answer(Method::POST, "/v1/devices/d", "").await.unwrap();
    assert_eq!(status(method).await, StatusCode::METHOD_NOT_ALLOWED);
    for body in ["", "{", "[]", r#"{"enabled":1}"#, r#"{"enabled":true,"extra":1}"#] {
        let patched = answer(Method::PATCH, "/v1/devices/d", body).await.unwrap();
        assert_eq!(status(patched).await, StatusCode::BAD_REQUEST, "{body}");
    }
    let no_upgrade = hub.bare(Method::GET, "/$iothub/websocket").send().await.unwrap();
    assert_eq!(status(no_upgrade).await, StatusCode::BAD_REQUEST);
    let large = hub.request(Method::PATCH, "/v1/devices/d").body(vec![b' '; 65 * 1024]).send().await.unwrap();
    assert_eq!(status(large).await, StatusCode::PAYLOAD_TOO_LARGE);
}
