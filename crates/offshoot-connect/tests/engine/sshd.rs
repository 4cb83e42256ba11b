//! A private sshd on a free port of the loopback address, with its own keys; it ends with its value.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use offshoot_connect::methods::Ssh;

pub(crate) struct Sshd {
    child: Child,
    log: Option<JoinHandle<String>>,
    folder: tempfile::TempDir,
    port: u16,
    user: String,
}

impl Sshd {
    /// Starts one; `Err` says why there can be none here.
    pub(crate) fn start(options: &[&str]) -> Result<Sshd, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        for name in ["host", "other", "user", "stranger"] {
            keygen(&folder.path().join(name), "")?;
        }
        keygen(&folder.path().join("locked"), "a passphrase")?;
        let user = output(Command::new("id").arg("-un"))?;
        let port = free_port().map_err(|error| error.to_string())?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let authorized =
            ["user.pub", "locked.pub"].map(|name| std::fs::read_to_string(at(name)).unwrap_or_default()).concat();
        std::fs::write(at("authorized"), authorized).map_err(|error| error.to_string())?;
        let host = std::fs::read_to_string(at("host.pub")).map_err(|error| error.to_string())?;
        let other = std::fs::read_to_string(at("other.pub")).map_err(|error| error.to_string())?;
        for (name, key) in [("known", host), ("changed", other)] {
            std::fs::write(at(name), format!("[127.0.0.1]:{port} {key}")).map_err(|error| error.to_string())?;
        }
        // Debian's sshd refuses to start without it.
        let _ = std::fs::create_dir("/run/sshd");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", "/dev/null", "-h", &at("host"), "-p", &port.to_string()]);
        let file = format!("AuthorizedKeysFile={}", at("authorized"));
        let defaults = ["ListenAddress=127.0.0.1", "StrictModes=no", "UsePAM=no", "PidFile=none", "LogLevel=VERBOSE"];
        for option in options.iter().chain(&defaults).chain([&"KbdInteractiveAuthentication=no", &file.as_str()]) {
            command.args(["-o", option]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| format!("sshd: {error}"))?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no log")?);
        let mut said = String::new();
        while !said.contains("Server listening") {
            if log.read_line(&mut said).map_err(|error| error.to_string())? == 0 {
                return Err(format!("sshd does not start: {said}"));
            }
        }
        // It is read to its end, or sshd stalls.
        let log = std::thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = log.read_to_end(&mut rest);
            String::from_utf8_lossy(&rest).into_owned()
        });
        Ok(Sshd { child, log: Some(log), folder, port, user })
    }

    /// Ends it; what it logged.
    pub(crate) fn end(mut self) -> String {
        self.stop()
    }

    fn stop(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.take().and_then(|log| log.join().ok()).unwrap_or_default()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A login with this key and these known hosts, and nothing of the machine's own configuration.
    pub(crate) fn login(&self, key: &str, known_hosts: &str) -> Ssh {
        Ssh::to("127.0.0.1")
            .user(&self.user)
            .port(self.port)
            .config("/dev/null")
            .identity(self.path(key))
            .option("IdentitiesOnly=yes")
            .option("IdentityAgent=none")
            .option(format!("UserKnownHostsFile={}", self.path(known_hosts)))
            .option("GlobalKnownHostsFile=/dev/null")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn keygen(path: &Path, passphrase: &str) -> Result<(), String> {
    output(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-a", "1", "-C", "test", "-N", passphrase, "-f"])
            .arg(path),
    )
    .map(drop)
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
