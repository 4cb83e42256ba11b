//! The two executables, really built and run on this machine.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use offshoot_loader::build::{Loader, Options, build};
use offshoot_loader::filter;
use offshoot_loader::pack::{Packed, pack, pack_through};
use sha2::{Digest, Sha256};

/// What is loaded: prints its arguments, one variable, how many memory files it has open, its executable, then its input.
const AGENT: &str = r#"
use std::io::{Read, Write};
fn main() {
    let mut out = std::io::stdout();
    writeln!(out, "args={:?}", std::env::args().collect::<Vec<_>>()).unwrap();
    writeln!(out, "env={:?}", std::env::var("LOADER_TEST")).unwrap();
    let open = (3..64).filter_map(|n| std::fs::read_link(format!("/proc/self/fd/{n}")).ok());
    writeln!(out, "memory={:?}", open.filter(|to| to.starts_with("/memfd:")).count()).unwrap();
    writeln!(out, "exe={:?}", std::fs::read_link("/proc/self/exe").unwrap()).unwrap();
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
    writeln!(out, "rest={:?}", String::from_utf8_lossy(&rest)).unwrap();
}
"#;

struct Fixture {
    x86_64: Loader,
    agent: Vec<u8>,
    /// Its [`payload`].
    payload: Vec<u8>,
}

fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let agent = agent();
        Fixture { x86_64: loader("x86_64-unknown-linux-musl"), payload: payload(&agent), agent }
    })
}

/// What is loaded, built once for all test processes. They run side by side: each builds in a folder of its own, and what
/// another one finds is whole or not there.
fn agent() -> Vec<u8> {
    let hash = Sha256::digest(AGENT);
    let built = scratch().join(format!("loaded-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]));
    if let Ok(agent) = fs::read(&built) {
        return agent;
    }
    let folder = scratch().join(format!("loaded-by-{}", std::process::id()));
    let (source, binary) = (folder.join("loaded.rs"), folder.join("loaded"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(&source, AGENT).unwrap();
    let status = Command::new("rustc")
        .args(["-Copt-level=s", "-Cstrip=symbols", "-Clinker=rust-lld", "--target=x86_64-unknown-linux-musl", "-o"])
        .args([&binary, &source])
        .status()
        .unwrap();
    let agent = status.success().then(|| {
        let agent = fs::read(&binary).unwrap();
        fs::rename(binary, built).unwrap();
        agent
    });
    fs::remove_dir_all(folder).unwrap();
    agent.expect("rustc has the target")
}

fn loader(triple: &str) -> Loader {
    build(triple, &Options::new(scratch().join("stages"))).unwrap_or_else(|error| panic!("{error}"))
}

/// Header and packed agent.
fn payload(agent: &[u8]) -> Vec<u8> {
    payload_of(pack(agent).unwrap(), agent)
}

/// For a stage 1 of whatever machine: not every one knows the filter of this machine's code.
fn payload_for_any(agent: &[u8]) -> Vec<u8> {
    payload_of(pack_through(&[filter::NONE], agent).unwrap(), agent)
}

fn payload_of(packed: Packed, agent: &[u8]) -> Vec<u8> {
    let mut out = b"OFS2".to_vec();
    out.extend((packed.bytes.len() as u32).to_le_bytes());
    out.extend((agent.len() as u32).to_le_bytes());
    out.extend([packed.properties, packed.filter, 0, 0]);
    out.extend(Sha256::digest(agent));
    out.extend(packed.bytes);
    out
}

/// A folder of one test, with an executable in it; removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new(name: &str, executable: &[u8]) -> Place {
        let folder = scratch().join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let place = Place(folder);
        fs::write(place.loader(), executable).unwrap();
        fs::set_permissions(place.loader(), fs::Permissions::from_mode(0o700)).unwrap();
        place
    }

    fn loader(&self) -> PathBuf {
        self.0.join("loader")
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the loader with this input and then a tail, which must stay for the agent.
fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut input = input.to_vec();
    input.extend(b"TAIL");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the loader starts");
    let mut pipe = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // A loader that gives up does not read to the end.
        let _ = pipe.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn check_agent(output: &Output, exe: &str) {
    let expected =
        format!("args=[\"offshoot:test\", \"a b\", \"\"]\nenv=Ok(\"kept\")\nmemory=0\nexe=\"{exe}\"\nrest=\"TAIL\"\n");
    assert_eq!(text(output), expected, "{:?}", output.status);
}

fn agent_args(command: &mut Command) -> &mut Command {
    command.args(["offshoot:test", "a b", ""]).env("LOADER_TEST", "kept")
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_IF_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Installs a seccomp filter in `command`'s process.
fn filter(command: &mut Command, program: Vec<libc::sock_filter>) {
    let install = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: the filter outlives the call, which copies it.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: two system calls, no allocation.
    unsafe { command.pre_exec(install) };
}

/// Refuses these system calls with these errnos.
fn refuse(command: &mut Command, calls: &[(libc::c_long, i32)]) {
    let mut program = vec![step(LOAD, 0, 0, 0)];
    for (call, errno) in calls {
        program.push(step(JUMP_IF, 0, 1, *call as u32));
        program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | *errno as u32));
    }
    program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter(command, program);
}

/// Refuses memfd_create with the flag 0x10, as kernels before 6.3 do.
fn refuse_flag(command: &mut Command) {
    let program = vec![
        step(LOAD, 0, 0, 0),
        step(JUMP_IF, 0, 3, libc::SYS_memfd_create as u32),
        // The second argument's low half.
        step(LOAD, 0, 0, 24),
        step(JUMP_IF_BIT, 0, 1, 0x10),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    filter(command, program);
}

#[test]
fn the_test_argument_ends_both_stages_at_once() {
    for stage in [&fixture().x86_64.stage0, &fixture().x86_64.stage1] {
        let place = Place::new("test-argument", stage);
        let status = Command::new(place.loader()).arg("t").stdin(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(0));
        assert_eq!(place.files(), ["loader"], "the file is for the next call");
        assert_eq!(Command::new(place.loader()).stdin(Stdio::null()).status().unwrap().code(), Some(64));
    }
}

#[test]
fn stage_1_runs_the_agent_from_memory_and_leaves_the_rest_of_the_input() {
    let place = Place::new("memory", &fixture().x86_64.stage1);
    let output = run(agent_args(&mut Command::new(place.loader())), &fixture().payload);
    check_agent(&output, "/memfd:offshoot:test (deleted)");
    assert!(place.files().is_empty(), "the loader unlinks itself");
}

#[test]
fn a_loader_without_a_path_of_its_own_unlinks_nothing() {
    let place = Place::new("no-path", &fixture().x86_64.stage1);
    let mut command = Command::new(place.loader());
    command.arg0("loader").current_dir(&place.0);
    check_agent(&run(agent_args(&mut command), &fixture().payload), "/memfd:offshoot:test (deleted)");
    assert_eq!(place.files(), ["loader"]);
}

fn both(loader: &Loader) -> Vec<u8> {
    [&loader.stage1[..], &fixture().payload].concat()
}

#[test]
fn stage_0_runs_stage_1() {
    let place = Place::new("stage0", &fixture().x86_64.stage0);
    let output = run(agent_args(&mut Command::new(place.loader())), &both(&fixture().x86_64));
    check_agent(&output, "/memfd:offshoot:test (deleted)");
    assert!(place.files().is_empty());
}

#[test]
fn the_32_bit_stages_run_on_a_64_bit_kernel() {
    let loader = loader("i686-unknown-linux-musl");
    let place = Place::new("i686", &loader.stage0);
    // Another machine's code, but any bytes pass its filter.
    let agent = &fixture().agent;
    let payload = payload_of(pack_through(&[filter::X86], agent).unwrap(), agent);
    let input = [&loader.stage1[..], &payload].concat();
    let output = run(agent_args(&mut Command::new(place.loader())), &input);
    check_agent(&output, "/memfd:offshoot:test (deleted)");
    assert!(place.files().is_empty());
}

/// A program in `PATH`.
fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.exists())
}

#[test]
fn the_stages_of_other_machines_run_in_an_emulator() {
    let payload = payload_for_any(&fixture().agent);
    for (machine, triple) in [
        ("aarch64", "aarch64-unknown-linux-musl"),
        ("riscv64", "riscv64gc-unknown-linux-musl"),
        ("arm", "armv7-unknown-linux-musleabihf"),
    ] {
        let Some(emulator) = program(&format!("qemu-{machine}-static")).or_else(|| program(&format!("qemu-{machine}")))
        else {
            println!("not run: {triple}: there is no qemu-{machine} in PATH");
            continue;
        };
        let stages = loader(triple);
        // What they run is of this machine: the emulator hands an exec on to the kernel. Stage 0 takes a stage 1 of its
        // own width.
        let next =
            if machine == "arm" { loader("i686-unknown-linux-musl").stage1 } else { fixture().x86_64.stage1.clone() };
        for (stage, input) in [(&stages.stage1, payload.clone()), (&stages.stage0, [&next[..], &payload].concat())] {
            for refused in [&[][..], &[(libc::SYS_memfd_create, libc::EPERM)]] {
                let place = Place::new(machine, stage);
                let test = Command::new(&emulator).arg(place.loader()).arg("t").status().unwrap();
                assert_eq!(test.code(), Some(0), "{triple}");
                let mut command = Command::new(&emulator);
                command.arg(place.loader());
                refuse(&mut command, refused);
                let output = run(agent_args(&mut command), &input);
                // The filter knows 64-bit numbers: what an ARM stage 0 has started is not refused.
                let in_memory = refused.is_empty() || machine == "arm" && std::ptr::eq(stage, &stages.stage0);
                let from = if in_memory { "/memfd:offshoot:test".into() } else { place.loader() };
                check_agent(&output, &format!("{} (deleted)", from.display()));
                assert_eq!(place.files(), Vec::<String>::new(), "{triple}");
            }
        }
        let place = Place::new(machine, &stages.stage1);
        let mut damaged = payload.clone();
        damaged[60] ^= 0xff;
        let output = run(agent_args(Command::new(&emulator).arg(place.loader())), &damaged);
        assert!(matches!(output.status.code(), Some(72 | 90)), "{triple}: {output:?}");
    }
}

#[test]
fn where_memory_files_are_refused_a_file_is_used_and_is_gone_when_the_agent_runs() {
    for (name, refused) in [
        ("eperm", vec![(libc::SYS_memfd_create, libc::EPERM)]),
        ("proc-path", vec![(libc::SYS_execveat, libc::ENOSYS)]),
        ("enosys", vec![(libc::SYS_memfd_create, libc::ENOSYS), (libc::SYS_execveat, libc::ENOSYS)]),
    ] {
        let place = Place::new(name, &fixture().x86_64.stage0);
        let mut command = Command::new(place.loader());
        refuse(&mut command, &refused);
        let output = run(agent_args(&mut command), &both(&fixture().x86_64));
        let said = text(&output);
        assert!(said.contains("rest=\"TAIL\""), "{name}: {said}");
        assert!(said.contains("args=[\"offshoot:test\", \"a b\", \"\"]"), "{name}: {said}");
        // The unlinking process and the agent run side by side.
        let gone = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            place.files().is_empty()
        });
        assert!(gone, "{name}: {:?} stayed", place.files());
    }
}

#[test]
fn the_flag_that_old_kernels_do_not_know_is_left_out() {
    let place = Place::new("flags", &fixture().x86_64.stage1);
    let mut command = Command::new(place.loader());
    refuse_flag(&mut command);
    check_agent(&run(agent_args(&mut command), &fixture().payload), "/memfd:offshoot:test (deleted)");
}

#[test]
fn every_failure_is_typed_and_leaves_no_file() {
    let good = fixture().payload.clone();
    let stage1 = &fixture().x86_64.stage1;
    let changed = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] ^= byte;
        bad
    };
    // Three bytes too many, by the header too.
    let mut more = good.clone();
    more[4..8].copy_from_slice(&(good.len() as u32 - 48 + 3).to_le_bytes());
    let without_tail = |len: usize| good[..len].to_vec();
    let cases = [
        ("empty", &stage1[..], vec![], false, "R000"),
        ("short header", &stage1[..], without_tail(20), false, "R000"),
        ("short agent", &stage1[..], without_tail(good.len() - 5), false, "R000"),
        ("no header", &stage1[..], changed(0, 1), true, "M000"),
        ("absurd length", &stage1[..], changed(7, 0x80), true, "A000"),
        ("wrong hash", &stage1[..], changed(16, 1), true, "H000"),
        ("another length stated", &stage1[..], changed(8, 1), true, "Z000"),
        ("other properties", &stage1[..], changed(12, 0x3f), true, "Z000"),
        ("the filter of another machine", &stage1[..], changed(13, 3), true, "Z000"),
        ("other packed bytes", &stage1[..], changed(60, 0xff), true, "Z000"),
        ("more packed bytes", &stage1[..], [&more[..], b"..."].concat(), true, "Z000"),
        ("no stage 1", &fixture().x86_64.stage0[..], vec![], false, "r000"),
        ("half a stage 1", &fixture().x86_64.stage0[..], stage1[..2000].to_vec(), false, "r000"),
        ("text for a stage 1", &fixture().x86_64.stage0[..], b"some motd\n".repeat(500), true, "r022"),
    ];
    for (name, executable, input, tail, expected) in cases {
        let place = Place::new("failure", executable);
        let mut command = Command::new(place.loader());
        agent_args(&mut command);
        let output = if tail {
            run(&mut command, &input)
        } else {
            let file = place.0.join("input");
            fs::write(&file, &input).unwrap();
            let output = command.stdin(fs::File::open(&file).unwrap()).output().unwrap();
            fs::remove_file(file).unwrap();
            output
        };
        let letter = i32::from(expected.as_bytes()[0]);
        // Damaged data can decode to other data of the same length: then the hash tells.
        let said = text(&output).replace("!LH000", if expected == "Z000" { "!LZ000" } else { "!LH000" });
        assert_eq!(said, format!("\n!L{expected}\n"), "{name}");
        let code = output.status.code();
        assert!(code == Some(letter) || expected == "Z000" && code == Some(72), "{name}: {:?}", output.status);
        assert!(place.files().is_empty(), "{name}: {:?}", place.files());
    }
}

#[test]
fn an_agent_that_cannot_be_executed_is_an_error_with_its_errno() {
    let place = Place::new("noexec", &fixture().x86_64.stage0);
    let input = [&fixture().x86_64.stage1[..], &payload(b"not a program")].concat();
    let output = run(agent_args(&mut Command::new(place.loader())), &input);
    assert_eq!(text(&output), format!("\n!LX{:03}\n", libc::ENOEXEC));
    assert_eq!(output.status.code(), Some(88));
    assert!(place.files().is_empty(), "{:?}", place.files());
}

#[test]
fn a_place_without_room_for_the_agent_is_told_as_that() {
    let place = Place::new("no-room", &fixture().x86_64.stage0);
    let mut command = Command::new(place.loader());
    refuse(&mut command, &[(libc::SYS_memfd_create, libc::EPERM)]);
    // Stage 1 fits, the agent does not; without the signal a write beyond the limit is an error, as on a full disk.
    let limit = || {
        let room = libc::rlimit { rlim_cur: 16 << 10, rlim_max: 16 << 10 };
        // SAFETY: plain system calls on a value of ours.
        let set = unsafe {
            libc::setrlimit(libc::RLIMIT_FSIZE, &room) == 0 && libc::signal(libc::SIGXFSZ, libc::SIG_IGN) == 0
        };
        if set { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: two system calls, no allocation.
    unsafe { command.pre_exec(limit) };
    let output = run(agent_args(&mut command), &both(&fixture().x86_64));
    assert_eq!(text(&output), format!("\n!LX{:03}\n", libc::EFBIG));
    assert!(place.files().is_empty(), "{:?}", place.files());
}

#[test]
fn garbage_as_input_never_crashes_a_stage() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good = payload(&fixture().agent[..60_000]);
    for round in 0..60 {
        let mut bad = good.clone();
        for _ in 0..1 + round % 7 {
            let at = 48 + random() as usize % (bad.len() - 48);
            bad[at] = random() as u8;
        }
        let place = Place::new("garbage", &fixture().x86_64.stage1);
        let output = run(agent_args(&mut Command::new(place.loader())), &bad);
        assert_eq!(output.status.signal(), None, "round {round}");
        assert!(matches!(output.status.code(), Some(72 | 90)), "round {round}: {:?}", output.status);
    }
}

#[test]
fn the_stages_stay_small() {
    let Loader { stage0, stage1 } = &fixture().x86_64;
    // As text in the start line a byte of stage 0 takes 2.3; stage 1 is sent before anything can run. What joins split code
    // is 1,400 bytes of it, and saves ten times as many.
    assert!(stage0.len() <= 1_000, "stage 0 has {} bytes", stage0.len());
    assert!(stage1.len() <= 6_450, "stage 1 has {} bytes", stage1.len());
}

#[test]
fn the_stages_hold_no_path_of_the_machine_that_built_them() {
    for stage in [&fixture().x86_64.stage0, &fixture().x86_64.stage1] {
        assert!(!stage.windows(6).any(|window| window == b"/home/" || window == b".cargo"));
        let os: &OsStr = env!("CARGO_MANIFEST_DIR").as_ref();
        let own = os.as_encoded_bytes();
        assert!(!stage.windows(own.len()).any(|window| window == own));
    }
}
