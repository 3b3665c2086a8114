//! Settings of a hub: one table that gives the configuration file, the environment variables and the flags the same
//! names, the same values and the same defaults.

mod sources;
mod value;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use whimbrel::{Error, ErrorKind, Result};

use value::Value;
pub use value::{Listen, Size, duration};

/// One row of the table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    field: &'static str,
    doc: &'static [&'static str],
    kind: &'static str,
}

impl Setting {
    /// The name in the configuration file, and after `--` on the command line: `retention-bytes`.
    pub fn name(&self) -> String {
        self.field.replace('_', "-")
    }

    /// The environment variable: `WHIMBREL_HUB_RETENTION_BYTES`.
    pub fn variable(&self) -> String {
        format!("{}{}", Config::VARIABLE_PREFIX, self.field.to_uppercase())
    }

    /// What it does, in a sentence or two.
    pub fn help(&self) -> String {
        self.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }

    /// The default as it stands in a configuration file; `None` when there is none.
    pub fn default_text(&self) -> Option<String> {
        Config::default().literal(self.field)?.ok()
    }

    /// What kind of value it takes, such as `SIZE`; `BOOL` for those that are true or false.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

/// What `max-message` may be at most: a message has to fit into memory many times over.
const MESSAGE_LIMIT: Size = Size(16 << 20);

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr;)*) => {
        /// Settings of a hub. What is not given has its default here, and nowhere else.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct Config {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Config {
            /// Every setting, in the order of the configuration file.
            pub const SETTINGS: &'static [Setting] = &[
                $(Setting { field: stringify!($field), doc: &[$($doc),+], kind: <$type as Value>::KIND },)*
            ];

            /// Reads one value from text; `None` when there is no such setting.
            fn assign(&mut self, field: &str, text: &str) -> Option<Result<(), String>> {
                match field {
                    $(stringify!($field) => Some(Value::read(text).map(|value| self.$field = value)),)*
                    _ => None,
                }
            }

            /// The value as it stands in a configuration file; an `Err` is an example for one that is not set.
            fn literal(&self, field: &str) -> Option<Result<String, &'static str>> {
                match field {
                    $(stringify!($field) => Some(self.$field.literal()),)*
                    _ => None,
                }
            }
        }
    };
}

settings! {
    /// Folder for everything the hub keeps: events, device identities, keys, certificates. One hub owns it at a time.
    data: PathBuf = PathBuf::from("./whimbrel-data");
    /// Keep everything in memory instead of `data`: for tests. A restart loses it all.
    memory: bool = false;
    /// Name of this hub in connection strings and tokens, and in its own certificate. Devices have to reach it under
    /// this name unless they are told an address.
    host_name: String = "localhost".to_owned();
    /// Address for MQTT without TLS, or "off". Port 0 takes any free one.
    mqtt: Listen = Listen::loopback(1883);
    /// Address for MQTT over TLS, or "off".
    mqtts: Listen = Listen::loopback(8883);
    /// Address for AMQP without TLS, or "off".
    amqp: Listen = Listen::loopback(5672);
    /// Address for AMQP over TLS, or "off".
    amqps: Listen = Listen::loopback(5671);
    /// Address for HTTP without TLS (also MQTT and AMQP over WebSocket), or "off".
    http: Listen = Listen::loopback(8080);
    /// Address for HTTPS (also MQTT and AMQP over secure WebSocket), or "off".
    https: Listen = Listen::loopback(8443);
    /// Allow listeners without TLS on addresses that other machines can reach. Tokens do not reveal keys, but messages
    /// can be read and tokens reused by anybody on the way.
    allow_plain: bool = false;
    /// Certificate chain for TLS (PEM). Not given: the hub makes its own authority and certificate below `data`.
    tls_certificate: Option<PathBuf> = None;
    /// Private key of `tls-certificate` (PEM).
    tls_key: Option<PathBuf> = None;
    /// Authorities that sign certificates of devices (PEM, one or more).
    device_ca: Option<PathBuf> = None;
    /// Partitions of the event log, 1 to 32. Fixed when the data folder is made.
    partitions: u32 = 4;
    /// How long events are kept, unless `retention-bytes` is reached first.
    retention: Duration = Duration::from_secs(24 * 3600);
    /// Bytes of events on the disk, roughly, above which the oldest go before their time.
    retention_bytes: Size = Size(8 << 30);
    /// Largest message a device may send, properties included.
    max_message: Size = Size(256 * 1024);
    /// Device connections at once.
    connections: u32 = 100_000;
    /// Publications a MQTT 5 client may have unacknowledged.
    receive_maximum: u16 = 16;
    /// The same for clients with a durable outbox, whose resends are stored once.
    receive_maximum_outbox: u16 = 1_000;
    /// Commands that may wait for one device, those it has received and not settled included; 1 to 10000.
    command_depth: u32 = 50;
    /// How long a command is locked for the device that received it; then it is delivered again. 1s to 1h.
    command_lock: Duration = Duration::from_secs(60);
    /// How long a command waits for its device, unless it was sent with a time of its own. 1m to 2d.
    command_time_to_live: Duration = Duration::from_secs(3600);
    /// The longest time a command may be sent with. 1m to 30d.
    command_longest_time_to_live: Duration = Duration::from_secs(48 * 3600);
    /// How often a device may abandon a command before it is dead-lettered; 1 to 100.
    command_max_delivery_count: u32 = 10;
    /// Whether a lock that runs out counts as if the device had abandoned the command.
    command_count_lock_expiry: bool = false;
    /// How long commands that did not get to their end are kept to be looked at and sent again.
    dead_letter_retention: Duration = Duration::from_secs(7 * 24 * 3600);
    /// How long it can be asked what became of a command. Each that was sent with a message id takes some 150 bytes of
    /// the disk for so long.
    outcome_retention: Duration = Duration::from_secs(7 * 24 * 3600);
    /// Feedback records in one message to a reader that waits for full ones; 1 to 1000.
    feedback_batch: u32 = 64;
    /// How long after the message before such a reader gets one that is not full.
    feedback_linger: Duration = Duration::from_secs(15);
    /// How long a feedback message is locked for its reader; 5s to 5m.
    feedback_lock: Duration = Duration::from_secs(60);
    /// How long feedback waits for a reader; 1m to 2d.
    feedback_time_to_live: Duration = Duration::from_secs(3600);
    /// How often feedback may be abandoned before it is dropped; 1 to 100.
    feedback_max_delivery_count: u32 = 10;
    /// How long a connection outlives the token it was opened with.
    token_grace: Duration = Duration::from_secs(600);
    /// HTTP requests one device may make a second, and twice as many at once; more are told to wait. 0 is no limit.
    http_rate_device: u32 = 1_000;
    /// The same for one policy, all programs that use it together.
    http_rate_policy: u32 = 20_000;
    /// Let anybody who reaches the HTTP listeners read `/metrics`. Otherwise it takes a service token.
    open_metrics: bool = false;
    /// How long a stopping hub waits for connections to finish what they began.
    stop_timeout: Duration = Duration::from_secs(10);
}

impl Config {
    /// What the environment variables start with.
    pub const VARIABLE_PREFIX: &'static str = "WHIMBREL_HUB_";

    /// Defaults, but every listener on a free port of the loopback interface.
    pub(crate) fn ephemeral() -> Self {
        let any = Listen::loopback(0);
        Self { mqtt: any, mqtts: any, amqp: any, amqps: any, http: any, https: any, ..Self::default() }
    }

    /// Sets one value from text, as flags and variables do. `_` and `-` in names are the same.
    ///
    /// # Errors
    /// `InvalidArgument` naming the nearest setting when there is none of that name, or what the value should look like.
    pub fn set(&mut self, name: &str, text: &str) -> Result<()> {
        let field = name.replace('-', "_");
        match self.assign(&field, text) {
            Some(Ok(())) => Ok(()),
            Some(Err(problem)) => Err(invalid(format!("{name}: {problem}"))),
            None => Err(invalid(format!(
                "there is no setting \"{name}\"; the nearest is \"{}\"",
                nearest(&field).replace('_', "-")
            ))),
        }
    }

    /// A configuration file with every setting at its default and explained.
    pub fn example() -> String {
        let defaults = Self::default();
        let mut text = String::from(
            "# Settings of a Whimbrel hub; every line shows the default.\n\
             # Flags come first, then environment variables, then this file, then the defaults.\n\
             # Use it with: whimbrel hub --config hub.toml\n",
        );
        for setting in Self::SETTINGS {
            text.push('\n');
            for line in wrap(&setting.help(), 116) {
                text.push_str(&format!("# {line}\n"));
            }
            text.push_str(&format!("# Flag --{}, variable {}.\n", setting.name(), setting.variable()));
            match defaults.literal(setting.field) {
                Some(Ok(literal)) => text.push_str(&format!("{} = {literal}\n", setting.name())),
                Some(Err(example)) => text.push_str(&format!("# {} = {example}\n", setting.name())),
                None => {}
            }
        }
        text
    }

    /// Refuses what is not safe or makes no sense together.
    ///
    /// # Errors
    /// `InvalidArgument` saying which settings, why, and what to do.
    pub fn validate(&self) -> Result<()> {
        for (name, listen) in [("mqtt", self.mqtt), ("amqp", self.amqp), ("http", self.http)] {
            if let Some(address) = listen.address().filter(|a| !is_loopback(a) && !self.allow_plain) {
                return Err(invalid(format!(
                    "{name} = \"{address}\" would offer {name} without TLS to other machines; use {name}s = \
                     \"{address}\" instead, or set allow-plain = true if the network in between is safe"
                )));
            }
        }
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            return Err(invalid(
                "tls-certificate and tls-key belong together; one of them is missing".to_owned(),
            ));
        }
        if !(1..=32).contains(&self.partitions) {
            return Err(invalid(format!("partitions = {} is not in 1 to 32", self.partitions)));
        }
        if !(Size(1)..=MESSAGE_LIMIT).contains(&self.max_message) {
            return Err(invalid(format!(
                "max-message = {} is not in 1B to {MESSAGE_LIMIT}",
                self.max_message
            )));
        }
        if self.receive_maximum == 0 || self.receive_maximum_outbox == 0 {
            return Err(invalid("receive-maximum and receive-maximum-outbox are at least 1".to_owned()));
        }
        self.validate_commands()?;
        if self.host_name.is_empty() || !self.host_name.bytes().all(is_host_byte) {
            return Err(invalid(format!(
                "host-name = \"{}\" is not a host name: letters, digits, '-', '_' and '.' only, no port",
                self.host_name
            )));
        }
        Ok(())
    }
}

impl Config {
    /// The ranges of the contract, where it has some.
    fn validate_commands(&self) -> Result<()> {
        const DAY: u64 = 24 * 3600;
        for (name, value, least, most) in [
            ("command-depth", self.command_depth, 1, 10_000),
            ("command-max-delivery-count", self.command_max_delivery_count, 1, 100),
            ("feedback-batch", self.feedback_batch, 1, 1_000),
            ("feedback-max-delivery-count", self.feedback_max_delivery_count, 1, 100),
        ] {
            if !(least..=most).contains(&value) {
                return Err(invalid(format!("{name} = {value} is not in {least} to {most}")));
            }
        }
        for (name, value, least, most) in [
            ("command-lock", self.command_lock, 1, 3600),
            ("command-longest-time-to-live", self.command_longest_time_to_live, 60, 30 * DAY),
            ("command-time-to-live", self.command_time_to_live, 60, 2 * DAY),
            ("dead-letter-retention", self.dead_letter_retention, 0, 365 * DAY),
            ("outcome-retention", self.outcome_retention, 0, 365 * DAY),
            ("feedback-linger", self.feedback_linger, 0, 3600),
            ("feedback-lock", self.feedback_lock, 5, 300),
            ("feedback-time-to-live", self.feedback_time_to_live, 60, 2 * DAY),
        ] {
            if !(Duration::from_secs(least)..=Duration::from_secs(most)).contains(&value) {
                return Err(invalid(format!(
                    "{name} = {} is not in {} to {}",
                    quantity(value),
                    quantity(Duration::from_secs(least)),
                    quantity(Duration::from_secs(most))
                )));
            }
        }
        if self.command_time_to_live > self.command_longest_time_to_live {
            return Err(invalid(
                "command-time-to-live is longer than command-longest-time-to-live: every command would be refused"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

fn quantity(duration: Duration) -> String {
    duration.literal().unwrap_or_else(str::to_owned)
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The setting whose name looks most like `field`.
fn nearest(field: &str) -> &'static str {
    Config::SETTINGS
        .iter()
        .map(|setting| (strsim::jaro_winkler(setting.field, field), setting.field))
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map_or("data", |(_, known)| known)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "hub.config", message)
}

/// Breaks `text` between words into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_documentation_is_current() {
        let kept = include_str!("../../../docs/hub.toml");
        assert!(kept == Config::example(), "write it anew: cargo xtask gen");
    }

    #[test]
    fn the_example_means_the_defaults() {
        assert_eq!(Config::load(Some(("hub.toml", &Config::example())), [], []).unwrap(), Config::default());
    }

    #[test]
    fn an_example_that_is_commented_out_can_be_read() {
        for setting in Config::SETTINGS {
            if let Some(Err(example)) = Config::default().literal(setting.field) {
                let text = format!("{} = {example}", setting.name());
                Config::load(Some(("hub.toml", &text)), [], []).unwrap();
            }
        }
    }

    #[test]
    fn plain_listeners_stay_on_loopback() {
        for (name, address, fine) in [
            ("mqtt", "127.0.0.1:1883", true),
            ("mqtt", "127.9.9.9:1883", true),
            ("mqtt", "[::1]:1883", true),
            ("mqtt", "[::ffff:127.0.0.1]:1883", true),
            ("mqtt", "off", true),
            ("mqtts", "0.0.0.0:8883", true),
            ("amqp", "127.0.0.1:5672", true),
            ("amqps", "0.0.0.0:5671", true),
            ("amqp", "0.0.0.0:5672", false),
            ("https", "[::]:8443", true),
            ("mqtt", "0.0.0.0:1883", false),
            ("http", "[::]:8080", false),
            ("http", "192.168.1.5:8080", false),
        ] {
            let mut config = Config::default();
            config.set(name, address).unwrap();
            let result = config.validate();
            assert_eq!(result.is_ok(), fine, "{name} {address}");
            if let Err(error) = result {
                assert!(error.message().contains("allow-plain"), "{error}");
                config.set("allow-plain", "true").unwrap();
                config.validate().unwrap();
            }
        }
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        for (name, value, named) in [
            ("tls-key", "key.pem", "tls-certificate"),
            ("partitions", "0", "partitions"),
            ("partitions", "33", "partitions"),
            ("max-message", "17MiB", "max-message"),
            ("receive-maximum", "0", "receive-maximum"),
            ("command-depth", "0", "command-depth"),
            ("command-depth", "10001", "command-depth"),
            ("command-lock", "999ms", "command-lock"),
            ("command-time-to-live", "59s", "command-time-to-live"),
            ("command-time-to-live", "2d1s", "command-time-to-live"),
            ("command-longest-time-to-live", "59m", "longer than command-longest-time-to-live"),
            ("command-max-delivery-count", "101", "command-max-delivery-count"),
            ("feedback-batch", "0", "feedback-batch"),
            ("feedback-lock", "4999ms", "feedback-lock"),
            ("feedback-lock", "301s", "feedback-lock"),
            ("feedback-time-to-live", "59s", "feedback-time-to-live"),
            ("feedback-max-delivery-count", "0", "feedback-max-delivery-count"),
            ("host-name", "localhost:1883", "host-name"),
            ("host-name", "", "host-name"),
        ] {
            let mut config = Config::default();
            config.set(name, value).unwrap();
            let error = config.validate().unwrap_err();
            assert!(error.message().contains(named), "{error}");
        }
    }
}
