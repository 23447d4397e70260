//! What makes two runs unlike, so that their numbers say less about what was changed between them.

use crate::report::{Report, differences};

/// What differs beside the numbers, each as `name: old -> new`.
pub fn unlike(old: &Report, new: &Report) -> Vec<String> {
    let mut found = Vec::new();
    for (report, which) in [(old, "old"), (new, "new")] {
        if matches!(report.verdict.as_str(), "void" | "interrupted") {
            found.push(format!("the {which} one is {}", report.verdict));
        }
    }
    let mut differ = |name: &str, old: String, new: String| {
        if old != new {
            found.push(format!("{name}: {old} -> {new}"));
        }
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    differ("protocol", old.protocol.clone(), new.protocol.clone());
    differ("engine", text(&old.engine), text(&new.engine));
    differ("sweep", text(&old.sweep), text(&new.sweep));
    differ("seed", old.seed.to_string(), new.seed.to_string());
    differ("generators", generators(old), generators(new));
    differ("host of the server", host(&old.target), host(&new.target));
    for (name, old, new) in differences(&old.requested, &new.requested) {
        if name != "start_at_unix_s" {
            differ(&format!("requested {name}"), old, new);
        }
    }
    for (name, old, new) in differences(&old.environment, &new.environment) {
        // Another command is told by what was requested; the host may have been started anew.
        if !["command", "boot_id", "network_namespace"].contains(&name.as_str()) {
            differ(&format!("environment {name}"), old, new);
        }
    }
    differ("events", events(old), events(new));
    found
}

fn generators(report: &Report) -> String {
    report.parts.len().max(1).to_string()
}

/// Without the port, which is another one with every server.
fn host(target: &str) -> String {
    target.rsplit_once(':').map_or(target, |(host, _)| host).to_owned()
}

fn events(report: &Report) -> String {
    let told = report.events.iter().map(|event| format!("{} at {} ms", event.kind, event.at_ms));
    let told: Vec<String> = told.collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_with_both_values() {
        let mut old = Report::default();
        old.environment.kernel = "6.1".to_owned();
        old.requested.connections = 1_000;
        let mut new = old.clone();
        assert_eq!(unlike(&old, &new), [""; 0]);
        new.environment.kernel = "6.18".to_owned();
        new.environment.command = "loadgen -c 2k".to_owned();
        new.requested.connections = 2_000;
        new.verdict = "void".to_owned();
        new.engine = Some("epoll".to_owned());
        let found = unlike(&old, &new);
        assert_eq!(
            found,
            [
                "the new one is void",
                "engine: none -> epoll",
                "requested connections: 1000 -> 2000",
                "environment kernel: 6.1 -> 6.18"
            ]
        );
    }
}
