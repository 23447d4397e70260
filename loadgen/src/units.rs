//! Numbers as people write them on a command line: `1.5s`, `200k`, `1%`, `16KiB`.

use std::time::Duration;

pub use heartwheel::units::grouped;

/// A value that could not be read, with what would have been right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No number at the front.
    #[error("`{0}` does not begin with a number")]
    Number(String),
    /// A unit that is not known here.
    #[error("`{unit}` is no unit of {what}; use {units}")]
    Unit {
        /// What stood after the number.
        unit: String,
        /// What was wanted.
        what: &'static str,
        /// The units that are known.
        units: &'static str,
    },
    /// A number that is negative, too large, or too small to be meant.
    #[error("`{0}` is out of range")]
    Range(String),
}

/// `250us`, `20ms`, `1.5s`, `3m`, `2h`.
///
/// # Errors
/// If it is something else; a bare number has no unit, so only `0` may do without.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "" if number == 0.0 => 1.0,
        _ => return Err(unknown(unit, "time", "us, ms, s, m or h")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| UnitError::Range(text.to_owned()))
}

/// `500`, `200k`, `1.5m`.
///
/// # Errors
/// If it is something else, or no whole number of at least 0.
pub fn parse_count(text: &str) -> Result<u32, UnitError> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "m" | "M" => 1e6,
        _ => return Err(unknown(unit, "counting", "k or m")),
    };
    let count = (number * factor).round();
    if (count - number * factor).abs() > 1e-6 || !(0.0..=f64::from(u32::MAX)).contains(&count) {
        return Err(UnitError::Range(text.to_owned()));
    }
    Ok(count as u32)
}

/// `1%`, `0.5%`, or the share itself: `0.01`.
///
/// # Errors
/// If it is something else, or lies outside 0 to 100 %.
pub fn parse_share(text: &str) -> Result<f64, UnitError> {
    let (number, unit) = split(text)?;
    let share = match unit {
        "%" => number / 100.0,
        "" => number,
        _ => return Err(unknown(unit, "shares", "%")),
    };
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(UnitError::Range(text.to_owned())) }
}

/// Microseconds as a person reads them.
pub fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// Cuts `12.5ms` into `12.5` and `ms`.
///
/// # Errors
/// If there is no number at the front.
pub fn split(text: &str) -> Result<(f64, &str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '+')));
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number = number.replace('_', "").parse().map_err(|_| UnitError::Number(text.to_owned()))?;
    Ok((number, unit.trim()))
}

fn unknown(unit: &str, what: &'static str, units: &'static str) -> UnitError {
    UnitError::Unit { unit: unit.to_owned(), what, units }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["5", "5x", "", "s", "-1s", "1e400s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_are_whole() {
        assert_eq!(parse_count("200k"), Ok(200_000));
        assert_eq!(parse_count("1.5m"), Ok(1_500_000));
        assert_eq!(parse_count("10_000"), Ok(10_000));
        for bad in ["1.5", "-1", "5000m", "k", "1q"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_lie_between_none_and_all() {
        assert_eq!(parse_share("1%"), Ok(0.01));
        assert_eq!(parse_share("0.25"), Ok(0.25));
        for bad in ["101%", "-1%", "2", "1ms"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }
}
