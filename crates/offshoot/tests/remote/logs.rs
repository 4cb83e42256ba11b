//! Logs and output of remote functions, as they arrive in the master's log.

use std::io::Write;
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use log::kv::Key;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::functions::*;
use crate::{Check, local, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("records_of_functions_arrive_with_level_time_module_and_thread", records),
    ("records_below_the_masters_level_are_not_made_also_when_it_changes", levels),
    ("output_of_functions_and_of_what_they_start_arrives_line_by_line", lines),
    ("a_mebibyte_of_output_at_once_arrives_whole_and_stalls_nobody", mebibyte),
    ("s8_no_raw_byte_of_a_record_or_a_line_reaches_the_log", escaped),
    ("a_storm_of_a_million_records_delays_no_call_and_what_is_lost_is_counted", storm),
    ("a_logger_that_stands_still_stalls_who_writes_and_nobody_else", stalled),
    ("output_is_complete_when_the_tree_has_ended", last_lines),
    ("the_last_words_of_a_crash_arrive", last_words),
    ("a_panic_of_the_logger_costs_one_record", logger_panics),
    ("a_logger_may_use_the_tree_for_what_the_node_itself_has_to_say", logger_asks),
];

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    level: Level,
    target: String,
    text: String,
    time: f64,
    thread: String,
}

#[derive(Default)]
pub(crate) struct Kept {
    seen: Mutex<Vec<Seen>>,
    held: Mutex<bool>,
    released: Condvar,
}

impl Log for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // This process's own are not looked at, but for those of calls that nobody waits for.
        if !record.target().starts_with("ctx.") && !record.target().ends_with("detached") {
            return;
        }
        let text = record.args().to_string();
        assert!(!text.contains("the logger panics"), "as asked");
        let mut held = self.held.lock().expect("no panic");
        while *held {
            held = self.released.wait(held).expect("no panic");
        }
        let value = |key: &str| record.key_values().get(Key::from(key));
        self.seen.lock().expect("no panic").push(Seen {
            level: record.level(),
            target: record.target().to_owned(),
            text,
            time: value("time").and_then(|time| time.to_f64()).unwrap_or_default(),
            thread: value("thread").map(|thread| thread.to_string()).unwrap_or_default(),
        });
    }

    fn flush(&self) {}
}

impl Kept {
    fn hold(&self, hold: bool) {
        *self.held.lock().expect("no panic") = hold;
        self.released.notify_all();
    }

    fn of(&self, end: &str) -> Vec<Seen> {
        let seen = self.seen.lock().expect("no panic");
        seen.iter().filter(|seen| seen.target.ends_with(end)).cloned().collect()
    }

    pub(crate) fn texts(&self, end: &str) -> Vec<String> {
        self.of(end).into_iter().map(|seen| seen.text).collect()
    }
}

pub(crate) fn keep(level: LevelFilter) -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    let kept = KEPT.get_or_init(Kept::default);
    log::set_logger(kept).expect("the first logger of this process");
    log::set_max_level(level);
    kept
}

const FUNCTIONS: &str = "::remote::functions";

fn records() {
    let kept = keep(LevelFilter::Debug);
    let master = master();
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later").as_secs_f64();
    let context = master.local().connect().expect("a context");
    say::on(&context, 2, "from below".into()).expect("a value");
    say::on(&context, 5, "too fine".into()).expect("a value");
    within("no record came", || !kept.of(FUNCTIONS).is_empty());
    let seen = kept.of(FUNCTIONS);
    let [one] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((one.level, one.target.as_str()), (Level::Warn, "ctx.local::remote::functions"));
    assert_eq!((one.text.as_str(), one.thread.as_str()), ("from below", "offshoot-call"));
    assert!(one.time >= before && one.time < before + 60.0, "{one:?}");
    // A context that a function connects speaks under the name of the next one above.
    let name = say_below::on(&context, "from further below".into()).expect("it ran").expect("a context");
    within("nothing from further below", || {
        kept.of(FUNCTIONS).iter().any(|seen| seen.text == "from further below" && seen.target.contains(&name))
    });
}

fn levels() {
    let kept = keep(LevelFilter::Warn);
    let master = master();
    let context = local(&master);
    assert_eq!(log_level::on(&context).expect("a value"), LevelFilter::Warn as u8);
    log::set_max_level(LevelFilter::Trace);
    within("the level did not reach the worker", || {
        log_level::on(&context).expect("a value") == LevelFilter::Trace as u8
    });
    say::on(&context, 5, "fine".into()).expect("a value");
    within("no record came", || kept.texts(FUNCTIONS).contains(&"fine".to_owned()));
    log::set_max_level(LevelFilter::Off);
    within("the level did not reach the worker", || log_level::on(&context).expect("a value") == 0);
    assert!(kept.of("stdout").is_empty());
}

fn lines() {
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    print_lines::on(&context).expect("a value").expect("written");
    within("not all came", || kept.of("stdout").len() >= 4 && kept.of("stderr").len() >= 2);
    assert_eq!(kept.texts("stdout"), ["one", "", "two", "of a child"]);
    assert_eq!(kept.texts("stderr"), ["an error", "of a child, too"]);
    assert!(kept.of("stdout").iter().all(|seen| seen.level == Level::Info && seen.target == "ctx.local::stdout"));
    // The last line is not ended, and comes with the end.
    print_raw::on(&context, b"no newline".to_vec()).expect("a value").expect("written");
    drop(context);
    drop(master);
    assert_eq!(kept.texts("stdout").last().map(String::as_str), Some("no newline"));
}

fn mebibyte() {
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    let line: String = (0..63).map(|at| char::from(b'a' + at % 26)).collect();
    let all = format!("{line}\n").repeat(16 * 1024);
    let began = Instant::now();
    print_raw::on(&context, all.into_bytes()).expect("a value").expect("written");
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    within("not all came", || kept.of("stdout").len() == 16 * 1024);
    assert!(kept.texts("stdout").iter().all(|text| *text == line), "a line was changed");
    // One line beyond any bound comes in pieces.
    print_raw::on(&context, vec![b'x'; 20_000]).expect("a value").expect("written");
    print_raw::on(&context, b"\n".to_vec()).expect("a value").expect("written");
    within("the long line did not come", || kept.of("stdout").len() == 16 * 1024 + 3);
    let pieces: Vec<usize> = kept.texts("stdout")[16 * 1024..].iter().map(String::len).collect();
    assert_eq!(pieces, [8192, 8192, 20_000 - 2 * 8192]);
}

fn escaped() {
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    say::on(&context, 3, "a\x1b[31m\nb\u{202e}".into()).expect("a value");
    print_raw::on(&context, b"\x1b]0;title\x07\xff\x9b\r\n".to_vec()).expect("a value").expect("written");
    within("not all came", || !kept.of("stdout").is_empty() && !kept.of(FUNCTIONS).is_empty());
    assert_eq!(kept.texts(FUNCTIONS), ["a\\x1b[31m\\x0ab\\xe2\\x80\\xae"]);
    assert_eq!(kept.texts("stdout"), ["\\x1b]0;title\\x07\\xff\\x9b"]);
}

fn storm() {
    const RECORDS: usize = 1_000_000;
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    nothing::on(&context).expect("a value");
    let storm = storm_of::start(&context, RECORDS as u32);
    let (mut longest, mut calls) = (Duration::ZERO, 0);
    while !storm.is_done() {
        let began = Instant::now();
        nothing::on(&context).expect("a value");
        longest = longest.max(began.elapsed());
        calls += 1;
    }
    storm.wait().expect("a value");
    assert!(calls > 0 && longest < Duration::from_secs(2), "one of {calls} calls took {longest:?}");
    let counted = || -> usize {
        let lost = kept.texts("ctx.local::log");
        let lost = lost.iter().filter_map(|text| text.strip_suffix(" lines dropped")?.parse::<usize>().ok());
        kept.of(FUNCTIONS).len() + lost.sum::<usize>()
    };
    within("records are neither there nor counted", || counted() >= RECORDS);
    assert_eq!(counted(), RECORDS);
}

fn stalled() {
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    kept.hold(true);
    let writes = print_raw::start(&context, b"0123456\n".repeat(4 * 1024 * 1024));
    // Its pipe and its credit are full some time; others go on.
    for _ in 0..100 {
        nothing::on(&context).expect("a value");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!writes.is_done(), "32 MiB were written and nobody has read them");
    kept.hold(false);
    log::set_max_level(LevelFilter::Warn);
    writes.wait().expect("a value").expect("written");
}

fn last_lines() {
    let kept = keep(LevelFilter::Info);
    for round in 0..5 {
        let master = master();
        let context = local(&master);
        print_raw::on(&context, format!("{round}\n").repeat(5000).into_bytes()).expect("a value").expect("written");
        drop(master);
        assert_eq!(kept.of("stdout").len(), (round + 1) * 5000, "round {round}");
    }
}

fn last_words() {
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    for round in 0..20 {
        let words = format!("last words {round}.");
        let _ = abort_saying::on(&context, words.clone()).expect_err("a crash");
        // As a line of output, or told by the context above when it had not left the worker.
        within(&words, || kept.seen.lock().expect("no panic").iter().any(|seen| seen.text.contains(&words)));
    }
    nothing::on(&context).expect("the next call has a fresh worker");
}

fn logger_panics() {
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    print_raw::on(&context, b"before\nthe logger panics\nafter\n".to_vec()).expect("a value").expect("written");
    print_raw::on(&context, b"and more\n".to_vec()).expect("a value").expect("written");
    within("the log ended", || kept.texts("stdout").contains(&"and more".to_owned()));
    assert_eq!(kept.texts("stdout"), ["before", "after", "and more"]);
    std::io::stdout().flush().expect("a pipe");
}

/// Asks a context for each thing that this process's node has to say.
#[derive(Default)]
struct Asks {
    context: Mutex<Option<offshoot::Context>>,
    answers: Mutex<Vec<(String, bool)>>,
}

impl Log for Asks {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.target().starts_with("offshoot_node")
            && let Some(context) = self.context.lock().expect("no panic").clone()
        {
            let answered = context.ping().is_ok();
            self.answers.lock().expect("no panic").push((record.args().to_string(), answered));
        }
    }

    fn flush(&self) {}
}

fn logger_asks() {
    static ASKS: OnceLock<Asks> = OnceLock::new();
    let asks = ASKS.get_or_init(Asks::default);
    log::set_logger(asks).expect("the first logger of this process");
    log::set_max_level(LevelFilter::Debug);
    let master = master();
    let (stays, goes) = (local(&master), local(&master));
    *asks.context.lock().expect("no panic") = Some(stays.clone());
    goes.shutdown().expect("its end");
    let ended = |(text, answered): &(String, bool)| text.contains("has ended") && *answered;
    within("the end was not told", || asks.answers.lock().expect("no panic").iter().any(ended));
    stays.ping().expect("it goes on");
    *asks.context.lock().expect("no panic") = None;
}
