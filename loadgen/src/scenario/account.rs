//! What a worker counts of a scenario, and who still waits for which broadcast.
//!
//! Invariant: of a broadcast, expected = received + missing by reason, client by client. Cost: two
//! bits a client and broadcast.

use heartwheel::time::Timestamp;

use crate::latency::Latency;
use crate::stats::Reasons;

/// Everything that one worker, or all together, have counted of a scenario.
#[derive(Clone)]
pub struct Account {
    /// Connections that were opened again.
    pub reopened: u64,
    /// From connecting to opened again.
    pub reopening: Latency,
    /// Attempts to come back that failed, by reason.
    pub reopening_failed: Reasons,
    /// Times that a client lost its connection, and was to come back.
    pub lost: u64,
    /// Clients that had not come back when the run ended.
    pub away: u64,
    /// Connections that were closed here by `--churn`.
    pub churned: u64,
    /// Churns for which nobody was there who was open.
    pub churn_skipped: u64,
    /// Connections that were killed by storms.
    pub killed: u64,
    /// Clients that read nothing.
    pub slow: u64,
    /// Those of them that the server closed.
    pub slow_closed: u64,
    /// Those of them that were open at the end.
    pub slow_open: u64,
    /// Clients that were told to go, and closed, in a drain that was asked for.
    pub drained: u64,
    /// Those of them that were silent, with their time not up.
    pub drained_silent: u64,
    /// Heartbeats without an answer on connections that were killed, churned or drained.
    pub cut_off: u64,
    /// Heartbeats of clients that do not read their answers.
    pub unread: u64,
    /// Data messages that were sent.
    pub data_sent: u64,
    /// Data messages that came: echoes.
    pub data_received: u64,
    /// Pushed messages that are none of our broadcasts, or came to whom they were not expected at.
    pub pushes_unexpected: u64,
    /// Of each event.
    pub events: Vec<Happened>,
    /// From due to answered, by the time of the answer: before the first event, then for each
    /// event in it and after it.
    pub windows: Vec<Latency>,
}

/// What came of one event.
#[derive(Clone)]
pub struct Happened {
    /// Killed, told to go, or expected to receive.
    pub affected: u64,
    /// The last of them.
    pub last_affected: Timestamp,
    /// Those of them who are to come back, or to receive.
    pub to_recover: u64,
    /// Back again, or with the message received.
    pub recovered: u64,
    /// The last of them.
    pub last_recovered: Timestamp,
    /// Receipts that were sent.
    pub acked: u64,
    /// Messages that came twice.
    pub duplicates: u64,
    /// Expected, and not received.
    pub missing: Reasons,
    /// From asking the server until received.
    pub latency: Latency,
}

impl Account {
    /// Nothing counted of so many events.
    pub fn new(events: usize) -> Account {
        let windows = if events == 0 { 0 } else { 2 * events + 1 };
        Account {
            reopened: 0,
            reopening: Latency::new(2),
            reopening_failed: Reasons::new(),
            lost: 0,
            away: 0,
            churned: 0,
            churn_skipped: 0,
            killed: 0,
            slow: 0,
            slow_closed: 0,
            slow_open: 0,
            drained: 0,
            drained_silent: 0,
            cut_off: 0,
            unread: 0,
            data_sent: 0,
            data_received: 0,
            pushes_unexpected: 0,
            events: vec![Happened::nothing(); events],
            windows: vec![Latency::new(2); windows],
        }
    }

    /// Adds what another worker has counted of the same events.
    pub fn add(&mut self, other: &Account) {
        for (total, part) in self.counters_mut().into_iter().zip(other.clone().counters_mut()) {
            *total += *part;
        }
        add_reasons(&mut self.reopening_failed, &other.reopening_failed);
        self.reopening.add(&other.reopening);
        // Whoever has not seen an event has counted nothing of it.
        let events = self.events.len().max(other.events.len());
        self.events.resize_with(events, Happened::nothing);
        let windows = self.windows.len().max(other.windows.len());
        self.windows.resize_with(windows, || Latency::new(2));
        self.events.iter_mut().zip(&other.events).for_each(|(total, part)| total.add(part));
        self.windows.iter_mut().zip(&other.windows).for_each(|(total, part)| total.add(part));
    }

    /// Makes room for an event that nobody had planned. If it is the first, `so_far` is the calm
    /// before it.
    pub fn make_room(&mut self, event: usize, so_far: &Latency) {
        if event < self.events.len() {
            return;
        }
        self.events.resize_with(event + 1, Happened::nothing);
        if self.windows.is_empty() {
            let mut calm = Latency::new(2);
            calm.add(so_far);
            self.windows.push(calm);
        }
        self.windows.resize_with(2 * event + 3, || Latency::new(2));
    }

    fn counters_mut(&mut self) -> [&mut u64; 16] {
        [
            &mut self.reopened,
            &mut self.lost,
            &mut self.away,
            &mut self.churned,
            &mut self.churn_skipped,
            &mut self.killed,
            &mut self.slow,
            &mut self.slow_closed,
            &mut self.slow_open,
            &mut self.drained,
            &mut self.drained_silent,
            &mut self.cut_off,
            &mut self.unread,
            &mut self.data_sent,
            &mut self.data_received,
            &mut self.pushes_unexpected,
        ]
    }

    /// The rtt histogram of calm times before an event, the last that is not empty; `earlier` are
    /// the events before it, the latest first.
    pub fn calm(&self, earlier: &[usize]) -> Option<&Latency> {
        let behind = earlier.iter().map(|event| 2 * event + 2);
        behind.chain([0]).filter_map(|calm| self.windows.get(calm)).find(|rtt| rtt.count() > 0)
    }

    /// The rtt histogram of event number `event`.
    pub fn during(&self, event: usize) -> Option<&Latency> {
        self.windows.get(2 * event + 1).filter(|rtt| rtt.count() > 0)
    }
}

impl Happened {
    fn nothing() -> Happened {
        Happened {
            affected: 0,
            last_affected: Timestamp::ZERO,
            to_recover: 0,
            recovered: 0,
            last_recovered: Timestamp::ZERO,
            acked: 0,
            duplicates: 0,
            missing: Reasons::new(),
            latency: Latency::new(2),
        }
    }

    fn add(&mut self, other: &Happened) {
        self.affected += other.affected;
        self.last_affected = self.last_affected.max(other.last_affected);
        self.to_recover += other.to_recover;
        self.recovered += other.recovered;
        self.last_recovered = self.last_recovered.max(other.last_recovered);
        self.acked += other.acked;
        self.duplicates += other.duplicates;
        add_reasons(&mut self.missing, &other.missing);
        self.latency.add(&other.latency);
    }

    /// One was killed, or told to go.
    pub fn note_affected(&mut self, now: Timestamp) {
        self.affected += 1;
        self.last_affected = now;
    }

    /// One is back.
    pub fn note_recovered(&mut self, now: Timestamp) {
        self.recovered += 1;
        self.last_recovered = now;
    }
}

fn add_reasons(total: &mut Reasons, part: &Reasons) {
    part.iter().for_each(|(reason, count)| *total.entry(reason).or_default() += count);
}

/// Who waits for a broadcast, and who has it.
pub struct Receivers {
    /// Which event it is.
    pub event: usize,
    waiting: Bits,
    served: Bits,
}

/// What a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Waited for.
    Expected,
    /// Had before.
    Duplicate,
    /// Not waited for.
    Unexpected,
}

impl Receivers {
    /// Nobody of `clients` waits.
    pub fn new(event: usize, clients: usize) -> Receivers {
        Receivers { event, waiting: Bits::new(clients), served: Bits::new(clients) }
    }

    /// `client` is to receive it.
    pub fn expect(&mut self, client: u32) {
        self.waiting.set(client, true);
    }

    /// `client` has received it.
    pub fn receive(&mut self, client: u32) -> Receipt {
        let waited = self.waiting.set(client, false);
        let had = self.served.set(client, true);
        match (waited, had) {
            (true, _) => Receipt::Expected,
            (false, true) => Receipt::Duplicate,
            (false, false) => Receipt::Unexpected,
        }
    }

    /// `client` has lost its connection; whether it was still waiting.
    pub fn leave(&mut self, client: u32) -> bool {
        self.served.set(client, false);
        self.waiting.set(client, false)
    }
}

struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Bits {
        Bits(vec![0; count.div_ceil(64)])
    }

    /// Sets one bit; what it was.
    fn set(&mut self, index: u32, value: bool) -> bool {
        let (word, bit) = (&mut self.0[index as usize / 64], 1u64 << (index % 64));
        let was = *word & bit != 0;
        *word = if value { *word | bit } else { *word & !bit };
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_waited_for_once_and_a_new_life_begins_anew() {
        let mut receivers = Receivers::new(0, 100);
        receivers.expect(70);
        assert_eq!(receivers.receive(70), Receipt::Expected);
        assert_eq!(receivers.receive(70), Receipt::Duplicate);
        assert_eq!(receivers.receive(6), Receipt::Unexpected);
        receivers.expect(99);
        assert!(receivers.leave(99) && !receivers.leave(99) && !receivers.leave(70));
        assert_eq!(receivers.receive(70), Receipt::Unexpected);
    }

    #[test]
    fn sums_are_sums() {
        let mut other = Account::new(0);
        for (value, counter) in other.counters_mut().into_iter().enumerate() {
            *counter = value as u64 + 1;
        }
        let mut one = Account::new(0);
        one.add(&other);
        one.add(&other);
        let doubled: Vec<u64> = one.counters_mut().into_iter().map(|counter| *counter).collect();
        assert_eq!(doubled, (1..=16).map(|value| value * 2).collect::<Vec<_>>());
    }

    #[test]
    fn an_event_that_nobody_had_planned_has_a_calm_before_it() {
        let mut account = Account::new(0);
        let mut so_far = Latency::new(3);
        so_far.record(std::time::Duration::from_millis(3));
        account.make_room(0, &so_far);
        account.make_room(1, &so_far);
        assert_eq!((account.events.len(), account.windows.len()), (2, 5));
        assert_eq!(account.calm(&[0]).map(Latency::count), Some(1));
        let mut total = Account::new(0);
        total.add(&account);
        total.add(&Account::new(0));
        assert_eq!((total.events.len(), total.calm(&[]).map(Latency::count)), (2, Some(1)));
    }
}
