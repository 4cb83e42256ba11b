//! A real sshd for the soak: contexts behind ssh live on this machine too, so that they are hit and looked for as all others.

use std::fs;
use std::path::Path;

use offshoot_tests::not_run::Unavailable;
use offshoot_tests::process::{self, Process, Signal};
use offshoot_tests::sshd::{Place, Sshd, make_key};
use offshoot_tests::tag::Tag;

/// The name by which the configuration knows the sshd.
pub(crate) const HOST: &str = "soaked";

/// Where a run logs in.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    /// An ssh configuration that knows [`HOST`].
    pub(crate) config: String,
    /// The sshd's process: what is behind ssh descends from it, and not from the master.
    pub(crate) sshd: i32,
}

/// Starts an sshd, and says how to log in there.
pub(crate) fn start(tag: &Tag, folder: &Path) -> Result<(Sshd, Login), Unavailable> {
    let failed = |error: std::io::Error| Unavailable::because(error.to_string());
    let key = folder.join("key");
    fs::write(folder.join("authorized_keys"), make_key(&key)? + "\n").map_err(failed)?;
    let sshd = Sshd::start(tag, "soak", Place::Machine, folder, folder, &[])?;
    let (address, port) = sshd.address();
    fs::write(folder.join("known_hosts"), format!("{HOST} {}\n", sshd.public_key())).map_err(failed)?;
    let config = folder.join("ssh_config");
    let seen = folder.display();
    let text = format!(
        "Host {HOST}\n  HostName {address}\n  Port {port}\n  HostKeyAlias {HOST}\n  IdentityFile {seen}/key\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {seen}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
    );
    fs::write(&config, text).map_err(failed)?;
    let login = Login { config: config.display().to_string(), sshd: sshd.pid() };
    Ok((sshd, login))
}

/// What leads to a context behind ssh, as far as it could be found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    /// The ssh client, which whoever connected it has started.
    pub(crate) client: Option<Process>,
    /// The session of the sshd that serves it.
    pub(crate) session: Option<Process>,
}

fn is_session(process: &Process) -> bool {
    process.comm.starts_with("sshd")
}

/// Whether a process is a client, or a session that has passed its login: before that the sshd may take its end for an attack, and
/// refuse whoever comes next.
pub(crate) fn is_on_way(process: &Process) -> bool {
    process.comm == "ssh" || is_session(process) && process.cmdline.first().is_some_and(|name| name.contains("@notty"))
}

/// What leads to the context with that supervisor.
pub(crate) fn way(supervisor: &Process, login: &Login) -> Way {
    let mut at = supervisor.parent;
    let mut session = None;
    // The login's shell may stand between.
    for _ in 0..8 {
        let Some(process) = Process::read(at).filter(|process| process.pid != login.sshd && process.pid > 1) else {
            break;
        };
        if is_session(&process) {
            session = Some(process);
            break;
        }
        at = process.parent;
    }
    let client = session.as_ref().and_then(|session| {
        let table = fs::read_to_string("/proc/net/tcp").ok()?;
        let other = sockets(session).into_iter().find_map(|inode| peer(&table, inode))?;
        below(Some(login)).into_iter().find(|process| process.comm == "ssh" && sockets(process).contains(&other))
    });
    Way { client, session }
}

/// The inodes of the sockets that it has open.
fn sockets(process: &Process) -> Vec<u64> {
    let inode = |what: &str| what.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    process.descriptors().iter().filter_map(|(_, what)| inode(what)).collect()
}

/// The socket at the other end of a connection within this machine, by a table as `/proc/net/tcp` is.
fn peer(table: &str, inode: u64) -> Option<u64> {
    let row = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (words.next()?.to_string(), words.next()?.to_string());
        Some((local, remote, words.nth(6)?.parse::<u64>().ok()?))
    };
    let rows: Vec<_> = table.lines().skip(1).filter_map(row).collect();
    let (local, remote, _) = rows.iter().find(|(_, _, own)| *own == inode && inode != 0)?;
    let other = rows.iter().find(|(near, far, _)| (near, far) == (remote, local))?;
    Some(other.2)
}

/// Lets sessions go on that a master had stopped which is gone: they are none of ours, so nobody else does.
pub(crate) fn let_go(login: &Login) {
    for session in process::descendants(login.sshd).iter().filter(|process| is_session(process) && process.state == 'T')
    {
        session.signal(Signal::CONT);
    }
}

/// Every process below the master, also those behind ssh.
pub(crate) fn below(login: Option<&Login>) -> Vec<Process> {
    let mut found = process::descendants(std::process::id() as i32);
    if let Some(login) = login {
        found.extend(process::descendants(login.sshd));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0\n\
        1: 0100007F:1F90 0100007F:A001 01 00000000:00000000 02:00000000 00000000     0        0 22 2 0 20 4 30 10 -1\n\
        2: 0100007F:A001 0100007F:1F90 01 00000000:00000000 02:00000000 00000000     0        0 33 2 0 20 4 30 10 -1\n\
        3: 0100007F:1F90 0100007F:A002 01 00000000:00000000 02:00000000 00000000     0        0 44 2 0 20 4 30 10 -1\n";

    #[test]
    fn the_other_end_of_a_connection_is_found_by_its_addresses() {
        assert_eq!(peer(TABLE, 22), Some(33));
        assert_eq!(peer(TABLE, 33), Some(22));
        assert_eq!(peer(TABLE, 44), None, "its client is gone");
        assert_eq!(peer(TABLE, 11), None, "who listens has no other end");
        assert_eq!(peer(TABLE, 55), None);
        assert_eq!(peer("", 22), None);
    }

    #[test]
    fn a_session_is_on_the_way_once_its_login_is_over() {
        let process = |comm: &str, name: &str| Process {
            pid: 2,
            parent: 1,
            session: 2,
            state: 'S',
            start: 1,
            comm: comm.into(),
            cmdline: vec![name.into()],
        };
        assert!(is_on_way(&process("ssh", "ssh")));
        assert!(is_on_way(&process("sshd", "sshd: root@notty")));
        assert!(is_on_way(&process("sshd-session", "sshd-session: root@notty")));
        assert!(!is_on_way(&process("sshd", "sshd: root [priv]")));
        assert!(!is_on_way(&process("sh", "sh: root@notty")));
    }
}
