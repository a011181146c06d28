//! Finds the installed server programs and prepares commands that run them.

use std::cmp::Reverse;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, setsid};

use super::account::Account;
use super::error::EmbeddedError;

/// The variable that names the directory of the programs, before any search.
const CHOICE: &str = "PGRUNG_PG_BIN";

/// A directory counts when it has both: they are all we run.
const NEEDED: [&str; 2] = ["initdb", "postgres"];

/// The first version whose `postmaster.pid` says when the server is ready.
const OLDEST: u32 = 10;

/// Where packages put the programs: parent, start of the version directory's name, the rest.
const PACKAGES: [(&str, &str, &str); 4] = [
    ("usr/lib/postgresql", "", "bin"), // Debian, Ubuntu: /usr/lib/postgresql/15/bin
    ("usr", "pgsql-", "bin"),          // Red Hat, from postgresql.org: /usr/pgsql-15/bin
    ("opt/homebrew/opt", "postgresql", "bin"), // Homebrew on Apple silicon: postgresql@15
    ("usr/local/opt", "postgresql", "bin"), // Homebrew on Intel
];

/// The directory that holds `initdb` and `postgres`.
///
/// The first of: `PGRUNG_PG_BIN`, `PATH`, `pg_config --bindir`, and the places where Debian, Red Hat
/// and Homebrew put them, the highest version first.
///
/// # Errors
/// None has them, or `PGRUNG_PG_BIN` is set and has not: then nothing else is searched.
pub fn find_programs() -> Result<PathBuf, EmbeddedError> {
    Places::of_this_process().find()
}

/// Where [`find_programs`] looks, so that a search needs no change of the environment.
#[derive(Debug, Clone)]
pub struct Places {
    /// The value of `PGRUNG_PG_BIN`; empty counts as unset.
    pub choice: Option<OsString>,
    /// The value of `PATH`.
    pub path: Option<OsString>,
    /// The root under which packages are installed: `/`.
    pub root: PathBuf,
}

impl Places {
    /// The places this process sees.
    pub fn of_this_process() -> Self {
        Self {
            choice: env::var_os(CHOICE),
            path: env::var_os("PATH"),
            root: PathBuf::from("/"),
        }
    }

    /// Searches the places, as [`find_programs`] says.
    ///
    /// # Errors
    /// As [`find_programs`].
    pub fn find(&self) -> Result<PathBuf, EmbeddedError> {
        if let Some(choice) = self.choice.as_ref().filter(|choice| !choice.is_empty()) {
            // Absolute, because the programs run in another working directory.
            let dir = std::path::absolute(choice).unwrap_or_else(|_| PathBuf::from(choice));
            return if has_programs(&dir) {
                Ok(dir)
            } else {
                Err(EmbeddedError::BadProgramsDir(dir))
            };
        }
        self.in_path()
            .chain(self.named_by_pg_config())
            .chain(
                PACKAGES
                    .iter()
                    .flat_map(|&(parent, start, rest)| self.packages(parent, start, rest)),
            )
            .find(|dir| has_programs(dir))
            .ok_or(EmbeddedError::NoPrograms)
    }

    /// The absolute directories of `PATH`; relative ones mean another place after a `chdir`.
    fn in_path(&self) -> impl Iterator<Item = PathBuf> {
        let path = self.path.as_deref().unwrap_or_default();
        env::split_paths(path).filter(|dir| dir.is_absolute())
    }

    fn named_by_pg_config(&self) -> Option<PathBuf> {
        let program = self
            .in_path()
            .map(|dir| dir.join("pg_config"))
            .find(|file| is_executable(file))?;
        let answer = Command::new(program)
            .arg("--bindir")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let dir = String::from_utf8(answer.stdout).ok()?;
        answer.status.success().then(|| PathBuf::from(dir.trim()))
    }

    /// `root/parent/start*/rest`, the highest version first.
    fn packages(&self, parent: &str, start: &str, rest: &str) -> Vec<PathBuf> {
        let parent = self.root.join(parent);
        let mut names: Vec<String> = fs::read_dir(&parent)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(start))
            .collect();
        names.sort_by_key(|name| Reverse(numbers(name)));
        names
            .iter()
            .map(|name| parent.join(name).join(rest))
            .collect()
    }
}

/// The numbers in a directory's name, so that 10 comes after 9.6.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn has_programs(dir: &Path) -> bool {
    NEEDED.iter().all(|name| is_executable(&dir.join(name)))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Programs that were seen to run, and the user they run as.
#[derive(Debug)]
pub(super) struct Programs {
    bin: PathBuf,
    account: Account,
    major: u32,
}

impl Programs {
    /// Asks `postgres` for its version, as the user it will run as.
    pub(super) fn check(bin: PathBuf, account: Account) -> Result<Self, EmbeddedError> {
        let mut programs = Self {
            bin,
            account,
            major: 0,
        };
        programs.major = programs.ask_version()?;
        Ok(programs)
    }

    fn ask_version(&self) -> Result<u32, EmbeddedError> {
        let program = self.bin.join("postgres");
        let answer = match self
            .command("postgres", Path::new("/"))
            .arg("--version")
            .output()
        {
            Ok(answer) => answer,
            Err(error) => return Err(self.cannot_run(program, &error)),
        };
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        let reason = match major_version(&said) {
            Some(major) if answer.status.success() && major >= OLDEST => return Ok(major),
            Some(major) if answer.status.success() => {
                format!("it is version {major}, and the oldest that can be used is {OLDEST}")
            }
            _ => format!("{said}{}", String::from_utf8_lossy(&answer.stderr))
                .trim()
                .to_owned(),
        };
        Err(EmbeddedError::BrokenProgram { program, reason })
    }

    fn cannot_run(&self, program: PathBuf, error: &io::Error) -> EmbeddedError {
        match self.account.stand_in() {
            Some(user) if is_denied(error) => EmbeddedError::OutOfReach {
                path: program,
                user: user.to_owned(),
            },
            _ => EmbeddedError::BrokenProgram {
                program,
                reason: error.to_string(),
            },
        }
    }

    pub(super) fn bin_dir(&self) -> &Path {
        &self.bin
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// Their major version, as a cluster's `PG_VERSION` has it.
    pub(super) fn major(&self) -> u32 {
        self.major
    }

    /// An error if the server's user cannot get into a directory. The kernel judges, by a `chdir`.
    pub(super) fn must_enter(&self, dir: &Path) -> Result<(), EmbeddedError> {
        let Some(user) = self.account.stand_in() else {
            return Ok(());
        };
        match self.command("postgres", dir).arg("--version").output() {
            Err(error) if is_denied(&error) => Err(EmbeddedError::OutOfReach {
                path: dir.to_owned(),
                user: user.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// A command that runs one of the programs as the server's user, in `dir`, with nothing on its
    /// standard input and none of our `PG*` variables, which would change what it does.
    pub(super) fn command(&self, name: &str, dir: &Path) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command
            .current_dir(dir)
            .stdin(Stdio::null())
            .env("LC_ALL", "C");
        for (name, _) in env::vars_os().filter(|(name, _)| is_libpq_variable(name)) {
            command.env_remove(name);
        }
        self.account.run_as(&mut command);
        command
    }

    /// As [`command`](Self::command), in a session of its own, out of reach of the terminal's
    /// Ctrl-C, and on Linux sent `signal` when the thread that spawns it ends, however that comes
    /// about.
    pub(super) fn tied(&self, name: &str, dir: &Path, signal: Signal) -> Command {
        let mut command = self.command(name, dir);
        let parent = Pid::this();
        let before_exec = move || {
            setsid()?;
            #[cfg(target_os = "linux")]
            {
                nix::sys::prctl::set_pdeathsig(signal)?;
                // We may have died before the line above; then nobody will send the signal.
                if nix::unistd::getppid() != parent {
                    return Err(io::Error::from(nix::errno::Errno::ESRCH));
                }
            }
            #[cfg(not(target_os = "linux"))]
            let _ = (signal, parent);
            Ok(())
        };
        // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are
        // allowed. setsid, prctl and getppid are system calls, and errors made of their numbers
        // allocate nothing. It runs after the change of user, which would clear the death signal.
        unsafe {
            command.pre_exec(before_exec);
        }
        command
    }
}

fn is_libpq_variable(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"PG")
}

/// Not `ErrorKind::PermissionDenied`: that is also EPERM, when root may not change its user.
fn is_denied(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EACCES as i32)
}

/// The major version in `postgres (PostgreSQL) 15.13 (Debian 15.13-0)`.
fn major_version(said: &str) -> Option<u32> {
    let word = said
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    word.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        for name in NEEDED {
            fs::write(dir.join(name), "#!/bin/sh\n").unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn places(root: &Path) -> Places {
        Places {
            choice: None,
            path: None,
            root: root.to_owned(),
        }
    }

    #[test]
    fn the_highest_debian_version_wins_and_ten_is_higher_than_nine() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9.6", "10", "13"] {
            install(
                &root
                    .path()
                    .join("usr/lib/postgresql")
                    .join(version)
                    .join("bin"),
            );
        }
        // A client-only package has a directory without the server.
        fs::create_dir_all(root.path().join("usr/lib/postgresql/17/bin")).unwrap();
        let found = places(root.path()).find().unwrap();
        assert!(found.ends_with("usr/lib/postgresql/13/bin"), "{found:?}");
        assert!(numbers("10") > numbers("9.6"));
    }

    #[test]
    fn red_hat_and_homebrew_places_are_searched() {
        for dir in [
            "usr/pgsql-16/bin",
            "opt/homebrew/opt/postgresql@17/bin",
            "usr/local/opt/postgresql/bin",
        ] {
            let root = tempfile::tempdir().unwrap();
            install(&root.path().join(dir));
            assert_eq!(places(root.path()).find().unwrap(), root.path().join(dir));
        }
    }

    #[test]
    fn the_choice_comes_before_path_and_path_before_packages() {
        let root = tempfile::tempdir().unwrap();
        let [chosen, in_path] = ["chosen", "in-path"].map(|name| root.path().join(name));
        install(&chosen);
        install(&in_path);
        install(&root.path().join("usr/lib/postgresql/15/bin"));
        let mut places = places(root.path());
        places.path = Some(in_path.clone().into());
        assert_eq!(places.find().unwrap(), in_path);
        places.choice = Some(chosen.clone().into());
        assert_eq!(places.find().unwrap(), chosen);
        places.choice = Some(OsString::new());
        assert_eq!(places.find().unwrap(), in_path);
    }

    #[test]
    fn pg_config_in_path_is_asked() {
        let root = tempfile::tempdir().unwrap();
        let [bin, elsewhere] = ["bin", "elsewhere"].map(|name| root.path().join(name));
        install(&elsewhere);
        fs::create_dir(&bin).unwrap();
        // Written by a shell: a file open for writing in a process that forks elsewhere at that
        // moment cannot be executed ("text file busy").
        let write = r#"printf '#!/bin/sh\necho %s\n' "$1" >"$0" && chmod 755 "$0""#;
        let written = Command::new("sh")
            .args(["-c", write])
            .args([&bin.join("pg_config"), &elsewhere])
            .status();
        assert!(written.unwrap().success());
        let mut places = places(root.path());
        places.path = Some(bin.into());
        assert_eq!(places.find().unwrap(), elsewhere);
    }

    #[test]
    fn the_major_version_is_what_pg_version_holds() {
        for (said, major) in [
            ("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)", 15),
            ("postgres (PostgreSQL) 18.4", 18),
            ("postgres (PostgreSQL) 19beta1", 19),
            ("postgres (PostgreSQL) 9.6.24", 9),
        ] {
            assert_eq!(major_version(said), Some(major));
        }
        assert_eq!(major_version("no number here"), None);
    }
}
