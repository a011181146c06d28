//! Turns the text of strings, JSON, bytea and uuid into their bytes.

use super::framed;

/// What a name column can hold without being cut: the server's NAMEDATALEN less the ending NUL.
const MAX_NAME: usize = 63;
/// The only version of the binary form of jsonb.
const JSONB_VERSION: u8 = 1;

/// The value of each hexadecimal digit; 0xff for any other byte.
const NIBBLES: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// Appends the text itself: receive and input functions share their checks (length, label, JSON).
#[inline]
pub(super) fn text<const LENGTH: bool>(text: &[u8], out: &mut Vec<u8>) -> bool {
    if LENGTH {
        let Ok(len) = i32::try_from(text.len()) else {
            return false;
        };
        out.reserve(4 + text.len());
        out.extend_from_slice(&len.to_be_bytes());
    }
    out.extend_from_slice(text);
    true
}

/// Appends a name of at most 63 ASCII characters: the input function cuts longer ones where the
/// receive function refuses them, and the server's encoding may need more bytes for others.
#[inline]
pub(super) fn name<const LENGTH: bool>(name: &[u8], out: &mut Vec<u8>) -> bool {
    name.len() <= MAX_NAME && name.is_ascii() && text::<LENGTH>(name, out)
}

/// Reads the internal type "char": one ASCII character other than a backslash.
#[inline]
pub(super) fn char(text: &[u8]) -> Option<[u8; 1]> {
    match *text {
        [byte] if byte.is_ascii() && byte != b'\\' => Some([byte]),
        _ => None,
    }
}

/// Appends a jsonb: its version and the text, which the server parses as it parses the text form.
#[inline(never)]
pub(super) fn jsonb<const LENGTH: bool>(json: &[u8], out: &mut Vec<u8>) -> bool {
    framed::<LENGTH>(out, |out| {
        out.push(JSONB_VERSION);
        text::<false>(json, out)
    })
}

/// Appends a bytea from `\x` and an even number of hexadecimal digits, or from ASCII text without
/// any backslash. Other text would be converted to the server's encoding first, binary is not.
#[inline(never)]
pub(super) fn bytea<const LENGTH: bool>(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    match bytes {
        [b'\\', b'x', hex @ ..] if hex.len() % 2 == 0 => {
            framed::<LENGTH>(out, |out| append_hex(hex, out))
        }
        _ if bytes.is_ascii() && memchr::memchr(b'\\', bytes).is_none() => {
            text::<LENGTH>(bytes, out)
        }
        _ => false,
    }
}

/// Appends what pairs of hexadecimal digits stand for; what it leaves behind after a failure is the
/// caller's to cut off.
#[inline]
fn append_hex(hex: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.resize(start + hex.len() / 2, 0);
    let mut seen = 0;
    for (byte, pair) in out[start..].iter_mut().zip(hex.chunks_exact(2)) {
        let (high, low) = (NIBBLES[pair[0] as usize], NIBBLES[pair[1] as usize]);
        seen |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    seen <= 0xf
}

/// Reads a uuid as 8-4-4-4-12 or 32 hexadecimal digits, either one bare or in braces.
#[inline]
pub(super) fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text = match text {
        [b'{', inner @ .., b'}'] => inner,
        _ => text,
    };
    let dashes = match text.len() {
        36 => [text[8], text[13], text[18], text[23]] == *b"----",
        32 => false,
        _ => return None,
    };
    // Where each pair of digits begins.
    const DASHED: [u8; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut uuid = [0; 16];
    let mut seen = 0;
    for (index, byte) in uuid.iter_mut().enumerate() {
        let at = if dashes {
            DASHED[index] as usize
        } else {
            2 * index
        };
        let (high, low) = (NIBBLES[text[at] as usize], NIBBLES[text[at + 1] as usize]);
        seen |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    (seen <= 0xf && (dashes || text.len() == 32)).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        bytea::<false>(text.as_bytes(), &mut out).then_some(out)
    }

    #[test]
    fn bytea_takes_hex_or_plain_ascii() {
        assert_eq!(hex("\\x"), Some(vec![]));
        assert_eq!(hex("\\x00fFa0"), Some(vec![0, 255, 160]));
        assert_eq!(hex("plain"), Some(b"plain".to_vec()));
        for text in [
            "\\x0", "\\x0g", "\\x 00", "\\x00 11", "a\\000", "é", "\\X00",
        ] {
            assert_eq!(hex(text), None, "{text}");
        }
    }

    #[test]
    fn a_uuid_has_its_dashes_all_or_none() {
        let wanted = Some([
            0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17,
            0x40, 0xff,
        ]);
        for text in [
            "123e4567-e89b-12d3-a456-4266141740ff",
            "123E4567-E89B-12D3-A456-4266141740FF",
            "{123e4567-e89b-12d3-a456-4266141740ff}",
            "123e4567e89b12d3a4564266141740ff",
        ] {
            assert_eq!(uuid(text.as_bytes()), wanted, "{text}");
        }
        for text in [
            "",
            "{}",
            "123e4567-e89b-12d3-a456-4266141740fg",
            "123e4567-e89b-12d3-a456+4266141740ff",
            "123e-4567-e89b-12d3-a456-4266-1417-40ff",
            "{123e4567-e89b-12d3-a456-4266141740ff",
            "123e4567-e89b-12d3-a456-4266141740f",
        ] {
            assert_eq!(uuid(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_name_the_server_would_cut_is_left_to_it() {
        let mut out = Vec::new();
        assert!(name::<false>("n".repeat(63).as_bytes(), &mut out));
        assert!(!name::<false>("n".repeat(64).as_bytes(), &mut out));
        assert!(!name::<false>("é".as_bytes(), &mut out));
        assert_eq!(out.len(), 63);
        assert_eq!(char(b"\\"), None);
        assert_eq!(char(b""), None);
        assert_eq!(char(b"ab"), None);
        assert_eq!(char(b"a"), Some([b'a']));
    }
}
