//! The MQTT transport against a server that does what the test says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod device_support;

use std::time::Duration;

use device_support::{KEY, Peer, Server, connection_string, no_properties, options, queued};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whimbrel::{
    ErrorKind, Lane, Message,
    auth::{Key, SasToken},
    delivery::Verdict,
    transport::{
        Answer, Connection, Greeting, Incoming, Offer, Transport,
        mqtt::{MqttConnection, MqttOptions, MqttTransport, Protocol},
    },
    wire::v5,
};

fn offer() -> Offer {
    Offer { outbox_id: "box".into(), window: 1_000, inbox_window: 16 }
}

async fn connect(options: MqttOptions) -> whimbrel::Result<(MqttConnection, Greeting)> {
    MqttTransport::new(options)?.connect(offer()).await
}

/// A connection and its other end, past the handshake.
async fn pair(protocol: Protocol) -> (MqttConnection, Peer<tokio::net::TcpStream>) {
    let (server, address) = Server::start().await;
    let (connected, peer) = tokio::join!(connect(options(address, protocol)), async {
        let mut peer = server.accept().await;
        peer.hello().await;
        peer.welcome().await;
        peer
    });
    (connected.unwrap().0, peer)
}

fn stored(lane: Lane, sequence: u64, partition: Option<u32>, place: Option<u64>) -> Answer {
    Answer { lane, sequence, verdict: Verdict::Stored { partition, sequence: place } }
}

/// Drives until `count` answers are there.
async fn answers(connection: &mut MqttConnection, count: usize) -> Vec<Answer> {
    let mut incoming = Incoming::default();
    while incoming.answers.len() < count {
        connection.drive(&mut incoming).await.unwrap();
    }
    incoming.answers
}

/// Drives until the connection ends.
async fn end(connection: &mut MqttConnection) -> whimbrel::Error {
    let mut incoming = Incoming::default();
    loop {
        if let Err(error) = connection.drive(&mut incoming).await {
            return error;
        }
    }
}

#[tokio::test]
async fn mqtt_5_says_who_it_is_and_proves_it() {
    let (server, address) = Server::start().await;
    let (connected, hello) = tokio::join!(connect(options(address, Protocol::Mqtt5)), async {
        let mut peer = server.accept().await;
        let hello = peer.hello().await;
        peer.welcome_with(16).await;
        hello
    });
    let (_, greeting) = connected.unwrap();
    assert_eq!(greeting.receive_maximum, 16);
    let renew_in = greeting.renew_in.unwrap().as_secs();
    assert!((2_879..=3_060).contains(&renew_in), "{renew_in}");

    assert_eq!((hello.level, hello.client_id.as_str(), hello.clean), (5, "d1", false));
    assert_eq!((hello.keep_alive, hello.method.as_deref()), (60, Some("SAS")));
    assert_eq!((hello.user_name.as_str(), hello.password.as_str()), ("", ""));
    assert_eq!(hello.user["api-version"], "2020-10-01-preview");
    assert_eq!((hello.user["host"].as_str(), hello.user["whimbrel-outbox"].as_str()), ("h.example", "box"));
    let text =
        v5::string_to_sign("h.example", "d1", None, Some(&hello.user["sas-at"]), &hello.user["sas-expiry"]);
    let signature = Key::from_base64(KEY).unwrap().sign(text.as_bytes());
    assert_eq!(hello.data.unwrap(), signature[..]);
}

#[tokio::test]
async fn mqtt_3_says_who_it_is_and_proves_it() {
    let (server, address) = Server::start().await;
    let (connected, hello) = tokio::join!(connect(options(address, Protocol::Mqtt3)), async {
        let mut peer = server.accept().await;
        let hello = peer.hello().await;
        peer.welcome().await;
        hello
    });
    assert_eq!(connected.unwrap().1.receive_maximum, u16::MAX - 1);
    assert_eq!((hello.level, hello.client_id.as_str(), hello.clean), (4, "d1", false));
    assert!(hello.user_name.starts_with("h.example/d1/?api-version=2021-04-12&DeviceClientType=whimbrel%2F"));
    let token = SasToken::parse(&hello.password).unwrap();
    assert!(token.is_signed_by(&Key::from_base64(KEY).unwrap()) && token.covers("h.example/devices/d1"));
}

#[tokio::test]
async fn a_token_made_elsewhere_travels_as_it_is() {
    let token = "SharedAccessSignature sr=h.example%2Fdevices%2Fd1&sig=c2ln&se=4000000000";
    for protocol in [Protocol::Mqtt3, Protocol::Mqtt5] {
        let (server, address) = Server::start().await;
        let mut options = options(address, protocol);
        options.connection_string =
            format!("HostName=h.example;DeviceId=d1;SharedAccessSignature={token}").parse().unwrap();
        let (connected, hello) = tokio::join!(connect(options), async {
            let mut peer = server.accept().await;
            let hello = peer.hello().await;
            peer.welcome().await;
            hello
        });
        assert_eq!(connected.unwrap().1.renew_in, None);
        assert_eq!((hello.password.as_str(), hello.method), (token, None));
        assert!(hello.user_name.starts_with("h.example/d1"));
    }
}

#[tokio::test]
async fn mqtt_5_carries_properties_numbers_and_places() {
    let (mut connection, mut peer) = pair(Protocol::Mqtt5).await;
    let message = Message::telemetry("21.5")
        .message_id("m-1")
        .content_type("text/plain")
        .content_encoding("utf-8")
        .property("room", "attic");
    connection.publish(&[queued(Lane::Telemetry, 7, message), queued(Lane::Alert, 1, Message::alert("hot"))]);
    let server = async {
        let published = peer.published_many(2).await;
        peer.answer(published[1].packet_id, 0, &[("whimbrel-at", "2:")]).await;
        peer.answer(published[0].packet_id, 0, &[("other", "x"), ("whimbrel-at", "3:99")]).await;
        published
    };
    let (published, answers) = tokio::join!(server, answers(&mut connection, 2));
    assert_eq!(
        answers,
        [stored(Lane::Alert, 1, Some(2), None), stored(Lane::Telemetry, 7, Some(3), Some(99))]
    );
    let [first, second] = &published[..] else { panic!("{published:?}") };
    assert_eq!((first.topic.as_str(), &first.body[..]), ("$iothub/telemetry", &b"21.5"[..]));
    assert_eq!(first.content_type.as_deref(), Some("text/plain"));
    let number = (1u64 << 40) + 7;
    assert_eq!(first.user["whimbrel-n"], format!("t{number}"));
    assert_eq!((first.user["message-id"].as_str(), first.user["@room"].as_str()), ("m-1", "attic"));
    assert_eq!(first.user["content-encoding"], "utf-8");
    assert_eq!(second.user["whimbrel-n"], format!("a{}", (1u64 << 40) + 1));
}

#[tokio::test]
async fn our_own_properties_stay_at_home_when_nobody_understands_them() {
    let (server, address) = Server::start().await;
    let (connected, mut peer) = tokio::join!(connect(options(address, Protocol::Mqtt5)), async {
        let mut peer = server.accept().await;
        peer.hello().await;
        peer.welcome_saying(no_properties()).await;
        peer
    });
    let (mut connection, greeting) = connected.unwrap();
    assert_eq!(greeting.receive_maximum, u16::MAX - 1);
    connection.publish(&[queued(Lane::Telemetry, 1, Message::telemetry("x"))]);
    let server = async {
        let published = peer.published().await.unwrap();
        peer.ack(published.packet_id).await;
        published
    };
    let (published, answers) = tokio::join!(server, answers(&mut connection, 1));
    assert!(published.user.is_empty(), "{published:?}");
    assert_eq!(answers, [stored(Lane::Telemetry, 1, None, None)]);
}

#[tokio::test]
async fn mqtt_3_carries_properties_in_the_topic() {
    let (mut connection, mut peer) = pair(Protocol::Mqtt3).await;
    let message = Message::telemetry("x").message_id("m-1").property("room", "a b");
    connection.publish(&[queued(Lane::Telemetry, 1, message)]);
    let server = async {
        let published = peer.published().await.unwrap();
        peer.ack(published.packet_id).await;
        published
    };
    let (published, answers) = tokio::join!(server, answers(&mut connection, 1));
    assert_eq!(published.topic, "devices/d1/messages/events/%24.mid=m-1&room=a%20b");
    assert_eq!(answers, [stored(Lane::Telemetry, 1, None, None)]);
}

#[tokio::test]
async fn identifiers_are_used_again_only_after_their_answer() {
    let (mut connection, mut peer) = pair(Protocol::Mqtt3).await;
    for round in 0..3u64 {
        let messages: Vec<_> = (0..1_000)
            .map(|index| queued(Lane::Telemetry, round * 1_000 + index, Message::telemetry("x")))
            .collect();
        connection.publish(&messages);
        let server = async {
            let mut ids: Vec<_> =
                peer.published_many(1_000).await.iter().map(|published| published.packet_id).collect();
            for id in &ids {
                peer.ack(*id).await;
            }
            ids.sort_unstable();
            ids.dedup();
            ids.len()
        };
        let (different, answers) = tokio::join!(server, answers(&mut connection, 1_000));
        assert_eq!(different, 1_000);
        assert!(answers.iter().map(|answer| answer.sequence).eq(round * 1_000..(round + 1) * 1_000));
    }
}

#[tokio::test]
async fn refusals_say_whether_to_try_again() {
    let (mut connection, mut peer) = pair(Protocol::Mqtt5).await;
    type Case<'a> = (u8, &'a [(&'a str, &'a str)], bool);
    let cases: [Case<'_>; 6] = [
        (0x97, &[("status", "0501")], true),
        (0x83, &[("status", "0100"), ("reason", "too blue")], false),
        (0x83, &[("status", "0603")], true),
        (0x97, &[], true),
        (0x99, &[], false),
        (0x87, &[], false),
    ];
    for (sequence, (code, user, expected)) in cases.into_iter().enumerate() {
        let sequence = sequence as u64;
        connection.publish(&[queued(Lane::Telemetry, sequence, Message::telemetry("x"))]);
        let server = async {
            let published = peer.published().await.unwrap();
            peer.answer(published.packet_id, code, user).await;
        };
        let ((), answers) = tokio::join!(server, answers(&mut connection, 1));
        let Verdict::Refused { retryable, reason } = &answers[0].verdict else { panic!("{answers:?}") };
        assert_eq!(*retryable, expected, "{code:#x} {user:?}");
        assert_eq!(reason.contains("too blue"), user.len() == 2, "{reason}");
    }
}

#[tokio::test]
async fn a_message_over_the_hubs_packet_size_is_refused_here() {
    let (server, address) = Server::start().await;
    let (connected, mut peer) = tokio::join!(connect(options(address, Protocol::Mqtt5)), async {
        let mut peer = server.accept().await;
        peer.hello().await;
        let mut properties = no_properties();
        properties.max_packet_size = Some(1_000);
        peer.welcome_saying(properties).await;
        peer
    });
    let mut connection = connected.unwrap().0;
    connection.publish(&[
        queued(Lane::Telemetry, 1, Message::telemetry(vec![0; 1_000])),
        queued(Lane::Telemetry, 2, Message::telemetry("x")),
    ]);
    let server = async {
        let published = peer.published().await.unwrap();
        peer.ack(published.packet_id).await;
        published.body.len()
    };
    let (length, answers) = tokio::join!(server, answers(&mut connection, 2));
    assert_eq!(length, 1);
    assert!(matches!(answers[0].verdict, Verdict::Refused { retryable: false, .. }), "{answers:?}");
    assert_eq!(answers[1], stored(Lane::Telemetry, 2, None, None));
}

#[tokio::test]
async fn refused_connections_tell_why() {
    let cases: [(Protocol, &[u8], ErrorKind); 12] = [
        (Protocol::Mqtt3, &[0x20, 2, 0, 1], ErrorKind::Unsupported),
        (Protocol::Mqtt3, &[0x20, 2, 0, 3], ErrorKind::Throttled),
        (Protocol::Mqtt3, &[0x20, 2, 0, 5], ErrorKind::Unauthorized),
        (Protocol::Mqtt3, &[0x20, 1, 0], ErrorKind::Protocol),
        (Protocol::Mqtt3, &[0x30, 2, 0, 0], ErrorKind::Protocol),
        (Protocol::Mqtt5, &[0x20, 2, 0, 1], ErrorKind::Unsupported),
        (Protocol::Mqtt5, &[0x20, 3, 0, 0x84, 0], ErrorKind::Unsupported),
        (Protocol::Mqtt5, &[0x20, 3, 0, 0x87, 0], ErrorKind::Unauthorized),
        (Protocol::Mqtt5, &[0x20, 7, 0, 0x9f, 4, 0x1f, 0, 1, b'x'], ErrorKind::Throttled),
        (Protocol::Mqtt5, &[0x20, 3, 0, 0x88, 0], ErrorKind::Unreachable),
        (Protocol::Mqtt5, &[0x20, 3, 0, 0, 9], ErrorKind::Protocol),
        (Protocol::Mqtt5, &[0x20, 0xff, 0xff, 0xff, 0xff, 1], ErrorKind::Protocol),
    ];
    for (protocol, connack, kind) in cases {
        let (server, address) = Server::start().await;
        let (connected, ()) = tokio::join!(connect(options(address, protocol)), async {
            let mut peer = server.accept().await;
            peer.hello().await;
            peer.send(connack).await;
        });
        let error = connected.unwrap_err();
        assert_eq!(error.kind(), kind, "{protocol:?} {connack:?}: {error}");
        assert!(!error.to_string().contains(KEY));
    }
}

#[tokio::test]
async fn goodbyes_are_understood_in_their_short_forms_too() {
    let cases: [(&[u8], ErrorKind); 5] = [
        (&[0xe0, 0], ErrorKind::Unreachable),
        (&[0xe0, 1, 0x8e], ErrorKind::Conflict),
        (&[0xe0, 2, 0x8e, 0], ErrorKind::Conflict),
        (&[0xe0, 6, 0x97, 4, 0x1f, 0, 1, b'x'], ErrorKind::Throttled),
        (&[0xe0, 2, 0x82, 0], ErrorKind::Protocol),
    ];
    for (goodbye, kind) in cases {
        let (mut connection, mut peer) = pair(Protocol::Mqtt5).await;
        peer.send(goodbye).await;
        let error = end(&mut connection).await;
        assert_eq!(error.kind(), kind, "{goodbye:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_breaks_the_rules_is_left() {
    let cases: [&[u8]; 6] = [
        &[0x40, 2, 0, 1],
        &[0x40, 1, 0],
        &[0x20, 2, 0, 0],
        &[0x10, 0],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x30, 0xff, 0xff, 0x7f],
    ];
    for protocol in [Protocol::Mqtt3, Protocol::Mqtt5] {
        for bytes in cases {
            let (mut connection, mut peer) = pair(protocol).await;
            peer.send(bytes).await;
            assert_eq!(end(&mut connection).await.kind(), ErrorKind::Protocol, "{protocol:?} {bytes:?}");
        }
    }
}

#[tokio::test]
async fn answers_that_came_before_the_end_are_handed_out() {
    for ending in [&[0xe0, 1, 0x8e][..], &[0xff, 0xff, 0xff, 0xff, 0xff], &[]] {
        let (mut connection, mut peer) = pair(Protocol::Mqtt5).await;
        connection.publish(&[
            queued(Lane::Telemetry, 1, Message::telemetry("x")),
            queued(Lane::Telemetry, 2, Message::telemetry("x")),
        ]);
        let server = async move {
            let published = peer.published_many(2).await;
            let [high, low] = published[0].packet_id.to_be_bytes();
            peer.send(&[&[0x40, 2, high, low], ending].concat()).await;
        };
        let ((), answers) = tokio::join!(server, answers(&mut connection, 1));
        assert_eq!(answers, [stored(Lane::Telemetry, 1, None, None)]);
        end(&mut connection).await;
    }
}

#[tokio::test]
async fn driving_may_be_cancelled_anywhere() {
    let (mut connection, mut peer) = pair(Protocol::Mqtt5).await;
    let count = 200;
    let server = async {
        for _ in 0..count {
            let published = peer.published().await.unwrap();
            // In pieces, so that a cancelled read has half of an answer.
            let [high, low] = published.packet_id.to_be_bytes();
            for byte in [0x40, 2, high, low] {
                peer.send(&[byte]).await;
                tokio::task::yield_now().await;
            }
        }
        peer
    };
    let client = async {
        let mut incoming = Incoming::default();
        let mut published = 0;
        while incoming.answers.len() < count {
            if published < count && published < incoming.answers.len() + 3 {
                let body = vec![0; 10_000];
                connection.publish(&[queued(Lane::Telemetry, published as u64, Message::telemetry(body))]);
                published += 1;
            }
            tokio::select! {
                biased;
                result = connection.drive(&mut incoming) => result.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
        incoming.answers
    };
    let (_peer, answers) = tokio::join!(server, client);
    assert!(answers.iter().map(|answer| answer.sequence).eq(0..count as u64));
}

#[tokio::test]
async fn silence_is_noticed() {
    for protocol in [Protocol::Mqtt3, Protocol::Mqtt5] {
        let (server, address) = Server::start().await;
        let mut options = options(address, protocol);
        options.keep_alive = Duration::from_millis(200);
        let (connected, mut peer) = tokio::join!(connect(options), async {
            let mut peer = server.accept().await;
            assert_eq!(peer.hello().await.keep_alive, 1);
            peer.welcome().await;
            peer
        });
        let mut connection = connected.unwrap().0;
        let server = async {
            peer.pinged().await;
            peer.send(&[0xd0, 0]).await;
            peer.pinged().await;
            // And from now on nothing.
        };
        let (error, ()) = tokio::join!(end(&mut connection), server);
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(error.to_string().contains("silent"), "{error}");
    }
}

#[tokio::test]
async fn the_servers_keep_alive_counts() {
    let (server, address) = Server::start().await;
    let (connected, mut peer) = tokio::join!(connect(options(address, Protocol::Mqtt5)), async {
        let mut peer = server.accept().await;
        peer.hello().await;
        let mut properties = no_properties();
        properties.server_keep_alive = Some(1);
        peer.welcome_saying(properties).await;
        peer
    });
    let mut connection = connected.unwrap().0;
    let mut incoming = Incoming::default();
    tokio::select! {
        result = connection.drive(&mut incoming) => panic!("{result:?}"),
        () = peer.pinged() => {}
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let (server, address) = Server::start().await;
    let mut options = options(address, Protocol::Mqtt5);
    options.connect_timeout = Duration::from_millis(100);
    let (connected, _peer) = tokio::join!(connect(options), server.accept());
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn goodbye_is_said() {
    let (connection, mut peer) = pair(Protocol::Mqtt5).await;
    connection.finish().await;
    assert!(peer.published().await.is_none());
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel() {
    let (proxy, proxy_address) = Server::start().await;
    let (server, _) = Server::start().await;
    let mut options = options("127.0.0.1:1".parse().unwrap(), Protocol::Mqtt5);
    options.proxy = Some(format!("http://me:secret@{proxy_address}").parse().unwrap());
    let (connected, ()) = tokio::join!(connect(options.clone()), async {
        let mut stream = proxy.accept_raw().await;
        let mut request = vec![0; 1_024];
        let length = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8(request[..length].to_vec()).unwrap();
        assert!(request.starts_with("CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{request}");
        assert!(request.contains("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"), "{request}");
        stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await.unwrap();
        let mut peer = Peer::new(stream);
        peer.hello().await;
        peer.welcome().await;
    });
    connected.unwrap();
    drop(server);

    for (answer, kind) in [("407 Who", ErrorKind::Unauthorized), ("502 Bad", ErrorKind::Unreachable)] {
        let (connected, _stream) = tokio::join!(connect(options.clone()), async {
            let mut stream = proxy.accept_raw().await;
            let _ = stream.read(&mut [0; 1_024]).await.unwrap();
            stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.unwrap();
            stream
        });
        let error = connected.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(!error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_connection_string_without_a_device_is_refused() {
    let mut options = options("127.0.0.1:1".parse().unwrap(), Protocol::Auto);
    options.connection_string =
        connection_string().replace("DeviceId=d1;", "SharedAccessKeyName=p;").parse().unwrap();
    assert_eq!(MqttTransport::new(options).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
