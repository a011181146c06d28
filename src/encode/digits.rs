//! Reads runs of ASCII digits eight at a time, as one word (SWAR).
//!
//! A word holds up to eight characters, each XORed with `'0'`, right-aligned: the last character is
//! the most significant byte, absent leading characters are zero. A digit is then its own value and
//! every other character is above 9.

/// `'0'` in every byte.
pub(super) const ZEROS: u64 = 0x3030_3030_3030_3030;
/// The most digits [`number`] reads: 10^19 - 1 is the longest run of nines below 2^64.
const MAX_DIGITS: usize = 19;

/// Powers of ten from 10^0; 10^6 is microseconds in a second, the largest one asked for.
pub(super) const POWERS_OF_TEN: [u64; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// Two characters of `text` from `at` on, least significant byte first.
#[inline]
fn u16_at(text: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([text[at], text[at + 1]]))
}

/// Four characters of `text` from `at` on, least significant byte first.
#[inline]
fn u32_at(text: &[u8], at: usize) -> u64 {
    u16_at(text, at) | u16_at(text, at + 2) << 16
}

/// Eight characters of `text` from `at` on, least significant byte first, not XORed.
#[inline]
pub(super) fn u64_at(text: &[u8], at: usize) -> u64 {
    u32_at(text, at) | u32_at(text, at + 4) << 32
}

/// The word of 1 to 8 characters; an empty or longer `text` gives a word that is no number.
#[inline]
pub(super) fn word(text: &[u8]) -> u64 {
    let len = text.len();
    if len > 8 || len == 0 {
        return u64::MAX;
    }
    let shift = 64 - 8 * len;
    // The two reads overlap where the text is shorter than both; the shared bytes are the same.
    let raw = match len {
        8 => u64_at(text, 0),
        4.. => u32_at(text, 0) << shift | u32_at(text, len - 4) << 32,
        2.. => u16_at(text, 0) << shift | u16_at(text, len - 2) << 48,
        _ => u64::from(text[0]) << shift,
    };
    raw ^ (ZEROS << shift)
}

/// Whether every character of the word is a digit.
#[inline]
pub(super) fn are_digits(word: u64) -> bool {
    // 0x76 lifts 10 and above to the sign bit; characters above 0x7f have it already.
    (word.wrapping_add(0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080 == 0
}

/// The value of eight digits, below 10^8.
#[inline]
pub(super) fn value(word: u64) -> u64 {
    let pairs = (word.wrapping_mul(10).wrapping_add(word >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100).wrapping_add(pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (fours.wrapping_mul(10_000).wrapping_add(fours >> 32)) & 0xffff_ffff
}

/// Reads 1 to 19 digits and nothing else.
#[inline]
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.len() <= 8 {
        let word = word(text);
        return are_digits(word).then(|| value(word));
    }
    long_number(text)
}

/// Reads 9 to 19 digits: the last sixteen as two words, what is left in front as a third.
#[inline]
fn long_number(text: &[u8]) -> Option<u64> {
    if text.len() > MAX_DIGITS {
        return None;
    }
    let (head, tail) = text.split_at(text.len() - 8);
    let (front, middle) = head.split_at(head.len().saturating_sub(8));
    let (middle, tail) = (word(middle), word(tail));
    if !are_digits(middle) || !are_digits(tail) {
        return None;
    }
    let low = value(middle) * 100_000_000 + value(tail);
    if front.is_empty() {
        return Some(low);
    }
    let front = word(front);
    are_digits(front).then(|| value(front) * 10_000_000_000_000_000 + low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_run_of_up_to_19_digits_is_its_value(text in "[0-9]{1,19}") {
            prop_assert_eq!(number(text.as_bytes()), text.parse().ok());
        }

        #[test]
        fn anything_else_is_no_number(text in "[0-9+./:_ -]{0,24}") {
            let plain = !text.is_empty()
                && text.len() <= MAX_DIGITS
                && text.bytes().all(|b| b.is_ascii_digit());
            prop_assert_eq!(number(text.as_bytes()).is_some(), plain);
        }

        #[test]
        fn one_foreign_byte_anywhere_is_seen(
            text in "[0-9]{1,19}", at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            prop_assume!(!byte.is_ascii_digit());
            let mut text = text.into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            prop_assert_eq!(number(&text), None);
        }
    }
}
