//! A run's report as the judge of limits reads it: numbers by their path, absent ones as none.

use serde_json::Value;

/// The report of one run.
#[derive(Clone, Copy)]
pub struct Facts<'a>(pub &'a Value);

/// What the run did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not everybody was opened, or not fast enough.
    Connecting,
    /// All were open, and something else was not well.
    Holding,
}

impl<'a> Facts<'a> {
    fn at(self, path: &str) -> &'a Value {
        path.split('.').fold(self.0, |value, name| &value[name])
    }

    /// A number, if it is known.
    pub fn number(self, path: &str) -> Option<f64> {
        self.at(path).as_f64()
    }

    /// A count; what is not known counts as 0.
    pub fn count(self, path: &str) -> u64 {
        self.at(path).as_u64().unwrap_or(0)
    }

    /// A text, if it is there.
    pub fn text(self, path: &str) -> Option<&'a str> {
        self.at(path).as_str()
    }

    /// Several texts.
    pub fn texts(self, path: &str) -> impl Iterator<Item = &'a str> {
        self.at(path).as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// Counts by reason, those of 0 left out.
    pub fn reasons(self, path: &str) -> impl Iterator<Item = (&'a str, u64)> {
        let counts = self.at(path).as_object().into_iter().flatten();
        let counts = counts.filter_map(|(reason, count)| Some((reason.as_str(), count.as_u64()?)));
        counts.filter(|&(_, count)| count > 0)
    }

    /// `passed`, `failed`, `not reached`, `void` or `interrupted`.
    pub fn verdict(self) -> &'a str {
        self.text("verdict").unwrap_or("")
    }

    /// SLOs that do not hold: the expression, and the value.
    pub fn broken_slos(self) -> impl Iterator<Item = (&'a str, Option<f64>)> {
        let all = self.at("slo").as_array().into_iter().flatten();
        let broken = all.filter(|slo| slo["holds"] == false);
        broken.filter_map(|slo| Some((slo["expression"].as_str()?, slo["value"].as_f64())))
    }

    /// Whether it went wrong while connecting.
    pub fn stage(self) -> Stage {
        let mut broken = self.broken_slos().peekable();
        let slow_to_open =
            broken.peek().is_some() && broken.all(|(slo, _)| slo.starts_with("connect."));
        let open = self.count("connections.opened") >= self.count("connections.requested");
        if open && !slow_to_open { Stage::Holding } else { Stage::Connecting }
    }

    /// The server's end is on this host: its process is known, or it is spoken to over loopback.
    pub fn has_server(self) -> bool {
        let target = self.text("target").unwrap_or("");
        let address = target.split("://").nth(1).unwrap_or("");
        self.number("server.pid").is_some()
            || address.starts_with("127.")
            || address.starts_with("[::1]")
    }

    /// The cores that this host has for both programs.
    pub fn cores(self) -> f64 {
        self.number("environment.cores").unwrap_or(1.0).max(1.0)
    }

    /// The cores that `side` (`server` or `generator`) used on average while connecting.
    pub fn cores_while_connecting(self, side: &str) -> Option<f64> {
        let series = self.at("series");
        let numbers = |name: &str| series[name].as_array().map(Vec::as_slice).unwrap_or(&[]);
        let phases = numbers("phases");
        let from_s = |phase: &Value| phase["from_s"].as_f64();
        let number = phases.iter().position(|phase| phase["name"] == "connecting")?;
        let (from, until) = (from_s(&phases[number])?, phases.get(number + 1).and_then(from_s));
        let until = until.unwrap_or(f64::MAX);
        let all = numbers("at_s").iter().zip(numbers(&format!("{side}_cpu_cores")));
        let within = all.filter_map(|(at, cores)| {
            let at = at.as_f64()?;
            // Each look tells of the time before it.
            (at > from && at <= until).then(|| cores.as_f64()).flatten()
        });
        let (count, sum) = within.fold((0u32, 0.0), |(count, sum), cores| (count + 1, sum + cores));
        (count > 0).then(|| sum / f64::from(count))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_absent_is_none() {
        let report = json!({"server": {"pid": null}, "rtt_us": {"p99": 5}});
        let facts = Facts(&report);
        assert_eq!((facts.number("rtt_us.p99"), facts.number("rtt_us.max.x")), (Some(5.0), None));
        assert_eq!((facts.count("a.b"), facts.reasons("a.b").count()), (0, 0));
        assert!(!facts.has_server());
    }

    #[test]
    fn a_run_that_opens_slowly_failed_while_connecting() {
        let run = |opened: u32, slo: &str| {
            let slo = json!([{"expression": slo, "holds": slo.is_empty(), "value": 1}]);
            let connections = json!({"requested": 5, "opened": opened});
            Facts(&json!({"connections": connections, "slo": slo})).stage()
        };
        assert_eq!(run(5, ""), Stage::Holding);
        assert_eq!(run(5, "rtt.p99<5ms"), Stage::Holding);
        assert_eq!(run(4, "rtt.p99<5ms"), Stage::Connecting);
        assert_eq!(run(5, "connect.latency.p99<5ms"), Stage::Connecting);
    }

    #[test]
    fn cores_while_connecting_are_those_of_that_phase() {
        let report = json!({"series": {
            "phases": [{"name": "connecting", "from_s": 0.0}, {"name": "holding", "from_s": 1.0}],
            "at_s": [0.0, 0.5, 1.0, 1.5],
            "server_cpu_cores": [null, 0.5, 0.7, 0.1],
        }});
        let cores = Facts(&report).cores_while_connecting("server").unwrap();
        assert!((cores - 0.6).abs() < 1e-9, "{cores}");
        assert_eq!(Facts(&report).cores_while_connecting("generator"), None);
    }
}
