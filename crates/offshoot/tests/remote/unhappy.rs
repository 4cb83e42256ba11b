//! What a call that does not go well lets go of, and what of the user's goes wrong beside it: nobody waits for ever for either.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use offshoot::prelude::*;
use offshoot::{FailureKind, PendingCall, Ran, Select, channel};

use crate::functions::*;
use crate::{Check, local, master};

pub(crate) const CHECKS: &[Check] = &[
    ("a_channel_given_to_a_call_that_ends_before_it_is_there_ends_though_nobody_looks_at_the_call", not_there),
    ("a_channel_given_to_many_ends_with_those_who_are_there", some_not_there),
    ("a_start_that_finds_no_room_ends_with_the_time_of_its_call", no_room),
    ("a_call_that_is_out_of_time_is_done", out_of_time),
    ("a_file_given_to_many_stays_with_the_one_that_has_it", file_of_many),
    ("a_pipe_given_to_many_is_written_by_one", pipe_of_many),
    ("a_pipe_given_to_many_by_one_that_was_given_it_is_written_by_one", pipe_of_many_further),
    ("a_sender_from_elsewhere_is_not_returned", sender_returned),
    ("a_reader_of_the_users_that_panics_is_an_error_of_what_reads_it", readers_panic),
    ("what_a_function_throws_may_throw_again_when_it_is_dropped", thrown_again),
    ("a_worker_may_hand_over_its_own_context_any_number_of_times", lends_itself),
];

#[offshoot::remote]
fn send_three(sender: Sender<u64>) {
    for number in 1..=3 {
        sender.send(&number).expect("it is read");
    }
}

/// What comes, and how it ends; not later than the ends of a call are let go of.
fn all(receiver: &Receiver<u64>) -> (Vec<u64>, bool) {
    let (began, mut numbers, mut lost) = (Instant::now(), Vec::new(), false);
    loop {
        match receiver.recv_timeout(Duration::from_secs(20)) {
            Ok(Some(number)) => numbers.push(number),
            Ok(None) => break,
            Err(error) => {
                assert!(matches!(error.kind(), FailureKind::PeerLost(_)), "{error}");
                lost = true;
            }
        }
    }
    assert!(began.elapsed() < Duration::from_secs(15), "it ended after {:?}", began.elapsed());
    (numbers, lost)
}

fn not_there() {
    let master = master();
    let (gone, here) = (local(&master), local(&master));
    gone.shutdown().expect("its end");
    nothing::on(&here).expect("a worker");
    let sent = |start: &dyn Fn(Sender<u64>) -> PendingCall<()>| {
        let (sender, receiver) = channel::<u64>(8);
        let call = start(sender);
        let (numbers, _) = all(&receiver);
        assert_eq!(numbers, [0u64; 0]);
        call.wait().expect_err("it did not run");
    };
    sent(&|sender| send_three::start(&gone, sender));
    // The worker refuses it: the end was handed over.
    sent(&|sender| offshoot::__expansion::call("no::such@1", &(sender,)).start(&here));
    // Behind one of its chain that fails.
    let chain = offshoot::Chain::new();
    let fails = note::call(1000, 50, vec![]).serial(&chain).start(&here);
    sent(&|sender| send_three::call(sender).serial(&chain).start(&here));
    fails.wait().expect("it ran").expect_err("too many");
}

fn some_not_there() {
    let master = master();
    let group: Group = (0..4).map(|_| local(&master)).collect();
    group.iter().nth(1).expect("four").shutdown().expect("its end");
    let (sender, receiver) = channel::<u64>(8);
    let calls = send_three::call(sender).start_each(&group);
    let (mut numbers, _) = all(&receiver);
    numbers.sort();
    assert_eq!(numbers, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
    assert_eq!(calls.filter(|done| done.result().is_err()).count(), 1);
}

#[offshoot::remote]
fn hang(here: &Here, _text: String) {
    while !here.is_cancelled() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn no_room() {
    let master = master();
    let context = local(&master);
    nothing::on(&context).expect("a worker");
    let (text, began) = ("x".repeat(30_000), Instant::now());
    let mut calls = Select::new([]);
    let mut refused = None;
    // More than the 16 MiB of requests that a worker has not answered; nobody looks at those before.
    for _ in 0..700 {
        let call = hang::call(text.clone()).timeout(Duration::from_secs(2)).start(&context);
        if began.elapsed() > Duration::from_secs(2) {
            refused = Some(call);
            break;
        }
        calls.add(call);
    }
    let error = refused.expect("there was room for all").wait().expect_err("no room");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Timeout, Ran::NotSent), "{error}");
    assert!(calls.all(|done| done.result().is_err()));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    nothing::on(&context).expect("there is room again");
}

fn out_of_time() {
    let master = master();
    let context = local(&master);
    let call = until_cancelled::call().timeout(Duration::from_millis(100)).start(&context);
    assert!(!call.is_done());
    std::thread::sleep(Duration::from_millis(150));
    assert!(call.is_done(), "a wait would return at once");
    assert_eq!(call.wait().expect_err("a timeout").kind(), &FailureKind::Timeout);
}

#[offshoot::remote]
fn read_for(file: RemoteFile, millis: u64) -> io::Result<()> {
    let (began, mut some) = (Instant::now(), [0; 10]);
    while began.elapsed() < Duration::from_millis(millis) {
        file.read_at(&mut some, 0)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn file_of_many() {
    let master = master();
    let group: Group = (0..2).map(|_| local(&master)).collect();
    let file = RemoteFile::new(File::open("/etc/passwd").expect("a file"));
    // Longer than what nobody takes is kept.
    let results = read_for::call(file, 12_000).on_each(&group);
    let shown = format!("{results:?}");
    let well = results.into_iter().filter(|result| matches!(result, Ok(Ok(())))).count();
    assert_eq!(well, 1, "{shown}");
}

#[offshoot::remote]
fn write_lines(mut to: PipeWriter) -> io::Result<()> {
    (0..5).try_for_each(|_| to.write_all(b"abc\n"))
}

fn pipe_of_many() {
    let master = master();
    let group: Group = (0..3).map(|_| local(&master)).collect();
    let (writer, mut reader) = offshoot::pipe();
    let results = write_lines::call(writer).on_each(&group);
    let refused = |error: &offshoot::Error| *error.kind() == FailureKind::Unsupported;
    assert_eq!(results.iter().filter(|result| result.as_ref().is_err_and(refused)).count(), 2, "{results:?}");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("its end");
    assert_eq!(text, "abc\n".repeat(5));
}

/// How many of those two wrote, and what was said of the others.
#[offshoot::remote]
fn have_two_write(pipe: PipeWriter, a: Context, b: Context) -> (usize, Vec<String>) {
    let group: Group = [a, b].into_iter().collect();
    let mut said = Vec::new();
    let mut wrote = 0;
    for result in write_lines::call(pipe).on_each(&group) {
        match result {
            Ok(result) => wrote += usize::from(result.is_ok()),
            Err(error) => said.push(error.to_string()),
        }
    }
    (wrote, said)
}

fn pipe_of_many_further() {
    let master = master();
    let [through, a, b] = [local(&master), local(&master), local(&master)];
    for b in [b, a.clone()] {
        let (writer, mut reader) = offshoot::pipe();
        let call = have_two_write::start(&through, writer, a.clone(), b);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("its end");
        assert_eq!(text, "abc\n".repeat(5));
        let (wrote, said) = call.wait().expect("a value");
        assert_eq!((wrote, said.len()), (1, 1), "{said:?}");
        assert!(said[0].contains("for one context alone"), "{said:?}");
    }
}

#[offshoot::remote]
fn give_back(sender: Sender<u64>) -> Sender<u64> {
    sender
}

#[offshoot::remote]
fn have_it_back(sender: Sender<u64>, other: Context) -> Result<(), String> {
    give_back::on(&other, sender).map(drop).map_err(|error| error.to_string())
}

fn sender_returned() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    let (sender, receiver) = channel::<u64>(8);
    let refused = have_it_back::on(&a, sender, b).expect("a value").expect_err("in between nobody would have it");
    assert!(refused.contains("is not returned as a value"), "{refused}");
    assert_eq!(all(&receiver), (vec![], false));
}

/// Yields three bytes twice, then panics.
struct Panics(u32);

impl Read for Panics {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 += 1;
        assert!(self.0 <= 2, "on purpose");
        buffer[..3].copy_from_slice(b"abc");
        Ok(3)
    }
}

#[offshoot::remote]
fn read_all(mut from: PipeReader) -> Result<String, String> {
    let mut text = String::new();
    from.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn readers_panic() {
    let master = master();
    let context = local(&master);
    let began = Instant::now();
    let error = context.command("cat").stdin_from(Panics(0)).output().expect_err("its input was cut short");
    assert!(error.message().contains("see its panic"), "{error}");
    let source = PipeReader::of(Panics(0)).expect("a thread");
    let read = read_all::on(&context, source).expect("a value");
    assert!(read.as_ref().is_err_and(|error| error.contains("see its panic")), "{read:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

struct ThrowsAgain;

impl Drop for ThrowsAgain {
    fn drop(&mut self) {
        panic!("on purpose, in a drop");
    }
}

#[offshoot::remote]
fn throws() {
    std::panic::panic_any(ThrowsAgain);
}

fn thrown_again() {
    let master = master();
    let context = local(&master);
    for _ in 0..3 {
        let error = throws::call().timeout(Duration::from_secs(20)).on(&context).expect_err("a panic");
        assert!(matches!(error.kind(), FailureKind::Remote(_)), "{error}");
    }
    nothing::on(&context).expect("it goes on");
}

#[offshoot::remote]
fn ignore(_contexts: Vec<Context>) {}

#[offshoot::remote]
fn lend_itself(here: &Here, to: Context, times: u32) -> Result<Vec<u64>, String> {
    for _ in 0..times {
        let many = vec![here.context().clone(); 1000];
        ignore::on(&to, many).map_err(|error| error.to_string())?;
    }
    let (sender, receiver) = channel::<u64>(4);
    send_three::on(&to, sender).map_err(|error| error.to_string())?;
    Ok(receiver.iter().map_while(Result::ok).collect())
}

fn lends_itself() {
    let master = master();
    let (a, b) = (local(&master), local(&master));
    assert_eq!(lend_itself::on(&a, b, 70).expect("a value"), Ok(vec![1, 2, 3]));
}
