//! What we send: events within credit and windows, tokens, and the outcomes of both.

use std::mem::take;

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::{
    definitions::{self, Role},
    messaging::{DeliveryState, Rejected},
    performatives::{Disposition, Transfer},
};

use super::{EVENTS, Phase, Session, TOKENS_OUT, device_kind, ended};
use crate::{
    ErrorKind, Lane, Result,
    delivery::Verdict,
    outbox::{Queued, Sequence},
    transport::{
        Answer, Incoming,
        amqp::{
            cbs, fault,
            frame::{self, HEADER, violation},
        },
    },
    wire::amqp,
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Sent {
    Event(Lane, Sequence),
    Token,
}

pub(super) struct Waiting {
    pub(super) lane: Lane,
    pub(super) sequence: Sequence,
    pub(super) payload: Bytes,
    /// The first piece is out.
    pub(super) begun: bool,
}

/// The sending end of a link.
#[derive(Debug, Default)]
pub(super) struct SenderLink {
    pub(super) remote_handle: Option<u32>,
    pub(super) delivery_count: u32,
    pub(super) credit: u32,
}

impl Session {
    /// Takes an event to be sent. `Err` says why it never can be.
    pub(in crate::transport::amqp) fn publish(&mut self, queued: &Queued) -> std::result::Result<(), String> {
        self.scratch.clear();
        amqp::encode_into(&queued.message, &mut self.scratch);
        let size = self.scratch.len() as u64;
        if self.max_message != 0 && size > self.max_message {
            return Err(format!(
                "it takes {size} bytes on AMQP, and the hub's limit is {}",
                self.max_message
            ));
        }
        let (lane, sequence) = (queued.lane, queued.sequence);
        if self.waiting.is_empty() && self.events.credit > 0 && self.window > 0 {
            let scratch = take(&mut self.scratch);
            if scratch.len() <= self.piece() {
                self.begin_event(lane, sequence);
                self.put_transfer(EVENTS, true, false, &scratch);
                self.scratch = scratch;
                return Ok(());
            }
            self.scratch = scratch;
        }
        let payload = self.scratch.split().freeze();
        self.waiting_bytes += payload.len();
        self.waiting.push_back(Waiting { lane, sequence, payload, begun: false });
        self.pump();
        Ok(())
    }

    /// Puts a token as soon as the hub takes one.
    pub(in crate::transport::amqp) fn put_token(&mut self, id: String, audience: &str, token: &str) {
        let mut payload = BytesMut::new();
        cbs::put_token_into(&id, audience, token, &mut payload);
        self.token = Some((id, payload));
        self.pump();
    }

    /// Sends what waits, as far as credit and window go.
    pub(super) fn pump(&mut self) {
        if self.token_sender.credit > 0
            && let Some((id, mut payload)) = self.token.take_if(|(_, payload)| {
                // All of it or nothing: other pieces may be under way.
                payload.len().div_ceil(piece(self.max_frame)) <= self.window as usize
            })
        {
            self.token_sender.credit -= 1;
            self.token_sender.delivery_count = self.token_sender.delivery_count.wrapping_add(1);
            self.unsettled.push_back(Some(Sent::Token));
            let mut first = true;
            while !payload.is_empty() {
                let piece = payload.split_to(payload.len().min(self.piece()));
                self.put_transfer(TOKENS_OUT, first, !payload.is_empty(), &piece);
                first = false;
            }
            self.token_asked = Some(id);
        }
        while self.window > 0 && self.phase == Phase::Up {
            let Some(event) = self.waiting.front_mut() else { return };
            let first = !event.begun;
            if first && self.events.credit == 0 {
                return;
            }
            event.begun = true;
            let (lane, sequence) = (event.lane, event.sequence);
            let piece = event.payload.split_to(event.payload.len().min(piece(self.max_frame)));
            let more = !event.payload.is_empty();
            self.waiting_bytes -= piece.len();
            if first {
                self.begin_event(lane, sequence);
            }
            if !more {
                self.waiting.pop_front();
            }
            self.put_transfer(EVENTS, first, more, &piece);
        }
    }

    /// Accounts for an event whose first piece goes out now.
    pub(super) fn begin_event(&mut self, lane: Lane, sequence: Sequence) {
        self.events.credit -= 1;
        self.events.delivery_count = self.events.delivery_count.wrapping_add(1);
        self.unsettled.push_back(Some(Sent::Event(lane, sequence)));
    }

    /// Most bytes of a message in one frame.
    pub(super) fn piece(&self) -> usize {
        piece(self.max_frame)
    }

    /// Writes one piece of the delivery that was taken up last on a link.
    pub(super) fn put_transfer(&mut self, handle: u32, first: bool, more: bool, payload: &[u8]) {
        let behind = self.unsettled.len().saturating_sub(1);
        let id = self.first_unsettled.wrapping_add(u32::try_from(behind).unwrap_or(u32::MAX));
        let transfer = Transfer {
            handle: handle.into(),
            delivery_id: first.then_some(id),
            delivery_tag: first.then(|| id.to_be_bytes().to_vec().into()),
            message_format: first.then_some(0),
            settled: Some(false),
            more,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: true,
        };
        frame::put_frame(&mut self.out, frame::kind::AMQP, 0, &transfer, payload);
        self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
        self.window = self.window.saturating_sub(1);
    }

    /// Outcomes of what we sent.
    pub(super) fn sent_disposed(&mut self, disposition: &Disposition, incoming: &mut Incoming) -> Result<()> {
        let terminal = disposition.state.as_ref().is_some_and(DeliveryState::is_terminal);
        if !disposition.settled && !terminal {
            return Ok(());
        }
        let last = disposition.last.unwrap_or(disposition.first);
        // Relative to the first one open, which may lie behind the begin of the range: those before it are settled.
        let begin = i64::from(disposition.first.wrapping_sub(self.first_unsettled).cast_signed());
        let end = begin + i64::from(last.wrapping_sub(disposition.first)) + 1;
        let open = self.unsettled.len();
        let Some(end) = usize::try_from(end).ok().filter(|end| *end <= open) else {
            if end <= 0 {
                return Ok(());
            }
            return Err(violation("the server settled what was not sent (section 2.6.12)"));
        };
        let begin = usize::try_from(begin).unwrap_or(0);
        for place in begin..end {
            match self.unsettled.get_mut(place).and_then(Option::take) {
                Some(Sent::Event(lane, sequence)) => {
                    let verdict = verdict(disposition.state.as_ref())?;
                    incoming.answers.push(Answer { lane, sequence, verdict });
                }
                Some(Sent::Token) if !accepted(disposition.state.as_ref()) => {
                    return Err(ended("the hub took no token", said(disposition.state.as_ref())));
                }
                Some(Sent::Token) | None => {}
            }
        }
        while let Some(None) = self.unsettled.front() {
            self.unsettled.pop_front();
            self.first_unsettled = self.first_unsettled.wrapping_add(1);
        }
        if !disposition.settled {
            // It waits for us to forget (section 2.6.12).
            let answer = Disposition { role: Role::Sender, settled: true, ..disposition.clone() };
            frame::put(&mut self.out, 0, &answer);
        }
        Ok(())
    }
}

/// Most bytes of a message in one frame of at most `max_frame`.
const fn piece(max_frame: usize) -> usize {
    // A transfer as we write it takes under 40 bytes.
    max_frame - HEADER - 64
}

/// What the hub said about a message, or why the connection ends by it: a refusal of who we are is not one of the
/// message.
fn verdict(state: Option<&DeliveryState>) -> Result<Verdict> {
    let refused = |retryable, reason: &str| Ok(Verdict::Refused { retryable, reason: reason.to_owned() });
    match state {
        Some(DeliveryState::Accepted(_)) => Ok(Verdict::Stored { partition: None, sequence: None }),
        Some(DeliveryState::Rejected(Rejected { error: Some(error) })) => {
            let condition = fault::condition(error);
            let retryable = match device_kind(&condition) {
                ErrorKind::Unauthorized => return Err(ended("the hub refused the device", Some(error))),
                ErrorKind::InvalidArgument
                | ErrorKind::PayloadTooLarge
                | ErrorKind::Unsupported
                | ErrorKind::Protocol => false,
                _ => true,
            };
            let reason = match &error.description {
                Some(text) => format!("{condition}: {}", fault::shortened(text)),
                None => condition,
            };
            Ok(Verdict::Refused { retryable, reason })
        }
        Some(DeliveryState::Rejected(Rejected { error: None })) => {
            refused(false, "rejected, without a reason")
        }
        Some(DeliveryState::Released(_) | DeliveryState::Modified(_)) => refused(true, "released"),
        Some(DeliveryState::Received(_)) | None => refused(true, "settled without an outcome"),
    }
}

fn accepted(state: Option<&DeliveryState>) -> bool {
    matches!(state, Some(DeliveryState::Accepted(_)) | None)
}

fn said(state: Option<&DeliveryState>) -> Option<&definitions::Error> {
    match state {
        Some(DeliveryState::Rejected(Rejected { error })) => error.as_ref(),
        _ => None,
    }
}
