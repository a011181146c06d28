//! `pgrung man`.

use std::fs;
use std::io;
use std::iter;
use std::path::Path;

use clap::Command;
use clap::builder::Resettable;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use serde_json::json;

use super::done::Done;
use crate::cli::{ManArgs, command};
use crate::error::Error;

pub fn run(args: &ManArgs) -> Result<Done, Error> {
    let mut top = command().disable_help_subcommand(true);
    top.build();
    let failed = |path: &Path| {
        let name = path.display().to_string();
        move |source: io::Error| Error::Output { name, source }
    };
    let Some(dir) = &args.dir else {
        let (_, page) = page(top).map_err(failed(Path::new("stdout")))?;
        let page = String::from_utf8_lossy(&page).into_owned();
        let fields = json!({ "page": page });
        return Ok(Done::new(page, fields));
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let mut written = Vec::new();
    for command in iter::once(&top).chain(top.get_subcommands()) {
        let (name, page) = page(command.clone()).map_err(failed(dir))?;
        let path = dir.join(name);
        fs::write(&path, page).map_err(failed(&path))?;
        written.push(path.display().to_string());
    }
    let text = format!("{} man pages are in {}\n", written.len(), dir.display());
    Ok(Done::new(text, json!({ "pages": written })))
}

/// The name of a command's file and its content. What the help ends with, a title and lines below it
/// that are indented, makes sections.
fn page(mut command: Command) -> io::Result<(String, Vec<u8>)> {
    let end = command.get_after_help().map(ToString::to_string);
    // Else the synopsis lists every flag.
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_string();
    let command = command.after_help(Resettable::Reset).override_usage(usage);
    let version = concat!("pgrung ", env!("CARGO_PKG_VERSION"));
    // An empty date would not be written, and the version be taken for it.
    let man = Man::new(command).date(" ").source(version);
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut sections = Roff::new();
    for line in end.unwrap_or_default().lines() {
        match line.strip_suffix(':') {
            Some(title) if !title.starts_with(' ') => {
                sections.control("fi", []);
                sections.control("SH", [title.to_uppercase().as_str()]);
                sections.control("nf", []);
            }
            _ => {
                sections.text([roman(line)]);
            }
        }
    }
    sections.to_writer(&mut page)?;
    Ok((man.get_filename(), page))
}
