//! Building the two executables: for whoever builds agents. Runs cargo, so it takes seconds; on any thread.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs, io};

/// The longest stage 0 that is accepted: it must fit a terminal's line as text.
pub const STAGE0_MAX: usize = 1536;
/// The longest stage 1 that is accepted: stage 0's room for it.
pub const STAGE1_MAX: usize = 8192;

/// The two executables for one triple, as they are sent.
#[derive(Clone, Debug)]
pub struct Loader {
    /// Stage 0, for the start line.
    pub stage0: Vec<u8>,
    /// Stage 1, for the payload.
    pub stage1: Vec<u8>,
}

/// How to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// `cargo`; its `rustc` is asked for the target's `core`.
    pub cargo: PathBuf,
    /// Another `rustc` for cargo to use.
    pub rustc: Option<PathBuf>,
    /// A linker with the command line of `ld.lld`: rustup's `rust-lld` unless said otherwise.
    pub linker: PathBuf,
    /// Where cargo builds: one of its own, so as not to wait for other builds or spoil theirs.
    pub target_dir: PathBuf,
}

impl Options {
    /// The running cargo (or the one in `PATH`) and `rust-lld`, building in `target_dir`.
    pub fn new(target_dir: impl Into<PathBuf>) -> Options {
        Options {
            cargo: env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from),
            rustc: None,
            linker: "rust-lld".into(),
            target_dir: target_dir.into(),
        }
    }
}

/// Why there is no loader.
#[derive(Debug)]
pub enum BuildError {
    /// A program did not start, or its output is not readable.
    Io(PathBuf, io::Error),
    /// Cargo or rustc failed; what it said.
    Failed(String),
    /// What came out is no executable of this form.
    NotRaw(PathBuf),
    /// What came out is too long: its length and its limit.
    TooLong(PathBuf, usize, usize),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            BuildError::Failed(said) => write!(f, "cannot build the loader: {}", said.trim_end()),
            BuildError::NotRaw(path) => write!(f, "{} is no raw loader", path.display()),
            BuildError::TooLong(path, len, max) => {
                write!(f, "{} has {len} bytes, at most {max} are allowed", path.display())
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// Builds both stages for `triple`, a Linux triple of one of the five architectures.
///
/// A target whose `core` is not installed gets it built from the `rust-src` component.
///
/// # Errors
///
/// [`BuildError`], with cargo's own words.
pub fn build(triple: &str, options: &Options) -> Result<Loader, BuildError> {
    let from_source = !has_core(triple, options)?;
    let stage = |name: &str, max: usize| {
        let path = options.target_dir.join(triple).join("release").join(name);
        let said = run(&mut command(name, triple, options, from_source))?;
        let raw = fs::read(&path).map_err(|error| BuildError::Io(path.clone(), error))?;
        if !raw.starts_with(b"\x7fELF") {
            return Err(if said.is_empty() { BuildError::NotRaw(path) } else { BuildError::Failed(said) });
        }
        if stated_length(&raw) != Some(raw.len()) {
            return Err(BuildError::NotRaw(path));
        }
        if raw.len() > max {
            return Err(BuildError::TooLong(path, raw.len(), max));
        }
        Ok(raw)
    };
    Ok(Loader { stage0: stage("offshoot-stage0", STAGE0_MAX)?, stage1: stage("offshoot-stage1", STAGE1_MAX)? })
}

fn command(name: &str, triple: &str, options: &Options, from_source: bool) -> Command {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(&options.cargo);
    command
        .args(["rustc", "--quiet", "--manifest-path"])
        .arg(source.join("Cargo.toml"))
        .args(["--package", "offshoot-loader", "--features", "freestanding", "--bin", name, "--target", triple])
        .arg("--target-dir")
        .arg(&options.target_dir)
        .arg("--release");
    for setting in
        ["opt-level=\"z\"", "lto=\"fat\"", "codegen-units=1", "panic=\"abort\"", "debug=false", "strip=false"]
    {
        command.args(["--config", &format!("profile.release.{setting}")]);
    }
    if from_source {
        command.arg("-Zbuild-std=core").env("RUSTC_BOOTSTRAP", "1");
    }
    if let Some(rustc) = &options.rustc {
        command.env("RUSTC", rustc);
    }
    let mut linker = std::ffi::OsString::from("-Clinker=");
    linker.push(&options.linker);
    let mut script = std::ffi::OsString::from("-Clink-arg=-T");
    script.push(source.join("link.ld"));
    command
        .args(["--", "-Clinker-flavor=ld.lld", "-Clink-self-contained=no", "-Crelocation-model=static"])
        .args(["-Ctarget-feature=+crt-static", "-Clink-arg=-nostdlib", "-Clink-arg=--build-id=none"])
        .arg("-Clink-arg=--oformat=binary")
        .args([linker, script]);
    // Flags that are meant for the caller's own build would change or break this one.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    // Thumb code is a third shorter; every ARMv7 has it.
    let thumb = if triple.starts_with("armv7") { " -Ctarget-feature=+thumb-mode" } else { "" };
    command.env("RUSTFLAGS", format!("--cfg=offshoot_stage{thumb}"));
    command
}

/// Whether the compiler has a `core` for the target.
fn has_core(triple: &str, options: &Options) -> Result<bool, BuildError> {
    let rustc = match (&options.rustc, env::var_os("RUSTC")) {
        (Some(rustc), _) => rustc.clone(),
        (None, Some(rustc)) => rustc.into(),
        (None, None) => "rustc".into(),
    };
    let folder = run(Command::new(rustc).args(["--print", "target-libdir", "--target", triple]))?;
    let Ok(files) = fs::read_dir(folder.trim()) else { return Ok(false) };
    Ok(files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
}

/// What a program printed, when it succeeded.
fn run(command: &mut Command) -> Result<String, BuildError> {
    let output = command.output().map_err(|error| BuildError::Io(command.get_program().into(), error))?;
    if !output.status.success() {
        return Err(BuildError::Failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The length of the only segment, where stage 0 looks for it.
fn stated_length(raw: &[u8]) -> Option<usize> {
    let at = match raw.get(4)? {
        1 => 0x44,
        _ => 0x60,
    };
    let bytes = raw.get(at..at + 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
}
