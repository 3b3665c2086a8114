//! The commands of the demo: sent while their device is cut off, and followed until each has ended.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use whimbrel::wire::feedback::CommandOutcome;

use crate::{failure::Result, service::Service};

/// What a device of the demo knows how to do; it rejects everything else.
pub(super) const KNOWN: &str = "calibrate";
/// Pause before a hub that is away is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the hub is to wait for an end before it answers.
const WAIT: &str = "10s";

/// A command that is sent, and how it has to end.
#[derive(Clone, Copy, Debug)]
struct Plan {
    body: &'static str,
    expected: CommandOutcome,
    /// Whether it lives for a moment only, and not until the device is back.
    brief: bool,
}

const PLANS: [Plan; 3] = [
    Plan { body: KNOWN, expected: CommandOutcome::Completed, brief: false },
    Plan { body: "open-window", expected: CommandOutcome::Rejected, brief: false },
    Plan { body: "report-now", expected: CommandOutcome::Expired, brief: true },
];

/// All commands of the demo.
#[derive(Debug, Default)]
pub(super) struct Commands {
    lines: Vec<CommandLine>,
    sent_at: Option<Instant>,
}

/// A command of the demo, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct CommandLine {
    pub(super) device: String,
    pub(super) body: &'static str,
    /// How it has to end.
    pub(super) expected: &'static str,
    /// How it ended.
    pub(super) outcome: Option<String>,
    /// From sending to the news of its end.
    pub(super) after_ms: Option<u64>,
}

impl CommandLine {
    /// Whether it ended as it had to.
    pub(super) fn is_right(&self) -> bool {
        self.outcome.as_deref() == Some(self.expected)
    }
}

/// News of a command: which one, and the word of its outcome.
pub(super) type Ended = (usize, String);

impl Commands {
    /// Sends all of them to `device`; `moment` is how long the brief one lives. Each is followed until it has ended,
    /// whatever happens to the hub meanwhile.
    pub(super) async fn send(
        &mut self,
        service: &Service,
        device: &str,
        moment: Duration,
        ended: &mpsc::Sender<Ended>,
    ) -> Result<()> {
        self.sent_at = Some(Instant::now());
        for (index, plan) in PLANS.iter().enumerate() {
            let mut request = service.request(Method::POST, &["devices", device, "commands"]).body(plan.body);
            if plan.brief {
                request = request.query(&[("ttl", format!("{}ms", moment.as_millis()))]);
            }
            let sent = service.json(request).await?;
            let id = sent.get("message_id").and_then(Value::as_str).unwrap_or_default().to_owned();
            self.lines.push(CommandLine {
                device: device.to_owned(),
                body: plan.body,
                expected: word(plan.expected),
                outcome: None,
                after_ms: None,
            });
            tokio::spawn(follow(service.clone(), device.to_owned(), id, index, ended.clone()));
        }
        Ok(())
    }

    /// One has ended.
    pub(super) fn ended(&mut self, (index, outcome): Ended, now: Instant) {
        let sent_at = self.sent_at.unwrap_or(now);
        if let Some(line) = self.lines.get_mut(index) {
            line.after_ms = u64::try_from(now.saturating_duration_since(sent_at).as_millis()).ok();
            line.outcome = Some(outcome);
        }
    }

    /// Whether the end of each is known.
    pub(super) fn complete(&self) -> bool {
        self.lines.len() == PLANS.len() && self.lines.iter().all(|line| line.outcome.is_some())
    }

    /// What became of them.
    pub(super) fn report(&self) -> Vec<CommandLine> {
        self.lines.clone()
    }

    /// All of them in one line.
    pub(super) fn headline(&self) -> String {
        let one =
            |line: &CommandLine| format!("{} {}", line.body, line.outcome.as_deref().unwrap_or("waiting"));
        self.lines.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Asks until the command has ended. Every failure means the same here: the hub is away, and will be back.
async fn follow(service: Service, device: String, id: String, index: usize, ended: mpsc::Sender<Ended>) {
    while !ended.is_closed() {
        let request = service.request(Method::GET, &["devices", &device, "commands", &id]);
        let status = service.json(request.query(&[("wait", WAIT)])).await.unwrap_or_default();
        if status.get("state") == Some(&json!("ended")) {
            let outcome = status.get("outcome").and_then(Value::as_str).and_then(CommandOutcome::from_word);
            let outcome = outcome.map_or("unknown", word).to_owned();
            // Nobody waits any more when the demo is over.
            let _ = ended.send((index, outcome)).await;
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// An outcome as people call it.
const fn word(outcome: CommandOutcome) -> &'static str {
    match outcome {
        CommandOutcome::Completed => "completed",
        CommandOutcome::Rejected => "rejected",
        CommandOutcome::Expired => "expired",
        CommandOutcome::DeliveryCountExceeded => "abandoned too often",
        CommandOutcome::Purged => "purged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_end_is_right() {
        let mut commands = Commands::default();
        assert!(!commands.complete(), "none was sent");
        let now = Instant::now();
        commands.sent_at = Some(now);
        for plan in PLANS {
            let (body, expected) = (plan.body, word(plan.expected));
            commands.lines.push(CommandLine {
                device: "d".into(),
                body,
                expected,
                outcome: None,
                after_ms: None,
            });
        }
        commands.ended((0, "completed".into()), now + Duration::from_millis(7));
        commands.ended((1, "completed".into()), now);
        assert!(!commands.complete());
        assert_eq!(commands.headline(), "calibrate completed, open-window completed, report-now waiting");
        commands.ended((2, "expired".into()), now);
        assert!(commands.complete());
        let right: Vec<bool> = commands.report().iter().map(CommandLine::is_right).collect();
        assert_eq!(right, [true, false, true]);
        assert_eq!(commands.report()[0].after_ms, Some(7));
    }
}
