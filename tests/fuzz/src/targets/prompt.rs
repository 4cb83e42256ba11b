//! What a tool writes where it asks, and tables of prompts as they come in a recipe: the scanner and the dialogue (S19, S23).

use std::time::{Duration, Instant};

use offshoot_connect::methods::{Doas, Method, Ssh, Su, Sudo};
use offshoot_connect::prompt::{Dialogue, Scanner, Step};
use offshoot_wire::escape::is_dangerous;
use offshoot_wire::{Asks, Limits, Prompt, Prompts, Question, Secret, Start};

use crate::feed::Feed;

const TOKEN: &str = "K0TokenOfThisConnect22";

/// What the tools say, and what belongs to it: pieces of all tables, and what servers and users may put between.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"dmw@web1's password: ",
    b"\rroot@jump's password: ",
    b"(dmw@web1) Password: ",
    b"(dmw@web1) Code: ",
    b"(dmw@web1) New password: ",
    b"Enter passphrase for key '/k': ",
    b"Enter PIN for ECDSA-SK key /k: ",
    b"The authenticity of host 'web1 (10.0.0.1)' can't be established.\r\n",
    b"ED25519 key fingerprint is SHA256:xyz.\r\n",
    b"Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
    b"Please type 'yes', 'no' or the fingerprint: ",
    TOKEN.as_bytes(),
    b" dmw: ",
    b"[sudo: ",
    b"] Password: ",
    b"doas (dmw@web1) password: ",
    b"Password: ",
    b"Permission denied, please try again.\r\r\n",
    b"'s password: ",
    b"(yes/no",
    b"\x1b[31m",
    b"\xe2\x80\xae",
    b"\0",
    b"Sorry, try again.\r\n",
];

fn tables(feed: &mut Feed<'_>) -> Prompts {
    let of = |recipe: Result<offshoot_wire::Recipe, _>| recipe.ok().and_then(|recipe| recipe.prompts);
    let known = match feed.byte() % 5 {
        0 => of(Ssh::to("dmw@web1").password("x").recipe()),
        1 => of(Sudo::to("root").password("x").recipe()),
        2 => of(Su::to("root").password("x").recipe()),
        3 => of(Doas::to("root").password("x").recipe()),
        _ => None,
    };
    known.unwrap_or_else(|| {
        // Another's recipe: any table that a frame can hold.
        let one = |feed: &mut Feed<'_>| {
            let text = match feed.byte() {
                0..=40 => "*:".to_owned(),
                41..=80 => format!("^({{}}) *{}*", Start::TOKEN),
                81..=100 => "{}{}*{}".to_owned(),
                101..=110 => "^".to_owned(),
                _ => String::from_utf8_lossy(feed.bytes(24)).into_owned(),
            };
            let asks = [Asks::Password, Asks::Passphrase, Asks::HostKey, Asks::Other][feed.below(4)];
            Prompt { text, asks }
        };
        let known = (0..feed.below(6)).map(|_| one(feed)).collect();
        Prompts { known, terminal: feed.chance(), answer_ms: 1000 }
    })
}

/// A tool that says whatever it likes. No step is made twice or out of turn, no secret is typed but where its own prompt
/// stands, once, and unseen; what is shown of it is bounded and inert.
pub(crate) fn prompts(data: &[u8]) {
    let mut feed = Feed::new(data);
    let table = tables(&mut feed);
    let asks = !feed.byte().is_multiple_of(8);
    let mut dialogue = Dialogue::new(&table, TOKEN, asks);
    // The same bytes in other pieces, never asked in between.
    let mut scanner = Scanner::new(&table, TOKEN);
    let mut now = Instant::now();
    let mut echo = false;
    let mut said: Vec<u8> = Vec::new();
    let mut open: Option<Question> = None;
    let mut given: Option<Vec<u8>> = None;
    let mut typed: Vec<Question> = Vec::new();
    let mut over = false;
    while !feed.is_over() {
        let piece = match feed.byte() {
            choice @ 0..=129 => WORDS[usize::from(choice) % WORDS.len()].to_vec(),
            130..=149 => {
                now += Duration::from_millis(feed.number() % 5000);
                Vec::new()
            }
            150..=159 => {
                echo = feed.chance();
                Vec::new()
            }
            160..=189 => {
                let answer = match feed.byte() % 8 {
                    0 => None,
                    1 => Some(vec![b'x'; Limits::SECRET + 1]),
                    2 => Some(feed.bytes(20).to_vec()),
                    number => Some(format!("secret{number}").into_bytes()),
                };
                if open.is_some() && given.is_none() {
                    given.clone_from(&answer);
                }
                dialogue.answer(answer.map(Secret::new), now);
                Vec::new()
            }
            190..=191 => {
                dialogue.close();
                over = true;
                Vec::new()
            }
            192..=199 => vec![feed.byte(); 1 + 64 * feed.below(256)],
            _ => feed.bytes(64).to_vec(),
        };
        said.extend_from_slice(&piece);
        dialogue.handle_bytes(&piece, now);
        for part in piece.chunks(7) {
            scanner.push(part);
        }
        assert!(scanner.text().len() <= 8 << 10, "{} bytes are kept", scanner.text().len());
        if let Some(found) = scanner.found() {
            assert!(said.trim_ascii_end().ends_with(&found.text), "a prompt that does not stand at the end");
            assert!(!found.text.is_empty() && found.text.len() <= 4 << 10);
            assert!(!found.account.iter().any(u8::is_ascii_control), "an account of several lines");
        }
        // One look may lead to another; none goes on for ever.
        for turn in 0.. {
            assert!(turn < 4, "the dialogue does not come to rest");
            let Some(step) = dialogue.poll(now, || echo) else { break };
            assert!(!over, "a step after the end: {step:?}");
            match step {
                Step::Ask(question) => {
                    assert!(asks && open.is_none(), "asked out of turn: {question:?}");
                    check(&question);
                    assert!(
                        question.asks == Asks::HostKey || question.shown == echo,
                        "said to be shown: {}, and is: {echo}",
                        question.shown
                    );
                    let again = |before: &Question| {
                        (before.asks, &before.account) == (question.asks, &question.account)
                            && (question.asks != Asks::Other || before.text == question.text)
                    };
                    assert!(!typed.iter().any(again), "asked twice: {question:?}");
                    open = Some(question);
                }
                Step::Type(secret) => {
                    let question = open.take().expect("typed without a question");
                    assert_eq!(Some(secret.bytes()), given.take().as_deref(), "typed what was not answered");
                    assert!(secret.bytes().len() <= Limits::SECRET && !secret.bytes().iter().any(u8::is_ascii_control));
                    assert!(!echo || question.shown || question.asks == Asks::HostKey, "typed where it shows");
                    typed.push(question);
                    assert!(typed.len() <= Limits::QUESTIONS);
                    said.clear();
                    scanner.clear();
                }
                Step::Refuse(refusal) => {
                    check(&refusal.question);
                    over = true;
                }
            }
        }
        assert_eq!(dialogue.is_asking(), open.is_some() && !over && given.is_none());
        assert!(typed.is_empty() || dialogue.unanswered().is_empty(), "what is behind an answer could repeat it");
        assert_eq!(dialogue.answered().len(), typed.len());
        if let Some(again) = dialogue.poll_timeout() {
            assert!(!over, "something is due after the end");
            // A thing that is due and stays due would spin whoever drives it.
            assert!(again > now || dialogue.is_asking(), "due at once, and not done");
        }
    }
}

/// What becomes of a question goes on to the requester, and onto a user's terminal.
fn check(question: &Question) {
    for text in [&question.text, &question.account] {
        assert!(text.len() <= Limits::MESSAGE, "{} bytes", text.len());
        assert!(!text.chars().any(|c| is_dangerous(c) && c != '\n'), "{text:?}");
    }
}
