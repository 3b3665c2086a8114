//! The inbox on a disk that crashes, breaks and fills up.

use std::{
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use super::{Command, Inbox, Shared};
use crate::{
    ErrorKind, Message,
    testing::{CrashDisk, Deeds, Dice, Survivors},
    transport::{Arrived, CommandSupport, Handle, Settled, Settlement},
};

const MQTT_5: CommandSupport = CommandSupport { abandon_and_reject: true, answers: false };

fn arrived(number: u64) -> Arrived {
    Arrived {
        handle: number,
        sequence: Some(number),
        enqueued_at: Some(UNIX_EPOCH + Duration::from_secs(number)),
        delivery_count: Some(0),
        message: Message::telemetry("x"),
    }
}

/// An inbox whose task is the test.
struct Device {
    shared: Arc<Shared>,
    inbox: Inbox,
    disk: CrashDisk,
    /// What the hub was told.
    told: Vec<(Handle, Settlement)>,
}

impl Device {
    fn open(disk: CrashDisk) -> Self {
        let shared = Shared::open_on(Arc::new(disk.clone())).unwrap();
        shared.connected(Instant::now(), MQTT_5);
        Self { inbox: Inbox::new(shared.clone()), shared, disk, told: Vec::new() }
    }

    async fn receive(&self, numbers: impl IntoIterator<Item = u64>) -> Vec<Command> {
        let mut commands: Vec<Arrived> = numbers.into_iter().map(arrived).collect();
        let count = commands.len();
        self.shared.arrived(Instant::now(), &mut commands);
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(self.inbox.next().await.unwrap().unwrap());
        }
        taken
    }

    /// Completes them all at once; how each of that ended.
    async fn complete(&mut self, commands: &[Command]) -> Vec<Result<(), ErrorKind>> {
        let all = async {
            let settling: Vec<_> =
                commands.iter().map(|command| self.shared.settle(command.id, Settlement::Complete)).collect();
            let mut results = Vec::new();
            for settling in settling {
                let result = match settling {
                    Ok(answer) => answer.await.unwrap(),
                    Err(error) => Err(error),
                };
                results.push(result.map_err(|error| error.kind()));
            }
            results
        };
        tokio::pin!(all);
        loop {
            tokio::select! {
                biased;
                results = &mut all => {
                    self.shared.take_work(&mut self.told);
                    return results;
                }
                () = self.shared.work() => drop(self.shared.take_work(&mut self.told)),
            }
        }
    }

    /// What becomes of a redelivery: what the hub is told, if it is not handed out.
    fn redelivered(&mut self, number: u64) -> Option<Settlement> {
        let handle = 1_000_000 + number;
        let mut commands = vec![Arrived { handle, ..arrived(number) }];
        self.shared.arrived(Instant::now(), &mut commands);
        self.shared.take_work(&mut self.told);
        self.told.iter().find(|(told, _)| *told == handle).map(|(_, settlement)| *settlement)
    }
}

#[tokio::test]
async fn a_power_cut_at_any_moment_brings_back_nothing_that_was_completed() {
    const BATCH: u64 = 100;
    // Enough for a second segment, which starts from a snapshot.
    const ROUNDS: u64 = 90;
    let mut device = Device::open(CrashDisk::new());
    // Where the disk was when so many were completed, and forgotten.
    let mut moments = vec![(device.disk.position(), 0, 0)];
    for round in 0..ROUNDS {
        let numbers = round * BATCH + 1..=(round + 1) * BATCH;
        let commands = device.receive(numbers.clone()).await;
        device.complete(&commands).await.into_iter().for_each(|result| result.unwrap());
        moments.push((device.disk.position(), *numbers.end(), (round / 2) * BATCH));
        let mut known: Vec<Settled> = Vec::new();
        if round % 2 == 1 {
            let proved = (round / 2) * BATCH + 1..=(round / 2 + 1) * BATCH;
            known.extend(proved.map(|handle| Settled { handle, result: Ok(()) }));
        }
        device.shared.settled(Instant::now(), &mut known);
    }
    assert_eq!(device.told.len() as u64, ROUNDS * BATCH);
    assert!(device.disk.names().len() > 1, "one segment only: {:?}", device.disk.names());
    let mut dice = Dice::new(1);
    for cut in 0..60u64 {
        let (position, completed, forgotten) = moments[dice.below(moments.len() as u64) as usize];
        let next = moments.iter().map(|moment| moment.0).find(|at| *at > position).unwrap_or(position);
        let position = position + dice.below((next - position) as u64 + 1) as usize;
        let survivors = match cut % 3 {
            0 => Survivors::None,
            1 => Survivors::All,
            _ => Survivors::Some(cut),
        };
        let mut again = Device::open(device.disk.cut(position, survivors));
        // No more than so many are remembered.
        let kept = (forgotten + BATCH).max(completed.saturating_sub(4_096 - BATCH)) + 1;
        for number in (kept..=completed).rev().step_by(37) {
            assert_eq!(again.redelivered(number), Some(Settlement::Complete), "{number} of {completed}");
        }
        assert_eq!(again.redelivered(ROUNDS * BATCH + 1), None);
    }
}

#[tokio::test]
async fn the_hub_is_told_nothing_that_is_not_on_the_disk() {
    let mut device = Device::open(CrashDisk::new());
    let commands = device.receive(1..=2).await;
    let [first, second] = &commands[..] else { panic!() };
    assert_eq!(device.complete(std::slice::from_ref(first)).await, [Ok(())]);
    // What the hub was told is there whatever was not synced.
    let mut again = Device::open(device.disk.cut(device.disk.position(), Survivors::None));
    assert_eq!(again.redelivered(1), Some(Settlement::Complete));

    device.told.clear();
    device.disk.fail(Deeds::Sync, 0);
    for _ in 0..2 {
        assert_eq!(device.complete(std::slice::from_ref(second)).await, [Err(ErrorKind::JournalIo)]);
    }
    assert_eq!(device.told, []);
    let error = second.abandon().await;
    device.shared.take_work(&mut device.told);
    // Abandoning needs no record.
    assert!(error.is_ok() && device.told == [(2, Settlement::Abandon)]);
}

#[tokio::test]
async fn on_a_full_disk_completing_fails_and_works_again_when_there_is_space() {
    let mut device = Device::open(CrashDisk::new());
    device.disk.set_capacity(Some(device.disk.used()));
    let mut number = 1;
    let refused = loop {
        let commands = device.receive(number..number + 100).await;
        let results = device.complete(&commands).await;
        number += 100;
        assert!(number < 50_000, "the disk never fills up");
        if let Some(at) = results.iter().position(|result| result.is_err()) {
            assert!(results[at..].iter().all(|result| *result == Err(ErrorKind::DiskFull)), "{results:?}");
            break commands.into_iter().skip(at).collect::<Vec<_>>();
        }
    };
    let told = |device: &Device, command: &Command| {
        let number = command.sequence().unwrap();
        device.told.iter().any(|(handle, _)| *handle == number)
    };
    assert!(!refused.iter().any(|command| told(&device, command)));
    device.disk.set_capacity(None);
    let results = device.complete(&refused).await;
    assert!(results.iter().all(Result::is_ok) && refused.iter().all(|command| told(&device, command)));
}

#[tokio::test]
async fn closing_records_what_is_being_settled_and_gives_the_folder_free() {
    let device = Device::open(CrashDisk::new());
    let commands = device.receive(1..=2).await;
    let settling = device.shared.settle(commands[0].id, Settlement::Reject).unwrap();
    let error = Shared::open_on(Arc::new(device.disk.clone())).err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::InUse));
    device.shared.close().unwrap();
    settling.await.unwrap().unwrap();
    assert_eq!(commands[1].complete().await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(device.inbox.next().await.unwrap().is_none());
    let mut again = Device::open(device.disk.clone());
    assert_eq!((again.redelivered(1), again.redelivered(2)), (Some(Settlement::Reject), None));
}
