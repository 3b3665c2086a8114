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
        let height = u16::try_from(devices).unwrap_or(u16::MAX).saturating_add(5);
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
    let line = Constraint::Length(1);
    let [top, now, table, commands] =
        Layout::vertical([line, line, Constraint::Min(1), line]).areas(frame.area());
    let good = picture.network == "up" && picture.hub_up;
    let headline = Span::raw(picture.headline());
    frame.render_widget(Paragraph::new(Line::from(if good { headline } else { headline.red() })), top);
    frame.render_widget(Paragraph::new(picture.now.as_str().bold()), now);

    let wide = table.width >= COLUMNS.iter().map(|column| column.width + 1).sum::<u16>();
    let columns = || COLUMNS.iter().filter(|column| wide || !column.wide_only);
    let header = columns().map(|column| column.name).collect::<Row<'_>>().style(Style::new().bold());
    let rows = picture.rows.iter().map(|row| columns().map(|column| (column.cell)(row)).collect::<Row<'_>>());
    let widths = columns().map(|column| Constraint::Length(column.width));
    frame.render_widget(Table::new(rows, widths).header(header), table);
    if !picture.commands.is_empty() {
        frame.render_widget(Paragraph::new(format!("commands   {}", picture.commands)), commands);
    }
}

/// A column of the table.
struct Column {
    name: &'static str,
    width: u16,
    /// Left out where there is little room.
    wide_only: bool,
    cell: fn(&picture::Row) -> Cell<'static>,
}

const COLUMNS: [Column; 10] = [
    Column { name: "device", width: 10, wide_only: false, cell: |row| row.device.clone().into() },
    Column { name: "link", width: 10, wide_only: false, cell: link },
    Column { name: "life", width: 4, wide_only: true, cell: |row| row.life.to_string().into() },
    Column { name: "queued", width: 7, wide_only: false, cell: |row| row.standing.queued.to_string().into() },
    Column {
        name: "",
        width: 28,
        wide_only: false,
        cell: |row| Cell::from(row.queued_line()).style(Color::Yellow),
    },
    Column { name: "sent", width: 8, wide_only: true, cell: |row| row.standing.sent.to_string().into() },
    Column {
        name: "delivered",
        width: 9,
        wide_only: true,
        cell: |row| row.standing.delivered.to_string().into(),
    },
    Column { name: "read", width: 8, wide_only: false, cell: |row| row.read.to_string().into() },
    Column {
        name: "",
        width: 28,
        wide_only: true,
        cell: |row| Cell::from(row.arrived_line()).style(Color::Green),
    },
    Column { name: "alerts", width: 7, wide_only: false, cell: |row| row.read_alerts.to_string().into() },
];

fn link(row: &picture::Row) -> Cell<'static> {
    let color = match row.link() {
        "connected" => Color::Green,
        "KILLED" => Color::Red,
        _ => Color::Yellow,
    };
    Cell::from(row.link().to_owned()).style(color)
}

/// The account as people read it.
pub(super) fn account(report: &Report) -> String {
    let mut text = format!(
        "{:9} {:>8} = {:>9} + {:>7} + {:>7} + {:>8} + {:>6}\n",
        "", "accepted", "delivered", "expired", "dropped", "rejected", "queued"
    );
    for line in report.devices.iter().chain([&report.total]) {
        text += &format!(
            "{:9} {:>8} = {:>9} + {:>7} + {:>7} + {:>8} + {:>6}{}\n",
            line.device,
            line.accepted,
            line.delivered,
            line.expired,
            line.dropped,
            line.rejected,
            line.queued,
            if line.balanced() { "" } else { "  <- wrong" },
        );
    }
    let total = &report.total;
    text += &format!(
        "\nThe back end read {} messages: lost {}, duplicates {}, out of order {}.\n",
        total.read, total.lost, total.duplicates, total.out_of_order
    );
    if total.unconfirmed > 0 {
        text += &format!(
            "{} of them were on disk when their process was killed, before it could say so.\n",
            total.unconfirmed
        );
    }
    text += &match &report.alerts_first {
        Some(first) => format!(
            "When the network was back, {} of {} alerts came before all {} measurements that had waited\n\
             (median {} ms after the first message that got through; measurements {} ms).\n",
            first.ahead, first.alerts, first.telemetry, first.alerts_median_ms, first.telemetry_median_ms
        ),
        None => "No alert happened to wait while the network was cut.\n".to_owned(),
    };
    for line in &report.commands {
        text += &format!(
            "Command {} to {}, sent while it was cut off: {}{}{}.\n",
            line.body,
            line.device,
            line.outcome.as_deref().unwrap_or("no end is known"),
            line.after_ms.map_or_else(String::new, |ms| format!(" after {ms} ms")),
            if line.is_right() { "" } else { "  <- wrong" },
        );
    }
    text += if report.balanced {
        "\nEvery message is accounted for: none lost, none twice, none out of order.\n"
    } else {
        "\nTHE ACCOUNT DOES NOT BALANCE.\n"
    };
    text
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::{
        super::{picture::Process, protocol::Standing},
        *,
    };

    #[test]
    fn the_table_shows_each_device_and_what_is_happening() {
        let mut picture =
            Picture::new(Duration::from_secs(20), ["sensor-1".to_owned(), "sensor-2".to_owned()]);
        picture.now = "the network is cut".into();
        picture.network = "CUT";
        picture.commands = "calibrate waiting".into();
        picture.rows[1].process = Process::Killed;
        picture.rows[0].standing = Standing { link: "connected".into(), queued: 12, ..Standing::default() };
        picture.tick(Duration::from_secs(5));

        let mut terminal = Terminal::new(TestBackend::new(140, 7)).unwrap();
        terminal.draw(|frame| draw(frame, &picture)).unwrap();
        let shown = terminal.backend().to_string();
        for wanted in [
            "network CUT",
            "the network is cut",
            "sensor-1",
            "connected",
            "12",
            "█",
            "sensor-2",
            "KILLED",
            "calibrate waiting",
        ] {
            assert!(shown.contains(wanted), "{wanted} is missing in:\n{shown}");
        }
    }
}
