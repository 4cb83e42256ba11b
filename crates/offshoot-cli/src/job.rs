//! Running one job on all targets: what `exec` and `run` have in common.
//!
//! The walk connects and hands each target's context to [`Runner::visit`], on a thread of the target's own; stdin, when
//! there is any, is written by a second one, so that a target that does not read is still listened to.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::exit;
use crate::fault::Fault;
use crate::feed::{Feed, FeedReader};
use crate::ground::{Event, Ground, Job, Running, Stdin};
use crate::hinted::{PROCESSES, no_thread};
use crate::interrupt::Interrupt;
use crate::output::{Outcome, Printer, TargetPrinter, Verdict};
use crate::walk::{Plan, Visitor, walk, warn_of_fewer};

/// What the targets' stdin is.
pub(crate) enum Input {
    /// Nothing.
    Empty,
    /// What this source gives, to each of them.
    Source(Box<dyn io::Read + Send>),
}

/// Runs `job` at the end of each of `paths` and returns what to exit with.
///
/// # Errors
/// When our own output cannot be written, our stdin not be read, or no thread be started. A reader that went away is no
/// error: it is an interruption.
pub(crate) fn run<G: Ground>(
    root: &G,
    paths: Vec<Vec<G::Hop>>,
    fanout: usize,
    job: &Job,
    input: Input,
    printer: &dyn Printer,
    interrupt: &Interrupt,
) -> io::Result<u8> {
    let targets = paths.len();
    let plan = Plan::new(paths);
    let broken = Arc::new(Mutex::new(None));
    // Targets above others in the tree keep their place until those end; only a walk of leaves starts all at once.
    let together = plan.nodes.len() <= fanout;
    let readers = match input {
        Input::Empty => Vec::new(),
        Input::Source(source) => {
            let (feed, readers) = Feed::new(targets, together)?;
            start_feed(feed, source, broken.clone(), interrupt.clone())?;
            readers
        }
    };
    let runner = Runner {
        root,
        plan: &plan,
        job,
        printer,
        interrupt,
        fed: !readers.is_empty(),
        together: together && targets > 1,
        readers: readers.into_iter().map(|reader| Mutex::new(Some(reader))).collect(),
        ends: Mutex::new((0..targets).map(|_| None).collect()),
        broken: broken.clone(),
    };
    walk(&plan, fanout, &runner)?;
    let ends = runner.ends.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut verdict = Verdict { targets, interrupted: interrupt.code().is_some(), ..Verdict::default() };
    for (target, end) in ends.into_iter().enumerate() {
        let Some((code, brief)) = end else { continue };
        verdict.code = verdict.code.max(code);
        verdict.failed.extend(brief.map(|brief| (target, brief)));
    }
    verdict.code = interrupt.code().unwrap_or(verdict.code);
    if let Some(error) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    match printer.finish(&verdict) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::BROKEN_PIPE),
        Err(error) => Err(error),
        Ok(()) => Ok(verdict.code),
    }
}

/// Reads stdin on a thread of its own, which nobody waits for: it may sit in a read that never ends.
fn start_feed(
    feed: Arc<Feed>,
    source: Box<dyn io::Read + Send>,
    broken: Arc<Mutex<Option<io::Error>>>,
    interrupt: Interrupt,
) -> io::Result<()> {
    let fills = thread::Builder::new().name("stdin".into()).spawn(move || {
        if let Err(error) = feed.fill(source) {
            spoilt(&broken, &interrupt, &error);
        }
    });
    fills.map(drop).map_err(no_thread)
}

/// Not all of stdin can be read. Half an input is worse than none: everything ends.
fn spoilt(broken: &Mutex<Option<io::Error>>, interrupt: &Interrupt, error: &io::Error) {
    let error = io::Error::new(error.kind(), format!("cannot read stdin: {error}"));
    broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    interrupt.trip(exit::OURS);
}

struct Runner<'a, G: Ground> {
    root: &'a G,
    plan: &'a Plan<G::Hop>,
    job: &'a Job,
    printer: &'a dyn Printer,
    interrupt: &'a Interrupt,
    fed: bool,
    /// What is fed waits for the slowest of all, and so for each of them to have begun.
    together: bool,
    /// By target; empty when nobody is fed.
    readers: Vec<Mutex<Option<FeedReader>>>,
    /// By target; `None` for those that were never reached.
    ends: Mutex<Vec<Option<TargetEnd>>>,
    /// Why we cannot go on ourselves.
    broken: Arc<Mutex<Option<io::Error>>>,
}

/// A target's exit code, and a few words unless all was well.
type TargetEnd = (u8, Option<String>);

impl<G: Ground> Visitor<G::Hop> for Runner<'_, G> {
    type Context = G;
    type Error = Box<Fault>;

    fn connect(&self, node: usize, parent: Option<&G>) -> Result<G, Box<Fault>> {
        parent.unwrap_or(self.root).connect(&self.plan.nodes[node].hop)
    }

    fn visit(&self, node: usize, context: &G) {
        let Some(target) = self.plan.nodes[node].target else { return };
        let reader = self.reader(target);
        let result = self.printer.begin(target, &context.path()).and_then(|mut printer| {
            let outcome = self.work(context, reader, printer.as_mut())?;
            self.note(&[target], exit::code(&outcome), exit::brief(&outcome));
            printer.end(&outcome)
        });
        self.check(result);
    }

    fn failed(&self, node: usize, fault: Box<Fault>) {
        let targets = self.plan.targets_below(node);
        targets.iter().for_each(|&target| drop(self.reader(target)));
        if self.stopped() {
            return;
        }
        self.note(&targets, fault.code, Some(fault.brief.clone()));
        self.check(self.printer.failed(&targets, &fault));
    }

    fn release(&self, context: G) {
        context.close();
    }

    fn stopped(&self) -> bool {
        self.interrupt.code().is_some()
    }

    fn fewer(&self, threads: usize, error: io::Error) {
        // Hops that are no targets take no place for long.
        if !(self.fed && self.together)
            || threads >= self.plan.nodes.iter().filter(|node| node.target.is_some()).count()
        {
            return warn_of_fewer(threads, &error);
        }
        let text = format!("{error}: only {threads} of the targets that are to read stdin together");
        let error = io::Error::new(error.kind(), text);
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.interrupt.trip(exit::OURS);
    }
}

impl<G: Ground> Runner<'_, G> {
    /// Runs the job and follows it to its end. An error is one of our own output.
    fn work(
        &self,
        context: &G,
        reader: Option<FeedReader>,
        printer: &mut (dyn TargetPrinter + '_),
    ) -> io::Result<Outcome> {
        let started = Instant::now();
        let mut process = match context.start(self.job, self.fed) {
            Ok(process) => process,
            Err(fault) => return Ok(Outcome::Failed(self.explained(fault))),
        };
        let stopper = reader.as_ref().map(FeedReader::stopper);
        thread::scope(|scope| {
            if let Some(reader) = reader
                && let Some(stdin) = process.stdin()
            {
                let thread = thread::Builder::new().name("feed".into()).stack_size(256 * 1024);
                if let Err(error) = thread.spawn_scoped(scope, || self.hand_over(reader, stdin)) {
                    let what = "cannot start a thread for its stdin".to_owned();
                    let hint = PROCESSES.to_owned();
                    return Ok(Outcome::Failed(Box::new(Fault { hint, ..Fault::ours(what, error.to_string()) })));
                }
            }
            let result = loop {
                match process.event() {
                    Ok(Event::Output(stream, bytes)) => {
                        if let Err(error) = printer.output(stream, &bytes) {
                            break Err(error);
                        }
                        if let Some(fault) = printer.full() {
                            break Ok(Outcome::Failed(fault));
                        }
                    }
                    Ok(Event::End(end, timed_out)) => {
                        break Ok(Outcome::Ended { end, timed_out, took: started.elapsed() });
                    }
                    Err(fault) => break Ok(Outcome::Failed(self.explained(fault))),
                }
            };
            // Before the scope waits for the thread that feeds it, which ends when the command does.
            if let Err(error) = &result {
                self.interrupt.trip(unwritten(error));
            }
            drop(process);
            if let Some(stopper) = stopper {
                stopper.stop();
            }
            result
        })
    }

    /// A fault with what only we know: that we were interrupted, or that a shell was expected.
    fn explained(&self, mut fault: Box<Fault>) -> Box<Fault> {
        fault.ours |= self.stopped();
        let program = self.job.program.to_string_lossy();
        if fault.code == exit::NOT_FOUND && self.job.args.is_empty() && program.contains([' ', '|', ';', '&', '$', '>'])
        {
            fault.hint = format!("no shell reads the command; where you want one, write: -- sh -c '{program}'");
        }
        fault
    }

    /// Writes what the feed gives until its end, or until the command reads no more.
    fn hand_over(&self, mut reader: FeedReader, mut stdin: Box<dyn Stdin>) {
        loop {
            match reader.next() {
                Ok(Some(piece)) => {
                    if stdin.write(piece).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return spoilt(&self.broken, self.interrupt, &error),
            }
        }
    }

    fn reader(&self, target: usize) -> Option<FeedReader> {
        self.readers.get(target)?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, targets: &[usize], code: u8, brief: Option<String>) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        targets.iter().for_each(|&target| ends[target] = Some((code, brief.clone())));
    }

    /// Our own output failed: nothing more can be told, so everything ends.
    fn check(&self, result: io::Result<()>) {
        let Err(error) = result else { return };
        let code = unwritten(&error);
        if code == exit::OURS {
            let error = io::Error::new(error.kind(), format!("cannot write the output: {error}"));
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        self.interrupt.trip(code);
    }
}

/// What to exit with when our own output fails.
fn unwritten(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe { exit::BROKEN_PIPE } else { exit::OURS }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};
    use std::time::Duration;

    use super::*;
    use crate::ground::fake::Fake;
    use crate::output::{Console, Grouped, Live, Raw, testing};

    struct Ran {
        code: u8,
        out: String,
        err: String,
        took: Duration,
    }

    /// Runs a shell script on targets of a fake ground, with a fanout.
    fn run_on(targets: &[&str], fanout: usize, script: &str, input: Input, interrupt: &Interrupt) -> Ran {
        let ground = Fake::default();
        let stopping = ground.clone();
        interrupt.on_trip(move || stopping.shutdown()).expect("a thread");
        let (console, stdout, stderr) = testing::console();
        let names: Vec<String> = targets.iter().map(|target| target.to_string()).collect();
        let paths = names.iter().map(|name| name.split('/').map(str::to_owned).collect()).collect();
        let printer =
            Live { console: &console, names: &names, palettes: Default::default(), aligned: [false; 2], quiet: false };
        let job = Job { program: "sh".into(), args: vec!["-c".into(), script.into()], timeout: None };
        let started = Instant::now();
        let code = run(&ground, paths, fanout, &job, input, &printer, interrupt).expect("no error of our own");
        Ran { code, out: stdout.text(), err: stderr.text(), took: started.elapsed() }
    }

    fn simply(targets: &[&str], script: &str) -> Ran {
        run_on(targets, 64, script, Input::Empty, &Interrupt::default())
    }

    fn sorted(text: &str) -> Vec<&str> {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn output_comes_from_every_target_and_the_largest_code_wins() {
        let ran = simply(&["a", "a/b", "c"], "echo $FAKE_PATH; case $FAKE_PATH in c) exit 3;; a) exit 1;; esac");
        assert_eq!(sorted(&ran.out), ["a/b: a -> b", "a: a", "c: c"]);
        assert_eq!(ran.code, 3);
        assert_eq!(ran.err, "2 of 3 failed: a (status 1), c (status 3)\n");
    }

    #[test]
    fn one_bad_hop_is_one_error_and_spoils_nothing_else() {
        let ran = simply(&["a", "refused/x1", "refused/x2", "b/refused"], "echo ran");
        assert_eq!(sorted(&ran.out), ["a: ran"]);
        assert_eq!(ran.code, exit::OURS);
        assert_eq!(ran.err.matches("error: ").count(), 2, "{}", ran.err);
        assert!(ran.err.contains("error: connection refused on refused\n  targets   refused/x[1-2]\n"), "{}", ran.err);
        assert!(ran.err.ends_with("3 of 4 failed: refused/x[1-2],b/refused (connection refused)\n"), "{}", ran.err);
    }

    #[test]
    fn every_target_gets_all_of_stdin_also_those_that_wait_for_a_place() {
        let text = "line of input\n".repeat(100_000);
        for fanout in [1, 2, 8] {
            let input = Input::Source(Box::new(Cursor::new(text.clone())));
            let ran = run_on(&["a", "b", "c", "refused", "d"], fanout, "wc -c", input, &Interrupt::default());
            assert_eq!(sorted(&ran.out), ["a: 1400000", "b: 1400000", "c: 1400000", "d: 1400000"], "{fanout}");
        }
    }

    #[test]
    fn a_stdin_that_never_ends_holds_up_nobody_who_does_not_read_it() {
        struct Never;
        impl Read for Never {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                loop {
                    thread::park();
                }
            }
        }
        let ran = run_on(&["a", "b"], 8, "echo done", Input::Source(Box::new(Never)), &Interrupt::default());
        assert_eq!((ran.code, sorted(&ran.out)), (0, vec!["a: done", "b: done"]));
        // As `yes | head`: it reads a little of much and ends.
        let endless = Input::Source(Box::new(io::repeat(b'y')));
        let ran = run_on(&["a", "b"], 8, "head -c 3 | wc -c", endless, &Interrupt::default());
        assert_eq!((ran.code, sorted(&ran.out)), (0, vec!["a: 3", "b: 3"]));
    }

    #[test]
    fn a_broken_stdin_is_an_error_and_not_a_shorter_input() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("torn tape"))
            }
        }
        let ground = Fake::default();
        let (console, ..) = testing::console();
        let names = ["a".to_owned()];
        let printer = Raw { console: &console, names: &names, palette: Default::default(), quiet: true };
        let job = Job { program: "cat".into(), ..Job::default() };
        let interrupt = Interrupt::default();
        let input = Input::Source(Box::new(Broken));
        let error = run(&ground, vec![vec!["a".into()]], 1, &job, input, &printer, &interrupt).expect_err("an error");
        assert_eq!(error.to_string(), "cannot read stdin: torn tape");
    }

    #[test]
    fn an_interruption_ends_connects_and_commands_and_says_nothing_of_them() {
        let interrupt = Interrupt::default();
        let theirs = interrupt.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(1));
            theirs.trip(130);
        });
        let ran = run_on(&["a", "hangs/b", "c", "d"], 2, "echo up; sleep 100", Input::Empty, &interrupt);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (130, "a: up\n", ""));
        assert!(ran.took < Duration::from_secs(6), "{:?}", ran.took);
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_run_quietly() {
        struct Gone;
        impl io::Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let ground = Fake::default();
        let stderr = testing::Kept::default();
        let console = Console::new(Box::new(Gone), Box::new(stderr.clone()));
        let names = ["a".to_owned(), "b".to_owned()];
        let printer = Raw { console: &console, names: &names, palette: Default::default(), quiet: false };
        let job = Job { program: "yes".into(), ..Job::default() };
        let interrupt = Interrupt::default();
        let stopping = ground.clone();
        interrupt.on_trip(move || stopping.shutdown()).expect("a thread");
        let paths = vec![vec!["a".into()], vec!["b".into()]];
        let code = run(&ground, paths, 8, &job, Input::Empty, &printer, &interrupt).expect("quiet");
        assert_eq!((code, stderr.text().as_str()), (exit::BROKEN_PIPE, ""));
    }

    #[test]
    fn output_without_end_that_is_gathered_ends_its_target_and_no_other() {
        let ground = Fake::default();
        let (console, stdout, stderr) = testing::console();
        let names = ["a".to_owned(), "b".to_owned()];
        let printer = Grouped::new(&console, &names, Default::default(), false).at_most(200_000);
        let script = "case $FAKE_PATH in a) exec yes;; b) sleep 1; echo fine;; esac";
        let job = Job { program: "sh".into(), args: vec!["-c".into(), script.into()], timeout: None };
        let paths = vec![vec!["a".into()], vec!["b".into()]];
        let code = run(&ground, paths, 8, &job, Input::Empty, &printer, &Interrupt::default()).expect("run");
        assert_eq!(code, exit::OURS);
        let (out, err) = (stdout.text(), stderr.text());
        assert!(out.matches("y\n").count() > 50_000 && out.len() < 2_000_000, "{} bytes", out.len());
        assert!(out.ends_with("b\n---------------\nfine\n"), "{}", &out[out.len() - 80..]);
        assert!(err.contains("more output than can be gathered on a") && err.contains("without -b"), "{err}");
        assert!(err.ends_with("1 of 2 failed: a (too much output)\n"), "{err}");
    }

    #[test]
    fn targets_that_are_fed_together_and_cannot_begin_together_are_an_error() {
        let (console, ..) = testing::console();
        let names = ["a".to_owned(), "b".to_owned()];
        let printer = Raw { console: &console, names: &names, palette: Default::default(), quiet: true };
        // Three nodes, of which the hop is no target.
        let plan = Plan::new(["a", "b"].map(|name| vec!["hop".to_owned(), name.to_owned()]));
        for (fed, together, threads) in [(true, true, 1), (true, true, 2), (true, false, 1), (false, true, 1)] {
            let (interrupt, broken) = (Interrupt::default(), Arc::<Mutex<_>>::default());
            let runner = Runner {
                root: &Fake::default(),
                plan: &plan,
                job: &Job::default(),
                printer: &printer,
                interrupt: &interrupt,
                fed,
                together,
                readers: Vec::new(),
                ends: Mutex::default(),
                broken: Arc::clone(&broken),
            };
            runner.fewer(threads, io::Error::other("cannot start a thread: no room"));
            let error = broken.lock().unwrap().take().map(|error| error.to_string());
            let fatal = fed && together && threads == 1;
            assert_eq!(interrupt.code(), fatal.then_some(exit::OURS));
            assert_eq!(error.is_some_and(|error| error.contains("only 1 of the targets")), fatal);
        }
    }

    #[test]
    fn a_command_that_was_meant_for_a_shell_gets_a_hint() {
        let ground = Fake::default();
        let (console, _, stderr) = testing::console();
        let names = ["a".to_owned()];
        let printer = Raw { console: &console, names: &names, palette: Default::default(), quiet: true };
        let job = Job { program: "ls | wc".into(), ..Job::default() };
        let paths = vec![vec!["a".into()]];
        let code = run(&ground, paths, 8, &job, Input::Empty, &printer, &Interrupt::default()).expect("run");
        assert_eq!(code, exit::NOT_FOUND);
        assert!(stderr.text().contains("write: -- sh -c 'ls | wc'"), "{}", stderr.text());
    }
}
