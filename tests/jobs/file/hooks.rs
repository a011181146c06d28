//! Programs that are told how the night was.

use serde_json::Value;

use super::run;
use crate::support::{Cmd, Database, Files, wait_until};

const TABLE: &str = "CREATE TABLE t (id int)";

/// A night of one load into the table, with this behind it.
fn night(database: &Database, files: &Files, table: &str, hooks: &str) -> Cmd {
    files.write("a.csv", "id\n1\n");
    let load = format!("[[load]]\nname = \"t\"\ninput = \"a.csv\"\ntable = \"{table}\"\n");
    run(database, files, &format!("{load}{hooks}"))
}

fn read(files: &Files, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(files.path(name)).unwrap()).unwrap()
}

#[test]
fn the_hook_that_fits_the_end_gets_the_summary() {
    let (database, files) = (Database::with(TABLE), Files::new());
    let hooks = "[on_failure]\nrun = [\"sh\", \"-c\", \"echo failed; cat > failure.json\"]
        [on_success]\nrun = [\"sh\", \"-c\", \"echo done; cat > success.json\"]\n";
    let good = night(&database, &files, "t", hooks).run();
    good.exits(0).says(&["done"]);
    assert!(!good.stdout.contains("done"), "{good}");
    let (told, summary) = (read(&files, "success.json"), good.summary());
    assert_eq!(told["loads"], summary["loads"]);
    assert_eq!(told["exit_code"], 0);
    assert!(!files.path("failure.json").exists());

    std::fs::remove_file(files.path("success.json")).unwrap();
    let bad = night(&database, &files, "nosuch", hooks).run();
    bad.exits(2).says(&["failed"]);
    let told = read(&files, "failure.json");
    assert_eq!(told["error"], "1 load failed: t");
    assert_eq!(told["loads"], bad.summary()["loads"]);
    assert!(!files.path("success.json").exists());
}

#[test]
fn a_hook_beside_the_job_file_is_found_from_anywhere() {
    let (database, files) = (Database::with(TABLE), Files::new());
    let script = files.write("tell.sh", "#!/bin/sh\npwd > where\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(script, executable).unwrap();
    let hooks = "[on_success]\nrun = [\"./tell.sh\"]\n";
    let run = night(&database, &files, "t", hooks);
    run.current_dir("/".as_ref()).run().exits(0);
    let ran_in = std::fs::read_to_string(files.path("where")).unwrap();
    assert_eq!(ran_in.trim_end(), files.dir().to_str().unwrap());
}

#[test]
fn a_hook_that_fails_fails_a_night_that_was_good() {
    let (database, files) = (Database::with(TABLE), Files::new());
    for (hook, words) in [
        ("run = [\"sh\", \"-c\", \"exit 3\"]", "exit status: 3"),
        ("run = [\"./nosuch\"]", "cannot be started"),
        (
            "run = [\"sh\", \"-c\", \"sleep 600 & wait\"]\ntimeout = \"200ms\"",
            "was killed",
        ),
    ] {
        let ran = night(&database, &files, "t", &format!("[on_success]\n{hook}\n")).run();
        ran.exits(1).says(&["[on_success]: ", words]);
        assert_eq!(ran.summary()["loads"][0]["exit_code"], 0);
        let ran = night(
            &database,
            &files,
            "nosuch",
            &format!("[on_failure]\n{hook}\n"),
        )
        .run();
        ran.exits(2)
            .says(&["[on_failure]: ", words, "1 load failed: t"]);
    }
}

#[test]
fn what_a_hook_has_started_ends_with_it_when_it_takes_too_long() {
    let (database, files) = (Database::with(TABLE), Files::new());
    let hook = "[on_success]\ntimeout = \"500ms\"\nrun = [\"sh\", \"-c\", \"sleep 600 & echo $! > pid; wait\"]\n";
    night(&database, &files, "t", hook).run().exits(1);
    let pid = std::fs::read_to_string(files.path("pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    wait_until("it is gone", || {
        let stat = std::fs::read_to_string(&stat).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
}

#[test]
fn a_hook_that_does_not_read_and_a_closed_stdout_are_no_fault() {
    let (database, files) = (Database::with(TABLE), Files::new());
    let hook = "[on_success]\nrun = [\"sh\", \"-c\", \"echo said\"]\n";
    let run = night(&database, &files, "t", hook);
    let job = files.path("job.toml");
    let shell = run.instead("sh").args(["-c", "exec \"$0\" run \"$1\" >&-"]);
    let shell = shell.arg(env!("CARGO_BIN_EXE_pgrung")).arg(job);
    shell.run().exits(0).says(&["said"]);
}
