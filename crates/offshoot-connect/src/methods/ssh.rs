//! The method *ssh*: the system's own `ssh`, with the user's own configuration, keys and agent.
//!
//! Owns the options and the argument list. ssh's texts and what they mean are in [`hints`]. Any thread.

mod hints;
mod place;

use std::fmt;
use std::time::Duration;

use offshoot_wire::{Asks, Limits, Prompt, Prompts, Recipe, Secret, Start};

use super::shared::OptionsOf;
use super::{Hop, Method, OptionProblem, RecipeError};
use crate::answers::{Answers, Own, Responder};
use crate::deadlines::Deadlines;
use crate::names::{self, NameError};
use place::Place;

const OPTIONS: OptionsOf = OptionsOf("ssh");

/// What a link depends on, and what S18 asks for. It stands before everything else on the command line, since ssh keeps the
/// first value that it sees.
///
/// Beyond what makes the link a plain pipe: `ControlMaster=no` with `ControlPersist=no` uses a control socket that is
/// there and leaves none behind; `UpdateHostKeys=no`, so that nothing is written on the machine that logs in; `Tunnel=no`,
/// which `ClearAllForwardings` does not cover.
const FORCED: &[(&str, &str)] = &[
    ("RemoteCommand", "none"),
    ("RequestTTY", "no"),
    ("ClearAllForwardings", "yes"),
    ("PermitLocalCommand", "no"),
    ("ControlMaster", "no"),
    ("ControlPersist", "no"),
    ("EscapeChar", "none"),
    ("Tunnel", "no"),
    ("UpdateHostKeys", "no"),
];

/// Options that are forced by other means, or that would take the link away: an extra option must not name them.
const REFUSED: &[&str] = &[
    "DynamicForward",
    "ForkAfterAuthentication",
    "ForwardAgent",
    "ForwardX11",
    "ForwardX11Trusted",
    "LocalCommand",
    "LocalForward",
    "RemoteForward",
    "SessionType",
    "StdinNull",
];

/// What to do about the host's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KnownHosts {
    /// As the user's ssh configuration says. Its default is to ask about an unknown key, which a [responder](Ssh::responder)
    /// answers; where nobody is asked it is refused. A changed one is refused in any case.
    #[default]
    Check,
    /// Refuses unknown and changed keys, whatever the configuration says.
    Strict,
    /// Takes and remembers the key of a host that is not known yet; refuses a changed one. Writes to the known hosts of the
    /// machine that logs in.
    AcceptNew,
    /// Takes any key and remembers none. Whoever sits on the network can read and change everything.
    Off,
}

/// A context on another machine, through the system's `ssh`.
///
/// The user's `ssh_config`, agent, `ProxyJump`, `Match`, certificates and FIDO keys apply, on the machine that runs the
/// recipe: behind a hop those are the hop's. Agent, X11 and port forwarding, local commands and a terminal are off, whatever
/// the configuration says.
///
/// Keys from files and from an agent work at once. Whether ssh may ask for more depends on what is there to answer: with a
/// [password](Self::password), a [passphrase](Self::passphrase) or a [responder](Self::responder) it gets a terminal for its
/// questions alone, and each is answered once. Without any of them it runs in *batch mode* (see [`batch`](Self::batch)): a
/// question, also a jump host's, ends the connect at once, with an error that says so.
///
/// A password goes to the account that it is for and to no other: ssh names the account in its prompt, and a jump host's
/// prompt names the jump host's. (Clients before OpenSSH 8.5 do not name it in keyboard-interactive prompts: there a
/// jump host that asks so gets the target's password.)
///
/// OpenSSH 7.6 or newer is needed.
///
/// # Examples
///
/// ```
/// use offshoot_connect::methods::{KnownHosts, Method, Ssh};
/// use std::time::Duration;
/// let ssh = Ssh::to("web1")
///     .user("ann")
///     .identity("~/.ssh/ops")
///     .known_hosts(KnownHosts::AcceptNew)
///     .option("ProxyJump=bastion")
///     .connect_timeout(Duration::from_secs(60));
/// assert_eq!(ssh.recipe()?.default_name(), "ssh:ann@web1");
/// # Ok::<(), offshoot_connect::methods::RecipeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ssh {
    place: Result<Place, RecipeError>,
    identities: Vec<String>,
    config: Option<String>,
    extra: Vec<String>,
    known_hosts: KnownHosts,
    keepalive: Option<Duration>,
    compression: bool,
    batch: bool,
    program: String,
    triple: Option<String>,
    deadlines: Deadlines,
    answers: Answers,
}

impl Ssh {
    /// To `[USER@]HOST[:PORT]`; an IPv6 address in brackets. The host may be an alias of the ssh configuration. What is
    /// wrong with the text is told by [`recipe`](Method::recipe).
    pub fn to(place: impl AsRef<str>) -> Ssh {
        Ssh {
            place: Place::parse(place.as_ref()),
            identities: Vec::new(),
            config: None,
            extra: Vec::new(),
            known_hosts: KnownHosts::default(),
            keepalive: None,
            compression: false,
            batch: true,
            program: "ssh".to_owned(),
            triple: None,
            deadlines: Deadlines::default(),
            answers: Answers::none(),
        }
    }

    /// The user to log in as; without it the configuration's, or the one who logs in.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Ssh {
        if let Ok(place) = &mut self.place {
            place.user = Some(user.into());
        }
        self
    }

    /// The port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Ssh {
        if let Ok(place) = &mut self.place {
            place.port = Some(port);
        }
        self
    }

    /// A private key file to offer, on the machine that logs in; `~` is expanded there. May be repeated; at most 16.
    #[must_use]
    pub fn identity(mut self, path: impl Into<String>) -> Ssh {
        self.identities.push(path.into());
        self
    }

    /// The configuration file to use instead of the user's and the system's, on the machine that logs in.
    #[must_use]
    pub fn config(mut self, path: impl Into<String>) -> Ssh {
        self.config = Some(path.into());
        self
    }

    /// A further option as behind `-o`: `KEY=VALUE`. It goes before the configuration and before this builder's defaults, but
    /// options that the link depends on, and forwarding, are refused. May be repeated; at most 64.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Ssh {
        self.extra.push(option.into());
        self
    }

    /// The password of the account that is logged in to. It leaves this process when ssh asks for it, and is tried once.
    /// From the first question on this process leaves no core dump, and others of its user cannot trace it.
    ///
    /// ssh must name the host in its prompt as it is given here, or in an option `HostName=…` or `HostKeyAlias=…` here: where an alias of the
    /// ssh configuration has another name, use [`password_of`](Self::password_of).
    #[must_use]
    pub fn password(mut self, secret: impl Into<Secret>) -> Ssh {
        self.answers.set_password(secret);
        self
    }

    /// The password of an account that ssh asks for on the way, as its prompt names it: `user@host`, such as a jump host's.
    /// May be repeated.
    #[must_use]
    pub fn password_of(mut self, account: impl Into<String>, secret: impl Into<Secret>) -> Ssh {
        self.answers.set_password_of(account, secret);
        self
    }

    /// The passphrase of a key that asks for one, on the machine that logs in.
    #[must_use]
    pub fn passphrase(mut self, secret: impl Into<Secret>) -> Ssh {
        self.answers.set_passphrase(secret);
        self
    }

    /// Who answers everything else that ssh asks: other passwords, one-time codes, and with [`KnownHosts::Check`]
    /// whether an unknown host key is to be trusted (`yes`, or the fingerprint; the question has it).
    #[must_use]
    pub fn responder(mut self, responder: Responder) -> Ssh {
        self.answers.set_responder(responder);
        self
    }

    /// How long an answer may take; 2 minutes by default, which is what servers allow. Meanwhile no other limit runs.
    #[must_use]
    pub fn answer_timeout(mut self, limit: Duration) -> Ssh {
        self.deadlines.set_answer(limit);
        self
    }

    /// What to do about host keys.
    #[must_use]
    pub fn known_hosts(mut self, policy: KnownHosts) -> Ssh {
        self.known_hosts = policy;
        self
    }

    /// Lets ssh probe the connection itself when it was silent for so long, and give up after three probes without an
    /// answer. Whole seconds, at least one. Off by default: the link has a heartbeat of its own.
    #[must_use]
    pub fn keepalive(mut self, interval: Duration) -> Ssh {
        self.keepalive = Some(interval);
        self
    }

    /// Whether ssh compresses. Off by default: the agent that is sent is compressed already.
    #[must_use]
    pub fn compression(mut self, on: bool) -> Ssh {
        self.compression = on;
        self
    }

    /// How long the whole connect may take; 30 s by default. ssh itself gives up on the network a second before the
    /// shorter of this and the [stage's](Self::stage_timeout) limit.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Ssh {
        self.deadlines.set_total(limit);
        self
    }

    /// How long a stage of the connect may be silent; 10 s by default.
    #[must_use]
    pub fn stage_timeout(mut self, limit: Duration) -> Ssh {
        self.deadlines.set_stage(limit);
        self
    }

    /// Whether ssh runs with `BatchMode=yes` where nothing is there to answer its questions; it does by default. Without it ssh has still nobody to ask (it gets no
    /// terminal and no askpass program), and sends empty passwords instead, which costs seconds and may get the address
    /// banned: turn it off only for servers that let an account in without a password.
    #[must_use]
    pub fn batch(mut self, on: bool) -> Ssh {
        self.batch = on;
        self
    }

    /// The ssh program: a name to look up in `PATH`, or a path. `ssh` by default.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Ssh {
        self.program = program.into();
        self
    }

    /// The target's triple, where it is known: saves a round trip. It is checked on the target before anything is run.
    #[must_use]
    pub fn triple(mut self, triple: impl Into<String>) -> Ssh {
        self.triple = Some(triple.into());
        self
    }

    /// Whether the place alone would be read as something else than an ssh host.
    pub(super) fn needs_method(&self) -> bool {
        self.place.as_ref().is_ok_and(|place| place.user.is_none() && super::is_method(&place.host))
    }

    /// The value of a further option; ssh takes the first.
    fn given(&self, key: &str) -> Option<String> {
        self.extra.iter().find_map(|extra| {
            let (name, value) = extra.split_once(['=', ' '])?;
            name.eq_ignore_ascii_case(key).then(|| value.trim_start_matches(['=', ' ']).to_owned())
        })
    }

    /// The argument list, with the probe's place at its end.
    fn argv(&self, place: &Place) -> Result<Vec<String>, RecipeError> {
        let mut argv: Vec<String> = Vec::with_capacity(64);
        OPTIONS.checked("program", &self.program, names::value(&self.program))?;
        argv.extend([self.program.clone(), "-T".into(), "-a".into(), "-x".into()]);
        let option = |argv: &mut Vec<String>, key: &str, value: &str| {
            argv.extend(["-o".to_owned(), format!("{key}={value}")]);
        };
        for (key, value) in FORCED {
            option(&mut argv, key, value);
        }
        if let Some(config) = &self.config {
            OPTIONS.checked("configuration file", config, names::value(config))?;
            argv.extend(["-F".into(), config.clone()]);
        }
        if let Some(user) = &place.user {
            argv.extend(["-l".into(), user.clone()]);
        }
        if let Some(port) = place.port {
            argv.extend(["-p".into(), port.to_string()]);
        }
        at_most("identities", self.identities.len(), 16)?;
        for path in &self.identities {
            OPTIONS.checked("identity", path, names::value(path))?;
            argv.extend(["-i".into(), path.clone()]);
        }
        at_most("options", self.extra.len(), 64)?;
        for extra in &self.extra {
            extra_option(extra)?;
            argv.extend(["-o".into(), extra.clone()]);
        }
        match self.known_hosts {
            KnownHosts::Check => {}
            KnownHosts::Strict => option(&mut argv, "StrictHostKeyChecking", "yes"),
            KnownHosts::AcceptNew => option(&mut argv, "StrictHostKeyChecking", "accept-new"),
            KnownHosts::Off => {
                option(&mut argv, "StrictHostKeyChecking", "no");
                option(&mut argv, "UserKnownHostsFile", "/dev/null");
                option(&mut argv, "GlobalKnownHostsFile", "/dev/null");
            }
        }
        option(&mut argv, "ConnectTimeout", &self.deadlines.tool_seconds().to_string());
        option(&mut argv, "Compression", if self.compression { "yes" } else { "no" });
        if !self.answers.is_none() {
            // A wrong secret is not tried again (S19), and what is right asks once.
            option(&mut argv, "BatchMode", "no");
            option(&mut argv, "NumberOfPasswordPrompts", "1");
        } else if self.batch {
            option(&mut argv, "BatchMode", "yes");
        }
        if let Some(interval) = self.keepalive {
            option(&mut argv, "ServerAliveInterval", &interval.as_secs().max(1).to_string());
            option(&mut argv, "ServerAliveCountMax", "3");
        }
        // A configuration with `LogLevel QUIET` would hide the texts that errors are told from.
        option(&mut argv, "LogLevel", "INFO");
        argv.extend(["--".into(), place.host.clone(), Start::PROBE.into()]);
        Ok(argv)
    }
}

/// The place as it was given: `[USER@]HOST[:PORT]`.
impl fmt::Display for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Ok(place) => place.fmt(f),
            Err(error) => f.write_str(&super::shown(&error.value)),
        }
    }
}

impl Method for Ssh {
    fn recipe(&self) -> Result<Recipe, RecipeError> {
        let place = self.place.as_ref().map_err(Clone::clone)?;
        place.check()?;
        let target = place.to_string();
        // The context's name, `ssh:` and this, has to fit a hello.
        let most = Limits::NAME - "ssh:".len();
        if target.len() > most {
            return Err(OPTIONS.wrong("host", &target, NameError::TooLong(target.len()).into()));
        }
        if let Some(triple) = &self.triple {
            OPTIONS.checked("triple", triple, names::host(triple))?;
        }
        // No LC_ALL: ssh has no translations, and would pass it on to the target (Debian's `SendEnv LANG LC_*`).
        let env = vec![("SSH_ASKPASS_REQUIRE".to_owned(), "never".to_owned())];
        let mut recipe = Recipe::new("ssh", target, Start::Shell { argv: self.argv(place)?, env });
        recipe.hints = hints::all(place);
        OPTIONS.typable(&self.answers)?;
        if self.batch || !self.answers.is_none() {
            // Also where nobody answers: the ssh that leads to a jump host learns nothing of our options. Without a
            // terminal it would send empty passwords there; on one its question is seen, and ends it.
            recipe.prompts = Some(prompts(&self.deadlines));
        }
        recipe.triple.clone_from(&self.triple);
        Ok(self.deadlines.apply(recipe))
    }

    fn answers(&self) -> Answers {
        let Ok(place) = &self.place else { return Answers::none() };
        if self.answers.is_none() {
            return Answers::none();
        }
        let user = place.user.clone().or_else(|| self.given("User"));
        // ssh names the alias of the key in its prompt, where there is one.
        let other = self.given("HostKeyAlias").or_else(|| self.given("HostName"));
        let hosts = [place.host.clone()].into_iter().chain(other).collect();
        self.answers.of(Own::Login { user, hosts })
    }
}

/// What ssh asks, and how it names whose secret it wants. What a server makes ssh ask stands behind `(user@host) `, so it
/// is looked for first.
const PROMPTS: &[(&str, Asks)] = &[
    ("^The authenticity of host '{}'*(yes/no*)?", Asks::HostKey),
    ("*continue connecting (yes/no*)?", Asks::HostKey),
    ("Please type 'yes'*:", Asks::HostKey),
    ("^({}) *ew *assword*:", Asks::Other),
    ("^({}) *urrent*assword*:", Asks::Other),
    // A code by another name, which the account's password is not.
    ("^({}) *ne*ime*assword*:", Asks::Other),
    ("^({}) *assword*:", Asks::Password),
    ("^({}) *", Asks::Other),
    ("{}'s password:", Asks::Password),
    ("Enter passphrase for key '{}':", Asks::Passphrase),
    ("Enter passphrase for {}:", Asks::Passphrase),
    ("Enter PIN for {}:", Asks::Passphrase),
    ("Password:", Asks::Password),
];

fn prompts(deadlines: &Deadlines) -> Prompts {
    let known = PROMPTS.iter().map(|&(text, asks)| Prompt { text: text.to_owned(), asks }).collect();
    Prompts { known, terminal: true, answer_ms: deadlines.answer }
}

impl TryFrom<Ssh> for Recipe {
    type Error = RecipeError;

    fn try_from(ssh: Ssh) -> Result<Recipe, RecipeError> {
        ssh.recipe()
    }
}

pub(super) fn hop(place: Option<&str>) -> Result<Hop, RecipeError> {
    let place = Place::parse(place.unwrap_or_default())?;
    place.check()?;
    let mut ssh = Ssh::to("");
    ssh.place = Ok(place);
    Ok(Hop::Ssh(ssh))
}

fn at_most(option: &'static str, count: usize, most: usize) -> Result<(), RecipeError> {
    if count > most { Err(OPTIONS.wrong(option, &count.to_string(), OptionProblem::TooMany(most))) } else { Ok(()) }
}

/// An `-o` option of the user's: a key and a value, nothing that undoes what is forced.
fn extra_option(option: &str) -> Result<(), RecipeError> {
    OPTIONS.checked("option", option, names::value(option))?;
    // ssh takes `KEY=VALUE` and `KEY VALUE`.
    let key = option.split(['=', ' ']).next().unwrap_or_default();
    let value = option[key.len()..].trim_start_matches(['=', ' ']);
    if key.is_empty() || value.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(OPTIONS.wrong("option", option, OptionProblem::KeyValue));
    }
    let forced = FORCED.iter().map(|(forced, _)| forced);
    if forced.chain(REFUSED).any(|forced| forced.eq_ignore_ascii_case(key)) {
        return Err(OPTIONS.wrong("option", option, OptionProblem::Forced));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Scanner;

    #[test]
    fn only_what_is_called_a_password_and_nothing_else_is_answered_by_one() {
        let asked = [
            ("ann@web1's password: ", Asks::Password),
            ("(ann@web1) Password: ", Asks::Password),
            ("(ann@web1) ann's Password for web1: ", Asks::Password),
            ("(ann@web1) One-time password (OATH) for `ann': ", Asks::Other),
            ("(ann@web1) One-Time-Password: ", Asks::Other),
            ("(ann@web1) Onetime Password: ", Asks::Other),
            ("(ann@web1) New password: ", Asks::Other),
            ("(ann@web1) Current password: ", Asks::Other),
            ("(ann@web1) Verification code: ", Asks::Other),
            ("Enter passphrase for key '/home/ann/.ssh/id': ", Asks::Passphrase),
        ];
        for (text, asks) in asked {
            let mut scanner = Scanner::new(&prompts(&Deadlines::default()), "TOKEN");
            scanner.push(text.as_bytes());
            assert_eq!(scanner.found().map(|found| found.asks), Some(asks), "{text}");
        }
    }
}
