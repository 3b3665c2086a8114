//! Decides on the links a peer attaches: what the address means, whether it may, and who serves it.

use std::{future::Future, pin::Pin, sync::Arc, time::SystemTime};

use fe2o3_amqp_types::{
    definitions::{Error, Role},
    messaging::{Source, TargetArchetype},
    performatives::Attach,
};
use whimbrel::{ErrorKind, wire::refusal::Refusal};

use super::{
    Front,
    address::{Address, Ids},
    cbs, condition, device_events,
    engine::LinkId,
    events,
    grants::{Grants, Need, Pass},
    link::{Attaching, Shared},
    request::{self, Node, Replies},
    roster::{Purpose, Seat},
};
use crate::access::{Admitted, Right};

/// What the links of a connection work with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) front: Arc<Front>,
    pub(super) shared: Arc<Shared>,
    pub(super) grants: Arc<Grants>,
    pub(super) replies: Arc<Replies>,
}

/// Keeps a link allowed while it is held.
pub(super) struct Permit {
    grants: Arc<Grants>,
    link: LinkId,
    seat: Option<Seat>,
}

impl Permit {
    /// Detaches the other links that receive the device's commands.
    pub(super) fn take_over(&self, error: &Error) {
        if let Some(seat) = &self.seat {
            seat.take_over(error);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.grants.forget(self.link);
    }
}

impl Context {
    /// Lets a link be used as a service, for as long as the permit is held and a token lasts.
    ///
    /// # Errors
    /// What to refuse it with.
    pub(super) fn allow_service(
        &self,
        attaching: &Attaching,
        right: Right,
        resource: &str,
    ) -> Result<Permit, Error> {
        let need = Need::Service { right, resource: resource.to_owned() };
        self.grants.allow(attaching.id(), need, SystemTime::now()).map_err(|error| refused(&error))?;
        Ok(Permit { grants: Arc::clone(&self.grants), link: attaching.id(), seat: None })
    }

    /// Lets a link be used as a device.
    ///
    /// # Errors
    /// What to refuse it with.
    pub(super) fn allow_device(
        &self,
        attaching: &Attaching,
        ids: &Ids,
        purpose: Purpose,
    ) -> Result<(Admitted, Permit), Error> {
        let mut refusal = None;
        for (device, module) in ids.readings() {
            // Entered first: a change of the device is either seen below or finds the link here.
            let seat = self.front.roster.enter(&device, purpose, &self.shared, attaching.id());
            let need = Need::Device { device, module };
            match self.grants.allow(attaching.id(), need, SystemTime::now()) {
                Ok(Pass::Device(admitted)) => {
                    let grants = Arc::clone(&self.grants);
                    return Ok((admitted, Permit { grants, link: attaching.id(), seat: Some(seat) }));
                }
                Ok(Pass::Service { .. }) => {}
                Err(error) => refusal = Some(refused(&error)),
            }
        }
        Err(refusal.unwrap_or_else(|| condition::unauthorized("not allowed")))
    }
}

/// What serves a link to its end.
pub(super) type Service = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who is to serve a link; `None` when it was refused.
pub(super) fn decide(context: &Context, attaching: Attaching) -> Option<Service> {
    let Some(address) = address_of(attaching.attach()) else {
        attaching.refuse(condition::refusal(Refusal::ADDRESS_NOT_FOUND, "the link names no address"));
        return None;
    };
    let receives = attaching.attach().role == Role::Sender;
    let context = context.clone();
    match (Address::parse(&address), receives) {
        (Address::Cbs, true) => {
            let link = attaching.accept_incoming(&request::terms());
            let Context { grants, replies, .. } = context;
            let answer = move |request| {
                let answer = cbs::put(&grants, request, SystemTime::now());
                async move { answer }
            };
            Some(Box::pin(request::serve(Node::Cbs, link, replies, answer)))
        }
        (Address::Cbs, false) => {
            Some(Box::pin(context.replies.serve(Node::Cbs, attaching.accept_outgoing(&request::terms()))))
        }
        (Address::Management(before), _) => Some(Box::pin(events::management(context, attaching, before))),
        (Address::Events { hub, group, partition }, false) => {
            Some(Box::pin(events::read(context, attaching, hub, group, partition)))
        }
        (Address::DeviceEvents(ids), true) => match context.allow_device(&attaching, &ids, Purpose::Events) {
            Ok((sender, permit)) => {
                let link = attaching.accept_incoming(&device_events::terms(&context.front));
                Some(Box::pin(device_events::serve(context.front, link, sender, permit)))
            }
            Err(error) => refuse(attaching, error),
        },
        (Address::DeviceOther, _) => {
            refuse(attaching, condition::not_implemented("the hub has neither twins nor methods"))
        }
        _ => {
            let text = "there is no such address here, or not in this direction";
            refuse(attaching, condition::refusal(Refusal::ADDRESS_NOT_FOUND, text))
        }
    }
}

fn refuse(attaching: Attaching, error: Error) -> Option<Service> {
    attaching.refuse(error);
    None
}

/// The address of the hub's side.
fn address_of(attach: &Attach) -> Option<String> {
    match attach.role {
        Role::Sender => match attach.target.as_deref()? {
            TargetArchetype::Target(target) if !target.dynamic => target.address.clone(),
            _ => None,
        },
        Role::Receiver => {
            let Source { address, dynamic, .. } = attach.source.as_deref()?;
            address.clone().filter(|_| !*dynamic)
        }
    }
}

/// What a stranger hears: no more than that it may not.
fn refused(error: &whimbrel::Error) -> Error {
    match error.kind() {
        ErrorKind::Unauthorized => {
            tracing::info!(%error, "a link was refused");
            condition::unauthorized(
                "no token or certificate of this connection allows it; the hub's log says why",
            )
        }
        _ => condition::of(error),
    }
}
