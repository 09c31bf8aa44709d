//! The picture: a summary above, peers, one peer or the help below, and the keys at the bottom.

use comfy_table::CellAlignment;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState, Wrap};

use super::board::Board;
use super::figures::Figures;
use super::view::{Shown, View};
use crate::page::Tone;
use crate::peers::PeerRate;
use crate::table::{Column, Row as _};
use crate::units;

/// The most reasons of drops, and of conditions that are not met, that are shown at once.
const FEW: usize = 5;

const KEYS: &str = " q quit  ? help  s sort  r reverse  / filter  ↑↓ choose  Enter open";

const HELP: &str = "
 q, Ctrl-C       quit
 s               sort by the next column; at first by sent and received together
 r               turn the order round
 /               show only peers whose subnet, address, VTEP or path contains what is typed: Enter ends, Esc clears it
 ↑ ↓ k j         choose a peer; PgUp, PgDn by a page, Home, End the first or last
 Enter           everything about the chosen peer
 Esc             back, or all peers again
 ? h             this

 Rates are of the last interval. `bypass` is the share of packets between pods and peers that skip the host's stack.
 A peer with a direct path is counted only where its packets bypass the stack. Drops have no peer: `flannelctl trace
 --verdict drop` shows the packets.";

/// Draws what there is to show.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View, board: &Board, has_colours: bool) {
    let paint = Paint { has_colours };
    let (summary, drops) = (summary(board, paint), drops(&board.figures, paint));
    let heights = [summary.len(), drops.len()].map(|lines| u16::try_from(lines).unwrap_or(u16::MAX));
    let [above, middle, below, bottom] = Layout::vertical([
        Constraint::Length(heights[0]),
        Constraint::Length(heights[1]),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(summary), above);
    frame.render_widget(Paragraph::new(drops), middle);
    match &view.shown {
        Shown::Peers => draw_peers(frame, below, view, board),
        Shown::Peer(who) => {
            let title = paint.line(Style::new().add_modifier(Modifier::BOLD), &format!("peer {who}"));
            let mut text = Text::from(title);
            text.extend(Text::raw(board.peer.as_deref().unwrap_or("…")));
            frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), below);
        }
        Shown::Help => frame.render_widget(Paragraph::new(HELP.trim_start_matches('\n')), below),
    }
    frame.render_widget(foot(view), bottom);
}

/// Colours, where they are wanted.
#[derive(Clone, Copy)]
struct Paint {
    has_colours: bool,
}

impl Paint {
    fn tone(self, tone: Tone) -> Style {
        let colour = match tone {
            Tone::Good => Color::Green,
            Tone::Warning => Color::Yellow,
            Tone::Bad => Color::Red,
            Tone::Aside => Color::DarkGray,
        };
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn line(self, style: Style, text: &str) -> Line<'static> {
        Line::styled(text.to_owned(), style)
    }
}

/// This host, the daemon and what is not as it should be, and what all peers together send and receive.
fn summary(board: &Board, paint: Paint) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(status) = &board.status {
        lines.push(Line::styled(status.headline(), Style::new().add_modifier(Modifier::BOLD)));
        let (tone, text) = status.daemon_line();
        lines.push(paint.line(paint.tone(tone), &format!("flanneld {text}")));
        let troubles = status.troubles();
        lines.extend(troubles.iter().take(FEW).map(|(tone, text)| paint.line(paint.tone(*tone), text)));
        if troubles.len() > FEW {
            lines.push(Line::raw(format!("and {} more: see `flannelctl status`", troubles.len() - FEW)));
        }
    }
    if let Some(trouble) = &board.trouble {
        let text = format!("what is shown is old: {trouble}");
        lines.push(paint.line(paint.tone(Tone::Bad), &text));
    }
    let total = |bytes: fn(&PeerRate) -> u64| {
        units::bits_per_second(board.peers().iter().map(bytes).fold(0, u64::saturating_add))
    };
    let bypass = board.figures.bypass;
    lines.push(Line::raw(format!(
        "sent {}, bypass {}   received {}, bypass {}",
        total(|peer| peer.sent_bytes_per_second),
        bypass.sent.text(),
        total(|peer| peer.received_bytes_per_second),
        bypass.received.text(),
    )));
    lines.push(Line::default());
    lines
}

/// Drops by reason.
fn drops(figures: &Figures, paint: Paint) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if figures.drops.is_empty() {
        lines.push(paint.line(paint.tone(Tone::Good), "no packet was dropped"));
    } else {
        lines.push(heading("    DROPS/S       TOTAL  HOOK       REASON"));
    }
    for drop in figures.drops.iter().take(FEW) {
        let tone = if drop.packets_per_second > 0 { Tone::Bad } else { Tone::Aside };
        let figures = format!("{:>11} {:>11}  ", drop.packets_per_second, drop.packets);
        lines.push(Line::from(vec![
            Span::raw(figures),
            Span::raw(format!("{:<9}  ", drop.hook)),
            Span::styled(format!("{:<21}", drop.reason), paint.tone(tone)),
            Span::raw(format!("  {}", drop.help)),
        ]));
    }
    if figures.drops.len() > FEW {
        lines.push(Line::raw(format!("and {} more: see `flannelctl drops`", figures.drops.len() - FEW)));
    }
    lines.push(Line::default());
    lines
}

fn heading(text: &str) -> Line<'static> {
    Line::styled(text.to_owned(), Style::new().add_modifier(Modifier::BOLD))
}

fn draw_peers(frame: &mut Frame<'_>, area: Rect, view: &mut View, board: &Board) {
    let (peers, chosen) = view.peers(board.peers());
    // The first two lines are taken.
    view.page = usize::from(area.height.saturating_sub(2)).max(1);
    let [title, area] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let count = match peers.len() {
        some if some < board.peers().len() => format!("{some} of {}", board.peers().len()),
        all => all.to_string(),
    };
    frame.render_widget(heading(&format!("peers: {count}, by {}", view.order())), title);
    // Of thousands, those in sight are written.
    let first = chosen.saturating_sub(view.page - 1);
    let shown = peers.get(first..).unwrap_or_default();
    let shown = shown.get(..view.page.min(shown.len())).unwrap_or_default();
    let columns: Vec<&Column<PeerRate>> =
        PeerRate::COLUMNS.iter().filter(|column| column.is_shown(shown)).collect();
    let cell = |column: &Column<PeerRate>, text: String| Cell::from(Text::from(text).alignment(side(column)));
    let header = columns.iter().map(|column| cell(column, column.header().to_owned()));
    let rows =
        shown.iter().map(|peer| Row::new(columns.iter().map(|column| cell(column, column.text(peer)))));
    let width = |column: &Column<PeerRate>| {
        let words = shown.iter().map(|peer| column.text(peer).chars().count());
        let widest = words.max().unwrap_or_default().max(column.header().chars().count());
        Constraint::Length(u16::try_from(widest).unwrap_or(u16::MAX))
    };
    let table = Table::new(rows, columns.iter().copied().map(width))
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .column_spacing(2)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected((!shown.is_empty()).then_some(chosen - first));
    frame.render_stateful_widget(table, area, &mut state);
}

const fn side(column: &Column<PeerRate>) -> Alignment {
    match column.alignment() {
        CellAlignment::Right => Alignment::Right,
        _ => Alignment::Left,
    }
}

/// The keys, or what is typed.
fn foot(view: &View) -> Line<'static> {
    if view.is_typing {
        return Line::raw(format!("/{}█", view.filter));
    }
    let filter = if view.filter.is_empty() { String::new() } else { format!("   filter: {}", view.filter) };
    Line::styled(format!("{KEYS}{filter}"), Style::new().add_modifier(Modifier::DIM))
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyCode;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::figures::{Bypass, Drop, Figures};
    use super::super::view::tests::rate;
    use super::{Board, View, draw};

    fn board() -> Board {
        let drop = |reason, packets_per_second| Drop {
            hook: "encap",
            reason,
            help: "The destination is in no subnet leased by a peer.",
            packets_per_second,
            packets: 70,
        };
        Board::of(Figures {
            peers: vec![rate(1, 0, 0, None), rate(2, 125_000, 0, Some(5)), rate(3, 0, 0, Some(300))],
            drops: vec![drop("no_peer", 7), drop("ttl_exceeded", 0)],
            bypass: Bypass::default(),
        })
    }

    /// The lines of a picture of that size.
    fn lines(view: &mut View, board: &Board, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view, board, false)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |cells: &[ratatui::buffer::Cell]| {
            cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>()
        };
        buffer.content().chunks(width.into()).map(|cells| line(cells).trim_end().to_owned()).collect()
    }

    #[test]
    fn the_whole_picture() {
        let picture = lines(&mut View::default(), &board(), (110, 16));
        let expected = [
            "sent 1.0 Mbit/s, bypass -   received 0 bit/s, bypass -",
            "",
            "    DROPS/S       TOTAL  HOOK       REASON",
            "          7          70  encap      no_peer                The destination is in no subnet leased by a peer.",
            "          0          70  encap      ttl_exceeded           The destination is in no subnet leased by a peer.",
            "",
            "peers: 3, by rate",
            "SUBNET       PUBLIC IP     VTEP  PATH    SENT/S        RATE  RECEIVED/S     RATE  LAST SEEN",
            "10.5.2.0/24  192.168.77.2  -     tunnel     125  1.0 Mbit/s           0  0 bit/s  5 s ago",
            "10.5.1.0/24  192.168.77.1  -     tunnel       0     0 bit/s           0  0 bit/s  never",
            "10.5.3.0/24  192.168.77.3  -     tunnel       0     0 bit/s           0  0 bit/s  5 min ago",
        ];
        assert_eq!(&picture[..expected.len()], expected, "{picture:#?}");
        assert!(picture[15].contains("q quit"), "{picture:#?}");
    }

    #[test]
    fn what_is_filtered_and_what_is_typed_are_told() {
        let mut view = View::default();
        view.keys(&[KeyCode::Char('/'), KeyCode::Char('.'), KeyCode::Char('2'), KeyCode::Char('/')]);
        let picture = lines(&mut view, &board(), (110, 16));
        assert_eq!(picture[6], "peers: 0 of 3, by rate");
        assert_eq!(picture[15], "/.2/█");
    }

    #[test]
    fn help_covers_the_peers() {
        let mut view = View::default();
        view.keys(&[KeyCode::Char('?')]);
        let picture = lines(&mut view, &board(), (120, 24)).join("\n");
        assert!(picture.contains("turn the order round") && !picture.contains("peers: 3"), "{picture}");
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn_on() {
        for size in [(1, 1), (20, 5), (80, 8), (300, 2)] {
            for code in ['?', 'x'] {
                let mut view = View::default();
                view.keys(&[KeyCode::Char(code)]);
                lines(&mut view, &board(), size);
            }
        }
    }

    #[test]
    fn of_many_peers_the_chosen_one_is_in_sight() {
        let mut board = board();
        board.figures.peers = (0..=255).map(|host| rate(host, 0, 0, None)).collect();
        let mut view = View::default();
        // Drawn once, it is known how many peers fit.
        lines(&mut view, &board, (110, 16));
        let page = view.page;
        for _ in 0..3 {
            view.choose_for_test(&board.figures.peers, page);
        }
        let picture = lines(&mut view, &board, (110, 16));
        let last = format!("10.5.{}.0/24", 3 * page);
        assert!(picture.iter().any(|line| line.starts_with(&last)), "{last}: {picture:#?}");
    }
}
