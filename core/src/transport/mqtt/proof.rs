//! Which settlements the server has. MQTT does not answer them; but what the server gets it takes in order, so its answer
//! to anything that was written behind a settlement shows that it has the settlement.

use std::collections::VecDeque;

use crate::transport::{Handle, Settled};

#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Settlements written.
    written: u64,
    /// Those the server is not known to have: which one it was, and its handle.
    waiting: VecDeque<(u64, Handle)>,
    /// A message sent behind settlements, and how many.
    message: Option<(u16, u64)>,
    /// A ping sent behind settlements, and how many.
    ping: Option<(u64, u64)>,
    pings: u64,
    pongs: u64,
}

impl Proof {
    /// A settlement was written.
    pub(super) fn settled(&mut self, handle: Handle) {
        self.written += 1;
        if self.waiting.len() >= LIMIT {
            self.waiting.pop_front();
        }
        self.waiting.push_back((self.written, handle));
    }

    /// Whether there is something to be proved.
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether so much is to be proved that asking is worth a ping.
    pub(super) fn is_urgent(&self) -> bool {
        self.waiting.len() >= URGENT && self.ping.is_none()
    }

    /// A message was written.
    pub(super) fn published(&mut self, packet_id: u16) {
        if self.is_wanted() && self.message.is_none() {
            self.message = Some((packet_id, self.written));
        }
    }

    /// A message was answered.
    pub(super) fn answered(&mut self, packet_id: u16, settled: &mut Vec<Settled>) {
        if let Some((_, up_to)) = self.message.take_if(|(message, _)| *message == packet_id) {
            self.prove(up_to, settled);
        }
    }

    /// A ping was written.
    pub(super) fn pinged(&mut self) {
        self.pings += 1;
        if self.is_wanted() && self.ping.is_none() {
            self.ping = Some((self.pings, self.written));
        }
    }

    /// A ping was answered.
    pub(super) fn ponged(&mut self, settled: &mut Vec<Settled>) {
        // Some servers answer what nobody asked.
        self.pongs = self.pings.min(self.pongs + 1);
        let pongs = self.pongs;
        if let Some((_, up_to)) = self.ping.take_if(|(ping, _)| *ping <= pongs) {
            self.prove(up_to, settled);
        }
    }

    fn prove(&mut self, up_to: u64, settled: &mut Vec<Settled>) {
        while let Some((_, handle)) = self.waiting.pop_front_if(|(written, _)| *written <= up_to) {
            settled.push(Settled { handle, result: Ok(()) });
        }
    }
}

/// So many settlements without proof are worth a ping.
const URGENT: usize = 256;
/// Most settlements followed; a server that answers no ping does not get us to keep more.
const LIMIT: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn proved(prove: impl FnOnce(&mut Vec<Settled>)) -> Vec<Handle> {
        let mut settled = Vec::new();
        prove(&mut settled);
        settled.into_iter().map(|settled| settled.handle).collect()
    }

    #[test]
    fn only_an_answer_to_something_written_later_proves() {
        let mut proof = Proof::default();
        proof.published(1);
        proof.pinged();
        proof.settled(10);
        assert!(proved(|out| proof.answered(1, out)).is_empty());
        assert!(proved(|out| proof.ponged(out)).is_empty(), "the ping was sent before");
        proof.published(2);
        proof.settled(11);
        proof.published(3);
        assert!(proved(|out| proof.answered(3, out)).is_empty(), "one message is followed at a time");
        assert_eq!(proved(|out| proof.answered(2, out)), [10]);
        assert!(proved(|out| proof.answered(2, out)).is_empty());
        proof.pinged();
        proof.settled(12);
        assert_eq!(proved(|out| proof.ponged(out)), [11]);
        assert!(proof.is_wanted());
        proof.published(3);
        assert_eq!(proved(|out| proof.answered(3, out)), [12]);
        assert!(!proof.is_wanted());
    }

    #[test]
    fn pongs_that_nobody_asked_for_prove_nothing() {
        let mut proof = Proof::default();
        proof.pinged();
        proof.settled(1);
        assert!(proved(|out| proof.ponged(out)).is_empty());
        assert!(proved(|out| proof.ponged(out)).is_empty());
        proof.pinged();
        assert_eq!(proved(|out| proof.ponged(out)), [1]);
    }

    #[test]
    fn it_asks_when_there_is_much_and_keeps_no_more_than_it_may() {
        let mut proof = Proof::default();
        for handle in 0..LIMIT as u64 + 10 {
            proof.settled(handle);
        }
        assert!(proof.is_urgent());
        proof.pinged();
        assert!(!proof.is_urgent());
        let proved = proved(|out| proof.ponged(out));
        assert_eq!((proved.len(), proved.first()), (LIMIT, Some(&10)));
    }
}
