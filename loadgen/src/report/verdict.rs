//! The verdict, and the exit code that goes with it.

use super::Report;
use crate::units::grouped;

/// Sets verdict, exit code and reasons from everything else in the report. `broken` are reasons
/// that no number shows, such as a server that died.
pub fn pass(report: &mut Report, interrupted: bool, broken: Vec<String>) {
    let failed = broken.into_iter().chain(failures(report)).collect::<Vec<_>>();
    let connections = &report.connections;
    // What has failed besides is told, too.
    let with_failed = |reason: String| [vec![reason], failed.clone()].concat();
    let (verdict, exit_code, reasons) = if interrupted {
        ("interrupted", 105, with_failed("interrupted before its end".to_owned()))
    } else if let Some(reason) = &report.generator.saturated_by {
        ("void", 101, with_failed(format!("the generator was the bottleneck: {reason}")))
    } else if connections.opened < connections.requested {
        let reason = format!(
            "{} of {} connections were opened",
            grouped(connections.opened),
            grouped(connections.requested)
        );
        ("not reached", 100, with_failed(reason))
    } else if failed.is_empty() {
        ("passed", 0, failed)
    } else {
        ("failed", 99, failed)
    };
    (report.verdict, report.exit_code, report.reasons) = (verdict.to_owned(), exit_code, reasons);
}

/// The same for a report of which each part has a verdict of its own. What laws and SLOs say is
/// judged over all; a law that one part broke stays broken even if another makes up for it.
pub fn of_parts(report: &mut Report) {
    let of = |verdict: &str| -> Vec<String> {
        let found = report.parts.iter().filter(|part| part.verdict == verdict);
        found.map(|part| part.part.number.to_string()).collect()
    };
    let interrupted = of("interrupted");
    let own = report.parts.iter().filter(|part| matches!(part.exit_code, 99 | 100));
    let broken = own.flat_map(|part| {
        let lasting = part.reasons.iter().filter(|reason| !reason.starts_with("SLO: "));
        lasting.map(|reason| format!("part {}: {reason}", part.part.number))
    });
    let broken = broken.collect();
    pass(report, !interrupted.is_empty(), broken);
    if !interrupted.is_empty() {
        report.reasons[0] = format!("interrupted: part {}", interrupted.join(", part "));
    }
}

fn failures(report: &Report) -> Vec<String> {
    let laws = report.laws.iter().filter(|law| !law.holds);
    let laws = laws.map(|law| format!("law: {} ({} against {})", law.name, law.left, law.right));
    let slos = report.slo.iter().filter(|slo| !slo.holds);
    let slos = slos.map(|slo| match slo.value {
        Some(value) => format!("SLO: {} (it is {value})", slo.expression),
        None => format!("SLO: {} (it has no value)", slo.expression),
    });
    laws.chain(slos).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::SloOutcome;

    fn judged(change: impl FnOnce(&mut Report), interrupted: bool) -> (u8, String) {
        let mut report = Report::default();
        (report.connections.requested, report.connections.opened) = (5, 5);
        change(&mut report);
        pass(&mut report, interrupted, Vec::new());
        (report.exit_code, report.verdict)
    }

    #[test]
    fn every_exit_code_has_its_case() {
        let slo = SloOutcome { expression: "a<1".to_owned(), holds: false, value: None };
        assert_eq!(judged(|_| {}, false), (0, "passed".to_owned()));
        assert_eq!(judged(|report| report.slo.push(slo.clone()), false), (99, "failed".to_owned()));
        assert_eq!(
            judged(|report| report.connections.opened = 4, false),
            (100, "not reached".to_owned())
        );
        let saturated = |report: &mut Report| {
            report.generator.saturated_by = Some("x".to_owned());
            report.connections.opened = 4;
        };
        assert_eq!(judged(saturated, false), (101, "void".to_owned()));
        assert_eq!(judged(saturated, true), (105, "interrupted".to_owned()));
    }
}
