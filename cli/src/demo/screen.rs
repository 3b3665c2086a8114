//! Draws the picture: as a table that renews itself where there is a terminal, as plain lines where there is none.

use std::{
    io::{self, IsTerminal, Stderr},
    time::{Duration, Instant},
};

use ratatui::{
    Frame, Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    layout::{Constraint, Layout},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{
    ledger::Report,
    picture::{self, Picture},
};

/// Where the picture goes. Standard output stays free for the result.
pub(super) enum Screen {
    Table(Terminal<CrosstermBackend<Stderr>>),
    Lines { last: Option<Instant>, now: String },
}

impl Screen {
    /// A table if there is a terminal that can show one for `devices` devices.
    pub(super) fn open(devices: usize) -> Self {
        let lines = Self::Lines { last: None, now: String::new() };
        if !io::stderr().is_terminal() {
            return lines;
        }
        let height = u16::try_from(devices).unwrap_or(u16::MAX).saturating_add(4);
        let options = TerminalOptions { viewport: Viewport::Inline(height) };
        // A terminal that does not tell where its cursor is cannot be drawn on.
        Terminal::with_options(CrosstermBackend::new(io::stderr()), options).map_or(lines, Self::Table)
    }

    /// Shows the picture; as plain lines once a second, and at once when something else is happening.
    pub(super) fn show(&mut self, picture: &Picture) {
        match self {
            Self::Table(terminal) => {
                // Nothing depends on being seen: a terminal that went away changes nothing.
                let _ = terminal.draw(|frame| draw(frame, picture));
            }
            Self::Lines { last, now } => {
                if *now != picture.now || last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
                    (*last, *now) = (Some(Instant::now()), picture.now.clone());
                    eprintln!("{}", picture.line());
                }
            }
        }
    }

    /// Leaves the last picture where it is; what is printed next goes below it.
    pub(super) fn close(self) {
        if let Self::Table(mut terminal) = self {
            let _ = terminal.show_cursor();
            eprintln!();
        }
    }
}

fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    let [top, now, table] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(1)])
            .areas(frame.area());
    let good = picture.network == "up" && picture.hub_up;
    let headline = Span::raw(picture.headline());
    frame.render_widget(Paragraph::new(Line::from(if good { headline } else { headline.red() })), top);
    frame.render_widget(Paragraph::new(picture.now.as_str().bold()), now);

    let header = ["device", "link", "life", "queued", "", "sent", "delivered", "read", "", "alerts"];
    let widths = [10, 13, 4, 7, 28, 8, 9, 8, 28, 7].map(Constraint::Length);
    let rows = picture.rows.iter().map(row);
    frame.render_widget(Table::new(rows, widths).header(Row::new(header).style(Style::new().bold())), table);
}

fn row(row: &picture::Row) -> Row<'static> {
    let color = match row.link() {
        "connected" => Color::Green,
        "KILLED" => Color::Red,
        _ => Color::Yellow,
    };
    Row::new([
        Cell::from(row.device.clone()),
        Cell::from(row.link().to_owned()).style(color),
        Cell::from(row.life.to_string()),
        Cell::from(row.standing.queued.to_string()),
        Cell::from(row.queued_line()).style(Color::Yellow),
        Cell::from(row.standing.sent.to_string()),
        Cell::from(row.standing.delivered.to_string()),
        Cell::from(row.read.to_string()),
        Cell::from(row.arrived_line()).style(Color::Green),
        Cell::from(row.read_alerts.to_string()),
    ])
}

/// The account as people read it.
pub(super) fn account(report: &Report) -> String {
    let mut text = format!(
        "{:10} {:>9} = {:>9} + {:>7} + {:>7} + {:>8} + {:>6}   {:>5} {:>10} {:>12}\n",
        "account",
        "accepted",
        "delivered",
        "expired",
        "dropped",
        "rejected",
        "queued",
        "lost",
        "duplicates",
        "out of order"
    );
    for line in report.devices.iter().chain([&report.total]) {
        text += &format!(
            "{:10} {:>9} = {:>9} + {:>7} + {:>7} + {:>8} + {:>6}   {:>5} {:>10} {:>12}{}\n",
            line.device,
            line.accepted,
            line.delivered,
            line.expired,
            line.dropped,
            line.rejected,
            line.queued,
            line.lost,
            line.duplicates,
            line.out_of_order,
            if line.balanced() { "" } else { "   <- does not balance" },
        );
    }
    match &report.alerts_first {
        Some(first) => {
            text += &format!(
                "\nWhen the network came back, {} alerts that had waited were in after {} ms (median), {} measurements \
                 after {} ms;\nalerts overtook measurements accepted before them {} times.\n",
                first.alerts,
                first.alerts_median_ms,
                first.telemetry,
                first.telemetry_median_ms,
                first.overtaken
            );
        }
        None => text += "\nNo alert happened to wait while the network was cut.\n",
    }
    if report.total.unconfirmed > 0 {
        text += &format!(
            "{} messages were on disk before their process was killed, though it had no time to say so; they were \
             delivered too.\n",
            report.total.unconfirmed
        );
    }
    text += if report.balanced {
        "\nNothing was lost, nothing came twice, every message is accounted for.\n"
    } else {
        "\nTHE ACCOUNT DOES NOT BALANCE.\n"
    };
    text
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::{super::protocol::Standing, *};

    #[test]
    fn the_table_shows_each_device_and_what_is_happening() {
        let mut picture =
            Picture::new(Duration::from_secs(20), ["sensor-1".to_owned(), "sensor-2".to_owned()]);
        picture.now = "the network is cut".into();
        picture.network = "CUT";
        picture.rows[0].alive = true;
        picture.rows[0].standing = Standing { link: "connected".into(), queued: 12, ..Standing::default() };
        picture.tick(Duration::from_secs(5));

        let mut terminal = Terminal::new(TestBackend::new(140, 6)).unwrap();
        terminal.draw(|frame| draw(frame, &picture)).unwrap();
        let shown = terminal.backend().to_string();
        for wanted in
            ["network CUT", "the network is cut", "sensor-1", "connected", "12", "█", "sensor-2", "KILLED"]
        {
            assert!(shown.contains(wanted), "{wanted} is missing in:\n{shown}");
        }
    }
}
