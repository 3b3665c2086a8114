//! What is taken in, and what is not.

use std::time::Duration;

use whimbrel::{ErrorKind, Message};

use super::{Ground, assert_kind, command, ids, next};
use crate::commands::{CommandOptions, CommandOutcome, Commands, Settlement};

#[tokio::test]
async fn the_depth_counts_what_waits_and_what_is_locked() {
    for ground in [Ground::in_memory(), Ground::in_folder()] {
        let device = ground.device("d").await;
        for index in 0..50 {
            ground.send("d", command(&index.to_string())).await;
        }
        let mut receiver = ground.commands.receiver(&device);
        let held = next(&mut receiver, 3).await;
        let error = ground.commands.send("d", command("more")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QueueFull);
        assert!(ground.commands.status("d", "more").await.unwrap().is_none(), "it was refused");
        receiver.settle(held[1].lock, Settlement::Abandon).await.unwrap();
        assert_kind(ground.commands.send("d", command("more")).await, ErrorKind::QueueFull);
        receiver.settle(held[0].lock, Settlement::Complete).await.unwrap();
        ground.send("d", command("more")).await;
        assert_kind(ground.commands.send("d", command("still-more")).await, ErrorKind::QueueFull);
        assert_eq!(ground.commands.pending("d").await.unwrap(), 50);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_depth_holds_when_many_send_at_once() {
    let ground = Ground::in_folder();
    ground.device("d").await;
    let send = |index: usize| {
        let commands: Commands = ground.commands.clone();
        tokio::spawn(async move { commands.send("d", command(&index.to_string())).await })
    };
    let sending: Vec<_> = (0..200).map(send).collect();
    let mut accepted = Vec::new();
    for task in sending {
        match task.await.unwrap() {
            Ok(sent) => accepted.push(sent.sequence),
            Err(error) => assert_eq!(error.kind(), ErrorKind::QueueFull),
        }
    }
    accepted.sort_unstable();
    accepted.dedup();
    assert_eq!(accepted.len(), 50);
    assert_eq!(ground.commands.pending("d").await.unwrap(), 50);
}

#[tokio::test]
async fn unknown_and_disabled_devices_get_nothing_and_a_disabled_one_keeps_what_it_has() {
    let ground = Ground::in_memory();
    let device = ground.device("d").await;
    assert_kind(ground.commands.send("nobody", command("m")).await, ErrorKind::NotFound);
    ground.send("d", command("before")).await;
    ground.registry.set_enabled("d", false, None).await.unwrap();
    assert_kind(ground.commands.send("d", command("m")).await, ErrorKind::NotFound);
    assert_eq!(ground.commands.pending("d").await.unwrap(), 1);
    ground.registry.set_enabled("d", true, None).await.unwrap();
    let mut receiver = ground.commands.receiver(&device);
    assert_eq!(ids(&next(&mut receiver, 9).await), ["before"]);
}

#[tokio::test]
async fn what_cannot_be_a_command_is_refused_and_leaves_nothing() {
    let ground = Ground::in_memory();
    ground.device("d").await;
    for (message, kind, part) in [
        (command("m").property("iothub-ack", "sometimes"), ErrorKind::InvalidArgument, Some("ack")),
        (command("m").property("a b", "c"), ErrorKind::InvalidArgument, None),
        (
            command("m").expires_in(Duration::from_secs(48 * 3600 + 1)),
            ErrorKind::InvalidArgument,
            Some("expiry"),
        ),
        (command("m").expires_in(Duration::MAX), ErrorKind::InvalidArgument, Some("expiry")),
        (Message::telemetry(vec![0; 65_537]), ErrorKind::PayloadTooLarge, None),
    ] {
        let error = ground.commands.send("d", message).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        if let Some(part) = part {
            assert!(error.details().contains(&("part", part.to_owned())), "{error}");
        }
    }
    let mut far = command("m");
    far.system_mut().expiry_time = Some(ground.now() + Duration::from_secs(48 * 3600 + 1));
    assert_kind(ground.commands.send("d", far).await, ErrorKind::InvalidArgument);
    assert_eq!(ground.commands.pending("d").await.unwrap(), 0);
    // At the limits all is well.
    ground.send("d", Message::telemetry(vec![0; 65_536])).await;
    ground.send("d", command("m").expires_in(Duration::from_secs(48 * 3600))).await;
}

#[tokio::test]
async fn a_time_that_is_over_is_accepted_and_ends_at_once() {
    for ground in [Ground::in_memory(), Ground::in_folder()] {
        let device = ground.device("d").await;
        let mut late = command("absent").property("iothub-ack", "negative");
        late.system_mut().expiry_time = Some(ground.now() - Duration::from_secs(1));
        ground.send("d", late.clone()).await;
        // Without the clock moving, and with nobody receiving.
        super::patiently(async {
            while ground.outcome("d", "absent").await != Some(CommandOutcome::Expired) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let mut receiver = ground.commands.receiver(&device);
        ground.send("d", late.message_id("present")).await;
        ground.send("d", command("alive")).await;
        assert_eq!(ids(&next(&mut receiver, 9).await), ["alive"]);
        ground.settled().await;
        assert_eq!(ground.outcome("d", "present").await, Some(CommandOutcome::Expired));
    }
}

/// A caller who goes away after his command was handed in leaves it in, and who receives gets it.
#[tokio::test]
async fn a_sender_that_gives_up_leaves_the_command_in_or_out() {
    let ground = Ground::in_folder();
    let device = ground.device("d").await;
    let mut receiver = ground.commands.receiver(&device);
    assert!(super::ready(&mut receiver, 1).await.is_empty());
    let mut send = Box::pin(ground.commands.send("d", command("m")));
    assert!(futures_util::poll!(&mut send).is_pending());
    drop(send);
    assert_eq!(ids(&next(&mut receiver, 1).await), ["m"]);
}

/// Pending commands of devices that are not there cost no memory, nor time when the hub starts.
#[tokio::test]
async fn only_queues_that_are_used_are_in_memory() {
    let ground = Ground::in_folder();
    for index in 0..20 {
        ground.device(&format!("d{index}")).await;
        ground.send(&format!("d{index}"), command("m")).await;
    }
    assert_eq!(ground.in_use(), 0);
    let ground = ground.restart().await;
    assert_eq!(ground.in_use(), 0);
    let known = ground.registry.get("d7").await.unwrap();
    let device = super::admitted("d7", &known.device.generation);
    let mut receiver = ground.commands.receiver(&device);
    let held = next(&mut receiver, 1).await;
    assert_eq!(ground.in_use(), 1);
    receiver.settle(held[0].lock, Settlement::Complete).await.unwrap();
    drop(receiver);
    assert_eq!(ground.in_use(), 0);

    // Taken without a receiver: it stays for as long as the lock does.
    ground.send("d7", command("n")).await;
    let taken = ground.commands.take(&device).await.unwrap().unwrap();
    assert_eq!(ground.in_use(), 1);
    ground.commands.settle(&device, taken.lock, Settlement::Complete).await.unwrap();
    assert_eq!(ground.in_use(), 0);
    ground.send("d7", command("o")).await;
    ground.commands.take(&device).await.unwrap().unwrap();
    ground.advance(CommandOptions::default().lock).await;
    assert_eq!(ground.in_use(), 0);
    assert!(ground.commands.take(&device).await.unwrap().is_some());
}
