//! Sizes, times and counts as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// Bytes: `4MiB`, `512KiB`, `10MB`. Not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

/// A time: `200ms`, `1.5s`, `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A number: `1000`, `10k`, `2M`. Not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(pub usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with(|last: char| last.is_ascii_digit()) {
            return Err(format!("a size needs a unit, such as {text}MiB or {text}B"));
        }
        let bytes = text.parse::<ByteSize>().ok().map(|size| size.as_u64());
        bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0)
            .map(Size)
            .ok_or_else(|| "not a size; sizes look like 4MiB, 512KiB or 10MB".to_string())
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with(|last: char| last.is_ascii_digit()) && text != "0" {
            return Err(format!("a time needs a unit, such as {text}s or {text}ms"));
        }
        let time = humantime::parse_duration(text);
        time.map(Time)
            .map_err(|error| format!("{error}; times look like 200ms, 5s or 2m"))
    }
}

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, factor) = match text.strip_suffix(['k', 'M']) {
            Some(digits) if text.ends_with('k') => (digits, 1_000),
            Some(digits) => (digits, 1_000_000),
            None => (text, 1),
        };
        let number = digits.replace('_', "").parse::<usize>().ok();
        number
            .and_then(|number| number.checked_mul(factor))
            .filter(|number| *number > 0)
            .map(Number)
            .ok_or_else(|| "a number above 0 is needed, such as 1000, 10k or 2M".to_string())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut unit) = (self.0, "B");
        for larger in ["KiB", "MiB", "GiB"] {
            if number >= 1024 && number % 1024 == 0 {
                (number, unit) = (number / 1024, larger);
            }
        }
        write!(f, "{number}{unit}")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_numbers_take_units() {
        assert_eq!("4MiB".parse(), Ok(Size(4 << 20)));
        assert_eq!("64 KiB".parse(), Ok(Size(64 << 10)));
        assert_eq!("10MB".parse(), Ok(Size(10_000_000)));
        assert_eq!("200ms".parse(), Ok(Time(Duration::from_millis(200))));
        assert_eq!("1.5s".parse(), Ok(Time(Duration::from_millis(1500))));
        assert_eq!("10k".parse(), Ok(Number(10_000)));
        assert_eq!("2M".parse(), Ok(Number(2_000_000)));
        assert_eq!("1_000".parse(), Ok(Number(1_000)));
    }

    #[test]
    fn what_is_no_size_time_or_number_is_told_what_one_looks_like() {
        let size = |text: &str| text.parse::<Size>().unwrap_err();
        assert!(size("4").contains("4MiB or 4B"));
        assert!(size("0B").contains("not a size"));
        assert!(size("4 parsecs").contains("sizes look like"));
        assert!(size("-1KiB").contains("not a size"));
        let time = |text: &str| text.parse::<Time>().unwrap_err();
        assert!(time("2").contains("2s or 2ms"));
        assert!(time("soon").contains("times look like"));
        for text in ["0", "-1", "1.5", "k", "", "18446744073709551615k"] {
            assert!(text.parse::<Number>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_is_told_as_it_can_be_given() {
        for text in ["4MiB", "1GiB", "1000B", "1536B", "3KiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["1s", "200ms", "5m", "1s 500ms"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
    }
}
