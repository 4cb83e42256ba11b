//! `[USER@]HOST[:PORT]`: where an ssh login goes. Owns its syntax and its checks; pure.

use std::fmt;

use super::{OPTIONS, OptionProblem, RecipeError, names};
use crate::names::NameError;

/// A login's place, in parts. The host is without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Place {
    /// Splits the text; what the parts hold is checked by [`check`](Self::check).
    pub(super) fn parse(text: &str) -> Result<Place, RecipeError> {
        // The last @: a user may hold one, a host may not.
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
            let bad = || OPTIONS.wrong("host", rest, NameError::Address.into());
            let (host, after) = inner.split_once(']').ok_or_else(bad)?;
            if !host.contains(':') || !(after.is_empty() || after.starts_with(':')) {
                return Err(bad());
            }
            (host, after.strip_prefix(':'))
        } else {
            match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        let port = port
            .map(|text| number(text).ok_or_else(|| OPTIONS.wrong("port", text, OptionProblem::Port)))
            .transpose()?;
        Ok(Place { user: user.map(str::to_owned), host: host.to_owned(), port })
    }

    /// Checks the parts (S17).
    pub(super) fn check(&self) -> Result<(), RecipeError> {
        if let Some(user) = &self.user {
            OPTIONS.checked("user", user, names::user(user))?;
        }
        OPTIONS.checked("host", &self.host, names::host(&self.host))?;
        if self.port == Some(0) {
            return Err(OPTIONS.wrong("port", "0", OptionProblem::Port));
        }
        Ok(())
    }

    /// The host as `known_hosts` and `ssh-keygen -R` name it.
    pub(super) fn known_as(&self) -> String {
        match self.port {
            Some(port) if port != 22 => format!("[{}]:{port}", self.host),
            _ => self.host.clone(),
        }
    }
}

/// A port of digits alone: no sign, which `parse` would take.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port > 0)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?
        } else {
            f.write_str(&self.host)?
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}
