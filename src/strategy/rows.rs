//! The rows of a batch as strategies see them: parsed one by one, records that are no rows noted
//! and passed over.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::batch::Batch;
use crate::source::{FieldError, Fields, RowParser};
use crate::target::{Order, Stamp, Target};

/// Some consecutive records of a batch, without those already refused.
pub struct RowSlice<'a> {
    batch: &'a Batch,
    records: Records,
    in_order: bool,
    parser: &'a mut RowParser,
    refused: &'a mut Refused,
    pulse: Pulse,
    stamp: Option<Stamping>,
}

/// Signs of life of a server in the middle of a write: each answer, and each piece that it takes,
/// is a beat. Clones are the same pulse.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The server has answered, or taken something.
    pub fn beat(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Beats so far.
    pub(crate) fn beats(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Which records are left.
enum Records {
    Range(Range<usize>),
    List(std::vec::IntoIter<usize>),
}

impl<'a> RowSlice<'a> {
    /// The records `range` of `batch`. `parser` has been shown the bytes of the batch.
    pub(crate) fn new(
        batch: &'a Batch,
        range: Range<usize>,
        parser: &'a mut RowParser,
        refused: &'a mut Refused,
    ) -> Self {
        RowSlice {
            batch,
            records: Records::Range(range),
            in_order: false,
            parser,
            refused,
            pulse: Pulse::default(),
            stamp: None,
        }
    }

    /// The same rows, each with a stamp behind its fields.
    pub(crate) fn stamped(self, stamp: Option<Stamp>) -> Self {
        let counted = (0, self.batch.first_line);
        let stamp = stamp.map(|stamp| Stamping { stamp, counted });
        RowSlice { stamp, ..self }
    }

    /// The same rows, with a pulse to watch.
    pub(crate) fn watched(self, pulse: Pulse) -> Self {
        RowSlice { pulse, ..self }
    }

    /// To be beaten at each sign of life of the server: the answer timeout begins anew.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// The same rows, to be stored one after the other: which of two rows with the same key is
    /// refused depends on their order.
    pub(crate) fn one_after_the_other(self, in_order: bool) -> Self {
        RowSlice { in_order, ..self }
    }

    /// Whether the rows must be stored in their order.
    pub fn in_order(&self) -> bool {
        self.in_order
    }

    /// Records left, refused ones included: an upper bound of the rows to come.
    pub fn remaining(&self) -> usize {
        match &self.records {
            Records::Range(range) => range.len(),
            Records::List(list) => list.len(),
        }
    }

    /// Begins anew with these records only, given by their indexes in the batch, in their order.
    pub fn restart_with(&mut self, records: Vec<usize>) {
        if let Some(stamping) = &mut self.stamp {
            stamping.counted = (0, self.batch.first_line);
        }
        self.records = Records::List(records.into_iter());
    }

    /// The next row.
    #[inline]
    pub fn next_row(&mut self) -> Option<Row<'_>> {
        loop {
            let index = match &mut self.records {
                Records::Range(range) => range.next()?,
                Records::List(list) => list.next()?,
            };
            if self.refused.contains(index) {
                continue;
            }
            let record = self.batch.record(index);
            match self.parser.parse(record) {
                Ok(()) => {
                    if let Some(stamping) = &mut self.stamp {
                        stamping.stamp(self.batch, index, self.parser.fields_mut());
                    }
                    let fields = self.parser.fields();
                    return Some(Row {
                        index,
                        record,
                        fields,
                    });
                }
                Err(error) => self.refused.insert(index, error.into()),
            }
        }
    }
}

/// Stamps rows, and counts lines on its way.
struct Stamping {
    stamp: Stamp,
    /// A place in the bytes of the batch, and its line.
    counted: (usize, u64),
}

impl Stamping {
    fn stamp(&mut self, batch: &Batch, index: usize, fields: &mut Fields) {
        let order = Order::of(batch.source, batch.first_record + index as u64);
        fields.push_text(format_args!("{}", order.0));
        if self.stamp == Stamp::Full {
            let line = batch.position_behind(index, &mut self.counted).line;
            fields.push_text(format_args!("{line}"));
            let start = batch.start_byte + batch.range(index).start as u64;
            fields.push_text(format_args!("{start}"));
            fields.push_hex(batch.record(index));
        }
    }
}

/// One row.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Index of the record in its batch (0-based).
    pub index: usize,
    record: &'a [u8],
    fields: &'a Fields,
}

impl<'a> Row<'a> {
    /// The fields in the order of the target's columns; `None` is NULL.
    #[inline]
    pub fn fields(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let Row { record, fields, .. } = *self;
        (0..fields.len()).map(move |index| fields.get(record, index))
    }
}

/// Records of a batch that are no rows, or rows that the server will not have.
#[derive(Debug, Default)]
pub struct Refused(BTreeMap<usize, Refusal>);

/// Why a record was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE, the server's or the one it would have given.
    pub sqlstate: String,
    /// Field at fault (0-based), as the parser knows it.
    pub field: Option<usize>,
    /// Column at fault, as the server knows it.
    pub column: Option<String>,
    pub constraint: Option<String>,
    /// What is wrong, in one line.
    pub message: String,
}

impl Refusal {
    /// The column at fault, from whoever knows it.
    pub fn column_name<'a>(&'a self, target: &'a Target) -> Option<&'a str> {
        self.column
            .as_deref()
            .or_else(|| Some(target.columns.get(self.field?)?.name.as_str()))
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Refusal {
            sqlstate: error.sqlstate().to_string(),
            field: error.field,
            column: None,
            constraint: None,
            message: error.to_string(),
        }
    }
}

impl Refused {
    /// Whether record `index` (0-based, within the batch) was refused.
    #[inline]
    pub fn contains(&self, index: usize) -> bool {
        !self.0.is_empty() && self.0.contains_key(&index)
    }

    /// Notes a refused record.
    pub fn insert(&mut self, index: usize, refusal: Refusal) {
        self.0.insert(index, refusal);
    }

    /// Takes a record back into the rows.
    pub fn remove(&mut self, index: usize) -> Option<Refusal> {
        self.0.remove(&index)
    }

    /// Number of refused records within `range`.
    pub fn within(&self, range: Range<usize>) -> usize {
        if self.0.is_empty() {
            0
        } else {
            self.0.range(range).count()
        }
    }

    /// Number of refused records.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refused records in their order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Refusal)> {
        self.0.iter().map(|(index, refusal)| (*index, refusal))
    }
}
