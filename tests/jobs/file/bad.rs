//! Job files with one fault each: what is told, before anything is loaded.

use super::{fixture, run_alone};
use crate::support::{Files, PASSWORD, names_in, pgrung};

#[test]
fn every_bad_job_file_is_told_its_fault_with_its_place() {
    let names = names_in(&fixture("bad"));
    assert!(names.len() >= 40, "{names:?}");
    let mut told = String::new();
    for name in names {
        let ran = pgrung("run")
            .current_dir(&fixture(""))
            .arg(format!("bad/{name}"))
            .env("PASSWORD", PASSWORD)
            .run();
        ran.exits(2);
        assert_eq!(ran.stdout, "", "{name}");
        let place = format!("pgrung: error: bad/{name}:");
        let fault = ran.stderr.strip_prefix(&place);
        let fault = fault.unwrap_or_else(|| panic!("{name}: {ran}"));
        assert_eq!(fault.lines().count(), 1, "{name}: {ran}");
        told.push_str(&format!("{name}:{fault}"));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_job_file_that_cannot_be_read_is_named() {
    let files = Files::new();
    let missing = pgrung("run").arg(files.path("none.toml")).run();
    missing
        .exits(2)
        .says(&["none.toml", "No such file or directory"]);
    let binary = files.write("binary.toml", b"a = \"\xff\"");
    pgrung("run").arg(binary).run().exits(2).says(&["UTF-8"]);
    pgrung("run").run().exits(2).says(&["<JOB>"]);
}

#[test]
fn a_load_that_is_not_there_is_no_choice() {
    let files = Files::new();
    let load = "[[load]]\nname = \"orders\"\ntable = \"t\"\ninput = \"a.csv\"\n";
    let run = run_alone(&files, load);
    let near = run.clone().flags("--only ordres").run();
    near.exits(2)
        .says(&["--only ordres", "did you mean \"orders\"?"]);
    let far = run.flags("--only orders --only zebra").run();
    far.exits(2).says(&["--only zebra", "there are orders"]);
}
