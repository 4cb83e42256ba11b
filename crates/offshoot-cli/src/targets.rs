//! Which targets: sets, lists and files become names, each once, in the order given.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, bail};
use offshoot::escape::escaped;

use crate::nodeset::{self, NodeSet};

/// The largest list of hosts that is read, in bytes: 100,000 names of 160 bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// What is said when there is nothing to be done.
pub(crate) const NONE_LEFT: &str = "no target is left";

/// The chosen targets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Targets {
    /// Their texts, at least one.
    pub(crate) names: Vec<String>,
    /// What is to be left out of them, whichever way it is written.
    pub(crate) excluded: Vec<Excluded>,
    /// Whether our stdin was read for them, and so has nothing left for the commands.
    pub(crate) read_stdin: bool,
}

/// One thing that the user wrote to leave out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Excluded {
    /// The set as it was written; `None` for a list, which may well name what is no target today.
    pub(crate) set: Option<String>,
    /// Whom it stands for.
    pub(crate) names: Vec<String>,
}

/// Resolves what the user wrote for TARGET and `-x`. Only who knows what names mean can leave out what was excluded.
///
/// # Errors
/// A text that is no set, a file that cannot be read, or no target at all.
pub(crate) fn resolve(wanted: &[String], excluded: &[String]) -> anyhow::Result<Targets> {
    resolve_with(wanted, excluded, &mut io::stdin())
}

fn resolve_with(wanted: &[String], excluded: &[String], stdin: &mut dyn Read) -> anyhow::Result<Targets> {
    let mut reader = Reader { stdin: Some(stdin) };
    let mut set = NodeSet::default();
    wanted.iter().try_for_each(|text| reader.add(text, &mut set))?;
    let mut out = Vec::new();
    for text in excluded {
        let list = is_list(text);
        let parts = if list { vec![text.as_str()] } else { nodeset::split(text).with_context(|| bad(text))? };
        for part in parts {
            let mut set = NodeSet::default();
            reader.add(part, &mut set)?;
            out.push(Excluded { set: (!list).then(|| part.to_owned()), names: set.into_names() });
        }
    }
    let names = set.into_names();
    if names.is_empty() {
        bail!(NONE_LEFT);
    }
    Ok(Targets { names, excluded: out, read_stdin: reader.stdin.is_none() })
}

struct Reader<'a> {
    /// `None` once it was read.
    stdin: Option<&'a mut dyn Read>,
}

impl Reader<'_> {
    fn add(&mut self, text: &str, set: &mut NodeSet) -> anyhow::Result<()> {
        if text == "-" {
            let stdin = self.stdin.take().context("`-` can be given once: stdin has one list of targets")?;
            return add_list(stdin, "stdin", set);
        }
        if let Some(path) = text.strip_prefix('@') {
            let name = format!("`{}`", escaped(path.as_bytes()));
            let mut file = File::open(Path::new(path)).with_context(|| format!("cannot open the list {name}"))?;
            return add_list(&mut file, &name, set);
        }
        set.add(text).with_context(|| bad(text))
    }
}

/// Whether it is not a set, but says where sets are.
fn is_list(text: &str) -> bool {
    text == "-" || text.starts_with('@')
}

fn bad(text: &str) -> String {
    format!("bad target `{}`", escaped(text.as_bytes()))
}

/// Adds the sets of a list: separated by white space, `#` begins a comment.
fn add_list(source: &mut dyn Read, name: &str, set: &mut NodeSet) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    source.take(FILE_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read the list {name}"))?;
    if bytes.len() as u64 > FILE_MAX {
        bail!("the list {name} is larger than {} MiB", FILE_MAX >> 20);
    }
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let place = || format!("in {name}, line {}", number + 1);
        let line = std::str::from_utf8(line).with_context(place)?;
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split_whitespace() {
            if is_list(word) {
                bail!("{}: a list cannot name another list (`{}`)", place(), escaped(word.as_bytes()));
            }
            set.add(word).with_context(place)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn resolved(wanted: &[&str], excluded: &[&str], stdin: &str) -> anyhow::Result<Targets> {
        let own = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        resolve_with(&own(wanted), &own(excluded), &mut stdin.as_bytes())
    }

    #[test]
    fn lists_come_from_arguments_files_and_stdin() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"# racks\nweb[1-2] db1 # spare\n\n\tx,y\r\n").expect("written");
        let at = format!("@{}", file.path().display());
        let targets = resolved(&["a", &at, "-"], &["web2,y"], "s[1-2]\n#no\n").expect("well formed");
        assert_eq!(targets.names, ["a", "web1", "web2", "db1", "x", "y", "s1", "s2"]);
        assert!(targets.read_stdin);
        let out = |set: Option<&str>, names: &[&str]| Excluded {
            set: set.map(str::to_owned),
            names: names.iter().map(|name| name.to_string()).collect(),
        };
        assert_eq!(targets.excluded, [out(Some("web2"), &["web2"]), out(Some("y"), &["y"])]);
        let targets = resolved(&["a"], &["n[1-2]", &at], "").expect("well formed");
        let list = out(None, &["web1", "web2", "db1", "x", "y"]);
        assert_eq!(targets.excluded, [out(Some("n[1-2]"), &["n1", "n2"]), list]);
    }

    #[test]
    fn mistakes_say_where_they_are() {
        for (wanted, excluded, stdin, part) in [
            (&["web[1-"][..], &[][..], "", "bad target `web[1-`"),
            (&["-"], &[], "ok\nweb[3-1]\n", "in stdin, line 2"),
            (&["-", "-"], &[], "a", "once"),
            (&["-"], &[], "a\n@b", "line 2: a list cannot name another list"),
            (&["-"], &[], "", "no target is left"),
            (&["a"], &["b[1-"], "", "bad target `b[1-`"),
            (&["@/does/not/exist"], &[], "", "cannot open the list `/does/not/exist`"),
        ] {
            let message = format!("{:#}", resolved(wanted, excluded, stdin).expect_err("a mistake"));
            assert!(message.contains(part), "expected {part:?}, got {message:?}");
        }
    }

    #[test]
    fn the_page_for_users_says_how_many_names_and_how_long_a_list_may_be() {
        crate::usage::assert_says("a list of hosts", &crate::usage::size(FILE_MAX));
        let names = crate::nodeset::LIMIT;
        crate::usage::assert_says("targets of a run", &format!("{},{:03}", names / 1000, names % 1000));
    }
}
