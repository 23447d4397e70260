//! The steps and their evidence as a page.

use super::facts::Facts;
use super::record::{Outcome, Record, Step};
use crate::report::{escape, page as whole, table};
use crate::units::grouped;

/// The page.
pub fn page(record: &Record) -> String {
    let class = match (record.exit_code, record.limiter) {
        (0, _) => "good",
        (105, _) => "middle",
        _ => "bad",
    };
    let title = record.answer.split(',').next().unwrap_or(&record.answer);
    let mut body = format!(
        "<h1><span class=\"badge {class}\">{}</span>{}</h1>\n",
        escape(record.verdict),
        record.capacity.map_or("no capacity".to_owned(), |load| {
            format!("{} connections", grouped(u64::from(load)))
        }),
    );
    body += &format!("<p><b>{}</b></p>\n", escape(&record.answer));
    if let Some(cure) = record.cure {
        body += &format!("<p>What moves this limit: {}.</p>\n", escape(cure));
    }
    for note in &record.notes {
        body += &format!("<p class=\"faint\">note: {}</p>\n", escape(note));
    }
    let head = [
        "step",
        "connections",
        "why",
        "outcome",
        "heartbeats/s",
        "rtt p50",
        "p99",
        "p99.9",
        "server",
        "generator",
        "cores busy",
    ];
    let rows: Vec<Vec<String>> = record.steps.iter().flat_map(rows).collect();
    body += &table("Steps", &head, &rows);
    let accused: Vec<Vec<String>> = record.steps.iter().flat_map(accusations).collect();
    body += &table("What they ran into", &["step", "limit", "strength", "evidence"], &accused);
    let machine = record.environment.as_object().into_iter().flatten();
    let machine: Vec<Vec<String>> = machine
        .filter(|(name, _)| *name != "command")
        .map(|(name, value)| vec![name.clone(), value.to_string().trim_matches('"').to_owned()])
        .collect();
    body += &table("The machine", &["", ""], &machine);
    body += "<h2>The command</h2>\n";
    body += &format!("<pre>{}</pre>\n", escape(&record.command));
    whole(title, &body)
}

/// A row for each run of a load, or one for a load that was not tried.
fn rows(step: &Step) -> Vec<Vec<String>> {
    let front = |outcome: &str| {
        let load = grouped(u64::from(step.connections));
        vec![step.number.to_string(), load, step.why.clone(), outcome.to_owned()]
    };
    if step.attempts.is_empty() {
        let outcome = if step.outcome == Outcome::Foreseen { "not tried" } else { "interrupted" };
        let mut row = front(outcome);
        row.resize(11, String::new());
        return vec![row];
    }
    let attempts = step.attempts.iter().map(|attempt| {
        let facts = Facts(&attempt.report);
        let told =
            |path: &str, tell: fn(f64) -> String| facts.number(path).map_or("-".to_owned(), tell);
        let ms = |us: f64| format!("{:.1} ms", us / 1e3);
        let cores = |cores: f64| format!("{cores:.2} cores");
        let broke = format!("{}: {}", attempt.verdict, attempt.broke.join("; "));
        let mut row = front(if attempt.verdict == "passed" { "holds" } else { &broke });
        row.extend([
            told("heartbeats.rate_per_s", |rate| grouped(rate.round() as u64)),
            told("rtt_us.p50", ms),
            told("rtt_us.p99", ms),
            told("rtt_us.p999", ms),
            told("server.cpu_cores", cores),
            told("generator.cpu_cores", cores),
            told("host.cpu_busy", |share| format!("{:.0} %", share * 100.0)),
        ]);
        row
    });
    attempts.collect()
}

fn accusations(step: &Step) -> Vec<Vec<String>> {
    let suspects = step.suspects.iter().map(|suspect| {
        vec![
            step.number.to_string(),
            suspect.limiter.told().to_owned(),
            format!("{:?}", suspect.strength).to_lowercase(),
            suspect.evidence.clone(),
        ]
    });
    suspects.collect()
}
