//! Profiles: window, durability, overflow and commit set together; each single flag overrides.

use std::time::Duration;

use clap::ValueEnum;

use crate::load::Durability;
use crate::overflow::Overflow;
use crate::worker::Commit;

/// What kind of load this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// A one-time import of files: as fast as it goes, durable when it has ended.
    Bulk,
    /// A nightly job: each batch durable, nothing lost.
    Etl,
    /// Events for dashboards: 500 ms or 20,000 rows, loss acceptable.
    Events,
    /// Samples of measurements: seldom and large commits, loss acceptable.
    Metrics,
    /// An audit trail: every row durable before it counts.
    Audit,
}

/// What a profile sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `--batch-rows`; `None`: the strategy's default.
    pub batch_rows: Option<usize>,
    /// `--batch-bytes`.
    pub batch_bytes: usize,
    /// `--max-wait`.
    pub max_wait: Duration,
    /// `--durability`.
    pub durability: Durability,
    /// `--overflow`.
    pub overflow: Overflow,
    /// `--commit`.
    pub commit: Commit,
}

impl Settings {
    /// What holds without a profile.
    pub const DEFAULT: Settings = Settings {
        batch_rows: None,
        batch_bytes: 4 << 20,
        max_wait: Duration::from_secs(1),
        durability: Durability::On,
        overflow: Overflow::Block,
        commit: Commit::Batch,
    };
}

impl Profile {
    /// What the profile sets.
    pub fn settings(self) -> Settings {
        let default = Settings::DEFAULT;
        match self {
            // The log is flushed behind the batches, not for each of them.
            Profile::Bulk => Settings {
                durability: Durability::End,
                ..default
            },
            Profile::Etl => default,
            // A dashboard shows the last second; a gap is better than a stall.
            Profile::Events => Settings {
                batch_rows: Some(20_000),
                max_wait: Duration::from_millis(500),
                durability: Durability::Off,
                overflow: Overflow::Drop,
                ..default
            },
            // Nobody looks within seconds, so few and full batches.
            Profile::Metrics => Settings {
                batch_rows: Some(50_000),
                max_wait: Duration::from_secs(5),
                durability: Durability::Off,
                overflow: Overflow::Drop,
                ..default
            },
            // Small windows keep a row waiting for its commit as short as the disk allows.
            Profile::Audit => Settings {
                batch_rows: Some(1_000),
                max_wait: Duration::from_millis(20),
                durability: Durability::On,
                overflow: Overflow::Block,
                commit: Commit::Batch,
                ..default
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};
    use crate::connect::ConnectSettings;
    use crate::load::LoadPlan;

    /// The plan of `pgrung load --table t FLAGS`.
    fn plan(flags: &str) -> LoadPlan {
        let words = ["pgrung", "load", "--table", "t"].into_iter();
        let cli = Cli::parse_from(words.chain(flags.split_whitespace()));
        let Command::Load(args) = cli.command else {
            panic!("not a load");
        };
        let settings = ConnectSettings::from_config(tokio_postgres::Config::new());
        args.plan(settings).unwrap()
    }

    fn told(plan: &LoadPlan) -> String {
        let window = plan.window;
        format!(
            "{} rows {:?} {:?} {:?} {:?}",
            window.rows,
            window.wait.unwrap_or_default(),
            plan.durability,
            plan.overflow,
            plan.commit
        )
    }

    #[test]
    fn each_profile_sets_what_its_table_says() {
        let unlimited = plan("").window.rows;
        for (flags, expected) in [
            ("", format!("{unlimited} rows 1s On Block Batch")),
            (
                "--profile bulk",
                format!("{unlimited} rows 1s End Block Batch"),
            ),
            (
                "--profile etl",
                format!("{unlimited} rows 1s On Block Batch"),
            ),
            ("--profile events", "20000 rows 500ms Off Drop Batch".into()),
            ("--profile metrics", "50000 rows 5s Off Drop Batch".into()),
            ("--profile audit", "1000 rows 20ms On Block Batch".into()),
        ] {
            assert_eq!(told(&plan(flags)), expected, "{flags}");
        }
    }

    #[test]
    fn each_single_flag_overrides_the_profile() {
        let flags = "--profile events --batch-rows 7 --batch-bytes 1KiB --max-wait 3s \
                     --durability local --overflow block --commit load";
        assert_eq!(told(&plan(flags)), "7 rows 3s Local Block Load");
        assert_eq!(plan(flags).window.bytes, 1024);
        let row = "--profile events --strategy insert --commit row --no-ledger";
        assert_eq!(told(&plan(row)), "20000 rows 500ms Off Drop Row");
    }
}
