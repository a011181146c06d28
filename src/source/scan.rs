//! Finds the few bytes that matter in a record, 64 bytes at a time.
//!
//! Fields are short: a search that starts anew at each delimiter pays its start-up for every
//! field. Here a block is compared once, and its hits are bits of one word.

/// Bytes of one look.
const BLOCK: usize = 64;

/// Places in a text of any of `N` bytes, first to last.
pub struct Places<'a, const N: usize> {
    text: &'a [u8],
    wanted: [u8; N],
    /// Where the block of `hits` begins; the hits before the latest place are cleared.
    block: usize,
    hits: u64,
}

impl<'a, const N: usize> Places<'a, N> {
    /// Looks for `wanted` in `text`.
    #[inline]
    pub fn new(text: &'a [u8], wanted: [u8; N]) -> Self {
        let mut places = Places {
            text,
            wanted,
            block: 0,
            hits: 0,
        };
        places.hits = places.look();
        places
    }

    /// Goes on at `place`, which is not before the latest one.
    #[inline]
    pub fn go_to(&mut self, place: usize) {
        if place >= self.block + BLOCK {
            self.block = place - place % BLOCK;
            self.hits = if self.block < self.text.len() {
                self.look()
            } else {
                0
            };
        }
        if place > self.block {
            self.hits &= u64::MAX
                .checked_shl((place - self.block) as u32)
                .unwrap_or(0);
        }
    }

    #[inline]
    fn look(&self) -> u64 {
        let rest = &self.text[self.block..];
        if let Some(block) = rest.first_chunk::<BLOCK>() {
            return hits(block, self.wanted);
        }
        // Filled up with the text's own first bytes, whose hits are cut off again.
        let mut block = [0; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        hits(&block, self.wanted) & ((1 << rest.len()) - 1)
    }
}

impl<const N: usize> Iterator for Places<'_, N> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.hits == 0 {
            self.block += BLOCK;
            if self.block >= self.text.len() {
                return None;
            }
            self.hits = self.look();
        }
        let place = self.block + self.hits.trailing_zeros() as usize;
        self.hits &= self.hits - 1;
        Some(place)
    }
}

/// Bit `n` is set if byte `n` is one of `wanted`.
#[cfg(target_arch = "x86_64")]
#[inline]
fn hits<const N: usize>(block: &[u8; BLOCK], wanted: [u8; N]) -> u64 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
        _mm_setzero_si128,
    };
    let mut hits = 0;
    for part in 0..BLOCK / 16 {
        // SAFETY: SSE2 is part of x86_64, and 16 bytes from `part * 16` lie within the block.
        let found = unsafe {
            let bytes = _mm_loadu_si128(block.as_ptr().add(part * 16).cast::<__m128i>());
            let equal = wanted.map(|byte| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8)));
            let none = _mm_setzero_si128();
            _mm_movemask_epi8(
                equal
                    .into_iter()
                    .fold(none, |all, one| _mm_or_si128(all, one)),
            )
        };
        hits |= u64::from(found as u16) << (part * 16);
    }
    hits
}

/// Bit `n` is set if byte `n` is one of `wanted`.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn hits<const N: usize>(block: &[u8; BLOCK], wanted: [u8; N]) -> u64 {
    let mut hits = 0;
    for (index, byte) in block.iter().enumerate() {
        hits |= u64::from(wanted.contains(byte)) << index;
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn every_place_is_found_once_and_in_order(
            text in prop::collection::vec(prop::sample::select(b"ab,\"\r\0x".to_vec()), 0..300),
            wanted in prop::array::uniform3(prop::sample::select(b",\"\r\0".to_vec())),
        ) {
            let found: Vec<usize> = Places::new(&text, wanted).collect();
            let expected: Vec<usize> =
                (0..text.len()).filter(|index| wanted.contains(&text[*index])).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn going_on_at_a_place_skips_what_is_before_it(
            text in prop::collection::vec(prop::sample::select(b"a,".to_vec()), 0..300),
            place in 0usize..310,
        ) {
            let mut places = Places::new(&text, [b','; 3]);
            places.go_to(place);
            let expected = (place..text.len()).find(|index| text[*index] == b',');
            prop_assert_eq!(places.next(), expected);
        }
    }
}
