//! Field values to try on the server: edges, seeded random ones, and near misses made from both by
//! small damage. The same seed gives the same values.

use crate::support::library::Encoder;
use fastrand::Rng;
use std::collections::BTreeSet;

/// The seeds, and values a few characters away from each of them.
fn with_near_misses(
    random: &mut Rng,
    seeds: Vec<String>,
    alphabet: &str,
    each: usize,
) -> Vec<String> {
    let alphabet: Vec<char> = alphabet.chars().collect();
    let mut values: BTreeSet<String> = BTreeSet::new();
    for seed in &seeds {
        for _ in 0..each {
            let mut near: Vec<char> = seed.chars().collect();
            for _ in 0..random.usize(1..3) {
                let at = random.usize(0..=near.len());
                let other = alphabet[random.usize(0..alphabet.len())];
                match random.u8(0..4) {
                    0 => near.insert(at, other),
                    1 if at < near.len() => drop(near.remove(at)),
                    2 if at + 1 < near.len() => near.swap(at, at + 1),
                    _ if at < near.len() => near[at] = other,
                    _ => near.push(other),
                }
            }
            values.insert(near.into_iter().collect());
        }
    }
    values.extend(seeds);
    values.into_iter().collect()
}

/// The values of a list that bars separate; the first of them may be empty.
pub fn listed(values: &str) -> Vec<String> {
    values.split('|').map(str::to_owned).collect()
}

fn some<T>(count: usize, mut make: impl FnMut() -> T) -> Vec<T> {
    (0..count).map(|_| make()).collect()
}

const DIGITS: &str = "0123456789+-. _eExX,";

pub fn booleans(random: &mut Rng) -> Vec<String> {
    let seeds = listed(
        "t|true|TRUE|tr|tru|f|false|fals|y|yes|YES|n|no|on|ON|off|of|o|1|0|2|| t|t |truer|00|\
         oN",
    );
    with_near_misses(random, seeds, "trueyesonfalse10 TFYN", 20)
}

pub fn integers(random: &mut Rng) -> Vec<String> {
    let mut seeds = listed(
        "|0|-0|+0|7|+7|-7|007|-007|010|0x1F|0b1|0o7|1_000|1.0|1e3| 1|1 |--1|+-1|-|+|32767|\
         32768|-32768|-32769|65535|2147483647|2147483648|-2147483648|-2147483649|4294967295|\
         4294967296|-4294967295|9223372036854775807|9223372036854775808|-9223372036854775808|\
         -9223372036854775809|18446744073709551616|9999999999999999999|\
         00000000000000000000001|99999999|100000000|9999999999999999|10000000000000000",
    );
    seeds.extend(some(150, || {
        (random.i64(..) >> random.u8(0..64)).to_string()
    }));
    with_near_misses(random, seeds, DIGITS, 6)
}

pub fn floats(random: &mut Rng) -> Vec<String> {
    let mut seeds = listed(
        "|0|-0|-0.0|+1|1.|.5|-.5|.|1e5|1E5|1e+5|1e-5|1e|e5|NaN|nan|-NaN|NAN|Infinity|\
         -Infinity|+Infinity|inf|-inf|INF|infinity|0x1p3|0x10|1_0| 1|1 |3.4028235e38|\
         3.4028236e38|3.5e38|1.17549435e-38|1.1754942e-38|1e-45|7e-46|1e-46|0e-999|0e999|\
         0.000e99999999999|1e99999999999999999999|1.7976931348623157e308|\
         1.7976931348623159e308|2.2250738585072014e-308|2.2250738585072011e-308|5e-324|\
         2e-324|1e400|1e-400|0.1|0.3|16777217|16777217.0000001|9007199254740993|\
         9007199254740992.999999999999999999999|\
         1.00000017881393421514957253748434595763683319091796875001|\
         1.00000005960464477539062500000000000000000000000001|8388608.5|8388609.5",
    );
    seeds.extend(some(120, || f64::from_bits(random.u64(..)).to_string()));
    seeds.extend(some(120, || {
        format!("{:e}", f64::from_bits(random.u64(..)))
    }));
    seeds.extend(some(120, || f32::from_bits(random.u32(..)).to_string()));
    seeds.extend(some(120, || {
        format!("{:.*}", random.usize(0..20), random.f64() * 1e6)
    }));
    // Halfway between two neighbours of float4: rounding by way of float8 would go wrong.
    seeds.extend(some(60, || {
        let low = f32::from_bits(random.u32(0x3000_0000..0x4f00_0000));
        let high = f32::from_bits(low.to_bits() + 1);
        format!(
            "{:.60}{}",
            (f64::from(low) + f64::from(high)) / 2.0,
            random.u8(0..3)
        )
    }));
    with_near_misses(random, seeds, DIGITS, 2)
}

pub fn numerics(random: &mut Rng) -> Vec<String> {
    let mut seeds = listed(
        "|0|-0|0.00|-0.00|+0|.|-|1.|.5|-.5|+.5|1..2|1.2.3|NaN|nan|-NaN|Infinity|-Infinity|\
         inf|1e5|1E-5|0x1f|1_000|1 | 1|21168.23|0.04|17|36901.00|9999.99|9999.994|9999.995|\
         -9999.995|9999.9949999999|0.005|0.004|-0.005|0.0049999999999999999|1.005|2.675|\
         99999|99949|99950|9999949|9999950|149|150|50|49|-50|10000|9999|100000000|0.0001|\
         0.00001|0.00000001|1000000000000|9999999999999999|10000000000000000|\
         99999999999999999999.99|0000000000000000000000012.50|12.5000000000000000000000|\
         0.00000000000000000000|1234567890123456|123456789012345.6|1.234567890123456|\
         12345678.9|1234567.89|123456789.|.12345678|.123456789|-12345678.12345678|\
         99999999.99999999",
    );
    for digits in [18, 19, 20, 100, 999, 1000, 1001] {
        seeds.push("7".repeat(digits));
        seeds.push(format!("0.{}", "7".repeat(digits)));
        seeds.push(format!("{0}.{0}", "7".repeat(digits)));
        seeds.push(format!("{0}1{0}.{0}1{0}", "0".repeat(digits)));
    }
    seeds.extend(some(500, || {
        let mut part = |most: usize| -> String {
            (0..random.usize(0..most))
                .map(|_| *random.choice(b"0001234999").unwrap() as char)
                .collect()
        };
        let (whole, fraction) = (part(13), part(11));
        let sign = ["", "", "-", "+"][random.usize(0..4)];
        let point = if fraction.is_empty() && random.bool() {
            ""
        } else {
            "."
        };
        format!("{sign}{whole}{point}{fraction}")
    }));
    seeds.extend(some(300, || {
        let scale = random.usize(0..7);
        format!(
            "{:.scale$}",
            (random.f64() - 0.5) * 10f64.powi(random.i32(0..8))
        )
    }));
    with_near_misses(random, seeds, DIGITS, 2)
}

const CLOCK: &str = "0123456789-:. +TZz/,";

fn iso_date(random: &mut Rng) -> String {
    let year = if random.bool() {
        random.u32(1..10_000)
    } else {
        random.u32(1890..2110)
    };
    format!(
        "{year:04}-{:02}-{:02}",
        random.u32(1..13),
        random.u32(1..32)
    )
}

/// Mostly a time of day; a few are past the last hour, minute or digit.
fn clock(random: &mut Rng) -> String {
    let over = random.u32(0..8) / 7;
    let (hour, minute) = (random.u32(0..24 + over), random.u32(0..60 + over));
    let minutes = format!("{hour:02}:{minute:02}");
    let seconds = format!("{minutes}:{:02}", random.u32(0..60 + over));
    match random.u8(0..4) {
        0 => minutes,
        1 => seconds,
        _ => {
            let digits = random.usize(1..7 + over as usize);
            let fraction: String = some(digits, || *random.choice(b"0459123").unwrap() as char)
                .into_iter()
                .collect();
            format!("{seconds}.{fraction}")
        }
    }
}

pub fn dates(random: &mut Rng) -> Vec<String> {
    let mut seeds = listed(
        "|infinity|-infinity|Infinity|+infinity|epoch|today|now|0001-01-01|0000-01-01|\
         9999-12-31|10000-01-01|2000-02-29|1900-02-29|2023-02-29|2024-02-29|2024-02-30|\
         2024-04-31|2024-13-01|2024-00-10|2024-01-00|01-02-2024|02/01/2024|2024/01/02|\
         2024.01.02|20240102|24-01-02|0044-03-15 BC|2024-01-02 BC|J2451187|2024-001|2024-1-2|\
         2024-01-02T00:00:00|2024-01-02 | 2024-01-02|0099-12-31|0012-11-10|0031-12-01",
    );
    seeds.extend(some(200, || iso_date(random)));
    with_near_misses(random, seeds, CLOCK, 4)
}

pub fn times(random: &mut Rng) -> Vec<String> {
    let mut seeds = listed(
        "|00:00|00:00:00|23:59:59.999999|23:59:59.9999999|23:59:59.9995|23:59:59.9994|\
         24:00:00|24:00:00.000001|24:00|23:59:60|23:59:60.5|12:60|allballs|1:2:3|01:02.5|\
         010203|0102|04:05 PM|12:00:00+02|12:00:00.|12:00:00.0005|12:00:00.0015|\
         12:00:00.4995|12:00:00Z|T12:00:00",
    );
    seeds.extend(some(200, || clock(random)));
    with_near_misses(random, seeds, CLOCK, 4)
}

pub fn timestamps(random: &mut Rng) -> Vec<String> {
    let mut seeds = dates(random);
    seeds.truncate(150);
    seeds.extend(listed(
        "infinity|-infinity|2024-01-02|2024-01-02T03:04|2024-01-02T03:04:05|\
         2024-01-02 03:04:05|2024-01-02 03:04:05.5|2024-01-02 03:04:05.123456|\
         2024-01-02 23:59:59.5|2024-12-31 23:59:59.999999|2024-01-02 03:04:05.1234565|\
         2024-01-02 24:00:00|2024-01-02t03:04:05|2024-01-02  03:04:05|2024-01-02T|\
         2024-01-02 03:04:05 BC|9999-12-31 23:59:59.999999|0001-01-01 00:00:00|\
         2024-01-02_03:04:05|2024-01-02 03:04:05 AM|1999-12-31 23:59:59.999999|\
         1999-12-31 23:59:59.5|1999-12-31 23:59:58.5|2024-03-31 02:30:00",
    ));
    let usual = listed("|||Z|+00|-00|+02|-05|+02:00|+0530|-03:30|+15:59|-15:59");
    let zones = listed(
        "|Z|z|+14|+15|+16|-16|+02:60|+2|+02:00:00|+020000| +02| Z|UTC| UTC| Europe/Paris|+|+24:00",
    );
    seeds.extend(some(600, || {
        let separator = if random.bool() { 'T' } else { ' ' };
        let zones = if random.u8(0..5) == 0 { &zones } else { &usual };
        let zone = &zones[random.usize(0..zones.len())];
        format!("{}{separator}{}{zone}", iso_date(random), clock(random))
    }));
    for zone in zones.iter().chain(&usual) {
        seeds.push(format!("2024-07-01 12:00:00{zone}"));
        seeds.push(format!("0001-01-01T12:00{zone}"));
    }
    with_near_misses(random, seeds, CLOCK, 2)
}

pub fn strings(random: &mut Rng) -> Vec<String> {
    let mut seeds = listed(
        "| |a|ab|abc|abcd|abcde|abcdef|abcde |abcde    |abc  |     |      | abcd|abc\t|\
         abcde\t|é|ééééé|éééééé|日本語|日本語テキ|日本語テキス|\\|\\N|\\.|a\\b|a\tb|a\nb|a\r\nb|NULL|null|\
         \"|'|\u{feff}|\u{1}|\u{7f}|😀|{}|€|Ÿ",
    );
    seeds.extend(some(100, || "x".repeat(random.usize(0..70))));
    // Around the 63 bytes of a name.
    for len in 62..66 {
        seeds.push("n".repeat(len));
        seeds.push(format!("{}é", "n".repeat(len - 2)));
    }
    with_near_misses(random, seeds, "ab cé日\\\t\n\"'{}", 3)
}

pub fn jsons(random: &mut Rng) -> Vec<String> {
    let seeds = listed(
        "|null|true|1|1.50|-0|1e400|1e5|\"a\"|\"é\"|\"\\u00e9\"|\"\\u0000\"|\
         \"\\ud83d\\ude00\"|\"\\ud83d\"|[]|{}|[1, 2,3]|[1,]|{a:1}|{\"a\": 1, \"a\": 2}|\
         {\"b\":{\"c\":[true,null]},\"a\" : \"x\"}|  [1]  |nul|NaN|'a'|\"a\nb\"|\"a\\nb\"|\
         [1}|{\"a\"}|01|1 2|\"日本\"",
    );
    with_near_misses(random, seeds, "{}[]\",:\\u01eE- tnab\n", 25)
}

pub fn byteas(random: &mut Rng) -> Vec<String> {
    let mut seeds = listed(
        "|\\x|\\x00|\\xDEADbeef|\\x0|\\x0g|\\x 00|\\x00 11|\\X00|abc|x00|a\\\\b|a\\000|a\\|\
         \\|\\\\x00|é|\\xé|line\nbreak|\u{1}",
    );
    seeds.extend(some(60, || {
        format!(
            "\\x{:0width$x}",
            random.u64(..),
            width = random.usize(1..40)
        )
    }));
    with_near_misses(random, seeds, "0123456789abcdefABCDEFx\\ gé\n", 6)
}

pub fn uuids(random: &mut Rng) -> Vec<String> {
    let mut seeds = listed(
        "|{}|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff|\
         A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11|{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}|\
         a0eebc999c0b4ef8bb6d6bb9bd380a11|a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11|\
         {a0eebc999c0b4ef8bb6d6bb9bd380a11}|a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11|\
         {a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
    );
    seeds.extend(some(60, || {
        let hex = format!("{:032x}", random.u128(..));
        [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-")
    }));
    with_near_misses(random, seeds, "0123456789abcdefABCDEF-{} g", 6)
}

/// Array literals of these elements, as the server would write them and with less care.
pub fn arrays(random: &mut Rng, element: Encoder, elements: &[String]) -> Vec<String> {
    let good: Vec<&String> = elements
        .iter()
        .filter(|item| element.encode(item.as_bytes(), &mut Vec::new()))
        .collect();
    let mut seeds = listed("{}||{|{NULL}|{null}|{\"\"}|{{}}|[1:1]={1}|{,}");
    seeds.extend(some(400, || {
        let items: Vec<String> = some(random.usize(1..5), || {
            let item = match random.u8(0..20) {
                0 => &elements[random.usize(0..elements.len())],
                _ => good[random.usize(0..good.len())],
            };
            match random.u8(0..40) {
                0 => "NULL".to_owned(),
                1 => format!(" {item} "),
                2..20 => item.clone(),
                _ => format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\"")),
            }
        });
        format!("{{{}}}", items.join(","))
    }));
    with_near_misses(random, seeds, "{},\"\\ nul1", 1)
}
