//! Random tables with all that may hang on them.

mod rows;

use std::fmt::Write;

use fastrand::Rng;

/// A row: its fields as text, as the server writes them.
pub type Row = Vec<Option<String>>;

/// What a column of the input holds. Left out, for sync cannot do it yet: an identity column that is
/// always generated and not of the key; a row that pointed to one of its own table that goes; unique
/// values that rows swap where others point to them, the input leaves out a column, or a row is bad.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    /// A value of its own for each key.
    Key(&'static str),
    /// One of three, by the key.
    Region,
    /// A value of its own for each key, with a unique index.
    Code,
    /// A range of its own for each key, with an exclusion constraint.
    Room,
    /// What another table has: 0 to 4.
    Parent,
    /// The row itself.
    Itself,
    /// Anything of a type.
    Plain(&'static str),
}

const PLAIN: [&str; 12] = [
    "integer",
    "bigint",
    "text",
    "text COLLATE \"C\"",
    "varchar(20)",
    "numeric(10,2)",
    "boolean",
    "date",
    "integer[]",
    "SCHEMA_.mood",
    "SCHEMA_.amount",
    "jsonb",
];

#[derive(Debug, Clone)]
struct Column {
    /// Unquoted.
    name: String,
    role: Role,
}

/// How the table stands to other tables.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Alone,
    Unlogged,
    /// Inherits from another.
    Child,
    /// Another inherits from it, and has rows.
    Ancestor,
    /// Has partitions, and these have some.
    Partitioned(&'static str),
    /// Is a partition.
    Leaf,
}

#[derive(Debug)]
pub struct Schema {
    /// Quoted.
    pub schema: String,
    /// With its schema, quoted.
    pub table: String,
    /// What makes it.
    pub sql: Vec<String>,
    pub mode: &'static str,
    /// Whether of the records of one key one wins.
    pub by_key: bool,
    /// Whether rows that come again must stay, and what becomes of those that point to others.
    pub children: Option<&'static str>,
    /// Whether the input has the key.
    has_key: bool,
    unlike: bool,
    shape: Shape,
    columns: Vec<Column>,
    names: u32,
}

pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Schema {
    pub fn random(rng: &mut Rng, citext: bool) -> Self {
        let mode = ["replace", "sync"][rng.usize(..2)];
        let shape = match rng.u8(..12) {
            0 => Shape::Unlogged,
            1 => Shape::Child,
            2 => Shape::Ancestor,
            3..6 => Shape::Partitioned(["LIST (%)", "RANGE (%)", "HASH (%)"][rng.usize(..3)]),
            6 => Shape::Leaf,
            _ => Shape::Alone,
        };
        let mut it = Schema {
            schema: String::new(),
            table: String::new(),
            sql: Vec::new(),
            mode,
            by_key: false,
            children: None,
            has_key: mode == "sync" || rng.u8(..4) > 0,
            unlike: false,
            shape,
            columns: Vec::new(),
            names: 0,
        };
        it.schema = quote(&it.name(rng));
        let name = quote(&it.name(rng));
        it.table = format!("{}.{name}", it.schema);
        it.before();
        it.choose_columns(rng, citext);
        it.create(rng);
        it.point(rng);
        it.rules(rng);
        it.publish(rng);
        it.tune(rng);
        it
    }

    /// A new name.
    fn name(&mut self, rng: &mut Rng) -> String {
        self.names += 1;
        let odd = [
            "plain",
            "Upper Case",
            "quo\"te's",
            "sch\u{f6}n \u{6f22}\u{5b57}",
            "select",
            "dot.ted",
            "s",
            "t",
            "$1 %s {}",
            "long",
        ];
        match odd[rng.usize(..odd.len())] {
            // 63 bytes.
            "long" => format!("{:x<60}{:03}", "long", self.names),
            name => format!("{name}{}", self.names),
        }
    }

    fn add(&mut self, sql: &str) {
        let sql = sql.replace("SCHEMA_", &self.schema);
        self.sql.push(sql.replace("TABLE_", &self.table));
    }

    /// Half of the time, or less.
    fn maybe(&mut self, rng: &mut Rng, sql: &str) {
        if rng.u8(..5) < 2 {
            self.add(sql);
        }
    }

    /// What the table needs.
    fn before(&mut self) {
        self.add("CREATE SCHEMA SCHEMA_");
        self.add("CREATE TYPE SCHEMA_.mood AS ENUM ('sad', 'ok', 'Very happy')");
        self.add("CREATE DOMAIN SCHEMA_.amount AS integer CHECK (VALUE >= 0)");
        self.add("CREATE TABLE SCHEMA_.parents (id integer PRIMARY KEY)");
        self.add("INSERT INTO SCHEMA_.parents SELECT generate_series(0, 4)");
        self.add(
            "CREATE FUNCTION SCHEMA_.pass() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF TG_OP = ''DELETE'' THEN RETURN OLD; END IF; RETURN NEW; END'",
        );
    }

    fn choose_columns(&mut self, rng: &mut Rng, citext: bool) {
        let keys = [
            "integer",
            "bigint",
            "text",
            "integer GENERATED ALWAYS AS IDENTITY",
            "bigint GENERATED BY DEFAULT AS IDENTITY (START 5 CACHE 3)",
            "serial",
            "uuid",
            "citext",
        ];
        let keys = &keys[..if citext { 8 } else { 7 }];
        let partitioned = matches!(self.shape, Shape::Partitioned(_) | Shape::Leaf);
        let key = match keys[rng.usize(..keys.len())] {
            // Partitions have no identities of their own before PostgreSQL 17.
            key if key.contains("IDENTITY") && partitioned => "integer",
            key => key,
        };
        let is_given = key == "serial" || key.contains("IDENTITY");
        self.has_key |= !is_given || self.shape == Shape::Ancestor;
        let mut roles = vec![Role::Key(key)];
        if partitioned || rng.bool() {
            roles.push(Role::Region);
        }
        for role in [Role::Code, Role::Room, Role::Parent, Role::Itself] {
            let fits = match role {
                Role::Code | Role::Room => !partitioned,
                Role::Itself => self.shape == Shape::Alone && self.has_key,
                // Heirs have no foreign keys of their own.
                _ => self.shape != Shape::Ancestor,
            };
            if fits && rng.u8(..3) == 0 {
                roles.push(role);
            }
        }
        for _ in 0..rng.usize(1..5) {
            roles.push(Role::Plain(PLAIN[rng.usize(..PLAIN.len())]));
        }
        for role in roles {
            let name = self.name(rng);
            self.columns.push(Column { name, role });
        }
    }

    fn column(&self, role: impl Fn(&Role) -> bool) -> Option<String> {
        let column = self.columns.iter().find(|column| role(&column.role))?;
        Some(quote(&column.name))
    }

    fn key(&self) -> String {
        let key = self.column(|role| matches!(role, Role::Key(_)));
        let key = key.unwrap();
        match self.shape {
            Shape::Partitioned(_) | Shape::Leaf => format!("{key}, {}", self.region()),
            _ => key,
        }
    }

    fn region(&self) -> String {
        self.column(|role| *role == Role::Region).unwrap()
    }

    fn plain(&self) -> String {
        self.column(|role| matches!(role, Role::Plain(_))).unwrap()
    }

    fn create(&mut self, rng: &mut Rng) {
        let (gone, left, made) = (self.name(rng), self.name(rng), self.name(rng));
        let mut definition = format!("{} integer", quote(&gone));
        let mut columns = self.columns.clone();
        rng.shuffle(&mut columns);
        for Column { name, role } in columns {
            let ty = match role {
                Role::Key(ty) => format!("{ty} NOT NULL"),
                Role::Region => "text NOT NULL".to_owned(),
                Role::Code => "text".to_owned(),
                Role::Room => "int4range".to_owned(),
                Role::Parent => "integer".to_owned(),
                Role::Itself => match self.columns[0].role {
                    Role::Key("serial") => "integer".to_owned(),
                    Role::Key(ty) => ty.split(" GEN").next().unwrap().to_owned(),
                    _ => unreachable!(),
                },
                Role::Plain(ty) => ty.to_owned(),
            };
            write!(definition, ", {} {ty}", quote(&name)).unwrap();
        }
        write!(definition, ", {} integer DEFAULT 7 NOT NULL", quote(&left)).unwrap();
        if rng.u8(..3) == 0 && !matches!(self.shape, Shape::Child | Shape::Ancestor) {
            let (made, region) = (quote(&made), self.plain());
            write!(
                definition,
                ", {made} boolean GENERATED ALWAYS AS ({region} IS NULL) STORED"
            )
            .unwrap();
        }
        let region = self.column(|role| *role == Role::Region);
        let partition_by = |by: &str| by.replace('%', region.as_deref().unwrap_or_default());
        match self.shape {
            Shape::Alone | Shape::Ancestor => {
                self.add(&format!("CREATE TABLE TABLE_ ({definition})"))
            }
            Shape::Unlogged => self.add(&format!("CREATE UNLOGGED TABLE TABLE_ ({definition})")),
            Shape::Child => {
                self.add("CREATE TABLE SCHEMA_.ancestor (inherited integer DEFAULT 3 CHECK (inherited > 0))");
                self.add("INSERT INTO SCHEMA_.ancestor VALUES (1), (2)");
                self.add(&format!(
                    "CREATE TABLE TABLE_ ({definition}) INHERITS (SCHEMA_.ancestor)"
                ));
            }
            Shape::Partitioned(by) => {
                self.add(&format!(
                    "CREATE TABLE TABLE_ ({definition}) PARTITION BY {}",
                    partition_by(by)
                ));
                self.partitions(by);
            }
            Shape::Leaf => {
                self.add(&format!(
                    "CREATE TABLE SCHEMA_.whole ({definition}) PARTITION BY {}",
                    partition_by("LIST (%)")
                ));
                self.add("CREATE TABLE TABLE_ PARTITION OF SCHEMA_.whole FOR VALUES IN ('a', 'b', 'it''s')");
                self.add("CREATE TABLE SCHEMA_.beside PARTITION OF SCHEMA_.whole DEFAULT");
            }
        }
        let whole = self.whole();
        self.add(&format!("ALTER TABLE {whole} DROP COLUMN {}", quote(&gone)));
        if rng.bool() {
            // Rows that are there before it have it by the catalogue.
            let late = quote(&self.name(rng));
            self.add(&format!(
                "ALTER TABLE {whole} ADD COLUMN {late} text DEFAULT 'late'"
            ));
        }
        self.constraints(rng);
        if self.shape == Shape::Ancestor {
            self.add("CREATE TABLE SCHEMA_.heir (more integer) INHERITS (TABLE_)");
        }
    }

    /// What columns are added to: the table, or the one of which it is a partition.
    fn whole(&self) -> &'static str {
        match self.shape {
            Shape::Leaf => "SCHEMA_.whole",
            _ => "TABLE_",
        }
    }

    fn partitions(&mut self, by: &str) {
        let parts = match &by[..4] {
            "LIST" => ["FOR VALUES IN ('a')", "FOR VALUES IN ('b')", "DEFAULT"],
            "RANG" => [
                "FOR VALUES FROM (MINVALUE) TO ('b')",
                "FOR VALUES FROM ('b') TO ('bb')",
                "DEFAULT",
            ],
            _ => [
                "FOR VALUES WITH (MODULUS 3, REMAINDER 0)",
                "FOR VALUES WITH (MODULUS 3, REMAINDER 1)",
                "FOR VALUES WITH (MODULUS 3, REMAINDER 2)",
            ],
        };
        for (number, part) in parts.iter().enumerate() {
            let sub = match number {
                1 => format!(" PARTITION BY HASH ({})", self.region()),
                _ => String::new(),
            };
            self.add(&format!(
                "CREATE TABLE SCHEMA_.part{number} PARTITION OF TABLE_ {part}{sub}"
            ));
        }
        for remainder in 0..2 {
            self.add(&format!(
                "CREATE TABLE SCHEMA_.sub{remainder} PARTITION OF SCHEMA_.part1 FOR VALUES WITH (MODULUS 2, REMAINDER {remainder})"
            ));
        }
    }

    fn constraints(&mut self, rng: &mut Rng) {
        let (whole, key, plain) = (self.whole(), self.key(), self.plain());
        let keyed = self.mode == "sync" || rng.u8(..4) > 0;
        let constraint = quote(&self.name(rng));
        let deferrable = match rng.u8(..8) {
            0 => "DEFERRABLE",
            1 => "DEFERRABLE INITIALLY DEFERRED",
            _ => "",
        };
        let points = self
            .columns
            .iter()
            .any(|column| column.role == Role::Itself);
        let deferrable = if points { "" } else { deferrable };
        if keyed || points {
            self.add(&format!(
                "ALTER TABLE {whole} ADD CONSTRAINT {constraint} PRIMARY KEY ({key}) {deferrable}"
            ));
            self.maybe(
                rng,
                &format!("COMMENT ON CONSTRAINT {constraint} ON {whole} IS 'the key'"),
            );
        }
        self.by_key = (keyed || points) && self.has_key;
        if let Some(code) = self.column(|role| *role == Role::Code) {
            let unique = ["UNIQUE", "UNIQUE NULLS NOT DISTINCT"][rng.usize(..2)];
            self.add(&format!("ALTER TABLE TABLE_ ADD {unique} ({code})"));
            self.unlike = true;
        }
        if let Some(room) = self.column(|role| *role == Role::Room) {
            self.add(&format!(
                "ALTER TABLE TABLE_ ADD EXCLUDE USING gist ({room} WITH &&)"
            ));
            self.unlike = true;
        }
        if let Some(parent) = self.column(|role| *role == Role::Parent) {
            let options = [
                "",
                "ON DELETE CASCADE",
                "ON DELETE SET NULL ON UPDATE CASCADE",
                "DEFERRABLE",
                "DEFERRABLE INITIALLY DEFERRED",
            ];
            let options = options[rng.usize(..options.len())];
            self.add(&format!(
                "ALTER TABLE TABLE_ ADD FOREIGN KEY ({parent}) REFERENCES SCHEMA_.parents {options}"
            ));
        }
        if let Some(itself) = self.column(|role| *role == Role::Itself) {
            self.add(&format!(
                "ALTER TABLE TABLE_ ADD FOREIGN KEY ({itself}) REFERENCES TABLE_"
            ));
        }
        if let Some(region) = self.column(|role| *role == Role::Region) {
            self.add(&format!(
                "ALTER TABLE TABLE_ ADD CHECK ({region} <> 'none' AND {region} <> 'a NOT VALID')"
            ));
        }
        for index in [
            format!("CREATE INDEX ON TABLE_ ({plain})"),
            format!("CREATE INDEX ON TABLE_ (({plain} IS NULL))"),
            format!("CREATE UNIQUE INDEX ON TABLE_ ({key}) WHERE {plain} IS NULL"),
        ] {
            // A unique index would refuse what a table without a key lets in twice.
            if self.by_key || !index.contains("UNIQUE") {
                self.maybe(rng, &index);
            }
        }
    }

    /// Another table that points to this one.
    fn point(&mut self, rng: &mut Rng) {
        let fits = matches!(
            self.shape,
            Shape::Alone | Shape::Unlogged | Shape::Partitioned(_)
        );
        let waits = self.is_deferrable();
        if !self.by_key || !fits || waits || rng.u8(..3) > 0 {
            return;
        }
        let actions = [
            "NO ACTION",
            "NO ACTION DEFERRABLE INITIALLY DEFERRED",
            "RESTRICT",
            "CASCADE",
            "SET NULL",
        ];
        let action = actions[rng.usize(..actions.len())];
        self.children = Some(action);
        let key = self.key();
        let unlogged = if self.shape == Shape::Unlogged {
            "UNLOGGED"
        } else {
            ""
        };
        self.add(&format!(
            "CREATE {unlogged} TABLE SCHEMA_.children AS SELECT {key} FROM TABLE_ WITH NO DATA; ALTER TABLE SCHEMA_.children ADD id serial PRIMARY KEY"
        ));
        self.add(&format!(
            "ALTER TABLE SCHEMA_.children ADD FOREIGN KEY ({key}) REFERENCES TABLE_ ({key}) ON DELETE {action}"
        ));
    }

    /// Views, rights, policies, triggers.
    fn rules(&mut self, rng: &mut Rng) {
        let (key, plain) = (self.key(), self.plain());
        let trigger = |when: &str, each: &str| {
            format!(
                "CREATE TRIGGER {} {when} ON TABLE_ FOR EACH {each} EXECUTE FUNCTION SCHEMA_.pass()",
                quote(&format!("{when} {each}"))
            )
        };
        for sql in [
            "CREATE VIEW SCHEMA_.v AS SELECT * FROM TABLE_; CREATE VIEW SCHEMA_.w AS SELECT count(*) FROM SCHEMA_.v".to_owned(),
            "CREATE MATERIALIZED VIEW SCHEMA_.m AS SELECT * FROM TABLE_; COMMENT ON MATERIALIZED VIEW SCHEMA_.m IS 'm'".to_owned(),
            "GRANT SELECT, TRIGGER ON TABLE_ TO PUBLIC; GRANT INSERT ON TABLE_ TO loader WITH GRANT OPTION".to_owned(),
            format!("GRANT UPDATE ({plain}), REFERENCES ({plain}) ON TABLE_ TO loader"),
            format!("ALTER TABLE TABLE_ ENABLE ROW LEVEL SECURITY; CREATE POLICY \"p'\" ON TABLE_ FOR SELECT TO loader USING ({plain} IS NULL)"),
            "ALTER TABLE TABLE_ FORCE ROW LEVEL SECURITY; CREATE POLICY q ON TABLE_ AS RESTRICTIVE USING (true) WITH CHECK (true)".to_owned(),
            trigger("BEFORE INSERT OR UPDATE OR DELETE", "ROW"),
            trigger("AFTER INSERT OR UPDATE OR DELETE", "ROW"),
            trigger("BEFORE INSERT OR UPDATE OR DELETE", "STATEMENT"),
            trigger("AFTER INSERT OR TRUNCATE", "STATEMENT"),
            format!("{}; ALTER TABLE TABLE_ DISABLE TRIGGER \"AFTER UPDATE STATEMENT\"", trigger("AFTER UPDATE", "STATEMENT")),
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON TABLE_ DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION SCHEMA_.pass()".to_owned(),
            format!("COMMENT ON TABLE TABLE_ IS 'a table'; COMMENT ON COLUMN TABLE_.{plain} IS 'a column'"),
            format!("CREATE STATISTICS SCHEMA_.st ON {key}, {plain} FROM TABLE_; ALTER STATISTICS SCHEMA_.st SET STATISTICS 7"),
            format!("ALTER TABLE TABLE_ ALTER {plain} SET STATISTICS 50, ALTER {plain} SET (n_distinct = 5)"),
        ] {
            self.maybe(rng, &sql);
        }
    }

    fn publish(&mut self, rng: &mut Rng) {
        let publication = match rng.u8(..8) {
            0 => "FOR ALL TABLES",
            1 => "FOR TABLE TABLE_ WITH (publish = 'insert, truncate')",
            2 => "FOR TABLE TABLE_ WITH (publish_via_partition_root = true)",
            3 => "FOR TABLES IN SCHEMA SCHEMA_",
            _ => return,
        };
        let deletes = !publication.contains("truncate");
        if publication.contains("TABLE_") && self.shape == Shape::Unlogged
            || deletes && !self.can_publish_deletes() && !self.is_truncated()
        {
            return;
        }
        self.add(&format!("CREATE PUBLICATION pub {publication}"));
        match rng.u8(..4) {
            0 => self.add("ALTER TABLE TABLE_ REPLICA IDENTITY FULL"),
            // Deletes of single rows cannot be published then.
            1 if self.is_truncated() => {
                self.add("ALTER TABLE TABLE_ REPLICA IDENTITY NOTHING");
            }
            _ => {}
        }
    }

    /// Whether all rows go at once, where single ones cannot be published.
    fn is_truncated(&self) -> bool {
        self.mode == "replace" && self.children.is_none()
    }

    /// Whether rows that go have an identity: a deferrable primary key is none, heirs have none, and
    /// partitions without a primary key.
    fn can_publish_deletes(&self) -> bool {
        match self.shape {
            Shape::Ancestor => false,
            Shape::Partitioned(_) => self.is_keyed() && !self.is_deferrable(),
            _ => !self.is_deferrable(),
        }
    }

    /// How it is stored.
    fn tune(&mut self, rng: &mut Rng) {
        if matches!(self.shape, Shape::Partitioned(_)) {
            return;
        }
        for sql in [
            "ALTER TABLE TABLE_ SET (fillfactor = 70, autovacuum_enabled = off, toast.autovacuum_enabled = off)",
            "ALTER TABLE TABLE_ SET (parallel_workers = 2)",
        ] {
            self.maybe(rng, sql);
        }
    }

    fn primary_key(&self) -> Option<&String> {
        self.sql.iter().find(|sql| sql.contains("ADD CONSTRAINT"))
    }

    fn is_keyed(&self) -> bool {
        self.primary_key().is_some()
    }

    fn is_deferrable(&self) -> bool {
        self.primary_key()
            .is_some_and(|sql| sql.contains("DEFERRABLE"))
    }
}
