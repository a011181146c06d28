//! Finds out from the first line how the lines of delimited text end.

use super::csv::Dialect;
use super::line_end::LineEnd;

/// Looks for the first line end outside quotes; remembers where it stopped, so that the first line
/// may arrive in pieces.
#[derive(Debug, Default)]
pub struct FirstLineEnd {
    scanned: usize,
    quoted: bool,
}

impl FirstLineEnd {
    /// How the first line of a text ends that begins with `head`; `None` if only the bytes behind
    /// can tell. `ended`: there are none.
    ///
    /// # Errors
    /// When it ends in `\r\r\n`, where nothing tells which `\r` are line ends.
    pub fn find(
        &mut self,
        dialect: &Dialect,
        head: &[u8],
        ended: bool,
    ) -> Result<Option<LineEnd>, TwoReturns> {
        while let Some(&byte) = head.get(self.scanned) {
            if byte == b'\n' && !self.quoted {
                return Ok(Some(LineEnd::Lf));
            }
            let next = head.get(self.scanned + 1).copied();
            let third = byte == b'\r' && next == Some(b'\r') && head.len() == self.scanned + 2;
            if (next.is_none() || third) && !ended {
                return Ok(None);
            }
            let at = self.scanned;
            self.scanned += 1;
            if self.quoted {
                let pair = next.is_some_and(|next| {
                    byte == dialect.escape && (Some(next) == dialect.quote || next == byte)
                });
                if pair {
                    self.scanned += 1;
                } else if Some(byte) == dialect.quote {
                    self.quoted = false;
                }
            } else if byte == b'\r' {
                return match &head[at + 1..] {
                    [b'\n', ..] => Ok(Some(LineEnd::CrLf)),
                    [b'\r', b'\n', ..] => Err(TwoReturns),
                    _ => Ok(Some(LineEnd::Cr)),
                };
            } else if Some(byte) == dialect.quote {
                self.quoted = at == 0 || head[at - 1] == dialect.delimiter;
            }
        }
        Ok(ended.then_some(LineEnd::Lf))
    }
}

/// The first line ends in `\r\r\n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwoReturns;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_end_outside_quotes_decides_however_the_bytes_arrive() {
        let dialect = Dialect::default();
        for (head, expected) in [
            (&b"\"a\rb\",c\nd"[..], Ok(LineEnd::Lf)),
            (b"a,b\rc,d\r", Ok(LineEnd::Cr)),
            (b"a,b\r\nc", Ok(LineEnd::CrLf)),
            (b"a,\"b\"\"\r\n\"\rc\n", Ok(LineEnd::Cr)),
            (b"a,b\r", Ok(LineEnd::Cr)),
            (b"a\"\r\n\"\n", Ok(LineEnd::CrLf)),
            (b"\"a\nb", Ok(LineEnd::Lf)),
            (b"a,b\r\r\n", Err(TwoReturns)),
            (b"a,b\r\rc", Ok(LineEnd::Cr)),
        ] {
            for step in 1..=head.len() {
                let mut first = FirstLineEnd::default();
                let found = (step..head.len())
                    .step_by(step)
                    .find_map(|known| first.find(&dialect, &head[..known], false).transpose())
                    .unwrap_or_else(|| Ok(first.find(&dialect, head, true)?.unwrap()));
                assert_eq!(found, expected, "{}", head.escape_ascii());
            }
        }
    }

    /// A pipe may bring nothing more for long.
    #[test]
    fn a_line_feed_is_known_without_the_byte_behind_it() {
        let mut first = FirstLineEnd::default();
        let found = first.find(&Dialect::default(), b"a,b\n", false);
        assert_eq!(found, Ok(Some(LineEnd::Lf)));
    }
}
