//! What the store keeps of commands.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use whimbrel::ErrorKind;

use super::{Ground, admitted};
use crate::{
    commands::{CommandOutcome, FeedbackWanted},
    store::{CommandChange, CommandChanged, CommandRetention, NewCommand, Store},
};

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second)
}

fn new(device: &str, id: &str, expires: u64) -> NewCommand {
    NewCommand {
        device: device.into(),
        message_id: Some(id.to_owned()),
        feedback: FeedbackWanted::Full,
        enqueued_at: at(0),
        expires_at: at(expires),
        record: id.as_bytes().to_vec().into(),
        depth: 2,
        dead_letter: None,
    }
}

async fn enqueue(ground: &Ground, command: NewCommand) -> whimbrel::Result<u64> {
    let mut changed = ground.store.change_commands(vec![CommandChange::Enqueue(command)]).await.unwrap();
    changed.pop().unwrap().map(|changed| match changed {
        CommandChanged::Enqueued { sequence, .. } => sequence,
        other => panic!("{other:?}"),
    })
}

async fn end(ground: &Ground, sequence: u64, outcome: CommandOutcome, second: u64) -> CommandChanged {
    let change = CommandChange::End { sequence, outcome, at: at(second) };
    ground.store.change_commands(vec![change]).await.unwrap().pop().unwrap().unwrap()
}

#[tokio::test]
async fn a_refused_change_leaves_the_others_of_its_step_alone() {
    for ground in [Ground::in_memory(), Ground::in_folder()] {
        let device = ground.device("d").await;
        ground.device("off").await;
        ground.registry.set_enabled("off", false, None).await.unwrap();
        let mut again = new("d", "e", 9);
        again.dead_letter = Some(7);
        let changes = vec![
            CommandChange::Enqueue(new("d", "a", 9)),
            CommandChange::Enqueue(new("nobody", "b", 9)),
            CommandChange::Enqueue(new("off", "c", 9)),
            CommandChange::Enqueue(again),
            CommandChange::Enqueue(new("d", "f", 9)),
            CommandChange::Enqueue(new("d", "g", 9)),
            CommandChange::Count { sequence: 1, delivery_count: 3 },
            CommandChange::Count { sequence: 99, delivery_count: 3 },
        ];
        let changed = ground.store.change_commands(changes).await.unwrap();
        let kinds: Vec<_> = changed.iter().map(|one| one.as_ref().err().map(|error| error.kind())).collect();
        let (none, full) = (Some(ErrorKind::NotFound), Some(ErrorKind::QueueFull));
        assert_eq!(kinds, [None, none, none, none, None, full, None, None]);
        assert!(matches!(changed[6], Ok(CommandChanged::Counted)));
        assert!(matches!(changed[7], Ok(CommandChanged::Missing)));

        let queue = ground.store.command_queue("d", &device.generation).await.unwrap().unwrap();
        let rows: Vec<_> = queue.commands.iter().map(|row| (row.sequence, row.delivery_count)).collect();
        assert_eq!(rows, [(1, 3), (2, 0)]);
        assert_eq!(queue.through, 2);
        assert_eq!(queue.commands[1].record, "f");
        assert_eq!((queue.commands[1].enqueued_at, queue.commands[1].expires_at), (at(0), at(9)));
        assert_eq!(ground.store.command_count("d").await.unwrap(), 2);
        assert!(ground.store.command_queue("d", "another").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn the_end_leaves_what_is_asked_for_later_and_comes_once() {
    let ground = Ground::in_memory();
    ground.device("d").await;
    for (index, outcome) in CommandOutcome::ALL.into_iter().enumerate() {
        let sequence = enqueue(&ground, new("d", outcome.word(), 9)).await.unwrap();
        assert!(ground.store.command_status("d", outcome.word()).await.unwrap().unwrap().ended.is_none());
        let changed = end(&ground, sequence, outcome, index as u64).await;
        assert!(matches!(changed, CommandChanged::Ended(ended) if ended.feedback));
        assert!(matches!(end(&ground, sequence, outcome, 8).await, CommandChanged::Missing));
        let status = ground.store.command_status("d", outcome.word()).await.unwrap().unwrap();
        assert_eq!(status.ended, Some((outcome, at(index as u64))));
    }
    let dead = ground.store.dead_letters(None, 0, 10).await.unwrap();
    let outcomes: Vec<_> = dead.iter().map(|row| row.outcome).collect();
    use CommandOutcome::{DeliveryCountExceeded, Expired, Rejected};
    assert_eq!(outcomes, [Rejected, Expired, DeliveryCountExceeded]);
    assert_eq!(ground.store.feedback(0, 10).await.unwrap().len(), 5);
    assert_eq!(ground.store.feedback(4, 10).await.unwrap().len(), 1);
    ground.store.change_feedback(vec![2, 77], vec![1, 88]).await.unwrap();
    let left = ground.store.feedback(0, 2).await.unwrap();
    assert_eq!(left.iter().map(|row| (row.id, row.delivery_count)).collect::<Vec<_>>(), [(2, 1), (3, 0)]);

    // The newest of an id counts.
    let sequence = enqueue(&ground, new("d", "Success", 9)).await.unwrap();
    let status = ground.store.command_status("d", "Success").await.unwrap().unwrap();
    assert_eq!((status.sequence, status.ended), (sequence, None));
}

#[tokio::test]
async fn what_is_due_comes_in_the_order_of_expiry_page_by_page() {
    let ground = Ground::in_memory();
    for (device, expires) in [("a", [5, 3]), ("b", [3, 4]), ("c", [1, 9])] {
        ground.device(device).await;
        for second in expires {
            enqueue(&ground, new(device, "m", second)).await.unwrap();
        }
    }
    let (mut found, mut last) = (Vec::new(), None);
    loop {
        let page = ground.store.due_commands(at(5), last.as_ref(), 2).await.unwrap();
        let Some(end) = page.last() else { break };
        last = Some(end.clone());
        found.extend(page.into_iter().map(|due| (due.expires_at, due.device.to_string())));
    }
    let wanted = [(1, "c"), (3, "a"), (3, "b"), (4, "b"), (5, "a")];
    assert_eq!(found, wanted.map(|(second, device)| (at(second), device.to_owned())));
}

#[tokio::test]
async fn each_kind_of_leftover_is_kept_as_long_as_it_is_to_be() {
    let ground = Ground::in_memory();
    ground.device("d").await;
    for second in 0..3 {
        let sequence = enqueue(&ground, new("d", &second.to_string(), 9)).await.unwrap();
        end(&ground, sequence, CommandOutcome::Rejected, second).await;
    }
    let before = CommandRetention { dead_letters: at(1), outcomes: at(2), feedback: at(0) };
    assert!(!ground.store.trim_commands(before).await.unwrap());
    let letters = ground.store.dead_letters(Some("d"), 0, 9).await.unwrap();
    assert_eq!(letters.iter().map(|row| row.ended_at).collect::<Vec<_>>(), [at(1), at(2)]);
    let known = async |id| ground.store.command_status("d", id).await.unwrap().is_some();
    assert_eq!((known("0").await, known("1").await, known("2").await), (false, false, true));
    assert_eq!(ground.store.feedback(0, 9).await.unwrap().len(), 3);
}

#[tokio::test]
async fn everything_about_its_commands_goes_with_a_device_and_numbers_go_on() {
    for ground in [Ground::in_memory(), Ground::in_folder()] {
        for device in ["d", "other"] {
            ground.device(device).await;
            let sequence = enqueue(&ground, new(device, "ended", 9)).await.unwrap();
            end(&ground, sequence, CommandOutcome::Rejected, 1).await;
            enqueue(&ground, new(device, "waiting", 9)).await.unwrap();
        }
        ground.registry.delete("d", None).await.unwrap();
        let fresh = ground.device("d").await;
        assert_eq!(ground.store.command_count("d").await.unwrap(), 0);
        assert!(ground.store.command_status("d", "ended").await.unwrap().is_none());
        let devices = |rows: Vec<Arc<str>>| rows.iter().map(ToString::to_string).collect::<Vec<_>>();
        let letters = ground.store.dead_letters(None, 0, 9).await.unwrap();
        assert_eq!(devices(letters.into_iter().map(|row| row.device).collect()), ["other"]);
        let feedback = ground.store.feedback(0, 9).await.unwrap();
        assert_eq!(devices(feedback.into_iter().map(|row| row.device).collect()), ["other"]);
        assert_eq!(ground.store.command_count("other").await.unwrap(), 1);
        assert_eq!(enqueue(&ground, new("d", "first", 9)).await.unwrap(), 5, "no number comes twice");
        let queue = ground.store.command_queue("d", &fresh.generation).await.unwrap().unwrap();
        assert_eq!(queue.commands.len(), 1);
        let old = admitted("d", &"0".into());
        assert!(ground.store.command_queue("d", &old.generation).await.unwrap().is_none());
    }
}
