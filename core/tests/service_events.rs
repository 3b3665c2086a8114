//! Reading events from a scripted hub: positions, cuts, stolen partitions, readers that come and go.

#![cfg(feature = "service")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod service_support;

use std::time::Duration;

use service_support::{SOON, Server, event, stolen};
use tokio::time::timeout;
use whimbrel::{
    ErrorKind,
    service::{Checkpoint, CheckpointStore, Event, EventReader, MemoryCheckpoints, Position},
};

async fn next(reader: &mut EventReader) -> Event {
    timeout(SOON, reader.next()).await.expect("an event comes").unwrap().unwrap()
}

#[tokio::test]
async fn events_come_with_their_place_and_go_on_behind_a_cut() {
    let mut server = Server::start().await;
    server.rules().partitions = vec![(0, None), (1, None)];
    let client = server.client().await;
    let mut reader = client.events().group("g").partitions([1]).open().await.unwrap();
    let link = server.link_to("log/ConsumerGroups/g/Partitions/1").await;
    assert_eq!((link.selector().as_str(), link.epoch()), ("amqp.annotation.x-opt-offset > '-1'", None));
    let mut partition = link.sender();
    for sequence in 0..3 {
        partition.send_batchable(event(sequence, "old")).await.unwrap();
    }
    let first = next(&mut reader).await;
    assert_eq!((first.partition(), first.sequence(), first.offset()), (1, 0, "0"));
    assert_eq!((first.device_id(), first.message().body().as_ref()), ("d1", b"old".as_slice()));
    assert_eq!(first.checkpoint().await.unwrap_err().kind(), ErrorKind::Unsupported, "there is no store");
    assert_eq!(next(&mut reader).await.sequence(), 1);
    assert_eq!(next(&mut reader).await.sequence(), 2);
    server.cut();
    drop(partition);
    let link = server.link().await;
    assert_eq!(link.selector(), "amqp.annotation.x-opt-sequence-number > '2'");
    let mut partition = link.sender();
    // A hub that does not understand the condition sends everything.
    for sequence in 0..5 {
        partition.send_batchable(event(sequence, "all")).await.unwrap();
    }
    assert_eq!(next(&mut reader).await.sequence(), 3);
    assert_eq!(next(&mut reader).await.sequence(), 4);
    reader.close().await;
    client.close().await;
}

#[tokio::test]
async fn the_end_is_fixed_when_the_reader_opens_and_survives_a_cut() {
    let mut server = Server::start().await;
    server.rules().partitions = vec![(0, Some(41)), (1, None)];
    let client = server.client().await;
    let reader = client.events().from(Position::End).open().await.unwrap();
    for _ in 0..2 {
        let mut selectors =
            [server.link().await, server.link().await].map(|link| (link.address.clone(), link));
        selectors.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(selectors[0].1.selector(), "amqp.annotation.x-opt-sequence-number >= '42'");
        assert_eq!(selectors[1].1.selector(), "amqp.annotation.x-opt-offset > '-1'");
        server.cut();
    }
    reader.close().await;
    let error = client.events().partitions([7]).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    client.close().await;
}

#[tokio::test]
async fn a_reader_begins_behind_its_checkpoint() {
    let mut server = Server::start().await;
    server.rules().partitions = vec![(0, None)];
    let store = MemoryCheckpoints::new();
    let client = server.client().await;
    let mut reader = client.events().checkpoints(store.clone()).open().await.unwrap();
    let link = server.link().await;
    assert_eq!(link.epoch(), Some(1));
    let mut partition = link.sender();
    for sequence in 5..8 {
        partition.send_batchable(event(sequence, "")).await.unwrap();
    }
    next(&mut reader).await;
    next(&mut reader).await.checkpoint().await.unwrap();
    let expected = Checkpoint { sequence: 6, offset: Some("600".into()) };
    assert_eq!(store.checkpoints("$default").await.unwrap()[&0], expected);
    reader.close().await;
    let owners = store.ownerships("$Default").await.unwrap();
    assert!(owners[0].expires_in.is_zero(), "given up");

    let reader = client.events().checkpoints(store).from(Position::End).open().await.unwrap();
    let link = server.link().await;
    assert_eq!(link.selector(), "amqp.annotation.x-opt-sequence-number > '6'");
    assert_eq!(link.epoch(), Some(2), "above the owner before");
    reader.close().await;
    client.close().await;
}

/// Somebody outside the store's account takes the partition: the reader lets go, and asks for it again with a higher epoch.
#[tokio::test]
async fn a_stolen_partition_is_let_go_with_what_was_fetched_of_it() {
    let mut server = Server::start().await;
    server.rules().partitions = vec![(0, None)];
    let client = server.client().await;
    let mut reader = client
        .events()
        .checkpoints(MemoryCheckpoints::new())
        .ownership(Duration::from_millis(500), Duration::from_secs(5))
        .open()
        .await
        .unwrap();
    let mut partition = server.link().await.sender();
    partition.send_batchable(event(0, "")).await.unwrap();
    let held = next(&mut reader).await;
    for sequence in 1..4 {
        partition.send_batchable(event(sequence, "fetched")).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The client's library answers with the same error.
    let _ = partition.close_with_error(stolen()).await;
    let link = server.link().await;
    assert_eq!(link.epoch(), Some(2));
    assert_eq!(link.selector(), "amqp.annotation.x-opt-offset > '-1'", "there is no checkpoint");
    assert_eq!(held.checkpoint().await.unwrap_err().kind(), ErrorKind::Conflict);
    let mut partition = link.sender();
    partition.send_batchable(event(0, "again")).await.unwrap();
    let event = next(&mut reader).await;
    assert_eq!(event.message().body().as_ref(), b"again", "what was fetched before is not handed out");
    event.checkpoint().await.unwrap();
    client.close().await;
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn readers_share_the_partitions_and_take_over_what_others_leave() {
    let server = Server::start().await;
    server.rules().partitions = (0..4).map(|partition| (partition, None)).collect();
    let store = MemoryCheckpoints::new();
    let client = server.client().await;
    let open = async || {
        client
            .events()
            .checkpoints(store.clone())
            .ownership(Duration::from_millis(200), Duration::from_secs(1))
            .open()
            .await
            .unwrap()
    };
    let shares = async |readers: &[&EventReader]| {
        let owners = store.ownerships("$Default").await.unwrap();
        let count =
            |name: &str| owners.iter().filter(|row| row.owner == name && !row.expires_in.is_zero()).count();
        readers.iter().map(|reader| count(reader.name())).collect::<Vec<_>>()
    };
    let settle = async |readers: &[&EventReader], expected: &[usize]| {
        let settled = async {
            loop {
                let mut now = shares(readers).await;
                now.sort_unstable();
                if now == expected {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, settled).await.unwrap_or_else(|_| panic!("the shares never were {expected:?}"));
    };
    let one = open().await;
    settle(&[&one], &[4]).await;
    let two = open().await;
    settle(&[&one, &two], &[2, 2]).await;
    let three = open().await;
    settle(&[&one, &two, &three], &[1, 1, 2]).await;
    // Nothing moves once it is even.
    let before = store.ownerships("$Default").await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let after = store.ownerships("$Default").await.unwrap();
    let epochs = |rows: &[whimbrel::service::Ownership]| {
        rows.iter().map(|row| (row.partition, row.epoch)).collect::<Vec<_>>()
    };
    assert_eq!(epochs(&before), epochs(&after));
    one.close().await;
    settle(&[&two, &three], &[2, 2]).await;
    // One that dies says nothing; its time runs out.
    drop(two);
    settle(&[&three], &[4]).await;
    three.close().await;
    client.close().await;
}
