//! Connection methods: each a function from its options to a [`Recipe`], plain data that the one engine runs.
//!
//! Owns the list of methods, their names, and the syntax of one hop of a target path. Must not start anything: compiling
//! a recipe opens no file and asks nobody. Any thread.
//!
//! A new method is one file beside this one, and its lines here: the module, its place in [`Hop`], its row in `METHODS`.
//! A method of a downstream crate needs none of that: it implements [`Method`].

mod doas;
mod local;
mod shared;
mod ssh;
mod su;
mod sudo;

use std::fmt;

use offshoot_wire::escape::escaped;
use offshoot_wire::{Failure, FailureKind, Limits, Recipe};

use crate::answers::Answers;
use crate::names::NameError;

pub use doas::Doas;
pub use local::Local;
pub use ssh::{KnownHosts, Ssh};
pub use su::Su;
pub use sudo::Sudo;

/// A way to obtain a link, as a user describes it.
///
/// # Examples
///
/// ```
/// use offshoot_connect::methods::{Method, Ssh};
/// let recipe = Ssh::to("ann@web1:2222").recipe()?;
/// assert_eq!(recipe.default_name(), "ssh:ann@web1:2222");
/// # Ok::<(), offshoot_connect::methods::RecipeError>(())
/// ```
pub trait Method {
    /// Compiles the options.
    ///
    /// # Errors
    /// [`RecipeError`] naming the first option that cannot be accepted.
    fn recipe(&self) -> Result<Recipe, RecipeError>;

    /// What is answered when the tool asks; nothing by default. Where something is, the recipe has
    /// [prompts](Recipe::prompts).
    fn answers(&self) -> Answers {
        Answers::none()
    }
}

/// A recipe is its own method: for recipes that were made elsewhere.
impl Method for Recipe {
    fn recipe(&self) -> Result<Recipe, RecipeError> {
        Ok(self.clone())
    }
}

impl<M: Method + ?Sized> Method for &M {
    fn recipe(&self) -> Result<Recipe, RecipeError> {
        (**self).recipe()
    }

    fn answers(&self) -> Answers {
        (**self).answers()
    }
}

/// An option that a method cannot accept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{method}: the {option} {}: {problem}", shown(value))]
#[non_exhaustive]
pub struct RecipeError {
    /// The method.
    pub method: &'static str,
    /// Which option: `host`, `user`, …
    pub option: &'static str,
    /// What was given.
    pub value: String,
    /// What is wrong with it.
    pub problem: OptionProblem,
}

impl RecipeError {
    /// An option that a method cannot accept, and what was given.
    pub fn new(
        method: &'static str,
        option: &'static str,
        value: impl Into<String>,
        problem: OptionProblem,
    ) -> RecipeError {
        RecipeError { method, option, value: value.into(), problem }
    }
}

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OptionProblem {
    /// It is no name that can be passed to a tool (S17).
    #[error(transparent)]
    Name(#[from] NameError),
    /// A port that is no number from 1 to 65535.
    #[error("expected a port from 1 to 65535")]
    Port,
    /// An `-o` option without a value.
    #[error("expected KEY=VALUE")]
    KeyValue,
    /// An option that offshoot sets itself and that must not be changed.
    #[error("offshoot sets this option itself, since the link depends on it")]
    Forced,
    /// More of them than are taken.
    #[error("expected at most {0}")]
    TooMany(usize),
    /// An argument that is no long option.
    #[error("expected a long option, --NAME or --NAME=VALUE")]
    LongOption,
    /// A secret that cannot be typed; it is not shown.
    #[error("expected one line of at most {most} bytes, without control characters", most = Limits::SECRET)]
    Secret,
    /// Text where the method takes none.
    #[error("expected nothing here")]
    Superfluous,
}

impl From<RecipeError> for Failure {
    fn from(error: RecipeError) -> Failure {
        Failure::new(FailureKind::Malformed, error.to_string())
    }
}

/// Text of a user or of elsewhere, quoted, escaped and short enough for an error message.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let cut: String = text.chars().take(MOST).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", escaped(cut.as_bytes()))
}

/// One hop of a target path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // a path has a few hops, and most of them are ssh
pub enum Hop {
    /// The same machine, the same user.
    Local(Local),
    /// The system's `ssh`.
    Ssh(Ssh),
    /// The system's `sudo`.
    Sudo(Sudo),
    /// The system's `su`.
    Su(Su),
    /// The system's `doas`.
    Doas(Doas),
}

impl Method for Hop {
    fn recipe(&self) -> Result<Recipe, RecipeError> {
        match self {
            Hop::Local(local) => local.recipe(),
            Hop::Ssh(ssh) => ssh.recipe(),
            Hop::Sudo(sudo) => sudo.recipe(),
            Hop::Su(su) => su.recipe(),
            Hop::Doas(doas) => doas.recipe(),
        }
    }

    fn answers(&self) -> Answers {
        match self {
            Hop::Local(_) => Answers::none(),
            Hop::Ssh(ssh) => ssh.answers(),
            Hop::Sudo(sudo) => sudo.answers(),
            Hop::Su(su) => su.answers(),
            Hop::Doas(doas) => doas.answers(),
        }
    }
}

/// The canonical text of the hop: a target that consists of it alone.
impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hop::Local(_) => f.write_str("local"),
            Hop::Ssh(ssh) => {
                if ssh.needs_method() {
                    f.write_str("ssh:")?;
                }
                write!(f, "{ssh}")
            }
            Hop::Sudo(sudo) => write!(f, "sudo:{sudo}"),
            Hop::Su(su) => write!(f, "su:{su}"),
            Hop::Doas(doas) => write!(f, "doas:{doas}"),
        }
    }
}

/// Makes a hop from the text behind `method:`, or from nothing when the method stands alone.
type Parse = fn(Option<&str>) -> Result<Hop, RecipeError>;

/// The words that a hop can begin with. Those without a function are reserved, so that a path that means them never
/// reaches a host of that name by mistake.
const METHODS: &[(&str, Option<Parse>)] = &[
    ("chroot", None),
    ("doas", Some(doas::hop)),
    ("docker", None),
    ("exec", None),
    ("incus", None),
    ("ipmi", None),
    ("jail", None),
    ("kubectl", None),
    ("local", Some(local::hop)),
    ("lxc", None),
    ("lxd", None),
    ("machinectl", None),
    ("nsenter", None),
    ("nspawn", None),
    ("podman", None),
    ("serial", None),
    ("ssh", Some(ssh::hop)),
    ("su", Some(su::hop)),
    ("sudo", Some(sudo::hop)),
    ("telnet", None),
    ("unix", None),
];

/// Why a hop cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HopError {
    /// There is no text between two slashes, or at either end.
    #[error("the hop is empty, expected [USER@]HOST[:PORT], METHOD:NAME or local")]
    Empty,
    /// The method is reserved for later.
    #[error("method {0} is not available in this version")]
    NotAvailable(&'static str),
    /// What stands before the colon is no method, and what stands behind it is no port.
    #[error("{} is no method and {} is no port; methods are {known}", shown(.0), shown(.1), known = known())]
    UnknownMethod(String, String),
    /// An IPv6 address without brackets.
    #[error("an IPv6 address needs brackets, expected [{0}]")]
    Brackets(String),
    /// The method does not take this.
    #[error(transparent)]
    Option(#[from] RecipeError),
}

fn known() -> String {
    let names: Vec<&str> = METHODS.iter().filter(|(_, parse)| parse.is_some()).map(|(name, _)| *name).collect();
    names.join(", ")
}

/// Whether a hop that consists of this word, or begins with it and a colon, is not an ssh host.
pub(crate) fn is_method(word: &str) -> bool {
    METHODS.iter().any(|(name, _)| *name == word)
}

impl std::str::FromStr for Hop {
    type Err = HopError;

    fn from_str(text: &str) -> Result<Hop, HopError> {
        if text.is_empty() {
            return Err(HopError::Empty);
        }
        if text == "local" {
            return Ok(Hop::Local(Local::new()));
        }
        // A user or a bracket before the first colon: the colon can only belong to the place.
        let Some((word, rest)) = text.split_once(':').filter(|(word, _)| !word.contains(['@', '['])) else {
            return Ok(ssh::hop(Some(text))?);
        };
        if let Some((name, parse)) = METHODS.iter().find(|(name, _)| *name == word) {
            return Ok(parse.ok_or(HopError::NotAvailable(name))?(Some(rest))?);
        }
        if crate::names::host(text).is_ok() {
            return Err(HopError::Brackets(text.to_owned()));
        }
        if rest.is_empty() || rest.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(ssh::hop(Some(text))?);
        }
        Err(HopError::UnknownMethod(word.to_owned(), rest.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_methods_is_sorted_and_without_repetition() {
        assert!(METHODS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn foreign_text_in_an_error_is_escaped_and_cut() {
        assert_eq!(shown("a\u{1b}[2J\n"), "`a\\x1b[2J\\x0a`");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 83);
    }
}
