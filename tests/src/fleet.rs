//! h1, h2, h3: several sshds, the ssh_config that knows them all, and a place to run the command under test.
//!
//! With root and namespaces each is a host of its own with its own address, and the command runs in one more host, `control`. Otherwise they are sshds on
//! ports of 127.0.0.1 of the machine itself. Either way the one ssh_config is found under the same path from everywhere. In hosts, every account's own
//! `~/.ssh/config` includes it, so a login from there to the next hop works as on any jump host; on the machine itself tests leave the user's `~/.ssh` alone,
//! and there is one hop only.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;

use crate::accounts::Accounts;
use crate::bounded::{self, Finished, find_program};
use crate::host::{self, Host, Network, Profile};
use crate::not_run::Unavailable;
use crate::process::Process;
use crate::product::Offshoot;
use crate::relay::Relay;
use crate::servers::{Server, Temper};
use crate::sshd::{Place, Sshd, io_error, make_key};
use crate::tag::{Tag, VARIABLE};
use crate::terminal::Terminal;

/// A host wanted.
#[derive(Debug, Clone)]
pub struct Peer {
    name: String,
    profiles: Vec<Profile>,
    sshd: Vec<String>,
}

impl Peer {
    /// A plain one, whose name is its alias in the ssh_config.
    pub fn new(name: &str) -> Peer {
        Peer { name: name.to_string(), profiles: Vec::new(), sshd: Vec::new() }
    }

    /// With something wrong with it; needs namespaces.
    pub fn profile(mut self, profile: Profile) -> Peer {
        self.profiles.push(profile);
        self
    }

    /// With one more line of sshd_config, in place of ours with the same keyword.
    pub fn sshd(mut self, line: &str) -> Peer {
        self.sshd.push(line.to_string());
        self
    }
}

#[derive(Debug)]
struct Member {
    name: String,
    // Dropped in this order: sshd and its sessions, then the host.
    sshd: Sshd,
    host: Option<Host>,
}

/// The running hosts.
#[derive(Debug)]
pub struct Fleet {
    tag_name: String,
    members: Vec<Member>,
    control: Option<Host>,
    network: Option<Network>,
    aliases: Mutex<Vec<String>>,
    seen_as: PathBuf,
    accounts: Accounts,
    folder: TempDir,
}

impl Fleet {
    /// Starts the hosts, side by side, and waits until each answers. Their processes and files count as the tag's from then on.
    ///
    /// # Errors
    ///
    /// When the machine cannot have them: something is not installed or not allowed.
    ///
    /// # Panics
    ///
    /// When it can, and they do not come up all the same: a broken fixture must not look like a poor machine.
    pub fn start(tag: &Tag, peers: &[Peer]) -> Result<Fleet, Unavailable> {
        Fleet::available(peers).inspect_err(|_| tag.excuse())?;
        match Fleet::bring_up(tag, peers) {
            Ok(fleet) => Ok(fleet),
            Err(reason) => panic!("the fleet does not come up: {reason}"),
        }
    }

    fn available(peers: &[Peer]) -> Result<(), Unavailable> {
        for program in ["ssh", "ssh-keygen", "sshd"] {
            if find_program(program).is_none() {
                return Err(Unavailable::because(format!("{program} is not installed")));
            }
        }
        let Err(reason) = host::allowed() else {
            return peers.iter().try_for_each(|peer| host::available(&peer.profiles));
        };
        if let Some(peer) = peers.iter().find(|peer| !peer.profiles.is_empty()) {
            return Err(Unavailable::because(format!("host {} needs namespaces: {reason}", peer.name)));
        }
        if rustix::process::geteuid().is_root() && !Path::new("/run/sshd").is_dir() {
            return Err(Unavailable::because(format!("sshd as root needs /run/sshd, or namespaces: {reason}")));
        }
        Ok(())
    }

    fn bring_up(tag: &Tag, peers: &[Peer]) -> Result<Fleet, Unavailable> {
        let spaces = host::allowed();
        let folder = tempfile::Builder::new()
            .prefix("peers-")
            .tempdir()
            .map_err(|error| Unavailable::because(format!("no temporary folder: {error}")))?;
        // Every account of every host reads the configuration in it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(io_error(folder.path()))?;
        let public = make_key(&folder.path().join("id"))?;
        let keys = folder.path().join("authorized_keys");
        fs::write(&keys, public + "\n").map_err(io_error(&keys))?;

        let accounts = Accounts::new()?;
        let mut fleet = match spaces {
            Ok(()) => {
                let network = Network::start()?;
                let control = Host::start("control", folder.path(), &network, &[])?;
                let seen_as = PathBuf::from("/run/fixture");
                Fleet {
                    tag_name: tag.name().into(),
                    members: Vec::new(),
                    control: Some(control),
                    network: Some(network),
                    aliases: Mutex::default(),
                    seen_as,
                    accounts,
                    folder,
                }
            }
            Err(_) => {
                let seen_as = folder.path().to_path_buf();
                Fleet {
                    tag_name: tag.name().into(),
                    members: Vec::new(),
                    control: None,
                    network: None,
                    aliases: Mutex::default(),
                    seen_as,
                    accounts,
                    folder,
                }
            }
        };
        let members = std::thread::scope(|scope| {
            let starting: Vec<_> = peers
                .iter()
                .enumerate()
                .map(|(index, peer)| {
                    (
                        peer,
                        scope.spawn({
                            let fleet = &fleet;
                            move || fleet.start_member(tag, index, peer)
                        }),
                    )
                })
                .collect();
            starting
                .into_iter()
                .map(|(peer, thread)| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(Unavailable::because(format!("starting {} panicked", peer.name))))
                })
                .collect::<Result<Vec<_>, _>>()
        })?;
        fleet.members = members;
        fleet.write_config()?;
        for host in fleet.members.iter().filter_map(|member| member.host.as_ref()).chain(&fleet.control) {
            host.watched().accept_files();
            tag.watch(host.watched());
        }
        Ok(fleet)
    }

    fn start_member(&self, tag: &Tag, index: usize, peer: &Peer) -> Result<Member, Unavailable> {
        let Some(network) = &self.network else {
            let sshd = Sshd::start(tag, &peer.name, Place::Machine, self.folder.path(), &self.seen_as, &peer.sshd)?;
            return Ok(Member { name: peer.name.clone(), sshd, host: None });
        };
        let number = u8::try_from(index + 1).map_err(|_| Unavailable::because("more than 255 hosts"))?;
        let address = Ipv4Addr::new(10, 98, number, 1);
        network.add_address(address)?;
        let passwords = self.folder.path().join(format!("hosts/{}.passwords", peer.name));
        if peer.profiles.contains(&Profile::Accounts) {
            self.accounts.write(&peer.name, &passwords)?;
        }
        let host = Host::start(&peer.name, self.folder.path(), network, &peer.profiles);
        let _ = fs::remove_file(&passwords);
        let host = host?;
        let mut more = peer.sshd.clone();
        if peer.profiles.contains(&Profile::Busybox) {
            more.extend(["Match User busybox".into(), "ChrootDirectory /srv/busybox".into()]);
        }
        more.extend(peer.profiles.iter().find_map(|profile| match profile {
            Profile::Foreign(machine) => {
                Some(format!("ForceCommand exec sh {} {machine}", host::scripts().join("foreign.sh").display()))
            }
            _ => None,
        }));
        let sshd = Sshd::start(tag, &peer.name, Place::Host(&host, address), self.folder.path(), &self.seen_as, &more)?;
        if peer.profiles.contains(&Profile::NoProc) {
            host.unmount_proc()?;
        }
        Ok(Member { name: peer.name.clone(), sshd, host: Some(host) })
    }

    /// The passwords of the hosts with [`Profile::Accounts`].
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    fn write_config(&self) -> Result<(), Unavailable> {
        let seen = self.seen_as.display();
        let mut known = String::new();
        let mut config = String::new();
        for member in &self.members {
            let (address, port) = member.sshd.address();
            // The alias is the name under which the key is known, so the same line serves every way there.
            known += &format!("{} {}\n", member.name, member.sshd.public_key());
            config +=
                &format!("Host {}\n  HostName {address}\n  Port {port}\n  HostKeyAlias {}\n", member.name, member.name);
        }
        for alias in self.aliases.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
            config += alias;
        }
        config += &format!(
            "Host *\n  IdentityFile {seen}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {seen}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        );
        if self.control.is_some() {
            config += "  User root\n";
        }
        for (name, text) in [("known_hosts", known), ("ssh_config", config)] {
            let path = self.folder.path().join(name);
            fs::write(&path, text).map_err(io_error(&path))?;
        }
        Ok(())
    }

    /// Adds lines to the ssh_config, before its defaults: one more alias, for instance.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn add_to_config(&self, lines: &str) -> Result<(), Unavailable> {
        self.aliases.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(format!("{}\n", lines.trim_end()));
        self.write_config()
    }

    /// The ssh_config, under the path that it has on every hop.
    pub fn config(&self) -> PathBuf {
        self.seen_as.join("ssh_config")
    }

    /// The folder that every host sees as `/run/fixture`; where the test puts files that the hosts are to read.
    pub fn shared(&self) -> &Path {
        self.folder.path()
    }

    /// How the hosts see [`Fleet::shared`].
    pub fn shared_as_seen(&self) -> &Path {
        &self.seen_as
    }

    /// Whether each is a host of its own, not a port of this machine.
    pub fn has_hosts(&self) -> bool {
        self.control.is_some()
    }

    /// The host with that name; `None` on a machine without namespaces.
    pub fn host(&self, name: &str) -> Option<&Host> {
        if name == "control" {
            return self.control.as_ref();
        }
        self.members.iter().find(|member| member.name == name)?.host.as_ref()
    }

    /// The sshd with that name.
    ///
    /// # Panics
    ///
    /// When the fleet was started without it.
    pub fn sshd(&self, name: &str) -> &Sshd {
        self.members
            .iter()
            .find(|member| member.name == name)
            .map(|member| &member.sshd)
            .unwrap_or_else(|| panic!("the fleet has no {name}"))
    }

    /// A command where the command under test runs too, marked with the test's tag.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &self.control {
            Some(control) => control.command(program),
            None => Command::new(program),
        };
        command.env(VARIABLE, &self.tag_name);
        command
    }

    /// A command where the command under test runs too, on a terminal of its own, marked with the test's tag; for [`crate::Terminal`].
    pub fn on_terminal(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command(host::fixture_program());
        command.arg("terminal").arg(program);
        command
    }

    /// Runs a shell script on a host, not through ssh: to look, or to prepare.
    ///
    /// # Panics
    ///
    /// When it takes more than 20 seconds.
    pub fn on(&self, name: &str, script: &str) -> Finished {
        let mut command = match self.host(name) {
            Some(host) => host.command("/bin/sh"),
            None => Command::new("/bin/sh"),
        };
        let done = bounded::run(command.args(["-c", script]), None, Duration::from_secs(20));
        assert!(!done.overdue, "{script} on {name} hangs\n{done}");
        done
    }

    /// The system's own ssh with the fleet's configuration, to compare with.
    pub fn ssh(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("ssh");
        command.arg("-F").arg(self.config()).args(arguments);
        command
    }

    /// The command under test, run in the control host with `-F` the fleet's configuration.
    pub fn offshoot<'a>(&self, tag: &'a Tag, arguments: &[&str]) -> Offshoot<'a> {
        crate::product::agents();
        Offshoot::in_place(
            tag,
            self.command(crate::product::binary()),
            self.control.as_ref().map(|control| control.watched().clone()),
            arguments,
            Some(&self.config()),
        )
    }

    /// An example of the facade, run in the control host.
    pub fn example<'a>(&self, tag: &'a Tag, name: &str, arguments: &[&str]) -> Offshoot<'a> {
        crate::product::agents();
        let mut command = self.command(crate::product::example(name));
        // It looks for agents beside itself, which is one folder deeper than the command does.
        command.env("OFFSHOOT_AGENTS", crate::host::build_folder().with_file_name("agents")).args(arguments);
        Offshoot::in_place(tag, command, self.control.as_ref().map(|control| control.watched().clone()), &[], None)
    }

    /// The program whose functions run far away, run in the control host with its words behind the fleet's configuration.
    ///
    /// # Errors
    ///
    /// When it cannot be built static here.
    pub fn calls<'a>(&self, tag: &'a Tag, words: &[&str]) -> Result<Offshoot<'a>, Unavailable> {
        Ok(self.calls_of(tag, crate::product::calls()?, words))
    }

    /// As [`calls`](Self::calls), by a build of it that lies in the control host.
    pub fn calls_of<'a>(&self, tag: &'a Tag, program: &Path, words: &[&str]) -> Offshoot<'a> {
        crate::product::agents();
        let mut command = self.command(program);
        command.env("OFFSHOOT_AGENTS", crate::host::build_folder().with_file_name("agents"));
        command.arg(self.config()).args(words);
        Offshoot::in_place(tag, command, self.control.as_ref().map(|control| control.watched().clone()), &[], None)
    }

    /// A program that is one file, run in the control host. It lies there alone: what it needs it has in itself.
    ///
    /// # Errors
    ///
    /// When the file cannot be copied to where the hosts see it.
    pub fn one_file<'a>(&self, tag: &'a Tag, file: &Path, arguments: &[&str]) -> Result<Offshoot<'a>, Unavailable> {
        let place = self.shared().join("program");
        fs::copy(file, &place).map_err(io_error(&place))?;
        let mut command = self.command(self.shared_as_seen().join("program"));
        command.env_remove("OFFSHOOT_AGENTS").args(arguments);
        let watched = self.control.as_ref().map(|control| control.watched().clone());
        Ok(Offshoot::in_place(tag, command, watched, &[], None))
    }

    /// The command on a terminal of its own, where it can ask.
    pub fn offshoot_on_terminal(&self, tag: &Tag, arguments: &[&str]) -> Terminal {
        crate::product::agents();
        let command = self.on_terminal(crate::product::binary());
        Offshoot::in_place(tag, command, None, arguments, Some(&self.config())).start_on_terminal()
    }

    /// A relay in front of a host, with the alias `alias` for it: a link that can be slow, or cut.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn relay(&self, name: &str, alias: &str, delay: Duration) -> Result<Relay, Unavailable> {
        let (address, port) = self.sshd(name).address();
        let command = match &self.network {
            Some(network) => network.command(host::fixture_program()),
            None => Command::new(host::fixture_program()),
        };
        let relay = Relay::start(command, (address, port).into(), delay)?;
        self.add_to_config(&format!(
            "Host {alias}\n  HostName 127.0.0.1\n  Port {}\n  HostKeyAlias {name}",
            relay.port()
        ))?;
        Ok(relay)
    }

    /// A relay in front of a host, with the alias `alias` for it, that misbehaves by a plan: see the
    /// fixture program's `chaos`. Times count from each connection's start; [`Server::begin`] begins what has a `!`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn chaos(&self, name: &str, alias: &str, plan: &str) -> Result<Server, Unavailable> {
        let (address, port) = self.sshd(name).address();
        let mut command = match &self.network {
            Some(network) => network.command(host::fixture_program()),
            None => Command::new(host::fixture_program()),
        };
        command.args(["chaos", &format!("{address}:{port}"), plan]);
        let server = Server::listening(command)?;
        self.add_to_config(&format!(
            "Host {alias}\n  HostName 127.0.0.1\n  Port {}\n  HostKeyAlias {name}",
            server.port()
        ))?;
        Ok(server)
    }

    /// Has all packets from and to a host vanish from now on.
    ///
    /// # Errors
    ///
    /// Without a network of the fleet's own; what `ip` says.
    pub fn cut_off(&self, name: &str) -> Result<(), Unavailable> {
        let Some(network) = &self.network else {
            return Err(Unavailable::because("the hosts have no network of their own"));
        };
        network.remove_address(self.sshd(name).address().0)
    }

    /// A server that is not an sshd, with an alias for it.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn server(&self, alias: &str, temper: Temper) -> Result<Server, Unavailable> {
        let command = match &self.network {
            Some(network) => network.command(host::fixture_program()),
            None => Command::new(host::fixture_program()),
        };
        let server = Server::start(command, temper)?;
        self.add_to_config(&format!("Host {alias}\n  HostName 127.0.0.1\n  Port {}", server.port()))?;
        Ok(server)
    }

    /// Everything alive below the sshds, for reports.
    pub fn sessions(&self) -> Vec<Process> {
        self.members.iter().flat_map(|member| member.sshd.sessions()).collect()
    }

    /// The logs of all sshds, for reports.
    pub fn logs(&self) -> String {
        self.members.iter().map(|member| format!("--- {}\n{}", member.name, member.sshd.log())).collect()
    }
}
