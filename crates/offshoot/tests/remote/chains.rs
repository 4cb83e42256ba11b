//! Calls that run one after the other and stop at the first error.

use std::time::{Duration, Instant};

use offshoot::{Chain, Context, Error, Master, PendingCall, WorkerLimits};
use offshoot::{FailureKind, Ran};

use crate::functions::*;
use crate::{Check, local, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("calls_of_a_chain_run_in_their_order_and_one_at_a_time", order),
    ("a_chain_stops_at_the_first_error_until_it_is_reset", stops),
    ("a_chain_stops_at_a_panic_and_at_a_crash", stops_at_losses),
    ("a_call_that_has_ended_is_answered_before_the_next_of_its_chain_ends_the_worker", answered_before),
    ("a_call_of_a_chain_that_is_given_up_stops_it_and_lets_nobody_wait", given_up),
    ("a_call_of_a_chain_that_has_ended_counts_as_it_ended_though_nobody_waited", unwaited),
    ("a_chain_goes_on_in_another_worker_when_nothing_of_it_was_under_way", other_worker),
    ("a_value_that_is_too_large_stops_the_chain_of_its_call", too_large),
    ("a_call_of_a_chain_that_is_refused_on_its_way_lets_nobody_behind_it_wait", refused_on_its_way),
    ("a_chain_belongs_to_one_context_and_disturbs_no_other_call", one_context),
];

type Noted = PendingCall<Result<(), String>>;

fn start(context: &Context, chain: &Chain, number: u32, wait: u64, large: usize) -> Noted {
    note::call(number, wait, vec![7; large]).serial(chain).start(context)
}

fn refused(result: Result<Result<(), String>, Error>) {
    let error = result.expect_err("it is behind one that failed");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Cancelled, Ran::NotSent), "{error}");
    assert!(error.message().contains("earlier call of the chain"), "{error}");
}

fn order() {
    let master = master();
    let context = local(&master);
    let chain = Chain::new();
    // Large ones come later than the small ones behind them, and those begun before there is a worker through a thread.
    let calls: Vec<Noted> = (0..60)
        .map(|number| {
            let (wait, large) = (u64::from(number * 7 % 5), if number % 10 == 0 { 500_000 } else { 10 });
            start(&context, &chain, number, wait, large)
        })
        .collect();
    for call in calls {
        call.wait().expect("it ran").expect("a value");
    }
    assert_eq!(notes::on(&context).expect("a value"), (0..60).collect::<Vec<_>>());
}

fn stops() {
    let master = master();
    let context = local(&master);
    let chain = Chain::new();
    let calls: Vec<Noted> =
        [1, 2, 1000, 3, 4].into_iter().map(|number| start(&context, &chain, number, 5, 0)).collect();
    let mut results: Vec<_> = calls.into_iter().map(PendingCall::wait).collect();
    for behind in results.split_off(3) {
        refused(behind);
    }
    assert_eq!(results.pop().expect("three").expect("it ran"), Err("too many".to_owned()));
    results.into_iter().for_each(|result| result.expect("it ran").expect("a value"));
    refused(start(&context, &chain, 5, 0, 0).wait());
    chain.reset();
    start(&context, &chain, 6, 0, 0).wait().expect("it ran").expect("a value");
    assert_eq!(notes::on(&context).expect("a value"), [1, 2, 6]);
}

fn stops_at_losses() {
    let master = master();
    let context = local(&master);
    for number in [2000, 3000] {
        let chain = Chain::new();
        let (fails, behind) = (start(&context, &chain, number, 20, 0), start(&context, &chain, 1, 0, 0));
        fails.wait().expect_err("it did not end well");
        let error = behind.wait().expect_err("it is behind one that failed");
        assert!(matches!(error.kind(), FailureKind::Cancelled | FailureKind::PeerLost(_)), "{error}");
        refused(start(&context, &chain, 2, 0, 0).wait());
        chain.reset();
        start(&context, &chain, 3, 0, 0).wait().expect("it ran").expect("a value");
    }
    // The first worker's notes went with it.
    assert_eq!(notes::on(&context).expect("a value"), [3]);
}

fn given_up() {
    let master = master();
    let context = local(&master);
    let mut stopped = 0;
    // At any moment: before it is sent, while its arguments travel, while it waits, runs, or has ended.
    for wait in 0..12 {
        let chain = Chain::new();
        let first = start(&context, &chain, 1, 3, 0);
        let given_up = start(&context, &chain, 2, 3, if wait % 2 == 0 { 1_000_000 } else { 0 });
        let behind = start(&context, &chain, 3, 0, 0);
        std::thread::sleep(Duration::from_millis(wait));
        let had_ended = given_up.is_done();
        drop(given_up);
        first.wait().expect("it ran").expect("a value");
        match behind.wait_timeout(Duration::from_secs(20)) {
            Ok(result) => result.expect("a value"),
            result => refused(result),
        }
        match start(&context, &chain, 4, 0, 0).wait() {
            // It may have ended in the last moment.
            Ok(result) if wait > 3 => result.expect("a value"),
            result => {
                assert!(!had_ended, "one that had ended stopped the chain");
                stopped += 1;
                refused(result);
            }
        }
    }
    assert!(stopped > 0);
    // And by its time, with nobody behind it yet.
    let chain = Chain::new();
    let timed = note::call(5, 300, vec![]).serial(&chain).timeout(Duration::from_millis(20));
    assert_eq!(timed.on(&context).expect_err("a timeout").kind(), &FailureKind::Timeout);
    refused(start(&context, &chain, 6, 0, 0).wait());
    chain.reset();
    start(&context, &chain, 7, 0, 0).wait().expect("it ran").expect("a value");
}

/// A value that is within the limit alone, and not with the context that it carries.
#[offshoot::remote]
fn large_with(here: &offshoot::Here, length: usize) -> (Vec<u8>, Context) {
    (vec![0; length], here.context().clone())
}

fn too_large() {
    let master = master();
    let context = local(&master);
    let chain = Chain::new();
    let large = large_with::call((64 << 20) - 20).serial(&chain).start(&context);
    let behind = start(&context, &chain, 1, 0, 0);
    let error = large.wait().map(drop).expect_err("it is too large");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::TooLarge, Ran::Executed), "{error}");
    refused(behind.wait());
}

/// More calls than may pass through the master at once, and one of a chain among them: what became of that, and of the next.
#[offshoot::remote]
fn among_too_many(context: Context) -> (String, String) {
    let chain = Chain::new();
    start(&context, &chain, 1, 0, 0).wait().expect("it ran").expect("a value");
    let mut crowd: Vec<PendingCall<()>> = (0..16_384).map(|_| until_cancelled::start(&context)).collect();
    // One that was refused says that the way is full.
    while crowd.iter().all(|call| !call.is_done()) {
        crowd.push(until_cancelled::start(&context));
        std::thread::sleep(Duration::from_millis(1));
    }
    let refused = start(&context, &chain, 2, 0, 0);
    // It is refused meanwhile, and nobody looks. Then there is room again, and the next one goes to the worker.
    std::thread::sleep(Duration::from_millis(300));
    drop(crowd);
    let behind = start(&context, &chain, 3, 0, 0);
    std::thread::sleep(Duration::from_millis(300));
    let refused = refused.wait().map_err(|error| error.kind().clone());
    let behind = behind.wait_timeout(Duration::from_secs(20)).map_err(|error| error.kind().clone());
    (format!("{refused:?}"), format!("{behind:?}"))
}

fn refused_on_its_way() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    let (refused, behind) = among_too_many::on(&a, b).expect("a value");
    assert_eq!(refused, "Err(Busy)", "the way was not full");
    assert_eq!(behind, "Err(Cancelled)");
}

fn answered_before() {
    let master = master();
    let context = local(&master);
    for round in 0..30 {
        let chain = Chain::new();
        if round % 2 == 0 {
            // Two threads sleep there.
            let beside = [50, 50].map(|wait| note::call(0, wait, vec![]).start(&context));
            beside.into_iter().for_each(|call| call.wait().expect("it ran").expect("a value"));
        }
        // Both are there when the first ends.
        let (well, ends) = (start(&context, &chain, round, 10, 0), exit::call(3).serial(&chain).start(&context));
        well.wait().expect("it ran").expect("a value");
        let error = ends.wait().expect_err("it ended the worker");
        assert!(matches!(error.kind(), FailureKind::PeerLost(_)), "{error}");
    }
}

fn unwaited() {
    let master = master();
    let context = local(&master);
    let chain = Chain::new();
    let looked_at = start(&context, &chain, 1, 0, 0);
    within("it does not end", || looked_at.is_done());
    drop(looked_at);
    // As in the documentation: the last one alone is waited for.
    let (stopped, upgraded) = (start(&context, &chain, 2, 0, 0), start(&context, &chain, 3, 0, 0));
    start(&context, &chain, 4, 0, 0).wait().expect("it ran").expect("a value");
    drop((stopped, upgraded));
    start(&context, &chain, 5, 0, 0).wait().expect("it ran").expect("a value");
    let fails = start(&context, &chain, 1000, 0, 0);
    within("it does not end", || fails.is_done());
    drop(fails);
    refused(start(&context, &chain, 6, 0, 0).wait());
    assert_eq!(notes::on(&context).expect("a value"), [1, 2, 3, 4, 5]);
}

fn other_worker() {
    let limits = WorkerLimits::default().idle(Some(Duration::from_millis(50)));
    let master = Master::builder().worker_limits(limits).build().expect("a master");
    let context = local(&master);
    let chain = Chain::new();
    for number in 0..3 {
        start(&context, &chain, number, 0, 0).wait().expect("it ran").expect("a value");
        let worker = pid::on(&context).expect("a value");
        within("it does not end", || !std::path::Path::new(&format!("/proc/{worker}")).exists());
    }
    start(&context, &chain, 3, 0, 0).wait().expect("it ran").expect("a value");
    assert_eq!(notes::on(&context).expect("a value"), [3]);
}

fn one_context() {
    let master = master();
    let (context, other) = (local(&master), local(&master));
    let chain = Chain::new();
    let slow = start(&context, &chain, 1, 1000, 0);
    let error = start(&other, &chain, 2, 0, 0).wait().expect_err("it belongs to another");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error}");
    let began = Instant::now();
    let beside = Chain::new();
    start(&context, &beside, 3, 0, 0).wait().expect("it ran").expect("a value");
    nothing::on(&context).expect("a value");
    assert!(!slow.is_done(), "the others took {:?}", began.elapsed());
    slow.wait().expect("it ran").expect("a value");
    assert_eq!(notes::on(&context).expect("a value"), [3, 1]);
}
