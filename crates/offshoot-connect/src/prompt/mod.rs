//! What a tool asks before it leads to a shell, and when it is answered.
//!
//! Owns the conditions under which a secret is typed (S19): once, only where its prompt stands, only while the terminal
//! shows nothing of it. Sans-IO: bytes, answers and `now` go in, [`Step`]s and the next deadline come out; it knows no
//! terminal, process or clock. Runs on whatever thread drives the connect.

mod scan;

use std::time::{Duration, Instant};

use offshoot_wire::escape::escaped;
use offshoot_wire::{Asks, Limits, Prompts, Question, Secret};

pub use self::scan::{Found, Scanner};

/// How long a prompt that may go on, or that nobody knows, must stand before it is taken for one.
const QUIET: Duration = Duration::from_millis(250);

/// How often a terminal that still shows what is typed is looked at again: nothing tells of that.
const LOOK: Duration = Duration::from_millis(10);

/// How long the tool has to switch the echo off: it does before it asks, or at once.
const ECHO: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Debug)]
pub enum Step {
    /// Pass the question on; the answer goes to [`Dialogue::answer`].
    Ask(Question),
    /// Type this, and a newline.
    Type(Secret),
    /// The tool cannot be answered: end it.
    Refuse(Refusal),
}

/// Why a question is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no answer.
    NotGiven,
    /// It was answered and came again.
    Wrong,
    /// No answer came for so long.
    Late(Duration),
    /// The terminal shows what is typed on it.
    Shown,
    /// There were too many questions.
    TooMany,
    /// The server's text is so long that whose secret it wants cannot be told.
    TooLong,
    /// The answer holds control characters, or is too long.
    Untypable,
}

/// A question that is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: Why,
    /// The question.
    pub question: Question,
}

#[derive(Debug)]
enum State {
    /// No question is open.
    Listening,
    /// The requester has the question.
    Asking { question: Question, until: Instant },
    /// Nobody answers it.
    Declined { question: Question },
    /// The answer is there, and waits for the echo to go.
    Typing { question: Question, secret: Secret, until: Instant },
    /// Nothing is a prompt any more.
    Closed,
}

/// A tool's questions and their answers.
#[derive(Debug)]
pub struct Dialogue {
    scanner: Scanner,
    state: State,
    /// Whether there is anybody to ask.
    asks: bool,
    /// How long an answer may take.
    wait: Duration,
    /// When the last byte came, while it may be part of a prompt.
    heard: Option<Instant>,
    /// What was answered.
    answered: Vec<Question>,
    /// When to look again.
    again: Option<Instant>,
}

impl Dialogue {
    /// For these prompts. `token` stands for [`Start::TOKEN`](offshoot_wire::Start::TOKEN) in them; without anybody who
    /// `asks` the first question is refused.
    pub fn new(prompts: &Prompts, token: &str, asks: bool) -> Dialogue {
        Dialogue {
            scanner: Scanner::new(prompts, token),
            state: State::Listening,
            asks,
            wait: Duration::from_millis(prompts.answer_ms.into()),
            heard: None,
            answered: Vec::new(),
            again: None,
        }
    }

    /// The tool wrote.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) {
        if !bytes.is_empty() && !matches!(self.state, State::Closed) {
            self.scanner.push(bytes);
            self.heard = Some(now);
        }
    }

    /// The answer to the last [`Step::Ask`]; `None` when there is none.
    pub fn answer(&mut self, answer: Option<Secret>, now: Instant) {
        if let State::Asking { question, .. } = &self.state {
            let question = question.clone();
            self.state = match answer {
                Some(secret) => State::Typing { question, secret, until: now + ECHO },
                None => State::Declined { question },
            };
        }
    }

    /// The tool led to its shell: from here on nothing is asked and nothing is typed.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.scanner.clear();
        self.again = None;
    }

    /// Whether the requester has a question. No deadline of the connect should run meanwhile.
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    /// What was asked and answered, in order.
    pub fn answered(&self) -> &[Question] {
        &self.answered
    }

    /// The last that the tool wrote, as long as nothing was typed: what is behind an answer could repeat it.
    pub fn unanswered(&self) -> &[u8] {
        if self.answered.is_empty() { self.scanner.text() } else { &[] }
    }

    /// When [`poll`](Self::poll) has something to do though nothing came.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Asking { until, .. } => Some(*until),
            State::Listening | State::Typing { .. } => self.again,
            State::Declined { .. } | State::Closed => None,
        }
    }

    /// What is to be done now. `echo` tells whether the terminal shows what is typed on it; it is asked only where that
    /// matters.
    pub fn poll(&mut self, now: Instant, echo: impl FnOnce() -> bool) -> Option<Step> {
        self.again = None;
        match std::mem::replace(&mut self.state, State::Listening) {
            State::Closed => {
                self.state = State::Closed;
                None
            }
            State::Declined { question } => self.refuse(Why::NotGiven, question),
            State::Asking { question, until } if now >= until => self.refuse(Why::Late(self.wait), question),
            asking @ State::Asking { .. } => {
                self.state = asking;
                None
            }
            State::Typing { question, secret, until } => {
                if !secret.is_typable() {
                    return self.refuse(Why::Untypable, question);
                }
                if is_secret(&question) && echo() {
                    if now >= until {
                        return self.refuse(Why::Shown, question);
                    }
                    self.again = Some(now + LOOK);
                    self.state = State::Typing { question, secret, until };
                    return None;
                }
                self.scanner.clear();
                self.heard = None;
                self.answered.push(question);
                Some(Step::Type(secret))
            }
            State::Listening => self.listen(now, echo),
        }
    }

    fn listen(&mut self, now: Instant, echo: impl FnOnce() -> bool) -> Option<Step> {
        let heard = self.heard?;
        let Some(found) = self.scanner.found() else {
            self.heard = None;
            return None;
        };
        if found.cut {
            return self.refuse(Why::TooLong, question(&found));
        }
        let stands = now >= heard + QUIET;
        // What the table knows to its end is a prompt as soon as it is there; a text that may go on must stand.
        let open = found.vague || found.asks == Asks::Other;
        if open && !stands {
            self.again = Some(heard + QUIET);
            return None;
        }
        let shown = found.asks != Asks::HostKey && echo();
        let mut question = question(&found);
        if shown {
            if !found.known {
                // Whatever it is, it does not look for a secret: the deadlines tell of it.
                self.heard = None;
                return None;
            }
            if found.asks != Asks::Other {
                if now >= heard + ECHO {
                    return self.refuse(Why::Shown, question);
                }
                self.again = Some(now + LOOK);
                return None;
            }
            question.shown = true;
        }
        self.heard = None;
        let same = |other: &Question| {
            let (asks, account, text) = (&question.asks, &question.account, &question.text);
            other.asks == *asks && other.account == *account && (*asks != Asks::Other || other.text == *text)
        };
        if self.answered.iter().any(same) {
            return self.refuse(Why::Wrong, question);
        }
        if !self.asks {
            return self.refuse(Why::NotGiven, question);
        }
        if self.answered.len() >= Limits::QUESTIONS {
            return self.refuse(Why::TooMany, question);
        }
        self.state = State::Asking { question: question.clone(), until: now + self.wait };
        Some(Step::Ask(question))
    }

    fn refuse(&mut self, why: Why, question: Question) -> Option<Step> {
        self.state = State::Closed;
        Some(Step::Refuse(Refusal { why, question }))
    }
}

/// Whether its answer is a secret, which must not be shown.
fn is_secret(question: &Question) -> bool {
    question.asks != Asks::HostKey && !question.shown
}

fn question(found: &Found) -> Question {
    let lines = found.text.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty());
    let mut text = String::new();
    for line in lines {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&escaped(line).to_string());
    }
    Question {
        asks: found.asks,
        account: last_of(escaped(&found.account).to_string()),
        text: last_of(text),
        shown: false,
    }
}

/// The end of a text that is too long: that is what asks.
fn last_of(mut text: String) -> String {
    let excess = text.len().saturating_sub(Limits::MESSAGE);
    let start = (excess..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.drain(..start);
    text
}

#[cfg(test)]
mod tests;
