//! Modules from the registry to the event log.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use whimbrel::auth::{Key, SasToken};

use crate::http_support::{Fixture, lines, number, soon};

/// A packet of MQTT 3.1.1.
fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![kind];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).unwrap();
        length /= 128;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

/// Connects by MQTT 3.1.1: the connection and the code in CONNACK.
pub(crate) async fn connect(
    hub: &Fixture,
    client_id: &str,
    user_name: &str,
    password: &str,
) -> (TcpStream, u8) {
    let mut stream = TcpStream::connect(hub.hub.mqtt_addr().unwrap()).await.unwrap();
    let head = [text("MQTT"), vec![4, 0b1100_0010, 0, 60]].concat();
    let connect = packet(0x10, &[&head, &text(client_id), &text(user_name), &text(password)]);
    stream.write_all(&connect).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..2], [0x20, 2]);
    (stream, answer[3])
}

#[tokio::test]
async fn a_module_is_created_connects_and_sends() {
    let hub = Fixture::in_memory().await;
    hub.hub.registry().create("d").await.unwrap();
    let path = "/devices/d/modules/m?api-version=2021-04-12";
    let created = hub.request(Method::PUT, path).json(&json!({"deviceId": "d", "moduleId": "m"}));
    let created = created.send().await.unwrap();
    assert_eq!(created.status(), StatusCode::OK);
    let etag = created.headers()["etag"].to_str().unwrap().to_owned();
    let created: Value = created.json().await.unwrap();
    assert_eq!(etag, format!("\"{}\"", created["etag"].as_str().unwrap()));
    assert_eq!(created["managedBy"], Value::Null);
    assert_eq!((created.get("status"), created.get("capabilities")), (None, None));
    assert_eq!(created["connectionState"], "Disconnected");
    let key =
        Key::from_base64(created["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap()).unwrap();
    let token = SasToken::issue("localhost/devices/d/modules/m", &key, None, soon());

    let (mut module, code) = connect(&hub, "d/m", "localhost/d/m/?api-version=2021-04-12", &token).await;
    assert_eq!(code, 0);
    let publish =
        packet(0x32, &[&text("devices/d/modules/m/messages/events/room=attic"), &[0, 7], b"by mqtt"]);
    module.write_all(&publish).await.unwrap();
    let mut acknowledgement = [0; 4];
    module.read_exact(&mut acknowledgement).await.unwrap();
    assert_eq!(acknowledgement, [0x40, 2, 0, 7]);
    assert_eq!(hub.get("/devices/d/modules/m").await["connectionState"], "Connected");
    assert_eq!(hub.get("/devices/d").await["connectionState"], "Disconnected", "the device itself is not");

    let by_http = hub.bare(Method::POST, "/devices/d/modules/m/messages/events").body("by http");
    let by_http = by_http.header("authorization", &token).send().await.unwrap();
    assert_eq!(by_http.status(), StatusCode::NO_CONTENT);
    let events = lines(hub.request(Method::GET, "/v1/events").send().await.unwrap()).await;
    assert_eq!(events.len(), 2);
    for (event, body) in events.iter().zip(["by mqtt", "by http"]) {
        assert_eq!((&event["device"], &event["module"]), (&json!("d"), &json!("m")));
        assert_eq!(event["body"]["text"], body);
        assert_eq!(event["system"]["generation"], created["generationId"]);
        assert_eq!(event["system"]["auth_method"]["scope"], "module");
    }

    let stale = hub.request(Method::DELETE, "/devices/d/modules/m").header("if-match", "\"stale\"");
    assert_eq!(number(stale.send().await.unwrap()).await, 412_001);
    let deleted = hub.request(Method::DELETE, "/devices/d/modules/m").header("if-match", &etag);
    assert_eq!(deleted.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let mut rest = [0; 16];
    let closed = tokio::time::timeout(std::time::Duration::from_secs(10), module.read(&mut rest));
    assert_eq!(closed.await.unwrap().unwrap_or(0), 0, "who is deleted is disconnected");
    assert_ne!(connect(&hub, "d/m", "localhost/d/m/", &token).await.1, 0);
}

#[tokio::test]
async fn modules_are_listed_changed_and_bounded() {
    let hub = Fixture::in_memory().await;
    hub.hub.registry().create("d").await.unwrap();
    let put =
        |id: &str, body: Value| hub.request(Method::PUT, &format!("/devices/d/modules/{id}")).json(&body);
    let code = async |request: reqwest::RequestBuilder| number(request.send().await.unwrap()).await;
    for index in 0..50 {
        assert_eq!(put(&format!("m{index}"), json!({})).send().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(code(put("one-more", json!({}))).await, 413_003);
    assert_eq!(code(put("m0", json!({}))).await, 409_301);
    assert_eq!(code(put("m0", json!({"moduleId": "m1"})).header("if-match", "*")).await, 400_004);
    assert_eq!(code(put("new", json!({})).header("if-match", "*")).await, 404_010);
    assert_eq!(code(put("a%20b", json!({}))).await, 400_004);
    let updated = put("m0", json!({"managedBy": "me"})).header("if-match", "*").send().await.unwrap();
    assert_eq!(updated.json::<Value>().await.unwrap()["managedBy"], "me");
    let listed = hub.get("/devices/d/modules").await;
    assert_eq!(listed.as_array().unwrap().len(), 50);
    assert_eq!(listed[0]["managedBy"], "me");
    for (method, path, expected) in [
        (Method::GET, "/devices/d/modules/nobody", 404_010),
        (Method::DELETE, "/devices/d/modules/nobody", 404_010),
        (Method::GET, "/devices/nobody/modules/m", 404_001),
        (Method::GET, "/devices/nobody/modules", 404_001),
        (Method::PUT, "/devices/nobody/modules/m", 404_001),
    ] {
        assert_eq!(code(hub.request(method, path).json(&json!({}))).await, expected, "{path}");
    }
}
