//! The file by which programs of the same user on the same machine find a hub and are let in.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use whimbrel::{Error, ErrorKind, Result};

use crate::files;

/// What `service.json` in the data folder holds. It is a secret: only its owner may read the file.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServiceFile {
    /// Connection string of the policy that may do everything.
    pub connection_string: String,
    /// URL of the HTTP listener, reachable from this machine; `None` when it is off.
    pub http: Option<String>,
    /// URL of the HTTPS listener.
    pub https: Option<String>,
    /// Address of the MQTT listener.
    pub mqtt: Option<SocketAddr>,
    /// Address of the MQTT listener with TLS.
    pub mqtts: Option<SocketAddr>,
    /// Address of the AMQP listener.
    #[serde(default)]
    pub amqp: Option<SocketAddr>,
    /// Address of the AMQP listener with TLS.
    #[serde(default)]
    pub amqps: Option<SocketAddr>,
    /// The certificate to trust, when the hub made its own.
    pub ca: Option<PathBuf>,
    /// The process that wrote this. It may be gone.
    pub pid: u32,
}

/// Without the connection string.
impl fmt::Debug for ServiceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceFile")
            .field("http", &self.http)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl ServiceFile {
    /// Name of the file in the data folder.
    pub const NAME: &'static str = "service.json";

    /// Reads the file in a data folder.
    ///
    /// # Errors
    /// `NotFound` when no hub has run there; `Unauthorized` when it belongs to somebody else; `JournalCorrupt` when it
    /// is not such a file.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::NAME);
        let text = std::fs::read(&path).map_err(|error| {
            let (kind, what) = match error.kind() {
                std::io::ErrorKind::NotFound => (ErrorKind::NotFound, "no hub has run here yet"),
                std::io::ErrorKind::PermissionDenied => {
                    (ErrorKind::Unauthorized, "the hub here belongs to another user")
                }
                _ => (ErrorKind::JournalIo, "the service file cannot be read"),
            };
            Error::new(kind, "hub.find", what).with("path", path.display()).caused_by(error)
        })?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::new(ErrorKind::JournalCorrupt, "hub.find", "this is not the service file of a hub")
                .with("path", path.display())
                // Where, not what: the text around it may be a key.
                .with("line", error.line())
        })
    }

    /// Writes the file, for the owner of the folder alone to read.
    ///
    /// # Errors
    /// `JournalIo`, `DiskFull`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| {
            Error::new(ErrorKind::Internal, "hub.start", "the service file cannot be made").caused_by(error)
        })?;
        files::write_private(&folder.join(Self::NAME), &text)
    }
}
