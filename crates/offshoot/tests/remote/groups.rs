//! Groups: verbs for many contexts at once.

use std::time::{Duration, Instant};

use offshoot::prelude::*;
use offshoot::{Each, FailureKind, Ran, Results, channel};

use crate::functions::{length, meet, pid, size, until_cancelled};
use crate::{Check, local, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("a_verb_of_a_group_has_a_result_for_each_context_and_one_that_failed_hides_no_other", verbs),
    ("commands_of_a_group_run_side_by_side_with_the_options_of_all", commands),
    ("contexts_are_connected_below_each_of_a_group_side_by_side", connects),
    ("a_function_runs_in_each_context_of_a_group_side_by_side", functions),
    ("a_large_argument_is_kept_once_however_many_contexts_it_goes_to", large),
    ("what_a_call_carries_is_there_for_each_of_a_group_or_for_one_alone", carried),
];

/// Some contexts, of which the second one is gone.
fn with_one_gone(master: &Master, count: usize) -> Group {
    let group: Group = (0..count).map(|_| local(master)).collect();
    group.iter().nth(1).expect("two").shutdown().expect("an end");
    group
}

/// The second one failed because it is gone, and no other.
#[track_caller]
fn one_gone<T>(results: Results<T>) -> Vec<T> {
    let mut came = Vec::new();
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(value) => came.push((index, value)),
            Err(error) => {
                assert_eq!((index, error.kind(), error.ran()), (1, &FailureKind::NoRoute, Ran::NotSent), "{error}");
                assert!(error.path().starts_with("local"), "{error}");
            }
        }
    }
    let (places, values): (Vec<usize>, Vec<T>) = came.into_iter().unzip();
    assert_eq!(places, [0, 2, 3]);
    values
}

fn verbs() {
    let master = master();
    let group = with_one_gone(&master, 4);
    assert_eq!(group.len(), 4);
    assert!(one_gone(group.echo(b"there and back")).iter().all(|back| &**back == b"there and back"));
    assert!(one_gone(group.ping()).iter().all(|time| *time < Duration::from_secs(20)));
    one_gone(group.ping_timeout(Duration::from_secs(20)));
    one_gone(group.content_stats());
    let soon = Duration::from_secs(20);
    one_gone(group.echo_timeout(b"x", soon));
    one_gone(group.info_timeout(soon));
    one_gone(group.content_stats_timeout(soon));
    let addresses: Vec<_> = one_gone(group.info()).into_iter().map(|info| info.address).collect();
    let expected: Vec<_> = [0, 2, 3].map(|at: usize| group.iter().nth(at).expect("four").address().clone()).to_vec();
    assert_eq!(addresses, expected, "not in the order of the contexts");
    one_gone(group.shutdown());
    assert!(Group::default().is_empty() && Group::default().ping().is_empty());
    let (came, errors) = Group::of_results([Err(group.ping().remove(0).expect_err("it is gone")), Ok(local(&master))]);
    assert_eq!((came.len(), errors.len()), (1, 1));
}

fn commands() {
    let master = master();
    let group = with_one_gone(&master, 4);
    let command = group.command("sh").args(["-c", "pwd; echo $WORD; cat; echo of $1 >&2; exit 3"]).arg("me").arg("it");
    let command = command.env("WORD", "said").current_dir("/usr").stdin_from(|| &b"given\n"[..]);
    for done in one_gone(command.clone().output()) {
        assert_eq!((&*done.stdout, &*done.stderr), (&b"/usr\nsaid\ngiven\n"[..], &b"of it\n"[..]));
        assert_eq!(done.status.code(), Some(3));
    }
    let statuses = one_gone(group.command("sh").args(["-c", "exit 4"]).status());
    assert!(statuses.iter().all(|status| status.code() == Some(4)));
    let began = Instant::now();
    let timed = one_gone(group.command("sleep").arg("60").timeout(Duration::from_millis(100)).output());
    assert!(timed.iter().all(|done| done.status.timed_out()) && began.elapsed() < Duration::from_secs(30));
    // More than a window each, and nobody reads: they run all the same, and end when they are dropped.
    let running = one_gone(group.command("sh").args(["-c", "yes"]).spawn());
    drop(running);
    // More than there are threads, each of which waits for all others.
    let many: Group = master.connect_all(vec![Local::new(); 40]).into_iter().flatten().collect();
    let meeting = "touch $$; while [ $(ls | wc -l) -lt 40 ]; do sleep 0.05; done";
    let met = |verb: &str, run: fn(Each<Command>) -> Results<ExitStatus>| {
        let folder = std::env::temp_dir().join(format!("offshoot-groups-{verb}-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let command = many.command("sh").args(["-c", meeting]).current_dir(&folder).timeout(Duration::from_secs(60));
        let came = run(command).into_iter().filter(|status| status.as_ref().is_ok_and(ExitStatus::success)).count();
        std::fs::remove_dir_all(folder).expect("ours");
        assert_eq!(came, 40, "{verb}");
    };
    met("output", |command| command.output().into_iter().map(|done| done.map(|done| done.status)).collect());
    met("status", Each::status);
}

fn connects() {
    let master = master();
    let group = with_one_gone(&master, 4);
    let below: Group = one_gone(group.local().connect()).into_iter().collect();
    let parents: Vec<_> = below.iter().filter_map(|context| context.address().parent()).collect();
    let expected: Vec<_> = [0, 2, 3].map(|at: usize| group.iter().nth(at).expect("four").address().clone()).to_vec();
    assert_eq!(parents, expected);
    assert_eq!(one_gone(group.connect(Local::new())).len(), 3);
    let two = group.connect_all([Local::new(), Local::new()]);
    assert_eq!(two.iter().map(|results| results.iter().flatten().count()).collect::<Vec<_>>(), [2, 0, 2, 2]);
    // An option that cannot be right is told for each.
    let wrong = group.ssh("-oProxyCommand=true").connect();
    assert!(wrong.iter().all(|result| result.is_err()) && wrong.len() == 4);
    assert_eq!(group.each(|context| context.info().map(|info| info.children.len()).unwrap_or(0)), [4, 0, 4, 4]);
}

fn functions() {
    let master = master();
    let group = with_one_gone(&master, 4);
    let mut pids = one_gone(pid::call().on_each(&group));
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3, "not a process each");
    for size in one_gone(size::call("/etc/passwd".into()).on_each(&group)) {
        assert!(size.expect("a file") > 0);
    }
    // One after the other would take as many timeouts.
    let began = Instant::now();
    let timed =
        until_cancelled::call().timeout(Duration::from_secs(1)).on_each(group.iter().filter(|c| c.ping().is_ok()));
    assert!(timed.iter().all(|result| result.as_ref().is_err_and(|error| *error.kind() == FailureKind::Timeout)));
    assert!(timed.len() == 3 && began.elapsed() < Duration::from_millis(2900), "it took {:?}", began.elapsed());
    let mut seen: Vec<usize> = meet::call(1)
        .start_each(&group)
        .map(|done| {
            assert_eq!(done.result().is_ok(), done.index() != 1, "{done:?}");
            done.index()
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3]);
}

/// The most memory that this process ever had in use, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn large() {
    const SIZE: usize = 16 << 20;
    let master = master();
    let group: Group = (0..12).map(|_| local(&master)).collect();
    one_by_one(pid::call().on_each(&group));
    let before = peak();
    let text = "x".repeat(SIZE);
    assert_eq!(one_by_one(length::call(text).on_each(&group)), [SIZE; 12]);
    // The text itself, encoded once, and what is under way: 16 MiB.
    let grown = peak() - before;
    assert!(grown < 6 * SIZE, "{} MiB for 12 contexts", grown >> 20);
}

fn one_by_one<T>(results: Results<T>) -> Vec<T> {
    results.into_iter().map(|result| result.expect("a value")).collect()
}

#[offshoot::remote]
fn tell(here: &Here, to: Sender<String>, of: Context) -> Result<(), offshoot::Error> {
    of.ping()?;
    to.send(&here.address().to_string())
}

#[offshoot::remote]
fn take(from: Receiver<u8>) -> Option<u8> {
    from.recv().ok().flatten()
}

fn carried() {
    let master = master();
    let group: Group = (0..3).map(|_| local(&master)).collect();
    let beside = local(&master);
    let (sender, receiver) = channel(8);
    let told = tell::call(sender, beside).on_each(&group);
    assert!(told.into_iter().all(|told| matches!(told, Ok(Ok(())))));
    // It ends when all have told: the call keeps no end of it.
    let mut from: Vec<String> = receiver.iter().map(|told| told.expect("a message")).collect();
    from.sort_unstable();
    from.dedup();
    assert_eq!(from.len(), 3, "{from:?}");
    let (sender, receiver) = channel(8);
    sender.send(&7).expect("room");
    let taken = take::call(receiver).on_each(&group);
    assert_eq!(taken[0].as_ref().expect("it has it"), &Some(7));
    for other in &taken[1..] {
        let error = other.as_ref().expect_err("another has it");
        assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error}");
    }
    within("nobody reads, and nobody is told", || sender.send(&8).is_err());
}
