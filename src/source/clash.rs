//! Says which settings of delimited text contradict each other.

use super::csv::Dialect;

impl Dialect {
    /// What of it contradicts itself. `escape_given`: the escape was asked for, it is not just the
    /// quote; `null_in`: what is NULL in some fields.
    pub fn clash(&self, escape_given: bool, null_in: &[(String, String)]) -> Option<&'static str> {
        let in_null = |byte: u8| {
            let mut own = null_in.iter();
            self.null.contains(&byte) || own.any(|(_, null)| null.as_bytes().contains(&byte))
        };
        let quote_in_null = self.quote.is_some_and(in_null);
        let clashes = [
            (
                self.quote == Some(self.delimiter),
                "--delimiter and --quote are the same byte",
            ),
            (
                escape_given && self.escape == self.delimiter,
                "--delimiter and --escape are the same byte",
            ),
            (
                escape_given && self.quote.is_none(),
                "--escape stands before a quote within quotes: it means nothing with --quote none",
            ),
            (
                in_null(self.delimiter) || in_null(b'\n') || in_null(b'\r') || quote_in_null,
                "--null or --null-in holds the delimiter, the quote or a line break: no unquoted field is ever that",
            ),
        ];
        let found = clashes.into_iter().find(|(clashes, _)| *clashes);
        found.map(|(_, clash)| clash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_that_reads_what_it_says_has_no_clash() {
        let dialect = Dialect::default();
        assert_eq!(dialect.clash(false, &[]), None);
        // An escape that is the quote, asked for or not.
        assert_eq!(dialect.clash(true, &[]), None);
        let plain = Dialect {
            quote: None,
            null: b"\"".to_vec(),
            ..Dialect::default()
        };
        assert_eq!(plain.clash(false, &[]), None);
        assert!(plain.clash(true, &[]).is_some());
        let null_in = [("a".to_string(), "x,y".to_string())];
        assert!(dialect.clash(false, &null_in).is_some());
    }
}
