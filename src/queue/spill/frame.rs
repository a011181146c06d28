//! Turns a batch into the bytes of one frame and back: LZ4 over metadata, record ends and raw
//! bytes, behind lengths and a checksum.
//!
//! ```text
//! packed length u32 | plain length u32 | XXH3-64 u64 | check of these u32 | LZ4 block
//! ```
//!
//! Numbers of the head are little-endian. The checksum covers the two lengths and the block; the
//! check, the low half of an XXH3-64, covers the 16 bytes before it. The
//! plain bytes of the block are LEB128 numbers (source, first byte, first record, first line,
//! lines, line end, flush reason, nanoseconds until the first record came in, records), the
//! records' lengths as LEB128, and the raw bytes.

use std::hash::Hasher;
use std::time::{Duration, Instant};

use lz4_flex::block;
use twox_hash::XxHash3_64;

use crate::batch::Batch;
use crate::span::Position;
use crate::window::FlushReason;

/// Bytes in front of the LZ4 block: two lengths, the checksum of the frame, and a check of these
/// alone. Without it a changed length would look like a frame that was cut off.
pub const HEAD_BYTES: usize = CHECKED_BYTES + 4;

/// Bytes of the head that its own check covers.
const CHECKED_BYTES: usize = 16;

/// Most plain bytes of a frame: the longest input of an LZ4 block (LZ4_MAX_INPUT_SIZE).
pub const MOST_PLAIN_BYTES: usize = 0x7E00_0000;

/// LZ4 cannot make more than this many bytes out of one.
const MOST_EXPANSION: usize = 255;

/// Longest LEB128 form of a `u64`.
const VARINT_BYTES: usize = 10;

/// Writes and reads frames with two buffers of its own, each as large as the largest batch so far
/// needed.
#[derive(Debug, Default)]
pub struct Codec {
    plain: Vec<u8>,
    frame: Vec<u8>,
}

/// The lengths and the checksum of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the LZ4 block.
    pub packed: usize,
    plain: usize,
    checksum: u64,
}

impl Codec {
    /// Packs `batch` and returns the length of its frame; `None` if it is too large for one. When
    /// its first record came in is kept as the time since `born`.
    pub fn pack(&mut self, batch: &Batch, born: Instant) -> Option<usize> {
        let opened = batch.opened.saturating_duration_since(born).as_nanos();
        let reason = FlushReason::ALL
            .iter()
            .position(|reason| *reason == batch.reason)?;
        // Lengths of records are 32 bits wide.
        let most = batch
            .len()
            .checked_mul(VARINT_BYTES / 2)?
            .checked_add(batch.bytes().len())?
            .checked_add(9 * VARINT_BYTES)?;
        if most > MOST_PLAIN_BYTES {
            return None;
        }
        self.plain.clear();
        self.plain.reserve(most);
        for number in [
            batch.source as u64,
            batch.start_byte,
            batch.first_record,
            batch.first_line,
            batch.lines,
            u64::from(batch.line_end()),
            reason as u64,
            u64::try_from(opened).unwrap_or(u64::MAX),
            batch.len() as u64,
        ] {
            push_number(number, &mut self.plain);
        }
        let mut start = 0;
        for &end in batch.ends() {
            push_number(u64::from(end - start), &mut self.plain);
            start = end;
        }
        self.plain.extend_from_slice(batch.bytes());

        let room = HEAD_BYTES + block::get_maximum_output_size(self.plain.len());
        self.frame.resize(room, 0);
        let packed = block::compress_into(&self.plain, &mut self.frame[HEAD_BYTES..]).ok()?;
        self.frame.truncate(HEAD_BYTES + packed);
        let lengths = [
            u32::try_from(packed).ok()?,
            u32::try_from(self.plain.len()).ok()?,
        ];
        self.frame[..4].copy_from_slice(&lengths[0].to_le_bytes());
        self.frame[4..8].copy_from_slice(&lengths[1].to_le_bytes());
        Some(self.frame.len())
    }

    /// The packed frame with its checksum under `key`.
    pub fn seal(&mut self, key: u64) -> &[u8] {
        let checksum = checksum(&self.frame[..8], &self.frame[HEAD_BYTES..], key);
        self.frame[8..CHECKED_BYTES].copy_from_slice(&checksum.to_le_bytes());
        let check = head_check(&self.frame[..CHECKED_BYTES]);
        self.frame[CHECKED_BYTES..HEAD_BYTES].copy_from_slice(&check);
        &self.frame
    }

    /// Room for the head of a frame, then for its block.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        self.frame.resize(bytes, 0);
        &mut self.frame
    }

    /// The head at the start of the room; `None` if it is not as it was written.
    pub fn head(&self) -> Option<Head> {
        let (checked, rest) = self.frame.split_at_checked(CHECKED_BYTES)?;
        if rest.first_chunk::<4>()? != &head_check(checked) {
            return None;
        }
        let (lengths, rest) = self.frame.split_first_chunk::<8>()?;
        let checksum = rest.first_chunk::<8>()?;
        let number = |at: usize| {
            u32::from_le_bytes([
                lengths[at],
                lengths[at + 1],
                lengths[at + 2],
                lengths[at + 3],
            ])
        };
        Some(Head {
            packed: number(0) as usize,
            plain: number(4) as usize,
            checksum: u64::from_le_bytes(*checksum),
        })
    }

    /// Unpacks the frame in the room into `into`; `None` if it is not the frame that was sealed
    /// with `key`. With `born` the batch gets the time back at which its first record came in,
    /// without it that time is now.
    pub fn unpack(&mut self, key: u64, born: Option<Instant>, into: &mut Batch) -> Option<()> {
        let head = self.head()?;
        let packed = self.frame.get(HEAD_BYTES..)?;
        if packed.len() != head.packed
            || checksum(&self.frame[..8], packed, key) != head.checksum
            || head.plain > MOST_PLAIN_BYTES.min(head.packed.saturating_mul(MOST_EXPANSION))
        {
            return None;
        }
        self.plain.resize(head.plain, 0);
        let plain = block::decompress_into(packed, &mut self.plain).ok()?;
        let keep = self.plain.capacity();
        fill(self.plain.get(..plain)?, born, keep, into)
    }
}

fn head_check(checked: &[u8]) -> [u8; 4] {
    (XxHash3_64::oneshot(checked) as u32).to_le_bytes()
}

fn checksum(lengths: &[u8], packed: &[u8], key: u64) -> u64 {
    let mut hash = XxHash3_64::with_seed(key);
    hash.write(lengths);
    hash.write(packed);
    hash.finish()
}

/// Fills `into` from the plain bytes of a frame; its buffer stays if it is not much larger than
/// `keep`.
fn fill(plain: &[u8], born: Option<Instant>, keep: usize, into: &mut Batch) -> Option<()> {
    let mut rest = plain;
    let source = usize::try_from(take_number(&mut rest)?).ok()?;
    let position = Position {
        byte: take_number(&mut rest)?,
        record: take_number(&mut rest)?,
        line: take_number(&mut rest)?,
    };
    let lines = take_number(&mut rest)?;
    let line_end = u8::try_from(take_number(&mut rest)?).ok()?;
    let reason = usize::try_from(take_number(&mut rest)?).ok()?;
    let reason = *FlushReason::ALL.get(reason)?;
    let opened = Duration::from_nanos(take_number(&mut rest)?);
    let records = usize::try_from(take_number(&mut rest)?).ok()?;
    // Every length takes a byte, so that no false count reserves more than the frame.
    if records > rest.len() {
        return None;
    }
    let mut ends = Vec::with_capacity(records);
    let mut end = 0u64;
    for _ in 0..records {
        end = end.checked_add(take_number(&mut rest)?)?;
        ends.push(u32::try_from(end).ok()?);
    }
    if end > rest.len() as u64 {
        return None;
    }
    into.restart(source, &position, line_end, keep);
    into.push_run(rest, &ends);
    into.lines = lines;
    into.reason = reason;
    into.opened = born
        .and_then(|born| born.checked_add(opened))
        .unwrap_or_else(Instant::now);
    Some(())
}

/// Appends `number` as LEB128.
fn push_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a LEB128 number off the front; `None` if there is none that fits into 64 bits.
fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if bits.leading_zeros() < shift {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_comes_back_as_it_went(number: u64, shift in 0u32..64) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            push_number(number, &mut bytes);
            prop_assert!(bytes.len() <= VARINT_BYTES);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take_number(&mut rest), Some(number));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_plain_bytes_make_the_reader_panic(plain: Vec<u8>) {
            let _ = fill(&plain, None, 0, &mut Batch::with_capacity(0));
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_none() {
        let mut rest: &[u8] = &[0xff; 10];
        assert_eq!(take_number(&mut rest), None);
        let mut rest: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(take_number(&mut rest), None);
        let mut rest: &[u8] = &[0x80];
        assert_eq!(take_number(&mut rest), None);
    }

    #[test]
    fn a_frame_counts_only_under_its_own_key() {
        let mut batch = Batch::with_capacity(0);
        batch.push_run(b"a\nb\n", &[2, 4]);
        let mut codec = Codec::default();
        codec.pack(&batch, Instant::now()).unwrap();
        codec.seal(7);
        let mut into = Batch::with_capacity(0);
        assert_eq!(codec.unpack(8, None, &mut into), None);
        assert_eq!(codec.unpack(7, None, &mut into), Some(()));
        assert_eq!(into.bytes(), b"a\nb\n");
        assert_eq!(into.ends(), [2, 4]);
    }

    #[test]
    fn the_time_of_the_first_record_comes_back() {
        let born = Instant::now();
        let mut batch = Batch::with_capacity(0);
        batch.push_run(b"a\n", &[2]);
        batch.opened = born + Duration::from_millis(1234);
        let mut codec = Codec::default();
        codec.pack(&batch, born).unwrap();
        codec.seal(0);
        let mut into = Batch::with_capacity(0);
        codec.unpack(0, Some(born), &mut into).unwrap();
        assert_eq!(into.opened, batch.opened);
    }
}
