//! Looks a service up in libpq's connection service files (PostgreSQL documentation, 34.17).
//!
//! As fe-connect.c's parseServiceInfo and parseServiceFile: no quotes, no spaces around `=`, the
//! first of equal sections and of equal names wins, and the permissions of the file do not matter.
//! LDAP is not asked. No error repeats any part of a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::dsn::{self, Parameters, Support, is_connection_string};

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Bytes with the line end: one less than fit into fe-connect.c's buffer of 1024.
const LONGEST_LINE: usize = 1022;

/// Where libpq looks without `PGSYSCONFDIR`, as Debian, Red Hat and PostgreSQL itself build it.
const SYSTEM_DIRS: [&str; 3] = [
    "/etc/postgresql-common",
    "/etc/sysconfig/pgsql",
    "/usr/local/pgsql/etc",
];

/// The parameters of a service and the file that has them: the user's own, else the system's.
///
/// # Errors
/// The service is in neither, or the file is not as libpq reads it.
pub(super) fn look_up(
    name: &str,
    home: Option<&Path>,
    env: Environment<'_>,
) -> Result<(Parameters, PathBuf), String> {
    let own = match env("PGSERVICEFILE") {
        // Has to be there.
        Some(named) => Some(PathBuf::from(named)),
        None => home
            .map(|home| home.join(".pg_service.conf"))
            .filter(|path| path.exists()),
    };
    let system_dirs = match env("PGSYSCONFDIR") {
        Some(dir) => vec![dir],
        None => SYSTEM_DIRS.map(str::to_owned).to_vec(),
    };
    let system = system_dirs
        .iter()
        .map(|dir| PathBuf::from(format!("{dir}/pg_service.conf")))
        .find(|path| path.exists());
    let mut looked_in = Vec::new();
    for path in own.into_iter().chain(system) {
        if let Some(parameters) = section(&path, name)? {
            return Ok((parameters, path));
        }
        looked_in.push(shown(&path.to_string_lossy()));
    }
    let name = shown(name);
    Err(match looked_in.is_empty() {
        true => format!(
            "definition of service {name} not found: there is no service file; name one by PGSERVICEFILE"
        ),
        false => format!(
            "definition of service {name} not found in {}; check the name",
            looked_in.join(" and ")
        ),
    })
}

/// Quoted, unless it holds a password for being in the wrong variable.
fn shown(text: &str) -> String {
    match is_connection_string(text) {
        true => "(a connection string: give it with --dsn, or as DATABASE_URL)".to_owned(),
        false => format!("\"{text}\""),
    }
}

/// The parameters of the first section of this name, if there is one.
fn section(path: &Path, name: &str) -> Result<Option<Parameters>, String> {
    let file = shown(&path.to_string_lossy());
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("service file {file} not found"),
        _ => format!("service file {file}: {error}"),
    })?;
    let mut found: Option<Parameters> = None;
    for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        if line.len() > LONGEST_LINE {
            return Err(format!("line {number} too long in service file {file}"));
        }
        let line = trimmed(line);
        if let Some(header) = line.strip_prefix(b"[") {
            if found.is_some() {
                break;
            }
            let rest = header.strip_prefix(name.as_bytes());
            if rest.is_some_and(|rest| rest.starts_with(b"]")) {
                found = Some(Parameters::new());
            }
        } else if let Some(parameters) = &mut found
            && !line.is_empty()
            && !line.starts_with(b"#")
        {
            let (key, value) = parameter(line).map_err(|(what, advice)| {
                format!("{what} in service file {file}, line {number}; {advice}")
            })?;
            parameters.entry(key).or_insert(value);
        }
    }
    Ok(found)
}

/// Without what C's isspace() takes for space, at both ends.
fn trimmed(line: &[u8]) -> &[u8] {
    let solid = |byte: &u8| !matches!(byte, b' ' | b'\t'..=b'\r');
    let start = line.iter().position(solid).unwrap_or(line.len());
    let end = line.iter().rposition(solid).map_or(start, |last| last + 1);
    &line[start..end]
}

/// Or what is wrong, and what to do.
fn parameter(line: &[u8]) -> Result<(String, String), (String, &'static str)> {
    let fault = |what: &str, advice| Err((what.to_owned(), advice));
    let Ok(line) = str::from_utf8(line) else {
        return fault("text that is not UTF-8", "convert it");
    };
    if line.starts_with("ldap") {
        return fault("LDAP is not supported", "write the parameters themselves");
    }
    let (key, value) = line.split_once('=').unwrap_or(("", ""));
    if key == "service" {
        return fault(
            "nested service specifications not supported",
            "write the parameters themselves",
        );
    }
    match dsn::support(key) {
        Support::Read => Ok((key.to_owned(), value.to_owned())),
        Support::NotRead => fault(
            &format!("parameter `{key}` is not supported"),
            "leave it out",
        ),
        Support::Unknown => fault(
            "syntax error",
            "write name=value, with a name of libpq and no space before the =",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The service `s` in a file of this text.
    fn read(text: impl AsRef<[u8]>) -> Result<Option<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, text).unwrap();
        let found = section(&path, "s").map_err(|error| {
            let name = format!(" service file \"{}\"", path.display());
            error.replace(&name, "")
        })?;
        let pairs = |all: Parameters| all.iter().map(|(k, v)| format!("{k}={v};")).collect();
        Ok(found.map(pairs))
    }

    #[test]
    fn a_section_ends_at_the_next_and_the_first_of_a_name_wins() {
        let text = "host=no\n[ss]\nhost=no\n[s] x\n #c\n\n\thost=h \r\nhost=no\nport=\n[t]\nx\n[s]\nuser=no";
        assert_eq!(read(text).unwrap().unwrap(), "host=h;port=;");
        assert_eq!(read("[t]\nhost=h\n[ s ]\n[S]\n").unwrap(), None);
        assert_eq!(read("[s]").unwrap().unwrap(), "");
    }

    #[test]
    fn a_value_is_the_rest_of_the_line_as_it_stands() {
        let text = "[s]\npassword= a 'b' \\c = d#e \x0b\x0c\n";
        assert_eq!(read(text).unwrap().unwrap(), "password= a 'b' \\c = d#e;");
    }

    #[test]
    fn a_fault_is_told_with_its_line_and_without_its_text() {
        for (line, fault) in [
            ("hunter", "syntax error"),
            ("hunter=2", "syntax error"),
            ("host =hunter", "syntax error"),
            ("requiressl=1", "syntax error"),
            ("service=hunter", "nested service"),
            ("ldap://hunter/x?y=z", "LDAP is not supported"),
            ("sslcrl=hunter", "`sslcrl` is not supported"),
        ] {
            let error = read(format!("# c\n[s]\n{line}\n")).unwrap_err();
            assert!(error.contains(fault) && error.contains("line 3"), "{error}");
            assert!(!error.contains("hunter"), "{error}");
            // Nobody reads another service's lines.
            assert_eq!(read(format!("[t]\n{line}\n")).unwrap(), None);
        }
        let error = read(b"[s]\npassword=\xe9\n").unwrap_err();
        assert!(error.contains("not UTF-8 in, line 2;"), "{error}");
    }

    #[test]
    fn a_line_of_any_section_has_at_most_1022_bytes_with_its_end() {
        let line = |length: usize| format!("#{}\n", "x".repeat(length - 2));
        let long = |before: &str, after: &str| format!("{before}{}{after}", line(1023));
        assert_eq!(read(line(1022) + "[s]\n").unwrap().unwrap(), "");
        assert_eq!(read(long("", "[s]\n")).unwrap_err(), "line 1 too long in");
        assert_eq!(read(long("[s]\n", "")).unwrap_err(), "line 2 too long in");
        assert_eq!(read(long("[s]\n[t]\n", "")).unwrap().unwrap(), "");
    }
}
