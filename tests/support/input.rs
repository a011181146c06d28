//! Inputs in which each row has a unique id, a payload and a planned fate.

/// What is planned to become of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is stored.
    Good,
    /// It is put aside.
    Bad(Kind),
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    NoNumber,
    OutOfRange,
    Null,
    Check,
    NoDate,
    TooLong,
    NoParent,
    Trigger,
    BadUtf8,
    NulByte,
    TooFewFields,
    TooManyFields,
}

impl Kind {
    /// Each with the SQLSTATE that the reject must name.
    const STATES: [(Kind, &str); 12] = [
        (Kind::NoNumber, "22P02"),
        (Kind::OutOfRange, "22003"),
        (Kind::Null, "23502"),
        (Kind::Check, "23514"),
        (Kind::NoDate, "22008"),
        (Kind::TooLong, "22001"),
        (Kind::NoParent, "23503"),
        (Kind::Trigger, "P0001"),
        (Kind::BadUtf8, "22021"),
        (Kind::NulByte, "22021"),
        (Kind::TooFewFields, "22P04"),
        (Kind::TooManyFields, "22P04"),
    ];

    pub fn all() -> impl Iterator<Item = Kind> {
        Self::STATES.into_iter().map(|(kind, _)| kind)
    }

    pub fn any(random: &mut fastrand::Rng) -> Kind {
        Self::STATES[random.usize(..Self::STATES.len())].0
    }

    pub fn sqlstate(self) -> &'static str {
        let known = Self::STATES.into_iter().find(|(kind, _)| *kind == self);
        known.unwrap().1
    }
}

/// The table that the inputs fit: without a unique key, so that a row stored twice shows. Stored
/// twice, not refused, is what a loader without a ledger would do.
pub fn table_sql(table: &str, unlogged: bool) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS parents (p int PRIMARY KEY);
         INSERT INTO parents VALUES (1), (2) ON CONFLICT DO NOTHING;
         CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN RAISE EXCEPTION 'COPY {table}, line 1, column n: \"no\"'; END$$;
         CREATE {} TABLE {table} (
             id bigint NOT NULL,
             payload text,
             n int NOT NULL CHECK (n >= 0),
             d date,
             s varchar(10),
             p int
         );
         CREATE TRIGGER refuse AFTER INSERT ON {table} FOR EACH ROW WHEN (NEW.n = 666) EXECUTE FUNCTION refuse();
         ALTER TABLE {table} ADD FOREIGN KEY (p) REFERENCES parents",
        if unlogged { "UNLOGGED" } else { "" },
    )
}

/// One row and its fate.
#[derive(Debug, Clone)]
pub struct Line {
    pub id: i64,
    /// Its bytes in the input, with the line end.
    pub original: Vec<u8>,
    /// What the table must hold.
    pub payload: String,
    pub fate: Fate,
}

/// A CSV input.
#[derive(Debug, Clone)]
pub struct Input {
    pub lines: Vec<Line>,
}

pub const HEADER: &[u8] = b"id,payload,n,d,s,p\n";

impl Input {
    /// Rows `1..=rows`, all good.
    pub fn good(rows: usize) -> Self {
        Self::planned(1, &vec![Fate::Good; rows], &mut fastrand::Rng::with_seed(7))
    }

    /// Rows from `first_id` on with the given fates.
    pub fn planned(first_id: i64, fates: &[Fate], random: &mut fastrand::Rng) -> Self {
        let lines = fates
            .iter()
            .zip(first_id..)
            .map(|(fate, id)| line(id, *fate, random))
            .collect();
        Input { lines }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for line in &self.lines {
            bytes.extend_from_slice(&line.original);
        }
        bytes
    }

    pub fn bad_rows(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.fate != Fate::Good)
    }

    /// The bad rows as they are in the input, escaped.
    pub fn bad_bytes(&self) -> String {
        self.bad_rows()
            .map(|line| line.original.escape_ascii().to_string())
            .collect()
    }

    pub fn bad_count(&self) -> u64 {
        self.bad_rows().count() as u64
    }
}

/// Payloads that look like what they are not.
fn payload(id: i64, random: &mut fastrand::Rng) -> String {
    match random.u8(0..10) {
        0 => format!("row {id}\nsecond line\r\nthird, \"quoted\""),
        1 => format!("COPY t, line {}, column n: \"x\"", random.u8(1..9)),
        2 => format!("\\.\n{id}\n\\.\n"),
        3 => format!("{id}\t\\N\\\\"),
        4 => format!("ERROR: 22P02 line {id} é 漢字 »x«"),
        _ => format!("payload {id}"),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn line(id: i64, fate: Fate, random: &mut fastrand::Rng) -> Line {
    let payload = payload(id, random);
    let mut fields = [
        id.to_string(),
        quoted(&payload),
        (id % 600).to_string(),
        "2024-02-29".to_owned(),
        format!("s{}", id % 1000),
        (1 + id % 2).to_string(),
    ];
    let mut tail = "";
    match fate {
        Fate::Good | Fate::Bad(Kind::BadUtf8 | Kind::NulByte | Kind::TooFewFields) => {}
        Fate::Bad(Kind::NoNumber) => {
            fields[2] = quoted("COPY t, line 3, column s: \"x\"");
        }
        Fate::Bad(Kind::OutOfRange) => fields[2] = "99999999999".to_owned(),
        Fate::Bad(Kind::Null) => fields[2].clear(),
        Fate::Bad(Kind::Check) => fields[2] = "-1".to_owned(),
        Fate::Bad(Kind::NoDate) => fields[3] = "2023-02-29".to_owned(),
        Fate::Bad(Kind::TooLong) => fields[4] = "eleven chars".to_owned(),
        Fate::Bad(Kind::NoParent) => fields[5] = "77".to_owned(),
        Fate::Bad(Kind::Trigger) => fields[2] = "666".to_owned(),
        Fate::Bad(Kind::TooManyFields) => tail = ",more",
    }
    let mut original = (fields.join(",") + tail).into_bytes();
    let in_payload = fields[0].len() + 2;
    match fate {
        Fate::Bad(Kind::BadUtf8) => {
            original.splice(in_payload..in_payload, [0xc3, 0x28]);
        }
        Fate::Bad(Kind::NulByte) => original.insert(in_payload, 0),
        Fate::Bad(Kind::TooFewFields) => {
            let end = original.iter().rposition(|&byte| byte == b',').unwrap();
            original.truncate(end);
        }
        _ => {}
    }
    original.push(b'\n');
    Line {
        id,
        original,
        payload,
        fate,
    }
}
