//! The diagnosis for people: the verdict, then the table, then the memory.

use std::fmt::Write as _;

use super::{Diagnosis, Effect, Ends, Finding, Status};
use crate::units::grouped;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

impl Diagnosis {
    /// The text, with colours where they are wanted.
    pub fn text(&self, colour: bool) -> String {
        let paint = |style: &str, text: &str| match colour {
            true => format!("{style}{text}{PLAIN}"),
            false => text.to_owned(),
        };
        let mut out = String::new();
        let style = if self.enough { GREEN } else { RED };
        let _ = writeln!(out, "{}", paint(style, &self.verdict));
        let _ = writeln!(
            out,
            "for {} connections, a heartbeat every {} s, {}\n",
            grouped(self.connections),
            self.heartbeat_interval_ms as f64 / 1e3,
            match self.ends {
                Ends::Server => "the server's end on this host",
                Ends::Clients => "the clients' end on this host",
                Ends::Both => "both ends on this host",
            }
        );
        let header = row("", "limit", "here", "needed");
        let _ = writeln!(out, "{}", paint(BOLD, &header));
        for check in &self.checks {
            let (style, mark) = mark(check);
            let line = row(mark, check.name, &check.present, &check.needed);
            let (mark, rest) = line.split_at(MARK_COLUMNS);
            let _ = writeln!(out, "{}{}", paint(style, mark), rest.trim_end());
            let _ = writeln!(out, "{:MARK_COLUMNS$}{}", "", paint(DIM, &check.why));
            if check.status == Status::NotEnough
                && let Some(command) = &check.command
            {
                let _ =
                    writeln!(out, "{:MARK_COLUMNS$}{}", "", paint(BOLD, &format!("$ {command}")));
            }
        }
        let _ = writeln!(out, "\n{}", paint(BOLD, "memory, as predicted"));
        for line in &self.budget.lines {
            let _ = writeln!(
                out,
                "  {:<32} {:>10} x {:>9} B = {:>8} MiB",
                line.name,
                grouped(line.count),
                grouped(line.bytes_each),
                mib(line.bytes)
            );
        }
        let _ = writeln!(
            out,
            "  {:<32} {:>10}   {:>9} B = {:>8} MiB",
            "all, and for each connection",
            "",
            grouped(self.budget.bytes_per_connection),
            mib(self.budget.bytes)
        );
        out
    }
}

/// The width of the first column.
const MARK_COLUMNS: usize = 8;

fn row(mark: &str, name: &str, present: &str, needed: &str) -> String {
    format!("{mark:<MARK_COLUMNS$}{name:<34} {present:<26} {needed}")
}

fn mark(check: &Finding) -> (&'static str, &'static str) {
    match (check.status, check.effect) {
        (Status::Enough, _) => (GREEN, "ok"),
        (Status::Unknown, _) => (DIM, "?"),
        (Status::NotEnough, Effect::Slows) => (YELLOW, "slows"),
        (Status::NotEnough, Effect::Stops) => (RED, "STOPS"),
    }
}

fn mib(bytes: u64) -> String {
    grouped(bytes.div_ceil(1 << 20))
}
