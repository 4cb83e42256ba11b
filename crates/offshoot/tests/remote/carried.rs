//! Contexts, channels and pipes that go through calls.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use offshoot::prelude::*;
use offshoot::{Address, Chain, FailureKind, Limits, Ran};
use offshoot::{Worker, channel, pipe};

use crate::functions::{abort_saying, count, note, notes, nothing, pid};
use crate::{Check, local, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("a_function_calls_functions_in_a_context_that_it_was_given", given),
    ("a_context_that_was_given_runs_commands_and_starts_contexts_of_its_own", given_more),
    ("a_context_is_the_same_one_after_a_function_has_given_it_back", given_back),
    ("a_context_that_a_function_connected_is_of_use_to_its_caller", connected_there),
    ("a_context_can_be_handed_on_and_on", handed_on),
    ("a_worker_of_its_own_that_is_lent_runs_the_calls_itself", lent_worker),
    ("s3_a_context_that_was_given_is_of_no_use_where_it_was_not", not_given),
    ("s5_the_master_itself_is_not_handed_over", master_is_not),
    ("s5_a_context_that_was_given_is_not_ended_by_whom_it_was_given_to", not_ended),
    ("a_context_or_channel_is_serialized_in_calls_alone", elsewhere),
    ("r6_a_call_in_a_given_context_that_dies_ends_and_the_next_gets_another_worker", given_dies),
    ("a_function_sends_as_it_goes_and_its_end_is_the_end", sends),
    ("a_function_receives_what_is_sent_here_until_the_sender_ends", receives),
    ("two_functions_talk_by_a_channel_that_neither_made", between),
    ("a_sender_goes_on_to_another_context_and_its_end_is_seen_once_all_have_ended", sender_goes_on),
    ("the_ends_of_a_channel_come_back_as_a_value", value),
    ("messages_of_every_size_come_whole_and_in_order", sizes),
    ("r5_a_receiver_that_does_not_receive_stops_the_sender_in_another_context", back_pressure),
    ("r6_a_receiver_is_told_of_a_sender_that_is_lost_and_hears_the_others", sender_dies),
    ("r6_a_sender_is_told_of_a_receiver_that_is_lost_or_dropped", receiver_dies),
    ("r6_a_sender_that_is_handed_over_when_all_has_ended_holds_nobody_up", after_the_end),
    ("r6_a_sender_that_never_arrived_does_not_hold_the_receiver_up", never_arrives),
    ("five_waiters_each_get_one_message_and_all_wake_at_the_end", waiters),
    ("a_timeout_of_a_channel_ends_the_wait_alone", timeouts),
    ("a_file_is_read_and_written_from_another_context_by_reference", files),
    ("r6_a_pipe_whose_writer_is_lost_does_not_end_as_if_all_were_written", pipe_dies),
    ("r5_a_pipe_that_nobody_reads_holds_a_bounded_memory", pipe_stops),
];

#[offshoot::remote]
fn count_in(context: Context) -> Result<(u32, u32), String> {
    let count = count::on(&context).map_err(|error| error.to_string())?;
    Ok((count, pid::on(&context).map_err(|error| error.to_string())?))
}

fn given() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    let (first, there) = count_in::on(&a, b.clone()).expect("a value").expect("its calls");
    assert_eq!(first, 1);
    assert!(![std::process::id(), b.hello().expect("a hello").pid].contains(&there));
    // The worker that the function started there is its own, and goes on.
    assert_eq!(count_in::on(&a, b.clone()).expect("a value"), Ok((2, there)));
    assert_ne!(pid::on(&b).expect("a value"), there, "a worker is whose it is");
    // Further down, and up: a context beside, above and below.
    let below = a.local().connect().expect("a context below");
    for (from, to) in [(&a, &below), (&below, &a), (&below, &b), (&a, &a)] {
        assert!(count_in::on(from, to.clone()).expect("a value").is_ok(), "{from} asks {to}");
    }
}

#[offshoot::remote]
fn use_there(context: Context) -> Result<(String, String, String), Box<dyn std::error::Error>> {
    let said = context.command("echo").arg("of the other").output()?;
    let below = context.local().connect()?;
    let ran = below.command("echo").arg("below the other").output()?;
    count::on(&below)?;
    below.shutdown()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok((text(said.stdout), text(ran.stdout), below.address().to_string()))
}

fn given_more() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    let (said, ran, below) = use_there::on(&a, b.clone()).expect("a value").expect("it works");
    assert_eq!((&*said, &*ran), ("of the other", "below the other"));
    let below: Address = below.parse().expect("an address");
    assert_eq!(below.parent().as_ref(), Some(b.address()));
    within("it goes on", || b.info().expect("it is up").children.iter().all(|child| child.address != below));
}

#[offshoot::remote]
fn back(contexts: Vec<Context>, names: (String, Option<Context>)) -> (Option<Context>, Vec<Context>, String) {
    (names.1, contexts, names.0)
}

fn given_back() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    let below = b.local().connect().expect("a context below");
    let all = vec![a.clone(), b.clone(), below.clone()];
    let (one, list, text) = back::on(&a, all.clone(), ("x".into(), Some(b.clone()))).expect("a value");
    assert_eq!((one.expect("it").address(), &*text), (b.address(), "x"));
    for (before, after) in all.iter().zip(&list) {
        assert_eq!((before.address(), before.path()), (after.address(), after.path()));
        assert_eq!(pid::on(before).expect("a value"), pid::on(after).expect("a value"), "another worker");
    }
}

#[offshoot::remote]
fn connect_there(here: &Here) -> io::Result<(Context, Context, String)> {
    assert_eq!(here.address(), here.context().address());
    let described = format!("{} at {}", here.path(), here.address());
    Ok((here.local().connect()?, here.context().clone(), described))
}

fn connected_there() {
    let master = master();
    let a = local(&master);
    let (below, worker, described) = connect_there::on(&a).expect("a value").expect("it connects");
    assert_eq!(described, format!("{} at {}", worker.path(), worker.address()));
    assert_eq!(worker.path(), format!("{} -> worker", a.path()));
    assert_eq!(below.address().parent().as_ref(), Some(worker.address()));
    assert_ne!(pid::on(&below).expect("a value"), std::process::id());
    assert_eq!(below.command("true").status().expect("it runs").code(), Some(0));
}

/// Calls itself in the contexts that are left, from each the next one.
#[offshoot::remote]
fn tour(here: &Here, mut left: Vec<Context>) -> Result<Vec<String>, String> {
    let mut seen = vec![here.address().to_string()];
    if let Some(next) = left.pop() {
        let further = tour::on(&next, left).map_err(|error| error.to_string())??;
        seen.extend(further);
    }
    Ok(seen)
}

fn handed_on() {
    let master = master();
    let contexts: Vec<Context> = (0..4).map(|_| local(&master)).collect();
    let seen = tour::on(&contexts[0], contexts[1..].to_vec()).expect("a value").expect("a tour");
    let under: Vec<String> = seen.iter().map(|at| at[..at.rfind('/').expect("a slash")].to_owned()).collect();
    let expected: Vec<String> = [0, 3, 2, 1].map(|at: usize| contexts[at].address().to_string()).to_vec();
    assert_eq!(under, expected);
}

fn lent_worker() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    let worker = Worker::on(&b).start().expect("a worker");
    assert_eq!(count::on(&worker).expect("a value"), 1);
    let (count, there) = count_in::on(&a, worker.clone()).expect("a value").expect("it is called");
    assert_eq!((count, there), (2, pid::on(&worker).expect("a value")));
    // The chains of several callers there have nothing to do with each other, nor has the end of one.
    let chain = Chain::new();
    let noted = |number| note::call(number, 0, vec![]).serial(&chain).timeout(Duration::from_secs(20)).on(&worker);
    noted(1).expect("it ran").expect("a value");
    for number in [10, 20] {
        let result = note_in::on(&a, worker.clone(), number).expect("a value");
        assert_eq!(result, Err("too many".into()), "as it was told");
        noted(number + 5).expect("it ran").expect("a value");
    }
    assert_eq!(notes::on(&worker).expect("a value"), [1, 10, 11, 15, 20, 21, 25]);
}

/// Notes two numbers in a chain of its own, and ends that by a failure.
#[offshoot::remote]
fn note_in(context: Context, number: u32) -> Result<(), String> {
    let chain = Chain::new();
    for number in [number, number + 1, 1000] {
        note::call(number, 0, vec![]).serial(&chain).on(&context).map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Keeps what it is given where another function finds it.
static KEPT: std::sync::Mutex<Option<Context>> = std::sync::Mutex::new(None);

#[offshoot::remote]
fn keep(context: Context) {
    *KEPT.lock().expect("no panic") = Some(context);
}

/// What comes of asking a context for a verb without a right: its kind of failure.
#[offshoot::remote]
fn intrude(here: &Here, address: String) -> String {
    let kept = KEPT.lock().expect("no panic").clone();
    let outcome = match kept {
        Some(context) if context.address().to_string() == address => context.echo(b"x").map(drop),
        _ => return format!("{} was given nothing", here.address()),
    };
    format!("{outcome:?}")
}

fn not_given() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    keep::on(&a, b.clone()).expect("a value");
    let address = b.address().to_string();
    assert_eq!(intrude::on(&a, address.clone()).expect("a value"), "Ok(())");
    assert!(intrude::on(&b, address).expect("a value").contains("was given nothing"));
}

fn master_is_not() {
    let master = master();
    let a = local(&master);
    let error = keep::on(&a, master.context().clone()).expect_err("it is refused");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error}");
    let other = crate::master();
    let error = keep::on(&a, local(&other)).expect_err("of another tree");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error}");
}

#[offshoot::remote]
fn end(context: Context) -> String {
    format!("{:?}", context.shutdown().map_err(|error| error.kind().clone()))
}

fn not_ended() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    assert_eq!(end::on(&a, b.clone()).expect("a value"), "Err(Denied)");
    b.ping().expect("it goes on");
}

fn elsewhere() {
    let master = master();
    let a = local(&master);
    let (sender, receiver) = channel::<Context>(1);
    let error = sender.send(&a).expect_err("no call");
    assert_eq!(error.kind(), &FailureKind::Malformed, "{error}");
    drop(sender);
    assert!(receiver.recv().expect("an end").is_none());
}

#[offshoot::remote]
fn dies_in(context: Context) -> (String, bool) {
    let error = abort_saying::on(&context, "on purpose".into()).expect_err("it died");
    (format!("{:?}", error.kind()), matches!(count::on(&context), Ok(1)))
}

fn given_dies() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    let (kind, again) = dies_in::on(&a, b.clone()).expect("a value");
    assert!(kind.starts_with("PeerLost(Signalled(6"), "{kind}");
    assert!(again, "the next call got no fresh worker");
    nothing::on(&b).expect("the context itself goes on");
}

#[offshoot::remote]
fn squares(up_to: u64, sender: Sender<u64>) -> Result<(), String> {
    (0..up_to).try_for_each(|number| sender.send(&(number * number))).map_err(|error| error.to_string())
}

fn sends() {
    let master = master();
    let a = local(&master);
    let (sender, receiver) = channel(4);
    let call = squares::start(&a, 10_000, sender);
    let mut expected = 0..10_000u64;
    for message in receiver.iter() {
        let number = expected.next().expect("no more than were sent");
        assert_eq!(message.expect("a message"), number * number);
    }
    assert_eq!(expected.next(), None);
    assert_eq!(call.wait().expect("a value"), Ok(()));
}

#[offshoot::remote]
fn sum(receiver: Receiver<u64>) -> Result<(u64, u64), String> {
    let all: Result<Vec<u64>, _> = receiver.iter().collect();
    all.map(|all| (all.len() as u64, all.iter().sum())).map_err(|error| error.to_string())
}

fn receives() {
    let master = master();
    let a = local(&master);
    let (sender, receiver) = channel(100);
    // Some wait before the receiver is even there.
    (0..50).for_each(|number: u64| sender.send(&number).expect("room"));
    let call = sum::start(&a, receiver);
    (50..5000).for_each(|number: u64| sender.send(&number).expect("it is received"));
    let second = sender.clone();
    drop(sender);
    second.send(&1).expect("it is received");
    drop(second);
    assert_eq!(call.wait().expect("a value"), Ok((5001, (0..5000).sum::<u64>() + 1)));
}

fn between() {
    let master = master();
    let (a, b) = (local(&master), local(&master).local().connect().expect("deeper"));
    let (sender, receiver) = channel(1);
    let sums = sum::start(&b, receiver);
    let sends = squares::start(&a, 3000, sender);
    assert_eq!(sends.wait().expect("a value"), Ok(()));
    assert_eq!(sums.wait().expect("a value"), Ok((3000, (0..3000u64).map(|number| number * number).sum())));
}

#[offshoot::remote]
fn spread(contexts: Vec<Context>, sender: Sender<u64>) -> Result<(), String> {
    let calls: Vec<_> = contexts.iter().map(|context| squares::start(context, 100, sender.clone())).collect();
    drop(sender);
    calls.into_iter().try_for_each(|call| call.wait().map_err(|error| error.to_string())?)
}

fn sender_goes_on() {
    let master = master();
    let contexts: Vec<Context> = (0..4).map(|_| local(&master)).collect();
    let (sender, receiver) = channel(1);
    let call = spread::start(&contexts[0], contexts[1..].to_vec(), sender);
    let all: Vec<u64> = receiver.iter().map(|message| message.expect("a message")).collect();
    assert_eq!((all.len(), all.iter().sum()), (300, 3 * (0..100u64).map(|n| n * n).sum::<u64>()));
    assert_eq!(call.wait().expect("a value"), Ok(()));
}

/// Both ends of a channel of its own, and what goes on in between: each number comes back doubled.
#[offshoot::remote]
fn doubling() -> (Sender<u64>, Receiver<u64>) {
    let (ask, asked) = channel(2);
    let (answer, answered) = channel(2);
    std::thread::spawn(move || {
        for number in asked.iter().map_while(Result::ok) {
            if answer.send(&(number * 2)).is_err() {
                return;
            }
        }
    });
    (ask, answered)
}

fn value() {
    let master = master();
    let a = local(&master);
    let (ask, answered) = doubling::on(&a).expect("a value");
    for number in 0..200 {
        ask.send(&number).expect("it is received");
        assert_eq!(answered.recv().expect("a message"), Some(number * 2));
    }
    drop(ask);
    assert_eq!(answered.recv().expect("the end"), None);
}

#[offshoot::remote]
fn echo(receiver: Receiver<Vec<u8>>, sender: Sender<Vec<u8>>) -> Result<(), String> {
    for message in receiver.iter() {
        sender.send(&message.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn sizes() {
    let master = master();
    let a = local(&master);
    let ((send, there), (back, receive)) = (channel(1), channel(1));
    let call = echo::start(&a, there, back);
    let lengths = [0, 1, 3, 4, 5, 16_383, 16_384, 65_535, 65_536, 200_000, Limits::ITEM - 3];
    let sending = std::thread::spawn(move || {
        for length in lengths {
            send.send(&vec![length as u8; length]).expect("it is received");
        }
        let error = send.send(&vec![0; Limits::ITEM]).expect_err("too large");
        assert_eq!(error.kind(), &FailureKind::TooLarge, "{error}");
    });
    for length in lengths {
        let message = receive.recv().expect("a message").expect("no end");
        assert!(message == vec![length as u8; length], "{length} bytes came back as {}", message.len());
    }
    assert!(receive.recv().expect("the end").is_none());
    sending.join().expect("no panic");
    assert_eq!(call.wait().expect("a value"), Ok(()));
}

/// Sends until it is stopped; how many it could.
#[offshoot::remote]
fn pour(sender: Sender<Vec<u8>>, wait: Duration) -> u32 {
    let mut sent = 0;
    while sender.send_timeout(&vec![7; 8000], wait).is_ok() {
        sent += 1;
    }
    sent
}

fn back_pressure() {
    let master = master();
    let a = local(&master);
    let (sender, receiver) = channel(1);
    let sent = pour::on(&a, sender, Duration::from_millis(500)).expect("a value");
    assert!((2..=64).contains(&sent), "{sent} messages of 8 kB found room");
    assert_eq!(receiver.iter().filter(Result::is_ok).count(), sent as usize);
}

#[offshoot::remote]
fn send_and_die(sender: Sender<u64>) {
    sender.send(&1).expect("it is received");
    std::thread::sleep(Duration::from_millis(200));
    std::process::abort();
}

fn sender_dies() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    let (sender, receiver) = channel(1);
    let dies = send_and_die::start(&a, sender.clone());
    assert_eq!(receiver.recv().expect("a message"), Some(1));
    let error = receiver.recv().expect_err("its sender died");
    assert!(matches!(error.kind(), FailureKind::PeerLost(_)), "{error}");
    assert!(matches!(dies.wait().expect_err("it died").kind(), FailureKind::PeerLost(_)));
    assert_eq!(squares::on(&b, 1, sender).expect("a value"), Ok(()));
    assert_eq!((receiver.recv().expect("a message"), receiver.recv().expect("the end")), (Some(0), None));
    // The same where the receiver is elsewhere, too.
    let (sender, receiver) = channel(1);
    let sums = sum::start(&b, receiver);
    drop(send_and_die::on(&a, sender));
    let error = sums.wait().expect("a value").expect_err("a sender died");
    assert!(error.contains("one who sent is lost"), "{error}");
}

#[offshoot::remote]
fn receive_one(receiver: Receiver<Vec<u8>>, die: bool) {
    receiver.recv().expect("a message");
    if die {
        std::process::abort();
    }
}

fn receiver_dies() {
    let master = master();
    let a = local(&master);
    for die in [true, false] {
        let (sender, receiver) = channel(1);
        let call = receive_one::start(&a, receiver, die);
        let began = Instant::now();
        let error = loop {
            if let Err(error) = sender.send(&vec![7; 10_000]) {
                break error;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it goes on for ever");
        };
        assert_eq!(error.kind(), &FailureKind::Cancelled, "{error}");
        assert_eq!(call.wait().is_err(), die);
    }
    // A sender elsewhere, whose receiver is dropped here while it waits for room.
    let (sender, receiver) = channel(1);
    let call = pour::start(&a, sender, Duration::from_secs(60));
    receiver.recv().expect("a message");
    drop(receiver);
    let began = Instant::now();
    assert!(call.wait().expect("a value") > 0);
    assert!(began.elapsed() < Duration::from_secs(20), "it was not told");
    // One whose receiver was dropped before it was there.
    let (sender, receiver) = channel(1);
    drop(receiver);
    let began = Instant::now();
    pour::on(&a, sender, Duration::from_secs(60)).expect("a value");
    assert!(began.elapsed() < Duration::from_secs(20), "it was not told");
}

fn after_the_end() {
    let master = Master::builder().build().expect("a master");
    let a = local(&master);
    let worker = Worker::on(&a).start().expect("a worker");
    master.shutdown();
    let (sender, receiver) = channel(1);
    pour::on(&worker, sender, Duration::from_secs(60)).expect_err("it has ended");
    assert_eq!(receiver.recv().map_err(|error| error.kind().clone()), Ok(None), "there was nobody to send anything");
}

fn never_arrives() {
    let master = master();
    let a = local(&master);
    let (sender, receiver) = channel::<u64>(1);
    a.shutdown().expect("it ends");
    assert!(squares::on(&a, 1, sender).is_err());
    assert!(receiver.recv_timeout(Duration::from_secs(60)).expect("no error: nothing was sent").is_none());
    let (sender, receiver) = channel::<u64>(1);
    drop(squares::call(1, sender));
    assert!(receiver.recv().expect("the end").is_none());
}

fn waiters() {
    let master = master();
    let a = local(&master);
    let (sender, receiver) = channel(1);
    let five = || {
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..5).map(|_| scope.spawn(|| receiver.recv().expect("no error"))).collect();
            assert_eq!(squares::on(&a, 5, sender.clone()).expect("a value"), Ok(()));
            let mut got: Vec<u64> =
                waiters.into_iter().map(|waiter| waiter.join().expect("no panic").expect("no end")).collect();
            got.sort_unstable();
            got
        })
    };
    assert_eq!(five(), [0, 1, 4, 9, 16]);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..5).map(|_| scope.spawn(|| receiver.recv().expect("no error"))).collect();
        drop(sender);
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("no panic"), None));
    });
}

fn timeouts() {
    let master = master();
    let a = local(&master);
    let (ask, answered) = doubling::on(&a).expect("a value");
    for _ in 0..2 {
        let error = answered.recv_timeout(Duration::from_millis(20)).expect_err("nothing was asked");
        assert_eq!(error.kind(), &FailureKind::Timeout, "{error}");
        ask.send(&4).expect("it goes on");
        assert_eq!(answered.recv_timeout(Duration::from_secs(20)).expect("a message"), Some(8));
    }
    let (sender, receiver) = channel(1);
    sender.send(&1).expect("room for one");
    let error = sender.send_timeout(&2, Duration::ZERO).expect_err("no room");
    assert_eq!(error.kind(), &FailureKind::Timeout, "{error}");
    assert_eq!(receiver.recv_timeout(Duration::ZERO).expect("a message"), Some(1));
}

/// Copies what it reads, and yields its length.
#[offshoot::remote]
fn copy(mut from: PipeReader, mut to: PipeWriter) -> io::Result<u64> {
    io::copy(&mut from, &mut to)
}

fn files() {
    let master = master();
    let a = local(&master);
    let bytes: Vec<u8> = (0..5_000_000u32).map(|at| (at % 251) as u8).collect();
    let folder = std::env::temp_dir().join(format!("offshoot-carried-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let (from, to) = (folder.join("from"), folder.join("to"));
    std::fs::write(&from, &bytes).expect("written");
    let (writer, mut reader) = pipe();
    let source = PipeReader::of(File::open(&from).expect("it is there")).expect("a thread");
    let call = copy::start(&a, source, writer);
    let mut file = File::create(&to).expect("a file");
    assert_eq!(io::copy(&mut reader, &mut file).expect("all of it"), bytes.len() as u64);
    assert_eq!(call.wait().expect("a value").expect("it copies"), bytes.len() as u64);
    assert!(std::fs::read(&to).expect("written") == bytes, "it was changed on its way");
    // A source that fails is no short file.
    let source = PipeReader::of(File::open(&folder).expect("a folder can be opened, not read")).expect("a thread");
    let (writer, reader) = pipe();
    drop(reader);
    let error = copy::on(&a, source, writer).expect("a value").expect_err("a folder");
    assert!(error.message.contains("could not go on"), "{error}");
    std::fs::remove_dir_all(folder).expect("ours");
}

#[offshoot::remote]
fn write_and_die(mut to: PipeWriter) {
    to.write_all(b"the beginning").expect("it is read");
    std::thread::sleep(Duration::from_millis(200));
    std::process::abort();
}

fn pipe_dies() {
    let master = master();
    let a = local(&master);
    let (writer, mut reader) = pipe();
    let call = write_and_die::start(&a, writer);
    let mut text = Vec::new();
    let error = reader.read_to_end(&mut text).expect_err("its writer died");
    assert_eq!((&text[..], error.kind()), (&b"the beginning"[..], io::ErrorKind::BrokenPipe));
    assert!(call.wait().is_err());
}

/// Writes as much as there is room for, and for how long nothing of it went.
#[offshoot::remote]
fn fill_pipe(mut to: PipeWriter, length: u64) -> u64 {
    io::copy(&mut io::repeat(7).take(length), &mut to).unwrap_or(0)
}

fn pipe_stops() {
    let master = master();
    let a = local(&master);
    let (writer, mut reader) = pipe();
    let call = fill_pipe::start(&a, writer, 1 << 30);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!call.is_done(), "a gigabyte found room");
    nothing::on(&a).expect("calls beside it go on");
    let mut some = vec![0; 1 << 20];
    reader.read_exact(&mut some).expect("what was written");
    drop(reader);
    assert_eq!(call.wait().expect("a value"), 0, "it was told that nobody reads");
}
