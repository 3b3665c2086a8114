//! This machine, measured, and the alerts that come of it.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use sysinfo::{Disks, Networks, System};

/// One value, as it travels in the body of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Measurement {
    /// What was measured, such as `cpu`.
    pub(super) measure: String,
    /// How much.
    pub(super) value: f64,
    /// Of what.
    pub(super) unit: String,
    /// In alerts: the threshold that was crossed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) above: Option<f64>,
}

/// Reads the machine's own figures.
pub(super) struct Meter {
    system: System,
    disks: Disks,
    networks: Networks,
    last: Instant,
    watches: Vec<Watch>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            system: System::new(),
            disks: Disks::new_with_refreshed_list(),
            networks: Networks::new_with_refreshed_list(),
            last: Instant::now(),
            watches: Vec::new(),
        }
    }

    /// All figures as they are now: those that are rates, since the last call. Then the alerts they give rise to.
    pub(super) fn read(&mut self) -> (Vec<Measurement>, Vec<Measurement>) {
        let seconds = self.last.elapsed().as_secs_f64().max(0.001);
        self.last = Instant::now();
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.disks.refresh(false);
        self.networks.refresh(false);

        let total_memory = self.system.total_memory().max(1) as f64;
        let used_memory = total_memory - self.system.available_memory() as f64;
        let disk =
            self.disks.iter().map(|disk| disk.usage()).map(|usage| usage.read_bytes + usage.written_bytes);
        let network = self.networks.values().map(|network| network.received() + network.transmitted());
        let values = [
            ("cpu", f64::from(self.system.global_cpu_usage()), "%"),
            ("memory", 100.0 * used_memory / total_memory, "%"),
            ("load", System::load_average().one, "processes"),
            ("disk", disk.max().unwrap_or(0) as f64 / 1024.0 / seconds, "KiB/s"),
            ("network", network.sum::<u64>() as f64 / 1024.0 / seconds, "KiB/s"),
        ];
        self.watches.resize_with(values.len(), Watch::default);
        let alerts = values.iter().zip(&mut self.watches).filter_map(|((name, value, unit), watch)| {
            watch.look(*value).map(|threshold| measurement(name, *value, unit, Some(threshold)))
        });
        let alerts = alerts.collect();
        (values.map(|(name, value, unit)| measurement(name, value, unit, None)).into(), alerts)
    }
}

fn measurement(name: &str, value: f64, unit: &str, above: Option<f64>) -> Measurement {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    Measurement { measure: name.into(), value: rounded(value), unit: unit.into(), above: above.map(rounded) }
}

/// Notices when a value rises over what has been usual, once for each rise. What is usual is learned, so that an idle
/// machine and a busy one both have something to say.
#[derive(Debug, Default)]
struct Watch {
    usual: Option<f64>,
    above: bool,
}

impl Watch {
    /// How far over the usual a value has to be.
    const MARGIN: f64 = 1.25;
    /// How fast a new level becomes the usual one.
    const LEARNING: f64 = 0.1;

    /// The threshold, when `value` has just crossed it upwards.
    fn look(&mut self, value: f64) -> Option<f64> {
        let usual = *self.usual.get_or_insert(value);
        self.usual = Some(usual + Self::LEARNING * (value - usual));
        let threshold = usual * Self::MARGIN;
        let crossed = !self.above && value > threshold;
        // Back to the usual level, not just below the threshold, before it may alert again.
        self.above = value > if self.above { usual } else { threshold };
        crossed.then_some(threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_alerts_once_for_each_rise() {
        let mut watch = Watch::default();
        assert!((0..50).all(|_| watch.look(10.0).is_none()), "the usual is no alert");
        let threshold = watch.look(40.0).unwrap();
        assert!((12.0..13.0).contains(&threshold), "{threshold}");
        assert_eq!(watch.look(41.0), None, "still the same rise");
        assert_eq!(watch.look(9.0), None);
        assert!(watch.look(40.0).is_some(), "a new rise");
    }

    #[test]
    fn a_new_level_becomes_the_usual_one() {
        let mut watch = Watch::default();
        watch.look(1.0);
        assert!(watch.look(100.0).is_some());
        assert!((0..200).all(|_| watch.look(100.0).is_none()));
        watch.look(99.0);
        assert!(watch.look(110.0).is_none(), "within the margin of the new level");
    }

    #[test]
    fn the_meter_measures_this_machine() {
        let mut meter = Meter::new();
        let (values, _) = meter.read();
        let names: Vec<&str> = values.iter().map(|value| value.measure.as_str()).collect();
        assert_eq!(names, ["cpu", "memory", "load", "disk", "network"]);
        assert!(values.iter().all(|value| value.value.is_finite() && value.value >= 0.0), "{values:?}");
        assert!(values[1].value > 0.0, "no machine uses no memory");
    }
}
