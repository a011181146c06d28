//! The private server, on the server programs installed here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getpgrp};
use tokio_postgres::Config;

use crate::support::library::{Embedded, EmbeddedError, EmbeddedOptions, Places, find_programs};
use crate::support::server::{held_by, socket_dir};
use crate::support::{Cmd, Files, Session, names_in, nothing_in, pgrung, text, wait_until};

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

/// Runs statements in one connection; the first row, if there is one.
fn ask(config: &Config, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
    Ok(Session::open(config)?.try_lines(sql)?.into_iter().next())
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
    let parent = Files::new();
    let dir = parent.path("missing/cluster");
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
    let parent = Files::new();
    let dir = parent.path("cluster");
    let server = Embedded::start(in_dir(&dir)).unwrap();
    let pid = server.postmaster_pid().unwrap().to_string();
    let error = Embedded::start(in_dir(&dir)).unwrap_err();
    assert!(matches!(error, EmbeddedError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&pid), "{error}");
    assert_eq!(answer(&server, "select 1"), "1");
}

#[test]
fn a_directory_with_other_files_is_refused_and_left_alone() {
    let dir = Files::new();
    fs::write(dir.path("letter.txt"), "dear reader").unwrap();
    let error = Embedded::start(in_dir(dir.dir())).unwrap_err();
    assert!(
        matches!(error, EmbeddedError::NotACluster { .. }),
        "{error}"
    );
    assert_eq!(names_in(dir.dir()), ["letter.txt"]);
}

#[test]
fn a_cluster_of_another_version_is_refused() {
    let dir = Files::new();
    fs::write(dir.path("PG_VERSION"), "11\n").unwrap();
    let error = Embedded::start(in_dir(dir.dir())).unwrap_err();
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
    let parent = Files::new();
    for dir in [parent.path("missing/cluster"), {
        let empty = parent.path("empty");
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
            nothing_in(&dir);
        }
    }
    assert!(!parent.path("missing").exists());
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
    let empty = Files::new();
    let nothing = Places {
        choice: None,
        path: Some(empty.dir().into()),
        root: empty.dir().to_owned(),
    };
    let error = nothing.find().unwrap_err().to_string();
    for word in ["apt-get install postgresql", "dnf", "brew", "PGRUNG_PG_BIN"] {
        assert!(error.contains(word), "{error}");
    }
    let wrong_choice = Places {
        choice: Some(empty.dir().into()),
        ..Places::of_this_process()
    };
    let error = wrong_choice.find().unwrap_err().to_string();
    assert!(error.contains("PGRUNG_PG_BIN="), "{error}");
    assert!(
        error.contains(&empty.dir().display().to_string()),
        "{error}"
    );
}

/// A load whose source is open, which keeps a server.
fn holding_load(embedded: &str, table: &str) -> Cmd {
    let load = pgrung("load --no-header --verbose --strategy discard");
    load.args([embedded, "--table", table])
}

#[test]
#[cfg(target_os = "linux")]
fn when_we_are_killed_the_server_goes_too_and_its_directory_can_be_used_at_once() {
    let files = Files::new();
    let dir = files.path("cluster");
    let server = Embedded::start(in_dir(&dir)).unwrap();
    ask(&server.config(), "create table kept as select 42 as n").unwrap();
    server.stop().unwrap();
    let (holder, config) = held_by(&holding_load(&format!("--embedded={}", text(&dir)), "kept"));
    assert_eq!(ask(&config, "select n from kept").unwrap().unwrap(), "42");
    let pid = fs::read_to_string(dir.join("postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap().parse().unwrap();
    assert!(is_alive(pid));
    assert_eq!(holder.kill().signal, Some(9));

    let server = Embedded::start(in_dir(&dir)).unwrap();
    assert!(!is_alive(pid));
    assert_eq!(answer(&server, "select n from kept"), "42");
    // Swept by a start a minute later; here it would only be in the way.
    let sockets = socket_dir(&config);
    assert!(
        sockets
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("pgrung-pg-")
    );
    fs::remove_dir_all(sockets).unwrap();
}

#[test]
fn under_a_long_or_odd_tmpdir_it_starts_and_leaves_nothing() {
    let files = Files::new();
    for (name, has_sockets) in [("x".repeat(100), false), ("o'clock \"a\\b".into(), true)] {
        let tmpdir = files.tmpdir(&name);
        let load = holding_load("--embedded", "pg_catalog.pg_description");
        let (holder, config) = held_by(&load.env("TMPDIR", &tmpdir));
        assert_eq!(ask(&config, "select 1").unwrap().unwrap(), "1");
        let data = ask(&config, "show data_directory").unwrap().unwrap();
        assert!(Path::new(&data).starts_with(&tmpdir), "{data}");
        let sockets = socket_dir(&config);
        assert_eq!(sockets.starts_with(&tmpdir), has_sockets, "{config:?}");
        holder.end().exits(0);
        assert!(!sockets.exists());
        nothing_in(&tmpdir);
    }
}

#[test]
fn a_place_where_the_server_may_not_enter_is_passed_over_or_refused() {
    // As root the server is somebody else.
    let may_enter = !nix::unistd::geteuid().is_root();
    let private = tempfile::tempdir().unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let load = holding_load("--embedded", "nowhere").env("TMPDIR", private.path());
    let (holder, config) = held_by(&load);
    assert_eq!(
        socket_dir(&config).starts_with(private.path()),
        may_enter,
        "{config:?}"
    );
    holder.kill();
    match Embedded::start(in_dir(&private.path().join("cluster"))) {
        Ok(_) => assert!(may_enter),
        Err(error) => {
            assert!(matches!(error, EmbeddedError::OutOfReach { .. }), "{error}");
            assert!(!may_enter);
        }
    }
}

/// A server program that does not start, in a process of its own with a temporary directory of its
/// own.
#[test]
fn a_start_that_fails_leaves_nothing_in_the_temporary_directory() {
    let files = Files::new();
    let tmpdir = files.tmpdir("tmp");
    let real = find_programs().unwrap();
    let bin = files.tmpdir("bin");
    for (name, script) in [
        ("initdb", "exec $real/initdb \"$@\""),
        (
            "postgres",
            "case $1 in -V|--version) exec $real/postgres \"$@\";; esac\n\
             echo 'this server does not start' >&2; exit 1",
        ),
    ] {
        let path = bin.join(name);
        fs::write(
            &path,
            format!("#!/bin/sh\nreal='{}'\n{script}\n", real.display()),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let load = holding_load("--embedded", "nowhere").env("TMPDIR", &tmpdir);
    let ran = load.env("PGRUNG_PG_BIN", &bin).run();
    ran.exits(1).says(&["this server does not start"]);
    nothing_in(&tmpdir);
}
