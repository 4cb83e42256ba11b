//! `offshoot shell` and Ctrl-Z, before a real terminal with a real shell in it.

use std::time::Duration;

use offshoot_tests::bounded::{eventually, find_program};
use offshoot_tests::expect::code;
use offshoot_tests::process::{self, Process, Signal};
use offshoot_tests::product::binary;
use offshoot_tests::{Offshoot, Tag, Tmux, Tree, not_run, or_not_run};

const GONE: Duration = Duration::from_secs(6);
const SOON: Duration = Duration::from_secs(20);

/// A line that shows `text` and does not hold it: the shell echoes what is typed.
fn says(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    format!("printf '%s%s\\n' '{first}' '{rest}'")
}

/// Opens a shell on a target, with a prompt of its own there.
fn open(tmux: &Tmux<'_>, options: &str) {
    let bash = tmux.bash("there>");
    tmux.line(&format!("{} shell {options}local -- {bash}", program()));
    tmux.await_text("there>", SOON);
}

fn program() -> String {
    binary().display().to_string()
}

/// The process that the shell in the terminal has started.
fn front(tmux: &Tmux<'_>) -> Process {
    let shell = tmux.shell().pid;
    let mut found = None;
    eventually(SOON, || {
        found = process::children(shell).into_iter().next();
        found.is_some()
    });
    found.expect("the shell has a job")
}

/// The settings of the terminal as the shell in it sees them, its size left out.
fn settings(tmux: &Tmux<'_>, mark: &str) -> String {
    tmux.line(&format!("stty -g | sed 's/^/{mark}''settings /'"));
    let screen = tmux.await_text(&format!("{mark}settings "), SOON);
    let line = screen.lines().find_map(|line| line.strip_prefix(&format!("{mark}settings ")));
    line.expect("it was awaited").trim().to_owned()
}

#[test]
fn a_shell_has_the_terminals_size_its_keys_and_its_own_exit_code() {
    let name = "a_shell_has_the_terminals_size_its_keys_and_its_own_exit_code";
    let tag = Tag::new("shell");
    let tmux = or_not_run!(name, Tmux::start(&tag));
    let before = settings(&tmux, "a");
    open(&tmux, "");
    tmux.line("stty size | tr ' ' x");
    tmux.await_text("30x100", SOON);
    tmux.resize(120, 40);
    tmux.line("stty size | tr ' ' x");
    tmux.await_text("40x120", SOON);
    // Ctrl-C ends the command there, and nothing here.
    tmux.line("trap 'echo caught-by-the-shell' INT; sleep 600; echo status $(($? + 1000))");
    tmux.keys(&["C-c"]);
    tmux.await_text("caught-by-the-shell", SOON);
    // Ctrl-Z stops it there, and fg continues it.
    tmux.line("cat");
    tmux.keys(&["C-z"]);
    tmux.await_screen("a job stopped there", SOON, |screen| {
        screen.contains("Stopped") && !screen.contains(PROMPT_AGAIN)
    });
    tmux.line("fg");
    tmux.line("typed behind fg");
    tmux.await_screen("cat's answer", SOON, |screen| screen.matches("typed behind fg").count() == 2);
    tmux.keys(&["C-d"]);
    tmux.line("exit 7");
    tmux.await_screen("the local prompt", SOON, |screen| screen.trim_end().ends_with("local>"));
    tmux.line("echo code=$((0 + $?))");
    tmux.await_text("code=7", SOON);
    assert_eq!(settings(&tmux, "b"), before, "the terminal was changed");
    drop(tmux);
    tag.assert_nothing_left(GONE);
}

/// Behind the first prompt, and before the session has ended, the local shell shows none.
const PROMPT_AGAIN: &str = "\nlocal> there";

#[test]
fn full_screen_programs_work_and_follow_the_size() {
    let name = "full_screen_programs_work_and_follow_the_size";
    let tag = Tag::new("fullscreen");
    let vi = ["vim", "vim.tiny", "vi"].into_iter().find(|name| find_program(name).is_some());
    let (Some(vi), Some(_)) = (vi, find_program("less")) else { not_run!(name, "vim or less is not installed") };
    let tmux = or_not_run!(name, Tmux::start(&tag));
    open(&tmux, "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("written");
    tmux.line(&format!("{vi} -u NONE -n {}", file.display()));
    tmux.await_screen("the editor", SOON, |screen| screen.matches("\n~").count() > 10);
    tmux.keys(&["i"]);
    tmux.text("written in the editor");
    tmux.keys(&["Escape"]);
    tmux.line(":wq");
    let saved = || std::fs::read_to_string(&file).unwrap_or_default();
    assert!(eventually(SOON, || saved() == "written in the editor\n"), "the file holds {:?}", saved());
    tmux.line("seq 1000 | less");
    let first = |last: usize| {
        let end = format!("{last}\n:");
        move |screen: &str| screen.trim_end().ends_with(end.trim_end())
    };
    tmux.await_screen("less to line 29", SOON, first(29));
    tmux.resize(100, 20);
    tmux.await_screen("less to line 19", SOON, first(19));
    tmux.keys(&["G"]);
    tmux.await_screen("its end", SOON, |screen| screen.trim_end().ends_with("1000\n(END)"));
    tmux.keys(&["q"]);
    tmux.line("exit");
    // What is typed ahead may still be the session's.
    tmux.await_screen("the local prompt", SOON, |screen| screen.trim_end().ends_with("local>"));
    drop(tmux);
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_escape_leaves_a_session_whose_target_hears_nothing() {
    let name = "the_escape_leaves_a_session_whose_target_hears_nothing";
    let tag = Tag::new("escape");
    let tmux = or_not_run!(name, Tmux::start(&tag));
    let before = settings(&tmux, "a");
    open(&tmux, "");
    tmux.keys(&["Enter"]);
    tmux.text("~?");
    tmux.await_text("leaves the session", SOON);
    // The agents are stopped: nothing comes, and nothing is taken.
    let stopped = Tree::of(&tag).agents;
    assert!(!stopped.is_empty(), "no agent among {:?}", tag.processes());
    assert!(stopped.iter().all(|agent| agent.signal(Signal::STOP)), "an agent has ended");
    tmux.text("stuck\r~.");
    tmux.await_text("what runs there is ended", SOON);
    tmux.line("echo code=$((0 + $?))");
    tmux.await_text("code=255", SOON);
    assert_eq!(settings(&tmux, "b"), before, "the terminal was changed");
    drop(tmux);
    // A stopped agent is ended by its guard, which hears nothing of it for 15 s.
    assert!(stopped.iter().all(|agent| agent.signal(Signal::CONT)), "an agent has ended");
    tag.assert_nothing_left(GONE);
}

#[test]
fn without_an_escape_all_is_the_targets() {
    let name = "without_an_escape_all_is_the_targets";
    let tag = Tag::new("noescape");
    let tmux = or_not_run!(name, Tmux::start(&tag));
    open(&tmux, "--escape none ");
    tmux.keys(&["Enter"]);
    tmux.line("~. 2>&1 | sed 's/^/it says: /'");
    tmux.await_text("it says: bash: ", SOON);
    tmux.line("exit");
    tmux.await_screen("the local prompt", SOON, |screen| screen.trim_end().ends_with("local>"));
    drop(tmux);
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_terminal_is_restored_however_a_session_ends() {
    let name = "the_terminal_is_restored_however_a_session_ends";
    let tag = Tag::new("restored");
    let tmux = or_not_run!(name, Tmux::start(&tag));
    let before = settings(&tmux, "a");
    for (number, signal) in [Signal::TERM, Signal::HUP, Signal::INT, Signal::KILL].into_iter().enumerate() {
        for worker in [false, true] {
            // The worker takes its signals from the front, but for the one that nobody takes.
            if worker && signal != Signal::KILL {
                continue;
            }
            open(&tmux, "");
            let front = front(&tmux);
            let child = process::children(front.pid).into_iter().next().expect("the front has a worker");
            let victim = if worker { child } else { front };
            victim.signal(signal);
            assert!(eventually(SOON, || victim.refreshed().is_none()), "it lives on after {signal:?}");
            let mark = format!("{}", 2 * number + usize::from(worker));
            tmux.line("");
            let after = settings(&tmux, &mark);
            assert_eq!(after, before, "{signal:?} to the {}", if worker { "worker" } else { "front" });
            tmux.line("clear; printf '\\033[3J'");
            tmux.await_screen("a clear screen", SOON, |screen| !screen.contains("there>"));
        }
    }
    drop(tmux);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_lost_link_ends_a_session_with_255_and_says_so() {
    let name = "a_lost_link_ends_a_session_with_255_and_says_so";
    let tag = Tag::new("shelllost");
    let tmux = or_not_run!(name, Tmux::start(&tag));
    let before = settings(&tmux, "a");
    open(&tmux, "");
    let agents = Tree::of(&tag).agents;
    assert!(agents.iter().all(|agent| agent.signal(Signal::KILL)), "an agent has ended");
    tmux.await_text("error: lost the link on local", SOON);
    tmux.await_text("signal 9", SOON);
    tmux.line("echo code=$((0 + $?))");
    tmux.await_text("code=255", SOON);
    assert_eq!(settings(&tmux, "b"), before, "the terminal was changed");
    drop(tmux);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_terminal_that_goes_away_ends_everything() {
    let name = "a_terminal_that_goes_away_ends_everything";
    for session in [true, false] {
        let tag = Tag::new("gone");
        let tmux = or_not_run!(name, Tmux::start(&tag));
        if session {
            open(&tmux, "");
        } else {
            tmux.line(&format!("{} exec local -- sh -c '{}; sleep 600'", program(), "printf \"%s\\n\" up"));
            tmux.await_text("local: up", SOON);
        }
        tmux.close();
        // Seven seconds are promised for an end in order.
        tag.assert_nothing_left(Duration::from_secs(21));
    }
}

#[test]
fn ctrl_z_stops_the_command_line_and_not_the_tree() {
    let name = "ctrl_z_stops_the_command_line_and_not_the_tree";
    let tag = Tag::new("ctrlz");
    let tmux = or_not_run!(name, Tmux::start(&tag));
    tmux.line(&format!(
        "{} exec local -- sh -c 'i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done'",
        program()
    ));
    tmux.await_text("local: tick 5", SOON);
    tmux.keys(&["C-z"]);
    tmux.await_text("Stopped", SOON);
    // It shows nothing while it is stopped ...
    tmux.line(&says("mark"));
    tmux.await_text("mark", SOON);
    let ticks = |screen: &str| screen.matches("local: tick").count();
    let then = ticks(&tmux.screen());
    // ... for longer than a silent link is borne, and the target's process lives on.
    std::thread::sleep(Duration::from_secs(17));
    assert_eq!(ticks(&tmux.screen()), then, "it showed something while it was stopped");
    tmux.line("fg");
    tmux.await_screen("more ticks", SOON, |screen| ticks(screen) > then + 5);
    tmux.keys(&["C-c"]);
    tmux.line("");
    tmux.line("echo code=$((0 + $?))");
    tmux.await_text("code=130", Duration::from_secs(21));
    drop(tmux);
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_escape_stops_a_session_and_fg_brings_it_back() {
    let name = "the_escape_stops_a_session_and_fg_brings_it_back";
    let tag = Tag::new("suspended");
    let tmux = or_not_run!(name, Tmux::start(&tag));
    let before = settings(&tmux, "a");
    open(&tmux, "");
    tmux.keys(&["Enter"]);
    tmux.text("~");
    tmux.keys(&["C-z"]);
    tmux.await_text("Stopped", SOON);
    assert_eq!(settings(&tmux, "b"), before, "the terminal was not left");
    // In the background it has no terminal, and stops again.
    tmux.line("bg; sleep 0.5; jobs");
    tmux.await_screen("stopped again", SOON, |screen| screen.matches("Stopped").count() >= 2);
    tmux.resize(90, 25);
    tmux.line("fg");
    tmux.line("stty size | tr ' ' x");
    tmux.await_text("25x90", SOON);
    tmux.line("exit 3");
    tmux.line("echo code=$((0 + $?))");
    tmux.await_text("code=3", SOON);
    assert_eq!(settings(&tmux, "c"), before, "the terminal was changed");
    drop(tmux);
    tag.assert_nothing_left(GONE);
}

#[test]
fn without_a_terminal_a_shell_reads_stdin_as_a_pipe_and_says_so() {
    let tag = Tag::new("shellpipe");
    let done = Offshoot::new(&tag, &["shell", "local"]).stdin("echo out; echo err >&2; test -t 0 || exit 9\n").run();
    done.expect_code(9);
    assert!(done.out().ends_with("out\n"), "{done}");
    assert!(done.err().contains("err\n") && done.err().contains("stdin is no terminal"), "{done}");
    let quiet = Offshoot::new(&tag, &["shell", "-q", "local"]).stdin("exit 4\n").run();
    quiet.expect_code(4);
    assert!(!quiet.err().contains("no terminal"), "{quiet}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn exec_gives_a_terminal_when_asked_to() {
    let tag = Tag::new("exectty");
    let done =
        Offshoot::new(&tag, &["exec", "-T", "local", "--", "sh", "-c", "stty size; cat; exit 5"]).stdin("x\n").run();
    done.expect_code(5);
    assert!(done.out().contains("24 80\r\n") && done.out().ends_with("x\r\n"), "{done}");
    Offshoot::new(&tag, &["exec", "-T", "local,local/local", "--", "true"])
        .run()
        .expect_error(code::OURS, &["a terminal is for one target"]);
    let missing = Offshoot::new(&tag, &["shell", "local", "--", "/no/such/program"]).run();
    missing.expect_code(code::NOT_FOUND);
    tag.assert_nothing_left(GONE);
}

#[test]
fn after_a_second_ctrl_c_the_prompt_stands_on_a_line_of_its_own() {
    let name = "after_a_second_ctrl_c_the_prompt_stands_on_a_line_of_its_own";
    let tag = Tag::new("ctrlc2tty");
    let tmux = or_not_run!(name, Tmux::start(&tag));
    tmux.line(&format!("{} exec local -- sh -c 'trap \"\" INT TERM; echo up; sleep 600; sleep 600'", program()));
    tmux.await_text("local: up", SOON);
    tmux.keys(&["C-c"]);
    tmux.await_text("once more ends at once", SOON);
    tmux.keys(&["C-c"]);
    tmux.line(&says("ended"));
    let screen = tmux.await_text("\nended", SOON);
    assert!(screen.lines().any(|line| line.starts_with("local> printf")), "{screen}");
    assert!(!screen.lines().any(|line| line.contains("^Clocal>")), "{screen}");
    drop(tmux);
    tag.assert_nothing_left(GONE);
}
