//! The help of every command, as it is printed 100 columns wide.

use crate::support::{pgrung, run};

/// What `pgrung ARGUMENTS` prints on stdout.
fn printed(arguments: &[&str]) -> String {
    let ran = run(pgrung().args(arguments));
    ran.exits(0);
    assert_eq!(ran.stderr, "");
    ran.stdout
}

#[test]
fn the_help_of_pgrung() {
    insta::assert_snapshot!(printed(&["--help"]));
}

#[test]
fn the_help_of_load() {
    insta::assert_snapshot!(printed(&["load", "--help"]));
}

#[test]
fn the_help_of_bench() {
    insta::assert_snapshot!(printed(&["bench", "--help"]));
}

#[test]
fn the_help_of_status() {
    insta::assert_snapshot!(printed(&["status", "--help"]));
}

#[test]
fn the_help_of_replay() {
    insta::assert_snapshot!(printed(&["replay", "--help"]));
}

#[test]
fn the_help_of_plan() {
    insta::assert_snapshot!(printed(&["plan", "--help"]));
}

#[test]
fn the_help_of_migrate() {
    insta::assert_snapshot!(printed(&["migrate", "--help"]));
}

#[test]
fn the_version_is_that_of_the_package() {
    let expected = format!("pgrung {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed(&["--version"]), expected);
}

#[test]
fn every_exit_code_is_in_the_help() {
    for arguments in [
        &["--help"][..],
        &["load", "--help"],
        &["status", "--help"],
        &["replay", "--help"],
        &["migrate", "--help"],
        &["bench", "--help"],
    ] {
        let help = printed(arguments);
        for code in [
            "  0  ", "  1  ", "  2  ", "  3  ", "  4  ", "  5  ", "  6  ", "  130  ",
        ] {
            assert!(help.contains(code), "{arguments:?} {code}");
        }
    }
}
