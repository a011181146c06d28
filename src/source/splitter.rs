//! Finds the records of delimited text.

use memchr::memchr;

use super::csv::Dialect;
use super::line_end::LineEnd;
use super::scan::Places;

/// Finds record ends without looking at fields; remembers where it stopped, so that a record may
/// arrive in pieces.
#[derive(Debug, Clone)]
pub struct Splitter {
    dialect: Dialect,
    /// Bytes of the open record already looked at.
    scanned: usize,
    /// Blank lines at the start of the open record.
    blank: usize,
    quoted: bool,
}

impl Splitter {
    /// A splitter at the start of a record.
    pub fn new(dialect: Dialect) -> Self {
        Splitter {
            dialect,
            scanned: 0,
            blank: 0,
            quoted: false,
        }
    }

    /// Length of the record at the start of `bytes`, its line end and any blank lines before it
    /// included; `None` if it goes on beyond. Call again with the same bytes and more behind them.
    #[inline]
    pub fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.dialect.skip_blank && self.scanned == self.blank && !self.skip_blank(bytes) {
            return None;
        }
        let Some(quote) = self.dialect.quote else {
            return self.unquoted_end(bytes);
        };
        let Dialect {
            delimiter,
            escape,
            line_end,
            ..
        } = self.dialect;
        let last = line_end.last();
        let mut places = Places::new(bytes, [quote, last, escape]);
        places.go_to(self.scanned);
        while let Some(found) = places.next() {
            let byte = bytes[found];
            if self.quoted {
                if byte == escape {
                    match bytes.get(found + 1) {
                        None => {
                            self.scanned = found;
                            return None;
                        }
                        Some(&next) if next == quote || next == escape => {
                            places.go_to(found + 2);
                            continue;
                        }
                        Some(_) => {}
                    }
                }
                self.quoted = byte != quote;
            } else if byte == last {
                match line_end.is_at(bytes, found) {
                    Some(true) => return Some(self.finish(found + 1)),
                    Some(false) => {}
                    None => {
                        self.scanned = found;
                        return None;
                    }
                }
            } else if byte == quote {
                self.quoted = found == self.blank || bytes[found - 1] == delimiter;
            }
        }
        self.scanned = bytes.len();
        None
    }

    /// Length of the last record of a source, which has no line end; `None` if only blank lines
    /// are left.
    pub fn last_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let content = bytes.len() > self.blank && !matches!(&bytes[self.blank..], b"\r");
        let end =
            (content || (!self.dialect.skip_blank && !bytes.is_empty())).then_some(bytes.len());
        self.finish(0);
        end
    }

    fn finish(&mut self, end: usize) -> usize {
        self.scanned = 0;
        self.blank = 0;
        self.quoted = false;
        end
    }

    fn unquoted_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let line_end = self.dialect.line_end;
        while let Some(found) = memchr(line_end.last(), &bytes[self.scanned..]) {
            let found = self.scanned + found;
            match line_end.is_at(bytes, found) {
                Some(true) => return Some(self.finish(found + 1)),
                Some(false) => self.scanned = found + 1,
                None => {
                    self.scanned = found;
                    return None;
                }
            }
        }
        self.scanned = bytes.len();
        None
    }

    /// Passes blank lines; false if only the rest of the bytes can tell whether there are more.
    fn skip_blank(&mut self, bytes: &[u8]) -> bool {
        loop {
            match bytes.get(self.blank) {
                Some(b'\n') if self.dialect.line_end == LineEnd::Lf => self.blank += 1,
                Some(b'\r') if self.dialect.line_end == LineEnd::Cr => self.blank += 1,
                Some(b'\r') => match bytes.get(self.blank + 1) {
                    Some(b'\n') => self.blank += 2,
                    Some(_) => break,
                    None => {
                        self.scanned = self.blank;
                        return false;
                    }
                },
                Some(_) => break,
                None => {
                    self.scanned = self.blank;
                    return false;
                }
            }
        }
        self.scanned = self.blank;
        true
    }

    /// Whether the last record of a source, which `bytes` holds whole, has an open quote.
    pub fn ends_quoted(&self, bytes: &[u8]) -> bool {
        // A quote as the very last byte was left unread, to see whether a second one follows.
        self.quoted
            && !(self.scanned + 1 == bytes.len() && Some(bytes[self.scanned]) == self.dialect.quote)
    }
}
