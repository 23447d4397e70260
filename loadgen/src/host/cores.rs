//! Who used the cores: the busiest thread of a program, and the host as a whole, out of `/proc`.
//!
//! A thread that is always busy is at its end, however idle the other cores are; and where both
//! programs share the cores, the host may be at its end while neither of them is.

use std::fs;
use std::time::{Duration, Instant};

use heartwheel::host::{kib_field, usable_cores};
use serde::{Deserialize, Serialize};

use super::process::cpu_time;

/// Threads that are looked at; a program with more of them has no busiest one to speak of.
const THREADS_MAX: usize = 1_024;

/// The CPU time of each thread of a process, and of each core, at one moment.
#[derive(Clone, Debug)]
pub struct CoresSample {
    at: Instant,
    server: Vec<Thread>,
    generator: Vec<Thread>,
    /// Ticks of the cores that this process may use: busy, stolen, all.
    cores: Vec<[u64; 3]>,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    id: u32,
    ran: Duration,
    /// For a core, while it could have run; where the kernel tells.
    waited: Option<Duration>,
}

impl Thread {
    fn ran(&self) -> Option<Duration> {
        Some(self.ran)
    }

    fn wanted(&self) -> Option<Duration> {
        Some(self.ran + self.waited?)
    }
}

/// The host in the steady state. `null` where it cannot be told.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSection {
    /// The share of the time in which the cores that this process may use were busy, whoever used
    /// them.
    pub cpu_busy: Option<f64>,
    /// Of the busiest of them.
    pub cpu_busiest_core: Option<f64>,
    /// The share that the hypervisor gave to others.
    pub cpu_stolen: Option<f64>,
    /// The busiest thread of the server: CPU seconds in a second.
    pub server_busiest_thread: Option<f64>,
    /// The busiest thread of this program.
    pub generator_busiest_thread: Option<f64>,
    /// The thread of the server that wanted a core most: while it ran, and while it waited for one.
    pub server_thread_wanted: Option<f64>,
    /// That of this program.
    pub generator_thread_wanted: Option<f64>,
    /// Descriptors that the server has open, direct ones not counted.
    pub server_descriptors: Option<u64>,
    /// How many it may have.
    pub server_descriptors_max: Option<u64>,
    /// Memory that could still be had at the end of the steady state.
    pub memory_available_bytes: Option<u64>,
    /// Processes that the kernel killed for want of memory since before connecting.
    pub oom_kills: Option<u64>,
}

/// A sample of now.
pub fn sample(server: Option<u32>) -> CoresSample {
    CoresSample {
        at: Instant::now(),
        server: server.map(threads).unwrap_or_default(),
        generator: threads(std::process::id()),
        cores: cores(&fs::read_to_string("/proc/stat").unwrap_or_default(), &usable_cores()),
    }
}

/// Processes that the kernel has killed for want of memory since the host started.
pub fn oom_kills() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// From one sample to the next, and what else there is to be seen of the server and the host.
pub fn section(then: &CoresSample, now: &CoresSample, server: Option<u32>) -> HostSection {
    let seconds = now.at.duration_since(then.at);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let shares: Vec<[f64; 2]> = then.cores.iter().zip(&now.cores).filter_map(share).collect();
    let mean = |column: usize| {
        let sum: f64 = shares.iter().map(|share| share[column]).sum();
        (!shares.is_empty()).then(|| round(sum / shares.len() as f64))
    };
    HostSection {
        cpu_busy: mean(0),
        cpu_busiest_core: shares.iter().map(|share| round(share[0])).reduce(f64::max),
        cpu_stolen: mean(1),
        server_busiest_thread: most(&then.server, &now.server, seconds, Thread::ran),
        generator_busiest_thread: most(&then.generator, &now.generator, seconds, Thread::ran),
        server_thread_wanted: most(&then.server, &now.server, seconds, Thread::wanted),
        generator_thread_wanted: most(&then.generator, &now.generator, seconds, Thread::wanted),
        server_descriptors: server.and_then(descriptors),
        server_descriptors_max: server.and_then(descriptors_max),
        memory_available_bytes: kib_field(&meminfo, "MemAvailable:"),
        oom_kills: None,
    }
}

fn round(share: f64) -> f64 {
    (share * 1e3).round() / 1e3
}

/// Busy and stolen time between two looks at a core, as shares of all time.
fn share((then, now): (&[u64; 3], &[u64; 3])) -> Option<[f64; 2]> {
    let passed = [0, 1, 2].map(|column| now[column].saturating_sub(then[column]) as f64);
    (passed[2] > 0.0).then(|| [passed[0] / passed[2], passed[1] / passed[2]])
}

/// `cpu0 user nice system idle iowait irq softirq steal …`, in ticks. What is stolen counts as
/// busy: it cannot be had.
fn cores(stat: &str, usable: &[usize]) -> Vec<[u64; 3]> {
    let of_line = |line: &str| {
        let (name, rest) = line.strip_prefix("cpu")?.split_once(' ')?;
        let core: usize = name.parse().ok()?;
        let ticks: Vec<u64> = rest.split_whitespace().map_while(|tick| tick.parse().ok()).collect();
        let all: u64 = ticks.iter().take(8).sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        let stolen = ticks.get(7).copied().unwrap_or(0);
        usable.contains(&core).then_some([all - idle, stolen, all])
    };
    stat.lines().filter_map(of_line).collect()
}

/// Its threads; none if the process has gone, or has very many.
fn threads(pid: u32) -> Vec<Thread> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ids: Vec<u32> = ids.take(THREADS_MAX + 1).collect();
    if ids.len() > THREADS_MAX {
        return Vec::new();
    }
    let thread = |id: u32| {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{id}/{name}")).ok();
        let exact = read("schedstat").and_then(|text| ran_and_waited(&text));
        Some(match exact {
            Some((ran, waited)) => Thread { id, ran, waited: Some(waited) },
            None => Thread { id, ran: cpu_time(&read("stat")?)?, waited: None },
        })
    };
    ids.into_iter().filter_map(thread).collect()
}

/// `schedstat`: nanoseconds on a core, and nanoseconds waiting for one (CONFIG_SCHED_INFO).
fn ran_and_waited(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut words = schedstat.split_whitespace().map(|word| word.parse().ok());
    Some((Duration::from_nanos(words.next()??), Duration::from_nanos(words.next()??)))
}

/// The most that `of` a thread that was there at both times came to, in cores.
fn most(
    then: &[Thread],
    now: &[Thread],
    passed: Duration,
    of: impl Fn(&Thread) -> Option<Duration>,
) -> Option<f64> {
    let grown = now.iter().filter_map(|thread| {
        let before = then.iter().find(|before| before.id == thread.id)?;
        Some(of(thread)?.saturating_sub(of(before)?).as_secs_f64())
    });
    let most = grown.reduce(f64::max)?;
    (!passed.is_zero()).then(|| round(most / passed.as_secs_f64()))
}

fn descriptors(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// The soft limit: what the process is held to.
fn descriptors_max(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_that_may_not_be_used_do_not_count() {
        let stat = "cpu 9 9 9 9 9 9 9 9 0 0\ncpu0 10 0 20 60 10 0 0 5 0 0\n\
                    cpu1 1 1 1 1 1 1 1 1 0 0\nintr 5\n";
        assert_eq!(cores(stat, &[0]), [[35, 5, 105]]);
        assert_eq!(cores(stat, &[0, 1]).len(), 2);
        assert_eq!(share((&[35, 5, 105], &[80, 10, 155])), Some([0.9, 0.1]));
        assert_eq!(share((&[35, 5, 105], &[35, 5, 105])), None);
    }

    #[test]
    fn the_busiest_thread_was_there_all_the_time() {
        let ms = Duration::from_millis;
        let thread = |id, ran, waited| Thread { id, ran: ms(ran), waited: Some(ms(waited)) };
        let then = [thread(1, 100, 0), thread(2, 500, 100), thread(3, 0, 0)];
        let now = [thread(1, 1_050, 0), thread(2, 600, 990), thread(9, 5_000, 0)];
        let most =
            |then: &[Thread], of: fn(&Thread) -> Option<Duration>| most(then, &now, ms(1_000), of);
        assert_eq!(most(&then, Thread::ran), Some(0.95));
        assert_eq!(most(&then, Thread::wanted), Some(0.99));
        assert_eq!(most(&[], Thread::ran), None);
        assert_eq!(ran_and_waited("570537 194848 3\n").unwrap().1.as_nanos(), 194_848);
        assert_eq!(ran_and_waited("570537"), None);
    }

    #[test]
    fn this_process_has_threads_and_descriptors() {
        let own = std::process::id();
        assert!(!threads(own).is_empty());
        assert!(descriptors(own) > Some(2) && descriptors_max(own) > descriptors(own));
        let sampled = sample(Some(own));
        let section = section(&sampled, &sample(Some(own)), Some(own));
        assert!(section.memory_available_bytes > Some(1 << 20));
    }
}
