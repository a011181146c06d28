//! Turns a one-dimensional array literal, `{1,2,"a b"}`, into its elements' binary values.
//!
//! Taken: no bounds, no nested braces, no space around elements, no unquoted NULL, which the
//! setting array_nulls may turn into a string.

use super::{Encoder, framed};

/// Dimension and lower bound of every non-empty array taken here: one dimension, counted from 1.
const ONE: [u8; 4] = 1i32.to_be_bytes();
/// Dimensions (none or one), NULL flag, element type.
const HEAD: usize = 12;
/// The head, then length and lower bound of the one dimension.
const HEAD_WITH_BOUNDS: usize = HEAD + 8;

/// Appends the binary form of the literal, whose elements are of the type `element`.
#[inline(never)]
pub(super) fn array<const LENGTH: bool>(element: u32, text: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(encoder) = Encoder::for_scalar(element) else {
        return false;
    };
    let [b'{', items @ .., b'}'] = text else {
        return false;
    };
    framed::<LENGTH>(out, |out| {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        out[start + 8..].copy_from_slice(&element.to_be_bytes());
        if items.is_empty() {
            return true;
        }
        out[start..start + 4].copy_from_slice(&ONE);
        out.extend_from_slice(&[0; HEAD_WITH_BOUNDS - HEAD]);
        out[start + HEAD + 4..].copy_from_slice(&ONE);
        let Some(count) = append_items(encoder, items, out) else {
            return false;
        };
        out[start + HEAD..start + HEAD + 4].copy_from_slice(&count.to_be_bytes());
        true
    })
}

/// Appends the elements between the braces, each with its length; gives their number.
fn append_items(encoder: Encoder, mut items: &[u8], out: &mut Vec<u8>) -> Option<i32> {
    let mut count = 0;
    loop {
        let rest = match items {
            [b'"', quoted @ ..] => append_quoted(encoder, quoted, out)?,
            _ => append_bare(encoder, items, out)?,
        };
        count += 1;
        match rest {
            [] => return Some(count),
            [b',', more @ ..] => items = more,
            _ => return None,
        }
    }
}

/// Appends an element without quotes; gives what follows it.
fn append_bare<'a>(encoder: Encoder, items: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let end = memchr::memchr(b',', items).unwrap_or(items.len());
    let (item, rest) = items.split_at(end);
    let spaced = |byte: Option<&u8>| byte.is_none_or(|b| b.is_ascii_whitespace() || *b == 0x0b);
    let special = |b: &u8| matches!(b, b'{' | b'}' | b'"' | b'\\');
    let refused = spaced(item.first())
        || spaced(item.last())
        || item.iter().any(special)
        || item.eq_ignore_ascii_case(b"NULL");
    (!refused && encoder.encode_with_length(item, out)).then_some(rest)
}

/// Appends an element in quotes, of which the first is already gone; gives what follows the second.
fn append_quoted<'a>(encoder: Encoder, items: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let end = memchr::memchr2(b'"', b'\\', items)?;
    if items[end] == b'"' {
        let taken = encoder.encode_with_length(&items[..end], out);
        return taken.then_some(&items[end + 1..]);
    }
    // A backslash stands for the character after it. Such elements are rare enough to be copied.
    let mut plain = items[..end].to_vec();
    let mut rest = &items[end..];
    loop {
        match rest {
            [b'"', after @ ..] => {
                let taken = encoder.encode_with_length(&plain, out);
                return taken.then_some(after);
            }
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                plain.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT4_ARRAY: u32 = 1007;
    const TEXT_ARRAY: u32 = 1009;

    fn encoded(type_oid: u32, text: &str) -> Option<Vec<u8>> {
        let mut out = vec![7];
        let encoder = Encoder::for_type(type_oid).expect("has an encoder");
        let taken = encoder.encode(text.as_bytes(), &mut out);
        assert_eq!(out.remove(0), 7);
        assert!(taken || out.is_empty(), "{text} left bytes behind");
        taken.then_some(out)
    }

    /// The elements of a one-dimensional text array on the wire.
    fn strings(wire: &[u8]) -> Vec<String> {
        let mut rest = &wire[20..];
        let mut strings = Vec::new();
        while let Some((len, after)) = rest.split_first_chunk() {
            let (string, after) = after.split_at(i32::from_be_bytes(*len) as usize);
            strings.push(String::from_utf8(string.to_vec()).expect("is text"));
            rest = after;
        }
        assert_eq!(
            strings.len() as i32,
            i32::from_be_bytes(wire[12..16].try_into().expect("4"))
        );
        strings
    }

    #[test]
    fn an_array_is_head_bounds_and_elements() {
        let wire = encoded(INT4_ARRAY, "{5,-1}").expect("is taken");
        let words: Vec<i32> = wire
            .chunks(4)
            .map(|word| i32::from_be_bytes(word.try_into().expect("four bytes")))
            .collect();
        assert_eq!(words, [1, 0, 23, 2, 1, 4, 5, 4, -1]);
        assert_eq!(encoded(INT4_ARRAY, "{}").map(|wire| wire.len()), Some(HEAD));
    }

    #[test]
    fn quotes_and_backslashes_are_taken_off() {
        let wire = encoded(TEXT_ARRAY, r#"{a b,"","x,y","say \"hi\"\\","NULL",é}"#);
        let wanted = ["a b", "", "x,y", "say \"hi\"\\", "NULL", "é"];
        assert_eq!(strings(&wire.expect("is taken")), wanted);
    }

    #[test]
    fn what_is_no_plain_list_is_left_to_the_server() {
        for text in [
            "",
            "{",
            "}",
            "{,}",
            "{1,}",
            "{,1}",
            "{1 }",
            "{ 1}",
            "{NULL}",
            "{null}",
            "{{1}}",
            "{1}}",
            "[1:1]={1}",
            " {1}",
            "{1} ",
            "{1",
            "{\"1}",
            "{\"1\"2}",
            "{1\"2\"}",
            "{\\1}",
            "{\"1\\\"}",
            "{1},{2}",
        ] {
            assert_eq!(encoded(TEXT_ARRAY, text), None, "{text}");
            assert_eq!(encoded(INT4_ARRAY, text), None, "{text}");
        }
        assert_eq!(encoded(INT4_ARRAY, "{1,x}"), None);
    }
}
