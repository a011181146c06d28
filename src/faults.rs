//! Places where a debug build can be made to die or to cheat, so that the fault bench can prove
//! what it claims. A release build has none of this.

#[cfg(debug_assertions)]
mod switches {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

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

    /// Whether a safeguard is switched off: `PGRUNG_SABOTAGE=claim`, or several, with commas.
    pub fn sabotaged(safeguard: &str) -> bool {
        static SWITCHED_OFF: OnceLock<String> = OnceLock::new();
        let off = SWITCHED_OFF.get_or_init(|| std::env::var("PGRUNG_SABOTAGE").unwrap_or_default());
        off.split(',').any(|name| name == safeguard)
    }
}

#[cfg(debug_assertions)]
pub use switches::{point, sabotaged};

/// Does nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_: &str) {}

/// No safeguard can be switched off.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn sabotaged(_: &str) -> bool {
    false
}
