//! Nanoseconds to encode one value of each type, and one row of TPC-H lineitem (16 columns), into
//! a buffer that is already large enough. Values vary, so that branches are not learnt by heart.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgrung::internal::Encoder;
use std::hint::black_box;
use std::time::Duration;

/// Values, or rows, in one pass: enough that no branch predictor knows them all.
const MANY: usize = 4096;

/// The encoder of each column of lineitem.
const LINEITEM: [Encoder; 16] = [
    Encoder::Int8,
    Encoder::Int8,
    Encoder::Int8,
    Encoder::Int4,
    Encoder::Numeric,
    Encoder::Numeric,
    Encoder::Numeric,
    Encoder::Numeric,
    Encoder::Text,
    Encoder::Text,
    Encoder::Date,
    Encoder::Date,
    Encoder::Date,
    Encoder::Text,
    Encoder::Text,
    Encoder::Text,
];

fn date(random: &mut fastrand::Rng) -> String {
    let (year, month) = (random.u32(1992..1999), random.u32(1..13));
    format!("{year}-{month:02}-{:02}", random.u32(1..29))
}

/// Rows shaped as TPC-H makes them: the same ranges, scales and lengths.
fn lineitem(random: &mut fastrand::Rng) -> [String; 16] {
    let instructions = [
        "DELIVER IN PERSON",
        "COLLECT COD",
        "NONE",
        "TAKE BACK RETURN",
    ];
    let modes = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"];
    let comment = "egular courts above the furiously even deposits";
    [
        random.u32(1..6_000_000).to_string(),
        random.u32(1..200_000).to_string(),
        random.u32(1..10_000).to_string(),
        random.u32(1..8).to_string(),
        random.u32(1..51).to_string(),
        format!("{}.{:02}", random.u32(900..105_000), random.u32(0..100)),
        format!("0.{:02}", random.u32(0..11)),
        format!("0.{:02}", random.u32(0..9)),
        random
            .choice(["A", "N", "R"])
            .expect("not empty")
            .to_owned(),
        random.choice(["O", "F"]).expect("not empty").to_owned(),
        date(random),
        date(random),
        date(random),
        random.choice(instructions).expect("not empty").to_owned(),
        random.choice(modes).expect("not empty").to_owned(),
        comment[..random.usize(10..44)].to_owned(),
    ]
}

/// Measures a pass over all values with one encoder, reported per value.
fn values(
    criterion: &mut Criterion,
    name: &str,
    encoder: Encoder,
    mut make: impl FnMut(&mut fastrand::Rng) -> String,
) {
    let mut random = fastrand::Rng::with_seed(1);
    let values: Vec<String> = (0..MANY).map(|_| make(&mut random)).collect();
    let mut out = Vec::with_capacity(MANY * 256);
    for value in &values {
        assert!(
            encoder.encode_with_length(value.as_bytes(), &mut out),
            "{name} {value}"
        );
    }
    let mut group = criterion.benchmark_group("value");
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            out.clear();
            for value in &values {
                black_box(encoder).encode_with_length(value.as_bytes(), &mut out);
            }
            black_box(out.len())
        });
    });
}

fn each_type(criterion: &mut Criterion) {
    values(criterion, "bool", Encoder::Bool, |r| r.bool().to_string());
    values(criterion, "int4", Encoder::Int4, |r| {
        (r.i32(..) >> r.u8(0..28)).to_string()
    });
    values(criterion, "int8", Encoder::Int8, |r| {
        (r.i64(..) >> r.u8(0..60)).to_string()
    });
    values(criterion, "float8", Encoder::Float8, |r| {
        (r.f64() * 1e4).to_string()
    });
    values(criterion, "numeric/price", Encoder::Numeric, |r| {
        format!("{}.{:02}", r.u32(900..105_000), r.u32(0..100))
    });
    values(criterion, "numeric/rate", Encoder::Numeric, |r| {
        format!("0.{:02}", r.u32(0..11))
    });
    values(criterion, "numeric/30 digits", Encoder::Numeric, |r| {
        format!("{}.{:010}", r.u64(1 << 60..), r.u32(..))
    });
    values(criterion, "date", Encoder::Date, date);
    values(criterion, "timestamp", Encoder::Timestamp, |r| {
        let (hour, micros) = (r.u32(0..24), r.u32(0..1_000_000));
        format!("{} {hour:02}:59:01.{micros:06}", date(r))
    });
    values(criterion, "timestamptz", Encoder::TimestampTz, |r| {
        format!("{} {:02}:59:01+02:00", date(r), r.u32(0..24))
    });
    values(criterion, "uuid", Encoder::Uuid, |r| {
        let hex = format!("{:032x}", r.u128(..));
        [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-")
    });
    values(criterion, "bytea/32 bytes", Encoder::Bytea, |r| {
        format!("\\x{:032x}{:032x}", r.u128(..), r.u128(..))
    });
    values(criterion, "text/27 bytes", Encoder::Text, |_| {
        "x".repeat(27)
    });
    values(criterion, "int4[]/10", Encoder::Array(23), |r| {
        let numbers: Vec<String> = (0..10).map(|_| r.u32(..100_000).to_string()).collect();
        format!("{{{}}}", numbers.join(","))
    });
}

fn row(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(1);
    // One buffer and field ends, as a parsed record lies in memory.
    let mut text = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..MANY {
        for field in lineitem(&mut random) {
            text.extend_from_slice(field.as_bytes());
            ends.push(text.len());
        }
    }
    let encoders = black_box(LINEITEM.to_vec());
    let mut out = Vec::with_capacity(2 * text.len() + 32 * ends.len());
    let mut group = criterion.benchmark_group("row");
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function("lineitem", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut start = 0;
            for fields in ends.chunks_exact(encoders.len()) {
                out.extend_from_slice(&16i16.to_be_bytes());
                for (encoder, &end) in encoders.iter().zip(fields) {
                    assert!(encoder.encode_with_length(&text[start..end], &mut out));
                    start = end;
                }
            }
            black_box(out.len())
        });
    });
}

fn quick() -> Criterion {
    // Passes of 10 to 500 microseconds: a second holds thousands of them.
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = quick(); targets = row, each_type }
criterion_main!(benches);
