//! Lists of inputs, lists of effects.

use super::*;
use Lane::{Alert, Telemetry};

/// A machine and a clock that only the test moves.
struct Bench {
    delivery: Delivery,
    now: Instant,
}

const LONGEST: Duration = Duration::from_secs(60);

impl Bench {
    fn new(window: usize) -> Self {
        let options = DeliveryOptions { window, ..DeliveryOptions::default() };
        Self { delivery: Delivery::new(options, 42), now: Instant::now() }
    }

    fn up(window: usize) -> Self {
        let mut bench = Self::new(window);
        bench.on(Input::Open);
        bench.on(connected(u16::MAX));
        bench
    }

    fn on(&mut self, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.delivery.on(self.now, input, &mut effects);
        effects
    }

    /// Lets time pass until the machine wants to be woken, at most `limit`.
    fn wake(&mut self, limit: Duration) -> Vec<Effect> {
        let at = self.delivery.wake_at().expect("the machine waits for time to pass");
        assert!(at.saturating_duration_since(self.now) <= limit, "{:?}", at - self.now);
        self.now = self.now.max(at);
        self.on(Input::Tick)
    }

    fn send(&mut self, lane: Lane, sequences: std::ops::RangeInclusive<Sequence>) {
        let next = sequences.end() + 1;
        let sequences: Vec<Sequence> = sequences.collect();
        assert!(self.on(Input::Sent { lane, sequences: &sequences, next }).is_empty());
    }

    fn found_nothing(&mut self, lane: Lane) {
        for _ in 0..2 {
            self.on(Input::Sent { lane, sequences: &[], next: 1 });
        }
    }

    fn next(&self) -> Option<(Lane, Option<Sequence>, usize)> {
        self.delivery.next_send().map(|send| (send.lane, send.from, send.limit))
    }
}

fn connected(receive_maximum: u16) -> Input<'static> {
    Input::Connected { receive_maximum, renew_at: None }
}

fn lost(kind: ErrorKind) -> Input<'static> {
    Input::Lost { kind, retry_after: None, reason: "gone".into() }
}

fn stored(lane: Lane, sequence: Sequence) -> Input<'static> {
    let verdict = Verdict::Stored { partition: Some(3), sequence: Some(100 + sequence) };
    Input::Answered { lane, sequence, verdict }
}

fn refused(sequence: Sequence, retryable: bool) -> Input<'static> {
    let verdict = Verdict::Refused { retryable, reason: "no".into() };
    Input::Answered { lane: Telemetry, sequence, verdict }
}

fn delivered(lane: Lane, sequence: Sequence) -> Effect {
    let outcome = Outcome::Delivered { partition: Some(3), sequence: Some(100 + sequence) };
    Effect::Settle { lane, sequence, outcome }
}

fn disconnected(reason: &str) -> Effect {
    Effect::State(ConnectionState::Disconnected { reason: Some(reason.into()) })
}

const CONNECTING: Effect = Effect::State(ConnectionState::Connecting);
const CONNECTED: Effect = Effect::State(ConnectionState::Connected);

#[test]
fn a_message_goes_out_and_ends_delivered() {
    let mut bench = Bench::new(10);
    assert_eq!(bench.next(), None);
    assert_eq!(bench.on(Input::Open), [CONNECTING, Effect::Connect]);
    assert_eq!(bench.next(), None);
    assert_eq!(bench.on(connected(100)), [CONNECTED]);
    assert_eq!(bench.next(), Some((Alert, None, 10)));
    bench.found_nothing(Alert);
    assert_eq!(bench.next(), Some((Telemetry, None, 10)));
    bench.send(Telemetry, 1..=1);
    assert_eq!(bench.next(), Some((Telemetry, Some(2), 9)));
    assert_eq!(bench.on(stored(Telemetry, 1)), [delivered(Telemetry, 1)]);
    assert_eq!(bench.delivery.in_flight(), 0);
}

#[test]
fn an_empty_lane_is_looked_at_again_only_when_something_came() {
    let mut bench = Bench::up(10);
    bench.found_nothing(Alert);
    bench.found_nothing(Telemetry);
    assert_eq!(bench.next(), None);
    bench.on(Input::Readable);
    assert_eq!(bench.next(), Some((Alert, Some(1), 10)));
}

#[test]
fn a_read_that_only_skipped_settled_messages_is_not_the_end_of_the_lane() {
    let mut bench = Bench::up(10);
    bench.on(Input::Sent { lane: Alert, sequences: &[], next: 50 });
    assert_eq!(bench.next(), Some((Alert, Some(50), 10)));
    bench.on(Input::Sent { lane: Alert, sequences: &[], next: 50 });
    assert_eq!(bench.next(), Some((Telemetry, None, 10)));
}

#[test]
fn the_window_is_the_smaller_of_ours_and_the_servers() {
    for (ours, theirs, window) in [(10, 3, 3), (3, 10, 3), (7, 7, 7)] {
        let mut bench = Bench::new(ours);
        bench.on(Input::Open);
        bench.on(connected(theirs));
        assert_eq!(bench.next(), Some((Alert, None, window)));
        bench.found_nothing(Alert);
        bench.send(Telemetry, 1..=window as u64);
        assert_eq!(bench.next(), None);
        bench.on(stored(Telemetry, 1));
        assert_eq!(bench.next(), Some((Telemetry, Some(window as u64 + 1), 1)));
    }
}

#[test]
fn an_alert_takes_the_first_slot_that_comes_free() {
    let mut bench = Bench::up(2);
    bench.found_nothing(Alert);
    bench.send(Telemetry, 1..=2);
    bench.on(Input::Readable);
    assert_eq!(bench.next(), None);
    bench.on(stored(Telemetry, 1));
    assert_eq!(bench.next(), Some((Alert, Some(1), 1)));
    bench.send(Alert, 1..=1);
    assert_eq!(bench.on(stored(Alert, 1)), [delivered(Alert, 1)]);
}

#[test]
fn no_read_is_larger_than_the_limit() {
    let bench = Bench::up(60_000);
    assert_eq!(bench.next(), Some((Alert, None, SEND_LIMIT)));
}

#[test]
fn acknowledgements_out_of_order_settle_what_they_name() {
    let mut bench = Bench::up(10);
    bench.send(Telemetry, 1..=4);
    assert_eq!(bench.on(stored(Telemetry, 3)), [delivered(Telemetry, 3)]);
    assert_eq!(bench.on(stored(Telemetry, 1)), [delivered(Telemetry, 1)]);
    assert_eq!(bench.on(stored(Telemetry, 1)), []);
    assert_eq!(bench.on(stored(Alert, 2)), []);
    assert_eq!(bench.on(stored(Telemetry, 9)), []);
    assert_eq!(bench.delivery.in_flight(), 2);
}

#[test]
fn after_a_lost_link_every_lane_starts_at_its_first_unsettled_message() {
    let mut bench = Bench::up(10);
    bench.found_nothing(Alert);
    bench.send(Telemetry, 1..=4);
    bench.on(stored(Telemetry, 1));
    assert_eq!(bench.on(lost(ErrorKind::Unreachable)), [Effect::Unsend, disconnected("gone")]);
    assert_eq!(bench.delivery.in_flight(), 0);
    assert_eq!(bench.next(), None);
    assert_eq!(bench.wake(Duration::from_millis(100)), [CONNECTING, Effect::Connect]);
    assert_eq!(bench.on(connected(100)), [CONNECTED]);
    assert_eq!(bench.next(), Some((Alert, None, 10)));
    bench.found_nothing(Alert);
    assert_eq!(bench.next(), Some((Telemetry, None, 10)));
}

#[test]
fn an_answer_of_a_lost_connection_changes_nothing() {
    let mut bench = Bench::up(10);
    bench.send(Telemetry, 1..=2);
    bench.on(lost(ErrorKind::Unreachable));
    assert_eq!(bench.on(stored(Telemetry, 1)), []);
}

#[test]
fn failures_in_a_row_wait_longer_and_longer_up_to_the_bound() {
    let mut bench = Bench::new(10);
    bench.on(Input::Open);
    let mut longest = Duration::ZERO;
    for failure in 0..40u32 {
        bench.on(lost(ErrorKind::Unreachable));
        let bound = (Duration::from_millis(100) * 2u32.saturating_pow(failure.min(20))).min(LONGEST);
        let wait = bench.delivery.wake_at().unwrap() - bench.now;
        longest = longest.max(wait);
        assert_eq!(bench.wake(bound), [CONNECTING, Effect::Connect], "failure {failure}");
    }
    assert!(longest > LONGEST / 2, "{longest:?}");
}

#[test]
fn the_first_acknowledgement_forgets_earlier_failures() {
    let mut bench = Bench::new(10);
    bench.on(Input::Open);
    for _ in 0..20 {
        bench.on(lost(ErrorKind::Unreachable));
        bench.wake(LONGEST);
    }
    bench.on(connected(100));
    bench.send(Telemetry, 1..=1);
    bench.on(stored(Telemetry, 1));
    bench.on(lost(ErrorKind::Unreachable));
    bench.wake(Duration::from_millis(100));
}

#[test]
fn so_does_a_connection_that_lasted() {
    let mut bench = Bench::new(10);
    bench.on(Input::Open);
    for _ in 0..20 {
        bench.on(lost(ErrorKind::Unreachable));
        bench.wake(LONGEST);
    }
    bench.on(connected(100));
    bench.now += LONGEST;
    bench.on(lost(ErrorKind::Unreachable));
    bench.wake(Duration::from_millis(100));
}

#[test]
fn a_server_that_lets_us_in_only_to_hang_up_is_not_hammered() {
    let mut bench = Bench::new(10);
    bench.on(Input::Open);
    let started = bench.now;
    for _ in 0..30 {
        bench.on(connected(100));
        bench.on(lost(ErrorKind::Unreachable));
        bench.wake(LONGEST);
    }
    assert!(bench.now - started > LONGEST * 5);
}

#[test]
fn refused_credentials_are_tried_again_slowly_and_stay_visible() {
    let mut bench = Bench::new(10);
    bench.on(Input::Open);
    for _ in 0..5 {
        let refused = Effect::State(ConnectionState::Unauthorized { reason: "gone".into() });
        assert_eq!(bench.on(lost(ErrorKind::Unauthorized)), [refused]);
        assert!(bench.delivery.wake_at().unwrap() - bench.now >= LONGEST / 2);
        assert_eq!(bench.wake(LONGEST), [Effect::Connect]);
    }
    assert_eq!(bench.on(connected(100)), [CONNECTED]);
    bench.on(lost(ErrorKind::Unreachable));
    assert_eq!(bench.wake(LONGEST), [CONNECTING, Effect::Connect]);
}

#[test]
fn two_clients_with_one_identity_do_not_fight() {
    let mut bench = Bench::up(10);
    bench.send(Telemetry, 1..=1);
    bench.on(stored(Telemetry, 1));
    assert_eq!(bench.on(lost(ErrorKind::Conflict)), [Effect::Unsend, disconnected("gone")]);
    assert!(bench.delivery.wake_at().unwrap() - bench.now >= LONGEST / 2);
}

#[test]
fn a_stated_wait_is_kept() {
    let mut bench = Bench::up(10);
    let retry_after = Some(Duration::from_secs(300));
    bench.on(Input::Lost { kind: ErrorKind::Throttled, retry_after, reason: "slow".into() });
    let wait = bench.delivery.wake_at().unwrap() - bench.now;
    assert!((Duration::from_secs(300)..=Duration::from_secs(375)).contains(&wait), "{wait:?}");
}

#[test]
fn a_permanent_refusal_ends_the_message_and_nothing_else() {
    let mut bench = Bench::up(10);
    bench.send(Telemetry, 1..=3);
    let rejected = Outcome::Rejected { reason: "no".into() };
    let settled = Effect::Settle { lane: Telemetry, sequence: 2, outcome: rejected };
    assert_eq!(bench.on(refused(2, false)), [settled]);
    assert_eq!(bench.on(stored(Telemetry, 1)), [delivered(Telemetry, 1)]);
    assert_eq!(bench.next(), Some((Alert, None, 9)));
}

#[test]
fn a_retryable_refusal_waits_for_the_answers_owed_then_starts_again_from_it() {
    let mut bench = Bench::up(10);
    bench.found_nothing(Alert);
    bench.send(Telemetry, 1..=4);
    assert_eq!(bench.on(stored(Telemetry, 1)), [delivered(Telemetry, 1)]);
    assert_eq!(bench.on(refused(2, true)), []);
    assert_eq!(bench.next(), None, "nothing may go out behind what has to be sent again");
    assert_eq!(bench.on(refused(3, true)), []);
    assert_eq!(
        bench.on(stored(Telemetry, 4)),
        [delivered(Telemetry, 4), Effect::Disconnect, Effect::Unsend, disconnected("no")]
    );
    bench.wake(LONGEST);
    bench.on(connected(100));
    bench.found_nothing(Alert);
    assert_eq!(bench.next(), Some((Telemetry, None, 10)));
}

#[test]
fn answers_that_never_come_do_not_hold_a_connection_that_is_to_end() {
    let mut bench = Bench::up(10);
    bench.send(Telemetry, 1..=2);
    bench.on(refused(1, true));
    assert_eq!(bench.wake(DRAIN_LIMIT), [Effect::Disconnect, Effect::Unsend, disconnected("no")]);
}

#[test]
fn credentials_are_renewed_between_two_answers_and_at_once() {
    let mut bench = Bench::new(10);
    bench.on(Input::Open);
    let renew_at = Some(bench.now + Duration::from_secs(2_880));
    bench.on(Input::Connected { receive_maximum: 100, renew_at });
    bench.found_nothing(Alert);
    bench.send(Telemetry, 1..=2);
    assert_eq!(bench.on(stored(Telemetry, 1)), [delivered(Telemetry, 1)]);
    assert_eq!(bench.delivery.wake_at(), renew_at);
    assert_eq!(bench.wake(Duration::from_secs(2_880)), []);
    assert_eq!(bench.next(), None);
    assert_eq!(
        bench.on(stored(Telemetry, 2)),
        [delivered(Telemetry, 2), Effect::Disconnect, Effect::Unsend, CONNECTING, Effect::Connect]
    );
}

#[test]
fn an_idle_connection_is_renewed_on_the_spot() {
    let mut bench = Bench::new(10);
    bench.on(Input::Open);
    let renew_at = Some(bench.now + Duration::from_secs(60));
    bench.on(Input::Connected { receive_maximum: 100, renew_at });
    assert_eq!(bench.wake(LONGEST), [Effect::Disconnect, CONNECTING, Effect::Connect]);
}

#[test]
fn a_link_lost_while_draining_is_a_lost_link() {
    let mut bench = Bench::up(10);
    bench.send(Telemetry, 1..=2);
    bench.on(refused(1, true));
    assert_eq!(bench.on(lost(ErrorKind::Unreachable)), [Effect::Unsend, disconnected("gone")]);
    bench.wake(LONGEST);
}

#[test]
fn closing_ends_everything_and_once() {
    let mut bench = Bench::up(10);
    bench.send(Telemetry, 1..=2);
    assert_eq!(bench.on(Input::Close), [Effect::Disconnect, Effect::Unsend]);
    assert_eq!(bench.on(Input::Close), []);
    assert_eq!(bench.on(stored(Telemetry, 1)), []);
    assert_eq!(bench.on(lost(ErrorKind::Unreachable)), []);
    assert_eq!((bench.next(), bench.delivery.wake_at()), (None, None));

    let mut bench = Bench::new(10);
    bench.on(Input::Open);
    bench.on(lost(ErrorKind::Unreachable));
    assert_eq!(bench.on(Input::Close), []);
}

#[test]
fn one_seed_makes_one_history() {
    let waits = |seed| {
        let mut delivery = Delivery::new(DeliveryOptions::default(), seed);
        let now = Instant::now();
        let mut effects = Vec::new();
        delivery.on(now, Input::Open, &mut effects);
        delivery.on(now, lost(ErrorKind::Unreachable), &mut effects);
        delivery.wake_at().unwrap() - now
    };
    assert_eq!(waits(1), waits(1));
    assert_ne!(waits(1), waits(2));
}

/// Looks at both clocks, which have moved by so much.
fn look(bench: &mut Bench, wall: &mut SystemTime, by: Duration, wall_by: Duration) -> Vec<Effect> {
    bench.now += by;
    *wall += wall_by;
    bench.on(Input::Looked { wall: *wall })
}

fn given_up() -> Effect {
    Effect::State(ConnectionState::Disconnected { reason: Some(STOOD_STILL.into()) })
}

#[test]
fn a_connection_is_given_up_when_either_clock_says_that_nobody_was_there() {
    let keep_alive = DeliveryOptions::default().keep_alive;
    let (none, second) = (Duration::ZERO, Duration::from_secs(1));
    // Stopped, asleep, and a clock that was set at the same time.
    for (by, wall_by) in [(keep_alive + second, none), (none, keep_alive + second), (second, keep_alive * 60)]
    {
        let mut bench = Bench::up(10);
        let mut wall = SystemTime::UNIX_EPOCH + keep_alive * 1_000;
        assert_eq!(bench.delivery.wake_at(), None, "nobody looks");
        assert!(look(&mut bench, &mut wall, second, second).is_empty());
        bench.send(Telemetry, 1..=2);
        assert!(look(&mut bench, &mut wall, keep_alive, keep_alive).is_empty());
        assert_eq!(
            look(&mut bench, &mut wall, by, wall_by),
            [Effect::Unsend, given_up(), Effect::Disconnect]
        );
        assert_eq!(bench.next(), None);
        // Once is enough, and it connects soon.
        assert!(look(&mut bench, &mut wall, keep_alive * 2, none).is_empty());
        let soon = bench.delivery.options.backoff.min;
        assert_eq!(bench.wake(soon), [Effect::State(ConnectionState::Connecting), Effect::Connect]);
        bench.on(connected(10));
        assert_eq!(bench.next(), Some((Alert, None, 10)), "from the first unsettled message on");
    }
}

#[test]
fn a_clock_set_back_and_time_that_was_looked_at_end_nothing() {
    let mut bench = Bench::up(10);
    let mut wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    look(&mut bench, &mut wall, Duration::ZERO, Duration::ZERO);
    wall -= Duration::from_secs(500_000);
    assert!(bench.on(Input::Looked { wall }).is_empty());
    for _ in 0..100 {
        let at = bench.delivery.wake_at().unwrap();
        assert!(at > bench.now && at - bench.now <= LOOK_INTERVAL);
        let by = at - bench.now;
        assert!(look(&mut bench, &mut wall, by, by).is_empty());
        assert!(bench.on(Input::Tick).is_empty());
    }
}

#[test]
fn a_connection_in_the_making_and_one_to_be_renewed_are_given_up_too_and_nothing_else_is() {
    let long = Duration::from_secs(600);
    let mut wall = SystemTime::now();
    let mut bench = Bench::new(10);
    assert!(look(&mut bench, &mut wall, Duration::ZERO, Duration::ZERO).is_empty());
    assert!(look(&mut bench, &mut wall, long, long).is_empty(), "at rest");
    bench.on(Input::Open);
    assert_eq!(look(&mut bench, &mut wall, long, long), [given_up(), Effect::Disconnect]);
    assert!(bench.on(connected(10)).is_empty(), "too late");
    bench.wake(LONGEST);
    let renew_at = Some(bench.now);
    bench.on(Input::Connected { receive_maximum: 10, renew_at });
    bench.send(Telemetry, 1..=1);
    assert!(bench.on(Input::Tick).is_empty(), "it waits for the answer");
    assert_eq!(look(&mut bench, &mut wall, long, long), [Effect::Unsend, given_up(), Effect::Disconnect]);
    bench.on(Input::Close);
    assert!(look(&mut bench, &mut wall, long, long).is_empty());
}
