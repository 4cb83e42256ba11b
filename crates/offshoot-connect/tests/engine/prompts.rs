//! Tools that ask: on a terminal of their own, which shows nothing, for a secret that is typed once.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use offshoot_connect::methods::{Method, Ssh, Su, Sudo};
use offshoot_connect::{Asker, Cancel, Reply};
use offshoot_wire::{Asks, AuthFailure, FailureKind, HostKeyFailure, Question, Recipe, Secret, Start};

use crate::fixture::{NONCE, Test, hello, octal};
use crate::{hasty, text};

/// Answers by a function, at once or after a while, and keeps what was asked.
struct Friend<F> {
    answer: F,
    asked: Mutex<Vec<Question>>,
}

impl<F: Fn(&Question) -> Option<Secret> + Sync + Send> Friend<F> {
    fn new(answer: F) -> Friend<F> {
        Friend { answer, asked: Mutex::new(Vec::new()) }
    }

    fn asked(&self) -> Vec<(Asks, String)> {
        let asked = self.asked.lock().expect("not poisoned");
        asked.iter().map(|question| (question.asks, question.account.clone())).collect()
    }
}

impl<F: Fn(&Question) -> Option<Secret> + Sync + Send> Asker for Friend<F> {
    fn ask(&self, question: Question, reply: Reply) {
        let answer = (self.answer)(&question);
        self.asked.lock().expect("not poisoned").push(question);
        reply.give(answer);
    }
}

/// Keeps every question and answers none.
#[derive(Default)]
struct Mute(Mutex<Vec<Reply>>);

impl Asker for Mute {
    fn ask(&self, _: Question, reply: Reply) {
        self.0.lock().expect("not poisoned").push(reply);
    }
}

/// Shell functions of a tool that asks as ssh does: `ask PROMPT` reads a line from its terminal without echo.
const ASK: &str = "ask() { stty -echo </dev/tty; printf '\\r%s' \"$1\" >/dev/tty; read -r reply </dev/tty; \
                   stty echo </dev/tty; printf '\\r\\n' >/dev/tty; }\n\
                   agent() { { read -r line; printf '%s\\n' \"$AGENT\"; } | sh -c \"$1\"; }\n";

/// A tool that asks by this script; `agent "$1"` is a login that works.
fn asking(script: &str) -> Recipe {
    let mut recipe = Ssh::to("web1").password("never sent by a recipe").recipe().expect("a recipe");
    let script = format!("{ASK}{script}");
    let argv = ["sh", "-c", &script, "tool", Start::PROBE].map(str::to_owned).to_vec();
    let agent = format!("printf '{}'; exec sleep 60", octal(&hello(NONCE)));
    recipe.start = Start::Shell { argv, env: vec![("AGENT".to_owned(), agent)] };
    recipe
}

/// Takes `hunter2` alone, which does not stand here: the script is an argument.
const LOGIN: &str = "ask \"ann@web1's password: \"; \
                     [ \"$(printf %s \"$reply\" | tr a-z n-za-m)\" = uhagre2 ] && agent \"$1\" || exit 255";

#[test]
fn s19_a_password_is_typed_when_it_is_asked_for_and_is_found_nowhere_else() {
    let test = Test::begin("password");
    let friend = Friend::new(|_| Some("hunter2".into()));
    let recipe = asking(&format!("{LOGIN}; sleep 60"));
    let link = test.connecting(&recipe).asker(&friend).succeed();
    assert_eq!(friend.asked(), [(Asks::Password, "ann@web1".to_owned())]);
    assert_eq!(link.received, hello(NONCE));
    assert!(!String::from_utf8_lossy(&link.stderr_tail).contains("hunter2"));
    let pid = link.child.pid();
    for file in ["cmdline", "environ"] {
        let held = std::fs::read(format!("/proc/{pid}/{file}")).expect("it runs");
        assert!(!held.windows(7).any(|bytes| bytes == b"hunter2"), "{file}");
    }
    assert!(!format!("{recipe:?}{:?}", *link).contains("hunter2"));
}

#[test]
fn a_wrong_password_is_tried_once() {
    let test = Test::begin("wrong");
    let friend = Friend::new(|_| Some("wrong".into()));
    let folder = tempfile::tempdir().expect("a folder");
    let tried = folder.path().join("tried");
    // A tool that asks three times.
    let script = format!(
        "for n in 1 2 3; do ask \"ann@web1's password: \"; echo x >>'{}'; echo Permission denied, please try again. >&2; done; exit 255",
        tried.display()
    );
    let failure = test.connecting(&asking(&script)).asker(&friend).fail();
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordIncorrect), "{failure:?}");
    assert_eq!(failure.message, "the password is wrong: ann@web1's password:");
    assert_eq!(friend.asked().len(), 1);
    assert_eq!(std::fs::read(&tried).expect("written"), b"x\n");
    // A tool that asks once and gives up, as ssh does when it is told to.
    let script =
        "ask \"ann@web1's password: \"; echo 'ann@web1: Permission denied (publickey,password).' >&2; exit 255";
    let failure = test.connecting(&asking(script)).asker(&friend).fail();
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordIncorrect), "{failure:?}");
    // A passphrase that opens nothing: ssh goes on to what is left, and that is nothing.
    let script =
        "ask \"Enter passphrase for key '/k': \"; echo 'ann@web1: Permission denied (publickey).' >&2; exit 255";
    let failure = test.connecting(&asking(script)).asker(&friend).fail();
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordIncorrect), "{failure:?}");
}

#[test]
fn s19_what_a_terminal_would_show_is_not_typed() {
    let test = Test::begin("echo");
    let friend = Friend::new(|_| Some("hunter2".into()));
    let script =
        "printf \"\\rann@web1's password: \" >/dev/tty; read -r reply </dev/tty; echo \"got $reply\" >&2; exit 1";
    let failure = test.connecting(&asking(script)).asker(&friend).fail();
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::TtyRequired), "{failure:?}");
    assert_eq!(friend.asked(), []);
    assert!(!text(&failure).contains("got"), "{}", text(&failure));
}

#[test]
fn without_anybody_to_ask_the_first_question_ends_the_connect_and_is_quoted() {
    let test = Test::begin("nobody");
    let begun = Instant::now();
    let failure = test.connecting(&asking(LOGIN)).fail();
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordRequired), "{failure:?}");
    assert!(failure.message.ends_with("and none was given: ann@web1's password:"), "{}", failure.message);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let declines = Friend::new(|_| None);
    let failure = test.connecting(&asking(LOGIN)).asker(&declines).fail();
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordRequired), "{failure:?}");
}

const HOST_KEY: &str = "printf '%s\\r\\n' \"The authenticity of host 'web1 (10.0.0.1)' can't be established.\" \
                        'ED25519 key fingerprint is SHA256:abcdef.' >/dev/tty; \
                        printf 'Are you sure you want to continue connecting (yes/no/[fingerprint])? ' >/dev/tty; \
                        read -r reply </dev/tty; ";

#[test]
fn an_unknown_host_key_is_asked_about_and_fails_with_its_fingerprint() {
    let test = Test::begin("host-key");
    let script = format!("{HOST_KEY} [ \"$reply\" = yes ] || exit 255; {LOGIN}");
    let friend = Friend::new(|question| match question.asks {
        Asks::HostKey => Some("yes".into()),
        _ => Some("hunter2".into()),
    });
    drop(test.connecting(&asking(&script)).asker(&friend).succeed());
    let asked = [(Asks::HostKey, "web1 (10.0.0.1)".to_owned()), (Asks::Password, "ann@web1".to_owned())];
    assert_eq!(friend.asked(), asked);
    let friend = Friend::new(|_| None);
    let failure = test.connecting(&asking(&script)).asker(&friend).fail();
    assert_eq!(failure.kind, FailureKind::HostKey(HostKeyFailure::Unknown), "{failure:?}");
    assert!(failure.message.contains("ED25519 key fingerprint is SHA256:abcdef."), "{}", failure.message);
}

#[test]
fn s23_a_flooded_terminal_neither_fools_nor_stalls_a_login() {
    let test = Test::begin("tty-flood");
    let friend = Friend::new(|_| Some("hunter2".into()));
    // A line that begins with a bracket would be a server's, and everything behind it.
    let floods = [
        "head -c 10485760 /dev/zero | tr '\\0' x >/dev/tty; echo >/dev/tty",
        "head -c 1000000 /dev/urandom | tr -d '(' >/dev/tty; printf '\\033[0m\\r\\n' >/dev/tty",
        "head -c 1000000 /dev/zero >/dev/tty; printf '\\033[31m\\r\\n' >/dev/tty",
    ];
    for flood in floods {
        drop(test.connecting(&asking(&format!("{flood}; {LOGIN}"))).asker(&friend).succeed());
    }
    // One without end is ended by the deadline, which it does not put off.
    let failure = test.connecting(&hasty(asking("yes >/dev/tty"))).asker(&friend).fail();
    assert!(matches!(failure.kind, FailureKind::StageTimeout(_)), "{failure:?}");
    assert!(failure.seen.len() <= 4096);
}

#[test]
fn s23_the_replay_of_a_login_that_worked_on_terminal_and_output_is_no_login() {
    let test = Test::begin("tty-replay");
    let friend = Friend::new(|_| Some("hunter2".into()));
    let folder = tempfile::tempdir().expect("a folder");
    let [shown, said] = ["shown", "said"].map(|name| folder.path().join(name).display().to_string());
    // A login as any, of which all is kept: what the terminal showed, and what came on the output.
    let keeps = format!(
        "ask() {{ stty -echo </dev/tty; printf '\\r%s' \"$1\" | tee -a '{shown}' >/dev/tty; read -r reply </dev/tty; stty echo </dev/tty; \
         printf '\\r\\n' | tee -a '{shown}' >/dev/tty; }}\n\
         agent() {{ {{ read -r line; printf '%s\\n' \"$AGENT\"; }} | sh -c \"$1\" | tee '{said}'; }}\n{LOGIN}"
    );
    let link = test.connecting(&asking(&keeps)).asker(&friend).succeed();
    assert_eq!(link.received, hello(NONCE));
    // What passes is kept a moment later.
    let kept = || std::fs::read(&said).expect("kept");
    let until = Instant::now() + Duration::from_secs(5);
    while !kept().ends_with(&hello(NONCE)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let whole = kept();
    assert!(whole.starts_with(b"M") && whole.ends_with(&hello(NONCE)), "{}", whole.escape_ascii());
    drop(link);
    let asked = friend.asked();
    assert_eq!(std::fs::read(&shown).expect("kept"), b"\rann@web1's password: \r\n");
    // To whoever wants that very login it is one, in its turn: nothing is missing in it.
    let in_turn = format!(
        "cat '{shown}' >/dev/tty; head -n 1 '{said}'; read -r line; tail -n +2 '{said}'; cat >/dev/null; exit 1"
    );
    drop(test.connecting(&asking(&in_turn)).asker(&friend).succeed());
    let at_once = format!("cat '{said}'; cat '{shown}' '{said}' '{shown}' >/dev/tty; cat >/dev/null; exit 1");
    let mut other = NONCE;
    other[15] ^= 1;
    for replay in [in_turn, at_once] {
        let failure = test.connecting(&hasty(asking(&replay))).nonce(other).asker(&friend).fail();
        assert!(matches!(failure.kind, FailureKind::StageTimeout(_)), "{failure:?}");
    }
    assert_eq!(friend.asked(), asked, "it asked again");
}

#[test]
fn a_question_may_take_longer_than_the_stages_and_has_a_deadline_of_its_own() {
    let test = Test::begin("slow-answer");
    drop(test.connecting(&hasty(asking(LOGIN))).asker(&Later).succeed());
    let mute = Mute::default();
    let mut recipe = asking(LOGIN);
    recipe.prompts.as_mut().expect("it asks").answer_ms = 700;
    let failure = test.connecting(&recipe).asker(&mute).fail();
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PromptTimeout), "{failure:?}");
}

/// Answers after longer than a hasty connect may take, from another thread, as whoever asks a user does.
struct Later;

impl Asker for Later {
    fn ask(&self, _: Question, reply: Reply) {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(3500));
            reply.give(Some("hunter2".into()));
        });
    }
}

#[test]
fn a_cancelled_connect_waits_for_no_answer_and_a_tool_that_ends_neither() {
    let test = Test::begin("cancel-question");
    let mute = Mute::default();
    let cancel = Cancel::new();
    let theirs = cancel.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        theirs.cancel();
    });
    let begun = Instant::now();
    let failure = test.connecting(&asking(LOGIN)).asker(&mute).cancel(&cancel).fail();
    thread.join().expect("no panic");
    assert_eq!(failure.kind, FailureKind::Cancelled);
    let ends = "stty -echo </dev/tty; printf \"ann@web1's password: \" >/dev/tty; sleep 1; exit 255";
    let failure = test.connecting(&asking(ends)).asker(&mute).fail();
    assert!(failure.message.contains("exited with status 255"), "{failure:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn s16_a_tool_that_may_ask_gets_a_session_and_a_terminal_of_its_own_and_its_input_stays_a_pipe() {
    let test = Test::begin("own-terminal");
    let script = "read -r pid comm state parent group session tty rest </proc/self/stat; \
                  echo \"session=$((session == $$)) tty=$((tty != 0))\" >&2; [ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo pipes >&2; \
                  echo \"early=$(timeout 0.3 cat | wc -c)\" >&2; exit 4";
    let friend = Friend::new(|_| None);
    let failure = test.connecting(&asking(script)).asker(&friend).fail();
    // Nothing of ours is sent before the marker: a tool would take it for an answer.
    assert_eq!(text(&failure).trim(), "session=1 tty=1\npipes\nearly=0");
}

/// As su does: it asks on its error output, in its own language, and reads its input byte by byte.
fn becoming(script: &str) -> Recipe {
    let mut recipe = asking(script);
    recipe.method = "su".into();
    recipe.prompts = Su::to("other").recipe().expect("a recipe").prompts;
    recipe
}

#[test]
fn a_tool_that_asks_on_its_error_output_is_answered_on_its_input() {
    let test = Test::begin("pipes");
    let friend = Friend::new(|_| Some("hunter2".into()));
    let asks = "printf 'Passwort: ' >&2; read -r reply; \
                [ \"$(printf %s \"$reply\" | tr a-z n-za-m)\" = uhagre2 ] || { echo 'su: Fehler' >&2; exit 1; }; agent \"$1\"";
    let link = test.connecting(&becoming(asks)).asker(&friend).succeed();
    assert_eq!(link.received, hello(NONCE));
    assert!(link.terminal.is_none());
    drop(link);
    let friend = Friend::new(|_| Some("wrong".into()));
    let failure = test.connecting(&becoming(asks)).asker(&friend).fail();
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordIncorrect), "{failure:?}");
    assert_eq!(friend.asked().len(), 1);
    let failure = test.connecting(&becoming(asks)).fail();
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordRequired), "{failure:?}");
    // Root needs none: nothing is asked, and nothing typed.
    let friend = Friend::new(|_| Some("hunter2".into()));
    drop(test.connecting(&becoming("agent \"$1\"")).asker(&friend).succeed());
    assert_eq!(friend.asked(), []);
}

#[test]
fn s19_what_su_led_to_cannot_ask_in_its_stead() {
    let test = Test::begin("stead");
    // A start file of the other account, where su itself asked nothing: as its child, or in its place.
    let asks = r#"printf "Password: " >&2; read -r got; echo "got $got" >&2; sleep 60"#;
    for script in [format!("sh -c '{asks}'; exit 9"), format!("exec bash -c '{asks}'")] {
        let friend = Friend::new(|_| Some("hunter2".into()));
        let failure = test.connecting(&hasty(becoming(&script))).asker(&friend).fail();
        assert_eq!(friend.asked(), [], "{script}");
        assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordRequired), "{failure:?}");
        assert!(!text(&failure).contains("got"), "{failure:?}");
    }
}

#[test]
fn s19_what_sudo_led_to_cannot_ask_in_its_stead() {
    let test = Test::begin("on-its-terminal");
    let by_sudo = |script: &str| {
        let mut recipe = asking(script);
        recipe.method = "sudo".into();
        recipe.prompts = Sudo::to("other").recipe().expect("a recipe").prompts;
        recipe
    };
    // A start file of the other account, which has sudo's terminal: as its child, or in its place. Also behind sudo's own question.
    let asks =
        r#"stty -echo </dev/tty; printf "Password: " >/dev/tty; read -r got </dev/tty; echo "got $got" >&2; sleep 60"#;
    let own = "ask '[sudo] password for dmw:'";
    for (before, asked) in [("", 0), (own, 1)] {
        for script in [format!("{before}\nsh -c '{asks}'; exit 9"), format!("{before}\nexec bash -c '{asks}'")] {
            let friend = Friend::new(|_| Some("hunter2".into()));
            let failure = test.connecting(&hasty(by_sudo(&script))).asker(&friend).fail();
            assert_eq!(friend.asked().len(), asked, "{script}");
            assert!(!text(&failure).contains("got"), "{failure:?}");
        }
    }
    let friend = Friend::new(|_| Some("hunter2".into()));
    drop(test.connecting(&by_sudo(&format!("{own}; agent \"$1\""))).asker(&friend).succeed());
    assert_eq!(friend.asked().len(), 1);
}
