//! psql's `\copy` of a single value is the oracle of every rung: what it stores, the rung stores; what
//! it refuses, the rung rejects. `make torture` tries it on every type that the server has, `make test`
//! on a sample of them.

use std::fmt::Write;
use std::sync::Arc;

use fastrand::Rng;

use super::columns::{self, Kind, Wrap};
use super::values;
use crate::support::{Database, Files, Ran, Server, seeded, seeded_with, tally, text, times};

/// What a rung adds to `load`.
const RUNGS: [&str; 8] = [
    "--strategy insert --commit row",
    "--strategy insert",
    "--strategy pipeline --batch-rows 9",
    "--strategy multi-insert",
    "--strategy unnest",
    "--strategy copy",
    "--strategy copy --copy-format binary --batch-rows 50",
    "--strategy copy --copy-format text",
];

/// Columns of each state, spellings for each, and those of them that are bad: the first number in
/// `make test`, the second in `make torture`.
const COLUMNS: (usize, usize) = (4, 100);
const VALUES: (usize, usize) = (60, 400);
const REFUSED: (usize, usize) = (12, 25);

/// Odd spellings of everything; most are wrong for most types.
const SPELLINGS: &str = "| |5| 5 |-5|+7|05|1|0|2147483648|1e-16384|1e-5|1.5|-0.005|99999.995|1e400|0x1F|1_000|NaN|-Infinity|inf\
|t|true|of| off |null|NULL|\\N|\\.|\\|\\x4142|\\x4|\\101|a\\\\b|abc|abc  |abcd    |abcdefgh  |abcdefghijkl|a\tb|a\nb|é|ééé|日本|€|x'|\"x\"\
|1 year|1 year 2 months 3 days 4:05:06.789|1-2|5-|-1-2|3 4:05:06|4:05|4:05:06.56789|P1Y2M3DT4H5M6.7S|P0005-02-03|@ 5 minutes ago|5 ago|1.5 months|12.345678|999999999999 years|infinity|-infinity\
|2024-01-02|01/02/2024|02.01.2024|2024-13-01|January 8, 1999|2024-02-29 23:59:59.9999999|2024-01-02T03:04:05Z|2024-01-02 03:04:05+05:30|1999-01-08 04:05:06 PST|epoch|23:59:60|24:00:00|04:05:06.789-8|20240102|J2451187|0044-03-15 BC\
|101|1|B101|x1F|00000000|10100101|102|$1,234.56|-$5|($5.005)|12.3456|{1,2}|{1.5,NULL}|{\"a b\",c}|{{1},{2}}|[0:1]={5,6}|{5}|{}|{,}|1 2 3|( 1 , 2 )|(1,2)|(1,2),(3,4)|<(1,2),3>|((0,0),(1,1))|[(0,0),(1,1)]|{1,2,3}\
|[1,5)|(,5]|empty|{[1,3),[5,7)}|{}|[2024-01-01,2024-02-01)|[a,b]|(5,1.005)|(\"5\",1e-16384)|(5,)|(5,\"{1.005,1e-16384}\")\
|{\"a\": 1, \"a\": 2}|[1, 2]|\"s\"|nul|<a>b</a>|<a>|a=>1|\"a\"=>NULL|a.b.c|a..b|a,b|~ 5 .. 6|1~5|978-0-393-04002-9|0393040029\
|192.168.0.1|192.168.0.1/24|192.168.0/24|::1/128|10|08:00:2b:01:02:03|08002b:010203|08-00-2b-01-02-03-04-05|16/B374D848|10:20:10,14,15|(0,1)|(42,7)|a:1A fat:2,4B|fat & (rat | !cat)|fat <->|$.a[*] ? (@ > 1)|$.\
|pg_class|pg_catalog.pg_class|\"pg_class\"|1259|abs|abs(integer)|+|*(integer,integer)|int4|timestamp(3)|interval year|english|simple|public|postgres|postgres=r/postgres|C|nosuch|-\
|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|{a0eebc999c0b4ef8bb6d6bb9bd380a11}|sad|ok|Ok| ok ";

/// These, longer ones, and some that are nearly right.
fn spellings(random: &mut Rng) -> Vec<String> {
    let mut all = values::listed(SPELLINGS);
    all.push(format!("0.{}1", "0".repeat(16_383)));
    all.push(format!("{}é", "n".repeat(62)));
    all.push("7".repeat(200));
    for damaged in [
        values::timestamps(random),
        values::numerics(random),
        values::strings(random),
    ] {
        all.extend((0..times(4, 60)).map(|_| damaged[random.usize(..damaged.len())].clone()));
    }
    // Names for the day on which they are read.
    let fleeting = |value: &String| {
        let names = ["now", "today", "tomorrow", "yesterday"];
        names.iter().any(|name| value.to_lowercase().contains(name))
    };
    all.retain(|value| !fleeting(value));
    all.sort();
    all.dedup();
    all
}

/// Array literals of these elements, and the elements as they are, which are none.
fn arrays(random: &mut Rng, elements: &[String]) -> Vec<String> {
    let mut all = elements.to_vec();
    for element in elements.iter().filter(|element| element.len() < 1_000) {
        let quoted = element.replace('\\', "\\\\").replace('"', "\\\"");
        all.push(format!("{{\"{quoted}\"}}"));
        if random.u8(..4) == 0 {
            all.push(format!("{{{element}}}"));
            all.push(format!("{{\"{quoted}\",NULL,\"{quoted}\"}}"));
            all.push(format!("[2:2][1:1]={{{{\"{quoted}\"}}}}"));
        }
    }
    all
}

/// A database in one state, whose `\copy` and whose rungs are compared.
struct Oracle {
    database: Arc<Database>,
    files: Files,
    /// For messages.
    state: String,
    random: Rng,
    tried: usize,
    wrong: Vec<String>,
}

impl Oracle {
    fn new(options: &str, settings: &str, random: Rng) -> (Self, Vec<Kind>) {
        let database = Database::made(&Server::shared(), options);
        let kinds = columns::make(&database);
        for setting in settings.split(';').filter(|setting| !setting.is_empty()) {
            database.run(&format!("ALTER DATABASE {} SET {setting}", database.name));
        }
        let oracle = Oracle {
            database,
            files: Files::new(),
            state: format!("{options} {settings}").trim().to_owned(),
            random,
            tried: 0,
            wrong: Vec::new(),
        };
        (oracle, kinds)
    }

    /// Compares what becomes of the values in a column of this kind.
    fn compare(&mut self, kind: &Kind, values: &[String]) {
        self.database.run("DROP TABLE IF EXISTS want, got");
        let sql = kind.create(&self.database);
        self.database.run(&format!(
            "CREATE TABLE want (id int, v {sql}); CREATE TABLE got (id int, v {sql})"
        ));
        let name = format!("{} {:?} of {}", self.state, kind.wrap, kind.sql);
        let script = self.files.write("copies", copies(values));
        self.database.psql().flags("-f").arg(&script).run().exits(0);
        let tried = self.worth_trying(values.len());
        // The first row is good whatever the type: a load whose first rows are all bad stops.
        let mut csv = String::from("-1,\n");
        for id in &tried {
            writeln!(csv, "{id},\"{}\"", values[*id].replace('"', "\"\"")).unwrap();
        }
        let file = self.files.write("values.csv", csv);
        for rung in RUNGS {
            self.database.run("TRUNCATE got");
            let ran = self.load(&file, rung);
            if ran.code == Some(2) && rung.contains("binary") {
                ran.says(&["no binary encoder"]);
                continue;
            }
            self.tried += tried.len();
            if !ran.finished() {
                self.wrong.push(format!("{name} {rung}: {ran}"));
                continue;
            }
            for id in self.differences() {
                let value = &values[id];
                let shown = &value[..value.floor_char_boundary(60)];
                let [want, got] = ["want", "got"].map(|table| {
                    let sql = format!("SELECT format('%s', v) FROM {table} WHERE id = {id}");
                    let shown = self.database.lines(&sql).pop();
                    shown.map_or("refused".to_owned(), |text| text.chars().take(60).collect())
                });
                self.wrong.push(format!(
                    "{name} {rung}: {shown:?} is {got}, by \\copy {want}"
                ));
            }
        }
    }

    /// What psql stored, and some of what it refused: a bad row takes far longer than a good one.
    fn worth_trying(&mut self, values: usize) -> Vec<usize> {
        let stored = self.database.lines("SELECT id FROM want ORDER BY id");
        let mut ids: Vec<usize> = stored.iter().map(|id| id.parse().unwrap()).collect();
        let mut refused: Vec<usize> = (0..values).filter(|id| !ids.contains(id)).collect();
        self.random.shuffle(&mut refused);
        refused.truncate(times(REFUSED.0, REFUSED.1));
        ids.extend(refused);
        self.random.shuffle(&mut ids);
        ids
    }

    fn load(&self, file: &str, rung: &str) -> Ran {
        let load = self.database.load_once("got").arg(file);
        let load = load.flags("--no-header --null= --no-ledger -j 1 --rejects");
        load.arg(text(&self.files.path("rejects")))
            .flags(rung)
            .run()
    }

    /// The values whose rows differ.
    fn differences(&self) -> Vec<usize> {
        let differ = |bytes: &str| {
            let row = format!("id, format('%s', v), v IS NULL, {bytes}");
            let sql = format!(
                "SELECT DISTINCT id FROM
                     ((SELECT {row} FROM want EXCEPT ALL SELECT {row} FROM got WHERE id >= 0)
                      UNION ALL (SELECT {row} FROM got WHERE id >= 0 EXCEPT ALL SELECT {row} FROM want)) AS d
                 ORDER BY id"
            );
            self.database.session().try_lines(&sql)
        };
        let send = self.database.one(
            "SELECT typsend FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid
             WHERE attrelid = 'want'::regclass AND attname = 'v'",
        );
        let found = match send.as_str() {
            "-" => differ("0"),
            // An array has one where its elements may have none.
            send => differ(&format!("{send}(v)")).or_else(|_| differ("0")),
        };
        let lines = found.unwrap().into_iter();
        lines.map(|id| id.parse().unwrap()).collect()
    }
}

/// A script of psql with a `\copy` for each value.
fn copies(values: &[String]) -> String {
    let mut script = String::from("\\set ON_ERROR_STOP 0\n");
    for (id, value) in values.iter().enumerate() {
        let escaped = value
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace('\r', "\\r")
            .replace('\t', "\\t");
        write!(script, "\\copy want from stdin\n{id}\t{escaped}\n\\.\n").unwrap();
    }
    script
}

/// States of a database: options to create it, settings of its sessions.
const STATES: [(&str, &str); 6] = [
    ("", ""),
    ("", "DateStyle = 'SQL, DMY';IntervalStyle = sql_standard"),
    (
        "",
        "DateStyle = 'German';IntervalStyle = iso_8601;array_nulls = off",
    ),
    (
        "",
        "DateStyle = 'Postgres, YMD';IntervalStyle = postgres_verbose;xmloption = document",
    ),
    ("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", ""),
    (
        "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
        "IntervalStyle = sql_standard",
    ),
];

#[test]
fn every_rung_stores_and_refuses_what_psql_does() {
    let mut random = seeded("literals");
    let mut wrong = Vec::new();
    for (options, settings) in STATES {
        let (mut oracle, mut kinds) = Oracle::new(options, settings, random.fork());
        let mut spellings = spellings(&mut random);
        let (columns, values) = match options.is_empty() && settings.is_empty() {
            // All of them once.
            true => ((COLUMNS.0, kinds.len()), (VALUES.0, VALUES.0)),
            false => (COLUMNS, VALUES),
        };
        random.shuffle(&mut kinds);
        kinds.truncate(times(columns.0, columns.1));
        random.shuffle(&mut spellings);
        spellings.truncate(times(values.0, values.1));
        for kind in &kinds {
            oracle.compare(kind, &literals(&mut random, kind, &spellings));
        }
        tally::literals(oracle.tried, oracle.wrong.len());
        println!("{}: {} literals", oracle.state, oracle.tried);
        wrong.extend(oracle.wrong);
    }
    none(wrong);
}

/// What an INSERT reads otherwise than COPY, unless it is told: the modifier takes part in the input,
/// or the cast from text is not the type's input function.
#[test]
fn modifiers_and_casts_change_nothing_in_any_rung() {
    let spellings = [
        "5", "-5", "1-2", "4:05", "", "1e-16384", "pg_class", "1259", "sad", "9.1.1.1", "abcd",
        "[1]",
    ];
    let spellings = spellings.map(str::to_owned);
    let random = &mut seeded_with("modifiers", 6);
    let (mut oracle, kinds) = Oracle::new("", "", random.fork());
    for sql in [
        "interval year",
        "interval month[]",
        "interval hour to minute",
        "numeric(7,2)",
        "regclass",
        "mood",
        "integer[]",
        "inet",
        "code(3)",
        "email",
        "jsonb",
        "bill",
    ] {
        let kind = Kind::named(sql);
        assert!(kinds.contains(&kind), "{sql}");
        oracle.compare(&kind, &literals(random, &kind, &spellings));
    }
    for wrap in [Wrap::Domain, Wrap::ArrayOfDomain] {
        for sql in ["interval day", "numeric(7,2)"] {
            let kind = kinds
                .iter()
                .find(|kind| kind.wrap == wrap && kind.sql == sql);
            let kind = kind.unwrap();
            oracle.compare(kind, &literals(random, kind, &spellings));
        }
    }
    none(oracle.wrong);
}

/// Rows with and without binary forms go into one statement, where a statement takes many: as
/// refused rows they would be found one by one.
#[test]
fn an_odd_value_among_plain_ones_costs_no_second_statement() {
    let database = Database::with(
        "CREATE TABLE t (id int, price numeric(7,2));
         CREATE TABLE statements (at int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN INSERT INTO statements VALUES (1); RETURN NULL; END';
         CREATE TRIGGER note AFTER INSERT ON t EXECUTE FUNCTION note()",
    );
    let files = Files::new();
    let file = files.write("rows.csv", "1,1.5\n2,1e-16384\n3,\n4,15e-1\n");
    for strategy in ["multi-insert", "unnest"] {
        database.run("TRUNCATE t, statements");
        let load = database
            .load_once("t")
            .arg(&file)
            .args(["--strategy", strategy]);
        load.flags("--no-header --no-ledger").run().exits(0);
        assert_eq!(database.rows("t"), ["1|1.50", "2|0.00", "3|~", "4|1.50"]);
        assert_eq!(database.count("statements"), 1, "{strategy}");
    }
}

/// The spellings as the column takes them.
fn literals(random: &mut Rng, kind: &Kind, spellings: &[String]) -> Vec<String> {
    match kind.is_array {
        true => arrays(random, spellings),
        false => spellings.to_vec(),
    }
}

#[track_caller]
fn none(mut wrong: Vec<String>) {
    let found = wrong.len();
    wrong.truncate(40);
    assert!(
        wrong.is_empty(),
        "{found} otherwise than by psql: {wrong:#?}"
    );
}
