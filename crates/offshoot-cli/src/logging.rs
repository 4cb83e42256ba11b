//! Our own log, on stderr: off unless asked for by `-v` or `OFFSHOOT_LOG`.

use std::io::Write;

use log::LevelFilter;
use offshoot::escape::escaped;

/// Starts logging. `OFFSHOOT_LOG` selects by module (`offshoot_route=trace`) or context, and wins over `-v`.
pub(crate) fn start(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::Error,
        (_, 0) => LevelFilter::Warn,
        (_, 1) => LevelFilter::Info,
        (_, 2) => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level);
    offshoot::log::selected(|name, level| {
        builder.filter(name, level);
    });
    builder.format(|out, record| {
        // A record may carry text of a target: R10 holds for it as for output.
        let text = record.args().to_string();
        let level = record.level().as_str().to_ascii_lowercase();
        writeln!(out, "offshoot: {level}: {}: {}", record.target(), escaped(text.as_bytes()))
    });
    // It fails only if there is a logger already; then that one is as good.
    let _ = builder.try_init();
}
