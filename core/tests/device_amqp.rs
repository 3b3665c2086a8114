//! The AMQP transport against a server that does what the test says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod amqp_support;

use std::{future::Future, time::Duration};

use amqp_support::{
    KEY, Manners, Peer, Said, answers, brought, end, error, listen, options, rejected, target,
};
use fe2o3_amqp_types::{
    definitions::ReceiverSettleMode,
    messaging::{Accepted, DeliveryState, Modified, Rejected, Released},
    performatives::{Close, End},
    sasl::SaslCode,
};
use tokio::{io::AsyncWriteExt, task::JoinHandle};
use whimbrel::{
    ErrorKind, Lane, Message,
    auth::{Key, SasToken},
    delivery::Verdict,
    outbox::Queued,
    transport::{
        Answer, CommandSupport, Connection, Greeting, Incoming, Offer, Settlement, Transport,
        amqp::{AmqpConnection, AmqpOptions, AmqpTransport},
    },
};

fn offer() -> Offer {
    Offer { outbox_id: "box".into(), window: 1_000, inbox_window: 16 }
}

fn queued(lane: Lane, sequence: u64, body: impl Into<bytes::Bytes>) -> Queued {
    Queued { lane, sequence, number: sequence, message: Message::in_lane(lane, body) }
}

async fn connect(options: AmqpOptions) -> whimbrel::Result<(AmqpConnection, Greeting)> {
    AmqpTransport::new(options)?.connect(offer()).await
}

/// Connects to a server that does `script`; both results.
async fn with<T, F: Future<Output = T>>(
    change: impl FnOnce(&mut AmqpOptions),
    script: impl FnOnce(Peer) -> F,
) -> (whimbrel::Result<(AmqpConnection, Greeting)>, T) {
    let (listener, address) = listen().await;
    let mut options = options(address);
    change(&mut options);
    tokio::join!(connect(options), async { script(Peer::new(listener.accept().await.unwrap().0)).await })
}

/// A connection and its other end, past the handshake.
async fn pair(manners: Manners) -> (AmqpConnection, Peer) {
    let (connected, peer) = with(
        |_| {},
        async |mut peer| {
            peer.manners = manners;
            peer.let_in().await;
            peer
        },
    )
    .await;
    (connected.unwrap().0, peer)
}

fn stored(lane: Lane, sequence: u64) -> Answer {
    Answer { lane, sequence, verdict: Verdict::Stored { partition: None, sequence: None } }
}

/// Drives in the background; what the connection ends with.
fn driven(mut connection: AmqpConnection) -> JoinHandle<whimbrel::Error> {
    tokio::spawn(async move { end(&mut connection).await })
}

#[tokio::test]
async fn it_says_who_it_is_and_proves_it_by_a_token() {
    let (connected, (init, peer)) = with(
        |_| {},
        async |mut peer| {
            let init = peer.sasl(&["PLAIN", "ANONYMOUS"], SaslCode::Ok).await;
            peer.begin().await;
            peer.tokens(202).await;
            peer.events().await;
            (init, peer)
        },
    )
    .await;
    let (_, greeting) = connected.unwrap();
    assert_eq!(greeting.renew_in, None, "tokens are renewed on the connection");
    assert_eq!(greeting.commands, CommandSupport { abandon_and_reject: true, answers: true });

    assert_eq!((init.mechanism.as_str(), init.hostname.as_deref()), ("ANONYMOUS", Some("h.example")));
    let open = peer.open.as_ref().unwrap();
    assert_eq!((open.container_id.as_str(), open.hostname.as_deref()), ("d#1", Some("h.example")));
    assert_eq!(open.idle_time_out, Some(30_000), "half of what it takes for silence");
    let token = peer.token.as_ref().unwrap();
    assert_eq!(
        (token.operation.as_str(), token.kind.as_str()),
        ("put-token", "servicebus.windows.net:sastoken")
    );
    assert_eq!(token.audience, "h.example/devices/d%231");
    let text = SasToken::parse(&token.text).unwrap();
    assert!(text.is_signed_by(&Key::from_base64(KEY).unwrap()) && text.covers("h.example/devices/d#1"));
    let events = peer.events.as_ref().unwrap();
    assert_eq!(target(events).as_deref(), Some("/devices/d%231/messages/events"));
}

#[tokio::test]
async fn messages_arrive_whole_and_in_order_and_outcomes_find_their_way_back() {
    let (mut connection, mut peer) = pair(Manners::default()).await;
    let alert = Message::alert("hot").message_id("m").property("room", "attic").content_type("text/plain");
    connection.publish(&[Queued { lane: Lane::Alert, sequence: 9, number: 9, message: alert.clone() }]);
    let telemetry: Vec<_> =
        (1..=3).map(|number| queued(Lane::Telemetry, number, format!("{number}"))).collect();
    connection.publish(&telemetry);
    let (incoming, events) = tokio::join!(answers(&mut connection, 4), async {
        let events = peer.events_many(4).await;
        // A range, out of order with the other.
        peer.accept(events[1].id, Some(events[3].id)).await;
        peer.accept(events[0].id, None).await;
        events
    });
    let bodies: Vec<_> = events.iter().map(|event| event.message.body().clone()).collect();
    assert_eq!(bodies, ["hot", "1", "2", "3"]);
    assert_eq!(events[0].message.system(), alert.system());
    assert_eq!(events[0].message.properties(), alert.properties());
    let telemetry = |sequence| stored(Lane::Telemetry, sequence);
    assert_eq!(incoming, [telemetry(1), telemetry(2), telemetry(3), stored(Lane::Alert, 9)]);
}

#[tokio::test]
async fn large_messages_go_in_pieces_that_the_server_takes() {
    let manners = Manners { max_frame: 512, window: 10, ..Manners::default() };
    let (mut connection, mut peer) = pair(manners).await;
    let body: String = (0..20_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    connection.publish(&[queued(Lane::Telemetry, 1, body.clone()), queued(Lane::Telemetry, 2, "after")]);
    let (answers, ()) = tokio::join!(answers(&mut connection, 2), async {
        // The session's window is smaller than the message: it goes on as the window opens.
        let mut whole = Vec::new();
        let mut ids = Vec::new();
        let mut in_window = 0;
        while ids.len() < 2 || !whole.ends_with(b"after") {
            let Said::Transfer(transfer, payload) = peer.word().await else { panic!("transfers only") };
            ids.extend(transfer.delivery_id);
            whole.extend(payload);
            in_window += 1;
            assert!(in_window <= 10, "more than the window");
            if in_window == 10 {
                in_window = 0;
                let flow = peer.flow(None, None);
                peer.send(&flow).await;
            }
        }
        assert!(String::from_utf8_lossy(&whole).contains(&body));
        peer.accept(ids[0], Some(ids[1])).await;
    });
    assert_eq!(answers, [stored(Lane::Telemetry, 1), stored(Lane::Telemetry, 2)]);
}

#[tokio::test]
async fn nothing_is_sent_without_credit() {
    let (mut connection, mut peer) = pair(Manners { credit: 2, ..Manners::default() }).await;
    let all: Vec<_> = (1..=5).map(|number| queued(Lane::Telemetry, number, format!("{number}"))).collect();
    connection.publish(&all);
    let (answers, ()) = tokio::join!(answers(&mut connection, 5), async {
        let two = peer.events_many(2).await;
        let more = tokio::time::timeout(Duration::from_millis(100), peer.said()).await;
        assert!(more.is_err(), "{more:?} came without credit");
        peer.accept(two[0].id, Some(two[1].id)).await;
        // Counted from what the server has seen: three more.
        peer.credit(2, 2, 3).await;
        let rest = peer.events_many(3).await;
        assert_eq!(rest[0].message.body(), "3");
        peer.accept(rest[0].id, Some(rest[2].id)).await;
    });
    assert_eq!(answers.len(), 5);
    assert_eq!(answers[4], stored(Lane::Telemetry, 5));
}

#[tokio::test]
async fn refusals_are_told_apart_by_their_condition() {
    let (mut connection, mut peer) = pair(Manners::default()).await;
    let cases = [
        (rejected("amqp:link:message-size-exceeded"), false),
        (rejected("com.microsoft:argument-error"), false),
        (rejected("amqp:not-allowed"), false),
        (rejected("amqp:decode-error"), false),
        (DeliveryState::Rejected(Rejected { error: None }), false),
        (rejected("com.microsoft:device-container-throttled"), true),
        (rejected("amqp:resource-limit-exceeded"), true),
        (rejected("com.microsoft:quota-exceeded"), true),
        (rejected("amqp:internal-error"), true),
        (rejected("com.microsoft:timeout"), true),
        (rejected("com.microsoft:server-busy"), true),
        (rejected("com.example:unheard-of"), true),
        (DeliveryState::Released(Released {}), true),
        (
            DeliveryState::Modified(Modified {
                delivery_failed: Some(true),
                undeliverable_here: None,
                message_annotations: None,
            }),
            true,
        ),
    ];
    for (sequence, (state, expected)) in (1..).zip(cases) {
        connection.publish(&[queued(Lane::Telemetry, sequence, "x")]);
        let (answers, ()) = tokio::join!(answers(&mut connection, 1), async {
            let event = peer.event().await.unwrap();
            peer.dispose(event.id, None, Some(state.clone())).await;
        });
        let Verdict::Refused { retryable, reason } = &answers[0].verdict else { panic!("{answers:?}") };
        assert_eq!((*retryable, answers[0].sequence), (expected, sequence), "{state:?}: {reason}");
    }
    // What is refused is the device, not the message: that stays in the outbox.
    connection.publish(&[queued(Lane::Telemetry, 99, "x")]);
    let (error, ()) = tokio::join!(end(&mut connection), async {
        let event = peer.event().await.unwrap();
        peer.reject(event.id, "amqp:unauthorized-access").await;
    });
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

#[tokio::test]
async fn a_message_over_the_links_limit_is_refused_here() {
    let (mut connection, mut peer) = pair(Manners { max_message: Some(1_000), ..Manners::default() }).await;
    connection.publish(&[queued(Lane::Telemetry, 1, vec![0; 2_000]), queued(Lane::Telemetry, 2, "fits")]);
    let (answers, ()) = tokio::join!(answers(&mut connection, 2), async {
        let event = peer.event().await.unwrap();
        assert_eq!(event.message.body(), "fits");
        peer.accept(event.id, None).await;
    });
    assert!(matches!(&answers[0].verdict, Verdict::Refused { retryable: false, .. }), "{answers:?}");
    assert_eq!(answers[1], stored(Lane::Telemetry, 2));
}

#[tokio::test]
async fn what_was_acknowledged_before_the_cut_is_told_first() {
    let (mut connection, mut peer) = pair(Manners::default()).await;
    connection.publish(&[queued(Lane::Telemetry, 1, "a"), queued(Lane::Telemetry, 2, "b")]);
    let drive = async {
        let mut incoming = Incoming::default();
        let error = loop {
            if let Err(error) = connection.drive(&mut incoming).await {
                break error;
            }
        };
        (incoming, error)
    };
    let ((incoming, error), ()) = tokio::join!(drive, async {
        let events = peer.events_many(2).await;
        peer.accept(events[0].id, None).await;
        drop(peer);
    });
    assert_eq!(incoming.answers, [stored(Lane::Telemetry, 1)]);
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(end(&mut connection).await.kind(), ErrorKind::Unreachable, "and it stays closed");
}

#[tokio::test]
async fn the_hubs_reason_for_ending_is_kept() {
    for (condition, kind) in [
        ("amqp:link:stolen", ErrorKind::Conflict),
        ("amqp:unauthorized-access", ErrorKind::Unauthorized),
        ("amqp:not-found", ErrorKind::Unauthorized),
        ("amqp:resource-limit-exceeded", ErrorKind::Throttled),
        ("com.microsoft:device-container-throttled", ErrorKind::Throttled),
        ("amqp:connection:forced", ErrorKind::Unreachable),
        ("amqp:link:detach-forced", ErrorKind::Unreachable),
    ] {
        for by in ["detach", "end", "close"] {
            let (mut connection, mut peer) = pair(Manners::default()).await;
            let (error, ()) = tokio::join!(end(&mut connection), async {
                match by {
                    "detach" => peer.detach(2, Some(condition)).await,
                    "end" => peer.send(&End { error: Some(error(condition)) }).await,
                    _ => peer.send(&Close { error: Some(error(condition)) }).await,
                }
            });
            assert_eq!(error.kind(), kind, "{by} {condition}: {error}");
            assert!(
                error.to_string().contains(condition) && error.to_string().contains("because"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_stated_wait_is_passed_on() {
    use fe2o3_amqp_types::{
        definitions::Fields,
        primitives::{Symbol, Value},
    };
    let (mut connection, mut peer) = pair(Manners::default()).await;
    let mut info = Fields::new();
    info.insert(Symbol::from("whimbrel:retry-after"), Value::Uint(2_500));
    let mut said = error("com.microsoft:device-container-throttled");
    said.info = Some(Box::new(info));
    let close = Close { error: Some(said) };
    let (error, ()) = tokio::join!(end(&mut connection), peer.send(&close));
    assert_eq!((error.kind(), error.wait_hint()), (ErrorKind::Throttled, Some(Duration::from_millis(2_500))));
}

#[tokio::test]
async fn who_is_not_let_in_hears_why() {
    type Script = fn(Peer) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let cases: [(Script, ErrorKind); 8] = [
        (
            |mut peer| Box::pin(async move { peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n").await }),
            ErrorKind::Unsupported,
        ),
        (|peer| Box::pin(async move { drop(peer) }), ErrorKind::Unreachable),
        (
            |mut peer| Box::pin(async move { drop(peer.sasl(&["ANONYMOUS"], SaslCode::Auth).await) }),
            ErrorKind::Unauthorized,
        ),
        (
            |mut peer| Box::pin(async move { drop(peer.sasl(&["ANONYMOUS"], SaslCode::SysTemp).await) }),
            ErrorKind::Unreachable,
        ),
        (
            |mut peer| {
                Box::pin(async move {
                    peer.sasl(&["ANONYMOUS"], SaslCode::Ok).await;
                    peer.begin().await;
                    peer.tokens(401).await;
                })
            },
            ErrorKind::Unauthorized,
        ),
        (
            |mut peer| {
                Box::pin(async move {
                    peer.sasl(&["ANONYMOUS"], SaslCode::Ok).await;
                    peer.begin().await;
                    peer.tokens(500).await;
                })
            },
            ErrorKind::Unreachable,
        ),
        (
            |mut peer| {
                Box::pin(async move {
                    peer.sasl(&["ANONYMOUS"], SaslCode::Ok).await;
                    peer.begin().await;
                    peer.tokens(200).await;
                    let attach = loop {
                        if let Said::Attach(attach) = peer.word().await {
                            break attach;
                        }
                    };
                    peer.attach(&attach, true).await;
                    peer.detach(2, Some("amqp:not-found")).await;
                })
            },
            ErrorKind::Unauthorized,
        ),
        (
            |mut peer| {
                Box::pin(async move {
                    peer.sasl(&["ANONYMOUS"], SaslCode::Ok).await;
                    peer.write(b"AMQP\x00\x01\x00\x00").await;
                    peer.write(&[0, 0, 0, 3, 2, 0, 0, 0]).await;
                })
            },
            ErrorKind::Protocol,
        ),
    ];
    for (number, (script, kind)) in cases.into_iter().enumerate() {
        let (connected, ()) = with(|_| {}, script).await;
        let error = connected.map(drop).unwrap_err();
        assert_eq!(error.kind(), kind, "case {number}: {error}");
    }
    // Without the mechanism we need.
    let (connected, _peer) = with(
        |_| {},
        async |mut peer| {
            peer.offer(&["PLAIN", "EXTERNAL"]).await;
            peer
        },
    )
    .await;
    assert_eq!(connected.map(drop).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_server_that_answers_nothing_is_given_up_in_time() {
    let (connected, _peer) =
        with(|options| options.connect_timeout = Duration::from_millis(200), async |peer| peer).await;
    assert_eq!(connected.map(drop).unwrap_err().kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_token_is_renewed_on_the_connection() {
    let (connected, mut peer) = with(
        |options| options.token_lifetime = Duration::from_secs(2),
        async |mut peer| {
            peer.let_in().await;
            peer
        },
    )
    .await;
    let (connection, _) = connected.unwrap();
    let first = peer.token.take().unwrap();
    let driving = driven(connection);
    peer.token(200).await;
    let second = peer.token.take().unwrap();
    assert_ne!((&first.id, &first.text), (&second.id, &second.text));
    // And once more, refused this time.
    peer.token(401).await;
    let error = driving.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

#[tokio::test]
async fn a_token_made_elsewhere_travels_as_it_is() {
    let token = "SharedAccessSignature sr=h.example%2Fdevices%2Fd%231&sig=c2ln&se=4000000000";
    let (connected, peer) = with(
        |options| {
            let text = format!("HostName=h.example;DeviceId=d#1;SharedAccessSignature={token}");
            options.connection_string = text.parse().unwrap();
        },
        async |mut peer| {
            peer.let_in().await;
            peer
        },
    )
    .await;
    connected.unwrap();
    assert_eq!(peer.token.unwrap().text, token);
}

#[tokio::test]
async fn silence_is_noticed_and_the_server_hears_from_us() {
    let (connected, mut peer) = with(
        |options| options.keep_alive = Duration::from_millis(300),
        async |mut peer| {
            peer.manners.idle = Some(200);
            peer.let_in().await;
            peer
        },
    )
    .await;
    let driving = driven(connected.unwrap().0);
    // As long as both say something, it lasts.
    for _ in 0..6 {
        loop {
            let said = tokio::time::timeout(Duration::from_millis(200), peer.said()).await;
            if matches!(said.expect("the server wants to hear something every 200 ms"), Some(Said::Nothing)) {
                break;
            }
        }
        peer.write(&[0, 0, 0, 8, 2, 0, 0, 0]).await;
    }
    let began = tokio::time::Instant::now();
    let error = driving.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_reads_nothing_is_noticed_too() {
    let (connected, peer) = with(
        |options| options.keep_alive = Duration::from_millis(300),
        async |mut peer| {
            peer.let_in().await;
            peer
        },
    )
    .await;
    let (mut connection, _) = connected.unwrap();
    for number in 0..1_000 {
        connection.publish(&[queued(Lane::Telemetry, number, vec![0; 60_000])]);
    }
    assert!(!connection.has_room());
    let error = tokio::time::timeout(Duration::from_secs(5), end(&mut connection)).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    drop(peer);
}

#[tokio::test]
async fn a_server_that_speaks_and_hears_nothing_is_noticed() {
    let (connected, mut peer) = with(
        |options| options.keep_alive = Duration::from_millis(400),
        async |mut peer| {
            peer.let_in().await;
            peer
        },
    )
    .await;
    let mut connection = connected.unwrap().0;
    connection.publish(&[queued(Lane::Telemetry, 1, "into the void")]);
    let driving = driven(connection);
    let beating = async {
        loop {
            peer.stream.write_all(&[0, 0, 0, 8, 2, 0, 0, 0]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        error = driving => assert_eq!(error.unwrap().kind(), ErrorKind::Unreachable),
        () = beating => unreachable!(),
        () = tokio::time::sleep(Duration::from_secs(5)) => panic!("it was not noticed"),
    }
}

#[tokio::test]
async fn a_slow_server_is_asked_and_given_time() {
    let (connected, mut peer) = with(
        |options| options.keep_alive = Duration::from_millis(400),
        async |mut peer| {
            peer.let_in().await;
            peer
        },
    )
    .await;
    let mut connection = connected.unwrap().0;
    connection.publish(&[queued(Lane::Telemetry, 1, "patience")]);
    let (answers, ()) = tokio::join!(answers(&mut connection, 1), async {
        let event = peer.event().await.unwrap();
        // Three times as long as it would take a deaf one to be found out.
        for _ in 0..5 {
            loop {
                match tokio::time::timeout(Duration::from_millis(50), peer.said()).await {
                    Ok(Some(Said::Flow(flow))) if flow.echo => break,
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the client hung up"),
                    Err(_) => peer.write(&[0, 0, 0, 8, 2, 0, 0, 0]).await,
                }
            }
            peer.credit(2, 1, 100).await;
        }
        peer.accept(event.id, None).await;
    });
    assert_eq!(answers, [stored(Lane::Telemetry, 1)]);
}

#[tokio::test]
async fn driving_may_be_cancelled_at_any_point() {
    let (mut connection, mut peer) = pair(Manners { credit: 100_000, ..Manners::default() }).await;
    let server = tokio::spawn(async move { peer.accept_all().await });
    let (mut published, mut incoming) = (0, Incoming::default());
    let mut chance = 7_u64;
    while incoming.answers.len() < 500 {
        while published < 500 && published - incoming.answers.len() < 50 && connection.has_room() {
            let body = format!("{published}");
            connection.publish(&[queued(Lane::Telemetry, published as u64, body)]);
            published += 1;
        }
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let patience = Duration::from_micros(chance >> 56);
        if let Ok(result) = tokio::time::timeout(patience, connection.drive(&mut incoming)).await {
            result.unwrap();
        }
    }
    connection.finish().await;
    let bodies = server.await.unwrap();
    assert_eq!(bodies, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
    let sequences: Vec<_> = incoming.answers.iter().map(|answer| answer.sequence).collect();
    assert_eq!(sequences, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn commands_come_within_the_window_and_each_settlement_is_answered() {
    let (mut connection, mut peer) = pair(Manners::default()).await;
    connection.receive_commands(3);
    let (incoming, ids) = tokio::join!(brought(&mut connection, 3), async {
        assert_eq!(peer.commands(ReceiverSettleMode::Second).await, 3);
        let mut ids = Vec::new();
        for (sequence, pieces) in [(11, 1), (12, 4), (13, 1)] {
            ids.push(peer.command(&format!("command {sequence}"), sequence, pieces).await);
        }
        ids
    });
    let commands = incoming.commands;
    assert_eq!(
        commands.iter().map(|command| command.sequence).collect::<Vec<_>>(),
        [Some(11), Some(12), Some(13)]
    );
    assert_eq!(commands[1].message.body(), "command 12");
    assert_eq!(commands[1].message.system().message_id.as_deref(), Some("id-12"));
    assert_eq!(commands[0].delivery_count, Some(2));
    assert!(commands[0].enqueued_at.is_some());

    // In another order than they came, each with its own outcome.
    connection.settle(&[
        (commands[2].handle, Settlement::Reject),
        (commands[0].handle, Settlement::Complete),
        (commands[1].handle, Settlement::Abandon),
    ]);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 3), async {
        for (id, expected) in [
            (ids[2], DeliveryState::Rejected(Rejected { error: None })),
            (ids[0], DeliveryState::Accepted(Accepted {})),
            (ids[1], DeliveryState::Released(Released {})),
        ] {
            let (said, settled, state) = peer.settled().await;
            assert_eq!((said, settled), (id, false), "the hub settles, in mode second");
            assert_eq!(state, expected);
            peer.settle(id, Some(state)).await;
        }
        assert!(peer.granted().await > 0, "there is room again");
    });
    let handles: Vec<_> = incoming.settled.iter().map(|settled| settled.handle).collect();
    assert_eq!(handles, [commands[2].handle, commands[0].handle, commands[1].handle]);
    assert!(incoming.settled.iter().all(|settled| settled.result.is_ok()), "{:?}", incoming.settled);

    // Once more is an error of the program, and not one of the connection.
    connection.settle(&[(commands[0].handle, Settlement::Complete)]);
    let incoming = brought(&mut connection, 1).await;
    assert_eq!(incoming.settled[0].result.as_ref().unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_lost_lock_is_told() {
    let (mut connection, mut peer) = pair(Manners::default()).await;
    connection.receive_commands(2);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 2), async {
        peer.commands(ReceiverSettleMode::Second).await;
        peer.command("a", 1, 1).await;
        peer.command("b", 2, 1).await;
    });
    let handles: Vec<_> = incoming.commands.iter().map(|command| command.handle).collect();
    connection.settle(&[(handles[0], Settlement::Complete), (handles[1], Settlement::Complete)]);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 2), async {
        let (first, ..) = peer.settled().await;
        peer.settle(first, Some(rejected("com.microsoft:message-lock-lost"))).await;
        let (second, ..) = peer.settled().await;
        peer.settle(second, Some(DeliveryState::Released(Released {}))).await;
    });
    for settled in &incoming.settled {
        assert_eq!(settled.result.as_ref().unwrap_err().kind(), ErrorKind::LockLost, "{settled:?}");
    }
}

#[tokio::test]
async fn a_hub_that_knows_only_mode_first_shows_by_an_echo_what_it_has() {
    let (mut connection, mut peer) = pair(Manners::default()).await;
    connection.receive_commands(2);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 1), async {
        peer.commands(ReceiverSettleMode::First).await;
        peer.command("a", 1, 1).await;
    });
    let handle = incoming.commands[0].handle;
    connection.settle(&[(handle, Settlement::Complete)]);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 1), async {
        let (_, settled, _) = peer.settled().await;
        assert!(settled, "in mode first we settle");
        loop {
            match peer.word().await {
                Said::Flow(flow) if flow.echo => break,
                Said::Flow(_) => {}
                said => panic!("{said:?}"),
            }
        }
        let flow = peer.flow(Some(3), Some((1, 1)));
        peer.send(&flow).await;
    });
    assert_eq!(incoming.settled[0].handle, handle);
    assert!(incoming.settled[0].result.is_ok());
}

#[tokio::test]
async fn a_hub_that_sends_no_commands_says_why_and_takes_messages_on() {
    let (mut connection, mut peer) = pair(Manners::default()).await;
    connection.receive_commands(2);
    let mut incoming = Incoming::default();
    let drive = async {
        while incoming.refused.is_none() {
            connection.drive(&mut incoming).await.unwrap();
        }
    };
    tokio::join!(drive, async {
        let attach = loop {
            if let Said::Attach(attach) = peer.word().await {
                break attach;
            }
        };
        peer.attach(&attach, true).await;
        peer.detach(3, Some("amqp:not-allowed")).await;
    });
    let refused = incoming.refused.unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    connection.publish(&[queued(Lane::Telemetry, 1, "on")]);
    let (answers, ()) = tokio::join!(answers(&mut connection, 1), async {
        assert!(matches!(peer.word().await, Said::Detach(_)));
        let event = peer.event().await.unwrap();
        peer.accept(event.id, None).await;
    });
    assert_eq!(answers, [stored(Lane::Telemetry, 1)]);
}

#[tokio::test]
async fn a_command_that_cannot_be_read_is_rejected_and_the_rest_goes_on() {
    let (mut connection, mut peer) = pair(Manners::default()).await;
    connection.receive_commands(4);
    let (incoming, ()) = tokio::join!(brought(&mut connection, 1), async {
        peer.commands(ReceiverSettleMode::Second).await;
        // A body of a sequence, and one that is nothing at all.
        let broken = [
            peer.message(3, b"\x00\x53\x76\x45", false, 1).await,
            peer.message(3, b"\x00\x53\x75\xb0\xff\xff\xff\xffx", false, 1).await,
        ];
        for id in broken {
            let (said, _, state) = peer.settled().await;
            assert_eq!(said, id);
            assert!(matches!(state, DeliveryState::Rejected(_)));
            peer.settle(id, Some(state)).await;
        }
        peer.command("good", 3, 1).await;
    });
    assert_eq!(incoming.commands[0].message.body(), "good");
    assert!(incoming.settled.is_empty(), "nobody asked for these");
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_connection() {
    for bytes in [
        &b"\x00\x00\x00\x05\x02\x00\x00\x00"[..],
        b"\xff\x00\x00\x08\x02\x00\x00\x00",
        b"\x00\x00\x00\x0c\x02\x00\x00\x05\x00\x53\x99\x45",
        b"\x00\x00\x00\x0c\x02\x00\x00\x05\x00\x53\x15\x45",
        b"\x00\x00\x00\x0c\x02\x00\x00\x63\x00\x53\x13\x45",
        b"\x00\x00\x00\x0c\x02\x01\x00\x05\x00\x53\x40\x45",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let (mut connection, mut peer) = pair(Manners::default()).await;
        let (error, ()) = tokio::join!(end(&mut connection), peer.write(bytes));
        assert_eq!(error.kind(), ErrorKind::Protocol, "{bytes:?}: {error}");
    }
    // Outcomes of what was never sent.
    let (mut connection, mut peer) = pair(Manners::default()).await;
    let (error, ()) = tokio::join!(end(&mut connection), peer.accept(7, None));
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    // More commands than there is credit for.
    let (mut connection, mut peer) = pair(Manners::default()).await;
    connection.receive_commands(1);
    let (error, ()) = tokio::join!(end(&mut connection), async {
        peer.commands(ReceiverSettleMode::Second).await;
        peer.command("a", 1, 1).await;
        peer.command("b", 2, 1).await;
    });
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[tokio::test]
async fn goodbye_is_said_after_everything_else() {
    let (mut connection, mut peer) = pair(Manners::default()).await;
    connection.publish(&[queued(Lane::Telemetry, 1, "last")]);
    // Until the credit is there.
    let _ = tokio::time::timeout(Duration::from_millis(50), connection.drive(&mut Incoming::default())).await;
    let ((), ()) = tokio::join!(connection.finish(), async {
        assert_eq!(peer.event().await.unwrap().message.body(), "last");
        assert!(matches!(peer.word().await, Said::Close(_)));
        peer.stream.shutdown().await.unwrap();
    });
}
