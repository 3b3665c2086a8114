//! How commands ended: who waits for it, and what is known although nobody has asked yet.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::wire::feedback::CommandOutcome;

/// Device and message id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) device: Arc<str>,
    pub(super) message_id: Arc<str>,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It ended so.
    Outcome(CommandOutcome),
    /// The hub knows of no such command, or not any more.
    Unknown,
}

/// What is known of the commands of this process. Clones share.
#[derive(Clone)]
pub(super) struct Outcomes(Arc<Shared>);

struct Shared {
    book: Mutex<Book>,
    /// Somebody began to wait.
    interest: Notify,
}

/// One command somebody follows; forgotten when nobody does any more.
pub(super) struct Followed {
    pub(super) key: Key,
    end: watch::Sender<Option<End>>,
    outcomes: Weak<Shared>,
}

struct Book {
    followed: HashMap<Key, Entry>,
    /// Ended, and followed by nobody when that happened; the oldest are forgotten first.
    recent: HashMap<Key, CommandOutcome>,
    order: VecDeque<Key>,
    limit: usize,
    /// When to ask the hub about a command; entries of commands that need it no more are passed over.
    agenda: BinaryHeap<Reverse<(Instant, Key)>>,
}

struct Entry {
    command: Weak<Followed>,
    /// When the hub is asked next; none before the hub has the command, nor while it is being asked.
    ask_at: Option<Instant>,
    asked: u32,
    stored: bool,
}

impl Outcomes {
    /// Keeps up to `limit` outcomes nobody has asked for.
    pub(super) fn new(limit: usize) -> Self {
        let book = Book {
            followed: HashMap::new(),
            recent: HashMap::new(),
            order: VecDeque::new(),
            limit,
            agenda: BinaryHeap::new(),
        };
        Self(Arc::new(Shared { book: Mutex::new(book), interest: Notify::new() }))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book()
    }

    /// Follows a command that is about to be sent.
    pub(super) fn follow(&self, key: Key) -> Arc<Followed> {
        self.book().follow(key, &self.0).0
    }

    /// The hub has the command now. It will say how it ended; in case that is missed, it is asked after a while.
    pub(super) fn stored(&self, key: &Key, now: Instant) {
        self.book().stored(key, now + FIRST_ASK);
    }

    /// Follows a command that was sent before, perhaps by another process.
    pub(super) fn resume(&self, key: Key, now: Instant) -> Arc<Followed> {
        let mut book = self.book();
        let (followed, is_new) = book.follow(key, &self.0);
        // One that this process is sending just now is nothing to ask about: the hub may not have it yet.
        if is_new && followed.end.borrow().is_none() {
            book.stored(&followed.key, now);
            self.0.interest.notify_one();
        }
        followed
    }

    /// A command ended.
    pub(super) fn ended(&self, key: Key, outcome: CommandOutcome) {
        let followed = self.book().ended(&key, End::Outcome(outcome));
        match followed {
            Some(followed) => followed.tell(End::Outcome(outcome)),
            None => self.book().keep(key, outcome),
        }
    }

    /// What the hub said about a command it was asked about; none when it is not over yet, or the hub did not answer.
    pub(super) fn answered(&self, key: &Key, end: Option<End>, now: Instant) {
        match end {
            Some(end) => {
                let followed = self.book().ended(key, end);
                if let Some(followed) = followed {
                    followed.tell(end);
                }
            }
            None => self.book().ask_again(key, now),
        }
    }

    /// Everything may have been missed: every command that is followed is asked about at once.
    pub(super) fn ask_all(&self, now: Instant) {
        self.book().ask_all(now);
    }

    /// Commands to ask about now, at most `limit`; and when there are more.
    pub(super) fn due(&self, now: Instant, limit: usize) -> (Vec<Key>, Option<Instant>) {
        self.book().due(now, limit)
    }

    /// Whether anybody follows a command the hub has.
    pub(super) fn are_wanted(&self) -> bool {
        self.book().followed.values().any(|entry| entry.stored)
    }

    /// Waits until somebody begins to follow a command that was sent before.
    pub(super) async fn interest(&self) {
        self.0.interest.notified().await;
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followed {
    fn tell(&self, end: End) {
        self.end.send_replace(Some(end));
    }

    /// Waits for the end.
    pub(super) async fn end(&self) -> End {
        let mut end = self.end.subscribe();
        // The sender is ours, so it cannot be gone.
        match end.wait_for(Option::is_some).await.map(|end| *end) {
            Ok(Some(end)) => end,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let Some(shared) = self.outcomes.upgrade() else { return };
        let mut book = shared.book();
        // Somebody may have begun to follow it anew meanwhile.
        if book.followed.get(&self.key).is_some_and(|entry| entry.command.strong_count() == 0) {
            book.followed.remove(&self.key);
            if let Some(End::Outcome(outcome)) = *self.end.borrow() {
                book.keep(self.key.clone(), outcome);
            }
        }
    }
}

impl Book {
    /// Whether it was not followed before comes with it.
    fn follow(&mut self, key: Key, shared: &Arc<Shared>) -> (Arc<Followed>, bool) {
        if let Some(followed) = self.followed.get(&key).and_then(|entry| entry.command.upgrade()) {
            return (followed, false);
        }
        let known = self.recent.get(&key).copied().map(End::Outcome);
        let followed = Arc::new(Followed {
            key: key.clone(),
            end: watch::Sender::new(known),
            outcomes: Arc::downgrade(shared),
        });
        let entry = Entry { command: Arc::downgrade(&followed), ask_at: None, asked: 0, stored: false };
        self.followed.insert(key, entry);
        (followed, true)
    }

    fn stored(&mut self, key: &Key, ask_at: Instant) {
        let Some(entry) = self.followed.get_mut(key) else { return };
        entry.stored = true;
        self.ask(key.clone(), ask_at);
    }

    fn ask(&mut self, key: Key, at: Instant) {
        let Some(entry) = self.followed.get_mut(&key) else { return };
        entry.ask_at = Some(at);
        self.agenda.push(Reverse((at, key)));
    }

    fn ask_again(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.followed.get_mut(key) else { return };
        entry.asked = entry.asked.saturating_add(1);
        let wait = FIRST_ASK.saturating_mul(1 << entry.asked.min(8)).min(LONGEST_ASK);
        self.ask(key.clone(), now + wait);
    }

    fn ask_all(&mut self, now: Instant) {
        self.agenda.clear();
        let stored = self.followed.iter().filter(|(_, entry)| entry.stored);
        let keys: Vec<Key> = stored.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.ask(key, now);
        }
    }

    fn ended(&mut self, key: &Key, end: End) -> Option<Arc<Followed>> {
        let entry = self.followed.get_mut(key)?;
        entry.ask_at = None;
        entry.stored = entry.stored && end == End::Unknown;
        entry.command.upgrade()
    }

    fn keep(&mut self, key: Key, outcome: CommandOutcome) {
        if self.limit == 0 {
            return;
        }
        if self.recent.insert(key.clone(), outcome).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.limit {
            if let Some(oldest) = self.order.pop_front() {
                self.recent.remove(&oldest);
            }
        }
    }

    fn due(&mut self, now: Instant, limit: usize) -> (Vec<Key>, Option<Instant>) {
        let mut due = Vec::new();
        while let Some(Reverse((at, key))) = self.agenda.peek() {
            let entry = self.followed.get_mut(key).filter(|entry| entry.ask_at == Some(*at));
            let Some(entry) = entry else {
                self.agenda.pop();
                continue;
            };
            if *at > now || due.len() == limit {
                return (due, Some(*at));
            }
            entry.ask_at = None;
            due.extend(self.agenda.pop().map(|Reverse((_, key))| key));
        }
        (due, None)
    }
}

/// The hub is asked about a command when it has not said anything for so long; then less and less often.
const FIRST_ASK: Duration = Duration::from_secs(60);
const LONGEST_ASK: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn key(id: &str) -> Key {
        Key { device: "d".into(), message_id: id.into() }
    }

    fn now_of(followed: &Followed) -> Option<End> {
        followed.end().now_or_never()
    }

    const DONE: End = End::Outcome(CommandOutcome::Completed);

    #[tokio::test(start_paused = true)]
    async fn everybody_who_follows_a_command_hears_of_its_end_once_it_has_one() {
        let outcomes = Outcomes::new(2);
        let (one, other) = (outcomes.follow(key("a")), outcomes.follow(key("a")));
        assert!(Arc::ptr_eq(&one, &other));
        outcomes.ended(key("b"), CommandOutcome::Expired);
        assert_eq!(now_of(&one), None);
        outcomes.ended(key("a"), CommandOutcome::Completed);
        assert_eq!((now_of(&one), now_of(&other)), (Some(DONE), Some(DONE)));
        drop((one, other));
        assert_eq!(now_of(&outcomes.resume(key("a"), Instant::now())), Some(DONE), "kept for later");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asked_for_is_kept_within_bounds() {
        let outcomes = Outcomes::new(2);
        for id in ["a", "b", "b", "c"] {
            outcomes.ended(key(id), CommandOutcome::Completed);
        }
        assert_eq!(now_of(&outcomes.follow(key("a"))), None, "the oldest is forgotten");
        assert_eq!(now_of(&outcomes.follow(key("b"))), Some(DONE));
        assert_eq!(now_of(&outcomes.follow(key("c"))), Some(DONE));
        let none = Outcomes::new(0);
        none.ended(key("a"), CommandOutcome::Completed);
        assert_eq!(now_of(&none.follow(key("a"))), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_is_over_is_not_asked_about() {
        let outcomes = Outcomes::new(2);
        let start = Instant::now();
        let sent = outcomes.follow(key("sent"));
        assert!(!outcomes.are_wanted(), "the hub does not have it yet");
        assert_eq!(outcomes.due(start + LONGEST_ASK, 9), (vec![], None));
        drop(outcomes.resume(key("sent"), start));
        assert_eq!(outcomes.due(start, 9), (vec![], None), "it would say that it does not know the command");
        outcomes.stored(&sent.key, start);
        let resumed = outcomes.resume(key("resumed"), start);
        assert!(outcomes.are_wanted());
        assert_eq!(outcomes.due(start, 9), (vec![key("resumed")], Some(start + FIRST_ASK)));
        assert_eq!(outcomes.due(start, 9).0, vec![], "while it is being asked about");
        outcomes.answered(&resumed.key, None, start);
        assert_eq!(outcomes.due(start + FIRST_ASK, 9), (vec![key("sent")], Some(start + 2 * FIRST_ASK)));
        outcomes.ended(key("sent"), CommandOutcome::Purged);
        outcomes.answered(&sent.key, None, start);
        outcomes.answered(&resumed.key, Some(End::Unknown), start);
        assert_eq!(now_of(&resumed), Some(End::Unknown));
        // An answer that was on its way when the outcome came does not take it back.
        assert_eq!(now_of(&sent), Some(End::Outcome(CommandOutcome::Purged)));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_gap_everything_is_asked_about_a_few_at_a_time() {
        let outcomes = Outcomes::new(2);
        let start = Instant::now();
        let followed: Vec<_> = (0..5).map(|n| outcomes.resume(key(&n.to_string()), start)).collect();
        let unsent = outcomes.follow(key("unsent"));
        outcomes.ended(key("3"), CommandOutcome::Completed);
        assert_eq!(outcomes.due(start, 9).0.len(), 4);
        outcomes.ask_all(start);
        let (first, more) = outcomes.due(start, 3);
        assert_eq!((first.len(), more), (3, Some(start)));
        assert_eq!(outcomes.due(start, 3).0.len(), 1);
        drop((followed, unsent));
        outcomes.ask_all(start);
        assert_eq!(outcomes.due(start, 9), (vec![], None), "nobody follows them any more");
    }
}
