//! `--at` and `--reconnect` as people write them.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Backoff, Event, Kind, PAYLOAD_BYTES_MIN};
use crate::limits::BROADCAST_BYTES_MAX;
use crate::units::{self, parse_duration, parse_share};

const CURE: &str = "write it like 30s:storm:50%, 60s:drain, 60s:drain:10s, 10s:broadcast:1KiB or \
                    10s:broadcast:1KiB:5s";

/// Parses `TIME:storm:SHARE`, `TIME:drain[:SPREAD]` or `TIME:broadcast:BYTES[:SPREAD]`.
///
/// # Errors
/// If it is something else, with the cure.
pub fn parse_event(text: &str) -> Result<Event> {
    let parts: Vec<&str> = text.split(':').collect();
    let at = parse_duration(parts[0]).with_context(|| CURE)?;
    let spread = |part: Option<&&str>| -> Result<Option<Duration>> {
        Ok(part.map(|part| parse_duration(part)).transpose()?)
    };
    let kind = match parts[1..] {
        ["storm", share] => {
            let share = parse_share(share)?;
            ensure!(share > 0.0, "a storm of nobody: {CURE}");
            Kind::Storm(share)
        }
        ["drain", ref rest @ ..] if rest.len() <= 1 => Kind::Drain(spread(rest.first())?),
        ["broadcast", bytes, ref rest @ ..] if rest.len() <= 1 => {
            Kind::Broadcast(parse_payload(bytes)?, spread(rest.first())?)
        }
        _ => bail!("{CURE}"),
    };
    Ok(Event { at, kind })
}

fn parse_payload(text: &str) -> Result<u32> {
    let (number, unit) = units::split(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "KiB" => 1024.0,
        _ => bail!("`{unit}` is no unit of a payload; use B or KiB"),
    };
    let bytes = number * factor;
    let range = f64::from(PAYLOAD_BYTES_MIN)..=f64::from(BROADCAST_BYTES_MAX);
    ensure!(
        range.contains(&bytes),
        "a payload has {PAYLOAD_BYTES_MIN} to {BROADCAST_BYTES_MAX} bytes: its front tells which \
         broadcast it is, and a PUSH frame ends there"
    );
    Ok(bytes as u32)
}

/// Parses `exp:FIRST..MOST,full-jitter`.
///
/// # Errors
/// If it is something else, with the cure.
pub fn parse_backoff(text: &str) -> Result<Backoff> {
    let times = text.strip_prefix("exp:").and_then(|rest| rest.strip_suffix(",full-jitter"));
    let (first, most) = times
        .and_then(|times| times.split_once(".."))
        .context("write it like exp:1s..30s,full-jitter")?;
    let (first, most) = (parse_duration(first)?, parse_duration(most)?);
    ensure!(
        !first.is_zero() && first <= most,
        "{first:?}..{most:?}: the first time is the shorter"
    );
    Ok(Backoff { first, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_what_is_none_is_refused() {
        let at = |ms| Duration::from_millis(ms);
        let event = parse_event("30s:storm:50%").unwrap();
        assert_eq!(event, Event { at: at(30_000), kind: Kind::Storm(0.5) });
        let event = parse_event("500ms:broadcast:1KiB:2s").unwrap();
        assert_eq!(event, Event { at: at(500), kind: Kind::Broadcast(1_024, Some(at(2_000))) });
        assert_eq!(parse_event("1m:drain").unwrap().kind, Kind::Drain(None));
        for bad in [
            "",
            "30s",
            "30:storm:50%",
            "30s:storm",
            "30s:storm:0%",
            "30s:storm:200%",
            "5s:flood",
            "5s:drain:1s:2s",
            "5s:broadcast",
            "5s:broadcast:1",
            "5s:broadcast:64KiB",
            "5s:drain:x",
        ] {
            assert!(parse_event(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_backoff_has_two_times_and_full_jitter() {
        assert_eq!(parse_backoff("exp:1s..30s,full-jitter").unwrap(), Backoff::DEFAULT);
        for bad in ["exp:1s..30s", "exp:30s..1s,full-jitter", "exp:0..1s,full-jitter", "1s..2s"] {
            assert!(parse_backoff(bad).is_err(), "{bad}");
        }
    }
}
