//! Turns the text of booleans, integers, floats and numerics into their binary values.
//!
//! Only spellings that every supported server reads the same way are taken: no spaces, no
//! underscores or radix prefixes (16 and newer), no numeric exponent.

use super::digits::{self, POWERS_OF_TEN};

/// `NUMERIC_MAX_PRECISION` of the server: no column can declare more digits. Longer values are
/// legal without a declared precision, and go as text.
const MAX_NUMERIC_DIGITS: usize = 1000;

/// Sign words of the numeric wire form (`NUMERIC_NEG`, `NUMERIC_NAN` in the server's numeric.c).
const NUMERIC_NEGATIVE: u16 = 0x4000;
const NUMERIC_NAN: u16 = 0xc000;

/// What four base-10000 groups cannot hold any more: the limit of the short path.
const FOUR_GROUPS: u64 = 10_000_000_000_000_000;

/// Reads every spelling of the server's `parse_bool`: prefixes of true, false, yes and no; on, of,
/// off, 1, 0; in any case.
#[inline]
pub(super) fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"t" | b"true" | b"1" => Some(true),
        b"f" | b"false" | b"0" => Some(false),
        _ => boolean_spelled(text),
    }
}

#[inline(never)]
fn boolean_spelled(text: &[u8]) -> Option<bool> {
    let begins = |word: &[u8], least: usize| {
        text.len() >= least
            && word
                .get(..text.len())
                .is_some_and(|prefix| prefix.eq_ignore_ascii_case(text))
    };
    // "o" alone is neither on nor off.
    if begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2) {
        Some(true)
    } else if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) {
        Some(false)
    } else {
        None
    }
}

/// Splits an optional sign off; true is negative.
#[inline]
fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// Reads `[-+]?digits`, at most 19 digits, within the range of int8.
#[inline]
pub(super) fn int8(text: &[u8]) -> Option<i64> {
    let (negative, rest) = sign(text);
    let magnitude = digits::number(rest)?;
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// As [`int8`], within the range of int4.
#[inline]
pub(super) fn int4(text: &[u8]) -> Option<i32> {
    int8(text)?.try_into().ok()
}

/// As [`int8`], within the range of int2.
#[inline]
pub(super) fn int2(text: &[u8]) -> Option<i16> {
    int8(text)?.try_into().ok()
}

/// Reads unsigned digits without a leading zero: server 16 reads `010` as octal, 15 as decimal.
#[inline]
pub(super) fn oid(text: &[u8]) -> Option<u32> {
    if text.len() > 1 && text[0] == b'0' {
        return None;
    }
    digits::number(text)?.try_into().ok()
}

/// The float types of the server, as Rust's correctly rounding parser gives them.
pub(super) trait Float: std::str::FromStr + Copy {
    const NAN: Self;
    const INFINITY: Self;
    const MINUS_INFINITY: Self;
    fn is_zero(self) -> bool;
    fn is_normal(self) -> bool;
}

macro_rules! float {
    ($type:ident) => {
        impl Float for $type {
            const NAN: Self = $type::NAN;
            const INFINITY: Self = $type::INFINITY;
            const MINUS_INFINITY: Self = $type::NEG_INFINITY;
            fn is_zero(self) -> bool {
                self == 0.0
            }
            fn is_normal(self) -> bool {
                $type::is_normal(self)
            }
        }
    };
}
float!(f32);
float!(f64);

/// Reads plain decimal or exponent spelling, and the spellings the server itself writes for values
/// that are not finite.
///
/// Both sides round correctly (the server with `strtof` for float4, since 12). Overflow and
/// underflow are errors of the server; denormals, where C libraries differ over ERANGE, go as text.
#[inline(never)]
pub(super) fn float<F: Float>(text: &[u8]) -> Option<F> {
    match text {
        b"NaN" => return Some(F::NAN),
        b"Infinity" => return Some(F::INFINITY),
        b"-Infinity" => return Some(F::MINUS_INFINITY),
        _ => {}
    }
    let plain = |&b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E');
    if !text.iter().all(plain) {
        return None;
    }
    let value: F = std::str::from_utf8(text).ok()?.parse().ok()?;
    if value.is_normal() || value.is_zero() && spells_zero(text) {
        Some(value)
    } else {
        None
    }
}

/// Whether no digit before the exponent is other than zero.
fn spells_zero(text: &[u8]) -> bool {
    text.iter()
        .take_while(|b| !matches!(b, b'e' | b'E'))
        .all(|b| !matches!(b, b'1'..=b'9'))
}

/// Appends a numeric, with its length in front if `LENGTH`. The scale is the number of fractional
/// digits as typed; zero groups at either end are left out, as the server stores it.
#[inline]
pub(super) fn numeric<const LENGTH: bool>(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Some((wire, len)) = short_numeric(text) else {
        return long_numeric::<LENGTH>(text, out);
    };
    // All sixteen bytes are written and the unused ones cut off: cheaper than a copy of `len`.
    let start = out.len();
    if LENGTH {
        let mut framed = [0; 20];
        framed[..4].copy_from_slice(&(len as u32).to_be_bytes());
        framed[4..].copy_from_slice(&wire);
        out.extend_from_slice(&framed);
        out.truncate(start + 4 + len);
    } else {
        out.extend_from_slice(&wire);
        out.truncate(start + len);
    }
    true
}

/// A numeric of at most sixteen characters after the sign that fits four groups: the wire bytes and
/// how many of them count. `None`: not of that kind, which is no verdict.
#[inline]
fn short_numeric(text: &[u8]) -> Option<([u8; 16], usize)> {
    let (negative, rest) = sign(text);
    let (mut value, scale) = if rest.len() <= 8 {
        let (word, scale) = without_point(digits::word(rest))?;
        if !digits::are_digits(word) || rest == b"." {
            return None;
        }
        (digits::value(word), scale)
    } else {
        sixteen(rest)?
    };
    // Line the decimal point up with a border of groups: 1.5 is the groups 1 and 5000.
    value *= POWERS_OF_TEN[scale.wrapping_neg() as usize & 3];
    let below_point = (scale as i32 + 3) / 4;
    if value < 10_000 {
        // One group, or none: zero keeps only its scale. No branch, zeros come at random.
        let some = u16::from(value != 0);
        let sign = NUMERIC_NEGATIVE * (some & u16::from(negative));
        let head = head(some, -below_point as i16 * some as i16, sign, scale as u16);
        return Some((short_wire(head, value << 48), 8 + 2 * usize::from(some)));
    }
    if value >= FOUR_GROUPS {
        return None;
    }
    let (high, low) = (value / 100_000_000, value % 100_000_000);
    let groups =
        (high / 10_000) << 48 | (high % 10_000) << 32 | (low / 10_000) << 16 | (low % 10_000);
    let leading = groups.leading_zeros() / 16;
    let trailing = groups.trailing_zeros() / 16;
    let count = 4 - leading - trailing;
    let weight = 3 - leading as i32 - below_point;
    let sign = if negative { NUMERIC_NEGATIVE } else { 0 };
    let head = head(count as u16, weight as i16, sign, scale as u16);
    let wire = short_wire(head, groups << (16 * leading));
    Some((wire, 8 + 2 * count as usize))
}

/// Takes the decimal point out of a word: the digits before it move up by one. Gives the digits and
/// the number of those after the point.
#[inline]
fn without_point(word: u64) -> Option<(u64, u32)> {
    let Some(at) = point(word) else {
        return Some((word, 0));
    };
    let before = word & !(u64::MAX << at);
    let after = word & (u64::MAX << at << 8);
    Some((after | before << 8, 7 - at / 8))
}

/// Bit offset of the first decimal point in a word.
#[inline]
fn point(word: u64) -> Option<u32> {
    // The lowest zero byte of the difference is found exactly; false finds are only above it.
    let differs = word ^ (0x0101_0101_0101_0101 * u64::from(b'.' ^ b'0'));
    let found = differs.wrapping_sub(0x0101_0101_0101_0101) & !differs & 0x8080_8080_8080_8080;
    (found != 0).then(|| found.trailing_zeros() & !7)
}

/// The value and scale of 9 to 16 characters: the same removal of the point, on two words at once.
#[inline]
fn sixteen(text: &[u8]) -> Option<(u64, u32)> {
    if text.len() > 16 {
        return None;
    }
    let (head, tail) = text.split_at(text.len() - 8);
    let (head, tail) = (digits::word(head), digits::word(tail));
    let both = u128::from(tail) << 64 | u128::from(head);
    let found = point(head).or_else(|| point(tail).map(|at| at + 64));
    let (both, scale) = found.map_or((both, 0), |at| {
        let before = both & !(u128::MAX << at);
        let after = both & (u128::MAX << at << 8);
        (after | before << 8, 15 - at / 8)
    });
    let (head, tail) = (both as u64, (both >> 64) as u64);
    if !digits::are_digits(head) || !digits::are_digits(tail) {
        return None;
    }
    let value = digits::value(head) * 100_000_000 + digits::value(tail);
    Some((value, scale))
}

/// The fixed part of the wire form: number of groups, weight of the first, sign, scale.
#[inline]
fn head(count: u16, weight: i16, sign: u16, scale: u16) -> u64 {
    u64::from(count) << 48
        | u64::from(weight as u16) << 32
        | u64::from(sign) << 16
        | u64::from(scale)
}

/// The fixed part and four groups, the first at the top of `groups`.
#[inline]
fn short_wire(head: u64, groups: u64) -> [u8; 16] {
    (u128::from(head) << 64 | u128::from(groups)).to_be_bytes()
}

/// The value of 1 to 4 digits of a group of which the first `filled` are given: a fraction's last
/// group lacks its right end, a whole number's first group only leading zeros.
fn fold(group: &[u8], filled: usize) -> u16 {
    let value = group.iter().fold(0, |v, b| v * 10 + u16::from(b - b'0'));
    value * POWERS_OF_TEN[4 - filled] as u16
}

/// Appends a numeric of any length up to the limits, group by group; also the verdict on what is
/// no numeric.
#[inline(never)]
fn long_numeric<const LENGTH: bool>(text: &[u8], out: &mut Vec<u8>) -> bool {
    if text == b"NaN" {
        return super::fixed::<LENGTH, 8>(Some(head(0, 0, NUMERIC_NAN, 0).to_be_bytes()), out);
    }
    let (negative, rest) = sign(text);
    let (whole, fraction) = match memchr::memchr(b'.', rest) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &rest[rest.len()..]),
    };
    let digits_only = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if whole.is_empty() && fraction.is_empty() || !digits_only(whole) || !digits_only(fraction) {
        return false;
    }
    let zeros = whole.iter().take_while(|&&b| b == b'0').count();
    let whole = &whole[zeros..];
    if whole.len() > MAX_NUMERIC_DIGITS || fraction.len() > MAX_NUMERIC_DIGITS {
        return false;
    }

    let start = out.len();
    out.extend_from_slice(&[0; 12][..if LENGTH { 12 } else { 8 }]);
    let first = out.len();
    // At most 250 groups on either side of the point, so every count below fits an i16.
    let mut weight = whole.len().div_ceil(4) as i16 - 1;
    let (top, lower) = whole.split_at(whole.len() % 4);
    let groups = std::iter::once(top)
        .filter(|top| !top.is_empty())
        .chain(lower.chunks(4))
        .map(|group| fold(group, 4))
        .chain(fraction.chunks(4).map(|group| fold(group, group.len())));
    for group in groups {
        if group == 0 && out.len() == first {
            weight -= 1;
        } else {
            out.extend_from_slice(&group.to_be_bytes());
        }
    }
    while out.len() > first && out.ends_with(&[0, 0]) {
        out.truncate(out.len() - 2);
    }
    let count = ((out.len() - first) / 2) as u16;
    let sign = if negative { NUMERIC_NEGATIVE } else { 0 };
    let (weight, sign) = if count == 0 { (0, 0) } else { (weight, sign) };
    let head = head(count, weight, sign, fraction.len() as u16);
    out[first - 8..first].copy_from_slice(&head.to_be_bytes());
    if LENGTH {
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The parts of an encoded numeric: count, weight, sign, scale, groups.
    fn parts(text: &str) -> Option<(u16, i16, u16, u16, Vec<u16>)> {
        let mut out = Vec::new();
        if !numeric::<false>(text.as_bytes(), &mut out) {
            assert!(out.is_empty(), "{text} left bytes behind");
            return None;
        }
        let words: Vec<u16> = out
            .chunks(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect();
        let groups = words[4..].to_vec();
        Some((words[0], words[1] as i16, words[2], words[3], groups))
    }

    #[test]
    fn numeric_groups_meet_at_the_decimal_point() {
        let cases: [(&str, i16, u16, u16, &[u16]); 14] = [
            ("0", 0, 0, 0, &[]),
            ("-0.00", 0, 0, 2, &[]),
            ("17", 0, 0, 0, &[17]),
            ("21168.23", 1, 0, 2, &[2, 1168, 2300]),
            ("0.04", -1, 0, 2, &[400]),
            ("-.5", -1, 0x4000, 1, &[5000]),
            ("+5.", 0, 0, 0, &[5]),
            ("10000", 1, 0, 0, &[1]),
            ("100000000", 2, 0, 0, &[1]),
            ("36901.00", 1, 0, 2, &[3, 6901]),
            ("0.00001", -2, 0, 5, &[1000]),
            ("0001234567890123.40", 3, 0, 2, &[1, 2345, 6789, 123, 4000]),
            ("1e5", 0, 0, 0, &[]),
            ("NaN", 0, 0xc000, 0, &[]),
        ];
        for (text, weight, sign, scale, groups) in cases {
            let wanted = (groups.len() as u16, weight, sign, scale, groups.to_vec());
            let wanted = (text != "1e5").then_some(wanted);
            assert_eq!(parts(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_left_to_the_server() {
        for text in [
            "", ".", "-", "+", "-.", "1..2", "1.2.3", "--1", " 1", "1 ", "1_0", "0x1f", "1e5",
            "nan",
        ] {
            assert_eq!(parts(text), None, "{text}");
            assert_eq!(int8(text.as_bytes()), None, "{text}");
        }
        for text in [
            "", ".", "-", "1e", "inf", "nan", "infinity", "1e400", "1e-400", "1e-310", "0x1p3",
            "+-1",
        ] {
            assert_eq!(float::<f64>(text.as_bytes()), None, "{text}");
        }
        assert_eq!(float::<f64>(b"0e-999"), Some(0.0));
        assert_eq!(oid(b"010"), None);
    }

    #[test]
    fn integers_end_where_their_type_ends() {
        assert_eq!(int2(b"-32768"), Some(i16::MIN));
        assert_eq!(int2(b"32768"), None);
        assert_eq!(int4(b"+2147483647"), Some(i32::MAX));
        assert_eq!(int4(b"-2147483649"), None);
        assert_eq!(int8(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(int8(b"9223372036854775808"), None);
        assert_eq!(int8(b"-0"), Some(0));
        assert_eq!(oid(b"4294967295"), Some(u32::MAX));
        assert_eq!(oid(b"4294967296"), None);
    }

    #[test]
    fn booleans_are_unambiguous_prefixes() {
        for text in ["t", "TR", "True", "y", "YES", "on", "1"] {
            assert_eq!(boolean(text.as_bytes()), Some(true), "{text}");
        }
        for text in ["f", "fAlse", "N", "no", "of", "OFF", "0"] {
            assert_eq!(boolean(text.as_bytes()), Some(false), "{text}");
        }
        for text in ["", "o", "truer", "2", "yess", " t"] {
            assert_eq!(boolean(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn short_and_long_numerics_are_the_same_bytes(text in "[-+]?[0-9]{0,9}(\\.[0-9]{0,9})?") {
            let mut short = Vec::new();
            let mut long = Vec::new();
            let taken = numeric::<true>(text.as_bytes(), &mut short);
            prop_assert_eq!(taken, long_numeric::<true>(text.as_bytes(), &mut long));
            prop_assert_eq!(short, long);
        }
    }
}
