//! The report as one page: no network, no script, plots as inline SVG, light and dark.

mod plot;
mod tables;

use std::fmt::Write as _;

use self::plot::{Across, Line, Plot, Scale, figure, nines};
pub use self::tables::table;
use self::tables::{cost, environment, events, generators, laws, ledger, requested};
use super::Report;
use crate::units::grouped;

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn html(report: &Report) -> String {
    let title =
        format!("{}: {} connections", report.verdict, grouped(report.connections.requested));
    let mut out = String::new();
    head(report, &mut out);
    out += &requested(report);
    let _ = write!(out, "<h2>Over time</h2>\n<div class=\"plots\">\n{}</div>\n", plots(report));
    out += "<h2>Round trips</h2>\n<div class=\"plots\">\n";
    out += &distribution(report);
    out += "</div>\n";
    for section in [events, generators, ledger, cost, laws, environment] {
        out += &section(report);
    }
    page(&title, &out)
}

/// A page of this style around a body.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(title)
    )
}

/// The verdict, why it is not better, and the figures that people ask for first.
fn head(report: &Report, out: &mut String) {
    let class = match report.verdict.as_str() {
        "passed" => "good",
        "failed" | "not reached" => "bad",
        _ => "middle",
    };
    let (connections, expiry) = (&report.connections, &report.expiry);
    let _ = write!(
        out,
        "<h1><span class=\"badge {class}\">{}</span>{} of {} connections</h1>\n\
         <p class=\"faint\">{}{}</p>\n",
        escape(&report.verdict),
        grouped(connections.opened),
        grouped(connections.requested),
        escape(&report.target),
        match (&report.engine, &report.sweep) {
            (Some(engine), Some(sweep)) =>
                format!(", engine {}, sweep {}", escape(engine), escape(sweep)),
            _ => String::new(),
        }
    );
    for reason in &report.reasons {
        let _ = writeln!(out, "<p><b>{}</b></p>", escape(reason));
    }
    for note in &report.notes {
        let _ = writeln!(out, "<p class=\"faint\">note: {}</p>", escape(note));
    }
    let ms = |us: Option<u64>| us.map_or("-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1e3));
    let tiles = [
        (format!("{} of {}", grouped(expiry.expired), grouped(expiry.silenced)), "silent: expired"),
        (
            format!("{} / {}", grouped(expiry.falsely), grouped(expiry.missed)),
            "falsely closed / missed",
        ),
        (
            expiry.lateness_ms.max.map_or("-".to_owned(), |ms| format!("{ms:.0} ms")),
            "expired late, at most",
        ),
        (
            format!("{}/s", grouped(report.heartbeats.rate_per_s.round() as u64)),
            "heartbeats answered",
        ),
        (ms(report.rtt_us.p50), "round trip p50"),
        (ms(report.rtt_us.p999), "round trip p99.9"),
        (format!("{}/s", grouped(report.connect.rate_per_s.round() as u64)), "connected"),
    ];
    *out += "<div class=\"tiles\">\n";
    for (value, name) in tiles {
        let _ = writeln!(out, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>");
    }
    *out += "</div>\n";
}

fn plots(report: &Report) -> String {
    let series = &report.series;
    let across = |values: &[f64]| -> Vec<(f64, f64)> {
        series.at_s.iter().copied().zip(values.iter().copied()).collect()
    };
    let counts = |values: &[u64]| -> Vec<(f64, f64)> {
        series.at_s.iter().zip(values).map(|(&at, &count)| (at, count as f64)).collect()
    };
    let known = |values: &[Option<u64>], unit: f64| -> Vec<(f64, f64)> {
        let pairs = series.at_s.iter().zip(values);
        pairs.filter_map(|(&at, value)| Some((at, (*value)? as f64 / unit))).collect()
    };
    let cores = |values: &[Option<f64>]| -> Vec<(f64, f64)> {
        series.at_s.iter().zip(values).filter_map(|(&at, value)| Some((at, (*value)?))).collect()
    };
    let marks = marks(report);
    let plot = |title, unit, scale, lines: Vec<(&'static str, Vec<(f64, f64)>)>| {
        let lines = lines.into_iter().map(|(name, points)| Line { name, points }).collect();
        figure(&Plot { title, unit, lines, marks: &marks, scale, across: Across::Time })
    };
    const MIB: f64 = 1_048_576.0;
    [
        plot(
            "Connections",
            "",
            Scale::Linear,
            vec![("open", counts(&series.open)), ("failed", counts(&series.failed))],
        ),
        plot(
            "Heartbeats a second",
            "",
            Scale::Linear,
            vec![("sent", across(&series.sent_per_s)), ("answered", across(&series.acked_per_s))],
        ),
        plot(
            "Round trip",
            " ms",
            Scale::Logarithmic,
            vec![
                ("p50", known(&series.rtt_p50_us, 1e3)),
                ("p99", known(&series.rtt_p99_us, 1e3)),
                ("max", known(&series.rtt_max_us, 1e3)),
            ],
        ),
        plot(
            "Expired",
            "",
            Scale::Linear,
            vec![
                ("rightly", counts(&series.expired)),
                ("falsely closed", counts(&series.falsely_closed)),
            ],
        ),
        plot(
            "CPU, cores",
            "",
            Scale::Linear,
            vec![
                ("server", cores(&series.server_cpu_cores)),
                ("load generator", cores(&series.generator_cpu_cores)),
            ],
        ),
        plot(
            "Memory, MiB",
            "",
            Scale::Linear,
            vec![
                ("server", known(&series.server_rss_bytes, MIB)),
                ("load generator", known(&series.generator_rss_bytes, MIB)),
                ("taken from the host, kernel included", known(&series.host_taken_bytes, MIB)),
            ],
        ),
    ]
    .concat()
}

/// The phases, and the events of the scenario.
fn marks(report: &Report) -> Vec<(f64, String)> {
    let phases = &report.series.phases;
    let holding = phases.iter().find(|phase| phase.name == "holding").map(|phase| phase.from_s);
    let shown =
        phases.iter().filter(|phase| matches!(phase.name.as_str(), "warming up" | "holding"));
    let mut marks: Vec<(f64, String)> =
        shown.map(|phase| (phase.from_s, phase.name.to_owned())).collect();
    let events = holding.into_iter().flat_map(|from_s| {
        report
            .events
            .iter()
            .map(move |event| (from_s + event.at_ms as f64 / 1e3, event.kind.clone()))
    });
    marks.extend(events);
    marks
}

fn distribution(report: &Report) -> String {
    let points = report.rtt_distribution.iter().filter(|point| point.percentile < 100.0);
    let line = |points: &mut dyn Iterator<Item = (f64, u64)>| -> Vec<(f64, f64)> {
        points.map(|(percentile, us)| (nines(percentile), us as f64 / 1e3)).collect()
    };
    figure(&Plot {
        title: "Round trip by percentile, steady state",
        unit: " ms",
        lines: vec![Line {
            name: "from when it was due to its answer",
            points: line(&mut points.map(|point| (point.percentile, point.us))),
        }],
        marks: &[],
        scale: Scale::Logarithmic,
        across: Across::Percentiles,
    }) + &tables::latencies(report)
}

/// Text that may hold anything.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_nothing_is_a_page_and_asks_nothing_of_the_network() {
        let mut report = Report { verdict: "void".to_owned(), ..Report::default() };
        report.reasons.push("<script>alert(1)</script> & 'more'".to_owned());
        report.environment.command = "loadgen --slo 'rtt.p99<5ms'".to_owned();
        let page = html(&report);
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#39;more&#39;"));
        for forbidden in ["<script", "http://", "https://", "src=", "url(", "@import"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
