//! HTTP/1.1: a request for each message or batch of messages, and commands fetched at long intervals. Contract
//! `http.md`, `d2c.md`.
//!
//! HTTP has no connection that could be up or down. Here it is up from a first request that the hub answered as to a
//! device it knows, and down when one failed; in between nobody looks, so that it may look up for as long as there is
//! nothing to send. The first request abandons a command under a lock that is none, which changes nothing: a hub that
//! knows us says that the lock was lost.

mod batch;
mod connection;
mod pace;
mod requests;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

pub use connection::HttpConnection;
use pace::Pace;
use requests::Requests;

use super::{
    CommandSupport, Greeting, Offer, Transport,
    endpoint::{Endpoint, Proxy},
    identity::Identity,
    socket::unreachable,
};
use crate::{Result, auth::ConnectionString};

/// What an [`HttpTransport`] needs to know.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Who we are, to which hub.
    pub connection_string: ConnectionString,
    /// Where to connect.
    pub endpoint: Endpoint,
    /// Through which proxy.
    pub proxy: Option<Proxy>,
    /// Whom to trust; needed where the endpoint is encrypted.
    pub tls: Option<super::tls::TlsConfig>,
    /// Longest wait for an answer; more for a single message that was too slow once.
    pub keep_alive: Duration,
    /// Longest wait for a connection and the first answer.
    pub connect_timeout: Duration,
    /// How long a token is valid that is made from a key; it is renewed without a word.
    pub token_lifetime: Duration,
    /// How often commands are asked for.
    pub poll_interval: Duration,
}

/// Reaches a hub by HTTP.
#[derive(Debug)]
pub struct HttpTransport {
    options: HttpOptions,
    identity: Identity,
    pace: Arc<Mutex<Pace>>,
}

impl HttpTransport {
    /// A transport; nothing is opened yet.
    ///
    /// # Errors
    /// `InvalidArgument` when the connection string names no device, or the proxy cannot be used.
    pub fn new(options: HttpOptions) -> Result<Self> {
        let identity = Identity::new(options.connection_string.clone(), options.token_lifetime)?;
        let pace = Arc::default();
        Requests::new(&options, &identity, Arc::clone(&pace))?;
        Ok(Self { options, identity, pace })
    }
}

impl Transport for HttpTransport {
    type Connection = HttpConnection;

    async fn connect(&self, _: Offer) -> Result<(HttpConnection, Greeting)> {
        let requests = Arc::new(Requests::new(&self.options, &self.identity, Arc::clone(&self.pace))?);
        tokio::time::timeout(self.options.connect_timeout, requests.introduce())
            .await
            .unwrap_or_else(|_| Err(unreachable("the server did not answer in time")))?;
        let connection = HttpConnection::new(requests, self.options.poll_interval);
        let commands = CommandSupport { abandon_and_reject: true, answers: true };
        Ok((connection, Greeting { receive_maximum: u16::MAX, renew_in: None, commands }))
    }
}
