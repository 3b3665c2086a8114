//! The receiving end of a link: puts deliveries together from their pieces.

use bytes::BytesMut;
use fe2o3_amqp_types::performatives::Transfer;

use crate::{Result, transport::amqp::frame::violation};

/// Largest command that is put together from its pieces: twice what a hub may send.
const COMMAND_LIMIT: usize = 128 * 1024;

/// The receiving end of a link.
#[derive(Debug, Default)]
pub(super) struct ReceiverLink {
    pub(super) remote_handle: Option<u32>,
    pub(super) delivery_count: u32,
    pub(super) credit: u32,
    pub(super) partial: Option<Partial>,
}

/// A delivery whose last piece has not come.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) delivery_id: u32,
    pub(super) settled: bool,
    pub(super) payload: BytesMut,
}

impl ReceiverLink {
    /// Adds a piece; gives the delivery when it is whole.
    pub(super) fn put_together(&mut self, transfer: Transfer, payload: &[u8]) -> Result<Option<Partial>> {
        let malformed = || violation("the server sent a malformed transfer (section 2.7.5)");
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => {
                self.credit = self.credit.checked_sub(1).ok_or_else(|| {
                    violation("the server sent more messages than it has credit for (section 2.6.7)")
                })?;
                self.delivery_count = self.delivery_count.wrapping_add(1);
                let delivery_id = transfer.delivery_id.ok_or_else(malformed)?;
                Partial { delivery_id, settled: false, payload: BytesMut::new() }
            }
        };
        if transfer.aborted {
            return Ok(None);
        }
        partial.settled |= transfer.settled.unwrap_or(false);
        partial.payload.extend_from_slice(payload);
        if partial.payload.len() > COMMAND_LIMIT {
            return Err(violation("the server sent a message over every limit of the contract"));
        }
        if transfer.more {
            self.partial = Some(partial);
            return Ok(None);
        }
        Ok(Some(partial))
    }
}
