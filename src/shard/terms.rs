//! What a client and the server agree on: how often it beats, and how long it may be silent.

use std::time::Duration;

use super::context::Context;
use super::millis;
use super::policy::Policy;
use crate::limits::ANSWER_TICKS_MIN;
use crate::mutants::{Mutant, is};
use crate::session::Session;

/// The terms of a session, as the wire tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) interval_ms: u32,
    pub(super) idle_timeout_ms: u32,
}

/// What a client is to be told, beside its terms: when its next heartbeat is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Adjustment {
    pub(super) terms: Terms,
    pub(super) next_in_ms: u32,
}

/// A better time for the next heartbeat of a client that takes one, if too many are to come with
/// it. It is counted as told.
pub(super) fn adjustment<C>(session: &Session<C>, context: &mut Context<'_>) -> Option<Adjustment> {
    // Who does not read what was sent before would not read this.
    if !session.takes_adjust || session.outbox.is_some() {
        return None;
    }
    let interval = context.policy.interval_of(session);
    let next_in = context.calendar.as_mut()?.plan(context.now, interval)?;
    context.counters.adjusts_sent += 1;
    let terms = Terms { interval_ms: millis(interval), idle_timeout_ms: session.idle_timeout_ms };
    // Rounded down: rather earlier than later.
    Some(Adjustment { terms, next_in_ms: next_in.as_millis() as u32 })
}

impl Policy {
    /// The terms of a client that wants to beat every `wanted_ms`; 0 leaves it to the server, whose
    /// own interval and timeout then hold. Otherwise the timeout follows from the interval.
    fn terms(&self, wanted_ms: u32) -> Terms {
        if wanted_ms == 0 {
            return Terms {
                interval_ms: millis(self.heartbeat_interval),
                idle_timeout_ms: millis(self.idle_timeout),
            };
        }
        let min = millis(self.heartbeat_min.max(self.interval_min()));
        let max = millis(self.heartbeat_max);
        let interval_ms = wanted_ms.max(min).min(max.max(min));
        let timeout_ms = (f64::from(interval_ms) * self.timeout_factor).ceil();
        // Beyond its range, a conversion gives the end of the range.
        Terms { interval_ms, idle_timeout_ms: timeout_ms as u32 }
    }

    /// With a shorter interval the timeout would be below a tick, or with `--server-ping` too close
    /// behind the PING to answer that.
    fn interval_min(&self) -> Duration {
        let tick = self.tick.as_duration();
        match self.server_ping {
            true => (tick * ANSWER_TICKS_MIN).div_f64(self.timeout_factor - 1.0),
            false => tick.div_f64(self.timeout_factor),
        }
    }

    /// The terms of a session from now on, as it asked for them.
    pub(super) fn agree<C>(&self, session: &mut Session<C>, wanted_ms: u32) -> Terms {
        let terms = self.terms(wanted_ms);
        if !is(Mutant::TermsIgnored) {
            session.idle_timeout_ms = terms.idle_timeout_ms;
        }
        session.has_own_interval = wanted_ms != 0;
        terms
    }

    /// The interval that a session keeps. If it is one of its own, it follows from its timeout, so
    /// that the session need not remember both.
    pub(super) fn interval_of<C>(&self, session: &Session<C>) -> Duration {
        if !session.has_own_interval {
            return self.heartbeat_interval;
        }
        // A thousandth more, since a quotient may come out just below the whole number it is.
        let interval_ms = f64::from(session.idle_timeout_ms) / self.timeout_factor + 0.001;
        Duration::from_millis(interval_ms as u64)
    }
}
