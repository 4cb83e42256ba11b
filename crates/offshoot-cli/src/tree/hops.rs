//! Targets as paths of hops, each with the options of the command line that are for it. Pure.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use offshoot::Target;
use offshoot::methods::{Hop as Method, Local, Ssh};

use crate::hinted::Hinted;
use crate::options::Reach;

/// A hop as the library takes it, with the user's options; its text for people.
pub(crate) type Hop = Method;

/// Parses target names: each becomes a path of hops. Names that mean the same target are one.
///
/// # Errors
/// The first name that cannot be understood; nothing has happened then.
pub(crate) fn paths(names: Vec<String>, reach: &Reach) -> anyhow::Result<(Vec<String>, Vec<Vec<Hop>>)> {
    let mut known = std::collections::HashSet::new();
    let (mut kept, mut paths) = (Vec::new(), Vec::new());
    let patience = reach.answers.patience(names.len());
    for name in names {
        let target: Target = name.parse().map_err(|error: offshoot::TargetError| {
            Hinted::new(
                anyhow::Error::msg(error.to_string()),
                "a target is a path of hops: web1, dmw@web1:2222, jump/web[1-9], local; see: offshoot --help",
            )
        })?;
        if known.insert(target.to_string()) {
            kept.push(name);
            paths.push(with_options(target.into_hops(), reach, patience)?);
        }
    }
    Ok((kept, paths))
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
        let (_, paths) = paths(vec![target.to_owned()], &reach).expect("a target");
        let argv = |hop: &Hop| match hop.recipe().expect("a recipe").start {
            Start::Shell { argv, .. } if argv[0] == "ssh" => Some(argv.join(" ")),
            _ => None,
        };
        paths[0].iter().filter_map(argv).collect()
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
