//! `cargo offshoot` on a user's own crate, which lies outside of this workspace and names offshoot by its path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use offshoot_build::toolchain::Found;
use offshoot_build::triples::{ALL, Triple};
use offshoot_image::onefile::{Kind, OneFile};
use offshoot_tests::bounded::{self, Finished};
use offshoot_tests::{Tag, host, not_run, product};
use tempfile::TempDir;

/// Three times the two seconds in which everything must be gone after a normal end.
const GONE: Duration = Duration::from_secs(6);

/// All that offshoot needs is built anew, on a machine that does other things besides.
const BUILD: Duration = Duration::from_secs(540);

/// The same, optimized, for two triples, with the agents and their std.
const ALL_OF_IT: Duration = Duration::from_secs(3600);

const MAIN: &str = r#"
use offshoot::prelude::*;

#[offshoot::remote]
fn greeting(here: &Here, name: String) -> String {
    format!("{name} is greeted in {}", here.context().path())
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Box<dyn std::error::Error>> {
    let mut context = master.context().clone();
    for name in std::env::args().skip(1) {
        context = context.local().connect()?;
        println!("{}", greeting::on(&context, name)?);
    }
    Ok(())
}
"#;

/// A program that compiles only with a feature, by which another crate comes, and a condition that only a flag sets.
const PARTICULAR: &str = r#"
#[cfg(not(told))]
compile_error!("the condition is not set");

use offshoot::prelude::*;

#[offshoot::remote]
fn greeting(here: &Here, name: words::Name) -> String {
    format!("{} is greeted in {}", name.0, here.context().path())
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Box<dyn std::error::Error>> {
    let mut context = master.context().clone();
    for name in std::env::args().skip(1) {
        context = context.local().connect()?;
        println!("{}", greeting::on(&context, words::Name(name))?);
    }
    Ok(())
}
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

fn write(folder: &TempDir, path: &str, text: &str) {
    let path = folder.path().join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("written");
}

/// A folder whose name is no single word, with the versions that are on this machine: nothing is fetched.
fn user_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("a user's folder ").tempdir().expect("a folder");
    fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("copied");
    folder
}

fn package(name: &str, rest: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{rest}\n")
}

/// A line for a manifest's dependencies. A literal string of TOML, where nothing in a path means anything else.
fn offshoot(more: &str) -> String {
    format!("offshoot = {{ path = '{}', default-features = false{more} }}", root().join("crates/offshoot").display())
}

/// A crate with these dependencies.
fn user_crate(dependencies: &str) -> TempDir {
    let folder = user_folder();
    write(&folder, "Cargo.toml", &package("greeter", &format!("[dependencies]\n{dependencies}")));
    write(&folder, "src/main.rs", MAIN);
    folder
}

fn on_offshoot() -> TempDir {
    user_crate(&offshoot(""))
}

/// A workspace whose member has two programs, and needs a feature, a crate beside it, and a flag of its configuration.
fn user_workspace() -> TempDir {
    let folder = user_folder();
    write(&folder, "Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"greeter\", \"words\"]\n");
    let dependencies =
        "words = { path = \"../words\", optional = true }\nserde = { version = \"1\", features = [\"derive\"] }";
    let optional = offshoot(", optional = true");
    let features = "[features]\npolite = [\"dep:words\", \"dep:offshoot\"]\n\n[dependencies]";
    write(&folder, "greeter/Cargo.toml", &package("greeter", &format!("{features}\n{optional}\n{dependencies}")));
    write(&folder, "greeter/src/bin/polite.rs", PARTICULAR);
    write(&folder, "greeter/src/bin/rude.rs", "fn main() {}\n");
    write(&folder, "greeter/.cargo/config.toml", "[build]\nrustflags = [\"--cfg\", \"told\"]\n");
    let serde = "[dependencies]\nserde = { version = \"1\", features = [\"derive\"] }";
    write(&folder, "words/Cargo.toml", &package("words", serde));
    let name = "#[derive(serde::Serialize, serde::Deserialize)]\npub struct Name(pub String);\n";
    write(&folder, "words/src/lib.rs", name);
    folder
}

/// `cargo offshoot`, built.
fn program() -> PathBuf {
    let build_folder = host::build_folder();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(&cargo);
    build.args(["build", "--quiet", "--package", "cargo-offshoot", "--manifest-path"]).arg(root().join("Cargo.toml"));
    build.arg("--target-dir").arg(build_folder.parent().unwrap_or(&build_folder));
    bounded::run(&mut build, None, BUILD).expect_code(0);
    build_folder.join("cargo-offshoot")
}

/// It, called as cargo calls it.
fn called(mut command: Command, from: &Path, words: &[&str]) -> Command {
    command.arg("offshoot").args(words).current_dir(from).env("CARGO_NET_OFFLINE", "true");
    // What cargo tells a test of its own package.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

fn cargo_offshoot(from: &Path, words: &[&str], limit: Duration) -> Finished {
    bounded::run(&mut called(Command::new(program()), from, words), None, limit)
}

fn agents() -> String {
    product::agents();
    host::build_folder().with_file_name("agents").display().to_string()
}

/// Whether an image can be built for this machine, else why not.
fn buildable() -> Result<&'static Triple, String> {
    let own = Triple::of_this_machine().expect("this machine is known");
    match Found::look(own).expect("a compiler").best_for_images() {
        Some(_) => Ok(own),
        None => Err(format!("no image can be built for {}; `cargo offshoot triples` says why", own.name)),
    }
}

/// Runs the program somewhere else and under another name; both its contexts greet.
fn greets(tag: &Tag, file: &Path) {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let place = elsewhere.path().join("hello there");
    fs::copy(file, &place).expect("copied");
    let mut command = tag.command(&place);
    command.args(["Ada", "Grace"]).current_dir(elsewhere.path());
    let done = bounded::run(&mut command, None, Duration::from_secs(60));
    done.expect_code(0);
    assert_eq!(
        done.out(),
        "Ada is greeted in local -> worker\nGrace is greeted in local -> local -> worker\n",
        "{done}"
    );
}

/// `build 0123456789ab` of what was printed.
fn build_of(told: &str) -> String {
    let part = told.lines().rev().flat_map(|line| line.split(", ")).find(|part| part.starts_with("build "));
    part.unwrap_or_else(|| panic!("no id\n{told}")).to_string()
}

/// One test for all of these, since each build of what offshoot needs takes a minute.
#[test]
fn a_crate_of_its_own_becomes_one_file_with_its_features_its_configuration_and_its_flags_wherever_it_is_built_from() {
    let name = "a_crate_of_its_own_becomes_one_file_with_its_features_its_configuration_and_its_flags_wherever_it_is_built_from";
    let own = match buildable() {
        Ok(own) => own,
        Err(reason) => not_run!(name, reason),
    };
    let tag = Tag::new("outside");
    let folder = user_workspace();
    let member = folder.path().join("greeter");
    let agents = agents();
    let common = ["--bin", "polite", "-F", "polite", "--profile", "dev", "--triple", own.name, "--agents", &agents];
    let first = cargo_offshoot(&member, &[&["build"], &common[..], &["-o", "hello"]].concat(), BUILD);
    first.expect_code(0);
    assert!(first.out().contains(&format!("image {}: recipe ", own.name)), "{first}");
    assert!(first.out().ends_with(", hello\n"), "{first}");
    greets(&tag, &member.join("hello"));

    // From another folder, of whose configuration nothing is known; the flags are the same, but for one that is not taken.
    let words =
        [&["run", "--manifest-path", "greeter/Cargo.toml"], &common[..], &["-o", "hello", "--", "Ada"]].concat();
    let mut run = called(tag.command(program()), folder.path(), &words);
    let second = bounded::run(run.env("RUSTFLAGS", "--cfg told -C target-cpu=native"), None, BUILD);
    second.expect_code(0);
    assert!(
        second.err().contains("note: `-C target-cpu=native` is left out: an image runs on other machines"),
        "{second}"
    );
    // What cargo offshoot itself says does not go where the program's output goes.
    assert_eq!(second.out(), "Ada is greeted in local -> worker\n", "{second}");
    assert_eq!(
        build_of(&second.err()),
        build_of(&first.out()),
        "what was built first is no source of the second\n{second}"
    );
    tag.assert_nothing_left(GONE);
}

/// As a new user does it: nothing is said, so images and agents are built for both default triples, optimized and from the sources.
#[test]
#[ignore = "takes minutes: `cargo xtask fleet` runs it"]
fn a_crate_of_its_own_becomes_one_file_for_both_default_triples_with_agents_from_the_sources() {
    let name = "a_crate_of_its_own_becomes_one_file_for_both_default_triples_with_agents_from_the_sources";
    if let Err(reason) = buildable() {
        not_run!(name, reason);
    }
    let tag = Tag::new("default");
    let folder = on_offshoot();
    let done = cargo_offshoot(folder.path(), &["build"], ALL_OF_IT);
    done.expect_code(0);
    println!("{done}");
    let file = folder.path().join("target/offshoot/greeter");
    let one = OneFile::open(fs::File::open(&file).expect("the file")).expect("readable").expect("parts");
    for triple in &ALL[..2] {
        for (kind, word) in [(Kind::Agent, "agent"), (Kind::Image, "image")] {
            assert!(one.find(kind, triple.name).is_some(), "an {word} for {}", triple.name);
            assert!(done.out().contains(&format!("{word} {}: recipe ", triple.name)), "{done}");
        }
    }
    greets(&tag, &file);
    tag.assert_nothing_left(GONE);
}

#[test]
fn what_is_missing_is_told_before_anything_is_built_and_with_the_command_that_brings_it() {
    let folder = on_offshoot();
    let empty = tempfile::tempdir().expect("a folder");
    let no_agents = empty.path().display().to_string();
    let quick = Duration::from_secs(60);
    for (words, said) in [
        (
            &["build", "--triple", "sparc-sun-solaris"][..],
            &["error: no agent can be built for sparc-sun-solaris", "known: x86_64-unknown-linux-musl"][..],
        ),
        (
            &["build", "--images-only", "--recipe", "c", "--triple", "riscv64gc-unknown-linux-musl"],
            &["error: cannot build the image for ", " by recipe c\n", "\nfix: install rustc-web", "musl-dev"],
        ),
        (&["build", "--agents", &no_agents], &["error: no agent for ", "\nfix: leave --agents away"]),
        (&["build", "--bin", "other"], &["error: greeter has no bin other", "there are: greeter"]),
        (&["run", "--images-only"], &["error: with --images-only there is nothing to run"]),
    ] {
        let done = cargo_offshoot(folder.path(), words, quick);
        done.expect_code(1);
        for part in said {
            assert!(done.err().contains(part), "{words:?}: {part:?} is missing\n{done}");
        }
        assert!(!folder.path().join("target/offshoot").exists(), "{words:?} has built something\n{done}");
    }
    let without = user_crate("");
    let done = cargo_offshoot(without.path(), &["build"], quick);
    done.expect_code(1);
    assert!(done.err().contains("error: the program does not depend on offshoot\nfix: cargo add offshoot"), "{done}");
}

#[test]
fn a_member_and_its_program_are_found_by_its_folder_and_by_its_manifest_also_when_a_feature_brings_offshoot() {
    let folder = user_workspace();
    let empty = tempfile::tempdir().expect("a folder");
    let no_agents = empty.path().display().to_string();
    let which = "error: which binary of greeter?\n  there are: polite, rude\nfix: say --bin NAME";
    for (from, words, said) in [
        ("greeter", &["build"][..], which),
        ("greeter/src/bin", &["build"], which),
        (".", &["build", "--manifest-path", "greeter/Cargo.toml"], which),
        ("greeter", &["build", "--manifest-path", "Cargo.toml"], which),
        ("words", &["build", "--manifest-path", "../greeter/Cargo.toml"], which),
        (".", &["build", "-p", "greeter"], which),
        ("words", &["build"], "error: words has no binary"),
        (".", &["build", "--manifest-path", "nowhere/Cargo.toml"], "error: cannot find "),
        // It has found offshoot then.
        ("greeter", &["build", "--bin", "polite", "-F", "polite", "--agents", &no_agents], "error: no agent for "),
    ] {
        let done = cargo_offshoot(&folder.path().join(from), words, Duration::from_secs(60));
        done.expect_code(1);
        assert!(done.err().contains(said), "{from}, {words:?}: {said:?} is missing\n{done}");
    }
    let lock = folder.path().join("Cargo.lock");
    let before = "version = 4\n";
    fs::write(&lock, before).expect("written");
    let done = cargo_offshoot(&folder.path().join("greeter"), &["build", "--bin", "polite", "--locked"], BUILD);
    done.expect_code(1);
    assert!(done.err().contains("error: cargo metadata failed") && done.err().contains("--locked"), "{done}");
    assert_eq!(fs::read_to_string(&lock).expect("still there"), before);
}

/// A crate of remote functions, and programs that depend on it: one names it, one names a function of it, one does neither.
fn with_errands() -> TempDir {
    let offshoot = offshoot("");
    let folder = user_crate(&format!("{offshoot}\nerrands = {{ path = 'errands' }}\n\n[workspace]"));
    // Known by another name, as a dependency can be.
    let renamed = offshoot.replacen("offshoot = {", "cluster = { package = 'offshoot',", 1);
    write(&folder, "errands/Cargo.toml", &package("errands", &format!("[dependencies]\n{renamed}")));
    let write = |path: &str, text: &str| write(&folder, path, text);
    write(
        "errands/src/lib.rs",
        "#[cluster::remote(crate = cluster)]\npub fn weekday(day: u8) -> String {\n    format!(\"day {day}\")\n}\n",
    );
    let main = |first: &str, call: &str| {
        format!(
            "{first}\nuse offshoot::prelude::*;\n#[offshoot::remote]\nfn own() {{}}\n#[offshoot::main]\nfn main(master: &Master) -> Result<(), \
             offshoot::Error> {{\n    let context = master.local().connect()?;\n    own::on(&context)?;\n    println!(\"{{}}\", {call}?);\n    Ok(())\n}}\n"
        )
    };
    // As one calls who has the function's name from elsewhere: whoever names the function names its crate.
    let by_name = "offshoot::__expansion::call::<_, String>(\"errands::weekday@0.1.0\", &(3u8,)).on(&context)";
    write("src/bin/called.rs", &main("", "errands::weekday::on(&context, 3)"));
    write("src/bin/named.rs", &main("use errands as _;", by_name));
    write("src/bin/unnamed.rs", &main("", by_name));
    // A library of the same name as the program, with a function of the same name.
    write("src/lib.rs", "#[offshoot::remote]\npub fn own() -> String {\n    \"the library's\".into()\n}\n");
    write("src/main.rs", &main("", "greeter::own::on(&context)"));
    folder
}

#[test]
fn a_function_of_a_crate_that_nothing_names_is_told_with_what_to_write() {
    let tag = Tag::new("dropped");
    let folder = with_errands();
    let target = host::build_folder().with_file_name("outside");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--offline", "--bins"]).current_dir(folder.path()).env("CARGO_TARGET_DIR", &target);
    build.env("CARGO_PROFILE_DEV_DEBUG", "0");
    bounded::run(&mut build, None, BUILD).expect_code(0);
    let run = |name: &str| {
        let mut command = tag.command(target.join("debug").join(name));
        bounded::run(command.current_dir(folder.path()), None, Duration::from_secs(60))
    };
    for name in ["called", "named"] {
        let done = run(name);
        done.expect_code(0);
        assert_eq!(done.out(), "day 3\n", "{name}: {done}");
    }
    let done = run("greeter");
    done.expect_code(0);
    assert_eq!(done.out(), "the library's\n", "{done}");
    let done = run("unnamed");
    done.expect_code(1);
    for part in ["no function errands::weekday is among the 1 that are registered there", "`use errands as _;`"] {
        assert!(done.err().contains(part), "{part:?} is missing\n{done}");
    }
    tag.assert_nothing_left(GONE);
}
