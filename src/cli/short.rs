//! The help of `-h`, which fits on a screen: the flags most used, each in a few words, and examples.
//! `--help` tells the rest.

use std::ffi::OsString;

use clap::{Arg, Command};

/// What `-h` tells of a command with more flags than a screen has lines.
struct Short {
    command: &'static str,
    /// The flags by their ids, in the order of the help, with the words they have there.
    flags: [(&'static str, &'static str); 10],
    examples: [&'static str; 2],
}

const SHORT: [Short; 4] = [
    Short {
        command: "load",
        flags: [
            ("table", "Target table, as in SQL: [schema.]table"),
            ("dsn", "Connection URI or key=value string"),
            ("no_header", "The first record is data, not column names"),
            ("columns", "Columns of the fields in their order"),
            ("mode", "append, ignore, upsert, replace, sync"),
            ("key", "Columns by which rows are the same"),
            ("strategy", "copy, unnest, multi-insert, pipeline, insert"),
            ("workers", "Connections that write at the same time"),
            ("rejects", "Export bad rows to this file"),
            ("reject_limit", "Stop past so many bad rows"),
        ],
        examples: [
            "pgrung load 'data/*.csv.gz' --table sales.orders --rejects bad.csv",
            "zcat big.gz | pgrung load - --table big --no-header --columns id,name",
        ],
    },
    Short {
        command: "check",
        flags: [
            ("table", "Target table, as in SQL: [schema.]table"),
            ("dsn", "Connection URI or key=value string"),
            ("no_header", "The first record is data, not column names"),
            ("columns", "Columns of the fields in their order"),
            ("map", "Fill a column with an SQL expression"),
            ("mode", "append, ignore, upsert, replace, sync"),
            ("key", "Columns by which rows are the same"),
            ("limit", "Read at most this many records"),
            ("max_delete", "Stop if more rows would be deleted"),
            ("reject_limit", "Stop past so many bad rows"),
        ],
        examples: [
            "pgrung check today.csv --table customers --mode sync",
            "pgrung check big.csv --table big --limit 10000",
        ],
    },
    Short {
        command: "bench",
        flags: [
            ("rows", "Rows of TPC-H lineitem to make"),
            ("inputs", "Your own rows instead: a file"),
            ("table", "Your own table; copies of it are loaded"),
            ("dsn", "Connection URI or key=value string"),
            ("strategies", "Strategies to compare, separated by commas"),
            ("rounds", "Rounds; every strategy runs once in each"),
            ("max_seconds", "Longest time of one run"),
            ("workers", "Connections that write at the same time"),
            ("round_trips", "Round trips to add, separated by commas"),
            ("markdown", "Print the table as Markdown"),
        ],
        examples: [
            "pgrung bench --strategies multi-insert,copy --rtt 1ms,10ms",
            "pgrung bench --input orders.csv --table orders --dsn postgres:///shop",
        ],
    },
    Short {
        command: "plan",
        flags: [
            ("rows_per_second", "Rows that arrive in a second"),
            ("row_bytes", "Bytes of a row in the source"),
            ("latency", "Longest time from arrival to commit"),
            ("round_trip", "Time from a message to its answer"),
            ("commit_time", "Time that the server needs for COMMIT"),
            ("strategy", "copy, unnest, multi-insert, pipeline, insert"),
            ("workers", "Connections that write at the same time"),
            ("batch_rows", "Rows that close a batch"),
            ("max_wait", "Longest wait of a batch's first row for more"),
            ("dsn", "Connection URI or key=value string"),
        ],
        examples: [
            "pgrung plan --rows-per-second 40000 --row-bytes 120 --latency 200ms",
            "pgrung plan --rows-per-second 900 --row-bytes 80 --dsn postgres:///shop",
        ],
    },
];

/// Whether the words of a command line ask for the short help, and not for the long one before it:
/// clap tells the two apart no sooner than it prints one.
pub fn is_asked(mut words: impl Iterator<Item = OsString>) -> bool {
    words.find(|word| word == "-h" || word == "--help") == Some("-h".into())
}

/// The command line with the short help; how it is parsed stays as it is.
pub fn short(command: Command) -> Command {
    // The flags of the output, which all commands share.
    let command = command.mut_args(|argument| argument.hide_short_help(true));
    // `pgrung help` works, but needs a line that the screen does not have.
    let command = command.disable_help_subcommand(true);
    shorten(command).mut_subcommands(shorten)
}

fn shorten(command: Command) -> Command {
    let short = SHORT
        .iter()
        .find(|short| short.command == command.get_name());
    let mut end = "Every flag, its default, and the exit codes: --help".to_string();
    if let Some(short) = short {
        let [first, second] = short.examples;
        end = format!("Examples:\n  {first}\n  {second}\n\n{end}");
    }
    let all = command.get_after_help().cloned().unwrap_or_default();
    let command = command.after_help(end).after_long_help(all);
    match short {
        Some(short) => command.mut_args(|argument| in_few_words(argument, short)),
        None => command,
    }
}

fn in_few_words(argument: Arg, short: &Short) -> Arg {
    let place = (0..)
        .zip(short.flags)
        .find(|(_, (id, _))| argument.get_id() == id);
    let Some((place, (_, words))) = place else {
        return argument.hide_short_help(true);
    };
    let all = argument.get_help().cloned().unwrap_or_default();
    let has_values = argument.get_action().takes_values();
    // A heading costs two lines, a list of values one or two.
    argument
        .help(words)
        .long_help(all)
        .help_heading(None)
        .hide_possible_values(has_values)
        .display_order(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &str) -> bool {
        is_asked(words.split(' ').map(OsString::from))
    }

    #[test]
    fn what_comes_first_is_what_is_asked() {
        assert!(asked("load -h") && asked("load -h --help"));
        assert!(!asked("load --help") && !asked("load --help -h") && !asked("load -j 2"));
    }

    #[test]
    fn every_flag_is_one_of_its_command_and_every_value_one_of_its_flag() {
        let all = crate::cli::command();
        for Short { command, flags, .. } in SHORT {
            let command = all.find_subcommand(command).unwrap();
            for (id, words) in flags {
                let mut known = command.get_arguments();
                let flag = known.find(|flag| flag.get_id() == id).unwrap();
                let values = flag.get_possible_values();
                let is_value = |word: &str| values.iter().any(|value| value.get_name() == word);
                let told = || words.split(", ");
                assert_eq!(told().any(is_value), told().all(is_value), "{id}: {words}");
            }
        }
        short(all).debug_assert();
    }
}
