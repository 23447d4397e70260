//! The tables of the page.

use std::fmt::Write as _;

use super::escape;
use crate::latency::LatencySummary;
use crate::report::Report;
use crate::report::laws::OF_A_SHARD;
use crate::units::grouped;

/// What is longer than this is words, not a number with its unit.
const NUMBER_LEN: usize = 20;

/// A table of texts; the first row is its head. Columns of words are set to the left, of numbers
/// to the right.
pub fn table(title: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    if !title.is_empty() {
        let _ = writeln!(out, "<h2>{title}</h2>");
    }
    let words = columns_of_words(head, rows);
    out += "<div class=\"scroll\"><table>\n<tr>";
    for (column, name) in head.iter().enumerate() {
        let _ = write!(out, "<th{}>{name}</th>", attribute(words[column], ""));
    }
    out += "</tr>\n";
    for row in rows {
        out += "<tr>";
        for (cell, &is_words) in row.iter().zip(&words) {
            let verdict = match cell.as_str() {
                "holds" => "good",
                "BROKEN" => "bad",
                _ => "",
            };
            let _ = write!(out, "<td{}>{}</td>", attribute(is_words, verdict), escape(cell));
        }
        out += "</tr>\n";
    }
    out += "</table></div>\n";
    out
}

/// Which columns have words in them; the first is a label anyway.
fn columns_of_words(head: &[&str], rows: &[Vec<String>]) -> Vec<bool> {
    let is_long = |cell: &String| cell.chars().count() > NUMBER_LEN;
    let has_words = |column| rows.iter().filter_map(|row| row.get(column)).any(is_long);
    (0..head.len()).map(|column| column > 0 && has_words(column)).collect()
}

fn attribute(is_words: bool, verdict: &str) -> String {
    match [if is_words { "words" } else { "" }, verdict].join(" ").trim() {
        "" => String::new(),
        classes => format!(" class=\"{classes}\""),
    }
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

fn rate(number: f64) -> String {
    format!("{}/s", grouped(number.round() as u64))
}

fn millis(ms: Option<u64>, of_server: &str) -> String {
    ms.map_or_else(|| of_server.to_owned(), |ms| format!("{} ms", grouped(ms)))
}

/// What was wanted against what came of it.
pub fn requested(report: &Report) -> String {
    let (wanted, connections, heartbeats) =
        (&report.requested, &report.connections, &report.heartbeats);
    let failed: u64 = connections.failed.values().sum();
    let mut rows = vec![
        row(&["connections", &grouped(wanted.connections), &grouped(connections.opened)]),
        row(&[
            "connected in a second",
            &rate(wanted.connect_rate_per_s as f64),
            &rate(report.connect.rate_per_s),
        ]),
        row(&[
            "heartbeat interval",
            &millis(wanted.interval_ms, "the server's"),
            &millis(heartbeats.interval_ms, "-"),
        ]),
        row(&[
            "heartbeats sent, and answered",
            &grouped(heartbeats.sent),
            &grouped(heartbeats.acked),
        ]),
        row(&[
            "idle timeout",
            &millis(wanted.idle_timeout_ms, "the server's"),
            &millis(report.expiry.idle_timeout_ms, "-"),
        ]),
        row(&[
            "silent, and expired",
            &grouped(report.expiry.silenced),
            &grouped(report.expiry.expired),
        ]),
        row(&["open at the end", "", &grouped(connections.open_at_end)]),
    ];
    if failed > 0 {
        rows.push(row(&["failed to open", "0", &grouped(failed)]));
    }
    for (reason, count) in &connections.failed {
        rows.push(row(&[&format!("failed: {reason}"), "", &grouped(*count)]));
    }
    for (reason, count) in &connections.closed_by_server {
        rows.push(row(&[&format!("closed by the server: {reason}"), "", &grouped(*count)]));
    }
    table("Requested and achieved", &["", "requested", "achieved"], &rows)
}

/// The latencies, percentile by percentile.
pub fn latencies(report: &Report) -> String {
    let of = |name: &str, summary: &LatencySummary| {
        let ms = |us: Option<u64>| us.map_or("-".to_owned(), three_digits);
        let times = [summary.p50, summary.p90, summary.p99, summary.p999, summary.max].map(ms);
        let mut cells = vec![name.to_owned(), grouped(summary.count)];
        cells.extend(times);
        cells
    };
    let mut rows = vec![
        of("round trip", &report.rtt_us),
        of("opening a connection", &report.connect.latency_us),
        of("sent after it was due", &report.generator.send_lateness_us),
    ];
    if report.push.broadcasts > 0 {
        rows.push(of("push", &report.push.latency_us));
    }
    if report.reconnect.lost > 0 {
        rows.push(of("opening again", &report.reconnect.latency_us));
    }
    let head = ["ms", "count", "p50", "p90", "p99", "p99.9", "max"];
    format!("<figure>{}</figure>\n", table("", &head, &rows))
}

/// Microseconds as milliseconds, so short that a row fits beside a plot.
fn three_digits(us: u64) -> String {
    match us as f64 / 1e3 {
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms if ms < 100.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

/// What `--at` made happen.
pub fn events(report: &Report) -> String {
    if report.events.is_empty() {
        return String::new();
    }
    let ms = |us: Option<u64>| us.map_or("-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1e3));
    let rows: Vec<Vec<String>> = report
        .events
        .iter()
        .map(|event| {
            vec![
                format!("{} at {:.1} s", event.kind, event.at_ms as f64 / 1e3),
                grouped(event.affected),
                grouped(event.recovered),
                millis(event.recovered_after_ms, "-"),
                ms(event.rtt_p999_before_us),
                ms(event.rtt_p999_during_us),
            ]
        })
        .collect();
    let head = ["event", "affected", "recovered", "within", "p99.9 before", "p99.9 during"];
    table("Events", &head, &rows)
}

/// Whoever has played a part of the plan.
pub fn generators(report: &Report) -> String {
    if report.parts.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = report
        .parts
        .iter()
        .map(|part| {
            let late = part.generator.send_lateness_us.p99;
            row(&[
                &format!("part {} of {}", part.part.number, part.part.of),
                &part.verdict,
                &format!("{} of {}", grouped(part.opened), grouped(part.requested)),
                &format!("{:.2}", part.generator.cpu_cores),
                &late.map_or("-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1e3)),
                &format!("{} x {}", part.environment.cores, part.environment.cpu),
            ])
        })
        .collect();
    let head = ["", "verdict by itself", "opened", "cores", "sent late, p99", "host"];
    table("Generators", &head, &rows)
}

/// Where the memory went.
pub fn ledger(report: &Report) -> String {
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / 1_048_576.0);
    let open = report.connections.opened as f64;
    let line = |name: &str, all: Option<f64>, each: Option<f64>| {
        let each = each.map_or("-".to_owned(), |bytes| format!("{bytes:.1} B"));
        vec![name.to_owned(), all.map_or("-".to_owned(), mib), each]
    };
    let (server, generator) = (&report.server, &report.generator);
    let kernel = report.kernel.bytes_per_connection;
    let idle = server.rss_idle_bytes.map(|bytes| bytes as f64);
    let parts = [server.rss_bytes_per_connection, generator.rss_bytes_per_connection, kernel];
    let sum: f64 = parts.into_iter().flatten().sum();
    let all = |each: Option<f64>| each.map(|each| each * open);
    let rows = [
        line("server: the idle program", idle, None),
        line("server: connections", all(parts[0]), parts[0]),
        line("load generator: clients", all(parts[1]), parts[1]),
        line("kernel: sockets, for both ends where both are here", all(kernel), kernel),
        line("for each connection, together", Some(sum * open), Some(sum)),
    ];
    table("Memory", &["", "all", "a connection"], &rows)
}

/// CPU of both ends, and what the kernel complained of.
pub fn cost(report: &Report) -> String {
    let number = |value: Option<f64>, digits: usize| {
        value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let (server, generator, kernel) = (&report.server, &report.generator, &report.kernel);
    let cpu = |name: &str, cores: Option<f64>, us: Option<f64>| {
        row(&[name, &number(cores, 2), &number(us, 1)])
    };
    let rows = [
        cpu("server", server.cpu_cores, server.cpu_us_per_heartbeat),
        cpu("load generator", Some(generator.cpu_cores), generator.cpu_us_per_heartbeat),
    ];
    let head = ["steady state", "cores", "us a heartbeat"];
    let kernel_rows = [
        ("packets dropped (netdev_max_backlog)", kernel.softnet_drops),
        ("accept queue overflows (somaxconn)", kernel.listen_overflows),
        ("SYN cookies sent (tcp_max_syn_backlog)", kernel.syncookies_sent),
        ("memory pressures (tcp_mem)", kernel.memory_pressures),
        ("segments sent again", kernel.retransmits),
        ("pages reserved by TCP", kernel.tcp_memory_pages),
    ]
    .map(|(name, count)| row(&[name, &grouped(count)]));
    table("CPU", &head, &rows) + &table("The kernel's own account", &["", "count"], &kernel_rows)
}

/// The accounts that must balance, the broken ones first, and what was asked for by `--slo`.
pub fn laws(report: &Report) -> String {
    let told = |holds: bool| if holds { "holds" } else { "BROKEN" };
    // Of many shards those that keep a law would fill the page.
    let is_quiet = |law: &&crate::report::Law| law.holds && law.name.starts_with(OF_A_SHARD);
    let (quiet, mut laws): (Vec<_>, Vec<_>) = report.laws.iter().partition(is_quiet);
    laws.sort_by_key(|law| law.holds);
    let mut rows: Vec<Vec<String>> = laws
        .iter()
        .map(|law| {
            row(&[&law.name, &law.left.to_string(), &law.right.to_string(), told(law.holds)])
        })
        .collect();
    if !quiet.is_empty() {
        let name = format!("{} more, in the server's shards one by one", quiet.len());
        rows.push(row(&[&name, "", "", told(true)]));
    }
    let mut out = String::new();
    if !report.slo.is_empty() {
        let rows: Vec<Vec<String>> = report
            .slo
            .iter()
            .map(|slo| {
                let value = slo.value.map_or("no value".to_owned(), |value| value.to_string());
                row(&[&slo.expression, &value, told(slo.holds)])
            })
            .collect();
        out += &table("Objectives", &["SLO", "value", ""], &rows);
    }
    out + &table("Laws", &["law", "left", "right", ""], &rows)
}

/// Where it was made, and the command that repeats it.
pub fn environment(report: &Report) -> String {
    let here = &report.environment;
    let rows = [
        row(&["kernel", &format!("Linux {}", here.kernel)]),
        row(&["processor", &format!("{} x {}", here.cores, here.cpu)]),
        row(&["memory", &format!("{} MiB", grouped(here.memory_bytes >> 20))]),
        row(&["descriptors of a ring's table", &grouped(here.descriptors_max)]),
        row(&["net.ipv4.tcp_mem", &here.tcp_mem_pages]),
        row(&["net.core.netdev_max_backlog", &here.netdev_max_backlog]),
        row(&["net.core.somaxconn", &here.somaxconn]),
        row(&["loadgen", &here.loadgen]),
        row(&["seed", &report.seed.to_string()]),
    ];
    table("Environment", &["", ""], &rows)
        + &format!("<h2>To repeat it</h2>\n<pre>{}</pre>\n", escape(&here.command))
}
