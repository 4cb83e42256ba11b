//! R10: no byte from a target reaches a terminal raw, unless the user asked for raw output.

use std::time::Duration;

use offshoot_tests::expect::{code, first_harmful};
use offshoot_tests::process::Signal;
use offshoot_tests::{Fleet, Offshoot, Peer, Tag, or_not_run, product};

const GONE: Duration = Duration::from_secs(6);

/// A colour, a bell, an 8-bit CSI, DEL, a carriage return, a bidirectional override, invalid UTF-8; then honest text.
const NASTY: &str = r"\033[31mred\033[0m\007 \302\233 \177 \rover \342\200\256 \377\376 end\nplain \303\274 text\n";

#[test]
fn escape_sequences_in_output_and_errors_are_escaped() {
    let tag = Tag::new("escaped");
    for redirect in ["", " >&2"] {
        let done =
            Offshoot::new(&tag, &["exec", "local", "--", "sh", "-c", &format!("printf '{NASTY}'{redirect}")]).run();
        done.expect_code(0).expect_harmless();
        let shown = if redirect.is_empty() { done.out() } else { done.err() };
        for part in ["red", "over", "end", "plain ü text"] {
            assert!(shown.contains(part), "{part} is lost\n{done}");
        }
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn raw_output_is_raw() {
    let tag = Tag::new("raw");
    let done = Offshoot::new(&tag, &["exec", "--raw", "local", "--", "sh", "-c", &format!("printf '{NASTY}'")]).run();
    done.expect_code(0);
    let expected = std::process::Command::new("sh").args(["-c", &format!("printf '{NASTY}'")]).output().unwrap().stdout;
    assert_eq!(done.stdout.escape_ascii().to_string(), expected.escape_ascii().to_string());
    tag.assert_nothing_left(GONE);
}

#[test]
fn binary_noise_and_endless_lines_are_escaped_and_nothing_breaks() {
    let tag = Tag::new("noise");
    for arguments in [
        &["exec", "local/local", "--", "head", "-c", "1000000", "/dev/urandom"][..],
        &["exec", "-b", "local/local", "--", "head", "-c", "1000000", "/dev/urandom"],
    ] {
        let done = Offshoot::new(&tag, arguments).run();
        done.expect_code(0).expect_harmless();
        assert!(done.stdout.len() > 1_000_000, "{} bytes of escaped noise are too few", done.stdout.len());
    }
    // A megabyte without a newline.
    let done =
        Offshoot::new(&tag, &["exec", "local", "--", "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x"]).run();
    done.expect_code(0).expect_harmless();
    assert_eq!(done.out().matches('x').count(), 1_000_000);
    tag.assert_nothing_left(GONE);
}

#[test]
fn json_escapes_too() {
    let tag = Tag::new("jsonesc");
    let done = Offshoot::new(&tag, &["exec", "--json", "local", "--", "sh", "-c", &format!("printf '{NASTY}'")]).run();
    done.expect_code(0);
    // JSON itself demands the escape of C0; the rest must not come through either.
    assert_eq!(first_harmful(&done.stdout), None, "{done}");
    for line in done.out().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}\n{done}"));
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_target_name_with_escapes_is_escaped_in_the_error() {
    let tag = Tag::new("name");
    for name in ["h\x1b[31m", "h\u{202e}1", "h\u{9b}1", "a\nb"] {
        let done = Offshoot::new(&tag, &["exec", name, "--", "true"]).run();
        done.expect_error(code::OURS, &[]);
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn what_a_server_or_login_says_before_the_agent_starts_is_escaped_in_the_error() {
    let name = "what_a_server_or_login_says_before_the_agent_starts_is_escaped_in_the_error";
    let tag = Tag::new("banner");
    let forced = "ForceCommand printf '\\033]0;owned\\007\\033[2J hello\\n'; printf '\\033[31m wrong\\n' >&2";
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1").sshd(forced)]));
    let done = fleet.offshoot(&tag, &["exec", "h1", "--", "true"]).run();
    done.expect_error(code::OURS, &["h1", "hello"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_flood_on_stderr_is_bounded_by_its_reader_and_interruptible() {
    let tag = Tag::new("errflood");
    let mut running = Offshoot::new(&tag, &["exec", "local", "--", "sh", "-c", "echo up; yes '\x1b[31m' >&2"]).start();
    running.await_output("up", Duration::from_secs(15));
    std::thread::sleep(Duration::from_millis(500));
    running.master().signal(Signal::INT);
    let done = running.finish_within(Duration::from_secs(21));
    done.expect_code(code::INTERRUPTED).expect_harmless();
    tag.assert_nothing_left(GONE);
}

// ---- the log of a user's program ----

/// What a line of the log says behind the time of day, which records from below have.
fn without_time(line: &str) -> &str {
    let time = line.get(..13).filter(|time| {
        let form: Vec<u8> = time.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte }).collect();
        form == b"00:00:00.000 "
    });
    &line[time.map_or(0, str::len)..]
}

/// What a user's program with `offshoot::log::init` shows on its stderr, in an order that depends on no time.
fn logged(tag: &Tag, filter: Option<&str>) -> Vec<String> {
    let mut program = Offshoot::program(tag, product::caller(), &["log", "ours"]);
    program = match filter {
        Some(filter) => program.env("OFFSHOOT_LOG", filter),
        None => program,
    };
    let done = program.run();
    done.expect_code(0).expect_harmless();
    assert_eq!(done.out(), "", "{done}");
    for line in done.err().lines() {
        assert!((without_time(line) == line) != line.contains(" ctx."), "a time where none belongs, or none: {done}");
    }
    let mut lines: Vec<String> = done.err().lines().map(|line| without_time(line).to_owned()).collect();
    lines.sort();
    lines
}

const HERE: &str = r"WARN  offshoot_caller: here \x1b[31m\x0aand \xe2\x80\xaebelow";
const THERE: &str = "WARN  ctx.local::offshoot_caller [offshoot-call]: there, a warning";
const PRINTED: &str = "INFO  ctx.local::stdout: there, printed";
const FURTHER: &str = r"WARN  ctx.local/local::offshoot_caller [offshoot-call]: further \x1b]0;t\x07, a warning";
const FURTHER_PRINTED: &str = r"INFO  ctx.local/local::stdout: further \x1b]0;t\x07, printed";

#[test]
fn the_log_of_a_program_is_plain_in_a_pipe_and_filtered_by_context() {
    let tag = Tag::new("ownlog");
    assert_eq!(logged(&tag, None), [FURTHER_PRINTED, PRINTED, FURTHER, THERE, HERE]);
    assert_eq!(logged(&tag, Some("off")), [""; 0]);
    assert_eq!(logged(&tag, Some("warn")), [FURTHER, THERE, HERE]);
    let detail = "DEBUG ctx.local::offshoot_caller [offshoot-call]: there, in detail";
    let of_one = "error,ctx.local::offshoot_caller=debug,ctx.local::stdout=info,ctx.local/local=warn";
    assert_eq!(logged(&tag, Some(of_one)), [detail, PRINTED, FURTHER, THERE]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_log_of_a_program_is_coloured_on_a_terminal_by_us_alone() {
    let tag = Tag::new("colours");
    let mut terminal = Offshoot::program_on_terminal(&tag, product::caller(), &["log", "ours"]);
    terminal.await_text("further", Duration::from_secs(30));
    let done = terminal.finish(Duration::from_secs(30));
    assert_eq!(done.code, Some(0), "{done}");
    let shown = done.out();
    for (colour, line) in [("\x1b[33m", HERE), ("\x1b[33m", THERE), ("\x1b[32m", PRINTED), ("\x1b[33m", FURTHER)] {
        let (level, text) = line.split_at(5);
        assert!(shown.contains(&format!("{colour}{level}\x1b[0m{text}\r\n")), "{line} is not shown so: {done}");
    }
    let plain = shown.replace("\x1b[33m", "").replace("\x1b[32m", "").replace("\x1b[0m", "").replace("\r\n", "\n");
    assert_eq!(first_harmful(plain.as_bytes()), None, "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_log_of_a_program_that_has_a_logger_is_that_logger_s() {
    let tag = Tag::new("twologs");
    let done = Offshoot::program(&tag, product::caller(), &["log", "own"]).env("OFFSHOOT_LOG", "trace").run();
    done.expect_code(0);
    assert_eq!(done.err(), "", "{done}");
    let mut lines: Vec<&str> = std::str::from_utf8(&done.stdout).expect("text").lines().collect();
    lines.retain(|line| line.contains("ctx."));
    lines.sort_unstable();
    let said = |name: &str, text: &str| format!("own logger: ctx.{name}::offshoot_caller {text}, a warning");
    assert_eq!(lines, [said("local/local", r"further \x1b]0;t\x07"), said("local", "there")]);
    tag.assert_nothing_left(GONE);
}
