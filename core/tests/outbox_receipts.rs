//! Finding messages again.

mod outbox_support;

use outbox_support::{DELIVERED, Stage, deliver, read_all, reading, waiting};
use whimbrel::{
    ErrorKind, Lane, Message, Outcome, Receipt, ReceiptKey, ReceiptState,
    outbox::{Outbox, OutboxOptions},
};

#[allow(clippy::unwrap_used)]
fn state(outbox: &Outbox, id: &str) -> Option<ReceiptState> {
    let receipt = outbox.receipt(id).unwrap()?;
    assert_eq!(receipt.message_id(), id);
    Some(receipt.state())
}

const SETTLED: Option<ReceiptState> = Some(ReceiptState::Settled(DELIVERED));

#[tokio::test]
async fn a_message_is_found_by_its_id_wherever_it_is() {
    let stage = Stage::new();
    let outbox = stage.open();
    let mut ids: Vec<String> = Vec::new();
    for lane in Lane::ALL {
        for number in 0..6 {
            let mut message = Message::in_lane(lane, number.to_string());
            if number % 2 == 0 {
                message = message.message_id(format!("{}/{number}", lane.name()).replace('/', ":"));
            }
            ids.push(outbox.send(message).await.unwrap().message_id().to_owned());
        }
    }
    let queued = Some(ReceiptState::Queued);
    let all = |outbox: &Outbox, expected: &dyn Fn(usize) -> Option<ReceiptState>| {
        for (at, id) in ids.iter().enumerate() {
            assert_eq!(state(outbox, id), expected(at % 6), "{id}");
        }
    };
    all(&outbox, &|_| queued.clone()); // in the tail
    for lane in Lane::ALL {
        read_all(&outbox, lane);
    }
    all(&outbox, &|_| queued.clone()); // handed out
    for lane in Lane::ALL {
        deliver(&outbox, lane, [1, 2]);
    }
    let two_settled = |at| if at < 2 { SETTLED } else { queued.clone() };
    all(&outbox, &two_settled);
    outbox.close().unwrap();

    let outbox = stage.open();
    all(&outbox, &two_settled); // on the disk only
    for lane in Lane::ALL {
        deliver(&outbox, lane, [3]);
    }
    // Number 3 ended without having been read since opening: its own id finds it by its place only.
    for lane in Lane::ALL {
        read_all(&outbox, lane);
    }
    for lane in Lane::ALL {
        deliver(&outbox, lane, [4, 5, 6]);
    }
    all(&outbox, &|at| if at == 2 { None } else { SETTLED });
    for unknown in
        ["", "x", &ids[1][..10], &ids[1].replace("-a1.", "-a9."), &ids[1].replace("-a1.2", "-a1.99")]
    {
        assert_eq!(state(&outbox, unknown), None, "{unknown}");
    }
}

#[tokio::test]
async fn outcomes_are_kept_across_restarts_the_last_so_many_of_each_lane() {
    let stage = Stage::with(OutboxOptions { kept_outcomes: 5, ..OutboxOptions::default() });
    let outbox = stage.open();
    let receipts: Vec<Receipt> = outbox.send_all((0..20).map(reading).collect()).await.unwrap();
    read_all(&outbox, Lane::Telemetry);
    let place = |number: u64| Outcome::Delivered { partition: Some(1), sequence: Some(number) };
    for number in 1..=10 {
        outbox.settle(vec![(Lane::Telemetry, number, place(number))]).unwrap();
    }
    let check = |outbox: &Outbox| {
        for (receipt, number) in receipts.iter().zip(1..) {
            let expected = match number {
                1..=5 => None,
                6..=10 => Some(ReceiptState::Settled(place(number))),
                _ => Some(ReceiptState::Queued),
            };
            assert_eq!(state(outbox, receipt.message_id()), expected, "{number}");
        }
    };
    check(&outbox);
    assert_eq!(receipts[0].state(), ReceiptState::Unknown);
    assert_eq!(receipts[0].outcome().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(receipts[9].outcome().await.unwrap(), place(10));
    outbox.close().unwrap();
    check(&stage.open());
}

#[tokio::test]
async fn who_waits_gets_every_outcome_even_of_more_messages_than_are_kept() {
    let stage = Stage::with(OutboxOptions { kept_outcomes: 0, ..OutboxOptions::default() });
    let outbox = stage.open();
    let receipts = outbox.send_all((0..50).map(reading).collect()).await.unwrap();
    let settle = async { deliver(&outbox, Lane::Telemetry, 1..=50) };
    let (outcomes, ()) = tokio::join!(
        async {
            let mut waiting: Vec<_> = receipts.iter().map(|receipt| spawn_wait(receipt.clone())).collect();
            tokio::task::yield_now().await;
            let mut outcomes = Vec::new();
            for waiting in &mut waiting {
                outcomes.push(waiting.await.unwrap().unwrap());
            }
            outcomes
        },
        async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            settle.await;
        }
    );
    assert_eq!(outcomes, vec![DELIVERED; 50]);
    assert_eq!(receipts[49].state(), ReceiptState::Unknown, "none is kept");
}

fn spawn_wait(receipt: Receipt) -> tokio::task::JoinHandle<whimbrel::Result<Outcome>> {
    tokio::spawn(async move { receipt.outcome().await })
}

#[tokio::test]
async fn waiting_can_be_cancelled_and_repeated() {
    let outbox = Stage::new().open();
    let receipt = outbox.send(reading(0)).await.unwrap();
    for _ in 0..1_000 {
        let mut wait = Box::pin(receipt.outcome());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
    }
    let settle = async { deliver(&outbox, Lane::Telemetry, [1]) };
    let (one, other, ()) = tokio::join!(receipt.outcome(), receipt.outcome(), settle);
    assert_eq!((one.unwrap(), other.unwrap()), (DELIVERED, DELIVERED));
}

#[tokio::test]
async fn a_rejection_keeps_what_the_hub_said() {
    let stage = Stage::new();
    let outbox = stage.open();
    let receipt = outbox.send(reading(0)).await.unwrap();
    read_all(&outbox, Lane::Telemetry);
    let reason = "é".repeat(100);
    outbox.settle(vec![(Lane::Telemetry, 1, Outcome::Rejected { reason: reason.clone() })]).unwrap();
    assert_eq!(receipt.outcome().await.unwrap(), Outcome::Rejected { reason: reason.clone() });
    outbox.close().unwrap();
    let kept = stage.open().receipt(receipt.message_id()).unwrap().unwrap().outcome().await.unwrap();
    assert_eq!(kept, Outcome::Rejected { reason: reason[..128].to_owned() });
}

#[tokio::test]
async fn an_id_chosen_twice_finds_one_of_them() {
    let outbox = Stage::new().open();
    outbox.send(reading(0).message_id("same")).await.unwrap();
    read_all(&outbox, Lane::Telemetry);
    deliver(&outbox, Lane::Telemetry, [1]);
    assert_eq!(state(&outbox, "same"), SETTLED);
    outbox.send(reading(1).message_id("same")).await.unwrap();
    assert_eq!(state(&outbox, "same"), Some(ReceiptState::Queued), "the one that waits");
    assert_eq!(waiting(&outbox, Lane::Telemetry), ["1"]);
}

#[tokio::test]
async fn a_key_leads_back_to_its_receipt() {
    let stage = Stage::new();
    let outbox = stage.open();
    for lane in Lane::ALL {
        let receipt = outbox.send(Message::in_lane(lane, "x")).await.unwrap();
        let parts = receipt.key().unwrap().to_parts();
        let again = outbox.receipt_at(ReceiptKey::from_parts(parts));
        assert_eq!((again.message_id(), again.state()), (receipt.message_id(), ReceiptState::Queued));
        deliver(&outbox, lane, [1]);
        assert_eq!(again.outcome().await.unwrap(), DELIVERED);
    }
    let unknown = outbox.receipt_at(ReceiptKey::from_parts([u64::MAX, u64::MAX]));
    assert_eq!(unknown.state(), ReceiptState::Unknown);
}

#[tokio::test]
async fn what_was_accepted_stays_in_whether_or_not_somebody_waits() {
    let stage = Stage::new();
    let outbox = stage.open();
    drop(outbox.accept(Message::telemetry("nobody waits")).unwrap());
    let receipt = outbox.accept(Message::telemetry("a task waits")).unwrap().stored().await.unwrap();
    let waited = outbox.accept(Message::telemetry("a thread waits")).unwrap();
    let waited = tokio::task::spawn_blocking(move || waited.wait_stored()).await.unwrap().unwrap();
    assert_eq!((receipt.state(), waited.state()), (ReceiptState::Queued, ReceiptState::Queued));
    assert_eq!(outbox.account().queued, 3);
    outbox.close().unwrap();
    let outbox = stage.open();
    assert_eq!(outbox.account().queued, 3);
    assert!(outbox.accept(Message::telemetry("").expires_in(std::time::Duration::ZERO)).is_err());
}
