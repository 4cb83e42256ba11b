//! The measured peers: pinned versions in a virtual environment of their own, and a bare interpreter for their children.
//!
//! Owns the environments in the cache and the embedded anchor scripts, which it writes to the scratch folder.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The versions that the anchors were written against.
pub(crate) const MITOGEN: &str = "0.3.54";
/// See [`MITOGEN`].
pub(crate) const EXECNET: &str = "2.1.2";

const SCRIPTS: [(&str, &str); 5] = [
    ("anchor.py", include_str!("../peers/anchor.py")),
    ("remote_functions.py", include_str!("../peers/remote_functions.py")),
    ("package.py", include_str!("../peers/package.py")),
    ("mitogen_anchor.py", include_str!("../peers/mitogen_anchor.py")),
    ("execnet_anchor.py", include_str!("../peers/execnet_anchor.py")),
];

/// Where the interpreters and scripts are.
pub(crate) struct Peers {
    /// Has the peers installed.
    pub(crate) master: PathBuf,
    /// Has nothing installed: what a target would have.
    pub(crate) child: PathBuf,
    scripts: PathBuf,
}

impl Peers {
    /// Makes the environments unless the cache has them; the first time this takes a minute and needs the package index.
    pub(crate) fn prepare(cache: &Path, scratch: &Path) -> Result<Self> {
        let folder = cache.join(format!("peers-mitogen-{MITOGEN}-execnet-{EXECNET}"));
        let (full, bare, ready) = (folder.join("full"), folder.join("bare"), folder.join("ready"));
        if !ready.is_file() {
            std::fs::create_dir_all(&folder)?;
            let python = std::env::var_os("OFFSHOOT_BENCH_PYTHON").unwrap_or_else(|| "python3".into());
            step(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&full))?;
            step(Command::new(&python).args(["-m", "venv", "--clear", "--without-pip"]).arg(&bare))?;
            step(
                Command::new(full.join("bin/python3"))
                    .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                    .arg(format!("mitogen=={MITOGEN}"))
                    .arg(format!("execnet=={EXECNET}")),
            )?;
            std::fs::write(&ready, "")?;
        }
        let scripts = scratch.join("peers");
        std::fs::create_dir_all(&scripts)?;
        for (name, text) in SCRIPTS {
            std::fs::write(scripts.join(name), text)?;
        }
        Ok(Self { master: full.join("bin/python3"), child: bare.join("bin/python3"), scripts })
    }

    /// The script of a peer.
    pub(crate) fn script(&self, peer: &str) -> PathBuf {
        self.scripts.join(format!("{peer}_anchor.py"))
    }
}

fn step(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("failed without a message"));
    }
    Ok(())
}
