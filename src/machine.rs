//! What the process has used of the machine.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Most memory that was resident, in bytes; 0 if the system does not tell.
pub fn peak_memory_bytes() -> u64 {
    high_water_mark().unwrap_or_else(|| {
        // macOS counts in bytes. Linux has the mark above; its own figure here would include
        // the parent's memory, which survives exec.
        getrusage(UsageWho::RUSAGE_SELF)
            .map_or(0, |usage| u64::try_from(usage.max_rss()).unwrap_or(0))
    })
}

/// Linux: `VmHWM: 12345 kB`.
fn high_water_mark() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Processor time that the process has used, its own and the system's for it.
pub fn cpu_time() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    })
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
