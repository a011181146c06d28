//! Service files, as psql reads them: the same words lead both to the same server, or neither.

use std::sync::Arc;

use crate::support::command::psql;
use crate::support::{Cmd, Database, Files, PASSWORD, Ran, pgrung, text};

/// Who came, and what came with the session.
const SEEN: &str = "CREATE TABLE seen (
        id int, who text DEFAULT current_user, memory text DEFAULT current_setting('work_mem'),
        application text DEFAULT current_setting('application_name'));
    GRANT INSERT ON seen TO loader";

const ONE: Result<&str, &str> = Ok("one: loader 4MB");
const TWO: Result<&str, &str> = Ok("two: loader 4MB");
const SEVEN: Result<&str, &str> = Ok("one: loader 7MB");
const WRONG_PASSWORD: Result<&str, &str> = Err("password authentication failed");
const NO_SERVICE: Result<&str, &str> = Err("definition of service \"nightly\" not found");

/// Two databases that look alike, and a directory for service files.
struct Site {
    databases: [(&'static str, Arc<Database>); 2],
    files: Files,
    /// One row.
    row: String,
}

impl Site {
    fn new() -> Self {
        let files = Files::new();
        for dir in ["home", "system"] {
            std::fs::create_dir(files.path(dir)).unwrap();
        }
        let site = Site {
            databases: ["one", "two"].map(|name| (name, Database::with(SEEN))),
            row: files.write("row.csv", "id\n1\n"),
            files,
        };
        site.write(
            "services",
            "# some\n[one]\n{base}\n\n[two]\napplication_name=by service\noptions=-c work_mem=7MB\n{other}\n\
             [wrong]\npassword=s3cr\n{base}\n[addressed]\nhostaddr=127.0.0.1\nhost=db.invalid\n{base}\n",
        );
        site
    }

    /// `{base}` is every parameter of `one`, `{other}` of `two`; `{line N}` a comment of so many bytes
    /// with its end.
    fn fill(&self, template: &str) -> String {
        let [one, two] = &self.databases;
        let port = one.1.server.port();
        let base = "host=127.0.0.1\nport={port}\nuser=loader\npassword={password}\ndbname={one}"
            .to_owned();
        let line = |length: usize| format!("#{}\n", "x".repeat(length - 2));
        template
            .replace("{other}", "dbname={two}\n{base}")
            .replace("{base}", &base)
            .replace("{port}", &port.to_string())
            .replace("{password}", PASSWORD)
            .replace("{one}", &one.1.name)
            .replace("{two}", &two.1.name)
            .replace("{dir}", &text(self.files.dir()))
            .replace("{line 1022}", &line(1022))
            .replace("{line 1023}", &line(1023))
    }

    fn write(&self, name: &str, template: &str) {
        self.files.write(name, self.fill(template));
    }

    /// psql and `pgrung` on the same words and the same environment.
    #[track_caller]
    fn same(&self, dsn: &str, env: &str, expected: Result<&str, &str>) {
        let dsn = self.fill(dsn);
        let insert = psql(&dsn).args(["-c", "INSERT INTO seen (id) VALUES (1)"]);
        let mut load = pgrung("load -t seen --no-ledger").arg(&self.row);
        if !dsn.is_empty() {
            load = load.args(["--dsn", &dsn]);
        }
        for command in [insert, load] {
            let command = env.split_whitespace().fold(command, |command, word| {
                let (name, value) = word.split_once('=').unwrap();
                command.env(name, self.fill(value))
            });
            self.leads_to(&command, expected, &format!("{dsn} {env}"));
        }
    }

    #[track_caller]
    fn leads_to(&self, command: &Cmd, expected: Result<&str, &str>, case: &str) {
        for (_, database) in &self.databases {
            database.run("TRUNCATE seen");
        }
        let ran = command.run();
        let seen: Vec<String> = self
            .databases
            .iter()
            .flat_map(|(name, database)| {
                let session = "concat_ws(' ', who, memory, nullif(nullif(nullif(application, ''), 'psql'), 'pgrung'))";
                let rows = database.lines(&format!("SELECT {session} FROM seen"));
                rows.into_iter().map(move |row| format!("{name}: {row}"))
            })
            .collect();
        match expected {
            Ok(row) => {
                assert_eq!(seen, [row], "{case}: {ran}");
                ran.exits(0);
            }
            Err(words) => {
                assert_eq!(seen, [""; 0], "{case}: {ran}");
                // psql has but one code; ours are for settings and for the login.
                assert!(matches!(ran.code, Some(2 | 5)), "{case}: {ran}");
                let words = self.fill(words);
                assert!(ran.stderr.contains(&words), "{case}: no {words}: {ran}");
            }
        }
    }
}

#[test]
fn the_connection_string_goes_before_the_service_and_that_before_the_environment() {
    let site = Site::new();
    let elsewhere = "PGHOST=db.invalid PGPORT=1 PGUSER=postgres PGPASSWORD=x PGDATABASE={two}";
    let by_service = Ok("two: loader 7MB by service");
    let defaults = Ok("two: loader 4MB by service");
    for (dsn, env, expected) in [
        ("service=one", "", ONE),
        ("service=two", "", by_service),
        ("postgres://?service=one", "", ONE),
        ("", "PGSERVICE=one", ONE),
        ("service=two", "PGSERVICE=one", by_service),
        ("service=one", elsewhere, ONE),
        ("postgres://loader:@/?service=one", elsewhere, ONE),
        ("service=one dbname={two}", "", TWO),
        ("dbname={two}", "PGSERVICE=one", TWO),
        ("postgres:///{two}?service=one", "", TWO),
        ("postgres://loader@/{two}?service=one", "", TWO),
        ("service=two", "PGOPTIONS=-cwork_mem=9MB", by_service),
        ("service=two options=''", "", defaults),
        (
            "service=two options=''",
            "PGOPTIONS=-cwork_mem=9MB",
            defaults,
        ),
        ("service=one", "PGOPTIONS=-cwork_mem=7MB", SEVEN),
        ("service=wrong password={password}", "", ONE),
        ("service=wrong", "PGPASSWORD={password}", WRONG_PASSWORD),
        ("service=addressed", "", ONE),
        ("service=addressed host=other.invalid", "", ONE),
    ] {
        let file = "PGSERVICEFILE={dir}/services";
        site.same(dsn, &format!("{file} {env}"), expected);
    }
}

#[test]
fn a_service_is_looked_for_where_psql_looks_and_has_to_be_there() {
    let site = Site::new();
    site.write("home/.pg_service.conf", "[mine]\n{base}\n[both]\n{base}\n");
    site.write(
        "system/pg_service.conf",
        "[ours]\n{base}\n[both]\n{other}\n",
    );
    let file = "PGSERVICEFILE={dir}/services";
    let home = "HOME={dir}/home";
    let system = "PGSYSCONFDIR={dir}/system";
    let missing = "PGSERVICEFILE={dir}/missing";
    let no_file = Err("service file \"{dir}/missing\" not found");
    let complete = "host=127.0.0.1 port={port} user=postgres dbname={one}";
    for (dsn, env, expected) in [
        ("service=mine", [home, ""], ONE),
        ("service=both", [home, system], ONE),
        ("service=both", [file, system], TWO),
        ("service=ours", [home, system], ONE),
        ("service=ours", [file, system], ONE),
        ("service=ours", ["", system], ONE),
        (
            "service=mine",
            [file, home],
            Err("service \"mine\" not found"),
        ),
        ("service=ours", [missing, system], no_file),
        ("service=nightly", [home, system], NO_SERVICE),
        (
            "service=nightly",
            ["", "PGSYSCONFDIR={dir}/missing"],
            NO_SERVICE,
        ),
        (complete, [file, "PGSERVICE=nightly"], NO_SERVICE),
        (complete, [missing, "PGSERVICE=nightly"], no_file),
        ("service=''", [file, ""], Err("service \"\" not found")),
        ("", [file, "PGSERVICE="], Err("service \"\" not found")),
    ] {
        site.same(dsn, &env.join(" "), expected);
    }
}

#[test]
fn a_service_file_means_to_pgrung_what_it_means_to_psql() {
    let site = Site::new();
    let second = Err("syntax error in service file \"{dir}/f\", line 2");
    let third = Err("syntax error in service file \"{dir}/f\", line 3");
    for (content, expected) in [
        ("[nightly]\n{base}", ONE),
        ("[nightly]\r\ndbname={two}\r\n{base}\r\n", TWO),
        (
            " [nightly] here \n\t #dbname=x\n\n \t dbname={two} \x0b\x0c\n{base}\n",
            TWO,
        ),
        ("[nightly]\n{base}\ndbname={two}\n", ONE),
        ("[nightly]\n{base}\n[nightly]\ndbname={two}\n", ONE),
        ("[nightly]\n[nightly]\n{base}\n", Err("{dir}")),
        ("x\n[t]\nx\n[nightly2]\nx\n[nightly]\n{base}\n[u]\nx\n", ONE),
        (
            "[nightly]\ndbname= {two}\n{base}\n",
            Err("database \" {two}\" does not exist"),
        ),
        ("[nightly]\npassword='{password}'\n{base}\n", WRONG_PASSWORD),
        (
            "[nightly]\noptions=-c work_mem=7MB -c a.b=#c=d\n{base}\n",
            SEVEN,
        ),
        ("[nightly]\ndbname ={two}\n{base}\n", second),
        ("[nightly]\n{base}\nhots=h\n", Err("line 7")),
        ("[nightly]\n#\ndbname\n{base}\n", third),
        ("[nightly]\nssl=true\n{base}\n", second),
        ("[nightly]\nrequiressl=1\n{base}\n", second),
        ("[nightly]\n=x\n{base}\n", second),
        (
            "[nightly]\nservice=t\n{base}\n",
            Err("specifications not supported in service file \"{dir}/f\", line 2"),
        ),
        ("[nightly]\nport=many\n{base}\n", Err("port")),
        ("[ nightly ]\n{base}\n", NO_SERVICE),
        ("[NIGHTLY]\n{base}\n", NO_SERVICE),
        ("\u{feff}[nightly]\n{base}\n", NO_SERVICE),
        ("", NO_SERVICE),
        ("{line 1022}[nightly]\n{line 1022}{base}\n", ONE),
        (
            "{line 1023}[nightly]\n{base}\n",
            Err("line 1 too long in service file \"{dir}/f\""),
        ),
        (
            "[nightly]\n{line 1023}{base}\n",
            Err("line 2 too long in service file \"{dir}/f\""),
        ),
        ("[nightly]\n{base}\n[t]\n{line 1023}", ONE),
    ] {
        site.write("f", content);
        // A section without a host must lead nowhere, not to a server of the tester's.
        let env = "PGSERVICE=nightly PGSERVICEFILE={dir}/f PGSYSCONFDIR={dir} PGHOST={dir}";
        site.same("", env, expected);
    }
}

#[test]
fn no_word_of_a_service_file_is_told_or_kept() {
    // Every run of these tests looks for the password.
    let site = Site::new();
    let (_, database) = &site.databases[0];
    site.write("services", "[s]\nuser=postgres\n{base}\n");
    let services = text(&site.files.path("services"));
    let rows = site.files.write("rows.csv", "id\n1\nx\n");
    let by_service = |words: &str| {
        let command = pgrung(words).env("PGSERVICEFILE", &services);
        command.args(["--dsn", "service=s"])
    };
    let load = |flags: &str| {
        by_service("load -t seen --verbose")
            .arg(&rows)
            .flags(flags)
            .run()
    };
    load("--import-id i --log-format json").exits(3);
    load("--import-id j --restart --on-error stop").exits(1);
    for command in [
        "status",
        "status --json",
        "rejects i",
        "replay i",
        "migrate",
    ] {
        by_service(command).run();
    }
    let tables = database.lines("SELECT relname FROM pg_class WHERE relnamespace = 'pgrung'::regnamespace AND relkind = 'r'");
    assert!(tables.len() > 3, "{tables:?}");
    for table in tables {
        let kept = database.lines(&format!("SELECT t::text FROM pgrung.{table} AS t"));
        assert!(!kept.concat().contains("s3cr"), "{table}: {kept:?}");
    }
    // In the wrong place, and on a line that is not understood.
    site.write("bad", "[s]\n{base}\npasword={password}\n");
    let bad = text(&site.files.path("bad"));
    let uri = format!("postgres://u:{PASSWORD}@127.0.0.1:1/d");
    let load = |env: &[(&str, &str)]| -> Ran {
        let load = pgrung("load --verbose -t seen").arg(&rows);
        let load = env
            .iter()
            .fold(load, |load, (name, value)| load.env(name, value));
        load.run()
    };
    load(&[("PGSERVICE", "s"), ("PGSERVICEFILE", &bad)])
        .exits(2)
        .says(&["line 7"]);
    load(&[("PGSERVICE", &uri)]).exits(2).says(&["--dsn"]);
    load(&[("PGSERVICE", "s"), ("PGSERVICEFILE", &uri)])
        .exits(2)
        .says(&["--dsn"]);
}
