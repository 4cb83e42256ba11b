//! The flags for the compiler that users give cargo, and which of them images are built with.
//!
//! Cargo takes one of its sources: the environment, what its configuration says of a triple, or what it says of every
//! build. The flags of a recipe have to come on top of that; so the sources are read here, and cargo gets all in one. What
//! says how to link, and what is for this machine alone, would make images that do not run elsewhere: it is left out,
//! and told.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run;
use crate::triples::{ALL, Triple};

/// The flags of a user for each triple.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// By the place in [`ALL`].
    given: [Vec<Flag>; ALL.len()],
    /// What cannot be taken, and why.
    notes: BTreeSet<String>,
}

/// One flag: its word, and the words that belong to it.
type Flag = Vec<String>;

/// What decides how an image is linked: the recipe's business.
const LINKING: [&str; 9] = [
    "linker",
    "linker-flavor",
    "link-arg",
    "link-args",
    "link-self-contained",
    "prefer-dynamic",
    "relocation-model",
    "default-linker-libraries",
    "panic",
];

impl Flags {
    /// The flags that cargo would take in `folder`.
    pub fn look(folder: &Path) -> Flags {
        let variable = |name: &str| std::env::var(name).ok();
        match config(folder) {
            Ok(config) => Flags::of(&variable, &config),
            // How cargo tells it is not settled; the environment's are known all the same.
            Err(error) => {
                let mut flags = Flags::of(&variable, &Value::Null);
                flags.notes.insert(format!("rustflags of cargo's configuration are left out: {error:#}"));
                flags
            }
        }
    }

    /// The same, of these variables and this configuration.
    fn of(variable: &dyn Fn(&str) -> Option<String>, config: &Value) -> Flags {
        let spaced = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        let environment = match variable("CARGO_ENCODED_RUSTFLAGS") {
            Some(encoded) => Some(encoded.split('\x1f').filter(|word| !word.is_empty()).map(String::from).collect()),
            None => variable("RUSTFLAGS").map(|text| spaced(&text)),
        };
        let with = |from: &Value, name: &str| {
            let mut words = match &from["rustflags"] {
                Value::String(text) => spaced(text),
                Value::Array(words) => words.iter().filter_map(Value::as_str).map(String::from).collect(),
                _ => Vec::new(),
            };
            words.extend(variable(name).map(|text| spaced(&text)).unwrap_or_default());
            words
        };
        let always = with(&config["build"], "CARGO_BUILD_RUSTFLAGS");
        let mut flags = Flags::default();
        for (triple, given) in ALL.iter().zip(&mut flags.given) {
            let words = environment.clone().unwrap_or_else(|| {
                let name = triple.name.to_uppercase().replace('-', "_");
                let own = with(&config["target"][triple.name], &format!("CARGO_TARGET_{name}_RUSTFLAGS"));
                if own.is_empty() { always.clone() } else { own }
            });
            for flag in split(&words) {
                match refused(&flag) {
                    None => given.push(flag),
                    Some(why) => drop(flags.notes.insert(format!("`{}` is left out: {why}", flag.join(" ")))),
                }
            }
        }
        let conditional = config["target"].as_object().into_iter().flatten();
        for (condition, _) in conditional.filter(|(key, of)| key.starts_with("cfg(") && !of["rustflags"].is_null()) {
            if environment.is_none() {
                let why = "say build.rustflags, target.TRIPLE.rustflags or RUSTFLAGS instead";
                flags.notes.insert(format!("rustflags of target.'{condition}' are left out: {why}"));
            }
        }
        flags
    }

    /// The compiler's words for a triple.
    pub(crate) fn words(&self, triple: &Triple) -> Vec<String> {
        let at = ALL.iter().position(|of| of == triple);
        at.map(|at| self.given[at].concat()).unwrap_or_default()
    }

    /// The conditions that are set for any triple: they can change types. Sorted, each once.
    pub(crate) fn conditions(&self) -> Vec<String> {
        let conditions = self.given.iter().flatten().filter_map(|flag| option(flag, &["--cfg"]));
        let conditions: BTreeSet<String> = conditions.collect();
        conditions.into_iter().collect()
    }

    /// What is left out, a line each.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }
}

/// What cargo's configuration says, of all files that hold in `folder`.
fn config(folder: &Path) -> Result<Value> {
    let mut command = Command::new(crate::cargo());
    // Only a development cargo has this command, or one that is told to be.
    command.args(["-Zunstable-options", "config", "get", "--format", "json"]).current_dir(folder);
    let text = run::read(command.env("RUSTC_BOOTSTRAP", "1"))?;
    serde_json::from_str(&text).context("cannot read cargo's configuration")
}

/// A word that begins with a dash begins a flag.
fn split(words: &[String]) -> Vec<Flag> {
    let mut flags: Vec<Flag> = Vec::new();
    for word in words {
        match flags.last_mut() {
            Some(flag) if !word.starts_with('-') => flag.push(word.clone()),
            _ => flags.push(vec![word.clone()]),
        }
    }
    flags
}

/// What a flag of one of these names says, however it is written: `-C x`, `-Cx`, `--codegen=x`.
fn option(flag: &Flag, names: &[&str]) -> Option<String> {
    let text = flag.join(" ");
    names.iter().find_map(|name| {
        let rest = text.strip_prefix(name)?;
        match rest.strip_prefix(['=', ' ']) {
            Some(value) => Some(value.trim().to_string()),
            // A short flag needs nothing between.
            None => (!name.starts_with("--")).then(|| rest.to_string()),
        }
    })
}

/// Why a flag is not taken.
fn refused(flag: &Flag) -> Option<&'static str> {
    let codegen = option(flag, &["-C", "--codegen"])?;
    let (name, value) = codegen.split_once('=').unwrap_or((&codegen, ""));
    let name = name.replace('_', "-");
    if LINKING.contains(&name.as_str()) {
        Some("images are linked, and unwind, by their recipe")
    } else if name == "target-cpu" && value == "native" {
        Some("an image runs on other machines than this one")
    } else if name == "target-feature" && value.contains("crt-static") {
        Some("an image is always static")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(variables: &[(&str, &str)], config: Value) -> Flags {
        let variable = |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, text)| text.to_string());
        Flags::of(&variable, &config)
    }

    fn words(flags: &Flags) -> [String; 2] {
        [&ALL[0], &ALL[1]].map(|triple| flags.words(triple).join(" "))
    }

    #[test]
    fn one_source_is_taken_as_cargo_takes_it() {
        let config = json!({
            "build": { "rustflags": ["--cfg", "every"] },
            "target": { "aarch64-unknown-linux-musl": { "rustflags": "--cfg arm" } },
        });
        assert_eq!(words(&of(&[], config.clone())), ["--cfg every", "--cfg arm"]);
        assert_eq!(words(&of(&[("RUSTFLAGS", " --cfg  x ")], config.clone())), ["--cfg x", "--cfg x"]);
        let encoded = ("CARGO_ENCODED_RUSTFLAGS", "--cfg\x1fa=\"b c\"");
        assert_eq!(words(&of(&[encoded, ("RUSTFLAGS", "--cfg x")], config)), ["--cfg a=\"b c\"", "--cfg a=\"b c\""]);
        let variables =
            [("CARGO_BUILD_RUSTFLAGS", "-Dwarnings"), ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS", "--cfg y")];
        assert_eq!(words(&of(&variables, json!({}))), ["--cfg y", "-Dwarnings"]);
        assert_eq!(words(&of(&[], json!({}))), ["", ""]);
    }

    #[test]
    fn what_would_bind_an_image_to_this_machine_is_left_out_and_told() {
        let given = "-C target-cpu=native -Clinker=clang --codegen link-arg=-fuse-ld=mold --codegen=panic=abort \
                     -Ctarget-feature=-crt-static --cfg tokio_unstable -Ctarget-cpu=x86-64-v3 -Copt-level=1";
        let flags = of(&[("RUSTFLAGS", given)], json!({}));
        assert_eq!(words(&flags)[0], "--cfg tokio_unstable -Ctarget-cpu=x86-64-v3 -Copt-level=1");
        let notes: Vec<&str> = flags.notes().collect();
        assert_eq!(notes.len(), 5, "{notes:?}");
        assert!(notes.contains(&"`-C target-cpu=native` is left out: an image runs on other machines than this one"));
        let conditional = json!({ "target": { "cfg(unix)": { "rustflags": [] } } });
        let flags = of(&[], conditional);
        let note = flags.notes().next().expect("a note");
        assert!(note.starts_with("rustflags of target.'cfg(unix)' are left out: say build.rustflags"), "{note}");
    }

    #[test]
    fn conditions_are_told_however_they_are_written() {
        let flags = of(&[("RUSTFLAGS", "--cfg b --cfg=a -Cdebuginfo=0 --cfg=b")], json!({}));
        assert_eq!(flags.conditions(), ["a", "b"]);
    }

    #[test]
    fn the_configuration_of_the_folder_and_of_those_above_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("member");
        for (at, condition) in [(folder.path(), "above"), (&below, "below")] {
            std::fs::create_dir_all(at.join(".cargo")).unwrap();
            let text = format!("[target.riscv64gc-unknown-linux-musl]\nrustflags = [\"--cfg\", \"{condition}\"]\n");
            std::fs::write(at.join(".cargo/config.toml"), text).unwrap();
        }
        let config = config(&below).unwrap();
        let words = of(&[], config).words(&ALL[4]);
        assert!(words.contains(&"above".to_string()) && words.contains(&"below".to_string()), "{words:?}");
    }
}
