//! Which device is connected where, takeover, wake-ups.
