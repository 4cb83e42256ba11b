//! What this machine has for building: compilers, libraries, linkers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::run;
use crate::triples::Triple;

/// A compiler and its folders.
#[derive(Debug, Clone)]
pub struct Rust {
    /// The program.
    pub rustc: PathBuf,
    /// `1.95.0`.
    pub version: String,
    sysroot: PathBuf,
    host: String,
}

impl Rust {
    /// Asks the compiler `rustc` about itself.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn ask(rustc: &Path) -> Result<Rust> {
        let about = run::read(Command::new(rustc).arg("-vV"))?;
        let field = |name: &str| {
            about
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_string)
                .with_context(|| format!("{} -vV does not state its {name}", rustc.display()))
        };
        let sysroot = run::read(Command::new(rustc).args(["--print", "sysroot"]))?;
        Ok(Rust {
            rustc: rustc.to_path_buf(),
            version: field("release")?,
            host: field("host")?,
            sysroot: PathBuf::from(sysroot.trim()),
        })
    }

    /// The compiler that cargo uses.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn usual() -> Result<Rust> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        Rust::ask(Path::new(&rustc))
    }

    /// A second compiler with library sources: `OFFSHOOT_RUSTC`, or Debian's `rustc-web`.
    /// Last the usual one, when it has them: built for a triple whose std it lacks, it wants another linker all the same.
    pub fn fallback() -> Option<Rust> {
        let named = std::env::var_os("OFFSHOOT_RUSTC").map(PathBuf::from);
        let places = ["/usr/lib/rust-web/bin/rustc", "/usr/bin/rustc"].map(PathBuf::from);
        let named = named.into_iter().chain(places).filter_map(|rustc| Rust::ask(&rustc).ok());
        named.chain(Rust::usual()).find(Rust::has_sources)
    }

    /// Whether it is of this version or a later one.
    pub fn is_at_least(&self, wanted: (u32, u32)) -> bool {
        let mut numbers = self.version.split('.').map_while(|number| number.parse::<u32>().ok());
        numbers.next().zip(numbers.next()).is_some_and(|version| version >= wanted)
    }

    fn rustlib(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib")
    }

    /// The compiler's folder.
    pub fn sysroot(&self) -> &Path {
        &self.sysroot
    }

    /// Whether std was built for the triple beforehand.
    pub fn has_std(&self, triple: &Triple) -> bool {
        self.has_library(triple, "libstd-")
    }

    /// Whether core was.
    pub fn has_core(&self, triple: &Triple) -> bool {
        self.has_library(triple, "libcore-")
    }

    fn has_library(&self, triple: &Triple, beginning: &str) -> bool {
        let Ok(entries) = std::fs::read_dir(self.rustlib().join(triple.name).join("lib")) else {
            return false;
        };
        entries.flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(beginning) && name.ends_with(".rlib")
        })
    }

    /// Whether musl and its start files came with the compiler.
    pub fn has_crt(&self, triple: &Triple) -> bool {
        self.rustlib().join(triple.name).join("lib/self-contained/crt1.o").is_file()
    }

    /// The linker that came with the compiler.
    pub fn lld(&self) -> Option<PathBuf> {
        let lld = self.rustlib().join(&self.host).join("bin/rust-lld");
        lld.is_file().then_some(lld)
    }

    /// Whether the sources of std are there.
    pub fn has_sources(&self) -> bool {
        self.rustlib().join("src/rust/library/Cargo.lock").is_file()
    }
}

/// Everything that was found for one triple.
#[derive(Debug)]
pub struct Found {
    /// The usual compiler.
    pub rust: Rust,
    /// The second one.
    pub fallback: Option<Rust>,
    /// How zig is called.
    pub zig: Option<Vec<String>>,
    /// A folder with musl and its start files.
    pub musl: Option<PathBuf>,
    std: bool,
    crt: bool,
    /// The last line of a `rustup target add` that failed.
    pub rustup: Option<String>,
}

/// How an agent is built. The order is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recipe {
    /// std built anew, for size.
    APlus,
    /// The std that came with the toolchain.
    A,
    /// Another compiler with library sources, linked by zig.
    B,
    /// Another compiler with library sources, `rust-lld`, and a musl from elsewhere.
    C,
}

impl Recipe {
    /// Its name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::A => "a",
            Recipe::APlus => "a+",
            Recipe::B => "b",
            Recipe::C => "c",
        }
    }
}

impl Found {
    /// Looks for everything that building for `triple` may need.
    ///
    /// # Errors
    ///
    /// When there is no compiler at all.
    pub fn look(triple: &Triple) -> Result<Found> {
        let rust = Rust::usual()?;
        Ok(Found {
            std: rust.has_std(triple),
            crt: rust.has_crt(triple),
            rust,
            fallback: Rust::fallback(),
            zig: crate::zig::find(),
            musl: musl(triple),
            rustup: None,
        })
    }

    /// Lets rustup fetch what is missing for the first recipes.
    pub fn install(&mut self, triple: &Triple) {
        let steps: [(&[&str], bool); 2] = [
            (&["target", "add", triple.name], self.std && self.crt),
            (&["component", "add", "rust-src"], self.rust.has_sources()),
        ];
        for (arguments, there) in steps {
            if !there && let Err(error) = run::read(Command::new("rustup").args(arguments)) {
                self.rustup = Some(format!("{error:#}"));
            }
        }
        self.std = self.rust.has_std(triple);
        self.crt = self.rust.has_crt(triple);
    }

    /// Whether the recipe can be followed.
    pub fn allows(&self, recipe: Recipe) -> bool {
        let prebuilt = self.std && self.crt && self.rust.lld().is_some();
        match recipe {
            Recipe::A => prebuilt,
            Recipe::APlus => prebuilt && self.rust.has_sources(),
            Recipe::B => self.fallback.is_some() && self.zig.is_some(),
            Recipe::C => self.fallback.is_some() && self.musl.is_some() && self.rust.lld().is_some(),
        }
    }

    /// The first recipe that can be followed.
    pub fn best(&self) -> Option<Recipe> {
        [Recipe::APlus, Recipe::A, Recipe::B, Recipe::C].into_iter().find(|&recipe| self.allows(recipe))
    }

    /// The first recipe that can be followed for an image. The std of the toolchain is first: panics unwind in an image, and
    /// it may need speed more than an agent does.
    pub fn best_for_images(&self) -> Option<Recipe> {
        [Recipe::A, Recipe::APlus, Recipe::B, Recipe::C].into_iter().find(|&recipe| self.allows(recipe))
    }

    /// The recipe by which `what`, an agent or an image, is built; else says what is missing, and what to do.
    ///
    /// # Errors
    ///
    /// Always, unless `recipe` (or, without one, any) can be followed.
    pub fn require(&self, what: &str, triple: &Triple, recipe: Option<Recipe>) -> Result<Recipe> {
        let chosen = match recipe {
            Some(recipe) => Some(recipe).filter(|&r| self.allows(r)),
            None => self.best(),
        };
        ensure!(chosen.is_some(), "{}", self.explain(what, triple, recipe));
        chosen.context("no recipe")
    }

    fn explain(&self, what: &str, triple: &Triple, recipe: Option<Recipe>) -> String {
        let word = |there: bool| if there { "found" } else { "missing" };
        let name = triple.name;
        let mut text = format!("cannot build the {what} for {name}");
        if let Some(recipe) = recipe {
            let _ = write!(text, " by recipe {}", recipe.name());
        }
        let _ = write!(
            text,
            "\n  prebuilt std   {:14} musl and its start files  {}\n  rust-src       {:14} rust-lld  {}",
            word(self.std),
            word(self.crt),
            word(self.rust.has_sources()),
            word(self.rust.lld().is_some()),
        );
        if let Some(failure) = &self.rustup {
            let _ = write!(text, "\n  rustup         {failure}");
        }
        let rustc = match &self.fallback {
            Some(rust) => format!("rustc {}", rust.version),
            None => "no rustc with library sources (OFFSHOOT_RUSTC)".to_string(),
        };
        let zig = match &self.zig {
            Some(zig) => zig.join(" "),
            None => "no zig (OFFSHOOT_ZIG)".to_string(),
        };
        let musl = match &self.musl {
            Some(_) => "musl found",
            None => "no musl (OFFSHOOT_MUSL)",
        };
        let _ = write!(text, "\n  fallback       {rustc}, {zig}, {musl}");
        text.push_str("\nfix: ");
        if !matches!(recipe, Some(Recipe::B | Recipe::C)) {
            let _ = write!(text, "rustup target add {name} && rustup component add rust-src\n or: ");
        }
        text.push_str("install rustc-web, rust-web-src and libstd-rust-web-dev (apt), and ");
        let linker = match recipe {
            Some(Recipe::C) => "musl-dev of the target's architecture (apt)",
            _ => "ziglang (pip)",
        };
        let _ = write!(text, "{linker}, then run again");
        text
    }
}

/// A musl for recipe C: `OFFSHOOT_MUSL`, or where Debian's `musl-dev` puts it.
fn musl(triple: &Triple) -> Option<PathBuf> {
    let named = std::env::var_os("OFFSHOOT_MUSL").map(PathBuf::from);
    let usual = Path::new("/usr/lib").join(triple.musl);
    named.into_iter().chain([usual]).find(|folder| folder.join("crt1.o").is_file() && folder.join("libc.a").is_file())
}
