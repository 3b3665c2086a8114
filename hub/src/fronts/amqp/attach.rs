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
    cbs, condition, device_commands, device_events,
    engine::LinkId,
    events, feedback,
    grants::{Grants, Need, Pass},
    link::{Attaching, Shared},
    request::{self, Node, Replies},
    roster::{Purpose, Seat},
    service_commands,
};
use crate::{
    access::{Admitted, Right},
    commands::Patience,
    sessions::{Identity, Present},
};

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
    /// The device is connected as long as it has a link.
    _present: Option<Present>,
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
        self.allow_service_by_any(attaching, right, &[resource])
    }

    /// [`Context::allow_service`] on a resource that goes by several names: a token for one of them is enough.
    ///
    /// # Errors
    /// As there.
    pub(super) fn allow_service_by_any(
        &self,
        attaching: &Attaching,
        right: Right,
        names: &[&str],
    ) -> Result<Permit, Error> {
        let mut refusal = None;
        for name in names {
            let need = Need::Service { right, resource: (*name).to_owned() };
            match self.grants.allow(attaching.id(), need, SystemTime::now()) {
                Ok(_) => {
                    let grants = Arc::clone(&self.grants);
                    return Ok(Permit { grants, link: attaching.id(), seat: None, _present: None });
                }
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.map_or_else(|| condition::unauthorized("not allowed"), |error| refused(&error)))
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
            let seat =
                self.front.roster.enter(&device, module.as_deref(), purpose, &self.shared, attaching.id());
            let need = Need::Device { device, module };
            match self.grants.allow(attaching.id(), need, SystemTime::now()) {
                Ok(Pass::Device(admitted)) => {
                    let identity =
                        Identity { device: Arc::clone(&admitted.device), module: admitted.module.clone() };
                    let permit = Permit {
                        grants: Arc::clone(&self.grants),
                        link: attaching.id(),
                        seat: Some(seat),
                        _present: Some(self.front.presences.enter(&identity)),
                    };
                    return Ok((admitted, permit));
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
        (Address::Cbs, false) => Some(Box::pin(context.replies.serve(Node::Cbs, attaching))),
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
        (Address::DeviceCommands(ids), false) => {
            match context.allow_device(&attaching, &ids, Purpose::Commands) {
                Ok((device, _)) if device.module.is_some() => {
                    let text = "modules have no commands";
                    refuse(attaching, condition::refusal(Refusal::ADDRESS_NOT_FOUND, text))
                }
                Ok((device, permit)) => {
                    permit.take_over(&condition::refusal(
                        Refusal::LINK_CONFLICT,
                        "another link receives the commands of the device now",
                    ));
                    let commands = context.front.commands.receiver(&device);
                    let link = attaching.accept_outgoing(&device_commands::terms());
                    Some(Box::pin(device_commands::serve(context.front, link, commands, permit)))
                }
                Err(error) => refuse(attaching, error),
            }
        }
        (Address::Commands, true) => {
            match context.allow_service(&attaching, Right::ServiceConnect, "messages/devicebound") {
                Ok(permit) => {
                    let link = attaching.accept_incoming(&service_commands::terms());
                    Some(Box::pin(service_commands::serve(context.front, link, permit)))
                }
                Err(error) => refuse(attaching, error),
            }
        }
        (Address::Feedback, false) => {
            match context.allow_service(&attaching, Right::ServiceConnect, "messages/servicebound/feedback") {
                Ok(permit) => {
                    let patience = feedback::patience(attaching.attach());
                    let link = attaching.accept_outgoing(&feedback::terms(patience));
                    Some(Box::pin(feedback::serve(context.front, link, patience, permit)))
                }
                Err(error) => refuse(attaching, error),
            }
        }
        (Address::Outcomes, false) => {
            match context.allow_service(&attaching, Right::ServiceConnect, "messages/whimbrel/outcomes") {
                Ok(permit) => {
                    let link = attaching.accept_outgoing(&feedback::terms(Patience::Contract));
                    Some(Box::pin(feedback::serve_outcomes(context.front, link, permit)))
                }
                Err(error) => refuse(attaching, error),
            }
        }
        (Address::FileNotifications, false) => {
            let resource = "messages/servicebound/filenotifications";
            match context.allow_service(&attaching, Right::ServiceConnect, resource) {
                Ok(permit) => {
                    let link = attaching.accept_outgoing(&feedback::terms(Patience::Contract));
                    Some(Box::pin(feedback::serve_nothing(link, permit)))
                }
                Err(error) => refuse(attaching, error),
            }
        }
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
