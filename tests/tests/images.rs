//! Programs as one file: with agents and images in themselves they call their functions on hosts that have nothing of them, of several architectures.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use offshoot_image::onefile::{Kind, OneFile};
use offshoot_tests::bounded::{self, find_program};
use offshoot_tests::{Fleet, Peer, Tag, bed, host, not_run, or_not_run, product};

/// Three times the seconds in which everything must be gone after a normal end, with hosts a second each for their shells.
const GONE: Duration = Duration::from_secs(12);

const I686: &str = "i686-unknown-linux-musl";
const AARCH64: &str = "aarch64-unknown-linux-musl";

/// The triples besides this machine's for which there are an agent and the library to build an image with.
fn others() -> Vec<&'static str> {
    [AARCH64, I686].into_iter().filter(|triple| missing(triple).is_none()).collect()
}

/// What a test with that triple lacks here.
fn missing(triple: &str) -> Option<String> {
    product::agents();
    let bundle = host::build_folder().with_file_name("agents").join(format!("offshoot-agent-{triple}.bundle"));
    if !bundle.is_file() {
        return Some(format!(
            "no agent for {triple} lies in the build folder; build it by `cargo xtask agents --triple {triple}`"
        ));
    }
    let mut rustc = std::process::Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", triple]);
    let folder = bounded::run(&mut rustc, None, Duration::from_secs(60));
    let there = Path::new(folder.out().trim()).is_dir();
    (!there).then(|| format!("no library for {triple}: `rustup target add {triple}`"))
}

#[test]
fn one_file_runs_from_anywhere_and_holds_an_image_that_runs_for_each_triple() {
    let name = "one_file_runs_from_anywhere_and_holds_an_image_that_runs_for_each_triple";
    let tag = Tag::new("onefile");
    let triples = others();
    let file = product::one_file("install_app", &triples);
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("renamed");
    std::fs::rename(&file, &place).expect("moved");

    let into = folder.path().join("app");
    let mut command = tag.command(&place);
    command.arg(&into).arg("local/local").current_dir(folder.path());
    let done = bounded::run(&mut command, None, Duration::from_secs(60));
    done.expect_code(0);
    assert!(done.out().contains("local/local: the application runs as "), "{done}");

    let one = OneFile::open(File::open(&place).expect("the file")).expect("readable").expect("parts");
    let own = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    for triple in triples.into_iter().chain([own.as_str()]) {
        assert!(one.find(Kind::Agent, triple).is_some(), "an agent for {triple}");
        let part = one.find(Kind::Image, triple).unwrap_or_else(|| panic!("an image for {triple}"));
        let image = folder.path().join(triple);
        std::fs::write(&image, one.read(part).expect("whole")).expect("written");
        std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let mut command = if triple == AARCH64 && own != AARCH64 {
            if find_program("qemu-aarch64-static").is_none() {
                not_run::report(&format!("{name}::{triple}"), "qemu-aarch64-static is not installed");
                continue;
            }
            let mut qemu = tag.command("qemu-aarch64-static");
            qemu.arg(&image);
            qemu
        } else {
            tag.command(&image)
        };
        let usage = bounded::run(&mut command, None, Duration::from_secs(60));
        usage.expect_code(2);
        assert!(usage.err().starts_with("usage: install_app"), "{triple}: {usage}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_program_as_one_file_calls_its_functions_on_hosts_and_behind_sudo_and_sends_its_image_once_per_link() {
    let name = "a_program_as_one_file_calls_its_functions_on_hosts_and_behind_sudo_and_sends_its_image_once_per_link";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("hosts");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[bed::peer("h1"), Peer::new("h2"), Peer::new("h3")]));
    let file = product::one_file("disk_usage", &others());
    let hosts = ["sudo-nopass@h1", "sudo-nopass@h1/sudo:root", "h2", "h3"];
    let arguments = [&["/etc/ssh"], &hosts[..]].concat();
    let done = fleet.one_file(&tag, &file, &arguments).expect("a copy").run();
    done.expect_code(0);
    println!("{}", done.out());
    for host in hosts {
        let line = format!("{host}: ");
        assert_eq!(
            done.out().lines().filter(|l| l.starts_with(&line) && l.contains(" bytes in ")).count(),
            2,
            "{done}"
        );
    }
    let down = |way: &str| -> u64 {
        let line = format!("link to {way}: ");
        let text = done.out();
        let rest = text.lines().find_map(|l| l.strip_prefix(&line)).unwrap_or_else(|| panic!("{line:?}: {done}"));
        rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    };
    // It goes to h1 once, though two contexts there use it.
    let [h1, h2] = ["sudo-nopass@h1", "h2"].map(down);
    assert!(h1 < h2 * 3 / 2, "{h1} bytes to h1, {h2} to h2\n{done}");

    std::fs::remove_file(file).expect("removed");
    tag.assert_nothing_left(GONE);
}

/// A host of another architecture that this machine runs by itself: its logins are told so.
#[test]
fn hosts_of_several_architectures_run_the_functions_of_one_program() {
    let name = "hosts_of_several_architectures_run_the_functions_of_one_program";
    or_not_run!(name, host::allowed());
    if let Some(reason) = missing(I686) {
        not_run!(name, reason);
    }
    let tag = Tag::new("mixed");
    let old = Peer::new("old").sshd("ForceCommand setarch i686 /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), old]));
    let file = product::one_file("disk_usage", &[I686]);
    let done = fleet.one_file(&tag, &file, &["/etc/ssh", "h1", "old", "h1/old"]).expect("a copy").run();
    done.expect_code(0);
    for host in ["h1", "old", "h1/old"] {
        let line = format!("{host}: ");
        assert_eq!(
            done.out().lines().filter(|l| l.starts_with(&line) && l.contains(" bytes in ")).count(),
            2,
            "{done}"
        );
    }
    std::fs::remove_file(file).expect("removed");
    tag.assert_nothing_left(GONE);
}
