//! Whether the kernel took the core away: a step in which it did says nothing about the step.
#![allow(unsafe_code, reason = "the system call has no safe wrapper among the dependencies")]

use std::mem::MaybeUninit;
use std::time::Instant;

/// Involuntary context switches of this thread since its start.
fn involuntary_switches() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to memory of the right type, which the kernel writes to.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    assert_eq!(result, 0, "getrusage of this thread");
    // SAFETY: all zeroes are a valid value of this plain structure, even had nothing been written.
    unsafe { usage.assume_init() }.ru_nivcsw
}

/// Times of a step that is repeated, those in which it was disturbed apart.
#[derive(Debug, Default)]
pub struct Times {
    undisturbed: Vec<Step>,
    disturbed: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    ns: u64,
    operations: usize,
}

impl Times {
    /// Times `step`, which consists of so many operations. `overhead_ns` is what it takes to time
    /// nothing.
    pub fn time(&mut self, operations: usize, overhead_ns: u64, step: impl FnOnce()) {
        let switches = involuntary_switches();
        let begin = Instant::now();
        step();
        let ns = (begin.elapsed().as_nanos() as u64).saturating_sub(overhead_ns);
        let is_disturbed = involuntary_switches() != switches;
        let times = if is_disturbed { &mut self.disturbed } else { &mut self.undisturbed };
        times.push(Step { ns, operations });
    }

    /// The steps to believe: the undisturbed, unless those are less than a tenth.
    fn steps(&self) -> &[Step] {
        if self.undisturbed.len() * 9 < self.disturbed.len() {
            &self.disturbed
        } else {
            &self.undisturbed
        }
    }

    pub fn disturbed(&self) -> usize {
        self.disturbed.len()
    }

    pub fn ns_per_operation(&self) -> f64 {
        let operations: usize = self.steps().iter().map(|step| step.operations).sum();
        let ns: u64 = self.steps().iter().map(|step| step.ns).sum();
        ns as f64 / operations.max(1) as f64
    }

    /// The time of each step, in ascending order.
    pub fn sorted_ns(&self) -> Vec<u64> {
        let mut times: Vec<u64> = self.steps().iter().map(|step| step.ns).collect();
        times.sort_unstable();
        times
    }
}
