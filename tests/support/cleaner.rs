//! Removes what this process leaves of its servers when it ends, however that comes about: nothing
//! drops a static, so a shell waits for the end of a pipe whose only writer is this process.
//!
//! It removes a directory only if it can prove that this process made it: by the name that
//! directories of private servers have, and by a file in it that is ours and bears the name of this
//! run of the tests.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use super::library::Embedded;

/// `$1`: the name of the marker. stdin: a directory a line.
const SCRIPT: &str = r#"
    marker=$1
    made=$(cat)
    printf '%s\n' "$made" | while IFS= read -r dir; do
        case "${dir##*/}" in pgrung-pg-?*) ;; *) continue;; esac
        [ -d "$dir" ] && [ ! -L "$dir" ] && [ -f "$dir/$marker" ] && [ -O "$dir/$marker" ] || continue
        pid=$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null)
        case $(ps -o comm= -p "${pid:-0}" 2>/dev/null) in *postgres) kill -INT "$pid";; esac
        for _ in $(seq 100); do [ -e "$dir/data/postmaster.pid" ] || break; sleep 0.1; done
        rm -rf -- "$dir"
    done
"#;

fn start(marker: &str) -> Child {
    Command::new("sh")
        .args(["-c", SCRIPT, "cleaner", marker])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C ends the tests, not the cleaning.
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Has the temporary directories of a server removed if it is still there when this process ends.
pub fn hand_over(server: &Embedded) {
    static CLEANER: OnceLock<(String, Mutex<Child>)> = OnceLock::new();
    let (marker, cleaner) = CLEANER.get_or_init(|| {
        let marker = format!(".made-by-tests-{:016x}", fastrand::u64(..));
        let child = start(&marker);
        (marker, Mutex::new(child))
    });
    let mut cleaner = cleaner.lock().unwrap();
    for dir in [server.data_dir().parent().unwrap(), server.socket_dir()] {
        let name = dir.file_name().unwrap().to_string_lossy();
        if name.starts_with("pgrung-pg-") {
            fs::write(dir.join(marker), "").unwrap();
            writeln!(cleaner.stdin.as_mut().unwrap(), "{}", dir.display()).unwrap();
        }
    }
}

#[test]
fn only_directories_with_our_name_and_our_marker_are_removed() {
    let files = super::Files::new();
    let ours = ".made-by-tests-0123";
    let make = |name: &str, marker: &str| {
        let dir = files.path(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(marker), "").unwrap();
        dir
    };
    let mut listed = vec![
        make("pgrung-pg-ours", ours),
        make("pgrung-pg-another-run", ".made-by-tests-4567"),
        make("pgrung-pg-", ours),
        make("letters", ours),
        files.path("pgrung-pg-link"),
        files.path("pgrung-pg-missing"),
    ];
    let behind_link = make("home", ours);
    std::os::unix::fs::symlink(&behind_link, &listed[4]).unwrap();
    if nix::unistd::geteuid().is_root() {
        let foreign = make("pgrung-pg-foreign", ours);
        std::os::unix::fs::chown(foreign.join(ours), Some(65534), None).unwrap();
        listed.push(foreign);
    }
    make("pgrung-pg-not-told", ours);
    let before = super::names_in(files.dir());
    let mut child = start(ours);
    let mut stdin = child.stdin.take().unwrap();
    // The parent, the root and nothing at all must be harmless too.
    writeln!(stdin, "{}\n/\n", files.dir().display()).unwrap();
    for dir in &listed {
        writeln!(stdin, "{}", dir.display()).unwrap();
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    let mut expected = before;
    expected.retain(|name| name != "pgrung-pg-ours");
    assert_eq!(super::names_in(files.dir()), expected);
    assert!(Path::new(&behind_link).join(ours).exists());
}
