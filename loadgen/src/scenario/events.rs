//! The events of a run: the planned ones in the order of their times, and behind them those that
//! are ordered by hand while it goes on.
//!
//! Invariant: an event keeps its number, and nothing that was there is changed, so that workers read
//! without a lock while another thread adds. There are never more than [`EVENTS_MAX`].

use std::sync::OnceLock;

use super::Event;
use crate::limits::EVENTS_MAX;

/// All of them.
#[derive(Clone, Debug)]
pub struct Events {
    slots: Box<[OnceLock<Event>]>,
    planned: usize,
}

impl Events {
    /// The planned ones. Whoever made them has seen to it that they are not too many.
    pub fn new(planned: &[Event]) -> Events {
        let mut planned_in_order = planned.to_vec();
        planned_in_order.sort_by_key(|event| event.at);
        let filled = planned_in_order.into_iter().map(OnceLock::from);
        let empty = std::iter::repeat_with(OnceLock::new);
        let slots: Box<[_]> = filled.chain(empty).take(EVENTS_MAX).collect();
        Events { slots, planned: planned.len().min(EVENTS_MAX) }
    }

    /// One more that nobody had planned; its number, if there is room for it.
    pub fn add(&self, event: Event) -> Option<usize> {
        self.slots.iter().position(|slot| slot.set(event).is_ok())
    }

    /// Event number `number`, if there is one.
    pub fn get(&self, number: usize) -> Option<&Event> {
        self.slots.get(number)?.get()
    }

    /// By their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.slots.iter().map_while(OnceLock::get)
    }

    /// How many were planned.
    pub fn planned(&self) -> usize {
        self.planned
    }

    /// Which events are earlier than event number `number`, the latest first.
    pub fn before(&self, number: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.iter().count()).collect();
        order.sort_by_key(|&number| self.get(number).map(|event| event.at));
        let own_place = order.iter().position(|&other| other == number).unwrap_or(0);
        order.truncate(own_place);
        order.reverse();
        order
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Kind;
    use super::*;

    fn storm(at_s: u64) -> Event {
        Event { at: Duration::from_secs(at_s), kind: Kind::Storm(0.5) }
    }

    #[test]
    fn whoever_comes_later_leaves_the_numbers_as_they_are() {
        let events = Events::new(&[storm(30), storm(10)]);
        assert_eq!((events.get(0), events.get(1)), (Some(&storm(10)), Some(&storm(30))));
        assert_eq!((events.add(storm(20)), events.add(storm(5))), (Some(2), Some(3)));
        assert_eq!((events.planned(), events.iter().count()), (2, 4));
        assert_eq!(events.before(1), [2, 0, 3], "by their times, the latest first");
        assert_eq!(events.before(3), [0; 0]);
    }

    #[test]
    fn there_is_a_limit() {
        let events = Events::new(&[storm(1)]);
        let added = (0..EVENTS_MAX).filter_map(|_| events.add(storm(2))).count();
        assert_eq!((added, events.iter().count()), (EVENTS_MAX - 1, EVENTS_MAX));
        assert_eq!(events.get(EVENTS_MAX), None);
    }
}
