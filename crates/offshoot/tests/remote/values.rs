//! What goes there and what comes back.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use offshoot::{__expansion, RemoteErrorKind, Select};
use offshoot::{FailureKind, Limits, Ran, RemoteFailure};

use crate::functions::*;
use crate::workers::says_how_large_and_what_to_do;
use crate::{Check, local, master};

pub(crate) const CHECKS: &[Check] = &[
    ("a_function_runs_in_a_process_of_its_own_and_its_value_comes_back", value_comes_back),
    ("arguments_and_values_larger_than_a_frame_come_whole", large),
    ("r5_arguments_and_values_beyond_the_limit_are_refused", too_large),
    ("an_error_travels_as_its_own_type_or_with_its_kind_message_and_chain", errors),
    ("a_panic_is_an_error_with_its_message_and_place_and_the_worker_goes_on", panics),
    ("calls_run_side_by_side", side_by_side),
    ("a_hundred_thousand_calls_under_way_at_once_all_come_back", hundred_thousand),
    ("large_values_come_among_very_many_calls", large_among_many),
    ("a_selection_gives_out_calls_as_they_end", selection),
    ("a_selection_ends_with_the_timeouts_of_its_calls", selection_timeouts),
    ("a_call_that_cannot_be_understood_says_so_and_does_not_run", not_understood),
    ("s7_what_cannot_be_decoded_is_an_error_at_the_caller_and_nothing_of_it_is_in_a_log", not_decoded),
    ("r8_an_agent_runs_no_function", agent_refuses),
    ("a_worker_has_no_terminal_and_no_file_of_the_program", standard_streams),
    ("s15_s22_what_a_function_starts_sees_three_descriptors_and_default_signals", clean_start),
];

fn value_comes_back() {
    let master = master();
    let context = local(&master);
    let there = pid::on(&context).expect("a value");
    let agent = context.hello().expect("a hello").pid;
    assert!(there != std::process::id() && there != agent, "{there}");
    assert_eq!(pid(), std::process::id(), "the function itself stays as it is");
    let map = BTreeMap::from([(1, None), (2, Some(0.5))]);
    let back = same::on(&context, vec![0, 255], "é".into(), map.clone()).expect("a value");
    assert_eq!(back, (vec![0, 255], "é!".into(), map));
    nothing::on(&context).expect("a value");
    assert_eq!(call::on(&context, 1, 2, 3, 4).expect("a value"), 10);
    // The master's own context has a worker, too.
    assert_ne!(pid::on(master.context()).expect("a value"), std::process::id());
}

fn large() {
    let master = master();
    let context = local(&master);
    for length in [Limits::CALL_INLINE - 40, Limits::CALL_INLINE, Limits::CALL_INLINE + 1, 5_000_000] {
        let text: String = (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        let (_, back, _) = same::on(&context, Vec::new(), text.clone(), BTreeMap::new()).expect("a value");
        assert!(back == text + "!", "{length} bytes came back changed");
    }
    // Several at once, each read by a thread of its own or not yet at all.
    let pending: Vec<_> = (0..4).map(|n| fill::start(&context, 2_000_000 + n)).collect();
    assert_eq!(fill::on(&context, 10).expect("a value").len(), 10, "a call waits for the values of others");
    for (n, call) in pending.into_iter().enumerate() {
        assert_eq!(call.wait().expect("a value").len(), 2_000_000 + n);
    }
}

fn too_large() {
    let master = master();
    let context = local(&master);
    let most = Limits::CALL as usize;
    let error = same::on(&context, Vec::new(), "0".repeat(most), BTreeMap::new()).expect_err("too large");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::TooLarge, Ran::NotSent), "{error}");
    says_how_large_and_what_to_do(&error);
    let error = fill::on(&context, most + 1).expect_err("too large");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::TooLarge, Ran::Executed), "{error}");
    says_how_large_and_what_to_do(&error);
    assert_eq!(fill::on(&context, 3).expect("a value").len(), 3);
}

fn errors() {
    let master = master();
    let context = local(&master);
    let error = size::on(&context, "/does/not/exist".into()).expect("it ran").expect_err("no such file");
    assert_eq!(error.kind, RemoteErrorKind::Os(2), "{error:?}");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::NotFound);
    assert!(size::on(&context, "/etc/passwd".into()).expect("it ran").expect("a size") > 0);
    assert_eq!(own_error::on(&context, 12).expect("it ran"), Err(Refused::TooMany(12)));
    assert_eq!(own_error::on(&context, 2).expect("it ran"), Ok(2));
    let error = boxed_error::on(&context, "x".into()).expect("it ran").expect_err("no number");
    assert_eq!((error.message.as_str(), error.chain.len()), ("no number", 1), "{error:?}");
    assert_eq!(error.to_string(), "no number: invalid digit found in string");
    let error = inner::alias::on(&context).expect("it ran").expect_err("an error");
    assert!(error.message.contains("no form on the wire"), "{error}");
}

fn panics() {
    let master = master();
    let context = local(&master);
    let before = pid::on(&context).expect("a value");
    let error = panic::on(&context, "stop".into()).expect_err("a panic");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Remote(RemoteFailure::Panic), Ran::Executed), "{error}");
    for part in ["functions::panic", "functions.rs:", "as told: stop"] {
        assert!(error.message().contains(part), "{part} is not in {error}");
    }
    assert_eq!(pid::on(&context).expect("a value"), before, "the worker did not go on");
}

fn side_by_side() {
    let master = master();
    let context = local(&master);
    let calls: Vec<_> = (0..10).map(|_| meet::start(&context, 10)).collect();
    for call in calls {
        assert!(call.wait().expect("a value"), "they never met");
    }
}

fn hundred_thousand() {
    const CALLS: u32 = 100_000;
    let master = master();
    let context = local(&master);
    nothing::on(&context).expect("a worker");
    // All threads of the worker are busy: none of the calls behind these can end before the last one has begun.
    let gate: Vec<_> = (0..64).map(|_| until_cancelled::start(&context)).collect();
    let calls: Vec<_> = (0..CALLS).map(|number| twice::start(&context, number)).collect();
    assert!(!calls[0].is_done(), "none ran");
    drop(gate);
    for (number, call) in (0..CALLS).zip(calls) {
        assert_eq!(call.wait().expect("a value"), 2 * number);
    }
    // Those that are given up cost the worker no more than those that run.
    let gate: Vec<_> = (0..64).map(|_| until_cancelled::start(&context)).collect();
    let calls: Vec<_> = (0..CALLS).map(|number| twice::start(&context, number)).collect();
    drop(calls);
    drop(gate);
    let began = Instant::now();
    assert_eq!(twice::on(&context, 1).expect("a value"), 2);
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
}

fn large_among_many() {
    let master = master();
    let context = local(&master);
    nothing::on(&context).expect("a worker");
    let gate: Vec<_> = (0..63).map(|_| until_cancelled::start(&context)).collect();
    let others: Vec<_> = (0..5_000).map(|number| twice::start(&context, number)).collect();
    let large: Vec<_> = (1..=8).map(|number| (number, fill::start(&context, number * 300_000))).collect();
    drop(gate);
    for (number, call) in large {
        assert_eq!(call.wait().expect("a value").len(), number * 300_000);
    }
    for (number, call) in (0..).zip(others) {
        assert_eq!(call.wait().expect("a value"), 2 * number);
    }
}

fn selection() {
    let master = master();
    let contexts: Vec<_> = (0..3).map(|_| local(&master)).collect();
    let waits = until_cancelled::start(&contexts[0]);
    let mut select = Select::new([waits_for(&contexts[1]), waits_for(&contexts[2])]);
    let mut seen: Vec<usize> = (&mut select)
        .map(|done| {
            assert!(matches!(done.result(), Ok(true)), "{done:?}");
            done.index()
        })
        .collect();
    seen.sort_unstable();
    assert_eq!((seen, select.len()), (vec![0, 1], 0));
    assert!(!waits.is_done());
    let mut both = Select::new([waits]);
    assert!(both.next_timeout(Duration::from_millis(30)).is_none(), "it ended by itself");
    assert_eq!(both.add(until_cancelled::start(&contexts[1])), 1);
    assert_eq!(both.len(), 2);
    nothing::on(&contexts[1]).expect("a value");
    drop(both);
    assert!(was_cancelled_in(&contexts[0]) && was_cancelled_in(&contexts[1]), "what is left is not cancelled");
}

fn waits_for(context: &offshoot::Context) -> offshoot::PendingCall<bool> {
    meet::start(context, 1)
}

fn was_cancelled_in(context: &offshoot::Context) -> bool {
    crate::within("it was not cancelled", || was_cancelled::on(context).expect("a value"));
    true
}

fn selection_timeouts() {
    let master = master();
    let context = local(&master);
    let began = Instant::now();
    let calls = [50, 100].map(|ms| until_cancelled::call().timeout(Duration::from_millis(ms)).start(&context));
    let kinds: Vec<_> =
        Select::new(calls).map(|done| done.into_result().expect_err("a timeout").kind().clone()).collect();
    assert_eq!(kinds, [FailureKind::Timeout, FailureKind::Timeout]);
    assert!(began.elapsed() >= Duration::from_millis(100));
}

/// A function's name as calls have it.
fn named(name: &str) -> &'static str {
    let name = concat!(module_path!(), "::").replace("values", "functions") + name + "@" + env!("CARGO_PKG_VERSION");
    name.leak()
}

fn not_understood() {
    let master = master();
    let context = local(&master);
    let error = __expansion::call::<_, ()>("no::such::function", &()).on(&context).expect_err("no such function");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error}");
    assert!(error.message().contains("no::such::function") && error.hint().contains("`use no as _;`"), "{error}");
    // As a caller with other types would: the identity sees to it that there is none.
    let error = __expansion::call::<_, ()>(named("panic"), &(200u8, 2u8)).on(&context).expect_err("other arguments");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Malformed, Ran::NotSent), "{error}");
}

/// All that is logged in this process.
struct Everything(Mutex<String>);

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}: {}\n", record.level(), record.target(), record.args());
        self.0.lock().expect("no panic").push_str(&line);
    }

    fn flush(&self) {}
}

fn not_decoded() {
    static ALL: Everything = Everything(Mutex::new(String::new()));
    log::set_logger(&ALL).expect("the first logger of this process");
    log::set_max_level(log::LevelFilter::Trace);
    let master = master();
    let context = local(&master);
    let mut told = String::new();
    // Arguments of another type: a text that is longer than it says, and one that is none.
    for text in ["a secret text", "\u{7f}\u{7f}\u{7f} a secret text"] {
        let call = __expansion::call::<_, ()>(named("panic"), &(7u8, text, text)).on(&context);
        let error = call.expect_err("other arguments");
        assert_eq!((error.kind(), error.ran()), (&FailureKind::Malformed, Ran::NotSent), "{error}");
        told += &format!("{error:?} {error} {}", error.hint());
    }
    // A value of another type.
    let call = __expansion::call::<_, Vec<String>>(named("same"), &(b"a secret text", "a secret text", ()));
    let error = call.on(&context).expect_err("another function's arguments");
    told += &format!("{error:?} {error}");
    let call = __expansion::call::<_, Vec<String>>(named("fill"), &(700usize,));
    let error = call.on(&context).expect_err("no list");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Malformed, Ran::Executed), "{error}");
    assert!(error.message().contains("functions::fill: the value cannot be decoded"), "{error}");
    told += &format!("{error:?} {error} {}", error.hint());
    __expansion::call::<_, ()>(named("panic"), &(7u8, "a secret text")).detached(&context);
    crate::within("the detached call is not told of", || ALL.0.lock().expect("no panic").contains("detached"));
    nothing::on(&context).expect("the worker goes on");
    drop((context, master));
    told += &ALL.0.lock().expect("no panic");
    for part in ["secret", "7777", "97, 32, 115", "61 20 73", "6120736563"] {
        assert!(!told.contains(part), "{part:?} is in:\n{told}");
    }
}

fn agent_refuses() {
    let master = master();
    let context = local(&master);
    let error =
        context.start_call(named("pid"), Vec::new(), None, None).expect("sent").wait(None).expect_err("refused");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error}");
}

fn standard_streams() {
    let master = master();
    let streams = descriptors::on(&local(&master)).expect("a value");
    assert_eq!(streams[0], "/dev/null");
    assert!(streams[1].starts_with("pipe:") && streams[2].starts_with("pipe:"), "{streams:?}");
    assert_ne!(streams[1], streams[2], "one pipe for both");
}

fn clean_start() {
    // A file that whatever this process starts would have, and signals that it would ignore.
    let file = std::fs::File::open("/etc/passwd").expect("a file");
    offshoot_mux::io::set_cloexec(&file, false).expect("a file");
    offshoot_mux::ignore_sigpipe();
    let master = master();
    let below = local(&master).local().connect().expect("a context");
    for context in [master.context(), &below] {
        let (open, started) = clean::on(context).expect("a value");
        // Its standard streams, its link, what its threads wait at, and the program, for contexts of its own.
        let own = std::env::current_exe().expect("this program");
        let files: Vec<&String> = open.iter().filter(|to| to.starts_with('/')).collect();
        assert!(files.iter().all(|to| *to == "/dev/null" || own == std::path::Path::new(to)), "{open:?}");
        let signals = started.strip_prefix("0\n1\n2\n").unwrap_or_else(|| panic!("{started}"));
        for line in signals.lines() {
            let set = line.split_once('\t').and_then(|(_, set)| u64::from_str_radix(set, 16).ok());
            // 32 and 33 are the C library's own, which ignores them in what it starts.
            assert_eq!(set.map(|set| set & !0x1_8000_0000), Some(0), "{started}");
        }
        assert_eq!(signals.lines().count(), 2, "{started}");
    }
}
