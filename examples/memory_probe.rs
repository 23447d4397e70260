//! How fast this machine is, second by second, beside a measurement: a virtual machine has
//! neighbours, and where its memory answers slowly for some seconds, a server that fills the
//! machine stands still.
//!
//! Prints two numbers a second, by this thread's own CPU time, so that it does not matter how busy
//! the machine is: nanoseconds for one dependent read from 256 MiB, and for a thousand steps of a
//! random generator, which need no memory. Takes 1 % of a core, and 256 MiB.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Each read takes another cache line.
const LINES: u32 = 1 << 22;
const WORDS_PER_LINE: usize = 16;
const READS: u32 = 10_000;
const THOUSANDS_OF_STEPS: u32 = 1_000;

fn main() {
    let lines = chain();
    let (mut line, mut number) = (0, 0x9e37_79b9_7f4a_7c15);
    println!("unix_s read_ns thousand_steps_ns");
    loop {
        let begun = cpu_ns();
        for _ in 0..READS {
            line = lines[line as usize * WORDS_PER_LINE];
        }
        let read = cpu_ns();
        for _ in 0..THOUSANDS_OF_STEPS * 1_000 {
            number = next(number);
        }
        let stepped = cpu_ns();
        std::hint::black_box((line, number));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        println!(
            "{:.1} {:.0} {:.0}",
            now.as_secs_f64(),
            (read - begun) / f64::from(READS),
            (stepped - read) / f64::from(THOUSANDS_OF_STEPS)
        );
        sleep(Duration::from_secs(1));
    }
}

/// In the first word of each line the number of the next: all of them in one circle, in an order
/// that no prefetcher guesses (a linear congruential generator of full period; Knuth 3.2.1.2).
fn chain() -> Vec<u32> {
    let mut lines = vec![0; LINES as usize * WORDS_PER_LINE];
    for line in 0..LINES {
        let next = line.wrapping_mul(1_103_515_245).wrapping_add(12_345) % LINES;
        lines[line as usize * WORDS_PER_LINE] = next;
    }
    lines
}

/// xorshift; Marsaglia 2003.
fn next(mut number: u64) -> u64 {
    number ^= number << 13;
    number ^= number >> 7;
    number ^ number << 17
}

fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
