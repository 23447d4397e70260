//! The naive oracle: a map that is looked at in full, and a checker that holds a sweeper to it.

use std::collections::BTreeMap;

use heartwheel::sweep::{Progress, Sweeper};
use heartwheel::time::Tick;

/// A sweeper whose every answer is compared with the oracle's.
pub struct Checked<S> {
    sweeper: S,
    /// Who is filed, and when they are due.
    filed: BTreeMap<u32, Tick>,
    now: Tick,
    inserted: u64,
    removed: u64,
    expired: u64,
}

impl<S: Sweeper> Checked<S> {
    pub fn new(sweeper: S, start: Tick) -> Checked<S> {
        Checked { sweeper, filed: BTreeMap::new(), now: start, inserted: 0, removed: 0, expired: 0 }
    }

    pub fn now(&self) -> Tick {
        self.now
    }

    pub fn is_empty(&self) -> bool {
        self.sweeper.is_empty() && self.filed.is_empty()
    }

    /// Inserts `index`, or touches it if it is filed.
    pub fn file(&mut self, index: u32, deadline: Tick) {
        if self.filed.insert(index, deadline).is_some() {
            self.sweeper.touch(index, deadline);
        } else {
            self.sweeper.insert(index, deadline);
            self.inserted += 1;
        }
    }

    /// Removes `index` if it is filed.
    pub fn remove(&mut self, index: u32) {
        if self.filed.remove(&index).is_some() {
            self.sweeper.remove(index);
            self.removed += 1;
        }
    }

    /// Advances once, and returns who was reported.
    ///
    /// # Errors
    /// Whatever the contract of [`Sweeper`] does not allow, in words.
    pub fn advance(&mut self, now: Tick, budget: usize) -> Result<(Progress, Vec<u32>), String> {
        self.now = self.now.max(now);
        let stranger = u32::MAX;
        let mut reported = vec![stranger];
        let progress = self.sweeper.advance(self.now, budget, &mut reported);
        if reported.remove(0) != stranger {
            return Err("what was in the list of the expired has been overwritten".into());
        }
        for &index in &reported {
            match self.filed.remove(&index) {
                None => return Err(format!("{index} was reported and is not filed")),
                Some(due) if due > self.now || due == Tick::NEVER => {
                    return Err(format!("{index} was reported at {}, early: {due}", self.now));
                }
                Some(_) => self.expired += 1,
            }
        }
        self.check(budget, progress, reported.len())?;
        Ok((progress, reported))
    }

    fn check(&self, budget: usize, progress: Progress, reported: usize) -> Result<(), String> {
        if reported > budget {
            return Err(format!("{reported} were reported with a budget of {budget}"));
        }
        match progress {
            Progress::More if reported < budget => {
                return Err(format!("More after {reported} of {budget}"));
            }
            Progress::Done => {
                if let Some((index, due)) = self.filed.iter().find(|(_, due)| self.is_due(**due)) {
                    return Err(format!("{index} is late: due at {due}, now {}", self.now));
                }
            }
            Progress::More => {}
        }
        let live = (self.inserted - self.removed - self.expired) as usize;
        if self.sweeper.len() != live || self.filed.len() != live {
            return Err(format!("{} are filed, it says {}", live, self.sweeper.len()));
        }
        Ok(())
    }

    fn is_due(&self, due: Tick) -> bool {
        due <= self.now && due != Tick::NEVER
    }

    /// Advances to the end of time, in steps that no wheel has for a revolution: everybody but
    /// those who are never due must have come out.
    ///
    /// # Errors
    /// As [`Checked::advance`], and whoever is left.
    pub fn drain(&mut self, budget: usize) -> Result<(), String> {
        for ahead in [1, 100, 70_000, 1 << 33, u64::MAX] {
            let now = Tick(self.now.0.saturating_add(ahead));
            while self.advance(now, budget)?.0 == Progress::More {}
        }
        let never: Vec<u32> = self.filed.keys().copied().collect();
        for index in never {
            if self.filed[&index] != Tick::NEVER {
                return Err(format!("{index} was lost"));
            }
            self.remove(index);
        }
        if self.sweeper.is_empty() { Ok(()) } else { Err("not empty at the end".into()) }
    }
}
