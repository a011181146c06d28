//! Random columns with their maps, and inputs for them.

use std::fmt::Write;

use fastrand::Rng;

use crate::support::{Cmd, Database, Files, STRATEGIES};

/// A column: its name and type, fields for it, and expressions that fill it. In these `{v}` is its
/// field, and those that begin with `=` are of another type than text.
struct Kind(
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const KINDS: [Kind; 15] = [
    Kind(
        "n",
        "numeric(6,2)",
        &["1,50", "12", "7.125", "x", "99999", ""],
        &[
            "replace({v}, ',', '.')",
            "=replace({v}, ',', '.')::numeric / 3",
            "=1e3 -- {v} :value",
        ],
    ),
    Kind(
        "d",
        "date",
        &["31/12/2020", "01/02/2021", "31/31/2020", "2020-02-29"],
        &[
            "=to_date({v}, 'DD/MM/YYYY')",
            "split_part({v}, '/', 3) || '-' || split_part({v}, '/', 2) || '-' || split_part({v}, '/', 1)",
        ],
    ),
    Kind(
        "iv",
        "interval hour",
        &["5", "1 day", "soon", "2:30"],
        &["{v}", "={v}::interval"],
    ),
    Kind(
        "tx",
        "text",
        &["a", " b\n\"c\" ", ":value", "", "'\\", "\u{e9}\u{6f22}"],
        &[
            "btrim({v})",
            "{v} || ' :value ' || $$:line$$ || E'\\':record' /* :source /* :no */ */",
            "{src} || '#' || {rec} || '@' || {line}",
            "coalesce({v}, 'none')",
            "='x' || '::' || length({v})::int",
        ],
    ),
    Kind(
        "vc",
        "varchar(4)",
        &["abc", "abcd   ", "abcde", " x"],
        &["{v}", "btrim({v})", "={line} * 50", "nullif({v}, 'abc')"],
    ),
    Kind(
        "ch",
        "char(3)",
        &["ab", "abc", "abcd", ""],
        &["upper({v})", "={v}::char(3)"],
    ),
    Kind(
        "js",
        "jsonb",
        &["{\"a\": 1}", "\"5\"", "[1,\"x\"]", "null"],
        &["{v}", "'[' || {v} || ']'", "=json_build_object('a', {v})"],
    ),
    Kind(
        "jo",
        "json",
        &["{\"b\": 1}", "\"x\"", "7", "true"],
        &["{v}", "=to_json({v} || {v})"],
    ),
    Kind(
        "ar",
        "int[]",
        &["1;2", "", "x", "1"],
        &[
            "'{' || replace({v}, ';', ',') || '}'",
            "=string_to_array({v}, ';')::int[]",
        ],
    ),
    Kind(
        "va",
        "varchar(2)[]",
        &["{a,b}", "{abc}", "{}", "{a"],
        &["{v}", "=ARRAY[{v}, 'x']::varchar[]"],
    ),
    Kind(
        "en",
        "mood",
        &["SAD", "glad", "no", "Glad"],
        &["lower({v})", "=lower({v})::mood"],
    ),
    Kind(
        "dm",
        "positive",
        &["1", "-1", "0", "x"],
        &["{v}", "=abs({v}::int)"],
    ),
    Kind(
        "ct",
        "citext",
        &["a", "B", ""],
        &["{v} || 'X'", "={v}::citext"],
    ),
    Kind(
        "sm",
        "smallint",
        &["1", "70000", " 2 ", "1.5"],
        &["{v}", "={v}::numeric", "={rec}"],
    ),
    Kind(
        "bt",
        "bit(3)",
        &["101", "1", "1010"],
        &["{v}", "lpad({v}, 3, '0')"],
    ),
];

/// A column that is written.
pub struct Fed {
    pub name: String,
    pub ty: String,
    /// Name of its field.
    pub field: String,
    /// The expression, if it has one, and whether that is text.
    pub map: Option<(String, bool)>,
}

/// A record: its source (0-based), its number, its line, and its fields.
pub struct Record(pub usize, pub usize, pub usize, pub Vec<Option<String>>);

pub fn csv_field(field: Option<&str>) -> String {
    field.map_or(String::new(), |field| {
        format!("\"{}\"", field.replace('"', "\"\""))
    })
}

pub fn csv_line(fields: &[Option<String>]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|field| csv_field(field.as_deref()))
        .collect();
    fields.join(",") + "\n"
}

/// What is loaded, and how.
pub struct Plan {
    pub feeds: Vec<Fed>,
    pub records: Vec<Record>,
    pub paths: Vec<String>,
    pub flags: String,
    pub keyed: bool,
}

fn random_feeds(rng: &mut Rng) -> Vec<Fed> {
    let id_map = [
        None,
        Some(("ltrim({v}, 'k')", true)),
        Some(("ltrim({v}, 'k')::int + 0", false)),
    ];
    let mut feeds = vec![Fed {
        name: "id".to_owned(),
        ty: "int".to_owned(),
        field: ["id", "The \"Id\""][rng.usize(..2)].to_owned(),
        map: id_map[rng.usize(..3)].map(|(map, text)| (map.to_owned(), text)),
    }];
    for Kind(name, ty, _, maps) in &KINDS {
        if rng.u8(..3) == 0 {
            let map = (rng.u8(..4) > 0).then(|| maps[rng.usize(..maps.len())]);
            feeds.push(Fed {
                name: (*name).to_owned(),
                ty: (*ty).to_owned(),
                field: [
                    name.to_string(),
                    name.to_uppercase(),
                    format!("The \"{name}\""),
                ][rng.usize(..3)]
                .clone(),
                map: map.map(|map| match map.strip_prefix('=') {
                    Some(map) => (map.to_owned(), false),
                    None => (map.to_owned(), true),
                }),
            });
        }
    }
    // A field that no expression uses needs the name of its column.
    for feed in &mut feeds {
        let is_used = feed
            .map
            .as_ref()
            .is_some_and(|(map, _)| map.split("--").next().unwrap().contains("{v}"));
        if !is_used && feed.field.contains('"') {
            feed.field.clone_from(&feed.name);
        }
    }
    rng.shuffle(&mut feeds);
    feeds
}

fn random_records(rng: &mut Rng, feeds: &[Fed], ndjson: bool, header: bool) -> Vec<Record> {
    let mut records = Vec::new();
    for source in 0..rng.usize(1..3) {
        let mut line = 1 + usize::from(header && !ndjson);
        for number in 1..=rng.usize(..60) {
            let fields: Vec<Option<String>> = feeds
                .iter()
                .map(|feed| {
                    if feed.name == "id" {
                        let prefix = ["", "k"][usize::from(feed.map.is_some())];
                        return Some(format!("{prefix}{}", rng.u8(..40)));
                    }
                    let Kind(.., fields, _) =
                        KINDS.iter().find(|kind| kind.0 == feed.name).unwrap();
                    // The first ones are good.
                    let most = [1, 2, fields.len()][rng.usize(..3)];
                    (rng.u8(..8) > 0).then(|| fields[rng.usize(..most)].to_owned())
                })
                .collect();
            let lines = csv_line(&fields).matches('\n').count();
            records.push(Record(source, number, line, fields));
            line += if ndjson { 1 } else { lines };
        }
    }
    records
}

/// A field as a member of an object: JSON where its column takes that by its name.
fn json_line(feeds: &[Fed], record: &Record) -> String {
    let members = feeds.iter().zip(&record.3).filter_map(|(feed, field)| {
        let field = field.as_ref()?;
        let stays = ["js", "jo"].contains(&feed.name.as_str())
            && feed.field.eq_ignore_ascii_case(&feed.name);
        let value = if stays {
            field.clone()
        } else {
            serde_json::json!(field).to_string()
        };
        Some(format!("{}: {value}", serde_json::json!(feed.field)))
    });
    format!("{{{}}}\n", members.collect::<Vec<_>>().join(", "))
}

pub fn random_plan(rng: &mut Rng, files: &Files) -> Plan {
    let feeds = random_feeds(rng);
    let ndjson = rng.u8(..3) == 0;
    let names: Vec<String> = feeds
        .iter()
        .map(|feed| csv_field(Some(&feed.field)))
        .collect();
    let header = rng.bool();
    let mut records = random_records(rng, &feeds, ndjson, header);
    if ndjson {
        // JSON has its own null, and is itself no empty text.
        for (feed, at) in feeds.iter().zip(0..) {
            if ["js", "jo"].contains(&feed.name.as_str()) {
                for Record(.., fields) in &mut records {
                    fields[at] = fields[at].take().filter(|field| field != "null");
                }
            }
        }
    }
    let paths = (0..2).filter_map(|source| {
        let mut text = String::new();
        if !ndjson && header {
            writeln!(text, "{}", names.join(",")).unwrap();
        }
        let mut own = records
            .iter()
            .filter(|record| record.0 == source)
            .peekable();
        if source == 1 {
            own.peek()?;
        }
        for record in own {
            text += &if ndjson {
                json_line(&feeds, record)
            } else {
                csv_line(&record.3)
            };
        }
        let name = format!("it's {source}\\.{}", if ndjson { "ndjson" } else { "csv" });
        Some(files.write(&name, text))
    });
    let paths: Vec<String> = paths.collect();
    let mode = ["append", "upsert", "replace", "sync"][rng.usize(..4)];
    let mut flags = format!(
        "--mode {mode} --strategy {} --batch-rows {}",
        STRATEGIES[rng.usize(..5)],
        ["1", "7", "1000"][rng.usize(..3)]
    );
    flags += [" -j 1", " -j 3", " --commit load"][rng.usize(..3)];
    if !ndjson && !header {
        flags += " --no-header";
    }
    Plan {
        feeds,
        records,
        paths,
        flags,
        keyed: mode != "append",
    }
}

impl Plan {
    pub fn load(&self, rng: &mut Rng, database: &Database, table: &str) -> Cmd {
        let mut load = database
            .load_once(table)
            .args(&self.paths)
            .flags(&self.flags)
            .flags("--progress none");
        if self.flags.contains("--no-header") {
            let names: Vec<String> = self
                .feeds
                .iter()
                .map(|feed| csv_field(Some(&feed.field)))
                .collect();
            load = load.args(["--columns", &names.join(",")]);
        }
        for feed in &self.feeds {
            let Some((map, _)) = &feed.map else { continue };
            let quoted = format!(":field({})", csv_field(Some(&feed.field)));
            let by_name = feed.field.eq_ignore_ascii_case(&feed.name) && rng.bool();
            let value = if by_name { ":value" } else { &quoted };
            let map = map
                .replace("{v}", value)
                .replace("{src}", ":source")
                .replace("{rec}", ":record")
                .replace("{line}", ":line");
            load = load.args(["--map", &format!("{} = {map}", feed.name)]);
        }
        load
    }
}
