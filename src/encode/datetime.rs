//! Turns the ISO text of dates, times and timestamps into days and microseconds.
//!
//! ISO order with a four-digit year is read the same under every DateStyle. A timestamp with time
//! zone must carry its offset, because without one the session's TimeZone decides.

use super::digits::{self, POWERS_OF_TEN};

/// `2000-01-01`, PostgreSQL's day 0, counted from 0000-03-01 as [`date`] does.
const POSTGRES_EPOCH_DAYS: u32 = 730_425;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// `MAX_TZDISP_HOUR` of the server.
const MAX_ZONE_HOURS: u64 = 15;
/// Days of each month; the places that are no month have none.
const MONTH_DAYS: [u8; 16] = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0, 0, 0];

/// Reads `YYYY-MM-DD` of the years 0001 to 9999, `infinity` and `-infinity`: days since 2000-01-01.
#[inline]
pub(super) fn date(text: &[u8]) -> Option<i32> {
    if text.len() == 10 {
        return day(text);
    }
    infinity(text, i32::MIN, i32::MAX)
}

/// The server keeps its two infinities at the ends of the range.
#[inline]
fn infinity<T>(text: &[u8], minus: T, plus: T) -> Option<T> {
    match text {
        b"infinity" => Some(plus),
        b"-infinity" => Some(minus),
        _ => None,
    }
}

/// Days since 2000-01-01 of the `YYYY-MM-DD` in the first ten characters.
#[inline]
fn day(text: &[u8]) -> Option<i32> {
    // A dash is zero after this, wherever a dash belongs.
    const SHAPE: u64 = u64::from_le_bytes(*b"0000-00-");
    const DASHES: u64 = 0xff00_00ff_0000_0000;
    let front = digits::u64_at(text, 0) ^ SHAPE;
    let back = digits::word(&text[8..10]);
    if front & DASHES != 0 || !digits::are_digits(front) || !digits::are_digits(back) {
        return None;
    }
    let pairs = front.wrapping_mul(10).wrapping_add(front >> 8);
    let year = (pairs & 0xff) as u32 * 100 + (pairs >> 16 & 0xff) as u32;
    let month = (pairs >> 40 & 0xff) as u32;
    let day = digits::value(back) as u32;

    // Multiples of 4, but of the multiples of 100 only those of 16 (and so of 400).
    let leap = year & (if year.is_multiple_of(25) { 15 } else { 3 }) == 0;
    let last = MONTH_DAYS.get(month as usize).copied().unwrap_or(0);
    let last = u32::from(last) + u32::from(leap && month == 2);
    if year == 0 || day == 0 || day > last {
        return None;
    }
    // Years that begin in March have their leap day at the end, and months that follow
    // (153 m + 2) / 5.
    let early = u32::from(month <= 2);
    let (year, month) = (year - early, month + 12 * early - 3);
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(days as i32 - POSTGRES_EPOCH_DAYS as i32)
}

/// Reads `HH:MM[:SS[.ffffff]]` below 24:00:00: microseconds since midnight.
#[inline]
pub(super) fn time(text: &[u8]) -> Option<i64> {
    let (micros, rest) = time_of_day(text)?;
    rest.is_empty().then_some(micros)
}

/// A time of day and what follows it. Hour 24, second 60 and a seventh fractional digit, which the
/// server carries and rounds, are left to it.
#[inline]
fn time_of_day(text: &[u8]) -> Option<(i64, &[u8])> {
    const SHAPE: u64 = u64::from_le_bytes(*b"00:00:00");
    const COLONS: u64 = 0x0000_ff00_00ff_0000;
    let with_seconds = text.len() >= 8 && text[5] == b':';
    let (raw, mut rest) = if with_seconds {
        (digits::u64_at(text, 0), &text[8..])
    } else {
        let (minutes, rest) = text.split_at_checked(5)?;
        let mut padded = *b"00:00:00";
        padded[..5].copy_from_slice(minutes);
        (u64::from_le_bytes(padded), rest)
    };
    let word = raw ^ SHAPE;
    if word & COLONS != 0 || !digits::are_digits(word) {
        return None;
    }
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let (hour, minute, second) = (pairs & 0xff, pairs >> 24 & 0xff, pairs >> 48 & 0xff);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = ((hour * 60 + minute) * 60 + second) as i64 * MICROS_PER_SECOND;
    if with_seconds && let [b'.', fraction @ ..] = rest {
        let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if len > 6 {
            return None;
        }
        micros += (digits::number(&fraction[..len])? * POWERS_OF_TEN[6 - len]) as i64;
        rest = &fraction[len..];
    }
    Some((micros, rest))
}

/// Reads `YYYY-MM-DD`, alone or followed by a space or `T` and a time; and the infinities:
/// microseconds since 2000-01-01 00:00:00.
#[inline]
pub(super) fn timestamp(text: &[u8]) -> Option<i64> {
    match text.len() {
        10 => Some(i64::from(day(text)?) * MICROS_PER_DAY),
        11.. => {
            let (micros, rest) = day_and_time(text)?;
            rest.is_empty().then_some(micros)
        }
        _ => infinity(text, i64::MIN, i64::MAX),
    }
}

/// As [`timestamp`], with an offset after the time: microseconds since 2000-01-01 00:00:00 UTC.
#[inline]
pub(super) fn timestamptz(text: &[u8]) -> Option<i64> {
    if text.len() < 11 {
        return infinity(text, i64::MIN, i64::MAX);
    }
    let (micros, rest) = day_and_time(text)?;
    Some(micros - offset(rest)? * MICROS_PER_SECOND)
}

/// A date, a space or `T`, a time of day; and what follows. `text` has at least 11 characters.
#[inline]
fn day_and_time(text: &[u8]) -> Option<(i64, &[u8])> {
    if text[10] != b' ' && text[10] != b'T' {
        return None;
    }
    let (micros, rest) = time_of_day(&text[11..])?;
    Some((i64::from(day(text)?) * MICROS_PER_DAY + micros, rest))
}

/// Seconds east of Greenwich: `Z`, or sign and `HH`, `HHMM` or `HH:MM`.
///
/// `Z` is an entry of the server's timezone_abbreviations; all sets shipped with it agree.
#[inline]
fn offset(text: &[u8]) -> Option<i64> {
    let (hours, minutes): (&[u8], &[u8]) = match text {
        b"Z" => return Some(0),
        [b'+' | b'-', hours @ .., b':', _, _] if hours.len() == 2 => (hours, &text[4..]),
        [b'+' | b'-', rest @ ..] if rest.len() == 4 => rest.split_at(2),
        [b'+' | b'-', rest @ ..] if rest.len() == 2 => (rest, b"0"),
        _ => return None,
    };
    let (hours, minutes) = (digits::number(hours)?, digits::number(minutes)?);
    if hours > MAX_ZONE_HOURS || minutes > 59 {
        return None;
    }
    let seconds = ((hours * 60 + minutes) * 60) as i64;
    Some(if text[0] == b'-' { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_calendar_follows_the_one_before() {
        // 0001-01-01 is 730119 days before 2000-01-01.
        let mut expected = -730_119;
        for year in 1..=9999 {
            for month in 1..=12 {
                let leap = if year % 100 == 0 {
                    year % 400 == 0
                } else {
                    year % 4 == 0
                };
                let last = match month {
                    2 => 28 + i32::from(leap),
                    4 | 6 | 9 | 11 => 30,
                    _ => 31,
                };
                for day in 1..=last {
                    let text = format!("{year:04}-{month:02}-{day:02}");
                    assert_eq!(date(text.as_bytes()), Some(expected), "{text}");
                    expected += 1;
                }
                let text = format!("{year:04}-{month:02}-{:02}", last + 1);
                assert_eq!(date(text.as_bytes()), None, "{text}");
            }
        }
    }

    #[test]
    fn other_spellings_of_a_date_are_left_to_the_server() {
        for text in [
            "",
            "0000-01-01",
            "2020-00-01",
            "2020-13-01",
            "2020-16-01",
            "2020-99-01",
            "2020-01-00",
            "20-01-01",
            "2020/01/01",
            "2020-1-01",
            "2020-01-1",
            "12020-01-1",
            "2020-01-0a",
            "2020-01-01 ",
            "Infinity",
            "01-02-2020",
            "2020:01-01",
            "20200101",
            "2020-01001",
        ] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
        assert_eq!(date(b"infinity"), Some(i32::MAX));
        assert_eq!(date(b"-infinity"), Some(i32::MIN));
    }

    #[test]
    fn times_are_read_to_the_microsecond() {
        assert_eq!(time(b"00:00"), Some(0));
        assert_eq!(time(b"23:59"), Some(86_340_000_000));
        assert_eq!(time(b"01:02:03"), Some(3_723_000_000));
        assert_eq!(time(b"01:02:03.5"), Some(3_723_500_000));
        assert_eq!(time(b"23:59:59.999999"), Some(MICROS_PER_DAY - 1));
        for text in [
            "",
            "1:02",
            "01:02:",
            "01:02:3",
            "24:00",
            "24:00:00",
            "23:59:60",
            "23:60",
            "01:02.5",
            "01:02:03.",
            "01:02:03.1234567",
            "01:02:03 ",
            "01-02-03",
            "01:02-03",
            "01:02:03+00",
        ] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_timestamp_with_time_zone_needs_its_offset() {
        assert_eq!(timestamptz(b"2000-01-01 00:00:00"), None);
        assert_eq!(timestamptz(b"2000-01-01"), None);
        assert_eq!(timestamptz(b"2000-01-01T00:00:00Z"), Some(0));
        for text in [
            "02:00:00+02",
            "02:00:00+02:00",
            "02:00+0200",
            "02:00:00.0+02",
            "00:00-00",
        ] {
            let text = format!("2000-01-01 {text}");
            assert_eq!(timestamptz(text.as_bytes()), Some(0), "{text}");
        }
        for text in [
            "+",
            "+2",
            "+16",
            "+02:60",
            "+02:00:00",
            " +02",
            "z",
            "UTC",
            "+02:",
            "+0:00",
        ] {
            let text = format!("2000-01-01 00:00:00{text}");
            assert_eq!(timestamptz(text.as_bytes()), None, "{text}");
            assert_eq!(timestamp(text.as_bytes()), None, "{text}");
        }
        assert_eq!(timestamp(b"1999-12-31T23:59:59.999999"), Some(-1));
        assert_eq!(timestamp(b"2000-01-02"), Some(MICROS_PER_DAY));
        assert_eq!(timestamp(b"2000-01-02 "), None);
        assert_eq!(timestamp(b"-infinity"), Some(i64::MIN));
    }
}
