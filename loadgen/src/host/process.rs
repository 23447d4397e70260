//! CPU time and memory of a process, out of `/proc`.

use std::fs;
use std::time::Duration;

use heartwheel::host::kib_field;

/// A moment in the life of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSample {
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// Resident memory, rings and shared pages included.
    pub rss_bytes: u64,
}

/// Samples a process; `None` once it is gone.
pub fn sample(pid: u32) -> Option<ProcessSample> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(ProcessSample { cpu: cpu_time(&stat)?, rss_bytes: rss_bytes(pid)? })
}

/// User and system time in a `stat` of a process or a thread.
pub(super) fn cpu_time(stat: &str) -> Option<Duration> {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_secs_f64(cpu_ticks(stat)? as f64 / per_second as f64))
}

/// The same from one short file, to be read often: its memory may be off by a megabyte.
pub fn glance(pid: u32) -> Option<ProcessSample> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let pages: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(21)?.parse().ok()?;
    let rss_bytes = pages * rustix::param::page_size() as u64;
    Some(ProcessSample { cpu: cpu_time(&stat)?, rss_bytes })
}

/// `smaps_rollup` counts pages; the counter in `status` may be off by a megabyte.
fn rss_bytes(pid: u32) -> Option<u64> {
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    if let Some(bytes) = exact.and_then(|text| kib_field(&text, "Rss:")) {
        return Some(bytes);
    }
    kib_field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

/// User and system time in clock ticks: fields 14 and 15, counted behind the name, which may hold
/// anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let stat = "7 (a) 1 2 (b) S 1 7 7 0 -1 4194304 90 0 0 0 120 30 0 0 20 0 3 0 55 1 2";
        assert_eq!(cpu_ticks(stat), Some(150));
        assert_eq!(kib_field("Name: x\nRss:     12 kB\n", "Rss:"), Some(12_288));
    }

    #[test]
    fn this_process_has_memory_and_the_gone_have_no_sample() {
        let exact = sample(std::process::id()).unwrap().rss_bytes;
        let rough = glance(std::process::id()).unwrap().rss_bytes;
        assert!(exact > 4_096 && rough > exact / 4 && rough < exact * 4, "{exact} {rough}");
        assert!(sample(u32::MAX).is_none());
    }
}
