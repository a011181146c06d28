//! Makes the rows of the bench: TPC-H lineitem as a CSV file.

use std::io::{self, BufWriter, Write};

use tempfile::NamedTempFile;
use tpchgen::csv::LineItemCsv;
use tpchgen::generators::LineItemGenerator;

use crate::merge::Mode;

/// The table of TPC-H, with the types of its specification, section 1.4.
pub const LINEITEM: &str = "(
    l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL,
    l_linenumber integer NOT NULL, l_quantity numeric(15,2) NOT NULL,
    l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL,
    l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL,
    l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
    l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL)";

/// That table; for modes by key with the key that the specification gives it.
pub(super) fn lineitem_table(mode: Mode) -> String {
    match mode {
        Mode::Append => LINEITEM.to_string(),
        _ => LINEITEM.replace(
            "l_comment varchar(44) NOT NULL)",
            "l_comment varchar(44) NOT NULL, PRIMARY KEY (l_orderkey, l_linenumber))",
        ),
    }
}

/// Rows of lineitem at scale factor 1.
const ROWS_AT_SCALE_1: usize = 6_001_215;

/// Writes `rows` rows with a header into a temporary file, which is removed with the handle.
///
/// # Errors
/// When the temporary directory is full or may not be written.
pub fn lineitem(rows: usize) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix("pgrung-lineitem-")
        .suffix(".csv")
        .tempfile()?;
    write_lineitem(rows, file.as_file())?;
    Ok(file)
}

/// Writes `rows` rows of TPC-H lineitem as CSV with a header, the same rows each time.
///
/// # Errors
/// What `out` says.
pub fn write_lineitem(rows: usize, out: impl Write) -> io::Result<()> {
    let scale = rows.div_ceil(ROWS_AT_SCALE_1).max(1) as f64;
    let mut out = BufWriter::with_capacity(1 << 20, out);
    writeln!(out, "{}", LineItemCsv::header())?;
    for line in LineItemGenerator::new(scale, 1, 1).iter().take(rows) {
        writeln!(out, "{}", LineItemCsv::new(line))?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rows_are_as_many_as_asked_for() {
        let file = super::lineitem(250).unwrap();
        let mut reader = csv::Reader::from_path(file.path()).unwrap();
        assert_eq!(reader.headers().unwrap().len(), 16);
        assert_eq!(reader.records().filter(Result::is_ok).count(), 250);
    }
}
