//! What was done, and what became of it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Durations, in microseconds; the extremes are exact.
#[derive(Debug)]
pub struct Times {
    histogram: Histogram<u64>,
    min_us: u64,
    max_us: u64,
}

impl Default for Times {
    fn default() -> Times {
        let histogram = Histogram::new(3).expect("three digits are allowed");
        Times { histogram, min_us: u64::MAX, max_us: 0 }
    }
}

impl Times {
    pub fn note(&mut self, time: Duration) {
        let us = time.as_micros() as u64;
        self.min_us = self.min_us.min(us);
        self.max_us = self.max_us.max(us);
        // It grows as it has to.
        let _ = self.histogram.record(us);
    }

    fn to_json(&self) -> Value {
        if self.histogram.is_empty() {
            return Value::Null;
        }
        let ms = |us: u64| us as f64 / 1e3;
        json!({
            "min": ms(self.min_us),
            "p50": ms(self.histogram.value_at_quantile(0.5)),
            "p99": ms(self.histogram.value_at_quantile(0.99)),
            "max": ms(self.max_us),
        })
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Account {
    pub connected: u64,
    /// Connects that failed.
    pub failed: u64,
    /// Connects, and answers, that were still waited for at the end.
    pub waiting: u64,
    pub answered: u64,
    pub ended_by_server: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// SYNs that were sent past the kernel's TCP.
    pub syns: u64,
    /// From connect to connected.
    pub connect: Times,
    /// From connect to the answer.
    pub answer: Times,
    /// From connect until the server had ended it.
    pub lived: Times,
    /// From connect until now, of those who were open at the end.
    pub still_open: Times,
}

impl Account {
    pub fn to_json(&self, seconds: f64) -> Value {
        json!({
            "seconds": seconds,
            "connected": self.connected,
            "failed": self.failed,
            "waiting": self.waiting,
            "answered": self.answered,
            "ended_by_server": self.ended_by_server,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "syns": self.syns,
            "connect_ms": self.connect.to_json(),
            "answer_ms": self.answer.to_json(),
            "lived_ms": self.lived.to_json(),
            "still_open_ms": self.still_open.to_json(),
        })
    }
}
