//! Streams, taken by pull.
//!
//! A result that travels to another thread can find that nobody waits any more, and is lost then. So what travels is only the
//! news that there is something; the thing itself is taken by the one who wants it, at the moment he has it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{Notify, watch};
#[cfg(feature = "service")]
use whimbrel::service;
use whimbrel::{Command, ConnectionState, Inbox, Result};

use crate::guarded;

/// Something with a next item.
pub trait Source: Send + 'static {
    /// What it gives.
    type Item: Send + 'static;
    /// How many items may be taken from it ahead of those who want them.
    const AHEAD: usize;

    /// The next item; `None` at the end. Dropping the future swallows none.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Self::Item>>>;

    /// Ends it.
    fn close(self) -> BoxFuture<'static, ()>;
}

/// A [`Source`] for any number of takers. Cheap to clone. A taker asks [`Pull::take`]; when there is nothing, he waits for
/// [`Pull::ready`] and asks again; when he stops waiting, he calls [`Pull::pass_on`], for the news may have been for him.
pub struct Pull<S: Source>(Arc<Shared<S>>);

struct Shared<S: Source> {
    /// One taker at a time waits at the source, for all.
    source: tokio::sync::Mutex<Option<S>>,
    found: Mutex<Found<S::Item>>,
    news: Notify,
    closed: watch::Sender<bool>,
}

struct Found<T> {
    items: VecDeque<Result<T>>,
    ended: bool,
}

impl<S: Source> Pull<S> {
    /// Takers for `source`.
    pub fn new(source: S) -> Self {
        Self(Arc::new(Shared {
            source: tokio::sync::Mutex::new(Some(source)),
            found: Mutex::new(Found { items: VecDeque::new(), ended: false }),
            news: Notify::new(),
            closed: watch::Sender::new(false),
        }))
    }

    /// What is there: an item or an error, or `Ok(None)` at the end. `None` when there is nothing yet.
    pub fn take(&self) -> Option<Result<Option<S::Item>>> {
        let mut found = self.found();
        match found.items.pop_front() {
            Some(item) => Some(item.map(Some)),
            None => found.ended.then_some(Ok(None)),
        }
    }

    /// [`Pull::take`] for those who never wait: asks the source, unless somebody waits at it.
    pub fn try_next(&self) -> Option<Result<Option<S::Item>>> {
        self.take().or_else(|| {
            // Polled once, and dropped: that loses nothing.
            let _ = self.ready().now_or_never();
            self.take()
        })
    }

    /// Resolves when there was something to take; another taker may have been faster. Dropping the future loses nothing.
    ///
    /// # Errors
    /// None but `Internal`; what the source says is for [`Pull::take`].
    pub async fn ready(&self) -> Result<()> {
        let shared = &*self.0;
        let mut closed = shared.closed.subscribe();
        loop {
            let news = shared.news.notified();
            if self.has_something() {
                return Ok(());
            }
            let ask = async {
                let mut source = shared.source.lock().await;
                if self.has_something() {
                    return Ok(());
                }
                let Some(source) = source.as_mut() else {
                    self.found().ended = true;
                    return Ok(());
                };
                let first = guarded("next", source.next()).await;
                let mut more = if first.is_ok() { S::AHEAD } else { 0 };
                self.add(first);
                while more > 0 && !self.found().ended {
                    more -= 1;
                    let Some(next) = source.next().now_or_never() else { break };
                    self.add(next);
                }
                Ok(())
            };
            tokio::select! {
                () = news => {}
                asked = ask => asked?,
                _ = closed.wait_for(|closed| *closed) => self.found().ended = true,
            }
        }
    }

    /// Tells the other takers to look again.
    pub fn pass_on(&self) {
        self.0.news.notify_waiters();
    }

    /// Ends the stream: takers get the end, what was not taken is dropped. Closing twice is fine.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn close(&self) -> Result<()> {
        self.0.closed.send_replace(true);
        let source = self.0.source.lock().await.take();
        let left = {
            let mut found = self.found();
            found.ended = true;
            std::mem::take(&mut found.items)
        };
        drop(left);
        self.pass_on();
        guarded("close", async {
            if let Some(source) = source {
                source.close().await;
            }
            Ok(())
        })
        .await
    }

    /// Whether [`Pull::take`] would give something.
    pub fn has_something(&self) -> bool {
        let found = self.found();
        found.ended || !found.items.is_empty()
    }

    fn add(&self, next: Result<Option<S::Item>>) {
        let mut found = self.found();
        match next.transpose() {
            Some(item) => found.items.push_back(item),
            None => found.ended = true,
        }
        drop(found);
        self.pass_on();
    }

    fn found(&self) -> MutexGuard<'_, Found<S::Item>> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Source> Clone for Pull<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Source> std::fmt::Debug for Pull<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").finish_non_exhaustive()
    }
}

/// Commands: none ahead, for what is taken from the inbox is held for this taker alone.
impl Source for Inbox {
    type Item = Command;
    const AHEAD: usize = 0;

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Command>>> {
        Inbox::next(self).boxed()
    }

    fn close(self) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}

/// Connection states: the present one first, then each that is there when it is asked for.
impl Source for ConnectionStates {
    type Item = ConnectionState;
    const AHEAD: usize = 0;

    fn next(&mut self) -> BoxFuture<'_, Result<Option<ConnectionState>>> {
        async {
            if !std::mem::take(&mut self.first) && self.states.changed().await.is_err() {
                return Ok(None);
            }
            Ok(Some(self.states.borrow_and_update().clone()))
        }
        .boxed()
    }

    fn close(self) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}

/// The changes of a device's connection, as a [`Source`].
#[derive(Debug)]
pub struct ConnectionStates {
    states: watch::Receiver<ConnectionState>,
    first: bool,
}

impl ConnectionStates {
    /// Those of [`whimbrel::DeviceClient::connection`].
    pub fn new(states: watch::Receiver<ConnectionState>) -> Self {
        Self { states, first: true }
    }
}

#[cfg(feature = "service")]
impl Source for service::EventReader {
    type Item = service::Event;
    const AHEAD: usize = 64;

    fn next(&mut self) -> BoxFuture<'_, Result<Option<service::Event>>> {
        service::EventReader::next(self).boxed()
    }

    fn close(self) -> BoxFuture<'static, ()> {
        service::EventReader::close(self).boxed()
    }
}

#[cfg(feature = "service")]
impl Source for service::FeedbackReader {
    type Item = service::FeedbackBatch;
    const AHEAD: usize = 0;

    fn next(&mut self) -> BoxFuture<'_, Result<Option<service::FeedbackBatch>>> {
        service::FeedbackReader::next(self).boxed()
    }

    fn close(self) -> BoxFuture<'static, ()> {
        service::FeedbackReader::close(self).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    struct Numbers(mpsc::UnboundedReceiver<u32>);

    impl Source for Numbers {
        type Item = u32;
        const AHEAD: usize = 2;

        fn next(&mut self) -> BoxFuture<'_, Result<Option<u32>>> {
            async { Ok(self.0.recv().await) }.boxed()
        }

        fn close(self) -> BoxFuture<'static, ()> {
            std::future::ready(()).boxed()
        }
    }

    fn numbers() -> (mpsc::UnboundedSender<u32>, Pull<Numbers>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Pull::new(Numbers(receiver)))
    }

    async fn next(pull: &Pull<Numbers>) -> Option<u32> {
        loop {
            if let Some(found) = pull.take() {
                return found.unwrap();
            }
            pull.ready().await.unwrap();
        }
    }

    #[tokio::test]
    async fn items_come_in_order_and_then_the_end() {
        let (sender, pull) = numbers();
        (0..10).for_each(|number| sender.send(number).unwrap());
        drop(sender);
        for number in 0..10 {
            assert_eq!(next(&pull).await, Some(number));
        }
        assert_eq!((next(&pull).await, next(&pull).await), (None, None));
    }

    #[tokio::test]
    async fn a_taker_who_gives_up_swallows_nothing() {
        let (sender, pull) = numbers();
        let given_up = tokio::time::timeout(Duration::from_millis(10), pull.ready()).await;
        assert!(given_up.is_err());
        sender.send(1).unwrap();
        // He was told, and gives up before he takes: the other one is told by him.
        pull.ready().await.unwrap();
        let other = tokio::spawn({
            let pull = pull.clone();
            async move { next(&pull).await }
        });
        pull.pass_on();
        assert_eq!(other.await.unwrap(), Some(1));
    }

    #[tokio::test]
    async fn what_is_there_is_taken_without_waiting() {
        let (sender, pull) = numbers();
        assert!(pull.try_next().is_none());
        sender.send(1).unwrap();
        assert_eq!(pull.try_next().unwrap().unwrap(), Some(1));
        drop(sender);
        assert_eq!(pull.try_next().unwrap().unwrap(), None);
    }

    #[tokio::test]
    async fn all_takers_get_something() {
        let (sender, pull) = numbers();
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let pull = pull.clone();
                tokio::spawn(async move { next(&pull).await })
            })
            .collect();
        (0..8).for_each(|number| sender.send(number).unwrap());
        let mut taken = Vec::new();
        for taker in takers {
            taken.push(taker.await.unwrap().unwrap());
        }
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[tokio::test]
    async fn closing_ends_the_waiting() {
        let (_sender, pull) = numbers();
        let waiting = tokio::spawn({
            let pull = pull.clone();
            async move { next(&pull).await }
        });
        tokio::task::yield_now().await;
        pull.close().await.unwrap();
        pull.close().await.unwrap();
        assert_eq!(waiting.await.unwrap(), None);
    }
}
