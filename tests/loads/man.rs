//! `pgrung man`: a page for each command, which man takes without a warning.

use std::fs;
use std::process::Command;

use super::help;
use crate::support::{Files, names_in, pgrung, text};

#[test]
fn every_command_has_a_page_that_names_its_flags_and_exit_codes() {
    let files = Files::new();
    let dir = files.path("share/man1");
    let ran = pgrung("man").arg(&dir).run();
    ran.exits(0);
    let mut names: Vec<String> = help::commands();
    let count = names.len() + 1;
    assert_eq!(
        ran.stdout,
        format!("{count} man pages are in {}\n", text(&dir))
    );
    let pages = names_in(&dir);
    names = names
        .iter()
        .map(|name| format!("pgrung-{name}.1"))
        .collect();
    names.push("pgrung.1".to_owned());
    names.sort();
    assert_eq!(pages, names);
    for name in pages {
        let page = fs::read_to_string(dir.join(&name)).unwrap();
        let command = name
            .trim_start_matches("pgrung")
            .trim_matches(['-', '.', '1']);
        for flag in help::flags(command) {
            let flag = format!("\\fB{}\\fR", flag.replace('-', "\\-"));
            assert!(page.contains(&flag), "{name}: {flag}");
        }
        let version = concat!(" 1 \" \" \"pgrung ", env!("CARGO_PKG_VERSION"), "\"");
        assert!(page.contains(version), "{name}: {page}");
        assert!(page.contains("\n.SH \"EXIT CODES\"\n"), "{name}");
        assert!(page.contains("\n  143  terminated"), "{name}");
        assert!(!page.contains(".SH EXTRA"), "{name}");
        let main = pgrung("man").run();
        main.exits(0);
        assert!(name != "pgrung.1" || main.stdout == page);
    }
}

#[test]
fn man_takes_every_page_without_a_warning() {
    if Command::new("man").arg("--version").output().is_err() {
        eprintln!("not run: there is no man here");
        return;
    }
    let files = Files::new();
    pgrung("man").arg(files.dir()).run().exits(0);
    for name in names_in(files.dir()) {
        let man = pgrung("").instead("man").env("MANWIDTH", "80");
        let man = man.flags("--warnings -l").arg(files.path(&name));
        let ran = man.run();
        ran.exits(0);
        assert_eq!(ran.stderr, "", "{name}");
        assert!(ran.stdout.contains("SYNOPSIS"), "{name}: {}", ran.stdout);
    }
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let files = Files::new();
    let path = files.write("file", "");
    for dir in [path.clone(), format!("{path}/man1")] {
        let ran = pgrung("man").arg(&dir).run();
        ran.exits(1);
        let told = format!("cannot write {dir}: ");
        assert!(ran.stderr.contains(&told), "{ran}");
        assert_eq!(ran.stdout, "");
    }
}
