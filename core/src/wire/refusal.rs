//! The error numbers of the contract, and how each travels: HTTP status, header and body; AMQP condition. Contract
//! `errors.md`.

use crate::ErrorKind;

/// One row of the contract's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Six digits; the first three are the HTTP status.
    pub number: u32,
    /// Value of the HTTP header `iothub-errorcode`.
    pub name: &'static str,
    /// AMQP condition.
    pub condition: &'static str,
    /// What it is here.
    pub kind: ErrorKind,
}

macro_rules! refusals {
    ($($constant:ident = $number:literal, $name:literal, $condition:literal, $kind:ident;)*) => {
        impl Refusal {
            $(#[doc = concat!($number, " ", $name, ".")]
            pub const $constant: Self =
                Self { number: $number, name: $name, condition: $condition, kind: ErrorKind::$kind };)*

            /// Every row, in order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];
        }
    };
}

refusals! {
    INVALID_PROTOCOL_VERSION = 400001, "InvalidProtocolVersion", "com.microsoft:argument-error", InvalidArgument;
    INVALID_OPERATION = 400003, "InvalidOperation", "amqp:not-allowed", InvalidArgument;
    ARGUMENT_INVALID = 400004, "ArgumentInvalid", "com.microsoft:argument-error", InvalidArgument;
    ARGUMENT_NULL = 400005, "ArgumentNull", "com.microsoft:argument-error", InvalidArgument;
    FORMAT_ERROR = 400006, "IotHubFormatError", "com.microsoft:argument-error", InvalidArgument;
    HUB_NOT_FOUND = 401001, "IotHubNotFound", "com.microsoft:iot-hub-not-found-error", NotFound;
    UNAUTHORIZED_ACCESS = 401002, "IotHubUnauthorizedAccess", "amqp:unauthorized-access", Unauthorized;
    UNAUTHORIZED = 401003, "IotHubUnauthorized", "amqp:unauthorized-access", Unauthorized;
    QUOTA_EXCEEDED = 403002, "IotHubQuotaExceeded", "com.microsoft:quota-exceeded", Throttled;
    QUEUE_FULL = 403004, "DeviceMaximumQueueDepthExceeded", "amqp:resource-limit-exceeded", QueueFull;
    INVALID_EXPIRY = 403009, "InvalidMessageExpiryTime", "com.microsoft:argument-error", InvalidArgument;
    DEVICE_NOT_FOUND = 404001, "DeviceNotFound", "amqp:not-found", NotFound;
    ADDRESS_NOT_FOUND = 404006, "AmqpAddressNotFound", "amqp:not-found", NotFound;
    MODULE_NOT_FOUND = 404010, "ModuleNotFound", "amqp:not-found", NotFound;
    DEVICE_EXISTS = 409001, "DeviceAlreadyExists", "com.microsoft:device-already-exists", Conflict;
    LINK_CONFLICT = 409002, "LinkCreationConflict", "amqp:link:stolen", Conflict;
    MODULE_EXISTS = 409301, "ModuleAlreadyExistsOnDevice", "com.microsoft:device-already-exists", Conflict;
    PRECONDITION_FAILED = 412001, "PreconditionFailed", "com.microsoft:precondition-failed", Conflict;
    LOCK_LOST = 412002, "DeviceMessageLockLost", "com.microsoft:message-lock-lost", LockLost;
    TOO_LARGE = 413001, "MessageTooLarge", "amqp:link:message-size-exceeded", PayloadTooLarge;
    TOO_MANY_DEVICES = 413002, "TooManyDevices", "com.microsoft:argument-error", InvalidArgument;
    TOO_MANY_MODULES = 413003, "TooManyModulesOnDevice", "com.microsoft:argument-error", InvalidArgument;
    UNSUPPORTED_MEDIA_TYPE = 415000, "GenericUnsupportedMediaType", "com.microsoft:argument-error", InvalidArgument;
    THROTTLED = 429001, "ThrottlingException", "com.microsoft:device-container-throttled", Throttled;
    SERVER_ERROR = 500001, "ServerError", "amqp:internal-error", Internal;
    TIMEOUT = 500008, "GenericTimeout", "com.microsoft:timeout", Timeout;
    SERVICE_UNAVAILABLE = 503001, "ServiceUnavailable", "com.microsoft:server-busy", Unreachable;
    PARTITION_NOT_FOUND = 503003, "PartitionNotFound", "amqp:not-found", NotFound;
    SERVER_BUSY = 503005, "ServerBusy", "com.microsoft:server-busy", Unreachable;
}

impl Refusal {
    /// The row an error of a hub goes out as, where nothing closer is known.
    pub const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument => Self::ARGUMENT_INVALID,
            ErrorKind::Unsupported => Self::INVALID_OPERATION,
            ErrorKind::PayloadTooLarge => Self::TOO_LARGE,
            ErrorKind::Unauthorized => Self::UNAUTHORIZED,
            ErrorKind::NotFound => Self::DEVICE_NOT_FOUND,
            ErrorKind::Conflict => Self::PRECONDITION_FAILED,
            ErrorKind::QueueFull => Self::QUEUE_FULL,
            ErrorKind::LockLost => Self::LOCK_LOST,
            ErrorKind::Throttled => Self::THROTTLED,
            ErrorKind::Timeout => Self::TIMEOUT,
            ErrorKind::Closed | ErrorKind::Unreachable => Self::SERVICE_UNAVAILABLE,
            ErrorKind::DiskFull | ErrorKind::JournalIo => Self::SERVER_BUSY,
            _ => Self::SERVER_ERROR,
        }
    }

    /// The row of a number.
    pub fn by_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|row| row.number == number)
    }

    /// The row of a name in the header `iothub-errorcode`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|row| row.name == name)
    }

    /// HTTP status.
    pub const fn status(self) -> u16 {
        (self.number / 1_000) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_lead_back() {
        for row in Refusal::ALL {
            assert_eq!(Refusal::by_number(row.number), Some(*row));
            assert_eq!(Refusal::by_name(row.name), Some(*row));
            assert!((400..600).contains(&row.status()));
        }
        assert!(Refusal::ALL.windows(2).all(|pair| pair[0].number < pair[1].number));
    }

    #[test]
    fn every_kind_has_a_row() {
        for kind in ErrorKind::ALL {
            let row = Refusal::of(*kind);
            assert!(row.kind == *kind || matches!(row.status(), 400 | 500 | 503), "{kind:?}");
        }
    }
}
