//! Many messages on their way to the disk, at the cost of few wake-ups.

use std::{fmt, mem, pin::pin};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
};
use whimbrel::{Accepted, DeviceClient, Error, ErrorKind, Lane, Message, Receipt, Result};

use crate::guarded;

/// Takes messages in on the calling thread, and tells later of each that it is safe.
///
/// The disk makes the messages of a lane safe in their order, so one task for each lane waits for all of them, one after the
/// other: after a commit it finds a whole batch done, and tells of it in one go. A task for each message would cost more than
/// the message. What waits here is in the outbox, so it is bounded as that is.
pub struct Sends<T> {
    device: DeviceClient,
    alerts: UnboundedSender<(T, Accepted)>,
    telemetry: UnboundedSender<(T, Accepted)>,
}

impl<T: Send + 'static> Sends<T> {
    /// For messages to `device`. `done` gets what became of them, in batches, on threads of the runtime; of a lane in order.
    pub fn new(
        device: DeviceClient,
        runtime: &Handle,
        done: impl Fn(Vec<(T, Result<Receipt>)>) + Clone + Send + 'static,
    ) -> Self {
        let lane = || {
            let (sender, accepted) = mpsc::unbounded_channel();
            runtime.spawn(tell(accepted, done.clone()));
            sender
        };
        Self { device, alerts: lane(), telemetry: lane() }
    }

    /// Takes `message` in; `done` will get `token` with its receipt, or with why it could not be stored.
    ///
    /// # Errors
    /// As [`DeviceClient::accept`]; then `token` is dropped.
    pub fn send(&self, token: T, message: Message) -> Result<()> {
        let lane = match message.lane() {
            Lane::Alert => &self.alerts,
            Lane::Telemetry => &self.telemetry,
        };
        let accepted = self.device.accept(message)?;
        lane.send((token, accepted))
            .map_err(|_| Error::new(ErrorKind::Closed, "device.send", "the runtime has ended"))
    }
}

async fn tell<T>(mut waiting: UnboundedReceiver<(T, Accepted)>, done: impl Fn(Vec<(T, Result<Receipt>)>)) {
    let mut batch = Vec::new();
    let mut stored = Vec::new();
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        for (token, accepted) in batch.drain(..) {
            let mut storing = pin!(guarded("device.send", accepted.stored()));
            let result = match storing.as_mut().now_or_never() {
                Some(result) => result,
                None => {
                    if !stored.is_empty() {
                        done(mem::take(&mut stored));
                    }
                    storing.await
                }
            };
            stored.push((token, result));
        }
        done(mem::take(&mut stored));
    }
}

impl<T> fmt::Debug for Sends<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sends").field("device", &self.device).finish_non_exhaustive()
    }
}

/// Most messages told of at once.
const BATCH: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use whimbrel::DeviceOptions;

    use super::*;

    #[tokio::test]
    async fn every_message_is_told_of_once_and_in_order() {
        let options =
            DeviceOptions::from_connection_string("HostName=hub;DeviceId=d;SharedAccessKey=c2VjcmV0")
                .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = options.outbox_dir(folder.path()).server("mqtt://127.0.0.1:9");
        let device = DeviceClient::open(options.close_deadline(Duration::ZERO)).await.unwrap();
        let (told, mut heard) = mpsc::unbounded_channel();
        let sends = Sends::new(device.clone(), &Handle::current(), move |batch| {
            batch.into_iter().for_each(|result| told.send(result).unwrap());
        });
        for number in 0..1_000 {
            let lane = if number % 10 == 0 { Lane::Alert } else { Lane::Telemetry };
            sends.send(number, Message::in_lane(lane, "x")).unwrap();
        }
        let mut last = [None; 2];
        for _ in 0..1_000 {
            let (number, receipt) = heard.recv().await.unwrap();
            receipt.unwrap();
            let last = &mut last[usize::from(number % 10 == 0)];
            assert!(*last < Some(number), "{number} came behind {last:?}");
            *last = Some(number);
        }
        assert_eq!(device.account().queued, 1_000);
        device.close().await.unwrap();
        assert_eq!(sends.send(0, Message::telemetry("x")).unwrap_err().kind(), ErrorKind::Closed);
    }
}
