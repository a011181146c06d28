//! The server is the oracle of the encoders: whatever they encode must be accepted or refused, and
//! stored, exactly as the same text is.
//!
//! Each case is a column type. Its values (edges, seeded random ones, and near misses made from them
//! by small damage) go through the encoder; those it takes are loaded twice, as a text COPY and as a
//! binary COPY. The two must agree value by value on the stored text, the stored bytes and, where
//! the server refuses, on the SQLSTATE.

mod columns;
mod literals;
mod values;

use bytes::Bytes;
use futures::SinkExt;
use std::pin::pin;
use tokio_postgres::{Client, NoTls};

use crate::support::library::Encoder;
use crate::support::{Database, Server, seeded_with};

/// What became of one value: its text and its bytes in hex, or the SQLSTATE of the refusal.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Stored(String, String),
    Refused(String),
}

#[derive(Clone, Copy)]
enum Format {
    Text,
    Binary,
}

/// A type of column, and what goes into it.
struct Case {
    /// As written in CREATE TABLE.
    column: &'static str,
    encoder: Encoder,
    values: Vec<String>,
}

/// The rows of a COPY whose row `id` is `values[id]`.
fn copy_data(format: Format, encoder: Encoder, values: &[(i32, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    match format {
        Format::Text => {
            for (id, value) in values {
                data.extend_from_slice(format!("{id}\t").as_bytes());
                for byte in value.bytes() {
                    match byte {
                        b'\\' => data.extend_from_slice(b"\\\\"),
                        b'\n' => data.extend_from_slice(b"\\n"),
                        b'\r' => data.extend_from_slice(b"\\r"),
                        b'\t' => data.extend_from_slice(b"\\t"),
                        _ => data.push(byte),
                    }
                }
                data.push(b'\n');
            }
        }
        Format::Binary => {
            data.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
            for (id, value) in values {
                data.extend_from_slice(&2i16.to_be_bytes());
                assert!(Encoder::Int4.encode_with_length(id.to_string().as_bytes(), &mut data));
                assert!(encoder.encode_with_length(value.as_bytes(), &mut data));
            }
            data.extend_from_slice(&(-1i16).to_be_bytes());
        }
    }
    data
}

/// Loads the values in one COPY; the SQLSTATE if the server refuses it.
async fn copy(
    client: &Client,
    format: Format,
    encoder: Encoder,
    values: &[(i32, &str)],
) -> Result<(), String> {
    let statement = match format {
        Format::Text => "COPY pg_temp.target FROM STDIN",
        Format::Binary => "COPY pg_temp.target FROM STDIN (FORMAT binary)",
    };
    let data = Bytes::from(copy_data(format, encoder, values));
    let mut sink = pin!(client.copy_in(statement).await.unwrap());
    sink.send(data).await.unwrap();
    match sink.finish().await {
        Ok(rows) => {
            assert_eq!(rows, values.len() as u64);
            Ok(())
        }
        Err(error) => Err(error
            .code()
            .expect("a refusal of the server")
            .code()
            .to_owned()),
    }
}

/// What becomes of each value, in order: refused ones are found by halving.
async fn fates(
    client: &Client,
    column: &str,
    format: Format,
    case: &Case,
    taken: &[&str],
) -> Vec<Fate> {
    let numbered: Vec<(i32, &str)> = (0..).zip(taken.iter().copied()).collect();
    client
        .batch_execute(&format!(
            "DROP TABLE IF EXISTS pg_temp.target; CREATE TEMP TABLE target (id int, v {column})"
        ))
        .await
        .unwrap();
    let mut fates = vec![None; taken.len()];
    let mut work = vec![&numbered[..]];
    while let Some(part) = work.pop() {
        if let Err(code) = copy(client, format, case.encoder, part).await {
            match part {
                [] => panic!("no rows are refused: {code}"),
                [(id, _)] => fates[*id as usize] = Some(Fate::Refused(code)),
                _ => {
                    let (left, right) = part.split_at(part.len() / 2);
                    work.extend([right, left]);
                }
            }
        }
    }
    let send: String = client
        .query_one(
            "SELECT typsend::regproc::text FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid \
             WHERE attrelid = 'pg_temp.target'::regclass AND attname = 'v'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let query = format!("SELECT id, v::text, encode({send}(v), 'hex') FROM pg_temp.target");
    for row in client.query(&query, &[]).await.unwrap() {
        fates[row.get::<_, i32>(0) as usize] = Some(Fate::Stored(row.get(1), row.get(2)));
    }
    fates
        .into_iter()
        .map(|fate| fate.expect("every value has a fate"))
        .collect()
}

/// Loads what the encoder takes in both formats; the disagreements, and how many were taken.
async fn disagreements(client: &Client, case: &Case) -> (usize, Vec<String>) {
    let mut out = Vec::new();
    let taken: Vec<&str> = case
        .values
        .iter()
        .map(String::as_str)
        .filter(|value| case.encoder.encode(value.as_bytes(), &mut out))
        .collect();
    let text = fates(client, case.column, Format::Text, case, &taken).await;
    let binary = fates(client, case.column, Format::Binary, case, &taken).await;
    // Only these leave a check to the receive function; what else is encoded must be accepted.
    let shares_checks = case.column.contains(['(', '_']) || case.column.starts_with("json");
    let mut found = Vec::new();
    for ((value, text), binary) in taken.iter().zip(&text).zip(&binary) {
        let agreed = match (text, binary) {
            // A character that the server's encoding lacks: text is converted as a whole before
            // anything is looked at, so another fault of the value can come first in binary. Or an
            // error of a SQL_ASCII server that quotes half a character and cannot be sent.
            (Fate::Refused(code), Fate::Refused(_)) if code == "22P05" || code == "22021" => true,
            (Fate::Refused(code), Fate::Refused(other)) => shares_checks && code == other,
            _ => text == binary,
        };
        if !agreed {
            found.push(format!(
                "{} {value:?}: text {text:?}, binary {binary:?}",
                case.column
            ));
        }
    }
    (taken.len(), found)
}

/// The columns of a database in UTF-8, and what is tried in each.
fn cases() -> Vec<Case> {
    use Encoder::*;
    let random = &mut seeded_with("values", 15);
    let mut cases = Vec::new();
    let mut add = |columns: &'static str, encoder, values: &[String]| {
        for column in columns.split_whitespace() {
            cases.push(Case {
                column,
                encoder,
                values: values.to_vec(),
            });
        }
    };
    let booleans = values::booleans(random);
    add("bool", Bool, &booleans);
    let integers = values::integers(random);
    add("int2", Int2, &integers);
    add("int4", Int4, &integers);
    add("int8", Int8, &integers);
    add("oid", Oid, &integers);
    let floats = values::floats(random);
    add("float4", Float4, &floats);
    add("float8", Float8, &floats);
    let numerics = values::numerics(random);
    let columns =
        "numeric numeric(6,2) numeric(15,2) numeric(5,-2) numeric(3,5) numeric(38) dom_numeric";
    add(columns, Numeric, &numerics);
    let dates = values::dates(random);
    add("date", Date, &dates);
    let times = values::times(random);
    add("time time(0) time(3)", Time, &times);
    let timestamps = values::timestamps(random);
    add(
        "timestamp timestamp(0) timestamp(3)",
        Timestamp,
        &timestamps,
    );
    add(
        "timestamptz timestamptz(0) timestamptz(4)",
        TimestampTz,
        &timestamps,
    );
    let strings = values::strings(random);
    let columns = "text varchar varchar(5) char(3) char(1) bpchar dom_varchar en_um";
    add(columns, Text, &strings);
    add("en_um", Text, &values::listed("small|big|Big|big | big|"));
    add("name", Name, &strings);
    add("\"char\"", Char, &strings);
    let jsons = values::jsons(random);
    add("json", Text, &jsons);
    add("jsonb", Jsonb, &jsons);
    let byteas = values::byteas(random);
    add("bytea", Bytea, &byteas);
    let uuids = values::uuids(random);
    add("uuid", Uuid, &uuids);

    let arrays: [(&'static str, u32, &[String]); 21] = [
        ("bool[]", 16, &booleans),
        ("bytea[]", 17, &byteas),
        ("\"char\"[]", 18, &strings),
        ("name[]", 19, &strings),
        ("int8[]", 20, &integers),
        ("int2[]", 21, &integers),
        ("int4[]", 23, &integers),
        ("text[]", 25, &strings),
        ("oid[]", 26, &integers),
        ("json[]", 114, &jsons),
        ("float4[]", 700, &floats),
        ("float8[]", 701, &floats),
        ("char(3)[]", 1042, &strings),
        ("varchar[] varchar(5)[]", 1043, &strings),
        ("date[]", 1082, &dates),
        ("time[] time(0)[]", 1083, &times),
        ("timestamp[] timestamp(0)[]", 1114, &timestamps),
        ("timestamptz[]", 1184, &timestamps),
        ("numeric[] numeric(6,2)[]", 1700, &numerics),
        ("uuid[]", 2950, &uuids),
        ("jsonb[]", 3802, &jsons),
    ];
    for (columns, element, elements) in arrays {
        let scalar = Encoder::for_type(element).unwrap();
        let values = values::arrays(random, scalar, elements);
        add(columns, Array(element), &values);
    }
    cases
}

const TYPES: &str = "CREATE TYPE en_um AS ENUM ('small', 'big');
    CREATE DOMAIN dom_varchar AS varchar(5);
    CREATE DOMAIN dom_numeric AS numeric(6,2) CHECK (VALUE > -100)";

/// Runs the cases on one connection; panics with every disagreement.
async fn check(client: &Client, setting: &str, cases: impl Iterator<Item = &Case>) {
    let mut found = Vec::new();
    for case in cases {
        let (taken, wrong) = disagreements(client, case).await;
        println!(
            "{setting}: {}: {taken} of {} encoded",
            case.column,
            case.values.len()
        );
        found.extend(wrong);
    }
    let shown = &found[..found.len().min(40)];
    assert!(
        found.is_empty(),
        "{setting}: {} disagree: {shown:#?}",
        found.len()
    );
}

/// The tests' own sessions block.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A new connection.
async fn connect(database: &Database) -> Client {
    let mut config = database.server.config().clone();
    let (client, connection) = config.dbname(&database.name).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn binary_stores_and_refuses_exactly_what_text_does() {
    let database = off_the_runtime(Database::new).await;
    let client = connect(&database).await;
    client.batch_execute(TYPES).await.unwrap();
    let cases = cases();
    check(&client, "default", cases.iter()).await;

    // Sessions that read dates, zones and arrays in other ways.
    let sensitive = |case: &&Case| {
        use Encoder::*;
        let scalar = matches!(case.encoder, Date | Time | Timestamp | TimestampTz | Bytea);
        scalar || matches!(case.encoder, Array(_))
    };
    for settings in [
        "SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kolkata'; SET array_nulls = off",
        "SET datestyle = 'German'; SET timezone = 'America/New_York'; SET bytea_output = escape",
        "SET datestyle = 'Postgres, MDY'; SET timezone_abbreviations = 'India'",
    ] {
        let client = connect(&database).await;
        client.batch_execute(settings).await.unwrap();
        check(&client, settings, cases.iter().filter(sensitive)).await;
    }
    off_the_runtime(move || drop(database)).await;
}

#[tokio::test]
async fn a_server_in_another_encoding_stores_the_same() {
    for encoding in ["LATIN1", "EUC_JP", "SQL_ASCII"] {
        let options = format!("ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
        let make = move || Database::made(&Server::shared(), &options);
        let database = off_the_runtime(make).await;
        let other = connect(&database).await;
        other.batch_execute(TYPES).await.unwrap();
        let cases = cases();
        let with_text = |case: &&Case| {
            let element = match case.encoder {
                Encoder::Array(oid) => Encoder::for_type(oid),
                encoder => Some(encoder),
            };
            use Encoder::*;
            matches!(element, Some(Text | Name | Char | Jsonb | Bytea))
        };
        check(&other, encoding, cases.iter().filter(with_text)).await;
        off_the_runtime(move || drop(database)).await;
    }
}

/// An encoder that declines everything would pass the tests above.
#[test]
fn the_common_spellings_are_encoded() {
    use Encoder::*;
    for (encoder, spellings) in [
        (Bool, "t|f|true|FALSE|yes|no|on|off|1|0"),
        (Int2, "0|-32768|+5|007"),
        (Int4, "0|-2147483648|2147483647"),
        (Int8, "-9223372036854775808|9223372036854775807|155190"),
        (Oid, "0|16384|4294967295"),
        (Float4, "1|-0.5|1e10|3.4028235e38|NaN|-Infinity"),
        (Float8, "0.1|1.7976931348623157e+308|.5|5.|-0"),
        (
            Numeric,
            "0|21168.23|0.04|-17|0.00|12345678901234567890.123|NaN",
        ),
        (Date, "1996-03-13|0001-01-01|9999-12-31|2000-02-29|infinity"),
        (Time, "12:34|12:34:56|12:34:56.7|23:59:59.999999"),
        (
            Timestamp,
            "1996-03-13 12:34:56|1996-03-13T12:34:56.123456|1996-03-13",
        ),
        (TimestampTz, "1996-03-13 12:34:56+00|1996-03-13T12:34:56Z"),
        (TimestampTz, "1996-03-13 12:34:56.5-05:30"),
        (Text, "|é|egular courts above the"),
        (Name, "lineitem"),
        (Char, "r"),
        (Jsonb, "{\"a\": [1, 2]}"),
        (Bytea, "\\xdeadbeef|\\x|plain"),
        (
            Uuid,
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|{A0EEBC999C0B4EF8BB6D6BB9BD380A11}",
        ),
        (Array(1114), "{}|{\"1996-03-13 12:34:56\",1996-03-13}"),
    ] {
        for text in values::listed(spellings) {
            let taken = encoder.encode(text.as_bytes(), &mut Vec::new());
            assert!(taken, "{encoder:?} {text}");
        }
    }
}
