//! Steps that are calls of the actor.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Player, text};
use crate::{
    actor::Request,
    expect::{Answer, difference, error_difference},
    scenario::step::{self, Expected, LinkName},
};

impl Player<'_> {
    pub(super) async fn open(&mut self, open: &step::Open) -> Result<(), String> {
        let device = open.device.as_deref().unwrap_or(&open.open);
        let protocol = open.protocol.as_deref().unwrap_or("mqtt5");
        let (scheme, link) = match protocol {
            "amqp" => ("amqp", LinkName::Amqp),
            "http" => ("http", LinkName::Http),
            _ => ("mqtt", LinkName::Mqtt),
        };
        let mut options = json!({
            "server": format!("{scheme}://{}", self.stage.address(link)), "protocol": protocol,
            "backoff_min_ms": 5, "backoff_max_ms": 100, "connect_timeout_ms": 10_000,
        });
        match open.memory {
            true => add(&mut options, "outbox_in_memory", Value::Bool(true)),
            false => {
                let folder = self.stage.outbox(open.folder.as_deref().unwrap_or(device));
                add(&mut options, "outbox", Value::from(folder.to_string_lossy().into_owned()));
            }
        }
        for (name, value) in &open.options {
            add(&mut options, name, self.value(value, None)?);
        }
        let key = self.stage.device(device)?;
        let key = if open.wrong_key { wrong_key(key) } else { key.to_owned() };
        let request = Request {
            call: "device.open".into(),
            on: None,
            keep: Some(open.open.clone()),
            args: json!({"connection_string": key, "options": options}),
        };
        let answer = self.ask(request).await?;
        self.compare(&Expected::read(None, open.error.as_ref())?, &answer)?;
        if open.error.is_none() {
            self.open.push(open.open.clone());
        }
        Ok(())
    }

    pub(super) async fn connect(&mut self, connect: &step::Connect) -> Result<(), String> {
        let mut options = json!({
            "server": format!("amqp://{}", self.stage.address(LinkName::Amqp)),
            "http_server": format!("http://{}", self.stage.address(LinkName::Http)),
            "backoff_min_ms": 5, "backoff_max_ms": 200, "connect_timeout_ms": 10_000,
        });
        for (name, value) in &connect.options {
            add(&mut options, name, self.value(value, None)?);
        }
        let key = self.stage.service();
        let key = if connect.wrong_key { wrong_key(key) } else { key.to_owned() };
        let request = Request {
            call: "service.connect".into(),
            on: None,
            keep: Some(connect.connect.clone()),
            args: json!({"connection_string": key, "options": options}),
        };
        let answer = self.ask(request).await?;
        self.compare(&Expected::read(None, connect.error.as_ref())?, &answer)
    }

    pub(super) async fn call(&mut self, call: &step::Call) -> Result<(), String> {
        if let Some(name) = &call.start {
            let request = self.request(call, None)?;
            let mut pending = self.actor.ask(vec![(request, false)]).await.map_err(text)?;
            self.started.extend(pending.pop().map(|pending| (name.clone(), pending)));
            return Ok(());
        }
        let expected = Expected::read(call.ok.as_ref(), call.error.as_ref())?;
        if call.until {
            return self
                .until("that", async |player| {
                    let request = player.request(call, None)?;
                    let keep = request.keep.clone();
                    let answer = player.ask(request).await?;
                    player.then(call.then.as_deref(), keep.as_deref(), &answer).await?;
                    let Err(seen) = player.compare(&expected, &answer) else {
                        return player.save(&call.save, &answer).map(Ok);
                    };
                    Ok(Err(seen))
                })
                .await;
        }
        for number in 0..call.times.unwrap_or(1) {
            let request = self.request(call, call.times.map(|_| number))?;
            let keep = request.keep.clone();
            let answer = self.ask(request).await?;
            self.compare(&expected, &answer)?;
            self.then(call.then.as_deref(), keep.as_deref(), &answer).await?;
            self.save(&call.save, &answer)?;
        }
        if call.call == "device.close" {
            self.open.retain(|name| Some(name) != call.on.as_ref());
        }
        Ok(())
    }

    pub(super) async fn storm(&mut self, storm: &step::Storm) -> Result<(), String> {
        let (mut calls, mut done, mut cancelled) = (Vec::new(), 0_u64, 0_u64);
        for number in 0..storm.count {
            let keep = storm.r#as.as_ref().map(|name| format!("{name}{number}"));
            let request = Request {
                call: storm.storm.clone(),
                on: Some(storm.on.clone()),
                keep: keep.clone(),
                args: self.value(&toml::Value::Table(storm.args.clone()), Some(number))?,
            };
            // Some before they began, some while they are under way, some late.
            let mut asked = self.actor.ask(vec![(request, number % 4 == 0)]).await.map_err(text)?;
            let pending = asked.pop().ok_or("nothing was asked")?;
            let (id, patience) = (pending.id, number % 4);
            calls.push((pending, keep));
            for _ in 1..patience {
                self.ask_simple("hello", None).await?;
            }
            if patience > 0 {
                self.actor.cancel(id).await.map_err(text)?.answer(self.limit).await?;
            }
        }
        let counts = match &storm.done_if {
            Some(expected) => Expected::Ok(expected.clone()),
            None => Expected::Ok(toml::Value::Table(toml::Table::new())),
        };
        for (mut pending, keep) in calls {
            match pending.answer(self.limit).await? {
                Answer::Cancelled => cancelled += 1,
                answer @ Answer::Ok(_) => {
                    if self.compare(&counts, &answer).is_err() {
                        continue;
                    }
                    done += 1;
                    self.then(storm.then.as_deref(), keep.as_deref(), &answer).await?;
                }
                other => return Err(format!("expected a call that is cancelled or ends well, seen {other}")),
            }
        }
        if cancelled == 0 {
            return Err(format!("expected some of {} calls to be cancelled, seen none", storm.count));
        }
        self.saved.extend(storm.done.clone().map(|name| (name, done.into())));
        Ok(())
    }

    /// Makes a call on what a call that went well has left, which has to go well, too.
    async fn then(&mut self, call: Option<&str>, on: Option<&str>, answer: &Answer) -> Result<(), String> {
        let (Some(call), Answer::Ok(_)) = (call, answer) else { return Ok(()) };
        match self.ask_simple(call, on).await? {
            Answer::Ok(_) => Ok(()),
            other => Err(format!("expected {call} to end well, seen {other}")),
        }
    }

    fn request(&mut self, call: &step::Call, number: Option<u32>) -> Result<Request, String> {
        let numbered = |name: &String| match number {
            Some(number) => format!("{name}{number}"),
            None => name.clone(),
        };
        let keep = match &call.r#as {
            Some(name) => numbered(name),
            None => {
                self.names += 1;
                format!("_{}", self.names)
            }
        };
        Ok(Request {
            call: call.call.clone(),
            on: call.on.as_ref().map(|name| name.replace("{n}", &number.unwrap_or_default().to_string())),
            keep: Some(keep),
            args: self.value(&toml::Value::Table(call.args.clone()), number)?,
        })
    }

    /// Fails with what differs.
    pub(super) fn compare(&self, expected: &Expected, answer: &Answer) -> Result<(), String> {
        let differs = match (expected, answer) {
            (Expected::Ok(ok), Answer::Ok(seen)) => difference("ok", &self.value(ok, None)?, seen),
            (Expected::Error(error), Answer::Error(seen)) => error_difference(error, seen),
            (Expected::Ok(ok), seen) => Some(format!("expected ok {ok}, seen {seen}")),
            (Expected::Error(error), seen) => Some(format!("expected the error {}, seen {seen}", error.kind)),
        };
        differs.map_or(Ok(()), Err)
    }

    pub(super) fn save(&mut self, save: &BTreeMap<String, String>, answer: &Answer) -> Result<(), String> {
        let (Answer::Ok(answer) | Answer::Error(answer)) = answer else { return Ok(()) };
        for (name, path) in save {
            let found = path.split('.').try_fold(answer, |value, part| match part.parse::<usize>() {
                Ok(at) => value.get(at),
                Err(_) => value.get(part),
            });
            let found = found.ok_or_else(|| format!("expected {path} in the answer, seen {answer}"))?;
            self.saved.insert(name.clone(), found.clone());
        }
        Ok(())
    }
}

fn add(options: &mut Value, name: &str, value: Value) {
    if let Some(options) = options.as_object_mut() {
        options.insert(name.to_owned(), value);
    }
}

/// The connection string with a key that nobody has.
fn wrong_key(text: &str) -> String {
    let end = text.find("SharedAccessKey=").unwrap_or(text.len());
    format!("{}SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0", text.get(..end).unwrap_or_default())
}
