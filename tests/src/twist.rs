//! Logins on which something is odd: a host runs what the client's `LC_TWIST` says first, and an alias says it.
//!
//! Needs hosts of their own. Must not know what is odd, nor what is run then.

use crate::fleet::{Fleet, Peer};

impl Peer {
    /// On which a login first runs what its alias says ([`Fleet::twist`]), and then what it was asked for.
    pub fn twisted(self) -> Peer {
        self.sshd("AcceptEnv LC_TWIST")
            .sshd("ForceCommand eval \"$LC_TWIST\"; exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"")
    }
}

impl Fleet {
    /// Adds an alias for a login of `user` on a twisted host that runs `twist` first.
    ///
    /// # Panics
    ///
    /// When the ssh_config cannot be written.
    pub fn twist(&self, host: &str, alias: &str, user: &str, twist: &str) {
        let address = self.sshd(host).address().0;
        self.add_to_config(&format!(
            "Host {alias}\n  HostName {address}\n  HostKeyAlias {host}\n  User {user}\n  SetEnv \"LC_TWIST={twist}\""
        ))
        .expect("the fleet's own folder can be written");
    }
}
