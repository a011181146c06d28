//! What a run asks of the ledger.

use std::path::PathBuf;
use std::time::Duration;

use crate::connect::ConnectSettings;
use crate::source::{Fingerprint, Reading};
use crate::target::{Table, Target};

pub struct Request<'a> {
    pub import_id: Option<String>,
    pub restart: bool,
    pub table: &'a Table,
    pub target: &'a Target,
    /// How records are read.
    pub reading: &'a Reading,
    pub sources: &'a [SourceIdentity],
    /// For a second connection that ends stuck transactions of an older run.
    pub settings: &'a ConnectSettings,
    /// Longest wait for locks that others hold.
    pub patience: Duration,
    /// Takes what the user should know.
    pub notify: &'a (dyn Fn(&str) + Sync),
}

/// An input as the ledger sees it.
#[derive(Debug, Clone)]
pub struct SourceIdentity {
    /// Name, absolute for a file.
    pub name: String,
    /// `None` for a pipe.
    pub fingerprint: Option<Fingerprint>,
    /// Where it is, if it is a file.
    pub path: Option<PathBuf>,
}

pub(super) fn column_names(target: &Target) -> Vec<&str> {
    target
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect()
}
