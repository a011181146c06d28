//! Reads sizes and times with units.

use std::time::Duration;

/// Bytes: a number with an optional unit `B`, `KB`, `KiB`, `MB`, `MiB`, `GB`, `GiB` (`k`, `m` and
/// `g` alone mean the binary ones).
///
/// # Errors
/// What is wrong with the text.
pub fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let factor: usize = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "k" | "kib" => 1 << 10,
        "mb" => 1_000_000,
        "m" | "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "g" | "gib" => 1 << 30,
        _ => {
            return Err(format!(
                "unknown unit \"{unit}\"; sizes look like 4MiB, 512KiB or 1000"
            ));
        }
    };
    number
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "not a size; sizes look like 4MiB, 512KiB or 1000".to_string())
}

/// A time: a number with a unit `us`, `ms`, `s`, `m` or `h`; without one it is seconds.
///
/// # Errors
/// What is wrong with the text.
pub fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!(
                "unknown unit \"{unit}\"; times look like 200ms, 5s or 2m"
            ));
        }
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * seconds).ok())
        .ok_or_else(|| "not a time; times look like 200ms, 5s or 2m".to_string())
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_take_units() {
        assert_eq!(bytes("4MiB"), Ok(4 << 20));
        assert_eq!(bytes("64 k"), Ok(64 << 10));
        assert_eq!(bytes("10MB"), Ok(10_000_000));
        assert!(bytes("0").is_err());
        assert!(bytes("4 parsecs").is_err());
        assert_eq!(time("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("2"), Ok(Duration::from_secs(2)));
        assert!(time("soon").is_err());
    }
}
