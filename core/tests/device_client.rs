//! The device client against a server that does what the test says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod device_support;

use std::{net::SocketAddr, time::Duration};

use device_support::{Peer, Server, connection_string};
use tokio::net::TcpStream;
use whimbrel::{
    Account, ConnectionState, DeviceClient, DeviceOptions, ErrorKind, Message, Outcome, ReceiptState,
    device::Protocol,
};

/// Long enough that only a hang reaches it.
const LONG: Duration = Duration::from_secs(30);

fn options(address: SocketAddr) -> DeviceOptions {
    DeviceOptions::from_connection_string(&connection_string())
        .unwrap()
        .server(format!("mqtt://{address}"))
        .protocol(Protocol::Mqtt5)
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .close_deadline(LONG)
}

async fn open(address: SocketAddr) -> DeviceClient {
    DeviceClient::open(options(address).outbox_in_memory()).await.unwrap()
}

/// The next connection, past the handshake.
async fn accept(server: &Server) -> Peer<TcpStream> {
    let mut peer = server.accept().await;
    peer.hello().await;
    peer.welcome().await;
    peer
}

fn telemetry(count: usize) -> impl Iterator<Item = Message> {
    (1..=count).map(|number| Message::telemetry(format!("t{number}")))
}

fn bodies(published: &[device_support::Published]) -> Vec<&str> {
    published.iter().map(|published| std::str::from_utf8(&published.body).unwrap()).collect()
}

const DELIVERED: Outcome = Outcome::Delivered { partition: None, sequence: None };

#[tokio::test]
async fn a_message_ends_where_the_hub_says() {
    let (server, address) = Server::start().await;
    let device = open(address).await;
    let receipt = device.send(Message::telemetry("x")).await.unwrap();
    let mut peer = accept(&server).await;
    let published = peer.published().await.unwrap();
    assert_eq!(receipt.state(), ReceiptState::Sent);
    peer.answer(published.packet_id, 0, &[("whimbrel-at", "3:99")]).await;
    let place = Outcome::Delivered { partition: Some(3), sequence: Some(99) };
    assert_eq!(receipt.outcome().await.unwrap(), place);
    assert_eq!(device.account(), Account { accepted: 1, delivered: 1, ..Account::default() });
    assert_eq!(*device.connection().borrow(), ConnectionState::Connected);
    let (closed, rest) = tokio::join!(device.close(), peer.published());
    closed.unwrap();
    assert!(rest.is_none());
}

#[tokio::test]
async fn nothing_waits_for_a_network_and_nothing_is_lost_without_one() {
    // More than is read at a time, and than the window takes.
    const BACKLOG: usize = 3_000;
    let folder = tempfile::tempdir().unwrap();
    // A port where nobody listens.
    let (server, address) = Server::start().await;
    drop(server);
    let offline = options(address).close_deadline(Duration::ZERO).outbox_dir(folder.path());
    let device = DeviceClient::open(offline.clone()).await.unwrap();
    let receipts = device.send_all(telemetry(BACKLOG)).await.unwrap();
    assert_eq!(device.flush(Duration::ZERO).await.unwrap(), BACKLOG as u64);
    device.close().await.unwrap();
    assert_eq!(*device.connection().borrow(), ConnectionState::Closed);
    assert_eq!(receipts[0].outcome().await.unwrap_err().kind(), ErrorKind::Closed);

    let (server, address) = Server::start().await;
    let online = offline.server(format!("mqtt://{address}"));
    let device = DeviceClient::open(online).await.unwrap();
    let receipt = device.receipt(receipts[BACKLOG - 1].message_id()).await.unwrap().unwrap();
    let peer = accept(&server).await;
    let (left, published) = tokio::join!(
        async {
            let left = device.flush(LONG).await.unwrap();
            device.close().await.unwrap();
            left
        },
        peer.acknowledge_all()
    );
    assert_eq!((left, published.len()), (0, BACKLOG));
    assert!(bodies(&published).into_iter().eq((1..=BACKLOG).map(|number| format!("t{number}"))));
    assert_eq!(receipt.state(), ReceiptState::Settled(DELIVERED));
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_in_order_under_the_same_name() {
    let (server, address) = Server::start().await;
    let device = open(address).await;
    device.send_all(telemetry(5)).await.unwrap();
    let mut peer = accept(&server).await;
    let first = peer.published_many(5).await;
    // The third is acknowledged out of turn.
    for at in [0, 2] {
        peer.ack(first[at].packet_id).await;
    }
    while device.account().delivered < 2 {
        tokio::task::yield_now().await;
    }
    drop(peer);
    device.connection().wait_for(|state| *state != ConnectionState::Connected).await.unwrap();

    device.send(Message::telemetry("t6")).await.unwrap();
    let mut peer = accept(&server).await;
    let second = peer.published_many(4).await;
    assert_eq!(bodies(&second), ["t2", "t4", "t5", "t6"]);
    for (before, after) in [(1, 0), (3, 1), (4, 2)] {
        for name in ["whimbrel-n", "message-id"] {
            assert_eq!(first[before].user[name], second[after].user[name]);
        }
    }
    for published in &second {
        peer.ack(published.packet_id).await;
    }
    assert_eq!(device.flush(LONG).await.unwrap(), 0);
    assert_eq!(device.account().delivered, 6);
    assert_eq!(device.counters().sent, 9);
}

#[tokio::test]
async fn an_alert_overtakes_what_has_not_been_sent() {
    let (server, address) = Server::start().await;
    let device = open(address).await;
    device.send_all(telemetry(10)).await.unwrap();
    let mut peer = server.accept().await;
    peer.hello().await;
    peer.welcome_with(2).await;
    let first = peer.published_many(2).await;
    device.send(Message::alert("hot")).await.unwrap();
    peer.ack(first[0].packet_id).await;
    let next = peer.published().await.unwrap();
    assert_eq!((&next.body[..], &next.user["whimbrel-n"][..1]), (&b"hot"[..], "a"));
}

#[tokio::test]
async fn the_window_holds_against_a_server_that_is_slow_to_answer() {
    let (server, address) = Server::start().await;
    let options = options(address).window(3).outbox_in_memory();
    let device = DeviceClient::open(options).await.unwrap();
    device.send_all(telemetry(50)).await.unwrap();
    let mut peer = accept(&server).await;
    let mut open: std::collections::VecDeque<_> = peer.published_many(3).await.into();
    let mut all = Vec::new();
    while let Some(published) = open.pop_front() {
        peer.ack(published.packet_id).await;
        all.push(published);
        if all.len() <= 47 {
            open.push_back(peer.published().await.unwrap());
        }
        assert!(open.len() <= 3);
    }
    assert!(bodies(&all).into_iter().eq((1..=50).map(|number| format!("t{number}"))));
}

#[tokio::test]
async fn another_client_with_our_name_is_told_of_and_nothing_is_lost() {
    let (server, address) = Server::start().await;
    let device = open(address).await;
    let mut connection = device.connection();
    let receipt = device.send(Message::telemetry("x")).await.unwrap();
    let mut peer = accept(&server).await;
    peer.published().await.unwrap();
    peer.send(&[0xe0, 1, 0x8e]).await;
    let told = |state: &ConnectionState| matches!(state, ConnectionState::Disconnected { reason: Some(reason) } if reason.contains("took it over"));
    connection.wait_for(told).await.unwrap();
    assert_eq!(receipt.state(), ReceiptState::Queued);
    tokio::join!(accept(&server).await.acknowledge_all(), device.close()).1.unwrap();
    assert_eq!(receipt.outcome().await.unwrap(), DELIVERED);
}

#[tokio::test]
async fn refused_credentials_are_told_of_and_tried_again() {
    let (server, address) = Server::start().await;
    let device = open(address).await;
    let receipt = device.send(Message::telemetry("x")).await.unwrap();
    let mut connection = device.connection();
    let mut peer = server.accept().await;
    peer.hello().await;
    peer.send(&[0x20, 3, 0, 0x87, 0]).await;
    connection.wait_for(|state| matches!(state, ConnectionState::Unauthorized { .. })).await.unwrap();
    tokio::join!(accept(&server).await.acknowledge_all(), device.close()).1.unwrap();
    assert_eq!(receipt.outcome().await.unwrap(), DELIVERED);
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end_and_nothing_is_sent_twice() {
    let (server, address) = Server::start().await;
    let options = options(address).token_lifetime(Duration::from_secs(1)).outbox_in_memory();
    let device = DeviceClient::open(options).await.unwrap();
    let server = async {
        let mut all = Vec::new();
        let mut expiries = Vec::new();
        for _ in 0..3 {
            let mut peer = server.accept().await;
            expiries.push(peer.hello().await.user["sas-expiry"].parse::<u64>().unwrap());
            peer.welcome().await;
            all.extend(peer.acknowledge_all().await);
        }
        (all, expiries)
    };
    let client = async {
        let mut connection = device.connection();
        let mut sent = 0;
        let mut connected = 0;
        while connected < 3 {
            device.send(Message::telemetry("x")).await.unwrap();
            sent += 1;
            if connection.has_changed().unwrap()
                && *connection.borrow_and_update() == ConnectionState::Connected
            {
                connected += 1;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        device.close().await.unwrap();
        sent
    };
    let ((all, expiries), sent) = tokio::join!(server, client);
    assert!(expiries.windows(2).all(|pair| pair[1] - pair[0] >= 800), "{expiries:?}");
    let mut numbers: Vec<_> = all.iter().map(|published| &published.user["whimbrel-n"]).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), sent);
}

#[tokio::test]
async fn a_refusal_for_good_ends_one_message() {
    let (server, address) = Server::start().await;
    let device = open(address).await;
    let receipts = device.send_all(telemetry(3)).await.unwrap();
    let mut peer = accept(&server).await;
    let published = peer.published_many(3).await;
    peer.ack(published[0].packet_id).await;
    peer.answer(published[1].packet_id, 0x83, &[("status", "0100"), ("reason", "too blue")]).await;
    peer.ack(published[2].packet_id).await;
    assert_eq!(device.flush(LONG).await.unwrap(), 0);
    let Outcome::Rejected { reason } = receipts[1].outcome().await.unwrap() else { panic!() };
    assert!(reason.contains("too blue"), "{reason}");
    assert_eq!(device.account(), Account { accepted: 3, delivered: 2, rejected: 1, ..Account::default() });
}

#[tokio::test]
async fn a_refusal_for_now_starts_the_lane_over_from_it() {
    let (server, address) = Server::start().await;
    let device = open(address).await;
    device.send_all(telemetry(4)).await.unwrap();
    let mut peer = accept(&server).await;
    let first = peer.published_many(4).await;
    peer.ack(first[0].packet_id).await;
    for published in &first[1..] {
        peer.answer(published.packet_id, 0x97, &[("status", "0501")]).await;
    }
    assert!(peer.published().await.is_none(), "the client says goodbye");
    let mut peer = accept(&server).await;
    let second = peer.published_many(3).await;
    for (before, after) in first[1..].iter().zip(&second) {
        assert_eq!(before.user["whimbrel-n"], after.user["whimbrel-n"]);
        peer.ack(after.packet_id).await;
    }
    assert_eq!(device.flush(LONG).await.unwrap(), 0);
    assert_eq!(device.account().delivered, 4);
}

#[tokio::test]
async fn what_the_server_speaks_is_found_out() {
    let (server, address) = Server::start().await;
    let device =
        DeviceClient::open(options(address).protocol(Protocol::Auto).outbox_in_memory()).await.unwrap();
    let receipt = device.send(Message::telemetry("x")).await.unwrap();
    let mut peer = server.accept().await;
    assert_eq!(peer.hello().await.level, 5);
    peer.send(&[0x20, 2, 0, 1]).await;
    for _ in 0..2 {
        let mut peer = server.accept().await;
        assert_eq!(peer.hello().await.level, 4);
        peer.welcome().await;
        let published = peer.published().await.unwrap();
        assert!(published.topic.starts_with("devices/d1/messages/events/"));
    }
    assert_ne!(receipt.state(), ReceiptState::Settled(DELIVERED));
}

#[tokio::test]
async fn closing_waits_for_the_answers_and_takes_no_more() {
    let (server, address) = Server::start().await;
    let device = open(address).await;
    device.send_all(telemetry(2)).await.unwrap();
    let mut peer = accept(&server).await;
    let published = peer.published_many(2).await;
    // Cancelled: the closing goes on.
    tokio::select! {
        biased;
        _ = device.close() => panic!("not everything is acknowledged"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(device.send(Message::telemetry("x")).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(device.flush(LONG).await.unwrap_err().kind(), ErrorKind::Closed);
    let clone = device.clone();
    let (first, second, ()) = tokio::join!(device.close(), clone.close(), async {
        for published in &published {
            peer.ack(published.packet_id).await;
        }
        assert!(peer.published().await.is_none());
    });
    first.and(second).unwrap();
    device.close().await.unwrap();
    assert_eq!(device.account(), Account { accepted: 2, delivered: 2, ..Account::default() });
}

#[tokio::test]
async fn the_last_clone_closes_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let options = options(address).outbox_dir(folder.path());
    let device = DeviceClient::open(options.clone()).await.unwrap();
    assert_eq!(DeviceClient::open(options.clone()).await.unwrap_err().kind(), ErrorKind::InUse);
    let mut connection = device.connection();
    device.send(Message::telemetry("x")).await.unwrap();
    drop(device);
    let published = accept(&server).await.acknowledge_all().await;
    assert_eq!(published.len(), 1);
    connection.wait_for(|state| *state == ConnectionState::Closed).await.unwrap();
    let device = DeviceClient::open(options).await.unwrap();
    assert_eq!(device.account(), Account { accepted: 1, delivered: 1, ..Account::default() });
}

#[tokio::test]
async fn cancelled_calls_lose_nothing() {
    let (server, address) = Server::start().await;
    let device = open(address).await;
    let peer = tokio::spawn(async move { accept(&server).await.acknowledge_all().await });
    let mut sure = 0;
    for round in 0..200u64 {
        tokio::select! {
            biased;
            result = device.send_all(telemetry(3)) => { result.unwrap(); sure += 3; }
            () = yields(round % 7) => {}
        }
        tokio::select! {
            biased;
            left = device.flush(LONG) => drop(left.unwrap()),
            () = yields(round % 3) => {}
        }
    }
    device.close().await.unwrap();
    let account = device.account();
    assert!(account.accepted >= sure && account.accepted <= 600 && account.accepted % 3 == 0, "{account:?}");
    assert_eq!(account.delivered, account.accepted);
    assert_eq!(peer.await.unwrap().len() as u64, account.accepted);
}

async fn yields(count: u64) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn options_that_cannot_work_are_refused_by_name() {
    let fine = || options("127.0.0.1:1".parse().unwrap()).outbox_in_memory();
    let none = DeviceOptions::from_connection_string(&connection_string()).unwrap();
    let zero = Duration::ZERO;
    for (options, part) in [
        (none, "outbox"),
        (fine().server("hub"), "scheme"),
        (fine().server("mqtt://192.0.2.1"), "unencrypted"),
        (fine().window(0), "window"),
        (fine().backoff(zero, zero), "backoff"),
        (fine().backoff(LONG, Duration::from_secs(1)), "backoff"),
        (fine().keep_alive(zero), "keep-alive"),
        (fine().connect_timeout(zero), "timeout"),
        (fine().token_lifetime(zero), "token"),
        (fine().proxy("ftp://x"), "proxy"),
        (fine().server("mqtts://localhost").ca_file("/nonexistent"), "CA file"),
        (fine().server("mqtts://localhost").client_certificate("/nonexistent", "/x"), "client certificate"),
    ] {
        let error = DeviceClient::open(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    let x509 = DeviceOptions::from_connection_string("HostName=h;DeviceId=d;x509=true").unwrap();
    let error = DeviceClient::open(x509.outbox_in_memory()).await.unwrap_err();
    assert!(error.to_string().contains("client certificate"), "{error}");
    let allowed = fine().server("mqtt://192.0.2.1").allow_unencrypted().close_deadline(zero);
    DeviceClient::open(allowed).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn options_print_no_secrets() {
    let options = options("127.0.0.1:1".parse().unwrap()).proxy("http://me:secret@p").ca_pem("secret");
    let text = format!("{options:?}");
    assert!(!text.contains("secret") && !text.contains(device_support::KEY), "{text}");
}
