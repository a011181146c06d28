//! Says what bound a load, from what was measured while it ran, and the one thing to try next.

use std::fmt;

use serde::Serialize;

/// What the workers' server processes were doing when they were looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Looks {
    pub server_cpu: u64,
    /// They wrote or flushed the write-ahead log, or waited for another's flush.
    pub wal: u64,
    /// They read, wrote or extended tables and indexes.
    pub table_io: u64,
    /// They waited for locks of any weight.
    pub locks: u64,
    /// They waited for the client in the middle of a transaction.
    pub client: u64,
}

impl Looks {
    /// Takes in one look: type and name of the wait event, both empty where there is none.
    pub fn add(&mut self, kind: &str, event: &str) {
        match kind {
            "" => self.server_cpu += 1,
            "Client" => self.client += 1,
            _ if event.contains("WAL") || event.contains("Wal") || event == "SyncRep" => {
                self.wal += 1;
            }
            "IO" | "BufferPin" => self.table_io += 1,
            _ => self.locks += 1,
        }
    }
}

/// What is known of a load when it has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Observed {
    /// Looks at the server.
    pub looks: Looks,
    /// Share of the workers' time spent waiting for batches, 0 to 1.
    pub input: f64,
    /// Share of the batches that `--max-wait` closed, 0 to 1.
    pub timer: f64,
    pub workers: usize,
    /// Processors of this machine.
    pub cores: usize,
    /// Indexes of the table, its primary key included.
    pub indexes: i64,
    /// Whether the table writes to the log.
    pub logged: bool,
}

/// Looks below which nothing is said: chance would speak.
const ENOUGH: u64 = 15;

/// What bound a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The server's processes computed.
    ServerCpu,
    /// The write-ahead log.
    Wal,
    /// Reading and writing tables and indexes.
    TableIo,
    /// Locks.
    Locks,
    /// The client parsed and encoded, or the network was slow.
    Client,
    /// The sources were slower than the server.
    Input,
}

/// The verdict on a finished load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bottleneck {
    /// What took the largest share of the workers' time.
    pub bound_by: Bound,
    /// Shares of the workers' time, largest first, in percent.
    pub shares: Vec<(Bound, u32)>,
    /// The one thing to try next.
    pub try_next: &'static str,
}

impl Observed {
    /// The verdict; `None` when too little was seen.
    pub fn verdict(&self) -> Option<Bottleneck> {
        let looks = [
            (Bound::ServerCpu, self.looks.server_cpu),
            (Bound::Wal, self.looks.wal),
            (Bound::TableIo, self.looks.table_io),
            (Bound::Locks, self.looks.locks),
            (Bound::Client, self.looks.client),
        ];
        let total: u64 = looks.iter().map(|(_, count)| count).sum();
        if total < ENOUGH && self.input < 0.5 {
            return None;
        }
        let busy = (1.0 - self.input).clamp(0.0, 1.0);
        let mut shares: Vec<(Bound, u32)> = looks
            .iter()
            .map(|(bound, count)| (*bound, busy * *count as f64 / total.max(1) as f64))
            .chain([(Bound::Input, self.input)])
            .map(|(bound, share)| (bound, (share * 100.0).round() as u32))
            .collect();
        shares.sort_by_key(|(_, share)| std::cmp::Reverse(*share));
        let bound_by = shares[0].0;
        Some(Bottleneck {
            bound_by,
            try_next: self.advice(bound_by),
            shares,
        })
    }

    fn advice(&self, bound: Bound) -> &'static str {
        match bound {
            Bound::Input if self.timer > 0.5 => {
                "a longer --max-wait, which closes most batches, for fewer and fuller commits"
            }
            Bound::Input => "a faster source: the server has time to spare",
            Bound::Client if self.workers < self.cores => "more workers (-j)",
            Bound::Client => {
                "running pgrung on another machine than the server, or --batch-bytes 8MiB"
            }
            Bound::ServerCpu if self.indexes > 0 => {
                "dropping the table's indexes and making them again afterwards"
            }
            Bound::ServerCpu if self.workers < self.cores => "more workers (-j)",
            Bound::ServerCpu => "a server with more or faster processors",
            Bound::Wal if self.logged => "an unlogged staging table, or --durability end",
            Bound::Wal => "--durability end",
            Bound::TableIo if self.indexes > 0 => {
                "dropping the table's indexes and making them again afterwards"
            }
            Bound::TableIo => "faster storage for the table",
            Bound::Locks => "fewer workers (-j)",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::ServerCpu => "server CPU",
            Bound::Wal => "WAL",
            Bound::TableIo => "table I/O",
            Bound::Locks => "locks",
            Bound::Client => "client",
            Bound::Input => "input",
        })
    }
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {}", self.bound_by)?;
        let seen = self.shares.iter().filter(|(_, share)| *share > 0);
        for (index, (bound, share)) in seen.enumerate() {
            write!(
                f,
                "{}{bound} {share} %",
                if index == 0 { " (" } else { ", " }
            )?;
        }
        write!(f, "); try {}", self.try_next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(looks: Looks) -> Observed {
        Observed {
            looks,
            workers: 1,
            cores: 2,
            logged: true,
            ..Observed::default()
        }
    }

    const BUSY: Looks = Looks {
        server_cpu: 60,
        wal: 30,
        table_io: 0,
        locks: 0,
        client: 10,
    };

    #[test]
    fn the_largest_share_bounds_the_load() {
        let verdict = observed(BUSY).verdict().unwrap();
        assert_eq!(verdict.bound_by, Bound::ServerCpu);
        assert_eq!(
            verdict.to_string(),
            "by server CPU (server CPU 60 %, WAL 30 %, client 10 %); try more workers (-j)"
        );
    }

    #[test]
    fn a_slow_source_is_told_from_a_timer_that_makes_small_batches() {
        let slow = Observed {
            input: 0.9,
            ..observed(BUSY)
        };
        let verdict = slow.verdict().unwrap();
        assert_eq!(verdict.bound_by, Bound::Input);
        assert!(verdict.try_next.contains("faster source"));
        let timed = Observed { timer: 0.8, ..slow };
        assert!(timed.verdict().unwrap().try_next.contains("--max-wait"));
    }

    #[test]
    fn too_few_looks_say_nothing() {
        let looks = Looks {
            wal: 3,
            ..Looks::default()
        };
        assert_eq!(observed(looks).verdict(), None);
    }

    #[test]
    fn indexes_are_named_only_where_there_are_any() {
        let with = Observed {
            indexes: 2,
            ..observed(BUSY)
        };
        assert!(with.verdict().unwrap().try_next.contains("indexes"));
    }

    #[test]
    fn each_wait_event_has_its_kind() {
        let mut looks = Looks::default();
        for (kind, event) in [
            ("", ""),
            ("Client", "ClientRead"),
            ("IO", "WALSync"),
            ("LWLock", "WALWrite"),
            ("IPC", "SyncRep"),
            ("IO", "DataFileExtend"),
            ("Lock", "extend"),
            ("LWLock", "BufferContent"),
        ] {
            looks.add(kind, event);
        }
        let expected = Looks {
            server_cpu: 1,
            wal: 3,
            table_io: 1,
            locks: 2,
            client: 1,
        };
        assert_eq!(looks, expected);
    }
}
