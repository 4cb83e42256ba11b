//! What ssh prints when it fails, and what that means. Owns the texts; the engine looks for them, first match wins.
//!
//! Order matters: a changed host key with `StrictHostKeyChecking=no` ends in `Permission denied`; a key that the agent does
//! not sign with does too; a jump host's own refusal stands before `Connection closed by UNKNOWN`.

use offshoot_wire::{AuthFailure, Hint, HostKeyFailure, Meaning};

use super::place::Place;
use crate::methods::shared::{Text, auth};

const KEY_CHANGED: &str = "the host has another key than the known one: if it was installed anew, check the new key and \
                           run `ssh-keygen -R HOST`; if not, somebody may be in between";
const KEY_UNKNOWN: &str = "log in once with plain ssh to check and add the key of HOST, or choose accept-new";
const ACCOUNT: &str = "the account may not run commands there; use another one";
const NO_SSH_THERE: &str = "what answers on that port is no ssh server";
const NETWORK: &str = "check the name, the port and the network from the machine that logs in";
const SIGN: &str = "a key was found but could not sign: unlock it, touch the token, or choose another key with -i";
const SECRET: &str =
    "give the password, or somebody to ask for it; or a key that the server accepts, by ssh-agent or -i";

/// `*` stands for any text within a line.
#[rustfmt::skip] // a table
const TEXTS: &[Text] = &[
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", Meaning::HostKey(HostKeyFailure::Changed), KEY_CHANGED),
    ("Host key for * has changed", Meaning::HostKey(HostKeyFailure::Changed), KEY_CHANGED),
    ("REVOKED HOST KEY DETECTED", Meaning::HostKey(HostKeyFailure::Changed), "the host's key is marked as revoked: do not log in with it"),
    ("No * host key is known for ", Meaning::HostKey(HostKeyFailure::Unknown), KEY_UNKNOWN),
    ("Host key verification failed", Meaning::HostKey(HostKeyFailure::Unknown), KEY_UNKNOWN),
    ("Bad configuration option", Meaning::Usage, "OpenSSH 7.6 or newer is needed; else look at the option that it names"),
    ("keyword * extra arguments", Meaning::Usage, "look at the option that it names"),
    ("command-line line 0", Meaning::Usage, "look at the option that it names"),
    ("Can't open user config file", Meaning::Usage, "the file of -F is looked for on the machine that logs in"),
    ("Bad owner or permissions on", Meaning::Usage, "ssh refuses its configuration while others may write it: chmod go-w"),
    ("usage: ssh", Meaning::Usage, "OpenSSH 7.6 or newer is needed"),
    ("Password change required", auth(AuthFailure::TtyRequired), "the password has expired: log in once by hand and change it"),
    ("password has expired", auth(AuthFailure::TtyRequired), "the password has expired: log in once by hand and change it"),
    ("account has expired", auth(AuthFailure::NotAllowed), "the account is over: its administrator can extend it, or use another one"),
    ("Too many authentication failures", auth(AuthFailure::Rejected), "too many keys were offered: name one with -i and add -o IdentitiesOnly=yes"),
    ("UNPROTECTED PRIVATE KEY FILE", auth(AuthFailure::Rejected), "ssh ignores a key that others can read: chmod 600"),
    ("no mutual signature", auth(AuthFailure::Rejected), "the server takes no signature of this kind of key; use a newer kind of key"),
    ("signing failed", auth(AuthFailure::Rejected), SIGN),
    ("agent refused operation", auth(AuthFailure::Rejected), SIGN),
    ("Permission denied (*password", auth(AuthFailure::PasswordRequired), SECRET),
    ("Permission denied (*keyboard-interactive", auth(AuthFailure::PasswordRequired), SECRET),
    ("Permission denied (*)", auth(AuthFailure::Rejected), "no key was accepted: check the user, and give the right key by ssh-agent or -i"),
    ("no more authentication methods", auth(AuthFailure::Rejected), "check the user, and give the right key by ssh-agent or -i"),
    ("Could not resolve hostname", Meaning::Unreachable, "there is no such name for the machine that logs in: check the spelling, DNS and ssh_config"),
    ("Connection refused", Meaning::Unreachable, "nothing listens there: check the port, and that sshd runs"),
    ("timed out during banner exchange", Meaning::Unreachable, "the port is open but silent: it is no ssh server, or it is overloaded"),
    ("onnection timed out", Meaning::Unreachable, "no answer: the host is down, or a firewall drops the packets"),
    ("Operation timed out", Meaning::Unreachable, "no answer: the host is down, or a firewall drops the packets"),
    ("No route to host", Meaning::Unreachable, NETWORK),
    ("Network is unreachable", Meaning::Unreachable, NETWORK),
    ("banner line", Meaning::Unreachable, NO_SSH_THERE),
    ("Bad remote protocol version", Meaning::Unreachable, NO_SSH_THERE),
    ("Bad packet length", Meaning::Unreachable, NO_SSH_THERE),
    ("Unable to negotiate with", Meaning::Unreachable, "the two ssh versions have no algorithm in common: allow an older one with -o"),
    ("tdio forwarding failed", Meaning::Unreachable, "the jump host does not reach the target, or forbids forwarding"),
    ("open failed: administratively prohibited", Meaning::Unreachable, "the jump host forbids forwarding"),
    ("kex_exchange_identification", Meaning::Unreachable, "the server closes before it says who it is: it is overloaded, refuses this address, or is no ssh server"),
    ("Connection reset by", Meaning::Unreachable, NETWORK),
    ("Connection closed by", Meaning::Unreachable, "the server ended the connection: its log says why; an answer must come within its LoginGraceTime, 120 s unless set"),
    ("currently not available", auth(AuthFailure::NotAllowed), ACCOUNT),
    ("sftp connections only", auth(AuthFailure::NotAllowed), ACCOUNT),
    ("shell access", auth(AuthFailure::NotAllowed), ACCOUNT),
    (": restricted", auth(AuthFailure::NotAllowed), "the account's shell is a restricted one; use another account"),
    ("Too many logins", auth(AuthFailure::NotAllowed), "the account has reached its limit of logins"),
];

/// The hints for a login at `place`.
pub(super) fn all(place: &Place) -> Vec<Hint> {
    let host = place.known_as();
    TEXTS
        .iter()
        .map(|&(text, means, advice)| Hint { text: text.to_owned(), means, advice: advice.replace("HOST", &host) })
        .collect()
}
