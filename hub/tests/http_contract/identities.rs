//! The registry as the contract has it.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use whimbrel::{Message, auth::Key};

use crate::http_support::{Fixture, number};

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}

fn put(hub: &Fixture, id: &str, body: Value) -> RequestBuilder {
    hub.request(Method::PUT, &format!("/devices/{id}?api-version=2021-04-12")).json(&body)
}

async fn created(hub: &Fixture, id: &str, body: Value) -> Value {
    let answer = sent(put(hub, id, body)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
    let identity: Value = answer.json().await.unwrap();
    assert_eq!(etag, format!("\"{}\"", identity["etag"].as_str().unwrap()));
    identity
}

#[tokio::test]
async fn an_identity_has_every_member_of_the_contract() {
    let hub = Fixture::in_memory().await;
    let mut identity = created(&hub, "d1", json!({"deviceId": "d1"})).await;
    let object = identity.as_object_mut().unwrap();
    for name in ["generationId", "etag"] {
        assert!(!object.remove(name).unwrap().as_str().unwrap().is_empty());
    }
    let keys = object["authentication"]["symmetricKey"].as_object_mut().unwrap();
    for name in ["primaryKey", "secondaryKey"] {
        Key::from_base64(keys.remove(name).unwrap().as_str().unwrap()).unwrap();
    }
    assert_eq!(
        identity,
        json!({
            "deviceId": "d1",
            "connectionState": "Disconnected",
            "status": "enabled",
            "statusReason": null,
            "connectionStateUpdatedTime": "0001-01-01T00:00:00",
            "statusUpdatedTime": "0001-01-01T00:00:00",
            "lastActivityTime": "0001-01-01T00:00:00",
            "cloudToDeviceMessageCount": 0,
            "authentication": {
                "symmetricKey": {},
                "x509Thumbprint": {"primaryThumbprint": null, "secondaryThumbprint": null},
                "type": "sas",
            },
            "capabilities": {"iotEdge": false},
            "deviceScope": null,
            "parentScopes": [],
        })
    );
    hub.hub.commands().send("d1", Message::telemetry("")).await.unwrap();
    sent(hub.as_device("d1", Method::POST, "/devices/d1/messages/events").await).await;
    let shown = hub.get("/devices/d1").await;
    assert_eq!(shown["cloudToDeviceMessageCount"], 1);
    assert_ne!(shown["lastActivityTime"], "0001-01-01T00:00:00");
    assert_eq!(shown["connectionState"], "Disconnected", "HTTP has no connection");
}

#[tokio::test]
async fn a_device_is_created_once_and_changed_only_with_its_etag() {
    let hub = Fixture::in_memory().await;
    let key = |byte: u8| Key::from_bytes(&[byte; 32]).to_base64();
    let keys = json!({"symmetricKey": {"primaryKey": key(1), "secondaryKey": key(2)}, "type": "sas"});
    let whole =
        json!({"deviceId": "d1", "status": "disabled", "statusReason": "not yet", "authentication": keys});
    let first = created(&hub, "d1", whole.clone()).await;
    assert_eq!((&first["status"], &first["statusReason"]), (&json!("disabled"), &json!("not yet")));
    assert_eq!(first["authentication"]["symmetricKey"]["primaryKey"], key(1));

    let again = sent(put(&hub, "d1", whole.clone())).await;
    assert_eq!(number(again).await, 409_001, "without If-Match nothing is overwritten");
    let update =
        |condition: String| put(&hub, "d1", json!({"status": "enabled"})).header("if-match", condition);
    let mut etag = first["etag"].as_str().unwrap().to_owned();
    for form in ["\"{}\"", "{}", "W/\"{}\"", "*", "\"*\""] {
        let updated = sent(update(form.replace("{}", &etag))).await;
        assert_eq!(updated.status(), StatusCode::OK, "{form}");
        let updated: Value = updated.json().await.unwrap();
        assert_eq!((&updated["status"], &updated["statusReason"]), (&json!("enabled"), &json!(null)));
        assert_eq!(updated["authentication"], first["authentication"], "what is not named stays");
        assert_eq!(updated["generationId"], first["generationId"]);
        etag = updated["etag"].as_str().unwrap().to_owned();
    }
    assert_ne!(hub.get("/devices/d1").await["statusUpdatedTime"], "0001-01-01T00:00:00");
    for stale in ["\"c3RhbGU=\"", "c3RhbGU=", "\"\""] {
        assert_eq!(number(sent(update(stale.into())).await).await, 412_001, "{stale}");
    }
    let unknown = put(&hub, "d2", json!({})).header("if-match", "*");
    assert_eq!(number(sent(unknown).await).await, 404_001);

    let delete = |condition: &str| {
        let request = hub.request(Method::DELETE, "/devices/d1");
        if condition.is_empty() { request } else { request.header("if-match", condition) }
    };
    assert_eq!(number(sent(delete("\"c3RhbGU=\"")).await).await, 412_001);
    assert_eq!(sent(delete(&format!("\"{etag}\""))).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(number(sent(delete("*")).await).await, 404_001);
    assert_eq!(number(sent(hub.request(Method::GET, "/devices/d1")).await).await, 404_001);
    let second = created(&hub, "d1", whole).await;
    assert_ne!(second["generationId"], first["generationId"]);
    assert_eq!(sent(delete("")).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn ways_to_prove_oneself_and_what_is_refused() {
    let hub = Fixture::in_memory().await;
    let print = "0123456789abcdef0123456789abcdef01234567";
    for (id, authentication, kind) in [
        (
            "signed",
            json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": print}}),
            "selfSigned",
        ),
        ("authority", json!({"type": "certificateAuthority"}), "certificateAuthority"),
        ("none", json!({"type": "none"}), "none"),
        ("keys", json!({"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": null}}), "sas"),
    ] {
        let identity = created(&hub, id, json!({"deviceId": id, "authentication": authentication})).await;
        assert_eq!(identity["authentication"]["type"], kind);
        assert_eq!(identity["authentication"]["symmetricKey"]["primaryKey"].is_string(), kind == "sas");
    }
    let shown = hub.get("/devices/signed").await;
    assert!(
        shown["authentication"]["x509Thumbprint"]["primaryThumbprint"]
            .as_str()
            .unwrap()
            .eq_ignore_ascii_case(print)
    );
    let short = Key::from_bytes(&[1; 8]).to_base64();
    for (body, expected) in [
        (json!({"deviceId": "other"}), 400_004),
        (json!({"status": "asleep"}), 400_004),
        (json!({"statusReason": "x".repeat(129)}), 400_004),
        (json!({"capabilities": {"iotEdge": true}}), 400_004),
        (json!({"authentication": {"type": "magic"}}), 400_004),
        (json!({"authentication": {"symmetricKey": {"primaryKey": short}}}), 400_004),
        (json!({"authentication": {"symmetricKey": {"primaryKey": short, "secondaryKey": short}}}), 400_004),
        (json!({"authentication": {"type": "selfSigned"}}), 400_004),
        (json!({"authentication": 7}), 400_006),
        (json!([]), 400_006),
    ] {
        assert_eq!(number(sent(put(&hub, "bad", body.clone())).await).await, expected, "{body}");
    }
    let broken = hub.request(Method::PUT, "/devices/bad").body("{");
    assert_eq!(number(sent(broken).await).await, 400_006);
    assert_eq!(number(sent(put(&hub, "a%20b", json!({}))).await).await, 400_004, "no such id can be");
    let long = "x".repeat(129);
    assert_eq!(number(sent(put(&hub, &long, json!({}))).await).await, 400_004);
}

#[tokio::test]
async fn a_list_is_as_long_as_asked_for() {
    let hub = Fixture::in_memory().await;
    for index in 0..5 {
        hub.hub.registry().create(&format!("d{index}")).await.unwrap();
    }
    for (path, count) in [
        ("/devices", 5),
        ("/devices?top=2", 2),
        ("/devices/?top=3&api-version=x", 3),
        ("/devices?Top=1000", 5),
    ] {
        assert_eq!(hub.get(path).await.as_array().unwrap().len(), count, "{path}");
    }
    for top in ["0", "1001", "many", ""] {
        let answer = sent(hub.request(Method::GET, &format!("/devices?top={top}"))).await;
        assert_eq!(number(answer).await, 400_004, "{top}");
    }
}

async fn bulk(hub: &Fixture, body: Value) -> (StatusCode, Value) {
    let answer = sent(hub.request(Method::POST, "/devices?api-version=2021-04-12").json(&body)).await;
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn many_identities_change_in_one_request() {
    let hub = Fixture::in_memory().await;
    let good = |body: (StatusCode, Value)| {
        assert_eq!(body, (StatusCode::OK, json!({"isSuccessful": true, "errors": [], "warnings": []})));
    };
    good(
        bulk(
            &hub,
            json!([
                {"id": "a", "importMode": "create", "status": "disabled"},
                {"id": "b", "importMode": "Create", "authentication": {"type": "certificateAuthority"}},
                {"id": "c", "importMode": "createOrUpdate"},
                {"id": "d"},
                {"id": "d", "moduleId": "m", "importMode": "CREATE"},
            ]),
        )
        .await,
    );
    assert_eq!(hub.get("/devices/a").await["status"], "disabled");
    assert_eq!(hub.get("/devices/d/modules/m").await["moduleId"], "m");
    let etag = hub.get("/devices/a").await["etag"].clone();
    good(
        bulk(
            &hub,
            json!([
                {"id": "a", "importMode": "updateIfMatchETag", "eTag": etag, "status": "enabled"},
                {"id": "b", "importMode": "Update", "status": "disabled", "statusReason": "why"},
                {"id": "c", "importMode": "createOrUpdate", "status": "disabled"},
                {"id": "d", "moduleId": "m", "importMode": "createOrUpdate", "managedBy": "me"},
                {"id": "e", "importMode": "createOrUpdateIfMatchETag"},
            ]),
        )
        .await,
    );
    assert_eq!(hub.get("/devices/a").await["status"], "enabled");
    assert_eq!(hub.get("/devices/b").await["statusReason"], "why");
    assert_eq!(hub.get("/devices/b").await["authentication"]["type"], "certificateAuthority");
    assert_eq!(hub.get("/devices/d/modules/m").await["managedBy"], "me");

    let (status, outcome) = bulk(
        &hub,
        json!([
            {"id": "a", "importMode": "create"},
            {"id": "b", "importMode": "updateIfMatchETag", "eTag": "stale"},
            {"id": "c", "importMode": "deleteIfMatchETag"},
            {"id": "d", "moduleId": "n", "importMode": "update"},
            {"id": "nobody", "importMode": "delete"},
            {"id": "x", "importMode": "updateTwin"},
            {"id": "y y"},
            {"id": "e", "importMode": "Delete"},
        ]),
    )
    .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(outcome["isSuccessful"], false);
    let errors = outcome["errors"].as_array().unwrap();
    let found: Vec<_> = errors
        .iter()
        .map(|error| (error["deviceId"].as_str().unwrap(), error["errorCode"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("a", "DeviceAlreadyExists"),
            ("b", "PreconditionFailed"),
            ("c", "ArgumentInvalid"),
            ("d", "ModuleNotFound"),
            ("nobody", "DeviceNotFound"),
            ("x", "InvalidOperation"),
            ("y y", "ArgumentInvalid"),
        ]
    );
    assert!(errors.iter().all(|error| !error["errorStatus"].as_str().unwrap().is_empty()));
    assert_eq!(errors[3]["moduleId"], "n");
    let gone = sent(hub.request(Method::GET, "/devices/e")).await;
    assert_eq!(number(gone).await, 404_001, "what could be done was done");

    let many: Vec<_> = (0..101).map(|index| json!({"id": format!("n{index}")})).collect();
    for (body, expected) in [
        (Value::from(many), 413_002),
        (json!([]), 400_004),
        (json!([{"id": "t"}, {"id": "t"}]), 400_004),
        (json!({"id": "t"}), 400_006),
        (json!([{"importMode": "create"}]), 400_006),
    ] {
        let answer = sent(hub.request(Method::POST, "/devices").json(&body)).await;
        assert_eq!(number(answer).await, expected);
    }
    assert_eq!(hub.get("/statistics/devices").await["totalDeviceCount"], 4);
}

async fn page(hub: &Fixture, query: &str, limit: &str, continuation: Option<&str>) -> Response {
    let request = hub.request(Method::POST, "/Devices/Query?api-version=2021-04-12");
    let request = request.json(&json!({"query": query})).header("x-ms-max-item-count", limit);
    sent(match continuation {
        Some(token) => request.header("x-ms-continuation", token),
        None => request,
    })
    .await
}

/// All pages, and the ids on each.
async fn pages(hub: &Fixture, query: &str, limit: &str) -> Vec<Vec<String>> {
    let (mut pages, mut continuation) = (Vec::new(), None::<String>);
    loop {
        let answer = page(hub, query, limit, continuation.as_deref()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        continuation =
            answer.headers().get("x-ms-continuation").map(|token| token.to_str().unwrap().to_owned());
        let found: Value = answer.json().await.unwrap();
        let ids =
            found.as_array().unwrap().iter().map(|device| device["deviceId"].as_str().unwrap().to_owned());
        pages.push(ids.collect());
        if continuation.is_none() {
            return pages;
        }
    }
}

#[tokio::test]
async fn queries_come_in_pages() {
    let hub = Fixture::in_memory().await;
    for id in ["a", "b", "c", "d", "query"] {
        hub.hub.registry().create(id).await.unwrap();
    }
    hub.hub.registry().set_enabled("b", false, None).await.unwrap();
    let all = "SELECT * FROM devices";
    assert_eq!(pages(&hub, all, "2").await, [vec!["a", "b"], vec!["c", "d"], vec!["query"]]);
    assert_eq!(pages(&hub, all, "5").await, [vec!["a", "b", "c", "d", "query"]]);
    assert_eq!(pages(&hub, all, "").await.len(), 1);
    let enabled = "SELECT * FROM devices WHERE status = 'enabled' AND deviceId < 'd'";
    assert_eq!(pages(&hub, enabled, "1").await.concat(), ["a", "c"]);
    assert_eq!(pages(&hub, "SELECT * FROM devices WHERE deviceId = 'c'", "1").await, [vec!["c"]]);
    assert_eq!(pages(&hub, "SELECT * FROM devices WHERE deviceId = 'z'", "1").await, [Vec::<String>::new()]);
    assert_eq!(
        pages(&hub, "SELECT * FROM devices WHERE connectionState = 'Connected'", "9").await,
        [Vec::<String>::new()]
    );

    let first = page(&hub, all, "1", None).await;
    let token = first.headers()["x-ms-continuation"].to_str().unwrap().to_owned();
    let found: Value = first.json().await.unwrap();
    assert!(!found.to_string().contains("Key"), "no secret is in what a query finds: {found}");
    assert_eq!((&found[0]["status"], &found[0]["authenticationType"]), (&json!("enabled"), &json!("sas")));
    for (query, limit, token) in [
        ("SELECT * FROM devices WHERE tags.room = 'attic'", "1", None),
        (all, "0", None),
        (all, "1001", None),
        (all, "1", Some("nonsense")),
        (enabled, "1", Some(token.as_str())),
    ] {
        assert_eq!(number(page(&hub, query, limit, token).await).await, 400_004, "{query} {limit} {token:?}");
    }
    let broken = hub.request(Method::POST, "/devices/query").body("SELECT");
    assert_eq!(number(sent(broken).await).await, 400_006);
    assert_eq!(hub.get("/devices/query").await["deviceId"], "query", "a device may have that name");
    let elsewhere = sent(hub.request(Method::POST, "/devices/a").json(&json!({"query": all}))).await;
    assert_eq!(elsewhere.status(), StatusCode::METHOD_NOT_ALLOWED);
}
