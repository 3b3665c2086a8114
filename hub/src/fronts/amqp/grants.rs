//! What one connection may do: the tokens it brought, its certificate, and for how long the links it has may stay.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustls_pki_types::CertificateDer;
use tokio::time::Instant;
use whimbrel::{Error, ErrorKind, Result, auth::SasToken, wire::percent};

use super::engine::LinkId;
use crate::access::{Access, Admitted, Right};

/// Tokens of one connection. A gateway has one for each device behind it.
const TOKENS: usize = 1_000;

/// What a link needs to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// To act as this device or module.
    Device { device: String, module: Option<String> },
    /// A right on a resource, as a service.
    Service { right: Right, resource: String },
}

/// What a link is allowed as.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pass {
    Device(Admitted),
    Service {
        /// Name of the policy.
        policy: Arc<str>,
    },
}

/// The grants of a connection, shared by its tasks.
pub(super) struct Grants {
    access: Access,
    certificates: Vec<CertificateDer<'static>>,
    grace: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// By audience, its host left out.
    tokens: HashMap<String, Token>,
    links: HashMap<LinkId, Allowed>,
    /// When the token ends that came in place of a password, grace included.
    signed_in: Option<Instant>,
    /// When the first link has to be looked at again.
    due: Option<Instant>,
}

struct Token {
    text: String,
    token: SasToken,
}

struct Allowed {
    need: Need,
    /// When it is over, grace included; `None` for certificates.
    until: Option<Instant>,
}

impl Grants {
    pub(super) fn new(access: Access, certificates: Vec<CertificateDer<'static>>, grace: Duration) -> Self {
        Self { access, certificates, grace, table: Mutex::default() }
    }

    /// Takes a token for an audience; an older one for the same is replaced.
    ///
    /// # Errors
    /// `Unauthorized` when it is not good for that; `Throttled` when there are too many.
    pub(super) fn put(&self, audience: &str, text: &str, now: SystemTime) -> Result<()> {
        let token = SasToken::parse(text)?;
        let path = path_of(audience);
        self.check(&path, text, now)?;
        let mut table = self.lock();
        if table.tokens.len() >= TOKENS && !table.tokens.contains_key(&path) {
            // Those that are over make room first.
            table.tokens.retain(|_, known| known.token.expires_at() > now);
            if table.tokens.len() >= TOKENS {
                return Err(Error::new(
                    ErrorKind::Throttled,
                    OPERATION,
                    "the connection has too many tokens",
                ));
            }
        }
        table.tokens.insert(path, Token { text: text.to_owned(), token });
        Ok(())
    }

    /// Takes the token that came in place of a password: for what its own scope says.
    ///
    /// # Errors
    /// `Unauthorized` when it is not good, or names another policy.
    pub(super) fn sign_in(
        &self,
        audience: &str,
        policy: Option<&str>,
        text: &str,
        now: SystemTime,
    ) -> Result<()> {
        let token = SasToken::parse(text)?;
        if token.policy.as_deref() != policy {
            return Err(Error::new(
                ErrorKind::Unauthorized,
                OPERATION,
                "the token is of another policy than the user",
            ));
        }
        let scope = percent::decode(&token.resource).into_owned();
        let audience = if audience.is_empty() { &scope } else { audience };
        self.put(audience, text, now)?;
        let ends = self.ends(token.expires_at(), Instant::now(), now);
        let mut table = self.lock();
        table.signed_in = Some(ends);
        table.due = earlier(table.due, Some(ends));
        Ok(())
    }

    /// Whether the token the client signed in with is over. It cannot be renewed.
    pub(super) fn is_signed_out(&self, at: Instant) -> bool {
        self.lock().signed_in.is_some_and(|ends| ends <= at)
    }

    /// Whether a token is good for anything below the path of its audience.
    fn check(&self, path: &str, text: &str, now: SystemTime) -> Result<()> {
        let mut parts = path.split('/');
        if parts.next().is_some_and(|first| first.eq_ignore_ascii_case("devices"))
            && let Some(device) = parts.next()
        {
            let module =
                parts.next().filter(|part| part.eq_ignore_ascii_case("modules")).and_then(|_| parts.next());
            for (device, module) in readings(device, module) {
                if self.access.device_by_token(&device, module.as_deref(), text, now).is_ok() {
                    return Ok(());
                }
            }
        }
        let mut refusal = None;
        for right in Right::ALL {
            match self.access.service(text, right, path, now) {
                Ok(_) => return Ok(()),
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(nothing))
    }

    /// Allows a link, if a token or the certificate does; it is watched from then on, until [`Grants::forget`].
    ///
    /// # Errors
    /// `Unauthorized`, `JournalIo`.
    pub(super) fn allow(&self, link: LinkId, need: Need, now: SystemTime) -> Result<Pass> {
        let (pass, expires_at) = self.find(&need, now)?;
        let at = Instant::now();
        let until = expires_at.map(|end| self.ends(end, at, now));
        let mut table = self.lock();
        table.links.insert(link, Allowed { need, until });
        table.due = earlier(table.due, until);
        Ok(pass)
    }

    /// Whether anything was granted at all.
    pub(super) fn is_stranger(&self) -> bool {
        let table = self.lock();
        table.tokens.is_empty() && table.links.is_empty()
    }

    /// When [`Grants::overdue`] is to be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().due
    }

    /// Links whose time is over and for which no newer token came.
    pub(super) fn overdue(&self, at: Instant, now: SystemTime) -> Vec<LinkId> {
        let waiting: Vec<(LinkId, Need)> = {
            let table = self.lock();
            let over = |until: Option<Instant>| until.is_some_and(|until| until <= at);
            let links = table.links.iter().filter(|(_, allowed)| over(allowed.until));
            links.map(|(id, allowed)| (*id, allowed.need.clone())).collect()
        };
        let looked_at: Vec<_> = waiting
            .into_iter()
            .map(|(id, need)| {
                let found = self.find(&need, now).ok();
                (id, found.map(|(_, expires_at)| expires_at.map(|end| self.ends(end, at, now))))
            })
            .collect();
        let mut table = self.lock();
        let mut over = Vec::new();
        for (id, until) in looked_at {
            match until.filter(|until| until.is_none_or(|until| until > at)) {
                Some(until) => {
                    if let Some(allowed) = table.links.get_mut(&id) {
                        allowed.until = until;
                    }
                }
                None => {
                    table.links.remove(&id);
                    over.push(id);
                }
            }
        }
        table.due = table.links.values().fold(table.signed_in, |due, allowed| earlier(due, allowed.until));
        over
    }

    /// The link is gone.
    pub(super) fn forget(&self, link: LinkId) {
        self.lock().links.remove(&link);
    }

    /// Who the link would be, by the grant that lasts longest.
    fn find(&self, need: &Need, now: SystemTime) -> Result<(Pass, Option<SystemTime>)> {
        let resource = match need {
            Need::Device { device, .. } => format!("devices/{device}"),
            Need::Service { resource, .. } => resource.clone(),
        };
        let resource = format!("{}/{}", self.access.host_name(), resource.trim_matches('/'));
        let mut candidates: Vec<(SystemTime, String)> = {
            let table = self.lock();
            let covering = table.tokens.values().filter(|known| known.token.covers(&resource));
            covering.map(|known| (known.token.expires_at(), known.text.clone())).collect()
        };
        candidates.sort_by_key(|(expires_at, _)| std::cmp::Reverse(*expires_at));
        let mut refusal = nothing();
        for (expires_at, text) in candidates {
            let found = match need {
                Need::Device { device, module } => {
                    self.access.device_by_token(device, module.as_deref(), &text, now).map(Pass::Device)
                }
                Need::Service { right, resource } => {
                    self.access.service(&text, *right, resource, now).map(|policy| Pass::Service { policy })
                }
            };
            match found {
                Ok(pass) => return Ok((pass, Some(expires_at))),
                Err(error) => refusal = error,
            }
        }
        if let Need::Device { device, module } = need
            && !self.certificates.is_empty()
        {
            let found =
                self.access.device_by_certificate(device, module.as_deref(), &self.certificates, now)?;
            return Ok((Pass::Device(found), None));
        }
        Err(refusal)
    }

    /// When what ends at `expires_at` is over, grace included, if it is `now` at `at`.
    fn ends(&self, expires_at: SystemTime, at: Instant, now: SystemTime) -> Instant {
        let left = match expires_at.duration_since(now) {
            Ok(left) => left.saturating_add(self.grace),
            Err(past) => self.grace.saturating_sub(past.duration()),
        };
        at.checked_add(left).unwrap_or(at + Duration::from_secs(1 << 32))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of an audience: `{hub}/devices/{id}`, the same percent-encoded as a whole, with a scheme and a port or not.
fn path_of(audience: &str) -> String {
    let decoded;
    let audience = if audience.contains('/') {
        audience
    } else {
        decoded = percent::decode(audience);
        &*decoded
    };
    let rest = audience.split_once("://").map_or(audience, |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path).trim_end_matches('/').to_owned()
}

/// Ids as they stand in an audience: percent-encoded or not.
fn readings(device: &str, module: Option<&str>) -> Vec<(String, Option<String>)> {
    let read = |text: &str| percent::decode(text).into_owned();
    let decoded = (read(device), module.map(read));
    let raw = (device.to_owned(), module.map(str::to_owned));
    if decoded == raw { vec![raw] } else { vec![decoded, raw] }
}

fn earlier(left: Option<Instant>, right: Option<Instant>) -> Option<Instant> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

fn nothing() -> Error {
    Error::new(ErrorKind::Unauthorized, OPERATION, "no token of this connection allows it")
}

const OPERATION: &str = "amqp.grants";
