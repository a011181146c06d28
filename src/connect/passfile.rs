//! Looks a password up in a libpq password file (`.pgpass`).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where Debian's and PostgreSQL's own builds put their socket, in the order looked at.
pub(super) const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Any right of group or others makes libpq ignore the file.
pub(super) const FORBIDDEN_MODE: u32 = 0o077;

/// What identifies a line: the host as named, the port, the database and the user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

/// A password file's text; empty if there is no file or it may not be used.
#[derive(Default)]
pub(super) struct Passfile(String);

impl Passfile {
    /// Reads the file. A missing one is no fault; one that others can read, that is
    /// no plain file or that cannot be read is ignored, which the warning tells.
    pub(super) fn read(path: &Path) -> (Passfile, Option<String>) {
        let name = path.display();
        let ignored = |why: String| (Passfile::default(), Some(why));
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return (Passfile::default(), None),
            Err(e) => return ignored(format!("password file {name} ignored: {e}")),
        };
        if !meta.is_file() {
            return ignored(format!(
                "password file {name} ignored: it is not a plain file"
            ));
        }
        if meta.permissions().mode() & FORBIDDEN_MODE != 0 {
            return ignored(format!(
                "password file {name} ignored: group or others have access; chmod 0600 it"
            ));
        }
        match fs::read(path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => (Passfile(text), None),
                Err(_) => ignored(format!("password file {name} ignored: it is not UTF-8")),
            },
            Err(e) => ignored(format!("password file {name} ignored: {e}")),
        }
    }

    /// The password of the first matching line; an empty one counts as none.
    pub(super) fn password(&self, wanted: Wanted<'_>) -> Option<String> {
        let host = if SOCKET_DIRS.contains(&wanted.host) {
            "localhost"
        } else {
            wanted.host
        };
        let port = wanted.port.to_string();
        let keys = [host, &port, wanted.dbname, wanted.user];
        self.0
            .lines()
            .find_map(|line| password_of(line, keys))
            .filter(|password| !password.is_empty())
    }
}

/// `host:port:database:user:password`; the password is the rest of the line.
fn password_of(line: &str, keys: [&str; 4]) -> Option<String> {
    let line = line.trim_end_matches('\r');
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for key in keys {
        let (field, tail) = split_field(rest)?;
        if field != "*" && unescape(field) != key {
            return None;
        }
        rest = tail;
    }
    Some(unescape(rest))
}

/// Splits at the first colon without a backslash before it.
fn split_field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            // A colon is one byte, so what follows begins at a character.
            ':' => return Some((&text[..i], &text[i + 1..])),
            _ => {}
        }
    }
    None
}

/// Drops the backslash before any character; one at the end stays.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(next)) => {
                out.push(next);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(text: &str, host: &str) -> Option<String> {
        let wanted = Wanted {
            host,
            port: 5432,
            dbname: "app",
            user: "etl",
        };
        Passfile(text.to_owned()).password(wanted)
    }

    #[test]
    fn the_first_matching_line_wins() {
        let text = "other:5432:app:etl:no\nh:*:app:etl:first\n*:*:*:*:second\n";
        assert_eq!(lookup(text, "h").as_deref(), Some("first"));
        assert_eq!(lookup(text, "x").as_deref(), Some("second"));
    }

    #[test]
    fn a_password_is_the_rest_of_the_line_without_its_backslashes() {
        let text = "*:*:*:*:a\\:b:c\\\\d é\r\n";
        assert_eq!(lookup(text, "h").as_deref(), Some("a:b:c\\d é"));
    }

    #[test]
    fn an_escaped_colon_belongs_to_the_host_and_an_escaped_star_is_a_star() {
        assert_eq!(
            lookup("\\:\\:1:*:*:*:v6", "::1").as_deref(),
            Some("v6"),
            "an IPv6 address is written with escaped colons"
        );
        assert_eq!(lookup("\\*:*:*:*:no", "h"), None);
    }

    #[test]
    fn comments_short_lines_and_empty_passwords_give_none() {
        assert_eq!(
            lookup("#*:*:*:*:no\n\nh:5432\nh:5432:app:etl:\n", "h"),
            None
        );
    }

    #[test]
    fn localhost_also_means_the_default_socket_directory() {
        let text = "localhost:5432:app:etl:local\n";
        assert_eq!(
            lookup(text, "/var/run/postgresql").as_deref(),
            Some("local")
        );
        assert_eq!(lookup(text, "/tmp").as_deref(), Some("local"));
        assert_eq!(lookup(text, "/srv/sockets"), None);
    }

    #[test]
    fn a_file_others_can_read_is_ignored_with_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let (file, warning) = Passfile::read(&path);
        assert!(file.0.is_empty());
        assert!(warning.unwrap().contains("chmod 0600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (file, warning) = Passfile::read(&path);
        assert_eq!((file.0.is_empty(), warning), (false, None));
    }

    #[test]
    fn a_missing_file_is_no_fault_and_a_directory_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Passfile::read(&dir.path().join("none")).1, None);
        assert!(Passfile::read(dir.path()).1.unwrap().contains("plain file"));
    }
}
