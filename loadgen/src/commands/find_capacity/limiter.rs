//! What a load ran into: from the report of a run to the name of a limit, with the evidence.
//!
//! Pure. Each rule looks at one kind of evidence and may accuse; the strongest accusation comes
//! first, and among equals the rule that stands first. `docs/CAPACITY.md` tells each of them.

use serde::Serialize;

use super::cpu;
use super::facts::{Facts, Stage};
use super::rules;

/// What a load can run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limiter {
    /// No pair of source address and port was left.
    Ports,
    /// Of a process, of the host, or of the tables of the server's rings.
    Descriptors,
    /// The memory that TCP may take.
    TcpMem,
    /// Of the host, or as much as the server allows itself.
    Memory,
    /// The server could do no more.
    ServerCpu,
    /// The load generator could do no more: the server may well hold more.
    GeneratorCpu,
    /// Both programs, and perhaps others, had used up the cores that they share.
    HostCpu,
    /// The load generator stood still, although there was CPU time to be had.
    GeneratorHeldUp,
    /// Of a listening socket of the server.
    AcceptQueue,
    /// Packets wait there on their way, and what does not fit is dropped.
    PacketBacklog,
    /// The server turned clients away by a limit of its own.
    ServerLimit,
    /// The server ended.
    ServerEnded,
    /// An SLO broke while nothing was seen at its end.
    Slo,
    /// None of these.
    Other,
}

impl Limiter {
    /// As it is told in a sentence: "limited by …".
    pub fn told(self) -> &'static str {
        match self {
            Limiter::Ports => "ports",
            Limiter::Descriptors => "descriptors",
            Limiter::TcpMem => "tcp_mem",
            Limiter::Memory => "memory",
            Limiter::ServerCpu => "the server's CPU",
            Limiter::GeneratorCpu => "the load generator's own CPU",
            Limiter::HostCpu => "the CPU of this host",
            Limiter::GeneratorHeldUp => "the load generator, which was held up",
            Limiter::AcceptQueue => "the accept queue",
            Limiter::PacketBacklog => "the packet backlog",
            Limiter::ServerLimit => "the server's own limit",
            Limiter::ServerEnded => "the server, which ended",
            Limiter::Slo => "the SLO itself",
            Limiter::Other => "something else",
        }
    }

    /// What moves this limit.
    pub fn cure(self) -> &'static str {
        match self {
            Limiter::Ports => "more --source-ips, or a wider net.ipv4.ip_local_port_range",
            Limiter::Descriptors => "a higher RLIMIT_NOFILE (`ulimit -n`) or fs.file-max",
            Limiter::TcpMem => "a larger net.ipv4.tcp_mem",
            Limiter::Memory => "more memory, or a higher --memory-limit of the server",
            Limiter::ServerCpu => "more cores or shards for the server, or a longer interval",
            Limiter::GeneratorCpu => "load generators on more hosts, or a longer interval",
            Limiter::HostCpu => {
                "the load generator on another host, less beside it, or a longer interval"
            }
            Limiter::GeneratorHeldUp => "a quieter host; other programs, or a hypervisor, ran",
            Limiter::AcceptQueue => "a larger net.core.somaxconn, or a lower --connect-rate",
            Limiter::PacketBacklog => "a larger net.core.netdev_max_backlog",
            Limiter::ServerLimit => "other flags for the server (--max-connections and its like)",
            Limiter::ServerEnded => "its log tells why",
            Limiter::Slo => "a look at the report: nothing that was measured was at its end",
            Limiter::Other => "a look at the report",
        }
    }
}

/// How much an accusation is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// An error or a counter names it.
    Certain,
    /// It was at its end, and that fits what went wrong.
    Strong,
    /// It may have played a part.
    Weak,
}

/// A limit, and why it is accused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suspect {
    /// The limit.
    pub limiter: Limiter,
    /// How much the evidence is worth.
    pub strength: Strength,
    /// What was seen.
    pub evidence: String,
}

impl Suspect {
    /// An error or a counter names it.
    pub fn certain(limiter: Limiter, evidence: impl Into<String>) -> Suspect {
        Suspect { limiter, strength: Strength::Certain, evidence: evidence.into() }
    }

    /// It was at its end.
    pub fn strong(limiter: Limiter, evidence: impl Into<String>) -> Suspect {
        Suspect { limiter, strength: Strength::Strong, evidence: evidence.into() }
    }

    /// It may have played a part.
    pub fn weak(limiter: Limiter, evidence: impl Into<String>) -> Suspect {
        Suspect { limiter, strength: Strength::Weak, evidence: evidence.into() }
    }
}

type Rule = fn(Facts<'_>, Stage) -> Vec<Suspect>;

const RULES: [Rule; 10] = [
    rules::killed_for_memory,
    rules::server_ended,
    rules::refused_by_the_kernel,
    rules::rejected_by_the_server,
    rules::slo_on_a_resource,
    rules::little_left,
    rules::dropped_by_the_kernel,
    rules::accept_queue,
    cpu::used_up,
    rules::without_a_better_reason,
];

/// What a run that did not pass ran into, the likeliest first; never empty.
pub fn suspects(report: &serde_json::Value) -> Vec<Suspect> {
    let facts = Facts(report);
    let stage = facts.stage();
    let mut all: Vec<Suspect> = RULES.iter().flat_map(|rule| rule(facts, stage)).collect();
    // Stable: among equals the order of the rules stays.
    all.sort_by_key(|suspect| suspect.strength);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::report::Report;

    /// A run that opened everybody on a host of two cores with these numbers otherwise.
    fn report(numbers: Value) -> Value {
        let mut report = serde_json::to_value(Report::default()).unwrap();
        let healthy = json!({
            "verdict": "failed",
            "target": "tcp://127.0.0.1:7400",
            "environment": {"cores": 2, "memory_bytes": 24_000_000_000u64,
                "tcp_mem_pages": "1000 2000 3000"},
            "connections": {"requested": 1_000, "opened": 1_000},
            "heartbeats": {"sent": 100_000},
            "server": {"pid": 7, "cpu_cores": 0.3},
            "generator": {"cpu_cores": 0.3},
            "host": {"cpu_busy": 0.4, "cpu_busiest_core": 0.5, "server_busiest_thread": 0.2,
                "generator_busiest_thread": 0.2, "memory_available_bytes": 9_000_000_000u64,
                "oom_kills": 0},
        });
        [healthy, numbers].into_iter().for_each(|numbers| lay_over(&mut report, numbers, ""));
        report
    }

    /// What is set must be there: a rule that reads another name would read nothing for ever.
    fn lay_over(under: &mut Value, over: Value, name: &str) {
        let free = ["failed", "closed_by_server", "counters", "series"];
        match (under, over) {
            (Value::Object(under), Value::Object(over)) if !free.contains(&name) => {
                for (name, over) in over {
                    let under = under.get_mut(&name).unwrap_or_else(|| panic!("no {name}"));
                    lay_over(under, over, &name);
                }
            }
            (under, over) => *under = over,
        }
    }

    fn slo(expression: &str) -> Value {
        json!([{"expression": expression, "holds": false, "value": 31_250.0}])
    }

    fn named(numbers: Value) -> Limiter {
        suspects(&report(numbers))[0].limiter
    }

    #[test]
    fn errors_and_counters_name_their_limit() {
        let unopened = |failed: Value, more: Value| {
            let mut numbers = json!({
                "verdict": "not reached",
                "connections": {"opened": 900, "failed": failed},
            });
            numbers.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            named(numbers)
        };
        let none = json!({});
        let rejected = |reason: &str| json!({"server": {"counters": {"rejected": {reason: 100}}}});
        let closed = json!({"closed by the server before WELCOME": 100});
        for (failed, more, limiter) in [
            (json!({"no free source address": 100}), none.clone(), Limiter::Ports),
            (json!({"out of descriptors": 100}), none.clone(), Limiter::Descriptors),
            (json!({"out of kernel memory": 100}), none.clone(), Limiter::Memory),
            (closed.clone(), rejected("max_connections"), Limiter::ServerLimit),
            (closed.clone(), rejected("accept_rate"), Limiter::ServerLimit),
            (closed.clone(), rejected("ring_full"), Limiter::Descriptors),
            (closed.clone(), rejected("memory_limit"), Limiter::Memory),
            (closed.clone(), none.clone(), Limiter::ServerLimit),
            (json!({"reset": 100}), none.clone(), Limiter::ServerLimit),
            (json!({"connection refused": 100}), none.clone(), Limiter::Other),
            (json!({"connecting timed out": 100}), none.clone(), Limiter::Other),
            (
                json!({"connecting timed out": 100}),
                json!({"kernel": {"listen_overflows": 40}}),
                Limiter::AcceptQueue,
            ),
            (
                json!({"connecting timed out": 100}),
                json!({"server": {"pid": null, "cpu_cores": null}, "target": "tcp://192.0.2.1:80"}),
                Limiter::AcceptQueue,
            ),
            (
                json!({"no WELCOME or upgrade in time": 100}),
                json!({"host": {"server_descriptors": 1_024, "server_descriptors_max": 1_024}}),
                Limiter::Descriptors,
            ),
            (
                json!({"no WELCOME or upgrade in time": 100}),
                json!({"series": {
                    "phases": [{"name": "connecting", "from_s": 0.0}], "at_s": [0.0, 1.0],
                    "server_cpu_cores": [null, 1.1], "generator_cpu_cores": [null, 0.85],
                }}),
                Limiter::HostCpu,
            ),
            (json!({"reset": 100}), json!({"server": {"died": "signal: 6"}}), Limiter::ServerEnded),
            (
                json!({"reset": 100}),
                json!({"server": {"died": "signal: 9"}, "host": {"oom_kills": 1}}),
                Limiter::Memory,
            ),
        ] {
            assert_eq!(unopened(failed.clone(), more.clone()), limiter, "{failed} {more}");
        }
    }

    #[test]
    fn a_broken_slo_is_blamed_on_what_was_at_its_end() {
        let rtt = || slo("rtt.p99<5ms");
        for (numbers, limiter) in [
            (json!({"slo": rtt()}), Limiter::Slo),
            (json!({"slo": rtt(), "host": {"server_busiest_thread": 0.98}}), Limiter::ServerCpu),
            (
                json!({"slo": rtt(), "host": {"generator_busiest_thread": 0.98}}),
                Limiter::GeneratorCpu,
            ),
            (
                json!({"slo": rtt(), "host": {"cpu_busy": 0.97, "cpu_busiest_core": 0.99}}),
                Limiter::HostCpu,
            ),
            // Of two threads on one core neither gets it for itself.
            (
                json!({"slo": rtt(), "host": {"cpu_busy": 0.6, "server_busiest_thread": 0.5,
                    "server_thread_wanted": 0.98}}),
                Limiter::HostCpu,
            ),
            // Others keep the cores busy, and nobody here has to wait for one.
            (
                json!({"slo": rtt(), "host": {"cpu_busy": 1.0, "server_thread_wanted": 0.22,
                    "generator_thread_wanted": 0.21}}),
                Limiter::Slo,
            ),
            (
                json!({"slo": rtt(), "host": {"cpu_busy": 1.0, "server_thread_wanted": 0.5,
                    "generator_thread_wanted": 0.21}}),
                Limiter::HostCpu,
            ),
            (
                json!({"slo": rtt(), "target": "tcp://192.0.2.1:80",
                    "server": {"pid": null, "cpu_cores": null}, "host": {"cpu_busy": 0.97}}),
                Limiter::GeneratorCpu,
            ),
            (json!({"slo": rtt(), "kernel": {"softnet_drops": 500}}), Limiter::PacketBacklog),
            (json!({"slo": rtt(), "kernel": {"memory_pressures": 1}}), Limiter::TcpMem),
            (json!({"slo": rtt(), "kernel": {"tcp_memory_pages": 1_990}}), Limiter::TcpMem),
            (json!({"slo": rtt(), "kernel": {"tcp_memory_pages": 900}}), Limiter::Slo),
            (
                json!({"slo": rtt(), "host": {"memory_available_bytes": 500_000_000}}),
                Limiter::Memory,
            ),
            // Connects that were dropped have nothing to do with round trips.
            (json!({"slo": rtt(), "kernel": {"listen_overflows": 40}}), Limiter::Slo),
            (
                json!({"slo": slo("connect.latency.p99<5ms"),
                    "kernel": {"listen_overflows": 40},
                    "connect": {"latency_us": {"max": 1_030_000}}}),
                Limiter::AcceptQueue,
            ),
        ] {
            assert_eq!(named(numbers.clone()), limiter, "{numbers}");
        }
    }

    #[test]
    fn an_slo_on_a_resource_names_it() {
        let busy = json!({"server_busiest_thread": 0.98});
        for (expression, limiter) in [
            ("server.rss_bytes<1GiB", Limiter::Memory),
            ("server.cpu_us_per_heartbeat<9us", Limiter::ServerCpu),
            ("generator.cpu_cores<1", Limiter::GeneratorCpu),
            ("kernel.softnet_drops==0", Limiter::PacketBacklog),
            ("kernel.listen_overflows==0", Limiter::AcceptQueue),
            ("connections.open_at_end<=300", Limiter::Slo),
        ] {
            let numbers = json!({"slo": slo(expression), "host": busy});
            assert_eq!(named(numbers), limiter, "{expression}");
        }
    }

    #[test]
    fn a_void_run_is_the_generators_or_the_hosts() {
        let void = |host: Value, server: f64| {
            named(json!({
                "verdict": "void",
                "generator": {"saturated": true, "saturated_by": "late"},
                "server": {"cpu_cores": server},
                "host": host,
            }))
        };
        let busy = json!({"cpu_busy": 0.98});
        assert_eq!(void(busy.clone(), 1.1), Limiter::HostCpu);
        assert_eq!(void(busy, 0.05), Limiter::HostCpu, "others used them");
        let alone = json!({"cpu_busy": 0.98});
        let alone = report(json!({"verdict": "void", "host": alone,
            "generator": {"cpu_cores": 1.9}, "server": {"cpu_cores": 0.04}}));
        assert_eq!(suspects(&alone)[0].limiter, Limiter::GeneratorCpu);
        assert_eq!(void(json!({"generator_busiest_thread": 0.96}), 0.1), Limiter::GeneratorCpu);
        assert_eq!(void(json!({}), 0.3), Limiter::GeneratorHeldUp);
    }

    #[test]
    fn there_is_always_an_answer_with_evidence() {
        let all = suspects(&report(json!({"reasons": ["law: a = b (1 against 2)"]})));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].limiter, Limiter::Other);
        assert!(all[0].evidence.contains("law: a = b"), "{all:?}");
        assert!(!suspects(&json!({})).is_empty());
    }
}
