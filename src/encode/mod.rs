//! Turns a field's text into the binary value of its column's type, as the server's receive
//! functions read it.
//!
//! The one law: binary never changes what is accepted or stored. A value is encoded only if the
//! server's input function reads exactly this text as exactly the value that its receive function
//! makes of the bytes, on every supported server (12 and newer) and under every setting; otherwise
//! the encoder declines, the value goes as text, and the server judges it. Where both functions
//! share a check (length of a varchar, label of an enum, syntax of JSON, precision of a numeric)
//! the encoder leaves the check to them: they refuse with the same SQLSTATE.
//!
//! Text must be valid UTF-8 without NUL, sent under `client_encoding` UTF8.

mod array;
mod bytes;
mod datetime;
mod digits;
mod number;

/// Turns one field's text into the binary form of its column's type; resolved once per column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// `boolean`.
    Bool,
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `oid`.
    Oid,
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `numeric`, with or without precision: at most 1,000 digits on either side of the point.
    Numeric,
    /// `date`, as `YYYY-MM-DD`.
    Date,
    /// `time` without time zone.
    Time,
    /// `timestamp` without time zone.
    Timestamp,
    /// `timestamp with time zone`; declines text without an offset.
    TimestampTz,
    /// `text`, `varchar`, `char(n)`, `json`. Also right for enums and citext, whose oids are not
    /// fixed: the caller chooses it after a look at `pg_type`.
    Text,
    /// `name`, the server's identifiers.
    Name,
    /// `"char"`, the server's one-byte type.
    Char,
    /// `jsonb`.
    Jsonb,
    /// `bytea`, from hex or from plain ASCII.
    Bytea,
    /// `uuid`.
    Uuid,
    /// A one-dimensional array without NULL elements; holds the oid of the element's type, which
    /// must be one of the fixed ones of [`Encoder::for_type`], else every value is declined.
    Array(u32),
}

impl Encoder {
    /// Finds the encoder of a built-in type by its oid in `pg_type`, after domains are resolved.
    /// `None`: the type has no encoder and its values must go as text. Enums and extension types
    /// have no fixed oid; for enums and citext the caller may choose [`Encoder::Text`].
    pub fn for_type(type_oid: u32) -> Option<Encoder> {
        // The oid of each array type, and of its element (pg_type.dat).
        let element = match type_oid {
            199 => 114,
            1000 => 16,
            1001 => 17,
            1002 => 18,
            1003 => 19,
            1005 => 21,
            1007 => 23,
            1009 => 25,
            1014 => 1042,
            1015 => 1043,
            1016 => 20,
            1021 => 700,
            1022 => 701,
            1028 => 26,
            1115 => 1114,
            1182 => 1082,
            1183 => 1083,
            1185 => 1184,
            1231 => 1700,
            2951 => 2950,
            3807 => 3802,
            _ => return Encoder::for_scalar(type_oid),
        };
        Some(Encoder::Array(element))
    }

    /// As [`Encoder::for_type`], without arrays.
    fn for_scalar(type_oid: u32) -> Option<Encoder> {
        Some(match type_oid {
            16 => Encoder::Bool,
            17 => Encoder::Bytea,
            18 => Encoder::Char,
            19 => Encoder::Name,
            20 => Encoder::Int8,
            21 => Encoder::Int2,
            23 => Encoder::Int4,
            // text, json, bpchar, varchar
            25 | 114 | 1042 | 1043 => Encoder::Text,
            26 => Encoder::Oid,
            700 => Encoder::Float4,
            701 => Encoder::Float8,
            1082 => Encoder::Date,
            1083 => Encoder::Time,
            1114 => Encoder::Timestamp,
            1184 => Encoder::TimestampTz,
            1700 => Encoder::Numeric,
            2950 => Encoder::Uuid,
            3802 => Encoder::Jsonb,
            _ => return None,
        })
    }

    /// Appends the binary value, without a length, to `out` and returns true. Text that is not in
    /// canonical form appends nothing and returns false: the value must go as text.
    #[inline]
    pub fn encode(self, text: &[u8], out: &mut Vec<u8>) -> bool {
        self.append::<false>(text, out)
    }

    /// As [`Encoder::encode`], with the length of the value, 4 bytes big-endian, in front of it: the
    /// form of a field in COPY BINARY, of a parameter in Bind and of an array's element.
    #[inline]
    pub fn encode_with_length(self, text: &[u8], out: &mut Vec<u8>) -> bool {
        self.append::<true>(text, out)
    }

    /// The short encoders are inlined here; long ones, marked `inline(never)`, stay out, so that
    /// their registers and stack do not burden the short.
    #[inline]
    fn append<const LENGTH: bool>(self, text: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Encoder::Bool => fixed::<LENGTH, 1>(number::boolean(text).map(|v| [u8::from(v)]), out),
            Encoder::Int2 => fixed::<LENGTH, 2>(number::int2(text).map(i16::to_be_bytes), out),
            Encoder::Int4 => fixed::<LENGTH, 4>(number::int4(text).map(i32::to_be_bytes), out),
            Encoder::Int8 => fixed::<LENGTH, 8>(number::int8(text).map(i64::to_be_bytes), out),
            Encoder::Oid => fixed::<LENGTH, 4>(number::oid(text).map(u32::to_be_bytes), out),
            Encoder::Float4 => fixed::<LENGTH, 4>(number::float(text).map(f32::to_be_bytes), out),
            Encoder::Float8 => fixed::<LENGTH, 8>(number::float(text).map(f64::to_be_bytes), out),
            Encoder::Numeric => number::numeric::<LENGTH>(text, out),
            Encoder::Date => fixed::<LENGTH, 4>(datetime::date(text).map(i32::to_be_bytes), out),
            Encoder::Time => fixed::<LENGTH, 8>(datetime::time(text).map(i64::to_be_bytes), out),
            Encoder::Timestamp => {
                fixed::<LENGTH, 8>(datetime::timestamp(text).map(i64::to_be_bytes), out)
            }
            Encoder::TimestampTz => {
                fixed::<LENGTH, 8>(datetime::timestamptz(text).map(i64::to_be_bytes), out)
            }
            Encoder::Text => bytes::text::<LENGTH>(text, out),
            Encoder::Name => bytes::name::<LENGTH>(text, out),
            Encoder::Char => fixed::<LENGTH, 1>(bytes::char(text), out),
            Encoder::Jsonb => bytes::jsonb::<LENGTH>(text, out),
            Encoder::Bytea => bytes::bytea::<LENGTH>(text, out),
            Encoder::Uuid => fixed::<LENGTH, 16>(bytes::uuid(text), out),
            Encoder::Array(element) => array::array::<LENGTH>(element, text, out),
        }
    }
}

/// Appends a value of `N` bytes (at most 16), with its length in front if `LENGTH`.
#[inline]
fn fixed<const LENGTH: bool, const N: usize>(value: Option<[u8; N]>, out: &mut Vec<u8>) -> bool {
    let Some(value) = value else {
        return false;
    };
    if LENGTH {
        // One append instead of two: one check of the capacity.
        let mut framed = [0; 20];
        framed[..4].copy_from_slice(&(N as u32).to_be_bytes());
        framed[4..4 + N].copy_from_slice(&value);
        out.extend_from_slice(&framed[..4 + N]);
    } else {
        out.extend_from_slice(&value);
    }
    true
}

/// Runs `append`, then writes the length of what it appended in front if `LENGTH`. If it declines,
/// or the length is above what an int32 holds, nothing stays.
#[inline]
fn framed<const LENGTH: bool>(
    out: &mut Vec<u8>,
    append: impl FnOnce(&mut Vec<u8>) -> bool,
) -> bool {
    let start = out.len();
    if LENGTH {
        out.extend_from_slice(&[0; 4]);
    }
    let first = out.len();
    if append(out)
        && let Ok(len) = i32::try_from(out.len() - first)
    {
        if LENGTH {
            out[start..first].copy_from_slice(&len.to_be_bytes());
        }
        return true;
    }
    out.truncate(start);
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio_postgres::types::{Kind, Type};

    /// Every oid below the first one that is not built in (`FirstGenbkiObjectId` of the server).
    fn encoders() -> impl Iterator<Item = (u32, Encoder)> {
        (0..10_000).filter_map(|oid| Encoder::for_type(oid).map(|encoder| (oid, encoder)))
    }

    #[test]
    fn every_array_type_is_resolved_to_its_element() {
        for (oid, encoder) in encoders() {
            let known = Type::from_oid(oid).expect("is built in");
            match (encoder, known.kind()) {
                (Encoder::Array(element), Kind::Array(of)) => assert_eq!(element, of.oid()),
                (Encoder::Array(_), _) | (_, Kind::Array(_)) => panic!("{known} is mixed up"),
                _ => assert!(Encoder::for_scalar(oid).is_some()),
            }
        }
        assert_eq!(encoders().count(), 42);
        assert_eq!(Encoder::for_type(Type::INTERVAL.oid()), None);
        assert_eq!(Encoder::for_type(Type::INET.oid()), None);
    }

    proptest! {
        #[test]
        fn the_length_in_front_is_the_only_difference(
            text in "[-+0-9.:T Zeaftx{},\"\\\\]{0,20}", before in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            for (_, encoder) in encoders() {
                let mut bare = before.clone();
                let mut framed = before.clone();
                let taken = encoder.encode(text.as_bytes(), &mut bare);
                prop_assert_eq!(taken, encoder.encode_with_length(text.as_bytes(), &mut framed));
                let mut wanted = before.clone();
                if taken {
                    let value = &bare[before.len()..];
                    wanted.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    wanted.extend_from_slice(value);
                } else {
                    prop_assert_eq!(&bare, &before);
                }
                prop_assert_eq!(framed, wanted);
            }
        }
    }
}
