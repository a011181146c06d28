//! Recognises a compressed source by its first bytes and turns it into plain ones.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder;

/// How the bytes of a source are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not packed.
    None,
    /// RFC 1952; all members are read.
    Gzip,
    /// RFC 8878; all frames are read.
    Zstd,
    /// The LZ4 frame format; all frames are read.
    Lz4,
    /// All streams are read.
    Bzip2,
    /// The .xz format; all streams are read.
    Xz,
}

impl Compression {
    /// What packed sources begin with.
    const MAGICS: [(&[u8], Compression); 5] = [
        (&[0x1f, 0x8b], Compression::Gzip),
        (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
        (&[0x04, 0x22, 0x4d, 0x18], Compression::Lz4),
        (b"BZh", Compression::Bzip2),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0x00], Compression::Xz),
    ];

    /// Whether more bytes behind `head` could make it the beginning of a packed source.
    pub fn may_begin(head: &[u8]) -> bool {
        let longer =
            |(magic, _): &(&[u8], Compression)| magic.len() > head.len() && magic.starts_with(head);
        Self::MAGICS.iter().any(longer)
    }

    /// Names the packing of a source by its first bytes.
    pub fn detect(head: &[u8]) -> Self {
        Self::MAGICS
            .iter()
            .find(|(magic, _)| head.starts_with(magic))
            .map_or(Compression::None, |(_, compression)| *compression)
    }

    /// The word used on the command line and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        }
    }

    /// A reader of the plain bytes behind `packed`. An input that ends inside a member, frame or
    /// stream is an error of kind `UnexpectedEof`, never a quiet end.
    ///
    /// # Errors
    /// When the decoder cannot be set up.
    pub fn decoder<'a>(
        self,
        packed: Box<dyn BufRead + Send + 'a>,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => Box::new(packed),
            Self::Gzip => Box::new(GzipMembers {
                member: Some(GzDecoder::new(packed)),
            }),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
            Self::Lz4 => Box::new(Lz4Frames {
                decoder: FrameDecoder::new(EndWatch {
                    inner: packed,
                    ended: false,
                }),
            }),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
            Self::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(packed)),
        })
    }
}

/// Reads consecutive gzip members, and zeros behind the last one, with which tapes and copies of
/// whole blocks pad a file, as gzip itself does. gzip passes over any other bytes there too, with a
/// warning; here they are an error, because they may be a member whose first bytes are damaged, and
/// its rows would be missing from a load that ends well.
struct GzipMembers<R> {
    /// The one that is being read; `None` behind the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buf)?;
            if read > 0 || buf.is_empty() {
                return Ok(read);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else {
                break;
            };
            match rest.fill_buf()?.first() {
                None => {}
                Some(0) => skip_zeros(&mut rest)?,
                Some(_) => self.member = Some(GzDecoder::new(rest)),
            }
        }
        Ok(0)
    }
}

/// Takes zeros until the end.
fn skip_zeros(rest: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = rest.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "bytes that are no gzip data follow zeros behind its end",
            ));
        }
        let count = bytes.len();
        rest.consume(count);
    }
}

/// Reads consecutive LZ4 frames. `FrameDecoder` reports a file cut between two blocks as a plain
/// end; here the end counts only if the decoder did not have to ask the input for bytes it no
/// longer had.
struct Lz4Frames<R: Read> {
    decoder: FrameDecoder<EndWatch<R>>,
}

impl<R: BufRead> Read for Lz4Frames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let read = self.decoder.read(buf)?;
            if read > 0 {
                return Ok(read);
            }
            let input = self.decoder.get_mut();
            if input.ended {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "incomplete lz4 frame",
                ));
            }
            if input.inner.fill_buf()?.is_empty() {
                return Ok(0);
            }
        }
    }
}

/// Remembers that its reader was asked for more after its end.
struct EndWatch<R> {
    inner: R,
    ended: bool,
}

impl<R: Read> Read for EndWatch<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.ended |= read == 0 && !buf.is_empty();
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pack(compression: Compression, plain: &[u8]) -> Vec<u8> {
        match compression {
            Compression::None => plain.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::stream::encode_all(plain, 1).unwrap(),
            Compression::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    const PACKED: [Compression; 5] = [
        Compression::Gzip,
        Compression::Zstd,
        Compression::Lz4,
        Compression::Bzip2,
        Compression::Xz,
    ];

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Compression::detect(packed)
            .decoder(Box::new(packed))?
            .read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn two_members_one_after_the_other_are_both_read() {
        for compression in PACKED {
            let mut packed = pack(compression, b"first\n");
            assert_eq!(Compression::detect(&packed), compression);
            packed.extend(pack(compression, b"second\n"));
            assert_eq!(
                unpack(&packed).unwrap(),
                b"first\nsecond\n",
                "{compression:?}"
            );
        }
    }

    #[test]
    fn a_cut_anywhere_is_an_error_and_never_a_quiet_end() {
        let plain: Vec<u8> = (0..40_000u32)
            .flat_map(|n| n.to_string().into_bytes())
            .collect();
        for compression in PACKED {
            let packed = pack(compression, &plain);
            let step = (packed.len() / 97).max(1);
            let tail = packed.len().saturating_sub(40);
            for cut in (6..packed.len()).filter(|cut| cut % step == 0 || *cut > tail) {
                let error = unpack(&packed[..cut]);
                assert!(
                    error.is_err(),
                    "{compression:?} cut at {cut} of {}",
                    packed.len()
                );
            }
        }
    }
}
