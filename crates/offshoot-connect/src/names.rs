//! Checks of the names that end up in a tool's arguments (S17).
//!
//! Owns what a host, user, path or option may look like. A name that passes can never be read as an option, holds nothing
//! that a terminal or a shell would act upon, and fits the protocol's limit of a name. Knows no method. Any thread.
//!
//! Shells matter although we start none: ssh itself hands `%h` and `%r` to `/bin/sh` for `ProxyCommand` and `Match exec`.

use std::net::Ipv6Addr;

use offshoot_wire::Limits;
use offshoot_wire::escape::is_dangerous;

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is nothing.
    #[error("empty")]
    Empty,
    /// It would be read as an option.
    #[error("begins with `-`")]
    Option,
    /// It is longer than [`Limits::NAME`] bytes.
    #[error("{0} bytes long, expected at most {max}", max = Limits::NAME)]
    TooLong(usize),
    /// It holds a character that is not allowed there.
    #[error("holds {0:?}")]
    Character(char),
    /// Brackets that hold no IPv6 address.
    #[error("brackets without an IPv6 address in them")]
    Address,
}

/// What all names have in common.
fn plain(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.starts_with('-') {
        return Err(NameError::Option);
    }
    if name.len() > max {
        return Err(NameError::TooLong(name.len()));
    }
    match name.chars().find(|&c| c.is_control() || is_dangerous(c)) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// A host: a name or alias of letters, digits and `.`, `_`, `-`, `+`; or an IPv6 address, with a zone if need be, without
/// brackets.
pub(crate) fn host(name: &str) -> Result<(), NameError> {
    plain(name, Limits::NAME)?;
    if name.contains(':') {
        let (address, zone) = name.split_once('%').unwrap_or((name, "0"));
        let zone_ok = !zone.is_empty() && zone.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        return if zone_ok && address.parse::<Ipv6Addr>().is_ok() { Ok(()) } else { Err(NameError::Address) };
    }
    match name.chars().find(|&c| !(c.is_ascii_alphanumeric() || "._-+".contains(c))) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// A user of the target: letters, digits and `.`, `_`, `-`, `+`, `@`, `\`, `=`, `~`; no `\` at the end.
pub(crate) fn user(name: &str) -> Result<(), NameError> {
    plain(name, Limits::NAME)?;
    if name.ends_with('\\') {
        return Err(NameError::Character('\\'));
    }
    match name.chars().find(|&c| !(c.is_alphanumeric() || "._-+@\\=~".contains(c))) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// A variable of the environment: letters, digits and `_`, no digit first.
pub(crate) fn variable(name: &str) -> Result<(), NameError> {
    plain(name, Limits::NAME)?;
    match name
        .chars()
        .enumerate()
        .find(|&(at, c)| !(c.is_ascii_alphabetic() || c == '_' || at > 0 && c.is_ascii_digit()))
    {
        Some((_, c)) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// A value that is an argument of its own behind an option that takes one: a path, a `key=value`. At most 4,096 bytes, a
/// path's limit.
pub(crate) fn value(text: &str) -> Result<(), NameError> {
    plain(text, 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s17_host_names_are_never_options_and_never_shell_text() {
        for good in ["web1", "web-1.example.org", "10.0.0.1", "::1", "fe80::1%eth0", "a_b+c", "1"] {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", NameError::Empty),
            ("-oProxyCommand=id", NameError::Option),
            ("web1 -v", NameError::Character(' ')),
            ("$(id)", NameError::Character('$')),
            ("a;b", NameError::Character(';')),
            ("a`b`", NameError::Character('`')),
            ("a\nb", NameError::Character('\n')),
            ("a\u{9b}b", NameError::Character('\u{9b}')),
            ("a\u{202e}b", NameError::Character('\u{202e}')),
            ("a@b", NameError::Character('@')),
            ("a/b", NameError::Character('/')),
            ("a%h", NameError::Character('%')),
            ("bücher", NameError::Character('ü')),
            ("fe80::1%$x", NameError::Address),
            ("fe80::1%", NameError::Address),
            ("a:b", NameError::Address),
        ] {
            assert_eq!(host(bad), Err(error), "{bad:?}");
        }
        assert_eq!(host(&"h".repeat(256)), Err(NameError::TooLong(256)));
        assert_eq!(host(&"h".repeat(255)), Ok(()));
    }

    #[test]
    fn s17_user_names_are_never_options_and_never_shell_text() {
        for good in ["ann", "svc-web", "ann@example.org", "CORP\\ann", "jürgen", "a.b_c+d=e"] {
            assert_eq!(user(good), Ok(()), "{good}");
        }
        for bad in ["", "-l", "a b", "a;b", "a'b", "$USER", "a\\", "a\0b", "a|b", "%r", "a/b", "a:b"] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_hold_no_control_characters_and_do_not_look_like_options() {
        assert_eq!(value("~/.ssh/id with space"), Ok(()));
        assert_eq!(value("-i"), Err(NameError::Option));
        assert_eq!(value("a\u{1b}[2J"), Err(NameError::Character('\u{1b}')));
    }
}
