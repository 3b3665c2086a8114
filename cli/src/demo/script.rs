//! What happens in the demo, and when: fractions of the running time, so that a short demo shows the same as a long one.

use std::time::Duration;

/// Something that is done to the devices, the network or the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Cuts the network between all devices and the hub.
    CutNetwork,
    /// Sends commands to the first device.
    SendCommands,
    /// Lets it through again, but little at a time.
    ThinNetwork,
    /// Lets everything through.
    FullNetwork,
    /// SIGKILL to the process of this device.
    KillDevice(usize),
    /// Starts it again, on the same outbox.
    StartDevice(usize),
    /// SIGKILL to the hub.
    KillHub,
    /// Starts it again, on the same data.
    StartHub,
}

/// How long a command lives that is to expire before its device is back, as a part of the running time.
pub(super) const MOMENT: f64 = 0.06;

/// The acts of a demo that runs for `length`, in order.
pub(super) fn acts(length: Duration, devices: usize) -> Vec<(Duration, Act)> {
    let victim = 1.min(devices.saturating_sub(1));
    [
        (0.18, Act::CutNetwork),
        (0.22, Act::SendCommands),
        (0.36, Act::ThinNetwork),
        (0.52, Act::FullNetwork),
        (0.58, Act::KillDevice(victim)),
        (0.64, Act::StartDevice(victim)),
        (0.75, Act::KillHub),
        (0.82, Act::StartHub),
    ]
    .map(|(part, act)| (length.mul_f64(part), act))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_broken_is_mended_before_the_end() {
        for devices in [1, 4] {
            let length = Duration::from_secs(20);
            let acts = acts(length, devices);
            assert!(
                acts.windows(2).all(|pair| pair[0].0 < pair[1].0) && acts.iter().all(|(at, _)| *at < length)
            );
            let place = |wanted: &dyn Fn(Act) -> bool| acts.iter().position(|(_, act)| wanted(*act)).unwrap();
            let victim = |act| matches!(act, Act::KillDevice(index) if index < devices);
            assert!(place(&|act| act == Act::CutNetwork) < place(&|act| act == Act::ThinNetwork));
            let at = |wanted| acts.iter().find(|(_, act)| *act == wanted).unwrap().0;
            let sent = at(Act::SendCommands);
            assert!(at(Act::CutNetwork) < sent && sent + length.mul_f64(MOMENT) < at(Act::ThinNetwork));
            assert!(place(&|act| act == Act::ThinNetwork) < place(&|act| act == Act::FullNetwork));
            assert!(place(&victim) < place(&|act| matches!(act, Act::StartDevice(_))));
            assert!(place(&|act| act == Act::KillHub) < place(&|act| act == Act::StartHub));
        }
    }
}
