//! The help of every command: the long one as it is printed 100 columns wide, the short one on a
//! terminal of 80.

use crate::support::pgrung;

/// The flags that `pgrung COMMAND --help` lists, as `--table`.
pub fn flags(command: &str) -> Vec<String> {
    let help = printed(&format!("{command} --help"));
    let named = help.lines().filter_map(|line| {
        // `  -t, --table <TABLE>`, `      --embedded[=<DIR>]`; what they do is indented further.
        let (before, flag) = line.split_once("--")?;
        let starts = before.len() == 6 && before.starts_with("  ");
        let name = flag.split([' ', '[']).next()?;
        starts.then(|| format!("--{name}"))
    });
    named.collect()
}

/// The commands that `pgrung --help` lists, but `help`.
pub fn commands() -> Vec<String> {
    let help = printed("--help");
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let names = list.lines().take_while(|line| !line.is_empty());
    let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !["", "help"].contains(name));
    names.map(str::to_owned).collect()
}

/// What `pgrung WORDS` prints on stdout.
fn printed(words: &str) -> String {
    let ran = pgrung(words).run();
    ran.exits(0);
    assert_eq!(ran.stderr, "");
    ran.stdout
}

#[test]
fn the_help_of_every_command_is_as_it_was_agreed() {
    for (name, words) in [
        ("the_help_of_pgrung", "--help"),
        ("the_help_of_load", "load --help"),
        ("the_help_of_run", "run --help"),
        ("the_help_of_bench", "bench --help"),
        ("the_help_of_status", "status --help"),
        ("the_help_of_rejects", "rejects --help"),
        ("the_help_of_replay", "replay --help"),
        ("the_help_of_plan", "plan --help"),
        ("the_help_of_prune", "prune --help"),
        ("the_help_of_migrate", "migrate --help"),
        ("the_help_of_completions", "completions --help"),
        ("the_help_of_man", "man --help"),
    ] {
        let help = printed(words);
        insta::assert_snapshot!(name, help);
        for code in ["0", "1", "2", "3", "4", "5", "6", "130"] {
            assert!(help.contains(&format!("\n  {code}  ")), "{words}: {code}");
        }
    }
}

#[test]
fn the_short_help_of_every_command_fits_on_a_screen() {
    let commands = commands();
    assert!(commands.contains(&"load".to_owned()), "{commands:?}");
    for name in commands.iter().map(String::as_str).chain([""]) {
        let ran = pgrung(&format!("{name} -h")).env("COLUMNS", "80").run();
        ran.exits(0);
        let help = ran.stdout;
        // The last of 24 is the prompt's.
        assert!(help.lines().count() <= 23, "{name}: {help}");
        assert!(help.lines().all(|line| line.len() <= 80), "{name}: {help}");
        assert!(help.trim_end().ends_with(": --help"), "{name}: {help}");
        if ["load", "bench", "plan", ""].contains(&name) {
            let name = if name.is_empty() { "pgrung" } else { name };
            insta::assert_snapshot!(format!("the_short_help_of_{name}"), help);
        }
    }
}

#[test]
fn the_long_help_is_the_same_whatever_is_asked_for_behind_it() {
    assert_eq!(printed("load --help -h"), printed("load --help"));
    assert_eq!(printed("help load"), printed("load --help"));
    assert_eq!(printed("load -h --help"), printed("load -h"));
}

#[test]
fn the_version_is_that_of_the_package() {
    let expected = format!("pgrung {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed("--version"), expected);
}
