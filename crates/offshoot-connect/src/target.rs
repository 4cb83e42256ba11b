//! Target paths of the command line: `jump/ann@web1:2222/local`.
//!
//! Owns the splitting into hops and the errors that point at one; what a hop may look like belongs to the methods. Must
//! not know node sets or host files: those are expanded before. Pure, any thread.

use std::fmt;
use std::str::FromStr;

use offshoot_wire::Limits;

use crate::methods::{Hop, HopError, shown};

/// A path of hops, left to right: each is started by the one before it, the first by the master.
///
/// | hop | means |
/// |---|---|
/// | `web1`, `ann@web1`, `web1:2222`, `[::1]:22` | by ssh |
/// | `ssh:web1` | the same, said in full: for a host that is called like a method |
/// | `local` | the same machine and user |
/// | `sudo:root`, `su:root`, `doas:root` | another user of the same machine |
/// | `METHOD:NAME` | by another method; those that this version lacks are refused by name |
///
/// `Display` gives the canonical text: parsing it gives an equal target.
///
/// # Examples
///
/// ```
/// use offshoot_connect::Target;
/// let target: Target = "jump/ann@web1:2222/local".parse()?;
/// assert_eq!(target.hops().len(), 3);
/// assert_eq!(target.to_string(), "jump/ann@web1:2222/local");
/// let error = "jump/docker:db".parse::<Target>().unwrap_err();
/// assert_eq!(error.to_string(), "target `jump/docker:db`, hop 2 (`docker:db`): method docker is not available in this version");
/// # Ok::<(), offshoot_connect::TargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    hops: Vec<Hop>,
}

impl Target {
    /// Parses a path. The same as `text.parse()`.
    ///
    /// # Errors
    /// [`TargetError`] that points at the first hop that cannot be understood.
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        text.parse()
    }

    /// The hops, at least one and at most [`Limits::DEPTH`].
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The hops, for further options.
    pub fn into_hops(self) -> Vec<Hop> {
        self.hops
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let mut hops = Vec::new();
        let mut start = 0;
        for (index, hop) in text.split('/').enumerate() {
            let end = start + hop.len();
            let error = |problem| TargetError { target: text.to_owned(), index, span: (start, end), problem };
            if index == Limits::DEPTH {
                return Err(error(TargetProblem::TooDeep));
            }
            hops.push(hop.parse().map_err(|problem: HopError| error(problem.into()))?);
            start = end + 1;
        }
        Ok(Target { hops })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, hop) in self.hops.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            write!(f, "{hop}")?;
        }
        Ok(())
    }
}

/// A target that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TargetError {
    /// The whole text.
    pub target: String,
    /// Which hop, counted from 0.
    pub index: usize,
    /// Where the hop stands in the text: the bytes from the first number up to, not including, the second.
    pub span: (usize, usize),
    /// What is wrong with it.
    pub problem: TargetProblem,
}

/// What is wrong with a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetProblem {
    /// There are more hops than a tree is deep.
    #[error("too many hops, expected at most {}", Limits::DEPTH)]
    TooDeep,
    /// A hop is wrong.
    #[error(transparent)]
    Hop(#[from] HopError),
}

impl TargetError {
    /// The text of the hop that is wrong.
    pub fn hop(&self) -> &str {
        &self.target[self.span.0..self.span.1]
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "target {}, hop {}", shown(&self.target), self.index + 1)?;
        if !self.hop().is_empty() {
            write!(f, " ({})", shown(self.hop()))?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for TargetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::Ssh;

    fn hops(text: &str) -> Vec<String> {
        let target: Target = text.parse().unwrap_or_else(|error| panic!("{error}"));
        target.hops().iter().map(ToString::to_string).collect()
    }

    fn error(text: &str) -> String {
        match text.parse::<Target>() {
            Ok(target) => panic!("{text:?} was taken as {target:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_path_is_its_hops_from_left_to_right() {
        assert_eq!(hops("web1"), ["web1"]);
        assert_eq!(hops("ann@web1:2222"), ["ann@web1:2222"]);
        assert_eq!(hops("jump/web1/local"), ["jump", "web1", "local"]);
        assert_eq!(hops("local/local/local"), ["local", "local", "local"]);
        assert_eq!(hops("ssh:web1"), ["web1"]);
        assert_eq!(hops("ssh:ann@web1:22"), ["ann@web1:22"]);
        assert_eq!(hops("[::1]:22/ann@[fe80::1%eth0]"), ["[::1]:22", "ann@[fe80::1%eth0]"]);
        assert_eq!(hops("corp@example.org@web1"), ["corp@example.org@web1"]);
        assert_eq!(hops("web1:022"), ["web1:22"]);
    }

    #[test]
    fn a_host_that_is_called_like_a_method_is_written_in_full() {
        assert_eq!(hops("ssh:local"), ["ssh:local"]);
        assert_eq!(hops("ssh:docker:22"), ["ssh:docker:22"]);
        assert_eq!(hops("ann@docker:22"), ["ann@docker:22"]);
        assert_eq!("ssh:local".parse::<Target>().unwrap().hops(), [Hop::Ssh(Ssh::to("local"))]);
    }

    #[test]
    fn errors_point_at_the_hop_and_say_what_is_expected() {
        let empty = "the hop is empty, expected [USER@]HOST[:PORT], METHOD:NAME or local";
        for (text, expected) in [
            ("", format!("target ``, hop 1: {empty}")),
            ("jump//web1", format!("target `jump//web1`, hop 2: {empty}")),
            ("web1/", format!("target `web1/`, hop 2: {empty}")),
            ("docker:db", "target `docker:db`, hop 1 (`docker:db`): method docker is not available in this version".into()),
            ("local:x", "target `local:x`, hop 1 (`local:x`): local: the name `x`: expected nothing here".into()),
            (
                "a/ftp:web1",
                "target `a/ftp:web1`, hop 2 (`ftp:web1`): `ftp` is no method and `web1` is no port; methods are doas, local, ssh, su, sudo"
                    .into(),
            ),
            ("::1", "target `::1`, hop 1 (`::1`): an IPv6 address needs brackets, expected [::1]".into()),
            ("a/-oX=y", "target `a/-oX=y`, hop 2 (`-oX=y`): ssh: the host `-oX=y`: begins with `-`".into()),
            ("-l@web1", "target `-l@web1`, hop 1 (`-l@web1`): ssh: the user `-l`: begins with `-`".into()),
            ("@web1", "target `@web1`, hop 1 (`@web1`): ssh: the user ``: empty".into()),
            (
                "web1:65536",
                "target `web1:65536`, hop 1 (`web1:65536`): ssh: the port `65536`: expected a port from 1 to 65535".into(),
            ),
            ("web1:", "target `web1:`, hop 1 (`web1:`): ssh: the port ``: expected a port from 1 to 65535".into()),
            ("[web1]", "target `[web1]`, hop 1 (`[web1]`): ssh: the host `[web1]`: brackets without an IPv6 address in them".into()),
            ("[::1", "target `[::1`, hop 1 (`[::1`): ssh: the host `[::1`: brackets without an IPv6 address in them".into()),
            ("web 1", "target `web 1`, hop 1 (`web 1`): ssh: the host `web 1`: holds ' '".into()),
        ] {
            assert_eq!(error(text), expected);
        }
        let deep = vec!["a"; 65].join("/");
        assert!(error(&deep).ends_with("hop 65 (`a`): too many hops, expected at most 64"));
        assert_eq!(hops(&vec!["a"; 64].join("/")).len(), 64);
    }

    #[test]
    fn an_error_never_shows_a_raw_control_character() {
        let text = error("web\u{1b}]0;x\u{7}1");
        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
    }
}
