//! A plan as text for people.

use std::fmt;

use indicatif::{HumanBytes, HumanCount};

use super::arrival::brief;
use super::{Pace, Plan};
use crate::job::Durability;

fn ms(milliseconds: f64) -> String {
    brief(milliseconds / 1e3)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: f64| HumanCount(number as u64);
        let batch = &self.batch;
        writeln!(f, "window   closes by {}: {}", batch.trigger, batch.because)?;
        writeln!(
            f,
            "  batch  {} rows, {}, {:.1} % full, {:.1} batches/s",
            HumanCount(batch.rows),
            HumanBytes(batch.bytes),
            batch.fill_percent,
            batch.per_second,
        )?;
        writeln!(
            f,
            "server   {} a transaction; {} {} busy {:.0} % of the time{}",
            ms(self.transaction_ms),
            self.workers,
            if self.workers == 1 {
                "worker"
            } else {
                "workers"
            },
            self.utilisation * 100.0,
            match self.pace {
                Pace::KeepsUp => "",
                Pace::Saturated => ": saturated, batches grow while they wait",
                Pace::Overloaded => ": overloaded, the source is stalled or rows overflow",
            }
        )?;
        match self.wait_ms {
            Some(wait) => writeln!(
                f,
                "wait     p50 {}, p99 {}, first row of a batch {}",
                ms(wait.p50),
                ms(wait.p99),
                ms(wait.first_row)
            )?,
            None => writeln!(f, "wait     grows without end")?,
        }
        writeln!(
            f,
            "ceiling  rows/s of each strategy, {} worker{}, full batches, rows as below:",
            self.workers,
            if self.workers == 1 { "" } else { "s" }
        )?;
        for ceiling in &self.ceilings {
            writeln!(
                f,
                "  {:<26}{:>12}  {}",
                format!("{}, commit {}", ceiling.strategy, ceiling.commit),
                count(ceiling.rows_per_second).to_string(),
                if ceiling.enough { "enough" } else { "too few" }
            )?;
        }
        let memory = &self.memory;
        writeln!(
            f,
            "memory   {} at most: {} buffers of {}, of which {} are ever touched; encoding {}",
            HumanBytes(memory.total_bytes),
            memory.buffers,
            HumanBytes(memory.buffer_bytes / memory.buffers.max(1)),
            HumanBytes(memory.touched_bytes),
            HumanBytes(memory.encode_bytes),
        )?;
        self.write_loss(f)?;
        writeln!(f, "basis    {}", self.basis)?;
        write!(
            f,
            "verdict  by these figures: {}",
            self.recommendation.sentence
        )
    }
}

impl Plan {
    fn write_loss(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "loss     when the server crashes, by --durability:")?;
        for crash in &self.loss.server_crash {
            match crash.rows {
                0 => writeln!(f, "  {:<14}nothing", crash.durability)?,
                rows => writeln!(
                    f,
                    "  {:<14}the commits of the last {}, at most {} rows{}",
                    crash.durability,
                    ms(crash.milliseconds),
                    HumanCount(rows),
                    if crash.durability == Durability::End.name() {
                        "; nothing once the load has ended"
                    } else {
                        ""
                    }
                )?,
            }
        }
        let crash = &self.loss.loader_crash;
        write!(f, "  when the loader crashes and reads a pipe: ")?;
        if let Some(rows) = crash.typical_rows {
            write!(f, "some {} rows, ", HumanCount(rows))?;
        }
        writeln!(
            f,
            "at most {} ({} of the stream)",
            HumanCount(crash.most_rows),
            ms(crash.most_milliseconds)
        )
    }
}
