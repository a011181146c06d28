//! Decides as which operating system user the server runs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User, geteuid};

use super::error::EmbeddedError;

/// Users to run as under root, the best first.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// The user the server runs as: ourselves, or under root somebody else.
#[derive(Debug, Clone)]
pub(super) struct Account {
    stand_in: Option<User>,
}

impl Account {
    /// Under root, the owner of the kept directory (a server must own its data), else a stand-in.
    pub(super) fn choose(dir: Option<&Path>) -> Result<Self, EmbeddedError> {
        if !geteuid().is_root() {
            return Ok(Self { stand_in: None });
        }
        let owner = dir
            .and_then(|dir| fs::metadata(dir).ok())
            .map(|metadata| Uid::from_raw(metadata.uid()))
            .filter(|uid| !uid.is_root())
            .and_then(|uid| User::from_uid(uid).ok().flatten());
        let by_name = |name: &&str| User::from_name(name).ok().flatten();
        match owner.or_else(|| STAND_INS.iter().find_map(by_name)) {
            None => Err(EmbeddedError::NoAccount),
            stand_in => Ok(Self { stand_in }),
        }
    }

    /// The user's name, if it is not ourselves.
    pub(super) fn stand_in(&self) -> Option<&str> {
        self.stand_in.as_ref().map(|user| user.name.as_str())
    }

    pub(super) fn uid(&self) -> u32 {
        let stand_in = self.stand_in.as_ref().map(|user| user.uid);
        stand_in.unwrap_or_else(geteuid).as_raw()
    }

    /// Hands an open file or directory over to the user.
    pub(super) fn give(&self, file: &File) -> io::Result<()> {
        match &self.stand_in {
            Some(user) => fchown(file, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
            None => Ok(()),
        }
    }

    /// Makes the command run as the user. Given a uid under root, the standard library also drops
    /// the supplementary groups (`setgroups(0)`) before it gives up the right to.
    pub(super) fn run_as(&self, command: &mut Command) {
        if let Some(user) = &self.stand_in {
            command.gid(user.gid.as_raw()).uid(user.uid.as_raw());
        }
    }
}
