//! `pgrung completions`: scripts that name every flag, and one that is tried in its shell.

use super::help;
use crate::support::{Files, pgrung};

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

fn script(shell: &str) -> String {
    let ran = pgrung(&format!("completions {shell}")).run();
    ran.exits(0);
    assert_eq!(ran.stderr, "");
    ran.stdout
}

/// The words that bash offers for the last one of `words`, sorted.
fn offered(script: &str, words: &[&str]) -> Vec<String> {
    // What readline does: the function with the command, the word, and the one before it.
    let asked = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _pgrung "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let bash = pgrung("").instead("bash");
    let bash = bash.args(["--norc", "-c", asked, "bash", script, "pgrung"]);
    let ran = bash.args(words).run();
    ran.exits(0);
    assert_eq!(ran.stderr, "");
    let mut found: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn the_script_of_every_shell_names_every_flag_of_load() {
    let flags = help::flags("load");
    assert!(flags.contains(&"--table".to_owned()), "{flags:?}");
    for shell in SHELLS {
        let script = script(shell);
        for flag in &flags {
            let name = match shell {
                "fish" => flag.replacen("--", "-l ", 1),
                _ => flag.clone(),
            };
            let longer = |next: char| next.is_ascii_alphanumeric() || next == '-';
            let named = script.split(&name).skip(1);
            let found = named.filter(|rest| !rest.starts_with(longer)).count();
            assert!(found > 0, "{shell}: {flag}");
        }
    }
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let files = Files::new();
    let path = files.write("pgrung.bash", script("bash"));
    let offered = |words: &[&str]| offered(&path, words);
    assert_eq!(offered(&["re"]), ["rejects", "replay"]);
    assert_eq!(
        offered(&["load", "--reject"]),
        ["--reject-limit", "--rejects"]
    );
    assert_eq!(offered(&["load", "--strategy", "un"]), ["unnest"]);
    assert_eq!(offered(&["completions", "z"]), ["zsh"]);
    let mut flags = help::flags("load");
    flags.sort();
    assert_eq!(offered(&["load", "--"]), flags);
}

#[test]
fn a_shell_that_is_none_is_wrong_usage() {
    pgrung("completions").run().exits(2);
    let ran = pgrung("completions tcsh").run();
    ran.exits(2);
    assert!(ran.stderr.contains("powershell"), "{ran}");
}

#[test]
fn in_json_the_script_is_one_field() {
    let ran = pgrung("completions bash --log-format json").run();
    ran.exits(0);
    let account: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(account["script"], script("bash"));
}
