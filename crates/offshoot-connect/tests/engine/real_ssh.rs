//! The engine and a real ssh against a private sshd. How far a login comes is told by what it fails at: without an agent
//! at hand every one ends, at the latest, in the search for it.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use offshoot_connect::methods::{KnownHosts, Method, Ssh};
use offshoot_connect::{Answers, Asker, Asking, Cancel, Payloads, Reply, Responder, bundle::Bundle};
use offshoot_wire::{AuthFailure, ConnectStage, Failure, FailureKind, HostKeyFailure, Question, Recipe, Start};

use crate::fixture::Test;
use crate::sshd::{Sshd, free_port};

/// No agent for anybody.
struct NoAgents;

impl Payloads for NoAgents {
    fn bundle(&self, triple: &str, _: Instant, _: &Cancel) -> Result<Bundle, Failure> {
        Err(Failure::new(FailureKind::NoAgent(triple.to_owned()), "no agent at hand"))
    }
}

/// Starts an sshd, or says that the test is not run.
fn sshd(test: &str, options: &[&str]) -> Option<Sshd> {
    match Sshd::start(options) {
        Ok(sshd) => Some(sshd),
        Err(reason) => {
            println!("not run: {test}: {reason}");
            None
        }
    }
}

fn fail(test: &Test, ssh: &Ssh) -> Failure {
    let recipe = ssh.recipe().expect("a recipe");
    test.connecting(&recipe).payloads(&NoAgents).fail()
}

fn logged_in(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::NoAgent(_))
}

#[test]
fn real_ssh_logins_end_in_an_agent_or_in_the_reason_why_not() {
    let test = Test::begin("real-ssh");
    let Some(sshd) = sshd("real_ssh_logins", &["PermitRootLogin=yes", "PasswordAuthentication=no"]) else { return };
    let failure = fail(&test, &sshd.login("user", "known"));
    assert!(logged_in(&failure), "{failure:?}");

    let failure = fail(&test, &sshd.login("user", "empty"));
    assert_eq!(failure.kind, FailureKind::HostKey(HostKeyFailure::Unknown), "{failure:?}");
    assert!(failure.hint.contains("of [127.0.0.1]:"), "{}", failure.hint);
    let failure = fail(&test, &sshd.login("user", "empty").known_hosts(KnownHosts::Strict));
    assert_eq!(failure.kind, FailureKind::HostKey(HostKeyFailure::Unknown), "{failure:?}");
    let failure = fail(&test, &sshd.login("user", "changed").known_hosts(KnownHosts::Strict));
    assert_eq!(failure.kind, FailureKind::HostKey(HostKeyFailure::Changed), "{failure:?}");
    let failure = fail(&test, &sshd.login("user", "changed"));
    assert_eq!(failure.kind, FailureKind::HostKey(HostKeyFailure::Changed), "{failure:?}");
    let failure = fail(&test, &sshd.login("user", "changed").known_hosts(KnownHosts::AcceptNew));
    assert_eq!(failure.kind, FailureKind::HostKey(HostKeyFailure::Changed), "{failure:?}");
    let failure = fail(&test, &sshd.login("stranger", "known"));
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::Rejected), "{failure:?}");
    // A key with a passphrase that nobody can be asked for.
    let failure = fail(&test, &sshd.login("locked", "known"));
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::Rejected), "{failure:?}");

    assert!(logged_in(&fail(&test, &sshd.login("user", "accepted").known_hosts(KnownHosts::AcceptNew))));
    let accepted = std::fs::read_to_string(sshd.path("accepted")).expect("it remembers the key");
    assert!(accepted.contains("[127.0.0.1]:"), "{accepted}");
    assert!(logged_in(&fail(&test, &sshd.login("user", "changed").known_hosts(KnownHosts::Off))));
}

#[test]
fn s18_a_configuration_that_wants_a_control_master_and_silence_gets_neither() {
    let test = Test::begin("control-master");
    let Some(sshd) = sshd("s18_a_configuration", &["PermitRootLogin=yes", "PasswordAuthentication=no"]) else { return };
    let config = sshd.path("config");
    let socket = sshd.path("control-socket");
    std::fs::write(&config, format!("ControlMaster auto\nControlPath {socket}\nControlPersist 60\nLogLevel QUIET\n"))
        .expect("written");
    assert!(logged_in(&fail(&test, &sshd.login("user", "known").config(&config))));
    assert!(!std::path::Path::new(&socket).exists(), "a control socket was left behind");
    let failure = fail(&test, &sshd.login("user", "empty").config(&config));
    assert_eq!(failure.kind, FailureKind::HostKey(HostKeyFailure::Unknown), "{failure:?}");
}

#[test]
fn a_server_that_takes_passwords_is_told_at_once_and_never_tried() {
    let options = ["PermitRootLogin=yes", "PasswordAuthentication=yes", "MaxAuthTries=6"];
    let test = Test::begin("password");
    let Some(sshd) = sshd("a_server_that_takes_passwords", &options) else { return };
    let failure = fail(&test, &sshd.login("stranger", "known"));
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordRequired), "{failure:?}");
    let log = sshd.end();
    assert!(log.contains("Connection from 127.0.0.1"), "{log}");
    assert!(!log.contains("Failed password"), "{log}");
}

#[test]
fn a_forced_command_is_told_and_gets_nothing_of_our_environment() {
    let options = ["PermitRootLogin=yes", "ForceCommand=env", "AcceptEnv=*"];
    let test = Test::begin("forced");
    let Some(sshd) = sshd("a_forced_command", &options) else { return };
    let failure = fail(&test, &sshd.login("user", "known").option("SendEnv=LC_* LANG SSH_ASKPASS*"));
    assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Probe), "{failure:?}");
    assert!(failure.hint.contains("forced command"), "{}", failure.hint);
    let seen = String::from_utf8_lossy(&failure.seen);
    assert!(seen.contains("SSH_CONNECTION="), "{seen}");
    assert!(!seen.contains("OFFSHOOT_TREE="), "{seen}");
    // One that the user has is sent: that was asked for.
    assert!(std::env::var_os("LC_ALL").is_some() || !seen.contains("LC_ALL="), "{seen}");
}

#[test]
fn ports_that_are_closed_silent_or_no_ssh_server_are_told_apart() {
    let test = Test::begin("ports");
    let login = |port| {
        let ssh = Ssh::to("127.0.0.1").port(port).config("/dev/null").option("IdentityAgent=none");
        ssh.stage_timeout(Duration::from_millis(2500))
    };
    let failure = fail(&test, &login(free_port().expect("a port")));
    if failure.message.contains("is not there") {
        println!("not run: ports_that_are_closed_silent_or_no_ssh_server_are_told_apart: no ssh here");
        return;
    }
    assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Login), "{failure:?}");
    assert!(failure.message.contains("Connection refused"), "{}", failure.message);

    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let failure = fail(&test, &login(silent.local_addr().expect("its address").port()));
    assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Login), "{failure:?}");
    assert!(failure.hint.contains("silent"), "{failure:?}");

    let garbage = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = garbage.local_addr().expect("its address").port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = garbage.accept().expect("a client");
        let _ = stream.write_all(&[b"220 mail ready\r\n\0\x01\x02\xff".as_slice(); 2000].concat());
    });
    let failure = fail(&test, &login(port));
    thread.join().expect("no panic");
    assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Login), "{failure:?}");
    assert!(failure.hint.contains("no ssh server"), "{failure:?}");
}

#[test]
fn an_ssh_that_is_killed_while_it_logs_in_is_told() {
    let test = Test::begin("killed");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = silent.local_addr().expect("its address").port();
    // The tool kills itself once it is ssh: a shell leaves something behind that does it.
    let mut recipe = Ssh::to("127.0.0.1").port(port).config("/dev/null").recipe().expect("a recipe");
    if let Start::Shell { argv, .. } = &mut recipe.start {
        let script = "(sleep 0.3; kill -9 $$) & exec \"$@\"";
        argv.splice(0..0, ["sh", "-c", script, "sh"].map(str::to_owned));
    }
    let recipe: Recipe = recipe;
    let failure = test.connecting(&recipe).fail();
    if failure.message.contains("exited with status 127") {
        println!("not run: an_ssh_that_is_killed_while_it_logs_in_is_told: no ssh here");
        return;
    }
    assert_eq!(failure.message, "ssh was ended by signal 9 while logging in");
}

/// Answers from what the method was given.
struct Given(Answers);

impl Asker for Given {
    fn ask(&self, question: Question, reply: Reply) {
        reply.give(self.0.answer(&Asking::new(&question, "ssh:here", "")));
    }
}

fn answered(test: &Test, ssh: &Ssh) -> Failure {
    let recipe = ssh.recipe().expect("a recipe");
    test.connecting(&recipe).payloads(&NoAgents).asker(&Given(ssh.answers())).fail()
}

#[test]
fn a_real_key_is_unlocked_by_its_passphrase_and_a_real_host_key_is_asked_about() {
    let test = Test::begin("passphrase");
    let Some(sshd) = sshd("a_real_key", &["PermitRootLogin=yes", "PasswordAuthentication=no"]) else { return };
    let locked = sshd.login("locked", "known");
    let failure = answered(&test, &locked.clone().passphrase("a passphrase"));
    assert!(logged_in(&failure), "{failure:?}");
    let failure = answered(&test, &locked.clone().passphrase("another"));
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::PasswordIncorrect), "{failure:?}");
    assert!(!format!("{failure:?}").contains("another"), "{failure:?}");

    let unknown = sshd.login("user", "asked-about");
    let failure = answered(&test, &unknown.clone().password("not for a host key"));
    assert_eq!(failure.kind, FailureKind::HostKey(HostKeyFailure::Unknown), "{failure:?}");
    assert!(failure.message.contains("SHA256:"), "{}", failure.message);
    // A key that has changed is no question.
    let yes = Responder::new(|_| Some("yes".into()));
    let failure = answered(&test, &sshd.login("user", "changed").responder(yes.clone()));
    assert_eq!(failure.kind, FailureKind::HostKey(HostKeyFailure::Changed), "{failure:?}");
    assert!(logged_in(&answered(&test, &unknown.responder(yes))));
    let remembered = std::fs::read_to_string(sshd.path("asked-about")).expect("ssh remembers the key");
    assert!(remembered.contains("[127.0.0.1]:"), "{remembered}");
}
