//! Playing a scenario: its steps, one after the other, each with a limit.

mod calls;
mod values;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use whimbrel::Message;

use crate::{
    actor::{Actor, Language, Pending, Request},
    expect::{Answer, difference},
    scenario::{
        Deed, Scenario,
        step::{self, Expected},
    },
    stage::Stage,
};

/// How a scenario ended that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Number of the step, from 1; none for what comes behind the last one.
    pub step: Option<usize>,
    /// The step as it stands in the file.
    pub text: String,
    /// What was expected and what was seen.
    pub why: String,
    /// What the actor wrote to standard error.
    pub errors: String,
}

/// Plays a scenario in a language; `limit` is how long a step may wait.
///
/// # Errors
/// Where it failed, and why.
pub async fn play(scenario: &Scenario, language: &Language, limit: Duration) -> Result<(), Failure> {
    let failure =
        |why: String| Failure { step: None, text: "the beginning".into(), why, errors: String::new() };
    let stage = Stage::set(scenario).await.map_err(failure)?;
    let actor = Actor::start(language).map_err(|error| failure(error.to_string()))?;
    let mut errors: Box<dyn Fn() -> String + Send> = Box::new(actor.errors());
    let mut player = Player {
        stage,
        actor,
        language,
        limit,
        saved: HashMap::new(),
        started: HashMap::new(),
        open: Vec::new(),
        names: 0,
    };
    for (at, step) in scenario.steps.iter().enumerate() {
        if let Err(why) = player.perform(&step.deed).await {
            let shown = Failure { step: Some(at + 1), text: step.text.clone(), why, errors: errors() };
            return Err(shown);
        }
        errors = Box::new(player.actor.errors());
    }
    let failure = |why| Failure { step: None, text: "the end".into(), why, errors: errors() };
    player.check_accounts().await.map_err(failure)?;
    let Player { stage, actor, started, .. } = player;
    drop(started);
    actor.end(limit).await.map_err(failure)?;
    stage.clear().await.map_err(failure)
}

struct Player<'a> {
    stage: Stage,
    actor: Actor,
    language: &'a Language,
    limit: Duration,
    saved: HashMap<String, Value>,
    started: HashMap<String, Pending>,
    /// Device clients that were opened and not closed.
    open: Vec<String>,
    /// How many names were made up.
    names: u64,
}

impl Player<'_> {
    async fn perform(&mut self, deed: &Deed) -> Result<(), String> {
        match deed {
            Deed::Open(open) => self.open(open).await,
            Deed::Connect(connect) => self.connect(connect).await,
            Deed::Call(call) => self.call(call).await,
            Deed::Wait(wait) => {
                let mut pending = self.take(&wait.wait)?;
                let answer = pending.answer(self.limit).await?;
                self.compare(&Expected::read(wait.ok.as_ref(), wait.error.as_ref())?, &answer)?;
                self.save(&wait.save, &answer)
            }
            Deed::Pending(step::Pending { pending: name }) => {
                // Whatever the actor said before is heard when it has answered this.
                self.ask_simple("hello", None).await?;
                match self.started.get_mut(name).map(Pending::early) {
                    None => Err(format!("no call {name} was started")),
                    Some(None) => Ok(()),
                    Some(Some(answer)) => Err(format!("expected no answer yet, seen {answer}")),
                }
            }
            Deed::Cancel(cancel) => {
                let mut pending = self.take(&cancel.cancel)?;
                self.actor.cancel(pending.id).await.map_err(text)?.answer(self.limit).await?;
                match pending.answer(self.limit).await? {
                    Answer::Cancelled => Ok(()),
                    other => Err(format!("expected a cancelled call, seen {other}")),
                }
            }
            Deed::Storm(storm) => self.storm(storm).await,
            Deed::Hub(step::Hub { hub }) => self.stage.change(*hub).await,
            Deed::Link(step::Link { link, fault }) => {
                self.stage.fault(*link, *fault);
                Ok(())
            }
            Deed::UntilLink(step::UntilLink { until_link, connections, lost }) => {
                let what = format!("{connections} connections and {lost} lost bytes");
                self.until(&what, async |player| {
                    let seen = player.stage.has_seen(*until_link, *connections, *lost);
                    Ok(if seen { Ok(()) } else { Err("there were fewer".to_owned()) })
                })
                .await
            }
            Deed::Impostor(step::Impostor { impostor, answer }) => {
                self.stage.impostor(*impostor, answer.clone()).await
            }
            Deed::Kill(_) => {
                let next = Actor::start(self.language).map_err(text)?;
                let killed = std::mem::replace(&mut self.actor, next);
                killed.faults()?;
                killed.kill().await.map_err(text)?;
                self.started.clear();
                self.open.clear();
                Ok(())
            }
            Deed::Command(command) => self.command(command).await,
            Deed::CommandState(step::CommandState { command_state: id, device, is }) => {
                let device = device.as_deref().unwrap_or("d1");
                self.until(&format!("the command to be {is}"), async |player| {
                    let state = player.stage.command_state(device, id).await?;
                    Ok(if state == *is { Ok(()) } else { Err(format!("it is {state}")) })
                })
                .await
            }
            Deed::Stored(stored) => self.stored(stored).await,
            Deed::Change(step::Change { change, enabled, deleted }) => {
                self.stage.change_device(change, *enabled, *deleted).await
            }
            Deed::Events(step::Events { events, bodies }) => self.stage.store(events, bodies).await,
            Deed::Group(step::Group { group }) => self.stage.group(group).await,
            Deed::File(file) => self.file(file),
            Deed::Rising(step::Rising { rising }) => {
                let numbers: Result<Vec<_>, String> =
                    rising.iter().map(|number| self.value(number, None)).collect();
                let numbers = numbers?;
                let falls = numbers.windows(2).any(|pair| {
                    let numbers = pair.iter().map(Value::as_f64).collect::<Option<Vec<_>>>();
                    !numbers.is_some_and(|numbers| numbers.is_sorted())
                });
                if falls { Err(format!("expected rising numbers, seen {numbers:?}")) } else { Ok(()) }
            }
        }
    }

    async fn command(&mut self, command: &step::Command) -> Result<(), String> {
        let body = match &command.body {
            Some(body) => values::body(body)?,
            None => command.command.clone().into_bytes(),
        };
        let mut message = Message::command(body).message_id(&command.command);
        for (name, value) in &command.properties {
            message = message.property(name, value);
        }
        if let Some(ms) = command.expires_in_ms {
            let at = std::time::SystemTime::now() + Duration::from_millis(ms);
            message.system_mut().expiry_time = Some(at);
        }
        let device = command.device.as_deref().unwrap_or("d1");
        match (self.stage.command(device, message).await, &command.error) {
            (Ok(()), None) => Ok(()),
            (Err(seen), Some(expected)) if seen == *expected => Ok(()),
            (seen, expected) => Err(format!("expected {expected:?} of the hub, seen {seen:?}")),
        }
    }

    async fn stored(&mut self, stored: &step::Stored) -> Result<(), String> {
        let step::Stored { stored: device, prefix, bodies, messages, numbered, count, at_least_once } =
            stored;
        let mut expected: Option<Vec<Value>> = None;
        let mut wanted = 0;
        if let Some(bodies) = bodies {
            let all: Result<_, String> =
                bodies.iter().map(|body| Ok(json!({"body": STANDARD.encode(values::body(body)?)}))).collect();
            expected = Some(all?);
        }
        if let Some(messages) = messages {
            expected =
                Some(messages.iter().map(|message| self.value(message, None)).collect::<Result<_, _>>()?);
        }
        if let Some(count) = numbered {
            let body = |number: u32| json!({"body": STANDARD.encode(number.to_string())});
            expected = Some((0..*count).map(body).collect());
        }
        if let Some(count) = count {
            wanted = self.value(count, None)?.as_u64().ok_or("the count is no number")?;
        }
        let wanted = expected.as_ref().map_or(wanted, |all| all.len() as u64);
        let prefix = prefix.as_deref().unwrap_or_default();
        let what = format!("{wanted} messages of {device} at the hub");
        self.until(&what, async |player| {
            let seen = player.stage.stored(device, prefix, *at_least_once).await?;
            let count = seen.len() as u64;
            if count < wanted {
                return Ok(Err(format!("there are {count}")));
            }
            if count > wanted {
                return Err(format!("expected {what}, seen {count}: {seen:?}"));
            }
            let differs = expected.as_ref().and_then(|expected| {
                difference("stored", &Value::Array(expected.clone()), &Value::Array(seen))
            });
            differs.map_or(Ok(Ok(())), Err)
        })
        .await
    }

    fn file(&self, file: &step::File) -> Result<(), String> {
        use std::io::{Seek as _, Write as _};
        let path = self.stage.folder().join(&file.file);
        let bytes = match (&file.text, &file.base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, bytes) => STANDARD.decode(bytes.as_deref().unwrap_or_default()).map_err(text)?,
        };
        path.parent().map(std::fs::create_dir_all).transpose().map_err(text)?;
        match file.at {
            None => std::fs::write(&path, bytes).map_err(text),
            Some(at) => {
                let mut there = std::fs::File::options().write(true).open(&path).map_err(text)?;
                there.seek(std::io::SeekFrom::Start(at)).and_then(|_| there.write_all(&bytes)).map_err(text)
            }
        }
    }

    /// Looks until it holds: `Ok(Ok)` when it does, `Ok(Err)` with what is seen when not yet, `Err` when it never will.
    async fn until(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&mut Self) -> Result<Result<(), String>, String>,
    ) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            match look(self).await? {
                Ok(()) => return Ok(()),
                Err(seen) if begun.elapsed() > self.limit => {
                    return Err(format!("expected {what} within {:?}; {seen}", self.limit));
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Every device that is open has an account that balances.
    async fn check_accounts(&mut self) -> Result<(), String> {
        for name in std::mem::take(&mut self.open) {
            let seen = match self.ask_simple("device.account", Some(&name)).await? {
                Answer::Ok(account) => account,
                other => return Err(format!("expected the account of {name}, seen {other}")),
            };
            let figure = |part: &str| seen.get(part).and_then(Value::as_u64);
            let parts: Option<u64> =
                ["delivered", "expired", "dropped", "rejected", "queued"].into_iter().map(figure).sum();
            if parts.is_none() || parts != figure("accepted") {
                return Err(format!("the account of {name} does not balance: {seen}"));
            }
        }
        Ok(())
    }

    async fn ask_simple(&mut self, call: &str, on: Option<&str>) -> Result<Answer, String> {
        let request =
            Request { call: call.to_owned(), on: on.map(str::to_owned), keep: None, args: json!({}) };
        self.ask(request).await
    }

    async fn ask(&mut self, request: Request) -> Result<Answer, String> {
        let mut pending = self.actor.ask(vec![(request, false)]).await.map_err(text)?;
        match pending.first_mut() {
            Some(pending) => pending.answer(self.limit).await,
            None => Err("nothing was asked".to_owned()),
        }
    }

    fn take(&mut self, name: &str) -> Result<Pending, String> {
        self.started.remove(name).ok_or_else(|| format!("no call {name} was started"))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// How often a state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
