//! The images of a user's program, one for each triple, and the one file that holds them with the agents.
//!
//! An image is the program itself, static, with the stamp of its build; so the master's own executable is the image for
//! its triple. The one file is that executable with all of them behind its end, packed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use offshoot_connect::bundle::Bundle;
use offshoot_image::onefile::{self, Appended, Kind, OneFileError, PART_MAX};
use offshoot_image::{elf, stamp};

use crate::agent::bundle_name;
use crate::build_id::build_id;
use crate::flags::Flags;
use crate::metadata::{Metadata, Package, Program};
use crate::recipe::{self, Job, Product};
use crate::toolchain::{Found, Recipe};
use crate::triples::Triple;
use crate::write;

/// How to build images.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// cargo's words for features: `--features`, `a,b`, `--no-default-features`, …
    pub features: Vec<String>,
    /// cargo's profile: `release`, `dev`, or one of the workspace's.
    pub profile: String,
    /// The recipe; by default [the best for images](Found::best_for_images).
    pub recipe: Option<Recipe>,
    /// Whether rustup may fetch what is missing.
    pub install: bool,
    /// cargo's words about the lock file and the network: `--locked`, `--offline`, `--frozen`.
    pub lock: Vec<String>,
    /// The folder that cargo runs in, whose configuration holds; by default the workspace's.
    pub from: Option<PathBuf>,
    /// The user's flags for the compiler; by default none.
    pub flags: Flags,
}

impl Options {
    /// The release profile with the default features, by the best recipe; with what `change` makes of that.
    #[must_use]
    pub fn with(change: impl FnOnce(&mut Options)) -> Options {
        let mut options = Options {
            features: Vec::new(),
            profile: "release".into(),
            recipe: None,
            install: false,
            lock: Vec::new(),
            from: None,
            flags: Flags::default(),
        };
        change(&mut options);
        options
    }
}

/// One image.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Image {
    /// Its triple.
    pub triple: &'static str,
    /// How it was built.
    pub recipe: Recipe,
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: usize,
}

/// The images of one build of a program.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Images {
    /// The program.
    pub program: Program,
    /// The id that all of them carry.
    pub id: String,
    /// The images, in the order asked for.
    pub all: Vec<Image>,
}

/// The file name of a program's image.
pub fn image_name(program: &str, triple: &str) -> String {
    format!("{program}-{triple}")
}

/// Builds the program for each triple, into `images` in cargo's folder. There a program that was built along with them
/// finds them.
///
/// # Errors
///
/// At the first triple that the program cannot be built for here, which says what is missing; or when what came out is not static or not of the
/// triple, does not carry the id (then the program does not use offshoot), or is longer than an image may be.
pub fn build(
    metadata: &Metadata,
    package: &Package,
    program: &Program,
    triples: &[&'static Triple],
    options: &Options,
) -> Result<Images> {
    let id = build_id(metadata, package, program, &options.features, &options.flags.conditions())?;
    let out = metadata.target_directory.join("images");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let folder = metadata.target_directory.join("offshoot");
    let mut all = Vec::new();
    for (triple, found, recipe) in recipes(triples, options)? {
        let mut select = program.select();
        // Cargo may run in another folder than the workspace's.
        select.extend(["--manifest-path".into(), package.manifest_path.clone().into()]);
        select.extend(options.features.iter().chain(&options.lock).map(Into::into));
        select.extend(["--profile".into(), (&options.profile).into()]);
        let mut executable = PathBuf::from(if options.profile == "dev" { "debug" } else { &options.profile });
        if program.example {
            executable.push("examples");
        }
        executable.push(&program.name);
        let job = Job {
            from: options.from.as_deref().unwrap_or(&metadata.workspace_root),
            root: &metadata.workspace_root,
            folder: &folder,
            verb: "build",
            select,
            executable,
            product: Product::Image(&id, &options.flags),
        };
        let (executable, _) = recipe::build(&job, triple, recipe, &found)?;
        let linked = std::fs::read(&executable).with_context(|| format!("cannot read {}", executable.display()))?;
        let image = elf::trimmed(linked);
        let about = || format!("the image for {} by recipe {} is no good", triple.name, recipe.name());
        recipe::check_elf(&image, triple).with_context(about)?;
        check_stamp(&image, &id).with_context(about)?;
        fits(image.len(), PART_MAX).with_context(about)?;
        let path = out.join(image_name(&program.name, triple.name));
        write(&path, &image, 0o755)?;
        all.push(Image { triple: triple.name, recipe, path, bytes: image.len() });
    }
    // By the same id they would be taken for one program, and read each other's values wrongly.
    let after = build_id(metadata, package, program, &options.features, &options.flags.conditions())?;
    ensure!(after == id, "the sources changed while the images were built: build them again");
    Ok(Images { program: program.clone(), id, all })
}

/// By which recipe each image is built; before any is, for that takes minutes.
fn recipes(triples: &[&'static Triple], options: &Options) -> Result<Vec<(&'static Triple, Found, Recipe)>> {
    let one = |triple: &'static Triple| {
        let mut found = Found::look(triple)?;
        if options.install {
            found.install(triple);
        }
        let recipe = found.require("image", triple, options.recipe.or(found.best_for_images()))?;
        Ok((triple, found, recipe))
    };
    triples.iter().copied().map(one).collect()
}

/// An image may be as long as that.
///
/// # Errors
///
/// When it is longer, with what to do.
pub(crate) fn fits(len: usize, limit: u64) -> Result<()> {
    let [is, may] = [len as u64, limit].map(onefile::mib);
    ensure!(len as u64 <= limit, "it is {is} long, and may be {may}\nfix: {SMALLER}");
    Ok(())
}

/// What makes an image smaller.
const SMALLER: &str = "leave large data out of the program, and send it as a file or a stream; `opt-level = \"s\"` and \
                       `lto = true` in the profile make the code smaller";

fn check_stamp(image: &[u8], id: &str) -> Result<()> {
    match stamp::find(image) {
        Some(found) => ensure!(found == id, "it is stamped {found}, expected {id}"),
        None => bail!(
            "it has no stamp: the program does not use offshoot's remote functions\n\
             fix: put `#[offshoot::main]` before `main`, or call `offshoot::init()` there; where a feature of the program \
             brings offshoot, activate it with -F"
        ),
    }
    Ok(())
}

/// Puts the one file together: the image for `base`, which is the executable, and behind it all images, packed, and
/// the agents for them from the folder `agents`.
///
/// # Errors
///
/// When there is no image for `base`, an agent is missing or damaged, or a file cannot be read or written.
pub fn one_file(images: &Images, base: &Triple, agents: &Path, out: &Path) -> Result<usize> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let executable = images.all.iter().find(|image| image.triple == base.name);
    let executable = executable.with_context(|| format!("no image for {} to put the others behind", base.name))?;
    let mut parts = Vec::new();
    for image in &images.all {
        let path = agents.join(bundle_name(image.triple));
        let bundle = read(&path)?;
        Bundle::decode(bundle.clone()).with_context(|| format!("{} is no good", path.display()))?;
        parts.push((Kind::Agent, image.triple, bundle));
        // That for `base` too: packed it is a third as long to send as the executable itself.
        parts.push((Kind::Image, image.triple, read(&image.path)?));
    }
    let appended: Vec<Appended<'_>> =
        parts.iter().map(|(kind, triple, bytes)| Appended::new(*kind, triple, bytes)).collect();
    let file = match onefile::append(&read(&executable.path)?, &appended) {
        Err(error @ OneFileError::TooLarge { .. }) => bail!("{error}\nfix: {SMALLER}"),
        file => file?,
    };
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    write(out, &file, 0o755)?;
    Ok(file.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_too_long_is_told_with_its_size_the_limit_and_what_to_do() {
        assert!(fits(128 << 20, 128 << 20).is_ok());
        let error = fits((128 << 20) + 1, 128 << 20).unwrap_err().to_string();
        assert!(error.starts_with("it is 128.1 MiB long, and may be 128 MiB\nfix: leave large data out"), "{error}");
    }
}
