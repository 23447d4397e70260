//! The laws: accounts that must balance, whatever the load.

use serde_json::Value;

use super::Law;
use crate::server::Final;
use crate::stats::Stats;

/// The generator's own laws.
pub fn own(requested: u64, stats: &Stats) -> Vec<Law> {
    let broken_closes = stats.closed_by_server_total() + stats.closed_by_us;
    let judged = stats.expired + stats.early + stats.missed + stats.undecided;
    vec![
        law("requested = opened + failed", requested, stats.opened + stats.failed_total()),
        law("opened = closed by the server + closed by us", stats.opened, broken_closes),
        law("heartbeats sent = answered", stats.sent, stats.acked),
        law("answers to nothing = 0", stats.stray_pongs, 0),
        law(
            "opened = open at the end + expired rightly",
            stats.opened,
            stats.open_at_end + stats.expired + stats.expired_after_end,
        ),
        law("silenced = expired + early + missed + undecided", stats.silenced, judged),
        law("silenced = expired", stats.silenced, stats.expired),
        law("closed early or in good health = 0", stats.early + stats.healthy_closed, 0),
        law("connections left unclosed = 0", stats.left_open, 0),
    ]
}

/// What the generator and its own server must agree about.
pub fn shared(stats: &Stats, server: &Final) -> Vec<Law> {
    let pairs = [
        ("opened by the generator = opened by the server", stats.opened, "opened"),
        ("bytes sent = bytes that the server received", stats.bytes_sent, "bytes_received"),
        ("bytes received = bytes that the server sent", stats.bytes_received, "bytes_sent"),
        ("heartbeats sent = received by the server", stats.sent, "heartbeats_received"),
        ("heartbeats answered = answered by the server", stats.acked, "heartbeats_answered"),
        ("expired before their time, as the server sees it = 0", 0, "expired_early"),
    ];
    // A counter that this server does not have cannot be compared.
    let known = |name: &str| server.counters.get(name).and_then(Value::as_u64);
    let mut laws: Vec<Law> = pairs
        .into_iter()
        .filter_map(|(name, ours, theirs)| Some(law(name, ours, known(theirs)?)))
        .collect();
    laws.extend(server.laws.iter().cloned().map(|mut law| {
        law.name = format!("server: {}", law.name);
        law
    }));
    laws
}

fn law(name: &str, left: u64, right: u64) -> Law {
    Law { name: name.to_owned(), holds: left == right, left: left.into(), right: right.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn broken(laws: &[Law]) -> Vec<&str> {
        laws.iter().filter(|law| !law.holds).map(|law| law.name.as_str()).collect()
    }

    #[test]
    fn a_clean_run_balances_and_a_lost_client_does_not() {
        let mut stats = Stats::new();
        (stats.opened, stats.open_at_end, stats.closed_by_us) = (10, 9, 9);
        (stats.silenced, stats.expired) = (1, 1);
        stats.closed_by_server.insert("fin", 1);
        assert_eq!(broken(&own(10, &stats)), Vec::<&str>::new());
        stats.open_at_end = 8;
        stats.closed_by_us = 8;
        stats.healthy_closed = 1;
        stats.closed_by_server.insert("fin", 2);
        let broken = broken(&own(10, &stats)).join("; ");
        assert_eq!(
            broken,
            "opened = open at the end + expired rightly; closed early or in good health = 0"
        );
    }

    #[test]
    fn both_sides_are_compared_where_both_are_known() {
        let mut stats = Stats::new();
        (stats.opened, stats.bytes_sent) = (3, 9);
        let server = Final {
            counters: json!({"opened": 3, "bytes_received": 8}),
            laws: vec![law("accepted = opened + rejected", 3, 3)],
            failure: None,
        };
        let laws = shared(&stats, &server);
        assert_eq!(laws.len(), 3);
        assert_eq!(broken(&laws), ["bytes sent = bytes that the server received"]);
    }
}
