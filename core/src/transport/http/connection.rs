//! What is under way with a hub: at most one request with messages per lane, so that their order is kept and alerts
//! overtake; one for the next command; a few that settle commands.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{
    batch,
    requests::{Fetched, Refused, Requests},
};
use crate::{
    Error, ErrorKind, Lane, Result,
    delivery::Verdict,
    outbox::Queued,
    transport::{Answer, Arrived, Connection, Handle, Incoming, Settled, Settlement, socket::unreachable},
};

/// More than this waiting to be sent, and there is no room for more messages.
const ROOM: usize = 512 * 1_024;
/// Most settlements under way at once.
const SETTLING: usize = 4;
/// How long requests that are under way may take when the connection ends.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// Requests to a hub by HTTP.
pub struct HttpConnection {
    requests: Arc<Requests>,
    poll_interval: Duration,
    alerts: Queue,
    telemetry: Queue,
    commands: Option<Commands>,
    jobs: Vec<Job>,
    /// What came without the hub.
    own: Incoming,
    /// The caller was told that there is no room.
    was_full: bool,
    /// Why the connection is over; told when what came in before has been handed out.
    failed: Option<Error>,
}

/// A request that is under way.
type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

enum Done {
    Posted { lane: Lane, result: std::result::Result<(), Refused> },
    Fetched(Result<Option<Box<Fetched>>>),
    Settled { handle: Handle, result: Result<Result<()>> },
}

/// The messages of one lane.
#[derive(Default)]
struct Queue {
    /// In order; the first `posted` of them are under way.
    waiting: VecDeque<Queued>,
    bytes: usize,
    posted: usize,
    /// So many go alone: one of them is not taken by the hub, and it has to show which.
    alone: usize,
}

struct Commands {
    window: usize,
    /// Locks of the commands that are not settled.
    held: HashMap<Handle, Held>,
    next_handle: Handle,
    /// There may be more at the hub.
    due: bool,
    fetching: bool,
    timer: Pin<Box<Sleep>>,
    to_settle: VecDeque<(Handle, Settlement)>,
    settling: usize,
}

struct Held {
    lock: Arc<str>,
    settled: bool,
}

impl HttpConnection {
    pub(super) fn new(requests: Arc<Requests>, poll_interval: Duration) -> Self {
        Self {
            requests,
            poll_interval,
            alerts: Queue::default(),
            telemetry: Queue::default(),
            commands: None,
            jobs: Vec::new(),
            own: Incoming::default(),
            was_full: false,
            failed: None,
        }
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Alert => &mut self.alerts,
            Lane::Telemetry => &mut self.telemetry,
        }
    }

    /// Ready when something came in, or when there is room again.
    fn poll(&mut self, cx: &mut Context<'_>, incoming: &mut Incoming) -> Poll<Result<()>> {
        let before = incoming.count();
        incoming.append(&mut self.own);
        loop {
            if self.failed.is_none() {
                for lane in Lane::ALL {
                    self.post(lane);
                }
                self.fetch();
                self.settle_some();
                self.poll_jobs(cx, incoming);
            }
            let room = self.was_full && self.has_room();
            if incoming.count() > before || room {
                self.was_full &= !room;
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = self.failed.take() {
                self.jobs.clear();
                self.failed = Some(unreachable("the connection is closed"));
                return Poll::Ready(Err(error));
            }
            if !self.has_work() {
                ready!(self.poll_timer(cx));
            }
        }
    }

    /// Whether a request could be made that is not.
    fn has_work(&self) -> bool {
        let posts = [&self.alerts, &self.telemetry]
            .iter()
            .any(|queue| queue.posted == 0 && !queue.waiting.is_empty());
        posts || self.commands.as_ref().is_some_and(|commands| commands.may_fetch() || commands.may_settle())
    }

    /// Sends what is ready of a lane, if nothing of it is under way.
    fn post(&mut self, lane: Lane) {
        let (requests, bytes) = (self.requests.clone(), self.requests.pace().bytes());
        let queue = self.queue(lane);
        if queue.posted > 0 {
            return;
        }
        let limit = if queue.alone > 0 { 1 } else { usize::MAX };
        let messages = queue.waiting.iter().map(|queued| &queued.message);
        let Some(load) = batch::load(messages, limit, bytes) else { return };
        queue.posted = load.count;
        queue.alone = queue.alone.saturating_sub(1);
        self.jobs.push(Box::pin(async move { Done::Posted { lane, result: requests.post(load).await } }));
    }

    fn fetch(&mut self) {
        let Some(commands) = self.commands.as_mut().filter(|commands| commands.may_fetch()) else { return };
        commands.fetching = true;
        let requests = self.requests.clone();
        self.jobs.push(Box::pin(async move {
            Done::Fetched(requests.fetch().await.map(|found| found.map(Box::new)))
        }));
    }

    fn settle_some(&mut self) {
        let Some(commands) = &mut self.commands else { return };
        while commands.may_settle()
            && let Some((handle, settlement)) = commands.to_settle.pop_front()
        {
            let Some(lock) = commands.held.get(&handle).map(|held| held.lock.clone()) else { continue };
            commands.settling += 1;
            let requests = self.requests.clone();
            self.jobs.push(Box::pin(async move {
                Done::Settled { handle, result: requests.settle(&lock, settlement).await }
            }));
        }
    }

    fn poll_jobs(&mut self, cx: &mut Context<'_>, incoming: &mut Incoming) {
        let mut at = 0;
        while let Some(job) = self.jobs.get_mut(at) {
            match job.as_mut().poll(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(done) => {
                    drop(self.jobs.swap_remove(at));
                    if let Err(error) = self.done(done, incoming) {
                        // Keeps the first reason.
                        self.failed.get_or_insert(error);
                    }
                }
            }
        }
    }

    fn done(&mut self, done: Done, incoming: &mut Incoming) -> Result<()> {
        match done {
            Done::Posted { lane, result } => self.posted(lane, result, incoming),
            Done::Fetched(result) => {
                let fetched = result?;
                let interval = self.poll_interval;
                let Some(commands) = &mut self.commands else { return Ok(()) };
                commands.fetching = false;
                match fetched {
                    Some(fetched) => incoming.commands.push(commands.take(*fetched)),
                    None => {
                        commands.due = false;
                        commands.timer.as_mut().reset(Instant::now() + interval);
                    }
                }
                Ok(())
            }
            Done::Settled { handle, result } => {
                let result = result?;
                if let Some(commands) = &mut self.commands {
                    commands.settling -= 1;
                    commands.held.remove(&handle);
                }
                incoming.settled.push(Settled { handle, result });
                Ok(())
            }
        }
    }

    fn posted(
        &mut self,
        lane: Lane,
        result: std::result::Result<(), Refused>,
        incoming: &mut Incoming,
    ) -> Result<()> {
        let queue = self.queue(lane);
        let count = std::mem::take(&mut queue.posted);
        let verdict = match result {
            Ok(()) => Verdict::Stored { partition: None, sequence: None },
            Err(Refused::Content(_)) if count > 1 => {
                queue.alone = count;
                return Ok(());
            }
            Err(Refused::Content(reason)) => Verdict::Refused { retryable: false, reason },
            Err(Refused::Lost(error)) => return Err(error),
        };
        for queued in queue.waiting.drain(..count) {
            queue.bytes -= queued.message.size();
            let (lane, sequence) = (queued.lane, queued.sequence);
            incoming.answers.push(Answer { lane, sequence, verdict: verdict.clone() });
        }
        Ok(())
    }

    /// Ready when it is time to ask for commands again.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.commands {
            Some(commands) if !commands.due => {
                ready!(commands.timer.as_mut().poll(cx));
                commands.due = true;
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    }

    /// Lets settlements go out that were handed over, and what is under way come to its end.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.settle_some();
            let before = self.jobs.len();
            self.poll_jobs(cx, &mut Incoming::default());
            if self.jobs.is_empty() || self.failed.is_some() {
                return Poll::Ready(());
            }
            if self.jobs.len() == before {
                return Poll::Pending;
            }
        }
    }
}

impl Commands {
    fn may_fetch(&self) -> bool {
        self.due && !self.fetching && self.held.len() < self.window
    }

    fn may_settle(&self) -> bool {
        self.settling < SETTLING && !self.to_settle.is_empty()
    }

    fn take(&mut self, fetched: Fetched) -> Arrived {
        let handle = self.next_handle;
        self.next_handle += 1;
        self.held.insert(handle, Held { lock: fetched.lock.into(), settled: false });
        Arrived {
            handle,
            sequence: fetched.sequence,
            enqueued_at: fetched.enqueued_at,
            delivery_count: fetched.delivery_count,
            message: fetched.message,
        }
    }
}

impl Connection for HttpConnection {
    fn publish(&mut self, messages: &[Queued]) {
        for queued in messages {
            let queue = self.queue(queued.lane);
            queue.bytes += queued.message.size();
            queue.waiting.push_back(queued.clone());
        }
        self.was_full = !self.has_room();
    }

    fn has_room(&self) -> bool {
        self.alerts.bytes + self.telemetry.bytes < ROOM
    }

    fn receive_commands(&mut self, window: u16) {
        if self.requests.is_module() || self.commands.is_some() {
            return;
        }
        self.commands = Some(Commands {
            window: usize::from(window.max(1)),
            held: HashMap::new(),
            next_handle: 0,
            due: true,
            fetching: false,
            timer: Box::pin(tokio::time::sleep(self.poll_interval)),
            to_settle: VecDeque::new(),
            settling: 0,
        });
    }

    fn settle(&mut self, settlements: &[(Handle, Settlement)]) {
        for (handle, settlement) in settlements {
            let commands = self.commands.as_mut();
            match commands
                .and_then(|commands| Some((commands.held.get_mut(handle)?, &mut commands.to_settle)))
            {
                Some((held, to_settle)) if !held.settled => {
                    held.settled = true;
                    to_settle.push_back((*handle, *settlement));
                }
                _ => {
                    let error =
                        Error::new(ErrorKind::Conflict, "command.settle", "the command was settled before");
                    self.own.settled.push(Settled { handle: *handle, result: Err(error) });
                }
            }
        }
    }

    async fn drive(&mut self, incoming: &mut Incoming) -> Result<()> {
        poll_fn(|cx| self.poll(cx, incoming)).await
    }

    async fn finish(mut self) {
        if self.failed.is_none() {
            // What does not get through in that time will be sent, or delivered, once more.
            let _ = tokio::time::timeout(FINISH_LIMIT, poll_fn(|cx| self.poll_finish(cx))).await;
        }
    }
}

impl std::fmt::Debug for HttpConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpConnection").finish_non_exhaustive()
    }
}
