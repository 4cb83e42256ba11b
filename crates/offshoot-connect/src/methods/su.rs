//! The method *su*: another user of the same machine, by `su` and that user's own password.
//!
//! Owns the options, the argument list, and su's texts and what they mean. su reads a password from its input even where
//! it has a terminal, and would let a terminal show it: so it gets none, asks on its error output, and is answered on the
//! pipe that the link takes afterwards. Any thread.

use std::fmt;
use std::time::Duration;

use offshoot_wire::{Asks, AuthFailure, Prompt, Prompts, Recipe, Secret, Start};

use super::shared::{OptionsOf, Text, auth, hints};
use super::{Hop, Method, RecipeError};
use crate::answers::{Answers, Responder};
use crate::deadlines::Deadlines;
use crate::names;

const OPTIONS: OptionsOf = OptionsOf("su");

/// A context of another user on the same machine, through `su`.
///
/// su's messages are translated, so a wrong password is told by su's end after it: without a text that is known, any
/// refusal behind a password counts as one.
///
/// Whatever su asks is taken for a question for the password, since that is all that can be told of it in any language: where
/// it asks for something else first, such as a one-time code, the password is typed there, and the login fails.
///
/// # Examples
///
/// ```
/// use offshoot_connect::methods::{Method, Su};
/// assert_eq!(Su::to("postgres").password("hunter2").recipe()?.default_name(), "su:postgres");
/// # Ok::<(), offshoot_connect::methods::RecipeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Su {
    user: String,
    login: bool,
    program: String,
    deadlines: Deadlines,
    answers: Answers,
}

impl Su {
    /// To this user.
    pub fn to(user: impl Into<String>) -> Su {
        let deadlines = Deadlines::default();
        Su { user: user.into(), login: false, program: "su".to_owned(), deadlines, answers: Answers::none() }
    }

    /// The password of the user to become. Sent when su asks, and tried once.
    #[must_use]
    pub fn password(mut self, secret: impl Into<Secret>) -> Su {
        self.answers.set_password(secret);
        self
    }

    /// Who answers what su asks where no [password](Self::password) is given.
    #[must_use]
    pub fn responder(mut self, responder: Responder) -> Su {
        self.answers.set_responder(responder);
        self
    }

    /// How long an answer may take; 2 minutes by default. Meanwhile no other limit runs.
    #[must_use]
    pub fn answer_timeout(mut self, limit: Duration) -> Su {
        self.deadlines.set_answer(limit);
        self
    }

    /// Begins as a login does (`su -`): that user's environment and home folder.
    #[must_use]
    pub fn login(mut self, on: bool) -> Su {
        self.login = on;
        self
    }

    /// The su program: a name to look up in `PATH`, or a path. `su` by default.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Su {
        self.program = program.into();
        self
    }

    /// How long the whole connect may take; 30 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Su {
        self.deadlines.set_total(limit);
        self
    }

    /// How long a stage of the connect may be silent; 10 s by default.
    #[must_use]
    pub fn stage_timeout(mut self, limit: Duration) -> Su {
        self.deadlines.set_stage(limit);
        self
    }
}

/// The user.
impl fmt::Display for Su {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)
    }
}

impl Method for Su {
    fn recipe(&self) -> Result<Recipe, RecipeError> {
        OPTIONS.checked("user", &self.user, names::user(&self.user))?;
        OPTIONS.checked("program", &self.program, names::value(&self.program))?;
        OPTIONS.typable(&self.answers)?;
        let mut argv = vec![self.program.clone()];
        if self.login {
            argv.push("-".into());
        }
        // Behind the user, where busybox wants it and others take it. It goes to the user's shell, whichever that is.
        argv.extend([self.user.clone(), "-c".into(), Start::PROBE.into()]);
        let mut recipe = Recipe::new("su", self.user.clone(), Start::Shell { argv, env: Vec::new() });
        recipe.hints = hints(TEXTS);
        // In whatever language: all that su leaves standing is its prompt.
        let known = vec![Prompt { text: "*:".into(), asks: Asks::Password }];
        recipe.prompts = Some(Prompts { known, terminal: false, answer_ms: self.deadlines.answer });
        Ok(self.deadlines.apply(recipe))
    }

    fn answers(&self) -> Answers {
        self.answers.clone()
    }
}

/// What su prints when it refuses, where it speaks English.
#[rustfmt::skip] // a table
const TEXTS: &[Text] = &[
    ("Authentication failure", auth(AuthFailure::PasswordIncorrect), "it was tried once, so as to lock no account"),
    ("incorrect password", auth(AuthFailure::PasswordIncorrect), "it was tried once, so as to lock no account"),
    ("does not exist", auth(AuthFailure::NoSuchUser), "name a user that exists on that machine"),
    ("nknown user", auth(AuthFailure::NoSuchUser), "name a user that exists on that machine"),
    ("No passwd entry", auth(AuthFailure::NoSuchUser), "name a user that exists on that machine"),
    ("must be run from a terminal", auth(AuthFailure::TtyRequired), "that su takes no password from elsewhere; use sudo or doas"),
    ("must be suid", auth(AuthFailure::NotAllowed), "su is not installed as it must be, or its file system is mounted nosuid"),
    ("currently not available", auth(AuthFailure::NotAllowed), "that user may not run commands; use another one"),
    ("has expired", auth(AuthFailure::NotAllowed), "the account or its password has expired: log in once by hand"),
    ("required to change", auth(AuthFailure::NotAllowed), "the password has expired: log in once by hand"),
    ("Permission denied", auth(AuthFailure::NotAllowed), "the machine lets only some users call su, such as those of the group wheel"),
];

pub(super) fn hop(user: Option<&str>) -> Result<Hop, RecipeError> {
    let su = Su::to(user.unwrap_or_default());
    su.recipe()?;
    Ok(Hop::Su(su))
}
