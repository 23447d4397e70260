//! How people write quantities on a command line or in a file: `90s`, `100k`, `64KiB`, `1%`.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A text that is no quantity of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}: write it like {example}")]
pub struct UnitError {
    text: String,
    kind: &'static str,
    example: &'static str,
}

/// A duration: `250ms`, `90s`, `5m`, `1h 30m`; a bare `0` is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Span, UnitError> {
        humantime::parse_duration(text).map(Span).map_err(|_| UnitError {
            text: text.to_owned(),
            kind: "duration",
            example: "250ms, 90s, 5m or 1h",
        })
    }
}

/// A number of things: `500`, `200k`, `1.5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

impl FromStr for Count {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Count, UnitError> {
        scaled(text, &[("k", 1e3), ("m", 1e6), ("g", 1e9)]).map(Count).ok_or_else(|| UnitError {
            text: text.to_owned(),
            kind: "count",
            example: "500, 200k or 1.5m",
        })
    }
}

/// A number of bytes: `4096`, `64KiB`, `16MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Bytes, UnitError> {
        let units = [
            ("kib", 1024.0),
            ("mib", 1024.0 * 1024.0),
            ("gib", 1024.0 * 1024.0 * 1024.0),
            ("kb", 1e3),
            ("mb", 1e6),
            ("gb", 1e9),
            ("b", 1.0),
        ];
        scaled(text, &units).map(Bytes).ok_or_else(|| UnitError {
            text: text.to_owned(),
            kind: "number of bytes",
            example: "4096, 64KiB or 16MiB",
        })
    }
}

/// A share: `1%`, `0.5%`, or `0.01`; between nothing and all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Share, UnitError> {
        let (number, scale) = match text.trim().strip_suffix('%') {
            Some(number) => (number, 0.01),
            None => (text, 1.0),
        };
        match number.trim().parse::<f64>().map(|number| number * scale) {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Share(share)),
            _ => {
                Err(UnitError { text: text.to_owned(), kind: "share", example: "1%, 0.5% or 0.01" })
            }
        }
    }
}

/// A whole number after scaling by the unit that `text` ends with, if any.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, scale) = units
        .iter()
        .find_map(|&(unit, scale)| lower.strip_suffix(unit).map(|number| (number, scale)))
        .unwrap_or((&lower, 1.0));
    let number = number.trim().replace('_', "");
    if scale == 1.0 {
        return number.parse().ok();
    }
    let value = number.parse::<f64>().ok()? * scale;
    let whole = value.round();
    let exact = (value - whole).abs() < 1e-6 && (0.0..=9e15).contains(&whole);
    exact.then_some(whole as u64)
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Lets a quantity stand in a TOML file as a text, or as a bare number.
macro_rules! deserialize_quantity {
    ($($name:ident),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Written { Text(String), Number(u64) }
                match Written::deserialize(deserializer)? {
                    Written::Text(text) => text.parse().map_err(de::Error::custom),
                    Written::Number(number) => {
                        number.to_string().parse().map_err(de::Error::custom)
                    }
                }
            }
        }
    )+};
}

deserialize_quantity!(Span, Count, Bytes, Share);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        assert_eq!("90s".parse(), Ok(Span(Duration::from_secs(90))));
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        assert_eq!("200k".parse(), Ok(Count(200_000)));
        assert_eq!("1.5M".parse(), Ok(Count(1_500_000)));
        assert_eq!("64KiB".parse(), Ok(Bytes(65_536)));
        assert_eq!("12_000".parse(), Ok(Count(12_000)));
        assert_eq!("1%".parse(), Ok(Share(0.01)));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(123_456), "123,456");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        assert!("ten".parse::<Count>().is_err());
        assert!("-1".parse::<Count>().is_err());
        assert!("1.0005".parse::<Count>().is_err());
        assert!("101%".parse::<Share>().is_err());
        let error = "soon".parse::<Span>().expect_err("no duration");
        assert!(error.to_string().contains("90s"), "{error}");
    }
}
