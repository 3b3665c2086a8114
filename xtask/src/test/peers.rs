//! Part `peers`: programs that know nothing of Whimbrel talk to its hub.

use std::{io, path::Path, process::Command, time::Duration};

use super::{Ground, LIMIT};
use crate::{needs, shell, tally::Tally, workspace};

/// Runs `tests/peers/run.py`, which starts hubs of its own and prints one line per test: `ok NAME`, `not ok NAME: why` or
/// `skip NAME: why`.
pub(super) fn run(ground: &Ground, _: &str) -> io::Result<Tally> {
    let folder = workspace::root().join("tests").join("peers");
    let python = match needs::python("peers", &folder.join("requirements.txt")) {
        Ok(python) => python,
        Err(why) => return Ok(Tally::skip(why)),
    };
    let mosquitto = needs::program("mosquitto_pub", "mosquitto-clients");
    let node = needs::node("peers", &folder.join("node"));
    let mut command = peers(&python, &folder, &ground.built.whimbrel);
    if let Ok((program, packages)) = &node {
        command.arg("--node").arg(program).arg("--node-packages").arg(packages);
    }
    if let Ok(program) = &mosquitto {
        command.arg("--mosquitto-pub").arg(program);
    }
    let finished = shell::watch(&mut command, LIMIT.min(Duration::from_secs(600)), |line| {
        // A comparison that failed can be very long; the rest of it helps nobody.
        line.iter().for_each(|line| println!("    {line:.400}"));
    })?;
    let mut tally = counted(&finished.lines);
    if let Err(why) = mosquitto {
        tally.skipped.push(format!("mosquitto_pub: {why}"));
    }
    if let Err(why) = node {
        tally.skipped.push(format!("clients for Node: {why}"));
    }
    if tally.failed == 0 && (!finished.success() || tally.passed == 0) {
        println!("    {}", finished.ending());
        tally.failed = 1;
    }
    Ok(tally)
}

fn peers(python: &Path, folder: &Path, whimbrel: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(folder.join("run.py")).arg("--whimbrel").arg(whimbrel).env("PYTHONUNBUFFERED", "1");
    command
}

fn counted(lines: &[String]) -> Tally {
    let mut tally = Tally::default();
    for line in lines {
        if line.starts_with("ok ") {
            tally.passed += 1;
        } else if line.starts_with("not ok ") {
            tally.failed += 1;
        } else if let Some(reason) = line.strip_prefix("skip ") {
            tally.skipped.push(reason.to_owned());
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_peer_is_counted_once() {
        let lines =
            ["starting", "ok paho", "not ok azure: refused", "skip mosquitto: not there"].map(str::to_owned);
        let tally = counted(&lines);
        assert_eq!(
            (tally.passed, tally.failed, tally.skipped),
            (1, 1, vec!["mosquitto: not there".to_owned()])
        );
    }
}
