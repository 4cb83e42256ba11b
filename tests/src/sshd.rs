//! Private sshds: own host key, own authorized key, own configuration, on an address and port of their own; with their sessions they end with this value.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bounded::{self, find_program};
use crate::host::{Host, Profile, listens};
use crate::not_run::Unavailable;
use crate::process::{self, Process, Signal};
use crate::tag::{Tag, VARIABLE};

/// A running sshd.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
    /// The listener itself; `child` is nsenter when it runs in a host.
    listener: Process,
    log: PathBuf,
    address: Ipv4Addr,
    port: u16,
    public_key: String,
    /// On the machine itself daemons that a session started have no host to end with: they are known by this tag.
    tag: Option<String>,
}

/// Where an sshd runs.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In a host, on port 22 of an address that the host's network has.
    Host(&'a Host, Ipv4Addr),
    /// On the machine itself, on a free port of 127.0.0.1, as whoever runs the test.
    Machine,
}

/// Makes a key pair without a passphrase; the public half's text.
///
/// # Errors
///
/// When ssh-keygen is missing or fails.
pub fn make_key(path: &Path) -> Result<String, Unavailable> {
    make_key_with(path, "")
}

/// The same with a passphrase.
///
/// # Errors
///
/// When ssh-keygen is missing or fails.
pub fn make_key_with(path: &Path, passphrase: &str) -> Result<String, Unavailable> {
    let done = bounded::run(
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f"]).arg(path),
        None,
        Duration::from_secs(20),
    );
    if done.code != Some(0) {
        return Err(Unavailable::because(format!("ssh-keygen: {}", done.err().trim())));
    }
    let public = fs::read_to_string(format!("{}.pub", path.display())).map_err(io_error(path))?;
    Ok(public.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

pub(crate) fn io_error(path: &Path) -> impl Fn(io::Error) -> Unavailable + '_ {
    move |error| Unavailable::because(format!("{}: {error}", path.display()))
}

/// A port of 127.0.0.1 on which nothing listens now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .unwrap_or(0)
}

impl Sshd {
    /// Starts one and waits until it listens. `folder` holds `authorized_keys` already and gets the sshd's own files, all named after `name`; `seen_as` is how
    /// the place where it runs sees that folder. `more` is added to the configuration, so a `Match` block may come last in it.
    ///
    /// # Errors
    ///
    /// When sshd is missing, or does not come up.
    pub fn start(
        tag: &Tag,
        name: &str,
        place: Place<'_>,
        folder: &Path,
        seen_as: &Path,
        more: &[String],
    ) -> Result<Sshd, Unavailable> {
        let program = find_program("sshd").ok_or_else(|| Unavailable::because("sshd is not installed"))?;
        let (address, port) = match place {
            Place::Host(_, address) => (address, 22),
            Place::Machine => (Ipv4Addr::LOCALHOST, free_port()),
        };
        let key = folder.join(format!("{name}.hostkey"));
        let public_key = make_key(&key)?;
        let seen = seen_as.display();
        let mut lines = vec![
            format!("Port {port}"),
            format!("ListenAddress {address}"),
            format!("HostKey {seen}/{name}.hostkey"),
            format!("AuthorizedKeysFile {seen}/authorized_keys"),
            format!("SetEnv {VARIABLE}={}", tag.name()),
            "PidFile none".into(),
            "UsePAM no".into(),
            "StrictModes no".into(),
            "PermitRootLogin yes".into(),
            "PasswordAuthentication no".into(),
            "KbdInteractiveAuthentication no".into(),
            "PrintMotd no".into(),
            "UseDNS no".into(),
            "MaxStartups 500".into(),
            "MaxSessions 500".into(),
        ];
        lines.retain(|line| {
            let keyword = line.split(' ').next();
            !more.iter().any(|other| other.split(' ').next() == keyword)
        });
        lines.extend_from_slice(more);
        let config = folder.join(format!("{name}.sshd_config"));
        fs::write(&config, lines.join("\n") + "\n").map_err(io_error(&config))?;
        let config_seen = seen_as.join(format!("{name}.sshd_config"));

        let mut command = match place {
            Place::Host(host, _) if host.profiles().contains(&Profile::NoMemfd) => {
                // The filter is set outside, by a perl that the host itself need not have.
                let inside = host.command(&program);
                let mut command = Command::new(find_program("perl").unwrap_or_else(|| "perl".into()));
                command.arg(crate::host::scripts().join("no-memfd.pl")).arg(inside.get_program());
                command.args(inside.get_args()).env_clear();
                command.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
                command
            }
            Place::Host(host, _) => host.command(&program),
            Place::Machine => Command::new(&program),
        };
        let log = folder.join(format!("{name}.sshd.log"));
        let errors = fs::File::create(&log).map_err(io_error(&log))?;
        let mut child = command
            .args(["-D", "-e", "-f"])
            .arg(&config_seen)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(|error| Unavailable::because(format!("sshd: {error}")))?;
        let pid = child.id() as i32;
        let up = match place {
            Place::Host(host, _) => host.await_listener(address, port, Duration::from_secs(20)),
            Place::Machine => {
                bounded::eventually(Duration::from_secs(20), || listens("/proc/net/tcp", Some(address), port))
            }
        };
        let listener = match place {
            Place::Host(host, _) => host.inside(pid),
            Place::Machine => Process::read(pid),
        };
        let (true, Some(listener)) = (up, listener) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Unavailable::because(format!(
                "sshd {name} does not listen: {}",
                fs::read_to_string(&log).unwrap_or_default().trim()
            )));
        };
        match place {
            Place::Host(host, _) => host.watched().exempt(listener.pid),
            Place::Machine => tag.watch_below(listener.pid),
        }
        let tag = matches!(place, Place::Machine).then(|| tag.name().to_string());
        Ok(Sshd { child, listener, log, address, port, public_key, tag })
    }

    /// Where it listens.
    pub fn address(&self) -> (Ipv4Addr, u16) {
        (self.address, self.port)
    }

    /// The process that listens.
    pub fn pid(&self) -> i32 {
        self.listener.pid
    }

    /// Its public host key, as in a known_hosts line.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its sessions: everything below the listener.
    pub fn sessions(&self) -> Vec<Process> {
        process::descendants(self.listener.pid).into_iter().filter(Process::is_live).collect()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // The listener first, so that nobody new comes in; its sessions do not end with it.
        let sessions = self.sessions();
        self.listener.signal(Signal::KILL);
        for session in sessions {
            session.signal(Signal::KILL);
        }
        if let Some(tag) = &self.tag {
            for process in process::all().into_iter().filter(|process| process.has_env(VARIABLE, tag)) {
                process.signal(Signal::KILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
