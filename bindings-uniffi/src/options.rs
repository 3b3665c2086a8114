//! Options and words.

use whimbrel_bindings_support::DeviceSettings;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
        pub enum $name { $($(#[$what])* $variant,)* }

        impl $name {
            /// The word of the core.
            pub(crate) const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$variant),*];
        }
    };
}

words! {
    /// The queue of the outbox a message waits in. Alerts overtake all waiting telemetry; order is kept within a lane.
    Lane {
        /// The usual one.
        Telemetry = "telemetry",
        /// What cannot wait.
        Alert = "alert",
    }
}

words! {
    /// What `send` waits for.
    Durability {
        /// The message is on the disk.
        OnDisk = "on-disk",
        /// It will be written within the interval.
        Interval = "interval",
        /// Nothing.
        Memory = "memory",
    }
}

words! {
    /// What a full outbox does.
    Overflow {
        /// Refuses the new message.
        Reject = "reject",
        /// Drops the oldest ones.
        DropOldest = "drop-oldest",
        /// Drops the new one.
        DropNewest = "drop-newest",
    }
}

words! {
    /// How to speak to the hub.
    Protocol {
        /// MQTT 5, and MQTT 3.1.1 with a hub that does not speak it.
        Auto = "auto",
        /// MQTT 3.1.1.
        Mqtt3 = "mqtt3",
        /// MQTT 5.
        Mqtt5 = "mqtt5",
        /// AMQP 1.0.
        Amqp = "amqp",
        /// HTTPS.
        Http = "http",
    }
}

/// Options of `Device::open`; see `whimbrel::DeviceOptions`. What is not given has its default in the core.
#[derive(Clone, Debug, Default, uniffi::Record)]
#[allow(missing_docs, reason = "they are those of DeviceOptions")]
pub struct DeviceOptions {
    #[uniffi(default)]
    pub outbox: Option<String>,
    #[uniffi(default = false)]
    pub outbox_in_memory: bool,
    #[uniffi(default)]
    pub overflow: Option<Overflow>,
    #[uniffi(default)]
    pub durability: Option<Durability>,
    #[uniffi(default)]
    pub outbox_max_bytes: Option<u64>,
    #[uniffi(default)]
    pub outbox_max_messages: Option<u64>,
    #[uniffi(default)]
    pub outbox_max_age_ms: Option<u64>,
    #[uniffi(default)]
    pub sync_interval_ms: Option<u64>,
    #[uniffi(default)]
    pub kept_outcomes: Option<u64>,
    #[uniffi(default)]
    pub server: Option<String>,
    #[uniffi(default = false)]
    pub websocket: bool,
    #[uniffi(default)]
    pub proxy: Option<String>,
    #[uniffi(default)]
    pub ca_file: Option<String>,
    #[uniffi(default)]
    pub ca_pem: Option<String>,
    #[uniffi(default)]
    pub client_certificate: Option<String>,
    #[uniffi(default)]
    pub client_key: Option<String>,
    #[uniffi(default)]
    pub client_certificate_pem: Option<String>,
    #[uniffi(default)]
    pub client_key_pem: Option<String>,
    #[uniffi(default = false)]
    pub allow_unencrypted: bool,
    #[uniffi(default)]
    pub protocol: Option<Protocol>,
    #[uniffi(default)]
    pub keep_alive_ms: Option<u64>,
    #[uniffi(default)]
    pub connect_timeout_ms: Option<u64>,
    #[uniffi(default)]
    pub poll_interval_ms: Option<u64>,
    #[uniffi(default)]
    pub window: Option<u16>,
    #[uniffi(default)]
    pub inbox_window: Option<u16>,
    #[uniffi(default)]
    pub backoff_min_ms: Option<u64>,
    #[uniffi(default)]
    pub backoff_max_ms: Option<u64>,
    #[uniffi(default)]
    pub close_deadline_ms: Option<u64>,
    #[uniffi(default)]
    pub token_lifetime_ms: Option<u64>,
}

impl From<DeviceOptions> for DeviceSettings {
    fn from(options: DeviceOptions) -> Self {
        // Field by field, so that one that is missing does not compile.
        Self {
            outbox: options.outbox.map(Into::into),
            outbox_in_memory: options.outbox_in_memory,
            overflow: options.overflow.map(|overflow| overflow.word().to_owned()),
            durability: options.durability.map(|durability| durability.word().to_owned()),
            outbox_max_bytes: options.outbox_max_bytes,
            outbox_max_messages: options.outbox_max_messages,
            outbox_max_age_ms: options.outbox_max_age_ms,
            sync_interval_ms: options.sync_interval_ms,
            kept_outcomes: options.kept_outcomes,
            server: options.server,
            websocket: options.websocket,
            proxy: options.proxy,
            ca_file: options.ca_file.map(Into::into),
            ca_pem: options.ca_pem,
            client_certificate: options.client_certificate.map(Into::into),
            client_key: options.client_key.map(Into::into),
            client_certificate_pem: options.client_certificate_pem,
            client_key_pem: options.client_key_pem,
            allow_unencrypted: options.allow_unencrypted,
            protocol: options.protocol.map(|protocol| protocol.word().to_owned()),
            keep_alive_ms: options.keep_alive_ms,
            connect_timeout_ms: options.connect_timeout_ms,
            poll_interval_ms: options.poll_interval_ms,
            window: options.window,
            inbox_window: options.inbox_window,
            backoff_min_ms: options.backoff_min_ms,
            backoff_max_ms: options.backoff_max_ms,
            close_deadline_ms: options.close_deadline_ms,
            token_lifetime_ms: options.token_lifetime_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Draft;

    const DEVICE: &str = "HostName=hub;DeviceId=d;SharedAccessKey=c2VjcmV0";

    #[test]
    fn the_core_knows_every_word() {
        let open = |options: DeviceOptions| {
            let settings = DeviceSettings::from(DeviceOptions { outbox_in_memory: true, ..options });
            settings.options(DEVICE).unwrap();
        };
        for overflow in Overflow::ALL {
            open(DeviceOptions { overflow: Some(*overflow), ..DeviceOptions::default() });
        }
        for protocol in Protocol::ALL {
            open(DeviceOptions { protocol: Some(*protocol), ..DeviceOptions::default() });
        }
        for durability in Durability::ALL {
            open(DeviceOptions { durability: Some(*durability), ..DeviceOptions::default() });
        }
        for lane in Lane::ALL {
            let draft = Draft { lane: Some(*lane), ..Draft::default() };
            let message = draft.message("device.send", Vec::new()).unwrap();
            assert_eq!(message.lane().name(), lane.word());
        }
    }
}
