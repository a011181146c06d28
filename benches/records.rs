//! Bytes and rows a second of finding records and cutting them into fields, for a batch of lineitem
//! CSV, of quoted CSV, and of JSON lines.
//!
//! `split` is what the reader does, `parse` what a worker does, its look for bytes that are no
//! UTF-8 included. The peer does both in one pass, so it stands beside `split and parse`: the csv
//! crate with a reused `ByteRecord` (which checks no UTF-8), and for JSON serde_json with a `Value`
//! a line.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pgrung::internal::{
    Dialect, KeyColumn, Keys, RowParser, Splitter, next_json_end, write_lineitem,
};
use std::hint::black_box;
use std::time::Duration;

/// Rows of a sample: 4 MiB of lineitem, a batch at its default size, more than a second-level
/// cache holds.
const ROWS: usize = 32_768;

/// Columns of lineitem.
const COLUMNS: usize = 16;

/// Columns of lineitem (0-based) that hold numbers.
const NUMBERS: std::ops::Range<usize> = 0..8;

/// One row in this many has a quote and a line break in its last column.
const ESCAPES_EVERY: usize = 8;

/// The same rows, written three times.
struct Samples {
    names: csv::StringRecord,
    plain: Vec<u8>,
    quoted: Vec<u8>,
    json: Vec<u8>,
}

impl Samples {
    fn make() -> Self {
        let mut csv = Vec::new();
        write_lineitem(ROWS, &mut csv).expect("memory takes all");
        let mut reader = csv::Reader::from_reader(&csv[..]);
        let names = reader.headers().expect("a header was written").clone();
        let mut writer = csv::WriterBuilder::new()
            .quote_style(csv::QuoteStyle::NonNumeric)
            .from_writer(Vec::new());
        let mut json = Vec::new();
        for (index, row) in reader.records().enumerate() {
            let mut row: Vec<String> = row
                .expect("a row was written")
                .iter()
                .map(str::to_owned)
                .collect();
            if index % ESCAPES_EVERY == 0 {
                row[COLUMNS - 1].push_str(" 5\" by\n7\"");
            }
            writer.write_record(&row).expect("memory takes all");
            let fields: Vec<String> = names
                .iter()
                .zip(&row)
                .enumerate()
                .map(|(column, (name, text))| {
                    if NUMBERS.contains(&column) {
                        format!("\"{name}\":{text}")
                    } else {
                        format!("\"{name}\":{}", serde_json::Value::from(text.as_str()))
                    }
                })
                .collect();
            json.extend_from_slice(format!("{{{}}}\n", fields.join(",")).as_bytes());
        }
        let header = csv.iter().position(|&byte| byte == b'\n');
        Samples {
            plain: csv.split_off(header.expect("a header was written") + 1),
            names,
            quoted: writer.into_inner().expect("memory takes all"),
            json,
        }
    }
}

/// Finds the ends of all records of `bytes`; they go into `ends`.
fn split_all(bytes: &[u8], mut next_end: impl FnMut(&[u8]) -> Option<usize>, ends: &mut Vec<u32>) {
    ends.clear();
    let mut start = 0;
    while let Some(length) = next_end(&bytes[start..]) {
        start += length;
        ends.push(start as u32);
    }
}

/// Cuts all records of `bytes` into fields; returns the bytes of the fields.
fn parse_all(parser: &mut RowParser, bytes: &[u8], ends: &[u32]) -> usize {
    parser.begin(bytes);
    let (mut start, mut sum) = (0, 0);
    for &end in ends {
        let record = &bytes[start..end as usize];
        parser.parse(record).expect("the sample is well-formed");
        sum += parser
            .fields_of(record)
            .flatten()
            .map(<[u8]>::len)
            .sum::<usize>();
        start = end as usize;
    }
    sum
}

/// The csv crate's way through `bytes`; returns rows and bytes of the fields.
fn csv_crate(bytes: &[u8], record: &mut csv::ByteRecord) -> (usize, usize) {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(bytes);
    let (mut rows, mut sum) = (0, 0);
    while reader
        .read_byte_record(record)
        .expect("the sample is well-formed")
    {
        rows += 1;
        for field in record.iter() {
            sum += field.len();
        }
    }
    (rows, sum)
}

/// serde_json's way through `bytes`; returns the rows.
fn serde_json_values(bytes: &[u8]) -> usize {
    let mut rows = 0;
    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<serde_json::Value>() {
        black_box(value.expect("the sample is well-formed"));
        rows += 1;
    }
    rows
}

/// Measures our way through a sample; returns the bytes of the fields.
fn ours<F: FnMut(&[u8]) -> Option<usize>>(
    criterion: &mut Criterion,
    name: &str,
    bytes: &[u8],
    splitter: impl Fn() -> F,
    parser: &mut RowParser,
) -> usize {
    let mut ends = Vec::with_capacity(ROWS);
    split_all(bytes, splitter(), &mut ends);
    assert_eq!(ends.len(), ROWS, "{name}");
    let sum = parse_all(parser, bytes, &ends);

    let mut group = criterion.benchmark_group(name);
    group.throughput(throughput(bytes));
    let mut found = Vec::with_capacity(ROWS);
    group.bench_function("split", |bencher| {
        bencher.iter_batched_ref(
            &splitter,
            |next_end| split_all(black_box(bytes), next_end, &mut found),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("parse", |bencher| {
        bencher.iter(|| parse_all(parser, black_box(bytes), &ends));
    });
    group.bench_function("split and parse", |bencher| {
        bencher.iter(|| {
            split_all(black_box(bytes), splitter(), &mut found);
            parse_all(parser, bytes, &found)
        });
    });
    group.finish();
    sum
}

fn throughput(bytes: &[u8]) -> Throughput {
    Throughput::ElementsAndBytes {
        elements: ROWS as u64,
        bytes: bytes.len() as u64,
    }
}

fn delimited(criterion: &mut Criterion, name: &str, bytes: &[u8]) {
    let mut parser = RowParser::delimited(Dialect::default(), COLUMNS);
    let splitter = || {
        let mut splitter = Splitter::new(Dialect::default());
        move |bytes: &[u8]| splitter.next_end(bytes)
    };
    let sum = ours(criterion, name, bytes, splitter, &mut parser);
    let mut record = csv::ByteRecord::new();
    assert_eq!(csv_crate(bytes, &mut record), (ROWS, sum), "{name}");
    let mut group = criterion.benchmark_group(name);
    group.throughput(throughput(bytes));
    group.bench_function("csv crate", |bencher| {
        bencher.iter(|| csv_crate(black_box(bytes), &mut record));
    });
}

fn json(criterion: &mut Criterion, names: &csv::StringRecord, bytes: &[u8]) {
    let keys = Keys::new(names.iter().map(|name| KeyColumn {
        name: name.to_owned(),
        json: false,
        any_case: true,
    }));
    let mut parser = RowParser::ndjson(keys, COLUMNS);
    let splitter = || {
        let mut scanned = 0;
        move |bytes: &[u8]| next_json_end(bytes, &mut scanned)
    };
    ours(criterion, "ndjson", bytes, splitter, &mut parser);
    assert_eq!(serde_json_values(bytes), ROWS);
    let mut group = criterion.benchmark_group("ndjson");
    group.throughput(throughput(bytes));
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| serde_json_values(black_box(bytes)));
    });
}

fn records(criterion: &mut Criterion) {
    let samples = Samples::make();
    delimited(criterion, "csv/lineitem", &samples.plain);
    delimited(criterion, "csv/quoted", &samples.quoted);
    json(criterion, &samples.names, &samples.json);
}

fn quick() -> Criterion {
    // Passes of 1 to 50 milliseconds.
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30)
}

criterion_group! { name = benches; config = quick(); targets = records }
criterion_main!(benches);
