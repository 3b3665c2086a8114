//! The `status` of an answer: finer than the reason code, and it says whether to try again.

use std::fmt;

/// A status: two bytes, written as four hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

macro_rules! statuses {
    ($($constant:ident = $code:literal, $reason:literal, $name:literal;)*) => {
        impl Status {
            $(#[doc = $name] pub const $constant: Self = Self($code);)*

            /// Every status of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];

            /// The reason code that goes with it; 131 (implementation specific) for one the contract does not know.
            pub const fn reason(self) -> u8 {
                match self.0 { $($code => $reason,)* _ => 131 }
            }

            /// Its name, for people.
            pub const fn name(self) -> &'static str {
                match self.0 { $($code => $name,)* _ => "Unknown" }
            }
        }
    };
}

statuses! {
    NOT_MODIFIED = 0x0001, 0, "Not Modified";
    BAD_REQUEST = 0x0100, 131, "Bad Request";
    NOT_AUTHORIZED = 0x0101, 135, "Not Authorized";
    NOT_ALLOWED = 0x0102, 131, "Not Allowed";
    CONFLICT = 0x0103, 131, "Conflict";
    PRECONDITION_FAILED = 0x0104, 131, "Precondition Failed";
    THROTTLED = 0x0501, 151, "Throttled";
    QUOTA_EXCEEDED = 0x0502, 151, "Quota Exceeded";
    RESOURCE_EXHAUSTED = 0x0503, 131, "Resource Exhausted";
    NOT_FOUND = 0x0504, 131, "Not Found";
    SERVER_ERROR = 0x0601, 131, "Server Error";
    TIMEOUT = 0x0602, 131, "Timeout";
    SERVER_BUSY = 0x0603, 131, "Server Busy";
    TARGET_UNAVAILABLE = 0x06A0, 131, "Target Unavailable";
    TARGET_TIMEOUT = 0x06A1, 131, "Target Timeout";
    TARGET_FAILED = 0x06A2, 131, "Target Failed";
}

impl Status {
    /// A client abandons a command with this.
    pub const ABANDON: Self = Self::SERVER_BUSY;
    /// A client rejects a command with this.
    pub const REJECT: Self = Self::BAD_REQUEST;

    /// Reads four hexadecimal digits, also of a status the contract does not know: its first byte still says what to do.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u16::from_str_radix(text, 16).ok().map(Self))?
    }

    /// Both bytes.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// Whether it says that all went well.
    pub const fn is_success(self) -> bool {
        (self.0 >> 8) & 0b11 == 0
    }

    /// Whether the same message may succeed later.
    pub const fn is_retryable(self) -> bool {
        (self.0 >> 8) & 0b100 != 0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} {}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_contracts() {
        assert_eq!(Status::ALL.len(), 16);
        for status in Status::ALL {
            assert_eq!(Status::parse(&status.to_string()), Some(*status));
        }
        assert_eq!(format!("{:?}", Status::TARGET_UNAVAILABLE), "06A0 Target Unavailable");
        assert_eq!((Status::THROTTLED.reason(), Status::NOT_AUTHORIZED.reason()), (151, 135));
    }

    #[test]
    fn the_first_byte_says_what_to_do() {
        let retryable: Vec<u16> =
            Status::ALL.iter().filter(|status| status.is_retryable()).map(|status| status.code()).collect();
        assert_eq!(
            retryable,
            [0x0501, 0x0502, 0x0503, 0x0504, 0x0601, 0x0602, 0x0603, 0x06A0, 0x06A1, 0x06A2]
        );
        assert!(Status::NOT_MODIFIED.is_success() && !Status::BAD_REQUEST.is_success());
        let unknown = Status::parse("06ff").unwrap();
        assert!(unknown.is_retryable() && unknown.reason() == 131 && unknown.name() == "Unknown");
        for text in ["", "100", "+100", "01000", "010g", "ü10"] {
            assert_eq!(Status::parse(text), None, "{text}");
        }
    }
}
