//! The lines of each pane. Nothing is told by colour alone.

use std::time::Duration;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::model::seconds;
use super::shown::{Cost, EventLine, Percentiles, Shown, SloLine, When, Words};
use crate::scenario::Kind;
use crate::units::grouped;

/// How things look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Theme {
    pub label: Style,
    pub number: Style,
    pub title: Style,
    pub good: Style,
    pub bad: Style,
    pub hint: Style,
    pub bar: Style,
    pub spark: Style,
}

impl Theme {
    /// With colours.
    pub fn coloured() -> Theme {
        let style = Style::new();
        Theme {
            label: style.fg(Color::DarkGray),
            number: style,
            title: style.fg(Color::Cyan),
            good: style.fg(Color::Green),
            bad: style.fg(Color::Red).add_modifier(Modifier::BOLD),
            hint: style.fg(Color::Yellow),
            bar: style.fg(Color::Cyan),
            spark: style.fg(Color::Cyan),
        }
    }

    /// For those who want none (<https://no-color.org>).
    pub fn plain() -> Theme {
        let style = Style::new();
        Theme {
            title: style.add_modifier(Modifier::BOLD),
            bad: style.add_modifier(Modifier::REVERSED),
            hint: style.add_modifier(Modifier::BOLD),
            ..Theme::default()
        }
    }
}

/// ` label         value  note`.
fn row<'a>(theme: &Theme, label: &'a str, value: &str, note: &str) -> Line<'a> {
    styled_row(theme, label, value, note, theme.number)
}

fn styled_row<'a>(
    theme: &Theme,
    label: &'a str,
    value: &str,
    note: &str,
    style: Style,
) -> Line<'a> {
    Line::from(vec![
        Span::styled(format!(" {label:<11}"), theme.label),
        Span::styled(format!("{value:>11}"), style),
        Span::styled(format!("  {note}"), theme.label),
    ])
}

/// Bad as soon as there is one.
fn alarm(theme: &Theme, count: u64) -> Style {
    if count > 0 { theme.bad } else { theme.number }
}

pub fn connections<'a>(shown: &Shown, theme: &Theme) -> Vec<Line<'a>> {
    let now = &shown.connections;
    let server = match (now.server_open, &shown.words) {
        (Some(open), _) => format!("server {}", grouped(open)),
        (None, Words::Silence) => "server silent".to_owned(),
        _ => String::new(),
    };
    let plan = match (shown.paused, now.planned_per_s) {
        (true, _) => "PAUSED".to_owned(),
        (false, Some(plan)) => format!("plan {}", grouped(plan)),
        (false, None) => String::new(),
    };
    let opened = row(theme, "connects/s", &rate(now.opened_per_s), &plan);
    let mut lines = vec![
        row(theme, "wanted", &grouped(now.wanted), ""),
        row(theme, "open", &grouped(now.open), &server),
        match (shown.phase, now.away) {
            ("connecting", _) | (_, None) => opened,
            (_, Some(away)) => {
                let back = match now.reopened_per_s >= 0.5 {
                    true => format!("{}/s come back", rate(now.reopened_per_s)),
                    false => String::new(),
                };
                row(theme, "away", &grouped(away), &back)
            }
        },
    ];
    let mut by = now.failed_by.clone();
    by.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let style = alarm(theme, now.failed);
    lines.push(styled_row(theme, "failed", &grouped(now.failed), "", style));
    let reasons = by
        .iter()
        .map(|(why, count)| Line::styled(format!("   {} {why}", grouped(*count)), theme.bad));
    lines.extend(reasons);
    lines
}

pub fn beats<'a>(shown: &Shown, theme: &Theme) -> Vec<Line<'a>> {
    let now = &shown.beats;
    let plan = now.planned_per_s.map(|plan| format!("plan {}", rate(plan))).unwrap_or_default();
    let span = |ms: Option<u64>| ms.map_or("?".to_owned(), |ms| span(Duration::from_millis(ms)));
    let late = if now.sent_late > 0 { "by over 10 ms" } else { "" };
    vec![
        row(theme, "due/s", &rate(now.due_per_s), &plan),
        row(theme, "answered/s", &rate(now.acked_per_s), ""),
        row(theme, "unanswered", &grouped(now.unanswered), ""),
        row(theme, "sent late", &grouped(now.sent_late), late),
        row(
            theme,
            "interval",
            &span(now.interval_ms),
            &format!("timeout {}", span(now.idle_timeout_ms)),
        ),
    ]
}

pub fn round_trip<'a>(shown: &Shown, theme: &Theme) -> Vec<Line<'a>> {
    let head = format!(" {:<5}{:>8}{:>8}{:>8}{:>8}", "", "p50", "p99", "p99.9", "max");
    let line = |label: &str, rtt: &Percentiles| {
        let mut spans = vec![Span::styled(format!(" {label:<5}"), theme.label)];
        spans.extend([rtt.p50, rtt.p99, rtt.p999, rtt.max].map(|us| {
            Span::styled(format!("{:>8}", us.map_or("-".to_owned(), short)), theme.number)
        }));
        Line::from(spans)
    };
    let all = if shown.is_steady { "held" } else { "all" };
    vec![Line::styled(head, theme.label), line("now", &shown.rtt_last), line(all, &shown.rtt_all)]
}

pub fn oracle<'a>(shown: &Shown, theme: &Theme) -> Vec<Line<'a>> {
    let now = &shown.oracle;
    let server = now.server_expired.filter(|_| now.expired > 0 || now.planned > 0);
    let coming = match now.silenced < now.planned {
        true => format!("{} will be", grouped(now.planned)),
        false => String::new(),
    };
    let ours = match now.our_delay {
        0 => String::new(),
        count => format!("and {} by our delay", grouped(count)),
    };
    let late = now.late_max_us.map_or("-".to_owned(), short);
    let at_most = if now.late_max_us.is_some() { "at most" } else { "" };
    let falsely = alarm(theme, now.falsely);
    let missed = alarm(theme, now.missed);
    vec![
        row(theme, "silenced", &grouped(now.silenced), &coming),
        row(
            theme,
            "expired",
            &grouped(now.expired),
            &server.map(|count| format!("server {}", grouped(count))).unwrap_or_default(),
        ),
        row(theme, "late", &late, at_most),
        styled_row(theme, "FALSE", &grouped(now.falsely), &ours, falsely),
        styled_row(theme, "MISSED", &grouped(now.missed), "", missed),
    ]
}

pub fn cost<'a>(shown: &Shown, theme: &Theme) -> Vec<Line<'a>> {
    let head = format!(" {:<8}{:>9}{:>11}{:>9}", "", "CPU", "memory", "B each");
    let line = |label: &str, cost: &Cost| {
        let cores = cost.cores.map_or("-".to_owned(), |cores| format!("{cores:.2}"));
        let memory = cost.bytes.map_or("-".to_owned(), bytes);
        Line::from(vec![
            Span::styled(format!(" {label:<8}"), theme.label),
            Span::styled(
                format!("{cores:>9}{memory:>11}{:>9}", each(cost.bytes_per_connection)),
                theme.number,
            ),
        ])
    };
    let per_connection = shown.kernel.bytes_per_connection;
    let kernel = per_connection.map(|each| each * shown.connections.open as f64);
    let kernel = Cost {
        bytes: kernel.map(|bytes| bytes as u64),
        bytes_per_connection: per_connection,
        ..Cost::default()
    };
    vec![
        Line::styled(head, theme.label),
        line("server", &shown.server),
        line("loadgen", &shown.generator),
        line("kernel", &kernel),
    ]
}

pub fn slos<'a>(shown: &Shown, theme: &Theme, rows: usize) -> Vec<Line<'a>> {
    if shown.slos.is_empty() {
        return vec![Line::styled(" none: --slo 'rtt.p99<50ms'", theme.label)];
    }
    let mut lines: Vec<&SloLine> = shown.slos.iter().collect();
    // Those that do not hold must be seen.
    lines.sort_by_key(|line| line.holds != Some(false));
    let line = |slo: &SloLine| {
        let (sign, style) = match slo.holds {
            Some(true) => ("✓", theme.good),
            Some(false) => ("✗", theme.bad),
            None => ("·", theme.label),
        };
        Line::from(vec![
            Span::styled(format!(" {sign} {:>9}", value(slo)), style),
            Span::styled(format!("  {}", slo.expression), theme.number),
        ])
    };
    let mut out: Vec<Line<'a>> = lines.iter().map(|slo| line(slo)).collect();
    shorten(&mut out, rows, theme);
    out
}

pub fn events<'a>(shown: &Shown, theme: &Theme, rows: usize) -> Vec<Line<'a>> {
    if shown.events.is_empty() {
        return vec![Line::styled(" none: --at 30s:storm:50%, or the keys below", theme.label)];
    }
    let came = shown.events.iter().filter(|event| matches!(event.when, When::At(_))).count();
    // The last that has come, what is next, and what else there is room for.
    let first = came
        .saturating_sub(rows.saturating_sub(1).max(1))
        .min(shown.events.len().saturating_sub(rows));
    shown.events[first..].iter().map(|event| event_line(event, theme)).collect()
}

fn event_line<'a>(event: &EventLine, theme: &Theme) -> Line<'a> {
    let (when, style) = match event.when {
        When::At(at) => (seconds(at), theme.number),
        When::In(time) => (format!("in {}", seconds(time)), theme.label),
        When::Planned(at) => (format!("at {}", seconds(at)), theme.label),
    };
    let what = match event.kind {
        Kind::Storm(share) => format!("storm of {:.0} %", share * 100.0),
        Kind::Drain(None) => "drain".to_owned(),
        Kind::Drain(Some(over)) => format!("drain over {}", span(over)),
        Kind::Broadcast(bytes, None) => format!("broadcast of {bytes} B"),
        Kind::Broadcast(bytes, Some(over)) => format!("broadcast of {bytes} B in {}", span(over)),
    };
    let (hit, back) = match event.kind {
        Kind::Storm(_) => ("killed", "back"),
        Kind::Drain(_) => ("told to go", "back"),
        Kind::Broadcast(..) => ("to receive", "received"),
    };
    let came = match event.when {
        When::At(_) => {
            format!("{} {hit}, {} {back}", grouped(event.affected), grouped(event.recovered))
        }
        When::In(_) | When::Planned(_) => String::new(),
    };
    let by = if event.by_hand { " (key)" } else { "" };
    Line::from(vec![
        Span::styled(format!(" {when:>10}  "), theme.label),
        Span::styled(format!("{:<22}", format!("{what}{by}")), style),
        Span::styled(came, style),
    ])
}

pub fn messages<'a>(shown: &Shown, theme: &Theme, rows: usize) -> Vec<Line<'a>> {
    if shown.messages.is_empty() {
        return vec![Line::styled(" none", theme.label)];
    }
    let skip = shown.messages.len().saturating_sub(rows);
    let line = |(at, text): &(Duration, String)| {
        Line::from(vec![
            Span::styled(format!(" {:>7}  ", clock(*at)), theme.label),
            Span::styled(text.clone(), theme.number),
        ])
    };
    shown.messages.iter().skip(skip).map(line).collect()
}

/// If there are more lines than rows, the last row says so.
fn shorten<'a>(lines: &mut Vec<Line<'a>>, rows: usize, theme: &Theme) {
    if rows > 0 && lines.len() > rows {
        let more = lines.len() - rows + 1;
        lines.truncate(rows - 1);
        lines.push(Line::styled(format!("   and {more} more"), theme.label));
    }
}

fn value(slo: &SloLine) -> String {
    let Some(value) = slo.value else { return "?".to_owned() };
    match slo.unit {
        Some("_us") => short(value as u64),
        Some("_ms") => short((value * 1e3) as u64),
        Some("_s") => short((value * 1e6) as u64),
        Some("_bytes") => bytes(value as u64),
        _ if value.fract() == 0.0 || value >= 1_000.0 => grouped(value.round() as u64),
        _ => format!("{value:.2}"),
    }
}

fn rate(per_s: f64) -> String {
    grouped(per_s.round() as u64)
}

fn each(bytes: Option<f64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| grouped(bytes.round().max(0.0) as u64))
}

/// Microseconds in at most seven letters.
fn short(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..100_000 => format!("{:.1} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..100_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => format!("{} s", us / 1_000_000),
    }
}

fn bytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / 1_048_576.0;
    match bytes {
        0..100_000 => format!("{} B", grouped(bytes)),
        100_000..1_048_576_000 => format!("{mebibytes:.1} MiB"),
        _ => format!("{:.2} GiB", mebibytes / 1_024.0),
    }
}

/// A time that somebody has chosen: `300 ms`, `1.5 s`, `40 s`.
fn span(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms if ms % 1_000 == 0 => format!("{} s", ms / 1_000),
        ms => format!("{} s", ms as f64 / 1e3),
    }
}

/// `1:05`, `1:00:05`.
pub fn clock(time: Duration) -> String {
    let all = time.as_secs();
    match all / 3_600 {
        0 => format!("{}:{:02}", all / 60, all % 60),
        hours => format!("{hours}:{:02}:{:02}", all / 60 % 60, all % 60),
    }
}
