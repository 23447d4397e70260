//! `--hdr FILE`: an HdrHistogram interval log, a line for each second and tag.
//!
//! A worker records as it does without; once a second it puts what it has counted since into the
//! totals, and hands it over. What is handed over is bounded: if the log cannot keep up, a worker
//! goes on counting, and the interval gets longer, but nothing is lost. Cost: a walk over four
//! histograms a second and worker, and a second copy of them.

mod log;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::LineWriter;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use heartwheel::time::Timestamp;

pub use self::log::Logs;
use self::log::Writer;
use crate::latency::{LONGEST_US, Latency};
use crate::limits::{HDR_INTERVAL, HDR_OPEN_MAX, HDR_WAITING_MAX};
use crate::stats::Stats;

/// What is logged, with the significant digits of its histograms: the names of the report.
pub const TAGS: [(&str, u8); 4] =
    [("rtt", 3), ("connect", 2), ("send_lateness", 2), ("expiry_lateness", 3)];

fn tagged(stats: &mut Stats) -> [&mut Latency; TAGS.len()] {
    [&mut stats.rtt, &mut stats.connect, &mut stats.send_lateness, &mut stats.expiry_lateness]
}

/// What one worker has counted in one interval: value and how often, for each tag.
#[derive(Debug)]
pub struct Slice {
    worker: usize,
    interval: u64,
    counts: [Vec<(u64, u32)>; TAGS.len()],
}

/// To the log.
#[derive(Debug)]
pub enum Message {
    /// Of a worker.
    Slice(Slice),
    /// There will be no more.
    End,
}

/// Where a worker cuts its histograms into intervals.
pub struct Cutter {
    log: SyncSender<Message>,
    worker: usize,
    start: Timestamp,
    interval: u64,
    ends_at: Timestamp,
    /// The totals until the last cut.
    before: [Latency; TAGS.len()],
}

impl Cutter {
    /// Interval 0 begins at `start`.
    pub fn new(log: SyncSender<Message>, worker: usize, start: Timestamp) -> Cutter {
        let before = TAGS.map(|(_, digits)| Latency::new(digits));
        Cutter { log, worker, start, interval: 0, ends_at: start + HDR_INTERVAL, before }
    }

    /// Hands over what was counted, if an interval is over.
    pub fn cut(&mut self, stats: &mut Stats, now: Timestamp) {
        if now < self.ends_at {
            return;
        }
        let counts = tagged(stats).map(|latency| latency.counts());
        let slice = Slice { worker: self.worker, interval: self.interval, counts };
        if self.log.try_send(Message::Slice(slice)).is_ok() {
            for (before, latency) in self.before.iter_mut().zip(tagged(stats)) {
                if latency.count() > 0 {
                    before.add(latency);
                    latency.reset();
                }
            }
        }
        self.interval = (now.since(self.start).as_nanos() / HDR_INTERVAL.as_nanos()) as u64;
        self.ends_at = self.start + HDR_INTERVAL * (self.interval as u32 + 1);
    }

    /// Hands over the rest, and makes the totals whole again.
    pub fn finish(mut self, stats: &mut Stats) {
        let counts = tagged(stats).map(|latency| latency.counts());
        let slice = Slice { worker: self.worker, interval: self.interval, counts };
        // If the log has failed, it says so itself.
        let _ = self.log.send(Message::Slice(slice));
        for (before, latency) in self.before.iter_mut().zip(tagged(stats)) {
            before.add(latency);
            std::mem::swap(before, latency);
        }
    }
}

/// The log, on a thread of its own.
pub struct HdrLog {
    intake: SyncSender<Message>,
    thread: JoinHandle<Result<()>>,
}

impl HdrLog {
    /// Begins a log of `workers` workers whose interval 0 begins at `start`, since 1970.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn start(path: &Path, workers: usize, start: Duration) -> Result<HdrLog> {
        let what = format!("writing {}", path.display());
        let file = File::create(path).with_context(|| what.clone())?;
        let (intake, messages) = sync_channel(workers * HDR_WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("hdr".to_owned())
            .spawn(move || Collector::new(workers).collect(&messages, file, start).context(what))
            .context("starting a thread")?;
        Ok(HdrLog { intake, thread })
    }

    /// Where slices go.
    pub fn intake(&self) -> SyncSender<Message> {
        self.intake.clone()
    }

    /// Writes the rest; to be called when all workers have ended.
    ///
    /// # Errors
    /// If the log could not be written.
    pub fn finish(self) -> Result<()> {
        // If it has failed, it says so itself.
        let _ = self.intake.send(Message::End);
        self.thread.join().map_err(|_| anyhow!("the thread of the HDR log panicked"))?
    }
}

type Interval = [Option<Histogram<u64>>; TAGS.len()];

/// Puts the workers' slices of an interval together.
struct Collector {
    /// The last interval that each worker has delivered.
    delivered: Vec<Option<u64>>,
    open: BTreeMap<u64, Interval>,
}

impl Collector {
    fn new(workers: usize) -> Collector {
        Collector { delivered: vec![None; workers], open: BTreeMap::new() }
    }

    fn collect(mut self, messages: &Receiver<Message>, file: File, start: Duration) -> Result<()> {
        // Every line is written at once: a run that is killed leaves what it has measured.
        let (mut file, mut serializer) = (LineWriter::new(file), V2DeflateSerializer::new());
        let mut log = log::begin(&mut file, &mut serializer, start)?;
        while let Ok(Message::Slice(slice)) = messages.recv() {
            self.add(&slice)?;
            // An interval is whole once every worker has delivered it, or a later one.
            let whole = self.delivered.iter().min().copied().flatten();
            while let Some(&oldest) = self.open.keys().next() {
                let is_whole = whole.is_some_and(|whole| oldest <= whole);
                if !is_whole && self.open.len() <= HDR_OPEN_MAX {
                    break;
                }
                if let Some(interval) = self.open.remove(&oldest) {
                    write(&mut log, oldest, &interval)?;
                }
            }
        }
        self.open.iter().try_for_each(|(&number, interval)| write(&mut log, number, interval))
    }

    fn add(&mut self, slice: &Slice) -> Result<()> {
        self.delivered[slice.worker] = Some(slice.interval);
        if slice.counts.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let interval = self.open.entry(slice.interval).or_default();
        for ((sum, counts), (_, digits)) in interval.iter_mut().zip(&slice.counts).zip(TAGS) {
            if sum.is_none() && !counts.is_empty() {
                *sum = Some(Histogram::new_with_bounds(1, LONGEST_US, digits)?);
            }
            for &(value, count) in counts {
                let Some(sum) = sum else { break };
                sum.record_n(value, u64::from(count))?;
            }
        }
        Ok(())
    }
}

fn write(log: &mut Writer<'_>, number: u64, interval: &Interval) -> Result<()> {
    for ((tag, _), histogram) in TAGS.into_iter().zip(interval) {
        if let Some(histogram) = histogram {
            log::line(log, number, tag, histogram)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(worker: usize, interval: u64, rtt: &[(u64, u32)]) -> Slice {
        let counts = [rtt.to_vec(), Vec::new(), Vec::new(), Vec::new()];
        Slice { worker, interval, counts }
    }

    #[test]
    fn nothing_is_lost_by_cutting() {
        let (log, slices) = sync_channel(2);
        let second = |number: u64| Timestamp::from_nanos(number * 1_000_000_000);
        let mut cutter = Cutter::new(log, 0, second(1));
        let mut stats = Stats::new(0);
        for number in 1..10 {
            stats.rtt.record(Duration::from_micros(number));
            cutter.cut(&mut stats, second(number));
        }
        let received: Vec<_> = slices.try_iter().collect();
        cutter.finish(&mut stats);
        assert_eq!((stats.rtt.count(), stats.rtt.max_us()), (9, Some(9)));
        // Two fit; all later ones come with the last.
        let all: Vec<_> = received.into_iter().chain(slices.try_iter()).collect();
        let counts = all.iter().map(|message| match message {
            Message::Slice(slice) => (slice.interval, slice.counts[0].len()),
            Message::End => panic!("nobody has ended it"),
        });
        assert_eq!(counts.collect::<Vec<_>>(), [(0, 2), (1, 1), (8, 6)]);
    }

    #[test]
    fn an_interval_waits_for_all_workers_but_not_for_ever() {
        let path = std::env::temp_dir().join(format!("loadgen-hdr-{}", std::process::id()));
        let log = HdrLog::start(&path, 2, Duration::from_secs(1_700_000_000)).unwrap();
        let send = |slice| log.intake().send(Message::Slice(slice)).unwrap();
        (0..40).for_each(|interval| send(slice(0, interval, &[(100, 1)])));
        (0..40).for_each(|interval| send(slice(1, interval, &[(200, 2)])));
        log.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let texts = [text];
        let logs = Logs::read(&texts).unwrap();
        let mut counts = Vec::new();
        logs.join(|number, tag, histogram| {
            assert_eq!(tag, "rtt");
            counts.push((number, histogram.len(), histogram.max()));
            Ok(())
        })
        .unwrap();
        assert_eq!(counts, (0..40).map(|number| (number, 3, 200)).collect::<Vec<_>>());
        let lines = texts[0].lines().filter(|line| line.starts_with("Tag=rtt,")).count();
        assert!((40 + 1..=80).contains(&lines), "some were written before all had come: {lines}");
    }
}
