//! What the server waits for at a commit.

use serde::Serialize;

/// When a commit counts: what the server waits for before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Nothing: the last moments may be lost if the server crashes.
    Off,
    /// Nothing for each batch, the disk for the last commit: exit code 0 means durable.
    End,
    /// The local disk.
    Local,
    /// The local disk and the synchronous standbys, as the server is configured.
    On,
    /// Synchronous standbys have received it.
    RemoteWrite,
    /// Synchronous standbys show it.
    RemoteApply,
}

impl Durability {
    /// Every kind, from the least durable.
    pub const ALL: [Durability; 6] = [
        Self::Off,
        Self::End,
        Self::Local,
        Self::On,
        Self::RemoteWrite,
        Self::RemoteApply,
    ];

    /// The word used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Off => "off",
            Durability::End => "end",
            Durability::Local => "local",
            Durability::On => "on",
            Durability::RemoteWrite => "remote-write",
            Durability::RemoteApply => "remote-apply",
        }
    }

    /// The value of synchronous_commit for a batch.
    pub fn setting(self) -> &'static str {
        match self {
            Durability::Off | Durability::End => "off",
            Durability::Local => "local",
            Durability::On => "on",
            Durability::RemoteWrite => "remote_write",
            Durability::RemoteApply => "remote_apply",
        }
    }
}
