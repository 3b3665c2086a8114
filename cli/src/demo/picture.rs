//! What is shown while the demo runs: a state to draw, kept apart from the drawing.

use std::{collections::VecDeque, time::Duration};

use super::protocol::Standing;

/// How many moments the sparklines look back.
const HISTORY: usize = 28;

/// Everything there is to see at one moment.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) elapsed: Duration,
    pub(super) length: Duration,
    /// What is happening now, in one line.
    pub(super) now: String,
    /// `up`, or what it is instead.
    pub(super) network: &'static str,
    pub(super) hub_up: bool,
    /// The commands and how they ended, in one line.
    pub(super) commands: String,
    pub(super) rows: Vec<Row>,
}

/// One device.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) device: String,
    pub(super) process: Process,
    /// How often its process was started.
    pub(super) life: u32,
    pub(super) standing: Standing,
    /// Read back from the hub: all messages, and alerts alone.
    pub(super) read: u64,
    pub(super) read_alerts: u64,
    queued: VecDeque<u64>,
    arrived: VecDeque<u64>,
    read_before: u64,
}

/// The process of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Process {
    #[default]
    Running,
    /// Gone, and not because it was asked to.
    Killed,
    /// It has closed its outbox.
    Ended,
}

impl Picture {
    pub(super) fn new(length: Duration, devices: impl IntoIterator<Item = String>) -> Self {
        let rows = devices.into_iter().map(|device| Row { device, ..Row::default() }).collect();
        let (now, commands) = (String::new(), String::new());
        Self { elapsed: Duration::ZERO, length, now, network: "up", hub_up: true, commands, rows }
    }

    /// A moment has passed: takes the figures as they are into the history.
    pub(super) fn tick(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
        for row in &mut self.rows {
            remember(&mut row.queued, row.standing.queued);
            remember(&mut row.arrived, row.read.saturating_sub(row.read_before));
            row.read_before = row.read;
        }
    }

    /// What the top line says.
    pub(super) fn headline(&self) -> String {
        format!(
            "{:4.1} s of {} s   network {}   hub {}",
            self.elapsed.as_secs_f64(),
            self.length.as_secs(),
            self.network,
            if self.hub_up { "up" } else { "KILLED" },
        )
    }

    /// The whole picture in one line, for those without a terminal.
    pub(super) fn line(&self) -> String {
        let sum = |figure: &dyn Fn(&Row) -> u64| self.rows.iter().map(figure).sum::<u64>();
        format!(
            "{}   accepted {}  delivered {}  queued {}  read {} (alerts {})   {}",
            self.headline(),
            sum(&|row| row.standing.accepted),
            sum(&|row| row.standing.delivered),
            sum(&|row| row.standing.queued),
            sum(&|row| row.read),
            sum(&|row| row.read_alerts),
            self.now,
        )
    }
}

impl Row {
    /// The link, or why there is none.
    pub(super) fn link(&self) -> &str {
        match self.process {
            Process::Running if self.standing.link.is_empty() => "starting",
            Process::Running => &self.standing.link,
            Process::Killed => "KILLED",
            Process::Ended => "ended",
        }
    }

    /// What waited in the outbox, over time.
    pub(super) fn queued_line(&self) -> String {
        sparkline(&self.queued)
    }

    /// What the reader got, over time.
    pub(super) fn arrived_line(&self) -> String {
        sparkline(&self.arrived)
    }
}

fn remember(history: &mut VecDeque<u64>, value: u64) {
    history.push_back(value);
    if history.len() > HISTORY {
        history.pop_front();
    }
}

/// Bars as high as the values, the highest one full.
fn sparkline(values: &VecDeque<u64>) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().max().unwrap_or(0).max(1);
    let bar = |value: u64| BARS.get((value * 8).div_ceil(highest) as usize).copied().unwrap_or('█');
    values.iter().map(|value| bar(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_zero_as_nothing_and_anything_as_something() {
        assert_eq!(sparkline(&VecDeque::from([0, 1, 500, 1000])), " ▁▄█");
        assert_eq!(sparkline(&VecDeque::from([0, 0])), "  ");
        assert_eq!(sparkline(&VecDeque::new()), "");
    }

    #[test]
    fn history_is_bounded_and_counts_arrivals_per_moment() {
        let mut picture = Picture::new(Duration::from_secs(1), ["d".to_owned()]);
        for moment in 0..100 {
            picture.rows[0].read = moment * 2;
            picture.tick(Duration::from_millis(moment));
        }
        assert_eq!(picture.rows[0].arrived.len(), HISTORY);
        assert!(picture.rows[0].arrived.iter().all(|arrived| *arrived == 2));
    }

    #[test]
    fn a_line_says_what_is_broken() {
        let mut picture = Picture::new(Duration::from_secs(20), ["d".to_owned()]);
        picture.network = "CUT";
        picture.now = "the network is cut".into();
        picture.rows[0].standing = Standing { accepted: 7, queued: 7, ..Standing::default() };
        assert_eq!(
            picture.line(),
            " 0.0 s of 20 s   network CUT   hub up   accepted 7  delivered 0  queued 7  read 0 (alerts 0)   \
             the network is cut"
        );
        assert_eq!(picture.rows[0].link(), "starting");
        picture.rows[0].process = Process::Killed;
        assert_eq!(picture.rows[0].link(), "KILLED");
    }
}
