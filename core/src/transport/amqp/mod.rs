//! AMQP 1.0.

#![allow(dead_code, unused_imports, reason = "the service client uses one part of it, the device the other")]

mod cbs;
mod door;
mod fault;
mod frame;

pub(crate) use cbs::Cbs;
pub(crate) use door::{Door, Sasl};
pub(crate) use fault::{Fault, condition, kind, told};
