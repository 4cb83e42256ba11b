//! `cargo offshoot` on a user's own crate, which lies outside of this workspace and names offshoot by its path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use offshoot_build::toolchain::Found;
use offshoot_build::triples::Triple;
use offshoot_tests::bounded::{self, Finished};
use offshoot_tests::{Tag, host, not_run, product};
use tempfile::TempDir;

/// Three times the two seconds in which everything must be gone after a normal end.
const GONE: Duration = Duration::from_secs(6);

/// All that offshoot needs is built anew, on a machine that does other things besides.
const BUILD: Duration = Duration::from_secs(540);

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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

/// A crate in a folder whose name is no single word, with these dependencies.
fn user_crate(dependencies: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix("a user's folder ").tempdir().expect("a folder");
    fs::create_dir(folder.path().join("src")).expect("a folder");
    let manifest = format!(
        "[package]\nname = \"greeter\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{dependencies}\n"
    );
    fs::write(folder.path().join("Cargo.toml"), manifest).expect("written");
    fs::write(folder.path().join("src/main.rs"), MAIN).expect("written");
    // The versions that are on this machine: nothing is fetched.
    fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("copied");
    folder
}

fn on_offshoot() -> TempDir {
    let path = root().join("crates/offshoot");
    // A literal string of TOML, where nothing in a path means anything else.
    user_crate(&format!("offshoot = {{ path = '{}', default-features = false }}", path.display()))
}

fn cargo_offshoot(folder: &TempDir, words: &[&str], limit: Duration) -> Finished {
    let build_folder = host::build_folder();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(&cargo);
    build.args(["build", "--quiet", "--package", "cargo-offshoot", "--manifest-path"]).arg(root().join("Cargo.toml"));
    build.arg("--target-dir").arg(build_folder.parent().unwrap_or(&build_folder));
    bounded::run(&mut build, None, BUILD).expect_code(0);
    // As cargo calls it.
    let mut command = Command::new(build_folder.join("cargo-offshoot"));
    command.arg("offshoot").args(words).current_dir(folder.path()).env("CARGO_NET_OFFLINE", "true");
    // What cargo tells a test of its own package.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command.env_remove("CARGO_TARGET_DIR");
    bounded::run(&mut command, None, limit)
}

fn agents() -> String {
    product::agents();
    host::build_folder().with_file_name("agents").display().to_string()
}

#[test]
fn a_crate_of_its_own_becomes_one_file_whose_functions_run_in_every_context() {
    let name = "a_crate_of_its_own_becomes_one_file_whose_functions_run_in_every_context";
    let own = Triple::of_this_machine().expect("this machine is known");
    if Found::look(own).expect("a compiler").best_for_images().is_none() {
        not_run!(name, format!("no image can be built for {}; `cargo offshoot triples` says why", own.name));
    }
    let tag = Tag::new("outside");
    let folder = on_offshoot();
    let words = ["build", "--profile", "dev", "--triple", own.name, "--agents", &agents()];
    let done = cargo_offshoot(&folder, &words, BUILD);
    done.expect_code(0);
    assert!(done.out().contains(&format!("image {}: recipe ", own.name)), "{done}");
    assert!(done.out().ends_with(", target/offshoot/greeter\n"), "{done}");

    // Alone, under another name.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let file = elsewhere.path().join("hello there");
    fs::rename(folder.path().join("target/offshoot/greeter"), &file).expect("moved");
    drop(folder);
    let mut command = tag.command(&file);
    command.args(["Ada", "Grace"]).current_dir(elsewhere.path());
    let done = bounded::run(&mut command, None, Duration::from_secs(60));
    done.expect_code(0);
    assert_eq!(
        done.out(),
        "Ada is greeted in local -> worker\nGrace is greeted in local -> local -> worker\n",
        "{done}"
    );
    tag.assert_nothing_left(GONE);
}

#[test]
fn what_is_missing_is_told_before_anything_is_built_and_with_the_command_that_brings_it() {
    let folder = on_offshoot();
    let empty = tempfile::tempdir().expect("a folder");
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
        (
            &["build", "--agents", &empty.path().display().to_string()],
            &["error: no agent for ", "\nfix: leave --agents away"],
        ),
        (&["build", "--bin", "other"], &["error: greeter has no bin other", "there are: greeter"]),
    ] {
        let done = cargo_offshoot(&folder, words, quick);
        done.expect_code(1);
        for part in said {
            assert!(done.err().contains(part), "{words:?}: {part:?} is missing\n{done}");
        }
        assert!(!folder.path().join("target/offshoot").exists(), "{words:?} has built something\n{done}");
    }
    let without = user_crate("");
    let done = cargo_offshoot(&without, &["build"], quick);
    done.expect_code(1);
    assert!(done.err().contains("error: the program does not depend on offshoot\nfix: cargo add offshoot"), "{done}");
}

/// A crate of remote functions, and programs that depend on it: one names it, one names a function of it, one does neither.
fn with_errands() -> TempDir {
    let offshoot =
        format!("offshoot = {{ path = '{}' , default-features = false }}", root().join("crates/offshoot").display());
    let folder = user_crate(&format!("{offshoot}\nerrands = {{ path = 'errands' }}\n\n[workspace]"));
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    };
    let package = "[package]\nname = \"errands\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]";
    write("errands/Cargo.toml", &format!("{package}\n{offshoot}\n"));
    write(
        "errands/src/lib.rs",
        "#[offshoot::remote]\npub fn weekday(day: u8) -> String {\n    format!(\"day {day}\")\n}\n",
    );
    let main = |first: &str, call: &str| {
        format!(
            "{first}\nuse offshoot::prelude::*;\n#[offshoot::remote]\nfn own() {{}}\n#[offshoot::main]\nfn main(master: &Master) -> Result<(), \
             offshoot::Error> {{\n    let context = master.local().connect()?;\n    own::on(&context)?;\n    println!(\"{{}}\", {call}?);\n    Ok(())\n}}\n"
        )
    };
    // As one calls who has the function's name from elsewhere: whoever names the function names its crate.
    let by_name = "offshoot::__expansion::call::<_, String>(\"errands::weekday\", &(3u8,)).on(&context)";
    write("src/bin/called.rs", &main("", "errands::weekday::on(&context, 3)"));
    write("src/bin/named.rs", &main("use errands as _;", by_name));
    write("src/bin/unnamed.rs", &main("", by_name));
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
    let done = run("unnamed");
    done.expect_code(1);
    for part in ["no function errands::weekday is among the 1 that are registered there", "`use errands as _;`"] {
        assert!(done.err().contains(part), "{part:?} is missing\n{done}");
    }
    tag.assert_nothing_left(GONE);
}
