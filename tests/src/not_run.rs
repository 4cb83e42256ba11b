//! Tests that this machine cannot run say so; they never pretend to pass.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;

/// Why a fixture cannot be had on this machine.
#[derive(Debug, Clone)]
pub struct Unavailable(pub String);

impl Unavailable {
    /// A reason, in one line.
    pub fn because(reason: impl Into<String>) -> Self {
        Unavailable(reason.into())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints `not run: NAME: REASON`, and appends `NAME<TAB>REASON` to the file named by `OFFSHOOT_NOT_RUN`.
///
/// # Panics
///
/// When that file cannot be written: a test that was not run must not go unseen.
pub fn report(name: &str, reason: &str) {
    let reason = reason.replace(['\n', '\t', '\r'], " ");
    println!("not run: {name}: {reason}");
    if let Some(path) = std::env::var_os("OFFSHOOT_NOT_RUN") {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(format!("{name}\t{reason}\n").as_bytes()));
        if let Err(error) = written {
            panic!("cannot note in {path:?} that {name} was not run: {error}");
        }
    }
}

/// Ends the test as not run: `not_run!("name", reason)`.
#[macro_export]
macro_rules! not_run {
    ($name:expr, $reason:expr) => {{
        $crate::not_run::report($name, &$reason.to_string());
        return;
    }};
}

/// The value of a `Result<_, Unavailable>`, or the end of the test as not run: `or_not_run!("name", Fleet::start(..))`.
#[macro_export]
macro_rules! or_not_run {
    ($name:expr, $fixture:expr) => {
        match $fixture {
            Ok(fixture) => fixture,
            Err(reason) => $crate::not_run!($name, reason),
        }
    };
}
