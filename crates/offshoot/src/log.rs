//! The log of the whole tree, in one place.
//!
//! Records that agents and remote functions make with the `log` crate, and every line that functions and what they start
//! write to stdout and stderr, arrive in this process's `log`, whichever logger that has. Their targets are
//! `ctx.NAME::MODULE`, `ctx.NAME::stdout` and `ctx.NAME::stderr`, where NAME is the context's
//! [path](crate::Context::path) with `/` between its names: `ctx.ssh:jump/ssh:web1::stdout`. A context that a function
//! connected is named after the next known one above it, `+` and its own address. Lines of output are of level *info*.
//! Loggers that show key-values find `time` (seconds since 1970, by the sender's clock) and `thread` there.
//!
//! Only what [`max_level`](::log::max_level) of this process allows is sent; a change reaches the tree with the next sign
//! of life, within five seconds. Without a logger nothing is sent, and output is read and thrown away.
//!
//! Records never delay anything: they travel behind all else, and what finds no room is dropped and counted
//! (`17 lines dropped`). Output is never dropped: who writes faster than it is read waits. Whatever could change a
//! terminal is escaped, one record is one line, and lines of output beyond 8 KiB go on in the next record.

use std::io::Write;

use ::log::LevelFilter;

/// Shows the log on stderr, with colours on a terminal: level *info* and above, or what the variable `OFFSHOOT_LOG`
/// selects, such as `warn,ctx.ssh:jump/ssh:web1=debug`: a level, or the beginning of a target and a level for it. Does
/// nothing when there is a logger already.
///
/// # Examples
///
/// ```no_run
/// # use offshoot::prelude::*;
/// #[offshoot::remote]
/// fn greet() {
///     println!("hello from {}", std::process::id());
///     log::warn!("and a warning");
/// }
///
/// #[offshoot::main]
/// fn main(master: &Master) -> Result<(), offshoot::Error> {
///     offshoot::log::init();
///     greet::on(&master.local().connect()?)
/// }
/// ```
#[cfg(feature = "env_logger")]
pub fn init() {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Info);
    selected(|name, level| {
        builder.filter(name, level);
    });
    builder.format(|out, record| {
        use ::log::kv::Key;
        let level = record.level();
        let style = out.default_level_style(level);
        let made = record.key_values().get(Key::from("time")).and_then(|time| time.to_f64());
        let clock = made.map_or_else(String::new, clock);
        let thread = record.key_values().get(Key::from("thread")).map(|thread| thread.to_string());
        let thread = thread.filter(|thread| !thread.is_empty()).map_or_else(String::new, |name| format!(" [{name}]"));
        let target = record.target();
        // What comes from contexts is escaped already, and twice does no harm; this process's own records may quote them.
        let text = record.args().to_string();
        let text = crate::escape::escaped(text.as_bytes());
        writeln!(out, "{clock}{style}{level:5}{style:#} {target}{thread}: {text}")
    });
    // It fails only if there is a logger already; then that one is as good.
    let _ = builder.try_init();
}

/// What the variable `OFFSHOOT_LOG` selects: each level, with the beginning of the targets that it is for. What is no
/// selection is told on stderr, and passed over.
///
/// Not by the parser of `env_logger`: names of contexts have slashes, where that one's names end.
#[doc(hidden)]
pub fn selected(mut filter: impl FnMut(Option<&str>, LevelFilter)) {
    let Ok(text) = std::env::var("OFFSHOOT_LOG") else { return };
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match directive(part) {
            Some((name, level)) => filter(name, level),
            None => {
                let part = crate::escape::escaped(part.as_bytes());
                let text = "warning: OFFSHOOT_LOG: passed over, since that is no level";
                // Where stderr is closed there is nobody to tell.
                let _ = writeln!(std::io::stderr(), "{text}: {part}");
            }
        }
    }
}

/// `LEVEL`, `NAME=LEVEL`, or a name alone, of which everything is wanted.
fn directive(part: &str) -> Option<(Option<&str>, LevelFilter)> {
    match part.rsplit_once('=') {
        Some((name, "")) => Some((Some(name), LevelFilter::Trace)),
        Some((name, level)) => Some((Some(name.trim_end()), level.trim_start().parse().ok()?)),
        None => Some(part.parse().map_or((Some(part), LevelFilter::Trace), |level| (None, level))),
    }
}

/// The time of day, in UTC, of a time since 1970.
#[cfg(feature = "env_logger")]
fn clock(seconds: f64) -> String {
    let day = (seconds.rem_euclid(86400.0) * 1000.0) as u32;
    let (hours, minutes) = (day / 3_600_000, day / 60_000 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03} ", day / 1000 % 60, day % 1000)
}

#[cfg(all(test, feature = "env_logger"))]
mod tests {
    #[test]
    fn a_time_is_shown_as_the_time_of_day() {
        assert_eq!(super::clock(86400.0 + 3723.25), "01:02:03.250 ");
        assert_eq!(super::clock(0.0), "00:00:00.000 ");
        assert_eq!(super::clock(86399.9999), "23:59:59.999 ");
    }

    #[test]
    fn contexts_behind_others_are_selected_by_their_names() {
        use ::log::LevelFilter::{Debug, Off, Trace};
        for (part, expected) in [
            ("debug", Some((None, Debug))),
            ("OFF", Some((None, Off))),
            ("ctx.ssh:jump/ssh:web1=debug", Some((Some("ctx.ssh:jump/ssh:web1"), Debug))),
            ("ctx.a=b = debug", Some((Some("ctx.a=b"), Debug))),
            ("ctx.ssh:web1", Some((Some("ctx.ssh:web1"), Trace))),
            ("ctx.ssh:web1=", Some((Some("ctx.ssh:web1"), Trace))),
            ("ctx.ssh:web1=loud", None),
        ] {
            assert_eq!(super::directive(part), expected, "{part}");
        }
    }
}
