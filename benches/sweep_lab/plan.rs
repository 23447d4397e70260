//! Who beats when, and who falls silent: decided before anything is measured, so that the measured
//! steps only read a list, and every answer can be checked.

use crate::scenario::{Phase, Scenario};

/// The events of one scenario, the same for every contender.
pub struct Plan {
    /// Each session with the deadline that it is filed with at tick 0, in the order of deadlines:
    /// as if they had beaten one after the other before.
    pub filings: Vec<(u32, u32)>,
    /// Beats of all ticks, one after the other.
    beats: Vec<u32>,
    /// Where the beats of each tick begin; and one more.
    begins: Vec<usize>,
    /// Who expires in each measured tick, in ascending order.
    pub expiries: Vec<Vec<u32>>,
}

impl Plan {
    pub fn new(scenario: &Scenario) -> Plan {
        let end = scenario.warmup_ticks() + scenario.ticks;
        let expiries = choose_silent(scenario);
        let mut silent_at = vec![0; scenario.sessions as usize];
        for (tick, sessions) in expiries.iter().enumerate() {
            for &session in sessions {
                silent_at[session as usize] = scenario.warmup_ticks() + 1 + tick as u32;
            }
        }
        let life = |session: u32| Life::new(scenario, session, silent_at[session as usize]);
        let mut begins = vec![0_usize; end as usize + 2];
        for session in 0..scenario.sessions {
            life(session).beats(end, |tick| begins[tick as usize + 1] += 1);
        }
        for tick in 1..begins.len() {
            begins[tick] += begins[tick - 1];
        }
        let mut next = begins.clone();
        let mut beats = vec![0; begins[end as usize + 1]];
        for session in 0..scenario.sessions {
            life(session).beats(end, |tick| {
                beats[next[tick as usize]] = session;
                next[tick as usize] += 1;
            });
        }
        let filing = |session| (session, life(session).first_deadline());
        let mut filings: Vec<_> = (0..scenario.sessions).map(filing).collect();
        filings.sort_by_key(|&(_, deadline)| deadline);
        let mut plan = Plan { filings, beats, begins, expiries };
        if !scenario.is_sequential {
            plan.shuffle(end);
        }
        plan
    }

    /// Who beats in `tick`.
    pub fn beats(&self, tick: u32) -> &[u32] {
        &self.beats[self.begins[tick as usize]..self.begins[tick as usize + 1]]
    }

    fn shuffle(&mut self, end: u32) {
        let mut random = Random(0x5eed);
        for tick in 0..=end as usize {
            let beats = &mut self.beats[self.begins[tick]..self.begins[tick + 1]];
            for place in (1..beats.len()).rev() {
                beats.swap(place, random.below(place as u32 + 1) as usize);
            }
        }
    }
}

/// Draws who is to expire in each measured tick; nobody twice.
fn choose_silent(scenario: &Scenario) -> Vec<Vec<u32>> {
    let mut random = Random(0x51_1e27);
    let mut is_chosen = vec![false; scenario.sessions as usize];
    let mut draw = || loop {
        let session = random.below(scenario.sessions);
        if !std::mem::replace(&mut is_chosen[session as usize], true) {
            return session;
        }
    };
    let mut of_tick = |_| {
        let mut sessions: Vec<u32> = (0..scenario.expiring()).map(|_| draw()).collect();
        sessions.sort_unstable();
        sessions
    };
    (0..scenario.ticks).map(&mut of_tick).collect()
}

/// The life of one session, a function of its number.
struct Life<'a> {
    scenario: &'a Scenario,
    random: Random,
    /// The first beat.
    first: u32,
    /// When it expires and connects again; 0 if it does not.
    silent_at: u32,
}

impl Life<'_> {
    fn new(scenario: &Scenario, session: u32, silent_at: u32) -> Life<'_> {
        let mut random = Random(u64::from(session) << 20 ^ 0x9e37_79b9);
        let first = match scenario.phase {
            Phase::Uniform => 1 + random.below(scenario.gap_max),
            Phase::Synchronised => scenario.gap_max,
            Phase::Connect => Self::gap(scenario, &mut random),
        };
        Life { scenario, random, first, silent_at }
    }

    fn gap(scenario: &Scenario, random: &mut Random) -> u32 {
        match scenario.phase {
            Phase::Synchronised => scenario.gap_max,
            _ => scenario.gap_min + random.below(scenario.gap_max - scenario.gap_min + 1),
        }
    }

    /// As if the last beat before tick 0 had been a gap before the first after it.
    fn first_deadline(&self) -> u32 {
        match self.scenario.phase {
            Phase::Connect => self.scenario.timeout,
            _ => self.scenario.timeout + self.first - self.scenario.gap_max,
        }
    }

    fn beats(mut self, end: u32, mut beat: impl FnMut(u32)) {
        let mut tick = self.first;
        if self.silent_at > 0 {
            let last = self.silent_at - self.scenario.timeout;
            while tick < last {
                beat(tick);
                tick += Self::gap(self.scenario, &mut self.random);
            }
            beat(last);
            tick = self.silent_at + Self::gap(self.scenario, &mut self.random);
        }
        while tick <= end {
            beat(tick);
            tick += Self::gap(self.scenario, &mut self.random);
        }
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (((mixed >> 32) * u64::from(bound)) >> 32) as u32
    }
}
