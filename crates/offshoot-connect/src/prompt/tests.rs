use offshoot_wire::Prompt;
use proptest::prelude::*;

use super::*;

fn prompts() -> Prompts {
    let known = [
        ("^The authenticity of host '{}'*(yes/no*)?", Asks::HostKey),
        ("^({}) *assword*:", Asks::Password),
        ("^({}) *", Asks::Other),
        ("{}'s password:", Asks::Password),
        ("Enter passphrase for key '{}':", Asks::Passphrase),
    ];
    let known = known.into_iter().map(|(text, asks)| Prompt { text: text.to_owned(), asks }).collect();
    Prompts { known, terminal: true, answer_ms: 60_000 }
}

fn dialogue() -> (Dialogue, Instant) {
    (Dialogue::new(&prompts(), "token", true), Instant::now())
}

fn asked(step: Option<Step>) -> Question {
    match step {
        Some(Step::Ask(question)) => question,
        step => panic!("expected a question, got {step:?}"),
    }
}

fn refused(step: Option<Step>) -> Refusal {
    match step {
        Some(Step::Refuse(refusal)) => refusal,
        step => panic!("expected a refusal, got {step:?}"),
    }
}

fn typed(step: Option<Step>) -> Vec<u8> {
    match step {
        Some(Step::Type(secret)) => secret.bytes().to_vec(),
        step => panic!("expected a secret, got {step:?}"),
    }
}

const SILENT: fn() -> bool = || false;
const SHOWN: fn() -> bool = || true;

#[test]
fn s19_a_secret_is_asked_for_once_and_typed_once_where_its_prompt_stands() {
    let (mut dialogue, now) = dialogue();
    assert!(dialogue.poll(now, SILENT).is_none());
    dialogue.handle_bytes(b"\rann@web1's password: ", now);
    let question = asked(dialogue.poll(now, SILENT));
    assert_eq!((question.asks, question.account.as_str()), (Asks::Password, "ann@web1"));
    assert_eq!(question.text, "ann@web1's password:");
    assert!(dialogue.is_asking());
    assert!(dialogue.poll(now, SILENT).is_none());
    dialogue.answer(Some("hunter2".into()), now);
    // A second answer is nobody's.
    dialogue.answer(Some("other".into()), now);
    assert_eq!(typed(dialogue.poll(now, SILENT)), b"hunter2");
    assert!(dialogue.poll(now, SILENT).is_none());
    // The newline that ends the tool's reading, then the prompt again: it was wrong.
    dialogue.handle_bytes(b"\r\n\rann@web1's password: ", now);
    assert_eq!(refused(dialogue.poll(now, SILENT)).why, Why::Wrong);
    dialogue.handle_bytes(b"\rann@web1's password: ", now);
    assert!(dialogue.poll(now, SILENT).is_none());
}

#[test]
fn s19_nothing_is_asked_or_typed_while_the_terminal_shows_it() {
    let (mut dialogue, now) = dialogue();
    dialogue.handle_bytes(b"ann@web1's password: ", now);
    assert!(dialogue.poll(now, SHOWN).is_none());
    assert_eq!(dialogue.poll_timeout(), Some(now + LOOK));
    asked(dialogue.poll(now + LOOK, SILENT));
    dialogue.answer(Some("hunter2".into()), now);
    assert!(dialogue.poll(now, SHOWN).is_none());
    assert!(dialogue.poll_timeout().is_some());
    assert_eq!(refused(dialogue.poll(now + ECHO, SHOWN)).why, Why::Shown);

    let (mut dialogue, now) = self::dialogue();
    dialogue.handle_bytes(b"ann@web1's password: ", now);
    assert_eq!(refused(dialogue.poll(now + ECHO, SHOWN)).why, Why::Shown);
}

#[test]
fn s19_behind_the_marker_nothing_is_a_prompt() {
    let (mut dialogue, now) = dialogue();
    dialogue.handle_bytes(b"ann@web1's password: ", now);
    asked(dialogue.poll(now, SILENT));
    dialogue.close();
    dialogue.answer(Some("hunter2".into()), now);
    assert!(dialogue.poll(now, SILENT).is_none());
    dialogue.handle_bytes(b"\r\nroot@web2's password: ", now);
    assert!(dialogue.poll(now + QUIET, SILENT).is_none());
    assert_eq!(dialogue.poll_timeout(), None);
}

#[test]
fn several_prompts_of_a_login_are_answered_in_turn() {
    let (mut dialogue, mut now) = dialogue();
    let host_key = "\rThe authenticity of host 'web1 (10.0.0.1)' can't be established.\r\nED25519 key fingerprint is \
                    SHA256:abc.\r\nAre you sure you want to continue connecting (yes/no/[fingerprint])? ";
    for (text, asks, account, answer) in [
        ("\rann@jump's password: ", Asks::Password, "ann@jump", "one"),
        (host_key, Asks::HostKey, "web1 (10.0.0.1)", "yes"),
        ("\rEnter passphrase for key '/keys/a key': ", Asks::Passphrase, "/keys/a key", "two"),
        ("\rann@web1's password: ", Asks::Password, "ann@web1", "three"),
        ("\r(ann@web1) Verification code: ", Asks::Other, "ann@web1", "123456"),
    ] {
        now += Duration::from_secs(1);
        dialogue.handle_bytes(text.as_bytes(), now);
        now += QUIET;
        let question = asked(dialogue.poll(now, SILENT));
        assert_eq!((question.asks, question.account.as_str()), (asks, account));
        dialogue.answer(Some(answer.into()), now);
        assert_eq!(typed(dialogue.poll(now, SILENT)), answer.as_bytes());
        dialogue.handle_bytes(b"\r\n", now);
        assert!(dialogue.poll(now, SILENT).is_none());
    }
    assert_eq!(dialogue.answered().len(), 5);
    assert!(dialogue.answered()[1].text.contains("\nED25519 key fingerprint is SHA256:abc."));
}

#[test]
fn what_nobody_answers_is_refused_and_says_why() {
    let password: &[u8] = b"ann@web1's password: ";
    let now = Instant::now();
    let mut nobody = Dialogue::new(&prompts(), "token", false);
    nobody.handle_bytes(password, now);
    assert_eq!(refused(nobody.poll(now, SILENT)).why, Why::NotGiven);

    let (mut declined, now) = dialogue();
    declined.handle_bytes(password, now);
    asked(declined.poll(now, SILENT));
    declined.answer(None, now);
    assert_eq!(refused(declined.poll(now, SILENT)).why, Why::NotGiven);

    let (mut late, now) = dialogue();
    late.handle_bytes(password, now);
    asked(late.poll(now, SILENT));
    let until = late.poll_timeout().expect("a deadline");
    assert_eq!(refused(late.poll(until, SILENT)).why, Why::Late(Duration::from_secs(60)));

    let (mut untypable, now) = dialogue();
    untypable.handle_bytes(password, now);
    asked(untypable.poll(now, SILENT));
    untypable.answer(Some("two\nlines".into()), now);
    assert_eq!(refused(untypable.poll(now, SILENT)).why, Why::Untypable);
}

#[test]
fn a_question_that_nobody_knows_is_one_when_it_stands_and_hides_what_is_typed() {
    let (mut dialogue, now) = dialogue();
    dialogue.handle_bytes(b"Touch it, then type: ", now);
    assert!(dialogue.poll(now, SILENT).is_none());
    let question = asked(dialogue.poll(now + QUIET, SILENT));
    assert_eq!((question.asks, question.account.as_str(), question.shown), (Asks::Other, "", false));
    // Noise without an end hides nothing.
    let (mut dialogue, now) = self::dialogue();
    dialogue.handle_bytes(b"please wait...", now);
    assert!(dialogue.poll(now + QUIET, SHOWN).is_none());
    // A known prompt with echo is a question whose answer is shown.
    let (mut dialogue, now) = self::dialogue();
    dialogue.handle_bytes(b"\r(ann@web1) Token number: ", now);
    assert!(asked(dialogue.poll(now + QUIET, SHOWN)).shown);
}

#[test]
fn a_tool_that_asks_without_end_is_refused() {
    let (mut dialogue, now) = dialogue();
    for number in 0..Limits::QUESTIONS {
        dialogue.handle_bytes(format!("u{number}@h's password: ").as_bytes(), now);
        asked(dialogue.poll(now, SILENT));
        dialogue.answer(Some("x".into()), now);
        typed(dialogue.poll(now, SILENT));
    }
    dialogue.handle_bytes(b"more@h's password: ", now);
    assert_eq!(refused(dialogue.poll(now, SILENT)).why, Why::TooMany);
}

#[test]
fn a_question_fits_its_message_whatever_the_tool_wrote() {
    let (mut dialogue, now) = dialogue();
    dialogue.handle_bytes(&[b"\x1b".repeat(4000), b"'s password: ".to_vec()].concat(), now);
    let question = asked(dialogue.poll(now + QUIET, SILENT));
    assert!(question.text.len() <= Limits::MESSAGE && question.text.ends_with("'s password:"), "{}", question.text);
    assert!(!question.text.contains('\u{1b}'));
}

#[derive(Clone, Debug)]
enum Move {
    Bytes(Vec<u8>),
    Answer(bool),
    Wait(u64),
    Echo(bool),
    Close,
}

fn moves() -> impl Strategy<Value = Move> {
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(b"\r\n".to_vec()),
        Just(b"\ra@b's password: ".to_vec()),
        Just(b"\r(a@b) Password: ".to_vec()),
        Just(b"\r(a@b) Code: ".to_vec()),
        Just(b"Enter passphrase for key 'k': ".to_vec()),
    ];
    prop_oneof![
        4 => bytes.prop_map(Move::Bytes),
        2 => any::<bool>().prop_map(Move::Answer),
        2 => (0u64..3000).prop_map(Move::Wait),
        2 => any::<bool>().prop_map(Move::Echo),
        1 => Just(Move::Close),
    ]
}

proptest! {
    #[test]
    fn s19_whatever_comes_a_secret_is_typed_at_most_once_for_a_question_and_never_where_it_shows(
        moves in proptest::collection::vec(moves(), 0..60)
    ) {
        let (mut dialogue, mut now) = dialogue();
        let (mut echo, mut open, mut answer, mut over) = (false, None::<Question>, false, false);
        let mut typed: Vec<Question> = Vec::new();
        for step in moves {
            match step {
                Move::Bytes(bytes) => dialogue.handle_bytes(&bytes, now),
                Move::Answer(given) => {
                    answer |= given && dialogue.is_asking();
                    dialogue.answer(given.then(|| "s3cret".into()), now);
                }
                Move::Wait(ms) => now += Duration::from_millis(ms),
                Move::Echo(on) => echo = on,
                Move::Close => {
                    dialogue.close();
                    over = true;
                }
            }
            match dialogue.poll(now, || echo) {
                None => {}
                Some(Step::Ask(question)) => {
                    prop_assert!(!over && open.is_none(), "two questions at once, or behind the end");
                    open = Some(question);
                }
                Some(Step::Type(_)) => {
                    let question = open.take();
                    prop_assert!(!over && answer, "typed without an answer");
                    let question = question.expect("typed without a question");
                    prop_assert!(!echo || question.shown, "typed where it shows");
                    prop_assert!(!typed.contains(&question), "typed twice");
                    typed.push(question);
                    answer = false;
                }
                Some(Step::Refuse(refusal)) => {
                    prop_assert!(!over, "refused twice: {refusal:?}");
                    over = true;
                }
            }
            // What waits says until when.
            if dialogue.is_asking() {
                prop_assert!(dialogue.poll_timeout().is_some());
            }
        }
    }
}

#[test]
fn s19_a_servers_text_must_stand_and_what_comes_behind_an_answer_of_it_is_still_the_servers() {
    let (mut dialogue, now) = dialogue();
    // The first piece of a long text, which the terminal delivers in several.
    dialogue.handle_bytes(b"\r(ops@bastion) Password:", now);
    assert!(dialogue.poll(now, SILENT).is_none());
    assert_eq!(dialogue.poll_timeout(), Some(now + QUIET));
    dialogue.handle_bytes(b"\r\n\rann@web1's password: ", now);
    let question = asked(dialogue.poll(now + QUIET, SILENT));
    assert_eq!((question.asks, question.account.as_str()), (Asks::Password, "ops@bastion"));
    dialogue.answer(Some("bastion's".into()), now);
    assert_eq!(typed(dialogue.poll(now, SILENT)), b"bastion's");
    // An answer with echo shows in front of the next prompt.
    dialogue.handle_bytes(b"123456\r\n\r(ops@bastion) \r\nann@web1's password: ", now);
    let refusal = refused(dialogue.poll(now + QUIET, SILENT));
    assert_eq!((refusal.why, refusal.question.account.as_str()), (Why::Wrong, "ops@bastion"));
}

#[test]
fn s19_a_servers_text_that_is_too_long_to_tell_whose_it_is_gets_nothing() {
    let (mut dialogue, now) = dialogue();
    let prompt = [&b"\r(ops@bastion) "[..], &b".".repeat(5000), b"\r\nann@web1's password: "].concat();
    dialogue.handle_bytes(&prompt, now);
    let refusal = refused(dialogue.poll(now + QUIET, SILENT));
    assert_eq!((refusal.why, refusal.question.account.as_str()), (Why::TooLong, ""));
}

#[test]
fn a_text_of_which_only_the_end_is_known_must_stand() {
    let known = vec![Prompt { text: "*:".into(), asks: Asks::Password }];
    let mut dialogue = Dialogue::new(&Prompts { known, terminal: false, answer_ms: 1000 }, "token", true);
    let now = Instant::now();
    // su writes its name first, and then what is wrong.
    dialogue.handle_bytes(b"su: ", now);
    assert!(dialogue.poll(now, SILENT).is_none());
    assert_eq!(dialogue.poll_timeout(), Some(now + QUIET));
    dialogue.handle_bytes(b"user nobody-here does not exist\n", now);
    assert!(dialogue.poll(now + QUIET, SILENT).is_none());
    dialogue.handle_bytes(b"Passwort: ", now);
    assert!(dialogue.poll(now, SILENT).is_none());
    asked(dialogue.poll(now + QUIET, SILENT));
}
