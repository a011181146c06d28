//! Places where a debug build can be made to die or to cheat, so that the fault bench can prove
//! what it claims. A release build has none of this.

#[cfg(debug_assertions)]
mod switches {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    /// Aborts the process when it comes to `point` for the nth time:
    /// `PGRUNG_ABORT_AT="before commit:2"`.
    pub fn point(point: &str) {
        static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
        static PASSED: AtomicU32 = AtomicU32::new(0);
        let wanted = WANTED.get_or_init(|| {
            let text = std::env::var("PGRUNG_ABORT_AT").ok()?;
            let (name, count) = text.rsplit_once(':')?;
            Some((name.to_string(), count.parse().ok()?))
        });
        if let Some((name, count)) = wanted
            && name == point
            && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count
        {
            std::process::abort();
        }
    }

    /// How often and after how many batches spans are compacted:
    /// `PGRUNG_COMPACT_EVERY=<milliseconds>:<batches>`.
    pub fn compact_pace() -> Option<(Duration, u64)> {
        let text = std::env::var("PGRUNG_COMPACT_EVERY").ok()?;
        let (millis, batches) = text.split_once(':')?;
        let every = Duration::from_millis(millis.parse().ok()?);
        Some((every, batches.parse().ok()?))
    }

    /// Whether a safeguard is switched off: `PGRUNG_SABOTAGE=claim`, or several, with commas.
    pub fn sabotaged(safeguard: &str) -> bool {
        static SWITCHED_OFF: OnceLock<String> = OnceLock::new();
        let off = SWITCHED_OFF.get_or_init(|| std::env::var("PGRUNG_SABOTAGE").unwrap_or_default());
        off.split(',').any(|name| name == safeguard)
    }
}

#[cfg(debug_assertions)]
pub use switches::{compact_pace, point, sabotaged};

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_: &str) {}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn compact_pace() -> Option<(std::time::Duration, u64)> {
    None
}

/// No safeguard can be switched off.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn sabotaged(_: &str) -> bool {
    false
}
