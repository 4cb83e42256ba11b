//! A throwaway sshd on loopback, with keys, port and client configuration of its own.
//!
//! Owns the server process and the files below its folder. The aliases `bench`, `bench2`, `bench3` all lead to it.

use crate::sweep::{Scratch, TAG};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server; ends when dropped.
pub(crate) struct Sshd {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Sshd {
    /// Starts a server whose sessions carry the run's tag, and hands it to the sweeper.
    pub(crate) fn start(scratch: &mut Scratch) -> Result<Self> {
        let folder = scratch.folder().join("sshd");
        let folder = folder.as_path();
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        for key in ["host_key", "user_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"])
                .arg(folder.join(key))
                .status()
                .context("cannot run ssh-keygen")?;
            if !made.success() {
                bail!("ssh-keygen: {made}");
            }
        }
        fs::copy(folder.join("user_key.pub"), folder.join("authorized_keys"))?;
        // Free now; should another program take it before sshd does, sshd says so and the suite ends.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let file = |name: &str| folder.join(name).display().to_string();
        let config = [
            format!("Port {port}"),
            "ListenAddress 127.0.0.1".into(),
            format!("HostKey {}", file("host_key")),
            format!("AuthorizedKeysFile {}", file("authorized_keys")),
            "PidFile none".into(),
            "UsePAM no".into(),
            "PasswordAuthentication no".into(),
            "KbdInteractiveAuthentication no".into(),
            "PermitRootLogin prohibit-password".into(),
            "StrictModes no".into(),
            // bash reads a user's rc file for an ssh command only while SHLVL is below 2: keep that file out of the numbers.
            format!("SetEnv SHLVL=5 {TAG}={}", scratch.tag()),
            "UseDNS no".into(),
            "PrintMotd no".into(),
            "MaxStartups 1000".into(),
            "MaxSessions 1000".into(),
            "LogLevel ERROR".into(),
        ];
        fs::write(folder.join("sshd_config"), config.join("\n") + "\n")?;
        let program = server_program()?;
        prepare_separation_folder(&program, folder)?;
        let child = Command::new(&program)
            .arg("-D")
            .arg("-f")
            .arg(folder.join("sshd_config"))
            .arg("-E")
            .arg(folder.join("sshd.log"))
            .env(TAG, scratch.tag())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let sshd = Self { child, folder: folder.into(), port };
        scratch.adopt(sshd.pid())?;
        sshd.write_client_config("ssh_config", port)?;
        sshd.wait_until_up()?;
        Ok(sshd)
    }

    /// The process id of the server.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The client configuration that leads straight to the server.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("ssh_config")
    }

    /// Writes a client configuration that leads to `port` instead, for a relay.
    pub(crate) fn write_client_config(&self, name: &str, port: u16) -> Result<PathBuf> {
        let user = Command::new("id").arg("-un").output().context("cannot run id")?;
        let text = [
            "Host bench bench2 bench3".into(),
            "  HostName 127.0.0.1".into(),
            format!("  Port {port}"),
            format!("  User {}", String::from_utf8_lossy(&user.stdout).trim()),
            format!("  IdentityFile {}", self.folder.join("user_key").display()),
            "  IdentitiesOnly yes".into(),
            "  StrictHostKeyChecking no".into(),
            "  UserKnownHostsFile /dev/null".into(),
            "  GlobalKnownHostsFile /dev/null".into(),
            "  LogLevel ERROR".into(),
            "  BatchMode yes".into(),
        ];
        let path = self.folder.join(name);
        fs::write(&path, text.join("\n") + "\n")?;
        Ok(path)
    }

    fn wait_until_up(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if Instant::now() > deadline {
                bail!("sshd does not listen: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let login = Command::new("ssh")
            .arg("-F")
            .arg(self.config())
            .args(["-o", "ConnectTimeout=10", "bench", "true"])
            .stdin(Stdio::null())
            .output()
            .context("cannot run ssh")?;
        if !login.status.success() {
            bail!(
                "cannot log in to the throwaway sshd: {} {}",
                String::from_utf8_lossy(&login.stderr).trim(),
                self.log()
            );
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("sshd.log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Already ended is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// sshd insists on being started by its full path.
fn server_program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("sshd"))
        .find(|p| p.is_file())
        .context("no sshd on this machine (openssh-server)")
}

/// Some packagings make this folder only when the system's own service starts.
fn prepare_separation_folder(program: &Path, folder: &Path) -> Result<()> {
    let check = Command::new(program).arg("-t").arg("-f").arg(folder.join("sshd_config")).output()?;
    if check.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    match said.split("Missing privilege separation directory: ").nth(1).and_then(|t| t.split_whitespace().next()) {
        Some(missing) => fs::create_dir_all(missing).with_context(|| format!("cannot make {missing}")),
        None => bail!("sshd refuses its configuration: {}", said.trim()),
    }
}
