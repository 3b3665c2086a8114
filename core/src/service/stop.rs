//! Stopping the tasks of a client.

use std::{future::Future, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

/// Stops all tasks of a client.
#[derive(Debug)]
pub(super) struct Stop {
    /// Watched by tasks, which are waited for.
    tasks: watch::Sender<bool>,
    /// Watched by callers, who may not even be looking.
    callers: watch::Sender<bool>,
}

/// A task's or a caller's side of [`Stop`].
#[derive(Clone)]
pub(super) struct Stopped(watch::Receiver<bool>);

/// A task that ends with whoever holds this.
#[derive(Debug)]
pub(super) struct Task(Option<JoinHandle<()>>);

impl Stop {
    pub(super) fn new() -> Self {
        Self { tasks: watch::Sender::new(false), callers: watch::Sender::new(false) }
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.tasks.borrow()
    }

    /// Has to be called in a runtime.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        run: impl FnOnce(Stopped) -> F,
    ) -> Task {
        Task(Some(tokio::spawn(run(Stopped(self.tasks.subscribe())))))
    }

    /// For a caller that waits.
    pub(super) fn stopped(&self) -> Stopped {
        Stopped(self.callers.subscribe())
    }

    /// Tells every task to stop and waits until they have, though not for long.
    pub(super) async fn stop(&self) {
        self.tasks.send_replace(true);
        self.callers.send_replace(true);
        let _ = tokio::time::timeout(PATIENCE, self.tasks.closed()).await;
    }
}

impl Stopped {
    pub(super) fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the client is closed.
    pub(super) async fn wait(&self) {
        let stopped = self.0.clone().wait_for(|stopped| *stopped).await.is_ok();
        if !stopped {
            // The client was dropped, not closed.
            std::future::pending::<()>().await;
        }
    }
}

impl Task {
    /// Waits until the task, which has been told some other way, has ended; though not for long.
    pub(super) async fn end(mut self) {
        if let Some(task) = &mut self.0
            && tokio::time::timeout(PATIENCE, &mut *task).await.is_ok()
        {
            self.0 = None;
        }
    }

    /// Lets it run on by itself.
    pub(super) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
