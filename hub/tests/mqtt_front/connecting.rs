//! CONNECT and CONNACK: who is let in, and what the others are told.

use std::time::Duration;

use rmqtt_codec::{types::QoS, v3, v5};
use whimbrel::wire::v5 as names;

use crate::client::{Client, Device, Ground, PATIENCE};

const HOUR: Duration = Duration::from_secs(3600);

async fn enter_v3(ground: &Ground, hello: v3::Connect) -> (v3::ConnectAckReason, Client) {
    let mut client = ground.dial(4).await;
    let welcome = client.enter_v3(hello).await;
    (welcome.return_code, client)
}

async fn enter_v5(ground: &Ground, hello: v5::Connect) -> (v5::ConnectAck, Client) {
    let mut client = ground.dial(5).await;
    let welcome = client.enter_v5(hello).await;
    (welcome, client)
}

#[tokio::test]
async fn every_form_of_the_user_name_is_understood() {
    let ground = Ground::start().await;
    let device = ground.device("Dev-1:%?#").await;
    let host = device.host();
    let id = device.id();
    for user_name in [
        format!("{host}/{id}"),
        format!("{host}/{id}/"),
        format!("{host}/{id}?api-version=2018-06-30"),
        format!("{host}/{id}/?api-version=2021-04-12"),
        format!(
            "{host}/{id}/?api-version=2020-09-30&DeviceClientType=py-azure-iot-device%2F2.14.0%20%28x%29"
        ),
        format!("{host}/{id}/?api-version=2020-09-30&model-id=dtmi%3Aa%3Bb%3B1"),
        format!("{}/{id}", host.to_uppercase()),
    ] {
        let hello = v3::Connect { username: Some(user_name.as_str().into()), ..device.hello_v3() };
        let (code, _) = enter_v3(&ground, hello).await;
        assert_eq!(code, v3::ConnectAckReason::ConnectionAccepted, "{user_name}");
        let hello = v5::Connect { username: Some(user_name.as_str().into()), ..device.hello_v5() };
        let (welcome, _) = enter_v5(&ground, hello).await;
        assert_eq!(welcome.reason_code, v5::ConnectAckReason::Success, "{user_name}");
    }
}

/// Ways to be wrong, and the codes of MQTT 3.1.1 and 5.
async fn wrongs(ground: &Ground) -> Vec<(&'static str, Wrong, u8, u8)> {
    let (good, other, disabled) =
        (ground.device("good").await, ground.device("other").await, ground.device("off").await);
    ground.hub.registry().set_enabled("off", false, None).await.unwrap();
    let wrong = |client_id: &str, user_name: String, password: Option<String>| Wrong {
        client_id: client_id.to_owned(),
        user_name: Some(user_name),
        password,
    };
    let token = |device: &Device| Some(device.token(HOUR));
    let host = good.host();
    let foreign = good.token(HOUR).replace(&format!("sr={host}"), "sr=elsewhere");
    let forged = good.token(HOUR).replace("sig=", "sig=AA");
    let stale = whimbrel::auth::SasToken::issue(
        &format!("{host}/devices/good"),
        good.key(),
        None,
        std::time::SystemTime::now() - Duration::from_secs(301),
    );
    vec![
        ("no client id", wrong("", format!("{host}/"), token(&good)), 2, 133),
        ("a client id that is no id", wrong("go od", format!("{host}/go od"), token(&good)), 2, 133),
        ("too many parts", wrong("good/m/x", format!("{host}/good/m/x"), token(&good)), 2, 133),
        ("no user name", Wrong { user_name: None, ..wrong("good", String::new(), token(&good)) }, 5, 135),
        ("another host", wrong("good", "elsewhere/good".into(), token(&good)), 5, 135),
        ("another device", wrong("good", format!("{host}/other"), token(&good)), 5, 135),
        ("the token of another", wrong("good", good.user_name(), token(&other)), 5, 135),
        ("another scope", wrong("good", good.user_name(), Some(foreign)), 5, 135),
        ("a forged signature", wrong("good", good.user_name(), Some(forged)), 5, 135),
        ("a token that has ended", wrong("good", good.user_name(), Some(stale)), 5, 135),
        ("no token", wrong("good", good.user_name(), Some("secret".into())), 5, 135),
        ("nothing", wrong("good", good.user_name(), None), 5, 135),
        ("an unknown device", wrong("who", format!("{host}/who"), token(&good)), 5, 135),
        ("a disabled device", wrong("off", disabled.user_name(), token(&disabled)), 5, 135),
        ("a module nobody made", wrong("good/m", format!("{host}/good/m"), token(&good)), 5, 135),
    ]
}

struct Wrong {
    client_id: String,
    user_name: Option<String>,
    password: Option<String>,
}

#[tokio::test]
async fn who_is_not_let_in_is_told_the_code_and_nothing_else() {
    let ground = Ground::start().await;
    for (what, wrong, v3_code, v5_code) in wrongs(&ground).await {
        let hello = v3::Connect {
            client_id: wrong.client_id.as_str().into(),
            username: wrong.user_name.as_deref().map(Into::into),
            password: wrong.password.clone().map(Into::into),
            clean_session: true,
            ..v3::Connect::default()
        };
        let (code, mut client) = enter_v3(&ground, hello).await;
        assert_eq!(u8::from(code), v3_code, "3.1.1: {what}");
        client.closed().await;
        let hello = v5::Connect {
            client_id: wrong.client_id.as_str().into(),
            username: wrong.user_name.as_deref().map(Into::into),
            password: wrong.password.map(Into::into),
            clean_start: true,
            ..v5::Connect::default()
        };
        let (welcome, mut client) = enter_v5(&ground, hello).await;
        assert_eq!(u8::from(welcome.reason_code), v5_code, "5: {what}");
        assert!(!welcome.session_present && welcome.user_properties.is_empty(), "{welcome:?}");
        client.closed().await;
    }
}

#[tokio::test]
async fn other_versions_are_told_so() {
    let ground = Ground::start().await;
    let rest = b"\x02\0\x3c\0\x01d";
    for (name, level) in [(&b"\0\x06MQIsdp"[..], 3), (b"\0\x04MQTT", 3), (b"\0\x04MQTT", 6)] {
        let body = [name, &[level], rest].concat();
        let mut client = ground.dial(4).await;
        client.send_bytes(&[&[0x10, body.len() as u8], &body[..]].concat()).await;
        match client.receive().await {
            Some(rmqtt_codec::MqttPacket::V3(v3::Packet::ConnectAck(welcome))) => {
                assert_eq!(welcome.return_code, v3::ConnectAckReason::UnacceptableProtocolVersion);
            }
            other => panic!("{other:?}"),
        }
        client.closed().await;
    }
}

#[tokio::test]
async fn who_does_not_begin_with_connect_is_cut_off() {
    let ground = Ground::start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\xc0\0",
        b"\x30\x05\0\x01tab",
        b"\x10\xff\xff\xff\xff",
        b"\x10\xff\xff\xff\x7f\0\x04MQTT\x04",
        b"\x10\x0c\0\x04MQTT\x04\x03\0\x3c\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    ] {
        let mut client = ground.dial(4).await;
        client.send_bytes(bytes).await;
        client.closed().await;
    }
}

#[tokio::test]
async fn the_welcome_of_5_tells_the_limits() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let (welcome, _client) = enter_v5(&ground, device.hello_v5()).await;
    assert_eq!(welcome.receive_max.get(), 16);
    assert_eq!(welcome.max_qos, QoS::AtLeastOnce);
    assert_eq!(welcome.max_packet_size, Some(262_144));
    assert_eq!(welcome.topic_alias_max, 10);
    assert_eq!(welcome.server_keepalive_sec, Some(60));
    assert_eq!(welcome.session_expiry_interval_secs, None);
    assert!(!welcome.retain_available);
    assert!(!welcome.subscription_identifiers_available && !welcome.shared_subscription_available);
    assert!(welcome.user_properties.is_empty());

    let hello = v5::Connect {
        keep_alive: 0,
        session_expiry_interval_secs: 7,
        user_properties: vec![(names::OUTBOX.into(), "outbox-1".into())],
        ..device.hello_v5()
    };
    let (welcome, _client) = enter_v5(&ground, hello).await;
    assert_eq!(welcome.receive_max.get(), 1000);
    assert_eq!(welcome.max_packet_size, Some(262_144 + 65_536));
    assert_eq!(welcome.server_keepalive_sec, Some(1140));
    assert_eq!(welcome.session_expiry_interval_secs, Some(u32::MAX));
    assert_eq!(welcome.user_properties, [(names::ANNOUNCE.into(), "1".into())]);
}

/// CONNECT with the authentication method SAS, and what is signed.
fn signed(device: &Device, host: &str, expiry: u128) -> v5::Connect {
    let expiry = expiry.to_string();
    let signature =
        device.key().sign(names::string_to_sign(host, device.id(), None, None, &expiry).as_bytes());
    v5::Connect {
        username: None,
        password: None,
        auth_method: Some(names::METHOD_SAS.into()),
        auth_data: Some(signature.to_vec().into()),
        user_properties: vec![
            (names::API_VERSION_NAME.into(), names::API_VERSION.into()),
            (names::HOST.into(), host.into()),
            (names::SAS_EXPIRY.into(), expiry.into()),
        ],
        ..device.hello_v5()
    }
}

fn in_milliseconds(lifetime: Duration) -> u128 {
    (std::time::SystemTime::now() + lifetime).duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}

#[tokio::test]
async fn the_authentication_method_sas() {
    let ground = Ground::start().await;
    let device = ground.device("d").await;
    let good = signed(&device, device.host(), in_milliseconds(HOUR));
    let (welcome, mut client) = enter_v5(&ground, good.clone()).await;
    assert_eq!(welcome.reason_code, v5::ConnectAckReason::Success);
    assert_eq!(welcome.auth_method, Some(names::METHOD_SAS.into()));

    // Once more, while connected.
    let auth = v5::Auth {
        reason_code: v5::AuthReasonCode::ReAuth,
        auth_method: good.auth_method.clone(),
        auth_data: good.auth_data.clone(),
        reason_string: None,
        user_properties: good.user_properties.clone(),
    };
    client.send(v5::Packet::Auth(auth.clone())).await;
    match client.receive().await {
        Some(rmqtt_codec::MqttPacket::V5(v5::Packet::Auth(answer))) => {
            assert_eq!(answer.reason_code, v5::AuthReasonCode::Success);
            assert_eq!(answer.auth_method, good.auth_method);
        }
        other => panic!("{other:?}"),
    }
    for wrong in [
        v5::Auth { auth_method: Some(names::METHOD_X509.into()), ..auth.clone() },
        v5::Auth { auth_data: Some(vec![0; 32].into()), ..auth.clone() },
        v5::Auth {
            user_properties: [auth.user_properties.clone(), vec![("sas-policy".into(), "device".into())]]
                .concat(),
            ..auth.clone()
        },
    ] {
        let (_, mut client) = enter_v5(&ground, good.clone()).await;
        client.send(v5::Packet::Auth(wrong)).await;
        client.closed_with(v5::DisconnectReasonCode::NotAuthorized).await;
    }

    let code = |hello| async { u8::from(enter_v5(&ground, hello).await.0.reason_code) };
    assert_eq!(code(signed(&device, "elsewhere", in_milliseconds(HOUR))).await, 135);
    assert_eq!(code(signed(&device, device.host(), 1)).await, 135, "ended long ago");
    assert_eq!(code(v5::Connect { auth_data: None, ..good.clone() }).await, 135);
    assert_eq!(code(v5::Connect { auth_method: Some("GS2-KRB5".into()), ..good.clone() }).await, 140);
    assert_eq!(code(v5::Connect { auth_method: Some(names::METHOD_X509.into()), ..good }).await, 135);
}

#[tokio::test]
async fn re_authentication_moves_the_end() {
    let ground = Ground::start_with(|builder| builder.set("token-grace", "100ms").unwrap()).await;
    let device = ground.device("d").await;
    let soon = signed(&device, device.host(), in_milliseconds(Duration::from_millis(1500)));
    let (_, mut ends) = enter_v5(&ground, soon.clone()).await;
    let other = ground.device("e").await;
    let hello = signed(&other, other.host(), in_milliseconds(Duration::from_millis(1500)));
    let (_, mut goes_on) = enter_v5(&ground, hello).await;
    let later = signed(&other, other.host(), in_milliseconds(HOUR));
    goes_on
        .send(v5::Packet::Auth(v5::Auth {
            reason_code: v5::AuthReasonCode::ReAuth,
            auth_method: later.auth_method,
            auth_data: later.auth_data,
            reason_string: None,
            user_properties: later.user_properties,
        }))
        .await;
    assert!(goes_on.receive().await.is_some());
    ends.closed_with(v5::DisconnectReasonCode::NotAuthorized).await;
    goes_on.send(v5::Packet::PingRequest).await;
    assert!(matches!(goes_on.receive().await, Some(rmqtt_codec::MqttPacket::V5(v5::Packet::PingResponse))));
}

#[tokio::test]
async fn a_token_that_ends_ends_the_connection_after_the_grace() {
    let ground = Ground::start_with(|builder| builder.set("token-grace", "100ms").unwrap()).await;
    for (name, version) in [("three", 4), ("five", 5)] {
        let device = ground.device(name).await;
        let password = Some(device.token(Duration::from_secs(1)).into());
        let mut client = ground.dial(version).await;
        if version == 4 {
            client.enter_v3(v3::Connect { password, ..device.hello_v3() }).await;
        } else {
            client.enter_v5(v5::Connect { password, ..device.hello_v5() }).await;
        }
        client.closed_with(v5::DisconnectReasonCode::NotAuthorized).await;
    }
}

#[tokio::test]
async fn a_client_that_never_speaks_is_cut_off_and_too_many_are_not_taken() {
    let ground = Ground::start_with(|builder| builder.set("connections", "2").unwrap()).await;
    let device = ground.device("d").await;
    let _first = ground.dial(4).await;
    let _second = ground.connect(&device, 4).await;
    let mut third = ground.dial(4).await;
    tokio::time::timeout(PATIENCE, third.closed()).await.unwrap();
}
