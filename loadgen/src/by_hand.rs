//! What whoever sits at the live view orders while a run goes on: its early end, a pause of
//! connecting, a storm, a drain.
//!
//! Invariant: an event that a key ordered is an event like those of `--at`, with the time at which
//! it was ordered; the notes of the report say how to plan the same.

use std::sync::atomic::Ordering;
use std::time::Duration;

use heartwheel::time::Timestamp;

use crate::conductor::Conductor;
use crate::limits;
use crate::live::Wish;
use crate::run::steady_at;
use crate::scenario::{Event, Kind};
use crate::units::grouped;

/// What was ordered so far.
#[derive(Debug, Default)]
pub struct ByHand {
    /// Nobody connects since then.
    paused_at: Option<Timestamp>,
    /// How long that was so before.
    paused: Duration,
    /// What should be known of it.
    pub notes: Vec<String>,
}

impl ByHand {
    /// How long nobody connected, all pauses together.
    pub fn paused(&self, now: Timestamp) -> Duration {
        self.paused + self.paused_at.map_or(Duration::ZERO, |since| now.since(since))
    }
}

impl Conductor<'_> {
    /// Does what keys have wished for.
    pub fn heed_wishes(&mut self, phase: &str) {
        while let Some(wish) = self.live.wish() {
            match wish {
                Wish::End if matches!(phase, "last answers" | "closing") => {
                    self.live.say("ending already");
                }
                Wish::End => {
                    self.live.say("ending early, in order");
                    self.interrupted.store(true, Ordering::Relaxed);
                }
                Wish::Pause => self.pause(phase),
                Wish::Storm(share) => self.order(Kind::Storm(share)),
                Wish::Drain(over) => self.order(Kind::Drain(over)),
            }
        }
    }

    /// Nobody connects any more, or they go on where they stopped.
    fn pause(&mut self, phase: &str) {
        let now = self.task.clock.now();
        let delay = &self.task.orders.connect_delay;
        if self.by_hand.paused_at.is_some() {
            self.resume(now);
            self.live.say("connecting goes on");
        } else if phase == "connecting" {
            delay.store(u64::MAX, Ordering::Relaxed);
            self.by_hand.paused_at = Some(now);
            let opened = grouped(self.crew.snapshot().opened);
            self.live.say(&format!("connecting is paused at {opened}"));
        } else {
            self.live.say("nothing to pause");
        }
    }

    /// Ends a pause, if there is one. The plan is late by as much as it took.
    pub fn resume(&mut self, now: Timestamp) {
        if self.by_hand.paused_at.is_some() {
            self.by_hand.paused = self.by_hand.paused(now);
            self.by_hand.paused_at = None;
            let paused = self.by_hand.paused.as_secs_f64();
            let note = format!("a key paused connecting, {paused:.1} s in all");
            self.by_hand.notes.push(note);
            let nanos = u64::try_from(self.by_hand.paused.as_nanos()).unwrap_or(u64::MAX - 1);
            self.task.orders.connect_delay.store(nanos, Ordering::Relaxed);
        }
    }

    /// An event now, as if it had been planned.
    fn order(&mut self, kind: Kind) {
        let now = self.task.clock.now();
        let begun = steady_at(self.task).filter(|&steady_at| now >= steady_at);
        let quiet = self.task.orders.quiet_at.load(Ordering::Relaxed) != u64::MAX;
        let Some(steady_at) = begun.filter(|_| !quiet) else {
            return self.live.say("only in the steady state");
        };
        if matches!(kind, Kind::Drain(_)) && self.admin.is_none() {
            return self.live.say("a drain needs --target-admin");
        }
        // Whole milliseconds, as a report tells them, and not later than now.
        let at = Duration::from_millis(now.since(steady_at).as_millis() as u64);
        match self.task.scenario.events.add(Event { at, kind }) {
            Some(number) => {
                self.begin_event(number);
                let flag = format!("--at {}ms:{}", at.as_millis(), kind.flag());
                self.by_hand.notes.push(format!("a key ordered what is planned by {flag}"));
            }
            None => {
                let most = limits::EVENTS_MAX;
                self.live.say(&format!("at most {most} events"));
            }
        }
    }
}
