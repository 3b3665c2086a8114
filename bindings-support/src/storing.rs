//! Many messages on their way to the disk, for a language that comes and asks what became of them.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_util::future::BoxFuture;
use whimbrel::{Accepted, DeviceClient, Lane, Message, Receipt, Result};

use crate::guarded;

/// As [`Sends`](crate::Sends), but driven by the one who wants to know, on his executor: it needs no runtime, so none of it is
/// left behind where a runtime ends, and a message that is on its way when everything is suspended is told of all the same.
///
/// Whoever asks waits for [`Storing::ready`] and takes what is there with [`Storing::take`], both one at a time. After a commit
/// that is a whole batch.
pub struct Storing<T> {
    device: DeviceClient,
    state: Mutex<State<T>>,
}

struct State<T> {
    alerts: Line<T>,
    telemetry: Line<T>,
    done: Vec<(T, Result<Receipt>)>,
    asking: Option<Waker>,
}

/// The messages of a lane, which are safe in their order: it is enough to look at the first.
struct Line<T> {
    first: Option<(T, BoxFuture<'static, Result<Receipt>>)>,
    waiting: VecDeque<(T, Accepted)>,
}

impl<T: Send + 'static> Storing<T> {
    /// For messages to `device`.
    pub fn new(device: DeviceClient) -> Self {
        let state = State { alerts: Line::new(), telemetry: Line::new(), done: Vec::new(), asking: None };
        Self { device, state: Mutex::new(state) }
    }

    /// Takes `message` in; `token` will be told of with its receipt, or with why it could not be stored.
    ///
    /// # Errors
    /// As [`DeviceClient::accept`]; then `token` is dropped.
    pub fn send(&self, token: T, message: Message) -> Result<()> {
        let lane = message.lane();
        let accepted = self.device.accept(message)?;
        let mut state = self.state();
        let line = match lane {
            Lane::Alert => &mut state.alerts,
            Lane::Telemetry => &mut state.telemetry,
        };
        let was_empty = line.first.is_none() && line.waiting.is_empty();
        line.waiting.push_back((token, accepted));
        // Whoever asks is woken for those he waits for already.
        let asking = if was_empty { state.asking.take() } else { None };
        drop(state);
        if let Some(asking) = asking {
            asking.wake();
        }
        Ok(())
    }

    /// Resolves when there is something to take. Dropping the future loses nothing.
    pub async fn ready(&self) {
        poll_fn(|context| {
            let mut state = self.state();
            let State { alerts, telemetry, done, .. } = &mut *state;
            alerts.look(context, done);
            telemetry.look(context, done);
            if done.is_empty() {
                state.asking = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// What became of messages since it was asked last; of a lane in order.
    pub fn take(&self) -> Vec<(T, Result<Receipt>)> {
        mem::take(&mut self.state().done)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Line<T> {
    const fn new() -> Self {
        Self { first: None, waiting: VecDeque::new() }
    }

    /// Moves what is safe, or never will be, to `done`.
    fn look(&mut self, context: &mut Context<'_>, done: &mut Vec<(T, Result<Receipt>)>) {
        loop {
            let Some((token, mut storing)) = self.first.take().or_else(|| {
                let (token, accepted) = self.waiting.pop_front()?;
                Some((token, Box::pin(guarded("device.send", accepted.stored())) as BoxFuture<'static, _>))
            }) else {
                return;
            };
            match storing.as_mut().poll(context) {
                Poll::Ready(result) => done.push((token, result)),
                Poll::Pending => {
                    self.first = Some((token, storing));
                    return;
                }
            }
        }
    }
}

impl<T> fmt::Debug for Storing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storing").field("device", &self.device).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use whimbrel::{DeviceOptions, ErrorKind};

    use super::*;

    async fn device(folder: &std::path::Path) -> DeviceClient {
        let options =
            DeviceOptions::from_connection_string("HostName=hub;DeviceId=d;SharedAccessKey=c2VjcmV0")
                .unwrap();
        let options = options.outbox_dir(folder).server("mqtt://127.0.0.1:9");
        DeviceClient::open(options.close_deadline(Duration::ZERO)).await.unwrap()
    }

    #[tokio::test]
    async fn every_message_is_told_of_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let device = device(folder.path()).await;
        let storing = Arc::new(Storing::new(device.clone()));
        let asking = tokio::spawn({
            let storing = storing.clone();
            async move {
                let mut told = Vec::new();
                while told.len() < 1_000 {
                    storing.ready().await;
                    told.extend(storing.take());
                }
                told
            }
        });
        // It asks already, and is woken by the first of each lane.
        tokio::task::yield_now().await;
        for number in 0..1_000_usize {
            let lane = if number.is_multiple_of(10) { Lane::Alert } else { Lane::Telemetry };
            storing.send(number, Message::in_lane(lane, "x")).unwrap();
            if number.is_multiple_of(100) {
                tokio::task::yield_now().await;
            }
        }
        let mut last = [None; 2];
        for (number, receipt) in asking.await.unwrap() {
            receipt.unwrap();
            let last = &mut last[usize::from(number.is_multiple_of(10))];
            assert!(*last < Some(number), "{number} came behind {last:?}");
            *last = Some(number);
        }
        assert_eq!(device.account().queued, 1_000);
        assert!(storing.take().is_empty());
        device.close().await.unwrap();
        assert_eq!(storing.send(0, Message::telemetry("x")).unwrap_err().kind(), ErrorKind::Closed);
    }

    #[tokio::test]
    async fn who_gives_up_asking_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let device = device(folder.path()).await;
        let storing = Storing::new(device.clone());
        let given_up = tokio::time::timeout(Duration::from_millis(1), storing.ready()).await;
        assert!(given_up.is_err());
        storing.send(1, Message::telemetry("x")).unwrap();
        for _ in 0..100 {
            // Asked, and given up at once.
            let _ = futures_util::FutureExt::now_or_never(storing.ready());
        }
        storing.send(2, Message::telemetry("x")).unwrap();
        let mut told = Vec::new();
        while told.len() < 2 {
            storing.ready().await;
            told.extend(storing.take().into_iter().map(|(number, receipt)| receipt.map(|_| number).unwrap()));
        }
        assert_eq!(told, [1, 2]);
        device.close().await.unwrap();
    }
}
