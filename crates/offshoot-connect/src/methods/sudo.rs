//! The method *sudo*: another user of the same machine, by the system's `sudo` or `sudo-rs`.
//!
//! Owns the options, the argument list, and sudo's texts and what they mean. Any thread.

use std::fmt;
use std::time::Duration;

use offshoot_wire::{Asks, AuthFailure, Meaning, Prompt, Prompts, Recipe, Secret, Start};

use super::shared::{OptionsOf, Text, auth, hints};
use super::{Hop, Method, OptionProblem, RecipeError};
use crate::answers::{Answers, Responder};
use crate::deadlines::Deadlines;
use crate::names;

const OPTIONS: OptionsOf = OptionsOf("sudo");

/// What of the environment sudo is asked to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Keep {
    #[default]
    Policy,
    All,
    These(Vec<String>),
}

/// A context of another user on the same machine, through the system's `sudo`.
///
/// sudo gets a terminal of its own for its password prompt, so `requiretty` is met; the link does not go through it. The
/// prompt is told to sudo and holds a word of this connect's, so it does not matter what lectures and translations say; the
/// usual prompts, `[sudo] password for …:` and `Password:`, are known as well. An answer is typed only while sudo is alone: what
/// it leads to can ask nothing in its stead. Without a [password](Self::password) and a [responder](Self::responder) sudo is
/// told not to ask (`-n`).
///
/// Whatever sudo asks it asks by that prompt. Where the machine wants more than a password, such as a one-time code, both look
/// the same: the password is typed at the first, and the second ends the login, as if the password had been wrong.
///
/// What sudo runs is `/bin/sh -c` with a short script: that is what its policy has to allow, and what its log shows.
///
/// # Examples
///
/// ```
/// use offshoot_connect::methods::{Method, Sudo};
/// let sudo = Sudo::to("postgres").password("hunter2").set_home(true);
/// assert_eq!(sudo.recipe()?.default_name(), "sudo:postgres");
/// # Ok::<(), offshoot_connect::methods::RecipeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sudo {
    user: String,
    keep: Keep,
    login: bool,
    set_home: bool,
    role: Option<String>,
    kind: Option<String>,
    extra: Vec<String>,
    program: String,
    deadlines: Deadlines,
    answers: Answers,
}

impl Sudo {
    /// To this user: a name, or `#` and a number.
    pub fn to(user: impl Into<String>) -> Sudo {
        Sudo {
            user: user.into(),
            keep: Keep::Policy,
            login: false,
            set_home: false,
            role: None,
            kind: None,
            extra: Vec::new(),
            program: "sudo".to_owned(),
            deadlines: Deadlines::default(),
            answers: Answers::none(),
        }
    }

    /// The password that sudo asks for: by its usual policy that of the user who calls it. Sent when sudo asks, and tried
    /// once.
    #[must_use]
    pub fn password(mut self, secret: impl Into<Secret>) -> Sudo {
        self.answers.set_password(secret);
        self
    }

    /// Who answers what sudo asks where no [password](Self::password) is given.
    #[must_use]
    pub fn responder(mut self, responder: Responder) -> Sudo {
        self.answers.set_responder(responder);
        self
    }

    /// How long an answer may take; 2 minutes by default. Meanwhile no other limit runs.
    #[must_use]
    pub fn answer_timeout(mut self, limit: Duration) -> Sudo {
        self.deadlines.set_answer(limit);
        self
    }

    /// Whether the whole environment is kept (`-E`), where the policy allows it.
    #[must_use]
    pub fn preserve_env(mut self, on: bool) -> Sudo {
        self.keep = if on { Keep::All } else { Keep::Policy };
        self
    }

    /// Keeps these variables (`--preserve-env=LIST`), where the policy allows it.
    #[must_use]
    pub fn preserve_env_of<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Sudo {
        self.keep = Keep::These(names.into_iter().map(Into::into).collect());
        self
    }

    /// Runs the user's login shell first (`-i`): its environment and home folder.
    #[must_use]
    pub fn login(mut self, on: bool) -> Sudo {
        self.login = on;
        self
    }

    /// Sets `HOME` to the user's home folder (`-H`), where the policy does not do so anyway.
    #[must_use]
    pub fn set_home(mut self, on: bool) -> Sudo {
        self.set_home = on;
        self
    }

    /// The SELinux role to run in (`-r`).
    #[must_use]
    pub fn selinux_role(mut self, role: impl Into<String>) -> Sudo {
        self.role = Some(role.into());
        self
    }

    /// The SELinux type to run in (`-t`).
    #[must_use]
    pub fn selinux_type(mut self, kind: impl Into<String>) -> Sudo {
        self.kind = Some(kind.into());
        self
    }

    /// A further argument for sudo itself, such as `--group=www`. May be repeated; at most 16.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Sudo {
        self.extra.push(arg.into());
        self
    }

    /// The sudo program: a name to look up in `PATH`, or a path. `sudo` by default. What starts another program to ask, such as
    /// a script around sudo, gets no answers.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Sudo {
        self.program = program.into();
        self
    }

    /// How long the whole connect may take; 30 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Sudo {
        self.deadlines.set_total(limit);
        self
    }

    /// How long a stage of the connect may be silent; 10 s by default.
    #[must_use]
    pub fn stage_timeout(mut self, limit: Duration) -> Sudo {
        self.deadlines.set_stage(limit);
        self
    }

    fn argv(&self) -> Result<Vec<String>, RecipeError> {
        OPTIONS.checked("program", &self.program, names::value(&self.program))?;
        // `%p` is the user whose password is asked for. A sudo that does not know it shows it as it is.
        let mut argv = vec![self.program.clone(), "-p".into(), format!("{} %p:", Start::TOKEN)];
        argv.extend(["-u".into(), self.user.clone()]);
        if self.answers.is_none() {
            argv.push("-n".into());
        }
        match &self.keep {
            Keep::Policy => {}
            Keep::All => argv.push("-E".into()),
            Keep::These(names) => {
                for name in names {
                    OPTIONS.checked("variable", name, names::variable(name))?;
                }
                argv.push(format!("--preserve-env={}", names.join(",")));
            }
        }
        if self.login {
            argv.push("-i".into());
        }
        if self.set_home {
            argv.push("-H".into());
        }
        for (flag, option, value) in [("-r", "role", &self.role), ("-t", "type", &self.kind)] {
            if let Some(value) = value {
                OPTIONS.checked(option, value, names::value(value))?;
                argv.extend([flag.to_owned(), value.clone()]);
            }
        }
        if self.extra.len() > 16 {
            return Err(OPTIONS.wrong("arguments", &self.extra.len().to_string(), OptionProblem::TooMany(16)));
        }
        for extra in &self.extra {
            argv.push(argument(extra)?);
        }
        // sudo hands a command to a login shell as one text, in which it escapes everything but `$`.
        let script = match self.user.as_str() {
            _ if self.login => Start::PLAIN_SCRIPT,
            "root" | "#0" => Start::ROOT_SCRIPT,
            _ => Start::SCRIPT,
        };
        argv.extend(["--".into(), "/bin/sh".into(), "-c".into(), script.into()]);
        Ok(argv)
    }
}

/// The user.
impl fmt::Display for Sudo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)
    }
}

impl Method for Sudo {
    fn recipe(&self) -> Result<Recipe, RecipeError> {
        let number = self.user.strip_prefix('#').is_some_and(|number| number.parse::<u32>().is_ok());
        if !number {
            OPTIONS.checked("user", &self.user, names::user(&self.user))?;
        }
        OPTIONS.typable(&self.answers)?;
        // Its own messages in English, by the one variable that changes nothing else; the new context does not see it.
        let env = vec![("LANGUAGE".to_owned(), "C".to_owned())];
        let mut recipe = Recipe::new("sudo", self.user.clone(), Start::Shell { argv: self.argv()?, env });
        recipe.hints = hints(TEXTS);
        // A terminal also without answers: a policy may demand one.
        let known = PROMPTS.iter().map(|&(text, asks)| Prompt { text: text.to_owned(), asks }).collect();
        recipe.prompts = Some(Prompts { known, terminal: true, answer_ms: self.deadlines.answer });
        Ok(self.deadlines.apply(recipe))
    }

    fn answers(&self) -> Answers {
        self.answers.clone()
    }
}

/// What sudo asks. sudo-rs writes more around the word that it is given, and PAM modules ask in their own words.
const PROMPTS: &[(&str, Asks)] = &[
    // As it stands where `%p` is not known.
    ("*\u{1}token %p:*", Asks::Password),
    ("*\u{1}token {}:*", Asks::Password),
    ("*\u{1}token*", Asks::Password),
    ("[sudo*assword*:", Asks::Password),
    ("Password:", Asks::Password),
];

const SUDOERS: &str = "allow it in sudoers on that machine, with `visudo`: what is run is /bin/sh";
const SECRET: &str = "give the password, or somebody to ask for it; or NOPASSWD in sudoers";

/// What sudo and sudo-rs print when they refuse; `*` stands for any text.
#[rustfmt::skip] // a table
const TEXTS: &[Text] = &[
    ("incorrect password attempt", auth(AuthFailure::PasswordIncorrect), "it was tried once, so as to lock no account"),
    ("incorrect authentication attempt", auth(AuthFailure::PasswordIncorrect), "it was tried once, so as to lock no account"),
    ("Authentication failed, try again", auth(AuthFailure::PasswordIncorrect), "it was tried once, so as to lock no account"),
    ("is not in the sudoers file", auth(AuthFailure::NotAllowed), SUDOERS),
    ("is not allowed to ", auth(AuthFailure::NotAllowed), SUDOERS),
    ("may not run sudo", auth(AuthFailure::NotAllowed), SUDOERS),
    ("afraid I can't do that", auth(AuthFailure::NotAllowed), SUDOERS),
    ("you are not allowed to", auth(AuthFailure::NotAllowed), SUDOERS),
    ("not permitted to", auth(AuthFailure::NotAllowed), SUDOERS),
    ("unknown user", auth(AuthFailure::NoSuchUser), "name a user that exists on that machine"),
    ("user*not found", auth(AuthFailure::NoSuchUser), "name a user that exists on that machine"),
    ("User*not found", auth(AuthFailure::NoSuchUser), "name a user that exists on that machine"),
    ("a password is required", auth(AuthFailure::PasswordRequired), SECRET),
    ("interactive authentication is required", auth(AuthFailure::PasswordRequired), SECRET),
    ("no password was provided", auth(AuthFailure::PasswordRequired), SECRET),
    ("must have a tty", auth(AuthFailure::TtyRequired), "the policy wants a terminal that sudo does not take ours for"),
    ("no tty present", auth(AuthFailure::TtyRequired), "the policy wants a terminal that sudo does not take ours for"),
    ("a terminal is required", auth(AuthFailure::TtyRequired), "the policy wants a terminal that sudo does not take ours for"),
    ("account validation failure", auth(AuthFailure::NotAllowed), "the account is locked or has expired"),
    ("ccount*expired", auth(AuthFailure::NotAllowed), "the account has expired, or its password has: log in once by hand"),
    ("no new privileges", auth(AuthFailure::NotAllowed), "the machine or container forbids gaining privileges (no_new_privs)"),
    ("setuid", auth(AuthFailure::NotAllowed), "sudo is not installed as it must be, or its file system is mounted nosuid"),
    ("effective uid is not 0", auth(AuthFailure::NotAllowed), "sudo is not installed as it must be, or its file system is mounted nosuid"),
    ("usage: sudo", Meaning::Usage, "that sudo does not know one of the options"),
    ("unrecognized option", Meaning::Usage, "that sudo does not know one of the options"),
    ("invalid option", Meaning::Usage, "that sudo does not know one of the options"),
    ("SELinux", Meaning::Usage, "roles and types are for machines with SELinux"),
];

pub(super) fn hop(user: Option<&str>) -> Result<Hop, RecipeError> {
    let sudo = Sudo::to(user.unwrap_or_default());
    sudo.recipe()?;
    Ok(Hop::Sudo(sudo))
}

/// An argument of the user's: an option, since anything else would be taken for the command; none that would have sudo
/// read a password from the link, ask a program, detach, or do something else than run a command.
fn argument(arg: &str) -> Result<String, RecipeError> {
    const REFUSED: &[&str] = &[
        "--askpass",
        "--background",
        "--edit",
        "--help",
        "--list",
        "--non-interactive",
        "--prompt",
        "--remove-timestamp",
        "--shell",
        "--stdin",
        "--validate",
        "--version",
        "--user",
        "--login",
    ];
    let Some(long) = arg.strip_prefix("--").filter(|name| !name.is_empty()) else {
        return Err(OPTIONS.wrong("argument", arg, OptionProblem::LongOption));
    };
    OPTIONS.checked("argument", arg, names::value(long))?;
    let name = arg.split('=').next().unwrap_or_default();
    // sudo takes any beginning of a name that is no other's.
    if REFUSED.iter().any(|refused| refused.starts_with(name)) {
        return Err(OPTIONS.wrong("argument", arg, OptionProblem::Forced));
    }
    Ok(arg.to_owned())
}
