//! What a requester answers to the questions of a login: secrets that were given beforehand, and somebody to ask.
//!
//! Owns the choice: which secret is for which account (S19). Nothing in here runs where the tool does, unless that is
//! the requester itself. Any thread.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use offshoot_wire::{Asks, Question, Secret};

/// A question, and where it comes from as the requester knows it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Asking<'a> {
    /// The question. Its texts are from elsewhere: escape them before they are shown.
    pub question: &'a Question,
    /// The context that is to be: the names from the root, joined with ` -> `.
    pub path: &'a str,
    /// The context that logs in; empty for the root.
    pub via: &'a str,
}

impl<'a> Asking<'a> {
    /// A question for a context to be, from the context that logs in.
    pub fn new(question: &'a Question, path: &'a str, via: &'a str) -> Asking<'a> {
        Asking { question, path, via }
    }

    /// What is asked for, of whom and where, in one line: `password of ann@web1 (ssh:jump -> ssh:web1)`. Safe to show.
    pub fn label(&self) -> String {
        let what = match self.question.asks {
            Asks::Password => "password",
            Asks::Passphrase => "passphrase",
            Asks::HostKey => "host key",
            Asks::Other => "answer",
        };
        let safe = |text: &str| offshoot_wire::escape::escaped(text.as_bytes()).to_string();
        let path = safe(self.path);
        match self.question.account.as_str() {
            "" => format!("{what} for {path}"),
            account => format!("{what} of {} ({path})", safe(account)),
        }
    }
}

/// The function behind a [`Responder`].
type Respond = dyn Fn(&Asking<'_>) -> Option<Secret> + Send + Sync;

/// Somebody who can be asked, such as a user at a terminal.
///
/// Called on a thread that may block for as long as the answer may take; several connects may ask at the same time.
/// `None` ends the connect with an error that says what was asked.
#[derive(Clone)]
pub struct Responder(Arc<Respond>);

impl Responder {
    /// Asks by this function.
    pub fn new(respond: impl Fn(&Asking<'_>) -> Option<Secret> + Send + Sync + 'static) -> Responder {
        Responder(Arc::new(respond))
    }
}

/// Two responders are the same when one is a clone of the other.
impl PartialEq for Responder {
    fn eq(&self, other: &Responder) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Responder {}

impl Hash for Responder {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}

/// The account that a method logs in to: whose prompt its [password](Answers::password) is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Own {
    /// Every account that the tool asks for: it asks for one alone.
    #[default]
    Any,
    /// This user, if it is known, on one of these hosts.
    Login {
        /// `None`: any.
        user: Option<String>,
        /// As the tool may call the one host.
        hosts: Vec<String>,
    },
}

impl Own {
    fn is(&self, account: &str) -> bool {
        let Own::Login { user, hosts } = self else { return true };
        // Clients before OpenSSH 8.5 do not say whose a keyboard-interactive prompt is.
        let Some((who, host)) = account.rsplit_once('@') else { return account.is_empty() };
        user.as_ref().is_none_or(|user| user == who) && hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }
}

/// What is answered to the questions of one login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    password: Option<Secret>,
    others: Vec<(String, Secret)>,
    passphrase: Option<Secret>,
    responder: Option<Responder>,
    own: Own,
}

/// Secrets are left out: a hash would tell of them.
impl Hash for Answers {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.responder.hash(state);
        self.own.hash(state);
        (self.password.is_some(), self.passphrase.is_some(), self.others.len()).hash(state);
    }
}

impl Answers {
    /// Nothing is answered.
    pub fn none() -> Answers {
        Answers::default()
    }

    /// Whether nothing is answered.
    pub fn is_none(&self) -> bool {
        self.password.is_none() && self.others.is_empty() && self.passphrase.is_none() && self.responder.is_none()
    }

    /// The password of the account that is logged in to.
    pub fn set_password(&mut self, secret: impl Into<Secret>) {
        self.password = Some(secret.into());
    }

    /// The password of another account that is asked for on the way, as the prompt names it: `user@host`.
    pub fn set_password_of(&mut self, account: impl Into<String>, secret: impl Into<Secret>) {
        self.others.push((account.into(), secret.into()));
    }

    /// The passphrase of any key that asks for one.
    pub fn set_passphrase(&mut self, secret: impl Into<Secret>) {
        self.passphrase = Some(secret.into());
    }

    /// Who is asked everything that none of the secrets is for.
    pub fn set_responder(&mut self, responder: Responder) {
        self.responder = Some(responder);
    }

    pub(crate) fn of(&self, own: Own) -> Answers {
        Answers { own, ..self.clone() }
    }

    /// Whether each of the secrets can be typed.
    pub(crate) fn are_typable(&self) -> bool {
        let others = self.others.iter().map(|(_, secret)| secret);
        self.password.iter().chain(others).chain(&self.passphrase).all(Secret::is_typable)
    }

    /// The answer to a question; asks the responder where no secret is for it, and blocks as long as that does.
    pub fn answer(&self, asking: &Asking<'_>) -> Option<Secret> {
        let account = asking.question.account.as_str();
        let known = match asking.question.asks {
            Asks::Password => {
                let other = self.others.iter().find(|(other, _)| other == account).map(|(_, secret)| secret);
                other.or(self.password.as_ref().filter(|_| self.own.is(account)))
            }
            Asks::Passphrase => self.passphrase.as_ref(),
            Asks::HostKey | Asks::Other => None,
        };
        known.cloned().or_else(|| (self.responder.as_ref()?.0)(asking))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(answers: &Answers, asks: Asks, account: &str) -> Option<String> {
        let question = Question { asks, account: account.to_owned(), text: String::new(), shown: false };
        let secret = answers.answer(&Asking { question: &question, path: "ssh:web1", via: "" })?;
        Some(String::from_utf8(secret.bytes().to_vec()).expect("text"))
    }

    #[test]
    fn s19_a_password_goes_to_its_own_account_and_to_no_other() {
        let mut answers = Answers::none();
        answers.set_password("target");
        answers.set_password_of("ann@jump", "jump");
        answers.set_passphrase("key");
        let answers = answers.of(Own::Login { user: None, hosts: vec!["web1".into(), "10.0.0.1".into()] });
        for (asks, account, expected) in [
            (Asks::Password, "ann@web1", Some("target")),
            (Asks::Password, "root@WEB1", Some("target")),
            (Asks::Password, "ann@10.0.0.1", Some("target")),
            (Asks::Password, "", Some("target")),
            (Asks::Password, "ann@jump", Some("jump")),
            (Asks::Password, "root@jump", None),
            (Asks::Password, "web1", None),
            (Asks::Password, "ann@web1@jump", None),
            (Asks::Passphrase, "/keys/id", Some("key")),
            (Asks::HostKey, "web1", None),
            (Asks::Other, "ann@web1", None),
        ] {
            assert_eq!(ask(&answers, asks, account).as_deref(), expected, "{asks:?} {account}");
        }
        let answers = answers.of(Own::Login { user: Some("ann".into()), hosts: vec!["web1".into()] });
        assert_eq!(ask(&answers, Asks::Password, "root@web1"), None);
    }

    #[test]
    fn what_no_secret_is_for_is_asked_with_a_label_that_is_safe_to_show() {
        let mut answers = Answers::none();
        answers.set_responder(Responder::new(|asking| Some(asking.label().into())));
        assert_eq!(ask(&answers, Asks::Password, "a\u{1b}@b").as_deref(), Some("password of a\\x1b@b (ssh:web1)"));
        assert_eq!(ask(&answers, Asks::Other, "").as_deref(), Some("answer for ssh:web1"));
    }

    #[test]
    fn s19_answers_show_nothing_of_their_secrets_and_are_equal_when_these_are() {
        let (mut one, mut two) = (Answers::none(), Answers::none());
        one.set_password("hunter2");
        two.set_password("hunter2");
        assert_eq!(one, two);
        assert!(!format!("{one:?}").contains("hunter2"));
        two.set_password("hunter3");
        assert_ne!(one, two);
        assert!(!one.is_none() && Answers::none().is_none());
    }
}
