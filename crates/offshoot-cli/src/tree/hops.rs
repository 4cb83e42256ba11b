//! Targets as paths of hops, each with the options of the command line that are for it. Pure.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use offshoot::Target;
use offshoot::escape::escaped;
use offshoot::methods::{Hop as Method, Local, Ssh};

use crate::hinted::Hinted;
use crate::options::Reach;
use crate::targets::{Excluded, NONE_LEFT};

/// A hop as the library takes it, with the user's options; its text for people.
pub(crate) type Hop = Method;

/// Parses target names: each becomes a path of hops. Names that mean the same target are one, and are left out when any
/// name of it is excluded. What is excluded and is no target is warned of: it may be meant for one that is worked on.
///
/// # Errors
/// The first name that cannot be understood, and when no target is left; nothing has happened then.
pub(crate) fn paths(
    names: Vec<String>,
    excluded: &[Excluded],
    reach: &Reach,
) -> anyhow::Result<(Vec<String>, Vec<Vec<Hop>>)> {
    let mut out = HashSet::new();
    for set in excluded {
        for name in &set.names {
            out.insert(target(name)?.to_string());
        }
    }
    let mut known = HashSet::new();
    let (mut kept, mut paths) = (Vec::new(), Vec::new());
    let patience = reach.answers.patience(names.len());
    for name in names {
        let target = target(&name)?;
        let text = target.to_string();
        let wanted = !out.contains(&text);
        if known.insert(text) && wanted {
            kept.push(name);
            paths.push(with_options(target.into_hops(), reach, patience)?);
        }
    }
    if kept.is_empty() {
        bail!(NONE_LEFT);
    }
    for Excluded { set, names } in excluded {
        let is_known = |name: &String| target(name).is_ok_and(|target| known.contains(&target.to_string()));
        if let Some(set) = set
            && !names.iter().any(is_known)
        {
            log::warn!("-x {}: none of the targets is that", escaped(set.as_bytes()));
        }
    }
    Ok((kept, paths))
}

fn target(name: &str) -> Result<Target, Hinted> {
    name.parse().map_err(|error: offshoot::TargetError| {
        Hinted::new(
            anyhow::Error::msg(error.to_string()),
            "a target is a path of hops: web1, ann@web1:2222, jump/web[1-9], local; see: offshoot --help",
        )
    })
}

/// The options that all ways to another user share, by the same names.
macro_rules! with_user_options {
    ($method:ident, $reach:ident, $patience:ident) => {{
        let timed = match $reach.connect_timeout {
            Some(limit) => $method.connect_timeout(limit).stage_timeout(limit),
            None => $method,
        };
        match &$reach.responder {
            Some(responder) => timed.responder(responder.clone()).answer_timeout($patience),
            None => timed,
        }
    }};
}

/// Applies the options of the command line to the hops of one target: times, secrets and `-o` to every one that they
/// mean something to, `-F` where ssh runs on this machine.
fn with_options(hops: Vec<Method>, reach: &Reach, patience: Duration) -> anyhow::Result<Vec<Hop>> {
    // A file of this machine means something only to an ssh that runs on it: behind local hops, not behind others.
    let mut here = true;
    let mut done = Vec::with_capacity(hops.len());
    for hop in hops {
        done.push(match hop {
            Method::Ssh(ssh) => {
                let config = reach.ssh_config.as_deref().filter(|_| here);
                here = false;
                Method::Ssh(ssh_with_options(ssh, config, reach, patience)?)
            }
            Method::Local(local) => Method::Local(local_with_options(local, reach)),
            Method::Sudo(sudo) => Method::Sudo(with_user_options!(sudo, reach, patience)),
            Method::Su(su) => Method::Su(with_user_options!(su, reach, patience)),
            Method::Doas(doas) => Method::Doas(with_user_options!(doas, reach, patience)),
            other => other,
        });
    }
    Ok(done)
}

fn ssh_with_options(mut ssh: Ssh, config: Option<&Path>, reach: &Reach, patience: Duration) -> anyhow::Result<Ssh> {
    if let Some(config) = config {
        ssh = ssh.config(config.to_str().context("the path of the ssh configuration is not UTF-8")?);
    }
    for option in &reach.ssh_options {
        ssh = ssh.option(option);
    }
    if let Some(limit) = reach.connect_timeout {
        // A stage may take all of it: who waits longer than the default for a host means it.
        ssh = ssh.connect_timeout(limit).stage_timeout(limit);
    }
    if let Some(responder) = &reach.responder {
        ssh = ssh.responder(responder.clone()).answer_timeout(patience);
    }
    offshoot::methods::Method::recipe(&ssh)?;
    Ok(ssh)
}

fn local_with_options(local: Local, reach: &Reach) -> Local {
    match reach.connect_timeout {
        Some(limit) => local.connect_timeout(limit).stage_timeout(limit),
        None => local,
    }
}

#[cfg(test)]
mod tests {
    use offshoot::methods::Method as _;
    use offshoot::recipe::Start;

    use super::*;

    /// The command lines of the ssh of each hop.
    fn ssh_of(target: &str, args: &[&str]) -> Vec<String> {
        let words = [&["offshoot", "tree"][..], args, &[target]].concat();
        let cli = <crate::args::Cli as clap::Parser>::parse_from(words);
        let crate::args::Command::Tree(tree) = cli.command else { panic!("expected tree") };
        let reach = Reach::new(&tree.reach, &cli.global).expect("options");
        let (_, paths) = paths(vec![target.to_owned()], &[], &reach).expect("a target");
        let argv = |hop: &Hop| match hop.recipe().expect("a recipe").start {
            Start::Shell { argv, .. } if argv[0] == "ssh" => Some(argv.join(" ")),
            _ => None,
        };
        paths[0].iter().filter_map(argv).collect()
    }

    fn reach() -> Reach {
        let cli = <crate::args::Cli as clap::Parser>::parse_from(["offshoot", "tree", "--password-command", "x", "a"]);
        let crate::args::Command::Tree(tree) = cli.command else { panic!("expected tree") };
        Reach::new(&tree.reach, &cli.global).expect("options")
    }

    fn own(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn what_is_excluded_is_left_out_whichever_way_it_is_written() {
        let left = |names: &[&str], out: &[&str]| {
            let out: Vec<Excluded> = out.iter().map(|name| Excluded { set: None, names: own(&[name]) }).collect();
            paths(own(names), &out, &reach()).map(|(names, _)| names.join(" "))
        };
        for (names, out, expected) in [
            (&["web1", "ssh:web3", "web3", "db1"][..], &["web3"][..], "web1 db1"),
            (&["web3:22", "a"], &["ssh:web3:022"], "a"),
            (&["j/web3", "web3"], &["j/ssh:web3", "nobody"], "web3"),
        ] {
            assert_eq!(left(names, out).expect("some are left"), expected);
        }
        let error = left(&["web3"], &["ssh:web3"]).expect_err("none is left");
        assert_eq!(error.to_string(), NONE_LEFT);
        let error = left(&["web3"], &["docker:web3"]).expect_err("no target");
        assert!(error.to_string().contains("docker:web3"), "{error}");
    }

    #[test]
    fn a_login_waits_for_an_answer_as_long_as_a_user_may_take_for_all_of_them() {
        let reach = reach();
        for names in [&["a/sudo:root"][..], &["a/su:x", "b/doas:root"]] {
            let (_, paths) = paths(own(names), &[], &reach).expect("targets");
            let expected = reach.answers.patience(names.len()).as_millis();
            for hop in paths.iter().flatten() {
                let prompts = hop.recipe().expect("a recipe").prompts.expect("it may ask");
                assert_eq!(u128::from(prompts.answer_ms), expected, "{hop}");
            }
        }
    }

    #[test]
    fn a_configuration_is_for_the_ssh_of_this_machine_and_options_are_for_each() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().to_str().expect("text");
        let options = ["--no-ask", "-F", path, "-o", "IdentitiesOnly=yes", "-o", "ProxyJump=none"];
        for (target, with_file) in
            [("a", [true].as_slice()), ("a/b/c", &[true, false, false]), ("local/sudo:x/a/local/b", &[true, false])]
        {
            let ssh = ssh_of(target, &options);
            let found: Vec<bool> = ssh.iter().map(|argv| argv.contains(&format!(" -F {path} "))).collect();
            assert_eq!(found, with_file, "{target}: {ssh:?}");
            for argv in &ssh {
                assert!(argv.contains(" -o IdentitiesOnly=yes -o ProxyJump=none "), "{target}: {argv}");
            }
        }
    }
}
