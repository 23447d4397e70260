//! The eviction oracle: what the server ought to have done with a client that it closed.
//!
//! What it can know: the server received a client's last bytes no sooner than they were sent, and
//! closed the connection no later than the end of it was seen here. So
//! - an expiry is *provably early* if even the bytes' sending plus the timeout lies later than the
//!   end that was seen;
//! - the lateness of any other is *at most* the time from sending plus timeout until the end was
//!   seen. The true lateness is smaller by both network delays and by the time until this loop
//!   looked (a millisecond or so each on one host). An expiry that is early by less than that
//!   cannot be told from one in time.

use std::time::Duration;

use heartwheel::time::Timestamp;

/// A connection's end that the server brought about.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// The plan had this client silent by then.
    pub silent: bool,
    /// The server had said good-bye (GOAWAY).
    pub dismissed: bool,
    /// When this client sent its last bytes (not later than the kernel did).
    pub last_sent: Timestamp,
    /// When the end was seen here.
    pub seen: Timestamp,
    /// The server's rule, if it is known.
    pub idle_timeout: Option<Duration>,
}

/// What is to be thought of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it had to be, and no later than by this after the timeout.
    Expired {
        /// An upper bound; `None` where the timeout is not known.
        late_at_most: Option<Duration>,
    },
    /// Silent, but provably closed before its time.
    Early,
    /// It kept its heartbeats, and was closed.
    Healthy,
    /// It was to keep its heartbeats, but this generator was late by more than the timeout: the
    /// server was right to close it.
    OurDelay,
    /// The server said good-bye first.
    Dismissed,
}

/// Judges one ending.
pub fn judge(ending: Ending) -> Verdict {
    if ending.dismissed {
        return Verdict::Dismissed;
    }
    let Some(idle_timeout) = ending.idle_timeout else {
        return match ending.silent {
            true => Verdict::Expired { late_at_most: None },
            false => Verdict::Healthy,
        };
    };
    let earliest = ending.last_sent + idle_timeout;
    match (ending.silent, ending.seen < earliest) {
        (true, true) => Verdict::Early,
        (true, false) => Verdict::Expired { late_at_most: Some(ending.seen.since(earliest)) },
        (false, true) => Verdict::Healthy,
        (false, false) => Verdict::OurDelay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(silent: bool, seen_ms: u64) -> Ending {
        Ending {
            silent,
            dismissed: false,
            last_sent: Timestamp::from_nanos(1_000_000_000),
            seen: Timestamp::from_nanos(seen_ms * 1_000_000),
            idle_timeout: Some(Duration::from_secs(15)),
        }
    }

    #[test]
    fn the_silent_must_go_but_not_before_their_time() {
        assert_eq!(judge(ending(true, 15_999)), Verdict::Early);
        let late = |ms| Verdict::Expired { late_at_most: Some(Duration::from_millis(ms)) };
        assert_eq!(judge(ending(true, 16_000)), late(0));
        assert_eq!(judge(ending(true, 16_120)), late(120));
    }

    #[test]
    fn the_healthy_must_stay() {
        assert_eq!(judge(ending(false, 9_000)), Verdict::Healthy);
        assert_eq!(judge(ending(false, 16_001)), Verdict::OurDelay);
    }

    #[test]
    fn a_good_bye_is_no_expiry_and_an_unknown_rule_has_no_lateness() {
        assert_eq!(judge(Ending { dismissed: true, ..ending(true, 9) }), Verdict::Dismissed);
        let unknown = Ending { idle_timeout: None, ..ending(true, 9) };
        assert_eq!(judge(unknown), Verdict::Expired { late_at_most: None });
        assert_eq!(judge(Ending { silent: false, ..unknown }), Verdict::Healthy);
    }
}
