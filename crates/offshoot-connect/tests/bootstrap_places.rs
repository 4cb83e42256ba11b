//! The bootstrap on targets where little is writable, executable or there at all.
//!
//! The targets are mount namespaces of the test's own, which takes root: without it every test here prints that it was
//! not run.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod bootstrap_peer;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bootstrap_peer::{Agent, Ran, bundle, bundle_of, left_behind, nonce_text, options, run, scratch};
use offshoot_connect::bootstrap::{Bootstrap, BootstrapError, ErrorKind, Event, LoaderStep, Options};

const NO_PERL: &str = "mount --bind /dev/null /usr/bin/perl";
const NO_PYTHON: &str = "mount --bind /dev/null $(readlink -f /usr/bin/python3)";
/// Nothing can be executed from anything that is writable.
const LOCKED: &str = "mount -o remount,bind,ro /; mount --bind /root /root; mount -o remount,bind,ro /root; \
    mount --bind /dev /dev; mount -o remount,bind,noexec /dev; \
    for d in /dev/shm /run /tmp /var/tmp; do mount -t tmpfs -o noexec none $d; done";
/// Where [`Shared::kept`] puts a folder of the host: none of the places, and there wherever the tests run.
const KEPT: &str = "/srv";

/// A target: a namespace that these commands have prepared, and a shell in it.
struct Target {
    prepare: Vec<String>,
    unshare: Vec<&'static str>,
    login: Vec<String>,
    env: Vec<(&'static str, String)>,
    options: Options,
}

impl Target {
    /// None, and a line that says so, where no namespace can be had.
    fn new(prepare: &[&str]) -> Option<Target> {
        let can = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
        if !can.is_ok_and(|status| status.success()) {
            println!("not run: no mount namespace can be made");
            return None;
        }
        Some(Target {
            prepare: prepare.iter().map(|step| (*step).to_owned()).collect(),
            unshare: vec!["-m", "--propagation", "private"],
            login: vec!["/bin/sh".into(), "-c".into()],
            env: vec![("PATH", "/usr/bin:/bin".into()), ("HOME", "/root".into())],
            options: options(),
        })
    }

    fn run(self) -> (Ran, String) {
        let bootstrap = Bootstrap::new(self.options, Instant::now()).unwrap();
        let probe = bootstrap.probe_command();
        let prepare = format!("set -e; {}; exec \"$@\"", self.prepare.join("; "));
        let mut command = Command::new("unshare");
        command.args(&self.unshare).args(["/bin/sh", "-c", &prepare, "sh"]).args(&self.login).arg(&probe);
        command.env_clear().envs(self.env).current_dir("/usr");
        (run(&mut command, bootstrap, usize::MAX), nonce_text(&probe))
    }

    fn agent(self) -> Result<Agent, BootstrapError> {
        let (ran, nonce) = self.run();
        assert_eq!(left_behind(&nonce), Vec::<PathBuf>::new());
        ran.agent
    }
}

/// A folder of the host, which a target sees as a place; afterwards nothing may be in it.
struct Shared(PathBuf);

impl Shared {
    fn new(name: &str) -> Shared {
        let path = scratch().join(format!("place-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Shared(path)
    }

    /// A step that keeps the folder at [`KEPT`], to go before those that cover what it may lie in: a checkout, and so the
    /// folder, can be anywhere, `/tmp` and the home included.
    fn kept(&self) -> String {
        format!("mount --bind '{}' {KEPT}", self.0.display())
    }

    /// [`Shared::kept`], then a step that makes the kept folder the one at `place`, with these options. Without `-n`,
    /// mount writes about it into `/run`, which may be the place.
    fn at(&self, place: &str, options: &str) -> [String; 2] {
        [self.kept(), format!("mount -n --bind {KEPT} {place}; mount -n -o remount,bind,{options} {place}")]
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_any_executable_place_the_interpreters_need_none() {
    for hidden in [None, Some(NO_PERL)] {
        let mut prepare: Vec<&str> = hidden.into_iter().collect();
        prepare.push(LOCKED);
        let Some(target) = Target::new(&prepare) else { return };
        let agent = target.agent().unwrap_or_else(|error| panic!("{hidden:?}: {error}"));
        assert!(agent.field("exe").starts_with("/memfd:"), "{hidden:?}: {}", agent.line);
    }
}

#[test]
fn without_interpreters_either_every_place_is_named_with_its_reason() {
    let shared = Shared::new("noexec");
    let [keep, bind] = shared.at("/tmp", "rw,noexec");
    let Some(mut target) = Target::new(&[&keep, NO_PERL, NO_PYTHON, LOCKED, &bind]) else { return };
    target.env.push(("XDG_RUNTIME_DIR", "/no/such/place".into()));
    let error = target.agent().unwrap_err();
    let ErrorKind::NoExec { tried } = &error.kind else { panic!("{error}") };
    let places: Vec<(&str, i32, &str)> =
        tried.iter().map(|place| (place.place.as_str(), place.status, place.text.as_str())).collect();
    println!("{error}");
    for expected in ["/dev/shm", "/run", "/tmp", "/var/tmp", "/dev"] {
        let (_, status, text) = places.iter().find(|place| place.0 == expected).unwrap_or_else(|| panic!("{error}"));
        assert_eq!((*status, *text), (126, "Permission denied"), "{expected}: {error}");
    }
    for (expected, text) in [("/root", "Read-only file system"), ("/usr", "Read-only file system")] {
        assert!(places.iter().any(|place| place.0 == expected && place.2.contains(text)), "{expected}: {error}");
    }
    assert!(places.iter().any(|place| place.0 == "/no/such/place"), "{error}");
    assert!(!places.iter().any(|place| place.0 == "/"), "an empty name is no place: {error}");
    assert!(error.hint.contains("namespaces"), "{error:?}");
    assert_eq!(shared.files(), Vec::<PathBuf>::new());
}

#[test]
fn each_place_serves_when_it_is_the_only_one() {
    for place in ["/dev/shm", "/run", "/tmp", "/var/tmp", "/dev", "/root", "/usr", "/opt"] {
        let shared = Shared::new(&place.replace('/', "-"));
        let [keep, bind] = shared.at(place, "rw");
        let Some(mut target) = Target::new(&[&keep, NO_PERL, NO_PYTHON, LOCKED]) else { return };
        if place == "/usr" {
            // The working directory: it must keep the programs.
            target.prepare.push("mkdir /run/in; mount -t tmpfs none /run/in; cd /run/in".into());
        } else {
            target.prepare.push(bind);
        }
        if place == "/opt" {
            target.env.push(("XDG_RUNTIME_DIR", "/opt".into()));
        }
        let agent = target.agent().unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(agent.field("exe").starts_with("/memfd:"), "{place}: {}", agent.line);
        assert_eq!(shared.files(), Vec::<PathBuf>::new(), "{place}");
    }
}

#[test]
fn full_disks_are_named_and_the_next_place_is_taken() {
    let full = "for d in /dev/shm /run /tmp; do mount -t tmpfs -o size=4k none $d; head -c 4096 /dev/zero > $d/x; done";
    let Some(target) = Target::new(&[NO_PERL, NO_PYTHON, LOCKED, full, "mount -t tmpfs none /var/tmp"]) else { return };
    target.agent().unwrap();
    let Some(target) = Target::new(&[NO_PERL, NO_PYTHON, LOCKED, full]) else { return };
    let error = target.agent().unwrap_err();
    // dash's own printf says no more than that.
    assert!(error.to_string().contains("I/O error"), "{error}");
}

#[test]
fn memory_files_that_may_not_be_executed_are_replaced_by_files() {
    for (level, hidden) in [(1, ""), (1, NO_PERL), (2, ""), (2, NO_PERL)] {
        let shared = Shared::new("memfd");
        let sysctl = format!("echo {level} > /proc/sys/vm/memfd_noexec");
        let bind = shared.at("/dev/shm", "rw").join("; ");
        let Some(mut target) = Target::new(&[&sysctl, &bind]) else { return };
        target.unshare.extend(["-p", "-f", "--mount-proc"]);
        if !hidden.is_empty() {
            target.prepare.push(hidden.into());
        }
        let agent = target.agent().unwrap_or_else(|error| panic!("level {level}: {error}"));
        let from = if level == 1 { "/memfd:" } else { "/dev/shm/.o" };
        assert!(agent.field("exe").starts_with(from), "level {level}: {}", agent.line);
        assert_eq!(shared.files(), Vec::<PathBuf>::new(), "level {level}");
    }
}

#[test]
fn no_proc_is_needed() {
    for hidden in [&[][..], &[NO_PERL], &[NO_PERL, NO_PYTHON]] {
        let Some(target) = Target::new(&[hidden, &["umount -l /proc"]].concat()) else { return };
        target.agent().unwrap_or_else(|error| panic!("{hidden:?}: {error}"));
    }
}

#[test]
fn neither_a_path_nor_a_home_is_needed() {
    for env in [vec![], vec![("PATH", String::new())], vec![("PATH", "/no/where".into()), ("HOME", "/no/home".into())]]
    {
        for hidden in [&[][..], &[NO_PERL], &[NO_PERL, NO_PYTHON]] {
            let Some(mut target) = Target::new(&[&["PATH=/usr/bin:/bin"], hidden].concat()) else { return };
            // `env` sets it again just before the login shell, which must not see the one that prepares.
            target.login = vec!["/usr/bin/env".into(), "-i".into()];
            target.login.extend(env.iter().map(|(key, value)| format!("{key}={value}")));
            target.login.extend(["/bin/sh".into(), "-c".into()]);
            let agent = target.agent().unwrap_or_else(|error| panic!("{env:?} {hidden:?}: {error}"));
            let path = env.iter().find(|(key, _)| *key == "PATH");
            // A shell may set a PATH of its own where there is none; it must not be one of ours.
            assert!(!agent.line.contains("PATH=/bin:/usr/bin\""), "{env:?}: {}", agent.line);
            if let Some((_, value)) = path {
                assert!(agent.has_env(&format!("PATH={value}")), "{env:?}: {}", agent.line);
            }
        }
    }
}

#[test]
fn missing_chmod_and_rm_leave_no_file() {
    let hide = |name: &str| format!("mount --bind /dev/null /usr/bin/{name}");
    let (chmod, rm, busybox) = (hide("chmod"), hide("rm"), hide("busybox"));
    // Without chmod: busybox does it.
    let Some(target) = Target::new(&[NO_PERL, NO_PYTHON, &chmod]) else { return };
    target.agent().unwrap();
    // Without rm, where nothing is to be removed.
    let Some(target) = Target::new(&[NO_PERL, NO_PYTHON, &rm, &busybox]) else { return };
    target.agent().unwrap();
    // Without rm, where something is: busybox does it.
    let shared = Shared::new("no-rm");
    let [keep, bind] = shared.at("/tmp", "rw,noexec");
    let Some(target) = Target::new(&[&keep, NO_PERL, NO_PYTHON, LOCKED, &bind, &rm]) else { return };
    assert!(matches!(target.agent().unwrap_err().kind, ErrorKind::NoExec { .. }));
    assert_eq!(shared.files(), Vec::<PathBuf>::new());
}

/// Another user of the target, who sees its list of processes and what is in the places. At the names that can be known
/// beforehand there is a pipe, and over it comes a program, once somebody writes there. What is seen in one place is put
/// into the others. Each name is told when it is seen first.
const ATTACKER: &str = r#"
use POSIX; $| = 1; $SIG{CHLD} = "IGNORE";
my ($nonce, $program, @places) = @ARGV;
sub plant {
    my $name = shift;
    POSIX::mkfifo($name, 0777) or return; chmod 0777, $name;
    fork and return;
    alarm 60; open F, "<", $name; link "$program", "$name.new"; rename "$name.new", $name; exit;
}
plant("$_/.o$nonce") for @places;
print "there\n";
for (my $end = time + 60; time < $end;) {
    for my $place (@places) {
        opendir D, $place; my @names = grep { /^\.o/ && !/\.new$/ && !$seen{$place}{$_}++ } readdir D;
        for my $name (@names) { print "$place $name\n"; $_ eq $place or plant("$_/$name") for @places; }
    }
}
"#;

#[test]
fn nothing_is_run_or_written_that_another_user_put_in_a_place() {
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::process::CommandExt;

    for shell in ["dash", "bash", "busybox"] {
        let Some(path) =
            ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(shell)).into_iter().find(|p| p.exists())
        else {
            println!("not run: {shell} is not installed");
            continue;
        };
        // Files can be made in the first place and not run; the second one serves. Both as /tmp is.
        let (first, second) = (Shared::new(&format!("first-{shell}")), Shared::new(&format!("second-{shell}")));
        for place in [&first, &second] {
            fs::set_permissions(&place.0, fs::Permissions::from_mode(0o1777)).unwrap();
        }
        // No other place serves: who comes by did so by a name that the other user did not know.
        let keep = format!("mount --bind '{}' /srv; mount --bind '{}' /opt", first.0.display(), second.0.display());
        let bind = "mount -n --bind /srv /dev/shm; mount -n -o remount,bind,rw,noexec /dev/shm; mount -n --bind /opt /tmp; \
            mount -n -o remount,bind,rw,exec /tmp";
        let Some(mut target) = Target::new(&[NO_PERL, NO_PYTHON, &keep, LOCKED, bind]) else { return };
        if shell == "busybox" {
            target.options.shell = "/run/ash".into();
            target.prepare.push("ln -s /usr/bin/busybox /run/ash".into());
        } else {
            target.options.shell = path.to_str().unwrap().into();
        }
        let nonce = nonce_text(&Bootstrap::new(target.options.clone(), Instant::now()).unwrap().probe_command());
        let traps = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(traps.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // The second place is the target's /tmp.
        let (program, marker) = (traps.path().join("program"), second.0.join("marker"));
        fs::write(&program, "#!/bin/sh\necho \"$0 $*\" >>/tmp/marker\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        // The links to it are the attacker's own.
        std::os::unix::fs::chown(&program, Some(65534), Some(65534)).unwrap();
        let mut attacker = Command::new("perl");
        attacker.args(["-e", ATTACKER, "--", &nonce]).args([&program, &first.0, &second.0]);
        let Ok(mut attacker) = attacker.uid(65534).gid(65534).stdout(Stdio::piped()).spawn() else {
            println!("not run: {shell}: perl is not installed");
            continue;
        };
        let mut said = BufReader::new(attacker.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        let (ran, _) = target.run();
        let _ = Command::new("pkill").args(["-P", &attacker.id().to_string()]).status();
        attacker.kill().unwrap();
        attacker.wait().unwrap();
        let mut names = String::new();
        said.read_to_string(&mut names).unwrap();
        println!("{shell}: seen: {names}");
        assert!(!marker.exists(), "{shell}: run: {:?}", fs::read_to_string(&marker));
        let agent = ran.agent.unwrap_or_else(|error| panic!("{shell}: {error}"));
        assert!(agent.field("exe").starts_with("/memfd:"), "{shell}: {}", agent.line);
    }
}

/// A step that gives a root folder the host's libraries.
fn with_libraries(root: &Shared) -> String {
    let folders = "mkdir lib lib64; mount --bind /lib lib; mount --bind /lib64 lib64";
    format!("cd '{}'; {folders}; cd /usr", root.0.display())
}

/// A root folder with busybox in it and nothing else.
fn busybox_root(name: &str, applets: &[&str], folders: &[&str]) -> Option<Shared> {
    if !Path::new("/usr/bin/busybox").exists() {
        println!("not run: busybox is not installed");
        return None;
    }
    let root = Shared::new(name);
    for folder in ["bin"].iter().chain(folders) {
        fs::create_dir_all(root.0.join(folder)).unwrap();
    }
    fs::copy("/usr/bin/busybox", root.0.join("bin/busybox")).unwrap();
    for applet in applets {
        symlink("busybox", root.0.join("bin").join(applet)).unwrap();
    }
    Some(root)
}

#[test]
fn a_root_with_busybox_alone_is_enough() {
    for folders in [&["tmp", "dev", "proc"][..], &["tmp"], &[]] {
        let name = format!("busybox-{}", folders.len());
        let Some(root) = busybox_root(&name, &["sh", "uname", "chmod", "rm", "id"], folders) else { return };
        let Some(mut target) = Target::new(&["true"]) else { return };
        target.login = ["/usr/sbin/chroot", root.0.to_str().unwrap(), "/bin/sh", "-c"].map(str::to_owned).to_vec();
        let agent = target.agent().unwrap_or_else(|error| panic!("{folders:?}: {error}"));
        assert_eq!(agent.field("cwd"), "/");
        let files = fs::read_dir(&root.0).unwrap().chain(fs::read_dir(root.0.join("bin")).unwrap());
        for file in files.map(|entry| entry.unwrap().file_name()) {
            assert!(!file.to_string_lossy().starts_with(".o"), "{folders:?}: {file:?} stayed");
        }
    }
}

#[test]
fn tools_that_only_the_path_knows_are_found() {
    let Some(root) = busybox_root("path", &["sh"], &["tools", "tmp"]) else { return };
    for tool in ["uname", "chmod", "rm", "id"] {
        symlink("/bin/busybox", root.0.join("tools").join(tool)).unwrap();
    }
    // A shell that, other than busybox's, has no such tools built in.
    fs::remove_file(root.0.join("bin/sh")).unwrap();
    let Ok(_) = fs::copy("/bin/dash", root.0.join("bin/sh")) else {
        println!("not run: dash is not installed");
        return;
    };
    let Some(mut target) = Target::new(&[&with_libraries(&root)]) else { return };
    target.login = ["/usr/bin/env", "PATH=/tools", "/usr/sbin/chroot"].map(str::to_owned).to_vec();
    target.login.extend([root.0.to_str().unwrap(), "/bin/sh", "-c"].map(str::to_owned));
    let agent = target.agent().unwrap();
    assert!(agent.has_env("PATH=/tools"), "{}", agent.line);
    assert_eq!(fs::read_dir(root.0.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_root_without_uname_is_told() {
    // This busybox runs its applets without links, so the shell alone is another one.
    let root = Shared::new("bare");
    fs::create_dir_all(root.0.join("bin")).unwrap();
    let Ok(_) = fs::copy("/bin/dash", root.0.join("bin/sh")) else {
        println!("not run: dash is not installed");
        return;
    };
    let Some(mut target) = Target::new(&[&with_libraries(&root)]) else { return };
    target.login = ["/usr/sbin/chroot", root.0.to_str().unwrap(), "/bin/sh", "-c"].map(str::to_owned).to_vec();
    let error = target.agent().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Answer, "{error}");
    assert!(error.hint.contains("uname"), "{error:?}");
}

#[test]
fn a_connection_that_is_cut_during_the_payload_leaves_no_file_and_no_process() {
    let shared = Shared::new("cut");
    let bind = shared.at("/dev/shm", "rw").join("; ");
    for after in [0usize, 1, 600, 3000, 5000, 50_000] {
        let Some(target) = Target::new(&[NO_PERL, NO_PYTHON, &bind]) else { return };
        let mut bootstrap = Bootstrap::new(target.options, Instant::now()).unwrap();
        let prepare = format!("{}; exec \"$@\"", target.prepare.join("; "));
        let mut child = Command::new("unshare")
            .args(&target.unshare)
            .args(["/bin/sh", "-c", &prepare, "sh", "/bin/sh", "-c", &bootstrap.probe_command()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut bytes = [0; 1000];
        while !matches!(bootstrap.poll_event(), Some(Event::NeedBundle { .. })) {
            let n = std::io::Read::read(&mut stdout, &mut bytes).unwrap();
            assert_ne!(n, 0);
            bootstrap.handle_bytes(&bytes[..n], Instant::now());
        }
        bootstrap.provide(bundle(), Instant::now());
        let mut all = Vec::new();
        while let Some(piece) = bootstrap.poll_output(Instant::now()) {
            all.extend_from_slice(&piece);
        }
        let line = all.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&all[..line + after]).unwrap();
        if after % 2 == 0 {
            // Long enough that the loader waits for more.
            std::thread::sleep(Duration::from_millis(100));
        }
        drop((stdin, stdout));
        let status = child.wait().unwrap();
        assert!(!status.success(), "{after}: {status:?}");
        assert_eq!(shared.files(), Vec::<PathBuf>::new(), "cut after {after} bytes");
    }
}

#[test]
fn the_loaders_own_failures_come_with_step_and_errno() {
    let good = bundle();
    let not_a_program = bundle_of(good.stage0(), good.stage1(), b"not a program");
    let mut agent = good.agent().clone();
    let mut bytes = agent.bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    agent.bytes = bytes.into();
    let damaged =
        offshoot_connect::bundle::Bundle::new(good.triple(), good.stage0().clone(), good.stage1().clone(), agent)
            .unwrap();
    for (name, bundle, steps, errno) in [
        ("not a program", not_a_program, &[LoaderStep::StartAgent][..], 8),
        ("damaged", damaged, &[LoaderStep::Hash, LoaderStep::Unpack], 0),
    ] {
        let Some(mut target) = Target::new(&["true"]) else { return };
        target.options.assume = Some(bundle);
        let error = target.agent().unwrap_err();
        let ErrorKind::Loader { step, errno: got } = error.kind else { panic!("{name}: {error}") };
        assert!(steps.contains(&step), "{name}: {error}");
        assert_eq!(got, errno, "{name}");
    }
}
