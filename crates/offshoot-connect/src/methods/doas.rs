//! The method *doas*: another user of the same machine, by `doas`.
//!
//! Owns the options, the argument list, and doas's texts and what they mean. Any thread.

use std::fmt;
use std::time::Duration;

use offshoot_wire::{Asks, AuthFailure, Meaning, Prompt, Prompts, Recipe, Secret, Start};

use super::shared::{OptionsOf, Text, auth, hints};
use super::{Hop, Method, RecipeError};
use crate::answers::{Answers, Responder};
use crate::deadlines::Deadlines;
use crate::names;

const OPTIONS: OptionsOf = OptionsOf("doas");

/// A context of another user on the same machine, through `doas`.
///
/// doas gets a terminal of its own for its password prompt; the link does not go through it. Without a
/// [password](Self::password) and a [responder](Self::responder) doas is told not to ask (`-n`).
///
/// # Examples
///
/// ```
/// use offshoot_connect::methods::{Doas, Method};
/// assert_eq!(Doas::to("postgres").password("hunter2").recipe()?.default_name(), "doas:postgres");
/// # Ok::<(), offshoot_connect::methods::RecipeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Doas {
    user: String,
    program: String,
    deadlines: Deadlines,
    answers: Answers,
}

impl Doas {
    /// To this user.
    pub fn to(user: impl Into<String>) -> Doas {
        let deadlines = Deadlines::default();
        Doas { user: user.into(), program: "doas".to_owned(), deadlines, answers: Answers::none() }
    }

    /// The password of the user who calls doas. Sent when doas asks, and tried once.
    #[must_use]
    pub fn password(mut self, secret: impl Into<Secret>) -> Doas {
        self.answers.set_password(secret);
        self
    }

    /// Who answers what doas asks where no [password](Self::password) is given.
    #[must_use]
    pub fn responder(mut self, responder: Responder) -> Doas {
        self.answers.set_responder(responder);
        self
    }

    /// How long an answer may take; 2 minutes by default. Meanwhile no other limit runs.
    #[must_use]
    pub fn answer_timeout(mut self, limit: Duration) -> Doas {
        self.deadlines.set_answer(limit);
        self
    }

    /// The doas program: a name to look up in `PATH`, or a path. `doas` by default.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Doas {
        self.program = program.into();
        self
    }

    /// How long the whole connect may take; 30 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Doas {
        self.deadlines.set_total(limit);
        self
    }

    /// How long a stage of the connect may be silent; 10 s by default.
    #[must_use]
    pub fn stage_timeout(mut self, limit: Duration) -> Doas {
        self.deadlines.set_stage(limit);
        self
    }
}

/// The user.
impl fmt::Display for Doas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)
    }
}

impl Method for Doas {
    fn recipe(&self) -> Result<Recipe, RecipeError> {
        OPTIONS.checked("user", &self.user, names::user(&self.user))?;
        OPTIONS.checked("program", &self.program, names::value(&self.program))?;
        OPTIONS.typable(&self.answers)?;
        let mut argv = vec![self.program.clone()];
        if self.answers.is_none() {
            argv.push("-n".into());
        }
        let script = if self.user == "root" { Start::ROOT_SCRIPT } else { Start::SCRIPT };
        argv.extend(["-u", &self.user, "--", "/bin/sh", "-c", script].map(str::to_owned));
        let mut recipe = Recipe::new("doas", self.user.clone(), Start::Shell { argv, env: Vec::new() });
        recipe.hints = hints(TEXTS);
        let known = PROMPTS.iter().map(|&(text, asks)| Prompt { text: text.to_owned(), asks }).collect();
        recipe.prompts = Some(Prompts { known, terminal: true, answer_ms: self.deadlines.answer });
        Ok(self.deadlines.apply(recipe))
    }

    fn answers(&self) -> Answers {
        self.answers.clone()
    }
}

/// Built with PAM it asks in PAM's words.
const PROMPTS: &[(&str, Asks)] =
    &[("doas ({}) password:", Asks::Password), ("Password:", Asks::Password), ("*assword*:", Asks::Password)];

const RULES: &str = "allow it in doas.conf on that machine: what is run is /bin/sh";

/// What doas prints when it refuses.
#[rustfmt::skip] // a table
const TEXTS: &[Text] = &[
    ("Authentication failed", auth(AuthFailure::PasswordIncorrect), "it was tried once, so as to lock no account"),
    ("Authorization failed", auth(AuthFailure::PasswordIncorrect), "it was tried once, so as to lock no account"),
    ("Operation not permitted", auth(AuthFailure::NotAllowed), RULES),
    ("not permitted", auth(AuthFailure::NotAllowed), RULES),
    ("doas is not enabled", auth(AuthFailure::NotAllowed), RULES),
    ("not installed setuid", auth(AuthFailure::NotAllowed), "doas is not installed as it must be, or its file system is mounted nosuid"),
    ("unknown user", auth(AuthFailure::NoSuchUser), "name a user that exists on that machine"),
    ("Authentication required", auth(AuthFailure::PasswordRequired), "give the password, or somebody to ask for it; or nopass in doas.conf"),
    ("Authorization required", auth(AuthFailure::PasswordRequired), "give the password, or somebody to ask for it; or nopass in doas.conf"),
    ("a tty is required", auth(AuthFailure::TtyRequired), "it does not take our terminal for one"),
    ("usage: doas", Meaning::Usage, "that doas does not know one of the options"),
];

pub(super) fn hop(user: Option<&str>) -> Result<Hop, RecipeError> {
    let doas = Doas::to(user.unwrap_or_default());
    doas.recipe()?;
    Ok(Hop::Doas(doas))
}
