//! Reads the backlog where waiting for the disk holds up nobody, one portion ahead of the connection.

use std::{collections::VecDeque, future::pending};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::{
    Error, ErrorKind, Lane, Result,
    outbox::{Outbox, Queued, Sequence},
};

/// At most one portion: what is read, or being read, from one place of one lane.
#[derive(Default)]
pub(super) struct ReadAhead(Option<Portion>);

struct Portion {
    lane: Lane,
    /// Where the caller has to be for it to be of use.
    from: Sequence,
    content: Content,
}

enum Content {
    Reading(JoinHandle<Result<(Vec<Queued>, Sequence)>>),
    Read(VecDeque<Queued>, Sequence),
}

impl ReadAhead {
    /// Begins to read up to `limit` messages; what was read before and not taken is let go of.
    pub(super) fn start(&mut self, outbox: &Outbox, lane: Lane, from: Sequence, limit: usize) {
        let outbox = outbox.clone();
        let reading = spawn_blocking(move || {
            let mut queued = Vec::with_capacity(limit);
            let next = outbox.read(lane, from, limit, &mut queued)?;
            Ok((queued, next))
        });
        self.0 = Some(Portion { lane, from, content: Content::Reading(reading) });
    }

    /// Resolves when what is being read has been read; never while nothing is. Cancelling loses nothing.
    pub(super) async fn finished(&mut self) -> Result<()> {
        let Some(Portion { content, .. }) = &mut self.0 else { return pending().await };
        let Content::Reading(reading) = content else { return pending().await };
        let result = reading.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "device.send", "the reading did not end").caused_by(error))
        });
        match result {
            Ok((queued, next)) => *content = Content::Read(queued.into(), next),
            Err(error) => {
                self.0 = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Moves up to `limit` messages from `from` on to `out`; gives where to go on. `None` when they are not here.
    pub(super) fn take(
        &mut self,
        lane: Lane,
        from: Sequence,
        limit: usize,
        out: &mut Vec<Queued>,
    ) -> Option<Sequence> {
        let portion = self.0.as_mut().filter(|portion| portion.is_at(lane, from))?;
        let Content::Read(queued, next) = &mut portion.content else { return None };
        out.extend(queued.drain(..limit.min(queued.len())));
        match queued.front() {
            Some(message) => portion.from = message.sequence,
            None => {
                let next = *next;
                self.0 = None;
                return Some(next);
            }
        }
        Some(portion.from)
    }

    /// Whether this is being read.
    pub(super) fn is_reading(&self, lane: Lane, from: Sequence) -> bool {
        let portion = self.0.as_ref().filter(|portion| portion.is_at(lane, from));
        portion.is_some_and(|portion| matches!(portion.content, Content::Reading(_)))
    }

    /// Whether there is nothing here and nothing on the way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

impl Portion {
    fn is_at(&self, lane: Lane, from: Sequence) -> bool {
        (self.lane, self.from) == (lane, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Message,
        outbox::{OutboxOptions, Storage},
    };

    async fn outbox(messages: usize) -> Outbox {
        let outbox = Outbox::open(&Storage::Memory, OutboxOptions::default()).unwrap();
        let messages = (0..messages).map(|number| Message::telemetry(number.to_string()));
        outbox.send_all(messages.collect()).await.unwrap();
        outbox
    }

    #[tokio::test]
    async fn a_portion_is_taken_in_pieces_from_where_it_is() {
        let outbox = outbox(5).await;
        let first = outbox.head(Lane::Telemetry);
        let mut ahead = ReadAhead::default();
        ahead.start(&outbox, Lane::Telemetry, first, 4);
        assert!(ahead.is_reading(Lane::Telemetry, first) && !ahead.is_reading(Lane::Alert, first));
        ahead.finished().await.unwrap();
        assert!(!ahead.is_reading(Lane::Telemetry, first) && !ahead.is_empty());

        let mut out = Vec::new();
        assert_eq!(ahead.take(Lane::Alert, first, 9, &mut out), None);
        assert_eq!(ahead.take(Lane::Telemetry, first + 1, 9, &mut out), None);
        assert_eq!(ahead.take(Lane::Telemetry, first, 3, &mut out), Some(first + 3));
        assert_eq!(ahead.take(Lane::Telemetry, first, 9, &mut out), None);
        assert_eq!(ahead.take(Lane::Telemetry, first + 3, 9, &mut out), Some(first + 4));
        assert!(ahead.is_empty());
        let bodies: Vec<_> = out.iter().map(|queued| queued.message.body().clone()).collect();
        assert_eq!(bodies, ["0", "1", "2", "3"]);
    }

    #[tokio::test]
    async fn nothing_there_is_an_answer_too() {
        let outbox = outbox(1).await;
        let end = outbox.head(Lane::Telemetry) + 1;
        let mut ahead = ReadAhead::default();
        ahead.start(&outbox, Lane::Telemetry, end, 4);
        ahead.finished().await.unwrap();
        assert_eq!(ahead.take(Lane::Telemetry, end, 4, &mut Vec::new()), Some(end));
        assert!(ahead.is_empty());
    }

    #[tokio::test]
    async fn a_failure_is_told_once() {
        let outbox = outbox(1).await;
        outbox.close().unwrap();
        let mut ahead = ReadAhead::default();
        ahead.start(&outbox, Lane::Telemetry, 1, 4);
        assert_eq!(ahead.finished().await.unwrap_err().kind(), ErrorKind::Closed);
        assert!(ahead.is_empty());
    }
}
