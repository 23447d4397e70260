//! Draws one picture on whatever room there is: three columns of panes on a wide terminal, two at
//! 80 columns, one below; the plots and the events take what is left.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Borders, Paragraph, Sparkline};

use super::model::SECONDS;
use super::panes::{self, Theme};
use super::shown::{Shown, Words};
use crate::units::{grouped, time};

/// From here on there are three columns.
const WIDE: u16 = 112;
/// From here on there are two.
const NARROW: u16 = 72;
/// Panes have frames if there are so many rows.
const ROOMY: u16 = 34;
/// Without so much room there is one line.
const SMALLEST: (u16, u16) = (38, 9);

/// One picture.
pub fn draw(frame: &mut Frame<'_>, shown: &Shown, theme: &Theme) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return tiny(frame, area, shown);
    }
    let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Min(0)];
    let [head, progress, rest] = Layout::vertical(rows).areas(area);
    let [body, foot] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(rest);
    header(frame, head, shown, theme);
    progress_bar(frame, progress, shown, theme);
    footer(frame, foot, shown, theme);
    let framed = area.width >= WIDE && area.height >= ROOMY;
    Canvas { shown, theme, framed }.body(frame, body);
}

fn tiny(frame: &mut Frame<'_>, area: Rect, shown: &Shown) {
    let now = &shown.connections;
    let text = format!("{} {}/{} open", shown.phase, grouped(now.open), grouped(now.wanted));
    frame.render_widget(Paragraph::new(text), area);
}

fn header(frame: &mut Frame<'_>, area: Rect, shown: &Shown, theme: &Theme) {
    let words = match &shown.words {
        Words::NotAsked | Words::Unknown => String::new(),
        Words::Laws { hold, all } => format!("{hold} of {all} laws hold  "),
        Words::Silence => "no answer from the control plane  ".to_owned(),
    };
    let broken = matches!(&shown.words, Words::Laws { hold, all } if hold < all);
    let right = Line::from(vec![
        Span::styled(words, if broken { theme.bad } else { theme.label }),
        Span::styled(format!("{} ", panes::clock(shown.elapsed)), theme.number),
    ]);
    let left = Line::from(vec![
        Span::styled(" loadgen  ", theme.title),
        Span::styled(shown.target.clone(), theme.number),
        Span::styled(format!("  {}", shown.server_kind), theme.label),
    ]);
    let widths = [Constraint::Fill(1), Constraint::Length(right.width() as u16)];
    let [place, end] = Layout::horizontal(widths).spacing(1).areas(area);
    frame.render_widget(Paragraph::new(left), place);
    frame.render_widget(Paragraph::new(right), end);
}

fn progress_bar(frame: &mut Frame<'_>, area: Rect, shown: &Shown, theme: &Theme) {
    let phase = if shown.paused { "PAUSED" } else { shown.phase };
    let left = format!(" {phase:<13}");
    let right = format!("  {} ", shown.progress_text);
    let width = usize::from(area.width).saturating_sub(left.len() + right.len());
    let done = ((width as f64 * shown.progress).round() as usize).min(width);
    let style = if shown.paused { theme.hint } else { theme.bar };
    let line = Line::from(vec![
        Span::styled(left, if shown.paused { theme.hint } else { theme.title }),
        Span::styled("━".repeat(done), style),
        Span::styled("─".repeat(width - done), theme.label),
        Span::styled(right, theme.number),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

fn footer(frame: &mut Frame<'_>, area: Rect, shown: &Shown, theme: &Theme) {
    let holding = shown.phase == "holding" && shown.is_steady;
    let asked = !matches!(shown.words, Words::NotAsked);
    let (storm, drain) = match shown.number {
        None => ("storm 10 %".to_owned(), "drain".to_owned()),
        Some(number) => (format!("storm {number} %"), format!("drain {number} s")),
    };
    let pause = if shown.paused { "go on" } else { "pause" };
    let keys = [
        ("q", "end".to_owned(), true),
        ("p", pause.to_owned(), shown.phase == "connecting"),
        ("s", storm, holding),
        ("d", drain, holding && asked),
    ];
    let mut spans = Vec::new();
    for (key, what, may) in keys {
        let style = if may { theme.title } else { theme.label };
        spans.push(Span::styled(format!(" {key} "), style));
        spans.push(Span::styled(format!("{what}  "), if may { theme.number } else { theme.label }));
    }
    // A number is only begun to be typed: the sign where it goes on.
    spans.extend(shown.number.map(|number| Span::styled(format!(" {number}_ "), theme.hint)));
    let keys = Line::from(spans);
    let room = usize::from(area.width).saturating_sub(keys.width() + 2);
    let fresh = |at: std::time::Duration| shown.elapsed.saturating_sub(at).as_secs() < 8;
    let message = shown.messages.last().filter(|(at, _)| fresh(*at) && room >= 12);
    if let Some((_, text)) = message {
        let text: String = match text.chars().count() > room {
            true => text.chars().take(room - 1).chain(['…']).collect(),
            false => text.clone(),
        };
        let line = Line::styled(format!("{text} "), theme.hint).right_aligned();
        frame.render_widget(Paragraph::new(line), area);
    }
    let width = (keys.width() as u16).min(area.width);
    frame.render_widget(Paragraph::new(keys), Rect { width, ..area });
}

struct Canvas<'a> {
    shown: &'a Shown,
    theme: &'a Theme,
    /// Panes have frames all around, instead of a line above.
    framed: bool,
}

#[derive(Clone, Copy)]
enum Pane {
    Connections,
    Beats,
    RoundTrip,
    Oracle,
    Cost,
    Slos,
}

impl Pane {
    /// Lines that say everything.
    fn rows(self) -> u16 {
        match self {
            Pane::Connections | Pane::Beats | Pane::Oracle => 5,
            Pane::RoundTrip => 3,
            Pane::Cost => 4,
            Pane::Slos => 2,
        }
    }
}

impl Canvas<'_> {
    fn body(&self, frame: &mut Frame<'_>, area: Rect) {
        use Pane::{Beats, Connections, Cost, Oracle, RoundTrip, Slos};
        let columns: &[&'static [Pane]] = match area.width {
            WIDE.. => &[&[Connections, RoundTrip], &[Beats, Oracle], &[Cost, Slos]],
            NARROW.. => &[&[Connections, RoundTrip, Cost], &[Beats, Oracle, Slos]],
            _ => &[&[Connections, Beats, Oracle, RoundTrip, Cost, Slos]],
        };
        let around = if self.framed { 2 } else { 1 };
        // Whatever does not fit wholly is left out, the last first.
        let height = |panes: &[Pane]| panes.iter().map(|pane| pane.rows() + around).sum::<u16>();
        let fitting = |panes: &'static [Pane]| {
            let fit = (1..=panes.len()).rev().find(|&some| height(&panes[..some]) <= area.height);
            &panes[..fit.unwrap_or(1)]
        };
        let columns: Vec<&[Pane]> = columns.iter().map(|panes| fitting(panes)).collect();
        let grid = columns.iter().map(|panes| height(panes)).max().unwrap_or(0).min(area.height);
        let [top, rest] =
            Layout::vertical([Constraint::Length(grid), Constraint::Min(0)]).areas(area);
        let gap = u16::from(!self.framed);
        let equal = vec![Constraint::Fill(1); columns.len()];
        let places = Layout::horizontal(equal).spacing(gap).split(top);
        for (panes, &place) in columns.iter().zip(places.iter()) {
            self.column(frame, place, panes, around);
        }
        self.rest(frame, rest, around);
    }

    /// The first pane or the last takes what is left over.
    fn column(&self, frame: &mut Frame<'_>, area: Rect, panes: &[Pane], around: u16) {
        let last = panes.len() - 1;
        let grows = if matches!(panes[last], Pane::Slos) { last } else { 0 };
        let rows = panes.iter().enumerate().map(|(number, pane)| match number == grows {
            true => Constraint::Min(pane.rows() + around),
            false => Constraint::Length(pane.rows() + around),
        });
        let places = Layout::vertical(rows).split(area);
        for (&pane, &place) in panes.iter().zip(places.iter()) {
            self.pane(frame, place, pane);
        }
    }

    fn pane(&self, frame: &mut Frame<'_>, area: Rect, pane: Pane) {
        let (shown, theme) = (self.shown, self.theme);
        let title = match pane {
            Pane::Connections => "connections",
            Pane::Beats => "heartbeats",
            Pane::RoundTrip => "round trip",
            Pane::Oracle => "expiry",
            Pane::Cost => "cost",
            Pane::Slos => "SLOs",
        };
        let inside = self.block(frame, area, title);
        let rows = usize::from(inside.height);
        let lines = match pane {
            Pane::Connections => panes::connections(shown, theme),
            Pane::Beats => panes::beats(shown, theme),
            Pane::RoundTrip => panes::round_trip(shown, theme),
            Pane::Oracle => panes::oracle(shown, theme),
            Pane::Cost => panes::cost(shown, theme),
            Pane::Slos => panes::slos(shown, theme, rows),
        };
        frame.render_widget(Paragraph::new(lines), inside);
    }

    /// Draws the frame of a pane; what is inside.
    fn block(&self, frame: &mut Frame<'_>, area: Rect, title: &str) -> Rect {
        let theme = self.theme;
        let borders = if self.framed { Borders::ALL } else { Borders::TOP };
        let block = Block::new()
            .borders(borders)
            .border_type(BorderType::Rounded)
            .border_style(theme.label)
            .title(Line::from(vec![
                Span::styled("─", theme.label),
                Span::styled(format!(" {title} "), theme.title),
            ]));
        let inside = block.inner(area);
        frame.render_widget(block, area);
        inside
    }

    /// The plots, the events, the messages.
    fn rest(&self, frame: &mut Frame<'_>, area: Rect, around: u16) {
        let wide = area.width >= WIDE;
        let plots = if wide { 1 } else { 2 };
        if area.height < around + plots {
            return;
        }
        // Whoever has little room learns of events first in the last line.
        let spare = area.height.saturating_sub(2 * around + plots + 2);
        let plot = (1 + spare / (if wide { 2 } else { 4 })).min(if wide { 10 } else { 4 });
        let height = (around + plots * plot).min(area.height);
        let [top, bottom] =
            Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(area);
        if wide {
            let equal = [Constraint::Fill(1), Constraint::Fill(1)];
            let [left, right] = Layout::horizontal(equal).spacing(1 - around / 2).areas(top);
            let inside = self.block(frame, left, &format!("heartbeats/s, {}", self.beats()));
            self.plot(frame, inside, &self.shown.beats_per_s);
            let inside = self.block(frame, right, &format!("round trip p99, {}", self.p99()));
            self.plot(frame, inside, &self.shown.p99_us);
        } else {
            let inside = self.block(frame, top, "last minute");
            self.stacked(frame, inside);
        }
        self.events(frame, bottom, wide, around);
    }

    fn beats(&self) -> String {
        let most = self.shown.beats_per_s.iter().max().copied().unwrap_or(0);
        format!("last minute, at most {}", grouped(most))
    }

    fn p99(&self) -> String {
        let most = self.shown.p99_us.iter().max().copied().unwrap_or(0);
        format!("last minute, at most {}", time(most))
    }

    /// Two plots, one above the other, with their names before and the most behind them.
    fn stacked(&self, frame: &mut Frame<'_>, area: Rect) {
        let equal = [Constraint::Fill(1), Constraint::Fill(1)];
        let [top, bottom] = Layout::vertical(equal).areas(area);
        let most = |values: &[u64]| values.iter().max().copied().unwrap_or(0);
        let (beats, p99) = (&self.shown.beats_per_s, &self.shown.p99_us);
        for (area, name, values, most) in [
            (top, "heartbeats/s", beats, grouped(most(beats))),
            (bottom, "p99", p99, time(most(p99))),
        ] {
            let columns = [Constraint::Length(14), Constraint::Fill(1), Constraint::Length(11)];
            let [left, middle, right] = Layout::horizontal(columns).areas(area);
            let label = Line::styled(format!(" {name}"), self.theme.label);
            frame.render_widget(Paragraph::new(label), left);
            self.plot(frame, middle, values);
            let most = Line::styled(format!("{most} "), self.theme.number).right_aligned();
            frame.render_widget(Paragraph::new(most), right);
        }
    }

    /// The last minute, over the whole width.
    fn plot(&self, frame: &mut Frame<'_>, area: Rect, values: &[u64]) {
        let width = usize::from(area.width);
        let missing = SECONDS.saturating_sub(values.len());
        let value = |second: usize| second.checked_sub(missing).map_or(0, |index| values[index]);
        let columns: Vec<u64> = (0..width)
            .map(|column| {
                let first = column * SECONDS / width;
                let end = ((column + 1) * SECONDS / width).max(first + 1);
                (first..end).map(value).max().unwrap_or(0)
            })
            .collect();
        frame.render_widget(Sparkline::default().data(columns).style(self.theme.spark), area);
    }

    fn events(&self, frame: &mut Frame<'_>, area: Rect, wide: bool, around: u16) {
        let (shown, theme) = (self.shown, self.theme);
        if area.height <= around {
            return;
        }
        let both = [Constraint::Fill(3), Constraint::Fill(2)];
        let places = match (wide, area.height) {
            (true, _) => Layout::horizontal(both).spacing(1 - around / 2).split(area),
            (false, 8..) => Layout::vertical(both).split(area),
            (false, _) => [area].into(),
        };
        let inside = self.block(frame, places[0], "events");
        let lines = panes::events(shown, theme, usize::from(inside.height));
        frame.render_widget(Paragraph::new(lines), inside);
        if let Some(&place) = places.get(1) {
            let inside = self.block(frame, place, "messages");
            let lines = panes::messages(shown, theme, usize::from(inside.height));
            frame.render_widget(Paragraph::new(lines), inside);
        }
    }
}
