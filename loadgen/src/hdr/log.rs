//! The file: what HdrHistogram's tools call an interval log.
//!
//! `#[StartTime: …]` and `#[BaseTime: …]` are both the start of the run, and the time of each line
//! counts from it. Values are microseconds, the column of maxima is in milliseconds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::LineWriter;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriter, IntervalLogWriterBuilder, LogEntry, Tag,
};

use crate::latency::decode;
use crate::limits::HDR_INTERVAL;

/// Writes lines.
pub type Writer<'a> = IntervalLogWriter<'a, 'a, LineWriter<File>, V2DeflateSerializer>;

/// Microseconds in the milliseconds of the column of maxima.
const MAX_DIVISOR: f64 = 1e3;

/// No run lasts or begins so many seconds after 1970: the year is 2106.
const LAST: Duration = Duration::from_secs(u32::MAX as u64);

/// Writes the head.
pub fn begin<'a>(
    file: &'a mut LineWriter<File>,
    serializer: &'a mut V2DeflateSerializer,
    start: Duration,
) -> Result<Writer<'a>> {
    let start = UNIX_EPOCH + start;
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(concat!("[Logged with loadgen ", env!("CARGO_PKG_VERSION"), "]"))
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("Values are microseconds, Interval_Max is in milliseconds")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MAX_DIVISOR);
    Ok(builder.begin_log_with(file, serializer)?)
}

/// Writes a line.
pub fn line(
    log: &mut Writer<'_>,
    interval: u64,
    tag: &str,
    histogram: &Histogram<u64>,
) -> Result<()> {
    let start = HDR_INTERVAL * u32::try_from(interval).context("a run of a hundred years")?;
    log.write_histogram(histogram, start, HDR_INTERVAL, Tag::new(tag))?;
    Ok(())
}

/// The lines of several logs, by interval and tag.
pub struct Logs<'a> {
    /// When interval 0 began, since 1970.
    pub start: Duration,
    lines: BTreeMap<(u64, &'a str), Vec<&'a str>>,
}

impl<'a> Logs<'a> {
    /// Reads them; histograms are decoded only when they are wanted, for they are large.
    ///
    /// # Errors
    /// If one is no interval log, or none of ours.
    pub fn read(texts: &'a [String]) -> Result<Logs<'a>> {
        let mut found = Vec::new();
        for text in texts {
            read_one(text, &mut found)?;
        }
        let starts = found.iter().map(|&(base, ..)| base);
        let start = starts.min().context("logs without a single line")?;
        let mut lines: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (base, after, tag, histogram) in found {
            // Half an interval more, so that the milliseconds of a log do not matter.
            let after = base - start + after + HDR_INTERVAL / 2;
            let interval = (after.as_nanos() / HDR_INTERVAL.as_nanos()) as u64;
            lines.entry((interval, tag)).or_default().push(histogram);
        }
        Ok(Logs { start, lines })
    }

    /// Shows the sum of each interval and tag, in the order of time.
    ///
    /// # Errors
    /// If a histogram cannot be read, or that of `each`.
    pub fn join(
        &self,
        mut each: impl FnMut(u64, &str, &Histogram<u64>) -> Result<()>,
    ) -> Result<()> {
        for (&(interval, tag), encoded) in &self.lines {
            let mut encoded = encoded.iter();
            let first = encoded.next().context("an interval without a line")?;
            let mut sum: Histogram<u64> = decode(first)?;
            for other in encoded {
                sum.add(decode::<u64>(other)?)
                    .map_err(|error| anyhow!("{tag}: histograms of different kinds: {error}"))?;
            }
            each(interval, tag, &sum)?;
        }
        Ok(())
    }

    /// Writes them as one log.
    ///
    /// # Errors
    /// If it cannot be written, or a histogram cannot be read.
    pub fn write(&self, path: &Path) -> Result<()> {
        let what = || format!("writing {}", path.display());
        let mut file = LineWriter::new(File::create(path).with_context(what)?);
        let mut serializer = V2DeflateSerializer::new();
        let mut log = begin(&mut file, &mut serializer, self.start).with_context(what)?;
        self.join(|interval, tag, histogram| {
            line(&mut log, interval, tag, histogram).with_context(what)
        })
    }
}

/// Base, time since it, tag and histogram.
type Found<'a> = (Duration, Duration, &'a str, &'a str);

fn read_one<'a>(text: &'a str, found: &mut Vec<Found<'a>>) -> Result<()> {
    let mut base = None;
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        match entry.map_err(|error| anyhow!("no interval log: {error:?}"))? {
            LogEntry::BaseTime(time) => base = Some(time),
            LogEntry::StartTime(_) => {}
            LogEntry::Interval(line) => {
                let base = base.context("an interval log without BaseTime is not one of ours")?;
                let tag = line.tag().context("a line without a tag is not one of ours")?;
                ensure!(line.duration() == HDR_INTERVAL, "an interval of {:?}", line.duration());
                ensure!(
                    base <= LAST && line.start_timestamp() <= LAST,
                    "a time that is none of ours: {:?} after {base:?}",
                    line.start_timestamp()
                );
                found.push((base, line.start_timestamp(), tag.as_str(), line.encoded_histogram()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_log_of_ours_is_refused() {
        for bad in [
            "",
            "nonsense",
            "#[BaseTime: 1.000 (seconds since epoch)]\n",
            "Tag=rtt,0.000,1.000,0.1,AAAA\n",
            "#[BaseTime: 1.000 (seconds since epoch)]\n0.000,1.000,0.1,AAAA\n",
            "#[BaseTime: 1.000 (seconds since epoch)]\nTag=rtt,0.000,5.000,0.1,AAAA\n",
            "#[BaseTime: 18446744073709551615.0 (seconds)]\nTag=rtt,1.000,1.000,0.1,AAAA\n",
            "#[BaseTime: 1.0 (seconds)]\nTag=rtt,18446744073709551615.0,1.000,0.1,AAAA\n",
        ] {
            assert!(Logs::read(&[bad.to_owned()]).is_err(), "{bad}");
        }
        let text = "#[BaseTime: 1.000 (seconds since epoch)]\nTag=rtt,0.000,1.000,0.1,AAAA\n";
        let texts = [text.to_owned()];
        let logs = Logs::read(&texts).unwrap();
        assert!(logs.join(|_, _, _| Ok(())).is_err(), "no histogram");
    }
}
