//! Commands received and settled by the device client, against a server that does what the test says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod device_support;

use std::{future::Future, net::SocketAddr, path::Path, time::Duration};

use device_support::{AboutCommands, Peer, Sent, Server, connection_string};
use tokio::net::TcpStream;
use whimbrel::{
    Command, ConnectionState, DeviceClient, DeviceOptions, ErrorKind, Message, Result, device::Protocol,
};

/// Long enough that only a hang reaches it.
const LONG: Duration = Duration::from_secs(30);
const BOTH: [Protocol; 2] = [Protocol::Mqtt3, Protocol::Mqtt5];

fn options(address: SocketAddr, protocol: Protocol) -> DeviceOptions {
    DeviceOptions::from_connection_string(&connection_string())
        .unwrap()
        .server(format!("mqtt://{address}"))
        .protocol(protocol)
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .close_deadline(LONG)
}

async fn open(address: SocketAddr, protocol: Protocol) -> DeviceClient {
    DeviceClient::open(options(address, protocol).outbox_in_memory()).await.unwrap()
}

/// The next connection, past the handshake.
async fn accept(server: &Server) -> Peer<TcpStream> {
    let mut peer = server.accept().await;
    peer.hello().await;
    peer.welcome().await;
    peer
}

/// A client that has subscribed, and its server.
async fn subscribed(protocol: Protocol) -> (Server, DeviceClient, Peer<TcpStream>) {
    let (server, address) = Server::start().await;
    let device = open(address, protocol).await;
    device.inbox();
    let mut peer = accept(&server).await;
    peer.granted().await;
    (server, device, peer)
}

async fn next(device: &DeviceClient) -> Command {
    tokio::time::timeout(LONG, device.inbox().next()).await.expect("a command").unwrap().expect("open")
}

/// Nothing is handed out, and what was sent before has arrived: an event makes its way behind it.
async fn nothing_comes(device: &DeviceClient, peer: &mut Peer<TcpStream>) {
    let inbox = device.inbox();
    let receipt = device.send(Message::telemetry("marker")).await.unwrap();
    let server = async {
        let published = peer.published().await.expect("the marker");
        peer.ack(published.packet_id).await;
        receipt.outcome().await.unwrap();
    };
    tokio::select! {
        biased;
        command = inbox.next() => panic!("{command:?}"),
        () = server => {}
    }
}

#[tokio::test]
async fn a_command_is_received_and_completed() {
    for protocol in BOTH {
        let (server, address) = Server::start().await;
        let device = open(address, protocol).await;
        let inbox = device.inbox();
        let mut peer = server.accept().await;
        let hello = peer.hello().await;
        assert!(!hello.clean, "the hub is to keep the subscription");
        if protocol == Protocol::Mqtt5 {
            assert_eq!((hello.receive_maximum, hello.session_expiry), (Some(16), Some(172_800)));
        }
        peer.welcome().await;
        let filter = peer.granted().await;
        let expected = match protocol {
            Protocol::Mqtt3 => "devices/d1/messages/devicebound/#",
            _ => "$iothub/commands",
        };
        assert_eq!(filter, expected);

        let mut sent = Sent::new(7, "reboot");
        sent.message = sent.message.property("urgent", "yes");
        sent.delivery_count = 2;
        peer.command(9, &sent).await;
        let command = inbox.next().await.unwrap().unwrap();
        assert_eq!((&command.body()[..], command.message_id()), (&b"reboot"[..], Some("m-7")));
        assert_eq!(command.properties().get("urgent"), Some("yes"));
        if protocol == Protocol::Mqtt5 {
            assert_eq!((command.sequence(), command.delivery_count()), (Some(7), Some(2)));
            assert!(command.enqueued_at().is_some());
        } else {
            assert_eq!(
                (command.sequence(), command.enqueued_at(), command.delivery_count()),
                (None, None, None)
            );
        }
        command.complete().await.unwrap();
        assert_eq!(peer.settled().await, (9, 0, None));
        let (closed, ()) = tokio::join!(device.close(), peer.gone());
        closed.unwrap();
        assert!(inbox.next().await.unwrap().is_none());
    }
}

/// Polls a future a few times and drops it.
async fn cancelled<T>(future: impl Future<Output = T>, polls: u32) -> Option<T> {
    tokio::select! {
        biased;
        result = future => Some(result),
        () = async { for _ in 1..polls { tokio::task::yield_now().await } } => None,
    }
}

/// A client that keeps its outbox in a folder.
async fn open_in(folder: &Path, address: SocketAddr, protocol: Protocol) -> DeviceClient {
    let options = options(address, protocol).close_deadline(Duration::ZERO).outbox_dir(folder);
    DeviceClient::open(options).await.unwrap()
}

/// The next connection of a client that has asked for commands before, past handshake and SUBSCRIBE.
async fn again(server: &Server) -> Peer<TcpStream> {
    let mut peer = accept(server).await;
    peer.granted().await;
    peer
}

async fn disconnected(device: &DeviceClient) {
    let mut state = device.connection();
    state.wait_for(|state| !matches!(state, ConnectionState::Connected)).await.unwrap();
}

#[tokio::test]
async fn what_a_stored_session_brings_before_anybody_asked_is_kept_and_not_acknowledged() {
    for protocol in BOTH {
        let (server, address) = Server::start().await;
        let device = open(address, protocol).await;
        let mut peer = accept(&server).await;
        for number in 1..=16 {
            peer.command(number, &Sent::new(number.into(), "x")).await;
        }
        // An event is the first the server hears; a PUBACK in front of it would end the test.
        let receipt = device.send(Message::telemetry("event")).await.unwrap();
        let published = peer.published().await.unwrap();
        peer.ack(published.packet_id).await;
        receipt.outcome().await.unwrap();

        let inbox = device.inbox();
        peer.granted().await;
        for number in 1..=16u16 {
            let command = inbox.next().await.unwrap().unwrap();
            assert_eq!(command.message_id(), Some(format!("m-{number}").as_str()));
            command.complete().await.unwrap();
            assert_eq!(peer.settled().await, (number, 0, None));
        }
    }
}

#[tokio::test]
async fn commands_are_settled_later_in_any_order_from_any_task() {
    for protocol in BOTH {
        let (_server, device, mut peer) = subscribed(protocol).await;
        for number in 1..=3 {
            peer.command(number, &Sent::new(number.into(), "x")).await;
        }
        let mut commands = Vec::new();
        for _ in 0..3 {
            commands.push(next(&device).await);
        }
        nothing_comes(&device, &mut peer).await;
        for number in [2u16, 3, 1] {
            let at = commands.iter().position(|command| command.message_id() == Some(&format!("m-{number}")));
            let command = commands.remove(at.unwrap());
            tokio::spawn(async move { command.complete().await }).await.unwrap().unwrap();
            assert_eq!(peer.settled().await, (number, 0, None));
        }
    }
}

#[tokio::test]
async fn what_was_completed_is_not_handed_out_again_after_a_cut_and_a_restart() {
    for protocol in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let (server, address) = Server::start().await;
        let device = open_in(folder.path(), address, protocol).await;
        device.inbox();
        let mut peer = again(&server).await;
        for number in 1..=2 {
            peer.command(number, &Sent::new(number.into(), "x")).await;
        }
        next(&device).await.complete().await.unwrap();
        let second = next(&device).await;
        // Whether the server got the PUBACK nobody can know: nothing that came after it was answered.
        drop(peer);
        device.close().await.unwrap();
        drop(second);

        let device = open_in(folder.path(), address, protocol).await;
        device.inbox();
        let mut peer = again(&server).await;
        for number in 1..=2 {
            peer.command(number + 10, &Sent::new(number.into(), "x")).await;
        }
        assert_eq!(peer.settled().await, (11, 0, None), "settled by itself");
        let second = next(&device).await;
        assert_eq!(second.message_id(), Some("m-2"), "what was not settled comes again, and nothing else");
        // Now the server answers a ping or an event behind the PUBACK, and the record is of no more use.
        nothing_comes(&device, &mut peer).await;
        device.close().await.unwrap();
        drop((second, peer));

        let device = open_in(folder.path(), address, protocol).await;
        device.inbox();
        let mut peer = again(&server).await;
        peer.command(21, &Sent::new(1, "x")).await;
        assert_eq!(next(&device).await.message_id(), Some("m-1"), "forgotten");
        device.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_rejection_is_repeated_as_a_rejection() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let device = open_in(folder.path(), address, Protocol::Mqtt5).await;
    device.inbox();
    let mut peer = again(&server).await;
    peer.command(1, &Sent::new(1, "x")).await;
    next(&device).await.reject().await.unwrap();
    drop(peer);
    device.close().await.unwrap();
    let device = open_in(folder.path(), address, Protocol::Mqtt5).await;
    let mut peer = accept(&server).await;
    peer.command(2, &Sent::new(1, "x")).await;
    assert_eq!(peer.settled().await, (2, 0x83, Some("status=0100".into())), "also before inbox() is called");
    device.close().await.unwrap();
}

#[tokio::test]
async fn mqtt_3_can_only_complete_and_says_so() {
    let (_server, device, mut peer) = subscribed(Protocol::Mqtt3).await;
    peer.command(1, &Sent::new(1, "x")).await;
    let command = next(&device).await;
    for error in [command.abandon().await.unwrap_err(), command.reject().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    nothing_comes(&device, &mut peer).await;
    command.complete().await.unwrap();
    assert_eq!(peer.settled().await, (1, 0, None));
}

#[tokio::test]
async fn mqtt_5_says_what_is_meant() {
    let (_server, device, mut peer) = subscribed(Protocol::Mqtt5).await;
    for number in 1..=3 {
        peer.command(number, &Sent::new(number.into(), "x")).await;
    }
    next(&device).await.abandon().await.unwrap();
    assert_eq!(peer.settled().await, (1, 0x83, Some("status=0603".into())));
    next(&device).await.reject().await.unwrap();
    assert_eq!(peer.settled().await, (2, 0x83, Some("status=0100".into())));
    next(&device).await.complete().await.unwrap();
    assert_eq!(peer.settled().await, (3, 0, None));
    // What was abandoned comes again.
    peer.command(1, &Sent { delivery_count: 1, ..Sent::new(1, "x") }).await;
    let again = next(&device).await;
    assert_eq!((again.message_id(), again.delivery_count()), (Some("m-1"), Some(1)));
}

#[tokio::test]
async fn settling_twice_says_how_it_was_settled() {
    let (_server, device, mut peer) = subscribed(Protocol::Mqtt5).await;
    for number in 1..=3 {
        peer.command(number, &Sent::new(number.into(), "x")).await;
    }
    for how in ["completed", "abandoned", "rejected"] {
        let command = next(&device).await;
        match how {
            "completed" => command.complete().await,
            "abandoned" => command.abandon().await,
            _ => command.reject().await,
        }
        .unwrap();
        peer.settled().await;
        for second in [command.complete().await, command.abandon().await, command.reject().await] {
            let error = second.unwrap_err();
            assert_eq!(
                (error.kind(), error.details()),
                (ErrorKind::Conflict, &[("settled", how.to_owned())][..])
            );
        }
    }
    nothing_comes(&device, &mut peer).await;
}

#[tokio::test]
async fn what_the_program_has_in_hand_gets_the_lock_of_its_redelivery() {
    for protocol in BOTH {
        let (server, device, mut peer) = subscribed(protocol).await;
        peer.command(1, &Sent::new(1, "x")).await;
        peer.command(2, &Sent::new(2, "not taken")).await;
        let command = next(&device).await;
        drop(peer);
        let mut peer = again(&server).await;
        peer.command(8, &Sent::new(1, "x")).await;
        peer.command(9, &Sent::new(2, "not taken")).await;
        assert_eq!(next(&device).await.message_id(), Some("m-2"), "the first is in hand");
        nothing_comes(&device, &mut peer).await;
        command.complete().await.unwrap();
        assert_eq!(peer.settled().await, (8, 0, None));
    }
}

#[tokio::test]
async fn completing_without_a_connection_settles_the_redelivery() {
    for protocol in BOTH {
        let (server, device, mut peer) = subscribed(protocol).await;
        peer.command(1, &Sent::new(1, "x")).await;
        let command = next(&device).await;
        drop(peer);
        disconnected(&device).await;
        command.complete().await.unwrap();
        let mut peer = again(&server).await;
        peer.command(5, &Sent::new(1, "x")).await;
        assert_eq!(peer.settled().await, (5, 0, None));
        nothing_comes(&device, &mut peer).await;
    }
}

#[tokio::test]
async fn abandoning_without_a_connection_finds_the_lock_lost_and_the_command_comes_again() {
    let (server, device, mut peer) = subscribed(Protocol::Mqtt5).await;
    peer.command(1, &Sent::new(1, "x")).await;
    let command = next(&device).await;
    drop(peer);
    disconnected(&device).await;
    for _ in 0..2 {
        assert_eq!(command.abandon().await.unwrap_err().kind(), ErrorKind::LockLost);
    }
    assert_eq!(command.complete().await.unwrap_err().kind(), ErrorKind::LockLost);
    let mut peer = again(&server).await;
    peer.command(5, &Sent::new(1, "x")).await;
    next(&device).await.complete().await.unwrap();
    assert_eq!(peer.settled().await, (5, 0, None));
}

#[tokio::test]
async fn a_lock_that_ran_out_is_replaced_and_both_deliveries_are_settled() {
    for protocol in BOTH {
        let (_server, device, mut peer) = subscribed(protocol).await;
        peer.command(1, &Sent::new(1, "x")).await;
        let kept = next(&device).await;
        peer.command(2, &Sent::new(2, "y")).await;
        drop(next(&device).await);
        // The hub took the locks back, and delivers again on the same connection.
        peer.command(3, &Sent::new(1, "x")).await;
        peer.command(4, &Sent::new(2, "y")).await;
        let second = next(&device).await;
        assert_eq!(second.message_id(), Some("m-2"), "what was dropped is handed out again");
        nothing_comes(&device, &mut peer).await;
        for (command, mut expected) in [(kept, [1, 3]), (second, [2, 4])] {
            command.complete().await.unwrap();
            let mut settled = [peer.settled().await.0, peer.settled().await.0];
            settled.sort_unstable();
            expected.sort_unstable();
            assert_eq!(settled, expected);
        }
    }
}

#[tokio::test]
async fn a_repetition_of_what_is_in_hand_is_not_handed_out() {
    for protocol in BOTH {
        let (_server, device, mut peer) = subscribed(protocol).await;
        let plain = Sent { message: Message::telemetry("no id"), ..Sent::new(1, "x") };
        peer.command(1, &plain).await;
        let command = next(&device).await;
        peer.command_as(0x3a, 1, &plain).await;
        nothing_comes(&device, &mut peer).await;
        command.complete().await.unwrap();
        assert_eq!(peer.settled().await, (1, 0, None));
        // The identifier is free, and means something else.
        peer.command(1, &Sent::new(2, "y")).await;
        assert_eq!(&next(&device).await.body()[..], b"y");
    }
}

#[tokio::test]
async fn two_commands_that_look_alike_on_mqtt_3_are_two() {
    let (_server, device, mut peer) = subscribed(Protocol::Mqtt3).await;
    let sent = Sent { message: Message::telemetry("reboot").message_id("m"), ..Sent::new(1, "") };
    for number in 1..=2 {
        peer.command(number, &sent).await;
        next(&device).await.complete().await.unwrap();
        assert_eq!(peer.settled().await, (number, 0, None));
    }
}

#[tokio::test]
async fn without_quality_of_service_there_is_nothing_to_settle() {
    let (_server, device, mut peer) = subscribed(Protocol::Mqtt5).await;
    peer.command_as(0x30, 0, &Sent::new(1, "x")).await;
    next(&device).await.complete().await.unwrap();
    nothing_comes(&device, &mut peer).await;
}

#[tokio::test]
async fn a_cancelled_next_swallows_nothing() {
    let (_server, device, mut peer) = subscribed(Protocol::Mqtt5).await;
    let inbox = device.inbox();
    let mut got = Vec::new();
    for number in 1..=40u16 {
        // Two wait; one of them goes away while the command is on its way.
        let other = inbox.clone();
        let waiting = tokio::spawn(async move { other.next().await });
        let cancel = cancelled(inbox.next(), u32::from(number % 7) + 1);
        let sent = Sent::new(number.into(), "x");
        let ((), taken) = tokio::join!(peer.command(number, &sent), cancel);
        got.extend(taken.map(|command: Result<_>| command.unwrap().unwrap()));
        waiting.abort();
        if let Ok(command) = waiting.await {
            got.push(command.unwrap().unwrap());
        }
        while got.len() < usize::from(number) {
            got.push(next(&device).await);
        }
        got.last().unwrap().complete().await.unwrap();
        assert_eq!(peer.settled().await.0, number);
    }
}

#[tokio::test]
async fn a_cancelled_complete_completes_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let device = open_in(folder.path(), address, Protocol::Mqtt5).await;
    device.inbox();
    let mut peer = again(&server).await;
    for number in 1..=10u16 {
        peer.command(number, &Sent::new(number.into(), "x")).await;
        let command = next(&device).await;
        drop(command.complete()); // not polled: nothing has happened
        cancelled(command.complete(), u32::from(number)).await;
        drop(command);
        assert_eq!(peer.settled().await, (number, 0, None));
    }
    device.close().await.unwrap();
}

#[tokio::test]
async fn more_than_the_window_is_a_violation_and_a_full_window_is_none() {
    let (server, address) = Server::start().await;
    let options = options(address, Protocol::Mqtt5).inbox_window(3).outbox_in_memory();
    let device = DeviceClient::open(options).await.unwrap();
    device.inbox();
    let mut peer = server.accept().await;
    assert_eq!(peer.hello().await.receive_maximum, Some(3));
    peer.welcome().await;
    peer.granted().await;
    for number in 1..=3 {
        peer.command(number, &Sent::new(number.into(), "x")).await;
    }
    nothing_comes_but_commands(&device, &mut peer).await;
    peer.command(4, &Sent::new(4, "x")).await;
    peer.gone().await;
    disconnected_because(&device, "Receive Maximum").await;
    let error = DeviceOptions::from_connection_string(&connection_string()).unwrap().outbox_in_memory();
    let error = DeviceClient::open(error.inbox_window(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// The connection is alive.
async fn nothing_comes_but_commands(device: &DeviceClient, peer: &mut Peer<TcpStream>) {
    let receipt = device.send(Message::telemetry("marker")).await.unwrap();
    let published = peer.published().await.expect("the marker");
    peer.ack(published.packet_id).await;
    receipt.outcome().await.unwrap();
}

async fn disconnected_because(device: &DeviceClient, why: &str) {
    let mut state = device.connection();
    let found = |state: &ConnectionState| match state {
        ConnectionState::Disconnected { reason: Some(reason) } => reason.contains(why),
        _ => false,
    };
    tokio::time::timeout(LONG, state.wait_for(found)).await.expect("the reason").unwrap();
}

#[tokio::test]
async fn what_is_no_command_harms_nothing() {
    for protocol in BOTH {
        let (_server, device, mut peer) = subscribed(protocol).await;
        // Left over from another program with our identity: a topic that is not ours to read.
        let mut other = vec![0, 4, b'$', b'i', b'o', b't', 0, 7];
        if protocol == Protocol::Mqtt5 {
            other.push(0);
        }
        peer.send(&[&[0x32, other.len() as u8][..], &other].concat()).await;
        if protocol == Protocol::Mqtt5 {
            assert_eq!(peer.settled().await, (7, 0x90, None));
            // A number that is none: nobody can ever read it, and the service hears so.
            let bad =
                [&[0, 16][..], b"$iothub/commands", &[0, 8, 17, 0x26, 0, 11], b"sequence-no", &[0, 1, b'x']]
                    .concat();
            let at = 18 + 2;
            let mut bad = bad;
            bad[at] = (bad.len() - at - 1) as u8;
            peer.send(&[&[0x32, bad.len() as u8][..], &bad].concat()).await;
            assert_eq!(peer.settled().await, (8, 0x83, Some("status=0100".into())));
        }
        nothing_comes(&device, &mut peer).await;
    }
}

#[tokio::test]
async fn a_server_that_sends_malformed_commands_is_left() {
    let cases: [(Protocol, &[u8], &str); 8] = [
        (Protocol::Mqtt3, &[0x32, 1, 0], "malformed PUBLISH"),
        (Protocol::Mqtt3, &[0x32, 4, 0, 1, b'a', 0], "malformed PUBLISH"),
        (Protocol::Mqtt3, &[0x32, 5, 0, 1, b'a', 0, 0], "identifier 0"),
        (Protocol::Mqtt3, &[0x34, 5, 0, 1, b'a', 0, 1], "QoS"),
        (Protocol::Mqtt3, &[0x32, 0xff, 0xff, 0x7f], "over the size"),
        (Protocol::Mqtt3, &[0x90, 3, 0, 1, 0], "SUBSCRIBE that was not sent"),
        (Protocol::Mqtt5, &[0x32, 8, 0, 1, b'a', 0, 1, 9, 0, 0], "malformed PUBLISH"),
        // A topic alias, which was not allowed.
        (Protocol::Mqtt5, &[0x32, 9, 0, 1, b'a', 0, 1, 3, 0x23, 0, 1], "malformed PUBLISH"),
    ];
    for (protocol, bytes, why) in cases {
        let (_server, device, mut peer) = subscribed(protocol).await;
        peer.send(bytes).await;
        disconnected_because(&device, why).await;
    }
}

#[tokio::test]
async fn a_refused_subscription_is_told_and_asked_for_again_on_the_next_connection() {
    for (protocol, code, kind) in [
        (Protocol::Mqtt3, 0x80, ErrorKind::Rejected),
        (Protocol::Mqtt5, 0x87, ErrorKind::Unauthorized),
        (Protocol::Mqtt5, 0x97, ErrorKind::Throttled),
        (Protocol::Mqtt5, 0x8f, ErrorKind::Unsupported),
    ] {
        let (server, address) = Server::start().await;
        let device = open(address, protocol).await;
        let inbox = device.inbox();
        let mut peer = accept(&server).await;
        let AboutCommands::Subscribe { packet_id, .. } = peer.about_commands().await else { panic!() };
        peer.suback(packet_id, code).await;
        assert_eq!(inbox.next().await.unwrap_err().kind(), kind);
        // The other direction is none the worse.
        nothing_comes_but_commands(&device, &mut peer).await;
        drop(peer);
        let mut peer = again(&server).await;
        peer.command(1, &Sent::new(1, "x")).await;
        let command = loop {
            match inbox.next().await {
                Ok(command) => break command.unwrap(),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(&command.body()[..], b"x");
    }
}

#[tokio::test]
async fn a_module_has_no_commands() {
    let (server, address) = Server::start().await;
    let text = connection_string().replace("DeviceId=d1", "DeviceId=d1;ModuleId=m1");
    let options = DeviceOptions::from_connection_string(&text).unwrap().server(format!("mqtt://{address}"));
    let device = DeviceClient::open(options.protocol(Protocol::Mqtt5).outbox_in_memory()).await.unwrap();
    assert_eq!(device.inbox().next().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let mut peer = server.accept().await;
    let hello = peer.hello().await;
    assert_eq!((hello.clean, hello.session_expiry), (true, None));
    peer.welcome().await;
    nothing_comes_but_commands(&device, &mut peer).await;
    assert_eq!(device.inbox().next().await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn closing_hands_out_nothing_more_and_leaves_what_is_unsettled() {
    for protocol in BOTH {
        let (_server, device, mut peer) = subscribed(protocol).await;
        for number in 1..=2 {
            peer.command(number, &Sent::new(number.into(), "x")).await;
        }
        let command = next(&device).await;
        let inbox = device.inbox();
        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move {
                inbox.next().await.unwrap();
                inbox.next().await
            }
        });
        tokio::task::yield_now().await;
        // A PUBACK in front of the goodbye would end the test.
        let (closed, published) = tokio::join!(device.close(), peer.published());
        closed.unwrap();
        assert!(published.is_none());
        assert!(waiting.await.unwrap().unwrap().is_none() && inbox.next().await.unwrap().is_none());
        assert_eq!(command.complete().await.unwrap_err().kind(), ErrorKind::Closed);
    }
}
