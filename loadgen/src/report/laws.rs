//! The laws: accounts that must balance, whatever the load.

use serde_json::Value;

use super::{Law, Push};
use crate::server::Final;
use crate::stats::Stats;

/// How the name of a law begins that one shard of the server keeps or breaks.
pub const OF_A_SHARD: &str = "server, shard";

/// The generator's own laws.
pub fn own(requested: u64, stats: &Stats) -> Vec<Law> {
    let broken_closes = stats.closed_by_server_total() + stats.closed_by_us;
    let scene = &stats.scene;
    let opened = stats.opened + scene.reopened;
    let by_plan = scene.killed + scene.churned + scene.drained + scene.slow_closed;
    let judged = stats.expired + stats.early + stats.missed + stats.undecided;
    vec![
        law("requested = opened + failed", requested, stats.opened + stats.failed_total()),
        law("opened = closed by the server + closed by us", opened, broken_closes),
        law(
            "heartbeats sent = answered + cut off by plan + not read",
            stats.sent,
            stats.acked + scene.cut_off + scene.unread,
        ),
        law("answers to nothing = 0", stats.stray_pongs, 0),
        law(
            "opened = open at the end + expired rightly + closed by plan",
            opened,
            stats.open_at_end + stats.expired + stats.expired_after_end + by_plan,
        ),
        law("silenced = expired + early + missed + undecided", stats.silenced, judged),
        law("silenced = expired", stats.silenced, stats.expired),
        law("expired later than a tick and 1 s after the timeout = 0", stats.expired_late, 0),
        law("closed early or in good health = 0", stats.early + stats.healthy_closed, 0),
        law("lost and to come back = reopened + away", scene.lost, scene.reopened + scene.away),
        law("connections left unclosed = 0", stats.left_open, 0),
    ]
}

/// What the kernel and the generator must agree about, while nothing opens or closes.
pub fn established(kernel: u64, ours: u64) -> Law {
    law("established at the server, says the kernel = open, say we", kernel, ours)
}

/// What was pushed. `acknowledged`: both sides must have counted the same receipts.
pub fn pushes(push: &Push, acknowledged: bool) -> Vec<Law> {
    if push.broadcasts == 0 {
        return Vec::new();
    }
    let not_received = push.missing_by.get("not received").copied().unwrap_or(0);
    let mut laws = vec![
        law("pushes expected = received + missing", push.expected, push.received + push.missing),
        law("pushes that those who stayed open did not receive = 0", not_received, 0),
        law("pushes received twice = 0", push.duplicates, 0),
    ];
    let server = &push.server;
    if let (Some(requested), Some(written)) = (server.requested, server.unconfirmed) {
        let dropped = server.dropped.values().sum::<u64>();
        let ended = server.acknowledged.unwrap_or(0) + written + dropped;
        let right = ended + server.pending.unwrap_or(0);
        let name = "server: pushes requested = acknowledged + unconfirmed + dropped + pending";
        laws.push(law(name, requested, right));
    }
    if let Some(theirs) = server.acknowledged.filter(|_| acknowledged) {
        laws.push(law("receipts sent = pushes acknowledged by the server", push.acked, theirs));
    }
    laws
}

/// What the generator and its own server must agree about. If connections were cut off, the server
/// need not have seen all that was sent to it.
pub fn shared(stats: &Stats, server: &Final, gentle: bool) -> Vec<Law> {
    let opened = stats.opened + stats.scene.reopened;
    let pairs = [
        ("opened by the generator = opened by the server", opened, "opened"),
        ("bytes sent = bytes that the server received", stats.bytes_sent, "bytes_received"),
        ("bytes received = bytes that the server sent", stats.bytes_received, "bytes_sent"),
        ("heartbeats sent = received by the server", stats.sent, "heartbeats_received"),
        ("heartbeats answered = answered by the server", stats.acked, "heartbeats_answered"),
        ("expired before their time, as the server sees it = 0", 0, "expired_early"),
    ];
    // An attempt that was given up here may have been an opening there, with all that was said.
    let given_up = stats.given_up();
    let countable = if stats.scene.reopening_failed.is_empty() { "opened" } else { "" };
    let touched = ["opened", "bytes_received", "bytes_sent"];
    // A counter that this server does not have cannot be compared.
    let known = |name: &str| server.counters.get(name).and_then(Value::as_u64);
    // What the server asks of a client that is just leaving is not read any more.
    let asked = known("server_pings_sent").is_some_and(|count| count > 0);
    let mut laws: Vec<Law> = pairs
        .into_iter()
        .filter(|&(.., theirs)| !(asked && theirs == "bytes_sent"))
        .filter(|&(.., theirs)| gentle || theirs == "expired_early" || theirs == countable)
        .filter(|&(.., theirs)| given_up == 0 || !touched.contains(&theirs))
        .filter_map(|(name, ours, theirs)| Some(law(name, ours, known(theirs)?)))
        .collect();
    if !gentle || given_up > 0 {
        laws.extend(bounds(stats, known));
    }
    if let Some(theirs) = known("opened").filter(|_| given_up > 0 && countable == "opened") {
        let name = "opened by the server <= opened + given up by the generator";
        laws.push(at_most("opened by the generator <= opened by the server", opened, theirs));
        laws.push(at_most(name, theirs, opened + given_up));
    }
    if asked && gentle {
        let sent = known("bytes_sent").unwrap_or(0);
        laws.push(at_most("bytes received <= sent by the server", stats.bytes_received, sent));
    }
    let named =
        |whose: String, law: &Law| Law { name: format!("{whose}: {}", law.name), ..law.clone() };
    laws.extend(server.laws.iter().map(|law| named("server".to_owned(), law)));
    for (number, shard) in server.shards.iter().enumerate() {
        laws.extend(shard.laws.iter().map(|law| named(format!("{OF_A_SHARD} {number}"), law)));
    }
    laws
}

/// What holds even if connections were cut off: nobody has received more than was sent.
fn bounds(stats: &Stats, known: impl Fn(&str) -> Option<u64>) -> Vec<Law> {
    let pairs = [
        ("bytes that the server received <= sent", "bytes_received", stats.bytes_sent),
        ("heartbeats received by the server <= sent", "heartbeats_received", stats.sent),
    ];
    let bound = |(name, theirs, ours)| Some(at_most(name, known(theirs)?, ours));
    pairs.into_iter().filter_map(bound).collect()
}

fn at_most(name: &str, left: u64, right: u64) -> Law {
    Law { name: name.to_owned(), holds: left <= right, left: left.into(), right: right.into() }
}

fn law(name: &str, left: u64, right: u64) -> Law {
    Law { name: name.to_owned(), holds: left == right, left: left.into(), right: right.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::ShardLaws;
    use crate::stats::NOT_TRIED;

    fn broken(laws: &[Law]) -> Vec<&str> {
        laws.iter().filter(|law| !law.holds).map(|law| law.name.as_str()).collect()
    }

    #[test]
    fn a_clean_run_balances_and_a_lost_client_does_not() {
        let mut stats = Stats::new(0);
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
            "opened = open at the end + expired rightly + closed by plan; \
             closed early or in good health = 0"
        );
    }

    #[test]
    fn both_sides_are_compared_where_both_are_known() {
        let mut stats = Stats::new(0);
        (stats.opened, stats.bytes_sent) = (3, 9);
        let server = Final {
            counters: json!({"opened": 3, "bytes_received": 8}),
            laws: vec![law("accepted = opened + rejected", 3, 3)],
            shards: Vec::new(),
            failure: None,
        };
        let laws = shared(&stats, &server, true);
        assert_eq!(laws.len(), 3);
        assert_eq!(broken(&laws), ["bytes sent = bytes that the server received"]);
    }

    /// Two shards whose faults make up for each other in the sum.
    #[test]
    fn a_shard_that_breaks_a_law_is_named_with_both_sides() {
        let wrong =
            |left, right| Law { holds: false, ..law("opened = open + closed", left, right) };
        let shard = |laws: &[Law]| ShardLaws { laws: laws.to_vec() };
        let server = Final {
            laws: vec![wrong(8, 8)],
            shards: vec![
                shard(&[wrong(5, 4), law("open = in the sweeper", 1, 1)]),
                shard(&[wrong(3, 4)]),
            ],
            ..Final::default()
        };
        let laws = shared(&Stats::new(0), &server, true);
        let names = [
            "server: opened = open + closed",
            "server, shard 0: opened = open + closed",
            "server, shard 1: opened = open + closed",
        ];
        assert_eq!(broken(&laws), names);
        // Those that hold are told of too.
        assert_eq!(laws[2].name, "server, shard 0: open = in the sweeper");
        assert_eq!((laws[3].left.as_u64(), laws[3].right.as_u64()), (Some(3), Some(4)));
        assert_eq!(laws.len(), 4);
    }

    #[test]
    fn whoever_was_given_up_here_may_have_been_opened_there() {
        let mut stats = Stats::new(0);
        (stats.opened, stats.bytes_sent, stats.bytes_received) = (3, 9, 9);
        stats.failed.insert("no WELCOME or upgrade in time", 2);
        stats.failed.insert(NOT_TRIED, 7);
        let laws = |opened: u64| {
            let counters = json!({"opened": opened, "bytes_received": 8, "bytes_sent": 10});
            shared(&stats, &Final { counters, ..Final::default() }, true)
        };
        for may_be in 3..=5 {
            assert_eq!(broken(&laws(may_be)), [""; 0], "{may_be}");
        }
        assert_eq!(broken(&laws(2)), ["opened by the generator <= opened by the server"]);
        let name = "opened by the server <= opened + given up by the generator";
        assert_eq!(broken(&laws(6)), [name]);
    }

    #[test]
    fn what_the_kernel_counts_beside_ours_breaks_a_law() {
        assert!(established(40, 40).holds);
        assert!(!established(41, 40).holds && !established(39, 40).holds);
    }
}
