//! What the master in this process logs: there the violations are reported and the strays are counted.

use std::sync::{Mutex, Once, PoisonError};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static FROM_BELOW: Mutex<Vec<FromBelow>> = Mutex::new(Vec::new());
static ONCE: Once = Once::new();

/// What a logger can show of a record that a context sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FromBelow {
    pub(crate) target: String,
    pub(crate) module: String,
    pub(crate) thread: String,
    pub(crate) text: String,
}

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
        if record.target().starts_with("ctx.") {
            let thread = record.key_values().get(log::kv::Key::from("thread"));
            FROM_BELOW.lock().unwrap_or_else(PoisonError::into_inner).push(FromBelow {
                target: record.target().to_owned(),
                module: record.module_path().unwrap_or_default().to_owned(),
                thread: thread.map_or_else(String::new, |thread| thread.to_string()),
                text: record.args().to_string(),
            });
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
    FROM_BELOW.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// What was logged since.
pub(crate) fn all() -> Vec<String> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Which records of contexts came since.
pub(crate) fn from_below() -> Vec<FromBelow> {
    FROM_BELOW.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
