//! Connections and who they are.

use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp_types::{messaging::MessageId, performatives::Performative};
use whimbrel::auth::SasToken;

use crate::{
    client::{Client, Ground, condition, in_an_hour, long_ago},
    raw::Raw,
};

#[tokio::test]
async fn every_form_of_signing_in() {
    let ground = Ground::start().await;
    let key = ground.device("d").await;
    let device_token = SasToken::issue("localhost/devices/d", &key, None, in_an_hour());
    let policy_token = ground.policy_token("iothubowner", "localhost", in_an_hour());
    let plain = |username: &str, password: &str| SaslProfile::Plain {
        username: username.to_owned(),
        password: password.to_owned(),
    };
    for (profile, allowed) in [
        (plain("d@sas.localhost", &device_token), true),
        (plain("iothubowner@sas.root.localhost", &policy_token), true),
        (SaslProfile::Anonymous, false),
    ] {
        let mut client = Client::open(ground.dial().await, profile.clone()).await.unwrap();
        let link = client.sender("/devices/d/messages/events").await;
        assert_eq!(link.is_ok(), allowed, "{profile:?}");
        if let Err(error) = link {
            assert_eq!(condition(&error), "amqp:unauthorized-access");
        }
        client.connection.close().await.unwrap();
    }
    for profile in [
        plain("other@sas.localhost", &device_token),
        plain("d@sas.elsewhere", &device_token),
        plain("service@sas.root.localhost", &policy_token),
        plain("d@sas.localhost", "nonsense"),
    ] {
        assert!(Client::open(ground.dial().await, profile.clone()).await.is_err(), "{profile:?}");
    }
    let mut bare = Client::open_bare(ground.dial().await).await.unwrap();
    assert!(bare.sender("/devices/d/messages/events").await.is_err());
    assert_eq!(bare.put_token("localhost/devices/d", &device_token).await.0, 200);
    assert!(bare.sender("/devices/d/messages/events").await.is_ok());
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_that_comes_with_the_link_for_its_answer_is_answered() {
    let ground = Ground::start().await;
    let token = ground.policy_token("iothubowner", "localhost", in_an_hour());
    let mut raw = Raw::open(&ground, "iothubowner@sas.root.localhost", &token).await;
    // A message with nothing in it, which is answered like any other.
    raw.ask_at_once("$cbs", b"\x00\x53\x77\x40").await;
    while !matches!(raw.hear().await, Performative::Transfer(_)) {}
    raw.close().await;
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn tokens_that_are_not_good_are_answered_and_grant_nothing() {
    let ground = Ground::start().await;
    let key = ground.device("d").await;
    ground.device("other").await;
    let token = |resource: &str| SasToken::issue(resource, &key, None, in_an_hour());
    let mut client = ground.stranger().await;
    let expired = SasToken::issue("localhost/devices/d", &key, None, long_ago());
    for (audience, token, status) in [
        ("localhost/devices/other", token("localhost/devices/other"), 401),
        ("localhost/devices/d", token("localhost/devices/other"), 401),
        ("localhost/devices/d", expired, 401),
        ("localhost", token("localhost"), 401),
        ("localhost/devices/nobody", token("localhost/devices/nobody"), 401),
        ("localhost/devices/d", "nonsense".to_owned(), 401),
        ("", ground.policy_token("service", "elsewhere", in_an_hour()), 401),
    ] {
        assert_eq!(client.put_token(audience, &token).await.0, status, "{audience} {token}");
        let error = client.sender("/devices/d/messages/events").await.unwrap_err();
        assert_eq!(condition(&error), "amqp:unauthorized-access");
    }
    // Ids of messages come back with their type.
    for id in [
        MessageId::String("6f2c3b1a-0001-4002-8003-0000000000ff".into()),
        MessageId::Uuid([7; 16].into()),
        MessageId::Binary(vec![1, 2].into()),
    ] {
        let status = client.request_token("localhost", "jwt", "x", id).await.0;
        assert_eq!(status, 401);
    }
    ground.hub.stop().await.unwrap();
}

#[tokio::test]
async fn audiences_and_addresses_in_every_form() {
    let ground = Ground::start().await;
    let key = ground.device("a:b@100%").await;
    let issue = |resource: &str| SasToken::issue(resource, &key, None, in_an_hour());
    let (raw, encoded) = ("localhost/devices/a:b@100%", "localhost/devices/a%3Ab%40100%25");
    for (audience, token) in [
        (raw, issue(raw)),
        (encoded, issue(raw)),
        // The id encoded, and then all of it again.
        (encoded, issue(encoded)),
        ("localhost%2Fdevices%2Fa%3Ab%40100%25", issue(raw)),
        ("amqps://localhost:5671/devices/a%3Ab%40100%25", issue(raw)),
        ("amqps://localhost:5671/devices/a:b@100%/", issue(raw)),
    ] {
        let mut client = ground.stranger().await;
        assert_eq!(client.put_token(audience, &token).await.0, 200, "{audience}");
        for address in [
            "/devices/a:b@100%/messages/events",
            "/Devices/a%3Ab%40100%25/Messages/Events",
            "amqps://localhost:5671/devices/a%3ab%40100%25/messages/events/",
        ] {
            assert!(client.sender(address).await.is_ok(), "{address}");
        }
        assert!(client.sender("/devices/A:b@100%/messages/events").await.is_err(), "ids have case");
    }
    ground.hub.stop().await.unwrap();
}
