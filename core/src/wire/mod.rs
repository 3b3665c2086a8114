//! What goes over the wire and onto the disk: pure encode and decode, shared by client and hub.
//!
//! Lenient in what it reads, exact in what it writes. No sockets, no policy. Facts: contract `mqtt.md`, `messages.md`.

#[cfg(feature = "amqp")]
pub mod amqp;
pub mod feedback;
pub mod http;
mod names;
pub mod percent;
pub mod record;
pub mod refusal;
pub mod time;
pub mod topic;
pub mod user_name;
pub mod v5;
