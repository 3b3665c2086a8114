//! Values as people write them: `256KiB`, `1d`, `127.0.0.1:1883`, `off`.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// A type of value in the table of settings.
pub(super) trait Value: Sized {
    /// What help texts call it.
    const KIND: &'static str;

    /// Reads it; the error says what it should look like.
    fn read(text: &str) -> Result<Self, String>;

    /// How it stands in TOML, or an example when it is not set.
    fn literal(&self) -> Result<String, &'static str>;
}

/// An address to listen on, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(Option<SocketAddr>);

impl Listen {
    /// Do not listen.
    pub const OFF: Self = Self(None);

    /// Listens on this address; port 0 takes any free one.
    pub fn on(address: SocketAddr) -> Self {
        Self(Some(address))
    }

    /// A port of 127.0.0.1.
    pub fn loopback(port: u16) -> Self {
        Self(Some(SocketAddr::from(([127, 0, 0, 1], port))))
    }

    /// The address; `None` when off.
    pub fn address(self) -> Option<SocketAddr> {
        self.0
    }
}

impl Value for Listen {
    const KIND: &'static str = "ADDRESS";

    fn read(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::OFF);
        }
        text.parse().map(Self::on).map_err(|_| {
            format!(
                "\"{text}\" is not an address; write IP:PORT such as 127.0.0.1:1883 or [::]:8883, or \"off\""
            )
        })
    }

    fn literal(&self) -> Result<String, &'static str> {
        Ok(match self.0 {
            Some(address) => format!("\"{address}\""),
            None => "\"off\"".to_owned(),
        })
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl fmt::Display for Size {
    /// In the largest unit that shows it exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES.iter().find(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes));
        let (name, bytes) = unit.unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / bytes)
    }
}

impl Value for Size {
    const KIND: &'static str = "SIZE";

    fn read(text: &str) -> Result<Self, String> {
        let (digits, unit) = split_number(text);
        let bytes = match unit {
            "" => Some(1),
            _ => SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, bytes)| *bytes),
        };
        digits
            .parse::<u64>()
            .ok()
            .zip(bytes)
            .and_then(|(number, bytes)| number.checked_mul(bytes))
            .map(Self)
            .ok_or_else(|| {
                format!("\"{text}\" is not a size; write a whole number and a unit, such as 256KiB or 10GB")
            })
    }

    fn literal(&self) -> Result<String, &'static str> {
        Ok(format!("\"{self}\""))
    }
}

const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Value for Duration {
    const KIND: &'static str = "DURATION";

    fn read(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let mut total = Some(0_u64);
        while !rest.is_empty() {
            let (digits, tail) = split_number(rest);
            let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, after) = tail.split_at(end);
            let factor = TIMES.iter().find(|(name, _)| *name == unit).map(|(_, millis)| *millis);
            let part = digits
                .parse::<u64>()
                .ok()
                .zip(factor)
                .and_then(|(number, millis)| number.checked_mul(millis));
            total = total.zip(part).and_then(|(sum, part)| sum.checked_add(part));
            rest = after;
        }
        total.filter(|_| !text.is_empty()).map(Self::from_millis).ok_or_else(|| {
            format!("\"{text}\" is not a duration; write whole numbers with units, such as 30s, 1d or 1h30m")
        })
    }

    fn literal(&self) -> Result<String, &'static str> {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        let unit = TIMES.iter().find(|(_, factor)| millis != 0 && millis.is_multiple_of(*factor));
        let (name, factor) = unit.unwrap_or(&("s", 1_000));
        Ok(format!("\"{}{name}\"", millis / factor))
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "PATH";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path must not be empty".to_owned()) } else { Ok(Self::from(text)) }
    }

    fn literal(&self) -> Result<String, &'static str> {
        Ok(quoted(&self.to_string_lossy()))
    }
}

impl Value for Option<PathBuf> {
    const KIND: &'static str = PathBuf::KIND;

    fn read(text: &str) -> Result<Self, String> {
        PathBuf::read(text).map(Some)
    }

    fn literal(&self) -> Result<String, &'static str> {
        self.as_ref().map_or(Err("\"file.pem\""), PathBuf::literal)
    }
}

impl Value for String {
    const KIND: &'static str = "TEXT";

    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn literal(&self) -> Result<String, &'static str> {
        Ok(quoted(self))
    }
}

impl Value for bool {
    const KIND: &'static str = "BOOL";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("\"{text}\" is neither true nor false"))
    }

    fn literal(&self) -> Result<String, &'static str> {
        Ok(self.to_string())
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const KIND: &'static str = "NUMBER";

            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("\"{text}\" is not a whole number from 0 to {}", Self::MAX))
            }

            fn literal(&self) -> Result<String, &'static str> {
                Ok(self.to_string())
            }
        }
    )*};
}
whole_numbers!(u16, u32);

/// Reads a duration as settings are written.
///
/// # Errors
/// What it should look like.
pub fn duration(text: &str) -> Result<Duration, String> {
    Duration::read(text)
}

/// The digits at the start, and what follows them.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits, rest.trim_start())
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("256KiB", 262_144),
            ("256 kib", 262_144),
            ("10GB", 10_000_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(Size::read(text), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "KiB", "1.5GB", "-1", "9999999999TiB", "3 apples"] {
            assert!(Size::read(text).is_err(), "{text}");
        }
        for size in [0, 1, 1_000, 1_024, 1_025, 262_144, 10_000_000_000] {
            assert_eq!(Size::read(&Size(size).to_string()), Ok(Size(size)));
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("1d", 86_400_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
        ] {
            let read = Duration::read(&text.replace(' ', "")).unwrap();
            assert_eq!(read, Duration::from_millis(millis), "{text}");
        }
        for text in ["", "5", "s", "1x", "-1s", "1.5h", "99999999999999999999d", "999999999999999d"] {
            assert!(Duration::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(Listen::read("off"), Ok(Listen::OFF));
        assert_eq!(Listen::read("[::1]:0").unwrap().address().unwrap().port(), 0);
        for text in ["", "1883", "localhost:1883", "127.0.0.1"] {
            assert!(Listen::read(text).unwrap_err().contains("127.0.0.1:1883"), "{text}");
        }
    }
}
