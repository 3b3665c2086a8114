//! The engine against a peer that does what it is told, frame by frame.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::task::Waker;

use fe2o3_amqp_types::{
    definitions::SenderSettleMode,
    messaging::{Accepted, Source, Target},
};

use super::*;

/// A connection with a session on channel 3, and what the hub answers.
struct Peer {
    engine: Engine,
}

impl Peer {
    fn new(largest_frame: u32, window: u32) -> Self {
        let settings = Settings { container: "hub".into(), idle: Duration::from_secs(240) };
        let mut peer = Self { engine: Engine::new(settings) };
        let open = Open {
            container_id: "peer".into(),
            hostname: None,
            max_frame_size: largest_frame.into(),
            channel_max: 10.into(),
            idle_time_out: Some(30_000),
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        peer.say(0, Performative::Open(open));
        peer.say(3, Performative::Begin(begin(window)));
        assert!(matches!(&peer.heard()[..], [Performative::Open(_), Performative::Begin(_)]));
        peer
    }

    fn try_say(&mut self, channel: u16, performative: Performative, payload: &[u8]) -> Result<(), Fault> {
        let mut body = serde_amqp::to_vec(&performative).unwrap();
        body.extend_from_slice(payload);
        self.engine.receive(Frame { channel, body: body.into() })
    }

    fn say(&mut self, channel: u16, performative: Performative) {
        self.try_say(channel, performative, b"").unwrap();
    }

    /// What the hub has sent since, payloads left out.
    fn heard(&mut self) -> Vec<Performative> {
        self.heard_whole().into_iter().map(|(performative, _)| performative).collect()
    }

    fn heard_whole(&mut self) -> Vec<(Performative, Bytes)> {
        let mut out = self.engine.take_outgoing();
        std::iter::from_fn(|| codec::take_frame(&mut out, FrameType::Amqp, LARGEST_FRAME).unwrap())
            .map(|frame| codec::read_performative(frame.body).unwrap())
            .collect()
    }

    /// Attaches a link and has it accepted.
    fn attach(&mut self, handle: u32, role: Role, terms: &Terms) -> LinkId {
        self.say(3, Performative::Attach(attach(handle, role)));
        let (id, attach) = self.engine.next_pending().unwrap();
        self.engine.accept(id, &attach, terms);
        id
    }

    fn arrived(&mut self, id: LinkId) -> Poll<Result<Delivery, Ended>> {
        self.engine.poll_arrived(id, Waker::noop())
    }

    fn usable(&mut self, id: LinkId) -> Option<u32> {
        match self.engine.poll_usable(id, Waker::noop()) {
            Poll::Ready(usable) => Some(usable.unwrap()),
            Poll::Pending => None,
        }
    }
}

fn begin(window: u32) -> Begin {
    Begin {
        remote_channel: None,
        next_outgoing_id: 0,
        incoming_window: window,
        outgoing_window: 100,
        handle_max: Handle(100),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    }
}

fn attach(handle: u32, role: Role) -> Attach {
    Attach {
        name: format!("link-{handle}"),
        handle: Handle(handle),
        role,
        snd_settle_mode: SenderSettleMode::Mixed,
        rcv_settle_mode: ReceiverSettleMode::Second,
        source: Some(Box::new(Source { address: Some("from".into()), ..Source::default() })),
        target: Some(Box::new(Target { address: Some("to".into()), ..Target::default() }.into())),
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: Some(0),
        max_message_size: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    }
}

fn terms(largest: usize, credit: u32) -> Terms {
    Terms { largest, credit, capabilities: Vec::new() }
}

fn transfer(handle: u32, id: Option<u32>, more: bool) -> Performative {
    Performative::Transfer(Transfer {
        handle: Handle(handle),
        delivery_id: id,
        delivery_tag: id.map(|id| id.to_be_bytes().to_vec().into()),
        message_format: id.map(|_| 0),
        settled: None,
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    })
}

fn credit(handle: u32, delivery_count: u32, credit: u32) -> Flow {
    Flow {
        next_incoming_id: Some(0),
        incoming_window: 100,
        next_outgoing_id: 0,
        outgoing_window: 100,
        handle: Some(Handle(handle)),
        delivery_count: Some(delivery_count),
        link_credit: Some(credit),
        available: None,
        drain: false,
        echo: false,
        properties: None,
    }
}

fn outcome(first: u32, last: Option<u32>, settled: bool) -> Performative {
    let state = Some(DeliveryState::Accepted(Accepted {}));
    Performative::Disposition(Outcome { role: Role::Receiver, first, last, settled, state, batchable: false })
}

#[test]
fn messages_arrive_whole_in_order_and_against_credit() {
    let mut peer = Peer::new(65_536, 100);
    let id = peer.attach(0, Role::Sender, &terms(10, 2));
    let answers = peer.heard();
    let [Performative::Attach(answer), Performative::Flow(flow)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(
        answer.rcv_settle_mode,
        ReceiverSettleMode::First,
        "the hub settles first, whatever was asked"
    );
    assert_eq!((answer.role.clone(), answer.max_message_size), (Role::Receiver, Some(10)));
    assert_eq!((flow.link_credit, flow.delivery_count), (Some(2), Some(0)));

    peer.try_say(3, transfer(0, Some(0), true), b"first").unwrap();
    assert!(peer.arrived(id).is_pending());
    peer.try_say(3, transfer(0, None, false), b"-half").unwrap();
    peer.try_say(3, transfer(0, Some(1), false), b"eleven bytes").unwrap();
    assert_eq!(peer.engine.held_bytes(), 10);
    let Poll::Ready(Ok(first)) = peer.arrived(id) else { panic!() };
    assert_eq!((first.id, &first.payload[..], first.oversize), (0, &b"first-half"[..], false));
    let Poll::Ready(Ok(second)) = peer.arrived(id) else { panic!() };
    assert_eq!((second.id, second.payload.len(), second.oversize), (1, 0, true));
    assert_eq!(peer.engine.held_bytes(), 0);

    peer.engine.settle(id, 0, 0, Some(DeliveryState::Accepted(Accepted {})));
    peer.engine.replenish(id, 2);
    let answers = peer.heard();
    let [Performative::Disposition(disposition), Performative::Flow(flow)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert!(disposition.settled && disposition.role == Role::Receiver);
    assert_eq!((flow.link_credit, flow.delivery_count), (Some(2), Some(2)));

    for number in 2..4 {
        peer.try_say(3, transfer(0, Some(number), false), b"x").unwrap();
    }
    peer.try_say(3, transfer(0, Some(4), false), b"x").unwrap();
    let answers = peer.heard();
    let [Performative::Detach(detach)] = &answers[..] else { panic!("{answers:?}") };
    let condition = ErrorCondition::from(LinkError::TransferLimitExceeded);
    assert_eq!(detach.error.as_ref().unwrap().condition, condition);
    assert_eq!(peer.engine.held_bytes(), 0, "what nobody will take is let go of");
}

#[test]
fn messages_go_out_by_credit_and_window_in_frames_the_peer_takes() {
    let mut peer = Peer::new(512, 3);
    let id = peer.attach(7, Role::Receiver, &terms(10_000, 0));
    peer.heard();
    assert_eq!(peer.usable(id), None);
    peer.say(3, Performative::Flow(Flow { incoming_window: 3, ..credit(7, 0, 2) }));
    assert_eq!(peer.usable(id), Some(2));
    // Five frames of which the window takes three.
    let message: Vec<u8> = (0..2_100_u32).map(|number| number as u8).collect();
    let number = peer.engine.transfer(id, b"tag", 5, false, &message).unwrap();
    let mut sent = peer.heard_whole();
    assert_eq!(sent.len(), 3);
    assert_eq!(peer.usable(id), None, "nothing overtakes the rest");
    let open = Flow { next_incoming_id: Some(3), incoming_window: 100, ..credit(7, 0, 2) };
    peer.say(3, Performative::Flow(open));
    sent.extend(peer.heard_whole());
    assert_eq!(sent.len(), 5);
    let mut payload = Vec::new();
    for (index, (performative, part)) in sent.iter().enumerate() {
        let Performative::Transfer(transfer) = performative else { panic!("{performative:?}") };
        assert_eq!(transfer.more, index < 4);
        assert_eq!(transfer.delivery_id, (index == 0).then_some(number));
        assert_eq!(transfer.delivery_tag.as_ref().map(|tag| &tag[..]), (index == 0).then_some(&b"tag"[..]));
        payload.extend_from_slice(part);
    }
    assert_eq!(payload, message);
    assert_eq!(peer.usable(id), Some(1));
}

#[test]
fn the_hub_settles_when_it_has_and_not_before() {
    let mut peer = Peer::new(65_536, 100);
    let id = peer.attach(0, Role::Receiver, &terms(100, 0));
    peer.say(3, Performative::Flow(credit(0, 0, 10)));
    for _ in 0..3 {
        peer.engine.transfer(id, b"t", 0, false, b"x").unwrap();
    }
    peer.heard();
    // An outrageous range costs no more than what there is.
    peer.say(3, outcome(0, Some(u32::MAX), false));
    assert!(peer.heard().is_empty(), "nothing is settled by itself");
    let mut next = || match peer.engine.poll_disposition(id, Waker::noop()) {
        Poll::Ready(disposition) => Some(disposition.unwrap()),
        Poll::Pending => None,
    };
    for number in 0..3 {
        let disposition = next().unwrap();
        assert_eq!((disposition.id, disposition.settled), (number, false));
    }
    assert!(next().is_none());
    peer.engine.settle(id, 1, 1, Some(DeliveryState::Accepted(Accepted {})));
    let answers = peer.heard();
    let [Performative::Disposition(answer)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((answer.role.clone(), answer.first, answer.settled), (Role::Sender, 1, true));
    // Said again, it is not known any more: the peer is not left waiting.
    peer.say(3, outcome(1, None, false));
    let answers = peer.heard();
    let [Performative::Disposition(answer)] = &answers[..] else { panic!("{answers:?}") };
    assert!(matches!(answer.state, Some(DeliveryState::Rejected(_))) && answer.settled);
    // Settled by the peer there is nothing to answer.
    peer.say(3, outcome(2, None, true));
    assert!(peer.heard().is_empty());
}

#[test]
fn draining_uses_up_the_credit_and_says_so() {
    let mut peer = Peer::new(65_536, 100);
    let id = peer.attach(0, Role::Receiver, &terms(100, 0));
    peer.say(3, Performative::Flow(Flow { drain: true, ..credit(0, 0, 5) }));
    peer.engine.transfer(id, b"t", 0, true, b"x").unwrap();
    peer.heard();
    assert!(peer.engine.wants_drained(id));
    peer.engine.drained(id);
    let answers = peer.heard();
    let [Performative::Flow(flow)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((flow.delivery_count, flow.link_credit, flow.drain), (Some(5), Some(0), true));
    assert!(!peer.engine.wants_drained(id));
    assert_eq!(peer.usable(id), None);
}

#[test]
fn links_end_from_either_side_and_their_handles_are_free_again() {
    let mut peer = Peer::new(65_536, 100);
    let detach = |handle| Performative::Detach(Detach { handle: Handle(handle), closed: true, error: None });
    let id = peer.attach(0, Role::Sender, &terms(100, 5));
    peer.heard();
    peer.say(3, detach(0));
    assert!(matches!(peer.heard()[..], [Performative::Detach(_)]));
    assert!(matches!(peer.arrived(id), Poll::Ready(Err(Ended::Detached))));
    peer.engine.release(id);

    let id = peer.attach(0, Role::Sender, &terms(100, 5));
    peer.heard();
    peer.engine.detach(id, None);
    // On its way before the peer knew.
    peer.try_say(3, transfer(0, Some(0), false), b"x").unwrap();
    assert!(matches!(peer.heard()[..], [Performative::Detach(_)]));
    peer.say(3, detach(0));
    assert!(peer.heard().is_empty(), "a detach is answered once");
    peer.engine.release(id);
    assert!(peer.engine.links.is_empty());

    // Detached before it was accepted: as soon as it may be.
    peer.say(3, Performative::Attach(super::tests::attach(0, Role::Sender)));
    let (id, attach) = peer.engine.next_pending().unwrap();
    peer.engine.detach(id, Some(error(AmqpError::UnauthorizedAccess, "gone")));
    peer.engine.accept(id, &attach, &terms(100, 5));
    let answers = peer.heard();
    assert!(matches!(answers[..], [Performative::Attach(_), Performative::Flow(_), Performative::Detach(_)]));
}

#[test]
fn what_comes_after_its_session_has_ended_is_no_fault_and_is_not_answered() {
    let mut peer = Peer::new(65_536, 100);
    let id = peer.attach(0, Role::Sender, &terms(100, 5));
    peer.say(3, Performative::End(End { error: None }));
    assert!(matches!(peer.arrived(id), Poll::Ready(Err(Ended::Detached))));
    peer.heard();
    peer.say(3, Performative::Flow(credit(0, 0, 1)));
    peer.say(3, outcome(0, None, false));
    peer.say(3, Performative::Detach(Detach { handle: Handle(0), closed: true, error: None }));
    assert!(peer.heard().is_empty());
}

#[test]
fn what_breaks_the_protocol_closes_the_connection() {
    let attached = || {
        let mut peer = Peer::new(65_536, 100);
        peer.attach(0, Role::Sender, &terms(100, 5));
        peer.attach(1, Role::Receiver, &terms(100, 0));
        peer.heard();
        peer
    };
    for (channel, performative) in [
        (3, Performative::Begin(begin(1))),
        (2_000, Performative::Begin(begin(1))),
        (4, Performative::Attach(attach(0, Role::Sender))),
        (3, Performative::Attach(attach(0, Role::Sender))),
        (3, Performative::Attach(attach(5_000, Role::Sender))),
        (3, transfer(9, Some(0), false)),
        (3, transfer(1, Some(0), false)),
        (3, transfer(0, None, false)),
        (4, transfer(0, Some(0), false)),
        (4, Performative::End(End { error: None })),
    ] {
        let mut peer = attached();
        let fault = peer.try_say(channel, performative.clone(), b"").expect_err(&format!("{performative:?}"));
        peer.engine.fail(&fault);
        let answers = peer.heard();
        let [Performative::Close(Close { error: Some(_) })] = &answers[..] else { panic!("{answers:?}") };
        peer.say(0, Performative::Close(Close { error: None }));
        assert!(peer.engine.is_closed());
    }
    let mut peer = attached();
    let garbage = Frame { channel: 0, body: Bytes::from_static(&[0, 0x53, 0x10, 0xd0, 0xff]) };
    assert!(peer.engine.receive(garbage).is_err());
}

/// xorshift: the same frames in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

#[test]
fn frames_that_were_valid_once_are_refused_or_taken_and_nothing_panics() {
    let talk = [
        Performative::Begin(begin(5)),
        Performative::Attach(attach(2, Role::Sender)),
        Performative::Attach(attach(3, Role::Receiver)),
        Performative::Flow(credit(1, 0, 7)),
        transfer(0, Some(0), true),
        transfer(0, None, false),
        outcome(0, Some(2), false),
        Performative::Detach(Detach { handle: Handle(0), closed: true, error: None }),
        Performative::End(End { error: None }),
    ];
    let frames: Vec<Vec<u8>> = talk.iter().map(|said| serde_amqp::to_vec(said).unwrap()).collect();
    let mut dice = Dice(0x5eed);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..3_000 {
        let mut peer = Peer::new(512, 10);
        let incoming = peer.attach(0, Role::Sender, &terms(100, 5));
        let outgoing = peer.attach(1, Role::Receiver, &terms(100, 0));
        for _ in 0..12 {
            let mut body = frames[dice.below(frames.len())].clone();
            for _ in 0..dice.below(10).saturating_sub(7) {
                let place = dice.below(body.len());
                match dice.below(4) {
                    0 => body.truncate(place),
                    1 => body.insert(place, dice.below(256) as u8),
                    _ => body[place] = dice.below(256) as u8,
                }
                if body.is_empty() {
                    body.push(0);
                }
            }
            match peer.engine.receive(Frame { channel: 3, body: body.into() }) {
                Ok(()) => taken += 1,
                Err(fault) => {
                    refused += 1;
                    peer.engine.fail(&fault);
                    break;
                }
            }
            while let Some((id, attach)) = peer.engine.next_pending() {
                peer.engine.accept(id, &attach, &terms(100, 3));
            }
            if let Some(1..) = peer.usable_or_none(outgoing) {
                let _ = peer.engine.transfer(outgoing, b"t", 0, dice.below(2) == 0, &[0; 700]);
            }
            let _ = peer.arrived(incoming);
            let _ = peer.engine.poll_disposition(outgoing, Waker::noop());
        }
        peer.heard();
        peer.engine.lost();
        assert_eq!(peer.engine.held_bytes(), 0);
    }
    assert!(taken > 1_000 && refused > 1_000, "{taken} taken, {refused} refused");
}

impl Peer {
    fn usable_or_none(&mut self, id: LinkId) -> Option<u32> {
        match self.engine.poll_usable(id, Waker::noop()) {
            Poll::Ready(Ok(usable)) => Some(usable),
            _ => None,
        }
    }
}
