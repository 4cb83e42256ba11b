//! What the master in this process logs: there the violations are reported and the strays are counted.

use std::sync::{Mutex, Once, PoisonError};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ONCE: Once = Once::new();

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Nobody looks for what workers write, and a flood of it is not to be kept.
        if record.target().ends_with("::stdout") || record.target().ends_with("::stderr") {
            return;
        }
        let line = format!("{} {}", record.level(), record.args());
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn flush(&self) {}
}

/// Forgets what was logged, and keeps what will be.
pub(crate) fn clear() {
    ONCE.call_once(|| {
        log::set_logger(&Keep).expect("the only logger");
        log::set_max_level(log::LevelFilter::Debug);
    });
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// What was logged since.
pub(crate) fn all() -> Vec<String> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
