//! The private server, on the server programs installed here.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getpgrp};
use pgrung::errors::EmbeddedError;
use pgrung::internal::Places;
use pgrung::{Embedded, EmbeddedOptions};
use tokio_postgres::Config;

use crate::support::{Session, open_tempdir, wait_until};

/// Makes the test binary a helper process: the file into which it writes what it started.
const HELPER: &str = "PGRUNG_TEST_HELPER";

fn temporary() -> Embedded {
    Embedded::start(EmbeddedOptions::default()).unwrap()
}

fn in_dir(dir: &Path) -> EmbeddedOptions {
    EmbeddedOptions {
        dir: Some(dir.to_owned()),
        ..EmbeddedOptions::default()
    }
}

fn with_setting(name: &str, value: &str) -> EmbeddedOptions {
    EmbeddedOptions {
        settings: vec![(name.to_owned(), value.to_owned())],
        ..EmbeddedOptions::default()
    }
}

/// Runs statements in one connection; the first column of the first row, if there is one.
fn ask(config: &Config, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let rows = Session::open(config)?.query(sql)?;
    Ok(rows
        .into_iter()
        .next()
        .and_then(|mut row| row.swap_remove(0)))
}

fn answer(server: &Embedded, sql: &str) -> String {
    ask(&server.config(), sql).unwrap().unwrap()
}

/// Whether a process runs; one that has ended and waits to be reaped does not.
fn is_alive(pid: i32) -> bool {
    if cfg!(target_os = "linux") {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
    } else {
        kill(Pid::from_raw(pid), None).is_ok()
    }
}

fn names_in(dir: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// Runs one helper below in a process of its own, which writes into `report`.
fn helper(name: &str, report: &Path, variables: &[(&str, &Path)]) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            &format!("embedded::{name}"),
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(HELPER, report)
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn report_of_helper() -> Option<PathBuf> {
    env::var_os(HELPER).map(PathBuf::from)
}

fn write_report(report: &Path, text: String) {
    // At once: the parent must not see half of it.
    let draft = report.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, report).unwrap();
}

#[test]
fn it_answers_is_durable_and_opens_no_tcp_port() {
    let server = temporary();
    assert_eq!(answer(&server, "select 1"), "1");
    for (setting, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("max_wal_size", "1GB"),
    ] {
        assert_eq!(
            answer(&server, &format!("show {setting}")),
            value,
            "{setting}"
        );
    }
    let collation = "select datcollate from pg_database where datname = 'postgres'";
    assert_eq!(answer(&server, collation), "C");
    assert_eq!(server.port(), 5432);
    assert!(server.bin_dir().join("initdb").exists());
    assert!(server.server_log().exists());
    server.stop().unwrap();
}

#[test]
fn its_directory_is_private_and_the_dsn_leads_there() {
    let server = temporary();
    for dir in [server.socket_dir(), server.data_dir()] {
        let mode = fs::metadata(dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", dir.display());
    }
    let config = Config::from_str(&server.dsn()).unwrap();
    assert_eq!(
        ask(&config, "select current_user").unwrap().unwrap(),
        "postgres"
    );
}

#[test]
fn after_drop_neither_process_nor_files_are_left() {
    let server = temporary();
    let pid = server.postmaster_pid().unwrap();
    let dirs = [server.socket_dir(), server.data_dir()].map(Path::to_owned);
    assert!(is_alive(pid) && dirs.iter().all(|dir| dir.exists()));
    drop(server);
    assert!(!is_alive(pid) && !dirs.iter().any(|dir| dir.exists()));
}

#[test]
fn after_a_panic_neither_process_nor_files_are_left() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let panicked = thread::spawn(move || {
        let server = temporary();
        let place = server.socket_dir().to_owned();
        sender
            .send((server.postmaster_pid().unwrap(), place))
            .unwrap();
        panic!("on purpose, while the server runs");
    })
    .join();
    assert!(panicked.is_err());
    let (pid, dir) = receiver.recv().unwrap();
    assert!(!is_alive(pid) && !dir.exists());
}

#[test]
fn it_outlives_the_thread_that_started_it() {
    let server = thread::spawn(temporary).join().unwrap();
    // Long enough for a death signal to arrive and be obeyed.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(answer(&server, "select 1"), "1");
}

#[test]
fn it_starts_and_stops_inside_an_async_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { temporary().stop().unwrap() });
}

#[test]
fn ctrl_c_at_the_terminal_does_not_reach_it() {
    let server = temporary();
    let pid = Pid::from_raw(server.postmaster_pid().unwrap());
    assert_eq!(getpgid(Some(pid)).unwrap(), pid);
    assert_ne!(getpgid(Some(pid)).unwrap(), getpgrp());
}

#[test]
#[cfg(target_os = "linux")]
fn under_root_it_runs_as_another_user_without_our_groups() {
    let server = temporary();
    let pid = server.postmaster_pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let numbers = |key: &str| -> Vec<u32> {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace()
            .skip(1)
            .map(|number| number.parse().unwrap())
            .collect()
    };
    if nix::unistd::geteuid().is_root() {
        assert!(!numbers("Uid:").contains(&0) && !numbers("Gid:").contains(&0));
        assert!(numbers("Groups:").is_empty());
    } else {
        assert_eq!(numbers("Uid:")[0], nix::unistd::geteuid().as_raw());
    }
}

#[test]
fn a_kept_directory_is_made_and_used_again() {
    let parent = open_tempdir();
    let dir = parent.path().join("missing/cluster");
    let server = Embedded::start(in_dir(&dir)).unwrap();
    ask(
        &server.config(),
        "create table kept as select 42 as n; checkpoint",
    )
    .unwrap();
    let sockets = server.socket_dir().to_owned();
    assert_eq!(server.data_dir(), dir.canonicalize().unwrap());
    server.stop().unwrap();
    assert!(dir.join("PG_VERSION").exists());
    assert!(!sockets.exists());

    let server = Embedded::start(in_dir(&dir)).unwrap();
    assert_eq!(answer(&server, "select n from kept"), "42");
}

#[test]
fn a_directory_in_use_is_refused_and_names_the_process() {
    let parent = open_tempdir();
    let dir = parent.path().join("cluster");
    let server = Embedded::start(in_dir(&dir)).unwrap();
    let pid = server.postmaster_pid().unwrap().to_string();
    let error = Embedded::start(in_dir(&dir)).unwrap_err();
    assert!(matches!(error, EmbeddedError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&pid), "{error}");
    assert_eq!(answer(&server, "select 1"), "1");
}

#[test]
fn a_directory_with_other_files_is_refused_and_left_alone() {
    let dir = open_tempdir();
    fs::write(dir.path().join("letter.txt"), "dear reader").unwrap();
    let error = Embedded::start(in_dir(dir.path())).unwrap_err();
    assert!(
        matches!(error, EmbeddedError::NotACluster { .. }),
        "{error}"
    );
    assert_eq!(
        names_in(dir.path()),
        BTreeSet::from([dir.path().join("letter.txt")])
    );
}

#[test]
fn a_cluster_of_another_version_is_refused() {
    let dir = open_tempdir();
    fs::write(dir.path().join("PG_VERSION"), "11\n").unwrap();
    let error = Embedded::start(in_dir(dir.path())).unwrap_err();
    assert!(
        matches!(error, EmbeddedError::OtherVersion { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("programs of version 11"),
        "{error}"
    );
}

#[test]
fn a_failed_start_tells_the_log_and_removes_what_it_made() {
    let parent = open_tempdir();
    for dir in [parent.path().join("missing/cluster"), {
        let empty = parent.path().join("empty");
        fs::create_dir(&empty).unwrap();
        empty
    }] {
        let was_there = dir.exists();
        let error = Embedded::start(EmbeddedOptions {
            dir: Some(dir.clone()),
            ..with_setting("shared_buffers", "a lot")
        })
        .unwrap_err();
        assert!(matches!(error, EmbeddedError::Died { .. }), "{error}");
        assert!(error.to_string().contains("shared_buffers"), "{error}");
        assert_eq!(dir.exists(), was_there);
        if was_there {
            assert!(names_in(&dir).is_empty());
        }
    }
    assert!(!parent.path().join("missing").exists());
}

#[test]
fn settings_and_login_rules_of_the_caller_come_before_ours() {
    let server = Embedded::start(EmbeddedOptions {
        hba: vec!["local all nobody_at_all reject".to_owned()],
        ..with_setting("fsync", "off")
    })
    .unwrap();
    assert_eq!(answer(&server, "show fsync"), "off");
    ask(&server.config(), "create role nobody_at_all login").unwrap();
    let mut rejected = server.config();
    rejected.user("nobody_at_all");
    assert!(ask(&rejected, "select 1").is_err());
}

#[test]
fn a_port_of_the_caller_is_used() {
    let server = Embedded::start(with_setting("port", "6543")).unwrap();
    assert_eq!(server.port(), 6543);
    assert_eq!(answer(&server, "show port"), "6543");
}

#[test]
fn an_immediate_restart_recovers_what_was_committed() {
    let mut server = temporary();
    let dsn = server.dsn();
    let before = server.postmaster_pid();
    ask(&server.config(), "create table kept as select 42 as n").unwrap();
    server.restart(true).unwrap();
    assert_ne!(server.postmaster_pid(), before);
    assert_eq!(server.dsn(), dsn);
    assert_eq!(answer(&server, "select n from kept"), "42");
    let log = fs::read_to_string(server.server_log()).unwrap();
    assert!(log.contains("not properly shut down"), "{log}");
}

#[test]
fn it_can_be_away_for_a_while() {
    let mut server = temporary();
    let pid = server.postmaster_pid().unwrap();
    server.shutdown(false).unwrap();
    assert_eq!(server.postmaster_pid(), None);
    assert!(!is_alive(pid));
    assert!(ask(&server.config(), "select 1").is_err());
    server.shutdown(false).unwrap();
    server.start_again().unwrap();
    server.start_again().unwrap();
    assert_eq!(answer(&server, "select 1"), "1");
}

#[test]
fn only_an_immediate_shutdown_is_recovered_from() {
    let mut server = temporary();
    for (immediate, recoveries) in [(false, 0), (true, 1), (false, 1)] {
        server.restart(immediate).unwrap();
        let log = fs::read_to_string(server.server_log()).unwrap();
        let found = log.matches("not properly shut down").count();
        assert_eq!(found, recoveries, "{log}");
    }
}

#[test]
fn a_server_that_died_by_itself_is_cleared_away() {
    let mut server = temporary();
    let dir = server.socket_dir().to_owned();
    ask(&server.config(), "create table kept as select 42 as n").unwrap();
    kill(
        Pid::from_raw(server.postmaster_pid().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    wait_until("the server dies", || {
        !is_alive(server.postmaster_pid().unwrap())
    });
    server.shutdown(false).unwrap();
    server.start_again().unwrap();
    assert_eq!(answer(&server, "select n from kept"), "42");
    server.stop().unwrap();
    assert!(!dir.exists());
}

#[test]
fn without_programs_the_error_says_what_to_install_or_set() {
    let empty = tempfile::tempdir().unwrap();
    let nothing = Places {
        choice: None,
        path: Some(empty.path().into()),
        root: empty.path().to_owned(),
    };
    let error = nothing.find().unwrap_err().to_string();
    for word in ["apt-get install postgresql", "dnf", "brew", "PGRUNG_PG_BIN"] {
        assert!(error.contains(word), "{error}");
    }
    let wrong_choice = Places {
        choice: Some(empty.path().into()),
        ..Places::of_this_process()
    };
    let error = wrong_choice.find().unwrap_err().to_string();
    assert!(error.contains("PGRUNG_PG_BIN="), "{error}");
    assert!(
        error.contains(&empty.path().display().to_string()),
        "{error}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn when_we_are_killed_the_server_goes_too_and_its_directory_can_be_used_at_once() {
    let parent = open_tempdir();
    let report = parent.path().join("report");
    let dir = parent.path().join("cluster");
    let mut child = helper("helper_that_waits", &report, &[("CLUSTER", &dir)]);
    wait_until("the helper starts a server", || report.exists());
    let text = fs::read_to_string(&report).unwrap();
    let (pid, sockets) = text.split_once('\n').unwrap();
    let pid = pid.parse().unwrap();
    assert!(is_alive(pid));
    child.kill().unwrap();
    child.wait().unwrap();

    let server = Embedded::start(in_dir(&dir)).unwrap();
    assert!(!is_alive(pid));
    assert_eq!(answer(&server, "select n from kept"), "42");
    // Swept by a start a minute later; here it would only be in the way.
    fs::remove_dir_all(sockets).unwrap();
}

#[test]
#[ignore = "not a test: the process that is killed by the one above"]
fn helper_that_waits() {
    let Some(report) = report_of_helper() else {
        return;
    };
    let dir = PathBuf::from(env::var_os("CLUSTER").unwrap());
    let server = Embedded::start(in_dir(&dir)).unwrap();
    ask(&server.config(), "create table kept as select 42 as n").unwrap();
    let text = format!(
        "{}\n{}",
        server.postmaster_pid().unwrap(),
        server.socket_dir().display()
    );
    write_report(&report, text);
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn under_a_long_or_odd_tmpdir_it_starts_and_leaves_nothing() {
    let parent = open_tempdir();
    for (name, has_sockets) in [("x".repeat(100), false), ("o'clock \"a\\b".into(), true)] {
        let tmpdir = parent.path().join(name);
        fs::create_dir(&tmpdir).unwrap();
        fs::set_permissions(&tmpdir, fs::Permissions::from_mode(0o1777)).unwrap();
        let report = parent.path().join(format!("report-{has_sockets}"));
        let mut child = helper("helper_that_reports", &report, &[("TMPDIR", &tmpdir)]);
        assert!(child.wait().unwrap().success());
        let text = fs::read_to_string(&report).unwrap();
        let (data, sockets) = text.split_once('\n').unwrap();
        assert!(Path::new(data).starts_with(&tmpdir), "{data}");
        assert_eq!(
            Path::new(sockets).starts_with(&tmpdir),
            has_sockets,
            "{sockets}"
        );
        assert!(!Path::new(sockets).exists());
        assert!(names_in(&tmpdir).is_empty());
    }
}

#[test]
fn under_root_a_place_of_roots_own_is_passed_over_or_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (parent, private) = (open_tempdir(), tempfile::tempdir().unwrap());
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let report = parent.path().join("report");
    let mut child = helper(
        "helper_that_reports",
        &report,
        &[("TMPDIR", private.path())],
    );
    assert!(child.wait().unwrap().success());
    let text = fs::read_to_string(&report).unwrap();
    assert!(!text.contains(private.path().to_str().unwrap()), "{text}");
    let error = Embedded::start(in_dir(&private.path().join("cluster"))).unwrap_err();
    assert!(matches!(error, EmbeddedError::OutOfReach { .. }), "{error}");
    assert!(names_in(private.path()).is_empty());
}

#[test]
fn a_start_that_fails_leaves_nothing_in_the_temporary_directory() {
    let parent = open_tempdir();
    let tmpdir = parent.path().join("tmp");
    fs::create_dir(&tmpdir).unwrap();
    fs::set_permissions(&tmpdir, fs::Permissions::from_mode(0o1777)).unwrap();
    let report = parent.path().join("report");
    let mut child = helper("helper_that_fails", &report, &[("TMPDIR", &tmpdir)]);
    assert!(child.wait().unwrap().success());
    let error = fs::read_to_string(&report).unwrap();
    assert!(error.contains("no_such_setting"), "{error}");
    assert!(names_in(&tmpdir).is_empty());
}

#[test]
#[ignore = "not a test: starts a server where TMPDIR says, and ends by itself"]
fn helper_that_reports() {
    let Some(report) = report_of_helper() else {
        return;
    };
    let server = temporary();
    let config = Config::from_str(&server.dsn()).unwrap();
    assert_eq!(ask(&config, "select 1").unwrap().unwrap(), "1");
    let text = format!(
        "{}\n{}",
        server.data_dir().display(),
        server.socket_dir().display()
    );
    write_report(&report, text);
}

#[test]
#[ignore = "not a test: fails to start a server where TMPDIR says"]
fn helper_that_fails() {
    let Some(report) = report_of_helper() else {
        return;
    };
    let error = Embedded::start(with_setting("no_such_setting", "1")).unwrap_err();
    write_report(&report, error.to_string());
}
