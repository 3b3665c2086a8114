//! One protocol each: parse, authorise, call the domain modules, answer. No decisions about messages.

pub(crate) mod amqp;
mod door;
pub(crate) mod http;
pub(crate) mod mqtt;
