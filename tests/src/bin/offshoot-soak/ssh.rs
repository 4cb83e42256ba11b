//! A real sshd for the soak: contexts behind ssh live on this machine too, so that they are hit and looked for as all others.

use std::fs;
use std::path::Path;

use offshoot_tests::not_run::Unavailable;
use offshoot_tests::process::{self, Process};
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

/// Every process below the master, also those behind ssh.
pub(crate) fn below(login: Option<&Login>) -> Vec<Process> {
    let mut found = process::descendants(std::process::id() as i32);
    if let Some(login) = login {
        found.extend(process::descendants(login.sshd));
    }
    found
}
