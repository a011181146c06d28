//! Says which settings of delimited text contradict each other.

use super::ReadOptions;
use super::csv::Dialect;

impl Dialect {
    /// What of it, as `options` have made it, contradicts itself.
    pub fn clash(&self, options: &ReadOptions) -> Option<&'static str> {
        let ReadOptions {
            encoding, null_in, ..
        } = options;
        let escape_given = options.escape.is_some();
        let own = null_in.iter().map(|(_, null)| null);
        let nulls: Vec<&String> = own.chain([&options.null]).collect();
        let in_null = |byte: u8| nulls.iter().any(|null| null.as_bytes().contains(&byte));
        let quote_in_null = self.quote.is_some_and(in_null);
        let within = |byte: u8| encoding.has_within(byte);
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
            (
                within(self.delimiter),
                "--delimiter can be a part of a longer character in this --encoding: convert the input, for example with iconv",
            ),
            (
                self.quote.is_some_and(within),
                "--quote can be a part of a longer character in this --encoding: convert the input, for example with iconv",
            ),
            (
                escape_given && within(self.escape),
                "--escape can be a part of a longer character in this --encoding: convert the input, for example with iconv",
            ),
            (
                nulls.iter().any(|null| !encoding.has(null)),
                "--null or --null-in holds a character that the --encoding does not have: no field is ever that",
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
        let options = ReadOptions::default();
        assert_eq!(dialect.clash(&options), None);
        // An escape that is the quote, asked for or not.
        let escape = ReadOptions {
            escape: Some(b'"'),
            ..ReadOptions::default()
        };
        assert_eq!(dialect.clash(&escape), None);
        let plain = Dialect {
            quote: None,
            ..Dialect::default()
        };
        let null = ReadOptions {
            null: "\"".to_string(),
            ..ReadOptions::default()
        };
        assert_eq!(plain.clash(&null), None);
        assert!(dialect.clash(&null).is_some());
        assert!(plain.clash(&escape).is_some());
        let null_in = ReadOptions {
            null_in: vec![("a".to_string(), "x,y".to_string())],
            ..ReadOptions::default()
        };
        assert!(dialect.clash(&null_in).is_some());
    }
}
