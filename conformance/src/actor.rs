//! An actor: a child process that is asked by lines and answers by lines.

use std::{
    collections::{HashMap, HashSet},
    io,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::oneshot,
    task::JoinHandle,
};

use crate::expect::{Answer, shortened};

/// How the actor of a language is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Language {
    /// What its column is called.
    pub name: String,
    /// The command, for `sh`.
    pub command: String,
}

/// A running actor. Dropping it kills it.
pub struct Actor {
    child: Child,
    input: Option<ChildStdin>,
    next: AtomicU64,
    heard: Arc<Mutex<Heard>>,
    reading: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    answered: HashSet<u64>,
    /// What an actor never does.
    faults: Vec<String>,
    errors: Vec<u8>,
}

/// A call that was made.
pub struct Pending {
    /// Its number, to cancel it by.
    pub id: u64,
    answer: oneshot::Receiver<Answer>,
}

/// A call to be made.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which.
    pub call: String,
    /// On what.
    pub on: Option<String>,
    /// Under which name its result is kept.
    pub keep: Option<String>,
    /// With what.
    pub args: Value,
}

impl Actor {
    /// Starts the actor of `language`.
    ///
    /// # Errors
    /// When there is no `sh`.
    pub fn start(language: &Language) -> io::Result<Self> {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("exec {}", language.command))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut reading = Vec::new();
        if let Some(output) = child.stdout.take() {
            let heard = heard.clone();
            reading.push(tokio::spawn(async move {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    lock(&heard).hear(&line);
                }
                // Whoever waits is told by the end of the channel.
                lock(&heard).waiting.clear();
            }));
        }
        if let Some(mut errors) = child.stderr.take() {
            let heard = heard.clone();
            reading.push(tokio::spawn(async move {
                let mut buffer = vec![0; 4_096];
                while let Ok(count @ 1..) = errors.read(&mut buffer).await {
                    let mut heard = lock(&heard);
                    let room = ERRORS.saturating_sub(heard.errors.len());
                    heard.errors.extend(buffer.iter().take(count.min(room)));
                }
            }));
        }
        let input = child.stdin.take();
        Ok(Self { child, input, next: AtomicU64::new(1), heard, reading })
    }

    /// Makes calls, in one write; each may be followed by its cancellation.
    ///
    /// # Errors
    /// When the actor takes no more.
    pub async fn ask(&mut self, requests: Vec<(Request, bool)>) -> io::Result<Vec<Pending>> {
        let mut lines = String::new();
        let mut pending = Vec::new();
        for (request, cancelled) in requests {
            let Request { call, on, keep, args } = request;
            let (id, answer) = self.expect_answer();
            lines.push_str(&format!("{}\n", json!({"id": id, "call": call, "on": on.unwrap_or_default(), "as": keep.unwrap_or_default(), "args": args})));
            if cancelled {
                lines.push_str(&self.cancellation(id).0);
            }
            pending.push(Pending { id, answer });
        }
        self.write(&lines).await?;
        Ok(pending)
    }

    /// Cancels a call; the answer says that this was understood.
    ///
    /// # Errors
    /// When the actor takes no more.
    pub async fn cancel(&mut self, id: u64) -> io::Result<Pending> {
        let (line, pending) = self.cancellation(id);
        self.write(&line).await?;
        Ok(pending)
    }

    fn cancellation(&self, of: u64) -> (String, Pending) {
        let (id, answer) = self.expect_answer();
        (format!("{}\n", json!({"id": id, "call": "cancel", "args": {"of": of}})), Pending { id, answer })
    }

    fn expect_answer(&self) -> (u64, oneshot::Receiver<Answer>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.heard).waiting.insert(id, sender);
        (id, answer)
    }

    async fn write(&mut self, lines: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(lines.as_bytes()).await?;
        input.flush().await
    }

    /// Kills it, so that nothing of it runs any more.
    ///
    /// # Errors
    /// When that was not possible.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Ends its input and waits for it; what it did wrong.
    pub async fn end(mut self, limit: Duration) -> Result<(), String> {
        drop(self.input.take());
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let status = match ended {
            Err(_) => return Err("the actor does not end when its input does".to_owned()),
            Ok(status) => status.map_err(|error| format!("the actor was lost: {error}"))?,
        };
        for reading in self.reading.drain(..) {
            let _ = tokio::time::timeout(limit, reading).await;
        }
        match status.success() {
            true => self.faults(),
            false => Err(format!("the actor ended with {status}")),
        }
    }

    /// What it did that no actor does, if anything.
    ///
    /// # Errors
    /// That.
    pub fn faults(&self) -> Result<(), String> {
        match lock(&self.heard).faults.first() {
            Some(fault) => Err(fault.clone()),
            None => Ok(()),
        }
    }

    /// What can tell later what it wrote to standard error.
    pub fn errors(&self) -> impl Fn() -> String + use<> {
        let heard = self.heard.clone();
        move || String::from_utf8_lossy(&lock(&heard).errors).into_owned()
    }
}

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// When it does not come in time, or the actor has ended.
    pub async fn answer(&mut self, limit: Duration) -> Result<Answer, String> {
        match tokio::time::timeout(limit, &mut self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err("the actor has ended without an answer".to_owned()),
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }

    /// The answer, if it has come.
    pub fn early(&mut self) -> Option<Answer> {
        self.answer.try_recv().ok()
    }
}

impl Heard {
    fn hear(&mut self, line: &str) {
        let fault = |what: &str| format!("{what}: {}", shortened(&Value::from(line)));
        let Ok(said) = serde_json::from_str::<Value>(line) else {
            return self.faults.push(fault("the actor said what is no answer"));
        };
        let parts = [said.get("ok"), said.get("error"), said.get("cancelled")];
        let answer = match parts {
            [Some(ok @ Value::Object(_)), None, None] => Answer::Ok(ok.clone()),
            [None, Some(error @ Value::Object(_)), None] => Answer::Error(error.clone()),
            [None, None, Some(Value::Bool(true))] => Answer::Cancelled,
            _ => return self.faults.push(fault("an answer is one of ok, error and cancelled")),
        };
        let Some(id) = said.get("id").and_then(Value::as_u64) else {
            return self.faults.push(fault("an answer has the number of its call"));
        };
        match self.waiting.remove(&id) {
            Some(sender) => {
                self.answered.insert(id);
                // Nobody may want it any more.
                let _ = sender.send(answer);
            }
            None if self.answered.contains(&id) => self.faults.push(fault("a call was answered twice")),
            None => self.faults.push(fault("an answer to no call")),
        }
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much of an actor's standard error is kept.
const ERRORS: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_actor_says_is_a_fault() {
        for (lines, fault) in [
            (&["hello"][..], "no answer"),
            (&[r#"{"id": 1}"#], "one of ok"),
            (&[r#"{"id": 1, "ok": 1}"#], "one of ok"),
            (&[r#"{"id": 1, "ok": {}, "error": {}}"#], "one of ok"),
            (&[r#"{"ok": {}}"#], "number"),
            (&[r#"{"id": 1, "ok": {}}"#, r#"{"id": 1, "ok": {}}"#], "twice"),
            (&[r#"{"id": 2, "ok": {}}"#], "to no call"),
        ] {
            let mut heard = Heard::default();
            let (sender, _answer) = oneshot::channel();
            heard.waiting.insert(1, sender);
            lines.iter().for_each(|line| heard.hear(line));
            assert!(heard.faults[0].contains(fault), "{:?} does not say {fault:?}", heard.faults);
        }
    }
}
