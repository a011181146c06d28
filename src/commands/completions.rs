//! `pgrung completions`.

use clap_complete::generate;
use serde_json::json;

use super::done::Done;
use crate::cli::{CompletionsArgs, command};

pub fn run(args: &CompletionsArgs) -> Done {
    let mut script = Vec::new();
    generate(args.shell, &mut command(), "pgrung", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let fields = json!({ "shell": args.shell.to_string(), "script": script });
    Done::new(script, fields)
}
