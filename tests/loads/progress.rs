//! The bar, as it is drawn on a terminal 80 columns wide.

use crate::support::{Database, Files, Ran};

/// What a terminal of 80 columns is given, and how the load ended.
fn on_a_terminal(database: &Database, flags: &str) -> Ran {
    let load = database
        .load("t")
        .flags("-j 1 --batch-bytes 64KiB --progress bar");
    let command = load.clone().flags(flags).command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| format!("'{}'", word.to_str().unwrap()));
    let line = format!(
        "stty cols 80 rows 24; exec {}",
        quoted.collect::<Vec<_>>().join(" ")
    );
    let script = load.instead("script").args(["-qec", &line, "/dev/null"]);
    script.env("TERM", "xterm").run()
}

/// The pictures drawn over each other, without escape sequences.
fn pictures(drawn: &str) -> Vec<String> {
    drawn
        .split(['\r', '\n'])
        .map(|line| {
            let mut pieces = line.split('\u{1b}');
            let first = pieces.next().unwrap_or_default().to_owned();
            // Of each sequence the text behind its final letter.
            let rest = |piece: &str| {
                let end = piece.find(|sign: char| sign.is_ascii_alphabetic());
                end.map_or(String::new(), |end| piece[end + 1..].to_owned())
            };
            let line = pieces.map(rest).fold(first, |line, piece| line + &piece);
            line.trim_end().to_owned()
        })
        // Not the account below it.
        .filter(|line| line.contains("rows/s") && !line.contains("rows loaded"))
        .collect()
}

#[test]
fn a_bar_shows_share_bytes_rows_rate_and_time_left_in_80_columns() {
    let database = Database::with("CREATE TABLE t (id int, filling text)");
    // A hundred batches of 20 ms: more than a few pictures.
    database.slow_down("t", 20);
    let files = Files::new();
    let filling = "x".repeat(990);
    let rows: String = (1..=6400).map(|id| format!("{id},{filling}\n")).collect();
    let file = files.write("rows.csv", rows);
    let ran = on_a_terminal(&database, &format!("--no-header {file}"));
    ran.exits(0);
    let pictures = pictures(&ran.stdout);
    assert!(pictures.len() > 3, "{ran}");
    let mut before = 0;
    let mut between = 0;
    for picture in &pictures {
        assert!(picture.chars().count() <= 80, "too wide: {picture}");
        for words in ["%", " rows", " rows/s", "ETA "] {
            assert!(picture.contains(words), "no {words:?}: {picture:?}");
        }
        let share = picture.split('%').next().unwrap().rsplit(' ').next();
        let share: u32 = share.unwrap().parse().unwrap();
        assert!(
            share >= before && share <= 100,
            "{before} %, then {picture}"
        );
        before = share;
        let (_, left) = picture.split_once("ETA ").unwrap();
        // Unknown while there is no rate.
        let known = left.starts_with(|sign: char| sign.is_ascii_digit());
        let no_rate = share == 0 || picture.contains("  0 rows/s");
        assert!(known || (left == "-" && no_rate), "{picture}");
        between += usize::from((1..100).contains(&share) && !left.starts_with("0s"));
    }
    assert!(
        between > 1,
        "the bar does not move, or tells no time left: {ran}"
    );
    // The bar is gone when the account is given.
    let account = ran.stdout.rfind("6,400 rows loaded").expect("an account");
    assert!(account > ran.stdout.rfind("rows/s  ").unwrap_or(0), "{ran}");
    assert!(!ran.stdout[account..].contains("ETA"), "{ran}");
    assert_eq!(database.count("t"), 6400);
}

/// The plain lines of progress, each with its share in percent and its time left.
fn lines(ran: &Ran) -> Vec<(&str, u32, &str)> {
    let line = |line| {
        let (before, left) = str::split_once(line, ", ETA ")?;
        let share = before.rsplit("; ").next()?.split(" % of ").next()?;
        Some((line, share.parse().ok()?, left))
    };
    ran.stderr.lines().filter_map(line).collect()
}

#[test]
fn what_is_read_and_not_settled_is_neither_a_share_nor_a_time_left() {
    let database = Database::with("CREATE TABLE t (id int)");
    let files = Files::new();
    let rows: String = (1..=2000).map(|id| format!("{id}\nx\n")).collect();
    let file = files.write("rows.csv", rows);
    // All of it is read at once and is one batch, and every second row is bad.
    let flags = "--no-header --progress plain --report-every 20ms -j 1";
    for commit in ["batch", "load"] {
        database.run("TRUNCATE t");
        let load = database.load("t").flags(flags).arg(&file);
        let ran = load.args(["--commit", commit]).run();
        ran.exits(3);
        let told = lines(&ran);
        assert!(told.len() > 1, "{ran}");
        let (_, share, left) = told[0];
        assert_eq!((share, left), (0, "-"), "{ran}");
        for (line, share, left) in told {
            let nothing = line.contains(": 0 rows loaded");
            // With one commit all is written before any row is loaded.
            let written = commit == "load" && share == 100;
            assert!(!nothing || written || (share == 0 && left == "-"), "{line}");
        }
    }
}

#[test]
fn what_an_earlier_run_has_loaded_is_done_from_the_first_line_on() {
    let database = Database::with("CREATE TABLE t (id int, filling text)");
    let files = Files::new();
    let filling = "x".repeat(990);
    let rows: String = (1..=1000).map(|id| format!("{id},{filling}\n")).collect();
    let file = files.write("rows.csv", rows);
    let load = database
        .load_once("t")
        .arg(&file)
        .flags("--no-header -j 1 --batch-rows 100");
    let part = load
        .clone()
        .flags("--limit 900 --progress plain --report-every 10ms")
        .run();
    part.exits(0);
    assert!(
        lines(&part).is_empty(),
        "how far the limit is, is not known: {part}"
    );
    database.slow_down("t", 300);
    let rest = load.flags("--progress plain --report-every 20ms").run();
    let told = lines(rest.exits(0));
    assert!(told.len() > 1, "{rest}");
    for (line, share, left) in told {
        assert!(share >= 89, "{line}");
        assert!(
            share == 100 || left == "-" || !left.starts_with("0s"),
            "{line}"
        );
    }
}

#[test]
fn a_bar_of_a_source_without_a_known_end_shows_no_share() {
    let database = Database::with("CREATE TABLE t (id int)");
    database.slow_down("t", 20);
    let files = Files::new();
    let pipe = files.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let rows: String = (1..=5000).map(|id| format!("{id}\n")).collect();
    let target = pipe.clone();
    let writer = std::thread::spawn(move || std::fs::write(target, rows).unwrap());
    let flags = format!("--no-header --batch-rows 100 {}", pipe.display());
    let ran = on_a_terminal(&database, &flags);
    ran.exits(0);
    writer.join().unwrap();
    let pictures = pictures(&ran.stdout);
    assert!(pictures.len() > 1, "{ran}");
    for picture in &pictures {
        assert!(picture.chars().count() <= 80, "too wide: {picture}");
        assert!(
            !picture.contains(['%', '/']) || picture.matches('/').count() == 1,
            "{picture}"
        );
        assert!(!picture.contains("ETA"), "{picture}");
    }
}
