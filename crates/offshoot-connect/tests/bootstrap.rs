//! The bootstrap's state machine alone: no process, a clock that the test turns, and hostile bytes.

use std::time::{Duration, Instant};

use offshoot_connect::bootstrap::{
    Bootstrap, BootstrapError, ErrorKind, Event, Exit, Hold, LoaderStep, Options, OptionsError, Place, Stage,
};
use offshoot_connect::bundle::{Bundle, Packed};
use offshoot_wire::HELLO_MAGIC;
use proptest::prelude::*;

const NONCE: [u8; 16] = [7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255];

fn packed(bytes: Vec<u8>, len: u32) -> Packed {
    Packed { bytes: bytes.into(), properties: 0, filter: 0, len, sha256: [9; 32] }
}

fn bundle() -> Bundle {
    // As many escapes as the real one: about every second byte is printable.
    let stage0: Vec<u8> = (0..1000).map(|n| if n % 2 == 0 { b'a' } else { (n * 37 % 256) as u8 }).collect();
    Bundle::new("x86_64-unknown-linux-musl", stage0, vec![0xee; 3500], packed(vec![0xdd; 100_000], 200_000)).unwrap()
}

struct Test {
    bootstrap: Bootstrap,
    now: Instant,
    nonce: String,
}

impl Test {
    fn new(options: Options) -> Test {
        let now = Instant::now();
        let bootstrap = Bootstrap::new(options, now).unwrap();
        let script = bootstrap.probe_script();
        let word = script.split("echo M").nth(1).unwrap().split(' ').next().unwrap();
        Test { nonce: word.replace('\\', ""), bootstrap, now }
    }

    fn plain() -> Test {
        Test::new(Options { preamble: b"PREAMBLE".to_vec(), ..Options::new(NONCE) })
    }

    fn take(&mut self, bytes: impl AsRef<[u8]>) -> Option<Event> {
        self.bootstrap.handle_bytes(bytes.as_ref(), self.now);
        self.bootstrap.poll_event()
    }

    fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(piece) = self.bootstrap.poll_output(self.now) {
            assert!(piece.len() <= 16 << 10);
            out.extend(piece);
        }
        out
    }

    fn marker(&self) -> String {
        format!("M{} Linux x86_64 .\n", self.nonce)
    }

    /// Up to where all has been sent.
    fn sent() -> Test {
        let mut test = Test::plain();
        let marker = test.marker();
        assert!(matches!(test.take(marker), Some(Event::NeedBundle { .. })));
        test.bootstrap.provide(&bundle(), test.now);
        assert!(!test.output().is_empty());
        test
    }
}

#[track_caller]
fn failed(event: Option<Event>) -> BootstrapError {
    match event {
        Some(Event::Failed(error)) => error,
        other => panic!("no failure: {other:?}"),
    }
}

#[test]
fn the_probe_is_one_short_line_that_every_login_shell_takes() {
    for hold in [Hold::No, Hold::UntilMarker, Hold::UntilReady] {
        let test = Test::new(Options { hold, ..Options::new(NONCE) });
        let command = test.bootstrap.probe_command();
        println!("{} bytes: {command}", command.len());
        assert!(command.len() < 200);
        let script = command.strip_prefix("exec /bin/sh -c '").and_then(|rest| rest.strip_suffix('\'')).unwrap();
        assert_eq!(script, test.bootstrap.probe_script());
        // tcsh: history, and newlines in quotes; all: the quote itself; fish: a backslash before those two.
        assert!(!script.contains(['!', '\n', '\'']) && !script.contains("\\\\"));
        assert!(command.is_ascii());
    }
}

#[test]
fn an_echo_of_the_command_is_no_marker() {
    let mut test = Test::plain();
    let command = test.bootstrap.probe_command();
    assert_eq!(test.take(&command), None);
    assert_eq!(test.take(format!("$ {command}\r\n")), None);
    // A terminal's echo wraps at its width.
    let wrapped: Vec<&str> = command.as_bytes().chunks(80).map(|line| std::str::from_utf8(line).unwrap()).collect();
    assert_eq!(test.take(wrapped.join("\r\r\n")), None);
    assert_eq!(test.bootstrap.stage(), Stage::Login);
}

#[test]
fn the_start_line_is_one_ascii_line_that_fits_a_terminal() {
    let mut test = Test::new(Options {
        tree_tag: Some(("OFFSHOOT_TREE".into(), "0123456789abcdef0123456789abcdef".into())),
        preamble: b"PREAMBLE".to_vec(),
        ..Options::new(NONCE)
    });
    let marker = test.marker();
    test.take(marker);
    test.bootstrap.provide(&bundle(), test.now);
    let out = test.output();
    let line = &out[..=out.iter().position(|byte| *byte == b'\n').unwrap()];
    println!("{} bytes", line.len());
    assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\n'));
    assert!(line.len() < 4_000, "{} bytes", line.len());
    let rest = &out[line.len()..];
    assert_eq!(rest, [&bundle().payload_after_line()[..], b"PREAMBLE"].concat());
}

#[test]
fn marker_bundle_and_hello_in_order() {
    let mut test = Test::plain();
    assert_eq!(test.bootstrap.stage(), Stage::Login);
    assert_eq!(test.output(), b"", "nothing goes before the marker");
    let marker = test.marker();
    let Some(Event::NeedBundle { triple, facts }) = test.take(&marker) else { panic!() };
    assert_eq!(
        (triple, facts.system.as_str(), facts.machine.as_str()),
        ("x86_64-unknown-linux-musl", "Linux", "x86_64")
    );
    assert_eq!(test.bootstrap.stage(), Stage::Agent);
    assert_eq!(test.bootstrap.poll_timeout(), None, "the caller's own deadline runs now");
    test.bootstrap.provide(&bundle(), test.now);
    assert_eq!(test.bootstrap.stage(), Stage::Start);
    let mut hello = b"some noise".to_vec();
    hello.extend(HELLO_MAGIC);
    hello.extend(b"body");
    assert_eq!(test.take(hello), Some(Event::Started { rest: [&HELLO_MAGIC[..], b"body"].concat() }));
    assert_eq!(test.bootstrap.poll_timeout(), None);
    assert!(test.bootstrap.has_output(), "what was not yet written stays to be");
    // What comes later is the caller's.
    assert_eq!(test.take("more"), None);
    test.bootstrap.handle_eof(Exit::Code(1));
    assert_eq!(test.bootstrap.poll_event(), None);
}

#[test]
fn a_terminal_gets_the_line_first_and_the_payload_when_it_is_ready() {
    let mut test = Test::new(Options { hold: Hold::UntilReady, preamble: b"PREAMBLE".to_vec(), ..Options::new(NONCE) });
    assert!(test.bootstrap.probe_script().contains("stty raw -echo"));
    let marker = format!("M{} 0 Linux x86_64 .\r\n", test.nonce);
    assert!(matches!(test.take(marker), Some(Event::NeedBundle { .. })));
    test.bootstrap.provide(&bundle(), test.now);
    let line = test.output();
    assert!(line.ends_with(b"\n"));
    // Even an echo of the line is not the word.
    assert_eq!(test.take(&line), None);
    assert_eq!(test.output(), b"");
    assert_eq!(test.bootstrap.stage(), Stage::Place);
    assert_eq!(test.take(format!("R{}\r\n", test.nonce)), None);
    assert_eq!(test.output(), [&bundle().payload_after_line()[..], b"PREAMBLE"].concat());
    assert_eq!(test.bootstrap.stage(), Stage::Start);
    assert!(matches!(test.take(HELLO_MAGIC), Some(Event::Started { .. })));
}

#[test]
fn a_terminal_that_cannot_be_made_raw_is_told() {
    let mut test = Test::new(Options { hold: Hold::UntilReady, ..Options::new(NONCE) });
    let marker = format!("M{} 127 Linux x86_64 .\r\n", test.nonce);
    assert_eq!(failed(test.take(marker)).kind, ErrorKind::Terminal);
}

#[test]
fn everything_goes_at_once_to_a_known_target_over_pipes() {
    let options = Options { hold: Hold::No, assume: Some(bundle()), ..Options::new(NONCE) };
    let mut test = Test::new(options.clone());
    assert!(test.output().ends_with(&bundle().payload_after_line()));
    let marker = test.marker();
    assert_eq!(test.take(marker), None, "no bundle is asked for");
    assert!(matches!(test.take(HELLO_MAGIC), Some(Event::Started { .. })));

    // The target turns out to be another one.
    let mut test = Test::new(options.clone());
    let marker = format!("M{} Linux aarch64 .\n", test.nonce);
    assert!(matches!(failed(test.take(marker)).kind, ErrorKind::OtherMachine { .. }));
    assert_eq!(test.output(), b"", "nothing more is sent");

    // Where a prompt is possible, only after the marker, and without asking.
    let mut test = Test::new(Options { hold: Hold::UntilMarker, ..options.clone() });
    assert_eq!(test.output(), b"");
    let marker = test.marker();
    assert_eq!(test.take(marker), None);
    assert!(test.output().ends_with(&bundle().payload_after_line()));

    // And another target is asked for then.
    let mut test = Test::new(Options { hold: Hold::UntilMarker, ..options });
    let marker = format!("M{} Linux aarch64 .\n", test.nonce);
    let Some(Event::NeedBundle { triple, .. }) = test.take(marker) else { panic!() };
    assert_eq!(triple, "aarch64-unknown-linux-musl");
}

#[test]
fn without_an_assumed_agent_nothing_can_go_at_once() {
    let mut test = Test::new(Options { hold: Hold::No, ..Options::new(NONCE) });
    assert_eq!(test.output(), b"");
    let marker = test.marker();
    assert!(matches!(test.take(marker), Some(Event::NeedBundle { .. })));
}

#[test]
fn each_stage_has_its_deadline_and_bytes_break_the_silence() {
    let second = Duration::from_secs(1);
    let mut test = Test::plain();
    let begun = test.now;
    assert_eq!(test.bootstrap.poll_timeout(), Some(begun + 10 * second));
    test.now += 9 * second;
    test.bootstrap.handle_timeout(test.now);
    assert_eq!(test.take("still here\n"), None);
    assert_eq!(test.bootstrap.poll_timeout(), Some(begun + 19 * second));
    test.bootstrap.handle_timeout(begun + 19 * second);
    let error = failed(test.bootstrap.poll_event());
    assert_eq!((error.stage, &error.kind), (Stage::Login, &ErrorKind::Timeout));
    assert_eq!(error.received, b"still here\n");

    // A slow upload is no silence.
    let mut test = Test::plain();
    let marker = test.marker();
    test.take(marker);
    test.bootstrap.provide(&bundle(), test.now);
    while test.bootstrap.has_output() {
        test.now += 9 * second;
        test.bootstrap.handle_timeout(test.now);
        test.bootstrap.poll_output(test.now);
    }
    assert_eq!(test.bootstrap.poll_event(), None);
    test.now += 10 * second;
    test.bootstrap.handle_timeout(test.now);
    let error = failed(test.bootstrap.poll_event());
    assert_eq!((error.stage, error.kind), (Stage::Start, ErrorKind::Timeout));
}

#[test]
fn noise_is_taken_to_64_kib_in_each_stage_and_no_further() {
    let noise = vec![b'\0'; (64 << 10) - 200];
    let mut test = Test::plain();
    assert_eq!(test.take(&noise), None);
    let marker = test.marker();
    assert!(matches!(test.take(marker), Some(Event::NeedBundle { .. })));
    test.bootstrap.provide(&bundle(), test.now);
    assert_eq!(test.take(&noise), None, "each stage counts anew");
    assert!(matches!(test.take(HELLO_MAGIC), Some(Event::Started { .. })));

    for stage in [Stage::Login, Stage::Start] {
        let mut test = if stage == Stage::Login { Test::plain() } else { Test::sent() };
        // 10 MiB without a newline, as one piece and byte after byte.
        let begun = Instant::now();
        let error = failed(test.take(vec![b'x'; 10 << 20]));
        assert_eq!((error.stage, error.kind), (stage, ErrorKind::Noise));
        assert_eq!(error.received.len(), 64 << 10);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

#[test]
fn an_earlier_transcript_fools_nobody() {
    let mut earlier = Test::new(Options::new([99; 16]));
    let mut transcript = earlier.marker().into_bytes();
    earlier.take(&transcript);
    transcript.extend(format!("R{}\n!N{} x!.!A{} Linux mips .", earlier.nonce, earlier.nonce, earlier.nonce).bytes());
    let mut test = Test::plain();
    assert_eq!(test.take(&transcript), None);
    assert_eq!(test.bootstrap.stage(), Stage::Login);
    let mut test = Test::sent();
    assert_eq!(test.take(&transcript), None);
}

#[test]
fn unreadable_answers_and_unknown_machines_are_told() {
    for (answer, expected) in [
        (" .\n", ErrorKind::Answer),
        ("Linux .\n", ErrorKind::Answer),
        ("Linux x86_64\n", ErrorKind::Answer),
        ("Linux x86_64 . .\n", ErrorKind::Answer),
        ("\u{1b}[0mLinux x86_64 .\n", ErrorKind::System { system: "\\u{1b}[0mLinux".into() }),
        ("Darwin arm64 .\n", ErrorKind::System { system: "Darwin".into() }),
        ("Linux ppc64le .\n", ErrorKind::Machine { machine: "ppc64le".into() }),
        ("Linux armv6l .\r\n", ErrorKind::Machine { machine: "armv6l".into() }),
    ] {
        let mut test = Test::plain();
        let error = failed(test.take(format!("M{} {answer}", test.nonce)));
        assert_eq!((error.stage, error.kind), (Stage::Login, expected), "{answer:?}");
        assert!(!error.hint.is_empty());
    }
    let mut test = Test::plain();
    let endless = format!("M{} {}", test.nonce, "Linux ".repeat(100));
    assert_eq!(failed(test.take(endless)).kind, ErrorKind::Answer);
}

#[test]
fn no_agent_and_a_foreign_agent_are_told() {
    let mut test = Test::plain();
    let marker = test.marker();
    test.take(&marker);
    test.bootstrap.provide_error("no agent for x86_64-unknown-linux-musl: run `cargo xtask agents`");
    let error = failed(test.bootstrap.poll_event());
    assert_eq!(error.stage, Stage::Agent);
    assert!(error.to_string().contains("cargo xtask agents"), "{error}");

    let mut test = Test::plain();
    test.take(&marker);
    let other = Bundle::new("riscv64gc-unknown-linux-musl", vec![1], vec![1], packed(vec![1], 1)).unwrap();
    test.bootstrap.provide(&other, test.now);
    assert!(matches!(failed(test.bootstrap.poll_event()).kind, ErrorKind::OtherMachine { .. }));
}

#[test]
fn the_loaders_words_are_read() {
    for (said, step, errno) in [
        ("\n!LH000\n", LoaderStep::Hash, 0),
        ("\r\n!LX013\r\n", LoaderStep::StartAgent, 13),
        ("!L!L!LR000", LoaderStep::ReadAgent, 0),
        ("!L!r000 !Lr022", LoaderStep::ReadLoader, 22),
    ] {
        let mut test = Test::sent();
        let error = failed(test.take(said));
        assert_eq!(error.kind, ErrorKind::Loader { step, errno }, "{said:?}");
        assert_eq!(error.stage, Stage::Start);
    }
    for noise in ["!L", "!LQ000", "!LH00x", "! LH000", "!LH0"] {
        assert_eq!(Test::sent().take(noise), None, "{noise:?}");
    }
}

#[test]
fn the_targets_own_words_are_read() {
    let mut test = Test::sent();
    let n = test.nonce.clone();
    let entry = &n[..6];
    let report = format!(
        "!N{n}!{entry} 1 /usr/bin/perl: memfd: Operation not permitted\n!{entry} 126 /dev/shm: sh: 1: eval: \
         /dev/shm/.o{n}: Permission denied!{entry} 2 /odd \u{1b}[m!LH000!.: x!{entry}."
    );
    let ErrorKind::NoExec { tried } = failed(test.take(report)).kind else { panic!() };
    let place = |place: &str, status, text: &str| Place { place: place.into(), status, text: text.into() };
    assert_eq!(
        tried,
        [
            place("/usr/bin/perl", 1, "memfd: Operation not permitted"),
            place("/dev/shm", 126, "Permission denied"),
            place("/odd \\u{1b}[m!LH000!.", 2, "x"),
        ]
    );

    let mut test = Test::new(Options { hold: Hold::No, assume: Some(bundle()), ..Options::new(NONCE) });
    let marker = test.marker();
    test.take(marker);
    let error = failed(test.take(format!("!A{n} Linux mips .\n")));
    assert_eq!(
        error.kind,
        ErrorKind::OtherMachine { expected: "x86_64-unknown-linux-musl".into(), got: "Linux mips".into() }
    );
}

#[test]
fn the_end_of_the_tool_comes_with_its_status() {
    for (exit, shown) in
        [(Exit::Code(255), " (exit status 255)"), (Exit::Signal(9), " (signal 9)"), (Exit::Unknown, "")]
    {
        let mut test = Test::sent();
        test.bootstrap.handle_eof(exit);
        let error = failed(test.bootstrap.poll_event());
        assert_eq!((&error.kind, error.exit), (&ErrorKind::Ended, Some(exit)));
        assert!(error.to_string().contains(&format!("the connection ended{shown}; received")), "{error}");
    }
}

#[test]
fn options_that_cannot_be_written_are_refused() {
    let refused = |change: fn(&mut Options)| {
        let mut options = Options::new(NONCE);
        change(&mut options);
        Bootstrap::new(options, Instant::now()).map(drop).unwrap_err()
    };
    let tag = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
    for key in ["", "1A", "A B", "A;rm", "Ä", "A=B"] {
        let mut options = Options::new(NONCE);
        options.tree_tag = tag(key, "x");
        assert_eq!(Bootstrap::new(options, Instant::now()).map(drop), Err(OptionsError::TagName), "{key:?}");
    }
    assert_eq!(refused(|o| o.tree_tag = Some(("A".into(), "line\nbreak".into()))), OptionsError::Text);
    assert_eq!(refused(|o| o.args = vec!["é".into()]), OptionsError::Text);
    assert_eq!(refused(|o| o.args = vec!["x".into(); 600]), OptionsError::Text);
    assert_eq!(refused(|o| o.process_name = "t".into()), OptionsError::ProcessName);
    assert_eq!(refused(|o| o.process_name = String::new()), OptionsError::ProcessName);
    assert_eq!(refused(|o| o.shell = "sh".into()), OptionsError::Shell);
    assert_eq!(refused(|o| o.shell = "/bin/sh'; rm".into()), OptionsError::Shell);
    assert_eq!(refused(|o| o.hello_magic = Vec::new()), OptionsError::Magic);
}

#[test]
fn debug_shows_nothing_of_the_preamble_at_any_stage() {
    let secret = [0xa5, 0x5a, 0xc3, 0x3c].repeat(8);
    let texts = |test: &Test, options: &Options| format!("{:?} {options:?}", test.bootstrap);
    for hold in [Hold::UntilMarker, Hold::UntilReady] {
        let options = Options { preamble: secret.clone(), hold, ..Options::new(NONCE) };
        let mut test = Test::new(options.clone());
        let mut all = texts(&test, &options);
        let status = if hold == Hold::UntilReady { "0 " } else { "" };
        test.take(format!("M{} {status}Linux x86_64 .\n", test.nonce));
        test.bootstrap.provide(&bundle(), test.now);
        all += &texts(&test, &options);
        for shown in ["165, 90", "a5, 5a", "\\xa5Z", "\\xa5\\x5a"] {
            assert!(!all.contains(shown), "{all}");
        }
    }
}

/// Pieces of what a target can say, with the nonce's place open.
fn pieces() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let text = prop_oneof![
        Just("M{} Linux x86_64 .\n".to_owned()),
        Just("M{} ".to_owned()),
        Just("R{}".to_owned()),
        Just("!N{}".to_owned()),
        Just("!.".to_owned()),
        Just("!A{} ".to_owned()),
        Just("!LH000".to_owned()),
        Just("!L".to_owned()),
        Just("\u{1b}[31m\0\r\n".to_owned()),
        Just(String::new()),
    ];
    proptest::collection::vec((text, proptest::collection::vec(any::<u8>(), 0..40)), 0..30)
}

proptest! {
    // Files of failures lie beside a library's sources, which a test is not.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_target_says_means_the_same_in_any_pieces(
        said in pieces(),
        cuts in proptest::collection::vec(1usize..20, 1..60),
        hello in any::<bool>(),
        hold in prop_oneof![Just(Hold::UntilMarker), Just(Hold::UntilReady), Just(Hold::No)],
    ) {
        let nonce = Test::plain().nonce;
        let mut all: Vec<u8> = Vec::new();
        for (text, bytes) in said {
            all.extend(text.replace("{}", &nonce).bytes());
            all.extend(bytes);
        }
        if hello {
            all.extend(HELLO_MAGIC);
        }
        let assume = (hold == Hold::No).then(bundle);
        let outcome = |pieces: Vec<&[u8]>| {
            let mut test = Test::new(Options { hold, assume: assume.clone(), ..Options::new(NONCE) });
            let mut events = Vec::new();
            let mut rest: Vec<u8> = Vec::new();
            let mut started = false;
            for piece in pieces {
                if started {
                    rest.extend(piece);
                    continue;
                }
                test.bootstrap.handle_bytes(piece, test.now);
                while let Some(event) = test.bootstrap.poll_event() {
                    match event {
                        Event::NeedBundle { .. } => test.bootstrap.provide(&bundle(), test.now),
                        Event::Started { rest: first } => {
                            started = true;
                            rest = first;
                        }
                        // The transcript ends with the piece that decided it.
                        Event::Failed(error) => events.push((error.stage, error.kind)),
                    }
                }
            }
            (started, rest, events, test.bootstrap.stage())
        };
        let mut cut = Vec::new();
        let mut left = &all[..];
        for len in cuts.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let (piece, more) = left.split_at((*len).min(left.len()));
            cut.push(piece);
            left = more;
        }
        // Where the bundle is asked for in the middle of a piece, what follows in that piece comes before the answer:
        // so the whole is cut there too.
        let whole: Vec<&[u8]> = all.chunks(1).collect();
        let (by_byte, by_piece) = (outcome(whole), outcome(cut));
        if hold == Hold::No {
            prop_assert_eq!(by_byte, by_piece);
        } else {
            prop_assert!(by_byte.2.len() <= 1 && by_piece.2.len() <= 1);
        }
    }
}
