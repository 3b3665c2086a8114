//! A device client that is suspended and resumed, against a server that does what the test says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod device_support;

use std::{net::SocketAddr, path::Path, time::Duration};

use device_support::{AboutCommands, Peer, Sent, Server, connection_string};
use tokio::{net::TcpStream, task::yield_now};
use whimbrel::{
    Account, ConnectionState, DeviceClient, DeviceOptions, Durability, ErrorKind, Message, Outcome,
    ReceiptState, device::Protocol,
};

/// Long enough that only a hang reaches it.
const LONG: Duration = Duration::from_secs(30);
const DELIVERED: Outcome = Outcome::Delivered { partition: None, sequence: None };

fn options(address: SocketAddr) -> DeviceOptions {
    DeviceOptions::from_connection_string(&connection_string())
        .unwrap()
        .server(format!("mqtt://{address}"))
        .protocol(Protocol::Mqtt5)
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .close_deadline(LONG)
}

/// The next connection, past the handshake.
async fn accept(server: &Server) -> Peer<TcpStream> {
    let mut peer = server.accept().await;
    peer.hello().await;
    peer.welcome().await;
    peer
}

/// A port where nobody listens.
async fn nowhere() -> SocketAddr {
    Server::start().await.1
}

fn telemetry(count: usize) -> impl Iterator<Item = Message> {
    (1..=count).map(|number| Message::telemetry(format!("t{number}")))
}

fn state(device: &DeviceClient) -> ConnectionState {
    device.connection().borrow().clone()
}

/// Whether another process could open the outbox: nobody holds a lock of it.
fn is_free(folder: &Path) -> bool {
    ["alert", "telemetry", "inbox"].iter().all(|lane| {
        let file = std::fs::OpenOptions::new().write(true).open(folder.join(lane).join("lock")).unwrap();
        file.try_lock().is_ok()
    })
}

#[tokio::test]
async fn what_is_queued_is_kept_on_the_disk_and_in_memory_and_delivered_after_resuming() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    for options in [options(address).outbox_in_memory(), options(address).outbox_dir(folder.path())] {
        let device = DeviceClient::open(options).await.unwrap();
        let ended = device.send(Message::telemetry("t0")).await.unwrap();
        let mut peer = accept(&server).await;
        let first = peer.published().await.unwrap();
        peer.ack(first.packet_id).await;
        ended.outcome().await.unwrap();
        let receipts = device.send_all(telemetry(3)).await.unwrap();
        let second = peer.published_many(3).await;
        peer.ack(second[1].packet_id).await;
        assert_eq!(receipts[1].outcome().await.unwrap(), DELIVERED);

        let (left, rest) = tokio::join!(device.suspend(Duration::ZERO), peer.published());
        assert_eq!((left.unwrap(), rest.is_none()), (2, true), "the client says goodbye");
        assert_eq!(state(&device), ConnectionState::Suspended);
        let account = Account { accepted: 4, delivered: 2, queued: 2, ..Account::default() };
        assert_eq!(device.account(), account);
        let counters = device.counters();
        assert_eq!((counters.account, counters.sent), (account, 4));
        assert!(counters.oldest_age.is_some());
        assert_eq!(receipts[0].state(), ReceiptState::Queued);
        assert_eq!(receipts[1].state(), ReceiptState::Settled(DELIVERED));

        device.resume().await.unwrap();
        assert_eq!(device.account(), account);
        assert_eq!(receipts[0].state(), ReceiptState::Queued);
        let again = device.receipt(receipts[2].message_id()).await.unwrap().unwrap();
        let later = device.send(Message::telemetry("t4")).await.unwrap();
        let mut peer = accept(&server).await;
        let third = peer.published_many(3).await;
        for (before, after) in [(0, 0), (2, 1)] {
            assert_eq!(second[before].user["whimbrel-n"], third[after].user["whimbrel-n"]);
        }
        for published in &third {
            peer.ack(published.packet_id).await;
        }
        for receipt in [&receipts[0], &receipts[2], &again, &later, &ended] {
            assert_eq!(receipt.outcome().await.unwrap(), DELIVERED);
        }
        assert!(device.counters().written_bytes >= counters.written_bytes);
        assert_eq!(device.counters().sent, 7);
        tokio::join!(device.close(), peer.published()).0.unwrap();
    }
}

#[tokio::test]
async fn a_budget_that_is_enough_delivers_everything_and_one_that_is_not_ends() {
    let (server, address) = Server::start().await;
    let device = DeviceClient::open(options(address).outbox_in_memory()).await.unwrap();
    device.send_all(telemetry(3)).await.unwrap();
    let mut peer = accept(&server).await;
    let published = peer.published_many(3).await;
    let (left, ()) = tokio::join!(device.suspend(LONG), async {
        // Taken in while it flushes: flushed, too.
        device.send(Message::telemetry("t4")).await.unwrap();
        for published in &published {
            peer.ack(published.packet_id).await;
        }
        let last = peer.published().await.unwrap();
        peer.ack(last.packet_id).await;
        assert!(peer.published().await.is_none());
    });
    assert_eq!(left.unwrap(), 0);

    device.resume().await.unwrap();
    device.send(Message::telemetry("t5")).await.unwrap();
    let mut peer = accept(&server).await;
    peer.published().await.unwrap();
    // The hub does not answer. The close deadline does not count.
    assert_eq!(device.suspend(Duration::from_millis(20)).await.unwrap(), 1);
    device.close().await.unwrap();
}

#[tokio::test]
async fn calls_on_a_suspended_client_say_so_and_those_that_wait_wait_on() {
    let (server, address) = Server::start().await;
    let device = DeviceClient::open(options(address).outbox_in_memory()).await.unwrap();
    let inbox = device.inbox();
    let mut states = device.connection();
    let mut peer = accept(&server).await;
    peer.granted().await;
    let receipt = device.send(Message::telemetry("t1").message_id("mine")).await.unwrap();
    peer.published().await.unwrap();
    let outcome = tokio::spawn(async move { receipt.outcome().await });
    let command = tokio::spawn(async move { inbox.next().await });
    let flush = tokio::spawn({
        let device = device.clone();
        async move { device.flush(LONG).await }
    });
    let seen = tokio::spawn(async move {
        states.wait_for(|state| *state == ConnectionState::Suspended).await.unwrap();
        states.wait_for(|state| *state == ConnectionState::Connected).await.unwrap();
        states.wait_for(|state| *state == ConnectionState::Closed).await.map(drop).unwrap();
        states.changed().await.unwrap_err();
    });
    assert_eq!(device.suspend(Duration::ZERO).await.unwrap(), 1);
    let errors = [
        device.send(Message::telemetry("x")).await.unwrap_err(),
        device.accept(Message::telemetry("x")).unwrap_err(),
        device.send_all(telemetry(2)).await.unwrap_err(),
        device.receipt("mine").await.unwrap_err(),
        device.flush(LONG).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert!(error.to_string().contains("call resume"), "{error}");
    }
    for _ in 0..100 {
        yield_now().await;
    }
    assert!(!outcome.is_finished() && !command.is_finished() && !flush.is_finished() && !seen.is_finished());

    device.resume().await.unwrap();
    let mut peer = accept(&server).await;
    // Acknowledges the message on its way.
    peer.granted().await;
    peer.command(7, &Sent::new(1, "go")).await;
    assert_eq!(outcome.await.unwrap().unwrap(), DELIVERED);
    assert_eq!(flush.await.unwrap().unwrap(), 0);
    let command = command.await.unwrap().unwrap().unwrap();
    assert_eq!(&command.body()[..], b"go");
    while state(&device) != ConnectionState::Connected {
        yield_now().await;
    }
    let (closed, _) = tokio::join!(device.close(), peer.published());
    closed.unwrap();
    seen.await.unwrap();
}

#[tokio::test]
async fn a_command_in_hand_is_settled_after_resuming_and_never_handed_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let options = options(address).outbox_dir(folder.path());
    let device = DeviceClient::open(options).await.unwrap();
    let inbox = device.inbox();
    let mut peer = accept(&server).await;
    peer.granted().await;
    for number in 1..=4 {
        peer.command(number, &Sent::new(u64::from(number), &format!("c{number}"))).await;
    }
    let (first, second, third) = (
        inbox.next().await.unwrap().unwrap(),
        inbox.next().await.unwrap().unwrap(),
        inbox.next().await.unwrap().unwrap(),
    );
    tokio::join!(device.suspend(Duration::ZERO), peer.published()).0.unwrap();
    let error = first.complete().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.to_string().contains("suspended"), "{error}");

    device.resume().await.unwrap();
    // Before the hub has delivered them again: the one is recorded, of the other nothing can be said any more.
    first.complete().await.unwrap();
    assert_eq!(second.abandon().await.unwrap_err().kind(), ErrorKind::LockLost);
    let mut peer = accept(&server).await;
    peer.granted().await;
    for number in 1..=4 {
        peer.command(number + 10, &Sent::new(u64::from(number), &format!("c{number}"))).await;
    }
    let ack = peer.about_commands().await;
    assert!(matches!(ack, AboutCommands::Ack { packet_id: 11, .. }), "{ack:?}");
    assert_eq!(&inbox.next().await.unwrap().unwrap().body()[..], b"c2", "it was given back");
    assert_eq!(&inbox.next().await.unwrap().unwrap().body()[..], b"c4", "the third is in hand");
    third.complete().await.unwrap();
    let ack = peer.about_commands().await;
    assert!(matches!(ack, AboutCommands::Ack { packet_id: 13, .. }), "{ack:?}");
}

#[tokio::test]
async fn the_folder_is_free_meanwhile_and_what_another_did_there_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let offline = options(nowhere().await).outbox_dir(folder.path());
    let device = DeviceClient::open(offline).await.unwrap();
    let receipts = device.send_all(telemetry(2)).await.unwrap();
    assert!(!is_free(folder.path()));
    let waiting = tokio::spawn({
        let receipt = receipts[1].clone();
        async move { receipt.outcome().await }
    });
    device.suspend(Duration::ZERO).await.unwrap();
    assert!(is_free(folder.path()));

    let other = DeviceClient::open(options(address).outbox_dir(folder.path())).await.unwrap();
    assert_eq!(device.resume().await.unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(state(&device), ConnectionState::Suspended);
    other.send(Message::telemetry("t3")).await.unwrap();
    let peer = accept(&server).await;
    let (closed, published) = tokio::join!(other.close(), peer.acknowledge_all());
    closed.unwrap();
    assert_eq!(published.len(), 3);

    device.resume().await.unwrap();
    assert_eq!(device.account(), Account { accepted: 3, delivered: 3, ..Account::default() });
    assert_eq!(waiting.await.unwrap().unwrap(), DELIVERED);
    assert_eq!(receipts[0].state(), ReceiptState::Settled(DELIVERED));
    let next = device.send(Message::telemetry("t4")).await.unwrap();
    assert!(!receipts.iter().any(|receipt| receipt.message_id() == next.message_id()));
    device.suspend(Duration::ZERO).await.unwrap();
    device.close().await.unwrap();
}

#[tokio::test]
async fn storage_that_is_missing_is_told_of_and_nothing_new_is_made_in_its_place() {
    let home = tempfile::tempdir().unwrap();
    let (folder, away) = (home.path().join("outbox"), home.path().join("away"));
    let options = options(nowhere().await).outbox_dir(&folder);
    let device = DeviceClient::open(options).await.unwrap();
    device.send_all(telemetry(2)).await.unwrap();
    device.suspend(Duration::ZERO).await.unwrap();

    std::fs::rename(&folder, &away).unwrap();
    let error = device.resume().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::JournalIo, "device.resume"));
    assert!(error.to_string().contains("not there"), "{error}");
    assert!(!folder.exists());
    // The place is there and what belongs in it is not, as with a mount that is missing.
    for lane in ["alert", "telemetry", "inbox"] {
        std::fs::create_dir_all(folder.join(lane)).unwrap();
        assert_eq!(device.resume().await.unwrap_err().kind(), ErrorKind::JournalIo);
    }
    for lane in ["alert", "telemetry", "inbox"] {
        assert_eq!(std::fs::read_dir(folder.join(lane)).unwrap().count(), 0);
    }
    std::fs::remove_dir_all(&folder).unwrap();
    // Another outbox in its place.
    let stranger = DeviceOptions::from_connection_string(&connection_string()).unwrap();
    let stranger = stranger.server("mqtt://127.0.0.1:9").outbox_dir(&folder).close_deadline(Duration::ZERO);
    DeviceClient::open(stranger).await.unwrap().close().await.unwrap();
    assert_eq!(device.resume().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(is_free(&folder));
    std::fs::remove_dir_all(&folder).unwrap();

    assert_eq!(state(&device), ConnectionState::Suspended);
    assert_eq!(device.account().queued, 2);
    assert_eq!(device.send(Message::telemetry("x")).await.unwrap_err().kind(), ErrorKind::Closed);
    std::fs::rename(&away, &folder).unwrap();
    device.resume().await.unwrap();
    assert_eq!(device.account(), Account { accepted: 2, queued: 2, ..Account::default() });
    device.suspend(Duration::ZERO).await.unwrap();
    // Only the inbox is missing: nothing is left open.
    std::fs::rename(folder.join("inbox"), home.path().join("inbox")).unwrap();
    assert_eq!(device.resume().await.unwrap_err().kind(), ErrorKind::JournalIo);
    std::fs::rename(home.path().join("inbox"), folder.join("inbox")).unwrap();
    assert!(is_free(&folder));
    device.resume().await.unwrap();
}

#[tokio::test]
async fn an_older_copy_is_not_taken_for_the_outbox() {
    let home = tempfile::tempdir().unwrap();
    let (folder, copy) = (home.path().join("outbox"), home.path().join("copy"));
    let device = DeviceClient::open(options(nowhere().await).outbox_dir(&folder)).await.unwrap();
    device.suspend(Duration::ZERO).await.unwrap();
    for lane in ["alert", "telemetry", "inbox"] {
        std::fs::create_dir_all(copy.join(lane)).unwrap();
        for file in std::fs::read_dir(folder.join(lane)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.join(lane).join(file.file_name())).unwrap();
        }
    }
    device.resume().await.unwrap();
    device.send(Message::telemetry("t1")).await.unwrap();
    device.suspend(Duration::ZERO).await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::rename(&copy, &folder).unwrap();
    assert_eq!(device.resume().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn storage_that_is_not_available_yet_stops_opening_and_later_it_works() {
    let home = tempfile::tempdir().unwrap();
    let (folder, away) = (home.path().join("outbox"), home.path().join("away"));
    let options = options(nowhere().await).outbox_dir(folder.join("of/the/device"));
    let device = DeviceClient::open(options.clone().close_deadline(Duration::ZERO)).await.unwrap();
    device.send(Message::telemetry("t1")).await.unwrap();
    device.close().await.unwrap();
    std::fs::rename(&folder, &away).unwrap();
    // Something that is no folder is where the outbox is to be.
    std::fs::write(&folder, "locked").unwrap();
    let error = DeviceClient::open(options.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::JournalIo);
    assert!(error.to_string().contains("outbox"), "{error}");
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    let device = DeviceClient::open(options).await.unwrap();
    assert_eq!(device.account().queued, 1);
}

#[tokio::test]
async fn lifecycle_calls_may_be_repeated_overlap_and_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let device = DeviceClient::open(options(nowhere().await).outbox_dir(folder.path())).await.unwrap();
    device.send(Message::telemetry("t1")).await.unwrap();
    device.resume().await.unwrap(); // it is open
    let (first, second) = tokio::join!(device.suspend(LONG), device.suspend(Duration::ZERO));
    assert_eq!((first.unwrap(), second.unwrap()), (1, 1), "the shorter budget counts");
    assert_eq!(device.suspend(LONG).await.unwrap(), 1);
    let (first, second) = tokio::join!(device.resume(), device.resume());
    first.and(second).unwrap();
    // Each waits for the other: the later wish is what comes of it.
    let (resumed, suspended) = tokio::join!(
        async {
            device.suspend(Duration::ZERO).await.unwrap();
            device.resume().await
        },
        async {
            while state(&device) != ConnectionState::Suspended {
                yield_now().await;
            }
            while state(&device) == ConnectionState::Suspended {
                yield_now().await;
            }
            device.suspend(Duration::ZERO).await
        }
    );
    resumed.unwrap();
    suspended.unwrap();
    assert_eq!(state(&device), ConnectionState::Suspended);

    // Cancelled at any point it is one or the other in the end, and works.
    for round in 0..40 {
        tokio::select! {
            biased;
            result = device.resume() => result.unwrap(),
            () = yields(round) => {}
        }
        tokio::select! {
            biased;
            result = device.suspend(Duration::ZERO) => drop(result.unwrap()),
            () = yields(round / 2) => {}
        }
    }
    device.resume().await.unwrap();
    device.send(Message::telemetry("t2")).await.unwrap();
    assert_eq!(device.account().queued, 2);
    assert_eq!(device.suspend(Duration::ZERO).await.unwrap(), 2);
    assert!(is_free(folder.path()));
}

async fn yields(count: u64) {
    for _ in 0..count {
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
}

#[tokio::test]
async fn a_suspended_client_can_be_closed_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(nowhere().await).outbox_dir(folder.path()).close_deadline(Duration::ZERO);
    let device = DeviceClient::open(options.clone()).await.unwrap();
    let receipt = device.send(Message::telemetry("t1")).await.unwrap();
    let inbox = device.inbox();
    device.suspend(Duration::ZERO).await.unwrap();
    let (closed, outcome, command) = tokio::join!(
        async {
            yields(3).await;
            device.close().await
        },
        receipt.outcome(),
        inbox.next()
    );
    closed.unwrap();
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Closed);
    assert!(command.unwrap().is_none());
    assert_eq!(state(&device), ConnectionState::Closed);
    device.close().await.unwrap();
    assert_eq!(device.resume().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(device.suspend(LONG).await.unwrap_err().kind(), ErrorKind::Closed);

    // Closing while it flushes to be suspended ends the flushing.
    let device = DeviceClient::open(options.clone()).await.unwrap();
    let (suspended, closed) = tokio::join!(device.suspend(LONG), device.close());
    assert_eq!(suspended.unwrap_err().kind(), ErrorKind::Closed);
    closed.unwrap();

    // Closing while it resumes.
    let device = DeviceClient::open(options.clone()).await.unwrap();
    device.suspend(Duration::ZERO).await.unwrap();
    let (_, closed) = tokio::join!(device.resume(), device.close());
    closed.unwrap();
    assert_eq!(state(&device), ConnectionState::Closed);
    assert!(is_free(folder.path()));

    // Dropped.
    let device = DeviceClient::open(options).await.unwrap();
    let (inbox, mut states) = (device.inbox(), device.connection());
    device.suspend(Duration::ZERO).await.unwrap();
    drop(device);
    assert!(inbox.next().await.unwrap().is_none());
    states.wait_for(|state| *state == ConnectionState::Closed).await.unwrap();
}

#[test]
fn it_resumes_on_the_runtime_that_calls() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let first = runtime();
    let device = first.block_on(async {
        let device = DeviceClient::open(options(nowhere().await).outbox_dir(folder.path())).await.unwrap();
        device.send(Message::telemetry("t1")).await.unwrap();
        device.suspend(Duration::ZERO).await.unwrap();
        device
    });
    drop(first);
    runtime().block_on(async {
        let (server, address) = Server::start().await;
        drop(server);
        let _ = address;
        device.resume().await.unwrap();
        assert_eq!(device.account().queued, 1);
        device.suspend(Duration::ZERO).await.unwrap();
    });
    assert!(is_free(folder.path()));
}

#[tokio::test]
async fn everything_accepted_is_safe_and_lives_on_whatever_the_durability() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        options(nowhere().await).outbox_dir(folder.path()).outbox_max_age(Duration::from_secs(3_600));
    for durability in [Durability::Memory, Durability::Interval, Durability::OnDisk] {
        let device = DeviceClient::open(options.clone().durability(durability)).await.unwrap();
        let before = device.account().queued;
        device.send_all(telemetry(50)).await.unwrap();
        assert_eq!(device.suspend(Duration::ZERO).await.unwrap(), before + 50);
        device.resume().await.unwrap();
        assert_eq!(device.account().queued, before + 50);
        assert_eq!(device.suspend(Duration::ZERO).await.unwrap(), before + 50);
        device.close().await.unwrap();
    }
}
