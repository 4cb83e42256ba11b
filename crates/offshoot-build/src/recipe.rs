//! Following a recipe: one cargo build per triple, of the agent or of an image, and the checks of what came out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use offshoot_image::elf::Elf;
use offshoot_image::stamp::VARIABLE;

use crate::flags::Flags;
use crate::run;
use crate::toolchain::{Found, Recipe, Rust};
use crate::triples::Triple;
use crate::zig;

/// The std features and crates of the recipes that build std.
const BUILD_STD: [&str; 2] = ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"];

/// A panic of the agent ends it at once, by an illegal instruction, without a message: the supervisor reports the signal.
/// What prints the message, and all that panics could say, is a tenth of what is sent. Place and Debug text serve only
/// such messages.
const SILENT_PANICS: [&str; 4] =
    ["-Zunstable-options", "-Cpanic=immediate-abort", "-Zlocation-detail=none", "-Zfmt-debug=none"];

/// The first compiler that knows [`SILENT_PANICS`].
const SILENT_PANICS_SINCE: (u32, u32) = (1, 92);

/// What `rust-lld` can do besides. Zig's linker knows no such arguments.
const LLD: [&str; 3] = ["-O2", "--icf=all", "--no-eh-frame-hdr"];

/// By recipe C there is no unwinder: a panic ends the worker, and the stand-ins of `offshoot-mux` take the place of the
/// functions that std names.
const WITHOUT_UNWINDER: [&str; 2] = ["-Cpanic=abort", "--cfg=offshoot_agent"];

/// Functions that are alike lie side by side, and what is sent is a hundredth less.
const SORTED: &str = "--bp-compression-sort=function";

/// The first compiler whose `rust-lld` knows [`SORTED`].
const SORTED_SINCE: (u32, u32) = (1, 91);

/// Settings of the caller's environment that would leak into the build.
const LEAKS: [&str; 6] = [
    // Those that an image is built with are among the flags of the job.
    "RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
];

/// What is to be built: one cargo build for one triple.
#[derive(Clone, Debug)]
pub(crate) struct Job<'a> {
    /// The folder that cargo runs in: its configuration is that of this folder and those above it.
    pub(crate) from: &'a Path,
    /// The folder of the workspace, which is told nobody.
    pub(crate) root: &'a Path,
    /// Where cargo builds; each recipe has a folder of its own in it.
    pub(crate) folder: &'a Path,
    /// `build`, or another of cargo's commands that takes the same words.
    pub(crate) verb: &'static str,
    /// `cargo`'s words for what to build, with its profile.
    pub(crate) select: Vec<OsString>,
    /// Where the executable is, below the folder of the triple unless it is a whole path.
    pub(crate) executable: PathBuf,
    /// What it is.
    pub(crate) product: Product<'a>,
}

/// What a job makes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Product<'a> {
    /// The agent: as small as can be, and a panic aborts.
    Agent,
    /// A program image with its build's id and its user's flags: a panic unwinds, and is the caller's error.
    Image(&'a str, &'a Flags),
}

/// Builds it, and gives back its executable and the version of the compiler.
///
/// # Errors
///
/// When the build fails; cargo has said why.
pub(crate) fn build(job: &Job<'_>, triple: &Triple, recipe: Recipe, found: &Found) -> Result<(PathBuf, String)> {
    let target = job.folder.join(format!("build-{}", recipe.name()));
    let mut command = run::cargo_at(job.from);
    for name in LEAKS {
        command.env_remove(name);
    }
    command.arg(job.verb).args(&job.select).args(["--target", triple.name, "--target-dir"]).arg(&target);
    if recipe != Recipe::A {
        command.args(job.product.build_std(recipe)).env("RUSTC_BOOTSTRAP", "1");
    }
    let fallback = || found.fallback.as_ref().context("no rustc with library sources");
    let (rust, mut flags) = match recipe {
        Recipe::A | Recipe::APlus => (&found.rust, flags(["yes", "rust-lld"])),
        Recipe::B => {
            let rust = fallback()?;
            let linker = zig::script(&target, triple)?;
            command.env("RUSTC", &rust.rustc);
            (rust, flags(["no", &linker.to_string_lossy()]))
        }
        Recipe::C => {
            let rust = fallback()?;
            let lld = found.rust.lld().context("no rust-lld")?;
            let musl = found.musl.as_ref().context("no musl")?;
            let wrapper = sysroot_with_musl(rust, &target, triple, musl)?;
            command.env("RUSTC", wrapper);
            (rust, flags(["yes", &lld.to_string_lossy()]))
        }
    };
    flags.extend(remaps(job.root, rust));
    match job.product {
        Product::Agent => {
            command.env_remove(VARIABLE);
            // Nothing unwinds in a program that aborts; its tables would be a sixth of it.
            flags.push("-Cforce-unwind-tables=no".to_string());
            flags.extend(for_size(recipe, rust, &found.rust));
        }
        Product::Image(id, given) => {
            command.env(VARIABLE, id);
            // Before the recipe's: of two that say the same the last holds.
            flags.splice(0..0, given.words(triple));
            if recipe == Recipe::C {
                flags.extend(WITHOUT_UNWINDER.map(String::from));
            }
        }
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    eprintln!("the {} for {} by recipe {}", job.product.name(), triple.name, recipe.name());
    eprintln!("+ {}", run::line(&command));
    run::check(&mut command).with_context(|| {
        let what = job.product.name();
        format!("cannot build the {what} for {} by recipe {}", triple.name, recipe.name())
    })?;
    Ok((target.join(triple.name).join(&job.executable), rust.version.clone()))
}

impl Product<'_> {
    /// What it is called in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Product::Agent => "agent",
            Product::Image(..) => "image",
        }
    }

    fn build_std(self, recipe: Recipe) -> &'static [&'static str] {
        match self {
            Product::Image(..) if recipe != Recipe::C => &["-Zbuild-std=std,panic_unwind"],
            Product::Agent | Product::Image(..) => &BUILD_STD,
        }
    }
}

fn flags([self_contained, linker]: [&str; 2]) -> Vec<String> {
    [
        "-Ctarget-feature=+crt-static".to_string(),
        // An address is then five bytes and not seven on x86_64, the same wherever it is used, and nothing is relocated
        // at the start. Stack, heap and mappings lie at random places all the same.
        "-Crelocation-model=static".to_string(),
        format!("-Clink-self-contained={self_contained}"),
        format!("-Clinker={linker}"),
    ]
    .to_vec()
}

/// What makes the agent small, as far as the recipe's compiler goes along, and the one whose linker is used.
fn for_size(recipe: Recipe, rust: &Rust, linker: &Rust) -> Vec<String> {
    // On aarch64 the compiler gathers what recurs in functions of its own. That is smaller in memory, but packing
    // finds recurring code by itself, and is left with the calls: two per cent more to send.
    //
    // What is called from one place alone would be inlined there, whatever its size; in the large frames that come of it
    // each access to the stack is three bytes longer, and jumps are far.
    let mut flags: Vec<String> = [
        "--cfg=offshoot_agent",
        // It starts, and starts threads, without what std does at such moments.
        "--cfg=offshoot_main",
        // Rolled up; processors with instructions for it use those all the same.
        "--cfg=sha2_backend_soft=\"compact\"",
        "-Cllvm-args=-enable-machine-outliner=never -inline-max-stacksize=128",
    ]
    .map(String::from)
    .to_vec();
    // The std that came with the toolchain prints its panics.
    if recipe != Recipe::A && rust.is_at_least(SILENT_PANICS_SINCE) {
        flags.extend(SILENT_PANICS.map(String::from));
    }
    let link = |argument: &str| format!("-Clink-arg={argument}");
    if recipe != Recipe::B {
        flags.extend(LLD.map(link));
        flags.extend(linker.is_at_least(SORTED_SINCE).then(|| link(SORTED)));
    }
    flags
}

/// Where things lie on this machine is nobody's business, and costs bytes.
fn remaps(root: &Path, rust: &Rust) -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let mut remaps = vec![
        format!("--remap-path-prefix={}=", rust.sysroot().display()),
        format!("--remap-path-prefix={}=", root.display()),
    ];
    remaps.extend(home.map(|home| format!("--remap-path-prefix={}=", home.display())));
    remaps
}

/// A copy of the compiler's folder by symbolic links, with a musl beside std's place, and a script that calls the
/// compiler with it: the compiler's own folder is not ours to change.
fn sysroot_with_musl(rust: &Rust, target: &Path, triple: &Triple, musl: &Path) -> Result<PathBuf> {
    let sysroot = target.join(format!("sysroot-{}", triple.name));
    let rustlib = sysroot.join("lib/rustlib");
    let own = rustlib.join(triple.name).join("lib/self-contained");
    // Stale links of an earlier compiler.
    let _ = std::fs::remove_dir_all(&sysroot);
    std::fs::create_dir_all(&own)?;
    for entry in std::fs::read_dir(rust.sysroot().join("lib/rustlib"))? {
        let entry = entry?;
        if entry.file_name() != triple.name {
            std::os::unix::fs::symlink(entry.path(), rustlib.join(entry.file_name()))?;
        }
    }
    for entry in std::fs::read_dir(musl)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.extension().is_some_and(|e| e == "o" || e == "a") {
            std::fs::copy(&path, own.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    // What a C compiler would bring. Nothing in the agent needs it (panics abort, no C++), so empty archives, which the
    // linker takes for objects too, stand in.
    for name in ["crtbegin.o", "crtbeginS.o", "crtend.o", "crtendS.o", "libunwind.a"] {
        if !own.join(name).exists() {
            std::fs::write(own.join(name), "!<arch>\n")?;
        }
    }
    let [rustc, sysroot] = [&rust.rustc, &sysroot].map(|path| zig::quoted(&path.to_string_lossy()));
    zig::written(target.join(format!("rustc-{}", triple.name)), "", &format!("{rustc} --sysroot {sysroot}"))
}

/// Checks that an executable is static and of the triple.
///
/// # Errors
///
/// When it would not run everywhere on its triple.
pub(crate) fn check_elf(bytes: &[u8], triple: &Triple) -> Result<()> {
    let elf = Elf::parse(bytes)?;
    ensure!(elf.machine == triple.machine, "its machine is {}, expected {}", elf.machine, triple.machine);
    ensure!(!elf.interpreter, "it names a program interpreter: it is not static");
    ensure!(elf.needed == 0, "it needs {} shared libraries: it is not static", elf.needed);
    ensure!(!elf.executable_stack, "its stack is executable");
    Ok(())
}

/// How long an agent may take to say who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(20);

/// Runs `agent --hello`, natively or by qemu. Gives back why it could not run here, if so.
///
/// # Errors
///
/// When it ran and did not name its triple.
pub(crate) fn hello(executable: &Path, triple: &Triple) -> Result<Option<String>> {
    let mut command = if triple.is_native() {
        Command::new(executable)
    } else {
        let names = [format!("qemu-{}-static", triple.qemu), format!("qemu-{}", triple.qemu)];
        let Some(qemu) = names.iter().find_map(|name| run::on_path(name)) else {
            return Ok(Some(format!("no {}", names[0])));
        };
        let mut command = Command::new(qemu);
        command.arg(executable);
        command
    };
    let outcome = run::run(command.arg("--hello").stdin(std::process::Stdio::null()), HELLO_LIMIT, false)?;
    if !outcome.success() {
        bail!("{} failed: {}\n{}", run::line(&command), outcome.status, outcome.output.trim_end());
    }
    ensure!(
        outcome.output.contains(triple.name),
        "{} does not name the triple {}: {:?}",
        run::line(&command),
        triple.name,
        outcome.output
    );
    Ok(None)
}
