//! Programs as one file: with agents and images in themselves they call their functions on hosts that have nothing of them, of several architectures.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use offshoot_build::toolchain::Found;
use offshoot_build::triples::{ALL, Triple};
use offshoot_image::onefile::{Kind, OneFile};
use offshoot_tests::bounded::{self, find_program};
use offshoot_tests::host::Profile;
use offshoot_tests::{Fleet, Peer, Tag, bed, host, not_run, or_not_run, product};

/// Three times the seconds in which everything must be gone after a normal end, with hosts a second each for their shells.
const GONE: Duration = Duration::from_secs(12);

/// How long a program may take that runs by qemu and was not optimized: the promise is for machines, this is for the test not to hang.
const EMULATED: Duration = Duration::from_secs(150);

/// The triples besides this machine's, and what a test with each lacks here.
fn others() -> (Vec<&'static Triple>, Vec<(&'static Triple, String)>) {
    let (mut there, mut not_there) = (Vec::new(), Vec::new());
    for triple in ALL.iter().filter(|triple| !triple.name.starts_with(std::env::consts::ARCH)) {
        match missing(triple) {
            None => there.push(triple),
            Some(reason) => not_there.push((triple, reason)),
        }
    }
    (there, not_there)
}

fn names(triples: &[&'static Triple]) -> Vec<&'static str> {
    triples.iter().map(|triple| triple.name).collect()
}

/// What a test with that triple lacks here.
fn missing(triple: &Triple) -> Option<String> {
    product::agents();
    let agents = host::build_folder().with_file_name("agents");
    let name = triple.name;
    if !agents.join(offshoot_build::agent::bundle_name(name)).is_file() {
        return Some(format!(
            "no agent for {name} lies in the build folder; build it by `cargo xtask agents --triple {name}`"
        ));
    }
    let found = Found::look(triple).expect("a compiler");
    let fix = format!("no image can be built for {name}; `cargo offshoot triples` says why");
    found.best_for_images().is_none().then_some(fix)
}

fn count_lines(text: &str, beginning: &str, end: &str) -> usize {
    text.lines().filter(|line| line.starts_with(beginning) && line.ends_with(end)).count()
}

#[test]
fn one_file_runs_from_anywhere_and_holds_an_image_that_runs_for_each_triple() {
    let name = "one_file_runs_from_anywhere_and_holds_an_image_that_runs_for_each_triple";
    let tag = Tag::new("onefile");
    let (triples, not_there) = others();
    for (triple, reason) in not_there {
        not_run::report(&format!("{name}::{}", triple.name), &reason);
    }
    let file = product::one_file("install_app", &names(&triples));
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
    let own = Triple::of_this_machine().expect("this machine is known");
    for triple in triples.into_iter().chain([own]) {
        assert!(one.find(Kind::Agent, triple.name).is_some(), "an agent for {}", triple.name);
        let part = one.find(Kind::Image, triple.name).unwrap_or_else(|| panic!("an image for {}", triple.name));
        let image = folder.path().join(triple.name);
        std::fs::write(&image, one.read(part).expect("whole")).expect("written");
        std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let mut command = if triple.is_native() {
            tag.command(&image)
        } else {
            let qemu = format!("qemu-{}-static", triple.qemu);
            if find_program(&qemu).is_none() {
                not_run::report(&format!("{name}::{}", triple.name), &format!("{qemu} is not installed"));
                continue;
            }
            let mut command = tag.command(qemu);
            command.arg(&image);
            command
        };
        let usage = bounded::run(&mut command, None, EMULATED);
        usage.expect_code(2);
        assert!(usage.err().starts_with("usage: install_app"), "{}: {usage}", triple.name);
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_program_as_one_file_calls_its_functions_on_hosts_and_behind_sudo_and_sends_its_image_once_per_link() {
    let name = "a_program_as_one_file_calls_its_functions_on_hosts_and_behind_sudo_and_sends_its_image_once_per_link";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("hosts");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[bed::peer("h1"), Peer::new("h2"), Peer::new("h3")]));
    let file = product::one_file("disk_usage", &names(&others().0));
    let hosts = ["sudo-nopass@h1", "sudo-nopass@h1/sudo:root", "h2", "h3"];
    let arguments = [&["/etc/ssh"], &hosts[..]].concat();
    let done = fleet.one_file(&tag, &file, &arguments).expect("a copy").run();
    done.expect_code(0);
    println!("{}", done.out());
    for host in hosts {
        let end = format!(" files of /etc/ssh ({})", std::env::consts::ARCH);
        assert_eq!(count_lines(&done.out(), &format!("{host}: "), &end), 2, "{done}");
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

#[test]
fn an_application_is_installed_on_three_hosts_and_behind_sudo_and_only_the_first_call_brings_the_program() {
    let name = "an_application_is_installed_on_three_hosts_and_behind_sudo_and_only_the_first_call_brings_the_program";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("installs");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[bed::peer("h1"), Peer::new("h2"), Peer::new("h3")]));
    let file = product::one_file("install_app", &[]);
    let hosts = ["sudo-nopass@h1", "sudo-nopass@h1/sudo:root", "h2", "h3"];
    let done = fleet.one_file(&tag, &file, &[&["/tmp/app"], &hosts[..]].concat()).expect("a copy").run();
    done.expect_code(0);
    println!("{}", done.out());
    let bytes = |host: &str, which: &str| -> u64 {
        let (head, middle) = (format!("{host}: the application runs as "), format!(" in /tmp/app ({which}: "));
        let text = done.out();
        let line = text.lines().find(|line| line.starts_with(&head) && line.contains(&middle));
        let line = line.unwrap_or_else(|| panic!("{head:?} {middle:?}: {done}"));
        let number = line.strip_suffix(" bytes over its link)").and_then(|line| line.rsplit(' ').next());
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
    };
    for host in hosts {
        // The image is packed; a call is a hundred bytes, and one that asks for numbers as well.
        let [first, second] = ["first call", "second call"].map(|which| bytes(host, which));
        assert!(first > 200_000, "{host}: {first} bytes came with the first call\n{done}");
        assert!(second < 2_000, "{host}: {second} bytes came with the second call\n{done}");
    }
    for host in ["h1", "h2", "h3"] {
        assert_eq!(fleet.on(host, "cd /tmp/app && ls bin && rm -rf /tmp/app").out(), "app\n", "{host}");
    }
    std::fs::remove_file(file).expect("removed");
    tag.assert_nothing_left(GONE);
}

/// Hosts that are machines of every architecture for which there are an agent and an image: one that this machine runs by itself, the others by qemu.
/// Each is reached from here and from another host, and one host from each.
#[test]
fn hosts_of_several_architectures_run_the_functions_of_one_program() {
    let name = "hosts_of_several_architectures_run_the_functions_of_one_program";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("mixed");
    let (triples, not_there) = others();
    let mut lacks: Vec<(&str, String)> =
        not_there.iter().map(|(triple, reason)| (triple.name, reason.clone())).collect();
    // What `uname -m` says there, and what a program says that was built for it.
    let (mut peers, mut machines, mut built) = (vec![Peer::new("plain")], Vec::new(), Vec::new());
    for triple in triples {
        let (machine, arch) = match triple.name.split('-').next().unwrap_or_default() {
            "i686" => ("i686", "x86"),
            "armv7" => ("armv7l", "arm"),
            "riscv64gc" => ("riscv64", "riscv64"),
            other => (other, other),
        };
        let peer = if triple.is_native() {
            Peer::new(machine).sshd("ForceCommand setarch i686 /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"")
        } else if let Err(reason) = host::available(&[Profile::Foreign(machine)]) {
            lacks.push((triple.name, reason.to_string()));
            continue;
        } else {
            // The interpreters are this machine's, which takes another number for a system call than that machine would.
            Peer::new(machine).profile(Profile::Foreign(machine)).profile(Profile::NoInterpreters)
        };
        peers.push(peer);
        machines.push((machine, arch));
        built.push(triple.name);
    }
    for (triple, reason) in lacks {
        not_run::report(&format!("{name}::{triple}"), &reason);
    }
    if machines.is_empty() {
        not_run!(name, "no host of another architecture can be had here");
    }
    let fleet = or_not_run!(name, Fleet::start(&tag, &peers));
    let file = product::one_file("disk_usage", &built);
    let mut hosts = vec![("plain".to_string(), std::env::consts::ARCH)];
    for (machine, arch) in machines {
        hosts.push((machine.to_string(), arch));
        hosts.push((format!("plain/{machine}"), arch));
        hosts.push((format!("{machine}/plain"), std::env::consts::ARCH));
    }
    let mut arguments = vec!["/etc/ssh"];
    arguments.extend(hosts.iter().map(|(host, _)| host.as_str()));
    let done = fleet.one_file(&tag, &file, &arguments).expect("a copy").deadline(EMULATED).run();
    println!("{}", done.out());
    done.expect_code(0);
    for (host, arch) in &hosts {
        let end = format!(" files of /etc/ssh ({arch})");
        assert_eq!(count_lines(&done.out(), &format!("{host}: "), &end), 2, "{done}");
    }
    std::fs::remove_file(file).expect("removed");
    tag.assert_nothing_left(GONE);
}
