//! The house itself: a room of src imports only from rooms below it, so there are no circles.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from top to bottom: folders and files directly below src, but for main and lib.
const ROOMS: [&str; 30] = [
    "commands",
    "cli",
    "bench",
    "load",
    "error",
    "plan",
    "job",
    "worker",
    "merge",
    "ledger",
    "retry",
    "strategy",
    "target",
    "encode",
    "queue",
    "source",
    "report",
    "metrics",
    "reject_file",
    "connect",
    "embedded",
    "batch",
    "window",
    "span",
    "outcome",
    "exit_code",
    "faults",
    "machine",
    "server_error",
    "stop",
];

/// Every source file with its room.
fn files() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let below = path.strip_prefix(&src).unwrap();
                let room = below.iter().next().unwrap().to_str().unwrap();
                files.push((path.clone(), room.trim_end_matches(".rs").to_owned()));
            }
        }
    }
    files.retain(|(_, room)| room != "main" && room != "lib");
    files
}

/// The rooms that a text names as `crate::room` or `crate::{room, ...}`, comments aside.
fn named(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let word = |text: &str| -> String {
        let part = |sign: &char| sign.is_ascii_alphanumeric() || *sign == '_';
        text.trim_start().chars().take_while(part).collect()
    };
    let mut rooms = Vec::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            Some(list) => rooms.extend(list.split('}').next().unwrap().split(',').map(word)),
            None => rooms.push(word(path)),
        }
    }
    rooms
}

#[test]
fn a_room_imports_only_from_rooms_below_it() {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    for (path, room) in files() {
        let own = place(&room).unwrap_or_else(|| panic!("{room} has no place in ROOMS"));
        for other in named(&fs::read_to_string(&path).unwrap()) {
            let below = place(&other).is_some_and(|other| other >= own);
            assert!(below, "{}: {other} is not below {room}", path.display());
        }
    }
}

#[test]
fn every_way_to_name_a_room_is_seen() {
    let text = "use crate::span::Known; // crate::load\nuse crate::{connect, ledger::Ledger};\nlet x = crate::retry::pause();";
    assert_eq!(named(text), ["span", "connect", "ledger", "retry"]);
}
