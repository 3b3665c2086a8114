//! Reading events as Event Hubs clients do. Contract `d2c.md`, "Reading over AMQP".
//!
//! The dispatcher in [`super::attach`] calls the two functions here; each takes an undecided link and serves it to its
//! end, in a task of its own.

use super::{attach::Context, condition, link::Attaching};

/// Serves a link that reads the events of a partition: `attaching.attach()` has role receiver, filter, epoch and
/// capabilities. `hub` is the first part of the address: the event hub's name, or `messages/events`.
///
/// To do here: `context.allow_service(…)`, then `attaching.accept_outgoing(…)` or `attaching.refuse(…)`, then a loop of
/// `link.poll_usable`, `events.reader…`, `link.send`, `link.poll_disposition`.
pub(super) async fn read(
    _context: Context,
    attaching: Attaching,
    _hub: String,
    _group: String,
    _partition: String,
) {
    attaching.refuse(condition::not_implemented("events cannot be read here yet"));
}

/// Serves one link of `$management`, of either role; `before` is what stands before it in the address.
///
/// To do here: for `messages/events` refuse with `amqp:link:redirect`; else allow, accept, and run
/// `context.replies.serve(Node::Management, …)` or `request::serve(Node::Management, …)`.
pub(super) async fn management(_context: Context, attaching: Attaching, _before: Vec<String>) {
    attaching.refuse(condition::not_implemented("events cannot be read here yet"));
}
