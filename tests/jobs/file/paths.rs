//! Paths in a job file are meant from its directory, wherever the run is.

use std::fs;

use super::{fixture, run};
use crate::support::{Database, Files, pgrung, text};

#[test]
fn every_path_is_meant_from_the_directory_of_the_job_file() {
    // With characters of a glob in its name.
    let (database, files) = (Database::with("CREATE TABLE t (id int)"), Files::new());
    let dir = files.path("a[b]*");
    for name in ["job", "job/in", "job/spill", "elsewhere"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let write = |name: &str, content: &str| fs::write(dir.join(name), content).unwrap();
    write("job/in/1.csv", "id\n1\nx\n");
    write("job/in/2.csv", "id\n2\n");
    write("job/3.csv", "id\n3\n");
    write("job/before.sql", "INSERT INTO t VALUES (4)");
    write("job/dsn", &database.dsn());
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(dir.join("job/dsn"), private).unwrap();
    write(
        "job/job.toml",
        "[connection]\ndsn_file = \"dsn\"\n[[load]]\nname = \"t\"\ntable = \"t\"
         input = [\"in/*.csv\", \"../job/3.csv\"]\nbefore = \"@before.sql\"
         rejects = \"bad.csv\"\nmetrics_file = \"t.prom\"\noverflow = \"spill\"\nspill_dir = \"spill\"\n",
    );
    let whole = text(&dir.join("job/job.toml"));
    for (from, job) in [
        ("elsewhere", "../job/job.toml"),
        ("job", "job.toml"),
        ("elsewhere", &whole),
    ] {
        let ran = pgrung("run").current_dir(&dir.join(from)).arg(job).run();
        ran.exits(3);
        assert_eq!(database.rows("t"), ["1", "2", "3", "4"]);
        for written in ["job/bad.csv", "job/t.prom"] {
            fs::remove_file(dir.join(written)).unwrap();
        }
    }
}

#[test]
fn the_summary_goes_into_no_file_that_is_read() {
    let (database, files) = (Database::with("CREATE TABLE t (id int)"), Files::new());
    let file = files.write("a.csv", "id\n1\n");
    let load = "[[load]]\nname = \"t\"\ntable = \"t\"\ninput = \"*.csv\"\n";
    let run = run(&database, &files, load);
    for read in [&file, &text(&files.path("job.toml"))] {
        let ran = run.clone().arg("--summary").arg(read).run();
        ran.exits(2).says(&["this file is read as well"]);
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "id\n1\n");
    run.run().exits(0);
}

#[test]
fn a_job_file_is_read_from_where_it_is() {
    let database = Database::with(include_str!("../../../fixtures/jobs/nightly.sql"));
    let run = database.pgrung("run nightly.toml --only prices");
    run.current_dir(&fixture("")).run().exits(0);
    assert_eq!(database.count("prices"), 2);
}
