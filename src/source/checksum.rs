//! Checksums of spans of a source, as the ledger keeps them. They can be joined: that of two
//! neighbours follows from theirs, so spans are compacted without reading the bytes again.

use crc_fast::CrcAlgorithm::Crc64Nvme;
use crc_fast::Digest;

/// The checksum of `bytes`: CRC-64/NVME.
pub fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(Crc64Nvme, bytes)
}

/// The checksum of a span followed by another one of `length` bytes.
pub fn join(first: u64, second: u64, length: u64) -> u64 {
    crc_fast::checksum_combine(Crc64Nvme, first, second, length)
}

/// The checksum of bytes that come piece by piece.
pub struct Checksum(Digest);

impl Checksum {
    pub fn new() -> Self {
        Checksum(Digest::new(Crc64Nvme))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all that came.
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_value_is_that_of_the_standard() {
        assert_eq!(checksum(b"123456789"), 0xae8b_1486_0a79_9888);
    }

    proptest! {
        #[test]
        fn spans_joined_have_the_checksum_of_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..4000),
            at in any::<prop::sample::Index>(),
        ) {
            let (first, second) = bytes.split_at(at.index(bytes.len() + 1));
            let joined = join(checksum(first), checksum(second), second.len() as u64);
            prop_assert_eq!(joined, checksum(&bytes));
            let mut pieces = Checksum::new();
            pieces.update(first);
            pieces.update(second);
            prop_assert_eq!(pieces.value(), checksum(&bytes));
        }
    }
}
