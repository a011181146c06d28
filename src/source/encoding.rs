//! The encodings that sources are written in, and their text in UTF-8.
//!
//! Records and fields are found in the bytes as they stand, so that every position is one of the
//! file, and decoded one by one. That takes an encoding in which a byte of ASCII is that character,
//! or ends a longer one: all of the WHATWG Encoding Standard but UTF-16 and ISO-2022-JP. In UTF-16
//! either byte of a line break can be half of another character: boundaries, lines, the ends of
//! spans and of exported rejects, each of which is one byte, would all be two.

use std::borrow::Cow;
use std::str::FromStr;

use encoding_rs::{BIG5, EUC_KR, GB18030, GBK, SHIFT_JIS, UTF_8};
use serde::{Deserialize, Serialize};

/// An encoding whose records can be found without decoding them. By the standard iso-8859-1 and
/// ascii are names of windows-1252.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct Encoding(&'static encoding_rs::Encoding);

impl Encoding {
    /// The encoding of what goes to the server.
    pub const UTF_8: Encoding = Encoding(UTF_8);

    /// Its name in the standard.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Whether `byte`, of ASCII, can be a part of a longer character.
    pub(super) fn has_within(self, byte: u8) -> bool {
        let letter = byte.is_ascii_alphabetic();
        let above = matches!(byte, 0x40..=0x7e);
        match self.0 {
            encoding if encoding == EUC_KR => letter,
            encoding if encoding == SHIFT_JIS || encoding == BIG5 => above,
            encoding if encoding == GBK || encoding == GB18030 => above || byte.is_ascii_digit(),
            _ => false,
        }
    }

    /// Whether the bytes are their text in UTF-8 as they stand, without the zero byte, which the
    /// server stores in no text.
    #[inline]
    pub(super) fn is_plain(self, bytes: &[u8]) -> bool {
        let is_text = match self == Self::UTF_8 {
            true => std::str::from_utf8(bytes).is_ok(),
            false => bytes.is_ascii(),
        };
        is_text && memchr::memchr(0, bytes).is_none()
    }

    /// The text of the bytes; `None` if they are no text.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        (self.0).decode_without_bom_handling_and_without_replacement(bytes)
    }

    /// The text of the bytes, with U+FFFD for what is none: to look at, not to store.
    pub(super) fn guess(self, bytes: &[u8]) -> Cow<'_, str> {
        self.0.decode_without_bom_handling(bytes).0
    }

    /// The bytes of a text, with `&#...;` for characters that the encoding does not have.
    pub(super) fn encode(self, text: &str) -> Cow<'_, [u8]> {
        self.0.encode(text).0
    }

    /// Whether the encoding has all characters of a text.
    pub(super) fn has(self, text: &str) -> bool {
        self.decode(&self.encode(text)).as_deref() == Some(text)
    }
}

impl Default for Encoding {
    fn default() -> Self {
        Self::UTF_8
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(label: &str) -> Result<Self, String> {
        match encoding_rs::Encoding::for_label_no_replacement(label.as_bytes()) {
            Some(encoding) if encoding.is_ascii_compatible() => Ok(Encoding(encoding)),
            Some(encoding) => Err(format!(
                "records cannot be told apart in {name} before it is decoded: convert the input, for example with iconv -f {name} -t UTF-8 FILE | pgrung load -",
                name = encoding.name()
            )),
            None => Err(
                "a label of the WHATWG Encoding Standard is needed, such as utf-8, windows-1252, iso-8859-2, shift_jis, gb18030, big5, euc-kr or koi8-r"
                    .to_string(),
            ),
        }
    }
}

impl TryFrom<String> for Encoding {
    type Error = String;

    fn try_from(label: String) -> Result<Self, String> {
        label.parse()
    }
}

impl From<Encoding> for &'static str {
    fn from(encoding: Encoding) -> Self {
        encoding.name()
    }
}
