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

use crate::limits::SENT_LATE;

/// What a client was to do when its connection ended.
#[derive(Clone, Copy, Debug)]
pub enum Duty {
    /// To keep its heartbeats, the next one at this time.
    Beat {
        /// When.
        due: Timestamp,
    },
    /// To be silent: the server must expire it.
    Silent,
    /// Nothing: the run is over, and the server may expire it.
    Nothing,
}

/// A connection's end that the server brought about.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// What the client was to do.
    pub duty: Duty,
    /// The server had said good-bye (GOAWAY).
    pub dismissed: bool,
    /// When this client sent its last bytes (not later than the kernel did).
    pub last_sent: Timestamp,
    /// How long it had sent nothing when it sent those. If that was the timeout or more, then the
    /// end may have come before them, although it was seen after them.
    pub pause: Duration,
    /// When the end was seen here.
    pub seen: Timestamp,
    /// Whether this generator was held up within the last interval: then the beat that was due may
    /// not have gone, and what had been received may have been read late.
    pub held_up: bool,
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
    /// It was to keep its heartbeats, but this generator was late by more than the timeout allows:
    /// the server was right to close it.
    OurDelay,
    /// Expired rightly after the last heartbeats of the run.
    AfterTheEnd,
    /// The server said good-bye first.
    Dismissed,
}

/// Judges one ending.
pub fn judge(ending: Ending) -> Verdict {
    if ending.dismissed {
        return Verdict::Dismissed;
    }
    let earliest = ending.idle_timeout.map(|timeout| ending.last_sent + timeout);
    let early = earliest.is_some_and(|earliest| ending.seen < earliest);
    if early && ending.idle_timeout.is_some_and(|timeout| ending.pause + SENT_LATE >= timeout) {
        return Verdict::OurDelay;
    }
    match ending.duty {
        Duty::Silent if early => Verdict::Early,
        Duty::Silent => {
            Verdict::Expired { late_at_most: earliest.map(|earliest| ending.seen.since(earliest)) }
        }
        Duty::Beat { .. } | Duty::Nothing if early => Verdict::Healthy,
        Duty::Beat { due } if earliest.is_some() && (due <= ending.seen || ending.held_up) => {
            Verdict::OurDelay
        }
        // Whoever keeps the interval that it was told is in good health, whatever the timeout.
        Duty::Beat { .. } => Verdict::Healthy,
        Duty::Nothing => Verdict::AfterTheEnd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    /// Last bytes sent at 1 s, timeout 15 s.
    fn ending(duty: Duty, seen_ms: u64) -> Ending {
        let idle_timeout = Some(Duration::from_secs(15));
        let pause = Duration::from_secs(10);
        let (last_sent, seen) = (at(1_000), at(seen_ms));
        Ending { duty, dismissed: false, last_sent, pause, seen, held_up: false, idle_timeout }
    }

    #[test]
    fn the_silent_must_go_but_not_before_their_time() {
        assert_eq!(judge(ending(Duty::Silent, 15_999)), Verdict::Early);
        let late = |ms| Verdict::Expired { late_at_most: Some(Duration::from_millis(ms)) };
        assert_eq!(judge(ending(Duty::Silent, 16_000)), late(0));
        assert_eq!(judge(ending(Duty::Silent, 16_120)), late(120));
    }

    #[test]
    fn the_healthy_must_stay() {
        let beat = |due| Duty::Beat { due: at(due) };
        assert_eq!(judge(ending(beat(11_000), 9_000)), Verdict::Healthy);
        assert_eq!(judge(ending(beat(11_000), 16_001)), Verdict::OurDelay);
        assert_eq!(judge(ending(beat(21_000), 16_001)), Verdict::Healthy, "the rule is at fault");
        // A reply that was read late has moved the next beat: nobody else is to blame for that.
        let held_up = Ending { held_up: true, ..ending(beat(21_000), 16_001) };
        assert_eq!(judge(held_up), Verdict::OurDelay);
        let early = Ending { held_up: true, ..ending(beat(11_000), 9_000) };
        assert_eq!(judge(early), Verdict::Healthy, "no delay of ours excuses an early end");
    }

    /// After a stall the heartbeats that are overdue go out before the ends are seen that came
    /// in the meantime: nobody else is to blame for them.
    #[test]
    fn an_end_that_may_have_come_before_a_late_heartbeat_is_our_fault() {
        let healthy = ending(Duty::Beat { due: at(11_000) }, 1_001);
        let late = Ending { pause: Duration::from_secs(15), ..healthy };
        assert_eq!((judge(healthy), judge(late)), (Verdict::Healthy, Verdict::OurDelay));
        let silent = Ending { duty: Duty::Silent, ..late };
        assert_eq!(judge(silent), Verdict::OurDelay);
    }

    #[test]
    fn when_all_is_over_only_the_timeout_counts() {
        assert_eq!(judge(ending(Duty::Nothing, 16_001)), Verdict::AfterTheEnd);
        assert_eq!(judge(ending(Duty::Nothing, 9_000)), Verdict::Healthy);
    }

    #[test]
    fn a_good_bye_is_no_expiry_and_an_unknown_rule_has_no_lateness() {
        let silent = ending(Duty::Silent, 9);
        assert_eq!(judge(Ending { dismissed: true, ..silent }), Verdict::Dismissed);
        let unknown = Ending { idle_timeout: None, ..silent };
        assert_eq!(judge(unknown), Verdict::Expired { late_at_most: None });
        let duty = Duty::Beat { due: at(1) };
        assert_eq!(judge(Ending { duty, ..unknown }), Verdict::Healthy);
    }
}
