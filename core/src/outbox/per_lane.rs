//! One of each lane.

use crate::Lane;

/// A value for each lane.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PerLane<T> {
    pub(super) alert: T,
    pub(super) telemetry: T,
}

impl<T> PerLane<T> {
    pub(super) fn get(&self, lane: Lane) -> &T {
        match lane {
            Lane::Alert => &self.alert,
            Lane::Telemetry => &self.telemetry,
        }
    }

    pub(super) fn get_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Alert => &mut self.alert,
            Lane::Telemetry => &mut self.telemetry,
        }
    }

    /// Both, the more urgent first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.alert, &self.telemetry].into_iter()
    }

    /// Both, the more urgent first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [&mut self.alert, &mut self.telemetry].into_iter()
    }
}
